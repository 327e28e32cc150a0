"""Exercise 4: finding free memory, from below and from above.

mmap() without an address asks: where are `info.length` free bytes? Two functions answer: the lowest, the highest place.

    low_limit                                                     high_limit
        |....AAAA......BBBB....CCCCCC..............................|
             ^ gap   ^ gap ^ gap    ^ the gap above the last area: mm.highest_vm_end to high_limit, nobody's
       unmapped_area: as low as possible      unmapped_area_topdown: as high as possible

    info.length                     bytes wanted
    info.low_limit, high_limit      the answer and its last byte lie in [low_limit, high_limit)
    info.align_mask, align_offset   (answer - align_offset) & align_mask == 0

A gap lies directly below an area: from vma.vm_prev.vm_end (or 0) to vma.vm_start. Below a stack (vma.vm_flags &
VM_GROWSDOWN) the last mm.system.stack_guard_gap bytes stay free and do not count. The tree of areas is a tree of gaps:

    mm.mm_rb.rb_node                              the root; node.rb_left, rb_right, rb_parent
    node.rb_subtree_gap                           size of the largest gap directly below any area of this subtree

Rules
  1. Look for a gap with room for info.length + info.align_mask within the limits; then move within it, up from its
     start or down from its end, to an aligned address. (That may miss a place that would just do. So
     does the kernel.)
  2. Without a place: raise Errno(errno.ENOMEM).
  3. Descend by rb_subtree_gap: look at about as many areas as the tree is deep.

Hints
  - From below: left first if a gap there is long enough, then the node's own gap, then right. Where there is nothing,
    climb until you come from a left child.
  - rb_subtree_gap ignores limits. A gap that ends below low_limit + length is too low, and so is all to its left; one
    that starts above high_limit - length is too high, and so is all to its right.
  - The empty tree, and the gap above the last area, need a line of their own.

Try it:  pagewalk grade unmapped_area.py
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import VM_GROWSDOWN

if TYPE_CHECKING:
    from mm.types import MmStruct
    from mm.unmapped_area import VmUnmappedAreaInfo

EXERCISE = "unmapped_area"
__all__ = ["VM_GROWSDOWN", "unmapped_area", "unmapped_area_topdown"]


def unmapped_area(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Lowest free range. Raises Errno(ENOMEM) when there is none."""
    raise Errno(errno.ENOMEM)


def unmapped_area_topdown(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Highest free range. Raises Errno(ENOMEM) when there is none."""
    raise Errno(errno.ENOMEM)
