"""AF_INET and AF_INET6 on the loopback of the machine (net/ipv4/af_inet.c, tcp.c, udp.c): no packets, only ends.

Addresses are kept as IPv6; an IPv4 address is ::ffff:a.b.c.d. 127.0.0.0/8 and ::1 are here, every other address is
ENETUNREACH. A TCP connection is two TcpSocks that put bytes into each other's queue: what would be segments, windows
and timers happens at once. Refusal, reset and end of stream come with the errors and in the order the kernel gives.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.pipe import send_sigpipe
from guest.socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    MSG_DONTWAIT,
    MSG_OOB,
    MSG_TRUNC,
    RCV_SHUTDOWN,
    READ_KEY,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SIOCINQ,
    SIOCOUTQ,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    Net,
    Received,
    Scm,
    Sock,
    put_int,
)
from guest.vfs_flags import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

_V4 = bytes(10) + b"\xff\xff"  # prefix of an IPv4 address
ANY6 = bytes(16)
ANY4 = _V4 + bytes(4)
LOOPBACK6 = bytes(15) + b"\1"
LOOPBACK4 = _V4 + b"\x7f\0\0\1"
_SIN6 = Struct("<H2sI16sI")
IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 6, 17, 41
_PORTS = (32768, 60999)  # net.ipv4.ip_local_port_range
_IPV6_V6ONLY = 26
CAP_NET_BIND_SERVICE = 10
_TCP_DEFAULTS = {1: 0, 2: 65483, 3: 0, 4: 7200, 5: 75, 6: 9, 7: 6, 8: 60, 9: 0, 10: 65536, 12: 1, 18: 0, 23: 0}
_TCP_INFO = 104


def inet_create(net: Net, task: Task, family: int, kind: int, protocol: int) -> Sock:
    """The socket for family, type and protocol (also inet6_create()). ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM."""
    host = task.kernel.config.net == "host-loopback"
    if host and (kind, protocol) in ((SOCK_STREAM, 0), (SOCK_STREAM, 6), (SOCK_DGRAM, 0), (SOCK_DGRAM, 17)):
        from guest.socket_host import HostSock

        return HostSock(net, kind, family)
    if kind == SOCK_STREAM and protocol in (0, IPPROTO_TCP):
        from guest.socket_tcp import TcpSock

        return TcpSock(net, family)
    if kind == SOCK_DGRAM and protocol in (0, IPPROTO_UDP):
        return UdpSock(net, family)
    if kind == SOCK_RAW and protocol and not task.capable(13):
        raise Errno(errno.EPERM)
    if kind in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW):
        raise Errno(errno.EPROTONOSUPPORT)
    raise Errno(errno.ESOCKTNOSUPPORT)


def is_loopback(address: bytes) -> bool:
    """Whether the machine has this address."""
    return address == LOOPBACK6 or address[:13] == LOOPBACK4[:13]


def is_any(address: bytes) -> bool:
    """The unspecified address of either family."""
    return address in (ANY4, ANY6)


class InetSock(Sock):
    """What TCP and UDP share: addresses and ports (struct inet_sock)."""

    kind = ""  # key of Net.ports

    def __init__(self, net: Net, kind: int, family: int) -> None:
        super().__init__(net, kind)
        self.family = family
        self.local = ANY4 if family == AF_INET else ANY6
        self.port = 0
        self.remote = self.local
        self.remote_port = 0
        self.v6only = 0
        self.options: dict[tuple[int, int], bytes] = {}

    # addresses

    def parse(self, address: bytes, connect: bool) -> tuple[bytes, int]:
        """A sockaddr as address and port. Raises EINVAL, EAFNOSUPPORT, ENETUNREACH."""
        family = int.from_bytes(address[:2], "little")
        if self.family == AF_INET6 and family == AF_INET6:
            if len(address) < 24:
                raise Errno(errno.EINVAL)
            _, port, _, ip, _ = _SIN6.unpack(address[:28].ljust(28, b"\0"))
            return ip, int.from_bytes(port, "big")
        if len(address) < 16:
            raise Errno(errno.EINVAL)
        if family != AF_INET and not (family == AF_UNSPEC and not connect and address[4:8] == bytes(4)):
            raise Errno(errno.EAFNOSUPPORT)
        if self.family == AF_INET6 and not connect:
            raise Errno(errno.EAFNOSUPPORT)
        return _V4 + address[4:8], int.from_bytes(address[2:4], "big")

    def shown(self, address: bytes, port: int) -> bytes:
        """A sockaddr of the socket's family."""
        if self.family == AF_INET:
            four = address[12:] if address[:12] == _V4 else bytes(4)
            return b"\2\0" + port.to_bytes(2, "big") + four + bytes(8)
        return _SIN6.pack(AF_INET6, port.to_bytes(2, "big"), 0, address, 0)

    def target(self, name: bytes) -> tuple[bytes, int]:
        """Where to connect or send: the unspecified address is the loopback. Raises ENETUNREACH."""
        address, port = self.parse(name, True)
        if is_any(address):
            address = LOOPBACK4 if self.family == AF_INET or address == ANY4 else LOOPBACK6
        if self.v6only and address[:12] == _V4:
            raise Errno(errno.ENETUNREACH)
        if address == _V4 + b"\xff\xff\xff\xff" and not self.flags.get(6):
            raise Errno(errno.EACCES if self.type == SOCK_DGRAM else errno.ENETUNREACH)
        if not is_loopback(address):
            raise Errno(errno.ENETUNREACH)
        return address, port

    def getname(self, peer: bool) -> bytes:
        if not peer:
            return self.shown(self.local, self.port)
        if not self.connected():
            raise Errno(errno.ENOTCONN)
        return self.shown(self.remote, self.remote_port)

    def connected(self) -> bool:
        """Whether there is a peer to name."""
        return self.remote_port != 0

    # ports

    def bind(self, task: Task, address: bytes) -> None:
        if len(address) < (16 if self.family == AF_INET else 24):
            raise Errno(errno.EINVAL)
        ip, port = self.parse(address, False)
        if not is_any(ip) and not is_loopback(ip):
            raise Errno(errno.EADDRNOTAVAIL)
        if self.v6only and ip[:12] == _V4:
            raise Errno(errno.EINVAL)
        if port and port < 1024 and not task.capable(CAP_NET_BIND_SERVICE):
            raise Errno(errno.EACCES)
        if self.port or self.state != TCP_CLOSE:
            raise Errno(errno.EINVAL)
        if port and self.conflict(task, ip, port):
            raise Errno(errno.EADDRINUSE)
        self.local = ip
        self.take_port(port or self.free_port(task, ip))

    def take_port(self, port: int) -> None:
        """Enter the table."""
        self.port = port
        self.net.ports.setdefault((self.kind, port), []).append(self)

    def drop_port(self) -> None:
        """Leave the table."""
        owners = self.net.ports.get((self.kind, self.port), [])
        if self in owners:
            owners.remove(self)
            if not owners:
                del self.net.ports[(self.kind, self.port)]

    def conflict(self, task: Task, ip: bytes, port: int) -> bool:
        """inet_csk_bind_conflict(): whether somebody else has the port in a way that excludes us."""
        reuse, share = self.flags.get(SO_REUSEADDR, 0), self.flags.get(SO_REUSEPORT, 0)
        if self.kind == "tcp" and not reuse and self.net.time_wait.get(port, 0) > task.kernel.clock.now:
            return True
        for other in self.net.ports.get((self.kind, port), ()):
            if other is self or not self.overlap(ip, other):
                continue
            if reuse and other.flags.get(SO_REUSEADDR) and (self.kind == "udp" or other.state != TCP_LISTEN):
                continue
            if share and other.flags.get(SO_REUSEPORT):
                continue
            return True
        return False

    def overlap(self, ip: bytes, other: InetSock) -> bool:
        """Whether two bound addresses can receive the same packet (inet_rcv_saddr_equal())."""
        theirs = other.local
        if ip == theirs:
            return True
        for one, two, only in ((ip, theirs, self.v6only), (theirs, ip, other.v6only)):
            if one == ANY6 and (not only or two[:12] != _V4):
                return True
            if one == ANY4 and two[:12] == _V4:
                return True
        return False

    def free_port(self, task: Task, ip: bytes) -> int:
        """An ephemeral port. Raises EADDRINUSE when all are taken."""
        net = self.net
        low, high = _PORTS
        for _ in range(high - low + 1):
            port = net.next_port
            net.next_port = port + 1 if port < high else low
            if (self.kind, port) not in net.ports and net.time_wait.get(port, 0) <= task.kernel.clock.now:
                return port
        raise Errno(errno.EADDRINUSE)

    def autobind(self, task: Task, source: bytes | None = None) -> None:
        """inet_autobind(), and the source address a connection gets."""
        if not self.port:
            self.take_port(self.free_port(task, self.local))
        if source is not None and is_any(self.local):
            self.local = source

    def matches(self, address: bytes) -> bool:
        """Whether a packet to `address` is for this socket."""
        if self.local == address:
            return True
        if self.local == ANY6:
            return not self.v6only or address[:12] != _V4
        return self.local == ANY4 and address[:12] == _V4

    # options

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        if level == IPPROTO_IPV6 and self.family == AF_INET6 and name == _IPV6_V6ONLY:
            if len(value) < 4 or self.port:
                raise Errno(errno.EINVAL)
            self.v6only = int(value[:4] != bytes(4))
            return
        self.check_level(level, name)
        if not value:
            raise Errno(errno.EINVAL)
        self.options[(level, name)] = value[:4].ljust(4, b"\0") if len(value) < 4 else value

    def check_level(self, level: int, name: int) -> None:
        """Raises ENOPROTOOPT for a level or option there is not."""
        if level == IPPROTO_IP and name in (1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 24):
            return
        if (
            level == IPPROTO_IPV6
            and self.family == AF_INET6
            and (name in (16, 17, 18, 19, 23, 24, 25) or 49 <= name < 76)
        ):
            return
        if level == IPPROTO_TCP and self.kind == "tcp" and (name in _TCP_DEFAULTS or name in (11, 13)):
            return
        raise Errno(errno.ENOPROTOOPT)

    def getsockopt(self, task: Task, level: int, name: int, size: int) -> bytes:
        if level == IPPROTO_IPV6 and self.family == AF_INET6 and name == _IPV6_V6ONLY:
            return self.v6only.to_bytes(4, "little")[:size]
        self.check_level(level, name)
        if level == IPPROTO_TCP and name == 11:  # TCP_INFO: its first byte is the state
            return bytes((self.state,)).ljust(_TCP_INFO, b"\0")[:size]
        if level == IPPROTO_TCP and name == 13:  # TCP_CONGESTION
            return b"cubic".ljust(16, b"\0")[:size]
        kept = self.options.get((level, name))
        if kept is not None:
            return kept[:size]
        defaults = {(IPPROTO_IP, 2): 64, (IPPROTO_IPV6, 16): 64, (IPPROTO_IP, 10): 1}
        number = _TCP_DEFAULTS[name] if level == IPPROTO_TCP else defaults.get((level, name), 0)
        return number.to_bytes(4, "little")[:size]

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == SIOCINQ:
            return put_int(task, arg, self.inq())
        if cmd == SIOCOUTQ:
            return put_int(task, arg, 0)
        raise Errno(errno.ENOTTY)

    def inq(self) -> int:
        """Bytes a read would get."""
        return 0


class UdpSock(InetSock):
    """A UDP socket."""

    kind = "udp"
    protocol = IPPROTO_UDP

    def __init__(self, net: Net, family: int) -> None:
        super().__init__(net, SOCK_DGRAM, family)
        self.queue: list[tuple[bytes, bytes, int]] = []  # data, sender's address and port
        self.charged = 0  # bytes of the receive buffer in use

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        if address[:2] == b"\0\0":
            self.remote_port = 0
            return
        target, port = self.target(address)
        self.autobind(task, target)
        self.remote, self.remote_port = target, port
        self.state = TCP_ESTABLISHED

    def shutdown(self, how: int) -> None:
        if not self.remote_port:
            raise Errno(errno.ENOTCONN)
        self.sk_shutdown |= how + 1
        self.state_change()

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        if len(data) > 65507 + (20 if self.family == AF_INET6 else 0):
            raise Errno(errno.EMSGSIZE)
        self.raise_error()
        if self.sk_shutdown & SEND_SHUTDOWN:
            send_sigpipe(task)
            raise Errno(errno.EPIPE)
        if name:
            target, port = self.target(name)
            if not port:
                raise Errno(errno.EINVAL)
        elif self.remote_port:
            target, port = self.remote, self.remote_port
        else:
            raise Errno(errno.EDESTADDRREQ)
        self.autobind(task)
        source = target if is_any(self.local) else self.local
        receiver = self.find_receiver(target, port, source)
        if receiver is not None:
            receiver.deliver(data, source, self.port)
        elif self.remote_port and (target, port) == (self.remote, self.remote_port):
            self.sk_err = errno.ECONNREFUSED
            self.wq.wake_all()
        return len(data)

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

    def deliver(self, data: bytes, source: bytes, port: int) -> None:
        """A datagram arrives; it is lost when the buffer is full."""
        size = len(data) + 768
        if self.charged and self.charged + size > self.sk_rcvbuf:
            return
        self.charged += size
        self.queue.append((data, source, port))
        self.wq.wake_all(READ_KEY)

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        self.raise_error()
        if not self.queue:
            if self.sk_shutdown & RCV_SHUTDOWN:
                return Received(b"")
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        data, source, port = self.queue[0]
        cut = MSG_TRUNC if count < len(data) else 0
        return Received(data[:count], len(data), self.shown(source, port), cut)

    def take(self, count: int) -> None:
        if self.queue:
            self.charged -= len(self.queue.pop(0)[0]) + 768

    def inq(self) -> int:
        return len(self.queue[0][0]) if self.queue else 0

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
        self.drop_port()
