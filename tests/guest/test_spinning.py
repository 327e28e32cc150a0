"""Until a moment comes: looks at the clock and calls that do much take time, and who waited for it runs first."""

import pytest
from guest_world import World

from guest.clock import CALL_NSEC, FAULT_NSEC, NSEC_PER_SEC, POLL_NSEC, POLLS, POPULATE_NSEC, TICK_NSEC, TRAP_NSEC
from guest.sched import Block, sleep_on
from guest.sys_time import sys_time
from mm.flags import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE, PROT_READ


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


def test_calls_that_do_much_take_time_while_somebody_waits_for_a_moment() -> None:
    world = World()
    clock, length = world.kernel.clock, 64 * 4096
    before = clock.now

    def populate() -> int:
        return world.call("mmap", 0, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)

    assert populate() > 0 and clock.now == before
    world.call("alarm", 100)
    assert populate() > 0 and clock.now == before + CALL_NSEC["mmap"] + 64 * POPULATE_NSEC


def test_who_waited_for_a_moment_runs_before_those_who_did_not() -> None:
    world = World()
    kernel, running = world.kernel, world.task
    other, sleeper = world.new_task(), world.new_task()
    kernel.set_current(running)
    kernel.run_queue.clear()
    kernel.run_queue.append(other)
    with pytest.raises(Block):
        sleep_on(sleeper, deadline=kernel.clock.now + 1000)
    kernel.leave(running)
    assert list(kernel.run_queue) == [other]
    kernel.clock.now += 1000
    kernel.leave(running)
    assert list(kernel.run_queue) == [sleeper, other, running]
    assert kernel.need_resched and running.nivcsw == 1


def test_who_only_makes_calls_has_its_turn_end_too() -> None:
    """A turn is counted in instructions, of which one who spins in calls (LTP's shmctl05) executes few."""
    world = World()
    kernel, task = world.kernel, world.task
    kernel.cpu.regs[kernel.number_register] = 110  # getppid
    kernel.need_resched = False
    for _ in range(20_000):  # alone, nothing ends it
        kernel.system_call()
    assert not kernel.need_resched
    other = kernel.find_task(world.call("clone", 17, 0, 0, 0, 0))
    assert other is not None
    kernel.need_resched = False
    kernel.counting = True
    calls = 0
    while not kernel.need_resched:
        kernel.system_call()
        calls += 1
    assert TICK_NSEC - TRAP_NSEC <= calls * TRAP_NSEC <= TICK_NSEC + TRAP_NSEC
    assert kernel.schedule() is other
    assert list(kernel.run_queue) == [task]
    assert task.nivcsw == 1
