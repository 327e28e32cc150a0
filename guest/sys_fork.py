"""System calls that make and replace programs: fork, vfork, clone, execve; and what tasks share."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.exec import do_execveat
from guest.fork import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWIPC,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
    CloneArgs,
    kernel_clone,
)
from guest.nsproxy import (
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    NEW_NAMESPACES,
    create_new_namespaces,
    enter_mounts,
    install,
    nsproxy_of,
    own_space,
)
from guest.siginfo import SIGCHLD
from guest.sys_mm import s32
from guest.sys_process import of_pid
from guest.syscalls import FULL, PARTIAL, Call
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.nsproxy import Namespace
    from guest.task import Task

PATH_MAX = 4096
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = 0x100, 0x1000


def sys_fork(task: Task) -> int:
    """fork."""
    return kernel_clone(task, CloneArgs(0, SIGCHLD))


def sys_vfork(task: Task) -> int:
    """vfork."""
    return kernel_clone(task, CloneArgs(CLONE_VFORK | CLONE_VM, SIGCHLD))


def sys_clone_x86_64(task: Task, flags: int, newsp: int, parent_tid: int, child_tid: int, tls: int) -> int:
    """clone, x86-64's argument order."""
    flags &= 0xFFFFFFFF
    return kernel_clone(task, CloneArgs(flags & ~CSIGNAL, flags & CSIGNAL, newsp, parent_tid, child_tid, tls))


def sys_clone_arm64(task: Task, flags: int, newsp: int, parent_tid: int, tls: int, child_tid: int) -> int:
    """clone, arm64's argument order (CONFIG_CLONE_BACKWARDS)."""
    return sys_clone_x86_64(task, flags, newsp, parent_tid, child_tid, tls)


def sys_clone3(task: Task, uargs: int, size: int) -> int:
    """clone3: copy_clone_args_from_user() and clone3_args_valid()."""
    if size > task.system.arch.page_size:
        raise Errno(errno.E2BIG)
    if size < 64:
        raise Errno(errno.EINVAL)
    image = copy_from_user(task, uargs, size)
    if any(image[88:]):
        raise Errno(errno.E2BIG)
    words = Struct("<11Q").unpack(image[:88].ljust(88, b"\0"))
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _ = words
    if set_tid_size > 32 or bool(set_tid) != bool(set_tid_size) or exit_signal & ~CSIGNAL or exit_signal > 64:
        raise Errno(errno.EINVAL)
    if flags & ~0x3FFFFFFFF or flags & 0x400000 or flags & (CSIGNAL & ~0x80):
        raise Errno(errno.EINVAL)
    if flags & 0x100000800 == 0x100000800 or (flags & 0x18000 and exit_signal):
        raise Errno(errno.EINVAL)
    if bool(stack) != bool(stack_size) or (stack and not access_ok(task, stack, stack_size)):
        raise Errno(errno.EINVAL)
    if flags & 0x200000000:
        raise Errno(errno.EBADF)  # CLONE_INTO_CGROUP: there is no cgroup to name
    args = CloneArgs(flags, exit_signal, stack + stack_size, parent_tid, child_tid, tls)
    args.pidfd = pidfd
    if set_tid_size:
        args.set_tid = list(Struct(f"<{set_tid_size}i").unpack(copy_from_user(task, set_tid, 4 * set_tid_size)))
    return kernel_clone(task, args)


def _path(task: Task, address: int, empty: bool = False) -> bytes:
    """getname(). Raises Errno(EFAULT), ENAMETOOLONG, ENOENT for an empty one."""
    path = strncpy_from_user(task, address, PATH_MAX)
    if len(path) == PATH_MAX:
        raise Errno(errno.ENAMETOOLONG)
    if not path and not empty:
        raise Errno(errno.ENOENT)
    return path


def sys_execve(task: Task, filename: int, argv: int, envp: int) -> int:
    """execve."""
    path = _path(task, filename)
    return do_execveat(task, path, argv, envp, lambda: task.kernel.vfs.open_exec(task, path), False)


def sys_execveat(task: Task, fd: int, filename: int, argv: int, envp: int, flags: int) -> int:
    """execveat."""
    fd, flags = s32(fd), s32(flags)
    path = _path(task, filename, bool(flags & AT_EMPTY_PATH))
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    name = path
    inaccessible = False
    if fd != AT_FDCWD and path[:1] != b"/":
        name = b"/dev/fd/%d" % fd + (b"/" + path if path else b"")
        inaccessible = fd in task.files.close_on_exec_fds
    lookup = (0 if flags & AT_SYMLINK_NOFOLLOW else 1) | (0x4000 if flags & AT_EMPTY_PATH else 0)
    return do_execveat(task, name, argv, envp, lambda: task.kernel.vfs.open_exec(task, path, fd, lookup), inaccessible)


# ---- sharing and comparing


def sys_unshare(task: Task, flags: int) -> int:
    """unshare: own files, own folder, own namespaces; a thread cannot leave its process."""
    flags &= 0xFFFFFFFF
    if flags & ~(CLONE_THREAD | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_VM | CLONE_SYSVSEM | NEW_NAMESPACES):
        raise Errno(errno.EINVAL)
    if flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) and len(task.signal.threads) > 1:
        raise Errno(errno.EINVAL)
    if flags & (CLONE_SIGHAND | CLONE_VM) and task.sighand.count > 1:
        raise Errno(errno.EINVAL)
    unshares_files = flags & CLONE_FILES and task.files.count > 1
    if unshares_files:
        task.files.check_copy(task.kernel)
    namespaces = create_new_namespaces(task, flags) if flags & NEW_NAMESPACES else task.nsproxy
    if flags & (CLONE_SYSVSEM | CLONE_NEWIPC) and task.sem_undo is not None:
        from guest.sys_sem import exit_sem

        exit_sem(task)
    if flags & NEW_NAMESPACES:
        task.nsproxy = namespaces
        if flags & CLONE_NEWNS:
            flags |= CLONE_FS
    if flags & CLONE_FS and task.fs.users > 1:
        task.fs.users -= 1
        task.fs = task.fs.copy()
    if flags & CLONE_NEWNS:
        enter_mounts(task)
    if unshares_files:
        shared, task.files = task.files, task.files.copy()
        shared.count -= 1
    return 0


def sys_setns(task: Task, fd: int, nstype: int) -> int:
    """setns: to the namespace of a file below /proc/PID/ns, or to those of a pidfd's process."""
    file, nstype = task.files.get(s32(fd)), nstype & 0xFFFFFFFF
    found: tuple[int, Namespace] | None = getattr(file.f_inode, "namespace", None)
    if found is not None:
        if nstype and nstype != found[0]:
            raise Errno(errno.EINVAL)
        install(task, dict([found]))
        return 0
    target: Task | None = getattr(file, "pidfd_task", None)
    if target is None or not nstype or nstype & ~(NEW_NAMESPACES & ~(CLONE_NEWUSER | CLONE_NEWCGROUP)):
        raise Errno(errno.EINVAL)
    if target.exit_state:
        raise Errno(errno.ESRCH)
    from guest.ptrace_access import PTRACE_MODE_READ_REALCREDS, ptrace_may_access

    if not ptrace_may_access(task, target, PTRACE_MODE_READ_REALCREDS):
        raise Errno(errno.EPERM)
    install(task, {kind: own_space(target, kind) for kind in nsproxy_of(target).spaces if kind & nstype})
    return 0


def sys_kcmp(task: Task, pid1: int, pid2: int, kind: int, idx1: int, idx2: int) -> int:
    """kcmp: 0 the same, 1 or 2 an order."""
    from guest.ptrace_access import PTRACE_MODE_READ_REALCREDS, ptrace_may_access

    first, second = of_pid(task, pid1), of_pid(task, pid2)
    if not all(ptrace_may_access(task, target, PTRACE_MODE_READ_REALCREDS) for target in (first, second)):
        raise Errno(errno.EPERM)
    kind = s32(kind)
    pair: tuple[object, object]
    if kind == 0:
        if first.files is None or second.files is None:  # a zombie's
            raise Errno(errno.EBADF)
        pair = first.files.get_raw(s32(idx1)), second.files.get_raw(s32(idx2))
    elif kind in (1, 2, 3, 4):
        name = ("mm", "files", "fs", "sighand")[kind - 1]
        pair = getattr(first, name), getattr(second, name)
    elif kind == 5:
        return 0  # no I/O contexts
    elif kind == 6:
        pair = first.sem_undo, second.sem_undo
    elif kind == 7:
        pair = _epoll_pair(task, first, second, s32(idx1), idx2)
    else:
        raise Errno(errno.EINVAL)
    if pair[0] is pair[1]:
        return 0
    return 1 if first.pid < second.pid else 2


def _epoll_pair(task: Task, first: Task, second: Task, fd: int, slot: int) -> tuple[object, object]:
    """KCMP_EPOLL_TFD: an open file, and the one an epoll of `second` watches. Raises EFAULT, EBADF, EINVAL, ENOENT."""
    from guest.sys_epoll import EventPoll

    efd, tfd, skip = Struct("<3I").unpack(copy_from_user(task, slot, 12))
    if first.files is None or second.files is None:
        raise Errno(errno.EBADF)
    file, epoll = first.files.get_raw(fd), second.files.get(s32(efd))
    if not isinstance(epoll, EventPoll):
        raise Errno(errno.EINVAL)
    found = sorted((item for item in epoll.items if item.fd == tfd), key=lambda item: id(item.file))
    if skip >= len(found):
        raise Errno(errno.ENOENT)
    return file, found[skip].file


CALLS = (
    Call("fork", sys_fork, FULL),
    Call("vfork", sys_vfork, FULL),
    Call("clone", sys_clone_x86_64, PARTIAL, "no namespaces of users and cgroups", "x86_64"),
    Call("clone", sys_clone_arm64, PARTIAL, "no namespaces of users and cgroups", "aarch64"),
    Call("clone3", sys_clone3, PARTIAL, "no namespaces of users and cgroups, no cgroups"),
    Call("execve", sys_execve, FULL),
    Call("execveat", sys_execveat, FULL),
    Call("unshare", sys_unshare, PARTIAL, "no namespaces of users and cgroups"),
    Call("setns", sys_setns, PARTIAL, "no namespaces of users and cgroups"),
    Call("kcmp", sys_kcmp, FULL),
)
