"""strace's decoders of asynchronous I/O: struct iocb, struct io_event, and perf_event_open's attributes in short."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu import strace_constants as k
from emu import strace_structs as s
from emu.strace_values import (
    Out,
    Params,
    Syscall,
    array_text,
    buffer_text,
    flag_text,
    flags,
    show_hex,
    show_int,
    show_long,
    show_pointer,
    show_unsigned,
    signed,
    sigset_text,
)

if TYPE_CHECKING:
    from emu.strace_values import Show

COMMANDS = {
    0: "PREAD", 1: "PWRITE", 2: "FSYNC", 3: "FDSYNC", 4: "PREADX", 5: "POLL", 6: "NOOP", 7: "PREADV", 8: "PWRITEV",
}  # fmt: skip
PREAD, PWRITE, POLL, PREADV, PWRITEV = 0, 1, 5, 7, 8
RWF = {1: "RWF_HIPRI", 2: "RWF_DSYNC", 4: "RWF_SYNC", 8: "RWF_NOWAIT", 16: "RWF_APPEND"}
IOCB_FLAGS = {1: "IOCB_FLAG_RESFD", 2: "IOCB_FLAG_IOPRIO"}
CLASSES = {0: "IOPRIO_CLASS_NONE", 1: "IOPRIO_CLASS_RT", 2: "IOPRIO_CLASS_BE", 3: "IOPRIO_CLASS_IDLE"}
PERF_TYPES = {0: "HARDWARE", 1: "SOFTWARE", 2: "TRACEPOINT", 3: "HW_CACHE", 4: "RAW", 5: "BREAKPOINT"}
PERF_SOFTWARE = [
    "CPU_CLOCK", "TASK_CLOCK", "PAGE_FAULTS", "CONTEXT_SWITCHES", "CPU_MIGRATIONS", "PAGE_FAULTS_MIN",
    "PAGE_FAULTS_MAJ", "ALIGNMENT_FAULTS", "EMULATION_FAULTS", "DUMMY", "BPF_OUTPUT",
]  # fmt: skip
PERF_FORMATS = {
    1: "PERF_FORMAT_TOTAL_TIME_ENABLED", 2: "PERF_FORMAT_TOTAL_TIME_RUNNING", 4: "PERF_FORMAT_ID",
    8: "PERF_FORMAT_GROUP", 16: "PERF_FORMAT_LOST",
}  # fmt: skip
PERF_BITS = [
    "disabled", "inherit", "pinned", "exclusive", "exclude_user", "exclude_kernel", "exclude_hv", "exclude_idle",
    "mmap", "comm", "freq", "inherit_stat", "enable_on_exec", "task", "watermark",
]  # fmt: skip
SKIDS = ["arbitrary skid", "constant skid", "requested to have 0 skid", "must have 0 skid"]
PERF_SIZES = {64: 0, 72: 1, 80: 2, 96: 3, 104: 4, 112: 5, 120: 6}
PERF_FLAGS = {
    1: "PERF_FLAG_FD_NO_GROUP", 2: "PERF_FLAG_FD_OUTPUT", 4: "PERF_FLAG_PID_CGROUP", 8: "PERF_FLAG_FD_CLOEXEC",
}  # fmt: skip
_IOCB = struct.Struct("<QIIHhIQQqQII")


def _head(data: bytes) -> tuple[list[str], tuple[int, ...]]:
    """What every request has, as text, and its fields."""
    fields = _IOCB.unpack(data)
    number, key, rw_flags, opcode, prio, fd = fields[:6]
    parts = [f"aio_data={number:#x}" if number else "aio_data=0"]
    if key:
        parts.append(f"aio_key={key}")
    if rw_flags:
        parts.append(f"aio_rw_flags={flag_text(rw_flags, RWF, 'RWF_???')}")
    name = COMMANDS.get(opcode)
    parts.append(f"aio_lio_opcode=IOCB_CMD_{name}" if name else f"aio_lio_opcode={opcode} /* IOCB_CMD_??? */")
    if prio:
        kind, level = prio >> 13 & 7, prio & 0x1FFF
        parts.append(
            f"aio_reqprio=IOPRIO_PRIO_VALUE({CLASSES.get(kind, f'{kind:#x} /* IOPRIO_CLASS_??? */')}, {level})"
        )
    parts.append(f"aio_fildes={signed(fd)}")
    return parts, fields


def iocb_text(call: Syscall, data: bytes) -> str:
    """A request that is submitted."""
    parts, (*_, opcode, _prio, _fd, buffer, length, offset, _reserved, flag_bits, resfd) = _head(data)
    if opcode in (PREADV, PWRITEV):
        vector = s.vector_text(call, buffer, length, 1 << 62 if opcode == PWRITEV else None)
        parts += [f"aio_buf={vector}", f"aio_offset={offset}"]
    elif opcode in (PREAD, PWRITE):
        shown = buffer_text(call, buffer, length) if opcode == PWRITE else show_pointer(call, buffer)
        parts += [f"aio_buf={shown}", f"aio_nbytes={length}", f"aio_offset={offset}"]
    elif opcode == POLL:
        parts.append(f"aio_buf={flag_text(buffer, k.POLL, 'POLL???')}")
    if flag_bits and opcode in (PREAD, PWRITE, PREADV, PWRITEV, POLL):
        parts.append(f"aio_flags={flag_text(flag_bits, IOCB_FLAGS, 'IOCB_FLAG_???')}")
        if flag_bits & 1:
            parts.append(f"aio_resfd={signed(resfd)}")
    return f"{{{', '.join(parts)}}}"


def iocb_pointer(call: Syscall, data: bytes) -> str:
    """An element of io_submit's list."""
    address = int.from_bytes(data, "little")
    return s.pointed(_IOCB.size, iocb_text)(call, address)


def event_text(call: Syscall, data: bytes) -> str:
    """struct io_event."""
    number, obj, res, res2 = struct.unpack("<QQqq", data)
    return f"{{data={show_hex(call, number)}, obj={show_hex(call, obj)}, res={res}, res2={res2}}}"


def show_events(call: Syscall, value: int) -> str:
    """The events io_getevents took."""
    if call.failed or call.result is None:
        return show_pointer(call, value)
    return array_text(call, value, call.result, 32, event_text)


def show_iocbs(call: Syscall, value: int) -> str:
    """io_submit's list."""
    return array_text(call, value, signed(call.args[1], 64), 8, iocb_pointer)


def context_body(call: Syscall, data: bytes) -> str:
    """The number of a new context."""
    return f"[{int.from_bytes(data, 'little'):#x}]"


def sigset_body(call: Syscall, data: bytes) -> str:
    """struct __aio_sigset."""
    mask, size = struct.unpack("<QQ", data)
    return f"{{sigmask={sigset_text(call, mask, size)}, sigsetsize={size}}}"


def perf_attr_body(call: Syscall, data: bytes) -> str:
    """struct perf_event_attr as strace abbreviates it."""
    kind, size, config, period, samples, form, bits = struct.unpack_from("<IIQQQQQ", data)
    name = f"PERF_TYPE_{PERF_TYPES[kind]}" if kind in PERF_TYPES else f"{kind:#x} /* PERF_TYPE_??? */"
    length = f"PERF_ATTR_SIZE_VER{PERF_SIZES[size]}" if size in PERF_SIZES else f"{size} /* PERF_ATTR_SIZE_??? */"
    what = show_hex(call, config)
    if kind == 1 and config < len(PERF_SOFTWARE):
        what = f"PERF_COUNT_SW_{PERF_SOFTWARE[config]}"
    rate = "sample_freq" if bits >> 10 & 1 else "sample_period"
    format_text = flag_text(form, PERF_FORMATS, "PERF_FORMAT_???")
    marks = "".join(f" {mark}=1," for bit, mark in enumerate(PERF_BITS) if bits >> bit & 1)
    skid = bits >> 15 & 3
    return (
        f"{{type={name}, size={length}, config={what}, {rate}={period}, sample_type={show_hex(call, samples)},"
        f" read_format={format_text},{marks} precise_ip={skid} /* {SKIDS[skid]} */, ...}}"
    )


LONG: Show = show_long
TIMESPEC = s.show_timespec
AIO_CALLS: dict[str, Params] = {
    "io_setup": (show_unsigned, Out(s.filled(8, context_body))),
    "io_destroy": (show_pointer,),
    "io_submit": (show_pointer, LONG, show_iocbs),
    "io_cancel": (show_pointer, s.pointed(_IOCB.size, lambda call, data: f"{{{', '.join(_head(data)[0])}}}"),
                  Out(s.filled(32, event_text))),
    "io_getevents": (show_pointer, LONG, LONG, Out(show_events), TIMESPEC),
    "io_pgetevents": (show_pointer, LONG, LONG, Out(show_events), TIMESPEC, s.pointed(16, sigset_body)),
    "perf_event_open": (s.pointed(56, perf_attr_body), show_int, show_int, show_int,
                        flags(PERF_FLAGS, "PERF_FLAG_???", bits=64)),
}  # fmt: skip
