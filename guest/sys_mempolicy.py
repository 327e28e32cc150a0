"""NUMA calls: decoders of node masks; the work is in mm/mempolicy.py."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.own_mm import own_mm
from guest.ptrace_access import PTRACE_MODE_READ_REALCREDS, ptrace_may_access
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.flags import CAP_SYS_NICE
from mm.mempolicy import (
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_MAX,
    MPOL_MF_MOVE,
    MPOL_MF_MOVE_ALL,
    MPOL_MODE_FLAGS,
    NODES_WITH_MEMORY,
    NR_NODE_IDS,
    do_get_mempolicy,
    do_mbind,
    do_migrate_pages,
    follow_page_node,
    mpol_new,
)
from mm.uaccess import clear_user, copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
_STAT_CHUNK = 16  # DO_PAGES_STAT_CHUNK_NR


def s32(value: int) -> int:
    """A register read as a C int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def get_nodes(task: Task, nmask: int, maxnode: int) -> int:
    """The node mask of `maxnode` - 1 bits at `nmask`; bits the kernel has no nodes for must be 0.

    Raises:
        Errno: EINVAL, EFAULT.
    """
    arch = task.system.arch
    max_numnodes = 1 << arch.nodes_shift
    maxnode = (maxnode - 1) & _MASK64
    if maxnode == 0 or not nmask:
        return 0
    if maxnode > arch.page_size * 8:
        raise Errno(errno.EINVAL)
    nlongs = (maxnode + 63) // 64
    known = (max_numnodes + 63) // 64
    endmask = (1 << maxnode % 64) - 1 if maxnode % 64 else _MASK64
    if nlongs > known:
        for k in range(known, nlongs):
            word = get_user(task, nmask + 8 * k, 8)
            if word & (endmask if k == nlongs - 1 else _MASK64):
                raise Errno(errno.EINVAL)
        nlongs = known
        endmask = _MASK64
    if maxnode > max_numnodes and max_numnodes % 64:
        word = get_user(task, nmask + 8 * (nlongs - 1), 8)
        if word & endmask & ~((1 << max_numnodes % 64) - 1):
            raise Errno(errno.EINVAL)
    mask = int.from_bytes(copy_from_user(task, nmask, 8 * nlongs), "little")
    return mask & (endmask << 64 * (nlongs - 1) | (1 << 64 * (nlongs - 1)) - 1)


def copy_nodes_to_user(task: Task, nmask: int, maxnode: int, nodes: int) -> None:
    """Store a node mask in a buffer of `maxnode` - 1 bits, rounded up to words. Raises Errno EINVAL, EFAULT."""
    copy = ((maxnode - 1 + 63) & ~63 & _MASK64) // 8
    nbytes = (NR_NODE_IDS + 63) // 64 * 8
    if copy > nbytes:
        if copy > task.system.page_size:
            raise Errno(errno.EINVAL)
        if clear_user(task, nmask + nbytes, copy - nbytes):
            raise Errno(errno.EFAULT)
        copy = nbytes
    copy_to_user(task, nmask, nodes.to_bytes(nbytes, "little")[:copy])


def _mode(mode: int) -> tuple[int, int]:
    """(mode, mode flags). Raises Errno(EINVAL)."""
    flags = mode & MPOL_MODE_FLAGS
    mode &= ~MPOL_MODE_FLAGS
    if mode >= MPOL_MAX or flags == MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES:
        raise Errno(errno.EINVAL)
    return mode, flags


def sys_mbind(task: Task, start: int, length: int, mode: int, nmask: int, maxnode: int, flags: int) -> int:
    """Set the policy of a range."""
    mm = own_mm(task)
    start = mm.arch.untagged_addr(start)
    mode, mode_flags = _mode(mode)
    nodes = get_nodes(task, nmask, maxnode)
    do_mbind(mm, start, length, mode, mode_flags, nodes, flags & 0xFFFFFFFF)
    return 0


def sys_set_mempolicy(task: Task, mode: int, nmask: int, maxnode: int) -> int:
    """Set the task's policy."""
    mode, flags = _mode(mode & 0xFFFFFFFF)
    task.mempolicy = mpol_new(mode, flags, get_nodes(task, nmask, maxnode))
    return 0


def sys_get_mempolicy(task: Task, policy: int, nmask: int, maxnode: int, addr: int, flags: int) -> int:
    """Report the policy of the task or of an address, or a node."""
    if nmask and maxnode < NR_NODE_IDS:
        raise Errno(errno.EINVAL)
    value, nodes = do_get_mempolicy(task, task.system.arch.untagged_addr(addr), flags)
    if policy:
        put_user(task, policy, value, 4)
    if nmask:
        copy_nodes_to_user(task, nmask, maxnode, nodes)
    return 0


def _find_task(task: Task, pid: int) -> Task:
    """The task `pid`, or the caller for 0, if the caller may look into it. Raises Errno ESRCH, EPERM."""
    target = task.find_task(s32(pid)) if pid & 0xFFFFFFFF else task
    if target is None:
        raise Errno(errno.ESRCH)
    if not ptrace_may_access(task, target, PTRACE_MODE_READ_REALCREDS):
        raise Errno(errno.EPERM)
    return target


def sys_migrate_pages(task: Task, pid: int, maxnode: int, old_nodes: int, new_nodes: int) -> int:
    """Move a process's pages between nodes; pages that could not be moved."""
    old = get_nodes(task, old_nodes, maxnode)
    new = get_nodes(task, new_nodes, maxnode)
    target = _find_task(task, pid)
    if new & ~NODES_WITH_MEMORY and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    if not new & NODES_WITH_MEMORY or target.mm is None:
        raise Errno(errno.EINVAL)
    return do_migrate_pages(target.mm, old)


def sys_move_pages(task: Task, pid: int, nr_pages: int, pages: int, nodes: int, status: int, flags: int) -> int:
    """Move single pages to nodes, or without `nodes` tell on which they are."""
    flags = s32(flags)
    if flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise Errno(errno.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    mm = _find_task(task, pid).mm
    if mm is None:
        raise Errno(errno.EINVAL)
    if nodes:
        _do_pages_move(task, mm, nr_pages, pages, nodes, status)
    else:
        _do_pages_stat(task, mm, nr_pages, pages, status)
    return 0


def _do_pages_move(task: Task, mm: MmStruct, nr_pages: int, pages: int, nodes: int, status: int) -> None:
    """do_pages_move(): a page is on node 0 already, or its lookup failed; both are told by its status."""
    max_numnodes = 1 << mm.arch.nodes_shift
    for i in range(nr_pages):
        addr = mm.arch.untagged_addr(get_user(task, pages + 8 * i, 8))
        node = s32(get_user(task, nodes + 4 * i, 4))
        if not 0 <= node < max_numnodes or not NODES_WITH_MEMORY >> node & 1:
            raise Errno(errno.ENODEV)
        put_user(task, status + 4 * i, follow_page_node(mm, addr, True) & 0xFFFFFFFF, 4)


def _do_pages_stat(task: Task, mm: MmStruct, nr_pages: int, pages: int, status: int) -> None:
    """do_pages_stat(): in chunks, all of a chunk read before its answers are written."""
    for start in range(0, nr_pages, _STAT_CHUNK):
        count = min(nr_pages - start, _STAT_CHUNK)
        words = memoryview(copy_from_user(task, pages + 8 * start, 8 * count)).cast("Q")
        answers = [follow_page_node(mm, addr, False) for addr in words]
        data = b"".join(answer.to_bytes(4, "little", signed=True) for answer in answers)
        copy_to_user(task, status + 4 * start, data)


CALLS = (
    Call("mbind", sys_mbind, FULL, "one node"),
    Call("set_mempolicy", sys_set_mempolicy, FULL, "one node"),
    Call("get_mempolicy", sys_get_mempolicy, FULL, "one node"),
    Call("migrate_pages", sys_migrate_pages, FULL, "one node"),
    Call("move_pages", sys_move_pages, FULL, "one node"),
)
