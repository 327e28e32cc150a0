"""The table of served system calls as Markdown, for the README.

    python -m guest.support              print it
    python -m guest.support README.md    put it between the two marker lines of that file

A test compares the README with the table, so the file can not claim what the code does not have.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from guest.syscall_numbers import NAMES
from guest.syscalls import FAMILIES, PARTIAL, Call

BEGIN = "<!-- system calls: written by `python -m guest.support README.md` -->"
END = "<!-- end of system calls -->"
MARKS = {"x86_64": "¹", "aarch64": "²"}  # a call that one architecture alone has


def _mark(calls: list[Call]) -> str:
    """The name of a call (several entries: one per architecture), marked where only one architecture has it."""
    name = calls[0].name
    only = {call.only for call in calls}
    where = [arch for arch, numbers in NAMES.items() if name in numbers.values() and (only & {"", arch})]
    marked = name + (MARKS[where[0]] if len(where) == 1 else "")
    return f"*{marked}*" if calls[0].support == PARTIAL else marked


def _families() -> list[tuple[str, list[list[Call]]]]:
    """(title, entries by name) of each family; the title is the module's name without its prefix."""
    found = []
    for name in FAMILIES:
        if find_spec(name) is not None:
            by_name: dict[str, list[Call]] = {}
            for call in import_module(name).CALLS:
                by_name.setdefault(call[0], []).append(call if isinstance(call, Call) else Call(*call))
            title = name.removeprefix("guest.").removeprefix("sys_").replace("_", " ")
            found.append((title, [by_name[key] for key in sorted(by_name)]))
    return found


def markdown() -> str:
    """The table and, below it, what the partial calls lack."""
    families = _families()
    everything = [calls for _, family in families for calls in family]
    partial = sorted((calls for calls in everything if calls[0].support == PARTIAL), key=lambda calls: calls[0].name)
    lines = [
        f"{len(everything)} calls are served, {len(partial)} of them in part (in italics). Every other call returns "
        "-ENOSYS and is named once with `--strace` or `--stats`. "
        f"{MARKS['x86_64']} x86-64 only, {MARKS['aarch64']} arm64 only.",
        "",
        "| family | calls |",
        "|---|---|",
        *(f"| {title} | {', '.join(_mark(calls) for calls in family)} |" for title, family in families),
        "",
        "| in part | what is missing or different |",
        "|---|---|",
        *(f"| {_mark(calls)} | {calls[0].note} |" for calls in partial),
    ]
    return "\n".join(lines) + "\n"


def between_markers(text: str) -> tuple[int, int]:
    """Where in `text` the table stands.

    Raises:
        ValueError: a marker line is missing.
    """
    start = text.index(BEGIN) + len(BEGIN) + 1
    return start, text.index(END, start)


def main() -> None:
    """Print the table, or write it into the file named."""
    if len(sys.argv) < 2:
        sys.stdout.write(markdown())
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    start, end = between_markers(text)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text[:start] + markdown() + text[end:])


if __name__ == "__main__":
    main()
