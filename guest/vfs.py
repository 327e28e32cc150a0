"""The guest's tree of mounts, built from the machine's settings, and what exec, procfs and system calls ask of it.

    with --root DIR      / = host folder DIR, then /proc, /dev, /dev/shm, /tmp mounted over it
    without              / = a tmpfs that holds only the program, then the same four mounts
    --mount HOST:GUEST   a host folder at GUEST
    -L DIR               a host folder that is in no tree; absolute paths are looked up in it first

Mount numbers and device numbers are those of the oracle where it has the mount.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from guest.devfs import DevSuper, open_device
from guest.devpts import DevptsSuper
from guest.fdtable import FilesStruct
from guest.hostfs import HostSuper
from guest.namei import (
    LOOKUP_FOLLOW,
    filename_lookup,
    inode_permission,
    lookup_one,
    traverse_mounts,
    vfs_open,
)
from guest.pipe import fifo_open
from guest.procfs import ProcSuper
from guest.sysfs import SysfsSuper
from guest.tmpfs import TmpfsInode, TmpfsSuper
from guest.tty import BufferInode, BufferStream, anonymous_path, host_stream
from guest.vfs_abi import make as make_abi
from guest.vfs_flags import (
    ANON_INODE_FS_MAGIC,
    AT_FDCWD,
    FMODE_EXEC,
    MAY_EXEC,
    O_ACCMODE,
    O_RDONLY,
    O_WRONLY,
    PIPEFS_MAGIC,
    S_IFDIR,
    S_IFIFO,
    S_IFREG,
    SOCKFS_MAGIC,
)
from guest.vfs_types import MNT_NOEXEC, Dentry, FsStruct, Inode, Mount, Path, SuperBlock
from mm.errors import Errno
from mm.shmem import new_shmem_mapping

if TYPE_CHECKING:
    from guest.config import Config
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.task import Task

_SHM_DEV, _ROOT_DEV, _DEV_DEV, _SOCK_DEV, _PIPE_DEV, _ANON_DEV, _PROC_DEV, _SYS_DEV, _TMP_DEV, _DEV_SHM_DEV = (
    1, 2, 5, 7, 8, 9, 12, 13, 14, 15
)  # fmt: skip
_DEVPTS_DEV = 16
_FIRST_DEV = 17  # further mounts


class ImageBacking:
    """A program that exists only as bytes: mm/shmem.py's `backing`."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.size = len(image)

    def read(self, offset: int, count: int) -> bytes:
        """A slice."""
        return self.image[offset : offset + count]


class Vfs:
    """All mounts of one machine."""

    def __init__(self, kernel: Kernel) -> None:
        config = kernel.config
        self.kernel = kernel
        kernel.vfs = self  # inodes ask for the time while they are made
        self.abi = make_abi(kernel.system.arch.name)
        self.mounts: list[Mount] = []  # in order of mounting
        self.internal: dict[int, Mount] = {}  # by s_dev: mounts of pipes and the like, outside the tree
        self.hugetlbfs: dict[int, SuperBlock] = {}  # by page size: where huge files without a name live
        self.tty: Any = None  # the host's terminal, where a standard stream is one (guest/host_tty.py)
        self.net: Any = None  # sockets, made by the first (guest/socket.py)
        self.unix_ordernum = 1  # next name AF_UNIX's autobind tries
        self.output = bytearray()  # captured standard output
        self.errors = bytearray()  # captured standard error
        self.next_dev = _FIRST_DEV
        self.group_ids: set[int] = set()  # of groups of shared mounts (guest/propagation.py)
        self.mnt_ids: set[int] = set()  # that are taken
        self.next_mnt = 19  # the first that --mount and mount(2) can give
        self.pipefs = SuperBlock(kernel, "pipefs", _PIPE_DEV, PIPEFS_MAGIC)
        self.sockfs = SuperBlock(kernel, "sockfs", _SOCK_DEV, SOCKFS_MAGIC)
        self.anonfs = SuperBlock(kernel, "anon_inodefs", _ANON_DEV, ANON_INODE_FS_MAGIC)
        self.shmfs = TmpfsSuper(kernel, _SHM_DEV)
        self.shmfs.sbinfo.max_blocks = 0  # the kernel's own mount has no limit
        self.root = self.mount_root(config)
        self.prefix: Path | None = None  # -L: where absolute paths are looked up first
        self.mount_standard()
        if config.prefix is not None:
            self.prefix = self.mount_prefix(config.prefix)
        for mount in config.mounts:
            self.mount_host(mount)

    def now(self) -> int:
        """current_time(): nanoseconds since 1970."""
        return self.kernel.clock.realtime()

    # building the tree

    def mount_root(self, config: Config) -> Path:
        """Mount /. Raises OSError when the host folder cannot be opened."""
        kernel = self.kernel
        sb: TmpfsSuper
        if config.root is not None:
            sb = HostSuper(kernel, _ROOT_DEV, config.root, config.rw, "rootfs")
        else:
            sb = TmpfsSuper(kernel, _ROOT_DEV, 0o755, "rootfs")
        if sb.root is None:
            raise Errno(errno.EINVAL)
        mount = Mount(1, sb, sb.root, None, None, "rootfs")
        mount.mnt_flags = 0
        self.mounts.append(mount)
        self.root = Path(mount, sb.root)
        return self.root

    def mount_standard(self) -> None:
        """What init mounts on the oracle."""
        kernel = self.kernel
        self.mount(ProcSuper(kernel, _PROC_DEV), b"/proc", "proc", 13)
        self.mount(DevSuper(kernel, _DEV_DEV), b"/dev", "devtmpfs", 14)
        self.mount(SysfsSuper(kernel, _SYS_DEV), b"/sys", "sysfs", 15)
        self.mount(TmpfsSuper(kernel, _TMP_DEV), b"/tmp", "tmpfs", 16)
        self.mount(TmpfsSuper(kernel, _DEV_SHM_DEV), b"/dev/shm", "tmpfs", 17)
        self.devpts = DevptsSuper(kernel, _DEVPTS_DEV)
        self.devpts_mount = self.mount(self.devpts, b"/dev/pts", "devpts", 18)
        self.standard = tuple(self.mounts)  # with file systems of which there is only one

    def mount_prefix(self, folder: str) -> Path:
        """-L DIR: a host folder outside the tree, whose files stand before the guest's own. Raises OSError."""
        sb = HostSuper(self.kernel, self.next_dev, folder)
        self.next_dev += 1
        return Path(self.internal_mount(sb), sb.root)

    def mount_host(self, spec: tuple[str, str, str]) -> None:
        """--mount HOST:GUEST[:ro|rw]. A host folder or a single host file."""
        host, guest, mode = spec
        where = os.fsencode(guest)
        if os.path.isdir(host):
            sb = HostSuper(self.kernel, self.next_dev, host, mode == "rw")
            self.next_dev += 1
            self.mount(sb, where, "hostfs", self.next_mnt)
            self.next_mnt += 1
            return
        folder, name = os.path.split(os.path.abspath(host))
        sb = HostSuper(self.kernel, self.next_dev, folder, mode == "rw")
        self.next_dev += 1
        entry = lookup_one(sb.root, os.fsencode(name))
        if entry is None or not entry.d_inode.is_reg():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), host)
        parent = self.make_dirs(where.rpartition(b"/")[0])
        inode = parent.dentry.d_inode
        if isinstance(inode, TmpfsInode):
            inode.add(parent.dentry, where.rpartition(b"/")[2], entry.d_inode)

    def mount(self, sb: SuperBlock, where: bytes, source: str, mnt_id: int) -> Mount:
        """Mount a file system, making the directory in memory where it is missing."""
        at = self.make_dirs(where)
        if sb.root is None:
            raise Errno(errno.EINVAL)
        mount = Mount(mnt_id, sb, sb.root, at.mnt, at.dentry, source)
        at.dentry.d_mounts.append(mount)
        self.mounts.append(mount)
        self.mnt_ids.add(mnt_id)
        return mount

    def make_dirs(self, where: bytes) -> Path:
        """The directory at an absolute path; what is missing (or is not a directory) is made in memory."""
        at = self.root
        for name in where.split(b"/"):
            if name in (b"", b".", b".."):
                continue
            entry = lookup_one(at.dentry, name)
            if entry is None or not entry.d_inode.is_dir():
                entry = self.make_dir(at.dentry, name)
            at = traverse_mounts(Path(at.mnt, entry))
        return at

    def make_dir(self, parent: Dentry, name: bytes) -> Dentry:
        """A directory that exists only in memory."""
        owner = parent.d_inode
        if not isinstance(owner, TmpfsInode):
            raise Errno(errno.EPERM)
        owner.i_nlink += 1
        return owner.add(parent, name, TmpfsInode(owner.i_sb, S_IFDIR | 0o755))

    def alloc_dev(self) -> int:
        """The lowest free device number of a file system without a device (get_anon_bdev())."""
        mounts = (*self.mounts, *self.internal.values())
        used = {mount.mnt_sb.s_dev for mount in mounts}
        number = self.next_dev
        while number in used:
            number += 1
        return number

    def internal_mount(self, sb: SuperBlock) -> Mount:
        """The mount of a file system that has no place in the tree."""
        mount = self.internal.get(sb.s_dev)
        if mount is None:
            root = sb.root if sb.root is not None else Dentry(b"", None, Inode(sb, S_IFDIR | 0o500))
            mount = self.internal[sb.s_dev] = Mount(0, sb, root, None, None, sb.s_type)
        return mount

    # the program and the first task

    def add_program(self, name: bytes, host_path: str | None, image: bytes | None) -> bytes:
        """Without --root: show the program as /NAME. Returns that path. Raises OSError."""
        root = self.root.dentry
        directory = root.d_inode
        if not isinstance(directory, TmpfsInode):
            raise Errno(errno.EINVAL)
        if host_path is not None:
            folder, base = os.path.split(os.path.realpath(host_path))
            sb = HostSuper(self.kernel, _ROOT_DEV, folder)
            entry = lookup_one(sb.root, os.fsencode(base))
            if entry is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), host_path)
            inode = entry.d_inode
        else:
            inode = TmpfsInode(directory.i_sb, S_IFREG | 0o755)
            inode.i_mapping = new_shmem_mapping(self.kernel.system, inode, ImageBacking(image or b""))
        directory.add(root, name, inode)
        return b"/" + name

    def first_task(self) -> tuple[FilesStruct, FsStruct]:
        """Descriptors 0, 1 and 2 (host descriptors, buffers, or nothing where the host has none), root and folder."""
        config = self.kernel.config
        files = FilesStruct()
        for fd, setting in enumerate((config.stdin, config.stdout, config.stderr)):
            file = self.standard_stream(fd, setting)
            if file is not None:
                files.install(fd, file, False)
        return files, FsStruct(self.root, self.root)

    def standard_stream(self, fd: int, setting: Any) -> OpenFile | None:
        """The open file for one standard stream."""
        flags = O_RDONLY if fd == 0 else O_WRONLY
        if setting == "inherit" or isinstance(setting, int):
            number = fd if setting == "inherit" else setting
            try:
                return self.terminal(number, flags) if os.isatty(number) else host_stream(self.pipefs, number, flags)
            except OSError:
                return None
        if fd == 0:
            data = bytearray(setting or b"")
        else:
            data = self.output if fd == 1 else self.errors
        inode = BufferInode(self.pipefs, S_IFIFO | 0o600, data)
        return BufferStream(anonymous_path(self.pipefs, inode, b"pipe:[%d]" % inode.i_ino), inode, flags, data)

    def terminal(self, fd: int, flags: int) -> OpenFile:
        """A standard stream that is the host's terminal: /dev/pts/0. A second terminal would go by the same name."""
        import fcntl

        from guest.host_tty import HostTty, HostTtyFile, HostTtyInode

        flags = flags & ~O_ACCMODE | fcntl.fcntl(fd, fcntl.F_GETFL) & O_ACCMODE  # a shell gives it to read and write

        if self.tty is None:
            self.tty = HostTty(fd)
            self.host_pts = self.devpts.add(self.devpts.new_index(), HostTtyInode(self.devpts, self.tty))
        path = Path(self.devpts_mount, self.host_pts)
        return HostTtyFile(path, self.host_pts.d_inode, flags, fd, self.tty)

    def open_exec(self, task: Task, path: bytes, dfd: int = AT_FDCWD, flags: int = LOOKUP_FOLLOW) -> OpenFile:
        """do_open_execat(): a regular file the task may execute; writing to it is denied until allow_write_access().

        Raises:
            Errno: ENOENT, ENOTDIR, EACCES, ELOOP, ETXTBSY.
        """
        at = filename_lookup(task, dfd, path, flags)
        inode = at.dentry.d_inode
        if inode.is_lnk():
            raise Errno(errno.ELOOP)
        if not inode.is_reg() or at.mnt.mnt_flags & MNT_NOEXEC:
            raise Errno(errno.EACCES)
        inode_permission(task, inode, MAY_EXEC)
        file = vfs_open(task, at, O_RDONLY)
        file.f_mode |= FMODE_EXEC
        try:
            file.deny_write_access()
        except Errno:
            file.f_count = 0
            file.release()
            raise
        return file

    def open_special(self, path: Path, inode: Inode, flags: int, task: Task) -> OpenFile:
        """Open a FIFO or device node, wherever it lies. Raises ENXIO for devices nobody drives."""
        if inode.is_fifo():
            return fifo_open(path, inode, flags, task)
        return open_device(path, inode, flags, task)

    # paths

    def d_path(self, path: Path, root: Path | None) -> bytes:
        """Absolute path as seen from `root` (default: the machine's)."""
        dentry, mnt = path.dentry, path.mnt
        if dentry.d_dname is not None:
            return dentry.d_dname
        if root is None:
            root = self.root
        tail = b" (deleted)" if dentry.d_unhashed else b""
        return (self.prepend_path(mnt, dentry, root)[0] or b"/") + tail

    def prepend_path(self, mnt: Mount, dentry: Dentry, root: Path) -> tuple[bytes, bool]:
        """The path from `root` down, b'' for the root itself, and whether `root` was met on the way up."""
        names: list[bytes] = []
        while not (dentry is root.dentry and mnt is root.mnt):
            if dentry is mnt.mnt_root or dentry.d_parent is dentry:
                if mnt.mnt_parent is mnt:
                    break
                mnt, dentry = mnt.mnt_parent, mnt.mnt_mountpoint
                continue
            names.append(dentry.d_name)
            dentry = dentry.d_parent
        reached = dentry is root.dentry and mnt is root.mnt
        names.reverse()
        return b"".join(b"/" + name for name in names), reached

    def parent_inode(self, path: Path) -> Inode:
        """The inode `..` of a directory shows (parent_ino())."""
        return path.dentry.d_parent.d_inode

    def close(self) -> None:
        """The machine stops: terminal settings and host descriptors go back."""
        if self.tty is not None:
            self.tty.restore()
        if self.net is not None:
            for sk in tuple(self.net.host_sockets):
                sk.release()
        for mount in (*self.mounts, *self.internal.values()):
            if isinstance(mount.mnt_sb, HostSuper):
                mount.mnt_sb.close()
