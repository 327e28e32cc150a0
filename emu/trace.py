"""`--trace FILE`: every event of the machine as JSON Lines. The schema is documented in docs/trace.md.

The first line is a header; each further line is one event: a sequence number, the virtual time, and the event's own
fields. Numbers are decimal, as JSON has no other.
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
        now: the machine's virtual time in nanoseconds.
    """

    def __init__(self, write: Callable[[str], Any], now: Callable[[], int], header: dict[str, Any]) -> None:
        import json

        self._dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
        self._write = write
        self._now = now
        self._number = 0
        write(self._dumps({"schema": SCHEMA, "version": VERSION, **header}) + "\n")

    def __call__(self, event: Any) -> None:
        """Write one event."""
        self._number += 1
        self._write(self._dumps({"n": self._number, "time": self._now(), **event.to_dict()}) + "\n")


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
