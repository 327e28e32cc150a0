"""mount, umount2 and pivot_root (fs/namespace.c): reading the flags of 1991 and the paths; namespace.py does the rest.

Mounts of --mount and those the machine begins with can be covered and copied, not taken away from under the machine.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.cred import CAP_SYS_ADMIN
from guest.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW, filename_lookup
from guest.namespace import (
    check_mnt,
    do_add_mount,
    do_loopback,
    do_move_mount,
    do_umount,
    make_readonly,
    new_mount,
    pivot_root,
    subtree,
)
from guest.sys_file import getname
from guest.syscalls import FULL, PARTIAL, Call
from guest.vfs_flags import AT_FDCWD
from guest.vfs_types import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    MNT_RELATIME,
)
from mm.errors import Errno
from mm.uaccess import copy_from_user_partial, strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

_UMOUNT_FLAGS = 0xF  # MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW
_UMOUNT_NOFOLLOW = 8
_MS_MGC_VAL, _MS_MGC_MSK = 0xC0ED0000, 0xFFFF0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = (
    1, 2, 4, 8, 32, 256, 1024, 2048
)  # fmt: skip
MS_BIND, MS_MOVE, MS_REC = 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_NOUSER = 1 << 21, 1 << 24, 1 << 31
_PROPAGATION = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED
_SB_FLAGS = 1 | 0x10 | 0x40 | 0x80 | 0x8000 | 1 << 16 | 1 << 25 | 1 << 23
_ATIME = MNT_NOATIME | MNT_NODIRATIME | MNT_RELATIME
_USER_SETTABLE = _ATIME | MNT_NOSUID | MNT_NODEV | MNT_NOEXEC | MNT_READONLY | MNT_NOSYMFOLLOW
_MNT_OF_MS = (
    (MS_NOSUID, MNT_NOSUID), (MS_NODEV, MNT_NODEV), (MS_NOEXEC, MNT_NOEXEC), (MS_NOATIME, MNT_NOATIME),
    (MS_NODIRATIME, MNT_NODIRATIME), (MS_RDONLY, MNT_READONLY), (MS_NOSYMFOLLOW, MNT_NOSYMFOLLOW),
)  # fmt: skip


def may_mount(task: Task) -> None:
    """Raises Errno(EPERM)."""
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)


def sys_mount(task: Task, device: int, path: int, kind: int, flags: int, data: int) -> int:
    """mount(2): a new file system, or one of what the flags ask for. Raises as path_mount() and what it calls."""
    fstype = _string(task, kind)
    source = _string(task, device)
    options = _options(task, data)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), LOOKUP_FOLLOW)
    if flags & _MS_MGC_MSK == _MS_MGC_VAL:
        flags &= ~_MS_MGC_MSK
    if flags & MS_NOUSER:
        raise Errno(errno.EINVAL)
    may_mount(task)
    mnt_flags = _mount_flags(flags, at)
    if flags & MS_REMOUNT and flags & MS_BIND:
        _reconfigure_mnt(task, at, mnt_flags)
    elif flags & MS_REMOUNT:
        _remount(task, at, flags & _SB_FLAGS, mnt_flags, options)
    elif flags & MS_BIND:
        do_loopback(task, at, _old_path(task, source), bool(flags & MS_REC))
    elif flags & _PROPAGATION:
        _change_type(task, at, flags)
    elif flags & MS_MOVE:
        do_move_mount(task, _old_path(task, source), at)
    else:
        _new_mount(task, at, fstype, flags & _SB_FLAGS, mnt_flags, source, options)
    return 0


def _old_path(task: Task, source: bytes | None) -> Path:
    """What is to be bound or moved. Raises EINVAL for none."""
    if not source:
        raise Errno(errno.EINVAL)
    return filename_lookup(task, AT_FDCWD, source, LOOKUP_FOLLOW)


def _string(task: Task, address: int) -> bytes | None:
    """copy_mount_string(). Raises EFAULT, EINVAL for one that is longer than a page."""
    if not address:
        return None
    text = strncpy_from_user(task, address, task.system.page_size)
    if len(text) >= task.system.page_size:
        raise Errno(errno.EINVAL)
    return text


def _options(task: Task, address: int) -> str:
    """copy_mount_options(): a page, or as much of it as can be read, up to its end or a zero. Raises EFAULT."""
    if not address:
        return ""
    data = copy_from_user_partial(task, address, task.system.page_size)
    if not data:
        raise Errno(errno.EFAULT)
    return data[: task.system.page_size - 1].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _mount_flags(flags: int, at: Path) -> int:
    """MNT_* of MS_*."""
    found = sum(mnt for ms, mnt in _MNT_OF_MS if flags & ms)
    if not flags & MS_NOATIME:
        found |= MNT_RELATIME
    if flags & MS_STRICTATIME:
        found &= ~(MNT_RELATIME | MNT_NOATIME)
    if flags & MS_REMOUNT and not flags & (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME):
        found = found & ~_ATIME | at.mnt.mnt_flags & _ATIME
    return found


def _new_mount(
    task: Task, at: Path, fstype: bytes | None, sb_flags: int, mnt_flags: int, source: bytes | None, options: str
) -> None:
    """do_new_mount()."""
    from guest.fs_context import STRING, FsContext, Param
    from guest.fs_types import BY_NAME

    if fstype is None:
        raise Errno(errno.EINVAL)
    known = BY_NAME.get(fstype.decode("latin-1"))
    if known is None:
        raise Errno(errno.ENODEV)
    fc = FsContext(known, task, sb_flags)
    if source is not None:
        fc.parse_param(task, Param("source", STRING, source.decode("utf-8", "surrogateescape")))
    if known.legacy:
        fc.legacy_data = [options] if options else []
    else:
        fc.parse_monolithic(task, options)
    fc.get_tree(task)
    if fc.sb is None or fc.root is None:
        raise Errno(errno.EINVAL)
    do_add_mount(task, new_mount(fc.sb, fc.root, fc.source or "none", mnt_flags), at)


def _reconfigure_mnt(task: Task, at: Path, mnt_flags: int) -> None:
    """do_reconfigure_mnt(): settings of this mount alone. Raises EINVAL, EBUSY."""
    mnt = at.mnt
    if not check_mnt(task, mnt) or at.dentry is not mnt.mnt_root:
        raise Errno(errno.EINVAL)
    if mnt_flags & MNT_READONLY and not mnt.mnt_readonly:
        make_readonly(task, mnt)
    mnt.mnt_flags = mnt_flags | mnt.mnt_flags & ~_USER_SETTABLE


def _remount(task: Task, at: Path, sb_flags: int, mnt_flags: int, options: str) -> None:
    """do_remount(): settings of the file system. Raises EINVAL, EBUSY and what it refuses."""
    from guest.fs_context import MS_RMT_MASK, for_reconfigure

    mnt = at.mnt
    if not check_mnt(task, mnt) or at.dentry is not mnt.mnt_root:
        raise Errno(errno.EINVAL)
    fc = for_reconfigure(task, mnt.mnt_sb, sb_flags & MS_RMT_MASK, MS_RMT_MASK)
    if fc.fs_type.legacy:
        fc.legacy_data = [options] if options else []
    else:
        fc.parse_monolithic(task, options)
    fc.reconfigure_super(task)
    mnt.mnt_flags = mnt_flags | mnt.mnt_flags & ~_USER_SETTABLE


def _change_type(task: Task, at: Path, flags: int) -> None:
    """do_change_type(): private, shared, slave or unbindable. Raises EINVAL."""
    from guest.propagation import change_propagation

    kind = flags & ~(MS_REC | 0x8000)
    if at.dentry is not at.mnt.mnt_root or kind & ~_PROPAGATION or kind & kind - 1:
        raise Errno(errno.EINVAL)
    if not check_mnt(task, at.mnt):
        raise Errno(errno.EINVAL)
    vfs = task.kernel.vfs
    for mnt in list(subtree(vfs, at.mnt)) if flags & MS_REC else (at.mnt,):
        change_propagation(vfs, mnt, kind)


def sys_umount2(task: Task, path: int, flags: int) -> int:
    """umount2(2). Raises EINVAL for what is no mount of the task's namespace, EPERM, EBUSY, EAGAIN."""
    flags &= 0xFFFFFFFF
    if flags & ~_UMOUNT_FLAGS:
        raise Errno(errno.EINVAL)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), 0 if flags & _UMOUNT_NOFOLLOW else LOOKUP_FOLLOW)
    may_mount(task)
    if at.dentry is not at.mnt.mnt_root or not check_mnt(task, at.mnt):
        raise Errno(errno.EINVAL)
    do_umount(task, at.mnt, flags)
    return 0


def sys_pivot_root(task: Task, new_root: int, put_old: int) -> int:
    """pivot_root(2). Raises EPERM, those of the paths, EINVAL, EBUSY."""
    may_mount(task)
    flags = LOOKUP_FOLLOW | LOOKUP_DIRECTORY
    new = filename_lookup(task, AT_FDCWD, getname(task, new_root), flags)
    pivot_root(task, new, filename_lookup(task, AT_FDCWD, getname(task, put_old), flags))
    return 0


CALLS = (
    Call("mount", sys_mount, PARTIAL, "there are no devices to mount"),
    Call("umount2", sys_umount2, FULL),
    Call("pivot_root", sys_pivot_root, FULL),
)
