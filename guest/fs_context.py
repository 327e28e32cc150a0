"""What is collected before a file system is mounted or changed (fs/fs_context.c, fs_parser.c).

    fsopen("tmpfs") --> FsContext --fsconfig("size", "4m")--> parse_param() --CREATE--> get_tree() --> its super block

mount(2) goes the same way with its comma-separated options. What the kinds of file system know is in fs_types.py.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno

if TYPE_CHECKING:
    from guest.fs_types import FsType
    from guest.task import Task
    from guest.vfs_types import Dentry, SuperBlock

SB_RDONLY, SB_SYNCHRONOUS, SB_MANDLOCK, SB_DIRSYNC, SB_LAZYTIME = 1, 0x10, 0x40, 0x80, 1 << 25
SB_I_VERSION = 1 << 23
MS_RMT_MASK = SB_RDONLY | SB_SYNCHRONOUS | SB_MANDLOCK | SB_I_VERSION | SB_LAZYTIME
_SET_FLAGS = {
    "dirsync": SB_DIRSYNC, "lazytime": SB_LAZYTIME, "mand": SB_MANDLOCK, "ro": SB_RDONLY, "sync": SB_SYNCHRONOUS
}  # fmt: skip
_CLEAR_FLAGS = {"async": SB_SYNCHRONOUS, "nolazytime": SB_LAZYTIME, "nomand": SB_MANDLOCK, "rw": SB_RDONLY}
_SHOWN = ((SB_SYNCHRONOUS, ",sync"), (SB_DIRSYNC, ",dirsync"), (SB_MANDLOCK, ",mand"), (SB_LAZYTIME, ",lazytime"))
_LOG_SIZE = 8  # messages
(
    CREATE_PARAMS, CREATING, AWAITING_MOUNT, AWAITING_RECONF, RECONF_PARAMS, RECONFIGURING, FAILED,
) = range(7)  # fmt: skip
FLAG, STRING, BLOB, FILENAME, FILE = range(5)  # kinds of a parameter's value


class Param:
    """A parameter as it was given (struct fs_parameter)."""

    __slots__ = ("key", "kind", "string")

    def __init__(self, key: str, kind: int, string: str = "") -> None:
        self.key = key
        self.kind = kind
        self.string = string


class FsContext:
    """A file system in the making, or one whose settings are to change (struct fs_context)."""

    def __init__(self, fs_type: FsType, task: Task, sb_flags: int = 0, mask: int = 0) -> None:
        self.fs_type = fs_type
        self.phase = CREATE_PARAMS
        self.sb_flags = sb_flags
        self.sb_flags_mask = mask
        self.source: str | None = None
        self.sb: SuperBlock | None = None
        self.root: Dentry | None = None
        self.log: list[str] | None = None  # messages nobody has read; None: they go to the kernel's log
        self.options: dict[str, Any] = {}  # what the file system has understood
        self.legacy_data: list[str] = []
        fs_type.init(self, task)

    # messages

    def message(self, text: str, prefix: bool = False) -> None:
        """logfc(): an error for who reads the descriptor; of nine the oldest is lost."""
        if self.log is not None:
            self.log.append(f"e {self.fs_type.name + ': ' if prefix else ''}{text}\n")
            del self.log[:-_LOG_SIZE]

    def invalid(self, text: str, prefix: bool = False) -> Errno:
        """invalf(), with the file system's name before it invalfc()."""
        self.message(text, prefix)
        return Errno(errno.EINVAL)

    # parameters

    def parse_param(self, task: Task, param: Param) -> None:
        """vfs_parse_fs_param(). Raises EINVAL and what the file system refuses."""
        if not self._sb_flag(param.key) and not self.fs_type.parse_param(self, task, param):
            if param.key != "source":
                raise self.invalid(f"{self.fs_type.name}: Unknown parameter '{param.key}'")
            self.set_source(param, "")

    def _sb_flag(self, key: str) -> bool:
        bit = _SET_FLAGS.get(key, 0)
        self.sb_flags |= bit
        if not bit:
            bit = _CLEAR_FLAGS.get(key, 0)
            self.sb_flags &= ~bit
        self.sb_flags_mask |= bit
        return bool(bit)

    def set_source(self, param: Param, who: str) -> None:
        """The device, or what stands for one."""
        if param.kind != STRING:
            raise self.invalid(f"VFS: {who}Non-string source")
        if self.source is not None:
            raise self.invalid(f"VFS: {who}Multiple sources")
        self.source = param.string

    def parse_monolithic(self, task: Task, data: str) -> None:
        """The options of mount(2), separated by commas (generic_parse_monolithic())."""
        for option in self.fs_type.split(data):
            key, equals, value = option.partition("=")
            if key or not equals:
                self.parse_param(task, Param(key, STRING if equals else FLAG, value))

    # what it is for

    def get_tree(self, task: Task) -> None:
        """vfs_get_tree(): make the file system, or find the one there is. Raises EBUSY and what it refuses."""
        if self.root is not None:
            raise Errno(errno.EBUSY)
        sb = self.sb = self.fs_type.get_tree(self, task)
        self.root = sb.root
        if not sb.s_born:
            sb.s_born = True
            self._set_bits(sb, self.sb_flags)

    def reconfigure_super(self, task: Task) -> None:
        """Raises EINVAL, EBUSY while files are open for writing, and what the file system refuses."""
        sb = self.sb
        if sb is None or self.sb_flags_mask & ~MS_RMT_MASK:
            raise Errno(errno.EINVAL)
        if self.sb_flags_mask & self.sb_flags & SB_RDONLY and not sb.s_readonly:
            from guest.namespace import has_writers

            if has_writers(task, lambda mnt: mnt.mnt_sb is sb):
                raise Errno(errno.EBUSY)
        self.fs_type.reconfigure(self, task)
        self._set_bits(sb, sb.s_bits & ~self.sb_flags_mask | self.sb_flags & self.sb_flags_mask)

    @staticmethod
    def _set_bits(sb: SuperBlock, bits: int) -> None:
        sb.s_bits = bits
        sb.s_readonly = bool(bits & SB_RDONLY)
        sb.s_flag_names = "".join(name for bit, name in _SHOWN if bits & bit)

    def clean(self) -> None:
        """vfs_clean_context(): what was collected has been used."""
        self.options, self.legacy_data, self.source = {}, [], None
        self.sb_flags &= SB_RDONLY
        self.sb_flags_mask = 0
        self.phase = AWAITING_RECONF

    def finish_clean(self, task: Task) -> None:
        """finish_clean_context(): after that, it is to change settings."""
        if self.phase == AWAITING_RECONF:
            self.fs_type.init(self, task)
            self.phase = RECONF_PARAMS


def for_reconfigure(task: Task, sb: SuperBlock, sb_flags: int = 0, mask: int = 0) -> FsContext:
    """A context for changing a mounted file system (fs_context_for_reconfigure()). Raises EOPNOTSUPP."""
    from guest.fs_types import BY_NAME, UNCHANGEABLE

    fc = FsContext(BY_NAME.get(sb.s_type, UNCHANGEABLE), task, sb_flags, mask)
    fc.sb, fc.root = sb, sb.root
    fc.phase = RECONF_PARAMS
    return fc


# values


def parse_value(fc: FsContext, kinds: dict[str, str], param: Param) -> Any:
    """fs_parse(): the value of a parameter in `kinds`: "flag", "u32", "u32oct", "string", or words of an enumeration.

    Returns:
        None for a key that is not there. Raises Errno(EINVAL), with a message, for a value that is none.
    """
    kind = kinds.get(param.key)
    if kind is None:
        return None
    if kind == "flag":
        if param.kind != FLAG:
            raise fc.invalid(f"Unexpected value for '{param.key}'", True)
        return True
    value: Any = None
    if param.kind == STRING:
        if kind in ("u32", "u32oct"):
            value = kstrtouint(param.string, 8 if kind == "u32oct" else 0)
        elif kind == "string":
            value = param.string or None
        else:
            value = param.string if param.string in kind.split() else None
    if value is None:
        raise fc.invalid(f"Bad value for '{param.key}'", True)
    return value


def kstrtouint(text: str, base: int) -> int | None:
    """An unsigned int of the whole text; None when it is none."""
    text = text.removesuffix("\n").removeprefix("+")
    if base == 0:
        base = 16 if text[:2].lower() == "0x" else 8 if text[:1] == "0" and len(text) > 1 else 10
        text = text[2:] if base == 16 else text
    if not text or not all(c in "0123456789abcdef"[:base] for c in text.lower()):
        return None
    value = int(text, base)
    return value if value < 1 << 32 else None
