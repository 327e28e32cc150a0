"""What all sockets share: the file, waiting, and the options of SOL_SOCKET (net/socket.c, net/core/sock.c).

    SocketFile --sk--> Sock (UnixSock in socket_unix.py, TcpSock and UdpSock in socket_inet.py)

Everything is inside the machine: there is no way from a guest's socket to the host's network. Receiving is in two
steps, `recv()` shows and `take()` removes, so that data survives a bad buffer.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from guest.fasync import POLL_IN, POLL_OUT, f_getown, f_setown_number, kill_fasync
from guest.file import OpenFile, fput
from guest.nsproxy import CLONE_NEWNET, first_spaces
from guest.sched import Restart, WaitQueue, sleep_on
from guest.vfs_flags import (
    O_NONBLOCK,
    O_RDWR,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    S_IFSOCK,
    s32,
)
from guest.vfs_types import Inode, Path, SuperBlock
from mm.errors import Errno
from mm.uaccess import get_user, put_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.kernel import Kernel
    from guest.task import Task
    from mm.system import System

SIOCGSKNS, CAP_NET_ADMIN = 0x894C, 12
AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6 = 0, 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 2, 3, 5
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_CLOSE, TCP_LISTEN = 1, 2, 7, 10
RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK = 1, 2, 3
MSG_OOB, MSG_PEEK, MSG_CTRUNC, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR = 1, 2, 8, 0x20, 0x40, 0x80
MSG_WAITALL, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_WAITFORONE, MSG_CMSG_CLOEXEC = 0x100, 0x2000, 0x4000, 0x10000, 0x40000000
SOL_SOCKET = 1
SIOCINQ, SIOCOUTQ = 0x541B, 0x5411
READ_KEY = POLLIN | POLLRDNORM
WRITE_KEY = POLLOUT | POLLWRNORM | POLLWRBAND
STATE_KEY = READ_KEY | WRITE_KEY | POLLRDHUP | 0x18

WMEM_MAX = RMEM_MAX = 212992  # sysctl net.core.{w,r}mem_{default,max}
_SOMAXCONN = 4096
OVERFLOW_ID = 65534

(
    SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE,
    SO_OOBINLINE, SO_NO_CHECK, SO_PRIORITY, SO_LINGER, SO_BSDCOMPAT, SO_REUSEPORT, SO_PASSCRED, SO_PEERCRED,
    SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO,
) = range(1, 22)  # fmt: skip
SO_ACCEPTCONN, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK, SO_PROTOCOL, SO_DOMAIN = 30, 32, 33, 36, 38, 39
SO_TIMESTAMP, SO_TIMESTAMPNS = 29, 35


class SocketMemory:
    """How many bytes wait in the sockets of all networks, and how many may: tcp_mem[2], udp_mem[2] (tcp_init_mem()).

    What AF_UNIX and AF_NETLINK hold is the kernel's own memory, which Linux gives until there is none. Here the host
    would pay for it: a quarter of the machine's, then ENOBUFS.
    """

    __slots__ = ("other", "other_max", "tcp", "tcp_max", "udp", "udp_max")

    def __init__(self, system: System) -> None:
        pages, size = system.totalram_pages, system.page_size
        self.tcp = self.udp = self.other = 0
        self.tcp_max: int = max(pages // 16, 128) // 4 * 6 * size
        self.udp_max: int = max(pages // 8, 128) // 4 * 6 * size
        self.other_max: int = pages // 4 * size


class Net:
    """A network: names, ports and a loopback interface (struct net). The first is the machine's."""

    def __init__(self, kernel: Kernel) -> None:
        self.sockfs: SuperBlock = kernel.vfs.sockfs
        first: Net | None = kernel.vfs.net
        self.memory: SocketMemory = first.memory if first is not None else SocketMemory(kernel.system)
        self.abstract: dict[tuple[int, bytes], Any] = {}  # (type, name): AF_UNIX sockets without a path
        self.space: Any = None  # the namespace; None: the first
        self.ports: dict[tuple[str, int], list[Any]] = {}  # ("tcp" or "udp", port): bound sockets
        self.time_wait: dict[int, int] = {}  # TCP port: until when (ns) it lingers
        self.next_port = 32768
        self.netlink: dict[tuple[int, int], Any] = {}  # (protocol, portid): netlink sockets
        self.loopback_up = True
        self.cookies = 0  # SO_COOKIE numbers given so far
        self.host_sockets: set[Any] = set()  # the host's, with --net host-loopback


def net_of(task: Task) -> Net:
    """The network of the task's namespace; the machine's is made when first used."""
    proxy, vfs = task.nsproxy, task.kernel.vfs
    net: Net | None = proxy.spaces[CLONE_NEWNET].net if proxy is not None else None
    if net is None:
        net = vfs.net
    if net is None:
        net = vfs.net = Net(task.kernel)
    return net


class Scm:
    """What goes along with data: descriptors and who sent it (struct scm_cookie)."""

    __slots__ = ("cred", "fds")

    def __init__(self) -> None:
        self.fds: list[OpenFile] = []
        self.cred: tuple[int, int, int] | None = None  # pid, uid, gid

    def destroy(self) -> None:
        """scm_destroy()."""
        fds, self.fds = self.fds, []
        for file in fds:
            fput(file)


class Received(NamedTuple):
    """What recv() shows."""

    data: bytes
    length: int = -1  # of the whole message; -1: of data
    name: bytes | None = None  # sender's address
    flags: int = 0  # MSG_TRUNC
    fds: tuple[OpenFile, ...] = ()
    cred: tuple[int, int, int] | None = None
    control: tuple[tuple[int, int, bytes], ...] = ()  # level, type and body of further control messages


class Sock:
    """struct sock: one end of a communication. Operations that do not apply raise EOPNOTSUPP, as sock_no_*() do."""

    family = AF_UNSPEC
    protocol = 0
    stream = False  # bytes, not messages

    def __init__(self, net: Net, kind: int) -> None:
        self.net = net
        self.type = kind
        self.state = TCP_CLOSE
        self.sk_err = 0
        self.sk_shutdown = 0
        self.sk_sndbuf = WMEM_MAX
        self.sk_rcvbuf = RMEM_MAX
        self.backlog = 0
        self.flags: dict[int, int] = {}  # options that are only remembered
        self.passcred = 0
        self.peek_off: int | None = None  # SO_PEEK_OFF where the kind has it; -1: off
        self.incoming_cpu = -1  # SO_INCOMING_CPU
        self.cookie = 0  # SO_COOKIE, once somebody asks
        self.rcvlowat = 1
        self.rcvtimeo: int | None = None  # ns
        self.sndtimeo: int | None = None
        self.linger = (0, 0)
        self.peercred: tuple[int, int, int] | None = None
        self.peergroups: list[int] = []
        self.dead = False  # no file any more
        self.file: SocketFile | None = None  # its descriptor's open file
        self.fasync: list[Any] = []  # files with O_ASYNC
        self.async_nospace = False  # somebody found no room since the last time there was some
        self.wq = WaitQueue("a socket")

    # operations of a protocol

    def bind(self, task: Task, address: bytes) -> None:
        raise Errno(errno.EOPNOTSUPP)

    def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        raise Errno(errno.EOPNOTSUPP)

    def listen(self, task: Task, backlog: int) -> None:
        raise Errno(errno.EOPNOTSUPP)

    def accept(self, task: Task, nonblock: bool) -> Sock:
        raise Errno(errno.EOPNOTSUPP)

    def getname(self, peer: bool) -> bytes:
        raise Errno(errno.EOPNOTSUPP)

    def shutdown(self, how: int) -> None:
        raise Errno(errno.EOPNOTSUPP)

    def send(self, task: Task, data: bytes, name: bytes | None, flags: int, scm: Scm) -> int:
        """Some or all of `data`; the protocol takes over scm's descriptors when it sends."""
        raise Errno(errno.EOPNOTSUPP)

    def recv(self, task: Task, count: int, flags: int) -> Received:
        """What a receive of `count` bytes would get now; sleeps."""
        raise Errno(errno.EOPNOTSUPP)

    def take(self, count: int) -> None:
        """The first `count` bytes (or the message) of the last recv() are gone."""

    def poll(self, task: Task) -> int:
        return 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.wq,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        raise Errno(errno.ENOTTY)

    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        raise Errno(errno.EOPNOTSUPP)

    def getsockopt(self, task: Task, level: int, name: int, size: int) -> bytes:
        raise Errno(errno.EOPNOTSUPP)

    def release(self) -> None:
        """The file is gone."""

    def show_fdinfo(self) -> str:
        return ""

    # conveniences

    def sock_error(self) -> int:
        """Take the pending error."""
        number, self.sk_err = self.sk_err, 0
        return number

    def raise_error(self) -> None:
        """Raise the pending error, if any."""
        number = self.sock_error()
        if number:
            raise Errno(number)

    def wait(self, task: Task, queue: WaitQueue, nonblock: int, timeo: int | None) -> None:
        """Sleep within a timeout of the socket. Raises EAGAIN, EINTR (with a timeout), Restart, Block."""
        if nonblock:
            raise Errno(errno.EAGAIN)
        deadline: int | None = None
        if timeo is not None:
            now = task.kernel.clock.now
            deadline = task.wait_state.setdefault("timeo", now + timeo)
            if deadline is not None and now >= deadline:
                raise Errno(errno.EAGAIN)
        try:
            sleep_on(task, queue, deadline=deadline)
        except Restart:
            if timeo is not None:
                raise Errno(errno.EINTR) from None
            raise

    def wait_space(self, task: Task, queue: WaitQueue, nonblock: int) -> None:
        """Sleep until there is room to send."""
        self.async_nospace = True
        self.wait(task, queue, nonblock, self.sndtimeo)

    def cookie_bytes(self, size: int) -> bytes:
        """sock_gen_cookie(): a number no other socket has. Raises EINVAL for less than 8 bytes."""
        if size < 8:
            raise Errno(errno.EINVAL)
        if not self.cookie:
            self.net.cookies += 1
            self.cookie = self.net.cookies
        return self.cookie.to_bytes(8, "little")

    def past_peeked(self, queue: list[Any], flags: int, size: Callable[[Any], int]) -> tuple[list[Any], int]:
        """Where a peek begins by SO_PEEK_OFF: the messages from there on, and how much of the first to leave out."""
        skip = max(self.peek_off or 0, 0) if flags & MSG_PEEK else 0
        while queue and skip and skip >= size(queue[0]):
            skip -= size(queue[0])
            queue = queue[1:]
        return queue, skip

    def peeked(self, count: int) -> None:
        """sk_peek_offset_fwd(): a peek has shown `count` bytes."""
        if self.peek_off is not None and self.peek_off >= 0:
            self.peek_off += count

    def consumed(self, count: int) -> None:
        """sk_peek_offset_bwd(): `count` bytes are gone."""
        if self.peek_off is not None and self.peek_off > 0:
            self.peek_off = max(self.peek_off - count, 0)

    def state_change(self) -> None:
        """sk_state_change()."""
        self.wq.wake_all()

    def data_ready(self) -> None:
        """sk_data_ready()."""
        self.wq.wake_all(READ_KEY)
        if self.fasync:
            self.wake_async(POLL_IN)

    def wake_space(self) -> None:
        """The wake-up of sk_write_space()."""
        self.wq.wake_all(WRITE_KEY)
        if self.async_nospace:
            self.async_nospace = False
            self.wake_async(POLL_OUT)

    def wake_async(self, band: int) -> None:
        """sk_wake_async(): SIGIO for those who asked for it."""
        if self.fasync:
            kill_fasync(self.net.sockfs.kernel, self.fasync, band)


class SocketFile(OpenFile):
    """A socket's descriptor (struct socket)."""

    has_read_iter = has_write_iter = True

    stream = True
    can_fasync = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, sk: Sock) -> None:
        super().__init__(path, inode, flags)
        self.sk = sk
        sk.file = self

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if not count:
            return b""
        return self.sk.recv(task, count, MSG_DONTWAIT if self.f_flags & O_NONBLOCK else 0).data

    def consume(self, count: int) -> None:
        self.sk.take(count)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        return self.sk.send(task, data, None, MSG_DONTWAIT if self.f_flags & O_NONBLOCK else 0, Scm())

    def poll(self, task: Task) -> int:
        return self.sk.poll(task)

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return self.sk.poll_queues(task)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP
            f_setown_number(task, self, s32(get_user(task, arg, 4)))
            return 0
        if cmd in (0x8903, 0x8904):  # FIOGETOWN, SIOCGPGRP
            return put_int(task, arg, f_getown(task, self))
        if cmd == SIOCGSKNS:
            return self.namespace_fd(task)
        if 0x8910 <= cmd <= 0x8970:
            from guest.netdevice import sock_do_ioctl

            return sock_do_ioctl(task, self.sk, cmd, arg)
        return self.sk.ioctl(task, cmd, arg)

    def namespace_fd(self, task: Task) -> int:
        """SIOCGSKNS: a descriptor of the socket's namespace. Raises EPERM."""
        from guest.procfs_pid import ns_path

        if not task.capable(CAP_NET_ADMIN):
            raise Errno(errno.EPERM)
        space = self.sk.net.space or first_spaces(task.kernel).spaces[CLONE_NEWNET]
        path = ns_path(task, CLONE_NEWNET, space)
        fd: int = task.files.add(task, path.dentry.d_inode.open(path, 0, task), True)
        return fd

    def show_fdinfo(self, sb: Any) -> str:
        return self.sk.show_fdinfo()

    def fasync_lists(self) -> tuple[list[Any], ...]:
        return (self.sk.fasync,)

    def closed(self) -> None:
        self.sk.file = None
        self.sk.release()


def socket_file(task: Task, sk: Sock, nonblock: int) -> SocketFile:
    """sock_alloc_file()."""
    from guest.tty import anonymous_path

    sb = sk.net.sockfs
    inode = Inode(sb, S_IFSOCK | 0o777, task.cred.fsuid, task.cred.fsgid)
    path = anonymous_path(sb, inode, b"socket:[%d]" % inode.i_ino)
    return SocketFile(path, inode, O_RDWR | (O_NONBLOCK if nonblock else 0), sk)


def put_int(task: Task, arg: int, value: int) -> int:
    """An ioctl's int result."""
    put_user(task, arg, value & 0xFFFFFFFF, 4)
    return 0
