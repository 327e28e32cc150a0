r"""Exercise 5: the copy-on-write handler, do_wp_page.

After fork() parent and child share every frame, and their page-table entries are read-only. The first write faults and
comes here: the entry is present, the area may be written to, but the entry forbids it.

    do_wp_page(vma, mm, address, flags, index, pte) -> VM_FAULT_WRITE, or VM_FAULT_OOM when there is no frame

    parent's PTE --\                          parent's PTE --> frame 7   refcount 1, mapcount 1
                    frame 7, refcount 2   ->
    child's PTE  --/                          child's PTE  --> frame 9   a copy, refcount 1, mapcount 1

    address                   page aligned; flags: FAULT_FLAG_* (mm.flags)
    index, pte                mm.system.words[index] is the entry, pte its value
    arch = mm.arch            arch.pte_pfn(pte): frame number; arch.mk_pte(pfn, vma.vm_page_prot): a new entry;
                              arch.pte_mkyoung, pte_mkdirty, pte_mkwrite(pte): the entry with a bit more;
                              arch.ptep_set_access_flags(words, index, new, True): change an entry of the same frame
    vm_normal_page(mm, pte)   the Page of the frame, or None for the zero page (mm.system.zero_pfn)
    page.refcount, .mapcount  users of the frame, entries that map it; page_anon(page): anonymous, else a file's
    tools                     all those imported below, their docstrings say what they do

What to do
  1. No FAULT_FLAG_USER in flags: the kernel wrote for the user, whose TLB entry stays: mm.tlb_flush_pending = True.
  2. Shared file mapping (vma.vm_flags has VM_WRITE and VM_SHARED): return wp_page_shared(...), which is given; without
     a Page, reuse the entry.
  3. Anonymous page with one user (refcount and mapcount are 1): reuse it. The entry becomes young and dirty, and
     writable if vma.vm_flags has VM_WRITE. mm.system.fault_result = "cow-reuse"; mm.system.pgreuse += 1.
  4. Everything else: copy. anon_vma_prepare(vma); a new frame (alloc_page; None: VM_FAULT_OOM, and nothing changed);
     its content (copy_page; the zero page needs a zeroed frame only); rss (add_mm_counter_fast: what was no anonymous
     page, becomes one, and a file's page counts less, mm_counter_file); the new entry, dirty, writable as in 3;
     page_add_new_anon_rmap(new, vma, address); arch.sync_icache(mm, new, address, entry); then write the entry. Last,
     let go of the old page: page_remove_rmap, in a VM_LOCKED area munlock_vma_page, put_page.
     mm.system.fault_result = "cow-copy".

Hints
  - Who looks at refcount forgets mapcount, or the other way round: a frame may be held by someone without an entry.
  - Nobody may ever write to the zero page, and nobody counts its users.

Try it:  pagewalk grade cow.py
         pagewalk run --algorithm do_wp_page=cow.py:do_wp_page --judge images/x86_64/cow
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.flags import (
    FAULT_FLAG_USER,
    MM_ANONPAGES,
    PG_MLOCKED,
    VM_FAULT_OOM,
    VM_FAULT_WRITE,
    VM_LOCKED,
    VM_SHARED,
    VM_WRITE,
)
from mm.memory_cow import vm_normal_page, wp_page_shared
from mm.memory_rss import add_mm_counter_fast, mm_counter_file, page_anon
from mm.page_alloc import alloc_page, copy_page, put_page
from mm.page_rmap import munlock_vma_page, page_add_new_anon_rmap, page_remove_rmap
from mm.rmap import anon_vma_prepare

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

EXERCISE = "cow"
TOOLS = (FAULT_FLAG_USER, MM_ANONPAGES, PG_MLOCKED, VM_FAULT_OOM, VM_FAULT_WRITE, VM_LOCKED, VM_SHARED, VM_WRITE)
__all__ = [
    "add_mm_counter_fast",
    "alloc_page",
    "anon_vma_prepare",
    "copy_page",
    "do_wp_page",
    "mm_counter_file",
    "munlock_vma_page",
    "page_add_new_anon_rmap",
    "page_anon",
    "page_remove_rmap",
    "put_page",
    "vm_normal_page",
    "wp_page_shared",
]


def do_wp_page(vma: VmAreaStruct, mm: MmStruct, address: int, flags: int, index: int, pte: int) -> int:
    """Serve a write to the read-only entry `pte` at `index`."""
    raise NotImplementedError
