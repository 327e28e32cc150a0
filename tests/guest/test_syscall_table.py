"""The table of system calls: complete names, and an index that says what the modules have."""

from importlib import import_module

import pytest
from fake_machine import make_kernel, syscall

from guest.syscall_numbers import NAMES
from guest.syscalls import FAMILIES, FULL, PARTIAL, Table


def test_index_is_in_step_with_the_modules():
    for family, names in FAMILIES.items():
        assert set(names.split()) == {call[0] for call in import_module(family).CALLS}, family


def test_every_call_has_a_number_somewhere_and_a_support_level():
    known = set(NAMES["x86_64"].values()) | set(NAMES["aarch64"].values())
    for family in FAMILIES:
        for call in import_module(family).CALLS:
            assert call[0] in known, call[0]
            assert call[2] in (FULL, PARTIAL)
            assert call[2] == FULL or call[3], f"{call[0]}: partial needs a note"


def test_numbers_are_linuxs():
    assert (len(NAMES["x86_64"]), len(NAMES["aarch64"])) == (352, 296)
    assert NAMES["x86_64"][59] == NAMES["aarch64"][221] == "execve"
    assert NAMES["x86_64"][440] == NAMES["aarch64"][440] == "process_madvise"


@pytest.mark.parametrize("arch", NAMES)
def test_every_served_call_resolves(arch):
    table = Table(arch, tuple(range(6)))
    calls = (call for family in FAMILIES for call in import_module(family).CALLS)
    served = {call.name for call in calls if call.only in ("", arch)}
    for number, name in table.names.items():
        assert (table.resolve(number) is not None) == (name in served), name


def test_unknown_calls_are_remembered():
    kernel = make_kernel("x86_64-4k", ram=1 << 24)
    kernel.set_current(kernel.init)
    for number in (999, 999, 1 << 40, 178):
        kernel.cpu.regs[0] = number
        kernel.system_call()
        assert kernel.cpu.regs[0] == 2**64 - 38
    assert kernel.unknown_calls == {999: 2, 1 << 40: 1, 178: 1}
    assert syscall(kernel, "getpid") == 1
