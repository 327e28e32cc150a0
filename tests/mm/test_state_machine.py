"""Random operations against a model that knows pages only: no areas, no tables, no sharing of frames.

The model of a process is a dictionary from page number to what a load there must give and what is allowed. Whatever
merging, splitting, zero page, copy-on-write and fault handling do, each page must behave as the model's. After
every step all invariants of areas, page tables, rmap and counters are checked, and at the end nothing may be left.
"""

import mmap as host_mmap
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mm import arch_arm64, arch_x86_64
from mm.brk import brk
from mm.errors import Errno
from mm.flags import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    RLIM_INFINITY,
    VM_EXEC,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from mm.fork import dup_mm, mm_alloc, mmput
from mm.memory_rss import sync_mm_rss
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.mprotect import do_mprotect
from mm.system import System
from mm.types import MmStruct, TaskStruct
from mm.uaccess import copy_from_user, copy_to_user
from mm.validate import validate_mm
from mm.validate_pages import validate_system

WINDOW = 16  # pages that the operations work on, so that they meet
HEAP = 6
PROCESSES = 4
RW = PROT_READ | PROT_WRITE
PROTS = st.sampled_from([RW, RW, RW, PROT_READ, PROT_READ, 0, PROT_WRITE, PROT_READ | PROT_EXEC])

pages = st.integers(0, WINDOW - 1)
counts = st.integers(1, 8)
bytes_ = st.integers(1, 255)


class ModelPage:
    """What one page of one process is: its protection, and the cell of its first byte (one cell for all who share)."""

    def __init__(self, prot: int, shared: bool, cell: list[int]) -> None:
        self.prot, self.shared, self.cell = prot, shared, cell


class Process:
    """A task of mm/ beside its model."""

    def __init__(self, task: TaskStruct, model: dict[int, ModelPage], heap: int) -> None:
        self.task, self.model, self.heap = task, model, heap

    @property
    def mm(self) -> MmStruct:
        assert self.task.mm is not None
        return self.task.mm


class AddressSpaces(RuleBasedStateMachine):
    """mmap, munmap, mprotect, brk, loads, stores, fork and exit, on whichever process runs."""

    arch: Any = None
    ram_size = 16 << 20

    @initialize()
    def boot(self) -> None:
        self.system = System(self.arch, memoryview(host_mmap.mmap(-1, self.ram_size)))
        self.system.validate_level = 2
        self.shift = self.arch.page_shift
        self.base = 1 << 32
        self.heap_base = 1 << 31
        self.pids = 0
        self.free_at_start = self.system.nr_free_pages()
        task = self.new_task()
        self.system.current = task
        task.mm = mm_alloc(self.system)
        self.arch.arch_pick_mmap_layout(task.mm, 8 << 20, 0)
        task.mm.start_brk = task.mm.brk = self.heap_base
        self.processes = [Process(task, {}, 0)]
        self.now = self.processes[0]

    def new_task(self) -> TaskStruct:
        task = TaskStruct(self.system)
        self.pids += 1
        task.pid = self.pids
        task.rlim = [[RLIM_INFINITY, RLIM_INFINITY] for _ in range(16)]
        return task

    def address(self, page: int) -> int:
        return self.base + (page << self.shift)

    def number(self, address: int) -> int:
        """Page number relative to the window, for any page of the address space."""
        return (address - self.base) >> self.shift

    @rule(page=pages, count=counts, prot=PROTS, shared=st.booleans(), fixed=st.booleans())
    def mmap(self, page: int, count: int, prot: int, shared: bool, fixed: bool) -> None:
        flags = MAP_ANONYMOUS | (MAP_SHARED if shared else MAP_PRIVATE) | (MAP_FIXED if fixed else 0)
        mm = self.now.mm
        got = vm_mmap_pgoff(mm, None, self.address(page), count << self.shift, prot, flags, 0)
        first = self.number(got)
        wanted = range(page, page + count)
        if fixed or not any(n in self.now.model for n in wanted):
            assert first == page
        else:
            assert not any(n in self.now.model for n in range(first, first + count))
        for n in range(first, first + count):
            self.now.model[n] = ModelPage(prot, shared, [0])

    @rule(page=pages, count=counts)
    def munmap(self, page: int, count: int) -> None:
        do_munmap(self.now.mm, self.address(page), count << self.shift)
        for n in range(page, page + count):
            self.now.model.pop(n, None)

    @rule(page=pages, count=counts, prot=PROTS)
    def mprotect(self, page: int, count: int, prot: int) -> None:
        refused = False
        try:
            do_mprotect(self.now.task, self.address(page), count << self.shift, prot)
        except Errno:
            refused = True
        model = self.now.model
        hole = next((n for n in range(page, page + count) if n not in model), None)
        assert refused == (hole is not None)
        for n in range(page, page + count if hole is None else hole):  # what lies before the hole was changed
            model[n].prot = prot

    @rule(count=st.integers(-2, HEAP), odd=st.integers(0, 1))
    def brk(self, count: int, odd: int) -> None:
        wanted = self.heap_base + (count << self.shift) + odd
        got = brk(self.now.mm, wanted)
        if count < 0:
            assert got != wanted
            return
        assert got == wanted
        size = count + odd
        base = self.number(self.heap_base)
        for n in range(size, self.now.heap):
            self.now.model.pop(base + n, None)
        for n in range(self.now.heap, size):
            self.now.model[base + n] = ModelPage(PROT_READ | PROT_WRITE, False, [0])
        self.now.heap = size

    def touch(self, n: int, value: int | None) -> None:
        """Load or store one byte, as the kernel would for a system call; the model says what must come of it."""
        address = self.address(n)
        page = self.now.model.get(n)
        allowed = page is not None and (page.prot & PROT_WRITE if value is not None else page.prot)
        try:
            if value is None:
                data = copy_from_user(self.now.task, address, 1)
            else:
                copy_to_user(self.now.task, address, bytes([value]))
        except Errno:
            assert not allowed
            return
        assert allowed
        assert page is not None
        if value is None:
            assert data[0] == page.cell[0]
        else:
            page.cell[0] = value

    @rule(page=pages)
    def load(self, page: int) -> None:
        self.touch(page, None)

    @rule(page=pages, value=bytes_)
    def store(self, page: int, value: int) -> None:
        self.touch(page, value)

    @rule(page=st.integers(0, HEAP), value=bytes_)
    def store_heap(self, page: int, value: int) -> None:
        self.touch(self.number(self.heap_base) + page, value)

    @rule(value=bytes_)
    def store_everywhere(self, value: int) -> None:
        for n in sorted(self.now.model):
            self.touch(n, value)

    @rule()
    def load_everywhere(self) -> None:
        for n in sorted(self.now.model):
            self.touch(n, None)

    @precondition(lambda self: len(self.processes) < PROCESSES)
    @rule()
    def fork(self) -> None:
        task = self.new_task()
        task.mm = dup_mm(task, self.now.mm)
        model = {
            n: ModelPage(page.prot, page.shared, page.cell if page.shared else list(page.cell))
            for n, page in self.now.model.items()
        }
        self.processes.append(Process(task, model, self.now.heap))

    @precondition(lambda self: len(self.processes) < PROCESSES)
    @rule(value=bytes_, child_first=st.booleans())
    def fork_and_store(self, value: int, child_first: bool) -> None:
        """Either side stores to every page first; then both look at all of theirs."""
        parent = self.now
        self.fork()
        child = self.processes[-1]
        for process in (child, parent) if child_first else (parent, child):
            self.switch(self.processes.index(process))
            self.store_everywhere(value)
            value = value % 255 + 1
        for process in (child, parent):
            self.switch(self.processes.index(process))
            self.load_everywhere()

    @rule(which=st.integers(0, PROCESSES - 1))
    def switch(self, which: int) -> None:
        self.now = self.processes[which % len(self.processes)]
        self.system.current = self.now.task

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=st.integers(0, PROCESSES - 1))
    def exit(self, which: int) -> None:
        gone = self.processes.pop(which % len(self.processes))
        self.leave(gone)
        self.switch(which)

    def leave(self, process: Process) -> None:
        """do_exit(): the last counters to the mm, then the mm."""
        mm = process.mm
        self.system.current = process.task
        sync_mm_rss(process.task)
        process.task.mm = None
        mmput(mm)

    @invariant()
    def areas_are_what_the_model_says(self) -> None:
        for process in self.processes:
            found: dict[int, tuple[int, bool]] = {}
            vma = process.mm.mmap
            while vma is not None:
                flags = vma.vm_flags
                prot = (PROT_READ if flags & VM_READ else 0) | (PROT_WRITE if flags & VM_WRITE else 0)
                prot |= PROT_EXEC if flags & VM_EXEC else 0
                for n in range(self.number(vma.vm_start), self.number(vma.vm_end)):
                    found[n] = (prot, bool(flags & VM_SHARED))
                vma = vma.vm_next
            assert found == {n: (page.prot, page.shared) for n, page in process.model.items()}

    @invariant()
    def all_checks_are_silent(self) -> None:
        for process in self.processes:
            validate_mm(process.mm)
        validate_system(self.system, [process.task for process in self.processes])

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            self.leave(process)
        assert self.system.vm_committed_as == 0
        assert self.system.nr_free_pages() == self.free_at_start


@pytest.mark.parametrize(
    ("arch", "ram_size"),
    [
        (arch_x86_64.make(), 16 << 20),
        (arch_x86_64.make(la57=True), 16 << 20),
        (arch_arm64.make(4096), 16 << 20),
        (arch_arm64.make(16384), 64 << 20),
        (arch_arm64.make(65536), 256 << 20),
    ],
    ids=["x86_64-4k", "x86_64-4k-la57", "aarch64-4k", "aarch64-16k", "aarch64-64k"],
)
def test_pages_behave_as_the_model(arch: Any, ram_size: int) -> None:
    machine = type("AddressSpaces", (AddressSpaces,), {"arch": arch, "ram_size": ram_size})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
