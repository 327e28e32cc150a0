"""Breakpoints on code, watchpoints on data, single steps: stopping a guest without a change the guest could see.

    machine.breakpoint(address)              # machine.run() ends before that instruction, reason "breakpoint"
    machine.watch(address, 8, "w")           # ... after the instruction that wrote one of these bytes, "watchpoint"
    machine.breakpoint(event="fault", address=range(a, b))   # ... at an event, reason "breakpoint"
    machine.step()                           # one instruction of the current task
    machine.breakpoints.hit                  # what it was: task, address, access

A breakpoint is a code hook on one address: Unicorn instruments that instruction alone, and memory keeps its bytes.
Code translated before the hook came does not call it, so all of it is dropped then (once; it is made again as it runs).

A watchpoint is a memory hook on the *physical* addresses behind the bytes, which the engine compares itself: Python is
called for accesses near them only. Where the bytes lie can change in a trap (a first touch, copy-on-write, mremap) or
with the task, and is looked up again after each. So no page-table entry is touched: no fault is counted, no Accessed or
Dirty bit set, and /proc shows what it showed. To stop right behind the instruction, and not at the end of its block,
instructions are counted while there is a watchpoint, which makes the engine 8 (arm64) to 30 times slower. Accesses the
kernel makes for a system call do not stop the run, as they do not with a processor's debug registers.

`Machine._loop` calls `turn()` instead of `engine.run()` while anything of this is in use; other runs pay nothing.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_int, c_size_t, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from emu.errors import EngineError, PagewalkError
from emu.uclib import (
    CTL_TB_FLUSH,
    UC_HOOK_CODE,
    UC_HOOK_MEM_READ,
    UC_HOOK_MEM_WRITE,
    check,
    uc_ctl,
    uc_emu_stop,
    uc_hook_add,
    uc_hook_del,
)
from guest.sched import TASK_RUNNING, TASK_TRACED
from mm.pgtable import pmd_offset, pte_offset

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine
    from guest.task import Task
    from mm.types import MmStruct

CODE_HOOK = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, ctypes.c_uint32, c_void_p)
MEM_HOOK = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint64, c_int, ctypes.c_int64, c_void_p)
MEM_WRITE = 17  # UC_MEM_WRITE
HOOK_BEGIN, HOOK_END, HOOK_WORDS = 3, 4, 7  # words of Unicorn's struct hook
NOWHERE = (1 << 64) - 1  # no access begins there
WIDEST = 64  # bytes one access has at most
FOREVER = 1 << 62  # instructions


class Hit:
    """Why a run ended.

    Attributes:
        kind: "breakpoint", "watchpoint", "step" or "event".
        task: whose instruction it was.
        pc: where it goes on: the instruction with the breakpoint, or the one behind the access.
        address: of the breakpoint, or the first watched byte that was touched.
        access: "r" or "w" of a watchpoint.
        point: the Breakpoint or Watchpoint; None for a step.
        event: what happened, for kind "event".
    """

    __slots__ = ("access", "address", "event", "kind", "pc", "point", "task")

    def __init__(
        self, kind: str, task: Task, pc: int, address: int, point: Any = None, access: str = "", event: Any = None
    ) -> None:
        self.kind = kind
        self.task = task
        self.pc = pc
        self.address = address
        self.point = point
        self.access = access
        self.event = event

    def __repr__(self) -> str:
        return f"<{self.kind} {self.address:#x}{' ' if self.access else ''}{self.access} pid {self.task.pid}>"


class Breakpoint:
    """One breakpoint. `process`: the only tgid it is for; None: all."""

    __slots__ = ("address", "process", "remove")

    def __init__(self, address: int, process: int | None) -> None:
        self.address = address
        self.process = process
        self.remove: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<breakpoint {self.address:#x}>"


class Watchpoint:
    """One watchpoint: `size` bytes at `address`; `access` is "r", "w" or "rw"."""

    __slots__ = ("access", "address", "number", "process", "remove", "size", "task")

    def __init__(self, address: int, size: int, access: str, process: int | None) -> None:
        self.address = address
        self.size = size
        self.access = access
        self.process = process
        self.task: Task | None = None  # whose debug register `number` this is: it gets a SIGTRAP, the run goes on
        self.number = 0
        self.remove: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<watchpoint {self.address:#x}+{self.size} {self.access}>"


class _Piece:
    """The part of a watchpoint that lies in one page, and its hook in the engine."""

    __slots__ = ("address", "handle", "point", "size", "start", "words")

    def __init__(self, point: Watchpoint, address: int, size: int) -> None:
        self.point = point
        self.address = address
        self.size = size
        self.start = -1  # physical address; -1: not present
        self.handle = c_size_t()
        self.words: memoryview[int]


class Breakpoints:
    """All of one machine. Made when the first is asked for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.code: dict[int, list[Breakpoint]] = {}
        self.watches: list[Watchpoint] = []
        self.steps: dict[Task, tuple[int, int]] = {}  # task -> program counter when its step began, faults
        self.exact = False  # count every instruction whenever any is counted: runs repeat themselves to the instruction
        self.resumable = False  # a run may be stopped from outside at any time, and must go on exactly there
        self.frozen: set[Task] = set()  # tasks that must not run: a debugger holds them
        self._parked: list[Task] = []
        self.wanted: Callable[[], bool] | None = None  # asked at a breakpoint: whether it counts
        self.hit: Hit | None = None  # why the last run ended
        self._reported: tuple[Task, int] | None = None  # stopped there: the next run passes
        self._single = False  # the engine runs one instruction
        self._touched = 0  # bit n: the task's debug register n, a watchpoint, was hit
        self._struck = False  # the last run ended before an instruction that was counted
        self._hooked: dict[int, c_size_t] = {}  # address -> Unicorn's hook
        self._pieces: list[_Piece] = []
        self._dirty = False
        self._slice_task: Task | None = None
        self._slice_left = self._slice_done = 0
        self._code_callback = CODE_HOOK(self._guard(self._at_instruction))
        self._mem_callback = MEM_HOOK(self._guard(self._at_access))

    # ---- what the user asks for

    def at(self, address: int | range | None, event: str | None, filters: dict[str, Any]) -> Any:
        """Machine.breakpoint(): at an instruction, or at an event, which filters (address, task, ...) may narrow."""
        if event is not None:
            return self.on(event, **({} if address is None else {"address": address}), **filters)
        if not isinstance(address, int) or filters:
            raise PagewalkError("a breakpoint needs the address of an instruction, or event=")
        return self.add(address)

    def add(self, address: int, process: int | None = None) -> Breakpoint:
        """Stop before the instruction at `address`. Raises PagewalkError when that is no address."""
        _check_address(address, 1)
        point = Breakpoint(address, process)
        self.code.setdefault(address, []).append(point)

        def remove() -> None:
            points = self.code.get(address, [])
            if point in points:
                points.remove(point)
                if not points:
                    del self.code[address]
                    self._change()

        point.remove = remove
        self._change()
        return point

    def watch(self, address: int, size: int = 8, access: str = "w", process: int | None = None) -> Watchpoint:
        """Stop behind an instruction that reads ("r"), writes ("w") or touches ("rw") one of `size` bytes."""
        if access not in ("r", "w", "rw"):
            raise PagewalkError(f"a watchpoint is for 'r', 'w' or 'rw', not {access!r}")
        _check_address(address, size)
        if not 0 < size <= 4096:
            raise PagewalkError(f"a watchpoint covers 1 to 4096 bytes, not {size}")
        point = Watchpoint(address, size, access, process)
        self.watches.append(point)

        def remove() -> None:
            if point in self.watches:
                self.watches.remove(point)
                self._change()

        point.remove = remove
        self._change()
        return point

    def watch_for(self, task: Task) -> None:
        """Look out for what the debug registers of a task watch (ptrace inside the guest): SIGTRAP, no stop here."""
        self.watches = [point for point in self.watches if point.task is not task]
        for number, address, size, access in task.hw_watchpoints:
            point = Watchpoint(address, size, access, task.tgid)
            point.task, point.number = task, number
            self.watches.append(point)
        self._dirty = True

    def on(self, kind: str, **filters: Any) -> Any:
        """Stop at the next event of this kind; filters as `machine.after` has them. Returns a handle: `.remove()`."""
        machine = self.machine

        def stop(event: Any) -> None:
            task = machine.kernel.current
            pc = machine.engine.regs[machine.engine.PC]
            self.hit = Hit("event", task, pc, getattr(event, "address", 0), None, "", event)
            machine.stop("breakpoint")

        return machine.after(kind, stop, **filters)

    def step(self, task: Task) -> None:
        """The next run ends when `task` has executed one instruction."""
        engine = self.machine.engine
        pc = engine.regs[engine.PC] if self.machine.kernel.current is task else -1
        self.steps[task] = (pc, task.min_flt + task.maj_flt)

    def parks(self, task: Task) -> bool:
        """The scheduler has chosen `task`. True: it is held, choose again; until unpark() it is a stopped one."""
        if task not in self.frozen:
            return False
        task.state = TASK_TRACED
        self._parked.append(task)
        self.machine.kernel.need_resched = True
        return True

    def unpark(self) -> None:
        """The run is over: tasks that were held are runnable as before, and in the same order."""
        kernel = self.machine.kernel
        for task in reversed(self._parked):
            if task.state == TASK_TRACED and not task.exit_state:
                task.state = TASK_RUNNING
                if task is not kernel.current and task not in kernel.run_queue:
                    kernel.run_queue.appendleft(task)
        self._parked.clear()

    @property
    def active(self) -> bool:
        """Whether the machine must run through `turn()`."""
        wanted = self.code or self.watches or self.steps or self._dirty or self._slice_left
        return bool(wanted or self.exact or self.resumable)

    def _change(self) -> None:
        """Hooks are to be put in or taken away: the engine must stand still for that."""
        self._dirty = True
        if self.machine._watcher is not None:
            self.machine.engine.stop()

    # ---- running

    def turn(self, budget: int | None) -> int | None:
        """Let the current task run for a while; what is left of the budget. `machine._stop` says whether to go on."""
        machine, engine = self.machine, self.machine.engine
        task = machine.kernel.current
        if self._dirty:
            self._install()
        self._resolve()
        pc = engine.regs[engine.PC]
        begun = self.steps.get(task)
        if begun is not None and begun[0] < 0:
            begun = self.steps[task] = (pc, task.min_flt + task.maj_flt)
        if begun is not None and begun[0] != pc:  # it was completed by a trap: a call that slept, a signal's handler
            self._stepped(task)
            return budget
        single = begun is not None or (self._reported == (task, pc) and pc in self.code)
        left = self._slice(task)
        count = 1 if single else left or FOREVER  # always counted, or it could not go on after a stop from outside
        if budget is not None:
            count = min(count, budget)
        passing = self._reported
        executed = self._run(task, count, single, left > 0, budget is not None)
        if executed and passing is not None and passing is self._reported and passing[0] is task:
            self._reported = None if not single or self._retired(task, pc) else passing
        if single and begun is not None and executed and not task.in_call and self._retired(task, pc):
            self._stepped(task)
        if budget is not None:
            budget -= executed
            if budget <= 0:
                machine._stop = machine._stop or "max_instructions"
        return budget

    def _run(self, task: Task, count: int, single: bool, counting: bool, limited: bool) -> int:
        """Run the engine, let the time of counted instructions pass; how many it executed (0 when not counted)."""
        machine, kernel, engine = self.machine, self.machine.kernel, self.machine.engine
        kernel.counting = counting
        self._single = single
        self._struck = False
        self._faults = task.min_flt + task.maj_flt
        exact = single or limited or count == 1 or bool(self.watches) or (self.exact and counting)
        engine.run(count, exact)
        if self.hit is not None and machine._stop in ("breakpoint", "watchpoint") and self._reported is None:
            self._note(task)
        executed = max(engine.executed(count) - (self._struck and exact), 0)
        if machine.instructions is not None:
            machine.instructions += executed
        if self._touched:
            task.debug_hits, self._touched = self._touched, 0
        if counting:
            self._pass_time(task, executed)
        if task.debug_hits:
            from guest.ptrace_call import touched_data

            touched_data(kernel, task)
        return executed

    def _note(self, task: Task) -> None:
        """The engine stands still: complete what a hook found out."""
        engine = self.machine.engine
        if self.hit is not None and self.hit.kind != "event":
            self.hit.pc = engine.regs[engine.PC]
            self._reported = (task, self.hit.pc)

    def _slice(self, task: Task) -> int:
        """Instructions `task` may execute before the kernel looks again; 0: no limit. A stop does not renew them."""
        if self._slice_task is task and self._slice_left > 0:
            return self._slice_left
        self._slice_task, self._slice_done = task, 0
        kernel = self.machine.kernel
        self._slice_left = kernel.slice() if kernel.wants_quantum() else 0
        return self._slice_left

    def _pass_time(self, task: Task, executed: int) -> None:
        """Time passes when a slice ends, so that where a debugger stopped in between makes no difference."""
        kernel = self.machine.kernel
        self._slice_left -= executed
        self._slice_done += executed
        if self._slice_left > 0 and not self.machine.engine.left:
            return
        done, expired = self._slice_done, self._slice_left <= 0 and not self.machine.engine.left
        self._slice_left = self._slice_done = 0
        if expired and kernel.wants_quantum():
            kernel.quantum_expired(done)
        else:
            kernel.account(done)

    def _retired(self, task: Task, pc: int) -> bool:
        """Whether the instruction at `pc` is done, and did not merely fault to begin again."""
        engine = self.machine.engine
        return bool(engine.regs[engine.PC] != pc or task.min_flt + task.maj_flt == self._faults)

    def _stepped(self, task: Task) -> None:
        engine = self.machine.engine
        pc = engine.regs[engine.PC]
        self.steps.pop(task, None)
        if not self.machine._stop:
            self.hit = Hit("step", task, pc, pc)
            self.machine._stop = "step"
        self._reported = (task, pc)

    def begin(self) -> None:
        """A run begins."""
        self.hit = None

    # ---- hooks

    def _guard(self, serve: Callable[..., None]) -> Callable[..., None]:
        """What a hook raises ends the run."""

        def hook(*arguments: Any) -> None:
            try:
                serve(*arguments)
            except BaseException as e:  # noqa: BLE001 - it must cross C code
                self.machine.engine._fail(e)

        return hook

    def _at_instruction(self, _: int, address: int, size: int, __: int) -> None:
        engine, machine = self.machine.engine, self.machine
        if engine.left or self._single or self._struck:
            return
        task = machine.kernel.current
        for point in self.code.get(address, ()):
            if point.process in (None, task.tgid) and (self.wanted is None or self.wanted()):
                self._struck = True
                self._hit(Hit("breakpoint", task, address, address, point), "breakpoint")
                uc_emu_stop(engine.handle)
                return

    def _at_access(self, _: int, kind: int, physical: int, size: int, value: int, __: int) -> None:
        if self.machine.engine.left:
            return
        access = "w" if kind == MEM_WRITE else "r"
        task = self.machine.kernel.current
        for piece in self._pieces:
            start = piece.start
            if start < 0 or access not in piece.point.access:
                continue
            if physical < start + piece.size and physical + size > start:
                if piece.point.task is not None:
                    self._touched |= 1 << piece.point.number
                    self.machine.engine.stop()
                    continue
                address = piece.address + max(physical - start, 0)
                if self.hit is None:
                    self._hit(Hit("watchpoint", task, 0, address, piece.point, access), "watchpoint")
                    self.machine.engine.stop()
                return

    def _hit(self, hit: Hit, reason: str) -> None:
        """The first one counts."""
        if self.hit is None:
            self.hit = hit
            self._reported = None
            self.machine._stop = self.machine._stop or reason

    def _install(self) -> None:
        """Make the engine's hooks those that are wanted, and drop the code translated without them."""
        self._dirty = False
        engine = self.machine.engine
        for address in [address for address in self._hooked if address not in self.code]:
            check(uc_hook_del(engine.handle, self._hooked.pop(address)), "uc_hook_del")
        for address in self.code:
            if address not in self._hooked:
                self._hooked[address] = self._add_hook(UC_HOOK_CODE, self._code_callback, address)
        self._install_watches()
        uc_ctl(engine.handle, CTL_TB_FLUSH)

    def _install_watches(self) -> None:
        engine = self.machine.engine
        for piece in self._pieces:
            check(uc_hook_del(engine.handle, piece.handle), "uc_hook_del")
        self._pieces = [_Piece(point, *part) for point in self.watches for part in self._parts(point)]
        for piece in self._pieces:
            piece.handle = self._add_hook(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, self._mem_callback, NOWHERE)
            place = (c_char * (8 * HOOK_WORDS)).from_address(piece.handle.value)
            piece.words = memoryview(place).cast("B").cast("Q")
            if (piece.words[HOOK_BEGIN], piece.words[HOOK_END]) != (NOWHERE, NOWHERE):
                raise EngineError("Unicorn: the range of a memory hook was not found; needs the wheel unicorn==2.1.4")
        wanted = self._resolve if self._pieces else None
        if engine.after_trap != wanted:
            engine.after_trap = wanted
            engine.attach(self.machine.kernel)

    def _add_hook(self, kind: int, callback: Any, address: int) -> c_size_t:
        handle = c_size_t()
        place = c_uint64(address)
        status = uc_hook_add(
            self.machine.engine.handle, byref(handle), c_int(kind), callback, c_void_p(0), place, place
        )
        check(status, f"hook {kind:#x}")
        return handle

    def _parts(self, point: Watchpoint) -> list[tuple[int, int]]:
        """The watchpoint cut at page boundaries: (address, bytes)."""
        size = self.machine.system.page_size
        at, end = point.address, point.address + point.size
        parts = []
        while at < end:
            stop = min(end, (at // size + 1) * size)
            parts.append((at, stop - at))
            at = stop
        return parts

    def _resolve(self) -> None:
        """Where the watched bytes lie now. Called after every trap and before every run."""
        if not self._pieces:
            return
        task = self.machine.kernel.current
        mm = task.mm
        for piece in self._pieces:
            start = -1
            if mm is not None and piece.point.process in (None, task.tgid) and piece.point.task in (None, task):
                start = physical_address(mm, piece.address)
            if start != piece.start:
                piece.start = start
                piece.words[HOOK_BEGIN] = NOWHERE if start < 0 else max(start - WIDEST, 0)
                piece.words[HOOK_END] = NOWHERE if start < 0 else start + piece.size - 1


def physical_address(mm: MmStruct, address: int) -> int:
    """Where `address` lies in RAM; -1 when it is not present."""
    arch, words = mm.arch, mm.system.words
    index = pte_offset(mm, address)
    if index >= 0:
        entry = words[index]
        if not entry or not arch.pte_present(entry):
            return -1
        return (arch.pte_pfn(entry) << arch.page_shift) + (address & arch.page_size - 1)
    pmd = pmd_offset(mm, address)
    entry = words[pmd] if pmd >= 0 else 0
    if not entry:
        return -1
    span = arch.pmd_size - 1
    return (arch.pte_pfn(entry) << arch.page_shift & ~span) + (address & span)


def _check_address(address: int, size: int) -> None:
    if not 0 <= address <= (1 << 64) - size:
        raise PagewalkError(f"{address:#x} is no address")
