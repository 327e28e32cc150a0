"""The seeded fuzzer through the engine: a guest (tests/hostile/fuzz.c) makes random calls and touches random memory.

    python tests/fuzz_engine.py [--arch aarch64] [--page-size 65536] [--calls 100000] [--seed 1] [--keep]

Where tests/fuzz_calls.py calls the dispatcher, here everything takes part: traps, faults, signal frames, the scheduler,
the TLB. A world is one machine: the guest makes `WORLD_CALLS` calls, its children as many as are left to them, until
`WORLD_LIMIT` are made in all. Then all are killed, invariants are validated, and no frame may be lost. A finding is a
traceback, a machine that does not stop when told to, or an invariant broken; it comes with the seed and the last calls
and can be repeated with `--seed S --calls 1`. A guest that loops by itself (faults in its own fault handler, say) is
none: its world is over.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz_calls import ADDRESS_SPACE, MAX_TASKS, RARE, SPECS, Finding
from fuzz_structs import SETUP, STRUCTS, VARIANTS

SOURCE = Path(__file__).parent / "hostile" / "fuzz.c"
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
RAM = 64 << 20
WORLD_CALLS = 1500  # of the first program
WORLD_LIMIT = 4000  # of all its tasks
PATIENCE = 15  # seconds of the host without a call: the guest is lost
HANG = 60  # seconds of the host until a machine must have stopped


def build(arch: str, folder: Path) -> Path | None:
    """The guest's program, or None without a compiler."""
    compiler = shutil.which(COMPILERS[arch])
    if compiler is None:
        return None
    program = folder / f"fuzz.{arch}"
    subprocess.run([compiler, "-static", "-O1", "-w", "-o", str(program), str(SOURCE)], check=True, capture_output=True)
    return program


def specs(arch: str) -> str:
    """The lines fuzz.c draws from: structures, calls to begin with, then every call of the architecture."""
    from guest.syscall_numbers import NAMES

    number_of = {name: number for number, name in NAMES[arch].items()}
    lines = [f"@{name} {' '.join(fields)}" for name, fields in STRUCTS.items()]
    for name, *words in SETUP:
        to = words[-1] if ">" in words else "-1"
        lines.append(f"> {to} {number_of[name]} {' '.join(words[: words.index('>') if '>' in words else None])}")
    for name, *words in VARIANTS:
        if name in number_of:
            lines += [f"{number_of[name]} {round(1000 * RARE.get(name, 1))} {' '.join(words)}"] * 3
    for number, name in sorted(NAMES[arch].items()):
        mille = 0 if name in ("exit", "exit_group") else round(1000 * RARE.get(name, 1))
        lines.append(f"{number} {mille} {' '.join(SPECS.get(name, []))}")
        if name in SPECS:
            lines.append(f"{number} {mille // 5}")
    return "\n".join(lines)


class World:
    """One machine."""

    def __init__(self, arch: str, page_size: int, program: Path, seed: int) -> None:
        from emu import Machine

        self.last: list[str] = []
        self.made = 0
        self.machine = machine = Machine(
            arch, page_size=page_size, ram=RAM, stdin=b"some input\n" * 50, stdout="capture", stderr="capture",
            seed=seed, uid=1000 * (seed % 2), env={"A": "b"},
        )  # fmt: skip
        task = machine.load(str(program), ["/fuzz", str(seed), str(WORLD_CALLS), specs(arch)])
        task.rlim[9] = [ADDRESS_SPACE, ADDRESS_SPACE]
        machine.kernel.max_threads = MAX_TASKS
        self.unsubscribe = machine.subscribe(self.called, "syscall_enter", "syscall_exit")

    def called(self, event: Any) -> None:
        """Count, remember, and stop in time."""
        if event.kind == "syscall_exit":
            self.last[-1] += f" = {event.result}"
            return
        self.made += 1
        self.last.append(f"{event.pid} {event.name}({', '.join(f'{arg:#x}' for arg in event.args)})")
        del self.last[:-12]
        if self.made >= WORLD_LIMIT:
            self.machine.stop()

    def live(self) -> None:
        """Run until the first program ends, nobody can run, nobody calls any more, or enough calls are made."""
        from emu.errors import PagewalkError

        while True:
            before = self.made
            signal.setitimer(signal.ITIMER_REAL, HANG)
            try:
                end = self.machine.run(timeout=PATIENCE)
            except PagewalkError as error:
                self.last.append(f"-- {error}")
                return
            if end.reason != "timeout" or self.made == before:
                return

    def end(self) -> None:
        """Kill whoever is left; all memory must come back."""
        from emu.errors import PagewalkError
        from guest.siginfo import SIGKILL, kill_info
        from guest.signal import send_signal
        from mm.validate_pages import validate_system

        machine, kernel = self.machine, self.machine.kernel
        self.last.append("-- the end")
        self.unsubscribe()
        validate_system(machine.system, kernel.tasks.values())
        for task in list(kernel.tasks.values()):
            if task is not kernel.init and not task.exit_state:
                send_signal(kill_info(SIGKILL, 0, 0, 0), task, True)
        kernel.need_resched = True
        try:
            signal.setitimer(signal.ITIMER_REAL, HANG)
            machine.run(timeout=PATIENCE)
        except PagewalkError as error:
            raise Finding(f"SIGKILL does not kill: {error}") from error
        if machine.system.pgd_list:
            raise Finding(f"{len(machine.system.pgd_list)} address spaces survive their tasks")
        validate_system(machine.system, None)


def _alarm(number: int, frame: Any) -> None:
    raise Finding("the machine hangs")


def run(arch: str, page_size: int, calls: int, seed: int, keep: bool = False, program: Path | None = None) -> int:
    """Fuzz until `calls` are made; how many findings there were, printed. Without a compiler, none: see `build`."""
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as folder:
        program = program or build(arch, Path(folder))
        if program is None:
            raise SystemExit(f"no {COMPILERS[arch]}")
        made = worlds = findings = 0
        while made < calls:
            world = None
            try:
                world = World(arch, page_size, program, seed + worlds)
                world.live()
                world.end()
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                findings += 1
                last = "\n  ".join(world.last) if world is not None else ""
                print(f"==== {arch} {page_size} --seed {seed + worlds}\n  {last}\n{traceback.format_exc()}", flush=True)
                if not keep:
                    return findings
            signal.setitimer(signal.ITIMER_REAL, 0)
            made += world.made + 1 if world is not None else 1
            worlds += 1
            if world is not None:
                world.machine.close()
    print(f"{arch} {page_size}: {made} calls in {worlds} worlds, {findings} findings", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--arch", default="x86_64", choices=COMPILERS)
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="go on after a finding")
    args = parser.parse_args()
    started = time.monotonic()
    findings = run(args.arch, args.page_size, args.calls, args.seed, args.keep)
    print(f"{time.monotonic() - started:.1f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
