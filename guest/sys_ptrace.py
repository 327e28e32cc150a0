"""ptrace: the requests of a tracer (kernel/ptrace.c). The stops they end are in guest/ptrace.py."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.ptrace import (
    PTRACE_EVENT_STOP,
    PTRACE_EVENTMSG_SYSCALL_ENTRY,
    PTRACE_EVENTMSG_SYSCALL_EXIT,
    ptrace_attach,
    ptrace_detach,
    ptrace_traceme,
)
from guest.sched import TASK_TRACED
from guest.siginfo import SI_USER, SIG_KERNEL_ONLY_MASK, SIGKILL, SIGTRAP, SigInfo, kill_info, unpack_siginfo
from guest.signal import ptrace_signal_wake_up, send_signal, set_jobctl_pending
from guest.sys_mm import s32
from guest.syscalls import PARTIAL, Call
from guest.task import JOBCTL_LISTENING, JOBCTL_TRAP_NOTIFY, JOBCTL_TRAP_STOP, PT_OPT_FLAG_SHIFT, PT_SEIZED
from mm.errors import Errno
from mm.gup import access_remote_vm
from mm.uaccess import access_ok, copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.task import Task

PTRACE_TRACEME, PTRACE_PEEKTEXT, PTRACE_PEEKDATA, PTRACE_POKETEXT, PTRACE_POKEDATA = 0, 1, 2, 4, 5
PTRACE_CONT, PTRACE_KILL, PTRACE_SINGLESTEP, PTRACE_ATTACH, PTRACE_DETACH = 7, 8, 9, 16, 17
PTRACE_OLDSETOPTIONS, PTRACE_SYSCALL, PTRACE_SYSEMU, PTRACE_SYSEMU_SINGLESTEP = 21, 24, 31, 32
PTRACE_SINGLEBLOCK = 33
PTRACE_SETOPTIONS, PTRACE_GETEVENTMSG, PTRACE_GETSIGINFO, PTRACE_SETSIGINFO = 0x4200, 0x4201, 0x4202, 0x4203
PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
PTRACE_LISTEN, PTRACE_PEEKSIGINFO, PTRACE_GETSIGMASK, PTRACE_SETSIGMASK = 0x4208, 0x4209, 0x420A, 0x420B
PTRACE_GET_SYSCALL_INFO = 0x420E

PTRACE_O_MASK = 0x3000FF
PTRACE_O_SUSPEND_SECCOMP = 1 << 21
_STEPS = (PTRACE_SINGLESTEP, PTRACE_SINGLEBLOCK, PTRACE_SYSEMU_SINGLESTEP)
_INFO_HEAD = Struct("<B3xIQQ")  # op, arch, instruction_pointer, stack_pointer
_PEEK_ARGS = Struct("<QIi")


def sys_ptrace(task: Task, request: int, pid: int, addr: int, data: int) -> int:
    """ptrace."""
    if request == PTRACE_TRACEME:
        ptrace_traceme(task)
        return 0
    child = task.find_task(s32(pid))
    if child is None:
        raise Errno(errno.ESRCH)
    if request in (PTRACE_ATTACH, PTRACE_SEIZE):
        return _attach(task, child, request == PTRACE_SEIZE, addr, data)
    _check_attach(task, child, request in (PTRACE_KILL, PTRACE_INTERRUPT))
    found = child.kernel.arch.user_registers().request(task, child, request, addr, data)
    if found is not None:
        return found
    handler = _REQUESTS.get(request)
    if handler is None:
        raise Errno(errno.EIO)
    return handler(task, child, request, addr, data)


def _attach(task: Task, child: Task, seize: bool, addr: int, options: int) -> int:
    if seize:
        if addr or options & ~PTRACE_O_MASK:
            raise Errno(errno.EIO)
        _check_options(options)
    ptrace_attach(task, child, seize, options)
    return 0


def _check_attach(task: Task, child: Task, any_state: bool) -> None:
    """ptrace_check_attach(). Raises Errno ESRCH for a task that we do not trace, or that is not stopped."""
    if not child.ptrace or child.tracer is not task:
        raise Errno(errno.ESRCH)
    if any_state:
        return
    if child.state != TASK_TRACED or child.jobctl & JOBCTL_LISTENING or child.fatal_signal_pending():
        raise Errno(errno.ESRCH)


def _check_options(options: int) -> None:
    if options & ~PTRACE_O_MASK or options & PTRACE_O_SUSPEND_SECCOMP:  # without CONFIG_CHECKPOINT_RESTORE
        raise Errno(errno.EINVAL)


# ---- memory


def _peek_data(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    word = bytes(access_remote_vm(child.mm, addr, 8)) if child.mm is not None else b""
    if len(word) != 8:
        raise Errno(errno.EIO)
    copy_to_user(task, data, word)
    return 0


def _poke_data(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    done = len(access_remote_vm(child.mm, addr, data.to_bytes(8, "little"))) if child.mm is not None else 0
    if done != 8:
        raise Errno(errno.EIO)
    return 0


# ---- signals


def _get_siginfo(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    if child.last_siginfo is None:
        raise Errno(errno.EINVAL)
    copy_to_user(task, data, child.last_siginfo.pack())
    return 0


def _set_siginfo(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    new = unpack_siginfo(copy_from_user(task, data, 128))
    info = child.last_siginfo
    if info is None:
        raise Errno(errno.EINVAL)
    info.signo, info.errno, info.code, info.fields = new.signo, new.errno, new.code, new.fields
    return 0


def _peek_siginfo(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    offset, flags, count = _PEEK_ARGS.unpack(copy_from_user(task, addr, 16))
    if flags & ~1 or count < 0:
        raise Errno(errno.EINVAL)
    queue = (child.signal.shared_pending if flags else child.pending).queue
    done = 0
    for info in queue[offset : offset + count]:
        try:
            copy_to_user(task, data + 128 * done, info.pack())
        except Errno:
            if not done:
                raise
            break
        done += 1
    return done


def _get_sigmask(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    if addr != 8:
        raise Errno(errno.EINVAL)
    put_user(task, data, child.blocked if child.saved_sigmask is None else child.saved_sigmask, 8)
    return 0


def _set_sigmask(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    if addr != 8:
        raise Errno(errno.EINVAL)
    child.blocked = int.from_bytes(copy_from_user(task, data, 8), "little") & ~SIG_KERNEL_ONLY_MASK
    child.saved_sigmask = None
    return 0


# ---- going on


def _resume(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    """ptrace_resume(): let the child go on, with a signal or without one."""
    if data > 64 or (request == PTRACE_SINGLEBLOCK and not child.kernel.arch.user_registers().has_block_step):
        raise Errno(errno.EIO)
    child.trace_syscalls = request == PTRACE_SYSCALL
    child.trace_emu = request in (PTRACE_SYSEMU, PTRACE_SYSEMU_SINGLESTEP)
    child.trace_step = request in _STEPS
    child.exit_code = data
    child.kernel.wake_up(child)
    return 0


def _detach(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    if data & 0xFFFFFFFF > 64:
        raise Errno(errno.EIO)
    ptrace_detach(task, child, data & 0xFFFFFFFF)
    return 0


def _kill(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    send_signal(kill_info(SIGKILL, SI_USER, child.vnr(task.tgid), task.cred.uid), child, False)
    return 0


def _interrupt(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    if not child.ptrace & PT_SEIZED or child.exit_state:
        raise Errno(errno.EIO)
    if set_jobctl_pending(child, JOBCTL_TRAP_STOP):
        ptrace_signal_wake_up(child, bool(child.jobctl & JOBCTL_LISTENING))
    return 0


def _listen(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    info = child.last_siginfo
    if not child.ptrace & PT_SEIZED or info is None or info.code >> 8 != PTRACE_EVENT_STOP:
        raise Errno(errno.EIO)
    child.jobctl |= JOBCTL_LISTENING
    if child.jobctl & JOBCTL_TRAP_NOTIFY:
        ptrace_signal_wake_up(child, True)
    return 0


# ---- what there is to know


def _set_options(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    _check_options(data)
    child.ptrace = child.ptrace & ~(PTRACE_O_MASK << PT_OPT_FLAG_SHIFT) | data << PT_OPT_FLAG_SHIFT
    return 0


def _get_event_message(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    put_user(task, data, child.ptrace_message, 8)
    return 0


def _regset(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    """PTRACE_GETREGSET, PTRACE_SETREGSET: `addr` is the set, `data` an iovec whose length is set to what was copied."""
    if not access_ok(task, data, 16):
        raise Errno(errno.EFAULT)
    base, length = Struct("<QQ").unpack(copy_from_user(task, data, 16))
    view = child.kernel.arch.user_registers()
    note = addr & 0xFFFFFFFF
    length = view.set_of(note, length)
    if request == PTRACE_GETREGSET:
        copy_to_user(task, base, view.get(child, note)[:length])
    else:
        view.put(child, note, copy_from_user(task, base, length))
    put_user(task, data + 8, length, 8)
    return 0


def _get_syscall_info(task: Task, child: Task, request: int, addr: int, data: int) -> int:
    """struct ptrace_syscall_info, as much as fits into `addr` bytes; how long it is."""
    from guest.ptrace_regs import registers, signed

    arch = child.kernel.arch
    info: SigInfo | None = child.last_siginfo
    with registers(child) as cpu:
        values = [cpu.regs[register] for register in arch.arguments]
        pc, sp, result = cpu.regs[arch.pc], cpu.regs[arch.sp], signed(cpu.regs[arch.result])
    kind, rest = 0, b""
    if info is not None and info.code == SIGTRAP | 0x80:
        if child.ptrace_message == PTRACE_EVENTMSG_SYSCALL_ENTRY:
            number = -1 if child.orig_nr is None else child.orig_nr
            kind, rest = 1, Struct("<q6Q").pack(number, *values)
        elif child.ptrace_message == PTRACE_EVENTMSG_SYSCALL_EXIT:
            if child.restart_code:
                result = -child.restart_code
            kind, rest = 2, Struct("<qB").pack(result, -4095 <= result < 0)
    image = _INFO_HEAD.pack(kind, arch.user_registers().entry_arch, pc, sp) + rest
    copy_to_user(task, data, image[:addr])
    return len(image)


_REQUESTS: dict[int, Callable[[Task, Task, int, int, int], int]] = {
    PTRACE_PEEKTEXT: _peek_data,
    PTRACE_PEEKDATA: _peek_data,
    PTRACE_POKETEXT: _poke_data,
    PTRACE_POKEDATA: _poke_data,
    PTRACE_CONT: _resume,
    PTRACE_KILL: _kill,
    PTRACE_SINGLESTEP: _resume,
    PTRACE_DETACH: _detach,
    PTRACE_SYSCALL: _resume,
    PTRACE_SYSEMU: _resume,
    PTRACE_SYSEMU_SINGLESTEP: _resume,
    PTRACE_SINGLEBLOCK: _resume,
    PTRACE_OLDSETOPTIONS: _set_options,
    PTRACE_SETOPTIONS: _set_options,
    PTRACE_GETEVENTMSG: _get_event_message,
    PTRACE_GETSIGINFO: _get_siginfo,
    PTRACE_SETSIGINFO: _set_siginfo,
    PTRACE_GETREGSET: _regset,
    PTRACE_SETREGSET: _regset,
    PTRACE_INTERRUPT: _interrupt,
    PTRACE_LISTEN: _listen,
    PTRACE_PEEKSIGINFO: _peek_siginfo,
    PTRACE_GETSIGMASK: _get_sigmask,
    PTRACE_SETSIGMASK: _set_sigmask,
    PTRACE_GET_SYSCALL_INFO: _get_syscall_info,
}

CALLS = (
    Call(
        "ptrace",
        sys_ptrace,
        PARTIAL,
        "no seccomp; arm64 without debug registers",
    ),
)
