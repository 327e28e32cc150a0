"""Reclaim (mm/vmscan.c), as far as it can be asked for without memory pressure: MADV_PAGEOUT.

There is no swap, so of the pages offered

    anonymous, dirty or never advised    stay: there is nowhere to write them to
    anonymous, MADV_FREE, still clean    are unmapped and freed
    tmpfs and shared memory              are unmapped; freed when they were never written to, else they stay cached
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import MM_ANONPAGES, PG_ACTIVE, PG_DIRTY, PG_MLOCKED, PG_SWAPBACKED, PG_UNEVICTABLE, VM_LOCKED
from mm.memory_rss import mm_counter, page_anon
from mm.page_alloc import put_page
from mm.page_rmap import mlock_vma_page, page_remove_rmap, rmap_walk, set_page_dirty
from mm.pgtable import report_pte
from mm.shmem import truncate_inode_page
from mm.types import AddressSpace
from mm.util import update_hiwater_rss

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import Page


def try_to_unmap(system: System, page: Page) -> bool:
    """Clear every entry that maps the page; False where a locked area or a page written again forbids it."""
    arch = system.arch
    words = system.words
    anon = page_anon(page)
    for vma, address, index in list(rmap_walk(system, page)):
        mm = vma.vm_mm
        if vma.vm_flags & VM_LOCKED:
            mlock_vma_page(system, page)
            return False
        pte = words[index]
        if arch.pte_dirty(pte):
            set_page_dirty(page)
        if anon and page.flags & (PG_SWAPBACKED | PG_DIRTY):
            page.flags |= PG_SWAPBACKED  # written since MADV_FREE: an ordinary page again
            return False
        words[index] = 0
        if system.listener is not None:
            report_pte(mm, address, pte, 0)
        mm.tlb_flush_pending = True
        update_hiwater_rss(mm)
        mm.rss_stat[MM_ANONPAGES if anon else mm_counter(page)] -= 1
        page_remove_rmap(system, page)
        put_page(system, page)
    return page.mapcount == 0


def shrink_page(system: System, page: Page) -> bool:
    """Try to free one isolated page, on which the caller holds a reference (shrink_page_list()); True if it goes."""
    if page.flags & (PG_UNEVICTABLE | PG_MLOCKED):
        return False
    anon = page_anon(page)
    if anon and page.flags & PG_SWAPBACKED:
        return False  # no swap to add it to
    if page.mapcount and not try_to_unmap(system, page):
        return False
    if page.flags & PG_DIRTY:
        return False  # shmem_writepage() without swap
    if anon:
        freed = page.refcount == 1
        system.count_vm_event("pglazyfreed", int(freed))
        return freed
    mapping = page.mapping
    if not isinstance(mapping, AddressSpace) or page.refcount != 2 or mapping.private is None:
        return False  # not only the cache and we use it: a ring of asynchronous I/O keeps its pages
    truncate_inode_page(mapping, mapping.private, page)
    return True


def reclaim_pages(system: System, pages: list[Page]) -> int:
    """Free what can be freed of `pages`; how many were. The others become active again."""
    reclaimed = 0
    for page in reversed(pages):
        page.refcount += 1
        if shrink_page(system, page):
            reclaimed += 1
        else:
            page.flags |= PG_ACTIVE
        put_page(system, page)
    return reclaimed
