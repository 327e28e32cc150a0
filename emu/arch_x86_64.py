"""x86-64: boot to ring 3, layout of a saved context, traps as the kernel wants them.

Boot is a supervisor page with the GDT of Linux, whose stub reads CPUID and leaves by IRETQ for an address that is not
mapped. The page fault that follows ends the boot, and is the known fault that calibrates `error_code` and
`old_exception`. The `int 0x41` at the stub's start calibrates the flag that tells `int 14` from a page fault.

What QEMU leaves undone and the hooks add: the #GP of `int n` (the IDT's gates are closed to ring 3 except 3 and 4), RCX
and R11 of SYSCALL, the I/O permission check of IN and OUT, and the right moment of a fetch fault: QEMU translates
straight-line code into the next page before it runs any of it, so when that page is absent, the fault comes too early
and with the RIP of the block's start. Such a block is run with the trap flag, one instruction at a time, until the
instruction that really needs the page is reached.
"""

from __future__ import annotations

from ctypes import Structure, byref, c_int, c_uint32, c_uint64
from struct import pack, pack_into
from typing import TYPE_CHECKING, Any

from emu.engine import BOOT_FAULT, Engine, guarded
from emu.errors import EngineError
from emu.uclib import (
    HOOK_IN,
    HOOK_INTR,
    HOOK_INVALID,
    HOOK_PLAIN,
    UC_ARCH_X86,
    UC_HOOK_INSN,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    UC_MODE_64,
    check,
    uc_context_restore,
    uc_context_save,
    uc_emu_stop,
    uc_reg_read,
    uc_reg_write,
)

if TYPE_CHECKING:
    from guest.kernel import Kernel

# Numbers of Unicorn's registers and instructions (x86_const.py).
REG_EFLAGS, REG_FPSW, REG_RIP, REG_CR0, REG_CR2, REG_CR3, REG_CR4 = 25, 31, 41, 50, 52, 53, 54
REG_FPCW, REG_FPTAG, REG_MSR, REG_MXCSR, REG_FS_BASE, REG_GS_BASE = 246, 247, 248, 249, 250, 251
REG_ST0, REG_XMM0 = 114, 122
REG_GENERAL = (35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114))  # rax rcx rdx rbx rsp rbp rsi rdi r8-r15
INS_IN, INS_OUT, INS_SYSCALL = 218, 500, 699

RCX, RDX, RSP, R8, R11, RIP = 1, 2, 4, 8, 11, 16
EFLAGS = 17  # the word behind RIP: the flags QEMU does not keep elsewhere (IF, TF ...)

PRESENT, WRITABLE, USER = 1, 2, 4
MSR_EFER = 0xC0000080
EFER = 1 << 0 | 1 << 8 | 1 << 11  # SCE, LME, NXE
CR0 = 0x80050033  # PG, AM, WP, NE, ET, MP, PE
CR4 = 1 << 2 | 1 << 5 | 1 << 9 | 1 << 10  # TSD: RDTSC traps, its time is the guest's; PAE, OSFXSR, OSXMMEXCPT
CR4_LA57, CR4_FSGSBASE = 1 << 12, 1 << 16
CPUID7_FSGSBASE, HWCAP2_FSGSBASE = 1 << 0, 1 << 1
EFLAGS_USER = 0x240DD5  # what POPF may change in ring 3 with IOPL 0: ID AC OF DF TF SF ZF AF PF CF
EFLAGS_FIXED = 0x202  # IF and the bit that is always 1

USER_CS, USER_DS = 0x33, 0x2B
GDT = (
    0,
    0x00CF9B000000FFFF,  # kernel, 32-bit code
    0x00AF9B000000FFFF,  # kernel, code
    0x00CF93000000FFFF,  # kernel, data
    0x00CFFB000000FFFF,  # user, 32-bit code
    0x00CFF3000000FFFF,  # user, data
    0x00AFFB000000FFFF,  # user, code
    *[0] * 8,
    0x0040F50000000000,  # the CPU's number as a limit, for LSL
)
KERNEL = 0xFFFFFFFF80000000  # the boot page: GDT at 0, its descriptor at 0x700, stub at 0x800, stack top at 0xf00
MARKER = 0x5EED_0000_CA11_0000
NO_EXCEPTION = 0xFFFFFFFF
WORD = 0xFFFFFFFFFFFFFFFF  # a signal frame may return to 0, and 0 - 2 is a register too
PF_VECTOR, GP_VECTOR, UD_VECTOR, DB_VECTOR = 14, 13, 6, 1
PF_INSTR = 16
OPEN_GATES = (3, 4)  # int 3 and int 4 are allowed in ring 3
EFLAGS_TF = 0x100

_ALL_EMPTY = 0xFFFF  # tags of an x87 nobody has loaded anything into
FXSAVE_INIT = b"\x7f\x03" + bytes(22) + b"\x80\x1f\0\0\xff\xff\0\0" + bytes(480)


class Msr(Structure):
    """uc_x86_msr."""

    _fields_ = (("rid", c_uint32), ("value", c_uint64))


class X86Engine(Engine):
    """An x86-64 CPU."""

    UC = (UC_ARCH_X86, UC_MODE_64)
    PC = RIP
    platform = "x86_64"
    DEFAULT_MODEL = "qemu64"
    MODELS = {  # noqa: RUF012 - those with long mode
        "qemu64": 0, "phenom": 1, "core2duo": 2, "kvm64": 3, "conroe": 13, "penryn": 14, "nehalem": 15,
        "westmere": 16, "sandybridge": 17, "ivybridge": 18, "haswell": 19, "broadwell": 20, "skylake-client": 21,
        "skylake-server": 22, "cascadelake-server": 23, "cooperlake": 24, "icelake-client": 25, "icelake-server": 26,
        "denverton": 27, "snowridge": 28, "opteron-g1": 30, "opteron-g2": 31, "opteron-g3": 32, "opteron-g4": 33,
        "opteron-g5": 34, "epyc": 35, "dhyana": 36, "epyc-rome": 37,
    }  # fmt: skip

    # ---- boot

    def _boot(self) -> None:
        root = self._build_tables()
        self._boot_root = root << 12
        self._stepping_to = 0  # page a fetch fault was about, while a block is run step by step
        self._stepped_from = 0
        self._locate_registers()
        for register, value in zip(REG_GENERAL, (0,) * 16, strict=True):
            self._write_register(register, value)
        self._write_register(REG_GENERAL[RSP], KERNEL + 0xF00)
        self._write_register(REG_CR2, 0)
        self._write_register(REG_CR3, root << 12)
        la57 = CR4_LA57 if len(self.system.arch.level_shifts) == 5 else 0
        self._write_register(REG_CR4, CR4 | la57)
        check(uc_reg_write(self.handle, c_int(REG_MSR), byref(Msr(MSR_EFER, EFER))), "writing EFER")
        self._write_register(REG_CR0, CR0)
        self._enter_ring3()
        self._expect(self._words[self._cr3] == root << 12, "CR3")
        self._describe_cpu()
        self._finish_boot()

    def _build_tables(self) -> int:
        """The boot page and the tables that map it; the frame of the boot root table."""
        system = self.system
        words = system.words
        page = self._frame()
        base = page << 12
        pack_into(f"<{len(GDT)}Q", system.ram, base, *GDT)
        pack_into("<HQ", system.ram, base + 0x700, 8 * len(GDT) - 1, KERNEL)
        stub = (
            b"\xcd\x41"  # int 0x41
            + b"\x0f\x01\x15" + pack("<i", 0x700 - 0x809)  # lgdt [rip + ...]
            + b"\x31\xc9\xb8\x07\0\0\0\x0f\xa2\x41\x89\xd8"  # xor ecx, ecx; mov eax, 7; cpuid; mov r8d, ebx
            + b"\xb8\x01\0\0\0\x0f\xa2\x48\xcf"  # mov eax, 1; cpuid; iretq
        )  # fmt: skip
        system.ram[base + 0x800 : base + 0x800 + len(stub)] = stub
        pack_into("<5Q", system.ram, base + 0xF00, BOOT_FAULT, USER_CS, EFLAGS_FIXED, 0, USER_DS)
        entry = base | PRESENT | WRITABLE
        for shift in reversed(system.arch.level_shifts[1:]):
            table = self._frame()
            words[(table << 9) + (KERNEL >> shift & 511)] = entry
            entry = table << 12 | PRESENT | WRITABLE
        root = self._frame()
        index = KERNEL >> system.arch.level_shifts[0] & 511
        words[(root << 9) + index] = entry
        system.kernel_pgd.append((index, entry))
        return root

    def _locate_registers(self) -> None:
        """Where the registers lie in a context: markers before boot."""
        general = [MARKER | 0x1100 + i for i in range(16)]
        for register, value in zip(REG_GENERAL, general, strict=True):
            self._write_register(register, value)
        pointers = {REG_RIP: MARKER | 0x2201, REG_CR2: MARKER | 0x2202, REG_CR3: 0x5EED5000}
        pointers |= {REG_FS_BASE: 0x7EED_0000_2204, REG_GS_BASE: 0x7EED_0000_2205}
        for register, value in pointers.items():
            self._write_register(register, value)
        for register, value in ((REG_XMM0, 0x3301), (REG_XMM0 + 1, 0x3302), (REG_XMM0 + 15, 0x3303), (REG_ST0, 0x3304)):
            both = (c_uint64 * 2)(MARKER | value, MARKER | value << 1)
            check(uc_reg_write(self.handle, c_int(register), byref(both)), "writing a vector register")
        self._save()
        first = self._find_words([*general, pointers[REG_RIP]], "RAX to R15 and RIP")
        self.regs = self._words[first : first + 17]
        self._flags = first + EFLAGS
        self._cr2 = self._find_words([pointers[REG_CR2]], "CR2")
        self._cr3 = self._find_words([pointers[REG_CR3]], "CR3")
        self._fs = self._find_words([pointers[REG_FS_BASE]], "FS base")
        self._gs = self._find_words([pointers[REG_GS_BASE]], "GS base")
        xmm0, xmm1, xmm15 = (
            self._find_words([MARKER | value, MARKER | value << 1], f"XMM{i}")
            for i, value in ((0, 0x3301), (1, 0x3302), (15, 0x3303))
        )
        stride = xmm1 - xmm0
        self._expect(stride >= 2 and xmm15 == xmm0 + 15 * stride, "XMM15")
        self._xmm = [8 * (xmm0 + i * stride) for i in range(16)]
        self._st = 8 * self._find_words([MARKER | 0x3304], "ST0")
        self._expect(8 * first < self._st < self._xmm[0], "the FPU")
        self._state = self._bytes[8 * first : self._xmm[15] + 16]
        self._write_register(REG_FS_BASE, 0)
        self._write_register(REG_GS_BASE, 0)
        for register in (REG_XMM0, REG_XMM0 + 1, REG_XMM0 + 15, REG_ST0):
            check(uc_reg_write(self.handle, c_int(register), byref((c_uint64 * 2)())), "writing a vector register")

    def _enter_ring3(self) -> None:
        """Run the stub; its two traps show the words that tell about an exception."""
        seen: list[tuple[int, memoryview[int]]] = []

        def trap(_: int, vector: int) -> None:
            uc_context_save(self.handle, self.context)
            seen.append((vector, memoryview(bytes(self._halves)).cast("I")))
            if len(seen) == 1 and vector == 0x41:
                self.regs[RIP] = KERNEL + 0x802
                uc_context_restore(self.handle, self.context)
            else:
                uc_emu_stop(self.handle)

        self._save()
        before = memoryview(bytes(self._halves)).cast("I")
        self._add_hook(UC_HOOK_INTR, HOOK_INTR(guarded(self, trap)))
        self._run_boot(KERNEL + 0x800)
        if [vector for vector, _ in seen] != [0x41, PF_VECTOR]:
            raise EngineError(f"Unicorn: boot took exceptions {[v for v, _ in seen]}; needs unicorn==2.1.4")
        soft, fault = seen[0][1], seen[1][1]
        count = len(before)

        def unique(what: str, *values: int) -> int:
            places = [i for i in range(10, count) if (before[i], soft[i], fault[i]) == values]
            self._expect(len(places) == 1, what)
            return places[0]

        self._error = unique("error_code", 0, 0, PRESENT * 0 | USER | 16)
        self._old = unique("old_exception", NO_EXCEPTION, NO_EXCEPTION, PF_VECTOR)
        self._soft = self._error + 1
        self._expect((soft[self._soft], fault[self._soft]) == (1, 0), "exception_is_int")
        self._expect(self._words[self._cr2] == BOOT_FAULT == self.regs[RIP], "the boot fault's address")
        self._expect(self._words[self._flags] == EFLAGS_FIXED, "EFLAGS")

    def _describe_cpu(self) -> None:
        """What CPUID said: AT_HWCAP is leaf 1's EDX."""
        self.hwcap = self.regs[RDX]
        if self.regs[R8] & CPUID7_FSGSBASE:
            self.hwcap2 = HWCAP2_FSGSBASE
            self._context_write(REG_CR4, self._context_read(REG_CR4) | CR4_FSGSBASE)

    def _finish_boot(self) -> None:
        """Registers of a fresh program, FPU as FNINIT and Linux leave it."""
        for i in range(17):
            self.regs[i] = 0
        self.set_flags(0)
        self.set_fpu(FXSAVE_INIT)
        self._halves[self._old] = NO_EXCEPTION
        self._fresh = bytes(self._state)

    # ---- traps

    def _install(self, kernel: Kernel) -> None:
        handle, context = self.handle, self.context
        regs, words, halves = self.regs, self._words, self._halves
        error, soft, old, cr2 = self._error, self._soft, self._old, self._cr2
        save, restore, stop, read = uc_context_save, uc_context_restore, uc_emu_stop, uc_reg_read
        page_fault, sync_mm = kernel.page_fault, self.sync_mm
        system_call = kernel.checked_call if self.system.validate_level > 1 else kernel.system_call
        eflags = c_uint64(0)
        eflags_pointer, eflags_number = byref(eflags), c_int(REG_EFLAGS)

        def syscall() -> None:
            if self.left:  # the rest of a block whose run is over
                stop(handle)
                return
            try:
                save(handle, context)
                read(handle, eflags_number, eflags_pointer)
                regs[RIP] = regs[RCX] = regs[RIP] + 2
                regs[R11] = eflags.value
                system_call()
                if kernel.need_resched:
                    self.left = True
                    stop(handle)
                    return
                mm = kernel.current.mm
                if mm.tlb_flush_pending or mm.icache_pending:  # type: ignore[union-attr] # a task that runs has one
                    sync_mm(mm)  # type: ignore[arg-type]
                regs[RIP] = regs[RIP] - 2 & WORD  # Unicorn adds the instruction's length when the hook is done
                restore(handle, context)
            except BaseException as e:  # noqa: BLE001 - it must cross C code
                self._fail(e)

        def interrupt(_: int, vector: int) -> None:
            if self.left:
                stop(handle)
                return
            try:
                save(handle, context)
                if self._stepping_to or (vector == PF_VECTOR and halves[error] & PF_INSTR):
                    if self._step(vector):
                        halves[old] = NO_EXCEPTION
                        restore(handle, context)
                        return
                if vector == PF_VECTOR and not halves[soft]:
                    page_fault(halves[error], words[cr2])
                else:
                    self._exception(kernel, vector, halves[error], halves[soft])
                if kernel.need_resched:
                    self.left = True
                    stop(handle)
                    return
                mm = kernel.current.mm
                if mm.tlb_flush_pending or mm.icache_pending:  # type: ignore[union-attr]
                    sync_mm(mm)  # type: ignore[arg-type]
                halves[old] = NO_EXCEPTION
                restore(handle, context)
            except BaseException as e:  # noqa: BLE001
                self._fail(e)

        def invalid() -> bool:
            interrupt(0, UD_VECTOR)
            return True

        def port(*_: Any) -> int:
            """IN and OUT do not end a block: what follows in it must not touch memory or leave a trace in registers."""
            if not self.left:
                save(handle, context)
                halves[soft] = 0
                kernel.arch.exception(kernel, GP_VECTOR, 0, 0)  # type: ignore[attr-defined]
                self.left = True
                self._flush = True
                self._write_register(REG_CR3, self._boot_root)
                stop(handle)
            return 0

        self._add_hook(UC_HOOK_INTR, HOOK_INTR(interrupt))
        self._add_hook(UC_HOOK_INSN, HOOK_PLAIN(syscall), c_int(INS_SYSCALL))
        self._add_hook(UC_HOOK_INSN_INVALID, HOOK_INVALID(invalid))
        self._add_hook(UC_HOOK_INSN, HOOK_IN(guarded(self, port)), c_int(INS_IN))
        self._add_hook(UC_HOOK_INSN, HOOK_PLAIN(guarded(self, port)), c_int(INS_OUT))

    def _step(self, vector: int) -> bool:
        """Run a block that reaches into an absent page one instruction at a time. True: a trap of our own, go on.

        Called for fetch faults, and for every trap while it lasts. Only straight-line code is met here, as a branch,
        a system call or POPF would have ended the block; of what is left, PUSHF alone can see the trap flag.
        """
        words, regs, flags = self._words, self.regs, self._flags
        target = self._stepping_to
        if target:
            if vector == DB_VECTOR and not self._halves[self._soft]:
                self._hide_trap_flag()
                if regs[RIP] >> 12 == target:
                    self._stop_stepping()
                self._stepped_from = regs[RIP]
                return True
            self._stop_stepping()
            return False
        page = words[self._cr2] >> 12
        if self._halves[self._soft] or page == regs[RIP] >> 12 or words[flags] & EFLAGS_TF:
            return False
        words[flags] |= EFLAGS_TF
        self._stepping_to = page
        self._stepped_from = regs[RIP]
        return True

    def _stop_stepping(self) -> None:
        self._stepping_to = 0
        self._words[self._flags] &= ~EFLAGS_TF

    def _hide_trap_flag(self) -> None:
        """If the instruction just stepped over was PUSHF: the program did not set the flag it pushed."""
        mm = self.kernel.current.mm
        ram = self.system.ram
        for offset in range(2):
            at = self._physical(mm, self._stepped_from + offset)
            if at < 0:
                return
            if ram[at] == 0x9C:  # pushf
                at = self._physical(mm, self.regs[RSP] + 1)
                if at >= 0:
                    ram[at] &= ~(EFLAGS_TF >> 8) & 0xFF
                return
            if ram[at] != 0x66 and ram[at] & 0xF0 != 0x40:  # operand size and REX may come first
                return

    def _exception(self, kernel: Kernel, vector: int, error_code: int, software: int) -> None:
        """Any exception but a page fault, as the IDT of Linux delivers it."""
        if vector == UD_VECTOR:
            error_code = 0
        elif software and vector not in OPEN_GATES:
            self.regs[RIP] -= 2  # a fault, so it points at the `int n`
            vector, error_code = GP_VECTOR, vector * 8 + 2
        kernel.arch.exception(kernel, vector, error_code, 0)  # type: ignore[attr-defined]

    def _prepare(self) -> None:
        self._halves[self._old] = NO_EXCEPTION

    def _settle(self) -> None:
        if self._stepping_to:
            self._stop_stepping()

    def set_root(self, pfn: int) -> None:
        self._words[self._cr3] = pfn << 12
        self._flush = True

    # ---- Cpu

    def get_flags(self) -> int:
        return self._context_read(REG_EFLAGS)

    def set_flags(self, value: int) -> None:
        self._context_write(REG_EFLAGS, value & EFLAGS_USER | EFLAGS_FIXED)

    def get_tls(self) -> int:
        return self._words[self._fs]

    def set_tls(self, value: int) -> None:
        self._words[self._fs] = value

    def get_gs(self) -> int:
        return self._words[self._gs]

    def set_gs(self, value: int) -> None:
        self._words[self._gs] = value

    def get_fpu(self) -> bytes:
        """FXSAVE image. Instruction and data pointers are 0, as QEMU's FXSAVE stores them."""
        image = bytearray(512)
        status, tags = self._context_read(REG_FPSW), self._context_read(REG_FPTAG)
        used = 0 if tags == _ALL_EMPTY else sum(1 << i for i in range(8) if tags >> 2 * i & 3 != 3)
        pack_into("<HHBxHQQII", image, 0, self._context_read(REG_FPCW), status, used, 0, 0, 0, self._mxcsr(), 0xFFFF)
        top = status >> 11 & 7
        for i in range(8):
            at = self._st + 16 * (top + i & 7)
            image[32 + 16 * i : 42 + 16 * i] = self._bytes[at : at + 10]
        for i, at in enumerate(self._xmm):
            image[160 + 16 * i : 176 + 16 * i] = self._bytes[at : at + 16]
        return bytes(image)

    def _mxcsr(self) -> int:
        return self._context_read(REG_MXCSR)

    def set_fpu(self, image: bytes) -> None:
        word = int.from_bytes
        status = word(image[2:4], "little")
        self._context_write(REG_FPCW, word(image[0:2], "little"))
        self._context_write(REG_FPSW, status)
        used = image[4]
        tags = sum(3 << 2 * i for i in range(8) if not used >> i & 1) if used else _ALL_EMPTY
        self._context_write(REG_FPTAG, tags)
        self._context_write(REG_MXCSR, word(image[24:28], "little"))
        top = status >> 11 & 7
        for i in range(8):
            at = self._st + 16 * (top + i & 7)
            self._bytes[at : at + 10] = image[32 + 16 * i : 42 + 16 * i]
        for i, at in enumerate(self._xmm):
            self._bytes[at : at + 16] = image[160 + 16 * i : 176 + 16 * i]

    def _get_root(self) -> int:
        return self._words[self._cr3]

    def _put_root(self, value: int) -> None:
        self._words[self._cr3] = value
