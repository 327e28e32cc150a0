"""hugetlbfs as a file system (the VFS part of fs/hugetlbfs/inode.c): memfds of huge pages, and what is mounted.

It is a tmpfs whose regular files are huge pages (mm/hugetlb_file.py). What differs is said here: files can not be
written, sizes are whole huge pages, and `size`, `min_size` and `nr_inodes` bound a mount.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.file import MemoryFile, OpenFile
from guest.tmpfs import TmpfsInode, TmpfsSuper
from guest.tty import anonymous_path
from guest.vfs_flags import (
    FMODE_LSEEK,
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    O_LARGEFILE,
    O_RDWR,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    S_ISGID,
    SEEK_DATA,
    SEEK_HOLE,
    SEEK_SET,
)
from mm.errors import Errno
from mm.hugetlb_file import (
    hstate_for,
    hugetlbfs_evict_inode,
    hugetlbfs_fallocate,
    hugetlbfs_file_mmap,
    hugetlbfs_read,
    hugetlbfs_truncate,
    new_hugetlb_mapping,
)
from mm.hugetlb_pool import hugetlb_pools
from mm.hugetlb_resv import Subpool, hugepage_new_subpool

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task
    from guest.vfs_types import Dentry, Inode, Path
    from mm.hugetlb_pool import Hstate
    from mm.types import VmAreaStruct

HUGETLBFS_MAGIC = 0x958458F6
_UNITS = "KMGTPE"


class HugetlbfsSuper(TmpfsSuper):
    """One hugetlbfs: mounted by a program, or the kernel's own for files without a name."""

    def __init__(
        self, kernel: Kernel, s_dev: int, hstate: Hstate, mode: int = 0o755, subpool: Subpool | None = None,
        nr_inodes: int = -1,
    ) -> None:  # fmt: skip
        self.hstate = hstate
        self.subpool = subpool
        super().__init__(kernel, s_dev, mode, "hugetlbfs")
        self.s_magic = HUGETLBFS_MAGIC
        self.max_inodes = nr_inodes if nr_inodes >= 0 else 1 << 62
        self.nr_inodes = nr_inodes

    def new_root(self, mode: int) -> Inode:
        return HugetlbfsInode(self, S_IFDIR | mode)

    def blksize(self) -> int:
        return self.hstate.size

    def statfs(self) -> tuple[int, int, int, int, int, int]:
        """hugetlbfs_statfs(): zeroes without limits."""
        if self.subpool is None:
            return self.hstate.size, 0, 0, 0, 0, 0
        mask = (1 << 64) - 1
        free = (self.subpool.max_hpages - self.subpool.used_hpages) & mask
        left = self.nr_inodes - self.live_inodes if self.nr_inodes >= 0 else -1
        return self.hstate.size, self.subpool.max_hpages & mask, free, free, self.nr_inodes & mask, left & mask

    def unmounted(self) -> None:
        """Its files go, and its promise of pages."""
        super().unmounted()
        if self.subpool is not None:
            self.subpool.put()


class HugetlbfsInode(TmpfsInode):
    """A file or folder of hugetlbfs."""

    i_sb: HugetlbfsSuper

    def make_mapping(self) -> None:
        self.i_mapping = new_hugetlb_mapping(self.i_sb.hstate, self, self.i_sb.subpool)

    @property
    def i_size(self) -> int:
        """Folders have none."""
        if self.i_mapping is not None:
            return self.i_mapping.i_size
        return len(self.target)

    @property
    def i_blocks(self) -> int:
        blocks: int = self.i_mapping.private.blocks if self.i_mapping is not None else 0
        return blocks

    def new_inode(self, mode: int, task: Task) -> HugetlbfsInode:
        gid = task.cred.fsgid
        if self.i_mode & S_ISGID:  # inode_init_owner()
            gid = self.i_gid
            if mode & S_IFMT == S_IFDIR:
                mode |= S_ISGID
        if self.i_sb.live_inodes >= self.i_sb.max_inodes:
            raise Errno(errno.ENOSPC)
        return HugetlbfsInode(self.i_sb, mode, task.cred.fsuid, gid)

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        if self.i_mode & S_IFMT == S_IFREG:
            return HugetlbfsFile(path, self, flags)
        return super().open(path, flags, task)

    def symlink(self, parent: Dentry, name: bytes, target: bytes, task: Task) -> Dentry:
        raise Errno(errno.EINVAL)  # its text would have to be written to a file of huge pages

    def write_data(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.EINVAL)

    def truncate(self, size: int) -> None:
        if self.i_mapping is None:
            raise Errno(errno.EINVAL)
        hugetlbfs_truncate(self.i_mapping, size)
        self.i_mtime = self.i_ctime = self.i_sb.kernel.vfs.now()

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        raise Errno(errno.EOPNOTSUPP)  # the open file does it

    def evict(self) -> None:
        self.i_sb.live_inodes -= 1
        if self.i_mapping is not None:
            hugetlbfs_evict_inode(self.i_mapping)


class HugetlbfsFile(MemoryFile):
    """hugetlbfs_file_operations."""

    f_inode: HugetlbfsInode

    @property
    def huge_shift(self) -> int:
        """log2 of the size of the pages."""
        return self.f_inode.i_sb.hstate.shift

    def read_at(self, offset: int, count: int) -> bytes:
        return hugetlbfs_read(self.f_mapping, offset, count)

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if not self.f_mode & FMODE_READ:
            raise Errno(errno.EBADF)
        return hugetlbfs_read(self.f_mapping, pos, count)

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(errno.EINVAL)  # there is no ->write_iter

    def mmap(self, vma: VmAreaStruct) -> None:
        hugetlbfs_file_mmap(self, vma)
        self.accessed()

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        """default_llseek(): the file is all data, and has one hole behind its end."""
        if whence in (SEEK_DATA, SEEK_HOLE):
            if offset >= self.f_inode.i_size:
                raise Errno(errno.ENXIO)
            offset = self.f_inode.i_size if whence == SEEK_HOLE else offset
            whence = SEEK_SET
        return self.seek_within(offset, whence, self.f_inode.i_size)

    def fallocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        hugetlbfs_fallocate(self, mode, offset, length)
        self.f_inode.i_ctime = self.f_inode.i_sb.kernel.vfs.now()


def internal_super(kernel: Kernel, hstate: Hstate) -> HugetlbfsSuper:
    """The kernel's own mount for one size (hugetlbfs_vfsmount), made when first needed."""
    vfs = kernel.vfs
    sb: HugetlbfsSuper | None = vfs.hugetlbfs.get(hstate.shift)
    if sb is None:
        sb = vfs.hugetlbfs[hstate.shift] = HugetlbfsSuper(kernel, vfs.alloc_dev(), hstate)
        vfs.internal_mount(sb)
    return sb


def memfd_hugetlb(task: Task, name: bytes, page_size_log: int) -> MemoryFile:
    """The file of memfd_create(MFD_HUGETLB). Raises Errno(ENODEV) for a size there is not."""
    kernel = task.kernel
    sb = internal_super(kernel, hstate_for(kernel.system, page_size_log))
    inode = HugetlbfsInode(sb, S_IFREG | 0o777, task.cred.fsuid, task.cred.fsgid)
    inode.i_nlink = 0
    file = HugetlbfsFile(anonymous_path(sb, inode, b"/memfd:" + name + b" (deleted)"), inode, O_RDWR | O_LARGEFILE)
    file.f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE
    return file


# -- mount options ---------------------------------------------------------------------------------------------------


def memparse(text: str) -> tuple[int, str]:
    """A number with a unit, 1K = 1024 (lib/cmdline.c); (bytes, what follows)."""
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    rest = text[len(digits) :]
    value = int(digits or "0")
    if rest and rest[0].upper() in _UNITS:
        value <<= 10 * (_UNITS.index(rest[0].upper()) + 1)
        rest = rest[1:]
    return value, rest


def _hpages(hstate: Hstate, text: str | None) -> int:
    """A size option in huge pages, -1 where it is not given. Raises Errno(EINVAL)."""
    if text is None:
        return -1
    if not text[:1].isdigit():
        raise Errno(errno.EINVAL)
    value, rest = memparse(text)
    if rest.startswith("%"):
        value = (value << hstate.shift) * hstate.persistent_huge_pages // 100
    return value >> hstate.shift


def check_pagesize(task: Task, text: str) -> None:
    """Whether huge pages of this size are there. Raises Errno(EINVAL)."""
    size = memparse(text)[0]
    if all(h.size != size for h in hugetlb_pools(task.kernel.system).hstates):
        raise Errno(errno.EINVAL)


def new_hugetlbfs(task: Task, s_dev: int, data: str) -> HugetlbfsSuper:
    """A file system with the options of mount(2): uid gid mode pagesize size min_size nr_inodes.

    Raises:
        Errno: EINVAL for an option or value it does not know, ENOMEM when min_size can not be promised.
    """
    kernel = task.kernel
    options = dict.fromkeys(("uid", "gid", "mode", "pagesize", "size", "min_size", "nr_inodes"))
    given: dict[str, str | None] = dict(options)
    for option in filter(None, data.split(",")):
        key, equals, value = option.partition("=")
        if key not in given or not equals:
            raise Errno(errno.EINVAL)
        given[key] = value
    pools = hugetlb_pools(kernel.system)
    hstate = pools.default
    if given["pagesize"] is not None:
        size = memparse(given["pagesize"])[0]
        found = next((h for h in pools.hstates if h.size == size), None)
        if found is None:
            raise Errno(errno.EINVAL)
        hstate = found
    try:
        uid = int(given["uid"] or task.cred.fsuid)
        gid = int(given["gid"] or task.cred.fsgid)
        mode = int(given["mode"] or "755", 8) & 0o1777
    except ValueError:
        raise Errno(errno.EINVAL) from None
    inodes = given["nr_inodes"]
    if inodes is not None and not inodes[:1].isdigit():
        raise Errno(errno.EINVAL)
    nr_inodes = memparse(inodes)[0] if inodes is not None else -1
    max_hpages, min_hpages = _hpages(hstate, given["size"]), _hpages(hstate, given["min_size"])
    if max_hpages != -1 and min_hpages > max_hpages:
        raise Errno(errno.EINVAL)
    subpool = None
    if (max_hpages, min_hpages) != (-1, -1):
        subpool = hugepage_new_subpool(hstate, max_hpages, min_hpages)
        if subpool is None:
            raise Errno(errno.ENOMEM)
    sb = HugetlbfsSuper(kernel, s_dev, hstate, mode, subpool, nr_inodes)
    if sb.root is not None:
        sb.root.d_inode.i_uid, sb.root.d_inode.i_gid = uid, gid
    sb.s_options = _show_options(sb, uid, gid, mode)
    return sb


def _show_options(sb: HugetlbfsSuper, uid: int, gid: int, mode: int) -> str:
    """hugetlbfs_show_options()."""
    text = f",uid={uid}" if uid else ""
    text += f",gid={gid}" if gid else ""
    text += f",mode={mode:o}" if mode != 0o755 else ""
    text += f",nr_inodes={sb.nr_inodes}" if sb.nr_inodes != -1 else ""
    kilobytes = sb.hstate.size >> 10
    text += f",pagesize={kilobytes >> 10}M" if kilobytes >= 1024 else f",pagesize={kilobytes}K"
    if sb.subpool is not None:
        shift = sb.hstate.shift
        text += f",size={sb.subpool.max_hpages << shift}" if sb.subpool.max_hpages != -1 else ""
        text += f",min_size={sb.subpool.min_hpages << shift}" if sb.subpool.min_hpages != -1 else ""
    return text
