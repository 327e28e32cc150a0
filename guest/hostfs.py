"""A host folder as a guest file system: read from outside, changed in memory (or, when `rw`, on both sides).

Each entry is looked up on the host once and then lives as a dentry of a tmpfs; names the guest removed are remembered
in `gone`, so they stay removed. Content is read from the host file only for pages the guest never changed.

Safety. The host is touched through descriptors only: the folder itself is opened once by its path, and everything below
it is opened one component at a time, relative to its parent's descriptor and with O_NOFOLLOW. Components come from
directory entries and never hold '/', '.' or '..'. Symbolic links are data here; guest/namei.py resolves them inside
the guest's root. Device nodes, FIFOs and sockets of the host are never opened. A host process that swaps a directory
for a link while we walk makes the open fail; a file whose (device, inode) is not the one seen at lookup is not read.

Owners and modes: a file of the host user who runs pagewalk is shown as 0:0, as in a root file system that user
unpacked. The mode is the host's; the folder itself is shown as at least 0755.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from guest.tmpfs import BOGO_DIRENT_SIZE, TmpfsInode, TmpfsSuper
from guest.vfs_flags import NAME_MAX, S_IFMT, S_IFREG
from guest.vfs_types import Dentry, Inode, new_decode_dev
from mm.errors import Errno
from mm.shmem import ShmemSbInfo, new_shmem_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guest.kernel import Kernel
    from guest.task import Task

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CACHED_FDS = 16


class HostSuper(TmpfsSuper):
    """One host folder.

    Args:
        folder: path on the host.
        rw: changes are written through to the host.
    """

    root: Dentry

    def __init__(self, kernel: Kernel, s_dev: int, folder: str, rw: bool = False, s_type: str = "tmpfs") -> None:
        self.folder = os.path.abspath(folder)
        self.rw = rw
        self.root_fd = -1
        self.file_fds: dict[int, int] = {}  # inode number -> host descriptor, the last few used
        self.by_host_id: dict[tuple[int, int], HostInode] = {}  # so that hard links share an inode
        self.held = ShmemSbInfo(0)  # pages in memory, which nothing limits
        super().__init__(kernel, s_dev, 0o755, s_type)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"root_fd": -1, "file_fds": {}}

    def new_root(self, mode: int) -> Inode:
        inode = HostInode(self, os.fstat(self.open_root()), None, b"")
        inode.i_mode |= 0o755  # a root everybody may enter, also when DIR is a private temporary folder
        return inode

    def open_root(self) -> int:
        """Descriptor of the folder. Raises OSError when it cannot be opened."""
        if self.root_fd < 0:
            self.root_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self.root_fd

    def unmounted(self) -> None:
        """The host keeps its files."""
        self.close()

    def used_blocks(self) -> int:
        """Pages held by the files of this file system."""
        return self.held.used_blocks

    def open_dir(self, inode: HostInode) -> int:
        """A new descriptor of a directory, walked from the root. Raises OSError."""
        names = []
        while inode.host_parent is not None:
            names.append(inode.host_name)
            inode = inode.host_parent
        fd = os.dup(self.open_root())
        for name in reversed(names):
            try:
                below = os.open(name, _DIR_FLAGS, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def open_file(self, inode: HostInode, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a regular file, checked to be the one that was looked up. Raises OSError."""
        if inode.host_parent is None:
            raise OSError(errno.ESTALE, "not a file")
        parent = self.open_dir(inode.host_parent)
        try:
            seen = os.stat(inode.host_name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(seen.st_mode):  # do not even open what might react to it
                raise OSError(errno.ESTALE, "replaced")
            fd = os.open(inode.host_name, flags | _FILE_FLAGS, dir_fd=parent)
        finally:
            os.close(parent)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != inode.host_id:
            os.close(fd)
            raise OSError(errno.ESTALE, "replaced")
        return fd

    def file_fd(self, inode: HostInode) -> int:
        """A kept descriptor of `inode`, for writing too when changes go through. Raises OSError."""
        fd = self.file_fds.pop(inode.i_ino, -1)
        if fd < 0:
            fd = self.open_file(inode, os.O_RDWR if inode.writable_on_host() else os.O_RDONLY)
            if len(self.file_fds) >= _CACHED_FDS:
                os.close(self.file_fds.pop(next(iter(self.file_fds))))
        self.file_fds[inode.i_ino] = fd
        return fd

    def close(self) -> None:
        """Give the host its descriptors back; they are reopened on demand."""
        for fd in self.file_fds.values():
            os.close(fd)
        self.file_fds.clear()
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1

    def __del__(self) -> None:
        self.close()

    def inode_of(self, found: os.stat_result, parent: HostInode, name: bytes) -> HostInode:
        """The inode for what lstat found at parent/name."""
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            known = self.by_host_id.get(key)
            if known is not None:
                known.aliases.append((parent, name))
                return known
            inode = HostInode(self, found, parent, name)
            self.by_host_id[key] = inode
            return inode
        return HostInode(self, found, parent, name)


class HostBacking:
    """The host's content of a file: mm/shmem.py's `backing`."""

    def __init__(self, inode: HostInode, size: int) -> None:
        self.inode = inode
        self.size = size  # bytes, at the time of lookup
        self.kept: bytes | None = None  # the content, once the host file is about to lose its last name

    def keep(self) -> None:
        """Take the content into memory."""
        self.kept = self.read(0, self.size)

    def read(self, offset: int, count: int) -> bytes:
        """The host's bytes; zeroes where the host file has shrunk or gone since."""
        count = max(min(count, self.size - offset), 0)
        if self.kept is not None:
            return self.kept[offset : offset + count]
        try:
            data = os.pread(self.inode.i_sb.file_fd(self.inode), count, offset)
            while len(data) < count:
                more = os.pread(self.inode.i_sb.file_fd(self.inode), count - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError:
            data = b""
        return data.ljust(count, b"\0")


class HostInode(TmpfsInode):
    """An inode that was found on the host."""

    i_sb: HostSuper

    def __init__(self, sb: HostSuper, found: os.stat_result, parent: HostInode | None, name: bytes) -> None:
        self.host_parent: HostInode | None = parent
        self.host_name = name  # below host_parent; changes when a rename is written through
        self.host_id = (found.st_dev, found.st_ino)
        self.aliases: list[tuple[HostInode, bytes]] = []  # more names of the same file
        self.host_size = found.st_size
        self.backing: HostBacking | None = None
        self.loaded = False  # directory: every host name has been looked up
        self.gone: set[bytes] = set()  # directory: host names the guest removed
        self.added: set[bytes] = set()  # directory: names the guest made
        mine = found.st_uid == os.geteuid()
        super().__init__(sb, found.st_mode, 0 if mine else found.st_uid, 0 if mine else found.st_gid)
        self.i_nlink = found.st_nlink
        self.i_rdev = new_decode_dev(found.st_rdev) if found.st_rdev else 0
        self.i_atime, self.i_mtime, self.i_ctime = found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
        self.counted = False  # directory: dir_size counts the host's names too
        self.count_links = found.st_nlink < 2  # directory: the host does not tell how many folders are in it
        if stat.S_ISDIR(found.st_mode) and self.count_links:
            self.i_nlink = 2

    def make_mapping(self) -> None:
        self.backing = HostBacking(self, self.host_size)
        self.i_mapping = new_shmem_mapping(self.i_sb.kernel.system, self, self.backing, sbinfo=self.i_sb.held)

    # names

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        if len(name) > NAME_MAX:
            raise Errno(errno.ENAMETOOLONG)
        if self.loaded or name in self.gone or name in (b"", b".", b"..") or b"/" in name:
            return None
        try:
            fd = self.i_sb.open_dir(self)
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                return self.attach(parent, name, found, fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise Errno(error.errno or errno.EIO) from None

    def attach(self, parent: Dentry, name: bytes, found: os.stat_result, dir_fd: int) -> Dentry:
        """Make the dentry of a host entry. Raises OSError."""
        inode = self.i_sb.inode_of(found, self, name)
        if stat.S_ISLNK(found.st_mode) and not inode.target:
            inode.target = os.readlink(name, dir_fd=dir_fd)
        if stat.S_ISDIR(found.st_mode) and self.count_links:
            self.i_nlink += 1
        entry = Dentry(name, parent, inode)
        parent.d_children[name] = entry
        return entry

    def load(self, parent: Dentry) -> None:
        """Look up every host name, in sorted order: the host's own order is not reproducible."""
        if self.loaded:
            return
        try:
            fd = self.i_sb.open_dir(self)
        except OSError as error:
            raise Errno(error.errno or errno.EIO) from None
        fresh: dict[bytes, Dentry] = {}
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                if name in self.gone or name in parent.d_children:
                    continue
                try:
                    fresh[name] = self.attach(parent, name, os.stat(name, dir_fd=fd, follow_symlinks=False), fd)
                except OSError:
                    continue  # vanished meanwhile
        finally:
            os.close(fd)
        self.loaded = True

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        self.load(parent)
        for name, child in sorted(parent.d_children.items()):
            yield name, child.d_inode.i_ino, child.d_inode.i_mode

    def getattr(self) -> None:
        """The size of a folder counts its names, as tmpfs's does."""
        if not self.counted and self.is_dir():
            self.counted = True
            names: set[bytes] = set()
            self.on_host(lambda fd: names.update(map(os.fsencode, os.listdir(fd))))
            self.dir_size = BOGO_DIRENT_SIZE * (2 + len(names - self.gone | self.added))

    def add(self, parent: Dentry, name: bytes, inode: Inode) -> Dentry:
        self.added.add(name)
        return super().add(parent, name, inode)

    def is_empty_dir(self, entry: Dentry) -> bool:
        self.load(entry)
        return not entry.d_children

    def drop(self, parent: Dentry, entry: Dentry) -> None:
        super().drop(parent, entry)
        self.gone.add(entry.d_name)
        self.added.discard(entry.d_name)

    def rename(self, old: Dentry, new_parent: Dentry, new_name: bytes, target: Dentry | None, exchange: bool) -> None:
        new_dir = new_parent.d_inode
        if target is not None and target.d_inode.is_dir() and not exchange and not target.d_inode.is_empty_dir(target):
            raise Errno(errno.ENOTEMPTY)
        if self.i_sb.rw:
            self.rename_on_host(old, new_dir, new_name, target, exchange)
        super().rename(old, new_parent, new_name, target, exchange)
        if isinstance(new_dir, HostInode):
            new_dir.added.add(new_name)

    # writing through (rw): the host first, so that what it refuses is refused here

    def writable_on_host(self) -> bool:
        """Whether changes of this inode's content go to the host."""
        return self.i_sb.rw and bool(self.i_nlink) and self.host_parent is not None

    def on_host(self, action: Callable[[int], object]) -> None:
        """Run `action` with a descriptor of this directory. Raises Errno with the host's reason."""
        try:
            fd = self.i_sb.open_dir(self)
            try:
                action(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise Errno(error.errno or errno.EIO) from None

    def adopt(self, parent: Dentry, name: bytes) -> Dentry:
        """The entry for a file just made on the host."""
        self.gone.discard(name)
        loaded, self.loaded = self.loaded, False
        entry = self.lookup(parent, name)
        self.loaded = loaded
        if entry is None:
            raise Errno(errno.EIO)
        self.dir_size += BOGO_DIRENT_SIZE
        self.touch()
        return entry

    def create(self, parent: Dentry, name: bytes, mode: int, task: Task, rdev: int = 0) -> Dentry:
        if not self.i_sb.rw or mode & S_IFMT != S_IFREG:
            return super().create(parent, name, mode, task, rdev)

        def make(fd: int) -> None:
            new = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _FILE_FLAGS, 0o600, dir_fd=fd)
            os.fchmod(new, mode & 0o777)
            os.close(new)

        self.on_host(make)
        return self.adopt(parent, name)

    def mkdir(self, parent: Dentry, name: bytes, mode: int, task: Task) -> Dentry:
        if not self.i_sb.rw:
            return super().mkdir(parent, name, mode, task)

        def make(fd: int) -> None:
            os.mkdir(name, 0o700, dir_fd=fd)
            new = os.open(name, _DIR_FLAGS, dir_fd=fd)
            os.fchmod(new, mode & 0o1777)
            os.close(new)

        self.on_host(make)
        return self.adopt(parent, name)

    def symlink(self, parent: Dentry, name: bytes, target: bytes, task: Task) -> Dentry:
        if not self.i_sb.rw:
            return super().symlink(parent, name, target, task)
        self.on_host(lambda fd: os.symlink(target, name, dir_fd=fd))
        return self.adopt(parent, name)

    def link(self, parent: Dentry, name: bytes, old: Dentry) -> Dentry:
        inode = old.d_inode
        if self.i_sb.rw and isinstance(inode, HostInode) and inode.host_parent is not None:
            source = inode.host_parent
            self.on_host(
                lambda fd: source.on_host(
                    lambda src: os.link(inode.host_name, name, src_dir_fd=src, dst_dir_fd=fd, follow_symlinks=False)
                )
            )
            inode.aliases.append((self, name))
        return super().link(parent, name, old)

    def unlink(self, parent: Dentry, entry: Dentry) -> None:
        if self.i_sb.rw and isinstance(entry.d_inode, HostInode):
            entry.d_inode.lose_name(self, entry.d_name)
            self.on_host(lambda fd: os.unlink(entry.d_name, dir_fd=fd))
        super().unlink(parent, entry)

    def lose_name(self, parent: HostInode, name: bytes) -> None:
        """One of this file's host names is about to go: reach it by another, or keep what is still open."""
        if (self.host_parent, self.host_name) == (parent, name):
            if self.aliases:
                self.host_parent, self.host_name = self.aliases.pop()
            elif self.i_opens and self.backing is not None:
                self.backing.keep()
        elif (parent, name) in self.aliases:
            self.aliases.remove((parent, name))

    def rmdir(self, parent: Dentry, entry: Dentry) -> None:
        if not entry.d_inode.is_empty_dir(entry):
            raise Errno(errno.ENOTEMPTY)
        if self.i_sb.rw and isinstance(entry.d_inode, HostInode):
            self.on_host(lambda fd: os.rmdir(entry.d_name, dir_fd=fd))
        super().rmdir(parent, entry)

    def rename_on_host(
        self, old: Dentry, new_dir: Inode, new_name: bytes, target: Dentry | None, exchange: bool
    ) -> None:
        """The host's half of rename. Raises EXDEV out of what the host has, EINVAL for an exchange."""
        inode = old.d_inode
        if exchange:
            raise Errno(errno.EINVAL)
        if not isinstance(new_dir, HostInode):
            raise Errno(errno.EXDEV)
        into = new_dir
        if target is not None and isinstance(target.d_inode, HostInode):
            target.d_inode.lose_name(into, new_name)
            if not isinstance(inode, HostInode):
                into.on_host(lambda fd: os.unlink(new_name, dir_fd=fd))
        if isinstance(inode, HostInode):
            name = old.d_name
            into.on_host(lambda fd: self.on_host(lambda src: os.rename(name, new_name, src_dir_fd=src, dst_dir_fd=fd)))
            if (inode.host_parent, inode.host_name) == (self, name):
                inode.host_parent, inode.host_name = into, new_name
            elif (self, name) in inode.aliases:
                inode.aliases[inode.aliases.index((self, name))] = (into, new_name)
            into.gone.discard(new_name)

    # content and attributes

    def write_data(self, task: Task, pos: int, data: bytes) -> int:
        done = super().write_data(task, pos, data)
        if self.writable_on_host():
            self.file_on_host(lambda fd: os.pwrite(fd, data[:done], pos))
        return done

    def truncate(self, size: int) -> None:
        if self.writable_on_host():
            self.file_on_host(lambda fd: os.ftruncate(fd, size))
        super().truncate(size)

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        super().fallocate(task, mode, offset, length)
        self.shared_writable = True
        self.writeback()

    def file_on_host(self, action: Callable[[int], object]) -> None:
        """Run `action` with a descriptor of this file. Raises Errno with the host's reason."""
        try:
            action(self.i_sb.file_fd(self))
        except OSError as error:
            raise Errno(error.errno or errno.EIO) from None

    def setattr(self, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        if mode is not None and self.i_sb.rw and not self.is_lnk():
            wanted = mode & 0o1777
            if self.is_dir():
                self.on_host(lambda fd: os.fchmod(fd, wanted))
            elif self.writable_on_host():
                self.file_on_host(lambda fd: os.fchmod(fd, wanted))
        super().setattr(mode, uid, gid)

    def set_times(self, atime: int | None, mtime: int | None) -> None:
        super().set_times(atime, mtime)
        if self.is_reg() and self.writable_on_host():
            self.file_on_host(lambda fd: os.utime(fd, ns=(self.i_atime, self.i_mtime)))

    def writeback(self) -> None:
        """Give the host what the guest stored through shared mappings."""
        mapping = self.i_mapping
        if not self.shared_writable or mapping is None or not self.writable_on_host():
            return
        system = self.i_sb.kernel.system
        size, shift = mapping.i_size, system.arch.page_shift

        def write(fd: int) -> None:
            os.ftruncate(fd, size)
            for index, page in mapping.pages.items():
                start = page.pfn << shift
                end = start + min(1 << shift, size - (index << shift))
                if end > start:
                    os.pwrite(fd, system.ram[start:end], index << shift)

        self.file_on_host(write)

    def evict(self) -> None:
        fd = self.i_sb.file_fds.pop(self.i_ino, -1)
        if fd >= 0:
            os.close(fd)
        super().evict()
