"""Telling the machine's listener of signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.events import SignalDeliver
from guest.siginfo import SIGCHLD, SYNCHRONOUS_MASK

if TYPE_CHECKING:
    from guest.siginfo import SigInfo
    from guest.task import Task


def report(task: Task, info: SigInfo, action: str, handler: int) -> None:
    """Tell the listener; not of what pid 1 throws away, which is no program."""
    if task.system.listener is not None and (action != "ignore" or task is not task.kernel.init):
        fault = SYNCHRONOUS_MASK >> (info.signo - 1) & 1 and info.code > 0
        address = info.address if fault else 0
        sender, uid = (0, 0) if fault else (info.pid, info.uid)
        status = info.status if info.signo == SIGCHLD else 0
        event = SignalDeliver(task.pid, info.signo, info.code, address, sender, action, handler, uid, status)
        task.system.listener(event)


def take_fatal(task: Task) -> SigInfo | None:
    """The signal that _complete_signal() ended the group for: one thread of it dies of that, the others of SIGKILL."""
    signo = task.signal.group_exit_code & 0x7F
    for queue in (task.pending.queue, task.signal.shared_pending.queue):
        for index, info in enumerate(queue):
            if info.signo == signo:
                return queue.pop(index)
    return None
