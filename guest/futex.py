"""Fast user-space mutexes (kernel/futex): waiting on, and waking, an address. One queue of waiters per word of memory.

A word is named by its address space and address when private, by its page and offset when it lies in shared memory.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.clock import NSEC_PER_SEC
from guest.own_mm import own_mm
from guest.sched import ERESTART_RESTARTBLOCK, ERESTARTSYS, WaitQueue, sleep_on
from guest.sys_mm import s32
from guest.syscalls import PARTIAL, Call
from mm.errors import Errno
from mm.flags import VM_SHARED
from mm.uaccess import copy_from_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct

FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP = 0, 1, 3, 4, 5
FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 9, 10
FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME = 128, 256
FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK = 0x80000000, 0x40000000, 0x3FFFFFFF
_TIMESPEC = Struct("<qq")
_ALL = 0xFFFFFFFF


class Futex(WaitQueue):
    """Waiters of one word: each a task and the bitset it waits with."""

    __slots__ = ("bitsets", "key")

    def __init__(self, key: Any, address: int) -> None:
        super().__init__(f"futex {address:#x}")
        self.key = key
        self.bitsets: dict[int, int] = {}  # pid -> bitset


def _key(task: Task, address: int, private: bool) -> Any:
    """get_futex_key(). Raises Errno(EINVAL) for a misaligned word, EFAULT for one that is not there."""
    if address & 3:
        raise Errno(errno.EINVAL)
    mm = own_mm(task)
    if address + 4 > mm.task_size:
        raise Errno(errno.EFAULT)
    if not private:
        _pin(mm, address)
        vma = mm.ops.find_vma(mm, address)
        if vma is not None and vma.vm_flags & VM_SHARED and vma.vm_file is not None:
            arch = mm.arch
            offset = (address - vma.vm_start) + (vma.vm_pgoff << arch.page_shift)
            return (id(vma.vm_file.f_mapping), offset)
    return (id(mm), address)


def _pin(mm: MmStruct, address: int) -> None:
    """The page of a shared word, as if to be written, and if it may not be, to be read. Raises Errno(EFAULT)."""
    from mm.gup import FOLL_WRITE, get_user_pages

    page = address & mm.arch.page_mask
    try:
        get_user_pages(mm, page, 1, FOLL_WRITE)
    except Errno:
        get_user_pages(mm, page, 1, 0)


def _find(task: Task, address: int, private: bool) -> Futex | None:
    futex: Futex | None = task.kernel.futex_queues.get(_key(task, address, private))
    return futex


def _find_or_make(task: Task, address: int, private: bool) -> Futex:
    queues = task.kernel.futex_queues
    key = _key(task, address, private)
    futex: Futex | None = queues.get(key)
    if futex is None:
        futex = queues[key] = Futex(key, address)
    return futex


def _drop_if_empty(task: Task, futex: Futex) -> None:
    """Forget a word nobody waits on. Another queue may have taken its name since: that one has waiters."""
    queues = task.kernel.futex_queues
    if not futex.tasks and not futex.bitsets and queues.get(futex.key) is futex:
        del queues[futex.key]


def _wake(futex: Futex, number: int, bitset: int = _ALL) -> int:
    """Wake up to `number` waiters that share a bit; how many."""
    woken = 0
    for waiter in futex.tasks[:]:
        if woken >= max(number, 1):
            break
        if futex.bitsets.get(waiter.pid, 0) & bitset:
            futex.bitsets.pop(waiter.pid, None)
            waiter.wait_state["futex-woken"] = True
            waiter.kernel.wake_up(waiter)
            woken += 1
    return woken


def futex_wake_address(task: Task, address: int, number: int) -> None:
    """FUTEX_WAKE by the kernel itself: clear_child_tid."""
    futex = _find(task, address, False)
    if futex is None:
        futex = _find(task, address, True)
    if futex is not None:
        _wake(futex, number)
        _drop_if_empty(task, futex)


def _wait(task: Task, address: int, private: bool, value: int, deadline: int | None, bitset: int, code: int) -> int:
    """futex_wait()."""
    if not bitset:
        raise Errno(errno.EINVAL)
    state = task.wait_state
    futex: Futex
    if "futex" in state:
        futex = state["futex"]
        if state.get("futex-woken"):
            _drop_if_empty(task, futex)
            return 0
        futex.bitsets.pop(task.pid, None)
        _drop_if_empty(task, futex)
        if deadline is not None and task.kernel.clock.now >= deadline:
            raise Errno(errno.ETIMEDOUT)
        if not task.sigpending:
            state.pop("futex")
            return _wait(task, address, private, value, deadline, bitset, code)
    else:
        futex = _find_or_make(task, address, private)
        if get_user(task, address, 4) != value & _ALL:
            _drop_if_empty(task, futex)
            raise Errno(errno.EWOULDBLOCK)
        if deadline is not None and task.kernel.clock.now >= deadline:
            _drop_if_empty(task, futex)
            raise Errno(errno.ETIMEDOUT)
        if not task.sigpending:
            state["futex"] = futex
            futex.bitsets[task.pid] = bitset
    if task.sigpending:
        _drop_if_empty(task, futex)
        if code == ERESTART_RESTARTBLOCK:
            task.restart_block = (_wait, address, private, value, deadline, bitset, code)
    sleep_on(task, futex, deadline=deadline, restart=code)
    return 0


def _requeue(task: Task, source: int, target: int, private: bool, wake: int, move: int) -> int:
    """Wake some waiters of one word, and let the next ones wait on another; how many were touched."""
    if wake < 0 or move < 0:
        raise Errno(errno.EINVAL)
    futex = _find(task, source, private)
    other = _find_or_make(task, target, private)
    count = 0
    if futex is not None and futex is not other:
        count = _wake(futex, wake) if wake else 0
        for waiter in futex.tasks[:move]:
            futex.tasks.remove(waiter)
            other.tasks.append(waiter)
            other.bitsets[waiter.pid] = futex.bitsets.pop(waiter.pid, _ALL)
            waiter.waiting_on = (other,)
            waiter.wait_state["futex"] = other
            count += 1
        _drop_if_empty(task, futex)
    _drop_if_empty(task, other)
    return count


def _wake_op(task: Task, address: int, address2: int, private: bool, wake: int, wake2: int, encoded: int) -> int:
    """FUTEX_WAKE_OP: change the second word, wake on the first, and on the second if its old value compares."""
    op, comparison = encoded >> 28 & 7, encoded >> 24 & 15
    oparg, cmparg = s32((encoded >> 12 & 0xFFF) << 20) >> 20, s32((encoded & 0xFFF) << 20) >> 20
    if encoded >> 31:
        oparg = 1 << (oparg & 31)
    _key(task, address, private)
    _key(task, address2, private)
    old = get_user(task, address2, 4)
    if op > 4:
        raise Errno(errno.ENOSYS)
    new = (oparg, old + oparg, old | oparg, old & ~oparg, old ^ oparg)[op] & _ALL
    put_user(task, address2, new, 4)
    signed = s32(old)
    if comparison > 5:
        raise Errno(errno.ENOSYS)
    true = (
        signed == cmparg, signed != cmparg, signed < cmparg, signed <= cmparg, signed > cmparg, signed >= cmparg
    )[comparison]  # fmt: skip
    count = 0
    futex = _find(task, address, private)
    if futex is not None:
        count += _wake(futex, wake)
        _drop_if_empty(task, futex)
    second = _find(task, address2, private)
    if true and second is not None:
        count += _wake(second, wake2)
        _drop_if_empty(task, second)
    return count


def sys_futex(task: Task, uaddr: int, op: int, val: int, utime: int, uaddr2: int, val3: int) -> int:
    """futex."""
    command = s32(op) & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    private = bool(op & FUTEX_PRIVATE_FLAG)
    realtime = bool(op & FUTEX_CLOCK_REALTIME)
    val3 &= _ALL
    if realtime and command not in (FUTEX_WAIT, FUTEX_WAIT_BITSET, 11):
        raise Errno(errno.ENOSYS)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        deadline = _deadline(task, utime, command == FUTEX_WAIT, realtime) if utime else None
        bitset = _ALL if command == FUTEX_WAIT else val3
        code = ERESTART_RESTARTBLOCK if deadline is not None else ERESTARTSYS
        return _wait(task, uaddr, private, val, deadline, bitset, code)
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        bitset = _ALL if command == FUTEX_WAKE else val3
        if not bitset:
            raise Errno(errno.EINVAL)
        futex = _find(task, uaddr, private)
        if futex is None:
            return 0
        count = _wake(futex, s32(val), bitset)
        _drop_if_empty(task, futex)
        return count
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        if command == FUTEX_CMP_REQUEUE and get_user(task, uaddr, 4) != val3:
            raise Errno(errno.EAGAIN)
        return _requeue(task, uaddr, uaddr2, private, s32(val), s32(utime))
    if command == FUTEX_WAKE_OP:
        return _wake_op(task, uaddr, uaddr2, private, s32(val), s32(utime), val3)
    raise Errno(errno.ENOSYS)


def _deadline(task: Task, utime: int, relative: bool, realtime: bool) -> int:
    """The timeout as CLOCK_MONOTONIC ns; kept over re-runs. Raises Errno(EINVAL), EFAULT."""
    state = task.wait_state
    if "futex-deadline" not in state:
        seconds, nanoseconds = _TIMESPEC.unpack(copy_from_user(task, utime, 16))
        if seconds < 0 or not 0 <= nanoseconds < NSEC_PER_SEC:
            raise Errno(errno.EINVAL)
        value = seconds * NSEC_PER_SEC + nanoseconds
        clock = task.kernel.clock
        if task.time_ns is not None and not relative and not realtime:
            value = task.time_ns.to_host(1, value)
        state["at-time-of-day"] = realtime and not relative
        state["futex-deadline"] = clock.now + value if relative else value - clock.offset if realtime else value
    return int(state["futex-deadline"])


def exit_robust_list(task: Task) -> None:
    """Locks the dying task holds are marked, and their waiters woken."""
    head, task.robust_list = task.robust_list, 0
    if not head or task.mm is None:
        return
    try:
        entry = get_user(task, head, 8)
        offset = get_user(task, head + 8, 8)
        offset -= (offset >> 63) << 64
        pending = get_user(task, head + 16, 8)
        limit = 2048
        while entry & ~1 != head and limit:
            following = get_user(task, entry & ~1, 8)
            if entry & ~1 != pending & ~1:
                _handle_death(task, (entry & ~1) + offset)
            entry = following
            limit -= 1
        if pending & ~1:
            _handle_death(task, (pending & ~1) + offset)
    except Errno:
        return  # a list that cannot be read ends there


def _handle_death(task: Task, address: int) -> None:
    """handle_futex_death()."""
    if address & 3:
        raise Errno(errno.EINVAL)
    value = get_user(task, address, 4)
    if value & FUTEX_TID_MASK != task.vnr(task.pid):
        return
    put_user(task, address, value & FUTEX_WAITERS | FUTEX_OWNER_DIED, 4)
    if value & FUTEX_WAITERS:
        futex_wake_address(task, address, 1)


CALLS = (Call("futex", sys_futex, PARTIAL, "no priority inheritance (ENOSYS)"),)
