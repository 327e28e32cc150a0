"""x86-64: system call convention, signal frame, exceptions, vsyscall page, vDSO placement.

Sources: arch/x86/entry/common.c, kernel/signal.c, kernel/traps.c, kernel/process_64.c, entry/vsyscall/vsyscall_64.c,
entry/vdso/vma.c. The CPU has FXSAVE and no XSAVE, as qemu64 has not.

    rt_sigframe, offsets from the new sp:   0 pretcode   8 uc_flags   16 uc_link   24 uc_stack   48 sigcontext (256)
                                            304 uc_sigmask   312 siginfo (128)   440 end; fpstate above, 64-aligned
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.arch import GuestArch
from guest.clock import TSC_KHZ
from guest.own_mm import own_mm
from guest.sigaltstack import on_sig_stack, raw_on_sig_stack, sas_ss_flags, sas_ss_reset
from guest.siginfo import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SEGV_MAPERR,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_TRACE,
)
from guest.signal import force_sig, force_sig_fault, set_current_blocked
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, copy_from_user_partial, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.hw import Cpu
    from guest.kernel import Kernel
    from guest.ptrace_regs import UserRegisters
    from guest.signal_deliver import KSignal
    from guest.task import Task
    from mm.types import MmStruct

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, RIP = range(17)

EFLAGS_CF, EFLAGS_TF, EFLAGS_IF, EFLAGS_DF, EFLAGS_RF = 0x1, 0x100, 0x200, 0x400, 0x10000
FIX_EFLAGS = 0x40000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | EFLAGS_RF
USER_CS, USER_DS = 0x33, 0x2B
UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 2, 4
NR_RESTART_SYSCALL = 219

TRAP_DE, TRAP_DB, TRAP_BP, TRAP_OF, TRAP_BR, TRAP_UD, TRAP_NM, TRAP_TS, TRAP_NP, TRAP_SS, TRAP_GP, TRAP_PF = (
    0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14
)  # fmt: skip
TRAP_MF, TRAP_AC, TRAP_XF = 16, 17, 19
PF_PROT, PF_WRITE, PF_USER, PF_RSVD, PF_INSTR = 1, 2, 4, 8, 16

PR_GET_TSC, PR_SET_TSC, PR_TSC_ENABLE, PR_TSC_SIGSEGV = 25, 26, 1, 2
VSYSCALL_ADDR = 0xFFFFFFFFFF600000
ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS, ARCH_GET_CPUID, ARCH_SET_CPUID = (
    0x1001, 0x1002, 0x1003, 0x1004, 0x1011, 0x1012
)  # fmt: skip

FRAME_SIZE = 440
FXSAVE_SIZE = 512
_MASK = 0xFFFFFFFFFFFFFFFF
# What is written of a frame, and not between: up to ss_flags; ss_size and the sigcontext up to reserved1.
_HEAD = Struct("<QQQQI")
_CONTEXT = Struct("<Q18QHHHHQQQQQ")
_CONTEXT_REGS = (R8, R9, R10, R11, R12, R13, R14, R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP)
_ALTSTACK = Struct("<QIxxxxQ")

# An FPU just initialised: FCW 0x37f, MXCSR 0x1f80.
FPU_INIT = b"\x7f\x03" + bytes(22) + b"\x80\x1f\0\0" + b"\xff\xff\0\0" + bytes(480)

# Vectors that only name a signal: vector -> (signal, si_code or 0 for SI_KERNEL, si_addr is rip).
_SIMPLE = {
    TRAP_DE: (SIGFPE, FPE_INTDIV, True),
    TRAP_OF: (SIGSEGV, 0, False),
    TRAP_BR: (SIGSEGV, 0, False),
    TRAP_UD: (SIGILL, ILL_ILLOPN, True),
    9: (SIGFPE, 0, False),
    TRAP_TS: (SIGSEGV, 0, False),
    TRAP_NP: (SIGBUS, 0, False),
    TRAP_SS: (SIGBUS, 0, False),
    TRAP_GP: (SIGSEGV, 0, False),
}


class X86_64(GuestArch):
    """x86-64 with four or five table levels."""

    name = machine = "x86_64"
    elf_machine = 62
    elf_platform = b"x86_64\0"
    number = RAX
    result = RAX
    arguments = (RDI, RSI, RDX, R10, R8, R9)
    pc = RIP
    sp = RSP
    vvar_pages = 4
    vvar_timens_page = 3
    vdso_data_offset = 128  # of _vdso_data in [vvar]
    gate_area = (VSYSCALL_ADDR, VSYSCALL_ADDR + 0x1000, 4, "[vsyscall]")  # VM_EXEC only: vsyscall=xonly
    speculation = {0: 0, 1: 2}  # noqa: RUF012 - constant # store bypass: not affected; indirect branch: enabled
    hwcap = 0x78BFBFD  # CPUID.1:EDX of qemu64

    def restart_syscall(self, cpu: Cpu) -> None:
        """rax still holds the number; two bytes back is the SYSCALL."""
        cpu.regs[RIP] -= 2

    def restart_by_block(self, cpu: Cpu) -> None:
        """Call restart_syscall instead."""
        cpu.regs[RAX] = NR_RESTART_SYSCALL
        cpu.regs[RIP] -= 2

    def start_thread(self, kernel: Kernel, entry: int, sp: int) -> None:
        """And ELF_PLAT_INIT: everything zero but rip and rsp."""
        cpu = kernel.cpu
        cpu.reset_state()
        cpu.regs[RIP] = entry
        cpu.regs[RSP] = sp
        cpu.set_flags(EFLAGS_IF)

    def set_child_registers(self, cpu: Cpu, sp: int, tls: int | None) -> None:
        """copy_thread(): the child sees 0, its own stack and TLS."""
        cpu.regs[RAX] = 0
        if sp:
            cpu.regs[RSP] = sp
        if tls is not None:
            if tls >= 0x7FFFFFFFF000:
                raise Errno(errno.EPERM)
            cpu.set_tls(tls)

    def arch_dlinfo(self, mm: MmStruct) -> list[int]:
        """AT_SYSINFO_EHDR."""
        return [33, mm.vdso]

    def stack_rnd_mask(self, page_shift: int) -> int:
        """16 GiB."""
        return 0x3FFFFF

    def align_stack(self, kernel: Kernel, task: Task, sp: int) -> int:
        """arch_align_stack()."""
        if kernel.randomize(task):
            sp -= kernel.aslr_rng.getrandbits(32) % 8192
        return sp & ~0xF

    def setup_additional_pages(self, kernel: Kernel, task: Task) -> None:
        """map_vdso_randomized(): vvar then vDSO, above the stack when there is room, else where mmap puts it."""
        from guest.vdso_map import map_vdso

        mm = own_mm(task)
        arch = mm.arch
        length = (self.vvar_pages << arch.page_shift) + kernel.vdso.size
        start = -(-mm.start_stack // arch.page_size) * arch.page_size
        end = (start + length + arch.pmd_size - 1) & -arch.pmd_size
        end = min(end, 0x7FFFFFFFF000) - length
        address = start
        if end > start:
            address += kernel.aslr_rng.getrandbits(32) % ((end - start >> arch.page_shift) + 1) << arch.page_shift
        map_vdso(kernel, mm, address, self.vvar_pages, length, vvar_first=False)

    # ---- signal frames

    def setup_rt_frame(self, kernel: Kernel, task: Task, ksig: KSignal, mask: int) -> None:
        """__setup_rt_frame()."""
        action = ksig.action
        if not action.flags & SA_RESTORER:
            raise Errno(errno.EFAULT)
        cpu = kernel.cpu
        regs = cpu.regs
        old_sp = regs[RSP]
        frame, fpstate = self._get_sigframe(kernel, task, action.flags, old_sp)
        if not access_ok(task, frame, FRAME_SIZE):
            raise Errno(errno.EFAULT)
        flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
        copy_to_user(task, frame, _HEAD.pack(action.restorer, flags, 0, task.sas_ss_sp, task.sas_ss_flags))
        context = [task.sas_ss_size, *[regs[r] for r in _CONTEXT_REGS]]
        if task.sas_ss_flags & 1 << 31:
            sas_ss_reset(task)
        rflags = cpu.get_flags()
        context += [rflags, USER_CS, 0, 0, USER_DS, task.error_code, task.trap_nr, mask, task.cr2, fpstate]
        copy_to_user(task, frame + 40, _CONTEXT.pack(*context))
        tail = mask.to_bytes(8, "little")
        copy_to_user(task, frame + 304, tail + ksig.info.pack() if action.flags & SA_SIGINFO else tail)
        regs[RDI] = ksig.sig
        regs[RAX] = 0
        regs[RSI] = frame + 312
        regs[RDX] = frame + 8
        regs[RIP] = action.handler
        regs[RSP] = frame
        cpu.set_flags(rflags & ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF))
        cpu.set_fpu(FPU_INIT)

    def _get_sigframe(self, kernel: Kernel, task: Task, flags: int, sp: int) -> tuple[int, int]:
        """get_sigframe(): (frame, fpstate) addresses, FPU state already written."""
        nested = on_sig_stack(task, sp)
        entering = False
        sp = sp - 128 & _MASK
        if flags & SA_ONSTACK and sas_ss_flags(task, sp) == 0:
            sp = task.sas_ss_sp + task.sas_ss_size & _MASK
            entering = True
        fpstate = (sp - FXSAVE_SIZE & _MASK) & ~63
        frame = ((fpstate - FRAME_SIZE & _MASK) & ~15) - 8 & _MASK
        if (nested or entering) and not raw_on_sig_stack(task, frame):
            raise Errno(errno.EFAULT)
        if not access_ok(task, fpstate, FXSAVE_SIZE):
            raise Errno(errno.EACCES)
        image = kernel.cpu.get_fpu()
        copy_to_user(task, fpstate, image[:416])
        copy_to_user(task, fpstate + 464, bytes(48))  # sw_reserved: no extended state
        return frame, fpstate

    def sigreturn(self, kernel: Kernel, task: Task) -> int:
        """sys_rt_sigreturn()."""
        cpu = kernel.cpu
        frame = cpu.regs[RSP] - 8 & _MASK
        try:
            if not access_ok(task, frame, FRAME_SIZE):
                raise Errno(errno.EFAULT)
            set_current_blocked(task, get_user(task, frame + 304, 8))
            saved = copy_from_user(task, frame + 24, 24 + _CONTEXT.size - 8)  # SS is always valid: uc_flags say nothing
            self._restore_sigcontext(kernel, task, _CONTEXT.unpack_from(saved, 16))
            stack = _ALTSTACK.unpack_from(saved)
        except Errno:
            force_sig(task, SIGSEGV)
            return 0
        from guest.sys_signal import do_sigaltstack

        try:  # noqa: SIM105 - contextlib is not worth its import here
            do_sigaltstack(task, *stack)
        except Errno:
            pass  # restore_altstack() takes only EFAULT seriously
        return cpu.regs[RAX]

    def _restore_sigcontext(self, kernel: Kernel, task: Task, context: tuple[int, ...]) -> None:
        """restore_sigcontext(): registers, flags and FPU, from what _CONTEXT holds."""
        cpu = kernel.cpu
        task.restart_block = None
        regs = cpu.regs
        for register, value in zip(_CONTEXT_REGS, context[1:18], strict=True):
            regs[register] = value
        cpu.set_flags(cpu.get_flags() & ~FIX_EFLAGS | context[18] & FIX_EFLAGS)
        fpstate = context[27]
        if not fpstate:
            cpu.set_fpu(FPU_INIT)
            return
        try:
            if not access_ok(task, fpstate, FXSAVE_SIZE):
                raise Errno(errno.EACCES)
            image = bytearray(copy_from_user(task, fpstate, FXSAVE_SIZE))
        except Errno:
            cpu.set_fpu(FPU_INIT)
            raise
        mxcsr = int.from_bytes(image[24:28], "little") & 0xFFFF
        image[24:28] = mxcsr.to_bytes(4, "little")
        cpu.set_fpu(bytes(image))

    # ---- exceptions

    def page_fault(self, kernel: Kernel, task: Task, error_code: int, address: int, tried: int = 0) -> None:
        """exc_page_fault() from user mode."""
        if address & ~0xFFF == VSYSCALL_ADDR and self._emulate_vsyscall(kernel, task, error_code, address):
            return
        signal = kernel.system.arch.do_page_fault(task, error_code, address, True, tried)
        if signal is not None:
            task.trap_nr = signal.trap_nr
            task.error_code = signal.error_code
            task.cr2 = address
            if signal.si_code == 0:
                force_sig(task, signal.signo)
            else:
                force_sig_fault(task, signal.signo, signal.si_code, signal.address)

    def exception(self, kernel: Kernel, vector: int, error_code: int, address: int = 0) -> None:
        """Any other exception of user code (arch/x86/kernel/traps.c); queues its signal."""
        task = kernel.begin_trap()
        cpu = kernel.cpu
        rip = cpu.regs[RIP]
        if vector == TRAP_BP:
            task.trap_nr, task.error_code = TRAP_BP, 0
            force_sig(task, SIGTRAP)
        elif vector == TRAP_DB:
            task.trap_nr, task.error_code = TRAP_DB, 0
            force_sig_fault(task, SIGTRAP, TRAP_TRACE, rip)
        elif vector in (TRAP_MF, TRAP_XF):
            task.trap_nr, task.error_code = vector, error_code
            code = self._fpu_code(cpu.get_fpu(), vector)
            if code:
                force_sig_fault(task, SIGFPE, code, rip)
        elif vector == TRAP_AC:
            task.trap_nr, task.error_code = vector, error_code
            force_sig_fault(task, SIGBUS, BUS_ADRALN, 0)
        elif vector != TRAP_GP or not self._emulate_rdtsc(kernel, task):
            signo, code, with_address = _SIMPLE.get(vector, (SIGSEGV, 0, False))
            task.trap_nr, task.error_code = vector, error_code
            if code:
                force_sig_fault(task, signo, code, rip if with_address else 0)
            else:
                force_sig(task, signo)
        kernel.end_trap(task)

    @staticmethod
    def _fpu_code(image: bytes, vector: int) -> int:
        """fpu__exception_code(): which unmasked exception it was; 0: none is left to report."""
        if vector == TRAP_MF:
            control = int.from_bytes(image[0:2], "little")
            status = int.from_bytes(image[2:4], "little")
            err = status & ~control
        else:
            mxcsr = int.from_bytes(image[24:28], "little")
            err = ~(mxcsr >> 7) & mxcsr
        if err & 0x001:
            return FPE_FLTINV
        if err & 0x004:
            return FPE_FLTDIV
        if err & 0x008:
            return FPE_FLTOVF
        if err & 0x012:
            return FPE_FLTUND
        if err & 0x020:
            return FPE_FLTRES
        return 0

    @staticmethod
    def _emulate_rdtsc(kernel: Kernel, task: Task) -> bool:
        """RDTSC and RDTSCP trap (CR4.TSD), so that the counter tells the guest's time and not the host's.

        False when the instruction is another one, or PR_SET_TSC forbade it.
        """
        regs = kernel.cpu.regs
        rip = regs[RIP]
        if task.tsc_forbidden:
            return False
        code = copy_from_user_partial(task, rip, 3)
        if code[:2] == b"\x0f\x31":
            length = 2
        elif code == b"\x0f\x01\xf9":
            length = 3
            regs[RCX] = 0  # IA32_TSC_AUX: node and CPU number
        else:
            return False
        counter = kernel.clock.now * TSC_KHZ // 1_000_000
        regs[RAX] = counter & 0xFFFFFFFF
        regs[RDX] = counter >> 32 & 0xFFFFFFFF
        regs[RIP] = rip + length & _MASK
        return True

    def _emulate_vsyscall(self, kernel: Kernel, task: Task, error_code: int, address: int) -> bool:
        """emulate_vsyscall() with vsyscall=xonly: calls into the page are served, reads of it fault."""
        regs = kernel.cpu.regs
        if error_code & (PF_WRITE | PF_USER) != PF_USER or address != regs[RIP]:
            return False
        number = (address & 0xC00) >> 10
        if address & ~0xC00 != VSYSCALL_ADDR or number >= 3:
            force_sig(task, SIGSEGV)
            return True
        try:
            caller = get_user(task, regs[RSP], 8)
        except Errno:
            force_sig(task, SIGSEGV)
            return True
        name, checks = (
            ("gettimeofday", ((RDI, 16), (RSI, 8))),
            ("time", ((RDI, 8),)),
            ("getcpu", ((RDI, 4), (RSI, 4))),
        )[number]
        for register, size in checks:
            if not access_ok(task, regs[register], size):
                task.error_code, task.cr2, task.trap_nr = PF_USER | PF_WRITE, regs[register], TRAP_PF
                force_sig_fault(task, SIGSEGV, SEGV_MAPERR, regs[register])
                force_sig(task, SIGSEGV)
                return True
        try:
            arguments = [regs[RDI], regs[RSI], 0]
            result = kernel.call_by_name(name, task, arguments)
        except Errno as e:
            if e.number == errno.EFAULT:
                force_sig(task, SIGSEGV)
                return True
            result = -e.number
        regs[RAX] = result & _MASK
        regs[RIP] = caller
        regs[RSP] = regs[RSP] + 8 & _MASK
        return True

    def prctl(self, task: Task, option: int, argument: int) -> int:
        """PR_GET_TSC and PR_SET_TSC: whether RDTSC works. Performance events: none to stop."""
        if option in (31, 32):
            return 0
        if option == PR_GET_TSC:
            put_user(task, argument, PR_TSC_SIGSEGV if task.tsc_forbidden else PR_TSC_ENABLE, 4)
            return 0
        if option == PR_SET_TSC and argument in (PR_TSC_ENABLE, PR_TSC_SIGSEGV):
            task.tsc_forbidden = argument == PR_TSC_SIGSEGV
            return 0
        return super().prctl(task, option, argument)

    def user_registers(self) -> UserRegisters:
        from guest.arch_x86_64_ptrace import X86Registers

        return X86Registers()

    def arch_prctl(self, kernel: Kernel, task: Task, option: int, value: int) -> int:
        """do_arch_prctl_64() and do_arch_prctl_common()."""
        cpu = kernel.cpu
        limit = kernel.system.arch.task_size
        if option in (ARCH_SET_FS, ARCH_SET_GS):
            if value >= limit:
                raise Errno(errno.EPERM)
            (cpu.set_tls if option == ARCH_SET_FS else cpu.set_gs)(value)
        elif option == ARCH_GET_FS:
            put_user(task, value, cpu.get_tls(), 8)
        elif option == ARCH_GET_GS:
            put_user(task, value, cpu.get_gs(), 8)
        elif option == ARCH_GET_CPUID:
            return 1
        elif option == ARCH_SET_CPUID:
            raise Errno(errno.ENODEV)
        else:
            raise Errno(errno.EINVAL)
        return 0
