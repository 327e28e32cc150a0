"""The file system of POSIX message queues (ipc/mqueue.c): one a namespace, in which a queue is a file.

It is a tmpfs whose files hold messages. mq_open() looks names up in its root; mounted, its files can be listed, read
(how full, who is to be notified), polled and removed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.sched import WaitQueue
from guest.siginfo import queue_info
from guest.signal import send_signal
from guest.tmpfs import TmpfsInode, TmpfsSuper
from guest.vfs_flags import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, S_IFDIR, S_IFMT, S_IFREG
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.socket_netlink import NetlinkSock
    from guest.task import Task
    from guest.vfs_types import Dentry, Inode, Mount, Path
    from mm.ipc_shm import IpcNamespace

MQUEUE_MAGIC = 0x19800202
FILENT_SIZE = 80  # st_size of a queue
HARD_MSGMAX, HARD_MSGSIZEMAX = 65536, 16 << 20
MQ_PRIO_MAX = 32768
MSG_MSG_SIZE = TREE_NODE_SIZE = 48  # sizeof of what a message and a priority cost beside their bytes
RLIMIT_MSGQUEUE = 12
CAP_SYS_RESOURCE = 24
SI_MESGQ = -3
MESSAGE_COST = 256  # bytes of a message on the host, beside its text
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = 0, 1, 2
NOTIFY_WOKENUP, NOTIFY_REMOVED = 1, 2  # last byte of a cookie
_ULONG_MAX = (1 << 64) - 1


class Waiter:
    """A task asleep in mq_timedsend (with its message) or mq_timedreceive (which is given one)."""

    def __init__(self, task: Task, place: list[Waiter], message: tuple[int, bytes] | None) -> None:
        self.task, self.place, self.message = task, place, message
        self.ready = False
        place.append(self)

    def leave(self) -> None:
        """Wait no more."""
        if self in self.place:
            self.place.remove(self)

    def prio(self) -> int:
        """task->prio: the lower, the more urgent."""
        task = self.task
        return 99 - task.rt_priority if task.rt_priority else 120 + task.nice


def first_waiter(waiters: list[Waiter]) -> Waiter | None:
    """wq_get_first_waiter(): the most urgent, of equals the one that has waited longest."""
    return min(waiters, key=Waiter.prio, default=None)


_MQUEUE_DEV = 11  # of the first IPC namespace


class MqueueSuper(TmpfsSuper):
    """The queues of an IPC namespace; `ns` is None once that is gone."""

    def __init__(self, kernel: Kernel, s_dev: int, ns: IpcNamespace) -> None:
        self.ns: IpcNamespace | None = ns
        super().__init__(kernel, s_dev, 0o1777, "mqueue")
        self.s_magic = MQUEUE_MAGIC
        self.max_inodes = 1 << 62

    def new_root(self, mode: int) -> Inode:
        return MqueueInode(self, S_IFDIR | mode)

    def statfs(self) -> tuple[int, int, int, int, int, int]:
        return self.kernel.system.arch.page_size, 0, 0, 0, 0, 0  # simple_statfs()

    def put_namespace(self) -> None:
        """The namespace is gone: queues nobody has open go with it."""
        self.ns = None
        if self.root is not None:
            for entry in list(self.root.d_children.values()):
                self.root.d_inode.unlink(self.root, entry)


class MqueueInode(TmpfsInode):
    """The root folder, or a queue (struct mqueue_inode_info)."""

    i_sb: MqueueSuper

    def make_mapping(self) -> None:
        """A queue has no pages."""
        self.messages: list[tuple[int, bytes]] = []  # (priority, text): highest first, of equals the oldest
        self.maxmsg = self.msgsize = 0
        self.user: int | None = None  # whose RLIMIT_MSGQUEUE it counts for
        self.charge = 0  # bytes of it
        self.senders: list[Waiter] = []
        self.receivers: list[Waiter] = []
        self.wait_q = WaitQueue("a message queue")
        self.notify_owner: Task | None = None  # leader of the process that asked
        self.notify: tuple[int, int, int] = (0, 0, 0)  # sigev_notify, signal, value
        self.notify_exec_id = 0
        self.notify_cookie = b""  # SIGEV_THREAD: what the C library finds its thread by,
        self.notify_sock: NetlinkSock | None = None  # and where it waits for it

    @property
    def i_size(self) -> int:
        return self.dir_size if self.i_mode & S_IFMT == S_IFDIR else FILENT_SIZE

    @property
    def i_blocks(self) -> int:
        return 0

    def create(self, parent: Dentry, name: bytes, mode: int, task: Task, rdev: int = 0) -> Dentry:
        if mode & S_IFMT != S_IFREG:
            raise Errno(errno.EPERM)  # there is no ->mknod
        return self.create_attr(parent, name, mode, task, None)

    def create_attr(self, parent: Dentry, name: bytes, mode: int, task: Task, attr: tuple[int, int] | None) -> Dentry:
        """mqueue_create_attr(): a queue for `attr` (messages, bytes of one). Raises EACCES, ENOSPC, EINVAL, EMFILE."""
        ns = self.i_sb.ns
        if ns is None:
            raise Errno(errno.EACCES)
        if ns.mq_queues_count >= ns.mq_queues_max & 0xFFFFFFFF and not task.capable(CAP_SYS_RESOURCE):
            raise Errno(errno.ENOSPC)
        maxmsg, msgsize = attr or (
            min(ns.mq_msg_max, ns.mq_msg_default),
            min(ns.mq_msgsize_max, ns.mq_msgsize_default),
        )
        charge = _charge(task, ns, maxmsg, msgsize)
        inode = MqueueInode(self.i_sb, mode, task.cred.fsuid, task.cred.fsgid)
        inode.maxmsg, inode.msgsize = maxmsg, msgsize
        inode.user, inode.charge = task.cred.uid, charge
        ns.mq_queues_count += 1
        entry = self.add(parent, name, inode)
        self.i_atime = self.i_ctime
        return entry

    def mkdir(self, parent: Dentry, name: bytes, mode: int, task: Task) -> Dentry:
        raise Errno(errno.EPERM)

    def symlink(self, parent: Dentry, name: bytes, target: bytes, task: Task) -> Dentry:
        raise Errno(errno.EPERM)

    def link(self, parent: Dentry, name: bytes, old: Dentry) -> Dentry:
        raise Errno(errno.EPERM)

    def rename(self, old: Dentry, new_parent: Dentry, new_name: bytes, target: Dentry | None, exchange: bool) -> None:
        raise Errno(errno.EPERM)

    def tmpfile(self, mode: int, task: Task) -> Inode:
        raise Errno(errno.EOPNOTSUPP)

    def truncate(self, size: int) -> None:
        """Of no effect on the messages."""

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        if self.i_mode & S_IFMT == S_IFREG:
            return MqueueFile(path, self, flags)
        return super().open(path, flags, task)

    def evict(self) -> None:
        self.i_sb.live_inodes -= 1
        while self.i_mode & S_IFMT == S_IFREG and self.messages:
            self.take()
        if self.user is not None:
            bytes_of = self.i_sb.kernel.mq_bytes
            bytes_of[self.user] -= self.charge
            self.user = None
            if self.i_sb.ns is not None:
                self.i_sb.ns.mq_queues_count -= 1

    # messages and notification

    def insert(self, message: tuple[int, bytes]) -> None:
        """msg_insert(): behind those of the same or a higher priority. Raises ENOMEM."""
        self.i_sb.kernel.charge_ipc(len(message[1]) + MESSAGE_COST)
        at = len(self.messages)
        while at and self.messages[at - 1][0] < message[0]:
            at -= 1
        self.messages.insert(at, message)

    def take(self) -> tuple[int, bytes]:
        """msg_get(): the first message."""
        message = self.messages.pop(0)
        self.i_sb.kernel.charge_ipc(-len(message[1]) - MESSAGE_COST)
        return message

    def do_notify(self, sender: Task) -> None:
        """__do_notify(): a message came to the queue; if it was empty, tell whoever asked, once."""
        owner = self.notify_owner
        if owner is not None and len(self.messages) == 1:
            kind, signo, value = self.notify
            if kind == SIGEV_SIGNAL and signo and not owner.exit_state and owner.self_exec_id == self.notify_exec_id:
                send_signal(queue_info(signo, SI_MESGQ, owner.vnr(sender.tgid), sender.cred.uid, value), owner, True)
            if kind == SIGEV_THREAD:
                self.send_cookie(NOTIFY_WOKENUP)
            self.notify_owner = None
        self.wait_q.wake_all(POLLIN)

    def remove_notification(self) -> None:
        """Nobody wants to be told any more."""
        if self.notify_owner is not None and self.notify[0] == SIGEV_THREAD:
            self.send_cookie(NOTIFY_REMOVED)
        self.notify_owner = None

    def send_cookie(self, code: int) -> None:
        """set_cookie() and netlink_sendskb(): the cookie's last byte says why."""
        if self.notify_sock is not None and not self.notify_sock.dead:
            self.notify_sock.deliver(self.notify_cookie[:-1] + bytes((code,)), 0)
        self.notify_sock = None

    def times(self, modified: bool) -> None:
        """Accessed and changed now; modified too?"""
        self.i_atime = self.i_ctime = self.i_sb.kernel.vfs.now()
        if modified:
            self.i_mtime = self.i_ctime


def _charge(task: Task, ns: IpcNamespace, maxmsg: int, msgsize: int) -> int:
    """What a queue counts for its user, in bytes, charged. Raises EINVAL, EOVERFLOW, EMFILE above RLIMIT_MSGQUEUE."""
    limits = (ns.mq_msg_max, ns.mq_msgsize_max)
    if maxmsg <= 0 or msgsize <= 0:
        raise Errno(errno.EINVAL)
    if task.capable(CAP_SYS_RESOURCE):
        limits = (HARD_MSGMAX, HARD_MSGSIZEMAX)
    if maxmsg > limits[0] or msgsize > limits[1]:
        raise Errno(errno.EINVAL)
    size = maxmsg * msgsize + maxmsg * MSG_MSG_SIZE + min(maxmsg, MQ_PRIO_MAX) * TREE_NODE_SIZE
    if size > _ULONG_MAX:
        raise Errno(errno.EOVERFLOW)
    bytes_of, user = task.kernel.mq_bytes, task.cred.uid
    used: int = bytes_of.get(user, 0)
    if used + size > task.rlimit(RLIMIT_MSGQUEUE):
        raise Errno(errno.EMFILE)
    bytes_of[user] = used + size
    return size


class MqueueFile(OpenFile):
    """mqueue_file_operations: what is read tells of the queue, its messages go by system calls of their own."""

    f_inode: MqueueInode

    def read(self, task: Task, pos: int, count: int) -> bytes:
        inode = self.f_inode
        owner = inode.notify_owner
        kind, signo, _ = inode.notify if owner is not None else (0, 0, 0)
        notified = task.vnr(owner.tgid) if owner is not None else 0
        text = (
            f"QSIZE:{sum(len(text) for _, text in inode.messages):<10} NOTIFY:{kind:<5} "
            f"SIGNO:{signo if kind == SIGEV_SIGNAL else 0:<5} NOTIFY_PID:{notified:<6}\n"
        ).encode()[: FILENT_SIZE - 1]
        found = text[pos : pos + count]
        if found:
            inode.times(False)
        return found

    def flush(self, task: Task | None) -> None:
        owner = self.f_inode.notify_owner
        if task is not None and owner is not None and owner.tgid == task.tgid:
            self.f_inode.remove_notification()

    def poll(self, task: Task) -> int:
        held = len(self.f_inode.messages)
        mask = POLLIN | POLLRDNORM if held else 0
        return mask | (POLLOUT | POLLWRNORM if held < self.f_inode.maxmsg else 0)

    def poll_queues(self, task: Task) -> tuple[Any, ...]:
        return (self.f_inode.wait_q,)


def mq_mount(task: Task) -> Mount:
    """The queues of the task's namespace (mq_create_mount()), made when first asked for."""
    from guest.sys_shm import ipc_ns

    ns = ipc_ns(task)
    mount: Mount | None = ns.mq_mnt
    if mount is None:
        vfs = task.kernel.vfs
        sb = MqueueSuper(task.kernel, _MQUEUE_DEV if _MQUEUE_DEV not in vfs.internal else vfs.alloc_dev(), ns)
        mount = ns.mq_mnt = vfs.internal_mount(sb)
    return mount
