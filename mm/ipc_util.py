"""Identifiers and permissions of System V objects (ipc/util.c): shared memory here, messages and semaphores in guest/.

An identifier is sequence number * 32768 + index. Indexes are handed out in turn, and a sequence number grows when they
start again, so an old identifier does not soon name a new object.
"""

from __future__ import annotations

import errno
from typing import Any

from mm.errors import Errno

IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000
IPCMNI_SHIFT = 15
IPCMNI = 1 << IPCMNI_SHIFT
IPC_MIN_CYCLE = 16  # RADIX_TREE_MAP_SIZE with CONFIG_BASE_SMALL, as the oracle is built
IPC_SEQ_MAX = 0x7FFFFFFF >> IPCMNI_SHIFT
S_IRWXUGO = 0o777
CAP_IPC_OWNER = 15
_NO_ID = 0xFFFFFFFF


class KernIpcPerm:
    """What every System V object has (struct kern_ipc_perm)."""

    def __init__(self, key: int, mode: int) -> None:
        self.key = key
        self.id = -1
        self.seq = 0
        self.mode = mode
        self.uid = self.gid = self.cuid = self.cgid = 0


class IpcIds:
    """The objects of one kind in a namespace (struct ipc_ids)."""

    def __init__(self) -> None:
        self.ids: dict[int, Any] = {}  # ipcs_idr: by index
        self.keys: dict[int, Any] = {}  # key_ht
        self.seq = 0
        self.last_idx = -1
        self.next_idx = 0  # idr_next
        self.next_id = -1  # kernel.*_next_id: identifier wished for the next object

    def max_idx(self) -> int:
        """Highest index in use, or 0 (ipc_get_maxidx() as the *ctl calls return it)."""
        return max(self.ids, default=0)


def _idr_alloc_cyclic(ids: IpcIds, end: int) -> int:
    """The next free index in [0, end), searching from the one after the last. Raises Errno(ENOSPC)."""
    for first, last in ((ids.next_idx, end), (0, min(ids.next_idx, end))):
        for idx in range(first, last):
            if idx not in ids.ids:
                ids.next_idx = idx + 1
                return idx
    raise Errno(errno.ENOSPC)


def ipc_addid(ids: IpcIds, perm: KernIpcPerm, euid: int, egid: int, limit: int) -> None:
    """Give an object its identifier and owner, and enter it. Raises Errno(ENOSPC) at the limit."""
    if len(ids.ids) >= min(limit, IPCMNI):
        raise Errno(errno.ENOSPC)
    perm.cuid = perm.uid = euid
    perm.cgid = perm.gid = egid
    wished, ids.next_id = ids.next_id, -1
    if wished < 0:
        idx = _idr_alloc_cyclic(ids, min(max(len(ids.ids) * 3 // 2, IPC_MIN_CYCLE), IPCMNI))
        if idx <= ids.last_idx:
            ids.seq += 1
            if ids.seq >= IPC_SEQ_MAX:
                ids.seq = 0
        ids.last_idx = idx
        perm.seq = ids.seq
    else:
        perm.seq = wished >> IPCMNI_SHIFT
        idx = next(idx for idx in range(wished & (IPCMNI - 1), IPCMNI) if idx not in ids.ids)
    perm.id = (perm.seq << IPCMNI_SHIFT) + idx
    ids.ids[idx] = perm
    if perm.key != IPC_PRIVATE:
        ids.keys[perm.key] = perm


def ipc_rmid(ids: IpcIds, perm: KernIpcPerm) -> None:
    """Forget an identifier and its key."""
    del ids.ids[perm.id & (IPCMNI - 1)]
    if perm.key != IPC_PRIVATE:
        del ids.keys[perm.key]


def ipc_obtain_object(ids: IpcIds, ident: int) -> Any:
    """The object at the index of an identifier, whatever its sequence number. Raises Errno(EINVAL)."""
    perm = ids.ids.get(ident & (IPCMNI - 1))
    if perm is None:
        raise Errno(errno.EINVAL)
    return perm


def ipc_obtain_object_check(ids: IpcIds, ident: int) -> Any:
    """The object of an identifier. Raises Errno(EINVAL)."""
    perm = ipc_obtain_object(ids, ident)
    if ident >> IPCMNI_SHIFT != perm.seq:
        raise Errno(errno.EINVAL)
    return perm


def ipcperms(task: Any, perm: KernIpcPerm, flag: int) -> bool:
    """May `task` (with its cred) have the access that the permission bits of `flag` ask for?"""
    requested = flag >> 6 | flag >> 3 | flag
    granted = perm.mode
    cred = task.cred
    if cred.euid in (perm.cuid, perm.uid):
        granted >>= 6
    elif cred.in_group(perm.cgid) or cred.in_group(perm.gid):
        granted >>= 3
    return not requested & ~granted & 7 or bool(task.capable(CAP_IPC_OWNER))


def ipc_update_perm(perm: KernIpcPerm, uid: int, gid: int, mode: int) -> None:
    """IPC_SET: another owner and mode. Raises Errno(EINVAL) for an id of -1."""
    if _NO_ID in (uid, gid):
        raise Errno(errno.EINVAL)
    perm.uid, perm.gid = uid, gid
    perm.mode = perm.mode & ~S_IRWXUGO | mode & S_IRWXUGO
