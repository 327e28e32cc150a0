"""Transparent huge pages (mm/huge_memory.c): anonymous memory mapped by PMD entries, on MADV_HUGEPAGE.

A huge page is a block of hpage_pmd_nr frames, each with its own `Page`; `private` of all of them is the first one, the
head. A PMD entry counts once in every page's mapcount and refcount, so that an entry split into PTEs changes no count.
The mlocked mark is the head's alone, and stands for all of them in nr_mlock.

    do_huge_pmd_anonymous_page  first touch: a huge page, or the huge zero page for a read
    do_huge_pmd_wp_page         write to a read-only entry: reuse it, or split it and let the PTE's fault copy
    _split_huge_pmd             one entry becomes a table of PTEs; the pages stay one block
    split_huge_page             the block becomes single pages, in every address space

With each huge entry goes one PTE table in reserve (`mm.deposited`), so that splitting needs no memory.

Small pages of an advised area become a huge one later by khugepaged.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import (
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    PG_ACTIVE,
    PG_COMPOUND,
    PG_DIRTY,
    PG_REFERENCED,
    PG_RESERVED,
    PG_SWAPBACKED,
    PG_UPTODATE,
    VM_FAULT_FALLBACK,
    VM_FAULT_OOM,
    VM_FAULT_WRITE,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_NOHUGEPAGE,
    VM_SPECIAL,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WRITE,
)
from mm.mem_map import NEW_ANON_FLAGS
from mm.page_alloc import alloc_pages, free_pages, put_page
from mm.page_rmap import (
    clear_page_mlock,
    mlock_vma_page,
    page_remove_rmap,
    rmap_areas,
    rmap_walk,
    vma_address,
)
from mm.pgtable import alloc_table, free_table, pmd_offset, report_pte, report_ptes
from mm.rmap import anon_vma_prepare
from mm.types import Page

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, VmAreaStruct

MMF_DISABLE_THP = 1 << 24
HEAD_FLAGS = PG_ACTIVE | PG_DIRTY | PG_REFERENCED | PG_SWAPBACKED  # of a huge page only the head's count


def transparent_hugepage_enabled(vma: VmAreaStruct) -> bool:
    """Faults of the area may make huge pages: it asks for them, or everybody gets them (thp_enabled)."""
    vm_flags = vma.vm_flags
    mm = vma.vm_mm
    if not vm_flags & VM_HUGEPAGE and mm.system.thp_enabled != "always":
        return False
    return not (vm_flags & VM_NOHUGEPAGE or mm.system.thp_enabled == "never" or mm.flags & MMF_DISABLE_THP)


def is_huge_zero_pmd(system: System, pmd: int) -> bool:
    """The entry maps the huge zero page."""
    return system.huge_zero_pfn > 0 and system.arch.pte_pfn(pmd) == system.huge_zero_pfn


def huge_page(mm: MmStruct, pmd: int) -> list[Page]:
    """The pages of the block a PMD entry maps."""
    head = mm.arch.pte_pfn(pmd)
    frames = mm.system.mem_map.frames[head : head + mm.arch.hpage_pmd_nr]
    return [page for page in frames if isinstance(page, Page)]


def deposit(mm: MmStruct, pfn: int) -> None:
    """Put a PTE table in reserve (pgtable_trans_huge_deposit, mm_inc_nr_ptes)."""
    mm.deposited.append(pfn)
    mm.pgtables_bytes += mm.arch.page_size


def zap_deposited_table(mm: MmStruct) -> None:
    """Give one back that is not needed any more."""
    free_table(mm.system, "pte", 0, mm.deposited.pop())
    mm.pgtables_bytes -= mm.arch.page_size


def get_huge_zero_page(system: System) -> int:
    """Frame number of the huge zero page, made when first needed and kept; 0 without memory."""
    if not system.huge_zero_pfn:
        page = alloc_pages(system, system.arch.pmd_shift - system.arch.page_shift, True)
        if page is None:
            return 0
        for pfn in range(page.pfn, page.pfn + system.arch.hpage_pmd_nr):
            part = system.mem_map[pfn]
            if part is not None:
                part.flags = PG_RESERVED | PG_UPTODATE
        system.huge_zero_pfn = page.pfn
        system.count_vm_event("thp_zero_page_alloc")
    return system.huge_zero_pfn


def do_huge_pmd_anonymous_page(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, pmd: int) -> int:
    """Serve a fault below the empty PMD entry at index `pmd`; VM_FAULT_FALLBACK when a small page must do."""
    arch = mm.arch
    system = mm.system
    haddr = address & arch.pmd_mask
    if haddr < vma.vm_start or haddr + arch.pmd_size > vma.vm_end:
        return VM_FAULT_FALLBACK
    anon_vma_prepare(vma)
    if not mm.khugepaged:
        from mm.khugepaged import khugepaged_enter

        khugepaged_enter(mm)
    if vma.vm_flags & VM_UFFD_MISSING:
        from mm.userfaultfd import handle_userfault

        return handle_userfault(vma, address, flags, VM_UFFD_MISSING)
    table = alloc_table(system, "pte", haddr, mm.pgd)
    if table < 0:
        return VM_FAULT_OOM
    write = flags & FAULT_FLAG_WRITE or not system.thp_use_zero_page
    if not write:
        pfn = get_huge_zero_page(system)
        entry = arch.pmd_mkhuge(arch.mk_pte(pfn, vma.vm_page_prot))
    else:
        pfn = _new_huge_page(vma, haddr)
        system.count_vm_event("thp_fault_alloc" if pfn else "thp_fault_fallback")
        entry = arch.pte_mkdirty(arch.pmd_mkhuge(arch.mk_pte(pfn, vma.vm_page_prot)))
        if vma.vm_flags & VM_WRITE:
            entry = arch.pte_mkwrite(entry)
    if not pfn:
        free_table(system, "pte", haddr, table)
        return VM_FAULT_FALLBACK
    if write:
        mm.rss_stat[MM_ANONPAGES] += arch.hpage_pmd_nr
        if entry & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE:
            for page in huge_page(mm, entry):
                arch.sync_icache(mm, page, haddr + ((page.pfn - pfn) << arch.page_shift), entry)
    deposit(mm, table)
    system.words[pmd] = entry
    system.fault_result = "huge"
    if system.listener is not None:
        report_pte(mm, haddr, 0, entry)
    return 0


def _new_huge_page(vma: VmAreaStruct, haddr: int) -> int:
    """Frame number of a new huge page of the area, mapped once; 0 without a block of that size."""
    arch = vma.vm_mm.arch
    head = alloc_pages(vma.vm_mm.system, arch.pmd_shift - arch.page_shift, True)
    if head is None:
        return 0
    prep_huge_page(vma, haddr, head)
    return head.pfn


def prep_huge_page(vma: VmAreaStruct, haddr: int, head: Page) -> None:
    """The block that `head` begins is an anonymous huge page of the area, mapped once, from now on."""
    mm = vma.vm_mm
    system = mm.system
    arch = mm.arch
    index = ((haddr - vma.vm_start) >> arch.page_shift) + vma.vm_pgoff
    for number, page in enumerate(system.mem_map.frames[head.pfn : head.pfn + arch.hpage_pmd_nr], index):
        if not isinstance(page, Page):
            raise KernelBug("a huge page has a hole", mm)
        page.flags = NEW_ANON_FLAGS | PG_COMPOUND
        page.mapcount = 1
        page.mapping = vma.anon_vma
        page.index = number
        page.private = head
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_vma_page(system, head)


def huge_pmd_set_accessed(mm: MmStruct, address: int, flags: int, pmd: int) -> None:
    """A fault on a huge entry that allows the access: Accessed and Dirty."""
    arch = mm.arch
    system = mm.system
    write = bool(flags & FAULT_FLAG_WRITE)
    old = system.words[pmd]
    entry = arch.pte_mkyoung(old)
    if write:
        entry = arch.pte_mkdirty(entry)
    changed = arch.ptep_set_access_flags(system.words, pmd, entry, write)
    system.fault_result = "access" if changed else "spurious"
    if system.listener is not None:
        report_pte(mm, address & arch.pmd_mask, old, system.words[pmd])
    mm.tlb_flush_pending = True


def do_huge_pmd_wp_page(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, pmd: int) -> int:
    """Serve a write to a read-only huge entry; VM_FAULT_FALLBACK when it was split and the PTE's fault goes on."""
    arch = mm.arch
    system = mm.system
    old = system.words[pmd]
    if vma.vm_flags & VM_UFFD_WP and old & arch.PTE_UFFD_WP:
        from mm.userfaultfd import handle_userfault

        return handle_userfault(vma, address, flags, VM_UFFD_WP)
    if not flags & FAULT_FLAG_USER:
        mm.tlb_flush_pending = True
    if not is_huge_zero_pmd(system, old) and max(page.mapcount for page in huge_page(mm, old)) <= 1:
        entry = arch.pte_mkdirty(arch.pte_mkyoung(old))
        if vma.vm_flags & VM_WRITE:
            entry = arch.pte_mkwrite(entry)
        arch.ptep_set_access_flags(system.words, pmd, entry, True)
        system.fault_result = "cow-reuse"
        if system.listener is not None:
            report_pte(mm, address & arch.pmd_mask, old, system.words[pmd])
        return VM_FAULT_WRITE
    _split_huge_pmd(vma, pmd, address)
    return VM_FAULT_FALLBACK


def _split_huge_pmd(vma: VmAreaStruct, pmd: int, address: int) -> None:
    """Replace the huge entry at index `pmd` by its reserve table, filled with PTEs for the same pages."""
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    words = system.words
    old = words[pmd]
    nr = arch.hpage_pmd_nr
    system.count_vm_event("thp_split_pmd")
    table = mm.deposited.pop()
    first = table << arch.table_word_shift
    if is_huge_zero_pmd(system, old):
        entry = arch.mk_pte(system.zero_pfn, vma.vm_page_prot) | arch.PTE_SPECIAL
        for index in range(first, first + nr):
            words[index] = entry
    else:
        head = huge_page(mm, old)[0]
        if arch.pte_dirty(old):
            head.flags |= PG_DIRTY
        clear_page_mlock(system, head)
        for number in range(nr):
            entry = arch.mk_pte(head.pfn + number, vma.vm_page_prot)
            if vma.vm_flags & VM_WRITE:
                entry = arch.pte_mkwrite(entry)
            if not arch.pte_write(old):
                entry = arch.pte_wrprotect(entry)
            if not arch.pte_young(old):
                entry = arch.pte_mkold(entry)
            if arch.pte_soft_dirty(old):
                entry = arch.pte_mksoft_dirty(entry)
            words[first + number] = entry | old & arch.PTE_UFFD_WP
    words[pmd] = table << arch.page_shift | arch.TABLE
    mm.pte_cache_key = -1
    mm.tlb_flush_pending = True
    if system.listener is not None:
        report_pte(mm, address & arch.pmd_mask, old, 0)
        report_ptes(mm, address & arch.pmd_mask, first, [0] * nr)


def split_huge_pmd_address(vma: VmAreaStruct, address: int) -> None:
    """Split the huge entry that serves `address`, if there is one."""
    pmd = pmd_offset(vma.vm_mm, address)
    if pmd >= 0:
        entry = vma.vm_mm.system.words[pmd]
        if entry and vma.vm_mm.arch.pmd_trans_huge(entry):
            _split_huge_pmd(vma, pmd, address)


def vma_adjust_trans_huge(vma: VmAreaStruct, start: int, end: int, adjust_next: int) -> None:
    """Before an area gets the bounds [start, end) (and the next one starts `adjust_next` bytes later): split what
    would cross a border.
    """
    size = vma.vm_mm.arch.pmd_size
    for border in (start, end):
        low = border & -size
        if border != low and low >= vma.vm_start and low + size <= vma.vm_end:
            split_huge_pmd_address(vma, border)
    following = vma.vm_next
    if adjust_next > 0 and following is not None:
        border = following.vm_start + adjust_next
        low = border & -size
        if border != low and low >= following.vm_start and low + size <= following.vm_end:
            split_huge_pmd_address(following, border)


def zap_huge_pmd(vma: VmAreaStruct, pmd: int, address: int) -> None:
    """Clear the huge entry of `address`, at index `pmd`."""
    mm = vma.vm_mm
    system = mm.system
    entry = system.words[pmd]
    system.words[pmd] = 0
    mm.tlb_flush_pending = True
    if not is_huge_zero_pmd(system, entry):
        _put_huge_page(mm, huge_page(mm, entry))
        mm.rss_stat[MM_ANONPAGES] -= mm.arch.hpage_pmd_nr
    zap_deposited_table(mm)
    if system.listener is not None:
        report_pte(mm, address, entry, 0)


def _put_huge_page(mm: MmStruct, pages: list[Page]) -> None:
    """A huge entry less maps `pages`: the last one frees them, together as they came when nobody else holds any."""
    system = mm.system
    together = len(pages) == mm.arch.hpage_pmd_nr and all(page.refcount == 1 for page in pages)
    for page in pages:
        page_remove_rmap(system, page)
        if not together:
            put_page(system, page)
    if together:
        free_pages(system, pages[0].pfn, mm.arch.pmd_shift - mm.arch.page_shift)


def copy_huge_pmd(dst_vma: VmAreaStruct, src_mm: MmStruct, dst_pmd: int, src_pmd: int, address: int) -> bool:
    """fork: share a huge page, read-only on both sides; False without memory for the reserve table."""
    dst_mm = dst_vma.vm_mm
    arch = src_mm.arch
    system = src_mm.system
    table = alloc_table(system, "pte", address, dst_mm.pgd)
    if table < 0:
        return False
    old = system.words[src_pmd]
    if not is_huge_zero_pmd(system, old):
        for page in huge_page(src_mm, old):
            page.refcount += 1
            page.mapcount += 1
        dst_mm.rss_stat[MM_ANONPAGES] += arch.hpage_pmd_nr
    deposit(dst_mm, table)
    entry = system.words[src_pmd] = arch.pte_wrprotect(old)
    if not dst_vma.vm_flags & VM_UFFD_WP:
        entry &= ~arch.PTE_UFFD_WP
    system.words[dst_pmd] = arch.pte_mkold(entry)
    src_mm.tlb_flush_pending = True
    if system.listener is not None:
        report_pte(src_mm, address, old, system.words[src_pmd])
        report_pte(dst_mm, address, 0, system.words[dst_pmd])
    return True


def change_huge_pmd(
    vma: VmAreaStruct, pmd: int, address: int, newprot: int, uffd_wp: bool = False, resolve: bool = False
) -> int:
    """Give the huge entry of `address` another protection; how many pages that are."""
    mm = vma.vm_mm
    system = mm.system
    old = system.words[pmd]
    entry = mm.arch.pmd_modify(old, newprot)
    if uffd_wp:
        entry = mm.arch.pte_wrprotect(entry) | mm.arch.PTE_UFFD_WP
    elif resolve:
        entry &= ~mm.arch.PTE_UFFD_WP
    system.words[pmd] = entry
    if system.listener is not None:
        report_pte(mm, address, old, system.words[pmd])
    return mm.arch.hpage_pmd_nr


def move_huge_pmd(vma: VmAreaStruct, old_pmd: int, old_addr: int, new_pmd: int, new_addr: int) -> None:
    """Move a huge entry to an empty place, and mark it soft-dirty."""
    mm = vma.vm_mm
    words = mm.system.words
    old = words[old_pmd]
    words[new_pmd] = mm.arch.pte_mksoft_dirty(old)
    words[old_pmd] = 0
    mm.tlb_flush_pending = True
    if mm.system.listener is not None:
        report_pte(mm, old_addr, old, 0)
        report_pte(mm, new_addr, 0, words[new_pmd])


def split_huge_page(system: System, page: Page) -> bool:
    """Make single pages of a huge one, everywhere; False when somebody else holds a reference.

    The entries are remade as after migration: old, clean, writable where they were. The pages of a locked area are
    mlocked again, each for itself.
    """
    head = page.private
    if head is None:
        return False
    arch = system.arch
    nr = arch.hpage_pmd_nr
    pages = [part for part in system.mem_map[head.pfn : head.pfn + nr] if part is not None and part.private is head]
    if any(part.refcount != part.mapcount for part in pages):
        system.count_vm_event("thp_split_page_failed")
        return False
    system.count_vm_event("thp_split_page")
    for vma in list(rmap_areas(head)):
        pmd = pmd_offset(vma.vm_mm, vma_address(head, vma))
        entry = system.words[pmd] if pmd >= 0 else 0
        if entry and arch.pmd_trans_huge(entry) and arch.pte_pfn(entry) == head.pfn:
            _split_huge_pmd(vma, pmd, vma_address(head, vma))
    locked = []
    for part in pages:
        for vma, address, index in rmap_walk(system, part):
            _remake_entry(vma, address, index, head)
            if vma.vm_flags & VM_LOCKED:
                locked.append(part)
    inherited = head.flags & HEAD_FLAGS
    for part in pages:
        part.private = None
        part.flags = part.flags & ~(PG_COMPOUND | HEAD_FLAGS) | inherited
    for part in locked:
        mlock_vma_page(system, part)
    return True


def _remake_entry(vma: VmAreaStruct, address: int, index: int, head: Page) -> None:
    """remove_migration_ptes() for one entry of a huge page being split."""
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    pte = system.words[index]
    if arch.pte_dirty(pte):
        head.flags |= PG_DIRTY
    new = arch.pte_mkold(arch.mk_pte(arch.pte_pfn(pte), vma.vm_page_prot))
    if arch.pte_soft_dirty(pte):
        new = arch.pte_mksoft_dirty(new)
    if arch.pte_write(pte):
        new = arch.pte_mkwrite(new)
    system.words[index] = new
    mm.tlb_flush_pending = True
    if system.listener is not None:
        report_pte(mm, address, pte, new)
