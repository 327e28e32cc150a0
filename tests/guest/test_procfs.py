"""/proc: formats, seq_file's reading rules, settings, links, who may look."""

import errno
import pickle
import re

import pytest
from guest_world import World

# What a real Linux 5.10.262 printed on the oracle (busybox cat /proc/self/status), numbers replaced.
STATUS = (
    "Name Umask State Tgid Ngid Pid PPid TracerPid Uid Gid FDSize Groups NStgid NSpid NSpgid NSsid VmPeak "
    "VmSize VmLck VmPin VmHWM VmRSS RssAnon RssFile RssShmem VmData VmStk VmExe VmLib VmPTE VmSwap "
    "HugetlbPages CoreDumping THP_enabled Threads SigQ SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm "
    "CapEff CapBnd CapAmb NoNewPrivs Speculation_Store_Bypass Cpus_allowed Cpus_allowed_list "
    "voluntary_ctxt_switches nonvoluntary_ctxt_switches"
)


@pytest.fixture
def world() -> World:
    return World()


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


def test_status_has_linux_fields_in_linux_order(world: World) -> None:
    text = world.cat("/proc/self/status").decode()
    assert [line.partition(":")[0] for line in text.splitlines()] == STATUS.split()
    assert re.search(r"^VmSize:\t {4}1024 kB$", text, re.MULTILINE)
    assert "Groups:\t \n" in text


def test_stat_has_52_fields(world: World) -> None:
    text = world.cat("/proc/self/stat").decode()
    pid = world.task.pid
    assert text.startswith(f"{pid} (test) R 1 ")
    assert len(text.split()) == 52


def test_maps_line(world: World) -> None:
    fd = world.open("/tmp/a b\nc", 0o102)
    world.call("ftruncate", fd, 8192)
    world.call("mmap", 0x10000, 8192, 1, 0x12, fd, 0)
    first, *_, last = world.cat("/proc/self/maps").decode().splitlines()
    assert first.startswith("00010000-00012000 r--p 00000000 00:0e ")
    assert first.index("/tmp/a b\\012c") == 73
    assert last == "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]"


def test_a_read_returns_whole_records_of_at_most_a_page(world: World) -> None:
    for i in range(200):
        world.call("mmap", 0x100000 + i * 8192, 4096, 1, 0x32, -1, 0)
    fd = world.open("/proc/self/maps")
    first = world.read(fd)
    assert isinstance(first, bytes)
    assert 4096 - 60 < len(first) < 4096
    assert first.endswith(b"\n")
    whole, part = first, world.read(fd)
    while part:
        assert isinstance(part, bytes)
        whole += part
        part = world.read(fd)
    assert whole.count(b"\n") == 202
    assert world.call("pread64", fd, world.put(bytes(100)), 100, 50) == 100
    buf = world.put(bytes(100))
    world.call("pread64", fd, buf, 100, 5000)
    assert world.get(buf, 100) == whole[5000:5100]


def test_small_reads_give_the_same_text(world: World) -> None:
    whole = world.cat("/proc/self/limits")
    fd, out = world.open("/proc/self/limits"), b""
    while part := world.read(fd, 7):
        assert isinstance(part, bytes)
        out += part
    assert out == whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2", 2), (b" 1\n", 1), (b"0x1\n", 1), (b"3", "EINVAL"), (b"-1", "EINVAL"), (b"x", "EINVAL"),
        (b"1x", "EINVAL"),
        (b"\n", "EINVAL"), (b"01", 1), (b"99999999999999999999999999", "EINVAL"),
    ],
)  # fmt: skip
def test_overcommit_memory(world: World, text: bytes, expected: int | str) -> None:
    fd = world.open("/proc/sys/vm/overcommit_memory", 2)
    done = world.call("pwrite64", fd, text, len(text), 0)
    if isinstance(expected, str):
        assert name(done) == expected
        assert world.system.sysctl_overcommit_memory == 0
    else:
        assert done == len(text)
        assert world.system.sysctl_overcommit_memory == expected
        assert world.cat("/proc/sys/vm/overcommit_memory") == b"%d\n" % expected


def test_settings_that_clear_each_other(world: World) -> None:
    world.write(world.open("/proc/sys/vm/overcommit_kbytes", 1), b"1000")
    assert world.cat("/proc/sys/vm/overcommit_ratio") == b"0\n"
    world.write(world.open("/proc/sys/vm/overcommit_ratio", 1), b"80")
    assert world.cat("/proc/sys/vm/overcommit_kbytes") == b"0\n"
    assert name(world.open("/proc/sys/kernel/osrelease", 1)) == "EACCES"
    fd = world.open("/proc/sys/vm/max_map_count", 2)
    assert world.call("pwrite64", fd, b"7", 1, 3) == 1  # not at position 0: ignored
    assert world.cat("/proc/sys/vm/max_map_count") == b"65530\n"


def test_links(world: World) -> None:
    buf = world.put(bytes(100))

    def readlink(path: str) -> bytes:
        return world.get(buf, world.call("readlink", path, buf, 100))

    pid = world.task.pid
    assert readlink("/proc/self") == b"%d" % pid
    assert readlink("/proc/thread-self") == b"%d/task/%d" % (pid, pid)
    fd = world.open("/tmp/f", 0o102)
    assert readlink(f"/proc/self/fd/{fd}") == b"/tmp/f"
    world.write(fd, b"found")
    world.call("unlink", "/tmp/f")
    assert readlink(f"/proc/self/fd/{fd}") == b"/tmp/f (deleted)"
    assert world.cat(f"/proc/self/fd/{fd}") == b"found"  # the link jumps, whatever the name
    assert readlink("/proc/self/cwd") == b"/"
    assert name(world.call("readlink", "/proc/self/fd/77", buf, 100)) == "ENOENT"
    assert world.cat(f"/proc/self/fdinfo/{fd}") == b"pos:\t5\nflags:\t0100002\nmnt_id:\t16\n"


def test_other_users_see_little(world: World) -> None:
    user = world.new_task(uid=1000)
    pid = world.kernel.init.pid
    first = next(p for p in world.kernel.tasks if p not in (pid, user.pid))
    for entry in ("maps", "mem", "environ", "fd"):
        result = world.open(f"/proc/{first}/{entry}", task=user)
        if result >= 0:  # environ checks when it is read
            result = world.call("read", result, world.put(bytes(8), user), 8, task=user)
        assert name(result) == "EACCES", entry
    assert b"Name:\ttest" in world.cat(f"/proc/{first}/status", task=user)


def test_mem_and_pagemap(world: World) -> None:
    address = world.put(b"look here")
    fd = world.open("/proc/self/mem", 2)
    assert world.call("pread64", fd, world.put(bytes(9)), 9, address) == 9
    assert world.call("pwrite64", fd, b"LOOK", 4, address) == 4
    assert world.get(address, 9) == b"LOOK here"
    pagemap = world.open("/proc/self/pagemap")
    buf = world.put(bytes(8))
    assert world.call("pread64", pagemap, buf, 8, address // 4096 * 8) == 8
    entry = int.from_bytes(world.get(buf, 8), "little")
    assert entry >> 63 == 1
    assert entry >> 61 & 1 == 0
    assert name(world.call("pread64", pagemap, buf, 7, 0)) == "EINVAL"


def test_refusals(world: World) -> None:
    assert name(world.call("mkdir", "/proc/x", 0o755)) == "ENOENT"
    assert name(world.call("unlink", "/proc/uptime")) == "EPERM"
    assert name(world.write(world.open("/proc/self/status", 1), b"x")) == "EINVAL"
    assert name(world.write(world.open("/proc/uptime", 1), b"x")) == "EIO"
    gone = world.new_task()
    fd = world.open(f"/proc/{gone.pid}/status")
    del world.kernel.tasks[gone.pid]
    assert name(world.read(fd)) == "ESRCH"  # type: ignore[arg-type]


def test_the_file_system_pickles(world: World) -> None:
    for path in ("/tmp", "/proc/self/maps", "/proc/sys/vm/max_map_count", "/proc/self/fd", "/dev/zero", "/proc/uptime"):
        assert world.open(path) >= 0
    fd = world.open("/tmp/f", 0o102)
    world.write(fd, b"kept")
    kernel = pickle.loads(pickle.dumps(world.kernel))
    file = kernel.tasks[world.task.pid].files.get(fd)
    assert file.d_path() == "/tmp/f"
    assert file.f_mapping.i_size == 4


def test_a_pid_that_comes_again_has_another_folder(world: World) -> None:
    """The number of /proc/PID tells a process from the one that had its pid before."""
    numbers = []
    for _ in range(2):
        world.kernel.next_pid = 77
        child = world.kernel.tasks[world.call("clone", 17)]
        fd = world.open(f"/proc/{child.pid}")
        numbers.append((child.pid, world.task.files.get(fd).f_inode.i_ino))
        del world.kernel.tasks[child.pid]
    assert numbers[0][0] == numbers[1][0] == 77
    assert numbers[0][1] != numbers[1][1]
