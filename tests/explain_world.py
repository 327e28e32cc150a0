"""A second opinion on explanations: walks RAM and searches areas by itself, at the moment each fault happens."""

from __future__ import annotations

import struct
from typing import Any

PAGE_BITS = {4096: (12, 9), 16384: (14, 11), 65536: (16, 13)}  # offset bits, index bits a level
LEVELS = {"x86_64-4k": 4, "x86_64-4k-la57": 5, "aarch64-4k": 4, "aarch64-16k": 4, "aarch64-64k": 3}


def walk(kernel: str, machine: Any, root: int, address: int) -> list[tuple[int, int]]:
    """(physical address of the entry, entry) from the root to the last entry read, from the bytes of RAM."""
    page_size = machine.system.page_size
    offset_bits, index_bits = PAGE_BITS[page_size]
    intel = kernel.startswith("x86_64")
    address &= (1 << 57 if kernel.endswith("la57") else 1 << 48) - 1
    frame_mask = ((1 << 52 if intel else 1 << 48) - 1) & -page_size
    found = []
    table = root
    levels = LEVELS[kernel]
    for level in reversed(range(levels)):
        index = address >> offset_bits + level * index_bits & (1 << index_bits) - 1
        where = table + 8 * index
        (entry,) = struct.unpack_from("<Q", machine.system.ram, where)
        found.append((where, entry))
        if not entry & 1 or not level:
            break
        if entry & 0x80 if intel else entry & 3 == 1:  # a huge page or block
            break
        table = entry & frame_mask
    return found


def areas(mm: Any) -> list[tuple[int, int]]:
    """All areas, from the list."""
    found = []
    vma = mm.mmap
    while vma is not None:
        found.append((vma.vm_start, vma.vm_end))
        vma = vma.vm_next
    return found


def first_above(mm: Any, address: int) -> tuple[int, int] | None:
    """The first area that ends above `address`, by looking at each."""
    return next((area for area in areas(mm) if area[1] > address), None)


class Second:
    """Wraps a machine's fault routine around the explainer's, and compares what it sees with what is explained."""

    def __init__(self, kernel: str, machine: Any, explainer: Any) -> None:
        self.kernel, self.machine, self.explainer = kernel, machine, explainer
        self.events: list[Any] = []
        self.faults = 0
        self.results: dict[str, int] = {}
        arch = machine.system.arch
        self._inner = arch.do_page_fault
        arch.do_page_fault = self.fault
        machine.subscribe(self.events.append, "fault")

    def fault(self, task: Any, code: int, address: int, user: bool = True, tried: int = 0) -> Any:
        mm = task.mm
        machine = self.machine
        root = mm.pgd * machine.system.page_size
        plain = address
        if self.kernel.startswith("aarch64") and code >> 26 != 0x20:
            plain &= (1 << 56) - 1
        before = walk(self.kernel, machine, root, plain) if plain < machine.system.arch.task_size else []
        found = first_above(mm, plain)
        hits = task.vmacache_find_hits
        counts = (task.min_flt, task.maj_flt, mm.pgtables_bytes)
        self.events.clear()
        signal = self._inner(task, code, address, user, tried)
        told = self.explainer.last
        self.faults += 1
        self.compare(told, before, found, code, user)
        after = walk(self.kernel, machine, root, plain) if before else []
        assert [(entry.where, entry.raw) for entry in told.walk_after.entries] == after
        if told.lookup.slots or told.lookup.stale:
            assert task.vmacache_find_hits - hits == told.lookup.hit
        new = (task.min_flt, task.maj_flt, mm.pgtables_bytes)
        for name, old, now in zip(("min_flt", "maj_flt", "pgtables_bytes"), counts, new, strict=True):
            assert told.changed_counters.get(name, (old, old)) == (old, now)
        assert told.signal == signal
        if self.events:
            (event,) = self.events
            assert (told.result, told.access, told.user) == (event.result, event.access, event.user)
            self.results[event.result] = self.results.get(event.result, 0) + 1
        if self.faults % 5 == 1:
            assert told.text().count("\n") > 15
        return signal

    def compare(self, told: Any, before: Any, found: Any, code: int, user: bool) -> None:
        from emu.explain_walk import rules_of

        assert [(entry.where, entry.raw) for entry in told.walk.entries] == before
        answer = told.lookup.answer
        assert (None if answer is None else (answer.start, answer.end)) == found
        if told.lookup.nodes:
            last, _, turn = told.lookup.nodes[-1]
            assert (turn == "found") == told.lookup.contains
            assert turn != "found" or (last.start, last.end) == found
        if told.walk.stop and told.walk.entries:  # what the CPU said follows from the tables
            rules = rules_of(told.arch)
            said = rules.expected_code(told.walk.stopped, told.walk.entries, told.access, user, told.walk.levels)
            assert code & rules.CODE_MASK == said, (told.text(), hex(said))
