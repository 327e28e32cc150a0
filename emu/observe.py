"""What `--strace`, `--trace` and `--stats` attach to a machine, and how they end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.options import Options
    from emu.stats import Stats
    from emu.strace import Strace
    from emu.trace import Trace


class Observers:
    """The listeners of one run. Make it before the program is loaded, so that they see its exec."""

    def __init__(self, machine: Machine, options: Options) -> None:
        self._machine = machine
        self._options = options
        self._files: list[Any] = []
        self._strace: Strace | None = None
        self._stats: Stats | None = None
        self._trace: Trace | None = None
        if options.strace is not None:
            from emu.strace import Strace

            out = self._open("--strace", options.strace) if options.strace else sys.stderr
            self._strace = Strace(_flushing(out), machine)
            machine.subscribe(self._strace, *Strace.KINDS)
        if options.trace is not None:
            from emu.trace import Trace

            words = [options.program, *options.arguments]
            header = {"program": words, "clock": options.clock}
            self._trace = Trace(self._open("--trace", options.trace).write, machine, header)
            machine.subscribe(self._trace)
        if options.stats:
            from emu.stats import Stats

            self._stats = Stats(machine, sys.stderr.isatty())
            machine.subscribe(self._stats)

    def _open(self, option: str, name: str) -> Any:
        """A text file for writing. Raises PagewalkError."""
        try:
            file = open(name, "w", encoding="utf-8")  # noqa: SIM115 # open as long as the run; close() closes it
        except OSError as error:
            raise PagewalkError(f"{option} {name}: {error.strerror}") from None
        self._files.append(file)
        return file

    def closing(self, outcome: str, status: int) -> None:
        """The run is over: last lines of strace, the screen of --stats, calls nobody knew."""
        if self._trace is not None:
            self._trace.end(outcome, status)
        if self._strace is not None:
            self._strace.close()
        if self._stats is not None:
            sys.stdout.flush()
            print(self._stats.screen(outcome, self._machine.instructions), file=sys.stderr)
        elif self._strace is not None:
            from emu.stats import unknown_call_lines

            for line in unknown_call_lines(self._machine.kernel):
                print(line, file=sys.stderr)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _flushing(out: Any) -> Any:
    """A write that is seen at once."""

    def write(text: str) -> None:
        out.write(text)
        out.flush()

    return write
