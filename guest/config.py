"""What a machine is started with, as a plain object: the command line and `emu.Machine` fill it in."""

from __future__ import annotations

from typing import Any


class Config:
    """Settings of one run; every one has the default the command line documents."""

    def __init__(self, **settings: Any) -> None:
        self.root: str | None = None  # host folder that is the guest's /; None: only the program, /proc, /dev, /tmp
        self.rw = False  # writes to root reach the host
        self.prefix: str | None = None  # host folder in which absolute paths are looked up first (-L)
        self.mounts: tuple[Any, ...] = ()  # (host, guest, "ro" | "rw")
        self.env: dict[str, str] | None = None
        self.uid = 0
        self.gid = 0
        self.aslr: int | None = None  # seed of address space randomisation; None: norandmaps
        self.stack = 8 << 20  # soft RLIMIT_STACK, bytes
        self.hostname = "(none)"
        self.seed = 0  # of everything random but the address space; not 0: of the order tasks run in as well
        self.clock = "virtual"  # or "host"
        self.net = "internal"  # or "host-loopback": sockets reach 127.0.0.1 of the host
        self.stdin: Any = None  # host fd, bytes, or None: what FILES makes of it
        self.stdout: Any = "inherit"
        self.stderr: Any = "inherit"
        self.program: str | None = None  # host path of the program, where it is not in root
        self.image: bytes | None = None  # its bytes, where it has no path
        self.first_pid = 27  # pid of the first program: what the oracle's first command gets
        for name, value in settings.items():
            setattr(self, name, value)
