"""userfaultfd below the descriptor: who waits for what, pages filled, contexts that answer at once, pickling.

What a program sees is compared with Linux by golden/extra/src/uffd.c.
"""

import pickle
from typing import Any

import pytest
from pages_world import ANON, GEOMETRIES, RW, WRITE, World

from mm.errors import Errno, MustSleep
from mm.find_vma import find_vma
from mm.flags import VM_FAULT_NOPAGE, VM_UFFD_MISSING, VM_UFFD_WP
from mm.uaccess import LateCopy, copy_from_user, copy_to_user
from mm.userfaultfd import UserfaultfdCtx, userfaultfd_register
from mm.userfaultfd_copy import mcopy_atomic, mwriteprotect_range


class Queue:
    """Where guest/ keeps sleepers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wake_all(self, key: int = 0) -> int:
        return 0


@pytest.fixture(params=sorted(GEOMETRIES))
def registered(request: Any) -> tuple[World, UserfaultfdCtx, int]:
    w = World(request.param)
    a = w.mmap(8, RW, ANON)
    ctx = UserfaultfdCtx(w.mm, 0, Queue)
    userfaultfd_register(ctx, a, 8 * w.ps, VM_UFFD_MISSING)
    return w, ctx, a


def test_a_fault_waits_and_is_made_again(registered: tuple[World, UserfaultfdCtx, int]) -> None:
    w, ctx, a = registered
    source = w.mmap(1, RW, ANON)
    copy_to_user(w.task, source, b"page" * (w.ps // 4))
    assert w.fault(a + 5, WRITE) is None
    assert w.pte(a) == 0 and w.task.userfaults == ctx.fault_pending_wqh
    wait = w.task.userfaults.pop()
    assert wait.args == (1, a, 0) and wait.start() and wait.retry is not None and wait.retry[2]
    assert mcopy_atomic(ctx, a, source, w.ps, False, w.task, {}) == w.ps
    ctx.wake(a, w.ps)
    assert not wait.start() and not ctx.fault_pending_wqh
    assert copy_from_user(w.task, a, 8) == b"pagepage"
    with pytest.raises(Errno, match="EEXIST"):
        mcopy_atomic(ctx, a, source, w.ps, False, w.task, {})
    w.check()


def test_a_call_that_reads_is_given_up_and_one_that_writes_copies_later(
    registered: tuple[World, UserfaultfdCtx, int],
) -> None:
    w, ctx, a = registered
    with pytest.raises(MustSleep):
        copy_from_user(w.task, a, 4)
    copy_to_user(w.task, a + w.ps, b"late")
    kinds = [type(wait).__name__ for wait in w.task.userfaults]
    assert kinds == ["UserfaultWait", "UserfaultWait", "LateCopy"]
    late = w.task.userfaults[-1]
    assert isinstance(late, LateCopy) and (late.addr, late.data) == (a + w.ps, b"late")
    copy = pickle.loads(pickle.dumps(w.task.userfaults[0]))
    assert copy.ctx.fault_pending_wqh[0] is copy and copy.ctx.mm.mm_users == 1
    ctx.release()
    assert all(wait.waken for wait in w.task.userfaults[:2]) and not ctx.fault_pending_wqh
    w.task.userfaults = []
    copy_to_user(w.task, a + w.ps, b"free")
    w.check()


def test_a_context_may_answer_at_once(registered: tuple[World, UserfaultfdCtx, int]) -> None:
    w, ctx, a = registered

    class Pager:
        """What fills the page itself, in place of a context."""

        features = 0

        def handle_userfault(self, vma: Any, address: int, flags: int, reason: int, task: Any) -> int:
            filled = address & vma.vm_mm.arch.page_mask
            assert mcopy_atomic(ctx, filled, None, vma.vm_mm.arch.page_size, False, task, {})
            return VM_FAULT_NOPAGE

    vma = find_vma(w.mm, a)
    assert vma is not None
    vma.vm_userfaultfd_ctx = Pager()
    assert w.fault(a + 3 * w.ps) is None
    assert w.pte(a + 3 * w.ps) and not w.task.userfaults
    assert copy_from_user(w.task, a + 4 * w.ps, 4) == bytes(4)


def test_write_protection_is_a_bit_of_the_entry_where_there_is_one() -> None:
    w = World("x86_64-4k")
    a = w.mmap(2, RW, ANON)
    w.fault(a, WRITE)
    ctx = UserfaultfdCtx(w.mm, 0, Queue)
    userfaultfd_register(ctx, a, 2 * w.ps, VM_UFFD_WP)
    writable = w.pte(a)
    mwriteprotect_range(ctx, a, 2 * w.ps, True)
    assert w.pte(a) == writable & ~w.arch.PTE_WRITE | w.arch.PTE_UFFD_WP
    assert w.fault(a, WRITE, True) is None and ctx.fault_pending_wqh[0].args == (3, a, 0)
    w.task.userfaults = []
    child = w.fork()
    assert child.mm is not None
    vma = find_vma(child.mm, a)
    assert vma is not None and vma.vm_userfaultfd_ctx is None and not vma.vm_flags & VM_UFFD_WP
    mwriteprotect_range(ctx, a, w.ps, False)
    assert w.fault(a, WRITE, True) is None and not w.task.userfaults
    assert w.pte(a) & w.arch.PTE_WRITE
