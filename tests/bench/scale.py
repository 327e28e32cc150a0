"""`python -m tests.bench.scale`: how mm/ behaves when there is much of everything. The figures of docs/limits.md.

    areas       65,530 areas in one address space, against 1,000
    pages       1 GiB of touched pages, against 4 MiB
    processes   200 forks of a process with 1,000 pages, against the first 10

Each part runs in a process of its own, so that host memory can be read off its resident set; guest frames are not
touched by the host there and do not count. No engine takes part: these are the costs of mm/ alone.
"""

import gc
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable

from emu.machine import GC_THRESHOLDS
from mm import arch_x86_64
from mm.flags import (
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    RLIM_INFINITY,
)
from mm.fork import dup_mm, mm_alloc, mmput
from mm.memory_rss import sync_mm_rss
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.mprotect import do_mprotect
from mm.system import System
from mm.types import MmStruct, TaskStruct

RAM = 1 << 30
PAGE = 4096
STORE = FAULT_FLAG_WRITE | FAULT_FLAG_USER
AREAS = 65_530
PAGES = 260_000  # what 1 GiB holds beside the page tables
PROCESSES = 200


class World:
    """One task with an empty address space."""

    def __init__(self) -> None:
        ram = mmap.mmap(-1, RAM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        self.system = System(arch_x86_64.make(), memoryview(ram))
        self.task = self.new_task()
        self.system.current = self.task
        self.mm = self.task.mm = mm_alloc(self.system)
        self.system.arch.arch_pick_mmap_layout(self.mm, 8 << 20, 0)

    def new_task(self) -> TaskStruct:
        task = TaskStruct(self.system)
        task.rlim = [[RLIM_INFINITY, RLIM_INFINITY] for _ in range(16)]
        return task

    def map(self, pages: int) -> int:
        return vm_mmap_pgoff(self.mm, None, 0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0)

    def store(self, mm: MmStruct, address: int) -> None:
        vma = mm.ops.find_vma(mm, address)
        assert vma is not None
        mm.ops.handle_mm_fault(vma, address, STORE)

    def exit(self, task: TaskStruct) -> None:
        mm, self.system.current = task.mm, task
        sync_mm_rss(task)
        task.mm = None
        assert mm is not None
        mmput(mm)
        self.system.current = self.task


def resident() -> int:
    """Host memory of this process, bytes."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def timed(work: Callable[[], None], count: int) -> float:
    """Microseconds for each of `count`."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / count * 1e6


def show(what: str, small: float, large: float) -> None:
    print(f"  {what:<44}{small:8.2f} us{large:8.2f} us{100 * large / small:6.0f} %", flush=True)


def areas() -> None:
    """mprotect of every second page, a store to each page, and the end of it all."""

    def run(count: int) -> tuple[float, float, float, int, int]:
        world = World()
        first = world.map(count)
        before = resident()

        def split() -> None:
            for n in range(1, count - 1, 2):
                do_mprotect(world.task, first + n * PAGE, PAGE, PROT_READ)

        def join() -> None:
            for n in range(1, count - 1, 2):
                do_mprotect(world.task, first + n * PAGE, PAGE, PROT_READ | PROT_WRITE)

        def touch() -> None:
            for n in range(0, count, 2):
                world.store(world.mm, first + n * PAGE)

        splitting = timed(split, count // 2)
        bare = (resident() - before) // world.mm.map_count
        touching = timed(touch, count // 2)
        full = (resident() - before) // world.mm.map_count
        return splitting, touching, timed(join, count // 2), bare, full

    small = min(run(1000) for _ in range(5))
    large = run(AREAS - 1)
    show("mprotect that splits two areas off", small[0], large[0])
    show("first store to a page of each area", small[1], large[1])
    show("mprotect that merges them again", small[2], large[2])
    print(f"  host memory of an area: {large[3]} bytes; with every second one touched, page included: {large[4]}")


def pages() -> None:
    """First stores, fork, exit, munmap."""

    def run(count: int) -> tuple[float, float, float, float, int]:
        world = World()
        first = world.map(count)
        mm = world.mm
        before = resident()

        def touch() -> None:
            for n in range(count):
                world.store(mm, first + n * PAGE)

        touching = timed(touch, count)
        memory = (resident() - before) // count
        child = world.new_task()

        def fork() -> None:
            child.mm = dup_mm(child, mm)

        forking = timed(fork, count)
        exiting = timed(lambda: world.exit(child), count)
        unmapping = timed(lambda: do_munmap(mm, first, count * PAGE), count)
        return touching, forking, exiting, unmapping, memory

    small = [run(1000) for _ in range(5)]
    large = run(PAGES)
    for n, what in enumerate(("first store to a page", "fork, a page", "exit of the child, a page", "munmap, a page")):
        show(what, min(one[n] for one in small), large[n])
    print(f"  host memory of a resident page, beyond the page: {large[4]} bytes")


def processes() -> None:
    """Children that share the pages of their parent, each of which stores to some."""
    world = World()
    count = 1000
    first = world.map(count)
    for n in range(count):
        world.store(world.mm, first + n * PAGE)
    children: list[TaskStruct] = []
    forks, copies, exits = [], [], []

    def fork() -> None:
        child = world.new_task()
        child.mm = dup_mm(child, world.mm)
        children.append(child)

    def copy() -> None:
        child = children[-1]
        world.system.current = child
        assert child.mm is not None
        for n in range(0, count, 10):
            world.store(child.mm, first + n * PAGE)
        world.system.current = world.task

    before = resident()
    for _ in range(PROCESSES):
        forks.append(timed(fork, 1))
        copies.append(timed(copy, count // 10))
    memory = (resident() - before) // PROCESSES
    while children:
        child = children.pop()
        exits.append(timed(lambda child=child: world.exit(child), 1))  # type: ignore[misc]
    exits.reverse()
    for what, times in (("fork with 1,000 pages", forks), ("copy-on-write of a page", copies), ("exit", exits)):
        show(what, min(times[:10]), sorted(times[-50:])[25])
    print(f"  host memory of a process with 100 pages of its own: {memory >> 10} KiB")


PARTS = {"areas": areas, "pages": pages, "processes": processes}


def main() -> None:
    if len(sys.argv) > 1:
        gc.set_threshold(*GC_THRESHOLDS)
        PARTS[sys.argv[1]]()
        return
    for name, part in PARTS.items():
        print(f"{name}: {' '.join((part.__doc__ or '').split())}\n{'':46}{'small':>10}{'large':>11}  ratio", flush=True)
        subprocess.run([sys.executable, "-m", "tests.bench.scale", name], check=True)


if __name__ == "__main__":
    main()
