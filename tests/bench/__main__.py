"""`make bench`: what pagewalk costs, as ratios taken in one run on one machine. Whole numbers, in percent.

Each figure is the best of several turns, and the two sides of a ratio take turns, so that a busy moment hits both. The
programs are images/ARCH/bench and hello. What is not installed is left out: qemu-user from Debian, Qiling
from PyPI (`make qiling` puts it into .venv-qiling).
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tests.bench import bare

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
ARCHES = ("x86_64", "aarch64")
QILING = PROJECT / ".venv-qiling" / "bin" / "python"
QILING_RUN = (
    "import sys\nfrom qiling import Qiling\nfrom qiling.const import QL_VERBOSE\n"
    "Qiling(sys.argv[2:], sys.argv[1], verbose=QL_VERBOSE.DISABLED).run()\n"
)
# Kinds of work of images/ARCH/bench that are counted by the second.
RATES = {
    "faults": "first touch of a page",
    "remap": "mmap, touch, munmap",
    "move": "mremap that moves 1,000 pages",
    "fork": "fork with 10,000 resident pages, exit, wait",
    "protect": "mprotect over 1,000 areas",
    "readfault": "read fault on the page cache",
}
LONG_ENOUGH = 0.3  # seconds of work, beside the start of the program
COMPUTE, CALLS, FAULTS = 4_000_000, 20_000, 20_000
TURNS = 5


def image(arch: str, name: str = "bench") -> pathlib.Path:
    return PROJECT / "images" / arch / name


def pagewalk_seconds(arch: str, *argv: str) -> float:
    """Seconds of `Machine.run`, without building the machine."""
    from emu import Machine

    machine = Machine(arch, stdin=b"", stdout="capture", stderr="capture")
    machine.goes_on = False  # as the command line runs it
    machine.load(str(image(arch)), ["bench", *argv])
    start = time.perf_counter()
    end = machine.run()
    seconds = time.perf_counter() - start
    if end.status or end.signal:
        sys.exit(f"bench: {arch} {argv} ended with {end}")
    return seconds


def bare_seconds(arch: str, *argv: str) -> float:
    """The same under bare Unicorn."""
    engine = bare.make(arch, image(arch).read_bytes(), ["bench", *argv])
    start = time.perf_counter()
    engine.run()
    return time.perf_counter() - start


def compare(ours: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Best times of both, taken in turns."""
    pairs = [(ours(), other()) for _ in range(TURNS)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def work(arch: str, kind: str, count: int) -> tuple[float, float]:
    """Seconds (pagewalk, bare) for `count` units of work, start and end of the program taken off."""
    ours, other = compare(
        lambda: pagewalk_seconds(arch, kind, str(count)), lambda: bare_seconds(arch, kind, str(count))
    )
    ours0, other0 = compare(lambda: pagewalk_seconds(arch, kind, "1"), lambda: bare_seconds(arch, kind, "1"))
    return ours - ours0, other - other0


def wall(command: list[str], turns: int = TURNS) -> float:
    """Best wall-clock seconds of a command."""
    best = 1e9
    for _ in range(turns):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=PROJECT)
        best = min(best, time.perf_counter() - start)
    return best


def split_microseconds(arch: str, areas: int) -> float:
    """Per mprotect call, when the region is split into `areas` areas: two more with each call."""
    calls = areas // 2
    turns = 3 if areas < 10_000 else 1
    seconds = min(pagewalk_seconds(arch, "split", str(calls)) for _ in range(turns))
    return (seconds - min(pagewalk_seconds(arch, "split", "1") for _ in range(3))) / calls * 1e6


def against_unicorn(arch: str) -> list[tuple[str, float, str]]:
    """(what, percent, bound) of the comparisons with bare Unicorn."""
    rows = []
    ours, other = work(arch, "compute", COMPUTE)
    rows.append(("compute: speed, of bare Unicorn running the same instructions", other / ours, "at least 95"))
    ours, other = work(arch, "getppid", CALLS)
    rows.append(("getppid: cost, of a hook with one reg_read and one reg_write", ours / other, "at most 100"))
    ours, other = work(arch, "faults", FAULTS)
    rows.append(("anonymous fault: cost, of a hook that writes one PTE", ours / other, "at most 250"))
    small = split_microseconds(arch, 1000)
    rows.append(
        ("mprotect call at 4,000 areas, of one at 1,000", split_microseconds(arch, 4000) / small, "at most 150")
    )
    rows.append(
        ("mprotect call at 64,000 areas, of one at 1,000", split_microseconds(arch, 64000) / small, "at most 150")
    )
    hello = [str(pathlib.Path(sys.executable).parent / "pagewalk"), "run", str(image(arch, "hello"))]
    importing = [sys.executable, "-c", "import unicorn"]
    pairs = [(wall(hello, 1), wall(importing, 1)) for _ in range(2 * TURNS)]
    ratio = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    rows.append(("hello, command to exit, of `python -c 'import unicorn'`", ratio, "at most 250"))
    return rows


def others(arch: str, empty: str) -> dict[str, list[str]]:
    """How each emulator that is installed is started."""
    found = {"pagewalk": [str(pathlib.Path(sys.executable).parent / "pagewalk"), "run"]}
    qemu = shutil.which(f"qemu-{arch}") or shutil.which(f"qemu-{arch}-static")
    if qemu:
        found["qemu-user"] = [qemu]
    if QILING.exists():
        found["Qiling"] = [str(QILING), "-c", QILING_RUN, empty]
    return found


def side_by_side(arch: str) -> list[list[str]]:
    """Rows of wall-clock times of whole programs, in percent of pagewalk's."""
    programs = {
        "hello": [str(image(arch, "hello"))],
        "compute 20,000,000": [str(image(arch)), "compute", "20000000"],
        "getppid 100,000": [str(image(arch)), "getppid", "100000"],
        "faults 20,000": [str(image(arch)), "faults", "20000"],
        "split 500": [str(image(arch)), "split", "500"],
    }
    with tempfile.TemporaryDirectory() as empty:
        commands = others(arch, empty)
        rows = [["program", *commands]]
        for name, argv in programs.items():
            times: dict[str, float | None] = {}
            for emulator, command in commands.items():
                try:
                    times[emulator] = wall([*command, *argv], 3)
                except subprocess.CalledProcessError:
                    times[emulator] = None
            own = times["pagewalk"] or 1.0
            rows.append([name, *(f"{round(100 * t / own)}" if t is not None else "fails" for t in times.values())])
    return rows


def bench_seconds(command: list[str], arch: str, kind: str, count: int) -> float | None:
    """Best of three runs of `bench KIND COUNT`; None when it does not end as it should."""
    best = None
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [*command, str(image(arch)), kind, str(count)], capture_output=True, check=False, cwd=PROJECT
        )
        seconds = time.perf_counter() - start
        if done.returncode or not done.stdout.startswith(kind.encode()):
            return None
        best = seconds if best is None else min(best, seconds)
        if seconds > 10 * LONG_ENOUGH:
            break
    return best


def rate(command: list[str], arch: str, kind: str) -> float | None:
    """Units of work a second, start and end of the program taken off."""
    base = bench_seconds(command, arch, kind, 1)
    count = 4
    while base is not None:
        seconds = bench_seconds(command, arch, kind, count)
        if seconds is None:
            return None
        if seconds - base > LONG_ENOUGH or count >= 1 << 20:
            return (count - 1) / (seconds - base)
        count *= 4
    return None


def by_the_second(arch: str) -> list[list[str]]:
    """Rows of memory calls a second under pagewalk, and how many times as many as under each other emulator."""
    with tempfile.TemporaryDirectory() as empty:
        os.mkdir(os.path.join(empty, "tmp"))
        commands = others(arch, empty)
        rows = [["work", "a second", *(f"of {name}'s, %" for name in commands if name != "pagewalk")]]
        for kind, what in RATES.items():
            own = rate(commands["pagewalk"], arch, kind)
            if own is None:
                sys.exit(f"bench: {arch} {kind} fails")
            row = [what, f"{own:,.0f}"]
            for name, command in commands.items():
                if name != "pagewalk":
                    other = rate(command, arch, kind)
                    row.append("fails" if other is None else f"{100 * own / other:,.0f}")
            rows.append(row)
    return rows


def print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def main() -> None:
    os.chdir(PROJECT)
    for arch in ARCHES:
        print(f"\n{arch}: in percent\n")
        rows = [[what, f"{round(100 * ratio)}", bound] for what, ratio, bound in against_unicorn(arch)]
        print_table([["", "now", "wanted"], *rows])
        print(f"\n{arch}: time of whole programs, pagewalk = 100\n")
        print_table(side_by_side(arch))
        print(f"\n{arch}: work a second, and that in percent of the others'\n")
        print_table(by_the_second(arch))
    if not QILING.exists():
        print("\nQiling is not installed here: make qiling")


if __name__ == "__main__":
    main()
