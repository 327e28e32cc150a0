"""Signals on the way back to user code (kernel/signal.c: get_signal(); the architecture's do_signal()).

do_signal -> get_signal -> a handler's frame (guest/arch_*.py), a stop (guest/signal.py), or the end
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.sched import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTSYS,
)
from guest.siginfo import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIG_KERNEL_COREDUMP_MASK,
    SIG_KERNEL_IGNORE_MASK,
    SIG_KERNEL_ONLY_MASK,
    SIG_KERNEL_STOP_MASK,
    SIGKILL,
    SIGSTOP,
    SIGTRAP,
    SigInfo,
    kill_info,
)
from guest.signal import (
    dequeue_signal,
    dequeue_synchronous_signal,
    do_notify_parent_cldstop,
    do_signal_stop,
    force_sigsegv,
    recalc_sigpending,
    restore_saved_sigmask,
    set_current_blocked,
    signal_group_exit,
    signal_wake_up,
)
from guest.signal_report import report, take_fatal
from guest.task import (
    JOBCTL_STOP_PENDING,
    PF_SIGNALED,
    SIGNAL_CLD_CONTINUED,
    SIGNAL_CLD_MASK,
    SIGNAL_GROUP_EXIT,
    SIGNAL_UNKILLABLE,
    SigAction,
    Task,
)
from mm.errors import Errno
from mm.flags import RLIMIT_CORE

if TYPE_CHECKING:
    from guest.kernel import Kernel


class KSignal:
    """A signal about to run its handler (struct ksignal)."""

    __slots__ = ("action", "info", "sig")

    def __init__(self, sig: int, info: SigInfo, action: SigAction) -> None:
        self.sig = sig
        self.info = info
        self.action = action


def get_signal(task: Task) -> KSignal | None:
    """The next signal that has a handler; defaults are acted on here.

    Raises:
        Block: the task stopped.
        TaskExit: it died.
    """
    signal = task.signal
    if signal.flags & SIGNAL_CLD_MASK:
        why = CLD_CONTINUED if signal.flags & SIGNAL_CLD_CONTINUED else CLD_STOPPED
        signal.flags &= ~SIGNAL_CLD_MASK
        do_notify_parent_cldstop(task, why)
        leader = task.group_leader
        if leader.tracer is not None and leader.tracer.tgid != leader.real_parent.tgid:
            do_notify_parent_cldstop(leader, why, True)
    if signal_group_exit(task):
        task.pending.signal &= ~(1 << (SIGKILL - 1))
        recalc_sigpending(task)
        _die(task, take_fatal(task) or kill_info(SIGKILL, SI_USER, 0, 0))
    while True:
        if task.jobctl & JOBCTL_STOP_PENDING:
            do_signal_stop(task, 0)
        debugger = task.kernel.debugger
        if debugger is not None:
            info = debugger.take_signal(task)
        else:
            info = _traced_signal(task) if task.ptrace or task.trace_signal is not None else take_signal(task)
        if info is None:
            return None
        signo = info.signo
        action = task.sighand.action[signo]
        if action.handler == SIG_IGN:
            report(task, info, "ignore", 0)
            continue
        if action.handler != SIG_DFL:
            taken = action.copy()
            if action.flags & SA_RESETHAND:
                action.handler = SIG_DFL
            return KSignal(signo, info, taken)
        bit = 1 << (signo - 1)
        if SIG_KERNEL_IGNORE_MASK & bit:
            report(task, info, "ignore", 0)
            continue
        if signal.flags & SIGNAL_UNKILLABLE and not SIG_KERNEL_ONLY_MASK & bit:
            continue
        if SIG_KERNEL_STOP_MASK & bit:
            if signo != SIGSTOP and task.kernel.is_orphaned_pgrp(task.signal.pgrp):
                continue
            report(task, info, "stop", 0)
            do_signal_stop(task, signo)
            continue
        _die(task, info)


def take_signal(task: Task) -> SigInfo | None:
    """The next signal off the queues, one an instruction caused first."""
    return dequeue_synchronous_signal(task) or dequeue_signal(task, task.blocked)


def _traced_signal(task: Task) -> SigInfo | None:
    from guest.ptrace import next_to_act_on

    return next_to_act_on(task)


def _die(task: Task, info: SigInfo) -> None:
    """A fatal signal; some leave a core file where RLIMIT_CORE, 0 unless the guest raises it, allows one."""
    from guest.exit import do_group_exit

    task.flags |= PF_SIGNALED
    core = SIG_KERNEL_COREDUMP_MASK >> (info.signo - 1) & 1
    report(task, info, "core" if core else "terminate", 0)
    task.kernel.last_fatal = (task.pid, info)
    if core and not signal_group_exit(task):
        # do_coredump() marks the group before it finds that the limit forbids the file.
        task.signal.group_exit_code = info.signo
        task.signal.flags = SIGNAL_GROUP_EXIT
        for thread in task.signal.threads:
            if thread is not task:
                thread.pending.signal |= 1 << (SIGKILL - 1)
                signal_wake_up(thread, True)
        if task.signal.rlim[RLIMIT_CORE][0]:
            from guest.coredump import do_coredump

            if do_coredump(task, info):
                task.signal.group_exit_code |= 0x80
    do_group_exit(task, info.signo)


def do_signal(kernel: Kernel, task: Task, code: int) -> None:
    """Everything between the end of a trap and user code: restart rules, handlers, stops, death.

    Args:
        code: the ERESTART code the system call ended with, 0 for none.

    Raises:
        Block, TaskExit: the task leaves the CPU.
    """
    arch = kernel.arch
    while True:
        task.restart_code = code
        ksig = get_signal(task) if task.sigpending else None
        task.restart_code = 0
        if ksig is None:
            if code == ERESTART_RESTARTBLOCK:
                arch.restart_by_block(kernel.cpu)
            elif code:
                arch.restart_syscall(kernel.cpu)
            restore_saved_sigmask(task)
            return
        if code:
            interrupted = code in (ERESTARTNOHAND, ERESTART_RESTARTBLOCK) or (
                code == ERESTARTSYS and not ksig.action.flags & SA_RESTART
            )
            if interrupted:
                kernel.cpu.regs[arch.result] = -errno.EINTR & 0xFFFFFFFFFFFFFFFF
            else:
                arch.restart_syscall(kernel.cpu)
            code = 0
        _handle_signal(kernel, task, ksig)
        if task.trace_step:
            from guest.ptrace import TRAP, ptrace_notify

            ptrace_notify(task, TRAP, SIGTRAP)
        if not task.sigpending:
            return


def _handle_signal(kernel: Kernel, task: Task, ksig: KSignal) -> None:
    """Build the handler's frame and block what its action says."""
    old = task.blocked if task.saved_sigmask is None else task.saved_sigmask
    report(task, ksig.info, "handler", ksig.action.handler)
    try:
        kernel.arch.setup_rt_frame(kernel, task, ksig, old)
    except Errno:
        force_sigsegv(task, ksig.sig)
        return
    task.saved_sigmask = None
    blocked = task.blocked | ksig.action.mask
    if not ksig.action.flags & SA_NODEFER:
        blocked |= 1 << (ksig.sig - 1)
    set_current_blocked(task, blocked)
