"""x86-64's registers as ptrace shows them: struct user_regs_struct, the FXSAVE image, the USER area (kernel/ptrace.c).

Debug registers stop a task at code, for which it runs one instruction at a time, and behind an instruction that touches
data, which the engine looks out for (`Kernel.watch_data`). The processor cannot step from branch to branch, as the one
Linux was recorded on: PTRACE_SINGLEBLOCK steps by instructions.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.arch_x86_64 import (
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    USER_CS,
    USER_DS,
)
from guest.ptrace import ENTRY, EVENT, EXEC
from guest.ptrace_regs import MASK, NT_PRFPREG, NT_PRSTATUS, UserRegisters, signed
from guest.sched import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS
from guest.siginfo import TRAP_BRKPT
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from guest.hw import Cpu
    from guest.task import Task

NT_386_IOPERM, NT_X86_XSTATE = 0x201, 0x202
PTRACE_PEEKUSR, PTRACE_POKEUSR = 3, 6
PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_GETFPREGS, PTRACE_SETFPREGS = 12, 13, 14, 15
PTRACE_ARCH_PRCTL = 30
USER_SIZE, U_DEBUGREG = 928, 848  # struct user
DR6_RESERVED = 0xFFFF0FF0
DR_EXECUTE, DR_WRITE, DR_IO, DR_ACCESS = range(4)  # bits of DR7 for each
_LENGTHS = (1, 2, 8, 4)  # bytes
_REGS = Struct("<27Q")
# struct user_regs_struct; None where the value is not a register of the CPU's file.
_ORDER = (
    R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, None, RCX, RDX, RSI, RDI, None, RIP, None, None, RSP, None,
    None, None, None, None, None, None,
)  # fmt: skip
_RAX, _ORIG_RAX, _CS, _EFLAGS, _SS, _FS_BASE, _GS_BASE = 10, 15, 17, 18, 20, 21, 22
_BASES = {  # of arch_prctl: which base, and whether it is set
    0x1001: (_GS_BASE, True),
    0x1002: (_FS_BASE, True),
    0x1003: (_FS_BASE, False),
    0x1004: (_GS_BASE, False),
}
_RESTARTS = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)


class X86Registers(UserRegisters):
    """x86-64."""

    sets = {  # noqa: RUF012 - constant
        NT_PRSTATUS: (8, 216),
        NT_PRFPREG: (8, 512),
        NT_X86_XSTATE: (8, 0),
        NT_386_IOPERM: (8, 8192),
    }
    entry_arch = 0xC000003E
    step_code = TRAP_BRKPT
    has_block_step = True

    def read(self, cpu: Cpu, child: Task, note: int) -> bytes:
        if note == NT_PRSTATUS:
            return _REGS.pack(*self._general(cpu, child))
        if note == NT_PRFPREG:
            return cpu.get_fpu()
        raise Errno(errno.ENODEV if note == NT_X86_XSTATE else errno.ENXIO)  # no XSAVE; no permissions for ports

    def write(self, cpu: Cpu, child: Task, note: int, image: bytes) -> None:
        if note == NT_PRSTATUS:
            self._set_general(cpu, child, _REGS.unpack(image))
        elif note == NT_PRFPREG:
            mxcsr = int.from_bytes(image[24:28], "little") & 0xFFFF
            cpu.set_fpu(image[:24] + mxcsr.to_bytes(4, "little") + image[28:])
        else:
            raise Errno(errno.ENODEV if note == NT_X86_XSTATE else errno.EIO)

    @staticmethod
    def _result(cpu: Cpu, child: Task) -> tuple[int, int]:
        """rax and orig_rax. While a call is still to be made, or made again, our rax is its number."""
        number = -1 if child.orig_nr is None else child.orig_nr
        if child.trace_stop in (ENTRY, EVENT, EXEC):
            return child.trace_result, number & MASK
        if child.restart_code:
            return -child.restart_code & MASK, cpu.regs[RAX]
        return cpu.regs[RAX], number & MASK

    def _general(self, cpu: Cpu, child: Task) -> list[int]:
        values = [0 if register is None else cpu.regs[register] for register in _ORDER]
        values[_RAX], values[_ORIG_RAX] = self._result(cpu, child)
        values[_CS], values[_SS] = USER_CS, USER_DS
        values[_EFLAGS] = cpu.get_flags()
        values[_FS_BASE], values[_GS_BASE] = cpu.get_tls(), cpu.get_gs()
        return values

    def _set_general(self, cpu: Cpu, child: Task, values: tuple[int, ...]) -> None:
        limit = child.kernel.system.arch.task_size
        for base in (values[_FS_BASE], values[_GS_BASE]):
            if base >= limit:
                raise Errno(errno.EIO)
        for selector in (_CS, _SS, 23, 24, 25, 26):
            value = values[selector] & 0xFFFF
            if (value and value & 3 != 3) or (selector in (_CS, _SS) and not value):
                raise Errno(errno.EIO)
        for register, value in zip(_ORDER, values, strict=True):
            if register is not None:
                cpu.regs[register] = value
        cpu.set_flags(values[_EFLAGS])
        cpu.set_tls(values[_FS_BASE])
        cpu.set_gs(values[_GS_BASE])
        if (values[_RAX], values[_ORIG_RAX]) != self._result(cpu, child):
            self._set_result(cpu, child, values[_RAX], signed(values[_ORIG_RAX]))

    @staticmethod
    def _set_result(cpu: Cpu, child: Task, result: int, number: int) -> None:
        child.orig_nr = number
        if child.trace_stop in (ENTRY, EVENT, EXEC):
            child.trace_result = result
            if child.trace_stop == ENTRY:
                cpu.regs[RAX] = number & MASK
            return
        code = -signed(result)
        child.restart_code = code if number >= 0 and code in _RESTARTS else 0
        cpu.regs[RAX] = number & MASK if child.restart_code else result

    # ---- requests

    def request(self, task: Task, child: Task, request: int, addr: int, data: int) -> int | None:
        if request in (PTRACE_PEEKUSR, PTRACE_POKEUSR):
            if addr & 7 or addr >= USER_SIZE:
                raise Errno(errno.EIO)
            if request == PTRACE_PEEKUSR:
                put_user(task, data, self._peek(child, addr), 8)
            else:
                self._poke(child, addr, data)
        elif request in (PTRACE_GETREGS, PTRACE_GETFPREGS):
            copy_to_user(task, data, self.get(child, NT_PRSTATUS if request == PTRACE_GETREGS else NT_PRFPREG))
        elif request in (PTRACE_SETREGS, PTRACE_SETFPREGS):
            note = NT_PRSTATUS if request == PTRACE_SETREGS else NT_PRFPREG
            self.put(child, note, copy_from_user(task, data, self.sets[note][1]))
        elif request == PTRACE_ARCH_PRCTL:
            self._arch_prctl(task, child, data, addr)
        else:
            return None
        return 0

    def _peek(self, child: Task, addr: int) -> int:
        if addr < 216:
            return int.from_bytes(self.get(child, NT_PRSTATUS)[addr : addr + 8], "little")
        if U_DEBUGREG <= addr < U_DEBUGREG + 64:
            number = (addr - U_DEBUGREG) // 8
            return child.debug_registers[number] ^ (DR6_RESERVED if number == 6 else 0)
        return 0

    def _poke(self, child: Task, addr: int, value: int) -> None:
        if addr < 216:
            self.put(child, NT_PRSTATUS, value.to_bytes(8, "little"), addr)
        elif U_DEBUGREG <= addr < U_DEBUGREG + 64:
            self._set_debug_register(child, (addr - U_DEBUGREG) // 8, value)
        else:
            raise Errno(errno.EIO)

    @staticmethod
    def _set_debug_register(child: Task, number: int, value: int) -> None:
        """ptrace_set_debugreg(): DR7 says which of the four are enabled, and DR6 which was reached last."""
        if number in (4, 5):
            raise Errno(errno.EIO)
        if number < 4 and value >= child.kernel.system.arch.task_size:
            raise Errno(errno.EINVAL)
        if number == 6:
            value ^= DR6_RESERVED
        before, slots = child.debug_registers, child.debug_slots
        registers = (*before[:number], value, *before[number + 1 :])
        if number != 6:
            child.debug_slots |= 1 << number if number < 4 else sum(_on(value, n) << n for n in range(4))
            try:
                code, data = _enabled(registers, child.debug_slots)
            except Errno:
                child.debug_slots = slots
                raise
            child.hw_breakpoints = code
            if data != child.hw_watchpoints:
                child.hw_watchpoints = data
                child.kernel.watch_data(child)
        child.debug_registers = registers

    def trapped(self, task: Task, status: int) -> None:
        task.debug_registers = (*task.debug_registers[:6], status, task.debug_registers[7])

    @staticmethod
    def _arch_prctl(task: Task, child: Task, option: int, addr: int) -> None:
        """do_arch_prctl_64() for another task: the bases of FS and GS."""
        if option not in _BASES:
            raise Errno(errno.EINVAL)
        index, write = _BASES[option]
        view = child.kernel.arch.user_registers()
        image = view.get(child, NT_PRSTATUS)
        if not write:
            copy_to_user(task, addr, image[8 * index : 8 * index + 8])
            return
        if addr >= child.kernel.system.arch.task_size:
            raise Errno(errno.EPERM)
        view.put(child, NT_PRSTATUS, addr.to_bytes(8, "little"), 8 * index)


def _on(dr7: int, number: int) -> bool:
    """Whether DR7 enables a slot, locally or globally."""
    return bool(dr7 >> 2 * number & 3)


def _enabled(
    registers: tuple[int, ...], slots: int
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int, int, str], ...]]:
    """ptrace_write_dr7(): the breakpoints on code (number, address) and on data (number, address, bytes, access).

    `slots`: those that were ever used; what is wrong with one counts even while it is disabled.

    Raises Errno(EINVAL) for what no CPU has.
    """
    code, data = [], []
    for number in range(4):
        if not slots >> number & 1:
            continue
        kind, length = registers[7] >> 16 + 4 * number & 3, _LENGTHS[registers[7] >> 18 + 4 * number & 3]
        address = registers[number]
        if kind == DR_IO or (kind == DR_EXECUTE and length != 1) or address & length - 1:
            raise Errno(errno.EINVAL)
        if not _on(registers[7], number):
            continue
        if kind == DR_EXECUTE:
            code.append((number, address))
        else:
            data.append((number, address, length, "w" if kind == DR_WRITE else "rw"))
    return tuple(code), tuple(data)
