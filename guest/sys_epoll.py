"""epoll (fs/eventpoll.c): items hang on the wait queues of the files they watch; a wake puts them on the ready list.

    file's queue --wake--> EpItem.woken() -> EventPoll.rdllist -> epoll_wait polls the file again and tells

What is on the ready list *may* be ready; only poll() decides. Level-triggered items go back on the list after they were
told, edge-triggered ones wait for the next wake, one-shot ones are disarmed. Descriptors of the host wake nobody, so
epoll_wait looks at them itself and sleeps on their HostWait queues.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.sched import HostWait, Restart, WaitQueue, sleep_on
from guest.signal import restore_saved_sigmask_unless
from guest.sys_poll import deadline_of, sigmask
from guest.syscalls import FULL, PARTIAL, Call
from guest.tty import HostStream, anonymous_path
from guest.vfs_flags import O_CLOEXEC, O_RDWR, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, S_IFCHR, S_IFMT, s32
from guest.vfs_types import Inode, Path
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET = 1 << 28, 1 << 29, 1 << 30, 1 << 31
EP_PRIVATE_BITS = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE
EPOLLEXCLUSIVE_OK_BITS = POLLIN | POLLOUT | POLLERR | POLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
EP_MAX_NESTS = 4
_PATH_LIMITS = (1000, 500, 100, 50, 10)  # wake-up paths of length 1 to 5 that may start at one file
_EP_MAX_EVENTS = 0x7FFFFFFF


def file_can_poll(file: OpenFile) -> bool:
    """Whether the kind has f_op->poll: regular files, directories and memory devices have not."""
    if isinstance(file, HostStream):
        return not file.always_ready and (file.isatty or file.f_inode.i_mode & S_IFMT != S_IFCHR)
    return type(file).poll is not OpenFile.poll


class EpItem:
    """One watched descriptor (struct epitem)."""

    def __init__(self, ep: EventPoll, file: OpenFile, fd: int, events: int, data: int) -> None:
        self.ep = ep
        self.file = file
        self.fd = fd
        self.events = events
        self.data = data
        self.queues: list[WaitQueue] = []
        self.host_seen = 0  # bits a host descriptor had when it was last looked at

    def poll(self, task: Task) -> int:
        """ep_item_poll(): the wanted bits that hold now."""
        return self.file.poll(task) & self.events

    def attach(self, task: Task) -> None:
        """ep_ptable_queue_proc() for each of the file's queues."""
        if self.file.f_ep_links == ():
            self.file.f_ep_links = []
        self.file.f_ep_links.append(self)
        for queue in self.file.poll_queues(task):
            self.queues.append(queue)
            if not isinstance(queue, HostWait):  # those are looked at, see look_at_host()
                queue.watchers.append(self)

    def remove(self) -> None:
        """ep_remove()."""
        for queue in self.queues:
            if not isinstance(queue, HostWait):
                queue.watchers.remove(self)
        self.queues = []
        self.file.f_ep_links.remove(self)
        self.ep.items.remove(self)
        if self in self.ep.rdllist:
            self.ep.rdllist.remove(self)

    def woken(self, key: int) -> None:
        """ep_poll_callback(): a queue of the file was woken for the bits `key` (0: unknown)."""
        if not self.events & ~EP_PRIVATE_BITS or (key and not key & self.events):
            return
        self.ep.ready(self)


class EventPoll(OpenFile):
    """An epoll descriptor (struct eventpoll and its file)."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.items: list[EpItem] = []
        self.rdllist: list[EpItem] = []
        self.wq = WaitQueue("epoll")
        self.poll_wait = WaitQueue("epoll")

    def find(self, file: OpenFile, fd: int) -> EpItem | None:
        """ep_find()."""
        for item in self.file_items(file):
            if item.fd == fd:
                return item
        return None

    def file_items(self, file: OpenFile) -> list[EpItem]:
        """The items of this epoll that watch `file`."""
        return [item for item in file.f_ep_links if item.ep is self]

    def ready(self, item: EpItem) -> None:
        """Put an item on the ready list and wake one waiter."""
        if item not in self.rdllist:
            self.rdllist.append(item)
        self.wq.wake_one()
        self.poll_wait.wake_all(POLLIN)

    def host_items(self) -> list[EpItem]:
        """Items whose files only the host can wake."""
        return [item for item in self.items if any(isinstance(queue, HostWait) for queue in item.queues)]

    def look_at_host(self, task: Task) -> list[WaitQueue]:
        """Put host descriptors that became ready on the list; the queues to sleep on."""
        queues: list[WaitQueue] = []
        for item in self.host_items():
            if not item.events & ~EP_PRIVATE_BITS:
                continue
            found = item.poll(task)
            if found & ~(item.host_seen if item.events & EPOLLET else 0) and item not in self.rdllist:
                self.rdllist.append(item)
            item.host_seen = found
            if not found & (POLLHUP | POLLERR):  # the host would only say again what it has said
                rest = item.events & ~found
                queues += [queue.narrowed(rest) for queue in item.queues if isinstance(queue, HostWait)]
        return queues

    def poll(self, task: Task) -> int:
        self.look_at_host(task)
        for item in self.rdllist[:]:
            if item.poll(task):
                return POLLIN | POLLRDNORM
            self.rdllist.remove(item)
        return 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.poll_wait, *self.look_at_host(task))

    def send_events(self, task: Task, events: int, most: int) -> int:
        """ep_send_events(): tell what is ready; how many."""
        event = Struct(task.kernel.vfs.abi.epoll_event)
        scanned, self.rdllist = self.rdllist, []
        again: list[EpItem] = []
        done = 0
        while scanned and done < most:
            item = scanned.pop(0)
            found = item.poll(task)
            if not found:
                continue
            try:
                copy_to_user(task, events + done * event.size, event.pack(found, item.data))
            except Errno:
                scanned.insert(0, item)
                if not done:
                    self.rdllist = scanned + again
                    raise
                break
            done += 1
            if item.events & EPOLLONESHOT:
                item.events &= EP_PRIVATE_BITS
            elif not item.events & EPOLLET:
                again.append(item)
        self.rdllist = scanned + again
        if self.rdllist:
            self.wq.wake_one()
        return done

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """noop_llseek()."""
        return self.f_pos

    def show_fdinfo(self, sb: Any) -> str:
        return "".join(
            f"tfd: {item.fd:8} events: {item.events:8x} data: {item.data:16x}  pos:{item.file.f_pos} "
            f"ino:{item.file.f_inode.i_ino:x} sdev:{item.file.f_inode.i_sb.s_dev:x}\n"
            for item in sorted(self.items, key=lambda item: item.fd)
        )

    def closed(self) -> None:
        for item in self.items[:]:
            item.remove()


def epoll_create(task: Task, flags: int) -> int:
    """do_epoll_create()."""
    if flags & ~O_CLOEXEC:
        raise Errno(errno.EINVAL)
    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    file = EventPoll(anonymous_path(sb, inode, b"anon_inode:[eventpoll]"), inode, O_RDWR)
    fd: int = task.files.add(task, file, bool(flags & O_CLOEXEC))
    return fd


def sys_epoll_create1(task: Task, flags: int) -> int:
    """epoll_create1(2)."""
    return epoll_create(task, flags & 0xFFFFFFFF)


def sys_epoll_create(task: Task, size: int) -> int:
    """epoll_create(2)."""
    if s32(size) <= 0:
        raise Errno(errno.EINVAL)
    return epoll_create(task, 0)


# epoll_ctl


def loop_check(ep: EventPoll, file: EventPoll, chain: tuple[EventPoll, ...], seen: list[EventPoll]) -> bool:
    """ep_loop_check_proc(): whether what `file` watches leads back to `ep` or too deep."""
    seen.append(file)
    for item in file.items:
        inner = item.file
        if not isinstance(inner, EventPoll) or inner in seen:
            continue
        if inner is ep or inner in chain or len(chain) > EP_MAX_NESTS:
            return True
        if loop_check(ep, inner, (*chain, inner), seen):
            return True
    return False


def watched_files(file: EventPoll, found: list[OpenFile]) -> list[OpenFile]:
    """The files, not epolls, that a chain of epolls ends in (tfile_check_list)."""
    for item in file.items:
        if isinstance(item.file, EventPoll):
            watched_files(item.file, found)
        elif item.file not in found:
            found.append(item.file)
    return found


def too_many_paths(file: OpenFile, nests: int, count: list[int]) -> bool:
    """reverse_path_check_proc(): whether waking `file` would run through too many epolls."""
    if nests > EP_MAX_NESTS:
        return True
    for item in file.f_ep_links:
        if item.ep.f_ep_links:
            if too_many_paths(item.ep, nests + 1, count):
                return True
        elif nests:
            count[nests] += 1
            if count[nests] > _PATH_LIMITS[nests]:
                return True
    return False


def insert(task: Task, ep: EventPoll, file: OpenFile, fd: int, events: int, data: int) -> None:
    """ep_insert(). Raises EINVAL for too many wake-up paths."""
    item = EpItem(ep, file, fd, events, data)
    ep.items.append(item)
    nested = bool(ep.f_ep_links) or isinstance(file, EventPoll)
    item.attach(task)
    if nested:
        files = watched_files(file, []) if isinstance(file, EventPoll) else [file]
        if any(too_many_paths(one, 0, [0] * len(_PATH_LIMITS)) for one in files):
            item.remove()
            raise Errno(errno.EINVAL)
    found = item.poll(task)
    item.host_seen = found
    if found:
        ep.ready(item)


def modify(task: Task, item: EpItem, events: int, data: int) -> None:
    """ep_modify()."""
    item.events, item.data = events, data
    if item.poll(task) and item not in item.ep.rdllist:
        item.ep.ready(item)


def sys_epoll_ctl(task: Task, epfd: int, op: int, fd: int, event: int) -> int:
    """epoll_ctl(2)."""
    op, fd = s32(op), s32(fd)
    events = data = 0
    if op != EPOLL_CTL_DEL:
        layout = Struct(task.kernel.vfs.abi.epoll_event)
        events, data = layout.unpack(copy_from_user(task, event, layout.size))
    ep: OpenFile = task.files.get(s32(epfd))
    file: OpenFile = task.files.get(fd)
    if not file_can_poll(file):
        raise Errno(errno.EPERM)
    events &= ~EPOLLWAKEUP if not task.capable(36) else -1  # CAP_BLOCK_SUSPEND
    if ep is file or not isinstance(ep, EventPoll):
        raise Errno(errno.EINVAL)
    nested = isinstance(file, EventPoll)
    if events & EPOLLEXCLUSIVE and op != EPOLL_CTL_DEL:
        if op == EPOLL_CTL_MOD:
            raise Errno(errno.EINVAL)
        if op == EPOLL_CTL_ADD and (nested or events & ~EPOLLEXCLUSIVE_OK_BITS):
            raise Errno(errno.EINVAL)
    if op == EPOLL_CTL_ADD and isinstance(file, EventPoll) and loop_check(ep, file, (ep,), []):
        raise Errno(errno.ELOOP)
    item = ep.find(file, fd)
    if op == EPOLL_CTL_ADD:
        if item is not None:
            raise Errno(errno.EEXIST)
        insert(task, ep, file, fd, events | POLLERR | POLLHUP, data)
    elif op in (EPOLL_CTL_DEL, EPOLL_CTL_MOD):
        if item is None:
            raise Errno(errno.ENOENT)
        if op == EPOLL_CTL_DEL:
            item.remove()
        elif not item.events & EPOLLEXCLUSIVE:
            modify(task, item, events | POLLERR | POLLHUP, data)
    else:
        raise Errno(errno.EINVAL)
    return 0


# epoll_wait


def do_epoll_wait(task: Task, epfd: int, events: int, most: int, timeout: int) -> int:
    """The wait itself: `timeout` in ms, negative for ever. Raises EINVAL, EFAULT, EBADF, EINTR."""
    most, timeout = s32(most), s32(timeout)
    size = Struct(task.kernel.vfs.abi.epoll_event).size
    if not 0 < most <= _EP_MAX_EVENTS // size:
        raise Errno(errno.EINVAL)
    if not access_ok(task, events, most * size):
        raise Errno(errno.EFAULT)
    ep = task.files.get(s32(epfd))
    if not isinstance(ep, EventPoll):
        raise Errno(errno.EINVAL)
    deadline = deadline_of(task, timeout * 1_000_000) if timeout > 0 else None
    queues = ep.look_at_host(task)
    if ep.rdllist:
        done = ep.send_events(task, events, most)
        if done:
            return done
    if timeout == 0 or (deadline is not None and task.kernel.clock.now >= deadline):
        return 0
    try:
        sleep_on(task, ep.wq, *queues, deadline=deadline)
    except Restart:
        raise Errno(errno.EINTR) from None
    return 0


def sys_epoll_wait(task: Task, epfd: int, events: int, most: int, timeout: int) -> int:
    """epoll_wait(2)."""
    return do_epoll_wait(task, epfd, events, most, timeout)


def sys_epoll_pwait(task: Task, epfd: int, events: int, most: int, timeout: int, mask: int, size: int) -> int:
    """epoll_pwait(2)."""
    sigmask(task, mask, size)
    try:
        done = do_epoll_wait(task, epfd, events, most, timeout)
    except Errno as refusal:
        restore_saved_sigmask_unless(task, refusal.number == errno.EINTR)
        raise
    restore_saved_sigmask_unless(task, False)
    return done


CALLS = (
    Call("epoll_create", sys_epoll_create, FULL),
    Call("epoll_create1", sys_epoll_create1, FULL),
    Call("epoll_ctl", sys_epoll_ctl, PARTIAL, "EPOLLEXCLUSIVE wakes every waiter"),
    Call("epoll_wait", sys_epoll_wait, FULL),
    Call("epoll_pwait", sys_epoll_pwait, FULL),
)
