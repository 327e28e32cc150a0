"""POSIX timers (kernel/time/posix-timers.c): a clock, an expiry, and a signal, on the virtual clock."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC, TICK_NSEC
from guest.cpu_timers import CpuClock, cpu_clock, is_dynamic
from guest.siginfo import SI_TIMER, SIG_IGN, SigInfo
from guest.signal import send_signal
from guest.sys_mm import s32
from guest.sys_time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    TIMER_ABSTIME,
    get_timespec64,
    read_clock,
)
from guest.syscalls import FULL, Call
from guest.timers import NEVER
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import SignalStruct, Task

SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4
_SIGEVENT = Struct("<Qiii")
_ITIMERSPEC = Struct("<4q")
_DELAYTIMER_MAX = 0x7FFFFFFF
_LATENCY = 10_000  # ns from one signal to the next at least, so that a period of 1 ns leaves time for anything else


class PosixTimer:
    """struct k_itimer."""

    def __init__(
        self, ident: int, clock: int, cpu: CpuClock | None, notify: int, signo: int, value: int, target: Task
    ) -> None:
        self.ident = ident
        self.cpu = cpu  # counts CPU time; None: the machine's
        self.clock = clock
        self.notify = notify
        self.signo = signo
        self.value = value  # sigev_value
        self.target = target
        self.expires = 0  # ns of `cpu`, else of CLOCK_MONOTONIC; 0: off
        self.at_time_of_day = False  # an absolute time of CLOCK_REALTIME: it moves when that is set
        self.interval = 0
        self.overrun = -1  # less one: the expiry that sends the signal is none
        self.last_overrun = 0
        self.rearmed = -_LATENCY  # CLOCK_MONOTONIC ns when its last signal was taken
        self.queued: SigInfo | None = None

    def now(self, kernel: Kernel) -> int:
        """What the clock that `expires` means reads, ns."""
        return kernel.clock.now if self.cpu is None else self.cpu.read()

    def left(self, kernel: Kernel) -> int:
        """Nanoseconds to the next expiry at the earliest; 0: it has come. None comes while a signal is queued."""
        if self.notify == SIGEV_NONE or (self.interval and self.is_queued()):
            return NEVER
        return max(self.expires - self.now(kernel), self.rearmed + _LATENCY - kernel.clock.now, 0)

    def forward(self, now: int) -> None:
        """hrtimer_forward(): the expiry moves behind `now`, and the periods it skips are overruns."""
        if self.expires <= now:
            periods = (now - self.expires) // self.interval + 1
            self.expires += periods * self.interval
            self.overrun += periods

    def fire(self, kernel: Kernel, signal: SignalStruct) -> None:
        """posix_timer_fn(): it expired: send the signal. The next period begins when that is taken."""
        fields = Struct("<iiQ").pack(self.ident, 0, self.value)
        self.queued = SigInfo(self.signo, SI_TIMER, fields)
        send_signal(self.queued, self.target, not self.notify & SIGEV_THREAD_ID)
        if not self.interval:
            self.expires = 0
        elif not self.is_queued():  # ignored: not more often than each tick
            self.forward(self.now(kernel) + (TICK_NSEC if self.interval < TICK_NSEC else 0))

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

    def taken(self, kernel: Kernel, info: SigInfo) -> None:
        """posixtimer_rearm(): the signal is being delivered, and carries the overruns up to now."""
        if info is self.queued and self.interval:
            self.forward(self.now(kernel))
            self.last_overrun = min(self.overrun, _DELAYTIMER_MAX)
            self.overrun = -1
            self.rearmed = kernel.clock.now
            info.fields = Struct("<iiQ").pack(self.ident, self.last_overrun, self.value)
        self.queued = None


def _get(task: Task, ident: int) -> PosixTimer:
    timer: PosixTimer | None = task.signal.posix_timers.get(s32(ident))
    if timer is None:
        raise Errno(errno.EINVAL)
    return timer


_TIMER_CLOCKS = (
    CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_BOOTTIME, CLOCK_TAI
)  # fmt: skip
_ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_WITHOUT_TIMERS = (CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)


def _event(task: Task, raw: bytes) -> tuple[int, int, int, Task]:
    """good_sigevent(): how to notify, which signal, its value, whom. Raises Errno(EINVAL)."""
    value, signo, notify, tid = _SIGEVENT.unpack(raw[:20])
    target = task.group_leader
    if notify == SIGEV_SIGNAL | SIGEV_THREAD_ID:
        thread = task.find_task(tid)
        if thread is None or thread.tgid != task.tgid:
            raise Errno(errno.EINVAL)
        target = thread
    if notify in (SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_SIGNAL | SIGEV_THREAD_ID):
        if not 1 <= signo <= 64:
            raise Errno(errno.EINVAL)
    elif notify != SIGEV_NONE:
        raise Errno(errno.EINVAL)
    return notify, signo, value, target


def sys_timer_create(task: Task, which: int, sevp: int, created: int) -> int:
    """timer_create."""
    which = s32(which)
    signal = task.signal
    raw = copy_from_user(task, sevp, 64) if sevp else b""
    if which in _WITHOUT_TIMERS or is_dynamic(which):
        raise Errno(errno.EOPNOTSUPP)
    if which >= 0 and which not in (*_TIMER_CLOCKS, *_ALARM_CLOCKS):
        raise Errno(errno.EINVAL)
    ident = signal.next_posix_timer_id
    notify, signo, value, target = SIGEV_SIGNAL, 14, ident, task.group_leader
    if raw:
        notify, signo, value, target = _event(task, raw)
    put_user(task, created, ident, 4)
    if which in _ALARM_CLOCKS:
        raise Errno(errno.EOPNOTSUPP)  # no alarm clock device on this machine
    timer = PosixTimer(ident, which, cpu_clock(task, which), notify, signo, value, target)
    signal.next_posix_timer_id += 1
    signal.posix_timers[ident] = timer
    return 0


def _setting(task: Task, timer: PosixTimer) -> bytes:
    """common_timer_get()."""
    left = 0
    now = timer.now(task.kernel)
    silent = timer.notify == SIGEV_NONE
    if timer.expires:
        if timer.interval and (silent or timer.is_queued()):
            timer.forward(now)
        left = max(timer.expires - now, 0 if silent else 1)
    return _ITIMERSPEC.pack(*divmod(timer.interval, NSEC_PER_SEC), *divmod(left, NSEC_PER_SEC))


def sys_timer_settime(task: Task, ident: int, flags: int, new: int, old: int) -> int:
    """timer_settime."""
    if not new:
        raise Errno(errno.EINVAL)
    interval = get_timespec64(task, new)
    value = get_timespec64(task, new + 16)
    timer = _get(task, ident)
    if timer.cpu is not None and timer.cpu.is_gone():
        raise Errno(errno.ESRCH)
    before = _setting(task, timer)
    now = timer.now(task.kernel)
    timer.interval = interval
    timer.overrun, timer.last_overrun = -1, 0
    timer.queued = None
    timer.at_time_of_day = bool(flags & TIMER_ABSTIME) and timer.clock in (CLOCK_REALTIME, CLOCK_TAI)
    if not value:
        timer.expires = timer.interval = 0
    elif flags & TIMER_ABSTIME:
        there = now if timer.cpu is not None else read_clock(task, timer.clock)
        timer.expires = value - there + now or 1  # a time of day from before the machine started is below 0
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
    Call("timer_create", sys_timer_create, FULL),
    Call("timer_settime", sys_timer_settime, FULL),
    Call("timer_gettime", sys_timer_gettime, FULL),
    Call("timer_getoverrun", sys_timer_getoverrun, FULL),
    Call("timer_delete", sys_timer_delete, FULL),
)
