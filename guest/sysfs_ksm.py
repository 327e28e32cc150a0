"""/sys/kernel/mm/ksm: what KSM counts, and its settings (the ksm_attrs of mm/ksm.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
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


def _unsigned(data: bytes, largest: int = _UINT_MAX) -> int:
    """An unsigned int for stores that call everything else EINVAL."""
    try:
        return kstrtoul(data, largest)
    except Errno:
        raise Errno(errno.EINVAL) from None


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
        value = _unsigned(data)
        changed = value != getattr(self.ksm(task), self.name)
        setattr(self.ksm(task), self.name, value)
        if changed and self.name == "sleep_millisecs":
            _wake(task, True)
        return len(data)


class KsmRun(KsmCounter):
    """run: 0 stop, 1 merge, 2 stop and unmerge all."""

    def put(self, task: Task, data: bytes) -> int:
        """run_store(). Raises EINVAL, ENOMEM where a page can not be unmerged."""
        from mm.ksm import set_run

        set_run(self.ksm(task), _unsigned(data, 2))
        _wake(task, False)
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


def _wake(task: Task, now: bool) -> None:
    from guest.ksmd import wake_ksmd

    wake_ksmd(task.kernel, now)


def ksm_files() -> dict[str, Any]:
    """The files of the folder."""
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
