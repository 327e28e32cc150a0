"""The data structures of memory management, and nothing else.

Read this file first. Each class is the counterpart of a kernel structure (include/linux/mm_types.h, rmap.h, fs.h), with
the kernel's field names; a field says what it means, its unit, and the rule it obeys. Behaviour lives in the module
named after the kernel's file: `mmap.py`, `memory.py`, `rmap.py` and so on.

    TaskStruct --mm--> MmStruct --mmap--> VmAreaStruct <-> VmAreaStruct <-> ...     sorted list
                          |                   |   |
                          +--mm_rb------------+   +--anon_vma--> AnonVma            red-black tree, same VMAs
                          |                   +------vm_file---> File --> AddressSpace --> Page
                          +--pgd--> page tables in guest RAM --> frames; mem_map[pfn] is the frame's Page

All of it is plain, copyable and picklable: no engine handle, no closure, no host file. RAM itself is reached through
`System`, which re-attaches it after unpickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.arch import Arch
    from mm.system import System


class Page:
    """State of one frame of guest RAM in use (struct page). Free frames have none: `system.mem_map[pfn] is None`."""

    __slots__ = ("flags", "index", "mapcount", "mapping", "pfn", "refcount")  # few: there is one for each resident page

    private: Any = None  # head of the huge page this is part of; only a CompoundPage can be one

    def __init__(
        self,
        pfn: int,
        flags: int = 0,
        mapcount: int = 0,
        mapping: AnonVma | StableNode | AddressSpace | None = None,
        index: int = 0,
    ) -> None:
        self.pfn = pfn  # frame number: physical address >> page_shift
        self.refcount = 1  # _refcount: users of the frame; 0 frees it
        self.mapcount = mapcount  # page_mapcount(): PTEs that map it (the kernel stores this less one)
        self.flags = flags  # PG_*
        self.mapping = mapping  # owner: PageAnon() iff it is an AnonVma or a StableNode; PageKsm() iff the latter
        self.index = index  # pages: offset within mapping (file offset, or linear address for anonymous)


class CompoundPage(Page):
    """A page from a larger block (alloc_pages): it can be part of a huge page."""

    __slots__ = ("private",)

    def __init__(self, pfn: int) -> None:  # as Page's, written out: a huge page makes hundreds
        self.pfn = pfn
        self.refcount = 1
        self.mapcount = self.flags = self.index = 0
        self.mapping = None
        self.private: Any = None


class AnonVma:
    """Set of VMAs that may map the same anonymous pages (struct anon_vma)."""

    __slots__ = ("num_active_vmas", "num_children", "parent", "rb_root", "refcount", "root")

    def __init__(self) -> None:
        self.root: AnonVma = self  # first of the fork family
        self.parent: AnonVma = self
        self.refcount = 1
        self.num_children = 0  # anon_vmas whose parent is this one, itself included when it is a root
        self.num_active_vmas = 0  # VMAs whose anon_vma is this one
        self.rb_root = RbRoot()  # interval tree of AnonVmaChain.rb over VMA page offsets


class RbRoot:
    """Root of an intrusive red-black tree (struct rb_root). `rb_node` is the topmost node or None.

    A tree pickles as the list of its nodes: following the links would recurse as deep as there are nodes.
    """

    __slots__ = ("rb_node",)

    def __init__(self) -> None:
        self.rb_node: Any = None

    def __getstate__(self) -> list[tuple[Any, bool, bool, bool]]:
        """(node, red, has a left child, has a right child) of each node, parents before children, left before right."""
        state = []
        pending = [self.rb_node] if self.rb_node is not None else []
        while pending:
            node = pending.pop()
            left, right = node.rb_left, node.rb_right
            state.append((node, node.rb_red, left is not None, right is not None))
            if right is not None:
                pending.append(right)
            if left is not None:
                pending.append(left)
        return state

    def __setstate__(self, state: list[tuple[Any, bool, bool, bool]]) -> None:
        self.rb_node = None
        parents: list[tuple[Any, str]] = []  # places that wait for a node, the next one last
        for node, red, has_left, has_right in state:
            node.rb_left = node.rb_right = node.rb_parent = None
            node.rb_red = red
            if parents:
                parent, side = parents.pop()
                setattr(parent, side, node)
                node.rb_parent = parent
            else:
                self.rb_node = node
            if has_right:
                parents.append((node, "rb_right"))
            if has_left:
                parents.append((node, "rb_left"))


_LINKS = ("rb_left", "rb_right", "rb_parent", "rb_red", "vm_next", "vm_prev")


class RbNode:
    """Links of a node in a tree of `rbtree.py`. Whatever has these four slots can be linked; VMAs link themselves.

    Links are not pickled with the node: the tree's `RbRoot` restores them, and an `MmStruct` the list of its VMAs.
    """

    __slots__ = ("rb_left", "rb_parent", "rb_red", "rb_right")

    def __init__(self) -> None:
        self.rb_left: Any = None
        self.rb_right: Any = None
        self.rb_parent: Any = None
        self.rb_red = False

    def __getstate__(self) -> dict[str, Any]:
        slots = [name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ())]
        return {name: getattr(self, name) for name in slots if name not in _LINKS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if not hasattr(self, "rb_parent"):  # else its tree was restored before it
            self.rb_left = self.rb_right = self.rb_parent = None
            self.rb_red = False


class AnonVmaChain(RbNode):
    """One (VMA, AnonVma) pair (struct anon_vma_chain): in the VMA's `anon_vma_chain` list and the AnonVma's tree."""

    __slots__ = ("anon_vma", "rb_subtree_last", "vma")

    def __init__(self, vma: VmAreaStruct, anon_vma: AnonVma) -> None:
        super().__init__()
        self.vma = vma
        self.anon_vma = anon_vma
        self.rb_subtree_last = 0  # augmentation: largest last page offset in this subtree


class SharedNode(RbNode):
    """A file VMA's link in its mapping's `i_mmap` interval tree (vma->shared)."""

    __slots__ = ("rb_subtree_last", "vma")

    def __init__(self, vma: VmAreaStruct) -> None:
        super().__init__()
        self.vma = vma
        self.rb_subtree_last = 0


class StableNode(RbNode):
    """What a KSM page's `mapping` points to (struct stable_node), or a chain of such nodes for one content.

        in the stable tree    the only page of its content, or a chain
        in a chain (a dup)    one of several pages of that content: an entry of `chain.hlist`
        in neither            the mapping of a KSM page that no node could be had for

    A hlist_add_head() is an entry at the end here, so the kernel's order is the reverse of the dict's.
    """

    __slots__ = ("chain", "chain_prune_time", "hlist", "kpfn")

    def __init__(self, kpfn: int = -1) -> None:
        super().__init__()
        self.kpfn = kpfn  # frame of the KSM page, which may have been freed since; -1: this is a chain
        self.chain: StableNode | None = None  # the chain a dup belongs to (is_stable_node_dup())
        self.hlist: dict[Any, None] = {}  # RmapItems that map the page; of a chain: its dups
        self.chain_prune_time = 0  # jiffies: when a chain was last cleared of dups without a page


class RmapItem(RbNode):
    """One virtual page that ksmd looks at (struct rmap_item). The inherited links are the unstable tree's."""

    __slots__ = ("address", "anon_vma", "flags", "head", "mm", "oldchecksum", "rmap_list", "seqnr")

    def __init__(self, mm: MmStruct, address: int) -> None:
        super().__init__()
        self.mm = mm
        self.address = address  # bytes, page aligned
        self.flags = 0  # UNSTABLE_FLAG: in the unstable tree; STABLE_FLAG: in the hlist of `head`
        self.seqnr = 0  # the pass over all memory in which it was put into the unstable tree
        self.oldchecksum = 0  # of the page when it was last looked at
        self.head: StableNode | None = None  # the KSM page it maps
        self.anon_vma: AnonVma | None = None  # while STABLE_FLAG: the area's, referenced
        self.rmap_list: RmapItem | None = None  # the next one of the address space, at a higher address

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["rmap_list"]  # its MmSlot restores the list
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not hasattr(self, "rmap_list"):
            self.rmap_list = None


class MmSlot:
    """An address space that ksmd scans (struct mm_slot); the one without `mm` is the head of the list of all."""

    __slots__ = ("mm", "rmap_list")

    def __init__(self, mm: MmStruct | None) -> None:
        self.mm = mm
        self.rmap_list: RmapItem | None = None  # its RmapItems by address

    def __getstate__(self) -> tuple[MmStruct | None, list[RmapItem]]:
        items = []
        item = self.rmap_list
        while item is not None:
            items.append(item)
            item = item.rmap_list
        return self.mm, items

    def __setstate__(self, state: tuple[MmStruct | None, list[RmapItem]]) -> None:
        self.mm, items = state
        following = None
        for item in reversed(items):
            item.rmap_list = following
            following = item
        self.rmap_list = following


class VmAreaStruct(RbNode):
    """One area of an address space (struct vm_area_struct): [vm_start, vm_end), bytes, page aligned, never empty.

    The inherited links are vm_rb: the node in `mm.mm_rb`.
    """

    __slots__ = (
        "anon_vma",
        "anon_vma_chain",
        "rb_subtree_gap",
        "shared",
        "vm_end",
        "vm_file",
        "vm_flags",
        "vm_mm",
        "vm_next",
        "vm_ops",
        "vm_page_prot",
        "vm_pgoff",
        "vm_policy",
        "vm_prev",
        "vm_private_data",
        "vm_start",
        "vm_userfaultfd_ctx",
    )

    def __init__(
        self, mm: MmStruct, start: int = 0, end: int = 0, flags: int = 0, prot: int = 0, pgoff: int = 0
    ) -> None:
        self.rb_left: Any = None
        self.rb_right: Any = None
        self.rb_parent: Any = None
        self.rb_red = False
        self.vm_mm = mm
        self.vm_start = start
        self.vm_end = end
        self.vm_next: VmAreaStruct | None = None
        self.vm_prev: VmAreaStruct | None = None
        self.rb_subtree_gap = 0  # bytes: largest gap below a VMA of this subtree
        self.vm_page_prot = prot  # protection bits of a PTE mapped here
        self.vm_flags = flags  # VM_*
        self.anon_vma_chain: list[AnonVmaChain] = []  # index 0 is the list head's next (most recently added)
        self.anon_vma: AnonVma | None = None  # set by the first anonymous page
        self.vm_ops: VmOperations | None = None  # None: anonymous
        self.vm_pgoff = pgoff  # pages: offset in vm_file, or vm_start >> page_shift at birth for anonymous
        self.vm_file: File | None = None
        self.shared: SharedNode | None = None  # link in vm_file's i_mmap, while linked
        self.vm_private_data: Any = None
        self.vm_policy: Any = None
        self.vm_userfaultfd_ctx: Any = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not hasattr(self, "vm_next"):  # else its MmStruct was restored before it
            self.vm_next = self.vm_prev = None

    def __repr__(self) -> str:
        return f"<VMA {self.vm_start:x}-{self.vm_end:x} flags={self.vm_flags:x} pgoff={self.vm_pgoff:x}>"


class VmOperations(Protocol):
    """What an area's owner does for it (struct vm_operations_struct). Methods an owner lacks are None on the instance.

    `close` is not None keeps an area from merging. Implementations are stateless singletons, picklable by name.
    """

    open: Callable[[VmAreaStruct], None] | None
    close: Callable[[VmAreaStruct], None] | None
    fault: Callable[[VmFault], int] | None
    map_pages: Callable[[VmFault, int, int], None] | None
    page_mkwrite: Callable[[VmFault], int] | None
    name: Callable[[VmAreaStruct], str] | None


class VmFault:
    """One page fault in progress (struct vm_fault). `address` is page aligned, `real_address` is what was touched."""

    __slots__ = ("address", "cow_page", "flags", "orig_pte", "page", "pgoff", "pte", "real_address", "vma")

    def __init__(self, vma: VmAreaStruct, address: int, flags: int, pgoff: int) -> None:
        self.vma = vma
        self.address = address  # bytes, page aligned
        self.real_address = address
        self.flags = flags  # FAULT_FLAG_*
        self.pgoff = pgoff  # pages: offset of the faulting page in the mapping
        self.pte = -1  # index of the PTE among the 8-byte words of RAM; -1: no table yet
        self.orig_pte = 0  # its value at the time of the fault
        self.page: Page | None = None  # ->fault() leaves the page here
        self.cow_page: Page | None = None


class AddressSpace:
    """Cached pages of one file and the areas that map it (struct address_space with what mm/ needs of struct inode)."""

    __slots__ = (
        "a_ops",
        "host",
        "i_mmap",
        "i_mmap_writable",
        "i_size",
        "i_writecount",
        "nrpages",
        "pages",
        "private",
    )

    def __init__(self, a_ops: Any, host: Any = None) -> None:
        self.a_ops = a_ops  # where missing pages come from (shmem.py, filemap.py)
        self.host = host  # the inode of guest/, opaque to mm/
        self.pages: dict[int, Page] = {}  # i_pages: page offset -> Page
        self.i_mmap = RbRoot()  # interval tree of SharedNode
        self.i_mmap_writable = 0  # VM_SHARED mappings; negative: writing denied
        self.i_writecount = 0  # opens for writing; negative: -n VM_DENYWRITE mappings and running exec's (ETXTBSY)
        self.i_size = 0  # bytes
        self.nrpages = 0
        self.private: Any = None  # a_ops' own


class File(Protocol):
    """What mm/ asks of an open file (struct file). guest/ implements it."""

    f_mapping: AddressSpace
    f_mode: int  # FMODE_READ 1, FMODE_WRITE 2
    f_flags: int  # O_*
    f_count: int  # references; get_file() and fput() in mm/mmap.py count

    def d_path(self) -> str:
        """Absolute path in the guest, ' (deleted)' appended when unlinked."""

    def mmap(self, vma: VmAreaStruct) -> None:
        """f_op->mmap: set vma.vm_ops (and flags). Raises Errno(ENODEV) when the file cannot be mapped."""

    def release(self) -> None:
        """Called when f_count falls to 0."""


class MmStruct:
    """One address space (struct mm_struct). Addresses in bytes, the *_vm counters and rss in pages."""

    def __init__(self, system: System) -> None:
        arch = system.arch
        self.system = system
        self.arch: Arch = arch
        self.mmap: VmAreaStruct | None = None  # lowest VMA
        self.mm_rb = RbRoot()
        self.vmacache_seqnum = 0
        self.ops: MmOps = system.mm_ops  # swappable algorithms
        self.get_unmapped_area: Callable[..., int] = arch.get_unmapped_area_topdown
        self.ioctx_table: Any = None  # contexts of asynchronous I/O: guest/aio.py's, with exit_aio()
        self.mmap_base = 0
        self.mmap_legacy_base = 0
        self.task_size = arch.task_size
        self.highest_vm_end = 0
        self.pgd = 0  # pfn of the root table
        self.deposited: list[int] = []  # pfns of PTE tables in reserve, one for each huge entry
        self.pte_cache_key = -1  # address >> pmd_shift of the PTE table last used by a fault; -1: none
        self.pte_cache = 0  # its first entry, as index among the words of RAM; dropped when a table is freed or moved
        self.mm_users = 1
        self.map_count = 0
        self.total_vm = 0
        self.locked_vm = 0
        self.pinned_vm = 0
        self.data_vm = 0
        self.exec_vm = 0
        self.stack_vm = 0
        self.def_flags = 0
        self.pkey_allocation_map = 0  # arch context: bit 0 without a CPU that has keys
        self.pgtables_bytes = 0
        self.hugetlb_usage = 0  # pages mapped from hugetlb pools: no part of rss
        self.hiwater_rss = 0
        self.hiwater_vm = 0
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.saved_auxv: list[int] = []
        self.rss_stat = [0, 0, 0, 0]  # MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES
        self.vdso = 0  # address of the vDSO (context.vdso)
        self.exe_file: File | None = None
        self.binfmt: Any = None
        self.flags = 0  # MMF_*: dumpable
        self.ksm_slot: MmSlot | None = None  # MMF_VM_MERGEABLE: ksmd scans it
        self.khugepaged = False  # MMF_VM_HUGEPAGE: khugepaged scans it
        self.tlb_flush_pending = False  # a present PTE was cleared or tightened: flush before user code runs
        self.icache_pending: list[int] = []  # addresses of pages that became executable with host-written bytes

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["mmap"]  # the list is the tree in order
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from mm.rbtree import rb_nodes

        self.__dict__.update(state)
        self.mmap = prev = None
        for vma in rb_nodes(self.mm_rb):
            vma.vm_prev = prev
            vma.vm_next = None
            if prev is None:
                self.mmap = vma
            else:
                prev.vm_next = vma
            prev = vma


class MmOps:
    """The algorithms of an address space, one slot each: one can be replaced (or judged) without touching callers.

    `mm.system.mm_ops` is built once, in mm/system.py, from the modules' own functions; every caller goes through
    `mm.ops.NAME(...)`.
    """

    __slots__ = (
        "do_wp_page",
        "expand_stack",
        "find_vma",
        "find_vma_links",
        "handle_mm_fault",
        "unmapped_area",
        "unmapped_area_topdown",
        "vma_link_rb",
        "vma_merge",
        "vmacache_find",
        "vmacache_update",
    )

    do_wp_page: Callable[[VmAreaStruct, MmStruct, int, int, int, int], int]
    expand_stack: Callable[[VmAreaStruct, int], int]
    find_vma: Callable[[MmStruct, int], VmAreaStruct | None]
    find_vma_links: Callable[..., Any]
    vmacache_find: Callable[[MmStruct, int], VmAreaStruct | None]
    vmacache_update: Callable[[MmStruct, int, VmAreaStruct], None]
    vma_link_rb: Callable[[MmStruct, VmAreaStruct, Any, bool], None]
    vma_merge: Callable[..., VmAreaStruct | None]
    unmapped_area: Callable[..., int]
    unmapped_area_topdown: Callable[..., int]
    handle_mm_fault: Callable[[VmAreaStruct, int, int], int]


class TaskStruct:
    """What mm/ needs of a task (struct task_struct). guest/ derives its `Task` from it; `system.current` runs."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.pid = 0
        self.comm = ""
        self.mm: MmStruct | None = None
        self.vmacache: list[VmAreaStruct | None] = [None, None, None, None]
        self.vmacache_seqnum = 0
        self.vmacache_find_calls = 0  # statistics: lookups in the cache, and those it answered
        self.vmacache_find_hits = 0
        self.rss_stat = [0, 0, 0, 0]  # SPLIT_RSS_COUNTING: not yet added to mm.rss_stat
        self.rss_events = 0
        self.min_flt = 0
        self.maj_flt = 0
        self.flags = 0  # PF_*
        self.personality = 0
        self.mempolicy: Any = None  # set_mempolicy(2): a Mempolicy, or None for the default
        self.rlim: list[list[int]] = []  # [soft, hard] by RLIMIT_*; shared by the threads of a process
        self.cap_effective = (1 << 40) - 1  # bit n: CAP n
        self.userfaults: list[Any] = []  # what the task waits for before it goes on, in order (userfaultfd.py)

    def wait_for_userfault(self, wait: Any) -> None:
        """The task shall wait for one thing more. guest/ overrides it, and sees to the sleep."""
        self.userfaults.append(wait)

    def userfault_woken(self) -> None:
        """Something the task waits for has come. guest/ overrides it."""

    def userfault_completed(self, key: tuple[int, ...]) -> bool:
        """This call has waited for `key` already: it is made again now."""
        return False

    def randomize_page(self, start: int, length: int) -> int:
        """A random address, page aligned, in [start, start + length); `start` where addresses are not randomised."""
        return start

    def fatal_signal_pending(self) -> bool:
        """The task is about to be killed."""
        return False
