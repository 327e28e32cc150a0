"""What the files of /proc/PID say (fs/proc/base.c, array.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.cred import CAP_SYS_NICE, CAP_SYS_RESOURCE
from guest.procfs import (
    DIR,
    LINK,
    SINGLE,
    SPECIAL,
    TEXT,
    Entry,
    ProcFdInfos,
    ProcFds,
    ProcTasks,
    may_follow,
    ptrace_may_access,
)
from guest.procfs_maps import VmaFile
from guest.procfs_mem import open_mem, open_pagemap, show_nothing, store_clear_refs
from guest.procfs_mounts import open_mountinfo, open_mounts, open_mountstats
from guest.procfs_pid import (
    MAP_FILES_FOLDER,
    NET_FOLDER,
    NS_FOLDER,
    show_syscall,
    show_timers,
)
from guest.procfs_smaps import open_smaps, show_smaps_rollup
from guest.procfs_status import get_mm_counter, show_limits, show_stat, show_statm, show_status, show_tid_stat
from guest.time_namespace import show_timens_offsets, store_timens_offsets
from mm.errors import Errno
from mm.mmdump import mmdump
from mm.uaccess import access_process_vm

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path

OOM_SCORE_ADJ_MIN = -1000


def open_maps(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """proc_pid_maps_operations."""
    return VmaFile(path, inode, flags, task)


def show_mmdump(inode: ProcInode, task: Task) -> str:
    """The task's mm, in the format of /proc/mmdump."""
    return mmdump(inode.task)


def open_numa_maps(path: Path, inode: ProcInode, flags: int, task: Task) -> OpenFile:
    """Rarely asked for, so imported then."""
    from guest.procfs_numa import open_numa_maps as opener

    return opener(path, inode, flags, task)


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
    words = mm.saved_auxv
    end = next((index + 2 for index in range(0, len(words), 2) if not words[index]), 0)
    return b"".join(word.to_bytes(8, "little") for word in words[:end])


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
    extra: str = file.show_fdinfo(inode.i_sb)
    return f"pos:\t{file.f_pos}\nflags:\t0{flags:o}\nmnt_id:\t{file.f_path.mnt.mnt_id}\n" + extra


# small values


def show_personality(inode: ProcInode, task: Task) -> str:
    """proc_pid_personality(). Raises EPERM."""
    trace_only(inode, task)
    return f"{inode.task.personality:08x}\n"


def trace_only(inode: ProcInode, task: Task) -> None:
    """lock_trace(). Raises EPERM."""
    if not ptrace_may_access(task, inode.task):
        raise Errno(errno.EPERM)


def show_wchan(inode: ProcInode, task: Task) -> str:
    """proc_pid_wchan(): no symbol to show."""
    return "0"


def show_timerslack(inode: ProcInode, task: Task) -> str:
    """timerslack_ns_show(). Raises EPERM."""
    if inode.task is not task and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    return f"{inode.task.timer_slack_ns}\n"


def store_timerslack(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """timerslack_ns_write(): 0 means the default."""
    if inode.task is not task and not task.capable(CAP_SYS_NICE):
        raise Errno(errno.EPERM)
    inode.task.timer_slack_ns = parse_int(data) or inode.task.default_timer_slack_ns
    return len(data)


def show_coredump_filter(inode: ProcInode, task: Task) -> str:
    """proc_coredump_filter_read()."""
    mm = inode.task.mm
    return f"{mm.flags >> 2 & 0x1FF:08x}\n" if mm is not None else ""


def store_coredump_filter(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """proc_coredump_filter_write()."""
    mm, value = inode.task.mm, parse_int(data)
    if mm is None:
        raise Errno(errno.ESRCH)
    mm.flags = mm.flags & ~(0x1FF << 2) | (value & 0x1FF) << 2
    return len(data)


def parse_int(data: bytes) -> int:
    """kstrtoint(strstrip(), 0). Raises EINVAL."""
    text = data.partition(b"\0")[0].strip()
    if text.endswith(b"\n"):
        text = text[:-1]
    sign = -1 if text[:1] == b"-" else 1
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    base = 16 if digits[:2].lower() == b"0x" else 8 if digits[:1] == b"0" and len(digits) > 1 else 10
    digits = digits[2:] if base == 16 else digits
    if b"_" in digits or not digits or digits[:1] in (b"+", b"-", b" "):
        raise Errno(errno.EINVAL)
    try:
        return sign * int(digits, base)
    except ValueError:
        raise Errno(errno.EINVAL) from None


# the out-of-memory killer's view


def show_oom_score(inode: ProcInode, task: Task) -> str:
    """proc_oom_score() over oom_badness()."""
    subject, system = inode.task, task.system
    mm, adjust = subject.mm, subject.signal.oom_score_adj
    total: int = system.totalram_pages
    if mm is None or adjust == OOM_SCORE_ADJ_MIN or subject.pid == 1:
        return "0\n"
    used = sum(get_mm_counter(mm, index) for index in range(4)) + mm.pgtables_bytes // system.arch.page_size
    badness = used + adjust * (total // 1000)
    scaled = badness * 1000
    scaled = abs(scaled) // total * (1 if scaled >= 0 else -1)
    return f"{(1000 + scaled) * 2 // 3}\n"


def show_oom_score_adj(inode: ProcInode, task: Task) -> str:
    """oom_score_adj_read()."""
    return f"{inode.task.signal.oom_score_adj}\n"


def store_oom_score_adj(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """oom_score_adj_write(). Raises EINVAL, EACCES."""
    value = parse_int(data[:12])
    if not OOM_SCORE_ADJ_MIN <= value <= 1000:
        raise Errno(errno.EINVAL)
    signal = inode.task.signal
    if value < signal.oom_score_adj_min and not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EACCES)
    signal.oom_score_adj = value
    if task.capable(CAP_SYS_RESOURCE):
        signal.oom_score_adj_min = value
    return min(len(data), 12)


def show_oom_adj(inode: ProcInode, task: Task) -> str:
    """oom_adj_read(): the old scale, -17 to 15."""
    value = inode.task.signal.oom_score_adj
    if value == 1000:
        return "15\n"
    scaled = abs(value) * 17 // 1000 * (1 if value >= 0 else -1)
    return f"{min(scaled, 15)}\n"


def store_oom_adj(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """oom_adj_write(). Raises EINVAL, EACCES."""
    value = parse_int(data[:12])
    if not -17 <= value <= 15:
        raise Errno(errno.EINVAL)
    scaled = 1000 if value == 15 else abs(value) * 1000 // 17 * (1 if value >= 0 else -1)
    signal = inode.task.signal
    if scaled < signal.oom_score_adj and not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EACCES)
    signal.oom_score_adj = scaled
    return min(len(data), 12)


def show_children(inode: ProcInode, task: Task) -> str:
    """children_seq_show(): pids, each with a blank behind it."""
    return "".join(f"{inode.i_sb.pid_nr(child.pid)} " for child in inode.task.children)


_FOLDERS: dict[bytes, Entry] = {
    b"fd": Entry(0o500, DIR, ProcFds),
    b"fdinfo": Entry(0o500, DIR, ProcFdInfos),
    b"ns": NS_FOLDER,
    b"net": NET_FOLDER,
}
_IDENTITY: dict[bytes, Entry] = {
    b"environ": Entry(0o400, TEXT, show_environ),
    b"auxv": Entry(0o400, TEXT, show_auxv),
    b"status": Entry(0o444, SINGLE, show_status),
    b"personality": Entry(0o400, SINGLE, show_personality),
    b"limits": Entry(0o444, SINGLE, show_limits),
    b"comm": Entry(0o644, SINGLE, show_comm, store_comm),
    b"syscall": Entry(0o400, SINGLE, show_syscall),
    b"cmdline": Entry(0o444, TEXT, show_cmdline),
}
_MEMORY: dict[bytes, Entry] = {
    b"statm": Entry(0o444, SINGLE, show_statm),
    b"maps": Entry(0o444, SPECIAL, open_maps),
    b"mmdump": Entry(0o444, SINGLE, show_mmdump),
    b"numa_maps": Entry(0o444, SPECIAL, open_numa_maps),
    b"mem": Entry(0o600, SPECIAL, open_mem),
    b"cwd": Entry(0o777, LINK, cwd_link),
    b"root": Entry(0o777, LINK, root_link),
    b"exe": Entry(0o777, LINK, exe_link),
    b"mounts": Entry(0o444, SPECIAL, open_mounts),
    b"mountinfo": Entry(0o444, SPECIAL, open_mountinfo),
    b"clear_refs": Entry(0o200, TEXT, show_nothing, store_clear_refs),
    b"smaps": Entry(0o444, SPECIAL, open_smaps),
    b"smaps_rollup": Entry(0o444, SINGLE, show_smaps_rollup),
    b"pagemap": Entry(0o400, SPECIAL, open_pagemap),
    b"wchan": Entry(0o444, SINGLE, show_wchan),
    b"oom_score": Entry(0o444, SINGLE, show_oom_score),
    b"oom_adj": Entry(0o644, TEXT, show_oom_adj, store_oom_adj),
    b"oom_score_adj": Entry(0o644, TEXT, show_oom_score_adj, store_oom_score_adj),
}
PID_TABLE: dict[bytes, Entry] = {
    b"task": Entry(0o555, DIR, ProcTasks),
    b"map_files": MAP_FILES_FOLDER,
    **_FOLDERS,
    **_IDENTITY,
    b"timens_offsets": Entry(0o644, SINGLE, show_timens_offsets, store_timens_offsets),
    b"stat": Entry(0o444, SINGLE, show_stat),
    **_MEMORY,
    b"mountstats": Entry(0o400, SPECIAL, open_mountstats),
    b"coredump_filter": Entry(0o644, TEXT, show_coredump_filter, store_coredump_filter),
    b"timers": Entry(0o444, SINGLE, show_timers),
    b"timerslack_ns": Entry(0o666, SINGLE, show_timerslack, store_timerslack),
}
TID_TABLE: dict[bytes, Entry] = {
    **_FOLDERS,
    **_IDENTITY,
    b"stat": Entry(0o444, SINGLE, show_tid_stat),
    b"children": Entry(0o444, SINGLE, show_children),
    **_MEMORY,
}
