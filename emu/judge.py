"""`--judge`: a replaced algorithm runs beside ours, and the first call whose outcome differs ends the run.

The outcome is the answer and the state after it. An algorithm that only looks (find_vma, the caches, the searches for
free space) is run in place, ours first, and what it left in the task's vmacache is put back before the other's turn.
One that changes the address space cannot be taken back, so ours runs in a forked copy of the whole process, which sends
home what it made of the same call:

    call --> fork --child--> ours, answer and state --pipe--+
               |                                            compare --> go on, or Divergence with both drawn
               +-----------> theirs, answer and state ------+
"""

from __future__ import annotations

import errno
import os
from difflib import unified_diff
from typing import TYPE_CHECKING, Any
from zlib import crc32

from emu.algorithm import Algorithm, AlgorithmError, guarded
from emu.draw_tree import tree_text
from mm.errors import Errno
from mm.mmdump import Ids, leaf_lines, rb_lines, vma_line
from mm.types import MmStruct, VmAreaStruct

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine

LOOKS = ("find_vma", "find_vma_links", "unmapped_area", "unmapped_area_topdown", "vmacache_find", "vmacache_update")
FAULTS = {
    "handle_mm_fault": 1,
    "do_wp_page": 2,
}  # algorithms that serve a fault of an area: which argument is the address


class Divergence(AlgorithmError):
    """Theirs and ours disagree.

    Attributes:
        name: of the slot.
        call: the arguments, in words.
        ours, theirs: the answers, in words.
        report: everything, drawn: several lines.
    """

    def __init__(self, name: str, call: str, ours: str, theirs: str, report: str) -> None:
        what = f"is {ours}, yours says {theirs}"
        if ours == theirs:
            what = f"is {ours}, and yours says so, but leaves another state behind"
        super().__init__(f"--judge: {name}({call}) {what}")
        self.name = name
        self.call = call
        self.ours = ours
        self.theirs = theirs
        self.report = report


class Judge:
    """Watches the replaced slots of one machine."""

    def __init__(self, machine: Machine, algorithms: list[Algorithm]) -> None:
        self._machine = machine
        self._ops = machine.system.mm_ops
        self._ours = {name: getattr(self._ops, name) for name in self._ops.__slots__}
        self._judged: dict[str, Any] = {}
        self.calls = 0  # compared so far
        for algorithm in algorithms:
            judged = self._looked if algorithm.name in LOOKS else self._forked
            self._judged[algorithm.name] = self._wrap(judged, algorithm.name, guarded(algorithm))
        self._enter(self._judged)

    def _wrap(self, judged: Callable[..., Any], name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: judged(name, theirs, arguments)

    def _enter(self, functions: dict[str, Any]) -> None:
        for name, function in functions.items():
            setattr(self._ops, name, function)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Errno | None]:
        """The answer, or the refusal."""
        try:
            return function(*arguments), None
        except Errno as error:
            return None, error

    def _reference(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Errno | None]:
        """Ours, calling nothing but ours."""
        self._enter(self._ours)
        try:
            return self._run(self._ours[name], arguments)
        finally:
            self._enter(self._judged)

    # ---- algorithms that only look

    def _looked(self, name: str, theirs: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        task: Any = self._machine.kernel.current
        before = _cache(task)
        answer, error = self._reference(name, arguments)
        ours = said(answer, error), _cache(task)
        _restore(task, before)
        answer, error = self._run(theirs, arguments)
        yours = said(answer, error), _cache(task)
        self.calls += 1
        if ours[0] != yours[0] or ours[1][0] != yours[1][0]:
            mm = arguments[0]
            state = [_cache_text(ours[1]), _cache_text(yours[1])]
            self._diverge(name, arguments, ours[0], yours[0], [tree_text(mm)], state)
        if error is not None:
            raise error
        return answer

    # ---- algorithms that change the address space

    def _forked(self, name: str, theirs: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        first = arguments[0]
        mm: MmStruct = first if isinstance(first, MmStruct) else first.vm_mm
        fault = (first, arguments[FAULTS[name]]) if name in FAULTS else None
        tree = tree_text(mm)
        told = self._in_a_copy(name, arguments, mm, fault)
        shown = described(arguments)  # before the areas change
        answer, error = self._run(theirs, arguments)
        ours, _, ours_state = told.partition("\n")
        yours, yours_state = said(answer, error), state_text(mm, fault)
        self.calls += 1
        if ours != yours or ours_state != yours_state:
            difference = unified_diff(
                ours_state.splitlines(), yours_state.splitlines(), "after ours", "after yours", lineterm="", n=1
            )
            self._diverge(name, shown, ours, yours, ["before:", tree], list(difference))
        if error is not None:
            raise error
        return answer

    def _in_a_copy(self, name: str, arguments: tuple[Any, ...], mm: MmStruct, fault: Any) -> str:
        """Answer and state after ours, from a fork of this process."""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(read)
                self._machine.system.listener = None
                answer, error = self._reference(name, arguments)
                text = f"{said(answer, error)}\n{state_text(mm, fault)}"
                with open(write, "wb") as pipe:
                    pipe.write(text.encode("utf-8", "surrogateescape"))
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            text = pipe.read().decode("utf-8", "surrogateescape")
        os.waitpid(child, 0)
        if not text:
            raise AlgorithmError(f"--judge: our own {name} failed in its copy")
        return text

    def _diverge(self, name: str, arguments: Any, ours: str, yours: str, before: list[str], after: list[str]) -> None:
        call = arguments if isinstance(arguments, str) else described(arguments)
        lines = [f"{name}({call})", f"  ours : {ours}", f"  yours: {yours}", "", *before]
        if after:
            lines += ["", *after]
        raise Divergence(name, call, ours, yours, "\n".join(lines))


# ---- words


def _cache(task: Any) -> tuple[tuple[Any, ...], int, int, int]:
    """A task's vmacache and its counters."""
    if task is None:
        return (), 0, 0, 0
    return tuple(task.vmacache), task.vmacache_seqnum, task.vmacache_find_calls, task.vmacache_find_hits


def _restore(task: Any, kept: tuple[tuple[Any, ...], int, int, int]) -> None:
    if task is not None:
        task.vmacache[:] = kept[0]
        _, task.vmacache_seqnum, task.vmacache_find_calls, task.vmacache_find_hits = kept


def _cache_text(kept: tuple[tuple[Any, ...], int, int, int]) -> str:
    return "vmacache " + " ".join("-" if vma is None else f"{vma.vm_start:x}" for vma in kept[0])


def said(answer: Any, error: Errno | None = None) -> str:
    """An answer in words that two runs can be compared by."""
    if error is not None:
        return f"-{errno.errorcode.get(error.number, error.number)}"
    if isinstance(answer, VmAreaStruct):
        return f"VMA {answer.vm_start:x}-{answer.vm_end:x}"
    if isinstance(answer, bool) or answer is None:
        return str(answer)
    if isinstance(answer, int):
        return f"{answer:#x}"
    if isinstance(answer, tuple):
        return f"({', '.join(said(item) for item in answer)})"
    return repr(answer)


def described(arguments: tuple[Any, ...]) -> str:
    """The arguments of a call, without the address space itself."""
    words = []
    for argument in arguments:
        if isinstance(argument, MmStruct):
            words.append("mm")
        elif hasattr(argument, "low_limit"):
            words.append(f"length={argument.length:#x} [{argument.low_limit:#x}, {argument.high_limit:#x})")
        elif isinstance(argument, (int, VmAreaStruct)) or argument is None:
            words.append(said(argument))
        else:
            words.append(type(argument).__name__)
    return ", ".join(words)


def state_text(mm: MmStruct, fault: tuple[VmAreaStruct, int] | None) -> str:
    """Areas, tree and counters of an address space; of a fault (area, address) also what it can change of pages."""
    lines: list[str] = [
        f"mm map_count={mm.map_count} total_vm={mm.total_vm} data_vm={mm.data_vm} stack_vm={mm.stack_vm}"
        f" locked_vm={mm.locked_vm} highest_vm_end={mm.highest_vm_end:x} pgtables_bytes={mm.pgtables_bytes}"
    ]
    anons = Ids()
    area = mm.mmap
    while area is not None:
        lines.append(vma_line(area, anons))
        area = area.vm_next
    rb_lines(mm.mm_rb.rb_node, lines)
    if fault is not None:
        leaf_lines(fault[0], Ids(), lines)
        lines += page_lines(mm, fault[1])
    return "\n".join(lines)


def page_lines(mm: MmStruct, address: int) -> list[str]:
    """What the page at `address` holds, and the counters a fault moves."""
    from mm.pgtable import pte_offset

    system, arch = mm.system, mm.arch
    own: Any = system.current
    rss = [count + (own.rss_stat[i] if own is not None and own.mm is mm else 0) for i, count in enumerate(mm.rss_stat)]
    lines = [f"rss {rss} free_frames={system.nr_free_pages()} tlb_flush_pending={mm.tlb_flush_pending}"]
    index = pte_offset(mm, address & arch.page_mask)
    pte = system.words[index] if index >= 0 else 0
    if arch.pte_present(pte):
        start = arch.pte_pfn(pte) * arch.page_size
        lines.append(f"page {address & arch.page_mask:x} crc32={crc32(system.ram[start : start + arch.page_size]):08x}")
    return lines
