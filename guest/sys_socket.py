"""socketpair(2) and what a connected AF_UNIX pair answers (net/socket.c, net/unix/af_unix.c).

Names, connections and messages with descriptors are not here: no other socket call is served, and none can reach
outside the guest.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.pipe import FIONREAD, send_sigpipe
from guest.sched import WaitQueue, sleep_on
from guest.syscalls import FULL, PARTIAL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import (
    O_CLOEXEC,
    O_NONBLOCK,
    O_RDWR,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRNORM,
    S_IFSOCK,
    s32,
)
from guest.vfs_types import Inode
from mm.errors import Errno
from mm.uaccess import copy_to_user, put_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

AF_UNIX = 1
NPROTO = 46  # include/linux/socket.h: AF_MAX
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_MAX = 1, 2, 3, 5, 11
SOCK_TYPE_MASK = 0xF
RCV_SHUTDOWN, SEND_SHUTDOWN = 1, 2
SNDBUF = 212992  # net.core.wmem_default
SKB_OVERHEAD = 576  # struct sk_buff and skb_shared_info: what each message takes of SNDBUF besides its bytes


class SocketFile(OpenFile):
    """One end of a pair (struct unix_sock). `queue` holds what the peer sent."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, kind: int) -> None:
        super().__init__(path, inode, flags)
        self.kind = kind
        self.peer: SocketFile | None = None
        self.queue: list[bytearray] = []
        self.shutdown = 0
        self.sk_err = 0
        self.wait = WaitQueue("socket")

    def take_error(self) -> None:
        """sock_error(): an error is reported once."""
        if self.sk_err:
            error, self.sk_err = self.sk_err, 0
            raise Errno(error)

    def room(self) -> int:
        """Bytes of the send buffer that are not in the peer's queue."""
        held = sum(len(message) + SKB_OVERHEAD for message in self.peer.queue) if self.peer else 0
        return SNDBUF - held

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if self.queue:
            if self.kind != SOCK_STREAM:
                return bytes(self.queue[0][:count])
            out = bytearray()
            for message in self.queue:
                out += message[: count - len(out)]
                if len(out) >= count:
                    break
            return bytes(out)
        if count == 0 and self.kind == SOCK_STREAM:
            return b""
        self.take_error()
        if self.shutdown & RCV_SHUTDOWN and (self.kind != SOCK_DGRAM or not self.f_flags & O_NONBLOCK):
            return b""
        if self.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        sleep_on(task, self.wait)
        return b""

    def consume(self, count: int) -> None:
        if self.kind != SOCK_STREAM:
            del self.queue[:1]  # what did not fit is lost
        while count and self.queue and self.kind == SOCK_STREAM:
            taken = min(count, len(self.queue[0]))
            del self.queue[0][:taken]
            count -= taken
            if not self.queue[0]:
                del self.queue[0]
        if self.peer is not None:
            self.peer.wait.wake_all()

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if self.kind == SOCK_SEQPACKET:
            self.take_error()
        peer = self.peer
        if self.kind == SOCK_STREAM and (self.shutdown & SEND_SHUTDOWN or not peer or peer.shutdown & RCV_SHUTDOWN):
            send_sigpipe(task)
            raise Errno(errno.EPIPE)
        if self.shutdown & SEND_SHUTDOWN:
            raise Errno(errno.EPIPE)
        if peer is None:
            raise Errno(errno.ECONNREFUSED)
        if peer.shutdown & RCV_SHUTDOWN:
            raise Errno(errno.EPIPE)
        if self.kind != SOCK_STREAM and len(data) > SNDBUF - 32:
            raise Errno(errno.EMSGSIZE)
        if not data and self.kind == SOCK_STREAM:
            return 0
        if self.room() <= 0:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, self.wait)
        sent = data if self.kind != SOCK_STREAM else data[: (SNDBUF >> 1) - 64]
        peer.queue.append(bytearray(sent))
        peer.wait.wake_all()
        return len(sent)

    def poll(self, task: Task) -> int:
        mask = 0
        if self.sk_err:
            mask |= POLLERR
        if self.shutdown == RCV_SHUTDOWN | SEND_SHUTDOWN:
            mask |= POLLHUP
        if self.shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        if self.room() * 4 >= SNDBUF * 3:  # unix_writable()
            mask |= POLLOUT | POLLWRNORM
        return mask

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.wait,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd != FIONREAD:
            raise Errno(errno.ENOTTY)
        whole = self.queue if self.kind != SOCK_DGRAM else self.queue[:1]
        put_user(task, arg, sum(map(len, whole)), 4)
        return 0

    def shut(self, how: int) -> None:
        """unix_shutdown(): this end, and the peer's other direction."""
        self.shutdown |= how
        self.wait.wake_all()
        if self.peer is not None and self.kind != SOCK_DGRAM:
            mirrored = (SEND_SHUTDOWN if how & RCV_SHUTDOWN else 0) | (RCV_SHUTDOWN if how & SEND_SHUTDOWN else 0)
            self.peer.shutdown |= mirrored
            self.peer.wait.wake_all()

    def closed(self) -> None:
        """unix_release_sock()."""
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        if self.kind != SOCK_DGRAM:
            peer.shutdown = RCV_SHUTDOWN | SEND_SHUTDOWN
            if self.queue:
                peer.sk_err = errno.ECONNRESET
        peer.wait.wake_all()


def sys_socketpair(task: Task, family: int, kind: int, protocol: int, fds: int) -> int:
    """socketpair(2). Raises EINVAL, EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EFAULT, EMFILE."""
    family, kind, protocol = s32(family), s32(kind), s32(protocol)
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    kind &= SOCK_TYPE_MASK
    files = task.files
    first = files.unused(task, 0)
    second = files.unused(task, first + 1)
    copy_to_user(task, fds, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    if not 0 <= family < NPROTO:
        raise Errno(errno.EAFNOSUPPORT)
    if kind >= SOCK_MAX:
        raise Errno(errno.EINVAL)
    if family != AF_UNIX:
        raise Errno(errno.EAFNOSUPPORT)
    if protocol not in (0, AF_UNIX):
        raise Errno(errno.EPROTONOSUPPORT)
    if kind not in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET):
        raise Errno(errno.ESOCKTNOSUPPORT)
    if kind == SOCK_RAW:
        kind = SOCK_DGRAM
    ends = [_end(task, kind, O_RDWR | flags & O_NONBLOCK) for _ in range(2)]
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    for fd, end in zip((first, second), ends, strict=True):
        files.install(fd, end, bool(flags & O_CLOEXEC))
    return 0


def _end(task: Task, kind: int, flags: int) -> SocketFile:
    sb = task.kernel.vfs.sockfs
    inode = Inode(sb, S_IFSOCK | 0o777, task.cred.fsuid, task.cred.fsgid)
    return SocketFile(anonymous_path(sb, inode, b"socket:[%d]" % inode.i_ino), inode, flags, kind)


def sys_shutdown(task: Task, fd: int, how: int) -> int:
    """shutdown(2). Raises EBADF, ENOTSOCK, EINVAL."""
    file = task.files.get(s32(fd))
    if not isinstance(file, SocketFile):
        raise Errno(errno.ENOTSOCK)
    how = s32(how)
    if not 0 <= how <= 2:
        raise Errno(errno.EINVAL)
    file.shut(how + 1)
    return 0


CALLS = (
    Call("socketpair", sys_socketpair, PARTIAL, "AF_UNIX, to be read and written; no messages with descriptors"),
    Call("shutdown", sys_shutdown, FULL, ""),
)
