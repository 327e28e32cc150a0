"""The search for room against one that tries every address, and the layouts that choose its limits."""

import errno
import random

import pytest
from draw import GEOMETRIES, areas_of, make_task

from mm.errors import Errno
from mm.find_vma import vm_start_gap
from mm.flags import (
    ADDR_COMPAT_LAYOUT,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    RLIM_INFINITY,
    VM_GROWSDOWN,
    VM_MAYREAD,
    VM_READ,
)
from mm.mmap import do_munmap, vm_mmap
from mm.types import MmStruct, VmAreaStruct
from mm.unmapped_area import VM_UNMAPPED_AREA_TOPDOWN, VmUnmappedAreaInfo, vm_unmapped_area
from mm.vma_tree import vma_link

ANON = MAP_PRIVATE | MAP_ANONYMOUS
MAP_32BIT = 0x40


def by_trying_all(mm: MmStruct, info: VmUnmappedAreaInfo, top: int) -> int | None:
    """The answer by definition: the first, or last, aligned address in the limits that overlaps nothing's claim.

    A stack claims its guard gap, but not beyond the area below it: what lies below that is not its business.
    """
    page = mm.arch.page_size
    claims = [(max(vm_start_gap(vma), vma.vm_prev.vm_end if vma.vm_prev else 0), vma.vm_end) for vma in areas_of(mm)]
    candidates = range(0, top, page)
    for address in reversed(candidates) if info.flags & VM_UNMAPPED_AREA_TOPDOWN else candidates:
        end = address + info.length
        if (
            info.low_limit <= address
            and end <= info.high_limit
            and (address - info.align_offset) & info.align_mask == 0
            and all(end <= start or address >= claimed for start, claimed in claims)
        ):
            return address
    return None


@pytest.mark.parametrize("seed", range(25))
def test_against_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    task = make_task(ram=1 << 20)
    mm = task.mm
    assert mm is not None
    page = mm.arch.page_size
    mm.system.stack_guard_gap = 3 * page
    pages = 120
    address = rng.randrange(0, 6)
    while address < pages - 10:
        size = rng.randrange(1, 6)
        flags = VM_READ | VM_MAYREAD | (VM_GROWSDOWN if rng.random() < 0.2 else 0)
        vma = VmAreaStruct(mm, address * page, (address + size) * page, flags)
        links = mm.ops.find_vma_links(mm, vma.vm_start, vma.vm_end)
        vma_link(mm, vma, *links)
        address += size + rng.choice([0, 0, 1, 2, 3, 5, 9])
    for _ in range(60):
        low, high = sorted(rng.sample(range(pages + 1), 2))
        info = VmUnmappedAreaInfo(
            rng.choice([0, VM_UNMAPPED_AREA_TOPDOWN]), rng.randrange(1, 9) * page, low * page, high * page
        )
        expected = by_trying_all(mm, info, pages * page)
        try:
            found: int | None = vm_unmapped_area(mm, info)
        except Errno as refusal:
            assert refusal.number == errno.ENOMEM
            found = None
        assert found == expected, (low, high, info.length // page, info.flags)


@pytest.mark.parametrize("direction", [0, VM_UNMAPPED_AREA_TOPDOWN])
def test_alignment_reserves_enough_and_is_met(direction: int) -> None:
    mm = make_task(ram=1 << 20).mm
    assert mm is not None
    info = VmUnmappedAreaInfo(direction, 0x3000, 0x10000, 0x80000)
    info.align_mask, info.align_offset = 0x7000, 0x2000
    found = vm_unmapped_area(mm, info)
    assert found & 0x7000 == 0x2000 and 0x10000 <= found <= 0x80000 - 0x3000
    info.length = 0x80000 - 0x10000 - 0x6000
    with pytest.raises(Errno):
        vm_unmapped_area(mm, info)


def test_an_overflowing_length_is_refused() -> None:
    mm = make_task(ram=1 << 20).mm
    assert mm is not None
    info = VmUnmappedAreaInfo(0, (1 << 64) - 0x1000, 0, 1 << 47)
    info.align_mask = 0x3000
    with pytest.raises(Errno):
        vm_unmapped_area(mm, info)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_top_down_and_legacy_layouts(geometry: str) -> None:
    task = make_task(geometry)
    mm = task.mm
    assert mm is not None
    arch = mm.arch
    size = arch.page_size
    gap = 128 << 20  # 8 MiB of stack and the guard gap are less, with 64K pages too
    assert mm.mmap_base == (arch.stack_top - gap) & arch.page_mask
    first = vm_mmap(mm, None, 0, size, 3, ANON, 0)
    assert first == mm.mmap_base - size
    assert vm_mmap(mm, None, 0, size, 1, ANON, 0) == first - size

    task.personality = ADDR_COMPAT_LAYOUT
    arch.arch_pick_mmap_layout(mm, 8 << 20)
    window = arch.task_size_low
    legacy = (window // (3 if arch.name == "x86_64" else 4) + size - 1) & arch.page_mask
    assert mm.mmap_base == legacy
    assert vm_mmap(mm, None, 0, size, 3, ANON, 0) == legacy
    assert vm_mmap(mm, None, 0, size, 1, ANON, 0) == legacy + size


def test_an_unlimited_stack_means_legacy_on_arm64_only() -> None:
    for geometry, legacy in (("aarch64-4k", True), ("x86_64-4k", False)):
        mm = make_task(geometry).mm
        assert mm is not None
        mm.arch.arch_pick_mmap_layout(mm, RLIM_INFINITY)
        assert (mm.get_unmapped_area.__name__ == "arch_get_unmapped_area") == legacy
    # x86-64 caps the gap at five sixths of the window instead.
    task_size = mm.arch.task_size_low
    assert mm.mmap_base == (task_size - task_size // 6 * 5 + 0xFFF) & ~0xFFF


def test_map_32bit_stays_in_the_second_gib() -> None:
    mm = make_task().mm
    assert mm is not None
    assert vm_mmap(mm, None, 0, 0x1000, 3, ANON | MAP_32BIT, 0) == 0x40000000
    assert vm_mmap(mm, None, 0, 0x1000, 1, ANON | MAP_32BIT, 0) == 0x40001000
    with pytest.raises(Errno):
        vm_mmap(mm, None, 0, 1 << 30, 1, ANON | MAP_32BIT, 0)


def test_la57_opens_the_upper_half_only_to_a_hint_above_the_window() -> None:
    mm = make_task("x86_64-4k-la57").mm
    assert mm is not None
    window = mm.arch.task_size_low
    assert vm_mmap(mm, None, 0, 0x1000, 3, ANON, 0) < window
    assert vm_mmap(mm, None, 1 << 50, 0x1000, 3, ANON, 0) == 1 << 50
    # A hint that straddles the window's end is none; one above it that is taken searches all addresses.
    assert vm_mmap(mm, None, window - 0x1000, 0x3000, 1, ANON, 0) < window
    taken = vm_mmap(mm, None, 1 << 50, 0x1000, 1, ANON, 0)
    assert taken == mm.mmap_base + mm.arch.task_size - window - 0x1000


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_hints_and_fixed_addresses(geometry: str) -> None:
    task = make_task(geometry)
    mm = task.mm
    assert mm is not None
    size = mm.arch.page_size
    hint = 0x20000000
    assert vm_mmap(mm, None, hint, size, 3, ANON, 0) == hint
    assert vm_mmap(mm, None, hint, size, 3, ANON, 0) != hint
    with pytest.raises(Errno) as refusal:
        vm_mmap(mm, None, hint, size, 3, ANON | MAP_FIXED_NOREPLACE, 0)
    assert refusal.value.number == errno.EEXIST
    assert vm_mmap(mm, None, hint, size, 1, ANON | MAP_FIXED, 0) == hint
    with pytest.raises(Errno) as refusal:
        vm_mmap(mm, None, hint + 1, size, 1, ANON | MAP_FIXED, 0)
    assert refusal.value.number == errno.EINVAL
    task.cap_effective = 0
    with pytest.raises(Errno) as refusal:
        vm_mmap(mm, None, 0, size, 1, ANON | MAP_FIXED, 0)
    assert refusal.value.number == errno.EPERM
    low = vm_mmap(mm, None, 1, size, 1, ANON, 0)
    assert low != 0  # a hint below mmap_min_addr is raised, not refused


def test_a_stack_keeps_its_guard_gap_free_of_hints_and_searches() -> None:
    mm = make_task().mm
    assert mm is not None
    guard = mm.system.stack_guard_gap
    stack = vm_mmap(mm, None, 0x30000000, 0x4000, 3, ANON | MAP_GROWSDOWN, 0)
    near = vm_mmap(mm, None, stack - 0x1000, 0x1000, 3, ANON, 0)
    assert near < stack - guard or near > stack
    assert vm_mmap(mm, None, stack - guard - 0x1000, 0x1000, 3, ANON, 0) == stack - guard - 0x1000
    do_munmap(mm, stack - guard - 0x1000, 0x1000)
    assert vm_mmap(mm, None, stack - 0x1000, 0x1000, 3, ANON | MAP_FIXED, 0) == stack - 0x1000
