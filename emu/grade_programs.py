"""The steps every exercise ends with: real programs on the student's code.

agrees   each program runs with the student's functions beside ours (emu/judge.py): the first call that differs ends it
check    each runs on the student's functions alone with every invariant checked (--check 2), and must print the same
"""

from __future__ import annotations

import gc
import os
import shlex
from typing import TYPE_CHECKING, Any

from emu.algorithm import AlgorithmError, explain_breakage
from emu.errors import PagewalkError
from emu.grade_world import Student, Wrong
from emu.judge import Divergence
from mm.errors import KernelBug

if TYPE_CHECKING:
    from emu.machine import Machine

IMAGES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "images")
ARCHES = ("x86_64", "aarch64")
RAM = 32 << 20
LIMIT = 120.0  # seconds; the step's own limit is below


def image(arch: str, name: str) -> str:
    """Host path of one of the project's guest programs."""
    path = os.path.join(IMAGES, arch, name)
    if not os.path.isfile(path):
        raise PagewalkError(f"{path} is missing: this needs the project's images/ folder")
    return path


def start(arch: str, words: list[str], legacy: bool, **options: Any) -> Machine:
    """A machine with a program loaded; `legacy`: mmap searches from below, as sysctl vm.legacy_va_layout asks."""
    from emu.machine import Machine

    gc.collect()  # the machine before: its engine has a GiB of address space
    machine = Machine(arch or None, ram=RAM, stdin=b"", stdout="capture", stderr="capture", **options)
    if legacy:
        machine.system.sysctl_legacy_va_layout = 1
    machine.load(words[0], words)
    return machine


def _finish(machine: Machine) -> tuple[int, int, bytes]:
    end = machine.run(timeout=LIMIT)
    if end.reason != "exit":
        raise Wrong(f"the program did not end within {LIMIT:g} s on your code.")
    return end.status, end.signal, machine.output


def programs(student: Student, names: tuple[str, ...], legacy: bool = False) -> list[tuple[str, list[str], bool]]:
    """(architecture, command, legacy layout) of each run, the ones asked for with --program last."""
    found = [(arch, [image(arch, name)], False) for arch in ARCHES for name in names]
    if legacy:
        found += [(arch, [image(arch, names[0])], True) for arch in ARCHES]
    return found + [("", shlex.split(command), False) for command in student.programs]


def agrees(student: Student, arch: str, names: tuple[str, ...], legacy: bool = False) -> str:
    """Programs of one architecture (and the user's own, in whichever step is x86-64's) under the judge."""
    calls = 0
    chosen = [run for run in programs(student, names, legacy) if run[0] == arch or (not run[0] and arch == ARCHES[0])]
    for of, words, low in chosen:
        shown = shlex.join([os.path.basename(words[0]), *words[1:]])
        student.now = lambda shown=shown: f"  program   {shown} ({arch})"
        try:
            machine = start(of, words, low, algorithm=student.functions, judge=True)
            _finish(machine)
        except Divergence as difference:
            reason = f"{shown} ({arch}): the answer or the state after a call of {difference.name} is not ours."
            raise Wrong(reason, difference.report) from None
        except (AlgorithmError, KernelBug) as error:
            raise Wrong(f"{shown} ({arch}): {error}") from None
        except (PagewalkError, Wrong):
            raise
        except Exception as error:  # noqa: BLE001 - a wrong answer can break anything
            raise Wrong(f"{shown} ({arch}): {_breakage(error, student)}") from None
        calls += 1
    return f"{calls} programs, every call as ours"


def check(student: Student, names: tuple[str, ...], legacy: bool = False) -> str:
    """Programs of both architectures at --check 2: invariants hold and the output is the same as with ours."""
    for arch, words, low in programs(student, names, legacy):
        shown = shlex.join([os.path.basename(words[0]), *words[1:]]) + (f" ({arch})" if arch else "")
        student.now = lambda shown=shown: f"  program   {shown}"
        expected = _finish(start(arch, words, low))
        try:
            got = _finish(start(arch, words, low, algorithm=student.functions, check=2))
        except KernelBug as bug:
            raise Wrong(f"{shown}: an invariant of mm/README.md broke: {str(bug).splitlines()[0]}") from None
        except Wrong as wrong:
            raise Wrong(f"{shown}: {wrong.reason}") from None
        except PagewalkError as error:
            raise Wrong(f"{shown}: {error}") from None
        except Exception as error:  # noqa: BLE001 - a wrong answer can break anything
            raise Wrong(f"{shown}: {_breakage(error, student)}") from None
        if got != expected:
            raise Wrong(f"{shown} behaves differently on your code.", _difference(expected, got))
    return "invariants hold, same output"


def _breakage(error: BaseException, student: Student) -> str:
    from emu.algorithm import Algorithm

    return explain_breakage(error, [Algorithm.of(name, function) for name, function in student.functions.items()])


def _difference(expected: tuple[int, int, bytes], got: tuple[int, int, bytes]) -> str:
    """How it ended, and the first lines that differ."""
    lines = []
    if expected[:2] != got[:2]:
        lines = [
            f"  expected  status {expected[0]}, signal {expected[1]}",
            f"  got       status {got[0]}, signal {got[1]}",
        ]
    ours, yours = expected[2].decode(errors="replace").split("\n"), got[2].decode(errors="replace").split("\n")
    for number, (one, other) in enumerate(zip(ours, yours, strict=False), 1):
        if one != other:
            lines += [f"  line {number} of the output", f"  expected  {one}", f"  got       {other}"]
            break
    return "\n".join(lines)
