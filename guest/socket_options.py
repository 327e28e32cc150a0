"""Options of SOL_SOCKET (net/core/sock.c: sock_setsockopt() and sock_getsockopt()).

What is only remembered stands in `Sock.flags`; the rest is an attribute of Sock or has a function here. Packet
filters, time stamps of a network card, busy polling and zero copy have nothing to act on: refused or remembered.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.socket import (
    AF_INET,
    AF_INET6,
    RMEM_MAX,
    SO_ACCEPTCONN,
    SO_BROADCAST,
    SO_BSDCOMPAT,
    SO_DEBUG,
    SO_DOMAIN,
    SO_DONTROUTE,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_MARK,
    SO_NO_CHECK,
    SO_OOBINLINE,
    SO_PASSCRED,
    SO_PEERCRED,
    SO_PRIORITY,
    SO_PROTOCOL,
    SO_RCVBUF,
    SO_RCVBUFFORCE,
    SO_RCVLOWAT,
    SO_RCVTIMEO,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SO_SNDBUFFORCE,
    SO_SNDLOWAT,
    SO_SNDTIMEO,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
    SO_TYPE,
    TCP_LISTEN,
    WMEM_MAX,
    Sock,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
ENOTSUPP = 524  # the kernel's own number, which setsockopt(SO_ZEROCOPY) lets out
SO_BINDTODEVICE, SO_GET_FILTER, SO_PEERNAME, SO_TIMESTAMPING, SO_PEEK_OFF, SO_LOCK_FILTER = 25, 26, 28, 37, 42, 44
SO_BUSY_POLL, SO_MAX_PACING_RATE, SO_BPF_EXTENSIONS, SO_INCOMING_CPU, SO_CNX_ADVICE = 46, 47, 48, 49, 53
SO_NAPI_ID, SO_COOKIE, SO_PEERGROUPS, SO_ZEROCOPY, SO_TXTIME, SO_BINDTOIFINDEX = 56, 57, 59, 60, 61, 62
SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW, SO_TIMESTAMPING_NEW, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW = 63, 64, 65, 66, 67
_PASSSEC, _RXQ_OVFL, _WIFI_STATUS, _NOFCS, _SELECT_ERR_QUEUE = 34, 40, 41, 43, 45
_BPF_EXTENSIONS = 64  # SKF_AD_MAX
_TIMESTAMPING_MASK = 0x7FFF

_LINGER = Struct("<ii")
_TIMEVAL = Struct("<qq")
_UCRED = Struct("<iII")

#: On or off, remembered.
_FLAGS = (
    SO_DEBUG, SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_KEEPALIVE, SO_OOBINLINE, SO_NO_CHECK, SO_REUSEPORT,
    SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW, _PASSSEC, _RXQ_OVFL, _WIFI_STATUS, _NOFCS,
    SO_LOCK_FILTER, _SELECT_ERR_QUEUE,
)  # fmt: skip
#: Numbers, remembered, 0 at first.
_NUMBERS = (SO_PRIORITY, SO_MARK, SO_TIMESTAMPING, SO_BUSY_POLL)
#: Always 0 here.
_ZERO = (SO_BSDCOMPAT, SO_NAPI_ID, SO_ZEROCOPY, SO_BINDTOIFINDEX)


def _timeout(value: bytes) -> int | None:
    """sock_set_timeout(): ns; None for no limit."""
    if len(value) < _TIMEVAL.size:
        raise Errno(errno.EINVAL)
    seconds, microseconds = _TIMEVAL.unpack(value[: _TIMEVAL.size])
    if not 0 <= microseconds < 1_000_000:
        raise Errno(errno.EDOM)
    if seconds < 0:
        return 0
    total: int = (seconds * 1_000_000 + microseconds) * 1000
    return total or None


def sock_setsockopt(task: Task, sk: Sock, name: int, value: bytes) -> None:
    """Raises EINVAL, EPERM, EDOM, ENODEV, ENOTSUPP, ENOPROTOOPT."""
    if name == SO_BINDTODEVICE:
        _bind_to_device(task, sk, value)
        return
    if len(value) < 4:
        raise Errno(errno.EINVAL)
    number = int.from_bytes(value[:4], "little", signed=True)
    if name in _FLAGS:
        if name == SO_LOCK_FILTER and sk.flags.get(name) and not number:
            raise Errno(errno.EPERM)
        sk.flags[name] = int(bool(number))
    elif name in (SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE):
        _set_buffer(task, sk, name, number)
    elif name in _NUMBERS:
        _set_number(task, sk, name, number)
    elif name == SO_LINGER:
        if len(value) < _LINGER.size:
            raise Errno(errno.EINVAL)
        sk.linger = _LINGER.unpack(value[:8])
    elif name == SO_PASSCRED:
        sk.passcred = int(bool(number))
    elif name == SO_RCVLOWAT:
        sk.rcvlowat = 0x7FFFFFFF if number < 0 else number or 1
    elif name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW):
        sk.rcvtimeo = _timeout(value)
    elif name in (SO_SNDTIMEO, SO_SNDTIMEO_NEW):
        sk.sndtimeo = _timeout(value)
    elif name == SO_PEEK_OFF:
        if sk.peek_off is None:
            raise Errno(errno.EOPNOTSUPP)
        sk.peek_off = number
    else:
        _set_rare(sk, name, value, number)


def _set_rare(sk: Sock, name: int, value: bytes, number: int) -> None:
    if name == SO_INCOMING_CPU:
        sk.incoming_cpu = number
    elif name == SO_MAX_PACING_RATE:
        sk.flags[name] = int.from_bytes(value[:8], "little") if len(value) >= 8 else number & 0xFFFFFFFF
    elif name == SO_TIMESTAMPING_NEW:
        if number & ~_TIMESTAMPING_MASK:
            raise Errno(errno.EINVAL)
        sk.flags[SO_TIMESTAMPING] = number
    elif name == SO_ZEROCOPY:
        raise Errno(ENOTSUPP)
    elif name in (SO_GET_FILTER, SO_TXTIME):
        raise Errno(errno.EINVAL)
    elif name not in (SO_BSDCOMPAT, SO_CNX_ADVICE):
        raise Errno(errno.ENOPROTOOPT)


def _bind_to_device(task: Task, sk: Sock, value: bytes) -> None:
    """There is one device, the loopback."""
    if sk.family not in (AF_INET, AF_INET6):
        raise Errno(errno.ENOPROTOOPT)
    if not task.capable(CAP_NET_RAW):
        raise Errno(errno.EPERM)
    if value.strip(b"\0") not in (b"", b"lo"):
        raise Errno(errno.ENODEV)


def _set_number(task: Task, sk: Sock, name: int, number: int) -> None:
    admin = task.capable(CAP_NET_ADMIN)
    if name == SO_PRIORITY and not 0 <= number <= 6 and not admin:
        raise Errno(errno.EPERM)
    if name == SO_MARK and not admin:
        raise Errno(errno.EPERM)
    if name == SO_TIMESTAMPING and number & ~_TIMESTAMPING_MASK:
        raise Errno(errno.EINVAL)
    if name == SO_BUSY_POLL:
        if number > sk.flags.get(name, 0) and not admin:
            raise Errno(errno.EPERM)
        if number < 0:
            raise Errno(errno.EINVAL)
    sk.flags[name] = number


def _set_buffer(task: Task, sk: Sock, name: int, number: int) -> None:
    if name in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        if not task.capable(CAP_NET_ADMIN):
            raise Errno(errno.EPERM)
        number = max(number, 0)
    else:
        number = min(number & 0xFFFFFFFF, WMEM_MAX if name == SO_SNDBUF else RMEM_MAX)
    number = min(number, 0x3FFFFFFF)
    if name in (SO_SNDBUF, SO_SNDBUFFORCE):
        sk.sk_sndbuf = max(number * 2, 4608)
        sk.flags[SO_SNDBUF] = 1
        sk.wake_space()
    else:
        sk.sk_rcvbuf = max(number * 2, 2304)
        sk.flags[SO_RCVBUF] = 1


def _number_of(sk: Sock, name: int) -> int | None:
    """The value of an option that is an int; None for the others."""
    if name in _FLAGS or name in _NUMBERS:
        return sk.flags.get(name, 0)
    if name in _ZERO:
        return 0
    if name == SO_ERROR:
        return sk.sock_error()
    if name == SO_PEEK_OFF and sk.peek_off is None:
        raise Errno(errno.EOPNOTSUPP)
    plain = {
        SO_TYPE: sk.type,
        SO_PROTOCOL: sk.protocol,
        SO_DOMAIN: sk.family,
        SO_SNDBUF: sk.sk_sndbuf,
        SO_RCVBUF: sk.sk_rcvbuf,
        SO_RCVLOWAT: sk.rcvlowat,
        SO_SNDLOWAT: 1,
        SO_PASSCRED: sk.passcred,
        SO_ACCEPTCONN: int(sk.state == TCP_LISTEN),
        SO_INCOMING_CPU: sk.incoming_cpu,
        SO_BPF_EXTENSIONS: _BPF_EXTENSIONS,
        SO_PEEK_OFF: sk.peek_off,
    }
    return plain.get(name)


def sock_getsockopt(task: Task, sk: Sock, name: int, size: int) -> bytes:
    """The option's value, at most `size` bytes. Raises EINVAL, ENOTCONN, ENODATA, ERANGE, EOPNOTSUPP, ENOPROTOOPT."""
    number = _number_of(sk, name)
    if number is not None:
        return number.to_bytes(4, "little", signed=True)[:size]
    if name == SO_LINGER:
        return _LINGER.pack(*sk.linger)[:size]
    if name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO, SO_SNDTIMEO_NEW):
        timeo = sk.rcvtimeo if name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW) else sk.sndtimeo
        seconds, rest = divmod(timeo or 0, 10**9)
        return _TIMEVAL.pack(seconds, rest // 1000)[:size]
    if name == SO_PEERCRED:
        pid, uid, gid = sk.peercred or (0, 0xFFFFFFFF, 0xFFFFFFFF)
        return _UCRED.pack(task.vnr(pid), uid, gid)[:size]
    if name == SO_PEERGROUPS:
        return _peergroups(sk, size)
    if name == SO_PEERNAME:
        return _peername(sk, size)
    if name == SO_MAX_PACING_RATE:
        rate = sk.flags.get(name, 0xFFFFFFFF)
        return (0xFFFFFFFFFFFFFFFF if rate == 0xFFFFFFFF else rate).to_bytes(8, "little")[:size]
    if name == SO_COOKIE:
        return sk.cookie_bytes(size)
    if name == SO_TXTIME:
        return bytes(8)[:size]
    if name == SO_GET_FILTER or (name == SO_BINDTODEVICE and sk.family in (AF_INET, AF_INET6)):  # none
        return b""
    raise Errno(errno.ENOPROTOOPT)


def _peername(sk: Sock, size: int) -> bytes:
    try:
        name = sk.getname(True)
    except Errno:
        raise Errno(errno.ENOTCONN) from None
    if len(name) < size:
        raise Errno(errno.EINVAL)
    return name[:size]


def _peergroups(sk: Sock, size: int) -> bytes:
    if sk.peercred is None:
        raise Errno(errno.ENODATA)
    groups = b"".join(group.to_bytes(4, "little") for group in sk.peergroups)
    if size < len(groups):
        raise Errno(errno.ERANGE)
    return groups
