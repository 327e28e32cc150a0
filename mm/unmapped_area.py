"""Finding room: the lowest or the highest free range of a given length, in one descent (unmapped_area).

Free space is the set of gaps between areas. A gap lies below the area that ends it, so the address tree is a tree of
gaps, and `rb_subtree_gap` says how large the largest one of a subtree is. Bottom-up, the answer is the *first* gap in
address order that is long enough and within the limits:

    go left while the left subtree has a long enough gap
    else take the gap of this node, if it is long enough
    else go right if the right subtree has one
    else climb, until we come from a left child: the parent's gap is next in order

Limits prune at both ends. A gap that ends below low_limit + length cannot hold the range, nor can any gap left of it;
one that starts above high_limit - length cannot, nor can any to the right. Since `rb_subtree_gap` ignores the limits a
descent may come up empty, but only along the two edges: the search is O(log n).

The gap above the last area belongs to no node; it is tried last (bottom-up) or first (top-down).

    info          what is asked for, in bytes: length, [low_limit, high_limit), and an alignment
    align_mask    the answer shall be align_offset modulo (align_mask + 1)
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno, KernelBug
from mm.flags import MAP_FIXED, VM_GROWSDOWN

if TYPE_CHECKING:
    from mm.arch import Arch
    from mm.types import MmStruct

ULONG_MAX = 0xFFFFFFFFFFFFFFFF
VM_UNMAPPED_AREA_TOPDOWN = 1


class VmUnmappedAreaInfo:
    """What to search for (struct vm_unmapped_area_info)."""

    __slots__ = ("align_mask", "align_offset", "flags", "high_limit", "length", "low_limit")

    def __init__(self, flags: int, length: int, low_limit: int, high_limit: int, align_mask: int = 0) -> None:
        self.flags = flags  # VM_UNMAPPED_AREA_TOPDOWN or 0
        self.length = length
        self.low_limit = low_limit
        self.high_limit = high_limit
        self.align_mask = align_mask
        self.align_offset = 0


def unmapped_area(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Lowest free range.

    Raises:
        Errno: ENOMEM when there is none.
    """
    length = info.length + info.align_mask  # so much is always enough, wherever the gap starts
    if length > ULONG_MAX or info.high_limit < length:
        raise Errno(errno.ENOMEM)
    high_limit = info.high_limit - length
    if info.low_limit > high_limit:
        raise Errno(errno.ENOMEM)
    gap = _lowest_gap(mm, length, info.low_limit + length, high_limit)
    gap_start, gap_end = gap if gap is not None else (mm.highest_vm_end, ULONG_MAX)
    if gap_start > high_limit:
        raise Errno(errno.ENOMEM)
    gap_start = max(gap_start, info.low_limit)
    gap_start += (info.align_offset - gap_start) & info.align_mask
    if gap_start + info.length > info.high_limit or gap_start + info.length > gap_end:
        raise KernelBug(f"unmapped_area found {gap_start:x} outside its limits", mm)
    return gap_start


def _lowest_gap(mm: MmStruct, length: int, low_limit: int, high_limit: int) -> tuple[int, int] | None:
    """First gap below an area with end >= low_limit, start <= high_limit and room for `length`; None: none of these.

    A gap that starts above high_limit ends the search: it is returned, and refused by the caller.
    """
    vma = mm.mm_rb.rb_node
    if vma is None or vma.rb_subtree_gap < length:
        return None
    guard = mm.system.stack_guard_gap
    descend = True
    while True:
        gap_end = vma.vm_start
        if vma.vm_flags & VM_GROWSDOWN:
            gap_end = max(gap_end - guard, 0)
        if descend and gap_end >= low_limit:
            left = vma.rb_left
            if left is not None and left.rb_subtree_gap >= length:
                vma = left
                continue
        prev = vma.vm_prev
        gap_start = prev.vm_end if prev is not None else 0
        if gap_start > high_limit or (gap_end >= low_limit and gap_end - gap_start >= length):
            return gap_start, gap_end
        right = vma.rb_right
        if right is not None and right.rb_subtree_gap >= length:
            vma = right
            descend = True
            continue
        while True:
            child = vma
            vma = child.rb_parent
            if vma is None:
                return None
            if vma.rb_left is child:
                break
        descend = False


def unmapped_area_topdown(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Highest free range.

    Raises:
        Errno: ENOMEM when there is none.
    """
    length = info.length + info.align_mask
    gap_end = info.high_limit
    if length > ULONG_MAX or gap_end < length:
        raise Errno(errno.ENOMEM)
    high_limit = gap_end - length
    if info.low_limit > high_limit:
        raise Errno(errno.ENOMEM)
    gap_start = mm.highest_vm_end
    if gap_start > high_limit:
        gap_start, gap_end = _highest_gap(mm, length, info.low_limit + length, high_limit)
        gap_end = min(gap_end, info.high_limit)
    gap_end -= info.length
    gap_end -= (gap_end - info.align_offset) & info.align_mask
    if gap_end < info.low_limit or gap_end < gap_start:
        raise KernelBug(f"unmapped_area_topdown found {gap_end:x} outside its limits", mm)
    return gap_end


def _highest_gap(mm: MmStruct, length: int, low_limit: int, high_limit: int) -> tuple[int, int]:
    """Last gap below an area with end >= low_limit, start <= high_limit and room for `length`; Errno(ENOMEM): none."""
    vma = mm.mm_rb.rb_node
    if vma is None or vma.rb_subtree_gap < length:
        raise Errno(errno.ENOMEM)
    guard = mm.system.stack_guard_gap
    descend = True
    while True:
        prev = vma.vm_prev
        gap_start = prev.vm_end if prev is not None else 0
        if descend and gap_start <= high_limit:
            right = vma.rb_right
            if right is not None and right.rb_subtree_gap >= length:
                vma = right
                continue
        gap_end = vma.vm_start
        if vma.vm_flags & VM_GROWSDOWN:
            gap_end = max(gap_end - guard, 0)
        if gap_end < low_limit:
            raise Errno(errno.ENOMEM)
        if gap_start <= high_limit and gap_end - gap_start >= length:
            return gap_start, gap_end
        left = vma.rb_left
        if left is not None and left.rb_subtree_gap >= length:
            vma = left
            descend = True
            continue
        while True:
            child = vma
            vma = child.rb_parent
            if vma is None:
                raise Errno(errno.ENOMEM)
            if vma.rb_right is child:
                break
        descend = False


def vm_unmapped_area(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Free range by `info`, in the direction its flags say; Errno(ENOMEM) when there is none."""
    if info.flags & VM_UNMAPPED_AREA_TOPDOWN:
        return mm.ops.unmapped_area_topdown(mm, info)
    return mm.ops.unmapped_area(mm, info)


def hugetlb_prepare(arch: Arch, mask: int, addr: int, length: int, flags: int) -> bool:
    """What every architecture's hugetlb_get_unmapped_area() begins with: True when `addr` is fixed and can be taken.

    Args:
        mask: size of the huge page less one, bytes.

    Raises:
        Errno: EINVAL for a length or fixed address between huge pages, ENOMEM for more than there is.
    """
    if length & mask:
        raise Errno(errno.EINVAL)
    if length > arch.task_size:
        raise Errno(errno.ENOMEM)
    if flags & MAP_FIXED and addr & mask:
        raise Errno(errno.EINVAL)
    return bool(flags & MAP_FIXED)
