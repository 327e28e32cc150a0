"""`--net host-loopback`: AF_INET and AF_INET6 sockets that are the host's, on 127.0.0.1 and ::1 and nowhere else.

A socket is bound to the loopback address before it can receive anything, whatever the guest asked for, and sends and
connects to the two addresses only. The host's socket never blocks: who must wait sleeps on a HostWait (guest/idle.py).
Options that reach beyond the socket itself (interfaces, groups, transparent addresses, shared ports) stay in the guest.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

from guest.inet_options import IPPROTO_TCP, IPPROTO_UDP
from guest.pipe import send_sigpipe
from guest.sched import HostWait
from guest.socket import (
    AF_INET,
    MSG_DONTWAIT,
    MSG_OOB,
    MSG_TRUNC,
    SO_REUSEADDR,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    Net,
    Received,
    Scm,
    Sock,
)
from guest.socket_inet import ANY4, ANY6, LOOPBACK4, LOOPBACK6, InetSock, is_any
from guest.vfs_flags import POLLIN, POLLOUT, POLLRDNORM
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task

MSG_NOSIGNAL = 0x4000
_CHUNK = 1 << 16
_PASSED_TCP = (1, 3, 4, 5, 6)  # TCP_NODELAY, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT


def refused(error: OSError) -> Errno:
    """The guest's error for the host's; the host's own limits look like the system's."""
    number = error.errno or errno.EIO
    return Errno(errno.ENFILE if number == errno.EMFILE else number)


class HostSock(InetSock):
    """A TCP or UDP socket of the host."""

    def __init__(self, net: Net, kind: int, family: int, host: socket.socket | None = None) -> None:
        super().__init__(net, kind, family)
        self.stream = kind == SOCK_STREAM
        self.kind = "tcp" if self.stream else "udp"
        self.protocol = IPPROTO_TCP if self.stream else IPPROTO_UDP
        try:
            self.host = host or socket.socket(socket.AF_INET if family == AF_INET else socket.AF_INET6, kind)
        except OSError as error:
            raise refused(error) from None
        self.host.setblocking(False)
        self.read_wait = HostWait(self.host.fileno(), name="the host's network")
        self.write_wait = HostWait(self.host.fileno(), POLLOUT, name="the host's network")
        self.left: bytes | None = None  # received and not yet taken
        self.sender: Any = None
        self.asked = self.local  # the address the guest bound: the unspecified one is shown as such
        net.host_sockets.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"host": None}  # a saved machine has no connections

    # addresses

    def place(self, address: bytes, port: int) -> tuple[Any, ...]:
        """An address as the host's socket takes it. Raises ENETUNREACH for all but 127.0.0.1 and ::1."""
        if address not in (LOOPBACK4, LOOPBACK6):
            raise Errno(errno.ENETUNREACH)
        if self.family == AF_INET:
            return ("127.0.0.1", port)
        return ("::1" if address == LOOPBACK6 else "::ffff:127.0.0.1", port, 0, 0)

    def seen(self, where: Any) -> bytes:
        """The host's address as a sockaddr of the guest."""
        if self.family == AF_INET:
            return self.shown(ANY4[:12] + socket.inet_pton(socket.AF_INET, where[0]), where[1])
        return self.shown(socket.inet_pton(socket.AF_INET6, where[0]), where[1])

    def getname(self, peer: bool) -> bytes:
        try:
            name = self.seen(self.host.getpeername() if peer else self.host.getsockname())
        except OSError as error:
            raise refused(error) from None
        if not peer and is_any(self.asked) and self.state != TCP_ESTABLISHED:
            return self.shown(self.asked, int.from_bytes(name[2:4], "big"))
        return name

    def bind(self, task: Task, address: bytes) -> None:
        if len(address) < (16 if self.family == AF_INET else 24):
            raise Errno(errno.EINVAL)
        ip, port = self.parse(address, False)
        if port and port < 1024 and not task.capable(10):  # CAP_NET_BIND_SERVICE
            raise Errno(errno.EACCES)
        if not is_any(ip) and ip not in (LOOPBACK4, LOOPBACK6):
            raise Errno(errno.EADDRNOTAVAIL)
        self.asked = ip
        self.bind_host(ip, port)

    def bind_host(self, ip: bytes, port: int) -> None:
        """Bind to the loopback. One socket has one address: for both families 127.0.0.1 stands, as most clients do."""
        if is_any(ip):
            ip = LOOPBACK6 if ip == ANY6 and self.v6only else LOOPBACK4
        try:
            if self.family != AF_INET:
                self.host.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.v6only)
            self.host.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(bool(self.flags.get(SO_REUSEADDR))))
            self.host.bind(self.place(ip, port))
        except OSError as error:
            raise refused(error) from None
        self.port = port or self.host.getsockname()[1]

    def autobind_host(self, towards: bytes = ANY4) -> None:
        """Before anything could arrive: the host would bind to every address."""
        if not self.port:
            self.bind_host(towards if not is_any(towards) else self.local, 0)

    # connections

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise Errno(errno.EINVAL)
        if address[:2] == b"\0\0":
            self.disconnect()
            return
        target, port = self.target(address)
        where = self.place(target, port)
        if not self.stream:
            self.autobind_host(target)
        try:
            self.host.connect(where)
        except (BlockingIOError, InterruptedError) as error:
            if nonblock:
                raise refused(error) from None
            self.wait(task, self.write_wait, 0, self.sndtimeo)
        except OSError as error:
            raise refused(error) from None
        self.state = TCP_ESTABLISHED
        self.remote, self.remote_port = target, port

    def disconnect(self) -> None:
        """connect() to AF_UNSPEC: a datagram socket only, and it keeps its loopback address."""
        if self.stream:
            raise Errno(errno.EOPNOTSUPP)
        fresh = socket.socket(self.host.family, socket.SOCK_DGRAM)
        fresh.setblocking(False)
        self.host.close()
        self.host, self.port, self.remote_port, self.state = fresh, 0, 0, TCP_CLOSE
        self.read_wait.fd = self.write_wait.fd = fresh.fileno()

    def listen(self, task: Task, backlog: int) -> None:
        if not self.stream:
            raise Errno(errno.EOPNOTSUPP)
        self.autobind_host()
        try:
            self.host.listen(backlog)
        except OSError as error:
            raise refused(error) from None
        self.state = TCP_LISTEN

    def accept(self, task: Task, nonblock: bool) -> Sock:
        try:
            host, _ = self.host.accept()
        except BlockingIOError:
            self.wait(task, self.read_wait, nonblock, self.rcvtimeo)
            raise
        except OSError as error:
            raise refused(error) from None
        new = HostSock(self.net, SOCK_STREAM, self.family, host)
        new.state, new.port = TCP_ESTABLISHED, self.port
        return new

    def shutdown(self, how: int) -> None:
        try:
            self.host.shutdown(how)
        except OSError as error:
            raise refused(error) from None
        self.sk_shutdown |= how + 1

    # data

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        try:
            if name and not self.stream:
                target, port = self.target(name)
                self.autobind_host(target)
                return self.host.sendto(data, MSG_NOSIGNAL, self.place(target, port))
            if not self.stream and not self.remote_port:
                raise Errno(errno.EDESTADDRREQ)
            return self.host.send(data, MSG_NOSIGNAL | flags & MSG_OOB)
        except BlockingIOError:
            self.wait(task, self.write_wait, flags & MSG_DONTWAIT, self.sndtimeo)
            raise
        except BrokenPipeError:
            if not flags & MSG_NOSIGNAL:
                send_sigpipe(task)
            raise Errno(errno.EPIPE) from None
        except OSError as error:
            raise refused(error) from None

    def recv(self, task: Task, count: int, flags: int) -> Received:
        if self.left is None:
            try:
                if flags & MSG_OOB:
                    return Received(self.host.recv(1, MSG_OOB))
                if self.stream:
                    self.left, self.sender = self.host.recv(min(count, _CHUNK)), None
                else:
                    self.left, self.sender = self.host.recvfrom(_CHUNK)
            except BlockingIOError:
                if not self.stream and self.sk_shutdown & 1:
                    return Received(b"")
                self.wait(task, self.read_wait, flags & MSG_DONTWAIT, self.rcvtimeo)
                raise
            except OSError as error:
                raise refused(error) from None
        data = self.left
        if self.stream:
            return Received(data[:count])
        cut = MSG_TRUNC if count < len(data) else 0
        return Received(data[:count], len(data), self.seen(self.sender) if self.sender else None, cut)

    def take(self, count: int) -> None:
        if self.left is not None:
            self.left = self.left[count:] if self.stream else b""
            self.left = self.left or None

    # readiness, options, the end

    def poll(self, task: Task) -> int:
        poller = select.poll()
        poller.register(self.host.fileno(), 0x27CF)  # every POLL* bit
        found = poller.poll(0)
        return (found[0][1] if found else 0) | (POLLIN | POLLRDNORM if self.left else 0)

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.read_wait,) if self.state == TCP_LISTEN else (self.read_wait, self.write_wait)

    def inq(self) -> int:
        import fcntl

        waiting = int.from_bytes(fcntl.ioctl(self.host.fileno(), 0x541B, bytes(4)), "little")
        return waiting + len(self.left or b"")

    def sock_error(self) -> int:
        return self.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        super().setsockopt(task, level, name, value)
        if level == IPPROTO_TCP and name in _PASSED_TCP:
            try:
                self.host.setsockopt(level, name, value[:4])
            except OSError as error:
                raise refused(error) from None

    def release(self) -> None:
        self.dead = True
        self.net.host_sockets.discard(self)
        try:
            if self.stream and self.linger[0] and not self.linger[1]:
                self.host.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
            self.host.close()
        except OSError:
            return
