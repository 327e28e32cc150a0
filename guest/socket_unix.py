"""AF_UNIX (net/unix/af_unix.c): streams, datagrams and sequenced packets between processes of the machine.

Data waits in the receiver's queue and is charged to the sender by the kernel's own measure of a buffer (truesize), so
a sender blocks after exactly as many bytes as on Linux. A name is an inode of type socket or an abstract byte string.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.fasync import POLL_HUP, POLL_IN
from guest.file import OpenFile, fput
from guest.namei import LOOKUP_FOLLOW, filename_create, filename_lookup, inode_permission
from guest.pipe import send_sigpipe
from guest.sched import WaitQueue
from guest.socket import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_OOB,
    MSG_TRUNC,
    OVERFLOW_ID,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SIOCINQ,
    SIOCOUTQ,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    WRITE_KEY,
    Net,
    Received,
    Scm,
    Sock,
    put_int,
)
from guest.vfs_flags import (
    AT_FDCWD,
    MAY_WRITE,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    S_IFMT,
    S_IFSOCK,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Inode

_FAMILY = b"\1\0"
_SUN_SIZE = 110  # sizeof(struct sockaddr_un)
_MAX_DGRAM_QLEN = 10
_SKB_SHARED_INFO = 320
_SKB = 256


def truesize(linear: int, paged: int, page_size: int) -> int:
    """What a buffer with so many bytes in its head and in pages is charged (SKB_TRUESIZE of what kmalloc gives)."""
    head = max((linear + 63 & ~63) + _SKB_SHARED_INFO, 512)
    return (1 << (head - 1).bit_length()) + _SKB + (-(-paged // page_size) * page_size)


class Skb:
    """A buffer in a receive queue (struct sk_buff with unix_skb_parms)."""

    __slots__ = ("consumed", "cred", "data", "fds", "owner", "truesize")

    def __init__(self, owner: UnixSock, data: bytes, size: int) -> None:
        self.owner = owner
        self.data = data
        self.consumed = 0
        self.truesize = size
        self.fds: list[OpenFile] = []
        self.cred: tuple[int, int, int] | None = None
        owner.wmem += size
        owner.net.memory.other += size

    def left(self) -> int:
        """unix_skb_len(): bytes not yet read."""
        return len(self.data) - self.consumed

    def free(self) -> None:
        """kfree_skb(): descriptors nobody took are closed, the sender has room again."""
        fds, self.fds = self.fds, []
        for file in fds:
            fput(file)
        self.owner.wmem -= self.truesize
        self.owner.net.memory.other -= self.truesize
        self.owner.write_space()


def mkname(address: bytes) -> bytes:
    """unix_mkname(): the name as the socket keeps it. Raises EINVAL."""
    if not 2 < len(address) <= _SUN_SIZE or address[:2] != _FAMILY:
        raise Errno(errno.EINVAL)
    if address[2]:
        return _FAMILY + address[2:].split(b"\0")[0] + b"\0"
    return address


class UnixSock(Sock):
    """struct unix_sock."""

    family = AF_UNIX

    def __init__(self, net: Net, kind: int, page_size: int) -> None:
        super().__init__(net, kind)
        self.stream = kind == SOCK_STREAM
        self.page_size = page_size
        self.peek_off = -1
        self.address: bytes | None = None  # sockaddr_un it is bound to
        self.inode: Inode | None = None  # that names it
        self.peer: UnixSock | None = None
        self.queue: list[Any] = []  # Skb; of a listener the UnixSocks to accept
        self.backlog = _MAX_DGRAM_QLEN
        self.wmem = 0  # bytes (truesize) sent and not yet received
        self.peer_wait = WaitQueue("a full socket")

    # names

    def bind(self, task: Task, address: bytes) -> None:
        if address[:2] != _FAMILY:
            raise Errno(errno.EINVAL)
        if len(address) == 2:
            self.autobind()
            return
        name = mkname(address)
        if name[2]:
            self.bind_path(task, name)
            return
        if self.address is not None:
            raise Errno(errno.EINVAL)
        if (self.type, name) in self.net.abstract:
            raise Errno(errno.EADDRINUSE)
        self.net.abstract[(self.type, name)] = self
        self.address = name

    def bind_path(self, task: Task, name: bytes) -> None:
        """unix_mknod(). Raises EADDRINUSE; a socket that has a name already leaves the new inode behind, EINVAL."""
        try:
            at, last = filename_create(task, AT_FDCWD, name[2:-1], False)
        except Errno as refusal:
            raise Errno(errno.EADDRINUSE if refusal.number == errno.EEXIST else refusal.number) from None
        mode = S_IFSOCK | 0o777 & ~task.fs.umask
        entry = at.dentry.d_inode.create(at.dentry, last, mode, task)
        if self.address is not None:
            raise Errno(errno.EINVAL)
        self.inode = entry.d_inode
        self.inode.i_unix = self
        self.address = name

    def autobind(self) -> None:
        """unix_autobind(): the next free five-digit abstract name."""
        if self.address is not None:
            return
        net, vfs = self.net, self.net.sockfs.kernel.vfs
        while True:
            name = _FAMILY + b"\0%05x" % vfs.unix_ordernum
            vfs.unix_ordernum = vfs.unix_ordernum + 1 & 0xFFFFF
            if (self.type, name) not in net.abstract:
                break
        net.abstract[(self.type, name)] = self
        self.address = name

    def find_other(self, task: Task, name: bytes) -> UnixSock:
        """unix_find_other(). Raises ECONNREFUSED, EPROTOTYPE, EACCES, ENOENT."""
        other: UnixSock | None
        if name[2]:
            inode = filename_lookup(task, AT_FDCWD, name[2:-1], LOOKUP_FOLLOW).dentry.d_inode
            inode_permission(task, inode, MAY_WRITE)
            other = inode.i_unix if inode.i_mode & S_IFMT == S_IFSOCK else None
            if other is not None and other.type != self.type:
                raise Errno(errno.EPROTOTYPE)
        else:
            other = self.net.abstract.get((self.type, name))
        if other is None:
            raise Errno(errno.ECONNREFUSED)
        found: UnixSock = other
        return found

    def getname(self, peer: bool) -> bytes:
        sk = self.peer if peer else self
        if sk is None:
            raise Errno(errno.ENOTCONN)
        return sk.address or _FAMILY

    # connections

    def listen(self, task: Task, backlog: int) -> None:
        if self.type == SOCK_DGRAM:
            raise Errno(errno.EOPNOTSUPP)
        if self.address is None or self.state not in (TCP_CLOSE, TCP_LISTEN):
            raise Errno(errno.EINVAL)
        if backlog > self.backlog:
            self.peer_wait.wake_all()
        self.backlog = backlog
        self.state = TCP_LISTEN
        self.init_peercred(task)

    def init_peercred(self, task: Task) -> None:
        """Who made this end."""
        self.peercred = (task.tgid, task.cred.euid, task.cred.egid)
        self.peergroups = sorted(task.cred.groups)

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if self.type == SOCK_DGRAM:
            self.connect_dgram(task, address)
            return
        name = mkname(address)
        if self.passcred:
            self.autobind()
        other = self.find_other(task, name)
        if other.state != TCP_LISTEN or other.sk_shutdown & RCV_SHUTDOWN:
            raise Errno(errno.ECONNREFUSED)
        if len(other.queue) > other.backlog:
            self.wait(task, other.peer_wait, nonblock, self.sndtimeo)
        if self.state != TCP_CLOSE:
            raise Errno(errno.EISCONN if self.state == TCP_ESTABLISHED else errno.EINVAL)
        new = UnixSock(self.net, self.type, self.page_size)
        new.peer, self.peer = self, new
        new.state = self.state = TCP_ESTABLISHED
        new.init_peercred(task)
        new.address = other.address
        self.peercred, self.peergroups = other.peercred, other.peergroups
        other.queue.append(new)
        other.data_ready()

    def connect_dgram(self, task: Task, address: bytes) -> None:
        """unix_dgram_connect(); AF_UNSPEC disconnects."""
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        other: UnixSock | None = None
        if address[:2] != b"\0\0":
            name = mkname(address)
            if self.passcred:
                self.autobind()
            other = self.find_other(task, name)
            if other.peer is not None and other.peer is not self:
                raise Errno(errno.EPERM)
        old, self.peer = self.peer, other
        if old is not None and old is not other:
            self.disconnected(old)

    def disconnected(self, other: UnixSock) -> None:
        """unix_dgram_disconnected(): what the old peer sent is lost."""
        if self.queue:
            self.purge()
            self.peer_wait.wake_all()
            if not other.dead and other.peer is self:
                other.sk_err = errno.ECONNRESET
                other.wq.wake_all()

    def accept(self, task: Task, nonblock: bool) -> Sock:
        if self.type == SOCK_DGRAM:
            raise Errno(errno.EOPNOTSUPP)
        if self.state != TCP_LISTEN:
            raise Errno(errno.EINVAL)
        if not self.queue:
            self.raise_error()
            if self.sk_shutdown & RCV_SHUTDOWN:
                raise Errno(errno.EINVAL)
            self.wait(task, self.wq, nonblock, self.rcvtimeo)
        new: UnixSock = self.queue.pop(0)
        self.peer_wait.wake_all(WRITE_KEY)
        new.passcred = self.passcred
        return new

    def pair(self, task: Task, other: UnixSock) -> None:
        """unix_socketpair()."""
        for one, two in ((self, other), (other, self)):
            one.peer = two
            one.init_peercred(task)
            if one.type != SOCK_DGRAM:
                one.state = TCP_ESTABLISHED

    def shutdown(self, how: int) -> None:
        mode = how + 1
        self.sk_shutdown |= mode
        self.state_change()
        other = self.peer
        if other is not None and self.type != SOCK_DGRAM:
            if mode & RCV_SHUTDOWN:
                other.sk_shutdown |= SEND_SHUTDOWN
            if mode & SEND_SHUTDOWN:
                other.sk_shutdown |= RCV_SHUTDOWN
            other.state_change()
            if mode == SHUTDOWN_MASK:
                other.wake_async(POLL_HUP)
            elif mode & SEND_SHUTDOWN:
                other.wake_async(POLL_IN)

    def release(self) -> None:
        """unix_release_sock(): the peer hears of it."""
        self.unname()
        self.dead = True
        self.sk_shutdown = SHUTDOWN_MASK
        state, self.state = self.state, TCP_CLOSE
        peer, self.peer = self.peer, None
        self.peer_wait.wake_all()
        if peer is not None and self.type != SOCK_DGRAM:
            peer.sk_shutdown = SHUTDOWN_MASK
            if self.queue:
                peer.sk_err = errno.ECONNRESET
            peer.state_change()
            peer.wake_async(POLL_HUP)
        elif peer is not None:
            peer.wake_space()
        if state == TCP_LISTEN:
            embryos, self.queue = self.queue, []
            for embryo in embryos:
                if embryo.peer is not None:
                    embryo.peer.sk_err = errno.ECONNRESET
                embryo.release()
        self.purge()

    def unname(self) -> None:
        """unix_remove_socket(): nobody finds it any more."""
        if self.inode is not None:
            if self.inode.i_unix is self:
                self.inode.i_unix = None
            self.inode = None
        elif self.address is not None and self.net.abstract.get((self.type, self.address)) is self:
            del self.net.abstract[(self.type, self.address)]

    def purge(self) -> None:
        """Throw the queue away."""
        queue, self.queue = self.queue, []
        for skb in queue:
            skb.free()

    # data

    def writable(self) -> bool:
        """unix_writable()."""
        return self.state != TCP_LISTEN and self.wmem << 2 <= self.sk_sndbuf

    def write_space(self) -> None:
        """A buffer came back to its sender."""
        if self.writable():
            self.wake_space()

    def full(self) -> bool:
        """unix_recvq_full()."""
        return len(self.queue) > self.backlog

    def skb(self, task: Task, data: bytes, size: int, nonblock: int, scm: Scm, other: UnixSock) -> Skb:
        """sock_alloc_send_pskb() and the credentials. Sleeps while the send buffer is full."""
        self.raise_error()
        if self.sk_shutdown & SEND_SHUTDOWN:
            raise Errno(errno.EPIPE)
        if self.wmem >= self.sk_sndbuf:
            self.wait_space(task, self.wq, nonblock)
        if self.net.memory.other >= self.net.memory.other_max:
            raise Errno(errno.ENOBUFS)
        skb = Skb(self, data, size)
        skb.cred = scm.cred
        if skb.cred is None and (self.passcred or other.passcred):
            skb.cred = (task.tgid, task.cred.uid, task.cred.gid)
        return skb

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        if self.type == SOCK_STREAM:
            return self.send_stream(task, data, name, flags, scm)
        if self.type == SOCK_SEQPACKET:
            self.raise_error()
            if self.state != TCP_ESTABLISHED:
                raise Errno(errno.ENOTCONN)
            name = None
        return self.send_dgram(task, data, name, flags, scm)

    def send_stream(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        """unix_stream_sendmsg(): as many buffers as there is room for."""
        if name:
            raise Errno(errno.EISCONN if self.state == TCP_ESTABLISHED else errno.EOPNOTSUPP)
        other = self.peer
        if other is None:
            raise Errno(errno.ENOTCONN)
        sent = 0
        head = self.page_size - _SKB_SHARED_INFO
        while sent < len(data):
            if self.sk_shutdown & SEND_SHUTDOWN or other.dead or other.sk_shutdown & RCV_SHUTDOWN:
                if sent:
                    break
                if not flags & MSG_NOSIGNAL:
                    send_sigpipe(task)
                raise Errno(errno.EPIPE)
            memory = self.net.memory
            if sent and (self.wmem >= self.sk_sndbuf or memory.other >= memory.other_max):
                break  # the caller comes again, and then sleeps
            size = min(len(data) - sent, (self.sk_sndbuf >> 1) - 64, head + max(32768, self.page_size))
            paged = min(size, -(-max(0, size - head) // self.page_size) * self.page_size)
            charge = truesize(size - paged, paged, self.page_size)
            skb = self.skb(task, data[sent : sent + size], charge, flags & MSG_DONTWAIT, scm, other)
            skb.fds, scm.fds = scm.fds, []
            other.queue.append(skb)
            other.data_ready()
            sent += size
        return sent

    def send_dgram(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        """unix_dgram_sendmsg()."""
        if name:
            wanted = mkname(name)
            other = None
        else:
            other = self.peer
            if other is None:
                raise Errno(errno.ENOTCONN)
        if self.passcred:
            self.autobind()
        if len(data) > self.sk_sndbuf - 32:
            raise Errno(errno.EMSGSIZE)
        if other is None:
            other = self.find_other(task, wanted)
        if other.peer is not None and other.peer is not self:
            raise Errno(errno.EPERM)
        if other.dead:
            if self.peer is other:
                self.peer = None
                self.disconnected(other)
            raise Errno(errno.ECONNREFUSED)
        if other.sk_shutdown & RCV_SHUTDOWN:
            raise Errno(errno.EPIPE)
        if other is not self and other.peer is not self and other.full():
            self.wait(task, other.peer_wait, flags & MSG_DONTWAIT, self.sndtimeo)
        most = 4 * self.page_size - _SKB_SHARED_INFO
        paged = 0
        if len(data) > most:
            paged = -(-min(len(data) - most, 17 * self.page_size) // self.page_size) * self.page_size
        charge = truesize(max(len(data) - paged, 0), paged, self.page_size)
        skb = self.skb(task, data, charge, flags & MSG_DONTWAIT, scm, other)
        skb.fds, scm.fds = scm.fds, []
        other.queue.append(skb)
        other.data_ready()
        return len(data)

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if self.type != SOCK_DGRAM and self.state != TCP_ESTABLISHED:
            raise Errno(errno.EINVAL if self.stream else errno.ENOTCONN)
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        if not self.queue:
            self.raise_error()
            if self.sk_shutdown & RCV_SHUTDOWN and not (self.type == SOCK_DGRAM and flags & MSG_DONTWAIT):
                return Received(b"")
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        queue, skip = self.past_peeked(self.queue, flags, Skb.left)
        if not queue:
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        first = queue[0]
        if not self.stream:
            data = first.data[skip : skip + count]
            cut = MSG_TRUNC if count < len(first.data) - skip else 0
            return Received(data, len(first.data), first.owner.address, cut, tuple(first.fds), self.shown_cred(first))
        return self.recv_stream(queue, skip, count)

    def recv_stream(self, queue: list[Skb], skip: int, count: int) -> Received:
        """What a read of a stream gets, `skip` bytes left out: descriptors and other senders end it."""
        first = queue[0]
        out = b""
        fds: tuple[OpenFile, ...] = ()
        for skb in queue:
            if skb is not first and self.passcred and skb.cred != first.cred:
                break
            start = skb.consumed + skip
            out += skb.data[start : start + count - len(out)]
            skip = 0
            if skb.fds:
                fds = tuple(skb.fds)
                break
            if len(out) >= count:
                break
        return Received(out, -1, first.owner.address, 0, fds, self.shown_cred(first))

    @staticmethod
    def shown_cred(skb: Skb) -> tuple[int, int, int]:
        """Who sent it; nobody when the sender was not asked to say."""
        return skb.cred or (0, OVERFLOW_ID, OVERFLOW_ID)

    def take(self, count: int) -> None:
        if not self.queue or self.state == TCP_LISTEN:
            return
        if not self.stream:
            skb = self.queue.pop(0)
            self.consumed(len(skb.data))
            skb.free()
            self.peer_wait.wake_all(WRITE_KEY)
            return
        self.consumed(count)
        while count and self.queue:
            skb = self.queue[0]
            step = min(count, len(skb.data) - skb.consumed)
            skb.consumed += step
            count -= step
            skb.fds, fds = [], skb.fds
            for file in fds:  # whoever received them has references of its own
                fput(file)
            if skb.consumed < len(skb.data):
                break
            self.queue.pop(0)
            skb.free()

    # the rest

    def poll(self, task: Task) -> int:
        mask = POLLERR if self.sk_err else 0
        if self.sk_shutdown == SHUTDOWN_MASK:
            mask |= POLLHUP
        if self.sk_shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        if self.type != SOCK_DGRAM and self.state == TCP_CLOSE:
            mask |= POLLHUP
        if self.writable() and not self.peer_is_full():
            mask |= POLLOUT | POLLWRNORM | POLLWRBAND
        return mask

    def peer_is_full(self) -> bool:
        """Whether a datagram to the connected peer would have to wait."""
        other = self.peer
        return self.type != SOCK_STREAM and other is not None and other.peer is not self and other.full()

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        if self.type == SOCK_DGRAM and self.peer is not None and self.peer.peer is not self:
            return self.wq, self.peer.peer_wait
        return (self.wq,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == SIOCOUTQ:
            return put_int(task, arg, self.wmem)
        if cmd == SIOCINQ:
            if self.state == TCP_LISTEN:
                raise Errno(errno.EINVAL)
            waiting = self.queue if self.type != SOCK_DGRAM else self.queue[:1]
            return put_int(task, arg, sum(len(skb.data) - skb.consumed for skb in waiting))
        raise Errno(errno.ENOTTY)

    def show_fdinfo(self) -> str:
        waiting = self.queue if self.state != TCP_LISTEN else []
        return f"scm_fds: {sum(len(skb.fds) for skb in waiting)}\n"
