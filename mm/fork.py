"""Making, copying and destroying address spaces (the mm part of Linux's kernel/fork.c, and exit_mmap).

fork copies the list of areas, links each copy into the child's tree as the new rightmost node, and copies page tables
where a fault could not rebuild them; pages become shared, and read-only where they are private. The child's tree thus
has the shape of an insertion in ascending order, whatever the parent's history is.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm import memory
from mm.errors import Errno, KernelBug
from mm.events import VmaInsert
from mm.flags import (
    VM_ACCOUNT,
    VM_DENYWRITE,
    VM_DONTCOPY,
    VM_HUGETLB,
    VM_INIT_DEF_MASK,
    VM_LOCKED,
    VM_LOCKED_CLEAR_MASK,
    VM_WIPEONFORK,
)
from mm.interval_tree import vma_interval_tree_insert_after
from mm.lru import lru_add_drain
from mm.memory_rss import get_mm_rss
from mm.mmap import remove_vma
from mm.pgtable import pgd_alloc, pgd_free
from mm.rmap import anon_vma_fork
from mm.types import MmStruct, RbRoot, SharedNode, VmAreaStruct
from mm.util import fput, get_file, security_vm_enough_memory_mm, vm_stat_account, vm_unacct_memory
from mm.vma_adjust import vm_area_dup
from mm.vma_tree import is_shared_maywrite

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import TaskStruct

MMF_DUMPABLE_MASK = 0x3
MMF_DUMP_FILTER_MASK = 0x1FF << 2
MMF_DISABLE_THP = 1 << 24
MMF_INIT_MASK = MMF_DUMPABLE_MASK | MMF_DUMP_FILTER_MASK | MMF_DISABLE_THP
# Private and shared anonymous memory, ELF headers, private huge pages (/proc/PID/coredump_filter 33).
DEFAULT_DUMP_FILTER = 0x33 << 2


def _mm_init(mm: MmStruct) -> None:
    """What every new address space starts with, whether made or copied."""
    system = mm.system
    mm.mmap = None
    mm.mm_rb = RbRoot()
    mm.vmacache_seqnum = 0
    mm.mm_users = 1
    mm.pgtables_bytes = 0
    mm.map_count = 0
    mm.locked_vm = 0
    mm.pinned_vm = 0
    mm.rss_stat = [0, 0, 0, 0]
    mm.hugetlb_usage = 0
    mm.exe_file = None
    mm.tlb_flush_pending = False
    mm.icache_pending = []
    mm.deposited = []
    mm.ioctx_table = None
    mm.ksm_slot = None
    mm.khugepaged = False
    current = system.current
    parent = current.mm if current is not None else None
    if parent is not None:
        mm.flags = parent.flags & MMF_INIT_MASK
        mm.def_flags = parent.def_flags & VM_INIT_DEF_MASK
    else:
        mm.flags = DEFAULT_DUMP_FILTER
        mm.def_flags = 0
    if not pgd_alloc(mm):
        raise Errno(errno.ENOMEM)


def mm_alloc(system: System) -> MmStruct:
    """An empty address space with a root page table.

    Raises:
        Errno: ENOMEM without a frame for the table.
    """
    mm = MmStruct(system)
    _mm_init(mm)
    return mm


def dup_mm(task: TaskStruct, oldmm: MmStruct) -> MmStruct:
    """A copy of the current task's address space `oldmm`, for the child `task`.

    Raises:
        Errno: ENOMEM when memory cannot be promised or a page table not be had; nothing of the copy is left.
    """
    mm = MmStruct(oldmm.system)
    mm.__dict__.update(oldmm.__dict__)  # whatever _mm_init does not reset is inherited
    mm.saved_auxv = list(oldmm.saved_auxv)
    mm.pkey_allocation_map = oldmm.pkey_allocation_map  # arch_dup_pkeys()
    _mm_init(mm)
    try:
        dup_mmap(mm, oldmm)
    except Errno:
        mm.binfmt = None
        mmput(mm)
        raise Errno(errno.ENOMEM) from None
    mm.hiwater_rss = get_mm_rss(mm)
    mm.hiwater_vm = mm.total_vm
    if mm.system.validate_level:
        from mm.validate import validate_areas, validate_counters

        validate_areas(mm)
        validate_counters(mm)
        validate_areas(oldmm)
    return mm


def dup_mmap(mm: MmStruct, oldmm: MmStruct) -> None:
    """Copy the areas and pages of `oldmm` into the empty `mm`.

    Raises:
        Errno: ENOMEM; the areas copied so far are `mm`'s, to be undone by mmput().
    """
    if oldmm.exe_file is not None:
        mm.exe_file = get_file(oldmm.exe_file)
    mm.total_vm = oldmm.total_vm
    mm.data_vm = oldmm.data_vm
    mm.exec_vm = oldmm.exec_vm
    mm.stack_vm = oldmm.stack_vm
    if oldmm.ksm_slot is not None:
        from mm.ksm import ksm_enter

        ksm_enter(mm)
    if oldmm.khugepaged:
        from mm.khugepaged import khugepaged_enter

        khugepaged_enter(mm)
    shift = mm.arch.page_shift
    prev: VmAreaStruct | None = None
    contexts: dict[int, Any] = {}  # of userfaultfds that follow the fork
    try:
        mpnt = oldmm.mmap
        while mpnt is not None:
            if mpnt.vm_flags & VM_DONTCOPY:
                vm_stat_account(mm, mpnt.vm_flags, -((mpnt.vm_end - mpnt.vm_start) >> shift))
            else:
                prev = _dup_area(mm, oldmm, mpnt, prev, contexts)
            mpnt = mpnt.vm_next
    finally:
        oldmm.tlb_flush_pending = True  # its private pages are read-only now


def _dup_area(
    mm: MmStruct, oldmm: MmStruct, mpnt: VmAreaStruct, prev: VmAreaStruct | None, contexts: dict[int, Any]
) -> VmAreaStruct:
    """Copy one area and link it behind `prev`, the child's last."""
    if mpnt.vm_flags & VM_ACCOUNT:
        security_vm_enough_memory_mm(oldmm, (mpnt.vm_end - mpnt.vm_start) >> mm.arch.page_shift)
    vma = vm_area_dup(mpnt)
    vma.vm_mm = mm
    if vma.vm_userfaultfd_ctx is not None:
        from mm.userfaultfd import dup_userfaultfd

        dup_userfaultfd(vma, contexts)
    if vma.vm_flags & VM_WIPEONFORK:
        vma.anon_vma = None
    else:
        anon_vma_fork(vma, mpnt)
    vma.vm_flags &= VM_LOCKED_CLEAR_MASK
    if vma.vm_flags & VM_HUGETLB:
        vma.vm_private_data = None  # reset_vma_resv_huge_pages(): the pages are promised to the parent alone
    file = vma.vm_file
    if file is not None:
        _dup_file_link(vma, mpnt, file)
    vma.vm_prev = prev
    if prev is None:
        mm.mmap = vma
    else:
        prev.vm_next = vma
    mm.ops.vma_link_rb(mm, vma, prev, False)
    mm.map_count += 1
    if not vma.vm_flags & VM_WIPEONFORK:
        memory.copy_page_range(vma, mpnt)
    ops = vma.vm_ops
    if ops is not None and ops.open is not None:
        ops.open(vma)
    if mm.system.listener is not None:
        mm.system.listener(VmaInsert.of(vma))
    return vma


def _dup_file_link(vma: VmAreaStruct, mpnt: VmAreaStruct, file: Any) -> None:
    """The child's area maps the same file: behind the parent's in i_mmap, so that truncation meets the parent first."""
    get_file(file)
    mapping = file.f_mapping
    if vma.vm_flags & VM_DENYWRITE:
        mapping.i_writecount -= 1
    if is_shared_maywrite(vma.vm_flags):
        mapping.i_mmap_writable += 1
    if mpnt.shared is None:
        raise KernelBug(f"{mpnt!r} maps a file but is not in its i_mmap", mpnt.vm_mm)
    vma.shared = SharedNode(vma)
    vma_interval_tree_insert_after(vma.shared, mpnt.shared, mapping.i_mmap)


def exit_mmap(mm: MmStruct) -> None:
    """Undo all areas, pages and page tables of an address space nobody uses any more."""
    if mm.locked_vm:
        from mm.mlock import munlock_vma_pages_all

        locked = mm.mmap
        while locked is not None:
            if locked.vm_flags & VM_LOCKED:
                munlock_vma_pages_all(locked)
            locked = locked.vm_next
    vma = mm.mmap
    if vma is None:
        return
    lru_add_drain(mm.system)
    memory.unmap_vmas(mm, vma, 0, 0xFFFFFFFFFFFFFFFF)
    memory.free_pgtables(mm, vma, 0, 0)
    shift = mm.arch.page_shift
    nr_accounted = 0
    while vma is not None:
        if vma.vm_flags & VM_ACCOUNT:
            nr_accounted += (vma.vm_end - vma.vm_start) >> shift
        vma = remove_vma(vma)
    vm_unacct_memory(mm.system, nr_accounted)
    mm.mmap = None
    mm.mm_rb = RbRoot()
    mm.map_count = 0


def mmget(mm: MmStruct) -> MmStruct:
    """One more user of an address space."""
    mm.mm_users += 1
    return mm


def mmput(mm: MmStruct) -> None:
    """One user less; the last one destroys the address space.

    Raises:
        KernelBug: pages or page tables are still counted afterwards (check_mm).
    """
    mm.mm_users -= 1
    if mm.mm_users:
        return
    if mm.ioctx_table is not None:
        mm.ioctx_table.exit_aio()
    if mm.ksm_slot is not None:
        from mm.ksm import ksm_exit

        ksm_exit(mm)
    if mm.khugepaged:
        from mm.khugepaged import khugepaged_exit

        khugepaged_exit(mm)
    exit_mmap(mm)
    if mm.exe_file is not None:
        fput(mm.exe_file)
        mm.exe_file = None
    pgd_free(mm)
    if any(mm.rss_stat) or mm.pgtables_bytes:
        raise KernelBug(f"after exit: rss {mm.rss_stat}, page tables {mm.pgtables_bytes} bytes", mm)
