"""Mounting in steps: fsopen, fsconfig, fsmount, fspick, open_tree, move_mount (fs/fsopen.c, fs/namespace.c).

fsopen -> a context -> fsconfig: parameters, CREATE -> fsmount: a mount of nobody's -> move_mount: into the tree
fspick -> a context of a mounted file system -> fsconfig: parameters, RECONFIGURE
open_tree(OPEN_TREE_CLONE) -> a copy of a tree of mounts, of nobody's -> move_mount
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile, PathFile
from guest.fs_context import (
    AWAITING_MOUNT,
    BLOB,
    CREATE_PARAMS,
    CREATING,
    FAILED,
    FILE,
    FILENAME,
    FLAG,
    RECONF_PARAMS,
    RECONFIGURING,
    STRING,
    FsContext,
    Param,
    for_reconfigure,
)
from guest.namei import LOOKUP_EMPTY, LOOKUP_FOLLOW, filename_lookup
from guest.namespace import MntNamespace, commit_tree, do_move_mount, is_anonymous, loopback, new_mount, umount_tree
from guest.sys_file import getname
from guest.sys_mm import s32
from guest.sys_mount import may_mount
from guest.syscalls import FULL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import AT_FDCWD, O_PATH, O_RDWR
from guest.vfs_types import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_READONLY,
    MNT_RELATIME,
    Inode,
    Path,
)
from mm.errors import Errno
from mm.uaccess import copy_from_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Mount

(
    SET_FLAG, SET_STRING, SET_BINARY, SET_PATH, SET_PATH_EMPTY, SET_FD, CMD_CREATE, CMD_RECONFIGURE,
) = range(8)  # fmt: skip
_KINDS = {
    SET_FLAG: FLAG, SET_STRING: STRING, SET_BINARY: BLOB, SET_PATH: FILENAME, SET_PATH_EMPTY: FILENAME, SET_FD: FILE
}  # fmt: skip
_CLOEXEC = 1
_FSPICK_NOFOLLOW, _FSPICK_NO_AUTOMOUNT, _FSPICK_EMPTY_PATH = 2, 4, 8
_ATTR_FLAGS = ((1, MNT_READONLY), (2, MNT_NOSUID), (4, MNT_NODEV), (8, MNT_NOEXEC), (0x80, MNT_NODIRATIME))
_ATTR_ATIME = 0x70
_ATIMES = {0: MNT_RELATIME, 0x10: MNT_NOATIME, 0x20: 0}
_O_CLOEXEC = 0o2000000
_AT_SYMLINK_NOFOLLOW, _AT_NO_AUTOMOUNT, _AT_EMPTY_PATH, _AT_RECURSIVE = 0x100, 0x800, 0x1000, 0x8000
_MOVE_MASK = 0x177
_MOVE_SET_GROUP = 0x100
_LONGEST = 256  # bytes of a key or a string, with its zero


class ContextFile(OpenFile):
    """A context's descriptor: reading takes the oldest message."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, fc: FsContext) -> None:
        super().__init__(path, inode, flags)
        self.fc = fc

    def read(self, task: Task, pos: int, count: int) -> bytes:
        log = self.fc.log
        if not log:
            raise Errno(errno.ENODATA)
        text = log[0].encode("utf-8", "surrogateescape")
        if len(text) > count:
            raise Errno(errno.EMSGSIZE)
        del log[0]
        return text

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.EINVAL)


class MountFile(PathFile):
    """The root of a tree of mounts that is nobody's: unless it was attached meanwhile, it goes with the last close."""

    def closed(self) -> None:
        mnt = self.f_path.mnt
        if mnt.mounted and is_anonymous(mnt) and mnt.mnt_parent is mnt:
            umount_tree(mnt.mnt_sb.kernel.current, mnt)


def _context_fd(task: Task, fc: FsContext, cloexec: bool) -> int:
    fc.log = []
    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    file = ContextFile(anonymous_path(sb, inode, b"anon_inode:[fscontext]"), inode, O_RDWR, fc)
    fd: int = task.files.add(task, file, cloexec)
    return fd


def _mount_fd(task: Task, mounts: list[Mount], at: Path, cloexec: bool) -> int:
    """A descriptor of a new tree, which is in a namespace of its own that nobody is in."""
    fd: int = task.files.unused(task)
    ns = MntNamespace(0, mounts[0], True)
    commit_tree(task.kernel.vfs, mounts, ns)
    task.files.install(fd, MountFile(at, at.dentry.d_inode, O_PATH), cloexec)
    return fd


def sys_fsopen(task: Task, name: int, flags: int) -> int:
    """fsopen. Raises EPERM, EINVAL, EFAULT, ENODEV."""
    from guest.fs_types import BY_NAME

    may_mount(task)
    flags &= 0xFFFFFFFF
    if flags & ~_CLOEXEC:
        raise Errno(errno.EINVAL)
    known = BY_NAME.get(_text(task, name, task.system.page_size))
    if known is None:
        raise Errno(errno.ENODEV)
    return _context_fd(task, FsContext(known, task), bool(flags & _CLOEXEC))


def _text(task: Task, address: int, longest: int) -> str:
    """strndup_user(). Raises EFAULT, EINVAL for a long one."""
    text = strncpy_from_user(task, address, longest)
    if len(text) >= longest:
        raise Errno(errno.EINVAL)
    return text.decode("utf-8", "surrogateescape")


def sys_fspick(task: Task, dfd: int, path: int, flags: int) -> int:
    """fspick. Raises EPERM, EINVAL for what is not a mount's root, and those of the path."""
    may_mount(task)
    flags &= 0xFFFFFFFF
    if flags & ~(_CLOEXEC | _FSPICK_NOFOLLOW | _FSPICK_NO_AUTOMOUNT | _FSPICK_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    look = 0 if flags & _FSPICK_NOFOLLOW else LOOKUP_FOLLOW
    look |= LOOKUP_EMPTY if flags & _FSPICK_EMPTY_PATH else 0
    at = filename_lookup(task, s32(dfd), getname(task, path), look)
    if at.dentry is not at.mnt.mnt_root:
        raise Errno(errno.EINVAL)
    return _context_fd(task, for_reconfigure(task, at.mnt.mnt_sb), bool(flags & _CLOEXEC))


def sys_fsconfig(task: Task, fd: int, cmd: int, key: int, value: int, aux: int) -> int:
    """fsconfig. Raises EINVAL, EOPNOTSUPP, EBADF, EBUSY, EFAULT and what the file system refuses."""
    fd, cmd, aux = s32(fd), cmd & 0xFFFFFFFF, s32(aux)
    if fd < 0:
        raise Errno(errno.EINVAL)
    _check_arguments(cmd, key, value, aux)
    file = task.files.get(fd)
    if not isinstance(file, ContextFile):
        raise Errno(errno.EINVAL)
    fc = file.fc
    if fc.fs_type.legacy and cmd in (SET_BINARY, SET_PATH, SET_PATH_EMPTY, SET_FD):
        raise Errno(errno.EOPNOTSUPP)
    param = None
    if key:
        param = Param(_text(task, key, _LONGEST), _KINDS[cmd], _value(task, cmd, value, aux))
    fc.finish_clean(task)
    if cmd == CMD_CREATE:
        _create(task, fc)
    elif cmd == CMD_RECONFIGURE:
        _reconfigure(task, fc)
    elif fc.phase not in (CREATE_PARAMS, RECONF_PARAMS):
        raise Errno(errno.EBUSY)
    elif param is not None:
        fc.parse_param(task, param)
    return 0


def _check_arguments(cmd: int, key: int, value: int, aux: int) -> None:
    if cmd > CMD_RECONFIGURE:
        raise Errno(errno.EOPNOTSUPP)
    wrong = {
        SET_FLAG: not key or value or aux,
        SET_STRING: not key or not value or aux,
        SET_BINARY: not key or not value or not 0 < aux <= 1 << 20,
        SET_PATH: not key or not value or (aux != AT_FDCWD and aux < 0),
        SET_PATH_EMPTY: not key or not value or (aux != AT_FDCWD and aux < 0),
        SET_FD: not key or value or aux < 0,
        CMD_CREATE: key or value or aux,
        CMD_RECONFIGURE: key or value or aux,
    }[cmd]
    if wrong:
        raise Errno(errno.EINVAL)


def _value(task: Task, cmd: int, value: int, aux: int) -> str:
    """What comes with a key; no file system here takes bytes, paths or files, but they must be there."""
    if cmd == SET_STRING:
        return _text(task, value, _LONGEST)
    if cmd == SET_BINARY:
        copy_from_user(task, value, aux)
    elif cmd in (SET_PATH, SET_PATH_EMPTY):
        if not getname(task, value) and cmd == SET_PATH:
            raise Errno(errno.ENOENT)
    elif cmd == SET_FD:
        task.files.get(aux)
    return ""


def _create(task: Task, fc: FsContext) -> None:
    if fc.phase != CREATE_PARAMS:
        raise Errno(errno.EBUSY)
    may_mount(task)
    fc.phase = CREATING
    try:
        fc.get_tree(task)
    except Errno:
        fc.phase = FAILED
        raise
    fc.phase = AWAITING_MOUNT


def _reconfigure(task: Task, fc: FsContext) -> None:
    if fc.phase != RECONF_PARAMS:
        raise Errno(errno.EBUSY)
    fc.phase = RECONFIGURING
    try:
        may_mount(task)
        fc.reconfigure_super(task)
    except Errno:
        fc.phase = FAILED
        raise
    fc.clean()


def sys_fsmount(task: Task, fs_fd: int, flags: int, attr_flags: int) -> int:
    """fsmount. Raises EPERM, EINVAL, EBADF, EBUSY."""
    may_mount(task)
    flags, attr_flags = flags & 0xFFFFFFFF, attr_flags & 0xFFFFFFFF
    known = sum(attr for attr, _ in _ATTR_FLAGS) | _ATTR_ATIME
    if flags & ~_CLOEXEC or attr_flags & ~known or attr_flags & _ATTR_ATIME not in _ATIMES:
        raise Errno(errno.EINVAL)
    mnt_flags = sum(mnt for attr, mnt in _ATTR_FLAGS if attr_flags & attr) | _ATIMES[attr_flags & _ATTR_ATIME]
    file = task.files.get(s32(fs_fd))
    if not isinstance(file, ContextFile) or file.fc.root is None or file.fc.sb is None:
        raise Errno(errno.EINVAL)
    fc = file.fc
    if fc.phase != AWAITING_MOUNT:
        raise Errno(errno.EBUSY)
    root: Any = fc.root
    mnt = new_mount(file.fc.sb, root, fc.source or "none", mnt_flags)
    fc.clean()
    return _mount_fd(task, [mnt], Path(mnt, root), bool(flags & _CLOEXEC))


def sys_open_tree(task: Task, dfd: int, path: int, flags: int) -> int:
    """open_tree. Raises EINVAL, EPERM and those of the path."""
    flags &= 0xFFFFFFFF
    cloexec = task.kernel.vfs.abi.flags_in(flags & _O_CLOEXEC)
    clone = flags & 1
    known = _AT_EMPTY_PATH | _AT_NO_AUTOMOUNT | _AT_RECURSIVE | _AT_SYMLINK_NOFOLLOW | 1 | _O_CLOEXEC
    if flags & ~known or (flags & _AT_RECURSIVE and not clone):
        raise Errno(errno.EINVAL)
    if clone:
        may_mount(task)
    look = 0 if flags & _AT_SYMLINK_NOFOLLOW else LOOKUP_FOLLOW
    look |= LOOKUP_EMPTY if flags & _AT_EMPTY_PATH else 0
    at = filename_lookup(task, s32(dfd), getname(task, path), look)
    if clone:
        mounts = loopback(task, at, bool(flags & _AT_RECURSIVE))
        return _mount_fd(task, mounts, Path(mounts[0], at.dentry), bool(cloexec))
    fd: int = task.files.add(task, PathFile(at, at.dentry.d_inode, O_PATH), bool(cloexec))
    return fd


def sys_move_mount(task: Task, from_dfd: int, from_path: int, to_dfd: int, to_path: int, flags: int) -> int:
    """move_mount. Raises EPERM, EINVAL, ELOOP and those of the paths."""
    may_mount(task)
    flags &= 0xFFFFFFFF
    if flags & ~_MOVE_MASK:
        raise Errno(errno.EINVAL)
    found = []
    for dfd, path, bits in ((from_dfd, from_path, flags), (to_dfd, to_path, flags >> 4)):
        look = (LOOKUP_FOLLOW if bits & 1 else 0) | (LOOKUP_EMPTY if bits & 4 else 0)
        found.append(filename_lookup(task, s32(dfd), getname(task, path), look))
    if flags & _MOVE_SET_GROUP:
        from guest.propagation import set_group

        roots = all(path.dentry is path.mnt.mnt_root for path in found)
        if not roots or not set_group(task, found[0].mnt, found[1].mnt):
            raise Errno(errno.EINVAL)
        return 0
    do_move_mount(task, found[0], found[1])
    return 0


CALLS = (
    Call("fsopen", sys_fsopen, FULL),
    Call("fspick", sys_fspick, FULL),
    Call("fsconfig", sys_fsconfig, FULL),
    Call("fsmount", sys_fsmount, FULL),
    Call("open_tree", sys_open_tree, FULL),
    Call("move_mount", sys_move_mount, FULL),
)
