"""How a task waits for a userfaultfd (the sleeps of fs/userfaultfd.c).

mm/ put into `task.userfaults` what must come before the task runs on; the kernel calls go_on() when it has the CPU
again. A task that can not go on sleeps, and go_on() is called once more when it was woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.sched import TASK_INTERRUPTIBLE, TASK_KILLABLE
from mm.errors import MustSleep
from mm.flags import FAULT_FLAG_TRIED
from mm.uaccess import LateCopy, copy_to_user_partial

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task


def go_on(kernel: Kernel, task: Task) -> bool:
    """Do what was waited for, in order; False when the task sleeps (or has another turn to wait for).

    A signal ends the wait of user code: the handler runs, and the instruction faults anew. In a system call only a
    fatal one does, and the call is not made again.
    """
    while task.userfaults:
        wait = task.userfaults[0]
        if wait.start():
            if task.fatal_signal_pending() or (wait.interruptible and task.signal_pending()):
                give_up(task)
                task.in_call = False
                return True
            queue = wait.ctx.wait_wqh
            task.state = TASK_INTERRUPTIBLE if wait.interruptible else TASK_KILLABLE
            task.waiting_on = (queue,)
            queue.tasks.append(task)
            task.nvcsw += 1
            kernel.need_resched = True
            return False
        rest = task.userfaults[1:]
        task.userfaults = []
        _finish(kernel, task, wait)
        task.userfaults += rest
    return True


def _finish(kernel: Kernel, task: Task, wait: Any) -> None:
    """The task was woken: the fault is made again, or the copy; this may add to task.userfaults."""
    if isinstance(wait, LateCopy):
        copy_to_user_partial(task, wait.addr, wait.data)
    elif wait.retry is not None:
        error_code, address, user = wait.retry
        if user:
            kernel.arch.page_fault(kernel, task, error_code, address, FAULT_FLAG_TRIED)
            return
        try:  # noqa: SIM105 - contextlib is not worth its import here
            kernel.system.arch.do_page_fault(task, error_code, address, False, FAULT_FLAG_TRIED)
        except MustSleep:
            pass  # again: task.userfaults says for what
    elif wait.key is not None:
        task.wait_state.setdefault("userfaults", []).append(wait.key)


def give_up(task: Task) -> None:
    """The task waits for nothing any more: a signal, or its end."""
    for wait in task.userfaults:
        wait.abort()
    task.userfaults = []
