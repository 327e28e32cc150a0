"""`pagewalk view TRACE_OR_PROGRAM`: the run as one HTML page that needs nothing else (docs/view.md).

The page is emu/page/page.html with style, scripts and data put in. Data is one block: a JSON head and columns of
32-bit words, compressed with gzip and written in base64, so that nothing a guest says (a path, a name) is ever HTML;
the scripts show it as text only. A Content-Security-Policy allows the page's own scripts, by their hashes, and
no network.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
import sys
from array import array
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from emu.page_record import Recorder, Sampler
from emu.page_state import FIELDS

if TYPE_CHECKING:
    from emu.options import Options

ASSETS = os.path.join(os.path.dirname(__file__), "page")
# In this order, within one function: what a script defines at its top level, the later ones see.
SCRIPTS = ("data.js", "words.js", "widgets.js", "space.js", "tree.js", "tables.js", "main.js")
FORMAT = 1  # of the block; data.js knows the same
TRACE_START = b'{"schema":"pagewalk-trace"'


def view(options: Options) -> int:
    """The command; the exit status: 0 of a trace, the guest's of a program."""
    if is_trace(options.program):
        if options.arguments:
            raise PagewalkError(f"{options.program} is a trace: it takes no arguments")
        recorder = read_trace(options.program)
        write(recorder, options.output or "page.html")
        return 0
    return _run(options)


def is_trace(path: str) -> bool:
    """Whether a host file begins as a trace does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(TRACE_START)) == TRACE_START
    except (OSError, ValueError):
        return False


def read_trace(path: str) -> Recorder:
    """Take in a whole trace; of one whose run was killed, all but the broken last line. Raises PagewalkError."""
    recorder = Recorder()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                recorder.line(line)
            except PagewalkError:
                if line.endswith("\n"):
                    raise
    return recorder


def record(machine: Any, program: list[str]) -> Recorder:
    """Follow a machine from now on; to be called before its program is loaded."""
    from emu.trace import Trace

    recorder = Recorder()
    machine.subscribe(Trace(recorder.line, machine, {"program": program}))
    machine.subscribe(Sampler(machine, recorder))
    return recorder


def _run(options: Options) -> int:
    """Run PROGRAM, then write what happened; also when it did not end by itself."""
    from emu import cli
    from emu.observe import Observers

    changes = {"stdout": "capture", "stderr": "capture"} if options.quiet else {}
    machine = cli.build(options, **changes)
    observers = Observers(machine, options)
    recorder = record(machine, [options.program, *options.arguments])
    try:
        cli.load(machine, options)
        status = cli.finish(machine, options, observers.closing)
    finally:
        observers.close()
    sys.stdout.flush()
    write(recorder, options.output or "page.html")
    return status


def write(recorder: Recorder, path: str) -> None:
    """Write the page; "-" is standard output. Raises PagewalkError."""
    page = render(recorder)
    if path == "-":
        sys.stdout.write(page)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise PagewalkError(f"-o {path}: {error.strerror}") from None
    count = len(recorder.kind)
    cut = f", {recorder.skipped} more left out" if recorder.skipped else ""
    print(f"pagewalk: {path}: {count} events{cut}, {len(page) + 1023 >> 10}K", file=sys.stderr)


def render(recorder: Recorder) -> str:
    """The page as text."""
    style = _asset("page.css")
    script = '(() => {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"
    words = [str(word) for word in recorder.header.get("program", [])]
    parts = {
        "TITLE": html.escape(_printable(" ".join(words)) or "a trace"),
        "POLICY": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": base64.b64encode(pack(recorder)).decode(),
    }
    page = _asset("page.html")
    before, *rest = page.split("{{")
    for piece in rest:  # each place once, so that nothing put in is itself looked at
        name, _, after = piece.partition("}}")
        before += parts[name] + after
    return before


def _asset(name: str) -> str:
    """A file of emu/page/."""
    with open(os.path.join(ASSETS, name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls a script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _printable(text: str) -> str:
    """Text for the title: no control characters, no lone surrogates."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


# -- the block -------------------------------------------------------------------------------------------------------


def pack(recorder: Recorder) -> bytes:
    """The block: length of the head, head, columns; compressed.

    The head names each column with its place and length, in 32-bit words. A "wide" column of 64-bit numbers is two of
    words: the low halves, then the high ones.
    """
    words = array("I")
    places: dict[str, list[int]] = {}

    def add(name: str, *columns: array[int]) -> None:
        places[name] = [len(words), len(columns[0]), len(columns)]
        for column in columns:
            words.extend(column)

    def wide(name: str, values: list[int]) -> None:
        add(name, array("I", [v & 0xFFFFFFFF for v in values]), array("I", [v >> 32 & 0xFFFFFFFF for v in values]))

    state = recorder.state
    add("kind", array("I", recorder.kind))
    add("task", recorder.task)
    add("time", *recorder.time)
    add("writes", recorder.writes)
    add("cell", state.cells.cell)
    add("value", state.cells.low, state.cells.high)
    for number, columns in enumerate(recorder.kinds.values()):
        columns.pad()
        for name, pair in columns.numbers.items():
            add(f"{number}.{name}", *pair)
        for name, texts in columns.texts.items():
            add(f"{number}.{name}", texts)
    for what, fields in state.columns.items():
        if what == "leaf":
            fields = _sorted_leaves(fields)
        for name, values in fields.items():
            wide(f"{what}.{name}", values)
    head = {
        "format": FORMAT,
        "program": recorder.header.get("program", []),
        "arch": recorder.arch,
        "page_size": recorder.page_size,
        "live": recorder.live,
        "zero_frame": recorder.zero_frame,
        "skipped": recorder.skipped,
        "cells": len(state.cells.values),
        "fields": FIELDS,
        "kinds": [
            {"name": name, "count": columns.count, "numbers": list(columns.numbers), "texts": list(columns.texts)}
            for name, columns in recorder.kinds.items()
        ],
        "columns": places,
        "strings": state.strings.texts,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    if sys.byteorder == "big":
        words.byteswap()
    return gzip.compress(len(text).to_bytes(4, "little") + text + words.tobytes(), 6, mtime=0)


def _sorted_leaves(fields: dict[str, list[int]]) -> dict[str, list[int]]:
    """Entries by address space and address: the page finds those of a range by bisection."""
    order = sorted(range(len(fields["cell"])), key=lambda i: (fields["space"][i], fields["address"][i]))
    return {name: [values[i] for i in order] for name, values in fields.items()}
