"""Extended attributes (fs/xattr.c) of file systems that have none, as the oracle's tmpfs without CONFIG_TMPFS_XATTR.

Names and sizes are checked, permission is, and then the file system says EOPNOTSUPP; lists are empty.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_FOLLOW, filename_lookup, inode_permission, mnt_want_write, owner_or_capable
from guest.sys_file import getname
from guest.syscalls import FULL, Call
from guest.vfs_flags import AT_FDCWD, MAY_READ, MAY_WRITE, S_ISVTX, s32
from mm.errors import Errno
from mm.uaccess import copy_from_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Inode, Path

XATTR_NAME_MAX, XATTR_SIZE_MAX = 255, 65536
XATTR_CREATE, XATTR_REPLACE = 1, 2
CAP_SYS_ADMIN = 21


def attribute_name(task: Task, address: int) -> bytes:
    """Raises ERANGE for an empty or too long name, EFAULT."""
    name = strncpy_from_user(task, address, XATTR_NAME_MAX + 1)
    if not 0 < len(name) <= XATTR_NAME_MAX:
        raise Errno(errno.ERANGE)
    return name


def xattr_permission(task: Task, inode: Inode, name: bytes, mask: int) -> None:
    """Raises EPERM, ENODATA, EACCES."""
    refusal = errno.EPERM if mask & MAY_WRITE else errno.ENODATA
    if name.startswith((b"security.", b"system.")):
        return
    if name.startswith(b"trusted."):
        if not task.capable(CAP_SYS_ADMIN):
            raise Errno(refusal)
        return
    if name.startswith(b"user."):
        if not inode.is_reg() and not inode.is_dir():
            raise Errno(refusal)
        if inode.is_dir() and inode.i_mode & S_ISVTX and mask & MAY_WRITE and not owner_or_capable(task, inode):
            raise Errno(errno.EPERM)
    inode_permission(task, inode, mask)


def do_setxattr(task: Task, at: Path, name: int, value: int, size: int, flags: int) -> int:
    """setxattr()."""
    mnt_want_write(at.mnt)
    if flags & 0xFFFFFFFF & ~(XATTR_CREATE | XATTR_REPLACE):
        raise Errno(errno.EINVAL)
    wanted = attribute_name(task, name)
    if size > XATTR_SIZE_MAX:
        raise Errno(errno.E2BIG)
    copy_from_user(task, value, size)
    xattr_permission(task, at.dentry.d_inode, wanted, MAY_WRITE)
    raise Errno(errno.EOPNOTSUPP)


def do_getxattr(task: Task, at: Path, name: int) -> int:
    """getxattr()."""
    xattr_permission(task, at.dentry.d_inode, attribute_name(task, name), MAY_READ)
    raise Errno(errno.EOPNOTSUPP)


def do_removexattr(task: Task, at: Path, name: int) -> int:
    """removexattr()."""
    mnt_want_write(at.mnt)
    xattr_permission(task, at.dentry.d_inode, attribute_name(task, name), MAY_WRITE)
    raise Errno(errno.EOPNOTSUPP)


def place(task: Task, path: int, follow: int = LOOKUP_FOLLOW) -> Path:
    """user_path_at()."""
    return filename_lookup(task, AT_FDCWD, getname(task, path), follow)


def opened(task: Task, fd: int) -> Path:
    """fdget()."""
    where: Path = task.files.get(s32(fd)).f_path
    return where


def sys_setxattr(task: Task, path: int, name: int, value: int, size: int, flags: int) -> int:
    """setxattr(2)."""
    return do_setxattr(task, place(task, path), name, value, size, flags)


def sys_lsetxattr(task: Task, path: int, name: int, value: int, size: int, flags: int) -> int:
    """lsetxattr(2)."""
    return do_setxattr(task, place(task, path, 0), name, value, size, flags)


def sys_fsetxattr(task: Task, fd: int, name: int, value: int, size: int, flags: int) -> int:
    """fsetxattr(2)."""
    return do_setxattr(task, opened(task, fd), name, value, size, flags)


def sys_getxattr(task: Task, path: int, name: int, value: int, size: int) -> int:
    """getxattr(2)."""
    return do_getxattr(task, place(task, path), name)


def sys_lgetxattr(task: Task, path: int, name: int, value: int, size: int) -> int:
    """lgetxattr(2)."""
    return do_getxattr(task, place(task, path, 0), name)


def sys_fgetxattr(task: Task, fd: int, name: int, value: int, size: int) -> int:
    """fgetxattr(2)."""
    return do_getxattr(task, opened(task, fd), name)


def sys_listxattr(task: Task, path: int, names: int, size: int) -> int:
    """listxattr(2): none."""
    place(task, path)
    return 0


def sys_llistxattr(task: Task, path: int, names: int, size: int) -> int:
    """llistxattr(2): none."""
    place(task, path, 0)
    return 0


def sys_flistxattr(task: Task, fd: int, names: int, size: int) -> int:
    """flistxattr(2): none."""
    opened(task, fd)
    return 0


def sys_removexattr(task: Task, path: int, name: int) -> int:
    """removexattr(2)."""
    return do_removexattr(task, place(task, path), name)


def sys_lremovexattr(task: Task, path: int, name: int) -> int:
    """lremovexattr(2)."""
    return do_removexattr(task, place(task, path, 0), name)


def sys_fremovexattr(task: Task, fd: int, name: int) -> int:
    """fremovexattr(2)."""
    return do_removexattr(task, opened(task, fd), name)


CALLS = (
    Call("setxattr", sys_setxattr, FULL),
    Call("lsetxattr", sys_lsetxattr, FULL),
    Call("fsetxattr", sys_fsetxattr, FULL),
    Call("getxattr", sys_getxattr, FULL),
    Call("lgetxattr", sys_lgetxattr, FULL),
    Call("fgetxattr", sys_fgetxattr, FULL),
    Call("listxattr", sys_listxattr, FULL),
    Call("llistxattr", sys_llistxattr, FULL),
    Call("flistxattr", sys_flistxattr, FULL),
    Call("removexattr", sys_removexattr, FULL),
    Call("lremovexattr", sys_lremovexattr, FULL),
    Call("fremovexattr", sys_fremovexattr, FULL),
)
