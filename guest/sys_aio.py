"""Asynchronous I/O as system calls (fs/aio.c): contexts, submitting, cancelling, taking events."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from guest.aio import AioKiocb, Kioctx, lookup_ioctx, start_poll
from guest.clock import NSEC_PER_SEC
from guest.cred import CAP_SYS_ADMIN, CAP_SYS_NICE
from guest.sched import ERESTARTNOHAND, Restart, sleep_on
from guest.signal import restore_saved_sigmask_unless
from guest.sys_file import clip, do_read, import_iovec, max_rw_count, rw_verify_area, write_file
from guest.sys_mm import s32
from guest.sys_poll import sigmask
from guest.syscalls import FULL, Call
from guest.vfs_flags import FMODE_READ, FMODE_WRITE, S_IFMT, S_IFSOCK, s64
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, get_user, put_user
from mm.util import get_file

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

CMD_PREAD, CMD_PWRITE, CMD_FSYNC, CMD_FDSYNC, CMD_POLL, CMD_PREADV, CMD_PWRITEV = 0, 1, 2, 3, 5, 7, 8
FLAG_RESFD, FLAG_IOPRIO = 1, 2
KIOCB_KEY = 0
RWF_NOWAIT, RWF_APPEND, RWF_SUPPORTED = 8, 16, 31
_IOCB = Struct("<QIIHhIQQqQII")
_KEY = 8  # offset of aio_key
_TIMESPEC = Struct("<qq")


class Iocb(NamedTuple):
    """What the program asks for (struct iocb)."""

    data: int
    key: int
    rw_flags: int
    opcode: int
    reqprio: int
    fildes: int
    buf: int
    nbytes: int
    offset: int
    reserved2: int
    flags: int
    resfd: int


def sys_io_setup(task: Task, nr_events: int, ctxp: int) -> int:
    """io_setup(2)."""
    mm = task.mm
    nr_events &= 0xFFFFFFFF
    if get_user(task, ctxp, 8) or not nr_events or mm is None:
        raise Errno(errno.EINVAL)
    ctx = Kioctx(task.kernel, mm, nr_events)
    try:
        put_user(task, ctxp, ctx.user_id, 8)
    except Errno:
        ctx.kill()
        raise
    return 0


def sys_io_destroy(task: Task, ctx_id: int) -> int:
    """io_destroy(2): cancels what waits; returns when no other thread is submitting any more."""
    ctx: Kioctx | None = task.wait_state.get("aio")
    if ctx is None:
        ctx = _context(task, ctx_id)
        ctx.kill()
        task.wait_state["aio"] = ctx
    if ctx.submitters:
        sleep_on(task, ctx.done, killable=True)
    return 0


def _context(task: Task, ctx_id: int) -> Kioctx:
    """Raises Errno(EINVAL)."""
    ctx = lookup_ioctx(task, ctx_id)
    if ctx is None:
        raise Errno(errno.EINVAL)
    return ctx


# ---- submitting


class Submission:
    """An io_submit() under way; it lives in `task.wait_state` while one of its requests sleeps."""

    def __init__(self, ctx: Kioctx, count: int) -> None:
        self.ctx = ctx
        self.count = count
        self.done = 0
        self.request: AioKiocb | None = None  # the one that sleeps
        self.iocb: Iocb | None = None
        ctx.submitters += 1

    def leave(self) -> None:
        """It is over, or its task is killed."""
        self.ctx.submitters -= 1
        if self.request is not None:
            self.request.destroy()
        self.ctx.done.wake_all()


def sys_io_submit(task: Task, ctx_id: int, nr: int, iocbpp: int) -> int:
    """io_submit(2): how many requests were begun; an error only when the first was refused."""
    submission: Submission | None = task.wait_state.get("waiter")
    if submission is None:
        if nr >> 63:
            raise Errno(errno.EINVAL)
        ctx = _context(task, ctx_id)
        submission = Submission(ctx, min(nr, ctx.ring.nr_events))
        task.wait_state["waiter"] = submission
    try:
        while submission.done < submission.count:
            _submit_next(task, submission, iocbpp)
            submission.done += 1
    except Errno:
        if not submission.done:
            submission.leave()
            raise
    submission.leave()
    return submission.done


def _submit_next(task: Task, submission: Submission, iocbpp: int) -> None:
    """io_submit_one() for the next. Raises Errno: it was not begun; Block: it sleeps, and this is called again."""
    request, iocb = submission.request, submission.iocb
    if request is None or iocb is None:
        user_iocb = get_user(task, iocbpp + 8 * submission.done, 8)
        iocb = Iocb(*_IOCB.unpack(copy_from_user(task, user_iocb, _IOCB.size)))
        if iocb.reserved2 or iocb.nbytes >> 63:
            raise Errno(errno.EINVAL)
        if not submission.ctx.take_slot():
            raise Errno(errno.EAGAIN)
        request = AioKiocb(submission.ctx, user_iocb, iocb.data)
        submission.request, submission.iocb = request, iocb
    try:
        _begin(task, request, iocb)
    except Errno:
        request.destroy()
        submission.ctx.give_slots(1)
        submission.request = None
        raise
    submission.request = None
    task.wait_state.pop("done", None)  # what a write that slept had written


def _begin(task: Task, request: AioKiocb, iocb: Iocb) -> None:
    """__io_submit_one(). Raises Errno for what is refused at once."""
    file = request.file
    if file is None:
        file = request.file = task.files.get(s32(iocb.fildes))
        get_file(file)
        if iocb.flags & FLAG_RESFD:
            from guest.sys_file_io import EventFile

            eventfd = task.files.get(s32(iocb.resfd))
            if not isinstance(eventfd, EventFile):
                raise Errno(errno.EINVAL)
            request.eventfd = eventfd
        put_user(task, request.obj + _KEY, KIOCB_KEY, 4)
    if iocb.opcode in (CMD_PREAD, CMD_PREADV, CMD_PWRITE, CMD_PWRITEV):
        _read_or_write(task, request, file, iocb)
    elif iocb.opcode in (CMD_FSYNC, CMD_FDSYNC):
        if iocb.buf or iocb.offset or iocb.nbytes or iocb.rw_flags or not file.has_fsync:
            raise Errno(errno.EINVAL)
        request.complete(0)
    elif iocb.opcode == CMD_POLL:
        if iocb.buf >> 16 or iocb.offset or iocb.nbytes or iocb.rw_flags:
            raise Errno(errno.EINVAL)
        start_poll(task, request, file, iocb.buf)
    else:
        raise Errno(errno.EINVAL)


def _check_ioprio(task: Task, ioprio: int) -> None:
    """ioprio_check_cap(). Raises Errno EPERM, EINVAL."""
    kind, level = ioprio >> 13 & 7, ioprio & 0x1FFF
    if kind == 1 and not task.capable(CAP_SYS_ADMIN) and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    if kind > 3 or (kind in (1, 2) and level >= 8) or (kind == 0 and level):
        raise Errno(errno.EINVAL)


def _read_or_write(task: Task, request: AioKiocb, file: OpenFile, iocb: Iocb) -> None:
    """aio_read(), aio_write(): what the file says of it is the event's result. Raises Errno for what comes before."""
    write = iocb.opcode in (CMD_PWRITE, CMD_PWRITEV)
    if iocb.flags & FLAG_IOPRIO:
        _check_ioprio(task, iocb.reqprio & 0xFFFF)
    if iocb.rw_flags & ~RWF_SUPPORTED or iocb.rw_flags & RWF_NOWAIT:
        raise Errno(errno.EOPNOTSUPP)
    if not file.f_mode & (FMODE_WRITE if write else FMODE_READ):
        raise Errno(errno.EBADF)
    if not (file.has_write_iter if write else file.has_read_iter):
        raise Errno(errno.EINVAL)
    if iocb.opcode in (CMD_PREADV, CMD_PWRITEV):
        areas = import_iovec(task, iocb.buf, iocb.nbytes)
    else:
        length = min(iocb.nbytes, max_rw_count(task))
        if not access_ok(task, iocb.buf, length):
            raise Errno(errno.EFAULT)
        areas = [(iocb.buf, length)]
    total = sum(length for _, length in areas)
    allowed = rw_verify_area(task, iocb.offset, total)
    if allowed < total:
        areas = clip(areas, allowed)
    pos = 0 if file.stream else iocb.offset
    try:
        if iocb.offset and file.f_inode.i_mode & S_IFMT == S_IFSOCK:
            raise Errno(errno.ESPIPE)
        if write:
            result = write_file(task, file, pos, areas, bool(iocb.rw_flags & RWF_APPEND))[0]
        else:
            result = do_read(task, file, pos, areas) if total else 0
    except Errno as e:
        result = -e.number
    except Restart:
        result = -errno.EINTR
    request.complete(result)


def sys_io_cancel(task: Task, ctx_id: int, iocb: int, result: int) -> int:
    """io_cancel(2): EINPROGRESS when the request was cancelled; its event comes through the ring."""
    if get_user(task, iocb + _KEY, 4) != KIOCB_KEY:
        raise Errno(errno.EINVAL)
    ctx = _context(task, ctx_id)
    for poll in ctx.active:
        if poll.request.obj == iocb:
            poll.end(0)
            raise Errno(errno.EINPROGRESS)
    raise Errno(errno.EINVAL)


# ---- taking events


def _read_events(task: Task, ctx_id: int, min_nr: int, nr: int, events: int, timeout: int | None) -> int:
    """do_io_getevents(): wait until there are `min_nr`, or as long as the timeout says; how many."""
    state = task.wait_state
    ctx: Kioctx | None = state.get("aio")
    if ctx is None:
        ctx = _context(task, ctx_id)
        if not 0 <= min_nr <= nr:
            raise Errno(errno.EINVAL)
        state["aio"] = ctx
        state["aio-read"] = 0
        if timeout is not None and timeout >= 0:  # a negative one overflows to never (ktime_add_safe())
            state["deadline"] = task.kernel.clock.now + timeout
    done: int = state["aio-read"]
    deadline: int | None = state.get("deadline")
    try:
        if ctx.dead:
            raise Errno(errno.EINVAL)
        done += ctx.read_events(task, events + 32 * done, nr - done)
    except Errno:
        if done:
            return done
        raise
    if done < min_nr and not task.sigpending and (deadline is None or task.kernel.clock.now < deadline):
        state["aio-read"] = done
        sleep_on(task, ctx.wait, deadline=deadline)
    return done


def _timeout(task: Task, address: int) -> int | None:
    """Nanoseconds, which nobody checks; only of the first run of the call. Raises Errno(EFAULT)."""
    if not address or "aio" in task.wait_state:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(copy_from_user(task, address, 16))
    return int(seconds * NSEC_PER_SEC + nanoseconds)


def sys_io_getevents(task: Task, ctx_id: int, min_nr: int, nr: int, events: int, timeout: int) -> int:
    """io_getevents(2)."""
    found = _read_events(task, ctx_id, s64(min_nr), s64(nr), events, _timeout(task, timeout))
    if not found and task.sigpending:
        raise Errno(errno.EINTR)
    return found


def sys_io_pgetevents(task: Task, ctx_id: int, min_nr: int, nr: int, events: int, timeout: int, usig: int) -> int:
    """io_pgetevents(2): with a signal mask for as long as it waits."""
    limit = _timeout(task, timeout)
    if usig and "aio" not in task.wait_state:
        mask, size = Struct("<QQ").unpack(copy_from_user(task, usig, 16))
        sigmask(task, mask, size)
    try:
        found = _read_events(task, ctx_id, s64(min_nr), s64(nr), events, limit)
    except Errno:
        restore_saved_sigmask_unless(task, task.sigpending)
        raise
    interrupted = task.sigpending
    restore_saved_sigmask_unless(task, interrupted)
    if interrupted and not found:
        raise Restart(ERESTARTNOHAND)
    return found


CALLS = (
    Call("io_setup", sys_io_setup, FULL),
    Call("io_destroy", sys_io_destroy, FULL),
    Call("io_submit", sys_io_submit, FULL, "reads, writes and fsyncs are done at once"),
    Call("io_cancel", sys_io_cancel, FULL),
    Call("io_getevents", sys_io_getevents, FULL),
    Call("io_pgetevents", sys_io_pgetevents, FULL),
)
