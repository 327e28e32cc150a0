"""pagemap, smaps and clear_refs of huge pages. Every number is what a real Linux 5.10 printed for the same accesses."""

from __future__ import annotations

import struct

import pytest
from guest_world import World

from mm.uaccess import copy_from_user, copy_to_user

HUGE = 2 << 20
AREA = 0x100000000000
MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE = 4, 8, 14
PRESENT, FILE, EXCLUSIVE, SOFT = 0x100, 0x40, 0x2, 0x1  # bits 63, 61, 56, 55 of a pagemap entry


class HugeWorld(World):
    """Eight huge pages' room: the first is left, then the huge zero page, a written one, and nothing yet."""

    def __init__(self, arch: str) -> None:
        super().__init__(arch)
        self.soft = SOFT if arch == "x86_64" else 0
        assert self.call("mmap", AREA, 8 * HUGE, 3, 0x32, -1, 0) == AREA
        assert self.call("madvise", AREA, 8 * HUGE, MADV_HUGEPAGE) == 0
        self.at = AREA + HUGE
        copy_from_user(self.task, self.at + 5, 1)
        self.write_byte(HUGE)
        self.write_byte(HUGE + 4096 * 7)

    def write_byte(self, offset: int) -> None:
        copy_to_user(self.task, self.at + offset, b"x")

    def clear(self, kind: str) -> None:
        fd = self.open("/proc/self/clear_refs", 1)
        assert self.write(fd, kind.encode()) == 1

    def pagemap(self, start: int, pages: int) -> list[tuple[int, int]]:
        """Runs of equal flags: (flags, how many); within a run frames count up by one."""
        fd = self.open("/proc/self/pagemap")
        buf = self.put(bytes(8 * pages))
        assert self.call("pread64", fd, buf, 8 * pages, start // 4096 * 8) == 8 * pages
        runs: list[tuple[int, int]] = []
        before = 0
        for entry in struct.unpack(f"<{pages}Q", self.get(buf, 8 * pages)):
            flags, frame = entry >> 55, entry & (1 << 55) - 1
            assert bool(frame) == bool(flags & PRESENT)
            if runs and runs[-1][0] == flags:
                assert frame in (0, before + 1)
                runs[-1] = (flags, runs[-1][1] + 1)
            else:
                runs.append((flags, 1))
            before = frame
        return runs

    def smaps(self, path: str = "/proc/self/smaps") -> dict[str, int]:
        """Fields that are not 0 of the area (of smaps_rollup: of all)."""
        text = self.cat(path).decode()
        if path.endswith("smaps"):
            text = text[text.index(f"{self.at:x}-") if f"\n{self.at:x}-" in text else text.index(f"{AREA:x}-") :]
        fields: dict[str, int] = {}
        for line in text.splitlines()[1:]:
            name, _, value = line.partition(":")
            if not value.endswith(" kB"):
                break
            if int(value[:-3]):
                fields[name] = int(value[:-3])
        for name in ("Size", "KernelPageSize", "MMUPageSize"):
            fields.pop(name, None)
        return fields


@pytest.fixture(params=["x86_64", "aarch64"])
def world(request: pytest.FixtureRequest) -> HugeWorld:
    return HugeWorld(request.param)


def one_page(**changes: int) -> dict[str, int]:
    fields = {"Rss": 2048, "Pss": 2048, "Private_Dirty": 2048, "Anonymous": 2048, "AnonHugePages": 2048}
    return fields | changes


def test_pagemap(world: HugeWorld) -> None:
    soft = world.soft
    runs = [(PRESENT | FILE | soft, 512), (PRESENT | EXCLUSIVE | soft, 512)]
    hole = [(soft, 512)]
    assert world.pagemap(world.at, 1536) == runs + hole
    first, second = runs
    assert world.pagemap(world.at + 4096 * 100, 1000) == [(first[0], 412), second, (soft, 76)]


def test_smaps(world: HugeWorld) -> None:
    assert world.smaps() == one_page(Referenced=2048)  # the huge zero page does not count
    assert world.smaps("/proc/self/smaps_rollup")["AnonHugePages"] == 2048


def test_clear_refs(world: HugeWorld) -> None:
    world.clear("1")
    assert world.smaps() == one_page()
    world.write_byte(HUGE)
    assert world.smaps() == one_page(Referenced=2048)
    world.clear("3")  # mapped files only
    assert world.smaps() == one_page(Referenced=2048)
    world.clear("2")
    assert world.smaps() == one_page()


def test_clear_refs_soft_dirty(world: HugeWorld) -> None:
    world.clear("4")
    assert world.pagemap(world.at, 1536) == [(PRESENT | FILE, 512), (PRESENT | EXCLUSIVE, 512), (0, 512)]
    world.write_byte(HUGE + 4096)
    assert world.pagemap(world.at, 1024)[1] == (PRESENT | EXCLUSIVE | world.soft, 512)


def test_shared_by_fork_then_split_by_a_write(world: HugeWorld) -> None:
    from mm.fork import dup_mm, mmput

    world.clear("1")
    child = world.new_task()
    mmput(child.mm)
    child.mm = dup_mm(world.task, world.task.mm)
    world.kernel.set_current(world.task)
    shared = {"Rss": 2048, "Pss": 1024, "Shared_Dirty": 2048, "Anonymous": 2048, "AnonHugePages": 2048}
    assert world.smaps() == shared
    world.write_byte(HUGE)
    assert world.smaps() == {
        "Rss": 2048, "Pss": 1026, "Shared_Dirty": 2044, "Private_Dirty": 4, "Referenced": 4, "Anonymous": 2048,
    }  # fmt: skip


def test_lazily_freed(world: HugeWorld) -> None:
    world.clear("1")
    assert world.call("madvise", world.at + HUGE, HUGE, MADV_FREE) == 0
    assert world.smaps() == {
        "Rss": 2048, "Pss": 2048, "Private_Clean": 2048, "Anonymous": 2048, "LazyFree": 2048, "AnonHugePages": 2048,
    }  # fmt: skip


def test_split_by_dontneed_stays_dirty(world: HugeWorld) -> None:
    world.clear("1")
    assert world.call("madvise", world.at + HUGE, 4096 * 16, MADV_DONTNEED) == 0
    assert world.smaps() == {"Rss": 1984, "Pss": 1984, "Private_Dirty": 1984, "Anonymous": 1984}
    soft = world.soft
    assert world.pagemap(world.at + HUGE, 512) == [(soft, 16), (PRESENT | EXCLUSIVE | soft, 496)]


def test_lazily_freed_part_of_a_split_mapping(world: HugeWorld) -> None:
    """The page itself is split then: what is left is old, dirty by its own mark, and soft-dirty as before."""
    first = world.at + HUGE
    assert world.call("madvise", first, 4096 * 16, MADV_DONTNEED) == 0
    assert world.call("madvise", first + 4096 * 16, 4096 * 64, MADV_FREE) == 0
    assert world.smaps() == {
        "Rss": 1984, "Pss": 1984, "Private_Clean": 256, "Private_Dirty": 1728, "Anonymous": 1984,
        "LazyFree": 256,  # Linux: 240, see deviation D6
    }  # fmt: skip
    soft = world.soft
    assert world.pagemap(first, 512) == [(soft, 16), (PRESENT | EXCLUSIVE | soft, 496)]
