"""Reading files of /proc: seq_file's rules (fs/seq_file.c) and the writable kind.

A read returns whole records as long as they fit in one page (more, when a single record needs it), the rest of a record
that did not fit the caller's buffer comes next, and reading from position 0 starts anew. Content is made while it is
read, so a large file shows the state at the time of each read.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.vfs_flags import FMODE_LSEEK, FMODE_PREAD, SEEK_CUR, SEEK_SET
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task
    from guest.vfs_types import Path


def no_write(inode: ProcInode) -> int:
    """The errno of a write nobody takes: proc_reg_write() has its own."""
    return errno.EIO if inode.subject is None else errno.EINVAL


class SeqFile(OpenFile):
    """A file of records. Kinds say how to find record `index`, the one behind it, and its text."""

    fmode = FMODE_LSEEK | FMODE_PREAD
    f_inode: ProcInode

    def __init__(self, path: Path, inode: ProcInode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.buf = b""  # text made and not yet read
        self.size = 0  # of the kernel's buffer: a page, doubled for long records
        self.index = 0
        self.read_pos = 0

    def seq_start(self, task: Task) -> Any:
        """The record at self.index; None at the end."""
        return True if self.index == 0 else None

    def seq_next(self, task: Task, record: Any) -> Any:
        """The record behind `record`; sets self.index."""
        self.index += 1

    def seq_show(self, task: Task, record: Any) -> str:
        """Its text; '' to skip."""
        raise NotImplementedError

    def show(self, task: Task, record: Any) -> bytes:
        """seq_show() as bytes."""
        return self.seq_show(task, record).encode("utf-8", "surrogateescape")

    def read(self, task: Task, pos: int, count: int) -> bytes:
        if count == 0:
            return b""
        if pos == 0:
            self.index = 0
            self.buf = b""
        if pos != self.read_pos:
            self.traverse(task, pos)
        self.size = self.size or task.kernel.system.arch.page_size
        out = self.buf[:count]
        self.buf = self.buf[count:]
        if not self.buf:
            more = self.fill(task, count - len(out))
            self.buf = more[count - len(out) :]
            out += more[: count - len(out)]
        self.read_pos = pos + len(out)
        return out

    def fill(self, task: Task, wanted: int) -> bytes:
        """Whole records, until `wanted` bytes are there or the buffer is full."""
        record = self.seq_start(task)
        text = b""
        while record is not None:
            text = self.show(task, record)
            if text:
                break
            record = self.seq_next(task, record)
        if record is None:
            return b""
        while len(text) >= self.size:
            self.size <<= 1
        while True:
            record = self.seq_next(task, record)
            if record is None or len(text) >= wanted:
                return text
            more = self.show(task, record)
            if len(text) + len(more) >= self.size:
                return text
            text += more

    def traverse(self, task: Task, offset: int) -> None:
        """Make the text from `offset` on the next to be read."""
        self.index, pos = 0, 0
        self.buf = b""
        record = self.seq_start(task) if offset else None
        while record is not None:
            text = self.show(task, record)
            record = self.seq_next(task, record)
            if pos + len(text) > offset:
                self.buf = text[offset - pos :]
                break
            pos += len(text)
            if pos == offset:
                break
        self.read_pos = offset

    def llseek(self, task: Task, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.f_pos
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        if offset < 0:
            raise Errno(errno.EINVAL)
        if offset != self.read_pos:
            self.traverse(task, offset)
        self.f_pos = offset
        return offset

    def write(self, task: Task, pos: int, data: bytes) -> int:
        raise Errno(no_write(self.f_inode))


class SingleFile(SeqFile):
    """single_open(): the whole file is one record, `inode.show(inode, task)`; `inode.store` takes writes."""

    @property
    def has_read_iter(self) -> bool:  # type: ignore[override]
        """Those of the whole system have it (proc_single_ops), those of a task not (proc_single_file_operations)."""
        return self.f_inode.subject is None

    def seq_show(self, task: Task, record: Any) -> str:
        text: str = self.f_inode.show(self.f_inode, task)
        return text

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if self.f_inode.store is None:
            raise Errno(no_write(self.f_inode))
        done: int = self.f_inode.store(self.f_inode, task, pos, data)
        return done


class TextFile(OpenFile):
    """A file read by simple_read_from_buffer(): bytes made anew for each read, any position."""

    f_inode: ProcInode

    def read(self, task: Task, pos: int, count: int) -> bytes:
        text = self.f_inode.show(self.f_inode, task)
        data: bytes = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        return data[pos : pos + count]

    def write(self, task: Task, pos: int, data: bytes) -> int:
        if self.f_inode.store is None:
            raise Errno(no_write(self.f_inode))
        done: int = self.f_inode.store(self.f_inode, task, pos, data)
        return done
