"""The socket calls (net/socket.c, net/core/scm.c): descriptors, addresses, messages and what goes along with them."""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.file import get_file
from guest.sched import Restart
from guest.socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    MSG_WAITFORONE,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    Received,
    Scm,
    Sock,
    SocketFile,
    net_of,
    socket_file,
)
from guest.socket_netlink import AF_NETLINK
from guest.socket_options import sock_getsockopt, sock_setsockopt
from guest.socket_unix import UnixSock
from guest.sys_file import gather, import_iovec, max_rw_count, scatter
from guest.sys_poll import timespec
from guest.syscalls import FULL, PARTIAL, Call
from guest.vfs_flags import O_CLOEXEC, O_NONBLOCK, s32
from mm.errors import Errno
from mm.uaccess import access_ok, copy_from_user, copy_to_user, get_user, put_user

if TYPE_CHECKING:
    from guest.task import Task

NPROTO, SOCK_MAX, SOCK_TYPE_MASK = 45, 11, 0xF
SCM_RIGHTS, SCM_CREDENTIALS, SCM_MAX_FD = 1, 2, 253
_MSGHDR = Struct("<QiiQQQQii")  # struct user_msghdr
_CMSGHDR = Struct("<Qii")
_UCRED = Struct("<iII")
_STORAGE = 128  # sizeof(struct sockaddr_storage)
_UIO_MAXIOV = 1024
CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN = 6, 7, 21


def sockfd(task: Task, fd: int) -> SocketFile:
    """sockfd_lookup_light(). Raises EBADF, ENOTSOCK."""
    file = task.files.get(s32(fd))
    if not isinstance(file, SocketFile):
        raise Errno(errno.ENOTSOCK)
    return file


def nonblock(file: SocketFile, flags: int = 0) -> int:
    """MSG_DONTWAIT when the file or the call says so."""
    return MSG_DONTWAIT if file.f_flags & O_NONBLOCK else flags & MSG_DONTWAIT


def move_addr(task: Task, address: int, size: int) -> bytes:
    """move_addr_to_kernel(). Raises EINVAL, EFAULT."""
    size = s32(size)
    if not 0 <= size <= _STORAGE:
        raise Errno(errno.EINVAL)
    return copy_from_user(task, address, size) if size else b""


def put_addr(task: Task, name: bytes, address: int, length: int) -> None:
    """move_addr_to_user(): `length` points at the room, and is set to the true size."""
    room = s32(get_user(task, length, 4))
    if room < 0:
        raise Errno(errno.EINVAL)
    if min(room, len(name)):
        copy_to_user(task, address, name[:room])
    put_user(task, length, len(name), 4)


# making sockets


def sock_create(task: Task, family: int, kind: int, protocol: int) -> Sock:
    """__sock_create(). Raises EAFNOSUPPORT, EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT."""
    if not 0 <= family < NPROTO:
        raise Errno(errno.EAFNOSUPPORT)
    if not 0 <= kind < SOCK_MAX:
        raise Errno(errno.EINVAL)
    net = net_of(task)
    if family == AF_UNIX:
        if protocol not in (0, AF_UNIX):
            raise Errno(errno.EPROTONOSUPPORT)
        if kind not in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET):
            raise Errno(errno.ESOCKTNOSUPPORT)
        return UnixSock(net, SOCK_DGRAM if kind == SOCK_RAW else kind, task.system.arch.page_size)
    if family == AF_NETLINK:
        from guest.socket_netlink import netlink_create

        return netlink_create(net, kind, protocol)
    if family not in (AF_INET, AF_INET6):
        raise Errno(errno.EAFNOSUPPORT)
    from guest.socket_inet import inet_create

    return inet_create(net, task, family, kind, protocol)


def type_flags(kind: int) -> tuple[int, int]:
    """A type argument as type and flags. Raises EINVAL."""
    kind = s32(kind)
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    return kind & SOCK_TYPE_MASK, flags


def sys_socket(task: Task, family: int, kind: int, protocol: int) -> int:
    """socket(2)."""
    kind, flags = type_flags(kind)
    sk = sock_create(task, s32(family), kind, s32(protocol))
    fd: int = task.files.add(task, socket_file(task, sk, flags & O_NONBLOCK), bool(flags & O_CLOEXEC))
    return fd


def sys_socketpair(task: Task, family: int, kind: int, protocol: int, fds: int) -> int:
    """socketpair(2)."""
    kind, flags = type_flags(kind)
    files = task.files
    first = files.unused(task)
    second = files.unused(task, first + 1)
    copy_to_user(task, fds, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    one = sock_create(task, s32(family), kind, s32(protocol))
    two = sock_create(task, s32(family), kind, s32(protocol))
    if not isinstance(one, UnixSock) or not isinstance(two, UnixSock):
        raise Errno(errno.EOPNOTSUPP)
    one.pair(task, two)
    for fd, sk in ((first, one), (second, two)):
        files.install(fd, socket_file(task, sk, flags & O_NONBLOCK), bool(flags & O_CLOEXEC))
    return 0


def sys_bind(task: Task, fd: int, address: int, size: int) -> int:
    """bind(2)."""
    file = sockfd(task, fd)
    file.sk.bind(task, move_addr(task, address, size))
    return 0


def sys_listen(task: Task, fd: int, backlog: int) -> int:
    """listen(2)."""
    file = sockfd(task, fd)
    file.sk.listen(task, min(backlog & 0xFFFFFFFF, 4096))
    return 0


def sys_connect(task: Task, fd: int, address: int, size: int) -> int:
    """connect(2)."""
    file = sockfd(task, fd)
    file.sk.connect(task, move_addr(task, address, size), bool(nonblock(file)))
    return 0


def sys_accept4(task: Task, fd: int, address: int, length: int, flags: int) -> int:
    """accept4(2)."""
    flags &= 0xFFFFFFFF
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    file = sockfd(task, fd)
    task.files.unused(task)
    new = file.sk.accept(task, bool(nonblock(file)))
    made = socket_file(task, new, flags & O_NONBLOCK)
    if address:
        try:
            put_addr(task, new.getname(True), address, length)
        except Errno as refusal:
            made.f_count = 0
            made.release()
            raise Errno(errno.ECONNABORTED if refusal.number == errno.ENOTCONN else refusal.number) from None
    result: int = task.files.add(task, made, bool(flags & O_CLOEXEC))
    return result


def sys_accept(task: Task, fd: int, address: int, length: int) -> int:
    """accept(2)."""
    return sys_accept4(task, fd, address, length, 0)


def sys_getsockname(task: Task, fd: int, address: int, length: int) -> int:
    """getsockname(2)."""
    put_addr(task, sockfd(task, fd).sk.getname(False), address, length)
    return 0


def sys_getpeername(task: Task, fd: int, address: int, length: int) -> int:
    """getpeername(2)."""
    put_addr(task, sockfd(task, fd).sk.getname(True), address, length)
    return 0


def sys_shutdown(task: Task, fd: int, how: int) -> int:
    """shutdown(2)."""
    file = sockfd(task, fd)
    how = s32(how)
    if not 0 <= how <= 2:
        raise Errno(errno.EINVAL)
    file.sk.shutdown(how)
    return 0


def sys_setsockopt(task: Task, fd: int, level: int, name: int, value: int, size: int) -> int:
    """setsockopt(2)."""
    level, name, size = s32(level), s32(name), s32(size)
    if size < 0:
        raise Errno(errno.EINVAL)
    sk = sockfd(task, fd).sk
    data = copy_from_user(task, value, min(size, 256)) if size else b""
    if level == SOL_SOCKET:
        sock_setsockopt(task, sk, name, data)
    else:
        sk.setsockopt(task, level, name, data)
    return 0


def sys_getsockopt(task: Task, fd: int, level: int, name: int, value: int, length: int) -> int:
    """getsockopt(2)."""
    sk = sockfd(task, fd).sk
    size = s32(get_user(task, length, 4))
    if size < 0:
        raise Errno(errno.EINVAL)
    level, name = s32(level), s32(name)
    found = sock_getsockopt(task, sk, name, size) if level == SOL_SOCKET else sk.getsockopt(task, level, name, size)
    if found:
        copy_to_user(task, value, found)
    put_user(task, length, len(found), 4)
    return 0


# sending


def scm_send(task: Task, sk: Sock, control: bytes) -> Scm:
    """__scm_send(): descriptors and credentials a program attaches. Raises EINVAL, EBADF, EPERM, ESRCH."""
    scm = Scm()
    at = 0
    try:
        while at + _CMSGHDR.size <= len(control):
            size, level, kind = _CMSGHDR.unpack_from(control, at)
            if not _CMSGHDR.size <= size <= len(control) - at:
                raise Errno(errno.EINVAL)
            body = control[at + _CMSGHDR.size : at + size]
            at += size + 7 & ~7
            if level != SOL_SOCKET:
                continue
            if kind == SCM_RIGHTS and sk.family == AF_UNIX:
                _attach(task, scm, body)
            elif kind == SCM_CREDENTIALS and len(body) == _UCRED.size:
                scm.cred = _checked_cred(task, *_UCRED.unpack(body))
            else:
                raise Errno(errno.EINVAL)
    except Errno:
        scm.destroy()
        raise
    return scm


def _attach(task: Task, scm: Scm, body: bytes) -> None:
    """scm_fp_copy()."""
    numbers = memoryview(body[: len(body) & ~3]).cast("i")
    if len(numbers) + len(scm.fds) > SCM_MAX_FD:
        raise Errno(errno.EINVAL)
    for number in numbers:
        scm.fds.append(get_file(task.files.get_raw(number)))


def _checked_cred(task: Task, pid: int, uid: int, gid: int) -> tuple[int, int, int]:
    """scm_check_creds()."""
    cred = task.cred
    if (
        (pid != task.vnr(task.tgid) and not task.capable(CAP_SYS_ADMIN))
        or (uid not in (cred.uid, cred.euid, cred.suid) and not task.capable(CAP_SETUID))
        or (gid not in (cred.gid, cred.egid, cred.sgid) and not task.capable(CAP_SETGID))
    ):
        raise Errno(errno.EPERM)
    if task.find_task(pid) is None:
        raise Errno(errno.ESRCH)
    return task.vpid(pid), uid, gid


def send_areas(
    task: Task, file: SocketFile, areas: list[tuple[int, int]], name: bytes | None, flags: int, control: bytes
) -> int:
    """sock_sendmsg() of the areas. A stream sends all, sleeping, unless something goes wrong half-way."""
    sk = file.sk
    flags |= nonblock(file)
    total = sum(length for _, length in areas)
    done: int = task.wait_state.get("sent", 0)
    scm = scm_send(task, sk, control) if control and not done else Scm()
    try:
        while True:
            data = gather(task, areas, done, total - done) if total > done else b""
            if len(data) < total - done and (not sk.stream or not data):
                raise Errno(errno.EFAULT)
            done += sk.send(task, data, name, flags, scm)
            if done >= total or not sk.stream:
                return done
            task.wait_state["sent"] = done
    except (Errno, Restart):
        if done:
            return done
        raise
    finally:
        scm.destroy()


def sys_sendto(task: Task, fd: int, buf: int, count: int, flags: int, address: int, size: int) -> int:
    """sendto(2)."""
    count = min(count, max_rw_count(task))
    if not access_ok(task, buf, count):
        raise Errno(errno.EFAULT)
    file = sockfd(task, fd)
    name = move_addr(task, address, size) if address else None
    return send_areas(task, file, [(buf, count)], name, flags & 0xFFFFFFFF, b"")


class UserMsg:
    """struct user_msghdr, read from the guest (copy_msghdr_from_user())."""

    def __init__(self, task: Task, address: int) -> None:
        self.address = address
        (self.name, self.namelen, _, iov, count, self.control, self.controllen, self.flags, _) = _MSGHDR.unpack(
            copy_from_user(task, address, 56)
        )
        if not self.name:
            self.namelen = 0
        if self.namelen < 0:
            raise Errno(errno.EINVAL)
        self.namelen = min(self.namelen, _STORAGE)
        if count > _UIO_MAXIOV:
            raise Errno(errno.EMSGSIZE)
        self.areas = import_iovec(task, iov, count)


def send_message(task: Task, file: SocketFile, address: int, flags: int) -> int:
    """___sys_sendmsg()."""
    msg = UserMsg(task, address)
    name = copy_from_user(task, msg.name, msg.namelen) if msg.name and msg.namelen else None
    if msg.controllen > 0x7FFFFFFF:
        raise Errno(errno.ENOBUFS)
    if msg.controllen > 20480:  # net.core.optmem_max
        raise Errno(errno.ENOBUFS)
    control = copy_from_user(task, msg.control, msg.controllen) if msg.controllen else b""
    return send_areas(task, file, msg.areas, name, flags & 0xFFFFFFFF, control)


def sys_sendmsg(task: Task, fd: int, address: int, flags: int) -> int:
    """sendmsg(2)."""
    return send_message(task, sockfd(task, fd), address, flags)


def sys_sendmmsg(task: Task, fd: int, vector: int, count: int, flags: int) -> int:
    """sendmmsg(2): entries of 64 bytes, a msghdr and the bytes sent."""
    file = sockfd(task, fd)
    count = min(count & 0xFFFFFFFF, _UIO_MAXIOV)
    done: int = task.wait_state.get("messages", 0)
    while done < count:
        try:
            sent = send_message(task, file, vector + 64 * done, flags)
            put_user(task, vector + 64 * done + 56, sent, 4)
        except (Errno, Restart):
            if done:
                return done
            raise
        task.wait_state.pop("sent", None)
        done += 1
        task.wait_state["messages"] = done
    return done


# receiving


def recv_areas(task: Task, file: SocketFile, areas: list[tuple[int, int]], flags: int) -> tuple[int, Received | None]:
    """sock_recvmsg() into the areas: the call's result and what came first."""
    sk = file.sk
    wait = flags | nonblock(file, flags)
    total = sum(length for _, length in areas)
    done: int = task.wait_state.get("received", 0)
    first: Received | None = task.wait_state.get("first")
    while True:
        try:
            got = sk.recv(task, total - done, wait)
        except (Errno, Restart):
            if done:
                return done, first
            raise
        copied = scatter(task, areas, done, got.data) if got.data else 0
        if copied < len(got.data) and not copied:
            if not sk.stream and not flags & MSG_PEEK:
                sk.take(0)
            if done:
                return done, first
            raise Errno(errno.EFAULT)
        for file_ in got.fds:
            get_file(file_)
        if first is None:
            first = got
        else:
            first = first._replace(fds=first.fds + got.fds)
        if flags & MSG_PEEK:
            sk.peeked(copied)
        else:
            sk.take(copied)
        done += copied
        if not sk.stream:
            length = got.length if flags & MSG_TRUNC and got.length >= 0 else done
            return length, first
        waitall = flags & MSG_WAITALL and not flags & MSG_PEEK
        if done >= total or not got.data or got.fds or not waitall:
            return done, first
        task.wait_state["received"], task.wait_state["first"] = done, first


class Control:
    """The buffer for control messages of a receive (put_cmsg())."""

    def __init__(self, task: Task, address: int, room: int) -> None:
        self.task = task
        self.at = address
        self.left = room
        self.flags = 0

    def put(self, level: int, kind: int, body: bytes) -> None:
        """One message, cut off where the room ends."""
        size = _CMSGHDR.size + len(body)
        if self.left < _CMSGHDR.size or not self.at:
            self.flags |= MSG_CTRUNC
            return
        if self.left < size:
            self.flags |= MSG_CTRUNC
            size = self.left
        copy_to_user(self.task, self.at, (_CMSGHDR.pack(size, level, kind) + body)[:size])
        step = min(size + 7 & ~7, self.left)
        self.at += step
        self.left -= step

    def put_fds(self, files: tuple[Any, ...], cloexec: bool) -> None:
        """scm_detach_fds(): descriptors for as many as there is room for; the others are closed."""
        from guest.file import fput

        room = max((self.left - _CMSGHDR.size) // 4, 0) if self.at else 0
        numbers: list[int] = []
        for index, file in enumerate(files):
            if index >= room:
                fput(file)
                continue
            try:
                numbers.append(self.task.files.add(self.task, file, cloexec))
            except Errno:
                for other in files[index + 1 :]:
                    fput(other)
                break
        if len(numbers) < len(files):
            self.flags |= MSG_CTRUNC
        if numbers:
            flags = self.flags
            self.put(SOL_SOCKET, SCM_RIGHTS, b"".join(n.to_bytes(4, "little") for n in numbers))
            self.flags = flags


def sys_recvfrom(task: Task, fd: int, buf: int, count: int, flags: int, address: int, length: int) -> int:
    """recvfrom(2)."""
    count = min(count, max_rw_count(task))
    if not access_ok(task, buf, count):
        raise Errno(errno.EFAULT)
    done, first = recv_areas(task, sockfd(task, fd), [(buf, count)], flags & 0xFFFFFFFF)
    drop_fds(first)
    if address:
        put_addr(task, first.name or b"" if first is not None else b"", address, length)
    return done


def drop_fds(received: Received | None) -> None:
    """Descriptors nobody asked for are closed."""
    from guest.file import fput

    for file in received.fds if received is not None else ():
        fput(file)


def recv_message(task: Task, file: SocketFile, address: int, flags: int) -> int:
    """___sys_recvmsg()."""
    msg = UserMsg(task, address)
    flags &= 0xFFFFFFFF
    if flags & MSG_ERRQUEUE:
        raise Errno(errno.EAGAIN)
    done, first = recv_areas(task, file, msg.areas, flags)
    control = Control(task, msg.control, msg.controllen)
    cloexec = flags & MSG_CMSG_CLOEXEC
    out_flags = cloexec
    name = b""
    if first is not None:
        out_flags |= first.flags
        name = first.name or b""
        for level, kind, body in first.control:
            control.put(level, kind, body)
        if file.sk.passcred and first.cred is not None:
            pid, uid, gid = first.cred
            control.put(SOL_SOCKET, SCM_CREDENTIALS, _UCRED.pack(task.vnr(pid), uid, gid))
        if first.fds:
            control.put_fds(first.fds, bool(cloexec))
    if msg.name:
        if min(msg.namelen, len(name)):
            copy_to_user(task, msg.name, name[: msg.namelen])
        put_user(task, address + 8, len(name), 4)
    put_user(task, address + 48, out_flags | control.flags, 4)
    put_user(task, address + 40, msg.controllen - control.left, 8)
    return done


def sys_recvmsg(task: Task, fd: int, address: int, flags: int) -> int:
    """recvmsg(2)."""
    return recv_message(task, sockfd(task, fd), address, flags)


def sys_recvmmsg(task: Task, fd: int, vector: int, count: int, flags: int, timeout: int) -> int:
    """recvmmsg(2): the timeout is looked at after each message, as in Linux."""
    nanoseconds = timespec(task, timeout)
    file = sockfd(task, fd)
    count = min(count & 0xFFFFFFFF, _UIO_MAXIOV)
    now = task.kernel.clock.now
    end = None if nanoseconds is None else task.wait_state.setdefault("end", now + nanoseconds)
    done: int = task.wait_state.get("messages", 0)
    while done < count:
        wait = flags | MSG_DONTWAIT if done and flags & MSG_WAITFORONE else flags
        try:
            got = recv_message(task, file, vector + 64 * done, wait & ~MSG_WAITFORONE)
            put_user(task, vector + 64 * done + 56, got, 4)
        except (Errno, Restart):
            if done:
                return done
            raise
        done += 1
        for key in ("received", "first"):
            task.wait_state.pop(key, None)
        task.wait_state["messages"] = done
        if end is not None and task.kernel.clock.now >= end:
            break
    return done


_INSIDE = (
    "inside the machine: AF_UNIX, AF_NETLINK, and AF_INET and AF_INET6 on an internal loopback; "
    "netlink lists no routes and no traffic"
)
_KEPT = "no socket filters, no multicast; time stamps of a card, busy polling and TCP's timing are kept, not obeyed"
_NO_URGENT = "sockets passed to each other in a cycle are never collected"

CALLS = (
    Call("socket", sys_socket, PARTIAL, _INSIDE),
    Call("socketpair", sys_socketpair, FULL),
    Call("bind", sys_bind, FULL),
    Call("listen", sys_listen, FULL),
    Call("connect", sys_connect, FULL),
    Call("accept", sys_accept, FULL),
    Call("accept4", sys_accept4, FULL),
    Call("getsockname", sys_getsockname, FULL),
    Call("getpeername", sys_getpeername, FULL),
    Call("shutdown", sys_shutdown, FULL),
    Call("setsockopt", sys_setsockopt, PARTIAL, _KEPT),
    Call("getsockopt", sys_getsockopt, PARTIAL, _KEPT),
    Call("sendto", sys_sendto, PARTIAL, _NO_URGENT),
    Call("sendmsg", sys_sendmsg, PARTIAL, _NO_URGENT),
    Call("sendmmsg", sys_sendmmsg, PARTIAL, _NO_URGENT),
    Call("recvfrom", sys_recvfrom, PARTIAL, _NO_URGENT),
    Call("recvmsg", sys_recvmsg, PARTIAL, _NO_URGENT),
    Call("recvmmsg", sys_recvmmsg, PARTIAL, _NO_URGENT),
)
