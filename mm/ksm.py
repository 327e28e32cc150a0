"""KSM: pages with equal content become one page (mm/ksm.c): what is kept, and what the rest of the kernel calls.

Areas ask for it (MADV_MERGEABLE). Their address spaces are registered here, and ksmd (guest/ksmd.py runs ksm_scan.py on
the virtual clock) goes through the pages of all of them, again and again:

    mm_slots     a MmSlot for each address space, with a RmapItem for each page looked at, by address
    stable tree  the KSM pages by content (ksm_tree.py). Nobody may write to them, so the tree stays sorted
    unstable     pages that did not change between two passes, by content; written to at will, so a search can miss.
                 Each pass starts an empty one

A KSM page is a Page whose `mapping` is the StableNode that knows, by RmapItems, where it is mapped. It has no reference
of KSM's own: when the last entry goes it is freed, and the node is found stale the next time somebody comes by
(get_ksm_page). Writing to one always copies it (do_wp_page), whoever else has it.

One node of memory: the kernel's trees for each, and migrate_nodes, are one tree and an empty list. There is no swap, so
ksm_might_need_to_copy() is never asked.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import FAULT_FLAG_REMOTE, FAULT_FLAG_WRITE, PG_RESERVED, VM_FAULT_OOM, VM_FAULT_WRITE, VM_MERGEABLE
from mm.flags import VM_FAULT_ERROR as FAILED
from mm.interval_tree import anon_vma_interval_tree_foreach
from mm.memory_rss import page_ksm
from mm.pgtable import pmd_offset, pte_offset, pte_range, walk_pmds
from mm.rmap import get_anon_vma, put_anon_vma
from mm.types import AnonVma, MmSlot, Page, RbRoot, RmapItem, StableNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.system import System
    from mm.types import MmStruct, VmAreaStruct

KSM_RUN_STOP, KSM_RUN_MERGE, KSM_RUN_UNMERGE = 0, 1, 2
UNSTABLE_FLAG, STABLE_FLAG = 1, 2  # RmapItem.flags
ULONG_MAX = 0xFFFFFFFFFFFFFFFF
ITEMS_PER_FRAME = 4  # RmapItems there may be; Linux, too, has none when memory is short


class Ksm:
    """All that KSM knows; its settings have the names they have in /sys/kernel/mm/ksm."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.run = KSM_RUN_STOP
        self.pages_to_scan = 100  # in one batch of ksmd
        self.sleep_millisecs = 20  # between two batches
        self.merge_across_nodes = 1
        self.max_page_sharing = 256  # RmapItems of a stable node
        self.use_zero_pages = 0  # pages of zeroes become the zero page
        self.stable_node_chains_prune_millisecs = 2000
        self.pages_shared = 0  # stable nodes with RmapItems
        self.pages_sharing = 0  # RmapItems of theirs beyond the first of each
        self.pages_unshared = 0  # RmapItems with UNSTABLE_FLAG
        self.rmap_items = 0
        self.stable_node_chains = 0
        self.stable_node_dups = 0  # nodes in chains
        self.stable_tree = RbRoot()
        self.unstable_tree = RbRoot()
        self.no_node = StableNode()  # mapping of a KSM page that has no stable node (set_page_stable_node(page, NULL))
        self.zero_checksum = 0  # of a page of zeroes; 0: not computed yet
        head = MmSlot(None)
        self.mm_slots = [head]  # a ring, which begins with the slot of no address space (ksm_mm_head)
        # ksm_scan: where ksmd is
        self.mm_slot = head
        self.address = 0  # bytes, in mm_slot.mm: the next to look at
        self.rmap_list: MmSlot | RmapItem = head  # whose `rmap_list` is the item for that address or a higher one
        self.full_scans = 0  # seqnr
        self.left = 0  # pages still to be scanned in the batch
        self.jiffies = 0  # now; whoever lets ksmd run sets it
        self.hz = 250

    def should_run(self) -> bool:
        """ksmd_should_run(): merging is on and there is something to look at."""
        return self.run == KSM_RUN_MERGE and len(self.mm_slots) > 1

    def next_slot(self, slot: MmSlot) -> MmSlot:
        """The slot after `slot`; after the last comes the head."""
        return self.mm_slots[(self.mm_slots.index(slot) + 1) % len(self.mm_slots)]

    def free_slot(self, slot: MmSlot) -> None:
        """Nobody looks at its address space any more."""
        self.mm_slots.remove(slot)
        if slot.mm is not None:
            slot.mm.ksm_slot = None

    @property
    def pages_volatile(self) -> int:
        """RmapItems in neither tree: their pages change too fast."""
        return max(self.rmap_items - self.pages_shared - self.pages_sharing - self.pages_unshared, 0)


def ksm_state(system: System) -> Ksm:
    """The machine's Ksm, made when first asked for."""
    if system.ksm is None:
        system.ksm = Ksm(system)
    ksm: Ksm = system.ksm
    return ksm


# -- address spaces come and go ----------------------------------------------------------------------------------------


def ksm_enter(mm: MmStruct) -> None:
    """Register an address space: as late as possible in this pass, so that a pass can end (also ksm_fork())."""
    ksm = ksm_state(mm.system)
    mm.ksm_slot = MmSlot(mm)
    where = ksm.mm_slots[0] if ksm.run == KSM_RUN_UNMERGE else ksm.mm_slot
    index = ksm.mm_slots.index(where)
    ksm.mm_slots.insert(index or len(ksm.mm_slots), mm.ksm_slot)


def ksm_exit(mm: MmStruct) -> None:
    """Nobody uses the address space any more: its slot goes, or is the next that ksmd sees, who cleans up."""
    ksm = ksm_state(mm.system)
    slot = mm.ksm_slot
    if slot is None or ksm.mm_slot is slot:
        return
    if slot.rmap_list is None:
        ksm.free_slot(slot)
    else:
        ksm.mm_slots.remove(slot)
        ksm.mm_slots.insert(ksm.mm_slots.index(ksm.mm_slot) + 1, slot)


def ksm_madvise(vma: VmAreaStruct, start: int, end: int, mergeable: bool) -> None:
    """MADV_MERGEABLE and MADV_UNMERGEABLE, before the area's flag changes. Raises Errno(EAGAIN) without memory."""
    if mergeable:
        if vma.vm_mm.ksm_slot is None:
            ksm_enter(vma.vm_mm)
    elif vma.anon_vma is not None:
        try:
            unmerge_ksm_pages(vma, start, end)
        except Errno:
            raise Errno(errno.EAGAIN) from None


# -- pages of their own again ------------------------------------------------------------------------------------------


def mapped_pfn(mm: MmStruct, address: int) -> int:
    """The frame of the ordinary page mapped at `address` (follow_page()), part of a huge one or not; -1: none."""
    arch = mm.arch
    words = mm.system.words
    index = pte_offset(mm, address)
    offset = 0
    if index < 0:
        index = pmd_offset(mm, address)
        offset = (address & (arch.pmd_size - 1)) >> arch.page_shift
    pte = words[index] if index >= 0 else 0
    if not pte or not arch.pte_present(pte) or pte & arch.PTE_SPECIAL:
        return -1
    return arch.pte_pfn(pte) + offset


def is_anon_frame(system: System, pfn: int) -> bool:
    """PageAnon() for a frame, whether it has a Page or not."""
    frame = system.mem_map.frames[pfn]
    if isinstance(frame, Page):
        return isinstance(frame.mapping, (AnonVma, StableNode)) and not frame.flags & PG_RESERVED
    return frame is not None


def find_mergeable_vma(mm: MmStruct, address: int) -> VmAreaStruct | None:
    """The area at `address`, if KSM may touch its pages."""
    if not mm.mm_users:  # ksm_test_exit()
        return None
    vma = mm.ops.find_vma(mm, address)
    if vma is None or vma.vm_start > address or not vma.vm_flags & VM_MERGEABLE or vma.anon_vma is None:
        return None
    return vma


def break_ksm(vma: VmAreaStruct, address: int) -> None:
    """Copy the KSM page at `address`, as a write would. Raises Errno(ENOMEM)."""
    mm = vma.vm_mm
    fault = 0
    while not fault & (VM_FAULT_WRITE | FAILED):
        pfn = mapped_pfn(mm, address)
        frame = mm.system.mem_map.frames[pfn] if pfn >= 0 else None
        if not isinstance(frame, Page) or not page_ksm(frame):
            return
        fault = mm.ops.handle_mm_fault(vma, address, FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE)
    if fault & VM_FAULT_OOM:
        raise Errno(errno.ENOMEM)


def unmerge_ksm_pages(vma: VmAreaStruct, start: int, end: int) -> None:
    """Copy every KSM page of [start, end) in the area. Raises Errno(ENOMEM); the pages so far are copied."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    frames = mm.system.mem_map.frames
    for address, following, pmd in walk_pmds(mm, start, end):
        if arch.pmd_trans_huge(words[pmd]):
            continue
        first, last = pte_range(mm, pmd, address, following)
        for number, pte in enumerate(words[first:last].tolist()):
            if pte and arch.pte_present(pte) and not pte & arch.PTE_SPECIAL:
                frame = frames[arch.pte_pfn(pte)]
                if isinstance(frame, Page) and page_ksm(frame):
                    break_ksm(vma, address + (number << arch.page_shift))


def break_cow(item: RmapItem) -> None:
    """The item's page, a KSM page already, is to be an ordinary one again. Without memory it stays as it is."""
    if item.anon_vma is not None:
        put_anon_vma(item.anon_vma)
        item.anon_vma = None
    vma = find_mergeable_vma(item.mm, item.address)
    if vma is not None:
        try:
            break_ksm(vma, item.address)
        except Errno:
            return


def unmerge_and_remove_all_rmap_items(ksm: Ksm) -> None:
    """run = 2: no page is merged any more, and nothing is known of any; the address spaces stay registered.

    Raises:
        Errno: ENOMEM where a page can not be copied.
    """
    from mm.ksm_tree import remove_all_stable_nodes, remove_trailing_rmap_items

    head = ksm.mm_slots[0]
    slot = ksm.next_slot(head)
    try:
        while slot is not head:
            ksm.mm_slot = slot
            mm = slot.mm
            vma = mm.mmap if mm is not None and mm.mm_users else None
            while vma is not None:
                if vma.vm_flags & VM_MERGEABLE and vma.anon_vma is not None:
                    unmerge_ksm_pages(vma, vma.vm_start, vma.vm_end)
                vma = vma.vm_next
            remove_trailing_rmap_items(ksm, slot)
            following = ksm.next_slot(slot)
            if mm is not None and not mm.mm_users:
                ksm.free_slot(slot)
            slot = following
    finally:
        ksm.mm_slot = head
    remove_all_stable_nodes(ksm)
    ksm.full_scans = 0


# -- settings that are more than a number ------------------------------------------------------------------------------


def set_run(ksm: Ksm, value: int) -> None:
    """Write to `run`: 0, 1 or 2 (run_store()). Raises Errno(ENOMEM) where unmerging fails; ksmd is stopped then."""
    _finish_batch(ksm)
    if ksm.run == value:
        return
    ksm.run = value
    if value == KSM_RUN_UNMERGE:
        try:
            unmerge_and_remove_all_rmap_items(ksm)
        except Errno:
            ksm.run = KSM_RUN_STOP
            raise


def set_while_unshared(ksm: Ksm, name: str, value: int) -> None:
    """Write to `max_page_sharing` or `merge_across_nodes`. Raises Errno(EBUSY) while there are KSM pages."""
    from mm.ksm_tree import remove_all_stable_nodes

    if getattr(ksm, name) == value:
        return
    _finish_batch(ksm)
    if ksm.pages_shared or not remove_all_stable_nodes(ksm):
        raise Errno(errno.EBUSY)
    setattr(ksm, name, value)


def _finish_batch(ksm: Ksm) -> None:
    """Wait for ksm_thread_mutex, which ksmd holds as long as a batch takes."""
    if ksm.left:
        from mm.ksm_scan import ksm_do_scan

        ksm_do_scan(ksm, ksm.left)


# -- for rmap ----------------------------------------------------------------------------------------------------------


def rmap_walk_ksm(page: Page) -> Iterator[tuple[VmAreaStruct, int]]:
    """(area, address) where a KSM page may be mapped: by its items, then where a fork since the last pass copied it."""
    seen = set()
    node = page.mapping
    if not isinstance(node, StableNode):
        return
    for search_new_forks in (False, True):
        for item in reversed(node.hlist):
            if item.anon_vma is None:
                continue
            for chain in anon_vma_interval_tree_foreach(item.anon_vma.rb_root, 0, ULONG_MAX):
                vma = chain.vma
                if not vma.vm_start <= item.address < vma.vm_end or (item.mm is vma.vm_mm) == search_new_forks:
                    continue
                if (id(vma), item.address) not in seen:
                    seen.add((id(vma), item.address))
                    yield vma, item.address


def ksm_migrate_page(new: Page, old: Page) -> None:
    """`new`, whose mapping is that of `old` already, is the KSM page from now on."""
    if isinstance(new.mapping, StableNode):
        new.mapping.kpfn = new.pfn
        old.mapping = None


def attach(item: RmapItem, vma: VmAreaStruct) -> None:
    """The item's page is a KSM page of `vma`: its anon_vma must live as long as the item knows it."""
    if vma.anon_vma is not None:
        item.anon_vma = vma.anon_vma
        get_anon_vma(vma.anon_vma)
