"""The vDSO: a small shared object every program finds mapped, and the data page beside it.

The images lie in guest/vdso/. Their pages are frames of the guest's RAM, loaded once and shared by all processes.
"""

from __future__ import annotations

from struct import Struct, unpack_from
from typing import TYPE_CHECKING, Any

from guest.own_mm import own_mm
from mm.errors import Errno
from mm.flags import (
    VM_DONTDUMP,
    VM_EXEC,
    VM_FAULT_SIGBUS,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
)
from mm.mmap import do_munmap, get_unmapped_area
from mm.page_alloc import alloc_page
from mm.special_mapping import VmSpecialMapping, _install_special_mapping

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.types import MmStruct, Page, VmAreaStruct, VmFault

EINVAL = 22
_SYM = Struct("<IBBHQQ")


class Vdso:
    """The image of one machine: frames, symbols, and the two mappings."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        arch = kernel.system.arch
        image = _read_image(kernel.arch.name)
        self.size = -(-len(image) // arch.page_size) * arch.page_size
        self.symbols = _symbols(image)
        pages = [self._frame(image[i : i + arch.page_size]) for i in range(0, self.size, arch.page_size)]
        self.data = self._frame(b"")  # [vvar]
        self.text_mapping = VmSpecialMapping("[vdso]", pages, mremap=_vdso_mremap)
        self.vvar_mapping = VvarMapping(self.data.pfn)

    def _frame(self, data: bytes) -> Page:
        """A frame of RAM with `data` at its start."""
        system = self.kernel.system
        page = alloc_page(system, True)
        if page is None:
            raise MemoryError("RAM too small for the vDSO")
        start = page.pfn << system.arch.page_shift
        system.ram[start : start + len(data)] = data
        return page

    def symbol(self, name: str, task: Task) -> int:
        """Address of a symbol in the task's vDSO."""
        return own_mm(task).vdso + self.symbols.get(name, 0)


class VvarMapping(VmSpecialMapping):
    """[vvar]: its first page is the data, the others cannot be touched."""

    def __init__(self, pfn: int) -> None:
        super().__init__("[vvar]", None, _vvar_fault, _vvar_mremap)
        self.pfn = pfn


def _vvar_fault(mapping: VmSpecialMapping, vma: VmAreaStruct, vmf: VmFault) -> int:
    from mm.memory_file import vmf_insert_pfn

    task: Any = vma.vm_mm.system.current
    pfn: int = mapping.pfn  # type: ignore[attr-defined]
    if vmf.pgoff == task.kernel.arch.vvar_timens_page and task.time_ns is not None:
        return vmf_insert_pfn(vma, vmf.address, pfn)  # the machine's, where the first page tells of the namespace
    if vmf.pgoff != 0:
        return VM_FAULT_SIGBUS
    if task.time_ns is not None:
        pfn = task.time_ns.vvar_pfn(task)
    return vmf_insert_pfn(vma, vmf.address, pfn)


def _vdso_mremap(mapping: VmSpecialMapping, new_vma: VmAreaStruct) -> int:
    mm = new_vma.vm_mm
    if new_vma.vm_end - new_vma.vm_start != len(mapping.pages or ()) << mm.arch.page_shift:
        return EINVAL
    mm.vdso = new_vma.vm_start
    return 0


def _vvar_mremap(mapping: VmSpecialMapping, new_vma: VmAreaStruct) -> int:
    mm = new_vma.vm_mm
    pages = (new_vma.vm_end - new_vma.vm_start) >> mm.arch.page_shift
    return 0 if pages == mm.system.current.kernel.arch.vvar_pages else EINVAL  # type: ignore[union-attr]


def map_vdso(kernel: Kernel, mm: MmStruct, address: int, vvar_pages: int, length: int, vvar_first: bool) -> None:
    """Map [vvar] and [vdso] above it. Raises Errno as mmap refuses.

    Args:
        address: hint, 0 for none.
        length: of both, bytes.
        vvar_first: which of the two is inserted first; the tree remembers.
    """
    vdso = kernel.vdso
    vvar_length = vvar_pages << mm.arch.page_shift
    address = get_unmapped_area(mm, None, address, length, 0, 0)
    text = address + vvar_length
    text_flags = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if vvar_first:
        _install_special_mapping(mm, address, vvar_length, VM_READ | VM_MAYREAD | VM_PFNMAP, vdso.vvar_mapping)
        mm.vdso = text
        _install_special_mapping(mm, text, vdso.size, text_flags, vdso.text_mapping)
        return
    _install_special_mapping(mm, text, vdso.size, text_flags, vdso.text_mapping)
    flags = VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP
    try:
        _install_special_mapping(mm, address, vvar_length, flags, vdso.vvar_mapping)
    except Errno:
        do_munmap(mm, text, vdso.size)
        raise
    mm.vdso = text


def _read_image(arch_name: str) -> bytes:
    """The committed image; its pages are the size of [vdso]."""
    import os

    with open(os.path.join(os.path.dirname(__file__), "vdso", f"vdso_{arch_name}.so"), "rb") as file:
        return file.read()


def _symbols(image: bytes) -> dict[str, int]:
    """Offsets of the image's dynamic symbols."""
    if image[:4] != b"\x7fELF":
        return {}
    shoff = unpack_from("<Q", image, 40)[0]
    shentsize, shnum = unpack_from("<HH", image, 58)
    sections = [unpack_from("<IIQQQQIIQQ", image, shoff + i * shentsize) for i in range(shnum)]
    found: dict[str, int] = {}
    for section in sections:
        if section[1] not in (2, 11):  # SHT_SYMTAB, SHT_DYNSYM
            continue
        strings = sections[section[6]]
        for offset in range(section[4], section[4] + section[5], _SYM.size):
            name, _, _, shndx, value, _ = _SYM.unpack_from(image, offset)
            if shndx:
                start = strings[4] + name
                found[image[start : image.index(b"\0", start)].decode()] = value
    return found
