"""arm64 for gdb: org.gnu.gdb.aarch64.core, .fpu and .tls."""

from __future__ import annotations

from emu.gdb_arch import GdbArch, Register
from guest.arch_arm64_ptrace import NT_ARM_TLS
from guest.ptrace_regs import NT_PRFPREG, NT_PRSTATUS

_CPSR = (("SP", 0, 0), ("EL", 2, 3), ("SS", 21, 21), ("V", 28, 28), ("C", 29, 29), ("Z", 30, 30), ("N", 31, 31))
_CORE_TYPES = (
    '<flags id="cpsr_flags" size="4">'
    + "".join(f'<field name="{name}" start="{start}" end="{end}"/>' for name, start, end in _CPSR)
    + "</flags>"
)
_SHAPES = (
    ("d", "u", "ieee_double", "uint64", "int64", 2),
    ("s", "u", "ieee_single", "uint32", "int32", 4),
    ("h", "u", "ieee_half", "uint16", "int16", 8),
)
_FPU_TYPES = (
    "".join(
        f'<vector id="v{n}{f}" type="{real}" count="{n}"/><vector id="v{n}u{f}" type="{unsigned}" count="{n}"/>'
        f'<vector id="v{n}s{f}" type="{signed}" count="{n}"/>'
        f'<union id="vn{f}"><field name="f" type="v{n}{f}"/><field name="u" type="v{n}u{f}"/>'
        f'<field name="s" type="v{n}s{f}"/></union>'
        for f, _, real, unsigned, signed, n in _SHAPES
    )
    + '<vector id="v16u" type="uint8" count="16"/><vector id="v16s" type="int8" count="16"/>'
    '<union id="vnb"><field name="u" type="v16u"/><field name="s" type="v16s"/></union>'
    '<vector id="v1u" type="uint128" count="1"/><vector id="v1s" type="int128" count="1"/>'
    '<union id="vnq"><field name="u" type="v1u"/><field name="s" type="v1s"/></union>'
    '<union id="aarch64v"><field name="d" type="vnd"/><field name="s" type="vns"/><field name="h" type="vnh"/>'
    '<field name="b" type="vnb"/><field name="q" type="vnq"/></union>'
)

_CORE = (
    *(Register(f"x{i}", 64, "int", NT_PRSTATUS, 8 * i, 8) for i in range(31)),
    Register("sp", 64, "data_ptr", NT_PRSTATUS, 248, 8),
    Register("pc", 64, "code_ptr", NT_PRSTATUS, 256, 8),
    Register("cpsr", 32, "cpsr_flags", NT_PRSTATUS, 264, 4),
)
_FPU = (
    *(Register(f"v{i}", 128, "aarch64v", NT_PRFPREG, 16 * i, 16) for i in range(32)),
    Register("fpsr", 32, "int", NT_PRFPREG, 512, 4),
    Register("fpcr", 32, "int", NT_PRFPREG, 516, 4),
)


class Arm64Gdb(GdbArch):
    """arm64."""

    name = "aarch64"
    features = (
        ("org.gnu.gdb.aarch64.core", _CORE_TYPES, _CORE),
        ("org.gnu.gdb.aarch64.fpu", _FPU_TYPES, _FPU),
        ("org.gnu.gdb.aarch64.tls", "", (Register("tpidr", 64, "data_ptr", NT_ARM_TLS, 0, 8),)),
    )
    pc, sp, fp = 32, 31, 29
    watch_before = True


ARCH = Arm64Gdb()
