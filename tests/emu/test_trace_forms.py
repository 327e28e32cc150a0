"""`pagewalk trace`: each form says what the run did, in little memory, and what is no trace is refused in one line."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from geometry import PROJECT

from emu import cli
from emu.errors import PagewalkError
from emu.trace import SCHEMA, VERSION
from emu.trace_read import Reader, make_form, pour

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

FORMS = ("strace", "chrome", "summary", "folded")
HEADER = json.dumps({"schema": SCHEMA, "version": VERSION, "program": ["p"], "clock": "virtual"}) + "\n"


@pytest.fixture(scope="module", params=["x86_64/pipes", "aarch64/signals", "x86_64/segv"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One run with --trace and --strace; the trace in every form."""
    folder = tmp_path_factory.mktemp("trace")
    trace, strace = folder / "trace", folder / "strace"
    image = str(PROJECT / "images" / request.param)
    cli.main(["run", f"--strace={strace}", "--trace", str(trace), image])
    made = {"log": strace.read_text(), "trace": trace.read_text()}
    for form in FORMS:
        out = folder / form
        assert cli.main(["trace", str(trace), "--to", form, "-o", str(out)]) == 0
        made[form] = out.read_text()
    return made


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_strace_is_what_strace_printed(run: dict[str, str]) -> None:
    assert run["strace"] == run["log"]
    assert run["log"].count(" = ") > 1


REQUIRED = {"X": {"name", "cat", "dur", "args"}, "M": {"name", "args"}, "i": {"name", "s"}, "C": {"name", "args"}}
REQUIRED |= {"s": {"name", "cat", "id"}, "f": {"name", "cat", "id"}}


def test_chrome_keeps_to_the_format(run: dict[str, str]) -> None:
    """The fields of the Trace Event Format, by phase; slices of a thread nest; every flow has both ends."""
    document = json.loads(run["chrome"])
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert document["displayTimeUnit"] in ("ms", "ns")
    named: set[tuple[str, int]] = set()
    flows: dict[int, list[str]] = {}
    slices: dict[int, list[tuple[float, float]]] = {}
    for event in document["traceEvents"]:
        phase = event["ph"]
        assert set(event) >= REQUIRED[phase] | {"ph", "pid", "tid", "ts"}
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["ts"], (int, float))
        assert event["ts"] >= 0
        if phase == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            named.add((event["name"], event["pid" if event["name"] == "process_name" else "tid"]))
        elif phase == "X":
            assert event["dur"] >= 0
            slices.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
        elif phase == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        elif phase == "i":
            assert event["s"] in ("t", "p", "g")
        else:
            flows.setdefault(event["id"], []).append(phase)
    assert all(phases == ["s", "f"] for phases in flows.values())
    for event in document["traceEvents"]:
        assert ("process_name", event["pid"]) in named
        assert ("thread_name", event["tid"]) in named
    for spans in slices.values():
        open_ends: list[float] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start + 1e-6:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1e-6
            open_ends.append(end)


def test_chrome_has_every_call_fault_and_signal(run: dict[str, str]) -> None:
    found = json.loads(run["chrome"])["traceEvents"]
    trace = events(run["trace"])

    def count(kind: str, **fields: Any) -> int:
        return sum(e["kind"] == kind and all(e[k] == v for k, v in fields.items()) for e in trace)

    assert sum(e.get("cat") == "fault" for e in found) == count("fault")
    assert sum(e.get("cat") == "syscall" for e in found) == count("syscall_enter", restarted=False)
    assert sum(e.get("cat") == "signal" for e in found) == count("signal")
    assert sum(e["ph"] == "s" for e in found) == count("fork")
    first = trace[0]["task"]
    last = [e["args"]["bytes"] for e in found if e["ph"] == "C" and e["name"] == "rss" and e["pid"] == first][-1]
    assert last == [e["rss"] for e in trace if "rss" in e and e["pid"] == first][-1]


def test_summary_counts(run: dict[str, str]) -> None:
    trace = events(run["trace"])
    faults = [event for event in trace if event["kind"] == "fault"]
    assert f"{len(faults)} page faults, " in run["summary"]
    for title in ("kind", "area", "instruction"):
        table = run["summary"].split(f"Faults by {title}\n")[1].split("\n\n")[0]
        assert sum(int(line.split()[1]) for line in table.splitlines()) == len(faults)
    exits = [event for event in trace if event["kind"] == "syscall_exit"]
    total = run["summary"].splitlines()[-1].split()
    errors = sum(-4096 < event["result"] < 0 for event in exits)
    assert total[3:] == [str(len(exits)), *([str(errors)] if errors else []), "total"]


def test_folded_counts(run: dict[str, str]) -> None:
    stacks = [line.rsplit(" ", 1) for line in run["folded"].splitlines()]
    trace = events(run["trace"])
    faults = sum(int(count) for stack, count in stacks if ";fault " in stack)
    assert faults == sum(event["kind"] == "fault" for event in trace)
    calls = sum(int(count) for stack, count in stacks if ";call " in stack)
    assert calls == sum(event["kind"] == "syscall_enter" and not event["restarted"] for event in trace)


def test_the_function_of_a_fault(tmp_path: pathlib.Path) -> None:
    """Symbols: a small program with a symbol table of one function, which is where it faults."""
    from elf_with_symbols import program

    path = tmp_path / "prog"
    path.write_bytes(program("touch"))
    path.chmod(0o755)
    cli.main(["run", "--trace", str(tmp_path / "trace"), str(path)])
    faults = [event for event in events((tmp_path / "trace").read_text()) if event["kind"] == "fault"]
    assert faults[-1]["function"] == "touch"
    assert faults[-1]["object"] == "/prog"
    assert faults[-1]["signal"] == 11


def lines(count: int) -> Iterator[bytes]:
    """A trace of `count` events with ever new areas and instructions."""
    yield HEADER.encode()
    common = '"task":27,"pid":27,"pc":'
    for n in range(1, count, 2):
        yield (
            f'{{"n":{n},"time":{n},"kind":"fault",{common}{n},"object":"/p","function":"f{n}","area":"a{n} rw-p",'
            f'"area_start":{n},"area_end":{n},"address":{n},"access":"read","result":"anon","major":false,'
            f'"stack":false,"user":true,"signal":0,"rss":{n},"page_tables":0}}\n'
        ).encode()
        yield (
            f'{{"n":{n},"time":{n},"kind":"syscall_enter",{common}{n},"object":"/p","function":"f","name":"read",'
            f'"args":[0,0,0,0,0,0],"restarted":false,"strace":"read(0, "}}\n'
        ).encode()


class Lines:
    """A file of generated lines."""

    def __init__(self, count: int) -> None:
        self._lines = lines(count)

    def readline(self, limit: int) -> bytes:
        return next(self._lines, b"")


@pytest.mark.parametrize("name", FORMS)
def test_memory_does_not_grow_with_the_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.trace_summary.LIMIT", 100)
    peaks = []
    for count in (2_000, 12_000):
        tracemalloc.start()
        reader = Reader(Lines(count), "t")
        pour(reader, make_form(name, len, reader.header))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 20_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a trace of pagewalk run --trace"),
        ("\x7fELF\0\1", "not a trace of pagewalk run --trace"),
        ('{"traceEvents":[]}\n', "not a trace of pagewalk run --trace"),
        ("[" * 100_000, "not a trace of pagewalk run --trace"),
        ('{"schema":"pagewalk-trace","version":99}\n', "a trace of version 99; this pagewalk reads up to version 1"),
        (HEADER + "nonsense\n", "line 2 is no event of a trace"),
        (HEADER + "[1]\n", "line 2 is no event of a trace"),
        (HEADER + '{"kind":"fault"}\n', "line 2 is no event of a trace"),
        (
            HEADER + '{"kind":"tlb_flush","time":1}\n{"kind":"syscall_exit","time":"x"}\n',
            "line 3 is no event of a trace",
        ),
        (HEADER + '{"kind":"exec","time":1e999,"pid":[],"path":1}\n', "line 2 is no event of a trace"),
    ],
)
def test_what_is_no_trace_is_refused(
    text: str, message: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    for form in ("chrome", "summary", "folded"):
        status = cli.main(["trace", str(path), "--to", form])
        err = capfd.readouterr().err
        if status == 0 and '"kind"' in text:  # a form skips kinds it has no use for
            continue
        assert status == 125
        assert err == f"pagewalk: {path}: {message}\n"


def test_a_trace_that_was_cut_off_is_read_as_far_as_it_goes(
    run: dict[str, str], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t"
    whole = run["trace"].encode()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    for form in FORMS:
        assert cli.main(["trace", str(path), "--to", form]) == 0
        out, err = capfd.readouterr()
        assert err == f"pagewalk: {path}: the trace has no end: the run was cut off, or goes on\n"
        assert out
        if form == "chrome":
            json.loads(out)
        if form == "strace":
            assert run["log"].startswith(out)


def test_files_that_cannot_be(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t"
    path.write_text(HEADER)
    for words, message in (
        ([str(tmp_path / "none"), "--to", "chrome"], "No such file or directory"),
        ([str(tmp_path), "--to", "chrome"], "Is a directory"),
        ([str(path), "--to", "chrome", "-o", str(tmp_path / "no" / "x")], "No such file or directory"),
        ([str(path), "--to", "chrome", "-o", str(path)], "that is the trace itself"),
        ([str(path)], "trace needs --to"),
    ):
        assert cli.main(["trace", *words]) == 125
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    with pytest.raises(PagewalkError, match="line 2 is no event"):
        reader = Reader(io.BytesIO(HEADER.encode() + b"x" * (17 << 20)), "t")
        list(reader)


def test_a_long_trace_shows_how_far_it_is(tmp_path: pathlib.Path) -> None:
    """On a terminal, on standard error; what is written goes elsewhere."""
    import os
    import pty
    import subprocess
    import sys

    path = tmp_path / "long"
    with path.open("wb") as file:
        file.writelines(lines(60_000))
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "emu", "trace", str(path), "--to", "folded", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(words, stderr=slave, cwd=PROJECT, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait(60) == 0
    assert b"long" in shown
    assert b"%" in shown
    assert b"no end" in shown
