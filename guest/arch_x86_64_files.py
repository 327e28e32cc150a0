"""x86-64's struct stat (arch/x86/include/uapi/asm/stat.h), /proc/cpuinfo (kernel/cpu/proc.c), memory texts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from guest.vfs_abi import FileAbi

if TYPE_CHECKING:
    from guest.sys_file_stat import Kstat
    from guest.task import Task

_STAT = struct.Struct("<QQQIIIIQqqqqQqQqQ24x")
# Names of the CPUID leaf 1 EDX bits, which is what AT_HWCAP holds.
_NAMES = (
    "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr "
    "sse sse2 ss ht tm ia64 pbe"
)
_HWCAP_NAMES = _NAMES.split()
_CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 15
model\t\t: 107
model name\t: QEMU Virtual CPU version 2.5+
stepping\t: 1
microcode\t: 0x1000065
cpu MHz\t\t: 2000.000
cache size\t: 512 KB
physical id\t: 0
siblings\t: 1
core id\t\t: 0
cpu cores\t: 1
apicid\t\t: 0
initial apicid\t: 0
fpu\t\t: yes
fpu_exception\t: yes
cpuid level\t: 13
wp\t\t: yes
flags\t\t: {flags}
bugs\t\t: fxsave_leak sysret_ss_attrs null_seg swapgs_fence amd_e400 spectre_v1 spectre_v2
bogomips\t: 4000.00
TLB size\t: 1024 4K pages
clflush size\t: 64
cache_alignment\t: 64
address sizes\t: 40 bits physical, {bits} bits virtual
power management:

"""


class X86Files(FileAbi):
    """x86-64."""

    uts_version = "#4 SMP Sun Nov 22 14:45:18 UTC 2026"
    compiler = "gcc (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40"
    speculation = "not vulnerable"
    arch_status = True
    epoll_event = "<IQ"  # packed
    semid64_ds = struct.Struct("<i5IH2x4x16xQ8xQ8xQ16x")

    def pack_stat(self, stat: Kstat) -> bytes:
        return _STAT.pack(
            stat.dev, stat.ino, stat.nlink, stat.mode, stat.uid, stat.gid, 0, stat.rdev, stat.size, stat.blksize,
            stat.blocks, *divmod(stat.atime, 10**9), *divmod(stat.mtime, 10**9), *divmod(stat.ctime, 10**9),
        )  # fmt: skip

    def cpuinfo(self, task: Task) -> str:
        hwcap: int = task.kernel.arch.hwcap
        names = [name for bit, name in enumerate(_HWCAP_NAMES) if hwcap >> bit & 1 and name != "-"]
        flags = " ".join([*names, "syscall nx lm rep_good nopl cpuid extd_apicid pni cx16 hypervisor lahf_lm"])
        levels = len(task.system.arch.level_shifts)
        return _CPUINFO.format(flags=flags, bits=48 if levels == 4 else 57)

    def hugepage_kb(self, page_size: int) -> tuple[int, ...]:
        return (2048,)

    def vmalloc_kb(self, task: Task) -> int:
        return 34359738367 if len(task.system.arch.level_shifts) == 4 else 13743895347199

    def meminfo_tail(self, task: Task) -> str:
        total = len(task.system.ram) >> 10
        return f"DirectMap4k:    {0:8} kB\nDirectMap2M:    {total:8} kB\n"


FILES = X86Files()
