"""The address space of the calling task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct


def own_mm(task: Task) -> MmStruct:
    """The address space of a task in a system call: it always has one."""
    mm = task.mm
    if mm is None:
        raise KernelBug(f"{task!r} makes a system call without an address space")
    return mm
