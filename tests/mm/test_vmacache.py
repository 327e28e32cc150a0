"""The four-slot cache: which slot learns what, when it is forgotten, and whose lookups count."""

import pytest
from draw import GEOMETRIES, make_task

from mm.find_vma import find_vma
from mm.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from mm.fork import mm_alloc
from mm.mmap import do_munmap, vm_mmap
from mm.types import MmStruct
from mm.vmacache import vmacache_find, vmacache_flush

FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def mapped(geometry: str) -> MmStruct:
    """Eight areas, one at the start of each PMD's range, with alternating protections so that none merge."""
    mm = make_task(geometry).mm
    assert mm is not None
    for index in range(8):
        vm_mmap(mm, None, (64 + index) << mm.arch.pmd_shift, mm.arch.page_size, 1 + (index & 1) * 2, FIXED, 0)
    return mm


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_find_updates_the_slot_of_its_address(geometry: str) -> None:
    mm = mapped(geometry)
    task = mm.system.current
    assert task is not None
    for index in range(8):
        address = (64 + index) << mm.arch.pmd_shift
        vmacache_flush(task)
        vma = find_vma(mm, address)
        assert vma is not None and vma.vm_start == address
        assert [cached is vma for cached in task.vmacache] == [slot == index & 3 for slot in range(4)]


def test_a_find_in_a_hole_caches_the_area_above_in_the_hole_s_slot() -> None:
    mm = mapped("x86_64-4k")
    task = mm.system.current
    assert task is not None
    vmacache_flush(task)
    hole = (64 << 21) + 0x5000
    above = find_vma(mm, hole)
    assert above is not None and above.vm_start == 65 << 21
    assert task.vmacache == [above, None, None, None]
    assert vmacache_find(mm, hole) is None  # it does not contain the address, so it never answers for it
    assert vmacache_find(mm, above.vm_start) is above  # but does for its own, from whatever slot it is in


def test_nothing_found_caches_nothing() -> None:
    mm = mapped("x86_64-4k")
    task = mm.system.current
    assert task is not None
    vmacache_flush(task)
    assert find_vma(mm, 1 << 46) is None
    assert task.vmacache == [None] * 4


def test_removing_an_area_makes_the_cache_stale_and_the_next_find_flushes_it() -> None:
    mm = mapped("x86_64-4k")
    task = mm.system.current
    assert task is not None
    kept = find_vma(mm, 64 << 21)
    sequence = mm.vmacache_seqnum
    do_munmap(mm, 65 << 21, 0x1000)
    assert mm.vmacache_seqnum == sequence + 1
    assert kept in task.vmacache and task.vmacache_seqnum == sequence  # nobody cleared it
    assert vmacache_find(mm, 64 << 21) is None
    assert task.vmacache == [None] * 4 and task.vmacache_seqnum == mm.vmacache_seqnum
    assert find_vma(mm, 64 << 21) is kept


def test_another_address_space_neither_uses_nor_fills_the_cache() -> None:
    mm = mapped("x86_64-4k")
    task = mm.system.current
    assert task is not None
    cached = find_vma(mm, 64 << 21)
    other = mm_alloc(mm.system)
    task.mm = other
    before = list(task.vmacache)
    assert find_vma(mm, 66 << 21) is not None
    assert task.vmacache == before and cached in before
    task.mm = mm


def test_hits_are_counted() -> None:
    mm = mapped("x86_64-4k")
    task = mm.system.current
    assert task is not None
    find_vma(mm, 64 << 21)
    calls, hits = task.vmacache_find_calls, task.vmacache_find_hits
    for _ in range(5):
        find_vma(mm, (64 << 21) + 0x123)
    find_vma(mm, 71 << 21)
    assert (task.vmacache_find_calls - calls, task.vmacache_find_hits - hits) == (6, 5)
