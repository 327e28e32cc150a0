"""perf_event_open(2) (kernel/events/core.c), for counting. Only x86-64: the recorded arm64 kernels have none."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.perf import EXCLUDE_KERNEL, EXCLUSIVE, INHERIT, PINNED, SW_MAX, PerfFile
from guest.ptrace_access import PTRACE_MODE_READ_REALCREDS, ptrace_may_access
from guest.syscalls import PARTIAL, Call
from guest.tty import anonymous_path
from guest.vfs_flags import O_CLOEXEC, O_RDWR, s32
from guest.vfs_types import Inode
from mm.errors import Errno
from mm.uaccess import copy_from_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

ATTR_SIZE_VER0, ATTR_SIZE = 64, 120
FLAG_NO_GROUP, FLAG_OUTPUT, FLAG_PID_CGROUP, FLAG_CLOEXEC = 1, 2, 4, 8
TYPE_HARDWARE, TYPE_SOFTWARE, TYPE_BREAKPOINT = 0, 1, 5
SAMPLE_MAX, FORMAT_MAX = 1 << 22, 1 << 5
SAMPLE_READ = 1 << 4
FREQ, NAMESPACES, USE_CLOCKID = 1 << 10, 1 << 28, 1 << 25
_RESERVED_1 = ~((1 << 34) - 1)
CAP_SYS_ADMIN, CAP_PERFMON = 21, 38
MAX_SAMPLE_RATE = 100_000
NR_CPUS = 1
_ATTR = Struct("<IIQQQQQIIQQQQIiQIHHI4x")
# type size config sample_period sample_type read_format flags wakeup bp_type config1 config2 branch regs_user
# stack_user clockid regs_intr aux_watermark max_stack reserved_2 aux_sample_size


def perf_copy_attr(task: Task, uattr: int) -> tuple[int, ...]:
    """The attributes. Raises Errno E2BIG (and says which size would do), EINVAL, EFAULT."""
    size = get_user(task, uattr + 4, 4) or ATTR_SIZE_VER0
    if ATTR_SIZE_VER0 <= size <= task.system.arch.page_size:
        image = copy_from_user(task, uattr, size)
        if not any(image[ATTR_SIZE:]):
            attr = _ATTR.unpack(image[:ATTR_SIZE].ljust(ATTR_SIZE, b"\0"))
            if attr[6] & _RESERVED_1 or attr[18] or attr[4] & ~(SAMPLE_MAX - 1) or attr[5] & ~(FORMAT_MAX - 1):
                raise Errno(errno.EINVAL)
            return attr
    put_user(task, uattr + 4, ATTR_SIZE, 4)
    raise Errno(errno.E2BIG)


def _perfmon_capable(task: Task) -> bool:
    return task.capable(CAP_PERFMON) or task.capable(CAP_SYS_ADMIN)


def _leader(task: Task, group_fd: int) -> PerfFile | None:
    """The event that leads the group. Raises Errno(EBADF)."""
    if group_fd == -1:
        return None
    file = task.files.get(group_fd)
    if not isinstance(file, PerfFile):
        raise Errno(errno.EBADF)
    return file


def sys_perf_event_open(task: Task, uattr: int, pid: int, cpu: int, group_fd: int, flags: int) -> int:
    """perf_event_open(2). What takes samples is refused with EOPNOTSUPP: there is no buffer for them."""
    pid, cpu, group_fd = s32(pid), s32(cpu), s32(group_fd)
    if flags & ~15:
        raise Errno(errno.EINVAL)
    attr = perf_copy_attr(task, uattr)
    kind, config, period, read_format, bits = attr[0], attr[2], attr[3], attr[5], attr[6]
    if (not bits & EXCLUDE_KERNEL or bits & NAMESPACES) and not _perfmon_capable(task):
        raise Errno(errno.EACCES)  # perf_event_paranoid is 2
    if (bits & FREQ and period > MAX_SAMPLE_RATE) or (not bits & FREQ and period >> 63):
        raise Errno(errno.EINVAL)
    if flags & FLAG_PID_CGROUP and -1 in (pid, cpu):
        raise Errno(errno.EINVAL)
    task.files.unused(task)
    output = leader = _leader(task, group_fd)
    if flags & FLAG_NO_GROUP:
        leader = None
    target = None
    if pid != -1 and not flags & FLAG_PID_CGROUP:
        target = task.find_task(pid) if pid else task
        if target is None:
            raise Errno(errno.ESRCH)
        if leader is not None and (leader.flags ^ bits) & INHERIT:
            raise Errno(errno.EINVAL)
    if not 0 <= cpu < NR_CPUS and (target is None or cpu != -1):
        raise Errno(errno.EINVAL)
    if bits & INHERIT and attr[4] & SAMPLE_READ:
        raise Errno(errno.EINVAL)
    if kind == TYPE_BREAKPOINT or (kind == TYPE_SOFTWARE and config < SW_MAX and (period or bits & USE_CLOCKID)):
        raise Errno(errno.EOPNOTSUPP)
    if kind != TYPE_SOFTWARE or config >= SW_MAX:
        raise Errno(errno.ENOENT)
    if target is None and not _perfmon_capable(task):
        raise Errno(errno.EACCES)
    if target is not None and target.exit_state:
        raise Errno(errno.ESRCH)
    if leader is not None:
        of = leader.parts[0]
        if leader.leader is not leader or leader.cpu != cpu or of.task is not target or bits & (EXCLUSIVE | PINNED):
            raise Errno(errno.EINVAL)
    if flags & FLAG_OUTPUT and output is not None:
        raise Errno(errno.EINVAL)  # it has no buffer
    if target is not None and not _perfmon_capable(task):
        if not ptrace_may_access(task, target, PTRACE_MODE_READ_REALCREDS):
            raise Errno(errno.EACCES)
    sb = task.kernel.vfs.anonfs
    inode = Inode(sb, 0o600)
    path = anonymous_path(sb, inode, b"anon_inode:[perf_event]")
    file = PerfFile(path, inode, O_RDWR, task.kernel, config, bits, read_format)
    if leader is not None:
        file.leader = leader
        leader.siblings.append(file)
    file.cpu = cpu
    file.leader.regroup()
    file.attach(target)
    task.perf_opened = (*(other for other in task.perf_opened if other.f_count > 0), file)
    fd: int = task.files.add(task, file, bool(flags & FLAG_CLOEXEC and O_CLOEXEC))
    return fd


CALLS = (
    Call("perf_event_open", sys_perf_event_open, PARTIAL, "x86-64: software events, counted, not sampled", "x86_64"),
)
