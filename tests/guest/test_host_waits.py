"""Who waits for a descriptor of the host is woken for what it asked for, and for nothing else."""

import os
import struct

import pytest
from guest_world import World

from guest.idle import idle
from guest.sched import Block

POLLIN, POLLOUT = 1, 4


@pytest.mark.parametrize(("fd", "events"), [(0, 0), (0, POLLOUT), (1, 0), (1, POLLIN)])
def test_a_ready_descriptor_does_not_wake_who_asked_for_something_else(fd: int, events: int) -> None:
    """Standard input has data and output has room: the wait still takes its ten milliseconds, and time passes."""
    (reader, unused), (other, writer) = os.pipe(), os.pipe()
    os.write(unused, b"data")
    world = World(stdin=reader, stdout=writer)
    clock = world.kernel.clock
    before = clock.now
    with pytest.raises(Block):
        world.call("poll", world.put(struct.pack("<ihh", fd, events, 0)), 1, 10)
    assert idle(world.kernel)
    assert clock.now - before >= 10_000_000
    for descriptor in (reader, unused, other, writer):
        os.close(descriptor)


def test_a_descriptor_that_gets_ready_does() -> None:
    reader, writer = os.pipe()
    world = World(stdin=reader)
    with pytest.raises(Block):
        world.call("poll", world.put(struct.pack("<ihh", 0, POLLIN, 0)), 1, 10_000)
    os.write(writer, b"data")
    before = world.kernel.clock.now
    assert idle(world.kernel)
    assert world.kernel.clock.now == before
    os.close(reader)
    os.close(writer)
