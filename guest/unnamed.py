"""Files of mm/ that never had a name, as places of the guest: what /proc/PID/map_files leads to.

A System V segment and shared anonymous memory have a file (shmem_kernel_file_setup(), mode 0777) that only areas hold.
Whoever opens it through its link holds it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.file import MemoryFile
from guest.hugetlbfs import HugetlbfsFile, HugetlbfsInode, internal_super
from guest.tmpfs import TmpfsInode
from guest.tty import anonymous_path
from guest.vfs_flags import S_IFREG
from mm.util import fput, get_file

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task
    from guest.vfs_types import Path, SuperBlock


class UnnamedFile(MemoryFile):
    """Opened through a link: keeps the file of mm/."""

    f_inode: UnnamedInode

    def release(self) -> None:
        super().release()
        fput(self.f_inode.backing)


class UnnamedHugetlbFile(HugetlbfsFile):
    """The same for huge pages."""

    f_inode: UnnamedHugetlbInode

    def release(self) -> None:
        super().release()
        fput(self.f_inode.backing)


class UnnamedInode(TmpfsInode):
    """The inode of `backing`, whose pages are that file's; made anew for every look."""

    file_type: type[Any] = UnnamedFile

    def __init__(self, sb: Any, backing: Any) -> None:
        self.backing = backing
        super().__init__(sb, S_IFREG | 0o777, ino=backing.ino)
        sb.live_inodes -= 1  # it counts for nobody
        self.i_nlink = 0

    def make_mapping(self) -> None:
        self.i_mapping = self.backing.f_mapping

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        get_file(self.backing)
        file: OpenFile = self.file_type(path, self, flags)
        return file

    def evict(self) -> None:
        """Nothing: the pages are not this inode's."""


class UnnamedHugetlbInode(UnnamedInode, HugetlbfsInode):
    """The same for huge pages."""

    file_type = UnnamedHugetlbFile


def path_of(task: Task, file: Any) -> Path:
    """Where the file of an area lies."""
    if hasattr(file, "f_path"):
        path: Path = file.f_path
        return path
    backing = getattr(file, "sfd_file", file)  # an attachment of a segment, or the file itself
    kernel = task.kernel
    sb: SuperBlock
    if backing.huge_shift:
        sb = internal_super(kernel, backing.f_mapping.private.hstate)
        inode: UnnamedInode = UnnamedHugetlbInode(sb, backing)
    else:
        sb = kernel.vfs.shmfs
        inode = UnnamedInode(sb, backing)
    return anonymous_path(sb, inode, backing.d_path().encode("utf-8", "surrogateescape"))
