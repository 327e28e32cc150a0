"""Debian's own programs, dynamic and static: each prints what it printed under Linux, as the README's table says."""

import pytest
from debian import Unavailable
from geometry import PROJECT
from programs.run import claimed, expected, outcome
from programs.table import CASES, Case

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_case() -> None:
    assert {name for name, _ in claimed(README)} == {case.name for case in CASES}


RUNS = [pytest.param(case, kernel, id=f"{case.name}-{kernel}") for case in CASES for kernel in case.kernels]


@pytest.mark.parametrize(("case", "kernel"), RUNS)
def test_program(case: Case, kernel: str) -> None:
    if not claimed(README)[case.name, kernel]:
        pytest.skip("the README says it fails")
    try:
        status, output, errors = outcome(case, kernel)
    except Unavailable as why:
        pytest.skip(f"the packages are not to be had: {why}")
    assert (status, output) == expected(case), errors
