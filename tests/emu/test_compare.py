"""`pagewalk compare`: the numbers are those of the runs, and they tell what page sizes do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emu import Machine
from emu.cli import main
from emu.compare import GEOMETRIES

IMAGES = Path(__file__).resolve().parents[2] / "images"
PROGRAM = str(IMAGES / "{arch}" / "lazyzero")


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["compare", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_all_geometries(capsys: pytest.CaptureFixture[str]) -> None:
    runs = measured(capsys, PROGRAM)
    assert [run["geometry"] for run in runs] == list(GEOMETRIES)
    by_name = {run["geometry"]: run for run in runs}
    assert by_name["x86_64-4k-la57"]["page_table_pages"] > by_name["x86_64-4k"]["page_table_pages"]
    small, middle, large = (by_name[f"aarch64-{size}"] for size in ("4k", "16k", "64k"))
    assert small["wasted_bytes"] < middle["wasted_bytes"] < large["wasted_bytes"]
    assert small["page_table_pages"] > middle["page_table_pages"] > large["page_table_pages"]
    assert len({run["calls"] for run in runs}) == 1
    for run in runs:
        assert run["faults"].pop("total") == sum(run["faults"].values())
        assert run["wasted_bytes"] <= run["anonymous_bytes"] <= run["resident_bytes"]


@pytest.mark.parametrize("geometry", ["x86_64-4k", "aarch64-16k"])
def test_against_a_run_of_our_own(capsys: pytest.CaptureFixture[str], geometry: str) -> None:
    (run,) = measured(capsys, "--geometry", geometry, PROGRAM)
    arch, page_size, la57 = GEOMETRIES[geometry]
    machine = Machine(page_size=page_size, la57=la57, stdout="capture")
    seen: dict[str, int] = {}
    machine.subscribe(lambda event: seen.update({event.kind: seen.get(event.kind, 0) + 1}))
    machine.load(PROGRAM.replace("{arch}", arch))
    machine.run()
    assert run["faults"]["total"] == seen["fault"]
    assert run["page_table_pages"] == seen["page_table_alloc"]
    assert run["calls"] == seen["syscall_enter"]
    assert run["resident_bytes"] == machine.task.signal.maxrss * page_size


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(IMAGES / "x86_64" / "hello")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["x86_64-4k", "x86_64-4k-la57"]
    assert any(line.startswith("page faults") for line in lines)
    assert not any(line.startswith("outcome") for line in lines)


def test_a_death_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--geometry=aarch64-4k", str(IMAGES / "{arch}" / "segv"), "read"]) >= 128
    assert "killed by SIGSEGV" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plots(tmp_path: Path, form: str, head: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{form}"
    assert main(["compare", "--geometry=aarch64-4k,aarch64-64k", f"--plot={path}", PROGRAM]) == 0
    assert path.read_bytes().startswith(head)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--geometry=moon", PROGRAM], "expected x86_64-4k"),
        (["--geometry=aarch64-4k", str(IMAGES / "x86_64" / "hello")], "write {arch}"),
        (["--geometry=aarch64-4k", "--plot=x.gif", PROGRAM], ".svg or .png"),
        ([str(IMAGES / "nothing")], "nothing"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["compare", *words]) in (125, 127)
    assert message in capsys.readouterr().err
