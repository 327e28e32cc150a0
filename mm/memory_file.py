"""First touch of a page of a file mapping, shared memory or special mapping (do_fault and its parts in mm/memory.c).

    read                    do_read_fault    what is cached nearby is mapped along (do_fault_around)
    write, private mapping  do_cow_fault     a copy, which is an anonymous page from then on
    write, shared mapping   do_shared_fault  the file's own page, dirty

`vma.vm_ops.fault(vmf)` finds the page and leaves it in `vmf.page` with a reference that the new entry takes over.
"""

from __future__ import annotations

from mm.errors import KernelBug
from mm.flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_MKWRITE,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    PG_UPTODATE,
    VM_FAULT_DONE_COW,
    VM_FAULT_ERROR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_SHARED,
    VM_WRITE,
)
from mm.memory_rss import add_mm_counter_fast, mm_counter_file
from mm.page_alloc import alloc_page, copy_page, put_page
from mm.page_rmap import page_add_file_rmap, page_add_new_anon_rmap, set_page_dirty
from mm.pgtable import pte_alloc_map, report_pte
from mm.rmap import anon_vma_prepare
from mm.types import MmStruct, Page, VmAreaStruct, VmFault

FAILED = VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY


def do_fault(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int) -> int:
    """Serve a fault on an empty entry of an area with vm_ops; `index` is -1 while there is no PTE table."""
    arch = mm.arch
    vmf = VmFault(vma, address & arch.page_mask, flags, ((address - vma.vm_start) >> arch.page_shift) + vma.vm_pgoff)
    vmf.real_address = address
    vmf.pte = index
    if vma.vm_ops is None or vma.vm_ops.fault is None:
        return VM_FAULT_SIGBUS
    if not flags & FAULT_FLAG_WRITE:
        return do_read_fault(vmf)
    if not vma.vm_flags & VM_SHARED:
        return do_cow_fault(vmf)
    return do_shared_fault(vmf)


def do_fault_around(vmf: VmFault) -> int:
    """Map what is cached in the aligned window of fault_around_bytes; VM_FAULT_NOPAGE when that solved the fault."""
    vma = vmf.vma
    arch = vma.vm_mm.arch
    system = vma.vm_mm.system
    page_shift = arch.page_shift
    address = vmf.address
    nr_pages = system.fault_around_bytes >> page_shift
    start = max(address & ~((nr_pages << page_shift) - 1), vma.vm_start)
    start_pgoff = vmf.pgoff - ((address - start) >> page_shift)
    in_table = start >> page_shift & arch.index_mask
    end_pgoff = min(
        start_pgoff - in_table + arch.ptrs_per_pte - 1,  # end of the PTE table
        ((vma.vm_end - vma.vm_start) >> page_shift) + vma.vm_pgoff - 1,
        start_pgoff + nr_pages - 1,
    )
    distance = (address - start) >> page_shift
    vmf.address = start
    if vmf.pte >= 0:
        vmf.pte -= distance
    vma.vm_ops.map_pages(vmf, start_pgoff, end_pgoff)  # type: ignore[union-attr,misc]
    vmf.address = address
    if vmf.pte < 0:  # nothing was cached
        return 0
    vmf.pte += distance
    return VM_FAULT_NOPAGE if system.words[vmf.pte] else 0


def do_read_fault(vmf: VmFault) -> int:
    """Read, or first write of the kernel's kind that only needs the page mapped."""
    vma = vmf.vma
    ops = vma.vm_ops
    mm = vma.vm_mm
    if ops is None or ops.fault is None:
        return VM_FAULT_SIGBUS
    mm.system.fault_result = "file-read"
    if ops.map_pages is not None and mm.system.fault_around_bytes >> mm.arch.page_shift > 1:
        fault = do_fault_around(vmf)
        if fault:
            return fault
    fault = ops.fault(vmf)
    if fault & (FAILED | VM_FAULT_DONE_COW):
        return fault
    page = _faulted_page(vmf)
    result = finish_fault(vmf, page)
    if result & FAILED:
        put_page(mm.system, page)
    return fault | result


def do_cow_fault(vmf: VmFault) -> int:
    """Write to a private mapping: copy the file's page at once."""
    vma = vmf.vma
    system = vma.vm_mm.system
    anon_vma_prepare(vma)
    cow_page = alloc_page(system, False)
    if cow_page is None:
        return VM_FAULT_OOM
    vmf.cow_page = cow_page
    fault = vma.vm_ops.fault(vmf)  # type: ignore[union-attr,misc]
    if fault & FAILED:
        put_page(system, cow_page)
        return fault
    if fault & VM_FAULT_DONE_COW:
        return fault
    page = _faulted_page(vmf)
    copy_page(system, cow_page, page)
    cow_page.flags |= PG_UPTODATE
    system.fault_result = "file-cow"
    result = finish_fault(vmf, cow_page)
    put_page(system, page)
    if result & FAILED:
        put_page(system, cow_page)
    return fault | result


def do_shared_fault(vmf: VmFault) -> int:
    """Write to a shared mapping: map the file's page and dirty it."""
    vma = vmf.vma
    system = vma.vm_mm.system
    ops = vma.vm_ops
    fault = ops.fault(vmf)  # type: ignore[union-attr,misc]
    if fault & FAILED:
        return fault
    page = _faulted_page(vmf)
    if ops is not None and ops.page_mkwrite is not None:
        flags = vmf.flags
        vmf.flags = FAULT_FLAG_WRITE | FAULT_FLAG_MKWRITE
        mkwrite = ops.page_mkwrite(vmf)
        vmf.flags = flags
        if mkwrite & FAILED:
            put_page(system, page)
            return mkwrite
    system.fault_result = "file-shared"
    result = finish_fault(vmf, page)
    if result & FAILED:
        put_page(system, page)
        return fault | result
    return fault | result | fault_dirty_shared_page(page, vmf.flags, ops is not None and ops.page_mkwrite is not None)


def fault_dirty_shared_page(page: Page, flags: int, page_mkwrite: bool = False) -> int:
    """Dirty the page just made writable. VM_FAULT_RETRY when it was clean, or its owner had to agree.

    Linux then throttles the writer (balance_dirty_pages) without the mmap lock, where it may let go of it, and the
    whole fault is made again: it finds the entry present and counts as a major fault.
    """
    dirtied = set_page_dirty(page)
    if not (dirtied or page_mkwrite) or page.mapping is None:
        return 0
    return VM_FAULT_RETRY if flags & (FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_TRIED) == FAULT_FLAG_ALLOW_RETRY else 0


def _faulted_page(vmf: VmFault) -> Page:
    """The page ->fault() promised."""
    if vmf.page is None:
        raise KernelBug(f"->fault() of {vmf.vma!r} left no page", vmf.vma.vm_mm)
    return vmf.page


def finish_fault(vmf: VmFault, page: Page) -> int:
    """Map `page`; its reference goes to the entry. 0, VM_FAULT_OOM, or VM_FAULT_NOPAGE when something is mapped."""
    return alloc_set_pte(vmf, page)


def alloc_set_pte(vmf: VmFault, page: Page) -> int:
    """Write the entry of `vmf.address` for `page`, with its PTE table if there is none (vmf.pte < 0)."""
    vma = vmf.vma
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    if vmf.pte < 0:
        vmf.pte = pte_alloc_map(mm, vmf.address)
        if vmf.pte < 0:
            return VM_FAULT_OOM
    if words[vmf.pte]:
        return VM_FAULT_NOPAGE
    write = vmf.flags & FAULT_FLAG_WRITE
    entry = arch.mk_pte(page.pfn, vma.vm_page_prot)
    if write:
        entry = arch.pte_mkdirty(entry)
        if vma.vm_flags & VM_WRITE:
            entry = arch.pte_mkwrite(entry)
    if write and not vma.vm_flags & VM_SHARED:
        add_mm_counter_fast(mm, MM_ANONPAGES, 1)
        page_add_new_anon_rmap(page, vma, vmf.address)
    else:
        add_mm_counter_fast(mm, mm_counter_file(page), 1)
        page_add_file_rmap(page)
    arch.sync_icache(mm, page, vmf.address, entry)
    words[vmf.pte] = entry
    if mm.system.listener is not None:
        report_pte(mm, vmf.address, 0, entry)
    return 0


def finish_mkwrite_fault(vmf: VmFault) -> int:
    """Make the entry of a shared mapping writable after page_mkwrite() agreed."""
    from mm.memory_cow import wp_page_reuse

    mm = vmf.vma.vm_mm
    if mm.system.words[vmf.pte] != vmf.orig_pte:
        return VM_FAULT_NOPAGE
    wp_page_reuse(vmf.vma, mm, vmf.address, vmf.pte, vmf.orig_pte, vmf.page)
    return 0


def vmf_insert_pfn(vma: VmAreaStruct, address: int, pfn: int) -> int:
    """For ->fault() of special mappings: map a raw frame without a struct page's counting. VM_FAULT_NOPAGE or _OOM."""
    mm = vma.vm_mm
    index = pte_alloc_map(mm, address)
    if index < 0:
        return VM_FAULT_OOM
    system = mm.system
    if not system.words[index]:
        entry = system.words[index] = mm.arch.mk_pte(pfn, vma.vm_page_prot) | mm.arch.PTE_SPECIAL
        system.fault_result = "special"
        if system.listener is not None:
            report_pte(mm, address, 0, entry)
    return VM_FAULT_NOPAGE
