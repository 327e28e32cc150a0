"""/sys/kernel/mm/transparent_hugepage: what is written is obeyed by the next fault (enabled_store())."""

import errno
import re

import pytest
from guest_world import World

FOLDER = "/sys/kernel/mm/transparent_hugepage/"
MIB = 1 << 20
MADV_HUGEPAGE = 14


def write(world: World, name: str, text: str) -> int:
    fd = world.open(FOLDER + name, 1)
    result = world.call("write", fd, world.put(text.encode()), len(text))
    world.call("close", fd)
    return int(result)


def huge_kb(world: World) -> int:
    found = re.search(rb"AnonHugePages: +(\d+) kB", world.cat("/proc/meminfo"))
    assert found is not None
    return int(found[1])


def touched(world: World, advice: int = 0) -> int:
    """KiB of huge pages after the first byte of each of two 2 MiB blocks is written."""
    at = world.call("mmap", 0x40000000, 4 * MIB, 3, 0x32, -1, 0)
    if advice:
        assert world.call("madvise", at, 4 * MIB, advice) == 0
    zero = world.open("/dev/zero")
    for block in range(2):
        assert world.call("read", zero, at + block * 2 * MIB, 1) == 1
    kb = huge_kb(world)
    world.call("munmap", at, 4 * MIB)
    return kb


@pytest.mark.parametrize(("word", "plain", "advised"), [("always", 4096, 4096), ("madvise", 0, 4096), ("never", 0, 0)])
def test_enabled_decides_who_gets_huge_pages(word: str, plain: int, advised: int) -> None:
    world = World()
    assert write(world, "enabled", word + "\n") == len(word) + 1
    assert f"[{word}]" in world.cat(FOLDER + "enabled").decode()
    assert touched(world) == plain
    assert touched(world, MADV_HUGEPAGE) == advised
    assert huge_kb(world) == 0


def test_other_words_are_refused() -> None:
    world = World()
    assert write(world, "enabled", "sometimes") == -errno.EINVAL
    assert write(world, "defrag", "defer+madvise") == 13
    assert world.cat(FOLDER + "defrag") == b"always defer [defer+madvise] madvise never\n"
    assert write(world, "use_zero_page", "2") == -errno.EINVAL
    assert write(world, "shmem_enabled", "always") == -errno.EINVAL
