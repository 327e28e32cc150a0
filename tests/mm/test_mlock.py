"""Locking: what each call leaves of the areas, the pages and the counters. As recorded in 12-mlock, c04, c05."""

import errno

import pytest
from pages_world import ANON, GEOMETRIES, READ, SHARED_ANON, WRITE, World

from mm.errors import Errno
from mm.flags import PG_LRU, PG_MLOCKED, RLIMIT_MEMLOCK, VM_LOCKED, VM_LOCKONFAULT
from mm.mlock import mlock, mlock2, mlockall, munlock, munlockall
from mm.mremap import mremap

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)
LOCK_BITS = VM_LOCKED | VM_LOCKONFAULT


def refused(number: int, call, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        call(*args)
    assert caught.value.number == number


def areas(w: World) -> list[tuple[int, int]]:
    """(pages, lock bits) of every area."""
    found = []
    vma = w.mm.mmap
    while vma is not None:
        found.append(((vma.vm_end - vma.vm_start) // w.ps, vma.vm_flags & LOCK_BITS))
        vma = vma.vm_next
    return found


@ALL
def test_lock_splits_and_populates(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(12)
    mlock(w.mm, a + w.ps, 2 * w.ps)
    assert areas(w) == [(1, 0), (2, VM_LOCKED), (9, 0)]
    assert (w.mm.locked_vm, w.system.nr_mlock) == (2, 2)
    assert w.page(a + w.ps).flags & PG_MLOCKED
    mlock(w.mm, a + 2 * w.ps, 3 * w.ps)
    assert areas(w) == [(1, 0), (4, VM_LOCKED), (7, 0)]
    munlock(w.mm, a, 12 * w.ps)
    assert areas(w) == [(1, 0), (4, 0), (7, 0)]  # the neighbours never had an anon_vma, so they do not merge
    assert (w.mm.locked_vm, w.system.nr_mlock) == (0, 0)
    w.end()


def test_on_fault_locks_what_is_there_and_what_comes() -> None:
    w = World()
    a = w.mmap(4)
    w.fault(a, WRITE)
    mlock2(w.mm, a, 4 * w.ps, 1)
    assert areas(w) == [(4, LOCK_BITS)]
    assert w.system.nr_mlock == 1
    w.fault(a + w.ps, READ)  # the zero page is nobody's to lock
    w.fault(a + 2 * w.ps, WRITE)
    assert w.system.nr_mlock == 2
    mlock(w.mm, a, w.ps)  # no longer on fault only
    assert areas(w) == [(1, VM_LOCKED), (3, LOCK_BITS)]
    w.end()


def test_arguments_are_bytes_and_round_outwards() -> None:
    w = World()
    a = w.mmap(4)
    mlock(w.mm, a + w.ps - 1, 2)
    assert areas(w) == [(2, VM_LOCKED), (2, 0)]
    refused(errno.EINVAL, mlock2, w.mm, a, w.ps, 2)
    refused(errno.EINVAL, mlock, w.mm, a, -w.ps & 0xFFFFFFFFFFFFFFFF)
    refused(errno.ENOMEM, mlock, w.mm, 0, w.ps)
    refused(errno.ENOMEM, mlock, w.mm, a + 40 * w.ps, w.ps)
    mlock(w.mm, a, -1 & 0xFFFFFFFFFFFFFFFF)  # rounds up to nothing
    w.end()


def test_a_hole_stops_it_but_what_lies_before_stays_locked_unpopulated() -> None:
    w = World()
    a = w.mmap(4)
    w.munmap(a + 2 * w.ps, 1)
    refused(errno.ENOMEM, mlock, w.mm, a, 4 * w.ps)
    assert areas(w) == [(2, VM_LOCKED), (1, 0)]
    assert (w.mm.locked_vm, w.system.nr_mlock) == (2, 0)
    w.end()


def test_prot_none_is_locked_and_reported() -> None:
    w = World()
    a = w.mmap(2, prot=0)
    refused(errno.ENOMEM, mlock, w.mm, a, 2 * w.ps)
    assert areas(w) == [(2, VM_LOCKED)]
    w.end()


def test_limit_counts_pages_that_are_locked_already_once() -> None:
    w = World()
    w.task.rlim[RLIMIT_MEMLOCK][0] = 8 * w.ps
    w.task.cap_effective = 0
    a = w.mmap(32)
    mlock(w.mm, a, 8 * w.ps)
    mlock(w.mm, a, 8 * w.ps)
    refused(errno.ENOMEM, mlock, w.mm, a + w.ps, 8 * w.ps)
    munlock(w.mm, a, 4 * w.ps)
    mlock(w.mm, a + 8 * w.ps, 4 * w.ps)
    mlock(w.mm, a + 4 * w.ps, 8 * w.ps)
    refused(errno.ENOMEM, mlock, w.mm, a + 12 * w.ps, w.ps)
    refused(errno.ENOMEM, mlockall, w.mm, 1)
    w.task.rlim[RLIMIT_MEMLOCK][0] = 0
    refused(errno.EPERM, mlock, w.mm, a, w.ps)
    refused(errno.EPERM, mlockall, w.mm, 1)
    refused(errno.EINVAL, mlockall, w.mm, 0)
    munlock(w.mm, a, w.ps)
    w.end()


def test_mlockall_current_and_future() -> None:
    w = World()
    for flags in (0, 4, 8):
        refused(errno.EINVAL, mlockall, w.mm, flags)
    a = w.mmap(3)
    mlockall(w.mm, 2)
    assert w.mm.def_flags == VM_LOCKED
    assert areas(w) == [(3, 0)]
    b = w.mmap(3)
    assert areas(w) == [(3, VM_LOCKED), (3, 0)]
    assert w.system.nr_mlock == 3
    mlockall(w.mm, 7)
    assert w.mm.def_flags == LOCK_BITS
    assert areas(w) == [(6, LOCK_BITS)]
    assert w.pte(a) == 0
    munlockall(w.mm)
    assert (w.mm.def_flags, w.mm.locked_vm, areas(w)) == (0, 0, [(6, 0)])
    assert not w.page(b).flags & PG_MLOCKED
    w.end()


def test_a_page_in_two_locked_areas_stays_marked_until_the_last_lets_go() -> None:
    w = World()
    s = w.mmap(1, flags=SHARED_ANON)
    w.fault(s, WRITE)
    t = mremap(w.mm, s, 0, w.ps, 1, 0)
    mlock(w.mm, s, w.ps)
    mlock(w.mm, t, w.ps)
    w.mmap(1)
    w.munmap(w.mmap(1), 1)  # drains the batch of the LRU lists
    munlock(w.mm, s, w.ps)
    assert w.page(t).flags & PG_MLOCKED
    assert not w.page(t).flags & PG_LRU
    munlock(w.mm, t, w.ps)
    assert not w.page(t).flags & PG_MLOCKED
    w.end()


def test_a_page_that_waits_for_the_lru_lists_is_unmarked_without_asking() -> None:
    w = World()
    s = w.mmap(1, flags=SHARED_ANON)
    w.fault(s, WRITE)
    t = mremap(w.mm, s, 0, w.ps, 1, 0)
    u = mremap(w.mm, s, 0, w.ps, 1, 0)
    for address in (s, t, u):
        mlock(w.mm, address, w.ps)
    w.munmap(w.mmap(1), 1)
    munlock(w.mm, s, w.ps)  # still marked for t and u, and on its way back to the lists
    munlock(w.mm, t, w.ps)
    assert not w.page(u).flags & PG_MLOCKED
    w.end()


def test_fork_inherits_neither_locks_nor_the_future() -> None:
    w = World()
    a = w.mmap(2)
    mlockall(w.mm, 3)
    child = w.fork()
    assert child.mm is not None
    assert (child.mm.locked_vm, child.mm.def_flags) == (0, 0)
    vma = child.mm.mmap
    assert vma is not None
    assert not vma.vm_flags & LOCK_BITS
    w.exit(child)
    assert w.page(a).flags & PG_MLOCKED
    w.end()


def test_map_locked_populates() -> None:
    w = World()
    a = w.mmap(3, flags=ANON | 0x2000)
    assert (w.mm.locked_vm, w.system.nr_mlock) == (3, 3)
    w.munmap(a + w.ps, 1)
    assert (w.mm.locked_vm, w.system.nr_mlock) == (2, 2)
    w.end()
