"""The kinds of file system a program can mount, and the parameters each understands (/proc/filesystems).

Those on a device can not be mounted: the machine has no block devices, so that their source is never one.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from guest.fs_context import FLAG, STRING, FsContext, Param, kstrtouint, parse_value
from guest.vfs_flags import S_IFMT
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from guest.vfs_types import SuperBlock

_PAGE_SIZE = 4096
_HIDEPID = {"off": 0, "noaccess": 1, "invisible": 2, "ptraceable": 4}
_HUGE = "never always within_size advise"
S_IFBLK = 0o060000


class FsType:
    """One kind (struct file_system_type and its fs_context_operations)."""

    nodev = True
    legacy = False  # takes its options as one string, when it is mounted
    parameters: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str) -> None:
        self.name = name

    def init(self, fc: FsContext, task: Task) -> None:
        """init_fs_context()."""

    def split(self, data: str) -> list[str]:
        """The options in the string of mount(2)."""
        return [option for option in data.split(",") if option]

    def parse_param(self, fc: FsContext, task: Task, param: Param) -> bool:
        """False: it does not know such a parameter. Raises EINVAL."""
        value = parse_value(fc, self.parameters, param)
        if value is None:
            return False
        self.take(fc, task, param.key, value)
        return True

    def take(self, fc: FsContext, task: Task, key: str, value: object) -> None:
        """A parameter with its value."""
        fc.options[key] = value

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        """The file system."""
        raise fc.invalid("")

    def reconfigure(self, fc: FsContext, task: Task) -> None:
        """The parameters are for the file system there is."""


class Tmpfs(FsType):
    """tmpfs (mm/shmem.c)."""

    parameters: ClassVar[dict[str, str]] = {
        "gid": "u32", "huge": _HUGE, "mode": "u32oct", "mpol": "string", "nr_blocks": "string", "nr_inodes": "string",
        "size": "string", "uid": "u32", "inode32": "flag", "inode64": "flag",
    }  # fmt: skip

    def split(self, data: str) -> list[str]:
        """A comma before a digit is part of a list of nodes (shmem_parse_options())."""
        options: list[str] = []
        for option in data.split(","):
            if options and option[:1].isdigit():
                options[-1] += "," + option
            else:
                options.append(option)
        return [option for option in options if option]

    def take(self, fc: FsContext, task: Task, key: str, value: object) -> None:
        from guest.hugetlbfs import memparse

        if key in ("size", "nr_blocks", "nr_inodes"):
            number, rest = memparse(str(value))
            page_size = task.system.page_size
            if key == "size" and rest[:1] == "%":
                number, rest = number * page_size * task.system.totalram_pages // 100, rest[1:]
            if rest:
                raise fc.invalid(f"Bad value for '{key}'", True)
            fc.options["inodes" if key == "nr_inodes" else "blocks"] = -(-number // (page_size if key == "size" else 1))
        elif key in ("uid", "gid") and value == 0xFFFFFFFF:
            raise fc.invalid(f"Bad value for '{key}'", True)
        elif key == "mpol":
            raise fc.invalid(f"Bad value for '{key}'", True)  # a policy for all of a file system is not kept
        else:
            fc.options[key] = value

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.tmpfs import TmpfsSuper

        options = fc.options
        sb = TmpfsSuper(task.kernel, task.kernel.vfs.alloc_dev(), options.get("mode", 0o1777) & 0o7777)
        sb.s_settings = {"mode": options.get("mode", 0o1777) & 0o7777}
        if sb.root is not None:
            inode = sb.root.d_inode
            inode.i_uid = sb.s_settings["uid"] = options.get("uid", task.cred.fsuid)
            inode.i_gid = sb.s_settings["gid"] = options.get("gid", task.cred.fsgid)
        self._set_limits(sb, fc)
        return sb

    def reconfigure(self, fc: FsContext, task: Task) -> None:
        from guest.tmpfs import TmpfsSuper

        sb, options = fc.sb, fc.options
        if not isinstance(sb, TmpfsSuper):
            return
        used = sb.used_blocks()
        if options.get("blocks"):
            if not sb.sbinfo.max_blocks:
                raise fc.invalid("Cannot retroactively limit size", True)
            if used > options["blocks"]:
                raise fc.invalid("Too small a size for current use", True)
        if options.get("inodes"):
            if not sb.max_inodes:
                raise fc.invalid("Cannot retroactively limit inodes", True)
            if options["inodes"] < sb.live_inodes:
                raise fc.invalid("Too few inodes for current use", True)
        self._set_limits(sb, fc)

    def _set_limits(self, sb: SuperBlock, fc: FsContext) -> None:
        from guest.tmpfs import TmpfsSuper

        if not isinstance(sb, TmpfsSuper):
            return
        if "blocks" in fc.options:
            sb.sbinfo.max_blocks = fc.options["blocks"]
        sb.max_inodes = fc.options.get("inodes", sb.max_inodes)
        for key in ("huge", "inode32", "inode64"):
            if key in fc.options:
                sb.s_settings[key] = fc.options[key]
        sb.s_options = sb.show_options()


class Ramfs(FsType):
    """ramfs: a tmpfs without limits, which takes any parameter."""

    parameters: ClassVar[dict[str, str]] = {"mode": "u32oct"}

    def parse_param(self, fc: FsContext, task: Task, param: Param) -> bool:
        if param.key not in self.parameters:
            return True
        return super().parse_param(fc, task, param)

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.tmpfs import TmpfsSuper

        mode = fc.options.get("mode", 0o755) & 0o7777
        sb = TmpfsSuper(task.kernel, task.kernel.vfs.alloc_dev(), mode, "ramfs")
        sb.s_magic = 0x858458F6
        sb.sbinfo.max_blocks = 0
        sb.max_inodes = 0
        sb.s_options = f",mode={mode:o}" if mode != 0o755 else ""
        return sb


class Proc(FsType):
    """proc of the mounter's namespace of process ids (fs/proc/root.c)."""

    parameters: ClassVar[dict[str, str]] = {"gid": "u32", "hidepid": "string", "subset": "string"}

    def take(self, fc: FsContext, task: Task, key: str, value: object) -> None:
        text = str(value)
        if key == "hidepid":
            number = kstrtouint(text, 0)
            word = text if number is None else {0: "off", 1: "noaccess", 2: "invisible", 4: "ptraceable"}.get(number)
            if word not in _HIDEPID:
                raise fc.invalid(f"proc: unknown value of hidepid - {text}\n")
            fc.options[key] = _HIDEPID[word]
        elif key == "subset":
            for word in filter(None, text.split(",")):
                if word != "pid":
                    raise fc.invalid(f"proc: unsupported subset option - {word}\n")
                fc.options[key] = True
        else:
            fc.options[key] = value

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.procfs import ProcSuper

        sb = ProcSuper(task.kernel, task.kernel.vfs.alloc_dev(), task.pid_ns)
        self._apply(sb, fc)
        return sb

    def reconfigure(self, fc: FsContext, task: Task) -> None:
        self._apply(fc.sb, fc)

    @staticmethod
    def _apply(sb: SuperBlock | None, fc: FsContext) -> None:
        """proc_apply_options()."""
        from guest.procfs import ProcSuper

        if not isinstance(sb, ProcSuper):
            return
        sb.pid_gid = fc.options.get("gid", sb.pid_gid)
        sb.hide_pid = fc.options.get("hidepid", sb.hide_pid)
        sb.pidonly = fc.options.get("subset", sb.pidonly)
        word = next(word for word, number in _HIDEPID.items() if number == sb.hide_pid)
        text = f",gid={sb.pid_gid}" if sb.pid_gid else ""
        text += f",hidepid={word}" if sb.hide_pid else ""
        sb.s_options = text + (",subset=pid" if sb.pidonly else "")


class Single(FsType):
    """One there is already: sysfs, devtmpfs."""

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        mounts = task.kernel.vfs.standard
        sb: SuperBlock = next(mount.mnt_sb for mount in mounts if mount.mnt_sb.s_type == self.name)
        sb.s_born = True
        return sb


class Legacy(FsType):
    """A kind that takes all options as one string (legacy_fs_context_ops)."""

    legacy = True

    def parse_param(self, fc: FsContext, task: Task, param: Param) -> bool:
        """legacy_parse_param()."""
        if param.key == "source":
            fc.set_source(param, "Legacy: ")
            return True
        if param.kind not in (STRING, FLAG):
            raise fc.invalid(f"VFS: Legacy: Parameter type for '{param.key}' not supported")
        option = param.key + ("=" + param.string if param.kind == STRING else "")
        if len(",".join(fc.legacy_data)) + len(option) + 2 > task.system.page_size:
            raise fc.invalid("VFS: Legacy: Cumulative options too large")
        if "," in option:
            raise fc.invalid(f"VFS: Legacy: Option '{param.key}' contained comma")
        fc.legacy_data.append(option)
        return True


class Devtmpfs(Legacy, Single):
    """devtmpfs: whatever is asked for, the one there is."""


class Devpts(Legacy):
    """A devpts of its own (fs/devpts/inode.c)."""

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.devpts import DevptsSuper

        sb = DevptsSuper(task.kernel, task.kernel.vfs.alloc_dev())
        sb.set_options(list(filter(None, ",".join(fc.legacy_data).split(","))))
        return sb

    def reconfigure(self, fc: FsContext, task: Task) -> None:
        from guest.devpts import DevptsSuper

        if isinstance(fc.sb, DevptsSuper):
            fc.sb.set_options(list(filter(None, ",".join(fc.legacy_data).split(","))))


class Ext2(Legacy):
    """A kind that needs a device."""

    nodev = False

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.namei import LOOKUP_FOLLOW, filename_lookup
        from guest.vfs_flags import AT_FDCWD

        if not fc.source:
            raise Errno(errno.EINVAL)
        at = filename_lookup(task, AT_FDCWD, fc.source.encode("utf-8", "surrogateescape"), LOOKUP_FOLLOW)
        if at.dentry.d_inode.i_mode & S_IFMT != S_IFBLK:
            raise Errno(errno.ENOTBLK)
        raise Errno(errno.ENXIO)


class Mqueue(FsType):
    """The message queues of the mounter's IPC namespace."""

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.mqueue import mq_mount

        return mq_mount(task).mnt_sb


class Hugetlbfs(FsType):
    """hugetlbfs; what values are possible, hugetlbfs.py knows."""

    parameters: ClassVar[dict[str, str]] = {
        "gid": "u32", "min_size": "string", "mode": "u32oct", "nr_inodes": "string", "pagesize": "string",
        "size": "string", "uid": "u32",
    }  # fmt: skip

    def parse_param(self, fc: FsContext, task: Task, param: Param) -> bool:
        if parse_value(fc, self.parameters, param) is None:
            return False
        if param.key in ("size", "nr_inodes", "min_size") and not param.string[:1].isdigit():
            raise fc.invalid(f"Bad value '{param.string}' for mount option '{param.key}'\n", True)
        if param.key == "pagesize":
            from guest.hugetlbfs import check_pagesize

            check_pagesize(task, param.string)
        fc.options[param.key] = param.string
        return True

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        from guest.hugetlbfs import new_hugetlbfs

        data = ",".join(f"{key}={value}" for key, value in fc.options.items())
        return new_hugetlbfs(task, task.kernel.vfs.alloc_dev(), data)


class Pseudo(FsType):
    """What only the kernel mounts."""

    def get_tree(self, fc: FsContext, task: Task) -> SuperBlock:
        raise Errno(errno.EINVAL)


#: In the order of /proc/filesystems.
FS_TYPES: tuple[FsType, ...] = (
    Single("sysfs"), Tmpfs("tmpfs"), Pseudo("bdev"), Proc("proc"), Devtmpfs("devtmpfs"), Pseudo("sockfs"),
    Pseudo("pipefs"), Ramfs("ramfs"), Hugetlbfs("hugetlbfs"), Devpts("devpts"), Ext2("ext2"), Mqueue("mqueue"),
)  # fmt: skip
BY_NAME = {kind.name: kind for kind in FS_TYPES}
UNCHANGEABLE = FsType("none")


def filesystems() -> str:
    """/proc/filesystems."""
    return "".join(f"{'nodev' if kind.nodev else ''}\t{kind.name}\n" for kind in FS_TYPES)
