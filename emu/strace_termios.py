"""struct termios as strace writes it: every flag by name, fields of several bits by their value's name."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu.strace_values import flag_text

if TYPE_CHECKING:
    from emu.strace_values import Syscall

IFLAG_NAMES = "IGNBRK BRKINT IGNPAR PARMRK INPCK ISTRIP INLCR IGNCR ICRNL IUCLC IXON IXANY IXOFF IMAXBEL IUTF8"
IFLAG = {1 << bit: name for bit, name in enumerate(IFLAG_NAMES.split(" "))}
OFLAG_FIELDS = ((0o400, "NL"), (0o3000, "CR"), (0o14000, "TAB"), (0o20000, "BS"), (0o40000, "VT"), (0o100000, "FF"))
OFLAG = {
    0o1: "OPOST",
    0o2: "OLCUC",
    0o4: "ONLCR",
    0o10: "OCRNL",
    0o20: "ONOCR",
    0o40: "ONLRET",
    0o100: "OFILL",
    0o200: "OFDEL",
}
SPEEDS = (0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400)
FAST_SPEEDS = (
    *(38400, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000),
    *(3000000, 3500000, 4000000),
)
CBAUD, CSIZE = 0o10017, 0o60
CFLAG = {
    0o100: "CSTOPB",
    0o200: "CREAD",
    0o400: "PARENB",
    0o1000: "PARODD",
    0o2000: "HUPCL",
    0o4000: "CLOCAL",
    0o10000000000: "CMSPAR",
    0o20000000000: "CRTSCTS",
}
LFLAG = {
    0x1: "ISIG",
    0x2: "ICANON",
    0x4: "XCASE",
    0x8: "ECHO",
    0x10: "ECHOE",
    0x20: "ECHOK",
    0x40: "ECHONL",
    0x80: "NOFLSH",
    0x8000: "IEXTEN",
    0x200: "ECHOCTL",
    0x400: "ECHOPRT",
    0x800: "ECHOKE",
    0x1000: "FLUSHO",
    0x4000: "PENDIN",
    0x100: "TOSTOP",
    0x10000: "EXTPROC",
}


def oflag_text(value: int) -> str:
    """c_oflag: the delays always, then the flags."""
    fields = [f"{name}{(value & mask) // (mask & -mask)}" for mask, name in OFLAG_FIELDS]
    rest = value & ~sum(mask for mask, _ in OFLAG_FIELDS)
    return "|".join([*fields, flag_text(rest, OFLAG, "O???", zero="")])


def cflag_text(value: int) -> str:
    """c_cflag: speed, size, then the flags."""
    speed = value & CBAUD
    name = f"B{SPEEDS[speed]}" if speed < 16 else f"B{FAST_SPEEDS[speed & 0xF]}"
    rest = flag_text(value & ~(CBAUD | CSIZE), CFLAG, "C???", zero="")
    return "|".join([name, f"CS{5 + (value & CSIZE) // 0o20}", rest])


def termios_body(call: Syscall, data: bytes) -> str:
    """struct termios, abbreviated."""
    iflag, oflag, cflag, lflag = struct.unpack_from("<4I", data)
    return (
        f"{{c_iflag={flag_text(iflag, IFLAG, 'I???')}, c_oflag={oflag_text(oflag)}, "
        f"c_cflag={cflag_text(cflag)}, c_lflag={flag_text(lflag, LFLAG, 'L???')}, ...}}"
    )
