"""Open files (struct file and struct file_operations): what every kind shares, directories, and regular files.

A kind overrides `read`, `write`, `poll` and so on; system calls (sys_file*.py) do the rest: descriptor, position, copy
from and to the guest, restart. Stream kinds (pipes, terminals; `stream = True`) have no position: `read` shows what is
there and `consume` takes it, so that data survives a bad buffer.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.vfs_flags import (
    DEFAULT_POLLMASK,
    FASYNC,
    FMODE_LSEEK,
    FMODE_PATH,
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    FMODE_WRITE,
    FMODE_WRITER,
    MAX_LFS_FILESIZE,
    MAY_WRITE,
    O_ACCMODE,
    O_NOATIME,
    O_PATH,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from guest.vfs_types import MNT_NOATIME, MNT_NOEXEC
from mm.errors import Errno
from mm.flags import VM_MAYWRITE, VM_SHARED
from mm.shmem import shmem_mmap, shmem_read, shmem_seek
from mm.types import AddressSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.fasync import FOwner
    from guest.task import Task
    from guest.tmpfs import TmpfsInode
    from guest.vfs_types import Dentry, Inode, Path
    from mm.types import VmAreaStruct


class OpenFile:
    """An open file (struct file). Implements mm.types.File."""

    stream = False
    can_mmap = False  # whether this kind has f_op->mmap
    can_fasync = False  # whether this kind has f_op->fasync
    has_read_iter = has_write_iter = has_fsync = False  # whether it has these f_op: what asynchronous I/O needs
    f_ep_links: Any = ()  # epoll items that watch this file
    fmode = FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE  # abilities of this kind

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        self.f_path = path
        self.f_inode = inode
        self.f_flags = flags
        self.f_mode = (flags + 1) & O_ACCMODE | self.fmode
        if flags & O_PATH:
            self.f_mode = FMODE_PATH
        self.f_count = 1
        inode.i_opens += 1
        self.f_pos = 0
        self.f_mapping: AddressSpace = inode.i_mapping if inode.i_mapping is not None else AddressSpace(None, inode)
        self.f_owner: FOwner | None = None  # F_SETOWN
        self.f_sig = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.d_path()}>"

    # what mm/ and exec ask

    def d_path(self) -> str:
        """Absolute path in the guest, ' (deleted)' appended when unlinked."""
        vfs = self.f_inode.i_sb.kernel.vfs
        path: bytes = vfs.d_path(self.f_path, None)
        return path.decode("utf-8", "surrogateescape")

    def owner_or_writable(self, task: Task) -> bool:
        """Whether `task` owns the file or could open it for writing: then its cached pages are the task's business."""
        from guest.namei import inode_permission, owner_or_capable

        if owner_or_capable(task, self.f_inode):
            return True
        try:
            inode_permission(task, self.f_inode, MAY_WRITE)
        except Errno:
            return False
        return True

    def mmap(self, vma: VmAreaStruct) -> None:
        """f_op->mmap. Raises ENODEV: this kind cannot be mapped."""
        raise Errno(errno.ENODEV)

    def read_at(self, offset: int, count: int) -> bytes:
        """kernel_read(): up to `count` bytes at `offset`, no position, no access time."""
        raise Errno(errno.EINVAL)

    def deny_write_access(self) -> None:
        """Make opening for writing fail with ETXTBSY. Raises ETXTBSY when somebody writes already."""
        if self.f_inode.i_writecount > 0:
            raise Errno(errno.ETXTBSY)
        self.f_inode.i_writecount -= 1

    def allow_write_access(self) -> None:
        """Undo deny_write_access()."""
        self.f_inode.i_writecount += 1

    # operations

    def read(self, task: Task, pos: int, count: int) -> bytes:
        """Up to `count` bytes (at `pos` unless a stream); b'' at the end. May sleep."""
        raise Errno(errno.EINVAL)

    def consume(self, count: int) -> None:
        """Streams: `count` bytes of the last read() have reached the guest."""

    def write(self, task: Task, pos: int, data: bytes) -> int:
        """Write some of `data` (at `pos` unless a stream); how much. May sleep."""
        raise Errno(errno.EINVAL)

    def write_pos(self, pos: int) -> int:
        """Where a write that asks for `pos` goes (O_APPEND)."""
        return pos

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """The new position (generic_file_llseek with the inode's size)."""
        return self.seek_within(offset, whence, self.f_inode.i_size)

    def seek_within(self, offset: int, whence: int, size: int) -> int:
        """generic_file_llseek_size(): set and return f_pos. Raises EINVAL, ENXIO, EOVERFLOW."""
        if whence == SEEK_END:
            offset += size
        elif whence == SEEK_CUR:
            offset += self.f_pos
        elif whence in (SEEK_DATA, SEEK_HOLE):
            if offset < 0 or offset >= size:
                raise Errno(errno.ENXIO)
            if whence == SEEK_HOLE:
                offset = size
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        if offset < 0 or offset > MAX_LFS_FILESIZE:
            raise Errno(errno.EINVAL)
        self.f_pos = offset
        return offset

    def iterate(self, task: Task) -> Iterator[tuple[bytes, int, int, int]]:
        """Directory entries from f_pos on: (name, inode number, mode, position behind it). Raises ENOTDIR."""
        raise Errno(errno.ENOTDIR)

    def poll(self, task: Task) -> int:
        """POLL* bits that hold now."""
        return DEFAULT_POLLMASK

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        """Wait queues that are woken when poll() may change."""
        return ()

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        """unlocked_ioctl. Raises ENOTTY."""
        raise Errno(errno.ENOTTY)

    def fsync(self, datasync: bool) -> None:
        """Raises EINVAL for files that cannot be synchronized."""
        raise Errno(errno.EINVAL)

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        """Raises EOPNOTSUPP (ENODEV and the like were checked before)."""
        raise Errno(errno.EOPNOTSUPP)

    def setfl(self, flags: int) -> None:
        """fcntl(F_SETFL) changed f_flags to `flags`."""
        self.f_flags = flags

    def show_fdinfo(self, sb: Any) -> str:
        """What /proc/PID/fdinfo adds for this kind; `sb` is that /proc."""
        return ""

    def flush(self, task: Task | None) -> None:
        """A descriptor of this file was closed."""

    def release(self) -> None:
        """__fput(): called when f_count falls to 0."""
        if self.f_mode & FMODE_WRITER:
            self.f_inode.i_writecount -= 1
        for item in tuple(self.f_ep_links):
            item.remove()
        if self.f_flags & FASYNC and self.can_fasync:
            self.stop_fasync()
        self.closed()
        inode = self.f_inode
        if inode.i_flctx is not None:
            inode.i_flctx.remove_file(self)
        inode.i_opens -= 1
        if inode.i_opens == 0 and inode.i_nlink == 0:
            inode.evict()

    def fasync_lists(self) -> tuple[list[Any], ...]:
        """Where O_ASYNC enters the file, for kinds that `can_fasync`."""
        return ()

    def async_owner(self, task: Task) -> tuple[int, int] | None:
        """Whom O_ASYNC makes the owner (pid and kind) when `task` switches it on; None: nobody, F_SETOWN says it."""
        return None

    def stop_fasync(self) -> None:
        """Leave these lists."""
        for entries in self.fasync_lists():
            entries[:] = [entry for entry in entries if entry[0] is not self]

    def closed(self) -> None:
        """f_op->release of this kind."""

    @property
    def path_noexec(self) -> bool:
        """Whether nothing of it may be executed, nor mapped for that."""
        return bool(self.f_path.mnt.mnt_flags & MNT_NOEXEC)

    def accessed(self) -> None:
        """touch_atime() under relatime."""
        inode = self.f_inode
        if self.f_flags & O_NOATIME or self.f_path.mnt.mnt_readonly or self.f_path.mnt.mnt_flags & MNT_NOATIME:
            return
        now = inode.i_sb.kernel.vfs.now()
        if (
            not self.f_path.mnt.mnt_relatime
            or inode.i_atime <= inode.i_mtime
            or inode.i_atime <= inode.i_ctime
            or now - inode.i_atime >= 24 * 60 * 60 * 10**9
        ):
            inode.i_atime = now


def get_file(file: OpenFile) -> OpenFile:
    """One more reference."""
    file.f_count += 1
    return file


def fput(file: OpenFile) -> None:
    """Drop a reference; the last one releases the file."""
    file.f_count -= 1
    if file.f_count == 0:
        file.release()


class PathFile(OpenFile):
    """A file opened with O_PATH: a place, nothing to read or write."""

    fmode = 0

    def read(self, task: Task, pos: int, count: int) -> bytes:
        raise Errno(errno.EBADF)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.EBADF)


class DirFile(OpenFile):
    """An open directory whose entries are its inode's (dcache_dir_operations, proc's readdir).

    Positions: 0 is `.`, 1 is `..`, 2 + n the n-th entry. The list is taken when reading starts and entries that
    have gone since are passed over, which is what the kernel's cursor achieves.
    """

    has_fsync = True

    fmode = FMODE_LSEEK

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.entries: list[tuple[bytes, int, int]] | None = None

    def read(self, task: Task, pos: int, count: int) -> bytes:
        raise Errno(errno.EISDIR)

    def fsync(self, datasync: bool) -> None:
        return

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.f_pos
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        if offset < 0:
            raise Errno(errno.EINVAL)
        if offset != self.f_pos:
            self.entries = None
        self.f_pos = offset
        return offset

    def iterate(self, task: Task) -> Iterator[tuple[bytes, int, int, int]]:
        here: Dentry = self.f_path.dentry
        if self.f_pos == 0:
            yield b".", self.f_inode.i_ino, self.f_inode.i_mode, 1
        if self.f_pos <= 1:
            up = task.kernel.vfs.parent_inode(self.f_path)
            yield b"..", up.i_ino, up.i_mode, 2
        if self.entries is None or self.f_pos <= 2:
            self.entries = list(self.f_inode.iterate(here, task))
        for index in range(max(self.f_pos - 2, 0), len(self.entries)):
            name, ino, mode = self.entries[index]
            if self.f_inode.still_there(here, name):
                yield name, ino, mode, index + 3


class MemoryFile(OpenFile):
    """A regular file whose content is the page cache (shmem_file_operations): tmpfs, host folders, memfd."""

    has_read_iter = has_write_iter = has_fsync = True

    f_inode: TmpfsInode
    can_mmap = True

    def read_at(self, offset: int, count: int) -> bytes:
        return shmem_read(self.f_mapping, offset, count)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if not self.f_mode & FMODE_READ:
            raise Errno(errno.EBADF)
        self.accessed()
        if pos >= self.f_mapping.i_size:
            return b""
        return shmem_read(self.f_mapping, pos, count)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        return self.f_inode.write_data(task, pos, data)

    def mmap(self, vma: VmAreaStruct) -> None:
        if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_SHARED | VM_MAYWRITE:
            self.f_inode.shared_writable = True
        self.accessed()
        shmem_mmap(self, vma)

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        if whence in (SEEK_DATA, SEEK_HOLE):
            offset = shmem_seek(self.f_mapping, offset, whence)
            whence = SEEK_SET
        return self.seek_within(offset, whence, self.f_inode.i_size)

    def fsync(self, datasync: bool) -> None:
        self.f_inode.writeback()

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        self.f_inode.fallocate(task, mode, offset, length)

    def flush(self, task: Task | None) -> None:
        if self.f_mode & FMODE_WRITE:
            self.f_inode.writeback()

    def closed(self) -> None:
        self.f_inode.writeback()
