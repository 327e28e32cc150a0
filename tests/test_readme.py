"""The README's walk is true: each command it shows is run, and prints, in this order, the lines it shows."""

import re
import shlex
import subprocess
import sys

import pytest
from geometry import PROJECT

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)


def walk() -> list[tuple[str, list[str]]]:
    """(command, lines shown after it) for each line `$ pagewalk ...` of the README."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCKS:
        for line in block.splitlines():
            text = line.removeprefix("    ")
            if text.startswith("$ pagewalk "):
                found.append((text.removeprefix("$ pagewalk "), []))
            elif found and block.lstrip().startswith("$"):
                found[-1][1].append(text)
    return found


@pytest.mark.parametrize(("command", "shown"), walk(), ids=[command for command, _ in walk()])
def test_the_walk_was_really_run(command: str, shown: list[str]) -> None:
    if "rootfs" in command:
        pytest.skip("busybox is run by test_busybox.py")
    words = [sys.executable, "-m", "emu", *shlex.split(command)]
    done = subprocess.run(words, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    printed = iter((done.stdout + done.stderr).splitlines())
    missing = [line for line in shown if not any(line.rstrip() == other.rstrip() for other in printed)]
    assert done.returncode == 0
    assert not missing


def test_there_is_a_walk() -> None:
    assert len(walk()) >= 6
    assert sum(len(shown) for _, shown in walk()) >= 10


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("0 ")
    assert "pages written" in "\n".join(rest)
