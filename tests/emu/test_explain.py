"""`pagewalk explain`: each text agrees with the structures, on all five geometries."""

from __future__ import annotations

import json
import pathlib
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest
from explain_world import Second
from geometry import IMAGES, KERNELS, arch_of, make_machine

from emu import cli
from emu.errors import PagewalkError
from emu.explain_call import CallWanted

if TYPE_CHECKING:
    from emu.explain import Explainer

GOLDEN = pathlib.Path(__file__).parent / "explained"
FAULTING = ("segv", "cow", "faults", "filemap", "bus", "stack", "repair", "jit", "exec", "lazyzero", "sysvshm", "vdso")
CALLING = ("mmap", "merge", "split", "brk", "sysvshm", "pagetables", "numa", "filemap", "processvm")


def explained(kernel: str, program: str, argv: list[str] | None = None, **choice: Any) -> tuple[Any, Explainer, Any]:
    """(machine, explainer, how the run ended)."""
    machine = make_machine(kernel)
    explainer = machine.explain(**choice)
    machine.load(str(IMAGES / arch_of(kernel) / program), argv or [program])  # stacks depend on the length of a path
    return machine, explainer, machine.run()


@pytest.mark.parametrize("program", FAULTING)
@pytest.mark.parametrize("kernel", KERNELS)
def test_faults_agree_with_the_structures(kernel: str, program: str) -> None:
    machine = make_machine(kernel)
    explainer = machine.explain(last=True)
    second = Second(kernel, machine, explainer)
    machine.load(str(IMAGES / arch_of(kernel) / program))
    machine.run()
    assert second.faults > 3
    assert explainer.count == second.faults


def test_every_kind_of_fault_is_seen() -> None:
    """The programs above have all kinds; without this, the test above could agree about nothing."""
    seen: set[str] = set()
    for program in FAULTING:
        _, explainer, _ = explained("aarch64-4k", program, every=True)
        seen |= {fault.result for fault in explainer.faults}
    wanted = {"anon-zero", "anon", "file-read", "file-cow", "file-shared", "cow-copy", "cow-reuse", "access", "special"}
    assert wanted | {"refused"} <= seen


@pytest.mark.parametrize("program", CALLING)
@pytest.mark.parametrize("kernel", KERNELS)
def test_calls_agree_with_the_structures(kernel: str, program: str) -> None:
    """Areas before and after by the list, merges and splits by the events, a refusal by the check that refused."""
    machine = make_machine(kernel)
    before: dict[int, list[tuple[int, int]]] = {}
    merges: list[Any] = []
    looked = 0

    def areas(mm: Any) -> list[tuple[int, int, int]]:
        return [(vma.vm_start, vma.vm_end, vma.vm_flags) for vma in _list(mm)]

    def enter(event: Any) -> None:
        merges.clear()
        before[event.pid] = areas(machine.kernel.tasks[event.pid].mm)

    def told(call: Any) -> None:
        nonlocal looked
        looked += 1
        task = machine.kernel.tasks[call.pid]
        old, new = before[call.pid], areas(task.mm)
        change = call.change
        assert change.total == (len(old), len(new))
        shown = {(area.start, area.end, area.flags) for area in change.before}
        assert set(old) - set(new) <= shown <= set(old)
        shown = {(area.start, area.end, area.flags) for area in change.after}
        assert set(new) - set(old) <= shown <= set(new)
        assert [case for case, _, _ in call.merges] == [event.case for event in merges if event.kind == "vma_merge"]
        assert len(call.splits) == sum(event.kind == "vma_split" for event in merges)
        refusals = [check for check in call.checks if check.refusal]
        if call.result is not None and -4096 < call.result < 0:
            assert refusals, call.text()
            assert f"{refusals[-1].refusal}" in call.result_text
        nodes = {(area.start, area.end): colour for area, colour, _ in change.linked}
        for vma in _list(task.mm):
            if (vma.vm_start, vma.vm_end) in nodes:
                assert nodes[vma.vm_start, vma.vm_end] == ("red" if vma.rb_red else "black")
        parents = {str(area): above for area, _, above in change.moved}
        for vma in _list(task.mm):
            if f"{vma.vm_start:x}-{vma.vm_end:x}" in parents:
                up = vma.rb_parent
                above = "root" if up is None else f"{up.vm_start:x}-{up.vm_end:x}"
                assert parents[f"{vma.vm_start:x}-{vma.vm_end:x}"] == above
        assert call.text().count("\n") > 8
        json.dumps(call.to_dict())

    machine.subscribe(enter, "syscall_enter")
    names = ("mmap", "munmap", "mprotect", "brk", "mremap", "madvise", "mlock", "munlock", "shmat", "shmdt", "mbind")
    every_ninth = range(1, 600, 9)  # of programs that make hundreds of the same
    machine.explain(calls=every_ninth if program in ("split", "pagetables") else names, last=False, told=told)
    machine.subscribe(merges.append, "vma_merge", "vma_split")
    machine.load(str(IMAGES / arch_of(kernel) / program))
    assert machine.run().status == 0
    assert looked > 2


def _list(mm: Any) -> Any:
    vma = mm.mmap
    while vma is not None:
        yield vma
        vma = vma.vm_next


PAGE, TOP = "page", "top"  # of the geometry
REFUSED: tuple[tuple[str, tuple[Any, ...], str, str], ...] = (
    ("mmap", (0, 0, 3, 0x22, -1, 0), "EINVAL", "the length is 0"),
    ("mmap", (0, PAGE, 3, 0x22, -1, 5), "EINVAL", "the offset is not page aligned"),
    ("mmap", (0, PAGE, 3, 0x20, -1, 0), "EINVAL", "neither MAP_SHARED nor MAP_PRIVATE"),
    ("mmap", (0, PAGE, 3, 0x02, 77, 0), "EBADF", "so it is refused"),
    ("mmap", (3, PAGE, 3, 0x32, -1, 0), "EINVAL", "the address is not page aligned"),
    ("mmap", (0, -1, 3, 0x22, -1, 0), "ENOMEM", "rounded up to pages it overflows to 0"),
    ("mmap", (0, TOP, 3, 0x22, -1, 0), "ENOMEM", ""),
    ("munmap", (3, PAGE), "EINVAL", "the start is not page aligned"),
    ("munmap", (PAGE, 0), "EINVAL", "the length is 0"),
    ("mprotect", (5, PAGE, 1), "EINVAL", "the start is not page aligned"),
    ("mprotect", (PAGE, PAGE, 0x100), "EINVAL", "an unknown protection bit"),
    ("mprotect", (PAGE, PAGE, 1), "ENOMEM", "the start lies in a hole"),
    ("mremap", (PAGE, PAGE, PAGE, 8, 0), "EINVAL", "an unknown flag"),
    ("mremap", (PAGE, PAGE, 0, 0, 0), "EINVAL", "the new length is 0"),
    ("mremap", (PAGE, PAGE, 1 << 20, 0, 0), "EFAULT", "no area contains the address"),
    ("madvise", (PAGE, PAGE, 999), "EINVAL", "the advice is not known"),
    ("madvise", (PAGE, PAGE, 4), "ENOMEM", "the range ends in a hole"),
    ("msync", (PAGE, PAGE, 5), "EINVAL", "both MS_ASYNC and MS_SYNC"),
    ("mlock", (PAGE, PAGE), "ENOMEM", "the start lies in a hole"),
    ("mlockall", (0,), "EINVAL", "no flag, an unknown one, or MCL_ONFAULT alone"),
    ("mincore", (5, PAGE, PAGE), "EINVAL", "the start is not page aligned"),
)


@pytest.mark.parametrize("kernel", KERNELS)
def test_refused_calls_say_why(kernel: str) -> None:
    """The check that is told as the one that refused is the one that did, and everything before it passed."""
    from guest.syscall_numbers import NAMES

    machine = make_machine(kernel)
    machine.load(str(IMAGES / arch_of(kernel) / "hello"))
    machine.run(until=lambda event: event.kind == "fault" and event.user)
    guest = machine.kernel
    numbers = {name: number for number, name in NAMES[guest.arch.name].items()}
    size = machine.system.page_size
    explainer = machine.explain(calls=sorted({call[0] for call in REFUSED}))
    for name, arguments, error, why in REFUSED:
        values = [{PAGE: 3 * size, TOP: 1 << 62}.get(value, value) for value in arguments]
        for register, value in zip(guest.arch.arguments, values, strict=False):
            guest.cpu.regs[register] = value & (1 << 64) - 1
        guest.cpu.regs[guest.number_register] = numbers[name]
        guest.system_call()
        call = explainer.calls[-1]
        assert call.name == name and call.result_text.startswith(f"-1 {error} "), call.text()
        refusals = [check for check in call.checks if check.refusal]
        assert refusals, call.text()
        assert refusals[-1].refusal == error
        assert refusals[-1] is call.checks[-1]
        assert any(why in check.text for check in call.checks[-2:]), call.text()
        assert "no area changed" in call.text()
    assert sys.gettrace() is None


# ---- texts


TEXTS = {
    "segv-x86_64-4k": ("x86_64-4k", "segv", {"last": True}),
    "cow-copy-x86_64-4k": ("x86_64-4k", "cow", {"first": "cow-copy"}),
    "stack-aarch64-64k": ("aarch64-64k", "stack", {"grown": True}),
    "zero-page-la57": ("x86_64-4k-la57", "lazyzero", {"first": "anon-zero"}),
    "fault-around-aarch64-16k": ("aarch64-16k", "faults", {"around": True}),
    "kernel-aarch64-4k": ("aarch64-4k", "filemap", {"kernel": True}),
    "call-merge-case1-x86_64-4k": ("x86_64-4k", "merge", {"case": 1}),
    "call-split-aarch64-4k": ("aarch64-4k", "split", {"call": "mprotect:1"}),
    "call-munmap-aarch64-16k": ("aarch64-16k", "pagetables", {"freed": True}),
}


def golden_text(name: str) -> str:
    """The explanation a golden file holds, as it is now."""
    kernel, program, want = TEXTS[name]
    calls = [want["call"]] if "call" in want else ["mmap", "munmap"] if "case" in want or "freed" in want else []
    _, explainer, _ = explained(kernel, program, every=not calls, last=True, calls=calls)
    if "last" in want:
        found = explainer.fatal
    elif "call" in want:
        found = explainer.calls[0]
    elif "case" in want:
        found = next(call for call in explainer.calls if [case for case, _, _ in call.merges] == [want["case"]])
    elif "freed" in want:
        found = next(call for call in explainer.calls if call.tables_freed)
    else:
        tests: dict[str, Any] = {
            "first": lambda fault: fault.result == want["first"] and fault.user,
            "grown": lambda fault: fault.grown is not None,
            "around": lambda fault: len(fault.around) > 2,
            "kernel": lambda fault: not fault.user and fault.call.startswith("for the system call"),
        }
        (key,) = want
        found = next(fault for fault in explainer.faults if tests[key](fault))
    return f"{found}\n"


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    """What a person reads. Written by `python tests/emu/test_explain.py`, then read."""
    assert golden_text(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_lines_are_short_and_plain() -> None:
    for file in GOLDEN.glob("*.txt"):
        text = file.read_text(encoding="utf-8")
        assert "\x1b" not in text and text.isascii()
        assert max(map(len, text.splitlines())) <= 160, file.name


# ---- the command


def run(words: list[str], capfdbinary: Any) -> tuple[int, str, str]:
    status = cli.main(["explain", *words])
    out, err = capfdbinary.readouterr()
    return status, out.decode(), err.decode()


def test_the_fault_that_kills_is_the_default(capfdbinary: Any) -> None:
    status, out, err = run(["images/x86_64/segv"], capfdbinary)
    assert status == 139
    assert "Segmentation fault" in err
    assert out.startswith("about to fall\nFault 7 of segv (pid 27): write to 0x0\n")
    assert "\x1b" not in out
    assert "SEGV_MAPERR" in out


def test_colours_only_where_wanted(capfdbinary: Any) -> None:
    assert "\x1b[" in run(["--color", "always", "images/x86_64/segv"], capfdbinary)[1]


def test_json_is_all_there_is(capfdbinary: Any) -> None:
    _, out, _ = run(["--json", "--all", "images/aarch64/cow"], capfdbinary)
    told = [json.loads(line) for line in out.splitlines()]
    assert [fault["number"] for fault in told] == list(range(1, len(told) + 1))
    assert {fault["kind"] for fault in told} == {"fault_explanation"}
    assert all(fault["walk"]["entries"] for fault in told)


def test_choices(capfdbinary: Any) -> None:
    _, out, _ = run(["--quiet", "--fault", "2", "--fault", "3", "images/aarch64/cow"], capfdbinary)
    assert [line.split()[1] for line in out.splitlines() if line.startswith("Fault")] == ["2", "3"]
    _, out, _ = run(["--quiet", "--address", "0x210300", "images/aarch64/cow"], capfdbinary)
    assert {line.split()[-1][:5] for line in out.splitlines() if line.startswith("Fault")} == {"0x210"}
    _, out, _ = run(["--quiet", "--call", "1", "images/aarch64/mmap"], capfdbinary)
    assert out.startswith("Memory call 1 of mmap (pid 27): mmap(NULL, ")
    _, out, _ = run(["--quiet", "--call", "munmap:2", "images/aarch64/mmap"], capfdbinary)
    assert "munmap(" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--fault", "0"], "--fault 0: expected a whole number from 1"),
        (["--fault", "99999"], "--fault 99999: the run had only"),
        (["--call", "0"], "--call 0: calls are counted from 1"),
        (["--call", "write"], "--call write: expected N, or NAME[:K]"),
        (["--call", "mmap:x"], "--call mmap:x: expected N"),
        (["--call", "munmap:77"], "--call munmap:77: the run had no such memory call"),
        (["--address", "x"], "--address x: expected an address"),
        (["--address", "0x10"], "nothing to explain"),
    ],
)
def test_refusals(words: list[str], why: str, capfdbinary: Any) -> None:
    status, out, err = run([*words, "--quiet", "images/x86_64/hello"], capfdbinary)
    assert status == 125
    assert out == ""
    assert err.startswith(f"pagewalk: {why}")
    assert err.count("\n") == 1


# ---- from Python


def test_from_python() -> None:
    _, explainer, end = explained("x86_64-4k", "repair", faults=[3, 4], calls=["mprotect:1"])
    assert end.status == 0
    assert [fault.number for fault in explainer.faults] == [3, 4]
    assert explainer.fatal is not None
    assert (explainer.fatal.result, explainer.fatal.action) == ("refused", "handler")
    (call,) = explainer.calls
    assert repr(call).startswith("<call ")
    assert call.name == "mprotect" and call.result == 0
    for explanation in (explainer.last, call):
        page = explanation._repr_html_()
        assert page.count("<pre") == page.count("</pre>") > 5
        json.dumps(explanation.to_dict())


@pytest.mark.parametrize(("kernel", "line"), [("x86_64-4k", 14), ("aarch64-4k", 14), ("aarch64-64k", 14)])
def test_function_file_and_line_of_a_pie(kernel: str, line: int) -> None:
    """A position-independent program with DWARF (explained/crash.c): its load bias is where it really is."""
    program = GOLDEN / f"crash.{arch_of(kernel)}"
    _, explainer, end = explained(kernel, str(program), every=True)
    assert end.signal == 11
    fault = explainer.fatal
    assert fault is not None
    place = fault.instruction.place
    assert (place.function, place.source) == ("sum", f"crash.c:{line}")
    assert fault.address == 8
    (_, _, address) = fault.instruction.operands[0]
    assert address == fault.address
    first = next(fault for fault in explainer.faults if fault.user and fault.access == "exec")
    assert first.instruction.place.function == "_start"
    assert place.bias and place.bias == first.instruction.place.bias
    assert place.bias % fault.page_size == 0


def test_a_damaged_elf_has_no_names() -> None:
    """Symbols and DWARF are the guest's to write: whatever they hold, there is an answer."""
    from random import Random

    from emu.explain_where import Image

    good = (GOLDEN / "crash.x86_64").read_bytes()
    linked = 0x1000
    assert Image(good).function(linked)[0]
    chance = Random(5)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 40)):
            bad[chance.randrange(len(bad) if chance.random() < 0.5 else 4096)] = chance.randrange(256)
        image = Image(bytes(bad))
        image.linked_address(linked)
        image.function(linked)
        image.line(linked)
    assert Image(b"").function(linked) == ("", 0)
    assert Image(good[:1000]).line(linked) == ""


def test_the_kernels_addresses_are_not_searched_for() -> None:
    """A store to an address of the kernel's is refused before find_vma is asked, and told so."""
    kernel = "x86_64-4k"
    machine = make_machine(kernel)
    explainer = machine.explain(every=True)
    machine.load(str(IMAGES / "x86_64" / "hello"))
    task = machine.kernel.current
    machine.system.arch.do_page_fault(task, 7, 0xFFFFFFFF80000000)
    fault = explainer.last
    assert fault is not None
    assert not fault.searched
    assert fault.to_dict()["find_vma"] is None
    assert "find_vma" not in str(fault)
    assert "does not belong to user space" in str(fault)


def test_a_run_that_stops_at_the_call() -> None:
    """Where a run stops at a call's start, nothing is overheard until the call is made."""
    machine = make_machine("x86_64-4k")
    explainer = machine.explain(calls=[1])
    machine.load(str(IMAGES / "x86_64" / "mmap"))
    machine.run(until=lambda event: event.kind == "syscall_enter" and event.name == "mmap")
    assert sys.gettrace() is None
    assert not explainer.calls
    machine.run()
    (call,) = explainer.calls
    assert call.name == "mmap" and call.result
    assert call.checks[0].function == "sys_mmap"


def test_nothing_stays_behind() -> None:
    machine = make_machine("x86_64-4k")
    explainer = machine.explain(every=True)
    machine.load(str(IMAGES / "x86_64" / "hello"))
    arch = machine.system.arch
    assert "do_page_fault" in vars(arch)
    assert "do_page_fault" not in vars(pickle.loads(pickle.dumps(arch)))
    explainer.remove()
    assert "do_page_fault" not in vars(arch)
    assert machine.system.listener is None
    assert not machine.explainers
    machine.run()
    assert sys.gettrace() is None


def test_an_explained_run_is_the_same_run() -> None:
    """Looking changes nothing the guest can see."""
    plain = make_machine("aarch64-4k")
    plain.load(str(IMAGES / "aarch64" / "faults"))
    plain.run()
    machine, _, _ = explained("aarch64-4k", "faults", every=True, calls=["mmap", "munmap", "mprotect"])
    assert machine.output == plain.output
    assert machine.kernel.first.min_flt == plain.kernel.first.min_flt
    assert machine.kernel.first.vmacache_find_calls == plain.kernel.first.vmacache_find_calls


def test_call_wanted() -> None:
    assert CallWanted(3).matches("brk", 3, 1)
    assert not CallWanted("brk:2").matches("brk", 2, 1)
    assert str(CallWanted("brk:2")) == "brk:2"
    with pytest.raises(PagewalkError):
        CallWanted("fork")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for text_name in TEXTS:
        (GOLDEN / f"{text_name}.txt").write_text(golden_text(text_name), encoding="utf-8")
