"""The file system at /dev/pts: a name for each pseudo-terminal that is open (fs/devpts/inode.c).

It is mounted with every machine; terminals themselves (guest/pty.py) are loaded when the first is opened.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import DirFile, OpenFile
from guest.vfs_flags import S_IALLUGO, S_IFCHR, S_IFDIR
from guest.vfs_types import Dentry, Inode, Path, SuperBlock, makedev
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.kernel import Kernel
    from guest.task import Task

DEVPTS_SUPER_MAGIC = 0x1CD1
UNIX98_PTY_SLAVE_MAJOR = 136
_NR_UNIX98_PTY_MAX = 1 << 20
_ROOT_INO, _PTMX_INO, _FIRST_INO = 1, 2, 3


class DevptsSuper(SuperBlock):
    """One devpts: its terminals by number."""

    def __init__(self, kernel: Kernel, s_dev: int) -> None:
        super().__init__(kernel, "devpts", s_dev, DEVPTS_SUPER_MAGIC)
        self.s_options = ",mode=600,ptmxmode=000"
        self.slave_mode, self.max = 0o600, _NR_UNIX98_PTY_MAX
        self.slave_uid: int | None = None  # None: the opener's
        self.slave_gid: int | None = None
        self.used: set[int] = set()  # numbers that are taken: a name may be gone before its number is free
        self.top = Dentry(b"", None, DevptsRoot(self, S_IFDIR | 0o755, ino=_ROOT_INO))
        self.root = self.top
        ptmx = DevptsNode(self, S_IFCHR, ino=_PTMX_INO)
        ptmx.i_rdev = makedev(5, 2)
        self.top.d_children[b"ptmx"] = Dentry(b"ptmx", self.top, ptmx)

    def set_options(self, options: list[str]) -> None:
        """parse_mount_options(). Raises EINVAL."""
        found: dict[str, int] = {"mode": 0o600, "ptmxmode": 0, "max": _NR_UNIX98_PTY_MAX}
        for option in options:
            key, _, text = option.partition("=")
            digits = "01234567" if key.endswith("mode") else "0123456789"
            if option == "newinstance":
                continue
            if key not in ("uid", "gid", "mode", "ptmxmode", "max") or not text or text.strip(digits):
                raise Errno(errno.EINVAL)
            found[key] = int(text, 8 if key.endswith("mode") else 10)
            if found[key] > (_NR_UNIX98_PTY_MAX if key == "max" else 0x7FFFFFFF):
                raise Errno(errno.EINVAL)
        self.slave_uid, self.slave_gid = found.get("uid"), found.get("gid")
        self.slave_mode, self.max = found["mode"] & S_IALLUGO, found["max"]
        self.top.d_children[b"ptmx"].d_inode.i_mode = S_IFCHR | found["ptmxmode"] & S_IALLUGO
        text = "".join(f",{key}={found[key]}" for key in ("uid", "gid") if key in found)
        text += f",mode={self.slave_mode:03o},ptmxmode={found['ptmxmode'] & S_IALLUGO:03o}"
        self.s_options = text + (f",max={self.max}" if self.max < _NR_UNIX98_PTY_MAX else "")

    def new_index(self) -> int:
        """devpts_new_index(): the lowest free number. Raises ENOSPC."""
        if len(self.used) >= self.max:
            raise Errno(errno.ENOSPC)
        index = 0
        while index in self.used:
            index += 1
        self.used.add(index)
        return index

    def add(self, index: int, inode: Inode) -> Dentry:
        """devpts_pty_new(): the name of terminal `index`."""
        inode.i_ino = index + _FIRST_INO
        inode.i_rdev = makedev(UNIX98_PTY_SLAVE_MAJOR, index)
        entry = Dentry(b"%d" % index, self.top, inode)
        self.top.d_children[entry.d_name] = entry
        return entry

    def remove(self, entry: Dentry) -> None:
        """devpts_pty_kill(): no name any more."""
        self.top.d_children.pop(entry.d_name, None)
        entry.d_unhashed = True
        entry.d_inode.i_nlink = 0


class DevptsRoot(Inode):
    """Its one directory: nobody makes names here but the kernel."""

    def iterate(self, parent: Dentry, task: Task) -> Iterator[tuple[bytes, int, int]]:
        for name, entry in reversed(tuple(parent.d_children.items())):
            yield name, entry.d_inode.i_ino, entry.d_inode.i_mode

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        return DirFile(path, self, flags)


class DevptsNode(Inode):
    """A device in it: `pty` is the slave it opens; /dev/pts/ptmx has none."""

    pty: Any = None

    def open(self, path: Path, flags: int, task: Task) -> OpenFile:
        from guest.pty import open_master, open_slave

        return open_master(path, self, flags, task) if self.pty is None else open_slave(path, self, flags, task)
