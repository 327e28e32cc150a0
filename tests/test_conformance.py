"""Memory management is Linux 5.10's: whole recordings of a real kernel, compared line by line.

    pytest tests/test_conformance.py             the scripts of golden/full.txt: they must agree in every line
    pytest tests/test_conformance.py --corpus    every script there is

Invariant checks run at level 2, after every fault and call, and must stay silent.
"""

import functools
import pathlib
import re
import tarfile

import pytest
from geometry import KERNELS, arch_of, run_guest

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
REQUIRED = {"01", "02", "03", "04", "05", "15", "16", "17"}
MAPS = re.compile(r"^([0-9a-f]+-[0-9a-f]+ .{4} [0-9a-f]+) \S+ \d+\s*")


def scripts() -> dict[str, pathlib.Path]:
    return {path.name: path for folder in ("scripts", "fuzz") for path in sorted((GOLDEN / folder).iterdir())}


def known_full() -> dict[str, list[str]]:
    """Script -> the kernels under which it must agree, from full.txt."""
    found = {}
    for line in (GOLDEN / "full.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            found[words[0]] = words[1:] or list(KERNELS)
    return found


@functools.cache
def recordings() -> dict[str, str]:
    """KERNEL/SCRIPT -> what Linux printed."""
    found = {}
    with tarfile.open(GOLDEN / "golden.tar.xz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name.removeprefix("golden/")] = file.read().decode(errors="replace")
    return found


def masked(text: str) -> list[str]:
    """Lines with device and inode numbers of /proc/*/maps taken out."""
    return [MAPS.sub(r"\1 ", line.rstrip()) for line in text.split("\n")]


def first_difference(linux: list[str], ours: list[str]) -> str:
    at = next(
        (i for i, pair in enumerate(zip(linux, ours, strict=False)) if pair[0] != pair[1]), min(len(linux), len(ours))
    )
    operation = next((line for line in reversed(linux[: at + 1]) if line.startswith(">")), "start")
    of_linux, of_ours = (lines[at] if at < len(lines) else "(nothing)" for lines in (linux, ours))
    return f"line {at + 1}, after '{operation}'\n    linux: {of_linux}\n    ours:  {of_ours}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "script" in metafunc.fixturenames:
        full = known_full()
        names = scripts() if metafunc.config.getoption("corpus") else full
        pairs = [(kernel, name) for name in names for kernel in KERNELS if name not in full or kernel in full[name]]
        metafunc.parametrize(("kernel", "script"), pairs)


def test_agrees_with_linux(kernel: str, script: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "vmops").write_bytes((GOLDEN / "bin" / f"vmops.{arch_of(kernel)}").read_bytes())
    (tmp_path / "vmops").chmod(0o755)
    (tmp_path / "s" / script).write_bytes(scripts()[script].read_bytes())
    status, output, _ = run_guest(kernel, "/vmops", ["/vmops", f"/s/{script}"], root=str(tmp_path), check=2)
    linux, ours = masked(recordings()[f"{kernel}/{script}"]), masked(output.decode(errors="replace"))
    assert linux == ours, first_difference(linux, ours)
    assert status == 0


def test_the_list_is_of_scripts_and_kernels_that_exist() -> None:
    full = known_full()
    assert {name[:2] for name in full} >= REQUIRED
    assert set(full) <= set(scripts())
    assert all(set(kernels) <= set(KERNELS) for kernels in full.values())


@pytest.mark.parametrize("name", [name for name in scripts() if name[:2] in REQUIRED])
def test_required_scripts_are_asserted_under_every_kernel(name: str) -> None:
    assert known_full()[name] == list(KERNELS)
