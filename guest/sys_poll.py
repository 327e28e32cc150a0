"""poll and select in their forms (fs/select.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.sched import ERESTARTNOHAND, HostWait, sleep_on
from guest.signal import restore_saved_sigmask_unless, set_user_sigmask
from guest.syscalls import FULL, Call
from guest.vfs_flags import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    s32,
    s64,
)
from mm.errors import Errno
from mm.flags import RLIMIT_NOFILE
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task

_NANO = 10**9
_EVER = (1 << 63) - 1
_POLLIN_SET = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR
_POLLOUT_SET = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR
_POLLEX_SET = POLLPRI


def open_file(task: Task, fd: int) -> OpenFile | None:
    """The file behind a descriptor; None when it is closed or only a place."""
    try:
        file: OpenFile = task.files.get(fd)
    except Errno:
        return None
    return file


def deadline_of(task: Task, nanoseconds: int | None) -> int | None:
    """The absolute end of a wait, kept over restarts of the call. None waits for ever."""
    if nanoseconds is None:
        return None
    if "deadline" not in task.wait_state:
        task.wait_state["deadline"] = min(task.kernel.clock.now + nanoseconds, _EVER)
    deadline: int = task.wait_state["deadline"]
    return deadline


def wait(task: Task, files: list[tuple[OpenFile, int]], deadline: int | None) -> None:
    """Sleep until one of the files may have changed in the POLL* bits wanted of it, unless the deadline has passed."""
    if deadline is not None and task.kernel.clock.now >= deadline:
        return
    queues: list[Any] = []
    for file, wanted in files:
        for queue in file.poll_queues(task):
            if isinstance(queue, HostWait):
                queues.append(queue.narrowed(wanted))
            elif queue not in queues:
                queues.append(queue)
    sleep_on(task, *queues, deadline=deadline, restart=ERESTARTNOHAND)


# poll


def do_poll(task: Task, ufds: int, count: int, nanoseconds: int | None) -> int:
    """do_sys_poll(): how many entries have something to say."""
    if count > task.rlim[RLIMIT_NOFILE][0]:
        raise Errno(errno.EINVAL)
    table = bytearray(copy_from_user(task, ufds, 8 * count)) if count else bytearray()
    ready, files = 0, []
    for at in range(0, len(table), 8):
        fd = int.from_bytes(table[at : at + 4], "little", signed=True)
        mask = 0
        if fd >= 0:
            wanted = int.from_bytes(table[at + 4 : at + 6], "little") | POLLERR | POLLHUP
            file = open_file(task, fd)
            if file is None:
                mask = POLLNVAL
            else:
                files.append((file, wanted))
                mask = file.poll(task) & wanted
        table[at + 6 : at + 8] = mask.to_bytes(2, "little")
        ready += mask != 0
    if not ready and nanoseconds != 0:
        wait(task, files, deadline_of(task, nanoseconds))
    for at in range(6, len(table), 8):
        copy_to_user(task, ufds + at, table[at : at + 2])
    return ready


def sys_poll(task: Task, ufds: int, count: int, timeout: int) -> int:
    """poll(2)."""
    milliseconds = s32(timeout)
    return do_poll(task, ufds, count & 0xFFFFFFFF, None if milliseconds < 0 else milliseconds * 1_000_000)


def timespec(task: Task, address: int, unit: int = 1) -> int | None:
    """Nanoseconds of a struct timespec, or timeval with unit 1000; None for a null pointer. Raises EINVAL."""
    if not address:
        return None
    seconds, part = (s64(word) for word in memoryview(copy_from_user(task, address, 16)).cast("Q"))
    if unit == 1 and (seconds < 0 or not 0 <= part < _NANO):
        raise Errno(errno.EINVAL)
    total = seconds * _NANO + part * unit
    if total < 0:
        raise Errno(errno.EINVAL)
    return total


def put_left(task: Task, address: int, unit: int) -> None:
    """poll_select_finish(): write back the time left; a buffer that cannot be written is not an error."""
    deadline = task.wait_state.get("deadline")
    if not address or task.personality & 0x4000000:  # STICKY_TIMEOUTS
        return
    if deadline is None:
        return
    left = max(deadline - task.kernel.clock.now, 0)
    try:
        copy_to_user(task, address, b"".join(w.to_bytes(8, "little") for w in (left // _NANO, left % _NANO // unit)))
    except Errno:
        return


def sigmask(task: Task, address: int, size: int) -> None:
    """The mask to wait with. Raises EINVAL, EFAULT."""
    if not address:
        return
    if size != 8:
        raise Errno(errno.EINVAL)
    set_user_sigmask(task, int.from_bytes(copy_from_user(task, address, 8), "little"))


def finish(task: Task, address: int, unit: int) -> None:
    """The call returns: the signal mask goes back, the time left is written."""
    restore_saved_sigmask_unless(task, False)
    put_left(task, address, unit)


def sys_ppoll(task: Task, ufds: int, count: int, timeout: int, mask: int, size: int) -> int:
    """ppoll(2)."""
    nanoseconds = timespec(task, timeout)
    sigmask(task, mask, size)
    if nanoseconds is not None:
        deadline_of(task, nanoseconds)
    try:
        ready = do_poll(task, ufds, count & 0xFFFFFFFF, nanoseconds)
    except Errno:
        finish(task, timeout, 1)
        raise
    finish(task, timeout, 1)
    return ready


# select


def do_select(task: Task, n: int, sets: tuple[int, int, int], nanoseconds: int | None) -> int:
    """core_sys_select(): bits set in the result. Raises EINVAL, EBADF."""
    n = s32(n)
    if n < 0:
        raise Errno(errno.EINVAL)
    n = min(n, task.files.max_fds)
    size = -(-n // 64) * 8
    asked = [int.from_bytes(copy_from_user(task, a, size), "little") if a and size else 0 for a in sets]
    asked = [bits & ((1 << n) - 1) for bits in asked]
    union, found, files = asked[0] | asked[1] | asked[2], [0, 0, 0], []
    for fd in range(n):
        bit = 1 << fd
        if not union & bit:
            continue
        file = open_file(task, fd)
        if file is None:
            raise Errno(errno.EBADF)
        mask, wanted = file.poll(task), 0
        for index, interesting in enumerate((_POLLIN_SET, _POLLOUT_SET, _POLLEX_SET)):
            if asked[index] & bit:
                wanted |= interesting
                if mask & interesting:
                    found[index] |= bit
        files.append((file, wanted))
    ready = sum(bits.bit_count() for bits in found)
    if not ready and nanoseconds != 0:
        wait(task, files, deadline_of(task, nanoseconds))
    for address, bits in zip(sets, found, strict=True):
        if address and size:
            copy_to_user(task, address, bits.to_bytes(size, "little"))
    return ready


def sys_select(task: Task, n: int, inp: int, outp: int, exp: int, tvp: int) -> int:
    """select(2)."""
    nanoseconds = timespec(task, tvp, 1000)
    if nanoseconds is not None:
        deadline_of(task, nanoseconds)
    ready = do_select(task, n, (inp, outp, exp), nanoseconds)
    put_left(task, tvp, 1000)
    return ready


def sys_pselect6(task: Task, n: int, inp: int, outp: int, exp: int, tsp: int, sig: int) -> int:
    """pselect6(2): the last argument points at (mask, size)."""
    nanoseconds = timespec(task, tsp)
    if sig:
        mask, size = memoryview(copy_from_user(task, sig, 16)).cast("Q")
        sigmask(task, mask, size)
    if nanoseconds is not None:
        deadline_of(task, nanoseconds)
    try:
        ready = do_select(task, n, (inp, outp, exp), nanoseconds)
    except Errno:
        finish(task, tsp, 1)
        raise
    finish(task, tsp, 1)
    return ready


CALLS = (
    Call("poll", sys_poll, FULL, ""),
    Call("ppoll", sys_ppoll, FULL, ""),
    Call("select", sys_select, FULL, ""),
    Call("pselect6", sys_pselect6, FULL, ""),
)
