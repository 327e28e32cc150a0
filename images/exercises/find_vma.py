r"""Exercise 1: find_vma, and the cache in front of it.

Every page fault and every memory call begins with the question "which area is this address in?". Write the answer.

    addresses   ....AAAA......BBBB....
    find_vma        ^-A-^                inside A: A
                        ^---B---^        in the hole below B, or inside B: B, "the first area that ends above addr"
                                  ^      above everything: None

An area (`VmAreaStruct`) is [vm_start, vm_end): vm_end is the first byte that no longer belongs to it. The areas hang in
a search tree, sorted by address:

                    mm.mm_rb.rb_node            node.rb_left   areas with lower addresses, or None
                      /          \              node.rb_right  areas with higher addresses, or None
                   lower        higher

In front of the tree there is a cache of four slots for each task (mm/vmacache.py tells why):

    task = mm.system.current                      the running task, or None
    task.vmacache                                 a list of four areas or None
    slot of an address                            (addr >> mm.arch.pmd_shift) & 3
    task.vmacache_seqnum, mm.vmacache_seqnum      equal, or an area was unmapped since: then forget all four slots

Rules
  1. find_vma asks mm.ops.vmacache_find first, walks the tree only on a miss, and tells mm.ops.vmacache_update what the
     tree answered (not when it is None).
  2. A cached area is a hit only if it contains addr. A lookup tries all four slots.
  3. Only the running task's own address space is cached: if mm.system.current is None, or its mm is another one, the
     cache is neither used nor changed.
  4. No search of the list, no copy of the tree: a lookup looks at no more areas than the tree is deep.

Hints
  - Going down the tree: when the node ends above addr it is the best answer so far; can there be a better one, and on
    which side?
  - A list changes in place: task.vmacache[:] = (None, None, None, None)

Try it:  pagewalk grade find_vma.py
         pagewalk run --algorithm find_vma=find_vma.py:find_vma --judge images/x86_64/merge
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

EXERCISE = "find_vma"


def find_vma(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """First area that ends above `addr`, or None."""
    raise NotImplementedError


def vmacache_find(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """The cached area that contains `addr`, or None. A stale cache is forgotten on the way."""
    return None


def vmacache_update(mm: MmStruct, addr: int, newvma: VmAreaStruct) -> None:
    """Remember that a search for `addr` ended at `newvma`."""
