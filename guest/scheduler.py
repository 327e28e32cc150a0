"""Who has the CPU, for how long, and who next: sleeping tasks woken, slices, preemption (kernel/sched/core.c).

wake_up -> enqueue -> run queue (run_queue.py) -> schedule() -> current, for slice() instructions
slice over, or sched_yield() -> back into the queue;  asleep -> sched.py;  nobody left -> idle.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.clock import INSTRUCTION_NSEC, POLLS, TICK_NSEC
from guest.events import TaskSwitch
from guest.sched import (
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_RUNNING,
    TASK_STOPPED,
    TASK_TRACED,
)
from guest.siginfo import SIGKILL
from guest.task import PF_EXITING
from guest.timers import NEVER

if TYPE_CHECKING:
    from guest.arch import GuestArch
    from guest.clock import Clock
    from guest.hw import Cpu
    from guest.rng import Rng
    from guest.run_queue import RunQueue
    from guest.task import Task
    from guest.timers import Timers
    from mm.system import System

FORKS_PER_SLICE = 64  # as many as Linux makes in about 4 ms, the slice of two tasks


class Scheduler:
    """The part of Kernel that chooses who runs."""

    system: System
    arch: GuestArch
    cpu: Cpu
    clock: Clock
    timers: Timers
    chance: Rng | None
    quantum: int
    tasks: dict[int, Task]
    init: Task
    current: Task
    run_queue: RunQueue
    need_resched: bool
    counting: bool
    exit_status: int | None
    slice_forks: int
    context_switches: int
    turn_stime: int  # stime of the running task when its turn began, ns
    turn_ends: int  # CLOCK_MONOTONIC ns

    def preempt(self, task: Task, woken: int) -> None:
        """Whoever waited for a moment that has come runs before those who did not (check_preempt_wakeup())."""
        self.run_queue.rotate(woken)
        self.need_resched = True
        if task.state == TASK_RUNNING:
            task.nivcsw += 1
            self.run_queue.append(task)

    def next_turn(self, task: Task) -> None:
        """The running task has had its time: behind everybody who is runnable, if there is somebody."""
        self.turn_ends = NEVER
        queue = self.run_queue
        if queue and task.state == TASK_RUNNING:
            if queue.special:
                queue.account(task, task.stime - self.turn_stime, self.clock.now)
            task.nivcsw += 1
            queue.expired(task)
            self.need_resched = True

    def begin_turn(self, task: Task) -> None:
        """`task` runs while others wait: for a tick of traps at most, or for as long as two whole quanta take."""
        self.turn_stime = task.stime
        self.turn_ends = self.clock.now + max(TICK_NSEC, 2 * self.quantum * INSTRUCTION_NSEC)
        self.timers.next = min(self.timers.next, self.turn_ends)

    def wake_up(self, task: Task) -> None:
        """Make a sleeping or stopped task runnable."""
        if task is self.init:
            if task.ptrace or task.state == TASK_TRACED:
                from guest.ptrace import run_init

                run_init(task)
        elif task.state in (TASK_INTERRUPTIBLE, TASK_KILLABLE, TASK_STOPPED, TASK_TRACED):
            for queue in task.waiting_on:
                if task in queue.tasks:
                    queue.tasks.remove(task)
            task.waiting_on = ()
            task.state = TASK_RUNNING
            self.enqueue(task)
            if task.deadline is not None:
                task.deadline = None
                self.timers.sleepers.pop(task, None)
                self.timers.recompute()

    def enqueue(self, task: Task) -> None:
        """One more task wants the CPU; the running one must be interruptible from now on."""
        queue = self.run_queue
        if not queue and self.current is not None:
            self.begin_turn(self.current)
        queue.append(task)
        self.need_quantum()
        if queue.special and queue.woken(task, self.current):
            self.need_resched = True

    def need_quantum(self) -> None:
        """The running task must not run without limit any more: leave the engine, so that it goes on counted."""
        if not self.counting:
            self.need_resched = True

    def reschedule(self) -> None:
        """A policy, priority or nice value has changed: from now on they decide who runs."""
        self.run_queue.special = True
        self.need_resched = True

    def yield_current(self) -> None:
        """sched_yield(): behind everybody who is runnable."""
        if self.run_queue:
            self.run_queue.yielded(self.current)
            self.need_resched = True

    def runnable(self) -> int:
        """How many tasks want the CPU, `current` included."""
        return len(self.run_queue) + (1 if self.current.state == TASK_RUNNING else 0)

    def wants_quantum(self) -> bool:
        """Whether a task that runs on must be interrupted: others wait, or a timer or sleep will end."""
        return bool(self.run_queue) or self.timers.armed() or self.clock.polls > POLLS or self._one_by_one()

    def _one_by_one(self) -> bool:
        """Whether every instruction of the running task may be the one a tracer waits for."""
        task = self.current
        return task.trace_step or bool(task.hw_breakpoints)

    def slice(self) -> int:
        """How many instructions the running task may execute before the kernel looks again."""
        task = self.current
        if task.trace_step or task.hw_breakpoints:
            task.step_from = (self.cpu.regs[self.arch.pc], task.min_flt + task.maj_flt)
            return 1
        count = self.quantum
        if self.chance is not None:
            count = 1 + self.chance.next() % count
        if self.timers.armed() and self.clock.virtual:
            count = min(count, max(1000, (self.timers.first - self.clock.now) // INSTRUCTION_NSEC + 1))
        return count

    def account(self, instructions: int) -> None:
        """The running task executed so many: time passes."""
        self.clock.now += instructions * INSTRUCTION_NSEC
        self.current.utime += instructions * INSTRUCTION_NSEC
        if self.run_queue.special:
            self.run_queue.account(self.current, instructions * INSTRUCTION_NSEC, self.clock.now)

    def quantum_expired(self, instructions: int) -> None:
        """The engine ran a whole slice of so many: time passes, the next task's turn comes."""
        task = self.current
        self.account(instructions)
        if task.trace_step:
            from guest.ptrace_call import stepped

            stepped(task.kernel, task)
        if task.hw_breakpoints:
            from guest.ptrace_call import arrived

            arrived(task.kernel, task)
        self.turn_ends = NEVER
        task.kernel.end_trap(task)
        if task not in self.run_queue:
            self.next_turn(task)

    def forked(self) -> None:
        """The running task made another. Its slice counts instructions, of which forks take few, but much time."""
        self.slice_forks += 1
        task = self.current
        if self.slice_forks >= FORKS_PER_SLICE and task.state == TASK_RUNNING and task not in self.run_queue:
            task.nivcsw += 1
            self.run_queue.expired(task)
            self.need_resched = True

    def schedule(self) -> Task | None:
        """The next task to run; None when the first program has ended: the machine goes with it, as a container does.

        Raises:
            Deadlock: tasks are left, and nothing can ever wake one of them.
        """
        if self.exit_status is not None:
            self._end_everybody()
            return None
        previous = self.current
        if previous is not None and previous.state == TASK_RUNNING and previous not in self.run_queue:
            self.run_queue.appendleft(previous)  # it only had to leave the engine (exec)
        if not self.run_queue:
            from guest.idle import idle

            while not self.run_queue:
                if not idle(self.init.kernel):
                    return None
        if self.chance is not None and len(self.run_queue) > 1:
            self.run_queue.rotate(-(self.chance.next() % len(self.run_queue)))
        task = self.run_queue.pick()
        self.need_resched = False
        self.slice_forks = 0
        if self.run_queue and (task is not previous or not self.clock.now < self.turn_ends < NEVER):
            self.begin_turn(task)
        if task is not previous:
            self.context_switches += 1
            if self.system.listener is not None and previous is not None:
                self.system.listener(TaskSwitch(task.pid, previous.pid, task.comm))
        task.kernel.set_current(task)
        return task

    def _end_everybody(self) -> None:
        """The first program is gone: SIGKILL for who is left, at once (the end of a pid namespace)."""
        for task in list(self.tasks.values()):
            if task is not self.init and not task.flags & PF_EXITING:
                task.kernel.force_exit(task, SIGKILL)
        self.run_queue.clear()

    def expire_sleeps(self) -> None:
        """Wake tasks whose deadline has passed (called with the timers)."""
        now = self.clock.now
        due = [task for task in self.timers.sleepers if task.deadline is not None and task.deadline <= now]
        for task in sorted(due, key=lambda task: task.serial):
            self.wake_up(task)
