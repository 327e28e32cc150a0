"""The buddy allocator (mm/page_alloc.c): frames of guest RAM by powers of two, and the `Page` of each frame in use.

    zone.pcp          stack of single free frames; order 0 is served from here and returned to here, and it goes back
                      to the lists when a larger block is wanted and none is free
    zone.free_area[k] free blocks of 2**k frames, naturally aligned; a freed block merges with its buddy (pfn ^ 2**k)

A frame that was never handed out still holds the zeroes of fresh host memory, and `alloc_page(zero=True)` does not
clear it again: `zone.used[pfn]` remembers which were. A free frame has no `Page` (`mem_map[pfn] is None`).
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import PG_HUGETLB, PG_RESERVED
from mm.types import CompoundPage, Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.system import System

MAX_ORDER = 11  # largest block: 2**10 frames


class Zone:
    """All frames of the one zone of the one node (struct zone). Counters in pages."""

    __slots__ = ("free_area", "interceptor", "managed_pages", "nr_free_buddy", "pcp", "spanned_pages", "used")

    def __init__(self, frames: int) -> None:
        self.spanned_pages = frames
        self.managed_pages = 0  # frames ever given to the allocator
        self.free_area: list[dict[int, None]] = [{} for _ in range(MAX_ORDER)]
        self.nr_free_buddy = 0  # frames in free_area
        self.pcp: list[int] = []
        self.used = bytearray(frames)
        self.interceptor: Callable[[int], bool] | None = None  # asked before frames (so many) are taken; False: none

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        return None, {name: getattr(self, name) for name in self.__slots__ if name != "interceptor"}

    def __setstate__(self, state: tuple[None, dict[str, object]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        self.interceptor = None

    @property
    def nr_free_pages(self) -> int:
        """NR_FREE_PAGES, the per-CPU lists included."""
        return self.nr_free_buddy + len(self.pcp)


def init_zone(first: int, frames: int) -> Zone:
    """A zone of `frames` frames with those from `first` up free; the ones below are reserved."""
    zone = Zone(frames)
    pfn = frames
    # From the top down, so that the lists (last in, first out) hand out low frames first.
    blocks = []
    position = first
    while position < frames:
        order = min((position & -position).bit_length() - 1 if position else MAX_ORDER - 1, MAX_ORDER - 1)
        while position + (1 << order) > frames:
            order -= 1
        blocks.append((position, order))
        position += 1 << order
    for pfn, order in reversed(blocks):
        zone.free_area[order][pfn] = None
    zone.nr_free_buddy = zone.managed_pages = frames - first
    return zone


def _rmqueue_smallest(zone: Zone, order: int) -> int:
    """Take a block of 2**order frames out of the buddy lists, splitting a larger one; -1 when there is none."""
    free_area = zone.free_area
    for current in range(order, MAX_ORDER):
        area = free_area[current]
        if area:
            pfn, _ = area.popitem()
            while current > order:  # expand(): the upper half stays free
                current -= 1
                free_area[current][pfn + (1 << current)] = None
            zone.nr_free_buddy -= 1 << order
            return pfn
    return -1


def _free_one_page(zone: Zone, pfn: int, order: int) -> None:
    """Give a block back to the buddy lists, merging upwards as long as the buddy is free and of the same size."""
    free_area = zone.free_area
    zone.nr_free_buddy += 1 << order
    while order < MAX_ORDER - 1:
        buddy = pfn ^ (1 << order)
        if buddy not in free_area[order]:
            break
        del free_area[order][buddy]
        pfn &= buddy
        order += 1
    free_area[order][pfn] = None


def _rmqueue_bulk(zone: Zone) -> bool:
    """Refill the per-CPU stack; False when no frame is left anywhere."""
    for order in (5, 4, 3, 2, 1, 0):
        pfn = _rmqueue_smallest(zone, order)
        if pfn >= 0:
            zone.pcp.extend(range(pfn + (1 << order) - 1, pfn - 1, -1))
            return True
    return False


def alloc_pfn(system: System, zero: bool) -> int:
    """Take one frame without a `Page` (the caller tells `mem_map` what it is); -1 when memory is exhausted."""
    zone = system.zone
    pcp = zone.pcp
    if zone.interceptor is not None and not zone.interceptor(1):
        return -1
    if not pcp and not _rmqueue_bulk(zone):
        return -1
    pfn = pcp.pop()
    if zone.used[pfn]:
        if zero:
            size = system.page_size
            address = pfn * size
            system.ram[address : address + size] = system.zeroes
    else:
        zone.used[pfn] = 1
    return pfn


def alloc_page(system: System, zero: bool) -> Page | None:
    """One frame with refcount 1, cleared if `zero`; None when memory is exhausted (the caller's ENOMEM)."""
    pfn = alloc_pfn(system, zero)
    if pfn < 0:
        return None
    page = system.mem_map[pfn] = Page(pfn)
    return page


def alloc_pages(system: System, order: int, zero: bool) -> Page | None:
    """A naturally aligned block of 2**order frames, each with its `Page`: the first, or None without a block."""
    zone = system.zone
    if zone.interceptor is not None and not zone.interceptor(1 << order):
        return None
    pfn = _rmqueue_smallest(zone, order)
    if pfn < 0 and zone.pcp:
        drain_all_pages(zone)
        pfn = _rmqueue_smallest(zone, order)
    if pfn < 0:
        return None
    size = system.page_size
    frames = range(pfn, pfn + (1 << order))
    used = zone.used
    if zero:
        for frame in compress(frames, used[frames.start : frames.stop]):
            system.ram[frame * size : (frame + 1) * size] = system.zeroes
    used[frames.start : frames.stop] = b"\x01" * len(frames)
    pages = [CompoundPage(frame) for frame in frames]
    system.mem_map.frames[frames.start : frames.stop] = pages
    return pages[0]


def alloc_contig_pages(system: System, order: int, zero: bool) -> Page | None:
    """A block of 2**order frames that is larger than the lists know, as `alloc_pages`: whole free blocks in a row.

    Linux also moves pages that are in the way; here they stay.
    """
    zone = system.zone
    drain_all_pages(zone)
    count = 1 << order
    free_area = zone.free_area[MAX_ORDER - 1]
    for pfn in range(0, len(system.mem_map) - count + 1, count):
        blocks = range(pfn, pfn + count, 1 << MAX_ORDER - 1)
        if all(block in free_area for block in blocks):
            break
    else:
        return None
    size = system.page_size
    for block in blocks:
        del free_area[block]
    zone.nr_free_buddy -= count
    for frame in range(pfn, pfn + count):
        if zone.used[frame] and zero:
            system.ram[frame * size : (frame + 1) * size] = system.zeroes
        zone.used[frame] = 1
        system.mem_map[frame] = CompoundPage(frame)
    return system.mem_map[pfn]


def free_pages(system: System, pfn: int, order: int) -> None:
    """Give back a block from `alloc_pages`, a reference of each frame; a frame somebody still holds goes later."""
    mem_map = system.mem_map
    frames = range(pfn, pfn + (1 << order))
    pages = [page for page in mem_map.frames[frames.start : frames.stop] if isinstance(page, Page)]
    if len(pages) != len(frames):
        raise KernelBug(f"a frame of the block {pfn:#x}, order {order}, is freed twice")
    if any(page.refcount != 1 or page.mapcount for page in pages):
        for page in pages:
            put_page(system, page)
        return
    mem_map[frames.start : frames.stop] = [None] * len(frames)
    block = min(order, MAX_ORDER - 1)
    for first in range(frames.start, frames.stop, 1 << block):
        _free_one_page(system.zone, first, block)


def drain_all_pages(zone: Zone) -> None:
    """Move the per-CPU frames to the buddy lists, so that they can merge."""
    for pfn in zone.pcp:
        _free_one_page(zone, pfn, 0)
    zone.pcp.clear()


def free_page(system: System, page: Page) -> None:
    """Free a frame whatever its refcount says it should be (the caller owned the last reference)."""
    pfn = page.pfn
    frames = system.mem_map.frames
    if frames[pfn] is not page:
        raise KernelBug(f"frame {pfn:#x} is freed twice or its struct page is stale")
    if page.mapcount or page.flags & (PG_RESERVED | PG_HUGETLB):
        if page.flags & PG_HUGETLB:
            from mm.hugetlb_pool import free_huge_page

            free_huge_page(system, page)
            return
        raise KernelBug(f"frame {pfn:#x} is freed with mapcount {page.mapcount}, flags {page.flags:#x}")
    page.refcount = 0
    frames[pfn] = None
    system.zone.pcp.append(pfn)


def put_page(system: System, page: Page) -> None:
    """Drop a reference; the last one frees the frame."""
    page.refcount -= 1
    if page.refcount <= 0:
        if page.refcount < 0:
            raise KernelBug(f"frame {page.pfn:#x} has refcount {page.refcount}")
        free_page(system, page)


def free_plain_anon(system: System, pfn: int) -> None:
    """One entry less maps a plain anonymous page (mem_map.py); the last one frees the frame."""
    mem_map = system.mem_map
    mem_map.users[pfn] -= 1
    if not mem_map.users[pfn]:
        mem_map.frames[pfn] = None
        system.zone.pcp.append(pfn)


def copy_page(system: System, to: Page, source: Page) -> None:
    """Copy the content of one page to another (copy_user_highpage)."""
    copy_frame(system, to.pfn, source.pfn)


def copy_frame(system: System, to: int, source: int) -> None:
    """Copy the content of frame `source` to frame `to`."""
    size = system.page_size
    ram = system.ram
    ram[to * size : (to + 1) * size] = ram[source * size : (source + 1) * size]
