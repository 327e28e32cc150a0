"""What a task's end or exec does to futexes (kernel/futex/core.c, mm_release()): robust lists, locks it still holds.

A program keeps a list of the locks it holds, and tells the kernel where (set_robust_list). When the task ends, the
kernel marks each with FUTEX_OWNER_DIED. Bit 0 of a link says that the lock it leads to inherits priority: its waiters
are woken through the kernel's own state, the others as by FUTEX_WAKE.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.futex import (
    FUTEX_OWNER_DIED,
    FUTEX_TID_MASK,
    FUTEX_WAITERS,
    TRIES,
    WordFault,
    fault_in_user_writeable,
    get_futex_key,
    wake,
    write_word,
)
from mm.errors import Errno
from mm.uaccess import get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

ROBUST_LIST_LIMIT = 2048
_WORD = 0xFFFFFFFFFFFFFFFF


def futex_exec_release(task: Task) -> None:
    """Locks the task holds are given up."""
    head, task.robust_list = task.robust_list, 0
    if head and task.mm is not None:
        try:  # noqa: SIM105 - contextlib is not worth its import here
            _exit_robust_list(task, head)
        except Errno:
            pass  # a list that cannot be read ends there
    if task.pi_states:
        from guest.futex_pi import exit_pi_state_list

        exit_pi_state_list(task)


def clear_child_tid(task: Task) -> None:
    """CLONE_CHILD_CLEARTID: whoever joins the thread is woken, if anybody is left to do so."""
    address, task.clear_child_tid = task.clear_child_tid, 0
    if task.mm is None or task.mm.mm_users <= 1:
        return
    try:
        put_user(task, address, 0, 4)
        _wake_one(task, address)
    except Errno:
        pass  # it is the program's own address


def _wake_one(task: Task, address: int) -> None:
    """FUTEX_WAKE of a shared word, whatever comes of it."""
    try:  # noqa: SIM105
        wake(task.kernel, get_futex_key(task, address, False), 1)
    except Errno:
        pass  # nobody looks at the result


def _fetch_entry(task: Task, address: int) -> tuple[int, bool]:
    """fetch_robust_entry(): where a link leads, and whether to a lock with priority inheritance."""
    link = get_user(task, address, 8)
    return link & ~1, bool(link & 1)


def _exit_robust_list(task: Task, head: int) -> None:
    """exit_robust_list(). Raises Errno when the list cannot be followed, or a lock not be marked."""
    entry, pi = _fetch_entry(task, head)
    offset = get_user(task, head + 8, 8)
    pending, pending_pi = _fetch_entry(task, head + 16)
    for _ in range(ROBUST_LIST_LIMIT):
        if entry == head:
            break
        try:
            following = _fetch_entry(task, entry)
        except Errno:
            following = None
        if entry != pending:
            _handle_futex_death(task, entry + offset & _WORD, pi, False)
        if following is None:
            return
        entry, pi = following
    if pending:
        _handle_futex_death(task, pending + offset & _WORD, pending_pi, True)


def _handle_futex_death(task: Task, address: int, pi: bool, pending: bool) -> None:
    """handle_futex_death(): mark a lock the task holds. Raises Errno EINVAL or EFAULT."""
    if address & 3:
        raise Errno(errno.EINVAL)
    for _ in range(TRIES):
        word = get_user(task, address, 4)
        owner = word & FUTEX_TID_MASK
        if pending and not pi and not owner:  # it was giving the lock back, or about to take it
            _wake_one(task, address)
            return
        if owner != task.vnr(task.pid):
            return
        try:
            write_word(task, address, word & FUTEX_WAITERS | FUTEX_OWNER_DIED)
        except WordFault:
            fault_in_user_writeable(task, address)
            continue
        if not pi and word & FUTEX_WAITERS:
            _wake_one(task, address)
        return
    raise Errno(errno.EFAULT)
