"""Taking mappings away (zap_*, unmap_*, free_pgtables of mm/memory.c).

unmap_vmas(mm, vma, start, end)    munmap, exit: the list of areas from `vma` on
zap_page_range(vma, start, size)   madvise(MADV_DONTNEED)
unmap_mapping_range(mapping, ...)  truncate, hole punch: every mapping of a part of a file
free_pgtables(mm, vma, ...)        afterwards: the tables nobody needs any more
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import MM_ANONPAGES, PG_DIRTY, PG_MLOCKED, VM_HUGETLB, VM_SEQ_READ
from mm.huge_memory import _split_huge_pmd, zap_huge_pmd
from mm.interval_tree import vma_interval_tree_foreach
from mm.lru import lru_add_drain, mark_page_accessed
from mm.memory_rss import add_mm_rss_vec, mm_counter, page_anon
from mm.page_alloc import put_page
from mm.page_rmap import page_remove_rmap
from mm.pgtable import free_pgd_range, pte_range, report_ptes, used_entries, walk_pmds
from mm.rmap import unlink_anon_vmas
from mm.types import AnonVma
from mm.util import update_hiwater_rss
from mm.vma_tree import unlink_file_vma

if TYPE_CHECKING:
    from mm.types import AddressSpace, MmStruct, VmAreaStruct


def zap_pte_range(
    mm: MmStruct, vma: VmAreaStruct, pmd: int, start: int, end: int, check_mapping: AddressSpace | None
) -> None:
    """Clear the entries of [start, end) below one PMD entry; with `check_mapping` only those of its own pages."""
    arch = mm.arch
    system = mm.system
    words = system.words
    frames = system.mem_map.frames
    users = system.mem_map.users
    special = arch.PTE_SPECIAL
    present = arch.PTE_PRESENT
    pte_pfn = arch.pte_pfn
    valid = arch.PTE_VALID
    pfn_mask = arch.PTE_PFN_MASK
    page_shift = arch.page_shift
    young = arch.PTE_YOUNG
    sequential = vma.vm_flags & VM_SEQ_READ
    first, last = pte_range(mm, pmd, start, end)
    rss = [0, 0, 0, 0]
    anon = 0
    freed: list[int] = []
    before = words[first:last].tolist() if system.listener is not None else []
    for index, pte in used_entries(words, first, last):
        if pte & special or not pte & present:
            words[index] = 0
            continue
        pfn = (pte & pfn_mask) >> page_shift if pte & valid else pte_pfn(pte)
        page = frames[pfn]
        if isinstance(page, AnonVma):  # a plain anonymous page: only its users are counted
            if check_mapping is None:
                words[index] = 0
                anon += 1
                if users[pfn] > 1:
                    users[pfn] -= 1
                else:
                    frames[pfn] = None
                    freed.append(pfn)
            continue
        if page is None:
            raise_bad_pte(mm, index, pte)
            continue
        if check_mapping is not None and check_mapping is not page.mapping:
            continue
        words[index] = 0
        if not page_anon(page):
            if arch.pte_dirty(pte):
                page.flags |= PG_DIRTY
            if pte & young and not sequential:
                mark_page_accessed(page)
        rss[mm_counter(page)] -= 1
        if page.refcount > 1 and page.mapcount > 0 and not page.flags & PG_MLOCKED:
            page.mapcount -= 1  # the usual end for a file's page, without the calls below: the cache keeps it
            page.refcount -= 1
        else:
            page_remove_rmap(system, page)
            put_page(system, page)
    rss[MM_ANONPAGES] -= anon
    system.zone.pcp.extend(freed)
    add_mm_rss_vec(mm, rss)
    mm.tlb_flush_pending = True
    if system.listener is not None:
        report_ptes(mm, start, first, before)


def raise_bad_pte(mm: MmStruct, index: int, pte: int) -> None:
    """An entry maps a free frame."""
    from mm.errors import KernelBug

    raise KernelBug(f"entry {pte:#x} at word {index:#x} maps a frame that is free", mm)


def unmap_page_range(
    mm: MmStruct, vma: VmAreaStruct, start: int, end: int, check_mapping: AddressSpace | None = None
) -> None:
    """Clear all entries of [start, end), which lies within `vma`."""
    for address, following, pmd in walk_pmds(mm, start, end):
        if mm.arch.pmd_trans_huge(mm.system.words[pmd]):
            if following - address == mm.arch.pmd_size:
                zap_huge_pmd(vma, pmd, address)
                continue
            _split_huge_pmd(vma, pmd, address)
        zap_pte_range(mm, vma, pmd, address, following, check_mapping)


def unmap_single_vma(
    vma: VmAreaStruct, start_addr: int, end_addr: int, check_mapping: AddressSpace | None = None
) -> None:
    """Clear what of [start_addr, end_addr) lies in `vma`."""
    start = max(vma.vm_start, start_addr)
    end = min(vma.vm_end, end_addr)
    if start < end:
        if vma.vm_flags & VM_HUGETLB:
            if vma.vm_file is not None:  # else the file's mmap failed, and nothing is mapped
                from mm.hugetlb import unmap_hugepage_range

                unmap_hugepage_range(vma, start, end)
            return
        unmap_page_range(vma.vm_mm, vma, start, end, check_mapping)


def unmap_vmas(mm: MmStruct, vma: VmAreaStruct | None, start: int, end: int) -> None:
    """Clear [start, end) in the areas from `vma` on, in list order."""
    while vma is not None and vma.vm_start < end:
        unmap_single_vma(vma, start, end)
        vma = vma.vm_next


def zap_page_range(vma: VmAreaStruct, start: int, size: int) -> None:
    """Remove the pages of [start, start + size) from `vma` and the areas behind it."""
    lru_add_drain(vma.vm_mm.system)
    update_hiwater_rss(vma.vm_mm)
    unmap_vmas(vma.vm_mm, vma, start, start + size)


def free_pgtables(mm: MmStruct, vma: VmAreaStruct | None, floor: int, ceiling: int) -> None:
    """Free the tables of the detached areas from `vma` on, and take the areas out of the rmap trees.

    `floor` is the end of the area below them, `ceiling` the start of the one above (0: the top of the address space).
    """
    pmd_size = mm.arch.pmd_size
    while vma is not None:
        following = vma.vm_next
        addr = vma.vm_start
        unlink_anon_vmas(vma)
        unlink_file_vma(vma)
        # Gather areas less than a PMD apart into one walk.
        while (
            following is not None
            and following.vm_start <= vma.vm_end + pmd_size
            and not (vma.vm_flags | following.vm_flags) & VM_HUGETLB
        ):
            vma = following
            following = vma.vm_next
            unlink_anon_vmas(vma)
            unlink_file_vma(vma)
        free_pgd_range(mm, addr, vma.vm_end, floor, ceiling if following is None else following.vm_start)
        vma = following


def unmap_mapping_pages(mapping: AddressSpace, start: int, nr: int, even_cows: bool) -> None:
    """Clear every entry that maps pages [start, start + nr) of a file; COWed copies only if `even_cows`.

    `nr` of 0 means up to the end of any mapping.
    """
    last = start + nr - 1 if nr else (1 << 64) - 1
    for node in list(vma_interval_tree_foreach(mapping.i_mmap, start, last)):
        vma = node.vma
        page_shift = vma.vm_mm.arch.page_shift
        vba = vma.vm_pgoff
        vea = vba + ((vma.vm_end - vma.vm_start) >> page_shift) - 1
        zba = max(start, vba)
        zea = min(last, vea)
        update_hiwater_rss(vma.vm_mm)
        unmap_single_vma(
            vma,
            vma.vm_start + ((zba - vba) << page_shift),
            vma.vm_start + ((zea - vba + 1) << page_shift),
            None if even_cows else mapping,
        )


def unmap_mapping_range(mapping: AddressSpace, holebegin: int, holelen: int, even_cows: bool, page_shift: int) -> None:
    """unmap_mapping_pages() in bytes, for all pages the range touches; holelen 0: to the end."""
    hba = holebegin >> page_shift
    hlen = (holelen + (1 << page_shift) - 1) >> page_shift
    unmap_mapping_pages(mapping, hba, hlen, even_cows)
