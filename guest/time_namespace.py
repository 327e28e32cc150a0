"""Namespaces of clocks: CLOCK_MONOTONIC and CLOCK_BOOTTIME with an offset (kernel/time/namespace.c).

    what programs see = the machine's clock + offset        what programs say - offset = the machine's clock

A process never changes its clocks by unshare(): its children have the new ones, whose offsets are written to
/proc/PID/timens_offsets before the first of them is there. A process in a namespace finds the offsets in [vvar], where
the machine's data are otherwise.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.clock import NSEC_PER_SEC
from guest.cred import CAP_SYS_TIME
from guest.nsproxy import Namespace, nsproxy_of
from mm.errors import Errno
from mm.page_alloc import alloc_page, put_page

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task
    from mm.types import Page

CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM = 1, 4, 6, 7, 9
_BOOT = (CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM)
_MONOTONIC = (CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE)
_KTIME_MAX = (1 << 63) - 1
_KTIME_SEC_MAX = _KTIME_MAX // NSEC_PER_SEC
_CLOCKS = {b"monotonic": CLOCK_MONOTONIC, b"1": CLOCK_MONOTONIC, b"boottime": CLOCK_BOOTTIME, b"7": CLOCK_BOOTTIME}
# struct vdso_data: seq, clock_mode, cycle_last, mask, mult, shift; then sec and nsec of each clock.
_VDSO_DATA = Struct("<Ii24x")
_VDSO_DATA_SIZE, _CS_BASES, _OFFSETS = 240, 2, 32
_VDSO_CLOCKMODE_TIMENS = 0x7FFFFFFF
_TIMESPEC = Struct("<qQ")


class TimeNamespace(Namespace):
    """One namespace of clocks other than the first."""

    __slots__ = ("boottime", "frozen_offsets", "monotonic", "vvar_page")

    def __init__(self, number: int, parent: TimeNamespace | None) -> None:
        super().__init__(number)
        self.monotonic: int = parent.monotonic if parent is not None else 0  # ns
        self.boottime: int = parent.boottime if parent is not None else 0
        self.frozen_offsets = False  # somebody has been in it: they stay as they are
        self.vvar_page: Page | None = None

    def offset(self, which: int) -> int:
        """What is added to a clock, ns."""
        return self.boottime if which in _BOOT else self.monotonic if which in _MONOTONIC else 0

    def to_host(self, which: int, value: int) -> int:
        """timens_ktime_to_host(): a time on this namespace's clock as the machine's, ns."""
        offset = self.boottime if which in _BOOT else self.monotonic if which == CLOCK_MONOTONIC else 0
        return 0 if value < offset else min(value - offset, _KTIME_MAX)

    def vvar_pfn(self, task: Task) -> int:
        """The frame of [vvar] that tells of the offsets (timens_setup_vdso_data()), made by who looks first."""
        page = self.vvar_page
        if page is None:
            page = self.vvar_page = alloc_page(task.system, True)
            if page is None:
                raise Errno(errno.ENOMEM)
            start = (page.pfn << task.system.arch.page_shift) + task.kernel.arch.vdso_data_offset
            for base in range(start, start + _CS_BASES * _VDSO_DATA_SIZE, _VDSO_DATA_SIZE):
                _VDSO_DATA.pack_into(task.system.ram, base, 1, _VDSO_CLOCKMODE_TIMENS)
                for which in (*_MONOTONIC, *_BOOT):
                    shift = divmod(self.offset(which), NSEC_PER_SEC)
                    _TIMESPEC.pack_into(task.system.ram, base + _OFFSETS + which * _TIMESPEC.size, *shift)
        return page.pfn


def timens_commit(task: Task) -> None:
    """The task has just come into its namespace: its [vvar] is another."""
    if task.time_ns is not None:
        task.time_ns.frozen_offsets = True
    vma = task.mm.mmap if task.mm is not None else None
    while vma is not None:
        special = vma.vm_private_data
        if special is not None and special is task.kernel.vdso.vvar_mapping:
            from mm.memory_zap import zap_page_range

            zap_page_range(vma, vma.vm_start, vma.vm_end - vma.vm_start)
        vma = vma.vm_next


def timens_leave(task: Task) -> None:
    """A task ends: with the last one, the namespace's page goes."""
    space = task.time_ns
    if space is None or space.vvar_page is None:
        return
    if not any(other.time_ns is space and other.mm is not None for other in task.kernel.tasks.values()):
        put_page(task.system, space.vvar_page)
        space.vvar_page = None


# /proc/PID/timens_offsets


def show_timens_offsets(inode: ProcInode, task: Task) -> str:
    """timens_offsets_show(): of the children's namespace."""
    space = nsproxy_of(inode.task).time_ns
    shifts = (space.monotonic, space.boottime) if space is not None else (0, 0)
    text = ""
    for name, shift in zip(("monotonic", "boottime"), shifts, strict=True):
        seconds, nanoseconds = divmod(shift, NSEC_PER_SEC)
        text += f"{name:<10} {seconds:10} {nanoseconds:9}\n"
    return text


def store_timens_offsets(inode: ProcInode, task: Task, pos: int, data: bytes) -> int:
    """timens_offsets_write().

    Raises:
        Errno: EINVAL, EPERM, ERANGE for a clock that would be negative or out of reach, EACCES once somebody is there.
    """
    if pos or len(data) >= task.system.page_size:
        raise Errno(errno.EINVAL)
    offsets, count = _parse(data)
    target: Task = inode.task
    if target.exit_state:
        raise Errno(errno.ESRCH)
    if not task.capable(CAP_SYS_TIME):
        raise Errno(errno.EPERM)
    now = task.kernel.clock.now
    for _, seconds, nanoseconds in offsets:
        if not -_KTIME_SEC_MAX <= seconds <= _KTIME_SEC_MAX:
            raise Errno(errno.ERANGE)
        if not 0 <= (now + seconds * NSEC_PER_SEC + nanoseconds) // NSEC_PER_SEC <= _KTIME_SEC_MAX // 2:
            raise Errno(errno.ERANGE)
    space = nsproxy_of(target).time_ns
    if space is None or space.frozen_offsets:
        raise Errno(errno.EACCES)
    for which, seconds, nanoseconds in offsets:
        shift = seconds * NSEC_PER_SEC + nanoseconds
        if which == CLOCK_MONOTONIC:
            space.monotonic = shift
        else:
            space.boottime = shift
    return count


def _parse(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """Two lines at most of clock, seconds and nanoseconds; how many bytes they are. Raises Errno(EINVAL)."""
    text = data.partition(b"\0")[0]
    offsets: list[tuple[int, int, int]] = []
    taken = 0
    while True:
        line, newline, rest = text[taken:].partition(b"\n")
        offsets.append(_parse_line(line))
        taken += len(line) + len(newline)
        if not newline or not rest:
            return offsets, len(data)
        if len(offsets) == 2:
            return offsets, taken


def _parse_line(line: bytes) -> tuple[int, int, int]:
    words = line.split(None, 3)
    if len(words) < 3 or words[0] not in _CLOCKS:
        raise Errno(errno.EINVAL)
    seconds, nanoseconds = _leading_number(words[1]), _leading_number(words[2])
    if seconds is None or nanoseconds is None or not 0 <= nanoseconds < NSEC_PER_SEC:
        raise Errno(errno.EINVAL)
    return _CLOCKS[words[0]], seconds, nanoseconds


def _leading_number(word: bytes) -> int | None:
    """sscanf's %lld: a sign and digits, and whatever follows them."""
    sign = word[:1] in (b"-", b"+")
    digits = word[sign:]
    end = len(digits) - len(digits.lstrip(b"0123456789"))
    return int(word[: end + sign]) if end else None
