"""strace's table of mounting: mount and umount2, and the calls that do it in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.strace_values import (
    Params,
    Syscall,
    buffer_text,
    choice,
    flag_text,
    flags,
    show_dirfd,
    show_fd,
    show_path,
    show_pointer,
    show_string,
    signed,
)

if TYPE_CHECKING:
    from emu.strace_values import Show

_MS_NAMES = "RDONLY NOSUID NODEV NOEXEC SYNCHRONOUS REMOUNT MANDLOCK DIRSYNC NOSYMFOLLOW - NOATIME NODIRATIME BIND MOVE"
MS = {
    **{1 << bit: f"MS_{name}" for bit, name in enumerate(_MS_NAMES.split()) if name != "-"},
    1 << 14: "MS_REC", 1 << 15: "MS_SILENT", 1 << 16: "MS_POSIXACL", 1 << 17: "MS_UNBINDABLE", 1 << 18: "MS_PRIVATE",
    1 << 19: "MS_SLAVE", 1 << 20: "MS_SHARED", 1 << 21: "MS_RELATIME", 1 << 22: "MS_KERNMOUNT",
    1 << 23: "MS_I_VERSION", 1 << 24: "MS_STRICTATIME", 1 << 25: "MS_LAZYTIME",
}  # fmt: skip
_MS_REMOUNT, _MS_BIND_MOVE, _MS_PROPAGATION = 32, 4096 | 8192, 0xF << 17
_MS_MGC_VAL, _MS_MGC_MSK = 0xC0ED0000, 0xFFFF0000
UMOUNT = {1: "MNT_FORCE", 2: "MNT_DETACH", 4: "MNT_EXPIRE", 8: "UMOUNT_NOFOLLOW"}
FSOPEN = {1: "FSOPEN_CLOEXEC"}
FSPICK = {1: "FSPICK_CLOEXEC", 2: "FSPICK_SYMLINK_NOFOLLOW", 4: "FSPICK_NO_AUTOMOUNT", 8: "FSPICK_EMPTY_PATH"}
_CONFIG = "SET_FLAG SET_STRING SET_BINARY SET_PATH SET_PATH_EMPTY SET_FD CMD_CREATE CMD_RECONFIGURE"
FSCONFIG = {number: f"FSCONFIG_{name}" for number, name in enumerate(_CONFIG.split())}
FSMOUNT = {1: "FSMOUNT_CLOEXEC"}
MOUNT_ATTR = {
    1: "MOUNT_ATTR_RDONLY", 2: "MOUNT_ATTR_NOSUID", 4: "MOUNT_ATTR_NODEV", 8: "MOUNT_ATTR_NOEXEC",
    0x10: "MOUNT_ATTR_NOATIME", 0x20: "MOUNT_ATTR_STRICTATIME", 0x80: "MOUNT_ATTR_NODIRATIME",
}  # fmt: skip
OPEN_TREE = {
    1: "OPEN_TREE_CLONE", 0x80000: "OPEN_TREE_CLOEXEC", 0x100: "AT_SYMLINK_NOFOLLOW", 0x800: "AT_NO_AUTOMOUNT",
    0x1000: "AT_EMPTY_PATH", 0x8000: "AT_RECURSIVE",
}  # fmt: skip
_MOVE_NAMES = "F_SYMLINKS F_AUTOMOUNTS F_EMPTY_PATH - T_SYMLINKS T_AUTOMOUNTS T_EMPTY_PATH - SET_GROUP"
MOVE_MOUNT = {1 << bit: f"MOVE_MOUNT_{name}" for bit, name in enumerate(_MOVE_NAMES.split()) if name != "-"}


def mount_flags(call: Syscall, value: int) -> str:
    """MS_*, with the magic number of old."""
    if value & _MS_MGC_MSK != _MS_MGC_VAL:
        return flag_text(value, MS, "MS_???")
    rest = value & ~_MS_MGC_MSK
    return "MS_MGC_VAL" + (f"|{flag_text(rest, MS, 'MS_???')}" if rest else "")


def unless(bits: int, show: Show) -> Show:
    """An argument of mount(2) that means nothing with some flags, and is an address then."""

    def text(call: Syscall, value: int) -> str | None:
        given = call.args[3]
        ignored = given & _MS_MGC_MSK != _MS_MGC_VAL and given & bits
        return show_pointer(call, value) if ignored else show(call, value)

    return text


def config_value(call: Syscall, value: int) -> str:
    """What a key is set to, by the command."""
    command = call.args[1] & 0xFFFFFFFF
    if command == 1:
        return show_string(call, value)
    if command in (3, 4):
        return show_path(call, value)
    if command == 2:
        return buffer_text(call, value, call.args[4] & 0xFFFFFFFF, True)
    return show_pointer(call, value)


def config_key(call: Syscall, value: int) -> str:
    """The key: a command and what is none have an address."""
    return show_string(call, value) if call.args[1] & 0xFFFFFFFF <= 5 else show_pointer(call, value)


def config_aux(call: Syscall, value: int) -> str:
    """A folder, a length or a descriptor."""
    return show_dirfd(call, value) if call.args[1] & 0xFFFFFFFF in (3, 4) else str(signed(value))


MOUNT_CALLS: dict[str, Params] = {
    "mount": (
        show_string, show_path,
        unless(_MS_REMOUNT | _MS_BIND_MOVE | _MS_PROPAGATION, show_string), mount_flags,
        unless(_MS_BIND_MOVE | _MS_PROPAGATION, show_string),
    ),
    "umount2": (show_path, flags(UMOUNT, "MNT_???")),
    "pivot_root": (show_path, show_path),
    "fsopen": (show_string, flags(FSOPEN, "FSOPEN_???")),
    "fspick": (show_dirfd, show_path, flags(FSPICK, "FSPICK_???")),
    "fsconfig": (show_fd, choice(FSCONFIG, "FSCONFIG_???"), config_key, config_value, config_aux),
    "fsmount": (show_fd, flags(FSMOUNT, "FSMOUNT_???"), flags(MOUNT_ATTR, "MOUNT_ATTR_???")),
    "open_tree": (show_dirfd, show_path, flags(OPEN_TREE, "OPEN_TREE_???")),
    "move_mount": (show_dirfd, show_path, show_dirfd, show_path, flags(MOVE_MOUNT, "MOVE_MOUNT_???")),
}  # fmt: skip
