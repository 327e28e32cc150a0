"""Record what the busybox cases print under real Linux 5.10 kernels: expected/KERNEL/CASE.

python tests/busybox/record.py ORACLE.py
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "images")]

from debian import KERNELS, busybox  # noqa: E402
from record import load, shell_status  # noqa: E402


def main() -> None:
    oracle = load(sys.argv[1])
    cases = sorted((HERE / "cases").glob("*.sh"))
    for kernel, architecture in KERNELS.items():
        files = {f"t/{case.name}": (0o100644, case.read_bytes()) for case in cases}
        files["busybox"] = (0o100755, busybox(architecture))
        files["bin/sh"] = (0o120777, b"/busybox")
        commands = [(case.stem, ["/busybox", "sh", f"/t/{case.name}"]) for case in cases]
        out = HERE / "expected" / kernel
        out.mkdir(parents=True, exist_ok=True)
        for name, (output, status) in oracle.boot(kernel, commands, files).items():
            (out / name).write_bytes(b"status %d\n" % shell_status(status) + output)


if __name__ == "__main__":
    main()
