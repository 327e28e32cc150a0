"""Debian's busybox-static, a program nobody here wrote: each case prints what it printed under a real Linux 5.10."""

import pathlib
import shutil

import pytest
from debian import KERNELS, Unavailable, busybox
from geometry import run_guest

HERE = pathlib.Path(__file__).resolve().parent / "busybox"


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Debian's architecture -> a root directory with its busybox and the cases."""
    found = {}
    for architecture in sorted(set(KERNELS.values())):
        try:
            program = busybox(architecture)
        except Unavailable as why:
            pytest.skip(f"busybox-static is not to be had: {why}")
        root = tmp_path_factory.mktemp(architecture)
        for folder in ("bin", "tmp"):
            (root / folder).mkdir()
        (root / "busybox").write_bytes(program)
        (root / "busybox").chmod(0o755)
        (root / "bin" / "sh").symlink_to("/busybox")
        shutil.copytree(HERE / "cases", root / "t")
        found[architecture] = root
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", sorted(path.stem for path in (HERE / "cases").glob("*.sh")))
def test_prints_what_linux_prints(kernel: str, case: str, roots: dict[str, pathlib.Path]) -> None:
    root = roots[KERNELS[kernel]]
    status, output, _ = run_guest(kernel, "/busybox", ["/busybox", "sh", f"/t/{case}.sh"], root=str(root))
    head, _, text = (HERE / "expected" / kernel / case).read_bytes().partition(b"\n")
    assert (output.decode(), status) == (text.decode(), int(head.split()[1]))
    assert sorted(path.name for path in root.iterdir()) == ["bin", "busybox", "t", "tmp"]
    assert list((root / "tmp").iterdir()) == []  # what the guest wrote stayed in memory
