"""Requests to terminals (drivers/tty/tty_io.c, tty_ioctl.c, pty.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest import termios as t
from guest.siginfo import SIGINT, SIGQUIT, SIGTSTP
from guest.tty_jobctrl import CAP_SYS_ADMIN, check_change, jobctrl_ioctl, kill_pgrp
from guest.vfs_types import makedev, new_encode_dev
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.tty_core import Tty, TtyFile

UNIX98_PTY_SLAVE_MAJOR = 136
SIGWINCH = 28
_GET = (t.TCGETS, t.TCGETS2, t.TCGETA)
_SET = {  # request -> (struct, forget what was typed)
    t.TCSETS: (t.TERMIOS, False), t.TCSETSW: (t.TERMIOS, False), t.TCSETSF: (t.TERMIOS, True),
    t.TCSETS2: (t.TERMIOS2, False), t.TCSETSW2: (t.TERMIOS2, False), t.TCSETSF2: (t.TERMIOS2, True),
    t.TCSETA: (t.TERMIO, False), t.TCSETAW: (t.TERMIO, False), t.TCSETAF: (t.TERMIO, True),
}  # fmt: skip
_MODEM = (t.TIOCMGET, t.TIOCMSET, t.TIOCMBIC, t.TIOCMBIS, t.TIOCSSERIAL, t.TIOCGSERIAL)


def tty_ioctl(task: Task, file: TtyFile, cmd: int, arg: int) -> int:
    """A request to a terminal. Raises ENOTTY for what no terminal knows, EIO for one that hung up."""
    tty = file.tty
    if file.hung_up:
        raise Errno(errno.ENOTTY if cmd == t.TIOCSPGRP else errno.EIO)
    real_tty = tty.link if tty.master and tty.link is not None else tty
    if cmd in _GET:
        copy_to_user(task, arg, get_termios(real_tty, cmd))
    elif cmd in _SET:
        set_termios(task, real_tty, cmd, arg)
    elif cmd == t.TIOCGWINSZ:
        copy_to_user(task, arg, real_tty.winsize)
    elif cmd == t.TIOCSWINSZ:
        resize(task, real_tty, copy_from_user(task, arg, t.WINSIZE_BYTES))
    elif jobctrl_ioctl(task, file, tty, real_tty, cmd, arg):
        return 0
    elif cmd == t.TIOCGPTPEER:
        from guest.pty import open_peer

        return open_peer(task, file, arg)
    elif not (
        (tty.master and master_ioctl(task, tty, cmd, arg))
        or line_ioctl(task, tty, cmd, arg)
        or state_ioctl(task, tty, real_tty, cmd, arg)
    ):
        raise Errno(errno.ENOTTY)
    return 0


# settings


def get_termios(tty: Tty, cmd: int) -> bytes:
    """What TCGETS, TCGETS2 or TCGETA shows."""
    flags = (tty.c_iflag, tty.c_oflag, tty.c_cflag, tty.c_lflag)
    if cmd == t.TCGETS:
        return t.TERMIOS.pack(*flags, tty.c_line, tty.c_cc)
    if cmd == t.TCGETS2:
        return t.TERMIOS2.pack(*flags, tty.c_line, tty.c_cc, tty.c_ispeed, tty.c_ospeed)
    return t.TERMIO.pack(*(word & 0xFFFF for word in flags), tty.c_line, tty.c_cc[:8])


def set_termios(task: Task, tty: Tty, cmd: int, arg: int) -> None:
    """Change the settings. Raises EFAULT; Restart for a background process."""
    check_change(task, tty)
    form, flush = _SET[cmd]
    given = form.unpack(copy_from_user(task, arg, form.size))
    flags, line, cc = list(given[:4]), given[4], bytes(given[5])
    old = (tty.c_iflag, tty.c_oflag, tty.c_cflag, tty.c_lflag)
    old_cc = bytes(tty.c_cc)
    if form is t.TERMIO:  # the low halves only
        flags = [before & ~0xFFFF | low for before, low in zip(old, flags, strict=True)]
        cc += old_cc[8:]
    if form is t.TERMIOS2:
        tty.c_ispeed, tty.c_ospeed = given[6:]
    if flush:
        tty.ldisc.flush()
    if any(tty.termios_locked):
        flags, line, cc = keep_locked(tty, flags, line, cc)
    tty.c_ospeed = t.baud_rate(flags[2], tty.c_ospeed)
    input_bits = flags[2] >> t.IBSHIFT & t.CBAUD
    tty.c_ispeed = t.baud_rate(input_bits, tty.c_ispeed) if input_bits else tty.c_ospeed
    tty.c_iflag, tty.c_oflag, tty.c_cflag, tty.c_lflag = flags
    tty.c_line = line
    tty.c_cc[:] = cc
    if not tty.master:
        pty_set_termios(tty, old, old_cc)
    tty.ldisc.settings_changed(old[3], old[0])


def keep_locked(tty: Tty, flags: list[int], line: int, cc: bytes) -> tuple[list[int], int, bytes]:
    """unset_locked_termios(): locked bits stay what they are."""
    *masks, locked_line, locked_cc = t.TERMIOS.unpack(tty.termios_locked)
    old = (tty.c_iflag, tty.c_oflag, tty.c_cflag, tty.c_lflag)
    kept = [was & mask | new & ~mask for was, mask, new in zip(old, masks, flags, strict=True)]
    chars = bytes(was if lock else new for was, lock, new in zip(tty.c_cc, locked_cc, cc, strict=True))
    return kept, tty.c_line if locked_line else line, chars


def pty_set_termios(tty: Tty, old: tuple[int, ...], old_cc: bytes) -> None:
    """A pty has eight bits and no parity; a master in packet mode hears of flow control and EXTPROC."""
    link = tty.link
    if link is not None and link.packet:
        flow = [
            bool(iflag & t.IXON) and cc[t.VSTOP] == 0x13 and cc[t.VSTART] == 0x11
            for iflag, cc in ((old[0], old_cc), (tty.c_iflag, tty.c_cc))
        ]
        if flow[0] != flow[1]:
            both = t.TIOCPKT_DOSTOP | t.TIOCPKT_NOSTOP
            tty.tell_master(t.TIOCPKT_DOSTOP if flow[1] else t.TIOCPKT_NOSTOP, both)
        if (old[3] | tty.c_lflag) & t.EXTPROC:
            tty.tell_master(t.TIOCPKT_IOCTL)
    tty.c_cflag = tty.c_cflag & ~(t.CSIZE | t.PARENB) | t.CS8 | t.CREAD


def resize(task: Task, tty: Tty, size: bytes) -> None:
    """pty_resize(): who is in the foreground is told of a change."""
    if size == tty.winsize:
        return
    for pgrp in {tty.pgrp, tty.link.pgrp if tty.link is not None else 0} - {0}:
        kill_pgrp(task.kernel, pgrp, SIGWINCH)
    tty.winsize = size
    if tty.link is not None:
        tty.link.winsize = size


# requests in groups; each returns whether it knew the request


def line_ioctl(task: Task, tty: Tty, cmd: int, arg: int) -> bool:
    """The line: queues, flow, breaks."""
    if cmd == t.FIONREAD:
        ldisc = tty.ldisc
        put_user(task, arg, ldisc.inq_canon() if ldisc.canonical() else ldisc.count(), 4)
    elif cmd == t.TIOCOUTQ:
        put_user(task, arg, 0, 4)  # pty_chars_in_buffer()
    elif cmd == t.TCFLSH:
        perform_flush(task, tty, arg)
    elif cmd == t.TCXONC:
        flow_control(task, tty, arg)
    elif cmd in (t.TCSBRK, t.TCSBRKP, t.TIOCSBRK, t.TIOCCBRK):
        check_change(task, tty)  # a pty has nothing left to send, and no break
    elif cmd == t.TIOCSTI:
        if task.signal.tty is not tty and not task.capable(CAP_SYS_ADMIN):
            raise Errno(errno.EPERM)
        tty.ldisc.receive(copy_from_user(task, arg, 1))
    else:
        return False
    return True


def perform_flush(task: Task, tty: Tty, what: int) -> None:
    """tcflush(). Raises EINVAL."""
    if what in (t.TCIFLUSH, t.TCIOFLUSH):
        tty.flip.clear()
    check_change(task, tty)
    if what not in (t.TCIFLUSH, t.TCOFLUSH, t.TCIOFLUSH):
        raise Errno(errno.EINVAL)
    if what != t.TCOFLUSH:
        tty.ldisc.flush()
    if what != t.TCIFLUSH:
        tty.flush_output()


def flow_control(task: Task, tty: Tty, what: int) -> None:
    """tcflow(). Raises EINVAL."""
    check_change(task, tty)
    if what == t.TCOOFF:
        if not tty.flow_stopped:
            tty.flow_stopped = True
            tty.stop()
    elif what == t.TCOON:
        if tty.flow_stopped:
            tty.flow_stopped = False
            tty.start()
    elif what in (t.TCIOFF, t.TCION):
        c = tty.c_cc[t.VSTOP if what == t.TCIOFF else t.VSTART]
        if c:
            was_stopped, tty.stopped = tty.stopped, False
            tty.driver_write(bytes((c,)))  # tty_send_xchar(): past a stop
            tty.stopped = was_stopped
    else:
        raise Errno(errno.EINVAL)


def state_ioctl(task: Task, tty: Tty, real_tty: Tty, cmd: int, arg: int) -> bool:
    """Everything else a terminal knows."""
    if cmd in (t.TIOCEXCL, t.TIOCNXCL):
        tty.exclusive = cmd == t.TIOCEXCL
    elif cmd == t.TIOCGEXCL:
        put_user(task, arg, int(tty.exclusive), 4)
    elif cmd == t.TIOCGETD:
        put_user(task, arg, 0, 4)  # N_TTY
    elif cmd == t.TIOCSETD:
        check_change(task, tty)
        if get_user(task, arg, 4):
            raise Errno(errno.EINVAL)
    elif cmd == t.TIOCGDEV:
        major = UNIX98_PTY_SLAVE_MAJOR
        put_user(task, arg, new_encode_dev(makedev(major, real_tty.index)), 4)
    elif cmd == t.TIOCVHANGUP:
        require_admin(task)
        tty.hangup()
    elif cmd == t.TIOCGSOFTCAR:
        put_user(task, arg, int(bool(real_tty.c_cflag & t.CLOCAL)), 4)
    elif cmd == t.TIOCSSOFTCAR:
        on = get_user(task, arg, 4)
        real_tty.c_cflag = real_tty.c_cflag & ~t.CLOCAL | (t.CLOCAL if on else 0)
    elif cmd == t.TIOCGLCKTRMIOS:
        copy_to_user(task, arg, real_tty.termios_locked)
    elif cmd == t.TIOCSLCKTRMIOS:
        require_admin(task)
        real_tty.termios_locked = copy_from_user(task, arg, t.TERMIOS.size)
    elif cmd == t.TIOCGICOUNT:
        raise Errno(errno.EINVAL)
    elif cmd in _MODEM:
        raise Errno(errno.ENOTTY)  # a pty has no modem and no port
    else:
        return False
    return True


def require_admin(task: Task) -> None:
    """Raises EPERM."""
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)


def master_ioctl(task: Task, tty: Tty, cmd: int, arg: int) -> bool:
    """pty_unix98_ioctl()."""
    link = tty.link
    if cmd == t.TIOCSPTLCK:
        tty.pty_locked = bool(get_user(task, arg, 4))
    elif cmd == t.TIOCGPTLCK:
        put_user(task, arg, int(tty.pty_locked), 4)
    elif cmd == t.TIOCPKT:
        on = bool(get_user(task, arg, 4))
        if on and not tty.packet and link is not None:
            link.ctrl_status = 0
        tty.packet = on
    elif cmd == t.TIOCGPKT:
        put_user(task, arg, int(tty.packet), 4)
    elif cmd == t.TIOCGPTN:
        put_user(task, arg, tty.index, 4)
    elif cmd == t.TIOCSIG:
        if arg & 0xFFFFFFFF not in (SIGINT, SIGQUIT, SIGTSTP):
            raise Errno(errno.EINVAL)
        if link is not None:
            link.signal_foreground(arg & 0xFFFFFFFF)
    else:
        return False
    return True
