"""Small files of /proc about the machine: its devices, its memory map, its file locks (fs/proc, kernel/resource.c).

A file that lists what the machine has none of (modules, disks, consoles of a kernel) is there and empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.procfs import DIR, SINGLE, Entry
from guest.sys_file_lock import F_WRLCK, OFFSET_MAX, LockContext

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Inode

CAP_SYS_ADMIN = 21


def show_none(inode: ProcInode, task: Task) -> str:
    """Nothing to list."""
    return ""


def show_devices(inode: ProcInode, task: Task) -> str:
    """devinfo_show(): major numbers with a driver (guest/devfs.py). There are no block devices."""
    return "Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n"


def show_execdomains(inode: ProcInode, task: Task) -> str:
    """execdomains_proc_show()."""
    return "0-0\tLinux           \t[kernel]\n"


def show_iomem(inode: ProcInode, task: Task) -> str:
    """r_show(): RAM, from 0 on. Addresses are for CAP_SYS_ADMIN."""
    last = len(task.system.ram) - 1 if task.capable(CAP_SYS_ADMIN) else 0
    return f"{0:08x}-{last:08x} : System RAM\n"


def show_drivers(inode: ProcInode, task: Task) -> str:
    """show_tty_driver(): the controlling terminal."""
    return "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"


def show_ldiscs(inode: ProcInode, task: Task) -> str:
    """tty_ldiscs_seq_show()."""
    return "n_tty       0\n"


TTY_TABLE: dict[bytes, Entry] = {
    b"ldisc": Entry(0o555, DIR, {}),
    b"driver": Entry(0o500, DIR, {}),
    b"ldiscs": Entry(0o444, SINGLE, show_ldiscs),
    b"drivers": Entry(0o444, SINGLE, show_drivers),
}


# locks


def locked_inodes(task: Task) -> list[Inode]:
    """Inodes somebody holds a lock on: each has an open file in some table."""
    found: dict[int, Any] = {}
    tables = {id(other.files): other.files for other in task.kernel.tasks.values() if other.files is not None}
    for files in tables.values():
        for file in files.fd:
            inode = getattr(file, "f_inode", None)
            if inode is not None and getattr(inode, "i_flctx", None) is not None:
                found[id(inode)] = inode
    return list(found.values())


def show_locks(inode: ProcInode, task: Task) -> str:
    """lock_get_status() of each lock: number, kind, mode, who, where. Waiting calls have no line of their own here."""
    text, number = "", 0
    for locked in locked_inodes(task):
        context: LockContext = locked.i_flctx
        held = [("FLOCK ", lock) for lock in context.flock]
        held += [("OFDLCK" if lock.pid < 0 else "POSIX ", lock) for lock in context.posix]
        for kind, lock in held:
            number += 1
            who = lock.pid if lock.pid < 0 else inode.i_sb.pid_nr(lock.pid)
            if not who:
                continue  # of nobody this /proc shows
            mode = "WRITE" if write_mode(kind, lock.kind) else "READ "
            device = f"{locked.i_sb.s_dev >> 20:02x}:{locked.i_sb.s_dev & 0xFFFFF:02x}:{locked.i_ino}"
            end = "EOF" if lock.end == OFFSET_MAX else str(lock.end)
            text += f"{number}: {kind} ADVISORY  {mode} {who} {device} {lock.start} {end}\n"
        for lease in context.leases:
            number += 1
            state = "BREAKING" if lease.unlock_pending or lease.downgrade_pending else "ACTIVE"
            mode = ("READ ", "WRITE", "UNLCK")[lease.target()]
            device = f"{locked.i_sb.s_dev >> 20:02x}:{locked.i_sb.s_dev & 0xFFFFF:02x}:{locked.i_ino}"
            text += f"{number}: LEASE  {state:<9} {mode} {inode.i_sb.pid_nr(lease.pid)} {device} 0 EOF\n"
    return text


def write_mode(kind: str, value: int) -> bool:
    """Whether a lock keeps readers out: F_WRLCK, or LOCK_EX of flock."""
    return value == (2 if kind == "FLOCK " else F_WRLCK)
