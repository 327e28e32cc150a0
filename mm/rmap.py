"""anon_vma: finding every area that may map an anonymous page (the object half of Linux's mm/rmap.c).

A file page knows its file, and the file's i_mmap knows who maps it. An anonymous page has no file, so the first fault
of an area gives the area an `AnonVma` to stand in for one: the page points at the AnonVma (`page.mapping`), and the
AnonVma's interval tree holds every VMA in which the page may be mapped. Splitting and forking make new VMAs that may
hold the same old pages, so a VMA belongs to several AnonVmas at once; one `AnonVmaChain` stands for each membership.

    before fork    parent VMA --avc-- A            A.rb_root = {parent}
    after fork     parent VMA --avc-- A            A.rb_root = {parent, child}   old pages: both are searched
                   child  VMA --avc--/
                   child  VMA --avc-- B            B.rb_root = {child}           new pages of the child: only it

`vma.anon_vma` is the one that the VMA's *new* pages will belong to; `vma.anon_vma_chain` is all of them, newest
first. The family of one root shares a lock in the kernel; here `root` only marks the family.

A process that forks, whose child forks, and so on, would grow a chain one AnonVma longer each time. So a clone takes
over an AnonVma that nobody uses for new pages any more (`num_active_vmas` 0) and that has at most one child
(`num_children` below 2): then a page of it is still found by looking at no more than the few VMAs below it.
`num_children` counts the AnonVmas whose parent it is; a root is its own parent and so starts with 1.

Nothing here fails: chains and AnonVmas are not taken from guest RAM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.flags import VM_ACCESS_FLAGS
from mm.interval_tree import anon_vma_interval_tree_insert, anon_vma_interval_tree_remove
from mm.types import AnonVma, AnonVmaChain

if TYPE_CHECKING:
    from mm.types import VmAreaStruct


def get_anon_vma(anon_vma: AnonVma) -> None:
    """One more reference."""
    anon_vma.refcount += 1


def put_anon_vma(anon_vma: AnonVma) -> None:
    """One reference less; the last one also lets go of the root."""
    anon_vma.refcount -= 1
    if anon_vma.refcount == 0 and anon_vma.root is not anon_vma:
        put_anon_vma(anon_vma.root)
    elif anon_vma.refcount < 0:
        raise KernelBug("anon_vma refcount below 0")


def _anon_vma_chain_link(vma: VmAreaStruct, anon_vma: AnonVma) -> None:
    avc = AnonVmaChain(vma, anon_vma)
    vma.anon_vma_chain.insert(0, avc)
    anon_vma_interval_tree_insert(avc, anon_vma.rb_root)


def anon_vma_prepare(vma: VmAreaStruct) -> AnonVma:
    """The anon_vma of `vma`, made before its first anonymous page: a neighbour's, or one of its own."""
    if vma.anon_vma is not None:
        return vma.anon_vma
    anon_vma = find_mergeable_anon_vma(vma)
    if anon_vma is None:
        anon_vma = AnonVma()
        anon_vma.num_children = 1  # a root is its own child
    vma.anon_vma = anon_vma
    _anon_vma_chain_link(vma, anon_vma)
    anon_vma.num_active_vmas += 1
    return anon_vma


def _anon_vma_compatible(a: VmAreaStruct, b: VmAreaStruct) -> bool:
    """Could `a` and `b`, adjacent in this order, become one area some mprotect from now?"""
    arch = a.vm_mm.arch
    return (
        a.vm_end == b.vm_start
        and a.vm_policy == b.vm_policy
        and a.vm_file is b.vm_file
        and not (a.vm_flags ^ b.vm_flags) & ~(VM_ACCESS_FLAGS | arch.VM_SOFTDIRTY)
        and b.vm_pgoff == a.vm_pgoff + ((b.vm_start - a.vm_start) >> arch.page_shift)
    )


def _reusable_anon_vma(old: VmAreaStruct, a: VmAreaStruct, b: VmAreaStruct) -> AnonVma | None:
    """The anon_vma of `old` (one of the neighbours a and b) where the other may share it.

    Only one that `old` did not inherit by fork: sharing must not tie strangers to a whole family.
    """
    if _anon_vma_compatible(a, b) and old.anon_vma is not None and len(old.anon_vma_chain) == 1:
        return old.anon_vma
    return None


def find_mergeable_anon_vma(vma: VmAreaStruct) -> AnonVma | None:
    """The anon_vma of the next, else the previous, area if `vma` might merge with it later: that needs the same one."""
    if vma.vm_next is not None:
        anon_vma = _reusable_anon_vma(vma.vm_next, vma, vma.vm_next)
        if anon_vma is not None:
            return anon_vma
    if vma.vm_prev is not None:
        return _reusable_anon_vma(vma.vm_prev, vma.vm_prev, vma)
    return None


def anon_vma_clone(dst: VmAreaStruct, src: VmAreaStruct) -> None:
    """Enter `dst` into every AnonVma of `src`: it may hold the same pages now (split, move, fork, merge).

    Where dst has no anon_vma yet (fork), it takes over one that nobody uses for new pages, if there is one.
    """
    source_anon_vma = src.anon_vma
    for pavc in reversed(src.anon_vma_chain):
        anon_vma = pavc.anon_vma
        _anon_vma_chain_link(dst, anon_vma)
        if (
            dst.anon_vma is None
            and source_anon_vma is not None
            and anon_vma.num_children < 2
            and anon_vma.num_active_vmas == 0
        ):
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.num_active_vmas += 1


def anon_vma_fork(vma: VmAreaStruct, pvma: VmAreaStruct) -> None:
    """Attach the child's `vma` to all of the parent's AnonVmas, and give it one of its own for pages to come."""
    if pvma.anon_vma is None:
        return
    vma.anon_vma = None  # the copy of the parent's pointer
    anon_vma_clone(vma, pvma)
    if vma.anon_vma is not None:
        return  # took over an unused one
    anon_vma = AnonVma()
    anon_vma.num_active_vmas = 1
    anon_vma.root = pvma.anon_vma.root
    anon_vma.parent = pvma.anon_vma
    get_anon_vma(anon_vma.root)  # a root lives as long as any of its family
    vma.anon_vma = anon_vma
    _anon_vma_chain_link(vma, anon_vma)
    anon_vma.parent.num_children += 1


def unlink_anon_vmas(vma: VmAreaStruct) -> None:
    """Take `vma` out of all its AnonVmas; those that nobody is left in are let go."""
    emptied = []
    for avc in vma.anon_vma_chain:
        anon_vma = avc.anon_vma
        anon_vma_interval_tree_remove(avc, anon_vma.rb_root)
        if anon_vma.rb_root.rb_node is None:
            anon_vma.parent.num_children -= 1
            emptied.append(anon_vma)
    if vma.anon_vma is not None:
        vma.anon_vma.num_active_vmas -= 1
    vma.anon_vma_chain = []
    for anon_vma in emptied:
        if anon_vma.num_children or anon_vma.num_active_vmas:
            raise KernelBug(
                f"anon_vma without areas has {anon_vma.num_children} children, {anon_vma.num_active_vmas} active areas",
                vma.vm_mm,
            )
        put_anon_vma(anon_vma)


def anon_vma_merge(vma: VmAreaStruct, following: VmAreaStruct) -> None:
    """`following` was absorbed by `vma`, which is in all its AnonVmas already."""
    if vma.anon_vma is not following.anon_vma:
        raise KernelBug(f"merged areas {vma!r} and {following!r} have different anon_vmas", vma.vm_mm)
    unlink_anon_vmas(following)
