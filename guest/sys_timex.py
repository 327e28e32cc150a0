"""adjtimex and clock_adjtime (kernel/time/ntp.c, timekeeping.c): what is set is checked, kept and read back.

The clock can be set (ADJ_SETOFFSET). Its rate is that of the machine: frequency, tick and slow adjustments are kept and
not obeyed.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC
from guest.sys_time import read_clock
from guest.syscalls import PARTIAL, Call
from guest.vfs_flags import s32
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

CAP_SYS_TIME = 25
CLOCK_REALTIME = 0
ADJ_OFFSET, ADJ_FREQUENCY, ADJ_MAXERROR, ADJ_ESTERROR, ADJ_STATUS, ADJ_TIMECONST = 1, 2, 4, 8, 16, 32
ADJ_TAI, ADJ_SETOFFSET, ADJ_MICRO, ADJ_NANO, ADJ_TICK, ADJ_ADJTIME = 0x80, 0x100, 0x1000, 0x2000, 0x4000, 0x8000
ADJ_OFFSET_READONLY = 0x2000  # with ADJ_ADJTIME
STA_PLL, STA_UNSYNC, STA_CLOCKERR, STA_NANO, STA_RONLY = 1, 0x40, 0x1000, 0x2000, 0xFF00
TIME_OK, TIME_ERROR = 0, 5
MAXTC = 10
MAXFREQ = 500 << 16  # ppm with 16 bits behind the point
_MAX_GIVEN_FREQ = ((1 << 63) - 1) // 65536000
#: struct timex: modes offset freq maxerror esterror status constant precision tolerance time tick pps... tai
_TIMEX = Struct("<I4x4qi4x3q2qq2qi4x5qi44x")


class Ntp:
    """The state of time keeping (the static variables of ntp.c), in the units of struct timex."""

    def __init__(self) -> None:
        self.adjust = 0  # of adjtime(3), us
        self.freq = self.tai = 0
        self.maxerror = self.esterror = 16_000_000
        self.status = STA_UNSYNC
        self.constant = 2
        self.tick = 10_000  # us

    def process_modes(self, modes: int, values: tuple[int, ...]) -> None:
        """process_adjtimex_modes()."""
        _, _, freq, maxerror, esterror, status, constant = values[:7]
        if modes & ADJ_STATUS:
            self.status = self.status & STA_RONLY | status & ~STA_RONLY
        if modes & ADJ_NANO:
            self.status |= STA_NANO
        if modes & ADJ_MICRO:
            self.status &= ~STA_NANO
        if modes & ADJ_FREQUENCY:
            self.freq = max(min(freq, MAXFREQ), -MAXFREQ)
        if modes & ADJ_MAXERROR:
            self.maxerror = maxerror
        if modes & ADJ_ESTERROR:
            self.esterror = esterror
        if modes & ADJ_TIMECONST:
            self.constant = max(min(constant + (0 if self.status & STA_NANO else 4), MAXTC), 0)
        if modes & ADJ_TAI and constant >= 0:
            self.tai = s32(constant)
        if modes & ADJ_TICK:
            self.tick = values[11]


def _validate(task: Task, modes: int, values: tuple[int, ...]) -> None:
    """timekeeping_validate_timex(). Raises EINVAL, EPERM."""
    capable = task.capable(CAP_SYS_TIME) if modes else True
    if modes & ADJ_ADJTIME:
        if not modes & ADJ_OFFSET:
            raise Errno(errno.EINVAL)
        if not modes & ADJ_OFFSET_READONLY and not capable:
            raise Errno(errno.EPERM)
    else:
        if not capable:
            raise Errno(errno.EPERM)
        if modes & ADJ_TICK and not 9000 <= values[11] <= 11000:
            raise Errno(errno.EINVAL)
    if modes & ADJ_SETOFFSET:
        if not capable:
            raise Errno(errno.EPERM)
        if not 0 <= values[10] < (NSEC_PER_SEC if modes & ADJ_NANO else 1_000_000):
            raise Errno(errno.EINVAL)
    if modes & ADJ_FREQUENCY and abs(values[2]) > _MAX_GIVEN_FREQ:
        raise Errno(errno.EINVAL)


def do_adjtimex(task: Task, address: int) -> int:
    """The state of the clock, TIME_ERROR until somebody says it is synchronised. Raises EFAULT, EINVAL, EPERM."""
    values = _TIMEX.unpack(copy_from_user(task, address, _TIMEX.size))
    modes = values[0]
    _validate(task, modes, values)
    kernel = task.kernel
    if kernel.ntp is None:
        kernel.ntp = Ntp()
    ntp: Ntp = kernel.ntp
    if modes & ADJ_SETOFFSET:
        seconds, rest = values[9:11]
        step = seconds * NSEC_PER_SEC + rest * (1 if modes & ADJ_NANO else 1000)
        if kernel.clock.realtime() + step < 0:
            raise Errno(errno.EINVAL)
        kernel.clock.set_realtime(kernel.clock.realtime() + step)
    offset = 0
    if modes & ADJ_ADJTIME:
        offset = ntp.adjust
        if not modes & ADJ_OFFSET_READONLY:
            ntp.adjust = values[1]
    elif modes:
        ntp.process_modes(modes, values)
    nano = bool(ntp.status & STA_NANO)
    seconds, nanoseconds = divmod(kernel.clock.realtime(), NSEC_PER_SEC)
    image = _TIMEX.pack(
        modes, offset, ntp.freq, ntp.maxerror, ntp.esterror, ntp.status, ntp.constant, 1, MAXFREQ, seconds,
        nanoseconds if nano else nanoseconds // 1000, ntp.tick, 0, 0, 0, 0, 0, 0, 0, 0, ntp.tai,
    )  # fmt: skip
    copy_to_user(task, address, image)
    return TIME_ERROR if ntp.status & (STA_UNSYNC | STA_CLOCKERR) else TIME_OK


def sys_adjtimex(task: Task, address: int) -> int:
    """adjtimex(2)."""
    return do_adjtimex(task, address)


def sys_clock_adjtime(task: Task, clock: int, address: int) -> int:
    """clock_adjtime(2). Raises EINVAL for no such clock, EOPNOTSUPP for one that can not be adjusted."""
    copy_from_user(task, address, _TIMEX.size)
    if s32(clock) != CLOCK_REALTIME:
        read_clock(task, s32(clock))
        raise Errno(errno.EOPNOTSUPP)
    return do_adjtimex(task, address)


_NOTE = "sets the clock; frequency and slow adjustments are kept, not obeyed"
CALLS = (
    Call("adjtimex", sys_adjtimex, PARTIAL, _NOTE),
    Call("clock_adjtime", sys_clock_adjtime, PARTIAL, _NOTE),
)
