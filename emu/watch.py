"""Ending a run from outside: Ctrl-C, `Machine.stop()`, the timeout.

While the guest computes, the interpreter executes nothing in the running thread, so no Python signal handler runs. A
watcher thread sleeps on a pipe that the C-level signal handler (`signal.set_wakeup_fd`) and `stop()` write to. Awake,
it tells the engine to stop, again and again until the run is over, because a stop just before the engine starts is
lost. A run that waits for the host instead (for standard input, say) polls a second pipe, and one that is stuck in a
host call (a write nobody reads) is pulled out by a signal.
"""

from __future__ import annotations

import _thread
import os
import select
import time
from signal import SIGINT, default_int_handler, getsignal, pthread_kill, set_wakeup_fd, signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.machine import Machine

RETRY = 0.002  # seconds between two stops
PATIENCE = 0.2  # seconds until a signal interrupts what blocks


class Watcher:
    """Guards one `Machine.run`, in the thread that makes it."""

    def __init__(self, machine: Machine, timeout: float | None) -> None:
        self._machine = machine
        self._timeout = timeout
        self._over = False
        self.ended = False  # the run was ended from this thread, wherever it was
        self.force = False  # the next signal may interrupt anything
        self._thread = _thread.get_ident()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._idle_read, self._idle_write = os.pipe()
        machine.kernel.interrupt_fd = self._idle_read
        self._finished = _thread.allocate_lock()
        self._finished.acquire()
        self._old: Any = None
        self._signals = False
        try:
            self._old = set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:  # not the main thread: no signals here
            pass
        else:
            self._signals = True
            self._handler = getsignal(SIGINT)
            if self._handler is default_int_handler:
                signal(SIGINT, self._interrupted)
        _thread.start_new_thread(self._watch, ())

    def _interrupted(self, *_: object) -> None:
        """Ctrl-C, once the interpreter gets to it: the run ends at the next safe place, or here when nothing moves."""
        self._machine._stop = self._machine._stop or "interrupt"
        if self.force:
            raise KeyboardInterrupt

    def wake(self) -> None:
        """Something wants the run to end (`machine._stop` says what)."""
        if _thread.get_ident() == self._thread:
            self._machine.engine.stop()  # we are inside a hook, or between two runs of the engine
            return
        self._poke(b"\xff")

    def _poke(self, byte: bytes) -> None:
        try:
            os.write(self._write, byte)
        except OSError:  # full: it is awake already; closed: the run is over
            return

    def _watch(self) -> None:
        """The watcher thread."""
        try:
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            while not self._over:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                terminal = self._machine.terminal
                if terminal is not None and terminal.pending:
                    self._machine.engine.stop()  # the run comes out, delivers and goes on; a stop may be lost
                    left = RETRY if left is None else min(left, RETRY)
                if select.select([self._read], [], [], left)[0]:
                    data = os.read(self._read, 64)
                    if terminal is not None:
                        self._machine._stop = self._machine._stop or terminal.note(data)
                        if terminal.pending:
                            os.write(self._idle_write, b"\0")
                    elif SIGINT in data and self._signals:
                        self._machine._stop = self._machine._stop or "interrupt"
                elif deadline is not None and time.monotonic() >= deadline:
                    self._machine._stop = self._machine._stop or "timeout"
                if self._machine._stop and not self._over:
                    self._end_run()
                    return
        finally:
            self._finished.release()

    def _end_run(self) -> None:
        """Stop the engine until it stays stopped."""
        self.ended = True
        os.write(self._idle_write, b"\0")
        patience = time.monotonic() + PATIENCE
        while not self._over:
            self._machine.engine.stop()
            time.sleep(RETRY)
            if self._signals and not self.force and time.monotonic() > patience:
                self.force = True
                pthread_kill(self._thread, SIGINT)

    def close(self) -> None:
        """The run is over: end the thread, give the signals back."""
        self._over = True
        if self._signals:
            if self._handler is default_int_handler:
                signal(SIGINT, self._handler)
            set_wakeup_fd(self._old)
        self._poke(b"\0")
        self._finished.acquire()  # the thread has let go of engine and pipe
        self._machine.kernel.interrupt_fd = -1
        for fd in (self._read, self._write, self._idle_read, self._idle_write):
            os.close(fd)
