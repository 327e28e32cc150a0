"""openat2 and its rules of resolution: a walk that may not follow, cross or leave (fs/open.c, fs/namei.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import Walk
from guest.sys_file import getname
from guest.sys_file_fd import do_sys_open
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    O_CREAT,
    O_PATH,
    O_PATH_FLAGS,
    O_TMPFILE_BIT,
    O_TRUNC,
    S_IALLUGO,
    VALID_OPEN_FLAGS,
)
from mm.errors import Errno
from mm.uaccess import copy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Dentry, Inode, Path

RESOLVE_NO_XDEV = 1  # no way over a mount point
RESOLVE_NO_MAGICLINKS = 2  # no links of /proc that jump
RESOLVE_NO_SYMLINKS = 4
RESOLVE_BENEATH = 8  # nothing that leads out of the starting folder
RESOLVE_IN_ROOT = 16  # the starting folder is the root
RESOLVE_CACHED = 32  # only what is in memory
VALID_RESOLVE_FLAGS = 63
_SCOPED = RESOLVE_BENEATH | RESOLVE_IN_ROOT


class ResolvingWalk(Walk):
    """A walk under rules. Raises EXDEV where it would leave, ELOOP for a link it must not follow."""

    __slots__ = ("resolve",)

    def __init__(self, task: Task, dfd: int, name: bytes, resolve: int) -> None:
        self.resolve = resolve
        if name[:1] == b"/" and resolve & RESOLVE_BENEATH:
            raise Errno(errno.EXDEV)
        super().__init__(task, dfd, name, Walk(task, dfd, b".").at if resolve & _SCOPED else None)

    def into(self, entry: Dentry, follow: bool) -> None:
        mnt = self.at.mnt
        if self.resolve & RESOLVE_CACHED and entry.d_inode.i_sb.s_type == "proc":
            raise Errno(errno.EAGAIN)  # must ask whether the process is still there
        super().into(entry, follow)
        self._stay(mnt)

    def up(self) -> None:
        at = self.at
        if self.resolve & RESOLVE_BENEATH and at == self.root:
            raise Errno(errno.EXDEV)
        super().up()
        self._stay(at.mnt)

    def push(self, inode: Inode) -> None:
        if self.resolve & RESOLVE_NO_SYMLINKS:
            raise Errno(errno.ELOOP)
        super().push(inode)

    def jump_root(self) -> None:
        if self.resolve & RESOLVE_BENEATH:
            raise Errno(errno.EXDEV)
        super().jump_root()

    def jump_link(self, target: Path) -> None:
        if self.resolve & RESOLVE_NO_MAGICLINKS:
            raise Errno(errno.ELOOP)
        self._stay(target.mnt)
        if self.resolve & _SCOPED:
            raise Errno(errno.EXDEV)
        super().jump_link(target)

    def _stay(self, mnt: object) -> None:
        """Raises EXDEV when the walk has gone over to another mount and must not."""
        if self.resolve & RESOLVE_NO_XDEV and self.at.mnt is not mnt:
            raise Errno(errno.EXDEV)


def sys_openat2(task: Task, dfd: int, name: int, how: int, size: int) -> int:
    """openat2(2). Raises EINVAL for flags it does not know, EAGAIN for RESOLVE_CACHED where it must look on disk."""
    if size < 24:
        raise Errno(errno.EINVAL)
    raw = copy_from_user(task, how, size)
    if any(raw[24:]):
        raise Errno(errno.E2BIG)
    words = memoryview(raw[:24]).cast("Q")
    flags = task.kernel.vfs.abi.flags_in(words[0])
    if flags & ~VALID_OPEN_FLAGS or words[1] & ~S_IALLUGO or words[2] & ~VALID_RESOLVE_FLAGS:
        raise Errno(errno.EINVAL)
    if words[2] & RESOLVE_BENEATH and words[2] & RESOLVE_IN_ROOT:
        raise Errno(errno.EINVAL)
    if flags & O_PATH and flags & ~O_PATH_FLAGS:
        raise Errno(errno.EINVAL)
    if words[1] and not flags & (O_CREAT | O_TMPFILE_BIT):
        raise Errno(errno.EINVAL)
    if words[2] & RESOLVE_CACHED and flags & (O_TRUNC | O_CREAT | O_TMPFILE_BIT):
        raise Errno(errno.EAGAIN)
    try:
        return do_sys_open(task, dfd, name, words[0], words[1], words[2])
    except Errno as error:
        if words[2] & RESOLVE_CACHED and error.number == errno.ENOENT and getname(task, name):
            raise Errno(errno.EAGAIN) from None  # that a name is missing, tmpfs does not remember
        raise


CALLS = (Call("openat2", sys_openat2, FULL),)
