"""Settings below /proc/sys beside Linux 5.10: sixteen values written to each, what write says and what is read then.

golden/proc/settings.txt is a recording of the oracle: `path [value]`, then `written:returned:read` for each value;
after a write that succeeded the first value was put back.
"""

from __future__ import annotations

import errno
import pathlib
import re
from typing import Any

import pytest
from guest_world import World

from guest.boot_memory import BootMemory

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "proc"
VALUES = [
    "-2", "-1", "0", "1", "2", "3", "9", "101", "1001", "40000", "2147483647", "2147483648", "4294967296", "abc", "5 6",
    "7x",
]  # fmt: skip
RECORDED = dict(line.split(" ", 1) for line in (GOLDEN / "settings.txt").read_text().splitlines())
#: Values that follow from memory, of which a World has less than the oracle: only what is written is compared.
OF_MEMORY = {"fs/epoll/max_user_watches", "vm/admin_reserve_kbytes"}


def read(world: World, path: str) -> str:
    return world.cat(path).decode().rstrip("\n").replace("\t", ",")


def write(world: World, path: str, text: str) -> int:
    fd = world.open(path, 1)
    if fd < 0:
        return fd
    result = world.call("write", fd, world.put(text.encode()), len(text))
    world.call("close", fd)
    return int(result)


def probe(world: World, name: str) -> str:
    path = f"/proc/sys/{name}"
    original = read(world, path)
    out = f"[{original}]"
    for value in VALUES:
        result = write(world, path, value)
        out += f" {value}:{result}:{read(world, path)}"
        if result >= 0:
            write(world, path, original.replace(",", "\t"))
    return out


def test_every_setting_takes_and_refuses_what_linux_does() -> None:
    world = World()
    compared = 0
    different = {}
    for name, expected in RECORDED.items():
        if world.open(f"/proc/sys/{name}") == -errno.ENOENT:
            continue
        if name in OF_MEMORY:
            first = re.match(r"\[(.*?)\]", expected)
            assert first is not None
            write(world, f"/proc/sys/{name}", first[1])
        found = probe(world, name)
        compared += 1
        if found != expected:
            different[name] = (found, expected)
    assert different == {}
    assert compared > 100


#: What the oracle's kernels (1 GiB) say: threads-max, fs/file-max, fs/epoll/max_user_watches, vm/user_reserve_kbytes.
AT_BOOT = {
    ("x86_64", 4096): (7962, 101832, 208711, 31814),
    ("aarch64", 4096): (8008, 102461, 209920, 31986),
    ("aarch64", 16384): (8090, 103542, 212008, 32316),
    ("aarch64", 65536): (8104, 103705, 212336, 32376),
}


@pytest.mark.parametrize("kind", AT_BOOT)
def test_limits_derived_from_memory_are_those_of_the_oracle(kind: tuple[str, int]) -> None:
    world = World(*kind)

    class Large:
        """A gibibyte that only has a size."""

        arch, page_size, ram = world.system.arch, world.system.page_size, range(1 << 30)

    system: Any = Large()
    boot = BootMemory(system)
    found = boot.max_threads(), boot.file_max(), boot.max_user_watches(), boot.user_reserve_kbytes()
    assert found == AT_BOOT[kind]
