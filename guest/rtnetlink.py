"""NETLINK_ROUTE (net/core/rtnetlink.c): the loopback interface and its addresses, shown as messages; up and down.

The interface is up with 127.0.0.1/8 and ::1/128; in a new network namespace it is down. There are no routes to list and
no neighbours. The same interface answers the old ioctls (guest/netdevice.py).
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.socket import AF_INET, AF_INET6, Net
from guest.socket_netlink import NLM_F_DUMP, attribute
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.socket_netlink import NetlinkSock
    from guest.task import Task

RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_MAX = 16, 18, 19, 20, 22, 115
_GET = 2  # the kind of a request is its type & 3
_DUMPED_EMPTY = (26, 30, 34, 62, 66, 78, 82)  # RTM_GETROUTE, NEIGH, RULE, ANYCAST, NEIGHTBL, ADDRLABEL, NETCONF
CAP_NET_ADMIN = 12
IFINFOMSG = Struct("<BxHiII")  # family, type, index, flags, change
_IFADDRMSG = Struct("<BBBBI")  # family, prefix length, flags, scope, index
ARPHRD_LOOPBACK = 772
LOOPBACK_INDEX, LOOPBACK_MTU, LOOPBACK_TXQLEN = 1, 65536, 1000
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 1, 8, 0x40, 0x10000
_IFA_F_PERMANENT, _RT_SCOPE_HOST = 0x80, 254
_FOREVER = 0xFFFFFFFF


def loopback_flags(net: Net) -> int:
    """dev_get_flags() of the loopback."""
    return IFF_LOOPBACK | (IFF_UP | IFF_RUNNING | IFF_LOWER_UP if net.loopback_up else 0)


def rtnetlink_rcv_msg(task: Task, sk: NetlinkSock, kind: int, flags: int, sequence: int, body: bytes) -> bool:
    """Serve one request; True when it was a dump. Raises EOPNOTSUPP, EPERM, EINVAL, ENODEV."""
    if kind > RTM_MAX:
        raise Errno(errno.EOPNOTSUPP)
    if not body:
        return False
    if kind & 3 != _GET and not task.capable(CAP_NET_ADMIN):
        raise Errno(errno.EPERM)
    if kind & 3 == _GET and flags & NLM_F_DUMP:
        sk.dump(*_dump_of(sk.net, kind, body[0], sequence))
        return True
    if kind == RTM_GETLINK:
        _named_link(body)
        sk.answer(RTM_NEWLINK, 0, sequence, link_message(sk.net))
    elif kind in (RTM_NEWLINK, RTM_SETLINK):
        _named_link(body)
        _, _, _, wanted, change = IFINFOMSG.unpack_from(body)
        if (change or wanted) & IFF_UP:
            sk.net.loopback_up = bool(wanted & IFF_UP)
    else:
        raise Errno(errno.EOPNOTSUPP)
    return False


def _dump_of(net: Net, kind: int, family: int, sequence: int) -> tuple[int, int, list[bytes]]:
    """What a dump consists of: the answers' type, the sequence number, and the answers."""
    if kind == RTM_GETLINK:
        return RTM_NEWLINK, sequence, [link_message(net)]
    if kind == RTM_GETADDR:
        return RTM_NEWADDR, sequence, address_messages(net, family)
    if kind in _DUMPED_EMPTY:
        return kind - _GET, sequence, []
    raise Errno(errno.EOPNOTSUPP)


def _named_link(body: bytes) -> None:
    """The interface a request is about. Raises EINVAL, ENODEV: there is one."""
    if len(body) < IFINFOMSG.size:
        raise Errno(errno.EINVAL)
    _, _, index, _, _ = IFINFOMSG.unpack_from(body)
    at = IFINFOMSG.size
    while at + 4 <= len(body):
        size, kind = int.from_bytes(body[at : at + 2], "little"), int.from_bytes(body[at + 2 : at + 4], "little")
        if size < 4:
            break
        if kind == 3 and not index:  # IFLA_IFNAME
            index = LOOPBACK_INDEX if body[at + 4 : at + size].rstrip(b"\0") == b"lo" else -1
        at += size + 3 & ~3
    if not index:
        raise Errno(errno.EINVAL)
    if index != LOOPBACK_INDEX:
        raise Errno(errno.ENODEV)


def link_message(net: Net) -> bytes:
    """rtnl_fill_ifinfo() of the loopback, attributes in the kernel's order."""
    up = net.loopback_up
    numbers = (
        (13, LOOPBACK_TXQLEN, 4), (16, 0 if up else 2, 1), (17, 0, 1), (4, LOOPBACK_MTU, 4), (50, 0, 4), (51, 0, 4),
        (27, 0, 4), (30, 0, 4), (31, 1, 4), (40, 65535, 4), (41, 65536, 4), (32, 1, 4), (33, 1, 1),
    )  # fmt: skip # TXQLEN, OPERSTATE, LINKMODE, MTU, MIN_MTU, MAX_MTU, GROUP, PROMISCUITY, NUM_TX_QUEUES,
    # GSO_MAX_SEGS, GSO_MAX_SIZE, NUM_RX_QUEUES, CARRIER
    later = ((35, 0, 4), (47, 0, 4), (48, 0, 4), (39, 0, 1))  # CARRIER_CHANGES, UP_COUNT, DOWN_COUNT, PROTO_DOWN
    parts = [
        IFINFOMSG.pack(0, ARPHRD_LOOPBACK, LOOPBACK_INDEX, loopback_flags(net), 0),
        attribute(3, b"lo\0"),
        *(attribute(kind, value.to_bytes(size, "little")) for kind, value, size in numbers),
        attribute(6, b"noqueue\0" if up else b"noop\0"),
        *(attribute(kind, value.to_bytes(size, "little")) for kind, value, size in later),
        attribute(14, bytes(32)),  # MAP
        attribute(1, bytes(6)),  # ADDRESS
        attribute(2, bytes(6)),  # BROADCAST
        attribute(23, bytes(192)),  # STATS64
        attribute(7, bytes(96)),  # STATS
        attribute(43, attribute(2, b"\0")),  # XDP: not attached
        attribute(26, b""),  # AF_SPEC
    ]
    return b"".join(parts)


def address_messages(net: Net, family: int) -> list[bytes]:
    """inet_fill_ifaddr() and inet6_fill_ifaddr() of the loopback's addresses, for a family or (0) both."""
    if not net.loopback_up:
        return []
    flags = attribute(8, _IFA_F_PERMANENT.to_bytes(4, "little"))
    times = attribute(6, Struct("<4I").pack(_FOREVER, _FOREVER, 0, 0))
    out = []
    if family in (0, AF_INET):
        four = b"\x7f\0\0\1"
        head = _IFADDRMSG.pack(AF_INET, 8, _IFA_F_PERMANENT, _RT_SCOPE_HOST, LOOPBACK_INDEX)
        out.append(head + attribute(1, four) + attribute(2, four) + attribute(3, b"lo\0") + flags + times)
    if family in (0, AF_INET6):
        head = _IFADDRMSG.pack(AF_INET6, 128, _IFA_F_PERMANENT, _RT_SCOPE_HOST, LOOPBACK_INDEX)
        out.append(head + attribute(1, bytes(15) + b"\1") + times + flags)
    return out
