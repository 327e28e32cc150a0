"""System V shared memory: decoders and struct layouts; the work is in mm/ipc_shm.py and mm/ipc_shmat.py."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.own_mm import own_mm
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.flags import CAP_IPC_LOCK, CAP_SYS_ADMIN, RLIMIT_MEMLOCK
from mm.ipc_shm import SHM_LOCKED, SHMMIN, IpcNamespace, ShmidKernel, do_shm_rmid, shmem_lock, shmget
from mm.ipc_shmat import do_shmat, shmdt
from mm.ipc_util import ipc_obtain_object, ipc_obtain_object_check, ipc_update_perm, ipcperms
from mm.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from guest.task import Task

IPC_RMID = 0
IPC_SET = 1
IPC_STAT = 2
IPC_INFO = 3
SHM_LOCK = 11
SHM_UNLOCK = 12
SHM_STAT = 13
SHM_INFO = 14
SHM_STAT_ANY = 15
S_IRUGO = 0o444

# key uid gid cuid cgid mode seq, two unused words | segsz atime dtime ctime cpid lpid nattch, two unused words
SHMID64_DS = Struct("<i5IH2x4x16x4QIIQ16x")
SHMINFO64 = Struct("<5Q32x")
SHM_INFO_STRUCT = Struct("<i4x5Q")


def s32(value: int) -> int:
    """A register read as a C int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def ipc_ns(task: Task) -> IpcNamespace:
    """The segments of the task's namespace; the machine's first are made when asked for."""
    if task.nsproxy is not None:
        from guest.nsproxy import CLONE_NEWIPC

        own: IpcNamespace | None = task.nsproxy.spaces[CLONE_NEWIPC].segments
        if own is not None:
            return own
    kernel = task.kernel
    ns: IpcNamespace | None = kernel.ipc_ns
    if ns is None:
        ns = kernel.ipc_ns = IpcNamespace(kernel.system, kernel.clock)
    return ns


def sys_shmget(task: Task, key: int, size: int, shmflg: int) -> int:
    """Find or make a segment."""
    return shmget(ipc_ns(task), task, s32(key), size, s32(shmflg))


def sys_shmat(task: Task, shmid: int, shmaddr: int, shmflg: int) -> int:
    """Map a segment."""
    return do_shmat(ipc_ns(task), task, s32(shmid), shmaddr, s32(shmflg))


def sys_shmdt(task: Task, shmaddr: int) -> int:
    """Unmap a segment."""
    shmdt(own_mm(task), shmaddr)
    return 0


def _shmid64_ds(task: Task, shp: ShmidKernel) -> bytes:
    """struct shmid64_ds of a segment."""
    return SHMID64_DS.pack(
        shp.key,
        shp.uid,
        shp.gid,
        shp.cuid,
        shp.cgid,
        shp.mode,
        shp.seq,
        shp.shm_segsz,
        shp.shm_atim,
        shp.shm_dtim,
        shp.shm_ctim,
        task.vnr(shp.shm_cprid),
        task.vnr(shp.shm_lprid),
        shp.shm_nattch,
    )


def _shmctl_stat(task: Task, ns: IpcNamespace, shmid: int, cmd: int, buf: int) -> int:
    """IPC_STAT by identifier; SHM_STAT and SHM_STAT_ANY by index, which return the identifier."""
    shp = ipc_obtain_object_check(ns, shmid) if cmd == IPC_STAT else ipc_obtain_object(ns, shmid)
    if cmd != SHM_STAT_ANY and not ipcperms(task, shp, S_IRUGO):
        raise Errno(errno.EACCES)
    copy_to_user(task, buf, _shmid64_ds(task, shp))
    return 0 if cmd == IPC_STAT else shp.id


def _shmctl_down(task: Task, ns: IpcNamespace, shmid: int, cmd: int, buf: int) -> int:
    """IPC_SET and IPC_RMID: for owner, creator and CAP_SYS_ADMIN."""
    raw = copy_from_user(task, buf, SHMID64_DS.size) if cmd == IPC_SET else b""
    shp = ipc_obtain_object_check(ns, shmid)
    if task.cred.euid not in (shp.cuid, shp.uid) and not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if cmd == IPC_RMID:
        do_shm_rmid(ns, shp)
        return 0
    _, uid, gid, _, _, mode, *_ = SHMID64_DS.unpack(raw)
    ipc_update_perm(shp, uid, gid, mode)
    shp.shm_ctim = ns.now()
    return 0


def _shmctl_do_lock(task: Task, ns: IpcNamespace, shmid: int, cmd: int) -> int:
    """SHM_LOCK and SHM_UNLOCK: for CAP_IPC_LOCK, owner and creator."""
    shp = ipc_obtain_object_check(ns, shmid)
    if not task.capable(CAP_IPC_LOCK):
        if task.cred.euid not in (shp.uid, shp.cuid):
            raise Errno(errno.EPERM)
        if cmd == SHM_LOCK and not task.rlimit(RLIMIT_MEMLOCK):
            raise Errno(errno.EPERM)
    if shp.shm_file.huge_shift:
        return 0  # huge pages are never reclaimed
    if cmd == SHM_LOCK:
        user = task.cred.uid
        shmem_lock(ns, shp.shm_file, True, user)
        if not shp.mode & SHM_LOCKED:
            shp.mode |= SHM_LOCKED
            shp.mlock_user = user
    elif shp.mode & SHM_LOCKED:
        shmem_lock(ns, shp.shm_file, False, shp.mlock_user)
        shp.mode &= ~SHM_LOCKED
        shp.mlock_user = None
    return 0


def sys_shmctl(task: Task, shmid: int, cmd: int, buf: int) -> int:
    """Inspect, change, lock or remove a segment."""
    shmid, cmd = s32(shmid), s32(cmd)
    if cmd < 0 or shmid < 0:
        raise Errno(errno.EINVAL)
    ns = ipc_ns(task)
    if cmd == IPC_INFO:
        info = SHMINFO64.pack(ns.shm_ctlmax, SHMMIN, ns.shm_ctlmni, ns.shm_ctlmni, ns.shm_ctlall)
        index = ns.max_idx()
        copy_to_user(task, buf, info)
        return index
    if cmd == SHM_INFO:
        rss = sum(shp.shm_file.f_mapping.nrpages for shp in ns.ids.values())
        copy_to_user(task, buf, SHM_INFO_STRUCT.pack(len(ns.ids), ns.shm_tot, rss, 0, 0, 0))
        return ns.max_idx()
    if cmd in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
        return _shmctl_stat(task, ns, shmid, cmd, buf)
    if cmd in (IPC_SET, IPC_RMID):
        return _shmctl_down(task, ns, shmid, cmd, buf)
    if cmd in (SHM_LOCK, SHM_UNLOCK):
        return _shmctl_do_lock(task, ns, shmid, cmd)
    raise Errno(errno.EINVAL)


CALLS = (
    Call("shmget", sys_shmget, FULL),
    Call("shmat", sys_shmat, FULL),
    Call("shmdt", sys_shmdt, FULL),
    Call("shmctl", sys_shmctl, FULL),
)
