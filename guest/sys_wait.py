"""wait4 and waitid: what became of the children (the second half of kernel/exit.c); getrusage and times."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.exit import release_task
from guest.pidfd import pidfd_pid
from guest.sched import TASK_TRACED, TASK_ZOMBIE, sleep_on
from guest.siginfo import CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_TRAPPED, SIGCHLD, SIGCONT
from guest.sys_mm import s32
from guest.syscalls import FULL, Call
from guest.task import JOBCTL_LISTENING, SIGNAL_GROUP_EXIT, SIGNAL_STOP_CONTINUED, SIGNAL_STOP_STOPPED
from mm.errors import Errno
from mm.memory_rss import get_mm_rss
from mm.uaccess import access_ok, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 4, 8, 0x01000000
WNOTHREAD, WALL, WCLONE = 0x20000000, 0x40000000, 0x80000000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)
PIDTYPE_MAX, PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID = "max", "pid", "tgid", "pgid"
RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD, RUSAGE_BOTH = 0, -1, 1, -2
_CLOCK_T = 10_000_000
_RUSAGE = Struct("<18q")


class WaitOpts:
    """struct wait_opts, and what was found."""

    __slots__ = ("cause", "flags", "notask_error", "pid", "rusage", "stat", "status", "type", "uid", "want_rusage")

    def __init__(self, kind: str, pid: int, flags: int, want_rusage: bool) -> None:
        self.type = kind
        self.pid = pid
        self.flags = flags
        self.want_rusage = want_rusage
        self.rusage = b""
        self.stat = 0  # wait4's status
        self.cause = self.status = self.uid = 0  # waitid's siginfo
        self.notask_error = errno.ECHILD


def _eligible(wo: WaitOpts, ptrace: bool, child: Task) -> bool:
    if wo.type == PIDTYPE_PGID and child.signal.pgrp != wo.pid:
        return False
    if wo.type in (PIDTYPE_PID, PIDTYPE_TGID) and child.pid != wo.pid:
        return False
    if ptrace or wo.flags & WALL:
        return True
    return (child.exit_signal != SIGCHLD) == bool(wo.flags & WCLONE)


def _wait_task_zombie(wo: WaitOpts, task: Task, child: Task) -> bool:
    if not wo.flags & WEXITED:
        return False
    signal = child.signal
    status = child.exit_code
    if not wo.flags & WNOWAIT and child.tracer is not None and _reaped_by_tracer(child):
        return _wait_traced_zombie(wo, child)
    if not wo.flags & WNOWAIT:
        psig = task.signal
        utime, stime = _cputime(child)
        psig.cutime += utime + signal.cutime
        psig.cstime += stime + signal.cstime
        psig.cmin_flt += child.min_flt + signal.min_flt + signal.cmin_flt
        psig.cmaj_flt += child.maj_flt + signal.maj_flt + signal.cmaj_flt
        psig.cnvcsw += child.nvcsw + signal.nvcsw + signal.cnvcsw
        psig.cnivcsw += child.nivcsw + signal.nivcsw + signal.cnivcsw
        psig.cmaxrss = max(psig.cmaxrss, signal.maxrss, signal.cmaxrss)
        status = signal.group_exit_code if signal.flags & SIGNAL_GROUP_EXIT else child.exit_code
        wo.stat = status
    if wo.want_rusage:
        wo.rusage = rusage(child, RUSAGE_BOTH)
    if not wo.flags & WNOWAIT:
        release_task(child)
    _describe_end(wo, child, status)
    return True


def _describe_end(wo: WaitOpts, child: Task, status: int) -> None:
    if status & 0x7F:
        wo.cause = CLD_DUMPED if status & 0x80 else CLD_KILLED
        wo.status = status & 0x7F
    else:
        wo.cause = CLD_EXITED
        wo.status = status >> 8
    wo.uid = child.cred.uid


def _wait_task_stopped(wo: WaitOpts, ptrace: bool, child: Task) -> bool:
    if ptrace:
        return _wait_traced(wo, child)
    signal = child.signal
    if not wo.flags & WUNTRACED or not signal.flags & SIGNAL_STOP_STOPPED or not signal.group_exit_code:
        return False
    code = signal.group_exit_code
    if not wo.flags & WNOWAIT:
        signal.group_exit_code = 0
        wo.stat = code << 8 | 0x7F
    if wo.want_rusage:
        wo.rusage = rusage(child, RUSAGE_BOTH)
    wo.cause, wo.status, wo.uid = CLD_STOPPED, code, child.cred.uid
    return True


def _wait_traced(wo: WaitOpts, child: Task) -> bool:
    """A task in a trace stop that was not reported yet; one that listens does not count."""
    code = child.exit_code
    if child.state != TASK_TRACED or child.jobctl & JOBCTL_LISTENING or not code:
        return False
    if not wo.flags & WNOWAIT:
        child.exit_code = 0
        wo.stat = code << 8 | 0x7F
    if wo.want_rusage:
        wo.rusage = rusage(child, RUSAGE_BOTH)
    wo.cause, wo.status, wo.uid = CLD_TRAPPED, code, child.cred.uid
    return True


def _reaped_by_tracer(child: Task) -> bool:
    """Whether its wait is not the one the parent accounts for: of another process, or for a thread."""
    from guest.ptrace import ptrace_reparented

    return ptrace_reparented(child) or child.group_leader is not child


def _wait_traced_zombie(wo: WaitOpts, child: Task) -> bool:
    """The tracer reaps: the real parent, where it is another process, is told only now."""
    signal = child.signal
    wo.stat = status = signal.group_exit_code if signal.flags & SIGNAL_GROUP_EXIT else child.exit_code
    if wo.want_rusage:
        wo.rusage = rusage(child, RUSAGE_BOTH)
    _describe_end(wo, child, status)
    from guest.ptrace import ptrace_reparented, ptrace_unlink
    from guest.signal import do_notify_parent

    reparented = ptrace_reparented(child) and child.group_leader is child
    ptrace_unlink(child)
    if not reparented or do_notify_parent(child, child.exit_signal) or child.real_parent is child.kernel.init:
        release_task(child)
    return True


def _wait_task_continued(wo: WaitOpts, child: Task) -> bool:
    signal = child.signal
    if not wo.flags & WCONTINUED or not signal.flags & SIGNAL_STOP_CONTINUED:
        return False
    if not wo.flags & WNOWAIT:
        signal.flags &= ~SIGNAL_STOP_CONTINUED
    if wo.want_rusage:
        wo.rusage = rusage(child, RUSAGE_BOTH)
    wo.stat = 0xFFFF
    wo.cause, wo.status, wo.uid = CLD_CONTINUED, SIGCONT, child.cred.uid
    return True


def _consider(wo: WaitOpts, task: Task, child: Task, ptrace: bool) -> bool:
    """wait_consider_task(): whether this child, or this task that we trace (`ptrace`), ends the wait."""
    if not _eligible(wo, ptrace, child):
        return False
    tracer = child.tracer
    if tracer is not None and tracer.tgid == child.real_parent.tgid:
        ptrace = True
    if child.exit_state == TASK_ZOMBIE:
        delayed = child.group_leader is child and len(child.signal.threads) > 1
        if not delayed and (ptrace or tracer is None) and _wait_task_zombie(wo, task, child):
            return True
        if not ptrace or wo.flags & (WCONTINUED | WEXITED):
            wo.notask_error = 0
    else:
        wo.notask_error = 0
    return _wait_task_stopped(wo, ptrace, child) or _wait_task_continued(wo, child)


def _do_wait(task: Task, wo: WaitOpts) -> int:
    """do_wait(): the child's pid, 0 for none with WNOHANG. Raises Errno(ECHILD), Block, Restart."""
    if wo.type == PIDTYPE_MAX and task.signal.quiet_children and not wo.flags & (WNOTHREAD | WCLONE):
        wo.notask_error = 0
        found = 0
    else:
        found = _look_at_children(task, wo)
    if found:
        return found
    if wo.notask_error:
        raise Errno(wo.notask_error)
    if not wo.flags & WNOHANG:
        sleep_on(task, task.signal.wait_chldexit)
    return 0


def _look_at_children(task: Task, wo: WaitOpts) -> int:
    """The first child, or task that is traced, that ends the wait; 0: none does, and `wo.notask_error` says why.

    A process with thousands of children that polls for them must not look at each every time: when all of them were
    just alive, that is remembered until wake_up_parent() tells of a change (`quiet_children`).
    """
    threads = [task] if wo.flags & WNOTHREAD else task.signal.threads
    plain = wo.type != PIDTYPE_PGID and not wo.flags & WCLONE
    alive, others = 0, 0
    for thread in threads:
        for child in thread.children:
            if wo.pid and wo.type != PIDTYPE_PGID and child.pid != wo.pid:
                others += 1
                continue
            if plain and not child.exit_state and child.tracer is None and not child.signal.flags:
                if child.exit_signal == SIGCHLD:  # the usual child, alive: nothing to look at more closely
                    alive += 1
                    continue
            others += 1
            pid = task.vnr(child.pid)  # of one that may be gone afterwards
            if _consider(wo, task, child, False):
                return pid
        for child in thread.ptraced:
            others += 1
            pid = task.vnr(child.pid)
            if _consider(wo, task, child, True):
                return pid
    if alive:
        wo.notask_error = 0
        task.signal.quiet_children = not others and not wo.flags & WNOTHREAD
    return 0


def sys_wait4(task: Task, upid: int, stat_addr: int, options: int, ru: int) -> int:
    """wait4."""
    upid, options = s32(upid), options & 0xFFFFFFFF
    if options & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL):
        raise Errno(errno.EINVAL)
    if upid == -(1 << 31):
        raise Errno(errno.ESRCH)
    if upid == -1:
        kind, pid = PIDTYPE_MAX, 0
    elif upid < 0:
        kind, pid = PIDTYPE_PGID, task.vpid(-upid)
    elif upid == 0:
        kind, pid = PIDTYPE_PGID, task.signal.pgrp
    else:
        kind, pid = PIDTYPE_PID, task.vpid(upid)
    wo = WaitOpts(kind, pid, options | WEXITED, bool(ru))
    found = _do_wait(task, wo)
    if found:
        if stat_addr:
            put_user(task, stat_addr, wo.stat, 4)
        if ru:
            copy_to_user(task, ru, wo.rusage)
    return found


def _kernel_waitid(task: Task, which: int, upid: int, options: int, want_rusage: bool) -> tuple[int, WaitOpts]:
    """kernel_waitid(): the child, 0 for none, and what there is to say of it. Raises Errno, Block, Restart."""
    if options & ~(WNOHANG | WNOWAIT | WEXITED | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL):
        raise Errno(errno.EINVAL)
    if not options & (WEXITED | WUNTRACED | WCONTINUED):
        raise Errno(errno.EINVAL)
    nonblocking = False
    if which == P_ALL:
        kind, pid = PIDTYPE_MAX, 0
    elif which == P_PID:
        if upid <= 0:
            raise Errno(errno.EINVAL)
        kind, pid = PIDTYPE_PID, task.vpid(upid)
    elif which == P_PGID:
        if upid < 0:
            raise Errno(errno.EINVAL)
        kind, pid = PIDTYPE_PGID, task.vpid(upid) if upid else task.signal.pgrp
    elif which == P_PIDFD:
        if upid < 0:
            raise Errno(errno.EINVAL)
        kind = PIDTYPE_TGID
        pid, nonblocking = pidfd_pid(task, upid)
    else:
        raise Errno(errno.EINVAL)
    wo = WaitOpts(kind, pid, options | WNOHANG if nonblocking else options, want_rusage)
    found = _do_wait(task, wo)
    if nonblocking and not found and not options & WNOHANG:
        raise Errno(errno.EAGAIN)
    return found, wo


def sys_waitid(task: Task, which: int, upid: int, infop: int, options: int, ru: int) -> int:
    """waitid. A siginfo is written whatever comes of it, of zeroes where there is nothing to say."""
    found, wo, error = 0, None, None
    try:
        found, wo = _kernel_waitid(task, s32(which), s32(upid), options & 0xFFFFFFFF, bool(ru))
    except Errno as e:
        error = e
    if found and wo is not None and ru:
        copy_to_user(task, ru, wo.rusage)
    if infop:
        if not access_ok(task, infop, 128):
            raise Errno(errno.EFAULT)
        cause, uid, status = (wo.cause, wo.uid, wo.status) if wo is not None else (0, 0, 0)
        copy_to_user(task, infop, Struct("<iii").pack(SIGCHLD if found else 0, 0, cause))
        copy_to_user(task, infop + 16, Struct("<iIi").pack(found, uid, status))
    if error is not None:
        raise error
    return 0


# ---- resource usage


def _cputime(task: Task) -> tuple[int, int]:
    """thread_group_cputime(): user and system time of a process, ns."""
    signal = task.signal
    utime, stime = signal.utime, signal.stime
    for thread in signal.threads:
        utime += thread.utime
        stime += thread.stime
    return utime, stime


def rusage(task: Task, who: int) -> bytes:
    """struct rusage (getrusage())."""
    signal = task.signal
    utime = stime = minflt = majflt = nvcsw = nivcsw = maxrss = 0
    if who in (RUSAGE_CHILDREN, RUSAGE_BOTH):
        utime, stime = signal.cutime, signal.cstime
        minflt, majflt, nvcsw, nivcsw = signal.cmin_flt, signal.cmaj_flt, signal.cnvcsw, signal.cnivcsw
        maxrss = signal.cmaxrss
    if who in (RUSAGE_SELF, RUSAGE_BOTH, RUSAGE_THREAD):
        threads = [task] if who == RUSAGE_THREAD else signal.threads
        if who != RUSAGE_THREAD:
            utime += signal.utime
            stime += signal.stime
            minflt += signal.min_flt
            majflt += signal.maj_flt
            nvcsw += signal.nvcsw
            nivcsw += signal.nivcsw
        for thread in threads:
            utime += thread.utime
            stime += thread.stime
            minflt += thread.min_flt
            majflt += thread.maj_flt
            nvcsw += thread.nvcsw
            nivcsw += thread.nivcsw
        maxrss = max(maxrss, signal.maxrss)
        if task.mm is not None:
            maxrss = max(maxrss, task.mm.hiwater_rss, get_mm_rss(task.mm))
    kilobytes = maxrss << (task.system.arch.page_shift - 10)
    times = (
        utime // 1_000_000_000,
        utime % 1_000_000_000 // 1000,
        stime // 1_000_000_000,
        stime % 1_000_000_000 // 1000,
    )
    return _RUSAGE.pack(*times, kilobytes, 0, 0, 0, minflt, majflt, 0, 0, 0, 0, 0, 0, nvcsw, nivcsw)


def sys_getrusage(task: Task, who: int, ru: int) -> int:
    """getrusage."""
    who = s32(who)
    if who not in (RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD):
        raise Errno(errno.EINVAL)
    task.kernel.clock_was_read(task)
    copy_to_user(task, ru, rusage(task, who))
    return 0


def sys_times(task: Task, tbuf: int) -> int:
    """times: clock ticks of 10 ms."""
    task.kernel.clock_was_read(task)
    if tbuf:
        signal = task.signal
        utime, stime = _cputime(task)
        values = (utime, stime, signal.cutime, signal.cstime)
        copy_to_user(task, tbuf, Struct("<4q").pack(*(value // _CLOCK_T for value in values)))
    return task.kernel.jiffies64() * 100 // task.kernel.hz


CALLS = (
    Call("wait4", sys_wait4, FULL),
    Call("waitid", sys_waitid, FULL),
    Call("getrusage", sys_getrusage, FULL),
    Call("times", sys_times, FULL),
)
