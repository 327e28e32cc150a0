"""KSM without a guest: merging, what ends it, and a model of what every page holds while everything happens at once."""

import pickle
import random
from collections.abc import Callable

import pytest
from pages_world import ANON, GEOMETRIES, RW, World

from mm.errors import Errno, KernelBug
from mm.flags import PG_DIRTY, PG_MLOCKED
from mm.gup import get_user_pages
from mm.ksm import Ksm, ksm_state, set_run, set_while_unshared
from mm.ksm_scan import ksm_do_scan
from mm.ksm_tree import is_chain
from mm.madvise import MADV_FREE, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_PAGEOUT, MADV_UNMERGEABLE, do_madvise
from mm.memory_rss import page_ksm
from mm.mlock import mlock, munlock
from mm.mremap import mremap
from mm.page_rmap import rmap_walk
from mm.pgtable import pte_offset
from mm.rbtree import rb_nodes
from mm.types import AnonVma, Page, StableNode, TaskStruct
from mm.uaccess import copy_from_user, copy_to_user
from mm.validate_pages import validate_system


class KsmWorld(World):
    """A world in which ksmd may run."""

    at = 0  # where a scene has its pages

    def __init__(self, geometry: str = "x86_64-4k", pages: int = 4096) -> None:
        super().__init__(geometry, pages)
        self.ksm: Ksm = ksm_state(self.system)
        self.ksm.run = 1

    def write(self, at: int, number: int, *values: int) -> None:
        """Fill pages from `number` on, each with one value."""
        for offset, value in enumerate(values):
            copy_to_user(self.task, at + (number + offset) * self.ps, bytes([value]) * self.ps)

    def values(self, at: int, count: int) -> list[int]:
        return [int(copy_from_user(self.task, at + i * self.ps, 1)[0]) for i in range(count)]

    def advise(self, at: int, count: int, advice: int = MADV_MERGEABLE) -> None:
        do_madvise(self.mm, at, count * self.ps, advice)

    def passes(self, count: int = 3) -> None:
        for _ in range(count):
            ksm_do_scan(self.ksm, 1 << 40)
            self.check()

    def counts(self) -> tuple[int, int, int, int]:
        ksm = self.ksm
        return ksm.pages_shared, ksm.pages_sharing, ksm.pages_unshared, ksm.pages_volatile

    def mergeable(self, *values: int) -> int:
        at = self.mmap(len(values))
        self.write(at, 0, *values)
        self.advise(at, len(values))
        return at


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equal_pages_become_one(geometry: str) -> None:
    w = KsmWorld(geometry)
    free = w.system.nr_free_pages()
    at = w.mergeable(1, 2, 1, 3, 2, 1)
    used = free - w.system.nr_free_pages()
    w.passes(1)
    assert w.counts() == (0, 0, 0, 6)  # only looked at
    w.passes(1)
    assert w.counts() == (2, 3, 1, 0)
    assert free - w.system.nr_free_pages() == used - 3
    assert w.values(at, 6) == [1, 2, 1, 3, 2, 1]
    page = w.page(at)
    assert page_ksm(page) and page.mapcount == 3 and page.flags & PG_DIRTY and not w.arch.pte_write(w.pte(at))
    assert sorted(address for _, address, _ in rmap_walk(w.system, page)) == [at, at + 2 * w.ps, at + 5 * w.ps]
    w.write(at, 0, 1)  # the same again: nobody compares
    assert w.page(at).mapping.__class__ is AnonVma and page.mapcount == 2
    w.passes(2)
    assert w.counts() == (2, 3, 1, 0)
    w.end()


def test_a_page_that_changes_between_two_passes_is_left_alone() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    for value in range(2, 5):
        w.passes(1)
        w.write(at, 0, value, value)
        assert w.counts() == (0, 0, 0, 2)
    w.passes(1)
    assert w.counts() == (0, 0, 0, 2)
    w.passes(1)
    assert w.counts() == (1, 1, 0, 0)
    w.end()


def test_the_last_user_copies_too() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    w.passes(2)
    kpage = w.page(at)
    w.write(at, 0, 2)
    assert (kpage.mapcount, kpage.refcount) == (1, 1)
    w.write(at, 1, 2)
    assert w.page(at + w.ps) is not kpage  # and its frame is free
    w.passes(2)
    assert w.counts() == (1, 1, 0, 0)
    w.end()


def test_a_page_somebody_holds_is_not_merged() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    held: list[Page] = []
    get_user_pages(w.mm, at, 1, 1, held)
    ksm_do_scan(w.ksm, 1 << 40)
    ksm_do_scan(w.ksm, 1 << 40)
    assert w.ksm.pages_shared == 0
    held[0].refcount -= 1
    w.passes(2)
    assert w.counts() == (1, 1, 0, 0)
    w.end()


def test_chains_keep_the_users_of_a_page_few() -> None:
    w = KsmWorld()
    w.ksm.max_page_sharing = 3
    at = w.mergeable(*[7] * 10)
    w.passes(3)
    # three pages of three users; the last has nobody to share with
    assert (w.ksm.stable_node_chains, w.ksm.stable_node_dups) == (1, 3)
    assert w.counts() == (3, 6, 1, 0)
    w.write(at, 0, *[1, 2, 3, 4, 5, 6])
    w.ksm.jiffies += 10_000  # time to prune
    w.passes(2)
    assert w.values(at, 10) == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7]
    set_run(w.ksm, 2)
    assert (w.ksm.stable_node_chains, w.ksm.stable_node_dups) == (0, 0)
    w.end()


def test_pages_of_zeroes_become_the_zero_page() -> None:
    w = KsmWorld()
    w.ksm.use_zero_pages = 1
    at = w.mergeable(0, 0, 1)
    mlock(w.mm, at, w.ps)
    w.passes(3)
    assert w.arch.pte_pfn(w.pte(at)) == w.arch.pte_pfn(w.pte(at + w.ps)) == w.system.zero_pfn
    assert w.rss()[1] == 1 and w.counts() == (0, 0, 1, 0)
    zero = w.system.mem_map[w.system.zero_pfn]
    assert zero is not None and zero.flags & PG_MLOCKED  # as Linux does; nobody takes the mark away
    w.write(at, 0, 5)
    assert w.values(at, 3) == [5, 0, 1]
    munlock(w.mm, at, w.ps)
    w.check()


def test_fork_exit_and_exec_leave_nothing() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1, 2)
    w.passes(2)
    child = w.fork()
    w.passes(1)
    assert w.counts() == (1, 3, 1, 1)  # page 2 is one page in both: nobody else to merge with
    parent = w.task
    w.switch(child)
    w.write(at, 0, 2)
    w.passes(2)
    assert w.values(at, 3) == [2, 1, 2]
    w.switch(parent)
    w.exit(child)
    assert len(w.ksm.mm_slots) == 3  # ksmd cleans up
    w.passes(1)
    assert len(w.ksm.mm_slots) == 2
    w.exit(parent)
    w.ksm.run = 2
    set_run(w.ksm, 1)
    set_run(w.ksm, 2)
    assert w.ksm.mm_slots == [w.ksm.mm_slots[0]] and w.ksm.rmap_items == 0
    assert w.system.nr_free_pages() == w.free_at_start


def test_an_address_space_without_items_goes_at_once() -> None:
    w = KsmWorld()
    child = w.fork()
    parent = w.task
    w.switch(child)
    w.mergeable(1)
    w.switch(parent)
    w.exit(child)
    assert len(w.ksm.mm_slots) == 1
    w.end()


def test_unmergeable_and_moved_pages_are_copied() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1, 1, 1)
    w.passes(2)
    w.advise(at, 1, MADV_UNMERGEABLE)
    assert not page_ksm(w.page(at)) and page_ksm(w.page(at + w.ps))
    to = w.mmap(2)
    moved = mremap(w.mm, at + 2 * w.ps, 2 * w.ps, 2 * w.ps, 3, to)
    assert moved[0] == to if isinstance(moved, tuple) else moved == to
    assert not page_ksm(w.page(to)) and w.values(to, 2) == [1, 1]
    w.passes(3)
    assert w.counts() == (1, 2, 0, 0)
    w.end()


def test_locked_pages_stay_locked() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1, 1)
    mlock(w.mm, at, 2 * w.ps)
    w.passes(2)
    assert w.system.nr_mlock == 1 and w.page(at) is w.page(at + 2 * w.ps)
    munlock(w.mm, at, w.ps)
    assert w.system.nr_mlock == 1  # the second page's area locks it
    munlock(w.mm, at, 2 * w.ps)
    assert w.system.nr_mlock == 0
    w.end()


def test_a_merged_page_can_be_reclaimed() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    w.passes(2)
    w.write(at, 0, 2)
    w.advise(at + w.ps, 1, MADV_FREE)
    w.advise(at + w.ps, 1, MADV_PAGEOUT)
    assert w.pte(at + w.ps) == 0
    w.passes(1)
    assert w.ksm.pages_shared == 0
    w.end()


def test_huge_pages_are_split_where_parts_are_equal() -> None:
    w = KsmWorld(pages=8192)
    nr = w.arch.hpage_pmd_nr
    at = w.mmap(3 * nr)
    at = (at + w.arch.pmd_size - 1) & -w.arch.pmd_size
    w.advise(at, 2 * nr, MADV_HUGEPAGE)
    w.write(at, 0, 1)
    assert pte_offset(w.mm, at) < 0 and w.rss()[1] == nr  # one entry for all
    w.advise(at, nr)
    w.passes(3)
    assert w.ksm.pages_shared == 2 and w.ksm.pages_sharing == nr - 3  # zeroes: 256 users and 255; and page 0
    assert copy_from_user(w.task, at, 1) == b"\1"
    w.end()


def test_settings_that_need_an_empty_tree() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    w.passes(2)
    for name in ("max_page_sharing", "merge_across_nodes"):
        with pytest.raises(Errno):
            set_while_unshared(w.ksm, name, 0)
        set_while_unshared(w.ksm, name, getattr(w.ksm, name))  # no change, no question
    w.write(at, 0, 1, 1)
    with pytest.raises(Errno):  # ksmd has not noticed
        set_while_unshared(w.ksm, "max_page_sharing", 5)
    set_run(w.ksm, 2)
    set_while_unshared(w.ksm, "max_page_sharing", 5)
    assert w.ksm.max_page_sharing == 5
    w.end()


def test_without_memory_pages_stay_merged() -> None:
    w = KsmWorld()
    at = w.mergeable(1, 1)
    w.passes(2)
    w.system.zone.interceptor = lambda count: False
    with pytest.raises(Errno, match="EAGAIN"):
        w.advise(at, 2, MADV_UNMERGEABLE)
    with pytest.raises(Errno, match="ENOMEM"):
        set_run(w.ksm, 2)
    assert w.ksm.run == 0 and w.counts() == (1, 1, 0, 0)
    w.system.zone.interceptor = None
    w.advise(at, 2, MADV_UNMERGEABLE)
    w.end()


def test_items_are_limited() -> None:
    w = KsmWorld()
    w.mergeable(1, 1)
    w.ksm.rmap_items += 4 * len(w.system.mem_map)
    assert ksm_do_scan(w.ksm, 100) == 0
    w.ksm.rmap_items -= 4 * len(w.system.mem_map)
    w.passes(3)
    assert w.counts() == (1, 1, 0, 0)
    w.end()


# -- everything at once ------------------------------------------------------------------------------------------------


class Model:
    """What each page of each process holds; any number of scans must not change it."""

    def __init__(self, geometry: str, seed: int) -> None:
        self.w = KsmWorld(geometry, 2048)
        self.w.ksm.max_page_sharing = 2 + seed % 5
        self.random = random.Random(seed)
        self.at = self.w.mmap(12)
        self.held: dict[TaskStruct, list[int | None]] = {self.w.task: [None] * 12}

    def step(self) -> None:
        w, choose = self.w, self.random
        task = choose.choice(list(self.held))
        w.switch(task)
        held = self.held[task]
        number = choose.randrange(12)
        count = choose.randrange(1, 13 - number)
        at = self.at + number * w.ps
        action = choose.randrange(12)
        if action < 4:
            value = choose.randrange(3)
            w.write(self.at, number, *[value] * count)
            held[number : number + count] = [value] * count
        elif action < 7:
            w.advise(at, count, MADV_MERGEABLE if action < 6 else MADV_UNMERGEABLE)
        elif action == 7:
            w.munmap(at, count)
            w.mmap(count, RW, ANON, None, 0, at)
            held[number : number + count] = [None] * count
        elif action == 8 and len(self.held) < 4:
            self.held[w.fork()] = list(held)
        elif action == 9 and len(self.held) > 1:
            del self.held[task]
            w.exit(task)
            w.switch(next(iter(self.held)))
        elif action == 10:
            if choose.randrange(2):
                mlock(w.mm, at, count * w.ps)  # makes what is not there
                held[number : number + count] = [value or 0 for value in held[number : number + count]]
            else:
                munlock(w.mm, at, count * w.ps)
        elif choose.randrange(8) == 0:
            set_run(w.ksm, 2)
            set_run(w.ksm, 1)
            w.ksm.use_zero_pages = choose.randrange(2)
        ksm_do_scan(w.ksm, choose.randrange(40))
        w.ksm.jiffies += choose.randrange(400)
        w.check()

    def compare(self) -> None:
        for task, held in self.held.items():
            self.w.switch(task)
            expected = [value or 0 for value in held]
            assert self.w.values(self.at, 12) == expected

    def settle(self) -> None:
        """After some quiet passes pages of one content have as few frames as max_page_sharing allows."""
        w = self.w
        w.ksm.use_zero_pages = 0
        for task in self.held:
            w.switch(task)
            w.advise(self.at, 12, MADV_UNMERGEABLE)
        set_run(w.ksm, 2)
        set_run(w.ksm, 1)
        w.ksm.max_page_sharing = 100
        for task, held in self.held.items():
            w.switch(task)
            w.advise(self.at, 12)
            for number, value in enumerate(held):
                if value is not None:
                    w.write(self.at, number, value)
        w.passes(3)
        pages = [value for held in self.held.values() for value in held if value is not None]
        merged = [value for value in set(pages) if pages.count(value) > 1]
        assert w.ksm.pages_shared == len(merged)
        assert w.ksm.pages_sharing == sum(pages.count(value) - 1 for value in merged)


@pytest.mark.parametrize("seed", range(6))
def test_scans_change_nothing_that_a_program_can_read(seed: int) -> None:
    model = Model(list(GEOMETRIES)[seed % 5], seed)
    for _ in range(60):
        model.step()
    model.compare()
    model.settle()
    model.compare()
    model.w.end()


def test_a_scan_goes_on_after_pickling() -> None:
    w = KsmWorld()
    at = w.mergeable(*[1, 2, 3] * 5)
    child = w.fork()
    w.passes(1)
    ksm_do_scan(w.ksm, 20)
    system = pickle.loads(pickle.dumps(w.system))
    system.attach(memoryview(bytearray(w.host_ram)))
    again = system.ksm
    for ksm in (w.ksm, again):
        ksm_do_scan(ksm, 7)
        ksm_do_scan(ksm, 1 << 40)
        ksm_do_scan(ksm, 1 << 40)
        validate_system(ksm.system)
    assert w.counts()[:2] == (3, 27)
    for name in ("pages_shared", "pages_sharing", "pages_unshared", "rmap_items", "full_scans"):
        assert getattr(again, name) == getattr(w.ksm, name)
    assert [node.kpfn for node in rb_nodes(again.stable_tree)] == [node.kpfn for node in rb_nodes(w.ksm.stable_tree)]
    w.exit(child)
    assert w.values(at, 3) == [1, 2, 3]
    w.end()


# -- planted corruption ------------------------------------------------------------------------------------------------


def scene() -> KsmWorld:
    """Merged pages, a chain, pages in the unstable tree, a pass under way, two processes."""
    w = KsmWorld()
    w.ksm.max_page_sharing = 3
    w.at = w.mergeable(*[1] * 7, 2, 2, 3, 4, 5)
    w.fork()
    w.passes(3)
    ksm_do_scan(w.ksm, 12)
    w.check()
    return w


def writable(w: KsmWorld) -> None:
    index = pte_offset(w.mm, w.at)
    w.system.words[index] = w.arch.pte_mkwrite(w.system.words[index])


def content_changed(w: KsmWorld) -> None:
    first = next(rb_nodes(w.ksm.stable_tree))
    node = next(iter(first.hlist)) if is_chain(first) else first
    w.system.ram[node.kpfn * w.ps] = 255


def wrong_chain(w: KsmWorld) -> None:
    chain = next(node for node in rb_nodes(w.ksm.stable_tree) if is_chain(node))
    next(iter(chain.hlist)).chain = StableNode()


def dups(w: KsmWorld) -> None:
    w.ksm.stable_node_dups += 1


def item_order(w: KsmWorld) -> None:
    item = w.ksm.mm_slots[1].rmap_list
    assert item is not None
    item.address += 1 << 20


def item_flags(w: KsmWorld) -> None:
    item = w.ksm.mm_slots[1].rmap_list
    assert item is not None and item.head is not None
    item.flags = 0


def not_in_the_node(w: KsmWorld) -> None:
    item = w.ksm.mm_slots[1].rmap_list
    assert item is not None and item.head is not None
    del item.head.hlist[item]


def unstable_tree(w: KsmWorld) -> None:
    assert w.ksm.unstable_tree.rb_node is not None
    w.ksm.unstable_tree.rb_node = None


def counter(w: KsmWorld) -> None:
    w.ksm.pages_sharing -= 1


def not_registered(w: KsmWorld) -> None:
    w.mm.ksm_slot = None


def cursor(w: KsmWorld) -> None:
    slot = w.ksm.mm_slots[2]
    w.ksm.mm_slots.remove(slot)
    if w.ksm.mm_slot is not slot:
        w.ksm.mm_slot = slot


PLANTED = [
    ("P17", writable),
    ("P18", content_changed),
    ("P18", wrong_chain),
    ("P18", dups),
    ("P19", item_order),
    ("P19", item_flags),
    ("P19", not_in_the_node),
    ("P19", unstable_tree),
    ("P19", counter),
    ("P20", not_registered),
    ("P20", cursor),
]


@pytest.mark.parametrize(("number", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_planted_corruption_is_found(number: str, plant: Callable[[KsmWorld], None]) -> None:
    w = scene()
    plant(w)
    with pytest.raises(KernelBug, match=f"^{number}: "):
        validate_system(w.system, w.tasks)


def test_every_number_is_planted() -> None:
    import mm.ksm_validate

    text = mm.ksm_validate.__doc__ or ""
    numbers = {line.split()[0] for line in text.splitlines() if line.startswith("P")}
    assert numbers == {number for number, _ in PLANTED}
