"""`--stats`: one screen about a finished run.

`Stats` listens while the program runs: it counts faults and system calls, and looks at the address space of the first
program one last time just before that dies. What the vmacache answered, each task counts itself (mm/vmacache.py).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from emu import draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine
    from mm.types import TaskStruct

MAX_AREAS = 60  # lines of the drawing
FAULT_NAMES = {
    "anon-zero": "anonymous read: zero page",
    "anon": "anonymous write: new page",
    "file-read": "file page, read",
    "file-cow": "file page, private write: copied",
    "file-shared": "file page, shared write",
    "cow-copy": "copy on write",
    "cow-reuse": "write to a page nobody shares: reused",
    "access": "accessed or dirty bit set by software",
    "spurious": "spurious",
    "huge": "huge page",
    "special": "special mapping",
    "refused": "refused: signal or EFAULT",
}


def about_to_end(event: Any) -> bool:
    """Whether its task makes its last step: the `exit` event itself comes when the memory is gone."""
    if event.kind == "syscall_enter":
        return event.name in ("exit_group", "exit")
    return event.kind == "signal" and event.action in ("terminate", "core")


class LastLook:
    """Calls `look(task)` when the first program is about to end, while its memory is still there."""

    def __init__(self, first: Callable[[], Any], look: Callable[[TaskStruct], None]) -> None:
        self._first = first
        self._look = look
        self.done = False

    def __call__(self, event: Any) -> None:
        """Any event; those that end the first program are looked at."""
        if self.done:
            return
        if about_to_end(event):
            task = self._first()
            if task is not None and event.pid == task.pid and task.mm is not None:
                self.done = True
                self._look(task)


class Stats:
    """Collects during the run; `screen()` is the result."""

    def __init__(self, machine: Machine, colour: bool = False) -> None:
        self.machine = machine
        self.faults: dict[str, int] = {}
        self.kernel_faults = 0
        self.major = 0
        self.stack_growth = 0
        self.calls = 0
        self.signals: dict[int, int] = {}
        self.merges: dict[int, int] = {}
        self.counts: dict[str, int] = {}
        self.last: list[str] = []
        self.lookups: dict[int, tuple[int, int]] = {}  # pid -> vmacache lookups, hits
        self._ending = False
        self._last_look = LastLook(lambda: machine.kernel.first, self._look)
        self.colour = colour
        self.started = perf_counter()

    def __call__(self, event: Any) -> None:
        """Take one event."""
        kind = event.kind
        if not (self._ending and kind == "vma_erase"):
            self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == "fault":
            self.faults[event.result] = self.faults.get(event.result, 0) + 1
            self.major += event.major
            self.stack_growth += event.stack
            self.kernel_faults += not event.user
        elif kind == "vma_merge":
            self.merges[event.case] = self.merges.get(event.case, 0) + 1
        elif kind == "syscall_enter" and not event.restarted:
            self.calls += 1
        elif kind == "signal" and event.action != "ignore":
            self.signals[event.signal] = self.signals.get(event.signal, 0) + 1
        if kind == "exit":
            self._ending = False
        elif about_to_end(event):
            self._ending = True  # exit_mmap() will erase what is left: no news
            self._count_cache(self.machine.kernel.tasks.get(event.pid))
        self._last_look(event)

    def _count_cache(self, task: Any) -> None:
        """Take over a task's vmacache counters."""
        if task is not None:
            self.lookups[task.pid] = (task.vmacache_find_calls, task.vmacache_find_hits)

    def _look(self, task: Any) -> None:
        """The address space as it is now, drawn."""
        from emu.draw_pagetables import table_counts
        from emu.draw_tree import tree_text

        mm, colour = task.mm, self.colour
        page = mm.arch.page_size
        title = (
            f"Memory of {task.comm} (pid {task.pid}) at its end: the areas and their red-black tree (R red, B black)"
        )
        self.last = [draw.paint(title, draw.BLACK_NODE, colour), *_fold(tree_text(mm, colour).split("\n")), ""]
        tables = ", ".join(f"{count} {name}" for name, count in table_counts(mm).items())
        zone = mm.system.zone
        used = zone.managed_pages - zone.nr_free_pages
        rss = [mm.rss_stat[index] + task.rss_stat[index] for index in range(4)]
        self.last += [
            f"page tables   {tables} (pgtables_bytes {mm.pgtables_bytes >> 10}K)",
            f"memory        {mm.total_vm * page >> 10}K mapped, resident: {rss[1] * page >> 10}K anonymous, "
            f"{rss[0] * page >> 10}K file, {rss[3] * page >> 10}K shared",
            f"frames        {used} of {zone.managed_pages} in use, {page >> 10}K each",
        ]

    def screen(self, outcome: str, instructions: int | None) -> str:
        """The whole screen.

        Args:
            outcome: how the run ended, in words.
            instructions: executed, where the engine counted them.
        """
        elapsed = perf_counter() - self.started
        kernel = self.machine.kernel
        count = "" if instructions is None else f", {instructions} instructions"
        lines = [
            "",
            draw.paint("pagewalk: " + outcome, draw.BLACK_NODE, self.colour) + f" after {elapsed:.3f} s{count}",
            "",
        ]
        if not self.last and kernel.first is not None and kernel.first.mm is not None:
            self._look(kernel.first)
        lines += self.last
        lines.append(f"system calls  {self.calls}")
        if self.signals:
            from emu.strace_values import signal_name

            shown = ", ".join(f"{count} {signal_name(number)}" for number, count in sorted(self.signals.items()))
            lines.append(f"signals       {shown}")
        for task in kernel.tasks.values():
            self._count_cache(task)
        lookups = sum(pair[0] for pair in self.lookups.values())
        hits = sum(pair[1] for pair in self.lookups.values())
        rate = f"{100 * hits / lookups:.1f}%" if lookups else "-"
        lines.append(f"vmacache      {hits} hits in {lookups} lookups ({rate})")
        changes = " ".join(
            f"{self.counts.get('vma_' + what, 0)} {word}"
            for what, word in (("insert", "inserted,"), ("erase", "erased,"), ("split", "split,"), ("merge", "merged"))
        )
        cases = ", ".join(f"case {case}: {count}" for case, count in sorted(self.merges.items()))
        lines.append(f"VMAs          {changes}{f' ({cases})' if cases else ''}")
        lines += self._fault_lines()
        lines += unknown_call_lines(kernel)
        return "\n".join(lines)

    def _fault_lines(self) -> list[str]:
        """Faults by kind, most frequent first."""
        total = sum(self.faults.values())
        extra = f", {self.kernel_faults} of them by the kernel for a system call" if self.kernel_faults else ""
        if self.stack_growth:
            extra += f", {self.stack_growth} grew the stack"
        if self.major:
            extra += f", {self.major} major"
        lines = [f"page faults   {total}{extra}"]
        for result, count in sorted(self.faults.items(), key=lambda item: -item[1]):
            lines.append(f"  {count:>8}    {FAULT_NAMES.get(result, result)}")
        return lines


def _fold(lines: list[str]) -> list[str]:
    """A drawing too long for a screen without its middle."""
    if len(lines) <= MAX_AREAS:
        return lines
    cut = len(lines) - MAX_AREAS
    return [*lines[: MAX_AREAS // 2], f"... {cut} more, `pagewalk tree` shows all", *lines[-MAX_AREAS // 2 :]]


def unknown_call_lines(kernel: Any) -> list[str]:
    """One line for each system call the guest made that pagewalk does not have."""
    if not kernel.unknown_calls:
        return []
    from guest.syscall_numbers import NAMES

    names = NAMES[kernel.arch.name]
    lines = []
    for number, count in sorted(kernel.unknown_calls.items()):
        times = "" if count == 1 else f", {count} times"
        name = f"{names[number]} ({number})" if number in names else f"number {number}"
        lines.append(f"pagewalk: unknown system call {name}{times}: ENOSYS")
    return lines
