"""Pseudo-terminals: two terminals back to back (drivers/tty/pty.c).

    open("/dev/ptmx") -> the master, and its slave as /dev/pts/N, locked until TIOCSPTLCK unlocks it
    write(master) -> slave's line discipline -> read(slave);   write(slave), echo -> read(master)

The last slave file that closes makes reads of the master end in EIO; the master's end hangs the slave up.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.devpts import DevptsNode, DevptsSuper
from guest.namei import traverse_mounts
from guest.tty_core import Tty, TtyFile
from guest.tty_jobctrl import CAP_SYS_ADMIN, open_proc_set_tty
from guest.vfs_flags import O_CLOEXEC, O_NOCTTY, S_IFCHR
from guest.vfs_types import Inode, Path
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task
    from guest.vfs_types import Dentry, Mount

NR_UNIX98_PTY_DEFAULT = 4096


class Pty(Tty):
    """One side of a pair; both know the name and the file system they belong to."""

    devpts: DevptsSuper
    mnt: Mount
    entry: Dentry


def open_master(path: Path, inode: Inode, flags: int, task: Task) -> OpenFile:
    """ptmx_open(). Raises ENOSPC when there are too many."""
    kernel = task.kernel
    where = find_devpts(path)
    devpts = where.mnt_sb
    if not isinstance(devpts, DevptsSuper):
        raise Errno(errno.ENODEV)
    if len(devpts.used) >= NR_UNIX98_PTY_DEFAULT:
        raise Errno(errno.ENOSPC)
    index = devpts.new_index()
    master, slave = Pty(kernel, index, True), Pty(kernel, index, False)
    master.link, slave.link = slave, master
    master.pty_locked = True
    slave.io_error = True  # until it is opened
    uid = task.cred.fsuid if devpts.slave_uid is None else devpts.slave_uid
    gid = task.cred.fsgid if devpts.slave_gid is None else devpts.slave_gid
    node = DevptsNode(devpts, S_IFCHR | devpts.slave_mode, uid, gid)
    node.pty = slave
    slave.entry = master.entry = devpts.add(index, node)
    slave.devpts = master.devpts = devpts
    slave.mnt = master.mnt = where
    return TtyFile(path, inode, flags & ~O_NOCTTY, master)


def find_devpts(path: Path) -> Mount:
    """devpts_acquire(): the mount a ptmx is in, or that of the pts beside it. Raises ENODEV."""
    if isinstance(path.mnt.mnt_sb, DevptsSuper):
        return path.mnt
    beside = path.dentry.d_parent.d_children.get(b"pts")
    found = traverse_mounts(Path(path.mnt, beside)).mnt if beside is not None else path.mnt
    if not isinstance(found.mnt_sb, DevptsSuper):
        raise Errno(errno.ENODEV)
    return found


def open_slave(path: Path, inode: DevptsNode, flags: int, task: Task) -> OpenFile:
    """tty_open() of /dev/pts/N. Raises EIO while it is locked or its master gone, EBUSY under TIOCEXCL."""
    return open_terminal(path, inode, flags, task, inode.pty)


def open_terminal(path: Path, inode: Inode, flags: int, task: Task, tty: Tty) -> OpenFile:
    """One more file of a slave; it may become its opener's controlling terminal."""
    master = tty.link
    if tty.exclusive and tty.files and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EBUSY)
    if master is None or not master.files or tty.other_closed or master.pty_locked:
        raise Errno(errno.EIO)
    tty.io_error = False
    master.other_closed = False
    file = TtyFile(path, inode, flags & ~O_NOCTTY, tty)
    if not flags & O_NOCTTY:
        open_proc_set_tty(task, file, tty)
    return file


def open_peer(task: Task, file: TtyFile, flags: int) -> int:
    """TIOCGPTPEER: a descriptor of the slave, whatever /dev/pts shows. Raises EIO for what is no master."""
    master = file.tty
    if not master.master or not isinstance(master, Pty):
        raise Errno(errno.EIO)
    vfs = task.kernel.vfs
    flags = vfs.abi.flags_in(flags & 0xFFFFFFFF)
    fd: int = task.files.unused(task)
    node = master.entry.d_inode
    if not isinstance(node, DevptsNode):
        raise Errno(errno.EIO)
    peer = open_slave(Path(master.mnt, master.entry), node, flags & ~O_CLOEXEC, task)
    task.files.install(fd, peer, bool(flags & O_CLOEXEC))
    return fd


def master_closed(master: Tty) -> None:
    """The name goes at once, the number with the slave's last file."""
    if isinstance(master, Pty):
        master.devpts.remove(master.entry)


def forget(tty: Tty) -> None:
    """pty_unix98_remove(): neither side has a file left."""
    if isinstance(tty, Pty) and tty.link is not None and not tty.files and not tty.link.files:
        tty.devpts.used.discard(tty.index)
