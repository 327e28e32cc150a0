"""A small world for tests of pages: a machine without CPU, one task, files, accesses as the MMU makes them."""

import mmap as host_mmap
from typing import Any

from mm import arch_arm64, arch_x86_64
from mm.flags import RLIM_INFINITY
from mm.fork import dup_mm, mm_alloc, mmput
from mm.memory_rss import sync_mm_rss
from mm.mmap import do_munmap, vm_mmap_pgoff
from mm.pgtable import pte_offset
from mm.shmem import new_shmem_mapping, shmem_evict_inode, shmem_mmap
from mm.system import System
from mm.types import MmStruct, Page, TaskStruct
from mm.validate import validate_mm
from mm.validate_pages import validate_system

GEOMETRIES: dict[str, Any] = {
    "x86_64-4k": arch_x86_64.make(),
    "x86_64-4k-la57": arch_x86_64.make(la57=True),
    "aarch64-4k": arch_arm64.make(4096),
    "aarch64-16k": arch_arm64.make(16384),
    "aarch64-64k": arch_arm64.make(65536),
}

READ, WRITE, EXEC = "read", "write", "exec"
ANON, SHARED_ANON, PRIVATE, SHARED = 0x22, 0x21, 0x02, 0x01
R, RW, RX, RWX = 1, 3, 5, 7


class Backing:
    """Host content of a file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.reads = 0

    def read(self, offset: int, count: int) -> bytes:
        self.reads += 1
        return self.content[offset : offset + count]


class TestFile:
    """An open tmpfs file."""

    __test__ = False

    def __init__(self, mapping: Any, name: str = "/file") -> None:
        self.f_mapping = mapping
        self.f_mode = 3
        self.f_flags = 2
        self.f_count = 1
        self.name = name

    def d_path(self) -> str:
        return self.name

    def mmap(self, vma: Any) -> None:
        shmem_mmap(self, vma)

    def release(self) -> None:
        shmem_evict_inode(self.f_mapping)


class World:
    """One machine."""

    def __init__(self, geometry: str = "x86_64-4k", pages: int = 4096) -> None:
        self.arch = GEOMETRIES[geometry]
        self.ps = self.arch.page_size
        self.host_ram = memoryview(host_mmap.mmap(-1, pages * self.ps))
        self.system = System(self.arch, self.host_ram)
        self.system.validate_level = 2
        self.free_at_start = self.system.nr_free_pages()
        self.tasks: list[TaskStruct] = []
        self.task = self.new_task()
        self.system.current = self.task
        mm = mm_alloc(self.system)
        self.task.mm = mm
        self.arch.arch_pick_mmap_layout(mm, 8 << 20, 0)

    @property
    def mm(self) -> MmStruct:
        assert self.task.mm is not None
        return self.task.mm

    def new_task(self) -> TaskStruct:
        task = TaskStruct(self.system)
        task.pid = len(self.tasks) + 1
        task.rlim = [[RLIM_INFINITY, RLIM_INFINITY] for _ in range(16)]
        self.tasks.append(task)
        return task

    def file(self, content: bytes | None = None, name: str = "/file") -> TestFile:
        backing = None if content is None else Backing(content)
        return TestFile(new_shmem_mapping(self.system, None, backing), name)

    def mmap(
        self, count: int, prot: int = RW, flags: int = ANON, file: Any = None, pgoff: int = 0, addr: int = 0
    ) -> int:
        if addr:
            flags |= 0x10
        return vm_mmap_pgoff(self.mm, file, addr, count * self.ps, prot, flags, pgoff)

    def munmap(self, addr: int, count: int) -> None:
        do_munmap(self.mm, addr, count * self.ps)

    def fault(self, address: int, access: str = READ, present: bool = False) -> Any:
        """The fault the CPU raises in user mode."""
        if self.arch.name == "x86_64":
            error = 4 | {READ: 0, WRITE: 2, EXEC: 16}[access] | (1 if present else 0)
        else:
            error = (0x20 if access == EXEC else 0x24) << 26 | 1 << 25 | (1 << 6 if access == WRITE else 0)
            error |= 0x0F if present else 0x07
        return self.arch.do_page_fault(self.task, error, address)

    def pte(self, address: int) -> int:
        index = pte_offset(self.mm, address)
        return self.system.words[index] if index >= 0 else 0

    def raw(self, address: int) -> int:
        """The entry without its frame, as mmdump shows it."""
        return self.pte(address) & ~self.arch.PTE_PFN_MASK

    def page(self, address: int) -> Page:
        page = self.system.mem_map[self.arch.pte_pfn(self.pte(address))]
        assert page is not None
        return page

    def rss(self) -> list[int]:
        return [a + b for a, b in zip(self.mm.rss_stat, self.task.rss_stat, strict=True)]

    def fork(self) -> TaskStruct:
        child = self.new_task()
        child.mm = dup_mm(child, self.mm)
        return child

    def switch(self, task: TaskStruct) -> None:
        self.task = self.system.current = task

    def exit(self, task: TaskStruct) -> None:
        before = self.system.current
        self.system.current = task
        sync_mm_rss(task)
        mm = task.mm
        task.mm = None
        self.tasks.remove(task)
        assert mm is not None
        mmput(mm)
        self.system.current = before

    def check(self) -> None:
        for task in self.tasks:
            if task.mm is not None:
                validate_mm(task.mm)
        validate_system(self.system, self.tasks)

    def end(self) -> None:
        """Everything exits; nothing may be left."""
        self.check()
        for task in list(self.tasks):
            self.exit(task)
        validate_system(self.system, [])
        assert self.system.nr_free_pages() == self.free_at_start
        assert self.system.vm_committed_as == 0
