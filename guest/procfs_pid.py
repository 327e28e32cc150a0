"""Folders and rarer files of /proc/PID: ns, map_files, net; timers, timens_offsets, syscall (fs/proc/base.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.nsproxy import CLONE_NEWPID, CLONE_NEWUSER, KINDS, first_spaces, nsproxy_of, own_space
from guest.procfs import DIR, LINK, SINGLE, Entry, ProcInode, may_follow, ptrace_may_access, task_ino
from guest.sched import TASK_RUNNING
from guest.tty import anonymous_path
from guest.vfs_flags import S_IFLNK, S_IFREG
from guest.vfs_types import Dentry, Inode, Path, SuperBlock
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.kernel import Kernel
    from guest.nsproxy import Namespace
    from guest.task import Task
    from mm.types import VmAreaStruct

NSFS_MAGIC = 0x6E736673
_NSFS_DEV = 4
NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
_INO_MAP_FILES = 1 << 12
_SO_ACCEPTCON = 1 << 16


class NsInode(Inode):
    """A file of nsfs: one namespace, with its kind (CLONE_NEW*)."""

    def __init__(self, sb: SuperBlock, kind: int, space: Namespace) -> None:
        super().__init__(sb, S_IFREG | 0o444, ino=space.number)
        self.namespace = (kind, space)

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        """For setns(), and to keep the namespace."""
        return NsFile(path, self, flags)


class NsFile(OpenFile):
    """An open namespace: for setns(), and to keep it."""

    f_inode: NsInode

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        """ns_ioctl(). Raises EPERM, EINVAL, ENOTTY."""
        kind, space = self.f_inode.namespace
        if cmd == NS_GET_USERNS:
            raise Errno(errno.EPERM)  # without CONFIG_USER_NS
        if cmd == NS_GET_PARENT:
            if kind != CLONE_NEWPID:
                raise Errno(errno.EINVAL)
            from guest.pid_namespace import parent_of

            above = parent_of(task, space) or first_spaces(task.kernel).spaces[kind]
            path = ns_path(task, kind, above)
            fd: int = task.files.add(task, path.dentry.d_inode.open(path, 0, task), True)
            return fd
        if cmd == NS_GET_NSTYPE:
            return kind
        if cmd == NS_GET_OWNER_UID and kind != CLONE_NEWUSER:
            raise Errno(errno.EINVAL)
        raise Errno(errno.ENOTTY)


def ns_link(inode: ProcInode, task: Task) -> Path:
    """proc_ns_get_link(): a file of nsfs that stands for the namespace. Raises EACCES."""
    may_follow(inode, task)
    kind = KINDS[inode.name][0]
    space = _named_space(inode.task, inode.name, kind)
    return ns_path(task, kind, space)


def _named_space(task: Task, name: bytes, kind: int) -> Namespace:
    """Of a task itself, or of its children. Raises Errno(ENOENT) for a namespace of process ids without an init."""
    if not name.endswith(b"_for_children"):
        return own_space(task, kind)
    space = nsproxy_of(task).spaces[kind]
    if kind == CLONE_NEWPID and getattr(space, "child_reaper", space) is None:
        raise Errno(errno.ENOENT)
    return space


def ns_path(task: Task, kind: int, space: Namespace) -> Path:
    """The file of nsfs that stands for a namespace."""
    kernel = task.kernel
    mount = kernel.vfs.internal.get(_NSFS_DEV)
    sb: SuperBlock = mount.mnt_sb if mount is not None else SuperBlock(kernel, "nsfs", _NSFS_DEV, NSFS_MAGIC)
    name = b"%s:[%d]" % (next(name for name, value in KINDS.items() if value[0] == kind), space.number)
    return anonymous_path(sb, NsInode(sb, kind, space), name)


NS_TABLE: dict[bytes, Entry] = {name: Entry(0o777, LINK, ns_link) for name in KINDS}


# map_files


class ProcMapFiles(ProcInode):
    """/proc/PID/map_files: a link START-END to the file of each area that has one."""

    def areas(self, task: Task) -> Iterator[tuple[bytes, VmAreaStruct]]:
        """Names and areas. Raises EACCES for who may not trace the task."""
        if not ptrace_may_access(task, self.task):
            raise Errno(errno.EACCES)
        mm = self.task.mm
        vma = mm.mmap if mm is not None else None
        while vma is not None:
            if vma.vm_file is not None:
                yield b"%x-%x" % (vma.vm_start, vma.vm_end), vma
            vma = vma.vm_next

    @staticmethod
    def link_mode(vma: VmAreaStruct) -> int:
        """What the open file may do."""
        file: Any = vma.vm_file
        return S_IFLNK | (0o400 if file.f_mode & 1 else 0) | (0o200 if file.f_mode & 2 else 0)

    def lookup(self, parent: Dentry, name: bytes) -> Dentry | None:
        reader = self.i_sb.kernel.current
        for index, (area, vma) in enumerate(self.areas(reader)):
            if area == name:
                number = task_ino(self.task) + _INO_MAP_FILES + index
                inode = ProcInode(self.i_sb, self.link_mode(vma), number, self.task)
                inode.kind, inode.show, inode.name, inode.size = LINK, map_files_link, name, 64
                inode.own()
                return Dentry(name, parent, inode)
        return None

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        for index, (name, vma) in enumerate(self.areas(task)):
            yield name, task_ino(self.task) + _INO_MAP_FILES + index, self.link_mode(vma)


def map_files_link(inode: ProcInode, task: Task) -> Path:
    """map_files_get_link(). Raises EACCES, ENOENT."""
    may_follow(inode, task)
    start, _, end = inode.name.partition(b"-")
    mm = inode.task.mm
    vma = mm.ops.find_vma(mm, int(start, 16)) if mm is not None else None
    if vma is None or vma.vm_file is None or (vma.vm_start, vma.vm_end) != (int(start, 16), int(end, 16)):
        raise Errno(errno.ENOENT)
    from guest.unnamed import path_of

    return path_of(task, vma.vm_file)


# net


def show_unix(inode: ProcInode, task: Task) -> str:
    """unix_seq_show(): the sockets somebody has open. Addresses in the kernel are nobody's: 0."""
    from guest.socket import TCP_ESTABLISHED, TCP_LISTEN, net_of
    from guest.socket_unix import UnixSock

    net = net_of(inode.task)
    text = "Num       RefCount Protocol Flags    Type St Inode Path\n"
    tables = {id(other.files): other.files for other in task.kernel.tasks.values() if other.files is not None}
    files = {id(file): file for table in tables.values() for file in table.fd if file is not None}
    socks = [
        (sk, file.f_inode.i_ino) for file in files.values() if isinstance(sk := getattr(file, "sk", None), UnixSock)
    ]
    socks += [(new, 0) for sk, _ in socks if sk.state == TCP_LISTEN for new in sk.queue]  # not yet accepted
    for sk, ino in socks:
        if sk.net is not net:
            continue
        flags = _SO_ACCEPTCON if sk.state == TCP_LISTEN else 0
        state = (3 if ino else 2) if sk.state == TCP_ESTABLISHED else 1
        users = 2 + (sk.peer is not None)
        text += f"{0:016x}: {users:08X} {0:08X} {flags:08X} {sk.type:04X} {state:02X} {ino:5}"
        name = (sk.address or b"")[2:]
        if name:
            shown = b"@" + name[1:].replace(b"\0", b"@") if name[:1] == b"\0" else name.rstrip(b"\0")
            text += " " + shown.decode("utf-8", "surrogateescape")
        text += "\n"
    return text


NET_TABLE: dict[bytes, Entry] = {b"unix": Entry(0o444, SINGLE, show_unix)}


# small files


def show_timers(inode: ProcInode, task: Task) -> str:
    """show_timer(): the POSIX timers of the process, by identifier."""
    words = {0: "signal", 1: "none", 2: "thread"}
    text, nr = "", inode.i_sb.pid_nr
    for ident, timer in sorted(inode.task.signal.posix_timers.items()):
        whom = f"tid.{nr(timer.target.pid)}" if timer.notify & 4 else f"pid.{nr(timer.target.tgid)}"
        text += f"ID: {ident}\nsignal: {timer.signo}/{timer.value:016x}\n"
        text += f"notify: {words[timer.notify & 3]}/{whom}\nClockID: {timer.clock}\n"
    return text


def show_syscall(inode: ProcInode, task: Task) -> str:
    """proc_pid_syscall(): the call a task is in, its arguments, stack pointer and program counter. Raises EPERM."""
    target: Task = inode.task
    if not ptrace_may_access(task, target):
        raise Errno(errno.EPERM)
    if target.exit_state or (not target.cpu_state and target is not task):
        return "-1 0x0 0x0\n"  # it has no stack any more; process 1 never had one
    if target is task:
        return _call_text(task.kernel, True)
    if target.state == TASK_RUNNING:
        return "running\n"
    from guest.ptrace_regs import registers

    with registers(target):
        return _call_text(task.kernel, target.in_call)


def _call_text(kernel: Kernel, in_call: bool) -> str:
    """What the CPU's registers say; a task that sleeps outside a call has number -1 and no arguments."""
    arch, regs = kernel.arch, kernel.cpu.regs
    number = regs[arch.number] & arch.number_mask if in_call else -1
    words = [regs[register] for register in (*(arch.arguments if in_call else ()), arch.sp, arch.pc)]
    return f"{number} " + " ".join(f"{word:#x}" for word in words) + "\n"


def show_arch_status(inode: ProcInode, task: Task) -> str:
    """proc_pid_arch_status(): how long AVX-512 was not used, on CPUs that have it; these do not."""
    return ""


ARCH_STATUS = Entry(0o444, SINGLE, show_arch_status)
NS_FOLDER = Entry(0o511, DIR, NS_TABLE)
NET_FOLDER = Entry(0o555, DIR, NET_TABLE)
MAP_FILES_FOLDER = Entry(0o500, DIR, ProcMapFiles)
