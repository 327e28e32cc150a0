"""Signals: frames there and back, restart rules, queueing, default actions."""

import pickle
import struct

import pytest
from fake_machine import make_kernel, syscall

from guest.siginfo import SIGALRM, SIGCHLD, SIGSEGV, SIGTERM, SIGUSR1, SIGUSR2
from mm.mmap import vm_mmap
from mm.uaccess import access_process_vm, copy_to_user, get_user

ARCHES = ("x86_64-4k", "aarch64-16k")
HANDLER = 0x400800
RESTORER = 0x400900
SA_RESTART, SA_ONSTACK, SA_SIGINFO, SA_RESTORER, SA_NODEFER = 0x10000000, 0x08000000, 4, 0x04000000, 0x40000000


class Guest:
    """A started program, a scratch page, and calls by name."""

    def __init__(self, name: str) -> None:
        import pathlib

        golden = pathlib.Path(__file__).resolve().parent.parent / "golden" / "bin"
        self.kernel = make_kernel(name, ram=1 << 26)
        path = self.kernel.vfs.add_program(b"p", None, (golden / f"vmops.{name.split('-')[0]}").read_bytes())
        self.task = self.kernel.start(path, [b"p"], [])
        self.kernel.schedule()
        self.kernel.resume(self.task)
        self.scratch = vm_mmap(self.task.mm, None, 0, 65536, 3, 0x22, 0)
        self.regs = self.kernel.cpu.regs

    def call(self, name: str, *args: int) -> int:
        return syscall(self.kernel, name, *args)

    def put(self, offset: int, data: bytes) -> int:
        copy_to_user(self.kernel.current, self.scratch + offset, data)
        return self.scratch + offset

    def action(self, signal: int, flags: int = SA_SIGINFO, handler: int = HANDLER, mask: int = 0) -> None:
        act = self.put(0, struct.pack("<QQQQ", handler, flags | SA_RESTORER, RESTORER, mask))
        assert self.call("rt_sigaction", signal, act, 0, 8) == 0

    def switch(self):
        """Let the scheduler choose; the new task has the CPU."""
        current = self.kernel.current
        current.cpu_state = self.kernel.cpu.save_state()
        task = self.kernel.schedule()
        if task is not None:
            self.kernel.cpu.load_state(task.cpu_state)
        return task


@pytest.fixture(params=ARCHES)
def guest(request):
    return Guest(request.param)


def sigreturn(guest: Guest) -> None:
    """The handler returns to its restorer, which makes the call."""
    arch = guest.kernel.arch
    if arch.name == "x86_64":
        guest.regs[arch.sp] += 8  # ret
    syscall(guest.kernel, "rt_sigreturn")


def test_frame_round_trip(guest):
    arch, cpu, regs = guest.kernel.arch, guest.kernel.cpu, guest.regs
    guest.action(SIGUSR1)
    assert guest.call("kill", guest.task.pid, 0) == 0
    for i in range(1, 16):
        regs[i] = 0x1111 * i if i != arch.sp else regs[i]
    before_sp, before_pc = regs[arch.sp], regs[arch.pc]
    assert guest.call("tkill", guest.task.pid, SIGUSR1) != -1
    assert regs[arch.pc] == HANDLER
    assert regs[arch.sp] < before_sp
    frame = regs[arch.sp]
    saved = list(regs)
    assert guest.task.blocked == 1 << (SIGUSR1 - 1)
    info = frame + (312 if arch.name == "x86_64" else 0)
    signo, _, code, _, pid = struct.unpack("<5i", access_process_vm(guest.task.mm, info, 20))
    assert (signo, code, pid) == (SIGUSR1, -6, guest.task.pid)
    for i in range(1, 16):
        if i != arch.sp:
            regs[i] = 0xDEAD
    sigreturn(guest)
    assert regs[arch.sp] == before_sp and regs[arch.pc] == before_pc
    assert regs[arch.result] == 0, "the interrupted call had returned 0"
    assert guest.task.blocked == 0
    assert saved[arch.pc] == HANDLER and cpu.get_flags() is not None


def test_fault_signal_carries_the_trap(guest):
    arch = guest.kernel.arch
    guest.action(SIGSEGV)
    error, address = (6, 0x10) if arch.name == "x86_64" else (0x92000046, 0x10)
    guest.kernel.page_fault(error, address)
    assert guest.regs[arch.pc] == HANDLER
    frame = guest.regs[arch.sp]
    mm = guest.task.mm
    if arch.name == "x86_64":
        context = struct.unpack("<32Q", access_process_vm(mm, frame + 48, 256))
        err, trapno, _, cr2 = context[19:23]
        assert (err, trapno, cr2) == (6, 14, 0x10)
        assert struct.unpack("<Q", access_process_vm(mm, frame + 8, 8)) == (6,)
        assert frame % 16 == 8
    else:
        assert struct.unpack("<Q", access_process_vm(mm, frame + 304, 8)) == (0x10,)
        magic, size, esr = struct.unpack("<IIQ", access_process_vm(mm, frame + 592 + 528, 16))
        assert (magic, size, esr) == (0x45535201, 16, 0x92000046)
        assert frame % 16 == 0


def test_blocked_fault_kills(guest):
    guest.action(SIGSEGV)
    mask = guest.put(256, (1 << (SIGSEGV - 1)).to_bytes(8, "little"))
    assert guest.call("rt_sigprocmask", 0, mask, 0, 8) == 0
    guest.kernel.page_fault(6 if guest.kernel.arch.name == "x86_64" else 0x92000046, 0x10)
    assert guest.kernel.exit_status == SIGSEGV and guest.kernel.need_resched


def test_overflowing_alternate_stack_kills(guest):
    guest.action(SIGUSR1, SA_SIGINFO | SA_ONSTACK)
    stack = guest.put(512, struct.pack("<QIxxxxQ", guest.scratch + 8192, 0, 6144))
    assert guest.call("sigaltstack", stack, 0) == 0
    guest.call("tkill", guest.task.pid, SIGUSR1)
    frame = guest.regs[guest.kernel.arch.sp]
    assert guest.scratch + 8192 <= frame < guest.scratch + 8192 + 6144
    old = guest.scratch + 600
    assert guest.call("sigaltstack", stack, old) == -1, "EPERM while on it"
    guest.regs[guest.kernel.arch.sp] = guest.scratch + 8192 + 700
    guest.action(SIGUSR2, SA_SIGINFO | SA_ONSTACK)
    if guest.kernel.arch.name == "x86_64":  # arm64 has no such check: it writes below the stack
        guest.call("tkill", guest.task.pid, SIGUSR2)
        assert guest.kernel.exit_status == SIGSEGV


def test_bad_frame_is_sigsegv(guest):
    guest.regs[guest.kernel.arch.sp] = 0x1000
    syscall(guest.kernel, "rt_sigreturn")
    assert guest.kernel.exit_status == SIGSEGV


@pytest.mark.parametrize(("flags", "restarted"), [(SA_SIGINFO, False), (SA_SIGINFO | SA_RESTART, True)])
def test_restart_of_a_read(guest, flags, restarted):
    arch = guest.kernel.arch
    pipe = guest.put(64, bytes(8))
    assert guest.call("pipe2", pipe, 0) == 0
    fd = get_user(guest.task, pipe, 4)
    guest.action(SIGALRM, flags)
    timer = guest.put(128, struct.pack("<4q", 0, 0, 1, 0))
    assert guest.call("setitimer", 0, timer, 0) == 0
    guest.regs[arch.pc] = 0x401000
    guest.call("read", fd, guest.scratch, 1)
    assert guest.task.state == "S" and guest.kernel.need_resched
    task = guest.switch()
    assert task is guest.task
    assert guest.kernel.resume(task) and guest.regs[arch.pc] == HANDLER
    sigreturn(guest)
    if restarted:
        assert guest.regs[arch.pc] == 0x401000 - (2 if arch.name == "x86_64" else 4)
        assert guest.regs[arch.number] in (0, 63) and guest.regs[arch.arguments[0]] == fd
    else:
        assert guest.regs[arch.pc] == 0x401000
        assert guest.regs[arch.result] == 2**64 - 4, "EINTR"


def test_sleep_goes_on_after_stop_and_continue(guest):
    spec = guest.put(128, struct.pack("<qq", 5, 0))
    start = guest.kernel.clock.now
    guest.call("nanosleep", spec, 0)
    assert guest.task.state == "S"
    from guest.siginfo import SIGCONT, SIGSTOP, kill_info
    from guest.signal import send_signal

    send_signal(kill_info(SIGSTOP, 0, 0, 0), guest.task, True)
    task = guest.switch()
    assert not guest.kernel.resume(task) and task.state == "T"
    send_signal(kill_info(SIGCONT, 0, 0, 0), guest.task, True)
    task = guest.switch()
    assert guest.kernel.resume(task)
    arch = guest.kernel.arch
    assert guest.regs[arch.number] in (219, 128), "restart_syscall"
    guest.kernel.system_call()
    assert guest.task.state == "S"
    task = guest.switch()
    assert guest.kernel.resume(task)
    assert guest.regs[arch.result] == 0
    assert 5_000_000_000 <= guest.kernel.clock.now - start < 5_001_000_000


def test_wait_reports_and_reaps(guest):
    guest.action(SIGCHLD)
    child = guest.call("clone", 17, 0, 0, 0, 0)
    assert child > 0 and guest.kernel.tasks[child].state == "R"
    guest.call("wait4", child, guest.scratch + 64, 0, 0)
    assert guest.task.state == "S"
    task = guest.switch()
    assert task.pid == child and guest.kernel.cpu.regs[guest.kernel.arch.result] == 0
    guest.call("exit_group", 42)
    assert task.exit_state == "Z"
    assert guest.switch() is guest.task
    assert guest.kernel.resume(guest.task)
    assert guest.regs[guest.kernel.arch.pc] == HANDLER, "SIGCHLD"
    assert get_user(guest.task, guest.scratch + 64, 4) == 42 << 8
    assert child not in guest.kernel.tasks
    assert guest.call("wait4", child, 0, 0, 0) == -10, "ECHILD"


def test_fatal_signal_is_the_status(guest):
    guest.call("kill", guest.task.pid, SIGTERM)
    assert guest.kernel.exit_status == SIGTERM
    assert guest.switch() is None


def test_real_time_signals_queue_and_others_do_not(guest):
    mask = guest.put(256, (0xFFFFFFFF_FFFFFFFF).to_bytes(8, "little"))
    guest.call("rt_sigprocmask", 2, mask, 0, 8)
    for _ in range(3):
        guest.call("kill", guest.task.pid, SIGUSR1)
        guest.call("kill", guest.task.pid, 40)
    queue = guest.task.signal.shared_pending.queue
    assert [info.signo for info in queue] == [SIGUSR1, 40, 40, 40]
    zero = guest.put(320, bytes(16))
    taken = [guest.call("rt_sigtimedwait", mask, 0, zero, 8) for _ in range(5)]
    assert taken == [SIGUSR1, 40, 40, 40, -11]


def test_kernel_pickles_while_a_task_sleeps(guest):
    guest.call("clone", 17, 0, 0, 0, 0)
    guest.call("wait4", -1, 0, 0, 0)
    again = pickle.loads(pickle.dumps(guest.kernel))
    assert list(again.tasks) == list(guest.kernel.tasks)
    assert again.tasks[guest.task.pid].state == "S"
    assert again.cpu is None
