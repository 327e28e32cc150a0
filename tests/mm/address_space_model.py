"""The model of the state machine: processes, files and pages, without areas, tables or frames.

A page of a process is a dictionary entry that says what a load there must give and what is allowed. A page of a file is
an entry of the file's dictionary; who maps it sees it, unless it has a copy of its own.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from mm.flags import PROT_EXEC, PROT_READ, PROT_WRITE, VM_EXEC, VM_READ, VM_WRITE
from mm.types import MmStruct, Page, TaskStruct, VmAreaStruct

LOCKED, LOCKONFAULT = 1, 2  # ModelPage.lock


@dataclass
class ModelFile:
    """A file: the first byte of each page that has data. Shared anonymous memory is one, too."""

    size: int  # bytes
    data: dict[int, int] = field(default_factory=dict)
    file: Any = None  # the open file of mm/; None for shared anonymous memory

    def truncate(self, size: int, page_size: int) -> None:
        self.size = size
        for n in [n for n in self.data if n * page_size >= size]:
            del self.data[n]


@dataclass
class ModelPage:
    """One page of one process. `own` is its private content: None while it shows its file's."""

    prot: int
    shared: bool
    file: ModelFile | None
    offset: int  # page of the file
    own: int | None
    lock: int = 0
    dontfork: bool = False
    wipeonfork: bool = False
    lazyfree: bool = False  # MADV_FREE since the last store: may become zero at any time

    def beyond_end(self, page_size: int) -> bool:
        """An access ends in SIGBUS: nothing private is there, and the file has no such page."""
        return self.own is None and self.file is not None and self.offset * page_size >= self.file.size

    def value(self) -> int:
        if self.own is not None:
            return self.own
        return self.file.data.get(self.offset, 0) if self.file is not None else 0

    def store(self, value: int) -> None:
        if self.shared and self.file is not None:
            self.file.data[self.offset] = value
        else:
            self.own = value
            self.lazyfree = False

    def drop(self) -> None:
        """MADV_DONTNEED, or truncation: what was private is gone."""
        if not self.shared:
            self.own = 0 if self.file is None else None
            self.lazyfree = False

    def populate(self, page_size: int) -> bool:
        """Make the page present for a lock (populate_vma_page_range); False where that fails."""
        if not self.prot:
            return False
        if self.lock & LOCKONFAULT:
            return True
        if self.beyond_end(page_size):
            return False
        if not self.shared and self.prot & PROT_WRITE and self.own is None:
            self.own = self.value()  # copy-on-write is broken in advance
        return True

    def for_child(self) -> "ModelPage":
        """What fork() makes of it."""
        child = replace(self, lock=0)
        if self.wipeonfork:
            child.own, child.lazyfree = 0, False
        return child

    def grown(self, distance: int) -> "ModelPage":
        """A page that mremap adds `distance` pages behind this one, the last of its area."""
        return replace(self, offset=self.offset + distance, own=0 if self.file is None else None, lazyfree=False)


class Process:
    """A task of mm/ beside its model: pages by number, from the start of the window."""

    def __init__(self, task: TaskStruct, model: dict[int, ModelPage], heap: int, lock_future: int = 0) -> None:
        self.task, self.model, self.heap, self.lock_future = task, model, heap, lock_future

    @property
    def mm(self) -> MmStruct:
        assert self.task.mm is not None
        return self.task.mm


def areas(mm: MmStruct) -> list[VmAreaStruct]:
    found = []
    vma = mm.mmap
    while vma is not None:
        found.append(vma)
        vma = vma.vm_next
    return found


def prot_of(vma: VmAreaStruct) -> int:
    flags = vma.vm_flags
    prot = (PROT_READ if flags & VM_READ else 0) | (PROT_WRITE if flags & VM_WRITE else 0)
    return prot | (PROT_EXEC if flags & VM_EXEC else 0)


def leaves(mm: MmStruct) -> list[int]:
    """Every entry of the lowest level, found by reading RAM from the root on, whatever the areas say."""
    arch, words = mm.arch, mm.system.words
    skip = {index for index, _ in mm.system.kernel_pgd}
    tables = [mm.pgd]
    for _ in arch.level_shifts[:-1]:
        entries = [
            entry
            for pfn in tables
            for index, entry in enumerate(words[pfn * arch.page_size // 8 : (pfn + 1) * arch.page_size // 8].tolist())
            if entry and not (pfn == mm.pgd and index in skip)
        ]
        tables = [(entry & arch.PTE_PFN_MASK) >> arch.page_shift for entry in entries]
    size = arch.page_size // 8
    return [entry for pfn in tables for entry in words[pfn * size : (pfn + 1) * size].tolist() if entry]


def recount(processes: list[Process], files: list[ModelFile]) -> None:
    """Mapcounts, refcounts and rss as Linux defines them, from the tables and page caches alone."""
    system = processes[0].mm.system
    mapcounts: dict[int, int] = {}
    caches = {file.file.f_mapping for file in files if file.file is not None}
    for process in processes:
        mm = process.mm
        caches |= {vma.vm_file.f_mapping for vma in areas(mm) if vma.vm_file is not None}
        resident = 0
        for entry in leaves(mm):
            if not mm.arch.pte_special(entry):
                pfn = mm.arch.pte_pfn(entry)
                mapcounts[pfn] = mapcounts.get(pfn, 0) + 1
                resident += 1
        assert resident == sum(mm.rss_stat) + sum(process.task.rss_stat)
    cached: dict[int, Page] = {page.pfn: page for mapping in caches for page in mapping.pages.values()}
    for pfn, count in mapcounts.items():
        page = system.mem_map[pfn]
        assert page is not None
        assert page.mapcount == count
        assert page.refcount == count + (pfn in cached)
    for pfn, page in cached.items():
        assert system.mem_map[pfn] is page
        assert page.mapcount == mapcounts.get(pfn, 0)
        assert page.refcount == 1 + page.mapcount
