"""Namespaces: host names (UTS), System V IPC and mounts of their own (kernel/nsproxy.c, utsname.c, ipc/namespace.c).

A task whose `nsproxy` is None is in the first namespaces, as nearly every task is. A mount namespace is a name only:
mounts are made before the machine starts (--mount), so a copy of them stays the same. Process ids, networks and clocks
have one namespace each; to ask for another fails as with a limit of none in /proc/sys/user.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.cred import CAP_SYS_ADMIN
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

CLONE_NEWTIME, CLONE_NEWNS, CLONE_SYSVSEM = 0x80, 0x20000, 0x40000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SINGLE = CLONE_NEWTIME | CLONE_NEWPID | CLONE_NEWNET  # of which there is one namespace
NEW_NAMESPACES = SINGLE | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER
_FIRST_NUMBER = 4026532128  # what proc_alloc_inum() of the oracle has left
#: Names below /proc/PID/ns, and the inode numbers of the first namespaces, as the oracle has them.
KINDS = {
    b"net": (CLONE_NEWNET, 4026531991), b"uts": (CLONE_NEWUTS, 4026531838), b"ipc": (CLONE_NEWIPC, 4026531839),
    b"pid": (CLONE_NEWPID, 4026531836), b"pid_for_children": (CLONE_NEWPID, 4026531836),
    b"mnt": (CLONE_NEWNS, 4026531840), b"time": (CLONE_NEWTIME, 4026531834),
    b"time_for_children": (CLONE_NEWTIME, 4026531834),
}  # fmt: skip


class Namespace:
    """One namespace: its inode number, and what it holds.

    Args:
        names: "hostname" and "domainname" of a UTS namespace.
        segments: objects of an IPC namespace; None: the machine's first, made when asked for.
    """

    __slots__ = ("names", "number", "segments")

    def __init__(self, number: int, names: dict[str, Any] | None = None, segments: Any = None) -> None:
        self.number = number
        self.names = names
        self.segments = segments


class Nsproxy:
    """The namespaces of some tasks (struct nsproxy), by kind; immutable."""

    __slots__ = ("spaces",)

    def __init__(self, spaces: dict[int, Namespace]) -> None:
        self.spaces = spaces

    def replaced(self, changes: dict[int, Namespace]) -> Nsproxy:
        """With other namespaces of some kinds."""
        return Nsproxy(self.spaces | changes)


def nsproxy_of(task: Task) -> Nsproxy:
    """The task's namespaces."""
    if task.nsproxy is not None:
        return task.nsproxy
    kernel = task.kernel
    if kernel.nsproxy is None:
        spaces = {kind: Namespace(number) for kind, number in KINDS.values()}
        spaces[CLONE_NEWUTS].names = kernel.sysctls
        kernel.nsproxy = Nsproxy(spaces)
    first: Nsproxy = kernel.nsproxy
    return first


def uts_names(task: Task) -> dict[str, Any]:
    """Where hostname and domainname are kept."""
    if task.nsproxy is None:
        return task.kernel.sysctls
    names = task.nsproxy.spaces[CLONE_NEWUTS].names
    return task.kernel.sysctls if names is None else names


def _new(kernel: Kernel, task: Task, kind: int) -> Namespace:
    number = kernel.next_namespace
    kernel.next_namespace += 1
    space = Namespace(_FIRST_NUMBER + number)
    if kind == CLONE_NEWUTS:
        names = uts_names(task)
        space.names = {key: names[key] for key in ("hostname", "domainname") if key in names}
    elif kind == CLONE_NEWIPC:
        from mm.ipc_shm import IpcNamespace

        space.segments = IpcNamespace(kernel.system, kernel.clock)
    return space


def create_new_namespaces(task: Task, flags: int) -> Nsproxy | None:
    """Namespaces for a task that asks for new ones with CLONE_NEW*. Raises Errno EINVAL, EPERM or ENOSPC."""
    if flags & CLONE_NEWUSER:
        raise Errno(errno.EINVAL)  # without CONFIG_USER_NS
    if not flags & NEW_NAMESPACES:
        return task.nsproxy
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if flags & SINGLE:
        raise Errno(errno.ENOSPC)
    kinds = [kind for kind in (CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC) if flags & kind]
    return nsproxy_of(task).replaced({kind: _new(task.kernel, task, kind) for kind in kinds}) if kinds else task.nsproxy


def exit_namespaces(task: Task) -> None:
    """A task ends or moves: the objects of an IPC namespace nobody else is in are removed (free_ipc_ns())."""
    proxy, task.nsproxy = task.nsproxy, None
    if proxy is None:
        return
    space = proxy.spaces[CLONE_NEWIPC]
    others = (other.nsproxy for other in task.kernel.tasks.values())
    if space.segments is None or any(o is not None and o.spaces[CLONE_NEWIPC] is space for o in others):
        return
    from mm.ipc_shm import do_shm_rmid

    ns = space.segments
    for segment in list(ns.ids.values()):
        do_shm_rmid(ns, segment)
    for msq in list(ns.msg_ids.ids.values()):
        from guest.sys_msg import freeque

        freeque(task.kernel, ns, msq)
    for sma in list(ns.sem_ids.ids.values()):
        from guest.sys_sem import freeary

        freeary(task.kernel, ns, sma)
    if ns.mq_mnt is not None:
        ns.mq_mnt.mnt_sb.put_namespace()


def install(task: Task, changes: dict[int, Namespace]) -> None:
    """setns(): move to these namespaces. Raises Errno EPERM, or EINVAL for a folder shared with another task."""
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if CLONE_NEWNS in changes and task.fs.users != 1:
        raise Errno(errno.EINVAL)
    moved = nsproxy_of(task).replaced(changes)
    if CLONE_NEWIPC in changes and task.sem_undo is not None:
        from guest.sys_sem import exit_sem

        exit_sem(task)
    exit_namespaces(task)
    task.nsproxy = moved
