"""UDP on the loopback (net/ipv4/udp.c): datagrams go from the sender's call straight into the receiver's queue."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from guest.inet_options import IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, UDP_CORK, UDP_SEGMENT
from guest.socket import (
    AF_INET6,
    MSG_DONTWAIT,
    MSG_OOB,
    MSG_TRUNC,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SO_REUSEPORT,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
    SOCK_DGRAM,
    SOL_SOCKET,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    Net,
    Received,
    Scm,
)
from guest.socket_inet import ANY4, ANY6, V4_PREFIX, InetSock, is_any, source_of
from guest.vfs_flags import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

MSG_MORE = 0x8000
_MOST = 65507  # bytes of one datagram in an IPv4 packet
_MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS
_OVERHEAD = 768  # what a buffer costs beyond its data
_TIMES = Struct("<qq")
_LOOPBACK_INDEX = 1
_IP_TOS, _IP_TTL, _IP_PKTINFO, _IP_RECVTTL, _IP_RECVTOS, _IP_ORIGDSTADDR = 1, 2, 8, 12, 13, 20
_IPV6_HOPS, _IPV6_TCLASS = 16, 67
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT, _IPV6_RECVTCLASS = 49, 50, 51, 52, 66


class Datagram(NamedTuple):
    """One in a receive queue."""

    data: bytes
    source: bytes
    port: int
    target: bytes
    target_port: int
    hops: int  # the TTL it came with
    service: int  # TOS or traffic class
    stamp: int  # CLOCK_REALTIME ns


class UdpSock(InetSock):
    """A UDP socket."""

    kind = "udp"
    protocol = IPPROTO_UDP

    def __init__(self, net: Net, family: int) -> None:
        super().__init__(net, SOCK_DGRAM, family)
        self.queue: list[Datagram] = []
        self.charged = 0  # bytes of the receive buffer in use
        self.corked = b""  # what UDP_CORK or MSG_MORE holds back
        self.corked_to: tuple[bytes, int] | None = None
        self.peek_off = -1

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        if address[:2] == b"\0\0":
            self.disconnect()
            return
        target, port = self.target(address)
        self.autobind(task, target)
        self.remote, self.remote_port = target, port
        self.state = TCP_ESTABLISHED

    def disconnect(self) -> None:
        """__udp_disconnect(): a port or address that connect() chose is given back."""
        self.state, self.remote_port = TCP_CLOSE, 0
        if not self.bound_address:
            self.local = ANY6 if self.is_ipv6() else ANY4
        if self.port and not self.bound_port:
            self.drop_port()
            self.port = 0

    def shutdown(self, how: int) -> None:
        self.sk_shutdown |= how + 1
        self.state_change()
        if not self.remote_port:
            raise Errno(errno.ENOTCONN)

    # sending

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        if len(data) > 65535:
            raise Errno(errno.EMSGSIZE)
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        target, port = self.corked_to or self.destination(name)
        self.raise_error()
        if self.sk_shutdown & SEND_SHUTDOWN:
            raise Errno(errno.EPIPE)
        whole = self.corked + data
        if len(whole) > _MOST + (20 if self.is_ipv6() else 0):
            raise Errno(errno.EMSGSIZE)
        if flags & MSG_MORE or self.options.get((IPPROTO_UDP, UDP_CORK)):
            if self.net.memory.other >= self.net.memory.other_max:
                raise Errno(errno.ENOBUFS)
            self.cork(whole, (target, port))
            return len(data)
        self.cork(b"", None)
        self.transmit(task, whole, target, port)
        return len(data)

    def cork(self, data: bytes, to: tuple[bytes, int] | None) -> None:
        """Hold back what is sent."""
        self.net.memory.other += len(data) - len(self.corked)
        self.corked, self.corked_to = data, to

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        super().setsockopt(task, level, name, value)
        if (level, name) == (IPPROTO_UDP, UDP_CORK) and not any(value[:4]) and self.corked_to is not None:
            whole, (target, port) = self.corked, self.corked_to  # udp_push_pending_frames()
            self.cork(b"", None)
            self.transmit(task, whole, target, port)

    def destination(self, name: bytes | None) -> tuple[bytes, int]:
        """Where a datagram goes. Raises EINVAL, EDESTADDRREQ and what target() raises."""
        if name:
            target, port = self.target(name)
            if not port:
                raise Errno(errno.EINVAL)
            return target, port
        if not self.remote_port:
            raise Errno(errno.EDESTADDRREQ)
        return self.remote, self.remote_port

    def transmit(self, task: Task, data: bytes, target: bytes, port: int) -> None:
        """udp_send_skb(): one datagram, or several of UDP_SEGMENT bytes. Raises EINVAL for too many."""
        self.autobind(task)
        source = source_of(target) if is_any(self.local) else self.local
        receiver = self.find_receiver(target, port, source)
        size = self.options.get((IPPROTO_UDP, UDP_SEGMENT), 0) or len(data)
        if len(data) > size * _MAX_SEGMENTS:
            raise Errno(errno.EINVAL)
        if receiver is None:
            if self.remote_port and (target, port) == (self.remote, self.remote_port):
                self.sk_err = errno.ECONNREFUSED
                self.wq.wake_all()
            return
        level, hops, service = (IPPROTO_IP, _IP_TTL, _IP_TOS)
        if target[:12] != V4_PREFIX:
            level, hops, service = (IPPROTO_IPV6, _IPV6_HOPS, _IPV6_TCLASS)
        hops, service = self.options.get((level, hops), 64), self.options.get((level, service), 0)
        stamp = task.kernel.clock.realtime()
        for at in range(0, len(data) or 1, size or 1):
            part = data[at : at + size]
            receiver.deliver(Datagram(part, source, self.port, target, port, hops, service, stamp))

    def find_receiver(self, target: bytes, port: int, source: bytes) -> UdpSock | None:
        """udp4_lib_lookup2(): connected sockets first, then exact addresses, then wildcards."""
        best: UdpSock | None = None
        best_score = -1
        for other in self.net.ports.get(("udp", port), ()):
            if not other.matches(target):
                continue
            if other.remote_port and (other.remote, other.remote_port) != (source, self.port):
                continue
            score = 2 * bool(other.remote_port) + (other.local == target)
            if score > best_score or (score == best_score and not other.flags.get(SO_REUSEPORT)):
                best, best_score = other, score
        return best

    # receiving

    def deliver(self, datagram: Datagram) -> None:
        """A datagram arrives; it is lost when the buffer is full."""
        size = len(datagram.data) + _OVERHEAD
        memory = self.net.memory
        if self.charged and (self.charged + size > self.sk_rcvbuf or memory.udp > memory.udp_max):
            return
        self.charged += size
        memory.udp += size
        self.queue.append(datagram)
        if self.remote_port:
            self.incoming_cpu = 0
        self.data_ready()

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        self.raise_error()
        queue, skip = self.past_peeked(self.queue, flags, lambda datagram: len(datagram.data))
        if not queue:
            if self.sk_shutdown & RCV_SHUTDOWN and not flags & MSG_DONTWAIT:
                return Received(b"")
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        first = queue[0]
        data = first.data[skip : skip + count]
        cut = MSG_TRUNC if count < len(first.data) - skip else 0
        sender = self.shown(first.source, first.port)
        return Received(data, len(first.data), sender, cut, control=self.control_of(first))

    def control_of(self, datagram: Datagram) -> tuple[tuple[int, int, bytes], ...]:
        """The control messages asked for (sock_recv_timestamp(), ip_cmsg_recv(), ip6_datagram_recv_ctl())."""
        out = []
        if self.flags.get(SO_TIMESTAMPNS):
            out.append((SOL_SOCKET, SO_TIMESTAMPNS, _TIMES.pack(*divmod(datagram.stamp, 10**9))))
        elif self.flags.get(SO_TIMESTAMP):
            seconds, rest = divmod(datagram.stamp, 10**9)
            out.append((SOL_SOCKET, SO_TIMESTAMP, _TIMES.pack(seconds, rest // 1000)))
        if not self.options:
            return tuple(out)
        asked, level, target = self.options.get, IPPROTO_IP, datagram.target
        if datagram.source[:12] == V4_PREFIX:
            index = _LOOPBACK_INDEX.to_bytes(4, "little")
            if asked((level, _IP_PKTINFO)):
                out.append((level, _IP_PKTINFO, index + target[12:] + target[12:]))
            if asked((level, _IP_RECVTTL)):
                out.append((level, _IP_TTL, datagram.hops.to_bytes(4, "little")))
            if asked((level, _IP_RECVTOS)):
                out.append((level, _IP_TOS, bytes((datagram.service,))))
            if asked((level, _IP_ORIGDSTADDR)):
                port = datagram.target_port.to_bytes(2, "big")
                out.append((level, _IP_ORIGDSTADDR, b"\2\0" + port + target[12:] + bytes(8)))
        level = IPPROTO_IPV6
        if self.family == AF_INET6 and asked((level, _IPV6_RECVPKTINFO)):
            out.append((level, _IPV6_PKTINFO, target + _LOOPBACK_INDEX.to_bytes(4, "little")))
        if datagram.source[:12] != V4_PREFIX:
            if asked((level, _IPV6_RECVHOPLIMIT)):
                out.append((level, _IPV6_HOPLIMIT, datagram.hops.to_bytes(4, "little")))
            if asked((level, _IPV6_RECVTCLASS)):
                out.append((level, _IPV6_TCLASS, datagram.service.to_bytes(4, "little")))
        return tuple(out)

    def take(self, count: int) -> None:
        if self.queue:
            size = len(self.queue.pop(0).data)
            self.charged -= size + _OVERHEAD
            self.net.memory.udp -= size + _OVERHEAD
            self.consumed(size)

    def inq(self) -> int:
        return len(self.queue[0].data) if self.queue else 0

    def poll(self, task: Task) -> int:
        mask = POLLOUT | POLLWRNORM | POLLWRBAND
        if self.sk_err:
            mask |= POLLERR
        if self.sk_shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.sk_shutdown == SHUTDOWN_MASK:
            mask |= POLLHUP
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        return mask

    def release(self) -> None:
        self.dead = True
        self.queue = []
        self.cork(b"", None)
        self.net.memory.udp -= self.charged
        self.charged = 0
        self.drop_port()
