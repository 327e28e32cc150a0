"""msync (mm/msync.c). Files live in the page cache, and reach the host when the guest's file system writes them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import VM_LOCKED, VM_SHARED
from mm.util import fput, get_file

if TYPE_CHECKING:
    from mm.types import File, MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
MS_ASYNC = 1
MS_INVALIDATE = 2
MS_SYNC = 4


def vfs_fsync_range(file: File, start: int, end: int) -> None:
    """Write bytes [start, end] of the file back, where it has a place to write to.

    Raises:
        Errno: EINVAL for a file that cannot be synced, EIO by its file system.
    """
    fsync_range = getattr(file, "fsync_range", None)
    if fsync_range is not None:
        get_file(file)
        try:
            fsync_range(start, end)
        finally:
            fput(file)


def msync(mm: MmStruct, start: int, length: int, flags: int) -> None:
    """Sync the mapped files of [start, start + length).

    Args:
        start: page aligned; its tag is ignored on arm64.
        length: bytes, rounded up to pages.
        flags: MS_*, a signed int.

    Raises:
        Errno: EINVAL for unknown or contradicting flags or an unaligned start, ENOMEM where the range wraps or part of
            it is unmapped (the rest is synced), EBUSY for MS_INVALIDATE of a locked area, EIO by the file.
    """
    arch = mm.arch
    start = arch.untagged_addr(start)
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or start & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    if flags & MS_ASYNC and flags & MS_SYNC:
        raise Errno(errno.EINVAL)
    end = (start + ((length + arch.page_size - 1) & arch.page_mask & _MASK64)) & _MASK64
    if end < start:
        raise Errno(errno.ENOMEM)
    if end == start:
        return
    unmapped_error = False
    vma = mm.ops.find_vma(mm, start)
    while True:
        if vma is None:
            raise Errno(errno.ENOMEM)
        if start < vma.vm_start:
            start = vma.vm_start
            if start >= end:
                raise Errno(errno.ENOMEM)
            unmapped_error = True
        if flags & MS_INVALIDATE and vma.vm_flags & VM_LOCKED:
            raise Errno(errno.EBUSY)
        file = vma.vm_file
        fstart = start - vma.vm_start + (vma.vm_pgoff << arch.page_shift)
        fend = fstart + min(end, vma.vm_end) - start - 1
        start = vma.vm_end
        if flags & MS_SYNC and file is not None and vma.vm_flags & VM_SHARED:
            vfs_fsync_range(file, fstart, fend)
            if start >= end:
                break
            vma = mm.ops.find_vma(mm, start)
        else:
            if start >= end:
                break
            vma = vma.vm_next
    if unmapped_error:
        raise Errno(errno.ENOMEM)
