"""What Linux derives from its memory while it boots: how many threads and files there may be, what is kept back.

A kernel takes its share before it counts: its image, the array of struct page (64 bytes a frame), the first caches.
Here all of --ram is the guest's, so the share is a figure: that of the oracle's kernel. Every value below is then the
oracle's with its 1 GiB (tests/golden/proc), and within 3 % of what it computes with 512 MiB and 2 GiB.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.task import Task
    from mm.system import System

#: (architecture, page size): KiB of image and early tables; pages and KiB in use when files and reserves are sized.
_SHARE = {
    ("x86_64", 4096): (13032, 140, 1100),
    ("aarch64", 4096): (7132, 74, 1492),
    ("aarch64", 16384): (8912, 6, 1440),
    ("aarch64", 65536): (10240, 3, 1264),
}
_STRUCT_PAGE = 64  # bytes
_THREAD_SIZE = 16384
_EP_ITEM_COST = 200  # bytes: struct epitem and struct eppoll_entry
_PAGEBLOCK, _MIGRATE_PCPTYPES = 512, 3


class BootMemory:
    """totalram_pages() of a kernel that boots with the machine's RAM, and its derivations."""

    def __init__(self, system: System) -> None:
        self.page_kb = system.page_size >> 10
        frames = len(system.ram) // system.page_size
        image, self.files_used, self.init_used = _SHARE[system.arch.name, system.page_size]
        share = (image + (frames * _STRUCT_PAGE >> 10)) // self.page_kb
        # a machine too small for that kernel keeps half, so that small machines work at all
        self.pages = max(frames - share, frames // 2)

    def max_threads(self) -> int:
        """set_max_threads(): an eighth of memory in kernel stacks."""
        return max(20, (self.pages * self.page_kb << 10) // (_THREAD_SIZE * 8))

    def file_max(self) -> int:
        """files_maxfiles_init(): a tenth of memory in files of about 1 KiB, at least 8192."""
        reserve = min(self.files_used * 3 // 2, self.pages - 1)
        return max((self.pages - reserve) * self.page_kb // 10, 8192)

    def max_user_watches(self) -> int:
        """eventpoll_init(): 4 % of memory."""
        return self.pages // 25 * (self.page_kb << 10) // _EP_ITEM_COST

    def user_reserve_kbytes(self) -> int:
        """init_user_reserve(): 3 % of what is free, at most 128 MiB."""
        return min(max(self.pages * self.page_kb - self.init_used, 0) // 32, 1 << 17)


def min_free_kbytes(task: Task) -> int:
    """init_per_zone_wmark_min(), raised where huge pages are offered (set_recommended_min_free_kbytes())."""
    chosen = task.kernel.sysctls.get("min_free_kbytes")
    if chosen is not None:
        return int(chosen)
    system = task.system
    page_kb = system.page_size >> 10
    lowmem = system.totalram_pages * page_kb
    free = min(max(isqrt(lowmem * 16), 128), 262144)
    if system.arch.transparent_hugepage:
        wanted = _PAGEBLOCK * 2 + _PAGEBLOCK * _MIGRATE_PCPTYPES * _MIGRATE_PCPTYPES
        free = max(free, min(wanted, system.totalram_pages // 20) * page_kb)
    return free
