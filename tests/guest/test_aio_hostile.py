"""Asynchronous I/O under hostile programs. Found by the fuzzer."""

import errno
import struct

from guest_world import World

MADV_PAGEOUT, MADV_HWPOISON, MANY, RESFD, POLL = 21, 100, 2000, 1, 5


def setup(world: World, events: int) -> int:
    slot = world.put(bytes(8))
    assert world.call("io_setup", events, slot) == 0
    return int.from_bytes(world.get(slot, 8), "little")


def submit_poll(world: World, context: int, eventfd: int) -> None:
    """Wait for the eventfd, which the end of that adds to."""
    iocb = struct.pack("<QIIHhIQQqQII", 0, 0, 0, POLL, 0, eventfd, 1, 0, 0, 0, RESFD, eventfd)
    at = world.put(struct.pack("<Q", world.put(iocb)))
    assert world.call("io_submit", context, 1, at) == 1


def test_a_rings_pages_are_its_own() -> None:
    world = World("aarch64")
    ring = setup(world, 8)
    header = world.get(ring, 32)
    assert world.call("madvise", ring, 4096, MADV_PAGEOUT) == 0
    assert world.get(ring, 32) == header
    assert world.call("madvise", ring, 4096, MADV_HWPOISON) == -errno.EBUSY


def test_many_requests_that_end_each_other() -> None:
    world = World()
    context, eventfd = setup(world, MANY), world.call("eventfd2", 0, 0)
    for _ in range(MANY):
        submit_poll(world, context, eventfd)
    assert world.write(eventfd, (1).to_bytes(8, "little")) == 8
    assert int.from_bytes(world.read(eventfd, 8), "little") == 1 + MANY


def test_a_context_ends_with_requests_that_end_each_other() -> None:
    world = World()
    context, eventfd = setup(world, 8), world.call("eventfd2", 0, 0)
    for _ in range(3):
        submit_poll(world, context, eventfd)
    assert world.call("io_destroy", context) == 0
    assert int.from_bytes(world.read(eventfd, 8), "little") == 3
