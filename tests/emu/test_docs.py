"""The examples of docs/ run, and what docs/run.md says of options is what there is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from geometry import PROJECT

from emu.options import COMMANDS, groups_of

if TYPE_CHECKING:
    import pathlib

DOCS = PROJECT / "docs"


def examples(path: pathlib.Path) -> list[str]:
    """The Python blocks of a document."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


SHOWN = ("black height", "black height", "read of", *("status=",) * 9)  # what each example must print


@pytest.mark.parametrize("number", range(len(examples(DOCS / "python.md"))))
def test_example(number: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    exec(compile(examples(DOCS / "python.md")[number], f"docs/python.md example {number + 1}", "exec"), {})
    out = capfd.readouterr().out
    assert SHOWN[number] in out
    assert "status=" in out or "0 " in out


def test_every_option_is_described() -> None:
    text = (DOCS / "run.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`(-[-\w]+)", text))
    groups = [group for command in COMMANDS for _, group in groups_of(command)]
    names = {name for group in groups for option in group for name in option.names}
    assert names <= described
