"""Terminals and open files of them (struct tty_struct, drivers/tty/tty_io.c), with the line discipline of n_tty.py."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.fasync import F_OWNER_PGRP, F_OWNER_PID, POLL_IN, kill_fasync
from guest.file import OpenFile
from guest.n_tty import NTty
from guest.sched import WaitQueue, sleep_on
from guest.termios import (
    B38400,
    CREAD,
    CS8,
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ICANON,
    ICRNL,
    IEXTEN,
    INIT_C_CC,
    ISIG,
    IXON,
    ONLCR,
    OPOST,
    TIOCPKT_FLUSHWRITE,
    TIOCPKT_START,
    TIOCPKT_STOP,
    TOSTOP,
    VMIN,
    VTIME,
    WINSIZE_BYTES,
)
from guest.tty_jobctrl import SIGTTIN, check_change, kill_pgrp, signal_session_leader
from guest.vfs_flags import (
    O_NONBLOCK,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDNORM,
    POLLWRNORM,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from guest.vfs_types import Inode, Path

FLIP_LIMIT = 8192  # bytes on their way to a line discipline that has no room (tty_buffer_set_limit())
_TENTH = 100_000_000  # ns in a unit of VTIME


class Tty:
    """One terminal: settings, queues, whose it is. `link` is the other side of a pty."""

    def __init__(self, kernel: Kernel, index: int, master: bool) -> None:
        self.kernel = kernel
        self.index = index
        self.master = master
        self.link: Tty | None = None
        self.c_iflag = 0 if master else ICRNL | IXON
        self.c_oflag = 0 if master else OPOST | ONLCR
        self.c_cflag = B38400 | CS8 | CREAD
        self.c_lflag = 0 if master else ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
        self.c_line = 0
        self.c_cc = bytearray(INIT_C_CC)
        self.c_ispeed = self.c_ospeed = 38400
        self.termios_locked = bytes(36)
        self.winsize = bytes(WINSIZE_BYTES)
        self.session = self.pgrp = 0
        self.stopped = self.flow_stopped = False
        self.packet = False  # a master's: each read begins with a byte that says what it is
        self.ctrl_status = 0  # what the master in packet mode has not been told yet
        self.other_closed = self.io_error = self.exclusive = self.pty_locked = False
        self.read_wait = WaitQueue("a terminal's input")
        self.write_wait = WaitQueue("room in a terminal")
        self.files: list[TtyFile] = []
        self.fasync: list[Any] = []  # files with O_ASYNC
        self.flip = bytearray()  # came from the other side, not yet taken by the line discipline
        self.ldisc = NTty(self)

    # ---- the driver's side: what goes out here comes in at the other end

    def write_room(self) -> int:
        """Bytes driver_write() would take."""
        if self.stopped or self.link is None:
            return 0
        return FLIP_LIMIT - len(self.link.flip)

    def driver_write(self, data: bytes) -> int:
        """pty_write()."""
        to = self.link
        room = self.write_room()
        if to is None or not room:
            return 0
        part = data[:room]
        to.flip += part
        to.take_flip()
        return len(part)

    def take_flip(self) -> None:
        """flush_to_ldisc()."""
        if self.flip:
            data = bytes(self.flip)
            self.flip.clear()
            self.flip[:0] = data[self.ldisc.receive(data) :]

    def unthrottle(self) -> None:
        """The reader made room: what waits comes in, whoever writes on the other side goes on."""
        self.take_flip()
        if self.link is not None:
            self.link.write_wait.wake_all(POLLOUT | POLLWRNORM)

    def flush_output(self) -> None:
        """pty_flush_buffer(): forget what went out and was not read."""
        to = self.link
        if to is not None:
            to.flip.clear()
            if to.packet:
                self.ctrl_status |= TIOCPKT_FLUSHWRITE
                to.read_wait.wake_all()

    def stop(self) -> None:
        """stop_tty(): no output until start()."""
        if not self.stopped:
            self.stopped = True
            self.tell_master(TIOCPKT_STOP, TIOCPKT_START)

    def start(self) -> None:
        """start_tty()."""
        if self.stopped and not self.flow_stopped:
            self.stopped = False
            self.tell_master(TIOCPKT_START, TIOCPKT_STOP)
            self.ldisc.process_echoes()
            self.write_wait.wake_all(POLLOUT | POLLWRNORM)

    def tell_master(self, status: int, undone: int = 0) -> None:
        """A change of status that a master in packet mode reads."""
        link = self.link
        if link is not None and link.packet:
            self.ctrl_status = self.ctrl_status & ~undone | status
            link.read_wait.wake_all()

    def signal_foreground(self, signo: int) -> None:
        """To the foreground process group."""
        if self.pgrp:
            kill_pgrp(self.kernel, self.pgrp, signo)

    # ---- opening and closing

    def hangup(self) -> None:
        """tty_vhangup(): every open file is dead, the session leader is told, the session has no terminal."""
        for file in self.files:
            file.hung_up = True
        signal_session_leader(self.kernel, self)
        self.ldisc.flush()
        self.flush_output()
        self.session = self.pgrp = 0
        self.ctrl_status = 0
        self.read_wait.wake_all()
        self.write_wait.wake_all()

    def file_closed(self, file: TtyFile) -> None:
        """tty_release() and pty_close()."""
        self.files.remove(file)
        link = self.link
        if not self.files and link is not None:
            self.last_closed(link)

    def last_closed(self, link: Tty) -> None:
        """This side of the pair has no file any more."""
        from guest.pty import forget, master_closed

        forget(self)
        if not self.master and self.io_error:
            return
        self.io_error = True
        self.packet = False
        self.wake()
        link.other_closed = True
        link.wake()
        if self.master:
            self.other_closed = True
            master_closed(self)
            link.hangup()

    def input_ready(self) -> None:
        """There is something to read."""
        self.read_wait.wake_all()
        if self.fasync:
            kill_fasync(self.kernel, self.fasync, POLL_IN)

    def wake(self) -> None:
        """Whoever waits looks again."""
        self.read_wait.wake_all()
        self.write_wait.wake_all()


class TtyFile(OpenFile):
    """An open terminal."""

    stream = True
    can_fasync = True
    fmode = 0

    def __init__(self, path: Path, inode: Inode, flags: int, tty: Tty) -> None:
        super().__init__(path, inode, flags)
        self.tty = tty
        self.hung_up = False  # hung_up_tty_fops
        self.shown = 0  # bytes the last read() showed
        self.prefix = 0  # of these, the byte of packet mode
        self.status = False  # it showed a change of status
        tty.files.append(self)

    def fasync_lists(self) -> tuple[list[Any], ...]:
        return (self.tty.fasync,)

    def async_owner(self, task: Task) -> tuple[int, int]:
        """tty_fasync(): the foreground process group, or else who asks."""
        return (self.tty.pgrp, F_OWNER_PGRP) if self.tty.pgrp else (task.tgid, F_OWNER_PID)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        """n_tty_read()."""
        tty = self.tty
        self.shown = self.prefix = 0
        self.status = False
        if self.hung_up:
            return b""
        if tty.io_error:
            raise Errno(errno.EIO)
        check_change(task, tty, SIGTTIN)
        if not count:
            return b""
        if tty.packet and tty.link is not None and tty.link.ctrl_status:
            self.status = True
            return bytes((tty.link.ctrl_status,))
        self.await_input(task, count)
        if not tty.ldisc.available(False):
            return b""
        data = tty.ldisc.peek(count - int(tty.packet))
        if tty.packet:
            self.prefix = 1
            data = b"\0" + data
        self.shown = len(data)
        return data

    def await_input(self, task: Task, count: int) -> None:
        """Sleep until a read has what VMIN and VTIME ask for, or must end with less. Raises EIO, EAGAIN."""
        tty, state, now = self.tty, task.wait_state, task.kernel.clock.now
        canonical = tty.ldisc.canonical()
        if canonical and tty.ldisc.available(False):
            return
        have = 0 if canonical else tty.ldisc.count()
        least, tenths, deadline = 1, 0, None
        if not tty.c_lflag & ICANON:
            least, tenths = tty.c_cc[VMIN], tty.c_cc[VTIME]
        if have and have >= min(least, count):
            return
        if have and tenths:  # the time runs anew with each byte
            if state.get("tty_have") != have:
                state["tty_have"], state["tty_deadline"] = have, now + tenths * _TENTH
            deadline = state["tty_deadline"]
        elif not least:
            deadline = state.setdefault("tty_deadline", now + tenths * _TENTH)
        if deadline is not None and now >= deadline:
            return
        if have and (self.f_flags & O_NONBLOCK or tty.other_closed or task.signal_pending()):
            return
        if tty.other_closed:
            raise Errno(errno.EIO)
        if self.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        sleep_on(task, tty.read_wait, deadline=deadline)

    def consume(self, count: int) -> None:
        tty = self.tty
        if self.hung_up:
            return
        if self.status:
            if count and tty.link is not None:
                tty.link.ctrl_status = 0
        else:
            tty.ldisc.take(max(count - self.prefix, 0), count == self.shown)
        self.shown = self.prefix = 0

    def write(self, task: Task, pos: int, data: bytes) -> int:
        """n_tty_write()."""
        tty = self.tty
        if self.hung_up or tty.io_error:
            raise Errno(errno.EIO)
        if tty.c_lflag & TOSTOP:
            check_change(task, tty)
        done = tty.ldisc.write(data)
        if done or not data:
            return done
        if self.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        sleep_on(task, tty.write_wait)
        return 0

    def poll(self, task: Task) -> int:
        """n_tty_poll()."""
        tty = self.tty
        if self.hung_up:
            return POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDNORM | POLLWRNORM
        mask = 0
        if tty.ldisc.available(True):
            mask |= POLLIN | POLLRDNORM
        if tty.packet and tty.link is not None and tty.link.ctrl_status:
            mask |= POLLPRI | POLLIN | POLLRDNORM
        if tty.other_closed:
            mask |= POLLHUP
        if tty.write_room() > 0:
            mask |= POLLOUT | POLLWRNORM
        return mask

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.tty.read_wait, self.tty.write_wait)

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        raise Errno(errno.ESPIPE)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        from guest.tty_ioctl import tty_ioctl

        return tty_ioctl(task, self, cmd, arg)

    def show_fdinfo(self, sb: Any) -> str:
        return f"tty-index:\t{self.tty.index}\n" if self.tty.master else ""

    def closed(self) -> None:
        self.tty.file_closed(self)
