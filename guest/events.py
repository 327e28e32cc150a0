"""What guest/ reports to the machine's listener: one small class a kind (mm/events.py has the others)."""

from __future__ import annotations

from typing import Any


class GuestEvent:
    """Base: a kind, the pid it concerns, and its own slots."""

    __slots__ = ("pid",)
    kind = ""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def to_dict(self) -> dict[str, Any]:
        """All slots as plain values, for JSON Lines."""
        out: dict[str, Any] = {"kind": self.kind, "pid": self.pid}
        for name in self.__slots__:
            out[name] = getattr(self, name)
        return out

    def __repr__(self) -> str:
        return f"<{self.kind} {self.to_dict()}>"


class SyscallEnter(GuestEvent):
    """A system call is about to be served. `args` are the raw registers, six of them."""

    __slots__ = ("args", "name", "number", "restarted")
    kind = "syscall_enter"

    def __init__(self, pid: int, number: int, name: str, args: tuple[int, ...], restarted: bool = False) -> None:
        super().__init__(pid)
        self.number = number
        self.name = name
        self.args = args
        self.restarted = restarted  # the same call again, after its task slept


class SyscallExit(GuestEvent):
    """A system call returned `result` (negative errno on refusal), or is to be restarted (result is -ERESTART*)."""

    __slots__ = ("args", "injected", "name", "number", "result")
    kind = "syscall_exit"

    def __init__(
        self, pid: int, number: int, name: str, args: tuple[int, ...], result: int, injected: bool = False
    ) -> None:
        super().__init__(pid)
        self.number = number
        self.name = name
        self.args = args
        self.result = result
        self.injected = injected  # the call was not made: a handler or --inject answered


class SignalDeliver(GuestEvent):
    """A signal took effect: `action` is 'handler', 'terminate', 'core', 'stop'; or none did, for 'ignore'."""

    __slots__ = ("action", "address", "code", "handler", "sender", "signal", "status", "uid")
    kind = "signal"

    def __init__(
        self,
        pid: int,
        signal: int,
        code: int,
        address: int,
        sender: int,
        action: str,
        handler: int = 0,
        uid: int = 0,
        status: int = 0,
    ) -> None:
        super().__init__(pid)
        self.signal = signal
        self.code = code
        self.address = address  # si_addr, where the signal has one
        self.sender = sender  # si_pid, where it has one
        self.action = action
        self.handler = handler
        self.uid = uid  # si_uid, where it has one
        self.status = status  # si_status of SIGCHLD


class Exec(GuestEvent):
    """execve succeeded."""

    __slots__ = ("argv", "entry", "path", "root", "stack")
    kind = "exec"

    def __init__(self, pid: int, path: str, argv: list[str], entry: int, stack: int, root: int = 0) -> None:
        super().__init__(pid)
        self.path = path
        self.argv = argv
        self.entry = entry
        self.stack = stack
        self.root = root  # pfn of the new address space's root table


class Fork(GuestEvent):
    """A task was made: fork, vfork, clone."""

    __slots__ = ("child", "flags", "root")
    kind = "fork"

    def __init__(self, pid: int, child: int, flags: int, root: int = 0) -> None:
        super().__init__(pid)
        self.child = child
        self.flags = flags
        self.root = root  # pfn of the child's root table: the parent's, where they share their memory


class Exit(GuestEvent):
    """A task ended; `status` as wait4 gives it."""

    __slots__ = ("status",)
    kind = "exit"

    def __init__(self, pid: int, status: int) -> None:
        super().__init__(pid)
        self.status = status


class TaskSwitch(GuestEvent):
    """Another task got the CPU."""

    __slots__ = ("comm", "previous")
    kind = "switch"

    def __init__(self, pid: int, previous: int, comm: str) -> None:
        super().__init__(pid)
        self.previous = previous
        self.comm = comm


class Injected(GuestEvent):
    """`--inject` interferes: with `what` (a call, page_alloc, pte, fault or vma_merge), `how` (ENOMEM, ...)."""

    __slots__ = ("how", "what")
    kind = "injected"

    def __init__(self, pid: int, what: str, how: str) -> None:
        super().__init__(pid)
        self.what = what
        self.how = how
