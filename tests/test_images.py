"""Every guest program under every geometry prints what it printed under a real Linux 5.10, and ends as it did."""

import pathlib
import subprocess
import sys

import pytest
from geometry import IMAGES, KERNELS, PROJECT, arch_of, run_guest

NAMES = sorted(path.stem for path in (IMAGES / "src").glob("*.c"))


def expected(kernel: str, name: str) -> tuple[int, bytes]:
    head, _, output = (IMAGES / "expected" / kernel / name).read_bytes().partition(b"\n")
    return int(head.split()[1]), output


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_prints_what_linux_prints(kernel: str, name: str) -> None:
    status, output, _ = run_guest(kernel, str(IMAGES / arch_of(kernel) / name), [f"/{name}"], check=1)
    assert (output.decode(), status) == (expected(kernel, name)[1].decode(), expected(kernel, name)[0])


def test_there_are_images_and_recordings_for_every_source() -> None:
    assert len(NAMES) >= 15
    for kernel in KERNELS:
        assert sorted(path.name for path in (IMAGES / "expected" / kernel).iterdir()) == NAMES
        assert sorted(path.name for path in (IMAGES / arch_of(kernel)).iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_it(name: str) -> None:
    assert f"| {name} |" in (IMAGES / "README.md").read_text()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_fatal_fault_is_139_and_one_line(arch: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emu", "run", str(IMAGES / arch / "segv")], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 139
    assert done.stdout == b"about to fall\n"
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "Segmentation fault" in lines[0]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_repaired_fault_leaves_nothing_on_stderr(arch: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emu", "run", str(IMAGES / arch / "repair")],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"after 4 repairs" in done.stdout
