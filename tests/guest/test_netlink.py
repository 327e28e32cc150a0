"""Netlink sockets: the loopback as a 5.10 kernel describes it, refusals, cookies of SIGEV_THREAD; device ioctls."""

import errno
import struct

import pytest
from guest_world import World

NETLINK, RAW, ROUTE, USERSOCK, DONTWAIT = 16, 3, 0, 2, 0x40
REQUEST, ACK, DUMP = 1, 4, 0x300
GETLINK, GETADDR, SETLINK = 18, 22, 19
LINK = struct.Struct("<BxHiII")
#: The attributes of `lo` in the order a 5.10 kernel sends them, with their sizes.
ATTRIBUTES = (
    (3, 7), (13, 8), (16, 5), (17, 5), (4, 8), (50, 8), (51, 8), (27, 8), (30, 8), (31, 8), (40, 8), (41, 8), (32, 8),
    (33, 5), (6, None), (35, 8), (47, 8), (48, 8), (39, 5), (14, 36), (1, 10), (2, 10), (23, 196), (7, 100), (43, 12),
    (26, 4),
)  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


def sockaddr(portid: int = 0) -> bytes:
    return struct.pack("<HHII", NETLINK, 0, portid, 0)


def ask(world: World, fd: int, kind: int, flags: int, body: bytes) -> int:
    message = struct.pack("<IHHII", 16 + len(body), kind, flags, 7, 0) + body
    return world.call("sendto", fd, world.put(message), len(message), 0, 0, 0)


def answer(world: World, fd: int) -> bytes:
    area = world.put(bytes(4096))
    got = world.call("recvfrom", fd, area, 4096, DONTWAIT, 0, 0)
    assert got >= 0, got
    return world.get(area, got)


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from("<HH", data, at)
        out.append((kind, data[at + 4 : at + size]))
        at += size + 3 & ~3
    return out


@pytest.fixture
def route(world: World) -> int:
    return world.call("socket", NETLINK, RAW, ROUTE)


def test_what_there_is(world: World) -> None:
    kinds = [number for number in range(32) if world.call("socket", NETLINK, RAW, number) >= 0]
    assert kinds == [0, 2, 4, 15, 16]
    assert world.call("socket", NETLINK, 1, 0) == -errno.ESOCKTNOSUPPORT
    assert world.call("socket", NETLINK, RAW, 32) == -errno.EPROTONOSUPPORT


def test_names(world: World, route: int) -> None:
    other = world.call("socket", NETLINK, RAW, ROUTE)
    assert world.call("bind", route, world.put(sockaddr()), 3) == -errno.EINVAL
    assert world.call("bind", route, world.put(sockaddr()), 12) == 0
    assert world.call("bind", route, world.put(sockaddr(99)), 12) == -errno.EINVAL
    assert world.call("bind", other, world.put(sockaddr(world.task.tgid)), 12) == -errno.EADDRINUSE
    assert world.call("bind", other, world.put(sockaddr()), 12) == 0
    area, size = world.put(bytes(12)), world.put((12).to_bytes(4, "little"))
    assert world.call("getsockname", route, area, size) == 0
    assert world.get(area, 12) == sockaddr(world.task.tgid)
    assert world.call("listen", route, 1) == -errno.EOPNOTSUPP


def test_the_interface(world: World, route: int) -> None:
    assert ask(world, route, GETLINK, REQUEST | DUMP, LINK.pack(0, 0, 0, 0, 0)) == 32
    data = answer(world, route)
    assert len(data) == 560
    length, kind, flags, sequence, _ = struct.unpack_from("<IHHII", data)
    assert (length, kind, flags, sequence) == (len(data), 16, 2, 7)
    assert LINK.unpack_from(data, 16) == (0, 772, 1, 0x10049, 0)
    found = attributes(data[32:])
    assert [kind for kind, _ in found] == [kind for kind, _ in ATTRIBUTES]
    for (_, body), (kind, size) in zip(found, ATTRIBUTES, strict=True):
        assert size is None or len(body) == size - 4, kind
    assert answer(world, route)[4:8] == struct.pack("<HH", 3, 2)  # NLMSG_DONE, NLM_F_MULTI
    assert ask(world, route, GETADDR, REQUEST | DUMP, LINK.pack(0, 0, 0, 0, 0)) == 32
    data = answer(world, route)
    assert (len(data), data[16], data[16 + 76]) == (148, 2, 10)


def test_down_and_up(world: World, route: int) -> None:
    body = LINK.pack(0, 0, 1, 0, 1)
    assert ask(world, route, SETLINK, REQUEST | ACK, body) == 32
    assert answer(world, route)[16:20] == bytes(4)
    ask(world, route, GETLINK, REQUEST, LINK.pack(0, 0, 1, 0, 0))
    assert LINK.unpack_from(answer(world, route), 16)[3] == 8
    request = world.put(b"lo".ljust(16, b"\0") + (1).to_bytes(2, "little") + bytes(22))
    assert world.call("ioctl", route, 0x8914, request) == 0
    assert world.call("ioctl", route, 0x8913, request) == 0
    assert world.get(request + 16, 2) == b"\x49\0"


def test_refusals_come_back(world: World, route: int) -> None:
    request = LINK.pack(0, 0, 1, 0, 0)
    ask(world, route, 99, REQUEST, request)
    data = answer(world, route)
    assert (len(data), struct.unpack_from("<i", data, 16)[0]) == (52, -errno.EOPNOTSUPP)
    ask(world, route, GETLINK, REQUEST, LINK.pack(0, 0, 5, 0, 0))
    assert struct.unpack_from("<i", answer(world, route), 16)[0] == -errno.ENODEV
    world.task.cred.cap_effective = 0
    ask(world, route, SETLINK, REQUEST, request)
    assert struct.unpack_from("<i", answer(world, route), 16)[0] == -errno.EPERM


def test_between_programs(world: World) -> None:
    one, two = (world.call("socket", NETLINK, RAW, USERSOCK) for _ in range(2))
    assert world.call("bind", one, world.put(sockaddr(500)), 12) == 0
    text = world.put(b"hello")
    assert world.call("sendto", two, text, 5, 0, world.put(sockaddr(500)), 12) == 5
    assert answer(world, one) == b"hello"
    assert world.call("sendto", two, text, 5, 0, world.put(sockaddr(501)), 12) == -errno.ECONNREFUSED


def test_a_queue_tells_a_thread(world: World) -> None:
    sock = world.call("socket", NETLINK, RAW, USERSOCK)
    queue = world.call("mq_open", world.put(b"q\0"), 0o102, 0o600, 0)
    cookie = world.put(bytes(range(32)))
    wish = world.put(struct.pack("<Qii48x", cookie, sock, 2))
    assert world.call("mq_notify", queue, wish) == 0
    assert world.call("mq_notify", queue, wish) == -errno.EBUSY
    assert world.call("mq_timedsend", queue, world.put(b"m"), 1, 0, 0) == 0
    assert answer(world, sock) == bytes(range(31)) + b"\1"
    assert world.call("mq_notify", queue, wish) == 0
    assert world.call("mq_notify", queue, 0) == 0
    assert answer(world, sock) == bytes(range(31)) + b"\2"
    assert world.call("mq_notify", queue, world.put(struct.pack("<Qii48x", cookie, queue, 2))) == -errno.ENOTSOCK
