"""Locking areas into memory (mm/mlock.c): mlock, mlock2, munlock, mlockall, munlockall.

Locking happens on two levels that the guest can tell apart. An *area* is locked by VM_LOCKED in its flags (with
VM_LOCKONFAULT: only what gets touched); `mm.locked_vm` counts the pages of such areas and answers to RLIMIT_MEMLOCK. A
*page* is locked by PG_MLOCKED, set when it is found resident in a locked area, or born into one.

    mlock      areas get VM_LOCKED (split and merged as by mprotect), then every page is made resident and marked
    munlock    areas lose it, then the pages are unmarked, unless another locked area still maps them

A request that runs into a hole has locked what lies before the hole. Nothing is populated then, but the flags stay.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import (
    CAP_IPC_LOCK,
    RLIM_INFINITY,
    RLIMIT_MEMLOCK,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_CLEAR_MASK,
    VM_LOCKONFAULT,
    VM_SPECIAL,
)
from mm.lru import PAGEVEC_SIZE
from mm.memory_cow import vm_normal_page
from mm.page_rmap import munlock_pagevec, munlock_vma_page
from mm.pgtable import pte_range, walk_pmds
from mm.util import can_do_mlock, capable, rlimit
from mm.vma_adjust import set_vma_flags
from mm.vma_merge import vma_modify

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, Page, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
MLOCK_ONFAULT = 1
MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4


def munlock_vma_pages_range(vma: VmAreaStruct, start: int, end: int) -> None:
    """Unlock the area and unmark its resident pages in [start, end). The zero page is never marked."""
    vma.vm_flags &= VM_LOCKED_CLEAR_MASK
    mm = vma.vm_mm
    system = mm.system
    arch = mm.arch
    words = system.words
    for first, last, pmd in walk_pmds(mm, start, end):
        entry = words[pmd]
        if arch.pmd_trans_huge(entry):
            page = vm_normal_page(mm, entry)
            if page is not None:
                munlock_vma_page(system, page)
            continue
        low, high = pte_range(mm, pmd, first, last)
        pagevec: list[Page] = []  # pages in a row
        for pte in words[low:high].tolist():
            page = vm_normal_page(mm, pte) if pte and arch.pte_present(pte) else None
            if page is not None:
                pagevec.append(page)
            if pagevec and (page is None or len(pagevec) == PAGEVEC_SIZE):
                munlock_pagevec(system, pagevec)
                pagevec = []
        munlock_pagevec(system, pagevec)


def munlock_vma_pages_all(vma: VmAreaStruct) -> None:
    """Unlock a whole area, which is about to go."""
    munlock_vma_pages_range(vma, vma.vm_start, vma.vm_end)


def mlock_fixup(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, newflags: int
) -> tuple[VmAreaStruct, int]:
    """Give [start, end) of `vma` the lock bits of `newflags`; (the area that covers the range now, errno or 0).

    Special areas are left alone. `prev` is the area before `start`, or `vma` itself.
    """
    mm = vma.vm_mm
    old_flags = vma.vm_flags
    if newflags == old_flags or old_flags & (VM_SPECIAL | VM_HUGETLB):
        return vma, 0
    try:
        vma = vma_modify(vma, prev, start, end, newflags, vma.vm_policy)
    except Errno as error:
        return vma, error.number

    nr_pages = (end - start) >> mm.arch.page_shift
    if not newflags & VM_LOCKED:
        mm.locked_vm -= nr_pages
        munlock_vma_pages_range(vma, start, end)
    else:
        if not old_flags & VM_LOCKED:
            mm.locked_vm += nr_pages
        set_vma_flags(vma, newflags)
    return vma, 0


def apply_vma_lock_flags(mm: MmStruct, start: int, length: int, flags: int) -> None:
    """Give the page-aligned range [start, start + length) the lock bits in `flags`.

    Raises:
        Errno: EINVAL where the range wraps, ENOMEM at a hole (what lies before it is done) or at too many areas.
    """
    end = (start + length) & _MASK64
    if end < start:
        raise Errno(errno.EINVAL)
    if end == start:
        return
    vma = mm.ops.find_vma(mm, start)
    if vma is None or vma.vm_start > start:
        raise Errno(errno.ENOMEM)
    prev = vma if start > vma.vm_start else vma.vm_prev
    nstart = start
    while True:
        newflags = vma.vm_flags & VM_LOCKED_CLEAR_MASK | flags
        tmp = min(vma.vm_end, end)
        prev, error = mlock_fixup(vma, prev, nstart, tmp, newflags)
        if error:
            raise Errno(error)
        nstart = max(tmp, prev.vm_end)
        if nstart >= end:
            return
        following = prev.vm_next
        if following is None or following.vm_start != nstart:
            raise Errno(errno.ENOMEM)
        vma = following


def count_mm_mlocked_page_nr(mm: MmStruct, start: int, length: int) -> int:
    """Pages of [start, start + length) that are in locked areas already."""
    vma = mm.ops.find_vma(mm, start)
    if vma is None:
        vma = mm.mmap
    end = (start + length) & _MASK64
    count = 0
    while vma is not None and vma.vm_start < end:
        if start < vma.vm_end and vma.vm_flags & VM_LOCKED:
            if start > vma.vm_start:
                count -= start - vma.vm_start
            if end < vma.vm_end:
                count += end - vma.vm_start
                break
            count += vma.vm_end - vma.vm_start
        vma = vma.vm_next
    return (count & _MASK64) >> mm.arch.page_shift


def _page_range(mm: MmStruct, start: int, length: int) -> tuple[int, int]:
    """(first byte, length) of the pages that [start, start + length) touches; the length may wrap to 0, as in C."""
    arch = mm.arch
    start = arch.untagged_addr(start)
    length = (length + (start & (arch.page_size - 1)) + arch.page_size - 1) & arch.page_mask
    return start & arch.page_mask, length & _MASK64


def do_mlock(mm: MmStruct, start: int, length: int, flags: int) -> None:
    """Lock the pages of [start, start + length): VM_LOCKED, or with VM_LOCKONFAULT in `flags` when touched.

    Raises:
        Errno: EPERM where locking is forbidden; ENOMEM above RLIMIT_MEMLOCK, at a hole, or where a page cannot be
            accessed; EAGAIN without memory; EINVAL where the range wraps.
    """
    from mm.gup import __mm_populate as populate

    if not can_do_mlock(mm):
        raise Errno(errno.EPERM)
    start, length = _page_range(mm, start, length)
    shift = mm.arch.page_shift
    lock_limit = rlimit(mm, RLIMIT_MEMLOCK) >> shift
    locked = (length >> shift) + mm.locked_vm
    if locked > lock_limit and not capable(mm, CAP_IPC_LOCK):
        locked -= count_mm_mlocked_page_nr(mm, start, length)
        if locked > lock_limit:
            raise Errno(errno.ENOMEM)
    apply_vma_lock_flags(mm, start, length, flags)
    try:
        populate(mm, start, length, False)
    except Errno as error:  # __mlock_posix_error_return()
        if error.number == errno.EFAULT:
            raise Errno(errno.ENOMEM) from None
        if error.number == errno.ENOMEM:
            raise Errno(errno.EAGAIN) from None
        raise


def mlock(mm: MmStruct, start: int, length: int) -> None:
    """The system call; see `do_mlock`."""
    do_mlock(mm, start, length, VM_LOCKED)


def mlock2(mm: MmStruct, start: int, length: int, flags: int) -> None:
    """The system call. Raises EINVAL for unknown flags, else see `do_mlock`."""
    if flags & ~MLOCK_ONFAULT:
        raise Errno(errno.EINVAL)
    do_mlock(mm, start, length, VM_LOCKED | VM_LOCKONFAULT if flags & MLOCK_ONFAULT else VM_LOCKED)


def munlock(mm: MmStruct, start: int, length: int) -> None:
    """The system call. Raises EINVAL where the range wraps, ENOMEM at a hole."""
    start, length = _page_range(mm, start, length)
    apply_vma_lock_flags(mm, start, length, 0)


def apply_mlockall_flags(mm: MmStruct, flags: int) -> None:
    """Set what future areas start with (MCL_FUTURE), and lock or unlock all there are; refusals are not reported."""
    lock = VM_LOCKED | VM_LOCKONFAULT if flags & MCL_ONFAULT else VM_LOCKED
    mm.def_flags &= VM_LOCKED_CLEAR_MASK
    if flags & MCL_FUTURE:
        mm.def_flags |= lock
        if not flags & MCL_CURRENT:
            return
    to_add = lock if flags & MCL_CURRENT else 0
    vma = mm.mmap
    prev: VmAreaStruct | None = None
    while vma is not None:
        newflags = vma.vm_flags & VM_LOCKED_CLEAR_MASK | to_add
        prev, _ = mlock_fixup(vma, prev, vma.vm_start, vma.vm_end, newflags)
        vma = prev.vm_next


def mlockall(mm: MmStruct, flags: int) -> None:
    """Lock what is mapped, what will be mapped, or both.

    Raises:
        Errno: EINVAL for no or unknown flags or MCL_ONFAULT alone, EPERM where locking is forbidden, ENOMEM where the
            whole address space exceeds RLIMIT_MEMLOCK.
    """
    from mm.gup import mm_populate

    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise Errno(errno.EINVAL)
    if not can_do_mlock(mm):
        raise Errno(errno.EPERM)
    lock_limit = rlimit(mm, RLIMIT_MEMLOCK) >> mm.arch.page_shift
    if flags & MCL_CURRENT and mm.total_vm > lock_limit and not capable(mm, CAP_IPC_LOCK):
        raise Errno(errno.ENOMEM)
    apply_mlockall_flags(mm, flags)
    if flags & MCL_CURRENT:
        mm_populate(mm, 0, mm.arch.task_size)


def munlockall(mm: MmStruct) -> None:
    """Unlock everything, and lock nothing in the future."""
    apply_mlockall_flags(mm, 0)


def user_shm_lock(system: System, locked_shm: dict[int, int], size: int, user: int) -> bool:
    """Charge `size` bytes of SysV memory to user id `user`; False when RLIMIT_MEMLOCK forbids it.

    `locked_shm` holds, by user id, the pages that users have locked in segments, apart from any address space.
    """
    task = system.current
    if task is None:
        return False
    limit = task.rlim[RLIMIT_MEMLOCK][0]
    shift = system.arch.page_shift
    locked = (size + system.page_size - 1) >> shift
    held = locked_shm.get(user, 0)
    if limit != RLIM_INFINITY and locked + held > limit >> shift and not task.cap_effective >> CAP_IPC_LOCK & 1:
        return False
    locked_shm[user] = held + locked
    return True


def user_shm_unlock(system: System, locked_shm: dict[int, int], size: int, user: int) -> None:
    """Take back what `user_shm_lock` charged."""
    left = locked_shm[user] - ((size + system.page_size - 1) >> system.arch.page_shift)
    if left:
        locked_shm[user] = left
    else:
        del locked_shm[user]
