"""Pages of a ring of asynchronous I/O are its own: reclaim cannot have them. Found by the fuzzer."""

from guest_world import World

MADV_PAGEOUT = 21


def test_a_ring_survives_pageout() -> None:
    world = World()
    slot = world.put(bytes(8))
    assert world.call("io_setup", 8, slot) == 0
    ring = int.from_bytes(world.get(slot, 8), "little")
    header = world.get(ring, 32)
    assert world.call("madvise", ring, 4096, MADV_PAGEOUT) == 0
    assert world.get(ring, 32) == header
    assert world.call("io_destroy", ring) == 0
