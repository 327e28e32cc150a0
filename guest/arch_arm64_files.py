"""arm64's struct stat and open flags (asm-generic/stat.h; arch/arm64/include/uapi/asm/fcntl.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from guest.vfs_flags import O_DIRECT, O_DIRECTORY, O_LARGEFILE, O_NOFOLLOW

if TYPE_CHECKING:
    from guest.sys_file_stat import Kstat

_STAT = struct.Struct("<QQIIIIQ8xqi4xqQQQQQQ8x")
_DIFFERENT = ((O_DIRECTORY, 0o40000), (O_NOFOLLOW, 0o100000), (O_DIRECT, 0o200000), (O_LARGEFILE, 0o400000))
_OURS = O_DIRECTORY | O_NOFOLLOW | O_DIRECT | O_LARGEFILE
_THEIRS = 0o740000


def pack_stat(stat: Kstat) -> bytes:
    """struct stat, 128 bytes."""
    return _STAT.pack(
        stat.dev, stat.ino, stat.mode, stat.nlink, stat.uid, stat.gid, stat.rdev, stat.size, stat.blksize, stat.blocks,
        *divmod(stat.atime, 10**9), *divmod(stat.mtime, 10**9), *divmod(stat.ctime, 10**9),
    )  # fmt: skip


def flags_in(flags: int) -> int:
    """O_* of a program -> vfs_flags.py's."""
    found = flags & ~_THEIRS
    for ours, theirs in _DIFFERENT:
        if flags & theirs:
            found |= ours
    return found


def flags_out(flags: int) -> int:
    """O_* of vfs_flags.py -> a program's."""
    found = flags & ~_OURS
    for ours, theirs in _DIFFERENT:
        if flags & ours:
            found |= theirs
    return found
