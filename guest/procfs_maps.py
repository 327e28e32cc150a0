"""/proc/PID/maps (fs/proc/task_mmu.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.procfs_file import SeqFile
from mm.errors import Errno
from mm.flags import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE
from mm.special_mapping import vma_name

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path
    from mm.types import MmStruct, VmAreaStruct

_END = -1  # index behind the last area
NAME_COLUMN = 25 + 6 * 8 - 1  # where the name starts: 25 + sizeof(void *) * 6 - 1


class Gate:
    """The area that exists on x86-64 only for show: [vsyscall] (get_gate_vma())."""

    def __init__(self, start: int, end: int, flags: int, name: str) -> None:
        self.vm_start = start
        self.vm_end = end
        self.vm_flags = flags
        self.name = name


def gate_area(task: Task) -> Gate | None:
    """The architecture's gate area, if it has one."""
    found = task.kernel.arch.gate_area
    return Gate(*found) if found is not None else None


class VmaFile(SeqFile):
    """A file with one record an area (proc_maps_open()). The mm is the one of the time of the open."""

    def __init__(self, path: Path, inode: ProcInode, flags: int, task: Task) -> None:
        super().__init__(path, inode, flags)
        self.target = inode.task
        self.mm: MmStruct | None = inode.access_mm(task)

    def seq_start(self, task: Task) -> Any:
        if self.index == _END:
            return None
        if task.kernel.tasks.get(self.target.pid) is not self.target:
            raise Errno(errno.ESRCH)
        mm = self.mm
        if mm is None or mm.mm_users == 0:
            return None
        return mm.ops.find_vma(mm, self.index) or gate_area(self.target)

    def seq_next(self, task: Task, record: Any) -> Any:
        if isinstance(record, Gate):
            following = None
        else:
            following = record.vm_next or gate_area(self.target)
        self.index = following.vm_start if following is not None else _END
        return following

    def seq_show(self, task: Task, record: Any) -> str:
        return show_map(record)


def show_map(vma: VmAreaStruct | Gate) -> str:
    """show_map_vma(): one line."""
    flags = vma.vm_flags
    file = None if isinstance(vma, Gate) else vma.vm_file
    dev = ino = pgoff = 0
    if file is not None and not isinstance(vma, Gate):
        inode = getattr(file, "f_inode", None)
        if inode is not None:
            dev, ino = inode.i_sb.s_dev, inode.i_ino
        else:
            dev, ino = 1, getattr(file, "ino", 1)  # shmem of mm/ itself: the kernel's internal mount is 0:1
        pgoff = vma.vm_pgoff << vma.vm_mm.arch.page_shift
    head = (
        f"{vma.vm_start:08x}-{vma.vm_end:08x} {'r' if flags & VM_READ else '-'}{'w' if flags & VM_WRITE else '-'}"
        f"{'x' if flags & VM_EXEC else '-'}{'s' if flags & VM_MAYSHARE else 'p'} {pgoff:08x}"
        f" {dev >> 20:02x}:{dev & 0xFFFFF:02x} {ino} "
    )
    name = file.d_path().replace("\n", "\\012") if file is not None else area_name(vma)
    if name is None:
        return head + "\n"
    return f"{head:<{NAME_COLUMN}} {name}\n"


def area_name(vma: VmAreaStruct | Gate) -> str | None:
    """What an area without a file is called."""
    if isinstance(vma, Gate):
        return vma.name
    name = vma_name(vma)
    if name is not None:
        return name
    mm = vma.vm_mm
    if vma.vm_start <= mm.brk and vma.vm_end >= mm.start_brk:
        return "[heap]"
    if vma.vm_start <= mm.start_stack <= vma.vm_end:
        return "[stack]"
    return None
