"""Arrays of struct iovec (lib/iov_iter.c): lists of (address, length) that a program hands over."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user

if TYPE_CHECKING:
    from guest.task import Task

UIO_MAXIOV = 1024


def iovec_from_user(task: Task, vec: int, count: int) -> list[tuple[int, int]]:
    """The array at `vec`. Raises Errno EINVAL for more than UIO_MAXIOV entries or a negative length, EFAULT."""
    if count == 0:
        return []
    if count > UIO_MAXIOV:
        raise Errno(errno.EINVAL)
    words = memoryview(copy_from_user(task, vec, 16 * count)).cast("Q").tolist()
    areas = list(zip(words[0::2], words[1::2], strict=True))
    if any(length >> 63 for _, length in areas):
        raise Errno(errno.EINVAL)
    return areas


def import_iovec(task: Task, vec: int, count: int) -> list[tuple[int, int]]:
    """The array at `vec` as areas of the caller's own memory, cut off at MAX_RW_COUNT bytes in all.

    Raises:
        Errno: EINVAL, EFAULT (an area that is not user memory included).
    """
    areas = []
    left = 0x7FFFFFFF & task.system.arch.page_mask  # MAX_RW_COUNT
    for base, length in iovec_from_user(task, vec, count):
        if not access_ok(task, base, length):
            raise Errno(errno.EFAULT)
        length = min(length, left)
        left -= length
        areas.append((base, length))
    return areas
