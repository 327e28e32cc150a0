"""What ptrace shows of a stopped task's registers: sets, each named by the type of its core note (linux/regset.h)."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guest.siginfo import SI_USER
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.hw import Cpu
    from guest.task import Task

NT_PRSTATUS, NT_PRFPREG = 1, 2
MASK = 0xFFFFFFFFFFFFFFFF


def signed(value: int) -> int:
    """A register as a signed number."""
    return value - (1 << 64) if value >> 63 else value


@contextmanager
def registers(child: Task) -> Iterator[Cpu]:
    """The CPU with the registers of `child`, which is not running; what is changed there is the child's.

    Raises Errno EIO for the stand-in for pid 1, which has none.
    """
    if child is child.kernel.init:
        raise Errno(errno.EIO)
    cpu = child.kernel.cpu
    saved = cpu.save_state()
    cpu.load_state(child.cpu_state)
    try:
        yield cpu
        child.cpu_state = cpu.save_state()
    finally:
        cpu.load_state(saved)


class UserRegisters:
    """One architecture's register sets."""

    sets: dict[int, tuple[int, int]] = {}  # noqa: RUF012 - constant # note type: (bytes of a register, bytes of all)
    entry_arch = 0  # AUDIT_ARCH_*
    step_code = SI_USER  # si_code of the SIGTRAP after a system call under single step
    steps_twice = False  # another SIGTRAP follows that one before the next instruction

    has_block_step = False  # arch_has_block_step()

    def read(self, cpu: Cpu, child: Task, note: int) -> bytes:
        """The whole set. Raises Errno ENODEV or ENXIO where the machine has none."""
        raise NotImplementedError

    def write(self, cpu: Cpu, child: Task, note: int, image: bytes) -> None:
        """Replace the whole set. Raises Errno EIO or EINVAL for values the kernel refuses."""
        raise NotImplementedError

    def skipped(self, cpu: Cpu, child: Task) -> int:
        """The result of a call that does not exist, or that the tracer does not want made."""
        return child.trace_result

    def trapped(self, task: Task, status: int) -> None:
        """A debug exception, `status` what x86-64 says of it in DR6."""

    def request(self, task: Task, child: Task, request: int, addr: int, data: int) -> int | None:
        """The requests only this architecture has; None for any other."""
        return None

    def get(self, child: Task, note: int) -> bytes:
        """read() of a stopped child."""
        with registers(child) as cpu:
            return self.read(cpu, child, note)

    def put(self, child: Task, note: int, part: bytes, offset: int = 0) -> None:
        """Replace bytes of a set of a stopped child."""
        with registers(child) as cpu:
            image = self.read(cpu, child, note)
            self.write(cpu, child, note, image[:offset] + part + image[offset + len(part) :])

    def set_of(self, note: int, length: int) -> int:
        """How many bytes of a set `length` covers. Raises Errno EINVAL: no such set, or half a register."""
        if note not in self.sets or length % self.sets[note][0]:
            raise Errno(errno.EINVAL)
        return min(length, self.sets[note][1])
