"""Damaged programs: seeded mutations, each answered by a run, a signal, or one clear line. Never a traceback."""

import pathlib
import random
import struct

import pytest
from geometry import IMAGES, KERNELS, PROJECT, arch_of

from emu.cli import main

SEEDS = range(400)
BATCH = 25
EXTREMES = [
    0,
    1,
    0xFF,
    0xFFF,
    0x1000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    1 << 47,
    1 << 56,
    1 << 63,
    2**64 - 1,
]
HEADER = {  # field: offset, size
    "class": (4, 1),
    "data": (5, 1),
    "type": (16, 2),
    "machine": (18, 2),
    "version": (20, 4),
    "entry": (24, 8),
    "phoff": (32, 8),
    "shoff": (40, 8),
    "ehsize": (52, 2),
    "phentsize": (54, 2),
    "phnum": (56, 2),
}
SEGMENT = {
    "type": (0, 4),
    "flags": (4, 4),
    "offset": (8, 8),
    "vaddr": (16, 8),
    "filesz": (32, 8),
    "memsz": (40, 8),
    "align": (48, 8),
}
TYPES = [0, 1, 2, 3, 4, 6, 7, 0x6474E551, 0x6474E553]


def put(image: bytearray, at: int, size: int, value: int) -> None:
    if at + size <= len(image):
        image[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def mutate(image: bytearray, rng: random.Random) -> bytearray:
    """One to three kinds of damage."""
    phoff, phnum = struct.unpack_from("<Q", image, 32)[0], struct.unpack_from("<H", image, 56)[0]
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind == 0:
            at, size = rng.choice(list(HEADER.values()))
            put(image, at, size, rng.choice(EXTREMES))
        elif kind == 1:
            at, size = rng.choice(list(SEGMENT.values()))
            put(image, phoff + rng.randrange(phnum) * 56 + at, size, rng.choice(EXTREMES))
        elif kind == 2:
            put(image, phoff + rng.randrange(phnum) * 56, 4, rng.choice(TYPES))
        elif kind == 3:
            image[rng.randrange(min(len(image), 64 + phnum * 56))] = rng.randrange(256)
        elif kind == 4:
            del image[rng.choice([0, 1, 4, 16, 63, 64, 65, 120, 200, len(image) // 2, len(image) - 1]) :]
            image += bytes(rng.choice([0, 0, 1, 64]))
            image = image if len(image) >= 64 else image + bytes(64 - len(image)) if rng.random() < 0.5 else image
            break
        else:  # two segments over each other
            at, size = SEGMENT["vaddr"]
            put(image, phoff + rng.randrange(phnum) * 56 + at, size, 0x200000 + rng.randrange(1 << 18))
    return image


def damaged(arch: str, seed: int) -> bytes:
    """The program of that seed."""
    original = (IMAGES / arch / ("hello" if seed // BATCH % 2 else "vdso")).read_bytes()
    return bytes(mutate(bytearray(original), random.Random(f"{arch} {seed}")))


def linux_statuses(kernel: str) -> list[int]:
    """What a real kernel made of each seed, as recorded by record_mutated.py."""
    for line in (PROJECT / "tests" / "golden" / "mutated.txt").read_text().splitlines():
        name, *statuses = line.split()
        if name == kernel:
            return [int(status) for status in statuses]
    raise LookupError(kernel)


def agrees(linux: int, status: int, message: str) -> bool:
    """Ours is Linux's answer, or one clear line where Linux looks away or kills without a word.

    execve ignores EI_CLASS and EI_DATA where the rest fits, and once it has thrown away the old program it can only
    raise SIGSEGV; for the program on the command line pagewalk says what is wrong instead.
    """
    if linux == 127:
        return status in (126, 127)
    if status == 126:
        looks_away = ("unknown class", "32-bit", "big-endian")
        return any(text in message for text in looks_away) or (linux == 139 and "cannot be mapped" in message)
    return status == linux


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("first", SEEDS[::BATCH])
def test_a_damaged_program_ends_as_under_linux_and_never_in_a_traceback(
    kernel: str, first: int, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged"
    geometry = ["--page-size", kernel.split("-")[1], *(f"--{flag}" for flag in kernel.split("-")[2:])]
    for seed in range(first, first + BATCH):
        path.write_bytes(damaged(arch_of(kernel), seed))
        path.chmod(0o755)
        status = main(["run", *geometry, "--max-instructions", "200000", "--timeout", "20", str(path)])
        err = capfd.readouterr().err
        where = f"seed {seed}: status {status}, {err!r}"
        assert len(err.splitlines()) <= 1, where
        assert "Traceback" not in err, where
        if status in (124, 125, 126, 127):
            assert err.startswith("pagewalk: "), where
        elif status > 128:
            assert err.strip(), where
        linux = linux_statuses(kernel)[seed]
        assert agrees(linux, status, err), f"{where}; Linux: {linux}"


def test_mutations_are_of_many_kinds() -> None:
    original = (IMAGES / "x86_64" / "hello").read_bytes()
    results = {bytes(mutate(bytearray(original), random.Random(f"x86_64 {seed}"))) for seed in SEEDS}
    assert len(results) > len(SEEDS) * 0.8
