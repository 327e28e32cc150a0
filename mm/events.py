"""What mm/ reports to the one listener of a `System`: small objects, one class per kind.

Emitters test `system.listener is not None` first, so an event costs nothing when nobody listens. guest/events.py adds
the kinds of the personality. `to_dict()` is what the JSON trace writes: the kind, then the fields by their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    from mm.types import VmAreaStruct


class Event:
    """Base of all events: `kind` names the class in traces and in `Machine.subscribe`."""

    __slots__: tuple[str, ...] = ()
    kind = "event"

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-ready data, `kind` first."""
        fields: dict[str, Any] = {"kind": self.kind}
        for name in self.__slots__:
            fields[name] = getattr(self, name)
        return fields

    def __repr__(self) -> str:
        fields = " ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"<{self.kind} {fields}>"


class Fault(Event):
    """A page fault was served.

    `result` is one of anon-zero, anon, file-read, file-cow, file-shared, cow-copy, cow-reuse, access, spurious,
    huge, special, or refused; `major` and `stack` say whether I/O was needed and whether a stack grew for it.
    """

    __slots__ = ("access", "address", "error_code", "major", "pid", "result", "signal", "stack", "user")
    kind = "fault"

    def __init__(
        self,
        pid: int,
        address: int,
        error_code: int,
        access: str,
        result: str,
        major: bool,
        stack: bool,
        signal: int,
        user: bool,
    ) -> None:
        self.pid = pid
        self.address = address
        self.error_code = error_code  # hardware error code (x86-64) or ESR_EL1 (arm64)
        self.access = access  # "read", "write" or "exec"
        self.result = result
        self.major = major
        self.stack = stack  # expand_stack() made room first
        self.signal = signal  # 0: the access was repaired
        self.user = user  # False: the kernel touched user memory for a system call


class VmaEvent(Event):
    """Common part of what happens to one VMA."""

    __slots__ = ("end", "flags", "root", "start")
    kind = "vma"

    def __init__(self, start: int, end: int, flags: int, root: int = 0) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.root = root  # pfn of the root table, which names the address space

    @classmethod
    def of(cls, vma: VmAreaStruct) -> Self:
        """The event about an area as it is now."""
        return cls(vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_mm.pgd)

    def to_dict(self) -> dict[str, Any]:
        """See `Event.to_dict`."""
        fields: dict[str, Any] = {"kind": self.kind, "start": self.start, "end": self.end, "flags": self.flags}
        fields["root"] = self.root
        for name in self.__slots__:
            fields[name] = getattr(self, name)
        return fields

    def __repr__(self) -> str:
        return f"<{self.kind} {self.start:x}-{self.end:x} flags={self.flags:x}>"


class VmaInsert(VmaEvent):
    """A VMA was linked into list and tree. `name` is its file's path, what a special area is called, or empty."""

    __slots__ = ("name", "pgoff")
    kind = "vma_insert"

    def __init__(self, start: int, end: int, flags: int, root: int = 0, pgoff: int = 0, name: str = "") -> None:
        super().__init__(start, end, flags, root)
        self.pgoff = pgoff  # pages: vm_pgoff
        self.name = name

    @classmethod
    def of(cls, vma: VmAreaStruct) -> Self:
        """The event about an area as it is now."""
        from mm.special_mapping import vma_name

        name = vma.vm_file.d_path() if vma.vm_file is not None else vma_name(vma) or ""
        return cls(vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_mm.pgd, vma.vm_pgoff, name)


class VmaErase(VmaEvent):
    """A VMA was unlinked."""

    __slots__ = ()
    kind = "vma_erase"


class VmaAdjust(VmaEvent):
    """A VMA got new bounds (the event shows the new ones)."""

    __slots__ = ("pgoff",)
    kind = "vma_adjust"

    def __init__(self, start: int, end: int, flags: int, root: int = 0, pgoff: int = 0) -> None:
        super().__init__(start, end, flags, root)
        self.pgoff = pgoff  # pages: vm_pgoff

    @classmethod
    def of(cls, vma: VmAreaStruct) -> Self:
        """The event about an area as it is now."""
        return cls(vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_mm.pgd, vma.vm_pgoff)


class VmaFlags(VmaEvent):
    """A whole VMA got other flags (mprotect, mlock, madvise, userfaultfd; the event shows the new ones)."""

    __slots__ = ()
    kind = "vma_flags"


class VmaMerge(VmaEvent):
    """vma_merge() absorbed [start, end) by the numbered case (1 to 8)."""

    __slots__ = ("case",)
    kind = "vma_merge"

    def __init__(self, start: int, end: int, flags: int, case: int, root: int = 0) -> None:
        super().__init__(start, end, flags, root)
        self.case = case


class VmaSplit(VmaEvent):
    """A VMA was cut at `address`; the event shows it before the cut."""

    __slots__ = ("address",)
    kind = "vma_split"

    def __init__(self, start: int, end: int, flags: int, address: int, root: int = 0) -> None:
        super().__init__(start, end, flags, root)
        self.address = address


class PteSet(Event):
    """The memory manager (not the MMU) changed the leaf entry that serves `address` in the tables below `root`."""

    __slots__ = ("address", "new", "old", "root")
    kind = "pte_set"

    def __init__(self, root: int, address: int, old: int, new: int) -> None:
        self.root = root  # pfn of the address space's root table
        self.address = address
        self.old = old
        self.new = new


class TlbFlush(Event):
    """The MMU forgot its translations."""

    __slots__ = ("pid",)
    kind = "tlb_flush"

    def __init__(self, pid: int) -> None:
        self.pid = pid


class PageTableAlloc(Event):
    """A page-table page was linked in: `level` is pgd, p4d, pud, pmd or pte, `address` the first byte it serves."""

    __slots__ = ("address", "level", "pfn", "root")
    kind = "page_table_alloc"

    def __init__(self, level: str, address: int, pfn: int, root: int = 0) -> None:
        self.root = root  # pfn of the address space's root table
        self.level = level
        self.address = address
        self.pfn = pfn


class PageTableFree(Event):
    """A page-table page was given back."""

    __slots__ = ("address", "level", "pfn")
    kind = "page_table_free"

    def __init__(self, level: str, address: int, pfn: int) -> None:
        self.level = level
        self.address = address
        self.pfn = pfn
