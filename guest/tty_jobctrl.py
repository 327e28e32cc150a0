"""Job control: who may use a terminal, whose it is, and who is told when it goes (drivers/tty/tty_jobctrl.c).

`session` and `pgrp` of a terminal are ids, 0 for none; `task.signal.tty` is the process's controlling terminal.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.sched import ERESTARTSYS, Restart
from guest.siginfo import SI_KERNEL, SI_USER, SIG_IGN, SIGCONT, SIGHUP, kill_info
from guest.signal import send_signal
from guest.termios import TIOCGPGRP, TIOCGSID, TIOCNOTTY, TIOCSCTTY, TIOCSPGRP
from guest.vfs_flags import FMODE_READ
from mm.errors import Errno
from mm.uaccess import get_user, put_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.task import Task

SIGTTIN, SIGTTOU = 21, 22
CAP_SYS_ADMIN = 21


def kill_pgrp(kernel: Kernel, pgrp: int, signo: int, sender: Task | None = None) -> None:
    """A signal of the kernel's, or of `sender`, for every process of a group."""
    for task in list(kernel.tasks.values()):
        if task.group_leader is task and task.signal.pgrp == pgrp and not task.exit_state and task is not kernel.init:
            if sender is None:
                info = kill_info(signo, SI_KERNEL, 0, 0)
            else:
                info = kill_info(signo, SI_USER, task.vnr(sender.tgid), sender.cred.uid)
            send_signal(info, task, True)


def check_change(task: Task, tty: Any, signo: int = SIGTTOU) -> None:
    """__tty_check_change(): a background process of the terminal's session is stopped.

    Raises:
        Restart: it was sent `signo`.
        Errno: EIO where that is of no use: an orphaned group, or a SIGTTIN it does not want to hear of.
    """
    signal = task.signal
    if signal.tty is not tty or not tty.pgrp or signal.pgrp == tty.pgrp:
        return
    if task.blocked >> (signo - 1) & 1 or task.sighand.action[signo].handler == SIG_IGN:
        if signo == SIGTTIN:
            raise Errno(errno.EIO)
        return
    if task.kernel.is_orphaned_pgrp(signal.pgrp):
        raise Errno(errno.EIO)
    kill_pgrp(task.kernel, signal.pgrp, signo)
    task.sigpending = True
    raise Restart(ERESTARTSYS)


def proc_set_tty(task: Task, tty: Any) -> None:
    """`tty` becomes the controlling terminal of the task's session."""
    signal = task.signal
    tty.session, tty.pgrp = signal.session, signal.pgrp
    signal.tty = tty
    signal.tty_old_pgrp = 0


def session_clear_tty(kernel: Kernel, session: int) -> None:
    """Nobody of the session has a controlling terminal any more."""
    for task in kernel.tasks.values():
        if session and task.signal.session == session:
            task.signal.tty = None


def open_proc_set_tty(task: Task, file: OpenFile, tty: Any) -> None:
    """A session leader without a terminal that opens one for reading gets it."""
    signal = task.signal
    if signal.leader and signal.tty is None and not tty.session and file.f_mode & FMODE_READ:
        proc_set_tty(task, tty)


def signal_session_leader(kernel: Kernel, tty: Any) -> None:
    """tty_signal_session_leader(): SIGHUP and SIGCONT for the leader of the terminal's session."""
    if not tty.session:
        return
    for task in list(kernel.tasks.values()):
        if task.group_leader is not task or task.signal.session != tty.session:
            continue
        if task.signal.tty is tty:
            task.signal.tty = None
        if task.signal.leader and not task.exit_state:
            for signo in (SIGHUP, SIGCONT):
                send_signal(kill_info(signo, SI_KERNEL, 0, 0), task, True)
            if tty.pgrp:
                task.signal.tty_old_pgrp = tty.pgrp


def disassociate_ctty(task: Task, on_exit: bool) -> None:
    """The session leader exits, or lets its terminal go: the foreground group is told, the session has none."""
    signal, kernel = task.signal, task.kernel
    if not signal.leader:
        return
    tty = signal.tty
    sender = None if on_exit else task
    if tty is None:
        if on_exit:
            pgrp, signal.tty_old_pgrp = signal.tty_old_pgrp, 0
            if pgrp:
                kill_pgrp(kernel, pgrp, SIGHUP)
                kill_pgrp(kernel, pgrp, SIGCONT)
            return
    else:
        if tty.pgrp:
            kill_pgrp(kernel, tty.pgrp, SIGHUP, sender)
            if not on_exit:
                kill_pgrp(kernel, tty.pgrp, SIGCONT, sender)
        tty.session = tty.pgrp = 0
    signal.tty_old_pgrp = 0
    session_clear_tty(kernel, signal.session)


def jobctrl_ioctl(task: Task, file: OpenFile, tty: Any, real_tty: Any, cmd: int, arg: int) -> bool:
    """tty_jobctrl_ioctl(); False: the request is none of these. `real_tty` is the slave where `tty` is a master.

    Raises ENOTTY, EPERM, ESRCH, EINVAL, EFAULT.
    """
    if cmd == TIOCNOTTY:
        if task.signal.tty is not tty:
            raise Errno(errno.ENOTTY)
        disassociate_ctty(task, False)
        task.signal.tty = None
    elif cmd == TIOCSCTTY:
        set_controlling(task, file, real_tty, arg)
    elif cmd == TIOCGPGRP:
        if tty is real_tty and task.signal.tty is not real_tty:
            raise Errno(errno.ENOTTY)
        put_user(task, arg, task.vnr(real_tty.pgrp), 4)
    elif cmd == TIOCSPGRP:
        set_foreground(task, real_tty, arg)
    elif cmd == TIOCGSID:
        if (tty is real_tty and task.signal.tty is not real_tty) or not real_tty.session:
            raise Errno(errno.ENOTTY)
        put_user(task, arg, task.vnr(real_tty.session), 4)
    else:
        return False
    return True


def set_controlling(task: Task, file: OpenFile, tty: Any, arg: int) -> None:
    """tiocsctty(). Raises EPERM."""
    signal = task.signal
    if signal.leader and signal.session == tty.session:
        return
    if not signal.leader or signal.tty is not None:
        raise Errno(errno.EPERM)
    if tty.session:
        if arg & 0xFFFFFFFF != 1 or not task.capable(CAP_SYS_ADMIN):
            raise Errno(errno.EPERM)
        session_clear_tty(task.kernel, tty.session)
    if not file.f_mode & FMODE_READ and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    proc_set_tty(task, tty)


def set_foreground(task: Task, tty: Any, arg: int) -> None:
    """tiocspgrp(). Raises ENOTTY, EINVAL, ESRCH, EPERM."""
    try:
        check_change(task, tty)
    except Errno:
        raise Errno(errno.ENOTTY) from None
    pgrp = get_user(task, arg, 4)
    if pgrp >> 31:
        raise Errno(errno.EINVAL)
    if task.signal.tty is not tty or tty.session != task.signal.session:
        raise Errno(errno.ENOTTY)
    pgrp = task.vpid(pgrp)
    members = [t for t in task.kernel.tasks.values() if t.signal.pgrp == pgrp]
    member = members[0] if members else task.kernel.tasks.get(pgrp)
    if member is None:
        raise Errno(errno.ESRCH)
    if member.signal.session != task.signal.session:
        raise Errno(errno.EPERM)
    tty.pgrp = pgrp
