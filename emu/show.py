"""`pagewalk maps|tree|pagetables`: run a program, then draw its memory as it was just before it ended.

With `--at-syscall N` the run stops where the N-th system call begins, and that moment is drawn.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emu import cli
from emu.errors import PagewalkError
from emu.stats import LastLook
from emu.views import VIEWS, View

if TYPE_CHECKING:
    from emu.options import Options


class Camera:
    """Listener that takes the picture at the right moment."""

    def __init__(self, machine: Any, command: str, options: Options, colour: bool) -> None:
        self._machine = machine
        self._view = VIEWS[command]
        self._options = options
        self._colour = colour
        self._calls = 0
        self.text: str | None = None
        self._last_look = LastLook(lambda: machine.kernel.first, self.shoot)

    def __call__(self, event: Any) -> None:
        """Take one event."""
        at = self._options.at_syscall
        if at is None:
            self._last_look(event)
        elif event.kind == "syscall_enter" and not event.restarted:
            self._calls += 1
            if self._calls == at:
                self.shoot(self._machine.kernel.current)
                self._machine.stop()

    @property
    def calls(self) -> int:
        """System calls seen."""
        return self._calls

    def shoot(self, task: Any) -> None:
        """Draw the address space of `task` now."""
        view: View = self._view(task.mm, task)
        self.text = view.text(self._colour)
        if self._options.svg is not None:
            try:
                with open(self._options.svg, "w", encoding="utf-8") as file:
                    file.write(view.svg())
            except OSError as error:
                raise PagewalkError(f"--svg {self._options.svg}: {error.strerror}") from None
        if self._options.save is not None:
            from emu.diff import State

            try:
                State.of_mm(task.mm, task).save(self._options.save)
            except OSError as error:
                raise PagewalkError(f"--save {self._options.save}: {error.strerror}") from None


def show(command: str, options: Options) -> int:
    """Run, then print the view; the exit status."""
    colour = options.color == "always" or (options.color == "auto" and sys.stdout.isatty())
    changes = {"stdout": "capture", "stderr": "capture"} if options.quiet else {}
    machine = cli.build(options, **changes)
    from emu.observe import Observers

    observers = Observers(machine, options)
    camera = Camera(machine, command, options, colour)
    machine.subscribe(camera, "syscall_enter", "signal")
    try:
        cli.load(machine, options)
        status = cli.finish(machine, options, observers.closing)
    finally:
        observers.close()
    if camera.text is None:
        if options.at_syscall is not None:
            raise PagewalkError(f"--at-syscall {options.at_syscall}: the program made only {camera.calls} system calls")
        task = machine.kernel.first
        if task is None or task.mm is None:
            raise PagewalkError("the program left no address space to show")
        camera.shoot(task)
    # Box-drawing characters, and file names that are no UTF-8, whatever the locale.
    sys.stdout.flush()
    sys.stdout.buffer.write(f"{camera.text}\n".encode("utf-8", "surrogateescape"))
    return 0 if options.at_syscall is not None else status
