"""Page tables in guest RAM: walking, allocating and freeing them (mm/memory.c, asm/pgalloc.h).

A table is one frame of 8-byte entries; the root's pfn is `mm.pgd`. Entries are reached as `system.words[index]`, so a
"pointer to a PTE" is an index. The number of levels is data (`arch.level_shifts`): folded levels do not exist here,
which is what folding means. `mm.pgtables_bytes` counts what mm_inc_nr_puds/pmds/ptes() count: every table but the root
and the p4d tables.

    address -> root -> ... -> PMD entry -> PTE table -> PTE
               level_shifts[0]   pmd_shift              page_shift
"""

from __future__ import annotations

from itertools import chain, compress
from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.events import PageTableAlloc, PageTableFree, PteSet
from mm.flags import PG_TABLE
from mm.page_alloc import alloc_pfn, free_page
from mm.types import MmStruct, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.system import System

RUN = 256  # entries that are looked at together
EMPTY_RUN_BYTES = RUN * 8
EMPTY_RUN = bytes(EMPTY_RUN_BYTES)


def alloc_table(system: System, level: str, address: int, root: int = -1) -> int:
    """A cleared frame for a table of `level` below the root table in frame `root` (-1: it is one itself).

    Returns its pfn, or -1 without memory.
    """
    pfn = alloc_pfn(system, True)
    if pfn >= 0:
        # index: 1 for tables that Linux counts (NR_PAGETABLE, PageTable()); upper levels have no constructor there
        system.mem_map[pfn] = Page(pfn, flags=PG_TABLE, index=int(level in ("pte", "pmd")))
        if system.listener is not None:
            system.listener(PageTableAlloc(level, address, pfn, pfn if root < 0 else root))
    return pfn


def free_table(system: System, level: str, address: int, pfn: int) -> None:
    """Give a table's frame back."""
    page = system.mem_map[pfn]
    if page is None or not page.flags & PG_TABLE:
        raise KernelBug(f"{level} table of {address:#x} is in frame {pfn:#x}, which is no page table")
    free_page(system, page)
    if system.listener is not None:
        system.listener(PageTableFree(level, address, pfn))


def pgd_alloc(mm: MmStruct) -> bool:
    """Give `mm` a root table with the kernel's entries in it; False without memory."""
    system = mm.system
    pfn = alloc_table(system, "pgd", 0)
    if pfn < 0:
        return False
    base = pfn << mm.arch.table_word_shift
    for index, entry in system.kernel_pgd:
        system.words[base + index] = entry
    mm.pgd = pfn
    mm.pte_cache_key = -1
    system.pgd_list.append(mm)
    return True


def pgd_free(mm: MmStruct) -> None:
    """Free the root table, which must be empty but for the kernel's entries."""
    system = mm.system
    arch = mm.arch
    base = mm.pgd << arch.table_word_shift
    kernel = {index for index, _ in system.kernel_pgd}
    for index, entry in enumerate(system.words[base : base + arch.ptrs_per_pte].tolist()):
        if entry and index not in kernel:
            raise KernelBug(f"root table is freed with entry {index} in use: {entry:#x}", mm)
    if mm.pgtables_bytes:
        raise KernelBug(f"non-zero pgtables_bytes on freeing mm: {mm.pgtables_bytes}", mm)
    free_table(system, "pgd", 0, mm.pgd)
    system.pgd_list.remove(mm)
    mm.pgd = 0
    mm.pte_cache_key = -1


def pmd_offset(mm: MmStruct, address: int) -> int:
    """Index of the PMD entry of `address`; -1 when a table above it is missing."""
    arch = mm.arch
    words = mm.system.words
    pfn_mask = arch.PTE_PFN_MASK
    index_mask = arch.index_mask
    table = mm.pgd << arch.table_word_shift
    for shift in arch.level_shifts[:-2]:
        entry = words[table + (address >> shift & index_mask)]
        if not entry:
            return -1
        table = (entry & pfn_mask) >> 3
    return table + (address >> arch.pmd_shift & index_mask)


def pte_offset(mm: MmStruct, address: int) -> int:
    """Index of the PTE of `address`; -1 when there is no PTE table (a huge page included)."""
    pmd = pmd_offset(mm, address)
    if pmd < 0:
        return -1
    arch = mm.arch
    entry = mm.system.words[pmd]
    if not entry or arch.pmd_trans_huge(entry):
        return -1
    return ((entry & arch.PTE_PFN_MASK) >> 3) + (address >> arch.page_shift & arch.index_mask)


def alloc_child_table(mm: MmStruct, level: int, index: int, address: int) -> int:
    """The pfn of the table that the entry at `index`, of a table of `level`, points to, made if none; -1: no memory."""
    arch = mm.arch
    words = mm.system.words
    entry = words[index]
    if entry:
        return (entry & arch.PTE_PFN_MASK) >> arch.page_shift
    shift = arch.level_shifts[level]
    pfn = alloc_table(mm.system, arch.level_names[level + 1], address >> shift << shift, mm.pgd)
    if pfn >= 0:
        if arch.level_counted[level + 1]:
            mm.pgtables_bytes += arch.page_size
        words[index] = pfn << arch.page_shift | arch.TABLE
    return pfn


def pmd_alloc(mm: MmStruct, address: int) -> int:
    """Index of the PMD entry of `address`, tables above it made as needed; -1 without memory."""
    arch = mm.arch
    words = mm.system.words
    index_mask = arch.index_mask
    table = mm.pgd << arch.table_word_shift
    for level, shift in enumerate(arch.level_shifts[:-2]):
        index = table + (address >> shift & index_mask)
        entry = words[index]
        if entry:
            table = (entry & arch.PTE_PFN_MASK) >> 3
        else:
            pfn = alloc_child_table(mm, level, index, address)
            if pfn < 0:
                return -1
            table = pfn << arch.table_word_shift
    return table + (address >> arch.pmd_shift & index_mask)


def pte_alloc(mm: MmStruct, pmd: int, address: int) -> int:
    """Index of the PTE of `address` below the (not huge) PMD entry `pmd`, its table made if needed; -1: no memory."""
    arch = mm.arch
    entry = mm.system.words[pmd]
    if entry:
        table = (entry & arch.PTE_PFN_MASK) >> 3
    else:
        pfn = alloc_child_table(mm, len(arch.level_shifts) - 2, pmd, address)
        if pfn < 0:
            return -1
        table = pfn << arch.table_word_shift
    mm.pte_cache_key = address >> arch.pmd_shift
    mm.pte_cache = table
    return table + (address >> arch.page_shift & arch.index_mask)


def pte_alloc_map(mm: MmStruct, address: int) -> int:
    """Index of the PTE of `address`, every table made as needed; -1 without memory."""
    pmd = pmd_alloc(mm, address)
    return pmd if pmd < 0 else pte_alloc(mm, pmd, address)


def walk_pmds(mm: MmStruct, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The PMD entries in use for [start, end): (first address, end address, index), clipped to the range, ascending."""
    arch = mm.arch
    words = mm.system.words
    pfn_mask = arch.PTE_PFN_MASK
    index_mask = arch.index_mask
    pmd_shift = arch.pmd_shift
    upper = arch.level_shifts[:-2]
    root = mm.pgd << arch.table_word_shift
    address = start
    while address < end:
        table = root
        for shift in upper:
            entry = words[table + (address >> shift & index_mask)]
            if not entry:
                address = ((address >> shift) + 1) << shift
                break
            table = (entry & pfn_mask) >> 3
        else:
            # All of this PMD table, then the next one.
            last = min((((address >> upper[-1]) + 1) << upper[-1]) if upper else end, end)
            while address < last:
                following = ((address >> pmd_shift) + 1) << pmd_shift
                if following > last:
                    following = last
                index = table + (address >> pmd_shift & index_mask)
                if words[index]:
                    yield address, following, index
                address = following


def pte_range(mm: MmStruct, pmd: int, start: int, end: int) -> tuple[int, int]:
    """The PTE indexes [first, last) of [start, end) below PMD entry `pmd`, within one PTE table."""
    arch = mm.arch
    table = (mm.system.words[pmd] & arch.PTE_PFN_MASK) >> 3
    first = table + (start >> arch.page_shift & arch.index_mask)
    return first, first + ((end - start) >> arch.page_shift)


def report_pte(mm: MmStruct, address: int, old: int, new: int) -> None:
    """Send a `PteSet` where an entry changed. Callers ask first whether somebody listens; so with the next two."""
    listener = mm.system.listener
    if listener is not None and old != new:
        listener(PteSet(mm.pgd, address & mm.arch.page_mask, old, new))


def report_ptes(mm: MmStruct, address: int, first: int, before: list[int]) -> None:
    """The same for the entries from index `first` on, which serve `address` and up, and were `before`."""
    after = mm.system.words[first : first + len(before)].tolist()
    if before != after:
        for number, old in enumerate(before):
            report_pte(mm, address + (number << mm.arch.page_shift), old, after[number])


def report_moved(mm: MmStruct, old_addr: int, new_addr: int, pmd: int) -> None:
    """The same for a whole PTE table, which went with its PMD entry (now at index `pmd`) to another address."""
    first, _ = pte_range(mm, pmd, 0, 0)
    shift = mm.arch.page_shift
    for number, pte in enumerate(mm.system.words[first : first + mm.arch.ptrs_per_pte].tolist()):
        report_pte(mm, old_addr + (number << shift), pte, 0)
        report_pte(mm, new_addr + (number << shift), 0, pte)


def used_entries(words: memoryview, first: int, last: int) -> Iterator[tuple[int, int]]:
    """(index, entry) of the entries at [first, last) in use, as of now; empty stretches cost next to nothing."""
    parts = []
    for start in range(first, last, RUN):
        part = words[start : min(start + RUN, last)]
        if part.nbytes < EMPTY_RUN_BYTES or part.tobytes() != EMPTY_RUN:
            entries = part.tolist()
            parts.append(compress(enumerate(entries, start), entries))
    return chain.from_iterable(parts)


def free_pgd_range(mm: MmStruct, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the tables of [addr, end) that serve nothing between `floor` and `ceiling` outside it.

    `floor` is the end of the area below, `ceiling` the start of the area above; a ceiling of 0 is the top.
    """
    arch = mm.arch
    addr &= arch.pmd_mask
    if addr < floor:
        addr += arch.pmd_size
    if ceiling:
        ceiling &= arch.pmd_mask
        if not ceiling:
            return
        if end > ceiling:
            end -= arch.pmd_size
    if addr > end - 1:
        return
    mm.pte_cache_key = -1
    mm.tlb_flush_pending = True
    _free_range(mm, 0, mm.pgd, addr, end, floor, ceiling)


def _free_range(mm: MmStruct, level: int, pfn: int, addr: int, end: int, floor: int, ceiling: int) -> None:
    """free_p4d/pud/pmd_range(): free the tables below table `pfn` of `level` for [addr, end)."""
    arch = mm.arch
    system = mm.system
    words = system.words
    shift = arch.level_shifts[level]
    base = pfn << arch.table_word_shift
    below_is_pte = arch.level_names[level + 1] == "pte"
    while addr < end:
        following = min(((addr >> shift) + 1) << shift, end)
        index = base + (addr >> shift & arch.index_mask)
        entry = words[index]
        if entry:
            child = (entry & arch.PTE_PFN_MASK) >> arch.page_shift
            if below_is_pte:
                free = True
            else:
                _free_range(mm, level + 1, child, addr, following, floor, ceiling)
                free = _table_unused(addr, following, shift, floor, ceiling)
            if free:
                words[index] = 0
                free_table(system, arch.level_names[level + 1], addr >> shift << shift, child)
                if arch.level_counted[level + 1]:
                    mm.pgtables_bytes -= arch.page_size
        addr = following


def _table_unused(start: int, end: int, shift: int, floor: int, ceiling: int) -> bool:
    """No other area needs the table that serves [start, end): its whole span lies between floor and ceiling."""
    mask = -1 << shift
    if start & mask < floor:
        return False
    if ceiling:
        ceiling &= mask
        if not ceiling or end > ceiling:
            return False
    return True
