"""/proc/kpagecount and kpageflags: a number a frame, from mem_map itself (fs/proc/page.c).

Read by tools that got frame numbers from /proc/PID/pagemap. 8 bytes a frame; offset and count are multiples of 8.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import OpenFile
from guest.vfs_flags import SEEK_CUR, SEEK_SET
from mm.errors import Errno
from mm.flags import (
    PG_ACTIVE,
    PG_COMPOUND,
    PG_DIRTY,
    PG_HWPOISON,
    PG_LRU,
    PG_MLOCKED,
    PG_REFERENCED,
    PG_RESERVED,
    PG_SWAPBACKED,
    PG_TABLE,
    PG_UNEVICTABLE,
    PG_UPTODATE,
)
from mm.mem_map import NEW_ANON_FLAGS
from mm.memory_rss import page_anon, page_ksm
from mm.types import AnonVma

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.system import System
    from mm.types import Page

_ENTRY = 8  # bytes
KPF_BUDDY, KPF_MMAP, KPF_ANON = 1 << 10, 1 << 11, 1 << 12
KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_THP, KPF_ZERO_PAGE, KPF_PGTABLE = 1 << 15, 1 << 16, 1 << 22, 1 << 24, 1 << 26
KPF_KSM = 1 << 21
#: PG_* that are shown one for one, and their KPF_* bit (include/uapi/linux/kernel-page-flags.h).
_SAME = (
    (PG_REFERENCED, 1 << 2), (PG_UPTODATE, 1 << 3), (PG_DIRTY, 1 << 4), (PG_LRU, 1 << 5), (PG_ACTIVE, 1 << 6),
    (PG_SWAPBACKED, 1 << 14), (PG_UNEVICTABLE, 1 << 18), (PG_HWPOISON, 1 << 19), (PG_RESERVED, 1 << 32),
    (PG_MLOCKED, 1 << 33),
)  # fmt: skip


def same_flags(flags: int) -> int:
    """The bits that say the same inside and outside."""
    return sum(bit for mask, bit in _SAME if flags & mask)


_PLAIN = same_flags(NEW_ANON_FLAGS) | KPF_MMAP | KPF_ANON  # a page known by its anon_vma alone


def stable_page_flags(system: System, page: Page) -> int:
    """What kpageflags says of a frame in use."""
    own = page.flags
    if own & PG_COMPOUND and page.private is not page and not own & PG_RESERVED:
        own &= PG_HWPOISON  # the other marks of a huge page are its head's
    flags = same_flags(own)
    if page.flags & PG_TABLE and page.index:
        flags |= KPF_PGTABLE
    if page.mapcount > 0:
        flags |= KPF_MMAP
    if page_anon(page):
        flags |= KPF_ANON | (KPF_KSM if page_ksm(page) else 0)
    if page.flags & PG_COMPOUND:
        head = page.private
        flags |= KPF_COMPOUND_HEAD if head is page else KPF_COMPOUND_TAIL
        if head.pfn == system.huge_zero_pfn:
            flags |= KPF_THP | KPF_ZERO_PAGE
        elif head.flags & PG_LRU or page_anon(head):
            flags |= KPF_THP
    elif page.pfn == system.zero_pfn:
        flags |= KPF_ZERO_PAGE
    return flags


class PageFile(OpenFile):
    """A file of one number a frame."""

    f_inode: ProcInode

    def value(self, system: System, page: Page | AnonVma, pfn: int) -> int:
        """What to say of a frame in use."""
        raise NotImplementedError

    def free(self, system: System, first: int, count: int) -> set[int]:
        """Frames of [first, first + count) that are free and have a value; what it is, is KPF_BUDDY."""
        return set()

    def read(self, task: Task, pos: int, count: int) -> bytes:
        system = task.system
        frames = system.mem_map.frames
        if pos % _ENTRY or count % _ENTRY:
            raise Errno(errno.EINVAL)
        first = pos // _ENTRY
        part = frames[first : first + count // _ENTRY]
        free = self.free(system, first, len(part))
        out = bytearray(len(part) * _ENTRY)
        words = memoryview(out).cast("Q")
        for index, frame in enumerate(part):
            if frame is not None:
                words[index] = self.value(system, frame, first + index)
            elif first + index in free:
                words[index] = KPF_BUDDY
        return bytes(out)

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """mem_lseek()."""
        if whence == SEEK_CUR:
            offset += self.f_pos
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        self.f_pos = offset & 0xFFFFFFFFFFFFFFFF
        return self.f_pos

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.EIO)


class CountFile(PageFile):
    """How many entries map each frame. Page tables are of a type, and types are kept where the count is: 0."""

    def value(self, system: System, page: Page | AnonVma, pfn: int) -> int:
        if isinstance(page, AnonVma):
            return int(system.mem_map.users[pfn])
        return 0 if page.flags & PG_TABLE else max(page.mapcount, 0)


class FlagsFile(PageFile):
    """What each frame is."""

    def value(self, system: System, page: Page | AnonVma, pfn: int) -> int:
        return _PLAIN if isinstance(page, AnonVma) else stable_page_flags(system, page)

    def free(self, system: System, first: int, count: int) -> set[int]:
        """Frames in the buddy lists; those on the CPU's list are in none."""
        last = first + count
        found: set[int] = set()
        for order, area in enumerate(system.zone.free_area):
            for pfn in area:
                if pfn < last and pfn + (1 << order) > first:
                    found.update(range(max(pfn, first), min(pfn + (1 << order), last)))
        return found


def open_kpagecount(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """kpagecount_proc_ops."""
    return CountFile(path, inode, flags)


def open_kpageflags(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """kpageflags_proc_ops."""
    return FlagsFile(path, inode, flags)
