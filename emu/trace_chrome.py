"""A trace as Trace Event JSON, which https://ui.perfetto.dev and chrome://tracing open.

    system calls, faults    complete events (ph X); faults of a call lie inside it
    signals                 instants (i) of their thread
    rss, page tables        counters (C) of their process, in bytes
    fork                    a flow (s, f) from the call to the child's first slice
    names                   metadata (M): the program of a process, `PROGRAM TID` of a thread

`ts` and `dur` are microseconds of the virtual clock. On it each trap costs one microsecond, a page fault five, which
pass before the kernel looks at the trap: they are the slice of a fault. With `--clock host` nothing is known of a
fault's length, and it gets none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from emu.strace_values import signal_name
from emu.trace_summary import fault_cost, trap_cost

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_THREAD = 0x10000


class Call:
    """A system call that has not come back."""

    __slots__ = ("args", "name", "start")

    def __init__(self, start: int, name: str, args: list[int]) -> None:
        self.start = start  # nanoseconds
        self.name = name
        self.args = args


class Chrome:
    """Writes the events in the order they end.

    Args:
        write: takes text.
        header: of the trace.
    """

    def __init__(self, write: Callable[[str], Any], header: dict[str, Any]) -> None:
        self._write = write
        self._dumps = json.JSONEncoder(separators=(",", ":")).encode
        self._trap = trap_cost(header)
        self._fault_trap = fault_cost(header)
        self._calls: dict[int, Call] = {}  # by task
        self._process: dict[int, int] = {}  # task -> its thread group
        self._names: dict[int, str] = {}  # thread group -> program
        self._memory: dict[int, tuple[int, int]] = {}  # thread group -> what the counters show
        self._flows = 0
        self._last = 0
        self._handlers: dict[str, Callable[[dict[str, Any], int], None]] = {
            "fault": self._fault,
            "syscall_enter": self._enter,
            "syscall_exit": self._exit,
            "signal": self._signal,
            "exec": self._exec,
            "fork": self._fork,
            "exit": self._ended,
        }
        other = {"program": header.get("program", []), "clock": header.get("clock", "virtual")}
        write(f'{{"displayTimeUnit":"ns","otherData":{self._dumps(other)},"traceEvents":[')
        self._comma = "\n"

    def add(self, event: dict[str, Any]) -> None:
        """See `Form.add`."""
        handler = self._handlers.get(event["kind"])
        if handler is not None:
            self._last = event["time"]
            handler(event, self._process.get(event["pid"], event["pid"]))

    def end(self) -> None:
        """See `Form.end`: calls that never came back last to the end."""
        for pid, call in self._calls.items():
            self._call_slice(pid, call, self._last, {"result": "never returned"})
        self._write("\n]}\n")

    # -- kinds of events ----------------------------------------------------------------------------------------------

    def _enter(self, event: dict[str, Any], process: int) -> None:
        pid = event["pid"]
        if event["restarted"] and pid in self._calls:
            return
        self._close(pid, event["time"] - self._trap)
        self._calls[pid] = Call(event["time"] - self._trap, event["name"], event["args"])

    def _exit(self, event: dict[str, Any], process: int) -> None:
        call = self._calls.pop(event["pid"], None)
        if call is not None:
            arguments: dict[str, Any] = {"result": event["result"]}
            if event.get("injected"):
                arguments["injected"] = True
            arguments["text"] = event.get("text", "")
            self._call_slice(event["pid"], call, event["time"], arguments)
        self._counters(event, process)

    def _fault(self, event: dict[str, Any], process: int) -> None:
        trap = self._fault_trap if event["user"] else 0
        arguments = {
            "address": f"{event['address']:#x}",
            "access": event["access"],
            "area": event.get("area", ""),
            "pc": f"{event.get('pc', 0):#x}",
            "function": event.get("function", ""),
        }
        if event["signal"]:
            arguments["signal"] = signal_name(event["signal"])
        start = event["time"] - trap
        self._slice(f"fault: {event['result']}", "fault", event["pid"], start, trap, arguments)
        self._counters(event, process)

    def _signal(self, event: dict[str, Any], process: int) -> None:
        name = signal_name(event["signal"])
        arguments = {"action": event["action"], "code": event["code"], "sender": event["sender"]}
        self._emit(
            {
                "name": name,
                "cat": "signal",
                "ph": "i",
                "s": "t",
                **self._at(event["pid"], event["time"]),
                "args": arguments,
            }
        )

    def _exec(self, event: dict[str, Any], process: int) -> None:
        pid = event["pid"]
        self._process.setdefault(pid, pid)
        self._name(process, pid, event["path"].rsplit("/", 1)[-1])
        self._counters(event, process)

    def _fork(self, event: dict[str, Any], process: int) -> None:
        child = event["child"]
        group = process if event["flags"] & CLONE_THREAD else child
        self._process[child] = group
        self._name(group, child, self._names.get(process, ""))
        self._flows += 1
        flow = {"name": "fork", "cat": "fork", "id": self._flows}
        self._emit({**flow, "ph": "s", **self._at(event["pid"], event["time"])})
        self._emit({**flow, "ph": "f", **self._at(child, event["time"])})

    def _ended(self, event: dict[str, Any], process: int) -> None:
        pid = event["pid"]
        self._close(pid, event["time"])
        self._process.pop(pid, None)
        if pid == process:
            self._names.pop(pid, None)
            self._memory.pop(pid, None)

    # -- what is written ----------------------------------------------------------------------------------------------

    def _close(self, pid: int, time: int) -> None:
        """End a call that has no exit (exit, rt_sigreturn), at `time` nanoseconds."""
        call = self._calls.pop(pid, None)
        if call is not None:
            self._call_slice(pid, call, time, {})

    def _call_slice(self, pid: int, call: Call, end: int, arguments: dict[str, Any]) -> None:
        shown = [f"{word:#x}" for word in call.args]
        arguments = {**arguments, "args": shown}
        self._slice(call.name, "syscall", pid, call.start, max(0, end - call.start), arguments)

    def _slice(self, name: str, category: str, pid: int, start: int, length: int, arguments: dict[str, Any]) -> None:
        """A complete event; times in nanoseconds."""
        what = {"name": name, "cat": category, "ph": "X", **self._at(pid, start), "dur": length / 1000}
        self._emit({**what, "args": arguments})

    def _at(self, pid: int, time: int) -> dict[str, Any]:
        return {"pid": self._process.get(pid, pid), "tid": pid, "ts": time / 1000}

    def _counters(self, event: dict[str, Any], process: int) -> None:
        """RSS and page tables of the process, where they changed."""
        if "rss" not in event:
            return
        now = (event["rss"], event["page_tables"])
        if self._memory.get(process) == now:
            return
        self._memory[process] = now
        for name, value in zip(("rss", "page tables"), now, strict=True):
            at = {"pid": process, "tid": process, "ts": event["time"] / 1000}
            self._emit({"name": name, "cat": "memory", "ph": "C", **at, "args": {"bytes": value}})

    def _name(self, process: int, pid: int, program: str) -> None:
        """Metadata: what a process and a thread are called."""
        if pid == process or process not in self._names:
            self._names[process] = program
            self._metadata("process_name", process, pid, program)
        self._metadata("thread_name", process, pid, f"{program} {pid}".strip())

    def _metadata(self, kind: str, process: int, pid: int, name: str) -> None:
        self._emit({"name": kind, "ph": "M", "pid": process, "tid": pid, "ts": 0, "args": {"name": name}})

    def _emit(self, event: dict[str, Any]) -> None:
        self._write(self._comma + self._dumps(event))
        self._comma = ",\n"
