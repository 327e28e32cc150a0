"""Who runs next (kernel/sched/core.c, rt.c, fair.c, for one CPU).

While every task has the policy and nice value it was born with, the queue is first come, first served, each for a
quantum. From the first other policy or nice value on (`special`):

    real time   the most urgent `task.prio` (0 to 99) before all others; among equals FIFO keeps the CPU, RR shares it;
                in each period of sched_rt_period_us at most sched_rt_runtime_us, if anybody else wants to run
    fair        the task with the least virtual run time: CPU time, scaled by the weight of its nice value
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from guest.sched_policy import SCHED_FIFO, SCHED_IDLE

if TYPE_CHECKING:
    from guest.task import Task

MAX_RT_PRIO = 100  # task.prio below it is real time (or a deadline's)
NICE_0_LOAD = 1024
_WEIGHT_IDLEPRIO = 3
#: sched_prio_to_weight: a step of nice is a tenth of the CPU.
_WEIGHTS = (
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501,
    1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
)  # fmt: skip
_SLEEPER_CREDIT = 3_000_000  # ns: half of sched_latency
START_DEBIT = 3_000_000  # ns: what a new task begins behind its parent, or children of children would run for ever
_RT_PERIOD, _RT_RUNTIME = 1_000_000, 950_000  # microseconds: the sysctls, when nobody set them


def weight(task: Task) -> int:
    """The share of the CPU a fair task gets, beside others' (set_load_weight())."""
    return _WEIGHT_IDLEPRIO if task.policy == SCHED_IDLE else _WEIGHTS[task.nice + 20]


class RunQueue(deque["Task"]):
    """Tasks that want the CPU, the longest waiting first (struct rq)."""

    def __init__(self) -> None:
        super().__init__()
        self.special = False  # somebody has a policy or nice value of his own
        self.sysctls: dict[str, int] = {}
        self.rt_time = 0  # ns real-time tasks ran in this period
        self.rt_start = 0  # when the period began

    def pick(self) -> Task:
        """Take out the task to run (pick_next_task())."""
        if not self.special:
            return self.popleft()
        task = min(self, key=_class)
        if task.prio >= MAX_RT_PRIO or self.throttled():
            fair = [other for other in self if other.prio >= MAX_RT_PRIO]
            task = min(fair, key=_vruntime) if fair else task
        self.remove(task)
        return task

    def throttled(self) -> bool:
        """Whether real-time tasks have had their part of this period."""
        limit = self.sysctls.get("sched_rt_runtime_us", _RT_RUNTIME) * 1000
        return 0 <= limit <= self.rt_time  # a negative one: no limit

    def account(self, task: Task, nsec: int, now: int) -> None:
        """`task` ran for so long (update_curr(), update_curr_rt())."""
        if now - self.rt_start >= self.sysctls.get("sched_rt_period_us", _RT_PERIOD) * 1000:
            self.rt_start, self.rt_time = now, 0
        if task.prio < MAX_RT_PRIO:
            self.rt_time += nsec
        else:
            task.vruntime += nsec * NICE_0_LOAD // weight(task)

    def woken(self, task: Task, current: Task) -> bool:
        """`task` has joined: whether it preempts `current` at once (place_entity(), check_preempt_curr())."""
        if task.prio < MAX_RT_PRIO:
            return task.prio < current.prio and not self.throttled()
        others = [other.vruntime for other in (*self, current) if other is not task and other.prio >= MAX_RT_PRIO]
        if others:
            task.vruntime = max(task.vruntime, min(others) - _SLEEPER_CREDIT)
        return False

    def expired(self, task: Task) -> None:
        """The quantum of `task` is over (task_tick()): its place is the last, but for a FIFO task's."""
        if self.special and task.policy == SCHED_FIFO:
            self.appendleft(task)
        else:
            self.append(task)

    def yielded(self, task: Task) -> None:
        """sched_yield() (yield_task_rt(), yield_task_fair()): behind everybody of its kind."""
        if self.special and task.prio >= MAX_RT_PRIO:
            task.vruntime = max(other.vruntime for other in (*self, task) if other.prio >= MAX_RT_PRIO)
        self.append(task)


def _class(task: Task) -> int:
    return min(task.prio, MAX_RT_PRIO)


def _vruntime(task: Task) -> int:
    return task.vruntime
