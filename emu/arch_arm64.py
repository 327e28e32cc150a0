"""arm64: boot to EL0 with 4K, 16K or 64K pages, layout of a saved context, traps with their ESR and FAR.

Boot enables EL1 as AArch64, sets the MMU up as Linux does, and a stub in the upper half sets SCTLR_EL1 and leaves by
ERET for an address that is not mapped. The prefetch abort that follows ends the boot; its syndrome and address are the
known values that calibrate where they lie in a context.

No exception class is lost: Unicorn's exception numbers come with QEMU's own syndrome, ESR_EL1 to the bit. What QEMU 5
does not raise and the hook adds is the PC alignment fault.
"""

from __future__ import annotations

from ctypes import Structure, byref, c_int, c_uint32, c_uint64
from typing import TYPE_CHECKING

from emu.engine import BOOT_FAULT, Engine, guarded
from emu.errors import EngineError
from emu.uclib import (
    HOOK_INTR,
    HOOK_INVALID,
    UC_ARCH_ARM64,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    UC_MODE_ARM,
    check,
    uc_context_restore,
    uc_context_save,
    uc_emu_stop,
    uc_reg_read,
    uc_reg_write,
)

if TYPE_CHECKING:
    from guest.kernel import Kernel

# Numbers of Unicorn's registers (arm64_const.py).
REG_X29, REG_X30, REG_SP, REG_X0, REG_V0, REG_PC, REG_TPIDR_EL0 = 1, 2, 4, 199, 228, 260, 262
REG_PSTATE, REG_TTBR0, REG_TTBR1, REG_CP, REG_FPCR, REG_FPSR = 265, 274, 275, 290, 291, 292
REG_GENERAL = (*range(REG_X0, REG_X0 + 29), REG_X29, REG_X30, REG_SP)

SP, PC = 31, 32
EXCP_UDEF, EXCP_SWI, EXCP_PREFETCH_ABORT, EXCP_DATA_ABORT = 1, 2, 3, 4
ABORTS = (EXCP_DATA_ABORT, EXCP_PREFETCH_ABORT)
EC_PC_ALIGN = 0x22 << 26 | 1 << 25  # with IL
EC_UNKNOWN = 1 << 25

# System registers: op0, op1, CRn, CRm, op2.
SCR_EL3, HCR_EL2, MAIR_EL1 = (3, 6, 1, 1, 0), (3, 4, 1, 1, 0), (3, 0, 10, 2, 0)
TCR_EL1, SCTLR_EL1 = (3, 0, 2, 0, 2), (3, 0, 1, 0, 0)
CPACR_EL1 = (3, 0, 1, 0, 2)
ISAR0, ISAR1, PFR0, PFR1, MMFR2 = (3, 0, 0, 6, 0), (3, 0, 0, 6, 1), (3, 0, 0, 4, 0), (3, 0, 0, 4, 1), (3, 0, 0, 7, 2)
MIDR_EL1 = (3, 0, 0, 0, 0)

# SCTLR_EL1 as Linux has it: M, C, SA, SA0, I, DZE, UCT, nTWI, nTWE, UCI on top of the RES1 bits.
SCTLR_BITS = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26
SCTLR_OFF = 1 << 1 | 1 << 9 | 1 << 19 | 1 << 24  # A, UMA, WXN, E0E
TCR_WALKS = 0x3500 | 0x35000000  # inner and outer write-back, inner shareable
TCR_TBI0 = 1 << 37  # the top byte of a user address is ignored
GRANULES = {12: (0, 2), 14: (2, 1), 16: (1, 3)}  # page shift -> TG0, TG1

PAGE, AF, INNER, UXN = 3, 1 << 10, 3 << 8, 1 << 54
KERNEL = 0xFFFF000000080000
# msr sctlr_el1, x0; isb; msr spsr_el1, x1; msr elr_el1, x2; eret
STUB = bytes.fromhex("001018d5df3f03d5014018d5224018d5e0039fd6")
MARKER = 0x5EED_0000_CA11_0000
NZCV = 0xF0000000

# Bits of AT_HWCAP and the least value of the ID register field that sets them (arch/arm64/kernel/cpufeature.c).
# Features that need the kernel's help which ours does not give (SVE, pointer authentication, BTI) are left out.
HWCAP_FIELDS = (
    (3, ISAR0, 4, 1), (4, ISAR0, 4, 2), (5, ISAR0, 8, 1), (6, ISAR0, 12, 1), (7, ISAR0, 16, 1), (8, ISAR0, 20, 2),
    (12, ISAR0, 28, 1), (13, ISAR1, 12, 1), (14, ISAR1, 16, 1), (15, ISAR1, 20, 1), (16, ISAR1, 0, 1),
    (17, ISAR0, 32, 1), (18, ISAR0, 36, 1), (19, ISAR0, 40, 1), (20, ISAR0, 44, 1), (21, ISAR0, 12, 2),
    (23, ISAR0, 48, 1), (24, PFR0, 48, 1), (25, MMFR2, 32, 1), (26, ISAR1, 20, 2), (27, ISAR0, 52, 1),
    (29, ISAR1, 36, 1),
)  # fmt: skip
HWCAP2_FIELDS = (
    (0, ISAR1, 0, 2), (7, ISAR0, 52, 2), (8, ISAR1, 32, 1), (13, ISAR1, 52, 1), (14, ISAR1, 44, 1), (15, ISAR1, 48, 1),
    (16, ISAR0, 60, 1),
)  # fmt: skip
HWCAP_FP, HWCAP_ASIMD, HWCAP_FPHP, HWCAP_ASIMDHP, HWCAP_CPUID = 1 << 0, 1 << 1, 1 << 9, 1 << 10, 1 << 11


class CpRegister(Structure):
    """uc_arm64_cp_reg."""

    _fields_ = (
        ("crn", c_uint32), ("crm", c_uint32), ("op0", c_uint32), ("op1", c_uint32), ("op2", c_uint32), ("val", c_uint64)
    )  # fmt: skip


class Arm64Engine(Engine):
    """An arm64 CPU."""

    UC = (UC_ARCH_ARM64, UC_MODE_ARM)
    PC = PC
    LOSES_PC = True  # chained blocks do not write the program counter
    platform = "aarch64"
    DEFAULT_MODEL = "cortex-a72"
    MODELS = {"cortex-a72": 2, "cortex-a57": 0, "cortex-a53": 1, "max": 3}  # noqa: RUF012 - constant

    # ---- boot

    def _boot(self) -> None:
        shift = self.system.arch.page_shift
        self._set_exception_levels()
        self._locate_registers()
        user_root = self._build_tables(shift)
        sctlr = self._system_register(SCTLR_EL1) & ~SCTLR_OFF
        self._system_register(SCTLR_EL1, sctlr | 1)
        for register in REG_GENERAL:
            self._write_register(register, 0)
        self._write_register(REG_X0, sctlr | SCTLR_BITS)
        self._write_register(REG_X0 + 2, BOOT_FAULT)
        self._enter_el0(3 if shift == 16 else 4)
        self._expect(self._words[self._ttbr0] == user_root << shift, "TTBR0_EL1")
        self._describe_cpu()
        self._finish_boot()

    def _set_exception_levels(self) -> None:
        """EL1 is AArch64 and not secure; FP at EL0."""
        self._system_register(SCR_EL3, 0x431)
        self._system_register(HCR_EL2, 1 << 31)
        self._system_register(CPACR_EL1, 3 << 20)

    def _system_register(self, key: tuple[int, int, int, int, int], value: int | None = None) -> int:
        op0, op1, crn, crm, op2 = key
        register = CpRegister(crn, crm, op0, op1, op2, value or 0)
        call = uc_reg_read if value is None else uc_reg_write
        check(call(self.handle, c_int(REG_CP), byref(register)), f"system register {key}")
        return int(register.val)

    def _build_tables(self, shift: int) -> int:
        """The stub's page under TTBR1, an empty root under TTBR0; the latter's frame."""
        system = self.system
        words = system.words
        page = self._frame()
        system.ram[page << shift : (page << shift) + len(STUB)] = STUB
        entry = page << shift | PAGE | INNER | AF | UXN
        root = 0
        for level_shift in reversed(system.arch.level_shifts):
            root = self._frame()
            index = (KERNEL & (1 << 48) - 1) >> level_shift & (1 << shift - 3) - 1
            words[(root << shift - 3) + index] = entry
            entry = root << shift | PAGE
        user_root = self._frame()
        tg0, tg1 = GRANULES[shift]
        self._system_register(MAIR_EL1, 0xFF)  # attribute 0, the only one used: normal memory
        self._system_register(TCR_EL1, 16 | 16 << 16 | tg0 << 14 | tg1 << 30 | TCR_WALKS | 5 << 32 | TCR_TBI0)
        self._write_register(REG_TTBR0, user_root << shift)
        self._write_register(REG_TTBR1, root << shift)
        return user_root

    def _locate_registers(self) -> None:
        """Where the registers lie in a context: markers before boot."""
        general = [MARKER | 0x1100 + i for i in range(32)]
        for register, value in zip(REG_GENERAL, general, strict=True):
            self._write_register(register, value)
        tls, ttbr0, pc = MARKER | 0x2201, 0x5EED5000, MARKER | 0x2200
        self._write_register(REG_PC, pc)
        self._write_register(REG_TPIDR_EL0, tls)
        self._write_register(REG_TTBR0, ttbr0)
        vectors = (0, 1, 31)
        for i in vectors:
            both = (c_uint64 * 2)(MARKER | 0x3300 + i, MARKER | 0x3400 + i)
            check(uc_reg_write(self.handle, c_int(REG_V0 + i), byref(both)), "writing a vector register")
        self._save()
        first = self._find_words([*general, pc], "X0 to X30, SP and PC")
        self._first = first
        self.regs = self._words[first : first + 33]
        self._tls = self._find_words([tls], "TPIDR_EL0")
        self._ttbr0 = self._find_words([ttbr0], "TTBR0_EL1")
        v0, v1, v31 = (self._find_words([MARKER | 0x3300 + i, MARKER | 0x3400 + i], f"V{i}") for i in vectors)
        self._expect(v1 - v0 >= 2 and v31 == v0 + 31 * (v1 - v0), "V31")
        self._v = [8 * (v0 + i * (v1 - v0)) for i in range(32)]
        self._expect(first < self._tls < v0 and first < self._ttbr0 < v0, "TPIDR_EL0")
        self._write_register(REG_TPIDR_EL0, 0)
        for i in vectors:
            check(uc_reg_write(self.handle, c_int(REG_V0 + i), byref((c_uint64 * 2)())), "writing a vector register")

    def _enter_el0(self, levels: int) -> None:
        """Run the stub; the abort at its end shows where syndrome and address lie."""
        seen: list[int] = []

        def trap(_: int, number: int) -> None:
            seen.append(number)
            uc_emu_stop(self.handle)

        self._add_hook(UC_HOOK_INTR, HOOK_INTR(guarded(self, trap)))
        self._run_boot(KERNEL)
        if seen != [EXCP_PREFETCH_ABORT]:
            raise EngineError(f"Unicorn: boot took exceptions {seen}; needs unicorn==2.1.4")
        self._save()
        esr = 0x20 << 26 | 1 << 25 | 4 + 4 - levels  # instruction abort from EL0, translation fault at the first level
        halves, words = self._halves, self._words
        places = [i for i in range(5, len(words) - 1) if halves[2 * i] == esr and words[i + 1] == BOOT_FAULT]
        self._expect(len(places) == 1 and self.regs[PC] == BOOT_FAULT, "the syndrome of an exception")
        self._syndrome = 2 * places[0]
        self._address = places[0] + 1
        ones = [i for i in range(self._v[31] // 8, len(words)) if words[i] == 0xFFFFFFFFFFFFFFFF]
        self._expect(len(ones) == 1, "the exclusive monitor")  # ERET cleared it
        self._exclusive = ones[0]
        self._state = self._bytes[8 * self._first : 8 * self._exclusive]

    def _describe_cpu(self) -> None:
        """AT_HWCAP and AT_HWCAP2 from the ID registers."""
        registers = {key: self._system_register(key) for key in (ISAR0, ISAR1, PFR0, PFR1, MMFR2)}
        self.midr = self._system_register(MIDR_EL1)
        self.hwcap = HWCAP_FP | HWCAP_ASIMD | HWCAP_CPUID
        if registers[PFR0] >> 16 & 15 == 1:
            self.hwcap |= HWCAP_FPHP | HWCAP_ASIMDHP
        for bit, key, shift, least in HWCAP_FIELDS:
            if registers[key] >> shift & 15 >= least:
                self.hwcap |= 1 << bit
        for bit, key, shift, least in HWCAP2_FIELDS:
            if registers[key] >> shift & 15 >= least:
                self.hwcap2 |= 1 << bit

    def _finish_boot(self) -> None:
        for i in range(33):
            self.regs[i] = 0
        self.set_flags(0)
        self._fresh = bytes(self._state)

    # ---- traps

    def _install(self, kernel: Kernel) -> None:
        handle, context = self.handle, self.context
        regs, words, halves = self.regs, self._words, self._halves
        syndrome, address = self._syndrome, self._address
        save, restore, stop = uc_context_save, uc_context_restore, uc_emu_stop
        page_fault, sync_mm = kernel.page_fault, self.sync_mm
        system_call = kernel.checked_call if self.system.validate_level > 1 else kernel.system_call

        def interrupt(_: int, number: int) -> None:
            if self.left:
                stop(handle)
                return
            try:
                save(handle, context)
                if number == EXCP_SWI:
                    system_call()
                    if kernel.need_resched:
                        self.left = True
                        stop(handle)
                        return
                    mm = kernel.current.mm
                    if mm.tlb_flush_pending or mm.icache_pending:  # type: ignore[union-attr] # a task that runs has one
                        sync_mm(mm)  # type: ignore[arg-type]
                    restore(handle, context)
                    return
                pc, sp = regs[PC], regs[SP]
                if number in ABORTS:
                    page_fault(halves[syndrome], words[address])
                else:
                    self._exception(kernel, halves[syndrome])
                if kernel.need_resched:
                    self.left = True
                    stop(handle)
                    return
                mm = kernel.current.mm
                if mm.tlb_flush_pending or mm.icache_pending:  # type: ignore[union-attr]
                    sync_mm(mm)  # type: ignore[arg-type]
                if pc != regs[PC] or sp != regs[SP]:  # else nothing changed: a fault was resolved
                    restore(handle, context)
            except BaseException as e:  # noqa: BLE001 - it must cross C code
                self._fail(e)

        def invalid() -> bool:
            interrupt(0, EXCP_UDEF)
            return True

        self._add_hook(UC_HOOK_INTR, HOOK_INTR(interrupt))
        self._add_hook(UC_HOOK_INSN_INVALID, HOOK_INVALID(invalid))

    def _exception(self, kernel: Kernel, esr: int) -> None:
        """Whatever is neither a system call nor an abort."""
        pc = self.regs[PC]
        if pc & 3:  # QEMU 5 decodes nothing there and calls it undefined
            esr = EC_PC_ALIGN
        kernel.arch.exception(kernel, esr or EC_UNKNOWN, pc)  # type: ignore[attr-defined]

    def set_root(self, pfn: int) -> None:
        self._words[self._ttbr0] = pfn << self.system.arch.page_shift
        self._flush = True

    # ---- Cpu

    def load_state(self, state: bytes) -> None:
        super().load_state(state)
        self._words[self._exclusive] = 0xFFFFFFFFFFFFFFFF  # an exception return clears the monitor

    def get_flags(self) -> int:
        return self._context_read(REG_PSTATE) & NZCV

    def set_flags(self, value: int) -> None:
        self._context_write(REG_PSTATE, value & NZCV)

    def get_tls(self) -> int:
        return self._words[self._tls]

    def set_tls(self, value: int) -> None:
        self._words[self._tls] = value

    def get_fpu(self) -> bytes:
        vectors = b"".join(bytes(self._bytes[at : at + 16]) for at in self._v)
        status, control = self._context_read(REG_FPSR), self._context_read(REG_FPCR)
        return vectors + (status | control << 32).to_bytes(8, "little") + bytes(8)

    def set_fpu(self, image: bytes) -> None:
        for i, at in enumerate(self._v):
            self._bytes[at : at + 16] = image[16 * i : 16 * i + 16]
        self._context_write(REG_FPSR, int.from_bytes(image[512:516], "little"))
        self._context_write(REG_FPCR, int.from_bytes(image[516:520], "little"))

    def _get_root(self) -> int:
        return self._words[self._ttbr0]

    def _put_root(self, value: int) -> None:
        self._words[self._ttbr0] = value
