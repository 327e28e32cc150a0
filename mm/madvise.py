"""Advice about memory (mm/madvise.c), with the parts of mm/ksm.c and mm/khugepaged.c that advice reaches.

Three kinds of advice, each applied area by area:

    flags     NORMAL RANDOM SEQUENTIAL (DONT|DO)FORK (WIPE|KEEP)ONFORK DONTDUMP DODUMP (UN)MERGEABLE (NO)HUGEPAGE
              change vm_flags, so the area is split and merged as by mprotect
    contents  DONTNEED (pages go), FREE (pages may go), REMOVE (a hole in the file), WILLNEED (nothing to read in here)
    ageing    COLD (entries become old), PAGEOUT (what can be written back or dropped, is)

Holes in the range do not stop the walk; the call ends with ENOMEM when there was one.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import (
    CAP_SYS_ADMIN,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
)
from mm.lru import lru_add_drain
from mm.madvise_pages import madvise_cold_page_range, madvise_free_page_range
from mm.memory import zap_page_range
from mm.util import capable, fput, get_file, update_hiwater_rss
from mm.vma_adjust import set_vma_flags
from mm.vma_merge import vma_modify

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF

MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_FREE = 8
MADV_REMOVE = 9
MADV_DONTFORK = 10
MADV_DOFORK = 11
MADV_MERGEABLE = 12
MADV_UNMERGEABLE = 13
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_DODUMP = 17
MADV_WIPEONFORK = 18
MADV_KEEPONFORK = 19
MADV_COLD = 20
MADV_PAGEOUT = 21
MADV_HWPOISON = 100
MADV_SOFT_OFFLINE = 101

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

# advice that only sets and clears flags: (cleared, set)
_FLAG_ADVICE = {
    MADV_NORMAL: (VM_RAND_READ | VM_SEQ_READ, 0),
    MADV_SEQUENTIAL: (VM_RAND_READ, VM_SEQ_READ),
    MADV_RANDOM: (VM_SEQ_READ, VM_RAND_READ),
    MADV_DONTFORK: (0, VM_DONTCOPY),
    MADV_DOFORK: (VM_DONTCOPY, 0),
    MADV_WIPEONFORK: (0, VM_WIPEONFORK),
    MADV_KEEPONFORK: (VM_WIPEONFORK, 0),
    MADV_DONTDUMP: (0, VM_DONTDUMP),
    MADV_DODUMP: (VM_DONTDUMP, 0),
    MADV_HUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    MADV_NOHUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    MADV_UNMERGEABLE: (VM_MERGEABLE, 0),
}
_VALID = frozenset(
    {
        *_FLAG_ADVICE,
        MADV_WILLNEED,
        MADV_DONTNEED,
        MADV_FREE,
        MADV_REMOVE,
        MADV_MERGEABLE,
        MADV_COLD,
        MADV_PAGEOUT,
    }
)
_INJECT_ERROR = (MADV_HWPOISON, MADV_SOFT_OFFLINE)
_NOT_MERGEABLE = VM_MERGEABLE | VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP


def _advised_flags(vma: VmAreaStruct, behavior: int) -> int:
    """vm_flags of `vma` after the advice.

    Raises:
        Errno: EINVAL where this advice is not for this kind of area.
    """
    vm_flags = vma.vm_flags
    if behavior == MADV_MERGEABLE:  # ksm_madvise() ignores what it cannot serve
        return vm_flags if vm_flags & _NOT_MERGEABLE else vm_flags | VM_MERGEABLE
    if (
        (behavior == MADV_DOFORK and vm_flags & VM_IO)
        or (behavior == MADV_WIPEONFORK and (vma.vm_file is not None or vm_flags & VM_SHARED))
        or (behavior == MADV_DODUMP and not vm_flags & VM_HUGETLB and vm_flags & VM_SPECIAL)
    ):
        raise Errno(errno.EINVAL)
    cleared, added = _FLAG_ADVICE[behavior]
    return vm_flags & ~cleared | added


def madvise_behavior(vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, behavior: int) -> VmAreaStruct:
    """Advice that changes flags, for [start, end) of `vma`; the area that covers the range afterwards.

    Raises:
        Errno: EINVAL where the advice is not for this area, ENOMEM where splitting would make too many areas, EAGAIN
            where a merged page can not be copied for want of memory.
    """
    new_flags = _advised_flags(vma, behavior)
    if new_flags == vma.vm_flags:
        return vma
    if behavior in (MADV_MERGEABLE, MADV_UNMERGEABLE):
        from mm.ksm import ksm_madvise

        ksm_madvise(vma, start, end, behavior == MADV_MERGEABLE)
    if behavior == MADV_HUGEPAGE and not vma.vm_mm.khugepaged:
        from mm.khugepaged import khugepaged_enter_vma

        khugepaged_enter_vma(vma, new_flags)
    vma = vma_modify(vma, prev, start, end, new_flags, vma.vm_policy)
    set_vma_flags(vma, new_flags)
    return vma


def can_madv_lru_vma(vma: VmAreaStruct) -> bool:
    """May pages of this area be dropped or aged?"""
    return not vma.vm_flags & (VM_LOCKED | VM_HUGETLB | VM_PFNMAP)


def can_do_pageout(vma: VmAreaStruct) -> bool:
    """Is it the caller's business which pages of this area are resident (also can_do_mincore())?

    Yes for anonymous memory, and for files it owns or could open for writing.
    """
    if vma.vm_ops is None:
        return True
    file = vma.vm_file
    if file is None:
        return False
    owner_or_writable = getattr(file, "owner_or_writable", None)
    return owner_or_writable is None or bool(owner_or_writable(vma.vm_mm.system.current))


def madvise_willneed(vma: VmAreaStruct, start: int) -> VmAreaStruct | None:
    """Read ahead. Nothing is swapped out and files live in memory, so all that shows is which area is looked up.

    None where the kernel lets go of the lock for the file's fadvise, and looks the next area up anew.
    """
    file = vma.vm_file
    lru_add_drain(vma.vm_mm.system)
    if file is None:
        vma.vm_mm.ops.find_vma(vma.vm_mm, start)  # walk_page_range(), in search of swapped pages
    return vma if file is None or file.f_mapping.a_ops is not None else None


def madvise_remove(vma: VmAreaStruct, start: int, end: int) -> None:
    """Punch [start, end) of the area out of its file.

    Raises:
        Errno: EINVAL for a locked area or one without a file, EACCES for one that may not write to it, and what the
            file's fallocate says.
    """
    if vma.vm_flags & VM_LOCKED:
        raise Errno(errno.EINVAL)
    file = vma.vm_file
    if file is None:
        raise Errno(errno.EINVAL)
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
        raise Errno(errno.EACCES)
    offset = start - vma.vm_start + (vma.vm_pgoff << vma.vm_mm.arch.page_shift)
    if vma.vm_userfaultfd_ctx is not None:
        _tell_userfaultfd(vma, start, end)
    get_file(file)
    try:
        vfs_fallocate(vma, offset, end - start)
    finally:
        fput(file)


def _tell_userfaultfd(vma: VmAreaStruct, start: int, end: int) -> None:
    """The area's userfaultfd hears of it first; MustSleep until it has, and the advice is given again."""
    from mm.userfaultfd import userfaultfd_remove

    userfaultfd_remove(vma, start, end)


def vfs_fallocate(vma: VmAreaStruct, offset: int, length: int) -> None:
    """fallocate(PUNCH_HOLE | KEEP_SIZE) on the area's file, by the file's own method where it has one."""
    from mm.shmem import shmem_fallocate

    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    file = vma.vm_file
    if file is None:
        return
    fallocate = getattr(file, "fallocate", None)
    if fallocate is not None:
        fallocate(vma.vm_mm.system.current, mode, offset, length)
    else:
        shmem_fallocate(file.f_mapping, mode, offset, length)


def madvise_vma(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, behavior: int
) -> VmAreaStruct | None:
    """Apply advice to [start, end) of one area; the area to go on from, or None to look the next one up anew."""
    if behavior == MADV_REMOVE:
        madvise_remove(vma, start, end)
        return None
    if behavior == MADV_WILLNEED:
        return madvise_willneed(vma, start)
    if behavior in (MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT):
        if not can_madv_lru_vma(vma):
            raise Errno(errno.EINVAL)
        if vma.vm_userfaultfd_ctx is not None and behavior in (MADV_DONTNEED, MADV_FREE):
            _tell_userfaultfd(vma, start, end)
        if behavior == MADV_DONTNEED:
            zap_page_range(vma, start, end - start)
        elif behavior == MADV_FREE:
            if vma.vm_ops is not None:
                raise Errno(errno.EINVAL)
            update_hiwater_rss(vma.vm_mm)
            madvise_free_page_range(vma, start, end)
        elif behavior == MADV_COLD:
            madvise_cold_page_range(vma, start, end, False)
        elif can_do_pageout(vma):
            madvise_cold_page_range(vma, start, end, True)
        return vma
    return madvise_behavior(vma, prev, start, end, behavior)


def madvise_inject_error(mm: MmStruct, start: int, end: int, behavior: int) -> None:
    """MADV_HWPOISON and MADV_SOFT_OFFLINE, on kernels built with memory failure handling.

    Raises:
        Errno: EPERM without CAP_SYS_ADMIN, EFAULT (as get_user_pages_fast says) where no page can be had.
    """
    from mm.memory_failure import memory_failure, soft_offline_page

    if not capable(mm, CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    inject = soft_offline_page if behavior == MADV_SOFT_OFFLINE else memory_failure
    while start < end:
        start += inject(mm, start)


def do_madvise(mm: MmStruct, start: int, len_in: int, behavior: int) -> None:
    """madvise(2) on `mm`, which may be another task's (process_madvise).

    Args:
        start: page aligned; on arm64 its tag is ignored.
        len_in: bytes, rounded up to pages.
        behavior: MADV_*, a signed int.

    Raises:
        Errno: EINVAL for unknown advice, unaligned start, a range that wraps, or advice this area cannot take; ENOMEM
            where part of the range is unmapped (the rest is done); EPERM, EACCES, EFAULT by the advice.
    """
    arch = mm.arch
    start = arch.untagged_addr(start)
    if behavior not in _VALID and not (behavior in _INJECT_ERROR and arch.memory_failure):
        raise Errno(errno.EINVAL)
    if start & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    length = (len_in + arch.page_size - 1) & arch.page_mask
    if len_in and not length:
        raise Errno(errno.EINVAL)
    end = (start + length) & _MASK64
    if end < start:
        raise Errno(errno.EINVAL)
    if end == start:
        return
    if behavior in _INJECT_ERROR:
        madvise_inject_error(mm, start, start + len_in, behavior)
        return
    _madvise_range(mm, start, end, behavior)


def _madvise_range(mm: MmStruct, start: int, end: int, behavior: int) -> None:
    """The walk of do_madvise() over the areas of [start, end)."""
    find_vma = mm.ops.find_vma
    unmapped_error = False
    vma = find_vma(mm, start)
    prev: VmAreaStruct | None = None
    if vma is not None:
        prev = vma if start > vma.vm_start else vma.vm_prev
    while True:
        if vma is None:
            raise Errno(errno.ENOMEM)
        if start < vma.vm_start:
            unmapped_error = True
            start = vma.vm_start
            if start >= end:
                raise Errno(errno.ENOMEM)
        tmp = min(vma.vm_end, end)
        prev = madvise_vma(vma, prev, start, tmp, behavior)
        start = tmp
        if prev is not None and start < prev.vm_end:
            start = prev.vm_end
        if start >= end:
            break
        vma = prev.vm_next if prev is not None else find_vma(mm, start)
    if unmapped_error:
        raise Errno(errno.ENOMEM)
