"""AF_NETLINK (net/netlink/af_netlink.c): datagrams to the kernel and from it.

    NETLINK_ROUTE      asked for interfaces and addresses, answers (guest/rtnetlink.py)
    NETLINK_USERSOCK   between programs; also what mq_notify(SIGEV_THREAD) sends its cookie to
    NETLINK_SOCK_DIAG, GENERIC   there, but have no family to ask (ENOENT); NETLINK_KOBJECT_UEVENT: nothing happens

A number (portid) names a socket of a protocol; 0 is the kernel. Nothing is multicast.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.socket import (
    MSG_DONTWAIT,
    MSG_OOB,
    MSG_TRUNC,
    SOCK_DGRAM,
    SOCK_RAW,
    TCP_CLOSE,
    Net,
    Received,
    Scm,
    Sock,
)
from guest.vfs_flags import POLLERR, POLLIN, POLLOUT, POLLRDNORM, POLLWRBAND, POLLWRNORM
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

AF_NETLINK, SOL_NETLINK = 16, 270
NETLINK_ROUTE, NETLINK_USERSOCK, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC = 0, 2, 4, 15, 16
_PROTOCOLS = (NETLINK_ROUTE, NETLINK_USERSOCK, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC)
_MAX_LINKS = 32
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP = 1, 2, 4, 0x100, 0x300
NLMSG_ERROR, NLMSG_DONE, NLMSG_MIN_TYPE = 2, 3, 16
NLMSGHDR = Struct("<IHHII")  # length, type, flags, sequence, portid
_ADDRESS = Struct("<HHII")  # family, pad, portid, groups
_OVERHEAD = 768  # what a message costs the receive buffer beyond its data
_ROVER = 0xFFFFF000  # portids for those whose own is taken, downwards
CAP_NET_ADMIN = 12
_CAP_ACK = 10
_FLAG_OPTIONS = (3, 4, 5, 8, _CAP_ACK, 11, 12)  # PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, EXT_ACK, ...


def netlink_create(net: Net, kind: int, protocol: int) -> Sock:
    """A socket of one of the protocols there are. Raises ESOCKTNOSUPPORT, EPROTONOSUPPORT."""
    if kind not in (SOCK_RAW, SOCK_DGRAM):
        raise Errno(errno.ESOCKTNOSUPPORT)
    if not 0 <= protocol < _MAX_LINKS or protocol not in _PROTOCOLS:
        raise Errno(errno.EPROTONOSUPPORT)
    return NetlinkSock(net, kind, protocol)


def attribute(kind: int, body: bytes) -> bytes:
    """struct rtattr and its body, padded."""
    size = 4 + len(body)
    return size.to_bytes(2, "little") + kind.to_bytes(2, "little") + body + bytes(-size % 4)


class NetlinkSock(Sock):
    """struct netlink_sock."""

    family = AF_NETLINK

    def __init__(self, net: Net, kind: int, protocol: int) -> None:
        super().__init__(net, kind)
        self.protocol = protocol
        self.portid = 0
        self.bound = False
        self.target = (0, 0)  # connect(): portid and groups
        self.queue: list[tuple[bytes, int]] = []  # message and its sender
        self.charged = 0

    # names

    def bind(self, task: Task, address: bytes) -> None:
        if len(address) < _ADDRESS.size:
            raise Errno(errno.EINVAL)
        family, _, portid, groups = _ADDRESS.unpack(address[: _ADDRESS.size])
        if family != AF_NETLINK:
            raise Errno(errno.EINVAL)
        if groups and self.protocol != NETLINK_ROUTE and not task.capable(CAP_NET_ADMIN):
            raise Errno(errno.EPERM)
        if self.bound:
            if portid != self.portid:
                raise Errno(errno.EINVAL)
            return
        if portid:
            self.insert(portid)
        else:
            self.autobind(task)

    def insert(self, portid: int) -> None:
        """netlink_insert(). Raises EADDRINUSE."""
        key = (self.protocol, portid)
        if key in self.net.netlink:
            raise Errno(errno.EADDRINUSE)
        self.net.netlink[key] = self
        self.portid, self.bound = portid, True

    def autobind(self, task: Task) -> None:
        """netlink_autobind(): the process's number, or one nobody has."""
        portid = task.vnr(task.tgid)
        while (self.protocol, portid) in self.net.netlink:
            portid = _ROVER if portid < _ROVER - (1 << 30) else portid - 1
        self.insert(portid)

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        if address[:2] == b"\0\0":
            self.target = (0, 0)
            return
        self.target = self.address_in(address)
        if not self.bound:
            self.autobind(task)

    def address_in(self, address: bytes) -> tuple[int, int]:
        """A sockaddr_nl as portid and groups. Raises EINVAL."""
        if len(address) < _ADDRESS.size or int.from_bytes(address[:2], "little") != AF_NETLINK:
            raise Errno(errno.EINVAL)
        _, _, portid, groups = _ADDRESS.unpack(address[: _ADDRESS.size])
        return portid, groups

    def getname(self, peer: bool) -> bytes:
        portid, groups = self.target if peer else (self.portid, 0)
        return _ADDRESS.pack(AF_NETLINK, 0, portid, groups)

    # data

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        portid, groups = self.address_in(name) if name else self.target
        if (portid or groups) and self.protocol != NETLINK_USERSOCK and not task.capable(CAP_NET_ADMIN):
            raise Errno(errno.EPERM)
        if not self.bound:
            self.autobind(task)
        if len(data) > self.sk_sndbuf - 32:
            raise Errno(errno.EMSGSIZE)
        if portid:
            self.unicast(task, portid, data, flags)
        elif self.protocol == NETLINK_USERSOCK:
            raise Errno(errno.ECONNREFUSED)
        else:
            self.kernel_receives(task, data)
        return len(data)

    def unicast(self, task: Task, portid: int, data: bytes, flags: int) -> None:
        """netlink_unicast() to a program. Raises ECONNREFUSED, EAGAIN; sleeps for room."""
        other: NetlinkSock | None = self.net.netlink.get((self.protocol, portid))
        if other is None:
            raise Errno(errno.ECONNREFUSED)
        if other.charged > other.sk_rcvbuf:
            self.wait_space(task, other.wq, flags & MSG_DONTWAIT)
        other.deliver(data, self.portid)

    def kernel_receives(self, task: Task, data: bytes) -> None:
        """netlink_rcv_skb(): each request is served, and answered if it asks for that or fails."""
        from guest.rtnetlink import rtnetlink_rcv_msg

        while len(data) >= NLMSGHDR.size:
            length, kind, flags, sequence, _ = NLMSGHDR.unpack_from(data)
            if not NLMSGHDR.size <= length <= len(data):
                return
            request, data = data[:length], data[length + 3 & ~3 :]
            error = 0
            if flags & NLM_F_REQUEST and kind >= NLMSG_MIN_TYPE:
                try:
                    if self.protocol != NETLINK_ROUTE:
                        raise Errno(errno.ENOENT)
                    if rtnetlink_rcv_msg(task, self, kind, flags, sequence, request[NLMSGHDR.size :]):
                        continue  # a dump ends with a message of its own
                except Errno as refusal:
                    error = refusal.number
            if flags & NLM_F_ACK or error:
                self.acknowledge(request, sequence, error)

    def acknowledge(self, request: bytes, sequence: int, error: int) -> None:
        """netlink_ack(): the request comes back, whole when it failed."""
        whole = error and not self.flags.get(_CAP_ACK)
        body = (-error).to_bytes(4, "little", signed=True) + (request if whole else request[: NLMSGHDR.size])
        self.answer(NLMSG_ERROR, 0 if whole else NLM_F_CAPPED, sequence, body)

    def answer(self, kind: int, flags: int, sequence: int, body: bytes) -> None:
        """One message from the kernel."""
        self.deliver(self.message(kind, flags, sequence, body), 0)

    def message(self, kind: int, flags: int, sequence: int, body: bytes) -> bytes:
        """Header and body, padded."""
        size = NLMSGHDR.size + len(body)
        return NLMSGHDR.pack(size, kind, flags, sequence, self.portid) + body + bytes(-size % 4)

    def dump(self, kind: int, sequence: int, bodies: list[bytes]) -> None:
        """netlink_dump(): everything in one datagram, and a second one that says it is done."""
        if bodies:
            whole = b"".join(self.message(kind, NLM_F_MULTI, sequence, body) for body in bodies)
            self.deliver(whole, 0)
        self.answer(NLMSG_DONE, NLM_F_MULTI, sequence, bytes(4))

    def deliver(self, data: bytes, sender: int) -> None:
        """Into the receive queue; the kernel's own messages are lost when it is full (ENOBUFS for the reader)."""
        memory = self.net.memory
        if memory.other >= memory.other_max and sender:
            raise Errno(errno.ENOBUFS)
        if not sender and (self.charged > self.sk_rcvbuf or memory.other >= memory.other_max):
            self.sk_err = errno.ENOBUFS
            self.wq.wake_all()
            return
        self.charge(len(data) + _OVERHEAD)
        self.queue.append((data, sender))
        self.data_ready()

    def charge(self, size: int) -> None:
        """Bytes that come to wait here, or wait no more (negative)."""
        self.charged += size
        self.net.memory.other += size

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if flags & MSG_OOB:
            raise Errno(errno.EOPNOTSUPP)
        self.raise_error()
        if not self.queue:
            self.wait(task, self.wq, flags & MSG_DONTWAIT, self.rcvtimeo)
        data, sender = self.queue[0]
        cut = MSG_TRUNC if count < len(data) else 0
        return Received(data[:count], len(data), _ADDRESS.pack(AF_NETLINK, 0, sender, 0), cut)

    def take(self, count: int) -> None:
        if self.queue:
            self.charge(-len(self.queue.pop(0)[0]) - _OVERHEAD)
            self.wake_space()

    def poll(self, task: Task) -> int:
        mask = POLLOUT | POLLWRNORM | POLLWRBAND
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        return mask | POLLERR if self.sk_err else mask

    # options

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        if level != SOL_NETLINK:
            raise Errno(errno.ENOPROTOOPT)
        if name in (1, 2):  # NETLINK_ADD_MEMBERSHIP, DROP_MEMBERSHIP: no group ever says anything
            if not 0 < int.from_bytes(value[:4], "little") <= _MAX_LINKS:
                raise Errno(errno.EINVAL)
            return
        if name not in _FLAG_OPTIONS:
            raise Errno(errno.ENOPROTOOPT)
        self.flags[name] = int(any(value[:4]))

    def getsockopt(self, task: Task, level: int, name: int, size: int) -> bytes:
        if level != SOL_NETLINK or name not in _FLAG_OPTIONS:
            raise Errno(errno.ENOPROTOOPT)
        if size < 4:
            raise Errno(errno.EINVAL)
        return self.flags.get(name, 0).to_bytes(4, "little")

    def release(self) -> None:
        self.dead, self.state = True, TCP_CLOSE
        if self.bound:
            del self.net.netlink[(self.protocol, self.portid)]
        self.queue = []
        self.charge(-self.charged)
        self.wq.wake_all()
