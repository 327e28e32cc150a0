"""mincore (mm/mincore.c): which pages are in memory.

For a mapped page the answer is yes; where nothing is mapped it is whether the file has the page cached. A file that is
none of the caller's business (`can_do_pageout`) always answers yes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.flags import PG_UPTODATE, VM_HUGETLB
from mm.madvise import can_do_pageout as can_do_mincore
from mm.page_rmap import linear_page_index
from mm.pgtable import pte_range, walk_pmds

if TYPE_CHECKING:
    from mm.types import AddressSpace, MmStruct, VmAreaStruct


def mincore_page(mapping: AddressSpace, index: int) -> int:
    """1 if the page at `index` is cached and valid. Pages of a host file count as cached before they have a frame."""
    page = mapping.pages.get(index)
    if page is not None:
        return 1 if page.flags & PG_UPTODATE else 0
    has_backing = getattr(mapping.private, "has_backing", None)
    return 1 if has_backing is not None and has_backing(index) else 0


def _mincore_unmapped_range(vma: VmAreaStruct, start: int, end: int) -> bytes:
    """The answers for a part of the area without entries."""
    shift = vma.vm_mm.arch.page_shift
    count = (end - start) >> shift
    if vma.vm_file is None:
        return bytes(count)
    mapping = vma.vm_file.f_mapping
    first = linear_page_index(vma, start)
    return bytes(mincore_page(mapping, index) for index in range(first, first + count))


def do_mincore(mm: MmStruct, addr: int, pages: int) -> bytes:
    """One byte for each page from `addr` to the end of its area, at most `pages`.

    Raises:
        Errno: ENOMEM where nothing is mapped at `addr`.
    """
    arch = mm.arch
    shift = arch.page_shift
    vma = mm.ops.find_vma(mm, addr)
    if vma is None or addr < vma.vm_start:
        raise Errno(errno.ENOMEM)
    end = min(vma.vm_end, addr + (pages << shift))
    if not can_do_mincore(vma):
        return b"\1" * ((end - addr) >> shift)
    words = mm.system.words
    mm.ops.find_vma(mm, addr)  # as walk_page_range() does
    if vma.vm_flags & VM_HUGETLB:
        from mm.hugetlb import walk_hugetlb_range

        return b"".join(
            bytes([page is not None]) * ((last - first) >> shift)
            for first, last, _, page in walk_hugetlb_range(vma, addr, end)
        )
    vec = []
    done = addr
    for first, last, pmd in walk_pmds(mm, addr, end):
        if first > done:
            vec.append(_mincore_unmapped_range(vma, done, first))
        done = last
        if arch.pmd_trans_huge(words[pmd]):
            vec.append(b"\1" * ((last - first) >> shift))
            continue
        low, high = pte_range(mm, pmd, first, last)
        address = first
        for pte in words[low:high].tolist():
            vec.append(b"\1" if pte else _mincore_unmapped_range(vma, address, address + arch.page_size))
            address += arch.page_size
    if done < end:
        vec.append(_mincore_unmapped_range(vma, done, end))
    return b"".join(vec)
