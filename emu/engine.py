"""One emulated CPU: a Unicorn engine over the machine's RAM, with its MMU on and user code running in it.

    guest code --trap--> Unicorn --hook--> Engine: context bytes --> Kernel.system_call / page_fault / exception
         ^                                                                        |
         +------ context restored, TLB and code cache told <---- registers, page tables changed

What the kernel reads and writes as registers are the bytes of one saved context (UcContext): one save at the start of a
trap, one restore at its end. Where in those bytes a register lies is a property of the library's build, so it is found
when the engine is created, with markers, and anything unexpected is an `EngineError`: no offset is assumed.

Rules:
- While `uc_emu_start` runs, the CPU's own state is the truth, but during a hook, and whenever the engine stands still,
  the context bytes are.
- Traps are served inside the hook. The engine is left (`leave`) only when the task must give up the CPU.
- At most one TLB flush per trap; none when only absent entries became present.
- An exception in a hook stops the run and is raised from `run()`.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_int, c_size_t, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from emu.errors import EngineError, PagewalkError
from emu.uclib import (
    CTL_CPU_MODEL,
    CTL_TB_REMOVE_CACHE,
    CTL_TLB_FLUSH,
    CTL_USE_EXITS,
    UC_PROT_ALL,
    check,
    uc_close,
    uc_context_alloc,
    uc_context_free,
    uc_context_reg_read,
    uc_context_reg_write,
    uc_context_restore,
    uc_context_save,
    uc_context_size,
    uc_ctl,
    uc_emu_start,
    uc_emu_stop,
    uc_hook_add,
    uc_hook_del,
    uc_mem_map_ptr,
    uc_open,
    uc_reg_write,
)
from mm.flags import PG_RESERVED
from mm.page_alloc import alloc_page
from mm.pgtable import pte_offset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from emu.counter import Counter
    from guest.kernel import Kernel
    from mm.system import System
    from mm.types import MmStruct

BOOT_FAULT = 0x5A5A_5A5A_0000  # a user address in no table: where the boot ends
CONTEXT_HEAD = 40  # bytes: the least a context can hold before the CPU's state starts


class Engine:
    """A booted CPU that waits in user mode for a task. Implements `guest.hw.Cpu`.

    Args:
        system: the machine's memory; a few of its frames become the boot code and its page tables.
        model: name of the CPU model, one of `MODELS`; None: the one the oracle has.

    Raises:
        PagewalkError: unknown model, or RAM too small to boot.
        EngineError: Unicorn failed, or its saved contexts do not look as they should.
    """

    UC = (0, 0)  # architecture and mode of uc_open
    MODELS: dict[str, int] = {}  # noqa: RUF012 - constant
    DEFAULT_MODEL = ""
    PC = 0  # index of the program counter in `regs`
    platform = ""  # AT_PLATFORM
    hwcap = 0  # AT_HWCAP: what the model executes
    hwcap2 = 0
    LOSES_PC = False  # stopped from outside while it runs uncounted, it does not know where it was

    def __init__(self, system: System, model: str | None = None) -> None:
        self.system = system
        self.model = model or self.DEFAULT_MODEL
        if self.model not in self.MODELS:
            known = ", ".join(self.MODELS)
            raise PagewalkError(f"unknown CPU model '{self.model}' for {system.arch.name}; known: {known}")
        self.handle = c_void_p()
        self.context = c_void_p()
        self._hooks: list[tuple[Any, c_size_t]] = []
        self._failure: BaseException | None = None
        self.left = False  # a hook asked to leave: the context bytes are current
        self._flush = False
        self._counter: Counter | None = None  # made by the first run that counts
        self._counted = False  # whether the last run was, or the present one is
        self.after_trap: Callable[[], None] | None = None  # called behind every trap; takes effect with attach()
        self._open()
        self._boot()

    # ---- construction

    def _open(self) -> None:
        """Create the engine and map RAM at physical address 0."""
        arch, mode = self.UC
        ram = self.system.ram
        self._ram = c_char.from_buffer(ram)  # keeps RAM alive and in place
        check(uc_open(c_int(arch), c_int(mode), byref(self.handle)), "uc_open")
        check(uc_ctl(self.handle, CTL_CPU_MODEL, c_int(self.MODELS[self.model])), f"CPU model {self.model}")
        check(uc_mem_map_ptr(self.handle, 0, len(ram), UC_PROT_ALL, ctypes.addressof(self._ram)), "mapping RAM")
        check(uc_ctl(self.handle, CTL_USE_EXITS, c_int(1)), "exits")  # no address ends a run, not even 0
        check(uc_context_alloc(self.handle, byref(self.context)), "uc_context_alloc")
        size = uc_context_size(self.handle)
        address = self.context.value
        if not address or size < 1024:
            raise EngineError(f"Unicorn: a saved context of {size} bytes cannot hold a CPU")
        self._bytes = memoryview((c_char * size).from_address(address)).cast("B")
        self._words = self._bytes[: size & ~7].cast("Q")
        self._halves = self._bytes[: size & ~3].cast("I")

    def _boot(self) -> None:
        """Calibrate, enter user mode, remember the registers of a fresh program."""
        raise NotImplementedError

    def _frame(self) -> int:
        """A zeroed frame of RAM for the boot code (pfn)."""
        page = alloc_page(self.system, True)
        if page is None:
            raise PagewalkError("RAM is too small to boot the CPU")
        page.flags |= PG_RESERVED
        return page.pfn

    def _write_register(self, register: int, value: int) -> None:
        check(uc_reg_write(self.handle, c_int(register), byref(c_uint64(value))), f"writing register {register}")

    def _context_read(self, register: int) -> int:
        """A register of at most 64 bits out of the context bytes."""
        value = c_uint64(0)
        check(uc_context_reg_read(self.context, c_int(register), byref(value)), f"reading register {register}")
        return value.value

    def _context_write(self, register: int, value: int) -> None:
        check(uc_context_reg_write(self.context, c_int(register), byref(c_uint64(value))), f"register {register}")

    def _add_hook(self, kind: int, callback: Any, *extra: Any) -> None:
        handle = c_size_t()
        if self.after_trap is not None:
            callback = _followed(callback, self.after_trap)
        status = uc_hook_add(
            self.handle, byref(handle), c_int(kind), callback, c_void_p(0), c_uint64(1), c_uint64(0), *extra
        )
        check(status, f"hook {kind:#x}")
        self._hooks.append((callback, handle))

    def _remove_hooks(self) -> None:
        for _, handle in self._hooks:
            check(uc_hook_del(self.handle, handle), "uc_hook_del")
        self._hooks.clear()

    # ---- calibration

    def _save(self) -> None:
        check(uc_context_save(self.handle, self.context), "uc_context_save")

    def _find_words(self, values: Sequence[int], what: str) -> int:
        """Index of the word where `values` lie side by side in the context, which must hold them exactly once."""
        pattern = b"".join(value.to_bytes(8, "little") for value in values)
        data = bytes(self._bytes)
        at = data.find(pattern, CONTEXT_HEAD)
        if at < 0:
            raise EngineError(f"Unicorn: {what} not found in a saved context; this needs the wheel unicorn==2.1.4")
        if at & 7 or data.find(pattern, at + 1) >= 0:
            raise EngineError(f"Unicorn: {what} ambiguous in a saved context; this needs the wheel unicorn==2.1.4")
        return at >> 3

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise EngineError(f"Unicorn: {what} is not where it should be in a saved context; needs unicorn==2.1.4")

    def _run_boot(self, address: int) -> None:
        """Run the stub under the boot's hook."""
        check(uc_emu_start(self.handle, address, 0, 0, 0), "booting")
        self._remove_hooks()
        if self._failure is not None:
            raise self._failure

    # ---- running

    def attach(self, kernel: Kernel) -> None:
        """Serve traps with `kernel` from now on."""
        self._remove_hooks()
        self.kernel = kernel
        self._install(kernel)

    def _install(self, kernel: Kernel) -> None:
        """Add the architecture's hooks."""
        raise NotImplementedError

    def run(self, count: int = 0, exact: bool = True) -> None:
        """Run user code from the registers as they are until a hook leaves, `stop` is called or an exception comes.

        Args:
            count: stop after so many instructions; 0: no limit.
            exact: count every instruction, which is slow; else blocks of them, see emu/counter.py.
        """
        limit = self._arm(count, exact) if count else 0
        self._counted = limit > 0
        self.left = False
        handle = self.handle
        self._prepare()
        uc_context_restore(handle, self.context)
        if self._flush:
            self._flush = False
            self._flush_tlb()
        mm = self.kernel.current.mm
        if mm is not None and (mm.tlb_flush_pending or mm.icache_pending):
            self.sync_mm(mm)
        status = uc_emu_start(handle, self.regs[self.PC], 0, 0, limit)
        if not self.left:
            uc_context_save(handle, self.context)
            self._settle()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        check(status, f"running at {self.regs[self.PC]:#x}")

    def _arm(self, count: int, exact: bool) -> int:
        """Make the next run stop; the limit in what is counted."""
        if self._counter is None:
            from emu.counter import Counter

            self.left = True  # hooks stop at once
            self._counter = Counter(self.handle, BOOT_FAULT)
        return self._counter.arm(count, exact)

    def _prepare(self) -> None:
        """Before a run."""

    def _settle(self) -> None:
        """After a run that was stopped between two instructions, not by a trap."""

    def stop(self) -> None:
        """Make `run` return soon. From any thread; has no effect on an engine that is not running.

        A run that is counted can go on exactly where it was. After any other, stopped from outside, the program counter
        may be that of an earlier block.
        """
        if self._counted and self._counter is not None:
            self._counter.stop()
            self.kernel.need_resched = True  # who only faults executes nothing that is counted: leave at the next trap
        else:
            uc_emu_stop(self.handle)

    def _fail(self, error: BaseException) -> None:
        """An exception ended a hook: stop, and let `run` raise it."""
        if self._failure is None:
            self._failure = error
        self.left = True
        uc_emu_stop(self.handle)

    def executed(self, count: int) -> int:
        """Instructions the last `run(count)` executed; `count` was not 0. An estimate when it was not exact."""
        return 0 if self._counter is None else self._counter.executed(count)

    # ---- memory management unit

    def set_root(self, pfn: int) -> None:
        """Use the page tables rooted in frame `pfn` from the next `run` on."""
        raise NotImplementedError

    def flush_tlb(self) -> None:
        """Forget every translation, before user code runs again."""
        self._flush = True

    def sync_mm(self, mm: MmStruct) -> None:
        """Do at once what `mm` asks of the MMU: the flush of this trap, then the pages that became code."""
        if mm.tlb_flush_pending:
            mm.tlb_flush_pending = False
            self._flush_tlb()
        if mm.icache_pending:
            self._sync_icache(mm)

    def _flush_tlb(self) -> None:
        """Make the MMU forget its translations, and say so."""
        uc_ctl(self.handle, CTL_TLB_FLUSH)
        system = self.system
        if system.listener is not None:
            from mm.events import TlbFlush

            system.listener(TlbFlush(self.kernel.current.pid))

    def _sync_icache(self, mm: MmStruct) -> None:
        """Drop translated code of pages whose bytes the host has written (arm64's __sync_icache_dcache).

        A page that is not mapped for execution any more must not be named to Unicorn: it would leave a fault behind.
        Unicorn translates the address as a fetch would, which marks the entry accessed; the program has not, so the
        entry is put back, and the MMU must look at it again.
        """
        size = mm.arch.page_size
        words = mm.system.words
        for address in mm.icache_pending:
            if self._fetchable(mm, address):
                index = pte_offset(mm, address)
                entry = words[index] if index >= 0 else 0
                uc_ctl(self.handle, CTL_TB_REMOVE_CACHE, c_uint64(address), c_uint64(address + size))
                if index >= 0 and words[index] != entry:
                    words[index] = entry
                    uc_ctl(self.handle, CTL_TLB_FLUSH)
        mm.icache_pending.clear()

    def _fetchable(self, mm: MmStruct, address: int) -> bool:
        """Whether user code can fetch there."""
        arch = mm.arch
        return self._walk(mm, address) & (arch.PTE_EXEC_MASK | 1) == arch.PTE_EXEC_VALUE | 1

    def _walk(self, mm: MmStruct, address: int) -> int:
        """The leaf entry of `address`; 0 where a table or the page is absent."""
        arch = mm.arch
        words = mm.system.words
        table = mm.pgd << arch.table_word_shift
        entry = 0
        for shift in arch.level_shifts:
            entry = words[table + (address >> shift & arch.index_mask)]
            if not entry & 1:
                return 0
            table = (entry & arch.PTE_PFN_MASK) >> 3
        return entry

    def _physical(self, mm: MmStruct | None, address: int) -> int:
        """Where `address` lies in RAM; -1 when it is absent."""
        entry = self._walk(mm, address) if mm is not None else 0
        if mm is None or not entry:
            return -1
        return entry & mm.arch.PTE_PFN_MASK | address & mm.arch.page_size - 1

    # ---- Cpu: state of a task

    kernel: Kernel  # who serves the traps
    regs: Any  # memoryview of 64-bit words
    _state: memoryview[int]  # the part of the context that belongs to a task
    _fresh = b""  # _state as execve leaves it

    def save_state(self) -> bytes:
        return bytes(self._state)

    def load_state(self, state: bytes) -> None:
        if len(state) != len(self._state):
            raise EngineError(f"a task state of {len(state)} bytes is not one of this CPU ({len(self._state)})")
        root = self._get_root()
        self._state[:] = state
        self._put_root(root)

    def reset_state(self) -> None:
        self.load_state(self._fresh)

    def _get_root(self) -> int:
        raise NotImplementedError

    def _put_root(self, value: int) -> None:
        raise NotImplementedError

    def get_flags(self) -> int:
        raise NotImplementedError

    def set_flags(self, value: int) -> None:
        raise NotImplementedError

    def get_tls(self) -> int:
        raise NotImplementedError

    def set_tls(self, value: int) -> None:
        raise NotImplementedError

    def get_fpu(self) -> bytes:
        raise NotImplementedError

    def set_fpu(self, image: bytes) -> None:
        raise NotImplementedError

    def get_gs(self) -> int:
        return 0

    def set_gs(self, value: int) -> None:
        """Only x86-64 has one."""

    # ---- the end

    def close(self) -> None:
        """Free the engine. The object cannot be used afterwards; closing twice is allowed."""
        handle, self.handle = getattr(self, "handle", None), c_void_p()
        if not handle:
            return
        context, self.context = self.context, c_void_p()
        for name in ("_bytes", "_words", "_halves", "regs", "_state"):  # views of memory that is freed now
            if hasattr(self, name):
                delattr(self, name)
        self._counter = None
        if context:
            uc_context_free(context)
        uc_close(handle)
        self._hooks.clear()

    def __del__(self) -> None:
        self.close()


def _followed(callback: Any, then: Callable[[], None]) -> Any:
    """`callback`, a C function of ours, and `then` behind it."""

    def both(*arguments: Any) -> Any:
        result = callback(*arguments)
        then()
        return result

    return type(callback)(both)


def guarded(engine: Engine, serve: Callable[..., Any]) -> Callable[..., Any]:
    """`serve` as a hook: what it raises stops the engine and is raised from `run`."""

    def hook(*arguments: Any) -> Any:
        try:
            return serve(*arguments)
        except BaseException as e:  # noqa: BLE001 - it must cross C code
            engine._fail(e)
        return 0

    return hook
