"""Anonymous pages without a `Page` (mm/mem_map.py): when one is made, and that nothing else can tell."""

import pickle

import pytest

from mm.errors import KernelBug
from mm.flags import PG_MLOCKED
from mm.mem_map import NEW_ANON_FLAGS
from mm.mlock import mlock
from mm.mprotect import do_mprotect
from mm.page_rmap import rmap_walk
from mm.types import AnonVma, Page
from tests.pages_world import ANON, RWX, WRITE, World

PAGES = 4


class Scene:
    """A process that stored to four pages."""

    def __init__(self, prot: int = 3) -> None:
        self.w = World()
        self.mem_map = self.w.system.mem_map
        self.start = self.w.mmap(PAGES, prot, ANON)
        for number in range(PAGES):
            assert self.w.fault(self.start + number * self.w.ps, WRITE) is None

    def pfn(self, number: int) -> int:
        return int(self.w.arch.pte_pfn(self.w.pte(self.start + number * self.w.ps)))

    def frame(self, number: int) -> object:
        return self.mem_map.frames[self.pfn(number)]


def test_first_touch_makes_no_page() -> None:
    s = Scene()
    assert all(isinstance(s.frame(number), AnonVma) for number in range(PAGES))
    s.w.check()  # looks at every frame, and changes none
    assert all(isinstance(s.frame(number), AnonVma) for number in range(PAGES))


def test_looking_makes_a_copy_and_asking_makes_the_page() -> None:
    s = Scene()
    pfn = s.pfn(2)
    copy = s.mem_map.peek(pfn)
    assert copy is not None and s.mem_map.peek(pfn) is not copy
    page = s.mem_map[pfn]
    assert page is not None and s.mem_map[pfn] is page and s.mem_map.peek(pfn) is page
    for one in (copy, page):
        shown = (one.pfn, one.refcount, one.mapcount, one.flags, one.index)
        assert shown == (pfn, 1, 1, NEW_ANON_FLAGS, (s.start >> 12) + 2)
    assert [address for _, address, _ in rmap_walk(s.w.system, page)] == [s.start + 2 * s.w.ps]
    s.w.check()


@pytest.mark.parametrize("asked", [False, True])
def test_fork_copy_on_write_and_exit_count_the_same_either_way(asked: bool) -> None:
    s = Scene()
    shared = s.pfn(0)
    if asked:
        assert isinstance(s.mem_map[shared], Page)
    parent, child = s.w.task, s.w.fork()
    seen = s.mem_map.peek(shared)
    assert seen is not None and (seen.refcount, seen.mapcount) == (2, 2)
    s.w.switch(child)
    s.w.system.ram[shared * s.w.ps] = 7
    assert s.w.fault(s.start, WRITE, present=True) is None
    assert s.w.system.fault_result == "cow-copy"
    assert s.pfn(0) != shared and s.w.system.ram[s.pfn(0) * s.w.ps] == 7
    s.w.check()
    s.w.switch(parent)
    assert s.w.fault(s.start, WRITE, present=True) is None
    assert s.w.system.fault_result == "cow-reuse" and s.pfn(0) == shared
    assert isinstance(s.frame(0), Page) is asked
    for task in (child, parent):
        s.w.switch(task)
        s.w.munmap(s.start, PAGES)
        s.w.check()
    assert s.mem_map.peek(shared) is None


def test_what_more_is_said_of_a_page_makes_one() -> None:
    s = Scene()
    mlock(s.w.mm, s.start, s.w.ps)
    page = s.frame(0)
    assert isinstance(page, Page) and page.flags & PG_MLOCKED
    s.w.munmap(s.start, 1)
    assert s.w.system.nr_mlock == 0
    do_mprotect(s.w.task, s.start + s.w.ps, s.w.ps, 5)
    assert isinstance(s.frame(1), Page) and s.w.mm.icache_pending == [s.start + s.w.ps]
    assert isinstance(s.frame(2), AnonVma)
    s.w.check()


def test_a_page_one_may_execute_gets_a_page_at_once() -> None:
    s = Scene(RWX)
    assert all(isinstance(s.frame(number), Page) for number in range(PAGES))
    s.w.check()


def test_pickled_and_back() -> None:
    s = Scene()
    s.w.fork()
    again = pickle.loads(pickle.dumps(s.mem_map))
    assert len(again) == len(s.mem_map)
    for number in range(PAGES):
        one, other = again.peek(s.pfn(number)), s.mem_map.peek(s.pfn(number))
        assert one is not None and other is not None
        assert (one.index, one.mapcount, one.refcount) == (other.index, 2, 2)


def test_a_wrong_count_is_found() -> None:
    s = Scene()
    s.mem_map.users[s.pfn(1)] += 1
    with pytest.raises(KernelBug, match="P7"):
        s.w.check()
