"""Every validator against a structure with exactly the damage it is there for."""

from typing import Any

import pytest
from draw import areas_of, make_task

from mm.errors import KernelBug
from mm.find_vma import find_vma
from mm.flags import (
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    VM_IO,
    VM_LOCKED,
    VM_MAYWRITE,
)
from mm.mmap import vm_mmap
from mm.rbtree import rb_last
from mm.types import AnonVma, MmStruct, VmAreaStruct
from mm.validate import validate_areas, validate_counters, validate_mm

FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
BASE = 0x10000000


@pytest.fixture
def mm() -> MmStruct:
    """Twelve areas with gaps, most with pages, one shared with a file behind it; the cache filled."""
    task = make_task()
    mm = task.mm
    assert mm is not None
    for index in range(11):
        prot = 3 if index % 2 else 1
        start = BASE + index * 0x5000
        vm_mmap(mm, None, start, 0x3000, 3, FIXED, 0)
        vma = find_vma(mm, start)
        assert vma is not None
        mm.ops.handle_mm_fault(vma, start, FAULT_FLAG_WRITE | FAULT_FLAG_USER)
        vm_mmap(mm, None, start + 0x3000, 0x1000, prot, FIXED, 0)
    vm_mmap(mm, None, BASE + 0x100000, 0x2000, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, 0)
    find_vma(mm, BASE)
    validate_mm(mm)
    return mm


def first(mm: MmStruct) -> VmAreaStruct:
    assert mm.mmap is not None
    return mm.mmap


def second(mm: MmStruct) -> VmAreaStruct:
    vma = first(mm).vm_next
    assert vma is not None
    return vma


def with_pages(mm: MmStruct) -> VmAreaStruct:
    return next(vma for vma in areas_of(mm) if vma.anon_vma is not None)


def of_file(mm: MmStruct) -> Any:
    return next(vma for vma in areas_of(mm) if vma.vm_file is not None)


def set_attribute(thing: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(thing, name, value)


def swap_colours(mm: MmStruct) -> None:
    leaf = rb_last(mm.mm_rb)
    leaf.rb_red = not leaf.rb_red


def hide_from_tree(mm: MmStruct) -> None:
    """Drop a red leaf from the tree without telling the list."""
    leaf = next(vma for vma in areas_of(mm) if vma.rb_red and vma.rb_left is None and vma.rb_right is None)
    if leaf.rb_parent.rb_left is leaf:
        leaf.rb_parent.rb_left = None
    else:
        leaf.rb_parent.rb_right = None


def tangle_i_mmap(mm: MmStruct) -> None:
    of_file(mm).vm_file.f_mapping.i_mmap.rb_node = None


DAMAGE = {
    "I1 prev": ("I1", lambda mm: set_attribute(second(mm), vm_prev=None)),
    "I1 circle": ("I1", lambda mm: set_attribute(second(mm), vm_next=first(mm))),
    "I1 empty": ("I1", lambda mm: set_attribute(first(mm), vm_end=first(mm).vm_start)),
    "I1 unaligned": ("I1", lambda mm: set_attribute(first(mm), vm_start=first(mm).vm_start + 1)),
    "I1 mm": ("I1", lambda mm: set_attribute(first(mm), vm_mm=None)),
    "I2": ("I2", lambda mm: set_attribute(first(mm), vm_end=second(mm).vm_start + 0x1000)),
    "I3 missing": ("I3", hide_from_tree),
    "I3 parent": ("I3", lambda mm: set_attribute(mm.mm_rb.rb_node.rb_left, rb_parent=first(mm))),
    "I4 colour": ("I4", swap_colours),
    "I4 root": ("I4", lambda mm: set_attribute(mm.mm_rb.rb_node, rb_red=True)),
    "I5": ("I5", lambda mm: set_attribute(first(mm), rb_subtree_gap=first(mm).rb_subtree_gap - 0x1000)),
    "I6 count": ("I6", lambda mm: set_attribute(mm, map_count=mm.map_count + 1)),
    "I6 highest": ("I6", lambda mm: set_attribute(mm, highest_vm_end=mm.highest_vm_end + 0x1000)),
    "I7": ("I7", lambda mm: mm.system.current.vmacache.__setitem__(2, VmAreaStruct(mm, 0x1000, 0x2000))),
    "I8 no chain": ("I8", lambda mm: set_attribute(with_pages(mm), anon_vma_chain=[])),
    "I8 no anon_vma": ("I8", lambda mm: set_attribute(with_pages(mm), anon_vma=None)),
    "I8 another anon_vma": ("I8", lambda mm: set_attribute(with_pages(mm), anon_vma=AnonVma())),
    "I8 not in tree": ("I8", lambda mm: set_attribute(with_pages(mm).anon_vma.rb_root, rb_node=None)),
    "I8 owner": ("I8", lambda mm: set_attribute(with_pages(mm).anon_vma_chain[0], vma=second(mm))),
    "I9 counts": ("I9", lambda mm: set_attribute(with_pages(mm).anon_vma, num_active_vmas=-1)),
    "I9 augmentation": ("I9", lambda mm: set_attribute(with_pages(mm).anon_vma_chain[0], rb_subtree_last=0)),
    "I10 link": ("I10", lambda mm: set_attribute(of_file(mm), shared=None)),
    "I10 tree": ("I10", tangle_i_mmap),
    "I10 file": ("I10", lambda mm: set_attribute(of_file(mm), vm_file=None)),
    "I11 total": ("I11", lambda mm: set_attribute(mm, total_vm=mm.total_vm + 1)),
    "I11 data": ("I11", lambda mm: set_attribute(mm, data_vm=mm.data_vm - 1)),
    "I11 exec": ("I11", lambda mm: set_attribute(mm, exec_vm=1)),
    "I11 stack": ("I11", lambda mm: set_attribute(mm, stack_vm=1)),
    "I11 locked": ("I11", lambda mm: set_attribute(first(mm), vm_flags=first(mm).vm_flags | VM_LOCKED)),
    "I12 special": ("I12", lambda mm: set_attribute(first(mm), vm_flags=first(mm).vm_flags | VM_LOCKED | VM_IO)),
    "I12 may": ("I12", lambda mm: set_attribute(first(mm), vm_flags=first(mm).vm_flags & ~VM_MAYWRITE)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(mm: MmStruct, damage: str) -> None:
    number, wound = DAMAGE[damage]
    wound(mm)
    with pytest.raises(KernelBug, match=f"^{number}:") as bug:
        validate_mm(mm)
    assert bug.value.mm is mm


def test_counters_and_areas_are_checked_apart(mm: MmStruct) -> None:
    mm.total_vm += 1
    validate_areas(mm)
    with pytest.raises(KernelBug):
        validate_counters(mm)


def test_mutators_check_at_level_1(mm: MmStruct) -> None:
    mm.map_count += 1
    vm_mmap(mm, None, BASE + 0x200, 0x1000, 3, MAP_PRIVATE | MAP_ANONYMOUS, 0)  # nobody looks
    mm.system.validate_level = 1
    with pytest.raises(KernelBug, match="I6"):
        vm_mmap(mm, None, 0x5000000, 0x1000, 3, FIXED, 0)


def test_checking_leaves_no_trace(mm: MmStruct) -> None:
    task = mm.system.current
    assert task is not None
    before = (list(task.vmacache), task.vmacache_find_calls, mm.vmacache_seqnum)
    validate_mm(mm)
    assert (list(task.vmacache), task.vmacache_find_calls, mm.vmacache_seqnum) == before
