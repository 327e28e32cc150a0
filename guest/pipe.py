"""Pipes and FIFOs (fs/pipe.c): 16 slots of a page, atomic writes up to PIPE_BUF, EPIPE with SIGPIPE.

As in the kernel the buffer is a ring of pages and not of bytes: a write starts a new page unless the tail page of the
last write has room for all of the odd bytes, so a pipe can be full before it holds 64 KiB.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.fasync import POLL_IN, POLL_OUT, kill_fasync
from guest.file import OpenFile
from guest.sched import Restart, WaitQueue, sleep_on
from guest.siginfo import SI_USER, SIGPIPE, kill_info
from guest.signal import send_signal
from guest.vfs_flags import (
    FMODE_READ,
    FMODE_WRITE,
    O_ACCMODE,
    O_DIRECT,
    O_NONBLOCK,
    O_RDWR,
    O_WRONLY,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
)
from guest.vfs_types import Inode
from mm.errors import Errno
from mm.uaccess import put_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

PIPE_DEF_BUFFERS = 16
PIPE_MAX_SIZE = 1048576
FIONREAD = 0x541B


class Pipe:
    """The ring and who holds its ends (struct pipe_inode_info)."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.ring_size = PIPE_DEF_BUFFERS
        self.bufs: list[bytearray] = []
        self.head = 0  # bytes of bufs[0] already read
        self.packets = False  # O_DIRECT: each slot is a packet
        self.readers = 0
        self.writers = 0
        self.r_counter = 0  # how often an end was opened, for open() of a FIFO that waits
        self.w_counter = 0
        self.rd_wait = WaitQueue("pipe read")
        self.wr_wait = WaitQueue("pipe write")
        self.fasync_readers: list[Any] = []  # files with O_ASYNC
        self.fasync_writers: list[Any] = []

    def __len__(self) -> int:
        return sum(map(len, self.bufs)) - self.head

    def mergeable(self, count: int) -> bool:
        """Whether the odd bytes of a write go behind the last one."""
        odd = count % self.page_size
        return bool(odd and self.bufs and not self.packets and len(self.bufs[-1]) + odd <= self.page_size)

    def peek(self, count: int) -> bytes:
        """The first `count` bytes; of one packet in packet mode."""
        head = self.head
        out = self.bufs[0][head : head + count]
        if not self.packets:
            for buf in self.bufs[1:]:
                if len(out) >= count:
                    break
                out += buf[: count - len(out)]
        return bytes(out)

    def drop(self, count: int) -> None:
        """Take `count` bytes away; a packet goes as a whole."""
        if self.packets and self.bufs:
            del self.bufs[0]
            self.head = 0
        elif self.bufs:
            self.head += count
            while self.bufs and self.head >= len(self.bufs[0]):
                self.head -= len(self.bufs.pop(0))
        self.wr_wait.wake_all(POLLOUT | POLLWRNORM)

    def push(self, data: bytes) -> int:
        """As much of `data` as there is room for."""
        done = 0
        if self.mergeable(len(data)):
            done = len(data) % self.page_size
            self.bufs[-1] += data[:done]
        while done < len(data) and len(self.bufs) < self.ring_size:
            self.bufs.append(bytearray(data[done : done + self.page_size]))
            done += len(self.bufs[-1])
        return done


def send_sigpipe(task: Task) -> None:
    """send_sig(SIGPIPE, current, 0)."""
    send_signal(kill_info(SIGPIPE, SI_USER, task.vnr(task.tgid), task.cred.uid), task, False)


class PipeFile(OpenFile):
    """One end (or, for a FIFO opened O_RDWR, both)."""

    has_read_iter = has_write_iter = True

    stream = True
    can_fasync = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, pipe: Pipe) -> None:
        super().__init__(path, inode, flags)
        self.pipe = pipe
        if self.f_mode & FMODE_READ:
            pipe.readers += 1
            pipe.r_counter += 1
        if self.f_mode & FMODE_WRITE:
            pipe.writers += 1
            pipe.w_counter += 1
            pipe.packets = pipe.packets or bool(flags & O_DIRECT)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        pipe = self.pipe
        if count == 0:
            return b""
        if not pipe.bufs:
            if pipe.fasync_writers:
                self.tell(pipe.fasync_writers, POLL_OUT)
            if not pipe.writers:
                return b""
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, pipe.rd_wait)
        return pipe.peek(count)

    def consume(self, count: int) -> None:
        self.pipe.drop(count)
        if self.pipe.fasync_writers:
            self.tell(self.pipe.fasync_writers, POLL_OUT)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        pipe = self.pipe
        if not pipe.readers:
            send_sigpipe(task)
            raise Errno(errno.EPIPE)
        if not data:
            return 0
        done = pipe.push(data)
        if pipe.fasync_readers:
            self.tell(pipe.fasync_readers, POLL_IN)
        if done:
            self.f_inode.i_mtime = self.f_inode.i_ctime = task.kernel.vfs.now()
            pipe.rd_wait.wake_all(POLLIN | POLLRDNORM)
            return done
        if self.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        sleep_on(task, pipe.wr_wait)
        return 0

    def poll(self, task: Task) -> int:
        pipe, mask = self.pipe, 0
        if self.f_mode & FMODE_READ:
            if pipe.bufs:
                mask |= POLLIN | POLLRDNORM
            if not pipe.writers and pipe.w_counter:
                mask |= POLLHUP
        if self.f_mode & FMODE_WRITE:
            if len(pipe.bufs) < pipe.ring_size:
                mask |= POLLOUT | POLLWRNORM
            if not pipe.readers:
                mask |= POLLERR
        return mask

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        pipe = self.pipe
        if self.f_mode & FMODE_READ:
            return (pipe.rd_wait, pipe.wr_wait) if self.f_mode & FMODE_WRITE else (pipe.rd_wait,)
        return (pipe.wr_wait,)

    def fasync_lists(self) -> tuple[list[Any], ...]:
        pipe, mode = self.pipe, self.f_mode
        lists = (pipe.fasync_readers, FMODE_READ), (pipe.fasync_writers, FMODE_WRITE)
        return tuple(entries for entries, bit in lists if mode & bit)

    def tell(self, entries: list[Any], band: int) -> None:
        """SIGIO for the files of one end."""
        if entries:
            kill_fasync(self.f_inode.i_sb.kernel, entries, band)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd != FIONREAD:
            raise Errno(errno.ENOTTY)
        put_user(task, arg, len(self.pipe), 4)
        return 0

    def setfl(self, flags: int) -> None:
        self.f_flags = flags
        if self.f_mode & FMODE_WRITE:
            self.pipe.packets = bool(flags & O_DIRECT)

    def closed(self) -> None:
        pipe = self.pipe
        if self.f_mode & FMODE_READ:
            pipe.readers -= 1
        if self.f_mode & FMODE_WRITE:
            pipe.writers -= 1
        pipe.rd_wait.wake_all()
        pipe.wr_wait.wake_all()
        if (not pipe.readers) != (not pipe.writers):
            self.tell(pipe.fasync_readers, POLL_IN)
            self.tell(pipe.fasync_writers, POLL_OUT)
        if not pipe.readers and not pipe.writers and self.f_inode.i_pipe is pipe:
            self.f_inode.i_pipe = None


class PipeInode(Inode):
    """What pipe() makes: it has no name but /proc/PID/fd/N. Opened there, it waits for nobody (fifo_open())."""

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        pipe = self.i_pipe
        (pipe.wr_wait if flags & O_ACCMODE != O_WRONLY else pipe.rd_wait).wake_all()
        return PipeFile(path, self, flags, pipe)


def fifo_open(path: Path, inode: Inode, flags: int, task: Task) -> PipeFile:
    """Each end waits for the other. Raises ENXIO for O_WRONLY | O_NONBLOCK without a reader."""
    pipe: Pipe | None = inode.i_pipe
    if pipe is None:
        pipe = inode.i_pipe = Pipe(task.kernel.system.arch.page_size)
    access = flags & O_ACCMODE
    opened: PipeFile | None = task.wait_state.get("fifo")
    if opened is None:
        if access == O_WRONLY and flags & O_NONBLOCK and not pipe.readers:
            raise Errno(errno.ENXIO)
        opened = PipeFile(path, inode, flags, pipe)
        (pipe.wr_wait if access != O_WRONLY else pipe.rd_wait).wake_all()
        task.wait_state["fifo"] = opened
        task.wait_state["others"] = pipe.r_counter if access == O_WRONLY else pipe.w_counter
    if access != O_RDWR and not flags & O_NONBLOCK:
        write = access == O_WRONLY
        there = pipe.readers if write else pipe.writers
        seen = pipe.r_counter if write else pipe.w_counter
        if not there and seen == task.wait_state["others"]:
            try:
                sleep_on(task, pipe.wr_wait if write else pipe.rd_wait)
            except Restart:  # a signal: give the end back
                opened.f_count = 0
                opened.release()
                raise
    return opened
