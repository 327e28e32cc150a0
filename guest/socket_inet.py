"""AF_INET and AF_INET6 on the loopback of the machine (net/ipv4/af_inet.c, tcp.c, udp.c): no packets, only ends.

Addresses are kept as IPv6; an IPv4 address is ::ffff:a.b.c.d. 127.0.0.0/8 and ::1 are here, every other address is
ENETUNREACH. A TCP connection is two TcpSocks that put bytes into each other's queue: what would be segments, windows
and timers happens at once. Refusal, reset and end of stream come with the errors and in the order the kernel gives.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.inet_options import IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, get_option, mss_of, set_option
from guest.socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    SIOCINQ,
    SIOCOUTQ,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_LISTEN,
    Net,
    Sock,
    put_int,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

V4_PREFIX = bytes(10) + b"\xff\xff"  # prefix of an IPv4 address
ANY6 = bytes(16)
ANY4 = V4_PREFIX + bytes(4)
LOOPBACK6 = bytes(15) + b"\1"
LOOPBACK4 = V4_PREFIX + b"\x7f\0\0\1"
_SIN6 = Struct("<H2sI16sI")
_PORTS = (32768, 60999)  # net.ipv4.ip_local_port_range
_IPV6_V6ONLY = 26
CAP_NET_BIND_SERVICE = 10
IPPROTO_MAX = 263
SIOCATMARK = 0x8905


def inet_create(net: Net, task: Task, family: int, kind: int, protocol: int) -> Sock:
    """The socket for family, type and protocol (also inet6_create()).

    Raises EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM.
    """
    if not 0 <= protocol < IPPROTO_MAX:
        raise Errno(errno.EINVAL)
    host = task.kernel.config.net == "host-loopback" and net is task.kernel.vfs.net
    if host and (kind, protocol) in ((SOCK_STREAM, 0), (SOCK_STREAM, 6), (SOCK_DGRAM, 0), (SOCK_DGRAM, 17)):
        from guest.socket_host import HostSock

        return HostSock(net, kind, family)
    if kind == SOCK_STREAM and protocol in (0, IPPROTO_TCP):
        from guest.socket_tcp import TcpSock

        return TcpSock(net, family)
    if kind == SOCK_DGRAM and protocol in (0, IPPROTO_UDP):
        from guest.socket_udp import UdpSock

        return UdpSock(net, family)
    if kind == SOCK_RAW and protocol and not task.capable(13):
        raise Errno(errno.EPERM)
    if kind in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW):
        raise Errno(errno.EPROTONOSUPPORT)
    raise Errno(errno.ESOCKTNOSUPPORT)


def is_loopback(address: bytes) -> bool:
    """Whether the machine has this address."""
    return address == LOOPBACK6 or address[:13] == LOOPBACK4[:13]


def source_of(target: bytes) -> bytes:
    """The address packets to `target` come from, unless bind() chose one: the interface's own (inet_select_addr())."""
    return LOOPBACK4 if target[:12] == V4_PREFIX else LOOPBACK6


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
        self.bound_address = self.bound_port = False  # bind() chose it (SOCK_BINDADDR_LOCK, SOCK_BINDPORT_LOCK)
        self.remote = self.local
        self.remote_port = 0
        self.v6only = 0
        self.options: dict[tuple[int, int], int] = {}  # (level, name): what was set
        self.congestion = b"cubic"

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
        return V4_PREFIX + address[4:8], int.from_bytes(address[2:4], "big")

    def shown(self, address: bytes, port: int) -> bytes:
        """A sockaddr of the socket's family."""
        if self.family == AF_INET:
            four = address[12:] if address[:12] == V4_PREFIX else bytes(4)
            return b"\2\0" + port.to_bytes(2, "big") + four + bytes(8)
        return _SIN6.pack(AF_INET6, port.to_bytes(2, "big"), 0, address, 0)

    def target(self, name: bytes) -> tuple[bytes, int]:
        """Where to connect or send: the unspecified address is the loopback. Raises ENETUNREACH."""
        address, port = self.parse(name, True)
        if is_any(address):
            address = LOOPBACK4 if self.family == AF_INET or address == ANY4 else LOOPBACK6
        if self.v6only and address[:12] == V4_PREFIX:
            raise Errno(errno.ENETUNREACH)
        if address == V4_PREFIX + b"\xff\xff\xff\xff" and not self.flags.get(6):
            raise Errno(errno.EACCES if self.type == SOCK_DGRAM else errno.ENETUNREACH)
        if not is_loopback(address) or not self.net.loopback_up:
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
        if not is_any(ip) and not (is_loopback(ip) and self.net.loopback_up):
            raise Errno(errno.EADDRNOTAVAIL)
        if self.v6only and ip[:12] == V4_PREFIX:
            raise Errno(errno.EINVAL)
        if port and port < 1024 and not task.capable(CAP_NET_BIND_SERVICE):
            raise Errno(errno.EACCES)
        if self.port or self.state != TCP_CLOSE:
            raise Errno(errno.EINVAL)
        if port and self.conflict(task, ip, port):
            raise Errno(errno.EADDRINUSE)
        self.local = ip
        self.bound_address, self.bound_port = not is_any(ip), port != 0
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
            if one == ANY6 and (not only or two[:12] != V4_PREFIX):
                return True
            if one == ANY4 and two[:12] == V4_PREFIX:
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

    def autobind(self, task: Task, target: bytes | None = None) -> None:
        """inet_autobind(), and the source address a connection to `target` gets."""
        if not self.port:
            self.take_port(self.free_port(task, self.local))
        if target is not None and is_any(self.local):
            self.local = source_of(target)

    def matches(self, address: bytes) -> bool:
        """Whether a packet to `address` is for this socket."""
        if self.local == address:
            return True
        if self.local == ANY6:
            return not self.v6only or address[:12] != V4_PREFIX
        return self.local == ANY4 and address[:12] == V4_PREFIX

    # options

    def is_ipv6(self) -> bool:
        """Whether the socket is of AF_INET6, whatever addresses it uses."""
        return self.family == AF_INET6

    def mss(self, wanted: int) -> int:
        """TCP_MAXSEG, bytes."""
        return mss_of(self.state, wanted, self.is_ipv6())

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        if level == IPPROTO_IPV6 and self.is_ipv6() and name == _IPV6_V6ONLY:
            if len(value) < 4 or self.port:
                raise Errno(errno.EINVAL)
            self.v6only = int(value[:4] != bytes(4))
            return
        set_option(task, self, level, name, value)

    def getsockopt(self, task: Task, level: int, name: int, size: int) -> bytes:
        if level == IPPROTO_IPV6 and self.is_ipv6() and name == _IPV6_V6ONLY:
            return self.v6only.to_bytes(4, "little")[:size]
        return get_option(self, level, name, size)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == SIOCINQ:
            return put_int(task, arg, self.inq())
        if cmd == SIOCOUTQ:
            return put_int(task, arg, 0)
        if cmd == SIOCATMARK and self.kind == "tcp":
            return put_int(task, arg, int(self.at_mark()))
        raise Errno(errno.ENOTTY)

    def at_mark(self) -> bool:
        """Whether the next byte is the urgent one."""
        return False

    def inq(self) -> int:
        """Bytes a read would get."""
        return 0
