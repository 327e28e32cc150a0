"""The ioctls about network interfaces (net/core/dev_ioctl.c, net/ipv4/devinet.c): the loopback, by name."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.rtnetlink import (
    ARPHRD_LOOPBACK,
    IFF_UP,
    LOOPBACK_INDEX,
    LOOPBACK_MTU,
    LOOPBACK_TXQLEN,
    loopback_flags,
)
from guest.socket import AF_INET, AF_INET6, Sock
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR = 0x8910, 0x8912, 0x8913, 0x8914, 0x8915
SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK, SIOCGIFMETRIC, SIOCGIFMTU = 0x8917, 0x8919, 0x891B, 0x891D, 0x8921
SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFTXQLEN, SIOCGIFMAP = 0x8927, 0x8933, 0x8942, 0x8970
CAP_NET_ADMIN = 12
_IFREQ = 40  # bytes
_NAME = 16
_INET = {
    SIOCGIFADDR: b"\x7f\0\0\1",
    SIOCGIFDSTADDR: b"\x7f\0\0\1",
    SIOCGIFBRDADDR: bytes(4),
    SIOCGIFNETMASK: b"\xff\0\0\0",
}


def sock_do_ioctl(task: Task, sk: Sock, cmd: int, arg: int) -> int:
    """Raises ENODEV for another name, EPERM, EADDRNOTAVAIL, ENOTTY for what there is not."""
    if cmd == SIOCGIFCONF:
        return _dev_ifconf(task, sk, arg)
    request = copy_from_user(task, arg, _IFREQ)
    if cmd == SIOCGIFNAME:
        if int.from_bytes(request[_NAME : _NAME + 4], "little") != LOOPBACK_INDEX:
            raise Errno(errno.ENODEV)
        copy_to_user(task, arg, b"lo".ljust(_NAME, b"\0"))
        return 0
    inet = sk.family in (AF_INET, AF_INET6)
    plain = {
        SIOCGIFFLAGS: (loopback_flags(sk.net) & 0xFFFF).to_bytes(2, "little"),
        SIOCGIFMETRIC: bytes(4),
        SIOCGIFMTU: LOOPBACK_MTU.to_bytes(4, "little"),
        SIOCGIFHWADDR: ARPHRD_LOOPBACK.to_bytes(2, "little") + bytes(14),
        SIOCGIFINDEX: LOOPBACK_INDEX.to_bytes(4, "little"),
        SIOCGIFTXQLEN: LOOPBACK_TXQLEN.to_bytes(4, "little"),
        SIOCGIFMAP: bytes(24),
    }
    if cmd not in plain and cmd != SIOCSIFFLAGS and not (inet and cmd in _INET):
        raise Errno(errno.ENOTTY)
    if request[:_NAME].partition(b"\0")[0].partition(b":")[0] != b"lo":
        raise Errno(errno.ENODEV)
    if cmd == SIOCSIFFLAGS:
        if not task.capable(CAP_NET_ADMIN):
            raise Errno(errno.EPERM)
        sk.net.loopback_up = bool(request[_NAME] & IFF_UP)
        return 0
    if cmd in _INET:
        if not sk.net.loopback_up:
            raise Errno(errno.EADDRNOTAVAIL)
        answer = b"\2\0\0\0" + _INET[cmd] + bytes(8)
    else:
        answer = plain[cmd]
    copy_to_user(task, arg, (request[:_NAME] + answer).ljust(_IFREQ, b"\0")[: _NAME + max(len(answer), 16)])
    return 0


def _dev_ifconf(task: Task, sk: Sock, arg: int) -> int:
    """SIOCGIFCONF: interfaces with an IPv4 address, as many as there is room for."""
    head = copy_from_user(task, arg, 16)
    room, buffer = int.from_bytes(head[:4], "little", signed=True), int.from_bytes(head[8:], "little")
    entry = (b"lo".ljust(_NAME, b"\0") + b"\2\0\0\0\x7f\0\0\1").ljust(_IFREQ, b"\0")
    there = [entry] if sk.net.loopback_up else []
    if buffer:
        there = there[: max(room, 0) // _IFREQ]
        if there:
            copy_to_user(task, buffer, b"".join(there))
    copy_to_user(task, arg, (len(there) * _IFREQ).to_bytes(4, "little"))
    return 0
