"""A small address space made by mm/ alone: what the drawings are tested on."""

from __future__ import annotations

from typing import Any

from mm import arch_arm64, arch_x86_64
from mm.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from mm.fork import mm_alloc
from mm.mmap import vm_mmap
from mm.system import System
from mm.types import TaskStruct
from mm.uaccess import copy_to_user, get_user

BASE = 0x10000000


def make_task(arch: Any) -> TaskStruct:
    """A task with an empty address space on a machine of 16 MiB."""
    system = System(arch, memoryview(bytearray(16 << 20)))
    task = TaskStruct(system)
    task.pid, task.comm = 27, "hand"
    task.rlim = [[2**64 - 1] * 2 for _ in range(16)]
    task.rlim[3][0] = 8 << 20
    system.current = task
    mm = mm_alloc(system)
    task.mm = mm
    arch.arch_pick_mmap_layout(mm, task.rlim[3][0], 0)
    return task


def make_three(arch: Any) -> TaskStruct:
    """Three areas with a page between each: written, read-only touched, executable untouched."""
    task = make_task(arch)
    page = arch.page_size
    for index, prot in enumerate((PROT_READ | PROT_WRITE, PROT_READ, PROT_READ | PROT_EXEC)):
        vm_mmap(task.mm, None, BASE + 2 * index * page, page, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0)
    copy_to_user(task, BASE + 8, b"hello")
    get_user(task, BASE + 2 * page, 8)
    return task


X86_64 = arch_x86_64.make
ARM64 = arch_arm64.make
