"""Copying page tables for fork (copy_page_range of mm/memory.c).

Parent and child share every page; entries of private writable areas become read-only in both, so that the first write
copies. An area without anonymous pages is not copied at all: faults will find its pages in the page cache.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno, KernelBug
from mm.flags import MM_ANONPAGES, VM_HUGETLB, VM_MAYWRITE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, VM_UFFD_WP
from mm.huge_memory import copy_huge_pmd
from mm.memory_rss import add_mm_rss_vec, mm_counter
from mm.pgtable import alloc_child_table, pte_range, report_ptes, used_entries
from mm.types import AnonVma

if TYPE_CHECKING:
    from mm.types import VmAreaStruct


def is_cow_mapping(vm_flags: int) -> bool:
    """A private area that may be written: its pages are copied on write."""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def vma_needs_copy(src_vma: VmAreaStruct) -> bool:
    """The area has entries a fault could not make again."""
    return bool(src_vma.vm_flags & (VM_HUGETLB | VM_PFNMAP | VM_MIXEDMAP)) or src_vma.anon_vma is not None


def copy_page_range(dst_vma: VmAreaStruct, src_vma: VmAreaStruct) -> None:
    """Give `dst_vma` (the child's) the pages of `src_vma`. Raises Errno(ENOMEM) when a table can not be made."""
    if not vma_needs_copy(src_vma):
        return
    if src_vma.vm_flags & VM_HUGETLB:
        from mm.hugetlb import copy_hugetlb_page_range

        copy_hugetlb_page_range(dst_vma, src_vma)
        return
    if is_cow_mapping(src_vma.vm_flags):
        src_vma.vm_mm.tlb_flush_pending = True
    _copy_range(dst_vma, src_vma, 0, dst_vma.vm_mm.pgd, src_vma.vm_mm.pgd, src_vma.vm_start, src_vma.vm_end)


def _copy_range(
    dst_vma: VmAreaStruct, src_vma: VmAreaStruct, level: int, dst_pfn: int, src_pfn: int, addr: int, end: int
) -> None:
    """copy_p4d/pud/pmd_range(): one table; a table of the child is made wherever the parent has one."""
    arch = src_vma.vm_mm.arch
    words = src_vma.vm_mm.system.words
    shift = arch.level_shifts[level]
    src_base = src_pfn << arch.table_word_shift
    dst_base = dst_pfn << arch.table_word_shift
    leaf_tables = level == len(arch.level_shifts) - 2
    while addr < end:
        following = min(((addr >> shift) + 1) << shift, end)
        offset = addr >> shift & arch.index_mask
        entry = words[src_base + offset]
        if entry and leaf_tables and arch.pmd_trans_huge(entry):
            if not copy_huge_pmd(dst_vma, src_vma.vm_mm, dst_base + offset, src_base + offset, addr):
                raise Errno(errno.ENOMEM)
        elif entry:
            child = alloc_child_table(dst_vma.vm_mm, level, dst_base + offset, addr)
            if child < 0:
                raise Errno(errno.ENOMEM)
            if leaf_tables:
                copy_pte_range(dst_vma, src_vma, dst_base + offset, src_base + offset, addr, following)
            else:
                below = (entry & arch.PTE_PFN_MASK) >> arch.page_shift
                _copy_range(dst_vma, src_vma, level + 1, child, below, addr, following)
        addr = following


def copy_pte_range(
    dst_vma: VmAreaStruct, src_vma: VmAreaStruct, dst_pmd: int, src_pmd: int, addr: int, end: int
) -> None:
    """Copy the entries of one PTE table (copy_present_pte for each)."""
    mm = src_vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    frames = mm.system.mem_map.frames
    users = mm.system.mem_map.users
    pte_pfn = arch.pte_pfn
    valid = arch.PTE_VALID
    pfn_mask = arch.PTE_PFN_MASK
    page_shift = arch.page_shift
    old = ~(arch.PTE_YOUNG if dst_vma.vm_flags & VM_UFFD_WP else arch.PTE_YOUNG | arch.PTE_UFFD_WP)
    cow = is_cow_mapping(src_vma.vm_flags)
    shared = src_vma.vm_flags & VM_SHARED
    special = arch.PTE_SPECIAL
    present = arch.PTE_PRESENT
    pte_write = arch.PTE_WRITE
    rss = [0, 0, 0, 0]
    anon = 0
    first, last = pte_range(mm, src_pmd, addr, end)
    dst_first, _ = pte_range(dst_vma.vm_mm, dst_pmd, addr, end)
    distance = dst_first - first
    before = words[first:last].tolist() if mm.system.listener is not None else []
    for index, pte in used_entries(words, first, last):
        if not pte & present:
            words[index + distance] = pte
        else:
            if not pte & special:
                pfn = (pte & pfn_mask) >> page_shift if pte & valid else pte_pfn(pte)
                page = frames[pfn]
                if isinstance(page, AnonVma):
                    users[pfn] += 1
                    anon += 1
                elif page is None:
                    raise KernelBug(f"entry {pte:#x} of {src_vma!r} maps a free frame", mm)
                else:
                    page.refcount += 1
                    page.mapcount += 1
                    rss[mm_counter(page)] += 1
            if cow and pte & pte_write:
                pte = words[index] = arch.pte_wrprotect(pte)
            if shared:
                pte = arch.pte_mkclean(pte)
            words[index + distance] = pte & old
    rss[MM_ANONPAGES] += anon
    add_mm_rss_vec(dst_vma.vm_mm, rss)
    if mm.system.listener is not None:
        report_ptes(mm, addr, first, before)
        report_ptes(dst_vma.vm_mm, addr, dst_first, [0] * len(before))
