"""The MMU's walk told level by level, as it was when the fault happened: each table, index, entry, and where it ends.

Everything is read from guest RAM, entry by entry as the hardware does, without touching anything.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emu.draw_pagetables import Entry, decoder_of

if TYPE_CHECKING:
    from mm.types import MmStruct

RULES = {"x86_64": "emu.explain_arch_x86_64", "aarch64": "emu.explain_arch_arm64"}


def rules_of(name: str) -> Any:
    """The module that knows an architecture's faults."""
    return import_module(RULES[name])


class HardwareWalk:
    """One walk.

    Attributes:
        root: physical address of the root table.
        entries: what was read, root first, the one that ended the walk included (an `Entry` with raw 0 is empty).
        complete: the last entry maps memory.
        stop: why there is a fault, in words; empty when the tables allow the access.
        physical: where the address lies in RAM, where the walk is complete.
    """

    def __init__(self, mm: MmStruct, address: int, access: str, user: bool) -> None:
        arch = mm.arch
        rules = rules_of(arch.name)
        self.address = address
        self.access = access
        self.user = user
        self.root = mm.pgd << arch.page_shift
        self.levels = len(arch.level_shifts)
        self.table_size = arch.page_size
        self.entries: list[Entry] = []
        self.complete = False
        self.physical: int | None = None
        self.stop: str = rules.no_tables(arch, address)
        self.stopped = bool(self.stop)  # by an entry that is not there, not by missing rights
        if not self.stop:
            self._walk(mm, rules)

    def _walk(self, mm: MmStruct, rules: Any) -> None:
        arch = mm.arch
        decoder = decoder_of(arch.name)
        words = mm.system.words
        table = mm.pgd
        for level, shift in enumerate(arch.level_shifts):
            last = level == self.levels - 1
            index = self.address >> shift & arch.index_mask
            word = (table << arch.table_word_shift) + index
            raw = words[word]
            huge = bool(raw) and decoder.is_huge(raw, last)
            leaf = last or huge
            present = arch.pte_present(raw) if leaf else raw
            pfn = (arch.pte_pfn(raw) if leaf else (raw & arch.PTE_PFN_MASK) >> arch.page_shift) if present else 0
            bits = decoder.decode(raw, leaf, huge) if raw else []
            base = self.address >> shift << shift
            self.entries.append(Entry(level, arch.level_names[level], index, word * 8, raw, leaf, base, pfn, bits))
            self.stop = rules.stops_at(raw, leaf, last)
            if self.stop:
                self.stopped = True
                return
            if leaf:
                self.complete = True
                offset = self.address & ((1 << shift) - 1)
                self.physical = (pfn << arch.page_shift) + offset
                self.stop = rules.refusal(self.entries, self.access, self.user)
                return
            if pfn >= len(mm.system.mem_map):  # nothing the guest can do; a broken table is told, not followed
                self.stop, self.stopped = "the entry points outside RAM", True
                return
            table = pfn

    @property
    def leaf(self) -> Entry | None:
        """The entry that maps memory or would, if the walk got that far."""
        return self.entries[-1] if self.entries and self.entries[-1].leaf else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "root": self.root,
            "entries": [
                {
                    "level": entry.name,
                    "table": entry.where - entry.index * 8,
                    "index": entry.index,
                    "entry_at": entry.where,
                    "raw": entry.raw,
                    "bits": entry.bits,
                    "leaf": entry.leaf,
                    "points_to": entry.pfn * self.table_size if entry.raw else None,
                }
                for entry in self.entries
            ],
            "complete": self.complete,
            "physical": self.physical,
            "stop": self.stop,
        }
