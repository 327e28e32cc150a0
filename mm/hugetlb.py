"""Areas of huge pages (the mm part of mm/hugetlb.c): everything that happens to an area with VM_HUGETLB.

Such an area maps a file of hugetlbfs, be it anonymous memory (MAP_HUGETLB), a memfd, a segment or a named file. Its
entries are not looked at by the rest of mm/: faults, unmapping, fork and protection come here instead.

    hugetlb_fault              nothing there: a page of the file or the pool; a write to a read-only one: copy or reuse
    unmap_hugepage_range       munmap, exit, truncate
    copy_hugetlb_page_range    fork
    hugetlb_change_protection  mprotect
    follow_hugetlb_page        get_user_pages

The pools are in hugetlb_pool.py, promises in hugetlb_resv.py, entries in hugetlb_pgtable.py, files in hugetlb_file.py.

DEVIATION D12: two areas that share 1 GiB of a file, aligned, do not share the page table of it (huge_pmd_share); only
VmPTE tells.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.flags import (
    FAULT_FLAG_WRITE,
    PG_DIRTY,
    PG_UPTODATE,
    VM_EXEC,
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_MAYSHARE,
    VM_SHARED,
    VM_WRITE,
)
from mm.hugetlb_pgtable import (
    huge_pte_alloc,
    huge_pte_offset,
    huge_pte_range,
    huge_ptep_get,
    huge_ptep_set_access_flags,
    set_huge_pte_at,
)
from mm.hugetlb_pool import Hstate, HugePage, clear_huge_page, copy_huge_page, huge_head
from mm.hugetlb_resv import (
    HPAGE_RESV_OWNER,
    HPAGE_RESV_UNMAPPED,
    huge_info,
    is_vma_resv_set,
    set_vma_resv_flags,
    subpool_get_pages,
    subpool_put_pages,
    vma_commit_reservation,
    vma_has_reserves,
    vma_hugecache_offset,
    vma_needs_reservation,
    vma_resv_map,
)
from mm.interval_tree import vma_interval_tree_foreach
from mm.memory_fork import is_cow_mapping
from mm.page_alloc import put_page
from mm.page_rmap import page_remove_rmap
from mm.rmap import anon_vma_prepare
from mm.types import AddressSpace, AnonVma, MmStruct, Page, VmAreaStruct, VmFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mm.types import File


def hstate_vma(vma: VmAreaStruct) -> Hstate:
    """The pool an area's pages come from."""
    return huge_info(vma).hstate


def vma_kernel_pagesize(vma: VmAreaStruct) -> int:
    """Bytes a fault in the area maps at once (KernelPageSize of smaps)."""
    return hstate_vma(vma).size


# -- allocation ------------------------------------------------------------------------------------------------------


def alloc_huge_page(vma: VmAreaStruct, address: int, avoid_reserve: bool) -> HugePage:
    """A page for `address`, with one reference: a promised one if there is a promise and not `avoid_reserve`.

    Raises:
        Errno: ENOSPC when the file system or the pool has none to give.
    """
    h = hstate_vma(vma)
    spool = huge_info(vma).subpool
    map_chg = gbl_chg = vma_needs_reservation(h, vma, address)
    charged = bool(map_chg) or avoid_reserve
    if charged:
        gbl_chg = subpool_get_pages(spool, 1)
        if gbl_chg < 0:
            raise Errno(errno.ENOSPC)
        if avoid_reserve:
            gbl_chg = 1
    page = _dequeue_huge_page_vma(h, vma, avoid_reserve, gbl_chg)
    if page is None:
        page = h.alloc_surplus_huge_page()
        if page is None:
            if charged:
                subpool_put_pages(spool, 1)
            raise Errno(errno.ENOSPC)
        if not avoid_reserve and vma_has_reserves(vma, gbl_chg):
            page.restore_reserve = True
            h.resv_huge_pages -= 1
    page.subpool = spool
    vma_commit_reservation(h, vma, address)
    return page


def _dequeue_huge_page_vma(h: Hstate, vma: VmAreaStruct, avoid_reserve: bool, chg: int) -> HugePage | None:
    """A free page of the pool, unless all that are left are promised to others."""
    unpromised = h.free_huge_pages - h.resv_huge_pages
    if (avoid_reserve or not vma_has_reserves(vma, chg)) and unpromised == 0:
        return None
    if not h.freelist:
        return None
    page = h.freelist.pop()
    h.free_huge_pages -= 1
    page.refcount = 1
    if not avoid_reserve and vma_has_reserves(vma, chg):
        page.restore_reserve = True
        h.resv_huge_pages -= 1
    return page


def huge_add_to_page_cache(page: HugePage, mapping: AddressSpace, index: int) -> None:
    """Put a new page into the file, with a reference of the cache's own. `index` in huge pages."""
    set_mapping(page, mapping, index << page.hstate.order)
    mapping.pages[index] = page
    mapping.nrpages += 1
    page.refcount += 1
    page.restore_reserve = False
    page.flags |= PG_DIRTY
    mapping.private.blocks += page.hstate.size >> 9


def remove_huge_page(page: HugePage, mapping: AddressSpace, index: int) -> None:
    """Take a page out of its file, and drop the cache's reference."""
    page.flags &= ~(PG_DIRTY | PG_UPTODATE)
    del mapping.pages[index]
    mapping.nrpages -= 1
    set_mapping(page, None, 0)
    put_page(page.hstate.system, page)


def set_mapping(page: HugePage, mapping: AnonVma | AddressSpace | None, index: int) -> None:
    """Whose page it is, and where in it, in small pages; every frame can be asked."""
    for number, part in enumerate(page.parts):
        part.mapping = mapping
        part.index = index + number


def _hugepage_add_new_anon_rmap(page: HugePage, vma: VmAreaStruct, address: int) -> None:
    """The first mapping of a page that belongs to a private area."""
    set_mapping(page, vma.anon_vma, ((address - vma.vm_start) >> vma.vm_mm.arch.page_shift) + vma.vm_pgoff)
    page.mapcount = 1


# -- faults ----------------------------------------------------------------------------------------------------------


def make_huge_pte(vma: VmAreaStruct, page: HugePage, writable: bool) -> int:
    """The entry that maps `page` in the area."""
    arch = vma.vm_mm.arch
    entry = arch.mk_pte(page.pfn, vma.vm_page_prot)
    entry = arch.pte_mkwrite(arch.pte_mkdirty(entry)) if writable else arch.pte_wrprotect(entry)
    return arch.arch_make_huge_pte(arch.pte_mkyoung(entry), page.hstate.shift)


def _map_page(vma: VmAreaStruct, address: int, index: int, page: HugePage, entry: int) -> None:
    """Write the entry; code that the engine translated from the frames earlier may be stale."""
    mm = vma.vm_mm
    if vma.vm_flags & VM_EXEC:
        for number, part in enumerate(page.parts):
            mm.arch.sync_icache(mm, part, address + (number << mm.arch.page_shift), entry)
    set_huge_pte_at(mm, address, index, entry, page.hstate.shift)


def page_of(mm: MmStruct, entry: int) -> HugePage:
    """The page an entry maps."""
    page = mm.system.mem_map[mm.arch.pte_pfn(entry)]
    if page is None:
        raise KernelBug(f"entry {entry:#x} of a huge page maps a frame that is free", mm)
    return huge_head(page)


def hugetlb_fault(vma: VmAreaStruct, address: int, flags: int) -> int:
    """Make the huge page at `address` accessible for the access in `flags`; VM_FAULT_* bits."""
    mm = vma.vm_mm
    system = mm.system
    h = hstate_vma(vma)
    haddr = address >> h.shift << h.shift
    index = huge_pte_alloc(mm, haddr, h.shift)
    if index < 0:
        return VM_FAULT_OOM
    entry = system.words[index]
    if not entry:
        return _hugetlb_no_page(vma, h, haddr, index, flags)
    arch = mm.arch
    if not arch.pte_present(entry):
        return 0
    write = bool(flags & FAULT_FLAG_WRITE)
    if write and not arch.pte_write(entry):
        cached = None
        if not vma.vm_flags & VM_MAYSHARE and vma.vm_file is not None:
            cached = vma.vm_file.f_mapping.pages.get(vma_hugecache_offset(h, vma, haddr))
        return _hugetlb_cow(vma, h, haddr, index, cached)
    if write:
        entry = arch.pte_mkdirty(entry)
    changed = huge_ptep_set_access_flags(mm, haddr, index, arch.pte_mkyoung(entry), write, h.shift)
    system.fault_result = "access" if changed else "spurious"
    mm.tlb_flush_pending = True
    return 0


def _hugetlb_no_page(vma: VmAreaStruct, h: Hstate, haddr: int, index: int, flags: int) -> int:
    """First touch: the file's page, or a new one, which belongs to the file where the area is shared."""
    mm = vma.vm_mm
    if is_vma_resv_set(vma, HPAGE_RESV_UNMAPPED) or vma.vm_file is None:
        return VM_FAULT_SIGBUS
    mapping = vma.vm_file.f_mapping
    number = vma_hugecache_offset(h, vma, haddr)
    if number >= mapping.i_size >> h.shift:
        return VM_FAULT_SIGBUS
    cached: Any = mapping.pages.get(number)
    page: HugePage
    if cached is not None:
        page = cached
        page.refcount += 1
    else:
        try:
            page = alloc_huge_page(vma, haddr, False)
        except Errno:
            return VM_FAULT_SIGBUS
        clear_huge_page(page)
        page.flags |= PG_UPTODATE
        if vma.vm_flags & VM_MAYSHARE:
            huge_add_to_page_cache(page, mapping, number)
        else:
            anon_vma_prepare(vma)
    if isinstance(page.mapping, AddressSpace):
        page.mapcount += 1
    else:
        page.restore_reserve = False
        _hugepage_add_new_anon_rmap(page, vma, haddr)
    shared_writable = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED
    _map_page(vma, haddr, index, page, make_huge_pte(vma, page, shared_writable))
    mm.hugetlb_usage += h.pages
    mm.system.fault_result = "huge"
    if flags & FAULT_FLAG_WRITE and not vma.vm_flags & VM_SHARED:
        return _hugetlb_cow(vma, h, haddr, index, page)
    return 0


def _hugetlb_cow(vma: VmAreaStruct, h: Hstate, haddr: int, index: int, pagecache_page: Page | None) -> int:
    """A write to a read-only entry: reuse the page or copy it.

    An owner whose page is shared with its child must not take what is promised for another of its pages. When the pool
    has nothing else, the child loses the page, and dies if it asks for it again: the promise was the parent's.
    """
    mm = vma.vm_mm
    system = mm.system
    old_page = page_of(mm, system.words[index])
    outside_reserve = is_vma_resv_set(vma, HPAGE_RESV_OWNER) and old_page is not pagecache_page
    while True:
        if old_page.mapcount == 1 and isinstance(old_page.mapping, AnonVma):
            for part in old_page.parts:
                part.mapping = vma.anon_vma  # page_move_anon_rmap()
            entry = mm.arch.pte_mkwrite(mm.arch.pte_mkdirty(system.words[index]))
            huge_ptep_set_access_flags(mm, haddr, index, entry, True, h.shift)
            system.fault_result = "cow-reuse" if system.fault_result != "huge" else "huge"
            mm.tlb_flush_pending = True
            return 0
        try:
            new_page = alloc_huge_page(vma, haddr, outside_reserve)
            break
        except Errno:
            if not outside_reserve:
                return VM_FAULT_SIGBUS
            _unmap_ref_private(vma, h, old_page, haddr)
            if old_page.mapcount != 1:
                return VM_FAULT_SIGBUS
    anon_vma_prepare(vma)
    copy_huge_page(new_page, old_page)
    new_page.flags |= PG_UPTODATE
    new_page.restore_reserve = False
    _hugepage_add_new_anon_rmap(new_page, vma, haddr)
    set_huge_pte_at(mm, haddr, index, 0, h.shift)
    _map_page(vma, haddr, index, new_page, make_huge_pte(vma, new_page, True))
    mm.tlb_flush_pending = True
    page_remove_rmap(system, old_page)
    put_page(system, old_page)
    system.fault_result = "cow-copy"
    return 0


def _unmap_ref_private(vma: VmAreaStruct, h: Hstate, page: HugePage, haddr: int) -> None:
    """Take `page` away from every private area that was not promised it."""
    if vma.vm_file is None:
        return
    pgoff = ((haddr - vma.vm_start) >> vma.vm_mm.arch.page_shift) + vma.vm_pgoff
    for node in list(vma_interval_tree_foreach(vma.vm_file.f_mapping.i_mmap, pgoff, pgoff)):
        other = node.vma
        if other is vma or other.vm_flags & VM_MAYSHARE or is_vma_resv_set(other, HPAGE_RESV_OWNER):
            continue
        unmap_hugepage_range(other, haddr, haddr + h.size, page)


# -- unmapping, fork, protection -------------------------------------------------------------------------------------


def unmap_hugepage_range(vma: VmAreaStruct, start: int, end: int, ref_page: HugePage | None = None) -> None:
    """Clear the entries of [start, end), both between huge pages; with `ref_page` only that of this page."""
    mm = vma.vm_mm
    system = mm.system
    arch = mm.arch
    h = hstate_vma(vma)
    for address, index in huge_pte_range(mm, start, end, h.shift):
        if not system.words[index]:
            continue
        entry = huge_ptep_get(mm, index, h.shift)
        page = page_of(mm, entry)
        if ref_page is not None:
            if page is not ref_page:
                continue
            set_vma_resv_flags(vma, HPAGE_RESV_UNMAPPED)
        set_huge_pte_at(mm, address, index, 0, h.shift)
        mm.tlb_flush_pending = True
        if arch.pte_dirty(entry):
            page.flags |= PG_DIRTY
        mm.hugetlb_usage -= h.pages
        page_remove_rmap(system, page)
        put_page(system, page)
        if ref_page is not None:
            break


def copy_hugetlb_page_range(dst_vma: VmAreaStruct, src_vma: VmAreaStruct) -> None:
    """fork: share every page, read-only where the area is private. Raises Errno(ENOMEM)."""
    src, dst = src_vma.vm_mm, dst_vma.vm_mm
    system = src.system
    h = hstate_vma(src_vma)
    cow = is_cow_mapping(src_vma.vm_flags)
    for address, source in huge_pte_range(src, src_vma.vm_start, src_vma.vm_end, h.shift):
        copy = huge_pte_alloc(dst, address, h.shift)
        if copy < 0:
            raise Errno(errno.ENOMEM)
        entry = huge_ptep_get(src, source, h.shift)
        if not entry:
            continue
        if cow:
            entry = src.arch.pte_wrprotect(entry)
            set_huge_pte_at(src, address, source, entry, h.shift)
            src.tlb_flush_pending = True
        else:
            entry = system.words[source]
        page = page_of(src, entry)
        page.refcount += 1
        page.mapcount += 1
        set_huge_pte_at(dst, address, copy, entry, h.shift)
        dst.hugetlb_usage += h.pages


def hugetlb_change_protection(vma: VmAreaStruct, start: int, end: int, newprot: int) -> int:
    """Give the entries of [start, end) another protection; how many small pages that are."""
    mm = vma.vm_mm
    arch = mm.arch
    h = hstate_vma(vma)
    pages = 0
    for address, index in huge_pte_range(mm, start, end, h.shift):
        if not mm.system.words[index]:
            continue
        old = huge_ptep_get(mm, index, h.shift)
        page = page_of(mm, old)
        entry = arch.arch_make_huge_pte(arch.pte_modify(old, newprot), h.shift)
        _map_page(vma, address, index, page, entry)
        pages += h.pages
    if pages:
        mm.tlb_flush_pending = True
    return pages


# -- get_user_pages --------------------------------------------------------------------------------------------------


def follow_hugetlb_page(vma: VmAreaStruct, start: int, count: int, write: bool, pages: list[Page] | None) -> int:
    """Reach up to `count` small pages from `start` in the area, faulting in what is needed; how many.

    Raises:
        Errno: ENOMEM or EFAULT when not even the first can be had.
    """
    mm = vma.vm_mm
    system = mm.system
    arch = mm.arch
    h = hstate_vma(vma)
    done = 0
    while done < count and start < vma.vm_end:
        index = huge_pte_offset(mm, start, h.shift)
        entry = system.words[index] if index >= 0 else 0
        if not entry or not arch.pte_present(entry) or (write and not arch.pte_write(entry)):
            fault = hugetlb_fault(vma, start, FAULT_FLAG_WRITE if write else 0)
            if fault & VM_FAULT_ERROR:
                if done:
                    return done
                raise Errno(errno.ENOMEM if fault & VM_FAULT_OOM else errno.EFAULT)
            continue
        first = (start & (h.size - 1)) >> arch.page_shift
        reached = min(h.pages - first, count - done)
        if pages is not None:
            for part in page_of(mm, entry).parts[first : first + reached]:
                part.refcount += 1
                pages.append(part)
        done += reached
        start += reached << arch.page_shift
    return done


# -- the owner of an area --------------------------------------------------------------------------------------------


def hugetlb_vm_op_close(vma: VmAreaStruct) -> None:
    """An owner goes: what it was promised and has not used is free again."""
    if vma.vm_flags & VM_MAYSHARE or not is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        return
    resv = vma_resv_map(vma)
    if resv is None:
        return
    h = hstate_vma(vma)
    first = vma_hugecache_offset(h, vma, vma.vm_start)
    end = vma_hugecache_offset(h, vma, vma.vm_end)
    reserve = (end - first) - resv.region_count(first, end)
    if reserve:
        h.hugetlb_acct_memory(-subpool_put_pages(huge_info(vma).subpool, reserve))


def hugetlb_vm_op_split(vma: VmAreaStruct, address: int) -> None:
    """Raises Errno(EINVAL) between the borders of huge pages."""
    if address & (hstate_vma(vma).size - 1):
        raise Errno(errno.EINVAL)


class HugetlbVmOps:
    """hugetlb_vm_ops. Stateless: one instance, `hugetlb_vm_ops`."""

    open = None  # the map of an owner is shared by the pieces of its area anyway
    map_pages = None
    page_mkwrite = None
    name = None
    close = staticmethod(hugetlb_vm_op_close)
    split = staticmethod(hugetlb_vm_op_split)

    @staticmethod
    def fault(vmf: VmFault) -> int:
        """Faults of these areas never come this way."""
        raise KernelBug("hugetlb_vm_op_fault", vmf.vma.vm_mm)

    def __reduce__(self) -> str:
        return "hugetlb_vm_ops"


hugetlb_vm_ops: Any = HugetlbVmOps()


def is_file_hugepages(file: File | None) -> bool:
    """The file is one of hugetlbfs, or a segment of huge pages."""
    return bool(getattr(file, "huge_shift", 0))


def walk_hugetlb_range(vma: VmAreaStruct, start: int, end: int) -> Iterator[tuple[int, int, int, HugePage | None]]:
    """The huge pages of [start, end), clipped to it: (first address, end address, entry, page or None)."""
    mm = vma.vm_mm
    h = hstate_vma(vma)
    while start < end:
        following = min((start >> h.shift) + 1 << h.shift, end)
        index = huge_pte_offset(mm, start, h.shift)
        entry = mm.system.words[index] if index >= 0 else 0
        yield start, following, entry, page_of(mm, entry) if entry and mm.arch.pte_present(entry) else None
        start = following


def huge_pages(vma: VmAreaStruct) -> Iterator[tuple[int, int, HugePage | None]]:
    """What is mapped in the area: (address, entry, page or None for an entry that maps none)."""
    mm = vma.vm_mm
    for address, index in huge_pte_range(mm, vma.vm_start, vma.vm_end, hstate_vma(vma).shift):
        entry = mm.system.words[index]
        if entry:
            yield address, entry, page_of(mm, entry) if mm.arch.pte_present(entry) else None
