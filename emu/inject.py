"""`--inject SET:ACTION...`: faults on purpose, in strace's syntax and beyond it.

    --inject=mmap,brk:error=ENOMEM:when=3+       from the third mmap and brk (counted apart, for each task) on
    --inject=%memory:retval=0:when=2..4          calls of a class are not made and return 0
    --inject=write:signal=SIGUSR1:when=1+2       a signal with every other write
    --inject=read:delay_enter=5ms                the virtual clock moves before the call (delay_exit: after it)
    --inject=page_alloc:error:when=100           the hundredth frame is not there
    --inject=fault:error=EFAULT:address=0x10000-0x20000   faults there: SIGSEGV (ENOMEM: out of memory; else SIGBUS)
    --inject=vma_merge:error                     areas never merge
    --inject=pte:flip=dirty:address=0x4000:when=1         a bit of the entry that was just written for this page

SET is names of system calls, classes (%memory, %file, %desc, %process, %signal, %network, %ipc), `all`, or one of
page_alloc, fault, vma_merge, pte. `when=FIRST[..LAST][+[STEP]]` as strace has it: the invocations it holds for, counted
for each task (frames, faults and entries: for the machine). `rate=P` instead makes each one fail with probability P, by
a generator that `seed=N` starts. What is done is an `injected` event in the trace, and `(INJECTED)` in strace's text.
"""

from __future__ import annotations

import errno
import signal as host_signal
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from emu.steer import Veto
from guest.events import Injected
from guest.rng import Rng
from mm.pgtable import pte_offset

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine

CLASSES = {
    "%memory": "brk madvise mbind migrate_pages mincore mlock mlock2 mlockall mmap move_pages mprotect mremap msync "
    "munlock munlockall munmap pkey_mprotect remap_file_pages set_mempolicy get_mempolicy shmat shmdt",
    "%file": "access chdir chmod chown chroot creat execve execveat faccessat faccessat2 fchmodat fchownat getcwd "
    "getxattr lchown lgetxattr link linkat listxattr llistxattr lremovexattr lsetxattr lstat mkdir mkdirat mknod "
    "mknodat mount newfstatat open openat openat2 readlink readlinkat removexattr rename renameat renameat2 rmdir "
    "setxattr stat statfs statx symlink symlinkat truncate umount2 unlink unlinkat utime utimensat utimes",
    "%desc": "close dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 fadvise64 fallocate fchdir "
    "fchmod fchown fcntl fdatasync flock fstat fstatfs fsync ftruncate getdents64 ioctl lseek memfd_create openat pipe "
    "pipe2 poll ppoll pread64 preadv pselect6 pwrite64 pwritev read readv select sendfile splice tee timerfd_create "
    "vmsplice write writev",
    "%process": "clone clone3 execve execveat exit exit_group fork kill pidfd_send_signal rt_sigqueueinfo tgkill tkill "
    "unshare vfork wait4 waitid",
    "%signal": "kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn "
    "rt_sigsuspend rt_sigtimedwait sigaltstack signalfd4 tgkill tkill",
    "%network": "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg "
    "sendmmsg sendmsg sendto setsockopt shutdown socket socketpair",
    "%ipc": "msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget",
}
MACHINE = ("page_alloc", "fault", "vma_merge", "pte")
UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9}
EVERY = 1 << 62


class When:
    """Which of the invocations it happens to: `when=` or `rate=`."""

    def __init__(self, text: str = "1+", rate: float | None = None, seed: int = 0) -> None:
        first, _, step = text.partition("+")
        low, dots, high = first.partition("..")
        self.first = int(low)
        self.last = int(high) if dots else EVERY if "+" in text else self.first
        self.step = int(step) if step else 1
        if self.first < 1 or self.last < self.first or self.step < 1:
            raise ValueError
        self.rate = rate
        self._chance = Rng(seed)
        self._seen: dict[Any, int] = {}

    def now(self, key: Any) -> bool:
        """Count one more invocation of `key`; whether this is one."""
        if self.rate is not None:
            return self._chance.next() < self.rate * 2**64
        count = self._seen[key] = self._seen.get(key, 0) + 1
        return self.first <= count <= self.last and (count - self.first) % self.step == 0


class Injection:
    """One `--inject`, parsed. Raises PagewalkError, with what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        targets, *actions = text.split(":")
        self.target = targets if targets in MACHINE else "syscall"
        self.names: frozenset[str] | None = None  # of system calls; None: all
        self.error: int | None = None
        self.retval: int | None = None
        self.signal = 0
        self.delay_enter = self.delay_exit = 0  # ns
        self.flip = ""
        self.address: tuple[int, int] | None = None
        self.when = When()
        if self.target == "syscall":
            self.names = _names(text, targets)
        self._parse(actions)

    def _parse(self, actions: list[str]) -> None:
        """The parts behind the set."""
        when, rate, seed = "1+", None, 0
        for action in actions:
            name, equals, value = action.partition("=")
            try:
                if name == "when":
                    when = value
                elif name == "rate":
                    rate = float(value)
                    if not 0 <= rate <= 1:
                        raise ValueError
                elif name == "seed":
                    seed = int(value, 0)
                elif name in PARSERS and (equals or name == "error"):
                    PARSERS[name](self, value)
                else:
                    known = ", ".join((*PARSERS, "when", "rate", "seed"))
                    raise PagewalkError(f"--inject {self.text}: {action!r} is not one of {known}")
            except (ValueError, KeyError):
                raise PagewalkError(f"--inject {self.text}: cannot read {action!r}") from None
        try:
            self.when = When(when, rate, seed)
        except ValueError:
            raise PagewalkError(f"--inject {self.text}: cannot read 'when={when}'") from None
        self._check()

    def _check(self) -> None:
        """Whether target and actions fit."""
        if self.target == "pte":
            if not self.flip or self.address is None:
                raise PagewalkError(f"--inject {self.text}: pte needs flip=BIT and address=A")
        elif self.flip:
            raise PagewalkError(f"--inject {self.text}: flip= is for pte")
        elif self.target != "syscall":
            if self.error is None:
                raise PagewalkError(f"--inject {self.text}: {self.target} needs error[=ERRNO]")
        elif self.error is None and self.retval is None and not self.signal:
            if not self.delay_enter and not self.delay_exit:
                raise PagewalkError(f"--inject {self.text}: needs error=, retval=, signal= or a delay")

    def _set_error(self, value: str) -> None:
        name = value or "ENOMEM"
        self.error = int(name) if name.isdigit() else getattr(errno, name.upper(), 0)
        if not 1 <= self.error <= 4095:
            raise ValueError

    def _set_retval(self, value: str) -> None:
        self.retval = int(value, 0)

    def _set_signal(self, value: str) -> None:
        name = value.upper()
        number = int(name) if name.isdigit() else getattr(host_signal, name if name[:3] == "SIG" else f"SIG{name}", 0)
        self.signal = int(number)
        if not 1 <= self.signal <= 64:
            raise ValueError

    def _set_delay_enter(self, value: str) -> None:
        self.delay_enter = _duration(value)

    def _set_delay_exit(self, value: str) -> None:
        self.delay_exit = _duration(value)

    def _set_flip(self, value: str) -> None:
        self.flip = value.lower()

    def _set_address(self, value: str) -> None:
        low, dash, high = value.partition("-")
        self.address = int(low, 0), int(high, 0) if dash else int(low, 0) + 1

    # ---- at work

    def describe(self) -> str:
        """What is done, in a few words."""
        if self.retval is not None:
            return f"retval={self.retval}"
        return errno.errorcode.get(self.error or 0, str(self.error))


PARSERS: dict[str, Callable[[Injection, str], None]] = {
    "error": Injection._set_error,
    "retval": Injection._set_retval,
    "signal": Injection._set_signal,
    "delay_enter": Injection._set_delay_enter,
    "delay_exit": Injection._set_delay_exit,
    "flip": Injection._set_flip,
    "address": Injection._set_address,
}


def _names(text: str, targets: str) -> frozenset[str] | None:
    """The system calls of a SET; None: all of them."""
    from guest.syscall_numbers import NAMES

    known = {name for table in NAMES.values() for name in table.values()}
    names: set[str] = set()
    for word in targets.split(","):
        if word == "all":
            return None
        if word in CLASSES:
            names.update(CLASSES[word].split())
        elif word in known:
            names.add(word)
        else:
            raise PagewalkError(f"--inject {text}: {word!r} is no system call, class or one of {', '.join(MACHINE)}")
    return frozenset(names)


def _duration(text: str) -> int:
    """Nanoseconds of `5ms`; a bare number is microseconds, as strace has it."""
    number = text.rstrip("nmus")
    value = int(float(number) * UNITS[text[len(number) :] or "us"])
    if value < 0:
        raise ValueError
    return value


class Injector:
    """The injections of one machine, at work."""

    def __init__(self, machine: Machine, injections: list[Injection]) -> None:
        self._machine = machine
        steering = machine.steering
        self._calls = [injection for injection in injections if injection.target == "syscall"]
        if self._calls:
            steering.before("syscall", self._before_call)
            steering.after("syscall", self._after_call)
        self._leaving: dict[int, int] = {}  # pid -> ns to wait when its call is back
        for injection in injections:
            if injection.target == "pte":
                steering.after("pte_set", self._flipper(injection))
            elif injection.target != "syscall":
                steering.before(injection.target, self._refuser(injection), address=injection.address)

    def _report(self, what: str, how: str) -> None:
        listener = self._machine.system.listener
        if listener is not None:
            task = self._machine.kernel.current
            listener(Injected(task.pid if task is not None else 0, what, how))

    def _before_call(self, event: Any) -> None:
        kernel = self._machine.kernel
        veto: Veto | None = None
        for injection in self._calls:
            if injection.names is not None and event.name not in injection.names:
                continue
            if not injection.when.now((event.pid, event.name)):
                continue
            if injection.delay_enter:
                self._report(event.name, f"delay_enter={injection.delay_enter // 1000}us")
                kernel.clock.now += injection.delay_enter
            if injection.delay_exit:
                self._leaving[event.pid] = injection.delay_exit
            if injection.signal:
                self._send(event.name, injection.signal)
            if injection.error is not None or injection.retval is not None:
                self._report(event.name, injection.describe())
                veto = Veto(injection.error or 0, injection.retval)
        if veto is not None:
            raise veto

    def _after_call(self, event: Any) -> None:
        delay = self._leaving.pop(event.pid, 0)
        if delay:
            self._report(event.name, f"delay_exit={delay // 1000}us")
            self._machine.kernel.clock.now += delay

    def _send(self, what: str, number: int) -> None:
        """A signal from the kernel to the running task."""
        from guest.siginfo import SI_KERNEL, kill_info
        from guest.signal import send_signal

        self._report(what, host_signal.Signals(number).name if number < host_signal.SIGRTMIN else f"signal {number}")
        send_signal(kill_info(number, SI_KERNEL, 0, 0), self._machine.kernel.current, False)

    def _refuser(self, injection: Injection) -> Callable[[Any], None]:
        def refuse(event: Any) -> None:
            if injection.when.now(None):
                self._report(injection.target, injection.describe())
                raise Veto(injection.error or errno.ENOMEM)

        return refuse

    def _flipper(self, injection: Injection) -> Callable[[Any], None]:
        """Change a bit of an entry that was just written."""
        low, high = injection.address or (0, 0)

        def flip(event: Any) -> None:
            system = self._machine.system
            size = system.page_size
            if not (event.new and event.address < high and low < event.address + size):
                return
            if not injection.when.now(None):
                return
            mm = next((mm for mm in system.pgd_list if mm.pgd == event.root), None)
            index = pte_offset(mm, event.address) if mm is not None else -1
            if mm is None or index < 0:
                return
            self._report("pte", f"flip={injection.flip}")
            system.words[index] ^= bit_of(system.arch, injection.flip)
            mm.tlb_flush_pending = True

        return flip


def bit_of(arch: Any, name: str) -> int:
    """The bit of a leaf entry: by a portable name, or as `pagewalk pagetables` names it. Raises PagewalkError."""
    from emu.draw_pagetables import decoder_of

    decoder = decoder_of(arch.name)
    bits = {text.lower(): bit for bit, text in decoder.LEAF_BITS.items()} | decoder.FLIPS
    if name not in bits:
        raise PagewalkError(f"--inject: flip={name}: the bits of {arch.name} are {', '.join(bits)}")
    return int(bits[name])
