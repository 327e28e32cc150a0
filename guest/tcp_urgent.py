"""Urgent ("out-of-band") data of TCP: one byte of the stream that can be read past the others (net/ipv4/tcp_input.c).

... c o p i e d | a b c U d e         urg_seq counts as copied_seq does, the bytes of the stream;
^copied_seq ^urg_seq  a read stops before U; recv(MSG_OOB) takes U; an ordinary read leaves it out
unless SO_OOBINLINE
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.fasync import POLL_PRI, send_sigurg
from guest.socket import MSG_OOB, MSG_PEEK, MSG_TRUNC, RCV_SHUTDOWN, SO_OOBINLINE, STATE_KEY, TCP_CLOSE, Received
from guest.vfs_flags import POLLPRI
from mm.errors import Errno

if TYPE_CHECKING:
    from guest.socket_tcp import TcpSock

NONE, VALID, READ = 0, 1, 2


def urgent_arrives(sk: TcpSock, size: int) -> None:
    """The last of `size` bytes that are about to arrive is urgent (tcp_check_urg())."""
    end = sk.copied_seq + len(sk.data) + size - 1
    if sk.urgent and end <= sk.urg_seq:
        return
    if sk.file is not None and send_sigurg(sk.net.sockfs.kernel, sk.file):
        sk.wake_async(POLL_PRI)
    if sk.urgent and sk.urg_seq == sk.copied_seq and sk.data and not sk.flags.get(SO_OOBINLINE):
        sk.net.memory.tcp -= 1
        del sk.data[:1]  # the old one was never read: it is lost
        sk.copied_seq += 1
    sk.urgent, sk.urg_seq = VALID, end
    sk.wq.wake_all(STATE_KEY | POLLPRI)


def recv_urgent(sk: TcpSock, count: int, flags: int) -> Received:
    """recv(MSG_OOB): tcp_recv_urg(). Raises EINVAL when there is none, EAGAIN, ENOTCONN."""
    if sk.flags.get(SO_OOBINLINE) or sk.urgent in (NONE, READ):
        raise Errno(errno.EINVAL)
    if sk.state == TCP_CLOSE and not sk.fin:
        raise Errno(errno.ENOTCONN)
    at = sk.urg_seq - sk.copied_seq
    if at >= len(sk.data):
        if sk.sk_shutdown & RCV_SHUTDOWN:
            return Received(b"")
        raise Errno(errno.EAGAIN)
    if not flags & MSG_PEEK:
        sk.urgent = READ
    if not count:
        return Received(b"", flags=MSG_OOB | MSG_TRUNC)
    sk.taking_urgent = True
    return Received(bytes(sk.data[at : at + 1]), flags=MSG_OOB)


def skip_urgent(sk: TcpSock) -> None:
    """An ordinary read stands at the urgent byte: it is not part of what is read."""
    if sk.urgent and sk.urg_seq == sk.copied_seq and sk.data and not sk.flags.get(SO_OOBINLINE):
        sk.net.memory.tcp -= 1
        del sk.data[:1]
        sk.copied_seq += 1
        sk.urgent = NONE


def before_urgent(sk: TcpSock, count: int) -> int:
    """How many of `count` bytes one read takes: it stops at the mark."""
    if sk.urgent and sk.copied_seq < sk.urg_seq < sk.copied_seq + count:
        return sk.urg_seq - sk.copied_seq
    return count


def at_mark(sk: TcpSock) -> bool:
    """SIOCATMARK."""
    return bool(sk.urgent) and sk.urg_seq == sk.copied_seq
