"""/proc/PID/mounts, mountinfo, mountstats (fs/proc_namespace.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.procfs_file import SeqFile
from guest.vfs_flags import POLLERR, POLLPRI
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Mount, Path


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

    def seq_start(self, task: Task) -> Any:
        mounts = task.kernel.vfs.mounts
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
        """Mount tables change by mounting only, which a guest cannot do."""
        return super().poll(task) & ~(POLLERR | POLLPRI)


def _options(mnt: Mount) -> str:
    """show_mnt_opts()."""
    return ",relatime" if mnt.mnt_relatime else ""


def show_vfsmnt(mnt: Mount, place: str) -> str:
    """One line of /proc/mounts."""
    mode = "ro" if mnt.mnt_readonly else "rw"
    sb = mnt.mnt_sb
    return f"{mangle(mnt.mnt_devname.encode())} {place} {sb.s_type} {mode}{_options(mnt)}{sb.s_options} 0 0\n"


def show_mountinfo(mnt: Mount, place: str) -> str:
    """One line of mountinfo."""
    sb = mnt.mnt_sb
    mode = "ro" if mnt.mnt_readonly else "rw"
    return (
        f"{mnt.mnt_id} {mnt.mnt_parent.mnt_id} {sb.s_dev >> 20}:{sb.s_dev & 0xFFFFF} / {place} {mode}{_options(mnt)}"
        f" - {sb.s_type} {mangle(mnt.mnt_devname.encode())} rw{sb.s_options}\n"
    )


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
