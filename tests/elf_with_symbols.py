"""A static x86-64 program by hand: one page of code that reads address 0, and a symbol table with its function."""

import struct

BASE = 0x400000
CODE = b"\x31\xc0\x8b\x00"  # xor eax, eax; mov eax, [rax]


def program(function: str) -> bytes:
    """The ELF file; `function` is its only function."""
    header, segment = 64, 56
    code_at = header + segment
    symbols_at = code_at + len(CODE)
    names = b"\0" + function.encode() + b"\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, BASE + code_at, len(CODE))
    names_at = symbols_at + len(symbols)
    sections_at = names_at + len(names)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, symbols_at, len(symbols), 2, 1, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    size = sections_at + len(sections)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + code_at, header, sections_at, 0, 64, 56, 1, 64, 3, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096)
    return head + load + CODE + symbols + names + sections
