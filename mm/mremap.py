"""mremap: growing, shrinking and moving a mapping (mm/mremap.c).

    shrink          unmap the tail
    grow in place   where the range ends an area and nothing follows
    move            a second area at the new place, page tables moved over, the old range unmapped

Moving never copies a byte: page-table entries change places. The new area has the old one's anon_vmas and the matching
page offset, so that rmap finds the pages at both places while they move. An anonymous area that never had a page takes
the offset of its new address, and so can merge with its new neighbours.

    before   AAAAbbbbAAAA . . . . .         b, the moved part, lies inside an area
    after    AAAA....AAAA . . bbbb .        VM_ACCOUNT is switched off on the area while b is unmapped, because the
                                            promise for b moved along with it
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm import memory
from mm.errors import Errno, KernelBug
from mm.flags import (
    CAP_IPC_LOCK,
    MAP_FIXED,
    MAP_SHARED,
    RLIMIT_MEMLOCK,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_CLEAR_MASK,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_PFNMAP,
    VM_SHARED,
)
from mm.mmap import do_munmap, get_unmapped_area
from mm.rmap import anon_vma_clone
from mm.util import (
    capable,
    get_file,
    may_expand_vm,
    rlimit,
    security_vm_enough_memory_mm,
    vm_acct_memory,
    vm_stat_account,
    vm_unacct_memory,
)
from mm.vma_adjust import _vma_adjust, vm_area_dup
from mm.vma_tree import vma_link

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MREMAP_DONTUNMAP = 4


def copy_vma(vma: VmAreaStruct, addr: int, length: int, pgoff: int) -> tuple[VmAreaStruct, VmAreaStruct]:
    """An area at [addr, addr + length) to move pages of `vma` to, merged with neighbours where that is possible.

    Args:
        vma: area the pages are in.
        addr: new place, free.
        length: bytes.
        pgoff: page offset of the first page that moves.

    Returns:
        (new area, area the pages are in). The second differs from `vma` when the new place touches it, it never had
        a page, and the two became one.

    Raises:
        Errno: ENOMEM where the place is not free.
    """
    mm = vma.vm_mm
    vma_start = vma.vm_start
    faulted_in = True
    if vma.vm_ops is None and vma.anon_vma is None:
        pgoff = addr >> mm.arch.page_shift
        faulted_in = False
    links = mm.ops.find_vma_links(mm, addr, addr + length)
    if links is None:
        raise Errno(errno.ENOMEM)
    new_vma = mm.ops.vma_merge(
        mm,
        links[0],
        addr,
        addr + length,
        vma.vm_flags,
        vma.anon_vma,
        vma.vm_file,
        pgoff,
        vma.vm_policy,
        vma.vm_userfaultfd_ctx,
    )
    if new_vma is not None:
        if new_vma.vm_start <= vma_start < new_vma.vm_end:
            if faulted_in:
                raise KernelBug(f"{new_vma!r} swallowed the area its pages come from", mm)
            return new_vma, new_vma  # source and destination are in one area now
        return new_vma, vma
    new_vma = vm_area_dup(vma)
    new_vma.vm_start = addr
    new_vma.vm_end = addr + length
    new_vma.vm_pgoff = pgoff
    anon_vma_clone(new_vma, vma)
    if new_vma.vm_file is not None:
        get_file(new_vma.vm_file)
    ops = new_vma.vm_ops
    if ops is not None and ops.open is not None:
        ops.open(new_vma)
    vma_link(mm, new_vma, *links)
    return new_vma, vma


def _move_vma(vma: VmAreaStruct, old_addr: int, old_len: int, new_len: int, new_addr: int, flags: int) -> bool:
    """Move [old_addr, old_addr + old_len) of `vma` to [new_addr, new_addr + new_len).

    Returns:
        Is the new area locked, so that the caller must populate what was added?

    Raises:
        Errno: ENOMEM, or what the owner's mremap says; the pages are back where they were.
    """
    mm = vma.vm_mm
    system = mm.system
    shift = mm.arch.page_shift
    vm_flags = vma.vm_flags
    # The move may split the area in three and add the new one.
    if mm.map_count >= system.sysctl_max_map_count - 3:
        raise Errno(errno.ENOMEM)
    if vm_flags & VM_MERGEABLE and vma.anon_vma is not None:
        from mm.ksm import unmerge_ksm_pages

        unmerge_ksm_pages(vma, old_addr, old_addr + old_len)  # what moves is not shared; it may be again afterwards
    new_pgoff = vma.vm_pgoff + ((old_addr - vma.vm_start) >> shift)
    new_vma, vma = copy_vma(vma, new_addr, new_len, new_pgoff)
    error = 0
    moved_len = memory.move_page_tables(vma, old_addr, new_vma, new_addr, old_len)
    if moved_len < old_len:
        error = errno.ENOMEM
    else:
        moved = getattr(vma.vm_ops, "mremap", None)
        if moved is not None:
            error = moved(new_vma)
    if error:
        # Move back what went, and unmap the new area instead of the old.
        memory.move_page_tables(new_vma, new_addr, vma, old_addr, moved_len)
        vma = new_vma
        old_len = new_len
        old_addr = new_addr
    elif new_vma.vm_userfaultfd_ctx is not None:
        from mm.userfaultfd import mremap_userfaultfd_prep

        mremap_userfaultfd_prep(new_vma, old_addr, new_addr, old_len)
    locked = _finish_move(vma, new_vma, vm_flags, old_addr, old_len, new_len, not error and flags & MREMAP_DONTUNMAP)
    if error:
        raise Errno(error)
    return locked


def _finish_move(
    vma: VmAreaStruct, new_vma: VmAreaStruct, vm_flags: int, old_addr: int, old_len: int, new_len: int, keep: int
) -> bool:
    """Account for the moved pages, and unmap the place they left unless it shall be kept (MREMAP_DONTUNMAP)."""
    mm = vma.vm_mm
    system = mm.system
    shift = mm.arch.page_shift
    excess = 0
    split = False
    if vm_flags & VM_ACCOUNT:
        # The promise for the moved pages goes with them: unmapping the old place must not take it back.
        vma.vm_flags &= ~VM_ACCOUNT
        excess = vma.vm_end - vma.vm_start - old_len
        split = vma.vm_start < old_addr and old_addr + old_len < vma.vm_end
    hiwater_vm = mm.hiwater_vm  # both places count for a moment, which is nobody's business
    vm_stat_account(mm, vma.vm_flags, new_len >> shift)
    locked = False
    if keep:
        if vm_flags & VM_ACCOUNT:
            vma.vm_flags |= VM_ACCOUNT
            vm_acct_memory(system, new_len >> shift)
        if split and new_vma is vma:
            split = False
        vma.vm_flags &= VM_LOCKED_CLEAR_MASK
    else:
        try:
            do_munmap(mm, old_addr, old_len)
        except Errno:
            # Both places stay; the promise stands for both.
            vm_unacct_memory(system, excess >> shift)
            excess = 0
        if vm_flags & VM_LOCKED:
            mm.locked_vm += new_len >> shift
            locked = True
    mm.hiwater_vm = hiwater_vm
    if excess:
        vma.vm_flags |= VM_ACCOUNT
        if split and vma.vm_next is not None:
            vma.vm_next.vm_flags |= VM_ACCOUNT
    return locked


def _vma_to_resize(mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int) -> tuple[VmAreaStruct, int]:
    """The area that [addr, addr + old_len) lies in, allowed to become `new_len` long; (area, pages promised for it).

    Raises:
        Errno: EFAULT where the range is not one expandable area, EINVAL, EAGAIN and ENOMEM by flags and limits.
    """
    shift = mm.arch.page_shift
    vma = mm.ops.find_vma(mm, addr)
    if vma is None or vma.vm_start > addr:
        raise Errno(errno.EFAULT)
    if not old_len and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        raise Errno(errno.EINVAL)  # a length of 0 asks for a second view, which private memory has not
    if flags & MREMAP_DONTUNMAP and (vma.vm_ops is not None or vma.vm_flags & VM_SHARED):
        raise Errno(errno.EINVAL)
    if vma.vm_flags & VM_HUGETLB:
        raise Errno(errno.EINVAL)
    if old_len > vma.vm_end - addr:
        raise Errno(errno.EFAULT)
    if new_len == old_len:
        return vma, 0
    pgoff = ((addr - vma.vm_start) >> shift) + vma.vm_pgoff
    if pgoff + (new_len >> shift) > _MASK64:
        raise Errno(errno.EINVAL)
    if vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise Errno(errno.EFAULT)
    # new_len may be the smaller one only where mremap_to() has made the two equal already.
    grow = new_len - old_len
    if vma.vm_flags & VM_LOCKED:
        locked = (mm.locked_vm << shift) + grow
        if locked > rlimit(mm, RLIMIT_MEMLOCK) and not capable(mm, CAP_IPC_LOCK):
            raise Errno(errno.EAGAIN)
    pages = grow >> shift
    if not may_expand_vm(mm, vma.vm_flags, pages):
        raise Errno(errno.ENOMEM)
    if not vma.vm_flags & VM_ACCOUNT:
        return vma, 0
    security_vm_enough_memory_mm(mm, pages)
    return vma, pages


def _mremap_to(mm: MmStruct, addr: int, old_len: int, new_addr: int, new_len: int, flags: int) -> tuple[int, int, bool]:
    """mremap with MREMAP_FIXED or MREMAP_DONTUNMAP; (address, old length that counted, populate what was added?)."""
    task_size = mm.arch.task_size
    system = mm.system
    if (
        new_addr & (mm.arch.page_size - 1)
        or new_len > task_size
        or new_addr > task_size - new_len
        or ((addr + old_len) & _MASK64 > new_addr and new_addr + new_len > addr)
    ):
        raise Errno(errno.EINVAL)
    # The steps below may fail half-way; that there would be too many areas shall not be why.
    if mm.map_count + 2 >= system.sysctl_max_map_count - 3:
        raise Errno(errno.ENOMEM)
    if flags & MREMAP_FIXED:
        do_munmap(mm, new_addr, new_len)
    if old_len >= new_len:
        try:
            do_munmap(mm, addr + new_len, old_len - new_len)
        except Errno:
            if old_len != new_len:  # nothing to unmap is an error of munmap, but none here
                raise
        old_len = new_len
    vma, charged = _vma_to_resize(mm, addr, old_len, new_len, flags)
    if flags & MREMAP_DONTUNMAP and not may_expand_vm(mm, vma.vm_flags, old_len >> mm.arch.page_shift):
        raise Errno(errno.ENOMEM)
    map_flags = MAP_FIXED if flags & MREMAP_FIXED else 0
    if vma.vm_flags & VM_MAYSHARE:
        map_flags |= MAP_SHARED
    try:
        pgoff = vma.vm_pgoff + ((addr - vma.vm_start) >> mm.arch.page_shift)
        place = get_unmapped_area(mm, vma.vm_file, new_addr, new_len, pgoff, map_flags)
        if not flags & MREMAP_FIXED:
            new_addr = place
        locked = _move_vma(vma, addr, old_len, new_len, new_addr, flags)
    except Errno:
        vm_unacct_memory(system, charged)
        raise
    return new_addr, old_len, locked


def _vma_expandable(vma: VmAreaStruct, delta: int) -> bool:
    """Is the space behind `vma` free for `delta` bytes?"""
    end = vma.vm_end + delta
    if end > _MASK64 or (vma.vm_next is not None and vma.vm_next.vm_start < end):
        return False
    try:
        get_unmapped_area(vma.vm_mm, None, vma.vm_start, end - vma.vm_start, 0, MAP_FIXED)
    except Errno:
        return False
    return True


def mremap(mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """Make the mapping at `addr` longer or shorter, or move it; its address (mremap(2)).

    Raises:
        Errno: EINVAL for bad arguments, EFAULT where [addr, addr + old_len) is not one area, EAGAIN and ENOMEM by
            limits or for want of room.
    """
    arch = mm.arch
    addr = arch.untagged_addr(addr)
    if flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP):
        raise Errno(errno.EINVAL)
    if flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE:
        raise Errno(errno.EINVAL)
    if flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or old_len != new_len):
        raise Errno(errno.EINVAL)
    if addr & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    old_len = (old_len + arch.page_size - 1) & arch.page_mask
    new_len = (new_len + arch.page_size - 1) & arch.page_mask
    if not new_len:
        raise Errno(errno.EINVAL)
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        new_addr, _, locked = _mremap_to(mm, addr, old_len, new_addr, new_len, flags)
        result = new_addr
    elif old_len >= new_len:
        try:
            do_munmap(mm, (addr + new_len) & _MASK64, old_len - new_len)
        except Errno:
            if old_len != new_len:
                raise
        return addr
    else:
        result, locked = _grow(mm, addr, old_len, new_len, flags)
        new_addr = result
    if locked and new_len > old_len:
        from mm.gup import mm_populate

        mm_populate(mm, new_addr + old_len, new_len - old_len)
    if mm.system.validate_level:
        from mm.validate import validate_mm

        validate_mm(mm)
    return result


def _grow(mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int) -> tuple[int, bool]:
    """Make a mapping longer, in place or elsewhere; (address, populate what was added?)."""
    arch = mm.arch
    vma, charged = _vma_to_resize(mm, addr, old_len, new_len, flags)
    try:
        if old_len == vma.vm_end - addr and _vma_expandable(vma, new_len - old_len):
            pages = (new_len - old_len) >> arch.page_shift
            _vma_adjust(vma, vma.vm_start, addr + new_len, vma.vm_pgoff)
            vm_stat_account(mm, vma.vm_flags, pages)
            if vma.vm_flags & VM_LOCKED:
                mm.locked_vm += pages
                return addr, True
            return addr, False
        if not flags & MREMAP_MAYMOVE:
            raise Errno(errno.ENOMEM)
        map_flags = MAP_SHARED if vma.vm_flags & VM_MAYSHARE else 0
        pgoff = vma.vm_pgoff + ((addr - vma.vm_start) >> arch.page_shift)
        new_addr = get_unmapped_area(mm, vma.vm_file, 0, new_len, pgoff, map_flags)
        locked = _move_vma(vma, addr, old_len, new_len, new_addr, flags)
    except Errno:
        vm_unacct_memory(mm.system, charged)
        raise
    return new_addr, locked
