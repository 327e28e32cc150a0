"""Moving page tables, for mremap and for the stack of a new program (move_page_tables of mm/mremap.c).

Entries move, pages do not: the frames only get new addresses. A whole PTE table moves by its PMD entry when old and new
place are aligned alike; that leaves soft-dirty alone, where entries moved one by one become soft-dirty.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from mm.flags import VM_EXEC
from mm.huge_memory import _split_huge_pmd, move_huge_pmd
from mm.pgtable import pmd_alloc, pmd_offset, pte_alloc, pte_range, report_moved, report_ptes

if TYPE_CHECKING:
    from mm.types import VmAreaStruct


def move_page_tables(
    vma: VmAreaStruct, old_addr: int, new_vma: VmAreaStruct, new_addr: int, length: int, need_rmap_locks: bool = False
) -> int:
    """Move the entries of [old_addr, old_addr + length) to `new_addr`; how many bytes were moved.

    Fewer than `length` when memory for a table is missing: the caller moves back what went. `need_rmap_locks` has no
    meaning with one CPU and is accepted for the kernel's signature.
    """
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    pmd_size = arch.pmd_size
    old_start = old_addr
    old_end = old_addr + length
    while old_addr < old_end:
        extent = min(pmd_size - (old_addr & (pmd_size - 1)), old_end - old_addr)
        extent = min(extent, pmd_size - (new_addr & (pmd_size - 1)))
        old_pmd = pmd_offset(mm, old_addr)
        if old_pmd >= 0 and words[old_pmd]:
            new_pmd = pmd_alloc(mm, new_addr)
            if new_pmd < 0:
                break
            huge = arch.pmd_trans_huge(words[old_pmd])
            if huge and (extent != pmd_size or words[new_pmd]):
                _split_huge_pmd(vma, old_pmd, old_addr)
                huge = False
            if huge:
                move_huge_pmd(vma, old_pmd, old_addr, new_pmd, new_addr)
            elif extent == pmd_size and not words[new_pmd]:
                move_normal_pmd(vma, old_pmd, new_pmd)
                if mm.system.listener is not None:
                    report_moved(mm, old_addr, new_addr, new_pmd)
            else:
                if pte_alloc(mm, new_pmd, new_addr) < 0:
                    break
                move_ptes(vma, old_pmd, old_addr, old_addr + extent, new_vma, new_pmd, new_addr)
        old_addr += extent
        new_addr += extent
    return old_addr - old_start


def move_normal_pmd(vma: VmAreaStruct, old_pmd: int, new_pmd: int) -> None:
    """Hand a whole PTE table over."""
    mm = vma.vm_mm
    words = mm.system.words
    words[new_pmd] = words[old_pmd]
    words[old_pmd] = 0
    mm.pte_cache_key = -1
    mm.tlb_flush_pending = True


def move_ptes(
    vma: VmAreaStruct,
    old_pmd: int,
    old_addr: int,
    old_end: int,
    new_vma: VmAreaStruct,
    new_pmd: int,
    new_addr: int,
) -> None:
    """Move the entries of [old_addr, old_end), within one PTE table on either side, and mark them soft-dirty."""
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    words = system.words
    first, last = pte_range(mm, old_pmd, old_addr, old_end)
    new_index, _ = pte_range(mm, new_pmd, new_addr, new_addr + (old_end - old_addr))
    before = words[first:last].tolist()
    if not any(before):
        return
    present = arch.PTE_PRESENT
    soft_dirty = arch.PTE_SOFT_DIRTY
    moved = [pte | soft_dirty if pte & present else pte for pte in before]
    # Both places may be in one table, and overlap (shift_arg_pages): out first, then in.
    words[first:last] = array("Q", bytes(8 * len(before)))
    words[new_index : new_index + len(moved)] = array("Q", moved)
    mm.tlb_flush_pending = True
    if new_vma.vm_flags & VM_EXEC:
        for number, pte in enumerate(moved):
            if pte & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE and not pte & arch.PTE_SPECIAL:
                arch.sync_icache(
                    mm, system.mem_map.page(arch.pte_pfn(pte)), new_addr + (number << arch.page_shift), pte
                )
    if system.listener is not None:
        report_ptes(mm, old_addr, first, before)
        report_ptes(mm, new_addr, new_index, [0] * len(before))
