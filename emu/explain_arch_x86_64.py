"""What explaining a fault needs to know of x86-64: the error code, how the MMU judges an entry, the registers.

Intel SDM volume 3, 4.6 (access rights) and 4.7 (page-fault error code); Linux's arch/x86/include/asm/trap_pf.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.arch import Arch

ROOT_REGISTER = "CR3"  # holds the physical address of the root table
ADDRESS_REGISTER = "CR2"  # holds the address that faulted
CODE_NAME = "error code"

PRESENT, WRITABLE, USER, NO_EXECUTE = 1, 2, 4, 1 << 63
PROTNONE = 1 << 8
PF_PROT, PF_WRITE, PF_USER, PF_RSVD, PF_INSTR, PF_PK = 1, 2, 4, 8, 16, 32

REGISTER_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"),
)
REGISTERS = {name: number for number, name in enumerate(REGISTER_NAMES)}
# Bits as emu/draw_arch_x86_64.py names them.
BIT_WORDS = {
    "P": "present",
    "RW": "may be written",
    "US": "user code may use it",
    "A": "was used",
    "D": "was written",
    "PSE": "maps a huge page",
    "G": "kept over a change of CR3",
    "NX": "holds no code",
    "SPECIAL": "no page of ours behind it",
    "SOFT_DIRTY": "written since last asked (Linux)",
    "UFFD_WP": "a userfaultfd protects it",
    "PROTNONE": "PROT_NONE (Linux)",
}
STACK_POINTER, PROGRAM_COUNTER = "rsp", "rip"
MAX_INSTRUCTION = 15  # bytes


def disassembler() -> Any:
    """A capstone engine with details."""
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    engine = Cs(CS_ARCH_X86, CS_MODE_64)
    engine.detail = True
    return engine


def register_number(name: str) -> int | None:
    """Index among `cpu.regs` of a register by the disassembler's name, which may be a part of it (edi)."""
    if name in REGISTERS:
        return REGISTERS[name]
    if name.startswith("e") and "r" + name[1:] in REGISTERS:
        return REGISTERS["r" + name[1:]]
    return REGISTERS.get(name.rstrip("dwb"))


def memory_operands(instruction: Any) -> list[tuple[str, str, str, int, int]]:
    """(segment with a base, base, index, scale, displacement) of each operand in memory."""
    from capstone.x86 import X86_OP_MEM

    found = []
    for operand in instruction.operands:
        if operand.type == X86_OP_MEM:
            memory = operand.mem
            base = instruction.reg_name(memory.base) if memory.base else ""
            index = instruction.reg_name(memory.index) if memory.index else ""
            segment = instruction.reg_name(memory.segment) if memory.segment else ""
            segment = segment if segment in ("fs", "gs") else ""
            found.append((segment, base, index, memory.scale, memory.disp))
    return found


def level_number(levels: int, level: int) -> str:
    """How the manual calls a level; nothing here."""
    return ""


def error_bits(code: int) -> list[tuple[str, str, str]]:
    """The error code bit by bit: (name, value, what it says)."""
    return [
        (
            "bit 0 P",
            str(code & 1),
            "an entry was there, but forbids the access" if code & PF_PROT else "no entry: not present",
        ),
        ("bit 1 W/R", str(code >> 1 & 1), "the access was a write" if code & PF_WRITE else "the access was no write"),
        ("bit 2 U/S", str(code >> 2 & 1), "made by user code" if code & PF_USER else "made by the kernel"),
        (
            "bit 3 RSVD",
            str(code >> 3 & 1),
            "a reserved bit was set in an entry" if code & PF_RSVD else "no reserved bit",
        ),
        (
            "bit 4 I/D",
            str(code >> 4 & 1),
            "it fetched an instruction" if code & PF_INSTR else "it was no instruction fetch",
        ),
        (
            "bit 5 PK",
            str(code >> 5 & 1),
            "a protection key forbade it" if code & PF_PK else "no protection key involved",
        ),
    ]


def access_of(code: int) -> str:
    """read, write or exec, by the error code."""
    return "exec" if code & PF_INSTR else "write" if code & PF_WRITE else "read"


def untagged(address: int, code: int) -> int:
    """The address without bits the MMU ignores: there are none."""
    return address


def no_tables(arch: Arch, address: int) -> str:
    """Why the MMU walks no table at all for `address`; empty: it does."""
    return ""


def stops_at(raw: int, leaf: bool, last: bool) -> str:
    """Why the walk ends at this entry with a fault, whatever the access; empty: it does not."""
    if raw & PRESENT:
        return ""
    if not raw:
        return "the entry is empty: P = 0"
    if leaf and raw & PROTNONE:
        return "P = 0, and bit 8 is set: Linux's mark of PROT_NONE"
    return "P = 0"


def refusal(entries: list[Any], access: str, user: bool) -> str:
    """Why the rights collected on a complete walk forbid the access; empty: they allow it.

    RW and US must be set at every level, NX at none. The kernel may ignore US (no SMAP), but not RW (CR0.WP is set).
    """
    for entry in entries:
        if user and not entry.raw & USER:
            return f"US = 0 in the {entry.name} entry: user code may not touch it"
    for entry in entries:
        if access == "write" and not entry.raw & WRITABLE:
            return f"RW = 0 in the {entry.name} entry, and the access is a write"
    for entry in entries:
        if access == "exec" and entry.raw & NO_EXECUTE:
            return f"NX = 1 in the {entry.name} entry, and the access fetches an instruction"
    return ""


def expected_code(stopped: bool, entries: list[Any], access: str, user: bool, levels: int) -> int:
    """The bits of the error code that follow from a walk: P, W, U, I."""
    code = 0 if stopped else PF_PROT
    code |= PF_WRITE if access == "write" else PF_INSTR if access == "exec" else 0
    return code | (PF_USER if user else 0)


CODE_MASK = PF_PROT | PF_WRITE | PF_USER | PF_INSTR
