"""Who runs next: policies, priorities and nice values."""

import types
from typing import Any

import pytest
from guest_world import World

from guest.run_queue import RunQueue, weight

FIFO, RR, IDLE = 1, 2, 5


def task(name: str, policy: int = 0, priority: int = 0, nice: int = 0) -> Any:
    prio = 99 - priority if policy in (FIFO, RR) else 120 + nice
    return types.SimpleNamespace(name=name, policy=policy, prio=prio, nice=nice, vruntime=0)


def queue(*tasks: Any, special: bool = True) -> RunQueue:
    made = RunQueue()
    made.extend(tasks)
    made.special = special
    return made


def run(made: RunQueue, turns: int, nsec: int = 1_000_000) -> list[str]:
    """Names in the order of their turns, everybody wanting to run on."""
    names, now = [], 0
    for _ in range(turns):
        chosen: Any = made.pick()
        names.append(chosen.name)
        now += nsec
        made.account(chosen, nsec, now)
        made.expired(chosen)
    return names


def test_ordinary_tasks_take_turns() -> None:
    assert run(queue(task("a"), task("b"), task("c"), special=False), 6) == list("abcabc")
    assert run(queue(task("a"), task("b"), task("c")), 6) == list("abcabc")


def test_real_time_first() -> None:
    tasks = task("fair"), task("low", FIFO, 10), task("high", FIFO, 50)
    assert set(run(queue(*tasks), 100)) == {"high"}
    assert set(run(queue(*tasks[:2]), 100)) == {"low"}


def test_fifo_keeps_the_cpu_and_rr_shares_it() -> None:
    assert run(queue(task("a", FIFO, 9), task("b", FIFO, 9)), 4) == list("aaaa")
    assert run(queue(task("a", RR, 9), task("b", RR, 9)), 4) == list("abab")


def test_real_time_leaves_a_twentieth_to_others() -> None:
    turns = run(queue(task("fair"), task("fifo", FIFO, 1)), 2000)
    assert turns.count("fair") == pytest.approx(100, abs=2)
    made = queue(task("fair"), task("fifo", FIFO, 1))
    made.sysctls["sched_rt_runtime_us"] = -1
    assert run(made, 2000).count("fair") == 0


@pytest.mark.parametrize(("nice", "policy"), [(5, 0), (19, 0), (-10, 0), (0, IDLE)])
def test_shares_of_nice_values(nice: int, policy: int) -> None:
    plain, other = task("plain"), task("other", policy, nice=nice)
    turns = run(queue(plain, other), 4000)
    share = turns.count("other") / len(turns)
    assert share == pytest.approx(weight(other) / (weight(plain) + weight(other)), abs=0.003)


def test_sleepers_do_not_save_up() -> None:
    busy, sleeper = task("busy"), task("sleeper")
    made = queue(busy)
    run(made, 1000)
    made.append(sleeper)
    assert not made.woken(sleeper, busy)
    assert run(made, 20).count("sleeper") == 11  # 3 ms of credit, then turns


def test_who_preempts() -> None:
    fair, low, high = task("fair"), task("low", FIFO, 10), task("high", FIFO, 50)
    assert queue(low).woken(low, fair)
    assert queue(high).woken(high, low)
    assert not queue(low).woken(low, high)
    assert not queue(fair).woken(fair, low)


def test_yield_goes_behind_its_equals() -> None:
    first, second = task("first", FIFO, 9), task("second", FIFO, 9)
    made = queue(first, second)
    chosen: Any = made.pick()
    made.yielded(chosen)
    assert made.pick() is second
    first, second = task("first"), task("second")
    second.vruntime = 5
    made = queue(first, second)
    chosen = made.pick()
    made.yielded(chosen)
    assert made.pick() is second


def test_children_of_children_do_not_keep_the_cpu_from_who_waits() -> None:
    """Each runs next to nothing, begets the next and ends (stress-ng's daemon)."""
    world = World()
    kernel, waiter, parent = world.kernel, world.task, world.new_task()
    kernel.run_queue.clear()
    kernel.run_queue.special = True
    waiter.vruntime = 10_000_000
    kernel.run_queue.append(waiter)
    for _ in range(10):
        child = kernel.tasks[world.call("clone", 17, task=parent)]
        if kernel.run_queue.pick() is waiter:
            return
        parent = child
    raise AssertionError("the one who waited never ran")
