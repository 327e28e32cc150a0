"""Before there is a machine: which architecture a program is for, and what is plainly wrong with it.

The ELF header decides what machine to build, so the file is looked at on the host first: inside `--root` (symbolic
links and `..` stay in it) and the mounts, through `#!` lines to the interpreter. Everything else about the program is
judged by the guest's own execve.
"""

from __future__ import annotations

import errno
import os
import stat
from struct import unpack_from
from typing import TYPE_CHECKING

from emu.errors import STATUS_CANNOT_RUN, STATUS_NOT_FOUND, PagewalkError

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINES = {62: "x86_64", 183: "aarch64"}
OTHER_MACHINES = {
    3: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "s390",
    40: "32-bit Arm",
    243: "RISC-V",
}
MAX_LINKS = 40
MAX_SCRIPTS = 5
HEAD = 256  # bytes execve looks at
PT_LOAD, PT_INTERP = 1, 3

ELF_MAGIC = b"\x7fELF"


def host_path(program: str, root: str | None, mounts: Sequence[tuple[str, str, str]]) -> str | None:
    """The host file behind a guest path, or None when it lies nowhere on the host (or nowhere at all)."""
    if is_host_path(program, root, mounts):
        return program
    parts = [part for part in reversed(program.split("/")) if part not in ("", ".")]
    at: list[str] = []  # guest path so far
    links = 0
    while parts:
        name = parts.pop()
        if name == "..":
            del at[-1:]
            continue
        path = _mounted([*at, name], root, mounts)
        if path is not None and os.path.islink(path) and not _is_mount_point([*at, name], mounts):
            links += 1
            if links > MAX_LINKS:
                return None
            target = os.readlink(path)
            if target.startswith("/"):
                at = []
            parts += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            continue
        at.append(name)
    return _mounted(at, root, mounts)


def is_host_path(program: str, root: str | None, mounts: Sequence[tuple[str, str, str]]) -> bool:
    """Whether PROGRAM names a host file: without a root, unless it is an absolute path into a mount."""
    inside = any(f"{program}/".startswith(f"{guest.rstrip('/')}/") for _, guest, _ in mounts)
    return root is None and not inside


def _is_mount_point(parts: list[str], mounts: Sequence[tuple[str, str, str]]) -> bool:
    return any([part for part in guest.split("/") if part] == parts for _, guest, _ in mounts)


def _mounted(parts: list[str], root: str | None, mounts: Sequence[tuple[str, str, str]]) -> str | None:
    """Host path of a guest path without links: the deepest mount it lies under, later mounts first."""
    best, depth = (root, 0) if root is not None else (None, -1)
    for host, guest, _ in mounts:
        prefix = [part for part in guest.split("/") if part]
        if len(prefix) >= depth and parts[: len(prefix)] == prefix:
            best, depth = host, len(prefix)
    if best is None:
        return None
    return os.path.join(best, *parts[depth:])


def read_head(path: str, shown: str) -> bytes:
    """The first bytes of a regular file. Raises PagewalkError: not there, a directory, not readable."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise PagewalkError(f"{shown}: is a directory", STATUS_CANNOT_RUN)
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD)
    except OSError as e:
        status = STATUS_NOT_FOUND if e.errno in (errno.ENOENT, errno.ENOTDIR) else STATUS_CANNOT_RUN
        raise PagewalkError(f"{shown}: {os.strerror(e.errno or 0)}", status) from None
    except ValueError:  # a NUL in the name
        raise PagewalkError(f"{shown!r}: not a file name", STATUS_NOT_FOUND) from None


def architecture(head: bytes, shown: str) -> str:
    """The architecture of an ELF header. Raises PagewalkError for what no machine of ours can run."""

    def refuse(what: str) -> PagewalkError:
        return PagewalkError(f"{shown}: {what}", STATUS_CANNOT_RUN)

    if head[:4] != ELF_MAGIC:
        raise refuse("not an ELF program" if head else "an empty file, not an ELF program")
    if len(head) < 64:
        raise refuse("a truncated ELF header")
    # DEVIATION D7: Linux looks at neither class nor byte order, and would run what the machine field allows.
    if head[4] != 2:
        raise refuse("a 32-bit ELF program; pagewalk runs 64-bit ones" if head[4] == 1 else "an ELF of unknown class")
    if head[5] != 1:
        raise refuse("a big-endian ELF program; pagewalk runs little-endian ones")
    (number,) = unpack_from("<H", head, 18)
    if number not in MACHINES:
        name = OTHER_MACHINES.get(number, f"machine {number}")
        raise refuse(f"an ELF program for {name}; pagewalk runs x86-64 and arm64")
    return MACHINES[number]


def inspect(program: str, root: str | None, mounts: Sequence[tuple[str, str, str]]) -> str:
    """The architecture that runs `program`, a guest path (a host path without `root`). Raises PagewalkError."""
    if not program:
        raise PagewalkError("the program's name is empty", STATUS_NOT_FOUND)
    shown = path = program
    for _ in range(MAX_SCRIPTS):
        found = host_path(path, root, mounts)
        if found is None:
            raise PagewalkError(f"{shown}: {os.strerror(errno.ENOENT)}", STATUS_NOT_FOUND)
        head = read_head(found, shown)
        if head[:2] != b"#!":
            return architecture(head, shown)
        words = head[2:].split(b"\n", 1)[0].split()
        if not words:
            raise PagewalkError(f"{shown}: a script without an interpreter", STATUS_CANNOT_RUN)
        path = os.fsdecode(words[0])
        shown = f"{program}: interpreter {path}"
        if is_host_path(program, root, mounts):
            raise PagewalkError(f"{program}: a script; its interpreter {path} needs --root", STATUS_CANNOT_RUN)
    raise PagewalkError(f"{program}: scripts nested too deep", STATUS_CANNOT_RUN)


def explain_exec(image: bytes, page_size: int, number: int) -> str:
    """Why execve refused a program with errno `number`, in words; `image` is its beginning."""
    if number == errno.ENOENT:
        interpreter = _interpreter(image)
        return f"its interpreter {interpreter} is missing" if interpreter else os.strerror(number)
    if number == errno.ENOEXEC:
        return "an ELF program Linux cannot run (exec format error)"
    return os.strerror(number)


def explain_death(image: bytes, page_size: int) -> str:
    """Why a program died of SIGSEGV inside execve.

    DEVIATION D8: the user of the command gets this line and status 126 where Linux only raises the signal.
    """
    for kind, offset, address in _segments(image):
        if kind == PT_LOAD and (address - offset) % page_size:
            return f"its segments cannot be mapped with pages of {page_size >> 10}K"
    return "its segments cannot be mapped (they overlap, or lie outside the address space or the file)"


def _segments(image: bytes) -> list[tuple[int, int, int]]:
    """(type, offset, address) of the program headers that lie within `image`."""
    if len(image) < 64:
        return []
    (start,) = unpack_from("<Q", image, 32)
    size, count = unpack_from("<HH", image, 54)
    found = []
    for i in range(min(count, 64)):
        if size < 56 or start + (i + 1) * size > len(image):
            break
        kind, _, offset, address = unpack_from("<IIQQ", image, start + i * size)
        found.append((kind, offset, address))
    return found


def _interpreter(image: bytes) -> str:
    """PT_INTERP's path; empty when there is none."""
    for kind, offset, _ in _segments(image):
        if kind == PT_INTERP:
            return os.fsdecode(image[offset : offset + 4096].split(b"\0", 1)[0])
    return ""
