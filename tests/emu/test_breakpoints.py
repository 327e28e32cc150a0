"""Breakpoints, watchpoints and single steps from Python; and that the guest cannot tell."""

import itertools
import re

import pytest
from gdb_world import ARCHES, BUILT

from emu import Machine
from emu.errors import PagewalkError
from emu.peek import peek
from mm.mmdump import mmdump


def symbols(arch: str) -> dict[str, int]:
    """Addresses of the target program's names."""
    from elftools.elf.elffile import ELFFile

    with open(BUILT / arch / "target", "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def machine(arch: str, what: str = "c", **settings: object) -> Machine:
    m = Machine(stdout="capture", **settings)  # type: ignore[arg-type]
    m.load(str(BUILT / arch / "target"), ["target", what])
    return m


def word(m: Machine, address: int) -> int:
    return int.from_bytes(m.read(address, 8), "little")


@pytest.fixture(params=ARCHES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_breakpoint_is_passed_when_the_run_goes_on(arch: str) -> None:
    names = symbols(arch)
    m = machine(arch)
    point = m.breakpoint(names["add"])
    code = peek(m.task.mm, names["add"], 16)
    for expected in ((2, 3), (5, 50)):
        end = m.run()
        hit = m.breakpoints.hit
        assert end.reason == "breakpoint" and hit is not None and hit.point is point and hit.pc == names["add"]
        first = 7 if arch == "x86_64" else 0
        second = 6 if arch == "x86_64" else 1
        assert (m.engine.regs[first], m.engine.regs[second]) == expected
        assert m.read(names["add"], 16) == code
    point.remove()
    assert m.run().status == 3
    assert m.output == b"counter 5 other 50 sum 55\n"


def test_step_is_one_instruction_even_when_it_faults(arch: str) -> None:
    """The program's first instructions fault pages in: each step still moves on by one instruction."""
    m = machine(arch)
    seen = []
    for _ in range(30):
        seen.append(m.engine.regs[m.engine.PC])
        assert m.step() is None
    assert all(a != b for a, b in itertools.pairwise(seen))


def test_watch_stops_behind_the_write_and_knows_the_byte(arch: str) -> None:
    names = symbols(arch)
    m = machine(arch)
    m.watch(names["bytes"] + 4, 1, "w")
    for value in (1, 2, 3, 4, 5):
        assert m.run().reason == "watchpoint"
        hit = m.breakpoints.hit
        assert hit is not None and (hit.address, hit.access) == (names["bytes"] + 4, "w")
        assert m.read(names["bytes"], 5)[3:] == bytes((value - 1, value))
        assert m.engine.regs[m.engine.PC] == hit.pc
    assert m.run().status == 3


def test_watch_reads(arch: str) -> None:
    names = symbols(arch)
    m = machine(arch)
    watch = m.watch(names["other"], 8, "r")
    assert m.run().reason == "watchpoint"
    assert m.breakpoints.hit is not None and m.breakpoints.hit.access == "r"
    assert word(m, names["other"]) == 0
    watch.remove()
    assert m.run().status == 3


def test_events(arch: str) -> None:
    m = machine(arch, "p")
    point = m.breakpoint(event="syscall_exit", name="getppid")
    assert m.run().reason == "breakpoint"
    hit = m.breakpoints.hit
    assert hit is not None and hit.kind == "event" and hit.event.name == "getppid"
    point.remove()
    assert m.run().status == 0


def test_until_and_breakpoints_together(arch: str) -> None:
    names = symbols(arch)
    m = machine(arch)
    m.breakpoint(names["count"])
    assert m.run(until="syscall").reason == "breakpoint"
    assert m.run(until="syscall").reason == "until"
    assert m.run().status == 3


def test_a_run_stopped_from_outside_goes_on_where_it_was(arch: str) -> None:
    names = symbols(arch)
    m = machine(arch, "l")
    m.breakpoint(names["add"])  # never reached
    last = 0
    for i in range(20):
        assert m.run(timeout=0.001 * (1 + i % 3)).reason == "timeout"
        assert word(m, names["counter"]) > last
        last = word(m, names["counter"])


def dump(m: Machine) -> str:
    """Every structure of the memory of the program, at its last system call."""
    assert m.run(until=lambda event: event.kind == "syscall_enter" and event.name == "exit_group").reason == "until"
    return mmdump(m.task)


def test_the_guest_cannot_tell(arch: str) -> None:
    """Areas, vmacache, every page-table entry with its A and D bits, and the counters: the same with and without."""
    names = symbols(arch)
    plain = machine(arch)
    expected, now = dump(plain), plain.kernel.clock.now
    m = machine(arch)
    m.breakpoint(names["add"])
    m.watch(names["counter"], 8, "rw")
    m.watch(m.task.mm.start_stack - 64 if m.task.mm is not None else 0, 8, "rw")
    stops = 0
    while m.run(until=lambda event: event.kind == "syscall_enter" and event.name == "exit_group").reason != "until":
        stops += 1
        m.step()
    assert stops > 10
    assert mmdump(m.task) == expected
    assert m.kernel.clock.now == now


def test_a_watched_page_is_followed_through_copy_on_write(arch: str) -> None:
    """After fork the parent's write goes to a new frame: the watchpoint goes with it, and the child's is another's."""
    names = symbols(arch)
    m = machine(arch, "f")
    m.breakpoints.watch(names["sum"], 8, "w", m.task.tgid)
    assert m.run().reason == "watchpoint"
    assert m.breakpoints.hit is not None and m.breakpoints.hit.task is m.task
    assert word(m, names["sum"]) == 5
    assert m.run().status == 0


@pytest.mark.parametrize("arguments", [(-1,), (1 << 64,), (0, 0), (0, 5000), (0, 8, "x")])
def test_wrong_watchpoints(arguments: tuple[int, int, str]) -> None:
    with pytest.raises(PagewalkError, match=re.compile("address|covers|watchpoint")):
        Machine("x86_64").watch(*arguments)
