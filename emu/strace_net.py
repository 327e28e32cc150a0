"""strace's table of sockets: addresses, messages, options."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu import strace_constants as k
from emu import strace_structs as s
from emu.strace_values import (
    Out,
    Params,
    Show,
    Syscall,
    buffer_of,
    buffer_text,
    choice,
    flag_text,
    flags,
    quote,
    show_fd,
    show_filled,
    show_int,
    show_pointer,
    show_size,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS = {
    0: "IPPROTO_IP",
    1: "IPPROTO_ICMP",
    2: "IPPROTO_IGMP",
    6: "IPPROTO_TCP",
    17: "IPPROTO_UDP",
    41: "IPPROTO_IPV6",
    58: "IPPROTO_ICMPV6",
    132: "IPPROTO_SCTP",
    136: "IPPROTO_UDPLITE",
    255: "IPPROTO_RAW",
}
MSG = {
    0x1: "MSG_OOB",
    0x2: "MSG_PEEK",
    0x4: "MSG_DONTROUTE",
    0x8: "MSG_CTRUNC",
    0x10: "MSG_PROBE",
    0x20: "MSG_TRUNC",
    0x40: "MSG_DONTWAIT",
    0x80: "MSG_EOR",
    0x100: "MSG_WAITALL",
    0x200: "MSG_FIN",
    0x400: "MSG_SYN",
    0x800: "MSG_CONFIRM",
    0x1000: "MSG_RST",
    0x2000: "MSG_ERRQUEUE",
    0x4000: "MSG_NOSIGNAL",
    0x8000: "MSG_MORE",
    0x10000: "MSG_WAITFORONE",
    0x40000: "MSG_BATCH",
    0x20000000: "MSG_FASTOPEN",
    0x40000000: "MSG_CMSG_CLOEXEC",
}
LEVELS = {0: "SOL_IP", 1: "SOL_SOCKET", 6: "SOL_TCP", 17: "SOL_UDP", 41: "SOL_IPV6", 58: "SOL_ICMPV6", 255: "SOL_RAW"}
SO_NAMES = (
    "SO_DEBUG SO_REUSEADDR SO_TYPE SO_ERROR SO_DONTROUTE SO_BROADCAST SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE "
    "SO_NO_CHECK SO_PRIORITY SO_LINGER SO_BSDCOMPAT SO_REUSEPORT SO_PASSCRED SO_PEERCRED SO_RCVLOWAT SO_SNDLOWAT "
    "SO_RCVTIMEO_OLD SO_SNDTIMEO_OLD"
)
TCP_NAMES = (
    "TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT "
    "TCP_WINDOW_CLAMP TCP_INFO TCP_QUICKACK TCP_CONGESTION"
)
OPTIONS = {
    0: {1: "IP_TOS", 2: "IP_TTL", 10: "IP_MTU_DISCOVER", 11: "IP_RECVERR"},
    1: {
        **dict(enumerate(SO_NAMES.split(), 1)),
        30: "SO_ACCEPTCONN",
        31: "SO_PEERSEC",
        32: "SO_SNDBUFFORCE",
        33: "SO_RCVBUFFORCE",
        34: "SO_PASSSEC",
        38: "SO_PROTOCOL",
        39: "SO_DOMAIN",
    },
    6: dict(enumerate(TCP_NAMES.split(), 1)),
    41: {26: "IPV6_V6ONLY", 16: "IPV6_UNICAST_HOPS", 25: "IPV6_RECVERR", 67: "IPV6_TCLASS"},
}
SO_LINGER, SO_PEERCRED, SO_TIMEOUTS = 13, 17, (20, 21)
SHUTDOWN = {0: "SHUT_RD", 1: "SHUT_WR", 2: "SHUT_RDWR"}
MSGHDR = "<QI4xQQQQI4x"  # struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
MSGHDR_SIZE = struct.calcsize(MSGHDR)


def address_text(call: Syscall, address: int, length: int) -> str:
    """A socket address of `length` bytes."""
    if address == 0:
        return "NULL"
    data = call.read(address, min(length, 128))
    if data is None or len(data) < 2:
        return hex(address)
    family = int.from_bytes(data[:2], "little")
    start = f"{{sa_family={k.AF.get(family) or f'{family:#x} /* AF_??? */'}"
    rest = data[2:]
    if not rest:
        return start + "}"
    if family == 1:
        if rest[0] == 0 and len(rest) > 1:
            return f"{start}, sun_path=@{quote(rest[1:])}}}"
        return f"{start}, sun_path={quote(rest.split(bytes(1))[0])}}}"
    if family == 2 and len(data) >= 16:
        dotted = ".".join(map(str, data[4:8]))
        return f'{start}, sin_port=htons({int.from_bytes(data[2:4], "big")}), sin_addr=inet_addr("{dotted}")}}'
    if family == 10 and len(data) >= 28:
        from ipaddress import IPv6Address

        port, flow = struct.unpack_from(">HI", data, 2)
        scope = int.from_bytes(data[24:28], "little")
        return (
            f"{start}, sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{IPv6Address(data[8:24])}", &sin6_addr), sin6_scope_id={scope}}}'
        )
    if family == 16 and len(data) >= 12:
        pid, groups = struct.unpack_from("<II", data, 4)
        return f"{start}, nl_pid={pid}, nl_groups={f'{groups:#010x}' if groups else '00000000'}}}"
    return f"{start}, sa_data={quote(rest)}}}"


def sockaddr(index: int) -> Show:
    """A socket address the caller gives; its length is argument `index`."""
    return lambda call, value: address_text(call, value, call.args[index] & 0xFFFFFFFF)


def length_of(call: Syscall, address: int) -> int | None:
    """The int behind a pointer to a length."""
    data = call.read(address, 4) if address else None
    return None if data is None else int.from_bytes(data, "little", signed=True)


def with_address(first: int, at: int, tail: Params = ()) -> Callable[[Syscall], list[str]]:
    """Calls that fill an address: `first` arguments as a table says, then the address and its length at `at`."""

    def show(call: Syscall) -> list[str]:
        if call.result is None:
            call.kept = length_of(call, call.args[at + 1])
        shown = [str(show_fd(call, call.args[0]))][:first]
        if call.name == "recvfrom":
            shown = [shown[0], *RECVFROM(call)]
        before, after = call.kept, length_of(call, call.args[at + 1])
        if call.failed or call.result is None or after is None or before is None:
            shown.append(show_pointer(call, call.args[at]))
            shown.append(show_pointer(call, call.args[at + 1]) if before is None else f"[{before}]")
        else:
            shown.append(address_text(call, call.args[at], min(after, before)))
            shown.append(f"[{before} => {after}]" if before != after else f"[{after}]")
        shown += [str(show(call, call.args[at + 2])) for show in tail if not isinstance(show, Out)]
        return shown

    return show


def RECVFROM(call: Syscall) -> list[str]:  # read as a constant of the table
    """recvfrom's arguments between descriptor and address."""
    return [show_filled(call, call.args[1]), str(call.args[2]), flag_text(call.args[3] & 0xFFFFFFFF, MSG, "MSG_???")]


def message(filled: bool) -> Show:
    """struct msghdr; `filled`: by the call, as far as it returned bytes."""

    def show(call: Syscall, value: int) -> str:
        data = call.read(value, MSGHDR_SIZE) if value else None
        if data is None:
            return show_pointer(call, value)
        name, length, vector, count, control, control_length, bits = struct.unpack(MSGHDR, data)
        if filled and call.failed:
            return f"{{msg_namelen={length}}}"
        limit = (call.result or 0) if filled else 1 << 62
        parts = [f"msg_name={address_text(call, name, length)}", f"msg_namelen={length}"]
        parts += [f"msg_iov={s.vector_text(call, vector, count, limit)}", f"msg_iovlen={count}"]
        if control_length:
            parts.append(f"msg_control={control_text(call, control, control_length)}")
        parts += [f"msg_controllen={control_length}", f"msg_flags={flag_text(bits, MSG, 'MSG_???')}"]
        return f"{{{', '.join(parts)}}}"

    return show


def control_text(call: Syscall, address: int, length: int) -> str:
    """Control messages: descriptors and credentials by name, others by length, level and type."""
    data = call.read(address, min(length, 4096))
    if data is None:
        return show_pointer(call, address)
    parts, at = [], 0
    while at + 16 <= len(data):
        size, level, kind = struct.unpack_from("<Qii", data, at)
        if size < 16 or at + size > len(data):
            break
        body = data[at + 16 : at + size]
        name = {1: "SCM_RIGHTS", 2: "SCM_CREDENTIALS"}.get(kind, hex(kind)) if level == 1 else hex(kind)
        text = f"cmsg_len={size}, cmsg_level={LEVELS.get(level, hex(level))}, cmsg_type={name}"
        if name == "SCM_RIGHTS":
            descriptors = struct.unpack(f"<{len(body) // 4}i", body[: len(body) // 4 * 4])
            text += f", cmsg_data=[{', '.join(map(str, descriptors))}]"
        elif name == "SCM_CREDENTIALS" and len(body) >= 12:
            text += ", cmsg_data={{pid={}, uid={}, gid={}}}".format(*struct.unpack_from("<iII", body))
        parts.append(f"{{{text}}}")
        at += (size + 7) & ~7
    return f"[{', '.join(parts)}]"


def show_option(call: Syscall, value: int) -> str:
    """The name of an option, by its level."""
    names = OPTIONS.get(signed(call.args[1]))
    if names is None:
        return str(value & 0xFFFFFFFF)
    prefix = LEVELS[signed(call.args[1])].replace("SOL_SOCKET", "SO").replace("SOL_", "")
    return names.get(value & 0xFFFFFFFF) or f"{value & 0xFFFFFFFF:#x} /* {prefix}_??? */"


def option_value(call: Syscall, value: int, length: int) -> str:
    """What an option is set to."""
    level, option = signed(call.args[1]), signed(call.args[2])
    if level == 1 and option == SO_LINGER and length >= 8:
        return s.pointed(8, lambda call, data: "{{l_onoff={}, l_linger={}}}".format(*struct.unpack("<ii", data)))(
            call, value
        )
    if level == 1 and option == SO_PEERCRED and length >= 12:
        body = s.pointed(12, lambda call, data: "{{pid={}, uid={}, gid={}}}".format(*struct.unpack("<iII", data)))
        return body(call, value)
    if level == 1 and option in SO_TIMEOUTS and length >= 16:
        return s.pointed(16, s.timeval_body)(call, value)
    if length == 4:
        return s.pointed(4, s.int_body)(call, value)
    return buffer_text(call, value, length) if 0 < length <= 4096 else show_pointer(call, value)


def set_option(call: Syscall, value: int) -> str:
    """setsockopt's value."""
    return option_value(call, value, signed(call.args[4]))


def get_option(call: Syscall) -> list[str]:
    """getsockopt: the value and its length when it comes back."""
    if call.result is None:
        call.kept = length_of(call, call.args[4])
    shown = [show_fd(call, call.args[0]), LEVEL(call, call.args[1]) or "", show_option(call, call.args[2])]
    before, after = call.kept, length_of(call, call.args[4])
    if call.failed or call.result is None or before is None or after is None:
        return [*shown, show_pointer(call, call.args[3]), "NULL" if not call.args[4] else f"[{before}]"]
    length = f"[{before} => {after}]" if before != after else f"[{after}]"
    return [*shown, option_value(call, call.args[3], after), length]


def show_protocol(call: Syscall, value: int) -> str:
    """socket's protocol, which has a name for the Internet's families only."""
    if signed(call.args[0]) in (2, 10):
        return PROTOCOLS.get(value & 0xFFFFFFFF) or f"{value & 0xFFFFFFFF:#x} /* IPPROTO_??? */"
    return str(value & 0xFFFFFFFF)


def show_type(call: Syscall, value: int) -> str:
    """SOCK_STREAM and its flags."""
    name = k.SOCK.get(value & 0xF) or f"{value & 0xF:#x} /* SOCK_??? */"
    rest = value & 0xFFFFFFFF & ~0xF
    return f"{name}|{flag_text(rest, k.SOCK_FLAGS, 'SOCK_???')}" if rest else name


FAMILY = choice(k.AF, "AF_???")
MESSAGE_FLAGS = flags(MSG, "MSG_???")
LEVEL = choice(LEVELS, "SOL_??")
NEW_FLAGS = flags(k.SOCK_FLAGS, "SOCK_???")

NET_CALLS: dict[str, Params] = {
    "socket": (FAMILY, show_type, show_protocol),
    "socketpair": (FAMILY, show_type, show_protocol, Out(s.filled(8, s.int_pair_body))),
    "connect": (show_fd, sockaddr(2), show_int),
    "bind": (show_fd, sockaddr(2), show_int),
    "listen": (show_fd, show_int),
    "shutdown": (show_fd, choice(SHUTDOWN, "SHUT_???")),
    "sendto": (show_fd, buffer_of(2), show_size, MESSAGE_FLAGS, sockaddr(5), show_int),
    "sendmsg": (show_fd, message(False), MESSAGE_FLAGS),
    "recvmsg": (show_fd, Out(message(True)), MESSAGE_FLAGS),
    "setsockopt": (show_fd, LEVEL, show_option, set_option, show_int),
}
# As strace_calls.SPECIAL: how many parts are known on entry, and the function that gives them all.
NET_SPECIAL: dict[str, tuple[int, Callable[[Syscall], list[str]]]] = {
    "accept": (1, with_address(1, 1)),
    "accept4": (1, with_address(1, 1, (NEW_FLAGS,))),
    "getsockname": (1, with_address(1, 1)),
    "getpeername": (1, with_address(1, 1)),
    "recvfrom": (1, with_address(1, 4)),
    "getsockopt": (3, get_option),
}
