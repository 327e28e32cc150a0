"""The command run for real: exit statuses, the one line that goes with each, and what the options print."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from geometry import IMAGES, PROJECT

from emu import cli

if TYPE_CHECKING:
    import pathlib

ARCHES = ("x86_64", "aarch64")


def image(name: str, arch: str = "x86_64") -> str:
    return str(IMAGES / arch / name)


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def pagewalk(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run the command in this process; its status and output."""

    def run(*words: str) -> Result:
        status = cli.main(list(words))
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run


def one_line(err: str) -> str:
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err[:-1]


# -- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_the_guests_status_and_output(pagewalk, arch: str) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", image("hello", arch))
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("hello from")


@pytest.mark.parametrize("arch", ARCHES)
def test_a_fatal_fault_prints_one_line_as_a_shell(pagewalk, arch: str, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    program = tmp_path / "jumps-to-nowhere"
    program.write_bytes(elf(arch, entry=0x10))
    program.chmod(0o755)
    result = pagewalk("run", str(program))
    assert (result.status, result.out, result.err) == (139, "", "Segmentation fault\n")


def elf(arch: str, entry: int = 0x400078, vaddr: int = 0x400000, code: bytes = b"\0" * 8, align: int = 0x1000) -> bytes:
    """The smallest program: one segment that holds the headers and `code`."""
    machine = {"x86_64": 62, "aarch64": 183}[arch]
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(code)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, vaddr, vaddr, size, size, align) + code


def test_not_found(pagewalk) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", "/no/such/program")
    assert result.status == 127
    assert one_line(result.err) == "pagewalk: /no/such/program: No such file or directory"


def bad_program(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """A file that cannot be executed, by what is wrong with it."""
    good = elf("x86_64")
    path = folder / kind
    if kind == "directory":
        path.mkdir()
        return path
    path.write_bytes(
        {
            "text": b"just words\n",
            "empty": b"",
            "elf32": good[:4] + b"\1" + good[5:],
            "bigendian": good[:5] + b"\2" + good[6:],
            "riscv": good[:18] + b"\xf3\0" + good[20:],
            "object": good[:16] + b"\1\0" + good[18:],
            "truncated": good[:40],
            "nophdrs": good[:64],
            "script": b"#!/bin/sh\necho hi\n",
            "locked": good,
            "kernelspace": elf("x86_64", vaddr=0xFFFF800000000000),
        }[kind]
    )
    path.chmod(0o644 if kind == "locked" else 0o755)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("directory", "text", "empty", "elf32", "bigendian", "riscv", "object", "truncated", "nophdrs", "script"),
        *("locked", "kernelspace"),
    ],
)
def test_cannot_be_executed(pagewalk, kind: str, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    path = bad_program(tmp_path, kind)
    result = pagewalk("run", str(path))
    assert (result.status, result.out) == (126, "")
    assert one_line(result.err).startswith(f"pagewalk: {path}: ")


def test_segments_of_4k_on_64k_pages(pagewalk, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "small-pages"
    path.write_bytes(elf("aarch64", vaddr=0x401000, entry=0x401078))
    path.chmod(0o755)
    result = pagewalk("run", "--page-size", "64k", str(path))
    assert result.status == 126
    assert one_line(result.err) == f"pagewalk: {path}: its segments cannot be mapped with pages of 64K"


def test_missing_interpreter_is_named(pagewalk, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    good = bytearray(elf("x86_64", code=b"/lib/nowhere.so\0"))
    good[56:58] = struct.pack("<H", 2)
    interp = struct.pack("<IIQQQQQQ", 3, 4, 120 + 56, 0, 0, 16, 16, 1)
    path = tmp_path / "dynamic"
    path.write_bytes(bytes(good[:120]) + interp + bytes(good[120:]))
    path.chmod(0o755)
    result = pagewalk("run", str(path))
    assert result.status == 127
    assert one_line(result.err) == f"pagewalk: {path}: its interpreter /lib/nowhere.so is missing"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--page-size", "16k", "IMAGE"], "page size 16k does not exist on x86_64; it has 4k"),
        (["--root", "/no/where", "x"], "--root /no/where: No such file or directory"),
        (["--mount", "/no/where:/x", "IMAGE"], "--mount /no/where: No such file or directory"),
        (["--strace=/no/where/x", "IMAGE"], "--strace /no/where/x: No such file or directory"),
        (["--trace", "/no/where/x", "IMAGE"], "--trace /no/where/x: No such file or directory"),
    ],
)
def test_refused(pagewalk, words: list[str], line: str) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", *[image("hello") if word == "IMAGE" else word for word in words])
    assert (result.status, result.out) == (125, "")
    assert one_line(result.err) == f"pagewalk: {line}"


def test_la57_is_for_x86_64(pagewalk) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", "--la57", image("hello", "aarch64"))
    assert result.status == 125
    assert "la57" in one_line(result.err)


def test_an_unknown_cpu_lists_the_known_ones(pagewalk) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", "--cpu", "z80", image("hello"))
    assert result.status == 125
    assert "known: " in one_line(result.err)
    listed = pagewalk("run", "--cpu", "help")
    assert listed.status == 0
    assert "x86_64:\n" in listed.out
    assert "aarch64:\n" in listed.out


SPIN = {"x86_64": b"\xeb\xfe", "aarch64": struct.pack("<I", 0x14000000)}  # a jump to itself


@pytest.mark.parametrize("arch", ARCHES)
def test_limits(pagewalk, arch: str, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "spin"
    path.write_bytes(elf(arch, code=SPIN[arch]))
    path.chmod(0o755)
    result = pagewalk("run", "--max-instructions", "5000", str(path))
    assert (result.status, result.err) == (124, "pagewalk: stopped after 5000 instructions (--max-instructions)\n")
    result = pagewalk("run", "--timeout", "0.2", str(path))
    assert (result.status, result.err) == (124, "pagewalk: stopped after 0.2 s (--timeout)\n")


def spawn(*words: str, **options: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "emu", *words],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("arch", ARCHES)
def test_ctrl_c_ends_a_spinning_guest_without_a_word(arch: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spin"
    path.write_bytes(elf(arch, code=SPIN[arch]))
    path.chmod(0o755)
    process = spawn("run", "--strace", str(path))
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"execve(")  # it runs
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_nobody_reads_our_output() -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "emu", "tree", "--quiet", image("hello")],
        cwd=PROJECT,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (141, b"")


# -- what the options print -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_strace(pagewalk, arch: str) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", "--strace", image("hello", arch))
    lines = result.err.splitlines()
    assert re.fullmatch(r'execve\("/hello", \[".*"(\.\.\.)?\], 0x[0-9a-f]+ /\* 0 vars \*/\) = 0', lines[0])
    assert lines[1].startswith('write(1, "hello from')
    assert lines[-2:] == ["exit_group(0)                           = ?", "+++ exited with 0 +++"]


def test_strace_to_a_file(pagewalk, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    log = tmp_path / "log"
    result = pagewalk("run", f"--strace={log}", image("cow"))
    assert (result.status, result.err) == (0, "")
    text = log.read_text()
    assert "[pid " in text
    assert text.endswith("+++ exited with 0 +++\n")


def test_trace(pagewalk, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "trace"
    assert pagewalk("run", "--trace", str(file), image("mmap")).status == 0
    header, *events = [json.loads(line) for line in file.read_text().splitlines()]
    assert header["schema"] == "pagewalk-trace"
    kinds = {event["kind"] for event in events}
    assert {"exec", "fault", "vma_insert", "vma_erase", "syscall_enter", "syscall_exit", "page_table_alloc"} <= kinds
    assert [event["n"] for event in events] == list(range(1, len(events) + 1))
    assert all(one["time"] <= two["time"] for one, two in itertools.pairwise(events))
    assert events[-1]["kind"] == "end"


@pytest.mark.parametrize("arch", ARCHES)
def test_stats(pagewalk, arch: str) -> None:  # type: ignore[no-untyped-def]
    result = pagewalk("run", "--stats", image("mmap", arch))
    assert result.status == 0
    for text in ("exited with 0", "[stack]", "black height", "vmacache", "page faults", "page tables", "frames"):
        assert text in result.err
    assert result.err.count("\n") < 80


def test_maps_agree_with_the_guests_own(pagewalk) -> None:  # type: ignore[no-untyped-def]
    text = pagewalk("maps", "--quiet", image("hello")).out
    assert re.search(r"^00200000-00201000 r--p 00000000 [0-9a-f:]+ \d+ +/hello$", text, re.MULTILINE)
    assert text.splitlines()[-1].endswith("[vsyscall]")


def test_a_view_at_a_system_call(pagewalk, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    svg = tmp_path / "tree.svg"
    result = pagewalk("tree", "--quiet", "--at-syscall", "1", "--svg", str(svg), image("hello"))
    assert result.status == 0
    assert "black height" in result.out
    assert svg.read_text().startswith("<svg")
    result = pagewalk("tree", "--quiet", "--at-syscall", "99999", image("hello"))
    assert result.status == 125
    assert one_line(result.err).startswith("pagewalk: --at-syscall 99999: the program made only ")


@pytest.mark.parametrize(("arch", "bits"), [("x86_64", "P US A NX"), ("aarch64", "VALID PAGE USER RDONLY AF nG")])
def test_page_tables(pagewalk, arch: str, bits: str) -> None:  # type: ignore[no-untyped-def]
    text = pagewalk("pagetables", "--quiet", image("hello", arch)).out
    assert bits in text
    assert "[stack]" in text
    assert "\x1b" not in text
    assert "\x1b" in pagewalk("pagetables", "--quiet", "--color", "always", image("hello", arch)).out


def test_every_process_waits(pagewalk, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from emu.errors import PagewalkError
    from emu.machine import Machine

    def nothing_runs(*args: object, **options: object) -> None:
        raise PagewalkError("nothing can ever run again: 27 (cat) waits for pipe read")

    monkeypatch.setattr(Machine, "run", nothing_runs)
    result = pagewalk("run", image("hello"))
    assert (result.status, result.err) == (125, "pagewalk: nothing can ever run again: 27 (cat) waits for pipe read\n")


def test_a_broken_invariant_dumps_the_address_space(pagewalk, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from emu.machine import Machine
    from mm.errors import KernelBug

    def breaks(machine: Machine, *args: object, **options: object) -> None:
        raise KernelBug("map_count 9, but 6 areas in the list", machine.task.mm)

    monkeypatch.setattr(Machine, "run", breaks)
    result = pagewalk("run", image("hello"))
    assert result.status == 125
    assert "KernelBug: map_count 9, but 6 areas in the list" in result.err
    assert "\nmm map_count=6 " in result.err
    assert result.err.endswith("an invariant of its memory management broke\n")
