"""Credentials (struct cred): who a task is and what it may do. Copied before it is changed, so tasks may share one."""

from __future__ import annotations

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID = range(8)
CAP_SETPCAP = 8
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_BOOT = 22
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24
CAP_SYS_TIME = 25
CAP_CHECKPOINT_RESTORE = 40
CAP_LAST_CAP = 40
CAP_FULL_SET = (1 << (CAP_LAST_CAP + 1)) - 1
CAP_FS_MASK = (
    1 << CAP_CHOWN
    | 1 << 27  # CAP_MKNOD
    | 1 << CAP_DAC_OVERRIDE
    | 1 << CAP_DAC_READ_SEARCH
    | 1 << CAP_FOWNER
    | 1 << CAP_FSETID
    | 1 << 9  # CAP_LINUX_IMMUTABLE
    | 1 << 32  # CAP_MAC_OVERRIDE
)

SECURE_NOROOT = 1 << 0
SECURE_NO_SETUID_FIXUP = 1 << 2
SECURE_KEEP_CAPS = 1 << 4


class Cred:
    """Identities and capability sets (bit n: capability n)."""

    __slots__ = (
        "cap_ambient",
        "cap_bset",
        "cap_effective",
        "cap_inheritable",
        "cap_permitted",
        "egid",
        "euid",
        "fsgid",
        "fsuid",
        "gid",
        "groups",
        "securebits",
        "sgid",
        "suid",
        "uid",
    )

    def __init__(self, uid: int = 0, gid: int = 0) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups: tuple[int, ...] = ()
        self.securebits = 0
        self.cap_inheritable = 0
        self.cap_permitted = CAP_FULL_SET if uid == 0 else 0
        self.cap_effective = self.cap_permitted
        self.cap_bset = CAP_FULL_SET
        self.cap_ambient = 0

    def copy(self) -> Cred:
        """prepare_creds()."""
        new = Cred.__new__(Cred)
        for name in Cred.__slots__:
            setattr(new, name, getattr(self, name))
        return new

    def capable(self, cap: int) -> bool:
        """Whether the capability is effective."""
        return bool(self.cap_effective >> cap & 1)

    def in_group(self, gid: int) -> bool:
        """in_group_p(): fsgid or supplementary."""
        return gid == self.fsgid or gid in self.groups

    def in_egroup(self, gid: int) -> bool:
        """in_egroup_p(): egid or supplementary."""
        return gid == self.egid or gid in self.groups
