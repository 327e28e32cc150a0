"""`pagewalk trace FILE --to FORM`: what `--trace` wrote, in another form.

    FILE --lines--> Reader --events--> one of the forms --text--> OUT

A trace is read one line at a time, and each form keeps only what its answer needs: open calls of live tasks, tables
with a limit. So ten million events take no more memory than a thousand. A form is an object with `add(event)` and
`end()`, made with a function that writes text; `event` is the dictionary of one line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from emu.errors import PagewalkError
from emu.trace import SCHEMA, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from emu.options import Options

LONGEST = 16 << 20  # bytes of a line; no event is near it
LONG_WORK = 8 << 20  # bytes of a file from which on a progress bar is shown
STEP = 1 << 20  # bytes between two of its movements
# What a line that is JSON, but not of the documented form, makes the code that uses it raise.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


class Form(Protocol):
    """What a trace can be turned into."""

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event. Raises one of MALFORMED for an event that is none."""

    def end(self) -> None:
        """The trace is over: write what is left."""


class Reader:
    """The events of a trace, one at a time.

    Args:
        file: opened for reading bytes.
        name: for messages.
        progress: called now and then with the number of bytes read.

    Raises:
        PagewalkError: it is not a trace, of a newer version, or broken somewhere.
    """

    def __init__(self, file: Any, name: str, progress: Callable[[int], Any] | None = None) -> None:
        self._file = file
        self._name = name
        self._progress = progress
        self.line = 1
        self.cut = True  # until the last line is seen: the run did not end, or was cut off
        first = file.readline(LONGEST)
        try:
            self.header: dict[str, Any] = json.loads(first)
            schema, version = self.header["schema"], self.header["version"]
        except MALFORMED:
            schema, version = None, 0
        if schema != SCHEMA or not isinstance(version, int):
            raise PagewalkError(f"{name}: not a trace of pagewalk run --trace")
        if version > VERSION:
            raise PagewalkError(f"{name}: a trace of version {version}; this pagewalk reads up to version {VERSION}")
        self._read = len(first)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        readline, loads = self._file.readline, json.loads
        next_step = self._read + STEP
        while data := readline(LONGEST):
            self.line += 1
            self._read += len(data)
            if not data.endswith(b"\n"):
                if len(data) >= LONGEST:
                    raise self.broken()
                return  # the line being written when the run was cut off
            try:
                event = loads(data)
                kind = event["kind"]
            except MALFORMED:
                raise self.broken() from None
            if self._progress is not None and self._read >= next_step:
                next_step = self._read + STEP
                self._progress(self._read)
            if kind == "end":
                self.cut = False
            yield event

    def broken(self) -> PagewalkError:
        """The error for the line read last."""
        return PagewalkError(f"{self._name}: line {self.line} is no event of a trace")


def make_form(name: str, write: Callable[[str], Any], header: dict[str, Any]) -> Form:
    """The form called `name`."""
    if name == "strace":
        return StraceText(write)
    if name == "chrome":
        from emu.trace_chrome import Chrome

        return Chrome(write, header)
    if name == "summary":
        from emu.trace_summary import Summary

        return Summary(write, header)
    from emu.trace_folded import Folded

    return Folded(write, header)


class StraceText:
    """What `--strace` prints, byte for byte: it was written into the trace as the calls were made."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write

    def add(self, event: dict[str, Any]) -> None:
        """See `Form.add`."""
        text = event.get("strace")
        if text is not None:
            self._write(text)

    def end(self) -> None:
        """Nothing is kept."""


def pour(reader: Reader, form: Form) -> None:
    """Give every event to the form. Raises PagewalkError with the number of a line that is no event."""
    add = form.add
    for event in reader:
        try:
            add(event)
        except MALFORMED:
            raise reader.broken() from None
    form.end()


def convert(options: Options) -> int:
    """The command; its exit status."""
    from emu.cli import complain

    name = options.program
    if not options.to:
        raise PagewalkError("trace needs --to strace|chrome|summary|folded")
    shown = "standard input" if name == "-" else name
    with _open(name) as file, _output(options.output, file) as out, Progress(file, shown) as progress:
        reader = Reader(file, shown, progress.move if progress.wanted else None)
        write = out.write
        pour(reader, make_form(options.to, lambda text: write(text.encode("utf-8", "surrogateescape")), reader.header))
    if reader.cut:
        complain(f"{shown}: the trace has no end: the run was cut off, or goes on")
    return 0


def _open(name: str) -> Any:
    """The trace, for reading. Raises PagewalkError."""
    if name == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open(name, "rb")
    except (OSError, ValueError) as error:
        raise PagewalkError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _output(name: str | None, source: Any) -> Any:
    """Where the result goes: a file, or standard output. Raises PagewalkError."""
    if name is None:
        sys.stdout.flush()
        return open(sys.stdout.fileno(), "wb", closefd=False)
    try:
        if os.path.exists(name) and os.path.samestat(os.stat(name), os.fstat(source.fileno())):
            raise PagewalkError(f"-o {name}: that is the trace itself")
        return open(name, "wb")
    except (OSError, ValueError) as error:
        raise PagewalkError(f"-o {name}: {getattr(error, 'strerror', None) or error}") from None


class Progress:
    """A bar on standard error while a long trace is read; nothing for a short one, or where no terminal is."""

    def __init__(self, file: Any, name: str) -> None:
        status = os.fstat(file.fileno())
        self.wanted = status.st_size >= LONG_WORK and sys.stderr.isatty()
        self._total = status.st_size
        self._name = name
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.wanted:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(os.path.basename(self._name), total=self._total)
            self._bar.start()
        return self

    def move(self, done: int) -> None:
        """So many bytes are read."""
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
