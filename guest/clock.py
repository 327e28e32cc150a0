"""The machine's clock: virtual, so that the same program sees the same times in every run, or the host's.

Virtual time passes a little with every trap, jumps over sleeps when nobody can run, and moves with executed
instructions when the engine reports them (a preempted slice). All values are nanoseconds.
"""

from __future__ import annotations

import time

NSEC_PER_SEC = 1_000_000_000
TICK_NSEC = NSEC_PER_SEC // 250  # CONFIG_HZ=250
TRAP_NSEC = 1_000  # what one trap is taken to cost
FAULT_NSEC = 5_000  # and one for a page: it is cleared, copied or read
# And what these calls cost besides, while somebody waits for a moment: a guest that makes nothing else until then
# would make hundreds of thousands of them for each second, and they take the host longest.
CALL_NSEC = {
    "fork": 100_000, "vfork": 100_000, "clone": 100_000, "clone3": 100_000, "execve": 500_000, "execveat": 500_000,
    "exit": 50_000, "exit_group": 100_000, "mmap": 10_000, "munmap": 10_000, "mremap": 10_000, "mprotect": 10_000,
    "madvise": 10_000, "remap_file_pages": 50_000,
}  # fmt: skip
COPY_MM_NSEC = 900_000  # an address space for a new process
POPULATE_NSEC = 500  # a page that MAP_POPULATE faults in
INSTRUCTION_NSEC = 2  # and one counted instruction: emulating it takes 0.5 to 5, so that alarms come when expected
WAKE_NSEC = 50_000  # from a timer's expiry until an idle CPU runs the task it wakes
POLLS = 1_000  # looks at the clock without a sleep between them, after which a task is taken to wait for it:
POLL_NSEC = 20_000  # what each further one costs, so that spinning until a time takes little of the host's
TSC_KHZ = 2_000_000  # of the time stamp counter
EPOCH_NSEC = 1_700_000_000 * NSEC_PER_SEC  # CLOCK_REALTIME when the machine starts


class Clock:
    """CLOCK_MONOTONIC in `now`; CLOCK_REALTIME is `now + offset`."""

    __slots__ = ("now", "offset", "polls")
    virtual = True  # an idle machine need not wait: the clock jumps

    def __init__(self, boot: int = NSEC_PER_SEC, epoch: int = EPOCH_NSEC) -> None:
        self.now = boot  # nanoseconds since boot
        self.offset = epoch - boot
        self.polls = 0  # looks at it since everybody slept

    def realtime(self) -> int:
        """CLOCK_REALTIME: nanoseconds since 1970."""
        return self.now + self.offset

    def set_realtime(self, value: int) -> None:
        """clock_settime(CLOCK_REALTIME)."""
        self.offset = value - self.now


class HostClock(Clock):
    """`--clock host`: time is the host's, and passes by itself. What the kernel adds for traps is not added."""

    __slots__ = ("_base",)
    virtual = False

    def __init__(self, boot: int = NSEC_PER_SEC) -> None:
        self._base = time.monotonic_ns() - boot
        super().__init__(boot, time.time_ns())

    @property
    def now(self) -> int:  # the kernel writes to it as to the virtual one
        """CLOCK_MONOTONIC: nanoseconds since the machine started, and one second."""
        return time.monotonic_ns() - self._base

    @now.setter
    def now(self, value: int) -> None:
        pass  # nobody sets the host's clock

    def __getstate__(self) -> tuple[int, int]:
        return self.now, self.offset

    def __setstate__(self, state: tuple[int, int]) -> None:
        now, self.offset = state
        self.polls = 0
        self._base = time.monotonic_ns() - now
