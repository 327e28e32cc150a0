"""`pagewalk top` on a terminal: a pseudo-terminal plays it, and the keys."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest
from geometry import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60  # seconds until a test gives up


class Terminal:
    """A run of `pagewalk top` on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 120))
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emu", "top", "--interval", "0.02", *words],
            stdin=slave, stdout=slave, stderr=slave, cwd=PROJECT, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        self.slave = slave
        self.seen = ""

    def wait_for(self, pattern: str) -> str:
        """Read until the screen's bytes hold the pattern; what was read up to there."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen[-2000:]
            self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()


LEFT = r"\x1b\[\?1049l"  # the alternate screen is left


def test_a_program_that_ends(terminals: list[Terminal]) -> None:
    """The last screen stays: faults by kind, memory, areas, calls, and what the guest wrote."""
    terminal = Terminal("images/x86_64/cow")
    terminals.append(terminal)
    terminal.wait_for(LEFT)
    text = terminal.wait_for(r"parent: 8 faults")
    for words in ("exited with 0", "copy on write", "resident", "vmacache hits", "hottest areas", "rw-p", "getrusage"):
        assert words in text
    assert terminal.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_pause_and_quit(terminals: list[Terminal]) -> None:
    terminal = Terminal("images/x86_64/bench", "getppid", "100000000")
    terminals.append(terminal)
    terminal.wait_for("running")
    terminal.wait_for("getppid")
    terminal.press(" ")
    terminal.wait_for("paused")
    terminal.press(" ")
    terminal.wait_for("running")
    terminal.press("q")
    terminal.wait_for(LEFT)
    terminal.wait_for("ended by q")
    assert terminal.process.wait(PATIENCE) == 130
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_without_a_terminal() -> None:
    words = [sys.executable, "-m", "emu", "top", "images/x86_64/hello"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("pagewalk: top needs a terminal")
    assert done.stderr.count("\n") == 1
