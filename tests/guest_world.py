"""A guest kernel without a CPU: system calls are made by calling their handlers, on real memory management.

`World` builds System and Kernel, gives one task an address space with a scratch area, and `call` puts strings and
buffers there. A refusal comes back as the negative errno, sleeping as `Block`.
"""

from __future__ import annotations

import errno
import mmap
from typing import Any

import guest.arch
from guest.config import Config
from guest.kernel import Kernel
from guest.task import Task
from mm.errors import Errno
from mm.fork import mm_alloc
from mm.mmap import vm_mmap
from mm.system import System
from mm.uaccess import copy_from_user, copy_to_user

SCRATCH = 1 << 20  # bytes


class FakeCpu:
    """Registers nobody computes with."""

    def __init__(self) -> None:
        self.regs = [0] * 64

    def save_state(self) -> bytes:
        return b""

    def load_state(self, state: bytes) -> None:
        return

    def reset_state(self) -> None:
        return


class World:
    def __init__(self, arch: str = "x86_64", page_size: int = 4096, ram: int = 64 << 20, **settings: Any) -> None:
        if arch == "x86_64":
            from mm.arch_x86_64 import make

            mm_arch = make()
        else:
            from mm.arch_arm64 import make as make_arm64

            mm_arch = make_arm64(page_size)
        self.ram = mmap.mmap(-1, ram)
        self.system = System(mm_arch, memoryview(self.ram))
        settings = {"stdin": b"", "stdout": "capture", "stderr": "capture"} | settings
        self.kernel = Kernel(self.system, guest.arch.make(arch), FakeCpu(), Config(**settings))
        self.task = self.new_task()
        self.used = 0

    def new_task(self, uid: int | None = None) -> Task:
        kernel = self.kernel
        task = Task(kernel, kernel.alloc_pid())
        from guest.cred import Cred
        from guest.task import Sighand, SignalStruct, default_rlimits

        task.cred = Cred(kernel.config.uid if uid is None else uid, 0 if uid is None else uid)
        task.signal = SignalStruct(default_rlimits(8 << 20, 100))
        task.signal.threads.append(task)
        task.rlim = task.signal.rlim
        task.sighand = Sighand()
        task.comm = "test"
        task.real_parent = kernel.init
        task.files, task.fs = kernel.vfs.first_task()
        kernel.tasks[task.pid] = task
        kernel.set_current(task)
        task.mm = mm = mm_alloc(self.system)
        self.system.arch.arch_pick_mmap_layout(mm, 8 << 20, 0)
        task.area = vm_mmap(mm, None, 0, SCRATCH, 3, 0x22, 0)
        return task

    def put(self, data: bytes, task: Task | None = None) -> int:
        """Scratch memory that holds `data`."""
        task = task or self.task
        self.used = (self.used + 15) & ~15
        if self.used + len(data) > SCRATCH:
            self.used = 0
        address = task.area + self.used
        self.used += len(data)
        copy_to_user(task, address, data)
        return address

    def get(self, address: int, count: int) -> bytes:
        return copy_from_user(self.task, address, count)

    def call(self, name: str, *args: Any, task: Task | None = None) -> int:
        """The result of a system call; bytes and str arguments become addresses (str gets its NUL)."""
        task = task or self.task
        self.kernel.set_current(task)
        raw = []
        for arg in args:
            if isinstance(arg, str):
                arg = self.put(arg.encode() + b"\0", task)
            elif isinstance(arg, bytes):
                arg = self.put(arg, task)
            raw.append(arg & 0xFFFFFFFFFFFFFFFF)
        entry = self.kernel.table.find(name)
        if entry is None:
            return -errno.ENOSYS
        raw += [0] * (entry.nargs - len(raw))
        try:
            result = entry.handler(task, *raw[: entry.nargs])
        except Errno as refusal:
            result = -refusal.number
        task.wait_state = {}
        return result

    def read(self, fd: int, count: int = 65536, task: Task | None = None) -> bytes | int:
        task = task or self.task
        buf = self.put(bytes(min(count, 65536)), task)
        done = self.call("read", fd, buf, count, task=task)
        return copy_from_user(task, buf, done) if done >= 0 else done

    def write(self, fd: int, data: bytes, task: Task | None = None) -> int:
        return self.call("write", fd, data, len(data), task=task)

    def open(self, path: str, flags: int = 0, mode: int = 0o644, task: Task | None = None) -> int:
        return self.call("openat", -100, path, flags, mode, task=task)

    def cat(self, path: str, task: Task | None = None) -> bytes:
        fd = self.open(path, task=task)
        assert fd >= 0, errno.errorcode[-fd]
        out = b""
        while True:
            part = self.read(fd, task=task)
            assert isinstance(part, bytes), part
            if not part:
                break
            out += part
        self.call("close", fd, task=task)
        return out
