"""strace's table of memory policies, of calls on special descriptors (timers, signals, inotify), and of the rarest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu import strace_structs as s
from emu.strace_values import (
    Out,
    Params,
    Show,
    Syscall,
    array_text,
    choice,
    flag_text,
    flags,
    number_body,
    show_fd,
    show_hex,
    show_int,
    show_path,
    show_pointer,
    show_size,
    show_unsigned,
    signed,
    sized_sigset,
)

if TYPE_CHECKING:
    from collections.abc import Callable

POLICIES = {
    0: "MPOL_DEFAULT",
    1: "MPOL_PREFERRED",
    2: "MPOL_BIND",
    3: "MPOL_INTERLEAVE",
    4: "MPOL_LOCAL",
    5: "MPOL_PREFERRED_MANY",
}
POLICY_FLAGS = {0x8000: "MPOL_F_STATIC_NODES", 0x4000: "MPOL_F_RELATIVE_NODES", 0x2000: "MPOL_F_NUMA_BALANCING"}
MBIND = {1: "MPOL_MF_STRICT", 2: "MPOL_MF_MOVE", 4: "MPOL_MF_MOVE_ALL"}
MOVE = {2: "MPOL_MF_MOVE", 4: "MPOL_MF_MOVE_ALL"}
GET_POLICY = {1: "MPOL_F_NODE", 2: "MPOL_F_ADDR", 4: "MPOL_F_MEMS_ALLOWED"}
PKEY_RIGHTS = {1: "PKEY_DISABLE_ACCESS", 2: "PKEY_DISABLE_WRITE"}
MEMBARRIER_FLAGS = {1: "MEMBARRIER_CMD_FLAG_CPU"}
TFD = {0x80000: "TFD_CLOEXEC", 0x800: "TFD_NONBLOCK"}
TFD_SET = {1: "TFD_TIMER_ABSTIME", 2: "TFD_TIMER_CANCEL_ON_SET"}
SFD = {0x80000: "SFD_CLOEXEC", 0x800: "SFD_NONBLOCK"}
IN_INIT = {0x800: "IN_NONBLOCK", 0x80000: "IN_CLOEXEC"}
IN_NAMES = "ACCESS MODIFY ATTRIB CLOSE_WRITE CLOSE_NOWRITE OPEN MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF"
IN = {
    **{1 << bit: f"IN_{name}" for bit, name in enumerate(IN_NAMES.split())},
    0x2000: "IN_UNMOUNT",
    0x4000: "IN_Q_OVERFLOW",
    0x8000: "IN_IGNORED",
    0x1000000: "IN_ONLYDIR",
    0x2000000: "IN_DONT_FOLLOW",
    0x4000000: "IN_EXCL_UNLINK",
    0x20000000: "IN_MASK_ADD",
    0x40000000: "IN_ISDIR",
    0x80000000: "IN_ONESHOT",
}
IOPRIO_WHO = {1: "IOPRIO_WHO_PROCESS", 2: "IOPRIO_WHO_PGRP", 3: "IOPRIO_WHO_USER"}
KCMP_NAMES = ("FILE", "VM", "FILES", "FS", "SIGHAND", "IO", "SYSVSEM", "EPOLL_TFD")
KCMP = {number: f"KCMP_{name}" for number, name in enumerate(KCMP_NAMES)}
PTRACE = {
    0: "PTRACE_TRACEME",
    1: "PTRACE_PEEKTEXT",
    2: "PTRACE_PEEKDATA",
    3: "PTRACE_PEEKUSER",
    4: "PTRACE_POKETEXT",
    5: "PTRACE_POKEDATA",
    6: "PTRACE_POKEUSER",
    7: "PTRACE_CONT",
    8: "PTRACE_KILL",
    9: "PTRACE_SINGLESTEP",
    16: "PTRACE_ATTACH",
    17: "PTRACE_DETACH",
    24: "PTRACE_SYSCALL",
}
FUTEX_OPS = ("SET", "ADD", "OR", "ANDN", "XOR")
FUTEX_COMPARES = ("EQ", "NE", "LT", "LE", "GT", "GE")


def show_mode(call: Syscall, value: int) -> str:
    """A memory policy with its flags."""
    value &= 0xFFFFFFFF
    name = POLICIES.get(value & 0xFF if value & 0x1FFF < 256 else value & 0x1FFF)
    bits = value & 0xE000
    if name is None:
        plain = f"{value & ~0xE000:#x} /* MPOL_??? */"
        return f"{plain}|{flag_text(bits, POLICY_FLAGS, '')}" if bits else plain
    return f"{name}|{flag_text(bits, POLICY_FLAGS, '')}" if bits else name


def policy_body(call: Syscall, data: bytes) -> str:
    """A memory policy the kernel stored."""
    value = int.from_bytes(data, "little")
    return f"[{POLICIES.get(value) or f'{value:#x} /* MPOL_??? */'}]"


def node_mask(index: int) -> Show:
    """A mask of nodes; the number of its bits is argument `index`."""

    def show(call: Syscall, value: int) -> str:
        return array_text(call, value, (call.args[index] + 62) // 64 if call.args[index] else 0, 8, node_word)

    return show


def node_word(call: Syscall, data: bytes) -> str:
    """One word of a mask, as printf's %#016lx."""
    value = int.from_bytes(data, "little")
    return f"{value:#016x}" if value else "0" * 16


def each(size: int, element: Callable[[Syscall, bytes], str]) -> Show:
    """move_pages' arrays: argument 1 is their length."""
    return lambda call, value: array_text(call, value, call.args[1], size, element)


def page_address(call: Syscall, data: bytes) -> str:
    """One address."""
    return show_pointer(call, int.from_bytes(data, "little"))


def node_number(call: Syscall, data: bytes) -> str:
    """One node."""
    return str(int.from_bytes(data, "little", signed=True))


def page_status(call: Syscall, data: bytes) -> str:
    """The node a page is on, or why it is on none."""
    import errno

    value = int.from_bytes(data, "little", signed=True)
    name = errno.errorcode.get(-value)
    return f"-{name}" if value < 0 and name else str(value)


def statuses(call: Syscall, value: int) -> str:
    """What move_pages tells of each page."""
    return show_pointer(call, value) if call.failed else array_text(call, value, call.args[1], 4, page_status)


def filled_mask(index: int) -> Show:
    """A mask of nodes that the call fills."""
    inner = node_mask(index)
    return lambda call, value: show_pointer(call, value) if call.failed else inner(call, value)


def sendfile_arguments(call: Syscall) -> list[str]:
    """sendfile: the offset before, and after where it moved."""
    offset = call.args[2]
    data = call.read(offset, 8) if offset else None
    now = None if data is None else int.from_bytes(data, "little")
    if call.result is None:
        call.kept = now
    shown = show_pointer(call, offset) if call.kept is None else f"[{call.kept}]"
    if call.result is not None and not call.failed and call.kept is not None and now != call.kept:
        shown += f" => [{now}]"
    return [show_fd(call, call.args[0]), show_fd(call, call.args[1]), shown, str(call.args[3])]


def sigmask_argument(call: Syscall, value: int) -> str:
    """pselect6's sixth argument: a set and its size."""
    data = call.read(value, 16) if value else None
    if data is None:
        return show_pointer(call, value)
    address, size = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")
    from emu.strace_values import sigset_text

    return f"{{sigmask={sigset_text(call, address, size)}, sigsetsize={size}}}"


def wake_op_text(value: int) -> str:
    """FUTEX_WAKE_OP's word: operation, operand, comparison, operand."""
    value &= 0xFFFFFFFF
    operation, compare = value >> 28 & 7, value >> 24 & 0xF
    first, second = value >> 12 & 0xFFF, value & 0xFFF
    shift = "FUTEX_OP_OPARG_SHIFT<<28|" if value >> 31 else ""
    op = f"FUTEX_OP_{FUTEX_OPS[operation]}<<28" if operation < 5 else f"{operation:#x}<<28 /* FUTEX_OP_??? */"
    cmp = f"FUTEX_OP_CMP_{FUTEX_COMPARES[compare]}<<24" if compare < 6 else f"{compare:#x}<<24 /* FUTEX_OP_CMP_??? */"
    return f"{shift}{op}|{hex(first) if first else '0'}<<12|{cmp}|{hex(second) if second else '0'}"


def when(option: int, values: tuple[int, ...], show: Show) -> Show:
    """An argument that is shown when argument `option` has one of these values."""
    return lambda call, value: show(call, value) if signed(call.args[option]) in values else None


def show_ptrace(call: Syscall, value: int) -> str:
    """ptrace's request."""
    return PTRACE.get(value) or f"{value:#x} /* PTRACE_??? */"


def show_ptrace_pid(call: Syscall, value: int) -> str | None:
    """The tracee; PTRACE_TRACEME has none."""
    return show_int(call, value) if call.args[0] else None


def show_ptrace_word(call: Syscall, value: int) -> str | None:
    """Address and data, for the requests that have them."""
    return show_pointer(call, value) if call.args[0] not in (0, 8, 16) else None


OFFSET = s.pointed(8, number_body(8))
ITIMERSPEC = s.pointed(32, s.itimerspec_body)
OLD_ITIMERSPEC = Out(s.filled(32, s.itimerspec_body))
SPLICE = {1: "SPLICE_F_MOVE", 2: "SPLICE_F_NONBLOCK", 4: "SPLICE_F_MORE", 8: "SPLICE_F_GIFT"}

RARE_CALLS: dict[str, Params] = {
    "set_mempolicy": (show_mode, node_mask(2), show_size),
    "get_mempolicy": (
        Out(s.filled(4, policy_body)), Out(filled_mask(2)), show_size, show_pointer, flags(GET_POLICY, "MPOL_F_???"),
    ),
    "mbind": (show_pointer, show_size, show_mode, node_mask(4), show_size, flags(MBIND, "MPOL_???")),
    "migrate_pages": (show_int, show_size, node_mask(1), node_mask(1)),
    "move_pages": (
        show_int, show_size, each(8, page_address), each(4, node_number), Out(statuses), flags(MOVE, "MPOL_???"),
    ),
    "pkey_alloc": (show_hex, flags(PKEY_RIGHTS, "PKEY_???")),
    "copy_file_range": (show_fd, OFFSET, show_fd, OFFSET, show_size, show_unsigned),
    "splice": (show_fd, OFFSET, show_fd, OFFSET, show_size, flags(SPLICE, "SPLICE_F_???")),
    "timerfd_create": (choice({0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 7: "CLOCK_BOOTTIME"}, "CLOCK_???"),
                       flags(TFD, "TFD_???")),
    "timerfd_settime": (show_fd, flags(TFD_SET, "TFD_???"), ITIMERSPEC, OLD_ITIMERSPEC),
    "timerfd_gettime": (show_fd, OLD_ITIMERSPEC),
    "signalfd": (show_fd, sized_sigset(2), show_size),
    "signalfd4": (show_fd, sized_sigset(2), show_size, flags(SFD, "SFD_???")),
    "inotify_init": (),
    "inotify_init1": (flags(IN_INIT, "IN_???"),),
    "inotify_add_watch": (show_fd, show_path, flags(IN, "IN_???")),
    "inotify_rm_watch": (show_fd, show_int),
    "ioprio_get": (choice(IOPRIO_WHO, "IOPRIO_WHO_???"), show_int),
    "kcmp": (show_int, show_int, choice(KCMP, "KCMP_???"), when(2, (0,), show_unsigned), when(2, (0,), show_unsigned)),
    "ptrace": (show_ptrace, show_ptrace_pid, show_ptrace_word, show_ptrace_word),
    "acct": (show_path,),
    "swapon": (show_path, show_hex),
    "swapoff": (show_path,),
}  # fmt: skip
RARE_SPECIAL: dict[str, tuple[int, Callable[[Syscall], list[str]]]] = {"sendfile": (2, sendfile_arguments)}
