"""Entries of huge pages in the page tables (arch/*/mm/hugetlbpage.c, huge_pte_* of mm/hugetlb.c).

A size is served by the deepest level whose entries are not larger, with as many of them in a row as it takes:

    x86-64   2 MB   one PMD entry
    arm64    4K:  64 kB  16 PTEs    2 MB  one PMD entry    32 MB  16 PMD entries    1 GB  one PUD entry
             16K:  2 MB 128 PTEs   32 MB  one PMD entry     1 GB  32 PMD entries
             64K:  2 MB  32 PTEs  512 MB  one PMD entry    16 GB  32 PMD entries

Entries in a row carry the contiguous bit, and are read and written together. An entry is an index among RAM's words,
-1 where there is no table; the first of a row stands for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.pgtable import alloc_child_table, report_pte

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.arch import Arch
    from mm.types import MmStruct


def huge_level(arch: Arch, shift: int) -> tuple[int, int]:
    """(level of the tables, log2 of the entries in a row) for huge pages of 2**shift bytes."""
    for level, level_shift in enumerate(arch.level_shifts):
        if level_shift <= shift:
            return level, shift - level_shift
    raise ValueError(f"no huge pages of 2**{shift} bytes")


def huge_pte_offset(mm: MmStruct, address: int, shift: int) -> int:
    """Index of the entry of the huge page at `address`; -1 when a table above it is missing."""
    arch = mm.arch
    words = mm.system.words
    level, _ = huge_level(arch, shift)
    address = address >> shift << shift
    table = mm.pgd << arch.table_word_shift
    for above in arch.level_shifts[:level]:
        entry = words[table + (address >> above & arch.index_mask)]
        if not entry or arch.pmd_trans_huge(entry):
            return -1
        table = (entry & arch.PTE_PFN_MASK) >> 3
    return table + (address >> arch.level_shifts[level] & arch.index_mask)


def huge_pte_range(mm: MmStruct, start: int, end: int, shift: int) -> Iterator[tuple[int, int]]:
    """(address, index) of each huge page's entry in [start, end), empty or not, where there is a table for it."""
    arch = mm.arch
    words = mm.system.words
    level, _ = huge_level(arch, shift)
    address = start
    while address < end:
        table = mm.pgd << arch.table_word_shift
        for above in arch.level_shifts[:level]:
            entry = words[table + (address >> above & arch.index_mask)]
            if not entry or arch.pmd_trans_huge(entry):
                address = (address >> above) + 1 << above
                break
            table = (entry & arch.PTE_PFN_MASK) >> 3
        else:
            last = min((address >> arch.level_shifts[level - 1]) + 1 << arch.level_shifts[level - 1], end)
            for place in range(address, last, 1 << shift):
                yield place, table + (place >> arch.level_shifts[level] & arch.index_mask)
            address = last


def huge_pte_alloc(mm: MmStruct, address: int, shift: int) -> int:
    """The same with tables made as needed; -1 without memory."""
    arch = mm.arch
    level, _ = huge_level(arch, shift)
    address = address >> shift << shift
    table = mm.pgd << arch.table_word_shift
    for above in range(level):
        index = table + (address >> arch.level_shifts[above] & arch.index_mask)
        pfn = alloc_child_table(mm, above, index, address)
        if pfn < 0:
            return -1
        table = pfn << arch.table_word_shift
    return table + (address >> arch.level_shifts[level] & arch.index_mask)


def set_huge_pte_at(mm: MmStruct, address: int, index: int, entry: int, shift: int) -> None:
    """Write an entry, and those in a row with it; each maps the frames that follow."""
    level, contiguous = huge_level(mm.arch, shift)
    words = mm.system.words
    step = 1 << mm.arch.level_shifts[level]
    for number in range(1 << contiguous):
        old = words[index + number]
        words[index + number] = entry + number * step if entry else 0
        if mm.system.listener is not None:
            report_pte(mm, address + number * step, old, words[index + number])


def huge_ptep_get(mm: MmStruct, index: int, shift: int) -> int:
    """The entry, dirty and young if any of its row is."""
    arch = mm.arch
    words = mm.system.words
    entry: int = words[index]
    _, contiguous = huge_level(arch, shift)
    if contiguous and entry:
        for other in words[index + 1 : index + (1 << contiguous)].tolist():
            if arch.pte_dirty(other):
                entry = arch.pte_mkdirty(entry)
            if arch.pte_young(other):
                entry = arch.pte_mkyoung(entry)
    return entry


def huge_ptep_set_access_flags(mm: MmStruct, address: int, index: int, entry: int, dirty: bool, shift: int) -> bool:
    """Relax an entry (and its row) towards `entry`; True when it differed."""
    arch = mm.arch
    words = mm.system.words
    old = words[index]
    _, contiguous = huge_level(arch, shift)
    if not contiguous:
        changed = arch.ptep_set_access_flags(words, index, entry, dirty)
        if mm.system.listener is not None:
            report_pte(mm, address, old, words[index])
        return changed
    row = words[index : index + (1 << contiguous)].tolist()
    if all(
        arch.pte_write(other) == arch.pte_write(entry)
        and arch.pte_dirty(other) == arch.pte_dirty(entry)
        and arch.pte_young(other) == arch.pte_young(entry)
        for other in row
    ):
        return False
    gathered = huge_ptep_get(mm, index, shift)
    if arch.pte_dirty(gathered):
        entry = arch.pte_mkdirty(entry)
    if arch.pte_young(gathered):
        entry = arch.pte_mkyoung(entry)
    set_huge_pte_at(mm, address, index, entry, shift)
    return True
