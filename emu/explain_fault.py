"""One page fault, recorded while it is served: the state before, what was decided, the state after.

`begin()` copies what will change, `end()` what has; numbers only, so that an explanation stays true when the run goes
on. The text is made by emu/explain_text.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.explain_lookup import Area, Lookup
from emu.explain_walk import HardwareWalk, rules_of
from emu.explain_where import Instruction, area_at
from mm.types import AddressSpace, AnonVma, StableNode

if TYPE_CHECKING:
    from emu.explain import Explainer
    from emu.explain_steps import Decisions
    from mm.arch import FaultSignal
    from mm.types import MmStruct

RSS_NAMES = ("rss_file", "rss_anon", "swap", "rss_shmem")  # MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES


class Frame:
    """A frame of RAM as it was."""

    __slots__ = ("mapcount", "pfn", "refcount", "what")

    def __init__(self, mm: MmStruct, pfn: int) -> None:
        system = mm.system
        self.pfn = pfn
        page = system.mem_map.peek(pfn) if 0 <= pfn < len(system.mem_map) else None
        self.refcount: int | None = None
        self.mapcount: int | None = None
        if pfn == system.zero_pfn:
            self.what = "the zero page"
        elif page is None:
            self.what = "free"
        else:
            self.refcount, self.mapcount = page.refcount, page.mapcount
            if isinstance(page.mapping, AnonVma):
                self.what = "an anonymous page"
            elif isinstance(page.mapping, StableNode):
                self.what = "a page KSM merged"
            elif isinstance(page.mapping, AddressSpace):
                self.what = f"page {page.index} of the file"
            else:
                self.what = "a page of the kernel's"

    def __str__(self) -> str:
        counts = "" if self.refcount is None else f", refcount {self.refcount}, mapcount {self.mapcount}"
        return f"frame {self.pfn:#x}, {self.what}{counts}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


def counters_of(mm: MmStruct, task: Any, tasks: Any) -> dict[str, int]:
    """What a fault or a call may count: resident pages (with what tasks have not yet added), faults, tables, frames."""
    system = mm.system
    counts = {}
    sharing = [other for other in tasks if other.mm is mm]
    for number, name in enumerate(RSS_NAMES):
        counts[name] = mm.rss_stat[number] + sum(other.rss_stat[number] for other in sharing)
    counts["min_flt"], counts["maj_flt"] = task.min_flt, task.maj_flt
    counts["pgtables_bytes"] = mm.pgtables_bytes
    for name in ("total_vm", "data_vm", "stack_vm", "exec_vm", "locked_vm", "map_count", "hugetlb_usage"):
        counts[name] = getattr(mm, name)
    counts["vmacache_seqnum"] = mm.vmacache_seqnum
    counts["vm_committed_as"] = system.vm_committed_as
    counts["free_frames"] = system.nr_free_pages()
    return counts


class FaultExplanation:
    """Everything about one page fault. `print()` it, or look at the parts.

    Attributes:
        number: 1 for the first fault of the run. again: it waited for a userfaultfd, and is made once more.
        pid, comm: of the task.
        address: that was touched; error_code: what the CPU reports; access: read, write or exec; user: by user code.
        instruction: what touched it (None: the kernel did, for `call`).
        call: the system call the kernel was serving, in words; empty for user code.
        walk, walk_after: the MMU's walk before and after.
        lookup: the search of find_vma.
        area: where it ended, as it was before the fault; None: nowhere.
        checks: the decisions, in order. path: the kernel functions that ran, (depth, name, file).
        ptes: (address, old, new) of each entry changed. tables: (level, address, pfn) of each table made.
        counters, counters_after: see `counters_of`.
        frame_before, frame_after: what was and is mapped.
        cached: the page cache's own page for this place before the fault, for an area of a file.
        result: as in the `fault` event; `signal`: what it ended in, or None; `action`: what the signal did.
    """

    def __init__(
        self, explainer: Explainer, number: int, task: Any, code: int, address: int, user: bool, again: bool
    ) -> None:
        self.number = number
        self.again = again
        self.pid: int = task.pid
        self.comm: str = task.comm
        mm: MmStruct = task.mm
        arch = mm.arch
        self.arch = arch.name
        self.page_size = arch.page_size
        self.level_names = arch.level_names
        rules = rules_of(arch.name)
        self.reported = address
        self.address: int = rules.untagged(address, code)
        self.error_code = code
        self.access: str = rules.access_of(code)
        self.user = user
        self.decisions: Decisions = explainer.decisions()
        self.ptes: list[tuple[int, int, int]] = []
        self.tables: list[tuple[str, int, int]] = []
        self.grown: tuple[int, int] | None = None
        self.result = ""
        self.major = False
        self.waits = False
        self.signal: FaultSignal | None = None
        self.action = ""
        self.handler = 0
        self.call = "" if user else explainer.call_in_progress(task)
        if again and not user:
            self.call = "for the access that had to wait for a userfaultfd"
        self.instruction = explainer.instruction(mm) if user else None
        self.replaced = replaced(mm.ops.find_vma)
        self._explainer = explainer
        self._mm = mm
        self._look_before(task, mm)

    def _look_before(self, task: Any, mm: MmStruct) -> None:
        self.walk = HardwareWalk(mm, self.address, self.access, self.user)
        self.lookup = Lookup(mm, self.address, task)
        vma = mm_area(mm, self.lookup)
        self.area = self.lookup.answer
        self.vm_flags = self.area.flags if self.area is not None else 0
        self.cached: Frame | None = None
        self.file_page: int | None = None
        if vma is not None and vma.vm_file is not None and vma.vm_start <= self.address:
            arch = mm.arch
            self.file_page = vma.vm_pgoff + ((self.address - vma.vm_start) >> arch.page_shift)
            page = vma.vm_file.f_mapping.pages.get(self.file_page)
            self.cached = Frame(mm, page.pfn) if page is not None else None
        self.counters = counters_of(mm, task, self._explainer.tasks())
        self.frame_before = _frame_of(mm, self.walk)
        self.flush_before = mm.tlb_flush_pending

    def event(self, event: Any) -> None:
        """One event of the memory manager while the fault is served."""
        kind = event.kind
        if kind == "pte_set":
            if event.root == self._mm.pgd:
                self.ptes.append((event.address, event.old, event.new))
        elif kind == "page_table_alloc":
            self.tables.append((event.level, event.address, event.pfn))
        elif kind == "vma_adjust" and self.area is not None and event.end == self.area.end:
            self.grown = (self.area.start, event.start)
        elif kind == "fault":
            self.result, self.major = event.result, event.major

    def end(self, task: Any, signal: FaultSignal | None) -> None:
        """The fault has been served."""
        mm = self._mm
        self.signal = signal
        self.waits = bool(task.userfaults) and signal is None and not self.result
        self.walk_after = HardwareWalk(mm, self.address, self.access, self.user)
        self.frame_after = _frame_of(mm, self.walk_after)
        self.old_frame_after = Frame(mm, self.frame_before.pfn) if self.frame_before is not None else None
        self.counters_after = counters_of(mm, task, self._explainer.tasks())
        self.flush = mm.tlb_flush_pending and not self.flush_before
        after = area_at(mm, self.address)
        self.area_after = Area(after) if after is not None else None
        del self._mm, self._explainer  # an explanation is numbers: it keeps nothing alive

    # ---- what is derived

    @property
    def checks(self) -> list[Any]:
        """The decisions, in order."""
        return self.decisions.checks

    @property
    def searched(self) -> bool:
        """The fault routine asked find_vma: for an address outside user space it does not."""
        return any(check.source == "vma is None" for check in self.checks)

    @property
    def path(self) -> list[tuple[int, str, str]]:
        """The kernel functions that ran: (depth, name, file)."""
        return self.decisions.calls

    @property
    def changed_counters(self) -> dict[str, tuple[int, int]]:
        """Counter -> (before, after), of those that changed."""
        return {
            name: (value, self.counters_after[name])
            for name, value in self.counters.items()
            if value != self.counters_after[name]
        }

    @property
    def entry_before(self) -> int:
        """The leaf entry before; 0: none, or an empty one."""
        leaf = self.walk.leaf
        return leaf.raw if leaf is not None else 0

    @property
    def entry_after(self) -> int:
        """The leaf entry after."""
        leaf = self.walk_after.leaf
        return leaf.raw if leaf is not None else 0

    @property
    def around(self) -> list[int]:
        """Addresses of the pages that fault-around mapped besides this one."""
        page = self.address & -self.page_size
        return [address for address, old, _ in self.ptes if address != page and not old]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        signal = self.signal
        return {
            "kind": "fault_explanation",
            "number": self.number,
            "again": self.again,
            "pid": self.pid,
            "comm": self.comm,
            "architecture": self.arch,
            "page_size": self.page_size,
            "address": self.address,
            "error_code": self.error_code,
            "error_bits": [list(bits) for bits in rules_of(self.arch).error_bits(self.error_code)],
            "access": self.access,
            "user": self.user,
            "call": self.call,
            "instruction": self.instruction.to_dict() if self.instruction is not None else None,
            "walk": self.walk.to_dict(),
            "find_vma": self.lookup.to_dict() if self.searched else None,
            "stack_grown": list(self.grown) if self.grown is not None else None,
            "checks": [check.to_dict() for check in self.checks],
            "path": [{"depth": depth, "function": name, "file": file} for depth, name, file in self.path],
            "result": self.result or ("waits" if self.waits else "refused"),
            "major": self.major,
            "file_page": self.file_page,
            "ptes": [{"address": address, "old": old, "new": new} for address, old, new in self.ptes],
            "around": self.around,
            "tables": [{"level": level, "address": address, "pfn": pfn} for level, address, pfn in self.tables],
            "entry_before": self.entry_before,
            "entry_after": self.entry_after,
            "frame_before": self.frame_before.to_dict() if self.frame_before is not None else None,
            "frame_after": self.frame_after.to_dict() if self.frame_after is not None else None,
            "counters": {name: list(pair) for name, pair in self.changed_counters.items()},
            "walk_after": self.walk_after.to_dict(),
            "tlb_flush": self.flush,
            "signal": None
            if signal is None
            else {
                "signo": signal.signo,
                "si_code": signal.si_code,
                "si_addr": signal.address,
                "action": self.action,
                "handler": self.handler,
            },
        }

    def text(self, colour: bool = False) -> str:
        """The explanation in steps."""
        from emu.explain_text import fault_steps, steps_text

        return steps_text(fault_steps(self), colour)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<fault {self.number}: {self.access} of {self.address:#x}: {self.result or 'refused'}>"

    def _repr_html_(self) -> str:
        from emu.explain_text import fault_steps, steps_html

        return steps_html(fault_steps(self))


def replaced(function: Any) -> str:
    """The name of what stands in the place of our find_vma (--algorithm); empty: ours does."""
    from mm.find_vma import find_vma

    return "" if function is find_vma else str(getattr(function, "__qualname__", function))


def mm_area(mm: MmStruct, lookup: Lookup) -> Any:
    """The VMA a search answered with."""
    return None if lookup.answer is None else area_at(mm, lookup.answer.start)


def _frame_of(mm: MmStruct, walk: HardwareWalk) -> Frame | None:
    """The frame a walk's leaf names, also where the MMU may not use it (PROT_NONE, AF)."""
    leaf = walk.leaf
    if leaf is None or not leaf.raw or not mm.arch.pte_present(leaf.raw):
        return None
    shift = mm.arch.level_shifts[leaf.level]
    offset = walk.address & ((1 << shift) - 1)
    return Frame(mm, leaf.pfn + (offset >> mm.arch.page_shift))


__all__ = ["FaultExplanation", "Frame", "Instruction", "counters_of"]
