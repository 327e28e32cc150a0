"""Hostile programs (tests/hostile/hostile.c) end as under a real Linux 5.10: privileged instructions, wild jumps,
signals without end, descriptors and processes without end. Recorded with
`oracle.py exec x86_64-4k ./hostile > tests/hostile/x86_64.txt`.
"""

import pathlib
import shutil

import pytest
from geometry import run_guest

HERE = pathlib.Path(__file__).parent / "hostile"
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_ends_as_under_linux(arch: str, tmp_path: pathlib.Path) -> None:
    import subprocess

    compiler = shutil.which(COMPILERS[arch])
    if compiler is None:
        pytest.skip(f"no {COMPILERS[arch]}")
    program = tmp_path / "hostile"
    subprocess.run(
        [compiler, "-static", "-O1", "-w", "-o", str(program), str(HERE / "hostile.c")], check=True, capture_output=True
    )
    status, output, _ = run_guest(f"{arch}-4k", str(program), ["/hostile"])
    assert (status, output.decode()) == (0, (HERE / f"{arch}.txt").read_text())
