"""Futexes with priority inheritance (kernel/futex/core.c): FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI.

The word holds the owner's thread id, FUTEX_WAITERS while the kernel knows of waiters, FUTEX_OWNER_DIED when an owner
died with it. As long as somebody waits there is a PiState, with the lock proper (rtmutex.py):

    lock, word 0             the word becomes the id; a program does that without a call
    lock, word owned         FUTEX_WAITERS is set, a PiState made for the owner, and the task waits for its lock
    unlock with waiters      the word is given to the first waiter, which is woken and takes the lock when it runs
    ... stolen meanwhile     the word is put right by whoever took the lock (_fixup_owner())

Programs write the word as they like: every step compares it with what the kernel knows, and refuses what cannot be.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.futex import (
    FUTEX_OWNER_DIED,
    FUTEX_TID_MASK,
    FUTEX_WAITERS,
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
    unqueue,
    write_word,
)
from guest.rtmutex import DeadlockError, RtMutex, RtWaiter
from guest.sched import ERESTARTNOINTR, Restart, sleep_on
from guest.task import PF_EXITING
from mm.errors import Errno
from mm.uaccess import get_user

if TYPE_CHECKING:
    from guest.task import Task


class PiState:
    """What the kernel knows of a lock somebody waits for (struct futex_pi_state)."""

    __slots__ = ("owner", "pi_mutex", "refcount")

    def __init__(self, owner: Task) -> None:
        self.pi_mutex = RtMutex(owner)
        self.owner: Task | None = None  # to whom the word says it belongs; None: it died, nobody has followed
        self.refcount = 1  # waiters, and whoever looks at it
        self.update_owner(owner)

    def update_owner(self, new_owner: Task | None) -> None:
        """pi_state_update_owner(): the owner's list follows."""
        if self.owner is not None:
            self.owner.pi_states = tuple(other for other in self.owner.pi_states if other is not self)
        if new_owner is not None:
            new_owner.pi_states = (self, *new_owner.pi_states)
            self.owner = new_owner

    def get(self) -> PiState:
        """One more user."""
        self.refcount += 1
        return self

    def put(self) -> None:
        """One user less; after the last one nobody owns anything."""
        self.refcount -= 1
        if not self.refcount and self.owner is not None:
            self.update_owner(None)
            self.owner = self.pi_mutex.owner = None


# ---- to whom a word belongs


def attach_to_pi_state(task: Task, word: int, state: PiState | None) -> PiState:
    """Another waiter for a lock the kernel knows; the numbers are those of the table in Linux's source.

    Raises Errno(EINVAL): the word and the state contradict each other, or the waiter there is not a lock's ([3]).
    """
    if state is None:
        raise Errno(errno.EINVAL)
    pid = word & FUTEX_TID_MASK
    if word & FUTEX_OWNER_DIED:
        if state.owner is None:
            if pid:  # [5]
                raise Errno(errno.EINVAL)
            return state.get()  # [4]
        if not pid:  # [6]
            return state.get()
    if state.owner is None or pid != task.vnr(state.owner.pid):  # [7], [9], [10]
        raise Errno(errno.EINVAL)
    return state.get()


def attach_to_pi_owner(task: Task, word: int) -> PiState:
    """The first waiter: the owner is found by the word. Raises Errno(ESRCH) when there is no such living task."""
    owner = task.find_task(word & FUTEX_TID_MASK)
    if owner is None or owner.flags & PF_EXITING:
        raise Errno(errno.ESRCH)
    return PiState(owner)


def lookup_pi_state(task: Task, word: int, key: Key) -> PiState:
    """The state of a lock with this word, made if nobody waits for it yet. Raises Errno."""
    futex = find_futex(task.kernel, key)
    if futex is not None:
        return attach_to_pi_state(task, word, futex.waiters[0].pi_state)
    return attach_to_pi_owner(task, word)


def lock_pi_atomic(task: Task, address: int, key: Key, who: Task, set_waiters: bool = False) -> PiState | None:
    """Lock the word for `who` without waiting (None), or else the state it must wait on.

    Raises Errno(EDEADLK) when it owns the lock already, EINVAL, ESRCH, and WordFault.
    """
    word = read_word(task, address)
    pid = task.vnr(who.pid)
    if word & FUTEX_TID_MASK == pid:
        raise Errno(errno.EDEADLK)
    futex = find_futex(task.kernel, key)
    if futex is not None:
        return attach_to_pi_state(task, word, futex.waiters[0].pi_state)
    if not word & FUTEX_TID_MASK:
        write_word(task, address, word & FUTEX_OWNER_DIED | pid | (FUTEX_WAITERS if set_waiters else 0))
        return None
    write_word(task, address, word | FUTEX_WAITERS)
    return attach_to_pi_owner(task, word)


# ---- waiting


def lock_pi(task: Task, address: int, private: bool, deadline: int | None, trylock: bool) -> int:
    """futex_lock_pi(). Raises Errno(EDEADLK), EINVAL, ESRCH, ETIMEDOUT, EWOULDBLOCK (of trylock), EFAULT."""
    q: FutexQ | None = task.wait_state.get("waiter")
    if q is None:
        q = _lock_now_or_queue(task, address, private)
        if q is None:
            return 0
        error = _trylock(q) if trylock else _start(q)
        if error is not None:
            return finish(q, error)
        task.wait_state["waiter"] = q
    error = wait_proxy_lock(q, deadline)
    try:
        return finish(q, error)
    except Errno as e:
        if e.number == errno.EINTR:
            raise Restart(ERESTARTNOINTR) from None
        raise


def _lock_now_or_queue(task: Task, address: int, private: bool) -> FutexQ | None:
    """Take the lock (None), or queue for it: the waiter, with its state."""
    for _ in range(TRIES):
        key = get_futex_key(task, address, private, True)
        try:
            state = lock_pi_atomic(task, address, key, task)
        except WordFault:
            fault_in_user_writeable(task, address)
            continue
        if state is None:
            return None
        q = FutexQ(task, key, address=address)
        q.pi_state = state
        queue_on(q, futex_for(task.kernel, key))
        return q
    raise Errno(errno.EFAULT)


def state_of(q: FutexQ) -> PiState:
    """The state of a waiter that has one."""
    if q.pi_state is None:
        raise Errno(errno.EINVAL)
    return q.pi_state


def _trylock(q: FutexQ) -> int:
    """0 or EWOULDBLOCK."""
    return 0 if state_of(q).pi_mutex.try_to_take(q.task, None) else errno.EWOULDBLOCK


def _start(q: FutexQ) -> int | None:
    """Begin to wait: None; or 0: it has the lock, or EDEADLK."""
    q.rt_waiter = RtWaiter()
    try:
        return 0 if state_of(q).pi_mutex.start_proxy_lock(q.rt_waiter, q.task) else None
    except DeadlockError:
        return errno.EDEADLK


def wait_proxy_lock(q: FutexQ, deadline: int | None) -> int:  # noqa: RET503 - sleep_on() does not return
    """rt_mutex_wait_proxy_lock(), from its start again each time the task is woken: 0, EINTR or ETIMEDOUT."""
    task = q.task
    if state_of(q).pi_mutex.try_to_take(task, q.rt_waiter):
        return 0
    if deadline is not None and task.kernel.clock.now >= deadline:
        return errno.ETIMEDOUT
    if task.sigpending:
        return errno.EINTR
    futex = q.futex
    if futex is None:
        raise Errno(errno.EINVAL)
    sleep_on(task, futex, deadline=deadline)


def finish(q: FutexQ, error: int) -> int:
    """The wait is over, one way or the other: word, state and lock are made to agree. 0, or raises Errno(error)."""
    state = state_of(q)
    if error and q.rt_waiter is not None and not state.pi_mutex.cleanup_proxy_lock(q.rt_waiter, q.task):
        error = 0
    try:
        if _fixup_owner(q, not error):
            error = 0
    finally:
        unqueue_pi(q)
    if error:
        raise Errno(error)
    return 0


def unqueue_pi(q: FutexQ) -> None:
    """unqueue_me_pi()."""
    unqueue(q)
    state, q.pi_state = q.pi_state, None
    if state is not None:
        state.put()


def give_up(q: FutexQ) -> None:
    """The task is killed without another run of its call: as after a signal."""
    try:
        finish(q, errno.EINTR)
    except Errno:
        return  # EINTR, or a word that cannot be put right any more


def _fixup_owner(q: FutexQ, locked: bool) -> bool:
    """fixup_owner(): whether the task has the lock. Raises Errno(EFAULT) when the word cannot be written."""
    state = state_of(q)
    if locked:
        return state.owner is q.task or fixup_pi_state_owner(q, q.task)
    if state.owner is q.task:  # the word was given to it, and it did not come to take the lock
        return fixup_pi_state_owner(q, None)
    return False


def fixup_pi_state_owner(q: FutexQ, new: Task | None) -> bool:
    """The lock was stolen, by `new` or (None) by somebody from q's task: the word must say so.

    Returns whether q's task has got the lock. Raises Errno(EFAULT).
    """
    state, task, address = state_of(q), q.task, q.address
    got = new is task
    if new is None:
        if state.pi_mutex.try_to_take(task, None):
            return True
        new = state.pi_mutex.owner
        if new is None:  # the first waiter has not run yet: it is as good as its owner
            new = state.pi_mutex.next_owner()
    if new is None:
        raise Errno(errno.EINVAL)
    died = FUTEX_OWNER_DIED if state.owner is None else 0
    for _ in range(TRIES):
        try:
            word = read_word(task, address) & FUTEX_OWNER_DIED
            write_word(task, address, word | task.vnr(new.pid) | FUTEX_WAITERS | died)
            state.update_owner(new)
            return got
        except WordFault:
            try:
                fault_in_user_writeable(task, address)
            except Errno:
                state.update_owner(state.pi_mutex.owner)
                raise
    raise Errno(errno.EFAULT)


# ---- giving back


def unlock_pi(task: Task, address: int, private: bool) -> int:
    """futex_unlock_pi(). Raises Errno(EPERM) when it is not the task's, EINVAL, EFAULT."""
    for _ in range(TRIES):
        word = get_user(task, address, 4)
        if word & FUTEX_TID_MASK != task.vnr(task.pid):
            raise Errno(errno.EPERM)
        futex = find_futex(task.kernel, get_futex_key(task, address, private, True))
        try:
            if futex is None:
                write_word(task, address, 0)
                return 0
            state = futex.waiters[0].pi_state
            if state is None or state.owner is not task:
                raise Errno(errno.EINVAL)
            _wake_futex_pi(task, address, state)
            return 0
        except WordFault:
            fault_in_user_writeable(task, address)
    raise Errno(errno.EFAULT)


def _wake_futex_pi(task: Task, address: int, state: PiState) -> None:
    """wake_futex_pi(): the word goes to the first waiter. Raises WordFault."""
    new_owner = state.pi_mutex.next_owner()
    if new_owner is None:
        raise Errno(errno.EINVAL)
    write_word(task, address, FUTEX_WAITERS | task.vnr(new_owner.pid))
    state.update_owner(new_owner)
    state.pi_mutex.unlock(task)


def exit_pi_state_list(task: Task) -> None:
    """The task dies holding locks: whoever waits first for each is woken, and puts the word right."""
    while task.pi_states:
        state = task.pi_states[0]
        task.pi_states = task.pi_states[1:]
        state.owner = None
        state.pi_mutex.unlock(task)
