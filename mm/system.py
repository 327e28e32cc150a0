"""The machine as mm/ sees it: RAM, its frames, the sysctls, and the algorithms every address space uses.

A `System` is the root of all memory state. It pickles without its RAM; `attach(ram)` gives a loaded one a RAM again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import PG_RESERVED
from mm.mem_map import MemMap
from mm.page_alloc import Zone, alloc_page, init_zone
from mm.types import MmOps, Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.arch import Arch
    from mm.types import MmStruct, TaskStruct


class System:
    """One guest machine.

    Args:
        arch: the architecture, from `mm.arch_x86_64.make()` or `mm.arch_arm64.make()`.
        ram: writable memoryview of bytes: guest physical memory from address 0. Its length is a multiple of the page
            size, and its content is zero.
    """

    wake_daemons: Callable[[], None] | None = None  # khugepaged has work from now on; guest/ sets it

    def __init__(self, arch: Arch, ram: memoryview) -> None:
        self.arch = arch
        self.page_size = arch.page_size
        self.zeroes = bytes(arch.page_size)
        self.attach(ram)
        frames = len(ram) >> arch.page_shift
        self.mem_map = MemMap(frames)
        self.mem_map[0] = Page(0, flags=PG_RESERVED)  # frame 0 is nobody's: 0 can mean "no frame"
        self.zone: Zone = init_zone(1, frames)
        self.mm_ops = make_mm_ops()
        self.listener: Callable[[Any], None] | None = None
        self.current: TaskStruct | None = None  # the running task
        self.pgd_list: list[MmStruct] = []  # every address space that has page tables
        self.kernel_pgd: list[tuple[int, int]] = []  # (index, entry) of the kernel's part of every root table
        self.validate_level = 0

        # sysctls of /proc/sys/vm and their kin, by their kernel names
        self.sysctl_overcommit_memory = 0
        self.sysctl_overcommit_ratio = 50
        self.sysctl_overcommit_kbytes = 0
        self.sysctl_max_map_count = 65530
        self.mmap_min_addr = 4096  # dac_mmap_min_addr; round_hint_to_min() rounds up to a page
        self.sysctl_legacy_va_layout = 0
        self.stack_guard_gap = 256 << arch.page_shift
        free_kbytes = self.zone.nr_free_pages << (arch.page_shift - 10)
        self.sysctl_user_reserve_kbytes = min(free_kbytes // 32, 1 << 17)
        self.sysctl_admin_reserve_kbytes = min(free_kbytes // 32, 1 << 13)
        self.fault_around_bytes = 65536

        # counters
        self.vm_committed_as = 0  # pages
        self.pgfault = 0  # PGFAULT of /proc/vmstat
        self.pgmajfault = 0
        self.pgreuse = 0
        self.oom_kill = 0
        self.vm_events: dict[str, int] = {}  # further events of /proc/vmstat, by name
        self.lru_add: list[Page] = []  # lru_pvecs.lru_add: pages on the way to the LRU lists, lru.py
        self.nr_mlock = 0  # NR_MLOCK: pages with PG_MLOCKED
        self.nr_shmem = 0  # NR_SHMEM: pages in shmem page caches
        self.hugetlb: Any = None  # Hugetlb: the pools of huge pages, made by hugetlb_pools() when first asked for
        self.sysctl_hugetlb_shm_group = 0
        self.khugepaged: Any = None  # Khugepaged: what that thread knows, made by khugepaged_state()
        self.ksm: Any = None  # Ksm: what ksmd knows, made by ksm_state() when first asked for
        self.thp_enabled = "madvise" if arch.transparent_hugepage else "never"  # or "always"
        self.thp_use_zero_page = 1  # a read of untouched huge memory maps the huge zero page
        self.huge_zero_pfn = 0  # first frame of the huge zero page; 0: not made yet
        self.userfaultfds = 0  # open userfaultfds, and those a fork made: without any nothing looks for them
        self.fault_result = ""  # how the last fault was resolved, for `Fault` events

        zero_page = alloc_page(self, True)
        if zero_page is None:
            raise MemoryError("no RAM for the zero page")
        zero_page.flags |= PG_RESERVED
        self.zero_pfn = zero_page.pfn

    def attach(self, ram: memoryview) -> None:
        """Use `ram` as guest physical memory (at the start, and after unpickling)."""
        self.ram = ram
        self.words = ram.cast("Q")

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["ram"], state["words"]
        state["listener"] = None
        state.pop("wake_daemons", None)
        return state

    @property
    def totalram_pages(self) -> int:
        """Frames the allocator manages (totalram_pages())."""
        return self.zone.managed_pages

    def count_vm_event(self, name: str, count: int = 1) -> None:
        """count_vm_events(): one of the rarer events of /proc/vmstat happened."""
        self.vm_events[name] = self.vm_events.get(name, 0) + count

    def nr_free_pages(self) -> int:
        """Free frames (NR_FREE_PAGES)."""
        return self.zone.nr_free_pages


def make_mm_ops() -> MmOps:
    """The table of algorithms, filled with our own. Imported here: those modules import this one's types."""
    from mm import find_vma, memory, memory_cow, stack, unmapped_area, vma_merge, vma_tree, vmacache

    ops = MmOps()
    ops.do_wp_page = memory_cow.do_wp_page
    ops.expand_stack = stack.expand_stack
    ops.find_vma = find_vma.find_vma
    ops.find_vma_links = find_vma.find_vma_links
    ops.vmacache_find = vmacache.vmacache_find
    ops.vmacache_update = vmacache.vmacache_update
    ops.vma_link_rb = vma_tree.vma_link_rb
    ops.vma_merge = vma_merge.vma_merge
    ops.unmapped_area = unmapped_area.unmapped_area
    ops.unmapped_area_topdown = unmapped_area.unmapped_area_topdown
    ops.handle_mm_fault = memory.handle_mm_fault
    return ops
