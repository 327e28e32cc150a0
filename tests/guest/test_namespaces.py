"""Namespaces: names, segments and identities of their own; how a task gets into one, and what is refused."""

import errno
import pickle

import pytest
from guest_world import World

from guest.nsproxy import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    KINDS,
)

IPC_CREAT = 0o1000
KEY = 0x1234


@pytest.fixture
def world() -> World:
    return World()


def hostname(world: World, task: object) -> bytes:
    return world.cat("/proc/sys/kernel/hostname", task=task).strip()


def test_a_host_name_of_its_own(world: World) -> None:
    other = world.new_task()
    world.call("sethostname", b"before", 6)
    assert world.call("unshare", CLONE_NEWUTS) == 0
    assert hostname(world, world.task) == b"before"
    world.call("sethostname", b"inner", 5)
    assert (hostname(world, world.task), hostname(world, other)) == (b"inner", b"before")
    fd = world.open(f"/proc/{world.task.pid}/ns/uts", task=other)
    assert world.call("setns", fd, CLONE_NEWIPC, task=other) == -errno.EINVAL
    assert world.call("setns", fd, CLONE_NEWUTS, task=other) == 0
    assert hostname(world, other) == b"inner"


def test_segments_of_its_own_go_with_the_last_task(world: World) -> None:
    outer = world.call("shmget", KEY, 4096, IPC_CREAT | 0o600)
    assert world.call("unshare", CLONE_NEWIPC) == 0
    assert world.call("shmget", KEY, 4096, 0) == -errno.ENOENT
    free = world.system.nr_free_pages()
    inner = world.call("shmget", KEY, 4096, IPC_CREAT | 0o600)
    assert inner >= 0
    first = world.kernel.nsproxy.spaces[CLONE_NEWIPC]
    segments = world.task.nsproxy.spaces[CLONE_NEWIPC].segments
    from guest.nsproxy import install

    install(world.task, {CLONE_NEWIPC: first})
    assert not segments.ids
    assert world.system.nr_free_pages() == free
    assert world.call("shmget", KEY, 4096, 0) == outer


def test_each_has_a_number(world: World) -> None:
    def link() -> bytes:
        at = world.put(bytes(64))
        count = world.call("readlink", "/proc/self/ns/mnt", at, 64)
        return world.get(at, count)

    before = link()
    assert before == b"mnt:[%d]" % KINDS[b"mnt"][1]
    assert world.call("unshare", CLONE_NEWNS) == 0
    assert link() != before


def test_what_is_refused(world: World) -> None:
    assert world.call("unshare", CLONE_NEWUSER) == -errno.EINVAL
    fd = world.open("/proc/self/ns/uts")
    world.call("setresuid", 1000, 1000, 1000)
    assert world.call("unshare", CLONE_NEWUTS) == -errno.EPERM
    assert world.call("setns", fd, 0) == -errno.EPERM
    assert world.call("setns", world.open("/proc/self/status"), 0) == -errno.EINVAL
    assert world.call("setns", 99, 0) == -errno.EBADF


def test_a_clone_starts_in_new_ones_and_they_pickle(world: World) -> None:
    pid = world.call("clone", CLONE_NEWUTS | CLONE_NEWIPC | 17)
    child = world.kernel.tasks[pid]
    assert world.task.nsproxy is None
    assert child.nsproxy.spaces[CLONE_NEWUTS] is not world.kernel.nsproxy.spaces[CLONE_NEWUTS]
    again = pickle.loads(pickle.dumps(child.nsproxy))
    assert {kind: space.number for kind, space in again.spaces.items()} == {
        kind: space.number for kind, space in child.nsproxy.spaces.items()
    }


def test_all_of_them_and_half_made_mounts_pickle(world: World) -> None:
    everything = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWTIME
    assert world.call("mount", 0, "/", 0, 1 << 20 | 1 << 14, 0) == 0  # MS_SHARED | MS_REC
    assert world.call("unshare", everything) == 0
    context = world.call("fsopen", "tmpfs", 0)
    assert world.call("fsconfig", context, 1, "nosuch", "x", 0) == -errno.EINVAL
    pid = world.call("fork")
    kernel = pickle.loads(pickle.dumps(world.kernel))
    child = kernel.tasks[pid]
    assert child.pid_ns.numbers == {pid: 1} and child.pid_ns.child_reaper is child
    assert child.time_ns is kernel.tasks[world.task.pid].nsproxy.time_ns and child.time_ns.frozen_offsets
    assert child.files.fd[context].fc.log == ["e tmpfs: Unknown parameter 'nosuch'\n"]
    root = child.fs.root.mnt
    assert root.mnt_ns is child.nsproxy.spaces[CLONE_NEWNS] and kernel.vfs.root.mnt in root.shared.members


def test_the_end_of_a_namespaces_init_waits_for_children_of_every_kind(world: World) -> None:
    """Found by the fuzzer: a child that tells nobody of its end was left a zombie, and so init was left as well."""
    assert world.call("unshare", CLONE_NEWPID) == 0
    tasks = world.kernel.tasks
    init = tasks[world.call("clone", 17, 0, 0, 0, 0)]
    assert world.call("clone", 0, 0, 0, 0, 0, task=init) == 2
    quiet = tasks[max(tasks)]
    assert world.call("kill", init.pid, 9) == 0
    for task in (init, quiet):
        world.kernel.end_trap(task)
    assert init.exit_state == "Z" and quiet.pid not in tasks


def test_a_network_of_its_own_begins_with_its_loopback_down(world: World) -> None:
    """Not recorded: the oracle's kernel has no INET. As ip(7) and every container's first `ip link set lo up` say."""
    lo_up = b"lo".ljust(16, b"\0") + (1).to_bytes(2, "little") + bytes(22)
    address = world.put(b"\2\0\x30\x39\x7f\0\0\1" + bytes(8))
    first = world.call("socket", 2, 2, 0)
    assert world.call("bind", first, address, 16) == 0
    assert world.call("unshare", CLONE_NEWNET) == 0
    inner = world.call("socket", 2, 2, 0)
    assert world.call("bind", inner, address, 16) == -errno.EADDRNOTAVAIL
    assert world.call("connect", inner, address, 16) == -errno.ENETUNREACH
    assert world.call("ioctl", inner, 0x8914, world.put(lo_up)) == 0  # SIOCSIFFLAGS
    assert world.call("bind", inner, address, 16) == 0  # the same port as in the first network
    assert world.call("connect", inner, address, 16) == 0
