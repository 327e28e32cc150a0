"""mincore, msync, remap_file_pages. Expected values: recordings 13-mincore-and-proc, c06, c07."""

import errno
from typing import Any

import pytest
from pages_world import GEOMETRIES, PRIVATE, READ, SHARED, SHARED_ANON, WRITE, R, World

from mm.errors import Errno
from mm.mincore import do_mincore
from mm.mlock import mlock
from mm.msync import msync
from mm.remap_file_pages import remap_file_pages
from mm.shmem import shmem_read, shmem_truncate, shmem_write
from mm.util import fput

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


def refused(number: int, call: Any, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        call(*args)
    assert caught.value.number == number


@ALL
def test_mincore_of_anonymous_memory_is_what_is_mapped(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(8)
    for i, access in ((0, WRITE), (2, WRITE), (5, READ)):
        w.fault(a + i * w.ps, access)
    assert do_mincore(w.mm, a, 8) == bytes([1, 0, 1, 0, 0, 1, 0, 0])
    assert do_mincore(w.mm, a, 20) == bytes([1, 0, 1, 0, 0, 1, 0, 0])  # one area at a time
    refused(errno.ENOMEM, do_mincore, w.mm, a - w.ps, 1)
    w.end()


def test_mincore_of_a_file_is_what_is_cached() -> None:
    w = World()
    file = w.file(b"z" * (2 * w.ps))
    shmem_truncate(file.f_mapping, 6 * w.ps)
    shmem_write(file.f_mapping, 4 * w.ps, b"x")
    a = w.mmap(8, file=file, flags=PRIVATE, prot=R)
    assert do_mincore(w.mm, a, 8) == bytes([1, 1, 0, 0, 1, 0, 0, 0])
    fput(file)
    w.end()


def test_mincore_tells_nothing_about_files_of_others() -> None:
    w = World()
    file: Any = w.file(b"z")
    file.owner_or_writable = lambda task: False
    a = w.mmap(3, file=file, flags=PRIVATE, prot=R)
    assert do_mincore(w.mm, a, 3) == bytes([1, 1, 1])
    fput(file)
    w.end()


def test_msync() -> None:
    w = World()
    a = w.mmap(4)
    for flags in (0, 1, 2, 4, 6):
        msync(w.mm, a, 4 * w.ps, flags)
    for flags in (5, 8, -1):
        refused(errno.EINVAL, msync, w.mm, a, w.ps, flags)
    refused(errno.EINVAL, msync, w.mm, a + 1, w.ps, 4)
    refused(errno.ENOMEM, msync, w.mm, a, 5 * w.ps, 4)
    refused(errno.ENOMEM, msync, w.mm, a, -w.ps & (1 << 64) - 1, 4)
    msync(w.mm, a, (1 << 64) - 1, 4)  # rounds up to nothing
    mlock(w.mm, a, w.ps)
    refused(errno.EBUSY, msync, w.mm, a, w.ps, 2)
    w.end()


def test_msync_writes_shared_file_mappings_back() -> None:
    w = World()
    file: Any = w.file(b"z" * 4 * w.ps)
    synced = []
    file.fsync_range = lambda start, end: synced.append((start, end))
    a = w.mmap(2, file=file, flags=SHARED, pgoff=1)
    w.mmap(1, file=file, flags=PRIVATE)
    msync(w.mm, a, 2 * w.ps, 4)
    assert synced == [(w.ps, 3 * w.ps - 1)]
    msync(w.mm, a, 2 * w.ps, 1)
    assert len(synced) == 1
    del file.fsync_range
    fput(file)
    w.end()


def test_remap_is_a_new_fixed_mapping() -> None:
    w = World()
    file = w.file(b"".join(bytes([65 + i]) * w.ps for i in range(4)))
    a = w.mmap(4, file=file, flags=SHARED)
    remap_file_pages(w.mm, a, w.ps, 0, 3, 0)
    assert w.mm.map_count == 2
    assert shmem_read(file.f_mapping, 3 * w.ps, 1) == b"D"
    assert w.page(a).index == 3  # MAP_POPULATE
    remap_file_pages(w.mm, a, w.ps, 0, 0, 0)
    assert w.mm.map_count == 1
    refused(errno.EINVAL, remap_file_pages, w.mm, a, w.ps, 1, 0, 0)
    refused(errno.EINVAL, remap_file_pages, w.mm, a, 0, 0, 0, 0)
    refused(errno.EINVAL, remap_file_pages, w.mm, a, 5 * w.ps, 0, 0, 0)
    refused(errno.EINVAL, remap_file_pages, w.mm, a, w.ps, 0, (1 << 64) - 1, 0)
    private = w.mmap(1, file=file, flags=PRIVATE)
    refused(errno.EINVAL, remap_file_pages, w.mm, private, w.ps, 0, 0, 0)
    s = w.mmap(2, flags=SHARED_ANON)
    remap_file_pages(w.mm, s, w.ps, 0, 1, 0)
    assert w.page(s).index == 1
    fput(file)
    w.end()
