"""How strace writes single values: numbers, flag words, strings, signal sets, errno results.

Every function takes the `Syscall` being shown and one raw argument, and returns text. `NULL` for a null pointer, the
bare address where memory cannot be read, `"..."` after 32 bytes: strace's rules, checked against strace 6.1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any

MAX_STRING = 32  # bytes of a buffer shown (strace -s)
MAX_ELEMENTS = 32  # elements of an array shown
PATH_MAX = 4096

ERESTART = {
    512: "ERESTARTSYS (To be restarted if SA_RESTART is set)",
    513: "ERESTARTNOINTR (To be restarted)",
    514: "ERESTARTNOHAND (To be restarted if no handler)",
    516: "ERESTART_RESTARTBLOCK (Interrupted by signal)",
}

SIGNALS = [
    "0",
    "HUP",
    "INT",
    "QUIT",
    "ILL",
    "TRAP",
    "ABRT",
    "BUS",
    "FPE",
    "KILL",
    "USR1",
    "SEGV",
    "USR2",
    "PIPE",
    "ALRM",
    "TERM",
    "STKFLT",
    "CHLD",
    "CONT",
    "STOP",
    "TSTP",
    "TTIN",
    "TTOU",
    "URG",
    "XCPU",
    "XFSZ",
    "VTALRM",
    "PROF",
    "WINCH",
    "IO",
    "PWR",
    "SYS",
    "RTMIN",
]


class Syscall:
    """One call on show: name, raw unsigned arguments, a reader of the caller's memory and, once back, the result."""

    __slots__ = ("abi", "args", "kept", "name", "page_size", "peek", "result", "sp")

    def __init__(
        self, name: str, args: tuple[int, ...], peek: Callable[[int, int], bytes], abi: Any, page_size: int = 4096
    ) -> None:
        self.name = name
        self.args = args
        self.peek = peek  # (address, count) -> the bytes that can be read, perhaps fewer
        self.abi = abi  # the module strace_arch_*.py of the machine
        self.page_size = page_size  # bytes
        self.sp = 0  # stack pointer on entry
        self.kept: int | None = None  # a number read on entry that the call changes
        self.result: int | None = None  # signed; negative errno on failure; None while inside

    @property
    def failed(self) -> bool:
        """Whether the call has come back with an error."""
        return self.result is not None and -4096 < self.result < 0

    def read(self, address: int, count: int) -> bytes | None:
        """`count` bytes at `address`, or None when they are not all there."""
        data = self.peek(address, count)
        return data if len(data) == count else None


Show = Callable[[Syscall, int], "str | None"]


class Out:
    """Marks a decoder whose argument the call fills."""

    __slots__ = ("show",)

    def __init__(self, show: Show) -> None:
        self.show = show


Params = tuple["Show | Out", ...]


def signed(value: int, bits: int = 32) -> int:
    """The low `bits` of a raw argument as a C signed integer."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def show_int(call: Syscall, value: int) -> str:
    """A C int."""
    return str(signed(value))


def show_unsigned(call: Syscall, value: int) -> str:
    """A C unsigned int."""
    return str(value & 0xFFFFFFFF)


def show_long(call: Syscall, value: int) -> str:
    """A C long, off_t or ssize_t."""
    return str(signed(value, 64))


def show_size(call: Syscall, value: int) -> str:
    """A size_t."""
    return str(value)


def show_hex(call: Syscall, value: int) -> str:
    """Any word in hexadecimal, `0` for zero, as `%#lx`."""
    return hex(value) if value else "0"


def show_octal(call: Syscall, value: int) -> str:
    """A file mode or umask."""
    return mode_digits(value & 0xFFFF)


def mode_digits(mode: int) -> str:
    """Permission bits in octal with a leading zero, at least three characters (printf's `%#03o`)."""
    return ("0" + f"{mode:o}").rjust(3, "0") if mode else "000"


def show_pointer(call: Syscall, value: int) -> str:
    """An address, `NULL` for zero."""
    return hex(value) if value else "NULL"


def show_fd(call: Syscall, value: int) -> str:
    """A file descriptor."""
    return str(signed(value))


def show_dirfd(call: Syscall, value: int) -> str:
    """A directory descriptor of an *at call."""
    number = signed(value)
    return "AT_FDCWD" if number == -100 else str(number)


def show_id(call: Syscall, value: int) -> str:
    """A uid or gid, -1 for "leave it"."""
    return "-1" if value & 0xFFFFFFFF == 0xFFFFFFFF else str(value & 0xFFFFFFFF)


def flag_text(value: int, names: Mapping[int, str], unknown: str, zero: str = "0") -> str:
    """A flag word: names in the order of the table joined by `|`, bits without a name in hexadecimal.

    Args:
        names: value -> name; a value may have several bits and then needs them all.
        unknown: the comment for a word in which no bit has a name, e.g. `MAP_???`.
        zero: what 0 reads as.
    """
    if value == 0:
        return zero
    parts = []
    rest = value
    for bits, name in names.items():
        if bits and rest & bits == bits:
            parts.append(name)
            rest &= ~bits
    if not parts:
        return f"{value:#x} /* {unknown} */"
    if rest:
        parts.append(hex(rest))
    return "|".join(parts)


def flags(names: Mapping[int, str], unknown: str, zero: str = "0", bits: int = 32) -> Show:
    """A decoder of flag words (see `flag_text`)."""
    mask = (1 << bits) - 1

    def show(call: Syscall, value: int) -> str:
        return flag_text(value & mask, names, unknown, zero)

    return show


def choice(names: Mapping[int, str], unknown: str) -> Show:
    """A decoder of enumerations: exactly one name, else the number with a comment."""

    def show(call: Syscall, value: int) -> str:
        value &= 0xFFFFFFFF
        return names.get(value) or f"{value:#x} /* {unknown} */"

    return show


def quote(data: bytes, force_hex: bool = False) -> str:
    """Bytes as a C string literal: shortest octal escapes, three digits before a digit."""
    if force_hex:
        return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'
    out = ['"']
    for index, byte in enumerate(data):
        escape = ESCAPES.get(byte)
        if escape is not None:
            out.append(escape)
        elif 0x20 <= byte < 0x7F:
            out.append(chr(byte))
        elif data[index + 1 : index + 2] in OCTAL:
            out.append(f"\\{byte:03o}")
        else:
            out.append(f"\\{byte:o}")
    out.append('"')
    return "".join(out)


OCTAL = tuple(bytes([digit]) for digit in b"01234567")
ESCAPES = {0x09: "\\t", 0x0A: "\\n", 0x0B: "\\v", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}


def c_string(call: Syscall, address: int, limit: int) -> bytes | None:
    """The bytes of a NUL-terminated string, at most `limit` of them; None when its start cannot be read.

    Read in pieces that end at 256-byte boundaries, so that a string just before an unmapped page is read whole.
    """
    found = bytearray()
    while len(found) <= limit:
        count = 256 - (address + len(found)) % 256
        piece = call.peek(address + len(found), count)
        end = piece.find(0)
        if end >= 0:
            return bytes(found) + piece[:end]
        found += piece
        if len(piece) < count:
            return None
    return bytes(found)


def show_path(call: Syscall, value: int) -> str:
    """A path name, in full."""
    if value == 0:
        return "NULL"
    text = c_string(call, value, PATH_MAX)
    return hex(value) if text is None else quote(text[: PATH_MAX - 1])


def show_string(call: Syscall, value: int) -> str:
    """A string that is not a path: 32 bytes of it."""
    if value == 0:
        return "NULL"
    text = c_string(call, value, MAX_STRING + 1)
    if text is None:
        return hex(value)
    return quote(text[:MAX_STRING]) + ("..." if len(text) > MAX_STRING else "")


def buffer_text(call: Syscall, address: int, count: int, force_hex: bool = False) -> str:
    """`count` bytes at `address`, 32 of them shown."""
    if address == 0:
        return "NULL"
    if count == 0:
        return '""'
    data = call.read(address, min(count, MAX_STRING))
    if data is None:
        return hex(address)
    return quote(data, force_hex) + ("..." if count > MAX_STRING else "")


def buffer_of(index: int) -> Show:
    """A buffer the caller wrote, its size being argument `index`."""

    def show(call: Syscall, value: int) -> str:
        return buffer_text(call, value, call.args[index])

    return show


def show_filled(call: Syscall, value: int) -> str:
    """A buffer the call filled with as many bytes as it returned."""
    if call.failed or call.result is None:
        return show_pointer(call, value)
    return buffer_text(call, value, call.result)


def show_random(call: Syscall, value: int) -> str:
    """getrandom's buffer, in hexadecimal."""
    if call.failed or call.result is None:
        return show_pointer(call, value)
    return buffer_text(call, value, call.result, force_hex=True)


def signal_name(number: int, prefix: str = "SIG") -> str:
    """`SIGSEGV`, `SIGRTMIN`, `SIGRT_1`; the number when there is no such signal."""
    if 0 < number < len(SIGNALS):
        return prefix + SIGNALS[number]
    if len(SIGNALS) <= number <= 64:
        return f"{prefix}RT_{number - 32}"
    return str(number)


def show_signal(call: Syscall, value: int) -> str:
    """A signal number."""
    return signal_name(signed(value))


def set_text(mask: int) -> str:
    """A 64-bit signal set; of one that is two thirds full, the complement."""
    prefix = ""
    if mask.bit_count() >= 64 * 2 // 3:
        mask = ~mask & 0xFFFFFFFFFFFFFFFF
        prefix = "~"
    names = [signal_name(bit + 1, "") for bit in range(64) if mask >> bit & 1]
    return f"{prefix}[{' '.join(names)}]"


def show_sigset(call: Syscall, value: int) -> str:
    """A pointer to a signal set the caller wrote."""
    return sigset_text(call, value, 8)


def sigset_text(call: Syscall, value: int, size: int) -> str:
    """A signal set of `size` bytes; only 8 is one."""
    if value == 0:
        return "NULL"
    data = call.read(value, 8) if size == 8 else None
    return hex(value) if data is None else set_text(int.from_bytes(data, "little"))


def sized_sigset(index: int) -> Show:
    """A signal set whose size is argument `index`."""
    return lambda call, value: sigset_text(call, value, call.args[index])


def unless_failed(show: Show) -> Show:
    """A decoder of something the call fills: the bare address when it failed."""

    def wrapped(call: Syscall, value: int) -> str | None:
        if call.failed:
            return show_pointer(call, value)
        return show(call, value)

    return wrapped


def array(size: int, element: Callable[[Syscall, bytes], str], count: int) -> Show:
    """An array of `size`-byte elements, their number being argument `count`."""

    def show(call: Syscall, value: int) -> str:
        return array_text(call, value, signed(call.args[count]), size, element)

    return show


def array_text(call: Syscall, address: int, count: int, size: int, element: Callable[[Syscall, bytes], str]) -> str:
    """`[a, b, ...]` of `count` elements in the guest's memory."""
    if address == 0:
        return "NULL"
    if count == 0:
        return "[]"
    if count < 0 or count * size >> 64:
        return hex(address)
    parts = []
    for index in range(count):
        if index == MAX_ELEMENTS:
            parts.append("...")
            break
        data = call.read(address + index * size, size)
        if data is None:
            if index == 0:
                return hex(address)
            parts.append(f"... /* {address + index * size:#x} */")
            break
        parts.append(element(call, data))
    return f"[{', '.join(parts)}]"


def number_body(size: int, is_signed: bool = True) -> Callable[[Syscall, bytes], str]:
    """A body of a structure: one decimal number of `size` bytes, in brackets."""
    return lambda call, data: f"[{int.from_bytes(data[:size], 'little', signed=is_signed)}]"


def result_text(call: Syscall, shown: str | None = None) -> str:
    """What follows `= `: the value, or -1 with errno's name and message.

    Args:
        shown: how a successful result reads; None for a decimal number.
    """
    result = call.result
    if result is None:
        return "?"
    if -4096 < result < 0:
        if -result in ERESTART:
            return f"? {ERESTART[-result]}"
        name = errno.errorcode.get(-result)
        if name is None:
            return f"-1 (errno {-result})"
        return f"-1 {ERRNO_ALIASES.get(name, name)} ({os.strerror(-result)})"
    return str(result) if shown is None else shown


ERRNO_ALIASES = {"EWOULDBLOCK": "EAGAIN", "EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP"}
