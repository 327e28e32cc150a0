"""File locks (fs/locks.c): POSIX record locks, open-file-description locks, flock, in one kernel.

A lock is (owner, type, first byte, last byte). POSIX locks belong to a descriptor table, OFD and flock locks to an open
file; ranges of one owner merge and split, conflicting ones wait on the inode's queue.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

from guest.sched import WaitQueue, sleep_on
from guest.syscalls import FULL, Call
from guest.vfs_flags import FMODE_READ, FMODE_WRITE, SEEK_CUR, SEEK_END, SEEK_SET, s32
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

F_RDLCK, F_WRLCK, F_UNLCK = 0, 1, 2
F_GETLK, F_SETLK, F_SETLKW = 5, 6, 7
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8
OFFSET_MAX = (1 << 63) - 1
_FLOCK = struct.Struct("<hh4xqqi4x")


class Lock:
    """One lock held."""

    __slots__ = ("end", "kind", "owner", "pid", "start")

    def __init__(self, owner: Any, kind: int, start: int, end: int, pid: int) -> None:
        self.owner = owner  # FilesStruct (POSIX) or OpenFile
        self.kind = kind
        self.start = start
        self.end = end  # last byte
        self.pid = pid  # -1: an OFD lock


class LockContext:
    """The locks of one inode (struct file_lock_context)."""

    def __init__(self) -> None:
        self.posix: list[Lock] = []
        self.flock: list[Lock] = []
        self.leases: list[Any] = []  # sys_lease.py's
        self.queue = WaitQueue("file lock")

    def conflict(self, owner: Any, kind: int, start: int, end: int) -> Lock | None:
        """A record lock of somebody else in the way."""
        for lock in self.posix:
            if lock.owner is not owner and lock.start <= end and start <= lock.end and F_WRLCK in (lock.kind, kind):
                return lock
        return None

    def set(self, owner: Any, kind: int, start: int, end: int, pid: int) -> None:
        """posix_lock_inode() without conflicts: replace what the owner has in the range, join equal neighbours."""
        kept: list[Lock] = []
        for lock in self.posix:
            if lock.owner is not owner or lock.end < start - 1 or lock.start > end + 1:
                kept.append(lock)
                continue
            if lock.kind == kind:
                start, end = min(start, lock.start), max(end, lock.end)
                continue
            if lock.start < start:
                kept.append(Lock(owner, lock.kind, lock.start, min(start - 1, lock.end), lock.pid))
            if lock.end > end:
                kept.append(Lock(owner, lock.kind, max(end + 1, lock.start), lock.end, lock.pid))
        if kind != F_UNLCK:
            kept.append(Lock(owner, kind, start, end, pid))
        self.posix = kept
        self.queue.wake_all()

    def remove_posix(self, owner: Any) -> None:
        """locks_remove_posix(): a process closed a descriptor of the file."""
        if any(lock.owner is owner for lock in self.posix):
            self.posix = [lock for lock in self.posix if lock.owner is not owner]
            self.queue.wake_all()

    def remove_file(self, file: OpenFile) -> None:
        """locks_remove_file(): the open file is gone."""
        for lease in [lease for lease in self.leases if lease.file is file]:
            lease.modify(F_UNLCK)
        self.flock = [lock for lock in self.flock if lock.owner is not file]
        self.remove_posix(file)
        self.queue.wake_all()


def context(file: OpenFile) -> LockContext:
    """The lock context of the file's inode."""
    found: LockContext | None = file.f_inode.i_flctx
    if found is None:
        found = file.f_inode.i_flctx = LockContext()
    return found


def flock_range(file: OpenFile, whence: int, start: int, length: int) -> tuple[int, int]:
    """flock64_to_posix_lock(): first and last byte. Raises EINVAL, EOVERFLOW."""
    if whence == SEEK_CUR:
        start += file.f_pos
    elif whence == SEEK_END:
        start += file.f_inode.i_size
    elif whence != SEEK_SET:
        raise Errno(errno.EINVAL)
    if start > OFFSET_MAX:
        raise Errno(errno.EOVERFLOW)
    if start < 0:
        raise Errno(errno.EINVAL)
    if length > 0:
        if length - 1 > OFFSET_MAX - start:
            raise Errno(errno.EOVERFLOW)
        return start, start + length - 1
    if length < 0:
        if start + length < 0:
            raise Errno(errno.EINVAL)
        return start + length, start - 1
    return start, OFFSET_MAX


def fcntl_lock(task: Task, file: OpenFile, cmd: int, arg: int) -> int:
    """fcntl_getlk() and fcntl_setlk(). Raises EAGAIN, EBADF, EINVAL, EDEADLK."""
    kind, whence, start, length, pid = _FLOCK.unpack(copy_from_user(task, arg, _FLOCK.size))
    ofd = cmd >= F_OFD_GETLK
    owner = file if ofd else task.files
    first, last = flock_range(file, whence, start, length)
    locks = context(file)
    if ofd and pid:
        raise Errno(errno.EINVAL)
    if cmd in (F_GETLK, F_OFD_GETLK):
        if kind not in (F_RDLCK, F_WRLCK):
            raise Errno(errno.EINVAL)
        other = locks.conflict(owner, kind, first, last)
        if other is None:
            answer = _FLOCK.pack(F_UNLCK, whence, start, length, pid)
        else:
            size = 0 if other.end == OFFSET_MAX else other.end - other.start + 1
            answer = _FLOCK.pack(
                other.kind, SEEK_SET, other.start, size, other.pid if other.pid < 0 else task.vnr(other.pid)
            )
        copy_to_user(task, arg, answer)
        return 0
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise Errno(errno.EINVAL)
    if (kind == F_RDLCK and not file.f_mode & FMODE_READ) or (kind == F_WRLCK and not file.f_mode & FMODE_WRITE):
        raise Errno(errno.EBADF)
    if kind != F_UNLCK and locks.conflict(owner, kind, first, last) is not None:
        if cmd in (F_SETLK, F_OFD_SETLK):
            raise Errno(errno.EAGAIN)
        sleep_on(task, locks.queue)
    locks.set(owner, kind, first, last, -1 if ofd else task.tgid)
    return 0


def sys_flock(task: Task, fd: int, cmd: int) -> int:
    """flock(2)."""
    file: OpenFile = task.files.get(s32(fd))
    cmd = s32(cmd)
    kind = cmd & ~LOCK_NB
    if kind not in (LOCK_SH, LOCK_EX, LOCK_UN):
        raise Errno(errno.EINVAL)
    if kind != LOCK_UN and not file.f_mode & (FMODE_READ | FMODE_WRITE):
        raise Errno(errno.EBADF)
    locks = context(file)
    mine = [lock for lock in locks.flock if lock.owner is file]
    if mine and mine[0].kind == kind:
        return 0
    locks.flock = [lock for lock in locks.flock if lock.owner is not file]
    if mine:
        locks.queue.wake_all()
    if kind == LOCK_UN:
        return 0
    if any(LOCK_EX in (lock.kind, kind) for lock in locks.flock):
        if cmd & LOCK_NB:
            raise Errno(errno.EAGAIN)
        sleep_on(task, locks.queue)
    locks.flock.append(Lock(file, kind, 0, OFFSET_MAX, task.tgid))
    return 0


CALLS = (Call("flock", sys_flock, FULL, ""),)
