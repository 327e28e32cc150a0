"""Scripted sessions of the real gdb (Debian's gdb-multiarch) on both architectures."""

from collections.abc import Iterator

import pytest
from gdb_world import ARCHES, GDB, Debugged, said

BOTH = ("set detach-on-fork off", "set schedule-multiple on")
pytestmark = pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed (apt-get install gdb-multiarch)")


@pytest.fixture(params=ARCHES)
def arch(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_break_step_finish(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("break add", "continue", "bt 2", "p a * 10 + b", "stepi", "next", "p result", "finish", "kill")
    said(text, r"^Breakpoint 1, add \(a=2, b=3\)", r"^#0  add \(a=2, b=3\)", r"^#1 .* in run \(\)", r"^\$1 = 23")
    said(text, r"^\$2 = 5", r"Value returned is \$3 = 5")
    assert run.end()[0] == 137


def test_to_the_end(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("tbreak count", "continue", "continue")
    said(text, r"^Temporary breakpoint 1, count \(\)", r"exited with code 03\]")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_watch(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("watch counter", "continue", "continue", "p other", "delete", "continue")
    said(text, "Old value = 0", "New value = 1", r"^31\s", "Old value = 1", "New value = 2", r"^31\s", r"^\$1 = 10")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_watch_is_exact_to_the_byte(arch: str) -> None:
    """bytes[3] and bytes[4] lie side by side: a watchpoint on one does not see the other."""
    run = Debugged(arch, "c")
    text = run.gdb("awatch bytes[4]", "continue", "p bytes[3]", "continue", "p bytes[3]", "delete", "continue")
    said(text, "Old value = 0", "New value = 1", r"^\$1 = 0", "Old value = 1", "New value = 2", r"^\$2 = 1")
    assert run.end()[0] == 3


def test_rwatch(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("rwatch table[2]", "rwatch other", "continue", "p counter", "delete", "continue")
    said(text, "read watchpoint 2: other", "Value = 0", r"^\$1 = 1")
    assert run.end()[0] == 3


def test_sigsegv_with_its_address(arch: str) -> None:
    run = Debugged(arch, "s")
    text = run.gdb("continue", "p $_siginfo.si_signo", "p $_siginfo._sifields._sigfault.si_addr", "bt 1", "continue")
    said(text, "received signal SIGSEGV", r"crash \(where=4660\)", r"^\$1 = 11", r"^\$2 = \(void \*\) 0x1234", "^#0  ")
    said(text, "Program terminated with signal SIGSEGV")
    assert run.end()[0] == 139


def test_signal_with_a_handler(arch: str) -> None:
    run = Debugged(arch, "u")
    text = run.gdb("break on_signal", "continue", "p signo", "continue", "p signo", "continue")
    said(text, "received signal SIGUSR1", "Breakpoint 1, on_signal", r"^\$1 = 10|^\$2 = 10")
    assert run.end() == (0, "handled 10\n")


def test_a_signal_is_not_passed_on(arch: str) -> None:
    run = Debugged(arch, "u")
    run.gdb("handle SIGUSR1 stop nopass", "continue", "continue")
    assert run.end() == (0, "handled 0\n")


def test_memory_map_and_auxv(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("info proc mappings", "info auxv", "info inferiors", "kill")
    said(text, r"r-xp   /target", r"\[vdso\]", r"rw-p   \[stack\]", r"AT_PAGESZ .* 4096", r"AT_NULL")
    assert run.end()[0] == 137


def test_registers_and_memory_can_be_written(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb(
        "break add", "continue", "set var a = 40", "p table[7]", "set var table[7] = 80", "p table", "p readonly",
        "finish", "p $pc", "delete", "continue",
    )  # fmt: skip
    said(text, r"^\$1 = 8", r"\{1, 2, 3, 4, 5, 6, 7, 80\}", '"read only"', "Value returned is .* = 43")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_a_function_of_the_program_is_called(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb("break count", "continue", "p add(20, 22)", "p sum", "delete", "continue")
    said(text, r"^\$1 = 42", r"^\$2 = 42")
    assert run.end()[0] == 3


def test_monitor(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb(
        "break count", "continue", "monitor vma", "monitor vma $pc", "monitor tree", "monitor pagetables $sp",
        "monitor faults", "monitor help", "monitor nonsense", "monitor vma rubbish", "kill",
    )  # fmt: skip
    said(text, r"r-xp .* /target", r"vm_flags 0x[0-9a-f]+ .*VM_EXEC", "pgd|root|\\[stack\\]", r"^physical 0x")
    said(text, r"page faults since the program began", r"user exec at 0x", "monitor pagetables ADDR", "unknown command")
    said(text, "not an address: rubbish")
    run.end()


def test_catch_syscall(arch: str) -> None:
    run = Debugged(arch, "p")
    text = run.gdb("catch syscall getppid", "continue", "continue", "delete", "continue")
    said(text, r"call to syscall getppid", r"returned from syscall getppid", r"exited normally")
    assert run.end()[0] == 0


def test_threads(arch: str) -> None:
    run = Debugged(arch, "t")
    text = run.gdb(
        "break add", "continue", "info threads", "thread 2", "bt 2", "set scheduler-locking on", "stepi", "stepi",
        "set scheduler-locking off", "delete", "continue",
    )  # fmt: skip
    said(
        text, r"Breakpoint 1, add \(a=1, b=2\)", r"^\* 1 .*add", r"^  2 .*", r"Switching to thread 2", "exited normally"
    )
    assert run.end()[0] == 0


def test_fork_follow_parent_and_child(arch: str) -> None:
    run = Debugged(arch, "f")
    text = run.gdb("break add", "continue", "continue")
    said(text, r"Detaching after fork from child", r"Breakpoint 1, add \(a=4, b=1\)", r"exited normally")
    assert run.end()[0] == 0
    run = Debugged(arch, "f")
    text = run.gdb("set follow-fork-mode child", "break add", "continue", "continue")
    said(text, r"Attaching after .* fork to child", r"Breakpoint 1, add \(a=30, b=3\)", r"exited with code 04")
    assert run.end()[0] == 0


def test_both_sides_of_a_fork(arch: str) -> None:
    run = Debugged(arch, "f")
    text = run.gdb("break add", "continue", "info inferiors", "continue", "inferior 1", "continue", before=BOTH)
    said(text, r"Thread 2.1 .*Breakpoint 1.*, add \(a=30, b=3\)", r"process 28", r"Inferior 2 .*exited with code 04")
    said(text, r"Breakpoint 1.*, add \(a=4, b=1\)")
    run.end()


def test_exec(arch: str) -> None:
    run = Debugged(arch, "e")
    text = run.gdb("catch exec", "continue", "delete", "break count", "continue", "continue")
    said(text, r"Catchpoint 1 \(exec'd", r"Breakpoint 2, count", r"exited with code 03")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_detach_and_come_back(arch: str) -> None:
    run = Debugged(arch, "c")
    run.gdb("break count", "continue", "detach")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_disconnect_with_a_pending_signal(arch: str) -> None:
    """What was stopped for the debugger happens when it is gone."""
    run = Debugged(arch, "u")
    run.gdb("continue", "disconnect")
    assert run.end() == (0, "handled 10\n")


def test_reverse(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb(
        "break count", "continue", "set $a = $pc", "stepi", "stepi", "set $b = $pc", "stepi", "reverse-stepi",
        "p $pc == $b", "reverse-stepi", "reverse-stepi", "p $pc == $a", "break add", "reverse-continue", "p a", "p sum",
        "reverse-continue", "delete", "watch counter", "continue", "continue", "reverse-continue", "p counter",
        "delete", "continue",
    )  # fmt: skip
    said(text, r"^\$1 = 1", r"^\$2 = 1", r"Breakpoint 2, add", r"^\$3 = 2", r"^\$4 = 0", "No more reverse-execution")
    said(text, "New value = 2", "Old value = 2", "New value = 1", r"^\$5 = 1")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")  # once


def test_reverse_with_threads(arch: str) -> None:
    run = Debugged(arch, "t")
    text = run.gdb(
        "break add", "continue", "p ready", "watch ready", "reverse-continue", "p ready", "delete", "continue"
    )
    said(text, r"^\$1 = 1", "Old value = 1", "New value = 0", r"^\$2 = 0", "exited normally")
    assert run.end()[0] == 0


def test_no_reverse_where_the_run_is_not_repeatable(arch: str) -> None:
    run = Debugged(arch, "i", stdin=b"abc\n")
    text = run.gdb("break say", "continue", "reverse-stepi", "continue")
    said(text, "no reverse execution: the run cannot be repeated: it has read standard input", "No more reverse")
    assert run.end() == (0, "read abc\n")
    run = Debugged(arch, "c", options=("--clock", "host"))
    said(run.gdb("stepi", "reverse-stepi", "kill"), "its time is the host's")
    run.end()
    run = Debugged(arch, "c")
    said(run.gdb("break add", "continue", "set var a = 9", "reverse-stepi", "kill"), "the debugger changed registers")
    run.end()


def test_a_debugger_comes_late(arch: str) -> None:
    """suspend=n: the program runs before the debugger comes."""
    run = Debugged(arch, "l", options=("-g", "0,suspend=n"))
    text = run.gdb("bt 1", "p counter >= 0", "kill")
    said(text, r"in run \(\)|run \(\) at", r"^\$1 = 1")
    assert run.end()[0] == 137


def test_monitor_explain(arch: str) -> None:
    """The SIGSEGV at hand, told in steps; it happens again in a machine of its own, and here nothing changes."""
    run = Debugged(arch, "s")
    text = run.gdb(
        "continue", "monitor explain", "p $_siginfo._sifields._sigfault.si_addr", "monitor explain 1", "kill"
    )
    said(text, "received signal SIGSEGV", "1234", "find_vma", "SEGV_MAPERR|SIGSEGV", r"^\$1 = .* 0x1234", "find_vma")
    assert run.end()[0] == 137


def test_run_again(arch: str) -> None:
    run = Debugged(arch, "c")
    text = run.gdb(
        "break count", "continue", "set remote exec-file /target", "run", "p counter", "delete", "continue",
        how="extended-remote",
    )  # fmt: skip
    said(text, "^Breakpoint 1, count", "^Breakpoint 1, count", r"^\$1 = 0", "exited with code 03")
    assert run.end() == (3, "counter 5 other 50 sum 55\n")
