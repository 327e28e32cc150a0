r"""Exercise 2: where a new area goes, and hanging it into the red-black tree.

Two functions. The first finds the place, on one way down the tree:

    find_vma_links(mm, addr, end)  ->  (prev, parent, left)    or None if [addr, end) overlaps an area

    prev      the area before the range, or None        parent    the node to hang the new one below; None: empty tree
    left      True: as its left child                             ....AAAA....BBBB....
                                                                          ^^ here: prev A, parent A or B

The second hangs it there. The list is done already: vma.vm_prev and vma.vm_next are right.

    vma_link_rb(mm, vma, parent, left)

    node.rb_left, node.rb_right, node.rb_parent    other nodes or None;  mm.mm_rb.rb_node is the root
    node.rb_red                                    True or False
    node.rb_subtree_gap                            bytes, see below
    mm.highest_vm_end                              vm_end of the last area

Red-black rules: the root is black; a red node has no red child; every way down passes equally many black nodes. A new
node is red, which can break only the first two rules. The kernel's repair, and the shape must be the kernel's
(capital: black, small: red; n is the new node; for the mirror image exchange left and right):

    red uncle: recolour, go on from g      black or no uncle, n inside: rotate at p    n outside: rotate at g, done
         G            g                        G              G                            G            P
        / \          / \                      / \            / \                          / \          / \
       p   u   ->   P   U                    p   U    ->    n   U                        p   U   ->   n   g
      /            /                          \            /                            /                  \
     n            n                            n          p                            n                    U

The gap directly below an area is vm_start - (vm_prev.vm_end, or 0 for the first), less mm.system.stack_guard_gap if the
area has VM_GROWSDOWN (mm.flags), but never negative. rb_subtree_gap of a node is the largest gap directly below any
area of its subtree; the search for free memory (exercise 4) descends by it.

Rules
  1. Write the search, the rotations and the gaps yourself (mm/rbtree.py is worth reading afterwards).
  2. Look only at what you need: the way down, and on the way up each node with its children.

Hints
  - [a, b) and [c, d) overlap if and only if a < d and c < b.
  - Which gaps change when an area is inserted? Its own; and another one.
  - compute(node) from the node and its two children is enough: call it from the node up to the root, and in a rotation
    for the lower node first, then for the upper one.

Try it:  pagewalk grade insert.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

EXERCISE = "insert"


def find_vma_links(mm: MmStruct, addr: int, end: int) -> tuple[VmAreaStruct | None, Any, bool] | None:
    """Where an area [addr, end) would be linked: (area before it, parent, as left child?); None: it overlaps one."""
    raise NotImplementedError


def vma_link_rb(mm: MmStruct, vma: VmAreaStruct, parent: Any, left: bool) -> None:
    """Hang `vma` below `parent`: links, colours, gaps, mm.highest_vm_end. This one forgets all but the links."""
    vma.rb_parent = parent
    vma.rb_left = vma.rb_right = None
    if parent is None:
        mm.mm_rb.rb_node = vma
    elif left:
        parent.rb_left = vma
    else:
        parent.rb_right = vma
