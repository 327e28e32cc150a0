"""Time and order: the virtual clock, the host's, the time stamp counter, slices and interleavings."""

from __future__ import annotations

import pickle
import struct
import time
from typing import Any

import pytest

from emu import Machine, PagewalkError
from emu.machine import Exit
from emu.options import parse
from guest.clock import HostClock
from tests.emu.test_machine import image

# fork; both write their letter 20 times, 2,000 turns of a loop before each; the parent waits for the child.
LETTERS = bytes.fromhex(
    "b8390000000f05bb5000000085c07505bb430000005341bc14000000b9d0070000ffc975fcb801000000bf010000004889e6ba010000000f"
    "0541ffcc75de83fb437413b83d000000bfffffffff31f631d24531d20f05b8e700000031ff0f05"
)
# rdtsc; rdtscp; write(1, {second, IA32_TSC_AUX, first}, 24)
COUNTER = bytes.fromhex(
    "0f3148c1e2204809d0500f01f95148c1e2204809d050b801000000bf010000004889e6ba180000000f05b8e700000031ff0f05"
)
# clock_gettime(CLOCK_REALTIME); nanosleep(20 ms); clock_gettime(CLOCK_REALTIME); write both
SLEEP = bytes.fromhex(
    "4883ec40b8e400000031ff4889e60f0548c74424200000000048c7442428002d3101b823000000488d7c242031f60f05b8e400000031ff48"
    "8d7424100f05b801000000bf010000004889e6ba200000000f05b8e700000031ff0f05"
)


def run(code: bytes, **options: Any) -> bytes:
    with Machine(ram=64 << 20, stdout="capture", **options) as machine:
        machine.load(image("x86_64", code))
        assert machine.run(timeout=60) == Exit(0)
        return machine.output


def times(output: bytes) -> tuple[int, int]:
    """The two CLOCK_REALTIMEs of SLEEP, nanoseconds."""
    a, an, b, bn = struct.unpack("<4Q", output)
    return a * 10**9 + an, b * 10**9 + bn


def test_in_turn_without_a_seed() -> None:
    assert run(LETTERS, quantum=1_000_000) in (b"P" * 20 + b"C" * 20, b"C" * 20 + b"P" * 20)
    assert run(LETTERS, quantum=5000) == run(LETTERS, quantum=5000)


def test_a_seed_is_an_interleaving() -> None:
    outputs = [run(LETTERS, quantum=20_000, seed=seed) for seed in range(1, 6)]
    assert all(sorted(output) == sorted(b"P" * 20 + b"C" * 20) for output in outputs)
    assert len(set(outputs)) > 2
    assert outputs[0] == run(LETTERS, quantum=20_000, seed=1)


def test_the_counter_tells_the_guests_time() -> None:
    output = run(COUNTER, cpu="haswell")
    second, aux, first = struct.unpack("<3Q", output)
    assert first < second
    assert aux == 0
    assert output == run(COUNTER, cpu="haswell")


def test_virtual_sleep_takes_no_time() -> None:
    first, second = times(run(SLEEP))
    assert 20_000_000 <= second - first < 21_000_000
    assert run(SLEEP) == run(SLEEP)


def test_the_hosts_clock() -> None:
    before = time.time_ns()
    first, second = times(run(SLEEP, clock="host"))
    after = time.time_ns()
    assert before <= first
    assert first + 20_000_000 <= second <= after


def test_the_hosts_clock_goes_on_in_a_copy() -> None:
    clock = HostClock()
    copy = pickle.loads(pickle.dumps(clock))
    assert copy.now >= clock.now - 10**9
    assert copy.offset == clock.offset


@pytest.mark.parametrize("words", [["--clock", "sun"], ["--quantum", "0"], ["--seed", "x"]])
def test_bad_values(words: list[str]) -> None:
    with pytest.raises(PagewalkError, match="expected"):
        parse("run", [*words, "program"])
