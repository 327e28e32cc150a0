"""/proc/sys: settings of mm/ and guest/ under the kernel's names (kernel/sysctl.c, fs/proc/proc_sysctl.c).

A setting lives where it is used (`System`, `Kernel`); what nothing uses yet is kept in `kernel.sysctls`, so a program
reads back what it wrote. Parsing is that of proc_dointvec: blanks, a number in C notation, blanks; a write that does
not start at position 0 changes nothing and succeeds.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.procfs import DIR, SPECIAL, Entry, ProcInode
from guest.sys_misc import UTS_RELEASE, utsname
from guest.vfs_flags import MAY_EXEC
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path

_INT_MAX = 0x7FFFFFFF
_NUMBER = re.compile(rb"(-?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_BLANK = b" \t\n\r\v\f"
_TMPBUFLEN = 22


class Knob:
    """One setting.

    Args:
        where: "system" or "kernel" (an attribute of that name's object), or "table" (kernel.sysctls).
        name: attribute or key.
        default: the value of a table entry nobody has set.
        low, high: bounds, inclusive; None for the type's own.
        wide: unsigned long instead of int.
        clears: another attribute of the same object that becomes 0 when this one is written.
    """

    def __init__(
        self, where: str, name: str, default: int = 0, low: int | None = None, high: int | None = None,
        wide: bool = False, clears: str = "",
    ) -> None:  # fmt: skip
        self.where, self.name, self.default = where, name, default
        self.low, self.high, self.wide, self.clears = low, high, wide, clears

    def get(self, task: Task) -> int:
        """The value."""
        if self.where == "table":
            found: int = task.kernel.sysctls.get(self.name, self.default)
            return found
        value: int = getattr(task.system if self.where == "system" else task.kernel, self.name)
        return value

    def text(self, task: Task) -> str:
        """The value as it is read."""
        return f"{self.get(task)}\n"

    def put(self, task: Task, data: bytes) -> int:
        """Parse and set; how many bytes were taken: a second number is left alone. Raises EINVAL."""
        value = self.parse(data)
        first = data.lstrip(_BLANK)
        number = _NUMBER.match(first)
        rest = first[number.end() :] if number else b""
        taken = len(data) - len(rest.lstrip(_BLANK))
        if value is not None:
            self.store(task, value)
        return taken

    def store(self, task: Task, value: int) -> None:
        """Set what was parsed."""
        owner: Any = task.system if self.where == "system" else task.kernel
        if self.where == "table":
            task.kernel.sysctls[self.name] = value
            if self.clears:
                task.kernel.sysctls[self.clears] = 0
        else:
            setattr(owner, self.name, value)
            if self.clears:
                setattr(owner, self.clears, 0)

    def parse(self, data: bytes) -> int | None:
        """The number; None for a negative one where only unsigned ones count. Raises EINVAL."""
        text = data.lstrip(_BLANK)
        found = _NUMBER.match(text[: _TMPBUFLEN - 1])
        if found is None or found.end() == _TMPBUFLEN - 1:
            raise Errno(errno.EINVAL)
        if text[found.end() : found.end() + 1].strip(_BLANK + b"\0"):
            raise Errno(errno.EINVAL)
        digits = found[2]
        octal = digits[:1] == b"0" and len(digits) > 1 and digits[1:2] not in b"xX"
        try:
            value = int(digits, 8 if octal else 0)
        except ValueError:
            raise Errno(errno.EINVAL) from None
        negative = found[1] == b"-"
        if self.wide:
            if negative:
                return None
        elif value > _INT_MAX + negative:
            raise Errno(errno.EINVAL)
        value = -value if negative else value
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise Errno(errno.EINVAL)
        return value


class IpcKnob(Knob):
    """A setting of System V shared memory: `name` is an attribute of the IPC namespace (ipc/ipc_sysctl.c)."""

    def get(self, task: Task) -> int:
        from guest.sys_shm import ipc_ns

        value: int = getattr(ipc_ns(task), self.name)
        return value

    def store(self, task: Task, value: int) -> None:
        from guest.sys_shm import ipc_ns
        from mm.ipc_shm import shm_destroy_orphaned

        ns = ipc_ns(task)
        setattr(ns, self.name, value)
        if self.name == "shm_rmid_forced" and value:
            shm_destroy_orphaned(ns)


class Action(Knob):
    """A setting that only triggers something Linux does to caches; here there is nothing to trigger."""


class HugePages(Knob):
    """How many huge pages are reserved: a request is heard, and no memory for them is found."""

    def __init__(self) -> None:
        super().__init__("table", "nr_hugepages", wide=True)

    def store(self, task: Task, value: int) -> None:
        return


class ArchBits(Knob):
    """A number of the architecture, until somebody sets another (which nothing asks for)."""

    def __init__(self, name: str) -> None:
        super().__init__("table", name, low=0)

    def get(self, task: Task) -> int:
        value: int = task.kernel.sysctls.get(self.name, getattr(task.system.arch, self.name))
        return value


class Text:
    """A string: of utsname, settable or not, or computed."""

    def __init__(self, key: str, default: str = "") -> None:
        self.key = key
        self.default = default

    def text(self, task: Task) -> str:
        """The value as it is read."""
        names = dict(
            zip(("ostype", "hostname", "osrelease", "version", "machine", "domainname"), utsname(task), strict=True)
        )
        value: str = names.get(self.key, task.kernel.sysctls.get(self.key, self.default))
        return value + "\n"

    def put(self, task: Task, data: bytes) -> int:
        """Take the first line."""
        line = data.partition(b"\n")[0].partition(b"\0")[0][:64]
        task.kernel.sysctls[self.key] = line.decode("utf-8", "surrogateescape")
        return len(data)


class Uuid:
    """random/uuid (a new one each time) and random/boot_id (the same)."""

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed

    def text(self, task: Task) -> str:
        """36 characters from the machine's generator."""
        kept = task.kernel.sysctls.get("boot_id") if self.fixed else None
        if kept is None:
            raw = bytearray(task.kernel.rng.randbytes(16))
            raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
            text = raw.hex()
            kept = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
            if self.fixed:
                task.kernel.sysctls["boot_id"] = kept
        return f"{kept}\n"

    def put(self, task: Task, data: bytes) -> int:
        """Not writable."""
        raise Errno(errno.EPERM)


class SysctlFile(OpenFile):
    """proc_sys_file_operations: numbers are read from position 0 only."""

    def read(self, task: Task, pos: int, count: int) -> bytes:
        knob = self.f_inode.knob
        text: bytes = knob.text(task).encode("utf-8", "surrogateescape")
        if pos and not isinstance(knob, Text):
            return b""
        return text[pos : pos + count]

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if not data:
            return 0
        if not self.f_inode.i_mode & 0o222:
            raise Errno(errno.EPERM)
        if pos:
            return len(data)
        taken: int = self.f_inode.knob.put(task, data[:4095])
        return taken

    f_inode: SysctlInode


class SysctlInode(ProcInode):
    """A file or folder below /proc/sys. Root's mode bits bind root too."""

    knob: Any = None

    def permission(self, task: Task, mask: int) -> int | None:
        """test_perm()."""
        mode = self.i_mode
        if self.is_reg() and mask & MAY_EXEC:
            return errno.EACCES
        if task.cred.euid == 0:
            mode >>= 6
        elif task.cred.in_egroup(0):
            mode >>= 3
        return errno.EACCES if mask & ~mode & 7 else 0

    def make(self, name: bytes, entry: Entry, number: int) -> ProcInode:
        inode = SysctlInode(self.i_sb, entry.mode | (0o040000 if entry.kind == DIR else 0o100000), number)
        inode.name, inode.kind, inode.i_nlink = name, entry.kind, 1
        if entry.kind == DIR:
            inode.table = entry.show
        else:
            inode.knob = entry.show
        return inode

    def setattr(self, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        raise Errno(errno.EPERM)

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        if self.kind == DIR:
            return super().open(path, flags, task)
        return SysctlFile(path, self, flags)


class SysctlRoot(SysctlInode):
    """/proc/sys."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.table = SYS_FOLDERS
        self.i_nlink = 1


def _file(knob: Any, mode: int = 0o644) -> Entry:
    return Entry(mode, SPECIAL, knob)


_VM: dict[bytes, Entry] = {
    b"admin_reserve_kbytes": _file(Knob("system", "sysctl_admin_reserve_kbytes", wide=True)),
    b"block_dump": _file(Knob("table", "block_dump", low=0)),
    b"compact_memory": _file(Action("table", "compact_memory"), 0o200),
    b"compact_unevictable_allowed": _file(Knob("table", "compact_unevictable_allowed", 1, low=0, high=1)),
    b"compaction_proactiveness": _file(Knob("table", "compaction_proactiveness", low=0, high=100)),
    b"dirty_background_bytes": _file(
        Knob("table", "dirty_background_bytes", low=1, wide=True, clears="dirty_background_ratio")
    ),
    b"dirty_background_ratio": _file(
        Knob("table", "dirty_background_ratio", 10, low=0, high=100, clears="dirty_background_bytes")
    ),
    b"dirty_bytes": _file(Knob("table", "dirty_bytes", low=8192, wide=True, clears="dirty_ratio")),
    b"dirty_expire_centisecs": _file(Knob("table", "dirty_expire_centisecs", 3000, low=0)),
    b"dirty_ratio": _file(Knob("table", "dirty_ratio", 20, low=0, high=100, clears="dirty_bytes")),
    b"dirty_writeback_centisecs": _file(Knob("table", "dirty_writeback_centisecs", 500)),
    b"dirtytime_expire_seconds": _file(Knob("table", "dirtytime_expire_seconds", 43200, low=0)),
    b"drop_caches": _file(Action("table", "drop_caches", low=1, high=4), 0o200),
    b"extfrag_threshold": _file(Knob("table", "extfrag_threshold", 500, low=0, high=1000)),
    b"hugetlb_shm_group": _file(Knob("table", "hugetlb_shm_group")),
    b"laptop_mode": _file(Knob("table", "laptop_mode")),
    b"legacy_va_layout": _file(Knob("system", "sysctl_legacy_va_layout", low=0)),
    b"max_map_count": _file(Knob("system", "sysctl_max_map_count", low=0)),
    b"mmap_min_addr": _file(Knob("system", "mmap_min_addr", wide=True)),
    b"mmap_rnd_bits": _file(ArchBits("mmap_rnd_bits"), 0o600),
    b"nr_hugepages": _file(HugePages()),
    b"nr_hugepages_mempolicy": _file(HugePages()),
    b"nr_overcommit_hugepages": _file(Knob("table", "nr_overcommit_hugepages", wide=True)),
    b"numa_stat": _file(Knob("table", "numa_stat", 1, low=0, high=1)),
    b"numa_zonelist_order": _file(Text("numa_zonelist_order", "Node")),
    b"oom_dump_tasks": _file(Knob("table", "oom_dump_tasks", 1)),
    b"oom_kill_allocating_task": _file(Knob("table", "oom_kill_allocating_task")),
    b"overcommit_kbytes": _file(
        Knob("system", "sysctl_overcommit_kbytes", wide=True, clears="sysctl_overcommit_ratio")
    ),
    b"overcommit_memory": _file(Knob("system", "sysctl_overcommit_memory", low=0, high=2)),
    b"overcommit_ratio": _file(Knob("system", "sysctl_overcommit_ratio", clears="sysctl_overcommit_kbytes")),
    b"page-cluster": _file(Knob("table", "page-cluster", 3, low=0)),
    b"page_lock_unfairness": _file(Knob("table", "page_lock_unfairness", 5, low=0)),
    b"panic_on_oom": _file(Knob("table", "panic_on_oom", low=0, high=2)),
    b"percpu_pagelist_fraction": _file(Knob("table", "percpu_pagelist_fraction", low=0)),
    b"stat_interval": _file(Knob("table", "stat_interval", 1)),
    b"swappiness": _file(Knob("table", "swappiness", 60, low=0, high=200)),
    b"unprivileged_userfaultfd": _file(Knob("table", "unprivileged_userfaultfd", 1, low=0, high=1)),
    b"user_reserve_kbytes": _file(Knob("system", "sysctl_user_reserve_kbytes", wide=True)),
    b"vfs_cache_pressure": _file(Knob("table", "vfs_cache_pressure", 100, low=0)),
    b"watermark_boost_factor": _file(Knob("table", "watermark_boost_factor", 15000, low=0)),
    b"watermark_scale_factor": _file(Knob("table", "watermark_scale_factor", 10, low=1, high=1000)),
    b"zone_reclaim_mode": _file(Knob("table", "zone_reclaim_mode", low=0)),
}
_RANDOM: dict[bytes, Entry] = {
    b"boot_id": _file(Uuid(True), 0o444),
    b"entropy_avail": _file(Knob("table", "entropy_avail", 256), 0o444),
    b"poolsize": _file(Knob("table", "poolsize", 256), 0o444),
    b"uuid": _file(Uuid(False), 0o444),
}
_KERNEL: dict[bytes, Entry] = {
    b"cap_last_cap": _file(Knob("table", "cap_last_cap", 40), 0o444),
    b"core_pattern": _file(Text("core_pattern", "core")),
    b"domainname": _file(Text("domainname")),
    b"hostname": _file(Text("hostname")),
    b"msgmax": _file(Knob("table", "msgmax", 8192, low=0)),
    b"msgmnb": _file(Knob("table", "msgmnb", 16384, low=0)),
    b"ngroups_max": _file(Knob("table", "ngroups_max", 65536), 0o444),
    b"osrelease": _file(Text("osrelease", UTS_RELEASE), 0o444),
    b"ostype": _file(Text("ostype", "Linux"), 0o444),
    b"overflowgid": _file(Knob("table", "overflowgid", 65534, low=0, high=65535)),
    b"overflowuid": _file(Knob("table", "overflowuid", 65534, low=0, high=65535)),
    b"panic": _file(Knob("table", "panic", -1)),
    b"pid_max": _file(Knob("kernel", "pid_max", low=301, high=4194304)),
    b"random": Entry(0o555, DIR, _RANDOM),
    b"randomize_va_space": _file(Knob("kernel", "randomize_va_space")),
    b"sched_rr_timeslice_ms": _file(Knob("table", "sched_rr_timeslice_ms", 100)),
    b"sched_rt_period_us": _file(Knob("table", "sched_rt_period_us", 1000000, low=1)),
    b"sched_rt_runtime_us": _file(Knob("table", "sched_rt_runtime_us", 950000, low=-1)),
    b"shm_next_id": _file(IpcKnob("ipc", "next_id", low=0)),
    b"shm_rmid_forced": _file(IpcKnob("ipc", "shm_rmid_forced", low=0, high=1)),
    b"shmall": _file(IpcKnob("ipc", "shm_ctlall", wide=True)),
    b"shmmax": _file(IpcKnob("ipc", "shm_ctlmax", wide=True)),
    b"shmmni": _file(IpcKnob("ipc", "shm_ctlmni", low=0, high=32768)),
    b"tainted": _file(Knob("table", "tainted")),
    b"threads-max": _file(Knob("kernel", "max_threads", low=1)),
    b"version": _file(Text("version"), 0o444),
}
_FS: dict[bytes, Entry] = {
    b"aio-max-nr": _file(Knob("table", "aio-max-nr", 65536, wide=True)),
    b"file-max": _file(Knob("table", "file-max", (1 << 63) - 1, wide=True)),
    b"lease-break-time": _file(Knob("table", "lease-break-time", 45)),
    b"nr_open": _file(Knob("table", "nr_open", 1048576, low=64)),
    b"pipe-max-size": _file(Knob("table", "pipe-max-size", 1048576, low=4096)),
    b"pipe-user-pages-soft": _file(Knob("table", "pipe-user-pages-soft", 16384, wide=True)),
    b"suid_dumpable": _file(Knob("table", "suid_dumpable", low=0, high=2)),
}
SYS_FOLDERS: dict[bytes, Entry] = {
    b"fs": Entry(0o555, DIR, _FS),
    b"kernel": Entry(0o555, DIR, _KERNEL),
    b"vm": Entry(0o555, DIR, _VM),
}
SYS_TABLE = SysctlRoot
