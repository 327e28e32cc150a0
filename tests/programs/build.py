"""Compile src/ into built/amd64 and built/arm64: programs as Debian 12's gcc and musl make them, kept here.

python tests/programs/build.py      needs Debian 12: gcc, g++, their aarch64-linux-gnu cross versions, lld-16

musl (headers, start files, libc.a) is taken from Debian's packages musl and musl-dev of the same mirror as the others.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from debian import MIRROR  # noqa: E402
from programs.roots import PINNED, package, unpack  # noqa: E402

PREFIXES = {"amd64": "x86_64-linux-gnu-", "arm64": "aarch64-linux-gnu-"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# Program -> language's compiler, source, options. Dynamic ones are PIEs with full relro, as Debian builds its own.
GLIBC = {
    "threads": ("gcc", "threads.c", ["-pthread", "-Wl,-z,relro,-z,now"]),
    "openmp": ("gcc", "openmp.c", ["-fopenmp"]),
    "exceptions": ("g++", "exceptions.cpp", ["-pthread"]),
    "loading": ("gcc", "loading.c", ["-rdynamic"]),
    "late.so": ("gcc", "late.c", ["-shared", "-fPIC", "-fuse-ld=lld", "-Wl,-z,pack-relative-relocs"]),
    "relr": ("gcc", "threads.c", ["-pthread", "-fuse-ld=lld", "-Wl,-z,pack-relative-relocs"]),
}


def musl_tree(architecture: str, into: pathlib.Path) -> None:
    """Debian's musl and musl-dev, unpacked."""
    path, checksum = next(
        line.split()[1:] for line in PINNED.splitlines() if line.startswith(f"{architecture} ") and "/musl_" in line
    )
    unpack(package(path, checksum), into)
    with urllib.request.urlopen(f"{MIRROR}/{path.replace('/musl_', '/musl-dev_')}", timeout=60) as answer:
        unpack(answer.read(), into)


def build_musl(architecture: str, tree: pathlib.Path, out: pathlib.Path) -> None:
    """libc.c against musl, dynamic and static: what musl-gcc's specs would say, for either architecture."""
    machine = MACHINES[architecture]
    lib, include = tree / f"usr/lib/{machine}-linux-musl", tree / f"usr/include/{machine}-linux-musl"
    compiler = PREFIXES[architecture] + "gcc"
    gcc = subprocess.run([compiler, "-print-file-name="], capture_output=True, text=True, check=True).stdout.strip()
    common = [compiler, "-O2", "-s", "-nostdinc", "-isystem", include, "-isystem", f"{gcc}/include", "-nostdlib"]
    libc = f"-L{tree}/lib/{machine}-linux-musl"
    source, loader = HERE / "src/libc.c", f"-Wl,-dynamic-linker,/lib/ld-musl-{machine}.so.1"
    dynamic = ["-fPIE", "-pie", lib / "Scrt1.o", lib / "crti.o", source, libc, "-lc", "-lgcc", lib / "crtn.o", loader]
    static = ["-static", "-no-pie", "-fno-pie", lib / "crt1.o", lib / "crti.o", source, lib / "libc.a", "-lgcc"]
    # musl has no outline atomics, and libgcc's ask for glibc's getauxval.
    plain = ["-mno-outline-atomics"] if architecture == "arm64" else []
    for name, options in (("musl", dynamic), ("musl-static", [*static, "-lgcc_eh", lib / "libc.a", lib / "crtn.o"])):
        subprocess.run([*common, *plain, "-o", out / name, *options], check=True)


def main() -> None:
    """Everything, for both architectures."""
    for architecture, prefix in PREFIXES.items():
        out = HERE / "built" / architecture
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            tree = pathlib.Path(folder)
            (tree / "ld.lld").symlink_to(shutil.which("ld.lld-16") or "not installed")
            for name, (compiler, source, options) in GLIBC.items():
                command = [prefix + compiler, "-O2", "-s", "-Wall", "-o", out / name, HERE / "src" / source]
                subprocess.run([*command, *options, "-B", folder], check=True)
            musl_tree(architecture, tree)
            build_musl(architecture, tree, out)


if __name__ == "__main__":
    main()
