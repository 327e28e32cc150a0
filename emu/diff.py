"""`pagewalk diff A B`: what differs between two states of an address space.

A state is what `pagewalk maps --save FILE` wrote, or `State.of(machine)` in Python: the areas, the red-black tree,
every leaf entry of the page tables, a few counters. Two moments of one run:

    pagewalk maps --quiet --at-syscall 10 --save a PROGRAM
    pagewalk maps --quiet --at-syscall 20 --save b PROGRAM
    pagewalk diff a b

Lines begin with `+` (only in B), `-` (only in A) or `~` (in both, changed). An area is the same one when it starts
where it did, or else when it overlaps one of the same name that is left over.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from emu import draw
from emu.errors import PagewalkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emu.options import Options
    from guest.task import Task
    from mm.types import MmStruct

SCHEMA, VERSION = "pagewalk-state", 1
COLOURS = {"+": draw.GREEN, "-": draw.RED, "~": draw.YELLOW}
FILLS = {"+": "#c7e9c0", "-": "#fcbba1", "~": "#fee391", " ": "#eeeeee"}
SWAPENTS = 2  # index in rss_stat of what is not resident


class Area:
    """One VMA, and its node in the tree."""

    __slots__ = ("end", "gap", "name", "offset", "parent", "permissions", "red", "start")

    def __init__(
        self, start: int, end: int, permissions: str, offset: int, name: str, red: bool, parent: int, gap: int
    ) -> None:
        self.start = start
        self.end = end
        self.permissions = permissions
        self.offset = offset  # pages: vm_pgoff
        self.name = name
        self.red = red
        self.parent = parent  # start of the parent's area; -1 for the root
        self.gap = gap  # rb_subtree_gap, bytes

    def text(self) -> str:
        """As in the drawing of the tree."""
        size = draw.size_text(self.end - self.start)
        return f"{self.start:012x}-{self.end:012x} {self.permissions} {size:>6} {self.name or 'anonymous'}"


class Leaf:
    """One leaf entry of the page tables."""

    __slots__ = ("address", "bits", "pfn", "raw", "size")

    def __init__(self, address: int, size: int, raw: int, pfn: int, bits: str) -> None:
        self.address = address
        self.size = size  # bytes it maps
        self.raw = raw
        self.pfn = pfn
        self.bits = bits  # their names, joined by blanks


class State:
    """An address space at one moment."""

    def __init__(self, arch: str, areas: list[Area], leaves: list[Leaf], counters: dict[str, int]) -> None:
        self.arch = arch
        self.areas = areas  # lowest first
        self.leaves = leaves  # lowest first
        self.counters = counters

    @classmethod
    def of(cls, machine: Any) -> State:
        """The first program's memory now. Raises PagewalkError when it is gone."""
        view = machine.address_space
        return cls.of_mm(view.mm, view.task)

    @classmethod
    def of_mm(cls, mm: MmStruct, task: Task | None) -> State:
        """An address space now; `task` holds counters not yet added to its own."""
        from emu.draw_pagetables import entries

        areas = []
        for vma in draw.areas(mm):
            parent = vma.rb_parent
            areas.append(
                Area(
                    vma.vm_start,
                    vma.vm_end,
                    draw.permissions(vma),
                    vma.vm_pgoff,
                    draw.name_of(vma),
                    vma.rb_red,
                    -1 if parent is None else parent.vm_start,
                    vma.rb_subtree_gap,
                )
            )
        shifts = mm.arch.level_shifts
        found = [e for e in entries(mm) if e.leaf]
        leaves = [Leaf(e.address, 1 << shifts[e.level], e.raw, e.pfn, " ".join(e.bits)) for e in found]
        extra = [0, 0, 0, 0] if task is None else task.rss_stat
        pages = sum(mm.rss_stat) + sum(extra) - mm.rss_stat[SWAPENTS] - extra[SWAPENTS]
        counters = {
            "resident": pages * mm.arch.page_size,
            "mapped": mm.total_vm * mm.arch.page_size,
            "page tables": mm.pgtables_bytes,
        }
        return cls(mm.arch.name, areas, leaves, counters)

    def save(self, path: str) -> None:
        """Write it as JSON. Raises OSError."""
        state = {
            "schema": SCHEMA,
            "version": VERSION,
            "arch": self.arch,
            "counters": self.counters,
            "areas": [[getattr(area, name) for name in AREA_FIELDS] for area in self.areas],
            "leaves": [[getattr(leaf, name) for name in LEAF_FIELDS] for leaf in self.leaves],
        }
        with open(path, "w", encoding="ascii") as file:
            json.dump(state, file, separators=(",", ":"))

    @classmethod
    def load(cls, path: str) -> State:
        """Read what `save` wrote. Raises PagewalkError for anything else."""
        try:
            with open(path, encoding="ascii") as file:
                state = json.load(file)
            if state["schema"] != SCHEMA:
                raise ValueError
            if state["version"] > VERSION:
                raise PagewalkError(f"{path}: a state of version {state['version']}; this pagewalk reads {VERSION}")
            areas = [_made(Area, words, AREA_TYPES) for words in state["areas"]]
            leaves = [_made(Leaf, words, LEAF_TYPES) for words in state["leaves"]]
            counters = {str(name): int(value) for name, value in state["counters"].items()}
            return cls(str(state["arch"]), areas, leaves, counters)
        except OSError as error:
            raise PagewalkError(f"{path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PagewalkError(f"{path}: not a state of pagewalk maps --save") from None


AREA_FIELDS = ("start", "end", "permissions", "offset", "name", "red", "parent", "gap")
AREA_TYPES = (int, int, str, int, str, bool, int, int)
LEAF_FIELDS = ("address", "size", "raw", "pfn", "bits")
LEAF_TYPES = (int, int, int, int, str)


def _made(kind: Any, words: list[Any], types: tuple[type, ...]) -> Any:
    """An object of a saved row. Raises TypeError or ValueError when the row is none."""
    if [type(word) for word in words] != list(types):
        raise TypeError
    return kind(*words)


# -- comparing --------------------------------------------------------------------------------------------------------

Pair = tuple["Area | None", "Area | None"]


def pairs(a: State, b: State) -> list[Pair]:
    """The areas of both, each with its other self; lowest first."""
    new = {area.start: area for area in b.areas}
    found: list[Pair] = []
    left: list[Area] = []
    for area in a.areas:
        other = new.pop(area.start, None)
        if other is None:
            left.append(area)
        else:
            found.append((area, other))
    for area in left:
        other = next(
            (o for o in new.values() if o.name == area.name and o.start < area.end and area.start < o.end), None
        )
        if other is not None:
            del new[other.start]
        found.append((area, other))
    found += [(None, area) for area in new.values()]
    return sorted(found, key=lambda pair: min(area.start for area in pair if area is not None))


def mark_of(pair: Pair) -> str:
    """`+`, `-`, `~`, or a blank for an area that is as it was."""
    old, new = pair
    if old is None or new is None:
        return "+" if old is None else "-"
    same = all(getattr(old, name) == getattr(new, name) for name in AREA_FIELDS[:5])
    return " " if same else "~"


def area_lines(a: State, b: State) -> Iterator[str]:
    """Areas added, removed, changed."""
    for old, new in pairs(a, b):
        mark = mark_of((old, new))
        if new is not None and mark != " ":
            was = f"   was {old.text()}" if old is not None else ""
            yield f"{mark} {new.text()}{was}"
        elif old is not None and mark == "-":
            yield f"- {old.text()}"


def tree_lines(a: State, b: State) -> Iterator[str]:
    """Nodes in both trees whose colour, parent or subtree gap is another."""
    before = {area.start: area for area in a.areas}
    for area in b.areas:
        old = before.get(area.start)
        if old is None:
            continue
        changes = []
        if old.red != area.red:
            changes.append("red, was black" if area.red else "black, was red")
        if old.parent != area.parent:
            changes.append(f"child of {_parent(area)}, was of {_parent(old)}")
        if old.gap != area.gap:
            changes.append(f"gap {draw.size_text(area.gap)}, was {draw.size_text(old.gap)}")
        if changes:
            yield f"~ {area.start:012x} {'; '.join(changes)}"


def _parent(area: Area) -> str:
    return "none (the root)" if area.parent < 0 else f"{area.parent:x}"


def leaf_lines(a: State, b: State) -> Iterator[str]:
    """Leaf entries; neighbours that changed alike are one line."""
    old = {leaf.address: leaf for leaf in a.leaves}
    new = {leaf.address: leaf for leaf in b.leaves}
    run: tuple[int, int, str] | None = None  # first address, end, what happened
    for address in sorted(old.keys() | new.keys()):
        what = _leaf_change(old.get(address), new.get(address))
        size = (new.get(address) or old[address]).size
        if run is not None and what == run[2] and address == run[1]:
            run = (run[0], address + size, what)
            continue
        if run is not None and run[2]:
            yield _run_text(run)
        run = (address, address + size, what)
    if run is not None and run[2]:
        yield _run_text(run)


def _leaf_change(old: Leaf | None, new: Leaf | None) -> str:
    """What happened to an entry, its mark first; empty when nothing did."""
    if old is None or new is None:
        leaf = new or old
        return f"{'+' if old is None else '-'} {'' if leaf is None else leaf.bits}"
    if old.raw == new.raw:
        return ""
    before, after = set(old.bits.split()), set(new.bits.split())
    changes = [f"+{bit}" for bit in sorted(after - before)] + [f"-{bit}" for bit in sorted(before - after)]
    if old.pfn != new.pfn:
        changes.append("another frame")
    return f"~ {' '.join(changes) or f'{old.raw:x} -> {new.raw:x}'}"


def _run_text(run: tuple[int, int, str]) -> str:
    start, end, what = run
    return f"{what[0]} {start:012x}-{end:012x} {draw.size_text(end - start):>6}  {what[2:]}"


def counter_lines(a: State, b: State) -> Iterator[str]:
    """Counters that differ."""
    for name, value in b.counters.items():
        old = a.counters.get(name, 0)
        if old != value:
            yield f"~ {name}: {draw.size_text(value)}, was {draw.size_text(old)}"


PARTS: tuple[tuple[str, Callable[[State, State], Iterator[str]]], ...] = (
    ("Areas", area_lines),
    ("Tree", tree_lines),
    ("Page-table entries", leaf_lines),
    ("Counters", counter_lines),
)


def diff_text(a: State, b: State, colour: bool = False) -> str:
    """All differences, by structure."""
    out = []
    for title, lines in PARTS:
        found = [draw.paint(line, COLOURS[line[0]], colour) for line in lines(a, b)]
        if found:
            out += [draw.paint(title, draw.BLACK_NODE, colour), *found, ""]
    return "\n".join(out[:-1]) if out else "no difference"


def diff_svg(a: State, b: State) -> str:
    """Both memory maps side by side, an area a row: green where it is new, red where it went, yellow where changed."""
    row = 20
    width = max([200, *(16 + draw.svg_width(area.text()) for area in (*a.areas, *b.areas))])
    body = [draw.svg_text(10, 18, "A"), draw.svg_text(width + 30, 18, "B")]
    y = 28
    for pair in pairs(a, b):
        mark = mark_of(pair)
        for side, area in enumerate(pair):
            if area is None:
                continue
            x = 10 + side * (width + 20)
            body.append(
                f'<rect x="{x}" y="{y}" width="{width}" height="{row - 4}" fill="{FILLS[mark]}" stroke="#888"/>'
            )
            body.append(draw.svg_text(x + 6, y + 12, area.text()))
        if pair[0] is not None and pair[1] is not None:
            line = f'<line x1="{10 + width}" y1="{y + 8}" x2="{30 + width}" y2="{y + 8}" stroke="#888"/>'
            body.append(line)
        y += row
    return draw.svg_document(2 * width + 40, y + 10, body)


def diff(options: Options) -> int:
    """The command: 0 when nothing differs, 1 when something does."""
    import sys

    a, b = State.load(options.program), State.load(options.arguments[0])
    if a.arch != b.arch:
        raise PagewalkError(f"{options.program} is of {a.arch}, {options.arguments[0]} of {b.arch}")
    colour = options.color == "always" or (options.color == "auto" and sys.stdout.isatty())
    text = diff_text(a, b, colour)
    sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "surrogateescape"))
    if options.svg is not None:
        try:
            with open(options.svg, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(diff_svg(a, b))
        except OSError as error:
            raise PagewalkError(f"--svg {options.svg}: {error.strerror}") from None
    return 1 if diff_text(a, b) != "no difference" else 0
