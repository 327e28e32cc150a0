"""System calls of time: clocks, sleeps, interval timers (kernel/time/). All of it on the machine's virtual clock."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC, TICK_NSEC
from guest.cred import CAP_SYS_TIME
from guest.sched import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Restart, WaitQueue, sleep_on
from guest.sys_mm import s32
from guest.syscalls import FULL, PARTIAL, Call
from guest.timers import Timers
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

(
    CLOCK_REALTIME,
    CLOCK_MONOTONIC,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_THREAD_CPUTIME_ID,
    CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME_COARSE,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_BOOTTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_BOOTTIME_ALARM,
    _CLOCK_SGI_CYCLE,
    CLOCK_TAI,
) = range(12)
TIMER_ABSTIME = 1
ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = 0, 1, 2
_REALTIME_CLOCKS = (CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI)
_ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_COARSE = (CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)
_TIMESPEC = Struct("<qq")
_KTIME_MAX = (1 << 63) - 1


def get_timespec64(task: Task, address: int) -> int:
    """A timespec as ns. Raises Errno(EFAULT), EINVAL."""
    seconds, nanoseconds = _TIMESPEC.unpack(copy_from_user(task, address, 16))
    if seconds < 0 or not 0 <= nanoseconds < NSEC_PER_SEC:
        raise Errno(errno.EINVAL)
    return min(int(seconds * NSEC_PER_SEC + nanoseconds), _KTIME_MAX)


def put_timespec64(task: Task, address: int, value: int) -> None:
    """ns as a timespec."""
    copy_to_user(task, address, _TIMESPEC.pack(*divmod(value, NSEC_PER_SEC)))


def read_clock(task: Task, which: int) -> int:
    """The clock's time, ns. Raises Errno(EINVAL) for one there is not."""
    clock = task.kernel.clock
    if which < 0:
        from guest.cpu_timers import the_cpu_clock

        return the_cpu_clock(task, which, True).read()
    if which in _REALTIME_CLOCKS:
        value = clock.realtime()
    elif which in (
        CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM
    ):  # fmt: skip
        value = clock.now
    elif which == CLOCK_PROCESS_CPUTIME_ID:
        return Timers.cpu_time(task.signal, 1)
    elif which == CLOCK_THREAD_CPUTIME_ID:
        return task.utime + task.stime
    else:
        raise Errno(errno.EINVAL)
    if which in _ALARM_CLOCKS:
        raise Errno(errno.EINVAL)  # no alarm clock device on this machine
    if task.time_ns is not None:
        value += task.time_ns.offset(which)
    return value - value % TICK_NSEC if which in _COARSE else value


def sys_clock_gettime(task: Task, which: int, tp: int) -> int:
    """clock_gettime."""
    task.kernel.clock_was_read(task)
    put_timespec64(task, tp, read_clock(task, s32(which)))
    return 0


def sys_clock_getres(task: Task, which: int, tp: int) -> int:
    """clock_getres: 1 ns, a tick for the coarse clocks."""
    which = s32(which)
    read_clock(task, which)
    resolution = TICK_NSEC if which in _COARSE else 1
    if which < 0:
        from guest.cpu_timers import the_cpu_clock

        resolution = the_cpu_clock(task, which).resolution()
    if tp:
        put_timespec64(task, tp, resolution)
    return 0


def sys_clock_settime(task: Task, which: int, tp: int) -> int:
    """clock_settime."""
    which = s32(which)
    if which < 0:
        copy_from_user(task, tp, 16)
        read_clock(task, which)
        raise Errno(errno.EPERM)  # CPU time cannot be set
    if which != CLOCK_REALTIME:
        raise Errno(errno.EINVAL)
    value = get_timespec64(task, tp)
    if not task.capable(CAP_SYS_TIME):
        raise Errno(errno.EPERM)
    task.kernel.timers.set_realtime(value)
    return 0


def sys_gettimeofday(task: Task, tv: int, tz: int) -> int:
    """gettimeofday."""
    task.kernel.clock_was_read(task)
    if tv:
        seconds, nanoseconds = divmod(task.kernel.clock.realtime(), NSEC_PER_SEC)
        copy_to_user(task, tv, _TIMESPEC.pack(seconds, nanoseconds // 1000))
    if tz:
        copy_to_user(task, tz, bytes(8))
    return 0


def sys_settimeofday(task: Task, tv: int, tz: int) -> int:
    """settimeofday."""
    value = None
    if tv:
        seconds, microseconds = _TIMESPEC.unpack(copy_from_user(task, tv, 16))
        if not 0 <= microseconds <= 1_000_000:
            raise Errno(errno.EINVAL)
        if microseconds == 1_000_000 or seconds < 0:
            raise Errno(errno.EINVAL)
        value = seconds * NSEC_PER_SEC + microseconds * 1000
    if tz:
        copy_from_user(task, tz, 8)
    if not task.capable(CAP_SYS_TIME):
        raise Errno(errno.EPERM)
    if value is not None:
        task.kernel.timers.set_realtime(value)
    return 0


def sys_time(task: Task, tloc: int) -> int:
    """time."""
    task.kernel.clock_was_read(task)
    seconds = task.kernel.clock.realtime() // NSEC_PER_SEC
    if tloc:
        put_user(task, tloc, seconds, 8)
    return seconds


# ---- sleeping


def _sleep(task: Task, deadline: int, rmtp: int, absolute: bool) -> int:
    """hrtimer_nanosleep(): until CLOCK_MONOTONIC `deadline`; interrupted, it leaves the rest in `rmtp`."""
    if task.kernel.clock.now >= deadline:
        return 0
    try:
        sleep_on(task, WaitQueue("the clock"), deadline=deadline, restart=ERESTART_RESTARTBLOCK)
    except Restart:
        if absolute:
            raise Restart(ERESTARTNOHAND) from None
        if rmtp:
            put_timespec64(task, rmtp, max(deadline - task.kernel.clock.now, 0))
        task.restart_block = (_sleep, deadline, rmtp, absolute)
        raise
    return 0


def _deadline(task: Task, value: int) -> int:
    """The end of a relative sleep: fixed at the first run of the handler; the kernel's timer slack is left out."""
    state = task.wait_state
    if "deadline" not in state:
        state["deadline"] = min(task.kernel.clock.now + value, _KTIME_MAX)
    return int(state["deadline"])


def sys_nanosleep(task: Task, rqtp: int, rmtp: int) -> int:
    """nanosleep."""
    state = task.wait_state
    if "deadline" not in state:
        _deadline(task, get_timespec64(task, rqtp))
    return _sleep(task, state["deadline"], rmtp, False)


def _may_sleep_on(task: Task, which: int) -> None:
    """Raises Errno(EINVAL) when there is no such clock, EOPNOTSUPP when one cannot sleep on it."""
    from guest.cpu_timers import is_dynamic

    if which in (*_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_THREAD_CPUTIME_ID) or is_dynamic(which):
        raise Errno(errno.EOPNOTSUPP)
    if which >= 0 and which not in _ALARM_CLOCKS:
        read_clock(task, which)


def sys_clock_nanosleep(task: Task, which: int, flags: int, rqtp: int, rmtp: int) -> int:
    """clock_nanosleep."""
    which = s32(which)
    state = task.wait_state
    absolute = bool(flags & TIMER_ABSTIME)
    if "deadline" not in state:
        _may_sleep_on(task, which)
        value = get_timespec64(task, rqtp)
        if which in _ALARM_CLOCKS:
            raise Errno(errno.EOPNOTSUPP)  # no alarm clock device on this machine
        if which < 0 or which == CLOCK_PROCESS_CPUTIME_ID:
            from guest.cpu_timers import cpu_nanosleep

            return cpu_nanosleep(task, which, value, rmtp, absolute)
        if absolute:
            value = max(value - read_clock(task, which), 0)
            state["at-time-of-day"] = which in _REALTIME_CLOCKS
        state["deadline"] = task.kernel.clock.now + value
    return _sleep(task, state["deadline"], rmtp, absolute)


# ---- interval timers


def _get_itimer(task: Task, which: int) -> bytes:
    signal = task.signal
    if which == ITIMER_REAL:
        left = signal.it_real_expires - task.kernel.clock.now if signal.it_real_expires else 0
        if signal.it_real_expires:
            left = max(left, 1000)
        interval = signal.it_real_incr
    elif which in (ITIMER_VIRTUAL, ITIMER_PROF):
        expires, interval = signal.it[which - 1]
        left = max(expires - Timers.cpu_time(signal, which - 1), TICK_NSEC) if expires else 0
    else:
        raise Errno(errno.EINVAL)
    out = []
    for value in (interval, left):
        seconds, nanoseconds = divmod(value, NSEC_PER_SEC)
        out += [seconds, nanoseconds // 1000]
    return Struct("<4q").pack(*out)


def set_itimer(task: Task, which: int, value: int, interval: int) -> None:
    """Arm (`value` ns from now) or stop (0) an interval timer. Raises Errno(EINVAL)."""
    signal = task.signal
    if which == ITIMER_REAL:
        signal.it_real_expires = task.kernel.clock.now + value if value else 0
        signal.it_real_incr = interval if value else 0
    elif which in (ITIMER_VIRTUAL, ITIMER_PROF):
        signal.it[which - 1] = [Timers.cpu_time(signal, which - 1) + value if value else 0, interval]
    else:
        raise Errno(errno.EINVAL)
    task.kernel.timers.update(signal)


def sys_getitimer(task: Task, which: int, value: int) -> int:
    """getitimer."""
    copy_to_user(task, value, _get_itimer(task, s32(which)))
    return 0


def sys_setitimer(task: Task, which: int, value: int, ovalue: int) -> int:
    """setitimer."""
    which = s32(which)
    interval = first = 0
    if value:
        isec, iusec, vsec, vusec = Struct("<4q").unpack(copy_from_user(task, value, 32))
        if isec < 0 or vsec < 0 or not 0 <= iusec < 1_000_000 or not 0 <= vusec < 1_000_000:
            raise Errno(errno.EINVAL)
        interval = isec * NSEC_PER_SEC + iusec * 1000
        first = vsec * NSEC_PER_SEC + vusec * 1000
    old = _get_itimer(task, which)
    set_itimer(task, which, first, interval)
    if ovalue:
        copy_to_user(task, ovalue, old)
    return 0


def sys_alarm(task: Task, seconds: int) -> int:
    """alarm: seconds left of the one before, rounded."""
    signal = task.signal
    left = signal.it_real_expires - task.kernel.clock.now if signal.it_real_expires else 0
    set_itimer(task, ITIMER_REAL, (seconds & 0xFFFFFFFF) * NSEC_PER_SEC, 0)
    if left <= 0:
        return 0
    whole, rest = divmod(left, NSEC_PER_SEC)
    if (not whole and rest) or rest >= NSEC_PER_SEC // 2:
        whole += 1
    return whole


CALLS = (
    Call("clock_gettime", sys_clock_gettime, FULL),
    Call("clock_getres", sys_clock_getres, FULL),
    Call("clock_settime", sys_clock_settime, FULL),
    Call("gettimeofday", sys_gettimeofday, FULL),
    Call("settimeofday", sys_settimeofday, PARTIAL, "the time zone is not kept"),
    Call("time", sys_time, FULL),
    Call("nanosleep", sys_nanosleep, FULL),
    Call("clock_nanosleep", sys_clock_nanosleep, FULL),
    Call("getitimer", sys_getitimer, FULL),
    Call("setitimer", sys_setitimer, FULL),
    Call("alarm", sys_alarm, FULL),
)
