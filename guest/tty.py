"""The guest's standard streams: host descriptors (terminal, pipe, file) or buffers of the machine.

A read that would block puts the task on a HostWait, so that other tasks run; output reaches the host before write()
returns. A host terminal is more than that: host_tty.py.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.pipe import FIONREAD, send_sigpipe
from guest.sched import HostWait, sleep_on
from guest.vfs_flags import (
    DEFAULT_POLLMASK,
    FMODE_LSEEK,
    FMODE_READ,
    FMODE_WRITE,
    O_NONBLOCK,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    S_IFMT,
    SEEK_CUR,
)
from guest.vfs_types import Dentry, Inode, Path, SuperBlock, new_decode_dev
from mm.errors import Errno
from mm.uaccess import put_user

if TYPE_CHECKING:
    from guest.task import Task

_STREAM_CHUNK = 1 << 16


class HostInodeStream(Inode):
    """The inode of a host descriptor: what fstat shows is the host's, the numbers are ours."""

    def __init__(self, sb: SuperBlock, fd: int) -> None:
        found = os.fstat(fd)
        super().__init__(sb, found.st_mode)
        self.host_fd = fd
        self.i_rdev = new_decode_dev(found.st_rdev) if found.st_rdev else 0
        self.size = found.st_size if stat.S_ISREG(found.st_mode) else 0

    @property
    def i_size(self) -> int:
        return self.size

    def getattr(self) -> None:
        if self.is_reg():
            self.size = os.fstat(self.host_fd).st_size

    def truncate(self, size: int) -> None:
        if not self.is_reg():
            raise Errno(errno.EINVAL)
        try:
            os.ftruncate(self.host_fd, size)
        except OSError as error:
            raise Errno(error.errno or errno.EINVAL) from None

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        return HostStream(path, self, flags, self.host_fd)


class HostStream(OpenFile):
    """A host descriptor as an open file of the guest."""

    stream = True
    can_fasync = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, fd: int) -> None:
        super().__init__(path, inode, flags)
        self.fd = fd
        self.isatty = os.isatty(fd)
        self.always_ready = stat.S_ISREG(inode.i_mode)
        if self.always_ready:
            self.f_mode |= FMODE_LSEEK
        self.left = b""  # read from the host, not yet taken by the guest
        self.read_wait = HostWait(fd)
        self.write_wait = HostWait(fd, POLLOUT)

    def ready(self, events: int) -> int:
        """Which of the host's POLL* events hold now."""
        if self.always_ready:
            return events
        poller = select.poll()
        poller.register(self.fd, events)
        found = poller.poll(0)
        return found[0][1] if found else 0

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if self.left or count == 0:
            return self.left[:count]
        if not self.ready(select.POLLIN):
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, self.read_wait)
        try:
            self.left = os.read(self.fd, min(count, _STREAM_CHUNK))
        except BlockingIOError:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN) from None
            sleep_on(task, self.read_wait)
        except OSError as error:
            raise Errno(error.errno or errno.EIO) from None
        return self.left

    def consume(self, count: int) -> None:
        self.left = self.left[count:]

    def write(self, task: Task, pos: int, data: bytes) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN) from None
        except BrokenPipeError:
            send_sigpipe(task)
            raise Errno(errno.EPIPE) from None
        except OSError as error:
            raise Errno(error.errno or errno.EIO) from None
        sleep_on(task, self.write_wait)
        return 0

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        try:
            if whence == SEEK_CUR and self.left:
                offset -= len(self.left)
            self.left = b""
            return os.lseek(self.fd, offset, whence)
        except OSError as error:
            raise Errno(error.errno or errno.ESPIPE) from None

    def poll(self, task: Task) -> int:
        found = self.ready(select.POLLIN | select.POLLOUT)
        mask = 0
        if self.f_mode & FMODE_READ and (found & select.POLLIN or self.left):
            mask |= POLLIN | POLLRDNORM
        if self.f_mode & FMODE_WRITE and found & select.POLLOUT:
            mask |= POLLOUT | POLLWRNORM
        return mask | (POLLHUP if found & select.POLLHUP else 0) | (POLLERR if found & select.POLLERR else 0)

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.read_wait,) if self.f_mode & FMODE_READ else (self.write_wait,)

    def fsync(self, datasync: bool) -> None:
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise Errno(error.errno or errno.EINVAL) from None

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == FIONREAD:
            return self.fionread(task, arg)
        raise Errno(errno.ENOTTY)

    def fionread(self, task: Task, arg: int) -> int:
        """Bytes that can be read at once."""
        import fcntl

        try:
            waiting = int.from_bytes(fcntl.ioctl(self.fd, FIONREAD, bytes(4)), "little")
        except OSError as error:
            raise Errno(error.errno or errno.ENOTTY) from None
        put_user(task, arg, waiting + len(self.left), 4)
        return 0


class BufferStream(OpenFile):
    """A standard stream that is bytes of the machine: input given in advance, output captured. Looks like a pipe."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, data: bytearray) -> None:
        super().__init__(path, inode, flags)
        self.data = data

    def read(self, task: Task, pos: int, count: int) -> bytes:
        return bytes(self.data[:count])

    def consume(self, count: int) -> None:
        del self.data[:count]

    def write(self, task: Task, pos: int, data: bytes) -> int:
        self.data += data
        return len(data)

    def poll(self, task: Task) -> int:
        if self.f_mode & FMODE_READ:
            return POLLIN | POLLRDNORM if self.data else POLLHUP
        return DEFAULT_POLLMASK & (POLLOUT | POLLWRNORM)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd != FIONREAD:
            raise Errno(errno.ENOTTY)
        put_user(task, arg, len(self.data), 4)
        return 0


class BufferInode(Inode):
    """The inode of a BufferStream, so that /proc/self/fd/N and /dev/stdin can be opened again."""

    def __init__(self, sb: SuperBlock, mode: int, data: bytearray) -> None:
        super().__init__(sb, mode)
        self.data = data

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        return BufferStream(path, self, flags, self.data)


def anonymous_path(sb: SuperBlock, inode: Inode, name: bytes) -> Path:
    """A place outside every tree that shows as `name`."""
    dentry = Dentry(name, None, inode)
    dentry.d_dname = name
    return Path(sb.kernel.vfs.internal_mount(sb), dentry)


def host_stream(sb: SuperBlock, fd: int, flags: int) -> OpenFile:
    """The open file for a host descriptor. Raises OSError when it is closed."""
    inode = HostInodeStream(sb, fd)
    kind = inode.i_mode & S_IFMT
    if kind == stat.S_IFCHR:
        name = b"/dev/null"
    else:
        name = b"%s:[%d]" % ({stat.S_IFIFO: b"pipe", stat.S_IFSOCK: b"socket"}.get(kind, b"file"), inode.i_ino)
    return HostStream(anonymous_path(sb, inode, name), inode, flags, fd)
