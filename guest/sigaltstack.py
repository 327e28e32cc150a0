"""The alternate signal stack of a task (include/linux/sched/signal.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.task import Task


def on_sig_stack(task: Task, sp: int) -> bool:
    """Whether sp is on the alternate stack (never, with SS_AUTODISARM)."""
    if task.sas_ss_flags & 1 << 31:
        return False
    return raw_on_sig_stack(task, sp)


def raw_on_sig_stack(task: Task, sp: int) -> bool:
    """__on_sig_stack(): by address alone."""
    return sp > task.sas_ss_sp and sp - task.sas_ss_sp <= task.sas_ss_size


def sas_ss_flags(task: Task, sp: int) -> int:
    """SS_DISABLE, SS_ONSTACK or 0."""
    if not task.sas_ss_size:
        return 2
    return 1 if on_sig_stack(task, sp) else 0


def sas_ss_reset(task: Task) -> None:
    """No alternate stack."""
    task.sas_ss_sp = task.sas_ss_size = 0
    task.sas_ss_flags = 2
