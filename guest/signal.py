"""Signals: sending, queueing, stops, and what parents are told (kernel/signal.c).

    send_signal -> prepare_signal (stop and continue act at once; ignored signals are dropped)
                -> queue -> complete_signal (whom to wake; a fatal one dooms the whole group)
    on the way back to user code: signal_deliver.py

A signal "from the kernel" carries an info made with SI_KERNEL, and `force` says it cannot be ignored by init.
"""

from __future__ import annotations

import errno

from guest.sched import (
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_STOPPED,
    TASK_TRACED,
    Block,
)
from guest.siginfo import (
    CLD_CONTINUED,
    CLD_STOPPED,
    CLD_TRAPPED,
    SA_NOCLDSTOP,
    SI_KERNEL,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIG_KERNEL_COREDUMP_MASK,
    SIG_KERNEL_IGNORE_MASK,
    SIG_KERNEL_ONLY_MASK,
    SIG_KERNEL_STOP_MASK,
    SIGALRM,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    SIGSEGV,
    SYNCHRONOUS_MASK,
    SigInfo,
    child_info,
    fault_info,
    has_si_pid,
    kill_info,
    without_pid,
)
from guest.signal_report import report
from guest.task import (
    JOBCTL_LISTENING,
    JOBCTL_PENDING_MASK,
    JOBCTL_STOP_CONSUME,
    JOBCTL_STOP_DEQUEUED,
    JOBCTL_STOP_PENDING,
    JOBCTL_STOP_SIGMASK,
    JOBCTL_TRAP_NOTIFY,
    JOBCTL_TRAP_STOP,
    PF_EXITING,
    PT_SEIZED,
    SIGNAL_CLD_CONTINUED,
    SIGNAL_CLD_MASK,
    SIGNAL_CLD_STOPPED,
    SIGNAL_GROUP_EXIT,
    SIGNAL_STOP_CONTINUED,
    SIGNAL_STOP_STOPPED,
    SIGNAL_UNKILLABLE,
    SigPending,
    Task,
)

RLIMIT_SIGPENDING = 11
_CLOCK_T = 10_000_000  # ns in a USER_HZ tick


# ---- the pending set


def recalc_sigpending(task: Task) -> None:
    """Set or clear TIF_SIGPENDING from what is pending and not blocked."""
    pending = (task.pending.signal | task.signal.shared_pending.signal) & ~task.blocked
    task.sigpending = bool(pending) or bool(task.jobctl & JOBCTL_PENDING_MASK)


def set_current_blocked(task: Task, mask: int) -> None:
    """Change the blocked set of the running task; SIGKILL and SIGSTOP stay out of it."""
    mask &= ~SIG_KERNEL_ONLY_MASK
    if task.blocked == mask:
        return
    if task.sigpending and len(task.signal.threads) > 1:
        _retarget_shared_pending(task, mask & ~task.blocked)
    task.blocked = mask
    recalc_sigpending(task)


def _retarget_shared_pending(task: Task, which: int) -> None:
    """Other threads must take the shared signals that `task` will not."""
    retarget = task.signal.shared_pending.signal & which
    for thread in task.signal.threads:
        if not retarget:
            return
        if thread is task or thread.flags & PF_EXITING or not retarget & ~thread.blocked:
            continue
        retarget &= thread.blocked
        if not thread.sigpending:
            signal_wake_up(thread, False)


def _next_signal(pending: SigPending, mask: int) -> int:
    """The signal to take first: synchronous ones, then the lowest number; 0 when none."""
    ready = pending.signal & ~mask
    if not ready:
        return 0
    if ready & SYNCHRONOUS_MASK:
        ready &= SYNCHRONOUS_MASK
    return (ready & -ready).bit_length()


def _collect_signal(signo: int, pending: SigPending) -> SigInfo:
    """Take one instance of `signo` off the queue."""
    first = None
    for info in pending.queue:
        if info.signo == signo:
            if first is not None:
                pending.queue.remove(first)
                return first
            first = info
    pending.signal &= ~(1 << (signo - 1))
    if first is None:
        return kill_info(signo, SI_USER, 0, 0)
    pending.queue.remove(first)
    return first


def dequeue_signal(task: Task, mask: int) -> SigInfo | None:
    """Take the next signal not in `mask`: the task's own first, then the process's."""
    signo = _next_signal(task.pending, mask)
    if signo:
        info = _collect_signal(signo, task.pending)
    else:
        signo = _next_signal(task.signal.shared_pending, mask)
        if signo:
            info = _collect_signal(signo, task.signal.shared_pending)
            if signo == SIGALRM:
                task.kernel.timers.rearm_real(task.signal)
    recalc_sigpending(task)
    if not signo:
        return None
    if SIG_KERNEL_STOP_MASK >> (signo - 1) & 1:
        task.jobctl |= JOBCTL_STOP_DEQUEUED
    if info.code == -2:  # SI_TIMER
        task.kernel.timers.rearm_posix(task.signal, info)
    return info


def dequeue_synchronous_signal(task: Task) -> SigInfo | None:
    """The first queued signal that an instruction of the task itself caused."""
    pending = task.pending
    if not pending.signal & ~task.blocked & SYNCHRONOUS_MASK:
        return None
    for info in pending.queue:
        if info.code > SI_USER and SYNCHRONOUS_MASK >> (info.signo - 1) & 1:
            pending.queue.remove(info)
            if not any(other.signo == info.signo for other in pending.queue):
                pending.signal &= ~(1 << (info.signo - 1))
                recalc_sigpending(task)
            return info
    return None


def flush_sigqueue_mask(pending: SigPending, mask: int) -> None:
    """Forget pending signals in `mask`."""
    if pending.signal & mask:
        pending.signal &= ~mask
        pending.queue = [info for info in pending.queue if not mask >> (info.signo - 1) & 1]


# ---- sending


def _handler_ignored(handler: int, signo: int) -> bool:
    return handler == SIG_IGN or (handler == SIG_DFL and bool(SIG_KERNEL_IGNORE_MASK >> (signo - 1) & 1))


def sig_ignored(task: Task, signo: int, force: bool) -> bool:
    """Whether a signal can be dropped at once. A blocked one never: the action may change before it is unblocked."""
    if (task.blocked | task.real_blocked) >> (signo - 1) & 1:
        return False
    if task.ptrace and signo != SIGKILL:
        return False  # the tracer is to see it
    handler = task.sighand.action[signo].handler
    only = SIG_KERNEL_ONLY_MASK >> (signo - 1) & 1
    if task is task.kernel.init and only:
        return True
    if task.signal.flags & SIGNAL_UNKILLABLE and handler == SIG_DFL and not (force and only):
        return True
    return _handler_ignored(handler, signo)


def _prepare_signal(signo: int, task: Task, force: bool) -> bool:
    """The effects of stop and continue signals, which happen when sent; False: drop the signal."""
    signal = task.signal
    if signal.flags & SIGNAL_GROUP_EXIT:
        pass  # dying: nothing to do
    elif SIG_KERNEL_STOP_MASK >> (signo - 1) & 1:
        flush_sigqueue_mask(signal.shared_pending, 1 << (SIGCONT - 1))
        for thread in signal.threads:
            flush_sigqueue_mask(thread.pending, 1 << (SIGCONT - 1))
    elif signo == SIGCONT:
        flush_sigqueue_mask(signal.shared_pending, SIG_KERNEL_STOP_MASK)
        for thread in signal.threads:
            flush_sigqueue_mask(thread.pending, SIG_KERNEL_STOP_MASK)
            _clear_stop_pending(thread)
            if thread.ptrace & PT_SEIZED:
                ptrace_trap_notify(thread)
            elif thread.state == TASK_STOPPED:
                thread.sigpending = True  # so that get_signal() tells the parent
                thread.kernel.wake_up(thread)
        why = 0
        if signal.flags & SIGNAL_STOP_STOPPED:
            why = SIGNAL_CLD_CONTINUED
        elif signal.group_stop_count:
            why = SIGNAL_CLD_STOPPED
        if why:
            _set_stop_flags(signal, why | SIGNAL_STOP_CONTINUED)
            signal.group_stop_count = 0
            signal.group_exit_code = 0
    return not sig_ignored(task, signo, force)


def _set_stop_flags(signal: object, flags: int) -> None:
    """signal_set_stop_flags(): the stop flags exclude each other; a dying group keeps its own."""
    if not signal.flags & SIGNAL_GROUP_EXIT:  # type: ignore[attr-defined]
        signal.flags = signal.flags & ~(SIGNAL_STOP_STOPPED | SIGNAL_STOP_CONTINUED | SIGNAL_CLD_MASK) | flags  # type: ignore[attr-defined]


def _clear_stop_pending(task: Task) -> None:
    task.jobctl &= ~(JOBCTL_STOP_PENDING | JOBCTL_STOP_CONSUME | JOBCTL_STOP_DEQUEUED)


def signal_wake_up(task: Task, fatal: bool) -> None:
    """Tell a task it has a signal; a fatal one also ends killable sleeps and stops."""
    task.sigpending = True
    if task.state == TASK_INTERRUPTIBLE or (fatal and task.state in (TASK_KILLABLE, TASK_STOPPED, TASK_TRACED)):
        task.kernel.wake_up(task)


def ptrace_signal_wake_up(task: Task, resume: bool) -> None:
    """Make a traced task look at its jobctl; `resume` ends a trace stop too."""
    task.sigpending = True
    if task.state == TASK_INTERRUPTIBLE or (resume and task.state in (TASK_TRACED, TASK_STOPPED)):
        task.kernel.wake_up(task)


def ptrace_trap_notify(task: Task) -> None:
    """A seized task is to report that its group stopped or goes on."""
    set_jobctl_pending(task, JOBCTL_TRAP_NOTIFY)
    ptrace_signal_wake_up(task, bool(task.jobctl & JOBCTL_LISTENING))


def _wants_signal(signo: int, task: Task) -> bool:
    if task.blocked >> (signo - 1) & 1 or task.flags & PF_EXITING:
        return False
    if signo == SIGKILL:
        return True
    if task.state in (TASK_STOPPED, TASK_TRACED):
        return False
    return task is task.kernel.current or not task.sigpending


def _complete_signal(signo: int, task: Task, group: bool) -> None:
    """Choose the thread that takes the signal; a fatal signal takes all of them down."""
    signal = task.signal
    target = task
    if not _wants_signal(signo, task):
        if not group:
            return
        for thread in signal.threads:
            if _wants_signal(signo, thread):
                target = thread
                break
        else:
            return
    bit = 1 << (signo - 1)
    fatal = not (SIG_KERNEL_IGNORE_MASK | SIG_KERNEL_STOP_MASK) & bit and (
        task.sighand.action[signo].handler == SIG_DFL
    )
    unkillable = signal.flags & SIGNAL_UNKILLABLE and not SIG_KERNEL_ONLY_MASK & bit
    if (
        fatal
        and (signo == SIGKILL or not task.ptrace)
        and not unkillable
        and not signal.flags & SIGNAL_GROUP_EXIT
        and not target.real_blocked & bit
        and not SIG_KERNEL_COREDUMP_MASK & bit
    ):
        signal.flags = SIGNAL_GROUP_EXIT
        signal.group_exit_code = signo
        signal.group_stop_count = 0
        for thread in signal.threads:
            _clear_stop_pending(thread)
            thread.pending.signal |= 1 << (SIGKILL - 1)
            signal_wake_up(thread, True)
        return
    signal_wake_up(target, signo == SIGKILL)


def send_signal(info: SigInfo, task: Task, group: bool, force: bool | None = None) -> int:
    """Queue a signal for a process (`group`) or for one task (__send_signal()).

    Args:
        force: not to be ignored by init; by default exactly the kernel's own signals.

    Returns:
        0, or EAGAIN when a real-time signal found no room in the queue.
    """
    signo = info.signo
    if force is None:
        force = info.code == SI_KERNEL
        if task.pid_ns is not None and not task.vnr(task.kernel.current.pid) and has_si_pid(info):
            info, force = without_pid(info), True  # from an ancestor of its namespace
    if not _prepare_signal(signo, task, force):
        report(task, info, "ignore", 0)
        return 0
    pending = task.signal.shared_pending if group else task.pending
    bit = 1 << (signo - 1)
    if signo < SIGRTMIN and pending.signal & bit:
        return 0
    if signo != SIGKILL:
        override = signo < SIGRTMIN and info.code >= 0
        if override or task.kernel.queued_signals(task) < task.rlimit(RLIMIT_SIGPENDING):
            pending.queue.append(info)
        elif signo >= SIGRTMIN and info.code != SI_USER:
            return errno.EAGAIN
    pending.signal |= bit
    task.kernel.notify_signalfd(task)
    _complete_signal(signo, task, group)
    return 0


def force_sig_info(task: Task, info: SigInfo) -> None:
    """A signal the task cannot escape: blocked or ignored, it takes the default action."""
    action = task.sighand.action[info.signo]
    bit = 1 << (info.signo - 1)
    blocked = task.blocked & bit
    if blocked or action.handler == SIG_IGN:
        action.handler = SIG_DFL
        if blocked:
            task.blocked &= ~bit
            recalc_sigpending(task)
    if action.handler == SIG_DFL and not task.ptrace:
        task.signal.flags &= ~SIGNAL_UNKILLABLE
    send_signal(info, task, False)


def force_sig(task: Task, signo: int) -> None:
    """From the kernel, without an address."""
    force_sig_info(task, kill_info(signo, SI_KERNEL, 0, 0))


def force_sig_fault(task: Task, signo: int, code: int, address: int) -> None:
    """With the address that did it."""
    force_sig_info(task, fault_info(signo, code, address))


def force_sigsegv(task: Task, signo: int) -> None:
    """Something went wrong while a signal was handled; if that was SIGSEGV itself, no handler gets another try."""
    if signo == SIGSEGV:
        task.sighand.action[SIGSEGV].handler = SIG_DFL
    force_sig(task, SIGSEGV)


# ---- the parent's side


def do_notify_parent(task: Task, signo: int) -> bool:
    """Tell the parent a child died; True when it does not care and the child is to reap itself."""
    parent = task.tracer or task.real_parent
    task.signal.wait_pidfd.wake_all()
    if signo != SIGCHLD and task.parent_exec_id != parent.self_exec_id:
        signo = SIGCHLD
    status = task.exit_code & 0x7F
    if task.exit_code & 0x80:
        code = 3  # CLD_DUMPED
    elif status:
        code = 2  # CLD_KILLED
    else:
        code = 1  # CLD_EXITED
        status = task.exit_code >> 8
    signal = task.signal
    info = child_info(
        signo,
        code,
        parent.vnr(task.pid),
        task.cred.uid,
        status,
        (task.utime + signal.utime) // _CLOCK_T,
        (task.stime + signal.stime) // _CLOCK_T,
    )
    autoreap = False
    action = parent.sighand.action[SIGCHLD]
    if not task.ptrace and signo == SIGCHLD and (action.handler == SIG_IGN or action.flags & 2):  # SA_NOCLDWAIT
        autoreap = True
        if action.handler == SIG_IGN:
            signo = 0
    elif not task.ptrace and parent.pid_ns is not None and parent.pid_ns.ends_with(parent):
        autoreap = True  # zap_pid_ns_processes() waits for every kind of child
    if 0 < signo <= 64:
        send_signal(info, parent, True, False)
    wake_up_parent(parent)
    return autoreap


def wake_up_parent(parent: Task) -> None:
    """Whoever of the parent's process waits for children looks again."""
    parent.signal.quiet_children = False
    parent.signal.wait_chldexit.wake_all()


def do_notify_parent_cldstop(task: Task, why: int, for_ptracer: bool = False) -> None:
    """Tell the parent, or the tracer, that a child stopped or went on."""
    leader = task if for_ptracer else task.group_leader
    parent = task.tracer if for_ptracer and task.tracer is not None else leader.real_parent
    if why == CLD_CONTINUED:
        status = SIGCONT
    else:
        status = (task.exit_code if why == CLD_TRAPPED else leader.signal.group_exit_code) & 0x7F
    times = leader.utime // _CLOCK_T, leader.stime // _CLOCK_T
    info = child_info(SIGCHLD, why, parent.vnr(leader.pid), leader.cred.uid, status, *times)
    action = parent.sighand.action[SIGCHLD]
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        send_signal(info, parent, True)
    wake_up_parent(parent)


# ---- stopping


def set_jobctl_pending(task: Task, mask: int) -> bool:
    """task_set_jobctl_pending(): False for a dying task."""
    if task.fatal_signal_pending() or task.flags & PF_EXITING:
        return False
    if mask & JOBCTL_STOP_SIGMASK:
        task.jobctl &= ~JOBCTL_STOP_SIGMASK
    task.jobctl |= mask
    return True


def participate_group_stop(task: Task) -> bool:
    """The task stops for its group; True when it is the last one, and the parent is to be told."""
    signal = task.signal
    consume = task.jobctl & JOBCTL_STOP_CONSUME
    _clear_stop_pending(task)
    if consume:
        if signal.group_stop_count:
            signal.group_stop_count -= 1
        if not signal.group_stop_count and not signal.flags & SIGNAL_STOP_STOPPED:
            _set_stop_flags(signal, SIGNAL_STOP_STOPPED)
            return True
    return False


def do_signal_stop(task: Task, signo: int) -> bool:
    """Start or join a group stop. False: it was called off; otherwise Block is raised and the task sleeps in T."""
    signal = task.signal
    if not task.jobctl & JOBCTL_STOP_PENDING:
        gstop = JOBCTL_STOP_PENDING | JOBCTL_STOP_CONSUME
        if not task.jobctl & JOBCTL_STOP_DEQUEUED or signal_group_exit(task):
            return False
        if not signal.flags & SIGNAL_STOP_STOPPED:
            signal.group_exit_code = signo
        signal.group_stop_count = 0
        if set_jobctl_pending(task, signo | gstop):
            signal.group_stop_count += 1
        for thread in signal.threads:
            if thread is not task and thread.state != TASK_STOPPED and set_jobctl_pending(thread, signo | gstop):
                signal.group_stop_count += 1
                if thread.ptrace & PT_SEIZED:
                    ptrace_trap_notify(thread)
                else:
                    signal_wake_up(thread, False)
    if task.ptrace:
        set_jobctl_pending(task, JOBCTL_TRAP_STOP)
        return False
    notify = participate_group_stop(task)
    task.state = TASK_STOPPED
    if notify:
        do_notify_parent_cldstop(task, CLD_STOPPED)
    raise Block


def signal_group_exit(task: Task) -> bool:
    """Whether the whole group is on its way out (or being replaced by an exec)."""
    return bool(task.signal.flags & SIGNAL_GROUP_EXIT) or task.signal.group_exit_task is not None


# ---- masks of calls that wait with another one


def restore_saved_sigmask(task: Task) -> None:
    """Put back the mask a sigsuspend or ppoll replaced, when no handler's frame carries it."""
    if task.saved_sigmask is not None:
        mask, task.saved_sigmask = task.saved_sigmask, None
        set_current_blocked(task, mask)


def set_user_sigmask(task: Task, mask: int | None) -> None:
    """For ppoll, pselect6, epoll_pwait: wait with another mask. Idempotent over re-runs of the handler."""
    if mask is None or task.wait_state.get("sigmask"):
        return
    task.wait_state["sigmask"] = True
    task.saved_sigmask = task.blocked
    set_current_blocked(task, mask)


def restore_saved_sigmask_unless(task: Task, interrupted: bool) -> None:
    """Before such a call returns: the mask goes back at once, unless a signal is about to be handled."""
    if not interrupted:
        restore_saved_sigmask(task)
