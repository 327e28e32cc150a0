"""ksmd: the kernel thread that lets mm/ksm_scan.py look for equal pages (ksm_scan_thread() of mm/ksm.c).

It sleeps `sleep_millisecs`, scans `pages_to_scan` pages, and so on, all on the machine's clock: the same run merges the
same pages at the same moments. While nothing is to be done there is no timer, and nobody pays for it. A page costs
SCAN_NSEC. ksmd has nice 5, so a task that computes gets three times as long between two parts of a batch; a part is
PART pages, so that nobody waits for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.clock import TICK_NSEC

if TYPE_CHECKING:
    from guest.kernel import Kernel

SCAN_NSEC = 2_000  # what looking at a page is taken to cost
PART = 1_000  # pages at a time
SHARE = 3  # a computing task's time for each of ksmd's: the weights of nice 0 and nice 5


class Ksmd:
    """The thread, as long as it has something to do."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.eager = False  # even with nobody else about it keeps its pace
        self.expires = 0  # CLOCK_MONOTONIC ns: when it runs next

    def fire(self) -> None:
        """Its time has come: the next part of a batch, then sleep."""
        kernel = self.kernel
        ksm = kernel.system.ksm
        if not (ksm.left or ksm.should_run()):
            kernel.timers.daemons.remove(self)
            return
        from mm.ksm_scan import ksm_do_scan

        ksm.jiffies = kernel.jiffies64()
        if not ksm.left:
            ksm.left = ksm.pages_to_scan
        cost = max(ksm_do_scan(ksm, min(ksm.left, PART)), 1) * SCAN_NSEC
        kernel.clock.now += cost
        now = kernel.clock.now
        self.expires = now + SHARE * cost
        if not ksm.left:
            # schedule_timeout(): whole ticks, one more than asked for since the first may be over at once
            ticks = -(-ksm.sleep_millisecs * kernel.hz // 1000) + 1
            self.expires = max(self.expires, (now // TICK_NSEC + ticks) * TICK_NSEC)
        if kernel.system.validate_level > 1:
            from mm.validate_pages import validate_system

            validate_system(kernel.system, kernel.tasks.values())


def wake_ksmd(kernel: Kernel, now: bool = False) -> None:
    """Something may have changed for ksmd: it begins soon, when there is work and it has not begun.

    `now`: it does not sleep on, should it sleep.
    """
    timers = kernel.timers
    ksmd = next((daemon for daemon in timers.daemons if isinstance(daemon, Ksmd)), None)
    if ksmd is None:
        if not kernel.system.ksm.should_run():
            return
        ksmd = Ksmd(kernel)
        timers.daemons.append(ksmd)
        now = True
    if now:
        ksmd.expires = min(ksmd.expires or _soon(kernel), _soon(kernel))
        timers.recompute()


def _soon(kernel: Kernel) -> int:
    """The next tick, ns: whoever wakes ksmd runs on until then, or sleeps."""
    return (kernel.clock.now // TICK_NSEC + 1) * TICK_NSEC
