"""x86-64: entries of its page tables (asm/pgtable.h, pgtable_types.h, pgtable-invert.h) and its faults (mm/fault.c).

The MMU sets Accessed and Dirty itself; soft-dirty is a software bit. An entry that is present for the kernel only
(PROT_NONE) has its frame bits inverted, as the kernel does against L1TF.
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
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_GROWSDOWN,
    VM_WRITE,
)

if TYPE_CHECKING:
    from mm.types import TaskStruct

PAGE_PRESENT = 0x1
PAGE_RW = 0x2
PAGE_USER = 0x4
PAGE_PWT = 0x8
PAGE_PCD = 0x10
PAGE_ACCESSED = 0x20
PAGE_DIRTY = 0x40
PAGE_PSE = 0x80
PAGE_PAT = 0x80
PAGE_PROTNONE = 0x100  # the Global bit, reused while Present is clear
PAGE_SPECIAL = 0x200
PAGE_UFFD_WP = 0x400
PAGE_SOFT_DIRTY = 0x800
PAGE_DEVMAP = 1 << 58
PAGE_NX = 1 << 63
PFN_MASK = 0x000FFFFFFFFFF000
PAGE_CHG_MASK = (
    PFN_MASK
    | PAGE_PCD
    | PAGE_PWT
    | PAGE_SPECIAL
    | PAGE_ACCESSED
    | PAGE_DIRTY
    | PAGE_SOFT_DIRTY
    | PAGE_DEVMAP
    | PAGE_UFFD_WP
    | PAGE_PAT
)

PAGE_NONE = PAGE_ACCESSED | PAGE_PROTNONE
PAGE_READONLY_EXEC = PAGE_PRESENT | PAGE_USER | PAGE_ACCESSED
PAGE_READONLY = PAGE_READONLY_EXEC | PAGE_NX
PAGE_SHARED_EXEC = PAGE_READONLY_EXEC | PAGE_RW
PAGE_SHARED = PAGE_SHARED_EXEC | PAGE_NX

X86_PF_PROT = 1
X86_PF_WRITE = 2
X86_PF_USER = 4
X86_PF_RSVD = 8
X86_PF_INSTR = 16
X86_PF_PK = 32
X86_TRAP_PF = 14

SIGBUS, SIGSEGV = 7, 11
SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR = 1, 2, 2
VSYSCALL_ADDR = 0xFFFFFFFFFF600000
FAULT_FLAG_DEFAULT = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE


class X86_64(Arch):
    """x86-64 with 4K pages."""

    name = "x86_64"
    VM_SOFTDIRTY = 0x08000000

    PTE_PFN_MASK = PFN_MASK
    TABLE = PAGE_PRESENT | PAGE_RW | PAGE_USER | PAGE_ACCESSED | PAGE_DIRTY  # _PAGE_TABLE
    PTE_WRITABLE_SET = PAGE_RW | PAGE_DIRTY | PAGE_SOFT_DIRTY
    PTE_WRITABLE_MASK = U64
    PTE_PRESENT = PAGE_PRESENT | PAGE_PROTNONE
    PTE_VALID = PAGE_PRESENT
    PTE_YOUNG = PAGE_ACCESSED
    PTE_SOFT_DIRTY = PAGE_SOFT_DIRTY
    PTE_SPECIAL = PAGE_SPECIAL
    PTE_UFFD_WP = PAGE_UFFD_WP
    PTE_WRITE = PAGE_RW
    PTE_EXEC_MASK = PAGE_PRESENT | PAGE_NX
    PTE_EXEC_VALUE = PAGE_PRESENT

    # CR0.WP is set, SMAP is absent: a kernel access needs Present, and RW for a store; U/S does not matter.
    UACCESS_READ_MASK = PAGE_PRESENT
    UACCESS_READ_VALUE = PAGE_PRESENT
    UACCESS_READ_SET = PAGE_ACCESSED
    UACCESS_WRITE_MASK = PAGE_PRESENT | PAGE_RW
    UACCESS_WRITE_VALUE = PAGE_PRESENT | PAGE_RW
    UACCESS_WRITE_SET = PAGE_ACCESSED | PAGE_DIRTY

    protection_map = (
        *(PAGE_NONE, PAGE_READONLY, PAGE_READONLY, PAGE_READONLY),
        *(PAGE_READONLY_EXEC,) * 4,
        *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
        *(PAGE_READONLY_EXEC, PAGE_READONLY_EXEC, PAGE_SHARED_EXEC, PAGE_SHARED_EXEC),
    )

    def pte_pfn(self, pte: int) -> int:
        if pte & PAGE_PRESENT:
            return (pte & PFN_MASK) >> 12
        if pte & PAGE_PSE:  # a huge entry (small ones never have the PAT bit here)
            return (~pte & PFN_MASK & ~(self.pmd_size - 1)) >> 12
        return (~pte & PFN_MASK) >> 12

    def mk_pte(self, pfn: int, prot: int) -> int:
        if prot & PAGE_PRESENT:
            return pfn << 12 | prot
        return (~(pfn << 12) & PFN_MASK) | prot

    def pte_protnone(self, pte: int) -> bool:
        return pte & (PAGE_PROTNONE | PAGE_PRESENT) == PAGE_PROTNONE

    def pte_dirty(self, pte: int) -> bool:
        return bool(pte & PAGE_DIRTY)

    def pte_young(self, pte: int) -> bool:
        return bool(pte & PAGE_ACCESSED)

    def pte_soft_dirty(self, pte: int) -> bool:
        return bool(pte & PAGE_SOFT_DIRTY)

    def pte_mkwrite(self, pte: int) -> int:
        return pte | PAGE_RW

    def pte_mkdirty(self, pte: int) -> int:
        return pte | PAGE_DIRTY | PAGE_SOFT_DIRTY

    def pte_mkyoung(self, pte: int) -> int:
        return pte | PAGE_ACCESSED

    def pte_mkold(self, pte: int) -> int:
        return pte & ~PAGE_ACCESSED

    def pte_mkclean(self, pte: int) -> int:
        return pte & ~PAGE_DIRTY

    def pte_wrprotect(self, pte: int) -> int:
        return pte & ~PAGE_RW

    def pte_mksoft_dirty(self, pte: int) -> int:
        return pte | PAGE_SOFT_DIRTY

    def pte_clear_soft_dirty(self, pte: int) -> int:
        return pte & ~PAGE_SOFT_DIRTY

    def pte_modify(self, pte: int, newprot: int) -> int:
        new = pte & PAGE_CHG_MASK | newprot & ~PAGE_CHG_MASK
        if (pte ^ new) & PAGE_PRESENT:  # flip_protnone_guard(): to or from PROT_NONE the frame bits invert
            new ^= PFN_MASK
        return new

    def ptep_set_access_flags(self, words: Any, index: int, entry: int, dirty: bool) -> bool:
        if words[index] == entry:
            return False
        if dirty:  # the MMU keeps Accessed by itself
            words[index] = entry
        return True

    def needs_spurious_flush(self) -> bool:
        return True

    def pmd_trans_huge(self, pmd: int) -> bool:
        return bool(pmd & PAGE_PSE)

    def swp_entry_to_pte(self, kind: int, offset: int) -> int:
        return kind << 59 | (~offset << 14 & U64) >> 5

    def pte_to_swp_entry(self, pte: int) -> tuple[int, int]:
        return pte >> 59, (~pte << 5 & U64) >> 14

    def pmd_modify(self, pmd: int, newprot: int) -> int:
        new = pmd & PAGE_CHG_MASK | newprot & ~PAGE_CHG_MASK
        if (pmd ^ new) & PAGE_PRESENT:
            new ^= PFN_MASK & ~(self.pmd_size - 1)
        return new

    def pmd_mkhuge(self, pmd: int) -> int:
        return pmd | PAGE_PSE

    def arch_make_huge_pte(self, pte: int, shift: int) -> int:
        return pte | PAGE_PSE

    def kernel_fault(self, task: TaskStruct, address: int, write: bool, pte: int) -> FaultSignal | None:
        error_code = (X86_PF_WRITE if write else 0) | (X86_PF_PROT if pte & PAGE_PRESENT else 0)
        return self.do_page_fault(task, error_code, address, user=False)

    def do_page_fault(
        self, task: TaskStruct, error_code: int, address: int, user: bool = True, tried: int = 0
    ) -> FaultSignal | None:
        """exc_page_fault() and do_user_addr_fault(): `error_code` is the CPU's."""
        mm = task.mm
        if mm is None or (address >= self.task_size and address & ~0xFFF != VSYSCALL_ADDR):
            return self.bad_area(task, error_code, address, SEGV_MAPERR, user)
        flags = FAULT_FLAG_DEFAULT | FAULT_FLAG_USER | tried if user else FAULT_FLAG_DEFAULT | tried
        if error_code & X86_PF_WRITE:
            flags |= FAULT_FLAG_WRITE
        if error_code & X86_PF_INSTR:
            flags |= FAULT_FLAG_INSTRUCTION

        ops = mm.ops
        stack = False
        vma = ops.find_vma(mm, address)
        if vma is None:
            return self.bad_area(task, error_code, address, SEGV_MAPERR, user)
        if vma.vm_start > address:
            if not vma.vm_flags & VM_GROWSDOWN or ops.expand_stack(vma, address):
                return self.bad_area(task, error_code, address, SEGV_MAPERR, user)
            stack = True
        # access_error()
        if error_code & X86_PF_WRITE:
            if not vma.vm_flags & VM_WRITE:
                return self.bad_area(task, error_code, address, SEGV_ACCERR, user)
        elif error_code & X86_PF_PROT or not vma.vm_flags & VM_ACCESS_FLAGS:
            return self.bad_area(task, error_code, address, SEGV_ACCERR, user)

        fault = ops.handle_mm_fault(vma, address, flags)
        if fault & VM_FAULT_RETRY:
            if task.system.fault_result == "userfault":
                retry_later(task, error_code, address, user)
                return None
            fault = retry_fault(vma, address, flags)
        if not fault & VM_FAULT_ERROR:
            if task.system.listener is not None:
                report_fault(task, error_code, address, flags, fault, stack, 0)
            return None
        if fault & VM_FAULT_OOM:
            return pagefault_out_of_memory(task, X86_TRAP_PF, error_code, address)
        if fault & VM_FAULT_SIGBUS:
            return self.bad_area(task, error_code, address, BUS_ADRERR, user, SIGBUS)
        return self.bad_area(task, error_code, address, SEGV_MAPERR, user)

    def bad_area(
        self, task: TaskStruct, error_code: int, address: int, si_code: int, user: bool, signo: int = SIGSEGV
    ) -> FaultSignal:
        """__bad_area_nosemaphore(), do_sigbus(): the signal; kernel addresses always look like protection faults."""
        if task.system.listener is not None:
            flags = (FAULT_FLAG_USER if user else 0) | (FAULT_FLAG_WRITE if error_code & X86_PF_WRITE else 0)
            flags |= FAULT_FLAG_INSTRUCTION if error_code & X86_PF_INSTR else 0
            report_fault(task, error_code, address, flags, 0, False, signo)
        if address >= self.task_size:
            error_code |= X86_PF_PROT
        return FaultSignal(signo, si_code, address, X86_TRAP_PF, error_code)


def make(la57: bool = False) -> X86_64:
    """x86-64, 4K pages, four levels, or five where the CPU has LA57."""
    arch = X86_64(12, (48, 39, 30, 21, 12) if la57 else (39, 30, 21, 12))
    arch.task_size = (1 << (56 if la57 else 47)) - arch.page_size
    arch.task_size_low = (1 << 47) - arch.page_size  # DEFAULT_MAP_WINDOW
    arch.stack_top = arch.task_size_low
    arch.stack_top_max = arch.task_size
    arch.mmap_rnd_bits = 28
    arch.has_pkeys = True
    arch.elf_et_dyn_base = arch.task_size_low // 3 * 2
    arch.transparent_hugepage = True
    arch.max_order = 11
    arch.hugetlb_shifts = (21,)  # qemu64 has no pages of 1 GiB
    arch.memory_failure = False
    arch.dump_root_first = True  # gcc evaluates the arguments of a call from the right here
    arch.nodes_shift = 6
    from mm import arch_x86_64_layout as layout

    arch.arch_pick_mmap_layout = layout.arch_pick_mmap_layout
    arch.untagged_addr = layout.untagged_addr
    arch.hugetlb_get_unmapped_area = layout.hugetlb_get_unmapped_area
    arch.get_unmapped_area = layout.arch_get_unmapped_area
    arch.get_unmapped_area_topdown = layout.arch_get_unmapped_area_topdown
    return arch
