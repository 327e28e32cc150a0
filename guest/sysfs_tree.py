"""What is in /sys: processors, nodes, and the settings of huge pages and KSM.

Names and values are those of a Linux 5.10 with one processor and one node; the rest of the tree (devices, buses,
modules) is not there. Pools of huge pages are those of mm/hugetlb_pool.py; transparent huge pages obey `enabled` and
`use_zero_page`. KSM and khugepaged are sysfs_daemons.py's. Of shared memory no huge pages are made: there shmem_enabled
stays "never".
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.procfs import DIR, LINK, SPECIAL, Entry
from guest.procfs_sysctl import Knob, store_pool_size
from guest.sysfs_daemons import READ_ONLY, khugepaged_files, ksm_files
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.task import Task
    from mm.arch import Arch
    from mm.hugetlb_pool import Hstate


class Fixed:
    """A text that never changes."""

    def __init__(self, text: str) -> None:
        self.value = text

    def text(self, task: Task) -> str:
        """The value as it is read."""
        return self.value + "\n" if self.value else "\n"

    def put(self, task: Task, data: bytes) -> int:
        """There is no store method."""
        raise Errno(errno.EIO)


class PoolNumber(Fixed):
    """A number of one pool of huge pages: its kilobytes, and the counter of mm/hugetlb_pool.py's Hstate."""

    def __init__(self, size: int, counter: str) -> None:
        self.size = size
        self.counter = counter

    def text(self, task: Task) -> str:
        """The counter now; no pool has pages before somebody asks for some."""
        if task.system.hugetlb is None:
            return "0\n"
        return f"{getattr(self.hstate(task), self.counter)}\n"

    def hstate(self, task: Task) -> Hstate:
        """The pool."""
        from mm.hugetlb_pool import hugetlb_pools

        return next(h for h in hugetlb_pools(task.system).hstates if h.size == self.size << 10)


class PoolSize(PoolNumber):
    """nr_hugepages and nr_overcommit_hugepages, which can be set."""

    def put(self, task: Task, data: bytes) -> int:
        """kstrtoul and the store. Raises EINVAL, also for surplus pages of a size that can have none."""
        number = data.removesuffix(b"\n").removeprefix(b"+")
        if (self.counter == "nr_overcommit_huge_pages" and self.hstate(task).gigantic) or not number.isdigit():
            raise Errno(errno.EINVAL)
        if int(number) >> 64:
            raise Errno(errno.ERANGE)
        store_pool_size(self.hstate(task), self.counter, int(number))
        return len(data)


class Choice(Fixed):
    """One of some words, the one in force in brackets; only that one can be chosen."""

    def put(self, task: Task, data: bytes) -> int:
        """Raises EINVAL for every other word."""
        if b"[" + data.strip() + b"]" not in self.value.encode().split():
            raise Errno(errno.EINVAL)
        return len(data)


class ThpEnabled:
    """transparent_hugepage/enabled, where the kernel has huge pages at all: faults obey it from now on."""

    def text(self, task: Task) -> str:
        """The three words, the one in force in brackets."""
        now = task.system.thp_enabled
        return " ".join(f"[{word}]" if word == now else word for word in ("always", "madvise", "never")) + "\n"

    def put(self, task: Task, data: bytes) -> int:
        """enabled_store(). Raises EINVAL."""
        word = data.removesuffix(b"\n")
        if word not in (b"always", b"madvise", b"never"):
            raise Errno(errno.EINVAL)
        task.system.thp_enabled = word.decode()
        if task.system.khugepaged is not None:
            from guest.khugepaged import wake_khugepaged

            wake_khugepaged(task.kernel, True)
        return len(data)


class ThpDefrag:
    """transparent_hugepage/defrag: kept; a fault never moves other pages to get a huge one."""

    words = ("always", "defer", "defer+madvise", "madvise", "never")

    def text(self, task: Task) -> str:
        """The five words, the one in force in brackets."""
        now = task.kernel.sysctls.get("thp/defrag", "madvise")
        return " ".join(f"[{word}]" if word == now else word for word in self.words) + "\n"

    def put(self, task: Task, data: bytes) -> int:
        """defrag_store(). Raises EINVAL."""
        word = data.removesuffix(b"\n").decode("latin-1")
        if word not in self.words:
            raise Errno(errno.EINVAL)
        task.kernel.sysctls["thp/defrag"] = word
        return len(data)


_NODE_ROWS = """MemTotal MemFree MemUsed Active Inactive Active(anon) Inactive(anon) Active(file) Inactive(file)
    Unevictable Mlocked Dirty Writeback FilePages Mapped AnonPages Shmem KernelStack PageTables NFS_Unstable Bounce
    WritebackTmp KReclaimable Slab SReclaimable SUnreclaim AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages
    FilePmdMapped"""


class NodeMemory(Fixed):
    """node0/meminfo (drivers/base/node.c): the figures of /proc/meminfo, since all memory is on that node."""

    def text(self, task: Task) -> str:
        """A line a figure."""
        from guest.procfs_memory import show_meminfo

        figures = {}
        inode: Any = None  # it looks at none
        for line in show_meminfo(inode, task).splitlines():
            name, _, rest = line.partition(":")
            figures[name] = int(rest.split()[0])
        figures["MemUsed"] = figures["MemTotal"] - figures["MemFree"]
        figures["FilePages"] = figures["Cached"] + figures["Buffers"]
        lines = [f"Node 0 {name + ':':<16}{figures.get(name, 0):8} kB" for name in _NODE_ROWS.split()]
        counts = [0, 0, 0]
        if task.system.hugetlb is not None:
            h = task.system.hugetlb.default
            counts = [h.nr_huge_pages, h.free_huge_pages, h.surplus_huge_pages]
        for name, count in zip(("HugePages_Total:", "HugePages_Free:", "HugePages_Surp:"), counts, strict=True):
            lines.append(f"Node 0 {name:<16}{count:6}")
        return "\n".join(lines) + "\n"


def _folder(**entries: Any) -> dict[bytes, Entry]:
    """A table: folders are dicts, texts become files that cannot be written, knobs ones that can; - for __."""
    table: dict[bytes, Entry] = {}
    for key, what in entries.items():
        name = key.replace("__", "-").encode()
        if isinstance(what, dict):
            table[name] = Entry(0o755, DIR, what)
        elif isinstance(what, bytes):
            table[name] = Entry(0o777, LINK, what)
        elif isinstance(what, str):
            table[name] = Entry(0o444, SPECIAL, Fixed(what))
        elif isinstance(what, NodeMemory) or type(what) is PoolNumber or what.__class__ in READ_ONLY:
            table[name] = Entry(0o444, SPECIAL, what)
        else:
            table[name] = Entry(0o644, SPECIAL, what)
    return table


def _hugepages(kilobytes: tuple[int, ...], node: bool) -> dict[bytes, Entry]:
    sizes = {}
    for size in kilobytes:
        entries: dict[str, Any] = {
            "free_hugepages": PoolNumber(size, "free_huge_pages"),
            "nr_hugepages": PoolSize(size, "nr_huge_pages"),
            "surplus_hugepages": PoolNumber(size, "surplus_huge_pages"),
        }
        if not node:
            entries |= {
                "nr_hugepages_mempolicy": PoolSize(size, "nr_huge_pages"),
                "nr_overcommit_hugepages": PoolSize(size, "nr_overcommit_huge_pages"),
                "resv_hugepages": PoolNumber(size, "resv_huge_pages"),
            }
        sizes[f"hugepages__{size}kB"] = _folder(**entries)
    return _folder(**sizes)


def _transparent(arch: Arch) -> dict[bytes, Entry]:
    return _folder(
        defrag=ThpDefrag(),
        enabled=ThpEnabled() if arch.transparent_hugepage else Choice("always madvise [never]"),
        hpage_pmd_size=str(arch.pmd_size),
        khugepaged=_folder(**khugepaged_files(arch.pmd_size >> arch.page_shift)),
        shmem_enabled=Choice("always within_size advise [never] deny force"),
        use_zero_page=Knob("system", "thp_use_zero_page", low=0, high=1),
    )


def make_tree(arch: Arch, huge: tuple[int, ...]) -> dict[bytes, Entry]:
    """The whole tree."""
    ones = ("core_cpus", "core_siblings", "die_cpus", "package_cpus", "thread_siblings")
    topology = _folder(
        core_id="0", physical_package_id="0", **dict.fromkeys(ones, "1"), **{f"{name}_list": "0" for name in ones}
    )
    cpu = _folder(
        cpu0=_folder(node0=b"../../node/node0", topology=topology),
        isolated="", kernel_max="3", offline="", online="0", possible="0", present="0",
    )  # fmt: skip
    node = _folder(
        has_cpu="0", has_generic_initiator="", has_memory="0", has_normal_memory="0", online="0", possible="0",
        node0=_folder(
            cpu0=b"../../cpu/cpu0", cpulist="0", cpumap="1", distance="10", hugepages=_hugepages(huge, True),
            meminfo=NodeMemory(""),
        ),
    )  # fmt: skip
    mm = _folder(hugepages=_hugepages(huge, False), ksm=_folder(**ksm_files()), transparent_hugepage=_transparent(arch))
    return _folder(devices=_folder(system=_folder(cpu=cpu, node=node)), kernel=_folder(mm=mm))
