"""remap_file_pages (mm/mmap.c): since Linux 4.0 a new fixed mapping of the same file, one area per rearranged piece."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import (
    MAP_FIXED,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_POPULATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    VM_LOCKED,
    VM_SHARED,
)
from mm.mmap import do_mmap
from mm.util import fput, get_file

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF


def _covered(vma: VmAreaStruct, start: int, end: int) -> bool:
    """Do `vma` and areas right behind it, alike in file and flags, cover [start, end)?"""
    if start < vma.vm_start:
        return False
    area = vma
    while end > area.vm_end:
        following = area.vm_next
        if (
            following is None
            or following.vm_start != area.vm_end
            or following.vm_file is not vma.vm_file
            or following.vm_flags != vma.vm_flags
        ):
            return False
        area = following
    return True


def remap_file_pages(mm: MmStruct, start: int, size: int, prot: int, pgoff: int, flags: int) -> None:
    """Map `size` bytes from page `pgoff` of the file that is mapped shared at `start` to `start`.

    Args:
        start: rounded down to a page.
        size: rounded down to pages.
        prot: must be 0: the protection is that of the old mapping.
        pgoff: pages.
        flags: only MAP_NONBLOCK counts.

    Raises:
        Errno: EINVAL for a bad argument or where the range is not one shared mapping, else those of do_mmap.
    """
    if prot:
        raise Errno(errno.EINVAL)
    arch = mm.arch
    start &= arch.page_mask
    size &= arch.page_mask
    if (start + size) & _MASK64 <= start or (pgoff + (size >> arch.page_shift)) > _MASK64:
        raise Errno(errno.EINVAL)
    vma = mm.ops.find_vma(mm, start)
    if vma is None or not vma.vm_flags & VM_SHARED or not _covered(vma, start, start + size):
        raise Errno(errno.EINVAL)
    file = vma.vm_file
    if file is None:
        raise Errno(errno.EINVAL)
    # VM_READ, VM_WRITE and VM_EXEC are PROT_READ, PROT_WRITE and PROT_EXEC.
    prot = vma.vm_flags & (PROT_READ | PROT_WRITE | PROT_EXEC)
    flags = flags & MAP_NONBLOCK | MAP_SHARED | MAP_FIXED | MAP_POPULATE
    if vma.vm_flags & VM_LOCKED:
        # 5.10 means to unmark the pages here, but its loop's condition is never true: munmap does it.
        flags |= MAP_LOCKED
    get_file(file)
    try:
        addr, populate = do_mmap(mm, file, start, size, prot, flags, pgoff)
    finally:
        fput(file)
    if populate:
        from mm.gup import mm_populate

        mm_populate(mm, addr, populate)
