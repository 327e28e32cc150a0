"""Address spaces as pictures, one character a page: the picture is the test's input and its expected output.

    PPPP....xxxx      an area of 4 pages named P, a hole, an area named x

A name is one letter and means one VMA object: where it appears again after an operation, it must be the same object.
What upper and lower case mean is the test's business (here: has the flags of the changed range, or has others).
"""

import itertools
import mmap as host_mmap
from typing import Any

from mm import arch_arm64, arch_x86_64
from mm.flags import RLIM_INFINITY
from mm.fork import mm_alloc
from mm.system import System
from mm.types import MmStruct, TaskStruct, VmAreaStruct

HOLE = "."
GEOMETRIES = {
    "x86_64-4k": arch_x86_64.make,
    "x86_64-4k-la57": lambda: arch_x86_64.make(la57=True),
    "aarch64-4k": lambda: arch_arm64.make(4096),
    "aarch64-16k": lambda: arch_arm64.make(16384),
    "aarch64-64k": lambda: arch_arm64.make(65536),
}


def make_task(geometry: str = "x86_64-4k", ram: int = 16 << 20) -> TaskStruct:
    """A machine of that geometry whose running task has an empty address space and no limits but an 8 MiB stack."""
    system = System(GEOMETRIES[geometry](), memoryview(host_mmap.mmap(-1, ram)))
    task = TaskStruct(system)
    task.rlim = [[RLIM_INFINITY, RLIM_INFINITY] for _ in range(16)]
    task.rlim[3] = [8 << 20, RLIM_INFINITY]
    system.current = task
    task.mm = mm_alloc(system)
    system.arch.arch_pick_mmap_layout(task.mm, 8 << 20)
    return task


def runs(picture: str) -> list[tuple[str, int, int]]:
    """(name, first page, end page) of each area of a picture, in order."""
    areas = []
    page = 0
    for name, characters in itertools.groupby(picture):
        length = len(list(characters))
        if name not in (HOLE, " "):
            areas.append((name, page, page + length))
        page += length
    return areas


def areas_of(mm: MmStruct) -> list[VmAreaStruct]:
    """The areas in list order."""
    areas = []
    vma = mm.mmap
    while vma is not None:
        areas.append(vma)
        vma = vma.vm_next
    return areas


def picture_of(mm: MmStruct, base: int, names: dict[str, VmAreaStruct], pages: int, new: str = "*") -> str:
    """Draw `pages` pages from `base`; areas that are not among `names` get `new`."""
    name_of: dict[int, Any] = {id(vma): name for name, vma in names.items()}
    drawing = [HOLE] * pages
    shift = mm.arch.page_shift
    for vma in areas_of(mm):
        for page in range((vma.vm_start - base) >> shift, (vma.vm_end - base) >> shift):
            drawing[page] = name_of.get(id(vma), new)
    return "".join(drawing)
