"""The kernel reaching into user pages without an access of the CPU (mm/gup.c): populate, mlock, ptrace-like access.

`populate_vma_page_range` makes the pages of a range present as a write or read of the owner would; in a locked area it
also marks them mlocked.
"""

from __future__ import annotations

import errno
from array import array
from typing import TYPE_CHECKING

from mm.errors import Errno, MustSleep
from mm.flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_KILLABLE,
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_WRITE,
    VM_ACCESS_FLAGS,
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_WRITE,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYREAD,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WRITE,
)
from mm.lru import lru_add_drain, mark_page_accessed
from mm.memory_fork import is_cow_mapping
from mm.memory_rss import TASK_RSS_EVENTS_THRESH, page_anon, sync_mm_rss
from mm.page_rmap import mlock_vma_page, set_page_dirty
from mm.pgtable import pmd_offset, pte_offset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mm.types import MmStruct, Page, VmAreaStruct

FOLL_WRITE = 0x01
FOLL_TOUCH = 0x02
FOLL_FORCE = 0x10
FOLL_POPULATE = 0x40
FOLL_MLOCK = 0x1000
FOLL_REMOTE = 0x2000
FOLL_COW = 0x4000
FOLL_NUMA = 0x200


def check_vma_flags(vma: VmAreaStruct, gup_flags: int) -> bool:
    """The area may be reached this way."""
    vm_flags = vma.vm_flags
    if vm_flags & (VM_IO | VM_PFNMAP):
        return False
    if gup_flags & FOLL_WRITE:
        if not vm_flags & VM_WRITE:
            return bool(gup_flags & FOLL_FORCE) and is_cow_mapping(vm_flags)
    elif not vm_flags & VM_READ:
        return bool(gup_flags & FOLL_FORCE and vm_flags & VM_MAYREAD)
    return True


def can_follow_write_pte(mm: MmStruct, pte: int, flags: int) -> bool:
    """The entry is writable, or a forced write has already broken COW."""
    arch = mm.arch
    if pte & arch.PTE_WRITE:
        return True
    if not flags & FOLL_FORCE or not flags & FOLL_COW or pte & arch.PTE_SPECIAL:
        return False
    page = mm.system.mem_map[arch.pte_pfn(pte)]
    return page is not None and page_anon(page) and arch.pte_dirty(pte)


def follow_page(vma: VmAreaStruct, address: int, flags: int) -> Page | None:
    """The page mapped at `address`, if the entry suits `flags`; None: a fault is needed.

    A raw frame counts as its `Page` (the zero page has one); mlocks the page with FOLL_MLOCK in a locked area.
    """
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    index = pte_offset(mm, address)
    huge = False
    if index < 0:
        index = pmd_offset(mm, address)
        huge = index >= 0
    pte = system.words[index] if index >= 0 else 0
    if not pte or not arch.pte_present(pte):
        return None
    if flags & FOLL_NUMA and arch.pte_protnone(pte):
        return None
    if flags & FOLL_WRITE and not can_follow_write_pte(mm, pte, flags):
        return None
    pfn = arch.pte_pfn(pte)
    page = system.mem_map[pfn]
    if page is None:
        return None
    if flags & FOLL_TOUCH and flags & FOLL_WRITE and not arch.pte_dirty(pte):
        set_page_dirty(page)
    if flags & FOLL_TOUCH and not huge:
        mark_page_accessed(page)
    if flags & FOLL_MLOCK and vma.vm_flags & VM_LOCKED and page.mapping is not None:
        # Of a huge page only one that is mapped whole, and nowhere else, is marked.
        if page.private is None or (huge and page.mapcount == 1):
            lru_add_drain(system)
            mlock_vma_page(system, page)
    if huge:
        return system.mem_map[pfn + ((address & ~arch.pmd_mask) >> arch.page_shift)]
    return page


def get_user_pages(
    mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[Page] | None = None, locked: bool = True
) -> int:
    """Make `nr_pages` pages from `start` present; how many were reached, at least one.

    With `pages` the page structs are appended there, referenced. `locked`: the mmap lock may be given up on the way, so
    that a fault may be cut short (and then is not counted; the page is found present). Raises Errno EFAULT or ENOMEM
    when not even the first could be reached.
    """
    from mm.stack import find_extend_vma

    page_size = mm.arch.page_size
    if not gup_flags & FOLL_FORCE:
        gup_flags |= FOLL_NUMA
    done = 0
    task = mm.system.current
    vma: VmAreaStruct | None = None
    while done < nr_pages:
        if vma is None or start >= vma.vm_end:
            vma = find_extend_vma(mm, start)
            if vma is None or not check_vma_flags(vma, gup_flags):
                if done:
                    return done
                raise Errno(errno.EFAULT)
        if vma.vm_flags & VM_HUGETLB:
            wanted = min(nr_pages - done, (vma.vm_end - start) // page_size)
            try:
                reached = _follow_hugetlb(vma, start, wanted, gup_flags, pages)
            except Errno:
                if done:
                    return done
                raise
            done += reached
            start += reached * page_size
            if reached < wanted:
                return done
            continue
        if task is not None and task.fatal_signal_pending():  # killed (out of memory, perhaps): no use going on
            if done:
                return done
            raise Errno(errno.EINTR)
        flags = gup_flags
        page = follow_page(vma, start, flags)
        while page is None:
            if flags & (FOLL_POPULATE | FOLL_MLOCK) == FOLL_MLOCK:  # only what is present already
                break
            try:
                flags = faultin_page(vma, start, flags, locked)
            except Errno:
                if done:
                    return done
                raise
            except MustSleep:
                for held in pages[len(pages) - done :] if pages is not None and done else ():
                    held.refcount -= 1
                raise
            page = follow_page(vma, start, flags)
        if pages is not None and page is not None:
            page.refcount += 1
            pages.append(page)
        done += 1
        start += page_size
    return done


def _follow_hugetlb(vma: VmAreaStruct, start: int, count: int, flags: int, pages: list[Page] | None) -> int:
    """follow_hugetlb_page(), from a module that only programs with such areas need."""
    from mm.hugetlb import follow_hugetlb_page

    return follow_hugetlb_page(vma, start, count, bool(flags & FOLL_WRITE), pages)


def faultin_page(vma: VmAreaStruct, address: int, flags: int, locked: bool) -> int:
    """Fault a page in; the FOLL flags to go on with. Raises Errno ENOMEM or EFAULT."""
    fault_flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE if locked else 0
    if flags & FOLL_WRITE:
        fault_flags |= FAULT_FLAG_WRITE
    if flags & FOLL_REMOTE:
        fault_flags |= FAULT_FLAG_REMOTE
    fault = vma.vm_mm.ops.handle_mm_fault(vma, address, fault_flags)
    if fault & VM_FAULT_ERROR:
        raise Errno(errno.ENOMEM if fault & VM_FAULT_OOM else errno.EFAULT)
    if fault & VM_FAULT_RETRY and vma.vm_mm.system.fault_result == "userfault":
        raise MustSleep
    if fault & VM_FAULT_WRITE and not vma.vm_flags & VM_WRITE:
        flags |= FOLL_COW
    return flags


def populate_vma_page_range(vma: VmAreaStruct, start: int, end: int, ignore_errors: bool = False) -> int:
    """Make [start, end) of `vma` present; how many pages. Raises Errno when none could be, unless ignored."""
    mm = vma.vm_mm
    gup_flags = FOLL_TOUCH | FOLL_POPULATE | FOLL_MLOCK
    if vma.vm_flags & VM_LOCKONFAULT:
        gup_flags &= ~FOLL_POPULATE
    if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        gup_flags |= FOLL_WRITE  # break COW now; a shared mapping has none
    if vma.vm_flags & VM_ACCESS_FLAGS:
        gup_flags |= FOLL_FORCE
    if start >= end:
        return 0
    try:
        return get_user_pages(mm, start, (end - start) >> mm.arch.page_shift, gup_flags)
    except Errno:
        if not ignore_errors:
            raise
        return 0


_NO_ZERO_PAGES = VM_SHARED | VM_LOCKONFAULT | VM_UFFD_MISSING | VM_HUGETLB | VM_HUGEPAGE


def populate_zero_pages(vma: VmAreaStruct, start: int, nr_pages: int) -> int:
    """Map the zero page at once over what of [start, start + nr_pages) one PTE table serves; how many pages, or 0.

    What so many read faults of an anonymous area would do one by one, where the rest of the table is empty. Terabytes
    can be populated so before the tables fill all memory.
    """
    mm = vma.vm_mm
    arch, system, task = mm.arch, mm.system, mm.system.current
    if vma.vm_ops is not None or vma.vm_flags & (VM_WRITE | _NO_ZERO_PAGES) or not vma.vm_flags & VM_READ:
        return 0
    index = pte_offset(mm, start)
    count = min(nr_pages, arch.ptrs_per_pte - (start >> arch.page_shift & arch.index_mask))
    if (
        index < 0
        or task is None
        or task.fatal_signal_pending()
        or system.listener is not None
        or any(system.words[index : index + count].tolist())
    ):
        return 0
    entry = arch.mk_pte(system.zero_pfn, vma.vm_page_prot) | arch.PTE_SPECIAL
    system.words[index : index + count] = array("Q", [entry]) * count
    system.pgfault += count
    task.min_flt += count
    events = task.rss_events + count  # check_sync_rss_stat() at each fault
    if events > TASK_RSS_EVENTS_THRESH + 1:
        sync_mm_rss(task)
        events %= TASK_RSS_EVENTS_THRESH + 2
    task.rss_events = events
    system.fault_result = "anon-zero"
    return count


def __mm_populate(mm: MmStruct, start: int, length: int, ignore_errors: bool) -> None:
    """Populate the mapped parts of [start, start + length). Raises Errno for the first failure unless ignored."""
    end = start + length
    page_shift = mm.arch.page_shift
    nstart = start
    vma: VmAreaStruct | None = mm.ops.find_vma(mm, nstart)
    looked_up: VmAreaStruct | None = None  # get_user_pages() looks each area up, which the vmacache remembers
    while nstart < end:
        if vma is not None and nstart >= vma.vm_end:
            vma = vma.vm_next
        if vma is None or vma.vm_start >= end:
            break
        nend = min(end, vma.vm_end)
        if not vma.vm_flags & (VM_IO | VM_PFNMAP):
            nstart = max(nstart, vma.vm_start)
            zeroes = populate_zero_pages(vma, nstart, (nend - nstart) >> page_shift)
            if zeroes:
                if looked_up is not vma:
                    mm.ops.find_vma(mm, nstart)
                    looked_up = vma
                nstart += zeroes << page_shift
                continue
            upto = nend
            if vma.vm_ops is None and not vma.vm_flags & (VM_WRITE | _NO_ZERO_PAGES):
                upto = nstart + mm.arch.page_size  # one fault makes the table that the zero pages need
            looked_up = vma
            try:
                nend = nstart + (populate_vma_page_range(vma, nstart, upto) << page_shift)
            except Errno:
                if not ignore_errors:
                    raise
        nstart = nend


def mm_populate(mm: MmStruct, start: int, length: int) -> None:
    """Populate a range, whatever fails (MAP_POPULATE, mlockall)."""
    __mm_populate(mm, start, length, True)


def access_remote_vm(mm: MmStruct, address: int, data: bytes | int, gup_flags: int = FOLL_FORCE) -> Sequence[int]:
    """Read or write another process's memory as ptrace does (__access_remote_vm).

    Args:
        data: how many bytes to read, or the bytes to write.
        gup_flags: FOLL_FORCE reaches read-only and unreadable pages too.

    Returns what was read, or as many bytes of `data` as were written.
    """
    system = mm.system
    size = system.page_size
    write = isinstance(data, bytes)
    total = len(data) if isinstance(data, bytes) else data
    result = bytearray()
    done = 0
    while done < total:
        offset = (address + done) % size
        length = min(size - offset, total - done)
        pages: list[Page] = []
        try:
            get_user_pages(
                mm,
                address + done - offset,
                1,
                gup_flags | FOLL_REMOTE | FOLL_TOUCH | (FOLL_WRITE if write else 0),
                pages,
                locked=False,
            )
        except Errno:
            break
        start = pages[0].pfn * size + offset
        if isinstance(data, bytes):
            from mm.filemap import flush_dcache_page

            system.ram[start : start + length] = data[done : done + length]
            flush_dcache_page(system, pages[0])
            set_page_dirty(pages[0])
        else:
            result += system.ram[start : start + length]
        pages[0].refcount -= 1
        done += length
    return data[:done] if isinstance(data, bytes) else bytes(result)
