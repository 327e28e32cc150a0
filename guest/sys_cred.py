"""System calls of identity: user and group ids, groups, capabilities (kernel/sys.c, groups.c, security/commoncap.c)."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from guest.cred import (
    CAP_FS_MASK,
    CAP_FULL_SET,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    SECURE_KEEP_CAPS,
    SECURE_NO_SETUID_FIXUP,
    Cred,
)
from guest.sys_mm import s32
from guest.syscalls import FULL, Call
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

NOBODY_CHANGE = 0xFFFFFFFF  # (uid_t)-1: leave alone
NGROUPS_MAX = 65536
_VERSION_1, _VERSION_2, _VERSION_3 = 0x19980330, 0x20071026, 0x20080522
_U32 = 0xFFFFFFFF


def commit_creds(task: Task, new: Cred) -> None:
    """The task is `new` from now on; a change of identity makes it undumpable."""
    old = task.cred
    gained = new.cap_permitted & ~old.cap_permitted
    if (old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid) or gained:
        if task.mm is not None:
            task.mm.flags &= ~3
        task.pdeath_signal = 0
    task.cred = new
    task.kernel.capset_mm(task)


def _fix_setuid(new: Cred, old: Cred, fs_only: bool = False) -> None:
    """cap_task_fix_setuid(): what root gives up with its ids, and gets back with them."""
    if fs_only:
        if not old.securebits & SECURE_NO_SETUID_FIXUP:
            if old.fsuid == 0 != new.fsuid:
                new.cap_effective &= ~CAP_FS_MASK
            if old.fsuid != 0 == new.fsuid:
                new.cap_effective |= new.cap_permitted & CAP_FS_MASK
        return
    if old.securebits & SECURE_NO_SETUID_FIXUP:
        return
    if 0 in (old.uid, old.euid, old.suid) and 0 not in (new.uid, new.euid, new.suid):
        if not old.securebits & SECURE_KEEP_CAPS:
            new.cap_permitted = new.cap_effective = 0
        new.cap_ambient = 0
    if old.euid == 0 != new.euid:
        new.cap_effective = 0
    if old.euid != 0 == new.euid:
        new.cap_effective = new.cap_permitted


def sys_getuid(task: Task) -> int:
    """getuid."""
    return task.cred.uid


def sys_geteuid(task: Task) -> int:
    """geteuid."""
    return task.cred.euid


def sys_getgid(task: Task) -> int:
    """getgid."""
    return task.cred.gid


def sys_getegid(task: Task) -> int:
    """getegid."""
    return task.cred.egid


def _valid(value: int) -> int:
    value &= _U32
    if value == NOBODY_CHANGE:
        raise Errno(errno.EINVAL)
    return value


def sys_setuid(task: Task, uid: int) -> int:
    """setuid."""
    uid = _valid(uid)
    old, new = task.cred, task.cred.copy()
    if task.capable(CAP_SETUID):
        new.suid = new.uid = uid
    elif uid not in (old.uid, new.suid):
        raise Errno(errno.EPERM)
    new.fsuid = new.euid = uid
    _fix_setuid(new, old)
    commit_creds(task, new)
    return 0


def sys_setreuid(task: Task, ruid: int, euid: int) -> int:
    """setreuid."""
    ruid, euid = ruid & _U32, euid & _U32
    old, new = task.cred, task.cred.copy()
    if ruid != NOBODY_CHANGE:
        new.uid = ruid
        if ruid not in (old.uid, old.euid) and not task.capable(CAP_SETUID):
            raise Errno(errno.EPERM)
    if euid != NOBODY_CHANGE:
        new.euid = euid
        if euid not in (old.uid, old.euid, old.suid) and not task.capable(CAP_SETUID):
            raise Errno(errno.EPERM)
    if ruid != NOBODY_CHANGE or (euid != NOBODY_CHANGE and euid != old.uid):
        new.suid = new.euid
    new.fsuid = new.euid
    _fix_setuid(new, old)
    commit_creds(task, new)
    return 0


def sys_setresuid(task: Task, ruid: int, euid: int, suid: int) -> int:
    """setresuid."""
    ids = [value & _U32 for value in (ruid, euid, suid)]
    old = task.cred
    known = (old.uid, old.euid, old.suid)
    same_euid = ids[1] == NOBODY_CHANGE or ids[1] == old.euid == old.fsuid
    if ids[0] in (NOBODY_CHANGE, old.uid) and same_euid and ids[2] in (NOBODY_CHANGE, old.suid):
        return 0
    if any(value != NOBODY_CHANGE and value not in known for value in ids) and not task.capable(CAP_SETUID):
        raise Errno(errno.EPERM)
    new = old.copy()
    if ids[0] != NOBODY_CHANGE:
        new.uid = ids[0]
    if ids[1] != NOBODY_CHANGE:
        new.euid = ids[1]
    if ids[2] != NOBODY_CHANGE:
        new.suid = ids[2]
    new.fsuid = new.euid
    _fix_setuid(new, old)
    commit_creds(task, new)
    return 0


def sys_getresuid(task: Task, ruid: int, euid: int, suid: int) -> int:
    """getresuid."""
    for address, value in ((ruid, task.cred.uid), (euid, task.cred.euid), (suid, task.cred.suid)):
        put_user(task, address, value, 4)
    return 0


def sys_setgid(task: Task, gid: int) -> int:
    """setgid."""
    gid = _valid(gid)
    old, new = task.cred, task.cred.copy()
    if task.capable(CAP_SETGID):
        new.gid = new.egid = new.sgid = new.fsgid = gid
    elif gid in (old.gid, old.sgid):
        new.egid = new.fsgid = gid
    else:
        raise Errno(errno.EPERM)
    commit_creds(task, new)
    return 0


def sys_setregid(task: Task, rgid: int, egid: int) -> int:
    """setregid."""
    rgid, egid = rgid & _U32, egid & _U32
    old, new = task.cred, task.cred.copy()
    if rgid != NOBODY_CHANGE:
        if rgid not in (old.gid, old.egid) and not task.capable(CAP_SETGID):
            raise Errno(errno.EPERM)
        new.gid = rgid
    if egid != NOBODY_CHANGE:
        if egid not in (old.gid, old.egid, old.sgid) and not task.capable(CAP_SETGID):
            raise Errno(errno.EPERM)
        new.egid = egid
    if rgid != NOBODY_CHANGE or (egid != NOBODY_CHANGE and egid != old.gid):
        new.sgid = new.egid
    new.fsgid = new.egid
    commit_creds(task, new)
    return 0


def sys_setresgid(task: Task, rgid: int, egid: int, sgid: int) -> int:
    """setresgid."""
    ids = [value & _U32 for value in (rgid, egid, sgid)]
    old = task.cred
    known = (old.gid, old.egid, old.sgid)
    same_egid = ids[1] == NOBODY_CHANGE or ids[1] == old.egid == old.fsgid
    if ids[0] in (NOBODY_CHANGE, old.gid) and same_egid and ids[2] in (NOBODY_CHANGE, old.sgid):
        return 0
    if any(value != NOBODY_CHANGE and value not in known for value in ids) and not task.capable(CAP_SETGID):
        raise Errno(errno.EPERM)
    new = old.copy()
    if ids[0] != NOBODY_CHANGE:
        new.gid = ids[0]
    if ids[1] != NOBODY_CHANGE:
        new.egid = ids[1]
    if ids[2] != NOBODY_CHANGE:
        new.sgid = ids[2]
    new.fsgid = new.egid
    commit_creds(task, new)
    return 0


def sys_getresgid(task: Task, rgid: int, egid: int, sgid: int) -> int:
    """getresgid."""
    for address, value in ((rgid, task.cred.gid), (egid, task.cred.egid), (sgid, task.cred.sgid)):
        put_user(task, address, value, 4)
    return 0


def sys_setfsuid(task: Task, uid: int) -> int:
    """setfsuid: the old one, whether it worked or not."""
    uid &= _U32
    old = task.cred
    if uid != NOBODY_CHANGE and uid != old.fsuid:
        if uid in (old.uid, old.euid, old.suid) or task.capable(CAP_SETUID):
            new = old.copy()
            new.fsuid = uid
            _fix_setuid(new, old, fs_only=True)
            commit_creds(task, new)
    return old.fsuid


def sys_setfsgid(task: Task, gid: int) -> int:
    """setfsgid: the old one, whether it worked or not."""
    gid &= _U32
    old = task.cred
    if gid != NOBODY_CHANGE and gid != old.fsgid:
        if gid in (old.gid, old.egid, old.sgid) or task.capable(CAP_SETGID):
            new = old.copy()
            new.fsgid = gid
            commit_creds(task, new)
    return old.fsgid


def sys_getgroups(task: Task, size: int, grouplist: int) -> int:
    """getgroups."""
    size = s32(size)
    groups = task.cred.groups
    if size < 0:
        raise Errno(errno.EINVAL)
    if size:
        if len(groups) > size:
            raise Errno(errno.EINVAL)
        if groups:
            copy_to_user(task, grouplist, Struct(f"<{len(groups)}I").pack(*groups))
    return len(groups)


def sys_setgroups(task: Task, size: int, grouplist: int) -> int:
    """setgroups."""
    if not task.capable(CAP_SETGID):
        raise Errno(errno.EPERM)
    size &= _U32
    if size > NGROUPS_MAX:
        raise Errno(errno.EINVAL)
    groups = Struct(f"<{size}I").unpack(copy_from_user(task, grouplist, 4 * size)) if size else ()
    if NOBODY_CHANGE in groups:
        raise Errno(errno.EINVAL)
    new = task.cred.copy()
    new.groups = tuple(sorted(groups))
    commit_creds(task, new)
    return 0


# ---- capabilities


def _cap_validate_magic(task: Task, header: int) -> int:
    """How many 32-bit words per set; the kernel's version is written back for a wrong one. Raises Errno(EINVAL)."""
    version = get_user(task, header, 4)
    if version == _VERSION_1:
        return 1
    if version in (_VERSION_2, _VERSION_3):
        return 2
    put_user(task, header, _VERSION_3, 4)
    raise Errno(errno.EINVAL)


def sys_capget(task: Task, header: int, dataptr: int) -> int:
    """capget."""
    try:
        words = _cap_validate_magic(task, header)
    except Errno as e:
        if not dataptr and e.number == errno.EINVAL:
            return 0
        raise
    if not dataptr:
        return 0
    pid = s32(get_user(task, header + 4, 4))
    if pid < 0:
        raise Errno(errno.EINVAL)
    target = task if not pid else task.find_task(pid)
    if target is None:
        raise Errno(errno.ESRCH)
    cred = target.cred
    out = []
    for word in range(words):
        out += [value >> 32 * word & _U32 for value in (cred.cap_effective, cred.cap_permitted, cred.cap_inheritable)]
    copy_to_user(task, dataptr, Struct(f"<{len(out)}I").pack(*out))
    return 0


def sys_capset(task: Task, header: int, data: int) -> int:
    """capset."""
    words = _cap_validate_magic(task, header)
    pid = s32(get_user(task, header + 4, 4))
    if pid not in (0, task.vnr(task.pid)):
        raise Errno(errno.EPERM)
    raw = Struct(f"<{3 * words}I").unpack(copy_from_user(task, data, 12 * words))
    effective, permitted, inheritable = (
        sum(raw[3 * word + which] << 32 * word for word in range(words)) & CAP_FULL_SET for which in range(3)
    )
    old = task.cred
    free = task.capable(CAP_SETPCAP)
    if not free and inheritable & ~(old.cap_inheritable | old.cap_permitted):
        raise Errno(errno.EPERM)
    if inheritable & ~(old.cap_inheritable | old.cap_bset):
        raise Errno(errno.EPERM)
    if permitted & ~old.cap_permitted or effective & ~permitted:
        raise Errno(errno.EPERM)
    new = old.copy()
    new.cap_effective, new.cap_inheritable, new.cap_permitted = effective, inheritable, permitted
    new.cap_ambient &= permitted & inheritable
    commit_creds(task, new)
    return 0


CALLS = (
    Call("getuid", sys_getuid, FULL),
    Call("geteuid", sys_geteuid, FULL),
    Call("getgid", sys_getgid, FULL),
    Call("getegid", sys_getegid, FULL),
    Call("setuid", sys_setuid, FULL),
    Call("setreuid", sys_setreuid, FULL),
    Call("setresuid", sys_setresuid, FULL),
    Call("getresuid", sys_getresuid, FULL),
    Call("setgid", sys_setgid, FULL),
    Call("setregid", sys_setregid, FULL),
    Call("setresgid", sys_setresgid, FULL),
    Call("getresgid", sys_getresgid, FULL),
    Call("setfsuid", sys_setfsuid, FULL),
    Call("setfsgid", sys_setfsgid, FULL),
    Call("getgroups", sys_getgroups, FULL),
    Call("setgroups", sys_setgroups, FULL),
    Call("capget", sys_capget, FULL),
    Call("capset", sys_capset, FULL),
)
