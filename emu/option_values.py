"""One option of the command line, and the parsers of values: text -> value; ValueError or KeyError for another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.options import Options

MIN_RAM = 4 << 20


def number(text: str, low: int = 0, high: int = (1 << 64) - 1) -> int:
    """A whole number in Python's notations; raises ValueError outside [low, high]."""
    value = int(text, 0)
    if not low <= value <= high:
        raise ValueError
    return value


def size(text: str) -> int:
    """Bytes, with an optional suffix k, m or g (powers of 1024)."""
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}.get(text[-1:].lower(), 1)
    return number(text[:-1] if factor > 1 else text, 1) * factor


def ram_size(text: str) -> int:
    """Guest memory."""
    value = size(text)
    if value < MIN_RAM:
        raise PagewalkError(f"--ram {text}: too small, the machine needs at least {MIN_RAM >> 20}M")
    if value % 65536:
        raise PagewalkError(f"--ram {text}: not a multiple of 64k, the largest page size")
    if value > 1 << 40:
        raise PagewalkError(f"--ram {text}: too large, the machine takes at most 1024G")
    return value


def page_size(text: str) -> int:
    """4k, 16k or 64k."""
    return {"4k": 4096, "16k": 16384, "64k": 65536}[text.lower()]


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError
    return key, value


def mount(text: str) -> tuple[str, str, str]:
    """HOST:GUEST[:ro|rw]; GUEST is absolute."""
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("ro")
    host, guest, mode = parts
    if not host or not guest.startswith("/") or mode not in ("ro", "rw"):
        raise ValueError
    return host, guest, mode


def seconds(text: str) -> float:
    """A positive time."""
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def injection(text: str) -> Any:
    """SET:ACTION[:...] of --inject."""
    from emu.inject import Injection

    return Injection(text)


def algorithm(text: str) -> Any:
    """NAME=FILE.py:FUNCTION of --algorithm."""
    from emu.algorithm import Algorithm

    return Algorithm.parse(text)


def geometries(text: str) -> list[str]:
    """Names of --geometry, separated by commas."""
    from emu.compare import GEOMETRIES

    names = text.split(",")
    for name in names:
        if name not in GEOMETRIES:
            raise PagewalkError(f"--geometry {name}: expected {', '.join(GEOMETRIES)}")
    return names


def memory_call(text: str) -> Any:
    """N or NAME[:K] of --call."""
    from emu.explain_call import CallWanted

    return CallWanted(int(text) if text.isdigit() else text)


def gdb_port(text: str) -> tuple[int, bool]:
    """PORT[,suspend=y|n] of -g."""
    port, comma, suspend = text.partition(",")
    waits = {"suspend=y": True, "suspend=n": False}[suspend] if comma else True
    return number(port, 0, 65535), waits


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of these words."""
    return lambda text: words[words.index(text)]


class Option:
    """One option: where its value goes and how it is read.

    Args:
        names: its spellings, `--root` or `-E`.
        attribute: the field of `Options` it sets; a list is appended to.
        metavar: the value's name in help; empty for a switch, `[=FILE]` for a value that only `=` can give.
        parse: text -> value; ValueError and KeyError mean "not of this form".
        form: what the value should have looked like, for the error line.
        help: one line.
    """

    __slots__ = ("attribute", "form", "help", "metavar", "names", "parse")

    def __init__(
        self,
        names: tuple[str, ...],
        attribute: str,
        metavar: str,
        parse: Callable[[str], Any],
        form: str,
        help: str,
    ) -> None:
        self.names = names
        self.attribute = attribute
        self.metavar = metavar
        self.parse = parse
        self.form = form
        self.help = help

    def set(self, options: Options, text: str) -> None:
        """Read `text` into `options`."""
        try:
            value = self.parse(text)
        except (ValueError, KeyError):
            shown = f"{self.names[0]} {text}".rstrip()
            raise PagewalkError(f"{shown}: expected {self.form}") from None
        field = getattr(options, self.attribute)
        if isinstance(field, list):
            field.extend(value if isinstance(value, list) else [value])
        else:
            setattr(options, self.attribute, value)


def switch(name: str, attribute: str, help: str) -> Option:
    """An option without a value."""
    return Option((name,), attribute, "", lambda text: True, "", help)
