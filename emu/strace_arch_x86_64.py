"""What strace needs to know of x86-64 alone: open flags, struct stat, argument orders, arch_prctl."""

from __future__ import annotations

import struct

OPEN_FLAGS = {
    0o100: "O_CREAT",
    0o200: "O_EXCL",
    0o400: "O_NOCTTY",
    0o1000: "O_TRUNC",
    0o2000: "O_APPEND",
    0o4000: "O_NONBLOCK",
    0o4010000: "O_SYNC",
    0o10000: "O_DSYNC",
    0o40000: "O_DIRECT",
    0o100000: "O_LARGEFILE",
    0o400000: "O_NOFOLLOW",
    0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC",
    0o10000000: "O_PATH",
    0o20200000: "O_TMPFILE",
    0o200000: "O_DIRECTORY",
    0o20000: "FASYNC",
}
ARCH_PRCTL = {
    0x1001: "ARCH_SET_GS",
    0x1002: "ARCH_SET_FS",
    0x1003: "ARCH_GET_FS",
    0x1004: "ARCH_GET_GS",
    0x1011: "ARCH_GET_CPUID",
    0x1012: "ARCH_SET_CPUID",
    0x2001: "ARCH_MAP_VDSO_X32",
    0x2002: "ARCH_MAP_VDSO_32",
    0x2003: "ARCH_MAP_VDSO_64",
}
STAT_SIZE = 144
EPOLL_EVENT_SIZE = 12  # packed
STAT_FIELDS = {"st_mode": ("<I", 24), "st_rdev": ("<Q", 40), "st_size": ("<q", 48)}
CLONE_PARENT_TID, CLONE_CHILD_TID, CLONE_TLS = 2, 3, 4  # which argument of clone is what
SP_REGISTER = 4  # index in Cpu.regs
SIGFRAME_MASK = 296  # bytes from the stack pointer at rt_sigreturn to the saved signal mask: ucontext, sigcontext


def stat_field(data: bytes, name: str) -> int:
    """One field of struct stat."""
    layout, offset = STAT_FIELDS[name]
    return int(struct.unpack_from(layout, data, offset)[0])
