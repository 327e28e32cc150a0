"""The page tables of an address space, read from guest RAM as the MMU reads them, every entry decoded.

    pgd  table at 0x1a000
    [000] @01a000 0000000001b067 -> pud table 0x1b000    P RW US A
      [001] ...
          [005] @01f028 8000000000020067 -> frame 0x20   P RW US A D NX    7ffff7ff5000 anonymous

A line is one entry: its index, the physical address it lies at, its 64 bits, where it points, the names of its bits,
and for a leaf the virtual address it serves and the area that belongs to.
"""

from __future__ import annotations

from bisect import bisect_right
from importlib import import_module
from typing import TYPE_CHECKING, Any

from emu import draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.types import MmStruct

DECODERS = {"x86_64": "emu.draw_arch_x86_64", "aarch64": "emu.draw_arch_arm64"}

ADDRESS_DIGITS = 12  # of a virtual address
BITS_WIDTH = 32  # columns of the names of bits


def decoder_of(name: str) -> Any:
    """The module that knows an architecture's bits."""
    return import_module(DECODERS[name])


class Entry:
    """One used entry of a table."""

    __slots__ = ("address", "bits", "index", "leaf", "level", "name", "pfn", "raw", "where")

    def __init__(
        self,
        level: int,
        name: str,
        index: int,
        where: int,
        raw: int,
        leaf: bool,
        address: int,
        pfn: int,
        bits: list[str],
    ) -> None:
        self.level = level  # 0 is the root
        self.name = name  # of the level: pgd, p4d, pud, pmd, pte
        self.index = index  # within its table
        self.where = where  # physical address of the entry
        self.raw = raw  # its 64 bits
        self.leaf = leaf  # maps memory; else points to a table
        self.address = address  # first virtual address it serves
        self.pfn = pfn  # frame it points to
        self.bits = bits  # names of the bits set

    def __repr__(self) -> str:
        kind = "frame" if self.leaf else "table"
        return f"<{self.name}[{self.index}] {self.raw:#x} {kind} {self.pfn:#x} {' '.join(self.bits)}>"


def entries(mm: MmStruct) -> Iterator[Entry]:
    """All entries in use, depth first, in address order; the kernel's part of the root is left out."""
    if mm.pgd:
        kernel = {index for index, _ in mm.system.kernel_pgd}
        yield from _table(mm, decoder_of(mm.arch.name), 0, mm.pgd, 0, kernel)


def _table(mm: MmStruct, decoder: Any, level: int, table: int, base: int, skip: set[int]) -> Iterator[Entry]:
    """Entries of the table in frame `table` and of everything below it."""
    arch = mm.arch
    shift = arch.level_shifts[level]
    last = level == len(arch.level_shifts) - 1
    first = table << arch.table_word_shift
    for index, raw in enumerate(mm.system.words[first : first + arch.ptrs_per_pte].tolist()):
        if raw == 0 or index in skip:
            continue
        huge = decoder.is_huge(raw, last)
        leaf = last or huge
        address = base | index << shift
        pfn = (raw & arch.PTE_PFN_MASK) >> arch.page_shift
        where = (first + index) * 8
        name = arch.level_names[level]
        yield Entry(level, name, index, where, raw, leaf, address, pfn, decoder.decode(raw, leaf, huge))
        if not leaf:
            yield from _table(mm, decoder, level + 1, pfn, address, set())


def walk(mm: MmStruct, address: int) -> list[Entry]:
    """The entries the MMU reads for one address, root first; it ends at the first empty one, which is not in it."""
    arch = mm.arch
    decoder = decoder_of(arch.name)
    table, found = mm.pgd, []
    for level, shift in enumerate(arch.level_shifts):
        last = level == len(arch.level_shifts) - 1
        index = address >> shift & arch.index_mask
        word = (table << arch.table_word_shift) + index
        raw = mm.system.words[word]
        if raw == 0:
            break
        huge = decoder.is_huge(raw, last)
        leaf = last or huge
        pfn = (raw & arch.PTE_PFN_MASK) >> arch.page_shift
        bits = decoder.decode(raw, leaf, huge)
        found.append(
            Entry(level, arch.level_names[level], index, word * 8, raw, leaf, address >> shift << shift, pfn, bits)
        )
        if leaf:
            break
        table = pfn
    return found


def table_counts(mm: MmStruct) -> dict[str, int]:
    """Page-table pages by level, root first."""
    names = mm.arch.level_names
    counts = dict.fromkeys(names, 0)
    if mm.pgd:
        counts[names[0]] = 1
        for entry in entries(mm):
            if not entry.leaf:
                counts[names[entry.level + 1]] += 1
    return counts


def entry_line(mm: MmStruct, entry: Entry, what: str = "", colour: bool = False) -> str:
    """One line of the drawing; `what` is the area a leaf belongs to."""
    levels = mm.arch.level_names
    target = (
        f"frame {entry.pfn:#x}"
        if entry.leaf
        else f"{levels[entry.level + 1]} table {entry.pfn << mm.arch.page_shift:#x}"
    )
    left = f"{'  ' * entry.level}{entry.name}[{entry.index:03x}]"
    address = draw.paint(f"{entry.address:0{ADDRESS_DIGITS}x}", draw.BLUE if entry.leaf else draw.GREY, colour)
    bits = draw.paint(f"{' '.join(entry.bits):<{BITS_WIDTH}}", draw.CYAN if entry.leaf else draw.GREY, colour)
    line = f"{left:<{8 + 2 * len(levels)}} {address}  @{entry.where:08x}  {entry.raw:016x} -> {target:<20} {bits}"
    return f"{line} {what}".rstrip()


class Names:
    """What lies at an address: the area's name. Made once for a drawing."""

    def __init__(self, mm: MmStruct) -> None:
        self._areas = list(draw.areas(mm))
        self._starts = [vma.vm_start for vma in self._areas]
        self._zero = mm.system.zero_pfn

    def of(self, entry: Entry) -> str:
        """For a leaf, its area, and whether the frame is the zero page; else nothing."""
        at = bisect_right(self._starts, entry.address) - 1
        if not entry.leaf or at < 0 or entry.address >= self._areas[at].vm_end:
            return ""
        name = draw.name_of(self._areas[at]) or "anonymous"
        return f"{name} (zero page)" if entry.pfn == self._zero else name


def tables_text(mm: MmStruct, colour: bool = False) -> str:
    """The whole tree of tables, a legend of the bits, and a line of numbers."""
    if not mm.pgd:
        return "(no page tables)"
    arch = mm.arch
    head = f"{arch.level_names[0]} table at {mm.pgd << arch.page_shift:#x}"
    lines = [f"{head}: {arch.name}, {draw.size_text(arch.page_size)} pages"]
    leaves = 0
    names = Names(mm)
    for entry in entries(mm):
        leaves += entry.leaf
        lines.append(entry_line(mm, entry, names.of(entry), colour))
    counts = ", ".join(f"{count} {name}" for name, count in table_counts(mm).items())
    lines.append(draw.paint(decoder_of(arch.name).BITS_HELP, draw.GREY, colour))
    lines.append(draw.paint(f"tables: {counts}; {leaves} mapped entries", draw.GREY, colour))
    return "\n".join(lines)


def tables_svg(mm: MmStruct) -> str:
    """Tables as columns, one a level; a line joins an entry to the table it points to."""
    rows: list[str] = []
    arch = mm.arch
    column = 250
    at_row = 0
    names = Names(mm)
    parents: dict[int, tuple[float, float]] = {}
    for entry in entries(mm):
        x, y = 10 + entry.level * column, 34 + at_row * 15
        if entry.level and entry.level - 1 in parents:
            px, py = parents[entry.level - 1]
            rows.append(f'<path d="M{px:g} {py:g} H{x - 14:g} V{y - 4:g} H{x - 2:g}" fill="none" stroke="#aaa"/>')
        text = f"[{entry.index:03x}] {entry.raw:016x} {' '.join(entry.bits)}"
        if entry.leaf:
            text += f"  {entry.address:x} {names.of(entry)}"
        rows.append(draw.svg_text(x, y, text, "#08306b" if entry.leaf else "#000"))
        parents[entry.level] = (x + 4, y + 3)
        at_row += entry.leaf
        if not entry.leaf:
            parents[entry.level] = (x + column - 24, y - 4)
    heads = [draw.svg_text(10 + level * column, 14, name, "#888") for level, name in enumerate(arch.level_names)]
    return draw.svg_document(len(arch.level_names) * column + 460, 50 + at_row * 15, heads + rows)
