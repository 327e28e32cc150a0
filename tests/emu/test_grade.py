"""pagewalk grade: our modules get all points, templates few, and each usual mistake is named by the step it is for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from debian import Unavailable, busybox
from exercises.wrong import WRONG
from geometry import PROJECT

from emu.cli import main
from emu.errors import PagewalkError
from emu.grade import EXERCISES, Result, exercise_of, report, run_step, steps_of
from emu.grade_worker import run
from emu.options_teach import EXERCISES as NAMES

if TYPE_CHECKING:
    from pathlib import Path

HERE = PROJECT / "tests" / "exercises"
REAL = {
    "find_vma": "from mm.find_vma import find_vma\nfrom mm.vmacache import vmacache_find, vmacache_update\n",
    "insert": "from mm.find_vma import find_vma_links\nfrom mm.vma_tree import vma_link_rb\n",
    "vma_merge": "from mm.vma_merge import vma_merge\n",
    "unmapped_area": "from mm.unmapped_area import unmapped_area, unmapped_area_topdown\n",
    "cow": "from mm.memory_cow import do_wp_page\n",
}


def steps(exercise: str) -> list[str]:
    return [name for name, _, _ in steps_of(exercise)]


def test_the_option_knows_every_exercise() -> None:
    assert tuple(EXERCISES) == NAMES
    for exercise in EXERCISES:
        assert sum(points for _, _, points in steps_of(exercise)) == 100
        assert len(set(steps(exercise))) == len(steps(exercise))


@pytest.mark.parametrize("exercise", EXERCISES)
def test_our_module_gets_every_point(exercise: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ours.py"
    path.write_text(REAL[exercise])
    assert main(["grade", str(path)]) == 0
    out = capsys.readouterr().out
    assert "100 of 100 points" in out
    assert "FAIL" not in out


@pytest.mark.parametrize("exercise", EXERCISES)
def test_another_right_solution_gets_every_point(exercise: str) -> None:
    path = str(HERE / f"right_{exercise}.py")
    assert exercise_of(path) == exercise
    for step in steps(exercise):
        if step not in ("x86_64", "check"):  # ours was there; it takes seconds
            assert run(path, exercise, step, (), 60)[0], step


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_template_fails(exercise: str) -> None:
    path = str(PROJECT / "images" / "exercises" / f"{exercise}.py")
    assert exercise_of(path) == exercise
    passed = [step for step in steps(exercise) if run(path, exercise, step, (), 60)[0]]
    assert passed[:1] == ["loads"]
    points = {name: of for name, _, of in steps_of(exercise)}
    assert sum(points[step] for step in passed) < 50
    assert not {"x86_64", "aarch64", "check"} & set(passed)


def mistakes() -> list[object]:
    return [
        pytest.param(exercise, *wrong, id=f"{exercise}: {wrong[0]}") for exercise in WRONG for wrong in WRONG[exercise]
    ]


@pytest.mark.parametrize(("exercise", "name", "old", "new", "step", "word"), mistakes())
def test_a_usual_mistake_is_named(
    exercise: str, name: str, old: str, new: str, step: str, word: str, tmp_path: Path
) -> None:
    source = (HERE / f"right_{exercise}.py").read_text()
    assert source.count(old) >= 1, "the right solution has changed"
    path = tmp_path / "mine.py"
    path.write_text(source.replace(old, new, 1))
    compile(path.read_text(), "mine.py", "exec")
    passed, reason, drawing = run(str(path), exercise, step, (), 60)
    assert not passed
    assert word in reason
    assert drawing, "the smallest case is drawn"


def test_there_are_enough_mistakes() -> None:
    assert all(len(WRONG[exercise]) >= 5 for exercise in EXERCISES)


def test_real_programs_see_a_mistake(tmp_path: Path) -> None:
    """One mistake an exercise is also caught by the steps with real programs, the judge's drawing with it."""
    caught = {
        "find_vma": ("x86_64", 0),
        "insert": ("aarch64", 8),
        "vma_merge": ("aarch64", 4),
        "unmapped_area": ("x86_64", 2),
        "cow": ("check", 2),
    }
    for exercise, (step, number) in caught.items():
        _, old, new, _, _ = WRONG[exercise][number]
        path = tmp_path / f"{exercise}.py"
        path.write_text((HERE / f"right_{exercise}.py").read_text().replace(old, new, 1))
        passed, reason, _ = run(str(path), exercise, step, (), 60)
        assert not passed, exercise
        assert len(reason) > 20


HOSTILE = {
    "while True:\n            pass": "did not end within",
    "import os; os._exit(3)": "ended the process",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "signal 9",
    "import sys; sys.exit(0)": "SystemExit",
    "return bytearray(1 << 40)": "memory",
    "return find_vma(mm, addr)": "without end",
    "return mm.moon": "AttributeError",
    "return 'the moon'": "first area",
}


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_file_loses_its_points_and_nothing_else(body: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    lines = (
        "def vmacache_find(mm, addr):\n    pass\ndef vmacache_update(mm, addr, v):\n    pass\n",
        f"def find_vma(mm, addr):\n    if True:\n        {body}\n",
    )
    path.write_text("print('noise')\n" + "".join(lines))
    passed, reason, drawing = run_step(str(path), "find_vma", "borders", (), 2)
    assert not passed
    assert HOSTILE[body] in reason
    if "did not end" in reason:
        assert "find_vma(mm, 0x" in "\n".join(drawing)  # what it hung at


def test_a_loop_that_swallows_everything_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n"
    )
    assert "would not be interrupted" in run_step(str(path), "cow", "loads", (), 0.5)[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("EXERCISE = 'cow'\ndef f(:", "bad.py:2: SyntaxError"),
        ("EXERCISE = 'cow'\nraise ValueError(3)", "bad.py:2 in <module>: ValueError: 3"),
        ("EXERCISE = 'cow'\n", "no function 'do_wp_page'"),
    ],
)
def test_a_file_that_does_not_load(text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    words = ["grade", "--exercise", "cow", "--json", str(path)]
    assert main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["points"] == 0 and told["of"] == 100
    assert reason in told["steps"][0]["detail"]
    assert all("does not load" in step["detail"] for step in told["steps"][1:])


def test_which_exercise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    with pytest.raises(PagewalkError, match="cannot tell which exercise"):
        exercise_of(str(path))
    assert main(["grade", str(tmp_path / "nowhere.py")]) == 125
    assert main(["grade"]) == 125
    assert "no FILE given" in capsys.readouterr().err


def test_the_example_of_the_document(tmp_path: Path) -> None:
    exercise, number = "find_vma", 0
    _, old, new, name, _ = WRONG[exercise][number]
    path = tmp_path / "find_vma.py"
    path.write_text((HERE / f"right_{exercise}.py").read_text().replace(old, new, 1))
    title, points = next((title, points) for step, title, points in steps_of(exercise) if step == name)
    passed, reason, drawing = run(str(path), exercise, name, (), 60)
    assert not passed
    assert run(str(path), exercise, name, (), 60) == (passed, reason, drawing)  # repeatable
    shown = report(str(path), exercise, [Result(name, title, 0, points, reason, drawing)])
    example = "".join(f"    {line}\n" for line in shown.splitlines()[2:-3])
    assert example in (PROJECT / "docs" / "teaching.md").read_text()


def test_busybox(tmp_path: Path) -> None:
    """A program nobody here wrote, on all of a student's algorithms, judged and checked."""
    try:
        programs = {architecture: busybox(architecture) for architecture in ("amd64", "arm64")}
    except Unavailable as why:
        pytest.skip(f"busybox-static is not to be had: {why}")
    commands = []
    for architecture, program in programs.items():
        path = tmp_path / f"busybox-{architecture}"
        path.write_bytes(program)
        path.chmod(0o755)
        commands += [f"{path} sh -c 'x=1; while [ $x -lt 9 ]; do x=$((x+1)); done; echo $x'", f"{path} seq 40"]
    for exercise in ("find_vma", "cow"):
        student = str(HERE / f"right_{exercise}.py")
        passed, detail, drawing = run(student, exercise, "x86_64", tuple(commands), 60)
        assert passed, (detail, drawing)
    _, old, new, _, _ = WRONG["insert"][8]
    path = tmp_path / "mine.py"
    path.write_text((HERE / "right_insert.py").read_text().replace(old, new, 1))
    assert not run(str(path), "insert", "check", tuple(commands), 60)[0]


def test_a_program_of_ones_own(tmp_path: Path) -> None:
    path = str(HERE / "right_cow.py")
    program = str(PROJECT / "images" / "x86_64" / "hello")
    passed, detail, _ = run(path, "cow", "x86_64", (program,), 60)
    assert passed and detail.startswith("3 programs")
    passed, reason, _ = run(path, "cow", "x86_64", ("/nowhere",), 60)
    assert not passed and "/nowhere" in reason
