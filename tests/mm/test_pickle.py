"""All state of mm/ can be pickled and copied, however many areas there are, and comes back in the same shape."""

import copy
import mmap as host_mmap
import pickle
from typing import Any

import pytest
from draw import areas_of, make_task

from mm.find_vma import find_vma
from mm.flags import FAULT_FLAG_USER, FAULT_FLAG_WRITE, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED
from mm.fork import dup_mm
from mm.mmap import do_munmap, vm_mmap
from mm.mprotect import do_mprotect_pkey
from mm.types import TaskStruct
from mm.validate import validate_mm

BASE = 0x10000000
RAM = 64 << 20


def busy_task(areas: int) -> TaskStruct:
    """One anonymous mapping, all of it under one anon_vma, cut into `areas`; a shared one; a child."""
    task = make_task(ram=RAM)
    mm = task.mm
    assert mm is not None
    vm_mmap(mm, None, BASE, areas << 12, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0)
    vma = find_vma(mm, BASE)
    assert vma is not None
    mm.ops.handle_mm_fault(vma, BASE, FAULT_FLAG_WRITE | FAULT_FLAG_USER)
    for page in range(1, areas, 2):
        do_mprotect_pkey(mm, BASE + (page << 12), 4096, 1)
    vm_mmap(mm, None, BASE - 0x10000, 0x4000, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, 0)
    child = TaskStruct(task.system)
    child.rlim = task.rlim
    child.mm = dup_mm(child, mm)
    task.child = child  # type: ignore[attr-defined]
    do_munmap(mm, BASE, 4096)  # the cache now holds an area that is gone
    return task


def shape(node: Any) -> Any:
    if node is None:
        return None
    return (node.vm_start, node.rb_red, node.rb_subtree_gap, shape(node.rb_left), shape(node.rb_right))


def check_twin(task: TaskStruct, twin: TaskStruct) -> None:
    twin.system.attach(memoryview(host_mmap.mmap(-1, RAM)))
    for mine, other in ((task.mm, twin.mm), (task.child.mm, twin.child.mm)):  # type: ignore[attr-defined]
        assert mine is not other
        validate_mm(mine)
        validate_mm(other)
        assert shape(mine.mm_rb.rb_node) == shape(other.mm_rb.rb_node)
        for vma, copied in zip(areas_of(mine), areas_of(other), strict=True):
            assert (vma.vm_start, vma.vm_end, vma.vm_flags) == (copied.vm_start, copied.vm_end, copied.vm_flags)
            assert len(vma.anon_vma_chain) == len(copied.anon_vma_chain)
    assert find_vma(twin.mm, BASE + 4096).vm_mm is twin.mm  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("areas", [40, 6000])
def test_pickled(areas: int) -> None:
    task = busy_task(areas)
    check_twin(task, pickle.loads(pickle.dumps(task)))


def test_deeply_copied() -> None:
    task = busy_task(200)
    check_twin(task, copy.deepcopy(task))
