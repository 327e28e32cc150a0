"""Follows a run for `pagewalk view`: every event goes into columns, and what it changed into `State`.

Events come as the lines of a trace (docs/trace.md), from a file or from a run that is going on. Of a run more can be
known than its events tell; `Sampler` looks at it after every event: the vmacache, the counters of resident pages, and
the accessed and dirty bits that the MMU sets by itself.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from emu.page_state import ENDED, MASK64, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine

STAMP = ("n", "time", "task", "kind")  # what every event has; the columns hold the rest
MAX_EVENTS = 1_000_000  # beyond it a page would be too large for a browser
CLONE_VM = 0x100

# Bits that the CPU sets in an entry without telling: accessed, dirty; on arm64 also "read-only" taken away (DBM).
MMU_BITS = {"x86_64": 0x60, "aarch64": 1 << 55 | 1 << 10 | 1 << 7}


class Columns:
    """The events of one kind: a column for each field, filled with 0 where an event has none."""

    def __init__(self) -> None:
        self.count = 0
        self.numbers: dict[str, tuple[array[int], array[int]]] = {}  # low and high halves
        self.texts: dict[str, array[int]] = {}  # numbers of strings

    def number(self, name: str, value: int) -> None:
        """Set a number of the event that is being added; negative ones as two's complement."""
        pair = self.numbers.get(name)
        if pair is None:
            pair = self.numbers[name] = array("I"), array("I")
        value &= MASK64
        for column, half in zip(pair, (value & 0xFFFFFFFF, value >> 32), strict=True):
            if len(column) < self.count:
                column.extend([0] * (self.count - len(column)))
            column.append(half)

    def text(self, name: str, value: int) -> None:
        """Set a text, by its number."""
        column = self.texts.setdefault(name, array("I"))
        if len(column) < self.count:
            column.extend([0] * (self.count - len(column)))
        column.append(value)

    def pad(self) -> None:
        """All columns to their full length."""
        for column in (*self.texts.values(), *(half for pair in self.numbers.values() for half in pair)):
            column.extend([0] * (self.count - len(column)))


class Recorder:
    """Takes the lines of a trace.

    Attributes:
        header: of the trace.
        arch: "x86_64" or "aarch64"; "" while unknown.
        live: whether a Sampler watched, so that vmacache, counters and MMU bits are known.
        skipped: events beyond MAX_EVENTS, which are not in the page.
    """

    def __init__(self) -> None:
        self.state = State()
        self.header: dict[str, Any] = {}
        self.arch = ""
        self.live = False
        self.skipped = 0
        self.zero_frame = 0
        self.kinds: dict[str, Columns] = {}
        self.kind = array("B")
        self.task = array("I")
        self.time = (array("I"), array("I"))
        self.writes = array("I")  # for each event, the number of writes up to and with it
        self._last_entry = 0
        self._started = False
        self._line = 0

    @property
    def page_size(self) -> int:
        """Bytes."""
        return 1 << self.state.page_shift

    def line(self, text: str) -> None:
        """Take one line; the first is the header. Raises PagewalkError for what is no line of a trace."""
        self._line += 1
        try:
            fields = json.loads(text)
            if not self._started:
                self._begin(fields)
            elif len(self.kind) < MAX_EVENTS:
                self.event(fields)
            else:
                self.skipped += 1
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise PagewalkError(f"line {self._line} is not one of a trace: {text[:60].rstrip()}") from None

    def _begin(self, fields: dict[str, Any]) -> None:
        if fields.get("schema") != "pagewalk-trace":
            raise PagewalkError("not a trace of pagewalk: its first line names no schema")
        if fields.get("version") != 1:
            raise PagewalkError(f"a trace of version {fields.get('version')}; this pagewalk reads version 1")
        self.header = fields
        self._started = True

    # -- columns ------------------------------------------------------------------------------------------------------

    def event(self, fields: dict[str, Any]) -> None:
        """Take one event."""
        kind = fields["kind"]
        columns = self.kinds.get(kind)
        if columns is None:
            if not isinstance(kind, str) or len(self.kinds) == 255:
                raise ValueError
            columns = self.kinds[kind] = Columns()
        pid, time = fields.get("task", 0), fields.get("time", 0)
        self.kind.append(list(self.kinds).index(kind))
        self.task.append(pid)
        self.time[0].append(time & 0xFFFFFFFF)
        self.time[1].append(time >> 32)
        for name, value in fields.items():
            if name in STAMP:
                continue
            if isinstance(value, int):
                columns.number(name, value)
            elif isinstance(value, str):
                columns.text(name, self.state.strings.number(value))
            elif name == "args" and all(isinstance(word, int) for word in value):
                for index, word in enumerate(value[:6]):
                    columns.number(f"arg{index}", word)
            else:
                columns.text(name, self.state.strings.number(json.dumps(value)))
        columns.count += 1
        if pid:
            self.state.task(pid)
        change = CHANGES.get(kind)
        if change is not None:
            change(self, fields)
        self.state.flush()
        self.writes.append(len(self.state.cells.cell))

    def amend(self) -> None:
        """The last event has changed more than it said."""
        self.state.flush()
        self.writes[-1] = len(self.state.cells.cell)

    # -- what each kind changes ---------------------------------------------------------------------------------------

    def _vma_insert(self, f: dict[str, Any]) -> None:
        name = f.get("name", "")
        self.state.insert(f.get("root", 0), f["start"], f["end"], f["flags"], f.get("pgoff", 0), name)

    def _vma_erase(self, f: dict[str, Any]) -> None:
        self.state.erase(f.get("root", 0), f["start"])

    def _vma_adjust(self, f: dict[str, Any]) -> None:
        self.state.adjust(f.get("root", 0), f["start"], f["end"], f["flags"], f.get("pgoff", 0))

    def _vma_flags(self, f: dict[str, Any]) -> None:
        self.state.set_flags(f.get("root", 0), f["start"], f["flags"])

    def _pte_set(self, f: dict[str, Any]) -> None:
        self.state.entry(f["root"], f["address"], f["new"])
        self._last_entry = f["new"]

    def _page_table_alloc(self, f: dict[str, Any]) -> None:
        self.state.table(f["level"], f["address"], f["pfn"], f.get("root", 0))

    def _page_table_free(self, f: dict[str, Any]) -> None:
        self.state.free_table(f["pfn"])

    def _fault(self, f: dict[str, Any]) -> None:
        if not self.zero_frame and f["result"] == "anon-zero":
            self.zero_frame = (self._last_entry & 0x0000_FFFF_FFFF_F000) >> self.state.page_shift

    def _exec(self, f: dict[str, Any]) -> None:
        state, pid = self.state, f["pid"]
        if "page_size" in f:
            self.machine(f["arch"], f["page_size"])
        root = f.get("root", 0)
        comm = state.strings.number(f["path"].rsplit("/", 1)[-1][:15])
        state.set_task(pid, comm=comm, space=state.space(root).number + 1)
        if not self.live:
            state.set_brk(root, 0, 0)

    def _fork(self, f: dict[str, Any]) -> None:
        state, pid, child = self.state, f["pid"], f["child"]
        space = state.space(f["root"]).number + 1 if f.get("root") else state.get_task(pid, "space")
        state.set_task(child, comm=state.get_task(pid, "comm"), parent=pid, space=space)
        if f.get("root") and not f.get("flags", 0) & CLONE_VM:
            parent = self._root_of(pid)
            if parent:
                state.set_brk(f["root"], *state.get_brk(parent))

    def _exit(self, f: dict[str, Any]) -> None:
        status = f["status"] & MASK64
        self.state.set_task(f["pid"], space=0, slot0=0, slot1=0, slot2=0, slot3=0, status=status, state=ENDED)

    def _switch(self, f: dict[str, Any]) -> None:
        self.state.set_task(f["pid"], comm=self.state.strings.number(f["comm"]))

    def _syscall_exit(self, f: dict[str, Any]) -> None:
        """The heap of a bare trace: the first brk() of a program asks where it starts, the later ones move its end."""
        if f["name"] != "brk" or self.live:
            return
        root = self._root_of(f["pid"])
        if root:
            self.state.set_brk(root, self.state.get_brk(root)[0] or f["result"] & MASK64, f["result"] & MASK64)

    def _root_of(self, pid: int) -> int:
        """The root table of a task; 0 where it is not known."""
        number = self.state.get_task(pid, "space")
        return self.state.columns["space"]["root"][number - 1] if number else 0

    def machine(self, arch: str, page_size: int) -> None:
        """What machine it is. Raises ValueError for one there is not."""
        if arch not in MMU_BITS or page_size not in (4096, 16384, 65536):
            raise ValueError
        self.arch = arch
        self.state.page_shift = page_size.bit_length() - 1


CHANGES: dict[str, Callable[[Recorder, dict[str, Any]], None]] = {
    "vma_insert": Recorder._vma_insert,
    "vma_erase": Recorder._vma_erase,
    "vma_adjust": Recorder._vma_adjust,
    "vma_flags": Recorder._vma_flags,
    "pte_set": Recorder._pte_set,
    "page_table_alloc": Recorder._page_table_alloc,
    "page_table_free": Recorder._page_table_free,
    "fault": Recorder._fault,
    "exec": Recorder._exec,
    "fork": Recorder._fork,
    "exit": Recorder._exit,
    "switch": Recorder._switch,
    "syscall_exit": Recorder._syscall_exit,
}


class Sampler:
    """Listener that looks at the machine after each event, and adds what it sees to the event just recorded.

    Subscribe it behind the `Trace` that feeds the recorder.
    """

    def __init__(self, machine: Machine, recorder: Recorder) -> None:
        self._machine = machine
        self._recorder = recorder
        self._turn = 0
        recorder.live = True

    def __call__(self, event: Any) -> None:
        """Take one event."""
        recorder = self._recorder
        if recorder.skipped:
            return
        if not recorder.arch:
            arch = self._machine.system.arch
            recorder.machine(arch.name, arch.page_size)
            recorder.zero_frame = self._machine.system.zero_pfn
        task = self._machine.kernel.current
        mm = None if task is None else task.mm
        if task is None or mm is None or mm.pgd not in recorder.state.spaces:
            return
        self._look_at_task(task, mm)
        self._look_at_table(mm)
        recorder.amend()

    def _look_at_task(self, task: Any, mm: Any) -> None:
        """vmacache, counters, heap."""
        state = self._recorder.state
        space = state.space(mm.pgd)
        valid = task.vmacache_seqnum == mm.vmacache_seqnum
        values = []
        for vma in task.vmacache:
            area = space.by_start.get(vma.vm_start) if valid and vma is not None else None
            values.append(0 if area is None else area.number + 1)
        rss = [(shared + own) & MASK64 for shared, own in zip(mm.rss_stat, task.rss_stat, strict=True)]
        values += [task.vmacache_find_calls, task.vmacache_find_hits, rss[0], rss[1], rss[3]]
        cell = state.task(task.pid)
        put = state.cells.put
        put(cell + 2, space.number + 1)
        for offset, value in enumerate(values, 4):  # slot0 ... shmem
            put(cell + offset, value)
        state.set_brk(mm.pgd, mm.start_brk, mm.brk)

    def _look_at_table(self, mm: Any) -> None:
        """Accessed and dirty bits of one table of the last level; the next event looks at the next."""
        state = self._recorder.state
        space = state.space(mm.pgd)
        if not space.tables:
            return
        self._turn = (self._turn + 1) % len(space.tables)
        pfn, base = list(space.tables.items())[self._turn]
        arch = mm.arch
        first = pfn << arch.table_word_shift
        bits = MMU_BITS[arch.name]
        values = state.cells.values
        for index, entry in enumerate(mm.system.words[first : first + arch.ptrs_per_pte].tolist()):
            if entry:
                cell = space.leaves.get(base + (index << arch.page_shift))
                if cell is not None and values[cell] != entry and not (values[cell] ^ entry) & ~bits:
                    state.cells.put(cell, entry)
