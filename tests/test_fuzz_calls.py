"""A short run of the system call fuzzer under every kind of geometry."""

import pytest
from fuzz_calls import run


@pytest.mark.parametrize(
    ("geometry", "calls"), [("x86_64-4k", 6000), ("x86_64-4k-la57", 1000), ("aarch64-4k", 5000), ("aarch64-64k", 2000)]
)
def test_no_call_breaks_anything(geometry: str, calls: int) -> None:
    assert run(geometry, calls, seed=1) == 0
