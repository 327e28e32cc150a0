"""Counters of resident pages: per address space, with the running task's share kept aside (SPLIT_RSS_COUNTING).

A fault counts into `current.rss_stat`, which sync_mm_rss() adds to `mm.rss_stat` once in TASK_RSS_EVENTS_THRESH
faults, and whenever a batch is added. What /proc shows may therefore lag by up to that many pages, as on Linux.
"""

from __future__ import annotations

from mm.flags import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, NR_MM_COUNTERS, PG_SWAPBACKED
from mm.types import AnonVma, MmStruct, Page, StableNode, TaskStruct

TASK_RSS_EVENTS_THRESH = 64


def page_anon(page: Page) -> bool:
    """PageAnon(): the page belongs to an anon_vma or to KSM, not to a file."""
    return page.mapping.__class__ is AnonVma or page.mapping.__class__ is StableNode


def page_ksm(page: Page) -> bool:
    """PageKsm(): one page for several equal ones, never written to."""
    return page.mapping.__class__ is StableNode


def mm_counter_file(page: Page) -> int:
    """Which counter a page of a file is in: shmem's or other files'."""
    return MM_SHMEMPAGES if page.flags & PG_SWAPBACKED else MM_FILEPAGES


def mm_counter(page: Page) -> int:
    """Which rss counter a mapped page is in."""
    if page.mapping.__class__ is AnonVma or page.mapping.__class__ is StableNode:
        return MM_ANONPAGES
    return MM_SHMEMPAGES if page.flags & PG_SWAPBACKED else MM_FILEPAGES


def sync_mm_rss(task: TaskStruct) -> None:
    """Add the task's own counts to its mm and clear them."""
    mm = task.mm
    if mm is not None:
        stat = task.rss_stat
        for member in range(NR_MM_COUNTERS):
            if stat[member]:
                mm.rss_stat[member] += stat[member]
                stat[member] = 0
    task.rss_events = 0


def add_mm_counter_fast(mm: MmStruct, member: int, value: int) -> None:
    """Count pages of a fault: into the current task when `mm` is its own, else into `mm`."""
    task = mm.system.current
    if task is not None and task.mm is mm:
        task.rss_stat[member] += value
    else:
        mm.rss_stat[member] += value


def add_mm_rss_vec(mm: MmStruct, rss: list[int]) -> None:
    """Count a batch: what the current task kept aside goes in first."""
    task = mm.system.current
    if task is not None and task.mm is mm:
        sync_mm_rss(task)
    stat = mm.rss_stat
    for member in range(NR_MM_COUNTERS):
        if rss[member]:
            stat[member] += rss[member]


def get_mm_rss(mm: MmStruct) -> int:
    """Resident pages as /proc counts them (the tasks' shares kept aside are not included)."""
    stat = mm.rss_stat
    return max(stat[MM_FILEPAGES], 0) + max(stat[MM_ANONPAGES], 0) + max(stat[MM_SHMEMPAGES], 0)
