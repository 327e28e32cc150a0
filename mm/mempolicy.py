"""Memory policies (mm/mempolicy.c): on which nodes pages are to be allocated.

The machine has one node, so a policy never changes where a page goes. What remains is all that a program can see: which
policies are accepted, what is reported back, that areas with different policies do not merge, and that asking for a
move touches page-table entries. Node masks are ints, bit n for node n; `NODES_WITH_MEMORY` says which exist.

    task.mempolicy    set_mempolicy(2), inherited by fork
    vma.vm_policy     mbind(2)
    shmem inode       mbind(2) of a shared memory file: by page offset, for everyone who maps it
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno
from mm.flags import CAP_SYS_NICE, PG_LRU, PG_RESERVED, VM_IO, VM_PFNMAP, VM_WRITE
from mm.lru import lru_add_drain
from mm.memory_cow import vm_normal_page
from mm.page_rmap import rmap_walk, set_page_dirty
from mm.pgtable import pte_range, report_pte, walk_pmds
from mm.shmem import ShmemInodeInfo
from mm.util import capable
from mm.vma_merge import vma_modify

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import MmStruct, Page, VmAreaStruct

_MASK64 = 0xFFFFFFFFFFFFFFFF
NODES_WITH_MEMORY = 1  # node_states[N_MEMORY], and cpuset_current_mems_allowed
NR_NODE_IDS = 1

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_MAX = range(6)
MPOL_F_STATIC_NODES = 1 << 15
MPOL_F_RELATIVE_NODES = 1 << 14
MPOL_MODE_FLAGS = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES
MPOL_F_LOCAL = 1 << 1
MPOL_F_NODE = 1 << 0
MPOL_F_ADDR = 1 << 1
MPOL_F_MEMS_ALLOWED = 1 << 2
MPOL_MF_STRICT = 1 << 0
MPOL_MF_MOVE = 1 << 1
MPOL_MF_MOVE_ALL = 1 << 2
MPOL_MF_VALID = MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL


class Mempolicy:
    """A policy (struct mempolicy). Never changed once made, so tasks and areas share it; equal ones let areas merge."""

    __slots__ = ("flags", "mode", "nodes", "user_nodemask")

    def __init__(self, mode: int, flags: int, nodes: int, user_nodemask: int) -> None:
        self.mode = mode  # MPOL_PREFERRED, BIND or INTERLEAVE
        self.flags = flags  # MPOL_MODE_FLAGS, MPOL_F_LOCAL
        self.nodes = nodes  # v.nodes, or the preferred node's bit
        self.user_nodemask = user_nodemask  # as given, where a mode flag wants it remembered; else 0

    def _key(self) -> tuple[int, int, int, int]:
        return self.mode, self.flags, self.nodes, self.user_nodemask

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mempolicy) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def mpol_new(mode: int, flags: int, nodes: int) -> Mempolicy | None:
    """The policy a program asks for; None is the default one (mpol_new() and mpol_set_nodemask()).

    Raises:
        Errno: EINVAL where the nodes do not go with the mode, or none of them exists.
    """
    if mode == MPOL_DEFAULT:
        if nodes:
            raise Errno(errno.EINVAL)
        return None
    if mode == MPOL_LOCAL:
        if nodes or flags & MPOL_MODE_FLAGS:
            raise Errno(errno.EINVAL)
        mode = MPOL_PREFERRED
    elif not nodes and (mode != MPOL_PREFERRED or flags & MPOL_MODE_FLAGS):
        raise Errno(errno.EINVAL)
    if not nodes:
        return Mempolicy(mode, flags | MPOL_F_LOCAL, 0, 0)
    # Relative nodes are counted modulo the number of allowed ones, which is one.
    usable = NODES_WITH_MEMORY if flags & MPOL_F_RELATIVE_NODES else nodes & NODES_WITH_MEMORY
    if not usable:
        raise Errno(errno.EINVAL)
    return Mempolicy(mode, flags, usable, nodes if flags & MPOL_MODE_FLAGS else 0)


# -- shared policies ---------------------------------------------------------------------------------------------------


def _shared_info(vma: VmAreaStruct) -> ShmemInodeInfo | None:
    """Where policies of the area's file live, for shared memory files."""
    if vma.vm_ops is None or vma.vm_file is None:
        return None
    info = vma.vm_file.f_mapping.private
    return info if isinstance(info, ShmemInodeInfo) else None


def mpol_set_shared_policy(info: ShmemInodeInfo, vma: VmAreaStruct, policy: Mempolicy | None) -> None:
    """Set the policy of the file's pages that `vma` shows, in place of what was set there."""
    start = vma.vm_pgoff
    end = start + ((vma.vm_end - vma.vm_start) >> vma.vm_mm.arch.page_shift)
    kept = []
    for first, last, old in info.policy:
        if first < start:
            kept.append((first, min(last, start), old))
        if last > end:
            kept.append((max(first, end), last, old))
    if policy is not None:
        kept.append((start, end, policy))
    info.policy = sorted(kept, key=lambda node: node[0])


def vma_get_policy(vma: VmAreaStruct, addr: int) -> Mempolicy | None:
    """The policy for the page at `addr`: the file's, or the area's."""
    info = _shared_info(vma)
    if info is None:
        policy: Mempolicy | None = vma.vm_policy
        return policy
    index = ((addr - vma.vm_start) >> vma.vm_mm.arch.page_shift) + vma.vm_pgoff
    for first, last, found in info.policy:
        if first <= index < last:
            shared: Mempolicy = found
            return shared
    return None


def vma_replace_policy(vma: VmAreaStruct, policy: Mempolicy | None) -> None:
    """Give an area its policy."""
    info = _shared_info(vma)
    if info is not None:
        mpol_set_shared_policy(info, vma, policy)
    vma.vm_policy = policy


# -- mbind -------------------------------------------------------------------------------------------------------------


def vma_migratable(vma: VmAreaStruct) -> bool:
    """Can pages of this area move to another node?"""
    return not vma.vm_flags & (VM_IO | VM_PFNMAP)


def queue_pages_range(mm: MmStruct, start: int, end: int, nodes: int, flags: int, hole_ok: bool) -> list[Page]:
    """The pages of [start, end) that lie outside `nodes` and can be moved.

    Raises:
        Errno: EFAULT where the range has a hole (unless `hole_ok`) or nothing is mapped there at all; EIO where with
            MPOL_MF_STRICT a page lies outside and is not to be moved.
    """
    first = None
    found: list[Page] = []
    misplaced = not nodes & 1  # every page lies on node 0
    vma = mm.ops.find_vma(mm, start)
    while vma is not None and vma.vm_start < end:
        if first is None:
            first = vma
            if not hole_ok and start < vma.vm_start:
                raise Errno(errno.EFAULT)
        following = vma.vm_next
        if not hole_ok and vma.vm_end < end and (following is None or vma.vm_end < following.vm_start):
            raise Errno(errno.EFAULT)
        if flags & MPOL_MF_VALID and misplaced and (vma_migratable(vma) or flags & MPOL_MF_STRICT):
            _queue_pages(vma, max(start, vma.vm_start), min(end, vma.vm_end), flags, found)
        vma = following
    if first is None:
        raise Errno(errno.EFAULT)
    return found


def _queue_pages(vma: VmAreaStruct, start: int, end: int, flags: int, found: list[Page]) -> None:
    """queue_pages_pte_range() over one area. Raises Errno(EIO)."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    for first, last, pmd in walk_pmds(mm, start, end):
        low, high = (pmd, pmd + 1) if arch.pmd_trans_huge(words[pmd]) else pte_range(mm, pmd, first, last)
        for pte in words[low:high].tolist():
            if not pte or not arch.pte_present(pte):
                continue
            page = vm_normal_page(mm, pte)
            if page is None or page.flags & PG_RESERVED:
                continue
            if not flags & (MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) or not vma_migratable(vma):
                raise Errno(errno.EIO)
            if flags & MPOL_MF_MOVE_ALL or page.mapcount == 1:
                if page.flags & PG_LRU:
                    found.append(page)
                elif flags & MPOL_MF_STRICT:
                    raise Errno(errno.EIO)


def migrate_page(system: System, page: Page) -> None:
    """Move a page within its node: the frame may stay, but every entry is made anew, old and clean."""
    arch = system.arch
    words = system.words
    for vma, address, index in list(rmap_walk(system, page)):
        pte = words[index]
        if arch.pte_dirty(pte):
            set_page_dirty(page)
        entry = arch.pte_mkold(arch.mk_pte(page.pfn, vma.vm_page_prot))
        if arch.pte_soft_dirty(pte):
            entry = arch.pte_mksoft_dirty(entry)
        if arch.pte_write(pte) and vma.vm_flags & VM_WRITE:
            entry = arch.pte_mkwrite(entry)
        words[index] = entry
        vma.vm_mm.tlb_flush_pending = True
        if system.listener is not None:
            report_pte(vma.vm_mm, address, pte, entry)


def mbind_range(mm: MmStruct, start: int, end: int, policy: Mempolicy | None) -> None:
    """Set the policy of the areas in [start, end), splitting and merging them. Raises Errno(ENOMEM)."""
    vma = mm.ops.find_vma(mm, start)
    if vma is None:
        return
    prev = vma if start > vma.vm_start else vma.vm_prev
    while vma is not None and vma.vm_start < end:
        if vma.vm_policy != policy:
            vma = _mbind_area(vma, prev, max(start, vma.vm_start), min(end, vma.vm_end), policy)
        prev = vma
        vma = vma.vm_next


def _mbind_area(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, policy: Mempolicy | None
) -> VmAreaStruct:
    """mbind_range() for [start, end) of one area; the area that covers it then."""
    vma = vma_modify(vma, prev, start, end, vma.vm_flags, policy)
    vma_replace_policy(vma, policy)
    return vma


def do_mbind(mm: MmStruct, start: int, length: int, mode: int, mode_flags: int, nodes: int, flags: int) -> None:
    """Set the policy of [start, start + length), and move the pages that contradict it.

    Raises:
        Errno: EINVAL, EPERM (MPOL_MF_MOVE_ALL without CAP_SYS_NICE), EFAULT at a hole, EIO by MPOL_MF_STRICT, ENOMEM.
    """
    if flags & ~MPOL_MF_VALID:
        raise Errno(errno.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not capable(mm, CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    arch = mm.arch
    if start & (arch.page_size - 1):
        raise Errno(errno.EINVAL)
    if mode == MPOL_DEFAULT:
        flags &= ~MPOL_MF_STRICT
    end = (start + ((length + arch.page_size - 1) & arch.page_mask & _MASK64)) & _MASK64
    if end < start:
        raise Errno(errno.EINVAL)
    if end == start:
        return
    policy = mpol_new(mode, mode_flags, nodes)
    if flags & (MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        lru_add_drain(mm.system)  # migrate_prep()
    pages = queue_pages_range(mm, start, end, nodes, flags, policy is None)
    mbind_range(mm, start, end, policy)
    for page in pages:
        mm.ops.find_vma(mm, start)  # new_page() asks which policy the new frame is for
        migrate_page(mm.system, page)


# -- the task's policy, and queries ------------------------------------------------------------------------------------


def do_get_mempolicy(task: Any, addr: int, flags: int) -> tuple[int, int]:
    """(policy or node, node mask) as get_mempolicy(2) reports them.

    Raises:
        Errno: EINVAL for flags that do not go together, EFAULT where nothing is mapped at `addr`.
    """
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        raise Errno(errno.EINVAL)
    if flags & MPOL_F_MEMS_ALLOWED:
        if flags & (MPOL_F_NODE | MPOL_F_ADDR):
            raise Errno(errno.EINVAL)
        return 0, NODES_WITH_MEMORY
    mm: MmStruct = task.mm
    policy: Mempolicy | None = task.mempolicy
    if flags & MPOL_F_ADDR:
        vma = mm.ops.find_vma(mm, addr)
        if vma is None or addr + 1 <= vma.vm_start:
            raise Errno(errno.EFAULT)
        policy = vma_get_policy(vma, addr)
    elif addr:
        raise Errno(errno.EINVAL)
    if flags & MPOL_F_NODE:
        if flags & MPOL_F_ADDR:
            _lookup_node(mm, addr)
        elif policy is None or policy.mode != MPOL_INTERLEAVE:
            raise Errno(errno.EINVAL)
        value = 0
    else:
        value = MPOL_DEFAULT if policy is None else policy.mode | policy.flags & MPOL_MODE_FLAGS
    if policy is None:
        return value, 0
    return value, policy.user_nodemask if policy.flags & MPOL_MODE_FLAGS else policy.nodes


def _lookup_node(mm: MmStruct, addr: int) -> None:
    """Fault the page at `addr` in, to see which node it is on. Raises Errno(EFAULT)."""
    from mm.gup import FOLL_TOUCH, get_user_pages

    get_user_pages(mm, addr & mm.arch.page_mask, 1, FOLL_TOUCH)


def do_migrate_pages(mm: MmStruct, old: int) -> int:
    """migrate_pages(2) towards node 0: pages on other nodes would move, and there are none. Pages that failed: 0."""
    if old & ~1 and mm.mmap is not None:
        mm.ops.find_vma(mm, mm.mmap.vm_start)  # each walk over the areas starts with a lookup
    return 0


def follow_page_node(mm: MmStruct, addr: int, migratable: bool) -> int:
    """Node of the page mapped at `addr`, or -EFAULT (no area; zero page or hole of anonymous memory) or -ENOENT.

    With `migratable` only areas whose pages could be moved count (add_page_for_migration()).
    """
    vma = mm.ops.find_vma(mm, addr)
    if vma is None or addr < vma.vm_start or (migratable and not vma_migratable(vma)):
        return -errno.EFAULT
    arch = mm.arch
    pte = 0
    for _, _, pmd in walk_pmds(mm, addr & arch.page_mask, (addr & arch.page_mask) + arch.page_size):
        entry = mm.system.words[pmd]
        if arch.pmd_trans_huge(entry):
            pte = entry
        else:
            pte = mm.system.words[pte_range(mm, pmd, addr, addr)[0]]
    if pte and arch.pte_present(pte):
        return -errno.EFAULT if vm_normal_page(mm, pte, peek=True) is None else 0
    return -errno.EFAULT if vma.vm_ops is None or vma.vm_ops.fault is None else -errno.ENOENT
