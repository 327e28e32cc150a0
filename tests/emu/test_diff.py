"""`pagewalk diff`: what differs between two states, and nothing else."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from geometry import PROJECT

from emu import Machine, cli
from emu.diff import State, area_lines, counter_lines, diff_svg, diff_text, leaf_lines, tree_lines

if TYPE_CHECKING:
    import pathlib

IMAGE = str(PROJECT / "images" / "x86_64" / "split")


def states(*moments: int, image: str = IMAGE) -> list[State]:
    """The states of a run where its calls of these numbers begin."""
    found: list[State] = []
    calls = 0
    machine = Machine(stdin=b"", stdout="capture")

    def look(event: object) -> None:
        nonlocal calls
        calls += 1
        if calls in moments:
            found.append(State.of(machine))

    machine.subscribe(look, "syscall_enter")
    machine.load(image)
    machine.run()
    machine.close()
    return found


def test_nothing_differs() -> None:
    (a,) = states(5)
    assert diff_text(a, a) == "no difference"


def test_areas_that_come_go_and_change() -> None:
    """mprotect of a page in the middle splits: one area shrinks, two come; the other way round two go."""
    a, b = states(6, 7)
    lines = list(area_lines(a, b))
    assert [line[0] for line in lines] == ["~", "+"] or [line[0] for line in lines] == ["~", "+", "+"]
    assert "was" in lines[0]
    back = list(area_lines(b, a))
    assert sorted(line[0] for line in back) == sorted("-" if line[0] == "+" else "~" for line in lines)
    assert any(line.startswith("~") for line in tree_lines(a, b)) or len(a.areas) < 3


def test_every_entry_that_differs_is_told() -> None:
    a, b = states(1, 30)
    old, new = ({leaf.address: leaf.raw for leaf in state.leaves} for state in (a, b))
    differing = {at for at in old.keys() | new.keys() if old.get(at) != new.get(at)}
    told = set()
    for line in leaf_lines(a, b):
        start, end = (int(word, 16) for word in line.split()[1].split("-"))
        told |= set(range(start, end, 4096))
    assert told == differing
    assert differing
    assert any("resident" in line for line in counter_lines(a, b))


def test_the_command(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    for file, moment in zip(files, ("2", "30"), strict=True):
        assert cli.main(["maps", "--quiet", "--at-syscall", moment, "--save", file, IMAGE]) == 0
    capfd.readouterr()
    picture = tmp_path / "d.svg"
    assert cli.main(["diff", *files, "--svg", str(picture)]) == 1
    out = capfd.readouterr().out
    assert out == diff_text(State.load(files[0]), State.load(files[1])) + "\n"
    assert out.startswith("Areas\n")
    root = ET.fromstring(picture.read_text())
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum("rw-p" in text for text in texts) > 2
    assert cli.main(["diff", files[0], files[0]]) == 0
    assert capfd.readouterr().out == "no difference\n"


def test_the_drawing_has_a_box_for_each_area() -> None:
    a, b = states(6, 30)
    assert diff_svg(a, b).count("<rect") == 1 + len(a.areas) + len(b.areas)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema":"pagewalk-state"}', "\xff", "[" * 10**5])
def test_what_is_no_state_is_refused(content: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a"
    file.write_text(content)
    assert cli.main(["diff", str(file), str(file)]) == 125
    assert capfd.readouterr().err == f"pagewalk: {file}: not a state of pagewalk maps --save\n"


def test_a_state_of_another_kind_is_refused(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, two, newer = (tmp_path / name for name in ("one", "two", "newer"))
    (a,) = states(3)
    a.save(str(one))
    (b,) = states(3, image=str(PROJECT / "images" / "aarch64" / "split"))
    b.save(str(two))
    newer.write_text(json.dumps({**json.loads(one.read_text()), "version": 9}))
    for words, message in (
        ([str(one), str(two)], f"{one} is of x86_64, {two} of aarch64"),
        ([str(one), str(newer)], f"{newer}: a state of version 9; this pagewalk reads 1"),
        ([str(one), str(tmp_path / "none")], f"{tmp_path / 'none'}: No such file or directory"),
        ([str(one)], "no B given (usage: pagewalk diff [options] A B)"),
    ):
        assert cli.main(["diff", *words]) == 125
        assert capfd.readouterr().err == f"pagewalk: {message}\n"
