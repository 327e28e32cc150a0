"""Transparent huge pages: made on advice, shared by fork, split where something smaller happens to a part."""

import pytest
from pages_world import GEOMETRIES, READ, WRITE, World

from mm.huge_memory import split_huge_page
from mm.madvise import do_madvise
from mm.mmdump import mmdump
from mm.mprotect import do_mprotect
from mm.mremap import mremap
from mm.uaccess import copy_from_user, copy_to_user

SMALL = pytest.mark.parametrize("geometry", [name for name, arch in GEOMETRIES.items() if arch.page_size == 4096])
BASE = 0x10000000
MADV_DONTNEED, MADV_HUGEPAGE = 4, 14


def world(geometry: str, huge: int = 2) -> World:
    w = World(geometry, pages=8192)
    w.mmap(512 * huge, addr=BASE)
    do_madvise(w.mm, BASE, huge << 21, MADV_HUGEPAGE)
    return w


def pmds(w: World) -> list[str]:
    return [line for line in mmdump(w.task).splitlines() if line.startswith("pmd")]


@SMALL
def test_write_makes_one(geometry: str) -> None:
    w = world(geometry)
    assert w.fault(BASE + 5 * w.ps, WRITE) is None
    raw = "80000000000008e7" if w.arch.name == "x86_64" else "e8000000000f41"
    assert pmds(w) == [f"pmd {BASE:x} raw={raw} id=1 anon map=1"]
    assert w.rss()[1] == 512
    assert w.mm.pgtables_bytes == 3 * w.ps
    copy_to_user(w.task, BASE + 100, b"x" * 9000)
    assert copy_from_user(w.task, BASE + 100, 9000) == b"x" * 9000
    assert w.task.min_flt == 1
    w.end()


@SMALL
def test_read_maps_the_huge_zero_page(geometry: str) -> None:
    w = world(geometry)
    w.fault(BASE, READ)
    assert pmds(w)[0].endswith("file map=0")
    assert w.rss()[1] == 0
    w.fault(BASE + 7, WRITE, present=True)
    assert not pmds(w) and w.rss()[1] == 1
    w.check()


@SMALL
def test_only_on_advice_and_where_it_fits(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1024, addr=BASE)
    w.fault(a, WRITE)
    assert not pmds(w)
    b = w.mmap(600, addr=BASE + (1 << 30) + w.ps)
    do_madvise(w.mm, b, 600 * w.ps, MADV_HUGEPAGE)
    w.fault(b, WRITE)
    assert not pmds(w)
    w.end()


def test_never_on_large_pages() -> None:
    w = World("aarch64-16k", pages=8192)
    a = w.mmap(4096, addr=32 << 20)
    do_madvise(w.mm, a, 4096 * w.ps, MADV_HUGEPAGE)
    w.fault(a, WRITE)
    assert not pmds(w)


@SMALL
def test_parts_split_it(geometry: str) -> None:
    w = world(geometry)
    copy_to_user(w.task, BASE, b"a")
    do_mprotect(w.task, BASE + 3 * w.ps, w.ps, 1)
    assert not pmds(w) and w.rss()[1] == 512
    w.check()
    copy_to_user(w.task, BASE + (2 << 20), b"b")
    do_madvise(w.mm, BASE + (2 << 20) + w.ps, w.ps, MADV_DONTNEED)
    assert w.rss()[1] == 1023
    w.check()
    w.munmap(BASE + 600 * w.ps, 3)
    w.end()


@SMALL
def test_whole_operations_keep_it(geometry: str) -> None:
    w = world(geometry)
    copy_to_user(w.task, BASE, b"a")
    do_mprotect(w.task, BASE, 2 << 20, 0)
    assert len(pmds(w)) == 1
    w.check()
    do_mprotect(w.task, BASE, 2 << 20, 3)
    assert copy_from_user(w.task, BASE, 1) == b"a"
    moved = mremap(w.mm, BASE, 2 << 20, 2 << 20, 3, 0x30000000)
    assert len(pmds(w)) == 1 and copy_from_user(w.task, moved, 1) == b"a"
    w.check()
    do_madvise(w.mm, moved, 2 << 20, MADV_DONTNEED)
    assert not pmds(w) and w.rss()[1] == 0
    w.end()


@SMALL
def test_fork_shares_it_and_a_write_copies_one_page(geometry: str) -> None:
    w = world(geometry)
    copy_to_user(w.task, BASE, b"p")
    child = w.fork()
    assert pmds(w)[0].endswith("map=2")
    w.check()
    parent = w.task
    w.switch(child)
    copy_to_user(child, BASE, b"c")
    assert not pmds(w)
    w.check()
    w.switch(parent)
    assert copy_from_user(parent, BASE, 1) == b"p"
    w.exit(child)
    w.fault(BASE, WRITE, present=True)
    assert len(pmds(w)) == 1  # the only user again: reused
    w.end()


@SMALL
def test_mlock_marks_the_head(geometry: str) -> None:
    from mm.mlock import mlock, munlock

    w = world(geometry)
    mlock(w.mm, BASE, 2 << 20)
    assert "mlocked" in pmds(w)[0] and w.system.nr_mlock == 512
    w.check()
    munlock(w.mm, BASE + 10 * w.ps, w.ps)
    assert w.system.nr_mlock == 0
    w.check()
    w.end()


@SMALL
def test_split_huge_page(geometry: str) -> None:
    w = world(geometry)
    copy_to_user(w.task, BASE + w.ps, b"s")
    page = next(p for p in w.system.mem_map if p is not None and p.private is p)
    assert split_huge_page(w.system, page)
    assert not pmds(w) and page.private is None
    assert copy_from_user(w.task, BASE + w.ps, 1) == b"s"
    w.end()


@SMALL
def test_without_a_block_small_pages_do(geometry: str) -> None:
    w = World(geometry, pages=600)
    w.mmap(512, addr=BASE)
    do_madvise(w.mm, BASE, 2 << 20, MADV_HUGEPAGE)
    assert w.fault(BASE, WRITE) is None
    assert not pmds(w) and w.rss()[1] == 1
    w.end()


@SMALL
def test_it_goes_back_as_one_block_and_comes_clean(geometry: str) -> None:
    w = world(geometry, huge=1)
    zone = w.system.zone
    w.fault(BASE, WRITE)
    copy_to_user(w.task, BASE + 511 * w.ps, b"dirt")
    (head,) = (page.pfn for page in w.system.mem_map.in_use() if page.private is page)
    small, free = len(zone.pcp), zone.nr_free_buddy
    do_madvise(w.mm, BASE, 2 << 20, MADV_DONTNEED)
    assert zone.nr_free_buddy == free + 512 and len(zone.pcp) == small + 1  # and its reserve table
    assert w.system.mem_map[head] is None and w.system.mem_map[head + 511] is None
    w.fault(BASE, WRITE)
    assert w.system.mem_map.page(head).private is w.system.mem_map.page(head)
    assert copy_from_user(w.task, BASE + 511 * w.ps, 4) == bytes(4)
    w.end()
