"""What the files of /proc that are about the whole system say (fs/proc/*.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.procfs import LINK, SINGLE, Entry
from mm.mmdump import mmdump

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task


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


ROOT_TABLE: dict[bytes, Entry] = {
    b"mmdump": Entry(0o444, SINGLE, show_mmdump),
    b"mounts": Entry(0o777, LINK, mounts_link),
    b"self": Entry(0o777, LINK, self_link),
    b"thread-self": Entry(0o777, LINK, thread_self_link),
}
