"""Checks of level 2: page tables, frames and counters against an independent walk; numbers as in mm/README.md.

    validate_pages(mm)              one address space: P1 to P6
    validate_system(system, tasks)  all of them together: P1 to P13

  P1  a table entry points to a frame marked as table, used once, with the architecture's table bits
  P2  pgtables_bytes is the size of the tables Linux counts (all but the root and p4d tables)
  P3  every leaf lies in an area
  P4  a leaf maps a frame in use that is no table; entries of frame structs are normal, others special
  P5  a leaf allows no more than its area does; a private area's writable leaf maps an anonymous page
  P6  rss counters are what the leaves add up to, with the tasks' own shares
  P7  mapcount is the number of leaves that map the page, in all address spaces
  P8  refcount is mapcount, plus one for the page cache, plus one for whoever else holds it
  P9  the page's rmap finds every leaf that maps it, unless it is a KSM page
  P10 free lists hold every frame without a struct page once, and the counters agree
  P11 nr_mlock counts the pages marked mlocked, and these are mapped
  P12 no frame is lost: each is a table, mapped, cached, or held on purpose
  P13 the remembered PTE table of a fault is the one a walk finds

Of a KSM page P17: nobody may write to it. More of KSM is in ksm_validate.py, of huge pages in hugetlb_validate.py.

Each raises KernelBug with the number of the invariant. None of this runs unless `system.validate_level` is 2, or a test
calls it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import (
    MM_SWAPENTS,
    NR_MM_COUNTERS,
    PG_HUGETLB,
    PG_HWPOISON,
    PG_MLOCKED,
    PG_RESERVED,
    PG_TABLE,
    VM_ACCESS_FLAGS,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
)
from mm.memory_failure import is_hwpoison_entry
from mm.memory_rss import mm_counter, page_anon, page_ksm
from mm.page_alloc import MAX_ORDER
from mm.page_rmap import rmap_walk, thp_nr_pages
from mm.types import AddressSpace, MmStruct, Page, TaskStruct, VmAreaStruct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mm.system import System


def _check(condition: bool, number: str, message: str, mm: MmStruct | None = None) -> None:
    if not condition:
        raise KernelBug(f"{number}: {message}", mm)


class Walk:
    """What an independent walk of one address space finds."""

    __slots__ = ("leaves", "mm", "tables")

    def __init__(self, mm: MmStruct) -> None:
        self.mm = mm
        self.tables: dict[int, str] = {}  # pfn -> level
        self.leaves: list[tuple[int, int, int]] = []  # (address, index, entry), PMD leaves included
        kernel = {index for index, _ in mm.system.kernel_pgd}
        self.tables[mm.pgd] = "pgd"
        self._table(0, mm.pgd, 0, kernel)
        for pfn in mm.deposited:
            _check(pfn not in self.tables, "P1", f"reserve table {pfn:#x} is linked", mm)
            self.tables[pfn] = "pte"

    def _table(self, level: int, pfn: int, base_address: int, skip: set[int]) -> None:
        mm = self.mm
        arch = mm.arch
        base = pfn << (arch.page_shift - 3)
        shift = arch.level_shifts[level]
        is_leaf_table = level == len(arch.level_shifts) - 1
        for number, entry in enumerate(mm.system.words[base : base + arch.ptrs_per_pte].tolist()):
            if not entry or number in skip:
                continue
            address = base_address | number << shift
            if is_leaf_table or (shift == arch.pmd_shift and arch.pmd_trans_huge(entry)):
                self.leaves.append((address, base + number, entry))
                continue
            child = (entry & arch.PTE_PFN_MASK) >> arch.page_shift
            _check(entry & ~arch.PTE_PFN_MASK == arch.TABLE, "P1", f"table entry {entry:#x} for {address:#x}", mm)
            page = mm.system.mem_map.peek(child) if child < len(mm.system.mem_map) else None
            _check(
                page is not None and bool(page.flags & PG_TABLE) and page.refcount == 1 and not page.mapcount,
                "P1",
                f"{arch.level_names[level + 1]} table of {address:#x} is in frame {child:#x}, which is no table",
                mm,
            )
            _check(child not in self.tables, "P1", f"table in frame {child:#x} is linked twice", mm)
            self.tables[child] = arch.level_names[level + 1]
            self._table(level + 1, child, address, set())


def _areas(mm: MmStruct) -> Iterator[VmAreaStruct]:
    vma = mm.mmap
    while vma is not None:
        yield vma
        vma = vma.vm_next


def _span(walk: Walk, index: int) -> int:
    """Pages a leaf maps: 1, or those of a huge page."""
    arch = walk.mm.arch
    table = index >> (arch.page_shift - 3)
    return arch.hpage_pmd_nr if walk.tables[table] == "pmd" else 1


def validate_pages(mm: MmStruct, tasks: Iterable[TaskStruct] | None = None) -> Walk:
    """Check one address space (P1 to P6, P13). `tasks`: all that use it; by default the running one, if it is alone."""
    walk = Walk(mm)
    arch = mm.arch
    counted = sum(1 for level in walk.tables.values() if level not in ("pgd", "p4d"))
    huge = sum(1 for _, index, entry in walk.leaves if _span(walk, index) > 1 and not _is_hugetlb(mm, entry))
    _check(huge == len(mm.deposited), "P2", f"{huge} huge entries, {len(mm.deposited)} tables in reserve", mm)
    _check(
        counted * arch.page_size == mm.pgtables_bytes,
        "P2",
        f"pgtables_bytes is {mm.pgtables_bytes}, the tables are {counted}",
        mm,
    )
    rss = _check_leaves(walk)
    _check_rss(mm, rss, tasks)
    if mm.pte_cache_key >= 0:
        address = mm.pte_cache_key << arch.pmd_shift
        shift = arch.page_shift - 3
        pfn = mm.pte_cache >> shift
        _check(walk.tables.get(pfn) == "pte", "P13", f"cached PTE table {pfn:#x} is none", mm)
        for leaf, index, _ in walk.leaves:
            if leaf >> arch.pmd_shift == mm.pte_cache_key:
                _check(index >> shift == pfn, "P13", f"cached PTE table of {address:#x} is not its table", mm)
    return walk


def _is_hugetlb(mm: MmStruct, entry: int) -> bool:
    """The leaf maps a page of a hugetlb pool."""
    pfn = mm.arch.pte_pfn(entry)
    page = mm.system.mem_map[pfn] if mm.arch.pte_present(entry) and pfn < len(mm.system.mem_map) else None
    return page is not None and bool(page.flags & PG_HUGETLB)


def _check_leaves(walk: Walk) -> list[int]:
    """P3, P4, P5; the resident pages by counter."""
    mm = walk.mm
    arch = mm.arch
    system = mm.system
    rss = [0] * NR_MM_COUNTERS
    areas = _areas(mm)
    vma = next(areas, None)
    for address, index, entry in walk.leaves:
        while vma is not None and vma.vm_end <= address:
            vma = next(areas, None)
        if vma is None or vma.vm_start > address:
            raise KernelBug(f"P3: leaf {entry:#x} at {address:#x} lies in no area", mm)
        if not arch.pte_present(entry):
            if not is_hwpoison_entry(mm, entry):
                rss[MM_SWAPENTS] += 1
            continue
        pfn = arch.pte_pfn(entry)
        page = system.mem_map.peek(pfn) if pfn < len(system.mem_map) else None
        _check(
            page is not None and not page.flags & PG_TABLE, "P4", f"leaf {entry:#x} at {address:#x}: frame unused", mm
        )
        if page is None:
            continue
        if page.flags & PG_RESERVED and not arch.pte_special(entry):
            _check(pfn == system.huge_zero_pfn, "P4", f"leaf {entry:#x} at {address:#x} maps a reserved frame", mm)
        elif arch.pte_special(entry):
            special = pfn == system.zero_pfn or bool(vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP))
            _check(special, "P4", f"special leaf {entry:#x} at {address:#x}", mm)
        elif page.flags & PG_HUGETLB:
            from mm.hugetlb_validate import check_hugetlb_leaf

            check_hugetlb_leaf(vma, address, entry, page)
            continue
        else:
            rss[mm_counter(page)] += _span(walk, index)
        _check_permission(mm, vma, address, entry, page)
    return rss


def _check_permission(mm: MmStruct, vma: VmAreaStruct, address: int, entry: int, page: Page) -> None:
    """P5 for one leaf."""
    arch = mm.arch
    accessible = bool(vma.vm_flags & VM_ACCESS_FLAGS)
    _check(arch.pte_protnone(entry) != accessible, "P5", f"leaf {entry:#x} at {address:#x} in {vma!r}", mm)
    if arch.pte_write(entry):
        _check(bool(vma.vm_flags & VM_WRITE), "P5", f"writable leaf {entry:#x} at {address:#x} in {vma!r}", mm)
        _check(not page_ksm(page), "P17", f"writable leaf {entry:#x} at {address:#x} of a KSM page in {vma!r}", mm)
        if not vma.vm_flags & VM_SHARED:
            _check(page_anon(page), "P5", f"writable leaf {entry:#x} at {address:#x} of a file's page in {vma!r}", mm)
    if arch.pte_user_exec(entry) and accessible:
        allowed = arch.pte_user_exec(arch.vm_get_page_prot(vma.vm_flags))
        _check(allowed, "P5", f"executable leaf {entry:#x} at {address:#x} in {vma!r}", mm)


def _check_rss(mm: MmStruct, rss: list[int], tasks: Iterable[TaskStruct] | None) -> None:
    """P6."""
    if tasks is None:
        current = mm.system.current
        if mm.mm_users > 1 or current is None or current.mm is not mm:
            return  # shares kept aside by tasks we do not know
        tasks = (current,)
    shown = list(mm.rss_stat)
    for task in tasks:
        if task.mm is mm:
            for member in range(NR_MM_COUNTERS):
                shown[member] += task.rss_stat[member]
    _check(shown == rss, "P6", f"rss counters are {shown}, the leaves add up to {rss}", mm)


def validate_system(system: System, tasks: Iterable[TaskStruct] | None = None, pinned: Iterable[Page] = ()) -> None:
    """Check all address spaces together with the frames (P1 to P13).

    Args:
        tasks: every task, for their shares of rss; None leaves P6 to what the running task shows.
        pinned: pages somebody holds one more reference of (vDSO pages, a file being read ...).
    """
    everyone = None if tasks is None else list(tasks)
    mapped: dict[int, list[tuple[MmStruct, int, bool]]] = {}
    tables: set[int] = set()
    for mm in system.pgd_list:
        walk = validate_pages(mm, everyone)
        for pfn in walk.tables:
            _check(pfn not in tables, "P1", f"table in frame {pfn:#x} serves two address spaces", mm)
            tables.add(pfn)
        for address, index, entry in walk.leaves:
            if mm.arch.pte_present(entry) and not mm.arch.pte_special(entry):
                first = mm.arch.pte_pfn(entry)
                span = _span(walk, index)
                for pfn in range(first, first + span):
                    mapped.setdefault(pfn, []).append((mm, address, span > 1))
    held: dict[int, int] = {}
    for page in pinned:
        held[page.pfn] = held.get(page.pfn, 0) + 1
    pages = list(system.mem_map.in_use())
    everything = pages
    if system.hugetlb is not None:
        from mm.hugetlb_validate import check_pools

        check_pools(system, pages, mapped, held)
        pages = [page for page in pages if not page.flags & PG_HUGETLB]
    if system.ksm is not None:
        from mm.ksm_validate import check_ksm

        check_ksm(system.ksm)
    _check_frames(system, pages, mapped, tables, held)
    _check_free_lists(system, everything)


def _check_frames(
    system: System,
    pages: list[Page],
    mapped: dict[int, list[tuple[MmStruct, int, bool]]],
    tables: set[int],
    held: dict[int, int],
) -> None:
    """P7, P8, P9, P11, P12."""
    mlocked = 0
    for page in pages:
        pfn = page.pfn
        if page.flags & (PG_RESERVED | PG_HWPOISON) or pfn in tables:
            mlocked += page.flags & (PG_RESERVED | PG_MLOCKED) == PG_RESERVED | PG_MLOCKED  # the zero page, by KSM
            continue
        users = mapped.get(pfn, [])
        _check(not page.flags & PG_TABLE, "P12", f"frame {pfn:#x} is a table nobody links")
        _check(page.mapcount == len(users), "P7", f"frame {pfn:#x}: mapcount {page.mapcount}, leaves {len(users)}")
        mapping = page.mapping
        cached = isinstance(mapping, AddressSpace)
        if isinstance(mapping, AddressSpace):
            _check(mapping.pages.get(page.index) is page, "P8", f"frame {pfn:#x} is not where its mapping has it")
        expected = len(users) + cached + held.get(pfn, 0)
        _check(page.refcount > 0 and (expected > 0 or mapping is None), "P12", f"frame {pfn:#x} is lost")
        if mapping is None:  # truncated while mapped, or a special mapping's own page
            _check(page.refcount >= expected, "P8", f"frame {pfn:#x}: refcount {page.refcount}, users {expected}")
        else:
            _check(page.refcount == expected, "P8", f"frame {pfn:#x}: refcount {page.refcount}, users {expected}")
        # Of a KSM page Linux itself may miss what a fork copied and ksmd has not seen since.
        if mapping is not None and not page_ksm(page) and not all(huge for _, _, huge in users):
            found = {(id(vma.vm_mm), address) for vma, address, _ in rmap_walk(system, page)}
            for mm, address, huge in users:
                _check(huge or (id(mm), address) in found, "P9", f"rmap of frame {pfn:#x} misses {address:#x}", mm)
        if page.flags & PG_MLOCKED:
            mlocked += thp_nr_pages(system, page)
            _check(page.mapcount > 0, "P11", f"frame {pfn:#x} is mlocked and not mapped")
    _check(mlocked == system.nr_mlock, "P11", f"nr_mlock is {system.nr_mlock}, marked pages are {mlocked}")


def _check_free_lists(system: System, pages: list[Page]) -> None:
    """P10; `pages` are those of the frames in use."""
    zone = system.zone
    blocks = [(pfn, order) for order, area in enumerate(zone.free_area) for pfn in area]
    blocks += [(pfn, 0) for pfn in zone.pcp]
    blocks.sort()
    frames = system.mem_map.frames
    free = end = 0
    for pfn, order in blocks:
        size = 1 << order
        _check(pfn & (size - 1) == 0, "P10", f"free block {pfn:#x} of order {order} is not aligned")
        _check(pfn >= end, "P10", f"a frame of the free block {pfn:#x}, order {order}, is free twice")
        end = pfn + size
        free += size
    for page in pages:
        pfn = page.pfn
        frame = frames[pfn]
        _check(
            frame is page or frame is page.mapping, "P10", f"the page of frame {pfn:#x} is not where its number says"
        )
        at = bisect_right(blocks, (pfn, MAX_ORDER)) - 1
        used = at >= 0 and pfn < blocks[at][0] + (1 << blocks[at][1])
        _check(not used, "P10", f"frame {pfn:#x} of a free block is in use")
    unused = len(system.mem_map) - len(pages)
    _check(free == unused, "P10", f"{unused} frames are unused, {free} are in the free lists")
    _check(zone.nr_free_pages == free, "P10", f"NR_FREE_PAGES is {zone.nr_free_pages}, counted {free}")
