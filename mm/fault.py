"""What the fault routines of both architectures share: reporting, and the end of memory.

The routines themselves (`do_page_fault`) are methods of the architectures, as in arch/*/mm/fault.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import MustSleep
from mm.events import Fault
from mm.flags import (
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    VM_FAULT_ERROR,
    VM_FAULT_MAJOR,
)

if TYPE_CHECKING:
    from mm.arch import FaultSignal
    from mm.types import TaskStruct, VmAreaStruct

SIGKILL = 9
SI_KERNEL = 0x80


def report_fault(
    task: TaskStruct, error_code: int, address: int, flags: int, fault: int, stack: bool, signal: int
) -> None:
    """Send a `Fault` event. Only called when somebody listens."""
    system = task.system
    listener = system.listener
    if listener is None:
        return
    access = "exec" if flags & FAULT_FLAG_INSTRUCTION else "write" if flags & FAULT_FLAG_WRITE else "read"
    result = "refused" if signal else system.fault_result
    major = bool(fault & VM_FAULT_MAJOR)
    user = bool(flags & FAULT_FLAG_USER)
    listener(Fault(task.pid, address, error_code, access, result, major, stack, signal, user))


def retry_fault(vma: VmAreaStruct, address: int, flags: int) -> int:
    """Make a fault again that ended in VM_FAULT_RETRY; its VM_FAULT_* bits, a major fault whatever it finds."""
    system = vma.vm_mm.system
    result = system.fault_result  # what the first try did is what there is to tell
    fault = vma.vm_mm.ops.handle_mm_fault(vma, address, flags | FAULT_FLAG_TRIED)
    system.fault_result = result
    return fault if fault & VM_FAULT_ERROR else fault | VM_FAULT_MAJOR


def retry_later(task: TaskStruct, error_code: int, address: int, user: bool) -> None:
    """The fault must wait for a userfaultfd: `task` makes it again when it has been woken.

    Raises MustSleep for a fault of the kernel: its caller cannot go on.
    """
    task.userfaults[-1].retry = (error_code, address, user)
    if not user:
        raise MustSleep


def pagefault_out_of_memory(task: TaskStruct, trap_nr: int, error_code: int, address: int) -> FaultSignal:
    """No frame was left for a fault. DEVIATION D4: the task that asked is killed, not the one with the worst score."""
    from mm.arch import FaultSignal

    task.system.oom_kill += 1
    return FaultSignal(SIGKILL, SI_KERNEL, address, trap_nr, error_code)
