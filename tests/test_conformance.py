"""Memory management is Linux 5.10's: whole recordings of a real kernel, every script under every kernel, line by line.

Invariant checks run at level 2, after every fault and call, and must stay silent: for each script on one geometry, in
turn, and with PAGEWALK_CHECK_ALL=1 on all (it takes several times as long).
"""

import functools
import os
import pathlib
import re
import tarfile

import pytest
from geometry import KERNELS, arch_of, run_guest

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
MAPS = re.compile(r"^([0-9a-f]+-[0-9a-f]+ .{4} [0-9a-f]+) \S+ \d+\s*")


def scripts() -> dict[str, pathlib.Path]:
    return {path.name: path for folder in ("scripts", "fuzz", "calls") for path in sorted((GOLDEN / folder).iterdir())}


@functools.cache
def recordings() -> dict[str, str]:
    """KERNEL/SCRIPT -> what Linux printed; golden/README.md says why some were recorded again, alone."""
    found = {}
    for archive in ("golden", "alone", "calls"):
        with tarfile.open(GOLDEN / f"{archive}.tar.xz") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None:
                    found[member.name.split("/", 1)[1]] = file.read().decode(errors="replace")
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


def check_level(kernel: str, script: str) -> int:
    """2 for one of the five geometries, another from script to script."""
    mine = list(KERNELS)[sorted(scripts()).index(script) % len(KERNELS)]
    return 2 if kernel == mine or os.environ.get("PAGEWALK_CHECK_ALL") else 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("script", scripts())
def test_agrees_with_linux(kernel: str, script: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "vmops").write_bytes((GOLDEN / "bin" / f"vmops.{arch_of(kernel)}").read_bytes())
    (tmp_path / "vmops").chmod(0o755)
    (tmp_path / "s" / script).write_bytes(scripts()[script].read_bytes())
    status, output, _ = run_guest(
        kernel, "/vmops", ["/vmops", f"/s/{script}"], root=str(tmp_path), check=check_level(kernel, script)
    )
    linux, ours = masked(recordings()[f"{kernel}/{script}"]), masked(output.decode(errors="replace"))
    assert linux == ours, first_difference(linux, ours)
    assert status == 0


def test_every_script_has_a_recording_under_every_kernel() -> None:
    assert {f"{kernel}/{script}" for kernel in KERNELS for script in scripts()} == set(recordings())
