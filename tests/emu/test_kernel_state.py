"""Locks that are waited for, contexts of asynchronous I/O and counted events are state: they pickle with the kernel."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

from emu import Machine

GUESTS = pathlib.Path(__file__).resolve().parents[1] / "golden" / "extra" / "x86_64"


def copy_after(guest: str, calls: int, tmp_path: pathlib.Path) -> tuple[Any, Any]:
    """The kernel when a guest has made so many calls, and a copy of it."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / guest).write_bytes((GUESTS / guest).read_bytes())
    (tmp_path / guest).chmod(0o755)
    machine = Machine(root=str(tmp_path), stdout="capture")
    machine.load(f"/{guest}")
    seen = 0

    def enough(event: Any) -> bool:
        nonlocal seen
        seen += event.kind == "syscall_enter"
        return seen == calls

    assert machine.run(until=enough).reason == "until"
    return machine.kernel, pickle.loads(pickle.dumps(machine.kernel))


def locks(kernel: Any) -> list[Any]:
    """Who owns and waits for which lock, and at which priority."""
    return [
        (task.pid, task.prio, [[waiter.task.pid for waiter in state.pi_mutex.waiters] for state in task.pi_states])
        for task in kernel.tasks.values()
    ]


def test_locks_with_waiters(tmp_path: pathlib.Path) -> None:
    kernel, copy = copy_after("futexpi", 440, tmp_path)
    assert locks(copy) == locks(kernel)
    assert sum(len(states) for _, _, states in locks(copy)) == 3
    for key, futex in copy.futex_queues.items():
        assert futex.key == key
        assert all(q.futex is futex and q is q.task.wait_state["waiter"] for q in futex.waiters)


def test_contexts(tmp_path: pathlib.Path) -> None:
    kernel, copy = copy_after("aio", 300, tmp_path)
    mm = copy.current.mm
    ctx = mm.ioctx_table.table[0]
    assert ctx.ring.base == kernel.current.mm.ioctx_table.table[0].ring.base
    assert mm.ops.find_vma(mm, ctx.user_id).vm_file is ctx.ring
    assert ctx.ring.pages[0] is copy.system.mem_map[ctx.ring.pages[0].pfn]


def test_counters_of_faults(tmp_path: pathlib.Path) -> None:
    kernel, copy = copy_after("perfcount", 120, tmp_path)
    assert copy.fault_counter.users == kernel.fault_counter.users > 0
    assert copy.system.arch.do_page_fault is copy.fault_counter
    assert copy.fault_counter.total == kernel.fault_counter.total


def test_nobody_else_pays() -> None:
    machine = Machine(stdout="capture")
    machine.load(str(pathlib.Path(__file__).resolve().parents[2] / "images" / "x86_64" / "hello"))
    machine.run()
    assert machine.kernel.fault_counter is None
    assert "do_page_fault" not in vars(machine.system.arch)
