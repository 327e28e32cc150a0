"""POSIX timers (kernel/time/posix-timers.c): a clock, an expiry, and a signal, on the virtual clock."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC
from guest.siginfo import SI_TIMER, SIG_IGN, SigInfo
from guest.signal import send_signal
from guest.sys_mm import s32
from guest.sys_time import TIMER_ABSTIME, get_timespec64, read_clock
from guest.syscalls import FULL, PARTIAL, Call
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import SignalStruct, Task

SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4
_SIGEVENT = Struct("<Qiii")
_ITIMERSPEC = Struct("<4q")
_DELAYTIMER_MAX = 0x7FFFFFFF


class PosixTimer:
    """struct k_itimer."""

    def __init__(self, ident: int, clock: int, notify: int, signo: int, value: int, target: Task) -> None:
        self.ident = ident
        self.clock = clock
        self.notify = notify
        self.signo = signo
        self.value = value  # sigev_value
        self.target = target
        self.expires = 0  # CLOCK_MONOTONIC ns; 0: off
        self.interval = 0
        self.overrun = 0
        self.last_overrun = 0
        self.queued: SigInfo | None = None

    def fire(self, kernel: Kernel, signal: SignalStruct) -> None:
        """It expired: send the signal, or count an overrun while the last one is still queued."""
        now = kernel.clock.now
        periods = (now - self.expires) // self.interval if self.interval else 0
        self.expires = self.expires + (periods + 1) * self.interval if self.interval else 0
        if self.notify & ~SIGEV_THREAD_ID:
            return
        if self.is_queued():
            self.overrun = min(self.overrun + periods + 1, _DELAYTIMER_MAX)
            return
        self.overrun = periods
        fields = Struct("<iiQ").pack(self.ident, self.overrun, self.value)
        self.queued = SigInfo(self.signo, SI_TIMER, fields)
        send_signal(self.queued, self.target, not self.notify & SIGEV_THREAD_ID)

    def is_queued(self) -> bool:
        """Whether its signal waits to be taken (one that was ignored never does)."""
        target = self.target
        queues = (target.pending.queue, target.signal.shared_pending.queue)
        return self.queued is not None and any(self.queued is info for queue in queues for info in queue)

    def is_silent(self) -> bool:
        """Whether expiring would reach nobody: while everybody sleeps it need not be waited for."""
        if self.notify & ~SIGEV_THREAD_ID or self.is_queued():
            return True
        return self.target.sighand.action[self.signo].handler == SIG_IGN

    def taken(self, info: SigInfo) -> None:
        """The signal is being delivered: it carries the overruns up to now."""
        self.last_overrun = self.overrun
        info.fields = Struct("<iiQ").pack(self.ident, self.overrun, self.value)
        self.overrun = 0
        self.queued = None


def _get(task: Task, ident: int) -> PosixTimer:
    timer: PosixTimer | None = task.signal.posix_timers.get(s32(ident))
    if timer is None:
        raise Errno(errno.EINVAL)
    return timer


def sys_timer_create(task: Task, which: int, sevp: int, created: int) -> int:
    """timer_create."""
    which = s32(which)
    read_clock(task, which)
    if which < 0 or which in (2, 3, 4, 5, 6):
        raise Errno(errno.EOPNOTSUPP if which in (4, 5, 6) else errno.EINVAL)
    signal = task.signal
    notify, signo, value, target = SIGEV_SIGNAL, 14, signal.next_posix_timer_id, task.group_leader
    if sevp:
        value, signo, notify, tid = _SIGEVENT.unpack(copy_from_user(task, sevp, 64)[:20])
        if notify == SIGEV_SIGNAL | SIGEV_THREAD_ID:
            thread = task.kernel.find_task(tid)
            if thread is None or thread.tgid != task.tgid:
                raise Errno(errno.EINVAL)
            target = thread
        if notify in (SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_SIGNAL | SIGEV_THREAD_ID):
            if not 1 <= signo <= 64:
                raise Errno(errno.EINVAL)
        elif notify != SIGEV_NONE:
            raise Errno(errno.EINVAL)
    ident = signal.next_posix_timer_id
    put_user(task, created, ident, 4)
    signal.next_posix_timer_id += 1
    signal.posix_timers[ident] = PosixTimer(ident, which, notify, signo, value, target)
    return 0


def _setting(task: Task, timer: PosixTimer) -> bytes:
    left = 0
    if timer.expires:
        left = max(timer.expires - task.kernel.clock.now, 1)
    return _ITIMERSPEC.pack(*divmod(timer.interval, NSEC_PER_SEC), *divmod(left, NSEC_PER_SEC))


def sys_timer_settime(task: Task, ident: int, flags: int, new: int, old: int) -> int:
    """timer_settime."""
    if not new:
        raise Errno(errno.EINVAL)
    interval = get_timespec64(task, new)
    value = get_timespec64(task, new + 16)
    timer = _get(task, ident)
    before = _setting(task, timer)
    now = task.kernel.clock.now
    timer.interval = interval
    timer.overrun = timer.last_overrun = 0
    timer.queued = None
    if not value:
        timer.expires = timer.interval = 0
    elif flags & TIMER_ABSTIME:
        timer.expires = max(value - read_clock(task, timer.clock) + now, 1)
    else:
        timer.expires = now + value
    task.kernel.timers.update(task.signal)
    if old:
        copy_to_user(task, old, before)
    return 0


def sys_timer_gettime(task: Task, ident: int, setting: int) -> int:
    """timer_gettime."""
    copy_to_user(task, setting, _setting(task, _get(task, ident)))
    return 0


def sys_timer_getoverrun(task: Task, ident: int) -> int:
    """timer_getoverrun."""
    return _get(task, ident).last_overrun


def sys_timer_delete(task: Task, ident: int) -> int:
    """timer_delete."""
    timer = _get(task, ident)
    del task.signal.posix_timers[timer.ident]
    task.kernel.timers.update(task.signal)
    return 0


CALLS = (
    Call("timer_create", sys_timer_create, PARTIAL, "not on CPU time clocks"),
    Call("timer_settime", sys_timer_settime, FULL),
    Call("timer_gettime", sys_timer_gettime, FULL),
    Call("timer_getoverrun", sys_timer_getoverrun, FULL),
    Call("timer_delete", sys_timer_delete, FULL),
)
