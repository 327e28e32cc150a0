"""Names of the bits of arm64 descriptors (Arm ARM, VMSAv8-64 stage 1, and Linux's use of the software ones)."""

from __future__ import annotations

LEAF_BITS = {
    1 << 0: "VALID",
    1 << 5: "NS",
    1 << 6: "USER",
    1 << 7: "RDONLY",
    1 << 10: "AF",
    1 << 11: "nG",
    1 << 50: "GP",
    1 << 51: "WRITE",
    1 << 52: "CONT",
    1 << 53: "PXN",
    1 << 54: "UXN",
    1 << 55: "DIRTY",
    1 << 56: "SPECIAL",
    1 << 57: "DEVMAP",
    1 << 58: "PROTNONE",
}
TABLE_BITS = {1 << 0: "VALID", 1 << 1: "TABLE", 1 << 59: "PXNTable", 1 << 60: "UXNTable"}
FLIPS = {
    "present": 1, "write": 1 << 51, "user": 1 << 6, "accessed": 1 << 10, "dirty": 1 << 55, "nx": 1 << 54
}  # fmt: skip # --inject
SHAREABILITY = {0: "", 1: "SH?", 2: "OSH", 3: "ISH"}
BITS_HELP = (
    "VALID present  USER el0 may access  RDONLY not writable (yet)  AF accessed  nG per process  ISH inner shareable\n"
    "PXN/UXN not executable in el1/el0  WRITE (DBM), DIRTY, SPECIAL, PROTNONE: Linux's own"
)


def decode(entry: int, leaf: bool, huge: bool) -> list[str]:
    """Names of the bits set in a descriptor.

    Args:
        leaf: it maps memory rather than a table.
        huge: it is a block, above the last level.
    """
    if not leaf:
        return [name for bit, name in TABLE_BITS.items() if entry & bit]
    names = [name for bit, name in LEAF_BITS.items() if entry & bit]
    names.insert(1, "BLOCK" if huge else "PAGE")
    attribute = entry >> 2 & 7
    if attribute:
        names.append(f"ATTR{attribute}")
    share = SHAREABILITY[entry >> 8 & 3]
    if share:
        names.append(share)
    return names


def is_huge(entry: int, last_level: bool) -> bool:
    """Whether a descriptor above the last level is a block."""
    return not last_level and entry & 3 == 1


ESR_EC = {0x20: "instruction abort from EL0", 0x24: "data abort from EL0"}
ESR_FAULTS = {1: "translation fault", 2: "access flag fault", 3: "permission fault"}


def quiz_error_code(code: int) -> tuple[str, str, list[int]]:
    """For the quiz: the question about an abort's ESR_EL1, its fields in words, and values near it."""
    kind, level = code >> 2 & 0xF, code & 3
    words = [f"EC (bits 26-31) {code >> 26:#x}, {ESR_EC.get(code >> 26, 'other')}"]
    words.append(f"fault status (bits 0-5) {code & 0x3F:#x}, {ESR_FAULTS.get(kind, 'other')} at level {level}")
    if code >> 26 & ~1 == 0x24:
        words.append(f"WnR (bit 6) {code >> 6 & 1}, a {'write' if code >> 6 & 1 else 'read'}")
    near = [code ^ 1 << 6, code ^ 1 << 28]
    near += [code & ~0x3C | other << 2 for other in ESR_FAULTS]
    near += [code & ~3 | other for other in range(4)]
    return "What is in ESR_EL1? (The last level of the tables is level 3.)", "; ".join(words), near
