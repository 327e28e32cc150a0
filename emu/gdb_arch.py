"""Registers as gdb numbers them: the target description of each architecture and where each register's bytes are.

A register is a piece of one of the sets ptrace shows (guest/ptrace_regs.py), so gdb sees what it would see natively.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emu.engine import Engine
    from emu.machine import Machine
    from guest.task import Task

MODULES = {"x86_64": "emu.gdb_arch_x86_64", "aarch64": "emu.gdb_arch_arm64"}


class Register(NamedTuple):
    """One register. It is `length` bytes at `offset` of the set `note`, zero-extended; `note` 0: always zero."""

    name: str
    bits: int
    type: str
    note: int
    offset: int
    length: int


class GdbArch:
    """One architecture's description."""

    name = ""  # gdb's
    features: tuple[tuple[str, str, tuple[Register, ...]], ...] = ()  # feature's name, its types in XML, registers
    pc = sp = fp = 0  # numbers of the registers a stop reply brings along
    watch_before = False  # gdb expects a watchpoint's stop before the access, and steps over it by itself

    def __init__(self) -> None:
        self.registers = [register for _, _, group in self.features for register in group]

    def description(self) -> bytes:
        """target.xml."""
        lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>"]
        lines += [f"<architecture>{self.name}</architecture>", "<osabi>GNU/Linux</osabi>"]
        number = 0
        for feature, types, group in self.features:
            lines += [f'<feature name="{feature}">', types]
            for register in group:
                lines.append(
                    f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}" regnum="{number}"/>'
                )
                number += 1
            lines.append("</feature>")
        return "\n".join([*lines, "</target>"]).encode()

    def convert(self, register: Register, data: bytes) -> bytes:
        """The register's bytes out of its set's, where they are not the same."""
        return data

    def patch(self, task: Task, images: dict[int, bytes]) -> None:
        """Change what the sets say, where a debugger expects something else."""

    def values(self, machine: Machine, task: Task) -> list[bytes]:
        """Every register of `task`, in order."""
        view = machine.kernel.arch.user_registers()
        images: dict[int, bytes] = {}
        with loaded(machine, task) as cpu:
            for note in {register.note for register in self.registers if register.note}:
                images[note] = view.read(cpu, task, note)
        self.patch(task, images)
        found = []
        for register in self.registers:
            data = images[register.note][register.offset : register.offset + register.length] if register.note else b""
            found.append(self.convert(register, data).ljust(register.bits // 8, b"\0"))
        return found

    def set(self, machine: Machine, task: Task, changes: dict[int, bytes]) -> None:
        """Write registers by number. Raises Errno when the kernel refuses the value."""
        view = machine.kernel.arch.user_registers()
        images: dict[int, bytearray] = {}
        with loaded(machine, task) as cpu:
            if task.in_call:
                _leave_call(machine, task)
            for number, data in changes.items():
                register = self.registers[number]
                if not register.note or self.convert(register, b"\1") != b"\1":
                    continue
                if register.note not in images:
                    images[register.note] = bytearray(view.read(cpu, task, register.note))
                at = register.offset
                images[register.note][at : at + register.length] = data[: register.length].ljust(register.length, b"\0")
            for note, image in images.items():
                view.write(cpu, task, note, bytes(image))


def _leave_call(machine: Machine, task: Task) -> None:
    """Somebody changes the registers of a task that sleeps in a call: the call is made again when it comes back."""
    task.in_call = False
    task.wait_state = {}
    machine.kernel.arch.restart_syscall(machine.engine)
    machine.kernel.wake_up(task)


@contextmanager
def loaded(machine: Machine, task: Task) -> Iterator[Engine]:
    """The engine with the registers of `task` in it. Whose registers it held keeps them, the exclusive monitor too."""
    engine = machine.engine
    if machine._loaded is task:
        yield engine
        return
    if not task.cpu_state:
        raise Errno(3)  # ESRCH: it never ran, or is gone
    kept = bytes(engine._bytes)
    engine.load_state(task.cpu_state)
    try:
        yield engine
        task.cpu_state = engine.save_state()
    finally:
        engine._bytes[:] = kept


def of(name: str) -> GdbArch:
    """The description of an architecture by its name in mm/."""
    made: GdbArch = import_module(MODULES[name]).ARCH
    return made
