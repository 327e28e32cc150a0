"""splice, tee and vmsplice (fs/splice.c). Bytes are copied: no page is shared between a pipe and anything else."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.pipe import Pipe, PipeFile, send_sigpipe
from guest.sched import sleep_on
from guest.sys_file import gather, import_iovec, readable, rw_verify_area, scatter, writable
from guest.syscalls import PARTIAL, Call
from guest.vfs_flags import (
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    FMODE_WRITE,
    O_APPEND,
    O_NONBLOCK,
    POLLIN,
    POLLRDNORM,
    s32,
    s64,
)
from mm.errors import Errno
from mm.uaccess import get_user, put_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

SPLICE_F_NONBLOCK, SPLICE_F_ALL = 2, 0xF
_CHUNK = 1 << 16


def wait_for_data(task: Task, pipe: Pipe, nonblock: int) -> bool:
    """ipipe_prep(): False at the end of the pipe. Sleeps. Raises EAGAIN."""
    if pipe.bufs:
        return True
    if not pipe.writers:
        return False
    if nonblock:
        raise Errno(errno.EAGAIN)
    sleep_on(task, pipe.rd_wait)
    return False


def wait_for_space(task: Task, pipe: Pipe, nonblock: int) -> int:
    """opipe_prep(): bytes there is room for. Sleeps. Raises EPIPE with SIGPIPE, EAGAIN."""
    if not pipe.readers:
        send_sigpipe(task)
        raise Errno(errno.EPIPE)
    room = (pipe.ring_size - len(pipe.bufs)) * pipe.page_size
    if room <= 0:
        if nonblock:
            raise Errno(errno.EAGAIN)
        sleep_on(task, pipe.wr_wait)
    return room


def pushed(pipe: Pipe, data: bytes) -> int:
    """Put data into a pipe and tell its readers."""
    done = pipe.push(data)
    pipe.rd_wait.wake_all(POLLIN | POLLRDNORM)
    return done


def from_pipe(task: Task, pipe: Pipe, sink: OpenFile, off: int, count: int, nonblock: int) -> int:
    """do_splice_from()."""
    if off and not sink.f_mode & FMODE_PWRITE:
        raise Errno(errno.EINVAL)
    pos = s64(get_user(task, off, 8)) if off else sink.f_pos
    if sink.f_flags & O_APPEND:
        raise Errno(errno.EINVAL)
    count = rw_verify_area(task, pos, count)
    if not wait_for_data(task, pipe, nonblock):
        return 0
    done = sink.write(task, 0 if sink.stream else pos, pipe.peek(min(count, _CHUNK)))
    pipe.drop(done)
    if off:
        put_user(task, off, pos + done, 8)
    elif not sink.stream:
        sink.f_pos = pos + done
    return done


def to_pipe(task: Task, source: OpenFile, off: int, pipe: Pipe, count: int, nonblock: int) -> int:
    """do_splice_to()."""
    if off and not source.f_mode & FMODE_PREAD:
        raise Errno(errno.EINVAL)
    pos = s64(get_user(task, off, 8)) if off else source.f_pos
    room = wait_for_space(task, pipe, nonblock)
    count = rw_verify_area(task, pos, min(count, room))
    data = source.read(task, 0 if source.stream else pos, min(count, _CHUNK))
    done = pushed(pipe, data) if data else 0
    if source.stream:
        source.consume(done)
    elif off:
        put_user(task, off, pos + done, 8)
    else:
        source.f_pos = pos + done
    return done


def sys_splice(task: Task, fd_in: int, off_in: int, fd_out: int, off_out: int, count: int, flags: int) -> int:
    """splice(2)."""
    flags &= 0xFFFFFFFF
    if not count:
        return 0
    if flags & ~SPLICE_F_ALL:
        raise Errno(errno.EINVAL)
    source: OpenFile = task.files.get(s32(fd_in))
    sink: OpenFile = task.files.get(s32(fd_out))
    inward = source.pipe if isinstance(source, PipeFile) else None
    outward = sink.pipe if isinstance(sink, PipeFile) else None
    if (inward is not None and off_in) or (outward is not None and off_out):
        raise Errno(errno.ESPIPE)
    if not source.f_mode & FMODE_READ or not sink.f_mode & FMODE_WRITE:
        raise Errno(errno.EBADF)
    nonblock = flags & SPLICE_F_NONBLOCK
    if inward is not None and outward is not None:
        nonblock |= (source.f_flags | sink.f_flags) & O_NONBLOCK
        return pipe_to_pipe(task, inward, outward, count, nonblock, True)
    if inward is not None:
        return from_pipe(task, inward, sink, off_out, count, nonblock | source.f_flags & O_NONBLOCK)
    if outward is not None:
        return to_pipe(task, source, off_in, outward, count, nonblock | sink.f_flags & O_NONBLOCK)
    raise Errno(errno.EINVAL)


def pipe_to_pipe(task: Task, source: Pipe, sink: Pipe, count: int, nonblock: int, move: bool) -> int:
    """splice_pipe_to_pipe(), or link_pipe() when the data stays. Raises EINVAL for one and the same pipe."""
    if source is sink:
        raise Errno(errno.EINVAL)
    if not wait_for_data(task, source, nonblock):
        return 0
    room = wait_for_space(task, sink, nonblock)
    done = pushed(sink, source.peek(min(count, room)))
    if move:
        source.drop(done)
    return done


def sys_tee(task: Task, fd_in: int, fd_out: int, count: int, flags: int) -> int:
    """tee(2)."""
    flags &= 0xFFFFFFFF
    if flags & ~SPLICE_F_ALL:
        raise Errno(errno.EINVAL)
    if not count:
        return 0
    source, sink = readable(task, fd_in), writable(task, fd_out)
    if not isinstance(source, PipeFile) or not isinstance(sink, PipeFile):
        raise Errno(errno.EINVAL)
    nonblock = flags & SPLICE_F_NONBLOCK | (source.f_flags | sink.f_flags) & O_NONBLOCK
    return pipe_to_pipe(task, source.pipe, sink.pipe, count, nonblock, False)


def sys_vmsplice(task: Task, fd: int, vec: int, count: int, flags: int) -> int:
    """vmsplice(2): into the end that is written, out of the one that is read. Raises EBADF for what is no pipe."""
    flags &= 0xFFFFFFFF
    if flags & ~SPLICE_F_ALL:
        raise Errno(errno.EINVAL)
    file: OpenFile = task.files.get(s32(fd))
    areas = import_iovec(task, vec, count)
    if not isinstance(file, PipeFile):
        raise Errno(errno.EBADF)
    total = sum(length for _, length in areas)
    if not total:
        return 0
    nonblock = flags & SPLICE_F_NONBLOCK | file.f_flags & O_NONBLOCK
    if file.f_mode & FMODE_WRITE:
        room = wait_for_space(task, file.pipe, nonblock)
        data = gather(task, areas, 0, min(total, room))
        if not data:
            raise Errno(errno.EFAULT)
        return pushed(file.pipe, data)
    if not wait_for_data(task, file.pipe, nonblock):
        return 0
    done = scatter(task, areas, 0, file.pipe.peek(total))
    file.pipe.drop(done)
    if not done:
        raise Errno(errno.EFAULT)
    return done


CALLS = (
    Call("splice", sys_splice, PARTIAL, "bytes are copied; at most 64 KiB in one call"),
    Call("tee", sys_tee, PARTIAL, "bytes are copied"),
    Call("vmsplice", sys_vmsplice, PARTIAL, "bytes are copied"),
)
