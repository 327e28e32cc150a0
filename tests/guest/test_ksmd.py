"""ksmd on the virtual clock: when it runs, what it costs, and that it alone keeps no machine alive."""

import errno
import pickle

import pytest
from guest_world import World

from guest.clock import TICK_NSEC
from guest.idle import idle
from guest.ksmd import PART, SCAN_NSEC, SHARE
from guest.sched import TASK_INTERRUPTIBLE, Deadlock
from guest.timers import NEVER

KSM = "/sys/kernel/mm/ksm/"
MERGEABLE = 12
PAGE = 4096


def put(world: World, name: str, text: str) -> int:
    fd = world.open(KSM + name, 1)
    if fd < 0:
        return fd
    result = world.call("write", fd, world.put(text.encode()), len(text))
    world.call("close", fd)
    return int(result)


def get(world: World, name: str) -> int:
    return int(world.cat(KSM + name))


def merging(pages: int = 4) -> World:
    """A world whose task has that many equal pages, and ksmd at work."""
    world = World()
    at = world.call("mmap", 0x40000000, pages * PAGE, 3, 0x8032, -1, 0)  # MAP_POPULATE
    assert world.call("madvise", at, pages * PAGE, MERGEABLE) == 0
    assert not world.kernel.timers.daemons
    assert put(world, "run", "1") == 1
    return world


def until(world: World, nanoseconds: int) -> None:
    """Time passes; timers run when they are due."""
    timers, clock = world.kernel.timers, world.kernel.clock
    end = clock.now + nanoseconds
    while timers.next <= end:
        clock.now = max(clock.now, timers.next)
        timers.run()
    clock.now = max(clock.now, end)


def test_nothing_runs_while_there_is_nothing_to_do() -> None:
    world = World()
    assert put(world, "run", "1") == 1
    assert not world.kernel.timers.armed()  # no address space
    at = world.call("mmap", 0x40000000, PAGE, 3, 0x32, -1, 0)
    assert world.call("madvise", at, PAGE, MERGEABLE) == 0
    assert world.kernel.timers.armed()
    assert put(world, "run", "0") == 1
    until(world, 10**9)
    assert not world.kernel.timers.armed() and get(world, "full_scans") == 0


def test_batches_come_as_often_as_linux_makes_them() -> None:
    world = merging()
    put(world, "sleep_millisecs", "20")
    until(world, 10**9)
    assert get(world, "full_scans") in (41, 42)  # 20 ms are 5 ticks and the one under way; the reference kernel: 41
    assert (get(world, "pages_shared"), get(world, "pages_sharing")) == (1, 3)
    put(world, "sleep_millisecs", "100")
    before = get(world, "full_scans")
    until(world, 10**9)
    assert get(world, "full_scans") - before == 10


def test_a_batch_is_done_in_parts_and_a_write_to_run_waits_for_it() -> None:
    pages = 2 * PART + 100
    world = merging(pages)
    put(world, "pages_to_scan", str(pages))
    clock, timers = world.kernel.clock, world.kernel.timers
    clock.now = timers.next
    start = clock.now
    timers.run()
    assert clock.now - start == PART * SCAN_NSEC
    assert timers.next - clock.now == SHARE * PART * SCAN_NSEC
    assert get(world, "pages_volatile") == PART
    assert put(world, "run", "0") == 1
    assert get(world, "pages_volatile") == pages


def test_it_goes_on_after_pickling() -> None:
    world = merging()
    until(world, 10 * TICK_NSEC)
    timers = pickle.loads(pickle.dumps(world.kernel)).timers
    assert [daemon.expires for daemon in timers.daemons] == [daemon.expires for daemon in world.kernel.timers.daemons]


def test_a_deadlock_is_one_while_ksmd_runs() -> None:
    world = merging()
    world.task.state = TASK_INTERRUPTIBLE
    with pytest.raises(Deadlock):
        idle(world.kernel)
    world.task.deadline = world.kernel.clock.now + 10**9
    before = world.kernel.clock.now
    assert idle(world.kernel)  # ksmd first
    assert before < world.kernel.clock.now < before + 10 * TICK_NSEC
    assert world.kernel.timers.next_daemon() != NEVER


def test_settings() -> None:
    world = World()
    assert put(world, "run", "3") == -errno.EINVAL
    assert put(world, "max_page_sharing", "99999999999") == -errno.ERANGE
    assert put(world, "max_page_sharing", "-1") == -errno.EINVAL
    assert put(world, "use_zero_pages", "on") == 2
    assert get(world, "use_zero_pages") == 1
    assert put(world, "use_zero_pages", "off") == 3
    assert put(world, "pages_shared", "1") == -errno.EACCES
    assert put(world, "sleep_millisecs", "9" * 5000) == -errno.EINVAL
