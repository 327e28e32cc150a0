"""Which function an address lies in: the symbol tables of the ELF files a guest has mapped.

Each file's table is read once, through the page cache's back door, so that nothing is marked or counted. A guest can
map any bytes as a program: whatever does not hold together has no symbols.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

from mm.shmem import shmem_read

if TYPE_CHECKING:
    from mm.types import AddressSpace, VmAreaStruct

SHT_SYMTAB, SHT_DYNSYM = 2, 11
STT_FUNC, STT_GNU_IFUNC = 2, 10
PT_LOAD = 1
MAX_TABLE = 8 << 20  # bytes of a symbol or string table that are still read
MAX_HEADERS = 4096
MAX_SEGMENTS = 64
MAX_TABLES = 2  # a file has one .symtab and one .dynsym
SYMBOL_SIZE = 24  # bytes of an Elf64_Sym


class Symbols:
    """The functions of every file asked about."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[AddressSpace, Table]] = {}  # id of the mapping, which is kept alive

    def function(self, vma: VmAreaStruct, address: int) -> str:
        """The name of the function at `address` in `vma`; empty where no symbol covers it."""
        if vma.vm_file is None:
            return ""
        mapping = vma.vm_file.f_mapping
        kept = self._tables.get(id(mapping))
        if kept is None:
            kept = self._tables[id(mapping)] = (mapping, Table(mapping))
        return kept[1].at((vma.vm_pgoff << vma.vm_mm.arch.page_shift) + address - vma.vm_start)


class Table:
    """The functions of one file, by file offset."""

    def __init__(self, mapping: AddressSpace) -> None:
        self._starts: list[int] = []
        self._functions: list[tuple[int, str]] = []  # (end, name)
        try:
            found = _functions(mapping)
        except (struct.error, ValueError):
            return
        for start, end, name in sorted(found):
            self._starts.append(start)
            self._functions.append((end, name))

    def at(self, offset: int) -> str:
        """The function that covers this byte of the file."""
        index = bisect_right(self._starts, offset) - 1
        if index < 0:
            return ""
        end, name = self._functions[index]
        return name if offset < end else ""


def _functions(mapping: AddressSpace) -> list[tuple[int, int, str]]:
    """(first offset in the file, end, name) of each function. Raises struct.error for what is no ELF file."""

    def read(offset: int, count: int) -> bytes:
        return shmem_read(mapping, offset, min(count, MAX_TABLE), mark=False)

    head = read(0, 64)
    if head[:6] != b"\x7fELF\x02\x01":
        return []
    phoff, shoff = struct.unpack_from("<QQ", head, 32)
    phnum, _, shnum = struct.unpack_from("<HHH", head, 56)
    segments = []
    for kind, _, offset, vaddr, _, size, _, _ in struct.iter_unpack(
        "<IIQQQQQQ", _whole(read(phoff, 56 * min(phnum, MAX_SEGMENTS)), 56)
    ):
        if kind == PT_LOAD:
            segments.append((vaddr, vaddr + size, offset - vaddr))
    sections = list(struct.iter_unpack("<IIQQQQIIQQ", _whole(read(shoff, 64 * min(shnum, MAX_HEADERS)), 64)))
    tables = [section for section in sections if section[1] in (SHT_SYMTAB, SHT_DYNSYM)]
    tables.sort(key=lambda section: -section[1])  # .dynsym first: .symtab, which has more names, wins
    found: dict[int, tuple[int, str]] = {}
    for _, _, _, _, offset, size, link, _, _, _ in tables[-MAX_TABLES:]:
        if link >= len(sections):
            continue
        names = read(sections[link][4], sections[link][5])
        for name, info, _, index, value, length in struct.iter_unpack(
            "<IBBHQQ", _whole(read(offset, size), SYMBOL_SIZE)
        ):
            if info & 0xF not in (STT_FUNC, STT_GNU_IFUNC) or not index or name >= len(names):
                continue
            for low, high, shift in segments:
                if low <= value < high:
                    text = names[name : names.find(b"\0", name)].decode("ascii", "backslashreplace")
                    found[value + shift] = (value + shift + max(length, 1), text)
    return [(start, end, name) for start, (end, name) in found.items()]


def _whole(data: bytes, size: int) -> bytes:
    """As much of a table as is whole entries."""
    return data[: len(data) - len(data) % size]
