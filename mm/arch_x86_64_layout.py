"""Layout of an x86-64 address space: where mappings go when the program does not care (arch/x86/mm/mmap.c,
arch/x86/kernel/sys_x86_64.c).

    0        mmap_min_addr          mmap_legacy_base         mmap_base     stack     task_size_low     task_size
    |--------|-program-brk--> ......|-->  bottom-up    top-down  <--|..gap..|.<--|    | only by hint above: la57 |

Mappings are placed top-down from `mmap_base`, which leaves room for the stack's limit and its guard gap, at least
128 MiB. With no room left, or in the legacy layout, they are placed bottom-up from `mmap_legacy_base`, a third of the
window.

With five-level page tables addresses go up to 2^56, but a program that never asks gets none above 2^47: only a hint
above the default window opens the rest, because programs use high pointer bits for their own purposes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.find_vma import vm_start_gap
from mm.flags import ADDR_COMPAT_LAYOUT, MAP_32BIT, MAP_FIXED
from mm.unmapped_area import VM_UNMAPPED_AREA_TOPDOWN, VmUnmappedAreaInfo, hugetlb_prepare, vm_unmapped_area
from mm.util import get_current

if TYPE_CHECKING:
    from mm.types import File, MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
_SIZE_128M = 128 << 20
_STACK_RND_MASK = 0x3FFFFF  # pages: 16 GiB
_LOW_BEGIN, _LOW_END = 0x40000000, 0x80000000  # MAP_32BIT: the second GiB
_LOW_RND = 0x02000000  # whose start moves by up to so much, anew for each call


def untagged_addr(addr: int) -> int:
    """The CPU ignores no address bits."""
    return addr


def _mmap_base(mm: MmStruct, rnd: int, randomize: bool, rlim_stack: int) -> int:
    arch = mm.arch
    task_size = arch.task_size_low
    pad = mm.system.stack_guard_gap
    if randomize:
        pad += _STACK_RND_MASK << arch.page_shift
    gap = rlim_stack
    if gap + pad <= _MASK64:  # an unlimited stack would overflow
        gap += pad
    gap = min(max(gap, _SIZE_128M), task_size // 6 * 5)
    return (task_size - gap - rnd + arch.page_size - 1) & arch.page_mask & _MASK64


def arch_pick_mmap_layout(mm: MmStruct, rlim_stack: int, rnd: int = 0) -> None:
    """Set bases and direction of a new address space.

    Args:
        mm: the address space, of the current task.
        rlim_stack: soft limit of the stack, bytes.
        rnd: random offset, bytes, page aligned; 0 where the layout is not randomised.
    """
    arch = mm.arch
    system = mm.system
    legacy = bool(get_current(mm).personality & ADDR_COMPAT_LAYOUT) or bool(system.sysctl_legacy_va_layout)
    mm.mmap_legacy_base = ((arch.task_size_low // 3 + arch.page_size - 1) & arch.page_mask) + rnd
    if legacy:
        mm.mmap_base = mm.mmap_legacy_base
        mm.get_unmapped_area = arch_get_unmapped_area
    else:
        mm.mmap_base = _mmap_base(mm, rnd, rnd != 0, rlim_stack)
        mm.get_unmapped_area = arch_get_unmapped_area_topdown


def arch_get_unmapped_area(mm: MmStruct, file: File | None, addr: int, length: int, pgoff: int, flags: int) -> int:
    """Address by hint, or bottom-up. Also what MAP_32BIT and a failed top-down search use.

    Raises:
        Errno: ENOMEM without room.
    """
    arch = mm.arch
    if flags & MAP_FIXED:
        return addr
    if flags & MAP_32BIT:
        begin, end = get_current(mm).randomize_page(_LOW_BEGIN, _LOW_RND), _LOW_END
    else:
        begin = mm.mmap_legacy_base
        end = arch.task_size if addr > arch.task_size_low else arch.task_size_low
    if length > end:
        raise Errno(errno.ENOMEM)
    if addr:
        addr = (addr + arch.page_size - 1) & arch.page_mask
        vma = mm.ops.find_vma(mm, addr)
        if end - length >= addr and (vma is None or addr + length <= vm_start_gap(vma)):
            return addr
    info = VmUnmappedAreaInfo(0, length, begin, end)
    info.align_offset = pgoff << arch.page_shift
    return vm_unmapped_area(mm, info)


def _mmap_address_hint_valid(mm: MmStruct, addr: int, length: int) -> bool:
    """A hint must fit below the end of all, and not straddle the end of the default window."""
    arch = mm.arch
    if arch.task_size - length < addr:
        return False
    window = arch.task_size_low
    return (addr > window) == (addr + length > window)


def hugetlb_get_unmapped_area(mm: MmStruct, shift: int, addr: int, length: int, flags: int) -> int:
    """Address for huge pages of 2**shift bytes (arch/x86/mm/hugetlbpage.c).

    Raises:
        Errno: EINVAL for a length or fixed address between huge pages, ENOMEM without room.
    """
    arch = mm.arch
    mask = (1 << shift) - 1
    if hugetlb_prepare(arch, mask, addr, length, flags):
        return addr
    if addr:
        addr &= ~mask
        if _mmap_address_hint_valid(mm, addr, length):
            vma = mm.ops.find_vma(mm, addr)
            if vma is None or addr + length <= vm_start_gap(vma):
                return addr
    align_mask = mask & arch.page_mask
    if mm.get_unmapped_area is arch_get_unmapped_area:
        end = arch.task_size if addr > arch.task_size_low else arch.task_size_low
        return vm_unmapped_area(mm, VmUnmappedAreaInfo(0, length, mm.mmap_legacy_base, end, align_mask))
    info = VmUnmappedAreaInfo(VM_UNMAPPED_AREA_TOPDOWN, length, arch.page_size, mm.mmap_base, align_mask)
    if addr > arch.task_size_low:
        info.high_limit += arch.task_size - arch.task_size_low
    try:
        return vm_unmapped_area(mm, info)
    except Errno:
        low = (arch.task_size_low // 3 + arch.page_size - 1) & arch.page_mask  # TASK_UNMAPPED_BASE
        return vm_unmapped_area(mm, VmUnmappedAreaInfo(0, length, low, arch.task_size_low, align_mask))


def arch_get_unmapped_area_topdown(
    mm: MmStruct, file: File | None, addr0: int, length: int, pgoff: int, flags: int
) -> int:
    """Address by hint, or top-down, or bottom-up.

    Raises:
        Errno: ENOMEM without room.
    """
    arch = mm.arch
    if length > arch.task_size:
        raise Errno(errno.ENOMEM)
    addr = addr0
    if flags & MAP_FIXED:
        return addr
    if not flags & MAP_32BIT:
        if addr:
            addr &= arch.page_mask
            if _mmap_address_hint_valid(mm, addr, length):
                vma = mm.ops.find_vma(mm, addr)
                if vma is None or addr + length <= vm_start_gap(vma):
                    return addr
        info = VmUnmappedAreaInfo(VM_UNMAPPED_AREA_TOPDOWN, length, arch.page_size, mm.mmap_base)
        if addr > arch.task_size_low:
            info.high_limit += arch.task_size - arch.task_size_low
        info.align_offset = pgoff << arch.page_shift
        try:
            return vm_unmapped_area(mm, info)
        except Errno:
            pass  # no room below the stack: look above, and between
    return arch_get_unmapped_area(mm, file, addr0, length, pgoff, flags)
