"""System V message queues (ipc/msg.c).

A queue holds messages in the order they were sent. Who waits is in it too: a receiver gets its message from the sender
(`pipelined_send`), so nobody can snatch it; a sender that is told of room tries again.

    msgsnd -> a receiver waits for it: into its Receiver, wake      msgrcv -> a message fits: out of the queue,
           -> room: into the queue                                          wake the senders that now fit
           -> full: a Sender, sleep                                        -> none: a Receiver, sleep
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.sched import ERESTARTNOHAND, Restart, WaitQueue, sleep_on
from guest.sys_shm import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, S_IRUGO, ipc_ns, s32
from guest.syscalls import FULL, Call
from guest.vfs_flags import s64
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
from mm.uaccess import copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.ipc_shm import IpcNamespace

MSG_STAT, MSG_INFO, MSG_STAT_ANY = 11, 12, 13
MSG_NOERROR, MSG_EXCEPT, MSG_COPY = 0o10000, 0o20000, 0o40000
MESSAGE_COST = 256  # bytes of a message beside its text
MSGMNB, MSGPOOL, MSGSSZ, MSGSEG = 16384, 512000, 16, 0xFFFF
_INT_MAX, _LONG_MAX = (1 << 31) - 1, (1 << 63) - 1
S_IWUGO = 0o222
CAP_SYS_RESOURCE = 24
SEARCH_ANY, SEARCH_EQUAL, SEARCH_NOTEQUAL, SEARCH_LESSEQUAL, SEARCH_NUMBER = 1, 2, 3, 4, 5

# struct ipc64_perm: key uid gid cuid cgid mode seq | stime rtime ctime cbytes qnum qbytes lspid lrpid
MSQID64_DS = Struct("<i5IH2x4x16x6Qii16x")
MSGINFO = Struct("<7iH2x")


class Message:
    """One message (struct msg_msg)."""

    __slots__ = ("text", "type")

    def __init__(self, mtype: int, text: bytes) -> None:
        self.type = mtype
        self.text = text


class Receiver:
    """A task asleep in msgrcv. `result` is its message, or the errno it ends with; None while it waits."""

    def __init__(self, task: Task, msq: MsgQueue, msgtyp: int, mode: int, maxsize: int) -> None:
        self.task, self.msq, self.msgtyp, self.mode, self.maxsize = task, msq, msgtyp, mode, maxsize
        self.result: Message | int | None = None
        msq.receivers.append(self)

    def leave(self) -> None:
        """Wait no more."""
        if self in self.msq.receivers:
            self.msq.receivers.remove(self)


class Sender:
    """A task asleep in msgsnd."""

    def __init__(self, task: Task, msq: MsgQueue, message: Message) -> None:
        self.task, self.msq, self.message = task, msq, message
        msq.senders.append(self)

    def leave(self) -> None:
        """Wait no more."""
        if self in self.msq.senders:
            self.msq.senders.remove(self)


class MsgQueue(KernIpcPerm):
    """One queue (struct msg_queue). Times in seconds since 1970, pids are thread groups."""

    def __init__(self, key: int, mode: int, qbytes: int) -> None:
        super().__init__(key, mode)
        self.stime = self.rtime = self.ctime = 0
        self.cbytes = 0
        self.qbytes = qbytes
        self.lspid = self.lrpid = 0
        self.messages: list[Message] = []
        self.receivers: list[Receiver] = []
        self.senders: list[Sender] = []
        self.removed = False
        self.queue = WaitQueue("a System V message queue")

    def fits(self, size: int) -> bool:
        """msg_fits_inqueue()."""
        return size + self.cbytes <= self.qbytes and 1 + len(self.messages) <= self.qbytes

    def wake_senders(self) -> None:
        """ss_wakeup(): those whose message fits; the others queue up again behind them."""
        for sender in self.senders[:]:
            if self.fits(len(sender.message.text)):
                sender.task.kernel.wake_up(sender.task)
            else:
                self.senders.remove(sender)
                self.senders.append(sender)

    def expunge_all(self, number: int) -> None:
        """Every receiver ends with an errno; EAGAIN: looks again."""
        for receiver in self.receivers[:]:
            if number != errno.EAGAIN:
                receiver.result = number
            receiver.task.kernel.wake_up(receiver.task)


def testmsg(message: Message, msgtyp: int, mode: int) -> bool:
    """Is it a message a receiver wants?"""
    if mode == SEARCH_LESSEQUAL:
        return message.type <= msgtyp
    if mode == SEARCH_EQUAL:
        return message.type == msgtyp
    return mode != SEARCH_NOTEQUAL or message.type != msgtyp


def sys_msgget(task: Task, key: int, msgflg: int) -> int:
    """Find or make a queue. Raises ENOENT, EEXIST, EACCES, ENOSPC."""
    ns, key = ipc_ns(task), s32(key)
    ids = ns.msg_ids
    msq: MsgQueue | None = ids.keys.get(key) if key != IPC_PRIVATE else None
    if msq is None:
        if key != IPC_PRIVATE and not msgflg & IPC_CREAT:
            raise Errno(errno.ENOENT)
        msq = MsgQueue(key, msgflg & S_IRWXUGO, ns.msg_ctlmnb)
        msq.ctime = ns.now()
        ipc_addid(ids, msq, task.cred.euid, task.cred.egid, ns.msg_ctlmni)
        return msq.id
    if msgflg & IPC_CREAT and msgflg & IPC_EXCL:
        raise Errno(errno.EEXIST)
    if not ipcperms(task, msq, msgflg & 0xFFFF):
        raise Errno(errno.EACCES)
    return msq.id


def freeque(kernel: Kernel, ns: IpcNamespace, msq: MsgQueue) -> None:
    """Remove a queue: who waits gets EIDRM."""
    msq.removed = True
    msq.expunge_all(errno.EIDRM)
    for sender in msq.senders[:]:
        sender.task.kernel.wake_up(sender.task)
    ipc_rmid(ns.msg_ids, msq)
    kernel.charge_ipc(-msq.cbytes - len(msq.messages) * MESSAGE_COST)


# -- sending ---------------------------------------------------------------------------------------------------------


def sys_msgsnd(task: Task, msqid: int, msgp: int, msgsz: int, msgflg: int) -> int:
    """Send a message. Raises EFAULT, EINVAL, EACCES, EAGAIN, EIDRM."""
    ns = ipc_ns(task)
    waiter: Sender | None = task.wait_state.pop("waiter", None)
    if waiter is not None:
        msq, message = waiter.msq, waiter.message
        if msq.removed:
            raise Errno(errno.EIDRM)
        waiter.leave()
        if task.signal_pending():
            raise Restart(ERESTARTNOHAND)
    else:
        mtype = s64(get_user(task, msgp, 8))
        msqid = s32(msqid)
        if msgsz > ns.msg_ctlmax or msgsz >> 63 or msqid < 0 or mtype < 1:
            raise Errno(errno.EINVAL)
        message = Message(mtype, copy_from_user(task, msgp + 8, msgsz))
        msq = ipc_obtain_object_check(ns.msg_ids, msqid)
    if not ipcperms(task, msq, S_IWUGO):
        raise Errno(errno.EACCES)
    if not msq.fits(len(message.text)):
        if msgflg & IPC_NOWAIT:
            raise Errno(errno.EAGAIN)
        task.wait_state["waiter"] = waiter = Sender(task, msq, message)
        try:
            sleep_on(task, msq.queue, restart=ERESTARTNOHAND)
        except Restart:
            waiter.leave()
            raise
    if not _pipelined_send(ns, msq, message):
        task.kernel.charge_ipc(len(message.text) + MESSAGE_COST)
        msq.messages.append(message)
        msq.cbytes += len(message.text)
    msq.lspid = task.tgid
    msq.stime = ns.now()
    return 0


def _pipelined_send(ns: IpcNamespace, msq: MsgQueue, message: Message) -> bool:
    """Hand the message to the first receiver that wants it and has room; those without end with E2BIG."""
    for receiver in msq.receivers[:]:
        if not testmsg(message, receiver.msgtyp, receiver.mode) or receiver.result is not None:
            continue
        msq.receivers.remove(receiver)
        receiver.task.kernel.wake_up(receiver.task)
        if receiver.maxsize < len(message.text):
            receiver.result = errno.E2BIG
            continue
        msq.lrpid = receiver.task.pid
        msq.rtime = ns.now()
        receiver.result = message
        return True
    return False


# -- receiving -------------------------------------------------------------------------------------------------------


def _convert_mode(msgtyp: int, msgflg: int) -> tuple[int, int]:
    """What to look for: (type, SEARCH_*)."""
    if msgflg & MSG_COPY:
        return msgtyp, SEARCH_NUMBER
    if msgtyp == 0:
        return 0, SEARCH_ANY
    if msgtyp < 0:
        return min(-msgtyp, _LONG_MAX), SEARCH_LESSEQUAL
    return msgtyp, SEARCH_NOTEQUAL if msgflg & MSG_EXCEPT else SEARCH_EQUAL


def _find_msg(msq: MsgQueue, msgtyp: int, mode: int) -> Message | None:
    """The message to take: for SEARCH_LESSEQUAL the first of the lowest type, else the first that is wanted."""
    if mode == SEARCH_NUMBER:
        return msq.messages[msgtyp] if 0 <= msgtyp < len(msq.messages) else None
    found = [message for message in msq.messages if testmsg(message, msgtyp, mode)]
    if not found:
        return None
    return min(found, key=lambda message: message.type) if mode == SEARCH_LESSEQUAL else found[0]


def _receive(
    task: Task, ns: IpcNamespace, msq: MsgQueue, wanted: tuple[int, int], bufsz: int, msgflg: int, copysz: int
) -> Message:
    """A message of the queue. Raises EACCES, E2BIG, ENOMSG, EINVAL for a copy without room, and sleeps."""
    if not ipcperms(task, msq, S_IRUGO):
        raise Errno(errno.EACCES)
    message = _find_msg(msq, *wanted)
    if message is not None:
        size = len(message.text)
        if bufsz < size and not msgflg & MSG_NOERROR:
            raise Errno(errno.E2BIG)
        if msgflg & MSG_COPY:
            if size > copysz:
                raise Errno(errno.EINVAL)
            return message
        msq.messages.remove(message)
        task.kernel.charge_ipc(-size - MESSAGE_COST)
        msq.rtime = ns.now()
        msq.lrpid = task.tgid
        msq.cbytes -= size
        msq.wake_senders()
        return message
    if msgflg & IPC_NOWAIT:
        raise Errno(errno.ENOMSG)
    waiter = Receiver(task, msq, *wanted, _INT_MAX if msgflg & MSG_NOERROR else bufsz)
    task.wait_state["waiter"] = waiter
    try:
        sleep_on(task, msq.queue, restart=ERESTARTNOHAND)
    except Restart:
        waiter.leave()
        raise


def sys_msgrcv(task: Task, msqid: int, msgp: int, bufsz: int, msgtyp: int, msgflg: int) -> int:
    """Receive a message; its bytes. Raises EINVAL, EFAULT, EACCES, E2BIG, ENOMSG, EIDRM."""
    ns = ipc_ns(task)
    waiter: Receiver | None = task.wait_state.pop("waiter", None)
    copysz = min(bufsz, ns.msg_ctlmax)
    wanted = _convert_mode(s64(msgtyp), msgflg)
    if waiter is not None:
        msq = waiter.msq
        result = waiter.result
        waiter.leave()
        if isinstance(result, int):
            raise Errno(result)
        if result is None and task.signal_pending():
            raise Restart(ERESTARTNOHAND)
        message = result or _receive(task, ns, msq, wanted, bufsz, msgflg, copysz)
    else:
        msqid = s32(msqid)
        if msqid < 0 or bufsz >> 63:
            raise Errno(errno.EINVAL)
        if msgflg & MSG_COPY:
            if msgflg & MSG_EXCEPT or not msgflg & IPC_NOWAIT:
                raise Errno(errno.EINVAL)
            copy_from_user(task, msgp, copysz)  # prepare_copy(): the buffer must be readable
        msq = ipc_obtain_object_check(ns.msg_ids, msqid)
        message = _receive(task, ns, msq, wanted, bufsz, msgflg, copysz)
    put_user(task, msgp, message.type, 8)
    text = message.text[:bufsz]
    copy_to_user(task, msgp + 8, text)
    return len(text)


# -- msgctl ----------------------------------------------------------------------------------------------------------


def _msgctl_info(task: Task, ns: IpcNamespace, cmd: int, buf: int) -> int:
    """IPC_INFO and MSG_INFO; the highest index in use."""
    queues = list(ns.msg_ids.ids.values())
    if cmd == MSG_INFO:
        pool, headers = len(queues), sum(len(msq.messages) for msq in queues)
        total = sum(msq.cbytes for msq in queues)
    else:
        pool, headers, total = MSGPOOL, MSGMNB, MSGMNB
    index = ns.msg_ids.max_idx()
    info = MSGINFO.pack(pool, headers, ns.msg_ctlmax, ns.msg_ctlmnb, ns.msg_ctlmni, MSGSSZ, total, MSGSEG)
    copy_to_user(task, buf, info)
    return index


def _msgctl_stat(task: Task, ns: IpcNamespace, msqid: int, cmd: int, buf: int) -> int:
    """IPC_STAT by identifier; MSG_STAT and MSG_STAT_ANY by index, which return the identifier."""
    obtain = ipc_obtain_object_check if cmd == IPC_STAT else ipc_obtain_object
    msq: MsgQueue = obtain(ns.msg_ids, msqid)
    if cmd != MSG_STAT_ANY and not ipcperms(task, msq, S_IRUGO):
        raise Errno(errno.EACCES)
    image = MSQID64_DS.pack(
        msq.key, msq.uid, msq.gid, msq.cuid, msq.cgid, msq.mode, msq.seq, msq.stime, msq.rtime, msq.ctime,
        msq.cbytes, len(msq.messages), msq.qbytes, task.vnr(msq.lspid), task.vnr(msq.lrpid),
    )  # fmt: skip
    copy_to_user(task, buf, image)
    return 0 if cmd == IPC_STAT else msq.id


def _msgctl_down(task: Task, ns: IpcNamespace, msqid: int, cmd: int, buf: int) -> int:
    """IPC_SET and IPC_RMID: for owner, creator and CAP_SYS_ADMIN."""
    raw = copy_from_user(task, buf, MSQID64_DS.size) if cmd == IPC_SET else b""
    msq: MsgQueue = ipc_obtain_object_check(ns.msg_ids, msqid)
    if task.cred.euid not in (msq.cuid, msq.uid) and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if cmd == IPC_RMID:
        freeque(task.kernel, ns, msq)
        return 0
    fields = MSQID64_DS.unpack(raw)
    qbytes = s32(fields[12])
    if qbytes > ns.msg_ctlmnb and not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EPERM)
    ipc_update_perm(msq, fields[1], fields[2], fields[5])
    msq.qbytes = qbytes & 0xFFFFFFFFFFFFFFFF
    msq.ctime = ns.now()
    msq.expunge_all(errno.EAGAIN)
    msq.wake_senders()
    return 0


def sys_msgctl(task: Task, msqid: int, cmd: int, buf: int) -> int:
    """Inspect, change or remove a queue. Raises EINVAL, EFAULT, EACCES, EPERM."""
    msqid, cmd = s32(msqid), s32(cmd)
    if msqid < 0 or cmd < 0:
        raise Errno(errno.EINVAL)
    ns = ipc_ns(task)
    if cmd in (IPC_INFO, MSG_INFO):
        return _msgctl_info(task, ns, cmd, buf)
    if cmd in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        return _msgctl_stat(task, ns, msqid, cmd, buf)
    if cmd in (IPC_SET, IPC_RMID):
        return _msgctl_down(task, ns, msqid, cmd, buf)
    raise Errno(errno.EINVAL)


CALLS = (
    Call("msgget", sys_msgget, FULL),
    Call("msgsnd", sys_msgsnd, FULL),
    Call("msgrcv", sys_msgrcv, FULL),
    Call("msgctl", sys_msgctl, FULL),
)
