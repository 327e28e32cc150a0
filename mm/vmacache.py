"""Four remembered VMAs per task, asked before the tree is (mm/vmacache.c).

Programs touch the same few areas again and again, so each task remembers the last VMA found for each of four groups of
addresses. The group is the address's page-middle-directory number modulo 4: neighbours share a slot, but stack, heap,
code and libraries usually do not. A slot holds any VMA that ever answered for its group, so a lookup tries all four,
its own first.

    address 7f12_3456_7890 --> slot (address >> pmd_shift) & 3

The slots hold pointers to VMAs that may be freed meanwhile. No one clears them: removing a VMA raises the mm's sequence
number (`_vma_unlink`, vma_tree.py), and a task whose own number differs forgets all four before it looks.

Only the current task's own mm is cached: looking into another process's mm neither uses nor fills a cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm.types import MmStruct, TaskStruct, VmAreaStruct


def vmacache_flush(task: TaskStruct) -> None:
    """Forget all four slots."""
    task.vmacache[:] = (None, None, None, None)


def vmacache_update(mm: MmStruct, addr: int, newvma: VmAreaStruct) -> None:
    """Remember that a search for `addr` ended at `newvma` (which may start above addr)."""
    current = mm.system.current
    if current is not None and current.mm is mm:
        current.vmacache[(addr >> mm.arch.pmd_shift) & 3] = newvma


def vmacache_find(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """The cached VMA that contains `addr`, or None. A stale cache is flushed on the way."""
    current = mm.system.current
    if current is None or current.mm is not mm:
        return None
    current.vmacache_find_calls += 1
    slots = current.vmacache
    if mm.vmacache_seqnum != current.vmacache_seqnum:
        current.vmacache_seqnum = mm.vmacache_seqnum
        slots[:] = (None, None, None, None)
        return None
    slot = addr >> mm.arch.pmd_shift
    for _ in slots:
        vma = slots[slot & 3]
        if vma is not None and vma.vm_start <= addr < vma.vm_end:
            current.vmacache_find_hits += 1
            return vma
        slot += 1
    return None
