"""Owner, mode and times of files (fs/open.c, attr.c, utimes.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import (
    LOOKUP_EMPTY,
    LOOKUP_FOLLOW,
    chgrp_ok,
    chown_ok,
    filename_lookup,
    inode_permission,
    mnt_want_write,
    owner_or_capable,
)
from guest.sys_file import getname
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    CAP_FSETID,
    FMODE_PATH,
    MAY_WRITE,
    S_IALLUGO,
    S_ISGID,
    S_ISUID,
    S_IXGRP,
    s32,
    s64,
)
from mm.errors import Errno
from mm.uaccess import copy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
_NANO = 10**9
_NO_ID = 0xFFFFFFFF


# mode


def chmod_common(task: Task, at: Path, mode: int) -> None:
    """Change the mode; S_ISGID goes when the group is not the task's. Raises EROFS, EPERM."""
    mnt_want_write(at.mnt)
    inode = at.dentry.d_inode
    if not owner_or_capable(task, inode):
        raise Errno(errno.EPERM)
    mode &= S_IALLUGO
    if not task.cred.in_group(inode.i_gid) and not task.capable(CAP_FSETID):
        mode &= ~S_ISGID
    inode.setattr(mode=mode)


def sys_fchmod(task: Task, fd: int, mode: int) -> int:
    """fchmod(2)."""
    chmod_common(task, task.files.get(s32(fd)).f_path, mode)
    return 0


def sys_fchmodat(task: Task, dfd: int, name: int, mode: int) -> int:
    """fchmodat(2)."""
    chmod_common(task, filename_lookup(task, s32(dfd), getname(task, name), LOOKUP_FOLLOW), mode)
    return 0


def sys_chmod(task: Task, name: int, mode: int) -> int:
    """chmod(2)."""
    return sys_fchmodat(task, AT_FDCWD, name, mode)


# owner


def chown_common(task: Task, at: Path, uid: int, gid: int) -> None:
    """-1 leaves an id; set-id bits of a regular file go. Raises EROFS, EPERM."""
    mnt_want_write(at.mnt)
    inode = at.dentry.d_inode
    owner = None if uid & _NO_ID == _NO_ID else uid & _NO_ID
    group = None if gid & _NO_ID == _NO_ID else gid & _NO_ID
    if not chown_ok(task, inode, owner) or not chgrp_ok(task, inode, group):
        raise Errno(errno.EPERM)
    mode = inode.i_mode
    if not inode.is_dir():
        mode &= ~S_ISUID
        if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            mode &= ~S_ISGID
    inode.setattr(mode=mode & S_IALLUGO if mode != inode.i_mode else None, uid=owner, gid=group)


def sys_fchownat(task: Task, dfd: int, name: int, uid: int, gid: int, flags: int) -> int:
    """fchownat(2)."""
    flags = s32(flags)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    look = (0 if flags & AT_SYMLINK_NOFOLLOW else LOOKUP_FOLLOW) | (LOOKUP_EMPTY if flags & AT_EMPTY_PATH else 0)
    chown_common(task, filename_lookup(task, s32(dfd), getname(task, name), look), uid, gid)
    return 0


def sys_chown(task: Task, name: int, uid: int, gid: int) -> int:
    """chown(2)."""
    return sys_fchownat(task, AT_FDCWD, name, uid, gid, 0)


def sys_lchown(task: Task, name: int, uid: int, gid: int) -> int:
    """lchown(2)."""
    return sys_fchownat(task, AT_FDCWD, name, uid, gid, AT_SYMLINK_NOFOLLOW)


def sys_fchown(task: Task, fd: int, uid: int, gid: int) -> int:
    """fchown(2)."""
    chown_common(task, task.files.get(s32(fd)).f_path, uid, gid)
    return 0


# times


def utimes_common(task: Task, at: Path, atime: int | None, mtime: int | None, now: bool) -> None:
    """Setting "now" needs write permission, setting anything else ownership. Raises EACCES, EPERM."""
    mnt_want_write(at.mnt)
    inode = at.dentry.d_inode
    if not owner_or_capable(task, inode):
        if not now:
            raise Errno(errno.EPERM)
        inode_permission(task, inode, MAY_WRITE)
    inode.set_times(atime, mtime)


def do_utimes(task: Task, dfd: int, name: int, times: list[tuple[int, int]] | None, flags: int) -> None:
    """`times` are (seconds, nanoseconds) of atime and mtime, None for now."""
    flags = s32(flags)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) and name:
        raise Errno(errno.EINVAL)
    clock = task.kernel.vfs.now()
    values: list[int | None] = [clock, clock]
    if times is not None:
        for index, (seconds, nanoseconds) in enumerate(times):
            if nanoseconds == UTIME_OMIT:
                values[index] = None
            elif nanoseconds != UTIME_NOW:
                if not 0 <= nanoseconds < _NANO:
                    raise Errno(errno.EINVAL)
                values[index] = seconds * _NANO + nanoseconds
        if values == [None, None]:
            return
    now = times is None or all(ns == UTIME_NOW for _, ns in times)
    if not name and s32(dfd) != AT_FDCWD:
        file = task.files.get_raw(s32(dfd))
        if flags:
            raise Errno(errno.EINVAL)
        if file.f_mode & FMODE_PATH:
            raise Errno(errno.EBADF)
        at = file.f_path
    else:
        look = 0 if flags & AT_SYMLINK_NOFOLLOW else LOOKUP_FOLLOW
        at = filename_lookup(task, s32(dfd), getname(task, name), look | (LOOKUP_EMPTY if flags & AT_EMPTY_PATH else 0))
    utimes_common(task, at, values[0], values[1], now)


def sys_utimensat(task: Task, dfd: int, name: int, times: int, flags: int) -> int:
    """utimensat(2)."""
    pairs = None
    if times:
        words = [s64(word) for word in memoryview(copy_from_user(task, times, 32)).cast("Q")]
        pairs = [(words[0], words[1]), (words[2], words[3])]
        if words[1] == UTIME_OMIT and words[3] == UTIME_OMIT:
            return 0
    do_utimes(task, dfd, name, pairs, flags)
    return 0


def _timevals(task: Task, times: int) -> list[tuple[int, int]] | None:
    """Two struct timeval. Raises EINVAL."""
    if not times:
        return None
    words = [s64(word) for word in memoryview(copy_from_user(task, times, 32)).cast("Q")]
    if not 0 <= words[1] < 1000000 or not 0 <= words[3] < 1000000:
        raise Errno(errno.EINVAL)
    return [(words[0], words[1] * 1000), (words[2], words[3] * 1000)]


def sys_futimesat(task: Task, dfd: int, name: int, times: int) -> int:
    """futimesat(2)."""
    do_utimes(task, dfd, name, _timevals(task, times), 0)
    return 0


def sys_utimes(task: Task, name: int, times: int) -> int:
    """utimes(2)."""
    return sys_futimesat(task, AT_FDCWD, name, times)


def sys_utime(task: Task, name: int, times: int) -> int:
    """utime(2): whole seconds."""
    pairs = None
    if times:
        words = [s64(word) for word in memoryview(copy_from_user(task, times, 16)).cast("Q")]
        pairs = [(words[0], 0), (words[1], 0)]
    do_utimes(task, AT_FDCWD, name, pairs, 0)
    return 0


CALLS = (
    Call("fchmod", sys_fchmod, FULL, ""),
    Call("fchmodat", sys_fchmodat, FULL, ""),
    Call("chmod", sys_chmod, FULL, ""),
    Call("fchownat", sys_fchownat, FULL, ""),
    Call("chown", sys_chown, FULL, ""),
    Call("lchown", sys_lchown, FULL, ""),
    Call("fchown", sys_fchown, FULL, ""),
    Call("utimensat", sys_utimensat, FULL, ""),
    Call("futimesat", sys_futimesat, FULL, ""),
    Call("utimes", sys_utimes, FULL, ""),
    Call("utime", sys_utime, FULL, ""),
)
