"""Process file descriptors (kernel/pid.c, the pidfd part of kernel/fork.c and signal.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.kill import group_send_sig_info
from guest.sched import TASK_DEAD, TASK_ZOMBIE
from guest.siginfo import SI_TKILL, SI_USER, kill_info, known_siginfo_layout, unpack_siginfo
from guest.sys_mm import s32
from guest.syscalls import FULL, Call
from guest.vfs_flags import O_CLOEXEC, O_NONBLOCK, O_RDWR, POLLIN
from guest.vfs_types import Inode, Path
from mm.errors import Errno
from mm.uaccess import copy_from_user

if TYPE_CHECKING:
    from guest.task import Task


class PidFile(OpenFile):
    """A process one can wait for and send signals to."""

    stream = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, task: Task) -> None:
        super().__init__(path, inode, flags)
        self.pidfd_task = task

    def poll(self, task: Task) -> int:
        dead = self.pidfd_task.exit_state in (TASK_ZOMBIE, TASK_DEAD)
        return POLLIN if dead and all(t is self.pidfd_task for t in self.pidfd_task.signal.threads) else 0

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.pidfd_task.signal.wait_pidfd,)

    def show_fdinfo(self, sb: Any) -> str:
        target = self.pidfd_task
        if target.exit_state == TASK_DEAD:
            return "Pid:\t-1\nNSpid:\t-1\n"
        space, numbers = target.pid_ns, ""
        while space is not None and space is not sb.pid_ns:
            numbers = f"\t{space.numbers.get(target.pid, 0)}" + numbers
            space = space.parent
        pid = sb.pid_nr(target.pid)
        return f"Pid:\t{pid}\nNSpid:\t{pid}{numbers if pid else ''}\n"


def make_pidfd(task: Task, target: Task, flags: int) -> int:
    """A new descriptor of `task` for the process `target`."""
    from guest.tty import anonymous_path

    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    file = PidFile(anonymous_path(sb, inode, b"anon_inode:[pidfd]"), inode, O_RDWR | flags & O_NONBLOCK, target)
    fd: int = task.files.add(task, file, True)
    return fd


def _get(task: Task, fd: int) -> PidFile:
    file = task.files.get(fd)
    if not isinstance(file, PidFile):
        raise Errno(errno.EBADF)
    return file


def _addressee(task: Task, fd: int) -> Task:
    """Whom a signal goes to: of a pidfd, or of an open /proc/PID (tgid_pidfd_to_pid()). Raises Errno(EBADF)."""
    file = task.files.get(fd)
    if isinstance(file, PidFile):
        return file.pidfd_task
    from guest.procfs import ProcPid, task_ino

    inode = file.f_inode
    if not isinstance(inode, ProcPid) or inode.subject is None or inode.i_ino != task_ino(inode.subject):
        raise Errno(errno.EBADF)
    return inode.subject


def pidfd_pid(task: Task, fd: int) -> tuple[int, bool]:
    """The pid a descriptor stands for, for waitid, and whether a wait for it must not sleep. Raises Errno(EBADF)."""
    file = _get(task, fd)
    return file.pidfd_task.pid, bool(file.f_flags & O_NONBLOCK)


def sys_pidfd_open(task: Task, pid: int, flags: int) -> int:
    """pidfd_open."""
    pid, flags = s32(pid), flags & 0xFFFFFFFF
    if flags & ~O_NONBLOCK or pid <= 0:
        raise Errno(errno.EINVAL)
    target = task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    if target.group_leader is not target:
        raise Errno(errno.EINVAL)
    return make_pidfd(task, target, flags | O_CLOEXEC)


def sys_pidfd_send_signal(task: Task, pidfd: int, sig: int, info: int, flags: int) -> int:
    """pidfd_send_signal."""
    if flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    target = _addressee(task, s32(pidfd))
    sig = s32(sig)
    if info:
        siginfo = unpack_siginfo(copy_from_user(task, info, 48))
        if not known_siginfo_layout(siginfo.signo, siginfo.code) and any(copy_from_user(task, info + 48, 80)):
            raise Errno(errno.E2BIG)
        if siginfo.signo != sig:
            raise Errno(errno.EINVAL)
        if target.tgid != task.tgid and (siginfo.code >= 0 or siginfo.code == SI_TKILL):
            raise Errno(errno.EPERM)
    else:
        siginfo = kill_info(sig, SI_USER, task.vnr(task.tgid), task.cred.uid)
    if target.exit_state == TASK_DEAD:
        raise Errno(errno.ESRCH)
    group_send_sig_info(task, sig, siginfo, target)
    return 0


def sys_pidfd_getfd(task: Task, pidfd: int, fd: int, flags: int) -> int:
    """pidfd_getfd."""
    if flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    target = _get(task, s32(pidfd)).pidfd_task
    if target.files is None:
        raise Errno(errno.ESRCH)
    from guest.ptrace_access import PTRACE_MODE_ATTACH_REALCREDS, ptrace_may_access

    if not ptrace_may_access(task, target, PTRACE_MODE_ATTACH_REALCREDS):
        raise Errno(errno.EPERM)
    file = target.files.get_raw(s32(fd))
    file.f_count += 1
    new: int = task.files.add(task, file, True)
    return new


CALLS = (
    Call("pidfd_open", sys_pidfd_open, FULL),
    Call("pidfd_send_signal", sys_pidfd_send_signal, FULL),
    Call("pidfd_getfd", sys_pidfd_getfd, FULL),
)
