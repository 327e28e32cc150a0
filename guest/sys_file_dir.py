"""Names and folders: getdents, getcwd, chdir, mkdir, link, unlink, rename (fs/readdir.c, namei.c, open.c, d_path.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from guest.namei import (
    LOOKUP_DIRECTORY,
    LOOKUP_EMPTY,
    LOOKUP_FOLLOW,
    do_rename,
    do_rmdir,
    do_unlink,
    filename_create,
    filename_lookup,
    inode_permission,
    lookup_one,
)
from guest.sys_file import getname
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    CAP_DAC_READ_SEARCH,
    CAP_MKNOD,
    CAP_SYS_CHROOT,
    MAY_EXEC,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISVTX,
    s32,
)
from guest.vfs_types import new_decode_dev
from mm.errors import Errno
from mm.uaccess import access_ok, copy_to_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task
    from guest.vfs_types import Path

_DIRENT64 = struct.Struct("<QqHB")
_DIRENT = struct.Struct("<QQH")
_INT_MAX = 0x7FFFFFFF


# reading a folder


def do_getdents(task: Task, fd: int, buf: int, count: int, old: bool) -> int:
    """iterate_dir() into the guest's buffer; bytes filled, 0 at the end. Raises EINVAL when one entry does not fit."""
    file: OpenFile = task.files.get(s32(fd))
    count &= 0xFFFFFFFF
    if not file.f_inode.is_dir():
        raise Errno(errno.ENOTDIR)
    if file.f_path.dentry.d_unhashed:
        raise Errno(errno.ENOENT)
    count = min(count, _INT_MAX)
    out = bytearray()
    pos = file.f_pos
    for name, ino, mode, following in file.iterate(task):
        record = pack_dirent(name, ino, mode, following, old)
        if len(out) + len(record) > count:
            if not out:
                raise Errno(errno.EINVAL)
            break
        out += record
        pos = following
    if not access_ok(task, buf, len(out)):
        raise Errno(errno.EFAULT)
    copy_to_user(task, buf, out)
    file.f_pos = pos
    file.accessed()
    return len(out)


def pack_dirent(name: bytes, ino: int, mode: int, following: int, old: bool) -> bytes:
    """One struct linux_dirent64, or linux_dirent, which has the type in its last byte."""
    kind = (mode & S_IFMT) >> 12
    if old:
        length = -(-(18 + len(name) + 2) // 8) * 8
        head = _DIRENT.pack(ino, following, length) + name
        return head.ljust(length - 1, b"\0") + bytes((kind,))
    length = -(-(19 + len(name) + 1) // 8) * 8
    return (_DIRENT64.pack(ino, following, length, kind) + name).ljust(length, b"\0")


def sys_getdents64(task: Task, fd: int, buf: int, count: int) -> int:
    """getdents64(2)."""
    return do_getdents(task, fd, buf, count, False)


def sys_getdents(task: Task, fd: int, buf: int, count: int) -> int:
    """getdents(2)."""
    return do_getdents(task, fd, buf, count, True)


# where the task is


def sys_getcwd(task: Task, buf: int, size: int) -> int:
    """getcwd(2): length with the NUL. Raises ENOENT for a removed folder, ERANGE."""
    pwd: Path = task.fs.pwd
    if pwd.dentry.d_unhashed:
        raise Errno(errno.ENOENT)
    names, reached = task.kernel.vfs.prepend_path(pwd.mnt, pwd.dentry, task.fs.root)
    path: bytes = (b"" if reached else b"(unreachable)") + (names or b"/") + b"\0"
    if len(path) > size:
        raise Errno(errno.ERANGE)
    copy_to_user(task, buf, path)
    return len(path)


def sys_chdir(task: Task, name: int) -> int:
    """chdir(2)."""
    at = filename_lookup(task, AT_FDCWD, getname(task, name), LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    inode_permission(task, at.dentry.d_inode, MAY_EXEC)
    task.fs.pwd = at
    return 0


def sys_fchdir(task: Task, fd: int) -> int:
    """fchdir(2)."""
    file: OpenFile = task.files.get_raw(s32(fd))
    if not file.f_inode.is_dir():
        raise Errno(errno.ENOTDIR)
    inode_permission(task, file.f_inode, MAY_EXEC)
    task.fs.pwd = file.f_path
    return 0


def sys_chroot(task: Task, name: int) -> int:
    """chroot(2)."""
    at = filename_lookup(task, AT_FDCWD, getname(task, name), LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    inode_permission(task, at.dentry.d_inode, MAY_EXEC)
    if not task.capable(CAP_SYS_CHROOT):
        raise Errno(errno.EPERM)
    task.fs.root = at
    return 0


def sys_umask(task: Task, mask: int) -> int:
    """umask(2)."""
    old: int = task.fs.umask
    task.fs.umask = mask & 0o777
    return old


# making names


def sys_mkdirat(task: Task, dfd: int, name: int, mode: int) -> int:
    """mkdirat(2)."""
    at, last = filename_create(task, s32(dfd), getname(task, name), True)
    mode = mode & (0o777 | S_ISVTX) & ~task.fs.umask
    at.dentry.d_inode.mkdir(at.dentry, last, mode, task)
    return 0


def sys_mkdir(task: Task, name: int, mode: int) -> int:
    """mkdir(2)."""
    return sys_mkdirat(task, AT_FDCWD, name, mode)


def sys_mknodat(task: Task, dfd: int, name: int, mode: int, dev: int) -> int:
    """mknodat(2)."""
    kind = mode & S_IFMT
    if kind not in (0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise Errno(errno.EPERM if kind == S_IFDIR else errno.EINVAL)
    at, last = filename_create(task, s32(dfd), getname(task, name), False)
    if kind in (S_IFCHR, S_IFBLK) and not task.capable(CAP_MKNOD):
        raise Errno(errno.EPERM)
    rdev = new_decode_dev(dev & 0xFFFFFFFF) if kind in (S_IFCHR, S_IFBLK) else 0
    bits = (kind or S_IFREG) | (mode & 0o7777 & ~task.fs.umask)
    at.dentry.d_inode.create(at.dentry, last, bits, task, rdev)
    return 0


def sys_mknod(task: Task, name: int, mode: int, dev: int) -> int:
    """mknod(2)."""
    return sys_mknodat(task, AT_FDCWD, name, mode, dev)


def sys_symlinkat(task: Task, target: int, dfd: int, name: int) -> int:
    """symlinkat(2). Raises ENOENT for an empty target."""
    text = getname(task, target)
    if not text:
        raise Errno(errno.ENOENT)
    at, last = filename_create(task, s32(dfd), getname(task, name), False)
    at.dentry.d_inode.symlink(at.dentry, last, text, task)
    return 0


def sys_symlink(task: Task, target: int, name: int) -> int:
    """symlink(2)."""
    return sys_symlinkat(task, target, AT_FDCWD, name)


def sys_linkat(task: Task, olddfd: int, old: int, newdfd: int, new: int, flags: int) -> int:
    """linkat(2)."""
    flags = s32(flags)
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    if flags & AT_EMPTY_PATH and not task.capable(CAP_DAC_READ_SEARCH):
        raise Errno(errno.ENOENT)
    look = (LOOKUP_EMPTY if flags & AT_EMPTY_PATH else 0) | (LOOKUP_FOLLOW if flags & AT_SYMLINK_FOLLOW else 0)
    source = filename_lookup(task, s32(olddfd), getname(task, old), look)
    inode = source.dentry.d_inode
    at, last = filename_create(task, s32(newdfd), getname(task, new), False)
    if source.mnt is not at.mnt:
        raise Errno(errno.EXDEV)
    if inode.is_dir():
        raise Errno(errno.EPERM)
    if inode.i_nlink == 0 and not inode.i_linkable:
        raise Errno(errno.ENOENT)
    inode.i_linkable = False
    at.dentry.d_inode.link(at.dentry, last, source.dentry)
    return 0


def sys_link(task: Task, old: int, new: int) -> int:
    """link(2)."""
    return sys_linkat(task, AT_FDCWD, old, AT_FDCWD, new, 0)


# taking names away


def sys_unlinkat(task: Task, dfd: int, name: int, flags: int) -> int:
    """unlinkat(2)."""
    flags = s32(flags)
    if flags & ~AT_REMOVEDIR:
        raise Errno(errno.EINVAL)
    (do_rmdir if flags & AT_REMOVEDIR else do_unlink)(task, s32(dfd), getname(task, name))
    return 0


def sys_unlink(task: Task, name: int) -> int:
    """unlink(2)."""
    do_unlink(task, AT_FDCWD, getname(task, name))
    return 0


def sys_rmdir(task: Task, name: int) -> int:
    """rmdir(2)."""
    do_rmdir(task, AT_FDCWD, getname(task, name))
    return 0


def sys_renameat2(task: Task, olddfd: int, old: int, newdfd: int, new: int, flags: int) -> int:
    """renameat2(2)."""
    flags = flags & 0xFFFFFFFF
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise Errno(errno.EINVAL)
    if flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) and flags & RENAME_EXCHANGE:
        raise Errno(errno.EINVAL)
    before, after = getname(task, old), getname(task, new)
    do_rename(task, s32(olddfd), before, s32(newdfd), after, flags)
    if flags & RENAME_WHITEOUT:
        leave_whiteout(task, s32(olddfd), before)
    return 0


def leave_whiteout(task: Task, dfd: int, name: bytes) -> None:
    """RENAME_WHITEOUT: a 0:0 character device where the file was."""
    at, last = filename_create(task, dfd, name, False)
    if lookup_one(at.dentry, last) is None:
        at.dentry.d_inode.create(at.dentry, last, S_IFCHR, task, 0)


def sys_renameat(task: Task, olddfd: int, old: int, newdfd: int, new: int) -> int:
    """renameat(2)."""
    return sys_renameat2(task, olddfd, old, newdfd, new, 0)


def sys_rename(task: Task, old: int, new: int) -> int:
    """rename(2)."""
    return sys_renameat2(task, AT_FDCWD, old, AT_FDCWD, new, 0)


CALLS = (
    Call("getdents64", sys_getdents64, FULL, ""),
    Call("getdents", sys_getdents, FULL, ""),
    Call("getcwd", sys_getcwd, FULL, ""),
    Call("chdir", sys_chdir, FULL, ""),
    Call("fchdir", sys_fchdir, FULL, ""),
    Call("chroot", sys_chroot, FULL, ""),
    Call("umask", sys_umask, FULL, ""),
    Call("mkdirat", sys_mkdirat, FULL, ""),
    Call("mkdir", sys_mkdir, FULL, ""),
    Call("mknodat", sys_mknodat, FULL, "device nodes can be made; only /dev's own drivers answer"),
    Call("mknod", sys_mknod, FULL, "device nodes can be made; only /dev's own drivers answer"),
    Call("symlinkat", sys_symlinkat, FULL, ""),
    Call("symlink", sys_symlink, FULL, ""),
    Call("linkat", sys_linkat, FULL, ""),
    Call("link", sys_link, FULL, ""),
    Call("unlinkat", sys_unlinkat, FULL, ""),
    Call("unlink", sys_unlink, FULL, ""),
    Call("rmdir", sys_rmdir, FULL, ""),
    Call("renameat2", sys_renameat2, FULL, ""),
    Call("renameat", sys_renameat, FULL, ""),
    Call("rename", sys_rename, FULL, ""),
)
