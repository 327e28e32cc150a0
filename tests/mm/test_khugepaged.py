"""khugepaged without a guest: what is collapsed, what is left alone, and that nothing is lost on the way."""

import random

import pytest
from pages_world import GEOMETRIES, READ, WRITE, World

from mm.khugepaged import Khugepaged, Scan, khugepaged_state
from mm.madvise import MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, do_madvise
from mm.mlock import mlock, munlock
from mm.pgtable import pte_offset
from mm.uaccess import copy_from_user, copy_to_user

SMALL = pytest.mark.parametrize("geometry", [name for name, arch in GEOMETRIES.items() if arch.page_size == 4096])
BASE = 0x10000000
HUGE = 1 << 21


def world(geometry: str = "x86_64-4k", huge: int = 2) -> tuple[World, Khugepaged]:
    w = World(geometry, pages=8192)
    w.system.validate_level = 0  # check() does, where it matters
    w.mmap(512 * huge, addr=BASE)
    return w, khugepaged_state(w.system)


def is_huge(w: World, address: int) -> bool:
    return pte_offset(w.mm, address) < 0


@SMALL
def test_small_pages_become_a_huge_one(geometry: str) -> None:
    w, state = world(geometry)
    for number in range(0, 512, 3):
        copy_to_user(w.task, BASE + number * w.ps, bytes([number & 255]) * w.ps)
    w.fault(BASE + w.ps, READ)
    do_madvise(w.mm, BASE, 2 * HUGE, MADV_HUGEPAGE)
    assert state.mms == [w.mm]
    tables = w.mm.pgtables_bytes
    assert Scan(state).run()
    w.check()
    assert is_huge(w, BASE) and state.pages_collapsed == 1 and state.full_scans == 1
    assert w.mm.pgtables_bytes == tables and w.rss()[1] == 512
    for number in range(512):
        expected = number & 255 if number % 3 == 0 else 0
        assert copy_from_user(w.task, BASE + number * w.ps, w.ps) == bytes([expected]) * w.ps
    w.end()


def test_what_is_not_asked_for_is_left_alone() -> None:
    w, state = world(huge=3)
    for number in range(3):
        w.fault(BASE + number * HUGE, WRITE)
    do_madvise(w.mm, BASE, HUGE, MADV_HUGEPAGE)
    do_madvise(w.mm, BASE + HUGE, HUGE, MADV_NOHUGEPAGE)
    assert Scan(state).run()
    assert [is_huge(w, BASE + number * HUGE) for number in range(3)] == [True, False, False]
    w.end()


def test_pages_of_a_fork_are_copied_and_both_address_spaces_scanned() -> None:
    w, state = world()
    state.max_ptes_shared = 511
    copy_to_user(w.task, BASE, b"a" * (HUGE // 2))
    do_madvise(w.mm, BASE, HUGE, MADV_HUGEPAGE)
    child = w.fork()
    assert len(state.mms) == 2
    copy_to_user(w.task, BASE, b"b")
    assert Scan(state).run()
    w.check()
    assert is_huge(w, BASE) and copy_from_user(w.task, BASE, 2) == b"ba"
    parent = w.task
    w.switch(child)
    assert not is_huge(w, BASE)  # nothing in it is writable yet
    copy_to_user(w.task, BASE, b"c")
    assert Scan(state).run()
    assert is_huge(w, BASE) and copy_from_user(w.task, BASE, 2) == b"ca"
    w.switch(parent)
    w.exit(child)
    assert state.mms == [w.mm]
    w.end()
    assert not state.mms


def test_locked_pages_stay_locked() -> None:
    w, state = world()
    copy_to_user(w.task, BASE, b"a" * 5 * w.ps)
    mlock(w.mm, BASE, HUGE)
    do_madvise(w.mm, BASE, HUGE, MADV_HUGEPAGE)
    assert Scan(state).run()
    w.check()
    assert is_huge(w, BASE) and w.system.nr_mlock == 512
    munlock(w.mm, BASE, HUGE)
    assert w.system.nr_mlock == 0
    w.end()


def test_without_a_block_the_scan_stops_and_goes_on() -> None:
    w, state = world()
    for number in range(2):
        w.fault(BASE + number * HUGE, WRITE)
    do_madvise(w.mm, BASE, 2 * HUGE, MADV_HUGEPAGE)
    scan = Scan(state)
    w.system.zone.interceptor = lambda count: count == 1
    assert not scan.run()
    assert not is_huge(w, BASE) and w.system.vm_events["thp_collapse_alloc_failed"] == 1
    w.system.zone.interceptor = None
    assert scan.run()
    assert not is_huge(w, BASE) and is_huge(w, BASE + HUGE)  # the first one's turn comes again
    assert Scan(state).run()
    assert is_huge(w, BASE)
    w.end()


def test_an_address_space_that_ends_under_the_scan() -> None:
    w, state = world()
    state.pages_to_scan = 1
    for number in range(2):
        w.fault(BASE + number * HUGE, WRITE)
    do_madvise(w.mm, BASE, 2 * HUGE, MADV_HUGEPAGE)
    assert Scan(state).run()
    assert state.mm is w.mm and state.pages_collapsed == 1
    w.exit(w.task)
    assert len(state.mms) == 1
    assert Scan(state).run()
    assert not state.mms and state.mm is None
    assert w.system.nr_free_pages() == w.free_at_start


@pytest.mark.parametrize("seed", range(3))
def test_scans_change_nothing_that_a_program_can_read(seed: int) -> None:
    w, state = world(huge=3)
    choose = random.Random(seed)
    state.max_ptes_shared = choose.choice((0, 256, 511))
    held = {w.task: [1, 0, 0, 0] * 3}
    for number in range(3):
        copy_to_user(w.task, BASE + number * HUGE, b"\1")
    do_madvise(w.mm, BASE, 3 * HUGE, MADV_HUGEPAGE)
    while not state.full_scans:
        assert Scan(state).run()
    for _ in range(20):
        task = choose.choice(list(held))
        w.switch(task)
        slot = choose.randrange(12)
        at = BASE + slot * HUGE // 4
        action = choose.randrange(8)
        if action < 4:
            value = choose.randrange(1, 255)
            copy_to_user(task, at, bytes([value]))
            held[task][slot] = value
        elif action == 4:
            do_madvise(w.mm, at, w.ps, MADV_DONTNEED)
            held[task][slot] = 0
        elif action == 5 and len(held) < 3:
            held[w.fork()] = list(held[task])
        elif action == 6 and len(held) > 1:
            del held[task]
            w.exit(task)
            w.switch(next(iter(held)))
        assert Scan(state).run()
        w.check()
    assert state.pages_collapsed >= 3
    for task, values in held.items():
        w.switch(task)
        assert [copy_from_user(task, BASE + slot * HUGE // 4, 1)[0] for slot in range(12)] == values
    w.end()
