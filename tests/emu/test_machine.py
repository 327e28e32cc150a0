"""The machine: runs, ways to end one, several at once, errors in one line."""

from __future__ import annotations

import gc
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from emu import Machine, PagewalkError
from emu.arch import cpu_models
from emu.machine import Exit

HERE = Path(__file__).resolve().parents[2]
ARCHES = ("x86_64", "aarch64")


def image(arch: str, code: bytes, flags: int = 7) -> bytes:
    """A static ELF of one segment at 0x400000 that starts with `code`."""
    machine = {"x86_64": 62, "aarch64": 183}[arch]
    entry = 0x400000 + 120
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, flags, 0, 0x400000, 0x400000, size, size, 65536) + code


SPIN = {"x86_64": b"\xeb\xfe", "aarch64": struct.pack("<I", 0x14000000)}
# write(1, "r", 1): "it runs", for those who wait for that
HELLO = {
    "x86_64": b"\x6a\x72\x48\x89\xe6\xba\x01\0\0\0\xbf\x01\0\0\0\xb8\x01\0\0\0\x0f\x05\x58",
    "aarch64": struct.pack(
        "<8I", 0x52800E40, 0xF81F0FE0, 0xD2800020, 0x910003E1, 0xD2800022, 0xD2800808, 0xD4000001, 0x910043FF
    ),
}
# exit_group(7)
EXIT = {
    "x86_64": b"\xb8\xe7\0\0\0\xbf\x07\0\0\0\x0f\x05",
    "aarch64": struct.pack("<III", 0xD2800BC8, 0xD28000E0, 0xD4000001),
}
# l: getppid(); jmp l
CALLS = {
    "x86_64": b"\xb8\x6e\0\0\0\x0f\x05\xeb\xf7",
    "aarch64": struct.pack("<III", 0xD28015A8, 0xD4000001, 0x17FFFFFE),
}
# read(0, sp - 64, 1), then exit_group(7)
READ = {
    "x86_64": b"\x31\xc0\x31\xff\x48\x8d\x74\x24\xc0\xba\x01\0\0\0\x0f\x05" + EXIT["x86_64"],
    "aarch64": struct.pack("<5I", 0xD2800000, 0xD10103E1, 0xD2800022, 0xD28007E8, 0xD4000001) + EXIT["aarch64"],
}


def machine(arch: str, code: dict[str, bytes], **options: Any) -> Machine:
    m = Machine(ram=64 << 20, **options)
    m.load(image(arch, code[arch]))
    return m


@pytest.mark.parametrize("arch", ARCHES)
def test_exit_status(arch: str) -> None:
    assert machine(arch, EXIT).run() == Exit(7, 0, "exit")


@pytest.mark.parametrize("arch", ARCHES)
def test_fatal_signal(arch: str) -> None:
    assert machine(arch, {"x86_64": b"\x0f\x0b", "aarch64": bytes(4)}).run() == Exit(0, signal.SIGILL, "exit")


@pytest.mark.parametrize("arch", ARCHES)
def test_timeout(arch: str) -> None:
    start = time.monotonic()
    assert machine(arch, SPIN).run(timeout=0.1).reason == "timeout"
    assert 0.09 < time.monotonic() - start < 3


# For each of two loops in turn, 2**15 times: count down from 4,000 or 4,001; then exit_group(7).
TWO_LOOPS = {
    "x86_64": bytes.fromhex("b900800000b8a00f0000ffc875fcb8a10f0000ffc875fcffc975ea") + EXIT["x86_64"],
    "aarch64": struct.pack(
        "<9I",
        0x52900001,
        0x5281F400,
        0x71000400,
        0x54FFFFE1,
        0x5281F420,
        0x71000400,
        0x54FFFFE1,
        0x71000421,
        0x54FFFF21,
    )
    + EXIT["aarch64"],
}


@pytest.mark.parametrize("arch", ARCHES)
def test_a_timeout_is_not_the_end(arch: str) -> None:
    m = machine(arch, TWO_LOOPS)
    ends = [m.run(timeout=0.01) for _ in range(4)]
    assert {end.reason for end in ends} == {"timeout"}
    assert m.run() == Exit(7, 0, "exit")


def test_a_run_that_cannot_go_on_says_so() -> None:
    m = machine("aarch64", SPIN)
    m.goes_on = False
    threading.Timer(0.05, m.stop).start()
    assert m.run().reason == "stop"
    with pytest.raises(PagewalkError, match="stopped from outside"):
        m.run()


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("code", [SPIN, CALLS], ids=["loop", "calls"])
def test_stop_from_another_thread(arch: str, code: dict[str, bytes]) -> None:
    m = machine(arch, code)
    for _ in range(3):  # and the run can go on
        timer = threading.Timer(0.03, m.stop)
        timer.start()
        assert m.run().reason == "stop"
        timer.join()


def test_stop_in_the_first_moments() -> None:
    """However early it comes, a stop is not lost."""
    m = machine("x86_64", SPIN)
    for i in range(30):
        started = threading.Event()

        def stop(turns: int = i * 1000, started: threading.Event = started) -> None:
            started.wait()
            while m._watcher is None:
                pass
            for _ in range(turns):  # some microseconds more each time
                pass
            m.stop()

        thread = threading.Thread(target=stop)
        thread.start()
        started.set()
        assert m.run(timeout=20).reason == "stop"
        thread.join()


def test_who_only_faults_can_be_stopped() -> None:
    """A handler nobody mapped, on a signal stack of its own: SIGSEGV after SIGSEGV, without one instruction between."""
    words = (
        0x10000313, 0x91000260, 0xD2800001, 0xD2801088, 0xD14023E2, 0xF9000262, 0xF900067F, 0xD2880003, 0xF9000A63,
        0xD4000001,  # sigaltstack({sp - 0x8000, 0, 0x4000})
        0xD2820002, 0xF9000E62, 0xD2A90002, 0xF9001262, 0xF900167F, 0xF9001A7F, 0xD2800160, 0x91006261, 0xD2800002,
        0xD2800103, 0xD28010C8, 0xD4000001,  # sigaction(SIGSEGV, {0x1000, SA_ONSTACK | SA_NODEFER})
        0xD2800000, 0xF9400000, *[0] * 16,  # x0 = *(long *)0
    )  # fmt: skip
    m = machine("aarch64", {"aarch64": struct.pack(f"<{len(words)}I", *words)})
    for _ in range(2):
        assert m.run(timeout=0.2).reason == "timeout"


def test_stop_without_a_run_does_nothing() -> None:
    m = machine("x86_64", EXIT)
    m.stop()
    assert m.run().status == 7


@pytest.mark.parametrize("arch", ARCHES)
def test_max_instructions(arch: str) -> None:
    m = machine(arch, SPIN)
    assert m.run(max_instructions=1000).reason == "max_instructions"
    assert m.instructions == 1000
    assert m.run(max_instructions=500).reason == "max_instructions"
    assert m.instructions == 1500
    m = machine(arch, EXIT)
    assert m.run(max_instructions=1000) == Exit(7, 0, "exit")
    assert m.instructions == 3


@pytest.mark.parametrize("arch", ARCHES)
def test_step(arch: str) -> None:
    m = machine(arch, EXIT)
    assert m.step() is None
    assert m.engine.regs[m.engine.PC] == 0x400000 + 120 + (5 if arch == "x86_64" else 4)
    assert m.step() is None
    assert m.step() == Exit(7, 0, "exit")


def test_until_an_event() -> None:
    m = machine("x86_64", CALLS)
    for _ in range(3):
        assert m.run(until="syscall").reason == "until"
    seen: list[Any] = []
    unsubscribe = m.subscribe(seen.append, "syscall_exit")
    assert m.run(until=lambda event: event.kind == "syscall_exit").reason == "until"
    assert [event.name for event in seen] == ["getppid"]
    unsubscribe()
    assert m.system.listener is None


@pytest.mark.parametrize("arch", ARCHES)
def test_until_a_call_stops_before_it_is_served(arch: str) -> None:
    image = str(HERE / "images" / arch / "hello")
    plain = Machine(stdout="capture")
    plain.load(image)
    told: list[Any] = []
    plain.subscribe(lambda event: told.append(event.name), "syscall_enter")
    plain.run()
    stepped = Machine(stdout="capture")
    stepped.load(image)
    again: list[Any] = []
    stepped.subscribe(lambda event: again.append(event.name), "syscall_enter")
    while stepped.run(until="syscall").reason == "until":
        if again[-1] == "write":
            assert stepped.output == b""
    assert again == told
    assert stepped.output == plain.output
    assert stepped.kernel.clock.now == plain.kernel.clock.now


def test_a_listener_can_stop_the_run() -> None:
    m = machine("x86_64", CALLS)
    calls: list[Any] = []

    def listen(event: Any) -> None:
        calls.append(event)
        if len(calls) == 5:
            m.stop()

    m.subscribe(listen, "syscall_enter")
    assert m.run().reason == "stop"
    assert len(calls) == 5


def test_an_exception_of_a_listener_surfaces() -> None:
    m = machine("x86_64", CALLS)

    def listen(_: Any) -> None:
        raise RuntimeError("mine")

    m.subscribe(listen, "syscall_enter")
    with pytest.raises(RuntimeError, match="mine"):
        m.run()


def test_memory_from_outside() -> None:
    m = machine("x86_64", EXIT)
    m.run(max_instructions=1)
    assert m.read(0x400000, 4) == b"\x7fELF"
    m.write(0x400000 + 120 + 6, b"\x09")  # the status in the instruction that comes next
    assert m.run().status == 9
    assert m.read(0x123, 4) == b""


def test_interrupted_at_the_terminal(tmp_path: Path) -> None:
    """Ctrl-C ends a loop, a stream of calls and a read that waits, each quickly and without a traceback."""
    for arch in ARCHES:
        for name, code in (("loop", SPIN), ("calls", CALLS), ("read", READ)):
            program = tmp_path / f"{name}.{arch}"
            program.write_bytes(image(arch, HELLO[arch] + code[arch]))
            program.chmod(0o755)
            process = subprocess.Popen(
                [sys.executable, "-m", "emu", "run", str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=HERE,
            )
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 1) == b"r"
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            assert process.wait(20) == 130, (arch, name)
            assert process.communicate()[1] == b""
            assert time.monotonic() - start < 5


@pytest.mark.parametrize("arch", ARCHES)
def test_keyboard_interrupt_in_python(arch: str) -> None:
    m = machine(arch, SPIN)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        m.run()
    timer.join()
    assert m.run(timeout=0.05).reason == "timeout"  # nothing is broken
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_run_outside_the_main_thread() -> None:
    m = machine("x86_64", SPIN)
    ends: list[Exit] = []
    thread = threading.Thread(target=lambda: ends.append(m.run()))
    thread.start()
    while m._watcher is None:
        pass
    m.stop()
    thread.join(10)
    assert [end.reason for end in ends] == ["stop"]


def test_machines_side_by_side() -> None:
    machines = [machine(arch, CALLS) for arch in ARCHES * 2]
    for _ in range(3):
        for m in machines:
            assert m.run(until="syscall").reason == "until"
    ends: list[Exit] = []
    threads = [threading.Thread(target=lambda m=m: ends.append(m.run(timeout=0.2))) for m in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.reason for end in ends] == ["timeout"] * 4


def test_everything_is_released() -> None:
    m = machine("x86_64", EXIT)
    m.run()
    gone = weakref.ref(m.engine)
    del m
    gc.collect()
    assert gone() is None
    m = machine("aarch64", EXIT)
    m.close()
    m.close()


def test_close_frees_the_ram() -> None:
    """Twenty machines of 1 GiB, one after the other: what they touched does not pile up."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    machine("x86_64", EXIT).close()
    before = resident()
    for _ in range(20):
        m = Machine()
        m.load(image("x86_64", EXIT["x86_64"]))
        m.run()
        m.close()
    gc.collect()
    assert resident() - before < 40 << 8  # 40 MiB in pages


def test_descriptors_are_given_back() -> None:
    m = machine("x86_64", SPIN)
    m.run(timeout=0.01)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        m.run(timeout=0.01)
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ram": 1 << 20}, "too small"),
        ({"ram": (4 << 20) + 1}, "multiple of 64k"),
        ({"page_size": 16384}, "page size 16k does not exist on x86_64; it has 4k"),
        ({"page_size": 8192}, "page size 8k does not exist"),
        ({"cpu": "cortex-a72"}, "unknown CPU model 'cortex-a72' for x86_64"),
        ({"arch": "aarch64", "la57": True}, "la57"),
        ({"arch": "mips"}, "unknown architecture 'mips'"),
        ({"arch": "aarch64"}, "a program for x86_64 on a machine of aarch64"),
        ({"ram": 1 << 60}, "memory for RAM"),
        ({"root": "/nonexistent"}, "No such file"),
    ],
)
def test_machines_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PagewalkError, match=message) as error:
        Machine(**{"ram": 64 << 20, **options}).load(image("x86_64", EXIT["x86_64"]))
    assert "\n" not in str(error.value)


# setitimer(ITIMER_REAL, 20 ms), then a loop without system calls
ALARM = {
    "x86_64": bytes.fromhex("31ff 488d350c000000 31d2 b826000000 0f05 ebfe 90") + struct.pack("<4Q", 0, 0, 0, 20000),
    "aarch64": struct.pack("<7I", 0xD2800000, 0x100000C1, 0xD2800002, 0xD2800CE8, 0xD4000001, 0x14000000, 0xD503201F)
    + struct.pack("<4Q", 0, 0, 0, 20000),
}
# fork; the child spins; the parent sleeps 10 ms, kills it, waits for it, exits with 5
SPINNING_CHILD = bytes.fromhex(
    "b839000000 0f05 85c0 7502 ebfe 89c3 488d3d36000000 31f6 b823000000 0f05"
    "89df be09000000 b83e000000 0f05 31ff 48ffcf 31f6 31d2 4531d2 b83d000000 0f05 bf05000000 b8e7000000 0f05 90"
) + struct.pack("<QQ", 0, 10_000_000)


@pytest.mark.parametrize("arch", ARCHES)
def test_a_timer_ends_a_loop(arch: str) -> None:
    m = machine(arch, ALARM)
    assert m.run(timeout=60) == Exit(0, signal.SIGALRM, "exit")


def test_a_sleeper_gets_the_processor_back() -> None:
    """A child that never enters the kernel does not keep its parent from waking up, and it is so every time."""
    times = set()
    for _ in range(3):
        m = machine("x86_64", {"x86_64": SPINNING_CHILD})
        assert m.run(timeout=60) == Exit(5, 0, "exit")
        times.add((m.kernel.clock.now, m.kernel.context_switches))
    assert len(times) == 1


def test_no_program() -> None:
    with pytest.raises(PagewalkError, match="no program is loaded"):
        Machine("x86_64", ram=8 << 20).run()


def test_models() -> None:
    assert cpu_models()["x86_64"][0] == "qemu64"
    assert cpu_models()["aarch64"][0] == "cortex-a72"


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("threaded", [False, True], ids=["main", "thread"])
def test_a_run_that_waits_for_input_can_be_ended(arch: str, threaded: bool) -> None:
    reader, writer = os.pipe()
    m = machine(arch, READ, stdin=reader)
    ends: list[Exit] = []

    def run() -> None:
        start = time.monotonic()
        ends.append(m.run(timeout=0.1))
        timer = threading.Timer(0.1, m.stop)
        timer.start()
        ends.append(m.run())
        timer.join()
        assert time.monotonic() - start < 5
        os.write(writer, b"x")
        ends.append(m.run(timeout=20))

    if threaded:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    assert ends == [Exit(reason="timeout"), Exit(reason="stop"), Exit(7, 0, "exit")]
    os.close(reader)
    os.close(writer)


def test_a_run_stuck_in_a_host_write_can_be_ended() -> None:
    """Nobody reads the pipe standard output is: the timeout still comes, by a signal."""
    reader, writer = os.pipe()
    # l: write(1, 0x400000, 100); jmp l
    code = bytes.fromhex("bf01000000 be00004000 ba64000000 b801000000 0f05 ebe8")
    m = machine("x86_64", {"x86_64": code}, stdout=writer)
    start = time.monotonic()
    assert m.run(timeout=0.2).reason == "timeout"
    assert time.monotonic() - start < 5
    os.close(reader)
    os.close(writer)
