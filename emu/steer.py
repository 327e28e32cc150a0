r"""Changing what happens: handlers before and after events, vetoes, pages supplied from Python.

    machine = Machine()

    @machine.before("syscall", name="mmap")
    def no_memory(event):
        raise Veto(errno.ENOMEM)             # the call is not made; the guest sees -ENOMEM

    @machine.after("fault", address=range(heap, heap + 65536))
    def look(event):
        print(event)

    @machine.pager(range(area, area + 65536))
    def page(address, size):
        return b"from afar".ljust(size, b"\0")

A handler before something can refuse it by raising `Veto`; one after something is told what happened. Either may look
at the machine, and end the run with `machine.stop()`. Handlers run in the order in which they were made.

| before | what a veto does |
|---|---|
| `syscall` | the call is not made, its result is -errno (or `Veto(result=...)`) |
| `fault` | ENOMEM: out of memory; EFAULT: SIGSEGV; any other: SIGBUS; a system call that touched the page gets EFAULT |
| `vma_merge` | the areas stay apart |
| `page_alloc` | there is no frame |

Nothing of this costs anything while there are no handlers: the algorithms of `mm.ops` are wrapped when the first
handler that needs it comes, and put back when the last one goes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from mm.events import Event
from mm.flags import (
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
)
from mm.pgtable import pte_offset

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine

ALIASES = {"syscall": ("syscall_enter", "syscall_exit")}  # name -> kind before, kind after
BEFORE = ("syscall_enter", "fault", "vma_merge", "page_alloc")


class Veto(Exception):
    """Raised by a handler: what is about to happen shall not.

    Args:
        number: the errno it fails with.
        result: for a system call, the value it returns instead.
    """

    def __init__(self, number: int = errno.EPERM, result: int | None = None) -> None:
        super().__init__(number)
        self.number = number
        self.result = -number if result is None else result


class FaultBegin(Event):
    """A page fault is about to be served: the area is found and allows the access."""

    __slots__ = ("access", "address", "flags", "pid", "user", "vma")
    kind = "fault"

    def __init__(self, pid: int, vma: Any, address: int, flags: int) -> None:
        self.pid = pid
        self.vma = vma
        self.address = address  # what was touched, bytes, not rounded
        self.flags = flags  # FAULT_FLAG_*
        self.access = "exec" if flags & FAULT_FLAG_INSTRUCTION else "write" if flags & FAULT_FLAG_WRITE else "read"
        self.user = bool(flags & FAULT_FLAG_USER)


class PageAlloc(Event):
    """A frame of guest memory is about to be taken (`count` of them in one block)."""

    __slots__ = ("count", "pid")
    kind = "page_alloc"

    def __init__(self, pid: int, count: int) -> None:
        self.pid = pid
        self.count = count


class Handler:
    """One handler and its filters. `remove()` ends it.

    Args:
        function: takes the event.
        kind: of the events.
        address: a `range` (or pair) of bytes; an event without an address never matches.
        task: a pid.
        case: of a vma_merge, 1 to 8.
        name: of a system call.
    """

    __slots__ = ("address", "case", "function", "kind", "name", "remove", "task")

    def __init__(
        self,
        function: Callable[[Any], Any],
        kind: str,
        address: range | tuple[int, int] | None,
        task: int | None,
        case: int | None,
        name: str | None,
    ) -> None:
        self.function = function
        self.kind = kind
        self.address = (address.start, address.stop) if isinstance(address, range) else address
        self.task = task
        self.case = case
        self.name = name
        self.remove: Callable[[], None] = lambda: None

    def wants(self, event: Any, pid: int) -> bool:
        """Whether the filters let `event` pass; `pid` is the running task's."""
        if self.task is not None and getattr(event, "pid", pid) != self.task:
            return False
        if self.case is not None and getattr(event, "case", None) != self.case:
            return False
        if self.name is not None and getattr(event, "name", None) != self.name:
            return False
        if self.address is None:
            return True
        start = getattr(event, "start", getattr(event, "address", None))
        if start is None:
            return False
        return bool(start < self.address[1] and getattr(event, "end", start + 1) > self.address[0])


class Steering:
    """All handlers of one machine. Made when the first one is."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.handlers: dict[str, list[Handler]] = {kind: [] for kind in BEFORE}
        self.pagers: list[tuple[int, int, Callable[[int, int], bytes | None]]] = []
        self._kept: dict[str, Any] = {}  # functions of mm.ops that were replaced
        self._unsubscribe: Callable[[], None] | None = None

    # ---- handlers

    def before(self, kind: str, function: Callable[[Any], Any], **filters: Any) -> Handler:
        """Call `function` before every such event. Raises PagewalkError for a kind that has no before."""
        kind = ALIASES.get(kind, (kind, kind))[0]
        if kind not in BEFORE:
            raise PagewalkError(
                f"no handler can run before {kind!r}: only before {', '.join(('syscall', *BEFORE[1:]))}"
            )
        handler = _handler(function, kind, filters)
        self.handlers[kind].append(handler)

        def remove() -> None:
            if handler in self.handlers[kind]:
                self.handlers[kind].remove(handler)
                self.install()

        handler.remove = remove
        self.install()
        return handler

    def after(self, kind: str, function: Callable[[Any], Any], **filters: Any) -> Handler:
        """Call `function` after every such event (mm/events.py, guest/events.py)."""
        from emu.trace import event_classes

        kind = ALIASES.get(kind, (kind, kind))[1]
        if kind not in event_classes():
            raise PagewalkError(f"unknown kind of event {kind!r}: {', '.join(sorted(event_classes()))}")
        handler = _handler(function, kind, filters)

        def listen(event: Any) -> None:
            if handler.wants(event, self._pid()):
                function(event)

        handler.remove = self.machine.subscribe(listen, kind)
        return handler

    def pager(self, start: int, end: int, function: Callable[[int, int], bytes | None]) -> Callable[[], None]:
        """Ask `function(address, size)` for the content of pages that are touched in [start, end) for the first time.

        It returns `size` bytes at most (the rest is zeroes), or None to leave the page to the kernel. Works for any
        area; in a shared one the page is the file's. Returns a function that ends it.
        """
        entry = (start, end, function)
        self.pagers.append(entry)

        def remove() -> None:
            if entry in self.pagers:
                self.pagers.remove(entry)
                self.install()

        self.install()
        return remove

    # ---- putting ourselves in the way

    def install(self) -> None:
        """Wrap what the present handlers need, and unwrap the rest. Does nothing until the machine is built."""
        machine = self.machine
        if not hasattr(machine, "system"):
            return
        handlers = self.handlers
        calls = bool(handlers["syscall_enter"])
        machine.kernel.interceptor = self._call if calls else None
        machine.system.zone.interceptor = self._alloc if handlers["page_alloc"] else None
        self._wrap("handle_mm_fault", self._fault, bool(handlers["fault"] or self.pagers))
        self._wrap("vma_merge", self._merge, bool(handlers["vma_merge"]))
        listen = calls or bool(handlers["vma_merge"])
        if listen and self._unsubscribe is None:
            self._unsubscribe = machine.subscribe(self._merging, "vma_merge")
        elif not listen and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _wrap(self, name: str, wrapper: Any, wanted: bool) -> None:
        ops = self.machine.system.mm_ops
        if wanted and name not in self._kept:
            self._kept[name] = getattr(ops, name)
            setattr(ops, name, wrapper)
        elif not wanted and name in self._kept:
            setattr(ops, name, self._kept.pop(name))

    def _pid(self) -> int:
        task = self.machine.kernel.current
        return task.pid if task is not None else 0

    def _tell(self, event: Any, kind: str) -> None:
        """Call the handlers before `kind`. Raises what they raise."""
        pid = self._pid()
        for handler in tuple(self.handlers[kind]):
            if handler.wants(event, pid):
                handler.function(event)

    def _call(self, event: Any) -> int | None:
        """Kernel.interceptor: a call is about to be made; its result if it shall not be."""
        try:
            self._tell(event, "syscall_enter")
        except Veto as veto:
            return veto.result
        return None

    def _alloc(self, count: int) -> bool:
        """Zone.interceptor: whether the frames may be taken."""
        try:
            self._tell(PageAlloc(self._pid(), count), "page_alloc")
        except Veto:
            return False
        return True

    def _merging(self, event: Any) -> None:
        """vma_merge() found a case, and has changed nothing yet."""
        self._tell(event, "vma_merge")

    def _merge(self, *arguments: Any) -> Any:
        try:
            return self._kept["vma_merge"](*arguments)
        except Veto:
            return None

    def _fault(self, vma: Any, address: int, flags: int) -> int:
        """handle_mm_fault() with handlers and pagers before it."""
        serve: Callable[[Any, int, int], int] = self._kept["handle_mm_fault"]
        try:
            self._tell(FaultBegin(self._pid(), vma, address, flags), "fault")
        except Veto as veto:
            return {errno.ENOMEM: VM_FAULT_OOM, errno.EFAULT: VM_FAULT_SIGSEGV}.get(veto.number, VM_FAULT_SIGBUS)
        mm = vma.vm_mm
        for start, end, pager in tuple(self.pagers):
            if start <= address < end and not _entry(mm, address):
                page = address & mm.arch.page_mask
                data = pager(page, mm.arch.page_size)
                if data is not None:
                    return self._supply(serve, vma, address, flags, data)
        return serve(vma, address, flags)

    def _supply(self, serve: Any, vma: Any, address: int, flags: int, data: bytes) -> int:
        """Have a page made as for a write, so that it is nobody else's, and fill it."""
        mm = vma.vm_mm
        size = mm.arch.page_size
        if len(data) > size:
            raise PagewalkError(f"a pager gave {len(data)} bytes for a page of {size}")
        fault: int = serve(vma, address, flags | FAULT_FLAG_WRITE)
        if not fault & VM_FAULT_ERROR and (entry := _entry(mm, address)):
            at = mm.arch.pte_pfn(entry) * size
            mm.system.ram[at : at + size] = data.ljust(size, b"\0")
        return fault


def _handler(function: Callable[[Any], Any], kind: str, filters: dict[str, Any]) -> Handler:
    known = ("address", "task", "case", "name")
    for name in filters:
        if name not in known:
            raise PagewalkError(f"unknown filter {name!r}: {', '.join(known)}")
    return Handler(function, kind, *(filters.get(name) for name in known))


def _entry(mm: Any, address: int) -> int:
    """The PTE of `address`, 0 where there is none."""
    index = pte_offset(mm, address & mm.arch.page_mask)
    return mm.system.words[index] if index >= 0 else 0
