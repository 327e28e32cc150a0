"""mount and umount2 (fs/namespace.c): what is mounted is the machine's business, so both end in EPERM.

Only a hugetlbfs can be mounted and unmounted by a program: it holds nothing but memory that the program asked for.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_FOLLOW, filename_lookup
from guest.sys_file import getname
from guest.syscalls import PARTIAL, Call
from guest.vfs_flags import AT_FDCWD
from mm.errors import Errno
from mm.uaccess import strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task

_UMOUNT_FLAGS = 0xF  # MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW
_UMOUNT_NOFOLLOW = 8
_MNT_DETACH, _MNT_EXPIRE = 2, 4
_MS_MGC_VAL, _MS_MGC_MSK, _MS_SILENT = 0xC0ED0000, 0xFFFF0000, 0x8000
_PAGE_SIZE = 4096
CAP_SYS_ADMIN = 21


def sys_mount(task: Task, device: int, path: int, kind: int, flags: int, data: int) -> int:
    """mount(2). Raises EFAULT, ENOENT and the like, and EPERM always."""
    fstype = getname(task, kind) if kind else b""
    source = getname(task, device) if device else b"none"
    at = filename_lookup(task, AT_FDCWD, getname(task, path), LOOKUP_FOLLOW)
    if flags & _MS_MGC_MSK == _MS_MGC_VAL:
        flags &= ~_MS_MGC_MSK
    if fstype != b"hugetlbfs" or flags & ~_MS_SILENT or not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    from guest.hugetlbfs import mount_hugetlbfs

    options = strncpy_from_user(task, data, _PAGE_SIZE - 1) if data else b""
    mount_hugetlbfs(task, at, source.decode("utf-8", "surrogateescape"), options.decode("latin-1"))
    return 0


def sys_umount2(task: Task, path: int, flags: int) -> int:
    """umount2(2). Raises EINVAL for what is no mount, and EPERM for what is."""
    flags &= 0xFFFFFFFF
    if flags & ~_UMOUNT_FLAGS:
        raise Errno(errno.EINVAL)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), 0 if flags & _UMOUNT_NOFOLLOW else LOOKUP_FOLLOW)
    if task.capable(CAP_SYS_ADMIN) and at.dentry is not at.mnt.mnt_root:
        raise Errno(errno.EINVAL)
    if at.mnt.mnt_sb.s_type == "hugetlbfs" and task.capable(CAP_SYS_ADMIN) and not flags & _MNT_EXPIRE:
        from guest.hugetlbfs import umount_hugetlbfs

        umount_hugetlbfs(task, at.mnt, bool(flags & _MNT_DETACH))
        return 0
    raise Errno(errno.EPERM)


CALLS = (
    Call("mount", sys_mount, PARTIAL, "hugetlbfs; else EPERM: mounts are made with --mount"),
    Call("umount2", sys_umount2, PARTIAL, "hugetlbfs; else EPERM"),
)
