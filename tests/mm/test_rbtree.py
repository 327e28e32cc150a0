"""The red-black tree: its properties after any history, its augmentation, and known shapes."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import KernelBug
from mm.rbtree import (
    Augment,
    rb_erase,
    rb_first,
    rb_insert_color,
    rb_last,
    rb_link_node,
    rb_next,
    rb_nodes,
    rb_prev,
)
from mm.types import RbNode, RbRoot
from mm.validate import check_rbtree


class Node(RbNode):
    __slots__ = ("key", "subtree", "weight")

    def __init__(self, key: int, weight: int = 0) -> None:
        super().__init__()
        self.key, self.weight, self.subtree = key, weight, weight

    def __repr__(self) -> str:
        return f"<{self.key}>"


def compute(node: Any) -> bool:
    best = (
        max(child.subtree for child in (node.rb_left, node.rb_right) if child) if node.rb_left or node.rb_right else 0
    )
    best = max(best, node.weight)
    if node.subtree == best:
        return True
    node.subtree = best
    return False


WEIGHTS = Augment("subtree", compute)


def insert(root: RbRoot, node: Node, augment: Augment | None = WEIGHTS) -> None:
    parent, link, left = None, root.rb_node, False
    while link is not None:
        parent = link
        left = node.key < parent.key
        link = parent.rb_left if left else parent.rb_right
    rb_link_node(node, parent, root, left)
    node.subtree = node.weight
    if augment is not None and parent is not None:
        augment.propagate(parent)
    rb_insert_color(node, root, augment)


def shape(node: Any) -> str:
    """`(left KEY right)`, red keys with an r."""
    if node is None:
        return ""
    return f"({shape(node.rb_left)}{node.key}{'r' if node.rb_red else ''}{shape(node.rb_right)})"


def check(root: RbRoot, alive: list[Node]) -> None:
    nodes = check_rbtree(root, None, "the tree")
    assert [node.key for node in nodes] == sorted(node.key for node in alive)
    for node in nodes:
        below = [node.weight]
        pending = [node.rb_left, node.rb_right]
        while pending:
            child = pending.pop()
            if child is not None:
                below.append(child.weight)
                pending += [child.rb_left, child.rb_right]
        assert node.subtree == max(below)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 63), st.integers(0, 9)), max_size=120))
def test_properties_hold_after_any_history(history: list[tuple[bool, int, int]]) -> None:
    root = RbRoot()
    alive: dict[int, Node] = {}
    for adding, key, weight in history:
        if adding and key not in alive:
            alive[key] = Node(key, weight)
            insert(root, alive[key])
        elif not adding and key in alive:
            rb_erase(alive.pop(key), root, WEIGHTS)
        check(root, list(alive.values()))


def test_a_large_tree_grown_and_felled_in_random_order() -> None:
    rng = random.Random(5)
    nodes = [Node(key, rng.randrange(1000)) for key in range(600)]
    root = RbRoot()
    order = nodes[:]
    rng.shuffle(order)
    for count, node in enumerate(order):
        insert(root, node)
        if count % 40 == 0:
            check(root, order[: count + 1])
    rng.shuffle(order)
    while order:
        rb_erase(order.pop(), root, WEIGHTS)
        if len(order) % 40 == 0:
            check(root, order)
    assert root.rb_node is None


def test_walks_meet_every_node_in_order() -> None:
    root = RbRoot()
    keys = [3, 1, 4, 15, 9, 2, 6, 5, 35, 8]
    for key in keys:
        insert(root, Node(key), None)
    assert [node.key for node in rb_nodes(root)] == sorted(keys)
    node, backwards = rb_last(root), []
    while node is not None:
        backwards.append(node.key)
        node = rb_prev(node)
    assert backwards == sorted(keys, reverse=True)
    assert rb_first(root).key == 1 and rb_next(rb_last(root)) is None and rb_prev(rb_first(root)) is None
    assert rb_first(RbRoot()) is None and rb_last(RbRoot()) is None


# Worked out by hand from the cases in rbtree.py; the recordings of a real kernel check the same with VMAs.
@pytest.mark.parametrize(
    ("inserted", "erased", "expected"),
    [
        ([1], [], "(1)"),
        ([1, 2], [], "(1(2r))"),
        ([1, 2, 3], [], "((1r)2(3r))"),  # case 3, mirrored
        ([3, 1, 2], [], "((1r)2(3r))"),  # case 2, then 3
        ([1, 2, 3, 4], [], "((1)2(3(4r)))"),  # case 1, then the root turns black
        ([1, 2, 3, 4, 5], [], "((1)2((3r)4(5r)))"),
        ([1, 2, 3, 4, 5, 6], [], "((1)2((3)4r(5(6r))))"),
        ([1, 2, 3], [2], "((1r)3)"),  # two children, the successor is the right child
        ([1, 2, 3, 4], [1], "((2)3(4))"),  # far nephew red
    ],
)
def test_shapes(inserted: list[int], erased: list[int], expected: str) -> None:
    root = RbRoot()
    nodes = {key: Node(key) for key in inserted}
    for key in inserted:
        insert(root, nodes[key])
    for key in erased:
        rb_erase(nodes[key], root, WEIGHTS)
    check(root, [node for key, node in nodes.items() if key not in erased])
    assert shape(root.rb_node) == expected


def test_the_checker_sees_each_kind_of_damage() -> None:
    def grown() -> RbRoot:
        root = RbRoot()
        for key in range(20):
            insert(root, Node(key))
        return root

    root = grown()
    root.rb_node.rb_red = True
    with pytest.raises(KernelBug, match="I4"):
        check_rbtree(root, None, "the tree")
    root = grown()
    leaf = rb_last(root)
    leaf.rb_red = not leaf.rb_red
    with pytest.raises(KernelBug, match="I4"):
        check_rbtree(root, None, "the tree")
    root = grown()
    rb_first(root).rb_parent = None
    with pytest.raises(KernelBug, match="I3"):
        check_rbtree(root, None, "the tree")
