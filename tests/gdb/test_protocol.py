"""The remote protocol from a bare socket: what a debugger that is broken, rude or gone does to the guest: nothing."""

import random
import re
import socket
from collections.abc import Iterator

import pytest
from gdb_world import ARCHES, Debugged

CONNECT = "multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+"


class Client:
    """A debugger of few words."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.data = b""

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, payload: str | bytes) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        self.raw(b"$" + data + b"#%02x" % (sum(data) & 255))

    def receive(self) -> str:
        """The next packet's payload."""
        while True:
            start = self.data.find(b"$")
            end = self.data.find(b"#", start)
            if start >= 0 and end >= 0 and len(self.data) >= end + 3:
                payload, digits = self.data[start + 1 : end], self.data[end + 1 : end + 3]
                assert int(digits, 16) == sum(payload) & 255
                self.data = self.data[end + 3 :]
                self.raw(b"+")
                return payload.decode("latin-1")
            more = self.socket.recv(65536)
            if not more:
                return "(closed)"
            self.data += more

    def ask(self, payload: str | bytes) -> str:
        self.send(payload)
        return self.receive()

    def interrupted(self) -> str:
        """Ctrl-C until the guest has stopped: one that comes before it runs is nothing to it. The stop's packet."""
        patience = self.socket.gettimeout()
        self.socket.settimeout(0.25)
        try:
            for _ in range(80):
                self.raw(b"\x03")
                try:
                    return self.receive()
                except TimeoutError:
                    continue
        finally:
            self.socket.settimeout(patience)
        raise TimeoutError("the guest does not stop")

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(params=ARCHES)
def arch(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_nothing_a_debugger_says_reaches_the_guest(arch: str) -> None:
    """Nonsense of every kind, then the hang-up: output and status are those of a run without a debugger."""
    run = Debugged(arch, "c")
    client = Client(run.port)
    assert "PacketSize=" in client.ask(f"qSupported:{CONNECT}")
    chance = random.Random(7)
    client.raw(b"\x00\xffhello\r\n+++#00$#$$$")
    client.raw(b"$m0,4#zz")
    client.raw(bytes(byte for byte in chance.randbytes(3000) if byte not in b"$\x03-"))
    assert client.ask("?").startswith("T05")
    for packet in (
        "m", "m,", "mxyz,4", "m0", "m0,ffffffffffffffff", "m-1,4", "M0,4", "M0,4:zz", "M0,4:00", "X0,4:a", "p", "pzz",
        "p99999", "P0", "P0=", "P0=zz", "P99999=00", "G", "Gzz", "Z", "Z9,0,1", "Z0", "Z0,zz,1", "Z2,0,0", "Z2,0,99999",
        "z0,0,1", "H", "Hq0", "Hgp99.99", "Hg-2", "T", "Tp1.1", "D;999", "vCont;", "vCont;q", "vCont;s:p9.9",
        "vCont;r1:p1b.1b;x", "vFile:open:zz,0,0", "vFile:open:2f6e6f,0,0", "vFile:open:2f,1,0", "vFile:pread:63,10,0",
        "vFile:pwrite:3,0,abc", "vFile:unlink:2f", "vFile:close:9", "vFile:nothing:1", "vMustReplyEmpty", "qXfer",
        "qXfer:features:read:nothing:0,10", "qXfer:auxv:read::zz,10", "qXfer:none:read::0,10", "qRcmd,zz", "qRcmd,",
        "QPassSignals:zz", "QCatchSyscalls:1;zz", "qThreadExtraInfo,zz", "q", "Q", "v", "b", "bz", "!!", "_", "\x7f",
    ):  # fmt: skip
        reply = client.ask(packet)
        while reply.startswith("O") and reply != "OK":
            reply = client.receive()
        assert reply[:1] in ("", "E", "F", "O"), (packet, reply)
    client.raw(b"$" + b"x" * (3 << 20))  # no end
    client.raw(b"#00")
    client.close()
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_half_a_packet_and_gone(arch: str) -> None:
    run = Debugged(arch, "c")
    client = Client(run.port)
    client.raw(b"$vCont;c:p1")
    client.close()
    assert run.end() == (3, "counter 5 other 50 sum 55\n")


def test_gone_while_the_guest_runs(arch: str) -> None:
    """The run goes on without the debugger, and another one can come."""
    run = Debugged(arch, "l")
    client = Client(run.port)
    client.ask(f"qSupported:{CONNECT}")
    client.send("vCont;c")
    client.close()
    client = Client(run.port)
    assert client.ask("?").startswith("T0")
    client.send("vCont;c")
    client.raw(b"nonsense$while#running")  # is no interrupt
    assert client.interrupted().startswith("T02")
    client.send("k")
    assert client.receive() == "OK"
    assert run.end()[0] == 137


def test_a_wrong_sum_is_refused_and_the_packet_repeated(arch: str) -> None:
    run = Debugged(arch, "c")
    client = Client(run.port)
    client.raw(b"$?#00")
    assert client.socket.recv(1) == b"-"
    client.send("?")
    first = client.receive()
    assert client.ask("QStartNoAckMode") == "OK"
    client.raw(b"+$?#00")  # sums are not looked at any more
    assert client.receive() == first
    client.close()
    assert run.end()[0] == 3


def test_without_extensions(arch: str) -> None:
    """A debugger that announces nothing: plain thread ids, `c` and `s`, no fork events."""
    run = Debugged(arch, "f")
    client = Client(run.port)
    stop = client.ask("?")
    assert "thread:p" not in stop and "thread:1b;" in stop
    assert client.ask("qfThreadInfo") == "m1b" and client.ask("qsThreadInfo") == "l"
    before = client.ask("g")
    assert client.ask("s").startswith("T05") and client.ask("g") != before
    assert client.ask("c") == "W00"
    assert run.end()[0] == 0


def test_memory_is_read_without_a_trace(arch: str) -> None:
    """Reads, of pages never touched too, leave everything as it is: the page tables of the end are the same."""
    seconds = re.compile(rb"after [0-9.]+ s")
    run = Debugged(arch, "c", options=("--stats",))
    client = Client(run.port)
    client.ask(f"qSupported:{CONNECT}")
    assert len(client.ask("m430000,8")) == 16 or client.ask("m423000,8") != ""
    client.close()
    ours = seconds.sub(b"", run.process.communicate(timeout=60)[1])
    plain = Debugged(arch, "c", options=("--stats",))
    Client(plain.port).close()
    assert seconds.sub(b"", plain.process.communicate(timeout=60)[1]) == ours


def test_only_this_host(arch: str) -> None:
    run = Debugged(arch, "c")
    with socket.socket() as other:
        other.settimeout(1)
        name = socket.gethostbyname(socket.gethostname())
        if not name.startswith("127."):
            with pytest.raises(OSError):
                other.connect((name, run.port))
    Client(run.port).close()
    assert run.end()[0] == 3
