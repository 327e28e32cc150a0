"""Rebuild every guest program and both vDSO images from source: `make images`, or `python images/build.py [NAME...]`.

The compiler is clang as packed by `ziglang` (PyPI, pinned in the Makefile), which builds for both architectures.
The same source gives the same bytes each time: nothing of the host, the time or the path goes into an ELF.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
VDSO = HERE.parent / "guest" / "vdso"
ARCHES = {  # extra compiler flags, bytes the vDSO image is padded to (the pages it takes under Linux)
    "x86_64": (["-mcpu=x86_64", "-fcf-protection=none"], 8192),
    "aarch64": (["-mcpu=generic", "-mno-outline-atomics"], 0),
}
CFLAGS = [
    *("-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror"),
    *(
        "-ffreestanding",
        "-fno-builtin",
        "-fno-pic",
        "-fno-sanitize=all",
        "-fno-stack-protector",
        "-fomit-frame-pointer",
    ),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
]
# Segments aligned to 64 KiB, so that one file can be mapped at every page size.
LDFLAGS = ["-static", "-z", "max-page-size=65536", "-z", "noexecstack", "--build-id=none", "-s"]
VDSO_LDFLAGS = [
    *("-shared", "-T", "vdso.lds", "-soname", "linux-vdso.so.1", "-Bsymbolic", "--hash-style=both", "--eh-frame-hdr"),
    *("-z", "noexecstack", "-z", "max-page-size=4096", "--build-id=none", "-s"),
]


def zig(*args: str | pathlib.Path, cwd: pathlib.Path) -> None:
    """Run `python -m ziglang ARGS` in `cwd`; stop with its message when it fails."""
    done = subprocess.run([sys.executable, "-m", "ziglang", *map(str, args)], cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"build.py: ziglang {args[0]} failed with status {done.returncode}")


def build_program(source: pathlib.Path, arch: str, tmp: pathlib.Path) -> None:
    """One C file to images/ARCH/NAME."""
    obj = tmp / f"{source.stem}.o"
    zig(
        "cc",
        "-target",
        f"{arch}-freestanding-none",
        *ARCHES[arch][0],
        *CFLAGS,
        "-c",
        source.name,
        "-o",
        obj,
        cwd=source.parent,
    )
    zig("ld.lld", *LDFLAGS, obj, "-o", HERE / arch / source.stem, cwd=tmp)


def build_vdso(arch: str, tmp: pathlib.Path) -> None:
    """guest/vdso/src/vdso_ARCH.S to guest/vdso/vdso_ARCH.so, padded."""
    src, obj, out = VDSO / "src", tmp / "vdso.o", VDSO / f"vdso_{arch}.so"
    zig("cc", "-target", f"{arch}-freestanding-none", "-g0", "-c", f"vdso_{arch}.S", "-o", obj, cwd=src)
    zig("ld.lld", *VDSO_LDFLAGS, f"--version-script=vdso_{arch}.ver", obj, "-o", out, cwd=src)
    data = out.read_bytes()
    out.write_bytes(data.ljust(ARCHES[arch][1], b"\0"))
    out.chmod(0o644)


def main() -> None:
    """Build what is named, or everything."""
    names = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as directory:
        tmp = pathlib.Path(directory)
        for arch in ARCHES:
            (HERE / arch).mkdir(exist_ok=True)
            for source in sorted((HERE / "src").glob("*.c")):
                if not names or source.stem in names:
                    build_program(source, arch, tmp)
            if not names or "vdso" in names:
                build_vdso(arch, tmp)


if __name__ == "__main__":
    main()
