"""/proc: the tree (fs/proc/{root,base,generic,fd}.c). What each file says is in the procfs_* beside.

Entries are made when they are looked up and never cached, so a process that is gone is gone. Inode numbers are computed
from what an entry is: 1 the root, then the fixed files, then 64 Ki numbers for each pid.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import DirFile, OpenFile
from guest.procfs_file import SingleFile, TextFile
from guest.vfs_flags import (
    NAME_MAX,
    PROC_SUPER_MAGIC,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
)
from guest.vfs_types import Dentry, Inode, Path, SuperBlock
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guest.kernel import Kernel
    from guest.pid_namespace import PidNamespace
    from guest.task import Task
    from mm.types import MmStruct

    Show = Callable[["ProcInode", Task], Any]
    Store = Callable[["ProcInode", Task, int, bytes], int]

CAP_SYS_PTRACE = 19
HIDEPID_NO_ACCESS, HIDEPID_INVISIBLE, HIDEPID_NOT_PTRACEABLE = 1, 2, 4
SINGLE, TEXT, SPECIAL, LINK, DIR = range(5)  # how an entry is read
_INO_PER_TASK = 1 << 16
_INO_TID, _INO_FD, _INO_FDINFO = 1 << 15, 1 << 13, 1 << 14  # within a task's numbers


class Entry:
    """One fixed name: its mode, how it is read, and what makes (and takes) its text.

    `show` of a SPECIAL entry opens it: (path, inode, flags, task) -> OpenFile; of a LINK it says where to; of a DIR it
    is the table of the folder or a class of ProcInode.
    """

    __slots__ = ("kind", "mode", "show", "size", "store")

    def __init__(self, mode: int, kind: int, show: Any, store: Store | None = None, size: int = 0) -> None:
        self.mode = mode
        self.kind = kind
        self.show = show
        self.store = store
        self.size = size  # what stat shows


class ProcSuper(SuperBlock):
    """The file system."""

    def __init__(self, kernel: Kernel, s_dev: int, pid_ns: PidNamespace | None = None) -> None:
        super().__init__(kernel, "proc", s_dev, PROC_SUPER_MAGIC)
        self.pid_ns = pid_ns  # whose processes it shows; None: the first namespace
        self.hide_pid = 0  # HIDEPID_*
        self.pid_gid = 0  # whose members everything is shown to
        self.pidonly = False  # nothing but processes
        self.root = Dentry(b"", None, ProcRoot(self))

    def may_see(self, reader: Task, task: Task, least: int) -> bool:
        """has_pid_permissions(): whether `reader` may see a process, or look into it, where `least` forbids it."""
        if self.hide_pid == HIDEPID_NOT_PTRACEABLE:
            return ptrace_may_access(reader, task)
        if self.hide_pid < least or reader.cred.in_group(self.pid_gid):
            return True
        return ptrace_may_access(reader, task)

    def pid_nr(self, pid: int) -> int:
        """The number of a process, group or session in this /proc; 0: none."""
        return pid if self.pid_ns is None else self.pid_ns.numbers.get(pid, 0)

    def find_task(self, name: bytes) -> Task | None:
        """Whom a folder's name stands for."""
        nr = int(name)
        return self.kernel.tasks.get(nr if self.pid_ns is None else self.pid_ns.pids.get(nr, -1))

    def shown_tasks(self) -> list[tuple[int, Task]]:
        """Its tasks with their numbers, by number."""
        tasks = self.kernel.tasks
        if self.pid_ns is None:
            return sorted(tasks.items())
        return [(nr, tasks[pid]) for nr, pid in sorted(self.pid_ns.pids.items()) if pid in tasks]

    def blksize(self) -> int:
        return 1024


SUID_DUMP_USER = 1  # get_dumpable() of a task that may be looked into


class ProcInode(Inode):
    """A file of a task (`task`) or of the whole system. `table` are the names of a folder."""

    i_sb: Any  # ProcSuper; sysfs uses the class too
    show: Show
    store: Store | None = None
    makes_names = False  # a name that is not there cannot even be asked for

    def __init__(self, sb: SuperBlock, mode: int, ino: int, task: Task | None = None) -> None:
        super().__init__(sb, mode, ino=ino)
        self.subject = task
        self.kind = DIR
        self.table: dict[bytes, Entry] = {}
        self.name = b""
        self.size = 0
        if mode & S_IFMT == S_IFDIR:
            self.i_nlink = 2

    @property
    def i_size(self) -> int:
        return self.size

    @property
    def task(self) -> Task:
        """The task a file of /proc/PID is about. Raises ESRCH when it is gone."""
        task = self.subject
        if task is None or task.kernel.tasks.get(task.pid) is not task:
            raise Errno(errno.ESRCH)
        return task

    def access_mm(self, reader: Task) -> MmStruct | None:
        """proc_mem_open(): the task's mm, if the reader may look. Raises EACCES, ESRCH."""
        task = self.task
        there = task.mm is not None or task is task.kernel.init  # the stand-in for init has none
        if there and task.mm is not reader.mm and not ptrace_may_access(reader, task):
            raise Errno(errno.EACCES)
        return task.mm

    def make(self, name: bytes, entry: Entry, number: int) -> ProcInode:
        """The inode of one of this folder's fixed names."""
        if entry.kind == DIR and isinstance(entry.show, type):
            inode: ProcInode = entry.show(self.i_sb, entry.mode | S_IFDIR, number, self.subject)
        else:
            kind = {DIR: S_IFDIR, LINK: S_IFLNK}.get(entry.kind, S_IFREG)
            inode = ProcInode(self.i_sb, entry.mode | kind, number, self.subject)
            inode.kind, inode.show, inode.store = entry.kind, entry.show, entry.store
            if entry.kind == DIR:
                inode.table = entry.show
                inode.i_nlink = 2 + sum(below.kind == DIR for below in entry.show.values())
        inode.name = name
        inode.size = entry.size
        if self.subject is not None:
            inode.own()
        return inode

    def own(self) -> None:
        """task_dump_owner(): files of a task belong to its user; of one that must not be looked into, to root."""
        task = self.subject
        if task is None:
            return
        if self.i_mode == S_IFDIR | 0o555 or (task.mm is not None and task.mm.flags & 3 == SUID_DUMP_USER):
            self.i_uid, self.i_gid = task.cred.euid, task.cred.egid
        else:
            self.i_uid = self.i_gid = 0

    def permission(self, task: Task, mask: int) -> int | None:
        self.own()  # pid_revalidate(): the owner is that of now
        return None

    def getattr(self) -> None:
        self.own()

    def numbers(self) -> int:
        """The number before this folder's first entry."""
        return self.i_ino

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        if len(name) > NAME_MAX:
            raise Errno(errno.ENAMETOOLONG)
        entry = self.table.get(name)
        if entry is None:
            return None
        number = self.numbers() + 1 + list(self.table).index(name) * 256
        return Dentry(name, parent, self.make(name, entry, number))

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        for index, (name, entry) in enumerate(self.table.items()):
            kind = {DIR: S_IFDIR, LINK: S_IFLNK}.get(entry.kind, S_IFREG)
            yield name, self.numbers() + 1 + index * 256, entry.mode | kind

    def get_link(self, task: Task) -> bytes | Path:
        if self.kind != LINK:
            raise Errno(errno.EINVAL)
        link: bytes | Path = self.show(self, task)
        return link

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        if self.i_mode & S_IFMT == S_IFDIR:
            return DirFile(path, self, flags)
        if self.kind == SPECIAL:
            opener: Any = self.show
            file: OpenFile = opener(path, self, flags, task)
            return file
        return (TextFile if self.kind == TEXT else SingleFile)(path, self, flags)

    def truncate(self, size: int) -> None:
        return

    def setattr(self, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        if mode is not None and self.subject is not None:
            raise Errno(errno.EPERM)
        super().setattr(mode, uid, gid)


def ptrace_may_access(reader: Task, task: Task) -> bool:
    """__ptrace_may_access() with FSCREDS: the same user, or CAP_SYS_PTRACE; and a dumpable mm."""
    if reader.tgid == task.tgid:
        return True
    mine, cred = reader.cred, task.cred
    same = mine.fsuid == cred.euid == cred.suid == cred.uid and mine.fsgid == cred.egid == cred.sgid == cred.gid
    capable = reader.capable(CAP_SYS_PTRACE)
    if not same and not capable:
        return False
    mm = task.mm
    return capable or mm is None or mm.flags & 3 == 1


class ProcRoot(ProcInode):
    """/proc: fixed files, then one folder a process."""

    def __init__(self, sb: SuperBlock) -> None:
        super().__init__(sb, S_IFDIR | 0o555, 1)

    def fixed(self) -> dict[bytes, Entry]:
        """The names that do not depend on processes."""
        from guest.procfs_sys import ROOT_TABLE

        return ROOT_TABLE

    def getattr(self) -> None:
        self.table = self.fixed()
        self.i_nlink = 2 + sum(e.kind == DIR for e in self.table.values()) + len(self.i_sb.shown_tasks())

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        self.table = self.fixed()
        if name.isdigit() and (name == b"0" or name[:1] != b"0"):
            task = self.i_sb.find_task(name)
            if task is not None and self.i_sb.hide_pid == HIDEPID_NOT_PTRACEABLE:
                task = task if ptrace_may_access(self.i_sb.kernel.current, task) else None
            return Dentry(name, parent, ProcPid.of(self.i_sb, task)) if task is not None else None
        if self.i_sb.pidonly and name not in (b"self", b"thread-self"):
            return None
        return super().lookup(parent, name)

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        self.table = self.fixed()
        for entry in super().iterate(parent, task):
            if not self.i_sb.pidonly or entry[0] in (b"self", b"thread-self"):
                yield entry
        for nr, other in self.i_sb.shown_tasks():
            if other.group_leader is other and self.i_sb.may_see(task, other, HIDEPID_INVISIBLE):
                yield b"%d" % nr, task_ino(other), S_IFDIR | 0o555


def task_ino(task: Task) -> int:
    """The number of a task's folder: never given again, unlike its pid (get_next_ino())."""
    return (task.serial + 1) * _INO_PER_TASK


def pid_permission(inode: ProcInode, task: Task) -> int | None:
    """proc_pid_permission(): EPERM or ENOENT in a /proc that hides processes."""
    sb, subject = inode.i_sb, inode.subject
    if not sb.hide_pid or subject is None or sb.may_see(task, subject, HIDEPID_NO_ACCESS):
        return None
    return errno.ENOENT if sb.hide_pid == HIDEPID_INVISIBLE else errno.EPERM


class ProcPid(ProcInode):
    """/proc/PID."""

    def permission(self, task: Task, mask: int) -> int | None:
        self.own()
        return pid_permission(self, task)

    def getattr(self) -> None:
        sb, reader = self.i_sb, self.i_sb.kernel.current
        if sb.hide_pid and self.subject is not None and not sb.may_see(reader, self.subject, HIDEPID_INVISIBLE):
            raise Errno(errno.ENOENT)
        self.own()

    @classmethod
    def of(cls, sb: SuperBlock, task: Task, thread: bool = False) -> ProcPid:
        """The folder of `task`: /proc/PID, or /proc/PID/task/TID."""
        from guest.procfs_pid import ARCH_STATUS
        from guest.procfs_task import PID_TABLE, TID_TABLE

        inode = cls(sb, S_IFDIR | 0o555, task_ino(task) + (_INO_TID if thread else 0), task)
        inode.table = TID_TABLE if thread else PID_TABLE
        if sb.kernel.vfs.abi.arch_status:
            inode.table = {**inode.table, b"arch_status": ARCH_STATUS}
        inode.i_nlink = 2 + sum(entry.kind == DIR for entry in inode.table.values())
        inode.own()
        return inode


class ProcTasks(ProcInode):
    """/proc/PID/task."""

    def permission(self, task: Task, mask: int) -> int | None:
        self.own()
        return pid_permission(self, task)

    def getattr(self) -> None:
        self.own()
        self.i_nlink = 2 + (len(self.subject.signal.threads) if self.subject is not None else 0)

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        task = self.i_sb.find_task(name) if name.isdigit() else None
        if task is None or task.tgid != self.task.tgid:
            return None
        return Dentry(name, parent, ProcPid.of(self.i_sb, task, True))

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        for nr, other in self.i_sb.shown_tasks():
            if other.tgid == self.task.tgid:
                yield b"%d" % nr, task_ino(other) + _INO_TID, S_IFDIR | 0o555


class ProcFds(ProcInode):
    """/proc/PID/fd: a link for each descriptor, which jumps to the open file's place."""

    first = _INO_FD

    def permission(self, task: Task, mask: int) -> int | None:
        self.own()
        if self.subject is not None and task.tgid == self.subject.tgid:
            return 0
        return None

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        if not name.isdigit() or (len(name) > 1 and name[:1] == b"0"):
            return None
        fd = int(name)
        files = self.task.files
        if files is None or fd >= len(files.fd) or files.fd[fd] is None:
            return None
        inode = ProcInode(self.i_sb, self.entry_mode(files.fd[fd]), task_ino(self.task) + self.first + fd, self.task)
        inode.name = name
        self.dress(inode)
        inode.own()
        return Dentry(name, parent, inode)

    def entry_mode(self, file: OpenFile) -> int:
        """Type and permission of one entry."""
        mode = S_IFLNK
        if file.f_mode & 1:
            mode |= 0o500
        if file.f_mode & 2:
            mode |= 0o300
        return mode

    def dress(self, inode: ProcInode) -> None:
        """Say how the entry is read."""
        inode.kind, inode.show = LINK, fd_link
        inode.size = 64

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        files = self.task.files
        for fd in files.open_fds() if files is not None else ():
            yield b"%d" % fd, task_ino(self.task) + self.first + fd, self.entry_mode(files.fd[fd])

    def still_there(self, parent: Dentry, name: bytes) -> bool:
        return int(name) in self.task.files.open_fds()


class ProcFdInfos(ProcFds):
    """/proc/PID/fdinfo."""

    first = _INO_FDINFO

    def entry_mode(self, file: OpenFile) -> int:
        return S_IFREG | 0o400

    def dress(self, inode: ProcInode) -> None:
        from guest.procfs_task import show_fdinfo

        inode.kind, inode.show = SINGLE, show_fdinfo


def fd_link(inode: ProcInode, task: Task) -> Path:
    """proc_fd_link(): the place of the open file. Raises ENOENT when it was closed."""
    fd = int(inode.name)
    files = inode.task.files
    if files is None or fd >= len(files.fd) or files.fd[fd] is None:
        raise Errno(errno.ENOENT)
    path: Path = files.fd[fd].f_path
    return path


def may_follow(inode: ProcInode, task: Task) -> None:
    """proc_fd_access_allowed(). Raises EACCES."""
    if not ptrace_may_access(task, inode.task):
        raise Errno(errno.EACCES)
