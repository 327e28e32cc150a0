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
        write(self._dumps({"schema": SCHEMA, "version": VERSION, **header}) + "\n")

    def __call__(self, event: Any) -> None:
        """Write one event."""
        fields = self._stamp(event.kind)
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
        fields = {**self._stamp("end"), "kind": "end", "outcome": outcome, "status": status}
        if self._said:
            fields["strace"] = "".join(self._said)
        self._write(self._dumps(fields) + "\n")

    def _stamp(self, kind: str) -> dict[str, Any]:
        """What every line has."""
        self._number += 1
        kernel = getattr(self._machine, "kernel", None)
        if kernel is None:  # nothing was ever loaded
            return {"n": self._number, "time": 0, "task": 0}
        task = kernel.current.pid if kernel.current is not None else 0
        return {"n": self._number, "time": kernel.clock.now, "task": task}

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

    def _fault(self, event: Any, fields: dict[str, Any]) -> None:
        self._where(event, fields)
        mm = self._mm(event.pid)[1]
        vma = None if mm is None else area_at(mm, event.address)
        fields["area"] = "" if vma is None else area_label(vma)
        fields["area_start"] = 0 if vma is None else vma.vm_start
        fields["area_end"] = 0 if vma is None else vma.vm_end
        self._memory(event, fields)

    def _exec(self, event: Any, fields: dict[str, Any]) -> None:
        arch = self._machine.system.arch
        fields["arch"] = arch.name
        fields["page_size"] = arch.page_size
        self._memory(event, fields)


ADDERS: dict[str, Callable[[Trace, Any, dict[str, Any]], None]] = {
    "fault": Trace._fault,
    "syscall_enter": Trace._where,
    "syscall_exit": Trace._memory,
    "exec": Trace._exec,
}


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
