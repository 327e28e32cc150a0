"""System V shared memory (ipc/shm.c).

A segment is an unlinked shmem file with an identifier, a key and permissions; an attachment is an ordinary shared
mapping of it through an open file of its own (`ShmAttachFile`), whose owner operations count attachments:

    shmget -> ShmidKernel --shm_file--> ShmemFile ---------> AddressSpace (the pages)
    shmat  -> VMA --vm_file--> ShmAttachFile --sfd_file---------^
                  --vm_ops---> shm_vm_ops: open and close count shm_nattch

A removed segment (SHM_DEST) lives, without its key, until its last attachment goes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from mm.errors import Errno, KernelBug
from mm.flags import VM_LOCKED, VM_NORESERVE
from mm.ipc_util import (
    IPC_CREAT,
    IPC_EXCL,
    IPC_PRIVATE,
    S_IRWXUGO,
    IpcIds,
    KernIpcPerm,
    ipc_addid,
    ipc_obtain_object,
    ipc_rmid,
    ipcperms,
)
from mm.mlock import user_shm_lock, user_shm_unlock
from mm.shmem import ShmemFile, shmem_file_setup, shmem_vm_ops
from mm.util import OVERCOMMIT_NEVER, fput, get_file

if TYPE_CHECKING:
    from mm.system import System
    from mm.types import TaskStruct, VmAreaStruct, VmFault

_MASK64 = 0xFFFFFFFFFFFFFFFF
SHMMIN = 1
SHMMNI = 4096
SHMMAX = SHMALL = _MASK64 - (1 << 24)
SHM_HUGETLB = 0o4000
SHM_NORESERVE = 0o10000
SHM_DEST = 0o1000  # in shm_perm.mode: destroyed on the last detach
SHM_LOCKED = 0o2000


class ShmidKernel(KernIpcPerm):
    """One segment (struct shmid_kernel). Times in seconds since 1970, pids are thread groups."""

    def __init__(self, key: int, mode: int, shm_file: ShmemFile, size: int) -> None:
        super().__init__(key, mode)
        self.shm_file = shm_file
        self.shm_segsz = size
        self.shm_nattch = 0
        self.shm_atim = self.shm_dtim = self.shm_ctim = 0
        self.shm_cprid = self.shm_lprid = 0
        self.mlock_user: int | None = None  # user id charged for SHM_LOCK
        self.shm_creator: TaskStruct | None = None  # None once the creator is dead


class IpcNamespace(IpcIds):
    """The machine's segments, and what it has of messages and semaphores (struct ipc_namespace).

    It is itself the ipc_ids of shared memory.

    Args:
        system: the machine.
        clock: has `realtime()`, nanoseconds since 1970.
    """

    def __init__(self, system: System, clock: Any) -> None:
        super().__init__()
        self.system = system
        self.clock = clock
        self.shm_ctlmax = SHMMAX
        self.shm_ctlall = SHMALL
        self.shm_ctlmni = SHMMNI
        self.shm_rmid_forced = 0
        self.shm_tot = 0  # pages of all segments
        self.locked_shm: dict[int, int] = {}  # user_struct: pages locked, by user id
        # Of guest/sys_msg.py, sys_sem.py and mqueue.py: made by the first object.
        self.msg_ctlmax, self.msg_ctlmnb, self.msg_ctlmni = 8192, 16384, 32000
        self.sem_ctls = [32000, 32000 * 32000, 500, 32000]  # SEMMSL, SEMMNS, SEMOPM, SEMMNI
        self.mq_queues_max, self.mq_msg_max, self.mq_msgsize_max = 256, 10, 8192
        self.mq_msg_default, self.mq_msgsize_default = 10, 8192
        self.mq_queues_count = 0
        self.msg_ids = IpcIds()
        self.sem_ids = IpcIds()
        self.used_sems = 0
        self.mq_mnt: Any = None

    def now(self) -> int:
        """ktime_get_real_seconds()."""
        seconds: int = self.clock.realtime() // 1_000_000_000
        return seconds

    def pages(self, size: int) -> int:
        """Bytes to pages, rounded up."""
        return (size + self.system.page_size - 1) >> self.system.arch.page_shift


def _tgid(system: System) -> int:
    """Thread group of the running task."""
    task = system.current
    return getattr(task, "tgid", 0)


# -- segments --------------------------------------------------------------------------------------------------------


def newseg(ns: IpcNamespace, task: Any, key: int, size: int, shmflg: int) -> int:
    """Make a segment; its identifier.

    Raises:
        Errno: EINVAL for a size out of bounds, ENOSPC where all segments or their pages are used up, ENOMEM where the
            memory cannot be promised or no huge pages are there.
    """
    system = ns.system
    if size < SHMMIN or size > ns.shm_ctlmax:
        raise Errno(errno.EINVAL)
    numpages = ((size + system.page_size - 1) & _MASK64) >> system.arch.page_shift
    if numpages << system.arch.page_shift < size or ns.shm_tot + numpages > ns.shm_ctlall:
        raise Errno(errno.ENOSPC)
    name = f"SYSV{key & 0xFFFFFFFF:08x}"
    huge_user = None
    file: Any
    if shmflg & SHM_HUGETLB:
        file, huge_user = _huge_segment(ns, task, name, size, shmflg)
    else:
        acctflag = 0
        if shmflg & SHM_NORESERVE and system.sysctl_overcommit_memory != OVERCOMMIT_NEVER:
            acctflag = VM_NORESERVE
        file = shmem_file_setup(system, name, size, acctflag)
    shp = ShmidKernel(key, shmflg & S_IRWXUGO, file, size)
    shp.mlock_user = huge_user
    shp.shm_cprid = _tgid(system)
    shp.shm_ctim = ns.now()
    shp.shm_creator = task
    try:
        ipc_addid(ns, shp, task.cred.euid, task.cred.egid, ns.shm_ctlmni)
    except Errno:
        if huge_user is not None:
            user_shm_unlock(system, ns.locked_shm, file.f_mapping.i_size, huge_user)
        fput(file)
        raise
    file.ino = shp.id  # /proc/PID/maps shows the identifier as inode number
    ns.shm_tot += numpages
    return shp.id


def _huge_segment(ns: IpcNamespace, task: Any, name: str, size: int, shmflg: int) -> tuple[Any, int | None]:
    """The file of a segment of huge pages, and the user whose locked memory it counts as (None: nobody's).

    Raises:
        Errno: EINVAL for a size of pages there is not, EPERM without the right to have such segments, ENOMEM.
    """
    from mm.hugetlb_file import can_do_hugetlb_shm, hugetlb_file_setup
    from mm.hugetlb_pool import hugetlb_pools

    system = ns.system
    log = shmflg >> 26 & 0x3F
    hstate = hugetlb_pools(system).hstate_sizelog(log)
    if hstate is None:
        raise Errno(errno.EINVAL)
    hugesize = (size + hstate.size - 1) & -hstate.size
    user = None
    if not can_do_hugetlb_shm(system):
        user = task.cred.uid
        if not user_shm_lock(system, ns.locked_shm, hugesize, user):
            raise Errno(errno.EPERM)
    acctflag = VM_NORESERVE if shmflg & SHM_NORESERVE else 0
    try:
        return hugetlb_file_setup(system, name, hugesize, acctflag, log, True), user
    except Errno:
        if user is not None:
            user_shm_unlock(system, ns.locked_shm, hugesize, user)
        raise


def shmget(ns: IpcNamespace, task: Any, key: int, size: int, shmflg: int) -> int:
    """The call shmget: find or make a segment.

    Raises:
        Errno: ENOENT, EEXIST, EINVAL (larger than the segment there is), EACCES, and those of newseg().
    """
    if key == IPC_PRIVATE:
        return newseg(ns, task, key, size, shmflg)
    shp: ShmidKernel | None = ns.keys.get(key)
    if shp is None:
        if not shmflg & IPC_CREAT:
            raise Errno(errno.ENOENT)
        return newseg(ns, task, key, size, shmflg)
    if shmflg & IPC_CREAT and shmflg & IPC_EXCL:
        raise Errno(errno.EEXIST)
    if shp.shm_segsz < size:
        raise Errno(errno.EINVAL)
    if not ipcperms(task, shp, shmflg & 0xFFFF):
        raise Errno(errno.EACCES)
    return shp.id


def shmem_lock(ns: IpcNamespace, file: ShmemFile, lock: bool, user: int | None) -> None:
    """SHM_LOCK and SHM_UNLOCK on the file. Raises Errno(ENOMEM) above RLIMIT_MEMLOCK."""
    info = file.f_mapping.private
    if lock and not info.flags & VM_LOCKED:
        if user is None or not user_shm_lock(ns.system, ns.locked_shm, file.f_mapping.i_size, user):
            raise Errno(errno.ENOMEM)
        info.flags |= VM_LOCKED
    if not lock and info.flags & VM_LOCKED and user is not None:
        user_shm_unlock(ns.system, ns.locked_shm, file.f_mapping.i_size, user)
        info.flags &= ~VM_LOCKED


def shm_destroy(ns: IpcNamespace, shp: ShmidKernel) -> None:
    """Free a segment nobody is attached to."""
    ns.shm_tot -= ns.pages(shp.shm_segsz)
    shp.shm_creator = None
    ipc_rmid(ns, shp)
    if shp.shm_file.huge_shift:
        if shp.mlock_user is not None:
            user_shm_unlock(ns.system, ns.locked_shm, shp.shm_file.f_mapping.i_size, shp.mlock_user)
    else:
        shmem_lock(ns, shp.shm_file, False, shp.mlock_user)
    fput(shp.shm_file)


def shm_may_destroy(ns: IpcNamespace, shp: ShmidKernel) -> bool:
    """Is nobody attached, and was it removed (or is removal automatic)?"""
    return shp.shm_nattch == 0 and bool(ns.shm_rmid_forced or shp.mode & SHM_DEST)


def do_shm_rmid(ns: IpcNamespace, shp: ShmidKernel) -> None:
    """IPC_RMID: destroy now, or with the last detach; the key is free at once."""
    if shp.shm_nattch:
        shp.mode |= SHM_DEST
        if shp.key != IPC_PRIVATE:
            del ns.keys[shp.key]
            shp.key = IPC_PRIVATE
    else:
        shm_destroy(ns, shp)


def shm_destroy_orphaned(ns: IpcNamespace) -> None:
    """kernel.shm_rmid_forced was set: destroy what has neither attachments nor a living creator."""
    for shp in list(ns.ids.values()):
        if shp.shm_creator is None and shm_may_destroy(ns, shp):
            shm_destroy(ns, shp)


def exit_shm(ns: IpcNamespace, task: TaskStruct) -> None:
    """A task ends: its segments lose their creator, and go if kernel.shm_rmid_forced is set and nobody is attached."""
    for shp in list(ns.ids.values()):
        if shp.shm_creator is task:
            shp.shm_creator = None
            if shm_may_destroy(ns, shp) and ns.shm_rmid_forced:
                shm_destroy(ns, shp)


# -- attachments -----------------------------------------------------------------------------------------------------


class ShmAttachFile:
    """The open file of one shmat (alloc_file_clone() of the segment's file, with struct shm_file_data)."""

    def __init__(self, ns: IpcNamespace, shp: ShmidKernel, f_mode: int) -> None:
        self.ns = ns
        self.id = shp.id
        self.sfd_file: Any = get_file(shp.shm_file)
        self.f_mapping = shp.shm_file.f_mapping
        self.f_mode = f_mode
        self.f_flags = f_mode - 1
        self.f_count = 1

    @property
    def ino(self) -> int:
        """Inode number: the segment's identifier."""
        return self.id

    @property
    def huge_shift(self) -> int:
        """log2 of the size of the segment's pages, 0 for ordinary ones."""
        shift: int = self.sfd_file.huge_shift
        return shift

    def d_path(self) -> str:
        """Path as /proc shows it."""
        path: str = self.sfd_file.d_path()
        return path

    def mmap(self, vma: VmAreaStruct) -> None:
        """shm_mmap(): counts an attachment. Raises Errno EINVAL where the segment is gone (remap_file_pages)."""
        _shm_open(vma)
        try:
            self.sfd_file.mmap(vma)
        except Errno:
            shm_close(vma)
            raise
        vma.vm_ops = shm_vm_ops

    def fallocate(self, task: Any, mode: int, offset: int, length: int) -> None:
        """shm_fallocate(): the file's own."""
        from mm.shmem import shmem_fallocate

        if self.huge_shift:
            self.sfd_file.fallocate(task, mode, offset, length)
            return
        shmem_fallocate(self.f_mapping, mode, offset, length)

    def release(self) -> None:
        """The last area that used it is gone."""
        fput(self.sfd_file)


def _attached(vma: VmAreaStruct) -> ShmAttachFile:
    file = vma.vm_file
    if not isinstance(file, ShmAttachFile):
        raise KernelBug(f"{vma!r} has shm_vm_ops but maps no segment", vma.vm_mm)
    return file


def _shm_open(vma: VmAreaStruct) -> None:
    """One attachment more. Raises Errno(EINVAL) where the identifier names no segment, or another one."""
    file = _attached(vma)
    ns = file.ns
    shp = ipc_obtain_object(ns, file.id)
    if shp.shm_file is not file.sfd_file:
        raise Errno(errno.EINVAL)
    shp.shm_atim = ns.now()
    shp.shm_lprid = _tgid(ns.system)
    shp.shm_nattch += 1


def shm_open(vma: VmAreaStruct) -> None:
    """vm_ops->open: fork or a split made one more area."""
    _shm_open(vma)


def shm_close(vma: VmAreaStruct) -> None:
    """vm_ops->close: an area is gone, and with the last one a removed segment."""
    file = _attached(vma)
    ns = file.ns
    shp = ipc_obtain_object(ns, file.id)
    shp.shm_lprid = _tgid(ns.system)
    shp.shm_dtim = ns.now()
    shp.shm_nattch -= 1
    if shm_may_destroy(ns, shp):
        shm_destroy(ns, shp)


def shm_split(vma: VmAreaStruct, addr: int) -> None:
    """vm_ops->split: raises Errno(EINVAL) between the borders of huge pages."""
    if addr & ((1 << _attached(vma).huge_shift) - 1):
        raise Errno(errno.EINVAL)


class ShmVmOps:
    """shm_vm_ops. Stateless: one instance, `shm_vm_ops`. There is no map_pages: a fault maps one page."""

    map_pages = None
    page_mkwrite = None
    name = None
    open = staticmethod(shm_open)
    close = staticmethod(shm_close)
    split = staticmethod(shm_split)

    @staticmethod
    def fault(vmf: VmFault) -> int:
        """shm_fault(): the segment's page."""
        fault: int = shmem_vm_ops.fault(vmf)
        return fault

    def __reduce__(self) -> str:
        return "shm_vm_ops"


shm_vm_ops: Any = ShmVmOps()
