"""/proc/PID/status, stat, statm, limits (fs/proc/array.c, task_mmu.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.procfs import ptrace_may_access
from guest.task import SIGNAL_GROUP_EXIT
from guest.vfs_types import makedev, new_encode_dev
from mm.flags import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, RLIM_INFINITY, RLIMIT_RSS

if TYPE_CHECKING:
    from guest.procfs import ProcInode, ProcSuper
    from guest.task import Task
    from mm.types import MmStruct

_STATES = {
    "R": "R (running)",
    "S": "S (sleeping)",
    "D": "D (disk sleep)",
    "T": "T (stopped)",
    "t": "t (tracing stop)",
    "X": "X (dead)",
    "Z": "Z (zombie)",
}
_TICK = 10_000_000  # ns: USER_HZ is 100
_MMF_DISABLE_THP = 1 << 24
RLIMIT_SIGPENDING = 11
_LIMITS = (
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", None),
    ("Max realtime priority", None),
    ("Max realtime timeout", "us"),
)


def get_mm_counter(mm: MmStruct, member: int) -> int:
    """Pages; what tasks have not yet folded in can make it look negative."""
    return max(mm.rss_stat[member], 0)


def state_letter(task: Task) -> str:
    """task_state_index() as its letter."""
    return task.exit_state or task.state


def escaped(name: str) -> str:
    """string_escape_str(ESCAPE_SPACE | ESCAPE_SPECIAL, only newline and backslash)."""
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def show_status(inode: ProcInode, reader: Task) -> str:
    """proc_pid_status()."""
    task = inode.task
    mm = task.mm
    text = f"Name:\t{escaped(task.comm)}\n" + _task_state(task, inode.i_sb)
    if mm is not None:
        text += task_mem(mm)
        text += f"CoreDumping:\t0\nTHP_enabled:\t{0 if mm.flags & _MMF_DISABLE_THP else 1}\n"
    text += _task_sig(task)
    cred = task.cred
    for label, value in (
        ("CapInh", cred.cap_inheritable),
        ("CapPrm", cred.cap_permitted),
        ("CapEff", cred.cap_effective),
        ("CapBnd", cred.cap_bset),
        ("CapAmb", cred.cap_ambient),
    ):
        text += f"{label}:\t{value:016x}\n"
    text += f"NoNewPrivs:\t{int(task.no_new_privs)}\n"
    text += f"Speculation_Store_Bypass:\t{task.kernel.vfs.abi.speculation}\n"
    text += "Cpus_allowed:\t1\nCpus_allowed_list:\t0\n"
    return text + f"voluntary_ctxt_switches:\t{task.nvcsw}\nnonvoluntary_ctxt_switches:\t{task.nivcsw}\n"


def _task_state(task: Task, sb: ProcSuper) -> str:
    """task_state(): identity."""
    cred, nr = task.cred, sb.pid_nr
    umask = f"Umask:\t{_octal(task.fs.umask)}\n" if task.fs is not None else ""
    groups = " ".join(map(str, cred.groups))
    return (
        f"{umask}State:\t{_STATES[state_letter(task)]}\nTgid:\t{nr(task.tgid)}\nNgid:\t0\nPid:\t{nr(task.pid)}\n"
        f"PPid:\t{nr(task.ppid)}\nTracerPid:\t{nr(task.tracer.tgid) if task.tracer else 0}\n"
        f"Uid:\t{cred.uid}\t{cred.euid}\t{cred.suid}\t{cred.fsuid}\n"
        f"Gid:\t{cred.gid}\t{cred.egid}\t{cred.sgid}\t{cred.fsgid}\n"
        f"FDSize:\t{task.files.max_fds if task.files is not None else 0}\nGroups:\t{groups} \n"
        f"NStgid:\t{_levels(task, sb, task.tgid)}\nNSpid:\t{_levels(task, sb, task.pid)}\n"
        f"NSpgid:\t{_levels(task, sb, task.signal.pgrp)}\nNSsid:\t{_levels(task, sb, task.signal.session)}\n"
    )


def _levels(task: Task, sb: ProcSuper, pid: int) -> str:
    """The numbers of an id in this /proc's namespace and in each one below it down to the task's."""
    numbers, space = [sb.pid_nr(pid)], task.pid_ns
    while space is not sb.pid_ns and space is not None:
        numbers.insert(1, space.numbers.get(pid, 0))
        space = space.parent
    return "\t".join(map(str, numbers))


def _octal(value: int) -> str:
    """%#04o: at least four characters, a leading 0 among them."""
    return f"0{value:o}".zfill(4) if value else "0000"


def task_mem(mm: MmStruct) -> str:
    """Sizes in kB."""
    page_shift = mm.arch.page_shift
    anon, file = get_mm_counter(mm, MM_ANONPAGES), get_mm_counter(mm, MM_FILEPAGES)
    shmem, swap = get_mm_counter(mm, MM_SHMEMPAGES), get_mm_counter(mm, MM_SWAPENTS)
    rss = anon + file + shmem
    text = text_size(mm)
    text = min(text, mm.exec_vm << page_shift)
    lib = (mm.exec_vm << page_shift) - text
    pages = (
        ("VmPeak", max(mm.total_vm, mm.hiwater_vm)),
        ("VmSize", mm.total_vm),
        ("VmLck", mm.locked_vm),
        ("VmPin", mm.pinned_vm),
        ("VmHWM", max(rss, mm.hiwater_rss)),
        ("VmRSS", rss),
        ("RssAnon", anon),
        ("RssFile", file),
        ("RssShmem", shmem),
        ("VmData", mm.data_vm),
        ("VmStk", mm.stack_vm),
    )
    out = "".join(f"{label}:\t{count << (page_shift - 10):8} kB\n" for label, count in pages)
    out += f"VmExe:\t{text >> 10:8} kB\nVmLib:\t{lib >> 10:8} kB\nVmPTE:\t{mm.pgtables_bytes >> 10:8} kB\n"
    return (
        out
        + f"VmSwap:\t{swap << (page_shift - 10):8} kB\n"
        + (f"HugetlbPages:\t{mm.hugetlb_usage << (page_shift - 10):8} kB\n")
    )


def text_size(mm: MmStruct) -> int:
    """Bytes of the program's code, whole pages."""
    size = mm.arch.page_size
    return (mm.end_code + size - 1) // size * size - mm.start_code // size * size


def _task_sig(task: Task) -> str:
    """task_sig()."""
    ignored, caught = sig_masks(task)
    threads = len(task.signal.threads)
    return (
        f"Threads:\t{threads}\nSigQ:\t{task.kernel.queued_signals(task)}/{task.rlim[RLIMIT_SIGPENDING][0]}\n"
        f"SigPnd:\t{task.pending.signal:016x}\nShdPnd:\t{task.signal.shared_pending.signal:016x}\n"
        f"SigBlk:\t{task.blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
    )


def sig_masks(task: Task) -> tuple[int, int]:
    """collect_sigign_sigcatch(): the sets of ignored and of caught signals."""
    ignored = caught = 0
    if task.exit_state:
        return 0, 0
    for signo, action in enumerate(task.sighand.action):
        if signo and action.handler == 1:
            ignored |= 1 << (signo - 1)
        elif signo and action.handler:
            caught |= 1 << (signo - 1)
    return ignored, caught


def show_statm(inode: ProcInode, reader: Task) -> str:
    """proc_pid_statm(): pages."""
    mm = inode.task.mm
    if mm is None:
        return "0 0 0 0 0 0 0\n"
    shared = get_mm_counter(mm, MM_FILEPAGES) + get_mm_counter(mm, MM_SHMEMPAGES)
    resident = shared + get_mm_counter(mm, MM_ANONPAGES)
    text = text_size(mm) >> mm.arch.page_shift
    return f"{mm.total_vm} {resident} {shared} {text} 0 {mm.data_vm + mm.stack_vm} 0\n"


def show_stat(inode: ProcInode, reader: Task) -> str:
    """proc_tgid_stat()."""
    return do_task_stat(inode.task, reader, True, inode.i_sb)


def show_tid_stat(inode: ProcInode, reader: Task) -> str:
    """proc_tid_stat()."""
    return do_task_stat(inode.task, reader, False, inode.i_sb)


def do_task_stat(task: Task, reader: Task, whole: bool, sb: ProcSuper) -> str:
    """52 fields."""
    mm, signal, nr = task.mm, task.signal, sb.pid_nr
    permitted = ptrace_may_access(reader, task)
    members = signal.threads if whole else [task]
    min_flt, maj_flt = sum(t.min_flt for t in members), sum(t.maj_flt for t in members)
    utime, stime = sum(t.utime for t in members), sum(t.stime for t in members)
    if whole:
        min_flt, maj_flt = min_flt + signal.min_flt, maj_flt + signal.maj_flt
        utime, stime = utime + signal.utime, stime + signal.stime
    ignored, caught = sig_masks(task)
    tty = signal.tty
    rss = sum(get_mm_counter(mm, i) for i in (MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES)) if mm is not None else 0
    fields: list[int | str] = [
        state_letter(task), nr(task.ppid), nr(signal.pgrp), nr(signal.session),
        new_encode_dev(makedev(136, tty.index)) if tty is not None else 0, nr(tty.pgrp) if tty is not None else -1,
        task.flags, min_flt, signal.cmin_flt, maj_flt, signal.cmaj_flt,
        utime // _TICK, stime // _TICK, signal.cutime // _TICK, signal.cstime // _TICK,
        task.prio - 100, task.nice, len(signal.threads), 0,
        task.start_time // _TICK,
        mm.total_vm << mm.arch.page_shift if mm is not None else 0, rss, signal.rlim[RLIMIT_RSS][0],
    ]  # fmt: skip
    if mm is None:
        fields += [0, 0, 0]
    else:
        fields += [mm.start_code, mm.end_code, mm.start_stack] if permitted else [1, 1, 0]
    mask = 0x7FFFFFFF
    fields += [0, 0, task.pending.signal & mask, task.blocked & mask, ignored & mask, caught & mask]
    fields += [int(permitted and state_letter(task) != "R" and not task.exit_state), 0, 0, task.exit_signal, 0]
    fields += [task.rt_priority, task.policy, 0, 0, 0]
    if mm is not None and permitted:
        fields += [mm.start_data, mm.end_data, mm.start_brk, mm.arg_start, mm.arg_end, mm.env_start, mm.env_end]
    else:
        fields += [0] * 7
    dying = signal.flags & SIGNAL_GROUP_EXIT or task.exit_state
    fields.append(task.exit_code if permitted and dying else 0)
    return f"{nr(task.pid)} ({task.comm}) {' '.join(map(str, fields))}\n"


def show_limits(inode: ProcInode, reader: Task) -> str:
    """proc_pid_limits()."""
    out = f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"
    for (name, unit), (soft, hard) in zip(_LIMITS, inode.task.rlim, strict=True):
        low, high = ("unlimited" if value == RLIM_INFINITY else str(value) for value in (soft, hard))
        out += f"{name:<25} {low:<20} {high:<20} " + (f"{unit:<10}\n" if unit is not None else "\n")
    return out
