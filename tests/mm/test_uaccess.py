"""The kernel's copies from and to user memory: partial counts, faults on the way, bits the MMU would set."""

import errno

import pytest
from pages_world import GEOMETRIES, RW, RX, WRITE, R, World

from mm.errors import Errno
from mm.uaccess import (
    access_process_vm,
    clear_user,
    copy_from_user,
    copy_from_user_partial,
    copy_to_user,
    copy_to_user_partial,
    fault_in_pages_readable,
    fault_in_pages_writeable,
    get_user,
    put_user,
    strncpy_from_user,
)

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


def efault(function: object, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        function(*args)  # type: ignore[operator]
    assert caught.value.number == errno.EFAULT


@ALL
def test_round_trip_over_pages(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(3)
    data = bytes(range(256)) * (2 * w.ps // 256)
    copy_to_user(w.task, a + 100, data)
    assert copy_from_user(w.task, a + 100, len(data)) == data
    assert w.task.min_flt == 3
    put_user(w.task, a, -2, 8)
    assert get_user(w.task, a, 8) == (1 << 64) - 2
    assert get_user(w.task, a, 1) == 0xFE
    assert clear_user(w.task, a + 1, 2 * w.ps) == 0
    assert copy_from_user(w.task, a, 2) == b"\xfe\0"
    w.end()


@ALL
def test_stops_at_the_first_bad_byte(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(4)
    w.munmap(a + 2 * w.ps, 2)
    copy_to_user(w.task, a, b"x" * 2 * w.ps)
    assert len(copy_from_user_partial(w.task, a + 10, 4 * w.ps)) == 2 * w.ps - 10
    assert copy_to_user_partial(w.task, a + w.ps, b"y" * 2 * w.ps) == w.ps
    efault(copy_from_user, w.task, a + w.ps, w.ps + 1)
    efault(copy_to_user, w.task, a + w.ps, b"z" * (w.ps + 1))
    assert clear_user(w.task, a + 2 * w.ps - 8, 20) == 12
    w.end()


@ALL
def test_protection_is_honoured(geometry: str) -> None:
    w = World(geometry)
    read_only = w.mmap(1, R)
    none = w.mmap(1, 0)
    code = w.mmap(1, RX)
    assert copy_from_user(w.task, read_only, 1) == b"\0"
    efault(copy_to_user, w.task, read_only, b"x")
    efault(copy_from_user, w.task, none, 1)
    efault(copy_to_user, w.task, code, b"x")
    write_only = w.mmap(1, 2)
    copy_to_user(w.task, write_only, b"x")
    assert copy_from_user(w.task, write_only, 1) == b"x"
    w.end()


@ALL
def test_addresses_outside_user_space(geometry: str) -> None:
    w = World(geometry)
    top = w.arch.task_size
    for address in (top, top - 1, 0xFFFFFFFFFFFFFFFF, 0):
        efault(copy_from_user, w.task, address, 2)
        efault(copy_to_user, w.task, address, b"12")
    assert copy_from_user(w.task, 0, 0) == b""
    efault(strncpy_from_user, w.task, top, 10)


@ALL
def test_strings(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(2)
    copy_to_user(w.task, a + w.ps - 3, b"abcdef\0")
    assert strncpy_from_user(w.task, a + w.ps - 3, 100) == b"abcdef"
    assert strncpy_from_user(w.task, a + w.ps - 3, 4) == b"abcd"
    copy_to_user(w.task, a + 2 * w.ps - 4, b"wxyz")
    efault(strncpy_from_user, w.task, a + 2 * w.ps - 4, 100)
    assert strncpy_from_user(w.task, a + 2 * w.ps - 4, 4) == b"wxyz"
    w.end()


def test_accessed_and_dirty_as_the_mmu_sets_them() -> None:
    w = World("x86_64-4k")
    a = w.mmap(1)
    w.fault(a, WRITE)
    index = w.system.words.tolist().index(w.pte(a))
    w.system.words[index] &= ~0x60
    copy_from_user(w.task, a, 1)
    assert w.pte(a) & 0x60 == 0x20
    copy_to_user(w.task, a, b"1")
    assert w.pte(a) & 0x60 == 0x60


def test_arm64_takes_access_flag_faults() -> None:
    w = World("aarch64-4k")
    a = w.mmap(1)
    w.fault(a, WRITE)
    index = w.system.words.tolist().index(w.pte(a))
    w.system.words[index] = w.arch.pte_mkold(w.pte(a))
    faults = w.task.min_flt
    copy_from_user(w.task, a, 1)
    assert w.arch.pte_young(w.pte(a)) and w.task.min_flt == faults + 1


@ALL
def test_a_kernel_write_that_copies_asks_for_a_flush(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1)
    w.fault(a)
    w.mm.tlb_flush_pending = False
    copy_to_user(w.task, a, b"x")  # the user's translation still shows the zero page
    assert w.mm.tlb_flush_pending
    w.end()


@ALL
def test_stack_grows_for_the_kernel_too(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(2, RW, 0x122, addr=0x40000000)
    copy_to_user(w.task, a - w.ps, b"x")
    assert w.mm.mmap is not None and w.mm.mmap.vm_start == a - w.ps
    w.end()


@ALL
def test_peeking_changes_nothing(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(3)
    assert access_process_vm(w.mm, a, 4) == b""
    copy_to_user(w.task, a, b"p" * w.ps)
    before = (w.task.min_flt, w.pte(a), list(w.task.vmacache))
    assert access_process_vm(w.mm, a + w.ps - 2, 10) == b"pp"
    assert (w.task.min_flt, w.pte(a), list(w.task.vmacache)) == before


@ALL
def test_fault_in_pages(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(3)
    assert fault_in_pages_writeable(w.task, a + 10, 2 * w.ps)
    assert w.task.min_flt == 3
    assert fault_in_pages_readable(w.task, a, 3 * w.ps)
    assert w.task.min_flt == 3
    assert not fault_in_pages_readable(w.task, a + 2 * w.ps, w.ps + 1)


@ALL
def test_instruction_cache_hears_of_writes_to_code(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1, 7)
    copy_to_user(w.task, a, b"\x90")
    w.mm.icache_pending.clear()
    copy_to_user(w.task, a, b"\xcc")
    assert w.mm.icache_pending == [a]
