"""System calls, signals and ends of processes in the format of strace(1), from the machine's event stream.

`Strace` is a listener: give it events in order and it writes lines. Arguments are printed when the call starts, what
the call fills when it comes back, so a call that sleeps is visible; when another process speaks meanwhile, the line is
cut with `<unfinished ...>` and taken up by `<... NAME resumed>`. The start of a writing call is held back until it
returns, so that the program's own output does not land in the middle of a line. Memory is read with
emu/peek.py: tracing causes no fault, moves no counter and sets no accessed bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import strace_calls
from emu.peek import peek
from emu.strace_more import siginfo_fields
from emu.strace_structs import pointer_array
from emu.strace_values import MAX_STRING, Syscall, quote, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMN = 40  # where `= result` starts (strace -a)
HELD_BACK = frozenset(
    ["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendfile", "splice", "copy_file_range"]
)
NEVER_RETURN = ("exit", "exit_group")
SIGKILL = 9


class Pending:
    """A call that has started: what is being shown, and those of its arguments that are printed."""

    __slots__ = ("call", "cut", "shown")

    def __init__(self, call: Syscall, shown: list[str]) -> None:
        self.call = call
        self.shown = shown
        self.cut = False  # `<unfinished ...>` was written


class Strace:
    """Listener that writes strace's lines.

    Args:
        write: takes text; whole lines, or the start of one that will be continued.
        machine: has the `kernel`, where the memory and the registers of the task that calls are found.
    """

    KINDS = ("syscall_enter", "syscall_exit", "signal", "exec", "fork", "exit")

    def __init__(self, write: Callable[[str], None], machine: Any) -> None:
        self._write = write
        self._machine = machine
        self._abi: Any = None
        self._pending: dict[int, Pending] = {}
        self._alive: set[int] = set()
        self._line = ""  # the line begun, and not ended
        self._line_pid = 0
        self._held = False  # nothing of it was written yet
        self._ignored: dict[int, list[Any]] = {}  # by pid: signals it ignores, not shown yet
        self.decoded = ""  # the call that came back last, on one line, whatever cut it

    def __call__(self, event: Any) -> None:
        """Take one event; kinds it does not know are ignored."""
        handler = HANDLERS.get(event.kind)
        if handler is not None:
            handler(self, event)

    # -- events -------------------------------------------------------------------------------------------------------

    def enter(self, event: Any) -> None:
        """A call starts: its name and what is known of its arguments."""
        pid = event.pid
        if pid in self._pending:  # the same call again after its task slept
            return
        if self._ignored:
            self._show_ignored(pid)
        self._alive.add(pid)
        call = self.syscall(event)
        shown = strace_calls.argument_texts(call, on_entry=True)
        self._begin(pid, f"{event.name}({', '.join(shown)}")
        if event.name in NEVER_RETURN:
            self._end(") ", "= ?")
            return
        self._pending[pid] = Pending(call, shown[:-1] if shown[-1:] == [""] else shown)
        self._held = event.name in HELD_BACK
        self._flush()

    def exit(self, event: Any) -> None:
        """A call is back: the rest of its arguments and the result."""
        pending = self._pending.pop(event.pid, None)
        if pending is None:
            return
        call = pending.call
        call.result = event.result
        if pending.cut or self._line_pid != event.pid:
            self._begin(event.pid, f"<... {call.name} resumed>")
        texts = strace_calls.argument_texts(call, on_entry=False)[len(pending.shown) :]
        mark = " (INJECTED)" if event.injected else ""
        result = f"= {strace_calls.shown_result(call)}{mark}"
        self.decoded = f"{call.name}({strace_calls.joined(pending.shown + texts)}) {result}"
        self._end(f"{strace_calls.joined(texts)}) ", result)
        if self._ignored:
            self._show_ignored(event.pid)

    def signal(self, event: Any) -> None:
        """A signal is delivered. strace, a tracer, also gets ignored ones, when their task next leaves the kernel."""
        if event.signal == SIGKILL:
            return  # no tracer is asked
        if event.action == "ignore":
            if event.pid in self._alive:
                self._ignored.setdefault(event.pid, []).append(event)
            return
        self._show_signal(event)

    def _show_ignored(self, pid: int) -> None:
        """Signals that came meanwhile for `pid` and mean nothing to it."""
        for event in self._ignored.pop(pid, ()):
            self._show_signal(event)

    def _show_signal(self, event: Any) -> None:
        self._begin(event.pid, f"--- {signal_name(event.signal)} {{{', '.join(siginfo_fields(event))}}} ---")
        self._end()
        if event.action == "stop":
            self._begin(event.pid, f"--- stopped by {signal_name(event.signal)} ---")
            self._end()

    def exec(self, event: Any) -> None:
        """execve succeeded: for the first program nobody saw the call, so its line is written here."""
        self._alive.add(event.pid)
        if event.pid in self._pending:
            return
        call = self.syscall(event, name="execve", args=())
        argv = ", ".join(_argument(text) for text in event.argv)
        envp = event.stack + 8 * (len(event.argv) + 2)
        count = len(pointer_array(call, envp) or ())
        plural = "" if count == 1 else "s"
        path = quote(event.path.encode("utf-8", "surrogateescape"))
        self._begin(event.pid, f"execve({path}, [{argv}], {envp:#x} /* {count} var{plural} */")
        self._end(") ", "= 0")

    def fork(self, event: Any) -> None:
        """A process more: strace says so at once, in the middle of the call; from now on lines carry pids."""
        self._write(f"strace: Process {event.child} attached\n")
        self._alive.update((event.pid, event.child))

    def ended(self, event: Any) -> None:
        """A process is gone."""
        pending = self._pending.pop(event.pid, None)
        if pending is not None:
            if pending.cut or self._line_pid != event.pid:
                self._begin(event.pid, f"<... {pending.call.name} resumed>")
            self._end(" <unfinished ...>) ", "= ?")
        status = event.status
        if status & 0x7F:
            core = " (core dumped)" if status & 0x80 else ""
            self._begin(event.pid, f"+++ killed by {signal_name(status & 0x7F)}{core} +++")
        else:
            self._begin(event.pid, f"+++ exited with {status >> 8 & 0xFF} +++")
        self._end()
        self._alive.discard(event.pid)
        self._ignored.pop(event.pid, None)

    def close(self) -> None:
        """The run is over, or was stopped: end a line that is still open."""
        if self._line:
            self._write_rest(" <unfinished ...>\n")

    # -- lines --------------------------------------------------------------------------------------------------------

    def _begin(self, pid: int, text: str) -> None:
        """Start a line for `pid`, cutting one that another call has open."""
        if self._line:
            pending = self._pending.get(self._line_pid)
            if pending is not None:
                pending.cut = True
            self._write_rest(" <unfinished ...>\n")
        prefix = f"[pid {pid:5}] " if len(self._alive) > 1 else ""
        self._line = prefix + text
        self._line_pid = pid
        self._held = True

    def _flush(self) -> None:
        """Show the begun line now."""
        if not self._held:
            self._write(self._line)

    def _end(self, text: str = "", result: str = "") -> None:
        """Finish the begun line, the result in its column."""
        if result:
            text += " " * (COLUMN - len(self._line) - len(text)) + result
        self._write_rest(text + "\n")

    def _write_rest(self, text: str) -> None:
        self._write(self._line + text if self._held else text)
        self._line = ""
        self._held = False

    # -- the caller ---------------------------------------------------------------------------------------------------

    def syscall(self, event: Any, name: str = "", args: tuple[int, ...] | None = None) -> Syscall:
        """The call of an event, with access to the memory of the task that made it."""
        task = self._machine.kernel.tasks.get(event.pid)
        mm = None if task is None else task.mm
        if mm is None:
            return Syscall(name or event.name, event.args if args is None else args, lambda address, count: b"", None)
        if self._abi is None:
            self._abi = abi_of(mm.arch.name)
        call = Syscall(
            name or event.name,
            event.args if args is None else args,
            lambda at, n: peek(task.mm, at, n),
            self._abi,
            mm.arch.page_size,
        )
        call.sp = self._machine.kernel.cpu.regs[self._abi.SP_REGISTER]
        return call


HANDLERS: dict[str, Callable[[Strace, Any], None]] = {
    "syscall_enter": Strace.enter,
    "syscall_exit": Strace.exit,
    "signal": Strace.signal,
    "exec": Strace.exec,
    "fork": Strace.fork,
    "exit": Strace.ended,
}

ABIS = {"x86_64": "emu.strace_arch_x86_64", "aarch64": "emu.strace_arch_arm64"}


def abi_of(name: str) -> Any:
    """strace's facts about an architecture."""
    from importlib import import_module

    return import_module(ABIS[name])


def _argument(text: str) -> str:
    """One argument of the first program."""
    data = text.encode("utf-8", "surrogateescape")
    return quote(data[:MAX_STRING]) + ("..." if len(data) > MAX_STRING else "")
