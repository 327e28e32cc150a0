"""What generated scripts do not reach: the scripts and guests of golden/extra, line by line with a real Linux 5.10.

golden/extra/README.md says what is masked, and why.
"""

import pathlib
import re

import pytest
from geometry import KERNELS, arch_of, run_guest

EXTRA = pathlib.Path(__file__).resolve().parent / "golden" / "extra"
SCRIPTS = sorted(path.name for path in (EXTRA / "scripts").iterdir())
GUESTS = sorted(path.stem for path in (EXTRA / "src").glob("*.c"))

#: Validation of memory after every call (2) takes longest where the calls are not about memory.
CHECK = {
    "khugepaged": 0,
    "ksm": 1,
    "vmcounts": 0,
    "ptrace": 0,
    "sysvmsgsem": 0,
    "mqueues": 0,
    "pty": 0,
    "jobs": 0,
    "cputimers": 0,
    "admin": 0,
    "futexpi": 0,
    "aio": 1,
    "watchdata": 0,
    "perfcount": 1,
    "syscallfile": 0,
    "pidns": 0,
    "timens": 0,
    "newmount": 0,
    "netns": 0,
    "sharing": 0,
    "sigio": 0,
    "places": 0,
    "policies": 0,
    "stale": 0,
}

#: Lines that differ from run to run on the real kernel too, or tell of the machine and not of memory.
MASKS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^([0-9a-f]+-[0-9a-f]+ .{4} [0-9a-f]+) \S+ \d+\s*", r"\1 "),  # device and inode
        (r"^((?:T?g|P|PP|NSt?g?|NSp|NSs)i?d:\s).*", r"\1"),
        (r"^((?:non)?voluntary_ctxt_switches:\s).*", r"\1"),
        (r"^(Cpus_allowed(?:_list)?:\s).*", r"\1"),
        (r"^SigQ:.*|^(Max (?:processes|pending signals)) .*", r"\1"),  # an eighth of what the kernel left of memory
        (r"^\d+ (\(vmops\) \w(?: -?\d+){6}) \d+ (\d+ \d+ \d+) \d+ \d+ (\d+ \d+ \d+ \d+ \d+ \d+) \d+", r"\1 \2 \3"),
        (r"^(Seccomp|Speculation_Store_Bypass)(:\s).*", r"\1\2"),  # of the CPU model; two were recorded
        (r" active=\d+", ""),  # which of the kernel's LRU lists a page is on
        (
            r"^((?: +\d+){4}) +\d+ +\d+((?: +\d+){5}) +\d+ +\d+ +\d+( +\d+ +\d+)$",
            r"\1\2\3",
        ),  # pids and times of a segment
    )
]


def masked(text: str) -> list[str]:
    lines = []
    for line in text.split("\n"):
        line = line.rstrip()
        for pattern, replacement in MASKS:
            line = pattern.sub(replacement, line)
        lines.append(line)
    return lines


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", [*SCRIPTS, *GUESTS])
def test_agrees_with_linux(kernel: str, name: str, tmp_path: pathlib.Path) -> None:
    arch = arch_of(kernel)
    if name in SCRIPTS:
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / name).write_bytes((EXTRA / "scripts" / name).read_bytes())
        program, argv = EXTRA.parent / "bin" / f"vmops.{arch}", ["/vmops", f"/s/{name}"]
    else:
        program, argv = EXTRA / arch / name, [f"/{name}"]
    (tmp_path / "tmp").mkdir()
    (tmp_path / argv[0][1:]).write_bytes(program.read_bytes())
    (tmp_path / argv[0][1:]).chmod(0o755)
    status, output, _ = run_guest(kernel, argv[0], argv, root=str(tmp_path), check=CHECK.get(name, 2))
    ours = masked(f"status {status}\n" + output.decode(errors="replace"))
    assert masked((EXTRA / kernel / name).read_text(errors="replace")) == ours


def test_every_guest_is_built_and_everything_is_recorded() -> None:
    for kernel in KERNELS:
        assert sorted(path.name for path in (EXTRA / arch_of(kernel)).iterdir()) == GUESTS
        assert sorted(path.name for path in (EXTRA / kernel).iterdir()) == sorted([*SCRIPTS, *GUESTS])
