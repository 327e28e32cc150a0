"""Contexts of asynchronous I/O and their requests (fs/aio.c).

    mm.ioctx_table  IoctxTable   the process's contexts by number
      Kioctx                     one io_setup(): a ring (aio_ring.py), requests that wait, who waits for events
        AioKiocb                 one request; it takes a slot of the ring from its submission until its event is taken

Linux does most of it in the call that submits, and so does this: reading and writing end before io_submit() returns.
What waits is a poll for one event of a file (AioPoll), and a submission that sleeps in a pipe.
DEVIATION D19: fsync ends in io_submit() too; on Linux a kernel thread does it a moment later.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.aio_ring import EVENT_SIZE, AioRing, ring_size_ok
from guest.sched import HostWait, WaitQueue
from guest.vfs_flags import POLLERR, POLLHUP, POLLIN
from mm.errors import Errno
from mm.mmap import do_munmap
from mm.uaccess import copy_to_user, get_user
from mm.util import fput

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.types import MmStruct, VmAreaStruct

AIO_MAX_NR = 0x10000  # default of /proc/sys/fs/aio-max-nr
POSSIBLE_CPUS = 1
_EVENT = Struct("<4Q")
_MASK64 = 0xFFFFFFFFFFFFFFFF
_U64_MAX = _MASK64


class IoctxTable:
    """The contexts of a process (struct kioctx_table)."""

    def __init__(self, kernel: Kernel, mm: MmStruct) -> None:
        self.kernel = kernel
        self.mm = mm
        self.table: list[Kioctx | None] = [None] * 4

    def add(self, ctx: Kioctx) -> None:
        """ioctx_add_table(): the lowest free number; the table grows fourfold."""
        if None not in self.table:
            self.table += [None] * (3 * len(self.table))
        ctx.id = self.table.index(None)
        self.table[ctx.id] = ctx
        ctx.ring.set_id(ctx.id)

    def moved(self, vma: VmAreaStruct) -> int:
        """aio_ring_mremap(): 0 or an errno."""
        for ctx in self.table:
            if ctx is not None and ctx.ring is vma.vm_file:
                ctx.user_id = ctx.ring.base = vma.vm_start
                return 0
        return errno.EINVAL

    def exit_aio(self) -> None:
        """The address space goes: the areas with it, the requests now."""
        for ctx in self.table:
            if ctx is not None:
                ctx.kill(unmap=False)
        self.mm.ioctx_table = None


def _signal(kernel: Kernel, eventfd: Any) -> None:
    """eventfd_signal(). Requests that wait for one end in turn, not one within the other (eventfd_wake_count)."""
    pending = kernel.eventfd_signals
    pending.append(eventfd)
    if len(pending) > 1:
        return
    while pending:
        first = pending[0]
        first.counter = min(first.counter + 1, _U64_MAX)
        first.queue.wake_all(POLLIN)
        pending.popleft()


class AioKiocb:
    """A request (struct aio_kiocb)."""

    def __init__(self, ctx: Kioctx, obj: int, data: int) -> None:
        self.ctx = ctx
        self.obj = obj  # address of the program's iocb
        self.data = data
        self.file: OpenFile | None = None
        self.eventfd: Any = None

    def destroy(self) -> None:
        """iocb_destroy()."""
        file, self.file = self.file, None
        if file is not None:
            fput(file)

    def complete(self, res: int) -> None:
        """aio_complete(): the event goes into the ring; `res` as the call would return it, negative for an error."""
        self.ctx.complete(self, res)
        self.destroy()


class AioPoll:
    """A request that waits for a file to become ready (struct poll_iocb). Watches the file's queue, as epoll does."""

    def __init__(self, request: AioKiocb, file: OpenFile, queue: WaitQueue, events: int) -> None:
        self.request = request
        self.file = file
        self.queue = queue
        self.events = events
        self.over = False
        queue.watchers.append(self)
        request.ctx.active.append(self)

    def woken(self, key: int) -> None:
        """aio_poll_wake(): `key` the POLL* bits it is about, 0 unknown."""
        if key and not key & self.events:
            return
        mask = key or self.file.poll(self.request.ctx.kernel.current) & self.events
        if mask:
            self.end(mask)

    def end(self, mask: int) -> None:
        """It is over, with an event: a cancelled one shows no bits."""
        if not self.over:  # an eventfd told of another's end may have ended this one
            self.drop()
            self.request.complete(mask)

    def drop(self) -> None:
        """Wait no more."""
        self.over = True
        self.queue.watchers.remove(self)
        self.request.ctx.active.remove(self)


class Kioctx:
    """A context (struct kioctx). Raises Errno(EINVAL), EAGAIN, ENOMEM for what io_setup() refuses."""

    def __init__(self, kernel: Kernel, mm: MmStruct, max_reqs: int) -> None:
        limit: int = kernel.sysctls.get("aio-max-nr", AIO_MAX_NR)
        nr_events = max(max_reqs, 4 * POSSIBLE_CPUS) * 2 & 0xFFFFFFFF
        if not ring_size_ok(mm.system, nr_events):
            raise Errno(errno.EINVAL)
        if not nr_events or max_reqs > limit:
            raise Errno(errno.EAGAIN)
        self.kernel = kernel
        self.mm = mm
        self.max_reqs = max_reqs
        self.id = 0
        self.ring = AioRing(mm, nr_events)
        self.user_id = self.ring.base
        self.dead = False
        self.wait = WaitQueue("an event of asynchronous I/O")
        self.done = WaitQueue("a submission to end")  # io_destroy waits for io_submit
        self.submitters = 0
        self.active: list[AioPoll] = []
        self.tail = 0  # the kernel's own; the ring's is the program's to write
        self.completed_events = 0
        # Free slots: `available` for all, of which this CPU takes `req_batch` at a time.
        self.available = self.ring.nr_events - 1
        self.req_batch = max((self.ring.nr_events - 1) // (POSSIBLE_CPUS * 4), 1)
        self.cpu_available = 0
        if aio_nr(kernel) + max_reqs > limit:
            self.dead = True
            self._unmap()
            self.ring.free()
            raise Errno(errno.EAGAIN)
        kernel.sysctls["aio-nr"] = aio_nr(kernel) + max_reqs
        if mm.ioctx_table is None:
            mm.ioctx_table = IoctxTable(kernel, mm)
        mm.ioctx_table.add(self)

    # ---- slots

    def _take_slot(self) -> bool:
        """__get_reqs_available()."""
        if not self.cpu_available:
            if self.available < self.req_batch:
                return False
            self.available -= self.req_batch
            self.cpu_available += self.req_batch
        self.cpu_available -= 1
        return True

    def take_slot(self) -> bool:
        """A slot for one more request; False when all are in use."""
        if self._take_slot():
            return True
        if self.completed_events:
            self._refill(self.ring.head, self.tail)
        return self._take_slot()

    def give_slots(self, number: int) -> None:
        """put_reqs_available()."""
        self.cpu_available += number
        while self.cpu_available >= self.req_batch * 2:
            self.cpu_available -= self.req_batch
            self.available += self.req_batch

    def _refill(self, head: int, tail: int) -> None:
        """refill_reqs_available(): slots whose events the program has taken are free again."""
        head %= self.ring.nr_events
        in_ring = (tail - head) % self.ring.nr_events
        completed = max(self.completed_events - in_ring, 0)
        if completed:
            self.completed_events -= completed
            self.give_slots(completed)

    # ---- events

    def complete(self, request: AioKiocb, res: int) -> None:
        """aio_complete()."""
        if not self.dead:
            ring = self.ring
            ring.put_event(self.tail, _EVENT.pack(request.data, request.obj, res & _MASK64, 0))
            self.tail = ring.tail = (self.tail + 1) % ring.nr_events
            self.completed_events += 1
            if self.completed_events > 1:
                self._refill(ring.head, self.tail)
        if request.eventfd is not None:
            _signal(self.kernel, request.eventfd)
        self.wait.wake_all()

    def read_events(self, task: Task, address: int, most: int) -> int:
        """aio_read_events_ring(): copy up to `most` events out; how many. Raises Errno(EFAULT)."""
        ring = self.ring
        size = ring.nr_events
        head, tail = ring.head, ring.tail
        if head == tail:
            return 0
        head, tail = head % size, tail % size
        done = 0
        while done < most and head != tail:
            events = ring.events(head, min((tail if head <= tail else size) - head, most - done))
            copy_to_user(task, address + done * EVENT_SIZE, events)
            done += len(events) // EVENT_SIZE
            head = (head + len(events) // EVENT_SIZE) % size
        ring.head = head
        return done

    # ---- the end

    def kill(self, unmap: bool = True) -> None:
        """kill_ioctx(): what waits is cancelled, the ring is gone. Who waits for events sees it."""
        self.dead = True
        self.mm.ioctx_table.table[self.id] = None
        self.kernel.sysctls["aio-nr"] = aio_nr(self.kernel) - self.max_reqs
        self.wait.wake_all()
        if unmap:
            self._unmap()
        for poll in self.active[:]:
            poll.end(0)
        self.ring.free()

    def _unmap(self) -> None:
        try:  # noqa: SIM105 - contextlib is not worth its import here
            do_munmap(self.mm, self.ring.base, self.ring.size)
        except Errno:
            pass  # vm_munmap()'s result is not looked at


def aio_nr(kernel: Kernel) -> int:
    """Requests that all contexts together were set up for (/proc/sys/fs/aio-nr)."""
    value: int = kernel.sysctls.get("aio-nr", 0)
    return value


def lookup_ioctx(task: Task, ctx_id: int) -> Kioctx | None:
    """The context whose ring is at this address; the ring's first word is its number."""
    mm = task.mm
    if mm is None:
        return None
    try:
        number = get_user(task, ctx_id, 4)
    except Errno:
        return None
    table: list[Kioctx | None] = mm.ioctx_table.table if mm.ioctx_table is not None else []
    ctx = table[number] if number < len(table) else None
    return ctx if ctx is not None and ctx.user_id == ctx_id else None


def start_poll(task: Task, request: AioKiocb, file: OpenFile, wanted: int) -> None:
    """aio_poll(): complete the request when the file is ready. Raises Errno(EINVAL) for files that tell of no event."""
    events = wanted | POLLERR | POLLHUP
    queues = file.poll_queues(task)
    mask = file.poll(task) & events
    if mask:
        request.complete(mask)
        return
    if len(queues) != 1 or isinstance(queues[0], HostWait):
        raise Errno(errno.EINVAL)
    AioPoll(request, file, queues[0], events)
