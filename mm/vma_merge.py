"""Merging areas: when a new or changed range can join its neighbours, and which of eight ways it is (vma_merge).

A is the range that is being mapped or changed, P the area before it, N the area after A or the one A lies in, X the
area after that. One character is one page:

    a range in free space            a range at the edge of an area     a range that is a whole area

        AAAA                             AAAA                               AAAA
    PPPP    NNNN                     PPPPPPNNNNNN   P ends in A's end   PPPPNNNNXXXX

    1   PPPPPPPPPPPP                 4   PPNNNNNNNN   A was P's end     6   PPPPPPPPPPPP
    2   PPPPPPPPNNNN                 5   PPPPPPNNNN   A was N's start   7   PPPPPPPPXXXX
    3   PPPPNNNNNNNN                                                    8   PPPPXXXXXXXX

(`tests/mm/test_vma_merge.py` runs these pictures.) Two areas may join when they are alike in everything that matters
(`is_mergeable_vma`), their page offsets continue, and they have one anon_vma between them (`is_mergeable_anon_vma`).

The decision has three steps. Predicates ask whether A can follow P and whether A can precede N. From them follows the
plan: case number, survivor, new borders. `_vma_adjust` commits it. Nothing is changed before the plan stands.

VM_SOFTDIRTY does not keep areas apart: a merged area simply is soft-dirty if the callers make it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import VM_SPECIAL
from mm.vma_adjust import _vma_adjust, split_vma

if TYPE_CHECKING:
    from mm.types import AnonVma, File, MmStruct, VmAreaStruct


def is_mergeable_vma(vma: VmAreaStruct, file: File | None, vm_flags: int, uffd_ctx: Any) -> bool:
    """Is `vma` alike in flags, file and owner? An owner that wants to hear of the end (`close`) stays alone."""
    if (vma.vm_flags ^ vm_flags) & ~vma.vm_mm.arch.VM_SOFTDIRTY:
        return False
    if vma.vm_file is not file:
        return False
    ops = vma.vm_ops
    if ops is not None and ops.close is not None:
        return False
    return vma.vm_userfaultfd_ctx is uffd_ctx


def is_mergeable_anon_vma(anon_vma1: AnonVma | None, anon_vma2: AnonVma | None, vma: VmAreaStruct | None) -> bool:
    """May pages of both anon_vmas live in one area? Yes if they are one, or in some cases if one of them is missing.

    `vma`, the area that is joined, must then have a chain of exactly one entry. So an area that inherited its chain by
    fork takes no stranger, who would be searched for the family's pages for ever; and an area that never had a page
    takes no range that has some (nobody meant that, but 5.10 does it).
    """
    if (anon_vma1 is None or anon_vma2 is None) and (vma is None or len(vma.anon_vma_chain) == 1):
        return True
    return anon_vma1 is anon_vma2


def can_vma_merge_before(
    vma: VmAreaStruct, vm_flags: int, anon_vma: AnonVma | None, file: File | None, pgoff: int, uffd_ctx: Any
) -> bool:
    """Can a range whose end has page offset `pgoff` join `vma` from below?"""
    return (
        is_mergeable_vma(vma, file, vm_flags, uffd_ctx)
        and is_mergeable_anon_vma(anon_vma, vma.anon_vma, vma)
        and vma.vm_pgoff == pgoff
    )


def can_vma_merge_after(
    vma: VmAreaStruct, vm_flags: int, anon_vma: AnonVma | None, file: File | None, pgoff: int, uffd_ctx: Any
) -> bool:
    """Can a range whose start has page offset `pgoff` join `vma` from above?"""
    return (
        is_mergeable_vma(vma, file, vm_flags, uffd_ctx)
        and is_mergeable_anon_vma(anon_vma, vma.anon_vma, vma)
        and vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> vma.vm_mm.arch.page_shift) == pgoff
    )


# (case, area to adjust, new start, new end, new pgoff, survivor)
_Plan = tuple[int, "VmAreaStruct", int, int, int, "VmAreaStruct"]


def _plan_merge(
    mm: MmStruct,
    prev: VmAreaStruct | None,
    addr: int,
    end: int,
    vm_flags: int,
    anon_vma: AnonVma | None,
    file: File | None,
    pgoff: int,
    policy: Any,
    uffd_ctx: Any,
) -> _Plan | None:
    """What merging [addr, end) would do; None where it cannot merge. Changes nothing."""
    area = prev.vm_next if prev is not None else mm.mmap
    whole = area is not None and area.vm_end == end  # A is an existing area: cases 6, 7, 8
    following = area.vm_next if area is not None and whole else area
    end_pgoff = pgoff + ((end - addr) >> mm.arch.page_shift)
    joins_next = (
        following is not None
        and end == following.vm_start
        and following.vm_policy == policy
        and can_vma_merge_before(following, vm_flags, anon_vma, file, end_pgoff, uffd_ctx)
    )
    if (
        prev is not None
        and prev.vm_end == addr
        and prev.vm_policy == policy
        and can_vma_merge_after(prev, vm_flags, anon_vma, file, pgoff, uffd_ctx)
    ):
        if joins_next and following is not None and is_mergeable_anon_vma(prev.anon_vma, following.anon_vma, None):
            return 6 if whole else 1, prev, prev.vm_start, following.vm_end, prev.vm_pgoff, prev
        if whole:
            case = 7
        else:
            case = 5 if area is not None and area.vm_start < end else 2
        return case, prev, prev.vm_start, end, prev.vm_pgoff, prev
    if not joins_next or following is None:
        return None
    if prev is not None and addr < prev.vm_end:
        return 4, prev, prev.vm_start, addr, prev.vm_pgoff, following
    changed = area if whole and area is not None else following
    return (
        8 if whole else 3,
        changed,
        addr,
        following.vm_end,
        following.vm_pgoff - ((end - addr) >> mm.arch.page_shift),
        following,
    )


def vma_merge(
    mm: MmStruct,
    prev: VmAreaStruct | None,
    addr: int,
    end: int,
    vm_flags: int,
    anon_vma: AnonVma | None,
    file: File | None,
    pgoff: int,
    policy: Any,
    uffd_ctx: Any,
) -> VmAreaStruct | None:
    """Join the range [addr, end), about to have `vm_flags`, to its neighbours; the area it is now part of, or None.

    Args:
        mm: the address space.
        prev: the area before the range, or the one whose tail it is (case 4); None at the start.
        addr: start, bytes, page aligned, above prev's start.
        end: end, not above the end of the area the range lies in.
        vm_flags: flags the range shall have.
        anon_vma: where the range has anonymous pages already, else None.
        file: mapped file or None.
        pgoff: page offset of addr.
        policy: NUMA policy.
        uffd_ctx: userfaultfd context.
    """
    if vm_flags & VM_SPECIAL:
        return None
    plan = _plan_merge(mm, prev, addr, end, vm_flags, anon_vma, file, pgoff, policy, uffd_ctx)
    if plan is None:
        return None
    case, vma, start, new_end, new_pgoff, survivor = plan
    if mm.system.listener is not None:
        from mm.events import VmaMerge

        mm.system.listener(VmaMerge(addr, end, vm_flags, case, mm.pgd))
    _vma_adjust(vma, start, new_end, new_pgoff, None, survivor)
    return survivor


def vma_modify(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, vm_flags: int, policy: Any
) -> VmAreaStruct:
    """Before [start, end), a part of `vma`, gets these flags and policy: join it to neighbours or cut it out.

    What mprotect, mlock, madvise and mbind begin with; the kernel gave it this name later. The area returned covers
    the range, and where nothing was merged, nothing else; its flags and policy are the caller's to set.

    Raises:
        Errno: ENOMEM at sysctl_max_map_count areas; the first of two cuts may stand then.
    """
    mm = vma.vm_mm
    pgoff = vma.vm_pgoff + ((start - vma.vm_start) >> mm.arch.page_shift)
    merged = mm.ops.vma_merge(
        mm, prev, start, end, vm_flags, vma.anon_vma, vma.vm_file, pgoff, policy, vma.vm_userfaultfd_ctx
    )
    if merged is not None:
        return merged
    if start != vma.vm_start:
        split_vma(mm, vma, start, True)
    if end != vma.vm_end:
        split_vma(mm, vma, end, False)
    return vma
