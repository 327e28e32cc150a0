"""Exercise 3: vma_merge, all eight cases.

When a range of memory is mapped, or gets other flags, it may fit its neighbours so well that they become one area. A is
the range, P the area before it, N the one after it or around it, X the one after that. One character is one page:

    a range in free space            a range at the edge of an area     a range that is a whole area

        AAAA                             AAAA                               AAAA
    PPPP    NNNN                     PPPPPPNNNNNN   P ends in A's end   PPPPNNNNXXXX

    1   PPPPPPPPPPPP                 4   PPNNNNNNNN   A was P's end     6   PPPPPPPPPPPP
    2   PPPPPPPPNNNN                 5   PPPPPPNNNN   A was N's start   7   PPPPPPPPXXXX
    3   PPPPNNNNNNNN                                                    8   PPPPXXXXXXXX

    vma_merge(mm, prev, addr, end, vm_flags, anon_vma, file, pgoff, policy, uffd_ctx) -> the area that A is in, or None

    mm          the address space; mm.mmap is its first area, vma.vm_next the one after vma
    prev        the last area that starts below addr (in case 4, the one whose end A is), or None
    addr, end   A = [addr, end), bytes
    vm_flags, anon_vma, file, pgoff, policy, uffd_ctx      what A has, or is about to have

You decide, a given function commits: `vma_adjust(vma, start, end, pgoff, None, survivor)` gives `vma` new borders and a
new page offset. If end reaches into or over its successor, that area gives up the pages or is swallowed (so is the one
after it, in case 6); if end is lower than before, the successor takes the pages. `survivor` is the area that A is part
of afterwards. So in case 1 it is vma_adjust(prev, prev.vm_start, next.vm_end, prev.vm_pgoff, None, prev).

Two ranges may be one area when all of this holds:
  1. vm_flags are the same, but for the bit vma.vm_mm.arch.VM_SOFTDIRTY
  2. vm_file is the same object (or None)
  3. page offsets continue: vm_pgoff of the upper one is that of the lower one plus its pages (mm.arch.page_shift)
  4. vm_ops is None, or vm_ops.close is None, in the existing area
  5. vm_policy is equal, and vm_userfaultfd_ctx is the same object
  6. anon_vma is the same; or one of the two is None and the existing area has exactly one entry in anon_vma_chain.
     (That is 5.10's rule, word for word: two ranges without any anon_vma have "the same".)
To join both neighbours they must fit each other too: the same anon_vma, or one of them None. If they do not, P wins.
And a range with one of VM_SPECIAL (mm.flags) never merges.

Rules
  1. Do not change anything before you know what to do; None means nothing was changed.
  2. Only the neighbours matter: no search.

Hints
  - Answer four questions first: which area comes after prev? Is A exactly that area's end (so N is whole)? Can A follow
    prev? Can A precede the area that starts at end?
  - Which area does the border between two areas belong to in case 4, and in case 8?

Try it:  pagewalk grade vma_merge.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import VM_SPECIAL
from mm.vma_adjust import _vma_adjust as vma_adjust

if TYPE_CHECKING:
    from mm.types import AnonVma, File, MmStruct, VmAreaStruct

EXERCISE = "vma_merge"
__all__ = ["VM_SPECIAL", "vma_adjust", "vma_merge"]


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
    """Join [addr, end) to its neighbours. This one never does: programs run, with more areas than Linux would have."""
    return None
