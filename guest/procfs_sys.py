"""What the files of /proc that are about the whole system say (fs/proc/*.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.procfs import DIR, LINK, SINGLE, SPECIAL, Entry
from guest.procfs_ipc import SYSVIPC_TABLE
from guest.procfs_kpage import open_kpagecount, open_kpageflags
from guest.procfs_machine import (
    TTY_TABLE,
    show_devices,
    show_execdomains,
    show_iomem,
    show_locks,
    show_none,
)
from guest.procfs_memory import show_buddyinfo, show_meminfo, show_vmstat, show_zoneinfo
from guest.procfs_sysctl import SYS_TABLE
from guest.sys_misc import utsname
from mm.errors import Errno
from mm.mmdump import mmdump

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task

_SEC = 10**9
_TICK = 10_000_000


def self_link(inode: ProcInode, task: Task) -> bytes:
    """proc_self_get_link()."""
    tgid = inode.i_sb.pid_nr(task.tgid)
    if not tgid:
        raise Errno(errno.ENOENT)  # the reader is none of those shown here
    return b"%d" % tgid


def thread_self_link(inode: ProcInode, task: Task) -> bytes:
    """proc_thread_self_get_link()."""
    return b"%s/task/%d" % (self_link(inode, task), inode.i_sb.pid_nr(task.pid))


def mounts_link(inode: ProcInode, task: Task) -> bytes:
    """/proc/mounts."""
    return b"self/mounts"


def net_link(inode: ProcInode, task: Task) -> bytes:
    """/proc/net."""
    return b"self/net"


def show_mmdump(inode: ProcInode, task: Task) -> str:
    """The reader's own mm (oracle/mmdump.c)."""
    return mmdump(task)


def show_uptime(inode: ProcInode, task: Task) -> str:
    """uptime_proc_show(): since boot; nobody measures idleness."""
    now = task.kernel.clock.now + (task.time_ns.boottime if task.time_ns is not None else 0)
    return f"{now // _SEC}.{now % _SEC // _TICK:02} 0.00\n"


def show_loadavg(inode: ProcInode, task: Task) -> str:
    """loadavg_proc_show(): loads are 0."""
    kernel = task.kernel
    running = sum(other.state == "R" and not other.exit_state for other in kernel.tasks.values())
    space = task.pid_ns or kernel
    return f"0.00 0.00 0.00 {running}/{len(kernel.tasks)} {space.next_pid - 1}\n"


def show_version(inode: ProcInode, task: Task) -> str:
    """version_proc_show()."""
    sysname, _, release, version, _, _ = utsname(task)
    return f"{sysname} version {release} (root@vm) ({task.kernel.vfs.abi.compiler}) {version}\n"


def show_cmdline(inode: ProcInode, task: Task) -> str:
    """cmdline_proc_show(): what the oracle's kernels are started with, where it means something here."""
    aslr = "" if task.kernel.randomize_va_space else "norandmaps "
    thp = "madvise" if task.system.arch.page_size == 4096 else "never"
    return f"{aslr}quiet panic=-1 transparent_hugepage={thp}\n"


def show_cpuinfo(inode: ProcInode, task: Task) -> str:
    """cpuinfo of the one CPU."""
    text: str = task.kernel.vfs.abi.cpuinfo(task)
    return text


def show_swaps(inode: ProcInode, task: Task) -> str:
    """swap_show(): none is in use."""
    return "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def show_filesystems(inode: ProcInode, task: Task) -> str:
    """filesystems_proc_show()."""
    from guest.fs_types import filesystems

    return filesystems()


def show_stat(inode: ProcInode, task: Task) -> str:
    """One CPU; interrupts and soft interrupts do not exist."""
    kernel = task.kernel
    user = sum(t.utime for t in kernel.tasks.values()) // _TICK
    system = sum(t.stime for t in kernel.tasks.values()) // _TICK
    times = f"{user} 0 {system} {max(kernel.clock.now // _TICK - user - system, 0)} 0 0 0 0 0 0"
    running = sum(other.state == "R" and not other.exit_state for other in kernel.tasks.values())
    boot = (kernel.clock.realtime() - kernel.clock.now) // _SEC
    return (
        f"cpu  {times}\ncpu0 {times}\nintr 0\nctxt {kernel.context_switches}\nbtime {boot}\n"
        f"processes {kernel.total_forks}\nprocs_running {running}\nprocs_blocked 0\n"
        f"softirq 0{' 0' * 10}\n"
    )


ROOT_TABLE: dict[bytes, Entry] = {
    b"net": Entry(0o777, LINK, net_link, size=8),
    b"sys": Entry(0o555, DIR, SYS_TABLE),
    b"tty": Entry(0o555, DIR, TTY_TABLE),
    b"misc": Entry(0o444, SINGLE, show_none),
    b"stat": Entry(0o444, SINGLE, show_stat),
    b"iomem": Entry(0o444, SINGLE, show_iomem),
    b"locks": Entry(0o444, SINGLE, show_locks),
    b"swaps": Entry(0o444, SINGLE, show_swaps),
    b"mmdump": Entry(0o444, SINGLE, show_mmdump),
    b"mounts": Entry(0o777, LINK, mounts_link, size=11),
    b"uptime": Entry(0o444, SINGLE, show_uptime),
    b"vmstat": Entry(0o444, SINGLE, show_vmstat),
    b"cmdline": Entry(0o444, SINGLE, show_cmdline),
    b"cpuinfo": Entry(0o444, SINGLE, show_cpuinfo),
    b"devices": Entry(0o444, SINGLE, show_devices),
    b"loadavg": Entry(0o444, SINGLE, show_loadavg),
    b"meminfo": Entry(0o444, SINGLE, show_meminfo),
    b"modules": Entry(0o444, SINGLE, show_none),
    b"sysvipc": Entry(0o555, DIR, SYSVIPC_TABLE),
    b"version": Entry(0o444, SINGLE, show_version),
    b"consoles": Entry(0o444, SINGLE, show_none),
    b"zoneinfo": Entry(0o444, SINGLE, show_zoneinfo),
    b"buddyinfo": Entry(0o444, SINGLE, show_buddyinfo),
    b"diskstats": Entry(0o444, SINGLE, show_none),
    b"kpagecount": Entry(0o400, SPECIAL, open_kpagecount),
    b"kpageflags": Entry(0o400, SPECIAL, open_kpageflags),
    b"partitions": Entry(0o444, SINGLE, show_none),
    b"execdomains": Entry(0o444, SINGLE, show_execdomains),
    b"filesystems": Entry(0o444, SINGLE, show_filesystems),
    b"self": Entry(0o777, LINK, self_link),
    b"thread-self": Entry(0o777, LINK, thread_self_link),
}
