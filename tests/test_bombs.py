"""Programs that take without end: the host process stays within --ram and the overhead docs/limits.md states."""

import os
import pathlib
import shutil
import sys

import pytest
from geometry import PROJECT

RAM = 64  # MiB
OVERHEAD = 64  # MiB
MEASURE = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(status, usage.ru_maxrss)
"""


@pytest.mark.skipif(shutil.which("x86_64-linux-gnu-gcc") is None, reason="no x86_64-linux-gnu-gcc")
@pytest.mark.parametrize(("kind", "status"), [("m", 137), ("f", 0), ("p", 0), ("u", 0)])
def test_the_host_pays_no_more_than_stated(kind: str, status: int, tmp_path: pathlib.Path) -> None:
    import subprocess

    program = str(tmp_path / "bomb")
    source = str(PROJECT / "tests" / "hostile" / "bomb.c")
    subprocess.run(["x86_64-linux-gnu-gcc", "-static", "-O1", "-w", "-o", program, source], check=True)
    command = [sys.executable, "-m", "emu", "run", "--timeout", "60", "--ram", f"{RAM}M", program, kind]
    # A child's ru_maxrss begins with what its parent had resident at the fork, so a small process starts it.
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    ended, resident = map(int, measured.stdout.split()[-2:])
    assert os.waitstatus_to_exitcode(ended) == status
    assert resident < (RAM + OVERHEAD) * 1024
