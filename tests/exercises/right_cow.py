"""A student's copy-on-write handler that is right."""

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

EXERCISE = "cow"


def do_wp_page(vma, mm, address, flags, index, pte):
    if not flags & FAULT_FLAG_USER:
        mm.tlb_flush_pending = True
    page = vm_normal_page(mm, pte)
    if vma.vm_flags & VM_SHARED and vma.vm_flags & VM_WRITE:
        if page is not None:
            return wp_page_shared(vma, mm, address, flags, index, pte, page)
        return reuse(vma, mm, index, pte)
    if page is not None and page_anon(page) and page.refcount == 1 and page.mapcount == 1:
        return reuse(vma, mm, index, pte)
    return copy(vma, mm, address, index, pte, page)


def reuse(vma, mm, index, pte):
    arch = mm.arch
    entry = arch.pte_mkdirty(arch.pte_mkyoung(pte))
    if vma.vm_flags & VM_WRITE:
        entry = arch.pte_mkwrite(entry)
    arch.ptep_set_access_flags(mm.system.words, index, entry, True)
    mm.system.fault_result = "cow-reuse"
    mm.system.pgreuse += 1
    return VM_FAULT_WRITE


def copy(vma, mm, address, index, pte, old):
    system = mm.system
    arch = mm.arch
    anon_vma_prepare(vma)
    new = alloc_page(system, old is None)
    if new is None:
        return VM_FAULT_OOM
    if old is not None:
        copy_page(system, new, old)
    if old is None:
        add_mm_counter_fast(mm, MM_ANONPAGES, 1)
    elif not page_anon(old):
        add_mm_counter_fast(mm, mm_counter_file(old), -1)
        add_mm_counter_fast(mm, MM_ANONPAGES, 1)
    entry = arch.pte_mkdirty(arch.mk_pte(new.pfn, vma.vm_page_prot))
    if vma.vm_flags & VM_WRITE:
        entry = arch.pte_mkwrite(entry)
    page_add_new_anon_rmap(new, vma, address)
    arch.sync_icache(mm, new, address, entry)
    system.words[index] = entry
    if old is not None:
        page_remove_rmap(system, old)
        if vma.vm_flags & VM_LOCKED and old.flags & PG_MLOCKED:
            munlock_vma_page(system, old)
        put_page(system, old)
    system.fault_result = "cow-copy"
    return VM_FAULT_WRITE
