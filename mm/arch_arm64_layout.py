"""Layout of an arm64 address space: Linux's default (mm/util.c and mm/mmap.c), with 48-bit addresses.

Mappings are placed top-down from `mmap_base`, which leaves room below the end of the address space for the stack's
limit and its guard gap, at least 128 MiB. The legacy layout, which an unlimited stack also asks for, places bottom-up
from a quarter of the address space. Where top-down finds no room, bottom-up is tried.

The MMU ignores the top byte of an address (a tag), so memory calls do, too: `untagged_addr`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.find_vma import find_vma_prev, vm_end_gap, vm_start_gap
from mm.flags import ADDR_COMPAT_LAYOUT, MAP_FIXED, RLIM_INFINITY
from mm.unmapped_area import VM_UNMAPPED_AREA_TOPDOWN, VmUnmappedAreaInfo, hugetlb_prepare, vm_unmapped_area
from mm.util import get_current

if TYPE_CHECKING:
    from mm.types import File, MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
_MIN_GAP = 128 << 20


def untagged_addr(addr: int) -> int:
    """The address without its tag: bits 56 to 63 become copies of bit 55, in user space 0."""
    return addr & 0x00FFFFFFFFFFFFFF if not addr >> 55 & 1 else addr


def _task_unmapped_base(mm: MmStruct) -> int:
    arch = mm.arch
    return (arch.task_size // 4 + arch.page_size - 1) & arch.page_mask


def _mmap_base(mm: MmStruct, rnd: int, randomize: bool, rlim_stack: int) -> int:
    arch = mm.arch
    pad = mm.system.stack_guard_gap
    if randomize:
        pad += (0x3FFFF >> (arch.page_shift - 12)) << arch.page_shift  # STACK_RND_MASK
    gap = rlim_stack
    if gap + pad <= _MASK64:
        gap += pad
    max_gap = arch.stack_top // 6 * 5
    if gap < _MIN_GAP < max_gap:
        gap = _MIN_GAP
    elif gap > max_gap:
        gap = max_gap
    return (arch.stack_top - gap - rnd + arch.page_size - 1) & arch.page_mask


def arch_pick_mmap_layout(mm: MmStruct, rlim_stack: int, rnd: int = 0) -> None:
    """Set base and direction of a new address space.

    Args:
        mm: the address space, of the current task.
        rlim_stack: soft limit of the stack, bytes.
        rnd: random offset, bytes, page aligned; 0 where the layout is not randomised.
    """
    system = mm.system
    if (
        get_current(mm).personality & ADDR_COMPAT_LAYOUT
        or rlim_stack == RLIM_INFINITY
        or system.sysctl_legacy_va_layout
    ):
        mm.mmap_base = _task_unmapped_base(mm) + rnd
        mm.get_unmapped_area = arch_get_unmapped_area
    else:
        mm.mmap_base = _mmap_base(mm, rnd, rnd != 0, rlim_stack)
        mm.get_unmapped_area = arch_get_unmapped_area_topdown


def _hint_is_free(mm: MmStruct, addr: int, length: int) -> bool:
    vma, prev = find_vma_prev(mm, addr)
    return (
        mm.arch.task_size - length >= addr >= mm.system.mmap_min_addr
        and (vma is None or addr + length <= vm_start_gap(vma))
        and (prev is None or addr >= vm_end_gap(prev))
    )


def arch_get_unmapped_area(mm: MmStruct, file: File | None, addr: int, length: int, pgoff: int, flags: int) -> int:
    """Address by hint, or bottom-up.

    Raises:
        Errno: ENOMEM without room.
    """
    arch = mm.arch
    if length > arch.task_size - mm.system.mmap_min_addr:
        raise Errno(errno.ENOMEM)
    if flags & MAP_FIXED:
        return addr
    if addr:
        addr = (addr + arch.page_size - 1) & arch.page_mask
        if _hint_is_free(mm, addr, length):
            return addr
    return vm_unmapped_area(mm, VmUnmappedAreaInfo(0, length, mm.mmap_base, arch.task_size))


def hugetlb_get_unmapped_area(mm: MmStruct, shift: int, addr: int, length: int, flags: int) -> int:
    """Address for huge pages of 2**shift bytes (fs/hugetlbfs/inode.c).

    Raises:
        Errno: EINVAL for a length or fixed address between huge pages, ENOMEM without room.
    """
    arch = mm.arch
    mask = (1 << shift) - 1
    if hugetlb_prepare(arch, mask, addr, length, flags):
        return addr
    if addr:
        addr = (addr + mask) & ~mask
        vma = mm.ops.find_vma(mm, addr)
        if arch.task_size - length >= addr and (vma is None or addr + length <= vm_start_gap(vma)):
            return addr
    align_mask = mask & arch.page_mask
    bottom_up = VmUnmappedAreaInfo(0, length, mm.mmap_base, arch.task_size, align_mask)
    if mm.get_unmapped_area is not arch_get_unmapped_area_topdown:
        return vm_unmapped_area(mm, bottom_up)
    low = max(arch.page_size, mm.system.mmap_min_addr)
    try:
        return vm_unmapped_area(mm, VmUnmappedAreaInfo(VM_UNMAPPED_AREA_TOPDOWN, length, low, mm.mmap_base, align_mask))
    except Errno:
        return vm_unmapped_area(mm, bottom_up)


def arch_get_unmapped_area_topdown(
    mm: MmStruct, file: File | None, addr: int, length: int, pgoff: int, flags: int
) -> int:
    """Address by hint, or top-down, or bottom-up.

    Raises:
        Errno: ENOMEM without room.
    """
    arch = mm.arch
    if length > arch.task_size - mm.system.mmap_min_addr:
        raise Errno(errno.ENOMEM)
    if flags & MAP_FIXED:
        return addr
    if addr:
        addr = (addr + arch.page_size - 1) & arch.page_mask
        if _hint_is_free(mm, addr, length):
            return addr
    low = max(arch.page_size, mm.system.mmap_min_addr)
    try:
        return vm_unmapped_area(mm, VmUnmappedAreaInfo(VM_UNMAPPED_AREA_TOPDOWN, length, low, mm.mmap_base))
    except Errno:
        info = VmUnmappedAreaInfo(0, length, _task_unmapped_base(mm), arch.task_size)
        return vm_unmapped_area(mm, info)
