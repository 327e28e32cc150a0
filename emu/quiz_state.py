"""Where questions come from: a real program, run to a system call, with its faults on record.

The addresses are randomised by the seed (ASLR), so that each seed has other numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from emu import draw
from emu.draw_pagetables import Entry, walk
from emu.grade_programs import image
from emu.machine import Machine
from guest.procfs_maps import show_map
from mm.flags import VM_SHARED
from mm.types import VmAreaStruct

if TYPE_CHECKING:
    from random import Random

GEOMETRIES: dict[str, tuple[str, int, bool]] = {
    "x86_64-4k": ("x86_64", 4096, False),
    "x86_64-4k-la57": ("x86_64", 4096, True),
    "aarch64-4k": ("aarch64", 4096, False),
    "aarch64-16k": ("aarch64", 16384, False),
    "aarch64-64k": ("aarch64", 65536, False),
}
# Programs, and the numbers of system calls between which to stop.
PROGRAMS = {
    "faults": (30, 60),
    "cow": (6, 14),
    "filemap": (40, 280),
    "lazyzero": (8, 40),
    "mmap": (8, 36),
    "merge": (20, 110),
}
RAM = 32 << 20
MAX_RECORDS = 400
FIXED = 1 << 32  # the programs' own segments lie below, at the same addresses in every run: nothing is asked about them


class FaultRecord(NamedTuple):
    """A page fault of the run."""

    address: int
    access: str  # read, write or exec
    area: str  # as in /proc/PID/maps
    anonymous: bool
    shared: bool
    entries: list[Entry]  # what the MMU read before
    zero: bool  # the entry maps the zero page
    users: int  # refcount of the frame the entry maps, 0 without one
    result: str  # what the handler did
    error_code: int
    major: bool
    again: bool  # it was made again, after VM_FAULT_RETRY


class State:
    """A machine that stopped in the middle of a program."""

    def __init__(self, geometry: str, program: str, seed: int, stop: int) -> None:
        arch, page_size, la57 = GEOMETRIES[geometry]
        self.geometry = geometry
        self.program = program
        self.machine = Machine(
            arch, page_size=page_size, la57=la57, ram=RAM, aslr=seed, stdin=b"", stdout="capture", stderr="capture"
        )
        self.arch = self.machine.system.arch
        self.faults: list[FaultRecord] = []
        self._begun: Any = None
        self.again = False
        self.first = ""
        self.merges: list[Any] = []
        self.machine.before("fault")(self._before)
        self.machine.after("fault")(self._after)
        self.machine.subscribe(self.merges.append, "vma_merge")
        self.machine.load(image(arch, program), [program])
        calls = 0

        def reached(event: Any) -> bool:
            nonlocal calls
            calls += event.kind == "syscall_enter"
            return bool(calls >= stop)

        self.machine.run(until=reached, timeout=60)
        self.task: Any = self.machine.task
        self.mm: Any = self.task.mm
        self.machine.kernel.set_current(self.task)

    @property
    def where(self) -> str:
        """Geometry and program."""
        return f"{self.geometry}, {self.program}"

    def areas(self) -> list[VmAreaStruct]:
        """The VMAs."""
        return list(draw.areas(self.mm))

    def _before(self, event: Any) -> None:
        if self._begun is not None and self._begun[0] == event.address:
            self.again = True  # VM_FAULT_RETRY: what was there at first is what is asked about
            self.first = self.machine.system.fault_result
            return
        self.again = False
        vma = event.vma
        if not isinstance(vma, VmAreaStruct) or not event.user:
            self._begun = None
            return
        mm = vma.vm_mm
        entries = walk(mm, event.address)
        page = zero = None
        if entries and entries[-1].leaf:
            page = mm.system.mem_map.peek(entries[-1].pfn)
            zero = entries[-1].pfn == mm.system.zero_pfn
        self._begun = (
            event.address,
            event.access,
            map_line(vma),
            vma.vm_ops is None,
            bool(vma.vm_flags & VM_SHARED),
            entries,
            bool(zero),
            0 if page is None else page.refcount,
        )

    def _after(self, event: Any) -> None:
        begun, self._begun = self._begun, None
        if begun is None or event.signal or not event.user or len(self.faults) == MAX_RECORDS or begun[0] < FIXED:
            return
        if begun[0] >> self.arch.page_shift == event.address >> self.arch.page_shift:
            result = self.first if self.again else event.result
            self.faults.append(FaultRecord._make((*begun, result, event.error_code, event.major, self.again)))


def map_line(vma: VmAreaStruct) -> str:
    """An area as /proc/PID/maps shows it, without the padding."""
    return " ".join(show_map(vma).split())


def random_state(rng: Random, seed: int) -> State:
    """Some program on some geometry, stopped somewhere."""
    program = rng.choice(list(PROGRAMS))
    low, high = PROGRAMS[program]
    return State(rng.choice(list(GEOMETRIES)), program, seed & 0xFFFFFFFF, rng.randint(low, high))
