"""The line discipline of terminals: input, echo, editing, output (drivers/tty/n_tty.c).

    driver --receive()--> signals, flow control, editing, echo --> read_buf --peek(), take()--> reader
    writer --write()----> output processing (OPOST), column ----> driver

Positions in `read_buf` only grow; a byte lies at its position modulo the buffer's size:

    read_tail <= canon_head <= read_head      read ... complete lines ... the line being typed

In canonical mode a position in `line_ends` ends a line. The end-of-file character is kept as a NUL there, which a
reader does not get. Echo goes through a queue of its own, because output may be stopped (^S) or have no room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.siginfo import SIGINT, SIGQUIT, SIGTSTP
from guest.termios import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    EXTPROC,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    NOFLSH,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    PARMRK,
    TABDLY,
    TIOCPKT_FLUSHREAD,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VMIN,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VTIME,
    VWERASE,
    XTABS,
)

if TYPE_CHECKING:
    from guest.tty_core import Tty

N_TTY_BUF_SIZE = 4096
TTY_THRESHOLD_UNTHROTTLE = 128  # a writer is woken when fewer bytes are left to read
WAKEUP_CHARS = 256
_DISABLED = 0  # __DISABLED_CHAR: a control character that is switched off; the mark of an end of file

_CONTROL = frozenset((*range(32), 0x7F))  # iscntrl()
_ALNUM = frozenset(
    c for c in range(256) if (c < 128 and chr(c).isalnum()) or (c >= 0xC0 and c not in (0xD7, 0xF7))
)  # isalnum()
# What an entry of the echo queue asks for, when it is not a byte as it is.
_AS_CARET, _MOVE_BACK_COL, _SET_CANON_COL, _ERASE_TAB = range(1, 5)


def tolower(c: int) -> int:
    """Latin-1."""
    return c + 32 if 0x41 <= c <= 0x5A or (0xC0 <= c <= 0xDE and c != 0xD7) else c


def toupper(c: int) -> int:
    """Latin-1."""
    return c - 32 if 0x61 <= c <= 0x7A or (0xE0 <= c <= 0xFE and c != 0xF7) else c


class NTty:
    """The state of one terminal's line (struct n_tty_data)."""

    def __init__(self, tty: Tty) -> None:
        self.tty = tty
        self.read_buf = bytearray(N_TTY_BUF_SIZE)
        self.read_tail = self.canon_head = self.read_head = 0
        self.line_ends: set[int] = set()
        self.echoes: list[tuple[int, int, bool]] = []  # (what, byte or count, whether after a tab), not yet put out
        self.column = self.canon_column = 0
        self.lnext = False  # the next byte is literal (^V)
        self.erasing = False  # within \.../ of ECHOPRT
        self.eof_pending = 0  # bytes that go with the last peek() and are not part of it

    # ---- what is there to read

    def count(self) -> int:
        """Bytes received and not read."""
        return self.read_head - self.read_tail

    def canonical(self) -> bool:
        """Whether a read ends at the end of a line."""
        return self.tty.c_lflag & (ICANON | EXTPROC) == ICANON

    def available(self, poll: bool) -> bool:
        """input_available_p()."""
        if self.canonical():
            return self.canon_head != self.read_tail
        cc = self.tty.c_cc
        amount = cc[VMIN] if poll and not cc[VTIME] and cc[VMIN] else 1
        return self.count() >= amount

    def inq_canon(self) -> int:
        """Bytes a reader would get of the complete lines (FIONREAD)."""
        if self.canon_head == self.read_tail:
            return 0
        marks = sum(self.byte(end) == _DISABLED for end in self.line_ends)
        return self.canon_head - self.read_tail - marks

    def byte(self, position: int) -> int:
        """The byte at a position."""
        return self.read_buf[position % N_TTY_BUF_SIZE]

    def peek(self, limit: int) -> bytes:
        """What a read of up to `limit` bytes gets now: in canonical mode one line or its beginning."""
        tail = self.read_tail
        self.eof_pending = 0
        if not self.canonical():
            end = tail + min(limit, self.count())
        else:
            most = min(tail + limit, self.canon_head)
            end = min((e for e in self.line_ends if tail <= e < most), default=-1)
            if end < 0:
                end = most
                if end in self.line_ends and self.byte(end) == _DISABLED and end < self.canon_head:
                    self.eof_pending = 1  # canon_skip_eof(): a read that fills its buffer just before it eats it
            elif self.byte(end) == _DISABLED:
                self.eof_pending = 1
            else:
                end += 1
        return bytes(self.byte(position) for position in range(tail, end))

    def take(self, count: int, whole: bool) -> None:
        """`count` bytes of the last peek() have been read; `whole`: all of them."""
        old = self.read_tail
        self.read_tail += count + (self.eof_pending if whole else 0)
        self.eof_pending = 0
        if self.line_ends:
            self.line_ends = {end for end in self.line_ends if end >= self.read_tail}
        if self.read_tail != old and self.chars_in_buffer() <= TTY_THRESHOLD_UNTHROTTLE:
            self.tty.unthrottle()

    def chars_in_buffer(self) -> int:
        """Readable bytes."""
        return (self.canon_head if self.tty.c_lflag & ICANON else self.read_head) - self.read_tail

    def reset(self) -> None:
        """reset_buffer_flags(): nothing was ever typed."""
        self.read_tail = self.canon_head = self.read_head = 0
        self.line_ends = set()
        self.lnext = self.erasing = False

    def flush(self) -> None:
        """n_tty_flush_buffer(): drop the input, and tell the master of a pty."""
        self.reset()
        self.tty.unthrottle()
        self.packet_flush()

    def packet_flush(self) -> None:
        """n_tty_packet_mode_flush()."""
        link = self.tty.link
        if link is not None and link.packet:
            self.tty.ctrl_status |= TIOCPKT_FLUSHREAD
            link.read_wait.wake_all()

    def settings_changed(self, old_lflag: int, old_iflag: int) -> None:
        """n_tty_set_termios(). Input that is there when canonical mode begins counts as a line."""
        tty = self.tty
        if (old_lflag ^ tty.c_lflag) & (ICANON | EXTPROC):
            self.line_ends = set()
            if not tty.c_lflag & ICANON or not self.count():
                self.canon_head = self.read_tail
            else:
                self.line_ends.add(self.read_head - 1)
                self.canon_head = self.read_head
            self.erasing = self.lnext = False
        if old_iflag & IXON and not tty.c_iflag & IXON and not tty.flow_stopped:
            tty.start()
            self.process_echoes()
        tty.write_wait.wake_all()
        tty.read_wait.wake_all()

    # ---- input

    def receive(self, data: bytes) -> int:
        """Bytes from the driver (n_tty_receive_buf_common()); how many were taken."""
        done = 0
        while done < len(data):
            room = N_TTY_BUF_SIZE - self.count()
            if self.tty.c_iflag & PARMRK:
                room = (room + 2) // 3
            room -= 1
            if room <= 0:
                overflow = bool(self.tty.c_lflag & ICANON) and self.canon_head == self.read_tail
                if overflow and room < 0:
                    self.read_head -= 1
                room = int(overflow)
            part = data[done : done + room]
            if not part:
                break
            for c in part:
                self.receive_char(c)
            self.process_echoes()  # with the whole batch: a ^C in it takes back what came before
            done += len(part)
        canonical = self.tty.c_lflag & ICANON and not self.tty.c_lflag & EXTPROC  # end_line() has told
        if not canonical and self.available(True):
            self.tty.input_ready()
        return done

    def put(self, c: int) -> None:
        """put_tty_queue()."""
        self.read_buf[self.read_head % N_TTY_BUF_SIZE] = c
        self.read_head += 1

    def receive_char(self, c: int) -> None:
        """One byte through all that may happen to it."""
        tty = self.tty
        iflag, lflag, cc = tty.c_iflag, tty.c_lflag, tty.c_cc
        if self.lnext:
            self.lnext = False
            self.receive_literal(self.folded(c))
            return
        c = self.folded(c)
        if lflag & EXTPROC:
            self.put(c)
            return
        if iflag & IXON and c != _DISABLED:
            if c == cc[VSTART]:
                tty.start()
                self.process_echoes()
                return
            if c == cc[VSTOP]:
                tty.stop()
                return
        if lflag & ISIG and c != _DISABLED:
            for index, signo in ((VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)):
                if c == cc[index]:
                    self.receive_signal(c, signo)
                    return
        if tty.stopped and not tty.flow_stopped and iflag & IXON and iflag & IXANY:
            tty.start()
            self.process_echoes()
        typed = c
        if c == 13:
            if iflag & IGNCR:
                return
            if iflag & ICRNL:
                c = 10
        elif c == 10 and iflag & INLCR:
            c = 13
        if lflag & ICANON and self.receive_canonical(c):
            return
        self.receive_literal(c, as_newline=c != typed)

    def folded(self, c: int) -> int:
        """ISTRIP, IUCLC."""
        if self.tty.c_iflag & ISTRIP:
            c &= 0x7F
        if self.tty.c_iflag & IUCLC and self.tty.c_lflag & IEXTEN:
            c = tolower(c)
        return c

    def receive_literal(self, c: int, as_newline: bool = False) -> None:
        """A byte that means nothing: echo and keep it (n_tty_receive_char()). A newline typed as such shows as ^J."""
        lflag = self.tty.c_lflag
        if lflag & ECHO:
            self.finish_erasing()
            if c == 10 and as_newline:
                self.echo_raw(c)
            else:
                if self.canon_head == self.read_head:
                    self.echoes.append((_SET_CANON_COL, 0, False))
                self.echo(c)
        if c == 0xFF and self.tty.c_iflag & PARMRK:
            self.put(c)
        self.put(c)

    def receive_signal(self, c: int, signo: int) -> None:
        """isig() and n_tty_receive_signal_char()."""
        tty = self.tty
        tty.signal_foreground(signo)
        if not tty.c_lflag & NOFLSH:
            self.echoes.clear()
            tty.flush_output()
            self.reset()
            self.packet_flush()
        if tty.c_iflag & IXON:
            tty.start()
        if tty.c_lflag & ECHO:
            self.echo(c)
        else:
            self.process_echoes()

    def receive_canonical(self, c: int) -> bool:
        """Editing and ends of lines; False: `c` is none of these."""
        tty = self.tty
        lflag, cc = tty.c_lflag, tty.c_cc
        extended = bool(lflag & IEXTEN)
        if c == 10:
            if lflag & (ECHO | ECHONL):
                self.echo_raw(c)
            self.end_line(c)
            return True
        if c == _DISABLED:
            return False
        if c in (cc[VERASE], cc[VKILL]) or (c == cc[VWERASE] and extended):
            self.erase(c)
        elif c == cc[VLNEXT] and extended:
            self.lnext = True
            if lflag & ECHO:
                self.finish_erasing()
                if lflag & ECHOCTL:
                    self.echo_raw(0x5E)
                    self.echo_raw(8)
        elif c == cc[VREPRINT] and lflag & ECHO and extended:
            self.finish_erasing()
            self.echo(c)
            self.echo_raw(10)
            for position in range(self.canon_head, self.read_head):
                self.echo(self.byte(position))
        elif c == cc[VEOF]:
            self.end_line(_DISABLED)
        elif c == cc[VEOL] or (c == cc[VEOL2] and extended):
            if lflag & ECHO:
                if self.canon_head == self.read_head:
                    self.echoes.append((_SET_CANON_COL, 0, False))
                self.echo(c)
            if c == 0xFF and tty.c_iflag & PARMRK:
                self.put(c)
            self.end_line(c)
        else:
            return False
        return True

    def end_line(self, c: int) -> None:
        """handle_newline: the line up to `c` can be read."""
        self.line_ends.add(self.read_head)
        self.put(c)
        self.canon_head = self.read_head
        self.tty.input_ready()

    # ---- editing

    def is_continuation(self, c: int) -> bool:
        """A byte within a UTF-8 character, where the terminal speaks UTF-8."""
        return bool(self.tty.c_iflag & IUTF8) and c & 0xC0 == 0x80

    def erase(self, c: int) -> None:
        """eraser(): take back a character, a word or the line, on the screen as well."""
        lflag, cc = self.tty.c_lflag, self.tty.c_cc
        if self.read_head == self.canon_head:
            return
        word = line = False
        if c != cc[VERASE]:
            word = c == cc[VWERASE] and bool(lflag & IEXTEN)
            line = not word
        if line and (not lflag & ECHO or lflag & (ECHOK | ECHOKE | ECHOE) != ECHOK | ECHOKE | ECHOE):
            self.read_head = self.canon_head
            if lflag & ECHO:
                self.finish_erasing()
                self.echo(cc[VKILL])
                if lflag & ECHOK:
                    self.echo_raw(10)
            return
        seen_alnum = False
        while self.read_head != self.canon_head:
            head = self.read_head - 1
            while self.is_continuation(self.byte(head)) and head != self.canon_head:
                head -= 1
            last = self.byte(head)
            if self.is_continuation(last):
                break  # half a character
            if word:
                if last in _ALNUM or last == 0x5F:
                    seen_alnum = True
                elif seen_alnum:
                    break
            count = self.read_head - head
            self.read_head = head
            if lflag & ECHO:
                self.echo_erased(last, head, count, not word and not line)
            if not word and not line:
                break
        if self.read_head == self.canon_head and lflag & ECHO:
            self.finish_erasing()

    def echo_erased(self, c: int, head: int, count: int, single: bool) -> None:
        """Show that the character `c`, `count` bytes at `head`, is gone."""
        lflag = self.tty.c_lflag
        if lflag & ECHOPRT:
            if not self.erasing:
                self.echo_raw(0x5C)
                self.erasing = True
            self.echo(c)
            for position in range(head + 1, head + count):
                self.echo_raw(self.byte(position))
                self.echoes.append((_MOVE_BACK_COL, 0, False))
        elif single and not lflag & ECHOE:
            self.echo(self.tty.c_cc[VERASE])
        elif c == 9:
            self.echo_erase_tab()
        else:
            times = 0 if c in _CONTROL and not lflag & ECHOCTL else 2 if c in _CONTROL else 1
            for byte in b"\b \b" * times:
                self.echo_raw(byte)

    def echo_erase_tab(self) -> None:
        """How far back a tab's erasure goes depends on what stands before it in the line."""
        width, after_tab = 0, False
        for position in range(self.read_head - 1, self.canon_head - 1, -1):
            c = self.byte(position)
            if c == 9:
                after_tab = True
                break
            if c in _CONTROL:
                width += 2 if self.tty.c_lflag & ECHOCTL else 0
            elif not self.is_continuation(c):
                width += 1
        self.echoes.append((_ERASE_TAB, width & 7, after_tab))

    def finish_erasing(self) -> None:
        r"""Close the \.../ of ECHOPRT."""
        if self.erasing:
            self.echo_raw(0x2F)
            self.erasing = False

    # ---- echo

    def echo(self, c: int) -> None:
        """echo_char(): control characters as ^X under ECHOCTL."""
        caret = self.tty.c_lflag & ECHOCTL and c in _CONTROL and c != 9
        self.echoes.append((_AS_CARET if caret else 0, c, False))

    def echo_raw(self, c: int) -> None:
        """echo_char_raw()."""
        self.echoes.append((0, c, False))

    def process_echoes(self) -> None:
        """Put out what the driver has room for."""
        done = 0
        for what, value, after_tab in self.echoes:
            if not self.put_echo(what, value, after_tab):
                break
            done += 1
        del self.echoes[:done]
        if len(self.echoes) > N_TTY_BUF_SIZE:
            del self.echoes[: len(self.echoes) - N_TTY_BUF_SIZE]  # what nobody can see is forgotten, oldest first

    def put_echo(self, what: int, value: int, after_tab: bool) -> bool:
        """One entry of the queue; False when there is no room."""
        tty = self.tty
        room = tty.write_room()
        if what == _SET_CANON_COL:
            self.canon_column = self.column
        elif what == _MOVE_BACK_COL:
            self.column -= self.column > 0
        elif what == _ERASE_TAB:
            width = value if after_tab else value + (self.canon_column & 7)
            back = 8 - (width & 7)
            if room < back:
                return False
            tty.driver_write(b"\b" * back)
            self.column = max(self.column - back, 0)
        elif what == _AS_CARET:
            if room < 2:
                return False
            tty.driver_write(bytes((0x5E, value ^ 0x40)))
            self.column += 2
        elif tty.c_oflag & OPOST:
            return self.output_char(value, room)
        else:
            return tty.driver_write(bytes((value,))) == 1
        return True

    # ---- output

    def write(self, data: bytes) -> int:
        """n_tty_write() of what the driver has room for; how many bytes of `data` are gone."""
        self.process_echoes()
        tty = self.tty
        if not tty.c_oflag & OPOST:
            return tty.driver_write(data)
        done, count = 0, len(data)
        while done < count:
            room = tty.write_room()
            if not room:
                break
            plain = self.plain_length(data, done, min(count, done + room))
            if plain:
                tty.driver_write(data[done : done + plain])
                done += plain
            elif self.output_char(data[done], room):
                done += 1
            else:
                break
        return done

    def plain_length(self, data: bytes, start: int, end: int) -> int:
        """process_output_block(): how many bytes from `start` need no processing; counts their columns."""
        oflag = self.tty.c_oflag
        for position in range(start, end):
            c = data[position]
            if c in (8, 9, 10, 13) or (oflag & OLCUC and toupper(c) != c):
                return position - start
            if c not in _CONTROL and not self.is_continuation(c):
                self.column += 1
        return end - start

    def output_char(self, c: int, room: int) -> bool:
        """do_output_char(); False when there is no room."""
        tty = self.tty
        oflag = tty.c_oflag
        if not room:
            return False
        if c == 10:
            if oflag & ONLRET:
                self.column = 0
            if oflag & ONLCR:
                if room < 2:
                    return False
                self.canon_column = self.column = 0
                tty.driver_write(b"\r\n")
                return True
            self.canon_column = self.column
        elif c == 13:
            if oflag & ONOCR and self.column == 0:
                return True
            if oflag & OCRNL:
                c = 10
                if oflag & ONLRET:
                    self.canon_column = self.column = 0
            else:
                self.canon_column = self.column = 0
        elif c == 9:
            spaces = 8 - (self.column & 7)
            if oflag & TABDLY == XTABS:
                if room < spaces:
                    return False
                self.column += spaces
                tty.driver_write(b" " * spaces)
                return True
            self.column += spaces
        elif c == 8:
            self.column -= self.column > 0
        elif c not in _CONTROL:
            if oflag & OLCUC:
                c = toupper(c)
            if not self.is_continuation(c):
                self.column += 1
        return tty.driver_write(bytes((c,))) == 1
