"""arm64's registers as ptrace shows them: struct user_pt_regs, user_fpsimd_state, TLS, call number (kernel/ptrace.c).

There are no hardware breakpoints or watchpoints, nor their sets, as without CONFIG_PERF_EVENTS.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.ptrace import ENTRY, EVENT, LEAVE, SIGNAL
from guest.ptrace_regs import MASK, NT_PRFPREG, NT_PRSTATUS, UserRegisters
from guest.sched import ERESTART_RESTARTBLOCK
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.hw import Cpu
    from guest.task import Task

NT_ARM_TLS, NT_ARM_SYSTEM_CALL = 0x401, 0x404
PC = 32
PSR_USER = 0xFFFFFFFF & ~(0x1F | 0x3C0 | 1 << 20)  # what valid_user_regs() does not look at: no mode, no DAIF, no IL
_REGS = Struct("<34Q")


class Arm64Registers(UserRegisters):
    """arm64."""

    sets = {  # noqa: RUF012 - constant
        NT_PRSTATUS: (8, 272),
        NT_PRFPREG: (4, 528),
        NT_ARM_TLS: (8, 8),
        NT_ARM_SYSTEM_CALL: (4, 4),
    }
    entry_arch = 0xC00000B7
    steps_twice = True

    def skipped(self, cpu: Cpu, child: Task) -> int:
        """Number -1 leaves x0 as the tracer set it."""
        return cpu.regs[0] if child.orig_nr == -1 and child.trace_entered else child.trace_result

    def read(self, cpu: Cpu, child: Task, note: int) -> bytes:
        if note == NT_PRSTATUS:
            return _REGS.pack(*self._general(cpu, child))
        if note == NT_PRFPREG:
            return cpu.get_fpu()
        if note == NT_ARM_TLS:
            return cpu.get_tls().to_bytes(8, "little")
        number = -1 if child.orig_nr is None else child.orig_nr
        return (number & 0xFFFFFFFF).to_bytes(4, "little")

    def write(self, cpu: Cpu, child: Task, note: int, image: bytes) -> None:
        if note == NT_PRSTATUS:
            self._set_general(cpu, child, list(_REGS.unpack(image)))
        elif note == NT_PRFPREG:
            cpu.set_fpu(image)
        elif note == NT_ARM_TLS:
            cpu.set_tls(int.from_bytes(image, "little"))
        else:
            child.orig_nr = int.from_bytes(image, "little", signed=True)

    @staticmethod
    def _general(cpu: Cpu, child: Task) -> list[int]:
        """x7 tells entry from exit; a call to be made again is already rewound when a signal is shown."""
        values = [*(cpu.regs[i] for i in range(33)), cpu.get_flags()]
        if child.trace_stop in (ENTRY, LEAVE):
            values[7] = int(child.trace_stop == LEAVE)
        if child.restart_code:
            if child.trace_stop == SIGNAL:
                values[PC] = values[PC] - 4 & MASK
            else:
                values[0] = -child.restart_code & MASK
        return values

    def _set_general(self, cpu: Cpu, child: Task, values: list[int]) -> None:
        if values[33] & ~PSR_USER & 0xFFFFFFFF & ~(1 << 20):
            raise Errno(errno.EINVAL)
        shown = self._general(cpu, child)
        if child.trace_stop in (ENTRY, LEAVE):
            values[7] = cpu.regs[7]
        if child.restart_code:
            if child.trace_stop == SIGNAL and values[PC] != shown[PC]:
                self._give_up_restart(cpu, child)
            elif child.trace_stop == SIGNAL:
                values[PC] = cpu.regs[PC]
            elif values[0] == shown[0]:
                values[0] = cpu.regs[0]
            else:
                child.restart_code = 0
        if child.trace_stop == EVENT:
            values[:6] = cpu.regs[:6]  # the call is made again from its arguments
        for i in range(33):
            cpu.regs[i] = values[i]
        cpu.set_flags(values[33])

    @staticmethod
    def _give_up_restart(cpu: Cpu, child: Task) -> None:
        """The tracer sent the task elsewhere: do_signal() does not interfere any more."""
        if child.restart_code == ERESTART_RESTARTBLOCK:
            child.restart_block = None
        child.restart_code = 0
