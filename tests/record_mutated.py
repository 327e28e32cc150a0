"""Record what real Linux 5.10 kernels make of the damaged programs of test_mutated_elf.py: golden/mutated.txt.

    python tests/record_mutated.py ORACLE.py

One line per kernel: its name, then the status of each seed as a shell counts it; 127 is what the recording init exits
with when execve refuses.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "images")]

from geometry import KERNELS, arch_of  # noqa: E402
from record import load, shell_status  # noqa: E402
from test_mutated_elf import SEEDS, damaged  # noqa: E402


def main() -> None:
    oracle = load(sys.argv[1])
    lines = []
    for kernel in KERNELS:
        files = {f"m{seed}": (0o100755, damaged(arch_of(kernel), seed)) for seed in SEEDS}
        results = oracle.boot(kernel, [(name, [f"/{name}"]) for name in files], files)
        lines.append(" ".join([kernel, *(str(shell_status(results[name][1])) for name in files)]))
    (HERE / "golden" / "mutated.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
