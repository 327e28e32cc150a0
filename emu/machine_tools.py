"""What a Machine offers to those who look at a run, steer it or stop it at a place; the run itself is in machine.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from emu.breakpoints import Breakpoints, Watchpoint
    from emu.explain import Explainer
    from emu.machine import Machine
    from emu.steer import Steering
    from emu.views import AddressSpace, PageTables, View, VmaTree
    from guest.kernel import Kernel
    from guest.task import Task
    from mm.system import System

    AnyView = TypeVar("AnyView", bound=View)


class MachineTools:
    """The part of Machine that needs no engine."""

    kernel: Kernel
    system: System
    _listeners: list[tuple[Callable[[Any], None], tuple[str, ...]]]
    _steering: Steering | None
    _breakpoints: Breakpoints | None

    # ---- looking in

    @property
    def task(self) -> Task:
        """The first program's task."""
        task = self.kernel.first
        if task is None:
            raise PagewalkError("no program is loaded")
        return task

    @property
    def output(self) -> bytes:
        """What the guest wrote to standard output, when it is captured."""
        return bytes(self.kernel.vfs.output)

    @property
    def errors(self) -> bytes:
        """What the guest wrote to standard error, when it is captured."""
        return bytes(self.kernel.vfs.errors)

    @property
    def address_space(self) -> AddressSpace:
        """The memory map of the first program, to look at: prints as /proc/PID/maps."""
        from emu.views import AddressSpace

        return self._view(AddressSpace)

    @property
    def tree(self) -> VmaTree:
        """The red-black tree of its areas, to look at."""
        from emu.views import VmaTree

        return self._view(VmaTree)

    @property
    def page_tables(self) -> PageTables:
        """Its page tables, to look at: every entry decoded; `.walk(address)` follows the MMU."""
        from emu.views import PageTables

        return self._view(PageTables)

    def _view(self, view: type[AnyView]) -> AnyView:
        """A view of the first program's memory. Raises PagewalkError when that is gone."""
        task = self.task
        if task.mm is None:
            raise PagewalkError("the program has ended and its memory is gone; stop before: run(until=...)")
        return view(task.mm, task)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the current task's memory as far as they are present; no fault, no accessed bit."""
        from mm.uaccess import access_process_vm

        mm = self.kernel.current.mm
        return access_process_vm(mm, address, size) if mm is not None else b""

    def write(self, address: int, data: bytes) -> None:
        """Write into the current task's memory as its kernel would. Raises Errno(EFAULT)."""
        from mm.uaccess import copy_to_user

        copy_to_user(self.kernel.current, address, data)

    def subscribe(self, listener: Callable[[Any], None], *kinds: str) -> Callable[[], None]:
        """Call `listener(event)` for events of these kinds (none: all). Returns a function that ends it."""
        entry = (listener, kinds)
        self._listeners.append(entry)
        self._listen()

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)
                self._listen()

        return unsubscribe

    def explain(self, **choice: Any) -> Explainer:
        """Have page faults and memory calls explained from now on; `.last` is the last fault. See emu/explain.py.

        Args:
            choice: faults (numbers), addresses, every (True: all faults), last, calls (numbers or "NAME:K"), told.
        """
        from emu.explain import Explainer

        return Explainer(cast("Machine", self), **choice)

    # ---- steering

    @property
    def steering(self) -> Steering:
        """The handlers that may change what happens (emu/steer.py)."""
        if self._steering is None:
            from emu.steer import Steering

            self._steering = Steering(cast("Machine", self))
        return self._steering

    def before(self, kind: str, function: Callable[[Any], Any] | None = None, **filters: Any) -> Any:
        """Call `function(event)` before every such event; it may raise `emu.steer.Veto`. Also as a decorator.

        Args:
            kind: "syscall", "fault", "vma_merge" or "page_alloc".
            function: the handler.
            filters: address (a range of bytes), task (pid), case (of a merge), name (of a call).

        Returns:
            The handler, with `remove()`; as a decorator, the function.
        """
        return self._handle(self.steering.before, kind, function, filters)

    def after(self, kind: str, function: Callable[[Any], Any] | None = None, **filters: Any) -> Any:
        """Call `function(event)` after every such event: any kind of docs/trace.md. As `before` otherwise."""
        return self._handle(self.steering.after, kind, function, filters)

    @staticmethod
    def _handle(make: Any, kind: str, function: Any, filters: dict[str, Any]) -> Any:
        if function is not None:
            return make(kind, function, **filters)

        def decorate(function: Any) -> Any:
            make(kind, function, **filters)
            return function

        return decorate

    def pager(self, addresses: range) -> Callable[[Any], Any]:
        """Decorator: `function(address, size)` gives the content of pages in this range when they are first touched."""

        def decorate(function: Any) -> Any:
            self.steering.pager(addresses.start, addresses.stop, function)
            return function

        return decorate

    # ---- stopping at places

    def _watch_data(self, task: Task) -> None:
        """A task's debug registers watch something else now."""
        self.breakpoints.watch_for(task)

    @property
    def breakpoints(self) -> Breakpoints:
        """All breakpoints and watchpoints, and the last hit (emu/breakpoints.py)."""
        if self._breakpoints is None:
            from emu.breakpoints import Breakpoints

            self._breakpoints = Breakpoints(cast("Machine", self))
        return self._breakpoints

    def breakpoint(self, address: int | range | None = None, *, event: str | None = None, **filters: Any) -> Any:
        """End a run before the instruction at `address`, or at an event (docs/python.md); `remove()` takes it away."""
        return self.breakpoints.at(address, event, filters)

    def watch(self, address: int, size: int = 8, access: str = "w") -> Watchpoint:
        """End a run behind an instruction that reads ("r"), writes ("w") or touches ("rw") one of these bytes."""
        return self.breakpoints.watch(address, size, access)

    def _listen(self) -> None:
        """Give mm/ and guest/ the one listener that serves all of ours, or none."""
        if not hasattr(self, "system"):
            return
        listeners = self._listeners
        if not listeners:
            self.system.listener = None
        elif len(listeners) == 1 and not listeners[0][1]:
            self.system.listener = listeners[0][0]
        else:

            def emit(event: Any) -> None:
                kind = event.kind
                for listener, kinds in tuple(listeners):
                    if not kinds or kind in kinds:
                        listener(event)

            self.system.listener = emit
