"""Looking areas up: which VMA covers an address, and where a new one would hang (first part of Linux's mm/mmap.c).

All searches run over `mm.mm_rb`, sorted by address, and none of them changes the tree. Only `find_vma` consults and
fills the task's vmacache, and the guest can see that in its cache, so who calls what here is part of the behaviour.

    addresses   ....AAAA......BBBB....
    find_vma        ^-A-^               inside A: A
                        ^---B---^       in the gap or inside B: B, "the first area that ends above addr"
                                  ^     None

Callers reach `find_vma` and `find_vma_links` through `mm.ops`, so that they can be replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import VM_GROWSDOWN
from mm.rbtree import rb_last

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct


def vm_start_gap(vma: VmAreaStruct) -> int:
    """Lowest address `vma` claims: its start, less the guard gap below a stack."""
    if vma.vm_flags & VM_GROWSDOWN:
        return max(vma.vm_start - vma.vm_mm.system.stack_guard_gap, 0)
    return vma.vm_start


def vm_end_gap(vma: VmAreaStruct) -> int:
    """Highest address `vma` claims. No architecture here has stacks that grow up, so it is the end."""
    return vma.vm_end


def find_vma(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """First VMA that ends above `addr` (it need not contain it), or None. The cache learns the answer."""
    ops = mm.ops
    vma = ops.vmacache_find(mm, addr)
    if vma is not None:
        return vma
    node = mm.mm_rb.rb_node
    while node is not None:
        if node.vm_end > addr:
            vma = node
            if node.vm_start <= addr:
                break
            node = node.rb_left
        else:
            node = node.rb_right
    if vma is not None:
        ops.vmacache_update(mm, addr, vma)
    return vma


def find_vma_prev(mm: MmStruct, addr: int) -> tuple[VmAreaStruct | None, VmAreaStruct | None]:
    """(find_vma(addr), the area before it; the last area where there is none above addr)."""
    vma = mm.ops.find_vma(mm, addr)
    if vma is not None:
        return vma, vma.vm_prev
    return None, rb_last(mm.mm_rb)


def find_vma_intersection(mm: MmStruct, start: int, end: int) -> VmAreaStruct | None:
    """First VMA that overlaps [start, end), or None."""
    vma = mm.ops.find_vma(mm, start)
    if vma is not None and end <= vma.vm_start:
        return None
    return vma


def find_vma_links(mm: MmStruct, addr: int, end: int) -> tuple[VmAreaStruct | None, Any, bool] | None:
    """Where an area [addr, end) would be linked: (area before it, tree parent, as left child?).

    None when an existing area overlaps it (the kernel's -ENOMEM). The cache is neither asked nor filled.
    """
    prev = parent = None
    left = False
    node = mm.mm_rb.rb_node
    while node is not None:
        parent = node
        if node.vm_end > addr:
            if node.vm_start < end:
                return None
            left = True
            node = node.rb_left
        else:
            prev = node
            left = False
            node = node.rb_right
    return prev, parent, left


def count_vma_pages_range(mm: MmStruct, addr: int, end: int) -> int:
    """Pages of [addr, end) that are mapped: what a fixed mapping there would take away first."""
    vma = find_vma_intersection(mm, addr, end)
    if vma is None:
        return 0
    shift = mm.arch.page_shift
    nr_pages = (min(end, vma.vm_end) - max(addr, vma.vm_start)) >> shift
    vma = vma.vm_next
    while vma is not None and vma.vm_start <= end:
        nr_pages += (min(end, vma.vm_end) - vma.vm_start) >> shift
        vma = vma.vm_next
    return nr_pages
