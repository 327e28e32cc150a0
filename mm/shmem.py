"""tmpfs and shared memory (mm/shmem.c): files whose only home is the page cache.

The guest's files are all of this kind, as on the oracle, whose root file system is tmpfs. A file that exists on the
host has a `backing` (its bytes, which never change): on Linux all its pages would be cached since boot, so here every
page below its end counts as cached, and gets a frame when one is needed (`find_page`). DEVIATION D2: the frames such a
file does not need yet are free memory here, and are not counted as committed.

    shmem_getpage(mapping, index, sgp)   one page, made if the kind of access allows
    shmem_read / shmem_write             read() and write()
    shmem_truncate / shmem_fallocate     size, holes; live mappings lose what goes
    shmem_file_setup / shmem_zero_setup  unlinked files: memfd, SysV segments, shared anonymous memory
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.filemap import add_to_page_cache, delete_from_page_cache, filemap_map_pages, flush_dcache_page
from mm.flags import (
    PG_DIRTY,
    PG_LRU,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_UPTODATE,
    VM_FAULT_LOCKED,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_NORESERVE,
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WRITE,
)
from mm.lru import mark_page_accessed
from mm.memory_zap import unmap_mapping_range
from mm.page_alloc import alloc_page
from mm.types import AddressSpace, Page, VmAreaStruct, VmFault
from mm.util import fput, security_vm_enough_memory_mm, vm_unacct_memory

if TYPE_CHECKING:
    from mm.system import System

SGP_READ = 0  # not beyond i_size, do not allocate
SGP_CACHE = 1  # not beyond i_size, may allocate
SGP_WRITE = 2  # may exceed i_size, may allocate; the caller fills the page
SGP_FALLOC = 3  # like SGP_WRITE, and a page fallocated before is initialised

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

F_SEAL_SEAL = 0x0001
F_SEAL_SHRINK = 0x0002
F_SEAL_GROW = 0x0004
F_SEAL_WRITE = 0x0008
F_SEAL_FUTURE_WRITE = 0x0010
F_ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE

MAX_LFS_FILESIZE = (1 << 63) - 1
SEEK_DATA = 3
SEEK_HOLE = 4
O_RDWR = 2


class ShmemSbInfo:
    """How many pages the files of one tmpfs may have together (struct shmem_sb_info)."""

    __slots__ = ("max_blocks", "used_blocks")

    def __init__(self, max_blocks: int) -> None:
        self.max_blocks = max_blocks  # pages; 0: as many as there are
        self.used_blocks = 0


class ShmemInodeInfo:
    """What shmem keeps of an inode (struct shmem_inode_info), in `mapping.private`."""

    __slots__ = ("alloced", "backing", "backing_pages", "flags", "policy", "punched", "sbinfo", "seals", "system")

    def __init__(self, system: System, flags: int, backing: Any, sbinfo: ShmemSbInfo | None) -> None:
        self.system = system
        self.sbinfo = sbinfo  # of the tmpfs it belongs to; None: shared memory without one, nobody limits it
        self.flags = flags  # VM_NORESERVE: pages are accounted one by one, not the size at once
        self.seals = F_SEAL_SEAL
        self.alloced = 0  # pages allocated here
        self.backing = backing  # `size` and `read(offset, count) -> bytes`, or None
        size = backing.size if backing is not None else 0
        self.backing_pages = (size + system.page_size - 1) >> system.arch.page_shift  # backing serves pages below this
        self.policy: list[tuple[int, int, Any]] = []  # shared mempolicy: (first page, end, policy), sorted
        self.punched: set[int] = set()  # pages of the backing that are gone

    def has_backing(self, index: int) -> bool:
        """The page exists in the backing, whether it has a frame or not."""
        return index < self.backing_pages and index not in self.punched


class ShmemAops:
    """shmem_aops. Stateless: one instance, `shmem_aops`."""

    def find_page(self, mapping: AddressSpace, index: int) -> Page | None:
        """The page at `index` if it is cached, or exists in the backing; None also without memory."""
        page = mapping.pages.get(index)
        if page is None:
            info: ShmemInodeInfo = mapping.private
            if info.has_backing(index):
                page = materialise(mapping, info, index)
        return page

    def __reduce__(self) -> str:
        return "shmem_aops"


shmem_aops = ShmemAops()


def materialise(mapping: AddressSpace, info: ShmemInodeInfo, index: int) -> Page | None:
    """Give a page of the backing its frame; None without memory."""
    system = info.system
    page = alloc_page(system, False)
    if page is None:
        return None
    size = system.page_size
    data = info.backing.read(index * size, size)
    if len(data) < size:
        data += bytes(size - len(data))
    system.ram[page.pfn * size : (page.pfn + 1) * size] = data
    page.flags |= PG_UPTODATE | PG_SWAPBACKED | PG_LRU | PG_DIRTY  # dirty: on Linux it was written when it was unpacked
    add_to_page_cache(mapping, page, index)
    system.nr_shmem += 1
    if info.sbinfo is not None:
        info.sbinfo.used_blocks += 1
    return page


def vm_acct(system: System, size: int) -> int:
    """VM_ACCT(): bytes to pages."""
    return (size + system.page_size - 1) >> system.arch.page_shift


def new_shmem_mapping(
    system: System,
    host: Any,
    backing: Any = None,
    flags: int = VM_NORESERVE,
    seals: int = F_SEAL_SEAL,
    sbinfo: ShmemSbInfo | None = None,
) -> AddressSpace:
    """The page cache of a new tmpfs file; `backing`: its initial content, with `size` and `read(offset, n)`."""
    mapping = AddressSpace(shmem_aops, host)
    mapping.private = info = ShmemInodeInfo(system, flags, backing, sbinfo)
    info.seals = seals
    mapping.i_size = backing.size if backing is not None else 0
    return mapping


def shmem_getpage(mapping: AddressSpace, index: int, sgp: int) -> Page | None:
    """The page at `index`, referenced for the caller; None for a hole read with SGP_READ.

    Raises Errno: EINVAL beyond i_size, EFBIG, ENOSPC when accounting refuses, ENOMEM when no frame is left.
    """
    info: ShmemInodeInfo = mapping.private
    system = info.system
    page_shift = system.arch.page_shift
    if index > MAX_LFS_FILESIZE >> page_shift:
        raise Errno(errno.EFBIG)
    if sgp <= SGP_CACHE and index << page_shift >= mapping.i_size:
        raise Errno(errno.EINVAL)
    page = mapping.pages.get(index)
    if page is None and info.has_backing(index):
        page = materialise(mapping, info, index)
        if page is None:
            raise Errno(errno.ENOMEM)
    if page is not None and sgp == SGP_WRITE:
        mark_page_accessed(page)
    if page is not None and not page.flags & PG_UPTODATE and sgp == SGP_READ:
        return None
    if page is None:
        if sgp == SGP_READ:
            return None
        page = shmem_alloc_and_acct_page(mapping, info)
        if sgp == SGP_WRITE:
            page.flags |= PG_REFERENCED
        add_to_page_cache(mapping, page, index)
        system.nr_shmem += 1
        if sgp == SGP_FALLOC:  # left not up to date: it can be told from data
            page.refcount += 1
            return page
    if sgp != SGP_WRITE and not page.flags & PG_UPTODATE:
        size = system.page_size
        system.ram[page.pfn * size : (page.pfn + 1) * size] = system.zeroes
        page.flags |= PG_UPTODATE
    page.refcount += 1
    return page


def shmem_alloc_and_acct_page(mapping: AddressSpace, info: ShmemInodeInfo) -> Page:
    """A frame for a new page, counted against the commit limit and the file system's. Raises Errno ENOSPC or ENOMEM."""
    shmem_inode_acct_block(info)
    page = alloc_page(info.system, False)
    if page is None:
        shmem_inode_unacct_block(info)
        raise Errno(errno.ENOMEM)
    page.flags |= PG_SWAPBACKED | PG_LRU
    return page


def shmem_inode_acct_block(info: ShmemInodeInfo) -> None:
    """Count one page of a file. Raises Errno(ENOSPC)."""
    system = info.system
    if info.flags & VM_NORESERVE:
        try:
            shmem_acct(system, 1)
        except Errno:
            raise Errno(errno.ENOSPC) from None
    sbinfo = info.sbinfo
    if sbinfo is not None:
        if 0 < sbinfo.max_blocks <= sbinfo.used_blocks:
            if info.flags & VM_NORESERVE:
                vm_unacct_memory(system, 1)
            raise Errno(errno.ENOSPC)
        sbinfo.used_blocks += 1
    info.alloced += 1


def shmem_inode_unacct_block(info: ShmemInodeInfo) -> None:
    """A page of a file is gone."""
    info.alloced -= 1
    if info.flags & VM_NORESERVE:
        vm_unacct_memory(info.system, 1)
    if info.sbinfo is not None:
        info.sbinfo.used_blocks -= 1


def shmem_acct(system: System, pages: int) -> None:
    """Count pages as committed by the current task. Raises Errno(ENOMEM)."""
    task = system.current
    if task is not None and task.mm is not None:
        security_vm_enough_memory_mm(task.mm, pages)
    else:
        system.vm_committed_as += pages


# -- mappings --------------------------------------------------------------------------------------------------------


class ShmemVmOps:
    """shmem_vm_ops. Stateless: one instance, `shmem_vm_ops`."""

    open = None
    close = None
    page_mkwrite = None
    name = None

    @staticmethod
    def fault(vmf: VmFault) -> int:
        """shmem_fault(): the file's page, made if it is a hole; SIGBUS beyond the end of the file."""
        mapping = vmf.vma.vm_file.f_mapping  # type: ignore[union-attr]
        if (
            vmf.vma.vm_flags & VM_UFFD_MISSING
            and vmf.pgoff << vmf.vma.vm_mm.arch.page_shift < mapping.i_size
            and shmem_aops.find_page(mapping, vmf.pgoff) is None
        ):
            from mm.userfaultfd import handle_userfault

            return handle_userfault(vmf.vma, vmf.address, vmf.flags, VM_UFFD_MISSING)
        try:
            vmf.page = shmem_getpage(mapping, vmf.pgoff, SGP_CACHE)
        except Errno as error:  # vmf_error()
            return VM_FAULT_OOM if error.number == errno.ENOMEM else VM_FAULT_SIGBUS
        return VM_FAULT_LOCKED

    map_pages = staticmethod(filemap_map_pages)

    def __reduce__(self) -> str:
        return "shmem_vm_ops"


shmem_vm_ops: Any = ShmemVmOps()


def shmem_mmap(file: Any, vma: VmAreaStruct) -> None:
    """f_op->mmap of a tmpfs file. Raises Errno(EPERM) when a seal forbids the mapping."""
    seals = file.f_mapping.private.seals
    if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):  # seal_check_write()
        if vma.vm_flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE:
            raise Errno(errno.EPERM)
    vma.vm_ops = shmem_vm_ops


class ShmemFile:
    """An open file that never had a name (the `struct file` of shmem_file_setup)."""

    huge_shift = 0  # no file of hugetlbfs

    def __init__(self, name: str, mapping: AddressSpace) -> None:
        self.name = name
        self.f_mapping = mapping
        self.f_mode = 3
        self.f_flags = O_RDWR
        self.f_count = 1
        self.ino = 1  # inode number, for /proc/PID/maps

    def d_path(self) -> str:
        """Path as /proc shows it: it is unlinked."""
        return f"/{self.name} (deleted)"

    def mmap(self, vma: VmAreaStruct) -> None:
        """f_op->mmap."""
        shmem_mmap(self, vma)

    def release(self) -> None:
        """The last reference is gone: so is the file."""
        shmem_evict_inode(self.f_mapping)


def shmem_file_setup(system: System, name: str, size: int, flags: int) -> ShmemFile:
    """An unlinked tmpfs file of `size` bytes, accounted at once unless VM_NORESERVE. Raises Errno EINVAL or ENOMEM."""
    if size < 0 or size > MAX_LFS_FILESIZE:
        raise Errno(errno.EINVAL)
    flags &= VM_NORESERVE
    if not flags:
        shmem_acct(system, vm_acct(system, size))
    mapping = new_shmem_mapping(system, None, None, flags)
    mapping.i_size = size
    return ShmemFile(name, mapping)


def shmem_zero_setup(vma: VmAreaStruct) -> None:
    """Make an area shared anonymous memory. Raises Errno(ENOMEM)."""
    file = shmem_file_setup(vma.vm_mm.system, "dev/zero", vma.vm_end - vma.vm_start, vma.vm_flags)
    if vma.vm_file is not None:
        fput(vma.vm_file)
    vma.vm_file = file
    vma.vm_ops = shmem_vm_ops


def shmem_evict_inode(mapping: AddressSpace) -> None:
    """Free everything of a file nobody can reach any more."""
    info: ShmemInodeInfo = mapping.private
    if not info.flags & VM_NORESERVE:
        vm_unacct_memory(info.system, vm_acct(info.system, mapping.i_size))
    mapping.i_size = 0
    shmem_undo_range(mapping, 0, -1)


# -- content ---------------------------------------------------------------------------------------------------------


def shmem_read(mapping: AddressSpace, pos: int, count: int, mark: bool = True) -> bytes:
    """Up to `count` bytes from `pos`; short at the end of the file. Holes read as zeroes.

    Args:
        mark: tell the page cache that the pages were used; a tool that only looks does not.
    """
    info: ShmemInodeInfo = mapping.private
    system = info.system
    end = min(pos + count, mapping.i_size)
    size = system.page_size
    parts = []
    while pos < end:
        offset = pos % size
        length = min(size - offset, end - pos)
        index = pos // size
        page = mapping.pages.get(index)
        if page is not None:
            if page.flags & PG_UPTODATE:
                if mark and not offset:
                    mark_page_accessed(page)
                start = page.pfn * size + offset
                parts.append(bytes(system.ram[start : start + length]))
            else:
                parts.append(bytes(length))
        elif info.has_backing(index):
            # As far as the backing reaches without a page of our own in between.
            last = index
            while (last + 1) * size < end and last + 1 not in mapping.pages and info.has_backing(last + 1):
                last += 1
            length = min((last + 1) * size, end) - pos
            data = info.backing.read(pos, length)
            parts.append(data if len(data) == length else data + bytes(length - len(data)))
        else:
            parts.append(bytes(length))
        pos += length
    return b"".join(parts)


def shmem_write(mapping: AddressSpace, pos: int, data: bytes | memoryview) -> int:
    """Write `data` at `pos`, growing the file; how many bytes were written (short when memory ends after some).

    Raises Errno EPERM (seals), ENOSPC, ENOMEM, EFBIG when nothing was.
    """
    info: ShmemInodeInfo = mapping.private
    system = info.system
    size = system.page_size
    done = 0
    total = len(data)
    while done < total:
        offset = pos % size
        length = min(size - offset, total - done)
        try:
            shmem_write_begin(mapping, info, pos, length)
            page = shmem_getpage(mapping, pos // size, SGP_WRITE)
        except Errno:
            if done:
                return done
            raise
        if page is None:
            raise KernelBug("SGP_WRITE found no page")
        start = page.pfn * size
        if not page.flags & PG_UPTODATE:
            if length < size:
                system.ram[start : start + size] = system.zeroes
            page.flags |= PG_UPTODATE
        system.ram[start + offset : start + offset + length] = data[done : done + length]
        flush_dcache_page(system, page)
        page.flags |= PG_DIRTY
        page.refcount -= 1
        done += length
        pos += length
        if pos > mapping.i_size:
            mapping.i_size = pos
    return done


def shmem_write_begin(mapping: AddressSpace, info: ShmemInodeInfo, pos: int, length: int) -> None:
    """What seals have against a write. Raises Errno(EPERM)."""
    if info.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        raise Errno(errno.EPERM)
    if info.seals & F_SEAL_GROW and pos + length > mapping.i_size:
        raise Errno(errno.EPERM)


def shmem_truncate(mapping: AddressSpace, newsize: int) -> None:
    """Set the size (shmem_setattr with ATTR_SIZE). Raises Errno EPERM (seals), ENOMEM."""
    info: ShmemInodeInfo = mapping.private
    system = info.system
    oldsize = mapping.i_size
    if (newsize < oldsize and info.seals & F_SEAL_SHRINK) or (newsize > oldsize and info.seals & F_SEAL_GROW):
        raise Errno(errno.EPERM)
    if not info.flags & VM_NORESERVE:  # shmem_reacct_size()
        difference = vm_acct(system, newsize) - vm_acct(system, oldsize)
        if difference > 0:
            shmem_acct(system, difference)
        elif difference < 0:
            vm_unacct_memory(system, -difference)
    mapping.i_size = newsize
    if newsize <= oldsize:
        holebegin = vm_acct(system, newsize) << system.arch.page_shift
        if oldsize > holebegin:
            unmap_mapping_range(mapping, holebegin, 0, True, system.arch.page_shift)
        shmem_undo_range(mapping, newsize, -1)


def shmem_undo_range(mapping: AddressSpace, lstart: int, lend: int, unfalloc: bool = False) -> None:
    """Free the whole pages of [lstart, lend] and clear the parts of pages at its ends; lend -1: to the end.

    With `unfalloc` only pages that were fallocated and never written go.
    """
    info: ShmemInodeInfo = mapping.private
    system = info.system
    size = system.page_size
    start = (lstart + size - 1) // size
    partial_start = lstart % size
    if lend == -1:
        end = 1 << 64
        partial_end = 0
    else:
        end = (lend + 1) // size
        partial_end = (lend + 1) % size
    for index in sorted(index for index in mapping.pages if start <= index < end):
        page = mapping.pages[index]
        if not unfalloc or not page.flags & PG_UPTODATE:
            truncate_inode_page(mapping, info, page)
    if not unfalloc:
        if lend == -1:
            info.backing_pages = min(info.backing_pages, start)
        else:
            info.punched.update(range(start, min(end, info.backing_pages)))
    if partial_start:
        top = size
        if start > end:
            top, partial_end = partial_end, 0
        clear_part(mapping, start - 1, partial_start, top)
    if partial_end:
        clear_part(mapping, end, 0, partial_end)


def clear_part(mapping: AddressSpace, index: int, start: int, end: int) -> None:
    """Zero bytes [start, end) of a page, if it is there and has data (zero_user_segment)."""
    info: ShmemInodeInfo = mapping.private
    system = info.system
    page = shmem_aops.find_page(mapping, index)
    if page is None or not page.flags & PG_UPTODATE:
        return
    address = page.pfn * system.page_size
    system.ram[address + start : address + end] = bytes(end - start)
    flush_dcache_page(system, page)
    page.flags |= PG_DIRTY


def truncate_inode_page(mapping: AddressSpace, info: ShmemInodeInfo, page: Page) -> None:
    """Unmap a page everywhere and take it out of the cache."""
    from mm.memory_zap import unmap_mapping_pages

    system = info.system
    if page.mapcount:
        unmap_mapping_pages(mapping, page.index, 1, False)
    if not info.has_backing(page.index):
        shmem_inode_unacct_block(info)
    elif info.sbinfo is not None:
        info.sbinfo.used_blocks -= 1
    system.nr_shmem -= 1
    delete_from_page_cache(system, page)


def shmem_fallocate(mapping: AddressSpace, mode: int, offset: int, length: int) -> None:
    """fallocate(2) on tmpfs; the caller checked offset, length and RLIMIT_FSIZE.

    Raises Errno EOPNOTSUPP, EPERM (seals), ENOSPC, ENOMEM.
    """
    info: ShmemInodeInfo = mapping.private
    system = info.system
    page_shift = system.arch.page_shift
    size = system.page_size
    if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
        raise Errno(errno.EOPNOTSUPP)
    if mode & FALLOC_FL_PUNCH_HOLE:
        if info.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
            raise Errno(errno.EPERM)
        unmap_start = (offset + size - 1) & -size
        unmap_end = (offset + length) & -size
        if unmap_end - 1 > unmap_start:
            unmap_mapping_range(mapping, unmap_start, unmap_end - unmap_start, False, page_shift)
        shmem_undo_range(mapping, offset, offset + length - 1)
        return
    if info.seals & F_SEAL_GROW and offset + length > mapping.i_size:
        raise Errno(errno.EPERM)
    start = offset >> page_shift
    end = (offset + length + size - 1) >> page_shift
    if info.sbinfo is not None and 0 < info.sbinfo.max_blocks < end - start:
        raise Errno(errno.ENOSPC)
    for index in range(start, end):
        try:
            page = shmem_getpage(mapping, index, SGP_FALLOC)
        except Errno:
            if index > start:
                shmem_undo_range(mapping, start << page_shift, (index << page_shift) - 1, True)
            raise
        if page is not None:
            page.flags |= PG_DIRTY
            page.refcount -= 1
    if not mode & FALLOC_FL_KEEP_SIZE and offset + length > mapping.i_size:
        mapping.i_size = offset + length


def shmem_blocks(mapping: AddressSpace) -> int:
    """i_blocks: allocated space in units of 512 bytes."""
    info: ShmemInodeInfo = mapping.private
    pages = info.alloced + info.backing_pages - sum(1 for index in info.punched if index < info.backing_pages)
    return pages * (info.system.page_size // 512)


_SEEK_STEPS = 0x1FF  # pages of a hole looked at one by one


def shmem_seek(mapping: AddressSpace, offset: int, whence: int) -> int:
    """lseek(2) with SEEK_DATA or SEEK_HOLE. Raises Errno(ENXIO)."""
    info: ShmemInodeInfo = mapping.private
    size = info.system.page_size
    if offset < 0 or offset >= mapping.i_size:
        raise Errno(errno.ENXIO)
    index = offset // size
    end = (mapping.i_size + size - 1) // size
    want_data = whence == SEEK_DATA
    while index < end:
        page = mapping.pages.get(index)
        data = bool(page.flags & PG_UPTODATE) if page is not None else info.has_backing(index)
        if data == want_data:
            break
        index += 1
        if want_data and index & _SEEK_STEPS == 0 and not info.has_backing(index):
            # A long hole: straight to the next page there is. Files may be 2^62 bytes long.
            index = min((i for i in mapping.pages if i >= index), default=end)
    found = index * size
    if found > offset:
        if found < mapping.i_size:
            offset = found
        elif want_data:
            raise Errno(errno.ENXIO)
        else:
            offset = mapping.i_size
    return offset
