"""mount and umount2 (fs/namespace.c): what is mounted is the machine's business, so both end in EPERM.

Only a hugetlbfs and the message queues can be mounted and unmounted by a program: they hold nothing but memory that
programs asked for.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_FOLLOW, filename_lookup
from guest.sys_file import getname
from guest.syscalls import PARTIAL, Call
from guest.vfs_flags import AT_FDCWD
from guest.vfs_types import Mount
from mm.errors import Errno
from mm.uaccess import strncpy_from_user

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import SuperBlock

_UMOUNT_FLAGS = 0xF  # MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW
_UMOUNT_NOFOLLOW = 8
_MNT_DETACH, _MNT_EXPIRE = 2, 4
_MS_MGC_VAL, _MS_MGC_MSK, _MS_SILENT = 0xC0ED0000, 0xFFFF0000, 0x8000
_PAGE_SIZE = 4096
CAP_SYS_ADMIN = 21
_KINDS = (b"hugetlbfs", b"mqueue")  # what programs may mount


def sys_mount(task: Task, device: int, path: int, kind: int, flags: int, data: int) -> int:
    """mount(2). Raises EFAULT, ENOENT and the like, and EPERM always."""
    fstype = getname(task, kind) if kind else b""
    source = getname(task, device) if device else b"none"
    at = filename_lookup(task, AT_FDCWD, getname(task, path), LOOKUP_FOLLOW)
    if flags & _MS_MGC_MSK == _MS_MGC_VAL:
        flags &= ~_MS_MGC_MSK
    if fstype not in _KINDS or flags & ~_MS_SILENT or not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    options = strncpy_from_user(task, data, _PAGE_SIZE - 1) if data else b""
    if not at.dentry.d_inode.is_dir():
        raise Errno(errno.ENOTDIR)
    vfs = task.kernel.vfs
    sb: SuperBlock
    if fstype == b"mqueue":
        from guest.mqueue import mq_mount

        if options:
            raise Errno(errno.EINVAL)
        sb = mq_mount(task).mnt_sb
    else:
        from guest.hugetlbfs import new_hugetlbfs

        sb = new_hugetlbfs(task, vfs.next_dev, options.decode("latin-1"))
        vfs.next_dev += 1
    if sb.root is None:
        raise Errno(errno.EINVAL)
    mount = Mount(vfs.next_mnt, sb, sb.root, at.mnt, at.dentry, source.decode("utf-8", "surrogateescape"))
    vfs.next_mnt += 1
    at.dentry.d_mounts.append(mount)
    vfs.mounts.append(mount)
    return 0


def sys_umount2(task: Task, path: int, flags: int) -> int:
    """umount2(2). Raises EINVAL for what is no mount, and EPERM for what is."""
    flags &= 0xFFFFFFFF
    if flags & ~_UMOUNT_FLAGS:
        raise Errno(errno.EINVAL)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), 0 if flags & _UMOUNT_NOFOLLOW else LOOKUP_FOLLOW)
    if task.capable(CAP_SYS_ADMIN) and at.dentry is not at.mnt.mnt_root:
        raise Errno(errno.EINVAL)
    kind = at.mnt.mnt_sb.s_type.encode()
    if kind not in _KINDS or not task.capable(CAP_SYS_ADMIN) or flags & _MNT_EXPIRE:
        raise Errno(errno.EPERM)
    if not flags & _MNT_DETACH and _in_use(task, at.mnt):
        raise Errno(errno.EBUSY)
    at.mnt.mnt_mountpoint.d_mounts.remove(at.mnt)
    task.kernel.vfs.mounts.remove(at.mnt)
    at.mnt.mnt_sb.unmounted()
    return 0


def _in_use(task: Task, mount: Mount) -> bool:
    """Has a task a file of it open or mapped, or its root or working directory there; or is something mounted on it?"""
    for other in task.kernel.tasks.values():
        paths = [other.fs.root, other.fs.pwd] if other.fs is not None else []
        files = [file for file in other.files.fd if file is not None] if other.files is not None else []
        vma = other.mm.mmap if other.mm is not None else None
        while vma is not None:
            files.append(vma.vm_file)
            vma = vma.vm_next
        paths += [file.f_path for file in files if hasattr(file, "f_path")]
        if any(path.mnt is mount for path in paths):
            return True
    return any(other.mnt_parent is mount for other in task.kernel.vfs.mounts if other is not mount)


CALLS = (
    Call("mount", sys_mount, PARTIAL, "hugetlbfs and mqueue; else EPERM: mounts are made with --mount"),
    Call("umount2", sys_umount2, PARTIAL, "hugetlbfs and mqueue; else EPERM"),
)
