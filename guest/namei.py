"""Path walk, permission, and the operations on names (fs/namei.c, with may_open and do_dentry_open).

A walk holds the place reached and the components still to go; a symbolic link pushes its own components. It never
leaves the task's root: `..` stops there, an absolute link starts there, and host folders are only ever asked for single
names. Linux's order of checks is kept, so that of two reasons to refuse the same one is given.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import OpenFile, PathFile
from guest.vfs_flags import (
    AT_FDCWD,
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    FMODE_CREATED,
    FMODE_WRITE,
    FMODE_WRITER,
    MAXSYMLINKS,
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    O_ACCMODE,
    O_CREAT,
    O_DIRECT,
    O_DIRECTORY,
    O_EXCL,
    O_NOATIME,
    O_NOCTTY,
    O_NOFOLLOW,
    O_PATH,
    O_RDWR,
    O_TMPFILE_BIT,
    O_TRUNC,
    O_WRONLY,
    PATH_MAX,
    S_IALLUGO,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISVTX,
)
from guest.vfs_types import MNT_NODEV, MNT_NOSYMFOLLOW, Path
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Dentry, Inode, Mount

LOOKUP_FOLLOW = 1
LOOKUP_DIRECTORY = 2
LOOKUP_EMPTY = 0x4000

_ACC_MODE = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE)
_SPECIAL = (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)


# permission


def inode_permission(task: Task, inode: Inode, mask: int) -> None:
    """generic_permission() for the task's fsuid, fsgid and capabilities. Raises EACCES."""
    verdict = inode.permission(task, mask)
    if verdict is not None:
        if verdict:
            raise Errno(verdict)
        return
    cred = task.cred
    mode = inode.i_mode
    if cred.fsuid == inode.i_uid:
        allowed = mode >> 6
    elif cred.in_group(inode.i_gid):
        allowed = mode >> 3
    else:
        allowed = mode
    if not mask & ~allowed & 7:
        return
    if mode & S_IFMT == S_IFDIR:
        if not mask & MAY_WRITE and task.capable(CAP_DAC_READ_SEARCH):
            return
        if task.capable(CAP_DAC_OVERRIDE):
            return
    else:
        if mask & 7 == MAY_READ and task.capable(CAP_DAC_READ_SEARCH):
            return
        if (not mask & MAY_EXEC or mode & 0o111) and task.capable(CAP_DAC_OVERRIDE):
            return
    raise Errno(errno.EACCES)


def owner_or_capable(task: Task, inode: Inode) -> bool:
    """inode_owner_or_capable()."""
    return task.cred.fsuid == inode.i_uid or task.capable(CAP_FOWNER)


def mnt_want_write(mnt: Mount) -> None:
    """Raises EROFS on a read-only mount."""
    if mnt.mnt_readonly:
        raise Errno(errno.EROFS)


def check_sticky(task: Task, directory: Inode, inode: Inode) -> bool:
    """Whether the sticky bit of the directory protects `inode` from the task."""
    if not directory.i_mode & S_ISVTX or task.cred.fsuid in (inode.i_uid, directory.i_uid):
        return False
    return not task.capable(CAP_FOWNER)


def may_delete(task: Task, parent: Dentry, victim: Dentry, isdir: bool) -> None:
    """Whether a name may be taken away. Raises EACCES, EPERM, ENOTDIR, EISDIR, EBUSY, ENOENT."""
    inode_permission(task, parent.d_inode, MAY_WRITE | MAY_EXEC)
    if check_sticky(task, parent.d_inode, victim.d_inode):
        raise Errno(errno.EPERM)
    if isdir:
        if not victim.d_inode.is_dir():
            raise Errno(errno.ENOTDIR)
        if victim.d_parent is victim:
            raise Errno(errno.EBUSY)
    elif victim.d_inode.is_dir():
        raise Errno(errno.EISDIR)
    if parent.d_unhashed:
        raise Errno(errno.ENOENT)


def may_create(task: Task, parent: Dentry) -> None:
    """Whether a name may be added. Raises ENOENT in a removed directory, EACCES."""
    if parent.d_unhashed:
        raise Errno(errno.ENOENT)
    inode_permission(task, parent.d_inode, MAY_WRITE | MAY_EXEC)


# the walk


class Walk:
    """A path walk in progress (struct nameidata)."""

    __slots__ = ("at", "last", "links", "pending", "root", "slash", "task")

    def __init__(self, task: Task, dfd: int, name: bytes, root: Path | None = None) -> None:
        if len(name) >= PATH_MAX:
            raise Errno(errno.ENAMETOOLONG)
        self.task = task
        self.root: Path = task.fs.root if root is None else root
        self.links = 0  # symbolic links followed
        self.at: Path = self.root
        if name[:1] != b"/" and dfd == AT_FDCWD:
            self.at = task.fs.pwd
        elif name[:1] != b"/":
            file = task.files.get_raw(dfd)
            if name and not file.f_inode.is_dir():
                raise Errno(errno.ENOTDIR)
            self.at = file.f_path
        self.pending = [part for part in name.split(b"/") if part]
        self.pending.reverse()
        self.slash = name[-1:] == b"/"  # the last component must be a directory
        self.last = b""  # last component, after to_parent(); empty when the path is the root

    def to_parent(self) -> None:
        """Go to the directory that holds the last component. Raises ENOENT, ENOTDIR, EACCES, ELOOP."""
        pending = self.pending
        while pending:
            inode = self.at.dentry.d_inode
            if not inode.is_dir():
                raise Errno(errno.ENOTDIR)
            inode_permission(self.task, inode, MAY_EXEC)
            part = pending.pop()
            if not pending:
                self.last = part
                return
            self.step(part, True)
        self.last = b""

    def step(self, part: bytes, follow: bool) -> None:
        """walk_component(): into `part`; a link is pushed when `follow`."""
        if part == b".":
            return
        if part == b"..":
            self.up()
            return
        entry = lookup_one(self.at.dentry, part)
        if entry is None:
            raise Errno(errno.ENOENT)
        self.into(entry, follow)

    def into(self, entry: Dentry, follow: bool) -> None:
        """step_into(): cross mounts, follow a link."""
        if follow and entry.d_inode.is_lnk():
            self.push(entry.d_inode)
            return
        self.at = traverse_mounts(Path(self.at.mnt, entry))

    def push(self, inode: Inode) -> None:
        """pick_link(): go on with what the link says. Raises ELOOP, ENOENT for an empty one."""
        self.links += 1
        if self.links > MAXSYMLINKS:
            raise Errno(errno.ELOOP)
        if self.at.mnt.mnt_flags & MNT_NOSYMFOLLOW:
            raise Errno(errno.ELOOP)
        target = inode.get_link(self.task)
        inode.i_atime = max(inode.i_atime, inode.i_mtime)
        if isinstance(target, Path):
            self.jump_link(target)
            return
        if not target:
            raise Errno(errno.ENOENT)
        if target[:1] == b"/":
            self.jump_root()
        if not self.pending and target[-1:] == b"/":
            self.slash = True
        parts = [part for part in target.split(b"/") if part]
        parts.reverse()
        self.pending.extend(parts)

    def jump_root(self) -> None:
        """nd_jump_root(): a link that begins with a slash."""
        self.at = self.root

    def jump_link(self, target: Path) -> None:
        """nd_jump_link(): a link of /proc that leads to a place, not to a name."""
        self.at = target

    def up(self) -> None:
        """follow_dotdot(): never above the task's root."""
        mnt, dentry = self.at.mnt, self.at.dentry
        while True:
            if dentry is self.root.dentry and mnt is self.root.mnt:
                break
            if dentry is not mnt.mnt_root:
                dentry = dentry.d_parent
                break
            if mnt.mnt_parent is mnt:
                break
            mnt, dentry = mnt.mnt_parent, mnt.mnt_mountpoint
        self.at = traverse_mounts(Path(mnt, dentry))

    def finish(self, follow: bool) -> Path:
        """path_lookupat(): the place the whole path names."""
        while True:
            self.to_parent()
            if not self.last:
                break
            self.step(self.last, follow or self.slash)
            if not self.pending:
                break
        if self.slash and not self.at.dentry.d_inode.is_dir():
            raise Errno(errno.ENOTDIR)
        return self.at


def lookup_one(parent: Dentry, name: bytes) -> Dentry | None:
    """The entry `name` of a directory; None when there is none."""
    entry = parent.d_children.get(name)
    if entry is not None:
        if parent.d_inode.revalidate(entry):
            return entry
        del parent.d_children[name]
    return parent.d_inode.lookup(parent, name)


def traverse_mounts(path: Path) -> Path:
    """The root of whatever is mounted here, or the place itself."""
    while path.dentry.d_mounts:
        for mount in path.dentry.d_mounts:
            if mount.mnt_parent is path.mnt and mount is not path.mnt:
                path = Path(mount, mount.mnt_root)
                break
        else:
            return path
    return path


def filename_lookup(task: Task, dfd: int, name: bytes, flags: int = LOOKUP_FOLLOW, resolve: int = 0) -> Path:
    """user_path_at(): the place a path names. Raises ENOENT for an empty path unless LOOKUP_EMPTY."""
    if not name and not flags & LOOKUP_EMPTY:
        raise Errno(errno.ENOENT)
    if name[:1] == b"/" and task.kernel.vfs.prefix is not None and not resolve:
        found = prefix_lookup(task, name, bool(flags & LOOKUP_FOLLOW))
        if found is not None:
            return found
    walk = Walk(task, dfd, name) if not resolve else _resolving(task, dfd, name, resolve)
    if flags & LOOKUP_DIRECTORY:
        walk.slash = True
        path = walk.finish(bool(flags & LOOKUP_FOLLOW))
        if not path.dentry.d_inode.is_dir():
            raise Errno(errno.ENOTDIR)
        return path
    return walk.finish(bool(flags & LOOKUP_FOLLOW))


def _resolving(task: Task, dfd: int, name: bytes, resolve: int) -> Walk:
    """A walk under openat2's rules."""
    from guest.sys_openat2 import ResolvingWalk

    return ResolvingWalk(task, dfd, name, resolve)


def prefix_lookup(task: Task, name: bytes, follow: bool) -> Path | None:
    """What an absolute path names in the folder of -L; None: it is not there, or is a directory the guest has too."""
    prefix: Path = task.kernel.vfs.prefix
    if task.fs.root.dentry is not task.kernel.vfs.root.dentry:
        return None  # after chroot
    try:
        found = Walk(task, AT_FDCWD, name, prefix).finish(follow)
    except Errno:
        return None
    if found.dentry.d_inode.is_dir():
        try:
            Walk(task, AT_FDCWD, name).finish(follow)
        except Errno:
            return found
        return None
    return found


def filename_parent(task: Task, dfd: int, name: bytes) -> Walk:
    """filename_parentat(): a walk that stands in the parent of the last component."""
    if not name:
        raise Errno(errno.ENOENT)
    walk = Walk(task, dfd, name)
    walk.to_parent()
    return walk


def is_normal(name: bytes) -> bool:
    """LAST_NORM: a name, not the root, `.` or `..`."""
    return name not in (b"", b".", b"..")


# opening


def path_openat(task: Task, dfd: int, name: bytes, flags: int, mode: int, resolve: int = 0) -> OpenFile:
    """do_filp_open(): open or create.

    `flags` are checked O_* (build_open_flags), `mode` is before the umask, `resolve` are RESOLVE_* of openat2.
    """
    if not name:
        raise Errno(errno.ENOENT)
    if flags & O_PATH:
        look = (0 if flags & O_NOFOLLOW else LOOKUP_FOLLOW) | (LOOKUP_DIRECTORY if flags & O_DIRECTORY else 0)
        path = filename_lookup(task, dfd, name, look, resolve)
        return PathFile(path, path.dentry.d_inode, flags)
    if flags & O_TMPFILE_BIT:
        return open_tmpfile(task, dfd, name, flags, mode, resolve)
    if flags & O_CREAT and flags & O_EXCL:
        flags |= O_NOFOLLOW
    root: Path | None = None
    if name[:1] == b"/" and task.kernel.vfs.prefix is not None:
        if prefix_lookup(task, name, not flags & O_NOFOLLOW) is not None:
            root = task.kernel.vfs.prefix
    walk = Walk(task, dfd, name, root) if not resolve else _resolving(task, dfd, name, resolve)
    while True:
        walk.to_parent()
        created = open_last(walk, flags, mode)
        if created is not None or not walk.pending:
            break
    return do_open(walk, created, flags, mode)


def open_last(walk: Walk, flags: int, mode: int) -> Dentry | None:
    """open_last_lookups(): step into the last component; the entry when it was created."""
    task, name = walk.task, walk.last
    if not is_normal(name):
        if name:
            walk.step(name, True)
        return None
    if flags & O_CREAT and walk.slash:
        raise Errno(errno.EISDIR)
    parent = walk.at.dentry
    entry = lookup_one(parent, name)
    if entry is not None:
        walk.into(entry, walk.slash or not flags & O_NOFOLLOW)
        return None
    if not flags & O_CREAT or not parent.d_inode.makes_names:
        raise Errno(errno.ENOENT)
    mnt_want_write(walk.at.mnt)
    may_create(task, parent)
    mode = S_IFREG | (mode & S_IALLUGO & ~task.fs.umask)
    made: Dentry = parent.d_inode.create(parent, name, mode, task)
    walk.at = Path(walk.at.mnt, made)
    return made


def do_open(walk: Walk, created: Dentry | None, flags: int, mode: int) -> OpenFile:
    """The checks on what the walk reached, then the open itself."""
    task, path = walk.task, walk.at
    inode = path.dentry.d_inode
    if flags & O_CREAT:
        if flags & O_EXCL and created is None:
            raise Errno(errno.EEXIST)
        if inode.is_dir():
            raise Errno(errno.EISDIR)
    if (walk.slash or flags & O_DIRECTORY) and not inode.is_dir():
        raise Errno(errno.ENOTDIR)
    acc_mode = _ACC_MODE[flags & O_ACCMODE]
    truncate = False
    if created is not None:
        acc_mode = 0
    elif flags & O_TRUNC:
        acc_mode |= MAY_WRITE
        if inode.is_reg():
            mnt_want_write(path.mnt)
            truncate = True
    may_open(task, path, acc_mode, flags)
    file = vfs_open(task, path, flags)
    if created is not None:
        file.f_mode |= FMODE_CREATED
    if truncate:
        try:
            inode.truncate(0)
        except Errno:
            file.f_count = 0
            file.release()
            raise
    return file


def may_open(task: Task, path: Path, acc_mode: int, flags: int) -> None:
    """Raises ELOOP, EISDIR, EACCES, EPERM."""
    inode = path.dentry.d_inode
    kind = inode.i_mode & S_IFMT
    if kind == S_IFLNK:
        raise Errno(errno.ELOOP)
    if kind == S_IFDIR:
        if acc_mode & MAY_WRITE:
            raise Errno(errno.EISDIR)
        if acc_mode & MAY_EXEC:
            raise Errno(errno.EACCES)
    elif kind in _SPECIAL:
        if acc_mode & MAY_EXEC or (kind in (S_IFCHR, S_IFBLK) and path.mnt.mnt_flags & MNT_NODEV):
            raise Errno(errno.EACCES)
    inode_permission(task, inode, acc_mode)
    if flags & O_NOATIME and not owner_or_capable(task, inode):
        raise Errno(errno.EPERM)


def vfs_open(task: Task, path: Path, flags: int) -> OpenFile:
    """do_dentry_open(). Raises ETXTBSY, EROFS, EINVAL for O_DIRECT."""
    inode = path.dentry.d_inode
    writer = flags & O_ACCMODE in (O_WRONLY, O_RDWR, 3) and inode.i_mode & S_IFMT not in _SPECIAL
    if writer:
        if inode.i_writecount < 0:
            raise Errno(errno.ETXTBSY)
        mnt_want_write(path.mnt)
    if flags & O_DIRECT and inode.is_reg():
        raise Errno(errno.EINVAL)
    if inode.i_flctx is not None and inode.i_flctx.leases:
        from guest.sys_lease import break_lease

        break_lease(task, inode, flags)
    file = inode.open(path, flags & ~(O_CREAT | O_EXCL | O_TRUNC), task)
    file.f_flags &= ~O_NOCTTY
    if writer and file.f_inode is inode and file.f_mode & FMODE_WRITE:
        inode.i_writecount += 1
        file.f_mode |= FMODE_WRITER
    return file


def open_tmpfile(task: Task, dfd: int, name: bytes, flags: int, mode: int, resolve: int) -> OpenFile:
    """do_tmpfile(). Raises EOPNOTSUPP, EACCES."""
    from guest.vfs_types import Dentry

    look = LOOKUP_DIRECTORY | (0 if flags & O_NOFOLLOW else LOOKUP_FOLLOW)
    path = filename_lookup(task, dfd, name, look, resolve)
    mnt_want_write(path.mnt)
    inode_permission(task, path.dentry.d_inode, MAY_WRITE | MAY_EXEC)
    inode = path.dentry.d_inode.tmpfile(S_IFREG | (mode & S_IALLUGO & ~task.fs.umask), task)
    entry = Dentry(b"#%d" % inode.i_ino, path.dentry, inode)
    entry.d_unhashed = True
    file = vfs_open(task, Path(path.mnt, entry), flags)
    inode.i_linkable = not flags & O_EXCL
    return file


# names


def filename_create(task: Task, dfd: int, name: bytes, is_dir: bool) -> tuple[Path, bytes]:
    """The parent and name of something about to be made. Raises EEXIST, ENOENT, EROFS, EACCES."""
    walk = filename_parent(task, dfd, name)
    if not is_normal(walk.last):
        raise Errno(errno.EEXIST)
    if lookup_one(walk.at.dentry, walk.last) is not None:
        raise Errno(errno.EEXIST)
    if (walk.slash and not is_dir) or not walk.at.dentry.d_inode.makes_names:
        raise Errno(errno.ENOENT)
    mnt_want_write(walk.at.mnt)
    may_create(task, walk.at.dentry)
    return walk.at, walk.last


def do_unlink(task: Task, dfd: int, name: bytes) -> None:
    """do_unlinkat()."""
    walk = filename_parent(task, dfd, name)
    if not is_normal(walk.last):
        raise Errno(errno.EISDIR)
    mnt_want_write(walk.at.mnt)
    entry = lookup_one(walk.at.dentry, walk.last)
    if entry is None:
        raise Errno(errno.ENOENT)
    if walk.slash:
        raise Errno(errno.EISDIR if entry.d_inode.is_dir() else errno.ENOTDIR)
    may_delete(task, walk.at.dentry, entry, False)
    walk.at.dentry.d_inode.unlink(walk.at.dentry, entry)


def do_rmdir(task: Task, dfd: int, name: bytes) -> None:
    """Remove a directory. Raises EBUSY, EINVAL, ENOTEMPTY for the root, `.` and `..`."""
    walk = filename_parent(task, dfd, name)
    if not is_normal(walk.last):
        raise Errno({b"..": errno.ENOTEMPTY, b".": errno.EINVAL}.get(walk.last, errno.EBUSY))
    mnt_want_write(walk.at.mnt)
    entry = lookup_one(walk.at.dentry, walk.last)
    if entry is None:
        raise Errno(errno.ENOENT)
    may_delete(task, walk.at.dentry, entry, True)
    if entry.d_mounts:
        raise Errno(errno.EBUSY)
    walk.at.dentry.d_inode.rmdir(walk.at.dentry, entry)


def do_rename(task: Task, olddfd: int, oldname: bytes, newdfd: int, newname: bytes, flags: int) -> None:
    """do_renameat2(); `flags` are valid RENAME_* bits."""
    from guest.vfs_flags import RENAME_EXCHANGE, RENAME_NOREPLACE

    exchange = bool(flags & RENAME_EXCHANGE)
    old, new = filename_parent(task, olddfd, oldname), filename_parent(task, newdfd, newname)
    if old.at.mnt is not new.at.mnt:
        raise Errno(errno.EXDEV)
    if not is_normal(old.last):
        raise Errno(errno.EBUSY)
    if not is_normal(new.last):
        raise Errno(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
    mnt_want_write(old.at.mnt)
    old_parent, new_parent = old.at.dentry, new.at.dentry
    entry, target = lookup_one(old_parent, old.last), lookup_one(new_parent, new.last)
    if entry is None:
        raise Errno(errno.ENOENT)
    if flags & RENAME_NOREPLACE and target is not None:
        raise Errno(errno.EEXIST)
    if exchange:
        if target is None:
            raise Errno(errno.ENOENT)
        if new.slash and not target.d_inode.is_dir():
            raise Errno(errno.ENOTDIR)
    if not entry.d_inode.is_dir() and (old.slash or (not exchange and new.slash)):
        raise Errno(errno.ENOTDIR)
    if entry.is_ancestor_of(new_parent):
        raise Errno(errno.EINVAL)
    if target is not None and target.is_ancestor_of(old_parent):
        raise Errno(errno.EINVAL if exchange else errno.ENOTEMPTY)
    vfs_rename(task, entry, new_parent, new.last, target, exchange)


def vfs_rename(
    task: Task, entry: Dentry, new_parent: Dentry, name: bytes, target: Dentry | None, exchange: bool
) -> None:
    """Permission, then the file system's own."""
    if target is not None and target.d_inode is entry.d_inode:
        return
    is_dir = entry.d_inode.is_dir()
    may_delete(task, entry.d_parent, entry, is_dir)
    if target is None:
        may_create(task, new_parent)
    else:
        may_delete(task, new_parent, target, target.d_inode.is_dir() if exchange else is_dir)
    if new_parent is not entry.d_parent:
        if is_dir:
            inode_permission(task, entry.d_inode, MAY_WRITE)
        if exchange and target is not None and target.d_inode.is_dir():
            inode_permission(task, target.d_inode, MAY_WRITE)
    if entry.d_mounts or (target is not None and target.d_mounts):
        raise Errno(errno.EBUSY)
    entry.d_parent.d_inode.rename(entry, new_parent, name, target, exchange)


def chown_ok(task: Task, inode: Inode, uid: int | None) -> bool:
    """setattr_prepare(): may the owner become `uid`?"""
    if uid is None:
        return True
    return (task.cred.fsuid == inode.i_uid and uid == inode.i_uid) or task.capable(CAP_CHOWN)


def chgrp_ok(task: Task, inode: Inode, gid: int | None) -> bool:
    """setattr_prepare(): may the group become `gid`?"""
    if gid is None:
        return True
    if task.cred.fsuid == inode.i_uid and (task.cred.in_group(gid) or gid == inode.i_gid):
        return True
    return task.capable(CAP_CHOWN)
