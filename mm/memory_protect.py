"""Changing the protection of present entries (change_protection of mm/mprotect.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import VM_HUGETLB
from mm.huge_memory import _split_huge_pmd, change_huge_pmd
from mm.pgtable import pte_range, report_ptes, walk_pmds

if TYPE_CHECKING:
    from mm.types import VmAreaStruct

MM_CP_DIRTY_ACCT = 1  # a shared file mapping that notices writes: dirty pages may stay writable
MM_CP_UFFD_WP = 4  # write-protect for a userfaultfd
MM_CP_UFFD_WP_RESOLVE = 8  # and no longer: the next write is an ordinary fault


def change_protection(vma: VmAreaStruct, start: int, end: int, newprot: int, cp_flags: int = 0) -> int:
    """Give the present entries of [start, end) the protection `newprot`; how many there were."""
    mm = vma.vm_mm
    pages = 0
    if vma.vm_flags & VM_HUGETLB:
        from mm.hugetlb import hugetlb_change_protection

        return hugetlb_change_protection(vma, start, end, newprot)
    for address, following, pmd in walk_pmds(mm, start, end):
        if mm.arch.pmd_trans_huge(mm.system.words[pmd]):
            if following - address == mm.arch.pmd_size:
                wp, resolve = bool(cp_flags & MM_CP_UFFD_WP), bool(cp_flags & MM_CP_UFFD_WP_RESOLVE)
                pages += change_huge_pmd(vma, pmd, address, newprot, wp, resolve)
                continue
            _split_huge_pmd(vma, pmd, address)
        pages += change_pte_range(vma, pmd, address, following, newprot, cp_flags)
    if pages:
        mm.tlb_flush_pending = True
    return pages


def change_pte_range(vma: VmAreaStruct, pmd: int, start: int, end: int, newprot: int, cp_flags: int) -> int:
    """One PTE table's part of change_protection()."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    mem_map = mm.system.mem_map
    dirty_accountable = cp_flags & MM_CP_DIRTY_ACCT
    uffd = cp_flags & (MM_CP_UFFD_WP | MM_CP_UFFD_WP_RESOLVE)
    pte_modify = arch.pte_modify
    present = arch.PTE_PRESENT
    exec_mask = arch.PTE_EXEC_MASK
    exec_value = arch.PTE_EXEC_VALUE
    first, last = pte_range(mm, pmd, start, end)
    page_shift = arch.page_shift
    pages = 0
    before = words[first:last].tolist()
    for index, pte in enumerate(before, first):
        if not pte & present:
            continue
        new = pte_modify(pte, newprot)
        if uffd:
            new = arch.pte_wrprotect(new) | arch.PTE_UFFD_WP if uffd & MM_CP_UFFD_WP else new & ~arch.PTE_UFFD_WP
        if (
            dirty_accountable
            and arch.pte_dirty(new)
            and (arch.pte_soft_dirty(new) or not vma.vm_flags & arch.VM_SOFTDIRTY)
        ):
            new = arch.pte_mkwrite(new)
        if new & exec_mask == exec_value and not new & arch.PTE_SPECIAL:
            page = mem_map[arch.pte_pfn(new)]
            if page is not None:
                arch.sync_icache(mm, page, start + ((index - first) << page_shift), new)
        words[index] = new
        pages += 1
    if mm.system.listener is not None:
        report_ptes(mm, start, first, before)
    return pages
