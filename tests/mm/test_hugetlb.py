"""Huge pages of the pools: reservations, faults, copies, the allocator behind them, and what the checks find."""

import pickle

import pytest
from pages_world import GEOMETRIES, READ, WRITE, World

from mm.errors import Errno, KernelBug
from mm.flags import CAP_IPC_LOCK, VM_HUGETLB, VM_NORESERVE
from mm.hugetlb import hstate_vma, page_of
from mm.hugetlb_file import hugetlb_file_setup
from mm.hugetlb_pgtable import huge_level, huge_pte_offset
from mm.hugetlb_pool import Hstate, hugetlb_pools
from mm.hugetlb_resv import ResvMap, Subpool
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.mmdump import mmdump
from mm.mprotect import do_mprotect
from mm.page_alloc import MAX_ORDER, alloc_contig_pages, free_pages
from mm.uaccess import copy_from_user, copy_to_user
from mm.util import fput

MB2 = 2 << 20
EVERY = pytest.mark.parametrize("geometry", list(GEOMETRIES))


def pool(w: World, pages: int, shift: int = 21) -> Hstate:
    h = hugetlb_pools(w.system).hstate_sizelog(shift)
    assert h is not None
    h.set_max_huge_pages(pages)
    return h


def huge_mmap(w: World, count: int, flags: int = 0x22, shift: int = 21, prot: int = 3) -> int:
    length = count << shift
    file = hugetlb_file_setup(w.system, "anon_hugepage", length, VM_NORESERVE, shift)
    try:
        return vm_mmap_pgoff(w.mm, file, 0, length, prot, flags, 0)
    finally:
        fput(file)


def world(geometry: str) -> World:
    return World(geometry, pages=(24 << 20) // GEOMETRIES[geometry].page_size)


def end(w: World) -> None:
    """Everything exits: all pages are free and promised to nobody, and every frame comes back."""
    w.check()
    for task in list(w.tasks):
        w.exit(task)
    for h in hugetlb_pools(w.system).hstates:
        assert (h.free_huge_pages, h.resv_huge_pages, h.surplus_huge_pages) == (h.nr_huge_pages, 0, 0)
        h.set_max_huge_pages(0)
    w.end()


# -- pools -----------------------------------------------------------------------------------------------------------


@EVERY
def test_a_pool_takes_frames_and_gives_them_back(geometry: str) -> None:
    w = world(geometry)
    free = w.system.nr_free_pages()
    h = pool(w, 4)
    assert (h.nr_huge_pages, h.free_huge_pages) == (4, 4)
    assert w.system.nr_free_pages() == free - 4 * h.pages
    pool(w, 1000)
    assert 4 <= h.nr_huge_pages < 12  # as many as there are
    w.check()
    pool(w, 0)
    assert w.system.nr_free_pages() == free
    end(w)


@EVERY
def test_what_is_touched_is_accounted_and_given_back(geometry: str) -> None:
    w = world(geometry)
    h = pool(w, 4)
    a = huge_mmap(w, 3)
    assert (h.free_huge_pages, h.resv_huge_pages) == (4, 3)
    assert w.fault(a + 5, WRITE) is None
    assert w.fault(a + MB2, READ, present=False) is None
    assert (h.free_huge_pages, h.resv_huge_pages) == (2, 1)
    assert w.mm.hugetlb_usage == 2 * h.pages and w.rss() == [0, 0, 0, 0]
    copy_to_user(w.task, a + MB2 - 10, bytes(range(20)))
    assert copy_from_user(w.task, a + MB2 - 10, 20) == bytes(range(20))
    w.check()
    with pytest.raises(Errno):
        huge_mmap(w, 2)
    do_munmap(w.mm, a, 3 * MB2)
    assert (h.free_huge_pages, h.resv_huge_pages) == (4, 0)
    pool(w, 0)
    end(w)


@EVERY
def test_a_page_comes_back_zeroed(geometry: str) -> None:
    w = world(geometry)
    pool(w, 1)
    for _ in range(2):
        a = huge_mmap(w, 1)
        assert copy_from_user(w.task, a + 0x12345, 8) == bytes(8)
        copy_to_user(w.task, a + 0x12345, b"12345678")
        do_munmap(w.mm, a, MB2)
    pool(w, 0)
    end(w)


@EVERY
def test_fork_shares_and_the_owner_copies(geometry: str) -> None:
    w = world(geometry)
    h = pool(w, 2)
    a = huge_mmap(w, 1)
    copy_to_user(w.task, a, b"parent")
    child = w.fork()
    assert h.free_huge_pages == 1
    w.check()
    copy_to_user(w.task, a, b"PARENT")
    assert h.free_huge_pages == 0
    w.switch(child)
    assert copy_from_user(w.task, a, 6) == b"parent"
    w.check()
    end(w)


@EVERY
def test_without_a_spare_page_the_child_loses_its_own(geometry: str) -> None:
    w = world(geometry)
    h = pool(w, 1)
    a = huge_mmap(w, 1)
    copy_to_user(w.task, a, b"parent")
    child = w.fork()
    copy_to_user(w.task, a, b"PARENT")
    assert h.free_huge_pages == 0
    w.switch(child)
    signal = w.fault(a, READ)
    assert signal is not None and signal.signo == 7
    w.check()
    end(w)


@EVERY
def test_surplus_pages_are_made_and_freed(geometry: str) -> None:
    w = world(geometry)
    h = pool(w, 1)
    h.set_overcommit_huge_pages(2)
    a = huge_mmap(w, 3)
    assert (h.nr_huge_pages, h.surplus_huge_pages, h.resv_huge_pages) == (3, 2, 3)
    w.fault(a, WRITE)
    w.check()
    do_munmap(w.mm, a, 3 * MB2)
    assert (h.nr_huge_pages, h.surplus_huge_pages, h.resv_huge_pages) == (1, 0, 0)
    end(w)


def test_gigantic_pages_have_no_surplus() -> None:
    w = world("aarch64-4k")
    with pytest.raises(Errno):
        pool(w, 0, 25).set_overcommit_huge_pages(1)
    pool(w, 1, 30)
    assert hugetlb_pools(w.system).hstates[3].nr_huge_pages == 0


@EVERY
def test_borders_lie_between_huge_pages(geometry: str) -> None:
    w = world(geometry)
    pool(w, 2)
    a = huge_mmap(w, 2)
    assert not a & (MB2 - 1)
    for call in (
        lambda: do_munmap(w.mm, a + w.ps, MB2),
        lambda: do_munmap(w.mm, a, w.ps),
        lambda: do_mprotect(w.task, a + w.ps, MB2, 1),
    ):
        with pytest.raises(Errno) as error:
            call()
        assert error.value.number == 22
    do_munmap(w.mm, a + MB2, MB2)
    w.check()
    end(w)


def test_a_vast_area_costs_what_is_touched_of_it() -> None:
    w = world("aarch64-4k")
    pool(w, 1, 16)
    a = huge_mmap(w, 1 << 30, 0x4022, 16)  # 64 TiB, MAP_NORESERVE
    w.fault(a + (1 << 45), WRITE)
    do_mprotect(w.task, a, 1 << 46, 1)
    child = w.fork()
    assert [line.split()[0] for line in mmdump(w.task).splitlines() if line.startswith("huge")] == ["huge"]
    w.exit(child)
    do_munmap(w.mm, a, 1 << 46)
    end(w)


def test_entries_in_a_row_are_one_page() -> None:
    w = world("aarch64-64k")
    assert huge_level(w.arch, 21) == (2, 5)
    pool(w, 1)
    a = huge_mmap(w, 1)
    w.fault(a + 7 * w.ps, WRITE)
    index = huge_pte_offset(w.mm, a + 9 * w.ps, 21)
    row = w.system.words[index : index + 32].tolist()
    assert [w.arch.pte_pfn(pte) - w.arch.pte_pfn(row[0]) for pte in row] == list(range(32))
    assert all(pte >> 52 & 1 for pte in row)
    end(w)


def test_state_pickles() -> None:
    w = world("x86_64-4k")
    pool(w, 2)
    a = huge_mmap(w, 2)
    w.fault(a, WRITE)
    copy = pickle.loads(pickle.dumps(w.mm))
    vma = copy.mmap
    assert vma.vm_flags & VM_HUGETLB
    h = hstate_vma(vma)
    assert h is copy.system.hugetlb.default and (h.free_huge_pages, h.resv_huge_pages) == (1, 1)
    end(w)


# -- checks find what is broken --------------------------------------------------------------------------------------


def broken() -> tuple[World, Hstate, int]:
    w = world("x86_64-4k")
    h = pool(w, 2)
    a = huge_mmap(w, 1)
    w.fault(a, WRITE)
    w.check()
    return w, h, huge_pte_offset(w.mm, a, 21)


def test_p14_a_leaf_out_of_its_row() -> None:
    w, _h, index = broken()
    w.system.words[index] += 1 << 12
    with pytest.raises(KernelBug, match="P14"):
        w.check()


def test_p15_a_wrong_count() -> None:
    w, _h, index = broken()
    page_of(w.mm, w.system.words[index]).mapcount += 1
    with pytest.raises(KernelBug, match="P15"):
        w.check()


def test_p15_in_use_and_free() -> None:
    w, h, index = broken()
    h.freelist.append(page_of(w.mm, w.system.words[index]))
    h.free_huge_pages += 1
    with pytest.raises(KernelBug, match="P15"):
        w.check()


@pytest.mark.parametrize("counter", ["nr_huge_pages", "free_huge_pages", "resv_huge_pages", "surplus_huge_pages"])
def test_p16_a_counter_that_does_not_add_up(counter: str) -> None:
    w, h, _index = broken()
    setattr(h, counter, getattr(h, counter) + 3)
    with pytest.raises(KernelBug, match="P16"):
        w.check()


# -- the parts -------------------------------------------------------------------------------------------------------


def test_resv_map_is_a_set_of_ranges() -> None:
    resv, model = ResvMap(), set()
    moves = [(0, 4, 1), (6, 9, 1), (3, 7, 1), (2, 3, 0), (5, 8, 0), (20, 25, 1), (25, 26, 1), (0, 40, 0), (1, 2, 1)]
    for first, end, add in moves:
        span = set(range(first, end))
        assert resv.region_chg(first, end) == len(span - model)
        if add:
            assert resv.region_add(first, end) == len(span - model)
            model |= span
        else:
            assert resv.region_del(first, end) == len(span & model)
            model -= span
        assert {n for start, to in resv.regions for n in range(start, to)} == model
        assert resv.regions == sorted(resv.regions)
        assert all(a[1] < b[0] for a, b in zip(resv.regions, resv.regions[1:], strict=False))
    assert resv.region_del(0, None) == 1


def test_subpool_has_a_maximum_and_keeps_a_minimum() -> None:
    w = world("x86_64-4k")
    h = pool(w, 4)
    assert h.hugetlb_acct_memory(2)
    spool = Subpool(h, 3, 2)
    assert spool.get_pages(1) == 0  # covered by the minimum
    assert spool.get_pages(2) == 1
    assert spool.get_pages(1) == -1
    assert spool.put_pages(1) == 1
    assert spool.put_pages(2) == 0  # the minimum is promised again
    spool.put()
    assert h.resv_huge_pages == 0


@pytest.mark.parametrize("order", [MAX_ORDER, MAX_ORDER + 1])
def test_contiguous_blocks_beyond_the_lists(order: int) -> None:
    w = World("x86_64-4k", pages=16384)
    free = w.system.nr_free_pages()
    page = alloc_contig_pages(w.system, order, True)
    assert page is not None and not page.pfn & ((1 << order) - 1)
    assert w.system.nr_free_pages() == free - (1 << order)
    free_pages(w.system, page.pfn, order)
    assert w.system.nr_free_pages() == free
    w.check()


def test_capability_is_not_needed_for_anonymous_huge_pages() -> None:
    w = world("x86_64-4k")
    pool(w, 1)
    w.task.cap_effective &= ~(1 << CAP_IPC_LOCK)
    huge_mmap(w, 1)
    end(w)
