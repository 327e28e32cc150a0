r"""The guest's kernel: tasks, clock, system call dispatch, the way in and out of every trap (who runs: scheduler.py).

What `emu` calls, in a hook while `current` runs: `system_call()`, `page_fault()`, `arch.exception()`. Afterwards
`need_resched` says whether the task must leave the CPU; then `schedule()` names the next one, emu loads its state, and
`resume()` finishes what it was doing. No engine is known here but the `cpu` attribute, which is dropped on pickling.

    trap -> handler -> result register -> work pending? -> do_signal() -> user code
                   \\-> Block: the task sleeps; woken, the call runs again from the top in resume()
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from guest.clock import (
    FAULT_NSEC,
    NSEC_PER_SEC,
    POLL_NSEC,
    POLLS,
    TRAP_NSEC,
    Clock,
    HostClock,
)
from guest.cred import CAP_FULL_SET, Cred
from guest.events import SyscallEnter, SyscallExit
from guest.rng import Rng
from guest.run_queue import RunQueue
from guest.sched import (
    TASK_INTERRUPTIBLE,
    TASK_RUNNING,
    Restart,
    TaskExit,
)
from guest.scheduler import Scheduler
from guest.signal_deliver import do_signal
from guest.syscall_numbers import NAMES
from guest.syscalls import Entry, Table
from guest.task import SIGNAL_UNKILLABLE, Sighand, SignalStruct, Task, default_rlimits
from guest.timers import NEVER, Timers
from mm.errors import Errno, MustSleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.arch import GuestArch
    from guest.config import Config
    from guest.hw import Cpu
    from mm.system import System

ENOSYS = 38
RESULT_MASK = 0xFFFFFFFFFFFFFFFF


class Kernel(Scheduler):
    """One guest kernel.

    Args:
        system: memory (mm/).
        arch: conventions of the architecture, `guest.arch.make()`.
        cpu: the processor; None while unpickled and not attached.
        config: what the machine was started with.
    """

    def __init__(self, system: System, arch: GuestArch, cpu: Cpu, config: Config) -> None:
        self.system = system
        self.arch = arch
        self.cpu = cpu
        self.config = config
        self.clock = Clock() if config.clock == "virtual" else HostClock()
        self.timers = Timers(self)
        self.rng = Rng(config.seed)  # getrandom, AT_RANDOM
        self.aslr_rng = Rng(config.aslr or 0)
        self.chance = Rng(config.seed) if config.seed else None  # of the order tasks run in; None: in turn
        self.randomize_va_space = 0 if config.aslr is None else 2
        self.quantum = 1_000_000  # instructions a task may run while others wait
        self.hz = 250
        self.tasks: dict[int, Task] = {}  # every task by pid, zombies too, oldest first
        self.current: Task = None  # type: ignore[assignment] # set by start() before anyone looks
        self.run_queue = RunQueue()
        self.turn_ends = NEVER  # ns: when the running task must let others run, though it executes little itself
        self.turn_stime = 0  # its `stime` when the turn began
        self.need_resched = False
        self.rerun = False  # the call being served began earlier: its task slept
        self.counting = False  # the engine counts the running task's instructions, and will stop it
        self.exit_status: int | None = None  # of the first program, as wait4 shows it
        self.last_fatal: Any = None  # (pid, SigInfo) of the last signal that killed
        self.unknown_calls: dict[int, int] = {}  # system call number -> how often refused with ENOSYS
        self.next_pid = config.first_pid
        self.pids_wrapped = False  # all have been given once
        self.pid_max = 4096  # PID_MAX_DEFAULT with CONFIG_BASE_SMALL, as the oracle is built
        self.total_forks = 0
        self.slice_forks = 0  # since the running task got the CPU
        self.tasks_made = 0
        self.context_switches = 0
        self.futex_queues: dict[Any, Any] = {}
        self.ipc_ns: Any = None  # SysV shared memory, sys_shm.py
        self.ntp: Any = None  # what adjtimex keeps, sys_timex.py
        self.ipc_memory = 0  # bytes that messages and semaphores take of the host, roughly
        self.mq_bytes: dict[int, int] = {}  # user_struct: bytes of message queues, by user id
        self.nsproxy: Any = None  # the first namespaces, nsproxy.py
        self.next_namespace = 0
        self.sysctls: dict[str, Any] = {}
        self.run_queue.sysctls = self.sysctls
        self.fault_counter: Any = None  # guest/perf.py
        self.perf_ids = 0  # of the last event
        self.hold_call = False  # a listener wants the call that begins to wait (run(until="syscall"))
        self.interceptor: Callable[[SyscallEnter], int | None] | None = None  # may answer a call in the handler's place
        self.debugger: Any = None  # sees signals before they act
        self.data_watcher: Callable[[Task], None] | None = None  # looks out for Task.hw_watchpoints; the machine's
        self.interrupt_fd = -1  # host descriptor: readable when a wait for the host must end
        self.eventfd_signals: deque[Any] = deque()  # what asynchronous I/O is about to tell
        self.max_threads = self._boot_limits()
        self.init = self._make_init()
        self.first: Task | None = None
        self._build()
        self.vfs = self._make_vfs()
        from guest.vdso_map import Vdso

        self.vdso = Vdso(self)

    # ---- construction

    def _build(self) -> None:
        """What is derived and not pickled."""
        arch = self.arch
        self.table = Table(arch.name, arch.arguments)
        self.calls: list[Entry | None] = self.table.entries
        self.call_count = len(self.calls)
        self.number_register = arch.number
        self.number_mask = arch.number_mask
        self.result_register = arch.result
        self.system.wake_daemons = self._wake_daemons

    def _wake_daemons(self) -> None:
        from guest.khugepaged import wake_khugepaged

        wake_khugepaged(self)

    def _make_vfs(self) -> Any:
        from guest.vfs import Vfs

        return Vfs(self)

    def _boot_limits(self) -> int:
        """What Linux derives from memory at boot and somebody can meet: the reserve for users; how many threads."""
        from guest.boot_memory import BootMemory

        boot = BootMemory(self.system)
        self.system.sysctl_user_reserve_kbytes = boot.user_reserve_kbytes()
        return boot.max_threads()

    def _make_init(self) -> Task:
        """Pid 1: the parent of the first program and of orphans. It never runs and reaps at once."""
        task = Task(self, 1)
        task.comm = "init"
        task.state = TASK_INTERRUPTIBLE
        task.cred = Cred()
        task.signal = SignalStruct(default_rlimits(self.config.stack, self.max_threads // 2))
        task.signal.flags = SIGNAL_UNKILLABLE
        task.signal.threads.append(task)
        task.rlim = task.signal.rlim
        task.sighand = Sighand()
        task.real_parent = task
        self.tasks[1] = task
        return task

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("cpu", "calls", "table", "interceptor", "debugger", "data_watcher"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.cpu = None  # type: ignore[assignment] # emu attaches one
        self.interceptor = None
        self.debugger = None
        self.data_watcher = None
        if self.fault_counter is not None:
            self.fault_counter.install()
        self._build()

    def start(self, path: bytes, argv: list[bytes], env: list[bytes]) -> Task:
        """Make the first program: a child of init that execs `path`. Raises Errno when exec is refused."""
        from guest.exec import do_execve

        task = Task(self, self.alloc_pid())
        task.comm = "init"
        config = self.config
        task.cred = Cred(config.uid, config.gid)
        task.cap_effective = task.cred.cap_effective
        task.signal = SignalStruct(default_rlimits(config.stack, self.max_threads // 2))
        task.signal.threads.append(task)
        task.rlim = task.signal.rlim
        task.sighand = Sighand()
        task.real_parent = self.init
        task.start_time = self.clock.now
        self.init.children.append(task)
        task.files, task.fs = self.vfs.first_task()
        self.tasks[task.pid] = task
        if self.vfs.tty is not None:  # a session of its own on the host's terminal, as a container's first process has
            from guest.tty_jobctrl import proc_set_tty

            task.signal.session = task.signal.pgrp = task.pid
            task.signal.leader = True
            proc_set_tty(task, self.vfs.tty)
        self.first = task
        self.set_current(task)
        try:
            do_execve(task, path, argv, env)
        except Errno:
            if task.mm is None or not task.sigpending:
                raise
            # Past the point of no return: the new image is gone, its task dies of the signal that is pending.
        task.cpu_state = self.cpu.save_state()
        if task.sigpending:
            self.leave(task)
        if task.state == TASK_RUNNING and task not in self.run_queue:
            self.run_queue.append(task)
        self.need_resched = True
        return task

    def set_current(self, task: Task) -> None:
        """The task that runs, for mm/ and for us."""
        self.current = task
        self.system.current = task
        self.call_count = 0 if task.ptrace else len(self.calls)  # no call of a traced task takes the short way

    # ---- traps

    def system_call(self) -> None:
        """Serve the system call `current` trapped with."""
        task = self.current
        clock = self.clock
        clock.now += TRAP_NSEC
        task.stime += TRAP_NSEC
        regs = self.cpu.regs
        number = regs[self.number_register] & self.number_mask
        if self.system.listener is not None:
            self._observed_call(task, number)
            return
        entry = self.calls[number] if number < self.call_count else None
        if entry is None:
            if task.ptrace:
                self._traced_call(task, number)
                return
            entry = self.table.resolve(number)
        try:
            if entry is None:
                self._unknown(number)
            else:
                regs[self.result_register] = entry.handler(task, *entry.fetch(regs)) & RESULT_MASK
        except Errno as e:
            regs[self.result_register] = -e.number & RESULT_MASK
        except (MustSleep, Restart, TaskExit) as e:
            self._not_returned(task, e)
            return
        if task.wait_state:
            task.wait_state = {}
        if task.sigpending or clock.now >= self.timers.next:
            self.leave(task)

    def checked_call(self) -> None:
        """system_call() at check level 2: all memory is examined when the call is over."""
        from mm.validate import validate_mm
        from mm.validate_pages import validate_system

        self.system_call()
        for mm in self.system.pgd_list:
            validate_mm(mm)
        validate_system(self.system, self.tasks.values())

    def _unknown(self, number: int) -> None:
        self.unknown_calls[number] = self.unknown_calls.get(number, 0) + 1
        self.cpu.regs[self.result_register] = -ENOSYS & RESULT_MASK

    def _observed_call(self, task: Task, number: int) -> None:
        """system_call() while somebody listens."""
        if task.ptrace:
            self._traced_call(task, number)
            return
        regs = self.cpu.regs
        args = tuple(regs[register] for register in self.arch.arguments)
        name = NAMES[self.arch.name].get(number, f"syscall_{number:#x}")
        enter = SyscallEnter(task.pid, number, name, args, self.rerun)
        emit = self.system.listener
        if task.held_call:
            task.held_call = False  # its entry was told before the run stopped here
        elif emit is not None:
            emit(enter)
            if self.hold_call:
                self._hold(task)
                return
        answer = None if self.interceptor is None or self.rerun else self.interceptor(enter)
        entry = (self.calls[number] or self.table.resolve(number)) if number < self.call_count else None
        stop: Exception | None = None
        if answer is not None:
            result = answer
            self.cpu.regs[self.result_register] = result & RESULT_MASK
        elif entry is None:
            self._unknown(number)
            result = -ENOSYS
        else:
            try:
                result = entry.handler(task, *args[: entry.nargs])
                self.cpu.regs[self.result_register] = result & RESULT_MASK
            except Errno as e:
                result = -e.number
                self.cpu.regs[self.result_register] = result & RESULT_MASK
            except Restart as e:
                result = -e.code
                stop = e
            except (MustSleep, TaskExit) as e:
                self._not_returned(task, e)
                return
        if result >> 63 == 1:
            result -= 1 << 64
        emit = self.system.listener
        if emit is not None:
            emit(SyscallExit(task.pid, number, name, args, result, answer is not None))
        if stop is not None:
            self._not_returned(task, stop)
            return
        if task.wait_state:
            task.wait_state = {}
        if task.sigpending or self.clock.now >= self.timers.next:
            self.leave(task)

    def _hold(self, task: Task) -> None:
        """Whoever runs the machine wants it back before this call is served: it is, when the task runs again."""
        self.hold_call = False
        self.clock.now -= TRAP_NSEC
        task.stime -= TRAP_NSEC
        task.held_call = task.in_call = True
        self.need_resched = True

    def _traced_call(self, task: Task, number: int) -> None:
        from guest.ptrace_call import traced_call

        traced_call(self, task, number)

    def call_by_name(self, name: str, task: Task, arguments: list[int]) -> int:
        """Run a handler for the kernel itself (the vsyscall page). Raises as the handler does."""
        entry = self.table.find(name)
        if entry is None:
            raise Errno(ENOSYS)
        return entry.handler(task, *arguments[: entry.nargs])

    def _not_returned(self, task: Task, why: Exception) -> None:
        """A handler left by an exception: asleep, interrupted, or dead."""
        if isinstance(why, MustSleep):
            task.in_call = True
            task.nvcsw += 1
            self.need_resched = True
        elif isinstance(why, Restart):
            task.wait_state = {}
            self.leave(task, why.code)
        else:
            self.need_resched = True

    def page_fault(self, error_code: int, address: int) -> None:
        """A memory fault of `current`; `error_code` is the CPU's (x86-64) or ESR_EL1 (arm64)."""
        task = self.current
        self.clock.now += FAULT_NSEC
        task.stime += FAULT_NSEC
        self.arch.page_fault(self, task, error_code, address)
        if task.sigpending or self.clock.now >= self.timers.next:
            self.leave(task)

    def clock_was_read(self, task: Task) -> None:
        """A call told the time. Who does little else waits for a moment: that costs more, and computing counts."""
        clock = self.clock
        clock.polls += 1
        if clock.polls > POLLS and clock.virtual:
            clock.now += POLL_NSEC
            task.stime += POLL_NSEC
            self.need_quantum()

    def takes(self, task: Task, nsec: int) -> None:
        """A call does much: that counts when a timer or a sleep will end, which must not be put off by it for long."""
        if self.timers.armed() and self.clock.virtual:
            self.clock.now += nsec
            task.stime += nsec

    def begin_trap(self) -> Task:
        """What every exception starts with; the task that trapped."""
        task = self.current
        self.clock.now += TRAP_NSEC
        task.stime += TRAP_NSEC
        return task

    def end_trap(self, task: Task) -> None:
        """What every trap ends with: due timers, signals."""
        if task.sigpending or self.clock.now >= self.timers.next:
            self.leave(task)

    def leave(self, task: Task, code: int = 0) -> None:
        """Work before user code: timers that are due, then signals."""
        woken = 0
        if self.clock.now >= self.timers.next:
            waiting = len(self.run_queue)
            self.timers.run()
            woken = len(self.run_queue) - waiting
        if task.sigpending or code or task.saved_sigmask is not None:
            try:
                do_signal(self, task, code)
            except (MustSleep, TaskExit):
                self.need_resched = True
        if woken:
            self.preempt(task, woken)
        elif self.clock.now >= self.turn_ends and not self.need_resched:
            self.next_turn(task)

    def resume(self, task: Task) -> bool:
        """`task` has the CPU and its registers are loaded: finish what it was doing. False when it left again."""
        self.need_resched = False
        if task.in_settid:
            task.in_settid = False
            self._put_tid(task)
        if task.userfaults:
            from guest.userfaults import go_on

            if not go_on(self, task):
                return False
        if task.trace_stop:
            from guest.ptrace_call import after_stop

            if after_stop(self, task):
                return not self.need_resched
        if task.in_call:
            task.in_call = False
            self.rerun = not task.held_call  # one that was held has not been made yet
            self.system_call()
            self.rerun = False
            return not self.need_resched
        if task.sigpending or task.restart_code:
            self.leave(task, task.restart_code)
        return not self.need_resched

    @staticmethod
    def _put_tid(task: Task) -> None:
        from mm.uaccess import put_user

        try:  # noqa: SIM105 - contextlib is not worth its import here
            put_user(task, task.set_child_tid, task.vnr(task.pid), 4)
        except Errno:
            pass  # put_user()'s result is not looked at

    # ---- tasks

    def alloc_pid(self) -> int:
        """The next free pid, cyclic as the kernel's idr. Raises Errno(EAGAIN) when there is none."""
        for _ in range(self.pid_max):
            pid = self.next_pid
            self.next_pid = pid + 1
            if pid + 1 >= self.pid_max:
                self.next_pid, self.pids_wrapped = 300, True
            if pid not in self.tasks and not (self.pids_wrapped and self.pid_in_use(pid)):
                return pid
        raise Errno(11)

    def find_task(self, pid: int) -> Task | None:
        """The task of this number in the first namespace; Task.find_task() is for what a program says."""
        return self.tasks.get(pid)

    def pid_in_use(self, pid: int) -> bool:
        """Whether a task, a process group or a session goes by it."""
        return pid in self.tasks or any(t.signal.pgrp == pid or t.signal.session == pid for t in self.tasks.values())

    def is_orphaned_pgrp(self, pgrp: int, ignore: Task | None = None) -> bool:
        """Whether no member of the group has a parent in another group of the same session."""
        for task in self.tasks.values():
            if task.group_leader is not task or task.signal.pgrp != pgrp or task is ignore or task is self.init:
                continue
            if task.exit_state and not task.signal.threads:
                continue
            parent = task.real_parent
            if parent is self.init:
                continue
            if parent.signal.pgrp != pgrp and parent.signal.session == task.signal.session:
                return False
        return True

    def queued_signals(self, task: Task) -> int:
        """Signals queued for tasks of the same user (user_struct.sigpending)."""
        uid = task.cred.uid
        total = 0
        for other in self.tasks.values():
            if other.cred.uid == uid:
                total += len(other.pending.queue)
                if other.group_leader is other:
                    total += len(other.signal.shared_pending.queue)
        return total

    def notify_signalfd(self, task: Task) -> None:
        """signalfd_notify(): wake readers of signalfds of the process."""
        queue = task.sighand.signalfd_wqh
        if queue is not None:
            queue.wake_all()

    def jiffies64(self) -> int:
        """Ticks since five minutes before the 32-bit counter wraps (INITIAL_JIFFIES)."""
        return (-300 * self.hz & 0xFFFFFFFF) + self.clock.now * self.hz // NSEC_PER_SEC

    def randomize(self, task: Task) -> bool:
        """Whether addresses of this task are randomised at all (personality and sysctl)."""
        return self.randomize_va_space > 0 and not task.personality & 0x0040000

    def randomize_stack_top(self, task: Task) -> int:
        """Where the stack ends, moved down at random."""
        arch = self.system.arch
        top: int = arch.stack_top
        if task.is_randomized():
            top -= (self.aslr_rng.getrandbits(64) & self.arch.stack_rnd_mask(arch.page_shift)) << arch.page_shift
        return top

    def arch_mmap_rnd(self) -> int:
        """Bytes."""
        arch = self.system.arch
        return (self.aslr_rng.getrandbits(64) & ((1 << arch.mmap_rnd_bits) - 1)) << arch.page_shift

    def randomize_page(self, start: int, length: int) -> int:
        """A page within [start, start + length)."""
        arch = self.system.arch
        aligned = (start + arch.page_size - 1) & arch.page_mask
        length -= aligned - start
        length = min(length, RESULT_MASK - aligned) >> arch.page_shift
        if not length:
            return aligned
        return aligned + (self.aslr_rng.getrandbits(64) % length << arch.page_shift)

    def on_first_run(self, task: Task) -> None:
        """CLONE_CHILD_SETTID: the child writes its tid before its first instruction (schedule_tail())."""
        task.in_settid = True

    def force_exit(self, task: Task, code: int) -> None:
        """End another thread of an exec'ing process, wherever it is."""
        from guest.exit import release_resources

        current = self.current
        try:
            release_resources(task, code)
        finally:
            self.set_current(current)

    def charge_ipc(self, size: int) -> None:
        """Messages and semaphores are the host's memory: at most a quarter of the guest's. Raises Errno ENOMEM."""
        if size > 0 and self.ipc_memory + size > self.system.totalram_pages * self.system.page_size // 4:
            raise Errno(12)
        self.ipc_memory += size

    def watch_data(self, task: Task) -> None:
        """The data that a task's debug registers watch has changed. Raises Errno(ENOSPC) where nobody can."""
        if self.data_watcher is not None:
            self.data_watcher(task)
        elif task.hw_watchpoints:
            task.hw_watchpoints = ()
            raise Errno(28)

    def capset_mm(self, task: Task) -> None:
        """mm/ reads capabilities from the task itself."""
        task.cap_effective = task.cred.cap_effective & CAP_FULL_SET
