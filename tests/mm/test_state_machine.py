"""Random operations against a model that knows pages only: no areas, no tables, no sharing of frames.

Whatever merging, splitting, zero page, copy-on-write, page cache and fault handling do, each page must behave as the
model's (address_space_model.py). After every step all invariants of areas, page tables, rmap and counters are checked,
and counts of references and mappings are made once more from the tables alone; at the end nothing may be left.
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
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    RLIM_INFINITY,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_SHARED,
    VM_WIPEONFORK,
)
from mm.fork import dup_mm, mm_alloc, mmput
from mm.madvise import (
    MADV_COLD,
    MADV_DOFORK,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_KEEPONFORK,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_RANDOM,
    MADV_REMOVE,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    do_madvise,
)
from mm.memory_rss import sync_mm_rss
from mm.mlock import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT, mlock2, mlockall, munlock, munlockall
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.mprotect import do_mprotect
from mm.mremap import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, mremap
from mm.shmem import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    ShmemFile,
    new_shmem_mapping,
    shmem_fallocate,
    shmem_read,
    shmem_truncate,
    shmem_write,
)
from mm.system import System
from mm.types import TaskStruct
from mm.uaccess import copy_from_user, copy_to_user
from mm.util import fput
from mm.validate import validate_mm
from mm.validate_pages import validate_system
from tests.mm.address_space_model import (
    LOCKED,
    LOCKONFAULT,
    ModelFile,
    ModelPage,
    Process,
    areas,
    prot_of,
    recount,
)

WINDOW = 16  # pages that the operations work on, so that they meet
HEAP = 6
PROCESSES = 4
FILE_PAGES = 6
BACKED_PAGES = 4
RW = PROT_READ | PROT_WRITE
PROTS = st.sampled_from([RW, RW, RW, PROT_READ, PROT_READ, 0, PROT_WRITE, PROT_READ | PROT_EXEC])
ADVICE = st.sampled_from(
    [
        *(MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_FREE, MADV_PAGEOUT, MADV_COLD, MADV_REMOVE, MADV_WILLNEED),
        *(MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_RANDOM, MADV_SEQUENTIAL, MADV_NORMAL),
    ]
)

pages = st.integers(0, WINDOW - 1)
counts = st.integers(1, 5)
long_counts = st.integers(2, 10)  # more is mapped than unmapped, so that most calls meet pages
short_counts = st.integers(1, 3)
bytes_ = st.integers(1, 255)
file_pages = st.integers(0, FILE_PAGES + 1)
which_file = st.integers(0, 1)


class Backing:
    """A host file: the first byte of page n is n + 1."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.size = BACKED_PAGES * page_size

    def read(self, offset: int, count: int) -> bytes:
        content = b"".join(bytes([n + 1]).ljust(self.page_size, b".") for n in range(BACKED_PAGES))
        return content[offset : offset + count]


class AddressSpaces(RuleBasedStateMachine):
    """The memory calls, loads, stores, file calls, fork and exit, on whichever process runs."""

    arch: Any = None
    ram_size = 16 << 20

    @initialize()
    def boot(self) -> None:
        self.system = System(self.arch, memoryview(host_mmap.mmap(-1, self.ram_size)))
        self.system.validate_level = 2
        self.shift = self.arch.page_shift
        self.size = self.arch.page_size
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
        empty = ShmemFile("empty", new_shmem_mapping(self.system, None))
        backed = ShmemFile("backed", new_shmem_mapping(self.system, None, Backing(self.size)))
        content = {n: n + 1 for n in range(BACKED_PAGES)}
        self.files = [ModelFile(0, {}, empty), ModelFile(BACKED_PAGES * self.size, content, backed)]
        self.mmap(0, WINDOW, RW, False, True, False)
        self.mmap_file(3, 4, RW, False, True, 1, 0, False)

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

    def in_one_area(self, page: int, count: int) -> bool:
        """Do the areas hold the range in one piece (which depends on merging, so the model cannot say)?"""
        first, end = self.address(page), self.address(page + count)
        return any(vma.vm_start <= first < vma.vm_end and end <= vma.vm_end for vma in areas(self.now.mm))

    def populate(self, wanted: list[int]) -> None:
        """What a lock makes present; where one page of an area fails, those behind it would fail alike."""
        for n in wanted:
            self.now.model[n].populate(self.size)

    # -- mapping -------------------------------------------------------------------------------------------------------

    def add(self, got: int, count: int, template: ModelPage, populate: bool = False) -> None:
        """The model's side of mmap."""
        first = self.number(got)
        for n in range(count):
            self.now.model[first + n] = template.grown(n)
        if populate or self.now.lock_future:
            self.populate(list(range(first, first + count)))

    def check_place(self, page: int, count: int, fixed: bool, got: int) -> None:
        first = self.number(got)
        if fixed or not any(n in self.now.model for n in range(page, page + count)):
            assert first == page
        else:
            assert not any(n in self.now.model for n in range(first, first + count))

    @rule(
        page=pages,
        count=long_counts,
        prot=PROTS,
        shared=st.booleans(),
        fixed=st.booleans(),
        populate=st.booleans(),
    )
    def mmap(self, page: int, count: int, prot: int, shared: bool, fixed: bool, populate: bool) -> None:
        flags = MAP_ANONYMOUS | (MAP_SHARED if shared else MAP_PRIVATE) | (MAP_FIXED if fixed else 0)
        flags |= MAP_POPULATE if populate else 0
        got = vm_mmap_pgoff(self.now.mm, None, self.address(page), count << self.shift, prot, flags, 0)
        self.check_place(page, count, fixed, got)
        file = ModelFile(count << self.shift) if shared else None
        self.add(got, count, ModelPage(prot, shared, file, 0, None, self.now.lock_future), populate)

    @rule(
        page=pages,
        count=long_counts,
        prot=PROTS,
        shared=st.booleans(),
        fixed=st.booleans(),
        which=which_file,
        offset=file_pages,
        populate=st.booleans(),
    )
    def mmap_file(
        self, page: int, count: int, prot: int, shared: bool, fixed: bool, which: int, offset: int, populate: bool
    ) -> None:
        flags = (MAP_SHARED if shared else MAP_PRIVATE) | (MAP_FIXED if fixed else 0)
        flags |= MAP_POPULATE if populate else 0
        file = self.files[which]
        got = vm_mmap_pgoff(self.now.mm, file.file, self.address(page), count << self.shift, prot, flags, offset)
        self.check_place(page, count, fixed, got)
        self.add(got, count, ModelPage(prot, shared, file, offset, None, self.now.lock_future), populate)

    @rule(page=pages, count=short_counts)
    def munmap(self, page: int, count: int) -> None:
        do_munmap(self.now.mm, self.address(page), count << self.shift)
        self.forget(page, count)

    def forget(self, page: int, count: int) -> None:
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
            one = model[n]
            before, one.prot = one.prot, prot
            if one.lock == LOCKED and not one.shared and not before & PROT_WRITE and prot & PROT_WRITE:
                one.populate(self.size)

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
        self.forget(base + size, self.now.heap - size)
        for n in range(self.now.heap, size):
            self.now.model[base + n] = ModelPage(RW, False, None, 0, 0, self.now.lock_future)
        self.now.heap = size

    @rule(page=pages, old=st.integers(0, 6), new=counts, to=pages, fixed=st.booleans(), may_move=st.booleans())
    def mremap(self, page: int, old: int, new: int, to: int, fixed: bool, may_move: bool) -> None:
        flags = (MREMAP_MAYMOVE if may_move or fixed else 0) | (MREMAP_FIXED if fixed else 0)
        model = self.now.model
        shift = self.shift
        moves = min(old, new)
        ends_area = any(vma.vm_end == self.address(page + old) for vma in areas(self.now.mm))
        one = model.get(page)
        allowed = self.in_one_area(page, moves) and one is not None and (old > 0 or one.shared)
        if fixed:
            overlap = page < to + new and to < page + old
            allowed = allowed and not overlap
        elif old >= new:
            allowed = True  # the tail goes, and nobody looks at the rest
        elif not may_move:
            free = not any(n in model for n in range(page + old, page + new))
            allowed = allowed and old > 0 and ends_area and free
        try:
            got = mremap(self.now.mm, self.address(page), old << shift, new << shift, flags, self.address(to))
        except Errno:
            assert not allowed
            if fixed and not overlap:  # both were done before the range was looked at
                self.forget(to, new)
                self.forget(page + new, old - new)
            return
        assert allowed
        first = self.number(got)
        assert first == to if fixed else (first == page or may_move)
        if fixed:
            self.forget(to, new)
        self.forget(page + new, old - new)
        self.moved(page, old, first, new)

    def moved(self, page: int, old: int, first: int, new: int) -> None:
        """The model's side of an mremap that was allowed: `old` pages at `page` are now `new` pages at `first`."""
        model = self.now.model
        if old >= new:
            last = None
        elif old:
            last, distance = model[page + old - 1], 1
        else:
            last, distance = model[page], 0
        taken = [model.pop(page + n) for n in range(min(old, new)) if page + n in model] if first != page else []
        for n, one in enumerate(taken):
            model[first + n] = one
        if last is not None:
            for n in range(old, new):
                model[first + n] = last.grown(n - old + distance)
            if last.lock:
                self.populate(list(range(first + old, first + new)))

    @rule(page=pages, count=counts, to=pages, fixed=st.booleans())
    def mremap_dontunmap(self, page: int, count: int, to: int, fixed: bool) -> None:
        model = self.now.model
        one = model.get(page)
        if any(vma.vm_flags & VM_LOCKED for vma in areas(self.now.mm)):
            return  # Linux 5.10 unlocks the whole old area, but does not count that
        first, end = self.address(page), self.address(page + count)
        if any(vma.vm_start < first and end < vma.vm_end and vma.vm_flags & VM_ACCOUNT for vma in areas(self.now.mm)):
            return  # Linux 5.10 marks the area behind as accounted, whatever it is
        overlap = page < to + count and to < page + count  # not only where the place is demanded
        allowed = self.in_one_area(page, count) and one is not None and one.file is None and not overlap
        flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP | (MREMAP_FIXED if fixed else 0)
        length = count << self.shift
        try:
            got = mremap(self.now.mm, self.address(page), length, length, flags, self.address(to))
        except Errno:
            assert not allowed
            if fixed and not overlap:
                self.forget(to, count)
            return
        assert allowed
        first = self.number(got)
        for n in range(count):
            model[first + n], model[page + n] = model[page + n], model[page + n].grown(0)

    # -- advice and locks ----------------------------------------------------------------------------------------------

    def advise(self, one: ModelPage, advice: int) -> bool:
        """The model's side of madvise for one page; False where it is refused."""
        if advice in (MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT) and one.lock:
            return False
        if advice in (MADV_FREE, MADV_WIPEONFORK) and one.file is not None:
            return False
        if advice == MADV_DONTNEED:
            one.drop()
        elif advice == MADV_FREE:
            one.lazyfree = True
        elif advice in (MADV_DONTFORK, MADV_DOFORK):
            one.dontfork = advice == MADV_DONTFORK
        elif advice in (MADV_WIPEONFORK, MADV_KEEPONFORK):
            one.wipeonfork = advice == MADV_WIPEONFORK
        elif advice == MADV_REMOVE:
            if one.lock or one.file is None or not one.shared:
                return False
            one.file.data.pop(one.offset, None)
        return True

    @rule(page=pages, count=counts, advice=ADVICE)
    def madvise(self, page: int, count: int, advice: int) -> None:
        refused = False
        try:
            do_madvise(self.now.mm, self.address(page), count << self.shift, advice)
        except Errno:
            refused = True
        expected = False
        for n in range(page, page + count):
            one = self.now.model.get(n)
            if one is None:
                expected = True  # a hole is reported at the end
            elif not self.advise(one, advice):
                expected = True
                break
        assert refused == expected

    @rule(page=pages, count=counts, lock=st.sampled_from([0, LOCKED, LOCKED, LOCKED | LOCKONFAULT]))
    def mlock(self, page: int, count: int, lock: int) -> None:
        start, length = self.address(page), count << self.shift
        refused = False
        try:
            if lock:
                mlock2(self.now.mm, start, length, MLOCK_ONFAULT if lock & LOCKONFAULT else 0)
            else:
                munlock(self.now.mm, start, length)
        except Errno:
            refused = True
        model = self.now.model
        hole = next((n for n in range(page, page + count) if n not in model), None)
        for n in range(page, page + count if hole is None else hole):
            model[n].lock = lock
        expected = hole is not None
        if lock and hole is None:
            for n in range(page, page + count):
                if not model[n].populate(self.size):
                    expected = True
                    break
        assert refused == expected

    @rule(flags=st.sampled_from([0, MCL_CURRENT, MCL_FUTURE, MCL_CURRENT | MCL_FUTURE]), onfault=st.booleans())
    def mlockall(self, flags: int, onfault: bool) -> None:
        lock = LOCKED | (LOCKONFAULT if onfault else 0)
        if flags:
            mlockall(self.now.mm, flags | (MCL_ONFAULT if onfault else 0))
        else:
            munlockall(self.now.mm)
        self.now.lock_future = lock if flags & MCL_FUTURE else 0
        if flags != MCL_FUTURE:
            for one in self.now.model.values():
                one.lock = lock if flags & MCL_CURRENT else 0
        if flags & MCL_CURRENT:
            self.populate(list(self.now.model))

    # -- files ---------------------------------------------------------------------------------------------------------

    @rule(which=which_file, page=file_pages, value=bytes_)
    def write_file(self, which: int, page: int, value: int) -> None:
        file = self.files[which]
        shmem_write(file.file.f_mapping, page << self.shift, bytes([value]))
        file.data[page] = value
        file.size = max(file.size, (page << self.shift) + 1)

    @rule(which=which_file)
    def read_file(self, which: int) -> None:
        file = self.files[which]
        got = shmem_read(file.file.f_mapping, 0, file.size + 1)
        assert len(got) == file.size
        expected = [file.data.get(n, 0) for n in range((file.size + self.size - 1) >> self.shift)]
        assert list(got[:: self.size]) == expected

    @rule(which=which_file, half_pages=st.integers(0, 2 * FILE_PAGES))
    def truncate(self, which: int, half_pages: int) -> None:
        file = self.files[which]
        size = half_pages * self.size // 2
        shmem_truncate(file.file.f_mapping, size)
        shrunk = size <= file.size
        file.truncate(size, self.size)
        for process in self.processes if shrunk else ():
            for one in process.model.values():
                if one.file is file and not one.shared and one.offset * self.size >= size:
                    one.drop()  # private copies go, too

    @rule(which=which_file, page=file_pages, count=counts, punch=st.booleans())
    def fallocate(self, which: int, page: int, count: int, punch: bool) -> None:
        file = self.files[which]
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE if punch else 0
        shmem_fallocate(file.file.f_mapping, mode, page << self.shift, count << self.shift)
        if punch:
            for n in range(page, page + count):
                file.data.pop(n, None)
        else:
            file.size = max(file.size, (page + count) << self.shift)

    # -- loads and stores ----------------------------------------------------------------------------------------------

    def touch(self, n: int, value: int | None) -> None:
        """Load or store one byte, as the kernel would for a system call; the model says what must come of it."""
        address = self.address(n)
        page = self.now.model.get(n)
        allowed = page is not None and (page.prot & PROT_WRITE if value is not None else page.prot)
        if page is not None and page.beyond_end(self.size):
            allowed = False
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
        if value is not None:
            page.store(value)
        elif page.lazyfree and not data[0]:
            page.own, page.lazyfree = 0, False
        else:
            assert data[0] == page.value()

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

    # -- processes -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.processes) < PROCESSES)
    @rule()
    def fork(self) -> None:
        task = self.new_task()
        task.mm = dup_mm(task, self.now.mm)
        model = {n: page.for_child() for n, page in self.now.model.items() if not page.dontfork}
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
            found: dict[int, tuple[int, bool, int, bool, bool]] = {}
            for vma in areas(process.mm):
                flags = vma.vm_flags
                lock = (LOCKED if flags & VM_LOCKED else 0) | (LOCKONFAULT if flags & VM_LOCKONFAULT else 0)
                state = (prot_of(vma), bool(flags & VM_SHARED), lock, bool(flags & VM_DONTCOPY))
                for n in range(self.number(vma.vm_start), self.number(vma.vm_end)):
                    found[n] = (*state, bool(flags & VM_WIPEONFORK))
            expected = {
                n: (page.prot, page.shared, page.lock, page.dontfork, page.wipeonfork)
                for n, page in process.model.items()
            }
            assert found == expected

    @invariant()
    def all_checks_are_silent(self) -> None:
        for process in self.processes:
            validate_mm(process.mm)
        validate_system(self.system, [process.task for process in self.processes])
        recount(self.processes, self.files)

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            self.leave(process)
        for file in self.files:
            fput(file.file)
        assert self.system.vm_committed_as == 0
        assert self.system.nr_shmem == 0
        assert self.system.nr_mlock == 0
        assert self.system.nr_free_pages() == self.free_at_start


@pytest.mark.parametrize(
    ("arch", "ram_size", "examples"),
    [
        (arch_x86_64.make(), 16 << 20, 60),
        (arch_x86_64.make(la57=True), 16 << 20, 30),
        (arch_arm64.make(4096), 16 << 20, 60),
        (arch_arm64.make(16384), 64 << 20, 30),
        (arch_arm64.make(65536), 256 << 20, 20),
    ],
    ids=["x86_64-4k", "x86_64-4k-la57", "aarch64-4k", "aarch64-16k", "aarch64-64k"],
)
def test_pages_behave_as_the_model(arch: Any, ram_size: int, examples: int) -> None:
    machine = type("AddressSpaces", (AddressSpaces,), {"arch": arch, "ram_size": ram_size})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
