"""Nobody is runnable: time passes to the next deadline, or the host is waited for (kernel/sched/idle.c's loop).

Who waits for the host (standard input, say) is polled, as long as the next deadline is away. With deadlines alone the
virtual clock jumps to the first, and the host's is slept for. With neither there is a Deadlock.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC, WAKE_NSEC
from guest.sched import TASK_STOPPED, TASK_TRACED, Deadlock, HostInterrupt, HostWait
from guest.timers import NEVER

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task


def idle(kernel: Kernel) -> bool:
    """Wait until somebody may be runnable. False: nobody is left.

    Raises:
        Deadlock: tasks are left, and nothing can ever wake one of them.
        HostInterrupt: whoever runs the machine wants it back (`kernel.interrupt_fd`).
    """
    asleep = [t for t in kernel.tasks.values() if t is not kernel.init and not t.exit_state]
    if not asleep:
        return False
    clock = kernel.clock
    clock.polls = 0
    host = _host_queues(asleep)
    deadline = _next_deadline(kernel, asleep)
    if deadline is None and not host:
        raise Deadlock([(t.pid, t.comm, _what(t)) for t in asleep])
    daemon = kernel.timers.next_daemon()
    if daemon != NEVER and (deadline is None or daemon < deadline):  # none alone keeps the machine from its end
        deadline = daemon
    # A wait for the host takes the host's time: somebody may be about to type.
    if host or not clock.virtual:
        left = None if deadline is None else max(deadline - clock.now, 0) / NSEC_PER_SEC
        if _poll_host(kernel, host, left) or deadline is None:
            return True
    clock.now = max(clock.now, deadline or 0) + WAKE_NSEC
    if clock.now >= kernel.timers.next:
        kernel.timers.run()
    for task in asleep:
        if task.deadline is not None and task.deadline <= clock.now:
            kernel.wake_up(task)
    return True


def _next_deadline(kernel: Kernel, asleep: list[Task]) -> int | None:
    """CLOCK_MONOTONIC ns of the first thing that will happen by itself; None: nothing will."""
    deadlines = [task.deadline for task in asleep if task.deadline is not None]
    timer = kernel.timers.next_idle()
    if timer != NEVER:
        deadlines.append(timer)
    return min(deadlines) if deadlines else None


def _host_queues(asleep: list[Task]) -> list[HostWait]:
    """The host descriptors somebody waits for, each once."""
    seen: dict[int, HostWait] = {}
    for task in asleep:
        for queue in task.waiting_on:
            if isinstance(queue, HostWait):
                seen[id(queue)] = queue
    return list(seen.values())


def _poll_host(kernel: Kernel, queues: list[HostWait], timeout: float | None) -> bool:
    """Wait for host descriptors (seconds; None: as long as it takes) and wake who waits for a ready one.

    Raises HostInterrupt when `interrupt_fd` becomes readable.
    """
    poller = select.poll()
    if kernel.interrupt_fd >= 0:
        poller.register(kernel.interrupt_fd, select.POLLIN)
    events: dict[int, int] = {}
    for queue in queues:
        events[queue.fd] = events.get(queue.fd, 0) | queue.events
    for fd, wanted in events.items():
        poller.register(fd, wanted)
    milliseconds = None if timeout is None else -int(-timeout * 1000 // 1)  # rounded up: not back before it is time
    ready = {fd for fd, _ in poller.poll(milliseconds)}
    if kernel.interrupt_fd in ready:
        raise HostInterrupt
    woken = 0
    for queue in queues:
        if queue.fd in ready:
            woken += queue.wake_all()
    return bool(woken)


def _what(task: Task) -> str:
    """What a task waits for, in words."""
    if task.state == TASK_STOPPED:
        return "SIGCONT"
    if task.state == TASK_TRACED:
        return "its tracer"
    names = [queue.name or "something" for queue in task.waiting_on]
    return " or ".join(names) if names else "a signal"
