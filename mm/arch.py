"""The interface of an architecture: geometry of its page tables, bits of its entries, layout of its address space.

Everything that differs between x86-64 and arm64 (and between page sizes) is data or a method of an `Arch`; the rest of
mm/ never asks which one it has. `mm/arch_x86_64.py` and `mm/arch_arm64.py` derive from it (asm/pgtable.h and
mm/fault.c of the two); their `make()` builds a geometry:

    mm.arch_x86_64.make(la57=False)      4K, four levels (or five)
    mm.arch_arm64.make(page_size)        4K and 16K with four levels, 64K with three; 48-bit addresses

PTEs and pgprots are plain 64-bit ints. The small pte_* methods carry the kernel's names and meanings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mm.flags import (
    PG_DCACHE_CLEAN,
    PG_EXEC_MAPPED,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.types import MmStruct, Page, TaskStruct

U64 = 0xFFFFFFFFFFFFFFFF

LEVEL_NAMES = {3: ("pgd", "pmd", "pte"), 4: ("pgd", "pud", "pmd", "pte"), 5: ("pgd", "p4d", "pud", "pmd", "pte")}


class FaultSignal(NamedTuple):
    """A signal a fault must deliver: siginfo fields, and what the signal frame shows of the trap."""

    signo: int
    si_code: int
    address: int  # si_addr, and CR2 or fault_address
    trap_nr: int  # x86-64: vector; arm64: exception class
    error_code: int  # as the task may see it: kernel addresses are disguised


class Arch:
    """One architecture with one page geometry. Immutable after `make()`."""

    name = ""
    VM_SOFTDIRTY = 0
    VM_DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC  # VM_EXEC: by personality
    VM_STACK_FLAGS = VM_GROWSDOWN | VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT

    # Data the geometry's make() fills in.
    page_shift: int
    level_shifts: tuple[int, ...]  # address bits below each level's index, root first, PTE last
    task_size: int  # TASK_SIZE_MAX: first address a task can never map
    task_size_low: int  # end of the default mmap window
    stack_top: int
    stack_top_max: int
    mmap_rnd_bits: int
    elf_et_dyn_base: int
    transparent_hugepage: bool  # the oracle's kernel offers THP on MADV_HUGEPAGE
    hugetlb_shifts: tuple[int, ...]  # log2 of the sizes of hugetlb pages, the default first
    max_order: int  # MAX_ORDER of the oracle's kernel: hugetlb pages of that order and more are gigantic
    dump_root_first: bool  # order in which the oracle's compiler numbers "anon=ID/ROOT" of /proc/mmdump
    has_pkeys: bool  # ARCH_HAS_PKEYS: the pkey_ calls exist, though no CPU here has keys
    memory_failure: bool  # CONFIG_MEMORY_FAILURE: MADV_HWPOISON and MADV_SOFT_OFFLINE are known
    nodes_shift: int  # CONFIG_NODES_SHIFT: a node mask has 1 << nodes_shift bits
    protection_map: tuple[int, ...]  # pgprot by VM_SHARED|VM_EXEC|VM_WRITE|VM_READ

    # Bits of entries, as data for the hot paths.
    PTE_PFN_MASK: int  # the frame's physical address within an entry
    TABLE: int  # bits of an entry that points to a table of user space
    PTE_WRITABLE_SET: int  # pte_mkwrite(pte_mkdirty(pte)) == (pte | PTE_WRITABLE_SET) & PTE_WRITABLE_MASK
    PTE_WRITABLE_MASK: int
    PTE_PRESENT: int  # pte_present(pte) == bool(pte & PTE_PRESENT)
    PTE_VALID: int  # where set, the frame is (pte & PTE_PFN_MASK) >> page_shift: pte_pfn() without the call
    PTE_YOUNG: int  # pte_mkold(pte) == pte & ~PTE_YOUNG
    PTE_SOFT_DIRTY: int  # pte_mksoft_dirty(pte) == pte | PTE_SOFT_DIRTY; 0 where that is not tracked
    PTE_SPECIAL: int
    PTE_UFFD_WP = 0  # write-protected for a userfaultfd; 0: the architecture has no such bit
    PTE_WRITE: int
    PTE_EXEC_MASK: int  # user code may run there: (pte & MASK) == VALUE
    PTE_EXEC_VALUE: int

    # What the MMU asks of a leaf before the kernel may touch a user page: (pte & MASK) == VALUE; then it sets SET.
    UACCESS_READ_MASK: int
    UACCESS_READ_VALUE: int
    UACCESS_READ_SET: int
    UACCESS_WRITE_MASK: int
    UACCESS_WRITE_VALUE: int
    UACCESS_WRITE_SET: int

    # Layout of the address space, from arch_*_layout.py (module functions, so that they pickle by name).
    arch_pick_mmap_layout: Callable[..., None]
    get_unmapped_area: Callable[..., int]
    get_unmapped_area_topdown: Callable[..., int]
    hugetlb_get_unmapped_area: Callable[..., int]
    untagged_addr: Callable[[int], int]

    def __init__(self, page_shift: int, level_shifts: tuple[int, ...]) -> None:
        self.page_shift = page_shift
        self.page_size = 1 << page_shift
        self.page_mask = ~(self.page_size - 1) & U64
        self.level_shifts = level_shifts
        self.level_names = LEVEL_NAMES[len(level_shifts)]
        self.index_mask = (self.page_size >> 3) - 1  # PTRS_PER_PTE - 1
        self.ptrs_per_pte = self.page_size >> 3
        self.table_word_shift = page_shift - 3  # pfn << this: index of a table's first entry among RAM's words
        self.pmd_shift = level_shifts[-2]
        self.pmd_size = 1 << self.pmd_shift
        self.pmd_mask = ~(self.pmd_size - 1) & U64
        self.pgdir_shift = level_shifts[0]
        self.hpage_pmd_nr = 1 << (self.pmd_shift - page_shift)
        # level_counted[i]: mm_inc_nr_*() is called for a table linked at level i (p4d tables are not counted).
        self.level_counted = tuple(name not in ("pgd", "p4d") for name in self.level_names)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("do_page_fault", None)  # what explaining faults puts in the method's way (emu/explain.py)
        return state

    def __repr__(self) -> str:
        return f"<Arch {self.name} {self.page_size >> 10}K {len(self.level_shifts)} levels>"

    def vm_get_page_prot(self, vm_flags: int) -> int:
        """PTE protection bits of an area (vm_get_page_prot)."""
        return self.protection_map[vm_flags & (VM_READ | VM_WRITE | VM_EXEC | VM_SHARED)]

    # -- entries ------------------------------------------------------------------------------------------------------

    def pte_present(self, pte: int) -> bool:
        """The entry maps a frame (PROT_NONE included)."""
        return bool(pte & self.PTE_PRESENT)

    def pte_pfn(self, pte: int) -> int:
        """Frame number of a present entry; of a huge one, that of the first frame."""
        raise NotImplementedError

    def mk_pte(self, pfn: int, prot: int) -> int:
        """pfn_pte(): entry for a frame with the bits of a pgprot."""
        raise NotImplementedError

    def pte_write(self, pte: int) -> bool:
        """Writing is allowed (perhaps after a software dirty fault)."""
        return bool(pte & self.PTE_WRITE)

    def pte_special(self, pte: int) -> bool:
        """No struct page stands behind the entry: zero page or raw frame."""
        return bool(pte & self.PTE_SPECIAL)

    def pte_mkspecial(self, pte: int) -> int:
        """Mark the entry special."""
        return pte | self.PTE_SPECIAL

    def pte_user_exec(self, pte: int) -> bool:
        """User code may run from the page."""
        return pte & self.PTE_EXEC_MASK == self.PTE_EXEC_VALUE

    def sync_icache(self, mm: MmStruct, page: Page, address: int, pte: int) -> None:
        """Before `pte` maps `page` at `address`: code the engine translated from the frame earlier may be stale.

        __sync_icache_dcache() of arm64; here both architectures need it, because the engine does not see what the
        host writes into RAM.
        """
        if not page.flags & PG_DCACHE_CLEAN and pte & self.PTE_EXEC_MASK == self.PTE_EXEC_VALUE:
            page.flags |= PG_DCACHE_CLEAN | PG_EXEC_MAPPED
            mm.icache_pending.append(address & self.page_mask)

    def pte_protnone(self, pte: int) -> bool:
        """Present for the kernel, absent for the MMU."""
        raise NotImplementedError

    def pte_dirty(self, pte: int) -> bool:
        """The page was written through this entry."""
        raise NotImplementedError

    def pte_young(self, pte: int) -> bool:
        """The page was used through this entry."""
        raise NotImplementedError

    def pte_soft_dirty(self, pte: int) -> bool:
        """Written since clear_refs (always False without soft-dirty tracking)."""
        return False

    def pte_mkwrite(self, pte: int) -> int:
        """Allow writing."""
        raise NotImplementedError

    def pte_mkdirty(self, pte: int) -> int:
        """Note a write."""
        raise NotImplementedError

    def pte_mkyoung(self, pte: int) -> int:
        """Note a use."""
        raise NotImplementedError

    def pte_mkold(self, pte: int) -> int:
        """Forget uses."""
        raise NotImplementedError

    def pte_mkclean(self, pte: int) -> int:
        """Forget writes."""
        raise NotImplementedError

    def pte_wrprotect(self, pte: int) -> int:
        """Forbid writing, keep what is known of past writes."""
        raise NotImplementedError

    def pte_mksoft_dirty(self, pte: int) -> int:
        """Set the soft-dirty bit where there is one."""
        return pte

    def pte_clear_soft_dirty(self, pte: int) -> int:
        """Clear the soft-dirty bit where there is one."""
        return pte

    def pte_modify(self, pte: int, newprot: int) -> int:
        """The entry with another protection, frame and history kept."""
        raise NotImplementedError

    def ptep_set_access_flags(self, words: Any, index: int, entry: int, dirty: bool) -> bool:
        """Relax the entry at `index` towards `entry`; True when it differed."""
        raise NotImplementedError

    def needs_spurious_flush(self) -> bool:
        """flush_tlb_fix_spurious_fault() does something here."""
        raise NotImplementedError

    # -- entries of the middle level that map a huge page -------------------------------------------------------------

    def pmd_trans_huge(self, pmd: int) -> bool:
        """The PMD entry maps a huge page (and is no table)."""
        raise NotImplementedError

    def swp_entry_to_pte(self, kind: int, offset: int) -> int:
        """An entry that is not present: a swap type and an offset (__swp_entry)."""
        raise NotImplementedError

    def pte_to_swp_entry(self, pte: int) -> tuple[int, int]:
        """Swap type and offset of an entry that is not present."""
        raise NotImplementedError

    def pmd_modify(self, pmd: int, newprot: int) -> int:
        """A huge entry with another protection."""
        return self.pte_modify(pmd, newprot)

    def pmd_mkhuge(self, pmd: int) -> int:
        """Make a PTE-format entry one that maps a huge page at the PMD level."""
        raise NotImplementedError

    def arch_make_huge_pte(self, pte: int, shift: int) -> int:
        """Make a PTE-format entry one of a hugetlb page of 2**shift bytes (pte_mkhuge, arch_make_huge_pte)."""
        raise NotImplementedError

    # -- faults -------------------------------------------------------------------------------------------------------

    def do_page_fault(
        self, task: TaskStruct, error_code: int, address: int, user: bool = True, tried: int = 0
    ) -> FaultSignal | None:
        """Serve a page fault of `task`; None when the access can be tried again, else the signal it earns.

        With user=False the access was the kernel's own on behalf of a call: a signal then stands for EFAULT.
        """
        raise NotImplementedError

    def kernel_fault(self, task: TaskStruct, address: int, write: bool, pte: int) -> FaultSignal | None:
        """The fault this MMU raises when the kernel may not touch a user page: `pte` is the leaf found (0: none)."""
        raise NotImplementedError
