"""The table of strace: for each system call, how its arguments and its result are written.

A call's entry is the tuple of its arguments' decoders, in order. A decoder wrapped in `out()` shows something the call
fills, so it waits for the call to come back; what stands before the first of them is printed on entry. A decoder that
returns None leaves its argument out (open's mode without O_CREAT). Calls that need their own order are functions in
`SPECIAL`; results that are not plain numbers are in `RESULTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu import strace_constants as k
from emu import strace_structs as s
from emu.strace_more import CAP_NAMES, MORE_CALLS, MORE_RESULTS, show_clone_args
from emu.strace_net import NET_SPECIAL
from emu.strace_rare import RARE_SPECIAL, sigmask_argument, wake_op_text
from emu.strace_termios import termios_body
from emu.strace_values import (
    Out,
    Params,
    Show,
    Syscall,
    buffer_of,
    choice,
    flag_text,
    flags,
    result_text,
    set_text,
    show_dirfd,
    show_fd,
    show_filled,
    show_hex,
    show_id,
    show_int,
    show_long,
    show_octal,
    show_path,
    show_pointer,
    show_random,
    show_signal,
    show_sigset,
    show_size,
    show_string,
    show_unsigned,
    signal_name,
    sized_sigset,
    unless_failed,
)

if TYPE_CHECKING:
    from collections.abc import Callable


out = Out
MAP_HUGETLB = 0x40000
CLONE_PARENT_SETTID = 0x100000
GLUED = (" =>", ", ")  # how a text begins that brings its own mark
DUMPABLE = {0: "SUID_DUMP_DISABLE", 1: "SUID_DUMP_USER", 2: "SUID_DUMP_ROOT"}
FUTEX_COMMAND = 0xFFFFFE7F  # without PRIVATE and CLOCK_REALTIME


def open_flags_text(call: Syscall, value: int) -> str:
    """Access mode first, then the rest."""
    rest = value & 0xFFFFFFFF & ~3
    text = k.ACCMODE[value & 3]
    return f"{text}|{flag_text(rest, call.abi.OPEN_FLAGS, 'O_???')}" if rest else text


def show_new_fd_flags(call: Syscall, value: int) -> str:
    """O_* without an access mode, for pipe2 and dup3."""
    return flag_text(value & 0xFFFFFFFF, call.abi.OPEN_FLAGS, "O_???")


def open_mode(flag_argument: int) -> Show:
    """open's mode: only where a file may be created."""

    def show(call: Syscall, value: int) -> str | None:
        bits = call.args[flag_argument]
        creates = bits & 0o100 or bits & 0o20000000
        return show_octal(call, value) if creates else None

    return show


def show_mmap_flags(call: Syscall, value: int) -> str:
    """The type, then the flags."""
    kind = k.MAP_TYPES.get(value & 0xF) or f"{value & 0xF:#x} /* MAP_??? */"
    rest = value & 0xFFFFFFFF & ~0xF
    huge = rest >> 26 if rest & MAP_HUGETLB else 0
    rest &= 0x3FFFFFF if huge else rest
    text = f"{kind}|{flag_text(rest, k.MAP, 'MAP_???')}" if rest else kind
    return f"{text}|{huge}<<MAP_HUGE_SHIFT" if huge else text


def show_mode_and_type(call: Syscall, value: int) -> str:
    """mknod's mode."""
    return s.mode_text(value & 0xFFFF)


def show_device(call: Syscall, value: int) -> str | None:
    """mknod's device: only for devices."""
    mode = call.args[1 if call.name == "mknod" else 2]
    return s.device_text(value) if mode & 0o170000 in (0o020000, 0o060000) else None


def fcntl_argument(call: Syscall, value: int) -> str | None:
    """fcntl's third argument, by command."""
    command = call.args[1] & 0xFFFFFFFF
    if command in (1, 3, 9, 11, 1025, 1032, 1034):
        return None
    if command == 2:
        return flag_text(value, k.FD_FLAGS, "FD_???")
    if command == 4:
        return open_flags_text(call, value)
    if command in (5, 6, 7, 36, 37, 38):
        return s.pointed(32, s.flock_body)(call, value)
    if command == 10:
        return show_signal(call, value)
    if command == 1033:
        return flag_text(value, k.SEALS, "F_SEAL_???")
    return show_int(call, value) if command in k.FCNTL else show_hex(call, value)


def fcntl_result(call: Syscall) -> str:
    """fcntl's result, by command."""
    result, command = call.result or 0, call.args[1] & 0xFFFFFFFF
    if command == 1:
        return f"{result:#x} (flags {flag_text(result, k.FD_FLAGS, 'FD_???')})" if result else "0"
    if command == 3:
        return f"{result:#x} (flags {open_flags_text(call, result)})" if result else "0 (flags O_RDONLY)"
    if command == 1034:
        return f"{result:#x} (seals {flag_text(result, k.SEALS, 'F_SEAL_???')})" if result else "0 (seals 0)"
    return str(result)


def ioctl_argument(call: Syscall, value: int) -> str | None:
    """ioctl's third argument, by request."""
    request = call.args[1] & 0xFFFFFFFF
    if request == 0x5401:
        return s.filled(36, termios_body)(call, value)
    if request in (0x5402, 0x5403, 0x5404):
        return s.pointed(36, termios_body)(call, value)
    if request == 0x5413:
        return s.filled(8, s.winsize_body)(call, value)
    if request == 0x5414:
        return s.pointed(8, s.winsize_body)(call, value)
    if request in (0x540F, 0x541B, 0x5429):
        return s.filled(4, s.int_body)(call, value)
    if request in (0x5410, 0x5421):
        return s.pointed(4, s.int_body)(call, value)
    return None if request in (0x5450, 0x5451) else show_hex(call, value)


def show_ioctl(call: Syscall, value: int) -> str:
    """The request by name, or taken apart as _IOC()."""
    value &= 0xFFFFFFFF
    name = k.IOCTL.get(value)
    if name:
        return name
    direction = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}[value >> 30]
    kind, number, size = value >> 8 & 0xFF, value & 0xFF, value >> 16 & 0x3FFF
    return f"_IOC({', '.join([direction, *(show_hex(call, part) for part in (kind, number, size))])})"


def show_futex_op(call: Syscall, value: int) -> str:
    """The operation with its PRIVATE and CLOCK_REALTIME marks."""
    value &= 0xFFFFFFFF
    name = k.FUTEX.get(value & ~0x180)
    if name is None:
        return f"{value:#x} /* FUTEX_??? */"
    return name + ("_PRIVATE" if value & 0x80 else "") + ("|FUTEX_CLOCK_REALTIME" if value & 0x100 else "")


def futex_value(call: Syscall, value: int) -> str | None:
    """futex's third argument."""
    operation = call.args[1] & FUTEX_COMMAND
    if operation in (6, 7, 8):
        return None
    if operation not in k.FUTEX:
        return ", ".join([show_unsigned(call, value), *(show_hex(call, word) for word in call.args[3:6])])
    return show_int(call, value) if operation in (1, 10) else show_unsigned(call, value)


def futex_timeout(call: Syscall, value: int) -> str | None:
    """futex's fourth argument: a timeout, a count, or nothing."""
    operation = call.args[1] & FUTEX_COMMAND
    if operation in (0, 6, 9, 11):
        return s.show_timespec(call, value)
    return show_unsigned(call, value) if operation in (3, 4, 5, 12) else None


def futex_second(call: Syscall, value: int) -> str | None:
    """futex's fifth argument: the second word of those operations that have one."""
    return show_pointer(call, value) if call.args[1] & FUTEX_COMMAND in (3, 4, 5, 11, 12) else None


def futex_third(call: Syscall, value: int) -> str | None:
    """futex's sixth argument: a bit set, an expected value, or what to do with the second word."""
    operation = call.args[1] & FUTEX_COMMAND
    if operation in (9, 10):
        bits = value & 0xFFFFFFFF
        return "FUTEX_BITSET_MATCH_ANY" if bits == 0xFFFFFFFF else show_hex(call, bits)
    if operation in (4, 12):
        return show_unsigned(call, value)
    return wake_op_text(value) if operation == 5 else None


def signal_body(call: Syscall, data: bytes) -> str:
    """A signal number behind a pointer."""
    return f"[{signal_name(int.from_bytes(data, 'little'))}]"


def prctl_result(call: Syscall) -> str:
    """prctl's result, which for PR_GET_DUMPABLE has a name."""
    name = DUMPABLE.get(call.result or 0) if call.args[0] == 3 else None
    return f"{call.result} ({name})" if name else str(call.result)


def show_prctl_argument(call: Syscall, value: int) -> str | None:
    """prctl's second argument (and, where strace prints them, the rest)."""
    option = call.args[0]
    if option in (3, 7, 21, 30):
        return None
    if option == 2 and not call.failed:
        return s.pointed(4, signal_body)(call, value)
    if option == 37 and not call.failed:
        return s.pointed(4, s.int_body)(call, value)
    if option not in k.PRCTL:
        return ", ".join(show_hex(call, word) for word in call.args[1:5])
    if option == 15 or (option == 16 and not call.failed):
        return show_string(call, value)
    if option == 16:
        return show_pointer(call, value)
    if option == 1:
        return show_signal(call, value)
    if option == 4:
        return DUMPABLE.get(value) or show_hex(call, value)
    if option in (23, 24):
        return CAP_NAMES[1 << value].removeprefix("1<<") if 1 << value in CAP_NAMES else show_hex(call, value)
    if option in (38, 39, 41, 42):
        return ", ".join([show_size(call, value), *(show_hex(call, word) for word in call.args[2:5])])
    return show_size(call, value) if option in (8, 29, 36) else show_hex(call, value)


def show_arch_prctl(call: Syscall, value: int) -> str:
    """arch_prctl's code."""
    return call.abi.ARCH_PRCTL.get(value) or f"{value:#x} /* ARCH_??? */"


def arch_prctl_argument(call: Syscall, value: int) -> str:
    """arch_prctl's word: where the base goes when it asks for one."""
    asks = call.abi.ARCH_PRCTL.get(call.args[0], "") in ("ARCH_GET_FS", "ARCH_GET_GS")
    return s.filled(8, pointer_body)(call, value) if asks else show_hex(call, value)


def pointer_body(call: Syscall, data: bytes) -> str:
    """An address behind a pointer."""
    return f"[{show_pointer(call, int.from_bytes(data, 'little'))}]"


def show_wait_pid(call: Syscall, value: int) -> str:
    """A pid, or -1 for any child."""
    return show_int(call, value)


def show_limit(call: Syscall, value: int) -> str:
    """A resource limit pointer the caller filled."""
    return s.pointed(16, s.rlimit_body)(call, value)


def show_statx_flags(call: Syscall, value: int) -> str:
    """statx's flags: the synchronisation mode, then the rest."""
    text = flag_text(value & 0xFFFFFFFF, k.AT_STATX, "AT_???", zero="")
    if value & 0x6000:
        return text
    return f"AT_STATX_SYNC_AS_STAT|{text}" if text else "AT_STATX_SYNC_AS_STAT"


def show_sigaction_out(call: Syscall, value: int) -> str:
    """The old struct sigaction."""
    return s.filled(32, s.sigaction_body)(call, value)


PATH, FD, DIRFD = show_path, show_fd, show_dirfd
INT, UNSIGNED, LONG, SIZE, HEX = show_int, show_unsigned, show_long, show_size, show_hex
POINTER, MODE, ID = show_pointer, show_octal, show_id
PROT = flags(k.PROT, "PROT_???", "PROT_NONE")
AT_FLAGS = flags(k.AT, "AT_???")
CLOCK = choice(k.CLOCK, "CLOCK_???")
LIMIT_NAME = choice(k.RLIMIT, "RLIMIT_???")
STAT_OUT = out(s.show_stat)
SIGSETSIZE = SIZE
OLDSET = out(unless_failed(show_sigset))
INT_OUT = out(s.filled(4, s.int_body))
SET = unless_failed(show_sigset)

CALLS: dict[str, Params] = {
    **MORE_CALLS,
    # files
    "read": (FD, out(show_filled), SIZE),
    "write": (FD, buffer_of(2), SIZE),
    "pread64": (FD, out(show_filled), SIZE, LONG),
    "pwrite64": (FD, buffer_of(2), SIZE, LONG),
    "readv": (FD, out(s.iovec(True)), SIZE),
    "writev": (FD, s.iovec(False), SIZE),
    "preadv": (FD, out(s.iovec(True)), SIZE, LONG),
    "pwritev": (FD, s.iovec(False), SIZE, LONG),
    "open": (PATH, open_flags_text, open_mode(1)),
    "creat": (PATH, MODE),
    "openat": (DIRFD, PATH, open_flags_text, open_mode(2)),
    "close": (FD,),
    "close_range": (UNSIGNED, UNSIGNED, flags({2: "CLOSE_RANGE_UNSHARE", 4: "CLOSE_RANGE_CLOEXEC"}, "CLOSE_RANGE_???")),
    "stat": (PATH, STAT_OUT),
    "lstat": (PATH, STAT_OUT),
    "fstat": (FD, STAT_OUT),
    "newfstatat": (DIRFD, PATH, STAT_OUT, AT_FLAGS),
    "statx": (DIRFD, PATH, show_statx_flags, flags(k.STATX_MASK, "STATX_???"), out(s.filled(256, s.statx_body))),
    "statfs": (PATH, out(s.filled(120, s.statfs_body))),
    "fstatfs": (FD, out(s.filled(120, s.statfs_body))),
    "access": (PATH, flags(k.ACCESS, "?_OK", "F_OK")),
    "faccessat": (DIRFD, PATH, flags(k.ACCESS, "?_OK", "F_OK")),
    "faccessat2": (DIRFD, PATH, flags(k.ACCESS, "?_OK", "F_OK"), flags(k.AT_ACCESS, "AT_???")),
    "readlink": (PATH, out(show_filled), SIZE),
    "readlinkat": (DIRFD, PATH, out(show_filled), SIZE),
    "getdents64": (FD, out(s.dirent_count), SIZE),
    "lseek": (FD, LONG, choice(k.WHENCE, "SEEK_???")),
    "dup": (FD,),
    "dup2": (FD, FD),
    "dup3": (FD, FD, show_new_fd_flags),
    "pipe": (out(s.filled(8, s.int_pair_body)),),
    "pipe2": (out(s.filled(8, s.int_pair_body)), show_new_fd_flags),
    "fcntl": (FD, choice(k.FCNTL, "F_???"), out(fcntl_argument)),
    "ioctl": (FD, show_ioctl, out(ioctl_argument)),
    "flock": (FD, flags(k.FLOCK, "LOCK_???")),
    "fsync": (FD,),
    "fdatasync": (FD,),
    "sync": (),
    "syncfs": (FD,),
    "truncate": (PATH, SIZE),
    "ftruncate": (FD, SIZE),
    "fallocate": (FD, flags(k.FALLOCATE, "FALLOC_FL_???"), LONG, LONG),
    "fadvise64": (FD, LONG, LONG, choice(k.FADVISE, "POSIX_FADV_???")),
    "getcwd": (out(lambda call, value: show_pointer(call, value) if call.failed else show_path(call, value)), SIZE),
    "chdir": (PATH,),
    "fchdir": (FD,),
    "chroot": (PATH,),
    "mkdir": (PATH, MODE),
    "mkdirat": (DIRFD, PATH, MODE),
    "rmdir": (PATH,),
    "mknod": (PATH, show_mode_and_type, show_device),
    "mknodat": (DIRFD, PATH, show_mode_and_type, show_device),
    "unlink": (PATH,),
    "unlinkat": (DIRFD, PATH, flags(k.AT_UNLINK, "AT_???")),
    "rename": (PATH, PATH),
    "renameat": (DIRFD, PATH, DIRFD, PATH),
    "renameat2": (DIRFD, PATH, DIRFD, PATH, flags(k.RENAME, "RENAME_??")),
    "link": (PATH, PATH),
    "linkat": (DIRFD, PATH, DIRFD, PATH, AT_FLAGS),
    "symlink": (PATH, PATH),
    "symlinkat": (PATH, DIRFD, PATH),
    "chmod": (PATH, MODE),
    "fchmod": (FD, MODE),
    "fchmodat": (DIRFD, PATH, MODE),
    "chown": (PATH, ID, ID),
    "lchown": (PATH, ID, ID),
    "fchown": (FD, ID, ID),
    "fchownat": (DIRFD, PATH, ID, ID, AT_FLAGS),
    "utimensat": (DIRFD, PATH, s.show_utimes, AT_FLAGS),
    "umask": (MODE,),
    "memfd_create": (show_string, flags(k.MEMFD, "MFD_???")),
    "poll": (s.show_pollfds, UNSIGNED, INT),
    "ppoll": (s.show_pollfds, UNSIGNED, s.show_timespec, show_sigset, SIGSETSIZE),
    "select": (INT, s.show_fd_set, s.show_fd_set, s.show_fd_set, s.pointed(16, s.timeval_body)),
    "pselect6": (INT, s.show_fd_set, s.show_fd_set, s.show_fd_set, s.show_timespec, sigmask_argument),
    # memory
    "brk": (POINTER,),
    "mmap": (POINTER, SIZE, PROT, show_mmap_flags, FD, HEX),
    "munmap": (POINTER, SIZE),
    "mprotect": (POINTER, SIZE, PROT),
    "pkey_mprotect": (POINTER, SIZE, PROT, INT),
    "madvise": (POINTER, SIZE, choice(k.MADVISE, "MADV_???")),
    "mincore": (POINTER, SIZE, out(s.show_residence)),
    "msync": (POINTER, SIZE, flags(k.MSYNC, "MS_???")),
    "mlock": (POINTER, SIZE),
    "mlock2": (POINTER, SIZE, flags(k.MLOCK2, "MLOCK_???")),
    "munlock": (POINTER, SIZE),
    "mlockall": (flags(k.MLOCKALL, "MCL_???"),),
    "munlockall": (),
    "remap_file_pages": (POINTER, SIZE, PROT, SIZE, show_mmap_flags),
    # processes
    "execve": (PATH, s.show_string_array, s.show_environment),
    "execveat": (DIRFD, PATH, s.show_string_array, s.show_environment, AT_FLAGS),
    "exit": (INT,),
    "exit_group": (INT,),
    "fork": (),
    "vfork": (),
    "wait4": (show_wait_pid, out(s.show_wait_status), flags(k.WAIT, "W???"), out(s.show_reaped_rusage)),
    "set_tid_address": (POINTER,),
    "set_robust_list": (POINTER, SIZE),
    "rseq": (POINTER, HEX, HEX, HEX),
    "arch_prctl": (show_arch_prctl, out(arch_prctl_argument)),
    "prctl": (choice(k.PRCTL, "PR_???"), out(show_prctl_argument)),
    "uname": (out(s.filled(390, s.uname_body)),),
    "sysinfo": (out(s.filled(112, s.sysinfo_body)),),
    "getrlimit": (LIMIT_NAME, out(s.filled(16, s.rlimit_body))),
    "setrlimit": (LIMIT_NAME, show_limit),
    "prlimit64": (INT, LIMIT_NAME, show_limit, out(s.filled(16, s.rlimit_body))),
    "getrusage": (choice(k.RUSAGE, "RUSAGE_???"), out(s.filled(144, s.rusage_body))),
    "personality": (HEX,),
    "getpgid": (INT,),
    "setpgid": (INT, INT),
    "getsid": (INT,),
    "setuid": (ID,),
    "setgid": (ID,),
    "setreuid": (ID, ID),
    "setregid": (ID, ID),
    "setresuid": (ID, ID, ID),
    "setresgid": (ID, ID, ID),
    "getresuid": (INT_OUT, INT_OUT, INT_OUT),
    "getresgid": (INT_OUT, INT_OUT, INT_OUT),
    "getrandom": (out(show_random), SIZE, flags(k.GRND, "GRND_???")),
    "futex": (POINTER, show_futex_op, futex_value, futex_timeout, futex_second, futex_third),
    "unshare": (flags(k.CLONE, "CLONE_???", bits=64),),
    # time
    "clock_gettime": (CLOCK, out(s.show_timespec_out)),
    "clock_settime": (CLOCK, s.show_timespec),
    "clock_getres": (CLOCK, out(s.show_timespec_out)),
    "clock_nanosleep": (CLOCK, flags(k.TIMER, "TIMER_???"), s.show_timespec, out(s.show_remaining)),
    "nanosleep": (s.show_timespec, out(s.show_remaining)),
    "gettimeofday": (out(s.show_timeval_out), out(POINTER)),
    "time": (out(s.filled(8, s.time_body)),),
    "alarm": (UNSIGNED,),
    "getitimer": (choice(k.ITIMER, "ITIMER_???"), out(s.show_itimerval_out)),
    "setitimer": (choice(k.ITIMER, "ITIMER_???"), s.show_itimerval, out(s.show_itimerval_out)),
    # signals
    "rt_sigaction": (show_signal, s.pointed(32, s.sigaction_body), out(show_sigaction_out), SIGSETSIZE),
    "rt_sigprocmask": (choice(k.SIG_HOW, "SIG_???"), sized_sigset(3), OLDSET, SIGSETSIZE),
    "rt_sigpending": (OLDSET, SIGSETSIZE),
    "rt_sigsuspend": (sized_sigset(1), SIGSETSIZE),
    "sigaltstack": (s.pointed(24, s.sigaltstack_body), out(s.filled(24, s.sigaltstack_body))),
    "kill": (INT, show_signal),
    "tkill": (INT, show_signal),
    "tgkill": (INT, INT, show_signal),
    "restart_syscall": (),
    "pause": (),
    "sched_yield": (),
    "vhangup": (),
    **dict.fromkeys(["getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getpgrp", "setsid"], ()),
}


def clone_arguments(call: Syscall) -> list[str]:
    """clone, whose arguments strace names; the child's tid word only where it is used."""
    bits, stack = call.args[0], call.args[1]
    names = [name for bit, name in k.CLONE.items() if bits & bit & ~0xFF]
    rest = bits & ~0xFF & ~sum(k.CLONE)
    if rest:
        names.append(hex(rest))
    if bits & 0xFF:
        names.append(signal_name(bits & 0xFF))
    shown = [f"child_stack={show_pointer(call, stack)}", f"flags={'|'.join(names) or '0'}"]
    if bits & 0x101000:
        shown.append(f"parent_tid={clone_tid(call, call.args[call.abi.CLONE_PARENT_TID])}")
    if bits & 0x80000:
        shown.append(f"tls={show_hex(call, call.args[call.abi.CLONE_TLS])}")
    if bits & 0x1200000:
        shown.append(f"child_tidptr={show_pointer(call, call.args[call.abi.CLONE_CHILD_TID])}")
    return shown


def clone_tid(call: Syscall, address: int) -> str:
    """The parent's tid word, once filled."""
    return s.filled(4, s.int_body)(call, address)


def clone3_arguments(call: Syscall) -> list[str]:
    """clone3: the structure, then the parent's tid word where the call filled it, then the size."""
    size, args = call.args[1], call.args[0]
    shown = show_clone_args(call, args)
    data = call.read(args, 64) if size >= 64 else None
    if data is None or not int.from_bytes(data[:8], "little") & CLONE_PARENT_SETTID:
        return [shown, str(size)]
    parent_tid = int.from_bytes(data[24:32], "little")
    filled = "" if call.failed else f" => {{parent_tid={s.pointed(4, s.int_body)(call, parent_tid)}}}"
    return [shown, f"{filled}, {size}"]


def sigreturn_arguments(call: Syscall) -> list[str]:
    """rt_sigreturn has no arguments; shown is the signal mask in the frame it returns through."""
    data = call.read(call.sp + call.abi.SIGFRAME_MASK, 8)
    return [] if data is None else [f"{{mask={set_text(int.from_bytes(data, 'little'))}}}"]


SPECIAL: dict[str, tuple[int, Callable[[Syscall], list[str]]]] = {
    # name: how many of the shown parts are known on entry, and the function that gives them all
    **NET_SPECIAL,
    **RARE_SPECIAL,
    "clone": (2, clone_arguments),
    "clone3": (1, clone3_arguments),
    "rt_sigreturn": (1, sigreturn_arguments),
}


def hex_result(call: Syscall) -> str:
    """A result that is an address."""
    return show_hex(call, (call.result or 0) & 0xFFFFFFFFFFFFFFFF)


def time_result(call: Syscall) -> str:
    """time's result, with its date."""
    seconds = call.result or 0
    return f"{seconds} ({s.date_text(seconds)})" if abs(seconds) < s.CALENDAR else str(seconds)


RESULTS: dict[str, Callable[[Syscall], str]] = {
    **dict.fromkeys(["mmap", "brk", "mremap", "shmat"], hex_result),
    "umask": lambda call: show_octal(call, call.result or 0),
    "fcntl": fcntl_result,
    "prctl": prctl_result,
    "poll": s.poll_result,
    "ppoll": s.poll_result,
    "select": s.select_result,
    "pselect6": s.select_result,
    "personality": lambda call: f"{hex_result(call)} (PER_LINUX)" if not call.result else hex_result(call),
    **MORE_RESULTS,
    "time": time_result,
    "exit": lambda call: "?",
    "exit_group": lambda call: "?",
}


def mremap_params(call: Syscall) -> Params:
    """mremap's new address only matters with MREMAP_FIXED or DONTUNMAP."""
    base: Params = (POINTER, SIZE, SIZE, flags(k.MREMAP, "MREMAP_???"))
    return (*base, POINTER) if call.args[3] & 6 else base


def argument_texts(call: Syscall, on_entry: bool) -> list[str]:
    """The arguments as text; on entry only those in front of the first one the call fills.

    An empty text at the end says that more will follow: joined, it leaves the comma there that strace prints too.
    """
    special = SPECIAL.get(call.name)
    if special is not None:
        ready, function = special
        shown = function(call)
        if not on_entry or len(shown) <= ready:
            return shown
        return shown[:ready] if shown[ready].startswith(GLUED) else [*shown[:ready], ""]
    params = mremap_params(call) if call.name == "mremap" else CALLS.get(call.name)
    if params is None:
        return [show_hex(call, value) for value in call.args]
    shown = []
    for param, value in zip(params, call.args, strict=False):
        text = param.show(call, value) if isinstance(param, Out) else param(call, value)
        if text is None:
            continue
        if on_entry and isinstance(param, Out):
            shown.append("")
            break
        shown.append(text)
    return shown


def joined(texts: list[str]) -> str:
    """Arguments with commas between them; what begins with a mark of its own goes without."""
    out = ""
    for index, text in enumerate(texts):
        out += text if index == 0 or text.startswith(GLUED) else f", {text}"
    return out


def shown_result(call: Syscall) -> str:
    """What stands behind `= `."""
    special = RESULTS.get(call.name)
    if special is None or call.failed or call.result is None:
        return result_text(call)
    return special(call)
