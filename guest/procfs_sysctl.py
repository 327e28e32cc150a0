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
from guest.nsproxy import uts_names
from guest.procfs import DIR, Entry, ProcInode
from guest.sys_misc import utsname
from guest.vfs_flags import MAY_EXEC
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.hugetlb_pool import Hstate

_INT_MAX = 0x7FFFFFFF
_NUMBER = re.compile(rb"(-?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_BLANK = b" \t\n\r\v\f"
_TMPBUFLEN = 22
CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE = 21, 40


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

    def check(self, task: Task) -> None:
        """Whether the task may write at all."""

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
    """A setting of the IPC namespace, or of its messages or semaphores (ipc/ipc_sysctl.c, mq_sysctl.c)."""

    def owner(self, task: Task) -> Any:
        """The object whose attribute `name` is."""
        from guest.sys_shm import ipc_ns

        ns = ipc_ns(task)
        return ns if self.where == "ipc" else getattr(ns, self.where)

    def get(self, task: Task) -> int:
        value: int = getattr(self.owner(task), self.name)
        return value

    def store(self, task: Task, value: int) -> None:
        from mm.ipc_shm import shm_destroy_orphaned

        ns = self.owner(task)
        setattr(ns, self.name, value)
        if self.name == "shm_rmid_forced" and value:
            shm_destroy_orphaned(ns)


class Action(Knob):
    """A setting that only triggers something Linux does to caches; here there is nothing to trigger."""


class HugePages(Knob):
    """A number of the pool of default huge pages: persistent_huge_pages or nr_overcommit_huge_pages."""

    def __init__(self, name: str) -> None:
        super().__init__("hugetlb", name, wide=True)

    def get(self, task: Task) -> int:
        value: int = getattr(task.system.hugetlb.default, self.name) if task.system.hugetlb is not None else 0
        return value

    def store(self, task: Task, value: int) -> None:
        from mm.hugetlb_pool import hugetlb_pools

        store_pool_size(hugetlb_pools(task.system).default, self.name, value)


def store_pool_size(h: Hstate, name: str, value: int) -> None:
    """Store nr_hugepages or nr_overcommit_hugepages of a pool. Raises EINVAL."""
    if name == "nr_overcommit_huge_pages":
        h.set_overcommit_huge_pages(value)
    else:
        h.set_max_huge_pages(value)


class ArchBits(Knob):
    """vm/mmap_rnd_bits: starts at the least the architecture allows; kept, and not obeyed."""

    def __init__(self, name: str) -> None:
        super().__init__("table", name)

    def get(self, task: Task) -> int:
        value: int = task.kernel.sysctls.get(self.name, getattr(task.system.arch, self.name))
        return value

    def store(self, task: Task, value: int) -> None:
        least: int = getattr(task.system.arch, self.name)
        if not least <= value <= least + task.kernel.vfs.abi.mmap_rnd_bits_spread:
            raise Errno(errno.EINVAL)
        super().store(task, value)


class Numbers(Knob):
    """Some ints, blanks or tabs between them (proc_dointvec of a vector). `lowest` is put for what is below it."""

    def __init__(self, name: str, default: tuple[int, ...], lowest: int | None = None, where: str = "table") -> None:
        super().__init__(where, name)
        self.start, self.lowest = default, lowest

    def values(self, task: Task) -> list[int]:
        """A copy of the numbers."""
        return list(task.kernel.sysctls.get(self.name, self.start))

    def keep(self, task: Task, values: list[int]) -> None:
        """Set them."""
        task.kernel.sysctls[self.name] = values

    def text(self, task: Task) -> str:
        return "\t".join(map(str, self.values(task))) + "\n"

    def put(self, task: Task, data: bytes) -> int:
        """Set as many as are given; those before a bad one are set nevertheless. Raises EINVAL."""
        values = self.values(task)
        words = data.partition(b"\0")[0].split()
        try:
            for index, word in enumerate(words[: len(values)]):
                number = self.parse(word) or 0
                values[index] = number if self.lowest is None else max(number, self.lowest)
        finally:
            self.keep(task, values)
        if not words:
            raise Errno(errno.EINVAL)
        if len(words) > len(values):
            return data.find(words[len(values)])
        return len(data)


class Semaphores(Numbers):
    """kernel/sem: limits of System V semaphores. The last one, of sets, has a range (proc_ipc_sem_dointvec())."""

    def values(self, task: Task) -> list[int]:
        from guest.sys_shm import ipc_ns

        return list(ipc_ns(task).sem_ctls)

    def keep(self, task: Task, values: list[int]) -> None:
        from guest.sys_shm import ipc_ns

        ipc_ns(task).sem_ctls = values

    def put(self, task: Task, data: bytes) -> int:
        before = self.values(task)
        taken = super().put(task, data)
        values = self.values(task)
        if not 0 <= values[3] <= 32768:
            self.keep(task, [*values[:3], before[3]])
            raise Errno(errno.ERANGE)
        return taken


class Computed(Knob):
    """A number that is made when it is read; `unset` tells it until somebody writes one (if it can be written)."""

    def __init__(self, name: str, unset: Any, low: int | None = None, wide: bool = False) -> None:
        super().__init__("table", name, low=low, wide=wide)
        self.unset = unset

    def get(self, task: Task) -> int:
        found = task.kernel.sysctls.get(self.name)
        return int(self.unset(task) if found is None else found)


class Ignored(Knob):
    """A setting that takes every write and keeps its value (proc_do_rointvec())."""

    def put(self, task: Task, data: bytes) -> int:
        return len(data)


class Positive(Knob):
    """A number whose values below 1 stand for the default (sched_rr_handler())."""

    def store(self, task: Task, value: int) -> None:
        super().store(task, value if value > 0 else self.default)


class RealTimeBandwidth(Knob):
    """kernel/sched_rt_period_us or sched_rt_runtime_us (sched_rt_handler()): what is written must fit the other one."""

    def store(self, task: Task, value: int) -> None:
        from guest.sched_policy import check_bandwidth

        sysctls = task.kernel.sysctls
        before = sysctls.get(self.name)
        sysctls[self.name] = value
        try:
            check_bandwidth(task.kernel)
        except Errno:
            if before is None:
                del sysctls[self.name]
            else:
                sysctls[self.name] = before
            raise


class Fraction(Knob):
    """vm/percpu_pagelist_fraction: 0, or at least 8 (percpu_pagelist_fraction_sysctl_handler())."""

    def store(self, task: Task, value: int) -> None:
        if 0 < value < 8:
            raise Errno(errno.EINVAL)
        super().store(task, value)


class PipeSize(Knob):
    """fs/pipe-max-size: rounded up to a power of two of pages, as the pipes are (round_pipe_size())."""

    def put(self, task: Task, data: bytes) -> int:
        """do_proc_dopipe_max_size_conv(): an unsigned int, and whatever follows it is taken too."""
        if self.parse(data) is None:
            raise Errno(errno.EINVAL)
        super().put(task, data)
        return len(data)

    def store(self, task: Task, value: int) -> None:
        if value > 1 << 31:
            raise Errno(errno.EINVAL)
        super().store(task, 1 << (max(value, task.system.page_size) - 1).bit_length())


class Taint(Knob):
    """kernel/tainted: bits can be added, never taken away (proc_taint())."""

    def store(self, task: Task, value: int) -> None:
        super().store(task, self.get(task) | value & (1 << 18) - 1)


class LastPid(Knob):
    """kernel/ns_last_pid: the pid that was given last; whoever may, chooses the next one (pid_ns_ctl_handler())."""

    def get(self, task: Task) -> int:
        return max((task.pid_ns or task.kernel).next_pid - 1, 0)

    def check(self, task: Task) -> None:
        if not task.capable(CAP_CHECKPOINT_RESTORE) and not task.capable(CAP_SYS_ADMIN):
            raise Errno(errno.EPERM)

    def put(self, task: Task, data: bytes) -> int:
        self.check(task)
        return super().put(task, data)

    def store(self, task: Task, value: int) -> None:
        if value > task.kernel.pid_max:
            raise Errno(errno.EINVAL)
        (task.pid_ns or task.kernel).next_pid = value + 1


class Text:
    """A string: of utsname, settable or not, or computed."""

    def __init__(self, key: str, default: str = "", longest: int = 64) -> None:
        self.key = key
        self.default = default
        self.longest = longest  # bytes

    def check(self, task: Task) -> None:
        """Whether the task may write at all."""

    def text(self, task: Task) -> str:
        """The value as it is read."""
        names = dict(
            zip(("ostype", "hostname", "osrelease", "version", "machine", "domainname"), utsname(task), strict=True)
        )
        value: str = names.get(self.key, task.kernel.sysctls.get(self.key, self.default))
        return value + "\n"

    def put(self, task: Task, data: bytes) -> int:
        """Take the first line."""
        line = data.partition(b"\n")[0].partition(b"\0")[0][: self.longest]
        names = uts_names(task) if self.key in ("hostname", "domainname") else task.kernel.sysctls
        names[self.key] = line.decode("utf-8", "surrogateescape")
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

    has_read_iter = has_write_iter = True

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
            self.f_inode.knob.check(task)
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
        from guest.procfs_sysctl_table import SYS_FOLDERS

        self.table = SYS_FOLDERS
        self.i_nlink = 1


class Empty:
    """vm/stat_refresh: nothing to read; what it asks for, that counters be up to date, is always so here."""

    def text(self, task: Task) -> str:
        """Nothing."""
        return ""

    def put(self, task: Task, data: bytes) -> int:
        """Heard."""
        return len(data)


SYS_TABLE = SysctlRoot
