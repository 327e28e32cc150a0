"""Reading a guest's memory as a tool does: nothing is faulted in, counted or marked.

A page the program has not touched yet has no page-table entry; what would be there is known all the same: zeroes, or
the file's bytes. A tracer on a real kernel sees those through ptrace, so strace here must too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import VM_MAYREAD, VM_READ
from mm.uaccess import access_process_vm

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct


def peek(mm: MmStruct | None, address: int, count: int, force: bool = False) -> bytes:
    """Up to `count` bytes at `address`; it stops where nothing is mapped.

    Args:
        force: areas the program itself may not read too, as ptrace does (FOLL_FORCE).
    """
    found = b""
    while mm is not None and len(found) < count:
        at = address + len(found)
        piece = access_process_vm(mm, at, count - len(found))
        if not piece:
            vma = area_at(mm, at)
            if vma is None or not vma.vm_flags & (VM_MAYREAD if force else VM_READ):
                break
            size = mm.arch.page_size
            piece = _untouched(vma, at, min(count - len(found), size - at % size))
            if not piece:
                break
        found += piece
    return found


def area_at(mm: MmStruct, address: int) -> VmAreaStruct | None:
    """The VMA at `address`, found without find_vma(): the vmacache must not notice."""
    node: VmAreaStruct | None = mm.mm_rb.rb_node
    while node is not None:
        if address < node.vm_start:
            node = node.rb_left
        elif address >= node.vm_end:
            node = node.rb_right
        else:
            return node
    return None


def _untouched(vma: VmAreaStruct, address: int, count: int) -> bytes:
    """What a fault would bring in."""
    if vma.vm_file is None:
        return bytes(count) if vma.vm_ops is None else _special(vma, address, count)
    from mm.shmem import shmem_read

    arch = vma.vm_mm.arch
    position = (vma.vm_pgoff << arch.page_shift) + address - vma.vm_start
    data = shmem_read(vma.vm_file.f_mapping, position, count, mark=False)
    inside = -(-vma.vm_file.f_mapping.i_size // arch.page_size) * arch.page_size
    return data.ljust(min(count, max(0, inside - position)), b"\0")


def _special(vma: VmAreaStruct, address: int, count: int) -> bytes:
    """The kernel's own pages: [vdso]."""
    arch = vma.vm_mm.arch
    pages = getattr(vma.vm_private_data, "pages", None)
    number = (address - vma.vm_start >> arch.page_shift) + vma.vm_pgoff
    if pages is None or number >= len(pages):
        return b""
    at = (pages[number].pfn << arch.page_shift) + (address & arch.page_size - 1)
    return bytes(vma.vm_mm.system.ram[at : at + count])
