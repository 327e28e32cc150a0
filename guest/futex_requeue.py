"""Moving the waiters of one futex to another (kernel/futex/core.c): FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, and for condition
variables whose mutex inherits priority FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI.

A waiter of the latter kind says beforehand to which lock it may be moved. When it is, the lock is taken for it, or it
waits there as FUTEX_LOCK_PI would, without having run between.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.futex import (
    TRIES,
    FutexQ,
    Key,
    WordFault,
    fault_in_user_writeable,
    find_futex,
    futex_for,
    get_futex_key,
    queue_on,
    read_word,
    sleep_in,
    unqueue,
    wait_setup,
    wake_up_q,
)
from guest.sched import ERESTARTNOINTR, Restart
from mm.errors import Errno
from mm.uaccess import get_user

if TYPE_CHECKING:
    from guest.futex_pi import PiState
    from guest.task import Task


def requeue(
    task: Task, address: int, private: bool, address2: int, number: int, move: int, expected: int | None, pi: bool
) -> int:
    """futex_requeue(): wake `number` waiters, move the next `move`; how many were touched.

    Raises Errno(EINVAL) for counts, words and waiters that do not go together, EAGAIN when the word is not `expected`,
    and with `pi` what locking raises: EDEADLK, ESRCH, EFAULT.
    """
    if number < 0 or move < 0 or (pi and (address == address2 or number != 1)):
        raise Errno(errno.EINVAL)
    for _ in range(TRIES):
        key = get_futex_key(task, address, private)
        key2 = get_futex_key(task, address2, private, pi)
        if pi and key == key2:
            raise Errno(errno.EINVAL)
        if expected is not None and get_user(task, address, 4) != expected:
            raise Errno(errno.EAGAIN)
        if not pi:
            return _move(task, key, key2, number, move)
        try:
            return _requeue_pi(task, key, address2, key2, move)
        except WordFault:
            fault_in_user_writeable(task, address2)
    raise Errno(errno.EFAULT)


def _place(q: FutexQ, key: Key) -> None:
    """requeue_futex(): its task sleeps on another word now."""
    task, old = q.task, q.futex
    if q.key == key:
        return
    unqueue(q)
    new = futex_for(task.kernel, key)
    q.key = key
    queue_on(q, new)
    if old is not None and task in old.tasks:
        old.tasks.remove(task)
        new.tasks.append(task)
        task.waiting_on = (new,)


def _move(task: Task, key: Key, key2: Key, number: int, move: int) -> int:
    """FUTEX_REQUEUE. Raises Errno(EINVAL) at the first waiter that waits for a lock."""
    count = 0
    futex = find_futex(task.kernel, key)
    for q in futex.waiters[:] if futex is not None else ():
        if count - number >= move:
            break
        if q.rt_waiter is not None or q.pi_state is not None:
            raise Errno(errno.EINVAL)
        count += 1
        if count <= number:
            wake_up_q(q)
        else:
            _place(q, key2)
    return count


# ---- to a lock with priority inheritance


def _requeue_pi(task: Task, key: Key, address2: int, key2: Key, move: int) -> int:
    """FUTEX_CMP_REQUEUE_PI: the first waiter gets the lock or waits for it, the next `move` wait for it."""
    from guest.futex_pi import lock_pi_atomic, lookup_pi_state

    kernel = task.kernel
    count = 0
    state: PiState | None = None
    read_word(task, address2)
    futex = find_futex(kernel, key)
    if futex is None:
        return 0
    top = futex.waiters[0]
    if top.requeue_pi_key != key2:
        raise Errno(errno.EINVAL)
    state = lock_pi_atomic(task, address2, key2, top.task, bool(move))
    if state is None:  # the lock was free
        _got_lock(top, key2)
        count = 1
        state = lookup_pi_state(task, task.vnr(top.task.pid), key2)
    try:
        return _move_to_lock(futex.waiters[:], key2, state, count, move)
    finally:
        state.put()


def _move_to_lock(waiters: list[FutexQ], key2: Key, state: PiState, count: int, move: int) -> int:
    """The loop of futex_requeue(). Raises Errno(EINVAL) at a waiter of another kind, EDEADLK."""
    from guest.rtmutex import DeadlockError

    for q in waiters:
        if count - 1 >= move:
            break
        if q.rt_waiter is None or q.pi_state is not None or q.requeue_pi_key != key2:
            raise Errno(errno.EINVAL)
        count += 1
        q.pi_state = state.get()
        lock = state.pi_mutex
        try:
            if lock.start_proxy_lock(q.rt_waiter, q.task):
                _got_lock(q, key2)
                continue
        except DeadlockError:
            lock.remove_waiter(q.rt_waiter)
            q.pi_state = None
            state.put()
            raise Errno(errno.EDEADLK) from None
        _place(q, key2)
    return count


def _got_lock(q: FutexQ, key2: Key) -> None:
    """requeue_pi_wake_futex(): its task has the lock, and goes on."""
    unqueue(q)
    q.key = key2
    q.rt_waiter = None
    q.task.kernel.wake_up(q.task)


def wait_requeue_pi(task: Task, address: int, private: bool, value: int, deadline: int | None, address2: int) -> int:
    """futex_wait_requeue_pi(). Raises Errno(ETIMEDOUT), EWOULDBLOCK, EINVAL, EFAULT, and what locking raises."""
    from guest.futex_pi import fixup_pi_state_owner, unqueue_pi
    from guest.rtmutex import RtWaiter

    q: FutexQ | None = task.wait_state.get("waiter")
    if q is None:
        if address == address2:
            raise Errno(errno.EINVAL)
        key2 = get_futex_key(task, address2, private, True)
        key = wait_setup(task, address, private, value)
        if key == key2:
            raise Errno(errno.EINVAL)
        q = FutexQ(task, key, address=address2)
        q.rt_waiter = RtWaiter()
        q.requeue_pi_key = key2
        if not task.sigpending and (deadline is None or task.kernel.clock.now < deadline):
            sleep_in(q, deadline)
    if q.key != q.requeue_pi_key:
        _woken_early(q, deadline)
    if q.rt_waiter is not None:
        return _lock_requeued(q, deadline)
    if q.pi_state is not None and q.pi_state.owner is not task:
        try:
            fixup_pi_state_owner(q, task)
        finally:
            unqueue_pi(q)
    return 0


def _woken_early(q: FutexQ, deadline: int | None) -> None:
    """handle_early_requeue_pi_wakeup(): not moved yet. Raises Restart, Errno(ETIMEDOUT) or EWOULDBLOCK."""
    unqueue(q)
    task = q.task
    if deadline is not None and task.kernel.clock.now >= deadline:
        raise Errno(errno.ETIMEDOUT)
    if task.sigpending:
        raise Restart(ERESTARTNOINTR)
    raise Errno(errno.EWOULDBLOCK)


def _lock_requeued(q: FutexQ, deadline: int | None) -> int:
    """It was moved to the lock: wait for that."""
    from guest.futex_pi import finish, wait_proxy_lock

    error = wait_proxy_lock(q, deadline)
    try:
        return finish(q, error)
    except Errno as e:
        if e.number == errno.EINTR:  # made again it would find the first word changed
            raise Errno(errno.EWOULDBLOCK) from None
        raise
