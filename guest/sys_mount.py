"""mount and umount2 (fs/namespace.c): what is mounted is the machine's business, so both end in EPERM."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_FOLLOW, filename_lookup
from guest.sys_file import getname
from guest.syscalls import PARTIAL, Call
from guest.vfs_flags import AT_FDCWD
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

_UMOUNT_FLAGS = 0xF  # MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW
_UMOUNT_NOFOLLOW = 8
CAP_SYS_ADMIN = 21


def sys_mount(task: Task, device: int, path: int, kind: int, flags: int, data: int) -> int:
    """mount(2). Raises EFAULT, ENOENT and the like, and EPERM always."""
    if kind:
        getname(task, kind)
    if device:
        getname(task, device)
    filename_lookup(task, AT_FDCWD, getname(task, path), LOOKUP_FOLLOW)
    raise Errno(errno.EPERM)


def sys_umount2(task: Task, path: int, flags: int) -> int:
    """umount2(2). Raises EINVAL for what is no mount, and EPERM for what is."""
    flags &= 0xFFFFFFFF
    if flags & ~_UMOUNT_FLAGS:
        raise Errno(errno.EINVAL)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), 0 if flags & _UMOUNT_NOFOLLOW else LOOKUP_FOLLOW)
    if task.capable(CAP_SYS_ADMIN) and at.dentry is not at.mnt.mnt_root:
        raise Errno(errno.EINVAL)
    raise Errno(errno.EPERM)


CALLS = (
    Call("mount", sys_mount, PARTIAL, "checks, then EPERM: mounts are made with --mount"),
    Call("umount2", sys_umount2, PARTIAL, "checks, then EPERM"),
)
