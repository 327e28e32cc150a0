"""Files of huge pages (fs/hugetlbfs/inode.c): their size is what is mapped, their content what was touched.

They can be read, mapped, truncated and punched in whole huge pages, but not written. `mapping.pages` is by huge page;
`mapping.private` is the file's HugetlbInodeInfo.

    hugetlb_file_setup     an unlinked file: MAP_HUGETLB, memfd_create(MFD_HUGETLB), shmget(SHM_HUGETLB)
    hugetlbfs_file_mmap    promises the pages of the mapping, or refuses it
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.flags import (
    CAP_IPC_LOCK,
    PG_UPTODATE,
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_MAYSHARE,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
)
from mm.hugetlb import (
    alloc_huge_page,
    huge_add_to_page_cache,
    hugetlb_vm_ops,
    remove_huge_page,
    unmap_hugepage_range,
)
from mm.hugetlb_pool import Hstate, HugePage, clear_huge_page, hugetlb_pools
from mm.hugetlb_resv import ResvMap, Subpool, hugetlb_reserve_pages, hugetlb_unreserve_pages
from mm.interval_tree import vma_interval_tree_foreach
from mm.page_alloc import put_page
from mm.shmem import (
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
)
from mm.types import AddressSpace, VmAreaStruct

if TYPE_CHECKING:
    from mm.system import System

HUGETLB_ANON_FILE = "anon_hugepage"
MAX_LFS_FILESIZE = (1 << 63) - 1
O_RDWR = 2


class HugetlbAops:
    """hugetlbfs_aops. Stateless: one instance, `hugetlbfs_aops`."""

    def __reduce__(self) -> str:
        return "hugetlbfs_aops"


hugetlbfs_aops = HugetlbAops()


class HugetlbInodeInfo:
    """What hugetlbfs keeps of an inode (struct hugetlbfs_inode_info), in `mapping.private`."""

    __slots__ = ("blocks", "hstate", "private", "resv_map", "seals", "subpool")

    def __init__(self, hstate: Hstate, subpool: Subpool | None = None) -> None:
        self.hstate = hstate
        self.subpool = subpool
        self.resv_map = ResvMap()  # what is promised, or there
        self.seals = F_SEAL_SEAL
        self.blocks = 0  # i_blocks, units of 512 bytes
        self.private = False  # S_PRIVATE: a segment, whose pages are promised when it is made


def new_hugetlb_mapping(hstate: Hstate, host: Any = None, subpool: Subpool | None = None) -> AddressSpace:
    """The page cache of a new file."""
    mapping = AddressSpace(hugetlbfs_aops, host)
    mapping.private = HugetlbInodeInfo(hstate, subpool)
    return mapping


def hugetlbfs_file_mmap(file: Any, vma: VmAreaStruct) -> None:
    """f_op->mmap. Raises Errno EPERM (seals), EINVAL for an offset inside a huge page, ENOMEM without pages."""
    mapping: AddressSpace = file.f_mapping
    info: HugetlbInodeInfo = mapping.private
    h = info.hstate
    vma.vm_flags |= VM_HUGETLB | VM_DONTEXPAND
    vma.vm_ops = hugetlb_vm_ops
    if (
        info.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
        and vma.vm_flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE
    ):
        raise Errno(errno.EPERM)
    page_shift = vma.vm_mm.arch.page_shift
    if vma.vm_pgoff & (h.pages - 1) or vma.vm_pgoff >> (63 - page_shift):
        raise Errno(errno.EINVAL)
    length = vma.vm_end - vma.vm_start + (vma.vm_pgoff << page_shift)
    if length > MAX_LFS_FILESIZE:
        raise Errno(errno.EINVAL)
    vm_flags = vma.vm_flags | (VM_NORESERVE if info.private else 0)
    if not hugetlb_reserve_pages(info, vma.vm_pgoff >> h.order, length >> h.shift, vma, vm_flags):
        raise Errno(errno.ENOMEM)
    if vma.vm_flags & VM_WRITE and mapping.i_size < length:
        mapping.i_size = length


def hugetlbfs_read(mapping: AddressSpace, pos: int, count: int) -> bytes:
    """Up to `count` bytes from `pos`, short at the end of the file; what was never touched reads as zeroes."""
    info: HugetlbInodeInfo = mapping.private
    system = info.hstate.system
    size = info.hstate.size
    end = min(pos + count, mapping.i_size)
    parts = []
    while pos < end:
        offset = pos % size
        length = min(size - offset, end - pos)
        page = mapping.pages.get(pos // size)
        if page is None:
            parts.append(bytes(length))
        else:
            start = (page.pfn << system.arch.page_shift) + offset
            parts.append(bytes(system.ram[start : start + length]))
        pos += length
    return b"".join(parts)


def _hugetlb_vmdelete_list(mapping: AddressSpace, start: int, end: int | None) -> None:
    """Unmap pages [start, end) of the file (small pages) everywhere; None: to the end of any mapping."""
    last = (1 << 64) - 1 if end is None else end
    for node in list(vma_interval_tree_foreach(mapping.i_mmap, start, last)):
        vma = node.vma
        shift = vma.vm_mm.arch.page_shift
        first = vma.vm_start + (max(0, start - vma.vm_pgoff) << shift)
        stop = vma.vm_end if end is None else min(vma.vm_end, vma.vm_start + ((end - vma.vm_pgoff) << shift))
        unmap_hugepage_range(vma, first, stop)


def _remove_inode_hugepages(mapping: AddressSpace, first: int, end: int | None) -> None:
    """Drop huge pages [first, end) of the file, and the promises for them; None: to the end."""
    info: HugetlbInodeInfo = mapping.private
    freed = 0
    for index in sorted(index for index in mapping.pages if first <= index and (end is None or index < end)):
        page: Any = mapping.pages[index]
        if page.mapcount and end is not None:
            _hugetlb_vmdelete_list(mapping, index << info.hstate.order, (index + 1) << info.hstate.order)
        remove_huge_page(page, mapping, index)
        freed += 1
        if end is not None:
            hugetlb_unreserve_pages(info, index, index + 1, 1)
    if end is None:
        hugetlb_unreserve_pages(info, first, None, freed)


def hugetlbfs_truncate(mapping: AddressSpace, newsize: int) -> None:
    """Set the size (hugetlbfs_setattr). Raises Errno EINVAL within a huge page, EPERM (seals)."""
    info: HugetlbInodeInfo = mapping.private
    h = info.hstate
    if newsize & (h.size - 1):
        raise Errno(errno.EINVAL)
    oldsize = mapping.i_size
    if (newsize < oldsize and info.seals & F_SEAL_SHRINK) or (newsize > oldsize and info.seals & F_SEAL_GROW):
        raise Errno(errno.EPERM)
    mapping.i_size = newsize
    _hugetlb_vmdelete_list(mapping, newsize >> h.system.arch.page_shift, None)
    _remove_inode_hugepages(mapping, newsize >> h.shift, None)


def hugetlbfs_fallocate(file: Any, mode: int, offset: int, length: int) -> None:
    """fallocate(2): pages for a range, or a hole of whole huge pages.

    Raises Errno EOPNOTSUPP, EPERM (seals), ENOSPC when the pool has no more.
    """
    mapping: AddressSpace = file.f_mapping
    info: HugetlbInodeInfo = mapping.private
    h = info.hstate
    if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
        raise Errno(errno.EOPNOTSUPP)
    if mode & FALLOC_FL_PUNCH_HOLE:
        _punch_hole(mapping, info, offset, length)
        return
    if info.seals & F_SEAL_GROW and offset + length > mapping.i_size:
        raise Errno(errno.EPERM)
    current = h.system.current
    if current is None or current.mm is None:
        raise KernelBug("fallocate without a task")
    pseudo_vma = VmAreaStruct(current.mm, flags=VM_HUGETLB | VM_MAYSHARE | VM_SHARED)
    pseudo_vma.vm_file = file
    for index in range(offset >> h.shift, (offset + length + h.size - 1) >> h.shift):
        if index in mapping.pages:
            continue
        page: HugePage = alloc_huge_page(pseudo_vma, index << h.shift, False)
        clear_huge_page(page)
        page.flags |= PG_UPTODATE
        huge_add_to_page_cache(page, mapping, index)
        put_page(h.system, page)
    if not mode & FALLOC_FL_KEEP_SIZE and offset + length > mapping.i_size:
        mapping.i_size = offset + length


def _punch_hole(mapping: AddressSpace, info: HugetlbInodeInfo, offset: int, length: int) -> None:
    """Free the huge pages that lie in [offset, offset + length) as a whole."""
    h = info.hstate
    start = (offset + h.size - 1) & -h.size
    end = (offset + length) & -h.size
    if end <= start:
        return
    if info.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        raise Errno(errno.EPERM)
    page_shift = h.system.arch.page_shift
    _hugetlb_vmdelete_list(mapping, start >> page_shift, end >> page_shift)
    _remove_inode_hugepages(mapping, start >> h.shift, end >> h.shift)


def hugetlbfs_evict_inode(mapping: AddressSpace) -> None:
    """Nobody can reach the file any more."""
    _remove_inode_hugepages(mapping, 0, None)


class HugetlbFile:
    """An open file that never had a name, for MAP_HUGETLB and segments."""

    def __init__(self, name: str, mapping: AddressSpace) -> None:
        self.name = name
        self.f_mapping = mapping
        self.f_mode = 3
        self.f_flags = O_RDWR
        self.f_count = 1
        self.ino = 1

    @property
    def huge_shift(self) -> int:
        """log2 of the size of the pages."""
        shift: int = self.f_mapping.private.hstate.shift
        return shift

    def d_path(self) -> str:
        """Path as /proc shows it: it is unlinked."""
        return f"/{self.name} (deleted)"

    def mmap(self, vma: VmAreaStruct) -> None:
        """f_op->mmap."""
        hugetlbfs_file_mmap(self, vma)

    def fallocate(self, task: Any, mode: int, offset: int, length: int) -> None:
        """f_op->fallocate, for MADV_REMOVE."""
        hugetlbfs_fallocate(self, mode, offset, length)

    def release(self) -> None:
        """The last reference is gone: so is the file."""
        hugetlbfs_evict_inode(self.f_mapping)


def hstate_for(system: System, page_size_log: int) -> Hstate:
    """The pool hugetlb_file_setup() uses. Raises Errno(ENODEV) for a size there is not."""
    h = hugetlb_pools(system).hstate_sizelog(page_size_log)
    if h is None:
        raise Errno(errno.ENODEV)
    return h


def hugetlb_file_setup(
    system: System, name: str, size: int, acctflag: int, page_size_log: int, private: bool = False
) -> HugetlbFile:
    """An unlinked file of `size` bytes, all promised at once unless VM_NORESERVE.

    `private`: it is a segment (HUGETLB_SHMFS_INODE), whose mappings need no promise of their own.
    Raises Errno ENODEV for a size there is not, ENOMEM when the pages can not be promised.
    """
    h = hstate_for(system, page_size_log)
    mapping = new_hugetlb_mapping(h)
    info: HugetlbInodeInfo = mapping.private
    info.private = private
    mapping.i_size = size
    if not hugetlb_reserve_pages(info, 0, size >> h.shift, None, acctflag):
        raise Errno(errno.ENOMEM)
    return HugetlbFile(name, mapping)


def can_do_hugetlb_shm(system: System) -> bool:
    """May the running task have segments of huge pages?

    With CAP_IPC_LOCK, or as a member of the group in /proc/sys/vm/hugetlb_shm_group.
    """
    task: Any = system.current
    return bool(task.capable(CAP_IPC_LOCK) or task.cred.in_group(system.sysctl_hugetlb_shm_group))
