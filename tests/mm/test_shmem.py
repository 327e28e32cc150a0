"""tmpfs: content, size, holes, and what live mappings see of them."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_world import GEOMETRIES, PRIVATE, RW, SHARED, SHARED_ANON, WRITE, R, World

from mm.errors import Errno
from mm.memfd import memfd_add_seals, memfd_get_seals
from mm.shmem import (
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    SEEK_DATA,
    SEEK_HOLE,
    ShmemFile,
    shmem_blocks,
    shmem_fallocate,
    shmem_file_setup,
    shmem_read,
    shmem_seek,
    shmem_truncate,
    shmem_write,
)
from mm.uaccess import copy_from_user, copy_to_user

KEEP_PUNCH = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


def refused(number: int, function: object, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        function(*args)  # type: ignore[operator]
    assert caught.value.number == number


operations = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 5 * 4096), st.binary(max_size=9000)),
    st.tuples(st.just("read"), st.integers(0, 6 * 4096), st.integers(0, 9000)),
    st.tuples(st.just("truncate"), st.integers(0, 6 * 4096), st.just(0)),
    st.tuples(st.just("punch"), st.integers(0, 5 * 4096), st.integers(1, 9000)),
    st.tuples(st.just("allocate"), st.integers(0, 5 * 4096), st.integers(1, 9000)),
)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=10000), st.lists(operations, max_size=12))
def test_a_file_is_a_byte_string(content: bytes, steps: list[tuple[str, int, object]]) -> None:
    w = World(pages=256)
    f = w.file(content)
    m = f.f_mapping
    model = bytearray(content)
    for kind, pos, arg in steps:
        if kind == "write":
            assert isinstance(arg, bytes)
            assert shmem_write(m, pos, arg) == len(arg)
            if arg:
                model.extend(bytes(max(0, pos + len(arg) - len(model))))
                model[pos : pos + len(arg)] = arg
        elif kind == "read":
            assert isinstance(arg, int)
            assert shmem_read(m, pos, arg) == bytes(model[pos : pos + arg])
        elif kind == "truncate":
            shmem_truncate(m, pos)
            del model[pos:]
            model.extend(bytes(pos - len(model)))
        elif kind == "punch":
            assert isinstance(arg, int)
            shmem_fallocate(m, KEEP_PUNCH, pos, arg)
            end = min(pos + arg, len(model))
            if pos < end:
                model[pos:end] = bytes(end - pos)
        else:
            assert isinstance(arg, int)
            shmem_fallocate(m, 0, pos, arg)
            model.extend(bytes(max(0, pos + arg - len(model))))
        assert m.i_size == len(model)
        assert shmem_read(m, 0, 1 << 20) == bytes(model)
    w.check()
    f.release()
    assert w.system.nr_shmem == 0
    w.end()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_mappings_and_calls_see_the_same_bytes(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"abcd")
    shared = w.mmap(1, RW, SHARED, f)
    private = w.mmap(1, RW, PRIVATE, f)
    assert copy_from_user(w.task, shared, 6) == b"abcd\0\0"
    shmem_write(f.f_mapping, 0, b"X")
    assert copy_from_user(w.task, private, 2) == b"Xb"
    copy_to_user(w.task, shared + 1, b"Y")
    assert shmem_read(f.f_mapping, 0, 10) == b"XYcd"
    copy_to_user(w.task, private, b"p")
    shmem_write(f.f_mapping, 1, b"Z")
    assert copy_from_user(w.task, private, 2) == b"pY"  # the copy went its own way
    w.check()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_truncation_under_mappings(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"q" * 4 * w.ps)
    shared = w.mmap(4, RW, SHARED, f)
    private = w.mmap(4, RW, PRIVATE, f)
    for i in range(4):
        w.fault(shared + i * w.ps)
        copy_to_user(w.task, private + i * w.ps, b"c")
    w.mm.tlb_flush_pending = False
    shmem_truncate(f.f_mapping, w.ps + 10)
    assert w.mm.tlb_flush_pending
    assert w.pte(shared + w.ps) and not w.pte(shared + 2 * w.ps)
    assert not w.pte(private + 2 * w.ps)  # truncation takes private copies along
    assert w.fault(shared + 2 * w.ps).signo == 7
    assert copy_from_user(w.task, shared + w.ps + 8, 4) == b"qq\0\0"
    assert w.rss() == [0, 2, 0, 2]
    shmem_truncate(f.f_mapping, 4 * w.ps)
    assert copy_from_user(w.task, shared + 3 * w.ps, 1) == b"\0"
    w.check()


def test_hole_punch_leaves_private_copies() -> None:
    w = World()
    f = w.file(b"q" * 4 * w.ps)
    shared = w.mmap(4, RW, SHARED, f)
    private = w.mmap(4, RW, PRIVATE, f)
    w.fault(shared + w.ps)
    copy_to_user(w.task, private + w.ps, b"c")
    shmem_fallocate(f.f_mapping, KEEP_PUNCH, w.ps, w.ps)
    assert not w.pte(shared + w.ps) and w.pte(private + w.ps)
    assert copy_from_user(w.task, shared + w.ps, 1) == b"\0"
    refused(errno.EOPNOTSUPP, shmem_fallocate, f.f_mapping, 0x10, 0, w.ps)
    w.check()


def test_frames_are_made_only_when_needed() -> None:
    w = World()
    f = w.file(b"z" * 64 * w.ps)
    free = w.system.nr_free_pages()
    assert len(shmem_read(f.f_mapping, 0, 64 * w.ps)) == 64 * w.ps
    assert w.system.nr_free_pages() == free
    a = w.mmap(64, R, PRIVATE, f)
    w.fault(a + 20 * w.ps)
    assert f.f_mapping.nrpages == 16
    assert shmem_blocks(f.f_mapping) == 64 * 8


def test_seek_data_and_hole() -> None:
    w = World()
    f = w.file()
    shmem_truncate(f.f_mapping, 10 * w.ps)
    shmem_write(f.f_mapping, 3 * w.ps, b"d")
    shmem_fallocate(f.f_mapping, 0, 6 * w.ps, w.ps)
    m = f.f_mapping
    assert shmem_seek(m, 0, SEEK_DATA) == 3 * w.ps
    assert shmem_seek(m, 0, SEEK_HOLE) == 0
    assert shmem_seek(m, 3 * w.ps + 5, SEEK_HOLE) == 4 * w.ps
    refused(errno.ENXIO, shmem_seek, m, 5 * w.ps, SEEK_DATA)  # fallocated and never written is a hole
    refused(errno.ENXIO, shmem_seek, m, 10 * w.ps, SEEK_HOLE)


def test_seek_data_in_a_file_of_exabytes() -> None:
    w = World()
    m = w.file().f_mapping
    shmem_truncate(m, 1 << 62)
    shmem_write(m, 1 << 60, b"d")
    assert shmem_seek(m, 0, SEEK_DATA) == 1 << 60
    assert shmem_seek(m, 0, SEEK_HOLE) == 0
    refused(errno.ENXIO, shmem_seek, m, (1 << 60) + w.ps, SEEK_DATA)


def test_accounting_of_shared_anonymous_memory() -> None:
    w = World()
    a = w.mmap(8, RW, SHARED_ANON)
    assert w.system.vm_committed_as == 8
    w.fault(a, WRITE)
    assert w.mm.mmap is not None
    assert w.mm.mmap.vm_file.d_path() == "/dev/zero (deleted)"
    w.end()


def seals_file(w: World) -> ShmemFile:
    f = shmem_file_setup(w.system, "memfd:x", w.ps, 0x200000)
    f.f_mapping.private.seals = 0
    return f


def test_seals() -> None:
    w = World()
    f = seals_file(w)
    memfd_add_seals(f, F_SEAL_SHRINK)
    refused(errno.EPERM, shmem_truncate, f.f_mapping, 0)
    shmem_truncate(f.f_mapping, 2 * w.ps)
    memfd_add_seals(f, F_SEAL_GROW)
    refused(errno.EPERM, shmem_truncate, f.f_mapping, 3 * w.ps)
    assert shmem_write(f.f_mapping, 2 * w.ps - 1, b"12") == 1  # page by page: the first byte still fits
    refused(errno.EPERM, shmem_write, f.f_mapping, 2 * w.ps, b"2")
    refused(errno.EINVAL, memfd_add_seals, f, 0x1000)
    a = w.mmap(1, RW, SHARED, f)
    refused(errno.EBUSY, memfd_add_seals, f, F_SEAL_WRITE)
    w.munmap(a, 1)
    memfd_add_seals(f, F_SEAL_WRITE)
    refused(errno.EPERM, shmem_write, f.f_mapping, 0, b"1")
    refused(errno.EPERM, w.mmap, 1, RW, SHARED, f)
    refused(errno.EPERM, shmem_fallocate, f.f_mapping, KEEP_PUNCH, 0, w.ps)
    memfd_add_seals(f, F_SEAL_SEAL)
    refused(errno.EPERM, memfd_add_seals, f, F_SEAL_SEAL)
    assert memfd_get_seals(f) == F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def test_code_written_through_a_file_reaches_its_mappings() -> None:
    w = World()
    f = w.file(b"\x90" * w.ps)
    a = w.mmap(1, 5, SHARED, f)
    w.fault(a, "exec")
    assert w.mm.icache_pending == [a]
    w.mm.icache_pending.clear()
    shmem_write(f.f_mapping, 0, b"\xcc")
    assert w.mm.icache_pending == [a]
