"""The q and Q packets: what the two sides can do, threads, and the objects that are read in pieces (qXfer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.gdb_files import Files
from emu.gdb_target import FROM_GDB
from emu.gdb_wire import PACKET_SIZE
from guest.siginfo import SIGTRAP, kill_info

if TYPE_CHECKING:
    from emu.gdb_server import Server

SUPPORTED = (
    f"PacketSize={PACKET_SIZE:x}", "QStartNoAckMode+", "multiprocess+", "qXfer:features:read+", "qXfer:auxv:read+",
    "qXfer:exec-file:read+", "qXfer:siginfo:read+", "qXfer:threads:read+", "QPassSignals+", "QProgramSignals+",
    "QCatchSyscalls+", "swbreak+", "hwbreak+", "fork-events+", "vfork-events+", "exec-events+", "vContSupported+",
    "ReverseStep+", "ReverseContinue+", "no-resumed-",
)  # fmt: skip


class Queries:
    """Of one connected debugger."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.files = Files(server)
        self._threads: list[str] = []  # not yet told in this list
        self._objects: dict[str, Any] = {
            "features": self._features,
            "auxv": self._auxv,
            "exec-file": self._exec_file,
            "siginfo": self._siginfo,
            "threads": self._thread_list,
        }

    # ---- q

    def get(self, data: bytes) -> bytes:
        """A q packet."""
        server = self.server
        name = data.split(b":")[0].split(b",")[0].split(b";")[0]
        if name == b"Supported":
            return self._supported(data.partition(b":")[2].decode("latin-1"))
        if name == b"C":
            return b"QC" + server.thread_id(server.task()).encode()
        if name in (b"fThreadInfo", b"sThreadInfo"):
            return self._list_threads(name == b"fThreadInfo")
        if name == b"ThreadExtraInfo":
            task = server.select(data.partition(b",")[2].decode())[0]
            return f"{task.comm}, {task.state}".encode().hex().encode()
        if name == b"Attached":
            return b"0"  # we started it: leaving gdb may kill it
        if name == b"Symbol":
            return b"OK"
        if name == b"TStatus":
            return b""
        if name == b"Rcmd":
            return self._monitor(bytes.fromhex(data.partition(b",")[2].decode()))
        if name == b"Xfer":
            _, what, operation, annex, place = data.decode("latin-1").split(":", 4)
            return self._read(what, operation, annex, place)
        return b""

    def _supported(self, theirs: str) -> bytes:
        server = self.server
        features = frozenset(word[:-1] for word in theirs.split(";") if word.endswith("+"))
        server.target.features = features
        server.multiprocess = "multiprocess" in features
        return ";".join(SUPPORTED).encode()

    def _list_threads(self, first: bool) -> bytes:
        if first:
            self._threads = [self.server.thread_id(task) for task in self.server.target.threads()]
        some, self._threads = self._threads[:100], self._threads[100:]
        return b"m" + ",".join(some).encode() if some else b"l"

    def _monitor(self, line: bytes) -> bytes:
        """qRcmd: text goes in O packets, as long as it takes."""
        from emu.gdb_monitor import monitor

        text = monitor(self.server, line.decode("utf-8", "replace")).encode("utf-8", "replace")
        for at in range(0, len(text), PACKET_SIZE // 4):
            self.server.wire.send(b"O" + text[at : at + PACKET_SIZE // 4].hex().encode())
        return b"OK"

    # ---- qXfer

    def _read(self, what: str, operation: str, annex: str, place: str) -> bytes:
        if what not in self._objects or operation != "read":
            return b""
        offset, _, length = place.partition(",")
        at, count = int(offset, 16), min(int(length, 16), PACKET_SIZE - 16)
        data: bytes = self._objects[what](annex)
        return (b"m" if at + count < len(data) else b"l") + data[at : at + count]

    def _features(self, annex: str) -> bytes:
        if annex != "target.xml":
            raise KeyError(annex)
        return self.server.arch.description()

    def _auxv(self, _: str) -> bytes:
        """As /proc/PID/auxv: up to and with AT_NULL."""
        mm = self.server.task().mm
        words = [] if mm is None else mm.saved_auxv
        end = next((at + 2 for at in range(0, len(words), 2) if words[at] == 0), len(words))
        return b"".join(word.to_bytes(8, "little") for word in words[:end])

    def _exec_file(self, annex: str) -> bytes:
        server = self.server
        task = server.select(f"p{annex}")[0] if annex else server.task()
        if task.mm is None or task.mm.exe_file is None:
            raise KeyError(annex)
        name = task.mm.exe_file.d_path()
        return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else bytes(name)

    def _siginfo(self, _: str) -> bytes:
        task = self.server.task()
        stop = self.server.target.last.get(task)
        info = stop.info if stop is not None and stop.info is not None else kill_info(SIGTRAP, 0, 0, 0)
        return info.pack()

    def _thread_list(self, _: str) -> bytes:
        lines = ["<?xml version='1.0'?>", "<threads>"]
        for task in self.server.target.threads():
            name = "".join(f"&#{ord(c)};" if c in "<>&\"'" else c for c in task.comm if c.isprintable())
            lines.append(f'<thread id="{self.server.thread_id(task)}" name="{name}"/>')
        return "\n".join([*lines, "</threads>"]).encode()

    # ---- Q

    def set(self, data: bytes) -> bytes:
        """A Q packet."""
        target = self.server.target
        name, _, rest = data.decode("latin-1").partition(":")
        if name == "StartNoAckMode":
            return b"OK"
        if name == "PassSignals":
            target.passed = {FROM_GDB[n] for n in (int(w, 16) for w in rest.split(";") if w) if n in FROM_GDB}
            return b"OK"
        if name == "ProgramSignals":
            return b"OK"  # the signal of each vCont is what counts
        if name == "CatchSyscalls":
            on, _, numbers = rest.partition(";")
            target.calls = {int(number, 16) for number in numbers.split(";") if number} if on == "1" else None
            return b"OK"
        return b""
