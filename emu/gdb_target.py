"""What a debugger debugs: the processes of one machine, why they stopped, and what each thread does next.

`Target` is `kernel.debugger`: it sees a signal before it acts. All else it hears as events. Whatever happens becomes a
`Stop` on a queue; the run ends, and the server tells gdb of one stop at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from guest.sched import Block
from guest.siginfo import SI_USER, SIGKILL, SIGTRAP, TRAP_BRKPT, TRAP_TRACE, SigInfo, fault_info, kill_info
from guest.signal import send_signal
from guest.signal_deliver import take_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.breakpoints import Hit
    from emu.machine import Exit, Machine
    from guest.task import Task

CLONE_VFORK, CLONE_THREAD = 0x4000, 0x10000
SIGINT = 2
TRAP_HWBKPT = 4
LIBRARY_SIGNALS = (32, 33)  # the C library's own, of cancellation and setuid(): gdbserver does not show them either
# gdb numbers signals in its own way (include/gdb/signals.def).
TO_GDB = {
    **{n: n for n in (1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 15)},
    7: 10, 10: 30, 12: 31, 16: 143, 17: 20, 18: 19, 19: 17, 20: 18, 21: 21, 22: 22, 23: 16, 24: 24, 25: 25, 26: 26,
    27: 27, 28: 28, 29: 23, 30: 32, 31: 12, 32: 77, **{n: n + 12 for n in range(33, 64)}, 64: 78,
}  # fmt: skip
FROM_GDB = {theirs: ours for ours, theirs in TO_GDB.items()}
STOP_REASONS = ("gdb", "breakpoint", "watchpoint", "step")


class Stop:
    """One thing to tell the debugger.

    Attributes:
        signal: Linux's number; 0 of a process that ended.
        task: the thread it is about.
        reason: what stands in the stop reply, "fork:p1.1;" say.
        info: what $_siginfo shows.
        end: the whole reply, when a process ended ("W00", "X09").
    """

    __slots__ = ("end", "info", "reason", "signal", "task")

    def __init__(self, signal: int, task: Task, reason: str = "", info: SigInfo | None = None, end: str = "") -> None:
        self.signal = signal
        self.task = task
        self.reason = reason
        self.info = info
        self.end = end


class Target:
    """One machine under a debugger.

    Args:
        machine: with its program loaded.
        thread_id: how the connected debugger writes a thread.
    """

    def __init__(self, machine: Machine, thread_id: Callable[[Task], str]) -> None:
        self.machine = machine
        self.points = machine.breakpoints
        self.points.exact = self.points.resumable = True
        self.thread_id = thread_id
        self.processes: set[int] = set()  # tgids under the debugger
        self.stops: list[Stop] = []
        self.last: dict[Task, Stop] = {}  # of each thread
        self.features: frozenset[str] = frozenset()  # what the debugger can be told of
        self.passed: set[int] = set()  # signals it does not want to hear of
        self.calls: set[int] | None = None  # system calls to stop at; empty: all; None: none
        self.held: dict[Task, SigInfo] = {}  # signals that wait for the debugger's word
        self.decided: dict[Task, SigInfo | None] = {}  # and that word
        self.injected: set[tuple[Task, int]] = set()
        self.known: dict[int, Task] = dict(machine.kernel.tasks)
        self.vforks: dict[Task, Task] = {}  # child -> who waits for it
        self.changed = ""  # what the debugger did that a repeated run would not do
        self._unsubscribe: list[Callable[[], None]] = []
        self._inserted: dict[tuple[int, str, int, int], Any] = {}

    # ---- attaching

    def attach(self) -> None:
        """The debugger is here: it gets the first program and all of its threads."""
        machine = self.machine
        kernel = machine.kernel
        kernel.debugger = self
        first = kernel.first
        self.processes = {first.tgid} if first is not None and not first.exit_state else set()
        if not self.processes:
            self.processes = {task.tgid for task in self.live()}
        self.known = dict(kernel.tasks)
        self._unsubscribe = [
            machine.subscribe(self._on_fork, "fork"),
            machine.subscribe(self._on_exec, "exec"),
            machine.subscribe(self._on_exit, "exit"),
            machine.subscribe(self._on_call, "syscall_enter"),
            machine.subscribe(self._on_return, "syscall_exit"),
        ]

    def detach(self, process: int | None = None) -> None:
        """The debugger lets go of a process, or (None) of everything: all goes on as if it had never been here."""
        gone = set(self.processes) if process is None else {process}
        self.processes -= gone
        self.forget_points(gone)
        for task in [task for task in self.held if task.tgid in gone]:
            self.decided[task] = self.held.pop(task)
        self.points.steps = {task: at for task, at in self.points.steps.items() if task.tgid not in gone}
        self.points.frozen = {task for task in self.points.frozen if task.tgid not in gone}
        self.stops = [stop for stop in self.stops if stop.task.tgid not in gone]
        if process is None:
            for unsubscribe in self._unsubscribe:
                unsubscribe()
            self._unsubscribe = []
            self.calls, self.passed = None, set()
            if not self.decided:
                self.machine.kernel.debugger = None

    # ---- threads

    def live(self) -> list[Task]:
        """Every task that has not ended."""
        kernel = self.machine.kernel
        return [task for task in kernel.tasks.values() if task is not kernel.init and not task.exit_state]

    def threads(self, process: int | None = None) -> list[Task]:
        """The threads under the debugger (of one process), oldest first."""
        return [t for t in self.live() if t.tgid in self.processes and process in (None, t.tgid)]

    # ---- kernel.debugger

    def take_signal(self, task: Task) -> SigInfo | None:
        """The next signal to act on. Raises Block when the debugger is to see it first."""
        while True:
            if task in self.decided:
                info = self.decided.pop(task)
            elif task in self.held:
                task.sigpending = True
                raise Block
            else:
                info = _next(task)
                if info is None:
                    return None
                if self._wants(task, info):
                    self.held[task] = info
                    task.sigpending = True
                    self._stop(Stop(info.signo, task, "", info))
                    raise Block
            if info is None:
                continue
            if info.signo != SIGKILL and task.blocked >> (info.signo - 1) & 1:
                send_signal(info, task, False)
                continue
            return info

    def _wants(self, task: Task, info: SigInfo) -> bool:
        """Whether the debugger is told of this signal."""
        if (task, info.signo) in self.injected:
            self.injected.discard((task, info.signo))
            return False
        quiet = info.signo in LIBRARY_SIGNALS or info.signo in self.passed
        return task.tgid in self.processes and info.signo != SIGKILL and not quiet

    def _catches(self, task: Task, number: int) -> bool:
        return self.calls is not None and task.tgid in self.processes and (not self.calls or number in self.calls)

    # ---- events

    def _task(self, pid: int) -> Task:
        return self.machine.kernel.tasks.get(pid) or self.known[pid]

    def _on_call(self, event: Any) -> None:
        """Before a system call is served: it waits until the task goes on."""
        if self.calls is not None and not event.restarted:
            task = self._task(event.pid)
            if self._catches(task, event.number):
                self.machine.kernel.hold_call = True
                self._stop(Stop(SIGTRAP, task, f"syscall_entry:{event.number:x};"))

    def _on_return(self, event: Any) -> None:
        if self.calls is not None:
            task = self._task(event.pid)
            if self._catches(task, event.number):
                self._stop(Stop(SIGTRAP, task, f"syscall_return:{event.number:x};"))

    def _on_fork(self, event: Any) -> None:
        parent, child = self._task(event.pid), self._task(event.child)
        self.known[event.child] = child
        if parent.tgid not in self.processes or event.flags & CLONE_THREAD:
            return
        kind = "vfork" if event.flags & CLONE_VFORK else "fork"
        if kind == "vfork":
            self.vforks[child] = parent
        if f"{kind}-events" in self.features:
            self.processes.add(child.tgid)
            self._copy_points(parent.tgid, child.tgid)
            self._stop(Stop(SIGTRAP, parent, f"{kind}:{self.thread_id(child)};"))

    def _on_exec(self, event: Any) -> None:
        task = self._task(event.pid)
        if task.tgid in self.processes:
            self.forget_points({task.tgid})
            if "exec-events" in self.features:
                self._stop(Stop(SIGTRAP, task, f"exec:{event.path.encode('utf-8', 'surrogateescape').hex()};"))
        self._vfork_done(task)

    def _on_exit(self, event: Any) -> None:
        task = self._task(event.pid)
        self.held.pop(task, None)
        self.decided.pop(task, None)
        self.points.steps.pop(task, None)
        self.points.frozen.discard(task)
        self._vfork_done(task)
        if task.tgid not in self.processes or any(t.tgid == task.tgid for t in self.live()):
            return
        status = task.signal.group_exit_code if task.signal.flags & 4 else task.group_leader.exit_code
        end = f"X{TO_GDB[status & 0x7F]:02x}" if status & 0x7F else f"W{status >> 8 & 0xFF:02x}"
        self.processes.discard(task.tgid)
        self.forget_points({task.tgid})
        self._stop(Stop(0, task, "", None, end))

    def _vfork_done(self, child: Task) -> None:
        parent = self.vforks.pop(child, None)
        if parent is not None and parent.tgid in self.processes and "vfork-events" in self.features:
            self._stop(Stop(SIGTRAP, parent, "vforkdone:;"))

    def _stop(self, stop: Stop) -> None:
        """Something to tell: the run ends."""
        self.stops.append(stop)
        self.machine.stop("gdb")

    # ---- running

    def resume(self, actions: dict[Task, tuple[str, int]], **limits: Any) -> Exit:
        """Run until something is to be told.

        Args:
            actions: thread -> ("c" or "s", signal to act on or 0); threads that are not in it stay where they are.
            limits: of Machine.run.
        """
        points = self.points
        points.frozen = {task for task in self.threads() if task not in actions}
        for task, (kind, signo) in actions.items():
            self._decide(task, signo)
            if kind == "s":
                points.step(task)
        self._prefer([task for task, (kind, _) in actions.items() if kind == "s"])
        try:
            end = self.machine.run(**limits)
        finally:
            points.unpark()
            points.frozen = set()
            points.steps.clear()
        hit = points.hit
        if hit is not None and end.reason in STOP_REASONS:
            self.stops.append(self._of_hit(hit))
        return end

    def _prefer(self, steppers: list[Task]) -> None:
        """A thread that is stepped runs first, or the others would in its place."""
        kernel = self.machine.kernel
        current = kernel.current
        if not steppers or current in steppers or steppers[0] not in kernel.run_queue:
            return
        kernel.run_queue.remove(steppers[0])
        if current.state == "R" and not current.exit_state and current not in kernel.run_queue:
            kernel.run_queue.appendleft(current)
        kernel.run_queue.appendleft(steppers[0])
        kernel.need_resched = True

    def _decide(self, task: Task, signo: int) -> None:
        """What becomes of the signal a thread stopped with, or which other it gets."""
        info = self.held.pop(task, None)
        if info is not None:
            if signo != info.signo:
                self.changed = "the debugger changed a signal"
                info = kill_info(signo, SI_USER, task.pid, task.cred.uid) if signo else None
            self.decided[task] = info
        elif signo:
            self.changed = "the debugger sent a signal"
            self.injected.add((task, signo))
            send_signal(kill_info(signo, SI_USER, task.pid, task.cred.uid), task, False)

    def _of_hit(self, hit: Hit) -> Stop:
        """What stopped the run, in gdb's words."""
        return Stop(SIGTRAP, hit.task, self.reason_of(hit), _trap_info(hit))

    def reason_of(self, hit: Hit) -> str:
        """What stands in the stop reply."""
        if hit.kind == "watchpoint":
            word = {"w": "watch", "r": "rwatch", "rw": "awatch"}[hit.point.access]
            return f"{word}:{hit.address:x};"
        if hit.kind == "breakpoint":
            kinds = {key[1] for key in self._inserted if key[2] == hit.address}
            word = "hwbreak" if kinds == {"1"} else "swbreak"
            return f"{word}:;" if word in self.features else ""
        return ""

    def interrupted(self) -> Stop:
        """The debugger asked for a stop: the running thread, if it is one of its own."""
        current = self.machine.kernel.current
        tasks = self.threads()
        if not tasks:
            raise PagewalkError("there is nothing left to debug")
        return Stop(SIGINT, current if current in tasks else tasks[0], "", kill_info(SIGINT, SI_USER, 0, 0))

    # ---- breakpoints

    def insert(self, process: int, kind: str, address: int, size: int) -> None:
        """Z0 and Z1 breakpoints, Z2 write, Z3 read and Z4 access watchpoints. Inserting twice is once."""
        key = (process, kind, address, size)
        if key not in self._inserted:
            if kind in "01":
                self._inserted[key] = self.points.add(address, process)
            else:
                access = {"2": "w", "3": "r", "4": "rw"}[kind]
                self._inserted[key] = self.points.watch(address, size, access, process)

    def remove(self, process: int, kind: str, address: int, size: int) -> None:
        """z packets. Nothing happens when there is no such point."""
        point = self._inserted.pop((process, kind, address, size), None)
        if point is not None:
            point.remove()

    def forget_points(self, processes: set[int]) -> None:
        """Remove everything that was inserted into these processes."""
        for key in [key for key in self._inserted if key[0] in processes]:
            self._inserted.pop(key).remove()

    def inserted(self) -> list[tuple[int, str, int, int]]:
        """What the debugger inserted: (process, kind, address, size)."""
        return list(self._inserted)

    def take_over(self, old: Target) -> None:
        """This machine replaces another one: what its debugger wanted holds here too."""
        self.features, self.passed, self.calls, self.changed = old.features, old.passed, old.calls, old.changed
        self.attach()
        self.processes = {task.tgid for task in self.live()} & (old.processes | self.processes)
        for process, kind, address, size in old.inserted():
            self.insert(process, kind, address, size)

    def _copy_points(self, parent: int, child: int) -> None:
        """A child has its parent's breakpoints, as the copy of its memory would have."""
        for process, kind, address, size in list(self._inserted):
            if process == parent:
                self.insert(child, kind, address, size)


def _trap_info(hit: Hit) -> SigInfo:
    """$_siginfo of a stop of ours."""
    code = {"watchpoint": TRAP_HWBKPT, "breakpoint": TRAP_BRKPT}.get(hit.kind, TRAP_TRACE)
    return fault_info(SIGTRAP, code, hit.address if hit.kind == "watchpoint" else hit.pc)


def _next(task: Task) -> SigInfo | None:
    """get_signal()'s own choice."""
    if task.ptrace or task.trace_signal is not None:
        from guest.ptrace import next_to_act_on

        return next_to_act_on(task)
    return take_signal(task)
