r"""The objects of the file system: super block, inode, directory entry, mount, path (fs.h, dcache.h, mount.h).

    Mount --mnt_root--> Dentry --d_inode--> Inode --i_mapping--> AddressSpace (mm/: the file's pages)
      |                   |  \-d_children: name -> Dentry
      \--mnt_sb--> SuperBlock                      OpenFile (file.py) = Path + Inode + position

Every entry that was ever looked up in a tmpfs or host folder is a Dentry that stays, so a Dentry *is* the directory's
content, as in the kernel's dcache. Names and paths are bytes; times are nanoseconds of the guest's real-time clock.
All of it is plain and picklable. Operations a file system does not support raise Errno as the kernel's defaults do.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.vfs_flags import (
    S_IALLUGO,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_ISGID,
    S_ISUID,
    S_IXGRP,
    ST_RELATIME,
    ST_VALID,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.namespace import MntNamespace
    from guest.propagation import PeerGroup
    from guest.task import Task
    from mm.types import AddressSpace


def makedev(major: int, minor: int) -> int:
    """MKDEV(): a device number as the kernel holds it."""
    return major << 20 | minor


def new_encode_dev(dev: int) -> int:
    """The device number as stat shows it."""
    major, minor = dev >> 20, dev & 0xFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def new_decode_dev(dev: int) -> int:
    """The inverse of new_encode_dev(), for mknod."""
    return makedev((dev & 0xFFF00) >> 8, (dev & 0xFF) | (dev >> 12 & 0xFFF00))


MNT_NOSUID, MNT_NODEV, MNT_NOEXEC, MNT_NOATIME, MNT_NODIRATIME, MNT_RELATIME, MNT_READONLY, MNT_NOSYMFOLLOW = (
    1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80
)  # fmt: skip
_ST_FLAGS = (
    (MNT_NOSUID, 2), (MNT_NODEV, 4), (MNT_NOEXEC, 8), (MNT_NOATIME, 0x400), (MNT_NODIRATIME, 0x800),
    (MNT_RELATIME, ST_RELATIME), (MNT_NOSYMFOLLOW, 0x2000),
)  # fmt: skip


class SuperBlock:
    """One mounted file system (struct super_block)."""

    def __init__(self, kernel: Kernel, s_type: str, s_dev: int, s_magic: int) -> None:
        self.kernel = kernel
        self.s_type = s_type  # name in /proc/mounts
        self.s_dev = s_dev
        self.s_magic = s_magic
        self.s_born = False  # its settings are made
        self.s_bits = 0  # SB_*, as fs_context.py sets them
        self.s_readonly = False  # SB_RDONLY
        self.s_flag_names = ""  # ",sync" and the like (show_sb_opts())
        self.s_options = ""  # what ->show_options prints, from its comma on
        self.next_ino = 0
        self.root: Dentry | None = None

    def get_next_ino(self) -> int:
        """The number of a new inode: 1, 2, ... in order of creation."""
        self.next_ino += 1
        return self.next_ino

    def blksize(self) -> int:
        """st_blksize."""
        return self.kernel.system.arch.page_size

    def statfs(self) -> tuple[int, int, int, int, int, int]:
        """Block size, blocks, free, available, inodes, free inodes (simple_statfs())."""
        return self.kernel.system.arch.page_size, 0, 0, 0, 0, 0

    def unmounted(self) -> None:
        """A mount of it that a program made is gone."""


class Inode:
    """A file of any kind (struct inode and its operations)."""

    makes_names = True  # a directory in which a missing name may be created

    def __init__(self, sb: SuperBlock, mode: int, uid: int = 0, gid: int = 0, ino: int | None = None) -> None:
        self.i_sb = sb
        self.i_ino = sb.get_next_ino() if ino is None else ino
        self.i_mode = mode
        self.i_uid = uid
        self.i_gid = gid
        self.i_nlink = 1
        self.i_rdev = 0
        self.i_atime = self.i_mtime = self.i_ctime = sb.kernel.vfs.now()
        self.i_mapping: AddressSpace | None = None
        self.i_opens = 0  # open files
        self.i_linkable = False  # an O_TMPFILE inode that linkat may still name
        self.i_flctx: Any = None  # file locks, sys_file_lock.py
        self.i_pipe: Any = None  # the pipe of an opened FIFO
        self.i_unix: Any = None  # the AF_UNIX socket bound to this name

    def __repr__(self) -> str:
        return f"<Inode {self.i_sb.s_type} {self.i_ino} mode={self.i_mode:o}>"

    @property
    def i_size(self) -> int:
        """Bytes."""
        return self.i_mapping.i_size if self.i_mapping is not None else 0

    @property
    def i_blocks(self) -> int:
        """Units of 512 bytes."""
        return 0

    @property
    def i_writecount(self) -> int:
        """Writers; negative: execs and areas of programs that deny writing (ETXTBSY). Kept with the pages."""
        return self.i_mapping.i_writecount if self.i_mapping is not None else 0

    @i_writecount.setter
    def i_writecount(self, value: int) -> None:
        if self.i_mapping is not None:
            self.i_mapping.i_writecount = value

    # directory operations; `parent` is the Dentry of this inode, a directory

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        """The entry `name` that is not among the cached children; None when there is none."""
        return None

    def revalidate(self, entry: Dentry) -> bool:
        """Whether a cached child still stands (d_revalidate)."""
        return True

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        """(name, inode number, mode) of every entry but . and .., in readdir order."""
        raise Errno(errno.ENOTDIR)

    def create(self, parent: Dentry, name: bytes, mode: int, task: Task, rdev: int = 0) -> Dentry:
        """A new regular file, FIFO, socket or device."""
        raise Errno(errno.EACCES)

    def mkdir(self, parent: Dentry, name: bytes, mode: int, task: Task) -> Dentry:
        """A new directory."""
        raise Errno(errno.EPERM)

    def symlink(self, parent: Dentry, name: bytes, target: bytes, task: Task) -> Dentry:
        """A new symbolic link."""
        raise Errno(errno.EPERM)

    def link(self, parent: Dentry, name: bytes, old: Dentry) -> Dentry:
        """One more name for `old`."""
        raise Errno(errno.EPERM)

    def unlink(self, parent: Dentry, entry: Dentry) -> None:
        """Take a name away."""
        raise Errno(errno.EPERM)

    def is_empty_dir(self, entry: Dentry) -> bool:
        """simple_empty()."""
        return not entry.d_children

    def rmdir(self, parent: Dentry, entry: Dentry) -> None:
        """Remove an empty directory."""
        raise Errno(errno.EPERM)

    def rename(self, old: Dentry, new_parent: Dentry, new_name: bytes, target: Dentry | None, exchange: bool) -> None:
        """Move `old`, an entry of this directory, over `target` or swap the two."""
        raise Errno(errno.EPERM)

    def tmpfile(self, mode: int, task: Task) -> Inode:
        """An inode without a name (O_TMPFILE)."""
        raise Errno(errno.EOPNOTSUPP)

    def still_there(self, parent: Dentry, name: bytes) -> bool:
        """Whether an entry listed earlier should still be shown to a reader that goes on."""
        return True

    # operations of any file

    def get_link(self, task: Task) -> bytes | Path:
        """What a symbolic link says; a Path for the links of /proc that jump."""
        raise Errno(errno.EINVAL)

    def readlink(self, task: Task) -> bytes:
        """What readlink shows."""
        link = self.get_link(task)
        if isinstance(link, Path):
            path: bytes = task.kernel.vfs.d_path(link, task.fs.root)
            return path
        return link

    def permission(self, task: Task, mask: int) -> int | None:
        """A verdict of the file system's own: 0 or errno; None asks the mode bits."""
        return None

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        """Make the open file (->open). Raises ENXIO for what cannot be opened."""
        raise Errno(errno.ENXIO)

    def truncate(self, size: int) -> None:
        """Set the length of a regular file."""
        raise Errno(errno.EINVAL)

    def setattr(self, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        """simple_setattr() for owner and mode; permission was checked by notify_change's caller."""
        if uid is not None:
            self.i_uid = uid
        if gid is not None:
            self.i_gid = gid
        if mode is not None:
            self.i_mode = (self.i_mode & S_IFMT) | (mode & S_IALLUGO)
        self.i_ctime = self.i_sb.kernel.vfs.now()

    def set_times(self, atime: int | None, mtime: int | None) -> None:
        """utimensat: nanoseconds, None leaves one alone."""
        if atime is not None:
            self.i_atime = atime
        if mtime is not None:
            self.i_mtime = mtime
        self.i_ctime = self.i_sb.kernel.vfs.now()

    def getattr(self) -> None:
        """Refresh what stat is about to show (->getattr)."""

    def evict(self) -> None:
        """The last name and the last open file are gone."""

    # conveniences

    def is_dir(self) -> bool:
        """S_ISDIR()."""
        return self.i_mode & S_IFMT == S_IFDIR

    def is_reg(self) -> bool:
        """S_ISREG()."""
        return self.i_mode & S_IFMT == S_IFREG

    def is_lnk(self) -> bool:
        """S_ISLNK()."""
        return self.i_mode & S_IFMT == S_IFLNK

    def is_fifo(self) -> bool:
        """S_ISFIFO()."""
        return self.i_mode & S_IFMT == S_IFIFO

    def is_device(self) -> bool:
        """Character or block device."""
        return self.i_mode & S_IFMT in (S_IFCHR, S_IFBLK)

    def should_remove_suid(self) -> int:
        """The set-id bits a write or truncate by an unprivileged task takes away (should_remove_suid())."""
        if not self.is_reg():
            return 0
        kill = self.i_mode & S_ISUID
        if self.i_mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            kill |= S_ISGID
        return kill


class Dentry:
    """A name in a directory (struct dentry)."""

    __slots__ = ("d_children", "d_dname", "d_inode", "d_mounts", "d_name", "d_parent", "d_unhashed")

    def __init__(self, name: bytes, parent: Dentry | None, inode: Inode) -> None:
        self.d_name = name
        self.d_parent: Dentry = self if parent is None else parent
        self.d_inode = inode
        self.d_children: dict[bytes, Dentry] = {}  # oldest first
        self.d_mounts: list[Mount] = []  # mounts that sit on this directory
        self.d_unhashed = False  # removed: the path shows " (deleted)"
        self.d_dname: bytes | None = None  # the whole path of things outside every tree ("pipe:[5]")

    def __repr__(self) -> str:
        return f"<Dentry {self.d_name!r} {self.d_inode!r}>"

    def is_ancestor_of(self, other: Dentry) -> bool:
        """Whether `other` lies below (or is) this entry, within one file system."""
        while other is not self:
            if other.d_parent is other:
                return False
            other = other.d_parent
        return True


class Mount:
    """A file system at its place (struct mount)."""

    def __init__(
        self, mnt_id: int, sb: SuperBlock, root: Dentry, parent: Mount | None, mountpoint: Dentry | None, source: str
    ) -> None:
        self.mnt_id = mnt_id
        self.mnt_sb = sb
        self.mnt_root = root
        self.mnt_parent: Mount = self if parent is None else parent
        self.mnt_mountpoint: Dentry = root if mountpoint is None else mountpoint
        self.mnt_devname = source
        self.mnt_flags = MNT_RELATIME
        self.mnt_ns: MntNamespace | None = None  # whose tree it is in (namespace.py); None: the first
        self.mounted = True
        self.mnt_expiry_mark = False
        self.shared: PeerGroup | None = None  # whom it shares mounts with (propagation.py)
        self.master: PeerGroup | None = None  # whom it receives them from
        self.unbindable = False
        self.copied_from: Mount | None = None  # while a namespace is being made

    @property
    def mnt_readonly(self) -> bool:
        """__mnt_is_readonly(): this mount of the file system, or all of it."""
        return bool(self.mnt_flags & MNT_READONLY) or self.mnt_sb.s_readonly

    @property
    def mnt_relatime(self) -> bool:
        """Access times change when they are older than the other two."""
        return bool(self.mnt_flags & MNT_RELATIME)

    def st_flags(self) -> int:
        """f_flags of statfs (flags_by_mnt(), flags_by_sb())."""
        flags = sum(st for mnt, st in _ST_FLAGS if self.mnt_flags & mnt)
        return ST_VALID | flags | (1 if self.mnt_readonly else 0)


class Path:
    """A place: mount and entry (struct path)."""

    __slots__ = ("dentry", "mnt")

    def __init__(self, mnt: Mount, dentry: Dentry) -> None:
        self.mnt = mnt
        self.dentry = dentry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self.mnt is other.mnt and self.dentry is other.dentry

    __hash__ = None  # type: ignore[assignment]  # compared, never a key

    def __repr__(self) -> str:
        return f"<Path {self.dentry.d_name!r} in {self.mnt.mnt_sb.s_type}>"


class FsStruct:
    """Root, working directory and umask of a task, possibly shared (struct fs_struct)."""

    def __init__(self, root: Path, pwd: Path, umask: int = 0o022) -> None:
        self.root = root
        self.pwd = pwd
        self.umask = umask
        self.users = 1

    def copy(self) -> FsStruct:
        """copy_fs_struct(): a child's own."""
        return FsStruct(self.root, self.pwd, self.umask)
