"""`pagewalk top PROGRAM`: faults, memory and calls on the terminal while the program runs.

Three threads. The main one runs the machine, whose events are counted here. The second draws every so often; what it
needs of the guest's memory is not read by it, but by the listener at the next event after it asked, when the machine
stands still. The third reads keys, and the guest's output, which comes through a pipe: the screen is ours alone.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from emu import cli, draw
from emu.errors import PagewalkError
from emu.peek import area_at
from emu.stats import FAULT_NAMES
from emu.trace import area_label
from emu.trace_summary import Counts

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.options import Options

LINES = 8  # of the guest's output that are kept
LONGEST = 400  # characters of such a line
ROWS = 8  # of areas and of calls
SWAPENTS = 2  # index in rss_stat of what is not resident


class Counters:
    """Listener: what has happened so far."""

    KINDS = ("fault", "syscall_enter", "exec", "exit")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.faults, self.areas, self.calls = Counts(), Counts(), Counts()
        self.due = True  # somebody wants the memory looked at
        self.memory: dict[str, str] = {}

    def __call__(self, event: Any) -> None:
        """Take one event."""
        kind = event.kind
        if kind == "fault":
            self.faults.add(event.result)
            task = self._machine.kernel.tasks.get(event.pid)
            vma = None if task is None or task.mm is None else area_at(task.mm, event.address)
            self.areas.add("(no area)" if vma is None else area_label(vma))
        elif kind == "syscall_enter" and not event.restarted:
            self.calls.add(event.name)
        if self.due and kind != "exit":
            self.due = False
            self.look()

    def look(self) -> None:
        """Sums over the tasks that are alive; called when the machine stands still."""
        found: dict[int, Any] = {}
        lookups = hits = 0
        kernel = self._machine.kernel
        tasks = [task for task in kernel.tasks.values() if task.mm is not None]
        pending = 0
        for task in tasks:
            found[id(task.mm)] = task.mm
            pending += sum(task.rss_stat) - task.rss_stat[SWAPENTS]
            lookups += task.vmacache_find_calls
            hits += task.vmacache_find_hits
        page = self._machine.system.arch.page_size
        pages = pending + sum(sum(mm.rss_stat) - mm.rss_stat[SWAPENTS] for mm in found.values())
        self.memory = {
            "resident": draw.rough_size(pages * page),
            "mapped": draw.rough_size(sum(mm.total_vm for mm in found.values()) * page),
            "page tables": draw.rough_size(sum(mm.pgtables_bytes for mm in found.values())),
            "areas": str(sum(mm.map_count for mm in found.values())),
            "vmacache hits": f"{100 * hits / lookups:.1f}%" if lookups else "-",
            "tasks": str(len(tasks)),
            "clock": f"{kernel.clock.now / 1e9:.6f} s",
        }


class Screen:
    """Draws the counters.

    Args:
        counters: what to draw.
        output: the guest's last lines.
        name: of the program.
    """

    def __init__(self, counters: Counters, output: deque[str], name: str) -> None:
        self._counters = counters
        self._output = output
        self._name = name
        self._before: dict[Any, int] = {}
        self._when = perf_counter()
        self.state = "running"

    def draw(self) -> Any:
        """The whole screen, as rich draws it."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        counters = self._counters
        now = perf_counter()
        passed, self._when = max(now - self._when, 1e-6), now
        rows = dict(counters.faults.rows)
        faults = Table("faults", "all", "a second", box=None, title=f"{counters.faults.total} page faults")
        for kind, count in sorted(rows.items(), key=lambda row: -row[1]):
            rate = (count - self._before.get(kind, 0)) / passed
            faults.add_row(Text(FAULT_NAMES.get(str(kind), str(kind))), str(count), f"{rate:.0f}")
        self._before = rows
        memory = Table.grid(padding=(0, 2))
        for name, value in counters.memory.items():
            memory.add_row(name, Text(value))
        top = Table.grid(padding=(0, 4))
        top.add_row(faults, memory)
        below = Table.grid(padding=(0, 4))
        below.add_row(_ranking("hottest areas", counters.areas), _ranking("calls", counters.calls))
        head = Text(f"pagewalk top {self._name}: {self.state}    space: pause, q: quit", style="bold")
        output = Panel(Text("\n".join(self._output)), title="output", height=LINES + 2)
        return Group(head, "", top, "", below, output)


def _ranking(title: str, counts: Counts) -> Any:
    """The most frequent of a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title, "", box=None)
    for key, count in sorted(dict(counts.rows).items(), key=lambda row: -row[1])[:ROWS]:
        table.add_row(Text(str(key)), str(count))
    return table


class Keys:
    """The thread that reads the keyboard and the guest's output.

    Args:
        machine: stopped with reason "pause" or "quit" when a key says so.
        pipe: the guest's output.
        output: gets its lines.
    """

    def __init__(self, machine: Machine, pipe: int, output: deque[str]) -> None:
        self._machine = machine
        self._pipe = pipe
        self._output = output
        self._over, self._wake = os.pipe()
        self.paused = False
        self.quit = False
        self.changed = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        sources = [sys.stdin.fileno(), self._pipe, self._over]
        line = ""
        while True:
            ready = select.select(sources, [], [])[0]
            if self._pipe in ready:
                text = os.read(self._pipe, 65536).decode("utf-8", "replace")
                *whole, line = (line + text).split("\n")
                self._output.extend(map(printable, whole))
                line = line[-LONGEST:]
                continue
            if self._over in ready:
                if line:
                    self._output.append(printable(line))
                return
            keys = os.read(sources[0], 64)
            if not keys:
                sources.remove(sys.stdin.fileno())
            self._press(keys)

    def _press(self, keys: bytes) -> None:
        """Keys were pressed."""
        for key in keys:
            if key in b"qQ":
                self.quit = True
                self._machine.stop("quit")
            elif key == 0x20:
                self.paused = not self.paused
                if self.paused:
                    self._machine.stop("pause")
        self.changed.set()

    def wait_to_go_on(self) -> bool:
        """Sleep until the pause is over; False: quit."""
        while self.paused and not self.quit:
            self.changed.wait()
            self.changed.clear()
        return not self.quit

    def close(self) -> None:
        """End the thread, once it has read all output."""
        os.write(self._wake, b"\0")
        self._thread.join()
        for fd in (self._over, self._wake):
            os.close(fd)


def printable(line: str) -> str:
    """A line of the guest's without what would move the cursor."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "·" for c in line[:LONGEST])


def top(options: Options) -> int:
    """The command; the guest's status, 130 when it was ended by `q`."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PagewalkError("top needs a terminal for input and output (run --stats prints the same at the end)")
    import termios
    import tty

    pipe, write = os.pipe()
    output: deque[str] = deque(maxlen=LINES)
    machine = cli.build(options, stdin=b"", stdout=write, stderr=write)
    counters = Counters(machine)
    machine.subscribe(counters, *Counters.KINDS)
    cli.load(machine, options)
    old = termios.tcgetattr(sys.stdin)
    keys = Keys(machine, pipe, output)
    try:
        tty.setcbreak(sys.stdin)
        return _watch(machine, options, counters, keys, output)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, old)
        machine.close()
        os.close(write)
        os.close(pipe)


def _watch(machine: Machine, options: Options, counters: Counters, keys: Keys, output: deque[str]) -> int:
    """Run under the screen, then leave the last one where it can be read."""
    from rich.console import Console
    from rich.live import Live

    screen = Screen(counters, output, os.path.basename(options.program))
    console = Console()
    over = threading.Event()
    status, message, outcome = 0, "", "ended by q"
    with Live(screen.draw(), console=console, screen=True, auto_refresh=False) as live:

        def redraw() -> None:
            while not over.wait(options.interval):
                counters.due = True
                screen.state = "paused" if keys.paused else "running"
                live.update(screen.draw(), refresh=True)

        drawer = threading.Thread(target=redraw, daemon=True)
        drawer.start()
        try:
            while True:
                end = machine.run(max_instructions=options.max_instructions, timeout=options.timeout)
                if end.reason == "pause" and keys.wait_to_go_on():
                    continue
                break
        except KeyboardInterrupt:
            keys.quit = True
            outcome = "interrupted"
        finally:
            over.set()
            drawer.join()
            keys.close()
    if keys.quit:
        status = 130
    else:
        outcome, message, status = cli.describe(end, options)
    screen.state = outcome
    console.print(screen.draw())
    if message:
        print(message, file=sys.stderr)
    return status
