"""System V semaphores (ipc/sem.c).

A call changes several semaphores of a set at once or not at all. What can not be done yet waits in the set: simple
operations (one semaphore) at their semaphore, complex ones at the set, in the order they came. Whoever changes a value
tries them again (`do_smart_update`) and performs them in the sleeper's place. Changes with SEM_UNDO are remembered by
the task (`SemUndo`) and taken back when it ends.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from guest.sched import WaitQueue, sleep_on
from guest.sys_shm import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, S_IRUGO, ipc_ns, s32
from guest.sys_timerfd import raw_timespec
from guest.syscalls import FULL, Call
from guest.task import SemUndoList
from mm.errors import Errno
from mm.flags import CAP_SYS_ADMIN
from mm.ipc_util import (
    IPC_CREAT,
    IPC_EXCL,
    IPC_NOWAIT,
    IPC_PRIVATE,
    S_IRWXUGO,
    KernIpcPerm,
    ipc_addid,
    ipc_obtain_object,
    ipc_obtain_object_check,
    ipc_rmid,
    ipc_update_perm,
    ipcperms,
)
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.ipc_shm import IpcNamespace

SEM_UNDO = 0x1000
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO, SEM_STAT_ANY = range(11, 21)
SEMVMX = SEMAEM = 32767
SEMMNS, SEMOPM, SEMUSZ = 1024000000, 500, 20
S_IWUGO = 0o222
SEMBUF = Struct("<Hhh")
SEMINFO = Struct("<10i")
SEMAPHORE_COST = 256  # bytes
WAITS = 1  # what an operation answers that must sleep


class SemBuf(NamedTuple):
    """One operation of a call (struct sembuf)."""

    num: int
    op: int
    flg: int


class Sem:
    """One semaphore (struct sem)."""

    __slots__ = ("otime", "pending_alter", "pending_const", "pid", "val")

    def __init__(self) -> None:
        self.val = 0
        self.pid = 0  # of the process that changed it last
        self.otime = 0
        self.pending_alter: list[SemQueue] = []
        self.pending_const: list[SemQueue] = []


class SemArray(KernIpcPerm):
    """A set (struct sem_array). Times in seconds since 1970."""

    def __init__(self, key: int, mode: int, nsems: int) -> None:
        super().__init__(key, mode)
        self.sems = [Sem() for _ in range(nsems)]
        self.ctime = 0
        self.pending_alter: list[SemQueue] = []
        self.pending_const: list[SemQueue] = []
        self.complex_count = 0
        self.undos: list[SemUndo] = []
        self.queue = WaitQueue("a System V semaphore")

    def otime(self) -> int:
        """get_semotime()."""
        return max(sem.otime for sem in self.sems)


class SemUndo:
    """What a task (or those that share with it) would have to add to the semaphores of a set when it ends."""

    def __init__(self, semid: int, nsems: int) -> None:
        self.semid = semid  # -1: the set is gone
        self.semadj = [0] * nsems


class SemQueue:
    """A call that waits (struct sem_queue). `status`: None while it does, then 0 or -errno."""

    def __init__(self, task: Task, sma: SemArray, sops: list[SemBuf], undo: SemUndo | None) -> None:
        self.task, self.sma, self.sops, self.undo = task, sma, sops, undo
        self.alter = any(sop.op for sop in sops)
        self.blocking = sops[0]
        self.status: int | None = None
        self.home: list[SemQueue] | None = None  # the list it is in

    def enqueue(self) -> None:
        """Wait, simple operations at their semaphore unless a complex one waits."""
        sma, sem = self.sma, self.sma.sems[self.sops[0].num]
        if len(self.sops) == 1:
            alter = sma.pending_alter if sma.complex_count else sem.pending_alter
            self.home = alter if self.alter else sem.pending_const
        else:
            if not sma.complex_count:  # merge_queues()
                for each in sma.sems:
                    for queue in each.pending_alter:
                        queue.home = sma.pending_alter
                    sma.pending_alter += each.pending_alter
                    each.pending_alter = []
            self.home = sma.pending_alter if self.alter else sma.pending_const
            sma.complex_count += 1
        self.home.append(self)

    def unlink(self) -> None:
        """unlink_queue(); with the last complex operation the simple ones go back to their semaphores."""
        if self.home is None:
            return
        self.home.remove(self)
        self.home = None
        if len(self.sops) > 1:
            self.sma.complex_count -= 1

    leave = unlink

    def complete(self, status: int) -> None:
        """wake_up_sem_queue_prepare()."""
        self.status = status
        self.task.kernel.wake_up(self.task)


def unmerge_queues(sma: SemArray) -> None:
    """Without complex operations, those that wait at the set go back to their semaphores."""
    if sma.complex_count:
        return
    for queue in sma.pending_alter:
        queue.home = sma.sems[queue.sops[0].num].pending_alter
        queue.home.append(queue)
    sma.pending_alter = []


def perform_atomic_semop(queue: SemQueue) -> int:
    """All operations or none: 0, WAITS, or a negative errno. (Two of one semaphore see each other's effect.)"""
    sems, undo = queue.sma.sems, queue.undo
    values: dict[int, int] = {}
    adjust: dict[int, int] = {}
    for sop in queue.sops:
        value = values.get(sop.num, sems[sop.num].val)
        result = value + sop.op
        if (not sop.op and value) or result < 0:
            queue.blocking = sop
            return -errno.EAGAIN if sop.flg & IPC_NOWAIT else WAITS
        if result > SEMVMX:
            return -errno.ERANGE
        if sop.flg & SEM_UNDO and undo is not None:
            amount = adjust.get(sop.num, undo.semadj[sop.num]) - sop.op
            if not -SEMAEM - 1 <= amount <= SEMAEM:
                return -errno.ERANGE
            adjust[sop.num] = amount
        values[sop.num] = result
    for num, value in values.items():
        sems[num].val = value
        sems[num].pid = queue.task.tgid
    if undo is not None:
        for num, amount in adjust.items():
            undo.semadj[num] = amount
    return 0


# -- who can go on ---------------------------------------------------------------------------------------------------


def _wake_const_ops(sma: SemArray, pending: list[SemQueue]) -> bool:
    """Those that wait for zero and do not change anything."""
    completed = False
    for queue in pending[:]:
        error = perform_atomic_semop(queue)
        if error > 0:
            continue
        queue.unlink()
        queue.complete(error)
        completed = completed or not error
    return completed


def _do_smart_wakeup_zero(sma: SemArray, sops: list[SemBuf] | None) -> bool:
    """Some semaphores (None: all) may have become zero."""
    completed = got_zero = False
    for num in [sop.num for sop in sops] if sops is not None else range(len(sma.sems)):
        if not sma.sems[num].val:
            got_zero = True
            completed |= _wake_const_ops(sma, sma.sems[num].pending_const)
    if got_zero:
        completed |= _wake_const_ops(sma, sma.pending_const)
    return completed


def _update_queue(sma: SemArray, num: int) -> bool:
    """Try what waits at a semaphore (-1: at the set), from the start again where one of them may help others."""
    completed = False
    again = True
    while again:
        again = False
        pending = sma.pending_alter if num == -1 else sma.sems[num].pending_alter
        for queue in pending[:]:
            if num != -1 and not sma.sems[num].val:
                break
            error = perform_atomic_semop(queue)
            if error > 0:
                continue
            queue.unlink()
            if not error:
                completed = True
                _do_smart_wakeup_zero(sma, queue.sops)
                again = bool(sma.pending_alter) or len(queue.sops) > 1
            queue.complete(error)
            if again:
                break
    return completed


def do_smart_update(ns: IpcNamespace, sma: SemArray, sops: list[SemBuf] | None, otime: bool) -> None:
    """Values changed (by `sops`, None: nobody knows which): perform what has waited for that."""
    otime |= _do_smart_wakeup_zero(sma, sops)
    if sma.pending_alter:
        otime |= _update_queue(sma, -1)
    elif sops is None:
        for num in range(len(sma.sems)):
            otime |= _update_queue(sma, num)
    else:
        for sop in sops:
            if sop.op > 0:
                otime |= _update_queue(sma, sop.num)
    unmerge_queues(sma)
    if otime:
        sma.sems[sops[0].num if sops else 0].otime = ns.now()


# -- semget, semop ---------------------------------------------------------------------------------------------------


def sys_semget(task: Task, key: int, nsems: int, semflg: int) -> int:
    """Find or make a set. Raises EINVAL, ENOENT, EEXIST, EACCES, ENOSPC."""
    ns, key, nsems = ipc_ns(task), s32(key), s32(nsems)
    ids = ns.sem_ids
    if not 0 <= nsems <= ns.sem_ctls[0]:
        raise Errno(errno.EINVAL)
    sma: SemArray | None = ids.keys.get(key) if key != IPC_PRIVATE else None
    if sma is None:
        if key != IPC_PRIVATE and not semflg & IPC_CREAT:
            raise Errno(errno.ENOENT)
        return _newary(task, ns, key, nsems, semflg)
    if semflg & IPC_CREAT and semflg & IPC_EXCL:
        raise Errno(errno.EEXIST)
    if nsems > len(sma.sems):
        raise Errno(errno.EINVAL)
    if not ipcperms(task, sma, semflg & 0xFFFF):
        raise Errno(errno.EACCES)
    return sma.id


def _newary(task: Task, ns: IpcNamespace, key: int, nsems: int, semflg: int) -> int:
    """Make a set; its identifier. Raises EINVAL for an empty one, ENOSPC at a limit."""
    if not nsems:
        raise Errno(errno.EINVAL)
    if ns.used_sems + nsems > ns.sem_ctls[1] or len(ns.sem_ids.ids) >= ns.sem_ctls[3]:
        raise Errno(errno.ENOSPC)
    task.kernel.charge_ipc(nsems * SEMAPHORE_COST)
    sma = SemArray(key, semflg & S_IRWXUGO, nsems)
    sma.ctime = ns.now()
    ipc_addid(ns.sem_ids, sma, task.cred.euid, task.cred.egid, ns.sem_ctls[3])
    ns.used_sems += nsems
    return sma.id


def _find_alloc_undo(task: Task, ns: IpcNamespace, semid: int) -> SemUndo:
    """The task's undo structure for a set; made, with the list of them, when there is none. Raises EINVAL."""
    if task.sem_undo is None:
        task.sem_undo = SemUndoList()
    undos = task.sem_undo.undos
    undo: SemUndo | None = next((undo for undo in undos if undo.semid == semid), None)
    if undo is None:
        sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
        undo = SemUndo(semid, len(sma.sems))
        undos.insert(0, undo)
        sma.undos.append(undo)
    return undo


def do_semtimedop(task: Task, semid: int, tsops: int, nsops: int, timeout: tuple[int | None] | None) -> int:
    """semtimedop() with a time in ns (None within: not a valid one), or None without. Raises Errno."""
    waiting: SemQueue | None = task.wait_state.get("waiter")
    if waiting is not None:
        return _woken(task, waiting)
    ns, semid, nsops = ipc_ns(task), s32(semid), nsops & 0xFFFFFFFF
    if nsops < 1 or semid < 0:
        raise Errno(errno.EINVAL)
    if nsops > ns.sem_ctls[2]:
        raise Errno(errno.E2BIG)
    sops = [SemBuf(*fields) for fields in SEMBUF.iter_unpack(copy_from_user(task, tsops, nsops * SEMBUF.size))]
    deadline = None
    if timeout is not None:
        if timeout[0] is None:
            raise Errno(errno.EINVAL)
        deadline = task.kernel.clock.now + timeout[0]
    undo = _find_alloc_undo(task, ns, semid) if any(sop.flg & SEM_UNDO for sop in sops) else None
    sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
    if max(sop.num for sop in sops) >= len(sma.sems):
        raise Errno(errno.EFBIG)
    queue = SemQueue(task, sma, sops, undo)
    if not ipcperms(task, sma, S_IWUGO if queue.alter else S_IRUGO):
        raise Errno(errno.EACCES)
    error = perform_atomic_semop(queue)
    if error < 0:
        raise Errno(-error)
    if error == 0:
        if queue.alter:
            do_smart_update(ns, sma, sops, True)
        else:
            sma.sems[sops[0].num].otime = ns.now()
        return 0
    queue.enqueue()
    task.wait_state["waiter"] = queue
    task.wait_state["deadline"] = deadline
    return _woken(task, queue)


def _woken(task: Task, queue: SemQueue) -> int:
    """Has it been done meanwhile? Else EINTR for a signal, EAGAIN when the time is over, or sleep (on)."""
    if queue.status is not None:
        if queue.status:
            raise Errno(-queue.status)
        return 0
    deadline: int | None = task.wait_state["deadline"]
    late = deadline is not None and task.kernel.clock.now >= deadline
    if not late and not task.signal_pending():
        sleep_on(task, queue.sma.queue, deadline=deadline)
    queue.unlink()
    unmerge_queues(queue.sma)
    raise Errno(errno.EAGAIN if late else errno.EINTR)


def sys_semop(task: Task, semid: int, tsops: int, nsops: int) -> int:
    """semop(2)."""
    return do_semtimedop(task, semid, tsops, nsops, None)


def sys_semtimedop(task: Task, semid: int, tsops: int, nsops: int, timeout: int) -> int:
    """semtimedop(2)."""
    return do_semtimedop(task, semid, tsops, nsops, (raw_timespec(task, timeout),) if timeout else None)


def exit_sem(task: Task) -> None:
    """The task ends or leaves its set of semaphores: what it did with SEM_UNDO is taken back by its last sharer."""
    undo_list, task.sem_undo = task.sem_undo, None
    if undo_list is None:
        return
    undo_list.count -= 1
    if undo_list.count:
        return
    ns = ipc_ns(task)
    for undo in undo_list.undos:
        try:
            sma: SemArray = ipc_obtain_object_check(ns.sem_ids, undo.semid)
        except Errno:
            continue  # the set is gone, or in another namespace
        if undo not in sma.undos:
            continue
        sma.undos.remove(undo)
        for sem, amount in zip(sma.sems, undo.semadj, strict=True):
            if amount:
                sem.val = min(max(sem.val + amount, 0), SEMVMX)
                sem.pid = task.tgid
        do_smart_update(ns, sma, None, True)


# -- semctl ----------------------------------------------------------------------------------------------------------


def freeary(kernel: Kernel, ns: IpcNamespace, sma: SemArray) -> None:
    """Remove a set: who waits gets EIDRM, nothing is undone."""
    for undo in sma.undos:
        undo.semid = -1
    sma.undos = []
    lists = [sma.pending_const, sma.pending_alter]
    for sem in sma.sems:
        lists += [sem.pending_const, sem.pending_alter]
    for pending in lists:
        for queue in pending[:]:
            queue.unlink()
            queue.complete(-errno.EIDRM)
    ipc_rmid(ns.sem_ids, sma)
    ns.used_sems -= len(sma.sems)
    kernel.charge_ipc(-len(sma.sems) * SEMAPHORE_COST)


def _count_semcnt(sma: SemArray, num: int, zero: bool) -> int:
    """How many wait for this semaphore: to become zero, or to be increased."""
    sem = sma.sems[num]
    count = len(sem.pending_const if zero else sem.pending_alter)
    for queue in sma.pending_alter + (sma.pending_const if zero else []):
        sop = queue.blocking
        count += sop.num == num and (sop.op == 0 if zero else sop.op < 0)
    return count


def _semctl_info(task: Task, ns: IpcNamespace, cmd: int, buf: int) -> int:
    """IPC_INFO and SEM_INFO; the highest index in use."""
    semmsl, semmns, semopm, semmni = ns.sem_ctls
    semusz, semaem = (len(ns.sem_ids.ids), ns.used_sems) if cmd == SEM_INFO else (SEMUSZ, SEMAEM)
    info = SEMINFO.pack(SEMMNS, semmni, semmns, SEMMNS, semmsl, semopm, SEMOPM, semusz, SEMVMX, semaem)
    copy_to_user(task, buf, info)
    return ns.sem_ids.max_idx()


def _semctl_stat(task: Task, ns: IpcNamespace, semid: int, cmd: int, buf: int) -> int:
    """IPC_STAT by identifier; SEM_STAT and SEM_STAT_ANY by index, which return the identifier."""
    obtain = ipc_obtain_object_check if cmd == IPC_STAT else ipc_obtain_object
    sma: SemArray = obtain(ns.sem_ids, semid)
    if cmd != SEM_STAT_ANY and not ipcperms(task, sma, S_IRUGO):
        raise Errno(errno.EACCES)
    perm = (sma.key, sma.uid, sma.gid, sma.cuid, sma.cgid, sma.mode, sma.seq)
    layout: Struct = task.kernel.vfs.abi.semid64_ds
    copy_to_user(task, buf, layout.pack(*perm, sma.otime(), sma.ctime, len(sma.sems)))
    return 0 if cmd == IPC_STAT else sma.id


def _semctl_setval(task: Task, ns: IpcNamespace, semid: int, num: int, value: int) -> int:
    """SETVAL. Raises ERANGE, EINVAL, EACCES."""
    if not 0 <= value <= SEMVMX:
        raise Errno(errno.ERANGE)
    sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
    if not 0 <= num < len(sma.sems):
        raise Errno(errno.EINVAL)
    if not ipcperms(task, sma, S_IWUGO):
        raise Errno(errno.EACCES)
    _set(task, ns, sma, {num: value})
    return 0


def _set(task: Task, ns: IpcNamespace, sma: SemArray, values: dict[int, int]) -> None:
    """Give semaphores new values; nobody undoes anything of them any more."""
    for num, value in values.items():
        sma.sems[num].val = value
        sma.sems[num].pid = task.tgid
        for undo in sma.undos:
            undo.semadj[num] = 0
    sma.ctime = ns.now()
    do_smart_update(ns, sma, None, False)


def _semctl_all(task: Task, ns: IpcNamespace, semid: int, cmd: int, buf: int) -> int:
    """GETALL and SETALL: all values of a set, two bytes each. Raises EINVAL, EACCES, EFAULT, ERANGE."""
    sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
    if not ipcperms(task, sma, S_IWUGO if cmd == SETALL else S_IRUGO):
        raise Errno(errno.EACCES)
    layout = Struct(f"<{len(sma.sems)}H")
    if cmd == GETALL:
        copy_to_user(task, buf, layout.pack(*(sem.val for sem in sma.sems)))
        return 0
    values = layout.unpack(copy_from_user(task, buf, layout.size))
    if max(values) > SEMVMX:
        raise Errno(errno.ERANGE)
    _set(task, ns, sma, dict(enumerate(values)))
    return 0


def _semctl_get(task: Task, ns: IpcNamespace, semid: int, num: int, cmd: int) -> int:
    """GETVAL, GETPID, GETNCNT, GETZCNT. Raises EINVAL, EACCES."""
    sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
    if not ipcperms(task, sma, S_IRUGO):
        raise Errno(errno.EACCES)
    if not 0 <= num < len(sma.sems):
        raise Errno(errno.EINVAL)
    if cmd in (GETNCNT, GETZCNT):
        return _count_semcnt(sma, num, cmd == GETZCNT)
    return sma.sems[num].val if cmd == GETVAL else task.vnr(sma.sems[num].pid)


def _semctl_down(task: Task, ns: IpcNamespace, semid: int, cmd: int, buf: int) -> int:
    """IPC_SET and IPC_RMID: for owner, creator and CAP_SYS_ADMIN."""
    layout: Struct = task.kernel.vfs.abi.semid64_ds
    raw = copy_from_user(task, buf, layout.size) if cmd == IPC_SET else b""
    sma: SemArray = ipc_obtain_object_check(ns.sem_ids, semid)
    if task.cred.euid not in (sma.cuid, sma.uid) and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if cmd == IPC_RMID:
        freeary(task.kernel, ns, sma)
        return 0
    fields: tuple[Any, ...] = layout.unpack(raw)
    ipc_update_perm(sma, fields[1], fields[2], fields[5])
    sma.ctime = ns.now()
    return 0


def sys_semctl(task: Task, semid: int, semnum: int, cmd: int, arg: int) -> int:
    """Inspect, change or remove a set. Raises EINVAL, EFAULT, EACCES, EPERM, ERANGE."""
    semid, semnum, cmd = s32(semid), s32(semnum), s32(cmd)
    if semid < 0:
        raise Errno(errno.EINVAL)
    ns = ipc_ns(task)
    if cmd in (IPC_INFO, SEM_INFO):
        return _semctl_info(task, ns, cmd, arg)
    if cmd in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        return _semctl_stat(task, ns, semid, cmd, arg)
    if cmd in (GETALL, SETALL):
        return _semctl_all(task, ns, semid, cmd, arg)
    if cmd in (GETVAL, GETPID, GETNCNT, GETZCNT):
        return _semctl_get(task, ns, semid, semnum, cmd)
    if cmd == SETVAL:
        return _semctl_setval(task, ns, semid, semnum, s32(arg))
    if cmd in (IPC_SET, IPC_RMID):
        return _semctl_down(task, ns, semid, cmd, arg)
    raise Errno(errno.EINVAL)


CALLS = (
    Call("semget", sys_semget, FULL),
    Call("semop", sys_semop, FULL),
    Call("semtimedop", sys_semtimedop, FULL),
    Call("semctl", sys_semctl, FULL),
)
