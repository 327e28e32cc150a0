"""process_vm_readv and process_vm_writev (mm/process_vm_access.c): copying between two processes.

The remote pages are taken by get_user_pages, so they need the owner's own permission and fault in as for the owner; the
local side is ordinary user access. Whatever was copied before a failure counts.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.iovec import import_iovec, iovec_from_user
from guest.ptrace_access import PTRACE_MODE_ATTACH_REALCREDS, mm_access
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.filemap import flush_dcache_page
from mm.gup import FOLL_REMOTE, FOLL_TOUCH, FOLL_WRITE, get_user_pages
from mm.page_alloc import put_page
from mm.page_rmap import set_page_dirty
from mm.uaccess import copy_from_user_partial, copy_to_user_partial

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct, Page

_MASK64 = 0xFFFFFFFFFFFFFFFF


class LocalIter:
    """The caller's own areas, used up from the front (struct iov_iter)."""

    __slots__ = ("areas", "count", "task")

    def __init__(self, task: Task, areas: list[tuple[int, int]]) -> None:
        self.task = task
        self.areas = [area for area in reversed(areas) if area[1]]
        self.count = sum(length for _, length in areas)

    def _advance(self, step: int) -> None:
        base, length = self.areas.pop()
        if step < length:
            self.areas.append((base + step, length - step))
        self.count -= step

    def copy_in(self, data: memoryview) -> int:
        """Write `data` (a piece of a remote page) to the areas; how much went, short at a fault."""
        done = 0
        while done < len(data) and self.areas:
            base, length = self.areas[-1]
            want = min(length, len(data) - done)
            copied = copy_to_user_partial(self.task, base, data[done : done + want])
            self._advance(copied)
            done += copied
            if copied < want:
                break
        return done

    def copy_out(self, count: int) -> bytes:
        """Up to `count` bytes from the areas; short at a fault."""
        parts = []
        while count and self.areas:
            base, length = self.areas[-1]
            want = min(length, count)
            part = copy_from_user_partial(self.task, base, want)
            self._advance(len(part))
            parts.append(part)
            count -= len(part)
            if len(part) < want:
                break
        return b"".join(parts)


def _copy_page(page: Page, offset: int, count: int, local: LocalIter, write: bool) -> int:
    """Copy between one remote page and the local areas; bytes copied."""
    system = local.task.system
    start = page.pfn * system.page_size + offset
    if not write:
        return local.copy_in(system.ram[start : start + count])
    data = local.copy_out(count)
    system.ram[start : start + len(data)] = data
    flush_dcache_page(system, page)
    return len(data)


def _rw_pages(pages: list[Page], offset: int, count: int, local: LocalIter, write: bool) -> bool:
    """process_vm_rw_pages(): `count` bytes from `offset` in the first page on; False where the local side faulted."""
    page_size = local.task.system.page_size
    for page in pages:
        if not count or not local.count:
            break
        copy = min(page_size - offset, count)
        copied = _copy_page(page, offset, copy, local, write)
        count -= copied
        if copied < copy and local.count:
            return False
        offset = 0
    return True


def _rw_single_vec(mm: MmStruct, addr: int, length: int, local: LocalIter, write: bool) -> bool:
    """process_vm_rw_single_vec(): one remote area; False at a fault on either side."""
    if not length:
        return True
    arch = mm.arch
    system = mm.system
    at = addr & arch.page_mask
    offset = addr - at
    nr_pages = ((((addr + length - 1) & _MASK64) >> arch.page_shift) - (addr >> arch.page_shift) + 1) & _MASK64
    gup_flags = FOLL_TOUCH | FOLL_REMOTE | (FOLL_WRITE if write else 0)
    while nr_pages > 0 and local.count:
        pages: list[Page] = []
        try:
            get_user_pages(mm, at, min(nr_pages, arch.page_size * 2 // 8), gup_flags, pages)
        except Errno:
            return False
        count = min(len(pages) * arch.page_size - offset, length)
        fine = _rw_pages(pages, offset, count, local, write)
        for page in pages:
            if write:
                set_page_dirty(page)
            put_page(system, page)
        if not fine:
            return False
        length -= count
        offset = 0
        nr_pages -= len(pages)
        at += len(pages) * arch.page_size
    return True


def process_vm_rw(
    task: Task, pid: int, lvec: int, liovcnt: int, rvec: int, riovcnt: int, flags: int, write: bool
) -> int:
    """Both calls. Bytes copied.

    Refuses in this order: EINVAL for flags, what the local array earns, what the remote array earns, ESRCH, EPERM, and
    EFAULT where nothing could be copied. Empty arrays copy nothing, whoever they name.
    """
    if flags:
        raise Errno(errno.EINVAL)
    local = LocalIter(task, import_iovec(task, lvec, liovcnt))
    if not local.count:
        return 0
    remote = iovec_from_user(task, rvec, riovcnt)
    if not any(length for _, length in remote):
        return 0
    pid &= 0xFFFFFFFF
    target = task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    try:
        mm = mm_access(task, target, PTRACE_MODE_ATTACH_REALCREDS)
    except Errno as error:
        raise Errno(errno.EPERM if error.number == errno.EACCES else error.number) from None
    total = local.count
    fine = True
    for base, length in remote:
        if not local.count or not fine:
            break
        fine = _rw_single_vec(mm, base, length, local, write)
    done = total - local.count
    if not done and not fine:
        raise Errno(errno.EFAULT)
    return done


def sys_process_vm_readv(task: Task, pid: int, lvec: int, liovcnt: int, rvec: int, riovcnt: int, flags: int) -> int:
    """Copy from the memory of process `pid` to one's own."""
    return process_vm_rw(task, pid, lvec, liovcnt, rvec, riovcnt, flags, False)


def sys_process_vm_writev(task: Task, pid: int, lvec: int, liovcnt: int, rvec: int, riovcnt: int, flags: int) -> int:
    """Copy from one's own memory to that of process `pid`."""
    return process_vm_rw(task, pid, lvec, liovcnt, rvec, riovcnt, flags, True)


CALLS = (
    Call("process_vm_readv", sys_process_vm_readv, FULL),
    Call("process_vm_writev", sys_process_vm_writev, FULL),
)
