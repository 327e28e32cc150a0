"""The program break: the heap that grows and shrinks at one end (brk, from Linux's mm/mmap.c).

    start_brk                brk (bytes)
    |HHHHHHHHHHHHHHHHHHHHHHHHHHhh|          the area ends at brk, rounded up to a page

A refused brk is no error: the call returns the old break.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.find_vma import vm_start_gap
from mm.flags import MAP_FIXED, READ_IMPLIES_EXEC, RLIM_INFINITY, RLIMIT_DATA, VM_ACCOUNT, VM_EXEC, VM_LOCKED
from mm.mmap import do_munmap, get_unmapped_area, munmap_vma_range
from mm.types import VmAreaStruct
from mm.util import get_current, may_expand_vm, mlock_future_check, rlimit, security_vm_enough_memory_mm
from mm.vma_tree import vma_link

if TYPE_CHECKING:
    from mm.types import MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF


def brk(mm: MmStruct, addr: int) -> int:
    """Set the program break to `addr` (bytes); the break that is then in force."""
    arch = mm.arch
    origbrk = mm.brk
    if addr < mm.start_brk or not check_data_rlimit(mm, addr):
        return origbrk
    newbrk = (addr + arch.page_size - 1) & arch.page_mask
    oldbrk = (origbrk + arch.page_size - 1) & arch.page_mask
    if oldbrk == newbrk:
        mm.brk = addr
        return addr
    if addr <= origbrk:
        # The break moves first, so that nobody sees one above the heap's end.
        mm.brk = addr
        try:
            do_munmap(mm, newbrk, oldbrk - newbrk)
        except Errno:
            mm.brk = origbrk
            return origbrk
        return addr
    following = mm.ops.find_vma(mm, oldbrk)
    if following is not None and newbrk + arch.page_size > vm_start_gap(following):
        return origbrk  # a page stays free between the heap and what is above it
    try:
        do_brk_flags(mm, oldbrk, (newbrk - oldbrk) & _MASK64, 0)
    except Errno:
        return origbrk
    mm.brk = addr
    if mm.def_flags & VM_LOCKED:
        from mm.gup import mm_populate

        mm_populate(mm, oldbrk, newbrk - oldbrk)
    return addr


def check_data_rlimit(mm: MmStruct, new_brk: int) -> bool:
    """Is the data segment within RLIMIT_DATA with this break? Counted: initialised data and heap."""
    limit = rlimit(mm, RLIMIT_DATA)
    if limit == RLIM_INFINITY:
        return True
    return ((new_brk - mm.start_brk) & _MASK64) + ((mm.end_data - mm.start_data) & _MASK64) <= limit


def do_brk_flags(mm: MmStruct, addr: int, length: int, flags: int) -> None:
    """Map `length` bytes of private writable memory at `addr`, both page aligned: a small, quick do_mmap.

    Args:
        mm: the address space.
        addr: where; what is mapped there goes.
        length: bytes.
        flags: 0 or VM_EXEC.

    Raises:
        Errno: EINVAL for other flags or a bad address, ENOMEM or EAGAIN by limits.
    """
    if flags & ~VM_EXEC:
        raise Errno(errno.EINVAL)
    arch = mm.arch
    system = mm.system
    pages = length >> arch.page_shift
    flags |= arch.VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags
    if get_current(mm).personality & READ_IMPLIES_EXEC:
        flags |= VM_EXEC
    get_unmapped_area(mm, None, addr, length, 0, MAP_FIXED)
    mlock_future_check(mm, mm.def_flags, length)
    prev, parent, left = munmap_vma_range(mm, addr, length)
    if not may_expand_vm(mm, flags, pages) or mm.map_count > system.sysctl_max_map_count:
        raise Errno(errno.ENOMEM)
    security_vm_enough_memory_mm(mm, pages)
    pgoff = addr >> arch.page_shift
    vma = mm.ops.vma_merge(mm, prev, addr, addr + length, flags, None, None, pgoff, None, None)
    if vma is None:
        vma = VmAreaStruct(mm, addr, addr + length, flags, arch.vm_get_page_prot(flags), pgoff)
        vma_link(mm, vma, prev, parent, left)
    mm.total_vm += pages
    mm.data_vm += pages
    if flags & VM_LOCKED:
        mm.locked_vm += pages
    vma.vm_flags |= arch.VM_SOFTDIRTY
    if system.validate_level:
        from mm.validate import validate_mm

        validate_mm(mm)


def vm_brk_flags(mm: MmStruct, addr: int, request: int, flags: int) -> None:
    """`do_brk_flags` for the ELF loader's .bss: any length, populated where the address space is locked.

    Raises:
        Errno: ENOMEM for a length that overflows, and those of do_brk_flags.
    """
    arch = mm.arch
    length = (request + arch.page_size - 1) & arch.page_mask
    if length < request:
        raise Errno(errno.ENOMEM)
    if not length:
        return
    do_brk_flags(mm, addr, length, flags)
    if mm.def_flags & VM_LOCKED:
        from mm.gup import mm_populate

        mm_populate(mm, addr, length)
