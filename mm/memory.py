"""Page faults (mm/memory.c): from "this address was touched" to a page-table entry that allows it.

    handle_mm_fault(vma, address, flags)
        tables down to the PMD are made, then the PTE decides:
        none, area without vm_ops      -> do_anonymous_page      here
        none, area of a file           -> do_fault               memory_file.py
        present, write to a read-only  -> do_wp_page             memory_cow.py
        present otherwise              -> access flags           here

The other operations of mm/memory.c live in small files of their own and are reached from here by their kernel names:
zapping (memory_zap.py), fork (memory_fork.py), protection (memory_protect.py), moving (memory_move.py).

A fault in an anonymous area is the most frequent event of all, so its path is flat: handle_mm_fault finds the PTE (the
last PTE table is remembered in `mm.pte_cache`), do_anonymous_page takes a frame and writes the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import (
    FAULT_FLAG_TRIED,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    PG_MLOCKED,
    PG_UNEVICTABLE,
    VM_EXEC,
    VM_FAULT_ERROR,
    VM_FAULT_FALLBACK,
    VM_FAULT_HWPOISON,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_HUGETLB,
    VM_LOCKED,
    VM_SHARED,
    VM_SPECIAL,
    VM_UFFD_MISSING,
    VM_WRITE,
)
from mm.huge_memory import (
    do_huge_pmd_anonymous_page,
    do_huge_pmd_wp_page,
    huge_pmd_set_accessed,
    transparent_hugepage_enabled,
)
from mm.memory_cow import userfault
from mm.memory_file import do_fault, finish_mkwrite_fault, vmf_insert_pfn
from mm.memory_fork import copy_page_range
from mm.memory_move import move_page_tables, move_ptes
from mm.memory_protect import change_protection
from mm.memory_rss import TASK_RSS_EVENTS_THRESH, add_mm_counter_fast, sync_mm_rss
from mm.memory_zap import (
    free_pgtables,
    unmap_mapping_pages,
    unmap_mapping_range,
    unmap_single_vma,
    unmap_vmas,
    zap_page_range,
)
from mm.page_alloc import alloc_pfn
from mm.pgtable import free_pgd_range, pmd_alloc, pte_alloc, pte_alloc_map, pte_offset, report_pte
from mm.rmap import anon_vma_prepare

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

__all__ = [
    "change_protection",
    "copy_page_range",
    "do_fault",
    "finish_mkwrite_fault",
    "free_pgd_range",
    "free_pgtables",
    "handle_mm_fault",
    "move_page_tables",
    "move_ptes",
    "pte_alloc",
    "pte_offset",
    "sync_mm_rss",
    "unmap_mapping_pages",
    "unmap_mapping_range",
    "unmap_single_vma",
    "unmap_vmas",
    "vmf_insert_pfn",
    "zap_page_range",
]


def handle_mm_fault(vma: VmAreaStruct, address: int, flags: int) -> int:
    """Make the page at `address` of `vma` accessible for the access in `flags`; the caller checked permissions.

    Returns VM_FAULT_* bits. Counts the fault (min_flt or maj_flt of the current task) unless it failed
    or is to be made again (VM_FAULT_RETRY, then with FAULT_FLAG_TRIED).
    """
    mm = vma.vm_mm
    system = mm.system
    task = system.current
    system.pgfault += 1
    if task is not None:  # check_sync_rss_stat()
        events = task.rss_events
        task.rss_events = events + 1
        if events > TASK_RSS_EVENTS_THRESH:
            sync_mm_rss(task)

    arch = mm.arch
    if address >> arch.pmd_shift == mm.pte_cache_key:
        index = mm.pte_cache + (address >> arch.page_shift & arch.index_mask)
        pte = system.words[index]
        if not pte and vma.vm_ops is None and not vma.vm_flags & VM_SHARED:
            fault = do_anonymous_page(vma, mm, address, flags, index)
        elif vma.vm_flags & VM_HUGETLB:
            fault = _handle_hugetlb_fault(vma, address, flags)
        else:
            fault = handle_pte_fault(vma, mm, address, flags, index, pte)
    elif vma.vm_flags & VM_HUGETLB:
        fault = _handle_hugetlb_fault(vma, address, flags)
    else:
        fault = _handle_mm_fault(vma, mm, address, flags)

    # mm_account_fault()
    if fault & VM_FAULT_MAJOR:
        system.pgmajfault += 1
    if not fault & (VM_FAULT_ERROR | VM_FAULT_RETRY) and task is not None:
        if fault & VM_FAULT_MAJOR or flags & FAULT_FLAG_TRIED:
            task.maj_flt += 1
        else:
            task.min_flt += 1
    if system.validate_level > 1:
        from mm.validate_pages import validate_pages

        validate_pages(mm)
    return fault


def _handle_hugetlb_fault(vma: VmAreaStruct, address: int, flags: int) -> int:
    """hugetlb_fault(), from a module that only programs with such areas need."""
    from mm.hugetlb import hugetlb_fault

    return hugetlb_fault(vma, address, flags)


def _handle_mm_fault(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int) -> int:
    """The walk from the root (__handle_mm_fault), with huge pages at the PMD level."""
    arch = mm.arch
    pmd = pmd_alloc(mm, address)
    if pmd < 0:
        return VM_FAULT_OOM
    words = mm.system.words
    if not words[pmd]:
        if vma.vm_ops is None and transparent_hugepage_enabled(vma):
            fault = do_huge_pmd_anonymous_page(vma, mm, address, flags, pmd)
            if not fault & VM_FAULT_FALLBACK:
                return fault
        return handle_pte_fault(vma, mm, address, flags, -1, 0)
    if arch.pmd_trans_huge(words[pmd]):
        if not flags & FAULT_FLAG_WRITE or arch.pte_write(words[pmd]):
            huge_pmd_set_accessed(mm, address, flags, pmd)
            return 0
        fault = do_huge_pmd_wp_page(vma, mm, address, flags, pmd)
        if not fault & VM_FAULT_FALLBACK:
            return fault
    entry = words[pmd]
    table = (entry & arch.PTE_PFN_MASK) >> 3
    mm.pte_cache_key = address >> arch.pmd_shift
    mm.pte_cache = table
    index = table + (address >> arch.page_shift & arch.index_mask)
    return handle_pte_fault(vma, mm, address, flags, index, words[index])


def handle_pte_fault(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int, pte: int) -> int:
    """Decide by the entry `pte` at `index` (-1: there is no PTE table yet)."""
    if not pte:
        if vma.vm_ops is not None:
            return do_fault(vma, mm, address, flags, index)
        if vma.vm_flags & VM_SHARED:  # a file mapping without ->vm_ops
            return VM_FAULT_SIGBUS
        if index < 0:
            index = pte_alloc_map(mm, address)
            if index < 0:
                return VM_FAULT_OOM
        return do_anonymous_page(vma, mm, address, flags, index)

    arch = mm.arch
    system = mm.system
    if not pte & arch.PTE_PRESENT:  # do_swap_page(): without swap only a poisoned page is left
        return VM_FAULT_HWPOISON
    write = flags & FAULT_FLAG_WRITE
    entry = pte
    if write:
        if not pte & arch.PTE_WRITE:
            return mm.ops.do_wp_page(vma, mm, address & arch.page_mask, flags, index, pte)
        entry = arch.pte_mkdirty(pte)
    entry = arch.pte_mkyoung(entry)
    if arch.ptep_set_access_flags(system.words, index, entry, bool(write)):
        system.fault_result = "access"
        if system.listener is not None:
            report_pte(mm, address, pte, system.words[index])
    else:
        system.fault_result = "spurious"
        if write and arch.needs_spurious_flush():
            mm.tlb_flush_pending = True
    if not flags & FAULT_FLAG_USER:
        mm.tlb_flush_pending = True
    return 0


def do_anonymous_page(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int) -> int:
    """First touch of a page of an anonymous area: the shared zero page for a read, a zeroed frame for a write."""
    system = mm.system
    arch = mm.arch
    if not flags & FAULT_FLAG_WRITE:
        if vma.vm_flags & VM_UFFD_MISSING:
            return userfault(vma, address, flags, VM_UFFD_MISSING)
        system.words[index] = arch.mk_pte(system.zero_pfn, vma.vm_page_prot) | arch.PTE_SPECIAL
        system.fault_result = "anon-zero"
        if system.listener is not None:
            report_pte(mm, address, 0, system.words[index])
        return 0

    anon_vma = vma.anon_vma or anon_vma_prepare(vma)
    vm_flags = vma.vm_flags
    if vm_flags & VM_UFFD_MISSING:
        return userfault(vma, address, flags, VM_UFFD_MISSING)
    pfn = alloc_pfn(system, True)
    if pfn < 0:
        return VM_FAULT_OOM
    page_shift = arch.page_shift
    mem_map = system.mem_map  # add_new_anon(), without the call
    mem_map.frames[pfn] = anon_vma
    mem_map.index[pfn] = ((address - vma.vm_start) >> page_shift) + vma.vm_pgoff
    mem_map.users[pfn] = 1
    if vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mem_map.page(pfn).flags |= PG_MLOCKED | PG_UNEVICTABLE
        system.nr_mlock += 1
        system.count_vm_event("unevictable_pgs_mlocked")
        system.count_vm_event("unevictable_pgs_culled")
    task = system.current
    if task is not None and task.mm is mm:
        task.rss_stat[MM_ANONPAGES] += 1
    else:
        add_mm_counter_fast(mm, MM_ANONPAGES, 1)

    if vm_flags & VM_WRITE:
        entry = (pfn << page_shift | vma.vm_page_prot | arch.PTE_WRITABLE_SET) & arch.PTE_WRITABLE_MASK
    else:
        entry = arch.mk_pte(pfn, vma.vm_page_prot)
    if vm_flags & VM_EXEC:
        arch.sync_icache(mm, mem_map.page(pfn), address, entry)
    system.words[index] = entry
    system.fault_result = "anon"
    if system.listener is not None:
        report_pte(mm, address, 0, entry)
    return 0
