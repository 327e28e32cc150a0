r"""The host's terminal while a guest has it: its signals go to the guest, and it is given back as it was.

    ^C  -> SIGINT  of the host -> the guest's foreground group     ^\ -> SIGQUIT likewise     a new size -> SIGWINCH
    ^Z  -> SIGTSTP of the host -> the guest's foreground group; where nobody in the guest could continue it (a program
           without a shell), pagewalk itself stops, with the terminal as it was, and goes on with the guest's settings
    five ^C within two seconds end the run, whatever the guest makes of them
    SIGTERM and SIGHUP end the run; the terminal is given back first, then they take effect

The host makes these signals of keys only where the guest's own settings say so (guest/host_tty.py passes them on).
"""

from __future__ import annotations

import contextlib
import os
import time
from signal import (
    SIG_DFL,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SIGTSTP,
    SIGWINCH,
    getsignal,
    raise_signal,
    signal,
)
from typing import TYPE_CHECKING, Any

from guest.siginfo import SIG_DFL as GUEST_DEFAULT
from guest.siginfo import SIGCONT
from guest.tty_jobctrl import kill_pgrp

if TYPE_CHECKING:
    from emu.machine import Machine
    from guest.host_tty import HostTty

FORWARDED = (SIGINT, SIGQUIT, SIGTSTP, SIGWINCH)
ENDING = (SIGTERM, SIGHUP)
WAY_OUT = 5  # ^C so often ...
WAY_OUT_SECONDS = 2.0  # ... within this time


class Terminal:
    """Guards the terminal of one machine from construction to close(); only in the main thread."""

    def __init__(self, machine: Machine, tty: HostTty) -> None:
        self._machine = machine
        self._tty = tty
        self.pending: list[int] = []  # signals of the host that the guest has not been given yet
        self.ended_by = 0
        self._interrupts: list[float] = []
        self._old: dict[int, Any] = {}
        for number in (*FORWARDED, *ENDING):
            self._old[number] = getsignal(number)
            signal(number, self._caught)

    def _caught(self, *_: object) -> None:
        """The watcher thread acts on signals; this only gets a run out of a host call that hangs when it must end."""
        watcher = self._machine._watcher
        if watcher is not None and watcher.force:
            raise KeyboardInterrupt

    def note(self, data: bytes) -> str:
        """Watcher thread: signals have come. Why the run must end, or ""."""
        reason = ""
        for number in data:
            if number in ENDING:
                self.ended_by = self.ended_by or number
                reason = "terminated"
            elif number in FORWARDED:
                self.pending.append(number)
                if number == SIGINT and self._impatient():
                    reason = reason or "interrupt"
        return reason

    def _impatient(self) -> bool:
        """Whether ^C came so often that the user wants out."""
        now = time.monotonic()
        self._interrupts = [then for then in self._interrupts if now - then < WAY_OUT_SECONDS]
        self._interrupts.append(now)
        return len(self._interrupts) >= WAY_OUT

    def deliver(self) -> None:
        """Running thread, between two runs of the engine: give the guest what is pending."""
        kernel = self._machine.kernel
        os.set_blocking(kernel.interrupt_fd, False)
        with contextlib.suppress(BlockingIOError):
            os.read(kernel.interrupt_fd, 64)
        while self.pending:
            number = self.pending.pop(0)
            if number == SIGTSTP and self._nobody_continues():
                self._suspend()
            elif self._tty.pgrp:
                kill_pgrp(kernel, self._tty.pgrp, number)
        kernel.need_resched = True  # so that the running task sees its signals

    def _nobody_continues(self) -> bool:
        """Whether SIGTSTP would be of no effect in the guest: an orphaned group that does not handle it."""
        kernel, pgrp = self._machine.kernel, self._tty.pgrp
        members = [task for task in kernel.tasks.values() if task.signal.pgrp == pgrp and not task.exit_state]
        default = all(task.sighand.action[SIGTSTP].handler == GUEST_DEFAULT for task in members)
        return default and kernel.is_orphaned_pgrp(pgrp)

    def _suspend(self) -> None:
        """Stop pagewalk, as the guest's program would have stopped; go on when the user's shell continues it."""
        tty = self._tty
        try:
            settings = tty.settings() if tty.saved is not None else b""
        except OSError:
            settings = b""
        tty.restore()
        signal(SIGTSTP, SIG_DFL)
        raise_signal(SIGTSTP)
        signal(SIGTSTP, self._caught)
        if settings:
            tty.apply(settings)
        for number in (SIGCONT, SIGWINCH):
            kill_pgrp(self._machine.kernel, tty.pgrp, number)

    def close(self) -> None:
        """The run is over: the terminal and the signals go back; a signal that ended the run takes effect."""
        self._tty.restore()
        for number, handler in self._old.items():
            signal(number, handler)
        if self.ended_by and getsignal(self.ended_by) == SIG_DFL:
            raise_signal(self.ended_by)
