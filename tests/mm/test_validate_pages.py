"""Each check of level 2 finds the corruption it is for: plant it, and read its number in the error."""

from collections.abc import Callable

import pytest
from pages_world import PRIVATE, RW, World

from mm.errors import KernelBug
from mm.flags import PG_MLOCKED, PG_TABLE
from mm.page_alloc import alloc_page
from mm.pgtable import pmd_offset, pte_offset
from mm.types import Page
from mm.uaccess import copy_to_user
from mm.validate_pages import validate_pages, validate_system


class Scene(World):
    """Two processes, anonymous and file pages, a zero page, shared tables of every kind."""

    def __init__(self) -> None:
        super().__init__("x86_64-4k")
        self.f = self.file(b"x" * 4 * self.ps)
        self.anon = self.mmap(4)
        copy_to_user(self.task, self.anon, b"1" * 2 * self.ps)
        self.fault(self.anon + 2 * self.ps)
        self.filed = self.mmap(4, RW, PRIVATE, self.f)
        self.fault(self.filed)
        self.child = self.fork()
        copy_to_user(self.task, self.anon, b"2")

    def index(self, address: int) -> int:
        return pte_offset(self.mm, address)

    def set_pte(self, address: int, entry: int) -> None:
        self.system.words[self.index(address)] = entry


def test_the_scene_is_sound() -> None:
    Scene().check()


def table_bits(s: Scene) -> None:
    s.system.words[pmd_offset(s.mm, s.anon)] |= 1 << 63


def table_frame_unmarked(s: Scene) -> None:
    pfn = s.system.words[pmd_offset(s.mm, s.anon)] >> 12 & 0xFFFFFFF
    page = s.system.mem_map[pfn]
    assert page is not None
    page.flags &= ~PG_TABLE


def table_linked_twice(s: Scene) -> None:
    index = pmd_offset(s.mm, s.anon)
    s.system.words[index - 1] = s.system.words[index]


def pgtables_bytes(s: Scene) -> None:
    s.mm.pgtables_bytes += s.ps


def leaf_outside(s: Scene) -> None:
    index = s.index(s.anon + 3 * s.ps)
    s.system.words[index - 100] = s.pte(s.anon)


def leaf_of_a_free_frame(s: Scene) -> None:
    s.set_pte(s.anon + 3 * s.ps, 0xFFF << 12 | 0x25 | 1 << 63)


def zero_page_not_special(s: Scene) -> None:
    address = s.anon + 2 * s.ps
    s.set_pte(address, s.pte(address) & ~0x200)


def normal_page_special(s: Scene) -> None:
    s.set_pte(s.anon, s.pte(s.anon) | 0x200)


def writable_file_page(s: Scene) -> None:
    s.set_pte(s.filed, s.pte(s.filed) | 2)


def executable_data(s: Scene) -> None:
    s.set_pte(s.anon, s.pte(s.anon) & ~(1 << 63))


def protnone_in_accessible_area(s: Scene) -> None:
    s.set_pte(s.anon, s.arch.pte_modify(s.pte(s.anon), 0x120))


def rss(s: Scene) -> None:
    s.mm.rss_stat[1] += 1


def rss_of_the_task(s: Scene) -> None:
    s.task.rss_stat[3] -= 1


def mapcount(s: Scene) -> None:
    s.page(s.anon).mapcount += 1


def refcount(s: Scene) -> None:
    s.page(s.anon + s.ps).refcount += 1


def cached_elsewhere(s: Scene) -> None:
    s.page(s.filed).index = 99


def rmap_index(s: Scene) -> None:
    s.page(s.anon).index += 1


def rmap_tree(s: Scene) -> None:
    vma = s.mm.mmap
    while vma is not None and vma.vm_start != s.anon:
        vma = vma.vm_next
    assert vma is not None and vma.anon_vma is not None
    vma.anon_vma.rb_root.rb_node = None


def free_twice(s: Scene) -> None:
    s.system.zone.pcp.append(s.system.zone.pcp[0])


def used_and_free(s: Scene) -> None:
    s.system.zone.pcp.append(s.page(s.anon).pfn)


def free_counter(s: Scene) -> None:
    s.system.zone.nr_free_buddy -= 1


def forgotten_frame(s: Scene) -> None:
    s.system.zone.pcp.pop()


def unaligned_block(s: Scene) -> None:
    area = s.system.zone.free_area
    order = max(i for i, blocks in enumerate(area) if blocks)
    pfn = next(iter(area[order]))
    del area[order][pfn]
    area[order][pfn + 1] = None


def nr_mlock(s: Scene) -> None:
    s.page(s.anon).flags |= PG_MLOCKED


def lost_frame(s: Scene) -> None:
    page = alloc_page(s.system, False)
    assert isinstance(page, Page)
    page.mapping = s.page(s.anon).mapping


def lost_table(s: Scene) -> None:
    page = alloc_page(s.system, True)
    assert page is not None
    page.flags |= PG_TABLE


def pte_cache(s: Scene) -> None:
    s.fault(s.anon, "write", present=True)
    s.mm.pte_cache += 512


PLANTED: list[tuple[str, Callable[[Scene], None]]] = [
    ("P1", table_bits),
    ("P1", table_frame_unmarked),
    ("P1", table_linked_twice),
    ("P2", pgtables_bytes),
    ("P3", leaf_outside),
    ("P4", leaf_of_a_free_frame),
    ("P4", zero_page_not_special),
    ("P4", normal_page_special),
    ("P5", writable_file_page),
    ("P5", executable_data),
    ("P5", protnone_in_accessible_area),
    ("P6", rss),
    ("P6", rss_of_the_task),
    ("P7", mapcount),
    ("P8", refcount),
    ("P8", cached_elsewhere),
    ("P9", rmap_index),
    ("P9", rmap_tree),
    ("P10", free_twice),
    ("P10", used_and_free),
    ("P10", free_counter),
    ("P10", forgotten_frame),
    ("P10", unaligned_block),
    ("P11", nr_mlock),
    ("P12", lost_frame),
    ("P12", lost_table),
    ("P13", pte_cache),
]


@pytest.mark.parametrize(("number", "plant"), PLANTED, ids=[f"{n}-{plant.__name__}" for n, plant in PLANTED])
def test_planted_corruption_is_found(number: str, plant: Callable[[Scene], None]) -> None:
    scene = Scene()
    plant(scene)
    with pytest.raises(KernelBug, match=f"^{number}: "):
        validate_system(scene.system, scene.tasks)


def test_a_fault_at_level_2_checks_its_mm() -> None:
    scene = Scene()
    scene.mm.pgtables_bytes += 4096
    with pytest.raises(KernelBug, match="P2"):
        scene.fault(scene.anon + 3 * scene.ps)
    scene.system.validate_level = 0
    assert scene.fault(scene.anon + 3 * scene.ps) is None


def test_every_number_is_planted() -> None:
    import mm.validate_pages

    text = mm.validate_pages.__doc__ or ""
    numbers = {line.split()[0] for line in text.splitlines() if line.startswith("  P")}
    assert numbers == {number for number, _ in PLANTED}


def test_one_address_space_alone() -> None:
    scene = Scene()
    validate_pages(scene.mm, scene.tasks)
