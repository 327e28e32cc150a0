"""/sys/kernel/mm/ksm and .../transparent_hugepage/khugepaged: what the threads count, and their settings.

The attributes of mm/ksm.c and mm/khugepaged.c, with their ways of refusing a value.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from mm.khugepaged import Khugepaged
    from mm.ksm import Ksm

_UINT_MAX = 0xFFFFFFFF
_INT_MAX = 0x7FFFFFFF
_ULONG_MAX = 0xFFFFFFFFFFFFFFFF


def kstrtoul(data: bytes, largest: int = _ULONG_MAX) -> int:
    """A decimal number, perhaps with a plus sign and a newline. Raises EINVAL, ERANGE above `largest`."""
    digits = data.removesuffix(b"\n").removeprefix(b"+")
    if not digits.isdigit():
        raise Errno(errno.EINVAL)
    if len(digits) > 30 or int(digits) > largest:
        raise Errno(errno.ERANGE)
    return int(digits)


def _unsigned(data: bytes, largest: int, lowest: int = 0) -> int:
    """A number for stores that call everything else EINVAL."""
    try:
        value = kstrtoul(data, largest)
    except Errno:
        raise Errno(errno.EINVAL) from None
    if value < lowest:
        raise Errno(errno.EINVAL)
    return value


class KsmCounter:
    """A number that can only be read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ksm(self, task: Task) -> Ksm:
        """The machine's KSM."""
        from mm.ksm import ksm_state

        return ksm_state(task.system)

    def text(self, task: Task) -> str:
        """The value as it is read."""
        return f"{getattr(self.ksm(task), self.name)}\n"

    def put(self, task: Task, data: bytes) -> int:
        """There is no store method."""
        raise Errno(errno.EIO)


class KsmNumber(KsmCounter):
    """pages_to_scan, sleep_millisecs, stable_node_chains_prune_millisecs: an unsigned int."""

    def put(self, task: Task, data: bytes) -> int:
        """Raises EINVAL."""
        value = _unsigned(data, _UINT_MAX)
        changed = value != getattr(self.ksm(task), self.name)
        setattr(self.ksm(task), self.name, value)
        if changed and self.name == "sleep_millisecs":
            _wake_ksmd(task, True)
        return len(data)


class KsmRun(KsmCounter):
    """run: 0 stop, 1 merge, 2 stop and unmerge all."""

    def put(self, task: Task, data: bytes) -> int:
        """run_store(). Raises EINVAL, ENOMEM where a page can not be unmerged."""
        from mm.ksm import set_run

        set_run(self.ksm(task), _unsigned(data, 2))
        _wake_ksmd(task, False)
        return len(data)


class KsmShared(KsmCounter):
    """max_page_sharing and merge_across_nodes, which can be changed while no page is shared."""

    def put(self, task: Task, data: bytes) -> int:
        """Raises EINVAL, ERANGE, EBUSY."""
        from mm.ksm import set_while_unshared

        if self.name == "max_page_sharing":
            value = kstrtoul(data, _INT_MAX)
            refused = value < 2  # a KSM page is made for two
        else:
            value = kstrtoul(data)
            refused = value > 1
        if refused:
            raise Errno(errno.EINVAL)
        set_while_unshared(self.ksm(task), self.name, value)
        return len(data)


class KsmBool(KsmCounter):
    """use_zero_pages."""

    def put(self, task: Task, data: bytes) -> int:
        """kstrtobool(). Raises EINVAL."""
        word = data[:2].lower()
        if word[:1] in (b"y", b"1") or word == b"on":
            value = 1
        elif word[:1] in (b"n", b"0") or word == b"of":
            value = 0
        else:
            raise Errno(errno.EINVAL)
        setattr(self.ksm(task), self.name, value)
        return len(data)


def _wake_ksmd(task: Task, now: bool) -> None:
    from guest.ksmd import wake_ksmd

    wake_ksmd(task.kernel, now)


class KhugepagedCounter:
    """A number that can only be read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def state(self, task: Task) -> Khugepaged:
        """What khugepaged knows."""
        from mm.khugepaged import khugepaged_state

        return khugepaged_state(task.system)

    def text(self, task: Task) -> str:
        """The value as it is read."""
        return f"{getattr(self.state(task), self.name)}\n"

    def put(self, task: Task, data: bytes) -> int:
        """There is no store method."""
        raise Errno(errno.EIO)


class KhugepagedNumber(KhugepagedCounter):
    """A number from `lowest` to `largest`; setting one of the two pauses ends the pause."""

    def __init__(self, name: str, largest: int = _UINT_MAX, lowest: int = 0) -> None:
        super().__init__(name)
        self.largest, self.lowest = largest, lowest

    def put(self, task: Task, data: bytes) -> int:
        """Raises EINVAL."""
        setattr(self.state(task), self.name, _unsigned(data, self.largest, self.lowest))
        if self.name.endswith("millisecs"):
            from guest.khugepaged import wake_khugepaged

            wake_khugepaged(task.kernel, True)
        return len(data)


READ_ONLY = (KsmCounter, KhugepagedCounter)  # classes of files without a write bit


def ksm_files() -> dict[str, Any]:
    """The files of ksm/."""
    counters = (
        "full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "stable_node_chains",
        "stable_node_dups",
    )  # fmt: skip
    files: dict[str, Any] = {name: KsmCounter(name) for name in counters}
    for name in ("pages_to_scan", "sleep_millisecs", "stable_node_chains_prune_millisecs"):
        files[name] = KsmNumber(name)
    for name in ("max_page_sharing", "merge_across_nodes"):
        files[name] = KsmShared(name)
    return files | {"run": KsmRun("run"), "use_zero_pages": KsmBool("use_zero_pages")}


def khugepaged_files(pages: int) -> dict[str, Any]:
    """The files of khugepaged/, where a huge page is that many pages."""
    files: dict[str, Any] = {name: KhugepagedCounter(name) for name in ("full_scans", "pages_collapsed")}
    for name in ("max_ptes_none", "max_ptes_shared", "max_ptes_swap"):
        files[name] = KhugepagedNumber(name, pages - 1)
    for name in ("alloc_sleep_millisecs", "scan_sleep_millisecs"):
        files[name] = KhugepagedNumber(name)
    return files | {
        "defrag": KhugepagedNumber("defrag", 1),
        "pages_to_scan": KhugepagedNumber("pages_to_scan", lowest=1),
    }
