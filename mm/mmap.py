"""mmap and munmap (the main part of Linux's mm/mmap.c).

    do_mmap        refuse what is refused before anything changes; choose the address; make vm_flags
      mmap_region  account, clear the range, merge with a neighbour or make a new area
    do_munmap      split at both edges, detach the areas between, then undo their pages and page tables

The order of the checks is the order in which Linux refuses, and so is visible: a call that is wrong in two ways fails
with the errno of the first check it fails. Refusals raise Errno; where an area had been unmapped to make room before a
refusal, it stays unmapped, as in Linux.

The lookups, limits, merging and linking are in modules of their own: `find_vma.py`, `unmapped_area.py`, `util.py`,
`vma_merge.py`, `vma_adjust.py`, `vma_tree.py`; `brk.py` and `stack.py` are the other two ways an address space grows.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm import memory
from mm.errors import Errno
from mm.find_vma import count_vma_pages_range
from mm.find_vma import find_vma as find_vma
from mm.find_vma import find_vma_intersection as find_vma_intersection
from mm.find_vma import find_vma_links as find_vma_links
from mm.find_vma import find_vma_prev as find_vma_prev
from mm.flags import (
    CAP_SYS_RAWIO,
    MAP_ANONYMOUS,
    MAP_DENYWRITE,
    MAP_EXECUTABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_SYNC,
    MAP_TYPE,
    MAP_UNINITIALIZED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    READ_IMPLIES_EXEC,
    VM_ACCOUNT,
    VM_DENYWRITE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_CLEAR_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_SHARED,
    VM_SPECIAL,
    VM_SYNC,
    VM_WRITE,
)
from mm.lru import lru_add_drain
from mm.stack import expand_stack as expand_stack
from mm.stack import find_extend_vma as find_extend_vma
from mm.types import VmAreaStruct
from mm.util import (
    OVERCOMMIT_NEVER,
    can_do_mlock,
    capable,
    fput,
    get_current,
    get_file,
    may_expand_vm,
    mlock_future_check,
    security_vm_enough_memory_mm,
    update_hiwater_rss,
    update_hiwater_vm,
    vm_stat_account,
    vm_unacct_memory,
    vma_close,
)
from mm.vma_adjust import _split_vma
from mm.vma_tree import is_shared_maywrite, vma_gap_update, vma_link, vma_rb_erase

if TYPE_CHECKING:
    from mm.types import File, MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
_MAX_ERRNO = 4095
_MAX_LFS_FILESIZE = 0x7FFFFFFFFFFFFFFF
_MAP_32BIT = 0x40
_MAP_HUGE_2MB = 21 << 26
_MAP_HUGE_1GB = 30 << 26
FMODE_READ = 1
FMODE_WRITE = 2
F_SEAL_WRITE = 0x0008
F_SEAL_FUTURE_WRITE = 0x0010
O_APPEND = 0o2000

# What MAP_SHARED_VALIDATE accepts of a file that supports no flag of its own; MAP_SHARED ignores the rest.
LEGACY_MAP_MASK = (
    MAP_SHARED
    | MAP_PRIVATE
    | MAP_FIXED
    | MAP_ANONYMOUS
    | MAP_DENYWRITE
    | MAP_EXECUTABLE
    | MAP_UNINITIALIZED
    | MAP_GROWSDOWN
    | MAP_LOCKED
    | MAP_NORESERVE
    | MAP_POPULATE
    | MAP_NONBLOCK
    | MAP_STACK
    | MAP_HUGETLB
    | _MAP_32BIT
    | _MAP_HUGE_2MB
    | _MAP_HUGE_1GB
)


def calc_vm_prot_bits(prot: int) -> int:
    """VM_READ, VM_WRITE and VM_EXEC have the values of PROT_READ, PROT_WRITE and PROT_EXEC."""
    return prot & (PROT_READ | PROT_WRITE | PROT_EXEC)


def _calc_vm_flag_bits(flags: int) -> int:
    """VM_* that MAP_* flags ask for; GROWSDOWN, DENYWRITE and LOCKED have the same values."""
    vm_flags = flags & (MAP_GROWSDOWN | MAP_DENYWRITE | MAP_LOCKED)
    return vm_flags | VM_SYNC if flags & MAP_SYNC else vm_flags


def vma_wants_writenotify(vma: VmAreaStruct, vm_page_prot: int) -> bool:
    """Must the first write to each page of this shared writable area fault, so that someone hears of it?"""
    vm_flags = vma.vm_flags
    if vm_flags & (VM_WRITE | VM_SHARED) != VM_WRITE | VM_SHARED:
        return False
    arch = vma.vm_mm.arch
    ops = vma.vm_ops
    if ops is not None and ops.page_mkwrite is not None:
        return True
    if vm_page_prot != arch.vm_get_page_prot(vm_flags):
        return False  # the protection was chosen elsewhere already
    if arch.VM_SOFTDIRTY and not vm_flags & (arch.VM_SOFTDIRTY | VM_HUGETLB):
        return True  # soft-dirty tracking
    if vm_flags & VM_PFNMAP:
        return False
    file = vma.vm_file
    return file is not None and getattr(file.f_mapping.a_ops, "can_writeback", False)


def vma_set_page_prot(vma: VmAreaStruct) -> None:
    """Set vm_page_prot from vm_flags: what a PTE of this area starts out with."""
    arch = vma.vm_mm.arch
    vm_page_prot = arch.vm_get_page_prot(vma.vm_flags)
    if vma_wants_writenotify(vma, vm_page_prot):
        vm_page_prot = arch.vm_get_page_prot(vma.vm_flags & ~VM_SHARED)
    vma.vm_page_prot = vm_page_prot


def get_unmapped_area(mm: MmStruct, file: File | None, addr: int, length: int, pgoff: int, flags: int) -> int:
    """Address for a new mapping: the hint where that is free, else one the layout chooses; a fixed one is only checked.

    Raises:
        Errno: ENOMEM without room or above the task's addresses, EINVAL for an unaligned fixed address, EPERM below
            mmap_min_addr without CAP_SYS_RAWIO.
    """
    task_size = mm.arch.task_size
    if length > task_size:
        raise Errno(errno.ENOMEM)
    huge_shift = getattr(file, "huge_shift", 0)
    if huge_shift:
        addr = mm.arch.hugetlb_get_unmapped_area(mm, huge_shift, addr, length, flags)
    else:
        addr = mm.get_unmapped_area(mm, file, addr, length, pgoff, flags)
    if addr > _MASK64 - _MAX_ERRNO:  # IS_ERR_VALUE(): a fixed address this high is taken for an errno
        raise Errno(_MASK64 + 1 - addr)
    if addr > task_size - length:
        raise Errno(errno.ENOMEM)
    if addr & (mm.arch.page_size - 1):
        raise Errno(errno.EINVAL)
    if addr < mm.system.mmap_min_addr and not capable(mm, CAP_SYS_RAWIO):
        raise Errno(errno.EPERM)
    return addr


def round_hint_to_min(mm: MmStruct, hint: int) -> int:
    """A hint as it is used: page aligned, and not below mmap_min_addr unless it is no hint at all."""
    hint &= mm.arch.page_mask
    if hint and hint < mm.system.mmap_min_addr:
        return (mm.system.mmap_min_addr + mm.arch.page_size - 1) & mm.arch.page_mask
    return hint


def do_mmap(
    mm: MmStruct, file: File | None, addr: int, length: int, prot: int, flags: int, pgoff: int
) -> tuple[int, int]:
    """Map [pgoff pages into] `file`, or anonymous memory; (address, bytes the caller shall populate).

    Args:
        mm: the current task's address space.
        file: open file, or None for anonymous memory.
        addr: hint, or the address itself with MAP_FIXED.
        length: bytes, any.
        prot: PROT_*.
        flags: MAP_*.
        pgoff: offset into the file, in pages.

    Raises:
        Errno: every errno of mmap(2) that does not concern the file descriptor.
    """
    system = mm.system
    current = get_current(mm)
    if not length:
        raise Errno(errno.EINVAL)
    # A program of the days before NX expects to run what it can read.
    if prot & PROT_READ and current.personality & READ_IMPLIES_EXEC and not (file is not None and _path_noexec(file)):
        prot |= PROT_EXEC
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        addr = round_hint_to_min(mm, addr)
    arch = mm.arch
    length = (length + arch.page_size - 1) & arch.page_mask  # rounding up may overflow to 0
    if not length:
        raise Errno(errno.ENOMEM)
    if pgoff + (length >> arch.page_shift) > _MASK64:
        raise Errno(errno.EOVERFLOW)
    if mm.map_count > system.sysctl_max_map_count:
        raise Errno(errno.ENOMEM)
    addr = get_unmapped_area(mm, file, addr, length, pgoff, flags)
    if flags & MAP_FIXED_NOREPLACE:
        vma = mm.ops.find_vma(mm, addr)
        if vma is not None and vma.vm_start < addr + length:
            raise Errno(errno.EEXIST)
    vm_flags = (
        calc_vm_prot_bits(prot) | _calc_vm_flag_bits(flags) | mm.def_flags | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    )
    if flags & MAP_LOCKED and not can_do_mlock(mm):
        raise Errno(errno.EPERM)
    mlock_future_check(mm, vm_flags, length)
    if file is not None:
        vm_flags = _file_vm_flags(mm, file, length, prot, flags, pgoff, vm_flags)
    elif flags & MAP_TYPE == MAP_SHARED:
        if vm_flags & VM_GROWSDOWN:
            raise Errno(errno.EINVAL)
        pgoff = 0
        vm_flags |= VM_SHARED | VM_MAYSHARE
    elif flags & MAP_TYPE == MAP_PRIVATE:
        pgoff = addr >> arch.page_shift
    else:
        raise Errno(errno.EINVAL)
    if flags & MAP_NORESERVE and (
        system.sysctl_overcommit_memory != OVERCOMMIT_NEVER or getattr(file, "huge_shift", 0)
    ):
        vm_flags |= VM_NORESERVE
    addr = mmap_region(mm, file, addr, length, vm_flags, pgoff)
    if vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE:
        return addr, length
    return addr, 0


def _path_noexec(file: File) -> bool:
    """Is the file on a mount that forbids running programs?"""
    return getattr(file, "path_noexec", False)


def _file_vm_flags(mm: MmStruct, file: File, length: int, prot: int, flags: int, pgoff: int, vm_flags: int) -> int:
    """The checks of do_mmap that concern the file; vm_flags with what sharing adds and the file's mode takes away."""
    if length > _MAX_LFS_FILESIZE or pgoff > (_MAX_LFS_FILESIZE - length) >> mm.arch.page_shift:
        raise Errno(errno.EOVERFLOW)
    kind = flags & MAP_TYPE
    if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
        if kind == MAP_SHARED_VALIDATE and flags & ~(LEGACY_MAP_MASK | MAP_TYPE):
            raise Errno(errno.EOPNOTSUPP)
        writable = file.f_mode & FMODE_WRITE
        if prot & PROT_WRITE and not writable:
            raise Errno(errno.EACCES)
        if getattr(file, "append_only", False) and writable:
            raise Errno(errno.EACCES)
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if not writable:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
        elif (
            getattr(file.f_mapping.private, "seals", 0) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
            and vm_flags & (VM_SHARED | VM_WRITE) == VM_SHARED
        ):
            vm_flags &= ~VM_MAYWRITE  # so that mprotect cannot undo the seal
    elif kind != MAP_PRIVATE:
        raise Errno(errno.EINVAL)
    if not file.f_mode & FMODE_READ:
        raise Errno(errno.EACCES)
    if _path_noexec(file):
        if vm_flags & VM_EXEC:
            raise Errno(errno.EPERM)
        vm_flags &= ~VM_MAYEXEC
    if not getattr(file, "can_mmap", True):
        raise Errno(errno.ENODEV)
    if vm_flags & VM_GROWSDOWN:
        raise Errno(errno.EINVAL)
    return vm_flags


def munmap_vma_range(mm: MmStruct, start: int, length: int) -> tuple[VmAreaStruct | None, Any, bool]:
    """Unmap what is in the way of [start, start + length); the links of a new area there.

    Raises:
        Errno: ENOMEM where an area cannot be split.
    """
    find_vma_links = mm.ops.find_vma_links
    while True:
        links: tuple[VmAreaStruct | None, Any, bool] | None = find_vma_links(mm, start, start + length)
        if links is not None:
            return links
        try:
            do_munmap(mm, start, length)
        except Errno:
            raise Errno(errno.ENOMEM) from None


def mmap_region(mm: MmStruct, file: File | None, addr: int, length: int, vm_flags: int, pgoff: int) -> int:
    """Make [addr, addr + length) an area of `file` or of anonymous memory, replacing what is there.

    Raises:
        Errno: EPERM for a file sealed against writing, ENOMEM by limits or overcommit, whatever the file's mmap says.
    """
    mapping = None
    if file is not None and is_shared_maywrite(vm_flags):
        mapping = file.f_mapping
        if mapping.i_mmap_writable < 0:
            raise Errno(errno.EPERM)
        mapping.i_mmap_writable += 1  # no seal may come between the check and the linking
    try:
        addr = _mmap_region(mm, file, addr, length, vm_flags, pgoff)
    finally:
        if mapping is not None:
            mapping.i_mmap_writable -= 1
    if mm.system.validate_level:
        from mm.validate import validate_mm

        validate_mm(mm)
    return addr


def _accountable_mapping(vm_flags: int) -> bool:
    """Private and writable: its pages must be promised."""
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def _mmap_region(mm: MmStruct, file: File | None, addr: int, length: int, vm_flags: int, pgoff: int) -> int:
    pages = length >> mm.arch.page_shift
    if not may_expand_vm(mm, vm_flags, pages):
        # A fixed mapping may replace pages: count only those it adds.
        replaced = count_vma_pages_range(mm, addr, addr + length)
        if not may_expand_vm(mm, vm_flags, pages - replaced):
            raise Errno(errno.ENOMEM)
    links = munmap_vma_range(mm, addr, length)
    charged = 0
    if _accountable_mapping(vm_flags) and not getattr(file, "huge_shift", 0):
        security_vm_enough_memory_mm(mm, pages)
        charged = pages
        vm_flags |= VM_ACCOUNT
    vma = mm.ops.vma_merge(mm, links[0], addr, addr + length, vm_flags, None, file, pgoff, None, None)
    if vma is None:
        try:
            vma = _new_area(mm, file, addr, length, vm_flags, pgoff, links)
        except Errno:
            vm_unacct_memory(mm.system, charged)
            raise
        vm_flags = vma.vm_flags
    vm_stat_account(mm, vm_flags, pages)
    if vm_flags & VM_LOCKED:
        if vm_flags & VM_SPECIAL:
            vma.vm_flags &= VM_LOCKED_CLEAR_MASK
        else:
            mm.locked_vm += pages
    # A new or grown area is soft-dirty as a whole: whoever tracks changes must not miss the pages it replaced.
    vma.vm_flags |= mm.arch.VM_SOFTDIRTY
    vma_set_page_prot(vma)
    return addr


def _new_area(
    mm: MmStruct,
    file: File | None,
    addr: int,
    length: int,
    vm_flags: int,
    pgoff: int,
    links: tuple[VmAreaStruct | None, Any, bool],
) -> VmAreaStruct:
    """Make and link an area of its own, telling the file or shmem that it is mapped."""
    vma = VmAreaStruct(mm, addr, addr + length, vm_flags, mm.arch.vm_get_page_prot(vm_flags), pgoff)
    prev = links[0]
    if file is None:
        if vm_flags & VM_SHARED:
            from mm.shmem import shmem_zero_setup

            shmem_zero_setup(vma)
        vma_link(mm, vma, *links)
        return vma
    mapping = file.f_mapping
    if vm_flags & VM_DENYWRITE:
        if mapping.i_writecount > 0:
            raise Errno(errno.ETXTBSY)
        mapping.i_writecount -= 1
    try:
        vma.vm_file = get_file(file)
        try:
            file.mmap(vma)
        except Errno:
            vma.vm_file = None
            fput(file)
            unmap_region(mm, vma, prev, vma.vm_start, vma.vm_end)
            raise
        if vm_flags != vma.vm_flags and prev is not None:
            # The file changed the flags; perhaps the area can merge now.
            merged = mm.ops.vma_merge(
                mm, prev, vma.vm_start, vma.vm_end, vma.vm_flags, None, vma.vm_file, vma.vm_pgoff, None, None
            )
            if merged is not None:
                fput(file)
                return merged
        if vma.vm_flags & VM_SPECIAL:  # MAP_LOCKED has no meaning for what the file made of the area
            vma.vm_flags &= VM_LOCKED_CLEAR_MASK
        vma_link(mm, vma, *links)
    finally:
        if vm_flags & VM_DENYWRITE:
            mapping.i_writecount += 1  # vma_link took its own
    return vma


def vm_mmap_pgoff(mm: MmStruct, file: File | None, addr: int, length: int, prot: int, flags: int, pgoff: int) -> int:
    """`do_mmap` and the populating that MAP_POPULATE or a lock asks for; the address."""
    addr, populate = do_mmap(mm, file, addr, length, prot, flags, pgoff)
    if populate:
        from mm.gup import mm_populate

        mm_populate(mm, addr, populate)
    return addr


def vm_mmap(mm: MmStruct, file: File | None, addr: int, length: int, prot: int, flags: int, offset: int) -> int:
    """`vm_mmap_pgoff` with the offset in bytes, for the ELF loader.

    Raises:
        Errno: EINVAL for an offset that overflows or is not page aligned, and those of do_mmap.
    """
    arch = mm.arch
    aligned = (length + arch.page_size - 1) & arch.page_mask
    if offset + aligned > _MASK64 or offset & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    return vm_mmap_pgoff(mm, file, addr, length, prot, flags, offset >> arch.page_shift)


def do_munmap(mm: MmStruct, start: int, length: int, uf: bool = True) -> None:
    """Unmap [start, start + length); gaps in it do not matter. `uf`: userfaultfds that want to know are told.

    Raises:
        Errno: EINVAL for a bad range, ENOMEM where splitting an area would make too many.
    """
    arch = mm.arch
    task_size = arch.task_size
    if start & (arch.page_size - 1) or start > task_size or length > task_size - start:
        raise Errno(errno.EINVAL)
    length = (length + arch.page_size - 1) & arch.page_mask
    end = start + length
    if length == 0:
        raise Errno(errno.EINVAL)
    find_vma = mm.ops.find_vma
    vma = find_vma(mm, start)
    if vma is None:
        return
    prev = vma.vm_prev
    if vma.vm_start >= end:
        return
    # Split off what stays. Only a hole in the middle leaves more areas than before, so only that asks for the limit.
    if start > vma.vm_start:
        if end < vma.vm_end and mm.map_count >= mm.system.sysctl_max_map_count:
            raise Errno(errno.ENOMEM)
        _split_vma(mm, vma, start, False)
        prev = vma
    last = find_vma(mm, end)
    if last is not None and end > last.vm_start:
        _split_vma(mm, last, end, True)
    first = prev.vm_next if prev is not None else mm.mmap
    if first is None:
        return
    if mm.system.userfaultfds and uf:
        from mm.userfaultfd import userfaultfd_unmap_prep

        userfaultfd_unmap_prep(first, start, end)
    if mm.locked_vm:
        _munlock_range(mm, first, end)
    _detach_vmas_to_be_unmapped(mm, first, prev, end)
    unmap_region(mm, first, prev, start, end)
    _remove_vma_list(mm, first)


def _munlock_range(mm: MmStruct, vma: VmAreaStruct | None, end: int) -> None:
    """Unlock the locked areas from `vma` up to `end`, which are about to go."""
    from mm.mlock import munlock_vma_pages_all

    shift = mm.arch.page_shift
    while vma is not None and vma.vm_start < end:
        if vma.vm_flags & VM_LOCKED:
            mm.locked_vm -= (vma.vm_end - vma.vm_start) >> shift
            munlock_vma_pages_all(vma)
        vma = vma.vm_next


def _detach_vmas_to_be_unmapped(mm: MmStruct, vma: VmAreaStruct, prev: VmAreaStruct | None, end: int) -> None:
    """Take the areas from `vma` up to `end` out of tree and list; they remain a list among themselves."""
    vma.vm_prev = None
    tail = vma
    following: VmAreaStruct | None = vma
    while following is not None and following.vm_start < end:
        vma_rb_erase(following, mm)
        mm.map_count -= 1
        tail = following
        following = following.vm_next
    if prev is not None:
        prev.vm_next = following
    else:
        mm.mmap = following
    if following is not None:
        following.vm_prev = prev
        vma_gap_update(following)
    else:
        mm.highest_vm_end = prev.vm_end if prev is not None else 0
    tail.vm_next = None
    mm.vmacache_seqnum += 1


def unmap_region(mm: MmStruct, vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int) -> None:
    """Undo the pages of the detached areas from `vma` in [start, end), and the page tables that only they needed.

    `prev` is the area before them that stays. Page tables are shared with neighbours within reach of one table, so
    they go only between the end of prev and the start of what follows.
    """
    following = prev.vm_next if prev is not None else mm.mmap
    lru_add_drain(mm.system)
    update_hiwater_rss(mm)
    memory.unmap_vmas(mm, vma, start, end)
    memory.free_pgtables(
        mm,
        vma,
        prev.vm_end if prev is not None else 0,
        following.vm_start if following is not None else 0,
    )


def _remove_vma_list(mm: MmStruct, vma: VmAreaStruct | None) -> None:
    """Account for the detached areas and let them go."""
    shift = mm.arch.page_shift
    system = mm.system
    nr_accounted = 0
    update_hiwater_vm(mm)
    while vma is not None:
        pages = (vma.vm_end - vma.vm_start) >> shift
        if vma.vm_flags & VM_ACCOUNT:
            nr_accounted += pages
        vm_stat_account(mm, vma.vm_flags, -pages)
        vma = remove_vma(vma)
    vm_unacct_memory(system, nr_accounted)
    if system.validate_level:
        from mm.validate import validate_areas

        validate_areas(mm)  # mremap has yet to count what it moved


def remove_vma(vma: VmAreaStruct) -> VmAreaStruct | None:
    """Tell owner and file that a detached area is gone; the next of its list."""
    following = vma.vm_next
    system = vma.vm_mm.system
    if system.listener is not None:
        from mm.events import VmaErase

        system.listener(VmaErase.of(vma))
    vma_close(vma)
    if vma.vm_file is not None:
        fput(vma.vm_file)
    return following
