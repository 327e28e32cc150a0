"""From a page to the entries that map it (the page side of mm/rmap.c), and the mlocked state of pages (mm/mlock.c).

`mapcount` counts a page's PTEs. rmap_walk() finds them: the page's `mapping` and `index` say in which areas it may be
mapped (an interval tree, by page offset), each area gives one address, and the page tables say whether it is so.

    anonymous page  mapping: AnonVma      index: vm_pgoff of the area + distance from its start
    KSM page        mapping: StableNode   whose RmapItems say where: rmap_walk_ksm() of ksm.py
    file page       mapping: AddressSpace index: page offset in the file
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import (
    PG_DIRTY,
    PG_LRU,
    PG_MLOCKED,
    PG_RESERVED,
    PG_UNEVICTABLE,
    VM_LOCKED,
    VM_SPECIAL,
)
from mm.interval_tree import anon_vma_interval_tree_foreach, vma_interval_tree_foreach
from mm.lru import isolate_lru_page, lru_cache_add
from mm.mem_map import NEW_ANON_FLAGS
from mm.memory_rss import page_ksm
from mm.pgtable import pmd_offset, pte_offset
from mm.types import AddressSpace, AnonVma, Page, VmAreaStruct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.system import System


def linear_page_index(vma: VmAreaStruct, address: int) -> int:
    """Page offset of `address` in what the area maps."""
    return ((address - vma.vm_start) >> vma.vm_mm.arch.page_shift) + vma.vm_pgoff


def page_add_new_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """A new page's first mapping: it becomes anonymous, owned by the area's anon_vma, and goes to the LRU lists.

    lru_cache_add_inactive_or_unevictable() is part of it: in a locked area the page is mlocked from birth.
    """
    if vma.anon_vma is None:
        raise KernelBug(f"anonymous page for {vma!r}, which has no anon_vma", vma.vm_mm)
    page.mapping = vma.anon_vma
    page.index = ((address - vma.vm_start) >> vma.vm_mm.arch.page_shift) + vma.vm_pgoff
    page.mapcount = 1
    page.flags |= NEW_ANON_FLAGS
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_vma_page(vma.vm_mm.system, page)


def page_add_file_rmap(page: Page) -> None:
    """One more PTE maps a page of a file."""
    page.mapcount += 1


def page_remove_rmap(system: System, page: Page) -> None:
    """One PTE less maps the page; the last one takes the mlocked mark along."""
    page.mapcount -= 1
    if page.mapcount <= 0:
        if page.mapcount < 0:
            raise KernelBug(f"frame {page.pfn:#x} has mapcount {page.mapcount}")
        if page.flags & PG_MLOCKED:
            clear_page_mlock(system, page)


def thp_nr_pages(system: System, page: Page) -> int:
    """How many pages a mark on `page` stands for: all of a huge page's when it is the head."""
    return system.arch.hpage_pmd_nr if page.private is page else 1


def mlock_vma_page(system: System, page: Page) -> None:
    """Mark a page mlocked: it can not be reclaimed."""
    if not page.flags & PG_MLOCKED:
        page.flags |= PG_MLOCKED if page.flags & PG_RESERVED else PG_MLOCKED | PG_UNEVICTABLE
        count = thp_nr_pages(system, page)
        system.nr_mlock += count
        system.count_vm_event("unevictable_pgs_mlocked", count)
        if isolate_lru_page(page):
            system.count_vm_event("unevictable_pgs_culled", count)
            lru_cache_add(system, page)


def clear_page_mlock(system: System, page: Page) -> None:
    """Take the mlocked mark away."""
    if page.flags & PG_MLOCKED:
        page.flags &= ~(PG_MLOCKED | PG_UNEVICTABLE)
        count = thp_nr_pages(system, page)
        system.nr_mlock -= count
        system.count_vm_event("unevictable_pgs_cleared", count)
        if isolate_lru_page(page):
            system.count_vm_event("unevictable_pgs_rescued", count)
            lru_cache_add(system, page)
        else:
            system.count_vm_event("unevictable_pgs_stranded", count)


def munlock_vma_page(system: System, page: Page) -> None:
    """A locked area lets go of the page: unless another locked area maps it (try_to_munlock), it is evictable.

    Nobody asks for other areas where the page cannot be isolated.
    """
    if page.flags & PG_MLOCKED and _munlock_isolate(system, page):
        _munlock_isolated_page(system, page)
        lru_cache_add(system, page)


def munlock_pagevec(system: System, pages: list[Page]) -> None:
    """munlock_vma_page() for several: all lose the mark before one is asked about (a KSM page may come twice).

    A page that is mapped once goes back to the lists at once.
    """
    for page in [page for page in pages if page.flags & PG_MLOCKED and _munlock_isolate(system, page)]:
        _munlock_isolated_page(system, page)
        if page.mapcount <= 1:
            page.flags |= PG_LRU
        else:
            lru_cache_add(system, page)


def _munlock_isolate(system: System, page: Page) -> bool:
    """Take the mlocked mark away, and the page off the lists; False where it is on none."""
    page.flags &= ~(PG_MLOCKED | PG_UNEVICTABLE)
    count = thp_nr_pages(system, page)
    system.nr_mlock -= count
    if isolate_lru_page(page):
        return True
    system.count_vm_event("unevictable_pgs_stranded", count)
    return False


def _munlock_isolated_page(system: System, page: Page) -> None:
    """Mark it again where another locked area maps it."""
    if page.mapcount > 1 and any(vma.vm_flags & VM_LOCKED for vma, _, _ in rmap_walk(system, page, True)):
        mlock_vma_page(system, page)
    if not page.flags & PG_MLOCKED:
        count = thp_nr_pages(system, page)
        system.count_vm_event("unevictable_pgs_munlocked", count)
        system.count_vm_event("unevictable_pgs_rescued", count)


def vma_address(page: Page, vma: VmAreaStruct) -> int:
    """Where `vma` would map the page (which must lie in its range of page offsets)."""
    return vma.vm_start + ((page.index - vma.vm_pgoff) << vma.vm_mm.arch.page_shift)


def rmap_areas(page: Page) -> Iterator[VmAreaStruct]:
    """The areas that may map the page (which is no KSM page), by its mapping's interval tree."""
    mapping = page.mapping
    if isinstance(mapping, AnonVma):
        for chain in anon_vma_interval_tree_foreach(mapping.rb_root, page.index, page.index):
            yield chain.vma
    elif isinstance(mapping, AddressSpace):
        for node in vma_interval_tree_foreach(mapping.i_mmap, page.index, page.index):
            yield node.vma


def _rmap_places(page: Page) -> Iterator[tuple[VmAreaStruct, int]]:
    """(area, address) where the page may be mapped."""
    if page_ksm(page):
        from mm.ksm import rmap_walk_ksm

        yield from rmap_walk_ksm(page)
    else:
        for vma in rmap_areas(page):
            yield vma, vma_address(page, vma)


def rmap_walk(system: System, page: Page, huge: bool = False) -> Iterator[tuple[VmAreaStruct, int, int]]:
    """Every mapping of the page: (area, address, index of its PTE among the words of RAM).

    With `huge` also the PMD entries that map it as part of a huge page.
    """
    arch = system.arch
    words = system.words
    for vma, address in _rmap_places(page):
        index = pte_offset(vma.vm_mm, address)
        if huge and index < 0 and page.private is not None:
            pmd = pmd_offset(vma.vm_mm, address)
            entry = words[pmd] if pmd >= 0 else 0
            if entry and arch.pmd_trans_huge(entry) and arch.pte_pfn(entry) == page.pfn & -arch.hpage_pmd_nr:
                yield vma, address, pmd
        elif index >= 0:
            pte = words[index]
            if pte and arch.pte_present(pte) and arch.pte_pfn(pte) == page.pfn:
                yield vma, address, index


def set_page_dirty(page: Page) -> bool:
    """Note that the page's content changed; True when it was clean."""
    if page.flags & PG_DIRTY:
        return False
    page.flags |= PG_DIRTY
    return True
