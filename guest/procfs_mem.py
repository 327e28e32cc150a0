"""/proc/PID/mem, pagemap and clear_refs (fs/proc/base.c, task_mmu.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import OpenFile
from guest.vfs_flags import SEEK_CUR, SEEK_SET
from mm.errors import Errno
from mm.gup import access_remote_vm
from mm.memory_cow import vm_normal_page
from mm.memory_rss import page_anon
from mm.mmap import vma_set_page_prot
from mm.pgtable import pte_range, report_pte, report_ptes, walk_pmds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.types import MmStruct, Page, VmAreaStruct

from mm.flags import PG_REFERENCED, VM_HUGETLB, VM_PFNMAP

PM_ENTRY_BYTES = 8
PM_SOFT_DIRTY, PM_MMAP_EXCLUSIVE, PM_FILE, PM_SWAP, PM_PRESENT = 1 << 55, 1 << 56, 1 << 61, 1 << 62, 1 << 63
PM_PFRAME_MASK = (1 << 55) - 1
MAX_SWAPFILES_SHIFT = 5
CAP_SYS_ADMIN = 21
CLEAR_REFS_ALL, CLEAR_REFS_ANON, CLEAR_REFS_MAPPED, CLEAR_REFS_SOFT_DIRTY, CLEAR_REFS_MM_HIWATER_RSS = range(1, 6)


class AddressFile(OpenFile):
    """A file whose position is an address, or counts pages (mem_lseek())."""

    def __init__(self, path: Path, inode: ProcInode, flags: int, task: Task) -> None:
        super().__init__(path, inode, flags)
        self.mm: MmStruct | None = inode.access_mm(task)

    def live_mm(self) -> MmStruct | None:
        """The mm, unless its last user is gone."""
        return self.mm if self.mm is not None and self.mm.mm_users > 0 else None

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.f_pos
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        self.f_pos = offset & 0xFFFFFFFFFFFFFFFF
        return self.f_pos


class MemFile(AddressFile):
    """/proc/PID/mem: the task's memory by address, as ptrace would reach it."""

    def read(self, task: Task, pos: int, count: int) -> bytes:
        mm = self.live_mm()
        if mm is None or not count:
            return b""
        data = bytes(access_remote_vm(mm, pos, count))
        if not data:
            raise Errno(errno.EIO)
        return data

    def write(self, task: Task, pos: int, data: bytes) -> int:
        mm = self.live_mm()
        if mm is None or not data:
            return 0
        done = len(access_remote_vm(mm, pos, bytes(data)))
        if not done:
            raise Errno(errno.EIO)
        return done


def open_mem(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """mem_open(). Raises EACCES."""
    return MemFile(path, inode, flags, task)


# pagemap


class PagemapFile(AddressFile):
    """/proc/PID/pagemap: 8 bytes a page. Frame numbers are shown to CAP_SYS_ADMIN only."""

    def __init__(self, path: Path, inode: ProcInode, flags: int, task: Task) -> None:
        super().__init__(path, inode, flags, task)
        self.show_pfn = task.capable(CAP_SYS_ADMIN)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        mm = self.live_mm()
        if mm is None:
            return b""
        if pos % PM_ENTRY_BYTES or count % PM_ENTRY_BYTES:
            raise Errno(errno.EINVAL)
        start = (pos // PM_ENTRY_BYTES) << mm.arch.page_shift
        out = bytearray()
        while len(out) < count and start < mm.task_size:
            # a PMD at a time, all of it (PAGEMAP_WALK_SIZE)
            end = min((start // mm.arch.pmd_size + 1) * mm.arch.pmd_size, mm.task_size)
            for part in self.entries(mm, start, end):
                out += part
            start = end
        return bytes(out[:count])

    def entries(self, mm: MmStruct, start: int, end: int) -> Iterator[bytes]:
        """walk_page_range() for pagemap: the entries of [start, end)."""
        vma = mm.ops.find_vma(mm, start)
        while start < end:
            if vma is None or start < vma.vm_start:
                following = end if vma is None else min(end, vma.vm_start)
                yield from self.hole(mm, start, following)
            else:
                following = min(end, vma.vm_end)
                yield from self.area(mm, vma, start, following)
                vma = vma.vm_next
            start = following

    def hole(self, mm: MmStruct, start: int, end: int) -> Iterator[bytes]:
        """pagemap_pte_hole(): nothing is mapped; an area may still be soft-dirty."""
        shift = mm.arch.page_shift
        while start < end:
            vma = mm.ops.find_vma(mm, start)
            stop = end if vma is None else min(end, vma.vm_start)
            if stop > start:
                yield bytes(PM_ENTRY_BYTES * ((stop - start) >> shift))
                start = stop
            if vma is None:
                return
            stop = min(end, vma.vm_end)
            if stop > start:
                flags = PM_SOFT_DIRTY if vma.vm_flags & mm.arch.VM_SOFTDIRTY else 0
                yield flags.to_bytes(8, "little") * ((stop - start) >> shift)
                start = stop

    def area(self, mm: MmStruct, vma: VmAreaStruct, start: int, end: int) -> Iterator[bytes]:
        """The part [start, end) of an area."""
        if vma.vm_flags & VM_PFNMAP:
            yield from self.hole(mm, start, end)
            return
        if vma.vm_flags & VM_HUGETLB:
            yield from self.hugetlb(mm, vma, start, end)
            return
        words = mm.system.words
        for first, last, pmd in walk_pmds(mm, start, end):
            if first > start:
                yield from self.hole(mm, start, first)
            start = last
            if mm.arch.pmd_trans_huge(words[pmd]):
                yield from self.huge(mm, vma, words[pmd], first, last)
                continue
            low, high = pte_range(mm, pmd, first, last)
            for pte in words[low:high].tolist():
                yield self.entry(mm, vma, pte).to_bytes(PM_ENTRY_BYTES, "little")
        if start < end:
            yield from self.hole(mm, start, end)

    def huge(self, mm: MmStruct, vma: VmAreaStruct, pmd: int, start: int, end: int) -> Iterator[bytes]:
        """pagemap_pmd_range() of the part [start, end) of a huge page. The huge zero page counts as a file's."""
        arch = mm.arch
        frame = arch.pte_pfn(pmd) + (start % arch.pmd_size >> arch.page_shift) if self.show_pfn else 0
        flags = PM_PRESENT
        if vma.vm_flags & arch.VM_SOFTDIRTY or arch.pte_soft_dirty(pmd):
            flags |= PM_SOFT_DIRTY
        page = vm_normal_page(mm, pmd, peek=True)
        if page is None or not page_anon(page):
            flags |= PM_FILE
        if page is not None and page.mapcount == 1:
            flags |= PM_MMAP_EXCLUSIVE
        for number in range((end - start) >> arch.page_shift):
            pfn = frame + number if self.show_pfn else 0
            yield (pfn & PM_PFRAME_MASK | flags).to_bytes(PM_ENTRY_BYTES, "little")

    def hugetlb(self, mm: MmStruct, vma: VmAreaStruct, start: int, end: int) -> Iterator[bytes]:
        """pagemap_hugetlb_range() for the part [start, end) of an area of huge pages."""
        from mm.hugetlb import walk_hugetlb_range

        shift = mm.arch.page_shift
        for first, last, _, page in walk_hugetlb_range(vma, start, end):
            flags = PM_SOFT_DIRTY if vma.vm_flags & mm.arch.VM_SOFTDIRTY else 0
            frame = 0
            if page is not None:
                flags |= PM_PRESENT | (0 if page_anon(page) else PM_FILE)
                flags |= PM_MMAP_EXCLUSIVE if page.mapcount == 1 else 0
                frame = page.pfn + ((first & page.hstate.size - 1) >> shift) if self.show_pfn else 0
            for number in range((last - first) >> shift):
                pfn = frame + number if frame else 0
                yield (pfn & PM_PFRAME_MASK | flags).to_bytes(PM_ENTRY_BYTES, "little")

    def entry(self, mm: MmStruct, vma: VmAreaStruct, pte: int) -> int:
        """pte_to_pagemap_entry()."""
        arch, frame, flags = mm.arch, 0, 0
        page: Page | None = None
        if arch.pte_present(pte):
            frame = arch.pte_pfn(pte) if self.show_pfn else 0
            flags = PM_PRESENT | (PM_SOFT_DIRTY if arch.pte_soft_dirty(pte) else 0)
            page = vm_normal_page(mm, pte, peek=True)
        elif pte:
            flags = PM_SWAP
            if self.show_pfn:
                kind, offset = arch.pte_to_swp_entry(pte)
                frame = kind | offset << MAX_SWAPFILES_SHIFT
        if page is not None:
            flags |= 0 if page_anon(page) else PM_FILE
            flags |= PM_MMAP_EXCLUSIVE if page.mapcount == 1 else 0
        if vma.vm_flags & arch.VM_SOFTDIRTY:
            flags |= PM_SOFT_DIRTY
        return frame & PM_PFRAME_MASK | flags


def open_pagemap(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """pagemap_open(). Raises EACCES."""
    return PagemapFile(path, inode, flags, task)


# clear_refs


def show_nothing(inode: ProcInode, task: Task) -> bytes:
    """A file that can only be written."""
    raise Errno(errno.EINVAL)


def store_clear_refs(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """clear_refs_write(): 1-3 clear Accessed bits, 4 soft-dirty bits, 5 the peak of rss. Raises EINVAL."""
    text = data[:12].partition(b"\0")[0].strip()
    if not text.lstrip(b"+-").isdigit():
        raise Errno(errno.EINVAL)
    kind = int(text)
    if not CLEAR_REFS_ALL <= kind <= CLEAR_REFS_MM_HIWATER_RSS:
        raise Errno(errno.EINVAL)
    mm = inode.task.mm
    if mm is not None and kind == CLEAR_REFS_MM_HIWATER_RSS:
        mm.hiwater_rss = sum(max(mm.rss_stat[index], 0) for index in (0, 1, 3))
    elif mm is not None:
        clear_refs(mm, kind)
    return min(len(data), 12)


def clear_refs(mm: MmStruct, kind: int) -> None:
    """The walk of clear_refs_write()."""
    soft_dirty = kind == CLEAR_REFS_SOFT_DIRTY
    vma = mm.mmap
    while vma is not None:
        if soft_dirty and vma.vm_flags & mm.arch.VM_SOFTDIRTY:
            vma.vm_flags &= ~mm.arch.VM_SOFTDIRTY
            vma_set_page_prot(vma)
        vma = vma.vm_next
    mm.ops.find_vma(mm, 0)  # walk_page_range() looks its first area up
    vma = mm.mmap
    while vma is not None:
        skip = (kind == CLEAR_REFS_ANON and vma.vm_file is not None) or (
            kind == CLEAR_REFS_MAPPED and vma.vm_file is None
        )
        if not skip and not vma.vm_flags & (VM_PFNMAP | VM_HUGETLB):
            clear_area(mm, vma, soft_dirty)
        vma = vma.vm_next
    if soft_dirty:
        mm.tlb_flush_pending = True  # else not: an entry the MMU remembers does not become young again


def clear_area(mm: MmStruct, vma: VmAreaStruct, soft_dirty: bool) -> None:
    """clear_refs_pte_range() over one area.

    DEVIATION D14: Linux flushes no TLB when it clears Accessed, so a page may be used without becoming Accessed again
    for as long as the CPU remembers its entry. Here the next use sets it.
    """
    arch, words = mm.arch, mm.system.words
    if soft_dirty and not arch.VM_SOFTDIRTY:
        return  # without soft-dirty tracking there is nothing to clear
    for start, end, pmd in walk_pmds(mm, vma.vm_start, vma.vm_end):
        if arch.pmd_trans_huge(words[pmd]):
            old = words[pmd]
            words[pmd] = cleared(mm, old, soft_dirty)
            if mm.system.listener is not None:
                report_pte(mm, start & arch.pmd_mask, old, words[pmd])
            continue
        first, last = pte_range(mm, pmd, start, end)
        before = words[first:last].tolist()
        for index, pte in enumerate(before, first):
            if arch.pte_present(pte):
                words[index] = cleared(mm, pte, soft_dirty)
        if mm.system.listener is not None:
            report_ptes(mm, start, first, before)


def cleared(mm: MmStruct, entry: int, soft_dirty: bool) -> int:
    """A present entry, of a huge page too, after clear_refs; the page's own mark of use goes along."""
    arch = mm.arch
    if soft_dirty:
        new = arch.pte_clear_soft_dirty(arch.pte_wrprotect(entry))
    else:
        page = vm_normal_page(mm, entry, peek=True)  # a copy has no mark
        if page is None and not arch.pmd_trans_huge(entry):
            return entry  # the zero page and raw frames stay as they are; the huge zero page does not
        new = arch.pte_mkold(entry)
        if page is not None:
            page.flags &= ~PG_REFERENCED
    return new
