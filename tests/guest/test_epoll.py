"""epoll, signalfd and timerfd."""

import errno
import itertools
import pickle
import struct

import pytest
from guest_world import World

from guest.sched import Block

IN, OUT, ERR, HUP, ET, ONESHOT, EXCLUSIVE = 1, 4, 8, 16, 1 << 31, 1 << 30, 1 << 28
ADD, DEL, MOD = 1, 2, 3
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


def ctl(world: World, ep: int, op: int, fd: int, events: int = 0, data: int | None = None) -> str:
    return name(world.call("epoll_ctl", ep, op, fd, struct.pack("<IQ", events, fd if data is None else data)))


def wait(world: World, ep: int, most: int = 8, timeout: int = 0) -> list[tuple[int, int]]:
    out = world.put(bytes(12 * most))
    count = world.call("epoll_wait", ep, out, most, timeout)
    assert count >= 0, name(count)
    found = list(struct.iter_unpack("<IQ", world.get(out, 12 * count))) if count else []
    return [(data, events) for events, data in found]


def test_level_triggered_tells_until_it_is_read(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    read, write = pipe(world)
    assert ctl(world, ep, ADD, read, IN) == "ok"
    assert ctl(world, ep, ADD, write, OUT) == "ok"
    assert wait(world, ep) == [(write, OUT)]
    world.write(write, b"x")
    assert sorted(wait(world, ep)) == [(read, IN), (write, OUT)]
    assert sorted(wait(world, ep)) == [(read, IN), (write, OUT)]
    world.read(read)
    assert wait(world, ep) == [(write, OUT)]
    world.call("close", write)  # a closed file leaves the set
    assert wait(world, ep) == [(read, HUP)]


def test_edge_triggered_tells_once_for_every_wake(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    read, write = pipe(world)
    ctl(world, ep, ADD, read, IN | ET)
    assert wait(world, ep) == []
    world.write(write, b"x")
    assert wait(world, ep) == [(read, IN)]
    assert wait(world, ep) == []
    world.write(write, b"y")  # still not read: the wake counts
    assert wait(world, ep) == [(read, IN)]
    world.read(read, 1)
    assert wait(world, ep) == []
    assert ctl(world, ep, MOD, read, IN | ET) == "ok"  # looks again
    assert wait(world, ep) == [(read, IN)]


def test_oneshot_is_disarmed_until_modified(world: World) -> None:
    ep = world.call("epoll_create", 1)
    read, write = pipe(world)
    ctl(world, ep, ADD, read, IN | ONESHOT, 77)
    world.write(write, b"x")
    assert wait(world, ep) == [(77, IN)]
    world.write(write, b"x")
    assert wait(world, ep) == []
    ctl(world, ep, MOD, read, IN | ONESHOT, 78)
    assert wait(world, ep) == [(78, IN)]


def test_ready_ones_take_turns(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    ends = [pipe(world) for _ in range(3)]
    for read, write in ends:
        ctl(world, ep, ADD, read, IN)
        world.write(write, b"x")
    seen = [wait(world, ep, 1)[0][0] for _ in range(6)]
    assert seen == [read for read, _ in ends] * 2


def test_refusals(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    read, write = pipe(world)
    assert name(world.call("epoll_create", 0)) == "EINVAL"
    assert name(world.call("epoll_create1", 1)) == "EINVAL"
    assert ctl(world, ep, ADD, 99) == "EBADF"
    assert ctl(world, 99, ADD, read) == "EBADF"
    assert ctl(world, read, ADD, write) == "EINVAL"
    assert ctl(world, ep, ADD, ep) == "EINVAL"
    assert ctl(world, ep, ADD, world.open("/tmp/f", 0o102), IN) == "EPERM"
    assert ctl(world, ep, ADD, world.open("/"), IN) == "EPERM"
    assert ctl(world, ep, ADD, world.open("/dev/null"), IN) == "EPERM"
    assert ctl(world, ep, MOD, read) == "ENOENT"
    assert ctl(world, ep, DEL, read) == "ENOENT"
    assert ctl(world, ep, ADD, read, IN) == "ok"
    assert ctl(world, ep, ADD, read, IN) == "EEXIST"
    assert ctl(world, ep, 4, read) == "EINVAL"
    assert ctl(world, ep, MOD, read, IN | EXCLUSIVE) == "EINVAL"
    copy = world.call("dup", read)
    assert ctl(world, ep, ADD, copy, IN) == "ok"  # another descriptor of the same file
    assert name(world.call("epoll_ctl", ep, ADD, read, 8)) == "EFAULT"
    out = world.put(bytes(12))
    assert name(world.call("epoll_wait", ep, out, 0, 0)) == "EINVAL"
    assert name(world.call("epoll_wait", read, out, 1, 0)) == "EINVAL"
    assert name(world.call("epoll_pwait", ep, out, 1, 0, out, 4)) == "EINVAL"
    world.write(write, b"x")
    assert name(world.call("epoll_wait", ep, 8, 1, 0)) == "EFAULT"
    assert wait(world, ep, 1) == [(read, IN)]


def test_nested_epolls_and_loops(world: World) -> None:
    read, write = pipe(world)
    eps = [world.call("epoll_create1", 0) for _ in range(7)]
    assert ctl(world, eps[0], ADD, read, IN) == "ok"
    results = [ctl(world, outer, ADD, inner, IN) for inner, outer in itertools.pairwise(eps)]
    assert results == ["ok", "ok", "ok", "ok", "EINVAL", "ok"]
    assert ctl(world, eps[0], ADD, eps[2], IN) == "ELOOP"
    assert wait(world, eps[3]) == []
    world.write(write, b"x")
    assert wait(world, eps[3]) == [(eps[2], IN)]
    world.read(read)
    assert wait(world, eps[3]) == []


def test_waits_and_wakes(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    read, write = pipe(world)
    ctl(world, ep, ADD, read, IN)
    sleeper = world.new_task()
    sleeper.files = world.task.files
    out = world.put(bytes(96), sleeper)
    with pytest.raises(Block):
        world.call("epoll_wait", ep, out, 8, -1, task=sleeper)
    assert sleeper.state == "S"
    world.write(write, b"x")
    assert sleeper.state == "R"
    assert world.call("epoll_wait", ep, out, 8, -1, task=sleeper) == 1


def test_arm64_events_are_not_packed() -> None:
    world = World("aarch64")
    ep = world.call("epoll_create1", 0)
    fd = world.call("eventfd2", 1, 0)
    assert world.call("epoll_ctl", ep, ADD, fd, struct.pack("<I4xQ", IN, 5)) == 0
    out = world.put(bytes(16))
    assert world.call("epoll_pwait", ep, out, 1, 0, 0, 0) == 1
    assert world.get(out, 16) == struct.pack("<I4xQ", IN, 5)


def test_pickles(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    read, write = pipe(world)
    ctl(world, ep, ADD, read, IN)
    world.write(write, b"x")
    files = pickle.loads(pickle.dumps(world.task.files))
    copy = files.get(ep)
    assert copy.find(files.get(read), read) in copy.rdllist
    assert copy.rdllist[0] in files.get(read).pipe.rd_wait.watchers


def test_fdinfo(world: World) -> None:
    ep = world.call("epoll_create1", 0)
    event = world.call("eventfd2", 0, 0)
    ctl(world, ep, ADD, event, IN, 0x1234)
    assert b"tfd:        4 events:       19 data:             1234  pos:0 ino:" in world.cat(f"/proc/self/fdinfo/{ep}")


# signalfd


def block(world: World, mask: int) -> None:
    world.task.blocked = mask


def test_signalfd_reads_pending_signals(world: World) -> None:
    block(world, 1 << 9 | 1 << 16 | 1 << 33)
    fd = world.call("signalfd4", -1, struct.pack("<Q", 1 << 9 | 1 << 33 | 1 << 8), 8, O_NONBLOCK)
    assert name(world.read(fd)) == "EAGAIN"  # type: ignore[arg-type]
    ep = world.call("epoll_create1", 0)
    ctl(world, ep, ADD, fd, IN)
    pid = world.task.pid
    world.call("kill", pid, 10)
    world.call("kill", pid, 17)
    info = struct.pack("<iii4xiIQ", 34, 0, -1, pid, 7, 0xABCDEF0123456789).ljust(128, b"\0")
    world.call("rt_sigqueueinfo", pid, 34, info)
    assert wait(world, ep) == [(fd, IN)]
    assert name(world.call("read", fd, world.put(bytes(256)), 127)) == "EINVAL"
    data = world.read(fd, 1024)
    assert isinstance(data, bytes) and len(data) == 256
    first, second = struct.unpack("<IiiII", data[:20]), struct.unpack("<IiiII", data[128:148])
    assert first == (10, 0, 0, pid, 0)
    assert second == (34, 0, -1, pid, 7)
    assert struct.unpack("<iQ", data[128 + 44 : 128 + 56]) == (0x23456789, 0xABCDEF0123456789)
    assert world.task.signal.shared_pending.signal == 1 << 16
    assert wait(world, ep) == []
    assert world.call("signalfd4", fd, struct.pack("<Q", 1 << 16), 8, 0) == fd
    assert wait(world, ep) == [(fd, IN)]


def test_signalfd_refusals(world: World) -> None:
    assert name(world.call("signalfd4", -1, bytes(8), 4, 0)) == "EINVAL"
    assert name(world.call("signalfd4", -1, bytes(8), 8, 1)) == "EINVAL"
    assert name(world.call("signalfd4", 99, bytes(8), 8, 0)) == "EBADF"
    assert name(world.call("signalfd4", 0, bytes(8), 8, 0)) == "EINVAL"
    fd = world.call("signalfd", -1, struct.pack("<Q", (1 << 64) - 1), 8)
    assert b"sigmask:\tfffffffffffbfeff" in world.cat(f"/proc/self/fdinfo/{fd}")


# timerfd


def settime(world: World, fd: int, value: int, interval: int = 0, flags: int = 0) -> str:
    new = struct.pack("<4q", *divmod(interval, 10**9), *divmod(value, 10**9))
    return name(world.call("timerfd_settime", fd, flags, new, 0))


def advance(world: World, nanoseconds: int) -> None:
    world.kernel.clock.now += nanoseconds
    if world.kernel.clock.now >= world.kernel.timers.next:
        world.kernel.timers.run()


def test_timer_counts_expiries(world: World) -> None:
    fd = world.call("timerfd_create", 1, O_NONBLOCK)
    ep = world.call("epoll_create1", 0)
    ctl(world, ep, ADD, fd, IN)
    assert name(world.read(fd)) == "EAGAIN"  # type: ignore[arg-type]
    assert settime(world, fd, 1000, 500) == "ok"
    advance(world, 999)
    assert wait(world, ep) == []
    advance(world, 1001)
    assert wait(world, ep) == [(fd, IN)]
    assert world.read(fd) == struct.pack("<Q", 3)
    advance(world, 400)
    assert name(world.read(fd)) == "EAGAIN"  # type: ignore[arg-type]
    out = world.put(bytes(32))
    assert world.call("timerfd_gettime", fd, out) == 0
    assert struct.unpack("<4q", world.get(out, 32)) == (0, 500, 0, 100)
    assert settime(world, fd, 0) == "ok"
    assert not world.kernel.timers.armed()
    assert world.call("timerfd_gettime", fd, out) == 0
    assert world.get(out, 32) == bytes(32)


def test_absolute_and_cancelled(world: World) -> None:
    clock = world.kernel.clock
    fd = world.call("timerfd_create", 0, O_NONBLOCK)
    assert settime(world, fd, clock.realtime() - 5, 0, 1) == "ok"  # in the past: at once
    assert world.read(fd) == struct.pack("<Q", 1)
    assert settime(world, fd, clock.realtime() + 5000, 0, 3) == "ok"
    clock.offset += 1
    assert name(world.read(fd)) == "ECANCELED"  # type: ignore[arg-type]
    assert name(world.read(fd)) == "EAGAIN"  # type: ignore[arg-type]


def test_timerfd_refusals(world: World) -> None:
    assert name(world.call("timerfd_create", 2, 0)) == "EINVAL"
    assert name(world.call("timerfd_create", 1, 1)) == "EINVAL"
    fd = world.call("timerfd_create", 1, 0)
    assert settime(world, fd, 1, flags=4) == "EINVAL"
    assert settime(world, 0, 1) == "EINVAL"
    assert settime(world, 99, 1) == "EBADF"
    assert name(world.call("timerfd_settime", fd, 0, struct.pack("<4q", 0, 0, 0, 10**9), 0)) == "EINVAL"
    assert name(world.call("timerfd_settime", fd, 0, 8, 0)) == "EFAULT"
    assert name(world.read(fd, 7)) == "EINVAL"  # type: ignore[arg-type]
    with pytest.raises(Block):
        world.read(fd)
