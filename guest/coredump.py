"""Core files: what a process that a signal kills leaves behind (fs/coredump.c, fs/binfmt_elf.c).

    core_pattern --core_name()--> name of a new file, mode 0600, never through a symbolic link
    ELF header | PT_NOTE, one PT_LOAD an area | notes: registers, names, auxv, mapped files | from the next page: memory

A page nobody touched stays a hole in the file. RLIMIT_CORE (0 unless the guest raises it) ends the file early and
below a page forbids it. Not here: a pattern that starts with "|" (a helper program the kernel would start): no file.
"""

from __future__ import annotations

from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.file import fput
from guest.namei import do_unlink, path_openat
from guest.procfs_maps import gate_area
from guest.ptrace_regs import NT_PRFPREG, NT_PRSTATUS
from guest.sys_file import do_truncate
from guest.sys_misc import utsname
from mm.errors import Errno
from mm.flags import RLIMIT_CORE, VM_DONTDUMP, VM_EXEC, VM_HUGETLB, VM_IO, VM_READ, VM_SHARED, VM_WRITE
from mm.gup import access_remote_vm
from mm.pgtable import walk_pmds
from mm.shmem import shmem_read, shmem_seek
from mm.special_mapping import vma_name
from mm.uaccess import access_process_vm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.file import OpenFile
    from guest.siginfo import SigInfo
    from guest.task import Task
    from mm.types import MmStruct, VmAreaStruct

_EHDR = Struct("<16sHHIQQQIHHHHHH")
_PHDR = Struct("<IIQQQQQQ")
_SHDR = Struct("<IIQQQQIIQQ")
_PRSTATUS = Struct("<iiihxxQQiiii8q")  # struct elf_prstatus up to the registers
_PRPSINFO = Struct("<bcbbxxxxQIIiiii16s80s")
_ET_CORE, _PT_LOAD, _PT_NOTE, _PN_XNUM = 4, 1, 4, 0xFFFF
_NT_PRPSINFO, _NT_AUXV, _NT_SIGINFO, _NT_FILE = 3, 6, 0x53494749, 0x46494C45
_SUID_DUMP_DISABLE = 0
_CORENAME_MAX = 128
_AT_FDCWD = -100
_PF_DUMPCORE = 0x200
_O_NEW_FILE = 0o2 | 0o100 | 0o200 | 0o400000  # O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW
_LOOK = 1 << 21  # bytes of a file looked at in one step
# Bits of coredump_filter.
_ANON_PRIVATE, _ANON_SHARED, _MAPPED_PRIVATE, _MAPPED_SHARED, _ELF_HEADERS = 1, 2, 4, 8, 16
_HUGETLB_PRIVATE, _HUGETLB_SHARED = 32, 64


class LimitReached(Exception):
    """The file is as long as RLIMIT_CORE allows, or there is no room for more."""


def do_coredump(task: Task, info: SigInfo) -> bool:
    """Write the core file of a process that `info` kills; whether there is one (bit 7 of the wait status)."""
    mm, limit = task.mm, task.signal.rlim[RLIMIT_CORE][0]
    if mm is None or mm.flags & 3 == _SUID_DUMP_DISABLE or limit < mm.arch.page_size:
        return False
    pattern = task.kernel.sysctls.get("core_pattern", "core")
    if pattern.startswith("|"):
        return False
    name = core_name(task, info, pattern)
    with suppress(Errno):  # what matters, the open below says
        do_unlink(task, _AT_FDCWD, name)
    try:
        file = path_openat(task, _AT_FDCWD, name, _O_NEW_FILE, 0o600)
    except Errno:
        return False
    inode = file.f_inode
    try:
        if not inode.is_reg() or inode.i_uid != task.cred.fsuid or inode.i_mode & 0o677 != 0o600:
            return False
        CoreFile(task, info, file, limit).write()
    finally:
        fput(file)
    return True


def core_name(task: Task, info: SigInfo, pattern: str) -> bytes:
    """format_corename(): the pattern with its % letters replaced; ".PID" behind it when core_uses_pid asks."""
    mm = task.mm
    exe = mm.exe_file.d_path() if mm is not None and mm.exe_file is not None else task.comm
    uts, nr = utsname(task)[1], task.vnr
    values = {
        "%": "%", "p": str(nr(task.tgid)), "P": str(task.tgid), "i": str(nr(task.pid)), "I": str(task.pid),
        "u": str(task.cred.uid), "g": str(task.cred.gid), "d": str(mm.flags & 3 if mm is not None else 0),
        "s": str(info.signo), "t": str(task.kernel.vfs.now() // 1_000_000_000), "h": _escaped(uts),
        "e": _escaped(task.comm), "f": _escaped(exe.rpartition("/")[2]), "E": _escaped(exe),
        "c": str(task.signal.rlim[RLIMIT_CORE][0]),
    }  # fmt: skip
    out, letters, named = [], iter(pattern), False
    for letter in letters:
        if letter == "%":
            letter = next(letters, "")
            named = named or letter == "p"
            letter = values.get(letter, "")
        out.append(letter)
    if not named and task.kernel.sysctls.get("core_uses_pid", 0):
        out.append(f".{task.vnr(task.tgid)}")
    return "".join(out).encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    """cn_esc_printf(): no way out of the folder by a name the guest chose."""
    changed = text.replace("/", "!")
    if changed in (".", ".."):
        return "!" + changed[1:]
    return changed or "!"


class CoreFile:
    """One core file while it is written."""

    def __init__(self, task: Task, info: SigInfo, file: OpenFile, limit: int) -> None:
        self.task, self.info, self.file, self.limit = task, info, file, limit
        self.mm: MmStruct = task.mm  # type: ignore[assignment] # do_coredump() looked
        self.page_size = self.mm.arch.page_size
        self.written = 0

    def write(self) -> None:
        """elf_core_dump()."""
        areas = [(vma, self.dump_size(vma)) for vma in self.areas()]
        gate = gate_area(self.task)
        count = len(areas) + 1 + (gate is not None)
        extra = _SHDR.size if count >= _PN_XNUM else 0
        notes = self.notes()
        at = _EHDR.size + count * _PHDR.size
        data = -(-(at + len(notes)) // self.page_size) * self.page_size
        headers = [_PHDR.pack(_PT_NOTE, 0, at, 0, 0, len(notes), 0, 0)]
        end = data
        shown = [(vma.vm_start, vma.vm_end, vma.vm_flags, size) for vma, size in areas]
        if gate is not None:
            shown.append((gate.vm_start, gate.vm_end, gate.vm_flags, gate.vm_end - gate.vm_start))
        for start, stop, flags, size in shown:
            access = (4 if flags & VM_READ else 0) | (2 if flags & VM_WRITE else 0) | (1 if flags & VM_EXEC else 0)
            headers.append(_PHDR.pack(_PT_LOAD, access, end, start, 0, size, stop - start, self.page_size))
            end += size
        try:
            self.emit(0, self.elf_header(count, end if extra else 0) + b"".join(headers) + notes)
            for vma, size in areas:
                for address, content in self.contents(vma, size):
                    self.emit(data + address - vma.vm_start, content)
                data += size
            if extra:
                self.emit(end, _SHDR.pack(0, 0, 0, 0, 0, 1, 0, count, 0, 0))
            if self.file.f_inode.i_size < end:
                do_truncate(self.task, self.file.f_inode, end)
        except (LimitReached, Errno):
            pass  # what is there stays

    def areas(self) -> Iterator[VmAreaStruct]:
        """Every area of the process, ascending."""
        vma = self.mm.mmap
        while vma is not None:
            yield vma
            vma = vma.vm_next

    def elf_header(self, count: int, sections: int) -> bytes:
        """fill_elf_header(); with too many areas for e_phnum their number is in the section header."""
        ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
        machine = self.task.kernel.arch.elf_machine
        shown, shnum, shsize = (_PN_XNUM, 1, _SHDR.size) if sections else (count, 0, 0)
        return _EHDR.pack(
            ident, _ET_CORE, machine, 1, 0, _EHDR.size, sections, 0, _EHDR.size, _PHDR.size, shown, shsize, shnum, 0
        )

    def dump_size(self, vma: VmAreaStruct) -> int:
        """vma_dump_size(): how many bytes of an area go into the file, by coredump_filter."""
        wanted = self.mm.flags >> 2
        whole: int = vma.vm_end - vma.vm_start
        if vma.vm_file is None and vma_name(vma) is not None:
            return whole
        if vma.vm_flags & VM_DONTDUMP:
            return 0
        shared = bool(vma.vm_flags & VM_SHARED)
        if vma.vm_flags & VM_HUGETLB:
            return whole if wanted & (_HUGETLB_SHARED if shared else _HUGETLB_PRIVATE) else 0
        if vma.vm_flags & VM_IO:
            return 0
        file = vma.vm_file
        if shared:
            kind = _MAPPED_SHARED if file is not None and _links(file) else _ANON_SHARED
            return whole if wanted & kind else 0
        if vma.anon_vma is not None and wanted & _ANON_PRIVATE:
            return whole
        if file is None:
            return 0
        if wanted & _MAPPED_PRIVATE:
            return whole
        if wanted & _ELF_HEADERS and vma.vm_pgoff == 0 and vma.vm_flags & VM_READ:
            executable = getattr(getattr(file, "f_inode", None), "i_mode", 0) & 0o111
            if executable or bytes(access_remote_vm(self.mm, vma.vm_start, 4)) == b"\x7fELF":
                return self.page_size
        return 0

    def contents(self, vma: VmAreaStruct, size: int) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of what is in an area, ascending: its pages in memory, elsewhere what its file holds."""
        start, end = vma.vm_start, vma.vm_start + size
        if vma.vm_file is None and vma_name(vma) is not None:
            yield start, bytes(access_remote_vm(self.mm, start, size))
            return
        in_memory = self.pages(start, end)
        if vma.vm_file is None or vma.vm_flags & VM_HUGETLB:
            yield from in_memory
        else:
            yield from _over(self.file_contents(vma, size), in_memory)

    def pages(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The pages of a range that are in memory."""
        for first, last, _ in walk_pmds(self.mm, start, end):
            while first < last:
                content = access_process_vm(self.mm, first, last - first)
                if content:
                    yield first, content
                first += -(-len(content) // self.page_size) * self.page_size or self.page_size

    def file_contents(self, vma: VmAreaStruct, size: int) -> Iterator[tuple[int, bytes]]:
        """What a mapped file holds; its holes, however large, take no time."""
        base = vma.vm_pgoff << self.mm.arch.page_shift
        file: Any = vma.vm_file
        mapping, at = file.f_mapping, base
        while at < base + size:
            try:
                at = max(shmem_seek(mapping, at, 3), at)  # SEEK_DATA
            except (Errno, AttributeError):
                return  # nothing more; or no file of pages
            if at >= base + size:
                return
            content = shmem_read(mapping, at, min(_LOOK, base + size - at))
            if not content:
                return
            content += bytes(-len(content) % self.page_size)
            yield vma.vm_start + at - base, content
            at += len(content)

    def emit(self, position: int, content: bytes) -> None:
        """dump_emit(), in whole pages. Raises LimitReached; Errno ENOSPC and the like."""
        room = self.limit - self.written  # holes do not count
        if len(content) > room:
            content = content[: room // self.page_size * self.page_size]
        done = 0
        while done < len(content):
            done += self.file.write(self.task, position + done, content[done:])
        self.written += done
        if self.written + self.page_size > self.limit:
            raise LimitReached

    def notes(self) -> bytes:
        """write_note_info(): the dying thread's status, the process, then more registers and the other threads."""
        task, mm = self.task, self.mm
        first, *more = self.thread_notes(task)
        out = [
            first,
            _note("CORE", _NT_PRPSINFO, self.prpsinfo()),
            _note("CORE", _NT_SIGINFO, self.info.pack()),
            _note("CORE", _NT_AUXV, self.auxv()),
        ]
        files = self.mapped_files()
        if files:
            out.append(_note("CORE", _NT_FILE, files))
        out += more
        for thread in task.signal.threads:
            if thread is not task and thread.mm is mm:
                out += self.thread_notes(thread)
        return b"".join(out)

    def thread_notes(self, thread: Task) -> list[bytes]:
        """elf_prstatus and the other register sets of one thread."""
        shown = thread.kernel.arch.user_registers()
        running = thread is self.task
        found = []
        for note in shown.sets:
            try:
                image = shown.read(thread.kernel.cpu, thread, note) if running else shown.get(thread, note)
            except Errno:
                continue
            if note == NT_PRSTATUS:
                image = self.prstatus(thread) + image + (1).to_bytes(8, "little")
            found.append(_note("CORE" if note in (NT_PRSTATUS, NT_PRFPREG) else "LINUX", note, image))
        return found

    def prstatus(self, thread: Task) -> bytes:
        """struct elf_prstatus up to the registers (fill_prstatus())."""
        signo, signal = self.info.signo, thread.signal
        times, nr = [], thread.vnr
        for ns in (thread.utime, thread.stime, signal.cutime, signal.cstime):
            times += [ns // 1_000_000_000, ns // 1000 % 1_000_000]
        return _PRSTATUS.pack(
            signo, 0, 0, signo, thread.pending.signal, thread.blocked,
            nr(thread.pid), nr(thread.ppid), nr(signal.pgrp), nr(signal.session), *times,
        )  # fmt: skip

    def prpsinfo(self) -> bytes:
        """struct elf_prpsinfo (fill_psinfo())."""
        task, mm, nr = self.task, self.mm, self.task.vnr
        words = access_process_vm(mm, mm.arg_start, min(mm.arg_end - mm.arg_start, 79)).replace(b"\0", b" ")
        comm = task.comm.encode("utf-8", "surrogateescape")
        return _PRPSINFO.pack(
            0, b"R", 0, task.nice, task.flags | _PF_DUMPCORE, task.cred.uid, task.cred.gid, nr(task.pid), nr(task.ppid),
            nr(task.signal.pgrp), nr(task.signal.session), comm, words,
        )  # fmt: skip

    def auxv(self) -> bytes:
        """The vector up to and with AT_NULL."""
        words = self.mm.saved_auxv
        last = 0
        while last + 2 < len(words) and words[last]:
            last += 2
        return Struct(f"<{last + 2}Q").pack(*words[: last + 2])

    def mapped_files(self) -> bytes:
        """fill_files_note(): number, page size, (start, end, page offset) each, then the names."""
        words, names = [], []
        for vma in self.areas():
            if vma.vm_file is not None:
                words += [vma.vm_start, vma.vm_end, vma.vm_pgoff]
                names.append(vma.vm_file.d_path().encode("utf-8", "surrogateescape") + b"\0")
        if not names:
            return b""
        return Struct(f"<{len(words) + 2}Q").pack(len(names), self.page_size, *words) + b"".join(names)


def _over(below: Iterator[tuple[int, bytes]], above: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Two ascending streams of (address, bytes) as one, where they overlap what `above` says."""
    top = next(above, None)
    for address, content in below:
        while top is not None and top[0] < address + len(content):
            if top[0] > address:
                yield address, content[: top[0] - address]
            yield top
            covered = max(top[0] + len(top[1]) - address, 0)
            address, content = address + covered, content[covered:]
            top = next(above, None)
        if content:
            yield address, content
    if top is not None:
        yield top
        yield from above


def _links(file: object) -> int:
    """i_nlink of a mapped file; 0 for one no name ever led to."""
    links: int = getattr(getattr(file, "f_inode", None), "i_nlink", 0)
    return links


def _note(owner: str, kind: int, data: bytes) -> bytes:
    """struct elf_note with name and data, each padded to four bytes."""
    name = owner.encode() + b"\0"
    head = Struct("<III").pack(len(name), len(data), kind)
    return head + name.ljust(-(-len(name) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")
