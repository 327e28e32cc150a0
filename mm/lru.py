"""On the way to the LRU lists (the part of mm/swap.c that can be seen).

A page that is put (back) on the lists waits in a batch of its CPU, without PG_LRU, until the batch is full or
lru_add_drain() empties it; many operations do that first. Meanwhile nobody can take the page off the lists. munlock
depends on it: of a page it cannot isolate it only clears the mark, without asking whether another locked area holds it.

DEVIATION D5: only pages that mlock and munlock move pass through the batch here. New pages are on the lists from
birth, so the batch fills up more slowly than Linux's, in which every new page of the machine counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import PG_ACTIVE, PG_LRU, PG_REFERENCED, PG_UNEVICTABLE

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import Page

PAGEVEC_SIZE = 15


def isolate_lru_page(page: Page) -> bool:
    """Take a page off the lists; False where it is not on them."""
    if not page.flags & PG_LRU:
        return False
    page.flags &= ~PG_LRU
    return True


def lru_cache_add(system: System, page: Page) -> None:
    """Send a page towards the lists (putback_lru_page)."""
    system.lru_add.append(page)
    if len(system.lru_add) == PAGEVEC_SIZE:
        lru_add_drain(system)


def lru_add_drain(system: System) -> None:
    """What waits in the batch reaches the lists."""
    if system.lru_add:
        for page in system.lru_add:
            if system.mem_map.frames[page.pfn] is page:
                page.flags |= PG_LRU
        system.lru_add.clear()


def mark_page_accessed(page: Page) -> None:
    """Somebody used the page, and no entry will tell: it is referenced from now on; the second time it is active."""
    head: Page = page.private or page
    if not head.flags & PG_REFERENCED:
        head.flags |= PG_REFERENCED
    elif not head.flags & (PG_UNEVICTABLE | PG_ACTIVE):
        head.flags = head.flags & ~PG_REFERENCED | PG_ACTIVE
