"""A seeded fuzzer of the system calls: every number of the table, random and hostile arguments, the real dispatcher.

    python tests/fuzz_calls.py [--geometry aarch64-64k] [--calls 100000] [--seed 1] [--keep]

A world is a kernel without a CPU whose first task has exec'd a guest image; its tasks call until nothing is left of
them or `WORLD_CALLS` are made. Then all are killed, and no frame may be lost. Every call must end within `HANG`
seconds; `validate_system()` looks at everything now and then. A finding is a traceback with the seed, the number of the
world and the last calls, and can be repeated with `--seed S --world N`.
"""

from __future__ import annotations

import argparse
import random
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parent))

from fake_machine import make_kernel
from fuzz_structs import SETUP, STRUCTS, VARIANTS

from guest.sched import TASK_RUNNING, Deadlock
from guest.siginfo import SIGKILL, kill_info
from guest.signal import send_signal
from guest.syscall_numbers import NAMES
from mm.uaccess import copy_from_user_partial, copy_to_user_partial
from mm.validate import validate_mm
from mm.validate_pages import validate_system

IMAGES = Path(__file__).parent.parent / "images"
RAM = 32 << 20
WORLD_CALLS = 600
HANG = 20  # seconds a single call may take
ADDRESS_SPACE = 1 << 31  # bytes a task may map: populating 128 TiB ends too, with the OOM killer, but takes minutes
MAX_TASKS = 12
U64 = (1 << 64) - 1
# Calls that end or replace the program: worth a try now and then.
RARE = {
    "exit": 0.02, "exit_group": 0.01, "execve": 0.3, "execveat": 0.3, "munmap": 0.4, "close_range": 0.2,
    "kill": 0.3, "brk": 0.5, "chroot": 0.2, "rt_sigreturn": 0.3, "close": 0.5, "setrlimit": 0.3, "prlimit64": 0.3,
    "io_destroy": 0.2, "pause": 0.05, "rt_sigsuspend": 0.2, "rt_sigtimedwait": 0.5, "setuid": 0.1, "setresuid": 0.1,
    "setreuid": 0.1, "capset": 0.2, "mlockall": 0.3,
}  # fmt: skip
PATHS = [
    b"/", b".", b"..", b"", b"/tmp", b"/tmp/a", b"/tmp/b", b"/tmp/dir", b"/tmp/dir/x", b"/tmp/link", b"a", b"b/c",
    b"../..", b"/proc", b"/proc/self/maps", b"/proc/self/mem", b"/proc/self/pagemap", b"/proc/self/fd/0",
    b"/proc/self/fd/3", b"/proc/self/status", b"/proc/self/smaps", b"/proc/self/clear_refs",
    b"/proc/self/oom_score_adj", b"/proc/meminfo", b"/proc/sys/vm/drop_caches", b"/proc/sys/vm/overcommit_memory",
    b"/proc/self/cwd", b"/proc/self/exe", b"/proc/1/maps", b"/proc/self/task", b"/proc/self/environ",
    b"/proc/self/auxv", b"/proc/self/root/..", b"/proc/self/stat", b"/proc/stat", b"/dev/null", b"/dev/zero",
    b"/dev/full", b"/dev/urandom", b"/dev/tty", b"/dev/shm/x", b"/hello", b"/nonexistent/x", b"/hello/x",
    b"\xff\xfe\x80", b"/tmp/\n", b"user.x", b"/sys", b"/etc/passwd", b"/proc/self/mounts", b"/proc/thread-self",
    b"/proc/self/numa_maps", b"/proc/zoneinfo", b"/" + b"x" * 255, b"/" + b"x" * 256, b"x/" * 2047, b"/" * 5000,
    b"/tmp/" + b"y" * 250,
]  # fmt: skip

# What gets past the first check of a call: a letter an argument, see `World.LETTERS`; {a,b}: one of; <a,b>: some
# bits of.
_SPECS = """
    mmap a l <1,2,4> {0x22,0x21,2,1,0x32,0x31,0x122,0x8022,0x4022,0x100022,0x2022,0x40022,3} f {0,0,4096,65536};
    munmap a l; mprotect a l {0,1,3,5,7,0x1000003,0x2000003}; pkey_mprotect a l {0,1,3} {-1};
    mremap a l l {0,1,3,5,7} a; madvise a l {0,1,2,3,4,8,9,10,11,12,13,14,15,16,17,18,19,20,21,100}; mlock a l;
    mlock2 a l {0,1}; munlock a l; mlockall {1,2,3,5,7}; msync a l {1,2,4,6}; mincore a l p;
    remap_file_pages a l {0} n {0}; mbind a l {0,1,2,3,4} p {0,1,64} {0,1,2,3};
    set_mempolicy {0,1,2,3,4} p {0,1,64}; get_mempolicy p p {0,64} a {0,1,2,3,4}; migrate_pages i {64} p p;
    move_pages i {1,5,100} p p p {0,2,4}; brk a; process_vm_readv i v n v n {0}; process_vm_writev i v n v n {0};
    process_madvise f v n {20,21} {0}; shmget {0,1,2} l {0x3b6,0x1b6,0x7b6};
    shmat {0,1,2,3} {0,0,a} {0,0x1000,0x2000,0x4000,0x8000}; shmdt a; shmctl {0,1,2} {0,1,2,3,11,12,13,14,15} p;
    memfd_create t {0,1,2,3}; fallocate f {0,1,2,3,16} s s; ftruncate f s; truncate t s; openat d t o m; open t o m;
    openat2 d t p {24}; newfstatat d t p {0,0x100,0x1000}; statx d t {0,0x100,0x1000} {0xfff} p; faccessat d t n;
    fchownat d t {0,1,-1} {0,1,-1} {0,0x100}; fchmodat d t m; linkat d t d t {0,0x400}; unlinkat d t {0,0x200};
    renameat2 d t d t {0,1,2}; utimensat d t p {0,0x100}; symlinkat t d t; readlinkat d t p s; mkdirat d t m;
    mknodat d t {0x1000,0x8000,0x2000,0xc000} {0,0x103}; getdents64 e p s; getdents e p s;
    fcntl f {0,1,2,3,4,5,6,7,8,9,10,11,15,16,36,37,38,1024,1025,1030,1031,1032,1033,1034} n;
    ioctl f {0x5401,0x5413,0x541b,0x5421,0x5450,0x5451,0x5410,0x540f,0x80086601} p; dup2 f f; dup3 f f {0,0x80000};
    pipe2 p {0,0x800,0x80000,0x4000}; eventfd2 n {0,1,0x800,0x80000}; read f p s; write f p s; readv f v n;
    writev f v n; preadv f v n s {0}; pwritev f v n s {0}; pread64 f p s s; pwrite64 f p s s;
    preadv2 f v n {-1,0} {0} {0,1,8}; pwritev2 f v n {-1,0} {0} {0,16}; lseek f s {0,1,2,3,4}; sendfile f f {0,p} s;
    copy_file_range f {0,p} f {0,p} s {0}; epoll_create1 {0,0x80000}; epoll_ctl f {1,2,3} f p;
    epoll_wait f p {1,5} {0,10,-1}; epoll_pwait f p {1,5} {0,10,-1} {0,p} {8}; poll p {0,1,3,20} {0,10,-1};
    ppoll p {0,1,3} {0,p} {0,p} {8}; select {0,5,64,1024} p p {0,p} {0,p};
    pselect6 {0,5,64,1024} p p {0,p} {0,p} {0,p}; signalfd4 {-1} p {8} {0,0x800}; timerfd_create {0,1,7} {0,0x800};
    timerfd_settime f {0,1} p {0,p}; timerfd_gettime f p; rt_sigaction g p {0,p} {8};
    rt_sigprocmask {0,1,2} p {0,p} {8}; rt_sigpending p {8}; rt_sigsuspend p {8}; rt_sigtimedwait p {0,p} {0,p} {8};
    rt_sigqueueinfo i g p; rt_tgsigqueueinfo i i g p; kill i g; tkill i g; tgkill i i g; sigaltstack {0,p} {0,p};
    setitimer {0,1,2} p {0,p}; getitimer {0,1,2} p; timer_create {0,1,7} {0,p} p;
    timer_settime {0,1,2} {0,1} p {0,p}; timer_gettime {0,1} p; timer_delete {0,1}; timer_getoverrun {0,1};
    clock_gettime {0,1,2,3,4,5,6,7} p; clock_nanosleep {0,1} {0,1} p {0,p}; nanosleep p {0,p}; alarm {0,1,100};
    futex p {0,1,3,4,5,9,10,128,129,131,132,133,137,138,265,393,6,7,8,11,12} n {0,0,p} p n; set_robust_list p {24};
    get_robust_list i p p; set_tid_address p;
    clone {17,0x11,0x4111,0x50f00,0x3d0f00,0x1200011,0x8011,0x511,0x10911,0x100011} {0,p} p p p;
    wait4 i {0,1,2,3,8,9,0x40000001} {0,p} {0,p}; waitid {0,1,2,3} i {0,p} {4,5,0x1000004,0xd} {0,p};
    getrusage {0,1,-1} p; prlimit64 i {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15} {0,p} {0,p};
    prctl {1,2,3,4,8,15,16,22,23,24,25,26,27,29,30,33,34,36,37,38,39,40,41,42,47} n p p n;
    arch_prctl {0x1001,0x1002,0x1003,0x1004,0x1011,0x1012} p; sched_setscheduler i {0,1,2,3,5} p;
    sched_getattr i p {48} {0}; sched_setattr i p {0}; sched_setaffinity i {8,16,128} p;
    sched_getaffinity i {8,16,128} p; setpriority {0,1,2} i n; getpriority {0,1,2} i;
    ioprio_set {1,2,3} i {0,0x2000,0x4001,0x6000}; ioprio_get {1,2,3} i;
    membarrier {0,1,2,4,8,16,32,64,128} {0} {0}; kcmp i i {0,1,2,3,4,5,6} f f; pidfd_open i {0};
    pidfd_getfd f f {0}; pidfd_send_signal f g {0,p} {0}; getrandom p s {0,1,2,4}; getgroups {0,1,64} p;
    setgroups {0,1,64,65536} p; capget p {0,p}; capset p p; execve t {0,v,p} {0,v,p};
    execveat d t {0,v,p} {0,v,p} {0,0x1000,0x100}; setxattr t t p s {0,1,2}; getxattr t t p s; listxattr t p s;
    socketpair {1} {1,2,5} {0} p; unshare {0,0x200,0x400,0x20000}; setpgid i i; setns f {0}; sysinfo p;
    futimesat d t {0,p}; close_range {5,8} {9,20,-1} {0,2,4}; chroot t; socket {1,2,10,16} {1,2,3,5,0x801} {0};
    bind f p {2,16,110}; connect f p {2,16,110}; listen f n; accept4 f {0,p} {0,p} {0,0x800};
    sendto f p s {0,0x40,0x4000} {0,p} {0,16}; recvfrom f p s {0,0x40,2} {0,p} {0,p}; sendmsg f p {0,0x40};
    recvmsg f p {0,0x40}; splice f {0,p} f {0,p} s {0,1,2,4}; tee f f s {0,2}; vmsplice f v n {0,8};
    setsockopt f {1,6} n p {4,8,16}; getsockopt f {1,6} n p p; flock f {1,2,4,5,6,8}; inotify_init1 {0,0x800};
    inotify_add_watch f t n; ptrace {0,1,2,3,4,5,7,8,12,13,16,17,24,0x4200,0x4206} i p p;
"""
SPECS = {entry.split()[0]: entry.split()[1:] for entry in _SPECS.split(";") if entry.strip()}
SOCKETS = range(40, 49)


class Finding(Exception):
    """Something pagewalk must never do."""


class World:
    """One guest and the calls it makes."""

    def __init__(self, geometry: str, seed: int, number: int) -> None:
        self.random = random.Random(f"{geometry} {seed} {number}")
        self.kernel = kernel = make_kernel(geometry, RAM, stdin=b"some input\n" * 50, seed=seed)
        self.cpu: Any = kernel.cpu
        arch = kernel.arch
        self.numbers = NAMES[arch.name]
        self.number_of = {name: number for number, name in self.numbers.items()}
        image = IMAGES / arch.name / "hello"
        path = kernel.vfs.add_program(b"hello", None, image.read_bytes())
        self.frames = kernel.system.nr_free_pages()
        self.last: list[str] = []
        self.loaded: Any = None
        self.placed = 0
        self.page = kernel.system.page_size
        kernel.start(path, [b"hello"], [b"A=b"])
        self.next_task()
        kernel.current.rlim[9] = [ADDRESS_SPACE, ADDRESS_SPACE]
        self.layout()

    # ---- the CPU

    def next_task(self) -> bool:
        """What the machine's loop does between two traps; False: nobody is left, or nobody can ever run."""
        kernel = self.kernel
        while kernel.need_resched or self.loaded is not kernel.current:
            if not kernel.run_queue and kernel.current.state != TASK_RUNNING and kernel.system.ksm is not None:
                kernel.system.ksm.run = 0  # when all sleep for a million years, ksmd would scan all that time
            try:
                task = kernel.schedule()
            except Deadlock:
                return False
            if task is None:
                return False
            if self.loaded is not task:
                if self.loaded is not None:
                    self.loaded.cpu_state = self.cpu.save_state()
                self.cpu.load_state(task.cpu_state)
                self.loaded = task
            if kernel.resume(task):
                break
        return True

    def raw(self, name: str, *args: int) -> int:
        """One call of the current task; its result, signed."""
        arch = self.kernel.arch
        number = next(n for n, found in self.numbers.items() if found == name)
        self.trap(number, args)
        return struct.unpack("<q", struct.pack("<Q", self.cpu.regs[arch.result] & U64))[0]

    def trap(self, number: int, args: Any) -> None:
        """Load the registers and trap."""
        arch = self.kernel.arch
        regs = self.cpu.regs
        regs[arch.number] = number
        for register, value in zip(arch.arguments, args, strict=False):
            regs[register] = value & U64
        self.kernel.system_call()

    # ---- memory to point at

    def layout(self) -> None:
        """Areas of every kind, at addresses the fuzzer remembers."""
        page = self.page
        self.scratch = self.raw("mmap", 0, 8 * page, 3, 0x22, U64, 0)
        self.half = self.raw("mmap", 0, 2 * page, 3, 0x22, U64, 0)
        self.raw("munmap", self.half + page, page)
        self.readonly = self.raw("mmap", 0, 2 * page, 1, 0x22, U64, 0)
        self.none = self.raw("mmap", 0, 2 * page, 0, 0x22, U64, 0)
        self.shared = self.raw("mmap", 0, 4 * page, 3, 0x21, U64, 0)
        self.big = self.raw("mmap", 0, 1 << 27, 3, 0x4022, U64, 0)
        self.poke(self.half, b"/x" * (page // 2))
        self.areas = [self.scratch, self.half, self.readonly, self.none, self.shared, self.big]
        for path in (b"/tmp/dir", b"/tmp/a"):
            self.poke(self.scratch, path + b"\0")
            if path == b"/tmp/dir":
                self.raw("mkdirat", -100, self.scratch, 0o755)
            else:
                fd = self.raw("openat", -100, self.scratch, 0o102, 0o644)
                self.raw("ftruncate", fd, 3 * page + 5)
                self.raw("mmap", 0, 4 * page, 3, 1, fd, 0)
        self.raw("pipe2", self.scratch, 0)
        self.raw("eventfd2", 1, 0)
        self.raw("socketpair", 1, 1, 0, self.scratch)
        self.raw("openat", -100, self.scratch, 0o200000, 0)
        self.prepare()

    def prepare(self) -> None:
        """The calls of SETUP, without what makes arguments wild."""
        there = set(self.numbers.values())
        for name, *words in SETUP:
            to = int(words.pop()) if words[-2:-1] == [">"] else -1
            if name in there and self.kernel.current.state == TASK_RUNNING:
                fd = self.raw(name, *(self.word(word) & U64 for word in words if word != ">"))
                if to >= 0 <= fd:
                    self.raw("dup3", fd, to, 0)
                    self.raw("close", fd)

    def poke(self, address: int, data: bytes) -> None:
        """Store what can be stored, without disturbing anything else."""
        task = self.kernel.current
        if task.mm is not None and address > 0:
            copy_to_user_partial(task, address, data)

    # ---- arguments

    def pointer(self) -> int:
        r = self.random
        page = self.page
        kind = r.random()
        if kind < 0.55:
            return self.scratch + r.randrange(0, 4 * page, 8)
        if kind < 0.60:
            return self.scratch + r.randrange(8 * page)
        if kind < 0.80:
            return r.choice(self.areas) + r.choice((0, 1, 8, page - 8, page - 1, page, 2 * page - 4, 2 * page))
        if kind < 0.85:
            return 0
        if kind < 0.90:
            task = self.kernel.current
            mm = task.mm
            if mm is not None and mm.mmap is not None:
                vma = mm.mmap
                for _ in range(r.randrange(mm.map_count)):
                    vma = vma.vm_next or vma
                return r.choice((vma.vm_start, vma.vm_end, vma.vm_end - 8, vma.vm_start - 8)) & U64
        return self.wild()

    def wild(self) -> int:
        r = self.random
        kind = r.randrange(8)
        if kind == 0:
            return r.getrandbits(64)
        if kind == 1:
            return U64 - r.randrange(4096)
        if kind == 2:
            return (1 << r.randrange(64)) + r.randrange(-2, 3) & U64
        if kind == 3:
            return 0x7FFFFFFFF000 + r.randrange(-4096, 4096)
        if kind == 4:
            return 1 << 47 | r.getrandbits(20)
        if kind == 5:
            return 1 << 48 | r.getrandbits(20)
        if kind == 6:
            return 0xFFFF800000000000 + r.getrandbits(30)
        return r.getrandbits(32)

    def small(self) -> int:
        r = self.random
        around = r.randrange(-3, 3) & U64
        return r.choice((r.randrange(0, 8), r.randrange(0, 130), around, 1 << r.randrange(32)))

    def size(self) -> int:
        r = self.random
        page = self.page
        return r.choice((0, 1, 8, 16, 24, r.randrange(200), page - 1, page, page + 1, 3 * page, 65536, 1 << 20,
                         1 << 21, 1 << 30, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, 1 << 46, 1 << 62,
                         U64, self.wild()))  # fmt: skip

    def flags(self) -> int:
        r = self.random
        kind = r.random()
        if kind < 0.45:
            return r.randrange(0, 64)
        if kind < 0.7:
            return 1 << r.randrange(32) | 1 << r.randrange(32) | r.randrange(4)
        if kind < 0.8:
            return r.getrandbits(32)
        if kind < 0.9:
            return 0
        return r.choice((U64, 0xFFFFFFFF, r.getrandbits(64), 1 << 63))

    def fd(self) -> int:
        r = self.random
        return r.choice(
            (r.randrange(0, 12), r.randrange(0, 12), r.randrange(3, 67), -100 & U64, U64, 0x7FFFFFFF, 1023, self.wild())
        )

    def pid(self) -> int:
        r = self.random
        pids = list(self.kernel.tasks)
        if r.random() < 0.4:
            pids = [task.pid for task in self.kernel.tasks.values() if task.ptrace] or pids
        return r.choice((0, 0, U64, r.choice(pids), r.choice(pids), -r.choice(pids) & U64, 99999, self.wild()))

    def path(self) -> int:
        r = self.random
        if r.random() < 0.15:
            return r.choice((self.half + r.randrange(self.page), self.pointer()))
        address = self.scratch + 4 * self.page + r.randrange(0, 2 * self.page, 8)
        self.poke(address, r.choice(PATHS) + b"\0")
        return address

    def argument(self, name: str) -> int:
        """A value for a parameter of that name."""
        if self.random.random() < 0.12:
            return self.random.choice((self.wild, self.small, self.size, self.pointer, self.flags))()
        for words, make in self.HINTS:
            if any(word in name for word in words):
                return make(self)
        return self.random.choice((self.small, self.pointer, self.size, self.flags, self.small, self.fd))()

    def aligned(self) -> int:
        r = self.random
        if r.random() < 0.15:
            return self.pointer() & -self.page
        if r.random() < 0.15:
            return 0
        task = self.kernel.current
        mm = task.mm
        if r.random() < 0.4 and mm is not None and mm.mmap is not None:
            vma = mm.mmap
            for _ in range(r.randrange(mm.map_count)):
                vma = vma.vm_next or vma
            if vma.vm_start < 1 << 47 and vma.vm_flags & 0x104 != 0x104:
                return vma.vm_start + self.page * r.randrange(3)
        return r.choice(self.areas[1:]) + self.page * r.randrange(-1, 3)

    def length(self) -> int:
        r = self.random
        if r.random() < 0.9:
            return self.page * r.choice((1, 1, 2, 3, 4, 8, 16, 600))
        return self.size()

    def vector(self) -> int:
        r = self.random
        words = [word for _ in range(16) for word in (self.pointer(), r.choice((0, 1, 8, 64, self.page, self.size())))]
        address = self.scratch + r.randrange(0, 2 * self.page, 8)
        self.poke(address, struct.pack("<32Q", *words))
        return address

    def folder(self) -> int:
        return self.random.choice((-100 & U64, -100 & U64, self.fd()))

    def open_flags(self) -> int:
        r = self.random
        return r.choice((0, 1, 2)) | r.choice(
            (0, 0, 0x40, 0x40, 0xC0, 0x200, 0x400, 0x800, 0x10000, 0x4000, 0x200000, 0x410000)
        )

    def mode(self) -> int:
        return self.random.choice((0, 0o400, 0o600, 0o644, 0o755, 0o777, 0o7777))

    def signo(self) -> int:
        r = self.random
        return r.choice((0, 10, 12, 13, 14, 17, 18, 28, 34, 64, r.randrange(1, 66)))

    def spec(self, words: list[str]) -> list[int]:
        """Arguments by a line of SPECS."""
        r = self.random
        args = []
        for word in words:
            if r.random() < 0.06:
                args.append(r.choice((self.wild, self.small, self.size, self.pointer, self.flags))())
                continue
            args.append(self.word(word))
        return [arg & U64 for arg in args]

    def word(self, word: str) -> int:
        """One argument, or one field of a structure."""
        r = self.random
        if word[0] == "{":
            word = r.choice(word[1:-1].split(","))
        if word[0] == "<":
            return sum(int(bit, 0) for bit in word[1:-1].split(",") if r.random() < 0.6)
        if word[0] == "@":
            return self.structure(STRUCTS[word[1:]])
        if word[0] == "'":
            return self.place(word[1:].replace("~", " ").encode() + b"\0")
        return self.LETTERS[word](self) if word in self.LETTERS else int(word, 0)

    def structure(self, fields: list[str]) -> int:
        """Make one, now and then with a field that is anything; its address."""
        data = b""
        for field in fields:
            size, _, word = field.partition(":")
            value = self.wild() if self.random.random() < 0.02 else self.word(word)
            data += (value & U64).to_bytes(8, "little")[: int(size)].ljust(int(size), b"\0")
        return self.place(data)

    def place(self, data: bytes) -> int:
        """Where no other argument of the call lies."""
        room = self.page - 512
        self.placed = (self.placed + 7 & -8) % (room - len(data))
        address = self.scratch + 6 * self.page + 512 + self.placed
        self.placed += len(data)
        self.poke(address, data)
        return address

    def socket(self) -> int:
        return self.random.choice(SOCKETS) if self.random.random() < 0.9 else self.fd()

    def futex(self) -> int:
        address = self.random.choice((self.scratch + 6 * self.page, self.shared)) + 4 * self.random.randrange(4)
        if self.random.random() < 0.1:
            self.poke(address, bytes(4))
        return address

    def context_slot(self) -> int:
        address = self.context_at()
        if self.random.random() < 0.5:
            self.poke(address, bytes(8))
        return address

    def context(self) -> int:
        return int.from_bytes(copy_from_user_partial(self.kernel.current, self.context_at(), 8) or b"", "little")

    def context_at(self) -> int:
        return self.scratch + 7 * self.page + 8 * self.random.randrange(2)

    LETTERS: ClassVar = {
        "a": aligned, "l": length, "p": pointer, "f": fd, "d": folder, "t": path, "i": pid, "n": small, "s": size,
        "v": vector, "o": open_flags, "m": mode, "g": signo, "e": fd, "q": socket, "u": futex, "C": context_slot,
        "c": context, "w": wild,
    }  # fmt: skip
    HINTS: ClassVar = (
        (("fd",), fd),
        (("path", "filename", "pathname", "old", "new", "name", "target"), path),
        (("pid", "tid", "tgid", "who"), pid),
        (("len", "count", "size", "nr", "maxnode", "vlen", "nfds", "maxevents"), size),
        (("flags", "prot", "mode", "op", "cmd", "advice", "which", "how"), flags),
        (("sig", "clock", "res", "id", "policy"), small),
        (("addr", "ptr", "buf", "start", "vec", "iov", "set", "act", "info", "stack", "value", "ts", "time"), pointer),
    )

    def scribble(self) -> None:
        """Fill the scratch area with what structures are made of."""
        r = self.random
        choices = (self.pointer, self.size, self.small, self.flags, self.fd, self.pid, self.wild)
        words = [r.choice(choices)() & U64 for _ in range(64)]
        if r.random() < 0.5:  # as 32-bit fields
            words = [(a & 0xFFFFFFFF) | (b & 0xFFFFFFFF) << 32 for a, b in zip(words, reversed(words), strict=True)]
        if r.random() < 0.3:  # vectors of good areas
            words = [word for _ in range(32) for word in (self.pointer(), r.choice((1, 8, 64, self.page, self.size())))]
        self.poke(self.scratch + r.choice((0, 0, 0, 8, 4, 512, self.page - 16)), struct.pack(f"<{len(words)}Q", *words))

    # ---- a world's life

    def step(self) -> None:
        """One call."""
        r = self.random
        kernel = self.kernel
        if r.random() < 0.3:
            self.scribble()
        self.repair()
        number = r.choice(tuple(self.numbers)) if r.random() < 0.995 else r.choice((r.getrandbits(9), self.wild()))
        name = self.numbers.get(number, "?")
        variant = None
        if r.random() < 0.5:
            name, *variant = r.choice(VARIANTS)
            number = self.number_of.get(name, number)
        if name in RARE and r.random() > RARE[name]:
            return
        if name in ("clone", "clone3", "fork", "vfork") and len(kernel.tasks) > MAX_TASKS:
            return
        entry = kernel.calls[number] or kernel.table.resolve(number) if number < kernel.call_count else None
        if variant is not None:
            args = self.spec(variant)
        elif name in SPECS and r.random() < 0.8:
            args = self.spec(SPECS[name])
        elif entry is not None:
            code = entry.handler.__code__
            args = [self.argument(name) for name in code.co_varnames[1 : code.co_argcount]]
        else:
            args = [self.argument("") for _ in range(6)]
        self.last.append(f"{kernel.current.pid} {name}({', '.join(f'{arg & U64:#x}' for arg in args)})")
        del self.last[:-12]
        signal.setitimer(signal.ITIMER_REAL, HANG)
        self.trap(number, args)
        mm = kernel.current.mm
        if mm is not None and r.random() < 0.05:
            validate_mm(mm)

    def repair(self) -> None:
        """What earlier calls took away comes back now and then: memory to point at, descriptors."""
        kernel, r = self.kernel, self.random
        task, size = kernel.current, 8 * self.page
        if task.mm and r.random() < 0.1 and not copy_to_user_partial(task, self.scratch + size - 8, bytes(8)):
            self.raw("mmap", self.scratch, size, 3, 0x32, U64, 0)
        if kernel.current is task and r.random() < 0.01:
            self.prepare()

    def live(self, calls: int) -> int:
        """Make up to `calls` calls; how many were made before nobody could call any more."""
        for made in range(calls):
            self.step()
            if not self.next_task():
                self.last.append("-- nobody can run")
                return made + 1
        return calls

    def end(self) -> None:
        """Kill everybody: all memory but the files' must come back."""
        kernel = self.kernel
        self.last.append("-- the end")
        validate_system(kernel.system, kernel.tasks.values())
        for _ in range(50):
            victims = [task for task in kernel.tasks.values() if task is not kernel.init and not task.exit_state]
            if not victims:
                break
            for task in victims:
                send_signal(kill_info(SIGKILL, 0, 0, 0), task, True, True)  # the first of a namespace too
            current = kernel.current
            if current.state == TASK_RUNNING and current.sigpending and current not in kernel.run_queue:
                kernel.end_trap(current)
            self.next_task()
        else:
            raise Finding(f"SIGKILL does not kill {victims}")
        system = kernel.system
        if system.pgd_list:
            raise Finding(f"{len(system.pgd_list)} address spaces survive their tasks")
        validate_system(system, None)


def _alarm(number: int, frame: Any) -> None:
    raise Finding("a call hangs")


def run(geometry: str, calls: int, seed: int, first: int = 0, worlds: int | None = None, keep: bool = False) -> int:
    """Fuzz; how many findings there were, printed."""
    signal.signal(signal.SIGALRM, _alarm)
    made = 0
    number = first
    findings = 0
    while made < calls and (worlds is None or number < first + worlds):
        world = None
        try:
            world = World(geometry, seed, number)
            made += world.live(min(WORLD_CALLS, calls - made))
            signal.setitimer(signal.ITIMER_REAL, 4 * HANG)
            world.end()
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            signal.setitimer(signal.ITIMER_REAL, 0)
            findings += 1
            made += 1
            last = "\n  ".join(world.last) if world is not None else ""
            print(f"==== {geometry} --seed {seed} --world {number}\n  {last}\n{traceback.format_exc()}", flush=True)
            if not keep:
                return findings
        signal.setitimer(signal.ITIMER_REAL, 0)
        number += 1
    print(f"{geometry}: {made} calls in {number - first} worlds, {findings} findings", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--geometry", default="x86_64-4k")
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--world", type=int)
    parser.add_argument("--keep", action="store_true", help="go on after a finding")
    args = parser.parse_args()
    started = time.monotonic()
    alone = args.world is not None
    findings = run(args.geometry, args.calls, args.seed, args.world or 0, 1 if alone else None, args.keep)
    print(f"{time.monotonic() - started:.1f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
