"""khugepaged: small pages of an area that wants huge ones become a huge page (mm/khugepaged.c, anonymous memory).

An address space is registered when one of its areas may have huge pages. The thread (guest/khugepaged.py runs it on the
virtual clock) goes through the registered ones, 2 MiB by 2 MiB where an area covers them whole:

    khugepaged_scan_pmd    may they be one page? Not too many untouched or shared, one writable, one used lately
    collapse_huge_page     a huge page is taken, the content copied, the PTE table goes into reserve

DEVIATION D3: of files nothing is collapsed (shmem_enabled is always "never"), no page is moved to make room for a huge
one, and an area that a merge or a growing stack made large enough counts from its next huge fault or advice on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import (
    MM_ANONPAGES,
    PG_LRU,
    PG_REFERENCED,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_NOHUGEPAGE,
    VM_SPECIAL,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WRITE,
)
from mm.huge_memory import MMF_DISABLE_THP, huge_page, prep_huge_page
from mm.lru import lru_add_drain
from mm.page_alloc import alloc_pages, copy_frame, free_pages, free_plain_anon, put_page
from mm.page_rmap import page_remove_rmap
from mm.pgtable import pmd_offset, report_pte, report_ptes
from mm.types import AnonVma, Page

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, VmAreaStruct

FAILED, NOTHING, COLLAPSED = -1, 0, 1  # what became of 2 MiB: no huge page was to be had; left alone


class Khugepaged:
    """What the thread knows; settings have the names they have in /sys/kernel/mm/transparent_hugepage/khugepaged."""

    def __init__(self, system: System) -> None:
        nr = system.arch.hpage_pmd_nr
        self.system = system
        self.defrag = 1
        self.pages_to_scan = 8 * nr
        self.scan_sleep_millisecs = 10000
        self.alloc_sleep_millisecs = 60000
        self.max_ptes_none = nr - 1  # entries of a collapsed range that may be unused
        self.max_ptes_shared = nr // 2  # that may map a page others map, too
        self.max_ptes_swap = nr // 8
        self.pages_collapsed = 0
        self.full_scans = 0
        self.mms: list[MmStruct] = []  # registered, oldest first
        self.mm: MmStruct | None = None  # where the scan is; None: at the end
        self.address = 0  # bytes: the next to look at there

    def has_work(self) -> bool:
        """khugepaged_has_work()."""
        return bool(self.mms) and self.system.thp_enabled != "never"


def khugepaged_state(system: System) -> Khugepaged:
    """The machine's Khugepaged, made when first asked for."""
    if system.khugepaged is None:
        system.khugepaged = Khugepaged(system)
    state: Khugepaged = system.khugepaged
    return state


# -- address spaces come and go ----------------------------------------------------------------------------------------


def khugepaged_enter(mm: MmStruct) -> None:
    """Register an address space (also khugepaged_fork())."""
    if not mm.khugepaged:
        mm.khugepaged = True
        khugepaged_state(mm.system).mms.append(mm)
        if mm.system.wake_daemons is not None:
            mm.system.wake_daemons()


def khugepaged_enter_vma(vma: VmAreaStruct, vm_flags: int) -> None:
    """Register the address space of `vma`, about to get `vm_flags`, if the area has room for a huge page."""
    if hugepage_vma_check(vma, vm_flags):
        start, end = _bounds(vma)
        if start < end:
            khugepaged_enter(vma.vm_mm)


def khugepaged_exit(mm: MmStruct) -> None:
    """Nobody uses the address space any more; where the scan is just there, the next one forgets it."""
    state = khugepaged_state(mm.system)
    if state.mm is not mm:
        state.mms.remove(mm)
        mm.khugepaged = False


def hugepage_vma_check(vma: VmAreaStruct, vm_flags: int) -> bool:
    """Pages of the area may be collapsed."""
    if vm_flags & (VM_NOHUGEPAGE | VM_SPECIAL | VM_HUGETLB) or vma.vm_mm.flags & MMF_DISABLE_THP:
        return False
    if not vm_flags & VM_HUGEPAGE and vma.vm_mm.system.thp_enabled != "always":
        return False
    return vma.anon_vma is not None and vma.vm_ops is None


def _bounds(vma: VmAreaStruct) -> tuple[int, int]:
    """The part of the area that whole huge pages cover."""
    size = vma.vm_mm.arch.pmd_size
    return (vma.vm_start + size - 1) & -size, vma.vm_end & -size


# -- the scan ----------------------------------------------------------------------------------------------------------


class Scan:
    """One khugepaged_do_scan(): it stops where no huge page can be had, sleeps once, and goes on."""

    def __init__(self, state: Khugepaged) -> None:
        self.state = state
        self.progress = 0  # pages looked at, and 1 for each area
        self.pass_through_head = 0
        self.failed = False  # a huge page was asked for in vain

    def run(self) -> bool:
        """Scan until `pages_to_scan` are done, or once through everything; False where there was no huge page."""
        state = self.state
        system = state.system
        current, system.current = system.current, None  # a kernel thread, which uses no address space
        try:
            lru_add_drain(system)
            while self.progress < state.pages_to_scan:
                self.pass_through_head += state.mm is None
                if not state.has_work() or self.pass_through_head > 1:
                    break
                if not self._scan_mm(state.pages_to_scan - self.progress):
                    return False
            return True
        finally:
            system.current = current

    def _scan_mm(self, pages: int) -> bool:
        """khugepaged_scan_mm_slot(): go on in one address space; False where there was no huge page."""
        state = self.state
        if state.mm is None:
            state.mm = state.mms[0]
            state.address = 0
        mm = state.mm
        vma = mm.ops.find_vma(mm, state.address) if mm.mm_users else None
        limit = self.progress + pages
        self.progress += 1
        while vma is not None:
            start, end = _bounds(vma)
            if not hugepage_vma_check(vma, vma.vm_flags) or start >= end or state.address > end:
                self.progress += 1
                vma = vma.vm_next
                continue
            state.address = max(state.address, start)
            while state.address < end:
                result = khugepaged_scan_pmd(state, vma, state.address)
                state.address += mm.arch.pmd_size
                self.progress += mm.arch.hpage_pmd_nr
                if result != NOTHING:
                    return result == COLLAPSED
                if self.progress >= limit:
                    return True
            vma = vma.vm_next
        self._next_mm(mm)
        return True

    def _next_mm(self, mm: MmStruct) -> None:
        """An address space is done."""
        state = self.state
        index = state.mms.index(mm) + 1
        state.mm = state.mms[index] if index < len(state.mms) else None
        state.address = 0
        state.full_scans += state.mm is None
        if not mm.mm_users:
            state.mms.remove(mm)
            mm.khugepaged = False


def khugepaged_scan_pmd(state: Khugepaged, vma: VmAreaStruct, address: int) -> int:
    """Make the small pages from `address` a huge one if that seems worth it."""
    mm = vma.vm_mm
    arch = mm.arch
    pmd = pmd_offset(mm, address)
    entry = state.system.words[pmd] if pmd >= 0 else 0
    if not entry or arch.pmd_trans_huge(entry):
        return NOTHING
    first = (entry & arch.PTE_PFN_MASK) >> 3
    entries = state.system.words[first : first + arch.hpage_pmd_nr].tolist()
    if not _worth_it(state, vma, entries):
        return NOTHING
    return collapse_huge_page(state, vma, address, pmd, entries)


def _worth_it(state: Khugepaged, vma: VmAreaStruct, entries: list[int]) -> bool:
    """The looks of khugepaged_scan_pmd()."""
    arch = vma.vm_mm.arch
    system = state.system
    unused = shared = absent = referenced = 0
    writable = False
    for pte in entries:
        if pte and not arch.pte_present(pte):
            absent += 1
            if absent > state.max_ptes_swap:
                return False
            continue
        pfn = arch.pte_pfn(pte)
        if not pte or pfn == system.zero_pfn:
            unused += 1
            if vma.vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP) or unused > state.max_ptes_none:
                return False
            continue
        page = system.mem_map.peek(pfn)
        if pte & arch.PTE_UFFD_WP or pte & arch.PTE_SPECIAL or page is None:
            return False
        shared += page.mapcount > 1
        if shared > state.max_ptes_shared or not page.flags & PG_LRU or page.refcount != page.mapcount:
            return False
        writable = writable or bool(pte & arch.PTE_WRITE)
        referenced += arch.pte_young(pte) or bool((page.private or page).flags & PG_REFERENCED)
    return writable and referenced > 0 and not (absent and referenced < arch.hpage_pmd_nr // 2)


def collapse_huge_page(state: Khugepaged, vma: VmAreaStruct, address: int, pmd: int, entries: list[int]) -> int:
    """Put a huge page in the place of the table at PMD entry `pmd`, whose entries are given."""
    mm = vma.vm_mm
    arch = mm.arch
    system = state.system
    words = system.words
    order = arch.pmd_shift - arch.page_shift
    head = alloc_pages(system, order, False)
    if head is None:
        system.count_vm_event("thp_collapse_alloc_failed")
        return FAILED
    system.count_vm_event("thp_collapse_alloc")
    if not _can_isolate(system, entries):
        free_pages(system, head.pfn, order)
        return COLLAPSED  # the attempt counts: khugepaged_scan_pmd() returns 1
    table = words[pmd]
    first = (table & arch.PTE_PFN_MASK) >> 3
    for number, pte in enumerate(entries):
        _copy_page(mm, head.pfn + number, pte)
        words[first + number] = 0
    prep_huge_page(vma, address, head)
    entry = arch.pte_mkdirty(arch.pmd_mkhuge(arch.mk_pte(head.pfn, vma.vm_page_prot)))
    if vma.vm_flags & VM_WRITE:
        entry = arch.pte_mkwrite(entry)
    for number, page in enumerate(huge_page(mm, entry)):
        arch.sync_icache(mm, page, address + (number << arch.page_shift), entry)
    mm.deposited.append((table & arch.PTE_PFN_MASK) >> arch.page_shift)
    words[pmd] = entry
    mm.pte_cache_key = -1
    mm.tlb_flush_pending = True
    if system.listener is not None:
        report_ptes(mm, address, first, entries)
        report_pte(mm, address, 0, entry)
    state.pages_collapsed += 1
    return COLLAPSED


def _can_isolate(system: System, entries: list[int]) -> bool:
    """__collapse_huge_page_isolate(): each page is locked, so a KSM page cannot come twice. Nothing is swapped in."""
    arch = system.arch
    seen = set()
    for pte in entries:
        if not pte:
            continue
        if not arch.pte_present(pte):
            return False
        pfn = arch.pte_pfn(pte)
        if pfn in seen and pfn != system.zero_pfn:
            return False
        seen.add(pfn)
    return True


def _copy_page(mm: MmStruct, to: int, pte: int) -> None:
    """What `pte` maps goes to frame `to`, and has one user less (__collapse_huge_page_copy())."""
    system = mm.system
    pfn = mm.arch.pte_pfn(pte)
    if not pte or pfn == system.zero_pfn:
        copy_frame(system, to, system.zero_pfn)
        mm.rss_stat[MM_ANONPAGES] += 1
        return
    copy_frame(system, to, pfn)
    frame = system.mem_map.frames[pfn]
    if isinstance(frame, AnonVma):
        free_plain_anon(system, pfn)
    elif isinstance(frame, Page):
        page_remove_rmap(system, frame)
        put_page(system, frame)
    else:
        raise KernelBug(f"entry {pte:#x} maps a free frame", mm)
