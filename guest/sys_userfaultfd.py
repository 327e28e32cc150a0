"""userfaultfd(2): the descriptor through which a program serves its own page faults (fs/userfaultfd.c)."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.sched import WaitQueue, sleep_on
from guest.syscalls import PARTIAL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import O_CLOEXEC, O_NONBLOCK, O_RDONLY, POLLERR, POLLIN
from guest.vfs_types import Inode
from mm.errors import Errno
from mm.flags import VM_UFFD_MISSING, VM_UFFD_WP
from mm.uaccess import copy_from_user, copy_to_user, put_user
from mm.userfaultfd import (
    UFFD_API_FEATURES,
    UFFD_EVENT_FORK,
    UFFD_EVENT_PAGEFAULT,
    UFFD_FEATURE_EVENT_FORK,
    UFFD_FEATURE_INITIALIZED,
    EventWait,
    UserfaultfdCtx,
    UserfaultWait,
    userfaultfd_register,
    userfaultfd_unregister,
    validate_range,
)

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

UFFD_API = 0xAA
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_UNREGISTER = 0x8010AA01
UFFDIO_WAKE = 0x8010AA02
UFFDIO_COPY = 0xC028AA03
UFFDIO_ZEROPAGE = 0xC020AA04
UFFDIO_WRITEPROTECT = 0xC018AA06

UFFD_API_IOCTLS = 1 << 63 | 1 << 0 | 1 << 1
UFFD_API_RANGE_IOCTLS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6
_UFFDIO_WRITEPROTECT = 1 << 6
MODE_MISSING, MODE_WP = 1, 2  # UFFDIO_REGISTER_MODE_*
COPY_DONTWAKE, COPY_WP = 1, 2  # UFFDIO_COPY_MODE_*
ZEROPAGE_DONTWAKE = 1
WRITEPROTECT_WP, WRITEPROTECT_DONTWAKE = 1, 2

CAP_SYS_PTRACE = 19
MESSAGE_SIZE = 32  # struct uffd_msg
MAX_READ = 2047 * MESSAGE_SIZE  # of one read: less than read(2) asks for at a time, so that it does not ask again
_PAGEFAULT = Struct("<B7xQQI4x")
_FORK = Struct("<B7xI20x")
_ADDRESSES = Struct("<B7x3Q")  # remap: from, to, length; remove and unmap: start, end


class UserfaultfdFile(OpenFile):
    """A userfaultfd context and its file."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, ctx: UserfaultfdCtx) -> None:
        super().__init__(path, inode, flags)
        self.ctx = ctx

    def read(self, task: Task, pos: int, count: int) -> bytes:
        """userfaultfd_read(): as many messages as there are; sleeps for the first only."""
        ctx = self.ctx
        if not ctx.features & UFFD_FEATURE_INITIALIZED or count < MESSAGE_SIZE:
            raise Errno(errno.EINVAL)
        count = min(count, MAX_READ)
        messages = b""
        while len(messages) + MESSAGE_SIZE <= count:
            if ctx.fault_pending_wqh:
                uwq = ctx.fault_pending_wqh.pop(0)
                ctx.fault_wqh.append(uwq)
                messages += message(uwq)
            elif ctx.event_wqh:
                try:
                    messages += self._take_event(task, ctx.event_wqh[0])
                except Errno:
                    if messages:
                        break
                    raise
            elif messages:
                break
            elif self.f_flags & O_NONBLOCK and not task.signal_pending():
                raise Errno(errno.EAGAIN)
            else:
                sleep_on(task, ctx.fd_wqh)
        return messages

    def _take_event(self, task: Task, event: EventWait) -> bytes:
        """The message of an event, whose task goes on. Raises EMFILE for a fork (the event stays)."""
        if event.event == UFFD_EVENT_FORK:
            child: UserfaultfdCtx = event.args[0]
            data = _FORK.pack(event.event, new_file(task, child))
        else:
            data = message(event)
        event.complete()
        return data

    def poll(self, task: Task) -> int:
        ctx = self.ctx
        if not ctx.features & UFFD_FEATURE_INITIALIZED or not self.f_flags & O_NONBLOCK:
            return POLLERR
        return POLLIN if ctx.fault_pending_wqh or ctx.event_wqh else 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.ctx.fd_wqh,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == UFFDIO_API:
            return uffdio_api(task, self.ctx, arg)
        serve = _IOCTLS.get(cmd)
        if serve is None or not self.ctx.features & UFFD_FEATURE_INITIALIZED:
            raise Errno(errno.EINVAL)
        serve(task, self.ctx, arg)
        return 0

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """noop_llseek()."""
        return self.f_pos

    def show_fdinfo(self, sb: Any) -> str:
        ctx = self.ctx
        pending = len(ctx.fault_pending_wqh)
        return (
            f"pending:\t{pending}\ntotal:\t{pending + len(ctx.fault_wqh)}\n"
            f"API:\t{UFFD_API:x}:{ctx.features:x}:{UFFD_API_IOCTLS | UFFD_API_RANGE_IOCTLS:x}\n"
        )

    def closed(self) -> None:
        self.ctx.release()


def message(wait: UserfaultWait | EventWait) -> bytes:
    """struct uffd_msg."""
    if wait.event == UFFD_EVENT_PAGEFAULT:
        return _PAGEFAULT.pack(wait.event, *wait.args)
    return _ADDRESSES.pack(wait.event, *wait.args, *(0,) * (3 - len(wait.args)))


def new_file(task: Task, ctx: UserfaultfdCtx) -> int:
    """A descriptor for a context. Raises EMFILE."""
    inode = Inode(task.kernel.vfs.anonfs, 0o600)
    path = anonymous_path(inode.i_sb, inode, b"anon_inode:[userfaultfd]")
    file = UserfaultfdFile(path, inode, O_RDONLY | ctx.flags & O_NONBLOCK, ctx)
    fd: int = task.files.add(task, file, bool(ctx.flags & O_CLOEXEC))
    return fd


def sys_userfaultfd(task: Task, flags: int) -> int:
    """userfaultfd(2)."""
    flags &= 0xFFFFFFFF
    if not task.kernel.sysctls.get("unprivileged_userfaultfd", 1) and not task.capable(CAP_SYS_PTRACE):
        raise Errno(errno.EPERM)
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    if task.mm is None:
        raise Errno(errno.EINVAL)
    return new_file(task, UserfaultfdCtx(task.mm, flags, WaitQueue))


# -- ioctl -----------------------------------------------------------------------------------------------------------


def quads(task: Task, address: int, count: int) -> list[int]:
    """`count` 64-bit numbers of a structure. Raises EFAULT."""
    data = copy_from_user(task, address, 8 * count)
    return [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(count)]


def uffdio_api(task: Task, ctx: UserfaultfdCtx, arg: int) -> int:
    """UFFDIO_API: agree on the version and the features. Raises EFAULT, EINVAL, EPERM; the answer is all zero then."""
    api, features, _ = quads(task, arg, 3)
    refusal = 0
    if api != UFFD_API or features & ~UFFD_API_FEATURES:
        refusal = errno.EINVAL
    elif features & UFFD_FEATURE_EVENT_FORK and not task.capable(CAP_SYS_PTRACE):
        refusal = errno.EPERM
    else:
        copy_to_user(task, arg, Struct("<3Q").pack(UFFD_API, UFFD_API_FEATURES, UFFD_API_IOCTLS))
        if ctx.features:
            refusal = errno.EINVAL
        else:
            ctx.features = features | UFFD_FEATURE_INITIALIZED
    if refusal:
        copy_to_user(task, arg, bytes(24))
        raise Errno(refusal)
    return 0


def uffdio_register(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_REGISTER."""
    start, length, mode = quads(task, arg, 3)
    if not mode or mode & ~(MODE_MISSING | MODE_WP):
        raise Errno(errno.EINVAL)
    vm_flags = (VM_UFFD_MISSING if mode & MODE_MISSING else 0) | (VM_UFFD_WP if mode & MODE_WP else 0)
    userfaultfd_register(ctx, start, length, vm_flags)
    ioctls = UFFD_API_RANGE_IOCTLS if mode & MODE_WP else UFFD_API_RANGE_IOCTLS & ~_UFFDIO_WRITEPROTECT
    put_user(task, arg + 24, ioctls, 8)


def uffdio_unregister(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_UNREGISTER."""
    start, length = quads(task, arg, 2)
    userfaultfd_unregister(ctx.mm, start, length)


def uffdio_wake(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_WAKE."""
    start, length = quads(task, arg, 2)
    validate_range(ctx.mm, start, length)
    ctx.wake(start, length)


def _fill(task: Task, ctx: UserfaultfdCtx, dst: int, src: int | None, length: int, wp: bool, answer: int) -> int:
    """mcopy_atomic() and its answer in user memory; how many bytes were filled. Raises Errno."""
    from mm.userfaultfd_copy import mcopy_atomic

    if not ctx.mm.mm_users:
        raise Errno(errno.ESRCH)
    try:
        filled = mcopy_atomic(ctx, dst, src, length, wp, task, task.wait_state)
    except Errno as refusal:
        put_user(task, answer, -refusal.number, 8)
        raise
    put_user(task, answer, filled, 8)
    return filled


def uffdio_copy(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_COPY."""
    if ctx.mmap_changing:
        raise Errno(errno.EAGAIN)
    dst, src, length, mode = quads(task, arg, 4)
    validate_range(ctx.mm, dst, length)
    if (src + length) & 0xFFFFFFFFFFFFFFFF <= src or mode & ~(COPY_DONTWAKE | COPY_WP):
        raise Errno(errno.EINVAL)
    filled = _fill(task, ctx, dst, src, length, bool(mode & COPY_WP), arg + 32)
    if not mode & COPY_DONTWAKE:
        ctx.wake(dst, filled)
    if filled != length:
        raise Errno(errno.EAGAIN)


def uffdio_zeropage(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_ZEROPAGE."""
    if ctx.mmap_changing:
        raise Errno(errno.EAGAIN)
    start, length, mode = quads(task, arg, 3)
    validate_range(ctx.mm, start, length)
    if mode & ~ZEROPAGE_DONTWAKE:
        raise Errno(errno.EINVAL)
    filled = _fill(task, ctx, start, None, length, False, arg + 24)
    if not mode & ZEROPAGE_DONTWAKE:
        ctx.wake(start, filled)
    if filled != length:
        raise Errno(errno.EAGAIN)


def uffdio_writeprotect(task: Task, ctx: UserfaultfdCtx, arg: int) -> None:
    """UFFDIO_WRITEPROTECT."""
    from mm.userfaultfd_copy import mwriteprotect_range

    if ctx.mmap_changing:
        raise Errno(errno.EAGAIN)
    start, length, mode = quads(task, arg, 3)
    validate_range(ctx.mm, start, length)
    if mode & ~(WRITEPROTECT_WP | WRITEPROTECT_DONTWAKE) or mode == WRITEPROTECT_WP | WRITEPROTECT_DONTWAKE:
        raise Errno(errno.EINVAL)
    if not ctx.mm.mm_users:
        raise Errno(errno.ESRCH)
    mwriteprotect_range(ctx, start, length, bool(mode & WRITEPROTECT_WP))
    if not mode:
        ctx.wake(start, length)


_IOCTLS = {
    UFFDIO_REGISTER: uffdio_register,
    UFFDIO_UNREGISTER: uffdio_unregister,
    UFFDIO_WAKE: uffdio_wake,
    UFFDIO_COPY: uffdio_copy,
    UFFDIO_ZEROPAGE: uffdio_zeropage,
    UFFDIO_WRITEPROTECT: uffdio_writeprotect,
}

CALLS = (Call("userfaultfd", sys_userfaultfd, PARTIAL, "anonymous memory and shmem; no hugetlb areas (EINVAL)"),)
