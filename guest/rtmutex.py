"""Locks that lend their owner the priority of whoever waits for them (kernel/locking/rtmutex.c).

    owner.pi_waiters    the first waiter of every lock the task owns, most urgent first: it runs at that one's priority
    task.pi_blocked_on  the RtWaiter the task waits with; its lock's owner may be waiting itself: a chain

Priorities are the kernel's: 0 to 98 real-time, 100 to 139 by nice value, less is more urgent (`Task.prio`). Who gets a
lock first goes by them, who runs next does among real-time tasks (run_queue.py), and /proc/PID/stat shows them.

A lock that is given back has no owner until its first waiter has run and taken it; meanwhile somebody more urgent may.
"""

from __future__ import annotations

from bisect import insort_right
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.task import Task

MAX_LOCK_DEPTH = 1024  # default of /proc/sys/kernel/max_lock_depth: how far a chain is followed
_prio = attrgetter("prio")


class DeadlockError(Exception):
    """-EDEADLK: whoever waits would wait for itself."""


class RtWaiter:
    """One task that waits for one lock (struct rt_mutex_waiter)."""

    __slots__ = ("lock", "prio", "task")

    def __init__(self) -> None:
        self.task: Task | None = None  # None: it never waited
        self.lock: RtMutex | None = None
        self.prio = 0  # its task's, when it was put in its place


class RtMutex:
    """A lock (struct rt_mutex)."""

    __slots__ = ("owner", "waiters")

    def __init__(self, owner: Task | None) -> None:
        self.owner = owner
        self.waiters: list[RtWaiter] = []  # most urgent first, then oldest

    def next_owner(self) -> Task | None:
        """The task of the first waiter."""
        return self.waiters[0].task if self.waiters else None

    def try_to_take(self, task: Task, waiter: RtWaiter | None) -> bool:
        """Take a lock nobody owns: with `waiter` when that is the first, else when more urgent than the first."""
        if self.owner is not None:
            return False
        if waiter is not None:
            if waiter is not self.waiters[0]:
                return False
            self.waiters.remove(waiter)
            task.pi_blocked_on = None
        elif self.waiters and task.prio >= self.waiters[0].prio:
            return False
        if self.waiters:
            _enqueue_pi(task, self.waiters[0])
        self.owner = task
        return True

    def start_proxy_lock(self, waiter: RtWaiter, task: Task) -> bool:
        """Begin to lock on behalf of `task`: True when it has the lock, False when it waits.

        Raises DeadlockError when the chain of owners leads back to the task; `waiter` stays queued then.
        """
        if self.try_to_take(task, None):
            return True
        try:
            self._block(waiter, task)
        except DeadlockError:
            if self.owner is not None:
                raise
        return False

    def _block(self, waiter: RtWaiter, task: Task) -> None:
        """task_blocks_on_rt_mutex(), with full deadlock detection. Raises DeadlockError."""
        owner = self.owner
        if owner is task:
            raise DeadlockError
        waiter.task, waiter.lock, waiter.prio = task, self, task.prio
        top = self.waiters[0] if self.waiters else None
        insort_right(self.waiters, waiter, key=_prio)
        task.pi_blocked_on = waiter
        if owner is None:
            return
        if waiter is self.waiters[0]:
            _dequeue_pi(owner, top)
            _enqueue_pi(owner, waiter)
        blocked = owner.pi_blocked_on
        if blocked is not None:
            adjust_prio_chain(owner, True, self, waiter, task)

    def remove_waiter(self, waiter: RtWaiter) -> None:
        """The task of `waiter` gives up; who was lent its priority has it no longer."""
        task, owner = waiter.task, self.owner
        if task is None:
            return
        was_top = waiter is self.waiters[0]
        self.waiters.remove(waiter)
        task.pi_blocked_on = None
        if owner is None or not was_top:
            return
        _dequeue_pi(owner, waiter)
        if self.waiters:
            _enqueue_pi(owner, self.waiters[0])
        _pass_on(owner, self, task)

    def cleanup_proxy_lock(self, waiter: RtWaiter, task: Task) -> bool:
        """Waiting failed: True when the task is out of the queue, False when it got the lock at the last moment."""
        if waiter.task is not None and self.waiters and self.try_to_take(task, waiter):
            return False
        if self.owner is task:
            return False
        self.remove_waiter(waiter)
        return True

    def unlock(self, owner: Task) -> None:
        """Give the lock back and wake the first waiter."""
        self.owner = None
        if self.waiters:
            waiter = self.waiters[0]
            _dequeue_pi(owner, waiter)
            task = waiter.task
            if task is not None:
                task.kernel.wake_up(task)


def _enqueue_pi(owner: Task, waiter: RtWaiter) -> None:
    """rt_mutex_enqueue_pi() and rt_mutex_adjust_prio()."""
    waiters = list(owner.pi_waiters)
    insort_right(waiters, waiter, key=_prio)
    owner.pi_waiters = tuple(waiters)


def _dequeue_pi(owner: Task, waiter: RtWaiter | None) -> None:
    """rt_mutex_dequeue_pi() and rt_mutex_adjust_prio()."""
    owner.pi_waiters = tuple(other for other in owner.pi_waiters if other is not waiter)


def adjust_prio_chain(
    task: Task, detect: bool, orig_lock: RtMutex | None, orig_waiter: RtWaiter | None, top_task: Task
) -> None:
    """Pass a changed priority of `task` along the chain of owners: rt_mutex_adjust_prio_chain().

    Args:
        detect: go on to look for a deadlock where no priority changes any more.
        orig_lock: what `top_task` waits for; None: its priority was set.
        orig_waiter: with what it waits; None when it gave up.

    Raises DeadlockError.
    """
    requeue = True
    top_waiter = orig_waiter
    for _ in range(top_task.kernel.sysctls.get("max_lock_depth", MAX_LOCK_DEPTH)):
        waiter = task.pi_blocked_on
        if waiter is None or waiter.lock is None:
            return
        if top_waiter is not None:
            if not task.pi_waiters:
                return
            if top_waiter is not task.pi_waiters[0]:
                if not detect:
                    return
                requeue = False
        if waiter.prio == task.prio:
            if not detect:
                return
            requeue = False
        lock = waiter.lock
        owner = lock.owner
        if lock is orig_lock or owner is top_task:
            raise DeadlockError
        if requeue:
            waiter, more = _requeue(lock, waiter, task.prio)
            if not (more or detect):
                return
        if owner is None:
            return
        task = owner
        top_waiter = lock.waiters[0]
        if not detect and waiter is not top_waiter:
            return
    raise DeadlockError


def _requeue(lock: RtMutex, waiter: RtWaiter, prio: int) -> tuple[RtWaiter, bool]:
    """A waiter's priority has changed: its new place, and what the owner is lent.

    Returns the waiter the walk goes on with, and whether there is anything to go on for.
    """
    before = lock.waiters[0]
    lock.waiters.remove(waiter)
    waiter.prio = prio
    insort_right(lock.waiters, waiter, key=_prio)
    top, owner = lock.waiters[0], lock.owner
    if owner is None:
        if top is not before and top.task is not None:
            top.task.kernel.wake_up(top.task)
        return waiter, False
    if waiter is top:
        _dequeue_pi(owner, before)
        _enqueue_pi(owner, waiter)
    elif before is waiter:
        _dequeue_pi(owner, waiter)
        _enqueue_pi(owner, top)
        return top, True
    return waiter, True


def adjust_pi(task: Task) -> None:
    """Its priority was set (rt_mutex_adjust_pi()): the locks it waits for must know."""
    waiter = task.pi_blocked_on
    if waiter is not None and waiter.prio != task.prio:
        _pass_on(task, None, task)


def _pass_on(task: Task, orig_lock: RtMutex | None, top_task: Task) -> None:
    """Priorities change along a chain, where a circle that is there already is nobody's error."""
    try:  # noqa: SIM105 - contextlib is not worth its import here
        adjust_prio_chain(task, False, orig_lock, None, top_task)
    except DeadlockError:
        pass
