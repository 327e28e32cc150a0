"""A machine without an engine: a Cpu that is an array of ints, RAM that is a bytearray."""

from __future__ import annotations

import mmap
import pickle
import struct
from typing import Any

from guest.arch import make as make_guest_arch
from guest.config import Config
from guest.kernel import Kernel
from mm.system import System

RAM = 1 << 30


class FakeCpu:
    """Implements guest.hw.Cpu with nothing behind it."""

    def __init__(self) -> None:
        self.regs = [0] * 33
        self.flags = 0x202
        self.tls = self.gs = 0
        self.fpu = b""

    def get_flags(self) -> int:
        return self.flags

    def set_flags(self, value: int) -> None:
        self.flags = value

    def get_tls(self) -> int:
        return self.tls

    def set_tls(self, value: int) -> None:
        self.tls = value

    def get_gs(self) -> int:
        return self.gs

    def set_gs(self, value: int) -> None:
        self.gs = value

    def get_fpu(self) -> bytes:
        return self.fpu.ljust(528, b"\0")

    def set_fpu(self, image: bytes) -> None:
        self.fpu = image

    def save_state(self) -> bytes:
        return pickle.dumps((list(self.regs), self.flags, self.tls, self.gs, self.fpu))

    def load_state(self, state: bytes) -> None:
        regs, self.flags, self.tls, self.gs, self.fpu = pickle.loads(state)
        self.regs[:] = regs

    def reset_state(self) -> None:
        self.regs[:] = [0] * 33
        self.flags, self.tls, self.gs, self.fpu = 0x202, 0, 0, b""


def make_mm_arch(kernel_name: str) -> Any:
    """mm's Arch of one of the five geometries, by the oracle's name for it."""
    name, page, *rest = kernel_name.split("-")
    if name == "x86_64":
        from mm import arch_x86_64

        return arch_x86_64.make(la57=bool(rest))
    from mm import arch_arm64

    return arch_arm64.make(int(page[:-1]) * 1024)


def make_kernel(kernel_name: str = "x86_64-4k", ram: int = RAM, **settings: Any) -> Kernel:
    """A kernel with captured output and nothing running."""
    arch = make_mm_arch(kernel_name)
    system = System(arch, memoryview(mmap.mmap(-1, ram)).cast("B"))
    settings.setdefault("stdout", "capture")
    settings.setdefault("stderr", "capture")
    return Kernel(system, make_guest_arch(arch.name), FakeCpu(), Config(**settings))


def syscall(kernel: Kernel, name: str, *args: int) -> int:
    """Trap with a call as user code would; its result as a signed number."""
    from guest.syscall_numbers import NAMES

    arch = kernel.arch
    regs = kernel.cpu.regs
    number = next(n for n, found in NAMES[arch.name].items() if found == name)
    regs[arch.number] = number
    for register, value in zip(arch.arguments, args, strict=False):
        regs[register] = value & 0xFFFFFFFFFFFFFFFF
    kernel.system_call()
    return struct.unpack("<q", struct.pack("<Q", regs[arch.result]))[0]
