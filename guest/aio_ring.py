"""The ring of an asynchronous I/O context (fs/aio.c): a file "[aio]" that nobody opened, mapped into the program.

    page 0   header: id, nr, head, tail, magic, compat, incompat, header length (eight 32-bit words); then events
    page n   events of 32 bytes: data, obj, res, res2

The kernel writes events at the tail and both it and the program may take them at the head; the program can write all of
it, so nothing read from there is trusted. Its pages are made with the ring, and mapped as the program touches them.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from mm.errors import Errno
from mm.filemap import add_to_page_cache, delete_from_page_cache, filemap_map_pages, flush_dcache_page
from mm.flags import (
    MAP_SHARED,
    PG_LRU,
    PG_UPTODATE,
    PROT_READ,
    PROT_WRITE,
    VM_DONTEXPAND,
    VM_FAULT_LOCKED,
    VM_FAULT_SIGBUS,
)
from mm.memory_zap import unmap_mapping_range
from mm.mmap import do_mmap
from mm.page_alloc import alloc_page
from mm.types import AddressSpace, Page

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, VmAreaStruct, VmFault

O_RDWR = 2
EVENT_SIZE = HEADER_SIZE = 32
MAGIC = 0xA10A10A1
COMPAT_FEATURES = 1
_HEADER = Struct("<8I")
_WORD = Struct("<I")
_ID, _HEAD, _TAIL = 0, 8, 12


class AioCtxAops:
    """aio_ctx_aops. Stateless: one instance."""

    def find_page(self, mapping: AddressSpace, index: int) -> Page | None:
        """The cached page."""
        return mapping.pages.get(index)

    def __reduce__(self) -> str:
        return "aio_ctx_aops"


class AioRingVmOps:
    """aio_ring_vm_ops. Stateless: one instance."""

    open = None
    close = None
    name = None
    map_pages = staticmethod(filemap_map_pages)

    @staticmethod
    def fault(vmf: VmFault) -> int:
        """filemap_fault(): all pages there ever are, are cached."""
        page = vmf.vma.vm_file.f_mapping.pages.get(vmf.pgoff)  # type: ignore[union-attr]
        if page is None:
            return VM_FAULT_SIGBUS
        page.refcount += 1
        vmf.page = page
        return VM_FAULT_LOCKED

    @staticmethod
    def page_mkwrite(vmf: VmFault) -> int:
        """filemap_page_mkwrite()."""
        return VM_FAULT_LOCKED

    @staticmethod
    def mremap(new_vma: VmAreaStruct) -> int:
        """aio_ring_mremap(): the context has its address for a name; EINVAL for one that is not this process's."""
        table = new_vma.vm_mm.ioctx_table
        return table.moved(new_vma) if table is not None else errno.EINVAL

    def __reduce__(self) -> str:
        return "aio_ring_vm_ops"


aio_ctx_aops = AioCtxAops()
aio_ring_vm_ops: Any = AioRingVmOps()


class AioRing:
    """The file, its pages, and where they are mapped. Raises Errno(ENOMEM) when there is no room for it."""

    name = "[aio]"
    ino = 1
    huge_shift = 0  # no file of hugetlbfs
    path_noexec = True  # of a file system that runs no programs
    f_mode = 3
    f_flags = O_RDWR

    def __init__(self, mm: MmStruct, nr_events: int) -> None:
        system = mm.system
        size = system.page_size
        self.system = system
        self.f_count = 1
        nr_pages = (HEADER_SIZE + EVENT_SIZE * (nr_events + 2) + size - 1) // size
        self.size = nr_pages * size  # bytes
        self.nr_events = (self.size - HEADER_SIZE) // EVENT_SIZE
        self.f_mapping = AddressSpace(aio_ctx_aops)
        self.f_mapping.i_size = self.size
        for index in range(nr_pages):
            page = alloc_page(system, True)
            if page is None:
                self.free()
                raise Errno(errno.ENOMEM)
            page.flags |= PG_UPTODATE | PG_LRU
            add_to_page_cache(self.f_mapping, page, index)
        self.pages: list[Page] = [self.f_mapping.pages[index] for index in range(nr_pages)]
        try:
            self.base, _ = do_mmap(mm, self, 0, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, 0)
        except Errno:
            self.free()
            raise Errno(errno.ENOMEM) from None
        self._store(0, _HEADER.pack(0xFFFFFFFF, self.nr_events, 0, 0, MAGIC, COMPAT_FEATURES, 0, HEADER_SIZE))

    # what mm/ asks of a file

    def d_path(self) -> str:
        """Path as /proc shows it."""
        return f"/{self.name} (deleted)"

    def mmap(self, vma: VmAreaStruct) -> None:
        """aio_ring_mmap()."""
        vma.vm_flags |= VM_DONTEXPAND
        vma.vm_ops = aio_ring_vm_ops

    def release(self) -> None:
        """Nobody maps it any more."""

    # its content

    def free(self) -> None:
        """aio_free_ring(): whoever still maps it (a forked child) gets SIGBUS."""
        mapping = self.f_mapping
        mapping.i_size = 0
        unmap_mapping_range(mapping, 0, 0, True, self.system.arch.page_shift)
        for page in list(mapping.pages.values()):
            delete_from_page_cache(self.system, page)
        self.pages = []
        self.f_count -= 1

    def _at(self, offset: int) -> int:
        """Where byte `offset` of the ring is in RAM."""
        index, within = divmod(offset, self.system.page_size)
        return self.pages[index].pfn * self.system.page_size + within

    def _store(self, offset: int, data: bytes) -> None:
        """Write bytes that do not cross a page."""
        start = self._at(offset)
        self.system.ram[start : start + len(data)] = data
        flush_dcache_page(self.system, self.pages[offset // self.system.page_size])

    def _word(self, offset: int) -> int:
        value: int = _WORD.unpack_from(self.system.ram, self._at(offset))[0]
        return value

    def set_id(self, ident: int) -> None:
        """The number by which the kernel finds the context."""
        self._store(_ID, _WORD.pack(ident))

    @property
    def head(self) -> int:
        """Of the program's making, perhaps."""
        return self._word(_HEAD)

    @head.setter
    def head(self, value: int) -> None:
        self._store(_HEAD, _WORD.pack(value))

    @property
    def tail(self) -> int:
        """As the program can have changed it."""
        return self._word(_TAIL)

    @tail.setter
    def tail(self, value: int) -> None:
        self._store(_TAIL, _WORD.pack(value))

    def event_offset(self, position: int) -> int:
        """Byte offset of an event's slot: slots do not cross pages."""
        return HEADER_SIZE + position * EVENT_SIZE

    def put_event(self, position: int, event: bytes) -> None:
        """Write an event into its slot."""
        self._store(self.event_offset(position), event)

    def events(self, position: int, most: int) -> bytes:
        """Up to `most` events from a slot on, as far as the page goes."""
        offset = self.event_offset(position)
        size = self.system.page_size
        length = min(most * EVENT_SIZE, size - offset % size)
        start = self._at(offset)
        return bytes(self.system.ram[start : start + length])


def ring_size_ok(system: System, nr_events: int) -> bool:
    """Whether so many events are not too many (ioctx_alloc())."""
    return nr_events <= 0x10000000 // EVENT_SIZE
