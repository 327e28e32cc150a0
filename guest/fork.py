"""fork, vfork, clone, clone3: a new task as a copy of the running one (kernel/fork.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.clock import COPY_MM_NSEC
from guest.events import Fork
from guest.exit import new_vfork_queue, wait_for_vfork_done
from guest.nsproxy import NEW_NAMESPACES, check_thread, create_new_namespaces, enter, enter_mounts
from guest.own_mm import own_mm
from guest.run_queue import START_DEBIT
from guest.sched import ERESTARTNOINTR, TASK_RUNNING, Restart
from guest.sched_policy import SCHED_DEADLINE, SCHED_FIFO, SCHED_RR
from guest.siginfo import SIG_IGN, SIGCHLD
from guest.signal import recalc_sigpending
from guest.task import PF_FORKNOEXEC, PF_SUPERPRIV, SIGNAL_UNKILLABLE, SemUndoList, SignalStruct, Task
from mm.errors import Errno
from mm.flags import RLIM_INFINITY, RLIMIT_NPROC
from mm.uaccess import put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.nsproxy import Nsproxy

RLIMIT_CPU = 0
CSIGNAL = 0xFF
CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_SIGHAND = 0x800
CLONE_PIDFD = 0x1000
CLONE_PTRACE = 0x2000
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_THREAD = 0x10000
CLONE_NEWNS = 0x20000
CLONE_SYSVSEM = 0x40000
CLONE_SETTLS = 0x80000
CLONE_PARENT_SETTID = 0x100000
CLONE_CHILD_CLEARTID = 0x200000
CLONE_DETACHED = 0x400000
CLONE_UNTRACED = 0x800000
CLONE_CHILD_SETTID = 0x1000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_IO = 0x80000000
CLONE_CLEAR_SIGHAND = 0x100000000
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24


class CloneArgs:
    """struct kernel_clone_args."""

    __slots__ = ("child_tid", "exit_signal", "flags", "parent_tid", "pidfd", "set_tid", "stack", "tls")

    def __init__(
        self, flags: int, exit_signal: int, stack: int = 0, parent_tid: int = 0, child_tid: int = 0, tls: int = 0
    ) -> None:
        self.flags = flags
        self.exit_signal = exit_signal
        self.stack = stack
        self.parent_tid = parent_tid
        self.child_tid = child_tid
        self.tls = tls
        self.pidfd = parent_tid
        self.set_tid: list[int] = []


def kernel_clone(task: Task, args: CloneArgs) -> int:
    """The new task's pid. A vfork sleeps here; the second run of the handler finds its child again."""
    child: Task | None = task.wait_state.get("child")
    flags = args.flags
    if child is None:
        if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID and args.pidfd == args.parent_tid:
            raise Errno(errno.EINVAL)
        child = _copy_process(task, args)
        event = _trace_child(task, child, args) if task.ptrace else 0
        if flags & CLONE_PARENT_SETTID:
            _try_put(task, args.parent_tid, task.vnr(child.pid))
        if flags & CLONE_VFORK:
            child.vfork_done = new_vfork_queue(child)
            task.wait_state["child"] = child
        if task.system.listener is not None:
            root = child.mm.pgd if child.mm is not None else 0
            task.system.listener(Fork(task.pid, child.pid, flags | args.exit_signal, root))
        task.kernel.enqueue(child)
        task.kernel.forked()
        if task.perf_events:
            from guest.perf import fork

            fork(task, child)
        if event:
            from guest.ptrace import EVENT, ptrace_event

            task.wait_state["child"] = child
            ptrace_event(task, EVENT, event, (task.tracer or task).vnr(child.pid))
    if flags & CLONE_VFORK:
        pid = (task.tracer or task).vnr(child.pid)
        try:
            wait_for_vfork_done(task, child)
        except Restart:
            child.vfork_done = None  # killed while waiting
        if task.ptrace and "done" not in task.wait_state:
            from guest.ptrace import EVENT, PTRACE_EVENT_VFORK_DONE, ptrace_event

            task.wait_state["done"] = True
            ptrace_event(task, EVENT, PTRACE_EVENT_VFORK_DONE, pid)
        return task.vnr(child.pid)
    return task.vnr(child.pid)


def _trace_child(task: Task, child: Task, args: CloneArgs) -> int:
    """The event a traced task reports for this child, 0 for none; with it, or CLONE_PTRACE, the child is traced too."""
    from guest.ptrace import (
        PTRACE_EVENT_CLONE,
        PTRACE_EVENT_FORK,
        PTRACE_EVENT_VFORK,
        event_enabled,
        ptrace_init_task,
    )

    event = PTRACE_EVENT_FORK if args.exit_signal == SIGCHLD else PTRACE_EVENT_CLONE
    if args.flags & CLONE_VFORK:
        event = PTRACE_EVENT_VFORK
    if args.flags & CLONE_UNTRACED or not event_enabled(task, event):
        event = 0
    if event or args.flags & CLONE_PTRACE:
        ptrace_init_task(child, task)
    return event


def _try_put(task: Task, address: int, value: int) -> None:
    try:  # noqa: SIM105 - contextlib is not worth its import here
        put_user(task, address, value, 4)
    except Errno:
        pass  # put_user()'s result is not looked at


def _check_flags(task: Task, args: CloneArgs) -> None:
    flags = args.flags
    invalid = Errno(errno.EINVAL)
    if flags & (CLONE_NEWNS | CLONE_FS) == CLONE_NEWNS | CLONE_FS:
        raise invalid
    if flags & (CLONE_NEWUSER | CLONE_FS) == CLONE_NEWUSER | CLONE_FS:
        raise invalid
    if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
        raise invalid
    if flags & CLONE_SIGHAND and not flags & CLONE_VM:
        raise invalid
    if flags & CLONE_PARENT and task.signal.flags & SIGNAL_UNKILLABLE:
        raise invalid
    if flags & CLONE_THREAD and flags & (CLONE_NEWUSER | CLONE_NEWPID):
        raise invalid
    if flags & (CLONE_THREAD | CLONE_VM) and task.nsproxy is not None:
        check_thread(task, flags)
    if flags & CLONE_PIDFD and flags & (CLONE_DETACHED | CLONE_THREAD):
        raise invalid
    if flags & (CLONE_NEWIPC | CLONE_SYSVSEM) == CLONE_NEWIPC | CLONE_SYSVSEM and task.capable(_CAP_SYS_ADMIN):
        raise invalid


def _copy_process(task: Task, args: CloneArgs) -> Task:
    """copy_process(): the child, not yet runnable. Raises Errno, or Restart when a signal comes first."""
    flags = args.flags
    _check_flags(task, args)
    recalc_sigpending(task)
    if task.sigpending:
        raise Restart(ERESTARTNOINTR)
    kernel = task.kernel
    _check_nproc(task)
    if not flags & CLONE_FILES:
        task.files.check_copy(kernel)
    namespaces = create_new_namespaces(task, flags) if flags & NEW_NAMESPACES else task.nsproxy
    child = Task(kernel, _alloc_pid(task, args, namespaces))
    _inherit(child, task, flags)
    if namespaces is not None:
        child.nsproxy = namespaces
        enter(child, namespaces)
    if flags & CLONE_CHILD_SETTID:
        child.set_child_tid = args.child_tid
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = args.child_tid
    _copy_resources(child, task, flags)
    if flags & CLONE_NEWNS:
        enter_mounts(child)
    try:
        _copy_mm(child, task, flags)
        if child.time_ns is not task.time_ns:
            from guest.time_namespace import timens_commit

            timens_commit(child)
        child.cpu_state = _copy_thread(kernel, task, args)
    except Errno:
        _undo(child)
        raise
    if flags & CLONE_PIDFD:
        _give_pidfd(task, child, args.pidfd)
    _attach(child, task, args)
    kernel.total_forks += 1
    if child.set_child_tid:
        kernel.on_first_run(child)
    return child


def _alloc_pid(task: Task, args: CloneArgs, namespaces: Nsproxy | None) -> int:
    """The child's process id, numbered in the namespaces it will be in."""
    if not args.set_tid and (namespaces is None or namespaces.pid_ns is None):
        return task.kernel.alloc_pid()
    from guest.pid_namespace import alloc_pid

    return alloc_pid(task, None if namespaces is None else namespaces.pid_ns, args.set_tid)


def _give_pidfd(task: Task, child: Task, address: int) -> None:
    """A descriptor for the child that is about to be. Raises Errno EFAULT, EMFILE; then there is no child."""
    from guest.pidfd import make_pidfd

    fd = -1
    try:
        fd = make_pidfd(task, child, 0)
        put_user(task, address, fd, 4)
    except Errno:
        if fd >= 0:
            task.files.close(fd, task)
        _undo(child)
        raise


def _check_nproc(task: Task) -> None:
    kernel = task.kernel
    uid = task.cred.uid
    if uid != 0 and not task.capable(_CAP_SYS_RESOURCE) and not task.capable(_CAP_SYS_ADMIN):
        processes = sum(1 for other in kernel.tasks.values() if other.cred.uid == uid)
        if processes >= task.rlimit(RLIMIT_NPROC):
            raise Errno(errno.EAGAIN)
    if len(kernel.tasks) >= kernel.max_threads:
        raise Errno(errno.EAGAIN)
    if task.policy == SCHED_DEADLINE and not task.sched_reset_on_fork:
        raise Errno(errno.EAGAIN)  # sched_fork(): the child would have no share of the CPU


def _inherit(child: Task, task: Task, flags: int) -> None:
    """What dup_task_struct() copies and copy_process() does not clear."""
    child.state = TASK_RUNNING
    child.comm = task.comm
    child.flags = task.flags & ~PF_SUPERPRIV | PF_FORKNOEXEC
    child.personality = task.personality
    child.mempolicy = task.mempolicy
    child.cred = task.cred
    child.cap_effective = task.cap_effective
    child.blocked = task.blocked
    child.vmacache_seqnum = task.vmacache_seqnum
    child.no_new_privs = task.no_new_privs
    child.timer_slack_ns = child.default_timer_slack_ns = task.timer_slack_ns
    child.tsc_forbidden = task.tsc_forbidden
    child.policy, child.rt_priority, child.nice = task.policy, task.rt_priority, task.nice
    child.vruntime = task.vruntime + START_DEBIT
    if task.sched_reset_on_fork:
        if task.policy in (SCHED_FIFO, SCHED_RR, SCHED_DEADLINE):
            child.policy = child.rt_priority = child.nice = 0
        child.nice = max(child.nice, 0)
    child.io_context = task.io_context
    child.time_ns = task.time_ns
    child.trap_nr, child.error_code, child.cr2 = task.trap_nr, task.error_code, task.cr2
    child.fault_address, child.fault_code = task.fault_address, task.fault_code
    child.start_time = task.kernel.clock.now
    if flags & (CLONE_VM | CLONE_VFORK) != CLONE_VM:
        child.sas_ss_sp, child.sas_ss_size, child.sas_ss_flags = task.sas_ss_sp, task.sas_ss_size, task.sas_ss_flags
    child.did_exec = False


def _copy_resources(child: Task, task: Task, flags: int) -> None:
    """copy_files(), copy_fs(), copy_sighand(), copy_signal()."""
    if flags & CLONE_FILES:
        child.files = task.files
        task.files.count += 1
    else:
        child.files = task.files.copy()
    if flags & CLONE_SYSVSEM:
        if task.sem_undo is None:
            task.sem_undo = SemUndoList()
        child.sem_undo = task.sem_undo
        child.sem_undo.count += 1
    if flags & CLONE_FS:
        child.fs = task.fs
        task.fs.users += 1
    else:
        child.fs = task.fs.copy()
    if flags & CLONE_SIGHAND:
        child.sighand = task.sighand
        task.sighand.count += 1
    else:
        child.sighand = task.sighand.copy()
        if flags & CLONE_CLEAR_SIGHAND:
            for action in child.sighand.action:
                if action.handler != SIG_IGN:
                    action.handler = 0
                action.flags = action.restorer = action.mask = 0
    if flags & CLONE_THREAD:
        child.signal = task.signal
        child.rlim = task.rlim
        return
    old = task.signal
    signal = SignalStruct([limit[:] for limit in old.rlim])
    if signal.rlim[RLIMIT_CPU][0] != RLIM_INFINITY:
        task.kernel.timers.update(signal)
    signal.pgrp, signal.session, signal.tty = old.pgrp, old.session, old.tty
    signal.is_child_subreaper = False
    signal.oom_score_adj, signal.oom_score_adj_min = old.oom_score_adj, old.oom_score_adj_min
    signal.has_child_subreaper = old.has_child_subreaper or old.is_child_subreaper
    child.signal = signal
    child.rlim = signal.rlim


def _copy_mm(child: Task, task: Task, flags: int) -> None:
    """copy_mm(): shared or duplicated."""
    from mm.fork import dup_mm, mmget

    mm = own_mm(task)
    if flags & CLONE_VM:
        child.mm = mmget(mm)
    else:
        child.mm = dup_mm(child, mm)
        task.kernel.takes(task, COPY_MM_NSEC)


def _copy_thread(kernel: Kernel, task: Task, args: CloneArgs) -> bytes:
    """The child's registers: the parent's, with the result 0. The CPU itself is left as it was."""
    cpu = kernel.cpu
    saved = cpu.save_state()
    try:
        kernel.arch.set_child_registers(cpu, args.stack, args.tls if args.flags & CLONE_SETTLS else None)
        return cpu.save_state()
    finally:
        cpu.load_state(saved)


def _undo(child: Task) -> None:
    """The rest of copy_process() failed: nothing of the child is left."""
    from mm.fork import mmput

    mm, child.mm = child.mm, None
    if mm is not None:
        mmput(mm)
    if child.sem_undo is not None:
        child.sem_undo.count -= 1
    child.files.close_all()
    child.fs.users -= 1
    child.sighand.count -= 1
    if child.pid_ns is not None:
        from guest.pid_namespace import free_pid

        free_pid(child.kernel, child.pid_ns, child.pid)


def _attach(child: Task, task: Task, args: CloneArgs) -> None:
    """Process ids, parent, thread group."""
    flags = args.flags
    if flags & CLONE_THREAD:
        child.group_leader = task.group_leader
        child.tgid = task.tgid
    if flags & (CLONE_PARENT | CLONE_THREAD):
        child.real_parent = task.real_parent
        child.parent_exec_id = task.parent_exec_id
        child.exit_signal = -1 if flags & CLONE_THREAD else task.group_leader.exit_signal
    else:
        child.real_parent = task
        child.parent_exec_id = task.self_exec_id
        child.exit_signal = args.exit_signal
    child.self_exec_id = task.self_exec_id
    child.signal.threads.append(child)
    if flags & CLONE_THREAD:
        child.signal.live += 1
    else:
        child.real_parent.children.append(child)
    task.kernel.tasks[child.pid] = child
    if child.pid_ns is not None and child.group_leader is child:
        from guest.pid_namespace import becomes_init

        becomes_init(child)
    recalc_sigpending(child)
