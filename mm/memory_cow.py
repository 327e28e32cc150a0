"""Writes to present, read-only entries (do_wp_page and its parts in mm/memory.c).

    anonymous page, one user        reuse: the entry becomes writable
    anonymous page, shared by fork  copy
    page that KSM merged            copy, even for its last user: KSM relies on its content
    zero page                       a zeroed frame in its place
    page of a private file mapping  copy: the page becomes anonymous
    page of a shared mapping        reuse, and the file's page is dirty

"One user" is 5.10's rule: one reference and one mapping. DEVIATION D1: the copies that Linux makes because a page still
sits in a per-CPU LRU batch (one more reference), or is a part of a huge page, are not made: which frame holds the data
is all that differs.
"""

from __future__ import annotations

from mm.flags import (
    FAULT_FLAG_USER,
    MM_ANONPAGES,
    PG_MLOCKED,
    PG_RESERVED,
    VM_FAULT_ERROR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_WRITE,
    VM_LOCKED,
    VM_SHARED,
    VM_SPECIAL,
    VM_UFFD_WP,
    VM_WRITE,
)
from mm.memory_rss import add_mm_counter_fast, mm_counter_file, page_anon, page_ksm
from mm.page_alloc import alloc_pfn, put_page
from mm.page_rmap import (
    linear_page_index,
    mlock_vma_page,
    munlock_vma_page,
    page_remove_rmap,
)
from mm.pgtable import report_pte
from mm.rmap import anon_vma_prepare
from mm.types import AnonVma, MmStruct, Page, VmAreaStruct, VmFault


def vm_normal_page(mm: MmStruct, pte: int, peek: bool = False) -> Page | None:
    """The page a present entry maps; None for special entries (zero page, raw frames). `peek`: only to be read."""
    arch = mm.arch
    if pte & arch.PTE_SPECIAL:
        return None
    mem_map = mm.system.mem_map
    page = mem_map.peek(arch.pte_pfn(pte)) if peek else mem_map[arch.pte_pfn(pte)]
    return None if page is None or page.flags & PG_RESERVED else page  # the huge zero page is reserved


def userfault(vma: VmAreaStruct, address: int, flags: int, reason: int) -> int:
    """handle_userfault(), whose module is not needed before."""
    from mm.userfaultfd import handle_userfault

    return handle_userfault(vma, address, flags, reason)


def do_wp_page(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int, pte: int) -> int:
    """Serve a write to the read-only entry `pte` at `index`; `address` is page aligned."""
    if vma.vm_flags & VM_UFFD_WP and pte & mm.arch.PTE_UFFD_WP:
        return userfault(vma, address, flags, VM_UFFD_WP)
    if not flags & FAULT_FLAG_USER:
        mm.tlb_flush_pending = True  # the user's own old translation does not go by itself
    arch = mm.arch
    mem_map = mm.system.mem_map
    pfn = arch.pte_pfn(pte)
    if isinstance(mem_map.frames[pfn], AnonVma):  # and so not special
        if mem_map.users[pfn] == 1:
            page = mem_map[pfn] if pte & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE else None
            wp_page_reuse(vma, mm, address, index, pte, page)
            return VM_FAULT_WRITE
        return wp_page_copy(vma, mm, address, index, pte, None)
    page = vm_normal_page(mm, pte)
    shared_writable = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED
    if page is None:
        if shared_writable:  # wp_pfn_shared()
            wp_page_reuse(vma, mm, address, index, pte, None)
            return VM_FAULT_WRITE
        return wp_page_copy(vma, mm, address, index, pte, None)
    if page_anon(page):
        if page.refcount == 1 and page.mapcount == 1 and not page_ksm(page):
            wp_page_reuse(vma, mm, address, index, pte, page)
            return VM_FAULT_WRITE
    elif shared_writable:
        return wp_page_shared(vma, mm, address, flags, index, pte, page)
    return wp_page_copy(vma, mm, address, index, pte, page)


def wp_page_reuse(vma: VmAreaStruct, mm: MmStruct, address: int, index: int, pte: int, page: Page | None) -> None:
    """Make the entry young, dirty and, if the area is writable, writable."""
    arch = mm.arch
    entry = arch.pte_mkdirty(arch.pte_mkyoung(pte))
    if vma.vm_flags & VM_WRITE:
        entry = arch.pte_mkwrite(entry)
    if page is not None:
        arch.sync_icache(mm, page, address, entry)
    system = mm.system
    arch.ptep_set_access_flags(system.words, index, entry, True)
    system.fault_result = "cow-reuse"
    system.pgreuse += 1
    if system.listener is not None:
        report_pte(mm, address, pte, system.words[index])


def wp_page_copy(vma: VmAreaStruct, mm: MmStruct, address: int, index: int, pte: int, old_page: Page | None) -> int:
    """Put a private copy in the place of what `pte` maps: `old_page`, or a frame without a Page of its own.

    That is the zero page, a raw frame, or a plain anonymous page (mem_map.py) with other users.
    """
    system = mm.system
    arch = mm.arch
    mem_map = system.mem_map
    anon_vma = anon_vma_prepare(vma)
    old_pfn = arch.pte_pfn(pte)
    zero = old_pfn == system.zero_pfn
    pfn = alloc_pfn(system, zero)
    if pfn < 0:
        return VM_FAULT_OOM
    if not zero:
        size = system.page_size
        system.ram[pfn * size : (pfn + 1) * size] = system.ram[old_pfn * size : (old_pfn + 1) * size]
    plain = isinstance(mem_map.frames[old_pfn], AnonVma)
    if not plain and (old_page is None or not page_anon(old_page)):
        if old_page is not None:
            add_mm_counter_fast(mm, mm_counter_file(old_page), -1)
        add_mm_counter_fast(mm, MM_ANONPAGES, 1)
    entry = arch.pte_mkdirty(arch.mk_pte(pfn, vma.vm_page_prot))
    if vma.vm_flags & VM_WRITE:
        entry = arch.pte_mkwrite(entry)
    mem_map.add_new_anon(pfn, anon_vma, linear_page_index(vma, address))
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_vma_page(system, mem_map.page(pfn))
    if entry & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE:
        arch.sync_icache(mm, mem_map.page(pfn), address, entry)
    system.words[index] = entry
    if system.listener is not None:
        report_pte(mm, address, pte, entry)
    if plain:
        mem_map.users[old_pfn] -= 1
    elif old_page is not None:
        page_remove_rmap(system, old_page)
        if vma.vm_flags & VM_LOCKED and old_page.flags & PG_MLOCKED:
            munlock_vma_page(system, old_page)
        put_page(system, old_page)
    system.fault_result = "cow-copy"
    return VM_FAULT_WRITE


def wp_page_shared(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int, pte: int, page: Page) -> int:
    """First write through an entry of a shared file mapping that was made read-only to notice it."""
    page_mkwrite = vma.vm_ops.page_mkwrite if vma.vm_ops is not None else None
    if page_mkwrite is not None:
        vmf = VmFault(vma, address, flags, linear_page_index(vma, address))
        vmf.page = page
        fault = page_mkwrite(vmf)
        if fault & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            return fault
    wp_page_reuse(vma, mm, address, index, pte, page)
    from mm.memory_file import fault_dirty_shared_page

    return VM_FAULT_WRITE | fault_dirty_shared_page(page, flags, page_mkwrite is not None)
