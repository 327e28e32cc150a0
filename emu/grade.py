"""`pagewalk grade FILE`: a student's algorithm, tried step by step, with points and reasons.

    pagewalk grade my_find_vma.py
    pagewalk grade --exercise cow --json my_cow.py

Each exercise (images/exercises/, docs/teaching.md) is a list of steps with points, which are given whole or not at all.
Every step runs in a process of its own with a limit of time and memory (emu/grade_worker.py), so that a file that
hangs, prints, exits or eats memory costs its points and nothing else. Everything is repeatable: no step uses time
or chance without a seed.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from emu.grade_world import Student
    from emu.options import Options

EXERCISES = {
    "find_vma": "emu.grade_find_vma",
    "insert": "emu.grade_insert",
    "vma_merge": "emu.grade_merge",
    "unmapped_area": "emu.grade_area",
    "cow": "emu.grade_cow",
}
LOADS = ("loads", "the file is Python and has the functions", 5)
MACHINE_STEPS = ("x86_64", "aarch64", "check")
STEP_TIMEOUT = 60.0  # seconds
# Bytes of address space of a step's process. An engine alone reserves 1 GiB for translated code.
MEMORY, MEMORY_WITH_ENGINE = 1 << 30, 6 << 30
STATUS_IMPERFECT = 1


class Result(NamedTuple):
    """One step's outcome."""

    name: str
    title: str
    points: int
    of: int
    detail: str  # what was tried, when passed; else the reason
    drawing: list[str]  # the smallest case that failed


def steps_of(exercise: str) -> list[tuple[str, str, int]]:
    """(name, title, points) of every step, in order."""
    return [LOADS, *((name, title, points) for name, title, points, _ in import_module(EXERCISES[exercise]).STEPS)]


def exercise_of(path: str) -> str:
    """Which exercise a file is for: its `EXERCISE = "..."`, else the functions it has."""
    text = read_source(path)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value in EXERCISES:
            if any(isinstance(target, ast.Name) and target.id == "EXERCISE" for target in node.targets):
                return str(node.value.value)
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    for exercise, module in EXERCISES.items():
        if names & set(import_module(module).SLOTS):
            return exercise
    raise PagewalkError(f"{path}: cannot tell which exercise it is for; say --exercise {'|'.join(EXERCISES)}")


def read_source(path: str) -> str:
    """The file. Raises PagewalkError when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise PagewalkError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def grade(path: str, exercise: str = "", programs: tuple[str, ...] = (), timeout: float = STEP_TIMEOUT) -> list[Result]:
    """Every step of an exercise on the student's file. When the file does not load, the rest is not tried.

    Args:
        programs: further guest commands that the steps with real programs run.
        timeout: seconds a step may take.

    Raises:
        PagewalkError: no such file or exercise.
    """
    exercise = exercise or exercise_of(path)
    results: list[Result] = []
    for name, title, points in steps_of(exercise):
        if results and not results[0].points:
            results.append(Result(name, title, 0, points, "not tried: the file does not load.", []))
        else:
            passed, detail, drawing = run_step(path, exercise, name, programs, timeout)
            results.append(Result(name, title, points if passed else 0, points, detail, drawing))
    return results


def run_step(
    path: str, exercise: str, step: str, programs: tuple[str, ...], timeout: float
) -> tuple[bool, str, list[str]]:
    """One step in a process of its own: (passed, what was tried or the reason, drawing)."""
    read, write = os.pipe()
    task = {"path": path, "exercise": exercise, "step": step, "programs": programs, "timeout": timeout}
    memory = MEMORY_WITH_ENGINE if step in MACHINE_STEPS else MEMORY
    command = [sys.executable, "-m", "emu.grade_worker", str(write), json.dumps({**task, "memory": memory})]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "0"}
    null = subprocess.DEVNULL
    with os.fdopen(read, "rb") as pipe:
        worker = subprocess.Popen(
            command, pass_fds=(write,), stdin=null, stdout=null, stderr=null, env=environment, start_new_session=True
        )
        os.close(write)
        try:
            worker.wait(timeout + 2)
        except subprocess.TimeoutExpired:
            return False, f"it did not end within {timeout:g} s, and would not be interrupted.", []
        finally:
            _end(worker)
        try:
            passed, detail, drawing = json.loads(_read_all(pipe))
            return bool(passed), str(detail), [str(line) for line in drawing]
        except (ValueError, TypeError):
            how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"status {worker.returncode}"
            return False, f"your code ended the process that tried it ({how}).", []


def _read_all(pipe: Any) -> bytes:
    """What the worker sent; a process it left behind may still hold the other end, so nothing is waited for."""
    os.set_blocking(pipe.fileno(), False)
    data = b""
    while len(data) < 1 << 20:
        part = pipe.read(65536)
        if not part:
            break
        data += part
    return data


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the worker's session: itself and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def load_student(path: str, exercise: str) -> Student:
    """The file's functions. Raises Wrong when it cannot be loaded, or lacks one."""
    from emu.algorithm import load_function
    from emu.grade_world import Student, Wrong

    functions = {}
    for slot in import_module(EXERCISES[exercise]).SLOTS:
        try:
            functions[slot] = load_function(path, slot)
        except PagewalkError as error:
            raise Wrong(str(error).replace("--algorithm: ", "") + ".") from None
    return Student(path, functions)


def score(results: list[Result]) -> tuple[int, int]:
    """(points, of how many)."""
    return sum(result.points for result in results), sum(result.of for result in results)


def report(path: str, exercise: str, results: list[Result]) -> str:
    """What the student reads."""
    lines = [f"{path}: exercise {exercise}", ""]
    for result in results:
        mark = "ok  " if result.points else "FAIL"
        lines.append(f"{mark} {result.points:>3}/{result.of:<3} {result.name:<11} {result.title}")
        if not result.points:
            lines += [f"              {line}" for line in wrapped(result.detail)]
            lines += [f"            | {line}" for line in result.drawing]
    points, of = score(results)
    lines += ["", f"{points} of {of} points"]
    failed = next((result for result in results if not result.points), None)
    if failed is not None:
        lines.append(f"Start with the first that failed: {failed.name}.")
    return "\n".join(lines)


def wrapped(text: str) -> list[str]:
    """Lines of at most 100 columns."""
    from textwrap import wrap

    return [line for paragraph in text.split("\n") for line in wrap(paragraph, 100)]


def as_json(path: str, exercise: str, results: list[Result]) -> str:
    """`--json`: the same for a program to read."""
    points, of = score(results)
    steps = [result._asdict() for result in results]
    return json.dumps({"file": path, "exercise": exercise, "points": points, "of": of, "steps": steps}, indent=2)


def command(options: Options) -> int:
    """`pagewalk grade`: the exit status is 0 with all points, 1 with fewer."""
    path = options.program
    exercise = options.exercise or exercise_of(path)
    read_source(path)
    results = grade(path, exercise, tuple(options.programs), options.timeout or STEP_TIMEOUT)
    print((as_json if options.json else report)(path, exercise, results))
    points, of = score(results)
    return 0 if points == of else STATUS_IMPERFECT
