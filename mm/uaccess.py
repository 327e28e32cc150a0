"""The kernel's access to the memory of the running task (lib/usercopy.c, lib/strncpy_from_user.c, uaccess.h).

An access walks the task's page tables as the MMU does in kernel mode, with the MMU's side effects (Accessed and Dirty
on x86-64); what the tables refuse goes to the architecture's fault routine as a kernel-mode fault, and is tried again.
So system calls fault pages in, count faults, move the vmacache and stop at the first bad byte as on Linux.

    copy_from_user(task, addr, n)          all n bytes, or Errno(EFAULT)
    copy_from_user_partial(task, addr, n)  as many bytes as could be read
    copy_to_user(task, addr, data)         all of it, or Errno(EFAULT)
    copy_to_user_partial(task, addr, data) how many bytes were written
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno, KernelBug, MustSleep
from mm.filemap import flush_dcache_page
from mm.flags import PG_EXEC_MAPPED
from mm.types import Page

if TYPE_CHECKING:
    from mm.types import MmStruct, TaskStruct

MAX_TRIES = 16  # an access that still fails after so many successful faults will fail forever


def access_ok(task: TaskStruct, addr: int, n: int) -> bool:
    """[addr, addr + n) lies within what a user program may name."""
    mm = task.mm
    return mm is not None and addr + n <= mm.arch.task_size


def user_address(task: TaskStruct, addr: int, write: bool, atomic: bool = False) -> int:
    """Physical address behind user address `addr` for a kernel access, faulted in if need be; -1: not accessible.

    `atomic`: nothing is faulted in (pagefault_disable()).
    """
    mm = task.mm
    if mm is None:
        return -1
    arch = mm.arch
    system = mm.system
    words = system.words
    pfn_mask = arch.PTE_PFN_MASK
    index_mask = arch.index_mask
    if write:
        mask, value, mark = arch.UACCESS_WRITE_MASK, arch.UACCESS_WRITE_VALUE, arch.UACCESS_WRITE_SET
    else:
        mask, value, mark = arch.UACCESS_READ_MASK, arch.UACCESS_READ_VALUE, arch.UACCESS_READ_SET
    for _ in range(MAX_TRIES):
        table = mm.pgd << arch.table_word_shift
        pte = 0
        for shift in arch.level_shifts:
            index = table + (addr >> shift & index_mask)
            entry = words[index]
            if not entry:
                break
            if shift == arch.page_shift or (shift == arch.pmd_shift and arch.pmd_trans_huge(entry)):
                pte = entry
                if pte & mask == value:
                    if pte & mark != mark:
                        words[index] = pte | mark
                    span = (1 << shift) - 1
                    return (pte & pfn_mask & ~span) | (addr & span)
                break
            table = (entry & pfn_mask) >> 3
        if atomic or arch.kernel_fault(task, addr, write, pte) is not None:
            return -1
    raise KernelBug(f"user address {addr:#x} faults again and again", mm)


def copy_from_user_partial(task: TaskStruct, addr: int, n: int) -> bytes:
    """The bytes from `addr` up to the first one that can not be read, at most `n`."""
    if n <= 0 or not access_ok(task, addr, n):
        return b""
    system = task.system
    size = system.page_size
    ram = system.ram
    offset = addr & (size - 1)
    if offset + n <= size:
        start = user_address(task, addr, False)
        return b"" if start < 0 else bytes(ram[start : start + n])
    parts = []
    while n:
        length = min(size - offset, n)
        start = user_address(task, addr, False)
        if start < 0:
            break
        parts.append(ram[start : start + length])
        addr += length
        n -= length
        offset = 0
    return b"".join(parts)


def copy_from_user(task: TaskStruct, addr: int, n: int) -> bytes:
    """`n` bytes of user memory. Raises Errno(EFAULT) unless all can be read."""
    data = copy_from_user_partial(task, addr, n)
    if len(data) != n:
        raise Errno(errno.EFAULT)
    return data


def copy_to_user_partial(task: TaskStruct, addr: int, data: bytes | bytearray | memoryview) -> int:
    """Write `data` to user memory up to the first byte that can not be written; how many bytes were."""
    n = len(data)
    if not n or not access_ok(task, addr, n):
        return 0
    system = task.system
    size = system.page_size
    ram = system.ram
    frames = system.mem_map.frames
    page_shift = system.arch.page_shift
    done = 0
    while done < n:
        length = min(size - (addr & (size - 1)), n - done)
        try:
            start = user_address(task, addr, True)
        except MustSleep:
            task.wait_for_userfault(LateCopy(addr, data[done:]))
            return n
        if start < 0:
            break
        ram[start : start + length] = data if length == n else data[done : done + length]
        page = frames[start >> page_shift]
        if isinstance(page, Page) and page.flags & PG_EXEC_MAPPED:  # a page without a Page was never executable
            flush_dcache_page(system, page)
        done += length
        addr += length
    return done


class LateCopy:
    """What a system call wrote to a page that a userfaultfd has yet to supply.

    The call has done its work and cannot be made again, so it ends; its task copies this when the page is there, before
    it runs on. DEVIATION D13: where the page is gone by then (unmapped meanwhile), Linux would return EFAULT or less.
    """

    interruptible = False
    retry = None
    key = None

    def __init__(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        self.addr = addr
        self.data = bytes(data)

    def start(self) -> bool:
        """What was waited for is there: the fault stands before this in the list."""
        return False

    def abort(self) -> None:
        """The task is killed."""


def copy_to_user(task: TaskStruct, addr: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to user memory, or raise Errno(EFAULT) (what could be written has been)."""
    if copy_to_user_partial(task, addr, data) != len(data):
        raise Errno(errno.EFAULT)


def clear_user(task: TaskStruct, addr: int, n: int) -> int:
    """Zero `n` bytes of user memory; how many could not be."""
    zeroes = task.system.zeroes
    left = n
    while left:
        length = min(left, len(zeroes) - (addr & (len(zeroes) - 1)))
        if copy_to_user_partial(task, addr, zeroes[:length]) != length:
            return left
        addr += length
        left -= length
    return 0


def get_user(task: TaskStruct, addr: int, size: int) -> int:
    """An unsigned little-endian integer of `size` bytes. Raises Errno(EFAULT)."""
    return int.from_bytes(copy_from_user(task, addr, size), "little")


def put_user(task: TaskStruct, addr: int, value: int, size: int) -> None:
    """Store the low `size` bytes of `value`. Raises Errno(EFAULT)."""
    copy_to_user(task, addr, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))


def strncpy_from_user(task: TaskStruct, addr: int, limit: int) -> bytes:
    """The bytes before the first NUL, at most `limit` of them (then there was no NUL). Raises Errno(EFAULT)."""
    mm = task.mm
    if mm is None or addr >= mm.arch.task_size:
        raise Errno(errno.EFAULT)
    size = task.system.page_size
    ram = task.system.ram
    end = mm.arch.task_size
    result = b""
    while len(result) < limit:
        if addr >= end:
            raise Errno(errno.EFAULT)
        start = user_address(task, addr, False)
        if start < 0:
            raise Errno(errno.EFAULT)
        length = min(size - (addr & (size - 1)), limit - len(result))
        chunk = bytes(ram[start : start + length])
        nul = chunk.find(0)
        if nul >= 0:
            return result + chunk[:nul]
        result += chunk
        addr += length
    return result


def fault_in_pages_readable(task: TaskStruct, addr: int, n: int) -> bool:
    """Touch one byte of each page of [addr, addr + n) for reading; False at the first that fails."""
    return _fault_in(task, addr, n, False)


def fault_in_pages_writeable(task: TaskStruct, addr: int, n: int) -> bool:
    """Touch one byte of each page of [addr, addr + n) for writing; False at the first that fails."""
    return _fault_in(task, addr, n, True)


def _fault_in(task: TaskStruct, addr: int, n: int, write: bool) -> bool:
    if n <= 0:
        return True
    if not access_ok(task, addr, n):
        return False
    size = task.system.page_size
    last = addr + n - 1
    while addr <= last:
        if user_address(task, addr, write) < 0:
            return False
        addr += size
    # The last byte's page, when the steps from an unaligned start have jumped over its beginning.
    return last & -size != addr & -size or user_address(task, last, write) >= 0


def access_process_vm(mm: MmStruct, addr: int, n: int) -> bytes:
    """Up to `n` bytes of an address space as they are: no fault, counter or Accessed bit; stops at an absent page."""
    from mm.pgtable import pmd_offset, pte_offset

    arch = mm.arch
    system = mm.system
    size = system.page_size
    parts = []
    while n > 0:
        index = pte_offset(mm, addr)
        if index >= 0:
            pte = system.words[index]
            if not pte or not arch.pte_present(pte):
                break
            start = (arch.pte_pfn(pte) << arch.page_shift) + (addr & (size - 1))
        else:
            pmd = pmd_offset(mm, addr)
            entry = system.words[pmd] if pmd >= 0 else 0
            if not entry:
                break
            span = arch.pmd_size - 1
            start = ((arch.pte_pfn(entry) << arch.page_shift) & ~span) + (addr & span)
        length = min(size - (addr & (size - 1)), n)
        parts.append(system.ram[start : start + length])
        addr += length
        n -= length
    return b"".join(parts)
