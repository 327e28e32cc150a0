"""Every call and every allocation of small programs fails once, in turn, under the invariant checker.

Nothing breaks, nothing is lost, and what the program sees is what Linux would tell it: the injected errno, or for a
frame that is not there ENOMEM, EFAULT from a copy to user memory, or the end by SIGKILL of a fault.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from geometry import IMAGES, arch_of, make_machine

from emu import PagewalkError
from emu.errors import STATUS_CANNOT_RUN
from emu.inject import Injection, Injector
from tests.emu.test_teardown import RAM, Account, prepared

PROGRAMS = [("x86_64-4k", "cow"), ("aarch64-16k", "cow"), ("x86_64-4k", "filemap"), ("aarch64-64k", "brk")]
NEVER_FAIL = ("exit", "exit_group", "rt_sigreturn")


def run_with(kernel: str, name: str, text: str) -> tuple[Any, list[Any], list[Any]]:
    """(exit or None where it could not be executed, what was injected, calls that returned) of one run.

    Of each call, how much had been injected when it returned.
    """
    machine = make_machine(kernel, ram=RAM, check=2)
    account = Account(machine)
    Injector(machine, [Injection(text)])
    injected: list[Any] = []
    calls: list[Any] = []
    machine.subscribe(injected.append, "injected")
    machine.subscribe(lambda event: calls.append((event, len(injected))), "syscall_exit")
    end = None
    try:
        machine.load(str(IMAGES / arch_of(kernel) / name))
        end = machine.run(timeout=60)
        assert end.reason == "exit"
    except PagewalkError as refused:
        assert refused.status == STATUS_CANNOT_RUN
    account.check()
    machine.close()
    return end, injected, calls


@pytest.mark.parametrize(("kernel", "name"), PROGRAMS)
def test_every_allocation(kernel: str, name: str) -> None:
    number, refused = 0, 0
    while True:
        number += 1
        end, injected, calls = run_with(kernel, name, f"page_alloc:error:when={number}")
        if not injected:
            break
        hit = next((call for call, so_far in calls if so_far), None)  # the call it came in, or the next one
        assert hit is None or hit.result >= 0 or -hit.result in (errno.ENOMEM, errno.EFAULT)
        if end is None:
            refused += 1
        elif end.signal:
            assert end.signal in (9, 6)
    assert number > 10
    assert 0 < refused < number - 3


@pytest.mark.parametrize(("kernel", "name"), PROGRAMS)
def test_every_call(kernel: str, name: str) -> None:
    machine, _ = prepared(kernel, str(IMAGES / arch_of(kernel) / name), stdout="capture")
    made: dict[str, dict[int, int]] = {}

    def count(event: Any) -> None:
        of_call = made.setdefault(event.name, {})
        of_call[event.pid] = of_call.get(event.pid, 0) + (not event.restarted)

    machine.subscribe(count, "syscall_enter")
    machine.run()
    machine.close()
    for call in sorted(set(made) - set(NEVER_FAIL)):
        for number in range(1, min(max(made[call].values()), 3) + 1):
            _, injected, calls = run_with(kernel, name, f"{call}:error=EIO:when={number}")
            assert injected, (call, number)
            assert {event.how for event in injected} == {"EIO"}
            failed = [event.name for event, _ in calls if event.injected and event.result == -errno.EIO]
            assert failed == [call] * len(injected)  # each task counts for itself
