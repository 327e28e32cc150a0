"""What the files of /proc/PID say (fs/proc/base.c, array.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.procfs import DIR, LINK, SINGLE, SPECIAL, TEXT, Entry, ProcFdInfos, ProcFds, ProcTasks, may_follow
from guest.procfs_maps import VmaFile
from mm.errors import Errno
from mm.mmdump import mmdump
from mm.uaccess import access_process_vm

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path


def open_maps(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """proc_pid_maps_operations."""
    return VmaFile(path, inode, flags, task)


def show_mmdump(inode: ProcInode, task: Task) -> str:
    """The task's mm, in the format of /proc/mmdump."""
    return mmdump(inode.task)


# links


def exe_link(inode: ProcInode, task: Task) -> Path:
    """proc_exe_link(). Raises ENOENT for a task without a program."""
    may_follow(inode, task)
    mm = inode.task.mm
    file: Any = mm.exe_file if mm is not None else None
    if file is None:
        raise Errno(errno.ENOENT)
    path: Path = file.f_path
    return path


def cwd_link(inode: ProcInode, task: Task) -> Path:
    """proc_cwd_link()."""
    may_follow(inode, task)
    return _fs(inode).pwd  # type: ignore[no-any-return]


def root_link(inode: ProcInode, task: Task) -> Path:
    """proc_root_link()."""
    may_follow(inode, task)
    return _fs(inode).root  # type: ignore[no-any-return]


def _fs(inode: ProcInode) -> Any:
    """The folders of a live task. Raises ENOENT."""
    fs = inode.task.fs
    if fs is None:
        raise Errno(errno.ENOENT)
    return fs


# memory of the task


def show_cmdline(inode: ProcInode, task: Task) -> bytes:
    """get_mm_cmdline(): the argument strings; what setproctitle wrote over them, when it ran past their end."""
    mm = inode.task.mm
    if mm is None or not mm.env_end:
        return b""
    length = mm.arg_end - mm.arg_start
    if length <= 0:
        return b""
    data = access_process_vm(mm, mm.arg_start, length)
    if data[-1:] != b"\0" and mm.env_start == mm.arg_end:
        more = data + access_process_vm(mm, mm.env_start, min(mm.env_end - mm.env_start, 4096))
        end = more.find(b"\0", length - 1)
        data = more[: end if end >= 0 else len(more)]
    return data


def show_environ(inode: ProcInode, task: Task) -> bytes:
    """environ_read()."""
    mm = inode.access_mm(task)
    if mm is None or not mm.env_end:
        return b""
    return access_process_vm(mm, mm.env_start, mm.env_end - mm.env_start)


def show_auxv(inode: ProcInode, task: Task) -> bytes:
    """auxv_read(): pairs of words up to AT_NULL."""
    mm = inode.access_mm(task)
    if mm is None:
        return b""
    words = list(mm.saved_auxv)
    return b"".join(word.to_bytes(8, "little") for word in words)


def show_comm(inode: ProcInode, task: Task) -> str:
    """comm_show()."""
    return inode.task.comm + "\n"


def store_comm(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """comm_write(): threads of the same process only. Raises EINVAL."""
    if inode.task.tgid != task.tgid:
        raise Errno(errno.EINVAL)
    inode.task.comm = data[:15].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return len(data)


def show_fdinfo(inode: ProcInode, task: Task) -> str:
    """seq_show() of fs/proc/fd.c."""
    files = inode.task.files
    file = files.get_raw(int(inode.name))
    flags = task.kernel.vfs.abi.flags_out(file.f_flags)
    if int(inode.name) in files.close_on_exec_fds:
        flags |= 0o2000000
    return f"pos:\t{file.f_pos}\nflags:\t0{flags:o}\nmnt_id:\t{file.f_path.mnt.mnt_id}\n" + file.show_fdinfo()


PID_TABLE: dict[bytes, Entry] = {
    b"task": Entry(0o555, DIR, ProcTasks),
    b"fd": Entry(0o500, DIR, ProcFds),
    b"fdinfo": Entry(0o500, DIR, ProcFdInfos),
    b"environ": Entry(0o400, TEXT, show_environ),
    b"auxv": Entry(0o400, TEXT, show_auxv),
    b"comm": Entry(0o644, SINGLE, show_comm, store_comm),
    b"cmdline": Entry(0o444, TEXT, show_cmdline),
    b"maps": Entry(0o444, SPECIAL, open_maps),
    b"cwd": Entry(0o777, LINK, cwd_link),
    b"root": Entry(0o777, LINK, root_link),
    b"exe": Entry(0o777, LINK, exe_link),
    b"mmdump": Entry(0o444, SINGLE, show_mmdump),
}
