"""Moving the borders of areas: the one routine behind merging, splitting, growing and shrinking (__vma_adjust).

`_vma_adjust` gives one area new borders and keeps everything that indexes areas in step: address tree and its gaps,
list, the file's i_mmap, the trees of the anon_vmas, map_count, highest_vm_end and the caches. What else it does follows
from the new end, in one of four ways (V is the area, N its successor, I a new area):

    insert given           VVVVVVVV     -->  VVVVIIII   split: I takes what V gives up
    end reaches N's end    VVVVNNNN     -->  VVVVVVVV   N is absorbed, and perhaps the area after it (merge 1, 6, 7);
                           VVVVNNNN     -->  NNNNNNNN   or V is, when the caller says that N shall survive (merge 8)
    end lies within N      VVVVNNNN     -->  VVVVVVNN   the border moves up (merge 5)
    end lies within V      VVVVNNNN     -->  VVNNNNNN   the border moves down (merge 4)
    else                   VVVV....     -->  VVVVVV..   V grows into, or shrinks from, free space

Pages move from the area that shrinks ("exporter") to the one that grows ("importer"), so the importer joins the
exporter's anon_vmas first: at every moment each anonymous page can be found through its anon_vma's tree.

Order matters where it can be seen: a node must leave an interval tree before its borders change; the survivor is put
back before the absorbed one leaves; gaps are corrected last, when the list is final.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno, KernelBug
from mm.interval_tree import (
    anon_vma_interval_tree_insert,
    anon_vma_interval_tree_remove,
    vma_interval_tree_insert,
    vma_interval_tree_remove,
)
from mm.rmap import anon_vma_clone, anon_vma_merge
from mm.types import VmAreaStruct
from mm.util import fput
from mm.vma_tree import _insert_vm_struct, _remove_shared_vm_struct, _vma_link_file, _vma_unlink, vma_gap_update

if TYPE_CHECKING:
    from mm.types import MmStruct


def vm_area_dup(orig: VmAreaStruct) -> VmAreaStruct:
    """A copy of an area that is linked nowhere yet."""
    new = VmAreaStruct(orig.vm_mm, orig.vm_start, orig.vm_end, orig.vm_flags, orig.vm_page_prot, orig.vm_pgoff)
    new.rb_subtree_gap = orig.rb_subtree_gap
    new.anon_vma = orig.anon_vma
    new.vm_ops = orig.vm_ops
    new.vm_file = orig.vm_file
    new.vm_private_data = orig.vm_private_data
    new.vm_policy = orig.vm_policy
    new.vm_userfaultfd_ctx = orig.vm_userfaultfd_ctx
    return new


def _vma_adjust(
    vma: VmAreaStruct,
    start: int,
    end: int,
    pgoff: int,
    insert: VmAreaStruct | None = None,
    expand: VmAreaStruct | None = None,
) -> None:
    """Give `vma` the borders [start, end) and page offset `pgoff`; see the chapter above for the rest.

    Args:
        vma: the area to change; gone afterwards where `expand` is its successor and `end` covers both.
        insert: area split off, complete but not linked.
        expand: of two merging areas the one that survives; None when nothing is merged.
    """
    after = vma.vm_next
    if vma.vm_mm.deposited:  # there are huge entries, which must not cross a border
        from mm.huge_memory import vma_adjust_trans_huge

        adjust_next = end - after.vm_start if after is not None and after.vm_start < end < after.vm_end else 0
        vma_adjust_trans_huge(vma, start, end, adjust_next)
    if insert is not None or after is None or vma.vm_end <= end <= after.vm_start:
        _move_borders(vma, start, end, pgoff, None, insert)
    elif end >= after.vm_end:
        _absorb(vma, start, end, pgoff, expand)
    else:
        # The border between two areas moves, to inside either. The kernel distinguishes by the sign of the move; what
        # is different is only which of the two imports pages.
        if end > after.vm_start:
            _import_anon_vmas(vma, after)
        else:
            _import_anon_vmas(after, vma)
        _move_borders(vma, start, end, pgoff, after, None)
    system = vma.vm_mm.system
    if system.listener is not None or system.validate_level:
        _report(vma if expand is None else expand)


def _report(vma: VmAreaStruct) -> None:
    """Event and check after a change."""
    system = vma.vm_mm.system
    if system.listener is not None:
        from mm.events import VmaAdjust

        system.listener(VmaAdjust.of(vma))
    if system.validate_level:
        from mm.validate import validate_areas

        validate_areas(vma.vm_mm)


def set_vma_flags(vma: VmAreaStruct, flags: int) -> None:
    """Give a whole area other flags."""
    system = vma.vm_mm.system
    changed = vma.vm_flags != flags
    vma.vm_flags = flags
    if changed and system.listener is not None:
        from mm.events import VmaFlags

        system.listener(VmaFlags.of(vma))


def _import_anon_vmas(importer: VmAreaStruct, exporter: VmAreaStruct) -> None:
    """Before pages of `exporter` come under `importer`: make them findable there."""
    if exporter.anon_vma is not None and importer.anon_vma is None:
        importer.anon_vma = exporter.anon_vma
        anon_vma_clone(importer, exporter)


def _move_borders(
    vma: VmAreaStruct,
    start: int,
    end: int,
    pgoff: int,
    adjusted: VmAreaStruct | None,
    insert: VmAreaStruct | None,
) -> None:
    """Set the borders of `vma`, move the start of its successor `adjusted` along, or link what was split off.

    adjusted and insert exclude each other; without both, vma grows into or shrinks from free space.
    """
    mm = vma.vm_mm
    file = vma.vm_file
    if file is not None:
        if insert is not None:
            _vma_link_file(insert)
        vma_interval_tree_remove(vma.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
        if adjusted is not None:
            vma_interval_tree_remove(adjusted.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
    for avc in vma.anon_vma_chain:
        anon_vma_interval_tree_remove(avc, avc.anon_vma.rb_root)
    if adjusted is not None:
        for avc in adjusted.anon_vma_chain:
            anon_vma_interval_tree_remove(avc, avc.anon_vma.rb_root)

    start_changed = start != vma.vm_start
    end_changed = end != vma.vm_end
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff
    if adjusted is not None:
        adjusted.vm_pgoff += (end - adjusted.vm_start) >> mm.arch.page_shift
        adjusted.vm_start = end

    if file is not None:
        if adjusted is not None:
            vma_interval_tree_insert(adjusted.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
        vma_interval_tree_insert(vma.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
    if insert is not None:
        _insert_vm_struct(mm, insert)  # updates the gaps of both halves and of the area behind
    else:
        if start_changed:
            vma_gap_update(vma)
        if end_changed:
            if vma.vm_next is None:
                mm.highest_vm_end = end
            elif adjusted is None:
                vma_gap_update(vma.vm_next)
            # A successor that moved along still has no gap below it.
    for avc in vma.anon_vma_chain:
        anon_vma_interval_tree_insert(avc, avc.anon_vma.rb_root)
    if adjusted is not None:
        for avc in adjusted.anon_vma_chain:
            anon_vma_interval_tree_insert(avc, avc.anon_vma.rb_root)


def _absorb(vma: VmAreaStruct, start: int, end: int, pgoff: int, expand: VmAreaStruct | None) -> None:
    """Let one of `vma` and its successor take in the other (and merge case 6: the successor's successor, too)."""
    mm = vma.vm_mm
    after = vma.vm_next
    if after is None:
        raise KernelBug(f"{vma!r} has nothing to merge with", mm)
    if after is expand:
        # Case 8: the permissions are the successor's, so it is the one to keep: rmap walks that do not hold the
        # mmap lock look at vm_page_prot, and must never see the wrong one for a page.
        _import_anon_vmas(after, vma)
        _take_in(after, start, end, pgoff, vma)
        vma_gap_update(after)
        return
    second = None
    if end > after.vm_end:
        second = after.vm_next
    exporter = second if second is not None and after.anon_vma is None else after
    _import_anon_vmas(vma, exporter)
    _take_in(vma, start, after.vm_end, pgoff, after)
    if second is not None:
        _take_in(vma, start, second.vm_end, pgoff, second)
    if vma.vm_next is not None:
        vma_gap_update(vma.vm_next)


def _take_in(vma: VmAreaStruct, start: int, end: int, pgoff: int, victim: VmAreaStruct) -> None:
    """`vma` gets the borders [start, end), which cover its neighbour `victim`; victim goes."""
    mm = vma.vm_mm
    file = vma.vm_file
    for avc in vma.anon_vma_chain:
        anon_vma_interval_tree_remove(avc, avc.anon_vma.rb_root)
    if file is not None:
        vma_interval_tree_remove(vma.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff
    if file is not None:
        vma_interval_tree_insert(vma.shared, file.f_mapping.i_mmap)  # type: ignore[arg-type]
    _vma_unlink(mm, victim)
    if file is not None:
        _remove_shared_vm_struct(victim, file.f_mapping)
    for avc in vma.anon_vma_chain:
        anon_vma_interval_tree_insert(avc, avc.anon_vma.rb_root)
    if file is not None:
        fput(file)
    if victim.anon_vma is not None:
        anon_vma_merge(vma, victim)
    mm.map_count -= 1
    if mm.system.listener is not None:
        from mm.events import VmaErase

        mm.system.listener(VmaErase.of(victim))


def _split_vma(mm: MmStruct, vma: VmAreaStruct, addr: int, new_below: bool) -> None:
    """Cut `vma` at `addr` (page aligned, inside it), without asking for the number of areas.

    `vma` keeps the part above addr where `new_below`, else the part below; the other part is a new area.
    Raises Errno(EINVAL) where the owner can not have a border there (vm_ops->split).
    """
    system = mm.system
    if vma.vm_ops is not None:
        may_split = getattr(vma.vm_ops, "split", None)
        if may_split is not None:
            may_split(vma, addr)
    if system.listener is not None:
        from mm.events import VmaInsert, VmaSplit

        system.listener(VmaSplit(vma.vm_start, vma.vm_end, vma.vm_flags, addr, mm.pgd))
    new = vm_area_dup(vma)
    pages = (addr - vma.vm_start) >> mm.arch.page_shift
    if new_below:
        new.vm_end = addr
    else:
        new.vm_start = addr
        new.vm_pgoff += pages
    anon_vma_clone(new, vma)
    if new.vm_file is not None:
        new.vm_file.f_count += 1
    ops = new.vm_ops
    if ops is not None and ops.open is not None:
        ops.open(new)
    if new_below:
        _vma_adjust(vma, addr, vma.vm_end, vma.vm_pgoff + pages, new)
    else:
        _vma_adjust(vma, vma.vm_start, addr, vma.vm_pgoff, new)
    if system.listener is not None:
        system.listener(VmaInsert.of(new))


def split_vma(mm: MmStruct, vma: VmAreaStruct, addr: int, new_below: bool) -> None:
    """`_split_vma` for callers that leave one area more behind.

    Raises:
        Errno: ENOMEM at sysctl_max_map_count areas.
    """
    if mm.map_count >= mm.system.sysctl_max_map_count:
        raise Errno(errno.ENOMEM)
    _split_vma(mm, vma, addr, new_below)
