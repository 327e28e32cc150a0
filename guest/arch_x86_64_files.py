"""x86-64's struct stat and open flags (arch/x86/include/uapi/asm/stat.h; asm-generic/fcntl.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.sys_file_stat import Kstat

_STAT = struct.Struct("<QQQIIIIQqqqQQQQQQ24x")


def pack_stat(stat: Kstat) -> bytes:
    """struct stat, 144 bytes."""
    return _STAT.pack(
        stat.dev, stat.ino, stat.nlink, stat.mode, stat.uid, stat.gid, 0, stat.rdev, stat.size, stat.blksize, stat.blocks,
        *divmod(stat.atime, 10**9), *divmod(stat.mtime, 10**9), *divmod(stat.ctime, 10**9),
    )  # fmt: skip


def flags_in(flags: int) -> int:
    """O_* of a program -> vfs_flags.py's."""
    return flags


def flags_out(flags: int) -> int:
    """O_* of vfs_flags.py -> a program's."""
    return flags
