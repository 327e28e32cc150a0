"""Linking areas in and out: the list, the gap-augmented tree, and the file's i_mmap (mm/mmap.c, mm/util.c).

Every VMA hangs in two or three structures at once, and they change together:

    mm.mmap  list, by address        vm_next / vm_prev
    mm.mm_rb tree, by address        rb_left / rb_right / rb_parent, and rb_subtree_gap
    i_mmap   tree, by page offset    vma.shared, for a mapped file

`rb_subtree_gap` of a VMA is the largest gap *directly below* any VMA of its subtree, counted from the end of the area
before to the start of the area (less the guard gap below a stack). `unmapped_area.py` searches by it. It depends on
the list (`vm_prev`), so the list is always updated first; and a gap that changes belongs to the area *above* it, which
is why inserting an area updates its successor too.

`mm.highest_vm_end` is the end of the last area: the gap above everything, which belongs to no VMA.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.flags import VM_ACCOUNT, VM_DENYWRITE, VM_GROWSDOWN, VM_MAYWRITE, VM_SHARED
from mm.interval_tree import vma_interval_tree_insert, vma_interval_tree_remove
from mm.rbtree import Augment, rb_erase, rb_insert_color, rb_link_node
from mm.types import SharedNode
from mm.util import security_vm_enough_memory_mm

if TYPE_CHECKING:
    from mm.types import AddressSpace, MmStruct, VmAreaStruct

_SHARED_MAYWRITE = VM_SHARED | VM_MAYWRITE


def _compute_gap(vma: Any) -> bool:
    """Recompute rb_subtree_gap of one VMA (vma_compute_gap and its children's); true if it was right."""
    gap = vma.vm_start
    if vma.vm_flags & VM_GROWSDOWN:
        gap -= vma.vm_mm.system.stack_guard_gap
    prev = vma.vm_prev
    if prev is not None:
        gap -= prev.vm_end
    if gap < 0:
        gap = 0
    child = vma.rb_left
    if child is not None and child.rb_subtree_gap > gap:
        gap = child.rb_subtree_gap
    child = vma.rb_right
    if child is not None and child.rb_subtree_gap > gap:
        gap = child.rb_subtree_gap
    if vma.rb_subtree_gap == gap:
        return True
    vma.rb_subtree_gap = gap
    return False


GAPS = Augment("rb_subtree_gap", _compute_gap)
vma_gap_update = GAPS.propagate  # the gap below this VMA changed: correct it and those above in the tree


def is_shared_maywrite(vm_flags: int) -> bool:
    """May this mapping write to its file, now or after an mprotect?"""
    return vm_flags & _SHARED_MAYWRITE == _SHARED_MAYWRITE


def _vma_link_list(mm: MmStruct, vma: VmAreaStruct, prev: VmAreaStruct | None) -> None:
    """Insert `vma` behind `prev`, at the head where prev is None."""
    vma.vm_prev = prev
    if prev is not None:
        after = prev.vm_next
        prev.vm_next = vma
    else:
        after = mm.mmap
        mm.mmap = vma
    vma.vm_next = after
    if after is not None:
        after.vm_prev = vma


def _vma_unlink_list(mm: MmStruct, vma: VmAreaStruct) -> None:
    prev, after = vma.vm_prev, vma.vm_next
    if prev is not None:
        prev.vm_next = after
    else:
        mm.mmap = after
    if after is not None:
        after.vm_prev = prev


def vma_link_rb(mm: MmStruct, vma: VmAreaStruct, parent: Any, left: bool) -> None:
    """Hang `vma`, which is in the list already, below `parent`, and make gaps and colours right."""
    after = vma.vm_next
    if after is not None:
        vma_gap_update(after)
    else:
        mm.highest_vm_end = vma.vm_end
    # The area enters the tree with gap 0 and as a red leaf; its true gap is propagated before the rebalancing, so
    # that rotations copy right values.
    rb_link_node(vma, parent, mm.mm_rb, left)
    vma.rb_subtree_gap = 0
    vma_gap_update(vma)
    rb_insert_color(vma, mm.mm_rb, GAPS)


def _vma_link_file(vma: VmAreaStruct) -> None:
    """Enter `vma` in its file's i_mmap and count it as a writer, or a denier of writing."""
    file = vma.vm_file
    if file is None:
        return
    mapping = file.f_mapping
    if vma.vm_flags & VM_DENYWRITE:
        mapping.i_writecount -= 1
    if is_shared_maywrite(vma.vm_flags):
        mapping.i_mmap_writable += 1
    vma.shared = SharedNode(vma)
    vma_interval_tree_insert(vma.shared, mapping.i_mmap)


def _remove_shared_vm_struct(vma: VmAreaStruct, mapping: AddressSpace) -> None:
    if vma.vm_flags & VM_DENYWRITE:
        mapping.i_writecount += 1
    if is_shared_maywrite(vma.vm_flags):
        mapping.i_mmap_writable -= 1
    if vma.shared is None:
        raise KernelBug(f"{vma!r} maps a file but is not in its i_mmap", vma.vm_mm)
    vma_interval_tree_remove(vma.shared, mapping.i_mmap)
    vma.shared = None


def unlink_file_vma(vma: VmAreaStruct) -> None:
    """Take `vma` out of its file's i_mmap: truncation no longer reaches it. Called when its page tables go."""
    if vma.vm_file is not None:
        _remove_shared_vm_struct(vma, vma.vm_file.f_mapping)


def vma_rb_erase(vma: VmAreaStruct, mm: MmStruct) -> None:
    """Take `vma` out of the tree; the list is the caller's."""
    rb_erase(vma, mm.mm_rb, GAPS)


def _vma_unlink(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Take `vma` out of tree and list, and make every vmacache of the mm stale."""
    rb_erase(vma, mm.mm_rb, GAPS)
    _vma_unlink_list(mm, vma)
    mm.vmacache_seqnum += 1


def vma_link(mm: MmStruct, vma: VmAreaStruct, prev: VmAreaStruct | None, parent: Any, left: bool) -> None:
    """Link a new area everywhere; (prev, parent, left) come from `find_vma_links`."""
    _vma_link_list(mm, vma, prev)
    mm.ops.vma_link_rb(mm, vma, parent, left)
    if vma.vm_file is not None:
        _vma_link_file(vma)
    mm.map_count += 1
    vma_inserted(mm, vma)


def vma_inserted(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Tell the listener and, at validate_level 1, check the mm."""
    system = mm.system
    if system.listener is not None:
        from mm.events import VmaInsert

        system.listener(VmaInsert.of(vma))
    if system.validate_level:
        from mm.validate import validate_areas

        validate_areas(mm)


def _insert_vm_struct(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Link the second half of a split: list and tree only (i_mmap is done, and it cannot overlap)."""
    links = mm.ops.find_vma_links(mm, vma.vm_start, vma.vm_end)
    if links is None:
        raise KernelBug(f"{vma!r} overlaps an existing area", mm)
    prev, parent, left = links
    _vma_link_list(mm, vma, prev)
    mm.ops.vma_link_rb(mm, vma, parent, left)
    mm.map_count += 1


def insert_vm_struct(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Link a hand-made area (exec's stack, special mappings).

    Raises:
        Errno: ENOMEM where another area overlaps it, or the memory it accounts for cannot be promised.
    """
    links = mm.ops.find_vma_links(mm, vma.vm_start, vma.vm_end)
    if links is None:
        raise Errno(errno.ENOMEM)
    shift = mm.arch.page_shift
    if vma.vm_flags & VM_ACCOUNT:
        security_vm_enough_memory_mm(mm, (vma.vm_end - vma.vm_start) >> shift)
    if vma.vm_ops is None:
        # An anonymous area's page offset is its address, wherever it moves later: pages keep their index, and
        # neighbours with matching offsets can merge.
        vma.vm_pgoff = vma.vm_start >> shift
    vma_link(mm, vma, *links)
