"""userfaultfd: page faults that another thread serves (fs/userfaultfd.c).

An area registered with a context (`vma.vm_userfaultfd_ctx`, VM_UFFD_MISSING or VM_UFFD_WP) does not get its page from
the kernel. The fault becomes a message, the faulting task sleeps, and whoever reads the messages fills the page
(userfaultfd_copy.py) and wakes it:

    handle_mm_fault -> handle_userfault -> ctx.handle_userfault   a UserfaultWait in ctx.fault_pending_wqh
        the fault ends with VM_FAULT_RETRY, the task sleeps
    read()                                                        it moves to ctx.fault_wqh
    UFFDIO_COPY, ZEROPAGE, WAKE, unregister, close                ctx.wake(): the task makes the fault again

`handle_userfault` only knows that a context has a method of that name, which returns VM_FAULT_* bits: a pager that
fills the page at once and answers VM_FAULT_NOPAGE is a context too.

How a task waits is guest/'s business. Everything it must wait for before it goes on is in `task.userfaults`, in order:
    a fault of user code         after it the fault is made again, as a retry (FAULT_FLAG_TRIED)
    a fault of a system call     the call is given up with MustSleep and made again from its beginning. Not so where the
                                 kernel writes to the user: the call goes on, and what it wrote waits with the task
    an event (fork, unmap...)    its reader has not seen it yet; the call is over, but does not return
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, MustSleep
from mm.find_vma import find_vma_prev
from mm.flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_INTERRUPTIBLE,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    VM_FAULT_NOPAGE,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_MAYWRITE,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
)
from mm.vma_adjust import set_vma_flags, split_vma

if TYPE_CHECKING:
    from mm.types import MmStruct, TaskStruct, VmAreaStruct

PF_EXITING = 0x4
PF_DUMPCORE = 0x200
VM_UFFD = VM_UFFD_MISSING | VM_UFFD_WP

UFFD_EVENT_PAGEFAULT = 0x12
UFFD_EVENT_FORK = 0x13
UFFD_EVENT_REMAP = 0x14
UFFD_EVENT_REMOVE = 0x15
UFFD_EVENT_UNMAP = 0x16
UFFD_PAGEFAULT_FLAG_WRITE = 1
UFFD_PAGEFAULT_FLAG_WP = 2

UFFD_FEATURE_EVENT_FORK = 1 << 1
UFFD_FEATURE_EVENT_REMAP = 1 << 2
UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFD_FEATURE_EVENT_UNMAP = 1 << 6
UFFD_FEATURE_SIGBUS = 1 << 7
UFFD_FEATURE_THREAD_ID = 1 << 8
UFFD_API_FEATURES = 0x1FF
UFFD_FEATURE_INITIALIZED = 1 << 31  # ours: UFFDIO_API was made

POLLIN, POLLHUP = 1, 0x10


class UserfaultWait:
    """One task that waits for one page (struct userfaultfd_wait_queue).

    Args:
        args: of the message: flags, address, and the thread's id if that was asked for.
    """

    __slots__ = ("args", "ctx", "interruptible", "retry", "task", "waken")
    event = UFFD_EVENT_PAGEFAULT
    key = None

    def __init__(self, ctx: UserfaultfdCtx, task: TaskStruct, args: tuple[int, int, int], interruptible: bool) -> None:
        self.ctx = ctx
        self.task = task
        self.args = args
        self.interruptible = interruptible  # any signal ends the wait, not just a fatal one
        self.waken = False
        self.retry: tuple[int, int, bool] | None = None  # (error code, address, user mode) of the fault to make again

    def start(self) -> bool:
        """The task is about to sleep; False when it need not any more."""
        return not self.waken

    def abort(self) -> None:
        """The task waits no longer."""
        for queue in (self.ctx.fault_pending_wqh, self.ctx.fault_wqh):
            if self in queue:
                queue.remove(self)


class EventWait:
    """One task that waits until the reader has seen what it does to its address space.

    Args:
        args: of the message: addresses, or the child's context.
        key: what the call asks userfault_completed() for, when it is made again after this wait.
    """

    __slots__ = ("args", "ctx", "event", "key", "queued", "task", "waken")
    interruptible = False
    retry = None

    def __init__(self, ctx: UserfaultfdCtx, task: TaskStruct, event: int, args: tuple[Any, ...]) -> None:
        self.ctx = ctx
        self.task = task
        self.event = event
        self.args = args
        self.key: tuple[int, ...] | None = None
        self.queued = False
        self.waken = False
        ctx.mmap_changing = True

    def start(self) -> bool:
        """userfaultfd_event_wait_completion(): show the event; False when it was read, or nobody will read it."""
        if self.waken:
            self.ctx.mmap_changing = False
            return False
        if self.ctx.released:
            self.abort()
            return False
        if not self.queued:
            self.queued = True
            self.ctx.event_wqh.append(self)
            self.ctx.fd_wqh.wake_all(POLLIN)
        return True

    def abort(self) -> None:
        """The task waits no longer. A child whose context nobody took is free of it."""
        ctx = self.ctx
        ctx.mmap_changing = False
        if self in ctx.event_wqh:
            ctx.event_wqh.remove(self)
        if self.event == UFFD_EVENT_FORK and not self.waken:
            child: UserfaultfdCtx = self.args[0]
            vma = child.mm.mmap
            while vma is not None:
                if vma.vm_userfaultfd_ctx is child:
                    drop_ctx(vma)
                vma = vma.vm_next
            child.wake(0, 0)

    def complete(self) -> None:
        """userfaultfd_event_complete(): it was read."""
        self.waken = True
        if self in self.ctx.event_wqh:
            self.ctx.event_wqh.remove(self)
        self.task.userfault_woken()


class UserfaultfdCtx:
    """One userfaultfd (struct userfaultfd_ctx).

    Args:
        mm: the address space of whoever made it.
        flags: O_* of userfaultfd(2).
        new_queue: makes a queue of sleepers; has wake_all(key).
    """

    def __init__(self, mm: MmStruct, flags: int, new_queue: Any) -> None:
        self.mm = mm
        self.flags = flags
        self.features = 0
        self.released = False
        self.mmap_changing = False  # an event is on its way: pages must not be filled
        self.fault_pending_wqh: list[UserfaultWait] = []  # not read yet, oldest first
        self.fault_wqh: list[UserfaultWait] = []  # read
        self.event_wqh: list[EventWait] = []
        self.new_queue = new_queue
        self.fd_wqh = new_queue("userfaultfd")  # readers
        self.wait_wqh = new_queue("a userfault to be served")  # the tasks of the lists above, while they sleep
        mm.system.userfaultfds += 1

    def handle_userfault(self, vma: VmAreaStruct, address: int, flags: int, reason: int, task: TaskStruct) -> int:
        """Make `task` wait for the page at `address`; VM_FAULT_RETRY, or why it need not or must not wait."""
        if self.features & UFFD_FEATURE_SIGBUS:
            return VM_FAULT_SIGBUS
        if self.released:
            return VM_FAULT_NOPAGE
        if not flags & FAULT_FLAG_ALLOW_RETRY:
            return VM_FAULT_SIGBUS
        told = UFFD_PAGEFAULT_FLAG_WRITE if flags & FAULT_FLAG_WRITE else 0
        if reason & VM_UFFD_WP:
            told |= UFFD_PAGEFAULT_FLAG_WP
        thread = task.pid if self.features & UFFD_FEATURE_THREAD_ID else 0
        interruptible = flags & (FAULT_FLAG_INTERRUPTIBLE | FAULT_FLAG_USER) == (
            FAULT_FLAG_INTERRUPTIBLE | FAULT_FLAG_USER
        )  # the kernel's own fault goes on until it is served: fault_signal_pending()
        uwq = UserfaultWait(self, task, (told, address & vma.vm_mm.arch.page_mask, thread), interruptible)
        self.fault_pending_wqh.append(uwq)
        task.wait_for_userfault(uwq)
        vma.vm_mm.system.fault_result = "userfault"
        self.fd_wqh.wake_all(POLLIN)
        return VM_FAULT_RETRY

    def wake(self, start: int, length: int) -> None:
        """Wake who waits for a page of [start, start + length), the newest first; length 0: everybody."""
        for queue in (self.fault_pending_wqh, self.fault_wqh):
            for uwq in queue[::-1]:
                if not length or start <= uwq.args[1] < start + length:
                    uwq.waken = True
                    queue.remove(uwq)
                    uwq.task.userfault_woken()

    def release(self) -> None:
        """userfaultfd_release(): the last descriptor is closed. Areas are ordinary again, all sleepers go on."""
        mm = self.mm
        mm.system.userfaultfds -= 1
        self.released = True
        if mm.mm_users:
            prev: VmAreaStruct | None = None
            vma = mm.mmap
            while vma is not None:
                if vma.vm_userfaultfd_ctx is self:
                    vma = _merge(vma, prev, vma.vm_start, vma.vm_end, vma.vm_flags & ~VM_UFFD, None) or vma
                    drop_ctx(vma)
                prev = vma
                vma = vma.vm_next
        self.wake(0, 0)
        for event in self.event_wqh[:]:
            event.task.userfault_woken()
        self.fd_wqh.wake_all(POLLHUP)


def handle_userfault(vma: VmAreaStruct, address: int, flags: int, reason: int) -> int:
    """A page of a registered area is missing, or write-protected (`reason`: VM_UFFD_*); VM_FAULT_* bits."""
    task = vma.vm_mm.system.current
    ctx = vma.vm_userfaultfd_ctx
    if task is None or task.flags & (PF_EXITING | PF_DUMPCORE) or ctx is None:
        return VM_FAULT_SIGBUS
    fault: int = ctx.handle_userfault(vma, address, flags, reason, task)
    return fault


def drop_ctx(vma: VmAreaStruct) -> None:
    """The area is an ordinary one."""
    vma.vm_userfaultfd_ctx = None
    vma.vm_flags &= ~VM_UFFD


# -- registering -----------------------------------------------------------------------------------------------------


def validate_range(mm: MmStruct, start: int, length: int) -> None:
    """Raises Errno(EINVAL) unless this is a range of whole pages a program may name."""
    if start & ~mm.arch.page_mask or length & ~mm.arch.page_mask or not length:
        raise Errno(errno.EINVAL)
    if start >= mm.task_size or length > mm.task_size - start:
        raise Errno(errno.EINVAL)


def vma_is_shmem(vma: VmAreaStruct) -> bool:
    """The area maps a tmpfs file, or shared memory without a file."""
    from mm.shmem import shmem_vm_ops

    return vma.vm_ops is shmem_vm_ops


def vma_can_userfault(vma: VmAreaStruct, vm_flags: int) -> bool:
    """Anonymous memory, and shmem without write protection."""
    return vma.vm_ops is None or (vma_is_shmem(vma) and not vm_flags & VM_UFFD_WP)


def _merge(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, vm_flags: int, ctx: Any
) -> VmAreaStruct | None:
    """vma_merge() as all of this file calls it: with the page offset of the area, also where `start` lies behind it."""
    mm = vma.vm_mm
    return mm.ops.vma_merge(mm, prev, start, end, vm_flags, vma.anon_vma, vma.vm_file, vma.vm_pgoff, vma.vm_policy, ctx)


def _first_area(mm: MmStruct, start: int, end: int) -> tuple[VmAreaStruct, VmAreaStruct | None]:
    """(first area of the range, the one before). Raises Errno ENOMEM, EINVAL when there is none."""
    if not mm.mm_users:
        raise Errno(errno.ENOMEM)
    vma, prev = find_vma_prev(mm, start)
    if vma is None:
        raise Errno(errno.ENOMEM)
    if vma.vm_start >= end:
        raise Errno(errno.EINVAL)
    return vma, prev


def userfaultfd_register(ctx: UserfaultfdCtx, start: int, length: int, vm_flags: int) -> None:
    """Give the areas of [start, start + length) to `ctx`, with VM_UFFD_* of `vm_flags`.

    Raises Errno: EINVAL (bad range, no area, wrong kind), ENOMEM (nothing that high, too many areas), EPERM (may not be
    written), EBUSY (another's).
    """
    mm = ctx.mm
    validate_range(mm, start, length)
    end = start + length
    vma, prev = _first_area(mm, start, end)
    cur: VmAreaStruct | None = vma
    while cur is not None and cur.vm_start < end:
        if not vma_can_userfault(cur, vm_flags):
            raise Errno(errno.EINVAL)
        if not cur.vm_flags & VM_MAYWRITE:
            raise Errno(errno.EPERM)
        if cur.vm_userfaultfd_ctx is not None and cur.vm_userfaultfd_ctx is not ctx:
            raise Errno(errno.EBUSY)
        cur = cur.vm_next
    _change_range(vma, prev, start, end, vm_flags, ctx)


def userfaultfd_unregister(mm: MmStruct, start: int, length: int) -> None:
    """Make the areas of [start, start + length) ordinary again, whosever they are, and wake who waits for a page there.

    Raises Errno: EINVAL, ENOMEM.
    """
    validate_range(mm, start, length)
    end = start + length
    vma, prev = _first_area(mm, start, end)
    cur: VmAreaStruct | None = vma
    while cur is not None and cur.vm_start < end:
        if not vma_can_userfault(cur, cur.vm_flags):
            raise Errno(errno.EINVAL)
        cur = cur.vm_next
    _change_range(vma, prev, start, end, 0, None)


def _change_range(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, vm_flags: int, ctx: UserfaultfdCtx | None
) -> None:
    """Set context and flags of [start, end), areas merged and split as by mprotect. Raises Errno(ENOMEM)."""
    mm = vma.vm_mm
    if vma.vm_start < start:
        prev = vma
    following: VmAreaStruct | None = vma
    while following is not None and following.vm_start < end:
        vma = following
        owner = vma.vm_userfaultfd_ctx
        if owner is not ctx or vma.vm_flags & vm_flags != vm_flags:
            start = max(start, vma.vm_start)
            vma_end = min(end, vma.vm_end)
            if ctx is None and vma.vm_flags & VM_UFFD_MISSING:
                owner.wake(start, vma_end - start)
            new_flags = vma.vm_flags & ~VM_UFFD | vm_flags
            merged = _merge(vma, prev, start, vma_end, new_flags, ctx)
            if merged is not None:
                vma = merged
            else:
                if vma.vm_start < start:
                    split_vma(mm, vma, start, True)
                if vma.vm_end > end:
                    split_vma(mm, vma, end, False)
            set_vma_flags(vma, new_flags)
            vma.vm_userfaultfd_ctx = ctx
        prev = vma
        start = vma.vm_end
        following = vma.vm_next


# -- events ----------------------------------------------------------------------------------------------------------


def dup_userfaultfd(vma: VmAreaStruct, contexts: dict[int, UserfaultfdCtx]) -> None:
    """fork: `vma` is the child's copy. It is ordinary, or belongs to a new context when the parent's wants to know.

    `contexts`: the new ones of this fork, by id() of the parent's.
    """
    parent = vma.vm_userfaultfd_ctx
    if not parent.features & UFFD_FEATURE_EVENT_FORK:
        drop_ctx(vma)
        return
    ctx = contexts.get(id(parent))
    task = vma.vm_mm.system.current
    if ctx is None and task is not None:
        ctx = contexts[id(parent)] = UserfaultfdCtx(vma.vm_mm, parent.flags, parent.new_queue)
        ctx.features = parent.features
        task.wait_for_userfault(EventWait(parent, task, UFFD_EVENT_FORK, (ctx,)))
    vma.vm_userfaultfd_ctx = ctx


def mremap_userfaultfd_prep(vma: VmAreaStruct, start: int, to: int, length: int) -> None:
    """mremap: [start, start + length) is now at `to`, in `vma`."""
    ctx = vma.vm_userfaultfd_ctx
    task = vma.vm_mm.system.current
    if ctx.features & UFFD_FEATURE_EVENT_REMAP and task is not None:
        task.wait_for_userfault(EventWait(ctx, task, UFFD_EVENT_REMAP, (start, to, length)))
    else:
        drop_ctx(vma)


def userfaultfd_remove(vma: VmAreaStruct, start: int, end: int) -> None:
    """madvise: the pages of [start, end) go away. Raises MustSleep until the reader knows."""
    ctx = vma.vm_userfaultfd_ctx
    task = vma.vm_mm.system.current
    key = (UFFD_EVENT_REMOVE, start, end)
    if not ctx.features & UFFD_FEATURE_EVENT_REMOVE or task is None or task.userfault_completed(key):
        return
    event = EventWait(ctx, task, UFFD_EVENT_REMOVE, (start, end))
    event.key = key
    task.wait_for_userfault(event)
    raise MustSleep


def userfaultfd_unmap_prep(vma: VmAreaStruct | None, start: int, end: int) -> None:
    """munmap: the areas from `vma` up to `end` go away."""
    seen: list[UserfaultfdCtx] = []
    while vma is not None and vma.vm_start < end:
        ctx = vma.vm_userfaultfd_ctx
        if ctx is not None and ctx.features & UFFD_FEATURE_EVENT_UNMAP and ctx not in seen:
            seen.append(ctx)
            task = vma.vm_mm.system.current
            if task is not None:
                task.wait_for_userfault(EventWait(ctx, task, UFFD_EVENT_UNMAP, (start, end)))
        vma = vma.vm_next
