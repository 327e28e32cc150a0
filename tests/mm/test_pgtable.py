"""Page tables: what is made, what is found again, and what floor and ceiling leave alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_world import GEOMETRIES, World

from mm.errors import KernelBug
from mm.pgtable import free_pgd_range, pgd_free, pmd_alloc, pmd_offset, pte_alloc_map, pte_offset, walk_pmds

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


@ALL
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_allocated_entries_are_found(geometry: str, data: Any) -> None:
    w = World(geometry, pages=1024)
    top = w.arch.task_size >> w.arch.page_shift
    numbers = data.draw(st.lists(st.integers(0, top - 1), max_size=12, unique=True))
    indexes = {n: pte_alloc_map(w.mm, n << w.arch.page_shift) for n in numbers}
    assert len(set(indexes.values())) == len(numbers)
    for n, index in indexes.items():
        assert pte_offset(w.mm, n << w.arch.page_shift) == index
    pmds = {n << w.arch.page_shift >> w.arch.pmd_shift for n in numbers}
    walked = [start >> w.arch.pmd_shift for start, _, _ in walk_pmds(w.mm, 0, w.arch.task_size)]
    assert walked == sorted(pmds)
    free_pgd_range(w.mm, 0, w.arch.task_size, 0, 0)
    assert w.mm.pgtables_bytes == 0
    w.end()


@ALL
def test_walk_is_clipped(geometry: str) -> None:
    w = World(geometry)
    base = 5 * w.arch.pmd_size
    for i in range(3):
        pte_alloc_map(w.mm, base + i * w.arch.pmd_size)
    start, end = base + w.ps, base + 2 * w.arch.pmd_size + w.ps
    assert [(a, b) for a, b, _ in walk_pmds(w.mm, start, end)] == [
        (start, base + w.arch.pmd_size),
        (base + w.arch.pmd_size, base + 2 * w.arch.pmd_size),
        (base + 2 * w.arch.pmd_size, end),
    ]


@ALL
def test_floor_and_ceiling_protect_shared_tables(geometry: str) -> None:
    w = World(geometry)
    pmd = w.arch.pmd_size
    base = 64 * pmd
    for i in range(3):
        pte_alloc_map(w.mm, base + i * pmd)
    middle = base + pmd
    # A neighbour ends inside the middle PMD's span: its table stays.
    free_pgd_range(w.mm, middle + 4 * w.ps, middle + 8 * w.ps, middle + 2 * w.ps, base + 2 * pmd)
    assert pte_offset(w.mm, middle) >= 0
    # A neighbour begins inside it: the same.
    free_pgd_range(w.mm, middle, middle + 4 * w.ps, base + pmd, middle + 8 * w.ps)
    assert pte_offset(w.mm, middle) >= 0
    # Neighbours only in the PMDs around: the middle table goes, the tables above stay.
    free_pgd_range(w.mm, middle, middle + 4 * w.ps, base + pmd, base + 2 * pmd)
    assert pte_offset(w.mm, middle) < 0
    assert pmd_offset(w.mm, middle) >= 0
    assert pte_offset(w.mm, base) >= 0 and pte_offset(w.mm, base + 2 * pmd) >= 0


def test_missing_tables_are_minus_one() -> None:
    w = World()
    assert pmd_offset(w.mm, 0x400000) == -1
    assert pte_offset(w.mm, 0x400000) == -1
    index = pmd_alloc(w.mm, 0x400000)
    assert index >= 0 and pte_offset(w.mm, 0x400000) == -1


def test_out_of_memory_leaves_a_sound_tree() -> None:
    w = World(pages=8)
    while pte_alloc_map(w.mm, w.mm.pgtables_bytes << 24) >= 0:
        pass
    assert w.system.nr_free_pages() == 0
    free_pgd_range(w.mm, 0, w.arch.task_size, 0, 0)
    w.end()


def test_root_in_use_is_not_freed() -> None:
    w = World()
    pte_alloc_map(w.mm, 0x400000)
    with pytest.raises(KernelBug):
        pgd_free(w.mm)


def test_kernel_entries_are_in_every_root() -> None:
    w = World()
    w.system.kernel_pgd.append((256, 0x1234067))
    child = w.fork()
    assert child.mm is not None
    assert w.system.words[(child.mm.pgd << 9) + 256] == 0x1234067
    w.exit(child)
