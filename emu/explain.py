"""`pagewalk explain`: page faults and memory calls of a run, told step by step from the real structures.

    explainer = machine.explain(last=True)      # or faults=[3], addresses=[0x401000], every=True, calls=["mmap:2"]
    machine.run()
    print(explainer.last)                       # a FaultExplanation

While an `Explainer` is attached, `arch.do_page_fault` is wrapped and events are listened to; only the faults and calls
that are asked for are recorded. Without one nothing is different.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from emu.explain_call import CallExplanation, CallWanted
from emu.explain_fault import FaultExplanation
from emu.explain_steps import Decisions, Sources
from emu.explain_walk import rules_of
from emu.explain_where import Images, Instruction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from emu.machine import Machine
    from emu.options import Options
    from mm.types import MmStruct

__all__ = ["CallExplanation", "Explainer", "FaultExplanation", "explain"]


class Explainer:
    """Explains faults and calls of one machine while it runs.

    Args:
        machine: the machine. Attach before `load()`, so that faults are numbered as in the trace.
        faults: numbers of faults, from 1.
        addresses: every fault in the page of one of these.
        every: every fault.
        last: keep the last one.
        calls: memory calls: numbers from 1, or "NAME" or "NAME:K".
        told: called with each explanation asked for once it is complete (`last` excepted); else they are collected.

    Attributes:
        faults, calls: the explanations, where no `told` took them.
        last: the last fault; fatal: the last one that ended in a signal.
        count: faults so far. memory_calls: memory calls so far.
    """

    def __init__(
        self,
        machine: Machine,
        faults: Iterable[int] = (),
        addresses: Iterable[int] = (),
        every: bool = False,
        last: bool = True,
        calls: Iterable[Any] = (),
        told: Callable[[Any], None] | None = None,
    ) -> None:
        self.machine = machine
        self.faults: list[FaultExplanation] = []
        self.calls: list[CallExplanation] = []
        self.last: FaultExplanation | None = None
        self.fatal: FaultExplanation | None = None
        self.count = 0
        self.memory_calls: dict[str, int] = {}
        self._numbers = set(faults)
        self._addresses = tuple(addresses)
        self._every = every
        self._keep_last = last
        self._wanted = [CallWanted(call) for call in calls]
        self._told = told
        self._sources = Sources()
        self._images = Images()
        self._engine: Any = None
        self._fault: FaultExplanation | None = None  # being served
        self._unsettled: FaultExplanation | None = None  # asked for; what its signal does is not yet known
        self._call: CallExplanation | None = None  # being served
        self._waiting: dict[int, int] = {}  # pid -> number of its fault that waits for a userfaultfd
        self._started: set[int] = set()  # pids that run a program
        self._entered: dict[int, Any] = {}  # pid -> the call it is in
        self._serve: Any = None
        self._unsubscribe: Callable[[], None] | None = None
        machine.explainers.append(self)
        self.attach()

    # ---- attaching

    def attach(self) -> None:
        """Put the wrapper in place; nothing happens until the machine is built, which calls it again."""
        if self._serve is None and hasattr(self.machine, "system"):
            arch = self.machine.system.arch
            self._serve = arch.do_page_fault
            setattr(arch, "do_page_fault", self._page_fault)  # noqa: B010 - mypy forbids it for a method
            self._unsubscribe = self.machine.subscribe(self._event)

    def remove(self) -> None:
        """Stop explaining."""
        self._end_call(None)
        self._settle()
        if self._serve is not None:
            vars(self.machine.system.arch).pop("do_page_fault", None)
            self._serve = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self in self.machine.explainers:
            self.machine.explainers.remove(self)

    # ---- what explanations ask for

    def decisions(self) -> Decisions:
        """A new listener to what the memory manager decides."""
        return Decisions(self._sources)

    def tasks(self) -> Iterable[Any]:
        """All tasks."""
        return self.machine.kernel.tasks.values()

    def instruction(self, mm: MmStruct) -> Instruction:
        """The one at the program counter."""
        rules = rules_of(mm.arch.name)
        if self._engine is None:
            self._engine = rules.disassembler()
        cpu = self.machine.kernel.cpu
        registers = tuple(cpu.regs[number] for number in range(max(rules.REGISTERS.values()) + 1))
        bases = {"fs": cpu.get_tls(), "gs": cpu.get_gs()}
        address = registers[rules.REGISTERS[rules.PROGRAM_COUNTER]]
        return Instruction(self._images, self._engine, mm, address, registers, bases)

    def call_in_progress(self, task: Any) -> str:
        """The system call a task is in, in words."""
        event = self._entered.get(task.pid)
        if event is not None:
            return f"for the system call {call_text(self.machine, event)}"
        if task.pid not in self._started:
            return "to start the program (execve)"
        return "between two instructions, for the frame of a signal or the like"

    # ---- faults

    def _page_fault(self, task: Any, error_code: int, address: int, user: bool = True, tried: int = 0) -> Any:
        """do_page_fault() of the architecture, with somebody who listens."""
        if not tried:
            self.count += 1
        number = self._waiting.pop(task.pid, self.count) if tried else self.count
        if task.mm is None or not self._wants(number, address):
            return self._serve(task, error_code, address, user, tried)
        fault = FaultExplanation(self, number, task, error_code, address, user, bool(tried))
        before, self._fault = self._fault, fault
        signal = None
        fault.decisions.start()
        try:
            signal = self._serve(task, error_code, address, user, tried)
        finally:
            fault.decisions.stop()
            self._fault = before
            fault.end(task, signal)
            if fault.waits:
                self._waiting[task.pid] = number
            self._fault_done(fault)
        return signal

    def _wants(self, number: int, address: int) -> bool:
        if self._every or self._keep_last or number in self._numbers:
            return True
        mask = self.machine.system.arch.page_mask
        return any((address ^ wanted) & mask == 0 for wanted in self._addresses)

    def _asked_for(self, fault: FaultExplanation) -> bool:
        if self._every or fault.number in self._numbers:
            return True
        return any((fault.address ^ wanted) & -fault.page_size == 0 for wanted in self._addresses)

    def _fault_done(self, fault: FaultExplanation) -> None:
        self.last = fault
        if fault.signal is not None and fault.user:
            self.fatal = fault
        if self._asked_for(fault):
            self._settle()
            self._unsettled = fault
            if fault.signal is None or not fault.user:
                self._settle()

    def _settle(self) -> None:
        """Tell the fault whose signal was waited for."""
        fault, self._unsettled = self._unsettled, None
        if fault is not None:
            self._tell(fault, self.faults)

    def _tell(self, explanation: Any, kept: list[Any]) -> None:
        if self._told is not None:
            self._told(explanation)
        else:
            kept.append(explanation)

    # ---- events

    def _event(self, event: Any) -> None:
        kind = event.kind
        if self._fault is not None:
            self._fault.event(event)
        if self._call is not None:
            self._call.event(event)
        if kind == "syscall_enter":
            self._entered[event.pid] = event
            self._enter(event)
        elif kind == "syscall_exit":
            self._entered.pop(event.pid, None)
            self._end_call(event)
        elif kind == "exit":
            self._entered.pop(event.pid, None)
            self._end_call(None)
        elif kind == "switch":
            self._end_call(None)
        elif kind == "signal":
            self._signal(event)
        elif kind == "exec":
            self._started.add(event.pid)
        elif kind == "fork":
            self._started.add(event.child)

    def _signal(self, event: Any) -> None:
        """What became of a fault's signal."""
        fault = self.fatal
        if fault is not None and not fault.action and fault.pid == event.pid and fault.signal is not None:
            if fault.signal.signo == event.signal:
                fault.action, fault.handler = event.action, event.handler
                self._settle()

    def _enter(self, event: Any) -> None:
        if not self._wanted or event.restarted or not CallWanted.is_memory_call(event.name):
            return
        self._end_call(None)
        for name in ("", event.name):
            self.memory_calls[name] = self.memory_calls.get(name, 0) + 1
        total, own = self.memory_calls[""], self.memory_calls[event.name]
        if any(wanted.matches(event.name, total, own) for wanted in self._wanted):
            self._await(event, total, own)

    def _await(self, event: Any, total: int, own: int) -> None:
        """Begin when the call is really made: a run may stop where it starts (`run(until="syscall")`)."""
        kernel = self.machine.kernel
        before = kernel.interceptor

        def begin(enter: Any) -> int | None:
            kernel.interceptor = before
            if (enter.pid, enter.args) != (event.pid, event.args):  # it went another way (ptrace)
                return None if before is None else before(enter)
            call = self._call = CallExplanation(self, total, own, kernel.current, event)
            answer = None if before is None else before(enter)
            call.decisions.start()
            return answer

        kernel.interceptor = begin

    def _end_call(self, event: Any) -> None:
        """The call that is explained has returned; or, with None, will not return now."""
        call, self._call = self._call, None
        if call is not None:
            call.decisions.stop()
            call.end(event)
            self._tell(call, self.calls)


def call_text(machine: Machine, event: Any) -> str:
    """A system call as strace shows it where it begins; what the call will fill is shown by its address."""
    from emu.strace import Strace
    from emu.strace_calls import argument_texts

    call = Strace(lambda text: None, machine).syscall(event)
    shown = argument_texts(call, on_entry=True)
    if shown[-1:] == [""]:  # the rest is what the call fills: only where is known
        entry = machine.kernel.calls[event.number]
        known = len(shown) - 1
        shown[known:] = [f"{value:#x}" for value in event.args[known : entry.nargs if entry is not None else 6]]
    return f"{event.name}({', '.join(shown)})"


# ---- the command


def explain(options: Options) -> int:
    """`pagewalk explain`: run, then print the explanations; the run's exit status."""
    import json
    import tempfile

    from emu import cli
    from emu.observe import Observers

    colour = options.color == "always" or (options.color == "auto" and sys.stdout.isatty() and not options.json)
    quiet = options.quiet or options.json
    machine = cli.build(options, **({"stdout": "capture", "stderr": "capture"} if quiet else {}))
    chosen = bool(options.faults or options.addresses or options.every or options.calls)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as spool:
        told = 0

        def tell(explanation: Any) -> None:
            nonlocal told
            told += 1
            if options.json:
                spool.write(json.dumps(explanation.to_dict()) + "\n")
            else:
                spool.write(("\n" if told > 1 else "") + explanation.text(colour) + "\n")

        last = options.last or not chosen
        explainer = Explainer(machine, options.faults, options.addresses, options.every, last, options.calls, tell)
        observers = Observers(machine, options)
        try:
            cli.load(machine, options)
            status = cli.finish(machine, options, observers.closing)
        finally:
            observers.close()
            explainer.remove()
        if last:
            final = explainer.fatal if status > 128 and explainer.fatal is not None else explainer.last
            if final is not None:
                tell(final)
        sys.stdout.flush()
        spool.seek(0)
        for text in iter(lambda: spool.read(1 << 16), ""):
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    _complain_if_missing(explainer, options, told)
    return status


def _complain_if_missing(explainer: Explainer, options: Options, told: int) -> None:
    """Say what was asked for and never came. Raises PagewalkError when there was nothing to tell at all."""
    for number in options.faults:
        if number > explainer.count:
            raise PagewalkError(f"--fault {number}: the run had only {explainer.count} faults")
    if options.calls and not told:
        counts = explainer.memory_calls
        made = ", ".join(f"{count} {name}" for name, count in counts.items() if name) or "none"
        raise PagewalkError(f"--call {options.calls[0]}: the run had no such memory call ({made})")
    if not told:
        raise PagewalkError("nothing to explain: no such fault happened")
