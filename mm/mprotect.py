"""mprotect: changing what may be done with a range (mm/mprotect.c).

A range may cover several areas, and parts of them. For each area it meets, `mprotect_fixup` merges the part with a
neighbour that has the new flags already, or else splits it off; then it sets the flags and rewrites the PTEs. Areas
that were changed before a refusal stay changed.

    AAAAAAAA   mprotect of the middle:  split, split     AAABBBAA
    AAABBBAA   and back:                merge case 6     AAAAAAAA
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm import memory
from mm.errors import Errno
from mm.flags import (
    PROT_EXEC,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_READ,
    PROT_SEM,
    PROT_WRITE,
    READ_IMPLIES_EXEC,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
)
from mm.mmap import calc_vm_prot_bits, vma_set_page_prot, vma_wants_writenotify
from mm.util import (
    get_current,
    may_expand_vm,
    security_vm_enough_memory_mm,
    vm_stat_account,
    vm_unacct_memory,
)
from mm.vma_adjust import set_vma_flags
from mm.vma_merge import vma_modify

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
MM_CP_DIRTY_ACCT = 1  # change_protection(): dirty pages may become writable at once


def mprotect_fixup(vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, newflags: int) -> VmAreaStruct:
    """Give the part [start, end) of `vma` the flags `newflags`; the area the part is now in (or is).

    Args:
        vma: area that contains the part.
        prev: the area before the part: vma's predecessor, or vma itself when start is inside.
        start: bytes, page aligned.
        end: bytes, page aligned.
        newflags: all VM_* of the part, VM_ACCOUNT excepted.

    Raises:
        Errno: ENOMEM by limits, overcommit, or the number of areas.
    """
    mm = vma.vm_mm
    oldflags = vma.vm_flags
    if newflags == oldflags:
        return vma
    nrpages = (end - start) >> mm.arch.page_shift
    charged = 0
    if newflags & VM_WRITE:
        # Readable memory costs nothing; made writable, it counts as data and must be promised.
        if not may_expand_vm(mm, newflags, nrpages) and may_expand_vm(mm, oldflags, nrpages):
            raise Errno(errno.ENOMEM)
        if not oldflags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            security_vm_enough_memory_mm(mm, nrpages)
            charged = nrpages
            newflags |= VM_ACCOUNT
    try:
        vma = vma_modify(vma, prev, start, end, newflags, vma.vm_policy)
    except Errno:
        vm_unacct_memory(mm.system, charged)
        raise
    set_vma_flags(vma, newflags)
    dirty_accountable = vma_wants_writenotify(vma, vma.vm_page_prot)
    vma_set_page_prot(vma)
    memory.change_protection(vma, start, end, vma.vm_page_prot, MM_CP_DIRTY_ACCT if dirty_accountable else 0)
    if oldflags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and newflags & VM_WRITE:
        # Locked private memory must not fault: make its copies now. What fails (a file that ends earlier) is not told.
        from mm.gup import populate_vma_page_range

        populate_vma_page_range(vma, start, end, ignore_errors=True)
    vm_stat_account(mm, oldflags, -nrpages)
    vm_stat_account(mm, newflags, nrpages)
    if mm.system.validate_level:
        from mm.validate import validate_mm

        validate_mm(mm)
    return vma


def do_mprotect_pkey(mm: MmStruct, start: int, length: int, prot: int, pkey: int = -1) -> None:
    """mprotect(2), and pkey_mprotect(2) on a CPU without keys.

    Raises:
        Errno: EINVAL for bad arguments, ENOMEM for a hole in the range or by limits, EACCES for what the mapping
            may never be.
    """
    arch = mm.arch
    start = arch.untagged_addr(start)
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    read_implies_exec = bool(get_current(mm).personality & READ_IMPLIES_EXEC and prot & PROT_READ)
    prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == PROT_GROWSDOWN | PROT_GROWSUP:
        raise Errno(errno.EINVAL)
    if start & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    if not length:
        return
    length = (length + arch.page_size - 1) & arch.page_mask
    end = (start + length) & _MASK64
    if end <= start:
        raise Errno(errno.ENOMEM)
    if prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM):
        raise Errno(errno.EINVAL)
    if pkey != -1:
        raise Errno(errno.EINVAL)  # no key was ever allocated
    vma = mm.ops.find_vma(mm, start)
    if vma is None:
        raise Errno(errno.ENOMEM)
    prev = vma.vm_prev
    if grows & PROT_GROWSDOWN:
        if vma.vm_start >= end:
            raise Errno(errno.ENOMEM)
        start = vma.vm_start
        if not vma.vm_flags & VM_GROWSDOWN:
            raise Errno(errno.EINVAL)
    else:
        if vma.vm_start > start:
            raise Errno(errno.ENOMEM)
        if grows & PROT_GROWSUP:
            raise Errno(errno.EINVAL)  # no area grows up here
    if start > vma.vm_start:
        prev = vma
    _protect_areas(vma, prev, start, end, prot, read_implies_exec)


def _protect_areas(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, reqprot: int, read_implies_exec: bool
) -> None:
    """Go through the areas of [start, end), the first being `vma`; see do_mprotect_pkey."""
    nstart = start
    while True:
        prot = reqprot
        if read_implies_exec and vma.vm_flags & VM_MAYEXEC:
            prot |= PROT_EXEC
        newflags = calc_vm_prot_bits(prot) | (vma.vm_flags & ~VM_ACCESS_FLAGS)
        # VM_MAYREAD and so on lie four bits above what they allow.
        if newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS:
            raise Errno(errno.EACCES)
        part_end = min(vma.vm_end, end)
        prev = mprotect_fixup(vma, prev, nstart, part_end, newflags)
        nstart = max(part_end, prev.vm_end)  # merging may have reached further
        if nstart >= end:
            return
        following = prev.vm_next
        if following is None or following.vm_start != nstart:
            raise Errno(errno.ENOMEM)
        vma = following


def do_mprotect(task: object, start: int, length: int, prot: int) -> None:
    """`do_mprotect_pkey` for a task."""
    do_mprotect_pkey(task.mm, start, length, prot)  # type: ignore[attr-defined]
