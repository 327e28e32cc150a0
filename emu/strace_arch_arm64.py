"""What strace needs to know of arm64 alone: open flags, struct stat, argument orders."""

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
    0o200000: "O_DIRECT",
    0o400000: "O_LARGEFILE",
    0o100000: "O_NOFOLLOW",
    0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC",
    0o10000000: "O_PATH",
    0o20040000: "O_TMPFILE",
    0o40000: "O_DIRECTORY",
    0o20000: "FASYNC",
}
ARCH_PRCTL: dict[int, str] = {}  # no such call here
STAT_SIZE = 128
EPOLL_EVENT_SIZE = 16
STAT_FIELDS = {"st_mode": ("<I", 16), "st_rdev": ("<Q", 32), "st_size": ("<q", 48)}
CLONE_PARENT_TID, CLONE_CHILD_TID, CLONE_TLS = 2, 4, 3  # which argument of clone is what
SP_REGISTER = 31  # index in Cpu.regs
SIGFRAME_MASK = 168  # bytes from the stack pointer at rt_sigreturn to the saved signal mask: siginfo, start of ucontext


def stat_field(data: bytes, name: str) -> int:
    """One field of struct stat."""
    layout, offset = STAT_FIELDS[name]
    return int(struct.unpack_from(layout, data, offset)[0])
