"""strace's format: the lines are those of strace 6.1 on a real Linux, for the same calls with the same memory."""

from __future__ import annotations

import struct
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hand_built import ARM64, BASE, X86_64, make_task

from emu.strace import Strace
from emu.strace_calls import CALLS, SPECIAL
from guest.events import Exec, Exit, Fork, SignalDeliver, SyscallEnter, SyscallExit
from mm.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from mm.mmap import vm_mmap
from mm.uaccess import copy_to_user

AT_FDCWD = 2**64 - 100
MINUS_1 = 2**64 - 1
PID = 27


class Tracee:
    """A task with some memory, and an Strace that watches it."""

    def __init__(self, arch: Any) -> None:
        self.task = make_task(arch)
        vm_mmap(self.task.mm, None, BASE, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0)
        self.top = BASE
        self.text = ""
        cpu = SimpleNamespace(regs=[0] * 33)
        self.machine = SimpleNamespace(kernel=SimpleNamespace(tasks={PID: self.task, PID + 1: self.task}, cpu=cpu))
        self.strace = Strace(self.write, self.machine)

    def write(self, text: str) -> None:
        self.text += text

    def put(self, data: bytes) -> int:
        """Lay `data` into the guest's memory; its address."""
        address = self.top
        copy_to_user(self.task, address, data)
        self.top += len(data) + 64 & ~15
        return address

    def line(self, name: str, *args: int, result: int, fill: tuple[int, bytes] | None = None) -> str:
        """What one call prints; `fill` is written between entry and exit."""
        self.text = ""
        six = (*args, *(0,) * (6 - len(args)))
        self.strace(SyscallEnter(PID, 0, name, six))
        if fill:
            copy_to_user(self.task, *fill)
        self.strace(SyscallExit(PID, 0, name, six, result))
        return self.text.rstrip("\n")


@pytest.fixture
def tracee() -> Tracee:
    return Tracee(X86_64())


def test_mmap(tracee: Tracee) -> None:
    line = tracee.line("mmap", 0, 8192, 3, 0x22, MINUS_1, 0, result=0x7FD0A6686000)
    assert line == "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7fd0a6686000"
    line = tracee.line("mmap", 0x7FCFC7600000, 1400832, 5, 0x812, 1, 0x26000, result=0x7FCFC7600000)
    assert line == (
        "mmap(0x7fcfc7600000, 1400832, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 1, 0x26000)"
        " = 0x7fcfc7600000"
    )


def test_results_start_in_column_40(tracee: Tracee) -> None:
    assert tracee.line("brk", 0, result=0x2F1B000) == "brk(NULL)                               = 0x2f1b000"
    assert tracee.line("getpid", result=11706) == "getpid()                                = 11706"
    assert tracee.line("umask", 0o22, result=0o22) == "umask(022)                              = 022"


def test_errors_by_name(tracee: Tracee) -> None:
    nope = tracee.put(b"nope\0")
    line = tracee.line("openat", AT_FDCWD, nope, 0, result=-2)
    assert line == 'openat(AT_FDCWD, "nope", O_RDONLY)      = -1 ENOENT (No such file or directory)'
    line = tracee.line("mremap", 0x1000, 4096, 8192, 1, result=-14)
    assert line == "mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE) = -1 EFAULT (Bad address)"
    line = tracee.line("syscall_0x3e7", 1, 2, 3, result=-38)
    assert line == "syscall_0x3e7(0x1, 0x2, 0x3, 0, 0, 0)   = -1 ENOSYS (Function not implemented)"
    assert (
        tracee.line("pause", result=-514)
        == "pause()                                 = ? ERESTARTNOHAND (To be restarted if no handler)"
    )


def test_open_flags_follow_the_architecture() -> None:
    for arch, flags in ((X86_64(), 0o202102), (ARM64(4096), 0o042102)):
        tracee = Tracee(arch)
        path = tracee.put(b"/tmp/zz\0")
        line = tracee.line("openat", AT_FDCWD, path, flags, 0o644, result=3)
        assert line == 'openat(AT_FDCWD, "/tmp/zz", O_RDWR|O_CREAT|O_APPEND|O_DIRECTORY, 0644) = 3'


def test_strings(tracee: Tracee) -> None:
    data = tracee.put(b'a\tb\n\0\1\x803\377"\\xy' + b"z" * 40)
    assert tracee.line("write", 1, data, 40, result=40).startswith(
        'write(1, "a\\tb\\n\\0\\1\\2003\\377\\"\\\\xyzzzzzzzzzzzzzzzzzzz"..., 40) = 40'
    )
    assert tracee.line("write", 1, data, 0, result=0) == 'write(1, "", 0)                         = 0'
    assert tracee.line("write", 1, 0x5000, 4, result=-14).startswith("write(1, 0x5000, 4)")


def test_a_read_shows_what_came(tracee: Tracee) -> None:
    buffer = tracee.put(bytes(128))
    line = tracee.line("read", 4, buffer, 100, result=3, fill=(buffer, b"abc"))
    assert line == 'read(4, "abc", 100)                     = 3'
    random = tracee.put(bytes(8))
    line = tracee.line("getrandom", random, 8, 1, result=8, fill=(random, bytes.fromhex("e0e9149779 07b3d5")))
    assert line == 'getrandom("\\xe0\\xe9\\x14\\x97\\x79\\x07\\xb3\\xd5", 8, GRND_NONBLOCK) = 8'


def test_memory_never_touched_is_shown(tracee: Tracee) -> None:
    """A page without a PTE reads as what a fault would bring, and stays without one."""
    address = BASE + 0x80000
    before = list(tracee.task.rss_stat), tracee.task.min_flt, tracee.task.vmacache_find_calls
    line = tracee.line("write", 1, address, 4, result=4)
    assert line == 'write(1, "\\0\\0\\0\\0", 4)                 = 4'
    assert (list(tracee.task.rss_stat), tracee.task.min_flt, tracee.task.vmacache_find_calls) == before


@pytest.mark.parametrize(
    ("arch", "image"),
    [
        (X86_64(), struct.pack("<QQQIII4xQqqq", 1, 2, 1, 0o100644, 0, 0, 0, 1221, 4096, 8).ljust(144, b"\0")),
        (ARM64(65536), struct.pack("<QQIIIIQQq", 1, 2, 0o100644, 1, 0, 0, 0, 0, 1221).ljust(128, b"\0")),
    ],
)
def test_stat_layouts(arch: Any, image: bytes) -> None:
    tracee = Tracee(arch)
    path, buffer = tracee.put(b"/etc/passwd\0"), tracee.put(bytes(160))
    line = tracee.line("newfstatat", AT_FDCWD, path, buffer, 0, result=0, fill=(buffer, image))
    assert line == 'newfstatat(AT_FDCWD, "/etc/passwd", {st_mode=S_IFREG|0644, st_size=1221, ...}, 0) = 0'
    line = tracee.line("newfstatat", AT_FDCWD, path, buffer, 0, result=-2)
    assert line.startswith(f'newfstatat(AT_FDCWD, "/etc/passwd", {buffer:#x}, 0) = -1 ENOENT')


def test_sigaction(tracee: Tracee) -> None:
    new = tracee.put(struct.pack("<4Q", 0x401615, 0x14000000, 0x408FD0, 0))
    line = tracee.line("rt_sigaction", 10, new, 0, 8, result=0)
    assert line == (
        "rt_sigaction(SIGUSR1, {sa_handler=0x401615, sa_mask=[], sa_flags=SA_RESTORER|SA_RESTART, "
        "sa_restorer=0x408fd0}, NULL, 8) = 0"
    )
    old = tracee.put(bytes(32))
    new = tracee.put(struct.pack("<4Q", 1, 0x14000000, 0x408FD0, 2))
    assert tracee.line("rt_sigaction", 2, new, old, 8, result=0) == (
        "rt_sigaction(SIGINT, {sa_handler=SIG_IGN, sa_mask=[INT], sa_flags=SA_RESTORER|SA_RESTART, "
        "sa_restorer=0x408fd0}, {sa_handler=SIG_DFL, sa_mask=[], sa_flags=0}, 8) = 0"
    )


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (0, "[]"),
        (0x202, "[INT USR1]"),
        (2**64 - 1 & ~(3 << 31), "~[RTMIN RT_1]"),
        (2**64 - 1 & ~(3 << 31) & ~(1 << 9), "~[USR1 RTMIN RT_1]"),
    ],
)
def test_signal_sets(tracee: Tracee, mask: int, text: str) -> None:
    address = tracee.put(struct.pack("<Q", mask))
    line = tracee.line("rt_sigprocmask", 2, address, 0, 8, result=0)
    assert line.split(" = ")[0].rstrip() == f"rt_sigprocmask(SIG_SETMASK, {text}, NULL, 8)"


def test_limits_times_and_names(tracee: Tracee) -> None:
    limit = tracee.put(struct.pack("<QQ", 8 << 20, 2**64 - 1))
    line = tracee.line("prlimit64", 0, 3, 0, limit, result=0)
    assert line == "prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0"
    time = tracee.put(struct.pack("<qq", 0, 1000))
    line = tracee.line("clock_nanosleep", 0, 0, time, 0, result=0)
    assert line == "clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=0, tv_nsec=1000}, NULL) = 0"
    uts = tracee.put(b"Linux".ljust(65, b"\0") + b"vm".ljust(65, b"\0") + bytes(260))
    assert tracee.line("uname", uts, result=0) == 'uname({sysname="Linux", nodename="vm", ...}) = 0'


def test_fcntl_and_poll(tracee: Tracee) -> None:
    line = tracee.line("fcntl", 1, 3, result=0x8001)
    assert line == "fcntl(1, F_GETFL)                       = 0x8001 (flags O_WRONLY|O_LARGEFILE)"
    assert tracee.line("fcntl", 1, 1030, 10, result=12) == "fcntl(1, F_DUPFD_CLOEXEC, 10)           = 12"
    fds = tracee.put(struct.pack("<iHH", 0, 1, 0))
    line = tracee.line("poll", fds, 1, 0, result=1, fill=(fds, struct.pack("<iHH", 0, 1, 1)))
    assert line == "poll([{fd=0, events=POLLIN}], 1, 0)     = 1 ([{fd=0, revents=POLLIN}])"


def test_vectors_and_altstack(tracee: Tracee) -> None:
    one, two = tracee.put(b"ab"), tracee.put(b"cd\n")
    vector = tracee.put(struct.pack("<4Q", one, 2, two, 3))
    line = tracee.line("writev", 1, vector, 2, result=5)
    assert line == 'writev(1, [{iov_base="ab", iov_len=2}, {iov_base="cd\\n", iov_len=3}], 2) = 5'
    stack = tracee.put(struct.pack("<QIIQ", 0x7FFC5E7890E0, 0, 0, 8192))
    line = tracee.line("sigaltstack", stack, 0, result=0)
    assert line == "sigaltstack({ss_sp=0x7ffc5e7890e0, ss_flags=0, ss_size=8192}, NULL) = 0"


def test_terminal_settings(tracee: Tracee) -> None:
    termios = tracee.put(struct.pack("<4I", 0x500, 0x5, 0xBF, 0x8A3B) + bytes(20))
    assert tracee.line("ioctl", 0, 0x5401, termios, result=0) == (
        "ioctl(0, TCGETS, {c_iflag=ICRNL|IXON, c_oflag=NL0|CR0|TAB0|BS0|VT0|FF0|OPOST|ONLCR, "
        "c_cflag=B38400|CS8|CREAD, c_lflag=ISIG|ICANON|ECHO|ECHOE|ECHOK|IEXTEN|ECHOCTL|ECHOKE, ...}) = 0"
    )


def test_rarer_calls(tracee: Tracee) -> None:
    header = tracee.put(struct.pack("<Ii", 0x20080522, 0))
    data = tracee.put(struct.pack("<6I", 3, 1 << 24, 0, 1 << 8, 0, 0))
    assert tracee.line("capget", header, data, result=0) == (
        "capget({version=_LINUX_CAPABILITY_VERSION_3, pid=0}, {effective=1<<CAP_CHOWN|1<<CAP_DAC_OVERRIDE|"
        "1<<CAP_CHECKPOINT_RESTORE, permitted=1<<CAP_SYS_RESOURCE, inheritable=0}) = 0"
    )
    assert tracee.line("shmget", 0, 8192, 0o1600, result=0) == "shmget(IPC_PRIVATE, 8192, IPC_CREAT|0600) = 0"
    word = tracee.put(bytes(8))
    line = tracee.line("time", word, result=1795367250, fill=(word, struct.pack("<q", 1795367250)))
    assert line == "time([1795367250 /* 2026-11-22T17:07:30+0000 */]) = 1795367250 (2026-11-22T17:07:30+0000)"
    event = tracee.put(struct.pack("<IQ", 1, 7))
    line = tracee.line("epoll_ctl", 3, 1, 4, event, result=0)
    assert line == "epoll_ctl(3, EPOLL_CTL_ADD, 4, {events=EPOLLIN, data={u32=7, u64=7}}) = 0"
    assert tracee.line("prctl", 38, 1, result=0) == "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  = 0"
    args = tracee.put(struct.pack("<8Q", 0, 0, 0, 0, 17, 0, 0, 0))
    line = tracee.line("clone3", args, 64, result=7778)
    assert line == "clone3({flags=0, exit_signal=SIGCHLD, stack=NULL, stack_size=0}, 64) = 7778"


def test_wait_status(tracee: Tracee) -> None:
    status = tracee.put(struct.pack("<i", 3 << 8))
    line = tracee.line("wait4", MINUS_1, status, 0, 0, result=11707)
    assert line == "wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL) = 11707"
    copy_to_user(tracee.task, status, struct.pack("<i", 11))
    line = tracee.line("wait4", MINUS_1, status, 0, 0, result=11708)
    assert line == "wait4(-1, [{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV}], 0, NULL) = 11708"
    line = tracee.line("wait4", MINUS_1, status, 1, 0, result=-10)
    assert line == f"wait4(-1, {status:#x}, WNOHANG, NULL)    = -1 ECHILD (No child processes)"


def test_clone_names_its_arguments() -> None:
    for arch, args in ((X86_64(), (0x1200011, 0, 0, 0x2F1B650, 0)), (ARM64(4096), (0x1200011, 0, 0, 0, 0x2F1B650))):
        line = Tracee(arch).line("clone", *args, result=11707)
        assert line == (
            "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, "
            "child_tidptr=0x2f1b650) = 11707"
        )


def test_clone3_shows_the_tid_it_stored(tracee: Tracee) -> None:
    word = tracee.put(bytes(4))
    args = tracee.put(struct.pack("<8Q", 0x100000, 0, 0, word, 17, 0, 0, 0))
    line = tracee.line("clone3", args, 64, result=28, fill=(word, struct.pack("<i", 28)))
    assert line == (
        f"clone3({{flags=CLONE_PARENT_SETTID, parent_tid={word:#x}, exit_signal=SIGCHLD, stack=NULL, stack_size=0}}"
        " => {parent_tid=[28]}, 64) = 28"
    )
    assert tracee.strace.decoded == line
    assert tracee.line("clone3", args, 64, result=-11).endswith(", 64) = -1 EAGAIN (Resource temporarily unavailable)")


def test_exec_of_the_first_program(tracee: Tracee) -> None:
    stack = tracee.put(struct.pack("<6Q", 1, 0x100, 0, 0x200, 0x300, 0))
    tracee.strace(Exec(PID, "/t", ["./t"], 0x401000, stack))
    assert tracee.text == f'execve("/t", ["./t"], {stack + 24:#x} /* 2 vars */) = 0\n'


def test_signals_and_ends(tracee: Tracee) -> None:
    strace = tracee.strace
    tracee.line("getpid", result=PID)
    tracee.text = ""
    strace(SignalDeliver(PID, 11, 1, 0, 0, "core"))
    strace(SignalDeliver(PID, 11, 2, 0x10, 0, "core"))
    strace(SignalDeliver(PID, 10, 0, 0, 11706, "handler", 0x401615))
    strace(SignalDeliver(PID, 17, 1, 0, 11707, "handler", 0x401615, 0, 3))
    strace(Exit(PID, 11))
    strace(Exit(PID, 3 << 8))
    assert tracee.text.splitlines() == [
        "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---",
        "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_ACCERR, si_addr=0x10} ---",
        "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_USER, si_pid=11706, si_uid=0} ---",
        "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=11707, si_uid=0, si_status=3, "
        "si_utime=0, si_stime=0} ---",
        "+++ killed by SIGSEGV +++",
        "+++ exited with 3 +++",
    ]


def test_two_processes_cut_each_other(tracee: Tracee) -> None:
    strace = tracee.strace
    tracee.line("getpid", result=PID)
    tracee.text = ""
    strace(Fork(PID, PID + 1, 0))
    wait = (MINUS_1, 0, 0, 0, 0, 0)
    strace(SyscallEnter(PID, 61, "wait4", wait))
    strace(SyscallEnter(PID + 1, 24, "sched_yield", (0,) * 6))
    strace(SyscallExit(PID + 1, 24, "sched_yield", (0,) * 6, 0))
    strace(SyscallEnter(PID + 1, 231, "exit_group", (3, 0, 0, 0, 0, 0)))
    strace(Exit(PID + 1, 3 << 8))
    strace(SyscallEnter(PID, 61, "wait4", wait, True))
    strace(SyscallExit(PID, 61, "wait4", wait, PID + 1))
    assert tracee.text.splitlines() == [
        "strace: Process 28 attached",
        "[pid    27] wait4(-1,  <unfinished ...>",
        "[pid    28] sched_yield()               = 0",
        "[pid    28] exit_group(3)               = ?",
        "[pid    28] +++ exited with 3 +++",
        "<... wait4 resumed>NULL, 0, NULL)       = 28",
    ]


def test_a_process_is_announced_in_the_middle_of_the_call_that_made_it(tracee: Tracee) -> None:
    tracee.strace(SyscallEnter(PID, 57, "fork", (0,) * 6))
    tracee.strace(Fork(PID, PID + 1, 17))
    tracee.strace(SyscallExit(PID, 57, "fork", (0,) * 6, PID + 1))
    assert tracee.text == "fork(strace: Process 28 attached\n)                                  = 28\n"


def test_an_ignored_signal_comes_when_its_task_leaves_the_kernel(tracee: Tracee) -> None:
    strace = tracee.strace
    strace(SyscallEnter(PID, 39, "getpid", (0,) * 6))
    strace(SignalDeliver(PID, 23, 0, 0, 5, "ignore"))
    strace(SyscallExit(PID, 39, "getpid", (0,) * 6, PID))
    strace(SignalDeliver(PID, 9, 0, 0, 5, "terminate"))
    assert tracee.text.splitlines() == [
        "getpid()                                = 27",
        "--- SIGURG {si_signo=SIGURG, si_code=SI_USER, si_pid=5, si_uid=0} ---",
    ]


def test_a_stop(tracee: Tracee) -> None:
    tracee.strace(SignalDeliver(PID, 20, 0x80, 0, 0, "stop"))
    assert tracee.text.splitlines()[1:] == ["--- stopped by SIGTSTP ---"]


def test_a_writing_call_is_held_back(tracee: Tracee) -> None:
    data = tracee.put(b"hi\n")
    args = (1, data, 3, 0, 0, 0)
    tracee.strace(SyscallEnter(PID, 1, "write", args))
    assert tracee.text == ""
    tracee.strace(SyscallExit(PID, 1, "write", args, 3))
    assert tracee.text == 'write(1, "hi\\n", 3)                     = 3\n'


def test_an_interrupted_run_ends_its_line(tracee: Tracee) -> None:
    tracee.strace(SyscallEnter(PID, 0, "read", (0, 0x1000, 10, 0, 0, 0)))
    tracee.strace.close()
    assert tracee.text == "read(0,  <unfinished ...>\n"


@pytest.mark.parametrize("name", sorted({*CALLS, *SPECIAL}))
def test_nonsense_breaks_no_decoder(name: str) -> None:
    """Whatever a guest passes, and whatever lies there, is shown somehow; seeded."""
    tracee = Tracee(X86_64())
    random = Random(name)
    area = tracee.put(random.randbytes(4096))
    words = (
        0,
        1,
        2,
        8,
        16,
        17,
        64,
        4096,
        MINUS_1,
        1 << 31,
        1 << 63,
        area,
        area + 8,
        area + 4000,
        BASE + (1 << 20) - 4,
        5,
    )
    for _ in range(60):
        args = tuple(random.choice(words) if random.random() < 0.8 else random.getrandbits(64) for _ in range(6))
        result = random.choice([0, 1, 28, 300, -1, -14, -512, -516])
        line = tracee.line(name, *args, result=result, fill=(area, random.randbytes(256)))
        assert "\n" not in line
        assert len(line) < 40_000


def test_mounting(tracee: Tracee) -> None:
    """As strace 6.1 prints a program of these calls."""
    words = {word: tracee.put(word.encode() + b"\0") for word in ("src", "/a", "tmpfs", "size=4k", "ro", "4k", "")}
    enoent = " = -1 ENOENT (No such file or directory)"
    for args, flags in (
        (f'"src", "/a", {words["tmpfs"]:#x}, ', ("MS_BIND|MS_REC", 0x5000)),
        ('"src", "/a", "tmpfs", ', ("MS_NOSUID|MS_NODEV", 6)),
    ):
        line = tracee.line("mount", words["src"], words["/a"], words["tmpfs"], flags[1], 0, result=-2)
        assert line == f"mount({args}{flags[0]}, NULL){enoent}"
    assert tracee.line("umount2", words["/a"], 10, result=-2) == f'umount2("/a", MNT_DETACH|UMOUNT_NOFOLLOW){enoent}'
    assert tracee.line("fsopen", words["tmpfs"], 1, result=3) == 'fsopen("tmpfs", FSOPEN_CLOEXEC)         = 3'
    assert tracee.line("fsconfig", 3, 1, words["ro"], words["4k"], 0, result=0) == (
        'fsconfig(3, FSCONFIG_SET_STRING, "ro", "4k", 0) = 0'
    )
    assert tracee.line("fsconfig", 3, 2, words["ro"], words["4k"], 2, result=0) == (
        'fsconfig(3, FSCONFIG_SET_BINARY, "ro", "\\x34\\x6b", 2) = 0'
    )
    assert tracee.line("fsmount", 3, 0, 0x21, result=4) == "fsmount(3, 0, MOUNT_ATTR_RDONLY|MOUNT_ATTR_STRICTATIME) = 4"
    assert tracee.line("move_mount", 4, words[""], AT_FDCWD, words["/a"], 4, result=0) == (
        'move_mount(4, "", AT_FDCWD, "/a", MOVE_MOUNT_F_EMPTY_PATH) = 0'
    )
