"""Run the cases on pagewalk, and the README's table of them.

PYTHONPATH=tests:. python tests/programs/run.py              run all, print the table
PYTHONPATH=tests:. python tests/programs/run.py README.md    and put it between the two marker lines of that file
PYTHONPATH=tests:. python tests/programs/run.py NAME...      run those cases only
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from debian import Unavailable  # noqa: E402
from geometry import make_machine  # noqa: E402
from programs.roots import root_of  # noqa: E402
from programs.table import CASES, Case  # noqa: E402

from emu.errors import PagewalkError  # noqa: E402

BEGIN = "<!-- programs: written by `python tests/programs/run.py README.md` -->"
END = "<!-- end of programs -->"
#: Geometries -> Debian's name of the architecture.
ARCHITECTURES = {"x86_64-4k": "amd64", "aarch64-4k": "arm64", "aarch64-16k": "arm64", "aarch64-64k": "arm64"}
COLUMNS = {"x86_64-4k": "amd64", "aarch64-4k": "arm64", "aarch64-16k": "arm64, 16K", "aarch64-64k": "arm64, 64K"}


def expected(case: Case) -> tuple[int, str]:
    """Status and output under Linux."""
    head, _, text = (HERE / "expected" / case.name).read_bytes().partition(b"\n")
    return int(head.split()[1]), text.decode()


def outcome(case: Case, kernel: str) -> tuple[int, str, str]:
    """Status, output and errors on pagewalk. Raises Unavailable."""
    root = root_of(ARCHITECTURES[kernel])
    machine = make_machine(kernel, root=str(root), env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    machine.load(case.argv[0], case.argv)
    end = machine.run(timeout=300)
    status = 128 + end.signal if end.signal else end.status
    return status, machine.output.decode(), machine.errors.decode()


def table(results: dict[tuple[str, str], bool]) -> str:
    """As Markdown."""
    lines = ["| program | what is run | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for case in CASES:
        marks = ["as Linux" if results[case.name, k] else "fails" if k in case.kernels else "" for k in COLUMNS]
        lines.append(f"| {case.name} | {case.shows} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def claimed(readme: str) -> dict[tuple[str, str], bool]:
    """What the README's table says works."""
    body = readme[readme.index(BEGIN) : readme.index(END)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:1] == "|"]
    kernels = list(COLUMNS)
    return {(row[0], k): row[2 + i] == "as Linux" for row in rows[2:] for i, k in enumerate(kernels)}


def main() -> None:
    """Run everything; the table on standard output or in the file named."""
    import time

    results = {}
    names = [] if sys.argv[1:] == ["README.md"] else sys.argv[1:]
    for case in CASES:
        if names and case.name not in names:
            continue
        for kernel in COLUMNS:
            results[case.name, kernel] = False
            if kernel not in case.kernels:
                continue
            start = time.monotonic()
            try:
                status, output, errors = outcome(case, kernel)
            except (PagewalkError, Unavailable) as error:
                status, output, errors = -1, "", f"{type(error).__name__}: {error}"
            right = (status, output) == expected(case)
            results[case.name, kernel] = right
            print(f"{case.name:20} {kernel:12} {time.monotonic() - start:6.1f} s {right}", file=sys.stderr, flush=True)
            if not right:
                print(status, output[-1500:], errors[-1500:], file=sys.stderr, flush=True)
    if names:
        return
    text = table(results)
    if len(sys.argv) < 2:
        print(text)
        return
    path = pathlib.Path(sys.argv[1])
    readme = path.read_text(encoding="utf-8")
    start, end = readme.index(BEGIN) + len(BEGIN) + 1, readme.index(END)
    path.write_text(readme[:start] + text + readme[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
