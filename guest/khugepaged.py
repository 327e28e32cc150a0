"""khugepaged, the kernel thread: when mm/khugepaged.py's scan runs on the virtual clock (khugepaged_wait_work()).

It begins soon after the first address space asks for huge pages, and comes again every `scan_sleep_millisecs`. It has
nice 19: a task that computes gets 68 times as long between two scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.clock import TICK_NSEC

if TYPE_CHECKING:
    from guest.kernel import Kernel

PAGE_NSEC = 10  # looking at an entry
COLLAPSE_NSEC = 200_000  # copying 2 MiB
SHARE = 68  # the weights of nice 0 and nice 19
FIRST_NSEC = 20_000_000  # until a thread of nice 19 gets the CPU from a task that computes


class KhugepagedThread:
    """The thread, as long as there is work."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.expires = kernel.clock.now + FIRST_NSEC  # CLOCK_MONOTONIC ns: when it runs next
        self.eager = True  # it would run now, had nobody else something to do
        self.scan: Any = None  # a Scan that waits for a huge page

    def fire(self) -> None:
        """Its time has come: a scan, then sleep."""
        kernel = self.kernel
        state = kernel.system.khugepaged
        self.eager = False
        if not state.has_work():
            kernel.timers.daemons.remove(self)
            state.mm = None
            return
        from mm.khugepaged import Scan

        scan = self.scan or Scan(state)
        before = scan.progress, state.pages_collapsed
        complete = scan.run()
        cost = (scan.progress - before[0]) * PAGE_NSEC + (state.pages_collapsed - before[1]) * COLLAPSE_NSEC
        kernel.clock.now += cost
        milliseconds = state.scan_sleep_millisecs
        self.scan = None
        if not complete and not scan.failed:
            scan.failed = True
            self.scan = scan
            milliseconds = state.alloc_sleep_millisecs
        now = kernel.clock.now
        ticks = -(-milliseconds * kernel.hz // 1000) + 1
        self.expires = max((now // TICK_NSEC + ticks) * TICK_NSEC, now + SHARE * cost)
        if kernel.system.validate_level > 1:
            from mm.validate_pages import validate_system

            validate_system(kernel.system, kernel.tasks.values())


def wake_khugepaged(kernel: Kernel, now: bool = False) -> None:
    """There may be work: the thread begins, if it has not. `now`: it does not sleep on, should it sleep."""
    timers = kernel.timers
    thread = next((daemon for daemon in timers.daemons if isinstance(daemon, KhugepagedThread)), None)
    if thread is None:
        if kernel.system.khugepaged is None or not kernel.system.khugepaged.has_work():
            return
        timers.daemons.append(KhugepagedThread(kernel))
    elif now:
        thread.expires = min(thread.expires, kernel.clock.now + FIRST_NSEC)
        thread.eager = True
    timers.recompute()
