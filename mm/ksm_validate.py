"""Checks of level 2 for KSM; called by validate_pages.py, numbers as in mm/README.md.

P17 nobody may write to a KSM page: no leaf that maps one is writable
P18 the stable tree is red-black and sorted by content; a chain holds pages of one content, which know it
P19 each RmapItem is in the list of its address space, by address, and in the tree or node that its flags name; the
    counters of /sys/kernel/mm/ksm are what they add up to
P20 every address space with a mergeable area is registered, once, and ksmd's place is in its list
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import VM_MERGEABLE
from mm.ksm import STABLE_FLAG, UNSTABLE_FLAG, Ksm
from mm.ksm_tree import content, is_chain, page_of
from mm.validate import check_rbtree

if TYPE_CHECKING:
    from mm.types import MmSlot, RmapItem, StableNode


def _check(condition: bool, number: str, message: str) -> None:
    if not condition:
        raise KernelBug(f"{number}: {message}")


def check_ksm(ksm: Ksm) -> None:
    """P18, P19, P20. Raises KernelBug."""
    _check_slots(ksm)
    nodes = _check_stable_tree(ksm)
    items = [item for slot in ksm.mm_slots for item in _items(slot)]
    _check_items(ksm, nodes, items)


def _items(slot: MmSlot) -> list[RmapItem]:
    found = []
    item = slot.rmap_list
    while item is not None:
        found.append(item)
        item = item.rmap_list
    return found


def _check_slots(ksm: Ksm) -> None:
    """P20."""
    head, *slots = ksm.mm_slots
    _check(head.mm is None, "P20", "the list of address spaces has lost its head")
    _check(len({id(slot.mm) for slot in slots}) == len(slots), "P20", "an address space is registered twice")
    _check(ksm.mm_slot in ksm.mm_slots, "P20", "ksmd is at an address space that is not in the list")
    for mm in ksm.system.pgd_list:
        vma = mm.mmap
        while vma is not None:
            known = mm.ksm_slot is not None and mm.ksm_slot in slots
            _check(known or not vma.vm_flags & VM_MERGEABLE, "P20", f"nobody scans the address space of {vma!r}")
            vma = vma.vm_next


def _check_stable_tree(ksm: Ksm) -> list[StableNode]:
    """P18; all nodes but chains."""
    nodes: list[StableNode] = []
    before = None
    chains = dups = 0
    for top in check_rbtree(ksm.stable_tree, None, "the stable tree"):
        members: list[StableNode] = list(top.hlist) if is_chain(top) else [top]
        if is_chain(top):
            chains += 1
            dups += len(members)
        for node in members:
            _check(node.chain is (top if node is not top else None), "P18", "a stable node is of another chain")
        nodes += members
        contents = {content(ksm.system, node.kpfn) for node in members if page_of(ksm, node) is not None}
        _check(len(contents) < 2, "P18", "the pages of a chain differ")
        for data in contents:
            _check(before is None or before < data, "P18", "the stable tree is not sorted")
            before = data
    _check(chains == ksm.stable_node_chains, "P18", f"{ksm.stable_node_chains} chains counted, there are {chains}")
    _check(dups == ksm.stable_node_dups, "P18", f"{ksm.stable_node_dups} dups counted, there are {dups}")
    return nodes


def _check_items(ksm: Ksm, nodes: list[StableNode], items: list[RmapItem]) -> None:
    """P19."""
    for slot in ksm.mm_slots:
        last = -1
        for item in _items(slot):
            _check(item.mm is slot.mm and item.address > last, "P19", f"the item of {item.address:#x} is out of place")
            last = item.address
    alive = {id(node) for node in nodes}
    for item in items:
        stable = item.flags == STABLE_FLAG
        _check((item.head is not None) == stable, "P19", f"the item of {item.address:#x} has flags {item.flags}")
        if stable and item.head is not None:
            listed = id(item.head) in alive and item in item.head.hlist and item.anon_vma is not None
            _check(listed, "P19", f"the node of the item of {item.address:#x} does not know it")
        elif item.flags == UNSTABLE_FLAG:
            _check(ksm.full_scans - item.seqnr in (0, 1), "P19", f"the item of {item.address:#x} is forgotten")
    if ksm.mm_slot is not ksm.mm_slots[0]:  # between two passes nobody looks into the old unstable tree
        inside = check_rbtree(ksm.unstable_tree, None, "the unstable tree")
        fresh = [item for item in items if item.flags == UNSTABLE_FLAG and item.seqnr == ksm.full_scans]
        _check({*map(id, inside)} == {*map(id, fresh)}, "P19", "the unstable tree is not that of the items")
    used = [len(node.hlist) for node in nodes if node.hlist]
    counted = {
        "pages_shared": len(used),
        "pages_sharing": sum(used) - len(used),
        "pages_unshared": sum(item.flags == UNSTABLE_FLAG for item in items),
        "rmap_items": len(items),
    }
    for name, count in counted.items():
        _check(getattr(ksm, name) == count, "P19", f"{name} is {getattr(ksm, name)}, counted {count}")
