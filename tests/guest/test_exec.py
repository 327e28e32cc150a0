"""exec: the address space it leaves, byte for byte, and what it refuses."""

import pathlib
import random
import struct
import tarfile

import pytest
from fake_machine import make_kernel, syscall

from mm.errors import Errno
from mm.mmdump import mmdump
from mm.uaccess import access_process_vm

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
KERNELS = ("x86_64-4k", "x86_64-4k-la57", "aarch64-4k", "aarch64-16k", "aarch64-64k")

# /proc/self/auxv of vmops on the oracle (x86_64-4k, aarch64-4k); hardware capabilities are the CPU's own.
AUXV = {
    "x86_64-4k": {
        33: 0x7FFFF7FFD000, 16: 0x78BFBFD, 6: 4096, 17: 100, 3: 0x400040, 4: 56, 5: 5, 7: 0, 8: 0, 9: 0x401000,
        11: 0, 12: 0, 13: 0, 14: 0, 23: 0, 25: 0x7FFFFFFFEFC9, 26: 0, 31: 0x7FFFFFFFEFF1, 15: 0x7FFFFFFFEFD9, 0: 0,
    },
    "aarch64-4k": {
        33: 0xFFFFF7FFF000, 51: 4720, 16: 0x8FB, 6: 4096, 17: 100, 3: 0x400040, 4: 56, 5: 4, 7: 0, 8: 0, 9: 0x400120,
        11: 0, 12: 0, 13: 0, 14: 0, 23: 0, 25: 0xFFFFFFFFFFC8, 26: 0, 31: 0xFFFFFFFFFFF1, 15: 0xFFFFFFFFFFD8, 0: 0,
    },
}  # fmt: skip


def vmops(kernel_name: str) -> bytes:
    return (GOLDEN / "bin" / f"vmops.{kernel_name.split('-')[0]}").read_bytes()


def start(kernel_name: str, image: bytes, argv=(b"/vmops", b"/s/01-anon-fault"), env=(), ram=1 << 26, **settings):
    kernel = make_kernel(kernel_name, ram=ram, **settings)
    path = kernel.vfs.add_program(b"vmops", None, image)
    return kernel, kernel.start(path, list(argv), list(env))


@pytest.fixture(scope="module")
def first_dumps():
    """KERNEL -> lines of the first dump of 01-anon-fault: the state just after exec and vmops' own first touches."""
    found = {}
    with tarfile.open(GOLDEN / "golden.tar.xz") as tar:
        for kernel in KERNELS:
            file = tar.extractfile(f"golden/{kernel}/01-anon-fault")
            lines = file.read().decode().split("\n")
            found[kernel] = lines[1 : lines.index("end")]
    return found


def shape(lines: list[str]) -> list[str]:
    """What the program's own first instructions do not change: counters, areas without anon_vma, tree."""
    kept = []
    for line in lines:
        word = line.split(" ", 1)[0]
        if word in ("mm", "rb"):
            kept.append(line)
        elif word == "vma":
            kept.append(
                " ".join(part for part in line.split() if not part.startswith(("anon=", "children=", "active=")))
            )
    return kept


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_layout_is_linuxs(kernel_name, first_dumps):
    _, task = start(kernel_name, vmops(kernel_name))
    assert shape(mmdump(task).splitlines()) == shape(first_dumps[kernel_name])


@pytest.mark.parametrize("kernel_name", AUXV)
def test_stack_holds_what_linux_puts_there(kernel_name):
    kernel, task = start(kernel_name, vmops(kernel_name), argv=(b"/vmops", b"/t"))
    mm = task.mm
    sp = kernel.cpu.regs[kernel.arch.sp]
    assert sp == mm.start_stack and sp % 16 == 0
    argc, argv0, argv1, null, env_null = struct.unpack("<5Q", access_process_vm(mm, sp, 40))
    assert (argc, null, env_null) == (2, 0, 0)
    assert access_process_vm(mm, argv0, 10) == b"/vmops\0/t\0"
    assert argv1 == argv0 + 7
    words = struct.unpack(
        f"<{2 * len(AUXV[kernel_name])}Q", access_process_vm(mm, sp + 40, 16 * len(AUXV[kernel_name]))
    )
    auxv = dict(zip(words[::2], words[1::2], strict=True))
    assert list(auxv) == list(AUXV[kernel_name])
    expected = AUXV[kernel_name]
    for tag in (3, 4, 5, 6, 9, 17, 31, 33):
        assert auxv[tag] == expected[tag], tag
    # The script's name is 2 bytes here and was /s/t there: strings moved by 0 within the 16 bytes of alignment.
    assert auxv[15] - auxv[25] == expected[15] - expected[25]
    assert access_process_vm(mm, auxv[15], len(kernel.arch.elf_platform)) == kernel.arch.elf_platform
    assert access_process_vm(mm, auxv[31], 7) == b"/vmops\0"


def test_aslr_is_seeded():
    def places(seed):
        _, task = start("x86_64-4k", vmops("x86_64-4k"), aslr=seed)
        return task.mm.start_stack, task.mm.mmap_base, task.mm.brk, task.mm.vdso

    assert places(1) == places(1)
    assert all(a != b for a, b in zip(places(1), places(2), strict=True))
    assert places(1)[0] != 0x7FFFFFFFEE50


def header(kernel_name: str, offset: int, value: bytes) -> bytes:
    image = bytearray(vmops(kernel_name))
    image[offset : offset + len(value)] = value
    return bytes(image)


def interpreter(offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQ", 3, 4, offset, 0, 0, size)


@pytest.mark.parametrize(
    ("what", "image", "refusal"),
    [
        ("empty", b"", "ENOEXEC"),
        ("no magic", b"\x7fELG" + bytes(200), "ENOEXEC"),
        ("other machine", header("x86_64-4k", 18, b"\xb7"), "ENOEXEC"),
        ("relocatable", header("x86_64-4k", 16, b"\x01"), "ENOEXEC"),
        ("no program headers", header("x86_64-4k", 56, b"\0\0"), "ENOEXEC"),
        ("headers of another size", header("x86_64-4k", 54, b"\x20"), "ENOEXEC"),
        ("headers behind the end", header("x86_64-4k", 32, b"\xff\xff\xff\x7f"), "ENOEXEC"),
        ("interpreter without a name", header("x86_64-4k", 64, interpreter(0x1000 - 4, 2)), "EACCES"),
        ("interpreter missing", header("x86_64-4k", 64, interpreter(0x1000 - 4, 9))[:0xFFC] + b"/missing\0", "ENOENT"),
        ("interpreter name not ended", header("x86_64-4k", 64, interpreter(1, 2)), "ENOEXEC"),
        ("interpreter name behind the end", header("x86_64-4k", 64, interpreter(1 << 40, 2)), "EIO"),
        ("interpreter name too long", header("x86_64-4k", 64, interpreter(0, 5000)), "ENOEXEC"),
        ("script without a name", b"#!  \nx", "ENOEXEC"),
        ("script of nobody", b"#!/nobody\n", "ENOENT"),
    ],
)
def test_refusals(what, image, refusal):
    with pytest.raises(Errno) as refused:
        start("x86_64-4k", image)
    assert str(refused.value) == refusal, what


def test_entry_outside_user_space_kills_with_sigsegv():
    kernel, task = start("x86_64-4k", header("x86_64-4k", 24, b"\xff" * 8))
    assert kernel.exit_status == 11 and task.exit_state


@pytest.mark.parametrize("kernel_name", ["x86_64-4k", "aarch64-64k"])
@pytest.mark.parametrize("seed", range(3))
def test_mutated_headers_run_or_refuse(kernel_name, seed):
    """1500 such files were compared with the oracle's execve once: all agreed."""
    rng = random.Random(seed)
    base = vmops(kernel_name)
    for _ in range(60):
        image = bytearray(base)
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.05:
                image = image[: rng.randrange(1, len(image))]
            offset = rng.randrange(min(400, len(image)))
            image[offset] = rng.getrandbits(8)
        try:
            kernel, task = start(kernel_name, bytes(image), ram=1 << 24)
        except Errno:
            continue
        assert kernel.exit_status == 11 if task.exit_state else kernel.schedule() is task


def test_script_runs_its_interpreter():
    kernel = make_kernel("x86_64-4k", ram=1 << 26)
    kernel.vfs.add_program(b"vmops", None, vmops("x86_64-4k"))
    path = kernel.vfs.add_program(b"script", None, b"#! /vmops  one two \nrest")
    task = kernel.start(path, [b"name", b"tail"], [b"A=1"])
    mm = task.mm
    strings = access_process_vm(mm, mm.arg_start, mm.arg_end - mm.arg_start)
    assert strings == b"/vmops\0one two\0/script\0tail\0"
    assert access_process_vm(mm, mm.env_start, mm.env_end - mm.env_start) == b"A=1\0"
    assert task.comm == "script"


def test_too_many_arguments():
    with pytest.raises(Errno) as refused:
        start("x86_64-4k", vmops("x86_64-4k"), argv=[b"x" * 100_000] * 30)
    assert str(refused.value) == "E2BIG"


def test_the_run_ends_with_the_first_program():
    """Who is left is killed, and gives back what it holds."""
    kernel, first = start("x86_64-4k", vmops("x86_64-4k"))
    kernel.schedule()
    assert kernel.resume(first)
    assert syscall(kernel, "getpid") == first.pid
    child = kernel.find_task(syscall(kernel, "fork"))
    assert child is not None
    syscall(kernel, "exit_group", 3)
    assert kernel.exit_status == 3 << 8
    assert kernel.schedule() is None
    assert child.exit_state and child.mm is None
    assert list(kernel.tasks.values()) == [kernel.init]
