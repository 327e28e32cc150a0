"""The settings below /proc/sys, by folder (kernel/sysctl.c and the tables that other files register).

`_PLAIN` are numbers that are kept and read back: nothing here obeys them, because what they set is not there or has
only one value (disks, compaction, printk). Their ranges are the oracle's: tests/guest/test_procfs_sysctl.py writes
sixteen values to each file and compares with what Linux 5.10 did. What is left out, and why, is in
tests/golden/proc/left_out.txt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.boot_memory import BootMemory, min_free_kbytes
from guest.procfs import DIR, SPECIAL, Entry
from guest.procfs_sysctl import (
    Action,
    ArchBits,
    Computed,
    Empty,
    Fraction,
    HugePages,
    Ignored,
    IpcKnob,
    Knob,
    LastPid,
    Numbers,
    PipeSize,
    Positive,
    RealTimeBandwidth,
    Semaphores,
    Taint,
    Text,
    Uuid,
)
from guest.sys_misc import UTS_RELEASE
from mm.errors import Errno

if TYPE_CHECKING:
    from typing import Any

    from guest.task import Task

#: path, value, lowest, highest (- for the type's own bound); a w: unsigned long.
_PLAIN = """
dev/tty/ldisc_autoload 1 0 1
fs/aio-max-nr 65536 - - w
fs/lease-break-time 45 - -
fs/leases-enable 1 - -
fs/mount-max 100000 1 -
fs/pipe-user-pages-hard 0 - - w
fs/pipe-user-pages-soft 16384 - - w
fs/suid_dumpable 0 0 2
kernel/core_pipe_limit 0 - -
kernel/core_uses_pid 0 - -
kernel/ctrl-alt-del 1 - -
kernel/dmesg_restrict 0 0 1
kernel/kptr_restrict 0 0 2
kernel/max_lock_depth 1024 - -
kernel/oops_all_cpu_backtrace 0 0 1
kernel/panic -1 - -
kernel/panic_on_oops 0 - -
kernel/panic_on_rcu_stall 0 0 1
kernel/panic_on_warn 0 0 1
kernel/panic_print 0 - - w
kernel/print-fatal-signals 0 - -
kernel/printk_delay 0 0 10000
kernel/printk_ratelimit 5 - 8589934
kernel/printk_ratelimit_burst 10 - -
kernel/sched_child_runs_first 0 - -
kernel/sched_deadline_period_max_us 4194304 - -
kernel/sched_deadline_period_min_us 100 - -
kernel/sched_latency_ns 6000000 100000 1000000000
kernel/sched_migration_cost_ns 500000 - -
kernel/sched_min_granularity_ns 750000 100000 1000000000
kernel/sched_nr_migrate 32 - -
kernel/sched_tunable_scaling 1 0 2
kernel/sched_wakeup_granularity_ns 1000000 0 1000000000
kernel/sysctl_writes_strict 1 -1 1
net/core/message_burst 10 - -
net/core/message_cost 5 - 8589934
net/core/netdev_budget 300 - -
net/core/netdev_budget_usecs 8000 0 -
net/core/netdev_max_backlog 1000 - -
net/core/optmem_max 20480 - -
net/core/rmem_default 212992 2304 -
net/core/rmem_max 212992 2304 -
net/core/somaxconn 4096 0 -
net/core/warnings 0 - -
net/core/wmem_default 212992 4608 -
net/core/wmem_max 212992 4608 -
net/unix/max_dgram_qlen 10 - -
vm/block_dump 0 0 -
vm/compact_unevictable_allowed 1 0 1
vm/compaction_proactiveness 0 0 100
vm/dirty_expire_centisecs 3000 0 -
vm/dirty_writeback_centisecs 500 - -
vm/dirtytime_expire_seconds 43200 0 -
vm/extfrag_threshold 500 0 1000
vm/laptop_mode 0 - 8589934
vm/min_slab_ratio 5 0 100
vm/min_unmapped_ratio 1 0 100
vm/numa_stat 1 0 1
vm/oom_dump_tasks 1 - -
vm/oom_kill_allocating_task 0 - -
vm/page-cluster 3 0 -
vm/page_lock_unfairness 5 0 -
vm/panic_on_oom 0 0 2
vm/stat_interval 1 - 8589934
vm/swappiness 60 0 200
vm/unprivileged_userfaultfd 1 0 1
vm/vfs_cache_pressure 100 0 -
vm/watermark_boost_factor 15000 0 -
vm/watermark_scale_factor 10 1 1000
vm/zone_reclaim_mode 0 0 -
"""
_SHARED_NAMES = ("overflowuid", "overflowgid")  # one number under two folders


def plain(path: str) -> dict[bytes, Entry]:
    """The entries of `_PLAIN` right in the folder."""
    found = {}
    for line in _PLAIN.split("\n"):
        folder, _, rest = line.rpartition("/")
        if folder == path:
            name, value, low, high, *wide = rest.split()
            bounds = [None if bound == "-" else int(bound) for bound in (low, high)]
            found[name.encode()] = _file(Knob("table", name, int(value), bounds[0], bounds[1], bool(wide)))
    return found


def _file(knob: Any, mode: int = 0o644) -> Entry:
    return Entry(mode, SPECIAL, knob)


def _number(name: str, default: int, low: int | None = None, high: int | None = None, mode: int = 0o644) -> Entry:
    return _file(Knob("table", name, default, low, high), mode)


def _file_max(task: Task) -> int:
    return BootMemory(task.system).file_max()


def _max_user_watches(task: Task) -> int:
    return BootMemory(task.system).max_user_watches()


def count_files(task: Task) -> int:
    """Open files of all tasks (nr_files)."""
    tables = {id(other.files): other.files for other in task.kernel.tasks.values() if other.files is not None}
    return len({id(file) for files in tables.values() for file in files.fd if file is not None})


class FileCount(Numbers):
    """fs/file-nr: open files, unused ones that are kept (none), and how many there may be."""

    def values(self, task: Task) -> list[int]:
        return [count_files(task), 0, task.kernel.sysctls.get("file-max", _file_max(task))]


class LowmemReserve(Numbers):
    """vm/lowmem_reserve_ratio: a number a zone; a zone without frames has none to keep."""

    def values(self, task: Task) -> list[int]:
        kept = task.kernel.sysctls.get(self.name)
        return list(kept if kept is not None else task.kernel.vfs.abi.lowmem_reserve_ratio)

    def put(self, task: Task, data: bytes) -> int:
        """What cannot be read leaves everything as it was, and nobody hears of it: the handler drops the error."""
        before = self.values(task)
        try:
            return super().put(task, data)
        except Errno:
            task.kernel.sysctls[self.name] = before
            return len(data)


_OVERFLOW = {name.encode(): _number(name, 65534, 0, 65535) for name in _SHARED_NAMES}
_VM: dict[bytes, Entry] = {
    **plain("vm"),
    b"admin_reserve_kbytes": _file(Knob("system", "sysctl_admin_reserve_kbytes", wide=True)),
    b"compact_memory": _file(Action("table", "compact_memory"), 0o200),
    b"dirty_background_bytes": _file(
        Knob("table", "dirty_background_bytes", low=1, wide=True, clears="dirty_background_ratio")
    ),
    b"dirty_background_ratio": _file(
        Knob("table", "dirty_background_ratio", 10, low=0, high=100, clears="dirty_background_bytes")
    ),
    b"dirty_bytes": _file(Knob("table", "dirty_bytes", low=8192, wide=True, clears="dirty_ratio")),
    b"dirty_ratio": _file(Knob("table", "dirty_ratio", 20, low=0, high=100, clears="dirty_bytes")),
    b"drop_caches": _file(Action("table", "drop_caches", low=1, high=4), 0o200),
    b"hugetlb_shm_group": _file(Knob("system", "sysctl_hugetlb_shm_group")),
    b"legacy_va_layout": _file(Knob("system", "sysctl_legacy_va_layout", low=0)),
    b"lowmem_reserve_ratio": _file(LowmemReserve("lowmem_reserve_ratio", (), 0)),
    b"max_map_count": _file(Knob("system", "sysctl_max_map_count", low=0)),
    b"min_free_kbytes": _file(Computed("min_free_kbytes", min_free_kbytes, 0)),
    b"mmap_min_addr": _file(Knob("system", "mmap_min_addr", wide=True)),
    b"mmap_rnd_bits": _file(ArchBits("mmap_rnd_bits"), 0o600),
    b"nr_hugepages": _file(HugePages("persistent_huge_pages")),
    b"nr_hugepages_mempolicy": _file(HugePages("persistent_huge_pages")),
    b"nr_overcommit_hugepages": _file(HugePages("nr_overcommit_huge_pages")),
    b"numa_zonelist_order": _file(Text("numa_zonelist_order", "Node")),
    b"overcommit_kbytes": _file(
        Knob("system", "sysctl_overcommit_kbytes", wide=True, clears="sysctl_overcommit_ratio")
    ),
    b"overcommit_memory": _file(Knob("system", "sysctl_overcommit_memory", low=0, high=2)),
    b"overcommit_ratio": _file(Knob("system", "sysctl_overcommit_ratio", clears="sysctl_overcommit_kbytes")),
    b"percpu_pagelist_fraction": _file(Fraction("table", "percpu_pagelist_fraction", low=0)),
    b"stat_refresh": _file(Empty(), 0o600),
    b"user_reserve_kbytes": _file(Knob("system", "sysctl_user_reserve_kbytes", wide=True)),
}
_RANDOM: dict[bytes, Entry] = {
    b"boot_id": _file(Uuid(True), 0o444),
    b"entropy_avail": _number("entropy_avail", 256, mode=0o444),
    b"poolsize": _number("poolsize", 256, mode=0o444),
    b"urandom_min_reseed_secs": _file(Ignored("table", "urandom_min_reseed_secs", 60)),
    b"uuid": _file(Uuid(False), 0o444),
    b"write_wakeup_threshold": _file(Ignored("table", "write_wakeup_threshold", 256)),
}
_KERNEL: dict[bytes, Entry] = {
    **plain("kernel"),
    **_OVERFLOW,
    b"cap_last_cap": _number("cap_last_cap", 40, mode=0o444),
    b"core_pattern": _file(Text("core_pattern", "core", 127)),
    b"domainname": _file(Text("domainname")),
    b"hostname": _file(Text("hostname")),
    b"ngroups_max": _number("ngroups_max", 65536, mode=0o444),
    b"ns_last_pid": _file(LastPid("kernel", "next_pid", low=0), 0o666),
    b"osrelease": _file(Text("osrelease", UTS_RELEASE), 0o444),
    b"ostype": _file(Text("ostype", "Linux"), 0o444),
    b"pid_max": _file(Knob("kernel", "pid_max", low=301, high=4194304)),
    b"printk": _file(Numbers("printk", (4, 4, 1, 7))),
    b"random": Entry(0o555, DIR, _RANDOM),
    b"randomize_va_space": _file(Knob("kernel", "randomize_va_space")),
    b"sched_rt_period_us": _file(RealTimeBandwidth("table", "sched_rt_period_us", 1_000_000, 1)),
    b"sched_rt_runtime_us": _file(RealTimeBandwidth("table", "sched_rt_runtime_us", 950_000, -1)),
    b"sched_rr_timeslice_ms": _file(Positive("table", "sched_rr_timeslice_ms", 100)),
    b"msg_next_id": _file(IpcKnob("msg_ids", "next_id", low=0)),
    b"msgmax": _file(IpcKnob("ipc", "msg_ctlmax", low=0)),
    b"msgmnb": _file(IpcKnob("ipc", "msg_ctlmnb", low=0)),
    b"msgmni": _file(IpcKnob("ipc", "msg_ctlmni", low=0, high=32768)),
    b"sem": _file(Semaphores("sem", ())),
    b"sem_next_id": _file(IpcKnob("sem_ids", "next_id", low=0)),
    b"shm_next_id": _file(IpcKnob("ipc", "next_id", low=0)),
    b"shm_rmid_forced": _file(IpcKnob("ipc", "shm_rmid_forced", low=0, high=1)),
    b"shmall": _file(IpcKnob("ipc", "shm_ctlall", wide=True)),
    b"shmmax": _file(IpcKnob("ipc", "shm_ctlmax", wide=True)),
    b"shmmni": _file(IpcKnob("ipc", "shm_ctlmni", low=0, high=32768)),
    b"tainted": _file(Taint("table", "tainted", wide=True)),
    b"threads-max": _file(Knob("kernel", "max_threads", low=1)),
    b"version": _file(Text("version"), 0o444),
}
_EPOLL = {b"max_user_watches": _file(Computed("max_user_watches", _max_user_watches, wide=True))}
_MQUEUE: dict[bytes, Entry] = {
    b"msg_default": _file(IpcKnob("ipc", "mq_msg_default", low=1, high=65536)),
    b"msg_max": _file(IpcKnob("ipc", "mq_msg_max", low=1, high=65536)),
    b"msgsize_default": _file(IpcKnob("ipc", "mq_msgsize_default", low=128, high=16777216)),
    b"msgsize_max": _file(IpcKnob("ipc", "mq_msgsize_max", low=128, high=16777216)),
    b"queues_max": _file(IpcKnob("ipc", "mq_queues_max")),
}
_FS: dict[bytes, Entry] = {
    **plain("fs"),
    **_OVERFLOW,
    b"aio-nr": _number("aio-nr", 0, mode=0o444),
    b"epoll": Entry(0o555, DIR, _EPOLL),
    b"file-max": _file(Computed("file-max", _file_max, wide=True)),
    b"file-nr": _file(FileCount("file-nr", ()), 0o444),
    b"mqueue": Entry(0o555, DIR, _MQUEUE),
    b"nr_open": _number("nr_open", 1048576, low=64, high=0x7FFFFFF8),
    b"pipe-max-size": _file(PipeSize("table", "pipe-max-size", 1048576, wide=True)),
}
SYS_FOLDERS: dict[bytes, Entry] = {
    b"dev": Entry(0o555, DIR, {b"tty": Entry(0o555, DIR, plain("dev/tty"))}),
    b"fs": Entry(0o555, DIR, _FS),
    b"kernel": Entry(0o555, DIR, _KERNEL),
    b"net": Entry(
        0o555, DIR, {b"core": Entry(0o555, DIR, plain("net/core")), b"unix": Entry(0o555, DIR, plain("net/unix"))}
    ),
    b"vm": Entry(0o555, DIR, _VM),
}
