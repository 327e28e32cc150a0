"""arm64: entries of its page tables (asm/pgtable-hwdef.h, pgtable-prot.h, pgtable.h) and its faults (mm/fault.c).

The CPUs of the oracle have no hardware Access Flag or Dirty state: AF and RDONLY are kept by faults. RDONLY stays set
on a writable entry (PTE_WRITE) until the first write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.arch import U64, Arch, FaultSignal
from mm.fault import pagefault_out_of_memory, report_fault, retry_fault, retry_later
from mm.flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_INTERRUPTIBLE,
    FAULT_FLAG_KILLABLE,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    VM_ACCESS_FLAGS,
    VM_EXEC,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_WRITE,
    VM_GROWSDOWN,
    VM_WRITE,
)

if TYPE_CHECKING:
    from mm.types import MmStruct, TaskStruct

PTE_VALID = 1 << 0
PTE_TABLE_BIT = 1 << 1
PTE_TYPE_PAGE = 3
PTE_ATTRINDX_MASK = 7 << 2
PTE_USER = 1 << 6
PTE_RDONLY = 1 << 7
PTE_SHARED = 3 << 8
PTE_AF = 1 << 10
PTE_NG = 1 << 11
PTE_GP = 1 << 50
PTE_WRITE = 1 << 51  # the DBM bit
PTE_CONT = 1 << 52
PTE_PXN = 1 << 53
PTE_UXN = 1 << 54
PTE_DIRTY = 1 << 55
PTE_SPECIAL = 1 << 56
PTE_PROT_NONE = 1 << 58  # only while PTE_VALID is clear
PMD_PRESENT_INVALID = 1 << 59

PAGE_DEFAULT = PTE_TYPE_PAGE | PTE_AF | PTE_SHARED  # MT_NORMAL is attribute index 0
PAGE_NONE = PAGE_DEFAULT & ~PTE_VALID | PTE_PROT_NONE | PTE_RDONLY | PTE_NG | PTE_PXN | PTE_UXN
PAGE_READONLY_EXEC = PAGE_DEFAULT | PTE_USER | PTE_RDONLY | PTE_NG | PTE_PXN
PAGE_READONLY = PAGE_READONLY_EXEC | PTE_UXN
PAGE_SHARED_EXEC = PAGE_READONLY_EXEC | PTE_WRITE
PAGE_SHARED = PAGE_READONLY | PTE_WRITE

MODIFY_MASK = (
    PTE_USER | PTE_PXN | PTE_UXN | PTE_RDONLY | PTE_PROT_NONE | PTE_VALID | PTE_WRITE | PTE_GP | PTE_ATTRINDX_MASK
)

ESR_EC_SHIFT = 26
ESR_EC_IABT_LOW = 0x20
ESR_EC_PC_ALIGN = 0x22
ESR_EC_DABT_LOW = 0x24
ESR_EC_DABT_CUR = 0x25
ESR_IL = 1 << 25
ESR_EC_MASK = 0x3F << ESR_EC_SHIFT
ESR_WNR = 1 << 6
ESR_CM = 1 << 8
ESR_FNV = 1 << 10
FSC_FAULT = 0x04
FSC_ACCESS = 0x08
FSC_PERM = 0x0C

SIGKILL, SIGBUS, SIGSEGV = 9, 7, 11
SEGV_MAPERR, SEGV_ACCERR, SEGV_MTESERR = 1, 2, 9
BUS_ADRALN, BUS_ADRERR, BUS_OBJERR, BUS_MCEERR_AR = 1, 2, 3, 4
SI_KERNEL = 0x80
FAULT_FLAG_DEFAULT = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE

# fault_info[]: fault status code -> (handler, signal, si_code); what is not listed is do_bad with SIGKILL.
PAGE, TRANSLATION, BAD, SEA, TAG, ALIGNMENT = range(6)
FAULT_INFO: tuple[tuple[int, int, int], ...] = tuple(
    {
        4: (TRANSLATION, SIGSEGV, SEGV_MAPERR),
        5: (TRANSLATION, SIGSEGV, SEGV_MAPERR),
        6: (TRANSLATION, SIGSEGV, SEGV_MAPERR),
        7: (TRANSLATION, SIGSEGV, SEGV_MAPERR),
        9: (PAGE, SIGSEGV, SEGV_ACCERR),
        10: (PAGE, SIGSEGV, SEGV_ACCERR),
        11: (PAGE, SIGSEGV, SEGV_ACCERR),
        13: (PAGE, SIGSEGV, SEGV_ACCERR),
        14: (PAGE, SIGSEGV, SEGV_ACCERR),
        15: (PAGE, SIGSEGV, SEGV_ACCERR),
        16: (SEA, SIGBUS, BUS_OBJERR),
        17: (TAG, SIGSEGV, SEGV_MTESERR),
        20: (SEA, SIGKILL, SI_KERNEL),
        21: (SEA, SIGKILL, SI_KERNEL),
        22: (SEA, SIGKILL, SI_KERNEL),
        23: (SEA, SIGKILL, SI_KERNEL),
        24: (SEA, SIGBUS, BUS_OBJERR),
        28: (SEA, SIGKILL, SI_KERNEL),
        29: (SEA, SIGKILL, SI_KERNEL),
        30: (SEA, SIGKILL, SI_KERNEL),
        31: (SEA, SIGKILL, SI_KERNEL),
        33: (ALIGNMENT, SIGBUS, BUS_ADRALN),
        53: (BAD, SIGBUS, BUS_OBJERR),
    }.get(code, (BAD, SIGKILL, SI_KERNEL))
    for code in range(64)
)


class Arm64(Arch):
    """arm64 with 48-bit addresses and 4K, 16K or 64K pages."""

    name = "aarch64"
    VM_SOFTDIRTY = 0

    TABLE = 3
    PTE_WRITABLE_SET = PTE_WRITE | PTE_DIRTY
    PTE_WRITABLE_MASK = U64 & ~PTE_RDONLY
    PTE_PRESENT = PTE_VALID | PTE_PROT_NONE
    PTE_VALID = PTE_VALID
    PTE_YOUNG = PTE_AF
    PTE_SOFT_DIRTY = 0
    PTE_SPECIAL = PTE_SPECIAL
    PTE_WRITE = PTE_WRITE
    PTE_EXEC_MASK = PTE_VALID | PTE_UXN
    PTE_EXEC_VALUE = PTE_VALID

    # The kernel's loads and stores of user pages see AP and AF as user code does; nothing is set by hardware.
    UACCESS_READ_MASK = PTE_VALID | PTE_AF
    UACCESS_READ_VALUE = PTE_VALID | PTE_AF
    UACCESS_READ_SET = 0
    UACCESS_WRITE_MASK = PTE_VALID | PTE_AF | PTE_RDONLY
    UACCESS_WRITE_VALUE = PTE_VALID | PTE_AF
    UACCESS_WRITE_SET = 0

    protection_map = (
        *(PAGE_NONE, PAGE_READONLY, PAGE_READONLY, PAGE_READONLY),
        *(PAGE_READONLY_EXEC,) * 4,
        *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
        *(PAGE_READONLY_EXEC, PAGE_READONLY_EXEC, PAGE_SHARED_EXEC, PAGE_SHARED_EXEC),
    )

    def __init__(self, page_shift: int, level_shifts: tuple[int, ...]) -> None:
        super().__init__(page_shift, level_shifts)
        self.PTE_PFN_MASK = ((1 << 48) - 1) & self.page_mask

    def pte_pfn(self, pte: int) -> int:
        return (pte & self.PTE_PFN_MASK) >> self.page_shift

    def mk_pte(self, pfn: int, prot: int) -> int:
        return pfn << self.page_shift | prot

    def pte_protnone(self, pte: int) -> bool:
        return pte & (PTE_VALID | PTE_PROT_NONE) == PTE_PROT_NONE

    def pte_dirty(self, pte: int) -> bool:
        return bool(pte & PTE_DIRTY) or pte & (PTE_WRITE | PTE_RDONLY) == PTE_WRITE

    def pte_young(self, pte: int) -> bool:
        return bool(pte & PTE_AF)

    def pte_mkwrite(self, pte: int) -> int:
        pte |= PTE_WRITE
        return pte & ~PTE_RDONLY if pte & PTE_DIRTY else pte

    def pte_mkdirty(self, pte: int) -> int:
        pte |= PTE_DIRTY
        return pte & ~PTE_RDONLY if pte & PTE_WRITE else pte

    def pte_mkyoung(self, pte: int) -> int:
        return pte | PTE_AF

    def pte_mkold(self, pte: int) -> int:
        return pte & ~PTE_AF

    def pte_mkclean(self, pte: int) -> int:
        return pte & ~PTE_DIRTY | PTE_RDONLY

    def pte_wrprotect(self, pte: int) -> int:
        if pte & (PTE_WRITE | PTE_RDONLY) == PTE_WRITE:  # hardware dirty: keep it in the software bit
            pte |= PTE_DIRTY
        return pte & ~PTE_WRITE | PTE_RDONLY

    def pte_modify(self, pte: int, newprot: int) -> int:
        dirty = self.pte_dirty(pte)
        pte = pte & ~MODIFY_MASK | newprot & MODIFY_MASK
        return self.pte_mkdirty(pte) if dirty else pte

    def ptep_set_access_flags(self, words: Any, index: int, entry: int, dirty: bool) -> bool:
        pte = words[index]
        if pte == entry:
            return False
        entry &= PTE_RDONLY | PTE_AF | PTE_WRITE | PTE_DIRTY
        # RDONLY takes the more permissive (lower) of the two, the other three only ever get set.
        words[index] = ((pte ^ PTE_RDONLY) | (entry ^ PTE_RDONLY)) ^ PTE_RDONLY
        return True

    def needs_spurious_flush(self) -> bool:
        return False

    def swp_entry_to_pte(self, kind: int, offset: int) -> int:
        return kind << 2 | offset << 8

    def pte_to_swp_entry(self, pte: int) -> tuple[int, int]:
        return pte >> 2 & 0x3F, pte >> 8 & ((1 << 50) - 1)

    def pmd_trans_huge(self, pmd: int) -> bool:
        return bool(pmd & (PTE_VALID | PTE_PROT_NONE | PMD_PRESENT_INVALID)) and not pmd & PTE_TABLE_BIT

    def pmd_mkhuge(self, pmd: int) -> int:
        return pmd & ~PTE_TABLE_BIT

    def arch_make_huge_pte(self, pte: int, shift: int) -> int:
        if shift in self.level_shifts:
            return pte & ~PTE_TABLE_BIT
        if shift < self.pmd_shift:
            return pte | PTE_CONT | PTE_VALID | PTE_TABLE_BIT  # pte_mkcont() makes even a PROT_NONE entry valid
        return pte & ~PTE_TABLE_BIT | PTE_CONT

    def kernel_fault(self, task: TaskStruct, address: int, write: bool, pte: int) -> FaultSignal | None:
        if not pte & PTE_VALID:
            status = FSC_FAULT | self._walk_level(task.mm, address)
        elif not pte & PTE_AF:
            status = FSC_ACCESS | 3
        else:
            status = FSC_PERM | 3
        esr = ESR_EC_DABT_CUR << ESR_EC_SHIFT | ESR_IL | (ESR_WNR if write else 0) | status
        return self.do_page_fault(task, esr, address, user=False)

    def _walk_level(self, mm: MmStruct | None, address: int) -> int:
        """The level (0 to 3) at which the walk for `address` finds nothing."""
        if mm is None or address >= self.task_size:
            return 0
        words = mm.system.words
        table = mm.pgd << self.table_word_shift
        level = 4 - len(self.level_shifts)
        for shift in self.level_shifts[:-1]:
            entry = words[table + (address >> shift & self.index_mask)]
            if not entry:
                return level
            table = (entry & self.PTE_PFN_MASK) >> 3
            level += 1
        return level

    def do_page_fault(
        self, task: TaskStruct, error_code: int, address: int, user: bool = True, tried: int = 0
    ) -> FaultSignal | None:
        """do_mem_abort(): `error_code` is ESR_EL1 of a data or instruction abort, `address` is FAR_EL1."""
        if address >> 56 and error_code >> ESR_EC_SHIFT >= ESR_EC_DABT_LOW:  # untagged_addr(): the tag is ignored (TBI)
            address = address | 0xFF << 56 if address >> 55 & 1 else address & 0x00FFFFFFFFFFFFFF
        handler, signo, si_code = FAULT_INFO[error_code & 0x3F]
        if handler > TRANSLATION:
            if handler == SEA and error_code & ESR_FNV:
                address = 0
            return self.force_signal(task, error_code, address, signo, si_code, user)
        mm = task.mm
        if mm is None or address >= self.task_size:
            # do_translation_fault() of a TTBR1 address: do_bad_area() with the table's code. A permission fault there
            # runs do_page_fault(), finds no area and reports SEGV_MAPERR.
            return self.force_signal(task, error_code, address, SIGSEGV, SEGV_MAPERR, user)

        flags = FAULT_FLAG_DEFAULT | FAULT_FLAG_USER | tried if user else FAULT_FLAG_DEFAULT | tried
        vm_flags = VM_ACCESS_FLAGS
        if error_code >> ESR_EC_SHIFT == ESR_EC_IABT_LOW:
            vm_flags = VM_EXEC
            flags |= FAULT_FLAG_INSTRUCTION
        elif error_code & (ESR_WNR | ESR_CM) == ESR_WNR:
            vm_flags = VM_WRITE
            flags |= FAULT_FLAG_WRITE

        ops = mm.ops
        stack = False
        vma = ops.find_vma(mm, address)
        if vma is None:
            return self.force_signal(task, error_code, address, SIGSEGV, SEGV_MAPERR, user)
        if vma.vm_start > address:
            if not vma.vm_flags & VM_GROWSDOWN or ops.expand_stack(vma, address):
                return self.force_signal(task, error_code, address, SIGSEGV, SEGV_MAPERR, user)
            stack = True
        if not vma.vm_flags & vm_flags:
            return self.force_signal(task, error_code, address, SIGSEGV, SEGV_ACCERR, user)

        fault = ops.handle_mm_fault(vma, address & self.page_mask, flags)
        if fault & VM_FAULT_RETRY:
            if task.system.fault_result == "userfault":
                retry_later(task, error_code, address, user)
                return None
            fault = retry_fault(vma, address & self.page_mask, flags)
        if not fault & VM_FAULT_ERROR:
            if fault & VM_FAULT_WRITE and task.system.fault_result != "cow-reuse":
                mm.tlb_flush_pending = True  # QEMU remembers 1 KiB at a time: the access mends one part of the page
            if task.system.listener is not None:
                report_fault(task, error_code, address, flags, fault, stack, 0)
            return None
        if fault & VM_FAULT_OOM:
            return pagefault_out_of_memory(task, error_code >> ESR_EC_SHIFT, error_code, address)
        if fault & VM_FAULT_HWPOISON:
            return self.force_signal(task, error_code, address, SIGBUS, BUS_MCEERR_AR, user)
        if fault & VM_FAULT_SIGBUS:
            return self.force_signal(task, error_code, address, SIGBUS, BUS_ADRERR, user)
        return self.force_signal(task, error_code, address, SIGSEGV, SEGV_MAPERR, user)

    def force_signal(
        self, task: TaskStruct, esr: int, address: int, signo: int, si_code: int, user: bool
    ) -> FaultSignal:
        """arm64_force_sig_fault() after set_thread_esr(): a kernel address is shown as a level 0 translation fault."""
        exception_class = esr >> ESR_EC_SHIFT
        if task.system.listener is not None:
            flags = FAULT_FLAG_USER if user else 0
            if exception_class == ESR_EC_IABT_LOW:
                flags |= FAULT_FLAG_INSTRUCTION
            elif esr & (ESR_WNR | ESR_CM) == ESR_WNR:
                flags |= FAULT_FLAG_WRITE
            report_fault(task, esr, address, flags, 0, False, signo)
        if address >= self.task_size:
            if exception_class == ESR_EC_DABT_LOW:
                esr = esr & (ESR_EC_MASK | ESR_IL | ESR_CM | ESR_WNR) | FSC_FAULT
            elif exception_class == ESR_EC_IABT_LOW:
                esr = esr & (ESR_EC_MASK | ESR_IL) | FSC_FAULT
            else:
                esr = 0
        return FaultSignal(signo, si_code, address, exception_class, esr)


LEVEL_SHIFTS = {4096: (39, 30, 21, 12), 16384: (47, 36, 25, 14), 65536: (42, 29, 16)}
# PMD, then 16 to 128 PTEs or PMDs in a row with the contiguous bit, and with 4K pages also the PUD.
HUGETLB_SHIFTS = {4096: (21, 16, 25, 30), 16384: (25, 21, 30), 65536: (29, 21, 34)}

MAX_ORDER = {4096: 11, 16384: 12, 65536: 14}  # CONFIG_FORCE_MAX_ZONEORDER


def make(page_size: int = 4096) -> Arm64:
    """arm64, 48-bit addresses: pages of 4096 and 16384 bytes have four levels, of 65536 bytes three."""
    arch = Arm64(page_size.bit_length() - 1, LEVEL_SHIFTS[page_size])
    arch.task_size = arch.task_size_low = 1 << 48
    arch.stack_top = arch.stack_top_max = 1 << 48
    arch.mmap_rnd_bits = 18
    arch.has_pkeys = False
    arch.elf_et_dyn_base = 2 * (1 << 48) // 3
    arch.transparent_hugepage = page_size == 4096
    arch.hugetlb_shifts = HUGETLB_SHIFTS[page_size]
    arch.max_order = MAX_ORDER[page_size]
    arch.memory_failure = True
    arch.dump_root_first = False
    arch.nodes_shift = 4
    from mm import arch_arm64_layout as layout

    arch.arch_pick_mmap_layout = layout.arch_pick_mmap_layout
    arch.untagged_addr = layout.untagged_addr
    arch.hugetlb_get_unmapped_area = layout.hugetlb_get_unmapped_area
    arch.get_unmapped_area = layout.arch_get_unmapped_area
    arch.get_unmapped_area_topdown = layout.arch_get_unmapped_area_topdown
    return arch
