"""Who may send a signal to whom, and sending to a process or to a group (kernel/signal.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.cred import CAP_KILL
from guest.siginfo import SIGCONT
from guest.signal import send_signal
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.siginfo import SigInfo
    from guest.task import Task


def kill_ok_by_cred(sender: Task, task: Task) -> bool:
    """Whether the sender's user ids allow it."""
    cred, tcred = sender.cred, task.cred
    return cred.euid in (tcred.suid, tcred.uid) or cred.uid in (tcred.suid, tcred.uid) or sender.capable(CAP_KILL)


def check_kill_permission(sender: Task, signo: int, info: SigInfo, task: Task) -> None:
    """Raises EINVAL for a signal number that is none, EPERM for one that may not be sent."""
    if not 0 <= signo <= 64:
        raise Errno(errno.EINVAL)
    if info.code > 0:
        return
    if sender.tgid != task.tgid and not kill_ok_by_cred(sender, task):
        if signo == SIGCONT and task.signal.session == sender.signal.session:
            return
        raise Errno(errno.EPERM)


def group_send_sig_info(sender: Task, signo: int, info: SigInfo, task: Task) -> None:
    """Check, then send to the process; signal 0 only checks."""
    check_kill_permission(sender, signo, info, task)
    if signo:
        number = send_signal(info, task, True)
        if number:
            raise Errno(number)


def kill_pgrp_info(sender: Task, signo: int, info: SigInfo, pgrp: int) -> None:
    """Send to every process of a group; it succeeds when one did (__kill_pgrp_info())."""
    success = False
    number = errno.ESRCH
    for task in list(sender.kernel.tasks.values()):
        if task.group_leader is task and task.signal.pgrp == pgrp:
            try:
                group_send_sig_info(sender, signo, info, task)
                success = True
            except Errno as e:
                number = e.number
    if not success:
        raise Errno(number)
