"""What the personality needs of a CPU: one Protocol, implemented in emu/, faked in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import MutableSequence


class Cpu(Protocol):
    """The one emulated CPU, as seen while a trap of the running task is being served.

    `regs` are 64-bit words, live: what a handler writes there the guest sees when it resumes. Layout, which
    `guest/arch_*.py` names: x86-64: 0-15 rax rcx rdx rbx rsp rbp rsi rdi r8-r15, 16 rip. arm64: 0-30 x0-x30,
    31 sp, 32 pc. In a system call pc is already behind the instruction.
    """

    regs: MutableSequence[int]

    def get_flags(self) -> int:
        """RFLAGS, or PSTATE as SPSR_EL1 shows it (NZCV, mode bits 0)."""

    def set_flags(self, value: int) -> None:
        """Set RFLAGS or PSTATE; only bits user code may change are taken."""

    def get_tls(self) -> int:
        """FS base, or TPIDR_EL0."""

    def set_tls(self, value: int) -> None:
        """Set FS base, or TPIDR_EL0."""

    def get_gs(self) -> int:
        """GS base; 0 on arm64."""

    def set_gs(self, value: int) -> None:
        """Set GS base; nothing on arm64."""

    def get_fpu(self) -> bytes:
        """FXSAVE image, 512 bytes (x86-64), or struct user_fpsimd_state, 528 bytes (arm64)."""

    def set_fpu(self, image: bytes) -> None:
        """Load what get_fpu gave."""

    def save_state(self) -> bytes:
        """Everything user code can see of the trapped task, opaque, picklable. For a task switch and for fork."""

    def load_state(self, state: bytes) -> None:
        """Make `state` (of save_state) the CPU's; `regs` show it at once."""

    def reset_state(self) -> None:
        """Registers as execve leaves them: all zero, default FPU, TLS 0."""
