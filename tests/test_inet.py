"""Internet sockets beside a native Linux: golden/native holds what the guest printed there.

The oracle's kernel has no AF_INET, so the guest ran on the kernel of an ordinary machine (6.18). What that kernel does
otherwise than 5.10 is left out of the guest.
"""

import pathlib

import pytest
from geometry import arch_of, run_guest

NATIVE = pathlib.Path(__file__).resolve().parent / "golden" / "native"


@pytest.mark.parametrize("kernel", ["x86_64-4k", "aarch64-64k"])
def test_internet_sockets(kernel: str) -> None:
    program = NATIVE / arch_of(kernel) / "inet"
    status, output, _ = run_guest(kernel, str(program))
    assert output.decode().splitlines() == (NATIVE / "inet.txt").read_text().splitlines()
    assert status == 0
