"""System calls of signals: actions, masks, waiting, sending, the alternate stack (kernel/signal.c)."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC
from guest.kill import check_kill_permission, group_send_sig_info, kill_pgrp_info
from guest.sched import ERESTARTNOHAND, Block, Restart, WaitQueue, sleep_on
from guest.sigaltstack import on_sig_stack, sas_ss_flags
from guest.siginfo import (
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_KERNEL_ONLY_MASK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    SigInfo,
    kill_info,
    known_siginfo_layout,
    unpack_siginfo,
)
from guest.signal import (
    _handler_ignored,
    dequeue_signal,
    flush_sigqueue_mask,
    recalc_sigpending,
    send_signal,
    set_current_blocked,
)
from guest.sys_mm import s32
from guest.syscalls import FULL, Call
from guest.task import SigAction
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

_MASK = 0xFFFFFFFFFFFFFFFF
_ACTION = Struct("<QQQQ")  # handler, flags, restorer, mask
_STACK = Struct("<QIxxxxQ")
_TIMESPEC = Struct("<qq")


def sys_rt_sigaction(task: Task, sig: int, act: int, oact: int, sigsetsize: int) -> int:
    """rt_sigaction."""
    if sigsetsize != 8:
        raise Errno(errno.EINVAL)
    new = None
    if act:
        handler, flags, restorer, mask = _ACTION.unpack(copy_from_user(task, act, 32))
        new = SigAction(handler, flags, restorer, mask & ~SIG_KERNEL_ONLY_MASK)
    sig = s32(sig)
    if not 1 <= sig <= 64 or (new is not None and SIG_KERNEL_ONLY_MASK >> (sig - 1) & 1):
        raise Errno(errno.EINVAL)
    actions = task.sighand.action
    old = actions[sig]
    if new is not None:
        actions[sig] = new
        if _handler_ignored(new.handler, sig):
            bit = 1 << (sig - 1)
            flush_sigqueue_mask(task.signal.shared_pending, bit)
            for thread in task.signal.threads:
                flush_sigqueue_mask(thread.pending, bit)
    if oact:
        copy_to_user(task, oact, _ACTION.pack(old.handler, old.flags, old.restorer, old.mask))
    return 0


def sys_rt_sigprocmask(task: Task, how: int, nset: int, oset: int, sigsetsize: int) -> int:
    """rt_sigprocmask."""
    if sigsetsize != 8:
        raise Errno(errno.EINVAL)
    old = task.blocked
    if nset:
        new = int.from_bytes(copy_from_user(task, nset, 8), "little") & ~SIG_KERNEL_ONLY_MASK
        how = s32(how)
        if how == SIG_BLOCK:
            new |= old
        elif how == SIG_UNBLOCK:
            new = old & ~new
        elif how != SIG_SETMASK:
            raise Errno(errno.EINVAL)
        set_current_blocked(task, new)
    if oset:
        copy_to_user(task, oset, old.to_bytes(8, "little"))
    return 0


def sys_rt_sigpending(task: Task, uset: int, sigsetsize: int) -> int:
    """rt_sigpending: blocked signals that wait."""
    if sigsetsize > 8:
        raise Errno(errno.EINVAL)
    pending = (task.pending.signal | task.signal.shared_pending.signal) & task.blocked
    copy_to_user(task, uset, pending.to_bytes(8, "little")[:sigsetsize])
    return 0


def sys_rt_sigsuspend(task: Task, unewset: int, sigsetsize: int) -> int:
    """rt_sigsuspend: wait with another mask until a handler ran."""
    if sigsetsize != 8:
        raise Errno(errno.EINVAL)
    if "suspended" not in task.wait_state:
        mask = int.from_bytes(copy_from_user(task, unewset, 8), "little")
        task.wait_state["suspended"] = True
        task.saved_sigmask = task.blocked
        set_current_blocked(task, mask)
    sleep_on(task, WaitQueue("a signal (sigsuspend)"), restart=ERESTARTNOHAND)
    return 0  # never: a sleep without a queue ends by a signal


def sys_pause(task: Task) -> int:
    """pause."""
    sleep_on(task, WaitQueue("a signal (pause)"), restart=ERESTARTNOHAND)
    return 0


def sys_rt_sigtimedwait(task: Task, uthese: int, uinfo: int, uts: int, sigsetsize: int) -> int:
    """rt_sigtimedwait: take a signal of a set instead of handling it."""
    if sigsetsize != 8:
        raise Errno(errno.EINVAL)
    state = task.wait_state
    if "mask" in state:
        timed_out = state["deadline"] is not None and task.kernel.clock.now >= state["deadline"]
        mask = state["mask"]
        task.blocked, task.real_blocked = task.real_blocked, 0
        recalc_sigpending(task)
        info = dequeue_signal(task, mask)
        if info is None:
            raise Errno(errno.EAGAIN if timed_out else errno.EINTR)
        return _give_info(task, info, uinfo)
    these = int.from_bytes(copy_from_user(task, uthese, 8), "little")
    timeout = None
    if uts:
        seconds, nanoseconds = _TIMESPEC.unpack(copy_from_user(task, uts, 16))
        if seconds < 0 or not 0 <= nanoseconds < NSEC_PER_SEC:
            raise Errno(errno.EINVAL)
        timeout = seconds * NSEC_PER_SEC + nanoseconds
    mask = ~(these & ~SIG_KERNEL_ONLY_MASK) & _MASK
    info = dequeue_signal(task, mask)
    if info is not None:
        return _give_info(task, info, uinfo)
    if timeout == 0:
        raise Errno(errno.EAGAIN)
    deadline = None if timeout is None else task.kernel.clock.now + timeout
    task.real_blocked = task.blocked
    task.blocked &= mask
    recalc_sigpending(task)
    if task.sigpending:
        task.blocked, task.real_blocked = task.real_blocked, 0
        recalc_sigpending(task)
        raise Errno(errno.EINTR)
    state["mask"], state["deadline"] = mask, deadline
    try:
        sleep_on(task, WaitQueue("a signal (sigtimedwait)"), deadline=deadline)
    except Restart:
        raise Errno(errno.EINTR) from None
    except Block:
        raise
    return 0


def _give_info(task: Task, info: SigInfo, uinfo: int) -> int:
    if uinfo:
        copy_to_user(task, uinfo, info.pack())
    return info.signo


def sys_rt_sigreturn(task: Task) -> int:
    """rt_sigreturn."""
    return task.kernel.arch.sigreturn(task.kernel, task)


def sys_kill(task: Task, pid: int, sig: int) -> int:
    """kill: a process, a group, or everybody."""
    pid, sig = s32(pid), s32(sig)
    info = kill_info(sig, SI_USER, task.vnr(task.tgid), task.cred.uid)
    if pid > 0:
        target = task.find_task(pid)
        if target is None:
            raise Errno(errno.ESRCH)
        group_send_sig_info(task, sig, info, target)
    elif pid == -(1 << 31):
        raise Errno(errno.ESRCH)
    elif pid != -1:
        kill_pgrp_info(task, sig, info, task.vpid(-pid) if pid else task.signal.pgrp)
    else:
        _kill_all(task, sig, info)
    return 0


def _kill_all(task: Task, sig: int, info: SigInfo) -> None:
    count, number = 0, 0
    for target in list(task.kernel.tasks.values()):
        if target.group_leader is target and task.vnr(target.pid) > 1 and target.tgid != task.tgid:
            count += 1
            try:
                group_send_sig_info(task, sig, info, target)
                number = 0
            except Errno as e:
                if e.number != errno.EPERM:
                    number = e.number
    if not count:
        raise Errno(errno.ESRCH)
    if number:
        raise Errno(number)


def _send_specific(task: Task, tgid: int, pid: int, sig: int, info: SigInfo) -> int:
    """do_send_specific(): one thread."""
    target = task.find_task(pid)
    if target is None or (tgid > 0 and target.tgid != task.vpid(tgid)):
        raise Errno(errno.ESRCH)
    check_kill_permission(task, sig, info, target)
    if sig:
        number = send_signal(info, target, False)
        if number:
            raise Errno(number)
    return 0


def sys_tgkill(task: Task, tgid: int, pid: int, sig: int) -> int:
    """tgkill."""
    tgid, pid, sig = s32(tgid), s32(pid), s32(sig)
    if pid <= 0 or tgid <= 0:
        raise Errno(errno.EINVAL)
    return _send_specific(task, tgid, pid, sig, kill_info(sig, SI_TKILL, task.vnr(task.tgid), task.cred.uid))


def sys_tkill(task: Task, pid: int, sig: int) -> int:
    """tkill."""
    pid, sig = s32(pid), s32(sig)
    if pid <= 0:
        raise Errno(errno.EINVAL)
    return _send_specific(task, 0, pid, sig, kill_info(sig, SI_TKILL, task.vnr(task.tgid), task.cred.uid))


def _siginfo_from_user(task: Task, sig: int, uinfo: int) -> SigInfo:
    """__copy_siginfo_from_user()."""
    info = unpack_siginfo(copy_from_user(task, uinfo, 48))
    info.signo = sig
    if not known_siginfo_layout(sig, info.code) and any(copy_from_user(task, uinfo + 48, 80)):
        raise Errno(errno.E2BIG)
    return info


def sys_rt_sigqueueinfo(task: Task, pid: int, sig: int, uinfo: int) -> int:
    """rt_sigqueueinfo."""
    pid, sig = s32(pid), s32(sig)
    info = _siginfo_from_user(task, sig, uinfo)
    if (info.code >= 0 or info.code == SI_TKILL) and task.vnr(task.pid) != pid:
        raise Errno(errno.EPERM)
    target = task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    group_send_sig_info(task, sig, info, target)
    return 0


def sys_rt_tgsigqueueinfo(task: Task, tgid: int, pid: int, sig: int, uinfo: int) -> int:
    """rt_tgsigqueueinfo."""
    tgid, pid, sig = s32(tgid), s32(pid), s32(sig)
    info = _siginfo_from_user(task, sig, uinfo)
    if pid <= 0 or tgid <= 0:
        raise Errno(errno.EINVAL)
    if (info.code >= 0 or info.code == SI_TKILL) and task.vnr(task.pid) != pid:
        raise Errno(errno.EPERM)
    return _send_specific(task, tgid, pid, sig, info)


def do_sigaltstack(task: Task, ss_sp: int, ss_flags: int, ss_size: int) -> None:
    """Set the alternate stack. Raises Errno(EPERM) on the stack itself, EINVAL, ENOMEM."""
    if on_sig_stack(task, task.kernel.cpu.regs[task.kernel.arch.sp]):
        raise Errno(errno.EPERM)
    mode = ss_flags & ~SS_AUTODISARM
    if mode not in (SS_DISABLE, SS_ONSTACK, 0):
        raise Errno(errno.EINVAL)
    if mode == SS_DISABLE:
        ss_sp = ss_size = 0
    elif ss_size < task.kernel.arch.min_sigstksz:
        raise Errno(errno.ENOMEM)
    task.sas_ss_sp, task.sas_ss_size, task.sas_ss_flags = ss_sp, ss_size, ss_flags


def sys_sigaltstack(task: Task, uss: int, uoss: int) -> int:
    """sigaltstack."""
    new = _STACK.unpack(copy_from_user(task, uss, 24)) if uss else None
    sp = task.kernel.cpu.regs[task.kernel.arch.sp]
    flags = sas_ss_flags(task, sp) | task.sas_ss_flags & SS_AUTODISARM
    old = _STACK.pack(task.sas_ss_sp, flags, task.sas_ss_size)
    if new is not None:
        do_sigaltstack(task, *new)
    if uoss:
        copy_to_user(task, uoss, old)
    return 0


def sys_restart_syscall(task: Task) -> int:
    """restart_syscall: go on with a sleep that a stop interrupted; EINTR when there is none."""
    block = task.restart_block
    if block is None:
        raise Errno(errno.EINTR)
    result: int = block[0](task, *block[1:])
    return result


CALLS = (
    Call("rt_sigaction", sys_rt_sigaction, FULL),
    Call("rt_sigprocmask", sys_rt_sigprocmask, FULL),
    Call("rt_sigpending", sys_rt_sigpending, FULL),
    Call("rt_sigsuspend", sys_rt_sigsuspend, FULL),
    Call("pause", sys_pause, FULL),
    Call("rt_sigtimedwait", sys_rt_sigtimedwait, FULL),
    Call("rt_sigreturn", sys_rt_sigreturn, FULL),
    Call("kill", sys_kill, FULL),
    Call("tgkill", sys_tgkill, FULL),
    Call("tkill", sys_tkill, FULL),
    Call("rt_sigqueueinfo", sys_rt_sigqueueinfo, FULL),
    Call("rt_tgsigqueueinfo", sys_rt_tgsigqueueinfo, FULL),
    Call("sigaltstack", sys_sigaltstack, FULL),
    Call("restart_syscall", sys_restart_syscall, FULL),
)
