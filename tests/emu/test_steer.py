"""Handlers before and after events, vetoes, pagers, and --inject."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from emu import Machine, PagewalkError
from emu.cli import main
from emu.inject import Injection, When
from emu.steer import Veto

IMAGES = Path(__file__).resolve().parents[2] / "images"
ARCHES = ("x86_64", "aarch64")


def machine_of(arch: str, name: str, **options: Any) -> Machine:
    """A machine that is loaded after the test has put its handlers in place: see `run`."""
    machine = Machine(ram=128 << 20, stdout="capture", stderr="capture", **options)
    machine.image = str(IMAGES / arch / name)  # type: ignore[attr-defined]
    return machine


def run(machine: Machine) -> Any:
    machine.load(machine.image)  # type: ignore[attr-defined]
    return machine.run(timeout=60)


def inject(tmp_path: Path, arch: str, name: str, *injections: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Status, strace's text and the trace of a run with --inject."""
    strace, trace = tmp_path / "strace", tmp_path / "trace"
    words = [f"--inject={text}" for text in injections]
    status = main(["run", f"--strace={strace}", "--trace", str(trace), *words, str(IMAGES / arch / name)])
    return status, strace.read_text(), [json.loads(line) for line in trace.read_text().splitlines()[1:]]


# ---- handlers


@pytest.mark.parametrize("arch", ARCHES)
def test_a_call_is_vetoed(arch: str) -> None:
    machine = machine_of(arch, "hello")
    seen: list[tuple[str, bool]] = []

    @machine.before("syscall", name="write")
    def refuse(event: Any) -> None:
        raise Veto(errno.ENOSPC)

    machine.after("syscall", lambda event: seen.append((event.result, event.injected)), name="write")
    run(machine)
    assert machine.output == b""
    assert (-errno.ENOSPC, True) in seen


def test_a_veto_can_give_a_result() -> None:
    machine = machine_of("x86_64", "hello")

    @machine.before("syscall", name="write")
    def pretend(event: Any) -> None:
        raise Veto(result=event.args[2])

    assert run(machine).status == 0
    assert machine.output == b""


def test_handlers_come_in_order_and_go() -> None:
    machine = machine_of("x86_64", "hello")
    seen: list[int] = []
    first = machine.before("syscall", lambda event: seen.append(1))
    machine.before("syscall", lambda event: seen.append(2))
    machine.load(machine.image)  # type: ignore[attr-defined]
    machine.run(until="syscall_exit")
    assert seen == [1, 2]
    first.remove()
    machine.run(until="syscall_exit")
    assert seen == [1, 2, 2]


def test_everything_is_put_back() -> None:
    machine = machine_of("x86_64", "hello")
    machine.load(machine.image)  # type: ignore[attr-defined]
    ops = machine.system.mm_ops
    before = ops.handle_mm_fault, ops.vma_merge
    handlers = [machine.before(kind, lambda event: None) for kind in ("syscall", "fault", "vma_merge", "page_alloc")]
    assert (ops.handle_mm_fault, ops.vma_merge) != before
    for handler in handlers:
        handler.remove()
    assert (ops.handle_mm_fault, ops.vma_merge) == before
    assert machine.kernel.interceptor is None
    assert machine.system.zone.interceptor is None
    assert machine.system.listener is None


def test_a_steered_machine_pickles_without_its_handlers() -> None:
    machine = machine_of("x86_64", "hello")
    machine.load(machine.image)  # type: ignore[attr-defined]
    machine.before("page_alloc", lambda event: None)
    machine.before("syscall", lambda event: None)
    zone = pickle.loads(pickle.dumps(machine.system.zone))
    assert zone.interceptor is None
    assert zone.nr_free_pages == machine.system.zone.nr_free_pages


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("number", "signal"), [(errno.EFAULT, 11), (errno.EIO, 7), (errno.ENOMEM, 9)])
def test_a_fault_is_vetoed(arch: str, number: int, signal: int) -> None:
    machine = machine_of(arch, "lazyzero")

    @machine.before("fault")
    def refuse(event: Any) -> None:
        if event.user and event.access != "exec" and event.vma.vm_file is None and not event.vma.vm_flags & 0x100:
            raise Veto(number)

    assert run(machine).signal == signal


def test_no_merges() -> None:
    count = []
    for veto in (False, True):
        machine = machine_of("x86_64", "merge")
        merges: list[int] = []
        machine.after("vma_merge", lambda event, merges=merges: merges.append(event.case))
        if veto:

            @machine.before("vma_merge", case=1)
            def refuse(event: Any) -> None:
                raise Veto

        run(machine)
        assert 1 in merges
        count.append(machine.output)
    assert count[0] != count[1]


def test_no_frames() -> None:
    machine = machine_of("x86_64", "cow")
    allowed = iter(range(20))

    @machine.before("page_alloc")
    def refuse(event: Any) -> None:
        if next(allowed, None) is None:
            raise Veto(errno.ENOMEM)

    assert run(machine).signal == 9


@pytest.mark.parametrize("arch", ARCHES)
def test_a_pager_supplies_pages(arch: str) -> None:
    machine = machine_of(arch, "hello")
    machine.load(machine.image)  # type: ignore[attr-defined]
    machine.run(until="syscall_enter")
    from mm.flags import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ
    from mm.mmap import vm_mmap
    from mm.uaccess import copy_from_user

    task = machine.task
    size = machine.system.page_size
    area = vm_mmap(task.mm, None, 0, 4 * size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, 0)
    asked: list[int] = []

    @machine.pager(range(area, area + 2 * size))
    def page(address: int, count: int) -> bytes | None:
        asked.append(address)
        assert count == size
        return b"page %d" % ((address - area) // size)

    assert copy_from_user(task, area + size, 8) == b"page 1\0\0"
    assert copy_from_user(task, area + size + 4, 2) == b" 1"
    assert copy_from_user(task, area + 3 * size, 4) == bytes(4)
    assert asked == [area + size]
    from mm.validate import validate_mm
    from mm.validate_pages import validate_pages

    validate_mm(task.mm)
    validate_pages(task.mm)


def test_kinds_that_do_not_exist() -> None:
    machine = Machine()
    with pytest.raises(PagewalkError, match="only before"):
        machine.before("tlb_flush", print)
    with pytest.raises(PagewalkError, match="unknown kind"):
        machine.after("moon", print)
    with pytest.raises(PagewalkError, match="unknown filter"):
        machine.after("fault", print, moon=1)


# ---- --inject


def test_errors_from_the_second_on(tmp_path: Path) -> None:
    _, text, trace = inject(tmp_path, "x86_64", "brk", "brk:error=ENOMEM:when=2+")
    lines = [line for line in text.splitlines() if line.startswith("brk(")]
    assert "INJECTED" not in lines[0]
    assert len(lines) > 1
    assert all(line.endswith("= -1 ENOMEM (Cannot allocate memory) (INJECTED)") for line in lines[1:])
    marks = [event for event in trace if event["kind"] == "injected"]
    assert [event["how"] for event in marks] == ["ENOMEM"] * (len(lines) - 1)


@pytest.mark.parametrize("arch", ARCHES)
def test_retval_and_signal_and_delay(tmp_path: Path, arch: str) -> None:
    _, text, _ = inject(tmp_path, arch, "hello", "write:retval=5", "write:delay_enter=2ms")
    assert "= 5 (INJECTED)" in text
    status, _, _ = inject(tmp_path, arch, "hello", "write:signal=SIGTERM:when=1")
    assert status == 128 + 15
    _, _, trace = inject(tmp_path, arch, "hello", "write:delay_enter=2ms", "write:delay_exit=3ms")
    begin = next(event["time"] for event in trace if event["kind"] == "syscall_enter" and event["name"] == "write")
    end = next(event["time"] for event in trace if event["kind"] == "exit")
    assert end - begin > 5_000_000


@pytest.mark.parametrize(("arch", "flip"), [("x86_64", "nx"), ("x86_64", "d"), ("aarch64", "dirty")])
def test_a_bit_is_flipped(tmp_path: Path, arch: str, flip: str) -> None:
    _, _, trace = inject(tmp_path, arch, "hello", f"pte:flip={flip}:address=0x0-0x7fffffffffff:when=3")
    assert [event["how"] for event in trace if event["kind"] == "injected"] == [f"flip={flip}"]


def test_faults_of_a_range(tmp_path: Path) -> None:
    status, _, trace = inject(tmp_path, "x86_64", "hello", "fault:error=EFAULT:address=0x0-0x100000000:when=2")
    assert status == 139
    assert [event["what"] for event in trace if event["kind"] == "injected"] == ["fault"]


def test_rates_are_seeded() -> None:
    def hits(seed: int) -> list[bool]:
        when = When(rate=0.3, seed=seed)
        return [when.now(None) for _ in range(200)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 30 < sum(hits(1)) < 90


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("2..4", [2, 3, 4]), ("2+", [2, 3, 4, 5, 6, 7]), ("2+2", [2, 4, 6]), ("1..5+2", [1, 3, 5])],
)
def test_when(text: str, expected: list[int]) -> None:
    when = When(text)
    assert [n for n in range(1, 8) if when.now("key")] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmap", "needs error="),
        ("moon:error=EPERM", "no system call"),
        ("mmap:error=EMOON", "cannot read 'error=EMOON'"),
        ("mmap:error=EPERM:when=0", "cannot read 'when=0'"),
        ("mmap:poke=1", "not one of"),
        ("pte:flip=dirty", "needs flip=BIT and address"),
        ("page_alloc:signal=TERM", "needs error"),
        ("mmap:flip=dirty:error=1", "for pte"),
        ("read:error=EPERM:rate=2", "cannot read 'rate=2'"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(PagewalkError, match=message):
        Injection(text)


def test_an_unknown_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(IMAGES / "x86_64" / "hello")
    assert main(["run", "--inject=pte:flip=moon:address=0-0x7fffffffffff", path]) == 125
    assert "the bits of x86_64 are" in capsys.readouterr().err


def test_a_call_the_run_stopped_at_is_vetoed_too() -> None:
    """run(until="syscall") ends before the call is made; the handlers before it still have their say."""
    machine = machine_of("x86_64", "hello")

    @machine.before("syscall", name="write")
    def refuse(event: Any) -> None:
        raise Veto(errno.ENOSPC)

    machine.load(machine.image)  # type: ignore[attr-defined]
    machine.run(until=lambda event: event.kind == "syscall_enter" and event.name == "write")
    machine.run()
    assert machine.output == b""
