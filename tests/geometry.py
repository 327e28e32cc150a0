"""The five page geometries, and how a test runs a guest under one of them."""

import pathlib
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = PROJECT / "images"

#: What the recordings call a kernel -> the machine of the same geometry.
KERNELS: dict[str, dict[str, Any]] = {
    "x86_64-4k": {"arch": "x86_64", "page_size": 4096},
    "x86_64-4k-la57": {"arch": "x86_64", "page_size": 4096, "la57": True},
    "aarch64-4k": {"arch": "aarch64", "page_size": 4096},
    "aarch64-16k": {"arch": "aarch64", "page_size": 16384},
    "aarch64-64k": {"arch": "aarch64", "page_size": 65536},
}


def arch_of(kernel: str) -> str:
    """`x86_64` or `aarch64`, the folder of the guest programs."""
    return kernel.split("-")[0]


def make_machine(kernel: str, **options: Any) -> Any:
    """A machine of that geometry: no input, output captured."""
    from emu import Machine

    return Machine(**{**KERNELS[kernel], "stdin": b"", "stdout": "capture", "stderr": "capture", **options})


def run_guest(kernel: str, program: str, argv: list[str] | None = None, **options: Any) -> tuple[int, bytes, bytes]:
    """Run to the end: status as a shell counts it, standard output, standard error."""
    machine = make_machine(kernel, **options)
    machine.load(program, argv)
    end = machine.run()
    return (128 + end.signal if end.signal else end.status), bytes(machine.output), bytes(machine.errors)
