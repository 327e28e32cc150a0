"""Fast user-space mutexes (kernel/futex/core.c): waiting on, and waking, a word of memory.

    Futex     one word somebody waits on: its waiters, real-time tasks first by priority, the others in turn
    FutexQ    one waiter (struct futex_q), in `task.wait_state["waiter"]` while its call sleeps

A word is named by its address space and address when private, by its file and offset when it lies in a shared page.
Priority inheritance is in futex_pi.py, moving waiters in futex_requeue.py, what a dying task held in futex_exit.py.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

from guest.clock import NSEC_PER_SEC
from guest.own_mm import own_mm
from guest.sched import ERESTART_RESTARTBLOCK, ERESTARTSYS, WaitQueue, sleep_on
from guest.sys_mm import s32
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.types import AnonVma
from mm.uaccess import copy_from_user, get_user, put_user, user_address

if TYPE_CHECKING:
    from guest.futex_pi import PiState
    from guest.kernel import Kernel
    from guest.rtmutex import RtWaiter
    from guest.task import Task

FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP = 0, 1, 3, 4, 5
FUTEX_LOCK_PI, FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI = 6, 7, 8
FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI = 9, 10, 11, 12
FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME = 128, 256
FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK = 0x80000000, 0x40000000, 0x3FFFFFFF
MAX_RT_PRIO = 100
_TIMED = (FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI)
_TIMESPEC = Struct("<qq")
MATCH_ANY = 0xFFFFFFFF
TRIES = 16  # an access that still fails after so many faults that succeeded will fail forever

Key = tuple[Any, int, str]


class FutexQ:
    """A task that waits on a word."""

    __slots__ = ("address", "bitset", "futex", "key", "pi_state", "prio", "requeue_pi_key", "rt_waiter", "task")

    def __init__(self, task: Task, key: Key, bitset: int = MATCH_ANY, address: int = 0) -> None:
        self.task = task
        self.key = key
        self.address = address  # of the lock's word, for one that may get a lock
        self.bitset = bitset
        self.prio = min(task.normal_prio, MAX_RT_PRIO)
        self.futex: Futex | None = None  # where it is queued; None: woken, or not yet
        self.pi_state: PiState | None = None  # of the lock it waits for
        self.rt_waiter: RtWaiter | None = None  # of one that waits to be requeued to a lock
        self.requeue_pi_key: Key | None = None  # to which it may be requeued

    def leave(self) -> None:
        """Its task dies without another run of the call."""
        if self.pi_state is not None:
            from guest.futex_pi import give_up

            give_up(self)
        elif self.futex is not None:
            unqueue(self)


class Futex(WaitQueue):
    """A word, and who waits on it."""

    __slots__ = ("key", "waiters")

    def __init__(self, key: Key) -> None:
        super().__init__(f"futex {key[1]:#x}")
        self.key = key
        self.waiters: list[FutexQ] = []  # by priority, then by age (struct plist_head)


def get_futex_key(task: Task, address: int, private: bool, write: bool = False) -> Key:
    """The name of a word. Raises Errno(EINVAL) for a misaligned one, EFAULT for one that is not there (shared only)."""
    if address & 3:
        raise Errno(errno.EINVAL)
    mm = own_mm(task)
    if address + 4 > mm.arch.task_size:
        raise Errno(errno.EFAULT)
    if private:
        return (mm, address, "private")
    page, read_only = _get_page(task, address, write)
    if page.__class__ is AnonVma or page.mapping.__class__ is AnonVma:
        if read_only:
            raise Errno(errno.EFAULT)
        return (mm, address, "shared")
    if page.mapping is None:
        raise Errno(errno.EFAULT)
    index = page.index
    if page.private is not None:  # part of a huge page
        vma = mm.ops.find_vma(mm, address)
        index = vma.vm_pgoff + (address - vma.vm_start >> mm.arch.page_shift) if vma is not None else 0
    return (page.mapping, (index << mm.arch.page_shift) + (address & ~mm.arch.page_mask), "file")


def _get_page(task: Task, address: int, write: bool) -> tuple[Any, bool]:
    """get_user_pages_fast() for writing, or else (unless `write`) for reading only: the page, and whether that."""
    from mm.gup import FOLL_TOUCH, FOLL_WRITE, get_user_pages
    from mm.pgtable import pte_offset

    mm = own_mm(task)
    arch, system = mm.arch, mm.system
    index = pte_offset(mm, address)
    pte = system.words[index] if index >= 0 else 0
    if pte and arch.pte_present(pte) and not arch.pte_protnone(pte) and pte & arch.PTE_WRITE:
        return system.mem_map.frames[arch.pte_pfn(pte)], False
    pages: list[Any] = []
    page = address & arch.page_mask
    read_only = False
    try:
        get_user_pages(mm, page, 1, FOLL_WRITE | FOLL_TOUCH, pages)
    except Errno as e:
        if write or e.number != errno.EFAULT:
            raise
        read_only = True
        get_user_pages(mm, page, 1, FOLL_TOUCH, pages)
    pages[0].refcount -= 1
    return pages[0], read_only


# ---- the word itself, while no fault may be taken


class WordFault(Exception):
    """The word cannot be reached without a fault (-EFAULT with page faults disabled)."""


def read_word(task: Task, address: int) -> int:
    """get_futex_value_locked(). Raises WordFault."""
    if user_address(task, address, False, atomic=True) < 0:
        raise WordFault
    return get_user(task, address, 4)


def write_word(task: Task, address: int, value: int) -> None:
    """A successful cmpxchg_futex_value_locked(): nobody else runs. Raises WordFault."""
    if user_address(task, address, True, atomic=True) < 0:
        raise WordFault
    put_user(task, address, value, 4)


def fault_in_user_writeable(task: Task, address: int) -> None:
    """Make the word's page writable (fixup_user_fault()). Raises Errno(EFAULT), ENOMEM."""
    from mm.gup import FOLL_WRITE, check_vma_flags, faultin_page
    from mm.stack import find_extend_vma

    vma = find_extend_vma(own_mm(task), address)
    if vma is None or address < vma.vm_start or not check_vma_flags(vma, FOLL_WRITE):
        raise Errno(errno.EFAULT)
    faultin_page(vma, address, FOLL_WRITE, False)


# ---- queues


def find_futex(kernel: Kernel, key: Key) -> Futex | None:
    """The word of this name, if somebody waits on it."""
    futex: Futex | None = kernel.futex_queues.get(key)
    return futex


def futex_for(kernel: Kernel, key: Key) -> Futex:
    """The word of this name; whoever asks is about to queue there."""
    futex = find_futex(kernel, key)
    if futex is None:
        futex = kernel.futex_queues[key] = Futex(key)
    return futex


def queue_on(q: FutexQ, futex: Futex) -> None:
    """__queue_me(): behind those of the same priority."""
    waiters = futex.waiters
    at = len(waiters)
    while at and waiters[at - 1].prio > q.prio:
        at -= 1
    waiters.insert(at, q)
    q.futex = futex


def unqueue(q: FutexQ) -> None:
    """Take a waiter out; a word nobody waits on is forgotten."""
    futex = q.futex
    if futex is None:
        return
    futex.waiters.remove(q)
    q.futex = None
    if not futex.waiters:
        del q.task.kernel.futex_queues[futex.key]


def wake_up_q(q: FutexQ) -> None:
    """mark_wake_futex(): its wait is over."""
    unqueue(q)
    q.task.kernel.wake_up(q.task)


def wake(kernel: Kernel, key: Key, number: int, bitset: int = MATCH_ANY) -> int:
    """Wake up to `number` waiters (at least one) that share a bit; how many. Raises Errno(EINVAL) for a lock's."""
    futex = find_futex(kernel, key)
    woken = 0
    for q in futex.waiters[:] if futex is not None else ():
        if q.pi_state is not None or q.rt_waiter is not None:
            raise Errno(errno.EINVAL)
        if q.bitset & bitset:
            wake_up_q(q)
            woken += 1
            if woken >= number:
                break
    return woken


def _wait(task: Task, address: int, private: bool, value: int, deadline: int | None, bitset: int) -> int:  # noqa: RET503
    """futex_wait()."""
    if not bitset:
        raise Errno(errno.EINVAL)
    q: FutexQ | None = task.wait_state.pop("waiter", None)
    if q is not None:
        if q.futex is None:
            return 0
        unqueue(q)
    if q is None or not (_late(task, deadline) or task.sigpending):  # woken by something else: look at the word again
        q = FutexQ(task, wait_setup(task, address, private, value), bitset)
    if _late(task, deadline):
        raise Errno(errno.ETIMEDOUT)
    if task.sigpending:
        restart = ERESTARTSYS
        if deadline is not None:
            restart = ERESTART_RESTARTBLOCK
            task.restart_block = (_wait, address, private, value, deadline, bitset)
        sleep_on(task, restart=restart)
    sleep_in(q, deadline)


def sleep_in(q: FutexQ, deadline: int | None) -> NoReturn:
    """Queue a waiter and sleep (futex_wait_queue_me()). Raises Block."""
    task = q.task
    task.wait_state["waiter"] = q
    futex = futex_for(task.kernel, q.key)
    queue_on(q, futex)
    sleep_on(task, futex, deadline=deadline)


def _late(task: Task, deadline: int | None) -> bool:
    return deadline is not None and task.kernel.clock.now >= deadline


def wait_setup(task: Task, address: int, private: bool, value: int) -> Key:
    """futex_wait_setup(): the word's name. Raises Errno(EWOULDBLOCK) when it is not `value`, EFAULT, EINVAL."""
    key = get_futex_key(task, address, private)
    if get_user(task, address, 4) != value & MATCH_ANY:
        raise Errno(errno.EWOULDBLOCK)
    return key


def _atomic_op(task: Task, address: int, encoded: int) -> bool:
    """futex_atomic_op_inuser(): change the word; how its old value compares. Raises WordFault, Errno(ENOSYS)."""
    op, comparison = encoded >> 28 & 7, encoded >> 24 & 15
    oparg, cmparg = s32((encoded >> 12 & 0xFFF) << 20) >> 20, s32((encoded & 0xFFF) << 20) >> 20
    if encoded >> 31 & 1:  # FUTEX_OP_OPARG_SHIFT
        oparg = 1 << (oparg & 31)
    if op > 4:
        raise Errno(errno.ENOSYS)
    if user_address(task, address, True, atomic=True) < 0:
        raise WordFault
    word = get_user(task, address, 4)
    put_user(task, address, (oparg, word + oparg, word | oparg, word & ~oparg, word ^ oparg)[op], 4)
    old = s32(word)
    if comparison > 5:
        raise Errno(errno.ENOSYS)
    return (old == cmparg, old != cmparg, old < cmparg, old <= cmparg, old > cmparg, old >= cmparg)[comparison]


def _wake_op(task: Task, address: int, address2: int, private: bool, number: int, number2: int, encoded: int) -> int:
    """FUTEX_WAKE_OP: change the second word, wake on the first, and on the second if its old value compares."""
    for _ in range(TRIES):
        key = get_futex_key(task, address, private)
        key2 = get_futex_key(task, address2, private, True)
        try:
            true = _atomic_op(task, address2, encoded)
            break
        except WordFault:
            fault_in_user_writeable(task, address2)
    else:
        raise Errno(errno.EFAULT)
    count = wake(task.kernel, key, number)
    return count + wake(task.kernel, key2, number2) if true else count


def deadline_of(task: Task, utime: int, command: int, realtime: bool) -> int:
    """The timeout as CLOCK_MONOTONIC ns; kept over re-runs. Raises Errno(EINVAL), EFAULT."""
    state = task.wait_state
    if "futex-deadline" not in state:
        seconds, nanoseconds = _TIMESPEC.unpack(copy_from_user(task, utime, 16))
        if seconds < 0 or not 0 <= nanoseconds < NSEC_PER_SEC:
            raise Errno(errno.EINVAL)
        value = seconds * NSEC_PER_SEC + nanoseconds
        clock = task.kernel.clock
        relative = command == FUTEX_WAIT
        by_day = (realtime and not relative) or command == FUTEX_LOCK_PI
        if task.time_ns is not None and not relative and not by_day:
            value = task.time_ns.to_host(1, value)
        state["at-time-of-day"] = by_day
        state["futex-deadline"] = clock.now + value if relative else value - clock.offset if by_day else value
    return int(state["futex-deadline"])


def sys_futex(task: Task, uaddr: int, op: int, val: int, utime: int, uaddr2: int, val3: int) -> int:
    """futex."""
    command = op & 0xFFFFFFFF & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    private = bool(op & FUTEX_PRIVATE_FLAG)
    realtime = bool(op & FUTEX_CLOCK_REALTIME)
    deadline = deadline_of(task, utime, command, realtime) if utime and command in _TIMED else None
    if realtime and command not in (FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI):
        raise Errno(errno.ENOSYS)
    val3 &= MATCH_ANY
    if command == FUTEX_WAIT:
        return _wait(task, uaddr, private, val, deadline, MATCH_ANY)
    if command == FUTEX_WAKE:
        return wake(task.kernel, get_futex_key(task, uaddr, private), s32(val))
    if command == FUTEX_WAIT_BITSET:
        return _wait(task, uaddr, private, val, deadline, val3)
    if command == FUTEX_WAKE_BITSET:
        if not val3:
            raise Errno(errno.EINVAL)
        return wake(task.kernel, get_futex_key(task, uaddr, private), s32(val), val3)
    if command == FUTEX_WAKE_OP:
        return _wake_op(task, uaddr, uaddr2, private, s32(val), s32(utime), val3)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI):
        from guest import futex_requeue

        if command == FUTEX_WAIT_REQUEUE_PI:
            return futex_requeue.wait_requeue_pi(task, uaddr, private, val, deadline, uaddr2)
        expected = None if command == FUTEX_REQUEUE else val3
        pi = command == FUTEX_CMP_REQUEUE_PI
        return futex_requeue.requeue(task, uaddr, private, uaddr2, s32(val), s32(utime), expected, pi)
    if command in (FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI):
        from guest import futex_pi

        if command == FUTEX_UNLOCK_PI:
            return futex_pi.unlock_pi(task, uaddr, private)
        trylock = command == FUTEX_TRYLOCK_PI
        return futex_pi.lock_pi(task, uaddr, private, None if trylock else deadline, trylock)
    raise Errno(errno.ENOSYS)


CALLS = (Call("futex", sys_futex, FULL),)
