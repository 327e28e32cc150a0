"""Packets of gdb's remote serial protocol over one TCP connection (GDB manual, "Remote Protocol", "Overview").

    $payload#cc    cc: sum of the payload's bytes modulo 256, two hex digits; `}` x: the byte x ^ 0x20
    + and -        taken, say it again; not sent any more after QStartNoAckMode
    0x03           outside a packet: interrupt

What comes is anybody's: bytes between packets are dropped, a wrong sum is refused, and a packet without an end is given
up once it is larger than any real one.
"""

from __future__ import annotations

import socket
from contextlib import suppress

PACKET_SIZE = 0x4000  # bytes of a payload, told to gdb, which keeps to it
LARGEST = 1 << 20  # bytes of a packet that has not ended yet
INTERRUPT = b"\x03"
SPECIAL = b"#$}*"


class Wire:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.acknowledge = True
        self._data = b""
        self._last = b""  # what a "-" asks for again

    def fileno(self) -> int:
        """For select()."""
        return self.connection.fileno()

    def receive(self) -> bytes | None:
        """The next packet's payload, or INTERRUPT; None when the debugger is gone."""
        while True:
            packet = self._next()
            if packet is not None:
                return packet
            try:
                data = self.connection.recv(65536)
            except OSError:
                return None
            if not data:
                return None
            self._data += data

    def poll(self) -> bytes | None:
        """Like receive() with what is there already; b"" when that is no packet."""
        packet = self._next()
        if packet is not None:
            return packet
        try:
            data = self.connection.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        if not data:
            return None
        self._data += data
        return self._next() or b""

    def _next(self) -> bytes | None:
        """Take one packet off the buffer; None when there is no whole one."""
        while self._data:
            first = self._data[:1]
            if first == INTERRUPT:
                self._data = self._data[1:]
                return INTERRUPT
            if first == b"-" and self._last and self.acknowledge:
                self._write(self._last)
            if first != b"$":
                rest = [at for at in (self._data.find(b"$", 1), self._data.find(INTERRUPT, 1)) if at > 0]
                minus = self._data.find(b"-", 1)
                if self.acknowledge and minus > 0:
                    rest.append(minus)
                self._data = self._data[min(rest) :] if rest else b""
                continue
            end = self._data.find(b"#")
            if end < 0 or len(self._data) < end + 3:
                if len(self._data) > LARGEST:
                    self._data = b""
                return None
            payload, digits = self._data[1:end], self._data[end + 1 : end + 3]
            self._data = self._data[end + 3 :]
            if not self.acknowledge or _sum(payload) == digits.lower():
                self._answer(b"+")
                return unescape(payload)
            self._answer(b"-")
        return None

    def _answer(self, sign: bytes) -> None:
        if self.acknowledge:
            self._write(sign)

    def send(self, payload: bytes) -> None:
        """Send one packet."""
        data = escape(payload)
        self._last = b"$" + data + b"#" + _sum(data)
        self._write(self._last)

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # the next receive() says that it is gone
            self.connection.sendall(data)

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


def _sum(payload: bytes) -> bytes:
    return b"%02x" % (sum(payload) & 0xFF)


def escape(payload: bytes) -> bytes:
    """Binary data with the bytes that mean something to the protocol escaped."""
    if not any(byte in payload for byte in SPECIAL):
        return payload
    return b"".join(b"}" + bytes((byte ^ 0x20,)) if byte in SPECIAL else bytes((byte,)) for byte in payload)


def unescape(payload: bytes) -> bytes:
    """The bytes a packet stands for."""
    if b"}" not in payload:
        return payload
    out = bytearray()
    at = 0
    while at < len(payload):
        byte = payload[at]
        if byte == 0x7D and at + 1 < len(payload):
            at += 1
            byte = payload[at] ^ 0x20
        out.append(byte)
        at += 1
    return bytes(out)
