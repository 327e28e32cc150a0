"""ksmd's work: page after page of all address spaces, and what becomes of each (mm/ksm.c: ksm_do_scan and below).

    cmp_and_merge_page    a KSM page already   its item joins the page's node
                          like a KSM page      the entry maps that one now, the page goes
                          changed              since the last pass: not now
                          like another page    of the unstable tree: one becomes a KSM page, the other goes
                          else                 into the unstable tree

A page is looked at read-only, and merged only after its entry is made read-only and the contents are compared again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from mm.errors import KernelBug
from mm.flags import MM_ANONPAGES, PG_DIRTY, PG_MLOCKED, PG_RESERVED, VM_LOCKED, VM_MERGEABLE
from mm.huge_memory import split_huge_page
from mm.ksm import ITEMS_PER_FRAME, attach, break_cow, find_mergeable_vma
from mm.ksm_tree import (
    content,
    remove_rmap_item,
    remove_rmap_item_from_tree,
    remove_trailing_rmap_items,
    stable_tree_append,
    stable_tree_insert,
    stable_tree_search,
    unstable_tree_search_insert,
)
from mm.lru import lru_add_drain, mark_page_accessed
from mm.memory_rss import page_anon, page_ksm
from mm.page_alloc import free_plain_anon, put_page
from mm.page_rmap import mlock_vma_page, munlock_vma_page, page_remove_rmap, set_page_dirty
from mm.pgtable import pte_offset, pte_range, report_pte, walk_pmds
from mm.types import AnonVma, MmSlot, Page, RbRoot, RmapItem, StableNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.ksm import Ksm
    from mm.types import MmStruct, VmAreaStruct


def calc_checksum(data: bytes) -> int:
    """Tells whether a page has changed. Linux takes xxhash; nobody sees which it is."""
    return crc32(data)


# -- which page is next ------------------------------------------------------------------------------------------------


def ksm_do_scan(ksm: Ksm, npages: int) -> int:
    """Look at `npages` pages as ksmd, or at those that are left until a pass is complete; how many that were.

    `ksm.left`, what is still to be done in the batch, is counted down, and 0 at the end of a pass.
    """
    system = ksm.system
    current, system.current = system.current, None  # a kernel thread, which uses no address space
    try:
        scanned = 0
        while scanned < npages:
            if ksm.mm_slot is ksm.mm_slots[0] and not _begin_pass(ksm):
                ksm.left = 0
                return scanned
            slot = ksm.mm_slot
            count = _scan_mm(ksm, slot, npages - scanned)
            if count < 0:  # no memory for an item
                ksm.left = 0
                return scanned
            scanned += count
            if scanned < npages and not _next_mm(ksm, slot):
                ksm.left = 0
                return scanned
        ksm.left = max(ksm.left - scanned, 0)
        return scanned
    finally:
        system.current = current


def _begin_pass(ksm: Ksm) -> bool:
    """Go to the first address space; False when there is none."""
    if len(ksm.mm_slots) == 1:
        return False
    lru_add_drain(ksm.system)
    ksm.unstable_tree = RbRoot()
    _enter_mm(ksm, ksm.next_slot(ksm.mm_slot))
    return True


def _enter_mm(ksm: Ksm, slot: MmSlot) -> None:
    ksm.mm_slot = slot
    ksm.address = 0
    ksm.rmap_list = slot


def _next_mm(ksm: Ksm, slot: MmSlot) -> bool:
    """An address space is done: forget the items behind its last page, go to the next; False: the pass is complete."""
    mm = slot.mm
    if mm is None:
        raise KernelBug("ksmd has come to the end of no address space")
    gone = not mm.mm_users
    if gone:
        ksm.address = 0
        ksm.rmap_list = slot
    remove_trailing_rmap_items(ksm, ksm.rmap_list)
    following = ksm.next_slot(slot)
    if not ksm.address:  # gone, or without a mergeable area
        ksm.free_slot(slot)
    if following is not ksm.mm_slots[0]:
        _enter_mm(ksm, following)
        return True
    ksm.mm_slot = following
    ksm.full_scans += 1
    return False


def _scan_mm(ksm: Ksm, slot: MmSlot, npages: int) -> int:
    """Look at up to `npages` pages from `ksm.address` on; how many, -1 when there is no memory for an item."""
    mm = slot.mm
    if mm is None or not mm.mm_users:
        return 0
    scanned = 0
    vma = mm.ops.find_vma(mm, ksm.address)
    page_size = mm.arch.page_size
    while vma is not None:
        if vma.vm_flags & VM_MERGEABLE:
            ksm.address = max(ksm.address, vma.vm_start)
            for address, pfn, owner in _anon_pages(vma, ksm.address) if vma.anon_vma is not None else ():
                item = ksm.rmap_list.rmap_list
                if item is None or item.address != address:
                    item = get_next_rmap_item(ksm, mm, address)
                    if item is None:
                        return -1
                ksm.rmap_list = item
                ksm.address = address + page_size
                if owner is not item.head:  # else a KSM page, and the item knows it
                    cmp_and_merge_page(ksm, pfn, item)
                scanned += 1
                if scanned == npages:
                    return scanned
            ksm.address = vma.vm_end
        vma = vma.vm_next
    return scanned


def _anon_pages(vma: VmAreaStruct, start: int) -> Iterator[tuple[int, int, AnonVma | StableNode]]:
    """(address, frame, mapping) of the area's anonymous pages from `start` on, as they are when they are asked for."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    frames = mm.system.mem_map.frames
    present, special, valid = arch.PTE_PRESENT, arch.PTE_SPECIAL, arch.PTE_VALID
    pfn_mask, page_shift = arch.PTE_PFN_MASK, arch.page_shift
    for first, following, pmd in walk_pmds(mm, start, vma.vm_end):
        address = first
        while address < following and arch.pmd_trans_huge(words[pmd]):  # merging a part of it makes it small pages
            pfn = arch.pte_pfn(words[pmd]) + ((address & (arch.pmd_size - 1)) >> page_shift)
            owner: Any = getattr(frames[pfn], "mapping", None)
            if owner.__class__ is not AnonVma:  # the huge zero page
                address = following
                break
            yield address, pfn, owner
            address += arch.page_size
        if address >= following:
            continue
        low, high = pte_range(mm, pmd, address, following)
        # Merging a page changes no other entry ahead of it, but for flags.
        for number, pte in enumerate(words[low:high].tolist()):
            if pte & present and not pte & special:
                pfn = (pte & pfn_mask) >> page_shift if pte & valid else arch.pte_pfn(pte)
                owner = frames[pfn]
                if owner.__class__ is not AnonVma:
                    owner = owner.mapping  # a frame that is mapped is in use
                    if owner.__class__ is not StableNode and owner.__class__ is not AnonVma:
                        continue
                yield address + (number << page_shift), pfn, owner


def get_next_rmap_item(ksm: Ksm, mm: MmStruct, address: int) -> RmapItem | None:
    """The item for `address`, made if there is none; items between it and the one before are of pages that are gone.

    None when there are as many items as may be.
    """
    previous = ksm.rmap_list
    while previous.rmap_list is not None and previous.rmap_list.address <= address:
        if previous.rmap_list.address == address:
            return previous.rmap_list
        remove_rmap_item(ksm, previous)
    if ksm.rmap_items >= ITEMS_PER_FRAME * len(ksm.system.mem_map):
        return None
    item = RmapItem(mm, address)
    item.rmap_list = previous.rmap_list
    previous.rmap_list = item
    ksm.rmap_items += 1
    return item


# -- what becomes of it ------------------------------------------------------------------------------------------------


def cmp_and_merge_page(ksm: Ksm, pfn: int, item: RmapItem) -> None:
    """Merge the page in frame `pfn`, which is mapped where `item` says, with an equal one, or note that it has none."""
    system = ksm.system
    frame = system.mem_map.frames[pfn]
    data = b""
    if isinstance(frame, Page) and page_ksm(frame) and frame.mapping is not ksm.no_node:
        kpage: Page | None = frame  # a fork has copied the entry, or the item's old page is gone
    else:
        data = content(system, pfn)
        kpage = stable_tree_search(ksm, data)
    remove_rmap_item_from_tree(ksm, item)
    if kpage is not None:
        if try_to_merge_with_ksm_page(ksm, item, pfn, kpage) and isinstance(kpage.mapping, StableNode):
            stable_tree_append(ksm, item, kpage.mapping)
        return
    checksum = calc_checksum(data)
    if item.oldchecksum != checksum:
        item.oldchecksum = checksum
        return
    if ksm.use_zero_pages and _merge_with_zero_page(ksm, item, pfn, checksum):
        return
    found = unstable_tree_search_insert(ksm, item, pfn, data)
    if found is not None:
        _merge_two(ksm, item, pfn, *found)


def _merge_with_zero_page(ksm: Ksm, item: RmapItem, pfn: int, checksum: int) -> bool:
    """use_zero_pages: a page of zeroes gives way to the zero page; True when nothing more is to be done."""
    system = ksm.system
    ksm.zero_checksum = ksm.zero_checksum or calc_checksum(system.zeroes)
    if checksum != ksm.zero_checksum:
        return False
    vma = find_mergeable_vma(item.mm, item.address)
    return vma is None or try_to_merge_one_page(ksm, vma, item.address, pfn, system.mem_map.page(system.zero_pfn))


def _merge_two(ksm: Ksm, item: RmapItem, pfn: int, tree_item: RmapItem, tree_pfn: int) -> None:
    """The page in frame `pfn` becomes a KSM page, and that of `tree_item` gives way to it."""
    system = ksm.system
    kpage = None
    if try_to_merge_with_ksm_page(ksm, item, pfn, None):
        kpage = system.mem_map.page(pfn)
        if not try_to_merge_with_ksm_page(ksm, tree_item, tree_pfn, kpage):
            break_cow(item)
            kpage = None
    if kpage is not None:
        node = stable_tree_insert(ksm, kpage)
        stable_tree_append(ksm, tree_item, node)
        stable_tree_append(ksm, item, node)
        return
    page, tree_page = system.mem_map.frames[pfn], system.mem_map.frames[tree_pfn]
    if isinstance(page, Page) and isinstance(tree_page, Page) and page.private is tree_page.private is not None:
        split_huge_page(system, page)  # two parts of one huge page: next time


def try_to_merge_with_ksm_page(ksm: Ksm, item: RmapItem, pfn: int, kpage: Page | None) -> bool:
    """Let the item's entry map `kpage` instead of frame `pfn`; without one, the frame's page becomes a KSM page."""
    vma = find_mergeable_vma(item.mm, item.address)
    if vma is None or not try_to_merge_one_page(ksm, vma, item.address, pfn, kpage):
        return False
    remove_rmap_item_from_tree(ksm, item)
    attach(item, vma)
    return True


def try_to_merge_one_page(ksm: Ksm, vma: VmAreaStruct, address: int, pfn: int, kpage: Page | None) -> bool:
    """The same for an area; False where it can not be now."""
    system = ksm.system
    if kpage is not None and kpage.pfn == pfn:
        return True
    frame = system.mem_map.frames[pfn]
    if isinstance(frame, Page):
        if not page_anon(frame):
            return False
        if frame.private is not None and not split_huge_page(system, frame):
            return False
    index = write_protect_page(vma, address, pfn)
    if index < 0:
        return False
    if kpage is None:
        page = system.mem_map.page(pfn)
        page.mapping = ksm.no_node
        mark_page_accessed(page)
        page.flags |= PG_DIRTY
        return True
    if content(system, pfn) != content(system, kpage.pfn):
        return False
    replace_page(vma, address, index, pfn, kpage)
    return True


def write_protect_page(vma: VmAreaStruct, address: int, pfn: int) -> int:
    """Make the entry that maps frame `pfn` read-only and clean; its index.

    -1: it is not mapped there, or somebody other than entries holds the page and may be writing to it.
    """
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    index = pte_offset(mm, address)
    pte = system.words[index] if index >= 0 else 0
    if not pte or not arch.pte_present(pte) or arch.pte_pfn(pte) != pfn:
        return -1
    frame = system.mem_map.frames[pfn]
    if isinstance(frame, Page) and page_ksm(frame):  # page_address_in_vma() knows no place for it
        return -1
    if pte & arch.PTE_WRITE or arch.pte_dirty(pte):
        if isinstance(frame, Page):
            if frame.refcount != frame.mapcount:
                return -1
            if arch.pte_dirty(pte):
                set_page_dirty(frame)
        system.words[index] = arch.pte_mkclean(arch.pte_wrprotect(pte))
        mm.tlb_flush_pending = True
        if system.listener is not None:
            report_pte(mm, address, pte, system.words[index])
    return index


def replace_page(vma: VmAreaStruct, address: int, index: int, pfn: int, kpage: Page) -> None:
    """Let the read-only entry at `index` map `kpage`, a KSM page or the zero page, instead of frame `pfn`."""
    mm = vma.vm_mm
    arch = mm.arch
    system = mm.system
    pte = system.words[index]
    entry = arch.mk_pte(kpage.pfn, vma.vm_page_prot)
    if kpage.flags & PG_RESERVED:
        entry |= arch.PTE_SPECIAL
        mm.rss_stat[MM_ANONPAGES] -= 1
    else:
        kpage.refcount += 1
        kpage.mapcount += 1
        if entry & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE:
            arch.sync_icache(mm, kpage, address, entry)
    system.words[index] = entry
    mm.tlb_flush_pending = True
    if system.listener is not None:
        report_pte(mm, address, pte, entry)
    frame = system.mem_map.frames[pfn]
    locked = vma.vm_flags & VM_LOCKED
    if isinstance(frame, Page):
        page_remove_rmap(system, frame)
        if locked:
            munlock_vma_page(system, frame)
        put_page(system, frame)
    else:
        free_plain_anon(system, pfn)
    if locked and not kpage.flags & PG_MLOCKED:
        mlock_vma_page(system, kpage)
