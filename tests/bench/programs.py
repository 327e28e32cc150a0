"""Debian's programs that compute, timed side by side; and how long a dynamic python3 takes to start.

PYTHONPATH=tests:. python -m tests.bench.programs

Beside pagewalk's seconds: its ratio to what the engine alone needed for the same instructions (all that Python did for
traps, faults and scheduling taken off), and the times of qemu-user and Qiling in percent of pagewalk's.
"""

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from programs.roots import root_of  # noqa: E402

from tests.bench.__main__ import others, print_table  # noqa: E402

TURNS = 3
PROGRAMS = {
    "lua5.4, a loop": ["/usr/bin/lua5.4", "-e", "local n = 0; for i = 1, 3000000 do n = n + i % 7 end; print(n)"],
    "gawk, a loop": ["/usr/bin/gawk", "BEGIN { for (i = 0; i < 400000; i++) s += i % 7; print s }"],
    "python3.11, a loop": ["/usr/bin/python3.11", "-Sc", "print(sum(i * i % 7 for i in range(500000)))"],
    "openssl, primes": ["/usr/bin/openssl", "prime", "-generate", "-bits", "512"],
    "sort, 100,000 lines": ["/bin/bash", "-c", "seq 100000 | sort -r | cksum"],
}
START = ["/usr/bin/python3.11", "-c", "pass"]


def shares(root: str, argv: list[str]) -> tuple[float, float]:
    """Seconds of a run, and those of them that Python's side of it took."""
    from emu import Machine

    machine = Machine(root=root, env={"PATH": "/usr/bin:/bin"}, stdin=b"", stdout="capture", stderr="capture")
    machine.goes_on = False  # as the command line runs it
    machine.load(argv[0], argv)
    kernel: Any = machine.kernel
    spent = [0.0]

    def timed(serve: Any) -> Any:
        def wrapper(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return serve(*arguments)
            finally:
                spent[0] += time.perf_counter() - start

        return wrapper

    kernel.system_call = timed(kernel.system_call)
    kernel.page_fault = timed(kernel.page_fault)
    machine.engine.attach(kernel)
    start = time.perf_counter()
    end = machine.run()
    seconds = time.perf_counter() - start
    if end.status or end.signal:
        sys.exit(f"bench: {argv} ended with {end}")
    return seconds, spent[0]


def wall(command: list[str], turns: int = TURNS) -> float | None:
    """Best wall-clock seconds of a command; None when it fails or takes a minute."""
    best = None
    for _ in range(turns):
        start = time.perf_counter()
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        seconds = time.perf_counter() - start
        best = seconds if best is None else min(best, seconds)
    return best


def commands(arch: str, root: str) -> dict[str, list[str]]:
    """How each emulator starts a program of the root folder."""
    found = others(arch, root)
    found["pagewalk"] = [sys.executable, "-m", "emu", "run", "--root", root]
    if "qemu-user" in found:
        found["qemu-user"] += ["-L", root]
    return found


def row(name: str, argv: list[str], root: str, emulators: dict[str, list[str]]) -> list[str]:
    """One program under all."""
    best = min((shares(root, argv) for _ in range(TURNS)), key=lambda pair: pair[0])
    times = {
        emulator: wall([*command, *([argv[0]] if emulator == "pagewalk" else [root + argv[0]]), *argv[1:]])
        for emulator, command in emulators.items()
    }
    own = times["pagewalk"]
    cells = [f"{own:.2f}" if own else "fails", f"{100 * best[0] / (best[0] - best[1]):.0f}"]
    for emulator, seconds in times.items():
        if emulator != "pagewalk":
            cells.append(f"{100 * seconds / own:.0f}" if seconds and own else "fails")
    return [name, *cells]


def main() -> None:
    for arch, debian in (("x86_64", "amd64"), ("aarch64", "arm64")):
        root = str(root_of(debian))
        emulators = commands(arch, root)
        names = [name for name in emulators if name != "pagewalk"]
        rows = [["program", "seconds", "of the engine's, %", *(f"{name}, % of it" for name in names)]]
        print(f"\n{arch}: Debian's programs\n")
        print_table(rows + [row(name, argv, root, emulators) for name, argv in PROGRAMS.items()])
        print_table([["start", "seconds", "", *names], row("python3 -c pass", START, root, emulators)])


if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    main()
