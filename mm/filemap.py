"""The page cache (mm/filemap.c): the pages of a file by page offset, in `mapping.pages`.

A cached page has one reference of the cache's own, plus one for each entry that maps it. Where a missing page comes
from is the business of `mapping.a_ops` (shmem.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm.errors import KernelBug
from mm.flags import PG_DCACHE_CLEAN, PG_EXEC_MAPPED, PG_UPTODATE
from mm.memory_rss import add_mm_counter_fast, mm_counter_file
from mm.page_alloc import put_page
from mm.page_rmap import rmap_walk
from mm.pgtable import pte_alloc_map, report_pte
from mm.types import AddressSpace, Page, VmFault

if TYPE_CHECKING:
    from mm.system import System


class AddressSpaceOperations(Protocol):
    """What the owner of a mapping does for the page cache (struct address_space_operations, as far as mm/ asks)."""

    def find_page(self, mapping: AddressSpace, index: int) -> Page | None:
        """The cached page at `index`, or None. No reference is taken."""


def add_to_page_cache(mapping: AddressSpace, page: Page, index: int) -> None:
    """Put a page into the cache, which takes over the caller's reference."""
    if index in mapping.pages:
        raise KernelBug(f"page {index:#x} of a file is cached twice")
    page.mapping = mapping
    page.index = index
    mapping.pages[index] = page
    mapping.nrpages += 1


def delete_from_page_cache(system: System, page: Page) -> None:
    """Take a page out of the cache and drop the cache's reference; entries that still map it keep the frame."""
    mapping = page.mapping
    if not isinstance(mapping, AddressSpace) or mapping.pages.get(page.index) is not page:
        raise KernelBug(f"frame {page.pfn:#x} is not in the page cache it names")
    del mapping.pages[page.index]
    mapping.nrpages -= 1
    page.mapping = None
    put_page(system, page)


def filemap_map_pages(vmf: VmFault, start_pgoff: int, end_pgoff: int) -> None:
    """Map what is cached of pages [start_pgoff, end_pgoff] where nothing is mapped yet; start_pgoff is at vmf.address.

    vmf.pte is the entry of vmf.address, or -1 while there is no PTE table; one is made for the first page found.
    """
    vma = vmf.vma
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    mapping = vma.vm_file.f_mapping  # type: ignore[union-attr]
    find_page = mapping.a_ops.find_page
    max_idx = (mapping.i_size + arch.page_size - 1) >> arch.page_shift
    cached = mapping.pages
    prot = vma.vm_page_prot
    executable = prot & arch.PTE_EXEC_MASK == arch.PTE_EXEC_VALUE
    address = vmf.address
    rss = 0
    mapped = None
    for pgoff in range(start_pgoff, min(end_pgoff + 1, max_idx)):
        if vmf.pte >= 0 and words[vmf.pte + pgoff - start_pgoff]:
            continue
        page = cached.get(pgoff) or find_page(mapping, pgoff)
        if page is None or not page.flags & PG_UPTODATE:
            continue
        if vmf.pte < 0:
            vmf.pte = pte_alloc_map(mm, address)
            if vmf.pte < 0:
                return
        # alloc_set_pte() of a read fault
        page.refcount += 1
        page.mapcount += 1
        rss += 1
        mapped = page
        entry = arch.mk_pte(page.pfn, prot)
        if executable:
            arch.sync_icache(mm, page, address + ((pgoff - start_pgoff) << arch.page_shift), entry)
        words[vmf.pte + pgoff - start_pgoff] = entry
        if mm.system.listener is not None:
            report_pte(mm, address + ((pgoff - start_pgoff) << arch.page_shift), 0, entry)
    if mapped is not None:
        add_mm_counter_fast(mm, mm_counter_file(mapped), rss)


def flush_dcache_page(system: System, page: Page) -> None:
    """The host wrote into a frame: what the engine has translated from it before is stale.

    Executable mappings hear of it now (icache_pending), later ones when they are made.
    """
    if page.flags & PG_EXEC_MAPPED:
        page.flags &= ~PG_DCACHE_CLEAN
        for vma, address, index in rmap_walk(system, page, True):
            vma.vm_mm.arch.sync_icache(vma.vm_mm, page, address, system.words[index])
            page.flags &= ~PG_DCACHE_CLEAN
