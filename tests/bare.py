"""A machine with an engine and no kernel: page tables written by the test, traps recorded or answered by it."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from mm.system import System

ARCHES = ("x86_64-4k", "x86_64-4k-la57", "aarch64-4k", "aarch64-16k", "aarch64-64k")
X86 = ARCHES[:2]
ARM = ARCHES[2:]
NOP, UDF, SVC = 0xD503201F, 0, 0xD4000001  # arm64 instructions


def movabs(register: int, value: int) -> bytes:
    """mov r, imm64 for rax..rdi."""
    return bytes([0x48, 0xB8 + register]) + struct.pack("<Q", value)


def make_arch(name: str) -> Any:
    if name.startswith("x86_64"):
        from mm.arch_x86_64 import make

        return make(la57=name.endswith("la57"))
    from mm.arch_arm64 import make as make_arm64

    return make_arm64({"4k": 4096, "16k": 16384, "64k": 65536}[name.split("-")[1]])


class Mm:
    def __init__(self, bare: Bare) -> None:
        self.arch = bare.system.arch
        self.system = bare.system
        self.tlb_flush_pending = False
        self.icache_pending: list[int] = []
        self.pgd = bare.frame()
        for index, entry in bare.system.kernel_pgd:
            self.system.words[(self.pgd << self.arch.table_word_shift) + index] = entry


class Task:
    mm: Mm


class GuestArch:
    def __init__(self, bare: Bare) -> None:
        self.bare = bare

    def exception(self, kernel: Any, *details: int) -> None:
        self.bare.trap("exception", *details)


class Bare:
    """Acts as the Kernel. `traps` holds what came; `answer(kind, *details)` may change registers and tables.

    An answer of None leaves the engine, anything else resumes.
    """

    USER, CODE, STACK = 0x10000000, 0x400000, 0x7FFF00000000

    def __init__(self, name: str, model: str | None = None, ram: int = 32 << 20) -> None:
        self.memory = mmap.mmap(-1, ram)
        self.system = System(make_arch(name), memoryview(self.memory))
        if name in X86:
            from emu.arch_x86_64 import X86Engine as Engine
        else:
            from emu.arch_arm64 import Arm64Engine as Engine  # type: ignore[assignment]
        self.engine = Engine(self.system, model)
        self.arch = GuestArch(self)
        self.is_x86 = name in X86
        self.page = self.system.arch.page_size
        self.current = Task()
        self.mm = self.current.mm = Mm(self)
        self.need_resched = False
        self.traps: list[tuple[Any, ...]] = []
        self.answer: Any = lambda *_: None
        self.engine.attach(self)  # type: ignore[arg-type]
        self.engine.set_root(self.mm.pgd)
        self.code = self.map(self.CODE, "rx")
        self.map(self.STACK, "rw")

    # the Kernel's side

    def trap(self, *details: Any) -> None:
        self.traps.append(details)
        if self.answer(*details) is None:
            self.need_resched = True

    def system_call(self) -> None:
        self.trap("syscall", self.engine.regs[0 if self.is_x86 else 8])

    def page_fault(self, code: int, address: int) -> None:
        self.trap("fault", code, address)

    # the test's side

    def frame(self) -> int:
        return self.engine._frame() if hasattr(self, "engine") else 0

    def leaf(self, pfn: int, access: str) -> int:
        if self.is_x86:
            return pfn << 12 | 5 | (2 if "w" in access else 0) | (0 if "x" in access else 1 << 63)
        bits = 3 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11 | 1 << 53
        bits |= (0 if "w" in access else 1 << 7) | (0 if "x" in access else 1 << 54)
        return pfn << self.system.arch.page_shift | bits

    def slot(self, address: int) -> int:
        arch, words = self.system.arch, self.system.words
        table = self.mm.pgd << arch.table_word_shift
        for shift in arch.level_shifts[:-1]:
            at = table + (address >> shift & arch.index_mask)
            if not words[at]:
                words[at] = self.frame() << arch.page_shift | (7 if self.is_x86 else 3)
            table = (words[at] & arch.PTE_PFN_MASK) >> 3
        return table + (address >> arch.page_shift & arch.index_mask)

    def map(self, address: int, access: str, pfn: int | None = None) -> int:
        """Map a page with access out of "rwx"; its frame."""
        pfn = self.frame() if pfn is None else pfn
        self.system.words[self.slot(address)] = self.leaf(pfn, access)
        return pfn

    def unmap(self, address: int) -> None:
        self.system.words[self.slot(address)] = 0

    def put(self, pfn: int, data: bytes, offset: int = 0) -> None:
        at = pfn * self.page + offset
        self.system.ram[at : at + len(data)] = data

    def get(self, pfn: int, size: int, offset: int = 0) -> bytes:
        at = pfn * self.page + offset
        return bytes(self.system.ram[at : at + size])

    def load(self, code: bytes | list[int], at: int = 0) -> None:
        """Place code in the code page, start there, fresh registers."""
        if not isinstance(code, bytes):
            code = struct.pack(f"<{len(code)}I", *code)
        self.put(self.code, code, at)
        self.mm.icache_pending.append(self.CODE)
        self.engine.sync_mm(self.mm)  # type: ignore[arg-type]
        self.engine.reset_state()
        self.engine.regs[self.engine.PC] = self.CODE + at
        self.engine.regs[4 if self.is_x86 else 31] = self.STACK + self.page // 2
        self.traps.clear()
        self.need_resched = False

    def run(self, code: bytes | list[int] | None = None, answer: Any = None, count: int = 0) -> list[tuple[Any, ...]]:
        if code is not None:
            self.load(code)
        if answer is not None:
            self.answer = answer
        self.need_resched = False
        self.engine.run(count)
        return self.traps

    @property
    def pc(self) -> int:
        return self.engine.regs[self.engine.PC]
