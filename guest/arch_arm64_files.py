"""arm64's struct stat and open flags (asm-generic/stat.h; arch/arm64 uapi/asm/fcntl.h), /proc/cpuinfo, memory texts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from guest.vfs_abi import FileAbi
from guest.vfs_flags import O_DIRECT, O_DIRECTORY, O_LARGEFILE, O_NOFOLLOW

if TYPE_CHECKING:
    from guest.sys_file_stat import Kstat
    from guest.task import Task

_STAT = struct.Struct("<QQIIIIQ8xqi4xqQQQQQQ8x")
_DIFFERENT = ((O_DIRECTORY, 0o40000), (O_NOFOLLOW, 0o100000), (O_DIRECT, 0o200000), (O_LARGEFILE, 0o400000))
_OURS = O_DIRECTORY | O_NOFOLLOW | O_DIRECT | O_LARGEFILE
_THEIRS = 0o740000
_NAMES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop "
    "sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_HWCAP_NAMES = _NAMES.split()
_VMALLOC_KB = {4096: 133143592960, 16384: 136834711488, 65536: 2147483648}


class Arm64Files(FileAbi):
    """arm64."""

    uts_version = "#4 SMP Sun Nov 22 15:00:39 UTC 2026"
    compiler = "aarch64-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40"
    speculation = "thread vulnerable"
    zones = ("Normal", "Movable")
    first_zone = "Normal"
    lowmem_reserve_ratio = (32, 0)
    mmap_rnd_bits_spread = 15

    def pack_stat(self, stat: Kstat) -> bytes:
        return _STAT.pack(
            stat.dev, stat.ino, stat.mode, stat.nlink, stat.uid, stat.gid, stat.rdev, stat.size, stat.blksize,
            stat.blocks, *divmod(stat.atime, 10**9), *divmod(stat.mtime, 10**9), *divmod(stat.ctime, 10**9),
        )  # fmt: skip

    def flags_in(self, flags: int) -> int:
        found = flags & ~_THEIRS
        for ours, theirs in _DIFFERENT:
            if flags & theirs:
                found |= ours
        return found

    def flags_out(self, flags: int) -> int:
        found = flags & ~_OURS
        for ours, theirs in _DIFFERENT:
            if flags & ours:
                found |= theirs
        return found

    def cpuinfo(self, task: Task) -> str:
        hwcap: int = task.kernel.arch.hwcap
        features = " ".join(name for bit, name in enumerate(_HWCAP_NAMES) if hwcap >> bit & 1)
        return (
            f"processor\t: 0\nBogoMIPS\t: 125.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
            "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        )

    def hugepage_kb(self, page_size: int) -> tuple[int, ...]:
        sizes = {4096: (64, 2048, 32768, 1048576), 16384: (2048, 32768, 1048576), 65536: (2048, 524288, 16777216)}
        return sizes[page_size]

    def vmalloc_kb(self, task: Task) -> int:
        return _VMALLOC_KB[task.system.arch.page_size]

    def meminfo_middle(self, task: Task) -> str:
        return "HardwareCorrupted:     0 kB\n"


FILES = Arm64Files()
