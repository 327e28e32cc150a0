"""vFile packets: the debugger reads the guest's files (its sysroot is `target:`), through the guest's own VFS.

So `info proc mappings` reads the guest's /proc, and shared libraries are those the guest sees. Files are opened by a
root of our own, without changing access times, and for reading only: writing into the guest's world is not a
debugger's business here. Error numbers and struct stat are those of gdb's File-I/O protocol.
"""

from __future__ import annotations

import copy
from struct import pack
from typing import TYPE_CHECKING, Any

from guest.namei import LOOKUP_FOLLOW, filename_lookup, vfs_open
from guest.sched import Block
from guest.vfs_flags import AT_FDCWD, O_NOATIME, O_RDONLY
from guest.vfs_types import FsStruct
from mm.errors import Errno

if TYPE_CHECKING:
    from emu.gdb_server import Server
    from guest.task import Task

WRITING = 0x1 | 0x2 | 0x8 | 0x200 | 0x400 | 0x800  # gdb's O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_TRUNC, O_EXCL
EPERM, EBADF, EINVAL, EROFS, ENOSYS = 1, 9, 22, 30, 88
KNOWN = {1, 2, 4, 9, 13, 14, 16, 17, 19, 20, 21, 22, 23, 24, 27, 28, 29, 30}  # errnos both sides number alike
TOO_LONG, EUNKNOWN = 91, 9999
MOST_FILES = 64
CHUNK = 0x1F00  # bytes of one answer; escaped they still fit a packet


class Files:
    """The files one debugger has open."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open_files: dict[int, Any] = {}

    def handle(self, data: bytes) -> bytes:
        """What follows `vFile:`."""
        name, _, rest = data.partition(b":")
        words = rest.split(b",")
        serve = {
            b"setfs": self._setfs, b"open": self._open, b"close": self._close, b"pread": self._pread,
            b"fstat": self._fstat, b"readlink": self._readlink,
        }.get(name)  # fmt: skip
        if serve is None:
            return b"F-1,%x" % EROFS if name in (b"pwrite", b"unlink") else b""
        try:
            return serve(words)
        except Errno as e:
            number = e.number if e.number in KNOWN else {36: TOO_LONG, 38: ENOSYS}.get(e.number, EUNKNOWN)
            return b"F-1,%x" % number
        except Block:
            return b"F-1,%x" % EINVAL  # a pipe or terminal: nothing to wait for
        except KeyError:
            return b"F-1,%x" % EBADF

    def close_all(self) -> None:
        """The debugger is gone."""
        for file in self.open_files.values():
            _put(file)
        self.open_files.clear()

    def _reader(self) -> Task:
        """Who opens: like init, with the machine's root."""
        kernel = self.server.target.machine.kernel
        reader = copy.copy(kernel.init)
        reader.fs = FsStruct(kernel.vfs.root, kernel.vfs.root)
        return reader

    def _setfs(self, _: list[bytes]) -> bytes:
        return b"F0"  # every process of the machine has the same root

    def _open(self, words: list[bytes]) -> bytes:
        name, flags, _ = words
        if int(flags, 16) & WRITING:
            return b"F-1,%x" % EROFS
        if len(self.open_files) >= MOST_FILES:
            return b"F-1,%x" % 24
        task = self._reader()
        path = filename_lookup(task, AT_FDCWD, bytes.fromhex(name.decode()), LOOKUP_FOLLOW)
        inode = path.dentry.d_inode
        if not (inode.is_reg() or inode.is_dir()):
            raise Errno(13)
        number = next(n for n in range(3, 3 + MOST_FILES + 1) if n not in self.open_files)
        self.open_files[number] = vfs_open(task, path, O_RDONLY | O_NOATIME)
        return b"F%x" % number

    def _close(self, words: list[bytes]) -> bytes:
        _put(self.open_files.pop(int(words[0], 16)))
        return b"F0"

    def _pread(self, words: list[bytes]) -> bytes:
        file = self.open_files[int(words[0], 16)]
        count, offset = min(int(words[1], 16), CHUNK), int(words[2], 16)
        data = bytes(file.read(self._reader(), offset, count))[:count]
        return b"F%x;" % len(data) + data

    def _fstat(self, words: list[bytes]) -> bytes:
        """struct stat of File-I/O: big-endian."""
        inode = self.open_files[int(words[0], 16)].f_inode
        size = inode.i_size
        seconds = [time // 10**9 & 0xFFFFFFFF for time in (inode.i_atime, inode.i_mtime, inode.i_ctime)]
        mode = inode.i_mode & 0o777 | (0o40000 if inode.is_dir() else 0o100000)
        ids = (inode.i_uid & 0xFFFFFFFF, inode.i_gid & 0xFFFFFFFF)
        stat = pack(">7I3Q3I", 0, inode.i_ino & 0xFFFFFFFF, mode, 1, *ids, 0, size, 4096, -(-size // 512), *seconds)
        return b"F%x;" % len(stat) + stat

    def _readlink(self, words: list[bytes]) -> bytes:
        task = self._reader()
        path = filename_lookup(task, AT_FDCWD, bytes.fromhex(words[0].decode()), 0)
        if not path.dentry.d_inode.is_lnk():
            raise Errno(22)
        target = path.dentry.d_inode.readlink(task)
        return b"F%x;" % len(target) + target


def _put(file: Any) -> None:
    from guest.file import fput

    fput(file)
