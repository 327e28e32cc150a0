"""mmap, munmap, mprotect, mremap, brk and stacks: which errno comes first, what is accounted, what is left behind.

Whole behaviour is compared with recordings of a real kernel elsewhere; here stands what no recording isolates.
"""

import errno
from typing import Any

import pytest
from draw import GEOMETRIES, areas_of, make_task

from mm.brk import brk, vm_brk_flags
from mm.errors import Errno
from mm.exec_stack import bprm_stack, setup_arg_pages
from mm.find_vma import find_vma
from mm.flags import (
    CAP_IPC_LOCK,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_SYNC,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    READ_IMPLIES_EXEC,
    RLIM_INFINITY,
    RLIMIT_AS,
    RLIMIT_DATA,
    RLIMIT_MEMLOCK,
    RLIMIT_STACK,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
)
from mm.fork import mm_alloc
from mm.mmap import do_mmap, do_munmap, vm_mmap
from mm.mprotect import do_mprotect_pkey
from mm.mremap import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, mremap
from mm.stack import expand_stack
from mm.types import AddressSpace, MmStruct, TaskStruct
from mm.validate import validate_mm

ANON = MAP_PRIVATE | MAP_ANONYMOUS
BASE = 0x20000000
TOP = (1 << 64) - 4096


class ReadOnlyFile:
    """An open file that can only be read and mapped."""

    f_mode = 1
    f_flags = 0
    f_count = 1

    def __init__(self) -> None:
        self.f_mapping = AddressSpace(None)

    def mmap(self, vma: Any) -> None:
        vma.vm_ops = SHARED_OPS

    def release(self) -> None: ...


class SharedOps:
    open = close = fault = map_pages = page_mkwrite = name = None


SHARED_OPS = SharedOps()


@pytest.fixture
def task() -> TaskStruct:
    return make_task()


@pytest.fixture
def mm(task: TaskStruct) -> MmStruct:
    assert task.mm is not None
    return task.mm


def refusal(call: Any, *args: Any) -> int:
    with pytest.raises(Errno) as caught:
        call(*args)
    number: int = caught.value.number
    return number


# Each line is wrong in everything that comes later, too: the order of the checks decides.
MMAP_ORDER = [
    ((None, 1, 0, 3, 0, 1), errno.EINVAL),  # no length
    ((None, 1, TOP + 1, 3, 0, TOP), errno.ENOMEM),  # length rounds up to 0
    ((None, 1, 0x2000, 3, 0, (1 << 64) - 1), errno.EOVERFLOW),
    ((None, 1, 1 << 47, 3, 0, 0), errno.ENOMEM),  # longer than the task's addresses
    ((None, 1, 0x1000, 3, MAP_FIXED | MAP_LOCKED, 0), errno.EINVAL),  # fixed, not aligned
    ((None, 1 << 47, 0x1000, 3, MAP_FIXED | MAP_LOCKED, 0), errno.ENOMEM),  # fixed, above
    ((None, 0, 0x1000, 3, MAP_FIXED | MAP_LOCKED, 0), errno.EPERM),  # fixed, below mmap_min_addr
    ((None, 0, 0x1000, 3, MAP_LOCKED, 0), errno.EPERM),  # may not lock anything
    ((None, 0, 0x1000, 3, 0, 0), errno.EINVAL),  # neither shared nor private
    ((None, 0, 0x1000, 3, MAP_SHARED_VALIDATE, 0), errno.EINVAL),  # which needs a file
    ((None, 0, 0x1000, 3, MAP_SHARED | MAP_GROWSDOWN, 0), errno.EINVAL),
    ((ReadOnlyFile(), 0, 0x1000, 3, MAP_SHARED_VALIDATE | MAP_SYNC, 1 << 51), errno.EOVERFLOW),
    ((ReadOnlyFile(), 0, 0x1000, 3, MAP_SHARED_VALIDATE | MAP_SYNC, 0), errno.EOPNOTSUPP),
    ((ReadOnlyFile(), 0, 0x1000, 3, MAP_SHARED, 0), errno.EACCES),
    ((ReadOnlyFile(), 0, 0x1000, 1, MAP_PRIVATE | MAP_GROWSDOWN, 0), errno.EINVAL),
]


@pytest.mark.parametrize(("arguments", "expected"), MMAP_ORDER)
def test_the_first_wrong_thing_names_the_errno(task: TaskStruct, arguments: tuple[Any, ...], expected: int) -> None:
    mm = task.mm
    assert mm is not None
    task.cap_effective = 0
    task.rlim[RLIMIT_MEMLOCK] = [0, 0]
    assert refusal(do_mmap, mm, *arguments) == expected
    assert mm.map_count == 0 and mm.system.vm_committed_as == 0


def test_a_read_only_file_mapped_shared_can_never_be_written(mm: MmStruct) -> None:
    file = ReadOnlyFile()
    address = vm_mmap(mm, file, 0, 0x1000, 1, MAP_SHARED, 0)  # type: ignore[arg-type]
    assert refusal(do_mprotect_pkey, mm, address, 0x1000, 3) == errno.EACCES
    assert file.f_count == 2
    do_munmap(mm, address, 0x1000)
    assert file.f_count == 1 and file.f_mapping.i_mmap.rb_node is None and file.f_mapping.i_mmap_writable == 0


def test_munmap_refuses_bad_ranges_and_forgives_empty_ones(mm: MmStruct) -> None:
    vm_mmap(mm, None, BASE, 0x3000, 3, ANON | MAP_FIXED, 0)
    for start, length in ((BASE + 1, 0x1000), (BASE, 0), (1 << 47, 0x1000), (BASE, 1 << 47)):
        assert refusal(do_munmap, mm, start, length) == errno.EINVAL
    do_munmap(mm, BASE + 0x10000, 0x1000)
    assert mm.map_count == 1


def test_only_a_hole_in_the_middle_needs_another_area(mm: MmStruct) -> None:
    vm_mmap(mm, None, BASE, 0x8000, 3, ANON | MAP_FIXED, 0)
    mm.system.sysctl_max_map_count = 1
    assert refusal(do_munmap, mm, BASE + 0x2000, 0x1000) == errno.ENOMEM
    do_munmap(mm, BASE, 0x1000)
    do_munmap(mm, BASE + 0x7000, 0x1000)
    assert [(v.vm_start, v.vm_end) for v in areas_of(mm)] == [(BASE + 0x1000, BASE + 0x7000)]
    validate_mm(mm)


def test_mprotect_checks_before_it_looks(mm: MmStruct) -> None:
    vm_mmap(mm, None, BASE, 0x3000, 3, ANON | MAP_FIXED, 0)
    assert refusal(do_mprotect_pkey, mm, BASE, 0x1000, PROT_GROWSDOWN | PROT_GROWSUP) == errno.EINVAL
    assert refusal(do_mprotect_pkey, mm, BASE + 1, 0x1000, 1) == errno.EINVAL
    do_mprotect_pkey(mm, BASE + 0x100000, 0, 0xFF)  # no length: nothing else is looked at
    assert refusal(do_mprotect_pkey, mm, BASE, (1 << 64) - 1, 0xFF) == errno.ENOMEM
    assert refusal(do_mprotect_pkey, mm, BASE + 0x100000, 0x1000, 0x10) == errno.EINVAL
    assert refusal(do_mprotect_pkey, mm, BASE + 0x100000, 0x1000, 1) == errno.ENOMEM
    assert refusal(do_mprotect_pkey, mm, BASE, 0x1000, 1 | PROT_GROWSDOWN) == errno.EINVAL
    assert refusal(do_mprotect_pkey, mm, BASE, 0x1000, 1 | PROT_GROWSUP) == errno.EINVAL


def test_mprotect_changes_what_lies_before_a_hole(mm: MmStruct) -> None:
    vm_mmap(mm, None, BASE, 0x2000, 3, ANON | MAP_FIXED, 0)
    vm_mmap(mm, None, BASE + 0x3000, 0x1000, 3, ANON | MAP_FIXED, 0)
    assert refusal(do_mprotect_pkey, mm, BASE + 0x1000, 0x3000, 1) == errno.ENOMEM
    assert [(v.vm_start, v.vm_flags & 7) for v in areas_of(mm)] == [(BASE, 3), (BASE + 0x1000, 1), (BASE + 0x3000, 3)]


def test_memory_made_writable_is_promised_and_stays_so(mm: MmStruct) -> None:
    system = mm.system
    vm_mmap(mm, None, BASE, 0x4000, 1, ANON | MAP_FIXED, 0)
    assert (system.vm_committed_as, mm.data_vm) == (0, 0)
    do_mprotect_pkey(mm, BASE, 0x2000, 3)
    assert (system.vm_committed_as, mm.data_vm) == (2, 2)
    do_mprotect_pkey(mm, BASE, 0x2000, 1)
    assert (system.vm_committed_as, mm.data_vm) == (2, 0)  # the promise outlives the right
    assert [bool(v.vm_flags & VM_ACCOUNT) for v in areas_of(mm)] == [True, False]  # so they cannot merge again
    do_munmap(mm, BASE, 0x4000)
    assert system.vm_committed_as == 0


def test_overcommit_modes(task: TaskStruct, mm: MmStruct) -> None:
    system = mm.system
    pages = system.totalram_pages
    assert refusal(vm_mmap, mm, None, 0, (pages + 1) << 12, 3, ANON, 0) == errno.ENOMEM
    big = vm_mmap(mm, None, 0, (pages + 1) << 12, 3, ANON | MAP_NORESERVE, 0)
    do_munmap(mm, big, (pages + 1) << 12)
    system.sysctl_overcommit_memory = 1
    do_munmap(mm, vm_mmap(mm, None, 0, (pages + 1) << 12, 3, ANON, 0), (pages + 1) << 12)
    system.sysctl_overcommit_memory = 2
    assert refusal(vm_mmap, mm, None, 0, pages << 11 | 1 << 12, 3, ANON | MAP_NORESERVE, 0) == errno.ENOMEM
    system.sysctl_user_reserve_kbytes = 0
    vm_mmap(mm, None, 0, (pages // 2 - 1) << 12, 3, ANON, 0)
    task.cap_effective = 0  # root's reserve is not for everyone
    assert system.vm_committed_as == pages // 2 - 1


def test_limits(task: TaskStruct, mm: MmStruct) -> None:
    task.rlim[RLIMIT_AS] = [8 << 12, RLIM_INFINITY]
    vm_mmap(mm, None, BASE, 0x8000, 1, ANON | MAP_FIXED, 0)
    assert refusal(vm_mmap, mm, None, 0, 0x1000, 1, ANON, 0) == errno.ENOMEM
    vm_mmap(mm, None, BASE, 0x4000, 1, ANON | MAP_FIXED, 0)  # replaces pages: adds none
    task.rlim[RLIMIT_AS] = [RLIM_INFINITY, RLIM_INFINITY]
    task.rlim[RLIMIT_DATA] = [2 << 12, RLIM_INFINITY]
    vm_mmap(mm, None, 0, 0x2000, 3, ANON, 0)
    assert refusal(vm_mmap, mm, None, 0, 0x1000, 3, ANON, 0) == errno.ENOMEM
    assert refusal(do_mprotect_pkey, mm, BASE, 0x1000, 3) == errno.ENOMEM
    vm_mmap(mm, None, 0, 0x1000, 1, ANON, 0)  # not data
    task.rlim[RLIMIT_DATA] = [0, 4 << 12]
    vm_mmap(mm, None, 0, 0x2000, 3, ANON, 0)  # a soft limit of 0 lets mmap go up to the hard one
    task.rlim[RLIMIT_MEMLOCK] = [1 << 12, 1 << 12]
    task.cap_effective &= ~(1 << CAP_IPC_LOCK)
    assert refusal(vm_mmap, mm, None, 0, 0x2000, 1, ANON | MAP_LOCKED, 0) == errno.EAGAIN
    validate_mm(mm)


def test_brk(task: TaskStruct, mm: MmStruct) -> None:
    mm.start_brk = mm.brk = 0x500800
    assert brk(mm, 0) == 0x500800
    assert brk(mm, 0x500FFF) == 0x500FFF and mm.map_count == 0  # within the page: no area is needed
    assert brk(mm, 0x503001) == 0x503001
    assert [(v.vm_start, v.vm_end) for v in areas_of(mm)] == [(0x501000, 0x504000)]
    assert brk(mm, 0x501800) == 0x501800
    assert [(v.vm_start, v.vm_end) for v in areas_of(mm)] == [(0x501000, 0x502000)]
    vm_mmap(mm, None, 0x504000, 0x1000, 1, ANON | MAP_FIXED, 0)
    assert brk(mm, 0x503001) == 0x501800  # a page must stay free below what follows
    assert brk(mm, 0x503000) == 0x503000
    task.rlim[RLIMIT_DATA] = [0x2800, RLIM_INFINITY]
    assert brk(mm, 0x503001) == 0x503000
    task.personality = READ_IMPLIES_EXEC
    task.rlim[RLIMIT_DATA] = [RLIM_INFINITY, RLIM_INFINITY]
    vm_brk_flags(mm, 0x600000, 1, 0)
    heap = find_vma(mm, 0x600000)
    assert heap is not None and heap.vm_flags & VM_EXEC
    validate_mm(mm)


def stack_of(mm: MmStruct, pages: int = 2) -> Any:
    vm_mmap(mm, None, BASE, pages << 12, 3, ANON | MAP_FIXED | MAP_GROWSDOWN, 0)
    return find_vma(mm, BASE)


def test_a_stack_grows_to_its_limit_and_no_further(task: TaskStruct, mm: MmStruct) -> None:
    stack = stack_of(mm)
    task.rlim[RLIMIT_STACK] = [0x10000, RLIM_INFINITY]
    assert expand_stack(stack, BASE - 0xE000) == 0
    assert (stack.vm_start, stack.vm_pgoff, mm.stack_vm) == (BASE - 0xE000, (BASE - 0xE000) >> 12, 16)
    assert expand_stack(stack, BASE - 0xE001) == errno.ENOMEM
    assert stack.anon_vma is not None  # even a refused growth prepares for the page
    validate_mm(mm)


def test_a_stack_stops_at_the_guard_gap(mm: MmStruct) -> None:
    guard = mm.system.stack_guard_gap
    stack = stack_of(mm)
    below = BASE - guard - 0x4000
    vm_mmap(mm, None, below, 0x1000, 1, ANON | MAP_FIXED, 0)
    assert expand_stack(stack, BASE - 0x3000) == 0
    assert expand_stack(stack, BASE - 0x4000) == errno.ENOMEM
    do_mprotect_pkey(mm, below, 0x1000, 0)  # nobody can touch that: it may come closer
    assert expand_stack(stack, BASE - 0x4000) == 0
    assert expand_stack(stack, 0x800) == errno.EPERM
    validate_mm(mm)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_exec_s_stack(geometry: str) -> None:
    task = make_task(geometry)
    arch = task.system.arch
    mm = mm_alloc(task.system)
    vma = bprm_stack(mm)
    assert (vma.vm_end, mm.stack_vm) == (arch.stack_top_max, 1)
    p = vma.vm_end - 100
    assert not mm.ops.handle_mm_fault(vma, p & arch.page_mask, FAULT_FLAG_WRITE | FAULT_FLAG_USER) & 0x73
    tables = mm.pgtables_bytes
    task.mm = mm
    p = setup_arg_pages(mm, vma, p, arch.stack_top, 0, 8 << 20)
    assert p == arch.stack_top - 100 == mm.start_stack == mm.arg_start
    assert (vma.vm_start, vma.vm_end) == (arch.stack_top - arch.page_size - 131072, arch.stack_top)
    assert vma.vm_flags & VM_GROWSDOWN and not vma.vm_flags & 0x18000
    assert mm.pgtables_bytes == tables  # moved, not copied; what the old place needed is gone
    validate_mm(mm)


def test_mremap_checks(mm: MmStruct) -> None:
    vm_mmap(mm, None, BASE, 0x4000, 3, ANON | MAP_FIXED, 0)
    other = BASE + 0x100000
    cases = [
        ((BASE, 0x1000, 0x1000, 8, 0), errno.EINVAL),
        ((BASE, 0x1000, 0x1000, MREMAP_FIXED, other), errno.EINVAL),
        ((BASE, 0x1000, 0x2000, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0), errno.EINVAL),
        ((BASE + 1, 0x1000, 0x1000, 0, 0), errno.EINVAL),
        ((BASE, 0x1000, 0, 0, 0), errno.EINVAL),
        ((BASE, 0x1000, 0x1000, 3, other + 1), errno.EINVAL),
        ((BASE, 0x2000, 0x2000, 3, BASE + 0x1000), errno.EINVAL),
        ((other, 0x1000, 0x2000, 1, 0), errno.EFAULT),
        ((BASE, 0x8000, 0x9000, 1, 0), errno.EFAULT),
        ((BASE, 0, 0x1000, 1, 0), errno.EINVAL),
        ((BASE, 0x1000, 0x2000, 0, 0), errno.ENOMEM),
    ]
    for arguments, expected in cases:
        assert refusal(mremap, mm, *arguments) == expected, arguments
    assert [(v.vm_start, v.vm_end) for v in areas_of(mm)] == [(BASE, BASE + 0x4000)]
    assert mm.system.vm_committed_as == 4


def test_mremap_moves_out_of_the_middle(mm: MmStruct) -> None:
    vma = stack_of(mm, 6)
    do_munmap(mm, BASE, 0x6000)
    vm_mmap(mm, None, BASE, 0x6000, 3, ANON | MAP_FIXED, 0)
    vma = find_vma(mm, BASE)
    assert vma is not None
    for page in range(6):
        mm.ops.handle_mm_fault(vma, BASE + (page << 12), FAULT_FLAG_WRITE | FAULT_FLAG_USER)
    target = BASE + 0x100000
    assert mremap(mm, BASE + 0x2000, 0x2000, 0x3000, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target
    assert [(v.vm_start, v.vm_end, v.vm_pgoff) for v in areas_of(mm)] == [
        (BASE, BASE + 0x2000, BASE >> 12),
        (BASE + 0x4000, BASE + 0x6000, (BASE >> 12) + 4),
        (target, target + 0x3000, (BASE >> 12) + 2),
    ]
    assert all(v.vm_flags & VM_ACCOUNT for v in areas_of(mm)) and mm.system.vm_committed_as == 7
    validate_mm(mm)
    kept = mremap(mm, target, 0x3000, 0x3000, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0)
    assert find_vma(mm, target).vm_start == target and mm.total_vm == 10  # type: ignore[union-attr]
    do_munmap(mm, kept, 0x3000)
    do_munmap(mm, BASE, 0x200000)
    assert mm.map_count == 0 and mm.system.vm_committed_as == 0
