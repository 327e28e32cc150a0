"""POSIX message queues (ipc/mqueue.c): the calls; the queues are files, see mqueue.py.

A message goes straight to a receiver that waits, and room straight to the sender that waits: nobody can come between.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.mqueue import (
    MQ_PRIO_MAX,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    MqueueFile,
    MqueueInode,
    Waiter,
    first_waiter,
    mq_mount,
)
from guest.namei import inode_permission, lookup_one, may_create, may_delete, vfs_open
from guest.sched import Restart, sleep_on
from guest.siginfo import NSIG
from guest.sys_file import getname
from guest.sys_time import get_timespec64
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    FMODE_READ,
    FMODE_WRITE,
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    O_ACCMODE,
    O_CREAT,
    O_EXCL,
    O_NONBLOCK,
    POLLOUT,
    S_IALLUGO,
    S_IFREG,
    s32,
)
from guest.vfs_types import Path
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.socket_netlink import NetlinkSock
    from guest.task import Task
    from guest.vfs_types import Dentry

MQ_ATTR = Struct("<4q32x")  # mq_flags, mq_maxmsg, mq_msgsize, mq_curmsgs
SIGEVENT = Struct("<Qii48x")  # sigev_value, sigev_signo, sigev_notify
SIGEV_THREAD = 2
NOTIFY_COOKIE_LEN = 32
_ACCESS = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE)


def _lookup(task: Task, root: Dentry, name: bytes) -> Dentry | None:
    """lookup_one_len(). Raises EACCES for what is not a plain name, ENAMETOOLONG."""
    if name in (b"", b".", b"..") or b"/" in name:
        raise Errno(errno.EACCES)
    inode_permission(task, root.d_inode, MAY_EXEC)
    return lookup_one(root, name)


def _name(task: Task, address: int) -> bytes:
    """getname(). Raises EFAULT, ENAMETOOLONG, ENOENT for an empty one."""
    name = getname(task, address)
    if not name:
        raise Errno(errno.ENOENT)
    return name


def sys_mq_open(task: Task, u_name: int, oflag: int, mode: int, u_attr: int) -> int:
    """mq_open(2): a descriptor of a queue, closed on exec."""
    attr = MQ_ATTR.unpack(copy_from_user(task, u_attr, MQ_ATTR.size))[1:3] if u_attr else None
    name = _name(task, u_name)
    oflag = task.kernel.vfs.abi.flags_in(oflag & 0xFFFFFFFF)
    fd: int = task.files.unused(task)
    mount = mq_mount(task)
    root = mount.mnt_root
    folder: MqueueInode = root.d_inode  # type: ignore[assignment] # the root of a MqueueSuper
    entry = _lookup(task, root, name)
    if entry is None:
        if not oflag & O_CREAT:
            raise Errno(errno.ENOENT)
        may_create(task, root)
        kept = S_IFREG | mode & S_IALLUGO & ~task.fs.umask
        entry = folder.create_attr(root, name, kept, task, attr)
    else:
        if oflag & O_CREAT and oflag & O_EXCL:
            raise Errno(errno.EEXIST)
        if oflag & O_ACCMODE == O_ACCMODE:
            raise Errno(errno.EINVAL)
        inode_permission(task, entry.d_inode, _ACCESS[oflag & O_ACCMODE])
    file = vfs_open(task, Path(mount, entry), oflag)
    task.files.install(fd, file, True)
    return fd


def sys_mq_unlink(task: Task, u_name: int) -> int:
    """mq_unlink(2). Raises ENOENT, EACCES, EPERM."""
    name = _name(task, u_name)
    root = mq_mount(task).mnt_root
    entry = _lookup(task, root, name)
    if entry is None:
        raise Errno(errno.ENOENT)
    may_delete(task, root, entry, False)
    root.d_inode.unlink(root, entry)
    return 0


def _queue(task: Task, mqdes: int) -> MqueueFile:
    """The open queue. Raises EBADF."""
    file = task.files.get(s32(mqdes))
    if not isinstance(file, MqueueFile):
        raise Errno(errno.EBADF)
    return file


def _sleep(task: Task, waiter: Waiter, inode: MqueueInode, expires: int | None) -> None:
    """wq_sleep(). Raises ETIMEDOUT, Restart, Block."""
    deadline = None
    if expires is not None:
        clock = task.kernel.clock
        deadline = max(expires - clock.offset, 0)
        if clock.now >= deadline and not task.signal_pending():
            waiter.leave()
            raise Errno(errno.ETIMEDOUT)
    task.wait_state["waiter"] = waiter
    try:
        sleep_on(task, inode.wait_q, deadline=deadline)
    except Restart:
        waiter.leave()
        raise


def sys_mq_timedsend(task: Task, mqdes: int, u_msg: int, msg_len: int, msg_prio: int, u_timeout: int) -> int:
    """mq_timedsend(2). Raises EINVAL, EBADF, EMSGSIZE, EFAULT, EAGAIN, ETIMEDOUT."""
    waiter: Waiter | None = task.wait_state.get("waiter")
    if waiter is not None and waiter.ready:
        return 0
    expires = get_timespec64(task, u_timeout) if u_timeout else None
    msg_prio &= 0xFFFFFFFF
    if msg_prio >= MQ_PRIO_MAX:
        raise Errno(errno.EINVAL)
    file = _queue(task, mqdes)
    inode = file.f_inode
    if waiter is not None:
        _sleep(task, waiter, inode, expires)
    if not file.f_mode & FMODE_WRITE:
        raise Errno(errno.EBADF)
    if msg_len > inode.msgsize:
        raise Errno(errno.EMSGSIZE)
    message = (msg_prio, copy_from_user(task, u_msg, msg_len))
    if len(inode.messages) == inode.maxmsg:
        if file.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        _sleep(task, Waiter(task, inode.senders, message), inode, expires)
    receiver = first_waiter(inode.receivers)
    if receiver is not None:
        receiver.message = message
        _ready(receiver)
    else:
        inode.insert(message)
        inode.do_notify(task)
    inode.times(True)
    return 0


def _ready(waiter: Waiter) -> None:
    """__pipelined_op(): what it waited for has been done for it."""
    waiter.leave()
    waiter.ready = True
    waiter.task.kernel.wake_up(waiter.task)


def sys_mq_timedreceive(task: Task, mqdes: int, u_msg: int, msg_len: int, u_prio: int, u_timeout: int) -> int:
    """mq_timedreceive(2): bytes of the message. Raises EINVAL, EBADF, EMSGSIZE, EFAULT, EAGAIN, ETIMEDOUT."""
    waiter: Waiter | None = task.wait_state.get("waiter")
    if waiter is not None and waiter.ready and waiter.message is not None:
        return _deliver(task, waiter.message, u_msg, u_prio)
    expires = get_timespec64(task, u_timeout) if u_timeout else None
    file = _queue(task, mqdes)
    inode = file.f_inode
    if waiter is not None:
        _sleep(task, waiter, inode, expires)
    if not file.f_mode & FMODE_READ:
        raise Errno(errno.EBADF)
    if msg_len < inode.msgsize:
        raise Errno(errno.EMSGSIZE)
    if not inode.messages:
        if file.f_flags & O_NONBLOCK:
            raise Errno(errno.EAGAIN)
        _sleep(task, Waiter(task, inode.receivers, None), inode, expires)
    message = inode.take()
    inode.times(True)
    sender = first_waiter(inode.senders)
    if sender is None:
        inode.wait_q.wake_all(POLLOUT)
    elif sender.message is not None:
        try:
            inode.insert(sender.message)
        except Errno:
            return _deliver(task, message, u_msg, u_prio)  # no memory: the sender waits on
        _ready(sender)
    return _deliver(task, message, u_msg, u_prio)


def _deliver(task: Task, message: tuple[int, bytes], u_msg: int, u_prio: int) -> int:
    """Priority and text to the program. Raises EFAULT; the message is lost then."""
    if u_prio:
        put_user(task, u_prio, message[0], 4)
    copy_to_user(task, u_msg, message[1])
    return len(message[1])


def _netlink_socket(task: Task, fd: int) -> NetlinkSock:
    """netlink_getsockbyfilp(). Raises EBADF, ENOTSOCK, EINVAL."""
    from guest.socket import SocketFile
    from guest.socket_netlink import NetlinkSock

    file = task.files.get(fd)
    if not isinstance(file, SocketFile):
        raise Errno(errno.ENOTSOCK)
    if not isinstance(file.sk, NetlinkSock):
        raise Errno(errno.EINVAL)
    return file.sk


def sys_mq_notify(task: Task, mqdes: int, u_notification: int) -> int:
    """mq_notify(2). Raises EINVAL, EBADF, EBUSY, EFAULT; ENOTSOCK for SIGEV_THREAD without a netlink socket."""
    wish, cookie, sock = None, b"", None
    if u_notification:
        value, signo, kind = SIGEVENT.unpack(copy_from_user(task, u_notification, SIGEVENT.size))
        wish = (kind, signo, value)
        if kind not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD):
            raise Errno(errno.EINVAL)
        if kind == SIGEV_SIGNAL and not 0 <= signo <= NSIG:
            raise Errno(errno.EINVAL)
        if kind == SIGEV_THREAD:
            cookie = copy_from_user(task, value, NOTIFY_COOKIE_LEN)
            sock = _netlink_socket(task, signo)
    inode = _queue(task, mqdes).f_inode
    if wish is None:
        if inode.notify_owner is not None and inode.notify_owner.tgid == task.tgid:
            inode.remove_notification()
            inode.times(False)
        return 0
    if inode.notify_owner is not None:
        raise Errno(errno.EBUSY)
    inode.notify, inode.notify_cookie, inode.notify_sock = wish, cookie, sock
    inode.notify_owner = task.group_leader
    inode.notify_exec_id = task.self_exec_id
    inode.times(False)
    return 0


def sys_mq_getsetattr(task: Task, mqdes: int, u_new: int, u_old: int) -> int:
    """mq_getsetattr(2): O_NONBLOCK is all that can be set. Raises EFAULT, EINVAL, EBADF."""
    new = MQ_ATTR.unpack(copy_from_user(task, u_new, MQ_ATTR.size))[0] if u_new else None
    if new is not None and new & ~O_NONBLOCK:
        raise Errno(errno.EINVAL)
    file = _queue(task, mqdes)
    inode = file.f_inode
    old = MQ_ATTR.pack(file.f_flags & O_NONBLOCK, inode.maxmsg, inode.msgsize, len(inode.messages))
    if new is not None:
        file.f_flags = file.f_flags & ~O_NONBLOCK | new
        inode.times(False)
    if u_old:
        copy_to_user(task, u_old, old)
    return 0


CALLS = (
    Call("mq_open", sys_mq_open, FULL),
    Call("mq_unlink", sys_mq_unlink, FULL),
    Call("mq_timedsend", sys_mq_timedsend, FULL),
    Call("mq_timedreceive", sys_mq_timedreceive, FULL),
    Call("mq_notify", sys_mq_notify, FULL),
    Call("mq_getsetattr", sys_mq_getsetattr, FULL),
)
