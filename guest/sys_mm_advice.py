"""System calls that lock, advise, sync and inspect memory: decoders; the work is in mm/."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.iovec import import_iovec
from guest.own_mm import own_mm
from guest.ptrace_access import PTRACE_MODE_READ_FSCREDS, mm_access, pidfd_get_task
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.madvise import MADV_COLD, MADV_PAGEOUT, do_madvise
from mm.mincore import do_mincore
from mm.mlock import mlock, mlock2, mlockall, munlock, munlockall
from mm.msync import msync
from mm.remap_file_pages import remap_file_pages
from mm.uaccess import access_ok, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

CAP_SYS_NICE = 23


def s32(value: int) -> int:
    """A register read as a C int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def sys_mlock(task: Task, start: int, length: int) -> int:
    """Lock [start, start + length) and make it resident."""
    mlock(own_mm(task), start, length)
    return 0


def sys_mlock2(task: Task, start: int, length: int, flags: int) -> int:
    """mlock with MLOCK_ONFAULT: lock what is resident, and the rest when it is touched."""
    mlock2(own_mm(task), start, length, s32(flags))
    return 0


def sys_munlock(task: Task, start: int, length: int) -> int:
    """Unlock [start, start + length)."""
    munlock(own_mm(task), start, length)
    return 0


def sys_mlockall(task: Task, flags: int) -> int:
    """Lock all there is (MCL_CURRENT), all to come (MCL_FUTURE)."""
    mlockall(own_mm(task), s32(flags))
    return 0


def sys_munlockall(task: Task) -> int:
    """Unlock everything."""
    munlockall(own_mm(task))
    return 0


def sys_madvise(task: Task, start: int, length: int, behavior: int) -> int:
    """Advice about [start, start + length)."""
    do_madvise(own_mm(task), start, length, s32(behavior))
    if task.system.ksm is not None:
        from guest.ksmd import wake_ksmd

        wake_ksmd(task.kernel)
    return 0


def sys_process_madvise(task: Task, pidfd: int, vec: int, vlen: int, behavior: int, flags: int) -> int:
    """Advice about memory of another process; bytes advised, short after a failure in a later range.

    Refuses in this order: EINVAL for flags, what the iovec earns, EBADF or ESRCH by the pidfd, EINVAL for advice other
    than COLD and PAGEOUT, EACCES or ESRCH by the target, EPERM without CAP_SYS_NICE, what the first range earns.
    """
    if flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    ranges = import_iovec(task, vec, vlen)
    target = pidfd_get_task(task, s32(pidfd))
    behavior = s32(behavior)
    if behavior not in (MADV_COLD, MADV_PAGEOUT):
        raise Errno(errno.EINVAL)
    mm = mm_access(task, target, PTRACE_MODE_READ_FSCREDS)
    if not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    done = 0
    for base, length in ranges:
        try:
            do_madvise(mm, base, length, behavior)
        except Errno:
            if done:
                break
            raise
        done += length
    return done


def sys_msync(task: Task, start: int, length: int, flags: int) -> int:
    """Write mapped files back."""
    msync(own_mm(task), start, length, s32(flags))
    return 0


def sys_mincore(task: Task, start: int, length: int, vec: int) -> int:
    """One byte a page at `vec`: is it in memory? Written area by area, at most a page of answers at a time."""
    mm = own_mm(task)
    arch = mm.arch
    start = arch.untagged_addr(start)
    if start & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    if not access_ok(task, start, length):
        raise Errno(errno.ENOMEM)
    pages = (length + arch.page_size - 1) >> arch.page_shift
    if not access_ok(task, vec, pages):
        raise Errno(errno.EFAULT)
    while pages:
        answers = do_mincore(mm, start, min(pages, arch.page_size))
        copy_to_user(task, vec, answers)
        count = len(answers)
        pages -= count
        vec += count
        start += count << arch.page_shift
    return 0


def sys_remap_file_pages(task: Task, start: int, size: int, prot: int, pgoff: int, flags: int) -> int:
    """Map other pages of the file that is mapped at `start`."""
    remap_file_pages(own_mm(task), start, size, prot, pgoff, flags)
    return 0


CALLS = (
    Call("mlock", sys_mlock, FULL),
    Call("mlock2", sys_mlock2, FULL),
    Call("munlock", sys_munlock, FULL),
    Call("mlockall", sys_mlockall, FULL),
    Call("munlockall", sys_munlockall, FULL),
    Call("madvise", sys_madvise, FULL),
    Call("process_madvise", sys_process_madvise, FULL),
    Call("msync", sys_msync, FULL),
    Call("mincore", sys_mincore, FULL),
    Call("remap_file_pages", sys_remap_file_pages, FULL),
)
