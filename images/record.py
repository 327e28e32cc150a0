"""Run every guest program under real Linux 5.10 kernels and keep what it printed: images/expected/KERNEL/NAME.

    python images/record.py ORACLE.py [NAME...]

ORACLE.py is the oracle's script: a module with `KERNELS` and `boot(kernel, [(name, argv)], {path: (mode, bytes)})`,
which gives {name: (output, wait status)}. A recording is one line `status N`, N as a shell counts it, and then the
output.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent


def load(path: str) -> Any:
    """The oracle's script as a module."""
    spec = importlib.util.spec_from_file_location("oracle", path)
    if spec is None or spec.loader is None:
        sys.exit(f"record.py: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_status(status: int) -> int:
    """A wait status as a shell shows it: 128 + signal, or the exit status."""
    return 128 + (status & 127) if status & 127 else status >> 8 & 255


def main() -> None:
    """Record what is named, or everything, one boot per kernel."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    oracle = load(sys.argv[1])
    names = sys.argv[2:] or sorted(path.stem for path in (HERE / "src").glob("*.c"))
    for kernel in oracle.KERNELS:
        folder = HERE / kernel.split("-")[0]
        files = {name: (0o100755, (folder / name).read_bytes()) for name in names}
        results = oracle.boot(kernel, [(name, [f"/{name}"]) for name in names], files)
        out = HERE / "expected" / kernel
        out.mkdir(parents=True, exist_ok=True)
        for name, (output, status) in results.items():
            (out / name).write_bytes(b"status %d\n" % shell_status(status) + output)
            print(kernel, name, shell_status(status))


if __name__ == "__main__":
    main()
