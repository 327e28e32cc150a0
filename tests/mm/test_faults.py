"""Each kind of fault on each geometry: the entry it makes (bits as real kernels print them), rss, tables, counters."""

import pytest
from pages_world import ANON, EXEC, GEOMETRIES, PRIVATE, READ, RW, RWX, RX, SHARED, SHARED_ANON, WRITE, R, World

from mm.events import Fault
from mm.flags import MM_ANONPAGES, MM_SHMEMPAGES
from mm.uaccess import copy_from_user, copy_to_user

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


def bits(world: World, x86: int, arm64: int) -> int:
    return x86 if world.arch.name == "x86_64" else arm64


@ALL
def test_anonymous_read_then_write(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(4)
    assert w.fault(a) is None
    assert w.raw(a) == bits(w, 0x8000000000000225, 0x160000000000FC3)
    assert w.arch.pte_pfn(w.pte(a)) == w.system.zero_pfn
    assert w.rss() == [0, 0, 0, 0]
    assert w.fault(a, WRITE, present=True) is None
    assert w.raw(a) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    assert w.rss()[MM_ANONPAGES] == 1
    assert w.fault(a + w.ps, WRITE) is None
    assert w.raw(a + w.ps) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    assert w.page(a).mapcount == w.page(a).refcount == 1
    assert w.task.min_flt == 3 and w.task.maj_flt == 0
    w.end()


@ALL
def test_executable_and_odd_protections(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(2, RWX)
    w.fault(a, WRITE)
    assert w.raw(a) == bits(w, 0x867, 0xA8000000000F43)
    assert w.mm.icache_pending == [a]
    w.fault(a + w.ps, EXEC)
    assert w.raw(a + w.ps) == bits(w, 0x225, 0x120000000000FC3)
    w.end()


@ALL
def test_tables_are_counted_and_freed(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(2)
    assert w.mm.pgtables_bytes == 0
    w.fault(a)
    counted = len([name for name in w.arch.level_names if name not in ("pgd", "p4d")])
    assert w.mm.pgtables_bytes == counted * w.ps
    w.munmap(a, 2)
    assert w.mm.pgtables_bytes == 0
    w.end()


@ALL
def test_refusals(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1, R)
    unmapped = w.fault(a + 0x100000000 if a < 1 << 40 else a - 0x100000000, READ)
    assert (unmapped.signo, unmapped.si_code) == (11, 1)
    forbidden = w.fault(a, WRITE)
    assert (forbidden.signo, forbidden.si_code) == (11, 2)
    if w.arch.name == "aarch64":
        assert w.fault(a, EXEC).si_code == 2
    none = w.mmap(1, 0)
    assert w.fault(none, READ).si_code == 2
    assert w.task.min_flt == 0
    w.end()


def test_kernel_addresses_are_disguised() -> None:
    w = World("x86_64-4k")
    assert w.arch.do_page_fault(w.task, 4, 0xFFFF800000000000)[:5] == (11, 1, 0xFFFF800000000000, 14, 5)
    w = World("aarch64-4k")
    esr = 0x24 << 26 | 1 << 25 | 1 << 6 | 0x0F
    signal = w.arch.do_page_fault(w.task, esr, 0xFFFF000000001000)
    assert (signal.signo, signal.si_code, signal.error_code) == (11, 1, 0x24 << 26 | 1 << 25 | 1 << 6 | 4)


@pytest.mark.parametrize(
    ("status", "signo", "si_code"), [(0x21, 7, 1), (0x10, 7, 3), (0x18, 7, 3), (0x30, 9, 0x80), (0x35, 7, 3)]
)
def test_arm64_other_aborts(status: int, signo: int, si_code: int) -> None:
    w = World("aarch64-4k")
    a = w.mmap(1)
    signal = w.arch.do_page_fault(w.task, 0x24 << 26 | 1 << 25 | status, a)
    assert (signal.signo, signal.si_code) == (signo, si_code)


def test_arm64_tagged_address() -> None:
    w = World("aarch64-4k")
    a = w.mmap(1)
    assert w.arch.do_page_fault(w.task, 0x24 << 26 | 1 << 25 | 1 << 6 | 7, a | 0xAB << 56) is None
    assert w.pte(a)


@ALL
def test_private_file(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"".join(bytes([65 + i]) * w.ps for i in range(4)))
    a = w.mmap(6, RW, PRIVATE, f)
    w.fault(a)
    around = min(65536 // w.ps, 4)
    read = bits(w, 0x8000000000000025, 0x60000000000FC3)
    assert [w.raw(a + i * w.ps) for i in range(4)] == [read] * around + [0] * (4 - around)
    assert w.rss()[MM_SHMEMPAGES] == around
    assert copy_from_user(w.task, a + w.ps, 2) == b"BB"
    w.fault(a, WRITE, present=True)
    assert w.raw(a) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    assert w.page(a).mapping is w.mm.mmap.anon_vma
    copy_to_user(w.task, a, b"zz")
    assert f.f_mapping.a_ops.find_page(f.f_mapping, 0).mapcount == 0
    assert w.fault(a + 4 * w.ps).signo == 7  # beyond the end of the file
    assert w.rss()[MM_ANONPAGES] == 1
    b = w.mmap(1, RX, PRIVATE, f)
    w.fault(b, EXEC)
    assert w.raw(b) == bits(w, 0x25, 0x20000000000FC3)
    f.f_count = 1
    w.munmap(a, 6)
    w.munmap(b, 1)
    w.check()


@ALL
def test_cow_fault_without_read_before(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"x" * w.ps)
    a = w.mmap(1, RW, PRIVATE, f)
    w.fault(a, WRITE)
    assert w.raw(a) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    assert copy_from_user(w.task, a, 1) == b"x"
    w.check()


@ALL
def test_shared_file(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"x" * 2 * w.ps)
    a = w.mmap(2, RW, SHARED, f)
    w.fault(a, WRITE)
    assert w.raw(a) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    w.fault(a + w.ps)
    assert w.raw(a + w.ps) == bits(w, 0x8000000000000027, 0x68000000000FC3)
    if w.arch.name == "aarch64":  # the write is noticed by a permission fault
        w.fault(a + w.ps, WRITE, present=True)
        assert w.raw(a + w.ps) == 0xE8000000000F43
    assert w.rss()[MM_SHMEMPAGES] == 2
    w.check()


@ALL
def test_shared_anonymous_is_allocated_on_read(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1, RW, SHARED_ANON)
    w.fault(a)
    assert w.raw(a) == bits(w, 0x8000000000000027, 0x68000000000FC3)
    assert w.rss() == [0, 0, 0, 1]
    w.end()


@ALL
def test_spurious_and_access_faults(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(1)
    w.fault(a, WRITE)
    before = w.pte(a)
    assert w.fault(a, WRITE, present=True) is None
    assert w.pte(a) == before
    if w.arch.name == "aarch64":
        index = w.system.words.tolist().index(before)
        w.system.words[index] = w.arch.pte_mkold(before)
        w.fault(a)
        assert w.pte(a) == before
    w.end()


@ALL
def test_stack_grows(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(4, RW, ANON | 0x100, addr=0x40000000)
    seen: list[Fault] = []
    w.system.listener = lambda event: seen.append(event) if isinstance(event, Fault) else None
    assert w.fault(a - 8, WRITE) is None
    assert w.mm.mmap.vm_start == a - w.ps
    assert (seen[-1].stack, seen[-1].result, seen[-1].access, seen[-1].major) == (True, "anon", "write", False)
    w.fault(a - (1 << 30), WRITE)
    assert seen[-1].result == "refused" and seen[-1].signal == 11
    w.system.listener = None
    w.end()


def test_out_of_memory_kills() -> None:
    w = World(pages=64)
    a = w.mmap(128, RW, ANON | 0x4000)
    signals = [w.fault(a + i * w.ps, WRITE) for i in range(128)]
    assert signals[0] is None and signals[-1].signo == 9
    assert w.system.oom_kill > 0
    w.end()


def test_rss_is_split_and_synced_each_64_events() -> None:
    w = World()
    a = w.mmap(200)
    for i in range(65):
        w.fault(a + i * w.ps, WRITE)
    assert w.mm.rss_stat[MM_ANONPAGES] == 0 and w.task.rss_stat[MM_ANONPAGES] == 65
    w.fault(a + 65 * w.ps, WRITE)
    assert w.mm.rss_stat[MM_ANONPAGES] == 65 and w.task.rss_stat[MM_ANONPAGES] == 1
    w.end()
