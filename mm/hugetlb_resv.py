"""Who was promised huge pages (the resv_map and subpool parts of mm/hugetlb.c).

Every mapping of huge pages is promised its pages when it is made, so that touching them can not fail:

    shared   the promise belongs to the file: `ResvMap.regions` of the inode are the ranges promised (or there already)
    private  the promise belongs to the area that made it, its owner: regions of its own map are what it has *used up*
    fork     the child's areas are no owners: they have no promise, and may get SIGBUS

`Subpool` is the size and min_size of one mounted hugetlbfs. All numbers are huge pages, offsets within the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import VM_MAYSHARE, VM_NORESERVE

if TYPE_CHECKING:
    from mm.hugetlb_file import HugetlbInodeInfo
    from mm.hugetlb_pool import Hstate
    from mm.types import VmAreaStruct

HPAGE_RESV_OWNER = 1  # this area made the promise of its map
HPAGE_RESV_UNMAPPED = 2  # its pages were taken away for the owner: touching them again kills


class ResvMap:
    """A set of ranges (struct resv_map): [from, to) pairs in order, apart from each other."""

    __slots__ = ("regions",)

    def __init__(self) -> None:
        self.regions: list[tuple[int, int]] = []

    def region_count(self, first: int, end: int) -> int:
        """How much of [first, end) is in the set."""
        return sum(max(0, min(to, end) - max(start, first)) for start, to in self.regions)

    def region_chg(self, first: int, end: int) -> int:
        """How much region_add() of [first, end) would add."""
        return end - first - self.region_count(first, end)

    def region_add(self, first: int, end: int) -> int:
        """Add [first, end); how much was missing."""
        added = self.region_chg(first, end)
        apart = [(start, to) for start, to in self.regions if to < first or start > end]
        touching = [region for region in self.regions if region not in apart]
        if end > first:
            apart.append((min([first, *(start for start, _ in touching)]), max([end, *(to for _, to in touching)])))
            self.regions = sorted(apart)
        return added

    def region_del(self, first: int, end: int | None) -> int:
        """Take [first, end) out of the set, to its end where `end` is None; how much was there."""
        if end is None:
            end = max([first, *(to for _, to in self.regions)])
        removed = self.region_count(first, end)
        parts = [part for start, to in self.regions for part in ((start, min(to, first)), (max(start, end), to))]
        self.regions = sorted({(start, to) for start, to in parts if start < to})
        return removed


class Subpool:
    """Limits of one file system (struct hugepage_subpool); -1: none. Raises nothing: refusals are negative."""

    def __init__(self, hstate: Hstate, max_hpages: int, min_hpages: int) -> None:
        self.hstate = hstate
        self.count = 1  # handles: the super block's
        self.max_hpages = max_hpages
        self.used_hpages = 0  # counted only against a maximum
        self.min_hpages = min_hpages
        self.rsv_hpages = min_hpages  # of the minimum, promised to nobody yet

    def get_pages(self, delta: int) -> int:
        """Charge `delta` pages; how many the pool must still promise, or -1 above the maximum."""
        if self.max_hpages != -1:
            if self.used_hpages + delta > self.max_hpages:
                return -1
            self.used_hpages += delta
        if self.min_hpages != -1 and self.rsv_hpages:
            covered = min(delta, self.rsv_hpages)
            self.rsv_hpages -= covered
            return delta - covered
        return delta

    def put_pages(self, delta: int) -> int:
        """Take a charge back; how many promises the pool may take back as well."""
        result = delta
        if self.max_hpages != -1:
            self.used_hpages -= delta
        if self.min_hpages != -1 and self.used_hpages < self.min_hpages:
            result = max(0, self.rsv_hpages + delta - self.min_hpages)
            self.rsv_hpages = min(self.rsv_hpages + delta, self.min_hpages)
        self.release()
        return result

    def put(self) -> None:
        """hugepage_put_subpool(): the file system is unmounted."""
        self.count -= 1
        self.release()

    def release(self) -> None:
        """Give the minimum back once nobody can use it."""
        if self.count == 0 and self.used_hpages == 0 and self.min_hpages != -1:
            self.hstate.hugetlb_acct_memory(-self.min_hpages)
            self.min_hpages = -1


def hugepage_new_subpool(hstate: Hstate, max_hpages: int, min_hpages: int) -> Subpool | None:
    """Limits for a new file system; None when the minimum can not be promised."""
    if min_hpages != -1 and not hstate.hugetlb_acct_memory(min_hpages):
        return None
    return Subpool(hstate, max_hpages, min_hpages)


def subpool_get_pages(spool: Subpool | None, delta: int) -> int:
    """hugepage_subpool_get_pages(), for files without limits too."""
    return delta if spool is None else spool.get_pages(delta)


def subpool_put_pages(spool: Subpool | None, delta: int) -> int:
    """hugepage_subpool_put_pages(), for files without limits too."""
    return delta if spool is None else spool.put_pages(delta)


# -- an area and its map ---------------------------------------------------------------------------------------------


def huge_info(vma: VmAreaStruct) -> HugetlbInodeInfo:
    """What hugetlbfs keeps of the area's file."""
    info: HugetlbInodeInfo = vma.vm_file.f_mapping.private  # type: ignore[union-attr]
    return info


def vma_hugecache_offset(h: Hstate, vma: VmAreaStruct, address: int) -> int:
    """Huge page of the file that `address` maps."""
    return ((address - vma.vm_start) >> h.shift) + (vma.vm_pgoff >> h.order)


def vma_resv_map(vma: VmAreaStruct) -> ResvMap | None:
    """The file's map for a shared area, its own for a private one that was promised pages."""
    if vma.vm_flags & VM_MAYSHARE:
        return huge_info(vma).resv_map
    private: tuple[ResvMap, int] | None = vma.vm_private_data
    return private[0] if private else None


def is_vma_resv_set(vma: VmAreaStruct, flag: int) -> bool:
    """Has the private area this HPAGE_RESV_* flag?"""
    private = vma.vm_private_data
    return bool(private and private[1] & flag)


def set_vma_resv_flags(vma: VmAreaStruct, flag: int) -> None:
    """Set one."""
    resv, flags = vma.vm_private_data or (None, 0)
    vma.vm_private_data = (resv, flags | flag)


def vma_has_reserves(vma: VmAreaStruct, chg: int) -> bool:
    """Is the page about to be allocated one of those promised? `chg`: what the pool still has to promise for it."""
    if vma.vm_flags & VM_NORESERVE:
        return bool(vma.vm_flags & VM_MAYSHARE) and chg == 0
    if vma.vm_flags & VM_MAYSHARE or is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        return not chg
    return False


def _needed(vma: VmAreaStruct, missing: int) -> int:
    """What `missing` from the map means: no promise for a shared area, an unused one for an owner."""
    if vma.vm_flags & VM_MAYSHARE:
        return missing
    if is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        return int(not missing)
    return 0


def vma_needs_reservation(h: Hstate, vma: VmAreaStruct, address: int) -> int:
    """Pages (0 or 1) for which the area has no promise at `address`."""
    resv = vma_resv_map(vma)
    if resv is None:
        return 1
    index = vma_hugecache_offset(h, vma, address)
    return _needed(vma, resv.region_chg(index, index + 1))


def vma_commit_reservation(h: Hstate, vma: VmAreaStruct, address: int) -> int:
    """Note the page in the map; what vma_needs_reservation() said of it."""
    resv = vma_resv_map(vma)
    if resv is None:
        return 1
    index = vma_hugecache_offset(h, vma, address)
    return _needed(vma, resv.region_add(index, index + 1))


def hugetlb_reserve_pages(
    info: HugetlbInodeInfo, first: int, end: int, vma: VmAreaStruct | None, vm_flags: int
) -> bool:
    """Promise [first, end) of a file to an area (or to the file itself); False when that can not be promised."""
    if vm_flags & VM_NORESERVE:
        return True
    h = info.hstate
    shared = vma is None or bool(vma.vm_flags & VM_MAYSHARE)
    if shared:
        chg = info.resv_map.region_chg(first, end)
    else:
        chg = end - first
        if vma is not None:
            vma.vm_private_data = (ResvMap(), HPAGE_RESV_OWNER)
    gbl_reserve = subpool_get_pages(info.subpool, chg)
    if gbl_reserve < 0:
        return False
    if not h.hugetlb_acct_memory(gbl_reserve):
        subpool_put_pages(info.subpool, chg)
        return False
    if shared:
        info.resv_map.region_add(first, end)
    return True


def hugetlb_unreserve_pages(info: HugetlbInodeInfo, first: int, end: int | None, freed: int) -> None:
    """[first, end) of a file is gone, `freed` of its pages were there: take the promises for the others back."""
    chg = info.resv_map.region_del(first, end)
    info.blocks -= freed * (info.hstate.size >> 9)
    gbl_reserve = subpool_put_pages(info.subpool, chg - freed)
    info.hstate.hugetlb_acct_memory(-gbl_reserve)
