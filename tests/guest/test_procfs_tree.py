"""The tree of /proc beside the oracle's: every name with its mode, or a line in left_out.txt that says why not."""

import pathlib
import re
from typing import Any

import pytest
from guest_world import World

from guest.vfs_types import Dentry

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "proc"
LINUX = dict(reversed(line.split(" ", 1)) for line in (GOLDEN / "tree.txt").read_text().splitlines())
#: What pagewalk shows and Linux does not: the debugging file of a task that is not the reader.
OURS = {"/proc/PID/mmdump", "/proc/PID/task/TID/mmdump"}
REASONS = [
    re.split(r" {2,}", line, maxsplit=1)
    for line in (GOLDEN / "left_out.txt").read_text().splitlines()
    if not line.startswith("#")
]


def walk(world: World, parent: Dentry, path: str, found: dict[str, str]) -> None:
    inode: Any = parent.d_inode
    found[path] = f"{inode.i_mode:06o}"
    if inode.i_mode & 0o170000 != 0o040000 or path.endswith(("/fd", "/fdinfo", "/map_files")):
        return
    for name, _, _ in list(inode.iterate(parent, world.task)):
        if path == "/proc" and name.isdigit():
            continue
        shown = "TID" if path.endswith("/task") else name.decode()
        entry = inode.lookup(parent, name)
        assert entry is not None
        walk(world, entry, f"{path}/{shown}", found)


@pytest.fixture(scope="module")
def ours() -> dict[str, str]:
    world = World()
    mount = next(mount for mount in world.kernel.vfs.mounts if mount.mnt_sb.s_type == "proc")
    root = mount.mnt_root
    found: dict[str, str] = {}
    walk(world, root, "/proc", found)
    world.kernel.current = world.task
    walk(world, root.d_inode.lookup(root, b"%d" % world.task.pid), "/proc/PID", found)
    return found


def reason(path: str) -> str | None:
    return next((why for pattern, why in REASONS if re.fullmatch(pattern, path)), None)


def test_every_name_is_there_or_left_out_with_a_reason(ours: dict[str, str]) -> None:
    missing = [path for path in LINUX if path not in ours and reason(path) is None]
    assert missing == []


def test_modes_and_kinds_are_those_of_linux(ours: dict[str, str]) -> None:
    wrong = {path: (ours[path], mode) for path, mode in LINUX.items() if path in ours and ours[path] != mode}
    assert wrong == {}


def test_nothing_is_there_that_linux_has_not(ours: dict[str, str]) -> None:
    assert set(ours) - set(LINUX) == OURS


def test_what_is_left_out_is_not_there(ours: dict[str, str]) -> None:
    assert [path for path in ours if reason(path) is not None] == []


def test_every_file_can_be_read_to_its_end(ours: dict[str, str]) -> None:
    """`find /proc /sys -type f -exec cat`: an end or an errno, and nothing else."""
    world = World()

    def visit(parent: Dentry, path: str, left: int) -> int:
        inode: Any = parent.d_inode
        kind = inode.i_mode & 0o170000
        if kind == 0o040000:
            for name, _, _ in list(inode.iterate(parent, world.task)):
                below = inode.lookup(parent, name)
                assert below is not None
                left = visit(below, f"{path}/{name.decode()}", left)
        elif kind == 0o100000 and not path.endswith(("/mem", "/pagemap")):  # these are as long as memory
            fd = world.open(path, 0o4000)
            while fd >= 0:
                data = world.read(fd, 65536)
                if not isinstance(data, bytes) or not data:
                    break
            if fd >= 0:
                world.call("close", fd)
            left += 1
        return left

    read = 0
    for mount in world.kernel.vfs.mounts:
        if mount.mnt_sb.s_type in ("proc", "sysfs"):
            read += visit(mount.mnt_root, "/proc" if mount.mnt_sb.s_type == "proc" else "/sys", 0)
    assert read > 250
