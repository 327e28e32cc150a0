"""Descriptor tables (struct files_struct, fs/file.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import fput
from guest.vfs_flags import FMODE_PATH
from mm.errors import Errno
from mm.flags import RLIMIT_NOFILE

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.task import Task

_NR_OPEN_DEFAULT = 64
_FDTABLE_STEP = 128  # 1024 / sizeof(struct file *)
SYSCTL_NR_OPEN, SYSCTL_NR_OPEN_MIN = 1024 * 1024, 64
_LARGE = 4096  # slots of a table whose memory is looked at
_SLOT_BYTES, _MEMORY_SHARE = 8, 8  # large tables may take an eighth of the machine's memory


def _check_memory(kernel: Kernel, slots: int) -> None:
    """Whether there is memory for so many more slots of large tables. Raises ENOMEM."""
    tables = {id(task.files): len(task.files.fd) for task in kernel.tasks.values() if task.files is not None}
    slots += sum(length for length in tables.values() if length > _LARGE)
    system = kernel.system
    if slots * _SLOT_BYTES > system.totalram_pages * system.page_size // _MEMORY_SHARE:
        raise Errno(errno.ENOMEM)


def nr_open(kernel: Kernel) -> int:
    """fs.nr_open: no descriptor, and no RLIMIT_NOFILE, is above it."""
    limit: int = kernel.sysctls.get("nr_open", SYSCTL_NR_OPEN)
    return limit


class FilesStruct:
    """Open files by descriptor, possibly shared by several tasks (`count`)."""

    def __init__(self) -> None:
        self.fd: list[OpenFile | None] = []
        self.close_on_exec_fds: set[int] = set()
        self.max_fds = _NR_OPEN_DEFAULT  # slots the kernel would have allocated (FDSize)
        self.count = 1
        self.next_fd = 0  # no free descriptor below

    def get_raw(self, fd: int) -> OpenFile:
        """fget_raw(): the open file, O_PATH or not. Raises EBADF."""
        if 0 <= fd < len(self.fd):
            file = self.fd[fd]
            if file is not None:
                return file
        raise Errno(errno.EBADF)

    def get(self, fd: int) -> OpenFile:
        """fget(): an open file that is more than a place. Raises EBADF."""
        if 0 <= fd < len(self.fd):
            file = self.fd[fd]
            if file is not None and not file.f_mode & FMODE_PATH:
                return file
        raise Errno(errno.EBADF)

    def unused(self, task: Task, start: int = 0) -> int:
        """__alloc_fd(): the lowest free descriptor from `start` on. Raises EMFILE."""
        fd = max(start, self.next_fd)
        table = self.fd
        while fd < len(table) and table[fd] is not None:
            fd += 1
        if start <= self.next_fd:
            self.next_fd = fd
        if fd >= task.rlim[RLIMIT_NOFILE][0]:
            raise Errno(errno.EMFILE)
        if fd >= SYSCTL_NR_OPEN_MIN:
            self.expand(task, fd)
        return fd

    def expand(self, task: Task, fd: int) -> None:
        """expand_files(): make room for `fd`. Raises EMFILE beyond fs.nr_open, ENOMEM."""
        if fd < self.max_fds:
            return
        most = nr_open(task.kernel)
        if fd >= most:
            raise Errno(errno.EMFILE)
        if fd >= _LARGE:
            _check_memory(task.kernel, fd + 1 - len(self.fd))
        self._grow(fd)
        self.max_fds = min(self.max_fds, (most - 1 | 63) + 1)

    def _grow(self, fd: int) -> None:
        """alloc_fdtable(): the slots of a table that has room for `fd`."""
        slots = fd // _FDTABLE_STEP
        self.max_fds = (1 << slots.bit_length()) * _FDTABLE_STEP

    def install(self, fd: int, file: OpenFile, cloexec: bool) -> int:
        """fd_install(): give `file` (its reference is taken over) the descriptor `fd`."""
        if fd >= len(self.fd):
            self.fd.extend([None] * (fd + 1 - len(self.fd)))
        if fd >= self.max_fds:
            self._grow(fd)
        self.fd[fd] = file
        if cloexec:
            self.close_on_exec_fds.add(fd)
        else:
            self.close_on_exec_fds.discard(fd)
        return fd

    def add(self, task: Task, file: OpenFile, cloexec: bool = False) -> int:
        """The lowest free descriptor for `file`. Raises EMFILE; the file is released then."""
        try:
            return self.install(self.unused(task), file, cloexec)
        except Errno:
            fput(file)
            raise

    def take(self, fd: int) -> OpenFile:
        """Empty a slot; the caller has the reference. Raises EBADF."""
        file = self.get_raw(fd)
        self.fd[fd] = None
        self.close_on_exec_fds.discard(fd)
        if fd < self.next_fd:
            self.next_fd = fd
        return file

    def close(self, fd: int, task: Task | None = None) -> None:
        """Raises EBADF."""
        file = self.take(fd)
        filp_close(file, self, task)

    def open_fds(self) -> list[int]:
        """Descriptors in use, ascending."""
        return [fd for fd, file in enumerate(self.fd) if file is not None]

    def check_copy(self, kernel: Kernel) -> None:
        """Raises EMFILE when fs.nr_open does not allow a second table as large as this one (dup_fd()); ENOMEM."""
        if len(self.fd) > SYSCTL_NR_OPEN_MIN:
            limit = (nr_open(kernel) - 1 | 63) + 1
            if len(self.fd) > limit and max(self.open_fds()) >= limit:
                raise Errno(errno.EMFILE)
            if len(self.fd) > _LARGE:
                _check_memory(kernel, len(self.fd))

    def copy(self) -> FilesStruct:
        """dup_fd(): a child's own table of the same open files."""
        new = FilesStruct()
        new.fd = list(self.fd)
        new.close_on_exec_fds = set(self.close_on_exec_fds)
        new.max_fds = self.max_fds
        new.next_fd = self.next_fd
        for file in new.fd:
            if file is not None:
                file.f_count += 1
        return new

    def close_on_exec(self, task: Task | None = None) -> None:
        """do_close_on_exec()."""
        for fd in sorted(self.close_on_exec_fds):
            self.close(fd, task)

    def close_all(self, task: Task | None = None) -> None:
        """put_files_struct(): one task less; the last one closes every descriptor."""
        self.count -= 1
        if self.count == 0:
            for fd in self.open_fds():
                self.close(fd, task)


def filp_close(file: OpenFile, files: FilesStruct, task: Task | None) -> None:
    """Flush, drop the table's POSIX locks, drop the reference."""
    file.flush(task)
    if file.f_inode.i_flctx is not None:
        file.f_inode.i_flctx.remove_posix(files)
    fput(file)
