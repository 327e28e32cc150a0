"""Sleeping and waking.

A handler that cannot go on calls `sleep_on()`, which leaves it by an exception. When the task is woken the whole
handler runs again with the same arguments and looks at its condition first. What must survive the second run (bytes
already written, an absolute deadline, the child already forked) lives in `task.wait_state`.

    handler -> sleep_on -> Block     the task is on its queues, state S, another task gets the CPU
                        -> Restart   a signal is pending: the call ends with an ERESTART code
    queue.wake_all()    -> the task is runnable; Kernel.resume() runs the handler again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from guest.vfs_flags import POLLIN, POLLOUT, POLLPRI, POLLRDBAND, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from mm.errors import MustSleep

if TYPE_CHECKING:
    from guest.task import Task

_DATA = POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND | POLLRDHUP  # what a wait for data is for
_ROOM = POLLOUT | POLLWRNORM | POLLWRBAND
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

TASK_RUNNING = "R"
TASK_INTERRUPTIBLE = "S"
TASK_KILLABLE = "D"
TASK_STOPPED = "T"
TASK_TRACED = "t"
TASK_ZOMBIE = "Z"
TASK_DEAD = "X"


class Block(MustSleep):
    """The running task went to sleep inside a system call. Not an error."""


class Restart(Exception):
    """A signal interrupts the call: its result is -`code`, and Linux's restart rules decide what the program sees."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class TaskExit(Exception):
    """The running task ended inside a system call. Not an error."""


class WaitQueue:
    """Tasks waiting for one thing (wait_queue_head). `name` says what, for a Deadlock report.

    Watchers (epoll's items) are told of every wake, with the POLL* bits it is about (`key`; 0: unknown).
    """

    __slots__ = ("name", "tasks", "watchers")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.tasks: list[Task] = []  # first to sleep first
        self.watchers: list[Any] = []  # objects with woken(key)

    def wake_all(self, key: int = 0) -> int:
        """Make every waiter runnable; how many there were."""
        for watcher in self.watchers[:]:
            watcher.woken(key)
        waiters = self.tasks[:]
        for task in waiters:
            task.kernel.wake_up(task)
        return len(waiters)

    def wake_one(self, key: int = 0) -> int:
        """Make the first waiter runnable; 1, or 0 when nobody waits."""
        for watcher in self.watchers[:]:
            watcher.woken(key)
        if not self.tasks:
            return 0
        task = self.tasks[0]
        task.kernel.wake_up(task)
        return 1

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def __repr__(self) -> str:
        return f"<WaitQueue {self.name} {[task.pid for task in self.tasks]}>"


class HostWait(WaitQueue):
    """Waiters for a host file descriptor that is not ready; `Kernel.schedule` polls it when nothing else can run."""

    __slots__ = ("events", "exact", "fd")

    def __init__(self, fd: int, events: int = POLLIN, name: str = "", exact: bool = False) -> None:
        super().__init__(name or f"host fd {fd}")
        self.fd = fd
        self.events = events  # POLL* bits to wait for, besides POLLHUP and POLLERR
        self.exact = exact

    def narrowed(self, wanted: int) -> HostWait:
        """For who wants these POLL* bits only: else the host would wake it for others, again and again."""
        if self.exact:
            return self
        side = _ROOM if self.events & POLLOUT else _DATA
        return HostWait(self.fd, wanted & side, self.name, True)


class HostInterrupt(Exception):
    """Whoever runs the machine wants it back while it waits for the host (`Kernel.interrupt_fd`)."""


class Deadlock(Exception):
    """No task can ever run again.

    Args:
        waits: (pid, comm, what it waits for) of every live task.
    """

    def __init__(self, waits: list[tuple[int, str, str]]) -> None:
        super().__init__("; ".join(f"{pid} ({comm}) waits for {what}" for pid, comm, what in waits))
        self.waits = waits


def sleep_on(
    task: Task, *queues: WaitQueue, deadline: int | None = None, restart: int = ERESTARTSYS, killable: bool = False
) -> NoReturn:
    """Leave the handler: asleep until a queue wakes the task, a signal comes, or the clock reaches `deadline`.

    Args:
        queues: whoever wakes one of them ends the sleep.
        deadline: CLOCK_MONOTONIC ns; the caller compares it with the clock when it runs again.
        restart: the code a signal ends the call with.
        killable: only a fatal signal ends the sleep (TASK_KILLABLE).

    Raises:
        Restart: a signal is pending.
        Block: otherwise.
    """
    if task.fatal_signal_pending() if killable else task.signal_pending():
        raise Restart(restart)
    task.state = TASK_KILLABLE if killable else TASK_INTERRUPTIBLE
    task.waiting_on = queues
    task.deadline = deadline
    if deadline is not None:
        timers = task.kernel.timers
        timers.sleepers[task] = None
        timers.first = min(timers.first, deadline)
        timers.next = min(timers.next, deadline)
    for queue in queues:
        queue.tasks.append(task)
    raise Block
