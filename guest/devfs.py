"""/dev: a tmpfs with the memory devices and the terminal (drivers/char/mem.c, random.c; devtmpfs).

Device nodes may lie in any file system; `open_device` finds the driver by number. Nodes of host folders never lead to
host devices: they too end here, or in ENXIO.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import OpenFile
from guest.tmpfs import TmpfsInode, TmpfsSuper
from guest.vfs_flags import (
    DEFAULT_POLLMASK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
)
from guest.vfs_types import Inode, Path, makedev
from mm.errors import Errno
from mm.flags import VM_SHARED
from mm.shmem import shmem_zero_setup
from mm.uaccess import get_user, put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.types import VmAreaStruct

_CHUNK = 1 << 20
RNDGETENTCNT = 0x80045200
RNDADDTOENTCNT = 0x40045201


class DevSuper(TmpfsSuper):
    """The tmpfs at /dev."""

    def __init__(self, kernel: Kernel, s_dev: int) -> None:
        super().__init__(kernel, s_dev, 0o755, "devtmpfs")
        root = self.root
        if root is None or not isinstance(root.d_inode, TmpfsInode):
            raise Errno(errno.EINVAL)
        directory = root.d_inode
        for name, major, minor in (
            (b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0),
            (b"console", 5, 1), (b"ptmx", 5, 2),
        ):  # fmt: skip
            node = TmpfsInode(self, S_IFCHR | (0o600 if name == b"console" else 0o666))
            node.i_rdev = makedev(major, minor)
            directory.add(root, name, node)
        for name, target in (
            (b"fd", b"/proc/self/fd"), (b"stdin", b"fd/0"), (b"stdout", b"fd/1"), (b"stderr", b"fd/2"),
        ):  # fmt: skip
            link = TmpfsInode(self, S_IFLNK | 0o777)
            link.target = target
            directory.add(root, name, link)
        directory.i_nlink += 1
        directory.add(root, b"shm", TmpfsInode(self, S_IFDIR | 0o755))

    def unmounted(self) -> None:
        """The kernel itself has it mounted, too."""


class DeviceFile(OpenFile):
    """Base of the character devices: a position that means nothing (null_lseek)."""

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        self.f_pos = 0
        return 0

    def write(self, task: Task, pos: int, data: bytes) -> int:
        return len(data)


class NullFile(DeviceFile):
    """/dev/null."""

    has_read_iter = has_write_iter = True

    def read(self, task: Task, pos: int, count: int) -> bytes:
        return b""


class ZeroFile(DeviceFile):
    """/dev/zero: mapping it privately is anonymous memory, shared it is shmem (mmap_zero())."""

    has_read_iter = has_write_iter = True

    can_mmap = True

    def read(self, task: Task, pos: int, count: int) -> bytes:
        return bytes(min(count, _CHUNK))

    def mmap(self, vma: VmAreaStruct) -> None:
        if vma.vm_flags & VM_SHARED:
            shmem_zero_setup(vma)
        else:
            vma.vm_ops = None


class FullFile(ZeroFile):
    """/dev/full."""

    has_write_iter = False

    can_mmap = False

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.ENOSPC)


class RandomFile(DeviceFile):
    """/dev/random and /dev/urandom: the machine's seeded generator."""

    has_read_iter = has_write_iter = True

    def read(self, task: Task, pos: int, count: int) -> bytes:
        return task.kernel.rng.randbytes(min(count, _CHUNK))

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """noop_llseek()."""
        return self.f_pos

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd == RNDGETENTCNT:
            put_user(task, arg, 256, 4)
        elif cmd == RNDADDTOENTCNT:
            get_user(task, arg, 4)
        else:
            raise Errno(errno.EINVAL)
        return 0

    def poll(self, task: Task) -> int:
        return DEFAULT_POLLMASK


_DRIVERS: dict[int, type[DeviceFile]] = {
    makedev(1, 3): NullFile,
    makedev(1, 5): ZeroFile,
    makedev(1, 7): FullFile,
    makedev(1, 8): RandomFile,
    makedev(1, 9): RandomFile,
}
_TTY, _CONSOLE, _PTMX = makedev(5, 0), makedev(5, 1), makedev(5, 2)


def open_tty_device(path: Path, inode: Inode, flags: int, task: Task) -> OpenFile:
    """/dev/tty is the caller's controlling terminal, /dev/console the host's, /dev/ptmx a new pair's master.

    Raises ENXIO without a controlling terminal, ENODEV without one of the host's.
    """
    from guest.host_tty import HostTty, HostTtyFile
    from guest.pty import open_master, open_terminal
    from guest.vfs_flags import O_NOCTTY

    if inode.i_rdev == _PTMX:
        return open_master(path, inode, flags, task)
    vfs = task.kernel.vfs
    tty = task.signal.tty if inode.i_rdev == _TTY else vfs.tty
    if tty is None:
        raise Errno(errno.ENXIO if inode.i_rdev == _TTY else errno.ENODEV)
    if isinstance(tty, HostTty):
        return HostTtyFile(path, inode, flags & ~O_NOCTTY, tty.fd, tty)
    return open_terminal(path, inode, flags, task, tty)


def open_device(path: Path, inode: Inode, flags: int, task: Task) -> OpenFile:
    """chrdev_open(). Raises ENXIO when no driver has the number or the task no terminal."""
    if inode.i_mode & 0o170000 == S_IFCHR:
        if inode.i_rdev in (_TTY, _CONSOLE, _PTMX):
            return open_tty_device(path, inode, flags, task)
        driver = _DRIVERS.get(inode.i_rdev)
        if driver is not None:
            return driver(path, inode, flags)
    raise Errno(errno.ENXIO)
