"""The system call table: per architecture, a list indexed by number, joined from the families' CALLS and the numbers.

A family is a module with handlers and `CALLS = (Call(...), ...)` at its end. A handler takes the task and as many raw
unsigned 64-bit arguments as it names, returns an int, and refuses by raising Errno.
"""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from guest.clock import CALL_NSEC
from guest.syscall_numbers import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.task import Task

FULL = "full"
PARTIAL = "partial"

# The modules that serve calls, in the order the support table lists them, and the calls each serves: a module is
# imported when one of its calls is made for the first time. A test keeps this in step with the modules' CALLS.
FAMILIES: dict[str, str] = {
    "guest.sys_file": """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek truncate ftruncate fallocate
        fsync fdatasync sync syncfs sync_file_range fadvise64 readahead
    """,
    "guest.sys_file_dir": """
        getdents64 getdents getcwd chdir fchdir chroot umask mkdirat mkdir mknodat mknod symlinkat symlink linkat
        link unlinkat unlink rmdir renameat2 renameat rename
    """,
    "guest.sys_file_meta": "fchmod fchmodat chmod fchownat chown lchown fchown utimensat futimesat utimes utime",
    "guest.sys_openat2": "openat2",
    "guest.sys_file_io": "sendfile copy_file_range eventfd2 eventfd memfd_create",
    "guest.sys_file_fd": "open openat creat close close_range dup dup2 dup3 fcntl ioctl pipe pipe2",
    "guest.sys_file_stat": """
        stat lstat fstat newfstatat statx statfs fstatfs readlink readlinkat access faccessat faccessat2
    """,
    "guest.sys_file_lock": "flock",
    "guest.sys_file_splice": "splice tee vmsplice",
    "guest.sys_file_xattr": """
        setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr
        lremovexattr fremovexattr
    """,
    "guest.sys_mount": "mount umount2 pivot_root",
    "guest.sys_fsopen": "fsopen fspick fsconfig fsmount open_tree move_mount",
    "guest.sys_poll": "poll ppoll select pselect6",
    "guest.sys_epoll": "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait",
    "guest.sys_signalfd": "signalfd4 signalfd",
    "guest.sys_timerfd": "timerfd_create timerfd_settime timerfd_gettime",
    "guest.sys_userfaultfd": "userfaultfd",
    "guest.sys_misc": "uname sethostname setdomainname sysinfo getrandom getcpu vhangup",
    "guest.sys_mm": "mmap munmap mprotect brk mremap pkey_mprotect pkey_alloc pkey_free",
    "guest.sys_mm_advice": """
        mlock mlock2 munlock mlockall munlockall madvise process_madvise msync mincore remap_file_pages
    """,
    "guest.sys_net": """
        socket socketpair bind listen connect accept accept4 getsockname getpeername shutdown setsockopt getsockopt
        sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg
    """,
    "guest.sys_shm": "shmget shmat shmdt shmctl",
    "guest.sys_msg": "msgget msgsnd msgrcv msgctl",
    "guest.sys_sem": "semget semop semtimedop semctl",
    "guest.sys_mqueue": "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    "guest.sys_process_vm": "process_vm_readv process_vm_writev",
    "guest.sys_mempolicy": "mbind set_mempolicy get_mempolicy migrate_pages move_pages",
    "guest.sys_process": """
        getpid gettid getppid exit exit_group set_tid_address setpgid getpgid getpgrp getsid setsid prlimit64
        getrlimit setrlimit personality arch_prctl set_robust_list get_robust_list
    """,
    "guest.sys_fork": "fork vfork clone clone3 execve execveat unshare setns kcmp",
    "guest.sys_wait": "wait4 waitid getrusage times",
    "guest.sys_prctl": "prctl",
    "guest.sys_sched": """
        sched_yield sched_getaffinity sched_setaffinity sched_get_priority_max sched_get_priority_min
        sched_setscheduler sched_getscheduler sched_setparam sched_getparam sched_rr_get_interval sched_getattr
        sched_setattr setpriority getpriority ioprio_get ioprio_set membarrier
    """,
    "guest.pidfd": "pidfd_open pidfd_send_signal pidfd_getfd",
    "guest.sys_signal": """
        rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend pause rt_sigtimedwait rt_sigreturn kill tgkill tkill
        rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack restart_syscall
    """,
    "guest.sys_time": """
        clock_gettime clock_getres clock_settime gettimeofday settimeofday time nanosleep clock_nanosleep getitimer
        setitimer alarm
    """,
    "guest.sys_timer": "timer_create timer_settime timer_gettime timer_getoverrun timer_delete",
    "guest.sys_timex": "adjtimex clock_adjtime",
    "guest.sys_admin": """
        syslog reboot swapon swapoff init_module finit_module delete_module ustat
    """,
    "guest.sys_cred": """
        getuid geteuid getgid getegid setuid setreuid setresuid getresuid setgid setregid setresgid getresgid
        setfsuid setfsgid getgroups setgroups capget capset
    """,
    "guest.futex": "futex",
    "guest.sys_perf": "perf_event_open",
    "guest.sys_aio": "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    "guest.sys_ptrace": "ptrace",
}


class Call(NamedTuple):
    """One served system call."""

    name: str
    handler: Callable[..., int]
    support: str = FULL
    note: str = ""
    only: str = ""  # the one architecture that has it in this form


class Entry:
    """What the dispatcher needs of a call."""

    __slots__ = ("fetch", "handler", "name", "nargs", "support")

    def __init__(self, call: Call, arguments: tuple[int, ...]) -> None:
        self.name = call.name
        self.handler = _costly(call.handler, CALL_NSEC[call.name]) if call.name in CALL_NSEC else call.handler
        self.support = call.support
        self.nargs = call.handler.__code__.co_argcount - 1
        self.fetch = _fetcher(arguments[: self.nargs])

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("the system call table is built, not pickled")


def _costly(handler: Callable[..., int], nsec: int) -> Callable[..., int]:
    """A handler that takes its time on the machine's clock."""

    def call(task: Task, *arguments: int) -> int:
        task.kernel.takes(task, nsec)
        return handler(task, *arguments)

    return call


class _Fetch0:
    """No arguments."""

    __slots__ = ()

    def __call__(self, regs: Any) -> tuple[int, ...]:
        return ()


class _Fetch1:
    """One argument, as a tuple: itemgetter of one index gives no tuple."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, regs: Any) -> tuple[int, ...]:
        return (regs[self.index],)


def _fetcher(registers: tuple[int, ...]) -> Callable[[Any], tuple[int, ...]]:
    """A function from the register file to the argument tuple."""
    if not registers:
        return _Fetch0()
    if len(registers) == 1:
        return _Fetch1(registers[0])
    return itemgetter(*registers)


def calls() -> dict[str, Call]:
    """Every served call by name, all modules imported; a call that is one architecture's own as NAME@ARCH."""
    from importlib import import_module

    found: dict[str, Call] = {}
    for family in FAMILIES:
        for call in import_module(family).CALLS:
            found[f"{call.name}@{call.only}" if call.only else call.name] = call
    return found


class Table:
    """The calls of one architecture: `entries[number]`, filled in as they are used."""

    __slots__ = ("arch_name", "arguments", "entries", "names")

    def __init__(self, arch_name: str, arguments: tuple[int, ...]) -> None:
        self.arch_name = arch_name
        self.arguments = arguments
        self.names = NAMES[arch_name]
        self.entries: list[Entry | None] = [None] * (max(self.names) + 1)

    def resolve(self, number: int) -> Entry | None:
        """The entry of a number not used before; its module is imported, and all of the module's calls are entered."""
        name = self.names.get(number)
        if name is None:
            return None
        for family, served in FAMILIES.items():
            if name in served.split():
                self._enter(family)
                return self.entries[number]
        return None

    def find(self, name: str) -> Entry | None:
        """The entry of a call by its name."""
        for number, found in self.names.items():
            if found == name:
                return self.entries[number] or self.resolve(number)
        return None

    def _enter(self, family: str) -> None:
        __import__(family)
        module: Any = sys.modules[family]
        served = {call.name: call for call in module.CALLS if call.only in ("", self.arch_name)}
        for number, name in self.names.items():
            if name in served:
                self.entries[number] = Entry(served[name], self.arguments)


def support_table() -> list[tuple[str, str, dict[str, int]]]:
    """(name, support, note, {architecture: number}) of every call either architecture has, for documentation."""
    served = calls()
    names = sorted({name for numbers in NAMES.values() for name in numbers.values()})
    rows = []
    for name in names:
        where = {arch: number for arch, numbers in NAMES.items() for number, n in numbers.items() if n == name}
        found = [served[k] for k in (name, *(f"{name}@{arch}" for arch in where)) if k in served]
        if not found:
            rows.append((name, "none", "", where))
        else:
            rows.append((name, found[0].support, found[0].note, where))
    return rows  # type: ignore[return-value]
