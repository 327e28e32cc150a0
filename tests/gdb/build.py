"""Compile src/target.c into built/: python tests/gdb/build.py, with Debian 12's gcc and aarch64-linux-gnu-gcc."""

import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
COMPILERS = {"x86_64": ("gcc", "-fcf-protection=none"), "aarch64": ("aarch64-linux-gnu-gcc", "-mno-outline-atomics")}
# -O0: every line is there, and every variable in memory.
OPTIONS = (
    *("-g", "-O0", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector", "-w"),
    *("-fno-asynchronous-unwind-tables", "-Wl,-z,max-page-size=65536", "-Wl,-z,noexecstack", "-Wl,--build-id=none"),
)


def main() -> None:
    """Both architectures."""
    for name, (compiler, *special) in COMPILERS.items():
        out = HERE / "built" / name
        out.mkdir(parents=True, exist_ok=True)
        where = f"-ffile-prefix-map={HERE.parent.parent}=."
        include = f"-I{HERE.parent.parent / 'images' / 'src'}"
        source = HERE / "src" / "target.c"
        subprocess.run([compiler, *OPTIONS, *special, where, include, source, "-o", out / "target"], check=True)


if __name__ == "__main__":
    main()
