"""uname, sysinfo, getrandom, getcpu, host and domain names (kernel/sys.c, drivers/char/random.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from guest.nsproxy import uts_names
from guest.syscalls import FULL, PARTIAL, Call
from guest.vfs_flags import s32
from mm.errors import Errno
from mm.uaccess import copy_from_user, copy_to_user, copy_to_user_partial, put_user

if TYPE_CHECKING:
    from guest.task import Task

UTS_RELEASE = "5.10.262"
_NEW_UTS_LEN = 64
_UNAME26 = 0x0020000
_SYSINFO = struct.Struct("<q3Q6QHxxxxxxQQIxxxx")
_GRND_NONBLOCK, _GRND_RANDOM, _GRND_INSECURE = 1, 2, 4
_RANDOM_CHUNK = 1 << 16
CAP_SYS_ADMIN = 21


def utsname(task: Task) -> tuple[str, str, str, str, str, str]:
    """sysname, nodename, release, version, machine, domainname."""
    kernel = task.kernel
    release = UTS_RELEASE
    if task.personality & _UNAME26:
        release = "2.6.70"
    domain: str = uts_names(task).get("domainname", "(none)")
    return "Linux", hostname(task), release, kernel.vfs.abi.uts_version, kernel.arch.machine, domain


def hostname(task: Task) -> str:
    """The node's name: sethostname's, else the machine's setting."""
    name: str = uts_names(task).get("hostname", task.kernel.config.hostname)
    return name


def sys_uname(task: Task, buf: int) -> int:
    """uname(2): six fields of 65 bytes."""
    image = b"".join(field.encode("utf-8", "surrogateescape").ljust(_NEW_UTS_LEN + 1, b"\0") for field in utsname(task))
    copy_to_user(task, buf, image)
    return 0


def _set_name(task: Task, key: str, name: int, length: int) -> int:
    """sethostname and setdomainname."""
    if not task.capable(CAP_SYS_ADMIN):
        raise Errno(errno.EPERM)
    if s32(length) < 0 or s32(length) > _NEW_UTS_LEN:
        raise Errno(errno.EINVAL)
    text = copy_from_user(task, name, s32(length)).partition(b"\0")[0]
    uts_names(task)[key] = text.decode("utf-8", "surrogateescape")
    return 0


def sys_sethostname(task: Task, name: int, length: int) -> int:
    """sethostname(2)."""
    return _set_name(task, "hostname", name, length)


def sys_setdomainname(task: Task, name: int, length: int) -> int:
    """setdomainname(2)."""
    return _set_name(task, "domainname", name, length)


def sys_sysinfo(task: Task, buf: int) -> int:
    """sysinfo(2): memory in bytes, load 0."""
    kernel, system = task.kernel, task.system
    page = system.arch.page_size
    now = kernel.clock.now + (task.time_ns.boottime if task.time_ns is not None else 0)
    uptime = -(-now // 10**9)
    image = _SYSINFO.pack(
        uptime, 0, 0, 0, system.totalram_pages * page, system.nr_free_pages() * page, system.nr_shmem * page,
        0, 0, 0, len(kernel.tasks), 0, 0, 1,
    )  # fmt: skip
    copy_to_user(task, buf, image)
    return 0


def sys_getrandom(task: Task, buf: int, count: int, flags: int) -> int:
    """getrandom(2): the machine's seeded generator."""
    flags &= 0xFFFFFFFF
    if flags & ~(_GRND_NONBLOCK | _GRND_RANDOM | _GRND_INSECURE):
        raise Errno(errno.EINVAL)
    if flags & (_GRND_RANDOM | _GRND_INSECURE) == _GRND_RANDOM | _GRND_INSECURE:
        raise Errno(errno.EINVAL)
    count = min(count, 0x7FFFFFFF)
    done = 0
    while done < count:
        data = task.kernel.rng.randbytes(min(count - done, _RANDOM_CHUNK))
        copied = copy_to_user_partial(task, buf + done, data)
        done += copied
        if copied < len(data):
            if not done:
                raise Errno(errno.EFAULT)
            break
    return done


def sys_getcpu(task: Task, cpu: int, node: int, unused: int) -> int:
    """getcpu(2): the one CPU, the one node."""
    if cpu:
        put_user(task, cpu, 0, 4)
    if node:
        put_user(task, node, 0, 4)
    return 0


def sys_vhangup(task: Task) -> int:
    """vhangup(2): the caller's pseudo-terminal; the host's stays."""
    if not task.capable(26):  # CAP_SYS_TTY_CONFIG
        raise Errno(errno.EPERM)
    tty = task.signal.tty
    if tty is not None and tty is not task.kernel.vfs.tty:
        tty.hangup()
    return 0


CALLS = (
    Call("uname", sys_uname, FULL, ""),
    Call("sethostname", sys_sethostname, FULL, ""),
    Call("setdomainname", sys_setdomainname, FULL, ""),
    Call("sysinfo", sys_sysinfo, PARTIAL, "load averages are 0"),
    Call("getrandom", sys_getrandom, FULL, "from the machine's seed"),
    Call("getcpu", sys_getcpu, FULL, ""),
    Call("vhangup", sys_vhangup, PARTIAL, "pseudo-terminals; not the host's"),
)
