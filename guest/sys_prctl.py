"""prctl: one switch per option (kernel/sys.c), and the capability options (security/commoncap.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.cred import CAP_LAST_CAP, CAP_SETPCAP, CAP_SYS_RESOURCE, SECURE_KEEP_CAPS, Cred
from guest.own_mm import own_mm
from guest.sys_cred import commit_creds
from guest.sys_mm import s32
from guest.syscalls import PARTIAL, Call
from mm.errors import Errno
from mm.uaccess import copy_to_user, put_user, strncpy_from_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.task import Task

MMF_DISABLE_THP = 1 << 24
_SECURE_ALL_BITS, _SECURE_ALL_LOCKS = 0x55, 0xAA
_KEEP_CAPS_LOCKED = 1 << 5
_INVALID = errno.EINVAL


def _none(*values: int) -> None:
    """The arguments an option does not have must be 0."""
    if any(values):
        raise Errno(_INVALID)


def _set_pdeathsig(task: Task, a: int, b: int, c: int, d: int) -> int:
    if a > 64:
        raise Errno(_INVALID)
    task.pdeath_signal = a
    return 0


def _get_pdeathsig(task: Task, a: int, b: int, c: int, d: int) -> int:
    put_user(task, a, task.pdeath_signal, 4)
    return 0


def _get_dumpable(task: Task, a: int, b: int, c: int, d: int) -> int:
    return own_mm(task).flags & 3


def _set_dumpable(task: Task, a: int, b: int, c: int, d: int) -> int:
    mm = own_mm(task)
    if a not in (0, 1):
        raise Errno(_INVALID)
    mm.flags = mm.flags & ~3 | a
    return 0


def _get_timing(task: Task, a: int, b: int, c: int, d: int) -> int:
    return 0


def _set_timing(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(a)
    return 0


def _set_name(task: Task, a: int, b: int, c: int, d: int) -> int:
    task.comm = strncpy_from_user(task, a, 15).decode("latin-1")
    return 0


def _get_name(task: Task, a: int, b: int, c: int, d: int) -> int:
    copy_to_user(task, a, task.comm.encode("latin-1").ljust(16, b"\0"))
    return 0


def _get_timerslack(task: Task, a: int, b: int, c: int, d: int) -> int:
    return task.timer_slack_ns


def _set_timerslack(task: Task, a: int, b: int, c: int, d: int) -> int:
    task.timer_slack_ns = a or task.default_timer_slack_ns
    return 0


def _mce_kill(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(c, d)
    if (a == 0 and b) or a > 1 or (a == 1 and b > 2):
        raise Errno(_INVALID)
    task.mce_kill = b if a == 1 else 2
    return 0


def _mce_kill_get(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(a, b, c, d)
    return task.mce_kill


def _get_tid_address(task: Task, a: int, b: int, c: int, d: int) -> int:
    put_user(task, a, task.clear_child_tid, 8)
    return 0


def _set_subreaper(task: Task, a: int, b: int, c: int, d: int) -> int:
    task.signal.is_child_subreaper = bool(a)
    return 0


def _get_subreaper(task: Task, a: int, b: int, c: int, d: int) -> int:
    put_user(task, a, int(task.signal.is_child_subreaper), 4)
    return 0


def _set_no_new_privs(task: Task, a: int, b: int, c: int, d: int) -> int:
    if a != 1:
        raise Errno(_INVALID)
    _none(b, c, d)
    task.no_new_privs = True
    return 0


def _get_no_new_privs(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(a, b, c, d)
    return int(task.no_new_privs)


def _get_thp_disable(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(a, b, c, d)
    return int(bool(own_mm(task).flags & MMF_DISABLE_THP))


def _set_thp_disable(task: Task, a: int, b: int, c: int, d: int) -> int:
    _none(b, c, d)
    mm = own_mm(task)
    mm.flags = mm.flags & ~MMF_DISABLE_THP | (MMF_DISABLE_THP if a else 0)
    return 0


def _io_flusher(task: Task, a: int, b: int, c: int, d: int) -> int:
    if not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EPERM)
    _none(b, c, d)
    if a > 1:
        raise Errno(_INVALID)
    task.io_flusher = bool(a)
    return 0


def _get_io_flusher(task: Task, a: int, b: int, c: int, d: int) -> int:
    if not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EPERM)
    _none(a, b, c, d)
    return int(task.io_flusher)


# ---- capabilities


def _capbset_read(task: Task, a: int, b: int, c: int, d: int) -> int:
    if a > CAP_LAST_CAP:
        raise Errno(_INVALID)
    return task.cred.cap_bset >> a & 1


def _capbset_drop(task: Task, a: int, b: int, c: int, d: int) -> int:
    if not task.capable(CAP_SETPCAP):
        raise Errno(errno.EPERM)
    if a > CAP_LAST_CAP:
        raise Errno(_INVALID)
    new = task.cred.copy()
    new.cap_bset &= ~(1 << a)
    commit_creds(task, new)
    return 0


def _get_keepcaps(task: Task, a: int, b: int, c: int, d: int) -> int:
    return int(bool(task.cred.securebits & SECURE_KEEP_CAPS))


def _set_keepcaps(task: Task, a: int, b: int, c: int, d: int) -> int:
    if a > 1:
        raise Errno(_INVALID)
    if task.cred.securebits & _KEEP_CAPS_LOCKED:
        raise Errno(errno.EPERM)
    new = task.cred.copy()
    new.securebits = new.securebits & ~SECURE_KEEP_CAPS | (SECURE_KEEP_CAPS if a else 0)
    commit_creds(task, new)
    return 0


def _get_securebits(task: Task, a: int, b: int, c: int, d: int) -> int:
    return task.cred.securebits


def _set_securebits(task: Task, a: int, b: int, c: int, d: int) -> int:
    old = task.cred.securebits
    locked = (old & _SECURE_ALL_LOCKS) >> 1
    if (
        locked & (old ^ a)
        or old & _SECURE_ALL_LOCKS & ~a
        or a & ~(_SECURE_ALL_LOCKS | _SECURE_ALL_BITS)
        or not task.capable(CAP_SETPCAP)
    ):
        raise Errno(errno.EPERM)
    new = task.cred.copy()
    new.securebits = a
    commit_creds(task, new)
    return 0


def _cap_ambient(task: Task, a: int, b: int, c: int, d: int) -> int:
    old = task.cred
    if a == 4:  # PR_CAP_AMBIENT_CLEAR_ALL
        _none(b, c, d)
        new: Cred = old.copy()
        new.cap_ambient = 0
        commit_creds(task, new)
        return 0
    _none(c, d)
    if b > CAP_LAST_CAP or a not in (1, 2, 3):
        raise Errno(_INVALID)
    if a == 1:  # PR_CAP_AMBIENT_IS_SET
        return old.cap_ambient >> b & 1
    new = old.copy()
    if a == 2:  # PR_CAP_AMBIENT_RAISE
        if not (old.cap_permitted & old.cap_inheritable) >> b & 1 or old.securebits & 1 << 6:
            raise Errno(errno.EPERM)
        new.cap_ambient |= 1 << b
    else:
        new.cap_ambient &= ~(1 << b)
    commit_creds(task, new)
    return 0


def _set_mm(task: Task, a: int, b: int, c: int, d: int) -> int:
    from guest.sys_prctl_mm import prctl_set_mm

    return prctl_set_mm(task, a, b, c, d)


def _perf_events(task: Task, on: bool) -> int:
    if task.kernel.table.find("perf_event_open") is None:  # a kernel without performance events
        raise Errno(_INVALID)
    if task.perf_opened:
        from guest.perf import switch_all

        switch_all(task, on)
    return 0


def _perf_events_disable(task: Task, a: int, b: int, c: int, d: int) -> int:
    return _perf_events(task, False)


def _perf_events_enable(task: Task, a: int, b: int, c: int, d: int) -> int:
    return _perf_events(task, True)


_OPTIONS: dict[int, Callable[[Task, int, int, int, int], int]] = {
    1: _set_pdeathsig, 2: _get_pdeathsig, 3: _get_dumpable, 4: _set_dumpable, 7: _get_keepcaps, 8: _set_keepcaps,
    13: _get_timing, 14: _set_timing, 15: _set_name, 16: _get_name, 23: _capbset_read, 24: _capbset_drop,
    27: _get_securebits, 28: _set_securebits, 29: _set_timerslack, 30: _get_timerslack,
    31: _perf_events_disable, 32: _perf_events_enable, 33: _mce_kill, 34: _mce_kill_get,
    35: _set_mm, 36: _set_subreaper, 37: _get_subreaper, 38: _set_no_new_privs,
    39: _get_no_new_privs, 40: _get_tid_address, 41: _set_thp_disable, 42: _get_thp_disable, 47: _cap_ambient,
    57: _io_flusher, 58: _get_io_flusher,
}  # fmt: skip


def sys_prctl(task: Task, option: int, arg2: int, arg3: int, arg4: int, arg5: int) -> int:
    """prctl."""
    option = s32(option)
    handler = _OPTIONS.get(option)
    if handler is not None:
        return handler(task, arg2, arg3, arg4, arg5)
    if option in (52, 53) and (arg4 or arg5 or (option == 52 and arg3)):  # speculation control: unused arguments
        raise Errno(errno.EINVAL)
    return task.kernel.arch.prctl(task, option, arg2)


CALLS = (Call("prctl", sys_prctl, PARTIAL, "no speculation control"),)
