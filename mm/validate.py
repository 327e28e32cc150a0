"""Checking an address space against its invariants, by number (the area side; `validate_pages.py` has the pages).

The numbers are those of mm/README.md. `validate_areas` is called after each change of areas when
`system.validate_level` is 1 or more, in the places where Linux's CONFIG_DEBUG_VM_RB calls validate_mm;
`validate_counters` at the end of each call, because within one the counters lag behind; `validate_mm` checks all.
Checks read only: they ask no cache and fill none, so that a checked run behaves as an unchecked one.

    I1   list: vm_next and vm_prev mirror each other; every area is page aligned, not empty, and its vm_mm is right
    I2   list: areas are in order and do not overlap
    I3   tree: an in-order walk meets the areas of the list, in list order; parent links mirror child links
    I4   tree: the root is black, no red node has a red child, all paths have the same number of black nodes
    I5   tree: rb_subtree_gap is the largest gap below an area of the subtree
    I6   map_count is the number of areas; highest_vm_end is the end of the last
    I7   vmacache: while the sequence numbers agree, every slot of the current task holds an area of the list
    I8   anon_vma: each chain entry belongs to its area, is in its AnonVma's tree, and anon_vma is one of the chain
    I9   anon_vma: interval trees are sorted, coloured and augmented right; refcounts and counts are not negative
    I10  files: an area with vm_file is in its file's i_mmap, and only then has `shared` set
    I11  counters: total_vm, exec_vm, stack_vm, data_vm and locked_vm are the sums over the areas
    I12  flags: VM_LOCKED and VM_SPECIAL exclude each other; VM_MAYREAD and so on cover what is allowed now
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mm.errors import KernelBug
from mm.find_vma import vm_start_gap
from mm.flags import VM_ACCESS_FLAGS, VM_EXEC, VM_GROWSDOWN, VM_LOCKED, VM_SHARED, VM_SPECIAL, VM_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.types import AnonVma, MmStruct, RbRoot, VmAreaStruct


def validate_mm(mm: MmStruct) -> None:
    """All invariants of the areas of `mm`, between two calls.

    Raises:
        KernelBug: names the first invariant that does not hold.
    """
    validate_areas(mm)
    validate_counters(mm)


def validate_areas(mm: MmStruct) -> None:
    """The invariants that hold after every single change: I1 to I10 and I12.

    Raises:
        KernelBug: names the first one that does not hold.
    """
    areas = _check_list(mm)
    _check_order(mm, areas)
    _check_tree(mm, areas)
    _check_cache(mm, areas)
    _check_anon_vmas(mm, areas)
    _check_files(mm, areas)


def _check_list(mm: MmStruct) -> list[VmAreaStruct]:
    areas: list[VmAreaStruct] = []
    seen: set[int] = set()
    page = mm.arch.page_size - 1
    prev = None
    vma = mm.mmap
    while vma is not None:
        if id(vma) in seen:
            raise KernelBug(f"I1: the list runs in a circle at {vma!r}", mm)
        seen.add(id(vma))
        if vma.vm_prev is not prev:
            raise KernelBug(f"I1: {vma!r} has vm_prev {vma.vm_prev!r}, but {prev!r} is before it", mm)
        if vma.vm_mm is not mm:
            raise KernelBug(f"I1: {vma!r} belongs to another address space", mm)
        if vma.vm_start & page or vma.vm_end & page or vma.vm_start >= vma.vm_end:
            raise KernelBug(f"I1: {vma!r} is empty or not page aligned", mm)
        areas.append(vma)
        prev = vma
        vma = vma.vm_next
    return areas


def _check_order(mm: MmStruct, areas: list[VmAreaStruct]) -> None:
    end = 0
    for vma in areas:
        if vma.vm_start < end:
            raise KernelBug(f"I2: {vma!r} starts below {end:x}, the end of the area before", mm)
        end = vma.vm_end
        flags = vma.vm_flags
        if flags & VM_LOCKED and flags & VM_SPECIAL:
            raise KernelBug(f"I12: {vma!r} is locked and special", mm)
        # A shared file mapping may be VM_EXEC etc. only where VM_MAY* allows it.
        if flags & ~(flags >> 4) & VM_ACCESS_FLAGS:
            raise KernelBug(f"I12: {vma!r} allows what it may never allow", mm)
    if mm.map_count != len(areas):
        raise KernelBug(f"I6: map_count is {mm.map_count}, the list has {len(areas)} areas", mm)
    if mm.highest_vm_end != end:
        raise KernelBug(f"I6: highest_vm_end is {mm.highest_vm_end:x}, the last area ends at {end:x}", mm)


def check_rbtree(root: RbRoot, mm: object, what: str) -> list[Any]:
    """I3 (links) and I4 of any tree of `rbtree.py`; its nodes in order.

    Raises:
        KernelBug: a link, colour or black height is wrong.
    """
    nodes: list[Any] = []
    top = root.rb_node
    if top is None:
        return nodes
    if top.rb_red or top.rb_parent is not None:
        raise KernelBug(f"I4: the root of {what} is red or has a parent", mm)
    black_height = None
    # (node, black nodes above it): depth first, left to right.
    stack: list[tuple[Any, int]] = []
    node, blacks = top, 0
    while stack or node is not None:
        if node is not None:
            for child in (node.rb_left, node.rb_right):
                if child is not None and child.rb_parent is not node:
                    raise KernelBug(f"I3: in {what} a child of {node!r} has another parent", mm)
                if child is not None and child.rb_red and node.rb_red:
                    raise KernelBug(f"I4: in {what} red {node!r} has a red child", mm)
            blacks += not node.rb_red
            stack.append((node, blacks))
            if node.rb_left is None or node.rb_right is None:
                if black_height is None:
                    black_height = blacks
                elif blacks != black_height:
                    raise KernelBug(f"I4: in {what} a path by {node!r} has {blacks} blacks, not {black_height}", mm)
            node = node.rb_left
        else:
            node, blacks = stack.pop()
            nodes.append(node)
            node = node.rb_right
    return nodes


def _check_tree(mm: MmStruct, areas: list[VmAreaStruct]) -> None:
    nodes = check_rbtree(mm.mm_rb, mm, "mm_rb")
    if len(nodes) != len(areas) or any(node is not vma for node, vma in zip(nodes, areas, strict=True)):
        raise KernelBug("I3: the tree's areas are not the list's", mm)

    def gap(vma: VmAreaStruct) -> int:
        below = vma.vm_prev.vm_end if vma.vm_prev is not None else 0
        return max(vm_start_gap(vma) - below, 0)

    _check_augmentation(mm.mm_rb, "rb_subtree_gap", gap, mm, "I5")


def _check_augmentation(root: RbRoot, field: str, own: Callable[[Any], int], mm: object, number: str) -> None:
    """The augmented value of every node is the maximum of `own` over its subtree."""
    order: list[Any] = []
    pending = [root.rb_node]
    while pending:
        node = pending.pop()
        if node is not None:
            order.append(node)
            pending += (node.rb_left, node.rb_right)
    value: dict[int, int] = {}
    for node in reversed(order):  # children before parents
        best = own(node)
        for child in (node.rb_left, node.rb_right):
            if child is not None:
                best = max(best, value[id(child)])
        value[id(node)] = best
        if getattr(node, field) != best:
            raise KernelBug(f"{number}: {field} of {node!r} is {getattr(node, field):#x}, should be {best:#x}", mm)


def _check_cache(mm: MmStruct, areas: list[VmAreaStruct]) -> None:
    task = mm.system.current
    if task is None or task.mm is not mm or task.vmacache_seqnum != mm.vmacache_seqnum:
        return
    alive = {id(vma) for vma in areas}
    for slot, vma in enumerate(task.vmacache):
        if vma is not None and id(vma) not in alive:
            raise KernelBug(f"I7: slot {slot} of the cache holds {vma!r}, which is gone", mm)


def _check_anon_vmas(mm: MmStruct, areas: list[VmAreaStruct]) -> None:
    trees: dict[int, AnonVma] = {}
    for vma in areas:
        chain = vma.anon_vma_chain
        if vma.anon_vma is None:
            if chain:
                raise KernelBug(f"I8: {vma!r} has a chain but no anon_vma", mm)
            continue
        if not any(avc.anon_vma is vma.anon_vma for avc in chain):
            raise KernelBug(f"I8: the anon_vma of {vma!r} is not in its chain", mm)
        for avc in chain:
            if avc.vma is not vma:
                raise KernelBug(f"I8: a chain entry of {vma!r} belongs to {avc.vma!r}", mm)
            trees[id(avc.anon_vma)] = avc.anon_vma
    members: set[int] = set()
    for anon_vma in trees.values():
        if anon_vma.refcount < 1 or anon_vma.num_children < 0 or anon_vma.num_active_vmas < 0:
            raise KernelBug(
                f"I9: anon_vma counts: {anon_vma.refcount} references, {anon_vma.num_children} children, "
                f"{anon_vma.num_active_vmas} active",
                mm,
            )
        members.update(_check_interval_tree(anon_vma.rb_root, mm, "an anon_vma"))
    for vma in areas:
        for avc in vma.anon_vma_chain:
            if id(avc) not in members:
                raise KernelBug(f"I8: a chain entry of {vma!r} is not in its anon_vma's tree", mm)


def _check_interval_tree(root: RbRoot, mm: MmStruct, what: str) -> set[int]:
    """I9 of one interval tree; the ids of its nodes."""

    def last(node: Any) -> int:
        vma = node.vma
        end: int = vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> mm.arch.page_shift) - 1
        return end

    nodes = check_rbtree(root, mm, what)
    for before, node in pairwise(nodes):
        if before.vma.vm_pgoff > node.vma.vm_pgoff:
            raise KernelBug(f"I9: the tree of {what} is not sorted at {node.vma!r}", mm)
    _check_augmentation(root, "rb_subtree_last", last, mm, "I9")
    return {id(node) for node in nodes}


def _check_files(mm: MmStruct, areas: list[VmAreaStruct]) -> None:
    members: dict[int, set[int]] = {}
    for vma in areas:
        file = vma.vm_file
        if (file is None) != (vma.shared is None):
            raise KernelBug(f"I10: {vma!r} has {'no file but' if file is None else 'a file but no'} i_mmap link", mm)
        if file is None:
            continue
        mapping = file.f_mapping
        if id(mapping) not in members:
            members[id(mapping)] = _check_interval_tree(mapping.i_mmap, mm, "an i_mmap")
        if vma.shared is None or vma.shared.vma is not vma or id(vma.shared) not in members[id(mapping)]:
            raise KernelBug(f"I10: {vma!r} is not in its file's i_mmap", mm)


def validate_counters(mm: MmStruct) -> None:
    """I11: the counters against the areas, between two calls.

    Raises:
        KernelBug: names the counter.
    """
    shift = mm.arch.page_shift
    sums = {"total_vm": 0, "exec_vm": 0, "stack_vm": 0, "data_vm": 0, "locked_vm": 0}
    vma = mm.mmap
    while vma is not None:
        pages = (vma.vm_end - vma.vm_start) >> shift
        flags = vma.vm_flags
        sums["total_vm"] += pages
        if flags & VM_GROWSDOWN:
            sums["stack_vm"] += pages
        elif flags & VM_WRITE:
            if not flags & VM_SHARED:
                sums["data_vm"] += pages
        elif flags & VM_EXEC:
            sums["exec_vm"] += pages
        if flags & VM_LOCKED:
            sums["locked_vm"] += pages
        vma = vma.vm_next
    for name, total in sums.items():
        value = getattr(mm, name)
        # Linux itself may overstate locked_vm: MREMAP_DONTUNMAP of a part of a locked area unlocks all of it.
        if value != total and (name != "locked_vm" or value < total):
            raise KernelBug(f"I11: {name} is {getattr(mm, name)}, the areas add up to {total}", mm)
