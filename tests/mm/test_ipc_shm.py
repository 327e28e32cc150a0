"""System V segments: identifiers, lifetime, permissions, attachments. As c08, c09 and images/sysvshm."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from pages_world import READ, RW, WRITE, World

from mm.errors import Errno
from mm.ipc_shm import SHM_DEST, IpcNamespace, do_shm_rmid, exit_shm, shmget
from mm.ipc_shmat import SHM_RDONLY, SHM_REMAP, SHM_RND, do_shmat, shmdt
from mm.ipc_util import IPC_CREAT, IPC_EXCL
from mm.mprotect import do_mprotect


class Cred(SimpleNamespace):
    def in_group(self, gid: int) -> bool:
        return gid == self.egid


class Clock:
    def realtime(self) -> int:
        return 1_700_000_000_000_000_000


def world() -> tuple[World, IpcNamespace, Any]:
    w = World()
    task: Any = w.task
    task.cred = Cred(euid=0, egid=0, uid=0)
    task.tgid = 27
    task.capable = lambda cap: bool(task.cap_effective >> cap & 1)
    return w, IpcNamespace(w.system, Clock()), task


def refused(number: int, call: Any, *args: object) -> None:
    with pytest.raises(Errno) as caught:
        call(*args)
    assert caught.value.number == number


def test_keys_and_identifiers() -> None:
    w, ns, task = world()
    refused(errno.ENOENT, shmget, ns, task, 5, 100, 0)
    assert shmget(ns, task, 5, 100, IPC_CREAT | 0o600) == 0
    assert shmget(ns, task, 5, 0, 0) == 0
    assert shmget(ns, task, 0, 1, 0o600) == 1
    refused(errno.EEXIST, shmget, ns, task, 5, 100, IPC_CREAT | IPC_EXCL)
    refused(errno.EINVAL, shmget, ns, task, 5, 101, 0)
    refused(errno.EINVAL, shmget, ns, task, 0, 0, 0o600)
    refused(errno.EINVAL, shmget, ns, task, 0, (1 << 64) - 1, 0o600)
    do_shm_rmid(ns, ns.ids[0])
    assert shmget(ns, task, 0, 1, 0o600) == 2  # indexes are handed out in turn
    for _ in range(13):
        do_shm_rmid(ns, ns.ids[shmget(ns, task, 0, 1, 0o600)])
    assert shmget(ns, task, 0, 1, 0o600) == 1 << 15  # the first index again, with the next sequence number
    for shp in list(ns.ids.values()):
        do_shm_rmid(ns, shp)
    assert ns.shm_tot == 0
    w.end()


def test_a_removed_segment_lives_until_the_last_detach() -> None:
    w, ns, task = world()
    shmid = shmget(ns, task, 5, 3 * w.ps, IPC_CREAT | 0o600)
    a = do_shmat(ns, task, shmid, 0, 0)
    b = do_shmat(ns, task, shmid, 0, SHM_RDONLY)
    w.fault(a, WRITE)
    w.fault(b, READ)
    assert w.page(a) is w.page(b)
    shp = ns.ids[0]
    assert shp.shm_nattch == 2
    do_shm_rmid(ns, shp)
    assert (shp.key, shp.mode & SHM_DEST) == (0, SHM_DEST)
    refused(errno.ENOENT, shmget, ns, task, 5, 0, 0)
    shmdt(w.mm, a)
    assert shp.shm_nattch == 1
    shmdt(w.mm, b)
    assert not ns.ids
    refused(errno.EINVAL, do_shmat, ns, task, shmid, 0, 0)
    w.end()


def test_fragments_are_detached_together() -> None:
    w, ns, task = world()
    shmid = shmget(ns, task, 0, 4 * w.ps, 0o600)
    a = do_shmat(ns, task, shmid, 0, 0)
    do_mprotect(w.task, a + w.ps, w.ps, 1)
    assert ns.ids[0].shm_nattch == 3
    w.munmap(a + w.ps, 1)
    assert ns.ids[0].shm_nattch == 2
    refused(errno.EINVAL, shmdt, w.mm, a + 2 * w.ps)
    shmdt(w.mm, a)
    assert ns.ids[0].shm_nattch == 0
    assert w.mm.map_count == 0
    do_shm_rmid(ns, ns.ids[0])
    w.end()


def test_addresses() -> None:
    w, ns, task = world()
    shmid = shmget(ns, task, 0, w.ps, 0o600)
    c = w.mmap(4, prot=RW)
    refused(errno.EINVAL, do_shmat, ns, task, shmid, c, 0)
    refused(errno.EINVAL, do_shmat, ns, task, shmid, c + 1, SHM_REMAP)
    refused(errno.EINVAL, do_shmat, ns, task, shmid, 0, SHM_REMAP)
    refused(errno.EINVAL, do_shmat, ns, task, shmid, 5, SHM_REMAP | SHM_RND)
    assert do_shmat(ns, task, shmid, c + w.ps + 1, SHM_REMAP | SHM_RND) == c + w.ps
    assert ns.ids[0].shm_nattch == 1
    do_shm_rmid(ns, ns.ids[0])
    w.end()


def test_fork_attaches_and_exit_detaches() -> None:
    w, ns, task = world()
    shmid = shmget(ns, task, 0, w.ps, 0o600)
    do_shmat(ns, task, shmid, 0, 0)
    child = w.fork()
    assert ns.ids[0].shm_nattch == 2
    w.exit(child)
    assert ns.ids[0].shm_nattch == 1
    do_shm_rmid(ns, ns.ids[0])
    w.end()
    assert not ns.ids


def test_permissions_by_owner_group_and_others() -> None:
    w, ns, task = world()
    shmid = shmget(ns, task, 9, w.ps, IPC_CREAT | 0o604)
    task.cred = Cred(euid=1000, egid=1000, uid=1000)
    task.cap_effective = 0
    refused(errno.EACCES, do_shmat, ns, task, shmid, 0, 0)
    a = do_shmat(ns, task, shmid, 0, SHM_RDONLY)
    refused(errno.EACCES, shmget, ns, task, 9, 0, 0o006)
    assert shmget(ns, task, 9, 0, 0) == shmid
    shmdt(w.mm, a)
    task.cred.egid = 0
    refused(errno.EACCES, do_shmat, ns, task, shmid, 0, SHM_RDONLY)
    do_shm_rmid(ns, ns.ids[0])
    w.end()


def test_shm_rmid_forced_destroys_with_the_creator() -> None:
    w, ns, task = world()
    shmget(ns, task, 0, w.ps, 0o600)
    ns.shm_rmid_forced = 1
    exit_shm(ns, task)
    assert not ns.ids
    w.end()
