"""A short run of the fuzzer that goes through the engine; `python tests/fuzz_engine.py` makes the long ones."""

import shutil

import pytest
from fuzz_engine import COMPILERS, run


@pytest.mark.parametrize(("arch", "page_size", "calls"), [("x86_64", 4096, 8000), ("aarch64", 16384, 8000)])
def test_no_call_breaks_anything(arch: str, page_size: int, calls: int) -> None:
    if shutil.which(COMPILERS[arch]) is None:
        pytest.skip(f"no {COMPILERS[arch]}")
    assert run(arch, page_size, calls, seed=1) == 0
