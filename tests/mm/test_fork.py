"""fork: anon_vma families, the child's tree, what is copied and what is not, and that nothing stays behind."""

import errno
from typing import Any

import pytest
from draw import GEOMETRIES, areas_of, make_task

from mm.errors import Errno
from mm.find_vma import find_vma
from mm.flags import (
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    VM_DONTCOPY,
    VM_LOCKED,
    VM_WIPEONFORK,
)
from mm.fork import dup_mm, mmput
from mm.memory_rss import sync_mm_rss
from mm.mmap import do_munmap, vm_mmap
from mm.rbtree import rb_nodes
from mm.rmap import find_mergeable_anon_vma
from mm.types import MmStruct, TaskStruct
from mm.validate import validate_mm

BASE = 0x10000000
PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
SHARED = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED


def page(mm: MmStruct, number: int) -> int:
    return BASE + (number << mm.arch.page_shift)


def map_pages(mm: MmStruct, first: int, count: int, prot: int = 3, flags: int = PRIVATE) -> Any:
    vm_mmap(mm, None, page(mm, first), count << mm.arch.page_shift, prot, flags, 0)
    return find_vma(mm, page(mm, first))


def write(mm: MmStruct, number: int) -> None:
    vma = find_vma(mm, page(mm, number))
    assert vma is not None
    assert not mm.ops.handle_mm_fault(vma, page(mm, number), FAULT_FLAG_WRITE | FAULT_FLAG_USER) & 0x73


def fork(task: TaskStruct) -> TaskStruct:
    """A child of the running task."""
    assert task.mm is not None
    child = TaskStruct(task.system)
    child.rlim = task.rlim
    child.mm = dup_mm(child, task.mm)
    return child


def run(task: TaskStruct) -> TaskStruct:
    """Switch to `task`."""
    current = task.system.current
    assert current is not None
    sync_mm_rss(current)
    task.system.current = task
    return task


def leave(task: TaskStruct, then: TaskStruct) -> None:
    """exit() of the running task."""
    assert task.mm is not None
    sync_mm_rss(task)
    mm, task.mm = task.mm, None
    task.system.current = then
    mmput(mm)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_child_has_the_same_areas_in_a_tree_of_ascending_insertions(geometry: str) -> None:
    task = make_task(geometry)
    mm = task.mm
    assert mm is not None
    for number in (30, 10, 20, 50, 40, 70, 60):
        map_pages(mm, number, 3, 1 + (number // 10 & 1) * 2)
    write(mm, 30)
    child = fork(task)
    assert child.mm is not None
    mine, others = areas_of(mm), areas_of(child.mm)
    assert [(v.vm_start, v.vm_end, v.vm_flags, v.vm_pgoff) for v in mine] == [
        (v.vm_start, v.vm_end, v.vm_flags, v.vm_pgoff) for v in others
    ]
    assert [node.vm_start for node in rb_nodes(child.mm.mm_rb)] == [v.vm_start for v in others]
    assert (mm.total_vm, mm.data_vm) == (child.mm.total_vm, child.mm.data_vm)
    ascending = make_task(geometry).mm
    assert ascending is not None
    for number in (10, 20, 30, 40, 50, 60, 70):
        map_pages(ascending, number, 3, 1 + (number // 10 & 1) * 2)

    def colours(node: Any) -> Any:
        return node and (node.vm_start, node.rb_red, colours(node.rb_left), colours(node.rb_right))

    assert colours(child.mm.mm_rb.rb_node) == colours(ascending.mm_rb.rb_node)
    validate_mm(mm)
    validate_mm(child.mm)


def test_what_is_not_inherited() -> None:
    task = make_task()
    mm = task.mm
    assert mm is not None
    map_pages(mm, 0, 2).vm_flags |= VM_DONTCOPY
    wiped = map_pages(mm, 4, 2)
    write(mm, 4)
    wiped.vm_flags |= VM_WIPEONFORK
    locked = map_pages(mm, 8, 2)
    locked.vm_flags |= VM_LOCKED
    mm.locked_vm += 2
    mm.def_flags = VM_LOCKED
    child = fork(task)
    assert child.mm is not None
    validate_mm(child.mm)
    assert [v.vm_start for v in areas_of(child.mm)] == [page(mm, 4), page(mm, 8)]
    blank, unlocked = areas_of(child.mm)
    assert blank.anon_vma is None and not blank.anon_vma_chain
    assert not unlocked.vm_flags & VM_LOCKED and child.mm.locked_vm == 0 and child.mm.def_flags == 0
    assert child.mm.total_vm == 4


def test_parent_and_child_share_no_field_that_changes() -> None:
    """dup_mm() copies every field and resets some: a list or a dictionary among those copied would be a leak."""
    task = make_task()
    child = fork(task)
    assert task.mm is not None and child.mm is not None
    for name, value in vars(child.mm).items():
        if isinstance(value, (list, dict, set)) or name == "mm_rb":
            assert value is not getattr(task.mm, name), name


def test_families_of_anon_vmas() -> None:
    """Parent, child, grandchild: each gets an anon_vma of its own, hanging below the one it comes from."""
    task = make_task()
    assert task.mm is not None
    parent_vma = map_pages(task.mm, 0, 4)
    write(task.mm, 0)
    root = parent_vma.anon_vma
    assert (root.num_children, root.num_active_vmas) == (1, 1)
    child = run(fork(task))
    assert child.mm is not None and child.mm.mmap is not None
    own = child.mm.mmap.anon_vma
    assert own is not None and own is not root and own.root is root and own.parent is root
    assert [avc.anon_vma for avc in child.mm.mmap.anon_vma_chain] == [own, root]
    assert (root.num_children, root.num_active_vmas, root.refcount) == (2, 1, 2)
    assert (own.num_children, own.num_active_vmas) == (0, 1)
    grandchild = run(fork(child))
    assert grandchild.mm is not None and grandchild.mm.mmap is not None
    third = grandchild.mm.mmap.anon_vma
    assert third is not None and third.parent is own
    assert [avc.anon_vma for avc in grandchild.mm.mmap.anon_vma_chain] == [third, own, root]
    assert (root.num_children, own.num_children, root.refcount) == (2, 1, 3)
    # The child in the middle goes. Its anon_vma stays, for the grandchild is in its tree, but gets no new pages.
    run(child)
    leave(child, task)
    assert (own.num_active_vmas, own.num_children) == (0, 1)
    # So a clone of the grandchild takes it over instead of making a fourth.
    run(grandchild)
    heir = fork(grandchild)
    assert heir.mm is not None and heir.mm.mmap is not None
    assert heir.mm.mmap.anon_vma is own and own.num_active_vmas == 1
    assert len(heir.mm.mmap.anon_vma_chain) == 3
    for mm in (task.mm, grandchild.mm, heir.mm):
        validate_mm(mm)
    run(heir)
    leave(heir, grandchild)
    leave(grandchild, task)
    assert (root.num_children, root.num_active_vmas, root.refcount) == (1, 1, 1)


def test_a_line_of_forks_does_not_grow_a_chain_without_end() -> None:
    task = make_task()
    assert task.mm is not None
    map_pages(task.mm, 0, 2)
    write(task.mm, 0)
    for _ in range(20):
        child = run(fork(task))
        run(task)
        leave(task, child)
        task = child
        assert task.mm is not None and task.mm.mmap is not None
        write(task.mm, 0)
        assert len(task.mm.mmap.anon_vma_chain) <= 3


def test_a_neighbour_shares_its_anon_vma_only_with_who_could_merge() -> None:
    task = make_task()
    mm = task.mm
    assert mm is not None
    left = map_pages(mm, 0, 2)
    write(mm, 0)
    right = map_pages(mm, 2, 2, 1)  # read-only now; an mprotect away from the same area
    # VM_ACCOUNT differs, and is not among the flags that mprotect changes: no sharing.
    assert find_mergeable_anon_vma(right) is None
    right.vm_flags |= left.vm_flags & ~3
    assert find_mergeable_anon_vma(right) is left.anon_vma
    apart = map_pages(mm, 6, 2)
    assert find_mergeable_anon_vma(apart) is None
    child = run(fork(task))
    assert child.mm is not None and child.mm.mmap is not None and child.mm.mmap.vm_next is not None
    assert find_mergeable_anon_vma(child.mm.mmap.vm_next) is None  # an inherited chain is not shared


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_nothing_stays_behind(geometry: str) -> None:
    task = make_task(geometry)
    mm = task.mm
    assert mm is not None
    system = task.system
    free = system.nr_free_pages()
    promised = system.vm_committed_as
    map_pages(mm, 0, 8)
    map_pages(mm, 20, 4, 3, SHARED)
    for number in (0, 3, 7, 20, 22):
        write(mm, number)
    children = [fork(task) for _ in range(3)]
    for child in children:
        run(child)
        assert child.mm is not None
        write(child.mm, 3)
        write(child.mm, 21)
        validate_mm(child.mm)
        leave(child, task)
    do_munmap(mm, page(mm, 0), 40 << mm.arch.page_shift)
    sync_mm_rss(task)
    assert mm.rss_stat == [0, 0, 0, 0] and mm.map_count == 0 and mm.pgtables_bytes == 0
    assert system.nr_free_pages() == free
    assert system.vm_committed_as == promised


def test_a_fork_that_may_not_promise_enough_leaves_nothing() -> None:
    task = make_task()
    mm = task.mm
    assert mm is not None
    system = task.system
    map_pages(mm, 0, 4)
    map_pages(mm, 10, 200)
    write(mm, 0)
    free = system.nr_free_pages()
    system.sysctl_overcommit_memory = 2
    system.sysctl_overcommit_kbytes = 250 * 4
    promised = system.vm_committed_as
    with pytest.raises(Errno) as refusal:
        fork(task)
    assert refusal.value.number == errno.ENOMEM
    assert (system.nr_free_pages(), system.vm_committed_as) == (free, promised)
    validate_mm(mm)
