"""`pagewalk compare PROGRAM --geometry LIST`: the same program under several page sizes, side by side.

    pagewalk compare images/{arch}/lazyzero --geometry x86_64-4k,aarch64-4k,aarch64-16k,aarch64-64k

A geometry is an architecture and a page size; `{arch}` in PROGRAM and its arguments stands for x86_64 or aarch64, so
that each gets its own binary. What is compared:

- faults, by what they did, and the page-table pages that were linked in;
- resident: the most memory the program's largest process had mapped at one time (ru_maxrss);
- wasted: what the anonymous pages of the first program hold at its end in whole 1 KiB pieces of zeroes: memory that
  larger pages brought along, or that was touched and left empty;
- system calls, and what the vmacache answered.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from emu import cli
from emu.errors import PagewalkError
from emu.stats import FAULT_NAMES, LastLook, about_to_end
from mm.flags import VM_HUGETLB, VM_PFNMAP

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.options import Options
    from mm.types import MmStruct

GEOMETRIES = {
    "x86_64-4k": ("x86_64", 4096, False),
    "x86_64-4k-la57": ("x86_64", 4096, True),
    "aarch64-4k": ("aarch64", 4096, False),
    "aarch64-16k": ("aarch64", 16384, False),
    "aarch64-64k": ("aarch64", 65536, False),
}
PIECE = 1024  # bytes


class Measure:
    """What one run showed. Listens to its machine; read it when the run is over."""

    def __init__(self, geometry: str, machine: Machine) -> None:
        self.geometry = geometry
        self.outcome = ""
        self.faults: dict[str, int] = {}
        self.calls = 0
        self.tables = 0  # page-table pages linked in, roots included
        self.tables_most = 0  # at one time
        self.resident = 0  # bytes
        self.anonymous = 0  # bytes of the first program's anonymous pages at its end
        self.wasted = 0  # bytes of those in pieces of zeroes
        self.areas = 0  # VMAs at the end
        self.lookups = self.hits = 0  # of the vmacache
        self._machine = machine
        self._tables = 0
        self._last = LastLook(lambda: machine.kernel.first, self._look)

    def __call__(self, event: Any) -> None:
        """Take one event."""
        kind = event.kind
        if kind == "fault":
            self.faults[event.result] = self.faults.get(event.result, 0) + 1
        elif kind == "page_table_alloc":
            self.tables += 1
            self._tables += 1
            self.tables_most = max(self.tables_most, self._tables)
        elif kind == "page_table_free":
            self._tables -= 1
        elif kind == "syscall_enter" and not event.restarted:
            self.calls += 1
        if about_to_end(event):
            task = self._machine.kernel.tasks.get(event.pid)
            if task is not None:
                self.lookups += task.vmacache_find_calls
                self.hits += task.vmacache_find_hits
        self._last(event)

    def _look(self, task: Any) -> None:
        """The first program's memory, just before it goes."""
        mm = task.mm
        self.areas = mm.map_count
        self.anonymous, self.wasted = anonymous_bytes(mm)

    def finish(self, outcome: str) -> None:
        """The run is over."""
        self.outcome = outcome
        task = self._machine.task
        pages = max(task.signal.maxrss, task.signal.cmaxrss)
        self.resident = pages * self._machine.system.page_size

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "geometry": self.geometry,
            "outcome": self.outcome,
            "faults": {"total": sum(self.faults.values()), **dict(sorted(self.faults.items()))},
            "page_table_pages": self.tables,
            "page_table_pages_most": self.tables_most,
            "resident_bytes": self.resident,
            "anonymous_bytes": self.anonymous,
            "wasted_bytes": self.wasted,
            "areas": self.areas,
            "calls": self.calls,
            "vmacache_lookups": self.lookups,
            "vmacache_hits": self.hits,
        }


def anonymous_bytes(mm: MmStruct) -> tuple[int, int]:
    """(bytes in anonymous pages, bytes of those in pieces of PIECE zeroes). The zero page counts as neither."""
    from mm.memory_rss import page_anon
    from mm.pgtable import pte_range, walk_pmds

    system, arch = mm.system, mm.arch
    zeroes = bytes(PIECE)
    total = wasted = 0

    def count(pfn: int, size: int) -> None:
        nonlocal total, wasted
        total += size
        memory = bytes(system.ram[pfn << arch.page_shift : (pfn << arch.page_shift) + size])
        wasted += sum(PIECE for at in range(0, size, PIECE) if memory[at : at + PIECE] == zeroes)

    vma = mm.mmap
    while vma is not None:
        if not vma.vm_flags & (VM_PFNMAP | VM_HUGETLB):
            for start, end, pmd in walk_pmds(mm, vma.vm_start, vma.vm_end):
                if arch.pmd_trans_huge(system.words[pmd]):
                    count(arch.pte_pfn(system.words[pmd]), arch.pmd_size)
                    continue
                first, last = pte_range(mm, pmd, start, end)
                for pte in system.words[first:last].tolist():
                    pfn = arch.pte_pfn(pte) if arch.pte_present(pte) else system.zero_pfn
                    page = system.mem_map.peek(pfn) if pfn != system.zero_pfn else None
                    if page is not None and page_anon(page):
                        count(pfn, arch.page_size)
        vma = vma.vm_next
    return total, wasted


def compare(options: Options) -> int:
    """`pagewalk compare`: run under each geometry, print the table; the worst exit status."""
    names = options.geometries or default_geometries(options.program)
    measures, worst = [], 0
    for name in names:
        measure, status = _measure(name, options)
        measures.append(measure)
        worst = max(worst, status)
    if options.json:
        import json

        print(json.dumps([measure.to_dict() for measure in measures], indent=2))
    else:
        print(f"{' '.join([options.program, *options.arguments])}\n\n{table(measures)}")
    if options.plot is not None:
        plot(measures, options.plot, options.program)
    return worst


def default_geometries(program: str) -> list[str]:
    """All that the program can run under."""
    if "{arch}" in program:
        return list(GEOMETRIES)
    from emu.program import architecture

    try:
        with open(program, "rb") as file:
            arch = architecture(file.read(64), program)
    except OSError:
        return ["x86_64-4k"]  # what is wrong is told when it is run
    return [name for name, geometry in GEOMETRIES.items() if geometry[0] == arch]


def _measure(name: str, options: Options) -> tuple[Measure, int]:
    """One run."""
    from copy import copy

    arch, page_size, la57 = GEOMETRIES[name]
    own = copy(options)
    own.page_size, own.la57 = page_size, la57
    own.program = options.program.replace("{arch}", arch)
    own.arguments = [word.replace("{arch}", arch) for word in options.arguments]
    changes = {} if options.guest_output else {"stdout": "capture", "stderr": "capture"}
    machine = cli.build(own, **changes)
    measure = Measure(name, machine)
    machine.subscribe(measure)
    cli.load(machine, own)
    if machine.system.arch.name != arch:
        text = f"{own.program}: a program for {machine.system.arch.name}; write {{arch}} in its name for {name}"
        raise PagewalkError(text)
    outcome = ""

    def closing(how: str, _: int) -> None:
        nonlocal outcome
        outcome = how

    status = cli.finish(machine, own, closing)
    measure.finish(outcome)
    machine.close()
    return measure, status


def table(measures: list[Measure]) -> str:
    """Geometries as columns; what did not happen anywhere is left out."""
    rows: list[tuple[str, list[str]]] = [("", [measure.geometry for measure in measures])]

    def row(name: str, values: list[Any]) -> None:
        rows.append((name, [str(value) for value in values]))

    row("page faults", [sum(m.faults.values()) for m in measures])
    for result, text in FAULT_NAMES.items():
        if any(result in m.faults for m in measures):
            row(f"  {text}", [m.faults.get(result, 0) for m in measures])
    row("page-table pages", [m.tables for m in measures])
    row("  most at one time", [m.tables_most for m in measures])
    row("resident, most (ru_maxrss)", [_size(m.resident) for m in measures])
    row("anonymous at the end", [_size(m.anonymous) for m in measures])
    row("  of it wasted", [_size(m.wasted) for m in measures])
    row("areas at the end", [m.areas for m in measures])
    row("system calls", [m.calls for m in measures])
    row("vmacache hits", [f"{100 * m.hits / m.lookups:.1f}%" if m.lookups else "-" for m in measures])
    if any(m.outcome != "exited with 0" for m in measures):
        row("outcome", [m.outcome for m in measures])
    first = max(len(name) for name, _ in rows)
    widths = [max(len(values[i]) for _, values in rows) for i in range(len(measures))]
    lines = [
        f"{name:<{first}}" + "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))
        for name, values in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[1]), *lines[1:]])


def _size(count: int) -> str:
    return f"{count >> 10}K"


def plot(measures: list[Measure], path: str, title: str) -> None:
    """Bars of faults, page-table pages, memory and calls. Raises PagewalkError without matplotlib."""
    form = os.path.splitext(path)[1][1:].lower()
    if form not in ("svg", "png"):
        raise PagewalkError(f"--plot {path}: the name must end with .svg or .png")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PagewalkError("--plot needs matplotlib: pip install 'pagewalk[plot]'") from None
    names = [measure.geometry for measure in measures]
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2)
    bars = (
        ("page faults", "", [[sum(m.faults.values()) for m in measures]], ("all",)),
        ("page-table pages", "", [[m.tables for m in measures]], ("all",)),
        (
            "anonymous memory at the end",
            "KiB",
            [[(m.anonymous - m.wasted) >> 10 for m in measures], [m.wasted >> 10 for m in measures]],
            ("used", "wasted"),
        ),
        ("resident, most", "KiB", [[m.resident >> 10 for m in measures]], ("all",)),
    )
    for axis, (name, unit, stacks, labels) in zip(axes.flat, bars, strict=True):
        bottom = [0] * len(names)
        for values, label, colour in zip(stacks, labels, ("#4477aa", "#ccbb44"), strict=False):
            drawn = axis.bar(names, values, bottom=bottom, label=label, color=colour)
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axis.bar_label(drawn, labels=[str(value) for value in bottom], fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.set_ylabel(unit)
        axis.margins(y=0.12)
        axis.tick_params(axis="x", labelrotation=20, labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if len(stacks) > 1:
            axis.legend(frameon=False, fontsize=8)
    try:
        figure.savefig(path, format=form, metadata={"Date": None} if form == "svg" else None)
    except OSError as error:
        raise PagewalkError(f"--plot {path}: {error.strerror}") from None
    print(f"pagewalk: wrote {path}", file=sys.stderr)
