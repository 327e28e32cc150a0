"""Calls of whoever runs the machine: the log, reboot, swap, modules, the root. Mostly what they check and refuse.

The kernel here says nothing, so its log is empty and a reader waits; there is no swap and no module that could be
loaded; the machine is not to be stopped from within. (printk/printk.c, reboot.c, mm/swapfile.c, module.c, namespace.c)
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.file import fput
from guest.namei import path_openat
from guest.sched import WaitQueue, sleep_on
from guest.sys_file import getname, readable
from guest.syscalls import FULL, PARTIAL, Call
from guest.vfs_flags import AT_FDCWD, O_LARGEFILE, O_RDWR, s32
from guest.vfs_types import new_decode_dev
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, copy_to_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import SuperBlock

CAP_SYS_MODULE, CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYSLOG = 16, 21, 22, 34
ACTION_READ, ACTION_READ_ALL, ACTION_READ_CLEAR, ACTION_CLEAR, ACTION_OFF, ACTION_ON = 2, 3, 4, 5, 6, 7
ACTION_LEVEL, ACTION_SIZE_UNREAD, ACTION_SIZE_BUFFER = 8, 9, 10
LOG_BUF_LEN = 131072  # CONFIG_LOG_BUF_SHIFT of the oracle
LINUX_REBOOT_MAGIC1 = 0xFEE1DEAD
LINUX_REBOOT_MAGIC2 = (672274793, 85072278, 369367448, 537993216)
CMD_CAD_OFF, CMD_CAD_ON, CMD_RESTART2 = 0, 0x89ABCDEF, 0xA1B2C3D4
_STOPS = (0x01234567, 0xCDEF0123, 0x4321FEDC)  # RESTART, HALT, POWER_OFF
SWAP_FLAGS_VALID = 0x7FFFF
_ELF_HEADER = 64  # bytes
_MODULE_NAME_LEN = 56
_USTAT = Struct("<i4xQ16x")


def demand(task: Task, cap: int) -> None:
    """Raises EPERM without the capability."""
    if not task.capable(cap):
        raise Errno(errno.EPERM)


# -- the log ---------------------------------------------------------------------------------------------------------


def sys_syslog(task: Task, kind: int, buf: int, length: int) -> int:
    """do_syslog(). Raises EPERM, EINVAL, EFAULT."""
    kind, length = s32(kind), s32(length)
    sysctls = task.kernel.sysctls
    restricted = sysctls.get("dmesg_restrict", 0) or kind not in (ACTION_READ_ALL, ACTION_SIZE_BUFFER)
    if restricted and not task.capable(CAP_SYSLOG):
        demand(task, CAP_SYS_ADMIN)
    if kind in (ACTION_READ, ACTION_READ_ALL, ACTION_READ_CLEAR):
        if not buf or length < 0:
            raise Errno(errno.EINVAL)
        if length and not access_ok(task, buf, length):
            raise Errno(errno.EFAULT)
        if length and kind == ACTION_READ:
            sleep_on(task, WaitQueue("the kernel's log"))
        return 0
    if kind in (ACTION_OFF, ACTION_ON, ACTION_LEVEL):
        _console(task, kind, length)
    elif kind == ACTION_SIZE_BUFFER:
        return LOG_BUF_LEN
    elif kind not in (0, 1, ACTION_CLEAR, ACTION_SIZE_UNREAD):
        raise Errno(errno.EINVAL)
    return 0


def _console(task: Task, kind: int, level: int) -> None:
    """The level of what goes to the console: kernel.printk's first number. Raises EINVAL."""
    sysctls = task.kernel.sysctls
    levels = list(sysctls.get("printk", (4, 4, 1, 7)))
    if kind == ACTION_LEVEL:
        if not 1 <= level <= 8:
            raise Errno(errno.EINVAL)
        levels[0] = max(level, levels[2])
        sysctls.pop("saved_console_loglevel", None)
    elif kind == ACTION_OFF:
        sysctls.setdefault("saved_console_loglevel", levels[0])
        levels[0] = levels[2]
    else:
        levels[0] = sysctls.pop("saved_console_loglevel", levels[0])
    sysctls["printk"] = levels


# -- reboot, swap, modules -------------------------------------------------------------------------------------------


def sys_reboot(task: Task, magic1: int, magic2: int, cmd: int, arg: int) -> int:
    """reboot(2): Ctrl-Alt-Del on and off. Raises EPERM, EINVAL, EFAULT; EPERM for what would stop the machine."""
    demand(task, CAP_SYS_BOOT)
    cmd &= 0xFFFFFFFF
    if magic1 & 0xFFFFFFFF != LINUX_REBOOT_MAGIC1 or magic2 & 0xFFFFFFFF not in LINUX_REBOOT_MAGIC2:
        raise Errno(errno.EINVAL)
    if task.pid_ns is not None:
        from guest.pid_namespace import reboot_pid_ns

        reboot_pid_ns(task, cmd)
    if cmd in (CMD_CAD_ON, CMD_CAD_OFF):
        task.kernel.sysctls["ctrl-alt-del"] = int(cmd == CMD_CAD_ON)
        return 0
    if cmd == CMD_RESTART2:
        strncpy_from_user(task, arg, 255)
    elif cmd not in _STOPS:
        raise Errno(errno.EINVAL)
    raise Errno(errno.EPERM)


def _open_for_swap(task: Task, special: int) -> None:
    """file_open_name(O_RDWR) of what is to be swapped on or off. Raises what open() does."""
    fput(path_openat(task, AT_FDCWD, getname(task, special), O_RDWR | O_LARGEFILE, 0))


def sys_swapon(task: Task, special: int, flags: int) -> int:
    """swapon(2). Raises EINVAL, EPERM, those of open(), and EINVAL for every file: none can hold swap."""
    if flags & 0xFFFFFFFF & ~SWAP_FLAGS_VALID:
        raise Errno(errno.EINVAL)
    demand(task, CAP_SYS_ADMIN)
    _open_for_swap(task, special)
    raise Errno(errno.EINVAL)


def sys_swapoff(task: Task, special: int) -> int:
    """swapoff(2). Raises EPERM, those of open(), and EINVAL: nothing is in use."""
    demand(task, CAP_SYS_ADMIN)
    _open_for_swap(task, special)
    raise Errno(errno.EINVAL)


def sys_init_module(task: Task, image: int, length: int, args: int) -> int:
    """init_module(2). Raises EPERM, EFAULT, and ENOEXEC: no image is a module of this kernel."""
    demand(task, CAP_SYS_MODULE)
    if length >= _ELF_HEADER:
        copy_from_user(task, image, _ELF_HEADER)
    raise Errno(errno.ENOEXEC)


def sys_finit_module(task: Task, fd: int, args: int, flags: int) -> int:
    """finit_module(2). Raises EPERM, EINVAL, EBADF, and ENOEXEC: no file is a module of this kernel."""
    demand(task, CAP_SYS_MODULE)
    if flags & 0xFFFFFFFF & ~3:
        raise Errno(errno.EINVAL)
    readable(task, fd)
    raise Errno(errno.ENOEXEC)


def sys_delete_module(task: Task, name: int, flags: int) -> int:
    """delete_module(2). Raises EPERM, EFAULT, and ENOENT: none is loaded."""
    demand(task, CAP_SYS_MODULE)
    strncpy_from_user(task, name, _MODULE_NAME_LEN - 1)
    raise Errno(errno.ENOENT)


def sys_ustat(task: Task, dev: int, buf: int) -> int:
    """ustat(2): free blocks and inodes of a file system. Raises EINVAL for no such device, EFAULT."""
    vfs = task.kernel.vfs
    mounted: list[SuperBlock] = [mount.mnt_sb for mount in (*vfs.mounts, *vfs.internal.values())]
    wanted = new_decode_dev(dev & 0xFFFFFFFF)
    sb = next((sb for sb in (*mounted, vfs.shmfs, vfs.pipefs, vfs.sockfs, vfs.anonfs) if sb.s_dev == wanted), None)
    if sb is None:
        raise Errno(errno.EINVAL)
    _, _, free, _, _, inodes = sb.statfs()
    copy_to_user(task, buf, _USTAT.pack(s32(free), inodes))
    return 0


CALLS = (
    Call("syslog", sys_syslog, FULL, "the log is empty"),
    Call(
        "reboot", sys_reboot, PARTIAL, "Ctrl-Alt-Del, in namespaces of processes; EPERM for what would stop the machine"
    ),
    Call("swapon", sys_swapon, PARTIAL, "no file can hold swap (EINVAL)"),
    Call("swapoff", sys_swapoff, FULL),
    Call("init_module", sys_init_module, PARTIAL, "no image is a module of this kernel (ENOEXEC)"),
    Call("finit_module", sys_finit_module, PARTIAL, "no file is a module of this kernel (ENOEXEC)"),
    Call("delete_module", sys_delete_module, FULL),
    Call("ustat", sys_ustat, FULL, "", "x86_64"),
)
