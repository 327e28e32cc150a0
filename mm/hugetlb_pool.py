"""The pools of huge pages (mm/hugetlb.c): one `Hstate` a size, taken from the buddy allocator before they are needed.

    nr_huge_pages       all pages of the pool          = persistent ones (nr_hugepages) + surplus_huge_pages
    free_huge_pages     of these, not in use           (freelist)
    resv_huge_pages     of the free ones, promised     to mappings that have not touched them yet
    surplus_huge_pages  beyond nr_hugepages, made on demand up to nr_overcommit_huge_pages, and freed after use

A huge page is a naturally aligned block of frames, each with its own `Page`; `private` of all of them is the first one,
the head, a `HugePage`. Mapcount, refcount and mapping that count are the head's; the other frames keep one reference of
their own, which is the head's.

DEVIATION D11: no page of 1 GiB or more is ever found, however much RAM there is: on the reference machine, which has
1 GiB, there can be none. Nor are other pages moved out of the way of a huge one.
DEVIATION D17: MADV_HWPOISON and MADV_SOFT_OFFLINE of such a page are EBUSY; Linux retires it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.flags import PG_COMPOUND, PG_DCACHE_CLEAN, PG_HUGETLB
from mm.page_alloc import MAX_ORDER, alloc_contig_pages, alloc_pages, free_pages
from mm.types import CompoundPage, Page

if TYPE_CHECKING:
    from mm.system import System

GIGABYTE_SHIFT = 30  # DEVIATION D11: from this size on the pools stay empty


class HugePage(CompoundPage):
    """Head of a huge page of a pool."""

    __slots__ = ("clean", "hstate", "parts", "restore_reserve", "subpool")

    def __init__(self, pfn: int, hstate: Hstate) -> None:
        super().__init__(pfn)
        self.hstate = hstate
        self.parts: list[Page] = []  # the pages of all its frames, itself first
        self.subpool: Any = None  # page_private: the Subpool it is charged to
        self.restore_reserve = False  # PagePrivate: it came from a reservation that nothing has used up yet
        self.clean = True  # never used since it came from the buddy allocator, which cleared it


class Hstate:
    """The pool of one size (struct hstate). Counters in huge pages."""

    def __init__(self, system: System, shift: int) -> None:
        self.system = system
        self.shift = shift  # log2 of the size in bytes
        self.order = shift - system.arch.page_shift
        self.size = 1 << shift
        self.pages = 1 << self.order  # pages_per_huge_page()
        self.nr_huge_pages = 0
        self.free_huge_pages = 0
        self.resv_huge_pages = 0
        self.surplus_huge_pages = 0
        self.nr_overcommit_huge_pages = 0
        self.freelist: list[HugePage] = []  # last in, first out

    def __repr__(self) -> str:
        return f"<Hstate {self.size >> 10}kB {self.free_huge_pages}/{self.nr_huge_pages} free>"

    @property
    def gigantic(self) -> bool:
        """hstate_is_gigantic(): larger than any block of the kernel's buddy allocator."""
        return self.order >= self.system.arch.max_order

    @property
    def persistent_huge_pages(self) -> int:
        """nr_hugepages as it was asked for (max_huge_pages)."""
        return self.nr_huge_pages - self.surplus_huge_pages

    # -- pages between the pool and the buddy allocator ---------------------------------------------------------------

    def enqueue_huge_page(self, page: HugePage) -> None:
        """Put an unused page into the pool."""
        self.freelist.append(page)
        self.free_huge_pages += 1

    def alloc_fresh_huge_page(self) -> HugePage | None:
        """A cleared page with one reference, new in the pool; None without a block of that size."""
        system = self.system
        if self.shift >= GIGABYTE_SHIFT:
            return None
        if self.order < MAX_ORDER:
            first = alloc_pages(system, self.order, True)
        else:
            first = alloc_contig_pages(system, self.order, True)
        if first is None:
            return None
        head = HugePage(first.pfn, self)
        system.mem_map[first.pfn] = head
        pages = system.mem_map[first.pfn : first.pfn + self.pages]
        head.parts = [page for page in pages if page is not None]
        for page in head.parts:
            page.private = head
            page.flags = PG_COMPOUND | PG_HUGETLB
        self.nr_huge_pages += 1
        return head

    def update_and_free_page(self, head: HugePage) -> None:
        """Give the frames of an unused page back to the buddy allocator."""
        self.nr_huge_pages -= 1
        head.refcount = 1
        for page in head.parts:
            page.private = None
            page.flags = 0
            page.mapping = None
        free_pages(self.system, head.pfn, self.order)

    def alloc_surplus_huge_page(self) -> HugePage | None:
        """A page beyond nr_hugepages, if nr_overcommit_hugepages allows one more and there is memory."""
        if self.gigantic or self.surplus_huge_pages >= self.nr_overcommit_huge_pages:
            return None
        page = self.alloc_fresh_huge_page()
        if page is not None:
            self.surplus_huge_pages += 1
        return page

    def free_pool_huge_page(self, acct_surplus: bool) -> bool:
        """Take one page out of the pool, a surplus one where `acct_surplus`; False when there is none."""
        if not self.freelist or (acct_surplus and not self.surplus_huge_pages):
            return False
        page = self.freelist.pop()
        self.free_huge_pages -= 1
        if acct_surplus:
            self.surplus_huge_pages -= 1
        self.update_and_free_page(page)
        return True

    # -- promises -----------------------------------------------------------------------------------------------------

    def hugetlb_acct_memory(self, delta: int) -> bool:
        """Promise `delta` pages more (or less, when negative); False when they can not be had."""
        if delta > 0:
            if not self.gather_surplus_pages(delta):
                return False
            if delta > self.free_huge_pages:  # allowed_mems_nr(): there is one node, and nobody is kept from it
                self.return_unused_surplus_pages(delta)
                return False
        elif delta < 0:
            self.return_unused_surplus_pages(-delta)
        return True

    def gather_surplus_pages(self, delta: int) -> bool:
        """Reserve `delta` pages, with surplus ones where the pool has too few that are free and not promised."""
        needed = self.resv_huge_pages + delta - self.free_huge_pages
        fresh = []
        for _ in range(needed):
            page = self.alloc_surplus_huge_page()
            if page is None:
                break
            fresh.append(page)
        if len(fresh) < needed:
            for page in fresh:
                page.refcount = 0
                free_huge_page(self.system, page)
            return False
        self.resv_huge_pages += delta
        for page in fresh:
            page.refcount = 0
            self.enqueue_huge_page(page)
        return True

    def return_unused_surplus_pages(self, unused_resv_pages: int) -> None:
        """Take back a promise, and with it the surplus pages that were made for it."""
        if not self.gigantic:
            for _ in range(min(unused_resv_pages, self.surplus_huge_pages)):
                self.resv_huge_pages -= 1
                unused_resv_pages -= 1
                if not self.free_pool_huge_page(True):
                    break
        self.resv_huge_pages -= unused_resv_pages

    def set_max_huge_pages(self, count: int) -> None:
        """Make the pool `count` persistent pages large, as far as memory and pages in use allow."""
        while self.surplus_huge_pages and count > self.persistent_huge_pages:
            self.surplus_huge_pages -= 1
        while count > self.persistent_huge_pages:
            page = self.alloc_fresh_huge_page()
            if page is None:
                return
            page.refcount = 0
            free_huge_page(self.system, page)
        min_count = max(count, self.resv_huge_pages + self.nr_huge_pages - self.free_huge_pages)
        while min_count < self.persistent_huge_pages and self.free_pool_huge_page(False):
            pass
        # What is in use can not go now: it becomes surplus, and goes when it is freed.
        while count < self.persistent_huge_pages and self.surplus_huge_pages < self.nr_huge_pages:
            self.surplus_huge_pages += 1

    def set_overcommit_huge_pages(self, count: int) -> None:
        """Allow `count` surplus pages. Raises Errno(EINVAL) for gigantic ones, which no surplus can be made of."""
        if self.gigantic:
            raise Errno(errno.EINVAL)
        self.nr_overcommit_huge_pages = count


class Hugetlb:
    """The pools of a machine, by size; the first is the default one."""

    def __init__(self, system: System) -> None:
        self.hstates = [Hstate(system, shift) for shift in system.arch.hugetlb_shifts]

    @property
    def default(self) -> Hstate:
        """default_hstate: the pool of /proc/meminfo and of calls that name no size."""
        return self.hstates[0]

    def hstate_sizelog(self, log: int) -> Hstate | None:
        """The pool for pages of 2**log bytes; 0 asks for the default; None where there is none of that size."""
        if not log:
            return self.default
        return next((h for h in self.hstates if h.shift == log), None)

    def total_pages(self) -> int:
        """hugetlb_total_pages(): frames in all pools."""
        return sum(h.nr_huge_pages * h.pages for h in self.hstates)


def hugetlb_pools(system: System) -> Hugetlb:
    """The machine's pools, made when first asked for."""
    if system.hugetlb is None:
        system.hugetlb = Hugetlb(system)
    pools: Hugetlb = system.hugetlb
    return pools


def huge_head(page: Page) -> HugePage:
    """compound_head() of a frame of a pool's page."""
    head = page.private
    if not isinstance(head, HugePage):
        raise KernelBug(f"frame {page.pfn:#x} is no part of a hugetlb page")
    return head


def free_huge_page(system: System, page: Page) -> None:
    """The last reference to a page is gone: back into the pool, or out of it if it was a surplus page."""
    head = huge_head(page)
    if head is not page or page.mapcount or page.refcount:
        raise KernelBug(f"frame {page.pfn:#x} is freed with mapcount {page.mapcount}, refcount {page.refcount}")
    h = head.hstate
    head.mapping = None
    subpool, head.subpool = head.subpool, None
    restore_reserve, head.restore_reserve = head.restore_reserve, False
    # With a minimum size of its file system to keep, a page goes back to what is promised.
    if not restore_reserve and subpool is not None and subpool.put_pages(1) == 0:
        restore_reserve = True
    if restore_reserve:
        h.resv_huge_pages += 1
    if h.surplus_huge_pages:
        h.update_and_free_page(head)
        h.surplus_huge_pages -= 1
    else:
        h.enqueue_huge_page(head)


def clear_huge_page(page: HugePage) -> None:
    """Zero all frames of a page, unless they still are as the buddy allocator gave them."""
    if not page.clean:
        system = page.hstate.system
        start = page.pfn << system.arch.page_shift
        system.ram[start : start + page.hstate.size] = bytes(page.hstate.size)
        forget_code(page)
    page.clean = False


def copy_huge_page(to: HugePage, source: HugePage) -> None:
    """Copy the content of one huge page to another (copy_user_huge_page)."""
    system = to.hstate.system
    shift = system.arch.page_shift
    size = to.hstate.size
    first, second = to.pfn << shift, source.pfn << shift
    system.ram[first : first + size] = system.ram[second : second + size]
    to.clean = False
    forget_code(to)


def forget_code(page: HugePage) -> None:
    """The content changed: what the engine has translated from the frames is stale."""
    for part in page.parts:
        part.flags &= ~PG_DCACHE_CLEAN
