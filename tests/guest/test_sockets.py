"""Sockets: AF_UNIX, and AF_INET on the internal loopback."""

import errno
import struct

import pytest
from guest_world import World

from guest.sched import Block
from guest.task import Task

UNIX, INET, INET6, STREAM, DGRAM, SEQPACKET = 1, 2, 10, 1, 2, 5
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
IN, PRI, OUT, ERR, HUP, RDHUP = 1, 2, 4, 8, 16, 0x2000
PEEK, TRUNC, DONTWAIT, WAITALL, NOSIGNAL = 2, 0x20, 0x40, 0x100, 0x4000


@pytest.fixture
def world() -> World:
    return World()


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


def pair(world: World, kind: int = STREAM, flags: int = NONBLOCK) -> tuple[int, int]:
    fds = world.put(bytes(8))
    assert world.call("socketpair", UNIX, kind | flags, 0, fds) == 0
    return struct.unpack("<ii", world.get(fds, 8))  # type: ignore[return-value]


def sun(path: str) -> bytes:
    return struct.pack("<H", UNIX) + path.encode() + b"\0"


def sin(port: int, address: str = "127.0.0.1") -> bytes:
    return struct.pack("<H", INET) + port.to_bytes(2, "big") + bytes(map(int, address.split("."))) + bytes(8)


def sin6(port: int, address: bytes = bytes(15) + b"\1") -> bytes:
    return struct.pack("<H", INET6) + port.to_bytes(2, "big") + bytes(4) + address + bytes(4)


def poll(world: World, fd: int) -> int:
    entry = world.put(struct.pack("<ihh", fd, 0x7FFF & ~0x3C0, 0))
    world.call("poll", entry, 1, 0)
    return int(struct.unpack("<ihh", world.get(entry, 8))[2])


def make(
    world: World, family: int, kind: int = STREAM, address: bytes | None = None, backlog: int | None = None
) -> int:
    fd = world.call("socket", family, kind | NONBLOCK, 0)
    assert fd >= 0, name(fd)
    if address is not None:
        assert world.call("bind", fd, address, len(address)) == 0
    if backlog is not None:
        assert world.call("listen", fd, backlog) == 0
    return fd


def connect(world: World, fd: int, address: bytes) -> str:
    return name(world.call("connect", fd, address, len(address)))


def address_of(world: World, fd: int, call: str = "getsockname", room: int = 110) -> bytes:
    buf, size = world.put(bytes(128)), world.put(struct.pack("<i", room))
    assert world.call(call, fd, buf, size) == 0
    return world.get(buf, struct.unpack("<i", world.get(size, 4))[0])


def option(world: World, fd: int, number: int, level: int = 1) -> int:
    buf, size = world.put(bytes(4)), world.put(struct.pack("<i", 4))
    assert world.call("getsockopt", fd, level, number, buf, size) == 0
    return int(struct.unpack("<i", world.get(buf, 4))[0])


def message(world: World, data: bytes, control: bytes = b"", address: bytes = b"") -> int:
    buf = world.put(data) if data else world.put(b"\0")
    vector = world.put(struct.pack("<QQ", buf, len(data)))
    where = world.put(control) if control else 0
    who = world.put(address) if address else 0
    return world.put(struct.pack("<QiiQQQQii", who, len(address), 0, vector, 1, where, len(control), 0, 0))


def received(
    world: World, fd: int, count: int = 64, control: int = 64, flags: int = 0
) -> tuple[int, bytes, bytes, int]:
    """Result, data, control, flags of a recvmsg."""
    buf, where = world.put(bytes(count)), world.put(bytes(control or 1))
    vector = world.put(struct.pack("<QQ", buf, count))
    msg = world.put(struct.pack("<QiiQQQQii", 0, 0, 0, vector, 1, where if control else 0, control, 0, 0))
    done = world.call("recvmsg", fd, msg, flags)
    fields = struct.unpack("<QiiQQQQii", world.get(msg, 56))
    return (
        done,
        world.get(buf, max(min(done, count), 0)) if done > 0 else b"",
        world.get(where, fields[6] or 1),
        fields[7],
    )


def another(world: World) -> Task:
    task = world.new_task()
    task.files = world.task.files
    task.fs = world.task.fs
    return task


# which sockets there are


def test_families_and_types(world: World) -> None:
    def made(*args: int) -> str:
        return name(world.call("socket", *args))

    assert [made(family, STREAM, 0) for family in (UNIX, INET, INET6)] == ["ok"] * 3
    assert [made(family, STREAM, 0) for family in (0, 17, 38, 44, 45, -1)] == ["EAFNOSUPPORT"] * 6
    assert made(UNIX, 4, 0) == "ESOCKTNOSUPPORT"
    assert made(UNIX, STREAM, 6) == "EPROTONOSUPPORT"
    assert made(INET, STREAM, 17) == "EPROTONOSUPPORT"
    assert made(INET, SEQPACKET, 0) == "ESOCKTNOSUPPORT"
    assert made(INET, 12, 0) == "EINVAL"
    assert made(INET, STREAM | 0x100, 0) == "EINVAL"
    fd = world.call("socket", UNIX, STREAM | CLOEXEC, 0)
    assert world.call("fcntl", fd, 1, 0) == 1
    assert name(world.call("listen", 0, 1)) == "ENOTSOCK"
    assert name(world.call("listen", 99, 1)) == "EBADF"
    assert [option(world, fd, number) for number in (3, 38, 39, 4, 7)] == [STREAM, 0, UNIX, 0, 212992]


# AF_UNIX


def test_stream_pair(world: World) -> None:
    a, b = pair(world)
    assert name(world.read(b)) == "EAGAIN"  # type: ignore[arg-type]
    assert poll(world, b) == OUT
    world.write(a, b"one")
    world.write(a, b"two")
    assert poll(world, b) == IN | OUT
    assert world.read(b, 4) == b"onet"
    assert world.read(b, 4) == b"wo"
    world.write(b, b"lost")
    world.call("close", b)
    assert poll(world, a) == IN | OUT | HUP | RDHUP
    assert world.read(a) == b"lost"
    assert world.read(a) == b""
    assert name(world.write(a, b"x")) == "EPIPE"
    assert world.task.pending.signal & 1 << 12
    a, b = pair(world)
    world.write(a, b"unread")
    world.call("close", b)
    assert poll(world, a) == IN | OUT | HUP | RDHUP | ERR
    assert option(world, a, 4) == errno.ECONNRESET


def test_how_much_a_stream_holds(world: World) -> None:
    a, b = pair(world)
    assert world.write(a, bytes(400000)) == 219264  # six buffers of 36544, as Linux with 4K pages
    assert poll(world, a) == 0
    assert len(world.read(b, 65536)) + len(world.read(b, 65536)) == 131072  # type: ignore[arg-type]
    assert poll(world, a) == 0  # not writable before three quarters are free
    world.read(b, 65536)
    assert poll(world, a) == OUT
    a, b = pair(world)
    assert [world.write(a, b"x") for _ in range(279)] == [1] * 278 + [-errno.EAGAIN]


def test_datagrams_keep_their_borders(world: World) -> None:
    for kind in (DGRAM, SEQPACKET):
        a, b = pair(world, kind)
        assert world.write(a, b"one") == 3
        assert world.write(a, b"") == 0
        assert world.write(a, b"three") == 5
        assert world.read(b, 2) == b"on"
        assert world.read(b) == b""
        buf = world.put(bytes(8))
        assert world.call("recvfrom", b, buf, 2, PEEK | TRUNC, 0, 0) == 5
        assert received(world, b, 2)[1::2] == (b"th", TRUNC)
        assert name(world.read(b)) == "EAGAIN"  # type: ignore[arg-type]
        assert name(world.write(a, bytes(212961))) == "EMSGSIZE"


def test_blocking_ones_sleep_and_are_woken(world: World) -> None:
    a, b = pair(world, flags=0)
    other = another(world)
    with pytest.raises(Block):
        world.read(b, 10, task=other)
    assert other.state == "S"
    world.write(a, b"hello")
    assert other.state == "R"
    assert world.read(b, 10, task=other) == b"hello"
    world.call("setsockopt", b, 1, 20, struct.pack("<qq", 0, 1000), 16)
    with pytest.raises(Block):
        world.read(b, 10, task=other)
    assert other.deadline == world.kernel.clock.now + 1_000_000


def test_shutdown(world: World) -> None:
    a, b = pair(world)
    world.write(a, b"x")
    assert name(world.call("shutdown", a, 3)) == "EINVAL"
    assert world.call("shutdown", a, 1) == 0
    assert poll(world, b) == IN | OUT | RDHUP
    assert (world.read(b), world.read(b)) == (b"x", b"")
    assert name(world.call("sendto", a, b"y", 1, NOSIGNAL, 0, 0)) == "EPIPE"
    assert world.task.pending.signal == 0
    assert world.write(b, b"still") == 5
    assert world.call("shutdown", a, 0) == 0
    assert poll(world, b) & HUP
    assert name(world.call("sendto", b, b"y", 1, NOSIGNAL, 0, 0)) == "EPIPE"


def test_descriptors_travel(world: World) -> None:
    a, b = pair(world)
    fd = world.open("/tmp/f", 0o102)
    world.write(fd, b"content")
    rights = struct.pack("<QiiI", 20, 1, 1, fd)
    assert world.call("sendmsg", a, message(world, b"take", rights), 0) == 4
    file = world.task.files.get(fd)
    assert file.f_count == 2
    world.call("close", fd)
    done, data, control, flags = received(world, b, flags=0x40000000)
    assert (done, data, flags) == (4, b"take", 0x40000000)
    size, level, kind, new = struct.unpack("<QiiI", control[:20])
    assert (size, level, kind) == (20, 1, 1)
    assert world.task.files.get(new) is file and file.f_count == 1
    assert world.call("fcntl", new, 1, 0) == 1
    # no room for it: closed again
    assert world.call("sendmsg", a, message(world, b"more", struct.pack("<QiiI", 20, 1, 1, new)), 0) == 4
    assert received(world, b, control=0)[3] == 8
    assert file.f_count == 1
    # in flight when the socket goes
    world.call("sendmsg", a, message(world, b"more", struct.pack("<QiiI", 20, 1, 1, new)), 0)
    world.call("close", b)
    assert file.f_count == 1
    assert name(world.call("sendmsg", a, message(world, b"x", struct.pack("<QiiI", 20, 1, 1, 99)), 0)) == "EBADF"
    assert name(world.call("sendmsg", a, message(world, b"x", struct.pack("<Qii", 99, 1, 1)), 0)) == "EINVAL"


def test_data_behind_descriptors_waits(world: World) -> None:
    a, b = pair(world)
    world.write(a, b"before")
    world.call("sendmsg", a, message(world, b"with", struct.pack("<QiiI", 20, 1, 1, a)), 0)
    world.write(a, b"after")
    assert received(world, b)[1] == b"beforewith"
    assert received(world, b)[1] == b"after"


def test_credentials(world: World) -> None:
    a, b = pair(world)
    one = struct.pack("<i", 1)
    assert world.call("setsockopt", b, 1, 16, one, 4) == 0
    world.write(a, b"x")
    _, _, control, _ = received(world, b)
    assert struct.unpack("<QiiiII", control[:28]) == (28, 1, 2, world.task.pid, 0, 0)
    forged = struct.pack("<QiiiII", 28, 1, 2, 1, 5, 6).ljust(32, b"\0")
    assert world.call("sendmsg", a, message(world, b"x", forged), 0) == 1
    assert struct.unpack("<QiiiII", received(world, b)[2][:28])[3:] == (1, 5, 6)
    world.task.cred = type(world.task.cred)(1000, 1000)
    world.task.cap_effective = world.task.cred.cap_effective
    assert name(world.call("sendmsg", a, message(world, b"x", forged), 0)) == "EPERM"
    buf, size = world.put(bytes(12)), world.put(struct.pack("<i", 12))
    assert world.call("getsockopt", a, 1, 17, buf, size) == 0
    assert struct.unpack("<iII", world.get(buf, 12)) == (world.task.pid, 0, 0)


def test_named_sockets(world: World) -> None:
    server = make(world, UNIX, STREAM, sun("/tmp/s"), 0)
    assert address_of(world, server) == sun("/tmp/s")
    buf = world.put(bytes(144))
    world.call("stat", "/tmp/s", buf)
    assert struct.unpack("<I", world.get(buf + 24, 4))[0] == 0o140755
    again = make(world, UNIX)
    assert name(world.call("bind", again, sun("/tmp/s"), 9)) == "EADDRINUSE"
    assert name(world.open("/tmp/s")) == "ENXIO"
    assert connect(world, again, sun("/tmp/none")) == "ENOENT"
    assert connect(world, again, sun("/tmp")) == "ECONNREFUSED"
    assert connect(world, make(world, UNIX, DGRAM), sun("/tmp/s")) == "EPROTOTYPE"
    assert name(world.call("accept4", server, 0, 0, 0)) == "EAGAIN"
    assert connect(world, again, sun("/tmp/s")) == "ok"
    assert connect(world, again, sun("/tmp/s")) == "EAGAIN"  # the backlog is full
    assert poll(world, server) == IN
    client, size = world.put(bytes(110)), world.put(struct.pack("<i", 110))
    new = world.call("accept4", server, client, size, NONBLOCK)
    assert world.get(size, 4) == struct.pack("<i", 2)
    assert address_of(world, new) == address_of(world, again, "getpeername") == sun("/tmp/s")
    assert connect(world, again, sun("/tmp/s")) == "EISCONN"
    world.write(again, b"hi")
    assert world.read(new) == b"hi"
    assert name(world.call("unlinkat", -100, "/tmp/s", 0)) == "ok"
    assert connect(world, make(world, UNIX), sun("/tmp/s")) == "ENOENT"
    assert name(world.call("accept", new, 0, 0)) == "EINVAL"
    assert name(world.call("listen", make(world, UNIX), 1)) == "EINVAL"
    assert name(world.call("listen", make(world, UNIX, DGRAM), 1)) == "ENOTSUP"
    assert name(world.read(make(world, UNIX))) == "EINVAL"  # type: ignore[arg-type]


def test_abstract_names(world: World) -> None:
    hidden = struct.pack("<H", UNIX) + b"\0name\0x"
    server = make(world, UNIX, STREAM, hidden, 5)
    assert address_of(world, server) == hidden
    assert name(world.call("bind", make(world, UNIX), hidden, len(hidden))) == "EADDRINUSE"
    client = make(world, UNIX)
    assert connect(world, client, hidden[:-1]) == "ECONNREFUSED"
    assert connect(world, client, hidden) == "ok"
    world.call("close", server)  # nobody accepted
    assert world.read(client) == -errno.ECONNRESET
    auto = make(world, UNIX, DGRAM, struct.pack("<H", UNIX))
    assert address_of(world, auto) == b"\1\0\x0000001"
    make(world, UNIX, STREAM, hidden)


def test_datagram_names(world: World) -> None:
    server = make(world, UNIX, DGRAM, sun("/tmp/d"))
    client = make(world, UNIX, DGRAM, sun("/tmp/c"))
    assert world.call("sendto", client, b"hello", 5, 0, sun("/tmp/d"), 9) == 5
    who, size = world.put(bytes(110)), world.put(struct.pack("<i", 110))
    buf = world.put(bytes(16))
    assert world.call("recvfrom", server, buf, 16, 0, who, size) == 5
    assert world.get(who, 9) == sun("/tmp/c")
    assert name(world.write(client, b"x")) == "ENOTCONN"
    assert connect(world, client, sun("/tmp/d")) == "ok"
    assert [world.write(client, b"x") for _ in range(12)] == [1] * 11 + [-errno.EAGAIN]
    assert poll(world, client) == 0
    world.read(server)
    assert poll(world, client) == OUT
    world.call("close", server)
    assert name(world.write(client, b"x")) == "ECONNREFUSED"


# AF_INET


def tcp(world: World, backlog: int = 5) -> tuple[int, int, int]:
    """Listener, client, accepted."""
    server = make(world, INET, STREAM, sin(0), backlog)
    client = make(world, INET)
    assert connect(world, client, address_of(world, server)) == "EINPROGRESS"
    assert connect(world, client, address_of(world, server)) == "ok"
    return server, client, world.call("accept4", server, 0, 0, NONBLOCK)


def test_tcp_connection(world: World) -> None:
    server, client, new = tcp(world)
    assert address_of(world, client) == address_of(world, new, "getpeername")
    assert address_of(world, new) == address_of(world, client, "getpeername") == address_of(world, server)
    assert name(world.read(new)) == "EAGAIN"  # type: ignore[arg-type]
    assert world.write(client, b"hello") == 5
    buf = world.put(bytes(4))
    assert world.call("ioctl", new, 0x541B, buf) == 0
    assert world.get(buf, 4) == struct.pack("<i", 5)
    assert world.read(new, 2) == b"he"
    assert world.read(new) == b"llo"
    assert poll(world, client) == OUT
    assert world.call("setsockopt", client, 6, 1, struct.pack("<i", 1), 4) == 0
    assert option(world, client, 1, 6) == 1
    world.call("shutdown", client, 1)
    assert poll(world, new) == IN | OUT | RDHUP
    assert world.read(new) == b""
    assert world.write(new, b"late") == 4
    assert world.read(client) == b"late"
    world.call("close", new)
    assert world.read(client) == b""


def test_tcp_refused_and_reset(world: World) -> None:
    client = make(world, INET)
    assert connect(world, client, sin(9)) == "EINPROGRESS"
    assert poll(world, client) == IN | OUT | ERR | HUP | RDHUP
    assert option(world, client, 4) == errno.ECONNREFUSED
    blocking = world.call("socket", INET, STREAM, 0)
    assert connect(world, blocking, sin(9)) == "ECONNREFUSED"
    assert connect(world, blocking, sin(80, "8.8.8.8")) == "ENETUNREACH"
    _, client, new = tcp(world)
    world.write(client, b"unread")
    world.call("close", new)
    assert name(world.read(client)) == "ECONNRESET"  # type: ignore[arg-type]
    assert world.read(client) == b""
    assert name(world.call("sendto", client, b"x", 1, NOSIGNAL, 0, 0)) == "EPIPE"
    _, client, new = tcp(world)
    world.call("close", new)
    assert poll(world, client) == IN | OUT | RDHUP
    assert world.write(client, b"x") == 1  # the reset comes back for this
    assert name(world.call("sendto", client, b"x", 1, NOSIGNAL, 0, 0)) == "EPIPE"
    assert name(world.write(make(world, INET), b"x")) == "EPIPE"
    assert name(world.read(make(world, INET))) == "ENOTCONN"  # type: ignore[arg-type]
    assert name(world.call("shutdown", make(world, INET), 2)) == "ENOTCONN"


def test_ports(world: World) -> None:
    server = make(world, INET, STREAM, sin(8080, "0.0.0.0"), 1)
    other = make(world, INET)
    assert name(world.call("bind", other, sin(8080), 16)) == "EADDRINUSE"
    world.call("setsockopt", other, 1, 2, struct.pack("<i", 1), 4)
    assert name(world.call("bind", other, sin(8080), 16)) == "EADDRINUSE"
    assert name(world.call("bind", other, sin(8080, "10.0.0.1"), 16)) == "EADDRNOTAVAIL"
    assert name(world.call("bind", other, sin(0), 8)) == "EINVAL"
    assert name(world.call("bind", other, sun("/tmp/x").ljust(16, b"\0"), 16)) == "EAFNOSUPPORT"
    client = make(world, INET)
    connect(world, client, sin(8080))
    new = world.call("accept", server, 0, 0)
    assert name(world.call("bind", client, sin(8081), 16)) == "EINVAL"
    for fd in (new, client, server):
        world.call("close", fd)
    assert name(world.call("bind", make(world, INET), sin(8080), 16)) == "EADDRINUSE"  # TIME_WAIT
    assert name(world.call("bind", other, sin(8080), 16)) == "ok"


def test_a_full_backlog_makes_clients_wait(world: World) -> None:
    server = make(world, INET, STREAM, sin(7000), 0)
    clients = [make(world, INET) for _ in range(3)]
    assert [connect(world, client, sin(7000)) for client in clients] == ["EINPROGRESS"] * 3
    assert [poll(world, client) for client in clients] == [OUT, 0, 0]
    world.call("accept", server, 0, 0)
    assert [poll(world, client) for client in clients] == [OUT, OUT, 0]
    world.call("close", server)
    assert poll(world, clients[2]) & ERR


def test_ipv6_and_mapped_addresses(world: World) -> None:
    server = make(world, INET6, STREAM, sin6(6000, bytes(16)), 5)
    client = make(world, INET)
    assert connect(world, client, sin(6000)) == "EINPROGRESS"
    new = world.call("accept", server, 0, 0)
    assert address_of(world, new)[8:24] == bytes(10) + b"\xff\xff\x7f\0\0\1"
    client = make(world, INET6)
    assert connect(world, client, sin6(6000)) == "EINPROGRESS"
    new = world.call("accept", server, 0, 0)
    assert address_of(world, new) == sin6(6000)


def test_udp(world: World) -> None:
    server = make(world, INET, DGRAM, sin(5000))
    client = make(world, INET, DGRAM)
    assert name(world.write(client, b"x")) == "EDESTADDRREQ"
    assert world.call("sendto", client, b"hello", 5, 0, sin(5000), 16) == 5
    who, size, buf = world.put(bytes(16)), world.put(struct.pack("<i", 16)), world.put(bytes(16))
    assert world.call("recvfrom", server, buf, 16, 0, who, size) == 5
    sender = world.get(who, 16)
    assert sender == sin(int.from_bytes(address_of(world, client)[2:4], "big"))
    assert connect(world, server, sender) == "ok"
    world.write(server, b"back")
    assert world.read(client) == b"back"
    world.call("close", client)
    assert world.write(server, b"x") == 1
    assert name(world.read(server)) == "ECONNREFUSED"  # type: ignore[arg-type]
    assert name(world.call("sendto", server, bytes(65508), 65508, 0, 0, 0)) == "EMSGSIZE"


def test_a_datagram_socket_forgets_its_source(world: World) -> None:
    """getaddrinfo() connects one socket to every address in turn, and undoes it in between."""
    client = make(world, INET6, DGRAM)
    unspecified = struct.pack("<H", 0) + bytes(26)
    assert connect(world, client, sin6(80)) == "ok"
    assert address_of(world, client)[8:24] == bytes(15) + b"\1"
    assert connect(world, client, unspecified) == "ok"
    assert address_of(world, client) == sin6(0, bytes(16))
    assert connect(world, client, sin(80)) == "ok"
    assert address_of(world, client)[8:24] == bytes(10) + b"\xff\xff\x7f\0\0\1"
    bound = make(world, INET, DGRAM, sin(5001))
    assert connect(world, bound, sin(80)) == "ok"
    assert connect(world, bound, unspecified) == "ok"
    assert address_of(world, bound) == sin(5001)


def test_waitall_collects(world: World) -> None:
    a, b = pair(world, flags=0)
    other = another(world)
    world.write(a, b"12")
    buf = world.put(bytes(8), other)
    world.kernel.set_current(other)
    entry = world.kernel.table.find("recvfrom")
    assert entry is not None
    with pytest.raises(Block):
        entry.handler(other, b, buf, 4, WAITALL, 0, 0)
    world.write(a, b"345")
    world.kernel.set_current(other)
    assert entry.handler(other, b, buf, 4, WAITALL, 0, 0) == 4


def test_source_of_what_goes_to_another_loopback_address(world: World) -> None:
    """The interface's own address is the source, whichever address of the loopback is asked for."""
    address = sin(7800, "127.0.0.2")
    listener = make(world, INET, STREAM, address, 3)
    client = world.call("socket", INET, STREAM, 0)
    assert world.call("connect", client, world.put(address), 16) == 0
    server = world.call("accept4", listener, 0, 0, 0)
    area, size = world.put(bytes(16)), world.put((16).to_bytes(4, "little"))
    shown = []
    for fd, call in (
        (client, "getsockname"),
        (client, "getpeername"),
        (server, "getsockname"),
        (server, "getpeername"),
    ):
        assert world.call(call, fd, area, size) == 0
        shown.append(world.get(area + 4, 4)[3])
    assert shown == [1, 2, 2, 1]
