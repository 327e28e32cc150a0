"""What strace prints, with all that differs from run to run replaced by words; and the recorder of tests/emu/strace/.

    python tests/strace_template.py        runs every program of PROGRAMS under the host's strace 6.1 (x86-64), anew

A template keeps each process's lines together, since processes run in whatever order the host likes; cut lines are put
together again. Addresses become ADDR, pids PID1, PID2, ... in the order they were made, times T.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "tests" / "emu" / "strace"
IMAGES = [
    "altstack",
    "brk",
    "bus",
    "cow",
    "exec",
    "faults",
    "filemap",
    "gcbarrier",
    "guard",
    "hello",
    "jit",
    "lazyzero",
    "merge",
    "mmap",
    "pagetables",
    "repair",
    "segv",
    "split",
    "stack",
]
PROGRAMS = {**{name: PROJECT / "images" / "x86_64" / name for name in IMAGES}, "calls": FOLDER / "calls"}
FIRST_PID = 27  # of pagewalk's first program, whose lines carry no pid while it is alone

ATTACHED = re.compile(r"strace: Process \d+ attached\n")
LINE = re.compile(r"(?:\[pid +(\d+)\] |(\d+) +)?(.*)$")
RULES = (
    (re.compile(r'^execve\("/[^"]*", \["/[^\]]*\], 0x\w+ /\* \d+ vars? \*/\)'), "execve(PROGRAM)"),
    (re.compile(r" += "), " = "),
    (re.compile(r"0x[0-9a-f]{5,}"), "ADDR"),
    (re.compile(r"(v_sec|si_utime|si_stime)=\d+(, tv_usec=\d+)?(?=[,}])"), r"\1=T"),
    (re.compile(r'^(read\(\d+, )"(0020|7[ef]|Name).*, (\d+)\) = \d+$'), r"\1PROC, SIZE) = SIZE"),
    (re.compile(r'^(read\(\d+, "", )[1-6]\d{4}\) = 0$'), r"\1SIZE) = 0"),
    (re.compile(r"(= )\d{6,}$"), r"\1NUMBER"),
    (re.compile(r"/\* \d+ vars? \*/"), "/* vars */"),
    (re.compile(r'^(write\(1, ").*'), r"\1OUTPUT"),
)


def processes(text: str) -> dict[int, list[str]]:
    """The whole lines of each process, of `strace -f`'s output with or without pids."""
    lines: dict[int, list[str]] = {}
    begun: dict[int, str] = {}
    for line in ATTACHED.sub("", text).splitlines():
        found = LINE.match(line)
        assert found
        alone = [pid for pid, own in lines.items() if not own or not own[-1].startswith("+++")]
        pid = int(found[1] or found[2] or (alone[0] if alone else FIRST_PID))
        rest = found[3]
        own = lines.setdefault(pid, [])
        cut = re.match(r"(.*?) ?<unfinished \.\.\.>$", rest)
        if cut:
            begun[pid] = cut[1]
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", rest)
        own.append(begun.pop(pid, "") + resumed[1] if resumed else rest)
    return lines


def template(text: str) -> list[str]:
    """The lines of all processes, oldest process first, normalised."""
    found = processes(text)
    names = {str(pid): f"PID{number}" for number, pid in enumerate(sorted(found), 1)}
    pids = re.compile(rf"(?<![\w.])({'|'.join(sorted(names, key=len, reverse=True))})(?!\w)")
    out = []
    for pid in sorted(found):
        out.append(f"{names[str(pid)]}:")
        for line in found[pid]:
            for pattern, word in RULES:
                line = pattern.sub(word, line)
            if re.match(r"\w*(kill|pid|tid|clone|fork|wait4?|waitid|process_vm_\w+)\(|---", line):
                line = pids.sub(lambda match: names[match[1]], line)
            line = re.sub(r"(getppid\(\) = |iov_base=0x|set_tid_address\(ADDR\) = )\w+", r"\1N", line)
            out.append(line)
    return out


def record() -> None:
    """Write the templates of all programs."""
    for name, path in PROGRAMS.items():
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            words = ["/usr/bin/strace", "-f", "-o", str(log), str(path)]
            subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}
            )
            (FOLDER / f"{name}.txt").write_text("\n".join(template(log.read_text())) + "\n")


if __name__ == "__main__":
    sys.exit(record())
