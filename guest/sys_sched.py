"""System calls of scheduling: one CPU and one deterministic queue, so most of them only keep what they are told."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from guest.clock import NSEC_PER_SEC, TICK_NSEC
from guest.cred import CAP_SYS_ADMIN, CAP_SYS_NICE
from guest.sched_policy import (
    FAIR,
    REAL_TIME,
    SCHED_DEADLINE,
    SCHED_FIFO,
    SCHED_FLAG_KEEP_POLICY,
    SCHED_FLAG_RESET_ON_FORK,
    SCHED_FLAG_UTIL_CLAMP,
    SCHED_IDLE,
    SCHED_RR,
    SETPARAM_POLICY,
    SchedAttr,
    can_nice,
    set_scheduler,
)
from guest.sys_mm import s32
from guest.syscalls import FULL, PARTIAL, Call
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

SCHED_RESET_ON_FORK = 0x40000000
SCHED_ATTR_SIZE_VER0 = 48
IOPRIO_NORM = 4  # class none: what a task has that never chose
PRIO_PROCESS, PRIO_PGRP, PRIO_USER = 0, 1, 2
_ATTR = Struct("<IIQiIQQQII")


def _find(task: Task, pid: int) -> Task:
    pid = s32(pid)
    if pid < 0:
        raise Errno(errno.EINVAL)
    target = task if not pid else task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    return target


def sys_sched_yield(task: Task) -> int:
    """sched_yield."""
    task.kernel.yield_current()
    return 0


def sys_sched_getaffinity(task: Task, pid: int, length: int, mask: int) -> int:
    """sched_getaffinity: CPU 0; the bytes of a cpumask."""
    length &= 0xFFFFFFFF
    if length & 7 or length * 8 < 4:
        raise Errno(errno.EINVAL)
    _find(task, pid)
    copy_to_user(task, mask, (1).to_bytes(8, "little"))
    return 8


def sys_sched_setaffinity(task: Task, pid: int, length: int, mask: int) -> int:
    """sched_setaffinity: CPU 0 must be among them."""
    wanted = int.from_bytes(copy_from_user(task, mask, min(length & 0xFFFFFFFF, 8)), "little")
    target = _find(task, pid)
    if target.cred.uid != task.cred.euid and target.cred.euid != task.cred.euid and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    if not wanted & 1:
        raise Errno(errno.EINVAL)
    return 0


def _priority_range(policy: int) -> tuple[int, int]:
    if policy in REAL_TIME:
        return 1, 99
    if policy in (*FAIR, SCHED_IDLE, SCHED_DEADLINE):
        return 0, 0
    raise Errno(errno.EINVAL)


def sys_sched_get_priority_max(task: Task, policy: int) -> int:
    """sched_get_priority_max."""
    return _priority_range(s32(policy))[1]


def sys_sched_get_priority_min(task: Task, policy: int) -> int:
    """sched_get_priority_min."""
    return _priority_range(s32(policy))[0]


def _reset_flag(target: Task) -> int:
    return SCHED_RESET_ON_FORK if target.sched_reset_on_fork else 0


def _set_scheduler(task: Task, pid: int, policy: int, param: int) -> None:
    """do_sched_setscheduler(): the priority at `param`, the nice value as it is. Raises Errno."""
    if not param or s32(pid) < 0:
        raise Errno(errno.EINVAL)
    priority = s32(get_user(task, param, 4))
    target = _find(task, pid)
    flags = 0
    if policy != SETPARAM_POLICY and policy & SCHED_RESET_ON_FORK:
        policy, flags = policy & ~SCHED_RESET_ON_FORK, SCHED_FLAG_RESET_ON_FORK
    set_scheduler(task, target, SchedAttr(policy, flags, target.nice, priority))


def sys_sched_setscheduler(task: Task, pid: int, policy: int, param: int) -> int:
    """sched_setscheduler."""
    policy = s32(policy)
    if policy < 0:
        raise Errno(errno.EINVAL)
    _set_scheduler(task, pid, policy, param)
    return 0


def sys_sched_setparam(task: Task, pid: int, param: int) -> int:
    """sched_setparam."""
    _set_scheduler(task, pid, SETPARAM_POLICY, param)
    return 0


def sys_sched_getscheduler(task: Task, pid: int) -> int:
    """sched_getscheduler."""
    target = _find(task, pid)
    return target.policy | _reset_flag(target)


def sys_sched_getparam(task: Task, pid: int, param: int) -> int:
    """sched_getparam."""
    if not param:
        raise Errno(errno.EINVAL)
    if s32(pid) < 0:
        raise Errno(errno.EINVAL)
    put_user(task, param, _find(task, pid).rt_priority, 4)
    return 0


def sys_sched_rr_get_interval(task: Task, pid: int, interval: int) -> int:
    """sched_rr_get_interval: sched_rr_timeslice_ms for SCHED_RR in whole ticks, 0 for SCHED_FIFO, else a fair slice."""
    policy = _find(task, pid).policy
    nanoseconds = TICK_NSEC
    if policy == SCHED_RR:
        milliseconds = task.kernel.sysctls.get("sched_rr_timeslice_ms", 100)
        nanoseconds = -(-milliseconds * 1_000_000 // TICK_NSEC) * TICK_NSEC
    elif policy in (SCHED_FIFO, SCHED_DEADLINE):
        nanoseconds = 0
    copy_to_user(task, interval, Struct("<qq").pack(*divmod(nanoseconds, NSEC_PER_SEC)))
    return 0


def sys_sched_getattr(task: Task, pid: int, uattr: int, size: int, flags: int) -> int:
    """sched_getattr."""
    size &= 0xFFFFFFFF
    if not uattr or s32(pid) < 0 or size > task.system.arch.page_size or size < 48 or flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    target = _find(task, pid)
    size = min(size, _ATTR.size)
    attr_flags, nice, priority = int(target.sched_reset_on_fork), 0, 0
    runtime = deadline = period = 0
    if target.policy == SCHED_DEADLINE:
        _, flags, _, _, runtime, deadline, period = target.sched_deadline
        attr_flags |= flags
    elif target.policy in REAL_TIME:
        priority = target.rt_priority
    else:
        nice = target.nice
    image = _ATTR.pack(size, target.policy, attr_flags, nice, priority, runtime, deadline, period, 0, 0)
    copy_to_user(task, uattr, image[:size])
    return 0


def sys_sched_setattr(task: Task, pid: int, uattr: int, flags: int) -> int:
    """sched_setattr."""
    if not uattr or s32(pid) < 0 or flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    size = get_user(task, uattr, 4) or SCHED_ATTR_SIZE_VER0
    known = min(size, _ATTR.size)
    if size < SCHED_ATTR_SIZE_VER0 or size > task.system.arch.page_size:
        _refuse_size(task, uattr)
    if size > known and any(copy_from_user(task, uattr + known, size - known)):
        _refuse_size(task, uattr)
    image = copy_from_user(task, uattr, known).ljust(_ATTR.size, b"\0")
    _, policy, attr_flags, nice, priority, runtime, deadline, period, *_ = _ATTR.unpack(image)
    if (attr_flags & SCHED_FLAG_UTIL_CLAMP and size < _ATTR.size) or policy >> 31:
        raise Errno(errno.EINVAL)
    if attr_flags & SCHED_FLAG_KEEP_POLICY:
        policy = SETPARAM_POLICY
    attr = SchedAttr(policy, attr_flags, max(-20, min(19, nice)), priority, runtime, deadline, period)
    set_scheduler(task, _find(task, pid), attr)
    return 0


def _refuse_size(task: Task, uattr: int) -> NoReturn:
    """A struct sched_attr of a size we do not know. Raises Errno(E2BIG)."""
    put_user(task, uattr, _ATTR.size, 4)
    raise Errno(errno.E2BIG)


# ---- nice


def _members(task: Task, which: int, who: int) -> list[Task]:
    kernel = task.kernel
    if which == PRIO_PROCESS:
        target = task if not who else task.find_task(who)
        return [] if target is None else [target]
    if which == PRIO_PGRP:
        pgrp = task.vpid(who) if who else task.signal.pgrp
        return [t for t in kernel.tasks.values() if t.signal.pgrp == pgrp and t is not kernel.init]
    if which == PRIO_USER:
        uid = who & 0xFFFFFFFF or task.cred.uid
        return [t for t in kernel.tasks.values() if t.cred.uid == uid]
    raise Errno(errno.EINVAL)


def _set_one_prio(task: Task, target: Task, nice: int) -> None:
    """set_one_prio(). Raises Errno(EPERM), EACCES."""
    cred, tcred = task.cred, target.cred
    if cred.euid not in (tcred.uid, tcred.euid) and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    if nice < target.nice and not can_nice(task, target, nice):
        raise Errno(errno.EACCES)
    target.nice = nice
    task.kernel.reschedule()


def sys_setpriority(task: Task, which: int, who: int, niceval: int) -> int:
    """setpriority."""
    nice = max(-20, min(19, s32(niceval)))
    number = errno.ESRCH
    for target in _members(task, s32(which), s32(who)):
        try:
            _set_one_prio(task, target, nice)
            if number == errno.ESRCH:
                number = 0
        except Errno as e:
            number = e.number
    if number:
        raise Errno(number)
    return 0


def sys_getpriority(task: Task, which: int, who: int) -> int:
    """getpriority: 20 minus the nice value, so that it is never negative."""
    values = [20 - target.nice for target in _members(task, s32(which), s32(who))]
    if not values:
        raise Errno(errno.ESRCH)
    return max(values)


def sys_ioprio_get(task: Task, which: int, who: int) -> int:
    """ioprio_get."""
    if s32(which) not in (1, 2, 3):
        raise Errno(errno.EINVAL)
    found = _members(task, s32(which) - 1, s32(who))
    if not found:
        raise Errno(errno.ESRCH)
    return max(target.io_context or IOPRIO_NORM for target in found)


def sys_ioprio_set(task: Task, which: int, who: int, ioprio: int) -> int:
    """ioprio_set."""
    kind = ioprio >> 13 & 7
    if kind > 3 or (kind in (1, 2) and ioprio & 0x1FFF >= 8) or (kind == 0 and ioprio & 0x1FFF):
        raise Errno(errno.EINVAL)
    if kind == 1 and not task.capable(CAP_SYS_ADMIN) and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    if s32(which) not in (1, 2, 3):
        raise Errno(errno.EINVAL)
    found = _members(task, s32(which) - 1, s32(who))
    if not found:
        raise Errno(errno.ESRCH)
    for target in found:
        target.io_context = ioprio & 0xFFFF
    return 0


def sys_membarrier(task: Task, cmd: int, flags: int) -> int:
    """membarrier: one CPU is always in order; only the registrations count."""
    cmd = s32(cmd)
    if flags & 0xFFFFFFFF:
        raise Errno(errno.EINVAL)
    if cmd == 0:  # MEMBARRIER_CMD_QUERY
        return 0x7F
    if cmd not in (1, 2, 4, 8, 16, 32, 64):
        raise Errno(errno.EINVAL)
    if cmd in (4, 16, 64):  # MEMBARRIER_CMD_REGISTER_*
        task.signal.membarrier |= cmd
    elif cmd in (8, 32) and not task.signal.membarrier & cmd << 1:
        raise Errno(errno.EPERM)
    return 0


CALLS = (
    Call("sched_yield", sys_sched_yield, FULL),
    Call("sched_getaffinity", sys_sched_getaffinity, FULL),
    Call("sched_setaffinity", sys_sched_setaffinity, FULL),
    Call("sched_get_priority_max", sys_sched_get_priority_max, FULL),
    Call("sched_get_priority_min", sys_sched_get_priority_min, FULL),
    Call("sched_setscheduler", sys_sched_setscheduler, PARTIAL, "SCHED_DEADLINE is kept, not obeyed"),
    Call("sched_getscheduler", sys_sched_getscheduler, FULL),
    Call("sched_setparam", sys_sched_setparam, FULL, ""),
    Call("sched_getparam", sys_sched_getparam, FULL),
    Call("sched_rr_get_interval", sys_sched_rr_get_interval, PARTIAL, "a fixed slice"),
    Call("sched_getattr", sys_sched_getattr, FULL),
    Call("sched_setattr", sys_sched_setattr, PARTIAL, "SCHED_DEADLINE is kept, not obeyed"),
    Call("setpriority", sys_setpriority, FULL, ""),
    Call("getpriority", sys_getpriority, FULL),
    Call("ioprio_get", sys_ioprio_get, FULL),
    Call("ioprio_set", sys_ioprio_set, PARTIAL, "kept, not obeyed"),
    Call("membarrier", sys_membarrier, FULL),
)
