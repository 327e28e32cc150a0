"""An address space, its tree and its page tables as objects that show themselves: in a terminal, a REPL and Jupyter.

Each holds the mm and reads it when it is shown, so it is never out of date. `str()` is the full drawing, `repr()` the
same within 40 lines, `_repr_html_`/`_repr_svg_` what a notebook displays.

    >>> machine.address_space          # the memory map
    >>> machine.tree                   # the red-black tree, with colours
    >>> machine.page_tables            # every entry, decoded
    >>> machine.page_tables.walk(0x401000)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu import draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emu.draw_pagetables import Entry
    from guest.task import Task
    from mm.types import MmStruct, VmAreaStruct

REPR_LINES = 40


def maps_text(mm: MmStruct, task: Task | None = None) -> str:
    """The memory map as /proc/PID/maps prints it; with its task also the gate area where there is one."""
    from guest.procfs_maps import gate_area, show_map

    lines = [show_map(vma) for vma in draw.areas(mm)]
    gate = None if task is None else gate_area(task)
    if gate is not None:
        lines.append(show_map(gate))
    return "".join(lines).rstrip("\n")


def _shorten(text: str) -> str:
    """At most REPR_LINES lines."""
    lines = text.split("\n")
    if len(lines) <= REPR_LINES:
        return text
    return "\n".join([*lines[: REPR_LINES - 1], f"... {len(lines) - REPR_LINES + 1} more lines, print() shows all"])


class View:
    """Common part of the three views."""

    def __init__(self, mm: MmStruct, task: Task | None = None) -> None:
        self.mm = mm
        self.task = task

    def text(self, colour: bool = False) -> str:
        """The full drawing."""
        raise NotImplementedError

    def svg(self) -> str:
        """The drawing as a stand-alone SVG document."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return _shorten(self.text())

    def _repr_svg_(self) -> str:
        return self.svg()


class AddressSpace(View):
    """The memory map: a sequence of VMAs, lowest first."""

    def text(self, colour: bool = False) -> str:
        """As /proc/PID/maps."""
        return maps_text(self.mm, self.task)

    def __len__(self) -> int:
        return self.mm.map_count

    def __iter__(self) -> Iterator[VmAreaStruct]:
        return draw.areas(self.mm)

    def __getitem__(self, address: int) -> VmAreaStruct:
        """The VMA that contains `address`; KeyError when none does. Not find_vma(): no cache is touched."""
        for vma in draw.areas(self.mm):
            if vma.vm_start <= address < vma.vm_end:
                return vma
        raise KeyError(hex(address))

    def _repr_html_(self) -> str:
        rows = []
        for vma in draw.areas(self.mm):
            length = draw.size_text(vma.vm_end - vma.vm_start)
            span = f"{vma.vm_start:x}-{vma.vm_end:x}"
            rows.append(
                (draw.fill_of(vma), (span, length, draw.permissions(vma), f"{vma.vm_pgoff:x}", draw.name_of(vma)))
            )
        return draw.html_table(("range", "size", "access", "page offset", "what"), rows)

    def svg(self) -> str:
        """One bar an area, not to scale: height grows with the number of digits of the size; gaps are labelled."""
        body: list[str] = []
        y, below = 10.0, 0
        labels = {vma: self._label(vma) for vma in draw.areas(self.mm)}
        width = max([260, *(12 + draw.svg_width(label) for label in labels.values())])
        for vma in draw.areas(self.mm):
            gap = vma.vm_start - below
            if gap:
                body.append(draw.svg_text(120, y + 11, f"gap {draw.rough_size(gap)}", "#999"))
                y += 16
            length = vma.vm_end - vma.vm_start
            height = 14 + 3 * max(0, length.bit_length() - 13)
            body.append(
                f'<rect x="110" y="{y:g}" width="{width}" height="{height}" fill="{draw.fill_of(vma)}" stroke="#888"/>'
            )
            body.append(draw.svg_text(106, y + 11, f"{vma.vm_start:x}", "#333", "end"))
            body.append(draw.svg_text(116, y + 11, labels[vma]))
            y += height
            below = vma.vm_end
        body.append(draw.svg_text(106, y + 11, f"{below:x}", "#333", "end"))
        return draw.svg_document(130 + width, int(y) + 20, body)

    @staticmethod
    def _label(vma: VmAreaStruct) -> str:
        """What stands in an area's bar."""
        return f"{draw.permissions(vma)} {draw.size_text(vma.vm_end - vma.vm_start)} {draw.name_of(vma)}"


class VmaTree(View):
    """The red-black tree of the VMAs."""

    def text(self, colour: bool = False) -> str:
        """See emu/draw_tree.py."""
        from emu.draw_tree import tree_text

        return tree_text(self.mm, colour)

    def svg(self) -> str:
        """Root on top, address order left to right."""
        from emu.draw_tree import tree_svg

        return tree_svg(self.mm)


class PageTables(View):
    """The page-table tree."""

    def text(self, colour: bool = False) -> str:
        """See emu/draw_pagetables.py."""
        from emu.draw_pagetables import tables_text

        return tables_text(self.mm, colour)

    def svg(self) -> str:
        """Tables as columns."""
        from emu.draw_pagetables import tables_svg

        return tables_svg(self.mm)

    def counts(self) -> dict[str, int]:
        """Page-table pages by level, root first."""
        from emu.draw_pagetables import table_counts

        return table_counts(self.mm)

    def walk(self, address: int) -> Walk:
        """What the MMU reads to translate `address`."""
        return Walk(self.mm, address)


class Walk:
    """One walk of the page tables: the entries read, root first."""

    def __init__(self, mm: MmStruct, address: int) -> None:
        from emu.draw_pagetables import walk

        self.mm = mm
        self.address = address
        self.entries: list[Entry] = walk(mm, address)

    @property
    def leaf(self) -> Entry | None:
        """The entry that maps the address, or None when the walk found nothing mapped."""
        return self.entries[-1] if self.entries and self.entries[-1].leaf else None

    @property
    def physical(self) -> int | None:
        """The physical address, or None when the walk found nothing mapped."""
        leaf = self.leaf
        if leaf is None:
            return None
        offset = self.address & ((1 << self.mm.arch.level_shifts[leaf.level]) - 1)
        return (leaf.pfn << self.mm.arch.page_shift) + offset

    def __repr__(self) -> str:
        from emu.draw_pagetables import Names, entry_line

        names = Names(self.mm)
        lines = [entry_line(self.mm, entry, names.of(entry)) for entry in self.entries]
        physical = self.physical
        end = "not mapped" if physical is None else f"physical {physical:#x}"
        return "\n".join([f"virtual {self.address:#x}", *lines, end])

    def _repr_html_(self) -> str:
        rows = [
            (
                "#fff",
                (entry.name, f"{entry.index:#x}", f"{entry.where:#x}", f"{entry.raw:016x}", " ".join(entry.bits)),
            )
            for entry in self.entries
        ]
        physical = self.physical
        end = "not mapped" if physical is None else f"{physical:#x}"
        rows.append(("#eee", ("physical", "", "", end, "")))
        return draw.html_table(("level", "index", "entry at", "entry", "bits"), rows)


VIEWS: dict[str, type[View]] = {"maps": AddressSpace, "tree": VmaTree, "pagetables": PageTables}
