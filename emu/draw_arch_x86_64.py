"""Names of the bits of x86-64 page-table entries (Intel SDM, and Linux's use of the ignored ones)."""

from __future__ import annotations

TABLE_BITS = {
    1 << 0: "P",
    1 << 1: "RW",
    1 << 2: "US",
    1 << 3: "PWT",
    1 << 4: "PCD",
    1 << 5: "A",
    1 << 63: "NX",
}
LEAF_BITS = {
    1 << 0: "P",
    1 << 1: "RW",
    1 << 2: "US",
    1 << 3: "PWT",
    1 << 4: "PCD",
    1 << 5: "A",
    1 << 6: "D",
    1 << 7: "PAT",
    1 << 8: "G",
    1 << 9: "SPECIAL",
    1 << 10: "UFFD_WP",
    1 << 11: "SOFT_DIRTY",
    1 << 58: "DEVMAP",
    1 << 63: "NX",
}
HUGE_BITS = {**LEAF_BITS, 1 << 7: "PSE"}
FLIPS = {"present": 1, "write": 1 << 1, "user": 1 << 2, "accessed": 1 << 5, "dirty": 1 << 6, "nx": 1 << 63}  # --inject
BITS_HELP = (
    "P present  RW writable  US user  A accessed  D dirty  NX no execute  PSE huge page\n"
    "SOFT_DIRTY, SPECIAL: Linux's own, ignored by the MMU; without P, G means PROT_NONE"
)


def decode(entry: int, leaf: bool, huge: bool) -> list[str]:
    """Names of the bits set in an entry.

    Args:
        leaf: it maps memory rather than a table.
        huge: it does so above the last level.
    """
    names = [name for bit, name in (HUGE_BITS if huge else LEAF_BITS if leaf else TABLE_BITS).items() if entry & bit]
    if leaf and not entry & 1 and entry & 1 << 8:
        names[names.index("G")] = "PROTNONE"
    return names


def is_huge(entry: int, last_level: bool) -> bool:
    """Whether an entry above the last level maps memory itself."""
    return not last_level and bool(entry & 1 << 7)


ERROR_BITS = (
    (1, "P: the entry is present, and forbids it", "not P: there is no present entry"),
    (2, "W: a write", "not W: a read or a fetch"),
    (4, "U: in user mode", "not U: in kernel mode"),
    (16, "I: an instruction fetch", ""),
)


def quiz_error_code(code: int) -> tuple[str, str, list[int]]:
    """For the quiz: the question about a page fault's error code, its bits in words, and codes near it."""
    words = [yes if code & bit else no for bit, yes, no in ERROR_BITS]
    return "Which error code does the CPU push?", "; ".join(word for word in words if word), [4, 5, 6, 7, 0x14, 0x15]
