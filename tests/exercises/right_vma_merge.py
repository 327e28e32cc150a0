"""A student's vma_merge that is right."""

from mm.flags import VM_SPECIAL
from mm.vma_adjust import _vma_adjust as vma_adjust

EXERCISE = "vma_merge"


def same_anon(one, other, vma):
    if one is other:
        return True
    return (one is None or other is None) and (vma is None or len(vma.anon_vma_chain) == 1)


def alike(vma, vm_flags, anon_vma, file, policy, uffd_ctx):
    if (vma.vm_flags ^ vm_flags) & ~vma.vm_mm.arch.VM_SOFTDIRTY:
        return False
    if vma.vm_file is not file:
        return False
    if vma.vm_ops is not None and vma.vm_ops.close is not None:
        return False
    if vma.vm_policy != policy or vma.vm_userfaultfd_ctx is not uffd_ctx:
        return False
    return same_anon(anon_vma, vma.anon_vma, vma)


def vma_merge(mm, prev, addr, end, vm_flags, anon_vma, file, pgoff, policy, uffd_ctx):
    if vm_flags & VM_SPECIAL:
        return None
    shift = mm.arch.page_shift
    pages = (end - addr) >> shift
    around = mm.mmap if prev is None else prev.vm_next
    whole = around is not None and around.vm_end == end
    after = around.vm_next if whole else around

    follows = (
        prev is not None
        and prev.vm_end == addr
        and alike(prev, vm_flags, anon_vma, file, policy, uffd_ctx)
        and prev.vm_pgoff + ((prev.vm_end - prev.vm_start) >> shift) == pgoff
    )
    precedes = (
        after is not None
        and after.vm_start == end
        and alike(after, vm_flags, anon_vma, file, policy, uffd_ctx)
        and pgoff + pages == after.vm_pgoff
    )
    if follows and precedes and same_anon(prev.anon_vma, after.anon_vma, None):
        vma_adjust(prev, prev.vm_start, after.vm_end, prev.vm_pgoff, None, prev)  # cases 1, 6
        return prev
    if follows:
        vma_adjust(prev, prev.vm_start, end, prev.vm_pgoff, None, prev)  # cases 2, 5, 7
        return prev
    if not precedes:
        return None
    if prev is not None and addr < prev.vm_end:
        vma_adjust(prev, prev.vm_start, addr, prev.vm_pgoff, None, after)  # case 4
        return after
    if whole:
        vma_adjust(around, addr, after.vm_end, after.vm_pgoff - pages, None, after)  # case 8
        return after
    vma_adjust(after, addr, after.vm_end, after.vm_pgoff - pages, None, after)  # case 3
    return after
