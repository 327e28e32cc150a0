"""The trace: docs/trace.md and the event classes agree, and what is written is what is documented."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

from geometry import PROJECT

from emu.trace import ADDED, SCHEMA, VERSION, Trace, event_classes
from guest.events import Exec, SyscallEnter
from mm.events import Fault, PteSet, VmaMerge

KERNEL = SimpleNamespace(
    clock=SimpleNamespace(now=1234),
    current=SimpleNamespace(pid=27),
    tasks={},
    cpu=SimpleNamespace(regs=[0x400000] * 33),
)
ARCH = SimpleNamespace(name="x86_64", page_size=4096)
MACHINE = SimpleNamespace(kernel=KERNEL, engine=SimpleNamespace(PC=16), system=SimpleNamespace(arch=ARCH))


def documented() -> dict[str, set[str]]:
    """Kind -> fields, from the document."""
    text = (PROJECT / "docs" / "trace.md").read_text(encoding="utf-8")
    kinds = {}
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        kind = re.match(r"`(\w+)`", part)
        assert kind is not None
        kinds[kind[1]] = set(re.findall(r"^- `(\w+)`:", part, flags=re.MULTILINE))
    return kinds


def fields_of(kind: type) -> set[str]:
    """The slots of a class and of its bases."""
    return {name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}


def test_every_kind_and_field_is_documented() -> None:
    classes = {kind: fields_of(cls) for kind, cls in event_classes().items()}
    expected = {kind: classes.get(kind, set()) | set(ADDED.get(kind, ())) for kind in {*classes, *ADDED}}
    assert documented() == expected


def test_kinds_are_words() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) for kind in event_classes())


def test_lines() -> None:
    lines: list[str] = []
    trace = Trace(lines.append, MACHINE, {"program": ["x"]})
    events: list[Any] = [
        Fault(27, 0x1234, 6, "write", "anon", False, False, 0, True),
        VmaMerge(0x1000, 0x2000, 0x73, 4),
        SyscallEnter(27, 9, "mmap", (0, 8192, 3, 34, 2**64 - 1, 0)),
        Exec(27, "/hello", ["hello", "\udcff"], 0x401000, 0x7FFFFFFFE000),
    ]
    for event in events:
        trace(event)
    read = [json.loads(line) for line in lines]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    assert read[0] == {"schema": SCHEMA, "version": VERSION, "program": ["x"]}
    assert [line["n"] for line in read[1:]] == [1, 2, 3, 4]
    assert read[1] == {
        "n": 1,
        "time": 1234,
        "task": 27,
        "kind": "fault",
        "pid": 27,
        "address": 0x1234,
        "error_code": 6,
        "access": "write",
        "result": "anon",
        "major": False,
        "stack": False,
        "signal": 0,
        "user": True,
        "pc": 0x400000,
        "object": "",
        "function": "",
        "area": "",
        "area_start": 0,
        "area_end": 0,
        "rss": 0,
        "page_tables": 0,
    }
    assert read[2]["case"] == 4
    assert read[3]["args"][4] == 2**64 - 1
    assert read[4]["argv"][1] == "\udcff"


def test_the_frequent_kinds_are_written_whole() -> None:
    """Their lines are made by hand, and have every field of the event."""
    lines: list[str] = []
    trace = Trace(lines.append, MACHINE, {})
    events = [PteSet(1, 0x1000, 2, 3), Fault(27, 0x1234, 6, "write", "anon", True, False, 0, True)]
    for event in events:
        trace(event)
    for event, line in zip(events, lines[1:], strict=True):
        written = json.loads(line)
        assert set(written) == {"n", "time", "task", "kind"} | documented()[event.kind]
        assert written | event.to_dict() == written


def test_what_is_written_is_what_is_documented() -> None:
    """to_dict() leaves nothing out and adds nothing."""
    event = VmaMerge(0x1000, 0x2000, 0x73, 4)
    assert set(event.to_dict()) == documented()["vma_merge"] | {"kind"}
    call = SyscallEnter(27, 9, "mmap", (0,) * 6)
    assert set(call.to_dict()) == documented()["syscall_enter"] - set(ADDED["syscall_enter"]) | {"kind"}
