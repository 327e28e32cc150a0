"""/proc/PID/smaps and smaps_rollup (fs/proc/task_mmu.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.procfs_maps import NAME_COLUMN, Gate, VmaFile, show_map
from mm.errors import Errno
from mm.flags import (
    PG_DIRTY,
    PG_REFERENCED,
    PG_SWAPBACKED,
    VM_ACCOUNT,
    VM_ARCH_1,
    VM_DENYWRITE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SYNC,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WIPEONFORK,
    VM_WRITE,
)
from mm.huge_memory import huge_page, transparent_hugepage_enabled
from mm.memory_cow import vm_normal_page
from mm.memory_rss import page_anon
from mm.pgtable import pte_range, walk_pmds

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.types import MmStruct, Page, VmAreaStruct

PSS_SHIFT = 12
_MNEMONICS = {
    VM_READ: "rd", VM_WRITE: "wr", VM_EXEC: "ex", VM_SHARED: "sh", VM_MAYREAD: "mr", VM_MAYWRITE: "mw",
    VM_MAYEXEC: "me", VM_MAYSHARE: "ms", VM_GROWSDOWN: "gd", VM_PFNMAP: "pf", VM_DENYWRITE: "dw", VM_LOCKED: "lo",
    VM_IO: "io", VM_SEQ_READ: "sr", VM_RAND_READ: "rr", VM_DONTCOPY: "dc", VM_DONTEXPAND: "de", VM_ACCOUNT: "ac",
    VM_NORESERVE: "nr", VM_HUGETLB: "ht", VM_SYNC: "sf", VM_ARCH_1: "ar", VM_WIPEONFORK: "wf", VM_DONTDUMP: "dd",
    VM_MIXEDMAP: "mm", VM_HUGEPAGE: "hg", VM_NOHUGEPAGE: "nh", VM_MERGEABLE: "mg", VM_UFFD_MISSING: "um",
    VM_UFFD_WP: "uw",
}  # fmt: skip
_FIELDS = (
    "resident", "pss", "pss_anon", "pss_file", "pss_shmem", "shared_clean", "shared_dirty", "private_clean",
    "private_dirty", "referenced", "anonymous", "anonymous_thp", "lazyfree", "swap", "swap_pss", "pss_locked",
    "shared_hugetlb", "private_hugetlb",
)  # fmt: skip


class MemSizeStats:
    """struct mem_size_stats: bytes; pss fields in 1/4096 byte."""

    __slots__ = _FIELDS

    def __init__(self) -> None:
        for name in _FIELDS:
            setattr(self, name, 0)

    resident: int
    pss: int
    pss_anon: int
    pss_file: int
    pss_shmem: int
    shared_clean: int
    shared_dirty: int
    private_clean: int
    private_dirty: int
    referenced: int
    anonymous: int
    anonymous_thp: int
    lazyfree: int
    swap: int
    swap_pss: int
    pss_locked: int
    shared_hugetlb: int
    private_hugetlb: int

    def account(self, page: Page, size: int, young: bool, dirty: bool, locked: bool) -> None:
        """smaps_account() of one page; of a huge page each part is given, and its flags are the head's."""
        anon = page_anon(page)
        flags = page.flags if page.private is None else page.private.flags
        if anon:
            self.anonymous += size
            if not flags & PG_SWAPBACKED and not dirty and not flags & PG_DIRTY:
                self.lazyfree += size
        self.resident += size
        if young or flags & PG_REFERENCED:
            self.referenced += size
        private = page.refcount == 1 or page.mapcount < 2
        pss = size << PSS_SHIFT
        if page.refcount != 1 and page.mapcount >= 2:
            pss //= page.mapcount
        self.pss += pss
        if anon:
            self.pss_anon += pss
        elif flags & PG_SWAPBACKED:
            self.pss_shmem += pss
        else:
            self.pss_file += pss
        if locked:
            self.pss_locked += pss
        if dirty or flags & PG_DIRTY:
            if private:
                self.private_dirty += size
            else:
                self.shared_dirty += size
        elif private:
            self.private_clean += size
        else:
            self.shared_clean += size

    def gather(self, mm: MmStruct, vma: VmAreaStruct) -> None:
        """smap_gather_stats() of a whole area."""
        if vma.vm_flags & VM_PFNMAP:
            return
        if vma.vm_flags & VM_HUGETLB:
            self.gather_hugetlb(vma)
            return
        arch, words, size = mm.arch, mm.system.words, mm.arch.page_size
        locked = bool(vma.vm_flags & VM_LOCKED)
        for start, end, pmd in walk_pmds(mm, vma.vm_start, vma.vm_end):
            if arch.pmd_trans_huge(words[pmd]):
                self.gather_huge(mm, words[pmd], locked)
                continue
            first, last = pte_range(mm, pmd, start, end)
            for pte in words[first:last].tolist():
                if pte and arch.pte_present(pte):
                    page = vm_normal_page(mm, pte, peek=True)
                    if page is not None:
                        self.account(page, size, arch.pte_young(pte), arch.pte_dirty(pte), locked)

    def gather_hugetlb(self, vma: VmAreaStruct) -> None:
        """smaps_hugetlb_range(): such pages count here alone."""
        from mm.hugetlb import huge_pages

        for _, _, page in huge_pages(vma):
            if page is not None and page.mapcount >= 2:
                self.shared_hugetlb += page.hstate.size
            elif page is not None:
                self.private_hugetlb += page.hstate.size

    def gather_huge(self, mm: MmStruct, pmd: int, locked: bool) -> None:
        """smaps_pmd_entry(). The huge zero page does not count."""
        arch = mm.arch
        if vm_normal_page(mm, pmd) is not None:
            self.anonymous_thp += arch.pmd_size
            for page in huge_page(mm, pmd):
                self.account(page, arch.page_size, arch.pte_young(pmd), arch.pte_dirty(pmd), locked)

    def text(self, rollup: bool) -> str:
        """__show_smap()."""
        out = _line("Rss", self.resident) + _line("Pss", self.pss >> PSS_SHIFT)
        if rollup:
            out += _line("Pss_Anon", self.pss_anon >> PSS_SHIFT) + _line("Pss_File", self.pss_file >> PSS_SHIFT)
            out += _line("Pss_Shmem", self.pss_shmem >> PSS_SHIFT)
        for label, value in (
            ("Shared_Clean", self.shared_clean),
            ("Shared_Dirty", self.shared_dirty),
            ("Private_Clean", self.private_clean),
            ("Private_Dirty", self.private_dirty),
            ("Referenced", self.referenced),
            ("Anonymous", self.anonymous),
            ("LazyFree", self.lazyfree),
            ("AnonHugePages", self.anonymous_thp),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", self.shared_hugetlb),
            ("Private_Hugetlb", self.private_hugetlb),
            ("Swap", self.swap),
            ("SwapPss", self.swap_pss >> PSS_SHIFT),
            ("Locked", self.pss_locked >> PSS_SHIFT),
        ):
            out += _line(label, value)
        return out


def _line(label: str, size: int) -> str:
    """One "Label:   n kB" line, the number ending in column 24."""
    head = f"{label}:"
    return f"{head}{size >> 10:>{24 - len(head)}} kB\n"


class SmapsFile(VmaFile):
    """A block a VMA."""

    def seq_show(self, task: Task, record: Any) -> str:
        stats = MemSizeStats()
        page_size = task.system.arch.page_size
        if not isinstance(record, Gate):
            stats.gather(record.vm_mm, record)
            if record.vm_flags & VM_HUGETLB:
                from mm.hugetlb import vma_kernel_pagesize

                page_size = vma_kernel_pagesize(record)
        text = show_map(record) + _line("Size", record.vm_end - record.vm_start)
        text += _line("KernelPageSize", page_size) + _line("MMUPageSize", page_size) + stats.text(False)
        return text + f"THPeligible:    {int(thp_eligible(record))}\n" + vm_flags_line(record, task)


def thp_eligible(vma: VmAreaStruct | Gate) -> bool:
    """transparent_hugepage_active(): an anonymous area that gets huge pages, with room for one."""
    if isinstance(vma, Gate) or vma.vm_ops is not None or vma.vm_mm is None:
        return False
    if not transparent_hugepage_enabled(vma):
        return False
    size = vma.vm_mm.arch.pmd_size
    start = -(-vma.vm_start // size) * size
    return start + size <= vma.vm_end


def vm_flags_line(vma: VmAreaStruct | Gate, task: Task) -> str:
    """show_smap_vma_flags()."""
    soft_dirty = task.system.arch.VM_SOFTDIRTY
    out = "VmFlags: "
    for bit in range(64):
        flag = 1 << bit
        if vma.vm_flags & flag:
            out += _MNEMONICS.get(flag, "sd" if flag == soft_dirty else "??") + " "
    return out + "\n"


def open_smaps(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """proc_pid_smaps_operations."""
    return SmapsFile(path, inode, flags, task)


def show_smaps_rollup(inode: ProcInode, task: Task) -> str:
    """Raises ESRCH for a task without memory."""
    mm = inode.access_mm(task)
    if mm is None:
        raise Errno(errno.ESRCH)
    stats = MemSizeStats()
    vma, last = mm.mmap, 0
    while vma is not None:
        stats.gather(mm, vma)
        last, vma = vma.vm_end, vma.vm_next
    start = mm.mmap.vm_start if mm.mmap is not None else 0
    head = f"{start:08x}-{last:08x} ---p 00000000 00:00 0 "
    return f"{head:<{NAME_COLUMN}} [rollup]\n" + stats.text(True)
