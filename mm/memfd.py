"""Seals of files in memory (mm/memfd.c): what F_ADD_SEALS forbids for good, for shmem and hugetlbfs alike."""

from __future__ import annotations

import errno
from typing import Any

from mm.errors import Errno
from mm.shmem import F_ALL_SEALS, F_SEAL_SEAL, F_SEAL_WRITE


def memfd_add_seals(file: Any, seals: int) -> None:
    """fcntl(F_ADD_SEALS). Raises Errno EPERM (read-only file, or sealed), EINVAL, EBUSY (writable mappings)."""
    if not file.f_mode & 2:
        raise Errno(errno.EPERM)
    if seals & ~F_ALL_SEALS:
        raise Errno(errno.EINVAL)
    info = file.f_mapping.private
    if not hasattr(info, "seals"):  # memfd_file_seals_ptr(): a file of shmem or hugetlbfs
        raise Errno(errno.EINVAL)
    if info.seals & F_SEAL_SEAL:
        raise Errno(errno.EPERM)
    if seals & F_SEAL_WRITE and not info.seals & F_SEAL_WRITE:
        if file.f_mapping.i_mmap_writable > 0:  # mapping_deny_writable()
            raise Errno(errno.EBUSY)
        file.f_mapping.i_mmap_writable -= 1
    info.seals |= seals


def memfd_get_seals(file: Any) -> int:
    """fcntl(F_GET_SEALS). Raises Errno(EINVAL) for files without seals."""
    info = file.f_mapping.private
    if not hasattr(info, "seals"):
        raise Errno(errno.EINVAL)
    seals: int = info.seals
    return seals
