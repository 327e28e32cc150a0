"""Frames declared broken (mm/memory-failure.c), as madvise(MADV_HWPOISON) and MADV_SOFT_OFFLINE do it on arm64.

A poisoned frame is never used again: every entry that maps it becomes a "hwpoison" entry, and who touches the page
gets SIGBUS. A page of a file also leaves the page cache (its content is lost). Soft-offlining moves the content to
another frame first, so nobody notices.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import (
    PG_DCACHE_CLEAN,
    PG_DIRTY,
    PG_EXEC_MAPPED,
    PG_HWPOISON,
    PG_MLOCKED,
    PG_RESERVED,
    PG_UNEVICTABLE,
    VM_LOCKED,
    VM_WRITE,
)
from mm.gup import get_user_pages
from mm.huge_memory import split_huge_page
from mm.memory_rss import mm_counter, page_ksm
from mm.page_alloc import alloc_page, copy_page, put_page
from mm.page_rmap import mlock_vma_page, page_remove_rmap, rmap_walk
from mm.pgtable import report_pte
from mm.types import AddressSpace, MmStruct, Page

if TYPE_CHECKING:
    from mm.system import System

SWP_HWPOISON = 29  # MAX_SWAPFILES with migration and memory failure built in


def is_hwpoison_entry(mm: MmStruct, pte: int) -> bool:
    """The entry stands for a poisoned page."""
    return bool(pte) and not mm.arch.pte_present(pte) and mm.arch.pte_to_swp_entry(pte)[0] == SWP_HWPOISON


def _get_page(mm: MmStruct, address: int) -> tuple[Page, int]:
    """The page at `address`, referenced, and the size of what it is part of. Raises Errno(EFAULT)."""
    pages: list[Page] = []
    get_user_pages(mm, address, 1, 0, pages)
    if not pages:
        raise Errno(errno.EFAULT)
    page = pages[0]
    return page, mm.arch.pmd_size if page.private is not None else mm.arch.page_size


def _split(system: System, page: Page) -> None:
    """A part of a huge page becomes a page of its own. Raises Errno(EBUSY); the caller's reference goes then."""
    if page.private is not None:
        page.refcount -= 1
        if not split_huge_page(system, page):
            page.refcount += 1
            put_page(system, page)
            raise Errno(errno.EBUSY)
        page.refcount += 1


def memory_failure(mm: MmStruct, address: int) -> int:
    """Poison the page at `address`; how many bytes to go on by. Raises Errno EFAULT or EBUSY."""
    system = mm.system
    page, size = _get_page(mm, address)
    if page.flags & PG_HWPOISON:
        put_page(system, page)
        return size
    if page.flags & PG_RESERVED:
        page.flags |= PG_HWPOISON  # nothing can be done about it, but it is known from now on
        page.refcount -= 1
        raise Errno(errno.EBUSY)
    _split(system, page)
    page.flags |= PG_HWPOISON
    if page_ksm(page):  # hwpoison_user_mappings() can not handle it: it stays where it is
        raise Errno(errno.EBUSY)
    entry = system.arch.swp_entry_to_pte(SWP_HWPOISON, page.pfn)
    for vma, vma_address, index in list(rmap_walk(system, page)):
        owner = vma.vm_mm
        owner.rss_stat[mm_counter(page)] -= 1
        if system.listener is not None:
            report_pte(owner, vma_address, system.words[index], entry)
        system.words[index] = entry
        owner.tlb_flush_pending = True
        page_remove_rmap(system, page)
        put_page(system, page)
    mapping = page.mapping
    if isinstance(mapping, AddressSpace):
        if mapping.private is None:  # a ring of asynchronous I/O does not give up its pages
            raise Errno(errno.EBUSY)
        from mm.shmem import truncate_inode_page

        truncate_inode_page(mapping, mapping.private, page)
    page.mapping = None
    return size  # the reference taken above stays: the frame is lost


def soft_offline_page(mm: MmStruct, address: int) -> int:
    """Move the page at `address` to another frame and retire its own; how many bytes to go on by.

    Raises Errno EFAULT, or EBUSY when the page can not be moved.
    """
    system = mm.system
    page, size = _get_page(mm, address)
    if page.flags & PG_HWPOISON:
        put_page(system, page)
        return size
    if page.flags & PG_RESERVED or page.mapping is None:
        page.refcount -= 1
        raise Errno(errno.EBUSY)
    _split(system, page)
    _migrate_page(system, page)
    page.flags |= PG_HWPOISON
    page.mapping = None
    return size


def _migrate_page(system: System, page: Page) -> None:
    """migrate_page(): a new frame takes over content, place in the cache and entries. Raises Errno(EBUSY)."""
    arch = system.arch
    cached = isinstance(page.mapping, AddressSpace)
    new = alloc_page(system, False) if page.refcount == page.mapcount + cached + 1 else None
    if new is None:
        put_page(system, page)
        raise Errno(errno.EBUSY)
    copy_page(system, new, page)
    new.flags = page.flags & ~(PG_DCACHE_CLEAN | PG_EXEC_MAPPED | PG_MLOCKED | PG_UNEVICTABLE)
    new.index = page.index
    new.mapping = page.mapping
    mappings = list(rmap_walk(system, page))
    for vma, vma_address, index in mappings:
        pte = system.words[index]
        entry = arch.pte_mkold(arch.mk_pte(new.pfn, vma.vm_page_prot))
        if arch.pte_dirty(pte):
            new.flags |= PG_DIRTY
        if arch.pte_soft_dirty(pte):
            entry = arch.pte_mksoft_dirty(entry)
        if arch.pte_write(pte) and vma.vm_flags & VM_WRITE:
            entry = arch.pte_mkwrite(entry)
        arch.sync_icache(vma.vm_mm, new, vma_address, entry)
        system.words[index] = entry
        if system.listener is not None:
            report_pte(vma.vm_mm, vma_address, pte, entry)
        vma.vm_mm.tlb_flush_pending = True
        new.mapcount += 1
        new.refcount += 1
        page_remove_rmap(system, page)
        page.refcount -= 1
    if page_ksm(page):
        from mm.ksm import ksm_migrate_page

        ksm_migrate_page(new, page)
    if isinstance(page.mapping, AddressSpace):
        page.mapping.pages[page.index] = new
        page.refcount -= 1
    else:
        new.refcount -= 1  # an anonymous page is held by its entries alone
    if any(vma.vm_flags & VM_LOCKED for vma, _, _ in mappings):
        mlock_vma_page(system, new)
