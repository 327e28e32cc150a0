"""Tracing: who traces whom, and the stops of a traced task (kernel/ptrace.c; the ptrace half of kernel/signal.c).

A task has no kernel stack here, so a stop in the middle of something leaves by `Block` and notes in `task.trace_stop`
what to go on with; `guest/ptrace_call.py` goes on when the tracer lets it.

    ENTRY    before a system call               SIGNAL   a signal was taken off its queue, not yet acted on
    EVENT    inside fork, clone or vfork        TRAP     a group stop, PTRACE_INTERRUPT, a handler under single step
    EXEC     at the end of execve               EXITING  before do_exit(), with its code in `trace_exit_code`
    LEAVE    after a system call

While it is stopped, `exit_code` holds what the tracer's wait shows, and afterwards the signal the tracer injects.
"""

from __future__ import annotations

import errno

from guest.ptrace_access import PTRACE_MODE_ATTACH_REALCREDS, ptrace_may_access
from guest.sched import TASK_INTERRUPTIBLE, TASK_STOPPED, TASK_TRACED, TASK_ZOMBIE, Block
from guest.siginfo import (
    CLD_STOPPED,
    CLD_TRAPPED,
    SA_NOCLDWAIT,
    SI_KERNEL,
    SI_USER,
    SIG_IGN,
    SIGCHLD,
    SIGKILL,
    SIGSTOP,
    SIGTRAP,
    SigInfo,
    kill_info,
)
from guest.signal import (
    do_notify_parent,
    do_notify_parent_cldstop,
    participate_group_stop,
    ptrace_signal_wake_up,
    recalc_sigpending,
    send_signal,
    set_jobctl_pending,
    wake_up_parent,
)
from guest.signal_deliver import take_signal
from guest.task import (
    JOBCTL_LISTENING,
    JOBCTL_STOP_DEQUEUED,
    JOBCTL_STOP_PENDING,
    JOBCTL_STOP_SIGMASK,
    JOBCTL_TRAP_MASK,
    JOBCTL_TRAP_NOTIFY,
    JOBCTL_TRAP_STOP,
    PF_EXITING,
    PT_EXITKILL,
    PT_OPT_FLAG_SHIFT,
    PT_PTRACED,
    PT_SEIZED,
    PT_TRACESYSGOOD,
    SIGNAL_STOP_STOPPED,
    Task,
)
from mm.errors import Errno

PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC = 1, 2, 3, 4
PTRACE_EVENT_VFORK_DONE, PTRACE_EVENT_EXIT, PTRACE_EVENT_STOP = 5, 6, 128
PTRACE_EVENTMSG_SYSCALL_ENTRY, PTRACE_EVENTMSG_SYSCALL_EXIT = 1, 2

ENTRY, EVENT, EXEC, LEAVE, SIGNAL, TRAP, EXITING = "entry", "event", "exec", "leave", "signal", "trap", "exiting"


# ---- who traces whom


def ptrace_link(child: Task, tracer: Task) -> None:
    """The tracer hears of the child's stops from now on."""
    child.tracer = tracer
    tracer.ptraced = (*tracer.ptraced, child)


def ptrace_unlink(child: Task) -> None:
    """Undo ptrace_link(); the child goes on, or joins the group stop that is in effect (__ptrace_unlink())."""
    tracer = child.tracer
    if tracer is not None:
        tracer.ptraced = tuple(task for task in tracer.ptraced if task is not child)
    child.tracer = None
    child.ptrace = 0
    child.trace_syscalls = child.trace_emu = child.trace_step = False
    child.jobctl &= ~(JOBCTL_TRAP_STOP | JOBCTL_TRAP_NOTIFY)
    signal = child.signal
    if not child.flags & PF_EXITING and (signal.flags & SIGNAL_STOP_STOPPED or signal.group_stop_count):
        child.jobctl |= JOBCTL_STOP_PENDING
        if not child.jobctl & JOBCTL_STOP_SIGMASK:
            child.jobctl |= SIGSTOP
    if child.jobctl & JOBCTL_STOP_PENDING or child.state == TASK_TRACED:
        ptrace_signal_wake_up(child, True)


def ptrace_traceme(task: Task) -> None:
    """The parent becomes the tracer. Raises Errno EPERM when there is one."""
    parent = task.real_parent
    if task.ptrace:
        raise Errno(errno.EPERM)
    if not parent.flags & PF_EXITING:
        task.ptrace = PT_PTRACED
        ptrace_link(task, parent)
        task.kernel.set_current(task)  # its calls are served as a traced task's from the next one on


def ptrace_attach(task: Task, target: Task, seize: bool, options: int) -> None:
    """Become the tracer of `target`, which stops (not when seized). Raises Errno EPERM."""
    if target.tgid == task.tgid:
        raise Errno(errno.EPERM)
    if not ptrace_may_access(task, target, PTRACE_MODE_ATTACH_REALCREDS) or target.exit_state or target.ptrace:
        raise Errno(errno.EPERM)
    target.ptrace = PT_PTRACED | (PT_SEIZED | options << PT_OPT_FLAG_SHIFT if seize else 0)
    ptrace_link(target, task)
    if not seize:
        send_signal(kill_info(SIGSTOP, SI_KERNEL, 0, 0), target, False, True)
    if target.state == TASK_STOPPED and set_jobctl_pending(target, JOBCTL_TRAP_STOP):
        # From stopped to traced at once: the tracer must not see it run in between.
        jobctl_trap(target)


def ptrace_detach(task: Task, child: Task, signo: int) -> None:
    """PTRACE_DETACH: let go of a child that is stopped."""
    child.exit_code = signo
    untrace(task, child)


def untrace(tracer: Task, child: Task) -> bool:
    """Unlink; a zombie the real parent has not been told of is reported now. True: it is to be released."""
    ptrace_unlink(child)
    if child.exit_state != TASK_ZOMBIE:
        return False
    dead = child.group_leader is not child
    if not dead and len(child.signal.threads) == 1:
        if child.real_parent.tgid != tracer.tgid:
            dead = do_notify_parent(child, child.exit_signal) or child.real_parent is child.kernel.init
        else:
            action = tracer.sighand.action[SIGCHLD]
            if action.handler == SIG_IGN or action.flags & SA_NOCLDWAIT:
                wake_up_parent(tracer)
                dead = True
    return dead


def exit_ptrace(tracer: Task) -> None:
    """A tracer ends: everything it traced goes free, or dies where PTRACE_O_EXITKILL says so."""
    from guest.exit import release_task

    for child in tracer.ptraced:
        if child.ptrace & PT_EXITKILL:
            send_signal(kill_info(SIGKILL, SI_KERNEL, 0, 0), child, False, True)
        if untrace(tracer, child):
            release_task(child)
    tracer.ptraced = ()


def ptrace_init_task(child: Task, task: Task) -> None:
    """A child that is traced from its birth, as its parent is (before it runs)."""
    if task.tracer is None:
        return
    child.ptrace = task.ptrace
    ptrace_link(child, task.tracer)
    if child.ptrace & PT_SEIZED:
        set_jobctl_pending(child, JOBCTL_TRAP_STOP)
    else:
        child.pending.signal |= 1 << (SIGSTOP - 1)
    recalc_sigpending(child)


def ptrace_reparented(task: Task) -> bool:
    """Whether the tracer is another process than the parent."""
    return task.tracer is not None and task.tracer.tgid != task.real_parent.tgid


# ---- stopping


def enter_stop(task: Task, code: int, why: int, info: SigInfo | None) -> bool:
    """The state of a stopped task, and the news to its tracer (ptrace_stop()). False: it is being killed."""
    if task.fatal_signal_pending():
        return False
    task.state = TASK_TRACED
    task.last_siginfo = info
    task.exit_code = code
    group_stop_done = bool(why == CLD_STOPPED and task.jobctl & JOBCTL_STOP_PENDING and participate_group_stop(task))
    task.jobctl &= ~JOBCTL_TRAP_STOP
    if info is not None and info.code >> 8 == PTRACE_EVENT_STOP:
        task.jobctl &= ~JOBCTL_TRAP_NOTIFY
    do_notify_parent_cldstop(task, why, True)
    if group_stop_done and ptrace_reparented(task):
        do_notify_parent_cldstop(task, why)
    task.kernel.need_resched = True
    return True


def stop_info(task: Task, signo: int, code: int) -> SigInfo:
    """The siginfo of a stop that is no signal's."""
    return kill_info(signo, code, task.vnr(task.pid), task.cred.uid)


def ptrace_stop(task: Task, where: str, code: int, why: int, info: SigInfo | None) -> None:
    """Stop and leave by Block; return when a SIGKILL is pending."""
    if enter_stop(task, code, why, info):
        task.trace_stop = where
        raise Block


def ptrace_notify(task: Task, where: str, code: int) -> None:
    """A stop of the kernel's own, reported as SIGTRAP with `code` as its si_code."""
    ptrace_stop(task, where, code, CLD_TRAPPED, stop_info(task, SIGTRAP, code))


def syscall_stop(task: Task, where: str) -> None:
    """Before or after a system call (ptrace_report_syscall())."""
    task.ptrace_message = PTRACE_EVENTMSG_SYSCALL_ENTRY if where == ENTRY else PTRACE_EVENTMSG_SYSCALL_EXIT
    ptrace_notify(task, where, SIGTRAP | (0x80 if task.ptrace & PT_TRACESYSGOOD else 0))


def event_enabled(task: Task, event: int) -> bool:
    """Whether the tracer asked for these stops."""
    return bool(task.ptrace >> (PT_OPT_FLAG_SHIFT + event) & 1)


def ptrace_event(task: Task, where: str, event: int, message: int) -> None:
    """Stop for an event, when the tracer asked for it."""
    if event_enabled(task, event):
        task.ptrace_message = message
        ptrace_notify(task, where, event << 8 | SIGTRAP)


def exec_event(task: Task, old_pid: int) -> None:
    """After an exec: an event at the end of the call, or the SIGTRAP of old."""
    if event_enabled(task, PTRACE_EVENT_EXEC):
        task.ptrace_message = old_pid
        task.trace_exec = True
    elif not task.ptrace & PT_SEIZED:
        send_signal(kill_info(SIGTRAP, SI_USER, task.vnr(task.tgid), task.cred.uid), task, False)


def exit_event(task: Task, code: int) -> None:
    """Before a task ends; afterwards it does end, with this code."""
    if event_enabled(task, PTRACE_EVENT_EXIT) and not task.flags & PF_EXITING and task.trace_exit_code is None:
        task.trace_exit_code = code
        ptrace_event(task, EXITING, PTRACE_EVENT_EXIT, code)


def jobctl_trap(task: Task) -> bool:
    """do_jobctl_trap(): stop for a group stop or a PTRACE_INTERRUPT. False: it is being killed."""
    signal = task.signal
    signo = task.jobctl & JOBCTL_STOP_SIGMASK
    task.trace_stop = TRAP
    if task.ptrace & PT_SEIZED:
        if not signal.group_stop_count and not signal.flags & SIGNAL_STOP_STOPPED:
            signo = SIGTRAP
        code = signo | PTRACE_EVENT_STOP << 8
        stopped = enter_stop(task, code, CLD_STOPPED, stop_info(task, signo, code))
    else:
        stopped = enter_stop(task, signo, CLD_STOPPED, None)
    if not stopped:
        task.trace_stop = ""
        task.jobctl &= ~(JOBCTL_TRAP_STOP | JOBCTL_TRAP_NOTIFY)
    return stopped


def signal_stop(task: Task, info: SigInfo) -> None:
    """Show the tracer a signal before it is acted on (ptrace_signal(), first half)."""
    task.jobctl |= JOBCTL_STOP_DEQUEUED
    task.trace_signal = info
    ptrace_stop(task, SIGNAL, info.signo, CLD_TRAPPED, info)
    task.exit_code = 0  # it is being killed: the signal at hand does not matter any more
    task.trace_signal = None


def signal_after_stop(task: Task) -> SigInfo | None:
    """What the tracer made of the signal: another one, or none (ptrace_signal(), second half)."""
    info, task.trace_signal = task.trace_signal, None
    signo, task.exit_code = task.exit_code, 0
    if info is None or not signo:
        return None
    if signo != info.signo:
        sender = task.tracer or task.real_parent
        info = kill_info(signo, SI_USER, task.vnr(sender.pid), sender.cred.uid)
    if task.blocked >> (signo - 1) & 1:
        send_signal(info, task, False)
        return None
    return info


def next_to_act_on(task: Task) -> SigInfo | None:
    """The next signal of a traced task that its tracer lets pass. Raises Block where it stops to be looked at."""
    while True:
        if task.trace_signal is not None:
            info = signal_after_stop(task)
            if info is not None:
                return info
        if task.jobctl & JOBCTL_TRAP_MASK:
            if jobctl_trap(task):
                raise Block
            continue
        info = take_signal(task)
        if info is None or info.signo == SIGKILL or not task.ptrace:
            return info
        signal_stop(task, info)


def run_init(init: Task) -> None:
    """The stand-in for pid 1 does not run; what a tracer sees of it happens here, when it is woken.

    It shows its signals, which do nothing to it, and sleeps again.
    """
    if init.state == TASK_TRACED:
        init.trace_stop = ""
        goes_on(init)
    init.state = TASK_INTERRUPTIBLE
    try:
        while next_to_act_on(init) is not None:
            pass
    except Block:
        return
    init.sigpending = False


def goes_on(task: Task) -> None:
    """A stopped task runs again: what it showed is over."""
    task.last_siginfo = None
    task.jobctl &= ~JOBCTL_LISTENING
    recalc_sigpending(task)
