"""Options of IPPROTO_IP, IPV6, TCP and UDP (ip_sockglue.c, ipv6_sockglue.c, do_tcp_setsockopt(), udp_lib_setsockopt()).

A table per level says of each option what it is at first and what may be set:

    FLAG   any number: on unless 0            Span   numbers from low to high
    READ   getsockopt only                    others by a function of their own

Options nobody has here (multicast groups, IPsec, MD5, repair) are ENOPROTOOPT, as in a kernel built without them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from guest.socket import SOCK_STREAM, TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.socket_inet import InetSock
    from guest.task import Task

IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 6, 17, 41
CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
LOOPBACK_MTU = 65536
_TCP_INFO = 104
_TCP_MIN_MSS, _MAX_TCP_WINDOW = 88, 32767
_SOCK_MIN_RCVBUF = 2304
_DEFER_MOST = 255  # retransmissions

Rule = Callable[["InetSock", int], int]  # the value to keep for the one given; raises Errno


def flag(sk: InetSock, value: int) -> int:
    """On or off."""
    return int(bool(value))


def read_only(sk: InetSock, value: int) -> int:
    """getsockopt() only."""
    raise Errno(errno.ENOPROTOOPT)


class Span:
    """Numbers from `low` to `high`; `unset` stands for the default."""

    __slots__ = ("default", "high", "low", "unset")

    def __init__(self, low: int, high: int, unset: int | None = None, default: int = 0) -> None:
        self.low = low
        self.high = high
        self.unset = unset
        self.default = default

    def __call__(self, sk: InetSock, value: int) -> int:
        if value == self.unset:
            return self.default
        if not self.low <= value <= self.high:
            raise Errno(errno.EINVAL)
        return value


class Option(NamedTuple):
    """One option."""

    default: int
    rule: Rule
    needs_value: bool = False  # a value of no bytes is EINVAL, not 0


def _tos(sk: InetSock, value: int) -> int:
    """TCP decides itself about congestion marks."""
    value &= 0xFF
    return value & ~3 if sk.type == SOCK_STREAM else value


def _multicast_ttl(sk: InetSock, value: int) -> int:
    if sk.type == SOCK_STREAM:
        raise Errno(errno.EINVAL)
    return Span(0, 255, -1, 1)(sk, value)


def _fragment_size(sk: InetSock, value: int) -> int:
    if sk.type == SOCK_STREAM:
        raise Errno(errno.EINVAL)
    return int(bool(value))


def _mss(sk: InetSock, value: int) -> int:
    if value and not _TCP_MIN_MSS <= value <= _MAX_TCP_WINDOW:
        raise Errno(errno.EINVAL)
    return value


def _linger2(sk: InetSock, value: int) -> int:
    return -1 if value < 0 else min(value, 120) or 60


def _window_clamp(sk: InetSock, value: int) -> int:
    if not value:
        if sk.state != TCP_CLOSE:
            raise Errno(errno.EINVAL)
        return 0
    return max(value, _SOCK_MIN_RCVBUF // 2)


def _defer_accept(sk: InetSock, value: int) -> int:
    """secs_to_retrans() and back: how long so many doubling retransmissions take, in seconds."""
    if value <= 0:
        return 0
    total = timeout = count = 1
    while value > total and count < _DEFER_MOST:
        timeout = min(timeout * 2, 120)
        total += timeout
        count += 1
    return total


def _fastopen(sk: InetSock, value: int) -> int:
    if value < 0 or sk.state not in (TCP_CLOSE, TCP_LISTEN):
        raise Errno(errno.EINVAL)
    return min(value, 4096)


_INT = Span(-(1 << 31), (1 << 31) - 1)
_NATURAL = Span(0, (1 << 31) - 1)
_BIT = Span(0, 1)
_FLAG = Option(0, flag)

_IP = {
    1: Option(0, _tos), 2: Option(64, Span(1, 255, -1, 64), True), 3: Option(0, read_only), 5: Option(0, Span(1, 0)),
    6: _FLAG, 7: _FLAG, 8: _FLAG, 10: Option(1, Span(0, 5)), 11: _FLAG, 12: _FLAG, 13: _FLAG,
    15: Option(0, flag, True), 18: _FLAG, 19: Option(0, flag, True), 20: _FLAG, 21: Option(0, Span(0, 255), True),
    22: Option(0, read_only), 23: _FLAG, 24: _FLAG, 25: Option(0, _fragment_size), 26: Option(0, _BIT),
    33: Option(1, _multicast_ttl, True), 34: Option(1, flag, True), 49: Option(1, _BIT, True),
}  # fmt: skip # IP_TOS, TTL, HDRINCL, ROUTER_ALERT, RECVOPTS, RETOPTS, PKTINFO, MTU_DISCOVER, RECVERR, RECVTTL,
# RECVTOS, FREEBIND, PASSSEC, TRANSPARENT, RECVORIGDSTADDR, MINTTL, NODEFRAG, CHECKSUM, BIND_ADDRESS_NO_PORT,
# RECVFRAGSIZE, RECVERR_RFC4884, MULTICAST_TTL, MULTICAST_LOOP, MULTICAST_ALL

_SECONDS, _COUNT = Span(1, 32767), Span(1, 127)
_TCP = {
    1: _FLAG, 2: Option(0, _mss), 3: _FLAG, 4: Option(7200, _SECONDS), 5: Option(75, _SECONDS), 6: Option(9, _COUNT),
    7: Option(6, _COUNT), 8: Option(60, _linger2), 9: Option(0, _defer_accept), 10: Option(0, _window_clamp),
    12: Option(1, flag), 16: Option(0, _BIT), 18: Option(0, _NATURAL), 23: Option(0, _fastopen),
    25: Option(0, _INT), 27: Option(0, Span(0, 2)), 30: Option(0, _BIT), 34: Option(0, _BIT), 36: Option(0, _BIT),
    37: Option(0, _NATURAL),
}  # fmt: skip # TCP_NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, DEFER_ACCEPT, WINDOW_CLAMP,
# QUICKACK, THIN_LINEAR_TIMEOUTS, USER_TIMEOUT, FASTOPEN, NOTSENT_LOWAT, SAVE_SYN, FASTOPEN_CONNECT,
# FASTOPEN_NO_COOKIE, INQ, TX_DELAY

UDP_CORK, UDP_SEGMENT = 1, 103
_UDP = {
    UDP_CORK: _FLAG, 101: _FLAG, 102: _FLAG, UDP_SEGMENT: Option(0, Span(0, 65535)), 104: _FLAG,
}  # fmt: skip # and UDP_NO_CHECK6_TX, NO_CHECK6_RX, GRO

_HOPS = Span(-1, 255)
_IPV6 = {
    2: _FLAG, 3: _FLAG, 4: _FLAG, 5: _FLAG, 8: _FLAG, 16: Option(64, Span(0, 255, -1, 64), True),
    18: Option(1, Span(0, 255, -1, 1), True), 19: Option(1, _BIT, True), 23: Option(1, Span(0, 5)), 25: _FLAG,
    29: Option(1, _BIT), 49: _FLAG, 51: _FLAG, 53: _FLAG, 56: _FLAG, 58: _FLAG, 60: _FLAG, 62: _FLAG, 66: _FLAG,
    67: Option(0, Span(0, 255, -1, 0), True), 70: Option(1, flag), 73: Option(0, Span(0, 255), True), 74: _FLAG,
    75: Option(0, flag, True), 78: Option(0, flag, True),
}  # fmt: skip # the 2292 ones, UNICAST_HOPS, MULTICAST_HOPS, MULTICAST_LOOP, MTU_DISCOVER, RECVERR, MULTICAST_ALL,
# RECVPKTINFO, RECVHOPLIMIT, RECVHOPOPTS, RECVRTHDR, RECVDSTOPTS, RECVPATHMTU, DONTFRAG, RECVTCLASS, TCLASS,
# AUTOFLOWLABEL, MINHOPCOUNT, RECVORIGDSTADDR, TRANSPARENT, FREEBIND

_TABLES = {IPPROTO_IP: _IP, IPPROTO_TCP: _TCP, IPPROTO_UDP: _UDP, IPPROTO_IPV6: _IPV6}
_TRANSPARENT = ((IPPROTO_IP, 19), (IPPROTO_IPV6, 75))
_MTU = ((IPPROTO_IP, 14), (IPPROTO_IPV6, 24))
TCP_MAXSEG, TCP_INFO, TCP_CONGESTION = 2, 11, 13
_CONGESTION = (b"cubic", b"reno")


def table_of(sk: InetSock, level: int) -> dict[int, Option] | None:
    """The options of a level, None when the socket has no such level."""
    if level in (IPPROTO_TCP, IPPROTO_UDP) and level != sk.protocol:
        return None
    if level == IPPROTO_IPV6 and not sk.is_ipv6():
        return None
    return _TABLES.get(level)


def set_option(task: Task, sk: InetSock, level: int, name: int, value: bytes) -> None:
    """setsockopt() below SOL_SOCKET. Raises ENOPROTOOPT, EINVAL, EPERM, ENOENT, ENOTCONN."""
    table = table_of(sk, level)
    if table is None:
        raise Errno(errno.ENOPROTOOPT)
    ip = level in (IPPROTO_IP, IPPROTO_IPV6)
    if level == IPPROTO_TCP and name == TCP_CONGESTION:
        _set_congestion(sk, value)
        return
    if not ip and len(value) < 4:
        raise Errno(errno.EINVAL)
    option = table.get(name)
    if option is None:
        raise Errno(errno.ENOPROTOOPT)
    if option.needs_value and not value:
        raise Errno(errno.EINVAL)
    if (level, name) in _TRANSPARENT and not (task.capable(CAP_NET_RAW) or task.capable(CAP_NET_ADMIN)):
        raise Errno(errno.EPERM)
    word = value[:4] if len(value) >= 4 else value[:1]  # a single byte will do at these levels
    sk.options[(level, name)] = option.rule(sk, int.from_bytes(word, "little", signed=len(word) == 4))


def _set_congestion(sk: InetSock, value: bytes) -> None:
    if not value:
        raise Errno(errno.EINVAL)
    name = value[:15].partition(b"\0")[0]
    if name not in _CONGESTION:
        raise Errno(errno.ENOENT)
    sk.congestion = name


def get_option(sk: InetSock, level: int, name: int, size: int) -> bytes:
    """getsockopt() below SOL_SOCKET: at most `size` bytes. Raises ENOPROTOOPT, EOPNOTSUPP, ENOTCONN."""
    table = table_of(sk, level)
    if table is None:
        raise Errno(errno.ENOPROTOOPT if sk.is_ipv6() else errno.EOPNOTSUPP)
    if level == IPPROTO_TCP and name == TCP_INFO:  # its first byte is the state
        return bytes((sk.state,)).ljust(_TCP_INFO, b"\0")[:size]
    if level == IPPROTO_TCP and name == TCP_CONGESTION:
        return sk.congestion.ljust(16, b"\0")[:size]
    if level == IPPROTO_IP and name == 9 and sk.type == SOCK_STREAM:  # IP_PKTOPTIONS: none
        return b""
    if (level, name) in _MTU:
        if not sk.remote_port:
            raise Errno(errno.ENOTCONN)
        number = LOOPBACK_MTU
    else:
        option = table.get(name)
        if option is None:
            raise Errno(errno.ENOPROTOOPT)
        number = sk.options.get((level, name), option.default)
        if level == IPPROTO_TCP and name == TCP_MAXSEG:
            number = sk.mss(number)
    if level == IPPROTO_IP and 0 < size < 4 and 0 <= number <= 255:
        return bytes((number,))
    return number.to_bytes(4, "little", signed=True)[:size]


def mss_of(state: int, wanted: int, ipv6: bool) -> int:
    """TCP_MAXSEG in bytes: what was asked for, 536 before there is a connection, then half of the first window."""
    if state != TCP_ESTABLISHED:
        return wanted or 536
    whole = 65535 - (72 if ipv6 else 52)  # headers and time stamps
    return min(whole // 2, wanted - 12 if wanted else whole)
