"""Copies inside the kernel and files without a name: sendfile, copy_file_range, eventfd, memfd (fs/*, mm/memfd.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import MemoryFile, OpenFile
from guest.sched import Restart, WaitQueue, sleep_on
from guest.sys_file import readable, rw_verify_area, writable, write_checks
from guest.syscalls import FULL, Call
from guest.tmpfs import TmpfsInode
from guest.tty import anonymous_path
from guest.vfs_flags import (
    FMODE_LSEEK,
    FMODE_PREAD,
    FMODE_PWRITE,
    O_APPEND,
    O_CLOEXEC,
    O_LARGEFILE,
    O_NONBLOCK,
    O_RDWR,
    POLLERR,
    POLLIN,
    POLLOUT,
    S_IFREG,
    s32,
    s64,
)
from guest.vfs_types import Inode
from mm.errors import Errno
from mm.shmem import F_SEAL_SEAL
from mm.uaccess import get_user, put_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

_CHUNK = 1 << 16
_U64_MAX = (1 << 64) - 1
EFD_SEMAPHORE = 1
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_HUGETLB = 1, 2, 4
MFD_HUGE_MASK = 0x3F << 26
MFD_NAME_MAX_LEN = 255 - len("memfd:")


# sendfile and copy_file_range


def copy_between(task: Task, source: OpenFile, pos: int, sink: OpenFile, out_pos: int, count: int) -> int:
    """Move up to `count` bytes from a file to a file; how many. Sleeps for a stream that is full."""
    done: int = task.wait_state.get("done", 0)
    while done < count:
        data = source.read(task, pos + done, min(count - done, _CHUNK))
        if not data:
            break
        try:
            moved = sink.write(task, out_pos + done, data)
        except (Errno, Restart):
            if done:
                break
            raise
        done += moved
        if source.stream:
            source.consume(moved)
        if sink.stream:
            task.wait_state["done"] = done
        elif moved < len(data):
            break
    return done


def sys_sendfile(task: Task, out_fd: int, in_fd: int, offset: int, count: int) -> int:
    """sendfile(2)."""
    source = readable(task, in_fd)
    pos = source.f_pos if not source.stream else 0
    if offset:
        pos = s64(get_user(task, offset, 8))
        if not source.f_mode & FMODE_PREAD:
            raise Errno(errno.ESPIPE)
    count = rw_verify_area(task, pos, count)
    sink = writable(task, out_fd)
    if not source.f_mode & FMODE_LSEEK:
        raise Errno(errno.EINVAL)
    if sink.f_flags & O_APPEND:
        raise Errno(errno.EINVAL)
    out_pos, count = write_checks(task, sink, sink.f_pos, count)
    done = copy_between(task, source, pos, sink, out_pos, count)
    if not sink.stream:
        sink.f_pos = out_pos + done
    if offset:
        put_user(task, offset, pos + done, 8)
    else:
        source.f_pos = pos + done
    return done


def sys_copy_file_range(task: Task, in_fd: int, off_in: int, out_fd: int, off_out: int, count: int, flags: int) -> int:
    """copy_file_range(2)."""
    source: OpenFile = task.files.get(s32(in_fd))
    sink: OpenFile = task.files.get(s32(out_fd))
    pos = s64(get_user(task, off_in, 8)) if off_in else source.f_pos
    out_pos = s64(get_user(task, off_out, 8)) if off_out else sink.f_pos
    if flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    if source.f_inode.is_dir() or sink.f_inode.is_dir():
        raise Errno(errno.EISDIR)
    if not source.f_inode.is_reg() or not sink.f_inode.is_reg():
        raise Errno(errno.EINVAL)
    if not source.f_mode & 1 or not sink.f_mode & 2 or sink.f_flags & O_APPEND:
        raise Errno(errno.EBADF)
    if source.f_inode.i_sb is not sink.f_inode.i_sb:
        raise Errno(errno.EXDEV)
    count = min(count, max(source.f_inode.i_size - pos, 0))
    if source.f_inode is sink.f_inode and out_pos + count > pos and out_pos < pos + count:
        raise Errno(errno.EINVAL)
    rw_verify_area(task, pos, count)
    count = rw_verify_area(task, out_pos, count)
    if not count:
        return 0
    out_pos, count = write_checks(task, sink, out_pos, count)
    done = copy_between(task, source, pos, sink, out_pos, count)
    if off_in:
        put_user(task, off_in, pos + done, 8)
    else:
        source.f_pos = pos + done
    if off_out:
        put_user(task, off_out, out_pos + done, 8)
    else:
        sink.f_pos = out_pos + done
    return done


# eventfd


class EventFile(OpenFile):
    """A counter to wait on (fs/eventfd.c)."""

    has_read_iter = True

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, count: int, semaphore: bool) -> None:
        super().__init__(path, inode, flags)
        self.counter = count
        self.semaphore = semaphore
        self.queue = WaitQueue("eventfd")

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if count < 8:
            raise Errno(errno.EINVAL)
        if not self.counter:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, self.queue)
        return (1 if self.semaphore else self.counter).to_bytes(8, "little")

    def consume(self, count: int) -> None:
        self.counter -= 1 if self.semaphore else self.counter
        self.queue.wake_all(POLLOUT)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if len(data) < 8:
            raise Errno(errno.EINVAL)
        value = int.from_bytes(data[:8], "little")
        if value == _U64_MAX:
            raise Errno(errno.EINVAL)
        if _U64_MAX - self.counter <= value:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, self.queue)
        self.counter += value
        self.queue.wake_all(POLLIN)
        return len(data)

    def poll(self, task: Task) -> int:
        mask = POLLIN if self.counter else 0
        if self.counter == _U64_MAX:
            mask |= POLLERR
        return mask | (POLLOUT if self.counter < _U64_MAX - 1 else 0)

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.queue,)

    def show_fdinfo(self, sb: Any) -> str:
        return f"eventfd-count: {self.counter:16x}\neventfd-id: {self.f_inode.i_ino}\n"


def sys_eventfd2(task: Task, count: int, flags: int) -> int:
    """eventfd2(2)."""
    flags = task.kernel.vfs.abi.flags_in(flags & 0xFFFFFFFF)
    if flags & ~(O_CLOEXEC | O_NONBLOCK | EFD_SEMAPHORE):
        raise Errno(errno.EINVAL)
    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    path = anonymous_path(sb, inode, b"anon_inode:[eventfd]")
    file = EventFile(path, inode, O_RDWR | flags & O_NONBLOCK, count & 0xFFFFFFFF, bool(flags & EFD_SEMAPHORE))
    fd: int = task.files.add(task, file, bool(flags & O_CLOEXEC))
    return fd


def sys_eventfd(task: Task, count: int) -> int:
    """eventfd(2)."""
    return sys_eventfd2(task, count, 0)


# memfd


def sys_memfd_create(task: Task, name: int, flags: int) -> int:
    """memfd_create(2). Raises EINVAL, and ENODEV for a size of huge pages there is not."""
    flags &= 0xFFFFFFFF
    huge_flags = MFD_HUGETLB | MFD_HUGE_MASK if flags & MFD_HUGETLB else 0
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | huge_flags):
        raise Errno(errno.EINVAL)
    text = strncpy_from_user(task, name, MFD_NAME_MAX_LEN + 1)
    if len(text) > MFD_NAME_MAX_LEN:
        raise Errno(errno.EINVAL)
    if flags & MFD_HUGETLB:
        from guest.hugetlbfs import memfd_hugetlb

        file = memfd_hugetlb(task, text, flags >> 26)
    else:
        vfs = task.kernel.vfs
        inode = TmpfsInode(vfs.shmfs, S_IFREG | 0o777, task.cred.fsuid, task.cred.fsgid)
        inode.i_nlink = 0
        path = anonymous_path(vfs.shmfs, inode, b"/memfd:" + text + b" (deleted)")
        file = MemoryFile(path, inode, O_RDWR | O_LARGEFILE)
        file.f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE
    if flags & MFD_ALLOW_SEALING:
        file.f_mapping.private.seals &= ~F_SEAL_SEAL
    fd: int = task.files.add(task, file, bool(flags & MFD_CLOEXEC))
    return fd


CALLS = (
    Call("sendfile", sys_sendfile, FULL, ""),
    Call("copy_file_range", sys_copy_file_range, FULL, "within one file system, as Linux 5.10"),
    Call("eventfd2", sys_eventfd2, FULL, ""),
    Call("eventfd", sys_eventfd, FULL, ""),
    Call("memfd_create", sys_memfd_create, FULL, ""),
)
