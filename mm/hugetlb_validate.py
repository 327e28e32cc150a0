"""Checks of level 2 for pages of the hugetlb pools; called by validate_pages.py, numbers as in mm/README.md.

P14 a leaf in an area with VM_HUGETLB, and no other, maps a page of its file's pool, or one that follows in its row
P15 of a huge page mapcount is the number of areas that map it, refcount that plus the page cache plus other holders,
    and it is free exactly when both are 0
P16 the counters of a pool are what its pages add up to, and no more is promised than is free
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import PG_HUGETLB, VM_HUGETLB
from mm.hugetlb import hstate_vma
from mm.hugetlb_pool import HugePage, huge_head
from mm.types import AddressSpace

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, Page, VmAreaStruct


def check_hugetlb_leaf(vma: VmAreaStruct, address: int, entry: int, page: Page) -> None:
    """P14 for one entry, which maps the frame of `page`."""
    if not vma.vm_flags & VM_HUGETLB:
        raise KernelBug(f"P14: leaf {entry:#x} at {address:#x} of a huge page in {vma!r}", vma.vm_mm)
    head = huge_head(page)
    if head.hstate is not hstate_vma(vma):
        raise KernelBug(f"P14: leaf {entry:#x} at {address:#x} maps a page of another pool", vma.vm_mm)
    offset = (address & (head.hstate.size - 1)) >> vma.vm_mm.arch.page_shift
    if page.pfn != head.pfn + offset:
        raise KernelBug(f"P14: leaf {entry:#x} at {address:#x} maps a frame out of its row", vma.vm_mm)


def check_pools(
    system: System, pages: list[Page], mapped: dict[int, list[tuple[MmStruct, int, bool]]], held: dict[int, int]
) -> None:
    """P15, P16."""
    heads = [page for page in pages if isinstance(page, HugePage)]
    frames = sum(1 for page in pages if page.flags & PG_HUGETLB)
    if frames != sum(head.hstate.pages for head in heads):
        raise KernelBug(f"P16: {frames} frames are marked as parts of huge pages, which are {len(heads)}")
    for head in heads:
        users = len(mapped.get(head.pfn, ()))
        mapping = head.mapping
        cached = isinstance(mapping, AddressSpace) and mapping.pages.get(head.index >> head.hstate.order) is head
        if head.mapcount != users or head.refcount != users + cached + held.get(head.pfn, 0):
            raise KernelBug(
                f"P15: huge page {head.pfn:#x}: mapcount {head.mapcount}, refcount {head.refcount}, leaves {users}"
            )
        if (head.refcount == 0) != any(page is head for page in head.hstate.freelist):
            raise KernelBug(f"P15: huge page {head.pfn:#x} has refcount {head.refcount}, and the free list disagrees")
    for h in system.hugetlb.hstates:
        count = sum(1 for head in heads if head.hstate is h)
        if h.nr_huge_pages != count or h.free_huge_pages != len(h.freelist):
            raise KernelBug(f"P16: {h!r} has {count} pages, {len(h.freelist)} of them free")
        if not 0 <= h.resv_huge_pages <= h.free_huge_pages or not 0 <= h.surplus_huge_pages <= count:
            raise KernelBug(f"P16: {h!r}: {h.resv_huge_pages} promised, {h.surplus_huge_pages} surplus")
