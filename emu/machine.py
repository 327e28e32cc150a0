"""The machine: RAM, CPU and kernel put together, and the loop that lets tasks run.

    m = Machine(stdout="capture")
    m.load("images/x86_64/hello")
    end = m.run()                      # Exit(status=0, signal=0, reason='exit')

RAM and CPU are built by `load`, because the program decides the architecture. The loop leaves the engine only when the
running task must give up the CPU:

    schedule() -> load its registers, its page tables -> resume() -> engine.run() --need_resched--> schedule() ...

Others end a run from outside through a watcher thread (`emu/watch.py`): Ctrl-C, `stop()`, the timeout.
"""

from __future__ import annotations

import gc
import mmap
import os
from typing import TYPE_CHECKING, Any

from emu.arch import make_arch, make_engine
from emu.errors import STATUS_CANNOT_RUN, STATUS_NOT_FOUND, EngineError, PagewalkError
from emu.machine_tools import MachineTools
from emu.program import ELF_MAGIC, architecture, explain_death, explain_exec, host_path, inspect, is_host_path
from emu.watch import Watcher
from guest.arch import make as make_guest_arch
from guest.config import Config
from guest.kernel import Kernel
from guest.sched import Deadlock, HostInterrupt
from mm.errors import Errno
from mm.system import System

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TypeVar

    from emu.breakpoints import Breakpoints
    from emu.explain import Explainer
    from emu.steer import Steering
    from emu.views import View
    from guest.task import Task

    AnyView = TypeVar("AnyView", bound=View)

MIN_RAM = 4 << 20
RAM_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE has a name from Python 3.13 on
SOLO_SLICE = 3_000_000  # instructions a lone task runs counted before the engine goes back to full speed
SIGSEGV = 11
# While a machine runs: areas, pages and anon_vmas come by the ten thousands and live long, so that looking for garbage
# among them after every 700, as Python does by itself, would make the last of 65,530 areas twice as dear as the first.
GC_THRESHOLDS = (20_000, 20, 50)


class Exit:
    """How a run ended.

    `status` and `signal` are the first program's, as wait() gives them. `reason`: "exit" (it ended), "stop" (`stop()`),
    "until" (the awaited event came), "breakpoint", "watchpoint", "step" (emu/breakpoints.py), "timeout",
    "max_instructions".
    """

    __slots__ = ("reason", "signal", "status")

    def __init__(self, status: int = 0, signal: int = 0, reason: str = "exit") -> None:
        self.status = status
        self.signal = signal
        self.reason = reason

    def __repr__(self) -> str:
        return f"Exit(status={self.status}, signal={self.signal}, reason={self.reason!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Exit):
            return NotImplemented
        return (self.status, self.signal, self.reason) == (other.status, other.signal, other.reason)

    __hash__ = None  # type: ignore[assignment] # compared by value, changed by nobody, kept in no set


class Machine(MachineTools):
    """One emulated computer.

    Args:
        arch: "x86_64" or "aarch64"; None: the program's.
        page_size: bytes; None: 4096.
        la57: five-level page tables (x86-64).
        ram: bytes of guest memory; the host pays for what is touched.
        cpu: CPU model, see `emu.arch.cpu_models()`.
        root: host folder that is the guest's /; None: the guest sees its program, /proc, /dev and /tmp only.
        rw: writes under `root` reach the host.
        prefix: host folder in which absolute paths are looked up first, for interpreter and libraries (-L).
        mounts: (host, guest, "ro" or "rw").
        env: environment of the program.
        uid, gid: whom it runs as.
        aslr: seed of address space randomisation; None: off.
        stack: soft stack limit, bytes.
        stdin: None: the host's; bytes: that content; int: a host descriptor.
        stdout, stderr: "inherit", "capture" (see `output`, `errors`) or a host descriptor.
        check: validate invariants of memory management: 0 never, 1 after changes, 2 after every fault and call.
        quantum: instructions a task may run while others wait; None: the kernel's.
        seed: of everything random but addresses; not 0: of the order of runnable tasks and their slices too.
        clock: "virtual", which repeats itself in every run, or "host".
        net: "internal", or "host-loopback": sockets are the host's, on 127.0.0.1 and ::1 only.
        algorithm: functions in the place of ours, by their slot of mm.ops: {"find_vma": mine} (emu/algorithm.py).
        judge: run ours beside them; the first different outcome raises `emu.judge.Divergence`.

    Raises:
        PagewalkError: from `load` on, with one line of explanation.
    """

    def __init__(
        self,
        arch: str | None = None,
        *,
        page_size: int | None = None,
        la57: bool = False,
        ram: int = 1 << 30,
        cpu: str | None = None,
        root: str | None = None,
        rw: bool = False,
        prefix: str | None = None,
        mounts: tuple[tuple[str, str, str], ...] = (),
        env: dict[str, str] | None = None,
        uid: int = 0,
        gid: int = 0,
        aslr: int | None = None,
        stack: int = 8 << 20,
        stdin: bytes | int | None = None,
        stdout: str | int = "inherit",
        stderr: str | int = "inherit",
        check: int = 0,
        quantum: int | None = None,
        seed: int = 0,
        clock: str = "virtual",
        net: str = "internal",
        algorithm: dict[str, Any] | None = None,
        judge: bool = False,
    ) -> None:
        self._arch_name = arch
        self._page_size = page_size
        self._la57 = la57
        self._ram_size = ram
        self._model = cpu
        self._check = check
        self._quantum = quantum
        self._algorithms = algorithm or {}
        self._judge = judge
        self.config = Config(
            root=root, rw=rw, mounts=tuple(mounts), env=env or {}, uid=uid, gid=gid, aslr=aslr, stack=stack, seed=seed,
            stdin="inherit" if stdin is None else stdin, stdout=stdout, stderr=stderr, prefix=prefix,
            clock=clock, net=net,
        )  # fmt: skip
        self.instructions: int | None = None  # executed so far, where the run was counted from its start
        self._listeners: list[tuple[Callable[[Any], None], tuple[str, ...]]] = []
        self._steering: Steering | None = None
        self.explainers: list[Explainer] = []  # emu/explain.py
        self._breakpoints: Breakpoints | None = None
        self._stop = ""  # why the run must end
        self._watcher: Watcher | None = None
        self.terminal: Any = None  # set while a guest has the host's terminal (emu/terminal.py)
        self._loaded: Task | None = None  # whose registers the engine holds
        self._mm: Any = None  # whose page tables it walks
        # A run stopped from outside (Ctrl-C, a timeout, another thread) can be continued. For that, arm64 counts, and
        # is up to two times slower; False, as for the command line, lets it run free.
        self.goes_on = True
        self._free = False  # counted for that alone: the guest's clock takes no notice
        self._countable = False  # a run is counted only so that it can go on later
        self._lost = False  # one was, where it cannot be
        self._solo = 0  # instructions a lone task still runs counted
        if arch is not None:
            self._build(arch)

    # ---- building

    def _build(self, name: str) -> None:
        """RAM, memory management, CPU, kernel."""
        arch = make_arch(name, self._page_size, self._la57)
        size = self._ram_size
        if size < MIN_RAM:
            raise PagewalkError(f"{size} bytes of RAM are too small; the machine needs at least {MIN_RAM >> 20}M")
        if size % 65536:
            raise PagewalkError(f"{size} bytes of RAM are not a multiple of 64k")
        try:
            self._memory = mmap.mmap(-1, size, flags=RAM_FLAGS)
        except (OSError, OverflowError) as e:
            raise PagewalkError(f"the host has no {size >> 20}M of memory for RAM ({e})") from None
        try:
            self.system = System(arch, memoryview(self._memory))
            self.engine = make_engine(self.system, self._model)
            guest_arch = make_guest_arch(name, self.engine.hwcap, self.engine.hwcap2)
            self.kernel = Kernel(self.system, guest_arch, self.engine, self.config)
        except MemoryError as e:
            raise PagewalkError(f"{size >> 20}M of RAM are too small ({e})") from None
        except OSError as e:
            raise PagewalkError(f"{e.filename or self.config.root}: {e.strerror}") from None
        self.system.validate_level = self._check
        if self._quantum is not None:
            self.kernel.quantum = self._quantum
        self.engine.attach(self.kernel)
        self.kernel.data_watcher = self._watch_data
        self._listen()
        if self._algorithms:
            from emu.algorithm import Algorithm, install

            install(self, [Algorithm.of(slot, function) for slot, function in self._algorithms.items()], self._judge)
        if self._steering is not None:
            self._steering.install()
        for explainer in self.explainers:
            explainer.attach()

    def load(self, program: str | bytes, argv: list[str] | list[bytes] | None = None) -> Task:
        """Exec a program as the machine's first.

        Args:
            program: path (in `root` where there is one, else on the host), or the bytes of an ELF file.
            argv: its arguments with argv[0]; None: the path alone.

        Raises:
            PagewalkError: with the exit status a shell would give: 127 not found, 126 cannot be run.
        """
        config = self.config
        if isinstance(program, bytes) and program[:4] == ELF_MAGIC:
            name, image, shown = architecture(program, "program"), program, "program"
        else:
            shown = os.fsdecode(program)
            name, image = inspect(shown, config.root, config.mounts), None
        if not hasattr(self, "kernel"):
            self._build(name)
        elif name != self.system.arch.name:
            raise PagewalkError(f"{shown}: a program for {name} on a machine of {self.system.arch.name}", 126)
        if self.kernel.first is not None:
            raise PagewalkError("the machine has a program already")
        path = os.fsencode(shown)
        if image is not None:
            path = self.kernel.vfs.add_program(b"program", None, image)
        elif is_host_path(shown, config.root, config.mounts):
            path = self.kernel.vfs.add_program(os.fsencode(os.path.basename(shown)), shown, None)
        arguments = [os.fsencode(word) for word in (argv if argv is not None else [shown])]
        environment = [os.fsencode(f"{key}={value}") for key, value in (config.env or {}).items()]
        return self._exec(path, arguments, environment, shown, image)

    def _exec(self, path: bytes, argv: list[bytes], env: list[bytes], shown: str, image: bytes | None) -> Task:
        """Start the program; say why when exec refuses it or kills it."""
        try:
            task = self.kernel.start(path, argv, env)
        except Errno as e:
            status = STATUS_NOT_FOUND if e.number == 2 else STATUS_CANNOT_RUN
            why = explain_exec(self._beginning(shown, image), self.system.arch.page_size, e.number)
            raise PagewalkError(f"{shown}: {why}", status) from None
        if task.exit_state and self.kernel.exit_status == SIGSEGV:
            why = explain_death(self._beginning(shown, image), self.system.arch.page_size)
            raise PagewalkError(f"{shown}: {why}", STATUS_CANNOT_RUN)
        return task

    def _beginning(self, shown: str, image: bytes | None) -> bytes:
        """The first page or so of the program, for explanations."""
        if image is not None:
            return image[:8192]
        path = host_path(shown, self.config.root, self.config.mounts)
        try:
            with open(path or "", "rb") as file:
                return file.read(8192)
        except OSError:
            return b""

    # ---- running

    def run(
        self,
        until: str | Callable[[Any], bool] | None = None,
        max_instructions: int | None = None,
        timeout: float | None = None,
    ) -> Exit:
        """Run until the program ends, or one of the arguments says stop. Can be called again to go on.

        Args:
            until: "syscall", a kind of event, or a function of an event that says whether it is the one. The run ends
                when what the event tells of is over; at "syscall" (syscall_enter) before the call is served.
            max_instructions: stop after so many. The engine then counts each, and is 8 (arm64) to 30 times slower.
            timeout: seconds of the host's clock.

        Raises:
            PagewalkError: every task waits for something that cannot happen.
            KeyboardInterrupt: Ctrl-C.
        """
        if getattr(self, "kernel", None) is None or self.kernel.first is None:
            raise PagewalkError("no program is loaded")
        if self._watcher is not None:
            raise PagewalkError("the machine is running already")
        if self._lost:
            raise PagewalkError(
                "stopped from outside, an arm64 machine cannot go on; run(timeout=...) can be continued"
            )
        self._stop = ""
        self._countable = self.engine.LOSES_PC and (self.goes_on or self.terminal is not None)
        if self._breakpoints is not None:
            self._breakpoints.begin()
        unsubscribe = self.subscribe(self._awaited(until)) if until is not None else None
        if max_instructions is not None and self.instructions is None:
            self.instructions = 0
        self._watcher = Watcher(self, timeout)
        thresholds = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            ended = self._loop(max_instructions)
        except KeyboardInterrupt:
            if self._stop in ("", "interrupt"):
                raise
            ended = False  # the watcher's signal: the reason came first
        finally:
            gc.set_threshold(*thresholds)
            watcher, self._watcher = self._watcher, None
            watcher.close()
            if unsubscribe is not None:
                unsubscribe()
        if not ended:
            if self._stop == "interrupt":
                raise KeyboardInterrupt
            return Exit(reason=self._stop)
        status = self.kernel.exit_status or 0
        return Exit(status >> 8 & 0xFF, status & 0x7F)

    def step(self) -> Exit | None:
        """Run one instruction of the current task; how the program ended, or None while it lives."""
        self.breakpoints.step(self.kernel.current)
        end = self.run()
        return end if end.reason == "exit" else None

    def _awaited(self, until: str | Callable[[Any], bool]) -> Callable[[Any], None]:
        """A listener that stops the run at the event `until` describes."""
        kind = "syscall_enter" if until == "syscall" else until

        def listen(event: Any) -> None:
            if event.kind == kind if isinstance(kind, str) else kind(event):
                if event.kind == "syscall_enter":
                    self.kernel.hold_call = True
                self.stop("until")

        return listen

    def _loop(self, budget: int | None) -> bool:
        """Schedule and run. True: nothing is left to run; False: `_stop` says why it goes no further."""
        kernel, engine = self.kernel, self.engine
        while not self._stop:
            if self.terminal is not None and self.terminal.pending:
                self.terminal.deliver()
                continue
            if kernel.need_resched or self._loaded is not kernel.current:
                try:
                    task = kernel.schedule()
                except HostInterrupt:
                    continue  # `_stop` says why
                except Deadlock as e:
                    if kernel.exit_status is not None:
                        return True  # what the program left behind sleeps for good
                    raise PagewalkError(f"nothing can ever run again: {e}") from None
                if task is None:
                    return True
                if self._breakpoints is not None and self._breakpoints.parks(task):
                    continue
                self._switch(task)
                if not kernel.resume(task):
                    continue
            self._use_tables(kernel.current)
            if self._breakpoints is not None and self._breakpoints.active and not self._stop:
                budget = self._breakpoints.turn(budget)
                continue
            count = self._slice(budget)
            if self._stop:
                break
            kernel.counting = count > 0 and not self._free
            engine.run(count, budget is not None or count == 1)  # 1: a tracer steps through the task
            if not count:
                self._lost = engine.LOSES_PC and not engine.left and self._watcher is not None and self._watcher.ended
            elif not self._free:
                executed = engine.executed(count)
                if self.instructions is not None:
                    self.instructions += executed
                if budget is not None:
                    budget -= executed
                    if budget <= 0:
                        self._stop = self._stop or "max_instructions"
                self._solo -= executed
                if executed >= count and not engine.left and kernel.wants_quantum():
                    kernel.quantum_expired(executed)
                else:
                    kernel.account(executed)
        return not any(task is not kernel.init and not task.exit_state for task in kernel.tasks.values())

    def _slice(self, budget: int | None) -> int:
        """How many instructions to run at most; 0: no limit.

        Counting and not counting need differently translated code, and changing over throws all of it away. So a task
        that is alone again goes on counted for a while, in case another wakes up.
        """
        kernel = self.kernel
        self._free = False
        if kernel.wants_quantum():
            self._solo = SOLO_SLICE
            count = kernel.slice()
        elif self._solo > 0:
            count = self._solo
        else:
            count = SOLO_SLICE if self._countable else 0
            self._free = True
        if budget is not None:
            count = min(count or budget, budget)
            self._free = False
        elif self.instructions is not None:
            self.instructions = None  # from here on nobody counts
        return count

    def _switch(self, task: Task) -> None:
        """Put `task` on the CPU."""
        loaded = self._loaded
        if loaded is not task:
            if loaded is not None:
                loaded.cpu_state = self.engine.save_state()
            self.engine.load_state(task.cpu_state)
            self._loaded = task
        self._use_tables(task)

    def _use_tables(self, task: Task) -> None:
        """Walk the tables of `task`; an exec has given it others."""
        mm = task.mm
        if mm is not self._mm and mm is not None:
            self._mm = mm
            mm.tlb_flush_pending = False  # changing over forgets everything
            self.engine.set_root(mm.pgd)

    def stop(self, reason: str = "stop") -> None:
        """End the run soon, from any thread or from a listener. Without a run, nothing happens."""
        watcher = self._watcher
        if watcher is not None:
            self._stop = self._stop or reason
            watcher.wake()

    # ---- the end

    def close(self) -> None:
        """Free engine, RAM and host descriptors. Closing twice is allowed."""
        if self._watcher is not None:
            raise EngineError("the machine is running; stop it first")
        if hasattr(self, "kernel"):
            self.kernel.vfs.close()
            self.engine.close()
            self._loaded = self._mm = None
            del self.kernel, self.engine, self.system, self._memory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
