r"""The host's terminal as the guest's /dev/pts/0: its line discipline is the host's, job control is the guest's.

Settings and window size are passed through, so that ^C, ^Z and ^\ are what the guest set them to; emu/terminal.py
gives the signals the host makes of them to the guest's foreground group. What would outlive the run or act on the
user's other programs is not passed on: TIOCSTI, TIOCEXCL, TIOCSETD.
"""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING

from guest import termios as t
from guest.sched import sleep_on
from guest.tty import HostInodeStream, HostStream
from guest.tty_ioctl import UNIX98_PTY_SLAVE_MAJOR
from guest.tty_jobctrl import SIGTTIN, check_change, jobctrl_ioctl, open_proc_set_tty
from guest.vfs_flags import O_NOCTTY, O_NONBLOCK, S_IFCHR
from guest.vfs_types import Inode, Path, SuperBlock, makedev, new_encode_dev
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

_GET = {t.TCGETS: 36, t.TCGETS2: 44, t.TIOCGWINSZ: t.WINSIZE_BYTES}  # request -> bytes
_SET = {
    t.TCSETS: 36, t.TCSETSW: 36, t.TCSETSF: 36, t.TCSETS2: 44, t.TCSETSW2: 44, t.TCSETSF2: 44,
    t.TIOCSWINSZ: t.WINSIZE_BYTES,
}  # fmt: skip
_PASSED = (t.TCSBRK, t.TCSBRKP, t.TCXONC, t.TCFLSH)  # with a number
_TENTH = 100_000_000  # ns in a unit of VTIME
_EVER_LONG = b"\0" * 64


class HostTty:
    """The one terminal a machine can have: whose it is in the guest (struct tty_struct)."""

    index = 0
    master = False
    link = None

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.session = 0
        self.pgrp = 0
        self.exclusive = False
        self.saved: bytes | None = None  # termios before the guest changed it
        self.flow_stopped = False  # by the guest's tcflow()

    def settings(self) -> bytes:
        """struct termios as it is now. Raises OSError."""
        import fcntl

        return fcntl.ioctl(self.fd, t.TCGETS, _EVER_LONG)[: t.TERMIOS.size]

    def remember(self) -> None:
        """Before the guest's first change: what to go back to, at the latest when the interpreter ends."""
        if self.saved is None:
            import atexit

            self.saved = self.settings()
            atexit.register(self.restore)

    def restore(self) -> None:
        """Give the host its terminal back as it was."""
        import fcntl
        import signal

        if self.saved is None and not self.flow_stopped:
            return
        try:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))  # we may be in the background now
        except ValueError:
            mask = None
        try:
            if self.flow_stopped:
                fcntl.ioctl(self.fd, t.TCXONC, t.TCOON)
            if self.saved is not None:
                fcntl.ioctl(self.fd, t.TCSETS, self.saved)
        except OSError:
            pass  # the terminal is gone, and its settings with it
        finally:
            self.saved, self.flow_stopped = None, False
            if mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def apply(self, settings: bytes) -> None:
        """Set it up again for the guest, after restore()."""
        import fcntl

        try:
            self.remember()
            fcntl.ioctl(self.fd, t.TCSETS, settings)
        except OSError:
            return


class HostTtyInode(HostInodeStream):
    """/dev/pts/0."""

    def __init__(self, sb: SuperBlock, tty: HostTty) -> None:
        super().__init__(sb, tty.fd)
        self.i_mode = S_IFCHR | 0o620
        self.i_uid, self.i_gid = sb.kernel.config.uid, 5  # group tty
        self.tty = tty

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        file = HostTtyFile(path, self, flags & ~O_NOCTTY, self.tty.fd, self.tty)
        if not flags & O_NOCTTY:
            open_proc_set_tty(task, file, self.tty)
        return file


class HostTtyFile(HostStream):
    """An open file of it."""

    def __init__(self, path: Path, inode: Inode, flags: int, fd: int, tty: HostTty) -> None:
        super().__init__(path, inode, flags, fd)
        self.tty = tty

    def read(self, task: Task, pos: int, count: int) -> bytes:
        check_change(task, self.tty, SIGTTIN)
        if count and not self.left and not self.f_flags & O_NONBLOCK and not self.ready(select.POLLIN):
            deadline = self.read_deadline(task)
            if deadline is not None:
                if task.kernel.clock.now >= deadline:
                    return b""
                sleep_on(task, self.read_wait, deadline=deadline)
        return super().read(task, pos, count)

    def read_deadline(self, task: Task) -> int | None:
        """When a read without input ends: VTIME after it began, with VMIN 0."""
        try:
            *_, lflag, _, cc = t.TERMIOS.unpack(self.tty.settings())
        except OSError:
            return None
        if lflag & t.ICANON or cc[t.VMIN]:
            return None
        deadline: int = task.wait_state.setdefault("tty_deadline", task.kernel.clock.now + cc[t.VTIME] * _TENTH)
        return deadline

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if task.signal.tty is self.tty and task.signal.pgrp != self.tty.pgrp:
            try:
                tostop = t.TERMIOS.unpack(self.tty.settings())[3] & t.TOSTOP
            except OSError:
                tostop = 0
            if tostop:
                check_change(task, self.tty)
        return super().write(task, pos, data)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if jobctrl_ioctl(task, self, self.tty, self.tty, cmd, arg):
            return 0
        try:
            self.pass_on(task, cmd, arg)
        except OSError as error:
            raise Errno(error.errno or errno.ENOTTY) from None
        return 0

    def pass_on(self, task: Task, cmd: int, arg: int) -> None:
        """What the host answers, and what it must not hear of. Raises OSError, EIO, ENOTTY."""
        import fcntl

        tty = self.tty
        if cmd in _GET:
            copy_to_user(task, arg, fcntl.ioctl(tty.fd, cmd, _EVER_LONG)[: _GET[cmd]])
        elif cmd in _SET:
            check_change(task, tty)
            settings = copy_from_user(task, arg, _SET[cmd])
            if cmd != t.TIOCSWINSZ:
                tty.remember()
            fcntl.ioctl(tty.fd, cmd, settings)
        elif cmd == t.FIONREAD:
            self.fionread(task, arg)
        elif cmd == t.TIOCOUTQ:
            put_user(task, arg, int.from_bytes(fcntl.ioctl(tty.fd, cmd, bytes(4)), "little"), 4)
        elif cmd in _PASSED:
            check_change(task, tty)
            fcntl.ioctl(tty.fd, cmd, arg & 0x7FFFFFFF)
            if cmd == t.TCXONC and arg in (t.TCOOFF, t.TCOON):
                tty.flow_stopped = arg == t.TCOOFF
        elif cmd in (t.TIOCEXCL, t.TIOCNXCL):
            tty.exclusive = cmd == t.TIOCEXCL
        elif cmd == t.TIOCGEXCL:
            put_user(task, arg, int(tty.exclusive), 4)
        elif cmd == t.TIOCGETD:
            put_user(task, arg, 0, 4)
        elif cmd == t.TIOCGDEV:
            put_user(task, arg, new_encode_dev(makedev(UNIX98_PTY_SLAVE_MAJOR, tty.index)), 4)
        elif cmd == t.TIOCSTI:
            raise Errno(errno.EIO)  # as Linux with dev.tty.legacy_tiocsti=0
        else:
            raise Errno(errno.ENOTTY)
