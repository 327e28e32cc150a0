"""Namespaces of process ids (kernel/pid_namespace.c, the struct pid of kernel/pid.c).

Within the kernel a process id is its number in the first namespace: the keys of `kernel.tasks`, a group's, a session's.
Every namespace below the first gives the same ids numbers of its own, and what programs are told is translated:

    Task.pid 31 --numbers--> 1 in the namespace made by it --> nothing in one it is not in
    Task.vnr(pid)   the number a task sees          Task.vpid(nr)   what such a number stands for

A task is in its `pid_ns` (None: the first, as nearly every task is) and has a number in each of that one's ancestors.
The first process of a namespace is its init, the parent of its orphans; when it ends, so does everybody in it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.cred import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from guest.nsproxy import Namespace
from guest.sched import TASK_INTERRUPTIBLE, TASK_ZOMBIE
from guest.siginfo import SI_KERNEL, SIG_IGN, SIGCHLD, SIGKILL, kill_info
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

MAX_PID_NS_LEVEL = 32
RESERVED_PIDS = 300
#: LINUX_REBOOT_CMD_RESTART, RESTART2: SIGHUP; HALT, POWER_OFF: SIGINT.
_REBOOTS = {0x01234567: 1, 0xA1B2C3D4: 1, 0xCDEF0123: 2, 0x4321FEDC: 2}


class PidNamespace(Namespace):
    """One namespace of process ids below the first."""

    __slots__ = ("child_reaper", "closed", "exit_code", "level", "next_pid", "numbers", "parent", "pids", "reboot")

    def __init__(self, number: int, parent: PidNamespace | None) -> None:
        super().__init__(number)
        self.parent = parent  # None: the first namespace
        self.level: int = parent.level + 1 if parent is not None else 1
        self.numbers: dict[int, int] = {}  # id in the first namespace -> number here
        self.pids: dict[int, int] = {}  # the inverse
        self.next_pid = 1
        self.child_reaper: Task | None = None  # its init
        self.closed = False  # PIDNS_ADDING is off: its init has ended
        self.exit_code: int | None = None  # of an init that waits until nobody else is left
        self.reboot = 0  # the signal its init shows to have died of, after reboot()

    def ends_with(self, task: Task) -> bool:
        """Whether `task` is its init and waits until nobody else is left."""
        return self.exit_code is not None and self.child_reaper is task


def chain(ns: PidNamespace | None) -> list[PidNamespace]:
    """The namespace and its ancestors but the first, innermost first."""
    found = []
    while ns is not None:
        found.append(ns)
        ns = ns.parent
    return found


def pid_nr_ns(ns: PidNamespace | None, pid: int) -> int:
    """The number of an id in a namespace; 0 where it has none."""
    return pid if ns is None else ns.numbers.get(pid, 0)


def level_of(task: Task) -> int:
    """How deep its namespace lies; 0 the first."""
    return 0 if task.pid_ns is None else task.pid_ns.level


def is_within(ns: PidNamespace | None, ancestor: PidNamespace | None) -> bool:
    """Whether `ns` is `ancestor` or lies below it."""
    return ancestor is None or ancestor in chain(ns)


def new_pid_namespace(number: int, task: Task, parent: PidNamespace | None) -> PidNamespace:
    """create_pid_namespace() for a task's children. Raises Errno EINVAL where another was chosen, ENOSPC too deep."""
    if task.pid_ns is not parent:
        raise Errno(errno.EINVAL)
    if level_of(task) >= MAX_PID_NS_LEVEL:
        raise Errno(errno.ENOSPC)
    return PidNamespace(number, parent)


# numbers


def alloc_pid(task: Task, ns: PidNamespace | None, set_tid: list[int]) -> int:
    """An id for a child in `ns`, with a number on every level; `set_tid` chooses some, the innermost first.

    Raises:
        Errno: EINVAL for too many or impossible numbers, EPERM, EEXIST, EAGAIN (none free), ENOMEM (init has ended).
    """
    kernel = task.kernel
    spaces: list[PidNamespace | None] = [*chain(ns), None]
    if len(set_tid) > len(spaces):
        raise Errno(errno.EINVAL)
    numbers: list[int] = []
    for index, space in enumerate(spaces):
        if index < len(set_tid):
            numbers.append(_chosen(task, space, set_tid[index]))
        elif space is None:
            numbers.append(kernel.alloc_pid())
        else:
            numbers.append(_next(kernel, space))
    if ns is not None and ns.closed:
        raise Errno(errno.ENOMEM)
    pid = numbers[-1]
    for space, nr in zip(spaces[:-1], numbers, strict=False):
        if space is not None:
            space.numbers[pid] = nr
            space.pids[nr] = pid
    return pid


def _chosen(task: Task, ns: PidNamespace | None, tid: int) -> int:
    kernel = task.kernel
    if not 1 <= tid < kernel.pid_max or (tid != 1 and ns is not None and ns.child_reaper is None):
        raise Errno(errno.EINVAL)
    if not task.capable(CAP_CHECKPOINT_RESTORE) and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if tid in (kernel.tasks if ns is None else ns.pids) or (ns is None and kernel.pid_in_use(tid)):
        raise Errno(errno.EEXIST)
    return tid


def _next(kernel: Kernel, ns: PidNamespace) -> int:
    """The next free number, cyclic (idr_alloc_cyclic()). Raises Errno(EAGAIN)."""
    first = RESERVED_PIDS if ns.next_pid > RESERVED_PIDS else 1
    for _ in range(kernel.pid_max):
        nr = ns.next_pid if first <= ns.next_pid < kernel.pid_max else first
        ns.next_pid = nr + 1
        if nr not in ns.pids:
            return nr
    raise Errno(errno.EAGAIN)


def free_pid(kernel: Kernel, ns: PidNamespace | None, pid: int) -> None:
    """An id that no task, group or session goes by any more loses its numbers."""
    if ns is None or pid not in ns.numbers or kernel.pid_in_use(pid):
        return
    for space in chain(ns):
        space.pids.pop(space.numbers.pop(pid), None)
        if not space.numbers and not space.closed and space.child_reaper is None:
            space.next_pid = 1  # its first process was not to be
        if space.exit_code is not None:
            _last_one_left(space)


# the init of a namespace


def becomes_init(child: Task) -> None:
    """The first process of a namespace: no signal it has no handler for can end it from within."""
    from guest.task import SIGNAL_UNKILLABLE

    ns = child.pid_ns
    if ns is not None and ns.numbers[child.pid] == 1:
        ns.child_reaper = child
        child.signal.flags |= SIGNAL_UNKILLABLE


def _own_numbers(init: Task) -> int:
    """init_pids: the ids of the thread that ends last, and of the leader if that is another."""
    return 1 if init.group_leader is init else 2


def init_exits(task: Task, code: int) -> bool:
    """zap_pid_ns_processes(), where `task` is the init of its namespace and the last of its threads.

    Returns:
        True: others are left. They are being killed, and the rest of init's end follows when the last of them is gone.
    """
    from guest.exit import release_task
    from guest.signal import send_signal

    ns, kernel = task.pid_ns, task.kernel
    if ns is None or ns.child_reaper is not task:
        return False
    for thread in task.signal.threads:
        if thread is not task and not thread.exit_state:
            ns.child_reaper = thread
            return False
    ns.closed = True
    task.sighand.action[SIGCHLD].handler = SIG_IGN
    for nr, pid in sorted(ns.pids.items()):
        other = kernel.tasks.get(pid)
        if nr > 1 and other is not None and other.signal is not task.signal and not other.exit_state:
            send_signal(kill_info(SIGKILL, SI_KERNEL, 0, 0), other, True)
    for child in task.children[:]:
        if child.exit_state == TASK_ZOMBIE and not child.ptrace and len(child.signal.threads) < 2:
            release_task(child)
    if len(ns.numbers) <= _own_numbers(task):
        _show_reboot(ns, task)
        return False
    ns.exit_code = code
    task.state = TASK_INTERRUPTIBLE
    return True


def _show_reboot(ns: PidNamespace, init: Task) -> None:
    from guest.task import SIGNAL_GROUP_EXIT

    if ns.reboot:
        init.signal.group_exit_code = ns.reboot
        init.signal.flags |= SIGNAL_GROUP_EXIT


def _last_one_left(ns: PidNamespace) -> None:
    """Whoever goes last lets init end."""
    init, code = ns.child_reaper, ns.exit_code
    if init is None or code is None or len(ns.numbers) > _own_numbers(init):
        return
    from guest.exit import finish_exit

    ns.exit_code = None
    _show_reboot(ns, init)
    finish_exit(init, code, True)


def reboot_pid_ns(task: Task, cmd: int) -> None:
    """reboot() within a namespace: its init is killed, and seems to have died of what was asked for. Raises EINVAL."""
    from guest.exit import do_exit
    from guest.signal import send_signal

    ns = task.pid_ns
    if ns is None or cmd not in _REBOOTS:
        raise Errno(errno.EINVAL)
    ns.reboot = _REBOOTS[cmd]
    if ns.child_reaper is not None:
        send_signal(kill_info(SIGKILL, SI_KERNEL, 0, 0), ns.child_reaper, True)
    do_exit(task, 0)


# setns and the files of nsfs


def check_install(task: Task, ns: Namespace) -> None:
    """pidns_install(): only to the task's own namespace or one below it, and only for its children."""
    target = ns if isinstance(ns, PidNamespace) else None
    if not is_within(target, task.pid_ns):
        raise Errno(errno.EINVAL)


def parent_of(task: Task, ns: Namespace) -> PidNamespace | None:
    """pidns_get_parent(): the namespace above (None: the first). Raises Errno(EPERM) where the task cannot see it."""
    if not isinstance(ns, PidNamespace) or not is_within(ns.parent, task.pid_ns):
        raise Errno(errno.EPERM)
    return ns.parent
