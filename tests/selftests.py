"""The memory selftests of Linux 5.10, built from Debian's source package, under a real kernel and in pagewalk.

    python tests/selftests.py [--oracle ORACLE.py] [--kernel x86_64-4k]... [--source DIR] [TEST...]

Prints one line a test: how it ended under the real kernel (when ORACLE.py is given) and in pagewalk; docs/selftests.md
is the table made from it, with reasons. Exit status 1 when a test that passes under the real kernel fails here.

Nothing of Linux is kept in the repository: the source comes from linux-source-5.10 (the machine's own Debian mirror,
the release name changed to bullseye), is unpacked into .cache/selftests/ and built there, statically, with gcc and
aarch64-linux-gnu-gcc. `make test` does not run this: the package is 120 MB and no compiler is promised there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

PROJECT = pathlib.Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".cache" / "selftests"
SELFTESTS = "linux-source-5.10/tools/testing/selftests"
UNPACKED = ("vm", "mincore", "membarrier", "kselftest.h", "kselftest_harness.h")
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
SKIP = 4  # kselftest.h: KSFT_SKIP

#: libcap, as far as mlock-random-test asks for it: an empty set of capabilities, put into force.
LIBCAP = """
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
typedef struct cap_sets { unsigned int head[2], sets[6]; } *cap_t;
static inline cap_t cap_init(void)
{ cap_t cap = calloc(1, sizeof *cap); if (cap) cap->head[0] = 0x20080522; return cap; }
static inline int cap_set_proc(cap_t cap) { return syscall(SYS_capset, cap->head, cap->sets); }
static inline int cap_free(void *cap) { free(cap); return 0; }
"""


class Test(NamedTuple):
    """A program, the folder of its source, and its arguments; `name` tells runs of one program apart."""

    name: str
    folder: str
    program: str
    args: tuple[str, ...] = ()


def of_vm(program: str, *args: str) -> Test:
    return Test(" ".join((program, *args)), "vm", program, args)


TESTS = (
    Test("mincore_selftest", "mincore", "mincore_selftest"),
    Test("membarrier_test_single_thread", "membarrier", "membarrier_test_single_thread"),
    Test("membarrier_test_multi_thread", "membarrier", "membarrier_test_multi_thread"),
    of_vm("map_fixed_noreplace"),
    of_vm("map_populate"),
    of_vm("mlock-random-test"),
    of_vm("mlock2-tests"),
    of_vm("mremap_dontunmap"),
    of_vm("on-fault-limit"),
    of_vm("thuge-gen"),
    of_vm("virtual_address_range"),
    of_vm("va_128TBswitch"),
    of_vm("protection_keys"),
    of_vm("map_hugetlb"),
    of_vm("hugepage-mmap"),
    of_vm("hugepage-shm"),
    of_vm("khugepaged"),
    of_vm("compaction_test"),
    of_vm("gup_benchmark", "-U"),
    of_vm("userfaultfd", "anon", "16", "4"),
    of_vm("userfaultfd", "shmem", "16", "4"),
    of_vm("write_to_hugetlbfs"),
    of_vm("hmm-tests"),
)


class Unavailable(Exception):
    """The source or a compiler cannot be had here; the message says why."""


def unpack(source: pathlib.Path) -> None:
    """Fetch linux-source-5.10 with apt, as an ordinary user would, and unpack the tests into `source`.

    Raises:
        Unavailable: no apt, no network, or no such package any more.
    """
    sources = pathlib.Path("/etc/apt/sources.list.d/debian.sources")
    if not shutil.which("apt-get") or not sources.exists():
        raise Unavailable("no Debian here: give --source DIR, a folder with linux/tools/testing/selftests")
    with tempfile.TemporaryDirectory() as directory:
        tmp = pathlib.Path(directory)
        (tmp / "lists" / "partial").mkdir(parents=True)
        (tmp / "cache" / "archives" / "partial").mkdir(parents=True)
        text = sources.read_text().replace("bookworm", "bullseye").replace("bullseye-updates", "")
        (tmp / "bullseye.sources").write_text(text)
        options = ("Dir::Etc::SourceList=/dev/null", f"Dir::Etc::SourceParts={tmp}")
        options += (f"Dir::State::Lists={tmp}/lists", f"Dir::Cache={tmp}/cache")
        apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        try:
            subprocess.run([*apt, "update"], check=True)
            subprocess.run([*apt, "download", "linux-source-5.10"], check=True, cwd=tmp)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"linux-source-5.10 cannot be fetched: {error}") from error
        package = next(tmp.glob("linux-source-5.10_*.deb"))
        wanted = " ".join(f"'{SELFTESTS}/{name}'" for name in UNPACKED)
        source.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            f"dpkg-deb --fsys-tarfile {package} | tar xO ./usr/src/linux-source-5.10.tar.xz"
            f" | tar xJ -C '{source}' --strip-components=4 {wanted}",
            shell=True,
            check=True,
        )


def build(source: pathlib.Path, arch: str, test: Test) -> pathlib.Path:
    """Build one test; the program's path.

    Raises:
        Unavailable: it does not build; the message is the compiler's first error.
    """
    out = CACHE / arch / test.program
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    headers = CACHE / "include" / "sys"
    headers.mkdir(parents=True, exist_ok=True)
    (headers / "capability.h").write_text(LIBCAP)
    command = [COMPILERS[arch], "-O2", "-w", "-static", "-no-pie", "-Wl,-z,max-page-size=65536", f"-I{headers.parent}"]
    command += [f"{test.program}.c", "-o", str(out), "-lpthread", "-lrt"]
    if not shutil.which(command[0]):
        raise Unavailable(f"no {command[0]}")
    done = subprocess.run(command, cwd=source / test.folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-200:]))
    return out


def load_oracle(path: str) -> Any:
    """The oracle's script as a module: `boot(kernel, [(name, argv)], files) -> {name: (output, wait status)}`."""
    spec = importlib.util.spec_from_file_location("oracle", path)
    if spec is None or spec.loader is None:
        sys.exit(f"selftests.py: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def under_linux(oracle: Any, kernel: str, test: Test, program: pathlib.Path, timeout: float) -> tuple[str, str]:
    """(verdict, output) of the test alone in a boot of the real kernel."""
    files = {test.program: (0o100755, program.read_bytes())}
    try:
        output, status = oracle.boot(kernel, [("t", [f"/{test.program}", *test.args])], files, timeout)["t"]
    except (subprocess.TimeoutExpired, SystemExit) as error:
        return "no end", str(error)
    return verdict(128 + (status & 127) if status & 127 else status >> 8 & 255), output.decode(errors="replace")


def in_pagewalk(kernel: str, test: Test, program: pathlib.Path, timeout: float) -> tuple[str, str]:
    """(verdict, output) of the test in pagewalk, with a root folder that holds the program and nothing else."""
    arch, pages, *la57 = kernel.split("-")
    options = ["--page-size", pages] if arch == "aarch64" else ["--la57"] if la57 else []
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(program, pathlib.Path(root) / test.program)
        (pathlib.Path(root) / "tmp").mkdir()
        command = [sys.executable, "-m", "emu", "run", "--root", root, *options, f"/{test.program}", *test.args]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return "no end", (error.stdout or b"").decode(errors="replace")
    return verdict(done.returncode), done.stdout.decode(errors="replace")


def verdict(status: int) -> str:
    """What a shell's status means in kselftest's words."""
    return {0: "pass", SKIP: "skip"}.get(status, f"fail ({status})")


def main() -> None:
    """Run what is named, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", help="oracle.py, to run the tests under a real kernel as well")
    parser.add_argument("--kernel", action="append", help="default: x86_64-4k and aarch64-4k")
    parser.add_argument("--source", type=pathlib.Path, help="a folder with tools/testing/selftests of Linux 5.10")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a test may take")
    parser.add_argument("--output", type=pathlib.Path, help="keep what each test printed in this folder")
    parser.add_argument("tests", nargs="*")
    given = parser.parse_args()
    source = given.source / "tools" / "testing" / "selftests" if given.source else CACHE / "source"
    try:
        if not source.exists():
            unpack(source)
    except Unavailable as error:
        print(f"selftests skipped: {error}")
        sys.exit(SKIP)
    oracle = load_oracle(given.oracle) if given.oracle else None
    worse = False
    for kernel in given.kernel or ("x86_64-4k", "aarch64-4k"):
        for test in (test for test in TESTS if not given.tests or test.program in given.tests):
            try:
                program = build(source, kernel.split("-")[0], test)
            except Unavailable as error:
                print(f"{kernel} | {test.name} | does not build: {error}", flush=True)
                continue
            begun = time.monotonic()
            ours, printed = in_pagewalk(kernel, test, program, given.timeout)
            took = time.monotonic() - begun
            linux, wanted = under_linux(oracle, kernel, test, program, given.timeout) if oracle else ("-", "")
            worse = worse or (linux == "pass" and ours != "pass")
            if given.output:
                given.output.mkdir(parents=True, exist_ok=True)
                name = f"{kernel}.{test.name.replace(' ', '_')}"
                (given.output / f"{name}.ours").write_text(printed)
                (given.output / f"{name}.linux").write_text(wanted)
            print(f"{kernel} | {test.name} | linux {linux} | pagewalk {ours} | {took:.1f} s", flush=True)
    sys.exit(worse)


if __name__ == "__main__":
    main()
