"""i_mmap and anon_vma trees against a list that is searched from end to end."""

import random

import pytest
from draw import make_task

from mm.interval_tree import (
    vma_interval_tree_foreach,
    vma_interval_tree_insert,
    vma_interval_tree_insert_after,
    vma_interval_tree_remove,
)
from mm.types import RbRoot, SharedNode, VmAreaStruct
from mm.validate import _check_interval_tree


@pytest.mark.parametrize("seed", range(10))
def test_against_a_list(seed: int) -> None:
    rng = random.Random(seed)
    mm = make_task(ram=1 << 20).mm
    assert mm is not None
    root = RbRoot()
    alive: list[SharedNode] = []
    for step in range(120):
        if alive and rng.random() < 0.35:
            vma_interval_tree_remove(alive.pop(rng.randrange(len(alive))), root)
        else:
            pgoff, pages = rng.randrange(40), rng.randrange(1, 12)
            node = SharedNode(VmAreaStruct(mm, 0, pages << 12, 0, 0, pgoff))
            alive.append(node)
            if rng.random() < 0.3 and len(alive) > 1:  # as fork does: the same interval, right behind
                twin = rng.choice(alive[:-1])
                node.vma.vm_pgoff, node.vma.vm_end = twin.vma.vm_pgoff, twin.vma.vm_end
                vma_interval_tree_insert_after(node, twin, root)
            else:
                vma_interval_tree_insert(node, root)
        assert _check_interval_tree(root, mm, "the tree") == {id(node) for node in alive}
        first = rng.randrange(50)
        last = first + rng.randrange(10)
        found = list(vma_interval_tree_foreach(root, first, last))
        expected = [
            node
            for node in alive
            if node.vma.vm_pgoff <= last and first <= node.vma.vm_pgoff + (node.vma.vm_end >> 12) - 1
        ]
        assert {id(node) for node in found} == {id(node) for node in expected}, step
        assert [node.vma.vm_pgoff for node in found] == sorted(node.vma.vm_pgoff for node in found)


def test_a_fork_twin_comes_directly_behind_its_parent() -> None:
    mm = make_task(ram=1 << 20).mm
    assert mm is not None
    root = RbRoot()
    nodes = [SharedNode(VmAreaStruct(mm, 0, 4 << 12, 0, 0, 7)) for _ in range(4)]
    vma_interval_tree_insert(nodes[0], root)
    vma_interval_tree_insert(nodes[1], root)
    vma_interval_tree_insert_after(nodes[2], nodes[0], root)
    vma_interval_tree_insert_after(nodes[3], nodes[0], root)
    order = [nodes.index(node) for node in vma_interval_tree_foreach(root, 0, 100)]
    assert order == [0, 3, 2, 1]
