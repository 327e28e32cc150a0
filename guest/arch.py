"""What the personality asks of an architecture: one class, and where the two subclasses live."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mm.errors import Errno

if TYPE_CHECKING:
    from guest.hw import Cpu
    from guest.kernel import Kernel
    from guest.ptrace_regs import UserRegisters
    from guest.signal_deliver import KSignal
    from guest.task import Task
    from mm.types import MmStruct


class GuestArch:
    """Registers, system call convention, signal frames, exceptions, vDSO of one architecture.

    Register numbers index `Cpu.regs`. An instance is plain data and picklable.
    """

    name = ""  # as mm's Arch: "x86_64", "aarch64"
    machine = ""  # utsname
    elf_machine = 0
    elf_platform = b""
    number = 0  # register of the system call number
    number_mask = 0xFFFFFFFFFFFFFFFF  # how much of it counts
    result = 0
    arguments: tuple[int, ...] = ()
    pc = 0
    sp = 0
    min_sigstksz = 2048  # MINSIGSTKSZ
    has_restorer = True  # sa_restorer in struct sigaction
    uses_sa_restorer = True
    vvar_pages = 0
    vvar_timens_page = 0  # the page of [vvar] that is the first one's stand-in in a time namespace
    vdso_data_offset = 0  # of struct vdso_data within its page
    uses_gnu_property = False  # CONFIG_ARCH_USE_GNU_PROPERTY
    gate_area: tuple[int, int, int, str] | None = None  # start, end, vm_flags, name: shown in maps, mapped nowhere
    clone_backwards = False  # argument order of clone: tls before child_tid

    def __init__(self, hwcap: int | None = None, hwcap2: int = 0) -> None:
        if hwcap is not None:
            self.hwcap = hwcap  # AT_HWCAP: what the emulated CPU can do
        self.hwcap2 = hwcap2

    hwcap = 0

    def restart_syscall(self, cpu: Cpu) -> None:
        """Go back to the system call instruction, registers as before it."""
        raise NotImplementedError

    def restart_by_block(self, cpu: Cpu) -> None:
        """Go back to it as restart_syscall()."""
        raise NotImplementedError

    def start_thread(self, kernel: Kernel, entry: int, sp: int) -> None:
        """Registers of a fresh program."""
        raise NotImplementedError

    def set_child_registers(self, cpu: Cpu, sp: int, tls: int | None) -> None:
        """copy_thread(): what the child of a clone sees, on a CPU that holds the parent's registers."""
        raise NotImplementedError

    def arch_dlinfo(self, mm: MmStruct) -> list[int]:
        """The auxiliary vector's first entries (ARCH_DLINFO)."""
        raise NotImplementedError

    def hwcap2_entries(self) -> list[int]:
        """AT_HWCAP2."""
        return [26, self.hwcap2]

    def stack_rnd_mask(self, page_shift: int) -> int:
        """STACK_RND_MASK: how far the stack may be moved, pages."""
        raise NotImplementedError

    def align_stack(self, kernel: Kernel, task: Task, sp: int) -> int:
        """arch_align_stack()."""
        raise NotImplementedError

    def setup_additional_pages(self, kernel: Kernel, task: Task) -> None:
        """Map the vDSO and its data."""
        raise NotImplementedError

    def setup_rt_frame(self, kernel: Kernel, task: Task, ksig: KSignal, mask: int) -> None:
        """Build a signal frame and enter the handler. Raises Errno(EFAULT) when the stack cannot take it."""
        raise NotImplementedError

    def sigreturn(self, kernel: Kernel, task: Task) -> int:
        """rt_sigreturn: undo a frame; the value of the result register."""
        raise NotImplementedError

    def page_fault(self, kernel: Kernel, task: Task, error_code: int, address: int, tried: int = 0) -> None:
        """A memory fault of user code: resolve it or queue its signal. `tried`: FAULT_FLAG_TRIED for a retry."""
        raise NotImplementedError

    speculation: dict[int, int] = {}  # noqa: RUF012 - constant # PR_GET_SPECULATION_CTRL: what the CPU is said to do

    def prctl(self, task: Task, option: int, argument: int) -> int:
        """The options of prctl that depend on the architecture. Raises Errno(EINVAL) for those it has not."""
        if option in (52, 53):  # PR_GET_SPECULATION_CTRL, PR_SET_SPECULATION_CTRL
            if argument not in self.speculation:
                raise Errno(errno.ENODEV)
            if option == 53:
                raise Errno(errno.ENXIO)
            return self.speculation[argument]
        raise Errno(errno.EINVAL)

    def user_registers(self) -> UserRegisters:
        """How ptrace shows the registers of a stopped task."""
        raise NotImplementedError

    def arch_prctl(self, kernel: Kernel, task: Task, option: int, value: int) -> int:
        """arch_prctl, where there is one."""
        raise NotImplementedError


def make(name: str, hwcap: int | None = None, hwcap2: int | None = None) -> GuestArch:
    """The architecture called `name`; the other one's module is not even imported."""
    if name == "x86_64":
        from guest.arch_x86_64 import X86_64

        return X86_64(hwcap, 0 if hwcap2 is None else hwcap2)
    if name == "aarch64":
        from guest.arch_arm64 import Arm64

        return Arm64(hwcap, 0 if hwcap2 is None else hwcap2)
    raise ValueError(f"no such architecture: {name}")
