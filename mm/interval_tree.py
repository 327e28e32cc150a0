"""Interval trees: which areas of a file, or of an anon_vma, cover a given page offset (mm/interval_tree.c).

The same areas live in two kinds of tree besides the address space's own:

    AddressSpace.i_mmap    SharedNode      every VMA that maps the file         "who maps page 5 of this file?"
    AnonVma.rb_root        AnonVmaChain    every VMA that may hold its pages    "who may map this anonymous page?"

Both are red-black trees sorted by the area's first page offset (`vm_pgoff`), several areas may have the same one, and
each node keeps in `rb_subtree_last` the largest *last* page offset of its subtree. That makes a search for the areas
that meet [first, last] skip whole subtrees: if a subtree's last is below `first`, nothing in it qualifies; if a node
starts above `last`, nothing right of it does.

A node's interval is read from its VMA at every step, so a VMA that is about to change its start, end or pgoff must be
taken out first and put back afterwards (`_vma_adjust` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.rbtree import Augment, rb_erase, rb_insert_color, rb_link_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.types import AnonVmaChain, RbRoot, SharedNode


def _last(node: Any) -> int:
    """Last page offset of the node's VMA (vma_last_pgoff)."""
    vma = node.vma
    last: int = vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> vma.vm_mm.arch.page_shift) - 1
    return last


def _compute(node: Any) -> bool:
    last = _last(node)
    child = node.rb_left
    if child is not None and child.rb_subtree_last > last:
        last = child.rb_subtree_last
    child = node.rb_right
    if child is not None and child.rb_subtree_last > last:
        last = child.rb_subtree_last
    if node.rb_subtree_last == last:
        return True
    node.rb_subtree_last = last
    return False


AUGMENT = Augment("rb_subtree_last", _compute)


def _insert(node: Any, root: RbRoot) -> None:
    start = node.vma.vm_pgoff
    last = _last(node)
    parent = None
    link = root.rb_node
    left = False
    while link is not None:
        parent = link
        if parent.rb_subtree_last < last:
            parent.rb_subtree_last = last
        left = start < parent.vma.vm_pgoff
        link = parent.rb_left if left else parent.rb_right
    node.rb_subtree_last = last
    rb_link_node(node, parent, root, left)
    rb_insert_color(node, root, AUGMENT)


def _search(node: Any, start: int, last: int) -> Any:
    """Leftmost node below `node` that meets [start, last]; some node below ends at or after `start`."""
    while True:
        left = node.rb_left
        if left is not None and start <= left.rb_subtree_last:
            node = left
            continue
        if node.vma.vm_pgoff > last:
            return None
        if start <= _last(node):
            return node
        node = node.rb_right
        if node is None or start > node.rb_subtree_last:
            return None


def _iter_first(root: RbRoot, start: int, last: int) -> Any:
    node = root.rb_node
    if node is None or node.rb_subtree_last < start:
        return None
    return _search(node, start, last)


def _iter_next(node: Any, start: int, last: int) -> Any:
    right = node.rb_right
    while True:
        if right is not None and start <= right.rb_subtree_last:
            return _search(right, start, last)
        while True:  # up, until we come from a left child
            prev = node
            node = node.rb_parent
            if node is None:
                return None
            right = node.rb_right
            if prev is not right:
                break
        if last < node.vma.vm_pgoff:
            return None
        if start <= _last(node):
            return node


def vma_interval_tree_insert(node: SharedNode, root: RbRoot) -> None:
    """Add a file VMA to its mapping's i_mmap."""
    _insert(node, root)


def vma_interval_tree_insert_after(node: SharedNode, prev: SharedNode, root: RbRoot) -> None:
    """Add `node` right behind `prev`, which starts at the same page offset: fork puts the child's area there."""
    last = _last(node)
    parent: Any = prev
    left = False
    if prev.rb_right is not None:
        left = True
        parent = prev.rb_right
        while True:
            if parent.rb_subtree_last < last:
                parent.rb_subtree_last = last
            if parent.rb_left is None:
                break
            parent = parent.rb_left
    node.rb_subtree_last = last
    rb_link_node(node, parent, root, left)
    # The values above prev are right without a propagate: node covers exactly what prev covers.
    rb_insert_color(node, root, AUGMENT)


def vma_interval_tree_remove(node: SharedNode, root: RbRoot) -> None:
    """Take a file VMA out of i_mmap; before its start, end or pgoff change."""
    rb_erase(node, root, AUGMENT)


def vma_interval_tree_foreach(root: RbRoot, first: int, last: int) -> Iterator[SharedNode]:
    """Every file VMA that maps one of the pages [first, last], in tree order."""
    node = _iter_first(root, first, last)
    while node is not None:
        yield node
        node = _iter_next(node, first, last)


def anon_vma_interval_tree_insert(node: AnonVmaChain, root: RbRoot) -> None:
    """Add a (VMA, AnonVma) pair to the AnonVma's tree."""
    _insert(node, root)


def anon_vma_interval_tree_remove(node: AnonVmaChain, root: RbRoot) -> None:
    """Take a pair out of the AnonVma's tree; before the VMA's start, end or pgoff change."""
    rb_erase(node, root, AUGMENT)


def anon_vma_interval_tree_foreach(root: RbRoot, first: int, last: int) -> Iterator[AnonVmaChain]:
    """Every pair whose VMA covers one of the page offsets [first, last], in tree order."""
    node = _iter_first(root, first, last)
    while node is not None:
        yield node
        node = _iter_next(node, first, last)
