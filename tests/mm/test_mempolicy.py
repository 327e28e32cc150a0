"""Policies on one node. Expected values: recordings c10, c11 and images/numa."""

import errno
from typing import Any

import pytest
from pages_world import READ, SHARED_ANON, WRITE, World

from mm.errors import Errno
from mm.mempolicy import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_INTERLEAVE,
    MPOL_LOCAL,
    MPOL_MF_MOVE,
    MPOL_MF_STRICT,
    MPOL_PREFERRED,
    do_get_mempolicy,
    do_mbind,
    follow_page_node,
    mpol_new,
)


def refused(number: int, call: Any, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        call(*args)
    assert caught.value.number == number


ACCEPTED = [
    (MPOL_DEFAULT, 0, {0}),
    (MPOL_DEFAULT, MPOL_F_STATIC_NODES, {0}),
    (MPOL_PREFERRED, 0, {0, 1, 3}),
    (MPOL_PREFERRED, MPOL_F_STATIC_NODES, {1, 3}),
    (MPOL_PREFERRED, MPOL_F_RELATIVE_NODES, {1, 2, 3}),
    (MPOL_BIND, 0, {1, 3}),
    (MPOL_BIND, MPOL_F_RELATIVE_NODES, {1, 2, 3}),
    (MPOL_INTERLEAVE, 0, {1, 3}),
    (MPOL_LOCAL, 0, {0}),
    (MPOL_LOCAL, MPOL_F_STATIC_NODES, set()),
]


@pytest.mark.parametrize(("mode", "mode_flags", "accepted"), ACCEPTED)
def test_which_nodes_go_with_which_mode(mode: int, mode_flags: int, accepted: set[int]) -> None:
    for nodes in range(4):
        if nodes in accepted:
            mpol_new(mode, mode_flags, nodes)
        else:
            refused(errno.EINVAL, mpol_new, mode, mode_flags, nodes)


def test_areas_with_equal_policies_merge() -> None:
    w = World()
    a = w.mmap(8)
    do_mbind(w.mm, a, 2 * w.ps, MPOL_BIND, 0, 1, 0)
    assert w.mm.map_count == 2
    do_mbind(w.mm, a + 2 * w.ps, 2 * w.ps, MPOL_BIND, 0, 1, 0)
    assert w.mm.map_count == 2
    do_mbind(w.mm, a + w.ps, w.ps, MPOL_DEFAULT, 0, 0, 0)
    assert w.mm.map_count == 4
    do_mbind(w.mm, a, 8 * w.ps, MPOL_DEFAULT, 0, 0, 0)
    assert w.mm.map_count == 1
    w.end()


def test_a_move_within_the_node_leaves_old_clean_entries() -> None:
    w = World()
    a = w.mmap(1)
    w.fault(a, WRITE)
    do_mbind(w.mm, a, w.ps, MPOL_BIND, 0, 1, MPOL_MF_MOVE)  # on its node already
    assert w.raw(a) == 0x8000000000000867
    do_mbind(w.mm, a, w.ps, MPOL_PREFERRED, 0, 0, MPOL_MF_MOVE)  # "outside no nodes": everything moves
    assert w.raw(a) == 0x8000000000000807
    w.end()


def test_refusals_of_mbind() -> None:
    w = World()
    a = w.mmap(2)
    w.fault(a, WRITE)
    refused(errno.EIO, do_mbind, w.mm, a, w.ps, MPOL_PREFERRED, 0, 0, MPOL_MF_STRICT)
    do_mbind(w.mm, a, w.ps, MPOL_DEFAULT, 0, 0, MPOL_MF_STRICT)
    refused(errno.EFAULT, do_mbind, w.mm, a, 8 * w.ps, MPOL_BIND, 0, 1, 0)
    do_mbind(w.mm, a, 8 * w.ps, MPOL_DEFAULT, 0, 0, 0)
    refused(errno.EFAULT, do_mbind, w.mm, w.ps, w.ps, MPOL_DEFAULT, 0, 0, 0)
    refused(errno.EINVAL, do_mbind, w.mm, a + 1, w.ps, MPOL_BIND, 0, 1, 0)
    refused(errno.EINVAL, do_mbind, w.mm, a, w.ps, MPOL_BIND, 0, 1, 8)
    w.task.cap_effective = 0
    refused(errno.EPERM, do_mbind, w.mm, a, w.ps, MPOL_BIND, 0, 1, 4)
    w.end()


def test_shared_memory_keeps_its_policy_by_page() -> None:
    w = World()
    s = w.mmap(4, flags=SHARED_ANON)
    do_mbind(w.mm, s + w.ps, 2 * w.ps, MPOL_BIND, 0, 1, 0)
    assert do_get_mempolicy(w.task, s, 2) == (0, 0)
    assert do_get_mempolicy(w.task, s + w.ps, 2) == (MPOL_BIND, 1)
    do_mbind(w.mm, s + 2 * w.ps, w.ps, MPOL_INTERLEAVE, 0, 1, 0)
    assert do_get_mempolicy(w.task, s + w.ps, 2) == (MPOL_BIND, 1)
    assert do_get_mempolicy(w.task, s + 2 * w.ps, 2) == (MPOL_INTERLEAVE, 1)
    assert do_get_mempolicy(w.task, s + 3 * w.ps, 2) == (0, 0)
    w.end()


def test_where_a_page_is() -> None:
    w = World()
    a = w.mmap(3)
    s = w.mmap(1, flags=SHARED_ANON)
    w.fault(a, WRITE)
    w.fault(a + w.ps, READ)
    assert follow_page_node(w.mm, a, False) == 0
    assert follow_page_node(w.mm, a + w.ps, False) == -errno.EFAULT  # the zero page
    assert follow_page_node(w.mm, a + 2 * w.ps, False) == -errno.EFAULT
    assert follow_page_node(w.mm, s, False) == -errno.ENOENT
    assert follow_page_node(w.mm, w.ps, False) == -errno.EFAULT
    assert do_get_mempolicy(w.task, a + 2 * w.ps, 3) == (0, 0)  # faults it in
    assert w.pte(a + 2 * w.ps)
    refused(errno.EINVAL, do_get_mempolicy, w.task, a, 0)
    refused(errno.EINVAL, do_get_mempolicy, w.task, 0, 1)
    refused(errno.EFAULT, do_get_mempolicy, w.task, w.ps, 2)
    w.end()
