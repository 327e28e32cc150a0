"""Tasks and what the tasks of a process share.

    Task --signal--> SignalStruct   one per process: limits, process group, shared pending signals, children's times
      |---sighand--> Sighand        the 64 actions
      |---pending    SigPending     signals for this very task
      |---cred       Cred           who it is
      +---mm, files, fs             address space (mm/), open files and folders (vfs)

All plain and picklable: no closures, no engine handles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.sched import TASK_RUNNING, WaitQueue
from guest.siginfo import SIGCHLD, SIGKILL
from mm.types import TaskStruct

if TYPE_CHECKING:
    from guest.cred import Cred
    from guest.futex_pi import PiState
    from guest.kernel import Kernel
    from guest.nsproxy import Nsproxy
    from guest.pid_namespace import PidNamespace
    from guest.rtmutex import RtWaiter
    from guest.sched_policy import SchedAttr
    from guest.siginfo import SigInfo
    from guest.time_namespace import TimeNamespace

PF_EXITING = 0x4
PF_FORKNOEXEC = 0x40
PF_SUPERPRIV = 0x100
PF_SIGNALED = 0x400
PF_RANDOMIZE = 0x400000

SIGNAL_STOP_STOPPED = 0x1
SIGNAL_STOP_CONTINUED = 0x2
SIGNAL_GROUP_EXIT = 0x4
SIGNAL_CLD_STOPPED = 0x10
SIGNAL_CLD_CONTINUED = 0x20
SIGNAL_CLD_MASK = SIGNAL_CLD_STOPPED | SIGNAL_CLD_CONTINUED
SIGNAL_UNKILLABLE = 0x40

JOBCTL_STOP_SIGMASK = 0xFFFF
JOBCTL_STOP_DEQUEUED = 1 << 16
JOBCTL_STOP_PENDING = 1 << 17
JOBCTL_STOP_CONSUME = 1 << 18
JOBCTL_TRAP_STOP = 1 << 19
JOBCTL_TRAP_NOTIFY = 1 << 20
JOBCTL_LISTENING = 1 << 22
JOBCTL_TRAP_MASK = JOBCTL_TRAP_STOP | JOBCTL_TRAP_NOTIFY
JOBCTL_PENDING_MASK = JOBCTL_STOP_PENDING | JOBCTL_TRAP_MASK

PT_PTRACED = 0x1
PT_SEIZED = 0x10000
PT_OPT_FLAG_SHIFT = 3
PT_TRACESYSGOOD = 1 << PT_OPT_FLAG_SHIFT
PT_EXITKILL = 1 << PT_OPT_FLAG_SHIFT + 20

RLIM_NLIMITS = 16
_INFINITY = 0xFFFFFFFFFFFFFFFF


class SigAction:
    """What to do on one signal (struct k_sigaction)."""

    __slots__ = ("flags", "handler", "mask", "restorer")

    def __init__(self, handler: int = 0, flags: int = 0, restorer: int = 0, mask: int = 0) -> None:
        self.handler = handler  # SIG_DFL, SIG_IGN or an address
        self.flags = flags
        self.restorer = restorer
        self.mask = mask

    def copy(self) -> SigAction:
        """A copy that may be changed."""
        return SigAction(self.handler, self.flags, self.restorer, self.mask)


class Sighand:
    """The actions; index is the signal number, 0 unused."""

    __slots__ = ("action", "count", "signalfd_wqh")

    def __init__(self) -> None:
        self.action = [SigAction() for _ in range(65)]
        self.count = 1  # tasks that share it
        self.signalfd_wqh: WaitQueue | None = None  # who waits on a signalfd; made by the first

    def copy(self) -> Sighand:
        """The actions of a new process."""
        new = Sighand.__new__(Sighand)
        new.action = [action.copy() for action in self.action]
        new.count = 1
        new.signalfd_wqh = None
        return new


class SigPending:
    """Signals sent and not yet taken: `signal` is their set, `queue` what is known of each, oldest first."""

    __slots__ = ("queue", "signal")

    def __init__(self) -> None:
        self.signal = 0
        self.queue: list[SigInfo] = []


class SignalStruct:
    """State of a process (struct signal_struct)."""

    def __init__(self, rlim: list[list[int]]) -> None:
        self.threads: list[Task] = []  # live threads, oldest first
        self.shared_pending = SigPending()
        self.rlim = rlim
        self.flags = 0  # SIGNAL_*
        self.group_exit_code = 0
        self.group_stop_count = 0
        self.group_exit_task: Task | None = None  # an exec that waits for the other threads
        self.wait_chldexit = WaitQueue("a child")
        self.quiet_children = False  # nothing has happened to any child since a wait looked at all of them
        self.wait_pidfd = WaitQueue("a pidfd")
        self.pgrp = 0
        self.session = 0
        self.leader = False  # of its session
        self.membarrier = 0  # MEMBARRIER_CMD_REGISTER_* made
        self.tty: Any = None  # controlling terminal
        self.tty_old_pgrp = 0  # its foreground group, when it hung up
        self.is_child_subreaper = False
        self.has_child_subreaper = False
        self.oom_score_adj = 0
        self.oom_score_adj_min = 0
        self.live = 1
        self.it_real_incr = 0  # ITIMER_REAL, ns
        self.it_real_expires = 0  # CLOCK_MONOTONIC ns; 0 is off
        self.it = [[0, 0], [0, 0]]  # ITIMER_VIRTUAL, ITIMER_PROF: [expiry in process CPU ns or 0, interval]
        self.posix_timers: dict[int, Any] = {}
        self.next_posix_timer_id = 0
        self.maxrss = 0  # pages
        self.cmaxrss = 0
        # What dead threads left behind, and what waited-for children left behind.
        self.utime = self.stime = self.cutime = self.cstime = 0
        self.min_flt = self.maj_flt = self.cmin_flt = self.cmaj_flt = 0
        self.nvcsw = self.nivcsw = self.cnvcsw = self.cnivcsw = 0


def default_rlimits(stack: int, processes: int) -> list[list[int]]:
    """INIT_RLIMITS (include/asm-generic/resource.h), `processes` being max_threads / 2."""
    rlim = [[_INFINITY, _INFINITY] for _ in range(RLIM_NLIMITS)]
    rlim[3] = [stack, _INFINITY]
    rlim[4] = [0, _INFINITY]  # CORE
    rlim[6] = [processes, processes]  # NPROC
    rlim[7] = [1024, 4096]  # NOFILE
    rlim[8] = [65536, 65536]  # MEMLOCK
    rlim[11] = [processes, processes]  # SIGPENDING
    rlim[12] = [819200, 819200]  # MSGQUEUE
    rlim[13] = [0, 0]  # NICE
    rlim[14] = [0, 0]  # RTPRIO
    return rlim


class SemUndoList:
    """The SEM_UNDO adjustments of a task and those it shares them with by CLONE_SYSVSEM (sys_sem.py)."""

    __slots__ = ("count", "undos")

    def __init__(self) -> None:
        self.count = 1  # tasks that share it
        self.undos: list[Any] = []  # SemUndo, used last first


class Task(TaskStruct):
    """One thread of execution (struct task_struct)."""

    sched_reset_on_fork = False
    sched_deadline: SchedAttr  # of SCHED_DEADLINE
    nsproxy: Nsproxy | None = None  # None: the first namespaces
    # Where it is itself; its children may be elsewhere (nsproxy). None: the first namespace.
    pid_ns: PidNamespace | None = None
    time_ns: TimeNamespace | None = None
    sem_undo: SemUndoList | None = None

    # Locks with priority inheritance (guest/rtmutex.py, futex_pi.py).
    pi_blocked_on: RtWaiter | None = None
    pi_waiters: tuple[RtWaiter, ...] = ()  # whose priorities it is lent
    pi_states: tuple[PiState, ...] = ()  # the locks it holds that somebody waits for, latest first

    # Events that are counted (guest/perf.py): for it, which it has opened, faults by kind while somebody counts them.
    perf_events: tuple[Any, ...] = ()
    perf_opened: tuple[Any, ...] = ()
    perf_faults: tuple[int, ...] | list[int] = (0,) * 6

    # Of a traced task and its tracer (guest/ptrace.py). In the class, so that the others do not pay for them.
    ptrace = 0  # PT_*
    tracer: Task | None = None
    ptraced: tuple[Task, ...] = ()  # whom this task traces, in the order it began to
    ptrace_message = 0
    last_siginfo: SigInfo | None = None  # of the stop it is in
    trace_stop = ""  # where it stopped
    trace_signal: SigInfo | None = None  # the signal of a SIGNAL stop
    trace_exit_code: int | None = None  # what it will exit with, once it was stopped before that
    trace_exec = False  # an exec is to be reported when its call is over
    trace_syscalls = False  # TIF_SYSCALL_TRACE
    trace_emu = False  # TIF_SYSCALL_EMU
    trace_entered = False  # the tracer has seen the beginning of the call at hand
    trace_entered_emu = False  # that call is to be skipped
    trace_step = False  # TIF_SINGLESTEP
    step_again = False  # the next step has ended before it begins
    step_from = (0, 0)  # program counter and faults when the step began
    trace_in_call = False  # its call has begun and is not over
    orig_nr: int | None = None  # number of the call it is in, signed
    trace_result = 0  # what a call that does not exist returns
    debug_registers: tuple[int, ...] = (0,) * 8
    debug_slots = 0  # bit n: DRn was ever used
    hw_breakpoints: tuple[tuple[int, int], ...] = ()  # those of them that are enabled: number, address of code
    debug_hits = 0  # bit n: it has touched what DRn watches, and not been told yet
    hw_watchpoints: tuple[tuple[int, int, int, str], ...] = ()  # number, address, bytes, "w" or "rw"

    def __init__(self, kernel: Kernel, pid: int) -> None:
        super().__init__(kernel.system)
        self.kernel = kernel
        self.pid = pid
        self.tgid = pid
        self.state = TASK_RUNNING  # letter of /proc/PID/stat
        self.exit_state = ""  # "", "Z" or "X"
        self.exit_code = 0  # as wait4 shows it
        self.exit_signal = SIGCHLD
        self.flags = 0  # PF_*
        self.cpu_state = b""  # registers while not on the CPU
        self.files: Any = None
        self.fs: Any = None
        self.cred: Cred
        self.signal: SignalStruct
        self.sighand: Sighand
        self.group_leader: Task = self
        self.real_parent: Task = self
        self.children: list[Task] = []  # oldest first
        self.pending = SigPending()
        self.blocked = 0
        self.real_blocked = 0  # the mask to go back to during rt_sigtimedwait
        self.saved_sigmask: int | None = None  # set: TIF_RESTORE_SIGMASK
        self.sas_ss_sp = self.sas_ss_size = 0
        self.sas_ss_flags = 2  # SS_DISABLE
        self.jobctl = 0
        self.sigpending = False  # TIF_SIGPENDING
        self.restart_block: tuple[Any, ...] | None = None  # (function, arguments...) of restart_syscall
        # A system call that sleeps.
        self.held_call = False  # it was stopped before the call it made was served
        self.in_call = False  # the call must be run again when the task runs
        self.restart_code = 0  # an ERESTART code whose signal is not yet settled (the task was stopped)
        self.wait_state: dict[str, Any] = {}  # what the handler keeps between its runs
        self.waiting_on: tuple[WaitQueue, ...] = ()
        self.deadline: int | None = None
        # Faults, as the signal frame shows them: x86-64 trapno, err, cr2; arm64 fault_address, fault_code (esr).
        self.trap_nr = self.error_code = self.cr2 = 0
        self.fault_address = self.fault_code = 0
        self.set_child_tid = self.clear_child_tid = 0
        self.in_settid = False  # set_child_tid is still to be written
        self.robust_list = 0
        self.vfork_done: WaitQueue | None = None  # whoever vforked waits here
        self.did_exec = False
        self.in_execve = False
        self.no_new_privs = False
        self.pdeath_signal = 0
        self.timer_slack_ns = self.default_timer_slack_ns = 50_000
        self.tsc_forbidden = False  # TIF_NOTSC
        self.policy = 0
        self.rt_priority = 0
        self.nice = 0
        self.vruntime = 0  # ns, scaled (run_queue.py)
        self.utime = self.stime = 0  # ns
        self.start_time = 0  # ns since boot
        self.serial = kernel.tasks_made  # how many there were before: pids come again, this does not
        kernel.tasks_made += 1
        self.nvcsw = self.nivcsw = 0
        self.mce_kill = 2  # PR_MCE_KILL_DEFAULT
        self.io_flusher = False
        self.io_context = 0  # ioprio
        self.self_exec_id = 0
        self.parent_exec_id = 0

    def __repr__(self) -> str:
        return f"<Task {self.pid} {self.comm} {self.state}>"

    @property
    def ppid(self) -> int:
        """Process id of the parent; 0 for process 1, whose parent is the kernel."""
        parent = self.real_parent
        return parent.tgid if parent is not self else 0

    def vnr(self, pid: int) -> int:
        """pid_vnr(): the number this task sees of a process, group or session; 0: none."""
        return pid if self.pid_ns is None else self.pid_ns.numbers.get(pid, 0)

    def vpid(self, nr: int) -> int:
        """find_vpid(): what a number this task gives stands for; -1: nothing."""
        return nr if self.pid_ns is None else self.pid_ns.pids.get(nr, -1)

    def find_task(self, nr: int) -> Task | None:
        """find_task_by_vpid()."""
        return self.kernel.tasks.get(nr if self.pid_ns is None else self.pid_ns.pids.get(nr, -1))

    @property
    def normal_prio(self) -> int:
        """The kernel's priority: -1 deadline, 0 to 98 real-time, 100 to 139 by nice value; less is more urgent."""
        if self.policy == 6:
            return -1
        return 99 - self.rt_priority if self.policy in (1, 2) else 120 + self.nice

    @property
    def prio(self) -> int:
        """normal_prio, or the priority of a more urgent task that waits for a lock of this one."""
        waiters = self.pi_waiters
        return min(self.normal_prio, waiters[0].prio) if waiters else self.normal_prio

    def signal_pending(self) -> bool:
        """Whether a signal should end an interruptible sleep (TIF_SIGPENDING)."""
        return self.sigpending

    def fatal_signal_pending(self) -> bool:
        """Whether a SIGKILL is pending (how every fatal signal arrives)."""
        return self.sigpending and bool(self.pending.signal >> (SIGKILL - 1) & 1)

    def wait_for_userfault(self, wait: Any) -> None:
        """The task leaves the CPU before it runs on, and waits for one thing more (userfaults.py)."""
        self.userfaults.append(wait)
        self.kernel.need_resched = True

    def userfault_woken(self) -> None:
        """Something it waits for has come."""
        if self.userfaults and self.waiting_on:
            self.kernel.wake_up(self)

    def userfault_completed(self, key: tuple[int, ...]) -> bool:
        """This call has waited for `key` already: it is made again now."""
        return key in self.wait_state.get("userfaults", ())

    def capable(self, cap: int) -> bool:
        """Whether the capability is effective; using one is remembered."""
        if self.cred.cap_effective >> cap & 1:
            self.flags |= PF_SUPERPRIV
            return True
        return False

    def randomize_page(self, start: int, length: int) -> int:
        """A random page in [start, start + length), or `start` where the program's addresses are not randomised."""
        return self.kernel.randomize_page(start, length) if self.is_randomized() else start

    def is_randomized(self) -> bool:
        """PF_RANDOMIZE: this program's addresses were randomised."""
        return bool(self.flags & PF_RANDOMIZE)

    def set_randomize(self, on: bool) -> None:
        """Set or clear PF_RANDOMIZE."""
        self.flags = self.flags | PF_RANDOMIZE if on else self.flags & ~PF_RANDOMIZE

    def rlimit(self, resource: int) -> int:
        """The soft limit."""
        return self.rlim[resource][0]
