"""Accounting and limits of an address space (mm/util.c, and the counting part of mm/mmap.c).

Two kinds of bookkeeping meet here. The address space's own counters (`total_vm`, `data_vm`, `exec_vm`, `stack_vm`, in
pages) answer to the task's limits RLIMIT_AS and RLIMIT_DATA. The machine-wide `system.vm_committed_as` counts the pages
promised to private writable areas (those with VM_ACCOUNT) and answers to the overcommit policy:

    0 guess    refuse only a single request larger than RAM and swap together
    1 always   never refuse
    2 never    refuse what would exceed CommitLimit, less a reserve for root and one for the user

Every promise is taken back by `vm_unacct_memory` when the area goes.

A refused request raises Errno(ENOMEM) after giving its own promise back, so a caller that fails later has to give back
only what it was granted.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno, KernelBug
from mm.flags import (
    CAP_IPC_LOCK,
    CAP_SYS_ADMIN,
    PF_SUPERPRIV,
    RLIMIT_AS,
    RLIMIT_DATA,
    RLIMIT_MEMLOCK,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_SHARED,
    VM_WRITE,
)

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import File, MmStruct, TaskStruct, VmAreaStruct

OVERCOMMIT_GUESS = 0
OVERCOMMIT_ALWAYS = 1
OVERCOMMIT_NEVER = 2

VM_STACK = VM_GROWSDOWN  # the flag that marks stacks on architectures whose stacks grow down
_EXEC_BITS = VM_EXEC | VM_WRITE | VM_STACK
_DATA_BITS = VM_WRITE | VM_SHARED | VM_STACK


def get_current(mm: MmStruct) -> TaskStruct:
    """The running task, whose limits and rights count (Linux's `current`).

    Raises:
        KernelBug: no task is running.
    """
    task = mm.system.current
    if task is None:
        raise KernelBug("a call on an address space needs a running task", mm)
    return task


def rlimit(mm: MmStruct, limit: int) -> int:
    """Soft limit RLIMIT_`limit` of the current task, in its own unit (bytes for memory)."""
    return get_current(mm).rlim[limit][0]


def capable(mm: MmStruct, cap: int) -> bool:
    """Does the current task hold capability `cap`? Using it is remembered."""
    task = get_current(mm)
    if not task.cap_effective >> cap & 1:
        return False
    task.flags |= PF_SUPERPRIV
    return True


def get_file(file: File) -> File:
    """One more user of an open file."""
    file.f_count += 1
    return file


def fput(file: File) -> None:
    """One user less; the last closes it."""
    file.f_count -= 1
    if file.f_count == 0:
        file.release()


def vma_close(vma: VmAreaStruct) -> None:
    """Tell the owner that an area goes, once."""
    ops = vma.vm_ops
    if ops is not None and ops.close is not None:
        ops.close(vma)


def totalram_pages(system: System) -> int:
    """Pages of RAM the kernel manages."""
    return system.totalram_pages


def vm_commit_limit(system: System) -> int:
    """CommitLimit in pages: what overcommit mode 2 is willing to promise. There is no swap to add."""
    if system.sysctl_overcommit_kbytes:
        return system.sysctl_overcommit_kbytes >> (system.arch.page_shift - 10)
    huge = system.hugetlb.total_pages() if system.hugetlb is not None else 0
    return (totalram_pages(system) - huge) * system.sysctl_overcommit_ratio // 100


def vm_acct_memory(system: System, pages: int) -> None:
    """Promise `pages` without asking."""
    system.vm_committed_as += pages


def vm_unacct_memory(system: System, pages: int) -> None:
    """Take a promise of `pages` back."""
    system.vm_committed_as -= pages


def security_vm_enough_memory_mm(mm: MmStruct, pages: int) -> None:
    """Promise `pages` to private writable memory of `mm` (__vm_enough_memory).

    Raises:
        Errno: ENOMEM when the overcommit policy refuses; nothing is promised then.
    """
    system = mm.system
    system.vm_committed_as += pages
    mode = system.sysctl_overcommit_memory
    if mode == OVERCOMMIT_GUESS:
        if pages <= totalram_pages(system):
            return
    elif mode == OVERCOMMIT_ALWAYS:
        return
    else:
        to_pages = system.arch.page_shift - 10
        allowed = vm_commit_limit(system)
        if not get_current(mm).cap_effective >> CAP_SYS_ADMIN & 1:  # not remembered
            allowed -= system.sysctl_admin_reserve_kbytes >> to_pages
        allowed -= min(mm.total_vm // 32, system.sysctl_user_reserve_kbytes >> to_pages)
        if max(system.vm_committed_as, 0) < allowed:
            return
    system.vm_committed_as -= pages
    raise Errno(errno.ENOMEM)


def may_expand_vm(mm: MmStruct, flags: int, npages: int) -> bool:
    """May `mm` grow by `npages` of an area with `flags`, by RLIMIT_AS and RLIMIT_DATA?"""
    shift = mm.arch.page_shift
    rlim = get_current(mm).rlim
    if mm.total_vm + npages > rlim[RLIMIT_AS][0] >> shift:
        return False
    if flags & _DATA_BITS == VM_WRITE:
        soft, hard = rlim[RLIMIT_DATA]
        pages = mm.data_vm + npages
        if pages > soft >> shift:
            # A soft limit of 0 is how valgrind asks for brk to fail while mmap goes on working.
            return soft == 0 and pages <= hard >> shift
    return True


def vm_stat_account(mm: MmStruct, flags: int, npages: int) -> None:
    """`npages` of an area with `flags` were added (negative: removed)."""
    mm.total_vm += npages
    if flags & _EXEC_BITS == VM_EXEC:
        mm.exec_vm += npages
    elif flags & VM_STACK:
        mm.stack_vm += npages
    elif flags & _DATA_BITS == VM_WRITE:
        mm.data_vm += npages


def mlock_future_check(mm: MmStruct, flags: int, length: int) -> None:
    """May `length` bytes more be locked, where `flags` ask for it?

    Raises:
        Errno: EAGAIN above RLIMIT_MEMLOCK without CAP_IPC_LOCK.
    """
    if flags & VM_LOCKED:
        shift = mm.arch.page_shift
        locked = (length >> shift) + mm.locked_vm
        if locked > rlimit(mm, RLIMIT_MEMLOCK) >> shift and not capable(mm, CAP_IPC_LOCK):
            raise Errno(errno.EAGAIN)


def can_do_mlock(mm: MmStruct) -> bool:
    """May the current task lock memory at all?"""
    return rlimit(mm, RLIMIT_MEMLOCK) != 0 or capable(mm, CAP_IPC_LOCK)


def update_hiwater_vm(mm: MmStruct) -> None:
    """Remember the largest total_vm before it shrinks (VmPeak)."""
    if mm.hiwater_vm < mm.total_vm:
        mm.hiwater_vm = mm.total_vm


def update_hiwater_rss(mm: MmStruct) -> None:
    """Remember the largest resident set before it shrinks (VmHWM)."""
    rss = mm.rss_stat
    total = max(rss[0], 0) + max(rss[1], 0) + max(rss[3], 0)
    if mm.hiwater_rss < total:
        mm.hiwater_rss = total
