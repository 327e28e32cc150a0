"""Small address spaces for grading: drawn one character a page, built by our own code, handed to the student's.

    PPPP....xxxx      an area of 4 pages named P, a hole, an area named x

A `World` counts which areas the student's code looked at: its areas are `WatchedVma`s, which note every read of a
border or link. A step of an exercise raises `Wrong` with a reason and a drawing when an answer is not right.
"""

from __future__ import annotations

import mmap as host_mmap
from itertools import groupby
from typing import TYPE_CHECKING, Any

from emu.algorithm import where_it_broke
from emu.arch import make_arch
from emu.draw_tree import tree_text
from emu.judge import said
from mm.errors import Errno
from mm.flags import VM_GROWSDOWN, VM_MAYEXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE
from mm.system import System
from mm.types import MmStruct, TaskStruct, VmAreaStruct
from mm.vma_tree import vma_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mm.arch import Arch

BASE = 0x10000000
HOLE = "."
MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
UPPER = VM_READ | VM_WRITE | MAY  # flags of an area with an upper-case name
LOWER = VM_READ | MAY
GUARD_PAGES = 2  # stack_guard_gap of these small worlds
LOOKED_AT = frozenset(
    ("vm_start", "vm_end", "vm_next", "vm_prev", "vm_flags", "rb_left", "rb_right", "rb_parent", "rb_subtree_gap")
)
GEOMETRIES = ("x86_64-4k", "aarch64-4k", "aarch64-16k", "aarch64-64k")


class Wrong(Exception):
    """A step is not passed.

    Attributes:
        reason: one or two sentences that help.
        drawing: the smallest case found, as lines: what was there, what was expected, what came.
    """

    def __init__(self, reason: str, *drawing: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.drawing = [line for block in drawing for line in block.splitlines()]


class Student:
    """The functions of a file under test, by slot of mm.ops."""

    def __init__(self, path: str, functions: dict[str, Callable[..., Any]]) -> None:
        self.path = path
        self.functions = functions
        self.programs: tuple[str, ...] = ()  # further guest commands to try it on
        self.now: Callable[[], str] | None = None  # draws what is being tried, for a step that does not end

    def call(self, slot: str, *arguments: Any, shown: Callable[[], str]) -> tuple[Any, str]:
        """(answer, the answer in words) of one call; a refusal is an answer, a mistake is `Wrong`.

        Args:
            shown: draws the case, should the call break.
        """
        self.now = shown
        try:
            answer = self.functions[slot](*arguments)
        except Errno as refusal:
            return None, said(None, refusal)
        except MemoryError:
            raise
        except NotImplementedError:
            raise Wrong(f"{slot} is not written yet (it raises NotImplementedError).") from None
        except RecursionError:
            raise Wrong(f"{slot} calls itself without end.", shown()) from None
        except Exception as error:  # noqa: BLE001 - the student's code may raise anything
            raise Wrong(f"{slot} broke: {where_it_broke(error, self.path)}", shown()) from None
        try:
            return answer, said(answer)
        except Exception as error:  # noqa: BLE001 - so may what it returned
            raise Wrong(f"{slot} returned something that cannot be shown: {error}", shown()) from None


class WatchedVma(VmAreaStruct):
    """An area that notes that it was looked at."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        get = object.__getattribute__
        if name in LOOKED_AT:
            get(self, "vm_mm").visited.add(id(self))
        return get(self, name)


class WatchedMm(MmStruct):
    """An address space that knows which of its areas were looked at."""

    def __init__(self, system: System) -> None:
        self.visited: set[int] = set()
        super().__init__(system)


def make_geometry(geometry: str) -> Arch:
    """The architecture of `aarch64-16k` and the like."""
    name, size, *la57 = geometry.split("-")
    return make_arch(name, int(size[:-1]) << 10, bool(la57))


class World:
    """A machine without CPU: one task, one address space of areas, no pages."""

    def __init__(self, geometry: str = "x86_64-4k") -> None:
        self.system = System(make_geometry(geometry), memoryview(host_mmap.mmap(-1, 1 << 20)))
        self.page = self.system.page_size
        self.system.stack_guard_gap = GUARD_PAGES * self.page
        self.ops = self.system.mm_ops
        self.ours = {name: getattr(self.ops, name) for name in self.ops.__slots__}
        self.task = TaskStruct(self.system)
        self.system.current = self.task
        self.clear()

    def clear(self) -> None:
        """An empty address space."""
        self.install({})
        self.mm = self.task.mm = WatchedMm(self.system)
        self.task.vmacache[:] = (None,) * 4
        self.task.vmacache_seqnum = 0
        self.names: dict[str, VmAreaStruct] = {}

    def install(self, functions: dict[str, Callable[..., Any]]) -> None:
        """These in place of ours; ours everywhere else."""
        for name, function in {**self.ours, **functions}.items():
            setattr(self.ops, name, function)

    def address(self, page: float) -> int:
        """Address of a page of the drawing."""
        return BASE + int(page * self.page)

    def area(self, first: int, end: int, flags: int = LOWER, pgoff: int | None = None) -> VmAreaStruct:
        """An area of pages [first, end) that is linked nowhere."""
        start = self.address(first)
        return WatchedVma(self.mm, start, self.address(end), flags, 0, 1000 + first if pgoff is None else pgoff)

    def link(self, vma: VmAreaStruct) -> None:
        """Put an area into list and tree, by our own code."""
        links = self.ours["find_vma_links"](self.mm, vma.vm_start, vma.vm_end)
        vma_link(self.mm, vma, *links)

    def draw(self, picture: str) -> dict[str, VmAreaStruct]:
        """Build what a picture shows, from an empty address space; the areas by name. `s` and `S` are stacks."""
        self.clear()
        for name, first, end in runs(picture):
            flags = UPPER if name.isupper() else LOWER
            vma = self.area(first, end, flags | VM_GROWSDOWN if name in "sS" else flags)
            self.names[name] = vma
            self.link(vma)
        return self.names

    def name_of(self, vma: Any) -> str:
        """An answer by the drawing's names."""
        if vma is None:
            return "None"
        for name, known in self.names.items():
            if known is vma:
                return f"area {name}"
        return said(vma)

    def picture(self, pages: int) -> str:
        """The address space as it is now; areas that were not drawn are `*`."""
        name_of = {id(vma): name for name, vma in self.names.items()}
        drawing = [HOLE] * pages
        vma = self.mm.mmap
        seen = 0
        while vma is not None and seen < 1000:
            first, end = (vma.vm_start - BASE) // self.page, (vma.vm_end - BASE) // self.page
            for page in range(max(first, 0), min(end, pages)):
                drawing[page] = name_of.get(id(vma), "*")
            vma = vma.vm_next
            seen += 1
        return "".join(drawing)

    def visits(self, call: Callable[[], Any]) -> tuple[Any, int]:
        """(answer, number of areas the call looked at)."""
        self.mm.visited.clear()
        answer = call()
        return answer, len(self.mm.visited)

    @property
    def tree(self) -> str:
        """The tree, drawn."""
        return tree_text(self.mm)


def runs(picture: str) -> list[tuple[str, int, int]]:
    """(name, first page, end page) of each area of a picture, in order."""
    found = []
    page = 0
    for name, characters in groupby(picture):
        length = len(list(characters))
        if name not in (HOLE, " "):
            found.append((name, page, page + length))
        page += length
    return found


def small_pictures(pages: int, most: int) -> Iterator[str]:
    """Every picture of up to `most` areas on `pages` pages, those with few areas first."""

    def fill(left: int, names: str) -> Iterator[str]:
        if not names:
            yield HOLE * left
            return
        for hole in range(left):
            for length in range(1, left - hole + 1):
                for rest in fill(left - hole - length, names[1:]):
                    yield HOLE * hole + names[0] * length + rest

    for count in range(most + 1):
        yield from fill(pages, "abcdef"[:count])


def ruled(picture: str, mark: int = -1, label: str = "", page: int = 4096) -> str:
    """A picture with page numbers above and an arrow below."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    lines = [
        f"  page   {''.join(digits[i % 36] for i in range(len(picture)))}   (a character is a page of {page} bytes,"
        f" page 0 is {BASE:x})",
        f"  areas  {picture}",
    ]
    if mark >= 0:
        lines.append(f"         {' ' * mark}^ {label}")
    elif label:
        lines.append(f"         {label}")
    return "\n".join(lines)


def answers(expected: str, got: str) -> str:
    """The two lines under a drawing."""
    return f"  expected  {expected}\n  got       {got}"
