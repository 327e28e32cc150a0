"""The machine's clock: virtual, so that the same program sees the same times in every run.

Time passes a little with every trap, jumps over sleeps when nobody can run, and moves with executed instructions when
the engine reports them (a preempted slice). All values are nanoseconds.
"""

from __future__ import annotations

NSEC_PER_SEC = 1_000_000_000
TICK_NSEC = NSEC_PER_SEC // 250  # CONFIG_HZ=250
TRAP_NSEC = 1_000  # what one trap is taken to cost
INSTRUCTION_NSEC = 10  # and one counted instruction: about what emulating it takes, so that alarms come when expected
WAKE_NSEC = 50_000  # from a timer's expiry until an idle CPU runs the task it wakes
EPOCH_NSEC = 1_700_000_000 * NSEC_PER_SEC  # CLOCK_REALTIME when the machine starts


class Clock:
    """CLOCK_MONOTONIC in `now`; CLOCK_REALTIME is `now + offset`."""

    __slots__ = ("now", "offset")

    def __init__(self, boot: int = NSEC_PER_SEC, epoch: int = EPOCH_NSEC) -> None:
        self.now = boot  # nanoseconds since boot
        self.offset = epoch - boot

    def realtime(self) -> int:
        """CLOCK_REALTIME: nanoseconds since 1970."""
        return self.now + self.offset

    def set_realtime(self, value: int) -> None:
        """clock_settime(CLOCK_REALTIME)."""
        self.offset = value - self.now
