"""The event stream of real runs: every kind occurs, and the page-table entries it reports are those in the tables."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest
from geometry import IMAGES, KERNELS, PROJECT, arch_of, make_machine

from emu.trace import event_classes
from mm.errors import KernelBug

# What the MMU sets by itself, or a system call that touches user memory: no event.
HARDWARE_BITS = {"x86_64": 0x60, "aarch64": 1 << 55 | 1 << 10 | 1 << 7}

# Guest program -> what its run must show at least. Together: every kind, every result of a fault, every merge case.
SHOWS = {
    "hello": {"exec", "exit", "syscall_enter", "syscall_exit", "tlb_flush", "pte_set", "fault file-read"},
    "cow": {"fork", "switch", "page_table_alloc", "page_table_free", "fault cow-copy", "fault cow-reuse"},
    "segv": {"signal", "fault refused"},
    "split": {"vma_insert", "vma_split", "vma_erase", "vma_merge", "vma_adjust"},
    "merge": {f"vma_merge {case}" for case in range(1, 9)},
    "filemap": {"fault file-shared", "fault file-cow"},
    "lazyzero": {"fault anon-zero", "fault anon"},
    "stack": {"fault stack"},
    "vdso": {"fault special"},
    "gcbarrier": {"vma_flags"},
}


class Shadow:
    """The page tables as the events tell them, and what contradicts them."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.entries: dict[tuple[int, int], int] = {}
        self.ignored = HARDWARE_BITS[machine.system.arch.name]
        self.shown: Counter[str] = Counter()
        self.areas = 0
        self.wrong: list[str] = []
        machine.subscribe(self.listen)

    def listen(self, event: Any) -> None:
        self.shown[event.kind] += 1
        if event.kind == "pte_set":
            self.change(event)
        elif event.kind == "fault":
            self.shown[f"fault {event.result}"] += 1
            self.shown["fault stack"] += event.stack
        elif event.kind == "vma_merge":
            self.shown[f"vma_merge {event.case}"] += 1
        elif event.kind == "syscall_exit" and self.shown["syscall_exit"] % 7 == 0:
            self.compare()

    def change(self, event: Any) -> None:
        key = event.root, event.address
        if (self.entries.get(key, 0) ^ event.old) & ~self.ignored:
            self.wrong.append(f"{event!r} after {self.entries.get(key, 0):#x}")
        self.entries[key] = event.new
        if not event.new:
            del self.entries[key]

    def compare(self) -> None:
        """The tables of every address space hold what the events said, and nothing else."""
        found = {}
        for mm in self.machine.system.pgd_list:
            for address, entry in leaves(mm):
                found[mm.pgd, address] = entry & ~self.ignored
        said = {key: entry & ~self.ignored for key, entry in self.entries.items()}
        if found != said:
            self.wrong.append(f"tables: {sorted(set(found.items()) ^ set(said.items()))[:4]}")


def leaves(mm: Any) -> Any:
    """Every leaf entry of user space by a walk of its own: (address, entry)."""
    system, arch = mm.system, mm.system.arch
    kernel = {index for index, _ in system.kernel_pgd}
    shifts = arch.level_shifts

    def walk(table: int, level: int, base: int) -> Any:
        for index, entry in enumerate(system.words[table : table + arch.ptrs_per_pte].tolist()):
            if not entry or (level == 0 and index in kernel):
                continue
            address = base + (index << shifts[level])
            if level == len(shifts) - 1 or (arch.pmd_trans_huge(entry) and shifts[level] == arch.pmd_shift):
                yield address, entry
            else:
                yield from walk((entry & arch.PTE_PFN_MASK) >> 3, level + 1, address)

    yield from walk(mm.pgd << arch.table_word_shift, 0, 0)


@functools.cache
def observed(kernel: str, name: str, script: str = "") -> Shadow:
    """Run one guest program with everybody listening."""
    root = PROJECT / "tests" / "golden"
    machine = make_machine(kernel, **({"root": str(root)} if script else {}))
    shadow = Shadow(machine)
    if script:
        machine.load(f"/bin/vmops.{arch_of(kernel)}", ["/vmops", script])
    else:
        machine.load(str(IMAGES / arch_of(kernel) / name), [f"/{name}"])
    machine.run()
    return shadow


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SHOWS)
def test_a_run_shows_it(kernel: str, name: str) -> None:
    assert SHOWS[name] - set(+observed(kernel, name).shown) == set()


def test_together_they_show_every_kind() -> None:
    shown = {what.split()[0] for names in SHOWS.values() for what in names}
    assert shown == set(event_classes()) - {"injected"}  # tests/emu/test_steer.py shows those


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SHOWS)
def test_the_entries_are_what_the_events_say(kernel: str, name: str) -> None:
    shadow = observed(kernel, name)
    assert shadow.wrong == []
    assert shadow.entries == {}, "at the end everything is unmapped"
    assert shadow.shown["vma_insert"] == shadow.shown["vma_erase"]
    assert shadow.shown["page_table_alloc"] == shadow.shown["page_table_free"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "script", ["06-mremap", "07-fork-cow", "09-file-shared", "11-madvise", "12-mlock", "13-mincore-and-proc"]
)
def test_also_for_moves_advice_and_huge_pages(kernel: str, script: str) -> None:
    shadow = observed(kernel, "vmops", f"/scripts/{script}")
    assert shadow.wrong == []
    assert shadow.entries == {}


@pytest.mark.parametrize("kernel", ["x86_64-4k", "aarch64-4k"])
def test_check_2_examines_all_memory_when_a_call_ends(kernel: str) -> None:
    """What is planted during a call is found, though no fault comes after it."""
    machine = make_machine(kernel, check=2)

    def plant(_: Any) -> None:
        machine.system.nr_mlock += 1

    machine.subscribe(plant, "syscall_exit")
    machine.load(str(IMAGES / arch_of(kernel) / "hello"), ["/hello"])
    with pytest.raises(KernelBug, match="P11"):
        machine.run()
