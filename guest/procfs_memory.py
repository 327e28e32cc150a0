"""What /proc says of the machine's memory: meminfo, vmstat, zoneinfo, buddyinfo (fs/proc/meminfo.c, mm/vmstat.c).

All frames are one zone of one node. Figures are counted when asked for, from the frames themselves (`MemoryCount`);
events (pgfault, thp_fault_alloc ...) are counted as they happen, in `System`. Kernel memory is nobody's here: no slab,
no kernel stacks, no buffers; their figures are 0 because there are none. What is not counted has no line: in vmstat
numa_*, pgalloc_* and pgfree of the page allocator, pgpgin and pgpgout of disks, vmacache_find_* (a debugging option).

MemTotal is all of --ram but its first frame, where a kernel would have taken its own share first. What Linux derives
from its memory at boot (threads-max, file-max, ...) is derived from what a kernel would have left: boot_memory.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.boot_memory import min_free_kbytes
from mm.flags import PG_ACTIVE, PG_HUGETLB, PG_LRU, PG_SWAPBACKED, PG_TABLE, PG_UNEVICTABLE
from mm.memory_rss import page_anon
from mm.types import AnonVma
from mm.util import vm_commit_limit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guest.procfs import ProcInode
    from guest.task import Task
    from mm.system import System
    from mm.types import Page

#: Events of /proc/vmstat behind the counters of the node, in the kernel's order; those nothing here does stay 0.
EVENTS = """
    allocstall_{0} allocstall_{1} allocstall_{2} pgskip_{0} pgskip_{1} pgskip_{2} pgactivate pgdeactivate pglazyfree
    pgfault pgmajfault pglazyfreed pgrefill pgreuse pgsteal_kswapd pgsteal_direct pgscan_kswapd pgscan_direct
    pgscan_direct_throttle pgscan_anon pgscan_file pgsteal_anon pgsteal_file zone_reclaim_failed pginodesteal
    slabs_scanned kswapd_inodesteal kswapd_low_wmark_hit_quickly kswapd_high_wmark_hit_quickly pageoutrun
    pgrotated drop_pagecache drop_slab oom_kill pgmigrate_success pgmigrate_fail thp_migration_success
    thp_migration_fail thp_migration_split compact_migrate_scanned compact_free_scanned compact_isolated
    compact_stall compact_fail compact_success compact_daemon_wake compact_daemon_migrate_scanned
    compact_daemon_free_scanned htlb_buddy_alloc_success htlb_buddy_alloc_fail unevictable_pgs_culled
    unevictable_pgs_scanned unevictable_pgs_rescued unevictable_pgs_mlocked unevictable_pgs_munlocked
    unevictable_pgs_cleared unevictable_pgs_stranded thp_fault_alloc thp_fault_fallback
    thp_fault_fallback_charge thp_collapse_alloc thp_collapse_alloc_failed thp_file_alloc thp_file_fallback
    thp_file_fallback_charge thp_file_mapped thp_split_page thp_split_page_failed thp_deferred_split_page
    thp_split_pmd thp_split_pud thp_zero_page_alloc thp_zero_page_alloc_failed thp_swpout thp_swpout_fallback
    swap_ra swap_ra_hit"""
_NODE = """nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable
    nr_slab_unreclaimable nr_isolated_anon nr_isolated_file workingset_nodes workingset_refault_anon
    workingset_refault_file workingset_activate_anon workingset_activate_file workingset_restore_anon
    workingset_restore_file workingset_nodereclaim nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback
    nr_writeback_temp nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped
    nr_anon_transparent_hugepages nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written
    nr_kernel_misc_reclaimable nr_foll_pin_acquired nr_foll_pin_released nr_kernel_stack"""
_ZONE = """nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file
    nr_zone_unevictable nr_zone_write_pending nr_mlock nr_page_table_pages nr_bounce nr_free_cma"""


class MemoryCount:
    """Frames by use, in pages (the node and zone counters of Linux, counted when asked for)."""

    def __init__(self, task: Task) -> None:
        self.active_anon = self.inactive_anon = self.active_file = self.inactive_file = self.unevictable = 0
        self.anon_mapped = self.file_mapped = self.file_pages = self.tables = 0
        plain = 0  # frames that are known by their anon_vma alone: mapped, on the inactive list
        system = task.system
        frames: Iterable[Page | AnonVma] = filter(None, system.mem_map.frames)
        for page in frames:
            if isinstance(page, AnonVma):
                plain += 1
            elif page.flags & PG_TABLE:
                self.tables += page.index
            elif page.mapping is not None and not page.flags & PG_HUGETLB:
                anon = page_anon(page)
                if not anon:
                    self.file_pages += 1
                if page.mapcount > 0:
                    self.anon_mapped += anon
                    self.file_mapped += not anon
                self.count_list(page.flags if page.private is None else page.private.flags)
        self.inactive_anon += plain
        self.anon_mapped += plain
        self.huge = self.huge_mappings(system)

    def count_list(self, flags: int) -> None:
        """The LRU list the page is on, by its flags: lazily freed pages (not swap-backed) are among those of files."""
        if flags & PG_UNEVICTABLE:
            self.unevictable += 1
        elif flags & PG_LRU:
            if flags & PG_SWAPBACKED:
                self.active_anon += bool(flags & PG_ACTIVE)
                self.inactive_anon += not flags & PG_ACTIVE
            else:
                self.active_file += bool(flags & PG_ACTIVE)
                self.inactive_file += not flags & PG_ACTIVE

    @staticmethod
    def huge_mappings(system: System) -> int:
        """NR_ANON_THPS: blocks that at least one entry maps as a whole."""
        from mm.huge_memory import is_huge_zero_pmd
        from mm.pgtable import walk_pmds

        arch, words = system.arch, system.words
        heads = set()
        for mm in system.pgd_list:
            for _ in mm.deposited and (1,):
                for _, _, pmd in walk_pmds(mm, 0, mm.task_size):
                    entry = words[pmd]
                    if arch.pmd_trans_huge(entry) and not is_huge_zero_pmd(system, entry):
                        page = system.mem_map.peek(arch.pte_pfn(entry))
                        if page is not None and not page.flags & PG_HUGETLB:
                            heads.add(page.pfn)
        return len(heads)

    def node(self, system: System) -> dict[str, int]:
        """The counters of the node that are not 0."""
        return {
            "nr_inactive_anon": self.inactive_anon, "nr_active_anon": self.active_anon,
            "nr_inactive_file": self.inactive_file, "nr_active_file": self.active_file,
            "nr_unevictable": self.unevictable, "nr_anon_pages": self.anon_mapped, "nr_mapped": self.file_mapped,
            "nr_file_pages": self.file_pages, "nr_shmem": system.nr_shmem, "nr_anon_transparent_hugepages": self.huge,
        }  # fmt: skip

    def zone(self, system: System) -> dict[str, int]:
        """The counters of the zone that are not 0."""
        return {
            "nr_free_pages": system.nr_free_pages(), "nr_zone_inactive_anon": self.inactive_anon,
            "nr_zone_active_anon": self.active_anon, "nr_zone_inactive_file": self.inactive_file,
            "nr_zone_active_file": self.active_file, "nr_zone_unevictable": self.unevictable,
            "nr_mlock": system.nr_mlock, "nr_page_table_pages": self.tables,
        }  # fmt: skip


class Watermarks:
    """__setup_per_zone_wmarks() for the one zone, in pages."""

    def __init__(self, task: Task) -> None:
        system = task.system
        managed = system.totalram_pages
        scale: int = task.kernel.sysctls.get("watermark_scale_factor", 10)
        self.min = min_free_kbytes(task) >> (system.arch.page_shift - 10)
        step = max(self.min // 4, managed * scale // 10000)
        self.low, self.high = self.min + step, self.min + 2 * step


def si_mem_available(task: Task, count: MemoryCount) -> int:
    """Pages a program could get without swapping."""
    marks = Watermarks(task)
    cache = count.active_file + count.inactive_file
    return max(task.system.nr_free_pages() - marks.high + cache - min(cache // 2, marks.low), 0)


def show_meminfo(inode: ProcInode, task: Task) -> str:
    """meminfo_proc_show()."""
    system, abi = task.system, task.kernel.vfs.abi
    shift = system.arch.page_shift - 10
    count = MemoryCount(task)

    def kb(label: str, pages: int) -> str:
        return f"{label + ':':<16}{pages << shift:8} kB\n"

    text = "".join(
        kb(label, pages)
        for label, pages in (
            ("MemTotal", system.totalram_pages),
            ("MemFree", system.nr_free_pages()),
            ("MemAvailable", si_mem_available(task, count)),
            ("Buffers", 0),
            ("Cached", count.file_pages),
            ("SwapCached", 0),
            ("Active", count.active_anon + count.active_file),
            ("Inactive", count.inactive_anon + count.inactive_file),
            ("Active(anon)", count.active_anon),
            ("Inactive(anon)", count.inactive_anon),
            ("Active(file)", count.active_file),
            ("Inactive(file)", count.inactive_file),
            ("Unevictable", count.unevictable),
            ("Mlocked", system.nr_mlock),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Dirty", 0),
            ("Writeback", 0),
            ("AnonPages", count.anon_mapped),
            ("Mapped", count.file_mapped),
            ("Shmem", system.nr_shmem),
            ("KReclaimable", 0),
            ("Slab", 0),
            ("SReclaimable", 0),
            ("SUnreclaim", 0),
            ("KernelStack", 0),
            ("PageTables", count.tables),
            ("NFS_Unstable", 0),
            ("Bounce", 0),
            ("WritebackTmp", 0),
            ("CommitLimit", vm_commit_limit(system)),
            ("Committed_AS", max(system.vm_committed_as, 0)),
        )
    )
    text += f"VmallocTotal:   {abi.vmalloc_kb(task):8} kB\n" + kb("VmallocUsed", 0) + kb("VmallocChunk", 0)
    text += kb("Percpu", 0) + str(abi.meminfo_middle(task))
    text += kb("AnonHugePages", count.huge * system.arch.hpage_pmd_nr)
    for label in ("ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"):
        text += kb(label, 0)
    return text + hugetlb_report_meminfo(system) + str(abi.meminfo_tail(task))


def hugetlb_report_meminfo(system: System) -> str:
    """The pool of default huge pages, and the memory of all pools."""
    counts, total = (0, 0, 0, 0), 0
    if system.hugetlb is not None:
        h = system.hugetlb.default
        counts = (h.nr_huge_pages, h.free_huge_pages, h.resv_huge_pages, h.surplus_huge_pages)
        total = system.hugetlb.total_pages() << system.arch.page_shift
    text = "".join(
        f"HugePages_{label}:   {count:5}\n"
        for label, count in zip(("Total", "Free", "Rsvd", "Surp"), counts, strict=True)
    )
    text = text.replace("Free:", "Free: ").replace("Rsvd:", "Rsvd: ").replace("Surp:", "Surp: ")
    size = 1 << system.arch.hugetlb_shifts[0]
    return text + f"Hugepagesize:   {size >> 10:8} kB\nHugetlb:        {total >> 10:8} kB\n"


def dirty_thresholds(task: Task, count: MemoryCount) -> tuple[int, int]:
    """global_dirty_limits(): pages that may be dirty, and from where on writing starts."""
    table, system = task.kernel.sysctls, task.system
    size = system.arch.page_size
    available = max(system.nr_free_pages() - Watermarks(task).high, 0) + count.inactive_file + count.active_file
    limits = []
    for name, ratio in (("dirty", 20), ("dirty_background", 10)):
        set_bytes: int = table.get(f"{name}_bytes", 0)
        percent: int = table.get(f"{name}_ratio", ratio)
        share = percent * size // 100  # in parts of a page, as the kernel reckons
        limits.append(-(-set_bytes // size) if set_bytes else share * available // size)
    if limits[1] >= limits[0]:
        limits[1] = limits[0] // 2
    return limits[0], limits[1]


def show_vmstat(inode: ProcInode, task: Task) -> str:
    """vmstat_show(): the kernel's names in its order, less those nobody counts."""
    system = task.system
    count = MemoryCount(task)
    values = count.node(system) | count.zone(system) | system.vm_events
    values |= {"pgfault": system.pgfault, "pgmajfault": system.pgmajfault}
    values |= {"pgreuse": system.pgreuse, "oom_kill": system.oom_kill}
    dirty, background = dirty_thresholds(task, count)
    values |= {"nr_dirty_threshold": dirty, "nr_dirty_background_threshold": background}
    zones = [zone.lower() for zone in task.kernel.vfs.abi.zones]
    names = f"{_ZONE} {_NODE} nr_dirty_threshold nr_dirty_background_threshold pswpin pswpout {EVENTS} nr_unstable"
    return "".join(f"{name} {values.get(name, 0)}\n" for name in names.format(*zones, "", "").split())


def zone_batchsize(system: System) -> int:
    """How many frames move between the zone and a CPU's list at once."""
    page_size: int = system.page_size
    batch = max(min(system.totalram_pages // 1024, (1 << 20) // page_size) // 4, 1)
    return int(1 << ((batch + batch // 2).bit_length() - 1)) - 1


def show_zoneinfo(inode: ProcInode, task: Task) -> str:
    """zoneinfo_show(): the zone that has all memory, and those that have none."""
    system = task.system
    count, marks, zone = MemoryCount(task), Watermarks(task), system.zone
    node, figures = count.node(system), count.zone(system)
    zones: tuple[str, ...] = task.kernel.vfs.abi.zones
    protection = ", ".join("0" for _ in zones)

    def pages(numbers: tuple[int, ...]) -> str:
        rows = zip(("min", "low", "high", "spanned", "present", "managed"), numbers[1:], strict=True)
        head = f"\n  pages free     {numbers[0]}"
        return head + "".join(f"\n        {name:<8} {number}" for name, number in rows)

    text = ""
    for name in zones:
        text += f"Node 0, zone {name:>8}"
        if name != task.kernel.vfs.abi.first_zone:
            text += pages((0,) * 7) + f"\n        protection: ({protection})\n"
            continue
        text += "\n  per-node stats" + "".join(f"\n      {row:<12} {node.get(row, 0)}" for row in _NODE.split())
        present = zone.spanned_pages - 1
        sizes = (system.nr_free_pages(), marks.min, marks.low, marks.high, present, present, zone.managed_pages)
        text += pages(sizes) + f"\n        protection: ({protection})"
        text += "".join(f"\n      {row:<12} {figures.get(row, 0)}" for row in _ZONE.split())
        batch = zone_batchsize(system)
        memory = zone.managed_pages >> (27 - system.arch.page_shift)
        text += f"\n  pagesets\n    cpu: 0\n              count: {len(zone.pcp)}"
        text += f"\n              high:  {6 * batch}\n              batch: {batch}"
        text += f"\n  vm stats threshold: {min(125, 2 * (1 + memory.bit_length()))}"
        text += "\n  node_unreclaimable:  0\n  start_pfn:           1\n"
    return text


def show_buddyinfo(inode: ProcInode, task: Task) -> str:
    """frag_show(): free blocks by size, those on the CPU's list not among them."""
    blocks = "".join(f"{len(area):6} " for area in task.system.zone.free_area)
    return f"Node 0, zone {task.kernel.vfs.abi.first_zone:>8} {blocks}\n"
