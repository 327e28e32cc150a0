"""O_ASYNC: a signal for the owner of an open file when reading or writing has become possible (fs/fcntl.c).

F_SETOWN makes file.f_owner (who), F_SETSIG file.f_sig (which signal), and O_ASYNC an entry (file, descriptor) in the
lists of the pipe's end, socket or terminal (file.fasync_lists()). Then:

data arrives --> kill_fasync(list, POLL_IN) --> send_sigio(file, descriptor, POLL_IN) --> send_signal()
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.siginfo import SI_KERNEL, SI_SIGIO, SIGPOLL, SIGURG, SigInfo, kill_info, sig_specific_sicodes
from guest.signal import send_signal
from guest.vfs_flags import FASYNC
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.task import Task

F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP = 0, 1, 2
POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = 1, 2, 3, 4, 5, 6
_BANDS = (0, 0x41, 0x304, 0x441, 0x08, 0x82, 0x18)  # the poll mask that goes with each (band_table)


class FOwner:
    """Who is told, and by whose authority (struct fown_struct)."""

    __slots__ = ("euid", "kind", "pid", "uid")

    def __init__(self, pid: int, kind: int, uid: int, euid: int) -> None:
        self.pid = pid
        self.kind = kind
        self.uid = uid
        self.euid = euid

    def targets(self, kernel: Kernel) -> list[Task]:
        """The tasks meant that are alive."""
        if self.kind == F_OWNER_PGRP:
            leaders = (task for task in kernel.tasks.values() if task.group_leader is task)
            return [task for task in leaders if task.signal.pgrp == self.pid]
        task = kernel.find_task(self.pid)
        return [task] if task is not None and (self.kind == F_OWNER_TID or task.group_leader is task) else []

    def may_signal(self, task: Task) -> bool:
        """sigio_perm()."""
        cred = task.cred
        return self.euid == 0 or not {self.euid, self.uid}.isdisjoint((cred.suid, cred.uid))


def f_setown(task: Task, file: OpenFile, pid: int, kind: int) -> None:
    """Make `pid` (0: nobody) the owner (__f_setown())."""
    file.f_owner = FOwner(pid, kind, task.cred.uid, task.cred.euid)


def f_setown_number(task: Task, file: OpenFile, who: int) -> None:
    """F_SETOWN: a process, or minus a process group. Raises EINVAL, ESRCH (f_setown())."""
    if who == -(1 << 31):
        raise Errno(errno.EINVAL)
    kind = F_OWNER_PGRP if who < 0 else F_OWNER_PID
    f_setown(task, file, _find_vpid(task, abs(who)), kind)


def f_setown_ex(task: Task, file: OpenFile, kind: int, pid: int) -> None:
    """F_SETOWN_EX. Raises EINVAL, ESRCH."""
    if kind not in (F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP):
        raise Errno(errno.EINVAL)
    f_setown(task, file, _find_vpid(task, pid), kind)


def f_getown(task: Task, file: OpenFile) -> int:
    """F_GETOWN: a process group is negative."""
    owner = file.f_owner
    if owner is None:
        return 0
    return -task.vnr(owner.pid) if owner.kind == F_OWNER_PGRP else task.vnr(owner.pid)


def _find_vpid(task: Task, nr: int) -> int:
    """What a number stands for, 0 nobody. Raises Errno(ESRCH) where no task, process group or session goes by it."""
    pid = task.vpid(nr) if nr else 0
    if pid and not task.kernel.pid_in_use(pid):
        raise Errno(errno.ESRCH)
    return pid


def set_async(task: Task, fd: int, file: OpenFile, on: int) -> None:
    """Switch O_ASYNC (fasync_helper()). Raises ENOTTY for a kind of file without f_op->fasync."""
    if not file.can_fasync:
        raise Errno(errno.ENOTTY)
    file.stop_fasync()
    if on:
        for entries in file.fasync_lists():
            entries.append((file, fd))
        owner = file.async_owner(task)
        if owner:
            f_setown(task, file, *owner)
    file.f_flags = file.f_flags | FASYNC if on else file.f_flags & ~FASYNC


def kill_fasync(kernel: Kernel, entries: list[Any], band: int, signo: int = SIGPOLL) -> None:
    """Tell every owner in a list; SIGURG has its own way unless F_SETSIG chose a signal."""
    for file, fd in entries[:]:
        if signo != SIGURG or file.f_sig:
            send_sigio(kernel, file, fd, band)


def send_sigio(kernel: Kernel, file: OpenFile, fd: int, band: int) -> None:
    """F_SETSIG's signal with the descriptor and what became possible; SIGIO without it or when the queue is full.

    Args:
        band: POLL_IN, POLL_OUT, ...: the signal's code.
    """
    owner, signo = file.f_owner, file.f_sig
    if owner is None or not owner.pid:
        return
    group = owner.kind != F_OWNER_TID
    for target in owner.targets(kernel):
        if not owner.may_signal(target):
            continue
        if signo:
            code = SI_SIGIO if signo != SIGPOLL and sig_specific_sicodes(signo) else band
            body = _BANDS[band].to_bytes(8, "little") + (fd & 0xFFFFFFFF).to_bytes(4, "little")
            if not send_signal(SigInfo(signo, code, body), target, group):
                continue
        send_signal(kill_info(SIGPOLL, SI_KERNEL, 0, 0), target, group)


def send_sigurg(kernel: Kernel, file: OpenFile) -> bool:
    """Out-of-band data has come: SIGURG for the owner; whether there is one."""
    owner = file.f_owner
    if owner is None or not owner.pid:
        return False
    for target in owner.targets(kernel):
        if owner.may_signal(target):
            send_signal(kill_info(SIGURG, SI_KERNEL, 0, 0), target, owner.kind != F_OWNER_TID)
    return True
