"""Clocks of CPU time, and sleeps on them (kernel/time/posix-cpu-timers.c).

Such a clock belongs to a process or to a thread and stands still while that one does not run. Its number is negative:
bits 0-1 say what is counted, bit 2 that it is a thread's, and the rest is the complement of the pid (0: the caller).
Timers on it are guest/sys_timer.py's, which read this clock instead of the machine's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.clock import TICK_NSEC
from guest.sched import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Restart, WaitQueue, sleep_on
from guest.timers import Timers
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED, _CLOCKFD = range(4)
CPUCLOCK_PERTHREAD = 4
PROCESS_CLOCK = ~0 << 3 | CPUCLOCK_SCHED  # what CLOCK_PROCESS_CPUTIME_ID is short for
THREAD_CLOCK = PROCESS_CLOCK | CPUCLOCK_PERTHREAD
_SHORT = {2: PROCESS_CLOCK, 3: THREAD_CLOCK}  # CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID


class CpuClock:
    """One clock: of `task`, or of the process it leads."""

    __slots__ = ("task", "thread", "which")

    def __init__(self, task: Task, thread: bool, which: int) -> None:
        self.task = task
        self.thread = thread
        self.which = which

    def read(self) -> int:
        """CPU time used so far, ns."""
        both = self.which != CPUCLOCK_VIRT
        if self.thread:
            return self.task.utime + (self.task.stime if both else 0)
        return Timers.cpu_time(self.task.signal, int(both))

    def resolution(self) -> int:
        """Nanoseconds (posix_cpu_clock_getres())."""
        return 1 if self.which == CPUCLOCK_SCHED else TICK_NSEC

    def is_gone(self) -> bool:
        """Whether it counts for nobody any more: the thread or process was reaped."""
        return self.task.kernel.tasks.get(self.task.pid) is not self.task


def is_dynamic(which: int) -> bool:
    """Whether the number names a clock device behind a descriptor (there are none)."""
    return which < 0 and which & 7 == _CLOCKFD


def the_cpu_clock(task: Task, which: int, reading: bool = False) -> CpuClock:
    """The clock of this number (pid_for_clock()).

    `reading`: a thread may read its process's time by its own id. Raises Errno(EINVAL): nobody the caller may time.
    """
    which = _SHORT.get(which, which)
    if which & 3 == _CLOCKFD:
        raise Errno(errno.EINVAL)
    pid = ~which >> 3
    target = task if pid == 0 else task.find_task(pid)
    if target is None:
        raise Errno(errno.EINVAL)
    if which & CPUCLOCK_PERTHREAD:
        if target.tgid != task.tgid:
            raise Errno(errno.EINVAL)
        return CpuClock(target, True, which & 3)
    if target.group_leader is not target and not (target is task and (reading or pid == 0)):
        raise Errno(errno.EINVAL)
    return CpuClock(target.group_leader, False, which & 3)


def cpu_clock(task: Task, which: int) -> CpuClock | None:
    """The clock of this number; None when it is none of CPU time. Raises Errno(EINVAL)."""
    return the_cpu_clock(task, which) if which < 0 or which in _SHORT else None


class CpuSleep:
    """A task that sleeps until `clock` reads `expires`; in Timers.cpu_sleeps meanwhile."""

    __slots__ = ("clock", "expires", "task")

    def __init__(self, task: Task, clock: CpuClock, expires: int) -> None:
        self.task = task
        self.clock = clock
        self.expires = expires

    def left(self) -> int:
        """CPU time still to be used, ns; 0: it is over."""
        return max(self.expires - self.clock.read(), 0)

    def is_asleep(self) -> bool:
        """Whether the task still sleeps on it: a kill may have ended that."""
        return self.task.wait_state.get("cpu-sleep") is self


def cpu_nanosleep(task: Task, which: int, value: int, rmtp: int, absolute: bool) -> int:
    """posix_cpu_nsleep(). Raises Errno(EINVAL): no such clock, or the caller's own thread, which would never wake."""
    state = task.wait_state
    if "cpu-sleep" not in state:
        clock = the_cpu_clock(task, which)
        if clock.thread and clock.task is task:
            raise Errno(errno.EINVAL)
        state["cpu-sleep"] = CpuSleep(task, clock, value if absolute else clock.read() + value)
    return _sleep(task, state["cpu-sleep"], rmtp, absolute)


def _sleep(task: Task, sleep: CpuSleep, rmtp: int, absolute: bool) -> int:
    """do_cpu_nanosleep(), again after each wake-up and after a signal without a handler."""
    from guest.sys_time import put_timespec64

    timers = task.kernel.timers
    task.wait_state["cpu-sleep"] = sleep
    if not sleep.left():
        timers.end_cpu_sleep(sleep)
        return 0
    timers.start_cpu_sleep(sleep)
    try:
        sleep_on(task, WaitQueue("a clock of CPU time"), restart=ERESTART_RESTARTBLOCK)
    except Restart:
        timers.end_cpu_sleep(sleep)
        if absolute:
            raise Restart(ERESTARTNOHAND) from None
        if rmtp:
            put_timespec64(task, rmtp, sleep.left())
        task.restart_block = (_sleep, sleep, rmtp, absolute)
        raise
    return 0
