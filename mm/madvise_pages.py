"""What advice does to single pages (the page walks of mm/madvise.c).

    MADV_FREE     entries become old and clean, and the pages lazily freeable: reclaim may drop them until written again
    MADV_COLD     entries become old
    MADV_PAGEOUT  the same, and then the pages are offered to reclaim (vmscan.py)

A page that others map, too, is left alone: its age is not only the caller's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import PG_ACTIVE, PG_DIRTY, PG_LRU, PG_REFERENCED, PG_SWAPBACKED, PG_UNEVICTABLE
from mm.lru import lru_add_drain
from mm.memory_cow import vm_normal_page
from mm.memory_rss import page_anon
from mm.page_rmap import thp_nr_pages
from mm.pgtable import pte_range, report_pte, walk_pmds

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, Page, VmAreaStruct


def mark_page_lazyfree(system: System, page: Page) -> None:
    """The content of an anonymous page is no longer needed: reclaim may free it instead of swapping it.

    DEVIATION D6: at once, not when a batch of 15 such pages is full.
    """
    if page.flags & (PG_LRU | PG_SWAPBACKED | PG_UNEVICTABLE) == PG_LRU | PG_SWAPBACKED and page_anon(page):
        page.flags &= ~(PG_ACTIVE | PG_REFERENCED | PG_SWAPBACKED)
        system.count_vm_event("pglazyfree", thp_nr_pages(system, page))


def madvise_free_page_range(vma: VmAreaStruct, start: int, end: int) -> None:
    """MADV_FREE on [start, end) of an anonymous area."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    lru_add_drain(mm.system)
    mm.ops.find_vma(mm, start)  # walk_page_range() looks the area up, and the cache learns it
    for first, last, pmd in walk_pmds(mm, start, end):
        entry = words[pmd]
        if arch.pmd_trans_huge(entry) and not _huge_pmd(vma, first, last, pmd, True):
            continue
        low, high = pte_range(mm, pmd, first, last)
        for index in range(low, high):
            pte = words[index]
            if not pte or not arch.pte_present(pte):
                continue
            page = vm_normal_page(mm, pte)
            if page is None:
                continue
            if page.private is not None:
                if not _split_own(mm, page):
                    break
                pte = words[index]
            if page.flags & PG_DIRTY:
                if page.mapcount != 1:
                    continue
                page.flags &= ~PG_DIRTY
            if arch.pte_young(pte) or arch.pte_dirty(pte):
                words[index] = arch.pte_mkclean(arch.pte_mkold(pte))
                mm.tlb_flush_pending = True
                if mm.system.listener is not None:
                    report_pte(mm, first + ((index - low) << arch.page_shift), pte, words[index])
            mark_page_lazyfree(mm.system, page)


def madvise_cold_page_range(vma: VmAreaStruct, start: int, end: int, pageout: bool) -> None:
    """MADV_COLD, or with `pageout` MADV_PAGEOUT, on [start, end) of an area."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    lru_add_drain(mm.system)
    mm.ops.find_vma(mm, start)  # walk_page_range() looks the area up, and the cache learns it
    for first, last, pmd in walk_pmds(mm, start, end):
        entry = words[pmd]
        if arch.pmd_trans_huge(entry) and not _huge_pmd(vma, first, last, pmd, False):
            continue
        isolated = []
        low, high = pte_range(mm, pmd, first, last)
        for index in range(low, high):
            pte = words[index]
            if not pte or not arch.pte_present(pte):
                continue
            page = vm_normal_page(mm, pte)
            if page is None:
                continue
            if page.private is not None:
                if not _split_own(mm, page):
                    break
                pte = words[index]
            if not page.flags & PG_LRU or page.mapcount != 1:
                continue
            if arch.pte_young(pte):
                words[index] = arch.pte_mkold(pte)
                mm.tlb_flush_pending = True
                if mm.system.listener is not None:
                    report_pte(mm, first + ((index - low) << arch.page_shift), pte, words[index])
            page.flags &= ~PG_REFERENCED
            if pageout:
                if not page.flags & PG_UNEVICTABLE:
                    isolated.append(page)
            else:  # deactivate_page()
                page.flags &= ~PG_ACTIVE
        if isolated:
            from mm.vmscan import reclaim_pages

            reclaim_pages(mm.system, isolated)


def _split_own(mm: MmStruct, page: Page) -> bool:
    """Split the huge page that `page`, mapped by a PTE, is part of; False when others map it, too, or hold it."""
    from mm.huge_memory import split_huge_page

    return page.mapcount == 1 and split_huge_page(mm.system, page)


def _huge_pmd(vma: VmAreaStruct, first: int, last: int, pmd: int, free: bool) -> bool:
    """Advice on a huge page; True when it was split, so that its parts are to be looked at one by one."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    entry = words[pmd]
    page = vm_normal_page(mm, entry)
    if page is None or page.mapcount != 1:
        return False
    if last - first != arch.pmd_size:
        from mm.huge_memory import split_huge_page

        return split_huge_page(mm.system, page)
    aged = arch.pte_mkclean(arch.pte_mkold(entry)) if free else arch.pte_mkold(entry)
    if aged != entry:
        words[pmd] = aged
        mm.tlb_flush_pending = True
        if mm.system.listener is not None:
            report_pte(mm, first, entry, aged)
    if free:
        page.flags &= ~PG_DIRTY
        mark_page_lazyfree(mm.system, page)
    else:
        page.flags &= ~(PG_REFERENCED | PG_ACTIVE)
    return False
