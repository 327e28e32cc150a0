"""`--trace FILE`: every event of the machine as JSON Lines. The schema is documented in docs/trace.md.

The first line is a header; each further line is one event: a sequence number, the virtual time, the running task,
and the event's own fields. Numbers are decimal, as JSON has no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "pagewalk-trace"
VERSION = 1


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
        write(self._dumps({"schema": SCHEMA, "version": VERSION, **header}) + "\n")

    def __call__(self, event: Any) -> None:
        """Write one event."""
        self._number += 1
        kernel = self._machine.kernel
        task = kernel.current.pid if kernel.current is not None else 0
        stamp = {"n": self._number, "time": kernel.clock.now, "task": task}
        self._write(self._dumps({**stamp, **event.to_dict()}) + "\n")


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
