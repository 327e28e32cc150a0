"""System calls of memory management: decoders; the work is in mm/."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.clock import POPULATE_NSEC
from guest.own_mm import own_mm
from guest.syscalls import FULL, Call
from mm.brk import brk
from mm.errors import Errno
from mm.flags import MAP_ANONYMOUS, MAP_HUGETLB, MAP_POPULATE, VM_NORESERVE
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.mprotect import do_mprotect
from mm.util import fput

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct

_MASK = 0xFFFFFFFFFFFFFFFF


MAP_HUGE_SHIFT, MAP_HUGE_MASK = 26, 0x3F


def s32(value: int) -> int:
    """A register read as a C int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def sys_mmap(task: Task, addr: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap: EINVAL for an offset inside a page (sys_x86_64.c, sys.c), EBADF for a bad descriptor (ksys_mmap_pgoff)."""
    mm = own_mm(task)
    arch = mm.arch
    if offset & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    file = None
    if not flags & MAP_ANONYMOUS:
        file = task.files.get(s32(fd))
        huge_shift = getattr(file, "huge_shift", 0)
        if huge_shift:
            length = (length + (1 << huge_shift) - 1 & -1 << huge_shift) & _MASK
        elif flags & MAP_HUGETLB:
            raise Errno(errno.EINVAL)
    elif flags & MAP_HUGETLB:
        return mmap_hugetlb(mm, addr, length, prot, flags & ~0x1800, offset >> arch.page_shift)
    if flags & MAP_POPULATE:
        task.kernel.takes(task, min(length, mm.system.ram.nbytes) // arch.page_size * POPULATE_NSEC)
    return vm_mmap_pgoff(mm, file, addr, length, prot, flags & ~0x1800, offset >> arch.page_shift)


def mmap_hugetlb(mm: MmStruct, addr: int, length: int, prot: int, flags: int, pgoff: int) -> int:
    """MAP_ANONYMOUS | MAP_HUGETLB: map an unlinked file of huge pages.

    Raises:
        Errno: EINVAL for a size there is not, ENOMEM without huge pages, and those of do_mmap().
    """
    from mm.hugetlb_file import HUGETLB_ANON_FILE, hugetlb_file_setup
    from mm.hugetlb_pool import hugetlb_pools

    log = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK
    hstate = hugetlb_pools(mm.system).hstate_sizelog(log)
    if hstate is None:
        raise Errno(errno.EINVAL)
    length = (length + hstate.size - 1 & -hstate.size) & _MASK
    file = hugetlb_file_setup(mm.system, HUGETLB_ANON_FILE, length, VM_NORESERVE, log)
    try:
        return vm_mmap_pgoff(mm, file, addr, length, prot, flags, pgoff)
    finally:
        fput(file)


def sys_munmap(task: Task, addr: int, length: int) -> int:
    """munmap."""
    mm = own_mm(task)
    do_munmap(mm, mm.arch.untagged_addr(addr), length)
    return 0


def sys_mprotect(task: Task, start: int, length: int, prot: int) -> int:
    """mprotect."""
    do_mprotect(task, start, length, prot)
    return 0


def sys_brk(task: Task, addr: int) -> int:
    """brk: the break in force; a refused one is no error."""
    mm = own_mm(task)
    return brk(mm, addr)


def sys_mremap(task: Task, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """mremap."""
    from mm.mremap import mremap

    mm = own_mm(task)
    return mremap(mm, addr, old_len, new_len, flags, new_addr)


def _needs_pkeys(task: Task) -> None:
    """The calls exist on architectures that have protection keys. Raises ENOSYS."""
    if not task.system.arch.has_pkeys:
        raise Errno(errno.ENOSYS)


def sys_pkey_mprotect(task: Task, start: int, length: int, prot: int, pkey: int) -> int:
    """pkey_mprotect: without protection keys only the key -1 is one."""
    from mm.mprotect import do_mprotect_pkey

    _needs_pkeys(task)
    mm = own_mm(task)
    do_mprotect_pkey(mm, start, length, prot, s32(pkey))
    return 0


def sys_pkey_alloc(task: Task, flags: int, access_rights: int) -> int:
    """pkey_alloc on a CPU without keys: the first one of an address space is refused by the CPU (EINVAL), and stays
    taken, as key 0 counts as the one for execution only and cannot be freed; then there are none (ENOSPC).
    """
    _needs_pkeys(task)
    if flags or access_rights & ~3:
        raise Errno(errno.EINVAL)
    mm = own_mm(task)
    if mm.pkey_allocation_map:
        raise Errno(errno.ENOSPC)
    mm.pkey_allocation_map = 1
    raise Errno(errno.EINVAL)


def sys_pkey_free(task: Task, pkey: int) -> int:
    """pkey_free: no key was ever given."""
    _needs_pkeys(task)
    raise Errno(errno.EINVAL)


CALLS = (
    Call("mmap", sys_mmap, FULL),
    Call("munmap", sys_munmap, FULL),
    Call("mprotect", sys_mprotect, FULL),
    Call("brk", sys_brk, FULL),
    Call("mremap", sys_mremap, FULL),
    Call("pkey_mprotect", sys_pkey_mprotect, FULL),
    Call("pkey_alloc", sys_pkey_alloc, FULL),
    Call("pkey_free", sys_pkey_free, FULL),
)
