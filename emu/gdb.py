"""`pagewalk gdb -g PORT PROGRAM`: a debugger over TCP, on 127.0.0.1 only (docs/gdb.md).

    wait for a debugger -> serve its packets -> run -> tell it of the stop -> serve ...
                              | detach, hang up: the guest goes on, and another debugger may come

While the guest runs, a thread watches the connection; whatever comes ends the run, and if it is no interrupt, the run
goes on as if nothing had happened. Nothing a debugger sends can end in the guest except by the packets that say so.
"""

from __future__ import annotations

import _thread
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from emu import cli
from emu.errors import PagewalkError
from emu.gdb_monitor import Faults
from emu.gdb_reverse import History, Shown
from emu.gdb_server import Resume, Server
from emu.gdb_target import STOP_REASONS, Stop, Target
from emu.gdb_wire import INTERRUPT, Wire
from emu.machine import Exit
from guest.siginfo import SIGTRAP

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.options import Options
    from guest.task import Task

RETRY = 0.002  # seconds between two stops of a run that has only just begun
NUDGE = "debugger"  # reason of a run that the connection ended


class Bell:
    """A thread that ends the machine's run as soon as one of these descriptors has something to read."""

    def __init__(self, machine: Machine, *sources: Any) -> None:
        self._machine = machine
        self._sources = list(sources)
        self._over = False
        self._read, self._write = os.pipe()
        self._finished = _thread.allocate_lock()
        self._finished.acquire()
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        try:
            if self._read not in select.select([self._read, *self._sources], [], [])[0]:
                while not self._over:
                    self._machine.stop(NUDGE)
                    time.sleep(RETRY)
        finally:
            self._finished.release()

    def close(self) -> None:
        """The run is over."""
        self._over = True
        os.write(self._write, b"\0")
        self._finished.acquire()
        os.close(self._read)
        os.close(self._write)


class Session:
    """One machine, and whoever debugs it.

    Args:
        options: of the command line; `options.gdb` is (port, suspend).
        make: makes a machine as the options describe, calls its argument (or None) with it, and loads the program.
    """

    def __init__(self, options: Options, make: Any) -> None:
        self.options = options
        self.shown = Shown()

        def watched(prepare: Any = None) -> Machine:
            machine: Machine = make(prepare)
            self.shown.watch(machine)
            return machine

        self.make = watched
        self.can_restart = True
        self.machine: Machine = self.make()
        self.server: Server | None = None
        self._deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self._end: Exit | None = None
        self._killed = False  # the debugger has ended the program, and may want to start it again
        port, self._suspend = options.gdb or (0, True)
        self._listener = self._listen(port)
        self.history = History(self)
        self._adopt(self.machine)

    def _adopt(self, machine: Machine) -> None:
        """Debug this machine from now on."""
        self.machine = machine
        self.target = Target(machine, self._thread_id)
        self.faults = Faults(machine)

    def replace(self, machine: Machine) -> None:
        """The debugger sees this machine in the place of the one before, at another moment."""
        old, target = self.machine, self.target
        self._adopt(machine)
        self.target.take_over(target)
        if self.server is not None:
            self.server.forget_threads()
        old.close()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            listener.close()
            raise PagewalkError(f"-g {port}: {error.strerror}") from None
        listener.listen(1)
        return listener

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def _thread_id(self, task: Task) -> str:
        return self.server.thread_id(task) if self.server is not None else f"{task.pid:x}"

    # ---- the loop

    def run(self) -> Exit:
        """Until the program ends, or a limit is reached; how it ended."""
        print(f"pagewalk: waiting for a debugger on 127.0.0.1:{self.port}", file=sys.stderr, flush=True)
        try:
            if self._suspend:
                self._accept()
            while self._end is None or (self.server is not None and self.target.stops):
                if self.server is None:
                    self._run_alone()
                else:
                    self._obey(self.server.serve())
            return self._end
        finally:
            self._hang_up()
            self._listener.close()

    def _accept(self) -> None:
        """A debugger connects: everything stands still and is its own."""
        connection, _ = self._listener.accept()
        self.server = Server(Wire(connection), self)
        self.target.points.exact = True
        self.target.attach()

    def _hang_up(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.queries.files.close_all()
            server.wire.close()

    def _limits(self) -> dict[str, Any]:
        """What is left of --timeout and --max-instructions."""
        limits: dict[str, Any] = {}
        if self._deadline is not None:
            limits["timeout"] = max(self._deadline - time.monotonic(), 0.001)
        if self.options.max_instructions is not None:
            limits["max_instructions"] = max(self.options.max_instructions - (self.machine.instructions or 0), 1)
        return limits

    def _run_alone(self) -> None:
        """Nobody is connected."""
        self.target.points.exact = False
        bell = Bell(self.machine, self._listener)
        try:
            end = self.machine.run(**self._limits())
        finally:
            bell.close()
        self.history.broken = self.history.broken or "the program ran on without a debugger"
        if end.reason == NUDGE:
            self._accept()
        elif end.reason not in STOP_REASONS:
            self._end = end

    def _obey(self, resume: Resume) -> None:
        if resume.kind == "end" and self.server is not None:  # `run` kills, then starts again
            self.server.wire.send(b"OK")
            self.target.processes.clear()
            self._killed = True
        elif self._killed and resume.kind != "restart":
            self._end = Exit(0, 9)
        elif resume.kind in ("gone", "detach"):
            if resume.kind == "detach" and self.server is not None:
                self.server.wire.send(b"OK")
            self.target.detach()
            self._hang_up()
        elif resume.kind == "kill":
            if self.server is not None:
                self.server.wire.send(b"OK")
            self._end = Exit(0, 9)
        elif resume.kind == "restart":
            self._restart()
        elif resume.kind == "back":
            self._tell(self.history.back(resume.backward))
        else:
            self._resume(resume)

    def _restart(self) -> None:
        """R and vRun: the program from its beginning."""
        self.history = History(self)
        self.shown.bytes = {1: 0, 2: 0}
        self._killed = False
        self.replace(self.make())
        self.target.changed = ""
        first = self.machine.kernel.first
        if first is not None:
            self.target.processes = {first.tgid}
        self._tell([Stop(SIGTRAP, self.target.threads()[0])])

    # ---- running

    def _resume(self, resume: Resume) -> None:
        """Run until there is something to tell, and tell it."""
        target = self.target
        if self._already_stepped(resume):
            task = next(iter(resume.actions))
            target.stops.append(Stop(SIGTRAP, task, "", target.last[task].info))
        if not target.stops and self._end is None:
            while self._run_once(resume):
                pass
        if self._end is not None:  # all that is left to tell is how each process ended
            target.stops = [stop for stop in target.stops if stop.end]
        self._tell(target.stops)

    def _already_stepped(self, resume: Resume) -> bool:
        """arm64's watchpoints stop before the access, and gdb steps over it; ours has been made."""
        server = self.server
        stop = server.stopped if server is not None else None
        if server is None or stop is None or "watch:" not in stop.reason or not server.arch.watch_before:
            return False
        server.stopped = None
        return resume.actions == {stop.task: ("s", 0)}

    def _run_once(self, resume: Resume) -> bool:
        """One run of the machine. True: it goes on, nothing of it concerns the debugger."""
        target, server = self.target, self.server
        if server is None:
            return False
        self.history.forget_position()
        bell = Bell(self.machine, server.wire)
        try:
            end = target.resume(resume.actions, **self._limits())
        except PagewalkError:
            if not self._waits_for_debugger():
                raise
            end = None
        finally:
            bell.close()
        resume.actions = {task: (kind, 0) for task, (kind, _) in resume.actions.items()}
        if end is None or end.reason == NUDGE:
            packet = server.wire.poll() if end is not None else server.wire.receive()
            if packet is None:
                target.detach()
                self._hang_up()
                return False
            if packet != INTERRUPT and not target.stops:
                return True
            if packet == INTERRUPT and not target.stops:
                target.stops.append(target.interrupted())
            return False
        if end.reason not in STOP_REASONS:
            self._end = end
            return False
        return self._in_range(resume)

    def _waits_for_debugger(self) -> bool:
        """Nothing can ever run: with a debugger there is still somebody who can look at it, or let others run."""
        return bool(self.target.threads())

    def _in_range(self, resume: Resume) -> bool:
        """A range step that is not over."""
        stops = self.target.stops
        if len(stops) != 1 or stops[0].reason or stops[0].task not in resume.ranges:
            return False
        start, end = resume.ranges[stops[0].task]
        engine = self.machine.engine
        if stops[0].signal != SIGTRAP or not start <= engine.regs[engine.PC] < end:
            return False
        stops.clear()
        return True

    def _tell(self, stops: list[Stop]) -> None:
        """The first of what happened; the rest waits for the next resume."""
        if self.server is None or not stops:
            return
        stop = stops.pop(0)
        self.server.report(stop)
        if stop.end and not self.target.processes and not self.target.stops:
            self._hang_up()  # nothing is left to debug

    def note(self, text: str) -> None:
        """One line for whoever sits at the debugger, and on standard error."""
        print(f"pagewalk: {text}", file=sys.stderr, flush=True)
        if self.server is not None:
            self.server.wire.send(b"O" + f"{text}\n".encode().hex().encode())


def debug(options: Options) -> int:
    """`pagewalk gdb`, and `pagewalk run -g`: the exit status."""
    observers: list[Any] = []

    def make(prepare: Any) -> Machine:
        machine = cli.build(options)
        if prepare is not None:
            prepare(machine)
        if not observers and (options.strace is not None or options.trace is not None or options.stats):
            from emu.observe import Observers

            observers.append(Observers(machine, options))
        cli.load(machine, options)
        return machine

    try:
        session = Session(options, make)
        try:
            outcome, message, status = cli.describe(session.run(), options)
        except KeyboardInterrupt:
            outcome, message, status = "interrupted", "", 128 + cli.SIGINT
        if observers:
            observers[0].closing(outcome, status)
    finally:
        if observers:
            observers[0].close()
    if message:
        print(message, file=sys.stderr)
    return status
