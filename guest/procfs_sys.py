"""What the files of /proc that are about the whole system say (fs/proc/*.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.procfs import DIR, LINK, SINGLE, Entry
from guest.procfs_ipc import SYSVIPC_TABLE
from guest.procfs_sysctl import SYS_TABLE
from guest.sys_misc import utsname
from mm.flags import PG_ACTIVE, PG_LRU, PG_TABLE, PG_UNEVICTABLE
from mm.memory_rss import page_anon
from mm.mmdump import mmdump
from mm.util import vm_commit_limit

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task

_SEC = 10**9
_TICK = 10_000_000


def self_link(inode: ProcInode, task: Task) -> bytes:
    """proc_self_get_link()."""
    return b"%d" % task.tgid


def thread_self_link(inode: ProcInode, task: Task) -> bytes:
    """proc_thread_self_get_link()."""
    return b"%d/task/%d" % (task.tgid, task.pid)


def mounts_link(inode: ProcInode, task: Task) -> bytes:
    """/proc/mounts."""
    return b"self/mounts"


def show_mmdump(inode: ProcInode, task: Task) -> str:
    """The reader's own mm (oracle/mmdump.c)."""
    return mmdump(task)


def show_uptime(inode: ProcInode, task: Task) -> str:
    """uptime_proc_show(): since boot; nobody measures idleness."""
    now = task.kernel.clock.now
    return f"{now // _SEC}.{now % _SEC // _TICK:02} 0.00\n"


def show_loadavg(inode: ProcInode, task: Task) -> str:
    """loadavg_proc_show(): loads are 0."""
    kernel = task.kernel
    running = sum(other.state == "R" and not other.exit_state for other in kernel.tasks.values())
    return f"0.00 0.00 0.00 {running}/{len(kernel.tasks)} {kernel.next_pid - 1}\n"


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
    return "".join(f"nodev\t{name}\n" for name in ("tmpfs", "proc", "devtmpfs", "pipefs"))


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


class MemoryCount:
    """Frames by use, in pages (the node and zone counters of Linux, counted when asked for)."""

    def __init__(self, task: Task) -> None:
        self.active_anon = self.inactive_anon = self.active_file = self.inactive_file = self.unevictable = 0
        self.anon_mapped = self.file_mapped = self.file_pages = self.tables = 0
        for page in task.system.mem_map:
            if page is None:
                continue
            if page.flags & PG_TABLE:
                self.tables += 1
                continue
            if page.mapping is None:
                continue
            anon = page_anon(page)
            if not anon:
                self.file_pages += 1
            if page.mapcount > 0:
                self.anon_mapped += anon
                self.file_mapped += not anon
            if page.flags & PG_UNEVICTABLE:
                self.unevictable += 1
            elif page.flags & PG_LRU and page.flags & PG_ACTIVE:
                self.active_anon += 1
            elif page.flags & PG_LRU:
                self.inactive_anon += 1


def show_meminfo(inode: ProcInode, task: Task) -> str:
    """meminfo_proc_show(). Kernel memory is nobody's: slab, stacks and per-CPU areas are 0."""
    system, abi = task.system, task.kernel.vfs.abi
    shift = system.arch.page_shift - 10
    count = MemoryCount(task)
    free = system.nr_free_pages()

    def kb(label: str, pages: int) -> str:
        return f"{label + ':':<16}{pages << shift:8} kB\n"

    text = "".join(
        kb(label, pages)
        for label, pages in (
            ("MemTotal", system.totalram_pages),
            ("MemFree", free),
            ("MemAvailable", free),
            ("Buffers", 0),
            ("Cached", count.file_pages),
            ("SwapCached", 0),
            ("Active", count.active_anon + count.active_file),
            ("Inactive", count.inactive_anon + count.inactive_file),
            ("Active(anon)", count.active_anon),
            ("Inactive(anon)", count.inactive_anon),
            ("Active(file)", count.active_file),
            ("Inactive(file)", count.inactive_file),
            ("Unevictable", count.unevictable),
            ("Mlocked", system.nr_mlock),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Dirty", 0),
            ("Writeback", 0),
            ("AnonPages", count.anon_mapped),
            ("Mapped", count.file_mapped),
            ("Shmem", system.nr_shmem),
            ("KReclaimable", 0),
            ("Slab", 0),
            ("SReclaimable", 0),
            ("SUnreclaim", 0),
            ("KernelStack", 0),
            ("PageTables", count.tables),
            ("NFS_Unstable", 0),
            ("Bounce", 0),
            ("WritebackTmp", 0),
            ("CommitLimit", vm_commit_limit(system)),
            ("Committed_AS", max(system.vm_committed_as, 0)),
        )
    )
    text += f"VmallocTotal:   {abi.vmalloc_kb(task):8} kB\n" + kb("VmallocUsed", 0) + kb("VmallocChunk", 0)
    text += kb("Percpu", 0) + str(abi.meminfo_middle(task))
    for label in ("AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"):
        text += kb(label, 0)
    for label in ("Total", "Free", "Rsvd", "Surp"):
        text += f"HugePages_{label}:{'':{5 - len(label)}}{0:8}\n"
    text += f"Hugepagesize:   {system.arch.pmd_size >> 10:8} kB\nHugetlb:        {0:8} kB\n"
    return text + str(abi.meminfo_tail(task))


def show_vmstat(inode: ProcInode, task: Task) -> str:
    """vmstat_show(): the counters that are kept, in the kernel's order."""
    system = task.system
    count = MemoryCount(task)
    rows = (
        ("nr_free_pages", system.nr_free_pages()),
        ("nr_mlock", system.nr_mlock),
        ("nr_page_table_pages", count.tables),
        ("nr_inactive_anon", count.inactive_anon),
        ("nr_active_anon", count.active_anon),
        ("nr_inactive_file", count.inactive_file),
        ("nr_active_file", count.active_file),
        ("nr_unevictable", count.unevictable),
        ("nr_anon_pages", count.anon_mapped),
        ("nr_mapped", count.file_mapped),
        ("nr_file_pages", count.file_pages),
        ("nr_shmem", system.nr_shmem),
        ("pgfault", system.pgfault),
        ("pgmajfault", system.pgmajfault),
        ("oom_kill", system.oom_kill),
    )
    return "".join(f"{name} {value}\n" for name, value in rows)


ROOT_TABLE: dict[bytes, Entry] = {
    b"cmdline": Entry(0o444, SINGLE, show_cmdline),
    b"cpuinfo": Entry(0o444, SINGLE, show_cpuinfo),
    b"filesystems": Entry(0o444, SINGLE, show_filesystems),
    b"loadavg": Entry(0o444, SINGLE, show_loadavg),
    b"meminfo": Entry(0o444, SINGLE, show_meminfo),
    b"mmdump": Entry(0o444, SINGLE, show_mmdump),
    b"mounts": Entry(0o777, LINK, mounts_link, size=11),
    b"self": Entry(0o777, LINK, self_link),
    b"stat": Entry(0o444, SINGLE, show_stat),
    b"swaps": Entry(0o444, SINGLE, show_swaps),
    b"sys": Entry(0o555, DIR, SYS_TABLE),
    b"sysvipc": Entry(0o555, DIR, SYSVIPC_TABLE),
    b"thread-self": Entry(0o777, LINK, thread_self_link),
    b"uptime": Entry(0o444, SINGLE, show_uptime),
    b"version": Entry(0o444, SINGLE, show_version),
    b"vmstat": Entry(0o444, SINGLE, show_vmstat),
}
