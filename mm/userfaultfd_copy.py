"""Filling the pages of a userfaultfd's areas (mm/userfaultfd.c): UFFDIO_COPY, ZEROPAGE and WRITEPROTECT.

All work page by page and stop at the first that fails: an entry that is there already (EEXIST) is never replaced, so
that two threads can serve the same fault.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, MustSleep
from mm.filemap import add_to_page_cache, flush_dcache_page
from mm.flags import (
    MM_ANONPAGES,
    PG_DIRTY,
    PG_LRU,
    PG_SWAPBACKED,
    PG_UPTODATE,
    VM_SHARED,
    VM_UFFD_WP,
    VM_WRITE,
)
from mm.memory_protect import MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE, change_protection
from mm.memory_rss import add_mm_counter_fast, mm_counter_file
from mm.page_alloc import alloc_page, put_page
from mm.page_rmap import linear_page_index, page_add_file_rmap, page_add_new_anon_rmap
from mm.pgtable import pmd_alloc, pte_alloc_map, pte_offset, report_pte
from mm.rmap import anon_vma_prepare
from mm.shmem import shmem_inode_acct_block
from mm.uaccess import access_ok, copy_from_user
from mm.userfaultfd import UserfaultfdCtx, vma_is_shmem

if TYPE_CHECKING:
    from mm.types import MmStruct, Page, TaskStruct, VmAreaStruct


def find_dst_vma(mm: MmStruct, start: int, length: int) -> VmAreaStruct:
    """The registered area that holds all of [start, start + length). Raises Errno(ENOENT)."""
    vma: VmAreaStruct | None = mm.ops.find_vma(mm, start)
    if vma is None or start < vma.vm_start or start + length > vma.vm_end or vma.vm_userfaultfd_ctx is None:
        raise Errno(errno.ENOENT)
    return vma


def copy_from_user_nofault(task: TaskStruct, address: int, size: int) -> bytes | None:
    """`size` bytes if all their pages are mapped readable; None when a fault would be needed."""
    mm = task.mm
    if mm is None or not access_ok(task, address, size):
        return None
    arch = mm.arch
    parts = []
    while size:
        index = pte_offset(mm, address)
        pte = mm.system.words[index] if index >= 0 else 0
        if pte & arch.UACCESS_READ_MASK != arch.UACCESS_READ_VALUE:
            return None
        mm.system.words[index] = pte | arch.UACCESS_READ_SET
        offset = address & (arch.page_size - 1)
        length = min(arch.page_size - offset, size)
        start = (arch.pte_pfn(pte) << arch.page_shift) + offset
        parts.append(bytes(mm.system.ram[start : start + length]))
        address += length
        size -= length
    return b"".join(parts)


def mcopy_atomic(
    ctx: UserfaultfdCtx, dst: int, src: int | None, length: int, wp: bool, task: TaskStruct, state: dict[str, Any]
) -> int:
    """Fill the missing pages of [dst, dst + length) with bytes from `src` of `task`, or (None) with zeroes.

    Args:
        wp: write-protect them (UFFDIO_COPY_MODE_WP).
        state: keeps how far this got, for when the call is made again because `src` itself had to be waited for.

    Returns how many bytes were filled: at least a page.

    Raises Errno: EAGAIN while the mappings change, ENOENT (not one registered area), EINVAL, ENOMEM, EEXIST (is there
    already), EFAULT (`src`, or beyond the end of the file); MustSleep.
    """
    mm = ctx.mm
    size = mm.arch.page_size
    copied: int = state.get("copied", 0)
    page: Page | None = None
    vma: VmAreaStruct | None = None
    try:
        while copied < length:
            if vma is None:
                vma = _checked_area(ctx, dst, length, wp)
            address = dst + copied
            if _pte_table_refused(mm, address):
                raise Errno(errno.EEXIST)
            if page is None and (src is not None or vma.vm_flags & VM_SHARED):
                page = _new_page(vma)
                if src is None:
                    mm.system.ram[page.pfn * size : (page.pfn + 1) * size] = mm.system.zeroes
                else:
                    data = copy_from_user_nofault(task, src + copied, size)
                    fault = data is None
                    if data is None:  # out of the lock, with faults; then everything is looked up again
                        data = copy_from_user(task, src + copied, size)
                    mm.system.ram[page.pfn * size : (page.pfn + 1) * size] = data
                    flush_dcache_page(mm.system, page)
                    if fault:
                        vma = None
                        continue
            _fill(vma, address, page, wp)
            page = None
            copied += size
            if task.fatal_signal_pending():
                raise Errno(errno.EINTR)
    except Errno:
        if not copied:
            raise
    except MustSleep:
        state["copied"] = copied
        raise
    finally:
        if page is not None:
            put_page(mm.system, page)
    return copied


def _checked_area(ctx: UserfaultfdCtx, dst: int, length: int, wp: bool) -> VmAreaStruct:
    """The area to fill, looked up and made ready. Raises Errno."""
    if ctx.mmap_changing:
        raise Errno(errno.EAGAIN)
    vma = find_dst_vma(ctx.mm, dst, length)
    if wp and not vma.vm_flags & VM_UFFD_WP:
        raise Errno(errno.EINVAL)
    if vma.vm_ops is not None and not vma_is_shmem(vma):
        raise Errno(errno.EINVAL)
    if not vma.vm_flags & VM_SHARED:
        anon_vma_prepare(vma)
    return vma


def _pte_table_refused(mm: MmStruct, address: int) -> bool:
    """There is a huge page at `address`; otherwise its PTE table is made. Raises Errno(ENOMEM)."""
    pmd = pmd_alloc(mm, address)
    if pmd < 0:
        raise Errno(errno.ENOMEM)
    entry = mm.system.words[pmd]
    if entry and mm.arch.pmd_trans_huge(entry):
        return True
    if not entry and pte_alloc_map(mm, address) < 0:
        raise Errno(errno.ENOMEM)
    return False


def _new_page(vma: VmAreaStruct) -> Page:
    """A frame for the area. Raises Errno(ENOMEM)."""
    page = alloc_page(vma.vm_mm.system, False)
    if page is None:
        raise Errno(errno.ENOMEM)
    return page


def _fill(vma: VmAreaStruct, address: int, page: Page | None, wp: bool) -> None:
    """Map `page` (None: the zero page) at `address`; takes over the reference. Raises Errno EFAULT, EEXIST."""
    mm = vma.vm_mm
    arch = mm.arch
    shared = vma.vm_flags & VM_SHARED
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    index = linear_page_index(vma, address)
    if mapping is not None and index >= (mapping.i_size + arch.page_size - 1) >> arch.page_shift:
        raise Errno(errno.EFAULT)
    place = pte_offset(mm, address)
    if shared and mapping is not None and mapping.a_ops.find_page(mapping, index) is not None:
        raise Errno(errno.EEXIST)
    if mm.system.words[place]:
        raise Errno(errno.EEXIST)
    if page is None:
        entry = arch.mk_pte(mm.system.zero_pfn, vma.vm_page_prot) | arch.PTE_SPECIAL
    else:
        page.flags |= PG_UPTODATE
        entry = arch.mk_pte(page.pfn, vma.vm_page_prot)
        if shared:
            entry = _add_shared(vma, page, index, entry)
        else:
            entry = arch.pte_mkdirty(entry)
            if vma.vm_flags & VM_WRITE:
                entry = entry | arch.PTE_UFFD_WP if wp else arch.pte_mkwrite(entry)
            add_mm_counter_fast(mm, MM_ANONPAGES, 1)
            page_add_new_anon_rmap(page, vma, address)
        arch.sync_icache(mm, page, address, entry)
    mm.system.words[place] = entry
    if mm.system.listener is not None:
        report_pte(mm, address, 0, entry)


def _add_shared(vma: VmAreaStruct, page: Page, index: int, entry: int) -> int:
    """shmem_mfill_atomic_pte(): the page becomes the file's; the entry to map it with."""
    mm = vma.vm_mm
    mapping = vma.vm_file.f_mapping  # type: ignore[union-attr]
    try:
        shmem_inode_acct_block(mapping.private)
    except Errno:
        raise Errno(errno.ENOMEM) from None
    page.flags |= PG_SWAPBACKED | PG_LRU
    add_to_page_cache(mapping, page, index)
    page.refcount += 1  # the entry's
    mm.system.nr_shmem += 1
    if vma.vm_flags & VM_WRITE:
        entry = mm.arch.pte_mkwrite(mm.arch.pte_mkdirty(entry))
    else:
        page.flags |= PG_DIRTY
    add_mm_counter_fast(mm, mm_counter_file(page), 1)
    page_add_file_rmap(page)
    return entry


def mwriteprotect_range(ctx: UserfaultfdCtx, start: int, length: int, enable: bool) -> None:
    """Write-protect the present pages of [start, start + length), or (not `enable`) let the next write be an ordinary
    fault. Raises Errno: EAGAIN while the mappings change, ENOENT (not one area, anonymous and registered for this).
    """
    if ctx.mmap_changing:
        raise Errno(errno.EAGAIN)
    mm = ctx.mm
    vma = find_dst_vma(mm, start, length)
    if vma.vm_flags & VM_SHARED or not vma.vm_flags & VM_UFFD_WP or vma.vm_ops is not None:
        raise Errno(errno.ENOENT)
    prot = mm.arch.vm_get_page_prot(vma.vm_flags & ~VM_WRITE if enable else vma.vm_flags)
    change_protection(vma, start, start + length, prot, MM_CP_UFFD_WP if enable else MM_CP_UFFD_WP_RESOLVE)
