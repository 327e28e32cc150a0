"""The buddy allocator: blocks never overlap, merge back, and are zero when asked to be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_world import World

from mm.errors import KernelBug
from mm.page_alloc import MAX_ORDER, alloc_page, alloc_pages, drain_all_pages, free_page, init_zone, put_page
from mm.validate_pages import validate_system


def test_fresh_zone_has_every_frame_once() -> None:
    for frames in (1, 2, 3, 7, 64, 1000, 4096, 5000):
        zone = init_zone(1, frames)
        seen = [pfn + i for order, area in enumerate(zone.free_area) for pfn in area for i in range(1 << order)]
        assert sorted(seen) == list(range(1, frames))
        assert zone.nr_free_pages == zone.managed_pages == frames - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 1 << 16)), max_size=120))
def test_any_order_of_use_ends_as_it_began(steps: list[tuple[int, int]]) -> None:
    system = World(pages=512).system
    drain_all_pages(system.zone)
    start = [set(area) for area in system.zone.free_area]
    held: list[list[int]] = []
    for order, which in steps:
        if order >= 0:
            page = alloc_pages(system, order, False) if order else alloc_page(system, False)
            if page is not None:
                assert page.pfn & ((1 << order) - 1) == 0
                held.append(list(range(page.pfn, page.pfn + (1 << order))))
        elif held:
            for pfn in held.pop(which % len(held)):
                page = system.mem_map[pfn]
                assert page is not None
                free_page(system, page)
        used = [pfn for block in held for pfn in block]
        assert len(used) == len(set(used))
    for block in held:
        for pfn in block:
            page = system.mem_map[pfn]
            assert page is not None
            free_page(system, page)
    drain_all_pages(system.zone)
    assert [set(area) for area in system.zone.free_area] == start
    validate_system(system, [])


def test_zeroing() -> None:
    system = World(pages=64).system
    page = alloc_page(system, True)
    assert page is not None
    pfn, size = page.pfn, system.page_size
    system.ram[pfn * size : (pfn + 1) * size] = b"\xaa" * size
    free_page(system, page)
    again = alloc_page(system, False)
    assert again is not None and again.pfn == pfn  # last in, first out
    assert system.ram[pfn * size] == 0xAA
    free_page(system, again)
    clean = alloc_page(system, True)
    assert clean is not None and clean.pfn == pfn
    assert bytes(system.ram[pfn * size : (pfn + 1) * size]) == bytes(size)


def test_exhaustion_and_recovery() -> None:
    system = World(pages=64).system
    pages = []
    while (page := alloc_page(system, True)) is not None:
        pages.append(page)
    assert system.nr_free_pages() == 0
    assert alloc_pages(system, 3, False) is None
    for page in pages:
        put_page(system, page)
    block = alloc_pages(system, 4, False)
    assert block is not None


def test_frames_below_the_largest_order_only() -> None:
    system = World(pages=4096).system
    assert alloc_pages(system, MAX_ORDER - 1, False) is not None


def test_double_free_and_mapped_free_are_bugs() -> None:
    system = World(pages=64).system
    page = alloc_page(system, False)
    assert page is not None
    free_page(system, page)
    with pytest.raises(KernelBug):
        free_page(system, page)
    page = alloc_page(system, False)
    assert page is not None
    page.mapcount = 1
    with pytest.raises(KernelBug):
        free_page(system, page)
