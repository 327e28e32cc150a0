"""arm64: system call convention, signal frame, exceptions, ID registers, vDSO placement.

Sources: arch/arm64/kernel/signal.c, traps.c, entry-common.c, debug-monitors.c, cpufeature.c, fpsimd.c, vdso.c.

    rt_sigframe, offsets from the new sp:   0 siginfo (128)   128 uc_flags, uc_link, uc_stack   168 uc_sigmask
                                            304 sigcontext: fault_address, x0-x30, sp, pc, pstate
                                            592 records: fpsimd_context (528), esr_context (16), end   4688 end
    and a frame record (fp, lr) above it.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.arch import GuestArch
from guest.own_mm import own_mm
from guest.sigaltstack import sas_ss_flags, sas_ss_reset
from guest.siginfo import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_FLTUNK,
    ILL_ILLOPC,
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_HWBKPT,
    TRAP_TRACE,
)
from guest.signal import force_sig_fault, set_current_blocked
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.hw import Cpu
    from guest.kernel import Kernel
    from guest.ptrace_regs import UserRegisters
    from guest.signal_deliver import KSignal
    from guest.task import Task
    from mm.types import MmStruct

SP, PC = 31, 32
NR_RESTART_SYSCALL = 128

FRAME_SIZE = 4688
RECORDS = 592
FPSIMD_MAGIC, ESR_MAGIC, SVE_MAGIC, EXTRA_MAGIC = 0x46508001, 0x45535201, 0x53564501, 0x45585401
FPSIMD_SIZE = 528
RECORDS_SIZE = 4096
PSTATE_FLAGS = 0xF0000000  # NZCV

# Exception classes (ESR_ELx_EC_*).
CNTFRQ = 62_500_000  # ticks of the virtual counter a second
EC_UNKNOWN, EC_WFX, EC_FP_ASIMD, EC_ILL, EC_SVC64, EC_SYS64 = 0x00, 0x01, 0x07, 0x0E, 0x15, 0x18
EC_IABT_LOW, EC_PC_ALIGN, EC_DABT_LOW, EC_SP_ALIGN, EC_FP_EXC64 = 0x20, 0x22, 0x24, 0x26, 0x2C
EC_BREAKPT_LOW, EC_SOFTSTP_LOW, EC_WATCHPT_LOW, EC_BRK64 = 0x30, 0x32, 0x34, 0x3C

_MASK = 0xFFFFFFFFFFFFFFFF
_CONTEXT = Struct("<35Q")  # fault_address, x0-x30, sp, pc, pstate
_ALTSTACK = Struct("<QIxxxxQ")
_HEAD = Struct("<II")

# Fault status codes that do_bad_area() reports: translation, access flag, permission, alignment.
_SET_THREAD_ESR = frozenset((4, 5, 6, 7, 9, 10, 11, 13, 14, 15, 0x21))

# Bits of AT_HWCAP and the ID register fields they come from: bit -> (register, shift, least value of the field).
_ISAR0, _ISAR1, _PFR0, _PFR1, _MMFR2 = (0, 6, 0), (0, 6, 1), (0, 4, 0), (0, 4, 1), (0, 7, 2)
_HWCAP_FIELDS = {
    3: (_ISAR0, 4, 1), 4: (_ISAR0, 4, 2), 5: (_ISAR0, 8, 1), 6: (_ISAR0, 12, 1), 7: (_ISAR0, 16, 1),
    8: (_ISAR0, 20, 2), 9: (_PFR0, 16, 1), 10: (_PFR0, 20, 1), 12: (_ISAR0, 28, 1), 13: (_ISAR1, 12, 1),
    14: (_ISAR1, 16, 1), 15: (_ISAR1, 20, 1), 16: (_ISAR1, 0, 1), 17: (_ISAR0, 32, 1), 18: (_ISAR0, 36, 1),
    19: (_ISAR0, 40, 1), 20: (_ISAR0, 44, 1), 21: (_ISAR0, 12, 2), 23: (_ISAR0, 48, 1), 24: (_PFR0, 48, 1),
    25: (_MMFR2, 32, 1), 26: (_ISAR1, 20, 2), 27: (_ISAR0, 52, 1), 28: (_PFR1, 4, 2), 29: (_ISAR1, 36, 1),
    30: (_ISAR1, 4, 1), 31: (_ISAR1, 24, 1),
}  # fmt: skip
_HWCAP2_FIELDS = {
    0: (_ISAR1, 0, 2), 7: (_ISAR0, 52, 2), 8: (_ISAR1, 32, 1), 13: (_ISAR1, 52, 1), 14: (_ISAR1, 44, 1),
    15: (_ISAR1, 48, 1), 16: (_ISAR0, 60, 1), 17: (_PFR1, 0, 1),
}  # fmt: skip


class Arm64(GuestArch):
    """arm64 with 4K, 16K or 64K pages."""

    name = machine = "aarch64"
    elf_machine = 183
    elf_platform = b"aarch64\0"
    number = 8
    number_mask = 0xFFFFFFFF
    result = 0
    arguments = (0, 1, 2, 3, 4, 5)
    pc = PC
    sp = SP
    min_sigstksz = 5120
    uses_sa_restorer = False
    vvar_pages = 2
    vvar_timens_page = 1
    vdso_data_offset = 0
    uses_gnu_property = True
    clone_backwards = True
    speculation = {0: 2}  # noqa: RUF012 - constant # store bypass: enabled
    hwcap = 0x8FB  # cortex-a72
    midr = 0x410FD083

    def restart_syscall(self, cpu: Cpu) -> None:
        """x0 still holds its argument; four bytes back is the SVC."""
        cpu.regs[PC] -= 4

    def restart_by_block(self, cpu: Cpu) -> None:
        """Call restart_syscall instead."""
        cpu.regs[8] = NR_RESTART_SYSCALL
        cpu.regs[PC] -= 4

    def start_thread(self, kernel: Kernel, entry: int, sp: int) -> None:
        """And ELF_PLAT_INIT: everything zero but pc and sp."""
        cpu = kernel.cpu
        cpu.reset_state()
        cpu.regs[PC] = entry
        cpu.regs[SP] = sp
        cpu.set_flags(0)

    def set_child_registers(self, cpu: Cpu, sp: int, tls: int | None) -> None:
        """copy_thread(): the child sees 0, its own stack and TLS."""
        cpu.regs[0] = 0
        if sp:
            cpu.regs[SP] = sp
        if tls is not None:
            cpu.set_tls(tls)

    def arch_dlinfo(self, mm: MmStruct) -> list[int]:
        """AT_SYSINFO_EHDR and AT_MINSIGSTKSZ."""
        return [33, mm.vdso, 51, FRAME_SIZE + 16 + 16]

    def stack_rnd_mask(self, page_shift: int) -> int:
        """1 GiB."""
        return 0x3FFFF >> (page_shift - 12)

    def align_stack(self, kernel: Kernel, task: Task, sp: int) -> int:
        """arch_align_stack()."""
        if kernel.randomize(task):
            sp -= kernel.aslr_rng.getrandbits(32) & (kernel.system.arch.page_size - 1)
        return sp & ~0xF

    def setup_additional_pages(self, kernel: Kernel, task: Task) -> None:
        """__setup_additional_pages(): vvar, then the vDSO, where mmap puts them."""
        from guest.vdso_map import map_vdso

        mm = own_mm(task)
        length = (self.vvar_pages << mm.arch.page_shift) + kernel.vdso.size
        map_vdso(kernel, mm, 0, self.vvar_pages, length, vvar_first=True)

    # ---- signal frames

    def setup_rt_frame(self, kernel: Kernel, task: Task, ksig: KSignal, mask: int) -> None:
        """, setup_sigframe() and setup_return()."""
        cpu = kernel.cpu
        regs = cpu.regs
        action = ksig.action
        top = regs[SP]
        if action.flags & SA_ONSTACK and not sas_ss_flags(task, top):
            top = task.sas_ss_sp + task.sas_ss_size & _MASK
        record = (top - 16 & _MASK) & ~15
        frame = record - FRAME_SIZE & _MASK
        if not access_ok(task, frame, top - frame & _MASK):
            raise Errno(errno.EFAULT)
        copy_to_user(task, frame + 128, bytes(16))
        copy_to_user(task, frame + 144, task.sas_ss_sp.to_bytes(8, "little"))
        put_user(task, frame + 152, task.sas_ss_flags, 4)
        put_user(task, frame + 160, task.sas_ss_size, 8)
        if task.sas_ss_flags & 1 << 31:
            sas_ss_reset(task)
        copy_to_user(task, record, regs[29].to_bytes(8, "little") + regs[30].to_bytes(8, "little"))
        pstate = cpu.get_flags()
        image = _CONTEXT.pack(task.fault_address, *(regs[i] for i in range(33)), pstate)
        copy_to_user(task, frame + 312, image[8:])
        copy_to_user(task, frame + 304, image[:8])
        put_user(task, frame + 168, mask, 8)
        self._write_records(kernel, task, frame + RECORDS)
        if action.flags & SA_SIGINFO:
            copy_to_user(task, frame, ksig.info.pack())
            regs[1] = frame
            regs[2] = frame + 128
        regs[0] = ksig.sig
        regs[SP] = frame
        regs[29] = record
        regs[PC] = action.handler
        regs[30] = action.restorer if action.flags & SA_RESTORER else kernel.vdso.symbol("__kernel_rt_sigreturn", task)

    def _write_records(self, kernel: Kernel, task: Task, address: int) -> None:
        """fpsimd_context, esr_context after a fault, and the end."""
        fpu = kernel.cpu.get_fpu()
        copy_to_user(task, address + 16, fpu[:512])
        copy_to_user(task, address, _HEAD.pack(FPSIMD_MAGIC, FPSIMD_SIZE) + fpu[512:520])
        address += FPSIMD_SIZE
        if task.fault_code:
            copy_to_user(task, address, _HEAD.pack(ESR_MAGIC, 16) + task.fault_code.to_bytes(8, "little"))
            address += 16
        copy_to_user(task, address, bytes(8))

    def sigreturn(self, kernel: Kernel, task: Task) -> int:
        """sys_rt_sigreturn()."""
        cpu = kernel.cpu
        frame = cpu.regs[SP]
        task.restart_block = None
        try:
            if frame & 15 or not access_ok(task, frame, FRAME_SIZE):
                raise Errno(errno.EFAULT)
            self._restore_sigframe(kernel, task, frame)
            stack = _ALTSTACK.unpack(copy_from_user(task, frame + 144, 24))
        except Errno:
            self.notify_segfault(task, cpu.regs[SP])
            return 0
        from guest.sys_signal import do_sigaltstack

        try:  # noqa: SIM105 - contextlib is not worth its import here
            do_sigaltstack(task, *stack)
        except Errno:
            pass  # restore_altstack() takes only EFAULT seriously
        return cpu.regs[0]

    def _restore_sigframe(self, kernel: Kernel, task: Task, frame: int) -> None:
        """restore_sigframe()."""
        cpu = kernel.cpu
        set_current_blocked(task, get_user(task, frame + 168, 8))
        context = _CONTEXT.unpack(copy_from_user(task, frame + 304, _CONTEXT.size))
        for i in range(33):
            cpu.regs[i] = context[i + 1]
        pstate = context[34]
        cpu.set_flags(pstate & PSTATE_FLAGS)
        if pstate & 0x3DF:  # another mode, or interrupts masked
            raise Errno(errno.EINVAL)
        fpsimd = self._parse_user_sigframe(task, frame + RECORDS)
        if fpsimd is None:
            raise Errno(errno.EINVAL)
        magic, size = _HEAD.unpack(copy_from_user(task, fpsimd, 8))
        if magic != FPSIMD_MAGIC or size != FPSIMD_SIZE:
            raise Errno(errno.EINVAL)
        vregs = copy_from_user(task, fpsimd + 16, 512)
        status = copy_from_user(task, fpsimd + 8, 8)
        cpu.set_fpu(vregs + status + bytes(8))

    def _parse_user_sigframe(self, task: Task, base: int) -> int | None:
        """parse_user_sigframe(): where the fpsimd_context is."""
        invalid = Errno(errno.EINVAL)
        offset, limit = 0, RECORDS_SIZE
        fpsimd = None
        have_extra = False
        start = base - RECORDS
        if base & 15:
            raise invalid
        while True:
            if limit - offset < 8 or offset & 15:
                raise invalid
            head = base + offset
            magic, size = _HEAD.unpack(copy_from_user(task, head, 8))
            if limit - offset < size:
                raise invalid
            if magic == 0:
                if size:
                    raise invalid
                return fpsimd
            if magic == FPSIMD_MAGIC:
                if fpsimd is not None or size < FPSIMD_SIZE:
                    raise invalid
                fpsimd = head
            elif magic == EXTRA_MAGIC:
                if have_extra or size < 32:
                    raise invalid
                datap = get_user(task, head + 8, 8)
                extra_size = get_user(task, head + 16, 4)
                if limit - offset - size < 16:
                    raise invalid
                end = head + size
                if copy_from_user(task, end, 8) != bytes(8):
                    raise invalid
                have_extra = True
                if datap & 15 or extra_size & 15 or datap != end + 16 or extra_size > start + 65536 - datap:
                    raise invalid
                base, offset, limit = datap, 0, extra_size
                if not access_ok(task, base, limit):
                    raise invalid
                continue
            elif magic != ESR_MAGIC:
                raise invalid
            if size < 8:
                raise invalid
            offset += size

    # ---- exceptions

    def _notify_die(self, task: Task, signo: int, code: int, address: int, esr: int) -> None:
        """arm64_notify_die() for user code."""
        task.fault_address = 0
        task.fault_code = (esr - (esr >> 31 << 32)) & _MASK  # it passes through an int
        force_sig_fault(task, signo, code, address)

    def notify_segfault(self, task: Task, address: int) -> None:
        """arm64_notify_segfault()."""
        mm = own_mm(task)
        code = SEGV_MAPERR if mm.ops.find_vma(mm, address) is None else SEGV_ACCERR
        self._notify_die(task, SIGSEGV, code, address, 0)

    def page_fault(self, kernel: Kernel, task: Task, error_code: int, address: int, tried: int = 0) -> None:
        """do_mem_abort() from EL0."""
        signal = kernel.system.arch.do_page_fault(task, error_code, address, True, tried)
        if signal is not None:
            if error_code & 0x3F in _SET_THREAD_ESR:
                task.fault_address, task.fault_code = signal.address, signal.error_code
            else:
                self._notify_die(task, signal.signo, signal.si_code, signal.address, signal.error_code)
                return
            force_sig_fault(task, signal.signo, signal.si_code, signal.address)

    def exception(self, kernel: Kernel, esr: int, far: int) -> None:
        """Any other synchronous exception of user code (el0_sync_handler()); `esr` is the whole syndrome."""
        task = kernel.begin_trap()
        regs = kernel.cpu.regs
        pc = regs[PC]
        ec = esr >> 26 & 0x3F
        if ec in (EC_DABT_LOW, EC_IABT_LOW):
            self.page_fault(kernel, task, esr, far)
        elif ec == EC_UNKNOWN:
            if not self._emulate_mrs(kernel, task):
                self._notify_die(task, SIGILL, ILL_ILLOPC, pc, 0)
        elif ec == EC_SYS64:
            if not self._emulate_mrs(kernel, task):
                self._notify_die(task, SIGILL, ILL_ILLOPC, pc, 0)
        elif ec == EC_WFX:
            regs[PC] = pc + 4
        elif ec == EC_SP_ALIGN:
            self._notify_die(task, SIGBUS, BUS_ADRALN, regs[SP], esr)
        elif ec == EC_PC_ALIGN:
            self._notify_die(task, SIGBUS, BUS_ADRALN, far, esr)
        elif ec == EC_BRK64:
            force_sig_fault(task, SIGTRAP, TRAP_BRKPT, pc)
        elif ec == EC_SOFTSTP_LOW:
            force_sig_fault(task, SIGTRAP, TRAP_TRACE, pc)
        elif ec in (EC_BREAKPT_LOW, EC_WATCHPT_LOW):
            force_sig_fault(task, SIGTRAP, TRAP_HWBKPT, pc if ec == EC_BREAKPT_LOW else far)
        elif ec == EC_FP_EXC64:
            force_sig_fault(task, SIGFPE, self._fp_code(esr), pc)
        else:  # bad_el0_sync()
            task.fault_address = 0
            task.fault_code = esr
            force_sig_fault(task, SIGILL, ILL_ILLOPC, pc)
        kernel.end_trap(task)

    @staticmethod
    def _fp_code(esr: int) -> int:
        """do_fpsimd_exc(): which floating-point exception."""
        if esr & 1 << 23:  # TFV
            for bit, code in ((0, FPE_FLTINV), (1, FPE_FLTDIV), (2, FPE_FLTOVF), (3, FPE_FLTUND), (4, FPE_FLTRES)):
                if esr >> bit & 1:
                    return code
        return FPE_FLTUNK

    def _emulate_mrs(self, kernel: Kernel, task: Task) -> bool:
        """A read of an ID register (try_emulate_mrs()): the value user code may see."""
        regs = kernel.cpu.regs
        try:
            instruction = get_user(task, regs[PC], 4)
        except Errno:
            return False
        if instruction & 0xFFF00000 != 0xD5300000:
            return False
        op0 = 2 | instruction >> 19 & 1
        op1, crn, crm, op2 = instruction >> 16 & 7, instruction >> 12 & 15, instruction >> 8 & 15, instruction >> 5 & 7
        if (op0, op1, crn, crm, op2) == (3, 3, 14, 0, 2):  # CNTVCT_EL0, open to user code (EL0VCTEN)
            value = kernel.clock.now * CNTFRQ // 10**9
        elif (op0, op1, crn, crm, op2) == (3, 3, 14, 0, 0):
            value = CNTFRQ
        elif (op0, op1, crn) != (3, 0, 0) or not (crm == 0 or 2 <= crm <= 7):
            return False
        elif crm == 0:
            values = {0: self.midr, 5: 1 << 31, 6: 0}
            if op2 not in values:
                return False
            value = values[op2]
        else:
            value = self.id_register(crm, op2)
        target = instruction & 31
        if target != 31:
            regs[target] = value
        regs[PC] += 4
        return True

    def id_register(self, crm: int, op2: int) -> int:
        """What user code sees of the feature register S3_0_C0_crm_op2: the fields AT_HWCAP stands for."""
        value = {
            (4, 0): 0x11 if self.hwcap & 1 else 0xFF0011,  # ID_AA64PFR0: EL0, EL1; no FP is all ones
            (5, 0): 6,  # ID_AA64DFR0: the debug architecture's version
            (7, 0): 0x111FF000000,  # ID_AA64MMFR0: no granule is shown
        }.get((crm, op2), 0)
        for caps, fields in ((self.hwcap, _HWCAP_FIELDS), (self.hwcap2, _HWCAP2_FIELDS)):
            for bit, (register, shift, least) in fields.items():
                if caps >> bit & 1 and register[1:] == (crm, op2) and (value >> shift & 15) < least:
                    value = value & ~(15 << shift) | least << shift
        return value

    def user_registers(self) -> UserRegisters:
        from guest.arch_arm64_ptrace import Arm64Registers

        return Arm64Registers()

    def arch_prctl(self, kernel: Kernel, task: Task, option: int, value: int) -> int:
        """There is no arch_prctl."""
        raise Errno(errno.ENOSYS)
