"""Unicorn with nothing around it: the yardstick of the benchmark. Paging on, user mode, page tables written once.

It knows nothing of pagewalk: it loads the segments of a static ELF, maps every page of them, and answers system calls
and faults with the least Python that can. x86-64 and arm64 with 4K pages.
"""

import ctypes
import mmap
import struct
from typing import TYPE_CHECKING, Any

from unicorn import UC_ARCH_ARM64, UC_ARCH_X86, UC_HOOK_INSN, UC_HOOK_INTR, UC_MODE_64, UC_MODE_ARM, UC_PROT_ALL, Uc
from unicorn import arm64_const as arm
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

if TYPE_CHECKING:
    from collections.abc import Callable

RAM = 512 << 20
STACK = 0x7FFFFFFF0000
FAULTS = 0x200000000  # where the fault benchmark touches pages
EXIT_X86, EXIT_ARM = 231, 94


class Bare:
    """One engine with the program loaded; `run()` executes it to its exit_group."""

    is_x86 = False

    def __init__(self, image: bytes, argv: list[str]) -> None:
        self.ram = mmap.mmap(-1, RAM)
        self.table = memoryview(self.ram).cast("Q")
        self.frames = iter(range(16, RAM >> 12))
        self.root = next(self.frames)
        self.faults = 0
        self.uc = self.make()
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.uc.mem_map_ptr(0, RAM, UC_PROT_ALL, address)
        context = self.uc.context_save()
        self.context = context
        base = ctypes.cast(context.context, ctypes.c_void_p).value
        self.view = memoryview((ctypes.c_char * context.size).from_address(base)).cast("B")
        entry = self.load(image)
        self.boot(entry, self.make_stack(argv))

    def make(self) -> Uc:
        raise NotImplementedError

    def boot(self, entry: int, stack: int) -> None:
        raise NotImplementedError

    def user_bits(self, execute: bool) -> int:
        """Bits of a page table entry. Data must not be executable: the engine stores slowly to pages that are."""
        raise NotImplementedError

    def slot(self, address: int, root: int | None = None) -> int:
        """Index of the PTE among the words of RAM; tables are made on the way."""
        pfn = self.root if root is None else root
        table = self.table
        for shift in (39, 30, 21):
            index = (pfn << 9) + (address >> shift & 511)
            if not table[index] & 1:
                table[index] = next(self.frames) << 12 | self.table_bits
            pfn = table[index] >> 12 & (1 << 36) - 1
        return (pfn << 9) + (address >> 12 & 511)

    table_bits = 7

    def map(self, address: int, execute: bool = False) -> int:
        """A fresh page for user code; its frame."""
        frame = next(self.frames)
        self.table[self.slot(address)] = frame << 12 | self.user_bits(execute)
        return frame

    def load(self, image: bytes) -> int:
        """Map the segments; the entry point."""
        entry, phoff = struct.unpack_from("<QQ", image, 24)
        mapped: dict[int, int] = {}
        for i in range(struct.unpack_from("<H", image, 56)[0]):
            kind, flags, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", image, phoff + 56 * i)
            if kind != 1:
                continue
            for page in range(vaddr & ~4095, vaddr + memsz, 4096):
                if page not in mapped:
                    mapped[page] = self.map(page, bool(flags & 1))
            for i in range(filesz):
                at = vaddr + i
                self.ram[(mapped[at & ~4095] << 12) + (at & 4095)] = image[offset + i]
        return int(entry)

    def make_stack(self, argv: list[str]) -> int:
        """argc, argv, no environment, AT_PAGESZ; the stack pointer."""
        frame = self.map(STACK)
        for page in range(1, 8):
            self.map(STACK - (page << 12))
        strings, pointers = 0xF00, []
        for word in argv:
            data = word.encode() + b"\0"
            self.ram[(frame << 12) + strings : (frame << 12) + strings + len(data)] = data
            pointers.append(STACK + strings)
            strings += len(data)
        words = [len(argv), *pointers, 0, 0, 6, 4096, 0, 0]
        struct.pack_into(f"<{len(words)}Q", self.ram, (frame << 12) + 0xE00, *words)
        return STACK + 0xE00

    def run(self) -> None:
        raise NotImplementedError


class BareX86(Bare):
    is_x86 = True
    KERNEL = 0xFFFFFFFF80000000

    def make(self) -> Uc:
        return Uc(UC_ARCH_X86, UC_MODE_64)

    def user_bits(self, execute: bool) -> int:
        return 7 | (0 if execute else 1 << 63)

    def boot(self, entry: int, stack: int) -> None:
        uc, ram, kernel = self.uc, self.ram, self.KERNEL
        self.table[self.slot(kernel)] = 1 << 12 | 3
        selectors = (
            0,
            0x00AF9B000000FFFF,
            0x00CF93000000FFFF,
            0x00CFFB000000FFFF,
            0x00CFF3000000FFFF,
            0x00AFFB000000FFFF,
        )
        ram[0x1000:0x1040] = struct.pack("<8Q", *selectors, 0, 0)
        struct.pack_into("<HQ", ram, 0x1700, 63, kernel)
        stub = b"\x0f\x01\x15" + struct.pack("<i", 0x700 - 0x807) + b"\x48\xcf"  # lgdt [rip+disp]; iretq
        ram[0x1800 : 0x1800 + len(stub)] = stub
        struct.pack_into("<5Q", ram, 0x1F00, entry, 0x2B, 0x202, stack, 0x23)
        uc.reg_write(x86.UC_X86_REG_CR3, self.root << 12)
        uc.reg_write(x86.UC_X86_REG_CR4, 1 << 5 | 1 << 9 | 1 << 10)
        uc.msr_write(0xC0000080, 1 << 0 | 1 << 8 | 1 << 11)
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80050033)
        uc.reg_write(x86.UC_X86_REG_RSP, kernel + 0xF00)

    def serve(self) -> None:
        """getppid costs one reg_read and one reg_write; the rest is rare."""

        def on_syscall(uc: Any, _data: Any) -> None:
            number = uc.reg_read(x86.UC_X86_REG_RAX)
            if number == EXIT_X86:
                uc.emu_stop()
            uc.reg_write(x86.UC_X86_REG_RAX, FAULTS if number == 9 else 1)

        self.uc.hook_add(UC_HOOK_INSN, on_syscall, None, 1, 0, x86.UC_X86_INS_SYSCALL)

    def serve_faults(self) -> None:
        """The empty fault hook: where was it, one page table entry, go on."""
        view = self.view
        size = len(view)
        word, half = view[: size // 8 * 8].cast("Q"), view[: size // 4 * 4].cast("I")
        handle, pointer = self.uc._uch, self.context.context
        cr2, old = self.find_cr2(word), 5536 // 4
        table, frames, slot = self.table, self.frames, self.slot
        bits = self.user_bits(False)

        def on_interrupt(_uc: Any, _number: int, _data: Any) -> None:
            uclib.uc_context_save(handle, pointer)
            address = word[cr2]
            half[old] = 0xFFFFFFFF
            uclib.uc_context_restore(handle, pointer)
            table[slot(address)] = next(frames) << 12 | bits
            self.faults += 1

        self.uc.hook_add(UC_HOOK_INTR, on_interrupt)

    def find_cr2(self, word: memoryview) -> int:
        self.uc.reg_write(x86.UC_X86_REG_CR2, 0x123456789ABC000)
        uclib.uc_context_save(self.uc._uch, self.context.context)
        return word.tolist().index(0x123456789ABC000)

    def run(self) -> None:
        self.uc.emu_start(self.KERNEL + 0x800, 0)


class BareArm(Bare):
    KERNEL = 0xFFFF000000080000
    table_bits = 3

    def make(self) -> Uc:
        uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
        return uc

    def user_bits(self, execute: bool) -> int:
        return 3 | (0 if execute else 1 << 54) | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11 | 1 << 53

    def system_register(self, op0: int, op1: int, crn: int, crm: int, op2: int, value: int | None = None) -> int:
        key = (crn, crm, op0, op1, op2)
        if value is None:
            return int(self.uc.reg_read(arm.UC_ARM64_REG_CP_REG, key))
        self.uc.reg_write(arm.UC_ARM64_REG_CP_REG, (*key, value))
        return value

    def boot(self, entry: int, stack: int) -> None:
        uc = self.uc
        kernel_root, frame = next(self.frames), next(self.frames)
        # msr sctlr_el1, x0; isb; msr spsr_el1, x1; msr elr_el1, x2; msr sp_el0, x3; eret
        stub = bytes.fromhex("001018d5df3f03d5014018d5224018d5034118d5e0039fd6")
        self.ram[frame << 12 : (frame << 12) + len(stub)] = stub
        self.table[self.slot(self.KERNEL & (1 << 48) - 1, kernel_root)] = frame << 12 | 3 | 3 << 8 | 1 << 10 | 1 << 54
        register = self.system_register
        register(3, 6, 1, 1, 0, 0x431)  # SCR_EL3
        register(3, 4, 1, 1, 0, 1 << 31)  # HCR_EL2
        register(3, 0, 10, 2, 0, 0xFF)  # MAIR_EL1
        register(3, 0, 2, 0, 2, 16 | 16 << 16 | 2 << 30 | 0x3500 | 0x35000000 | 5 << 32)  # TCR_EL1
        uc.reg_write(arm.UC_ARM64_REG_TTBR0_EL1, self.root << 12)
        uc.reg_write(arm.UC_ARM64_REG_TTBR1_EL1, kernel_root << 12)
        sctlr = register(3, 0, 1, 0, 0) | 1 << 0 | 1 << 2 | 1 << 12
        register(3, 0, 1, 0, 0, sctlr)
        uc.reg_write(arm.UC_ARM64_REG_X0, sctlr | 1 << 14 | 1 << 15 | 1 << 26)
        for name, value in (("X1", 0), ("X2", entry), ("X3", stack)):
            uc.reg_write(getattr(arm, f"UC_ARM64_REG_{name}"), value)
        uc.reg_write(arm.UC_ARM64_REG_CPACR_EL1, 3 << 20)

    def serve(self) -> None:
        """Both kinds of trap come through one hook here."""
        view = self.view
        word = view[: len(view) // 8 * 8].cast("Q")
        handle, pointer = self.uc._uch, self.context.context
        far = 3072 // 8
        table, frames, slot = self.table, self.frames, self.slot
        bits = self.user_bits(False)
        x0, x8 = arm.UC_ARM64_REG_X0, arm.UC_ARM64_REG_X8

        def on_interrupt(uc: Any, number: int, _data: Any) -> None:
            if number == 2:
                call = uc.reg_read(x8)
                if call == EXIT_ARM:
                    uc.emu_stop()
                uc.reg_write(x0, FAULTS if call == 222 else 1)
                return
            uclib.uc_context_save(handle, pointer)
            table[slot(word[far])] = next(frames) << 12 | bits
            self.faults += 1

        self.uc.hook_add(UC_HOOK_INTR, on_interrupt)

    def serve_faults(self) -> None:
        """Part of serve()."""

    def run(self) -> None:
        self.uc.emu_start(self.KERNEL, 0)


def make(arch: str, image: bytes, argv: list[str]) -> Bare:
    """A bare engine for `x86_64` or `aarch64`, its hooks installed."""
    bare: Callable[..., Any] = {"x86_64": BareX86, "aarch64": BareArm}[arch]
    engine = bare(image, argv)
    engine.serve()
    engine.serve_faults()
    return engine
