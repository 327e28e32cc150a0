"""A student's search for free memory that is right: recursive, over the gaps in the tree."""

import errno

from mm.errors import Errno
from mm.flags import VM_GROWSDOWN

EXERCISE = "unmapped_area"


def gap_below(vma):
    start = vma.vm_prev.vm_end if vma.vm_prev is not None else 0
    end = vma.vm_start
    if vma.vm_flags & VM_GROWSDOWN:
        end = max(end - vma.vm_mm.system.stack_guard_gap, 0)
    return start, end


def limits(info):
    length = info.length + info.align_mask
    if info.high_limit < length or info.low_limit > info.high_limit - length:
        raise Errno(errno.ENOMEM)
    return length, info.low_limit + length, info.high_limit - length


def lowest(node, length, lowest_end, highest_start):
    if node is None or node.rb_subtree_gap < length:
        return None
    start, end = gap_below(node)
    if end >= lowest_end:
        found = lowest(node.rb_left, length, lowest_end, highest_start)
        if found is not None:
            return found
    if start > highest_start:
        return None
    if end >= lowest_end and end - start >= length:
        return start, end
    return lowest(node.rb_right, length, lowest_end, highest_start)


def highest(node, length, lowest_end, highest_start):
    if node is None or node.rb_subtree_gap < length:
        return None
    start, end = gap_below(node)
    if start <= highest_start:
        found = highest(node.rb_right, length, lowest_end, highest_start)
        if found is not None:
            return found
    if end < lowest_end:
        return None
    if start <= highest_start and end - start >= length:
        return start, end
    return highest(node.rb_left, length, lowest_end, highest_start)


def unmapped_area(mm, info):
    length, lowest_end, highest_start = limits(info)
    gap = lowest(mm.mm_rb.rb_node, length, lowest_end, highest_start)
    start = gap[0] if gap is not None else mm.highest_vm_end
    if start > highest_start:
        raise Errno(errno.ENOMEM)
    start = max(start, info.low_limit)
    return start + ((info.align_offset - start) & info.align_mask)


def unmapped_area_topdown(mm, info):
    length, lowest_end, highest_start = limits(info)
    if mm.highest_vm_end <= highest_start:
        end = info.high_limit
    else:
        gap = highest(mm.mm_rb.rb_node, length, lowest_end, highest_start)
        if gap is None:
            raise Errno(errno.ENOMEM)
        end = min(gap[1], info.high_limit)
    start = end - info.length
    return start - ((start - info.align_offset) & info.align_mask)
