"""What differs between architectures in the file interface and in /proc; subclasses are in arch_*_files.py."""

from __future__ import annotations

from importlib import import_module
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.sys_file_stat import Kstat
    from guest.task import Task

_MODULES = {"x86_64": "guest.arch_x86_64_files", "aarch64": "guest.arch_arm64_files"}


class FileAbi:
    """Layouts, flag values and texts. Instances hold no state and pickle by class."""

    uts_version = ""  # of the oracle's kernel
    compiler = ""  # in /proc/version
    speculation = ""  # Speculation_Store_Bypass of /proc/PID/status
    arch_status = False  # /proc/PID/arch_status exists
    zones: tuple[str, ...] = ("DMA32", "Normal", "Movable")  # of the node; all frames are in first_zone
    first_zone = "DMA32"
    lowmem_reserve_ratio: tuple[int, ...] = (256, 32, 0)
    mmap_rnd_bits_spread = 4  # ARCH_MMAP_RND_BITS_MAX less the least
    epoll_event = "<I4xQ"  # struct epoll_event, for struct.Struct
    #: struct semid64_ds: key uid gid cuid cgid mode seq, otime ctime nsems
    semid64_ds = Struct("<i5IH2x4x16x3Q16x")

    def pack_stat(self, stat: Kstat) -> bytes:
        """struct stat."""
        raise NotImplementedError

    def flags_in(self, flags: int) -> int:
        """O_* of a program -> vfs_flags.py's."""
        return flags

    def flags_out(self, flags: int) -> int:
        """O_* of vfs_flags.py -> a program's."""
        return flags

    def cpuinfo(self, task: Task) -> str:
        """/proc/cpuinfo of the one CPU."""
        raise NotImplementedError

    def hugepage_kb(self, page_size: int) -> tuple[int, ...]:
        """Sizes of huge pages, KiB."""
        raise NotImplementedError

    def vmalloc_kb(self, task: Task) -> int:
        """VmallocTotal of /proc/meminfo."""
        raise NotImplementedError

    def meminfo_middle(self, task: Task) -> str:
        """What stands between Percpu and AnonHugePages in /proc/meminfo."""
        return ""

    def meminfo_tail(self, task: Task) -> str:
        """arch_report_meminfo()."""
        return ""


def make(arch: str) -> FileAbi:
    """The instance for an architecture by name."""
    abi: FileAbi = import_module(_MODULES[arch]).FILES
    return abi
