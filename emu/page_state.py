"""The state that the page of `pagewalk view` shows, rebuilt from events, kept as a row of numbered cells.

Every field of every object is one cell that holds one number below 2**64: the start of an area, the left child of a
tree node, a page-table entry. An event is then a list of writes (cell, value), and the page steps to any event by doing
them, or undoing them, one after the other; it needs no knowledge of what an mprotect is.

    cells   0 1 2 3 4 5 6 7 8 9 ...
            |---- area 0 ----|-- area 1 --...          the objects' columns say at which cell each begins
    writes  (event 17: cell 2 = 0x7ffff7ff0000) (event 17: cell 8 = 1) (event 18: ...)

The areas' tree is not in the events: it follows from them. The same insertions and removals in the same order, by the
same algorithm (`mm/rbtree.py`), give the same shape and colours; tests/test_view_state.py compares with the machine's.
"""

from __future__ import annotations

from array import array
from typing import Any

from mm.rbtree import rb_erase, rb_insert_color, rb_link_node, rb_next, rb_prev
from mm.types import RbRoot

MASK64 = (1 << 64) - 1

# The cells of an object, in order. emu/page/data.js knows the same names.
AREA = ("alive", "start", "end", "flags", "pgoff", "name", "left", "right", "red")
SPACE = ("alive", "top", "start_brk", "brk")
TASK = ("state", "parent", "space", "comm", "slot0", "slot1", "slot2", "slot3", "lookups", "hits", "file", "anon",
        "shmem", "status")  # fmt: skip
TABLE = ("alive",)
LEAF = ("entry",)
FIELDS = {"area": AREA, "space": SPACE, "task": TASK, "table": TABLE, "leaf": LEAF}
RUNS, ENDED = 1, 2  # a task's state


class Cells:
    """All cells, and the log of writes to them."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.cell = array("I")  # of each write
        self.low = array("I")  # low and high half of the value written
        self.high = array("I")

    def allocate(self, count: int) -> int:
        """Fresh cells that hold 0; the number of the first."""
        first = len(self.values)
        self.values.extend([0] * count)
        return first

    def put(self, cell: int, value: int) -> None:
        """Write, unless the cell holds the value already."""
        if self.values[cell] != value:
            self.values[cell] = value
            self.cell.append(cell)
            self.low.append(value & 0xFFFFFFFF)
            self.high.append(value >> 32 & 0xFFFFFFFF)


class Strings:
    """Texts by number; 0 is the empty one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """The number of a text."""
        if not isinstance(text, str):
            raise TypeError
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        """All texts in order of their numbers."""
        return list(self._numbers)


class Area:
    """One VMA: a node that `mm/rbtree.py` can link, and that remembers to be written out when something changes."""

    __slots__ = ("cell", "end", "flags", "name", "number", "pgoff", "rb_left", "rb_parent", "rb_red", "rb_right",
                 "start", "touched")  # fmt: skip

    touched: set[Area]

    def __init__(self, touched: set[Area], number: int, cell: int) -> None:
        object.__setattr__(self, "touched", touched)
        self.number = number
        self.cell = cell
        self.rb_left: Area | None = None
        self.rb_right: Area | None = None
        self.rb_parent: Area | None = None
        self.rb_red = False
        self.start = self.end = self.flags = self.pgoff = self.name = 0

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self.touched.add(self)


class Space:
    """One address space, named by the frame of its root table while it lives."""

    __slots__ = ("by_end", "by_start", "cell", "leaves", "number", "root", "tables", "tree")

    def __init__(self, number: int, root: int, cell: int) -> None:
        self.number = number
        self.root = root
        self.cell = cell
        self.tree = RbRoot()
        self.by_start: dict[int, Area] = {}
        self.by_end: dict[int, Area] = {}
        self.leaves: dict[int, int] = {}  # address -> cell of its entry
        self.tables: dict[int, int] = {}  # frame -> address, of the tables of the last level


class State:
    """Objects and cells. Each method is what one kind of event does.

    Args:
        page_shift: of the machine; a bare trace tells it in its first exec.
    """

    def __init__(self, page_shift: int = 12) -> None:
        self.page_shift = page_shift
        self.cells = Cells()
        self.strings = Strings()
        self.spaces: dict[int, Space] = {}
        self.tasks: dict[int, int] = {}  # pid -> first cell
        self._tables: dict[int, tuple[int, Space]] = {}  # frame -> cell, owner
        self._touched: set[Area] = set()
        # What never changes of each object, one column a field. `cell` is where its cells begin.
        self.columns: dict[str, dict[str, list[int]]] = {
            "area": {"cell": [], "space": []},
            "space": {"cell": [], "root": []},
            "task": {"cell": [], "pid": []},
            "table": {"cell": [], "space": [], "level": [], "address": [], "pfn": []},
            "leaf": {"cell": [], "space": [], "address": []},
        }
        self._space_of_cell: dict[int, int] = {}

    def _new(self, what: str, **constant: int) -> tuple[int, int]:
        """A new object: (its number among its kind, its first cell)."""
        columns = self.columns[what]
        cell = self.cells.allocate(len(FIELDS[what]))
        number = len(columns["cell"])
        columns["cell"].append(cell)
        for name, value in constant.items():
            columns[name].append(value & MASK64)
        return number, cell

    def flush(self) -> None:
        """Write the areas that changed since the last flush; to be called when an event is complete."""
        if not self._touched:
            return
        put = self.cells.put
        for area in sorted(self._touched, key=lambda area: area.number):
            cell = area.cell
            left, right = area.rb_left, area.rb_right
            values = (area.start, area.end, area.flags, area.pgoff, area.name,
                      0 if left is None else left.number + 1, 0 if right is None else right.number + 1,
                      int(area.rb_red))  # fmt: skip
            for offset, value in enumerate(values, 1):
                put(cell + offset, value)
        self._touched.clear()

    # -- address spaces -----------------------------------------------------------------------------------------------

    def space(self, root: int) -> Space:
        """The living address space of a root table."""
        found = self.spaces.get(root)
        if found is None:
            number, cell = self._new("space", root=root)
            found = self.spaces[root] = Space(number, root, cell)
            self.cells.put(cell, 1)
        return found

    def _set_top(self, space: Space) -> None:
        top = space.tree.rb_node
        self.cells.put(space.cell + 1, 0 if top is None else top.number + 1)

    def insert(self, root: int, start: int, end: int, flags: int, pgoff: int, name: str) -> None:
        """vma_insert: link a new area where its start says."""
        space = self.space(root)
        if start in space.by_start:  # cannot be; a trace with a hole in it can say so
            self.erase(root, start)
        number, cell = self._new("area", space=space.number)
        area = Area(self._touched, number, cell)
        area.start, area.end, area.flags, area.pgoff = start, end, flags, pgoff
        area.name = self.strings.number(name)
        parent, left, at = None, False, space.tree.rb_node
        while at is not None:
            parent, left = at, start < at.start
            at = at.rb_left if left else at.rb_right
        rb_link_node(area, parent, space.tree, left)
        rb_insert_color(area, space.tree)
        space.by_start[start] = space.by_end[end] = area
        self.cells.put(cell, 1)
        self._set_top(space)

    def erase(self, root: int, start: int) -> None:
        """vma_erase: unlink an area."""
        space = self.space(root)
        area = space.by_start.pop(start, None)
        if area is None:
            return
        if space.by_end.get(area.end) is area:
            del space.by_end[area.end]
        rb_erase(area, space.tree)
        self._touched.discard(area)
        self.cells.put(area.cell, 0)
        self._set_top(space)

    def adjust(self, root: int, start: int, end: int, flags: int, pgoff: int) -> None:
        """vma_adjust: an area, known by the border that stayed, has new borders; a neighbour in the way gives way."""
        space = self.space(root)
        area = space.by_start.get(start) or space.by_end.get(end)
        if area is None:
            return
        self._move(space, area, start, end)
        area.flags, area.pgoff = flags, pgoff
        before, after = rb_prev(area), rb_next(area)
        if before is not None and before.end > start:
            self._move(space, before, before.start, start)
        if after is not None and after.start < end:
            self._move(space, after, end, after.end)

    def _move(self, space: Space, area: Area, start: int, end: int) -> None:
        """New borders; what a page of the area maps stays the same."""
        if space.by_start.get(area.start) is area:
            del space.by_start[area.start]
        if space.by_end.get(area.end) is area:
            del space.by_end[area.end]
        area.pgoff = (area.pgoff + ((start - area.start) >> self.page_shift)) & MASK64
        area.start, area.end = start, end
        space.by_start[start] = space.by_end[end] = area

    def set_flags(self, root: int, start: int, flags: int) -> None:
        """vma_flags: an area has other flags."""
        area = self.space(root).by_start.get(start)
        if area is not None:
            area.flags = flags

    def set_brk(self, root: int, start_brk: int, brk: int) -> None:
        """The heap of an address space."""
        cell = self.space(root).cell
        self.cells.put(cell + 2, start_brk)
        self.cells.put(cell + 3, brk)

    def get_brk(self, root: int) -> tuple[int, int]:
        """(start_brk, brk)."""
        cell = self.space(root).cell
        return self.cells.values[cell + 2], self.cells.values[cell + 3]

    # -- page tables --------------------------------------------------------------------------------------------------

    def table(self, level: str, address: int, pfn: int, root: int) -> None:
        """page_table_alloc."""
        space = self.space(root)
        number = self.strings.number(level)
        _, cell = self._new("table", space=space.number, level=number, address=address, pfn=pfn)
        self.cells.put(cell, 1)
        self._tables[pfn] = cell, space
        if level == "pte":
            space.tables[pfn] = address

    def free_table(self, pfn: int) -> None:
        """page_table_free; that of the root table ends the address space."""
        cell, space = self._tables.pop(pfn, (None, None))
        if cell is None or space is None:
            return
        self.cells.put(cell, 0)
        space.tables.pop(pfn, None)
        if pfn == space.root:
            self.cells.put(space.cell, 0)
            self.spaces.pop(pfn, None)

    def entry(self, root: int, address: int, value: int) -> None:
        """pte_set."""
        space = self.space(root)
        cell = space.leaves.get(address)
        if cell is None:
            _, cell = self._new("leaf", space=space.number, address=address)
            space.leaves[address] = cell
        self.cells.put(cell, value)

    # -- tasks --------------------------------------------------------------------------------------------------------

    def task(self, pid: int) -> int:
        """The first cell of a task, which begins to exist."""
        if not 0 <= pid < 1 << 32:
            raise ValueError
        cell = self.tasks.get(pid)
        if cell is None or self.cells.values[cell] == ENDED:
            _, cell = self._new("task", pid=pid)
            self.tasks[pid] = cell
            self.cells.put(cell, RUNS)
        return cell

    def set_task(self, pid: int, **fields: int) -> None:
        """Set fields of a task by their names in TASK."""
        cell = self.task(pid)
        for name, value in fields.items():
            self.cells.put(cell + TASK.index(name), value)

    def get_task(self, pid: int, name: str) -> int:
        """One field of a task."""
        return self.cells.values[self.task(pid) + TASK.index(name)]
