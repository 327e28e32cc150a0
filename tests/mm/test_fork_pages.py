"""fork: who shares which frame, when a write copies, when it reuses, and what the tables of the child are."""

import pytest
from pages_world import GEOMETRIES, PRIVATE, RW, SHARED, SHARED_ANON, WRITE, World

from mm.uaccess import copy_from_user, copy_to_user

ALL = pytest.mark.parametrize("geometry", GEOMETRIES)


def bits(world: World, x86: int, arm64: int) -> int:
    return x86 if world.arch.name == "x86_64" else arm64


@ALL
def test_copy_on_write(geometry: str) -> None:
    w = World(geometry)
    parent = w.task
    a = w.mmap(3)
    copy_to_user(parent, a, b"parent")
    w.fault(a + w.ps)  # zero page
    w.mm.tlb_flush_pending = False
    child = w.fork()
    assert w.mm.tlb_flush_pending
    assert w.raw(a) == bits(w, 0x8000000000000865, 0xE0000000000FC3)
    w.switch(child)
    assert w.raw(a) == bits(w, 0x8000000000000845, 0xE0000000000BC3)  # old in the child
    assert w.raw(a + w.ps) == bits(w, 0x8000000000000205, 0x160000000000BC3)
    assert w.page(a).mapcount == w.page(a).refcount == 2
    assert w.rss() == [0, 1, 0, 0]
    w.check()
    copy_to_user(child, a, b"child!")
    assert w.page(a).mapcount == 1
    w.switch(parent)
    assert copy_from_user(parent, a, 6) == b"parent"
    page = w.page(a)
    w.fault(a, WRITE, present=True)
    assert w.page(a) is page  # the last user keeps the frame
    assert w.raw(a) == bits(w, 0x8000000000000867, 0xE8000000000F43)
    w.check()
    w.exit(child)
    w.end()


@ALL
def test_shared_mappings_stay_shared(geometry: str) -> None:
    w = World(geometry)
    parent = w.task
    a = w.mmap(1, RW, SHARED_ANON)
    copy_to_user(parent, a, b"1")
    child = w.fork()
    w.switch(child)
    assert w.pte(a) == 0  # no anon_vma: not copied, a fault finds the page
    copy_to_user(child, a, b"2")
    w.switch(parent)
    assert copy_from_user(parent, a, 1) == b"2"
    w.exit(child)
    w.end()


@ALL
def test_private_file_with_and_without_copies(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"f" * 2 * w.ps)
    a = w.mmap(2, RW, PRIVATE, f)
    w.fault(a)
    child = w.fork()
    assert child.mm is not None and child.mm.pgtables_bytes == 0
    w.exit(child)
    copy_to_user(w.task, a, b"x")  # now it has an anon_vma: everything is copied
    child = w.fork()
    w.switch(child)
    assert copy_from_user(child, a, 1) == b"x"
    assert w.mm.pgtables_bytes == w.tasks[0].mm.pgtables_bytes  # type: ignore[union-attr]
    w.check()
    w.switch(w.tasks[0])
    w.exit(child)


def test_writable_shared_entries_are_clean_in_the_child() -> None:
    w = World("aarch64-4k")
    f = w.file(b"f" * w.ps)
    a = w.mmap(1, RW, SHARED, f)
    w.fault(a, WRITE)
    assert w.arch.pte_dirty(w.pte(a))
    # A shared mapping has no anon_vma, so fork copies nothing of it.
    child = w.fork()
    w.switch(child)
    assert w.pte(a) == 0
    w.switch(w.tasks[0])
    w.exit(child)


@ALL
def test_many_generations(geometry: str) -> None:
    w = World(geometry)
    a = w.mmap(4)
    copy_to_user(w.task, a, b"0")
    tasks = [w.task]
    for i in range(1, 6):
        child = w.fork()
        w.switch(child)
        copy_to_user(child, a + (i % 4) * w.ps, bytes([48 + i]))
        tasks.append(child)
        w.check()
    for task in tasks[:0:-2] + tasks[1::2]:
        if task in w.tasks and task is not w.tasks[0]:
            w.switch(w.tasks[0])
            w.exit(task)
            w.check()
    w.switch(w.tasks[0])
    w.end()
