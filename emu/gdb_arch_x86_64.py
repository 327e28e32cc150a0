"""x86-64 for gdb: org.gnu.gdb.i386.core, .sse, .linux and .segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.gdb_arch import GdbArch, Register
from guest.ptrace_regs import NT_PRFPREG, NT_PRSTATUS

if TYPE_CHECKING:
    from guest.task import Task

# struct user_regs_struct
_ORDER = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_RAX, _ORIG_RAX, _MINUS_1 = 80, 120, b"\xff" * 8
_TYPES = {"rip": "code_ptr", "rsp": "data_ptr", "rbp": "data_ptr", "eflags": "i386_eflags"}
_FLAGS = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11),
    ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
)  # fmt: skip
_MXCSR = (
    ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8), ("ZM", 9),
    ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
)  # fmt: skip


def _flags(name: str, fields: tuple[tuple[str, int], ...]) -> str:
    inner = "".join(f'<field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in fields)
    return f'<flags id="{name}" size="4">{inner}</flags>'


def _general(name: str, bits: int = 64) -> Register:
    kind = _TYPES.get(name, "int64" if bits == 64 else "int32")
    return Register(name, bits, kind, NT_PRSTATUS, 8 * _ORDER.index(name), bits // 8)


def _fpu(name: str, offset: int, length: int) -> Register:
    return Register(name, 32, "int", NT_PRFPREG, offset, length)


_VECTOR = "".join(
    f'<vector id="{name}" type="{kind}" count="{count}"/>'
    for name, kind, count in (
        ("v4f", "ieee_single", 4), ("v2d", "ieee_double", 2), ("v16i8", "int8", 16), ("v8i16", "int16", 8),
        ("v4i32", "int32", 4), ("v2i64", "int64", 2),
    )
) + (
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
    '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>'
    '<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>'
)  # fmt: skip

_CORE = (
    *(_general(name) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")),
    *(_general(f"r{i}") for i in range(8, 16)),
    _general("rip"),
    *(_general(name, 32) for name in ("eflags", "cs", "ss", "ds", "es", "fs", "gs")),
    *(Register(f"st{i}", 80, "i387_ext", NT_PRFPREG, 32 + 16 * i, 10) for i in range(8)),
    _fpu("fctrl", 0, 2),
    _fpu("fstat", 2, 2),
    _fpu("ftag", 4, 1),
    *(Register(name, 32, "int", 0, 0, 0) for name in ("fiseg", "fioff", "foseg", "fooff")),
    _fpu("fop", 6, 2),
)
_SSE = (
    *(Register(f"xmm{i}", 128, "vec128", NT_PRFPREG, 160 + 16 * i, 16) for i in range(16)),
    Register("mxcsr", 32, "i386_mxcsr", NT_PRFPREG, 24, 4),
)


class X86Gdb(GdbArch):
    """x86-64."""

    name = "i386:x86-64"
    features = (
        ("org.gnu.gdb.i386.core", _flags("i386_eflags", _FLAGS), _CORE),
        ("org.gnu.gdb.i386.sse", _VECTOR + _flags("i386_mxcsr", _MXCSR), _SSE),
        ("org.gnu.gdb.i386.linux", "", (_general("orig_rax"),)),
        ("org.gnu.gdb.i386.segments", "", (_general("fs_base"), _general("gs_base"))),
    )
    pc, sp, fp = 16, 7, 6

    def convert(self, register: Register, data: bytes) -> bytes:
        """The tag word: FXSAVE keeps one bit a register, in use or not; gdb has two, 3 for empty."""
        if register.name != "ftag":
            return data
        return sum(3 << 2 * i for i in range(8) if not data[0] >> i & 1).to_bytes(2, "little")

    def patch(self, task: Task, images: dict[int, bytes]) -> None:
        """While a task sleeps in a call, our rax is the number and is used again; Linux shows it as orig_rax."""
        image = images[NT_PRSTATUS]
        if task.in_call and image[_ORIG_RAX : _ORIG_RAX + 8] == _MINUS_1:
            images[NT_PRSTATUS] = image[:_ORIG_RAX] + image[_RAX : _RAX + 8] + image[_ORIG_RAX + 8 :]


ARCH = X86Gdb()
