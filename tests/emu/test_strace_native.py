"""`--strace` prints what strace 6.1 printed of the same binary on a real Linux: recorded in tests/emu/strace/."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from strace_template import FOLDER, PROGRAMS, template

from emu import cli

if TYPE_CHECKING:
    import pathlib

ENOSYS = " = -1 ENOSYS (Function not implemented)"


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_recorded(name: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Line by line; of a call that pagewalk does not have, the arguments."""
    log = tmp_path / "log"
    cli.main(["run", f"--strace={log}", str(PROGRAMS[name])])
    capfd.readouterr()
    ours = template(log.read_text())
    theirs = (FOLDER / f"{name}.txt").read_text().splitlines()
    for index, line in enumerate(ours):
        if line.endswith(ENOSYS) and index < len(theirs):
            ours[index] = line[: -len(ENOSYS)]
            theirs[index] = re.sub(r" = [^=]*$", "", theirs[index])
    assert ours == theirs


def test_twenty_programs_are_recorded() -> None:
    assert len(PROGRAMS) >= 20
    assert sum(len((FOLDER / f"{name}.txt").read_text().splitlines()) for name in PROGRAMS) > 1800


def test_a_difference_is_found() -> None:
    """The templates keep what matters."""
    one = template('27  openat(AT_FDCWD, "/x", O_RDONLY) = 3\n')
    assert one != template('27  openat(AT_FDCWD, "/x", O_RDWR)   = 3\n')
    assert one != template('27  openat(AT_FDCWD, "/x", O_RDONLY) = -1 ENOENT (No such file or directory)\n')
    assert template("clone(flags=SIGCHLDstrace: Process 29 attached\n) = 29\n[pid    29] exit(0)  = ?\n") == [
        "PID1:",
        "clone(flags=SIGCHLD) = PID2",
        "PID2:",
        "exit(0) = ?",
    ]
