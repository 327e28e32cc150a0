"""Scheduling policies, and what it takes to ask for them (__sched_setscheduler(): kernel/sched/core.c, deadline.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from guest.cred import CAP_SYS_NICE
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

SCHED_NORMAL, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE = 0, 1, 2, 3, 5, 6
SETPARAM_POLICY = -1  # keep the policy
FAIR, REAL_TIME = (SCHED_NORMAL, SCHED_BATCH), (SCHED_FIFO, SCHED_RR)
SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS = 1, 8, 16
SCHED_FLAG_UTIL_CLAMP, SCHED_FLAG_ALL = 0x60, 0x7F
SCHED_DL_FLAGS = 6  # SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN
RLIMIT_NICE, RLIMIT_RTPRIO = 13, 14
MAX_RT_PRIORITY = 99
_BW_SHIFT = 20
_DL_RUNTIME_MIN = 1 << 10  # ns
_DL_PERIOD_MIN, _DL_PERIOD_MAX = 100, 1 << 22  # us
_RT_PERIOD, _RT_RUNTIME = 1_000_000, 950_000  # us
RUNTIME_INF = -1


class SchedAttr(NamedTuple):
    """struct sched_attr; times in ns."""

    policy: int
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def bandwidth(self) -> int:
        """to_ratio(): the share of the CPU a deadline task asks for, in 2**-20."""
        return (self.runtime << _BW_SHIFT) // (self.period or self.deadline)


def _check_deadline(kernel: Kernel, attr: SchedAttr) -> bool:
    """__checkparam_dl(): whether runtime, deadline and period fit each other and the limits."""
    if not attr.deadline or attr.runtime < _DL_RUNTIME_MIN or (attr.deadline | attr.period) >> 63:
        return False
    period = attr.period or attr.deadline
    least = kernel.sysctls.get("sched_deadline_period_min_us", _DL_PERIOD_MIN) & 0xFFFFFFFF
    most = kernel.sysctls.get("sched_deadline_period_max_us", _DL_PERIOD_MAX) & 0xFFFFFFFF
    return attr.runtime <= attr.deadline <= period and least * 1000 <= period <= most * 1000


def can_nice(task: Task, target: Task, nice: int) -> bool:
    """Whether RLIMIT_NICE of the target, or a capability of the caller, allows this value."""
    return 20 - nice <= target.rlimit(RLIMIT_NICE) or task.capable(CAP_SYS_NICE)


def _check_unprivileged(task: Task, target: Task, policy: int, attr: SchedAttr) -> None:
    """What a caller without CAP_SYS_NICE may not do. Raises Errno(EPERM)."""
    allowed = True
    if policy in FAIR:
        allowed = attr.nice >= target.nice or can_nice(task, target, attr.nice)
    elif policy in REAL_TIME:
        limit = target.rlimit(RLIMIT_RTPRIO)
        allowed = policy == target.policy or bool(limit)
        if attr.priority > target.rt_priority and attr.priority > limit:
            allowed = False
    elif policy == SCHED_DEADLINE:
        allowed = False
    if target.policy == SCHED_IDLE and policy != SCHED_IDLE and not can_nice(task, target, target.nice):
        allowed = False
    if task.cred.euid not in (target.cred.euid, target.cred.uid):
        allowed = False
    if target.sched_reset_on_fork and not attr.flags & SCHED_FLAG_RESET_ON_FORK:
        allowed = False
    if not allowed:
        raise Errno(errno.EPERM)


def _rt_limits(kernel: Kernel) -> tuple[int, int]:
    """sched_rt_period_us and sched_rt_runtime_us."""
    sysctls = kernel.sysctls
    return sysctls.get("sched_rt_period_us", _RT_PERIOD), sysctls.get("sched_rt_runtime_us", _RT_RUNTIME)


def _deadline_bandwidth(kernel: Kernel, other_than: Task | None = None) -> int:
    """What the deadline tasks ask for, in 2**-20 of the CPU."""
    return sum(
        task.sched_deadline.bandwidth()
        for task in kernel.tasks.values()
        if task is not other_than and task.policy == SCHED_DEADLINE and not task.exit_state
    )


def check_bandwidth(kernel: Kernel) -> None:
    """sched_rt_handler(): whether period and runtime go together. Raises Errno EINVAL, EBUSY (deadline tasks)."""
    period, runtime = _rt_limits(kernel)
    if runtime > period:
        raise Errno(errno.EINVAL)
    share = 1 << _BW_SHIFT if runtime == RUNTIME_INF else (runtime << _BW_SHIFT) // period
    if share < _deadline_bandwidth(kernel):
        raise Errno(errno.EBUSY)


def _check_admission(target: Task, attr: SchedAttr) -> None:
    """sched_dl_overflow(): whether there is so much left. Raises Errno EBUSY; EPERM: nothing is set aside at all."""
    period, runtime = _rt_limits(target.kernel)
    if runtime == RUNTIME_INF:
        return
    share = (runtime << _BW_SHIFT) // period
    if not share:
        raise Errno(errno.EPERM)
    if _deadline_bandwidth(target.kernel, target) + attr.bandwidth() > share:
        raise Errno(errno.EBUSY)


def set_scheduler(task: Task, target: Task, attr: SchedAttr) -> None:
    """__sched_setscheduler(). Raises Errno EINVAL, EPERM, EBUSY, EOPNOTSUPP."""
    policy, reset = attr.policy, bool(attr.flags & SCHED_FLAG_RESET_ON_FORK)
    if policy < 0:
        policy, reset = target.policy, target.sched_reset_on_fork
    elif policy not in (*FAIR, *REAL_TIME, SCHED_IDLE, SCHED_DEADLINE):
        raise Errno(errno.EINVAL)
    if attr.flags & ~SCHED_FLAG_ALL or attr.priority & 0xFFFFFFFF > MAX_RT_PRIORITY:
        raise Errno(errno.EINVAL)
    if policy == SCHED_DEADLINE and not _check_deadline(target.kernel, attr):
        raise Errno(errno.EINVAL)
    if (policy in REAL_TIME) != (attr.priority != 0):
        raise Errno(errno.EINVAL)
    if not task.capable(CAP_SYS_NICE):
        _check_unprivileged(task, target, policy, attr._replace(flags=attr.flags & ~1 | reset))
    if attr.flags & SCHED_FLAG_UTIL_CLAMP:
        raise Errno(errno.EOPNOTSUPP)  # CONFIG_UCLAMP_TASK is not set
    if policy == SCHED_DEADLINE:
        _check_admission(target, attr)
    target.sched_reset_on_fork = reset
    if attr.flags & SCHED_FLAG_KEEP_PARAMS:
        return
    target.policy, target.rt_priority = policy, attr.priority
    if policy == SCHED_DEADLINE:
        target.sched_deadline = attr._replace(flags=attr.flags & SCHED_DL_FLAGS, period=attr.period or attr.deadline)
    elif policy in FAIR:
        target.nice = attr.nice
    if policy not in FAIR or target.nice or target.kernel.run_queue.special:
        target.kernel.reschedule()
    if target.pi_blocked_on is not None:
        from guest.rtmutex import adjust_pi

        adjust_pi(target)
