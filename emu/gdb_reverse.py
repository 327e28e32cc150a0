"""Going backwards: the program is run again from its beginning, up to the instruction wanted.

A run of pagewalk repeats itself: the same program with the same options executes the same instructions. So a place is a
number, how many instructions were executed before, and "one back" is that number less one. Where the debugger's
machine is, is found by running a second one until it has the same clock, registers and memory. The machine that was run
to the place wanted becomes the debugged one; what it writes is shown only from where the first one had come to.

What cannot be repeated (standard input, --clock host, a --root that is written to, changes made by the debugger) is
said in one line, and the debugger hears that there is no history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from emu.gdb_target import Stop
from guest.ptrace_regs import NT_PRFPREG, NT_PRSTATUS
from guest.sched import Block
from guest.siginfo import SIGTRAP, TRAP_BRKPT, TRAP_TRACE, fault_info

if TYPE_CHECKING:
    from emu.gdb import Session
    from emu.machine import Machine

WINDOW = 64  # instructions looked at one by one, at first
FURTHER = 16  # times as many when the thread did nothing in those


class Shown:
    """How much of each standard stream the user has seen, over all machines of a session."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {1: 0, 2: 0}
        self.read = False  # something came from standard input

    def watch(self, machine: Machine) -> None:
        """Mute what was shown before, and notice reads of standard input."""
        first = machine.kernel.first
        if first is None or first.files is None:
            return
        for fd in (1, 2):
            file: Any = first.files.get(fd)
            if hasattr(file, "fd"):  # a stream of the host
                self._mute(fd, file)
        file = first.files.get(0)
        if hasattr(file, "fd"):
            self._notice(file)

    def _mute(self, fd: int, file: Any) -> None:
        write, done = file.write, 0

        def shown(task: Any, pos: int, data: bytes) -> int:
            nonlocal done
            old = min(max(self.bytes[fd] - done, 0), len(data))
            count = old
            if old < len(data):
                count += write(task, pos, data[old:])
                self.bytes[fd] = done + count
            done += count
            return count

        file.write = shown

    def _notice(self, file: Any) -> None:
        read = file.read

        def noticed(task: Any, pos: int, count: int) -> bytes:
            try:
                data: bytes = read(task, pos, count)
            except Block:
                self.read = True
                raise
            self.read = self.read or bool(data)
            return data

        file.read = noticed


class History:
    """Where the debugged machine is in its run."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.broken = ""  # why the run cannot be repeated
        self._position: int | None = None  # instructions before the present one, where known

    def forget_position(self) -> None:
        """The machine runs on."""
        self._position = None

    def obstacle(self) -> str:
        """Why there is no going back; empty when there is."""
        options, target = self.session.options, self.session.target
        if options.clock != "virtual":
            return "the run cannot be repeated: its time is the host's (--clock host)"
        if options.rw or any(mode == "rw" for _, _, mode in options.mounts):
            return "the run cannot be repeated: it writes to files of the host (--rw)"
        if self.session.shown.read:
            return "the run cannot be repeated: it has read standard input"
        if target.changed:
            return f"the run cannot be repeated: {target.changed}"
        return f"the run cannot be repeated: {self.broken}" if self.broken else ""

    def back(self, how: str) -> list[Stop]:
        """Go back one instruction of the current thread ("s"), or to the last point that was hit ("c")."""
        session = self.session
        problem = self.obstacle()
        if not problem and self._position is None:
            self._position = self._locate()
            problem = "" if self._position is not None else "the run did not repeat itself"
        if problem or self._position is None:
            session.note(f"no reverse execution: {problem}")
            return [self._stop("replaylog:begin;")]
        if how == "s":
            position, reason = self._one_back(self._position), ""
        else:
            position, reason = self._last_hit(self._position)
        if position is None:
            position, reason = 0, "replaylog:begin;"
        session.replace(self._again(position))
        self._position = position
        return [self._stop(reason)]

    def explain(self, number: int) -> str:
        """The N-th fault since the program began, told in steps: it happens once more, in a machine of its own."""
        problem = self.obstacle()
        if problem:
            return f"no explanation: {problem}"
        explainers: list[Any] = []
        machine = self.session.make(lambda machine: explainers.append(machine.explain()))
        try:
            machine.breakpoints.exact = True
            left = number

            def arrived(event: Any) -> bool:
                nonlocal left
                left -= event.kind == "fault"
                return bool(left == 0)

            machine.run(until=arrived)
            return str(explainers[0].last)
        finally:
            machine.close()

    def _stop(self, reason: str) -> Stop:
        session = self.session
        task = session.machine.kernel.current
        if task not in session.target.threads():
            task = session.target.threads()[0]
        engine = session.machine.engine
        code = TRAP_BRKPT if reason else TRAP_TRACE
        return Stop(SIGTRAP, task, reason, fault_info(SIGTRAP, code, engine.regs[engine.PC]))

    # ---- the run again

    def _again(self, position: int) -> Machine:
        """A machine that has executed so many instructions."""
        machine = self.session.make()
        machine.breakpoints.exact = True
        machine.instructions = 0
        if position:
            machine.run(max_instructions=position)
        return machine

    def _locate(self) -> int | None:
        """How many instructions the debugged machine has executed; None: it was not met again."""
        live = self.session.machine
        wanted, now, pc = _state(live), live.kernel.clock.now, live.engine.regs[live.engine.PC]
        machine = self._again(0)
        candidate: int | None = None
        try:
            machine.breakpoints.add(pc)
            machine.breakpoints.wanted = lambda: bool(machine.kernel.clock.now == now)
            while machine.kernel.clock.now <= now:
                end = machine.run(max_instructions=1 << 62)
                if end.reason != "breakpoint":
                    break
                if _state(machine) == wanted:
                    candidate = candidate if candidate is not None else machine.instructions
                    if _same_memory(live, machine):
                        return machine.instructions
        finally:
            machine.close()
        return candidate

    def _one_back(self, position: int) -> int | None:
        """The last place before `position` at which the current thread was at another instruction."""
        live = self.session.machine
        wanted, pid = _state(live), live.kernel.current.pid
        window = WINDOW
        while True:
            start = max(position - window, 0)
            machine = self._again(start)
            found = None
            try:
                for at in range(start, position):
                    if machine.kernel.current.pid == pid and _state(machine) != wanted:
                        found = at
                    machine.run(max_instructions=1)
            finally:
                machine.close()
            if found is not None or not start:
                return found
            window *= FURTHER

    def _last_hit(self, position: int) -> tuple[int | None, str]:
        """The last place before `position` at which a breakpoint or watchpoint of the debugger is hit; its reason."""
        machine = self._again(0)
        points = machine.breakpoints
        found: int | None = None
        reason = ""
        try:
            target = self.session.target
            for process, kind, address, size in target.inserted():
                _insert(points, process, kind, address, size)
            while (machine.instructions or 0) < position:
                end = machine.run(max_instructions=position - (machine.instructions or 0))
                hit = points.hit
                if hit is None or end.reason not in ("breakpoint", "watchpoint"):
                    break
                at = (machine.instructions or 0) - (hit.kind == "watchpoint")
                if at < position:
                    found, reason = at, target.reason_of(hit)
        finally:
            machine.close()
        return found, reason


def _insert(points: Any, process: int, kind: str, address: int, size: int) -> None:
    if kind in "01":
        points.add(address, process)
    else:
        points.watch(address, size, {"2": "w", "3": "r", "4": "rw"}[kind], process)


def _state(machine: Machine) -> tuple[Any, ...]:
    """What tells one moment from another: thread and registers."""
    kernel, engine = machine.kernel, machine.engine
    task = kernel.current
    view = kernel.arch.user_registers()
    if machine._loaded is not task:
        return (task.pid, task.cpu_state)
    return (task.pid, view.read(engine, task, NT_PRSTATUS), view.read(engine, task, NT_PRFPREG))


def _same_memory(one: Machine, other: Machine) -> bool:
    """Whether the frames in use, page tables aside, hold the same."""
    if len(one.system.mem_map) != len(other.system.mem_map):
        raise PagewalkError("two machines of different size")
    size = one.system.page_size
    for pfn, page in enumerate(one.system.mem_map):
        if page is None or page.mapping is None:
            continue
        at = pfn * size
        if one.system.ram[at : at + size] != other.system.ram[at : at + size]:
            return False
    return True
