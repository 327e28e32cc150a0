"""Advice: flags, contents, age. Expected values: recordings 11-madvise, c01, c02, c03."""

import errno

import pytest
from pages_world import ANON, GEOMETRIES, PRIVATE, READ, SHARED, SHARED_ANON, WRITE, R, World

from mm import flags
from mm.errors import Errno
from mm.flags import MM_ANONPAGES, MM_SHMEMPAGES, PG_SWAPBACKED
from mm.madvise import do_madvise
from mm.memory_rss import get_mm_rss
from mm.mlock import mlock
from mm.shmem import shmem_read, shmem_truncate
from mm.util import fput

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


def refused(number: int, w: World, start: int, length: int, behavior: int) -> None:
    with pytest.raises(Errno) as caught:
        do_madvise(w.mm, start, length, behavior)
    assert caught.value.number == number


def area_flags(w: World, addr: int) -> int:
    vma = w.mm.ops.find_vma(w.mm, addr)
    assert vma is not None
    return vma.vm_flags


FLAG_ADVICE = [
    (2, flags.VM_SEQ_READ, 0),
    (1, flags.VM_RAND_READ, 0),
    (10, flags.VM_DONTCOPY, 11),
    (12, flags.VM_MERGEABLE, 13),
    (14, flags.VM_HUGEPAGE, None),
    (15, flags.VM_NOHUGEPAGE, None),
    (16, flags.VM_DONTDUMP, 17),
    (18, flags.VM_WIPEONFORK, 19),
]


@pytest.mark.parametrize(("advice", "flag", "undo"), FLAG_ADVICE)
def test_flag_advice_splits_and_its_opposite_merges(advice: int, flag: int, undo: int | None) -> None:
    w = World()
    a = w.mmap(4)
    do_madvise(w.mm, a + w.ps, w.ps, advice)
    assert w.mm.map_count == 3
    assert area_flags(w, a + w.ps) & flag
    assert not area_flags(w, a) & flag
    if undo is not None:
        do_madvise(w.mm, a + w.ps, w.ps, undo)
        assert w.mm.map_count == 1
    w.end()


@ALL
def test_dontneed_drops_pages_of_its_own_and_shows_the_file_again(geometry: str) -> None:
    w = World(geometry)
    content = b"x" * (2 * w.ps)
    file = w.file(content)
    b = w.mmap(2, file=file, flags=PRIVATE)
    w.fault(b, WRITE)
    assert w.rss()[MM_ANONPAGES] == 1
    do_madvise(w.mm, b, 2 * w.ps, 4)
    assert w.pte(b) == 0
    assert get_mm_rss(w.mm) == 0
    fput(file)
    w.end()


def test_free_makes_entries_old_and_clean() -> None:
    w = World()
    a = w.mmap(2)
    w.fault(a, WRITE)
    do_madvise(w.mm, a, 2 * w.ps, 8)
    assert w.raw(a) == 0x8000000000000807  # present, writable, user, soft-dirty: neither accessed nor dirty
    assert not w.page(a).flags & PG_SWAPBACKED
    assert w.rss()[MM_ANONPAGES] == 1
    do_madvise(w.mm, a, w.ps, 21)  # reclaim drops what was freed
    assert w.pte(a) == 0
    assert w.rss()[MM_ANONPAGES] == 0
    w.end()


def test_pageout_without_swap_keeps_written_anonymous_pages() -> None:
    w = World()
    a = w.mmap(2)
    w.fault(a, WRITE)
    do_madvise(w.mm, a, w.ps, 21)
    assert w.raw(a) == 0x8000000000000847
    w.end()


def test_pageout_unmaps_shared_pages_and_frees_those_never_written() -> None:
    w = World()
    s = w.mmap(2, flags=SHARED_ANON)
    w.fault(s, WRITE)
    w.fault(s + w.ps, READ)
    vma = w.mm.mmap
    assert vma is not None
    assert vma.vm_file is not None
    do_madvise(w.mm, s, 2 * w.ps, 21)
    assert (w.pte(s), w.pte(s + w.ps)) == (0, 0)
    assert w.rss()[MM_SHMEMPAGES] == 0
    assert sorted(vma.vm_file.f_mapping.pages) == [0]
    w.end()


def test_cold_leaves_pages_of_others_alone() -> None:
    w = World()
    a = w.mmap(1)
    w.fault(a, WRITE)
    child = w.fork()
    old = w.raw(a)
    do_madvise(w.mm, a, w.ps, 20)
    assert w.raw(a) == old
    w.exit(child)
    do_madvise(w.mm, a, w.ps, 20)
    assert w.raw(a) == old & ~0x20
    w.end()


def test_remove_punches_a_hole_under_every_mapping() -> None:
    w = World()
    file = w.file()
    shmem_truncate(file.f_mapping, 4 * w.ps)
    a = w.mmap(4, file=file, flags=SHARED)
    b = w.mmap(4, file=file, flags=SHARED)
    w.fault(a + w.ps, WRITE)
    w.fault(b + w.ps, READ)
    do_madvise(w.mm, a + w.ps, w.ps, 9)
    assert (w.pte(a + w.ps), w.pte(b + w.ps)) == (0, 0)
    assert shmem_read(file.f_mapping, w.ps, 4) == bytes(4)
    fput(file)
    w.end()


def test_refusals() -> None:
    w = World()
    a = w.mmap(8)
    for advice in (-1, 5, 6, 7, 22, 99, 100, 101):
        refused(errno.EINVAL, w, a, w.ps, advice)
    refused(errno.EINVAL, w, a + 1, w.ps, 4)
    refused(errno.EINVAL, w, a, -1 & (1 << 64) - 1, 4)
    refused(errno.ENOMEM, w, w.ps, w.ps, 4)
    do_madvise(w.mm, w.ps, 0, 4)
    shared = w.mmap(2, flags=SHARED_ANON)
    refused(errno.EINVAL, w, shared, w.ps, 8)
    refused(errno.EINVAL, w, shared, w.ps, 18)
    do_madvise(w.mm, shared, w.ps, 12)  # ignored
    assert not area_flags(w, shared) & flags.VM_MERGEABLE
    read_only = w.mmap(2, prot=R, flags=PRIVATE, file=w.file(b"x"))
    refused(errno.EACCES, w, read_only, w.ps, 9)
    refused(errno.EINVAL, w, a, w.ps, 9)
    mlock(w.mm, a, w.ps)
    for advice in (4, 8, 20, 21):
        refused(errno.EINVAL, w, a, w.ps, advice)
    refused(errno.EINVAL, w, shared, 0, 99)
    w.end()


def test_a_hole_is_reported_after_the_rest_was_done() -> None:
    w = World()
    a = w.mmap(3)
    for i in range(3):
        w.fault(a + i * w.ps, WRITE)
    w.munmap(a + w.ps, 1)
    refused(errno.ENOMEM, w, a, 3 * w.ps, 4)
    assert (w.pte(a), w.pte(a + 2 * w.ps)) == (0, 0)
    w.end()


def test_poison_is_for_root_and_arm64() -> None:
    w = World("aarch64-4k")
    a = w.mmap(1, flags=ANON)
    w.task.cap_effective = 0
    refused(errno.EPERM, w, a, w.ps, 100)
    refused(errno.EPERM, w, a, w.ps, 101)
    w.end()


def test_too_many_areas_is_enomem() -> None:
    w = World()
    a = w.mmap(8)
    w.system.sysctl_max_map_count = 1
    refused(errno.ENOMEM, w, a + w.ps, w.ps, 16)
    w.end()
