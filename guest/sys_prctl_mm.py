"""prctl(PR_SET_MM): where the parts of a program are said to be, for /proc and brk (kernel/sys.c)."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.cred import CAP_SYS_RESOURCE
from guest.own_mm import own_mm
from guest.vfs_flags import MAY_EXEC
from mm.errors import Errno
from mm.flags import RLIM_INFINITY, RLIMIT_DATA
from mm.uaccess import copy_from_user, put_user

if TYPE_CHECKING:
    from guest.task import Task
    from mm.types import MmStruct

CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE = 21, 40
PR_SET_MM_AUXV, PR_SET_MM_EXE_FILE, PR_SET_MM_MAP, PR_SET_MM_MAP_SIZE = 12, 13, 14, 15
#: In the order of struct prctl_mm_map.
FIELDS = (
    *("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"),
    *("arg_start", "arg_end", "env_start", "env_end"),
)
#: PR_SET_MM_START_CODE and so on, from 1.
BY_OPTION = (
    *("start_code", "end_code", "start_data", "end_data", "start_stack", "start_brk", "brk"),
    *("arg_start", "arg_end", "env_start", "env_end"),
)
MUST_BE_MAPPED = ("start_stack", "arg_start", "arg_end", "env_start", "env_end")
_MM_MAP = Struct("<12QII")  # the fields, auxv, auxv_size, exe_fd
_NO_FD = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def prctl_set_mm(task: Task, option: int, addr: int, arg4: int, arg5: int) -> int:
    """PR_SET_MM. Raises EINVAL, EPERM, EFAULT, EBADF, EACCES, EBUSY."""
    option &= 0xFFFFFFFF
    if arg5 or (arg4 and option not in (PR_SET_MM_AUXV, PR_SET_MM_MAP, PR_SET_MM_MAP_SIZE)):
        raise Errno(errno.EINVAL)
    if option == PR_SET_MM_MAP_SIZE:
        put_user(task, addr, _MM_MAP.size, 4)
        return 0
    mm = own_mm(task)
    if option == PR_SET_MM_MAP:
        set_map(task, mm, addr, arg4)
        return 0
    if not task.capable(CAP_SYS_RESOURCE):
        raise Errno(errno.EPERM)
    if option == PR_SET_MM_EXE_FILE:
        set_exe_file(task, mm, addr & 0xFFFFFFFF)
    elif option == PR_SET_MM_AUXV:
        words = read_auxv(task, mm, addr, arg4)
        mm.saved_auxv[: len(words)] = words
    else:
        set_field(task, mm, option, addr)
    return 0


def set_field(task: Task, mm: MmStruct, option: int, addr: int) -> None:
    """One address, checked together with those that stay."""
    if addr >= mm.arch.task_size or addr < task.system.mmap_min_addr:
        raise Errno(errno.EINVAL)
    vma = mm.ops.find_vma(mm, addr)
    if not 1 <= option <= len(BY_OPTION):
        raise Errno(errno.EINVAL)
    name = BY_OPTION[option - 1]
    values = {field: getattr(mm, field) for field in FIELDS}
    values[name] = addr
    validate(task, values)
    if name in MUST_BE_MAPPED and vma is None:
        raise Errno(errno.EFAULT)
    setattr(mm, name, addr)


def set_map(task: Task, mm: MmStruct, addr: int, size: int) -> None:
    """All addresses at once, needing no capability (prctl_set_mm_map())."""
    if size != _MM_MAP.size:
        raise Errno(errno.EINVAL)
    *addresses, auxv, auxv_size, exe_fd = _MM_MAP.unpack(copy_from_user(task, addr, size))
    values = dict(zip(FIELDS, addresses, strict=True))
    validate(task, values)
    words: list[int] = []
    if auxv_size:
        if not auxv:
            raise Errno(errno.EINVAL)
        words = read_auxv(task, mm, auxv, auxv_size)
        words += [0] * (len(mm.saved_auxv) - len(words))
    if exe_fd != _NO_FD:
        if not task.capable(CAP_CHECKPOINT_RESTORE) and not task.capable(CAP_SYS_ADMIN):
            raise Errno(errno.EPERM)
        set_exe_file(task, mm, exe_fd)
    for field, value in values.items():
        setattr(mm, field, value)
    if words:
        mm.saved_auxv = words


def validate(task: Task, values: dict[str, int]) -> None:
    """validate_prctl_map_addr(): inside user space, in order, and within RLIMIT_DATA. Raises EINVAL."""
    system = task.system
    ordered = (
        values["start_code"] < values["end_code"]
        and values["start_data"] <= values["end_data"]
        and values["start_brk"] <= values["brk"]
        and values["arg_start"] <= values["arg_end"]
        and values["env_start"] <= values["env_end"]
    )
    if not ordered or not all(system.mmap_min_addr <= value < system.arch.task_size for value in values.values()):
        raise Errno(errno.EINVAL)
    limit = task.rlim[RLIMIT_DATA][0]
    data = values["brk"] - values["start_brk"] + values["end_data"] - values["start_data"]
    if limit != RLIM_INFINITY and data & _MASK64 > limit:
        raise Errno(errno.EINVAL)


def read_auxv(task: Task, mm: MmStruct, addr: int, size: int) -> list[int]:
    """The new auxiliary vector's words; the last pair of a full one is AT_NULL. Raises EINVAL, EFAULT."""
    whole = 8 * len(mm.saved_auxv)
    if size > whole:
        raise Errno(errno.EINVAL)
    raw = copy_from_user(task, addr, size)
    part = size % 8  # a word half given keeps its upper bytes
    if part:
        old = mm.saved_auxv[size // 8].to_bytes(8, "little")
        raw += old[part:]
    raw = raw[: whole - 16] + bytes(max(0, len(raw) - (whole - 16)))
    return list(memoryview(raw).cast("Q"))


def set_exe_file(task: Task, mm: MmStruct, fd: int) -> None:
    """prctl_set_mm_exe_file(): /proc/PID/exe, once the old program is unmapped. Raises EBADF, EACCES, EBUSY."""
    from guest.file import fput, get_file
    from guest.namei import inode_permission

    file = task.files.get(fd)
    if not file.f_inode.is_reg() or file.f_inode.i_sb.s_type == "proc":  # path_noexec()
        raise Errno(errno.EACCES)
    inode_permission(task, file.f_inode, MAY_EXEC)
    old = mm.exe_file
    if old is not None:
        vma = mm.mmap
        while vma is not None:
            mapped = vma.vm_file
            if mapped is not None and getattr(mapped, "f_path", None) == old.f_path:  # type: ignore[attr-defined]
                raise Errno(errno.EBUSY)
            vma = vma.vm_next
    mm.exe_file = get_file(file)
    if old is not None:
        fput(old)  # type: ignore[arg-type]
