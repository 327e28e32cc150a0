"""Spinning on the clock (Kernel.clock_was_read()): the moment comes soon, and computing between the looks counts."""

from guest_world import World

from guest.clock import FAULT_NSEC, NSEC_PER_SEC, POLL_NSEC, POLLS, TRAP_NSEC
from guest.sys_time import sys_time


def test_a_program_that_spins_for_seconds_looks_at_the_clock_less_than_a_million_times() -> None:
    world = World()
    clock = world.kernel.clock
    end = sys_time(world.task, 0) + 10
    looks = 0
    while sys_time(world.task, 0) < end:
        looks += 1
    assert looks <= POLLS + 10 * NSEC_PER_SEC // POLL_NSEC
    assert world.task.stime >= 9 * NSEC_PER_SEC
    assert world.kernel.wants_quantum()  # instructions are counted from now on
    assert clock.polls > POLLS


def test_a_few_looks_cost_nothing() -> None:
    world = World()
    before = world.kernel.clock.now
    for _ in range(POLLS):
        sys_time(world.task, 0)
    assert world.kernel.clock.now == before
    assert not world.kernel.wants_quantum()


def test_a_fault_costs_more_than_another_trap() -> None:
    """Who only takes page faults until an alarm (LTP's mmap3) gets there in a fifth of the faults."""
    world = World()
    clock, fault = world.kernel.clock, 6 if world.kernel.arch.name == "x86_64" else 0x92000046
    before = clock.now
    world.kernel.page_fault(fault, 0x10)  # nothing is there: it costs the same
    assert clock.now - before == FAULT_NSEC == 5 * TRAP_NSEC
    assert world.task.stime >= FAULT_NSEC
