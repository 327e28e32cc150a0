"""timerfd (fs/timerfd.c): a timer one can read and poll, on the virtual clock."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.clock import NSEC_PER_SEC
from guest.file import OpenFile
from guest.sched import WaitQueue, sleep_on
from guest.sys_time import get_timespec64
from guest.syscalls import FULL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import O_CLOEXEC, O_NONBLOCK, O_RDWR, POLLIN, s32
from guest.vfs_types import Inode, Path
from mm.errors import Errno
from mm.uaccess import copy_to_user, get_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM = 0, 1, 7, 8, 9
_ALARMS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_REAL = (CLOCK_REALTIME, CLOCK_REALTIME_ALARM)
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2
TFD_IOC_SET_TICKS = 0x40085400
CAP_WAKE_ALARM = 35
_ITIMERSPEC = Struct("<4q")


class TimerFile(OpenFile):
    """struct timerfd_ctx and its file. `expires` is CLOCK_MONOTONIC ns."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, kernel: Kernel, clock: int) -> None:
        super().__init__(path, inode, flags)
        self.kernel = kernel
        self.clock = clock
        self.expires = 0
        self.interval = 0
        self.ticks = 0
        self.expired = False
        self.settime_flags = 0
        self.might_cancel = False
        self.moffs = kernel.clock.offset  # of CLOCK_REALTIME when the timer was set
        self.wqh = WaitQueue("timerfd")

    def arm(self) -> None:
        """hrtimer_start()."""
        timers = self.kernel.timers
        if self not in timers.alarms:
            timers.alarms.append(self)
        timers.recompute()

    def disarm(self) -> None:
        """hrtimer_cancel()."""
        timers = self.kernel.timers
        if self in timers.alarms:
            timers.alarms.remove(self)
            timers.recompute()

    def fire(self) -> None:
        """timerfd_triggered(); a periodic timer goes on when it is read."""
        self.expired = True
        self.ticks += 1
        self.wqh.wake_all(POLLIN)

    def forward(self) -> int:
        """hrtimer_forward_now(): to the first expiry after now; how many periods that is."""
        behind = self.kernel.clock.now - self.expires
        if behind < 0:
            return 0
        periods = behind // self.interval + 1
        self.expires += periods * self.interval
        return periods

    def remaining(self) -> int:
        """Nanoseconds to the expiry."""
        return max(self.expires - self.kernel.clock.now, 0) if self.expires else 0

    def canceled(self) -> bool:
        """timerfd_canceled(): the clock was set since."""
        if not self.might_cancel or self.moffs == self.kernel.clock.offset:
            return False
        self.moffs = self.kernel.clock.offset
        return True

    def clock_was_set(self, moved: int) -> None:
        """timerfd_clock_was_set(): CLOCK_REALTIME jumped by `moved` ns; whoever asked for it is told."""
        if self.expires and self.settime_flags & TFD_TIMER_ABSTIME and self.clock in _REAL:
            self.expires = self.expires - moved or 1
        if self.might_cancel:
            self.wqh.wake_all(POLLIN)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if count < 8:
            raise Errno(errno.EINVAL)
        if self.canceled():
            self.ticks, self.expired = 0, False
            raise Errno(errno.ECANCELED)
        if not self.ticks:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, self.wqh)
        ticks = self.ticks
        if self.expired and self.interval:
            ticks += self.forward() - 1
            self.arm()
        self.expired = False
        self.ticks = 0
        return ticks.to_bytes(8, "little")

    def poll(self, task: Task) -> int:
        if self.might_cancel and self.moffs != self.kernel.clock.offset:
            return POLLIN
        return POLLIN if self.ticks else 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.wqh,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd != TFD_IOC_SET_TICKS:
            raise Errno(errno.ENOTTY)
        ticks = get_user(task, arg, 8)
        if not ticks:
            raise Errno(errno.EINVAL)
        if self.canceled():
            raise Errno(errno.ECANCELED)
        self.ticks = ticks
        self.wqh.wake_all(POLLIN)
        return 0

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """noop_llseek()."""
        return self.f_pos

    def setting(self) -> tuple[int, int, int, int]:
        """struct itimerspec: interval, then value."""
        return *divmod(self.interval, NSEC_PER_SEC), *divmod(self.remaining(), NSEC_PER_SEC)

    def show_fdinfo(self, sb: Any) -> str:
        interval, interval_nsec, value, value_nsec = self.setting()
        return (
            f"clockid: {self.clock}\nticks: {self.ticks}\nsettime flags: 0{self.settime_flags:o}\n"
            f"it_value: ({value}, {value_nsec})\nit_interval: ({interval}, {interval_nsec})\n"
        )

    def closed(self) -> None:
        self.disarm()


def sys_timerfd_create(task: Task, clockid: int, flags: int) -> int:
    """timerfd_create(2)."""
    clockid, flags = s32(clockid), flags & 0xFFFFFFFF
    if flags & ~(O_CLOEXEC | O_NONBLOCK) or clockid not in (CLOCK_MONOTONIC, CLOCK_BOOTTIME, *_REAL, *_ALARMS):
        raise Errno(errno.EINVAL)
    if clockid in _ALARMS and not task.capable(CAP_WAKE_ALARM):
        raise Errno(errno.EPERM)
    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    path = anonymous_path(sb, inode, b"anon_inode:[timerfd]")
    file = TimerFile(path, inode, O_RDWR | flags & O_NONBLOCK, task.kernel, clockid)
    fd: int = task.files.add(task, file, bool(flags & O_CLOEXEC))
    return fd


def timerfd(task: Task, fd: int) -> TimerFile:
    """timerfd_fget(). Raises EBADF, EINVAL."""
    file: OpenFile = task.files.get(s32(fd))
    if not isinstance(file, TimerFile):
        raise Errno(errno.EINVAL)
    return file


def sys_timerfd_settime(task: Task, fd: int, flags: int, new: int, old: int) -> int:
    """timerfd_settime(2)."""
    flags &= 0xFFFFFFFF
    interval, value = (raw_timespec(task, new), raw_timespec(task, new + 16))
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise Errno(errno.EINVAL)
    if interval is None or value is None:
        raise Errno(errno.EINVAL)
    file = timerfd(task, fd)
    if file.clock in _ALARMS and not task.capable(CAP_WAKE_ALARM):
        raise Errno(errno.EPERM)
    both = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
    if not file.might_cancel:
        file.moffs = task.kernel.clock.offset
    file.might_cancel = file.clock in _REAL and flags & both == both
    file.disarm()
    if file.expired and file.interval:
        file.forward()
    before = file.setting()
    file.expired, file.ticks, file.interval, file.expires = False, 0, interval, 0
    if value:
        clock = task.kernel.clock
        if flags & TFD_TIMER_ABSTIME:
            if task.time_ns is not None:
                value = task.time_ns.to_host(file.clock, value)
            file.expires = value - (clock.offset if file.clock in _REAL else 0) or 1  # below 0: before the start
        else:
            file.expires = clock.now + value
        file.arm()
        if file.canceled():
            raise Errno(errno.ECANCELED)
        if file.expires <= clock.now:
            file.disarm()
            file.fire()
    file.settime_flags = flags
    if old:
        copy_to_user(task, old, _ITIMERSPEC.pack(*before))
    return 0


def raw_timespec(task: Task, address: int) -> int | None:
    """A timespec in ns; None when it is not valid. Raises EFAULT."""
    try:
        return get_timespec64(task, address)
    except Errno as refusal:
        if refusal.number == errno.EFAULT:
            raise
        return None


def sys_timerfd_gettime(task: Task, fd: int, setting: int) -> int:
    """timerfd_gettime(2)."""
    file = timerfd(task, fd)
    if file.expired and file.interval:
        file.expired = False
        file.ticks += file.forward() - 1
        file.arm()
    copy_to_user(task, setting, _ITIMERSPEC.pack(*file.setting()))
    return 0


CALLS = (
    Call("timerfd_create", sys_timerfd_create, FULL),
    Call("timerfd_settime", sys_timerfd_settime, FULL),
    Call("timerfd_gettime", sys_timerfd_gettime, FULL),
)
