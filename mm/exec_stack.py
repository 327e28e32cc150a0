"""The new program's stack during exec (the mm part of Linux's fs/exec.c).

Before exec knows where the stack of the new program will be, it must copy the arguments somewhere. So it makes the new
address space with one area at the highest address a stack can have, copies the strings to its top, and moves it later:

    bprm_stack         [----------------------------------S]   one page below stack_top_max, grows as it is written
    copy_strings       [-------------------------------SSSS]
    setup_arg_pages    [------------SSSS-------------------]   moved down to stack_top (page tables, not bytes),
                       [-------sssssSSSS-------------------]   and expanded by 128 KiB

While it is a temporary stack it has both VM_SEQ_READ and VM_RAND_READ, a combination that no other area has, so that
nobody migrates its pages. Without randomisation and with four-level tables the move is by nothing; with five levels it
is from 2^56 to 2^47.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm import memory
from mm.errors import Errno
from mm.flags import READ_IMPLIES_EXEC, VM_EXEC, VM_STACK_INCOMPLETE_SETUP
from mm.mprotect import mprotect_fixup
from mm.pgtable import free_pgd_range
from mm.types import VmAreaStruct
from mm.vma_adjust import _vma_adjust
from mm.vma_tree import insert_vm_struct

if TYPE_CHECKING:
    from mm.types import MmStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
_STACK_EXPAND = 131072  # bytes: room that setup_arg_pages adds below the arguments

EXSTACK_DEFAULT = 0  # whatever the architecture does
EXSTACK_DISABLE_X = 1
EXSTACK_ENABLE_X = 2


def _vm_stack_flags(mm: MmStruct) -> int:
    """VM_STACK_FLAGS for the current task's personality."""
    current = mm.system.current
    executable = current is not None and current.personality & READ_IMPLIES_EXEC
    return mm.arch.VM_STACK_FLAGS | (VM_EXEC if executable else 0)


def bprm_stack(mm: MmStruct) -> VmAreaStruct:
    """Make the temporary stack, one page, in the fresh address space `mm` (__bprm_mm_init).

    The strings go below `vma.vm_end - 8`.

    Raises:
        Errno: ENOMEM by the overcommit policy.
    """
    arch = mm.arch
    flags = arch.VM_SOFTDIRTY | _vm_stack_flags(mm) | VM_STACK_INCOMPLETE_SETUP
    end = arch.stack_top_max
    vma = VmAreaStruct(mm, end - arch.page_size, end, flags, arch.vm_get_page_prot(flags))
    insert_vm_struct(mm, vma)
    mm.stack_vm = mm.total_vm = 1
    return vma


def _shift_arg_pages(vma: VmAreaStruct, shift: int) -> None:
    """Move the stack down by `shift` bytes: page tables move, pages stay.

    The area covers both places meanwhile, so that every page can be found through rmap at every moment.
    """
    mm = vma.vm_mm
    old_start, old_end = vma.vm_start, vma.vm_end
    length = old_end - old_start
    new_start, new_end = old_start - shift, old_end - shift
    if mm.ops.find_vma(mm, new_start) is not vma:
        raise Errno(errno.EFAULT)  # something is mapped where the stack shall go
    _vma_adjust(vma, new_start, old_end, vma.vm_pgoff)
    if memory.move_page_tables(vma, old_start, vma, new_start, length) != length:
        raise Errno(errno.ENOMEM)
    ceiling = vma.vm_next.vm_start if vma.vm_next is not None else 0
    free_pgd_range(mm, max(new_end, old_start), old_end, new_end, ceiling)
    _vma_adjust(vma, new_start, new_end, vma.vm_pgoff)


def setup_arg_pages(
    mm: MmStruct, vma: VmAreaStruct, p: int, stack_top: int, executable_stack: int, rlim_stack: int
) -> int:
    """Finish the stack: final place, protection, and room to start with.

    Args:
        mm: the new address space, now the current task's.
        vma: the stack, from `bprm_stack`.
        p: lowest byte of the strings.
        stack_top: where the stack shall end, bytes; randomised by the caller where wanted.
        executable_stack: EXSTACK_*.
        rlim_stack: soft limit of the stack, bytes.

    Returns:
        p after the move; mm.arg_start and mm.start_stack are set to it.

    Raises:
        Errno: ENOMEM where the stack does not fit or memory is refused, EFAULT where it cannot grow.
    """
    arch = mm.arch
    system = mm.system
    stack_top = ((stack_top & ~15) + arch.page_size - 1) & arch.page_mask
    if stack_top < system.mmap_min_addr or vma.vm_end - vma.vm_start >= stack_top - system.mmap_min_addr:
        raise Errno(errno.ENOMEM)
    stack_shift = vma.vm_end - stack_top
    p -= stack_shift
    mm.arg_start = p
    vm_flags = _vm_stack_flags(mm)
    if executable_stack == EXSTACK_ENABLE_X:
        vm_flags |= VM_EXEC
    elif executable_stack == EXSTACK_DISABLE_X:
        vm_flags &= ~VM_EXEC
    vm_flags |= mm.def_flags | VM_STACK_INCOMPLETE_SETUP
    mprotect_fixup(vma, None, vma.vm_start, vma.vm_end, vm_flags)
    if stack_shift:
        _shift_arg_pages(vma, stack_shift)
    vma.vm_flags &= ~VM_STACK_INCOMPLETE_SETUP
    stack_size = vma.vm_end - vma.vm_start
    rlim_stack &= arch.page_mask
    if stack_size + _STACK_EXPAND > rlim_stack:
        stack_base = (vma.vm_end - rlim_stack) & _MASK64
    else:
        stack_base = vma.vm_start - _STACK_EXPAND
    mm.start_stack = p
    if mm.ops.expand_stack(vma, stack_base):
        raise Errno(errno.EFAULT)
    return p
