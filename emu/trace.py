"""`--trace FILE`: every event of the machine as JSON Lines. The schema is documented in docs/trace.md.

The first line is a header; each further line is one event: a sequence number, the virtual time, the running task, the
event's own fields, and what only now can be known of it: where the program counter is, which area was touched, how
much memory is resident, and what strace would print (its arguments are in memory that will be gone). The last line
says how the run ended. Numbers are decimal, as JSON has no other. emu/trace_read.py reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import draw
from emu.peek import area_at
from emu.strace import Strace
from emu.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.types import MmStruct, VmAreaStruct

SCHEMA = "pagewalk-trace"
VERSION = 1
WHERE = ("pc", "object", "function")
MEMORY = ("rss", "page_tables")
ADDED = {  # kind -> the fields that the trace adds to the event's own; `strace` may be in any of its kinds
    "fault": (*WHERE, "area", "area_start", "area_end", *MEMORY),
    "syscall_enter": WHERE,
    "syscall_exit": (*MEMORY, "text"),
    "exec": ("arch", "page_size", *MEMORY),
    "end": ("outcome", "status"),
}
BOOLEAN = {False: "false", True: "true"}
PLACES = 65536  # program counters whose fields are kept
SWAPENTS = 2  # index in rss_stat of what is not resident


class Trace:
    """Listener that writes one JSON object a line.

    Args:
        write: takes whole lines.
        machine: has the `kernel`, which knows the time and the running task.
        header: further fields of the first line.
    """

    def __init__(self, write: Callable[[str], Any], machine: Any, header: dict[str, Any]) -> None:
        import json

        self._dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
        self._write = write
        self._machine = machine
        self._number = 0
        self._said: list[str] = []
        self._strace = Strace(self._said.append, machine)
        self._symbols = Symbols()
        self._places: dict[tuple[Any, ...], str] = {}  # of a program counter: its fields, as JSON
        self._area: tuple[Any, ...] = ()  # the area touched last, and its bounds
        self._area_text = ""  # its fields, as JSON
        write(self._dumps({"schema": SCHEMA, "version": VERSION, **header}) + "\n")

    def __call__(self, event: Any) -> None:
        """Write one event."""
        line = QUICK.get(event.kind)
        if line is not None:
            self._write(line(self, event))
            return
        fields = self._stamp()
        fields.update(event.to_dict())
        adder = ADDERS.get(event.kind)
        if adder is not None:
            adder(self, event, fields)
        if event.kind in Strace.KINDS:
            self._strace(event)
            if event.kind == "syscall_exit":
                fields["text"] = self._strace.decoded
            if self._said:
                fields["strace"] = "".join(self._said)
                self._said.clear()
        self._write(self._dumps(fields) + "\n")

    def end(self, outcome: str, status: int) -> None:
        """The run is over: the last line."""
        self._strace.close()
        fields = {**self._stamp(), "kind": "end", "outcome": outcome, "status": status}
        if self._said:
            fields["strace"] = "".join(self._said)
        self._write(self._dumps(fields) + "\n")

    def _stamp(self) -> dict[str, Any]:
        """What every line has."""
        self._number += 1
        kernel = getattr(self._machine, "kernel", None)
        if kernel is None:  # nothing was ever loaded
            return {"n": self._number, "time": 0, "task": 0}
        task = kernel.current.pid if kernel.current is not None else 0
        return {"n": self._number, "time": kernel.clock.now, "task": task}

    # -- the two frequent kinds, which must not double the cost of a fault: no dictionary, no encoder ------------------

    def _pte_line(self, event: Any) -> str:
        """The line of a pte_set."""
        self._number += 1
        kernel = self._machine.kernel
        task = kernel.current
        return (
            f'{{"n":{self._number},"time":{kernel.clock.now},"task":{0 if task is None else task.pid},'
            f'"kind":"pte_set","root":{event.root},"address":{event.address},"old":{event.old},"new":{event.new}}}\n'
        )

    def _fault_line(self, event: Any) -> str:
        """The line of a fault."""
        self._number += 1
        machine = self._machine
        kernel = machine.kernel
        current = kernel.current
        task = kernel.tasks.get(event.pid)
        mm = None if task is None else task.mm
        where = f'"pc":{kernel.cpu.regs[machine.engine.PC]},"object":"","function":""'
        area, rss, tables = '"area":"","area_start":0,"area_end":0', 0, 0
        if task is not None and mm is not None:
            where, area = self._place(mm, kernel.cpu.regs[machine.engine.PC]), self._touched(mm, event.address)
            mine, cached = mm.rss_stat, task.rss_stat
            rss = (mine[0] + mine[1] + mine[3] + cached[0] + cached[1] + cached[3]) * mm.arch.page_size
            tables = mm.pgtables_bytes
        return (
            f'{{"n":{self._number},"time":{kernel.clock.now},"task":{0 if current is None else current.pid},'
            f'"kind":"fault","pid":{event.pid},"address":{event.address},"error_code":{event.error_code},'
            f'"access":"{event.access}","result":"{event.result}","major":{BOOLEAN[event.major]},'
            f'"stack":{BOOLEAN[event.stack]},"signal":{event.signal},"user":{BOOLEAN[event.user]},'
            f'{where},{area},"rss":{rss},"page_tables":{tables}}}\n'
        )

    def _place(self, mm: MmStruct, pc: int) -> str:
        """Fields of a program counter. Kept by file and address: only anonymous code can change under them."""
        vma = area_at(mm, pc)
        if vma is None:
            return f'"pc":{pc},"object":"","function":""'
        key = (pc, vma.vm_file, vma.vm_start, vma.vm_pgoff)
        text = self._places.get(key)
        if text is None:
            name, function = draw.name_of(vma) or "anonymous", self._symbols.function(vma, pc)
            text = f'"pc":{pc},"object":{self._dumps(name)},"function":{self._dumps(function)}'
            if vma.vm_file is not None:
                if len(self._places) >= PLACES:
                    self._places.clear()
                self._places[key] = text
        return text

    def _touched(self, mm: MmStruct, address: int) -> str:
        """Fields of the area at an address; mostly it is the one of the last fault."""
        vma = area_at(mm, address)
        if vma is None:
            return '"area":"","area_start":0,"area_end":0'
        now = (vma, vma.vm_start, vma.vm_end, vma.vm_flags, mm.brk)
        if now != self._area:
            self._area = now
            label = self._dumps(area_label(vma))
            self._area_text = f'"area":{label},"area_start":{vma.vm_start},"area_end":{vma.vm_end}'
        return self._area_text

    # -- what is added ------------------------------------------------------------------------------------------------

    def _mm(self, pid: int) -> tuple[Any, MmStruct | None]:
        """A task and its memory."""
        task = self._machine.kernel.tasks.get(pid)
        return task, None if task is None else task.mm

    def _memory(self, event: Any, fields: dict[str, Any]) -> None:
        """Bytes resident and in page tables."""
        task, mm = self._mm(event.pid)
        if mm is None:
            fields["rss"] = fields["page_tables"] = 0
            return
        pages = sum(mm.rss_stat) + sum(task.rss_stat) - mm.rss_stat[SWAPENTS] - task.rss_stat[SWAPENTS]
        fields["rss"] = pages * mm.arch.page_size
        fields["page_tables"] = mm.pgtables_bytes

    def _where(self, event: Any, fields: dict[str, Any]) -> None:
        """The program counter, the file it lies in, the function."""
        pc = fields["pc"] = self._machine.kernel.cpu.regs[self._machine.engine.PC]
        mm = self._mm(event.pid)[1]
        vma = None if mm is None else area_at(mm, pc)
        fields["object"] = "" if vma is None else draw.name_of(vma) or "anonymous"
        fields["function"] = "" if vma is None else self._symbols.function(vma, pc)

    def _exec(self, event: Any, fields: dict[str, Any]) -> None:
        arch = self._machine.system.arch
        fields["arch"] = arch.name
        fields["page_size"] = arch.page_size
        self._memory(event, fields)


ADDERS: dict[str, Callable[[Trace, Any, dict[str, Any]], None]] = {
    "syscall_enter": Trace._where,
    "syscall_exit": Trace._memory,
    "exec": Trace._exec,
}


QUICK: dict[str, Callable[[Trace, Any], str]] = {"fault": Trace._fault_line, "pte_set": Trace._pte_line}


def area_label(vma: VmAreaStruct) -> str:
    """An area's file or name and what it allows: `/bin/sh r-xp`, `[heap] rw-p`, `anonymous rw-p`."""
    return f"{draw.name_of(vma) or 'anonymous'} {draw.permissions(vma)}"


def event_classes() -> dict[str, type]:
    """Every kind of event there is: kind -> class."""
    from guest import events as guest_events
    from mm import events as mm_events

    found: dict[str, type] = {}
    for module in (mm_events, guest_events):
        for value in vars(module).values():
            if isinstance(value, type) and hasattr(value, "to_dict") and not value.__subclasses__():
                found[value.kind] = value  # type: ignore[attr-defined]
    return found
