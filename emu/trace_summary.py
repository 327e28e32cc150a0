"""A trace as tables: faults by kind, by area and by instruction; system calls as `strace -c` shows them.

The tables of areas and instructions have a limit of rows while they are counted. A key that comes when the table is
full goes to a row of its own, `(all others)`: counts stay right in sum, and memory stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

LIMIT = 20_000  # keys a table counts
TRAP_NSEC = 1000  # what the virtual clock counts for a trap (guest/clock.py)
FAULT_NSEC = 5000  # and for a page fault
SHOWN = 20  # rows of a table that are printed
RULE = "------ ----------- ----------- --------- --------- ----------------"


class Counts:
    """How often each key came, for the first `LIMIT` of them."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, int] = {}
        self.others = 0
        self.total = 0

    def add(self, key: Hashable) -> None:
        """One more of `key`."""
        rows = self.rows
        self.total += 1
        if key in rows:
            rows[key] += 1
        elif len(rows) < LIMIT:
            rows[key] = 1
        else:
            self.others += 1

    def lines(self, title: str, label: Callable[[Any], str]) -> list[str]:
        """The most frequent first."""
        out = ["", title]
        rows = sorted(self.rows.items(), key=lambda row: (-row[1], str(row[0])))
        for key, count in rows[:SHOWN]:
            out.append(f"{100 * count / self.total:6.2f}% {count:>9}  {label(key)}".rstrip())
        rest = sum(count for _, count in rows[SHOWN:]) + self.others
        if rest:
            out.append(f"{100 * rest / self.total:6.2f}% {rest:>9}  (all others)")
        return out


def trap_cost(header: dict[str, Any]) -> int:
    """Nanoseconds that a trap takes on the machine's clock; they pass before the event it makes."""
    return TRAP_NSEC if header.get("clock", "virtual") == "virtual" else 0


def fault_cost(header: dict[str, Any]) -> int:
    """trap_cost() of a fault that the program, not the kernel, took."""
    return FAULT_NSEC if trap_cost(header) else 0


class CallCount:
    """One row of the calls."""

    __slots__ = ("calls", "errors", "time")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.time = 0  # nanoseconds of the machine's clock


class Summary:
    """Counts everything, prints at the end.

    Args:
        write: takes text.
        header: of the trace.
    """

    def __init__(self, write: Callable[[str], Any], header: dict[str, Any]) -> None:
        self._write = write
        self._program = " ".join(map(str, header.get("program", ())))
        self._kinds, self._areas, self._places = Counts(), Counts(), Counts()
        self._major = self._kernel = self._stack = 0
        self._calls: dict[str, CallCount] = {}
        self._open: dict[int, int] = {}  # task -> when its call began
        self._trap = trap_cost(header)
        self._events = 0
        self._first = self._last = 0

    def add(self, event: dict[str, Any]) -> None:
        """See `Form.add`."""
        kind = event["kind"]
        if not self._events:
            self._first = event["time"]
        self._events += 1
        self._last = event["time"]
        if kind == "fault":
            self._fault(event)
        elif kind == "syscall_enter":
            if not event["restarted"]:
                self._open[event["pid"]] = event["time"]
        elif kind == "syscall_exit":
            self._exit(event)
        elif kind == "exit":
            self._open.pop(event["pid"], None)

    def _fault(self, event: dict[str, Any]) -> None:
        self._kinds.add((event["result"], event["access"]))
        self._major += event["major"]
        self._kernel += not event["user"]
        self._stack += event["stack"]
        area = event.get("area", "")
        # Areas without a name are told apart by where they start; named ones grow, and stay the same.
        start = event["area_start"] if area.startswith("anonymous") else 0
        self._areas.add((area, start))
        self._places.add((event.get("pc", 0), event.get("object", ""), event.get("function", "")))

    def _exit(self, event: dict[str, Any]) -> None:
        name = event["name"]
        row = self._calls.get(name)
        if row is None:
            if len(self._calls) >= LIMIT:
                return
            row = self._calls[name] = CallCount()
        row.calls += 1
        row.errors += -4096 < event["result"] < 0
        row.time += event["time"] - self._open.pop(event["pid"], event["time"]) + self._trap

    def end(self) -> None:
        """See `Form.end`."""
        span = (self._last - self._first) / 1e9
        lines = [f"{self._program}: {self._events} events in {span:.6f} s of the machine's clock", ""]
        faults = self._kinds.total
        lines.append(
            f"{faults} page faults, {self._major} major, {self._kernel} by the kernel, {self._stack} grew a stack"
        )
        if faults:
            lines += self._kinds.lines("Faults by kind", lambda key: f"{key[0]} ({key[1]})")
            lines += self._areas.lines("Faults by area", area_text)
            lines += self._places.lines("Faults by instruction", place_text)
        lines += ["", "System calls", *self._call_lines()]
        self._write("\n".join(lines) + "\n")

    def _call_lines(self) -> list[str]:
        """The table of `strace -c`; the time is the machine's, from entry to return, sleep included."""
        total = CallCount()
        lines = ["% time     seconds  usecs/call     calls    errors syscall", RULE]
        whole = sum(row.time for row in self._calls.values())
        for name, row in sorted(self._calls.items(), key=lambda item: (-item[1].time, -item[1].calls, item[0])):
            lines.append(_call_line(row, whole, name))
            total.calls += row.calls
            total.errors += row.errors
            total.time += row.time
        total_line = _call_line(total, whole, "total")
        return [*lines, RULE, total_line if whole else "100.00" + total_line[6:]]


def _call_line(row: CallCount, whole: int, name: str) -> str:
    share = 100 * row.time / whole if whole else 0.0
    each = row.time // 1000 // row.calls if row.calls else 0
    errors = row.errors or ""
    return f"{share:6.2f} {row.time / 1e9:11.6f} {each:>11} {row.calls:>9} {errors:>9} {name}"


def area_text(key: tuple[str, int]) -> str:
    """A row's area."""
    area, start = key
    if not area:
        return "(no area)"
    return f"{area} at {start:x}" if start else area


def place_text(key: tuple[int, str, str]) -> str:
    """A row's instruction."""
    pc, name, function = key
    return f"{pc:x} {function or '?'} {name}" if pc else "(the kernel, starting a program)"
