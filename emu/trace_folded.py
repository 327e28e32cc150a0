"""A trace as folded stacks, one a line with its count, for flamegraph.pl, speedscope or inferno.

    sh;/lib/libc.so.6;malloc;fault anon 12

The frames are the program, the file the program counter lies in, the function by that file's symbols, and the event:
`fault RESULT` or `call NAME`. There are no callers in between: a trace does not unwind stacks, and following frame
pointers through code compiled without them, as distributions' is, would make stacks up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.trace_summary import Counts

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_THREAD = 0x10000


class Folded:
    """Counts stacks, prints them sorted at the end.

    Args:
        write: takes text.
        header: of the trace.
    """

    def __init__(self, write: Callable[[str], Any], header: dict[str, Any]) -> None:
        self._write = write
        self._stacks = Counts()
        self._programs: dict[int, str] = {}  # task -> the program it runs
        self._first = str((header.get("program") or ["?"])[0]).rsplit("/", 1)[-1]

    def add(self, event: dict[str, Any]) -> None:
        """See `Form.add`."""
        kind = event["kind"]
        if kind == "fault":
            self._count(event, f"fault {event['result']}")
        elif kind == "syscall_enter":
            if not event["restarted"]:
                self._count(event, f"call {event['name']}")
        elif kind == "exec":
            self._programs[event["pid"]] = event["path"].rsplit("/", 1)[-1]
        elif kind == "fork":
            self._programs[event["child"]] = self._programs.get(event["pid"], "?")
        elif kind == "exit":
            self._programs.pop(event["pid"], None)

    def _count(self, event: dict[str, Any], last: str) -> None:
        program = self._programs.get(event["pid"], self._first)
        place = (event["object"] or "?", event["function"] or "?") if event.get("pc") else ("(exec)",)
        self._stacks.add(";".join(map(frame, (program, *place, last))))

    def end(self) -> None:
        """See `Form.end`."""
        for stack, count in sorted(self._stacks.rows.items(), key=str):
            self._write(f"{stack} {count}\n")
        if self._stacks.others:
            self._write(f"(all others) {self._stacks.others}\n")


def frame(text: str) -> str:
    """A frame's name without what separates frames and lines."""
    return "".join(c if c.isprintable() and c != ";" else "_" for c in text)
