"""A program under `pagewalk gdb`, and sessions of the real gdb on it (Debian's gdb-multiarch)."""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILT = ROOT / "tests" / "gdb" / "built"
GDB = shutil.which("gdb-multiarch")
ARCHES = ("x86_64", "aarch64")


class Debugged:
    """`pagewalk gdb -g 0 target WHAT`, and gdb sessions on it."""

    def __init__(self, arch: str, *words: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> None:
        self.program = BUILT / arch / "target"
        command = [sys.executable, "-m", "emu", "gdb", "-g", "0", *options, str(self.program), *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.process.stdin = None
        line = self.process.stderr.readline().decode()
        self.port = int(line.rpartition(":")[2])

    def gdb(self, *commands: str, before: tuple[str, ...] = (), how: str = "remote") -> str:
        """One session; what gdb printed."""
        script = ["set confirm off", "set pagination off", "set width 0", *before]
        script += [f"target {how} 127.0.0.1:{self.port}", *commands]
        words = [word for command in script for word in ("-ex", command)]
        done = subprocess.run(
            [str(GDB), "-nx", "-batch", *words, str(self.program)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "replace")

    def end(self) -> tuple[int, str]:
        """Status and output of the program."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode()


def said(text: str, *wanted: str) -> None:
    """Each of the regular expressions was printed, in this order."""
    at = 0
    for pattern in wanted:
        found = re.compile(pattern, re.MULTILINE).search(text, at)
        assert found is not None, f"{pattern!r} is not in what follows:\n{text[at:]}\n--- of all:\n{text}"
        at = found.end()
