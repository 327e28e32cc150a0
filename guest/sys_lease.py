"""File leases (fs/locks.c): fcntl F_SETLEASE and F_GETLEASE, and what an open does to them.

Who holds a lease is told by a signal when somebody opens (or truncates) the file in a way that conflicts, and has
fs.lease-break-time seconds to give it up or down; the other waits so long (with O_NONBLOCK: EWOULDBLOCK).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC
from guest.fasync import F_OWNER_PID, POLL_MSG, f_setown, send_sigio
from guest.sched import sleep_on
from guest.sys_file_lock import F_RDLCK, F_UNLCK, F_WRLCK, context
from guest.vfs_flags import FMODE_WRITE, O_ACCMODE, O_NONBLOCK, s32
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task
    from guest.vfs_types import Inode

CAP_LEASE = 28
_JIFFY = 4_000_000  # ns


class Lease:
    """One lease (struct file_lock with FL_LEASE). Times are CLOCK_MONOTONIC ns; 0: nobody breaks it."""

    def __init__(self, file: OpenFile, fd: int, kind: int, pid: int) -> None:
        self.file, self.fd, self.kind, self.pid = file, fd, kind, pid
        self.unlock_pending = self.downgrade_pending = False
        self.break_time = self.downgrade_time = 0

    def target(self) -> int:
        """target_leasetype(): what it is, or has to become."""
        if self.unlock_pending:
            return F_UNLCK
        return F_RDLCK if self.downgrade_pending else self.kind

    def deadline(self) -> int | None:
        """When it ends, or becomes a read lease, by itself."""
        times = [time + _JIFFY for time in (self.break_time, self.downgrade_time) if time]
        return min(times, default=None)

    def modify(self, kind: int) -> None:
        """lease_modify(): another kind, or gone."""
        locks = context(self.file)
        self.kind = kind
        if kind == F_UNLCK:
            self.unlock_pending = False
            locks.leases.remove(self)
            self.file.f_owner, self.file.f_sig = None, 0
        if kind != F_WRLCK:
            self.downgrade_pending = False
            self.downgrade_time = 0
        locks.queue.wake_all()


def _time_out_leases(inode: Inode) -> None:
    """What was to be given up, and was not in time."""
    now = inode.i_sb.kernel.clock.now
    for lease in list(inode.i_flctx.leases):
        if lease.downgrade_time and now > lease.downgrade_time:
            lease.modify(F_RDLCK)
        if lease.break_time and now > lease.break_time:
            lease.modify(F_UNLCK)


def _check_conflicting_open(file: OpenFile, kind: int) -> None:
    """Raises EAGAIN where the file is open in a way that would have broken the lease."""
    inode = file.f_inode
    if kind == F_RDLCK:
        if inode.i_writecount > 0:
            raise Errno(errno.EAGAIN)
    elif inode.i_writecount != (1 if file.f_mode & FMODE_WRITE else 0) or inode.i_opens != 1:
        raise Errno(errno.EAGAIN)


def fcntl_setlease(task: Task, fd: int, file: OpenFile, arg: int) -> int:
    """F_SETLEASE. Raises EINVAL, EACCES, EAGAIN."""
    kind, inode = s32(arg), file.f_inode
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise Errno(errno.EINVAL)
    if task.cred.fsuid != inode.i_uid and not task.capable(CAP_LEASE):
        raise Errno(errno.EACCES)
    if not inode.is_reg():
        raise Errno(errno.EINVAL)
    locks = context(file)
    mine: Lease | None = next((lease for lease in locks.leases if lease.file is file), None)
    if kind == F_UNLCK:
        if mine is None:
            raise Errno(errno.EAGAIN)
        mine.modify(F_UNLCK)
        return 0
    _time_out_leases(inode)
    _check_conflicting_open(file, kind)
    others = [lease for lease in locks.leases if lease.file is not file]
    if any(kind == F_WRLCK or lease.unlock_pending for lease in others):
        raise Errno(errno.EAGAIN)
    if mine is not None and mine in locks.leases:
        mine.modify(kind)
    else:
        if not task.kernel.sysctls.get("leases-enable", 1):
            raise Errno(errno.EINVAL)
        locks.leases.append(Lease(file, s32(fd), kind, task.tgid))
    if file.f_owner is None:
        f_setown(task, file, task.tgid, F_OWNER_PID)
    return 0


def fcntl_getlease(file: OpenFile) -> int:
    """F_GETLEASE: the kind of the lease through this open file."""
    locks = file.f_inode.i_flctx
    if locks is None:
        return F_UNLCK
    _time_out_leases(file.f_inode)
    kind: int = next((lease.target() for lease in locks.leases if lease.file is file), F_UNLCK)
    return kind


def _tell(task: Task, lease: Lease) -> None:
    """lease_break_callback(): F_SETSIG's signal, or SIGIO, for the owner of the file."""
    send_sigio(task.kernel, lease.file, lease.fd, POLL_MSG)


def break_lease(task: Task, inode: Inode, flags: int) -> None:
    """__break_lease(): somebody opens the file with these O_* flags. Raises EWOULDBLOCK, Restart, Block."""
    _time_out_leases(inode)
    locks, kernel = inode.i_flctx, task.kernel
    write = flags & O_ACCMODE != 0
    in_the_way = [lease for lease in locks.leases if write or lease.kind == F_WRLCK]
    if not in_the_way:
        return
    seconds = kernel.sysctls.get("lease-break-time", 45)
    limit = kernel.clock.now + seconds * NSEC_PER_SEC if seconds > 0 else 0
    for lease in in_the_way:
        if write and not lease.unlock_pending:
            lease.unlock_pending, lease.break_time = True, limit
        elif not write and not (lease.unlock_pending or lease.downgrade_pending):
            lease.downgrade_pending, lease.downgrade_time = True, limit
        else:
            continue
        _tell(task, lease)
    if flags & O_NONBLOCK:
        raise Errno(errno.EWOULDBLOCK)
    times = [time for time in (lease.deadline() for lease in in_the_way) if time is not None]
    sleep_on(task, locks.queue, deadline=min(times, default=None))
