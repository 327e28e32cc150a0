"""MADV_HWPOISON and MADV_SOFT_OFFLINE: the page is lost, or moves unseen."""

import pytest
from pages_world import GEOMETRIES, RW, SHARED, WRITE, World

from mm.memory_failure import is_hwpoison_entry, memory_failure, soft_offline_page
from mm.shmem import shmem_read
from mm.uaccess import copy_from_user, copy_from_user_partial, copy_to_user

ARM = pytest.mark.parametrize("geometry", [name for name in GEOMETRIES if name.startswith("aarch")])


@ARM
def test_a_poisoned_page_is_gone_for_good(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(3)
    copy_to_user(w.task, a, b"1" * 2 * w.ps)
    pfn = w.page(a).pfn
    assert memory_failure(w.mm, a) == w.ps
    assert is_hwpoison_entry(w.mm, w.pte(a)) and w.arch.pte_to_swp_entry(w.pte(a))[1] == pfn
    assert w.rss()[1] == 1
    signal = w.fault(a, WRITE)
    assert (signal.signo, signal.si_code) == (7, 4)
    assert copy_from_user_partial(w.task, a, 1) == b""
    child = w.fork()
    w.check()
    w.exit(child)
    w.munmap(a, 3)
    assert w.system.mem_map[pfn] is not None
    w.check()


@ARM
def test_soft_offline_moves_the_page(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1)
    copy_to_user(w.task, a, b"kept")
    child = w.fork()
    pfn = w.page(a).pfn
    assert soft_offline_page(w.mm, a) == w.ps
    assert w.page(a).pfn != pfn and w.page(a).mapcount == 2
    assert copy_from_user(w.task, a, 4) == b"kept"
    w.check()
    w.exit(child)
    w.munmap(a, 1)
    w.check()


@ARM
def test_pages_of_files(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"data")
    a = w.mmap(1, RW, SHARED, f)
    assert copy_from_user(w.task, a, 4) == b"data"
    soft_offline_page(w.mm, a)
    assert shmem_read(f.f_mapping, 0, 4) == b"data" and copy_from_user(w.task, a, 4) == b"data"
    w.check()
    memory_failure(w.mm, a)
    assert w.fault(a).signo == 7
    w.check()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_swap_entries_round_trip(geometry: str) -> None:
    arch = GEOMETRIES[geometry]
    for kind, offset in ((0, 0), (29, 1), (31, 0x12345)):
        pte = arch.swp_entry_to_pte(kind, offset)
        assert not arch.pte_present(pte)
        assert arch.pte_to_swp_entry(pte) == (kind, offset)
