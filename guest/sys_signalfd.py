"""signalfd (fs/signalfd.c): pending signals of a set, read as structures. What is read is taken from the queue."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.sched import WaitQueue, sleep_on
from guest.siginfo import SI_KERNEL, SI_TIMER, SI_USER, SIG_KERNEL_ONLY_MASK, SIGCHLD, SIGPOLL, SIGSYS, SigInfo
from guest.signal import dequeue_signal
from guest.syscalls import FULL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import O_CLOEXEC, O_NONBLOCK, O_RDWR, POLLIN, s32
from guest.vfs_types import Inode, Path
from mm.errors import Errno
from mm.uaccess import copy_from_user

if TYPE_CHECKING:
    from guest.task import Task

_SIGINFO = Struct("<IiiIIiIIIIiiQQQQHHiQI28x")  # struct signalfd_siginfo
_ALL = (1 << 64) - 1
_FAULTS = {4: 11, 8: 15, 7: 5, 11: 9, 5: 5}  # SIGILL, SIGFPE, SIGBUS, SIGSEGV, SIGTRAP: highest si_code of their own


def signalfd_siginfo(info: SigInfo) -> bytes:
    """signalfd_copyinfo(): one structure, by siginfo_layout()."""
    fields = info.fields.ljust(32, b"\0")
    pid = uid = fd = tid = band = overrun = status = number = lsb = syscall = arch = 0
    pointer = utime = stime = address = call_addr = 0
    signo, code = info.signo, info.code
    own = SI_USER < code < SI_KERNEL
    if own and code <= _FAULTS.get(signo, 0):
        address = int.from_bytes(fields[:8], "little")
        lsb = int.from_bytes(fields[8:10], "little") if signo == 7 and code in (4, 5) else 0
    elif own and signo == SIGCHLD and code <= 6:
        pid, uid, status, utime, stime = Struct("<IIi4xQQ").unpack(fields)
    elif own and signo == SIGSYS and code == 1:
        call_addr, syscall, arch = Struct("<QiI16x").unpack(fields)
    elif (own and code <= 6) or (signo == SIGPOLL and own) or code == -5:
        band, fd = int.from_bytes(fields[:4], "little"), int.from_bytes(fields[8:12], "little", signed=True)
    elif code == SI_TIMER:
        tid, overrun, pointer = Struct("<IIQ16x").unpack(fields)
        number = s32(pointer)
    elif code < 0:
        pid, uid, pointer = Struct("<IIQ16x").unpack(fields)
        number = s32(pointer)
    else:
        pid, uid = Struct("<II24x").unpack(fields)
    return _SIGINFO.pack(
        signo, info.errno, code, pid, uid, fd, tid, band, overrun, 0, status, number, pointer, utime, stime, address,
        lsb, 0, syscall, call_addr, arch,
    )  # fmt: skip


class SignalFile(OpenFile):
    """An open signalfd; the signals are those of whoever reads."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, wanted: int) -> None:
        super().__init__(path, inode, flags)
        self.wanted = wanted

    def read(self, task: Task, pos: int, count: int) -> bytes:
        count //= _SIGINFO.size
        if not count:
            raise Errno(errno.EINVAL)
        found = b""
        while count:
            info = dequeue_signal(task, ~self.wanted & _ALL)
            if info is None:
                break
            found += signalfd_siginfo(info)
            count -= 1
        if not found:
            if self.f_flags & O_NONBLOCK:
                raise Errno(errno.EAGAIN)
            sleep_on(task, signal_queue(task))
        return found

    def poll(self, task: Task) -> int:
        return POLLIN if (task.pending.signal | task.signal.shared_pending.signal) & self.wanted else 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (signal_queue(task),)

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """noop_llseek()."""
        return self.f_pos

    def show_fdinfo(self, sb: Any) -> str:
        return f"sigmask:\t{self.wanted:016x}\n"


def signal_queue(task: Task) -> WaitQueue:
    """The process's signalfd_wqh."""
    queue = task.sighand.signalfd_wqh
    if queue is None:
        queue = task.sighand.signalfd_wqh = WaitQueue("a signal (signalfd)")
    return queue


def sys_signalfd4(task: Task, ufd: int, user_mask: int, sizemask: int, flags: int) -> int:
    """signalfd4(2)."""
    if sizemask != 8:
        raise Errno(errno.EINVAL)
    wanted = int.from_bytes(copy_from_user(task, user_mask, 8), "little") & ~SIG_KERNEL_ONLY_MASK
    flags, ufd = flags & 0xFFFFFFFF, s32(ufd)
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    if ufd == -1:
        sb = task.kernel.vfs.anonfs
        inode = Inode(sb, 0o600)
        path = anonymous_path(sb, inode, b"anon_inode:[signalfd]")
        file = SignalFile(path, inode, O_RDWR | flags & O_NONBLOCK, wanted)
        fd: int = task.files.add(task, file, bool(flags & O_CLOEXEC))
        return fd
    old: OpenFile = task.files.get(ufd)
    if not isinstance(old, SignalFile):
        raise Errno(errno.EINVAL)
    old.wanted = wanted
    signal_queue(task).wake_all()
    return ufd


def sys_signalfd(task: Task, ufd: int, user_mask: int, sizemask: int) -> int:
    """signalfd(2)."""
    return sys_signalfd4(task, ufd, user_mask, sizemask, 0)


CALLS = (
    Call("signalfd4", sys_signalfd4, FULL),
    Call("signalfd", sys_signalfd, FULL),
)
