"""Signal numbers, codes and sets, and `SigInfo`: what happened, in the kernel's own 48-byte form.

Sources: include/uapi/asm-generic/signal.h and siginfo.h, include/linux/signal.h. A signal set is an int with bit
(number - 1), as in the kernel's first sigset word.
"""

from __future__ import annotations

from struct import Struct

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE = 1, 2, 3, 4, 5, 6, 7, 8
SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT = 9, 10, 11, 12, 13, 14, 15, 16
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU = 17, 18, 19, 20, 21, 22, 23, 24
SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGPOLL, SIGPWR, SIGSYS = 25, 26, 27, 28, 29, 30, 31
SIGRTMIN = 32
NSIG = 64

NAMES = [
    "0",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
]

SIG_DFL, SIG_IGN = 0, 1
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2

SA_NOCLDSTOP = 0x1
SA_NOCLDWAIT = 0x2
SA_SIGINFO = 0x4
SA_RESTORER = 0x04000000
SA_ONSTACK = 0x08000000
SA_RESTART = 0x10000000
SA_NODEFER = 0x40000000
SA_RESETHAND = 0x80000000

SS_ONSTACK = 1
SS_DISABLE = 2
SS_AUTODISARM = 1 << 31

SI_USER = 0
SI_KERNEL = 0x80
SI_QUEUE = -1
SI_TIMER = -2
SI_SIGIO = -5
SI_TKILL = -6
SI_DETHREAD = -7
SI_ASYNCNL = -60

ILL_ILLOPC, ILL_ILLOPN = 1, 2
FPE_INTDIV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV, FPE_FLTUNK = 1, 3, 4, 5, 6, 7, 14
SEGV_MAPERR, SEGV_ACCERR = 1, 2
BUS_ADRALN, BUS_ADRERR, BUS_OBJERR = 1, 2, 3
TRAP_BRKPT, TRAP_TRACE, TRAP_HWBKPT = 1, 2, 4
CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 3, 4, 5, 6


def sigset(*signals: int) -> int:
    """The set of these signals."""
    mask = 0
    for signal in signals:
        mask |= 1 << (signal - 1)
    return mask


SIG_KERNEL_ONLY_MASK = sigset(SIGKILL, SIGSTOP)
SIG_KERNEL_STOP_MASK = sigset(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
SIG_KERNEL_COREDUMP_MASK = sigset(SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ)
SIG_KERNEL_IGNORE_MASK = sigset(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)
SYNCHRONOUS_MASK = sigset(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)

# How many si_codes are known for a signal that has its own (NSIGILL...), signal.h's sig_sicodes.
_SPECIFIC_CODES = {SIGILL: 11, SIGFPE: 15, SIGSEGV: 9, SIGBUS: 5, SIGTRAP: 5, SIGCHLD: 6, SIGPOLL: 6, SIGSYS: 1}

_NSIGPOLL = 6

_HEAD = Struct("<iii4x")
_PAIR = Struct("<iI")
_CHILD = Struct("<iIiIqq")
_QUEUE = Struct("<iIQ")


class SigInfo:
    """One kernel_siginfo: number, errno, code, and the union as its 32 bytes."""

    __slots__ = ("code", "errno", "fields", "signo")

    def __init__(self, signo: int, code: int, fields: bytes = b"", errno: int = 0) -> None:
        self.signo = signo
        self.errno = errno
        self.code = code
        self.fields = fields

    def pack(self) -> bytes:
        """struct siginfo, 128 bytes, what copy_siginfo_to_user() leaves in memory."""
        return (_HEAD.pack(self.signo, self.errno, self.code) + self.fields).ljust(128, b"\0")

    @property
    def pid(self) -> int:
        """si_pid, where the layout has one."""
        return int.from_bytes(self.fields[0:4], "little", signed=True)

    @property
    def uid(self) -> int:
        """si_uid, where the layout has one."""
        return int.from_bytes(self.fields[4:8], "little")

    @property
    def address(self) -> int:
        """si_addr, where the layout has one."""
        return int.from_bytes(self.fields[0:8], "little")

    @property
    def status(self) -> int:
        """si_status of SIGCHLD."""
        return int.from_bytes(self.fields[8:12], "little", signed=True)

    def __repr__(self) -> str:
        return f"<SigInfo {self.signo} code={self.code} {self.fields.hex()}>"


def sig_specific_sicodes(signo: int) -> bool:
    """Whether the positive codes of a signal mean something of its own."""
    return signo in _SPECIFIC_CODES


def kill_info(signo: int, code: int, pid: int, uid: int) -> SigInfo:
    """SIL_KILL: who sent it."""
    return SigInfo(signo, code, _PAIR.pack(pid, uid))


def fault_info(signo: int, code: int, address: int) -> SigInfo:
    """SIL_FAULT: the address that faulted."""
    return SigInfo(signo, code, address.to_bytes(8, "little"))


def child_info(signo: int, code: int, pid: int, uid: int, status: int, utime: int, stime: int) -> SigInfo:
    """SIL_CHLD: what became of a child; times in clock ticks."""
    return SigInfo(signo, code, _CHILD.pack(pid, uid, status, 0, utime, stime))


def queue_info(signo: int, code: int, pid: int, uid: int, value: int) -> SigInfo:
    """SIL_RT: with a sigval."""
    return SigInfo(signo, code, _QUEUE.pack(pid, uid, value))


def unpack_siginfo(image: bytes) -> SigInfo:
    """What a program passed as its siginfo (the kernel's 48 bytes of it)."""
    signo, errno, code = _HEAD.unpack_from(image)
    return SigInfo(signo, code, bytes(image[16:48]), errno)


def has_si_pid(info: SigInfo) -> bool:
    """has_si_pid_and_uid(): whether the layout begins with who sent it."""
    code = info.code
    if SI_USER < code < SI_KERNEL:
        if code <= _SPECIFIC_CODES.get(info.signo, 0):
            return info.signo == SIGCHLD
        return code > _NSIGPOLL
    return code not in (SI_TIMER, SI_SIGIO)


def without_pid(info: SigInfo) -> SigInfo:
    """The same from somebody the receiver has no number for."""
    return SigInfo(info.signo, info.code, bytes(4) + info.fields[4:], info.errno)


def known_siginfo_layout(signo: int, code: int) -> bool:
    """Whether 48 bytes surely hold all of it (known_siginfo_layout())."""
    if code == SI_KERNEL:
        return True
    if code > SI_USER:
        return code <= _SPECIFIC_CODES.get(signo, 6)
    return code >= SI_DETHREAD or code == SI_ASYNCNL
