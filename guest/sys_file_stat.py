"""stat in its forms, statfs, readlink, access (fs/stat.c, statfs.c, open.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_EMPTY, LOOKUP_FOLLOW, filename_lookup, inode_permission
from guest.sys_file import getname
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    MAY_WRITE,
    s32,
)
from guest.vfs_types import new_encode_dev
from mm.errors import Errno
from mm.uaccess import copy_to_user, copy_to_user_partial

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Inode, Mount, Path

_STATX_BASIC_STATS = 0x7FF
_STATX_MNT_ID = 0x1000
_STATX_RESERVED = 0x80000000
_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX = struct.Struct("<IIQIIIHxxQQQQqIxxxxqIxxxxqIxxxxqIxxxxIIIIQ104x")
_STATFS = struct.Struct("<qqqqqqqiiqqq4q")
_NANO = 10**9


class Kstat:
    """What stat shows of an inode (struct kstat). Device numbers as programs see them, times in nanoseconds."""

    __slots__ = (
        "atime", "blksize", "blocks", "ctime", "dev", "gid", "ino", "mode", "mtime", "nlink", "rdev", "size", "uid",
    )  # fmt: skip

    def __init__(self, inode: Inode) -> None:
        inode.getattr()
        self.dev = new_encode_dev(inode.i_sb.s_dev)
        self.ino = inode.i_ino
        self.mode = inode.i_mode
        self.nlink = inode.i_nlink
        self.uid = inode.i_uid
        self.gid = inode.i_gid
        self.rdev = new_encode_dev(inode.i_rdev)
        self.size = inode.i_size
        self.blksize = inode.i_sb.blksize()
        self.blocks = inode.i_blocks
        self.atime = inode.i_atime
        self.mtime = inode.i_mtime
        self.ctime = inode.i_ctime


def put_stat(task: Task, inode: Inode, buf: int) -> int:
    """Copy struct stat out."""
    copy_to_user(task, buf, task.kernel.vfs.abi.pack_stat(Kstat(inode)))
    return 0


def path_at(task: Task, dfd: int, name: int, flags: int) -> Path:
    """The place (dfd, name) names under AT_* flags."""
    follow = 0 if flags & AT_SYMLINK_NOFOLLOW else LOOKUP_FOLLOW
    return filename_lookup(task, s32(dfd), getname(task, name), follow | (LOOKUP_EMPTY if flags & AT_EMPTY_PATH else 0))


def sys_stat(task: Task, name: int, buf: int) -> int:
    """stat(2)."""
    return put_stat(task, path_at(task, AT_FDCWD, name, 0).dentry.d_inode, buf)


def sys_lstat(task: Task, name: int, buf: int) -> int:
    """lstat(2)."""
    return put_stat(task, path_at(task, AT_FDCWD, name, AT_SYMLINK_NOFOLLOW).dentry.d_inode, buf)


def sys_fstat(task: Task, fd: int, buf: int) -> int:
    """fstat(2)."""
    return put_stat(task, task.files.get_raw(s32(fd)).f_inode, buf)


def sys_newfstatat(task: Task, dfd: int, name: int, buf: int, flags: int) -> int:
    """newfstatat(2)."""
    flags = s32(flags)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise Errno(errno.EINVAL)
    return put_stat(task, path_at(task, dfd, name, flags).dentry.d_inode, buf)


def sys_statx(task: Task, dfd: int, name: int, flags: int, mask: int, buf: int) -> int:
    """statx(2)."""
    flags, mask = s32(flags), mask & 0xFFFFFFFF
    if mask & _STATX_RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise Errno(errno.EINVAL)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise Errno(errno.EINVAL)
    at = path_at(task, dfd, name, flags)
    inode = at.dentry.d_inode
    stat = Kstat(inode)
    attributes = _STATX_ATTR_MOUNT_ROOT if at.mnt.mnt_root is at.dentry else 0
    dev, rdev = inode.i_sb.s_dev, inode.i_rdev
    image = _STATX.pack(
        _STATX_BASIC_STATS | _STATX_MNT_ID, stat.blksize, attributes, stat.nlink, stat.uid, stat.gid, stat.mode,
        stat.ino, stat.size, stat.blocks, _STATX_ATTR_MOUNT_ROOT,
        *divmod(stat.atime, _NANO), 0, 0, *divmod(stat.ctime, _NANO), *divmod(stat.mtime, _NANO),
        rdev >> 20, rdev & 0xFFFFF, dev >> 20, dev & 0xFFFFF, at.mnt.mnt_id,
    )  # fmt: skip
    copy_to_user(task, buf, image)
    return 0


# statfs


def put_statfs(task: Task, mnt: Mount, buf: int) -> int:
    """Copy struct statfs out."""
    sb = mnt.mnt_sb
    bsize, blocks, bfree, bavail, files, ffree = sb.statfs()
    image = _STATFS.pack(
        sb.s_magic, bsize, blocks, bfree, bavail, files, ffree, 0, 0, 255, bsize, mnt.st_flags(), 0, 0, 0, 0
    )
    copy_to_user(task, buf, image)
    return 0


def sys_statfs(task: Task, name: int, buf: int) -> int:
    """statfs(2)."""
    return put_statfs(task, path_at(task, AT_FDCWD, name, 0).mnt, buf)


def sys_fstatfs(task: Task, fd: int, buf: int) -> int:
    """fstatfs(2)."""
    return put_statfs(task, task.files.get_raw(s32(fd)).f_path.mnt, buf)


# readlink and access


def do_readlinkat(task: Task, dfd: int, name: int, buf: int, size: int) -> int:
    """Raises EINVAL for what is no link (ENOENT with an empty path)."""
    if s32(size) <= 0:
        raise Errno(errno.EINVAL)
    path = getname(task, name)
    inode = filename_lookup(task, s32(dfd), path, LOOKUP_EMPTY).dentry.d_inode
    if not inode.is_lnk():
        raise Errno(errno.EINVAL if path else errno.ENOENT)
    link = inode.readlink(task)[: s32(size)]
    if copy_to_user_partial(task, buf, link) < len(link):
        raise Errno(errno.EFAULT)
    return len(link)


def sys_readlink(task: Task, name: int, buf: int, size: int) -> int:
    """readlink(2)."""
    return do_readlinkat(task, AT_FDCWD, name, buf, size)


def sys_readlinkat(task: Task, dfd: int, name: int, buf: int, size: int) -> int:
    """readlinkat(2)."""
    return do_readlinkat(task, dfd, name, buf, size)


def do_faccessat(task: Task, dfd: int, name: int, mode: int, flags: int) -> int:
    """With the real ids unless AT_EACCESS. Raises EACCES, EROFS."""
    mode, flags = s32(mode), s32(flags)
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    old = task.cred
    if not flags & AT_EACCESS:
        cred = old.copy()
        cred.fsuid, cred.fsgid = cred.uid, cred.gid
        if not cred.securebits & 4:  # SECURE_NO_SETUID_FIXUP
            cred.cap_effective = cred.cap_permitted if cred.uid == 0 else 0
        task.cred = cred
    try:
        at = path_at(task, dfd, name, flags)
        inode = at.dentry.d_inode
        inode_permission(task, inode, mode)
        if mode & MAY_WRITE and at.mnt.mnt_readonly and (inode.is_reg() or inode.is_dir() or inode.is_lnk()):
            raise Errno(errno.EROFS)
    finally:
        task.cred = old
    return 0


def sys_access(task: Task, name: int, mode: int) -> int:
    """access(2)."""
    return do_faccessat(task, AT_FDCWD, name, mode, 0)


def sys_faccessat(task: Task, dfd: int, name: int, mode: int) -> int:
    """faccessat(2)."""
    return do_faccessat(task, dfd, name, mode, 0)


def sys_faccessat2(task: Task, dfd: int, name: int, mode: int, flags: int) -> int:
    """faccessat2(2)."""
    return do_faccessat(task, dfd, name, mode, flags)


CALLS = (
    Call("stat", sys_stat, FULL, ""),
    Call("lstat", sys_lstat, FULL, ""),
    Call("fstat", sys_fstat, FULL, ""),
    Call("newfstatat", sys_newfstatat, FULL, ""),
    Call("statx", sys_statx, FULL, ""),
    Call("statfs", sys_statfs, FULL, ""),
    Call("fstatfs", sys_fstatfs, FULL, ""),
    Call("readlink", sys_readlink, FULL, ""),
    Call("readlinkat", sys_readlinkat, FULL, ""),
    Call("access", sys_access, FULL, ""),
    Call("faccessat", sys_faccessat, FULL, ""),
    Call("faccessat2", sys_faccessat2, FULL, ""),
)
