"""Special mappings: areas whose pages the kernel owns, as [vdso] and [vvar] (second part of Linux's mm/mmap.c).

The pages are the same for all processes and are never written back or swapped. The area has an owner (`vm_ops` with a
`close`), so it merges with nothing, and cannot be expanded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import VM_DONTEXPAND, VM_FAULT_SIGBUS
from mm.types import VmAreaStruct
from mm.util import vm_stat_account
from mm.vma_tree import insert_vm_struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.types import MmStruct, Page, VmFault


class VmSpecialMapping:
    """What is mapped (struct vm_special_mapping).

    Attributes:
        name: shown in /proc/PID/maps.
        pages: one Page per page of the area, in order; None with `fault`.
        fault: serves a page fault instead of `pages`: (mapping, vma, vmf) -> VM_FAULT_*.
        mremap: told of a move of the area: (mapping, new_vma) -> errno or 0.
    """

    def __init__(
        self,
        name: str,
        pages: list[Page] | None = None,
        fault: Callable[[VmSpecialMapping, VmAreaStruct, VmFault], int] | None = None,
        mremap: Callable[[VmSpecialMapping, VmAreaStruct], int] | None = None,
    ) -> None:
        self.name = name
        self.pages = pages
        self.fault = fault
        self.mremap = mremap


def _special_mapping_fault(vmf: VmFault) -> int:
    mapping: VmSpecialMapping = vmf.vma.vm_private_data
    if mapping.fault is not None:
        return mapping.fault(mapping, vmf.vma, vmf)
    pages = mapping.pages
    if pages is None or vmf.pgoff >= len(pages):
        return VM_FAULT_SIGBUS
    page = pages[vmf.pgoff]
    page.refcount += 1
    vmf.page = page
    vmf.vma.vm_mm.system.fault_result = "special"
    return 0


def _special_mapping_close(vma: VmAreaStruct) -> None:
    """Nothing to release: it exists so that the area does not merge."""


def _special_mapping_name(vma: VmAreaStruct) -> str:
    mapping: VmSpecialMapping = vma.vm_private_data
    return mapping.name


def _special_mapping_mremap(new_vma: VmAreaStruct) -> int:
    mapping: VmSpecialMapping = new_vma.vm_private_data
    return mapping.mremap(mapping, new_vma) if mapping.mremap is not None else 0


class SpecialMappingVmOps:
    """vm_ops of every special mapping. One stateless instance, `special_mapping_vmops`."""

    open = None
    map_pages = None
    page_mkwrite = None
    close = staticmethod(_special_mapping_close)
    fault = staticmethod(_special_mapping_fault)
    name = staticmethod(_special_mapping_name)
    mremap = staticmethod(_special_mapping_mremap)

    def __reduce__(self) -> str:
        return "special_mapping_vmops"


special_mapping_vmops: Any = SpecialMappingVmOps()


def _install_special_mapping(
    mm: MmStruct, addr: int, length: int, vm_flags: int, spec: VmSpecialMapping
) -> VmAreaStruct:
    """Map `spec` at [addr, addr + length), bytes, page aligned.

    Raises:
        Errno: ENOMEM where something is mapped there already.
    """
    arch = mm.arch
    flags = vm_flags | mm.def_flags | VM_DONTEXPAND | arch.VM_SOFTDIRTY
    vma = VmAreaStruct(mm, addr, addr + length, flags, arch.vm_get_page_prot(flags))
    vma.vm_ops = special_mapping_vmops
    vma.vm_private_data = spec
    insert_vm_struct(mm, vma)
    vm_stat_account(mm, flags, length >> arch.page_shift)
    return vma


def vma_name(vma: VmAreaStruct) -> str | None:
    """What the area's owner calls it in /proc/PID/maps ("[vdso]"), or None."""
    ops = vma.vm_ops
    if ops is not None and ops.name is not None:
        return ops.name(vma)
    return None
