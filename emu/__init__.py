"""The machine and its front: CPUs, RAM, trap delivery, the scheduler's loop, command line, trace, views.

`from emu import Machine` is the way in from Python. The name is loaded when it is asked for, so that a command that
needs no machine starts without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.errors import PagewalkError
    from emu.machine import Exit, Machine

__all__ = ["Exit", "Machine", "PagewalkError"]


def __getattr__(name: str) -> Any:
    """Import what is exported on first use."""
    if name in ("Exit", "Machine"):
        from emu import machine

        return getattr(machine, name)
    if name == "PagewalkError":
        from emu.errors import PagewalkError

        return PagewalkError
    raise AttributeError(f"module 'emu' has no attribute {name!r}")
