"""TCP on the loopback (net/ipv4/tcp.c): listeners, connections, reset and end of stream."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.inet_options import IPPROTO_TCP
from guest.pipe import send_sigpipe
from guest.socket import (
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_OOB,
    MSG_PEEK,
    MSG_WAITALL,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SO_OOBINLINE,
    SO_RCVBUF,
    SO_REUSEPORT,
    SO_SNDBUF,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_SENT,
    Net,
    Received,
    Scm,
    Sock,
)
from guest.socket_inet import ANY4, ANY6, InetSock
from guest.tcp_urgent import NONE, VALID, at_mark, before_urgent, recv_urgent, skip_urgent, urgent_arrives
from guest.vfs_flags import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

_TIME_WAIT = 60 * 10**9
_CONNECT_TIMEOUT = 127 * 10**9  # tcp_syn_retries=6
_SURE = 4096
_LOOPBACK_SNDBUF = 2626560  # what a connection over lo gets


class TcpSock(InetSock):
    """One end of a TCP connection, or a listener."""

    kind = "tcp"
    protocol = IPPROTO_TCP
    stream = True

    def __init__(self, net: Net, family: int) -> None:
        super().__init__(net, SOCK_STREAM, family)
        self.sk_sndbuf, self.sk_rcvbuf = 16384, 131072
        self.peer: TcpSock | None = None
        self.data = bytearray()  # received
        self.starving = False  # the other end waits for memory of all, not for this buffer
        self.copied_seq = 0  # bytes read since the connection was made
        self.urgent = NONE  # urgent data: none, to be read, read (guest/tcp_urgent.py)
        self.urg_seq = 0  # which byte of the stream it is
        self.taking_urgent = False  # the last recv() showed it
        self.children: list[TcpSock] = []  # connections to accept
        self.waiting: list[TcpSock] = []  # connections beyond the backlog
        self.fin = False  # the other side has sent its end
        self.active_close = False  # this side did so first
        self.connecting = False  # connect() has to tell the result yet

    # connections

    def listen(self, task: Task, backlog: int) -> None:
        if self.state not in (TCP_CLOSE, TCP_LISTEN):
            raise Errno(errno.EINVAL)
        if not self.port:
            self.autobind(task)
        for other in self.net.ports[("tcp", self.port)]:
            both_share = self.flags.get(SO_REUSEPORT) and other.flags.get(SO_REUSEPORT)
            if other is not self and other.state == TCP_LISTEN and self.overlap(self.local, other) and not both_share:
                raise Errno(errno.EADDRINUSE)
        self.backlog = backlog
        self.state = TCP_LISTEN

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        if address[:2] == b"\0\0":
            self.disconnect()
            return
        if self.connecting:
            self.finish_connect(task, nonblock)
            return
        if self.state == TCP_LISTEN or self.state != TCP_CLOSE or self.remote_port:
            raise Errno(errno.EISCONN if self.state != TCP_SYN_SENT else errno.EALREADY)
        target, port = self.target(address)
        self.autobind(task, target)
        self.remote, self.remote_port = target, port
        self.sk_err = self.sk_shutdown = 0
        self.state = TCP_SYN_SENT
        self.connecting = True
        listener = self.find_listener(target, port)
        if listener is None:
            self.refused()
        elif len(listener.children) > listener.backlog:
            listener.waiting.append(self)
        else:
            listener.answer(self)
        if nonblock:
            raise Errno(errno.EINPROGRESS)
        self.finish_connect(task, False)

    def finish_connect(self, task: Task, nonblock: bool) -> None:
        """The rest of __inet_stream_connect(): wait for the answer and tell it."""
        if self.state == TCP_SYN_SENT:
            if nonblock:
                raise Errno(errno.EALREADY)
            limit = _CONNECT_TIMEOUT if self.sndtimeo is None else self.sndtimeo
            try:
                self.wait(task, self.wq, 0, limit)
            except Errno as refusal:
                if refusal.number != errno.EAGAIN:
                    raise
                if self.sndtimeo is not None:
                    raise Errno(errno.EINPROGRESS) from None
                self.refused()
                self.sk_err = errno.ETIMEDOUT
        self.connecting = False
        if self.state == TCP_CLOSE:
            number = self.sock_error() or errno.ECONNABORTED
            self.remote_port = self.sk_shutdown = 0  # it may be tried again
            raise Errno(number)

    def refused(self) -> None:
        """A reset answers the connection request."""
        self.state = TCP_CLOSE
        self.sk_err = errno.ECONNREFUSED
        self.sk_shutdown = SHUTDOWN_MASK
        self.state_change()

    def disconnect(self) -> None:
        """connect(AF_UNSPEC): tcp_disconnect()."""
        if self.state == TCP_LISTEN:
            self.close_children()
        elif self.peer is not None:
            self.reset_peer()
        self.state, self.remote_port, self.sk_err, self.sk_shutdown = TCP_CLOSE, 0, 0, 0
        if not self.bound_address:
            self.local = ANY6 if self.is_ipv6() else ANY4
        self.connecting = self.fin = False
        self.drop_data()
        self.state_change()

    def find_listener(self, target: bytes, port: int) -> TcpSock | None:
        """Who accepts connections to an address: an exact one before a wildcard."""
        found: TcpSock | None = None
        for other in self.net.ports.get(("tcp", port), ()):
            if other.state == TCP_LISTEN and other.matches(target):
                if other.local == target:
                    exact: TcpSock = other
                    return exact
                found = found or other
        return found

    def answer(self, client: TcpSock) -> None:
        """A connection is made: the listener's new end and the client see each other."""
        new = TcpSock(self.net, self.family)
        new.flags = dict(self.flags)
        new.options = dict(self.options)
        new.linger, new.rcvtimeo, new.sndtimeo = self.linger, self.rcvtimeo, self.sndtimeo
        new.local, new.remote, new.remote_port = client.remote, client.local, client.port
        new.take_port(self.port)
        new.sk_sndbuf, new.sk_rcvbuf = self.sk_sndbuf, self.sk_rcvbuf
        new.congestion, new.sk_shutdown = self.congestion, self.sk_shutdown
        new.peer, client.peer = client, new
        for end in (new, client):
            end.state = TCP_ESTABLISHED
            end.incoming_cpu = 0
            if not end.flags.get(SO_SNDBUF):
                end.sk_sndbuf = _LOOPBACK_SNDBUF
            if not end.flags.get(SO_RCVBUF):
                end.sk_rcvbuf = 131072
        self.children.append(new)
        client.state_change()
        self.data_ready()

    def accept(self, task: Task, nonblock: bool) -> Sock:
        if self.state != TCP_LISTEN:
            raise Errno(errno.EINVAL)
        if not self.children:
            self.wait(task, self.wq, nonblock, self.rcvtimeo)
        new = self.children.pop(0)
        while self.waiting and len(self.children) <= self.backlog:
            self.answer(self.waiting.pop(0))
        return new

    def connected(self) -> bool:
        return self.state in (TCP_ESTABLISHED,) and self.remote_port != 0

    def shutdown(self, how: int) -> None:
        mode = how + 1
        if self.state == TCP_CLOSE:
            self.sk_shutdown |= mode
            self.state_change()
            raise Errno(errno.ENOTCONN)
        if self.state == TCP_LISTEN:
            if mode & RCV_SHUTDOWN:
                self.close_children()
                self.state = TCP_CLOSE
                self.state_change()
            return
        if self.state == TCP_SYN_SENT:
            self.disconnect()
            return
        if mode & SEND_SHUTDOWN and not self.sk_shutdown & SEND_SHUTDOWN:
            self.send_fin()
        self.sk_shutdown |= mode
        self.state_change()

    def send_fin(self) -> None:
        """Tell the peer that nothing more comes."""
        peer = self.peer
        if peer is None:
            return
        peer.fin = True
        peer.sk_shutdown |= RCV_SHUTDOWN
        peer.state_change()
        if not self.fin:
            self.active_close = True
            return
        for end in (self, peer):  # both have ended: LAST_ACK and TIME_WAIT, where only the descriptor is left
            if not end.dead:
                end.finish()

    def reset_peer(self) -> None:
        """tcp_reset() at the peer: its connection is over."""
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        peer.sk_err = errno.EPIPE if peer.fin and not peer.sk_shutdown & SEND_SHUTDOWN else errno.ECONNRESET
        peer.finish()

    def finish(self) -> None:
        """tcp_done()."""
        self.state = TCP_CLOSE
        self.sk_shutdown = SHUTDOWN_MASK
        self.state_change()

    def close_children(self) -> None:
        """A listener goes: connections nobody accepted are reset, requests that wait refused."""
        for child in self.children:
            child.reset_peer()
            child.drop_data()
            child.drop_port()
        self.children = []
        for client in self.waiting:
            client.refused()
        self.waiting = []

    def release(self) -> None:
        """tcp_close()."""
        self.dead = True
        self.close_children()
        peer = self.peer
        if peer is not None:
            if self.data or self.linger == (1, 0):
                self.reset_peer()
            else:
                if not self.sk_shutdown & SEND_SHUTDOWN:
                    self.send_fin()
                if self.active_close:
                    self.net.time_wait[self.port] = self.net.sockfs.kernel.clock.now + _TIME_WAIT
                if peer.dead:
                    self.peer = peer.peer = None
        self.sk_shutdown = SHUTDOWN_MASK
        self.state = TCP_CLOSE
        self.drop_data()
        self.drop_port()

    def drop_data(self) -> None:
        """What nobody will read."""
        self.net.memory.tcp -= len(self.data)
        self.data.clear()

    # data

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        if self.connecting and self.state == TCP_SYN_SENT:
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.sndtimeo)
        if self.sk_err or self.sk_shutdown & SEND_SHUTDOWN or self.state != TCP_ESTABLISHED:
            number = self.sock_error() or errno.EPIPE
            if number == errno.EPIPE and not flags & MSG_NOSIGNAL:
                send_sigpipe(task)
            raise Errno(number)
        peer = self.peer
        if peer is None or peer.dead:
            # The peer has closed: its host answers what arrives with a reset.
            self.peer = None
            self.sk_err = errno.EPIPE if self.fin else errno.ECONNRESET
            self.finish()
            return len(data)
        if not data:
            return 0
        room = peer.sk_rcvbuf + self.sk_sndbuf - len(peer.data)
        memory = self.net.memory
        if memory.tcp > memory.tcp_max:  # as much as every socket is sure of (tcp_rmem[0]), and no more
            room = min(room, _SURE - len(peer.data))
            peer.starving = room <= 0
        if room <= 0:
            self.wait_space(task, self.wq, flags & MSG_DONTWAIT)
        part = data[:room]
        if flags & MSG_OOB and len(part) == len(data):
            urgent_arrives(peer, len(part))
        peer.data += part
        memory.tcp += len(part)
        peer.data_ready()
        return len(part)

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if self.state == TCP_LISTEN:
            raise Errno(errno.ENOTCONN)
        if flags & MSG_OOB:
            return recv_urgent(self, count, flags)
        if self.urgent and not flags & MSG_PEEK:
            skip_urgent(self)
        if not self.data:
            if self.fin:
                self.sock_error()
                return Received(b"")
            self.raise_error()
            if self.sk_shutdown & RCV_SHUTDOWN:
                return Received(b"")
            if self.state == TCP_CLOSE:
                raise Errno(errno.ENOTCONN)
            if not count:
                return Received(b"")
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        need = min(self.rcvlowat, count) if not flags & (MSG_WAITALL | MSG_PEEK) else 1
        if len(self.data) < need and not self.fin and not self.sk_shutdown & RCV_SHUTDOWN:
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        if self.urgent:
            count = before_urgent(self, count)
        return Received(bytes(self.data[:count]))

    def take(self, count: int) -> None:
        if self.taking_urgent:
            self.taking_urgent = False
            return
        before = len(self.data)
        del self.data[:count]
        self.net.memory.tcp -= before - len(self.data)
        self.copied_seq += count
        if self.urgent and self.copied_seq > self.urg_seq:
            self.urgent = NONE
        peer = self.peer
        if peer is not None and count and (self.starving or before > self.sk_rcvbuf >> 1):
            self.starving = False
            peer.wake_space()

    def inq(self) -> int:
        if self.state == TCP_LISTEN:
            raise Errno(errno.EINVAL)
        if self.urgent and not self.flags.get(SO_OOBINLINE) and 0 <= self.urg_seq - self.copied_seq < len(self.data):
            return self.urg_seq - self.copied_seq
        return len(self.data)

    def at_mark(self) -> bool:
        return at_mark(self)

    def poll(self, task: Task) -> int:
        if self.state == TCP_LISTEN:
            return POLLIN | POLLRDNORM if self.children else 0
        mask = 0
        if self.sk_shutdown == SHUTDOWN_MASK or self.state == TCP_CLOSE:
            mask |= POLLHUP
        if self.sk_shutdown & RCV_SHUTDOWN:
            mask |= POLLIN | POLLRDNORM | POLLRDHUP
        if self.state != TCP_SYN_SENT:
            target = min(self.rcvlowat, self.sk_rcvbuf)
            if self.urgent and at_mark(self) and not self.flags.get(SO_OOBINLINE):
                target += 1
            if len(self.data) >= target and self.data:
                mask |= POLLIN | POLLRDNORM
            if self.urgent == VALID and self.urg_seq - self.copied_seq < len(self.data):
                mask |= POLLPRI
            peer = self.peer
            if self.sk_shutdown & SEND_SHUTDOWN or peer is None:
                mask |= POLLOUT | POLLWRNORM
            elif len(peer.data) <= (peer.sk_rcvbuf + self.sk_sndbuf) * 2 // 3:
                mask |= POLLOUT | POLLWRNORM
            else:
                self.async_nospace = True
        if self.sk_err:
            mask |= POLLERR
        return mask
