"""RLIMIT_CPU; what a refused clone leaves behind; SCHED_RESET_ON_FORK."""

import errno
import struct

import pytest
from guest_world import World

from guest.siginfo import SIGKILL, SIGXCPU

SECOND = 10**9
CLONE_PIDFD = 0x1000
SCHED_FIFO, SCHED_RESET_ON_FORK = 1, 0x40000000


@pytest.fixture
def world() -> World:
    return World()


def limit_cpu(world: World, soft: int, hard: int) -> None:
    assert world.call("setrlimit", 0, struct.pack("<QQ", soft, hard)) == 0


def pending(world: World) -> int:
    return world.task.signal.shared_pending.signal | world.task.pending.signal


def test_cpu_time_runs_out(world: World) -> None:
    task, timers = world.task, world.kernel.timers
    limit_cpu(world, 1, 2)
    task.utime = SECOND - 1
    timers.run()
    assert not pending(world)
    task.stime = 1
    timers.run()
    assert pending(world) == 1 << SIGXCPU - 1
    assert task.rlim[0] == [2, 2]
    task.signal.shared_pending.signal = 0
    task.utime = 2 * SECOND
    timers.run()
    assert pending(world) >> SIGKILL - 1 & 1


def test_the_timer_of_the_limit_comes_and_goes(world: World) -> None:
    timers = world.kernel.timers
    limit_cpu(world, 1, (1 << 64) - 1)
    assert timers.armed() and timers.next <= world.kernel.clock.now + SECOND
    limit_cpu(world, (1 << 64) - 1, (1 << 64) - 1)
    assert not timers.armed()


def test_a_child_inherits_the_limit(world: World) -> None:
    limit_cpu(world, 1, 3)
    child = world.kernel.tasks[world.call("clone", 17)]
    assert child.signal in world.kernel.timers.signals


def test_a_pidfd_that_cannot_be_handed_over_ends_the_clone(world: World) -> None:
    tasks, files = set(world.kernel.tasks), world.task.files.open_fds()
    arguments = struct.pack("<8Q", CLONE_PIDFD, 8, 0, 0, 17, 0, 0, 0)
    assert world.call("clone3", arguments, 64) == -errno.EFAULT
    assert set(world.kernel.tasks) == tasks
    assert world.task.files.open_fds() == files
    at = world.put(bytes(4))
    arguments = struct.pack("<8Q", CLONE_PIDFD, at, 0, 0, 17, 0, 0, 0)
    pid = world.call("clone3", arguments, 64)
    fd = int.from_bytes(world.get(at, 4), "little")
    assert pid > 0 and world.task.files.get(fd).pidfd_task.pid == pid


def test_reset_on_fork(world: World) -> None:
    assert world.call("sched_setscheduler", 0, SCHED_FIFO | SCHED_RESET_ON_FORK, struct.pack("<i", 7)) == 0
    assert world.call("sched_getscheduler", 0) == SCHED_FIFO | SCHED_RESET_ON_FORK
    child = world.kernel.tasks[world.call("clone", 17)]
    assert (child.policy, child.rt_priority, child.sched_reset_on_fork) == (0, 0, False)


def test_unused_arguments_of_speculation_control(world: World) -> None:
    assert world.call("prctl", 52, 1, 1) == -errno.EINVAL
    assert world.call("prctl", 52, 1) == 2
    assert world.call("ioprio_get", 1, 0) == 4


def test_large_tables_of_descriptors_take_a_bounded_share_of_memory(world: World) -> None:
    """A table of a million descriptors, copied by every fork, would fill the host's memory and not the guest's."""
    assert world.call("setrlimit", 7, struct.pack("<QQ", 1 << 20, 1 << 20)) == 0
    assert world.call("dup3", 1, (1 << 19) - 1, 0) == (1 << 19) - 1
    results = [world.call("clone", 17) for _ in range(3)]
    assert results[-1] == -errno.ENOMEM and world.call("clone", 17 | 0x400) > 0  # CLONE_FILES: no copy
    assert world.call("dup3", 1, (1 << 20) - 1, 0) == -errno.ENOMEM
