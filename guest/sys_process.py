"""System calls of processes: who am I, exit, sessions, personality, limits."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.cred import CAP_SYS_RESOURCE
from guest.exit import do_exit, do_group_exit
from guest.fdtable import nr_open
from guest.sys_mm import s32
from guest.syscalls import FULL, PARTIAL, Call
from guest.task import RLIM_NLIMITS
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

_RLIMIT = Struct("<QQ")


def sys_getpid(task: Task) -> int:
    """getpid."""
    return task.tgid if task.pid_ns is None else task.vnr(task.tgid)


def sys_gettid(task: Task) -> int:
    """gettid."""
    return task.pid if task.pid_ns is None else task.vnr(task.pid)


def sys_getppid(task: Task) -> int:
    """getppid."""
    tgid = task.real_parent.tgid
    return tgid if task.pid_ns is None else task.vnr(tgid)


def sys_exit(task: Task, code: int) -> int:
    """exit: this thread."""
    do_exit(task, (code & 0xFF) << 8)
    return 0


def sys_exit_group(task: Task, code: int) -> int:
    """exit_group: the process."""
    do_group_exit(task, (code & 0xFF) << 8)
    return 0


def sys_set_tid_address(task: Task, address: int) -> int:
    """set_tid_address."""
    task.clear_child_tid = address
    return task.vnr(task.pid)


# ---- process groups and sessions


def sys_setpgid(task: Task, pid: int, pgid: int) -> int:
    """setpgid."""
    pid, pgid = s32(pid), s32(pgid)
    leader = task.group_leader
    if pgid < 0:
        raise Errno(errno.EINVAL)
    kernel = task.kernel
    pid = task.vpid(pid) if pid else leader.pid
    pgid = task.vpid(pgid) if pgid else pid
    target = kernel.tasks.get(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    if target.group_leader is not target:
        raise Errno(errno.EINVAL)
    if target.real_parent.tgid == task.tgid:
        if target.signal.session != task.signal.session:
            raise Errno(errno.EPERM)
        if target.did_exec:
            raise Errno(errno.EACCES)
    elif target is not leader:
        raise Errno(errno.ESRCH)
    if target.signal.leader:
        raise Errno(errno.EPERM)
    if pgid != pid and not any(
        other.signal.pgrp == pgid and other.signal.session == task.signal.session
        for other in kernel.tasks.values()
        if other.group_leader is other
    ):
        raise Errno(errno.EPERM)
    old, target.signal.pgrp = target.signal.pgrp, pgid
    if task.pid_ns is not None:
        from guest.pid_namespace import free_pid

        free_pid(kernel, task.pid_ns, old)
    return 0


def of_pid(task: Task, pid: int) -> Task:
    """The task a pid names, 0 the caller. Raises Errno(ESRCH)."""
    pid = s32(pid)
    target = task if not pid else task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    return target


def sys_getpgid(task: Task, pid: int) -> int:
    """getpgid."""
    return task.vnr(of_pid(task, pid).signal.pgrp)


def sys_getpgrp(task: Task) -> int:
    """getpgrp."""
    return task.vnr(task.signal.pgrp)


def sys_getsid(task: Task, pid: int) -> int:
    """getsid."""
    return task.vnr(of_pid(task, pid).signal.session)


def sys_setsid(task: Task) -> int:
    """setsid."""
    leader = task.group_leader
    pid = leader.pid
    if leader.signal.leader or any(
        other.signal.pgrp == pid for other in task.kernel.tasks.values() if other.group_leader is other
    ):
        raise Errno(errno.EPERM)
    signal = leader.signal
    old = {signal.pgrp, signal.session}
    signal.leader = True
    signal.session = signal.pgrp = pid
    signal.tty = None
    signal.tty_old_pgrp = 0
    if task.pid_ns is not None:
        from guest.pid_namespace import free_pid

        for unused in old:
            free_pid(task.kernel, task.pid_ns, unused)
    return task.vnr(pid)


# ---- limits


RLIMIT_CPU = 0


def _do_prlimit(task: Task, target: Task, resource: int, new: tuple[int, int] | None) -> tuple[int, int]:
    """do_prlimit(): the old limits. Raises Errno(EINVAL), EPERM."""
    if resource >= RLIM_NLIMITS:
        raise Errno(errno.EINVAL)
    limit = target.rlim[resource]
    old = (limit[0], limit[1])
    if new is not None:
        if new[0] > new[1]:
            raise Errno(errno.EINVAL)
        if resource == 7 and new[1] > nr_open(task.kernel):
            raise Errno(errno.EPERM)
        if new[1] > limit[1] and not task.capable(CAP_SYS_RESOURCE):
            raise Errno(errno.EPERM)
        limit[0], limit[1] = new
        if resource == RLIMIT_CPU:
            task.kernel.timers.update(target.signal)
    return old


def sys_prlimit64(task: Task, pid: int, resource: int, new_rlim: int, old_rlim: int) -> int:
    """prlimit64."""
    new = _RLIMIT.unpack(copy_from_user(task, new_rlim, 16)) if new_rlim else None
    target = of_pid(task, pid)
    if target is not task:
        cred, tcred = task.cred, target.cred
        same = {cred.uid} == {tcred.euid, tcred.suid, tcred.uid} and {cred.gid} == {tcred.egid, tcred.sgid, tcred.gid}
        if not same and not task.capable(CAP_SYS_RESOURCE):
            raise Errno(errno.EPERM)
    old = _do_prlimit(task, target, resource & 0xFFFFFFFF, new)
    if old_rlim:
        copy_to_user(task, old_rlim, _RLIMIT.pack(*old))
    return 0


def sys_getrlimit(task: Task, resource: int, rlim: int) -> int:
    """getrlimit."""
    copy_to_user(task, rlim, _RLIMIT.pack(*_do_prlimit(task, task, resource & 0xFFFFFFFF, None)))
    return 0


def sys_setrlimit(task: Task, resource: int, rlim: int) -> int:
    """setrlimit."""
    _do_prlimit(task, task, resource & 0xFFFFFFFF, _RLIMIT.unpack(copy_from_user(task, rlim, 16)))
    return 0


# ---- odds and ends


def sys_personality(task: Task, personality: int) -> int:
    """personality."""
    old = task.personality
    personality &= 0xFFFFFFFF
    if personality != 0xFFFFFFFF:
        task.personality = personality
    return old


def sys_arch_prctl(task: Task, option: int, value: int) -> int:
    """arch_prctl."""
    return task.kernel.arch.arch_prctl(task.kernel, task, s32(option), value)


def sys_set_robust_list(task: Task, head: int, length: int) -> int:
    """set_robust_list."""
    if length != 24:
        raise Errno(errno.EINVAL)
    task.robust_list = head
    return 0


def sys_get_robust_list(task: Task, pid: int, head_ptr: int, len_ptr: int) -> int:
    """get_robust_list."""
    target = of_pid(task, pid)
    put_user(task, len_ptr, 24, 8)
    put_user(task, head_ptr, target.robust_list, 8)
    return 0


CALLS = (
    Call("getpid", sys_getpid, FULL),
    Call("gettid", sys_gettid, FULL),
    Call("getppid", sys_getppid, FULL),
    Call("exit", sys_exit, FULL),
    Call("exit_group", sys_exit_group, FULL),
    Call("set_tid_address", sys_set_tid_address, FULL),
    Call("setpgid", sys_setpgid, FULL),
    Call("getpgid", sys_getpgid, FULL),
    Call("getpgrp", sys_getpgrp, FULL),
    Call("getsid", sys_getsid, FULL),
    Call("setsid", sys_setsid, FULL),
    Call("prlimit64", sys_prlimit64, FULL),
    Call("getrlimit", sys_getrlimit, FULL),
    Call("setrlimit", sys_setrlimit, FULL),
    Call("personality", sys_personality, FULL),
    Call("arch_prctl", sys_arch_prctl, PARTIAL, "no ARCH_MAP_VDSO_64", "x86_64"),
    Call("set_robust_list", sys_set_robust_list, FULL),
    Call("get_robust_list", sys_get_robust_list, FULL),
)
