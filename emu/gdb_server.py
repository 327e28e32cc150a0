"""The remote protocol: each packet to what it does with a `Target`, and the stop replies.

`serve()` answers packets until the debugger wants something to run; it returns what (a `Resume`), and the loop in
emu/gdb.py runs it and comes back with a stop. A packet we do not know is answered by an empty one, a malformed one by
an error: neither reaches the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import gdb_arch
from emu.errors import PagewalkError
from emu.gdb_query import Queries
from emu.gdb_target import FROM_GDB, TO_GDB, Stop
from emu.gdb_wire import INTERRUPT, PACKET_SIZE, Wire
from emu.peek import peek
from guest.siginfo import SIGTRAP
from mm.errors import Errno
from mm.gup import access_remote_vm

if TYPE_CHECKING:
    from emu.gdb_target import Target
    from guest.task import Task

OK, UNKNOWN = b"OK", b""
CHANGED = "the debugger changed registers or memory"
WORD = (1 << 64) - 1


class Refused(Exception):
    """The answer is an error: `E` and two digits."""

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self.reply = b"E%02x" % (number & 0xFF)


class Resume:
    """What the debugger wants to happen.

    Attributes:
        kind: "run", "back" (with `backward`: "s" or "c"), "kill", "detach" (everything), "gone", "restart".
        actions: thread -> ("c" or "s", signal).
        ranges: thread -> (start, end): step while the program counter is in there.
    """

    __slots__ = ("actions", "backward", "kind", "ranges")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.actions: dict[Task, tuple[str, int]] = {}
        self.ranges: dict[Task, tuple[int, int]] = {}
        self.backward = ""


class Server:
    """One connected debugger."""

    def __init__(self, wire: Wire, session: Any) -> None:
        self.wire = wire
        self.session = session  # emu.gdb.Session: makes the machine anew for reverse execution
        self.multiprocess = False
        self.extended = False  # stays when the program is killed, and may start it again
        self.general: Task | None = None  # of Hg
        self.running: Task | None = None  # of Hc
        self.stopped: Stop | None = None  # what was last told
        self.queries = Queries(self)

    @property
    def target(self) -> Target:
        """What is debugged."""
        target: Target = self.session.target
        return target

    @property
    def arch(self) -> gdb_arch.GdbArch:
        """Its registers."""
        return gdb_arch.of(self.target.machine.system.arch.name)

    # ---- threads

    def thread_id(self, task: Task) -> str:
        """How a thread is written."""
        return f"p{task.tgid:x}.{task.pid:x}" if self.multiprocess else f"{task.pid:x}"

    def select(self, text: str) -> list[Task]:
        """The threads an id means: one, all of a process, or all. Raises Refused when there is none."""
        threads = self.target.threads()
        process = None
        if text.startswith("p"):
            first, _, text = text[1:].partition(".")
            text = text or "-1"
            if first not in ("-1", "0"):
                process = int(first, 16)
        threads = [task for task in threads if process in (None, task.tgid)]
        if text == "0":
            threads = threads[:1]
        elif text != "-1":
            threads = [task for task in threads if task.pid == int(text, 16)]
        if not threads:
            raise Refused(3)
        return threads

    def task(self) -> Task:
        """The thread that packets about registers and memory mean."""
        task = self.general
        if task is None or task.exit_state or task.tgid not in self.target.processes:
            threads = self.target.threads()
            current = self.target.machine.kernel.current
            if not threads:
                raise Refused(3)
            task = self.general = current if current in threads else threads[0]
        return task

    def forget_threads(self) -> None:
        """There is another machine."""
        self.general = self.running = self.stopped = None

    # ---- the conversation

    def serve(self) -> Resume:
        """Answer packets until something is to run."""
        while True:
            packet = self.wire.receive()
            if packet is None:
                return Resume("gone")
            if packet == INTERRUPT:
                continue  # nothing runs
            answer = self.handle(packet)
            if isinstance(answer, Resume):
                return answer
            self.wire.send(answer)
            if packet == b"QStartNoAckMode":
                self.wire.acknowledge = False

    def handle(self, packet: bytes) -> bytes | Resume:
        """One packet; the reply's payload."""
        try:
            letter = packet[:1].decode("latin-1")
            serve = self._LETTERS.get(letter)
            return serve(self, packet[1:]) if serve is not None else UNKNOWN
        except Refused as refused:
            return refused.reply
        except Errno as e:
            return b"E%02x" % (e.number & 0xFF)
        except (ValueError, IndexError, KeyError, OverflowError, PagewalkError):
            return b"E01"  # malformed, or asks for what there is not

    def report(self, stop: Stop) -> None:
        """Tell of a stop."""
        self.stopped = stop
        self.target.last[stop.task] = stop
        self.wire.send(self.stop_reply(stop))

    def stop_reply(self, stop: Stop) -> bytes:
        """T05..., or W and X."""
        task = stop.task
        if stop.end:
            return (stop.end + (f";process:{task.tgid:x}" if self.multiprocess else "")).encode()
        self.general = self.running = task
        expedited = ""
        try:
            values = self.arch.values(self.target.machine, task)
        except Errno:
            pass
        else:
            arch = self.arch
            expedited = "".join(f"{n:x}:{values[n].hex()};" for n in sorted((arch.pc, arch.sp, arch.fp)))
        signal = TO_GDB.get(stop.signal, 143)
        return f"T{signal:02x}{stop.reason}{expedited}thread:{self.thread_id(task)};".encode()

    def _why(self, _: bytes) -> bytes:
        """`?`."""
        task = self.task()
        return self.stop_reply(self.target.last.get(task) or Stop(SIGTRAP, task))

    # ---- registers and memory

    def _read_registers(self, _: bytes) -> bytes:
        return b"".join(self.arch.values(self.target.machine, self.task())).hex().encode()

    def _write_registers(self, data: bytes) -> bytes:
        image = bytes.fromhex(data.decode())
        changes, at = {}, 0
        for number, register in enumerate(self.arch.registers):
            size = register.bits // 8
            if at + size > len(image):
                break
            changes[number] = image[at : at + size]
            at += size
        self.target.changed = CHANGED
        self.arch.set(self.target.machine, self.task(), changes)
        return OK

    def _read_register(self, data: bytes) -> bytes:
        return self.arch.values(self.target.machine, self.task())[int(data, 16)].hex().encode()

    def _write_register(self, data: bytes) -> bytes:
        number, _, value = data.partition(b"=")
        image = bytes.fromhex(value.decode())
        if len(image) != self.arch.registers[int(number, 16)].bits // 8:
            raise Refused
        self.target.changed = CHANGED
        self.arch.set(self.target.machine, self.task(), {int(number, 16): image})
        return OK

    def _read_memory(self, data: bytes) -> bytes:
        address, _, length = data.partition(b",")
        at, mm = int(address, 16) & WORD, self.task().mm
        inside = 0 if mm is None else mm.task_size - at  # beyond lie tables that are not the program's
        found = peek(mm, at, min(int(length, 16), PACKET_SIZE // 2, inside), True) if inside > 0 else b""
        if not found and int(length, 16):
            raise Refused(14)
        return found.hex().encode()

    def _write_hex(self, data: bytes) -> bytes:
        place, _, digits = data.partition(b":")
        return self._write(place, bytes.fromhex(digits.decode()))

    def _write_binary(self, data: bytes) -> bytes:
        place, _, image = data.partition(b":")
        return self._write(place, image)

    def _write(self, place: bytes, image: bytes) -> bytes:
        """As PTRACE_POKEDATA: through page protection, with a copy of a private page."""
        address, _, length = place.partition(b",")
        if int(length, 16) != len(image):
            raise Refused
        if image:
            self.target.changed = CHANGED
            write_memory(self.task(), int(address, 16) & WORD, image)
        return OK

    # ---- breakpoints

    def _insert(self, data: bytes) -> bytes:
        kind, address, size = self._point(data)
        self.target.insert(self.task().tgid, kind, address, size)
        return OK

    def _remove(self, data: bytes) -> bytes:
        kind, address, size = self._point(data)
        self.target.remove(self.task().tgid, kind, address, size)
        return OK

    @staticmethod
    def _point(data: bytes) -> tuple[str, int, int]:
        kind, address, size = data.partition(b";")[0].decode().split(",")
        if kind not in ("0", "1", "2", "3", "4"):
            raise Refused
        return kind, int(address, 16) & WORD, int(size, 16)

    # ---- going on

    def _all(self, kind: str, signo: int, at: str = "") -> Resume:
        """Every thread goes on; the one of Hc with `kind` and the signal."""
        resume = Resume("run")
        chosen = self.running if self.running in self.target.threads() else self.task()
        for task in self.target.threads():
            resume.actions[task] = ("c", 0)
        resume.actions[chosen] = (kind, signo)
        if at:
            self.arch.set(self.target.machine, chosen, {self.arch.pc: int(at, 16).to_bytes(8, "little")})
        return resume

    def _continue(self, data: bytes) -> Resume:
        return self._all("c", 0, data.decode())

    def _step(self, data: bytes) -> Resume:
        return self._all("s", 0, data.decode())

    def _continue_signal(self, data: bytes) -> Resume:
        signo, _, at = data.decode().partition(";")
        return self._all("c", FROM_GDB.get(int(signo, 16), 0), at)

    def _step_signal(self, data: bytes) -> Resume:
        signo, _, at = data.decode().partition(";")
        return self._all("s", FROM_GDB.get(int(signo, 16), 0), at)

    def _back(self, data: bytes) -> bytes | Resume:
        if data not in (b"s", b"c"):
            return UNKNOWN
        resume = Resume("back")
        resume.backward = data.decode()
        return resume

    def _verbose(self, data: bytes) -> bytes | Resume:
        """`v` packets."""
        if data == b"Cont?":
            return b"vCont;c;C;s;S;t;r"
        if data.startswith(b"Cont;"):
            return self._vcont(data[5:].decode())
        if data.startswith(b"File:"):
            return self.queries.files.handle(data[5:])
        if data.startswith(b"Kill"):
            return Resume("end" if self.extended else "kill")
        if data.startswith(b"Run"):
            return Resume("restart")
        return UNKNOWN

    def _vcont(self, text: str) -> Resume:
        """The leftmost action that fits a thread is its own; a thread that none fits stays stopped."""
        resume = Resume("run")
        for part in text.split(";"):
            action, _, which = part.partition(":")
            kind, argument = action[:1], action[1:]
            if kind not in "cCsSrt" or not kind:
                raise Refused
            for task in self.select(which or "-1"):
                if task in resume.actions or kind == "t":
                    continue
                signo = FROM_GDB.get(int(argument, 16), 0) if kind in "CS" else 0
                resume.actions[task] = ("c" if kind in "cC" else "s", signo)
                if kind == "r":
                    start, _, end = argument.partition(",")
                    resume.ranges[task] = (int(start, 16), int(end, 16))
        if not resume.actions:
            raise Refused
        return resume

    # ---- the rest

    def _set_thread(self, data: bytes) -> bytes:
        operation, which = data[:1], data[1:].decode()
        everything = which in ("-1", "p-1.-1")
        task = None if everything else self.select(which)[0]
        if operation == b"g":
            self.general = task or self.general
        elif operation == b"c":
            self.running = task
        else:
            raise Refused
        return OK

    def _alive(self, data: bytes) -> bytes:
        self.select(data.decode())
        return OK

    def _detach(self, data: bytes) -> bytes | Resume:
        """`D;pid` lets one process go, `D` all."""
        if data.startswith(b";"):
            process = int(data[1:], 16)
            if process not in self.target.processes:
                raise Refused(3)
            if len(self.target.processes) > 1:
                self.target.detach(process)
                return OK
        return Resume("detach")

    def _kill(self, _: bytes) -> Resume:
        return Resume("kill")

    def _extended(self, _: bytes) -> bytes:
        self.extended = self.session.can_restart
        return OK if self.extended else UNKNOWN

    def _restart(self, _: bytes) -> bytes | Resume:
        return Resume("restart") if self.session.can_restart else UNKNOWN

    def _query(self, data: bytes) -> bytes:
        return self.queries.get(data)

    def _change(self, data: bytes) -> bytes:
        return self.queries.set(data)

    _LETTERS: dict[str, Any] = {  # noqa: RUF012 - constant
        "?": _why, "g": _read_registers, "G": _write_registers, "p": _read_register, "P": _write_register,
        "m": _read_memory, "M": _write_hex, "X": _write_binary, "Z": _insert, "z": _remove, "c": _continue, "s": _step,
        "C": _continue_signal, "S": _step_signal, "b": _back, "v": _verbose, "H": _set_thread, "T": _alive,
        "D": _detach, "k": _kill, "!": _extended, "R": _restart, "q": _query, "Q": _change,
    }  # fmt: skip


def write_memory(task: Task, address: int, image: bytes) -> None:
    """Poke bytes into a process. Raises Refused when not all of them could be written."""
    mm = task.mm
    if mm is None or len(access_remote_vm(mm, address, image)) != len(image):
        raise Refused(14)
