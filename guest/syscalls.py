"""The system call table: per architecture, a list indexed by number, joined from the families' CALLS and the numbers.

A family is a module with handlers and `CALLS = (Call(...), ...)` at its end. A handler takes the task and as many raw
unsigned 64-bit arguments as it names, returns an int, and refuses by raising Errno.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from guest.syscall_numbers import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = "full"
PARTIAL = "partial"

# The modules that serve calls, in the order the support table lists them.
FAMILIES = (
    "guest.sys_file",
    "guest.sys_file_dir",
    "guest.sys_file_meta",
    "guest.sys_file_io",
    "guest.sys_file_fd",
    "guest.sys_file_stat",
    "guest.sys_file_lock",
    "guest.sys_poll",
    "guest.sys_misc",
    "guest.sys_mm",
    "guest.sys_mm_advice",
    "guest.sys_shm",
    "guest.sys_process_vm",
    "guest.sys_mempolicy",
    "guest.sys_process",
    "guest.sys_wait",
    "guest.sys_prctl",
    "guest.sys_sched",
    "guest.pidfd",
    "guest.sys_signal",
    "guest.sys_time",
    "guest.sys_timer",
    "guest.sys_cred",
    "guest.futex",
)


class Call(NamedTuple):
    """One served system call."""

    name: str
    handler: Callable[..., int]
    support: str = FULL
    note: str = ""
    only: str = ""  # the one architecture that has it in this form


class Entry:
    """What the dispatcher needs of a call."""

    __slots__ = ("fetch", "handler", "nargs", "name", "support")

    def __init__(self, call: Call, arguments: tuple[int, ...]) -> None:
        self.name = call.name
        self.handler = call.handler
        self.support = call.support
        self.nargs = call.handler.__code__.co_argcount - 1
        self.fetch = _fetcher(arguments[: self.nargs])

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("the system call table is built, not pickled")


class _Fetch0:
    """No arguments."""

    __slots__ = ()

    def __call__(self, regs: Any) -> tuple[int, ...]:
        return ()


class _Fetch1:
    """One argument, as a tuple: itemgetter of one index gives no tuple."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, regs: Any) -> tuple[int, ...]:
        return (regs[self.index],)


def _fetcher(registers: tuple[int, ...]) -> Callable[[Any], tuple[int, ...]]:
    """A function from the register file to the argument tuple."""
    if not registers:
        return _Fetch0()
    if len(registers) == 1:
        return _Fetch1(registers[0])
    return itemgetter(*registers)


def calls() -> dict[str, Call]:
    """Every served call by name; a name bound to one architecture as NAME@ARCH."""
    from importlib import import_module
    from importlib.util import find_spec

    found: dict[str, Call] = {}
    for family in FAMILIES:
        if find_spec(family) is None:
            continue
        for call in import_module(family).CALLS:
            call = call if isinstance(call, Call) else Call(*call)
            found[f"{call.name}@{call.only}" if call.only else call.name] = call
    return found


def build(arch_name: str, arguments: tuple[int, ...]) -> list[Entry | None]:
    """The table of one architecture: index is the number, None where no handler is."""
    numbers = NAMES[arch_name]
    served = calls()
    table: list[Entry | None] = [None] * (max(numbers) + 1)
    for number, name in numbers.items():
        call = served.get(f"{name}@{arch_name}") or served.get(name)
        if call is not None:
            table[number] = Entry(call, arguments)
    return table


def support_table() -> list[tuple[str, str, dict[str, int]]]:
    """(name, support, note, {architecture: number}) of every call either architecture has, for documentation."""
    served = calls()
    names = sorted({name for numbers in NAMES.values() for name in numbers.values()})
    rows = []
    for name in names:
        where = {arch: number for arch, numbers in NAMES.items() for number, n in numbers.items() if n == name}
        found = [served[k] for k in (name, *(f"{name}@{arch}" for arch in where)) if k in served]
        if not found:
            rows.append((name, "none", "", where))
        else:
            rows.append((name, found[0].support, found[0].note, where))
    return rows  # type: ignore[return-value]
