"""tmpfs: directories are dentries, regular files are page cache (the name operations of Linux's mm/shmem.c).

`TmpfsInode` is also the base of the host folder's inode (hostfs.py): a host folder is a tmpfs whose names and pages
come from outside until they change.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import DirFile, MemoryFile, OpenFile
from guest.vfs_flags import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    NAME_MAX,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISGID,
    TMPFS_MAGIC,
)
from guest.vfs_types import Dentry, Inode, Path, SuperBlock
from mm.errors import Errno
from mm.shmem import (
    ShmemSbInfo,
    new_shmem_mapping,
    shmem_blocks,
    shmem_evict_inode,
    shmem_fallocate,
    shmem_truncate,
    shmem_write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.kernel import Kernel
    from guest.task import Task

BOGO_DIRENT_SIZE = 20  # bytes a name adds to its directory's size


class TmpfsSuper(SuperBlock):
    """A tmpfs of its own."""

    def __init__(self, kernel: Kernel, s_dev: int, mode: int = 0o1777, s_type: str = "tmpfs") -> None:
        super().__init__(kernel, s_type, s_dev, TMPFS_MAGIC)
        system = kernel.system
        self.sbinfo = ShmemSbInfo(system.totalram_pages // 2)
        self.max_inodes = system.totalram_pages // 2
        self.live_inodes = 0
        self.s_settings: dict[str, int | str] = {"mode": mode, "uid": 0, "gid": 0}
        self.root = Dentry(b"", None, self.new_root(mode))

    def new_root(self, mode: int) -> Inode:
        """The root directory."""
        return TmpfsInode(self, S_IFDIR | mode)

    def statfs(self) -> tuple[int, int, int, int, int, int]:
        page_size, most = self.kernel.system.arch.page_size, self.sbinfo.max_blocks
        if not most:
            return page_size, 0, 0, 0, 0, 0  # without limits
        free = max(most - self.used_blocks(), 0)
        return page_size, most, free, free, self.max_inodes, self.max_inodes - self.live_inodes

    def show_options(self) -> str:
        """shmem_show_options()."""
        half, chosen = self.kernel.system.totalram_pages // 2, self.s_settings
        kilobytes = self.sbinfo.max_blocks << (self.kernel.system.arch.page_shift - 10)
        text = f",size={kilobytes}k" if self.sbinfo.max_blocks != half else ""
        text += f",nr_inodes={self.max_inodes}" if self.max_inodes != half else ""
        text += f",mode={chosen['mode']:03o}" if chosen["mode"] != 0o1777 else ""
        text += f",uid={chosen['uid']}" if chosen["uid"] else ""
        text += f",gid={chosen['gid']}" if chosen["gid"] else ""
        text += ",inode64" if chosen.get("inode64") and not chosen.get("inode32") else ""
        return text + (f",huge={chosen['huge']}" if chosen.get("huge", "never") != "never" else "")

    def unmounted(self) -> None:
        """d_genocide(): nobody has it mounted any more, so that files nobody has open go."""
        pending = [self.root] if self.root is not None else []
        while pending:
            for entry in pending.pop().d_children.values():
                pending.append(entry)
                inode = entry.d_inode
                if inode.is_reg() and inode.i_nlink:
                    inode.i_nlink = 0
                    if not inode.i_opens:
                        inode.evict()

    def used_blocks(self) -> int:
        """Pages held by the files of this file system."""
        return self.sbinfo.used_blocks


class TmpfsInode(Inode):
    """An inode in memory."""

    i_sb: TmpfsSuper

    def __init__(self, sb: TmpfsSuper, mode: int, uid: int = 0, gid: int = 0, ino: int | None = None) -> None:
        super().__init__(sb, mode, uid, gid, ino)
        sb.live_inodes += 1
        self.target = b""  # of a symbolic link
        self.dir_size = 0
        self.shared_writable = False  # was mapped shared for writing: pages may have changed behind write()
        if mode & S_IFMT == S_IFDIR:
            self.i_nlink = 2
            self.dir_size = 2 * BOGO_DIRENT_SIZE
        elif mode & S_IFMT == S_IFREG:
            self.make_mapping()

    def make_mapping(self) -> None:
        """Give a regular file its page cache."""
        self.i_mapping = new_shmem_mapping(self.i_sb.kernel.system, self, sbinfo=self.i_sb.sbinfo)

    @property
    def i_size(self) -> int:
        if self.i_mapping is not None:
            return self.i_mapping.i_size
        return self.dir_size if self.i_mode & S_IFMT == S_IFDIR else len(self.target)

    @property
    def i_blocks(self) -> int:
        if self.i_mapping is None:
            return 0
        return shmem_blocks(self.i_mapping)

    # names

    def add(self, parent: Dentry, name: bytes, inode: Inode) -> Dentry:
        """d_instantiate() and the directory's own bookkeeping."""
        entry = Dentry(name, parent, inode)
        parent.d_children[name] = entry
        self.dir_size += BOGO_DIRENT_SIZE
        self.touch()
        return entry

    def touch(self) -> None:
        """The directory changed now."""
        self.i_mtime = self.i_ctime = self.i_sb.kernel.vfs.now()

    def drop(self, parent: Dentry, entry: Dentry) -> None:
        """Unhash a name."""
        del parent.d_children[entry.d_name]
        entry.d_unhashed = True
        self.dir_size -= BOGO_DIRENT_SIZE
        self.touch()

    def new_inode(self, mode: int, task: Task) -> TmpfsInode:
        """inode_init_owner(): a set-group-id directory hands its group down."""
        gid = task.cred.fsgid
        if self.i_mode & S_ISGID:
            gid = self.i_gid
            if mode & S_IFMT == S_IFDIR:
                mode |= S_ISGID
        if self.i_sb.live_inodes >= self.i_sb.max_inodes > 0:
            raise Errno(errno.ENOSPC)
        return TmpfsInode(self.i_sb, mode, task.cred.fsuid, gid)

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        if len(name) > NAME_MAX:
            raise Errno(errno.ENAMETOOLONG)
        return None

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        for name, child in reversed(list(parent.d_children.items())):
            yield name, child.d_inode.i_ino, child.d_inode.i_mode

    def still_there(self, parent: Dentry, name: bytes) -> bool:
        return name in parent.d_children

    def create(self, parent: Dentry, name: bytes, mode: int, task: Task, rdev: int = 0) -> Dentry:
        inode = self.new_inode(mode, task)
        inode.i_rdev = rdev
        return self.add(parent, name, inode)

    def mkdir(self, parent: Dentry, name: bytes, mode: int, task: Task) -> Dentry:
        inode = self.new_inode(mode | S_IFDIR, task)
        self.i_nlink += 1
        return self.add(parent, name, inode)

    def symlink(self, parent: Dentry, name: bytes, target: bytes, task: Task) -> Dentry:
        inode = self.new_inode(S_IFLNK | 0o777, task)
        inode.target = target
        return self.add(parent, name, inode)

    def link(self, parent: Dentry, name: bytes, old: Dentry) -> Dentry:
        inode = old.d_inode
        inode.i_nlink += 1
        inode.i_ctime = self.i_sb.kernel.vfs.now()
        return self.add(parent, name, inode)

    def unlink(self, parent: Dentry, entry: Dentry) -> None:
        self.forget(parent, entry)

    def rmdir(self, parent: Dentry, entry: Dentry) -> None:
        if not entry.d_inode.is_empty_dir(entry):
            raise Errno(errno.ENOTEMPTY)
        self.forget(parent, entry)

    def forget(self, parent: Dentry, entry: Dentry) -> None:
        """Take a name away, in memory."""
        inode = entry.d_inode
        self.drop(parent, entry)
        if inode.is_dir():
            inode.i_nlink = 0
            self.i_nlink -= 1
            self.i_sb.live_inodes -= 1
            return
        inode.i_nlink -= 1
        inode.i_ctime = self.i_ctime
        if inode.i_nlink == 0 and inode.i_opens == 0:
            inode.evict()

    def rename(self, old: Dentry, new_parent: Dentry, new_name: bytes, target: Dentry | None, exchange: bool) -> None:
        new_dir = new_parent.d_inode
        if not isinstance(new_dir, TmpfsInode):
            raise Errno(errno.EXDEV)
        if target is not None and exchange:
            self.swap(old, target)
            return
        if target is not None:
            if target.d_inode.is_dir() and not target.d_inode.is_empty_dir(target):
                raise Errno(errno.ENOTEMPTY)
            new_dir.forget(new_parent, target)
        self.drop(old.d_parent, old)
        old.d_unhashed = False
        old.d_name, old.d_parent = new_name, new_parent
        new_parent.d_children[new_name] = old
        new_dir.dir_size += BOGO_DIRENT_SIZE
        if old.d_inode.is_dir():
            self.i_nlink -= 1
            new_dir.i_nlink += 1
        new_dir.touch()
        old.d_inode.i_ctime = self.i_ctime

    def swap(self, one: Dentry, two: Dentry) -> None:
        """RENAME_EXCHANGE."""
        first, second = one.d_parent, two.d_parent
        if first is not second and one.d_inode.is_dir() != two.d_inode.is_dir():
            step = 1 if one.d_inode.is_dir() else -1
            first.d_inode.i_nlink -= step
            second.d_inode.i_nlink += step
        first.d_children[one.d_name], second.d_children[two.d_name] = two, one
        one.d_name, two.d_name = two.d_name, one.d_name
        one.d_parent, two.d_parent = second, first
        for parent in (first, second):
            parent.d_inode.i_mtime = parent.d_inode.i_ctime = self.i_sb.kernel.vfs.now()

    def tmpfile(self, mode: int, task: Task) -> Inode:
        inode = self.new_inode(mode, task)
        inode.i_nlink = 0
        return inode

    # content

    def get_link(self, task: Task) -> bytes | Path:
        return self.target

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        kind = self.i_mode & S_IFMT
        if kind == S_IFREG:
            return MemoryFile(path, self, flags)
        if kind == S_IFDIR:
            return DirFile(path, self, flags)
        if kind == S_IFSOCK:
            raise Errno(errno.ENXIO)
        special: OpenFile = task.kernel.vfs.open_special(path, self, flags, task)
        return special

    def write_data(self, task: Task, pos: int, data: bytes) -> int:
        """generic_perform_write(): bytes written. Raises ENOSPC."""
        if self.i_mapping is None:
            raise Errno(errno.EINVAL)
        self.i_mtime = self.i_ctime = self.i_sb.kernel.vfs.now()
        return shmem_write(self.i_mapping, pos, data)

    def truncate(self, size: int) -> None:
        if self.i_mapping is None:
            raise Errno(errno.EINVAL)
        shmem_truncate(self.i_mapping, size)
        self.i_mtime = self.i_ctime = self.i_sb.kernel.vfs.now()

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        """shmem_fallocate(). Raises EOPNOTSUPP, ENOSPC, EFBIG."""
        if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
            raise Errno(errno.EOPNOTSUPP)
        if self.i_mapping is None:
            raise Errno(errno.ENODEV)
        if not mode & FALLOC_FL_PUNCH_HOLE:
            from guest.sys_file import newsize_ok

            newsize_ok(task, self, offset + length)  # with FALLOC_FL_KEEP_SIZE too
        shmem_fallocate(self.i_mapping, mode, offset, length)
        self.i_ctime = self.i_sb.kernel.vfs.now()

    def writeback(self) -> None:
        """Nothing: memory is the only home."""

    def evict(self) -> None:
        self.i_sb.live_inodes -= 1
        mapping = self.i_mapping
        if mapping is not None:
            shmem_evict_inode(mapping)
