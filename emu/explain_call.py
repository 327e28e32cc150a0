"""One memory call, recorded while it is served: its checks in order, the areas and the tree before and after, the rest.

As for a fault (emu/explain_fault.py): a copy of the state before, what was overheard, a copy of the state after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import draw
from emu.errors import PagewalkError
from emu.explain_areas import Change, Snapshot, merge_lines
from emu.explain_fault import counters_of
from emu.explain_lookup import Lookup
from mm.types import VmAreaStruct

if TYPE_CHECKING:
    from types import FrameType

    from emu.explain import Explainer
    from emu.explain_steps import Decisions
    from emu.explain_text import Step, Told
    from mm.types import MmStruct

MEMORY_CALLS = frozenset(
    (
        *("mmap", "munmap", "mprotect", "pkey_mprotect", "brk", "mremap", "madvise", "mlock", "mlock2", "munlock"),
        *("mlockall", "munlockall", "msync", "mincore", "remap_file_pages", "shmat", "shmdt", "mbind"),
    )
)
MAX_SEARCHES = 4  # told in full
MAX_LISTED = 8
MAX_NODES = 24


class CallWanted:
    """What `--call` names: the N-th memory call of the run, every call of NAME, or its K-th."""

    __slots__ = ("name", "number")

    def __init__(self, call: Any) -> None:
        """Raises PagewalkError for something that is neither a number from 1 nor the name of a memory call."""
        self.name, self.number = "", 0
        if isinstance(call, CallWanted):
            self.name, self.number = call.name, call.number
            return
        if isinstance(call, int):
            self.number = call
        else:
            self.name, colon, number = str(call).partition(":")
            if self.name not in MEMORY_CALLS or (colon and not number.isdecimal()):
                raise PagewalkError(
                    f"--call {call}: expected N, or NAME[:K] with one of {' '.join(sorted(MEMORY_CALLS))}"
                )
            self.number = int(number) if colon else -1
        if not self.number or self.number < -1 or (self.number < 0 and not self.name):
            raise PagewalkError(f"--call {call}: calls are counted from 1")

    def __str__(self) -> str:
        if not self.name:
            return str(self.number)
        return self.name if self.number < 0 else f"{self.name}:{self.number}"

    @staticmethod
    def is_memory_call(name: str) -> bool:
        """Whether a system call changes, or asks about, the address space."""
        return name in MEMORY_CALLS

    def matches(self, name: str, total: int, own: int) -> bool:
        """Whether this is the `total`-th memory call, the `own`-th of its name."""
        if self.name:
            return name == self.name and self.number in (own, -1)
        return self.number == total


class Rotation:
    """One turn of the tree: `upper` was above `lower`, and is now below."""

    __slots__ = ("left", "lower", "upper")

    def __init__(self, old: VmAreaStruct, new: VmAreaStruct) -> None:
        self.upper = f"{old.vm_start:x}-{old.vm_end:x}"
        self.lower = f"{new.vm_start:x}-{new.vm_end:x}"
        self.left = new.vm_start > old.vm_start  # the right child came up

    def __str__(self) -> str:
        way = "left" if self.left else "right"
        return f"rotate {way}: {self.lower} comes up, {self.upper} becomes its {way} child"


class CallExplanation:
    """Everything about one memory call. `print()` it, or look at the parts.

    Attributes:
        number: 1 for the run's first memory call; own: for its first of this name.
        name, arguments: of the call; text: as strace shows it.
        result: what it returned; None: it did not return before the explanation ended.
        checks: the decisions, in order. path: the kernel functions that ran.
        lookups: the searches of find_vma.
        holes: searches for free space: (top down?, low limit, high limit, length, answer or None).
        merges: (case, start, end); splits: (start, end, address).
        change: areas and tree before and after. rotations: of the tree, in order.
        tables_made, tables_freed: (level, address, pfn). ptes: entries changed, by what happened to them.
        faults: pages the call brought in itself.
    """

    def __init__(self, explainer: Explainer, number: int, own: int, task: Any, event: Any) -> None:
        from emu.explain import call_text

        self.number, self.own = number, own
        self.pid: int = task.pid
        self.comm: str = task.comm
        self.name: str = event.name
        self.arguments: tuple[int, ...] = event.args
        self.text_of_call = call_text(explainer.machine, event)
        self.result: int | None = None
        self.result_text = "?"
        self.injected = False
        mm: MmStruct = task.mm
        self.page_size = mm.arch.page_size
        self.decisions: Decisions = explainer.decisions()
        self.decisions.watch.update(find_vma=self._searched, rotate=self._rotated)
        for name in ("unmapped_area", "unmapped_area_topdown"):
            self.decisions.watch[name] = self._hole
        self.lookups: list[Lookup] = []
        self.rotations: list[Rotation] = []
        self.holes: list[tuple[str, int, int, int, int | None]] = []
        self.merges: list[tuple[int, int, int]] = []
        self.splits: list[tuple[int, int, int]] = []
        self.tables_made: list[tuple[str, int, int]] = []
        self.tables_freed: list[tuple[str, int, int]] = []
        self.ptes = {"set": 0, "cleared": 0, "changed": 0}
        self._task, self._mm, self._explainer = task, mm, explainer
        self._before = Snapshot(mm)
        self.counters = counters_of(mm, task, explainer.tasks())
        self._flush_before = mm.tlb_flush_pending

    # ---- what is overheard

    def _searched(self, frame: FrameType) -> None:
        mm, address = frame.f_locals["mm"], frame.f_locals["addr"]
        self.lookups.append(Lookup(mm, address, mm.system.current))

    def _rotated(self, frame: FrameType) -> None:
        old, new = frame.f_locals["old"], frame.f_locals["new"]
        if isinstance(old, VmAreaStruct):
            self.rotations.append(Rotation(old, new))

    def _hole(self, frame: FrameType) -> None:
        info = frame.f_locals["info"]
        self.holes.append((frame.f_code.co_name, info.low_limit, info.high_limit, info.length, None))

    def event(self, event: Any) -> None:
        """One event of the memory manager while the call is served."""
        kind = event.kind
        if kind == "vma_merge":
            self.merges.append((event.case, event.start, event.end))
        elif kind == "vma_split":
            self.splits.append((event.start, event.end, event.address))
        elif kind == "page_table_alloc":
            self.tables_made.append((event.level, event.address, event.pfn))
        elif kind == "page_table_free":
            self.tables_freed.append((event.level, event.address, event.pfn))
        elif kind == "pte_set":
            self.ptes["set" if not event.old else "changed" if event.new else "cleared"] += 1

    def end(self, event: Any) -> None:
        """The call is over; `event` None: it has not returned."""
        if event is not None:
            self.result = event.result
            self.result_text = result_text(event.name, event.result)
            self.injected = event.injected
        mm, task = self._mm, self._task
        self.change = Change(self._before, Snapshot(mm))
        self.counters_after = counters_of(mm, task, self._explainer.tasks())
        self.flush = mm.tlb_flush_pending and not self._flush_before
        found = [self.decisions.results.get(hole[0]) for hole in self.holes]
        self.holes = [(*hole[:4], answer) for hole, answer in zip(self.holes, found, strict=True)]
        self.faults = self.decisions.count("handle_mm_fault")
        del self._task, self._mm, self._explainer, self._before

    @property
    def checks(self) -> list[Any]:
        """The decisions, in order."""
        return self.decisions.checks

    @property
    def path(self) -> list[tuple[int, str, str]]:
        """The kernel functions that ran: (depth, name, file)."""
        return self.decisions.calls

    @property
    def changed_counters(self) -> dict[str, tuple[int, int]]:
        """Counter -> (before, after), of those that changed."""
        after = self.counters_after
        return {name: (value, after[name]) for name, value in self.counters.items() if value != after[name]}

    # ---- showing

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "call_explanation",
            "number": self.number,
            "own": self.own,
            "pid": self.pid,
            "comm": self.comm,
            "name": self.name,
            "arguments": list(self.arguments),
            "call": self.text_of_call,
            "result": self.result,
            "result_text": self.result_text,
            "injected": self.injected,
            "checks": [check.to_dict() for check in self.checks],
            "path": [{"depth": depth, "function": name, "file": file} for depth, name, file in self.path],
            "find_vma": [lookup.to_dict() for lookup in self.lookups],
            "holes": [
                {"search": name, "low": low, "high": high, "length": length, "answer": answer}
                for name, low, high, length, answer in self.holes
            ],
            "merges": [{"case": case, "start": start, "end": end} for case, start, end in self.merges],
            "splits": [{"start": start, "end": end, "at": at} for start, end, at in self.splits],
            "areas": self.change.to_dict(),
            "rotations": [
                {"way": "left" if turn.left else "right", "up": turn.lower, "down": turn.upper}
                for turn in self.rotations
            ],
            "tables_made": [
                {"level": level, "address": address, "pfn": pfn} for level, address, pfn in self.tables_made
            ],
            "tables_freed": [
                {"level": level, "address": address, "pfn": pfn} for level, address, pfn in self.tables_freed
            ],
            "ptes": self.ptes,
            "faults": self.faults,
            "counters": {name: list(pair) for name, pair in self.changed_counters.items()},
            "tlb_flush": self.flush,
        }

    def text(self, colour: bool = False) -> str:
        """The explanation in steps."""
        from emu.explain_text import steps_text

        return steps_text(self.told(), colour)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<call {self.number}: {self.text_of_call} = {self.result_text}>"

    def _repr_html_(self) -> str:
        from emu.explain_text import steps_html

        return steps_html(self.told())

    def told(self) -> Told:
        """Title and steps."""
        from emu.explain_text import BAD, LEGEND, Line, Step, Told, check_lines

        title = f"Memory call {self.number} of {self.comm} (pid {self.pid}): {self.text_of_call} = {self.result_text}"
        if self.injected:
            return Told(title, [Step("The call", [Line("it was not made: its result was injected (--inject)", BAD)])])
        steps = [Step(f"The checks, in the order they were made {LEGEND}", check_lines(self.checks) or [Line("none")])]
        steps += self._searches()
        shapes = self._shapes()
        if shapes:
            steps.append(Step("Merging and splitting", [*map(Line, shapes)]))
        steps.append(Step("The areas", [*map(Line, self.change.lines())]))
        steps.append(Step("The red-black tree", [*map(Line, self._tree())]))
        steps.append(Step("Pages, tables and counters", [*map(Line, self._rest())]))
        failed = self.result is not None and -4096 < self.result < 0
        steps.append(Step("The result", [Line(self.result_text, BAD if failed else "")]))
        return Told(title, steps)

    def _searches(self) -> list[Step]:
        from emu.explain_text import NOTE, Line, Step

        steps = [
            Step(f"find_vma({lookup.address:#x})", [*map(Line, lookup.lines())])
            for lookup in self.lookups[:MAX_SEARCHES]
        ]
        if len(self.lookups) > MAX_SEARCHES:
            more = len(self.lookups) - MAX_SEARCHES
            steps[-1].lines.append(Line(f"... find_vma was asked {more} times more", NOTE))
        for name, low, high, length, answer in self.holes:
            way = "from the top" if name == "unmapped_area_topdown" else "from the bottom"
            lines = [f"{name}() looks {way} for {draw.size_text(length)} between {low:#x} and {high:#x}"]
            lines.append("nothing is free" if answer is None else f"free, and taken: {answer:#x}-{answer + length:#x}")
            steps.append(Step("The search for a free range", [*map(Line, lines)]))
        return steps

    def _shapes(self) -> list[str]:
        out = []
        for case, start, end in self.merges:
            out += merge_lines(case, start, end)
        for start, end, at in self.splits[:MAX_LISTED]:
            out.append(f"split: {start:x}-{end:x} is cut at {at:#x} into {start:x}-{at:x} and {at:x}-{end:x}")
        if len(self.splits) > MAX_LISTED:
            out.append(f"... and {len(self.splits) - MAX_LISTED} splits more")
        return out

    def _tree(self) -> list[str]:
        change = self.change
        lines = [f"erased: {area}" for area in change.erased]
        lines += [f"linked: {area}, {colour} now, below {above}" for area, colour, above in change.linked]
        lines += [str(turn) for turn in self.rotations]
        lines += [f"now {colour}: {area}" for area, colour in change.recoloured]
        lines += [f"another parent: {area}, {old} -> {new}" for area, old, new in change.moved]
        if len(lines) > MAX_NODES:
            lines[MAX_NODES:] = [f"... and {len(lines) - MAX_NODES} lines more"]
        return lines or ["as before"]

    def _rest(self) -> list[str]:
        from emu.explain_text import counter_lines, table

        rows: list[tuple[str, ...]] = []
        if self.faults:
            rows.append(("pages", f"{self.faults} brought in by the call itself (populated)"))
        for what, number in self.ptes.items():
            if number:
                rows.append(("PTEs", f"{number} {what}"))
        for word, tables in (("made", self.tables_made), ("freed", self.tables_freed)):
            for level, address, pfn in tables[:MAX_LISTED]:
                rows.append(("tables", f"{level} table in frame {pfn:#x} {word}, for {address:#x} and up"))
            if len(tables) > MAX_LISTED:
                rows.append(("", f"... and {len(tables) - MAX_LISTED} more"))
        rows.append(("TLB", "to be flushed before user code runs" if self.flush else "needs no flush"))
        return [*table(rows), *counter_lines(self.changed_counters)]


def result_text(name: str, result: int) -> str:
    """A result as strace shows it."""
    from emu.strace_calls import shown_result
    from emu.strace_values import Syscall

    call = Syscall(name, (0,) * 6, lambda address, count: b"", None)
    call.result = result
    return shown_result(call)
