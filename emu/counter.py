"""Making the engine stop after so much work: Unicorn's own counter, set to count instructions or blocks.

`uc_emu_start(count=N)` puts a hook before every instruction, and before that x86-64 works out all of EFLAGS: thirty
times slower than free running, arm64 eight times. A hook before every *block* (straight-line code up to a branch) costs
a call of a few machine instructions for some five of the guest's. Unicorn has no such count, but everything it takes:

    the hook's callback, which adds one to `emu_counter` and stops beyond `emu_count`, can be seen in the hook that a
    counted run leaves behind;
    uc_emu_start adds its hook only while `count_hook` is 0: with a block hook of that callback there, it counts blocks,
    and takes the hook away, with the code made for it, when the next run is not counted.

Where blocks begin depends on the program and its traps alone, so the same run stops at the same places.

Code translated before there was a hook does not call it, and is thrown away first: or a loop would never be stopped.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_int, c_size_t, c_uint64, c_void_p

from emu.errors import EngineError
from emu.uclib import CTL_TB_FLUSH, UC_HOOK_BLOCK, UC_HOOK_CODE, check, uc_ctl, uc_emu_start, uc_hook_add, uc_hook_del

COUNT_MARKER = 0x5EED5EED  # a limit of instructions nobody asks for
BLOCK_INSTRUCTIONS = 5  # a block is taken to have so many, as compiled code does on average
HOOK_BEGIN, HOOK_END, HOOK_CALLBACK, HOOK_WORDS = 3, 4, 5, 7  # words of Unicorn's struct hook


class Counter:
    """The counter of one engine.

    Args:
        handle: the engine's.
        address: where a run ends before its first instruction; hooks must do nothing.

    Raises:
        EngineError: the counter was not found.
    """

    def __init__(self, handle: c_void_p, address: int) -> None:
        self._handle = handle
        check(uc_emu_start(handle, address, 0, 0, COUNT_MARKER), "a counted run")
        size = ctypes.PyDLL(None).malloc_usable_size
        size.restype, size.argtypes = c_size_t, [c_void_p]
        words = memoryview((c_char * (size(handle) & ~7)).from_address(handle.value or 0)).cast("B").cast("Q")
        limit = bytes(words).find(COUNT_MARKER.to_bytes(8, "little")) // 8
        self._expect(limit >= 2 and words[limit - 1] <= 1)
        self._words = words
        self._at = limit - 1  # emu_counter; before it count_hook, behind it emu_count
        self._hook = limit - 2
        self._expect(words[self._hook] != 0)
        hook = memoryview((c_char * (8 * HOOK_WORDS)).from_address(words[self._hook])).cast("B").cast("Q")
        self._expect((hook[0] & 0xFFFFFFFF, hook[HOOK_BEGIN], hook[HOOK_END]) == (UC_HOOK_CODE, 1, 0))
        self._callback = c_void_p(hook[HOOK_CALLBACK])
        self._unhook()
        self._exact = True
        self._stopped = -1  # what was counted when stop() came; -1: it did not
        self.limit = COUNT_MARKER

    def _expect(self, holds: bool) -> None:
        if not holds:
            raise EngineError("Unicorn: its instruction counter was not found; this needs the wheel unicorn==2.1.4")

    def arm(self, count: int, exact: bool) -> int:
        """Get ready to run `count` instructions, or the blocks of about so many; what to tell uc_emu_start."""
        if not self._words[self._hook] or exact != self._exact:
            self._unhook()
            uc_ctl(self._handle, CTL_TB_FLUSH)
            if not exact:
                self._hook_blocks()
            self._exact = exact
        self._stopped = -1
        self.limit = count if exact else max(count // BLOCK_INSTRUCTIONS, 1)
        return self.limit

    def stop(self) -> None:
        """End the run before the next instruction (or block) that is counted; from a hook or another thread.

        uc_emu_stop would do so at once, but with a program counter that is not the CPU's: it is written where something
        is counted, and uc_emu_stop takes effect before that.
        """
        if self._stopped < 0:
            self._stopped = int(self._words[self._at])
        self._words[self._at] = self.limit

    def _unhook(self) -> None:
        """Take away the hook of the last counted run, where Unicorn has not done so itself."""
        if self._words[self._hook]:
            check(uc_hook_del(self._handle, c_size_t(self._words[self._hook])), "uc_hook_del")
            self._words[self._hook] = 0

    def _hook_blocks(self) -> None:
        """A hook before every block, where Unicorn looks for its own."""
        hook = c_size_t()
        kind, everywhere = c_int(UC_HOOK_BLOCK), (c_uint64(1), c_uint64(0))
        check(uc_hook_add(self._handle, byref(hook), kind, self._callback, c_void_p(0), *everywhere), "block hook")
        self._words[self._hook] = hook.value

    def executed(self, count: int) -> int:
        """Instructions of the last run, which was armed with `count`; by blocks, an estimate."""
        done = int(self._words[self._at]) if self._stopped < 0 else self._stopped
        if done >= self.limit:
            return count
        return done if self._exact else min(done * BLOCK_INSTRUCTIONS, count)
