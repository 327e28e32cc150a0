"""A guest on the host's terminal, driven through a pty as a user would: keys, window sizes, signals, every end."""

import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest
from debian import Unavailable, busybox

REPO = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 30.0  # seconds to wait for a text; reached only by a failure


class Session:
    """`pagewalk run` in a new session whose controlling terminal is the other end of `self.master`."""

    def __init__(self, *words: str, command: list[str] | None = None) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [*(command or [sys.executable, "-m", "emu", "run"]), *words],
            cwd=REPO, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def expect(self, pattern: str) -> str:
        """Read until `pattern` (a regular expression) has come; what was read up to its end."""
        end = time.monotonic() + DEADLINE
        while True:
            text = self.seen.decode(errors="replace").replace("\r\n", "\n")
            found = re.search(pattern, text)
            if found:
                self.seen = text[found.end() :].encode()
                return text[: found.end()]
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} did not come, but {text!r}"
            if select.select([self.master], [], [], left)[0]:
                data = os.read(self.master, 65536)
                assert data, f"the end came before {pattern!r}: {text!r}"
                self.seen += data

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for the end; the status as subprocess gives it. The terminal must be as it was."""
        status = self.process.wait(DEADLINE)
        assert termios.tcgetattr(self.slave) == self.before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    opened: list[Session] = []
    yield opened
    for session in opened:
        session.close()


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with Debian's busybox under some of its names."""
    try:
        program = busybox(request.param)
    except Unavailable as why:
        pytest.skip(f"busybox-static is not to be had: {why}")
    root = tmp_path_factory.mktemp(request.param)
    for folder in ("bin", "tmp"):
        (root / folder).mkdir()
    (root / "busybox").write_bytes(program)
    (root / "busybox").chmod(0o755)
    for name in ("sh", "cat", "vi", "stty", "tty", "ls"):
        (root / "bin" / name).symlink_to("/busybox")
    return root


def start(sessions: list[Session], root: pathlib.Path, *words: str) -> Session:
    environment = ("-E", "PATH=/bin", "-E", "PS1=ready> ", "-E", "TERM=vt100")
    session = Session("--root", str(root), *environment, *words)
    sessions.append(session)
    return session


def test_a_shell_and_its_jobs(root: pathlib.Path, sessions: list[Session]) -> None:
    session = start(sessions, root, "/bin/sh")
    assert "job control" not in session.expect("ready> ")
    for command, answer in (
        ("tty", "/dev/pts/0\n"),
        ("stty size", "24 80\n"),
        ("stty -a", r"intr = \^C; .*isig icanon"),
        ("ls -l /proc/self/fd/0", "/proc/self/fd/0 -> /dev/pts/0\n"),
        ("echo tty > /dev/tty", "\ntty\n"),
    ):
        session.type(command + "\n")
        session.expect(f"(?s){answer}.*ready> ")
    session.type("echo begun; cat\n")
    session.expect("\nbegun\n")
    session.type("seen\n")
    session.expect("seen\nseen\n")
    session.type("\x1a")
    session.expect("Stopped +cat")
    session.expect("ready> ")
    session.type("jobs; fg\n")
    session.expect("(?s)Stopped.*\ncat\n")
    session.type("again\n")
    session.expect("again\nagain\n")
    session.type("\x03")
    session.expect("ready> ")
    fcntl.ioctl(session.master, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
    session.type("stty size\n")
    session.expect("33 101\n")
    session.expect("ready> ")
    session.type("exit 3\n")
    assert session.end() == 3


def test_vi_edits_a_file(root: pathlib.Path, sessions: list[Session]) -> None:
    session = start(sessions, root, "/bin/sh")
    session.expect("ready> ")
    session.type("vi /tmp/letter\n")
    session.expect("/tmp/letter 1/1")
    session.type("iDear reader\x1b")
    session.expect("- /tmp/letter")  # it waits a moment for what could follow an escape
    session.type(":wq\r")
    session.expect("ready> ")
    session.type("cat /tmp/letter\n")
    session.expect("\nDear reader\n")
    session.type("exit\n")
    assert session.end() == 0


def test_ctrl_c_ends_a_program_that_does_not_mind(root: pathlib.Path, sessions: list[Session]) -> None:
    session = start(sessions, root, "/bin/sh", "-c", "echo on; while :; do :; done")
    session.expect("on\n")
    session.type("\x03")
    assert session.end() == 128 + signal.SIGINT


def test_a_program_hears_ctrl_c_while_it_computes(root: pathlib.Path, sessions: list[Session]) -> None:
    script = "trap 'echo caught; exit 7' INT; echo on; while :; do :; done"
    session = start(sessions, root, "/bin/sh", "-c", script)
    session.expect("on\n")
    session.type("\x03")
    session.expect("caught\n")
    assert session.end() == 7


def test_five_ctrl_c_end_what_ignores_them(root: pathlib.Path, sessions: list[Session]) -> None:
    session = start(sessions, root, "/bin/sh", "-c", "trap '' INT; stty -echo; echo on; while :; do :; done")
    session.expect("on\n")
    session.type("\x03\x03\x03\x03")
    # Each must have been counted before the next: the host may merge signals that are pending.
    for _ in range(200):
        if session.process.poll() is not None:
            break
        session.type("\x03")
        with contextlib.suppress(subprocess.TimeoutExpired):
            session.process.wait(0.02)
    assert session.end() in (128 + signal.SIGINT, -signal.SIGINT)  # the latter: one more ^C came after the run


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(root: pathlib.Path, sessions: list[Session], ending: int) -> None:
    session = start(sessions, root, "/bin/sh", "-c", "stty raw -echo; echo on; cat")
    session.expect("on")
    assert termios.tcgetattr(session.slave) != session.before
    session.process.send_signal(ending)
    assert session.end() == -ending


SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if not child:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "emu", "run", *sys.argv[1:]])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("stopped by", os.WSTOPSIG(status), flush=True)
    input()
    os.tcsetpgrp(0, child)
    os.kill(-child, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_ctrl_z_stops_pagewalk_where_the_guest_has_no_shell(root: pathlib.Path, sessions: list[Session]) -> None:
    command = [sys.executable, "-c", SHELL, "--root", str(root), "-E", "PATH=/bin"]
    session = Session("/bin/sh", "-c", "stty -echo; echo on; exec cat", command=command)
    sessions.append(session)
    session.expect("on\n")
    session.type("one\n")
    session.expect("one\n")
    session.type("\x1a")
    session.expect(f"stopped by {int(signal.SIGTSTP)}\n")
    assert termios.tcgetattr(session.slave) == session.before
    session.type("go\n")
    session.expect("go\n")
    while termios.tcgetattr(session.slave) == session.before:  # until the guest's settings are back
        assert session.process.poll() is None
        os.sched_yield()
    session.type("two\n")
    session.expect("^two\n")
    session.type("\x04")
    assert session.end() == 0
