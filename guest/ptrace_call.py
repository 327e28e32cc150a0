"""System calls of a traced task, and how it goes on after a stop (kernel/entry/common.c, arch/arm64/kernel/ptrace.c).

    traced_call: ENTRY stop -> the handler (which may stop in the middle) -> EXEC stop -> LEAVE stop -> signals
    after_stop:  back to where the task stopped, with the signal its tracer sends along

`task.trace_stop` says where a stopped task is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.events import SyscallEnter, SyscallExit
from guest.ptrace import ENTRY, EVENT, EXEC, EXITING, LEAVE, PTRACE_EVENT_EXEC, goes_on, ptrace_event, syscall_stop
from guest.sched import TASK_RUNNING, Block, Restart, TaskExit
from guest.siginfo import SI_USER, SIGTRAP, TRAP_HWBKPT, TRAP_TRACE, kill_info
from guest.signal import force_sig_fault, force_sig_info, send_signal
from guest.syscall_numbers import NAMES
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.task import Task

_ENOSYS = 38
_MASK = 0xFFFFFFFFFFFFFFFF


def traced_call(kernel: Kernel, task: Task, number: int) -> None:
    """Kernel.system_call() for a task that has a tracer."""
    if not task.trace_in_call:
        task.trace_in_call = True
        task.orig_nr = number
        task.trace_result = -_ENOSYS & _MASK
        task.trace_entered = False
        if task.trace_syscalls or task.trace_emu:
            try:
                syscall_stop(task, ENTRY)
            except Block:
                task.in_call = True
                return
    if task.trace_entered_emu:
        task.trace_entered_emu = False
        kernel.cpu.regs[kernel.result_register] = task.trace_result
        _returns(kernel, task, 0)
        return
    _serve(kernel, task)


def _serve(kernel: Kernel, task: Task) -> None:
    """Run the handler of the call the task is in; its number is the tracer's to change."""
    regs = kernel.cpu.regs
    number = -1 if task.orig_nr is None else task.orig_nr
    entry = (kernel.calls[number] or kernel.table.resolve(number)) if 0 <= number < len(kernel.calls) else None
    args = tuple(regs[register] for register in kernel.arch.arguments)
    _tell(kernel, task, SyscallEnter, number, args, kernel.rerun)
    code = 0
    try:
        if entry is not None:
            result = entry.handler(task, *args[: entry.nargs])
        else:
            result = kernel.arch.user_registers().skipped(kernel.cpu, task)
            kernel.unknown_calls[number] = kernel.unknown_calls.get(number, 0) + 1
    except Errno as e:
        result = -e.number
    except Restart as e:
        result, code = -e.code, e.code
    except Block:
        task.in_call = True
        task.nvcsw += 1
        kernel.need_resched = True
        return
    except TaskExit:
        kernel.need_resched = True
        return
    if not code:
        regs[kernel.result_register] = result & _MASK
    _tell(kernel, task, SyscallExit, number, args, result - (1 << 64) if result >> 63 == 1 else result)
    task.wait_state = {}
    if task.trace_exec:
        task.trace_exec = False
        try:
            ptrace_event(task, EXEC, PTRACE_EVENT_EXEC, task.ptrace_message)
        except Block:
            return
    _returns(kernel, task, code)


def _tell(kernel: Kernel, task: Task, event: Any, number: int, args: tuple[int, ...], last: int) -> None:
    emit = kernel.system.listener
    if emit is not None:
        name = NAMES[kernel.arch.name].get(number, f"syscall_{number & _MASK:#x}")
        emit(event(task.pid, number, name, args, last))


def _returns(kernel: Kernel, task: Task, code: int) -> None:
    """The call is over, `code` the ERESTART code it ended with: the stop after it, then signals."""
    task.trace_in_call = False
    task.restart_code = code
    if task.trace_step and not task.trace_emu:
        view = kernel.arch.user_registers()
        task.step_again = view.steps_twice
        if view.step_code == SI_USER:
            force_sig_info(task, kill_info(SIGTRAP, SI_USER, 0, 0))
        else:
            force_sig_fault(task, SIGTRAP, view.step_code, kernel.cpu.regs[kernel.arch.pc])
    elif task.trace_syscalls:
        try:
            syscall_stop(task, LEAVE)
        except Block:
            return
    _to_user(kernel, task)


def _to_user(kernel: Kernel, task: Task) -> None:
    """Signals; if none of them stops the task, it is out of its call."""
    code, task.restart_code = task.restart_code, 0
    kernel.leave(task, code)
    if not kernel.need_resched or not task.trace_stop:
        task.orig_nr = None


def after_stop(kernel: Kernel, task: Task) -> bool:
    """The tracer let the task go on, or it is being killed. False: it is in a call, which is to be run again."""
    where, task.trace_stop = task.trace_stop, ""
    goes_on(task)
    if where in (ENTRY, LEAVE, EXEC):
        signo, task.exit_code = task.exit_code, 0
        if where != EXEC:
            task.ptrace_message = 0
            if signo:
                send_signal(kill_info(signo, SI_USER, task.vnr(task.tgid), task.cred.uid), task, False)
    if where == ENTRY:
        task.trace_entered = True
        if task.fatal_signal_pending() or task.trace_emu:
            task.trace_entered_emu = True
        return False
    if where == EVENT:
        task.exit_code = 0
        return False
    if where == EXITING:
        from guest.exit import do_exit

        try:
            do_exit(task, task.trace_exit_code or 0)
        except TaskExit:
            kernel.need_resched = True
        return True
    if where == EXEC:
        _returns(kernel, task, 0)
        return True
    if task.step_again:
        task.step_again = False
        if task.trace_step:
            force_sig_fault(task, SIGTRAP, TRAP_TRACE, kernel.cpu.regs[kernel.arch.pc])
    task.sigpending = True  # so that get_signal() looks, and goes on with the signal of a SIGNAL stop
    _to_user(kernel, task)
    return True


def arrived(kernel: Kernel, task: Task) -> None:
    """A task with hardware breakpoints ran for one instruction: its SIGTRAP if the next one is at one of them.

    Not if the next one is the same again because it faulted. What a call or a signal leads to is not looked at.
    """
    pc = kernel.cpu.regs[kernel.arch.pc]
    if pc == task.step_from[0] and (pc, task.min_flt + task.maj_flt) != task.step_from:
        return
    for number, address in task.hw_breakpoints:
        if pc == address:
            kernel.arch.user_registers().trapped(task, 1 << number)
            force_sig_fault(task, SIGTRAP, TRAP_HWBKPT, pc)
            return


DR_STEP = 0x4000  # of DR6


def stepped(kernel: Kernel, task: Task) -> None:
    """A single-stepped task ran for one instruction: its SIGTRAP, unless all it did was to fault in a page."""
    pc = kernel.cpu.regs[kernel.arch.pc]
    if (pc, task.min_flt + task.maj_flt) != task.step_from and pc == task.step_from[0]:
        return
    kernel.arch.user_registers().trapped(task, DR_STEP | task.debug_hits)
    task.debug_hits = 0
    force_sig_fault(task, SIGTRAP, TRAP_TRACE, pc)


def touched_data(kernel: Kernel, task: Task) -> None:
    """The instruction that is over touched data that a debug register watches: SIGTRAP."""
    kernel.arch.user_registers().trapped(task, task.debug_hits)
    task.debug_hits = 0
    force_sig_fault(task, SIGTRAP, TRAP_HWBKPT, kernel.cpu.regs[kernel.arch.pc])
    if task.state == TASK_RUNNING and task not in kernel.run_queue:  # else when its turn comes
        kernel.end_trap(task)


def flush_hw_breakpoints(task: Task) -> None:
    """flush_ptrace_hw_breakpoint(): the program the debug registers were for is gone."""
    task.debug_registers, task.hw_breakpoints, task.debug_slots = (0,) * 8, (), 0
    if task.hw_watchpoints:
        task.hw_watchpoints = ()
        task.kernel.watch_data(task)
