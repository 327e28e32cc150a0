"""Red-black trees with augmentation: insert, erase and rotate exactly as Linux's lib/rbtree.c does.

A red-black tree is a binary search tree that stays shallow because every node is red or black and

    1. a node is either red or black;
    2. the root is black;
    3. a missing child (None) counts as black;
    4. a red node has two black children: no two reds follow each other on a path;
    5. every path from a node down to a missing child passes the same number of black nodes.

From 4 and 5 the longest path is at most twice the shortest. Many repairs keep these rules; which one is taken decides
the shape, and pagewalk shows the kernel's shape, so the choices below are the kernel's, case by case.

Drawings: a capital letter is a black node, a small letter a red one, `(x)` a node of either colour; the node in trouble
is `n`, its parent `p`, grandparent `g`, sibling `s`, uncle `u`. A mirrored half repeats the first with left and right
exchanged and is commented in one line.

Nodes are intrusive: whatever has the slots `rb_left rb_right rb_parent rb_red` is a node, and its owner links it by
hand (`rb_link_node`) before it asks for the repair. An augmented tree keeps in each node a value computed from its
whole subtree. All of that follows from one function, `compute(node)`: see `Augment`.

Failure modes: none of these functions allocate or fail. Linking a node twice corrupts the tree silently, as in the
kernel; `validate.py` finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mm.types import RbRoot


class Augment:
    """How a tree keeps a per-subtree value, derived from one function.

    Args:
        field: name of the slot that holds the subtree's value.
        compute: recomputes `field` of one node from the node and its two children; true if it was right already.
    """

    __slots__ = ("compute", "field")

    def __init__(self, field: str, compute: Callable[[Any], bool]) -> None:
        self.field = field
        self.compute = compute

    def propagate(self, node: Any, stop: Any = None) -> None:
        """Recompute from `node` upwards, up to but without `stop`; ends early where a value was right already."""
        compute = self.compute
        while node is not stop and not compute(node):
            node = node.rb_parent

    def copy(self, old: Any, new: Any) -> None:
        """`new` takes the place of `old`: its subtree's value is the same until the next propagate."""
        setattr(new, self.field, getattr(old, self.field))

    def rotate(self, old: Any, new: Any) -> None:
        """`new` was turned above `old`: it heads the same set of nodes, `old` heads fewer."""
        setattr(new, self.field, getattr(old, self.field))
        self.compute(old)


def rb_link_node(node: Any, parent: Any, root: RbRoot, left: bool) -> None:
    """Hang `node`, red and without children, below `parent`; as the root of `root` where parent is None."""
    node.rb_parent = parent
    node.rb_left = node.rb_right = None
    node.rb_red = True
    if parent is None:
        root.rb_node = node
    elif left:
        parent.rb_left = node
    else:
        parent.rb_right = node


def _change_child(old: Any, new: Any, parent: Any, root: RbRoot) -> None:
    """Whoever pointed down at `old` now points at `new` (__rb_change_child)."""
    if parent is None:
        root.rb_node = new
    elif parent.rb_left is old:
        parent.rb_left = new
    else:
        parent.rb_right = new


def _rotate_set_parents(old: Any, new: Any, root: RbRoot, old_red: bool) -> None:
    """`new` inherits parent and colour of `old`, and becomes its parent (__rb_rotate_set_parents)."""
    parent = old.rb_parent
    new.rb_parent = parent
    new.rb_red = old.rb_red
    old.rb_parent = new
    old.rb_red = old_red
    if parent is None:
        root.rb_node = new
    elif parent.rb_left is old:
        parent.rb_left = new
    else:
        parent.rb_right = new


def rb_insert_color(node: Any, root: RbRoot, augment: Augment | None = None) -> None:
    """Restore the properties after `rb_link_node`: only 2 or 4 can be broken, and only at `node` (__rb_insert).

    The caller of an augmented tree has already made the values on the path above `node` right.
    """
    parent = node.rb_parent
    while True:
        # Loop invariant: node is red; properties 1, 3 and 5 hold.
        if parent is None:
            node.rb_red = False  # the first node, or recolouring reached the top: property 2, and we are done
            return
        if not parent.rb_red:
            return  # property 4 holds
        gparent = parent.rb_parent  # exists and is black: a red parent is not the root
        uncle = gparent.rb_right
        if parent is not uncle:  # parent is gparent's left child
            if uncle is not None and uncle.rb_red:
                # Case 1, red uncle: recolour.     G            g
                # Still broken: g may have a      / \          / \
                # red parent, so go on from g.   p   u  -->   P   U
                #                               /            /
                #                              n            n
                uncle.rb_red = parent.rb_red = False
                gparent.rb_red = True
                node = gparent
                parent = node.rb_parent
                continue
            if parent.rb_right is node:
                # Case 2, node on the inside: turn left at the parent.    G             G
                # Still broken: n and p are both red; case 3 repairs.    / \           / \
                #                                                       p   U  -->   n   U
                #                                                        \          /
                #                                                         n        p
                inner = node.rb_left
                parent.rb_right = inner
                node.rb_left = parent
                if inner is not None:
                    inner.rb_parent = parent
                    inner.rb_red = False
                parent.rb_parent = node
                parent.rb_red = True
                if augment is not None:
                    augment.rotate(parent, node)
                parent = node
            # Case 3, node on the outside: turn right at the grandparent.    G           P
            # Nothing is broken any more.                                   / \         / \
            #                                                              p   U  -->  n   g
            #                                                             /                 \
            #                                                            n                   U
            inner = parent.rb_right
            gparent.rb_left = inner
            parent.rb_right = gparent
        else:  # mirrored: parent is gparent's right child
            uncle = gparent.rb_left
            if uncle is not None and uncle.rb_red:  # case 1: recolour, go on from gparent
                uncle.rb_red = parent.rb_red = False
                gparent.rb_red = True
                node = gparent
                parent = node.rb_parent
                continue
            if parent.rb_left is node:  # case 2: turn right at the parent
                inner = node.rb_right
                parent.rb_left = inner
                node.rb_right = parent
                if inner is not None:
                    inner.rb_parent = parent
                    inner.rb_red = False
                parent.rb_parent = node
                parent.rb_red = True
                if augment is not None:
                    augment.rotate(parent, node)
                parent = node
            inner = parent.rb_left  # case 3: turn left at the grandparent
            gparent.rb_right = inner
            parent.rb_left = gparent
        if inner is not None:
            inner.rb_parent = gparent
            inner.rb_red = False
        _rotate_set_parents(gparent, parent, root, True)
        if augment is not None:
            augment.rotate(gparent, parent)
        return


def _erase_color(parent: Any, root: RbRoot, augment: Augment | None) -> None:
    """Restore property 5 below `parent`, one of whose subtrees lost a black node (____rb_erase_color)."""
    node = None
    while True:
        # Loop invariants: node is black (or None); node is not the root; paths through node have one black too few.
        sibling = parent.rb_right  # exists: its paths have a black more than node's
        if node is not sibling:  # node is the left child
            if sibling.rb_red:
                # Case 1, red sibling: turn left at the parent.    P               S
                # Still broken, but the sibling is black now.     / \             / \
                #                                                N   s    -->    p   Sr
                #                                                   / \         / \
                #                                                  Sl  Sr      N   Sl
                near = sibling.rb_left
                parent.rb_right = near
                sibling.rb_left = parent
                near.rb_parent = parent
                near.rb_red = False
                _rotate_set_parents(parent, sibling, root, True)
                if augment is not None:
                    augment.rotate(parent, sibling)
                sibling = near
            far = sibling.rb_right
            if far is None or not far.rb_red:
                near = sibling.rb_left
                if near is None or not near.rb_red:
                    # Case 2, sibling has no red child: make it red.    (p)          (p)
                    # Paths through p are equal now, and one short:     / \          / \
                    # a red p turns black and mends it, a black p      N   S   -->  N   s
                    # becomes the node in trouble.                        / \          / \
                    #                                                   Sl   Sr      Sl   Sr
                    sibling.rb_parent = parent
                    sibling.rb_red = True
                    if parent.rb_red:
                        parent.rb_red = False
                        return
                    node = parent
                    parent = node.rb_parent
                    if parent is None:
                        return
                    continue
                # Case 3, only the near nephew is red: turn right at the    (p)           (p)
                # sibling. Still broken; the red far nephew that case 4     / \           / \
                # needs is s. (Its colour is set there.)                   N   S    -->  N   sl
                #                                                             / \             \
                #                                                            sl  Sr            S
                #                                                                               \
                #                                                                                Sr
                inner = near.rb_right
                sibling.rb_left = inner
                near.rb_right = sibling
                parent.rb_right = near
                if inner is not None:
                    inner.rb_parent = sibling
                    inner.rb_red = False
                if augment is not None:
                    augment.rotate(sibling, near)
                far = sibling
                sibling = near
            # Case 4, the far nephew is red: turn left at the parent; s    (p)             (s)
            # takes its colour, p and the nephew turn black. Mended.       / \             / \
            #                                                             N   S     -->   P   Sr
            #                                                                / \         / \
            #                                                             (sl) sr       N  (sl)
            inner = sibling.rb_left
            parent.rb_right = inner
            sibling.rb_left = parent
        else:  # mirrored: node is the right child
            sibling = parent.rb_left
            if sibling.rb_red:  # case 1: turn right at the parent
                near = sibling.rb_right
                parent.rb_left = near
                sibling.rb_right = parent
                near.rb_parent = parent
                near.rb_red = False
                _rotate_set_parents(parent, sibling, root, True)
                if augment is not None:
                    augment.rotate(parent, sibling)
                sibling = near
            far = sibling.rb_left
            if far is None or not far.rb_red:
                near = sibling.rb_right
                if near is None or not near.rb_red:  # case 2: recolour the sibling
                    sibling.rb_parent = parent
                    sibling.rb_red = True
                    if parent.rb_red:
                        parent.rb_red = False
                        return
                    node = parent
                    parent = node.rb_parent
                    if parent is None:
                        return
                    continue
                inner = near.rb_left  # case 3: turn left at the sibling
                sibling.rb_right = inner
                near.rb_left = sibling
                parent.rb_left = near
                if inner is not None:
                    inner.rb_parent = sibling
                    inner.rb_red = False
                if augment is not None:
                    augment.rotate(sibling, near)
                far = sibling
                sibling = near
            inner = sibling.rb_right  # case 4: turn right at the parent
            parent.rb_left = inner
            sibling.rb_right = parent
        far.rb_parent = sibling
        far.rb_red = False
        if inner is not None:
            inner.rb_parent = parent
        _rotate_set_parents(parent, sibling, root, False)
        if augment is not None:
            augment.rotate(parent, sibling)
        return


def rb_erase(node: Any, root: RbRoot, augment: Augment | None = None) -> None:
    """Take `node` out of the tree (__rb_erase_augmented and rb_erase). Its own links stay as they were."""
    child = node.rb_right
    left = node.rb_left
    parent = node.rb_parent
    if left is None:
        # Case 1, at most one child: it takes the place. By 5 a lone child is red, by 4 its parent is black, so the
        # child only has to take node's colour; without a child, a black is missing below parent.
        _change_child(node, child, parent, root)
        if child is not None:
            child.rb_parent = parent
            child.rb_red = node.rb_red
            rebalance = None
        else:
            rebalance = None if node.rb_red else parent
        changed = parent
    elif child is None:  # still case 1, the child is on the left
        left.rb_parent = parent
        left.rb_red = node.rb_red
        _change_child(node, left, parent, root)
        rebalance = None
        changed = parent
    else:
        changed, rebalance = _erase_inner(node, root, augment)
    if augment is not None:
        augment.propagate(changed)
    if rebalance is not None:
        _erase_color(rebalance, root, augment)


def _erase_inner(node: Any, root: RbRoot, augment: Augment | None) -> tuple[Any, Any]:
    """Put the successor in the place of a node with two children; (node to propagate from, parent to rebalance)."""
    successor = child = node.rb_right
    if child.rb_left is None:
        # Case 2, the right child is the successor.    (n)          (s)
        #                                              / \          / \
        #                                            (x) (s)  --> (x) (c)
        #                                                  \
        #                                                  (c)
        parent = successor
        orphan = successor.rb_right
        if augment is not None:
            augment.copy(node, successor)
    else:
        # Case 3, the successor is leftmost below the right child.    (n)          (s)
        #                                                             / \          / \
        #                                                           (x) (y)  --> (x) (y)
        #                                                               /            /
        #                                                             (p)          (p)
        #                                                             /            /
        #                                                           (s)          (c)
        #                                                             \
        #                                                             (c)
        while successor.rb_left is not None:
            parent = successor
            successor = successor.rb_left
        orphan = successor.rb_right
        parent.rb_left = orphan
        successor.rb_right = child
        child.rb_parent = successor
        if augment is not None:
            augment.copy(node, successor)
            augment.propagate(parent, successor)
    left = node.rb_left
    successor.rb_left = left
    left.rb_parent = successor
    above = node.rb_parent
    _change_child(node, successor, above, root)
    if orphan is not None:
        orphan.rb_parent = parent
        orphan.rb_red = False
        rebalance = None
    else:
        rebalance = None if successor.rb_red else parent
    successor.rb_parent = above
    successor.rb_red = node.rb_red
    return successor, rebalance


def rb_replace_node(victim: Any, new: Any, root: RbRoot) -> None:
    """Put `new`, linked nowhere, in the place of `victim`, with its colour. In a tree that is not augmented."""
    new.rb_left, new.rb_right = victim.rb_left, victim.rb_right
    new.rb_parent, new.rb_red = victim.rb_parent, victim.rb_red
    for child in (new.rb_left, new.rb_right):
        if child is not None:
            child.rb_parent = new
    _change_child(victim, new, victim.rb_parent, root)


def rb_first(root: RbRoot) -> Any:
    """Leftmost node, or None."""
    node = root.rb_node
    if node is not None:
        while node.rb_left is not None:
            node = node.rb_left
    return node


def rb_last(root: RbRoot) -> Any:
    """Rightmost node, or None."""
    node = root.rb_node
    if node is not None:
        while node.rb_right is not None:
            node = node.rb_right
    return node


def rb_next(node: Any) -> Any:
    """In-order successor, or None."""
    if node.rb_right is not None:
        node = node.rb_right
        while node.rb_left is not None:
            node = node.rb_left
        return node
    parent = node.rb_parent
    while parent is not None and node is parent.rb_right:
        node = parent
        parent = node.rb_parent
    return parent


def rb_prev(node: Any) -> Any:
    """In-order predecessor, or None."""
    if node.rb_left is not None:
        node = node.rb_left
        while node.rb_right is not None:
            node = node.rb_right
        return node
    parent = node.rb_parent
    while parent is not None and node is parent.rb_left:
        node = parent
        parent = node.rb_parent
    return parent


def rb_nodes(root: RbRoot) -> Iterator[Any]:
    """All nodes in order."""
    node = rb_first(root)
    while node is not None:
        yield node
        node = rb_next(node)
