"""/proc/PID/mounts, mountinfo, mountstats (fs/proc_namespace.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.namespace import current_ns
from guest.procfs_file import SeqFile
from guest.vfs_flags import POLLERR, POLLPRI
from guest.vfs_types import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    MNT_RELATIME,
)
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.kernel import Kernel
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Dentry, Mount, Path


_MNT_OPTIONS = (
    (MNT_NOSUID, ",nosuid"), (MNT_NODEV, ",nodev"), (MNT_NOEXEC, ",noexec"), (MNT_NOATIME, ",noatime"),
    (MNT_NODIRATIME, ",nodiratime"), (MNT_RELATIME, ",relatime"), (MNT_NOSYMFOLLOW, ",nosymfollow"),
)  # fmt: skip


def mangle(text: bytes) -> str:
    r"""Blank, tab, newline and backslash as \ooo."""
    out = "".join(f"\\{byte:03o}" if byte in b" \t\n\\" else chr(byte) for byte in text)
    return out.encode("latin-1").decode("utf-8", "surrogateescape")


class MountsFile(SeqFile):
    """One record a mount that lies below the task's root."""

    style = 0  # 0 mounts, 1 mountinfo, 2 mountstats

    def __init__(self, path: Path, inode: ProcInode, flags: int, style: int) -> None:
        super().__init__(path, inode, flags)
        self.style = style
        fs = inode.task.fs
        if fs is None:
            raise Errno(errno.EINVAL)  # a zombie: no namespaces, mounts_open_common()
        self.root: Path = fs.root
        self.space = current_ns(inode.task)
        self.seen = mounts_now(inode.i_sb.kernel)

    def seq_start(self, task: Task) -> Any:
        mounts = [mnt for mnt in task.kernel.vfs.mounts if mnt.mnt_ns is self.space]
        return mounts[self.index] if self.index < len(mounts) else None

    def seq_next(self, task: Task, record: Any) -> Any:
        self.index += 1
        return self.seq_start(task)

    def seq_show(self, task: Task, record: Any) -> str:
        where, reached = task.kernel.vfs.prepend_path(record, record.mnt_root, self.root)
        if not reached:
            return ""
        place = mangle(where or b"/")
        return (show_vfsmnt, show_mountinfo, show_mountstats)[self.style](record, place)

    def poll(self, task: Task) -> int:
        """mounts_poll(): an error once whenever the table has changed."""
        before, self.seen = self.seen, mounts_now(task.kernel)
        changed = POLLERR | POLLPRI if before != self.seen else 0
        return super().poll(task) & ~(POLLERR | POLLPRI) | changed


def mounts_now(kernel: Kernel) -> list[tuple[int, int]]:
    """What a change of the table is told by."""
    return [(mnt.mnt_id, mnt.mnt_parent.mnt_id) for mnt in kernel.vfs.mounts]


def _options(mnt: Mount) -> str:
    """show_mnt_opts()."""
    return "".join(name for flag, name in _MNT_OPTIONS if mnt.mnt_flags & flag)


def show_vfsmnt(mnt: Mount, place: str) -> str:
    """One line of /proc/mounts."""
    mode = "ro" if mnt.mnt_readonly else "rw"
    sb = mnt.mnt_sb
    options = f"{mode}{sb.s_flag_names}{_options(mnt)}{sb.s_options}"
    return f"{mangle(mnt.mnt_devname.encode())} {place} {sb.s_type} {options} 0 0\n"


def show_mountinfo(mnt: Mount, place: str) -> str:
    """One line of mountinfo."""
    sb = mnt.mnt_sb
    mode = "ro" if mnt.mnt_flags & MNT_READONLY else "rw"
    whole = "ro" if sb.s_readonly else "rw"
    inner = mangle(_path_within(mnt.mnt_root))
    optional = ""
    if mnt.shared is not None or mnt.master is not None or mnt.unbindable:
        from guest.propagation import tags

        optional = tags(mnt)
    return (
        f"{mnt.mnt_id} {mnt.mnt_parent.mnt_id} {sb.s_dev >> 20}:{sb.s_dev & 0xFFFFF} {inner} {place} {mode}"
        f"{_options(mnt)}{optional} - {sb.s_type} {mangle(mnt.mnt_devname.encode())}"
        f" {whole}{sb.s_flag_names}{sb.s_options}\n"
    )


def _path_within(dentry: Dentry) -> bytes:
    """The path of a mount's root in its file system (seq_dentry())."""
    if dentry.d_dname is not None:
        return dentry.d_dname
    names: list[bytes] = []
    while dentry.d_parent is not dentry:
        names.append(dentry.d_name)
        dentry = dentry.d_parent
    return b"/" + b"/".join(reversed(names))


def show_mountstats(mnt: Mount, place: str) -> str:
    """show_vfsstat()."""
    return f"device {mangle(mnt.mnt_devname.encode())} mounted on {place} with fstype {mnt.mnt_sb.s_type}\n"


def open_mounts(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """/proc/PID/mounts."""
    return MountsFile(path, inode, flags, 0)


def open_mountinfo(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """/proc/PID/mountinfo."""
    return MountsFile(path, inode, flags, 1)


def open_mountstats(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """/proc/PID/mountstats."""
    return MountsFile(path, inode, flags, 2)
