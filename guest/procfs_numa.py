"""/proc/PID/numa_maps (fs/proc/task_mmu.c): each area's memory policy and where its pages are. There is one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.procfs_maps import Gate, VmaFile
from mm.flags import PG_ACTIVE, PG_DIRTY, PG_RESERVED, PG_UNEVICTABLE, VM_HUGETLB
from mm.memory_cow import vm_normal_page
from mm.memory_rss import page_anon
from mm.mempolicy import (
    MPOL_DEFAULT,
    MPOL_F_LOCAL,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_LOCAL,
    Mempolicy,
    vma_get_policy,
)
from mm.pgtable import pte_range, walk_pmds

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.types import MmStruct, Page, VmAreaStruct

POLICY_MODES = ("default", "prefer", "bind", "interleave", "local")


def mpol_to_str(policy: Mempolicy | None) -> str:
    """A policy as text: mode, mode flag, nodes."""
    if policy is None:
        return POLICY_MODES[MPOL_DEFAULT]
    local = bool(policy.flags & MPOL_F_LOCAL)
    text = POLICY_MODES[MPOL_LOCAL if local else policy.mode]
    if policy.flags & MPOL_F_STATIC_NODES:
        text += "=static"
    elif policy.flags & MPOL_F_RELATIVE_NODES:
        text += "=relative"
    return text if local else f"{text}:0"


class NumaMaps:
    """Pages of an area by kind (struct numa_maps)."""

    def __init__(self) -> None:
        self.page_size = 0  # bytes, where it is not the usual one: of the pages counted
        self.pages = self.anon = self.dirty = self.active = self.mapcount_max = 0

    def gather_stats(self, page: Page, dirty: bool, count: int) -> None:
        """One mapped page, or one huge page of `count` pages."""
        if page.flags & PG_RESERVED:
            return
        self.pages += count
        self.dirty += count if dirty or page.flags & PG_DIRTY else 0
        self.active += count if page.flags & (PG_ACTIVE | PG_UNEVICTABLE) else 0
        self.anon += count if page_anon(page) else 0
        self.mapcount_max = max(self.mapcount_max, page.mapcount)

    def gather(self, mm: MmStruct, vma: VmAreaStruct) -> None:
        """Every present entry of the area."""
        if vma.vm_flags & VM_HUGETLB:
            from mm.hugetlb import huge_pages, vma_kernel_pagesize

            self.page_size = vma_kernel_pagesize(vma)
            for _, entry, head in huge_pages(vma):
                if head is not None:
                    self.gather_stats(head, mm.arch.pte_dirty(entry), 1)
            return
        arch, words = mm.arch, mm.system.words
        for start, end, pmd in walk_pmds(mm, vma.vm_start, vma.vm_end):
            if arch.pmd_trans_huge(words[pmd]):
                page = vm_normal_page(mm, words[pmd])
                if page is not None:
                    self.gather_stats(page, arch.pte_dirty(words[pmd]), arch.pmd_size >> arch.page_shift)
                continue
            first, last = pte_range(mm, pmd, start, end)
            for pte in words[first:last].tolist():
                if pte and arch.pte_present(pte):
                    page = vm_normal_page(mm, pte, peek=True)
                    if page is not None:
                        self.gather_stats(page, arch.pte_dirty(pte), 1)

    def text(self, page_size: int) -> str:
        """The counts, as they stand behind the name; nothing for an area without pages."""
        if not self.pages:
            return ""
        out = f" anon={self.anon}" if self.anon else ""
        out += f" dirty={self.dirty}" if self.dirty else ""
        out += f" mapped={self.pages}" if self.pages not in (self.anon, self.dirty) else ""
        out += f" mapmax={self.mapcount_max}" if self.mapcount_max > 1 else ""
        out += f" active={self.active}" if self.active < self.pages and not self.page_size else ""
        return f"{out} N0={self.pages} kernelpagesize_kB={(self.page_size or page_size) >> 10}"


class NumaMapsFile(VmaFile):
    """A line a VMA; the gate area has none."""

    def seq_show(self, task: Task, record: Any) -> str:
        if isinstance(record, Gate):
            return ""
        mm = record.vm_mm
        stats = NumaMaps()
        stats.gather(mm, record)
        policy = vma_get_policy(record, record.vm_start) or self.target.mempolicy
        line = f"{record.vm_start:08x} {mpol_to_str(policy)}"
        if record.vm_file is not None:
            name = record.vm_file.d_path()
            for odd in "\n\t= ":
                name = name.replace(odd, f"\\{ord(odd):03o}")
            line += f" file={name}"
        elif record.vm_start <= mm.brk and record.vm_end >= mm.start_brk:
            line += " heap"
        elif record.vm_start <= mm.start_stack <= record.vm_end:
            line += " stack"
        line += " huge" if record.vm_flags & VM_HUGETLB else ""
        return line + stats.text(task.system.arch.page_size) + "\n"


def open_numa_maps(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """proc_pid_numa_maps_operations."""
    return NumaMapsFile(path, inode, flags, task)
