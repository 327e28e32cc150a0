"""Unicorn's C library by itself, without its Python binding.

Importing the binding costs as long as a whole `hello` takes here, and each of its calls several times what the C
function does. So this module loads the shared library the wheel brings and names the dozen functions the engine needs.

Functions come in two kinds: `PyDLL` ones keep the interpreter lock (short, and they never call back), `uc_emu_start`
releases it, so that other threads run while the guest does. Arguments are passed as ctypes objects made once.
"""

from __future__ import annotations

import ctypes
import os
import sys

from emu.errors import EngineError

UC_ARCH_ARM64 = 2
UC_ARCH_X86 = 4
UC_MODE_ARM = 0
UC_MODE_64 = 8
UC_PROT_ALL = 7
UC_ERR_OK = 0

UC_HOOK_INTR = 1
UC_HOOK_INSN = 2
UC_HOOK_CODE = 1 << 2
UC_HOOK_BLOCK = 1 << 3
UC_HOOK_MEM_READ = 1 << 10
UC_HOOK_MEM_WRITE = 1 << 11
UC_HOOK_INSN_INVALID = 1 << 14

# uc_ctl: type | number of arguments << 26 | direction << 30 (write)
CTL_USE_EXITS = 4 | 1 << 26 | 1 << 30
CTL_CPU_MODEL = 7 | 1 << 26 | 1 << 30
CTL_TB_REMOVE_CACHE = 9 | 2 << 26 | 1 << 30
CTL_TB_FLUSH = 10 | 1 << 30
CTL_TLB_FLUSH = 11 | 1 << 30

HOOK_INTR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)  # engine, exception number
HOOK_PLAIN = ctypes.CFUNCTYPE(None)  # SYSCALL: its arguments (engine, user data) are not looked at
HOOK_INVALID = ctypes.CFUNCTYPE(ctypes.c_bool)  # True: the exception was served
HOOK_IN = ctypes.CFUNCTYPE(ctypes.c_uint32)


def _find() -> str:
    """Path of the shared library: LIBUNICORN_PATH (as the binding has it), or the wheel on sys.path."""
    name = "libunicorn.2.dylib" if sys.platform == "darwin" else "libunicorn.so.2"
    folders = [os.environ.get("LIBUNICORN_PATH", "")] + [os.path.join(entry, "unicorn", "lib") for entry in sys.path]
    for folder in folders:
        path = os.path.join(folder, name)
        if folder and os.path.exists(path):
            return path
    return name  # wherever the system's loader finds one


def _load() -> tuple[ctypes.PyDLL, ctypes.CDLL]:
    path = _find()
    try:
        quick = ctypes.PyDLL(path)
    except OSError as e:
        raise EngineError(f"cannot load Unicorn ({e}); install it with: pip install unicorn==2.1.4") from None
    return quick, ctypes.CDLL(path, handle=quick._handle)


_quick, _released = _load()

uc_version = _quick.uc_version
uc_open = _quick.uc_open
uc_close = _quick.uc_close
uc_strerror = _quick.uc_strerror
uc_strerror.restype = ctypes.c_char_p
uc_ctl = _quick.uc_ctl
uc_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]  # the rest varies
uc_mem_map_ptr = _quick.uc_mem_map_ptr
uc_mem_map_ptr.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]
uc_reg_read = _quick.uc_reg_read
uc_reg_write = _quick.uc_reg_write
uc_context_size = _quick.uc_context_size
uc_context_size.restype = ctypes.c_size_t
uc_context_alloc = _quick.uc_context_alloc
uc_context_free = _quick.uc_context_free
uc_context_save = _quick.uc_context_save
uc_context_restore = _quick.uc_context_restore
uc_context_reg_read = _quick.uc_context_reg_read
uc_context_reg_write = _quick.uc_context_reg_write
uc_hook_add = _quick.uc_hook_add
uc_hook_del = _quick.uc_hook_del
uc_emu_stop = _quick.uc_emu_stop
uc_emu_start = _released.uc_emu_start
uc_emu_start.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t]


def check(status: int, what: str) -> None:
    """Raise EngineError when a call of the library returned an error."""
    if status != UC_ERR_OK:
        text = uc_strerror(status)
        raise EngineError(f"Unicorn: {what} failed: {text.decode() if text else status}")
