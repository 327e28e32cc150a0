"""The namespaces a task is in (kernel/nsproxy.c), and those of host names (UTS) and System V IPC themselves.

A task whose `nsproxy` is None is in the first namespaces, as nearly every task is. Process ids and clocks are special:
a task stays where it is (`task.pid_ns`, `task.time_ns`), and the nsproxy says where its children will be.

    host names, IPC, networks   here            mounts   namespace.py (in full) and vfs_types.py's Mount
    process ids                 pid_namespace.py       clocks   time_namespace.py
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.cred import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

CLONE_NEWTIME, CLONE_THREAD, CLONE_NEWNS, CLONE_SYSVSEM = 0x80, 0x10000, 0x20000, 0x40000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NEW_NAMESPACES = (
    CLONE_NEWTIME | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC
    | CLONE_NEWUSER
)  # fmt: skip
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

    # `net` is a network namespace's socket.Net; None: the machine's first, made when asked for.

    __slots__ = ("names", "net", "number", "segments")

    def __init__(self, number: int, names: dict[str, Any] | None = None, segments: Any = None) -> None:
        self.number = number
        self.names = names
        self.segments = segments
        self.net: Any = None


class Nsproxy:
    """The namespaces of some tasks (struct nsproxy), by kind; immutable."""

    __slots__ = ("pid_ns", "spaces", "time_ns")

    def __init__(self, spaces: dict[int, Namespace]) -> None:
        self.spaces = spaces
        pid_ns, time_ns = spaces[CLONE_NEWPID], spaces[CLONE_NEWTIME]
        # Where children will be; None: the first namespace.
        self.pid_ns: Any = None if pid_ns.number == KINDS[b"pid"][1] else pid_ns
        self.time_ns: Any = None if time_ns.number == KINDS[b"time"][1] else time_ns

    def replaced(self, changes: dict[int, Namespace]) -> Nsproxy:
        """With other namespaces of some kinds."""
        return Nsproxy(self.spaces | changes)


def first_spaces(kernel: Kernel) -> Nsproxy:
    """Those a machine begins with."""
    if kernel.nsproxy is None:
        spaces = {kind: Namespace(number) for kind, number in KINDS.values()}
        spaces[CLONE_NEWUTS].names = kernel.sysctls
        kernel.nsproxy = Nsproxy(spaces)
    first: Nsproxy = kernel.nsproxy
    return first


def nsproxy_of(task: Task) -> Nsproxy:
    """The task's namespaces."""
    return task.nsproxy if task.nsproxy is not None else first_spaces(task.kernel)


def own_space(task: Task, kind: int) -> Namespace:
    """The namespace the task itself is in."""
    if kind == CLONE_NEWPID:
        return task.pid_ns or first_spaces(task.kernel).spaces[kind]
    if kind == CLONE_NEWTIME:
        return task.time_ns or first_spaces(task.kernel).spaces[kind]
    return nsproxy_of(task).spaces[kind]


def enter(child: Task, namespaces: Nsproxy) -> None:
    """A new task begins in the namespaces for its parent's children."""
    child.pid_ns = namespaces.pid_ns
    child.time_ns = namespaces.time_ns


def enter_mounts(task: Task) -> None:
    """Root and working directory of a task with a new namespace of mounts are in that one's tree."""
    from guest.namespace import MntNamespace, enter_copy

    space = nsproxy_of(task).spaces[CLONE_NEWNS]
    if isinstance(space, MntNamespace):
        enter_copy(task, space)


def check_thread(task: Task, flags: int) -> None:
    """A child elsewhere cannot be a thread, nor share memory across clocks (copy_process()). Raises Errno(EINVAL)."""
    proxy = nsproxy_of(task)
    if flags & CLONE_THREAD and proxy.pid_ns is not task.pid_ns:
        raise Errno(errno.EINVAL)
    if proxy.time_ns is not task.time_ns:
        raise Errno(errno.EINVAL)


def uts_names(task: Task) -> dict[str, Any]:
    """Where hostname and domainname are kept."""
    if task.nsproxy is None:
        return task.kernel.sysctls
    names = task.nsproxy.spaces[CLONE_NEWUTS].names
    return task.kernel.sysctls if names is None else names


def _new(kernel: Kernel, task: Task, kind: int) -> Namespace:
    number = _FIRST_NUMBER + kernel.next_namespace
    if kind == CLONE_NEWPID:
        from guest.pid_namespace import new_pid_namespace

        made: Namespace = new_pid_namespace(number, task, nsproxy_of(task).pid_ns)
    elif kind == CLONE_NEWTIME:
        from guest.time_namespace import TimeNamespace

        made = TimeNamespace(number, nsproxy_of(task).time_ns)
    elif kind == CLONE_NEWNS:
        from guest.namespace import copy_mnt_ns

        made = copy_mnt_ns(task, number)
    else:
        made = _new_plain(kernel, task, kind, number)
    kernel.next_namespace += 1
    return made


def _new_plain(kernel: Kernel, task: Task, kind: int, number: int) -> Namespace:
    space = Namespace(number)
    if kind == CLONE_NEWUTS:
        names = uts_names(task)
        space.names = {key: names[key] for key in ("hostname", "domainname") if key in names}
    elif kind == CLONE_NEWIPC:
        from mm.ipc_shm import IpcNamespace

        space.segments = IpcNamespace(kernel.system, kernel.clock)
    elif kind == CLONE_NEWNET:
        from guest.socket import Net

        space.net = Net(kernel)
        space.net.loopback_up, space.net.space = False, space
    return space


#: In which order they are made, and so numbered.
_ORDER = (CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME)


def create_new_namespaces(task: Task, flags: int) -> Nsproxy | None:
    """Namespaces for a task that asks for new ones with CLONE_NEW*. Raises Errno EINVAL, EPERM or ENOSPC."""
    if flags & CLONE_NEWUSER:
        raise Errno(errno.EINVAL)  # without CONFIG_USER_NS
    if not flags & NEW_NAMESPACES:
        return task.nsproxy
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    kinds = [kind for kind in _ORDER if flags & kind]
    return nsproxy_of(task).replaced({kind: _new(task.kernel, task, kind) for kind in kinds}) if kinds else task.nsproxy


def exit_namespaces(task: Task) -> None:
    """A task ends or moves: what namespaces hold that nobody else is in goes (free_nsproxy(), free_ipc_ns())."""
    proxy, task.nsproxy = task.nsproxy, None
    if proxy is None:
        return
    if proxy.spaces[CLONE_NEWNS].number != KINDS[b"mnt"][1]:
        from guest.namespace import leave

        leave(task, proxy.spaces[CLONE_NEWNS])
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
    """setns(): move to these namespaces.

    Raises:
        Errno: EPERM; EINVAL for a folder shared with another task, or process ids outside its own; EUSERS for another
            clock while there are threads.
    """
    for kind in (CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME):
        if kind in changes:
            _check_install(task, kind, changes[kind])
    moved = nsproxy_of(task).replaced(changes)
    if CLONE_NEWIPC in changes and task.sem_undo is not None:
        from guest.sys_sem import exit_sem

        exit_sem(task)
    if changes.get(CLONE_NEWNS) is not None:
        from guest.namespace import join

        join(task, changes[CLONE_NEWNS])
    exit_namespaces(task)
    task.nsproxy = moved
    if CLONE_NEWTIME in changes:
        from guest.time_namespace import timens_commit

        task.time_ns = moved.time_ns
        timens_commit(task)


def _check_install(task: Task, kind: int, space: Namespace) -> None:
    if kind == CLONE_NEWTIME and not is_single_threaded(task):
        raise Errno(errno.EUSERS)
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if kind == CLONE_NEWPID:
        from guest.pid_namespace import check_install

        check_install(task, space)
    if kind == CLONE_NEWNS:
        if not task.capable(CAP_SYS_CHROOT):
            raise Errno(errno.EPERM)
        if task.fs.users != 1:
            raise Errno(errno.EINVAL)


def is_single_threaded(task: Task) -> bool:
    """current_is_single_threaded(): neither a thread nor a process that shares its memory."""
    if len(task.signal.threads) > 1:
        return False
    return not any(other.mm is task.mm and other is not task for other in task.kernel.tasks.values())
