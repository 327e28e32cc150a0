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


def check_after_calls(machine: Any) -> None:
    """Check the caller's address space after every system call; faults check themselves at level 2."""
    from mm.validate import validate_mm
    from mm.validate_pages import validate_pages

    def check(_event: object) -> None:
        mm = machine.kernel.current.mm
        if mm is not None:
            validate_mm(mm)
            validate_pages(mm)

    machine.subscribe(check, "syscall_exit")


def run_guest(kernel: str, program: str, argv: list[str] | None = None, **options: Any) -> tuple[int, bytes, bytes]:
    """Run to the end: status as a shell counts it, standard output, standard error."""
    machine = make_machine(kernel, **options)
    machine.load(program, argv)
    if options.get("check") == 2:
        check_after_calls(machine)
    end = machine.run()
    return (128 + end.signal if end.signal else end.status), bytes(machine.output), bytes(machine.errors)
