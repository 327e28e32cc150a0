"""What explaining a fault needs to know of arm64: the syndrome, how the MMU judges a descriptor, the registers.

Arm ARM, D5.3 (VMSAv8-64 descriptors) and D13.2 (ESR_EL1); Linux's arch/arm64/include/asm/esr.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.arch import Arch

ROOT_REGISTER = "TTBR0_EL1"  # holds the physical address of the root table
ADDRESS_REGISTER = "FAR_EL1"  # holds the address that faulted
CODE_NAME = "ESR_EL1"

VALID, TABLE_OR_PAGE, USER, RDONLY, AF = 1, 2, 1 << 6, 1 << 7, 1 << 10
UXN, UXN_TABLE = 1 << 54, 1 << 60
PROT_NONE = 1 << 58
EC_SHIFT, WNR, CM, S1PTW, FNV = 26, 1 << 6, 1 << 8, 1 << 7, 1 << 10
EC_NAMES = {
    0x20: "instruction abort from EL0 (user code)",
    0x21: "instruction abort from EL1 (the kernel)",
    0x24: "data abort from EL0 (user code)",
    0x25: "data abort from EL1 (the kernel)",
}
FSC_NAMES = {0: "address size fault", 1: "translation fault", 2: "access flag fault", 3: "permission fault"}

REGISTERS = {**{f"x{number}": number for number in range(31)}, "fp": 29, "lr": 30, "sp": 31, "pc": 32}
# Bits as emu/draw_arch_arm64.py names them.
BIT_WORDS = {
    "VALID": "present",
    "TABLE": "points to a table",
    "BLOCK": "maps a huge page",
    "USER": "user code may use it",
    "RDONLY": "may not be written",
    "AF": "was used",
    "nG": "of this process only",
    "ISH": "shared by the CPUs",
    "CONT": "part of a larger run",
    "PXN": "the kernel may not run it",
    "UXN": "user code may not run it",
    "WRITE": "may be made writable (Linux)",
    "DIRTY": "was written (Linux)",
    "SPECIAL": "no page of ours behind it",
    "PROTNONE": "PROT_NONE (Linux)",
}
STACK_POINTER, PROGRAM_COUNTER = "sp", "pc"
MAX_INSTRUCTION = 4  # bytes


def disassembler() -> Any:
    """A capstone engine with details."""
    from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs

    engine = Cs(CS_ARCH_ARM64, CS_MODE_ARM)
    engine.detail = True
    return engine


def register_number(name: str) -> int | None:
    """Index among `cpu.regs` of a register by the disassembler's name; None for xzr."""
    if name.startswith("w") and name[1:].isdigit():
        name = "x" + name[1:]
    return REGISTERS.get(name)


def memory_operands(instruction: Any) -> list[tuple[str, str, str, int, int]]:
    """(segment, base, index, scale, displacement) of each operand in memory; there are no segments."""
    from capstone.arm64 import ARM64_OP_MEM, ARM64_SFT_LSL

    found = []
    for operand in instruction.operands:
        if operand.type == ARM64_OP_MEM:
            memory = operand.mem
            base = instruction.reg_name(memory.base) if memory.base else ""
            index = instruction.reg_name(memory.index) if memory.index else ""
            shift = operand.shift.value if operand.shift.type == ARM64_SFT_LSL else 0
            found.append(("", base, index, 1 << shift, memory.disp))
    return found


def level_number(levels: int, level: int) -> str:
    """The architecture's number of a level: the last is always 3."""
    return f"level {4 - levels + level}"


def error_bits(code: int) -> list[tuple[str, str, str]]:
    """ESR_EL1 field by field: (name, value, what it says)."""
    kind = code >> EC_SHIFT & 0x3F
    status = code & 0x3F
    name = FSC_NAMES.get(status >> 2, "another cause")
    cause = f"{name}, level {status & 3}" if status >> 2 in FSC_NAMES else f"{name}"
    fields = [
        ("bits 31-26 EC", f"{kind:#04x}", EC_NAMES.get(kind, "another exception")),
        ("bit 25 IL", str(code >> 25 & 1), "the instruction has 32 bits" if code >> 25 & 1 else "16 bits"),
    ]
    if kind in (0x24, 0x25):
        fields += [
            (
                "bit 24 ISV",
                str(code >> 24 & 1),
                "bits 23-14 describe the load or store" if code >> 24 & 1 else "no more",
            ),
            ("bit 10 FnV", str(code >> 10 & 1), "FAR_EL1 is not valid" if code & FNV else "FAR_EL1 holds the address"),
            ("bit 8 CM", str(code >> 8 & 1), "cache maintenance" if code & CM else "no cache maintenance"),
            ("bit 7 S1PTW", str(code >> 7 & 1), "in a stage 2 walk" if code & S1PTW else "not in a stage 2 walk"),
            ("bit 6 WnR", str(code >> 6 & 1), "the access was a write" if code & WNR else "the access was a read"),
        ]
    return [*fields, ("bits 5-0 FSC", f"{status:#04x}", cause)]


def access_of(code: int) -> str:
    """read, write or exec, by the syndrome."""
    if code >> EC_SHIFT & 0x3F in (0x20, 0x21):
        return "exec"
    return "write" if code & (WNR | CM) == WNR else "read"


def untagged(address: int, code: int) -> int:
    """The address without the tag that data accesses ignore (TBI)."""
    if code >> EC_SHIFT & 0x3F in (0x24, 0x25):
        return address | 0xFF << 56 if address >> 55 & 1 else address & 0x00FFFFFFFFFFFFFF
    return address


def no_tables(arch: Arch, address: int) -> str:
    """Why the MMU walks no table at all for `address`; empty: it does."""
    if address >= arch.task_size:
        return "bits 63-48 are not all 0: such addresses are the kernel's (TTBR1_EL1), these tables are not walked"
    return ""


def stops_at(raw: int, leaf: bool, last: bool) -> str:
    """Why the walk ends at this descriptor with a fault, whatever the access; empty: it does not."""
    if not raw & VALID:
        if not raw:
            return "the descriptor is empty: VALID = 0"
        if leaf and raw & PROT_NONE:
            return "VALID = 0, and bit 58 is set: Linux's mark of PROT_NONE"
        return "VALID = 0"
    if leaf and not raw & AF:
        return "AF = 0: the page counts as unused, and the kernel wants to hear of its use"
    return ""


def refusal(entries: list[Any], access: str, user: bool) -> str:
    """Why the rights collected on a complete walk forbid the access; empty: they allow it."""
    leaf = entries[-1]
    if access == "exec":
        for entry in entries[:-1]:
            if entry.raw & UXN_TABLE:
                return f"UXNTable = 1 in the {entry.name} descriptor, and the access fetches an instruction"
        if leaf.raw & UXN:
            return f"UXN = 1 in the {leaf.name} descriptor, and the access fetches an instruction"
    elif not leaf.raw & USER and user:
        return f"USER = 0 in the {leaf.name} descriptor: user code may not touch it"
    if access == "write" and leaf.raw & RDONLY:
        return f"RDONLY = 1 in the {leaf.name} descriptor, and the access is a write"
    return ""


def expected_code(stopped: bool, entries: list[Any], access: str, user: bool, levels: int) -> int:
    """The fields of the syndrome that follow from a walk: the fault status code and WnR."""
    level = 4 - levels + max(len(entries) - 1, 0)
    last = entries[-1] if entries else None
    if not stopped:
        status = 0x0C | level
    elif last is not None and last.raw & VALID:
        status = 0x08 | level
    else:
        status = 0x04 | level
    return status | (WNR if access == "write" else 0)


CODE_MASK = 0x3F | WNR
