"""Descriptors, pipes, directories, poll, locks: the calls on open files."""

import errno
import struct

import pytest
from guest_world import World

from guest.sched import Block, Restart

O_CREAT, O_NONBLOCK, O_CLOEXEC, O_APPEND, O_PATH = 0o100, 0o4000, 0o2000000, 0o2000, 0o10000000
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_SETLK, F_GETLK = 0, 1, 2, 3, 4, 6, 5


@pytest.fixture
def world() -> World:
    return World()


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


def pipe(world: World, flags: int = 0) -> tuple[int, int]:
    fds = world.put(bytes(8))
    assert world.call("pipe2", fds, flags) == 0
    return struct.unpack("<ii", world.get(fds, 8))  # type: ignore[return-value]


# descriptors


def test_lowest_free_descriptor(world: World) -> None:
    assert world.open("/dev/null") == 3
    assert world.call("dup", 3) == 4
    assert world.call("close", 3) == 0
    assert world.call("fcntl", 4, F_DUPFD, 3) == 3
    assert world.call("fcntl", 4, F_DUPFD, 10) == 10
    assert world.call("dup3", 4, 7, O_CLOEXEC) == 7
    assert world.call("fcntl", 7, F_GETFD, 0) == 1
    assert name(world.call("dup3", 4, 4, 0)) == "EINVAL"
    assert world.call("dup2", 4, 4) == 4
    assert name(world.call("dup2", 99, 5)) == "EBADF"
    assert name(world.call("dup2", 4, 1024)) == "EBADF"
    assert name(world.call("close", 99)) == "EBADF"
    assert name(world.call("close", -1)) == "EBADF"
    world.task.files.close_on_exec()
    assert name(world.call("fcntl", 7, F_GETFD, 0)) == "EBADF"
    assert world.call("close_range", 3, 0xFFFFFFFF, 0) == 0
    assert world.task.files.open_fds() == [0, 1, 2]


def test_descriptor_limit(world: World) -> None:
    world.task.rlim[7] = [5, 5]
    assert world.open("/dev/null") == 3
    assert world.open("/dev/null") == 4
    assert name(world.open("/dev/null")) == "EMFILE"
    assert name(world.call("fcntl", 3, F_DUPFD, 5)) == "EINVAL"


def test_fdsize_grows_as_the_kernels_table(world: World) -> None:
    world.open("/dev/null")
    sizes = []
    for fd in (63, 64, 127, 128, 300, 900):
        world.call("dup2", 3, fd)
        sizes.append(world.task.files.max_fds)
    assert sizes == [64, 128, 128, 256, 512, 1024]


def test_status_flags(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | O_APPEND | 2)
    assert world.call("fcntl", fd, F_GETFL, 0) & ~0o100000 == O_APPEND | 2
    assert world.call("fcntl", fd, F_SETFL, O_NONBLOCK) == 0
    assert world.call("fcntl", fd, F_GETFL, 0) & ~0o100000 == O_NONBLOCK | 2
    path = world.open("/tmp/f", O_PATH)
    assert name(world.read(path)) == "EBADF"  # type: ignore[arg-type]
    assert name(world.call("fcntl", path, F_SETFL, 0)) == "EBADF"


def test_arm64_has_its_own_flag_values() -> None:
    world = World("aarch64")
    assert name(world.open("/dev/null", 0o40000)) == "ENOTDIR"  # O_DIRECTORY there
    fd = world.open("/tmp", 0o40000)
    assert world.call("fcntl", fd, F_GETFL, 0) == 0o440000


def test_fork_shares_positions(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    child = world.new_task()
    child.files = world.task.files.copy()
    world.write(fd, b"parent", task=world.task)
    world.write(fd, b"child", task=child)
    assert world.cat("/tmp/f") == b"parentchild"


# reading and writing


def test_holes_and_sizes(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    assert world.call("pwrite64", fd, b"end", 3, 10000) == 3
    assert world.call("lseek", fd, 0, 2) == 10003
    assert world.call("lseek", fd, 0, 3) == 8192  # SEEK_DATA
    assert world.call("lseek", fd, 8192, 4) == 10003  # SEEK_HOLE
    assert name(world.call("lseek", fd, 10003, 3)) == "ENXIO"
    assert name(world.call("lseek", fd, -1, 0)) == "EINVAL"
    assert world.cat("/tmp/f") == bytes(10000) + b"end"
    assert world.call("fallocate", fd, 3, 8192, 4096) == 0
    assert world.cat("/tmp/f") == bytes(10003)


def test_vectors(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    a, b = world.put(b"one "), world.put(b"two")
    vec = struct.pack("<QQQQ", a, 4, b, 3)
    assert world.call("writev", fd, vec, 2) == 7
    into = world.put(bytes(8))
    vec = struct.pack("<QQQQ", into, 2, into + 4, 4)
    assert world.call("preadv", fd, vec, 2, 0, 0) == 6
    assert world.get(into, 8) == b"on\0\0e tw"
    assert name(world.call("writev", fd, vec, 1025)) == "EINVAL"
    assert name(world.call("writev", fd, struct.pack("<QQ", a, 1 << 63), 1)) == "EINVAL"


def test_bad_buffers(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    world.write(fd, b"x" * 100)
    end = world.task.area + (1 << 20)  # behind the scratch area nothing is mapped
    assert name(world.call("pread64", fd, end, 10, 0)) == "EFAULT"
    assert world.call("pread64", fd, end - 4, 10, 0) == 4
    assert name(world.call("write", fd, end, 1)) == "EFAULT"
    assert world.call("write", fd, end - 4, 10) == 4
    assert name(world.call("open", end, 0)) == "EFAULT"


def test_file_size_limit(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    world.task.rlim[1] = [10, 10]
    assert world.write(fd, b"x" * 20) == 10
    assert name(world.write(fd, b"x")) == "EFBIG"
    assert world.task.pending.signal >> 24 & 1  # SIGXFSZ


# pipes


def test_pipe_moves_bytes(world: World) -> None:
    r, w = pipe(world)
    assert world.write(w, b"hello") == 5
    assert world.read(r, 3) == b"hel"
    assert world.read(r) == b"lo"
    with pytest.raises(Block):
        world.read(r)
    world.call("close", w)
    assert world.read(r) == b""
    assert name(world.call("lseek", r, 0, 0)) == "ESPIPE"
    assert name(world.call("pread64", r, 0, 0, 0)) == "ESPIPE"


def test_pipe_holds_sixteen_pages(world: World) -> None:
    r, w = pipe(world, O_NONBLOCK)
    assert world.call("write", w, world.task.area, 1 << 20) == 65536
    assert name(world.write(w, b"x")) == "EAGAIN"
    assert len(world.read(r, 4095)) == 4095  # type: ignore[arg-type]
    assert name(world.write(w, b"x")) == "EAGAIN"  # the page is still in use
    assert world.read(r, 1) == b"\0"
    assert world.write(w, b"x" * 4096) == 4096
    small = pipe(world, O_NONBLOCK)
    writes = 0
    while world.write(small[1], b"x" * 3000) > 0:
        writes += 1
    assert writes == 16  # 3000 bytes do not fit behind 3000 others: a page each


def test_write_to_a_pipe_nobody_reads(world: World) -> None:
    r, w = pipe(world)
    world.call("close", r)
    assert name(world.write(w, b"x")) == "EPIPE"
    assert world.task.pending.signal >> 12 & 1  # SIGPIPE


def test_blocking_write_goes_on_where_it_was(world: World) -> None:
    r, w = pipe(world)
    source = world.put(bytes(range(256)) * 300)
    task = world.task
    with pytest.raises(Block):
        world.kernel.table.find("write").handler(task, w, source, 70000)
    assert task.wait_state["done"] == 65536
    reader = world.new_task()
    reader.files = task.files
    got = world.read(r, 65536, task=reader)
    task.state = "R"
    assert world.kernel.table.find("write").handler(task, w, source, 70000) == 70000
    task.wait_state = {}
    got += world.read(r, 65536, task=reader)  # type: ignore[operator]
    assert got == (bytes(range(256)) * 300)[:70000]


def test_signal_interrupts_a_read(world: World) -> None:
    r, _ = pipe(world)
    world.task.sigpending = True
    with pytest.raises(Restart):
        world.read(r)


def test_pipe_opened_by_its_descriptor_waits_for_nobody(world: World) -> None:
    r, w = pipe(world)
    world.write(w, b"left")
    world.call("close", w)
    again = world.open(f"/proc/self/fd/{r}", 0)
    assert world.read(again) == b"left"
    assert world.read(again) == b""


def test_fifo_waits_for_the_other_end(world: World) -> None:
    assert world.call("mknod", "/tmp/fifo", 0o10644, 0) == 0
    assert name(world.open("/tmp/fifo", 1 | O_NONBLOCK)) == "ENXIO"
    assert name(world.open("/tmp/fifo", O_NONBLOCK)) == "ok"
    assert name(world.open("/tmp/fifo", 1)) == "ok"


# directories


def entries(world: World, fd: int, size: int = 32768, call: str = "getdents64") -> list[tuple[bytes, int, int]]:
    buf = world.put(bytes(size))
    done = world.call(call, fd, buf, size)
    assert done >= 0, errno.errorcode[-done]
    raw, found, at = world.get(buf, done), [], 0
    while at < done:
        _, following, length, kind = struct.unpack_from("<QqHB", raw, at)
        found.append((raw[at + 19 : at + length].partition(b"\0")[0], following, kind))
        at += length
    return found


def test_getdents_in_small_steps_with_removal(world: World) -> None:
    world.call("mkdir", "/tmp/d", 0o755)
    for i in range(50):
        world.call("close", world.open(f"/tmp/d/file{i:02}", O_CREAT | 1))
    fd = world.open("/tmp/d")
    seen = []
    while step := entries(world, fd, 100):
        for entry, _, kind in step:
            seen.append(entry)
            if kind == 8:
                world.call("unlink", "/tmp/d/" + entry.decode())
    assert seen == [b".", b"..", *(b"file%02d" % i for i in reversed(range(50)))]  # newest first, as tmpfs lists
    assert world.call("rmdir", "/tmp/d") == 0
    assert name(world.call("getdents64", fd, world.put(bytes(99)), 99)) == "ENOENT"


def test_getdents_positions(world: World) -> None:
    fd = world.open("/tmp")
    assert [e[1] for e in entries(world, fd)] == [1, 2]
    assert entries(world, fd) == []
    assert world.call("lseek", fd, 1, 0) == 1
    assert [e[0] for e in entries(world, fd)] == [b".."]
    assert world.call("lseek", fd, 0, 0) == 0
    assert name(world.call("getdents64", fd, world.put(bytes(8)), 8)) == "EINVAL"
    assert name(world.call("getdents64", 1, 0, 8)) == "ENOTDIR"
    assert name(world.read(fd)) == "EISDIR"  # type: ignore[arg-type]


# poll, select, eventfd


def test_poll(world: World) -> None:
    r, w = pipe(world)
    table = world.put(struct.pack("<ihhihhihh", r, 1, 0, w, 4, 0, 99, 1, 0))
    assert world.call("poll", table, 3, 0) == 2
    assert struct.unpack("<ihhihhihh", world.get(table, 24)) == (r, 1, 0, w, 4, 4, 99, 1, 0x20)
    only = world.put(struct.pack("<ihh", r, 1, 0))
    assert world.call("poll", only, 1, 0) == 0
    with pytest.raises(Block):
        world.call("poll", only, 1, 1000)
    world.call("close", w)
    assert world.call("poll", only, 1, 0) == 1
    assert struct.unpack("<ihh", world.get(only, 8))[2] == 0x10  # POLLHUP


def test_poll_times_out_by_the_virtual_clock(world: World) -> None:
    r, _ = pipe(world)
    only = world.put(struct.pack("<ihh", r, 1, 0))
    with pytest.raises(Block):
        world.kernel.table.find("poll").handler(world.task, only, 1, 1000)
    assert world.task.deadline == world.kernel.clock.now + 10**9
    world.kernel.clock.now += 10**9
    assert world.kernel.table.find("poll").handler(world.task, only, 1, 1000) == 0


def test_select(world: World) -> None:
    r, w = pipe(world)
    reads, writes = world.put(struct.pack("<Q", 1 << r)), world.put(struct.pack("<Q", 1 << w))
    assert world.call("select", w + 1, reads, writes, 0, 0) == 1
    assert (world.get(reads, 8), world.get(writes, 8)) == (bytes(8), struct.pack("<Q", 1 << w))
    bad = world.put(struct.pack("<Q", 1 << 50))
    assert name(world.call("select", 60, bad, 0, 0, 0)) == "EBADF"


def test_eventfd(world: World) -> None:
    fd = world.call("eventfd2", 3, O_NONBLOCK)
    assert world.write(fd, struct.pack("<Q", 4)) == 8
    assert world.read(fd, 8) == struct.pack("<Q", 7)
    assert name(world.read(fd, 8)) == "EAGAIN"  # type: ignore[arg-type]
    assert name(world.write(fd, b"\xff" * 8)) == "EINVAL"
    semaphore = world.call("eventfd2", 2, 1)
    assert [world.read(semaphore, 8) for _ in range(2)] == [struct.pack("<Q", 1)] * 2


# the rest


def test_record_locks_split_and_conflict(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    other = world.new_task()
    theirs = world.open("/tmp/f", 2, task=other)

    def lock(kind: int, start: int, length: int) -> bytes:
        return struct.pack("<hh4xqqi4x", kind, 0, start, length, 0)

    assert world.call("fcntl", fd, F_SETLK, lock(1, 0, 100)) == 0
    assert world.call("fcntl", fd, F_SETLK, lock(2, 40, 20)) == 0  # unlock the middle
    assert name(world.call("fcntl", theirs, F_SETLK, lock(1, 30, 20), task=other)) == "EAGAIN"
    assert name(world.call("fcntl", theirs, F_SETLK, lock(1, 40, 20), task=other)) == "ok"
    query = world.put(lock(0, 0, 0), other)
    assert world.call("fcntl", theirs, F_GETLK, query, task=other) == 0
    world.kernel.set_current(world.task)
    assert world.call("flock", fd, 2) == 0
    assert name(world.call("flock", theirs, 6, task=other)) == "EAGAIN"
    world.call("close", fd)  # releases both kinds
    assert name(world.call("flock", theirs, 6, task=other)) == "ok"
    assert name(world.call("fcntl", theirs, F_SETLK, lock(1, 0, 0), task=other)) == "ok"


def test_sendfile_and_copy_file_range(world: World) -> None:
    a, b = world.open("/tmp/a", O_CREAT | 2), world.open("/tmp/b", O_CREAT | 2)
    world.write(a, b"0123456789")
    offset = world.put(struct.pack("<q", 2))
    assert world.call("sendfile", b, a, offset, 5) == 5
    assert struct.unpack("<q", world.get(offset, 8)) == (7,)
    assert world.cat("/tmp/b") == b"23456"
    assert world.call("lseek", a, 0, 0) == 0
    assert world.call("copy_file_range", a, 0, b, 0, 100, 0) == 10
    assert world.cat("/tmp/b") == b"234560123456789"
    r, w = pipe(world)
    world.call("lseek", a, 0, 0)
    assert world.call("sendfile", w, a, 0, 4) == 4
    assert world.read(r) == b"0123"


def test_devices(world: World) -> None:
    assert world.read(world.open("/dev/zero"), 5) == bytes(5)
    assert world.read(world.open("/dev/null")) == b""
    assert name(world.write(world.open("/dev/full", 1), b"x")) == "ENOSPC"
    assert name(world.open("/dev/tty", 2)) == "ENXIO"
    one, two = (World(seed=5).read(World(seed=5).open("/dev/urandom"), 16) for _ in range(2))
    assert one == two  # nothing is random that the seed does not say
    fd = world.open("/dev/zero", 2)
    assert world.call("mmap", 0, 8192, 3, 2, fd, 0) > 0
    assert world.call("mmap", 0, 8192, 3, 1, fd, 0) > 0
    assert name(world.call("mmap", 0, 8192, 3, 2, world.open("/dev/null", 2), 0)) == "ENODEV"
    assert name(world.call("ioctl", fd, 0x5413, world.put(bytes(8)))) == "ENOTTY"


def test_standard_streams(world: World) -> None:
    world = World(stdin=b"input")
    assert world.read(0, 3) == b"inp"
    assert world.read(0) == b"ut"
    assert world.read(0) == b""
    world.write(1, b"out")
    world.write(2, b"err")
    assert (bytes(world.kernel.vfs.output), bytes(world.kernel.vfs.errors)) == (b"out", b"err")


def test_memfd_and_seals(world: World) -> None:
    fd = world.call("memfd_create", "name", 2)
    assert world.task.files.get(fd).d_path() == "/memfd:name (deleted)"
    assert world.write(fd, b"x" * 10) == 10
    assert world.call("fcntl", fd, 1033, 2 | 4) == 0  # F_SEAL_SHRINK | F_SEAL_GROW
    assert name(world.call("ftruncate", fd, 5)) == "EPERM"
    assert name(world.call("pwrite64", fd, b"y", 1, 10)) == "EPERM"
    assert world.call("fcntl", fd, 1034, 0) == 6
    assert name(world.call("fcntl", world.call("memfd_create", "x", 0), 1033, 1)) == "EPERM"


def test_uname_and_friends(world: World) -> None:
    buf = world.put(bytes(390))
    assert world.call("uname", buf) == 0
    raw = world.get(buf, 390)
    fields = [raw[i : i + 65].rstrip(b"\0") for i in range(0, 390, 65)]
    assert fields == [
        b"Linux", b"(none)", b"5.10.262", b"#4 SMP Sun Nov 22 14:45:18 UTC 2026", b"x86_64", b"(none)",
    ]  # fmt: skip
    assert world.call("sethostname", "box", 3) == 0
    assert world.cat("/proc/sys/kernel/hostname") == b"box\n"
    assert world.call("getrandom", world.put(bytes(16)), 16, 0) == 16
    assert name(world.call("getrandom", world.put(bytes(16)), 16, 6)) == "EINVAL"
    assert world.call("sysinfo", world.put(bytes(112))) == 0
