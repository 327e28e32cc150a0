"""open, close, dup, fcntl, pipes (fs/open.c, file.c, fcntl.c, pipe.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.fasync import F_OWNER_TID, f_getown, f_setown_ex, f_setown_number, set_async
from guest.file import get_file
from guest.namei import owner_or_capable, path_openat
from guest.pipe import PIPE_DEF_BUFFERS, PIPE_MAX_SIZE, Pipe, PipeFile, PipeInode
from guest.sys_file import getname
from guest.sys_file_lock import fcntl_lock
from guest.syscalls import FULL, PARTIAL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import (
    AT_FDCWD,
    FASYNC,
    FMODE_PATH,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECT,
    O_NOATIME,
    O_NONBLOCK,
    O_PATH,
    O_PATH_FLAGS,
    O_RDONLY,
    O_TMPFILE,
    O_TMPFILE_BIT,
    O_TRUNC,
    O_WRONLY,
    S_IALLUGO,
    S_IFIFO,
    SETFL_MASK,
    VALID_OPEN_FLAGS,
    s32,
)
from mm.errors import Errno
from mm.flags import RLIMIT_NOFILE
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL = range(5)
F_GETLK, F_SETLK, F_SETLKW, F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG = range(5, 12)
F_SETOWN_EX, F_GETOWN_EX = 15, 16
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
F_SETLEASE, F_GETLEASE, F_NOTIFY = 1024, 1025, 1026
F_DUPFD_CLOEXEC = 1030
F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS = 1031, 1032, 1033, 1034
FD_CLOEXEC = 1
_O_PATH_COMMANDS = (F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL)
CLOSE_RANGE_UNSHARE = 2  # CLOSE_RANGE_CLOEXEC came with 5.11
CAP_SYS_RESOURCE = 24


def check_flags(flags: int, mode: int) -> tuple[int, int]:
    """build_open_flags() after force_o_largefile: the flags and mode of an open. Raises EINVAL."""
    flags &= VALID_OPEN_FLAGS
    if flags & O_TMPFILE_BIT:
        if flags & O_TMPFILE != O_TMPFILE or flags & O_ACCMODE == O_RDONLY:
            raise Errno(errno.EINVAL)
    elif not flags & O_CREAT:
        mode = 0
    if flags & O_PATH:
        flags &= O_PATH_FLAGS
    return flags, mode & S_IALLUGO


def do_sys_open(task: Task, dfd: int, name: int, flags: int, mode: int, resolve: int = 0) -> int:
    """A new descriptor."""
    flags, mode = check_flags(task.kernel.vfs.abi.flags_in(flags & 0xFFFFFFFF), mode)
    path = getname(task, name)
    fd: int = task.files.unused(task)
    file = path_openat(task, s32(dfd), path, flags & ~O_CLOEXEC, mode, resolve)
    task.files.install(fd, file, bool(flags & O_CLOEXEC))
    return fd


def sys_open(task: Task, name: int, flags: int, mode: int) -> int:
    """open(2)."""
    return do_sys_open(task, AT_FDCWD, name, flags | 0o100000, mode)


def sys_openat(task: Task, dfd: int, name: int, flags: int, mode: int) -> int:
    """openat(2)."""
    return do_sys_open(task, dfd, name, flags | task.kernel.vfs.abi.flags_out(0o100000), mode)


def sys_creat(task: Task, name: int, mode: int) -> int:
    """creat(2)."""
    return do_sys_open(task, AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode)


def sys_close(task: Task, fd: int) -> int:
    """close(2)."""
    task.files.close(s32(fd), task)
    return 0


def sys_close_range(task: Task, first: int, last: int, flags: int) -> int:
    """close_range(2)."""
    first, last, flags = first & 0xFFFFFFFF, last & 0xFFFFFFFF, flags & 0xFFFFFFFF
    if flags & ~CLOSE_RANGE_UNSHARE or first > last:
        raise Errno(errno.EINVAL)
    if flags & CLOSE_RANGE_UNSHARE and task.files.count > 1:
        shared = task.files
        task.files = shared.copy()
        shared.count -= 1
    for fd in task.files.open_fds():
        if first <= fd <= last:
            task.files.close(fd, task)
    return 0


def sys_dup(task: Task, fd: int) -> int:
    """dup(2)."""
    file = get_file(task.files.get_raw(s32(fd)))
    new: int = task.files.add(task, file)
    return new


def sys_dup2(task: Task, old: int, new: int) -> int:
    """dup2(2)."""
    if s32(old) == s32(new):
        task.files.get_raw(s32(old))
        return s32(new)
    return do_dup3(task, s32(old), s32(new), False)


def sys_dup3(task: Task, old: int, new: int, flags: int) -> int:
    """dup3(2)."""
    flags = task.kernel.vfs.abi.flags_in(flags & 0xFFFFFFFF)
    if flags & ~O_CLOEXEC or s32(old) == s32(new):
        raise Errno(errno.EINVAL)
    return do_dup3(task, s32(old), s32(new), bool(flags & O_CLOEXEC))


def do_dup3(task: Task, old: int, new: int, cloexec: bool) -> int:
    """ksys_dup3(): close `new` quietly and make it the same file as `old`."""
    if not 0 <= new < task.rlim[RLIMIT_NOFILE][0]:
        raise Errno(errno.EBADF)
    files = task.files
    file = files.get_raw(old)
    files.expand(task, new)
    get_file(file)
    if new < len(files.fd) and files.fd[new] is not None:
        files.close(new, task)
    files.install(new, file, cloexec)
    return new


# fcntl


def sys_fcntl(task: Task, fd: int, cmd: int, arg: int) -> int:
    """fcntl(2)."""
    fd, cmd = s32(fd), s32(cmd)
    file: OpenFile = task.files.get_raw(fd)
    if file.f_mode & FMODE_PATH and cmd not in _O_PATH_COMMANDS:
        raise Errno(errno.EBADF)
    if cmd in (F_DUPFD, F_DUPFD_CLOEXEC):
        return f_dupfd(task, file, arg, cmd == F_DUPFD_CLOEXEC)
    if cmd == F_GETFD:
        return FD_CLOEXEC if fd in task.files.close_on_exec_fds else 0
    if cmd == F_SETFD:
        task.files.install(fd, file, bool(arg & FD_CLOEXEC))
        return 0
    if cmd == F_GETFL:
        flags: int = task.kernel.vfs.abi.flags_out(file.f_flags)
        return flags
    if cmd == F_SETFL:
        return setfl(task, fd, file, task.kernel.vfs.abi.flags_in(arg & 0xFFFFFFFF))
    if cmd in (F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW):
        return fcntl_lock(task, file, cmd, arg)
    if cmd in (F_SETLEASE, F_GETLEASE):
        from guest.sys_lease import fcntl_getlease, fcntl_setlease

        return fcntl_getlease(file) if cmd == F_GETLEASE else fcntl_setlease(task, fd, file, arg)
    return do_fcntl(task, file, cmd, arg)


def do_fcntl(task: Task, file: OpenFile, cmd: int, arg: int) -> int:
    """The other commands: owners, pipes, seals, leases. Raises EINVAL for what is unknown."""
    if cmd == F_SETOWN:
        f_setown_number(task, file, s32(arg))
        return 0
    if cmd == F_GETOWN:
        return f_getown(task, file)
    if cmd == F_SETSIG:
        if arg > 64:
            raise Errno(errno.EINVAL)
        file.f_sig = arg
        return 0
    if cmd == F_GETSIG:
        return file.f_sig
    if cmd == F_SETOWN_EX:
        kind, pid = memoryview(copy_from_user(task, arg, 8)).cast("i")
        f_setown_ex(task, file, kind, pid)
        return 0
    if cmd == F_GETOWN_EX:
        owner = file.f_owner
        kind, pid = (owner.kind, task.vnr(owner.pid)) if owner is not None else (F_OWNER_TID, 0)
        copy_to_user(task, arg, kind.to_bytes(4, "little") + pid.to_bytes(4, "little"))
        return 0
    if cmd in (F_SETPIPE_SZ, F_GETPIPE_SZ):
        return pipe_fcntl(task, file, cmd, arg & 0xFFFFFFFF)
    if cmd == F_ADD_SEALS:
        from mm.memfd import memfd_add_seals

        memfd_add_seals(file, arg & 0xFFFFFFFF)
        return 0
    if cmd == F_GET_SEALS:
        from mm.memfd import memfd_get_seals

        return memfd_get_seals(file)
    raise Errno(errno.EINVAL)


def f_dupfd(task: Task, file: OpenFile, start: int, cloexec: bool) -> int:
    """Raises EINVAL, EMFILE."""
    if start >= task.rlim[RLIMIT_NOFILE][0]:
        raise Errno(errno.EINVAL)
    fd: int = task.files.unused(task, start)
    task.files.install(fd, get_file(file), cloexec)
    return fd


def setfl(task: Task, fd: int, file: OpenFile, flags: int) -> int:
    """Change the flags that can change. Raises EPERM, EINVAL."""
    if flags & O_NOATIME and not file.f_flags & O_NOATIME and not owner_or_capable(task, file.f_inode):
        raise Errno(errno.EPERM)
    if flags & O_DIRECT and file.f_inode.is_reg():
        raise Errno(errno.EINVAL)
    if (flags ^ file.f_flags) & FASYNC and file.can_fasync:
        set_async(task, fd, file, flags & FASYNC)
    file.setfl((flags & SETFL_MASK) | (file.f_flags & ~SETFL_MASK))
    return 0


def pipe_fcntl(task: Task, file: OpenFile, cmd: int, arg: int) -> int:
    """F_SETPIPE_SZ and F_GETPIPE_SZ. Raises EBADF, EINVAL, EPERM, EBUSY."""
    if not isinstance(file, PipeFile):
        raise Errno(errno.EBADF)
    pipe = file.pipe
    if cmd == F_GETPIPE_SZ:
        return pipe.ring_size * pipe.page_size
    if arg > 1 << 31:
        raise Errno(errno.EINVAL)
    size = max(arg, pipe.page_size)
    slots = 1 << (-(-size // pipe.page_size) - 1).bit_length()
    if slots > pipe.ring_size and slots * pipe.page_size > PIPE_MAX_SIZE and not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EPERM)
    if slots < len(pipe.bufs):
        raise Errno(errno.EBUSY)
    pipe.ring_size = slots
    pipe.wr_wait.wake_all()
    return slots * pipe.page_size


# pipes


def sys_pipe2(task: Task, fds: int, flags: int) -> int:
    """pipe2(2)."""
    flags = task.kernel.vfs.abi.flags_in(flags & 0xFFFFFFFF)
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT):
        raise Errno(errno.EINVAL)
    vfs, files = task.kernel.vfs, task.files
    inode = PipeInode(vfs.pipefs, S_IFIFO | 0o600, task.cred.fsuid, task.cred.fsgid)
    pipe = inode.i_pipe = Pipe(task.system.arch.page_size)
    pipe.ring_size = PIPE_DEF_BUFFERS
    path = anonymous_path(vfs.pipefs, inode, b"pipe:[%d]" % inode.i_ino)
    keep = flags & ~O_CLOEXEC
    cloexec = bool(flags & O_CLOEXEC)
    first = files.add(task, PipeFile(path, inode, O_RDONLY | keep & O_NONBLOCK, pipe), cloexec)
    try:
        second = files.add(task, PipeFile(path, inode, O_WRONLY | keep, pipe), cloexec)
        try:
            copy_to_user(task, fds, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
        except Errno:
            files.close(second, task)
            raise
    except Errno:
        files.close(first, task)
        raise
    return 0


def sys_pipe(task: Task, fds: int) -> int:
    """pipe(2)."""
    return sys_pipe2(task, fds, 0)


def ioctl_fioasync(task: Task, fd: int, file: OpenFile, arg: int) -> int:
    """Switch O_ASYNC on or off. Raises ENOTTY for a kind without f_op->fasync."""
    on = FASYNC if any(copy_from_user(task, arg, 4)) else 0
    if (on ^ file.f_flags) & FASYNC:
        set_async(task, fd, file, on)
    return 0


def sys_ioctl(task: Task, fd: int, cmd: int, arg: int) -> int:
    """ioctl(2): the generic ones, then the file's own."""
    fd, cmd = s32(fd), cmd & 0xFFFFFFFF
    file: OpenFile = task.files.get(fd)
    if cmd == 0x5451:  # FIOCLEX
        task.files.install(fd, file, True)
        return 0
    if cmd == 0x5450:  # FIONCLEX
        task.files.install(fd, file, False)
        return 0
    if cmd == 0x5421:  # FIONBIO
        on = int.from_bytes(copy_from_user(task, arg, 4), "little")
        file.setfl(file.f_flags | O_NONBLOCK if on else file.f_flags & ~O_NONBLOCK)
        return 0
    if cmd == 0x5452:  # FIOASYNC
        return ioctl_fioasync(task, fd, file, arg)
    if cmd == 0x541B and file.f_inode.is_reg() and not file.stream:  # FIONREAD
        left = file.f_inode.i_size - file.f_pos
        copy_to_user(task, arg, (left & 0xFFFFFFFF).to_bytes(4, "little"))
        return 0
    return file.ioctl(task, cmd, arg)


CALLS = (
    Call("open", sys_open, FULL, ""),
    Call("openat", sys_openat, FULL, ""),
    Call("creat", sys_creat, FULL, ""),
    Call("close", sys_close, FULL, ""),
    Call("close_range", sys_close_range, FULL, ""),
    Call("dup", sys_dup, FULL, ""),
    Call("dup2", sys_dup2, FULL, ""),
    Call("dup3", sys_dup3, FULL, ""),
    Call("fcntl", sys_fcntl, FULL, ""),
    Call("ioctl", sys_ioctl, PARTIAL, "terminals, FIONREAD, FIONBIO, FIOCLEX; others as the file kind refuses them"),
    Call("pipe", sys_pipe, FULL, ""),
    Call("pipe2", sys_pipe2, FULL, ""),
)
