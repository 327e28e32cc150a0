"""/sys as a file system (fs/sysfs, fs/kernfs): folders, links, and files read and written at once.

The names and what stands in them are sysfs_tree.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.procfs import DIR, LINK, Entry, ProcInode
from guest.vfs_flags import FMODE_WRITE
from guest.vfs_types import Dentry, SuperBlock
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.kernel import Kernel
    from guest.task import Task
    from guest.vfs_types import Path

SYSFS_MAGIC = 0x62656572
_PAGE = 4096


class SysfsFile(OpenFile):
    """kernfs: the text at once, and a write as one."""

    has_read_iter = has_write_iter = True

    f_inode: SysfsInode

    def read(self, task: Task, pos: int, count: int) -> bytes:
        text: bytes = self.f_inode.knob.text(task).encode()
        return text[pos : pos + count]

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if data:
            self.f_inode.knob.put(task, data)
        return len(data)


class SysfsInode(ProcInode):
    """A file, folder or link of /sys."""

    knob: Any = None

    def make(self, name: bytes, entry: Entry, number: int) -> ProcInode:
        kind = {DIR: 0o040000, LINK: 0o120000}.get(entry.kind, 0o100000)
        inode = SysfsInode(self.i_sb, entry.mode | kind, number)
        inode.name, inode.kind = name, entry.kind
        inode.size = 0 if entry.kind in (DIR, LINK) else _PAGE
        if entry.kind == DIR:
            inode.table = entry.show
            inode.i_nlink = 2 + sum(below.kind == DIR for below in entry.show.values())
        else:
            inode.knob = entry.show
        return inode

    def numbers(self) -> int:
        return self.i_ino * 64

    def get_link(self, task: Task) -> bytes | Path:
        if self.kind != LINK:
            raise Errno(22)  # EINVAL
        target: bytes = self.knob
        return target

    def permission(self, task: Task, mask: int) -> int | None:
        return None

    def getattr(self) -> None:
        return

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        if self.kind == DIR:
            return super().open(path, flags, task)
        file = SysfsFile(path, self, flags)
        if file.f_mode & FMODE_WRITE and not self.i_mode & 0o222:  # kernfs_fop_open(): root as well
            raise Errno(13)  # EACCES
        return file


class SysfsRoot(SysfsInode):
    """/sys. Its tree is made when somebody looks."""

    def fill(self) -> None:
        """Make the tree."""
        if not self.table:
            from guest.sysfs_tree import make_tree

            kernel = self.i_sb.kernel
            self.table = make_tree(kernel.system.arch, kernel.vfs.abi.hugepage_kb(kernel.system.page_size))

    def getattr(self) -> None:
        self.fill()
        self.i_nlink = 2 + len(self.table)

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        self.fill()
        return super().lookup(parent, name)

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        self.fill()
        yield from super().iterate(parent, task)


class SysfsSuper(SuperBlock):
    """The file system."""

    def __init__(self, kernel: Kernel, s_dev: int) -> None:
        super().__init__(kernel, "sysfs", s_dev, SYSFS_MAGIC)
        self.root = Dentry(b"", None, SysfsRoot(self, 0o040555, 1))

    def blksize(self) -> int:
        return _PAGE
