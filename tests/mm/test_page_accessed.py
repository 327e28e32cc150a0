"""mark_page_accessed (mm/lru.py) and where it is called; a populate that stops when its task is killed."""

import errno

import pytest

from mm.errors import Errno
from mm.flags import PG_ACTIVE, PG_REFERENCED, PG_UNEVICTABLE
from mm.gup import FOLL_TOUCH, get_user_pages, mm_populate
from mm.lru import mark_page_accessed
from mm.mlock import mlock
from mm.mprotect import do_mprotect
from mm.shmem import shmem_read, shmem_write
from mm.types import Page
from tests.pages_world import ANON, READ, SHARED, WRITE, World


def test_referenced_then_active() -> None:
    page = Page(1)
    mark_page_accessed(page)
    assert page.flags == PG_REFERENCED
    mark_page_accessed(page)
    assert page.flags == PG_ACTIVE
    locked = Page(2, PG_UNEVICTABLE | PG_REFERENCED)
    mark_page_accessed(locked)
    assert locked.flags == PG_UNEVICTABLE | PG_REFERENCED


def test_the_end_of_a_young_mapping_marks_a_files_page() -> None:
    w = World()
    file = w.file(bytes(w.ps))
    address = w.mmap(1, flags=SHARED, file=file)
    assert w.fault(address, READ) is None
    page = w.page(address)
    assert not page.flags & PG_REFERENCED
    w.munmap(address, 1)
    assert page.flags & PG_REFERENCED


def test_write_marks_a_page_and_so_does_reading_its_beginning() -> None:
    w = World()
    mapping = w.file().f_mapping
    mapping.i_size = w.ps
    shmem_write(mapping, 0, b"new")
    page = mapping.pages[0]
    assert page.flags & (PG_REFERENCED | PG_ACTIVE) == PG_REFERENCED
    shmem_read(mapping, 1, 2)
    assert page.flags & PG_REFERENCED
    shmem_read(mapping, 0, 2)
    assert page.flags & (PG_REFERENCED | PG_ACTIVE) == PG_ACTIVE


def test_mlock_marks_what_it_touches() -> None:
    w = World()
    address = w.mmap(1)
    assert w.fault(address, WRITE) is None
    mlock(w.mm, address, w.ps)
    assert w.page(address).flags & PG_REFERENCED


def test_a_killed_task_gets_no_more_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World()
    address = w.mmap(8)
    answers = iter([False, False, False, True, True])
    monkeypatch.setattr(w.task, "fatal_signal_pending", lambda: next(answers))
    assert get_user_pages(w.mm, address, 8, FOLL_TOUCH) == 3
    with pytest.raises(Errno) as raised:
        get_user_pages(w.mm, address, 8, FOLL_TOUCH)
    assert raised.value.number == errno.EINTR


@pytest.mark.parametrize("touched", [0, 70, 511])
def test_zero_pages_populated_at_once_are_what_faults_would_have_made(touched: int) -> None:
    """MAP_POPULATE of a read-only area, against loads one by one, with a page in the way."""
    seen = []
    for populated in (True, False):
        w = World(pages=16384)
        w.system.validate_level = 0
        address = w.mmap(2000, 1, ANON)
        assert w.fault(address + touched * w.ps, READ) is None
        if populated:
            mm_populate(w.mm, address, 2000 * w.ps)
        else:
            vma = w.mm.ops.find_vma(w.mm, address)
            assert vma is not None
            for number in [n for n in range(2000) if n != touched]:
                assert w.mm.ops.handle_mm_fault(vma, address + number * w.ps, 0) == 0
        w.check()
        entries = [w.pte(address + number * w.ps) for number in range(2000)]
        seen.append((entries, w.task.min_flt, w.task.rss_events, w.system.pgfault, w.rss()))
    assert seen[0] == seen[1]


def test_each_populated_area_is_looked_up() -> None:
    """The vmacache remembers the last one (a generated script, recorded on the oracle, showed it)."""
    w = World()
    w.system.validate_level = 0
    address = w.mmap(4, 1, ANON)
    assert w.fault(address, READ) is None  # the table is there
    second = address + 2 * w.ps
    do_mprotect(w.task, second, 2 * w.ps, 5)
    w.task.vmacache[:] = [None] * 4
    mm_populate(w.mm, address, 4 * w.ps)
    slots = [vma.vm_start for vma in w.task.vmacache if vma is not None]
    assert slots == [second]
