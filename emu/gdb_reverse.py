"""Going backwards: the run is repeated from its beginning, up to the instruction wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.gdb_target import Stop
from guest.siginfo import SIGTRAP

if TYPE_CHECKING:
    from emu.gdb import Session


class History:
    """Where the run is."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.broken = ""

    def forget_position(self) -> None:
        """The run goes on."""

    def back(self, how: str) -> list[Stop]:
        """Go back."""
        self.session.note("cannot go backwards")
        return [Stop(SIGTRAP, self.session.target.threads()[0], "replaylog:begin;")]
