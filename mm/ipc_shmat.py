"""Attaching and detaching System V segments (the mapping part of ipc/shm.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno
from mm.find_vma import find_vma_intersection
from mm.flags import MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE
from mm.ipc_shm import (
    IpcNamespace,
    ShmAttachFile,
    shm_destroy,
    shm_may_destroy,
    shm_vm_ops,
)
from mm.ipc_util import ipc_obtain_object_check, ipcperms
from mm.mmap import do_mmap, do_munmap
from mm.util import fput

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
SHM_RDONLY = 0o10000
SHM_RND = 0o20000
SHM_REMAP = 0o40000
SHM_EXEC = 0o100000
S_IRUGO, S_IWUGO, S_IXUGO = 0o444, 0o222, 0o111
FMODE_READ = 1
FMODE_WRITE = 2


def _attach_address(mm: MmStruct, addr: int, shmflg: int) -> int:
    """Where to attach; SHMLBA is a page on both architectures. Raises Errno(EINVAL)."""
    page_size = mm.arch.page_size
    if not addr:
        if shmflg & SHM_REMAP:
            raise Errno(errno.EINVAL)
    elif addr & (page_size - 1):
        if not shmflg & SHM_RND:
            raise Errno(errno.EINVAL)
        addr &= mm.arch.page_mask
        if not addr and shmflg & SHM_REMAP:
            raise Errno(errno.EINVAL)
    return addr


def do_shmat(ns: IpcNamespace, task: Any, shmid: int, shmaddr: int, shmflg: int) -> int:
    """Attach segment `shmid`; the address.

    Raises:
        Errno: EINVAL for a bad identifier or address, or where something is mapped and SHM_REMAP is not given; EACCES;
            else those of do_mmap.
    """
    mm = task.mm
    if shmid < 0:
        raise Errno(errno.EINVAL)
    addr = _attach_address(mm, shmaddr, shmflg)
    # Linux asks "if (addr)" before it rounds: an address rounded down to 0 is still fixed.
    flags = MAP_SHARED | MAP_FIXED if shmaddr else MAP_SHARED
    if shmflg & SHM_RDONLY:
        prot, acc_mode, f_mode = PROT_READ, S_IRUGO, FMODE_READ
    else:
        prot, acc_mode, f_mode = PROT_READ | PROT_WRITE, S_IRUGO | S_IWUGO, FMODE_READ | FMODE_WRITE
    if shmflg & SHM_EXEC:
        prot |= PROT_EXEC
        acc_mode |= S_IXUGO
    shp = ipc_obtain_object_check(ns, shmid)
    if not ipcperms(task, shp, acc_mode):
        raise Errno(errno.EACCES)
    shp.shm_nattch += 1
    file = ShmAttachFile(ns, shp, f_mode)
    size = shp.shm_file.f_mapping.i_size
    populate = 0
    try:
        if addr and not shmflg & SHM_REMAP:
            if addr + size > _MASK64 or find_vma_intersection(mm, addr, addr + size) is not None:
                raise Errno(errno.EINVAL)
        addr, populate = do_mmap(mm, file, addr, size, prot, flags, 0)
    finally:
        if populate:
            from mm.gup import mm_populate

            mm_populate(mm, addr, populate)
        fput(file)
        shp.shm_nattch -= 1
        if shm_may_destroy(ns, shp):
            shm_destroy(ns, shp)
    return addr


def shmdt(mm: MmStruct, addr: int) -> None:
    """Detach the segment attached at `addr`, in however many areas it lies by now.

    Raises:
        Errno: EINVAL where no segment was attached there.
    """
    arch = mm.arch
    if addr & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    vma = mm.ops.find_vma(mm, addr)
    while vma is not None and not _starts_at(vma, addr):
        vma = vma.vm_next
    if vma is None:
        raise Errno(errno.EINVAL)
    file = vma.vm_file
    size = (file.f_mapping.i_size + arch.page_size - 1) & arch.page_mask if file is not None else 0
    following = vma.vm_next
    do_munmap(mm, vma.vm_start, vma.vm_end - vma.vm_start, False)
    vma = following
    while vma is not None and vma.vm_end - addr <= size:
        following = vma.vm_next
        if _starts_at(vma, addr) and vma.vm_file is file:
            do_munmap(mm, vma.vm_start, vma.vm_end - vma.vm_start, False)
        vma = following


def _starts_at(vma: VmAreaStruct, addr: int) -> bool:
    """Is `vma` a piece of a segment whose beginning is, or would be, at `addr`?"""
    return vma.vm_ops is shm_vm_ops and (vma.vm_start - addr) >> vma.vm_mm.arch.page_shift == vma.vm_pgoff
