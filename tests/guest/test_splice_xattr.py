"""splice and its kin, extended attributes where there are none, mount."""

import errno
import struct

import pytest
from guest_world import World

O_NONBLOCK = 0o4000


@pytest.fixture
def world() -> World:
    return World()


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


def pipe(world: World) -> tuple[int, int]:
    fds = world.put(bytes(8))
    assert world.call("pipe2", fds, O_NONBLOCK) == 0
    return struct.unpack("<ii", world.get(fds, 8))  # type: ignore[return-value]


def test_splice_moves_and_tee_copies(world: World) -> None:
    file = world.open("/tmp/f", 0o102)
    world.write(file, b"0123456789")
    (read, write), (read2, write2) = pipe(world), pipe(world)
    offset = world.put(struct.pack("<q", 2))
    assert world.call("splice", file, offset, write, 0, 5, 0) == 5
    assert world.get(offset, 8) == struct.pack("<q", 7)
    assert world.call("tee", read, write2, 3, 0) == 3
    assert world.read(read2) == b"234"
    assert world.call("splice", read, 0, write2, 0, 100, 0) == 5
    assert name(world.read(read)) == "EAGAIN"  # type: ignore[arg-type]
    out = world.open("/tmp/g", 0o102)
    assert world.call("splice", read2, 0, out, 0, 4, 0) == 4
    assert world.cat("/tmp/g") == b"2345"
    assert world.call("splice", file, 0, write, 0, 5, 0) == 0  # at the end of the file
    assert name(world.call("splice", read, 0, write, 0, 5, 0)) == "EINVAL"
    assert name(world.call("splice", file, 0, out, 0, 5, 0)) == "EINVAL"
    assert name(world.call("splice", read, offset, out, 0, 5, 0)) == "ESPIPE"
    assert name(world.call("splice", read, 0, out, 0, 5, 0x10)) == "EINVAL"
    assert name(world.call("splice", write, 0, out, 0, 5, 0)) == "EBADF"
    assert name(world.call("tee", file, write, 5, 0)) == "EINVAL"


def test_vmsplice(world: World) -> None:
    read, write = pipe(world)
    vector = struct.pack("<QQQQ", world.put(b"ab"), 2, world.put(b"cde"), 3)
    assert world.call("vmsplice", write, vector, 2, 0) == 5
    buf = world.put(bytes(8))
    assert world.call("vmsplice", read, struct.pack("<QQ", buf, 8), 1, 0) == 5
    assert world.get(buf, 5) == b"abcde"
    assert name(world.call("vmsplice", read, struct.pack("<QQ", buf, 8), 1, 2)) == "EAGAIN"
    assert name(world.call("vmsplice", world.open("/tmp"), struct.pack("<QQ", buf, 8), 1, 0)) == "EBADF"


def test_files_without_attributes(world: World) -> None:
    world.open("/tmp/f", 0o101)
    buf = world.put(bytes(16))
    assert world.call("listxattr", "/tmp/f", buf, 16) == 0
    assert name(world.call("getxattr", "/tmp/f", "user.a", buf, 16)) == "ENOTSUP"
    assert name(world.call("setxattr", "/tmp/f", "user.a", b"x", 1, 0)) == "ENOTSUP"
    assert name(world.call("setxattr", "/tmp/f", "user.a", b"x", 1, 4)) == "EINVAL"
    assert name(world.call("setxattr", "/tmp/f", "", b"x", 1, 0)) == "ERANGE"
    assert name(world.call("setxattr", "/tmp/f", "user.a", b"x", 65537, 0)) == "E2BIG"
    assert name(world.call("getxattr", "/tmp/none", "user.a", buf, 16)) == "ENOENT"
    assert name(world.call("fgetxattr", 0, "user.a", buf, 16)) == "ENODATA"
    assert name(world.call("fremovexattr", 99, "user.a")) == "EBADF"


def test_what_mount_and_umount_refuse(world: World) -> None:
    assert name(world.call("mount", "none", "/tmp", "nosuch", 0, 0)) == "ENODEV"
    assert name(world.call("mount", "none", "/none", "tmpfs", 0, 0)) == "ENOENT"
    assert name(world.call("umount2", "/dev", 0)) == "EBUSY"
    assert name(world.call("umount2", "/dev/null", 0)) == "EINVAL"
    assert name(world.call("umount2", "/proc", 16)) == "EINVAL"
