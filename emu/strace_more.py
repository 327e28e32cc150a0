"""More of strace's table: scheduling, capabilities, shared memory, timers, policies, epoll, and what else is rarer."""

from __future__ import annotations

import struct
from errno import errorcode
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from emu import strace_constants as k
from emu import strace_structs as s
from emu.strace_aio import AIO_CALLS
from emu.strace_mount import MOUNT_CALLS
from emu.strace_net import NET_CALLS
from emu.strace_rare import MEMBARRIER_FLAGS, RARE_CALLS
from emu.strace_values import (
    Out,
    Params,
    Show,
    Syscall,
    array_text,
    choice,
    flag_text,
    flags,
    show_dirfd,
    show_fd,
    show_hex,
    show_id,
    show_int,
    show_long,
    show_octal,
    show_path,
    show_pointer,
    show_signal,
    show_sigset,
    show_size,
    show_string,
    show_unsigned,
    signal_name,
    signed,
    sized_sigset,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAP_NAMES = {1 << bit: f"1<<CAP_{name}" for bit, name in enumerate(CAPABILITIES.split(" "))}
NGROUPS_MAX = 65536
SCHED = {0: "SCHED_OTHER", 1: "SCHED_FIFO", 2: "SCHED_RR", 3: "SCHED_BATCH", 5: "SCHED_IDLE", 6: "SCHED_DEADLINE"}
PRIO = {0: "PRIO_PROCESS", 1: "PRIO_PGRP", 2: "PRIO_USER"}
IPC_COMMANDS = {0: "IPC_RMID", 1: "IPC_SET", 2: "IPC_STAT", 3: "IPC_INFO", 11: "SHM_LOCK", 12: "SHM_UNLOCK"}
IPC_FLAGS = {0o1000: "IPC_CREAT", 0o2000: "IPC_EXCL", 0o4000: "SHM_HUGETLB", 0o10000: "SHM_NORESERVE"}
SHM_FLAGS = {0o10000: "SHM_RDONLY", 0o20000: "SHM_RND", 0o40000: "SHM_REMAP", 0o100000: "SHM_EXEC"}
MEMBARRIER = {
    0: "MEMBARRIER_CMD_QUERY",
    1: "MEMBARRIER_CMD_GLOBAL",
    2: "MEMBARRIER_CMD_GLOBAL_EXPEDITED",
    4: "MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED",
    8: "MEMBARRIER_CMD_PRIVATE_EXPEDITED",
    16: "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED",
    32: "MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE",
    64: "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE",
    128: "MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ",
    256: "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ",
}
SIGEV = {0: "SIGEV_SIGNAL", 1: "SIGEV_NONE", 2: "SIGEV_THREAD", 4: "SIGEV_THREAD_ID"}
EPOLL_OPS = {1: "EPOLL_CTL_ADD", 2: "EPOLL_CTL_DEL", 3: "EPOLL_CTL_MOD"}
EPOLL = {
    1: "EPOLLIN",
    2: "EPOLLPRI",
    4: "EPOLLOUT",
    8: "EPOLLERR",
    0x10: "EPOLLHUP",
    0x2000: "EPOLLRDHUP",
    0x40000000: "EPOLLONESHOT",
    0x80000000: "EPOLLET",
}
EVENTFD = {1: "EFD_SEMAPHORE", 0x80000: "EFD_CLOEXEC", 0x800: "EFD_NONBLOCK"}
EPOLL_CREATE = {0x80000: "EPOLL_CLOEXEC"}
SPLICE = {1: "SPLICE_F_MOVE", 2: "SPLICE_F_NONBLOCK", 4: "SPLICE_F_MORE", 8: "SPLICE_F_GIFT"}
RWF = {1: "RWF_HIPRI", 2: "RWF_DSYNC", 4: "RWF_SYNC", 8: "RWF_NOWAIT", 16: "RWF_APPEND"}
SYNC_RANGE = {1: "SYNC_FILE_RANGE_WAIT_BEFORE", 2: "SYNC_FILE_RANGE_WRITE", 4: "SYNC_FILE_RANGE_WAIT_AFTER"}


def siginfo_fields(info: Any) -> list[str]:
    """The fields of siginfo_t that a signal's layout has, as `name=value`; `info` has what SignalDeliver has."""
    signal, code = info.signal, info.code
    codes = k.SI_CODES_OF.get(signal, ())
    if code in k.SI_CODES:
        code_text = k.SI_CODES[code]
    else:
        code_text = codes[code - 1] if 0 < code <= len(codes) else hex(code)
    fields = [f"si_signo={signal_name(signal)}", f"si_code={code_text}"]
    if getattr(info, "errno", 0):
        fields.append(f"si_errno={errorcode.get(info.errno, info.errno)}")
    if code <= 0:
        fields += [f"si_pid={info.sender}", f"si_uid={info.uid}"]
    elif signal == 17:
        status = info.status if code == 1 else signal_name(info.status)
        fields += [f"si_pid={info.sender}", f"si_uid={info.uid}", f"si_status={status}"]
        fields += ["si_utime=0", "si_stime=0"]  # clock ticks: none pass in a run of virtual milliseconds
    elif signal in (4, 7, 8, 11):
        fields.append(f"si_addr={hex(info.address) if info.address else 'NULL'}")
    return fields


def siginfo_body(call: Syscall, data: bytes) -> str:
    """siginfo_t in memory; all zero when waitid found nobody."""
    signal, errno, code = struct.unpack_from("<iii", data)
    if signal == 0:
        return "{}"
    pid, uid, status = struct.unpack_from("<iIi", data, 16)
    (address,) = struct.unpack_from("<Q", data, 16)
    info = SimpleNamespace(signal=signal, code=code, sender=pid, uid=uid, status=status, address=address, errno=errno)
    return f"{{{', '.join(siginfo_fields(info))}}}"


def signal_result(call: Syscall) -> str:
    """rt_sigtimedwait's result: the signal, and its name."""
    return f"{call.result} ({signal_name(call.result or 0)})"


def scheduler_result(call: Syscall) -> str:
    """sched_getscheduler's result."""
    return f"{call.result} ({SCHED.get(call.result or 0, 'SCHED_???')})"


def membarrier_result(call: Syscall) -> str:
    """membarrier's result: for a query, what there is."""
    if not call.result:
        return "0"
    names = {bit: name for bit, name in MEMBARRIER.items() if bit}
    return f"{call.result:#x} ({flag_text(call.result, names, 'MEMBARRIER_CMD_???')})"


def show_groups(call: Syscall, value: int) -> str:
    """A list of group ids: as many as the call returned, or as it was given."""
    if call.failed:
        return show_pointer(call, value)
    count = call.result if call.name == "getgroups" else signed(call.args[0])
    if not 0 <= (count or 0) <= NGROUPS_MAX:
        return show_pointer(call, value)
    return array_text(call, value, count or 0, 4, lambda call, data: str(int.from_bytes(data, "little")))


def capability_header(call: Syscall, data: bytes) -> str:
    """struct __user_cap_header_struct."""
    version, pid = struct.unpack("<Ii", data)
    names = {0x19980330: 1, 0x20071026: 2, 0x20080522: 3}
    prefix = "_LINUX_CAPABILITY_VERSION_"
    text = f"{prefix}{names[version]}" if version in names else f"{version:#x} /* {prefix}??? */"
    return f"{{version={text}, pid={pid}}}"


def capability_data(call: Syscall, data: bytes) -> str:
    """struct __user_cap_data_struct[2]."""
    low, high = struct.unpack_from("<3I", data), struct.unpack_from("<3I", data, 12)
    names = ("effective", "permitted", "inheritable")
    sets = [flag_text(a | b << 32, CAP_NAMES, "CAP_???") for a, b in zip(low, high, strict=True)]
    return f"{{{', '.join(f'{name}={shown}' for name, shown in zip(names, sets, strict=True))}}}"


def cpu_set(size: int) -> Show:
    """A CPU mask; its bytes are argument `size`, or what the call returned."""

    def show(call: Syscall, value: int) -> str:
        if call.failed:
            return show_pointer(call, value)
        count = call.result if call.name == "sched_getaffinity" else call.args[size]
        data = call.read(value, min(count or 0, 1024))
        if data is None:
            return show_pointer(call, value)
        bits = int.from_bytes(data, "little")
        return f"[{' '.join(str(bit) for bit in range(bits.bit_length()) if bits >> bit & 1)}]"

    return show


def shm_flags(call: Syscall, value: int) -> str:
    """shmget's flags with the permissions in octal."""
    mode = show_octal(call, value & 0o777)
    rest = value & 0xFFFFFFFF & ~0o777
    return f"{flag_text(rest, IPC_FLAGS, 'SHM_???')}|{mode}" if rest else mode


def show_key(call: Syscall, value: int) -> str:
    """An IPC key."""
    return hex(value & 0xFFFFFFFF) if value & 0xFFFFFFFF else "IPC_PRIVATE"


def shmid_body(call: Syscall, data: bytes) -> str:
    """struct shmid_ds."""
    key, uid, gid, cuid, cgid, mode = struct.unpack_from("<6I", data)
    size, atime, dtime, ctime = struct.unpack_from("<4Q", data, 48)
    cpid, lpid, attached = struct.unpack_from("<iiQ", data, 80)
    perm = f"{{uid={uid}, gid={gid}, mode=0{mode & 0xFFFF:o}, key={key}, cuid={cuid}, cgid={cgid}}}"
    return (
        f"{{shm_perm={perm}, shm_segsz={size}, shm_cpid={cpid}, shm_lpid={lpid}, shm_nattch={attached}, "
        f"shm_atime={atime}, shm_dtime={dtime}, shm_ctime={ctime}}}"
    )


def show_shmid(call: Syscall, value: int) -> str:
    """shmctl's buffer, where the command has one."""
    return s.filled(112, shmid_body)(call, value) if call.args[1] in (1, 2) else show_pointer(call, value)


def sigevent_body(call: Syscall, data: bytes) -> str:
    """struct sigevent."""
    _, signo, notify = struct.unpack_from("<Qii", data)
    return f"{{sigev_signo={signal_name(signo)}, sigev_notify={SIGEV.get(notify, notify)}}}"


def times_body(call: Syscall, data: bytes) -> str:
    """struct tms."""
    values = struct.unpack("<4q", data)
    names = ("utime", "stime", "cutime", "cstime")
    return f"{{{', '.join(f'tms_{name}={value}' for name, value in zip(names, values, strict=True))}}}"


def epoll_event(call: Syscall, data: bytes) -> str:
    """struct epoll_event."""
    events = int.from_bytes(data[:4], "little")
    value = int.from_bytes(data[-8:], "little")
    return f"{{events={flag_text(events, EPOLL, 'EPOLL???')}, data={{u32={value & 0xFFFFFFFF}, u64={value}}}}}"


def show_epoll_event(call: Syscall, value: int) -> str:
    """epoll_ctl's event."""
    return s.pointed(call.abi.EPOLL_EVENT_SIZE, epoll_event)(call, value)


def show_epoll_events(call: Syscall, value: int) -> str:
    """What epoll_wait returned."""
    if call.failed:
        return show_pointer(call, value)
    return array_text(call, value, call.result or 0, call.abi.EPOLL_EVENT_SIZE, epoll_event)


def clone_args_body(call: Syscall, data: bytes) -> str:
    """struct clone_args, as far as it is used."""
    bits, _, child_tid, parent_tid, exit_signal, stack, size, tls = struct.unpack_from("<8Q", data)
    parts = [f"flags={flag_text(bits, k.CLONE, 'CLONE_???')}"]
    if bits & 0x1200000:
        parts.append(f"child_tid={show_hex(call, child_tid)}")
    if bits & 0x100000:
        parts.append(f"parent_tid={show_hex(call, parent_tid)}")
    parts.append(f"exit_signal={signal_name(exit_signal)}")
    parts.append(f"stack={show_pointer(call, stack)}, stack_size={show_hex(call, size)}")
    if bits & 0x80000:
        parts.append(f"tls={show_hex(call, tls)}")
    return f"{{{', '.join(parts)}}}"


def show_clone_args(call: Syscall, value: int) -> str:
    """clone3's structure, of the size that argument 1 says."""
    return s.pointed(64, clone_args_body)(call, value) if call.args[1] >= 64 else show_pointer(call, value)


def membarrier_cpu(call: Syscall, value: int) -> str | None:
    """membarrier's CPU, which a flag asks for."""
    return show_int(call, value) if call.args[1] & 0xFFFFFFFF else None


def local_vector(call: Syscall, value: int) -> str:
    """process_vm_*'s own iovecs; their length is argument 2."""
    left = None if call.failed else (call.result or 0) if call.name == "process_vm_readv" else 1 << 62
    return s.vector_text(call, value, call.args[2], left)


def remote_vector(call: Syscall, value: int) -> str:
    """iovecs of another process: addresses only."""

    def element(call: Syscall, data: bytes) -> str:
        base, size = struct.unpack("<QQ", data)
        return f"{{iov_base={show_pointer(call, base)}, iov_len={size}}}"

    return array_text(call, value, call.args[4] if call.name.startswith("process_vm") else call.args[2], 16, element)


def word_body(call: Syscall, data: bytes) -> str:
    """One 64-bit word behind a pointer, in hexadecimal."""
    return f"[{show_hex(call, int.from_bytes(data, 'little'))}]"


def size_body(call: Syscall, data: bytes) -> str:
    """One size behind a pointer."""
    return f"[{int.from_bytes(data, 'little')}]"


INT, UNSIGNED, LONG, SIZE, HEX, POINTER = show_int, show_unsigned, show_long, show_size, show_hex, show_pointer
FD, DIRFD, PATH = show_fd, show_dirfd, show_path
SIGINFO = s.filled(128, siginfo_body)
CAP_HEADER = s.pointed(8, capability_header)
INT_OUT = Out(s.filled(4, s.int_body))
SCHED_POLICY = choice(SCHED, "SCHED_???")
PARAM = s.pointed(4, s.int_body)
CLOCK = choice(k.CLOCK, "CLOCK_???")
NEW_LIMIT = s.pointed(32, s.itimerspec_body)
OLD_LIMIT = Out(s.filled(32, s.itimerspec_body))
BITS = word_body

MORE_CALLS: dict[str, Params] = {
    **NET_CALLS,
    **RARE_CALLS,
    **MOUNT_CALLS,
    **AIO_CALLS,
    "getgroups": (INT, Out(show_groups)),
    "setgroups": (INT, show_groups),
    "capget": (CAP_HEADER, Out(s.filled(24, capability_data))),
    "capset": (CAP_HEADER, s.pointed(24, capability_data)),
    "shmget": (show_key, SIZE, shm_flags),
    "shmat": (INT, POINTER, flags(SHM_FLAGS, "SHM_???")),
    "shmdt": (POINTER,),
    "shmctl": (INT, choice(IPC_COMMANDS, "IPC_???"), Out(show_shmid)),
    "sched_getaffinity": (INT, SIZE, Out(cpu_set(1))),
    "sched_setaffinity": (INT, SIZE, cpu_set(1)),
    "sched_getparam": (INT, Out(s.filled(4, s.int_body))),
    "sched_setparam": (INT, PARAM),
    "sched_getscheduler": (INT,),
    "sched_setscheduler": (INT, SCHED_POLICY, PARAM),
    "sched_get_priority_max": (SCHED_POLICY,),
    "sched_get_priority_min": (SCHED_POLICY,),
    "sched_rr_get_interval": (INT, Out(s.show_timespec_out)),
    "sched_setattr": (INT, POINTER, UNSIGNED),
    "sched_getattr": (INT, POINTER, UNSIGNED, UNSIGNED),
    "getpriority": (choice(PRIO, "PRIO_???"), INT),
    "setpriority": (choice(PRIO, "PRIO_???"), INT, INT),
    "ioprio_set": (INT, INT, HEX),
    "getcpu": (INT_OUT, INT_OUT, POINTER),
    "membarrier": (choice(MEMBARRIER, "MEMBARRIER_CMD_???"), flags(MEMBARRIER_FLAGS, "MEMBARRIER_???"), membarrier_cpu),
    "waitid": (choice(k.WAITID, "P_???"), INT, Out(SIGINFO), flags(k.WAIT, "W???"), Out(s.filled(144, s.rusage_body))),
    "rt_sigtimedwait": (sized_sigset(3), Out(SIGINFO), s.show_timespec, SIZE),
    "rt_sigqueueinfo": (INT, show_signal, s.pointed(128, siginfo_body)),
    "rt_tgsigqueueinfo": (INT, INT, show_signal, s.pointed(128, siginfo_body)),
    "pidfd_open": (INT, HEX),
    "pidfd_send_signal": (FD, show_signal, s.pointed(128, siginfo_body), HEX),
    "times": (Out(s.filled(32, times_body)),),
    "settimeofday": (s.pointed(16, s.timeval_body), POINTER),
    "timer_create": (CLOCK, s.pointed(64, sigevent_body), INT_OUT),
    "timer_settime": (INT, flags(k.TIMER, "TIMER_???"), NEW_LIMIT, OLD_LIMIT),
    "timer_gettime": (INT, OLD_LIMIT),
    "timer_getoverrun": (INT,),
    "timer_delete": (INT,),
    "process_vm_readv": (INT, Out(local_vector), SIZE, remote_vector, SIZE, SIZE),
    "process_vm_writev": (INT, local_vector, SIZE, remote_vector, SIZE, SIZE),
    "process_madvise": (FD, remote_vector, SIZE, choice(k.MADVISE, "MADV_???"), HEX),
    "epoll_create": (INT,),
    "epoll_create1": (flags(EPOLL_CREATE, "EPOLL_???"),),
    "epoll_ctl": (FD, choice(EPOLL_OPS, "EPOLL_CTL_???"), FD, show_epoll_event),
    "epoll_wait": (FD, Out(show_epoll_events), INT, INT),
    "epoll_pwait": (FD, Out(show_epoll_events), INT, INT, show_sigset, SIZE),
    "eventfd": (UNSIGNED,),
    "eventfd2": (UNSIGNED, flags(EVENTFD, "EFD_???")),
    "preadv2": (FD, Out(s.iovec(True)), SIZE, LONG, flags(RWF, "RWF_???")),
    "pwritev2": (FD, s.iovec(False), SIZE, LONG, flags(RWF, "RWF_???")),
    "tee": (FD, FD, SIZE, flags(SPLICE, "SPLICE_F_???")),
    "vmsplice": (FD, s.iovec(False), SIZE, flags(SPLICE, "SPLICE_F_???")),
    "readahead": (FD, LONG, SIZE),
    "sync_file_range": (FD, LONG, LONG, flags(SYNC_RANGE, "SYNC_FILE_RANGE_???")),
    "getdents": (FD, POINTER, UNSIGNED),
    "utime": (PATH, s.pointed(16, s.utimbuf_body)),
    "utimes": (PATH, s.show_timevals),
    "futimesat": (DIRFD, PATH, s.show_timevals),
    "sethostname": (show_string, SIZE),
    "setdomainname": (show_string, SIZE),
    "setfsuid": (show_id,),
    "setfsgid": (show_id,),
    "get_robust_list": (INT, Out(s.filled(8, word_body)), Out(s.filled(8, size_body))),
    "pkey_free": (INT,),
    "modify_ldt": (INT, POINTER, SIZE),
    "setns": (FD, flags(k.CLONE, "CLONE_???")),
}

MORE_RESULTS: dict[str, Callable[[Syscall], str]] = {
    "rt_sigtimedwait": signal_result,
    "sched_getscheduler": scheduler_result,
    "membarrier": membarrier_result,
}
