"""Growing stacks: an access just below a VM_GROWSDOWN area extends the area instead of failing (expand_downwards).

Between a stack and whatever lies below it the kernel keeps `stack_guard_gap` (256 pages) free of accessible memory, so
that a function that skips a page with its locals cannot land in someone else's area. mmap keeps out of the gap
(`vm_start_gap`), and growth stops at it.

    PPPP..................SSSSSSSS      PPPP.....ssssSSSSSSSSSS
        <- at least the gap ->^ touched          ^ new vm_start

Growing needs what mapping needs: RLIMIT_AS, RLIMIT_STACK, RLIMIT_MEMLOCK for a locked stack, and the overcommit
policy's consent.

These functions are used on the fault path and return an errno (0: done) where others raise.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import (
    CAP_IPC_LOCK,
    RLIMIT_MEMLOCK,
    RLIMIT_STACK,
    VM_ACCESS_FLAGS,
    VM_GROWSDOWN,
    VM_LOCKED,
)
from mm.interval_tree import anon_vma_interval_tree_insert, anon_vma_interval_tree_remove
from mm.rmap import anon_vma_prepare
from mm.util import capable, may_expand_vm, rlimit, security_vm_enough_memory_mm, vm_stat_account
from mm.vma_tree import vma_gap_update

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF


def _acct_stack_growth(vma: VmAreaStruct, size: int, grow: int) -> int:
    """May the stack become `size` bytes, `grow` pages more than now? 0 or an errno; the promise is made."""
    mm = vma.vm_mm
    if not may_expand_vm(mm, vma.vm_flags, grow):
        return errno.ENOMEM
    if size > rlimit(mm, RLIMIT_STACK):
        return errno.ENOMEM
    if vma.vm_flags & VM_LOCKED:
        limit = rlimit(mm, RLIMIT_MEMLOCK) >> mm.arch.page_shift
        if mm.locked_vm + grow > limit and not capable(mm, CAP_IPC_LOCK):
            return errno.ENOMEM
    try:
        security_vm_enough_memory_mm(mm, grow)
    except Errno as refusal:
        return refusal.number
    return 0


def expand_downwards(vma: VmAreaStruct, address: int) -> int:
    """Extend `vma` down so that it contains `address`; 0, or the errno that says why not."""
    mm = vma.vm_mm
    system = mm.system
    shift = mm.arch.page_shift
    address &= mm.arch.page_mask
    if address < system.mmap_min_addr:
        return errno.EPERM
    prev = vma.vm_prev
    if (
        prev is not None
        and not prev.vm_flags & VM_GROWSDOWN
        and prev.vm_flags & VM_ACCESS_FLAGS
        and (address - prev.vm_end) & _MASK64 < system.stack_guard_gap
    ):
        return errno.ENOMEM
    anon_vma_prepare(vma)
    error = 0
    if address < vma.vm_start:
        size = vma.vm_end - address
        grow = (vma.vm_start - address) >> shift
        error = errno.ENOMEM
        if grow <= vma.vm_pgoff:
            error = _acct_stack_growth(vma, size, grow)
            if not error:
                if vma.vm_flags & VM_LOCKED:
                    mm.locked_vm += grow
                vm_stat_account(mm, vma.vm_flags, grow)
                for avc in vma.anon_vma_chain:
                    anon_vma_interval_tree_remove(avc, avc.anon_vma.rb_root)
                vma.vm_start = address
                vma.vm_pgoff -= grow
                for avc in vma.anon_vma_chain:
                    anon_vma_interval_tree_insert(avc, avc.anon_vma.rb_root)
                vma_gap_update(vma)
                if system.listener is not None:
                    from mm.events import VmaAdjust

                    system.listener(VmaAdjust.of(vma))
    if system.validate_level:
        from mm.validate import validate_mm

        validate_mm(mm)
    return error


def expand_stack(vma: VmAreaStruct, address: int) -> int:
    """Extend a stack down to `address`: 0, or an errno. All architectures here have stacks that grow down."""
    return expand_downwards(vma, address)


def find_extend_vma(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """The area that contains `addr`, growing a stack to it where that is possible (for get_user_pages)."""
    addr &= mm.arch.page_mask
    vma = mm.ops.find_vma(mm, addr)
    if vma is None:
        return None
    start = vma.vm_start
    if start <= addr:
        return vma
    if not vma.vm_flags & VM_GROWSDOWN or mm.ops.expand_stack(vma, addr):
        return None
    if vma.vm_flags & VM_LOCKED:
        from mm.gup import populate_vma_page_range

        populate_vma_page_range(vma, addr, start, ignore_errors=True)
    return vma
