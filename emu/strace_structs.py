"""How strace writes the structures that system calls take and fill, read from the guest's memory.

Layouts are those of 64-bit Linux; `struct stat`, which differs by architecture, is described in strace_arch_*.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from emu import strace_constants as k
from emu.strace_values import (
    MAX_ELEMENTS,
    Syscall,
    array_text,
    buffer_text,
    flag_text,
    mode_digits,
    quote,
    set_text,
    show_string,
    signal_name,
    signed,
)

CALENDAR = 1 << 40  # seconds: what lies further off has no date
Body = Callable[[Syscall, bytes], str]


def pointed(size: int, body: Body) -> Callable[[Syscall, int], str]:
    """A decoder of a pointer to a structure of `size` bytes, whose contents `body` shows."""

    def show(call: Syscall, value: int) -> str:
        if value == 0:
            return "NULL"
        data = call.read(value, size)
        return hex(value) if data is None else body(call, data)

    return show


def filled(size: int, body: Body) -> Callable[[Syscall, int], str]:
    """As `pointed`, for a structure the call fills: the bare address when it failed."""
    inner = pointed(size, body)

    def show(call: Syscall, value: int) -> str:
        if call.failed:
            return hex(value) if value else "NULL"
        return inner(call, value)

    return show


def mode_text(mode: int) -> str:
    """`S_IFREG|0644`, with set-id and sticky bits by name."""
    parts = []
    kind = mode & 0o170000
    if kind:
        parts.append(k.S_IFMT.get(kind) or f"0{kind:o}")
    for bit, name in ((0o4000, "S_ISUID"), (0o2000, "S_ISGID"), (0o1000, "S_ISVTX")):
        if mode & bit:
            parts.append(name)
    parts.append(mode_digits(mode & 0o777))
    return "|".join(parts)


def stat_body(call: Syscall, data: bytes) -> str:
    """struct stat, abbreviated: mode, then size or device number."""
    mode = call.abi.stat_field(data, "st_mode")
    if mode & 0o170000 in (0o020000, 0o060000):
        rdev = call.abi.stat_field(data, "st_rdev")
        return f"{{st_mode={mode_text(mode)}, st_rdev={device_text(rdev)}, ...}}"
    return f"{{st_mode={mode_text(mode)}, st_size={call.abi.stat_field(data, 'st_size')}, ...}}"


def device_text(dev: int) -> str:
    """`makedev(0x1, 0x3)` of a new-style encoded device number."""
    major = dev >> 8 & 0xFFF | dev >> 32 & ~0xFFF
    minor = dev & 0xFF | dev >> 12 & 0xFFFFFF00
    return f"makedev({hex(major) if major else '0'}, {hex(minor) if minor else '0'})"


def show_stat(call: Syscall, value: int) -> str:
    """The struct stat a stat call filled."""
    return filled(call.abi.STAT_SIZE, stat_body)(call, value)


def statx_body(call: Syscall, data: bytes) -> str:
    """struct statx, abbreviated."""
    mask, _, attributes = struct.unpack_from("<IIQ", data)
    (mode,) = struct.unpack_from("<H", data, 28)
    (size,) = struct.unpack_from("<Q", data, 40)
    rdev = struct.unpack_from("<II", data, 128)
    tail = f"stx_size={size}"
    if mode & 0o170000 in (0o020000, 0o060000):
        tail = f"stx_rdev_major={rdev[0]}, stx_rdev_minor={rdev[1]}, {tail}"
    mask_text = flag_text(mask, k.STATX_MASK, "STATX_???")
    attribute_text = hex(attributes) if attributes else "0"
    return f"{{stx_mask={mask_text}, stx_attributes={attribute_text}, stx_mode={mode_text(mode)}, {tail}, ...}}"


def timespec_body(call: Syscall, data: bytes) -> str:
    """struct timespec."""
    seconds, rest = struct.unpack("<qQ", data)
    if rest == 0x3FFFFFFF:
        return "UTIME_NOW"
    if rest == 0x3FFFFFFE:
        return "UTIME_OMIT"
    return f"{{tv_sec={seconds}, tv_nsec={rest}}}"


def timeval_body(call: Syscall, data: bytes) -> str:
    """struct timeval."""
    return "{{tv_sec={}, tv_usec={}}}".format(*struct.unpack("<qq", data))


def itimerval_body(call: Syscall, data: bytes) -> str:
    """struct itimerval."""
    return f"{{it_interval={timeval_body(call, data[:16])}, it_value={timeval_body(call, data[16:])}}}"


show_timespec = pointed(16, timespec_body)
show_timespec_out = filled(16, timespec_body)
show_timeval_out = filled(16, timeval_body)
show_itimerval = pointed(32, itimerval_body)
show_itimerval_out = filled(32, itimerval_body)


def show_remaining(call: Syscall, value: int) -> str:
    """nanosleep's second argument: filled only when a signal interrupted the sleep."""
    if call.result in (-4, -516):
        return show_timespec(call, value)
    return hex(value) if value else "NULL"


def date_text(seconds: int, nanoseconds: int = 0) -> str:
    """A time of the calendar as strace comments it."""
    from time import gmtime, strftime

    fraction = f".{nanoseconds:09}" if nanoseconds else ""
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)) + fraction + "+0000"


def time_body(call: Syscall, data: bytes) -> str:
    """time_t behind a pointer, with its date."""
    seconds = int.from_bytes(data, "little", signed=True)
    return f"[{seconds} /* {date_text(seconds)} */]" if abs(seconds) < CALENDAR else f"[{seconds}]"


def dated_timespec_body(call: Syscall, data: bytes) -> str:
    """struct timespec that is a date."""
    text = timespec_body(call, data)
    seconds, rest = struct.unpack("<qQ", data)
    if not text.startswith("{") or not 0 < seconds < CALENDAR or rest >= 1_000_000_000:
        return text
    return f"{text} /* {date_text(seconds, rest)} */"


def show_utimes(call: Syscall, value: int) -> str:
    """utimensat's two times."""
    return array_text(call, value, 2, 16, dated_timespec_body)


def dated_timeval_body(call: Syscall, data: bytes) -> str:
    """struct timeval that is a date."""
    seconds, rest = struct.unpack("<qQ", data)
    text = f"{{tv_sec={seconds}, tv_usec={rest}}}"
    if not 0 < seconds < CALENDAR or rest >= 1_000_000:
        return text
    fraction = f".{rest:06}" if rest else ""
    return f"{text} /* {date_text(seconds).replace('+', fraction + '+')} */"


def show_timevals(call: Syscall, value: int) -> str:
    """utimes' two times."""
    return array_text(call, value, 2, 16, dated_timeval_body)


def utimbuf_body(call: Syscall, data: bytes) -> str:
    """struct utimbuf."""
    parts = [f"{at} /* {date_text(at)} */" if 0 < at < CALENDAR else str(at) for at in struct.unpack("<qq", data)]
    return "{{actime={}, modtime={}}}".format(*parts)


def uname_body(call: Syscall, data: bytes) -> str:
    """struct utsname, abbreviated."""
    sysname, nodename = (quote(data[at : at + 65].split(b"\0")[0]) for at in (0, 65))
    return f"{{sysname={sysname}, nodename={nodename}, ...}}"


def limit_text(value: int) -> str:
    """One resource limit, in units of 1024 where it divides."""
    if value == 0xFFFFFFFFFFFFFFFF:
        return "RLIM64_INFINITY"
    if value > 1024 and value % 1024 == 0:
        return f"{value // 1024}*1024"
    return str(value)


def rlimit_body(call: Syscall, data: bytes) -> str:
    """struct rlimit64."""
    soft, hard = struct.unpack("<QQ", data)
    return f"{{rlim_cur={limit_text(soft)}, rlim_max={limit_text(hard)}}}"


def rusage_body(call: Syscall, data: bytes) -> str:
    """struct rusage, abbreviated."""
    return f"{{ru_utime={timeval_body(call, data[:16])}, ru_stime={timeval_body(call, data[16:32])}, ...}}"


def itimerspec_body(call: Syscall, data: bytes) -> str:
    """struct itimerspec."""
    return f"{{it_interval={timespec_body(call, data[:16])}, it_value={timespec_body(call, data[16:32])}}}"


def sysinfo_body(call: Syscall, data: bytes) -> str:
    """struct sysinfo."""
    words = struct.unpack_from("<q3Q6Q", data)
    (procs,) = struct.unpack_from("<H", data, 80)
    high = struct.unpack_from("<QQI", data, 88)
    names = ["totalram", "freeram", "sharedram", "bufferram", "totalswap", "freeswap"]
    middle = ", ".join(f"{name}={value}" for name, value in zip(names, words[4:], strict=True))
    loads = ", ".join(map(str, words[1:4]))
    return (
        f"{{uptime={words[0]}, loads=[{loads}], {middle}, procs={procs}, "
        f"totalhigh={high[0]}, freehigh={high[1]}, mem_unit={high[2]}}}"
    )


def statfs_body(call: Syscall, data: bytes) -> str:
    """struct statfs."""
    kind, bsize, blocks, bfree, bavail, files, ffree, fsid0, fsid1, namelen, frsize, bits = struct.unpack_from(
        "<7Q2I3Q", data
    )
    type_text = k.FS_TYPES.get(kind) or hex(kind)
    flags_text = flag_text(bits, k.ST_FLAGS, "ST_???")
    fsid = ", ".join(hex(part) if part else "0" for part in (fsid0, fsid1))
    return (
        f"{{f_type={type_text}, f_bsize={bsize}, f_blocks={blocks}, f_bfree={bfree}, f_bavail={bavail}, "
        f"f_files={files}, f_ffree={ffree}, f_fsid={{val=[{fsid}]}}, f_namelen={namelen}, f_frsize={frsize}, "
        f"f_flags={flags_text}}}"
    )


def sigaction_body(call: Syscall, data: bytes) -> str:
    """struct sigaction as the kernel takes it: handler, flags, restorer, mask."""
    handler, bits, restorer, mask = struct.unpack("<4Q", data)
    handler_text = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler) or hex(handler)
    text = f"{{sa_handler={handler_text}, sa_mask={set_text(mask)}, sa_flags={flag_text(bits, k.SA_FLAGS, 'SA_???')}"
    if bits & 0x04000000:
        text += f", sa_restorer={hex(restorer) if restorer else 'NULL'}"
    return text + "}"


def sigaltstack_body(call: Syscall, data: bytes) -> str:
    """stack_t."""
    address, bits, _, size = struct.unpack("<QIIQ", data)
    base = hex(address) if address else "NULL"
    return f"{{ss_sp={base}, ss_flags={flag_text(bits, k.SS_FLAGS, 'SS_???')}, ss_size={size}}}"


def show_wait_status(call: Syscall, value: int) -> str:
    """The int wait4 filled, taken apart as the macros do; the address when nobody was reaped."""
    if value == 0:
        return "NULL"
    data = call.read(value, 4) if call.result is not None and call.result > 0 else None
    if data is None:
        return hex(value)
    return f"[{wait_status_text(int.from_bytes(data, 'little'))}]"


def wait_status_text(status: int) -> str:
    """`{WIFEXITED(s) && WEXITSTATUS(s) == 3}`."""
    low = status & 0x7F
    if status == 0xFFFF:
        return "{WIFCONTINUED(s)}"
    if status & 0xFF == 0x7F:
        return f"{{WIFSTOPPED(s) && WSTOPSIG(s) == {signal_name(status >> 8 & 0xFF)}}}"
    if low:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        return f"{{WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(low)}{core}}}"
    return f"{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}"


def show_reaped_rusage(call: Syscall, value: int) -> str:
    """wait4's rusage: filled only when a child was reaped."""
    if value and (call.result or 0) <= 0:
        return hex(value)
    return pointed(144, rusage_body)(call, value)


def iovec(limited: bool) -> Callable[[Syscall, int], str]:
    """struct iovec array, its length in the next argument; `limited`: the call filled as many bytes as it returned."""

    def show(call: Syscall, value: int) -> str:
        left = None if limited and call.failed else (call.result or 0) if limited else 1 << 62
        return vector_text(call, value, call.args[2], left)

    return show


def vector_text(call: Syscall, address: int, count: int, left: int | None) -> str:
    """`count` struct iovec with what is in their buffers, `left` bytes in all; None: addresses only."""

    def element(call: Syscall, data: bytes) -> str:
        nonlocal left
        base, size = struct.unpack("<QQ", data)
        if left is None:
            return f"{{iov_base={hex(base) if base else 'NULL'}, iov_len={size}}}"
        take = min(size, left)
        left -= take
        return f"{{iov_base={buffer_text(call, base, take)}, iov_len={size}}}"

    return array_text(call, address, count, 16, element)


def pollfd_body(call: Syscall, data: bytes) -> str:
    """struct pollfd on the way in; a negative descriptor is only its number."""
    fd, events, _ = struct.unpack("<iHH", data)
    if fd < 0:
        return f"{{fd={fd}}}"
    return f"{{fd={fd}, events={flag_text(events, k.POLL, 'POLL???')}}}"


def show_pollfds(call: Syscall, value: int) -> str:
    """poll's array."""
    return array_text(call, value, signed(call.args[1]), 8, pollfd_body)


def poll_result(call: Syscall) -> str:
    """poll's answer: the descriptors with something to report."""
    if call.result == 0:
        return "0 (Timeout)"
    ready = []
    for index in range(min(call.args[1], 1024)):
        data = call.read(call.args[0] + 8 * index, 8)
        if data is None:
            break
        fd, _, revents = struct.unpack("<iHH", data)
        if revents and fd >= 0:
            ready.append(f"{{fd={fd}, revents={flag_text(revents, k.POLL, 'POLL???')}}}")
    left = call.read(call.args[2], 16) if call.name == "ppoll" and call.args[2] else None
    tail = "" if left is None else f", left {timespec_body(call, left)}"
    return f"{call.result} ([{', '.join(ready)}]{tail})"


def fd_set_members(call: Syscall, address: int) -> list[int] | None:
    """Descriptors in a select set, as many as argument 0 says; None when it cannot be read."""
    count = max(0, min(signed(call.args[0]), 1024))
    data = call.read(address, (count + 63) // 64 * 8)
    if data is None:
        return None
    bits = int.from_bytes(data, "little")
    return [fd for fd in range(count) if bits >> fd & 1]


def show_fd_set(call: Syscall, value: int) -> str:
    """A select set on the way in."""
    if value == 0:
        return "NULL"
    members = fd_set_members(call, value) if signed(call.args[0]) >= 0 else None
    return hex(value) if members is None else f"[{' '.join(map(str, members))}]"


def select_result(call: Syscall) -> str:
    """select's answer: what is left in each set, and of the time."""
    if call.result == 0:
        return "0 (Timeout)"
    parts = []
    for label, address in zip(("in", "out", "except"), call.args[1:4], strict=True):
        members = fd_set_members(call, address) if address else None
        if members:
            parts.append(f"{label} [{' '.join(map(str, members))}]")
    if call.args[4]:
        data = call.read(call.args[4], 16)
        if data is not None:
            body: Body = timeval_body if call.name == "select" else timespec_body
            parts.append(f"left {body(call, data)}")
    return f"{call.result} ({', '.join(parts)})"


def winsize_body(call: Syscall, data: bytes) -> str:
    """struct winsize."""
    return "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}".format(*struct.unpack("<4H", data))


def flock_body(call: Syscall, data: bytes) -> str:
    """struct flock."""
    kind, whence, start, length, pid = struct.unpack("<hh4xqqi4x", data)
    text = (
        f"{{l_type={k.LOCKS.get(kind, kind)}, l_whence={k.WHENCE.get(whence, whence)}, l_start={start}, l_len={length}"
    )
    return text + (f", l_pid={pid}}}" if call.args[1] in (5, 36) and not call.failed else "}")


def int_pair_body(call: Syscall, data: bytes) -> str:
    """int[2], as pipe and socketpair fill."""
    return "[{}, {}]".format(*struct.unpack("<ii", data))


def int_body(call: Syscall, data: bytes) -> str:
    """One int behind a pointer."""
    return f"[{int.from_bytes(data, 'little', signed=True)}]"


def show_residence(call: Syscall, value: int) -> str:
    """mincore's vector, one entry a page."""
    if call.failed:
        return hex(value) if value else "NULL"
    pages = -(-call.args[1] // call.page_size)
    return array_text(call, value, pages, 1, lambda call, data: str(data[0] & 1))


def show_string_array(call: Syscall, value: int) -> str:
    """execve's argv."""
    if value == 0:
        return "NULL"
    pointers = pointer_array(call, value)
    if pointers is None:
        return hex(value)
    shown = [show_string(call, pointer) for pointer in pointers[:MAX_ELEMENTS]]
    return f"[{', '.join(shown + ['...'] * (len(pointers) > MAX_ELEMENTS))}]"


def show_environment(call: Syscall, value: int) -> str:
    """execve's envp: its address and how many."""
    if value == 0:
        return "NULL"
    pointers = pointer_array(call, value)
    if pointers is None:
        return hex(value)
    return f"{value:#x} /* {len(pointers)} var{'' if len(pointers) == 1 else 's'} */"


def pointer_array(call: Syscall, address: int) -> list[int] | None:
    """The words at `address` up to a zero; None when they cannot be read."""
    found: list[int] = []
    while len(found) < 0x10000:
        data = call.read(address + 8 * len(found), 8)
        if data is None:
            return None
        word = int.from_bytes(data, "little")
        if word == 0:
            break
        found.append(word)
    return found


def dirent_count(call: Syscall, value: int) -> str:
    """getdents64's buffer: its address and how many entries came."""
    if call.failed or not call.result:
        return f"{value:#x} /* 0 entries */" if call.result == 0 else hex(value)
    data = call.read(value, call.result)
    if data is None:
        return hex(value)
    count = at = 0
    while at + 18 < len(data):
        at += max(18, int.from_bytes(data[at + 16 : at + 18], "little"))
        count += 1
    return f"{value:#x} /* {count} entr{'y' if count == 1 else 'ies'} */"
