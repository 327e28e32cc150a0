"""Who may look into, or change, another process (kernel/ptrace.c, mm_access() of kernel/fork.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.cred import CAP_SYS_PTRACE
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct

PTRACE_MODE_READ_FSCREDS = 0x01 | 0x08
PTRACE_MODE_READ_REALCREDS = 0x01 | 0x10
PTRACE_MODE_ATTACH_REALCREDS = 0x02 | 0x10
_FSCREDS = 0x08
_SUID_DUMP_USER = 1
_MMF_DUMPABLE_MASK = 3


def ptrace_may_access(task: Task, target: Task, mode: int) -> bool:
    """May `task` access `target`: its own process; else the same user with a dumpable mm and no more capabilities.

    CAP_SYS_PTRACE stands for each of these conditions.
    """
    if target.tgid == task.tgid:
        return True
    cred, tcred = task.cred, target.cred
    uid, gid = (cred.fsuid, cred.fsgid) if mode & _FSCREDS else (cred.uid, cred.gid)
    same = uid == tcred.euid == tcred.suid == tcred.uid and gid == tcred.egid == tcred.sgid == tcred.gid
    if not same and not task.capable(CAP_SYS_PTRACE):
        return False
    mm = target.mm
    if mm is not None and mm.flags & _MMF_DUMPABLE_MASK != _SUID_DUMP_USER and not task.capable(CAP_SYS_PTRACE):
        return False
    caller_caps = cred.cap_effective if mode & _FSCREDS else cred.cap_permitted
    return not tcred.cap_permitted & ~caller_caps or task.capable(CAP_SYS_PTRACE)


def mm_access(task: Task, target: Task, mode: int) -> MmStruct:
    """The address space of `target`. Raises Errno ESRCH where it has none, EACCES where the access is denied."""
    mm = target.mm
    if mm is None:
        raise Errno(errno.ESRCH)
    if mm is not task.mm and not ptrace_may_access(task, target, mode):
        raise Errno(errno.EACCES)
    return mm


def pidfd_get_task(task: Task, fd: int) -> Task:
    """The process a pidfd names. Raises Errno EBADF for another kind of descriptor, ESRCH once it was reaped."""
    target: Task | None = getattr(task.files.get(fd), "pidfd_task", None)
    if target is None:
        raise Errno(errno.EBADF)
    if task.kernel.tasks.get(target.pid) is not target:
        raise Errno(errno.ESRCH)
    return target
