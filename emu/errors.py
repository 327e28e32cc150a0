"""Errors of the command line and of `Machine`: one clear line and the exit status that goes with it."""

from __future__ import annotations

STATUS_FAILED = 125  # pagewalk itself cannot do what was asked: a bad option, no memory, an engine that does not fit
STATUS_CANNOT_RUN = 126  # the program was found but cannot be run
STATUS_NOT_FOUND = 127  # there is no such program


class PagewalkError(Exception):
    """What was asked for cannot be done.

    Args:
        message: one line that says what is wrong and, where it helps, what would be right.
        status: exit status of the command: 125, 126 or 127, as `env` and shells use them.
    """

    def __init__(self, message: str, status: int = STATUS_FAILED) -> None:
        super().__init__(message)
        self.status = status


class EngineError(PagewalkError):
    """Unicorn refused a call, or is not the build this emulator can drive."""
