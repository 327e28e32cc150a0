"""Sentences for the conditions of mm/: what each means where it did not hold, and where it did.

    function -> condition as its source reads -> (where it does not hold, where it holds)

An empty sentence is not told. `CONDITION -> ERRNO` is the one of two equal conditions that refuses with ERRNO. Every
condition of the functions listed in tests/emu/test_explain_words.py that refuses has its sentence here (a test holds
it); one without a sentence is told by its source.
"""

from __future__ import annotations

_FAULT = {
    "vma is None": ("an area ends above the address", "no area ends above the address"),
    "vma.vm_start > address": (
        "the area contains the address",
        "the area begins above the address: only a stack could grow down to it",
    ),
    "not vma.vm_flags & VM_GROWSDOWN or ops.expand_stack(vma, address)": (
        "the area is a stack (VM_GROWSDOWN), and has grown to the address",
        "the area does not grow down to the address: it is no stack, or may not grow",
    ),
    "fault & VM_FAULT_RETRY": ("", "the handler asks to be called again"),
    "fault & VM_FAULT_OOM": ("", "no frame was left"),
    "fault & VM_FAULT_SIGBUS": ("", "the handler found no page to map"),
    "fault & VM_FAULT_HWPOISON": ("", "the page is poisoned"),
    "mm is None or (address >= self.task_size and address & ~4095 != VSYSCALL_ADDR)": (
        "the address belongs to user space",
        "the address does not belong to user space",
    ),
    "mm is None or address >= self.task_size": (
        "the address belongs to user space",
        "the address does not belong to user space",
    ),
    "not vma.vm_flags & VM_WRITE": ("the area may be written to (VM_WRITE)", "the area may not be written to"),
    "error_code & X86_PF_PROT or not vma.vm_flags & VM_ACCESS_FLAGS": (
        "the area may be accessed, and it was no entry that forbade the access",
        "an entry was there and forbids this access, or the area may not be accessed at all (PROT_NONE)",
    ),
    "not vma.vm_flags & vm_flags": (
        "the area allows this kind of access (one of the bits in vm_flags)",
        "the area does not allow this kind of access (it has none of the bits in vm_flags)",
    ),
    "handler > TRANSLATION": ("the fault status is one of missing or forbidden pages", "it is no fault of a page"),
}

_HINT = {
    "flags & MAP_FIXED": ("no MAP_FIXED: an address is looked for", "MAP_FIXED: the address is taken as it is"),
    "addr": ("no address is hinted at", "an address is hinted at"),
    "length > arch.task_size": ("the length fits into the address space", "the length exceeds the address space"),
    "length > arch.task_size - mm.system.mmap_min_addr": (
        "the length fits into the address space",
        "the length exceeds the address space",
    ),
    "length > end": ("the length fits into the window", "the length exceeds the window"),
    "vma is None or addr + length <= vm_start_gap(vma)": (
        "the hint is not free: an area is in the way",
        "the hinted range is free and is taken",
    ),
    "_hint_is_free(mm, addr, length)": ("the hint is not free", "the hinted range is free and is taken"),
    "_mmap_address_hint_valid(mm, addr, length)": ("the hint is not usable", "the hint is usable"),
    "length & mask": ("the length is a multiple of the huge page", "the length is no multiple of the huge page"),
    "flags & MAP_FIXED and addr & mask": (
        "no MAP_FIXED, or the address is a multiple of the huge page",
        "MAP_FIXED, and the address is no multiple of the huge page",
    ),
}

_GAP_TOO_SMALL = ("the largest hole of the tree is large enough", "no hole of the tree is large enough")

WORDS_OF: dict[str, dict[str, tuple[str, str]]] = {
    # ---- faults
    "do_page_fault": _FAULT,
    "expand_downwards": {
        "address < system.mmap_min_addr": (
            "the address is not below mmap_min_addr",
            "the address is below mmap_min_addr",
        ),
        "prev is not None and (not prev.vm_flags & VM_GROWSDOWN) and prev.vm_flags & VM_ACCESS_FLAGS and "
        "(address - prev.vm_end & _MASK64 < system.stack_guard_gap)": (
            "the gap to the area below stays at least stack_guard_gap",
            "the gap to the area below would be smaller than stack_guard_gap",
        ),
        "grow <= vma.vm_pgoff": ("the page offset cannot become that small", "the page offset allows it"),
    },
    "_acct_stack_growth": {
        "not may_expand_vm(mm, vma.vm_flags, grow)": ("the limits allow it", "a limit of the address space forbids it"),
        "size > rlimit(mm, RLIMIT_STACK)": (
            "the stack stays within RLIMIT_STACK",
            "the stack would exceed RLIMIT_STACK",
        ),
        "mm.locked_vm + grow > limit and (not capable(mm, CAP_IPC_LOCK))": (
            "locked memory stays within RLIMIT_MEMLOCK, or CAP_IPC_LOCK is held",
            "locked memory would exceed RLIMIT_MEMLOCK",
        ),
    },
    "_handle_mm_fault": {
        "pmd < 0": ("", "no frame for a page table"),
        "not words[pmd]": ("the PMD entry is in use", "the PMD entry is empty"),
        "arch.pmd_trans_huge(words[pmd])": ("it points to a PTE table", "it maps a huge page"),
    },
    "handle_mm_fault": {
        "not pte and vma.vm_ops is None and (not vma.vm_flags & VM_SHARED)": (
            "",
            "the PTE is empty, the area anonymous (no vm_ops) and private",
        ),
        "vma.vm_flags & VM_HUGETLB": ("", "the area is one of hugetlb pages"),
    },
    "handle_pte_fault": {
        "not pte": ("the PTE is in use", "the PTE is empty"),
        "vma.vm_ops is not None": (
            "the area is anonymous (no vm_ops)",
            "the area has an owner (vm_ops), a file mostly",
        ),
        "vma.vm_flags & VM_SHARED": ("", "a shared mapping without vm_ops"),
        "index < 0": ("", "there is no PTE table yet: one is made"),
        "index < 0 -> VM_FAULT_OOM": ("", "no frame for a page table"),
        "not pte & arch.PTE_PRESENT": ("it maps a frame", "it maps no frame: the page is poisoned"),
        "write": ("the access is no write", "the access is a write"),
        "not pte & arch.PTE_WRITE": ("the PTE allows writing", "the PTE does not allow writing"),
        "arch.ptep_set_access_flags(system.words, index, entry, bool(write))": (
            "the PTE was right already: another access was faster, or the TLB held an older entry",
            "the PTE did not yet say that the page is used, or written: now it does",
        ),
    },
    "do_anonymous_page": {
        "not flags & FAULT_FLAG_WRITE": ("the access is a write: a frame is needed", "no write: the zero page will do"),
        "vma.vm_flags & VM_UFFD_MISSING": ("", "the area is registered with a userfaultfd"),
        "vm_flags & VM_UFFD_MISSING": ("", "the area is registered with a userfaultfd"),
        "pfn < 0": ("", "no frame was left"),
        "vm_flags & VM_WRITE": ("the area may not be written to", "the area may be written to: so may the entry"),
    },
    "do_fault": {
        "vma.vm_ops is None or vma.vm_ops.fault is None": ("", "the area's owner has no way to find pages"),
        "not flags & FAULT_FLAG_WRITE": ("the access is a write", "the access is no write"),
        "not vma.vm_flags & VM_SHARED": ("the mapping is shared", "the mapping is private: a copy is needed"),
    },
    "do_read_fault": {
        "ops is None or ops.fault is None": ("", "the area's owner has no way to find pages"),
        "ops.map_pages is not None and mm.system.fault_around_bytes >> mm.arch.page_shift > 1": (
            "the neighbours are not mapped along",
            "pages around that are cached are mapped along (fault-around)",
        ),
        "fault": ("fault-around did not map this page", "fault-around mapped this page too"),
    },
    "do_cow_fault": {"cow_page is None": ("", "no frame for the copy")},
    "alloc_set_pte": {
        "vmf.pte < 0": ("", "there is no PTE table yet: one is made"),
        "vmf.pte < 0 -> VM_FAULT_OOM": ("", "no frame for a page table"),
    },
    "shmem_getpage": {
        "index > MAX_LFS_FILESIZE >> page_shift": ("", "the offset exceeds what a file can have"),
        "sgp <= SGP_CACHE and index << page_shift >= mapping.i_size": (
            "the page lies within the file",
            "the page lies behind the end of the file",
        ),
        "page is None -> ENOMEM": ("", "no frame was left"),
    },
    "shmem_alloc_and_acct_page": {"page is None": ("", "no frame was left")},
    "_special_mapping_fault": {
        "pages is None or vmf.pgoff >= len(pages)": ("", "the special mapping has no such page"),
    },
    "vmf_insert_pfn": {"index < 0": ("", "no frame for a page table")},
    "do_wp_page": {
        "vma.vm_flags & VM_UFFD_WP and pte & mm.arch.PTE_UFFD_WP": ("", "a userfaultfd protects the page"),
        "isinstance(mem_map.frames[pfn], AnonVma)": ("", "the frame is an anonymous page"),
        "mem_map.users[pfn] == 1": (
            "more than one entry maps it: a copy is needed",
            "no one else maps it: it is reused",
        ),
        "page is None": ("", "there is no page behind the entry: the zero page, or a raw frame"),
        "page_anon(page)": ("", "the frame is an anonymous page"),
        "page.refcount == 1 and page.mapcount == 1 and (not page_ksm(page))": (
            "more than one user, or merged by KSM: a copy is needed",
            "no one else uses it: it is reused",
        ),
        "shared_writable": (
            "the mapping is private or may not be written to: a copy is needed",
            "the mapping is shared and may be written to: no copy",
        ),
    },
    "wp_page_copy": {"pfn < 0": ("", "no frame for the copy")},
    "do_huge_pmd_anonymous_page": {
        "haddr < vma.vm_start or haddr + arch.pmd_size > vma.vm_end": (
            "an aligned huge page fits into the area",
            "no aligned huge page fits into the area: a small one",
        ),
        "table < 0": ("", "no frame for a page table"),
        "not write": ("a huge frame is needed", "no write: the huge zero page will do"),
    },
    "do_huge_pmd_wp_page": {
        "not is_huge_zero_pmd(system, old) and max((page.mapcount for page in huge_page(mm, old))) <= 1": (
            "the huge page is the zero page or has other users: it is split",
            "no one else uses the huge page: it is reused",
        ),
    },
    "hugetlb_fault": {
        "index < 0": ("", "no frame for a page table"),
        "not entry": ("the entry is in use", "the entry is empty"),
        "write and (not arch.pte_write(entry))": ("", "a write, and the entry does not allow it: copy or reuse"),
    },
    "_hugetlb_no_page": {
        "is_vma_resv_set(vma, HPAGE_RESV_UNMAPPED) or vma.vm_file is None": ("", "the page was taken away"),
        "number >= mapping.i_size >> h.shift": (
            "the page lies within the file",
            "the page lies behind the end of the file",
        ),
    },
    "alloc_huge_page": {
        "gbl_chg < 0": ("", "the file system's limit is reached"),
        "page is None -> ENOSPC": ("a huge page was left", "no huge page was left"),
    },
    "hugetlb_vm_op_split": {
        "address & hstate_vma(vma).size - 1": ("the cut is between two huge pages", "the cut is within a huge page"),
    },
    "_hugetlb_cow": {
        "not outside_reserve": ("", "no huge page for the copy"),
        "old_page.mapcount != 1": ("", "no huge page for the copy"),
    },
    "handle_userfault": {
        "task is None or task.flags & (PF_EXITING | PF_DUMPCORE) or ctx is None": ("", "nobody can be asked any more"),
        "self.features & UFFD_FEATURE_SIGBUS": ("", "the userfaultfd wants SIGBUS instead of a message"),
        "not flags & FAULT_FLAG_ALLOW_RETRY": ("", "this access cannot wait"),
    },
    # ---- limits and accounting
    "may_expand_vm": {
        "mm.total_vm + npages > rlim[RLIMIT_AS][0] >> shift": (
            "total_vm with the new pages stays within RLIMIT_AS",
            "total_vm with the new pages exceeds RLIMIT_AS",
        ),
        "pages > soft >> shift": ("data_vm with the new pages stays within RLIMIT_DATA", "it exceeds RLIMIT_DATA"),
    },
    "security_vm_enough_memory_mm": {
        "mode == OVERCOMMIT_GUESS": ("", "overcommit_memory is 0: only what exceeds all of RAM is refused"),
        "pages <= totalram_pages(system)": ("more pages than the machine has", "no more pages than the machine has"),
        "mode == OVERCOMMIT_ALWAYS": ("overcommit_memory is 2: promises are limited", "overcommit_memory is 1: always"),
        "max(system.vm_committed_as, 0) < allowed": ("more than is allowed would be promised", "promises stay allowed"),
    },
    "mlock_future_check": {
        "flags & VM_LOCKED": ("the memory is not to be locked", "the memory is to be locked"),
        "locked > rlimit(mm, RLIMIT_MEMLOCK) >> shift and (not capable(mm, CAP_IPC_LOCK))": (
            "locked memory stays within RLIMIT_MEMLOCK, or CAP_IPC_LOCK is held",
            "locked memory would exceed RLIMIT_MEMLOCK",
        ),
    },
    "check_data_rlimit": {"limit == RLIM_INFINITY": ("RLIMIT_DATA is set", "RLIMIT_DATA is unlimited")},
    # ---- mmap
    "sys_mmap": {
        "offset & arch.page_size - 1": ("the offset is a multiple of the page size", "the offset is not page aligned"),
        "not flags & MAP_ANONYMOUS": ("MAP_ANONYMOUS: there is no file", "a file is mapped"),
        "flags & MAP_HUGETLB -> EINVAL": ("", "MAP_HUGETLB needs a file of huge pages"),
    },
    "get": {
        "0 <= fd < len(self.fd)": ("the descriptor table has no such number", ""),
        "file is not None and (not file.f_mode & FMODE_PATH)": ("no file is open there", "a file is open there"),
    },
    "mmap_hugetlb": {"hstate is None": ("there are huge pages of this size", "there are no huge pages of this size")},
    "do_mmap": {
        "not length -> EINVAL": ("the length is not 0", "the length is 0"),
        "not length -> ENOMEM": ("rounded up to pages it is not 0", "rounded up to pages it overflows to 0"),
        "flags & MAP_FIXED_NOREPLACE": ("", "MAP_FIXED_NOREPLACE: the address is fixed, and must be free"),
        "pgoff + (length >> arch.page_shift) > _MASK64": ("the offset does not overflow", "the offset overflows"),
        "mm.map_count > system.sysctl_max_map_count": ("there are not too many areas", "there are too many areas"),
        "vma is not None and vma.vm_start < addr + length": ("the range is free", "the range is in use"),
        "flags & MAP_LOCKED and (not can_do_mlock(mm))": ("it is not to be locked, or may be", "it may not be locked"),
        "flags & MAP_TYPE == MAP_SHARED": ("", "shared anonymous memory: a file in memory of its own"),
        "vm_flags & VM_GROWSDOWN": ("it is not to grow down", "shared memory cannot grow down"),
        "flags & MAP_TYPE == MAP_PRIVATE": ("neither MAP_SHARED nor MAP_PRIVATE", "private"),
    },
    "_file_vm_flags": {
        "length > _MAX_LFS_FILESIZE or pgoff > _MAX_LFS_FILESIZE - length >> mm.arch.page_shift": (
            "the range lies within what a file can have",
            "the range exceeds what a file can have",
        ),
        "kind == MAP_SHARED_VALIDATE and flags & ~(LEGACY_MAP_MASK | MAP_TYPE)": ("", "a flag is not supported"),
        "prot & PROT_WRITE and (not writable)": (
            "it is not to be written, or the file is open for writing",
            "it is to be written, and the file is not open for writing",
        ),
        "getattr(file, 'append_only', False) and writable": ("", "the file can only be appended to"),
        "kind != MAP_PRIVATE": ("private", "neither MAP_SHARED nor MAP_PRIVATE"),
        "not file.f_mode & FMODE_READ": ("the file is open for reading", "the file is not open for reading"),
        "vm_flags & VM_EXEC": ("", "nothing may be run from this mount"),
        "not getattr(file, 'can_mmap', True)": ("files of this kind can be mapped", "such a file cannot be mapped"),
        "vm_flags & VM_GROWSDOWN": ("it is not to grow down", "a file mapping cannot grow down"),
    },
    "get_unmapped_area": {
        "length > task_size": ("the length fits into the address space", "the length exceeds the address space"),
        "addr > _MASK64 - _MAX_ERRNO": ("", "the address is so high that it is taken for an errno"),
        "addr > task_size - length": ("the range ends within the address space", "the range exceeds the address space"),
        "addr & mm.arch.page_size - 1": ("the address is page aligned", "the address is not page aligned"),
        "addr < mm.system.mmap_min_addr and (not capable(mm, CAP_SYS_RAWIO))": (
            "it is not below mmap_min_addr, or CAP_SYS_RAWIO is held",
            "it is below mmap_min_addr",
        ),
    },
    "arch_get_unmapped_area": _HINT,
    "arch_get_unmapped_area_topdown": _HINT,
    "hugetlb_get_unmapped_area": _HINT,
    "hugetlb_prepare": _HINT,
    "unmapped_area": {
        "length > ULONG_MAX or info.high_limit < length": ("", "the window is too small"),
        "info.low_limit > high_limit": ("", "the window is too small"),
        "gap_start > high_limit": ("the lowest hole that fits is within the window", "no hole within the window fits"),
    },
    "unmapped_area_topdown": {
        "length > ULONG_MAX or gap_end < length": ("", "the window is too small"),
        "info.low_limit > high_limit": ("", "the window is too small"),
        "gap_start > high_limit": (
            "there is room above the highest area",
            "no room above the highest area: the tree is searched by its gaps",
        ),
    },
    "_lowest_gap": {"vma is None or vma.rb_subtree_gap < length": _GAP_TOO_SMALL},
    "_highest_gap": {
        "vma is None or vma.rb_subtree_gap < length": _GAP_TOO_SMALL,
        "gap_end < low_limit": ("", "only holes below the window are left"),
        "vma is None": ("", "the tree is searched to the end"),
    },
    "mmap_region": {"mapping.i_mmap_writable < 0": ("", "the file is sealed against writing")},
    "_mmap_region": {
        "not may_expand_vm(mm, vm_flags, pages)": (
            "the limits allow it",
            "a limit forbids it, unless pages are replaced",
        ),
        "not may_expand_vm(mm, vm_flags, pages - replaced)": ("", "a limit of the address space forbids it"),
        "_accountable_mapping(vm_flags) and (not getattr(file, 'huge_shift', 0))": (
            "not private and writable: nothing is promised",
            "private and writable: its pages are promised",
        ),
        "vma is None": ("it was merged with a neighbour", "nothing to merge with: a new area is made"),
    },
    "_new_area": {"mapping.i_writecount > 0": ("", "someone has the file open for writing")},
    # ---- munmap
    "do_munmap": {
        "start & arch.page_size - 1 or start > task_size or length > task_size - start": (
            "the start is page aligned, the range within the address space",
            "the start is not page aligned, or the range exceeds the address space",
        ),
        "length == 0": ("the length is not 0", "the length is 0"),
        "vma is None": ("", "no area ends above the start: nothing to do"),
        "vma.vm_start >= end": ("an area lies in the range", "no area lies in the range: nothing to do"),
        "start > vma.vm_start": (
            "the first area begins within the range",
            "the first area begins before the range: split",
        ),
        "end < vma.vm_end and mm.map_count >= mm.system.sysctl_max_map_count": (
            "one area more is allowed, or not needed",
            "a hole in an area needs one area more than is allowed",
        ),
        "last is not None and end > last.vm_start": (
            "the last area ends within the range",
            "the last area ends behind the range: split",
        ),
    },
    "split_vma": {
        "mm.map_count >= mm.system.sysctl_max_map_count": ("one area more is allowed", "there are too many areas"),
    },
    # ---- mprotect
    "do_mprotect_pkey": {
        "grows == PROT_GROWSDOWN | PROT_GROWSUP": ("", "it cannot grow both ways"),
        "start & arch.page_size - 1": ("the start is page aligned", "the start is not page aligned"),
        "not length": ("the length is not 0", "the length is 0: nothing to do"),
        "end <= start": ("the range does not overflow", "the range overflows"),
        "prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM)": (
            "the protection is valid",
            "an unknown protection bit",
        ),
        "pkey != -1": ("", "the protection key is none that was allocated"),
        "vma is None": ("an area ends above the start", "no area ends above the start"),
        "vma.vm_start >= end": ("", "no area lies in the range"),
        "not vma.vm_flags & VM_GROWSDOWN": ("", "the area does not grow down"),
        "vma.vm_start > start": ("the area contains the start", "the start lies in a hole"),
        "grows & PROT_GROWSUP": ("", "no area grows up here"),
    },
    "_protect_areas": {
        "newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS": (
            "the area may get this protection (VM_MAY* bits)",
            "the area may never get this protection (VM_MAY* bits)",
        ),
        "nstart >= end": ("more of the range is left", "the end of the range is reached"),
        "following is None or following.vm_start != nstart": ("the next area follows at once", "a hole in the range"),
    },
    "mprotect_fixup": {
        "newflags == oldflags": ("the protection changes", "the area has this protection already: nothing to do"),
        "not may_expand_vm(mm, newflags, nrpages) and may_expand_vm(mm, oldflags, nrpages)": (
            "the limits allow it",
            "as writable data it exceeds a limit",
        ),
        "not oldflags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE)": (
            "its pages are promised already, or need not be",
            "made writable, its pages must be promised",
        ),
    },
    # ---- merging
    "vma_merge": {
        "vm_flags & VM_SPECIAL": ("", "special areas are never merged"),
        "plan is None": ("a neighbour is alike: it is merged", "no neighbour is alike and adjacent: no merge"),
    },
    "is_mergeable_vma": {
        "(vma.vm_flags ^ vm_flags) & ~vma.vm_mm.arch.VM_SOFTDIRTY": ("", "a neighbour has other flags"),
        "vma.vm_file is not file": ("", "a neighbour maps another file"),
        "ops is not None and ops.close is not None": ("", "a neighbour's owner wants to be told of its end"),
    },
    "vma_modify": {
        "start != vma.vm_start": ("", "the area begins before the range: split"),
        "end != vma.vm_end": ("", "the area ends behind the range: split"),
    },
    # ---- brk
    "brk": {
        "addr < mm.start_brk or not check_data_rlimit(mm, addr)": (
            "the new break is above start_brk and within RLIMIT_DATA",
            "the new break is below start_brk, or exceeds RLIMIT_DATA",
        ),
        "oldbrk == newbrk": ("another page is reached", "still on the same page: only the number changes"),
        "addr <= origbrk": ("the heap grows", "the heap shrinks: what is above is unmapped"),
        "following is not None and newbrk + arch.page_size > vm_start_gap(following)": (
            "the next area is at least a page away",
            "the next area is in the way",
        ),
    },
    "do_brk_flags": {
        "flags & ~VM_EXEC": ("", "unknown flags"),
        "not may_expand_vm(mm, flags, pages) or mm.map_count > system.sysctl_max_map_count": (
            "limits and number of areas allow it",
            "a limit, or the number of areas, forbids it",
        ),
        "vma is None": ("it was merged with a neighbour", "nothing to merge with: a new area is made"),
    },
    # ---- mremap
    "mremap": {
        "flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP)": ("the flags are known", "an unknown flag"),
        "flags & MREMAP_FIXED and (not flags & MREMAP_MAYMOVE)": ("", "MREMAP_FIXED needs MREMAP_MAYMOVE"),
        "flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or old_len != new_len)": (
            "",
            "MREMAP_DONTUNMAP needs MREMAP_MAYMOVE and the same length",
        ),
        "addr & arch.page_size - 1": ("the address is page aligned", "the address is not page aligned"),
        "not new_len": ("the new length is not 0", "the new length is 0"),
        "flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)": ("", "it is to move"),
        "old_len >= new_len": ("it grows", "it does not grow: the rest is unmapped"),
    },
    "_vma_to_resize": {
        "vma is None or vma.vm_start > addr": ("an area contains the address", "no area contains the address"),
        "not old_len and (not vma.vm_flags & (VM_SHARED | VM_MAYSHARE))": (
            "",
            "an old length of 0 needs shared memory",
        ),
        "flags & MREMAP_DONTUNMAP and (vma.vm_ops is not None or vma.vm_flags & VM_SHARED)": (
            "",
            "MREMAP_DONTUNMAP needs private anonymous memory",
        ),
        "vma.vm_flags & VM_HUGETLB": ("", "areas of huge pages cannot be resized"),
        "old_len > vma.vm_end - addr": ("the old range lies in one area", "the old range exceeds the area"),
        "new_len == old_len": ("", "the length stays"),
        "pgoff + (new_len >> shift) > _MASK64": ("", "the offset overflows"),
        "vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP)": ("the area may grow", "the area may not grow"),
        "locked > rlimit(mm, RLIMIT_MEMLOCK) and (not capable(mm, CAP_IPC_LOCK))": (
            "locked memory stays within RLIMIT_MEMLOCK, or CAP_IPC_LOCK is held",
            "locked memory would exceed RLIMIT_MEMLOCK",
        ),
        "not may_expand_vm(mm, vma.vm_flags, pages)": (
            "the limits allow it",
            "a limit of the address space forbids it",
        ),
    },
    "_mremap_to": {
        "new_addr & mm.arch.page_size - 1 or new_len > task_size or new_addr > task_size - new_len or "
        "(addr + old_len & _MASK64 > new_addr and new_addr + new_len > addr)": (
            "the new range is page aligned, within the address space and apart from the old one",
            "the new range is not page aligned, exceeds the address space or overlaps the old one",
        ),
        "mm.map_count + 2 >= system.sysctl_max_map_count - 3": ("there are not too many areas", "too many areas"),
        "flags & MREMAP_DONTUNMAP and (not may_expand_vm(mm, vma.vm_flags, old_len >> mm.arch.page_shift))": (
            "",
            "a limit of the address space forbids it",
        ),
    },
    "_grow": {
        "old_len == vma.vm_end - addr and _vma_expandable(vma, new_len - old_len)": (
            "it cannot grow in place: it does not end where the area does, or another area is in the way",
            "it grows in place",
        ),
        "not flags & MREMAP_MAYMOVE": ("it may move (MREMAP_MAYMOVE)", "it may not move"),
    },
    "_move_vma": {
        "mm.map_count >= system.sysctl_max_map_count - 3": ("there are not too many areas", "there are too many areas"),
    },
    "copy_vma": {"links is None": ("", "the new range is not free")},
    # ---- advice and locks
    "do_madvise": {
        "behavior not in _VALID and (not (behavior in _INJECT_ERROR and arch.memory_failure))": (
            "the advice is known",
            "the advice is not known",
        ),
        "start & arch.page_size - 1": ("the start is page aligned", "the start is not page aligned"),
        "len_in and (not length)": ("the length does not overflow", "the length overflows"),
        "end < start": ("the range does not overflow", "the range overflows"),
        "end == start": ("the range is not empty", "the range is empty: nothing to do"),
    },
    "madvise_inject_error": {"not capable(mm, CAP_SYS_ADMIN)": ("", "CAP_SYS_ADMIN is needed")},
    "_madvise_range": {
        "vma is None": ("an area ends above the start", "no area is left: a hole in the range"),
        "start < vma.vm_start": ("the area contains the start", "a hole: what is mapped is still advised"),
        "start >= end": ("more of the range is left", "the end of the range is reached"),
        "start >= end -> ENOMEM": ("more of the range is left", "the range ends in a hole"),
        "unmapped_error": ("there was no hole", "there was a hole"),
    },
    "madvise_vma": {
        "not can_madv_lru_vma(vma)": (
            "the area is not locked, of huge pages or of raw frames",
            "the area is locked, of huge pages or of raw frames",
        ),
        "vma.vm_ops is not None": ("the area is anonymous", "the area is not anonymous"),
    },
    "madvise_behavior": {"new_flags == vma.vm_flags": ("the flags change", "the area has these flags already")},
    "_advised_flags": {
        "behavior == MADV_DOFORK and vm_flags & VM_IO or (behavior == MADV_WIPEONFORK and (vma.vm_file is not None or "
        "vm_flags & VM_SHARED)) or "
        "(behavior == MADV_DODUMP and (not vm_flags & VM_HUGETLB) and vm_flags & VM_SPECIAL)": (
            "the advice suits the area",
            "the advice does not suit the area",
        ),
    },
    "madvise_remove": {
        "vma.vm_flags & VM_LOCKED": ("the area is not locked", "the area is locked"),
        "file is None": ("the area maps a file", "the area maps no file"),
        "vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE": (
            "the mapping is shared and may be written to",
            "the mapping is not shared, or may not be written to",
        ),
    },
    "mlock2": {"flags & ~MLOCK_ONFAULT": ("the flags are known", "an unknown flag")},
    "do_mlock": {
        "not can_do_mlock(mm)": ("the task may lock memory", "the task may not lock memory"),
        "locked > lock_limit and (not capable(mm, CAP_IPC_LOCK))": (
            "locked memory stays within RLIMIT_MEMLOCK, or CAP_IPC_LOCK is held",
            "it seems too much: what is locked already is counted once",
        ),
        "locked > lock_limit": ("", "locked memory would exceed RLIMIT_MEMLOCK"),
        "error.number == errno.EFAULT": ("", "a page could not be brought in"),
        "error.number == errno.ENOMEM": ("", "no frame was left"),
    },
    "apply_vma_lock_flags": {
        "end < start": ("the range does not overflow", "the range overflows"),
        "end == start": ("the range is not empty", "the range is empty: nothing to do"),
        "vma is None or vma.vm_start > start": ("an area contains the start", "the start lies in a hole"),
        "nstart >= end": ("more of the range is left", "the end of the range is reached"),
        "following is None or following.vm_start != nstart": ("the next area follows at once", "a hole in the range"),
    },
    "mlock_fixup": {
        "newflags == old_flags or old_flags & (VM_SPECIAL | VM_HUGETLB)": (
            "the lock changes",
            "nothing to change, or an area that is never locked",
        ),
    },
    "mlockall": {
        "not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT": (
            "the flags make sense",
            "no flag, an unknown one, or MCL_ONFAULT alone",
        ),
        "not can_do_mlock(mm)": ("the task may lock memory", "the task may not lock memory"),
        "flags & MCL_CURRENT and mm.total_vm > lock_limit and (not capable(mm, CAP_IPC_LOCK))": (
            "the whole stays within RLIMIT_MEMLOCK, or CAP_IPC_LOCK is held",
            "the whole would exceed RLIMIT_MEMLOCK",
        ),
    },
    "msync": {
        "flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or start & arch.page_size - 1": (
            "the flags are known and the start is page aligned",
            "an unknown flag, or the start is not page aligned",
        ),
        "flags & MS_ASYNC and flags & MS_SYNC": ("not both MS_ASYNC and MS_SYNC", "both MS_ASYNC and MS_SYNC"),
        "end < start": ("the range does not overflow", "the range overflows"),
        "end == start": ("the range is not empty", "the range is empty: nothing to do"),
        "vma is None": ("an area ends above the start", "no area is left: a hole in the range"),
        "start < vma.vm_start": ("the area contains the start", "a hole in the range"),
        "flags & MS_INVALIDATE and vma.vm_flags & VM_LOCKED": ("", "MS_INVALIDATE on locked memory"),
        "start >= end": ("more of the range is left", "the end of the range is reached"),
        "start >= end -> ENOMEM": ("more of the range is left", "the range ends in a hole"),
        "unmapped_error": ("there was no hole", "there was a hole"),
    },
    "sys_mincore": {
        "start & arch.page_size - 1": ("the start is page aligned", "the start is not page aligned"),
        "not access_ok(task, start, length)": ("the range is user memory", "the range exceeds user memory"),
        "not access_ok(task, vec, pages)": ("the vector is user memory", "the vector exceeds user memory"),
    },
    "do_mincore": {"vma is None or addr < vma.vm_start": ("an area contains the address", "a hole in the range")},
    "remap_file_pages": {
        "prot": ("the protection is 0, as it must be", "the protection is not 0"),
        "start + size & _MASK64 <= start or pgoff + (size >> arch.page_shift) > _MASK64": (
            "the range does not overflow",
            "the range overflows",
        ),
        "vma is None or not vma.vm_flags & VM_SHARED or (not _covered(vma, start, start + size))": (
            "one shared mapping covers the range",
            "no shared mapping covers the range",
        ),
        "file is None": ("", "the area maps no file"),
    },
    "_check_memory": {
        "slots * _SLOT_BYTES > system.totalram_pages * system.page_size // _MEMORY_SHARE": (
            "there is memory for so many descriptors",
            "large tables of descriptors have their share of memory",
        )
    },
}


def sentence(function: str, condition: str, refusal: str) -> tuple[str, str] | None:
    """(where it does not hold, where it holds), or None."""
    known = WORDS_OF.get(function, {})
    return known.get(f"{condition} -> {refusal}") or known.get(condition)
