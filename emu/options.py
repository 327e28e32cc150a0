"""The command line as data: every option once, with its parser and its line of help.

Hand-made rather than argparse for two reasons: options end at PROGRAM, whatever follows belongs to the guest, and the
import of argparse is a tenth of a `hello` run.
"""

from __future__ import annotations

from typing import Any

from emu.errors import STATUS_NOT_FOUND, PagewalkError
from emu.option_values import (
    Option,
    algorithm,
    gdb_port,
    geometries,
    injection,
    memory_call,
    mount,
    number,
    one_of,
    page_size,
    pair,
    ram_size,
    seconds,
    size,
    switch,
)


class Options:
    """Parsed options, by attribute. Defaults are those of an untouched oracle machine."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.rw = False
        self.prefix: str | None = None
        self.mounts: list[tuple[str, str, str]] = []
        self.page_size: int | None = None
        self.la57 = False
        self.ram = 1 << 30
        self.cpu: str | None = None
        self.env: list[tuple[str, str]] = []
        self.inherit_env = False
        self.argv0: str | None = None
        self.uid = 0
        self.gid = 0
        self.aslr: int | None = None
        self.stack = 8 << 20
        self.seed = 0
        self.quantum: int | None = None
        self.clock = "virtual"
        self.net = "internal"
        self.strace: str | None = None  # "" is standard error
        self.trace: str | None = None
        self.stats = False
        self.injections: list[Any] = []
        self.algorithms: list[Any] = []
        self.judge = False
        self.gdb: tuple[int, bool] | None = None  # port, whether to wait for the debugger
        self.max_instructions: int | None = None
        self.timeout: float | None = None
        self.check = 0
        self.at_syscall: int | None = None
        self.quiet = False
        self.geometries: list[str] = []
        self.guest_output = False
        self.json = False
        self.plot: str | None = None
        self.exercise: str | None = None
        self.programs: list[str] = []
        self.count = 10
        self.topic: str | None = None
        self.solve = False
        self.svg: str | None = None
        self.color: str = "auto"
        self.faults: list[int] = []
        self.addresses: list[int] = []
        self.calls: list[Any] = []
        self.every = False
        self.last = False
        self.help = False
        self.to = ""  # of `trace`: the form to turn it into
        self.output: str | None = None
        self.save: str | None = None
        self.interval = 0.25  # seconds
        self.program = ""
        self.arguments: list[str] = []


GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "Files the guest sees",
        (
            Option(("--root",), "root", "DIR", str, "a folder", "the guest's / is DIR; PROGRAM is looked up in it"),
            switch("--rw", "rw", "the guest's writes reach the --root folder (else they vanish)"),
            Option(("-L",), "prefix", "DIR", str, "a folder", "look absolute paths up in DIR first, as qemu-user does"),
            Option(
                ("--mount",),
                "mounts",
                "HOST:GUEST[:ro|rw]",
                mount,
                "HOST:GUEST[:ro|rw]",
                "show HOST at GUEST, read-only unless rw; repeatable",
            ),
        ),
    ),
    (
        "The machine",
        (
            Option(
                ("--page-size",),
                "page_size",
                "4k|16k|64k",
                page_size,
                "4k, 16k or 64k",
                "page size; 16k and 64k: arm64",
            ),
            switch("--la57", "la57", "five-level page tables (x86-64)"),
            Option(("--ram",), "ram", "SIZE", ram_size, "a size like 512M", "guest memory [1G], host's as touched"),
            Option(
                ("--net",),
                "net",
                "internal|host-loopback",
                one_of("internal", "host-loopback"),
                "internal or host-loopback",
                "sockets: the guest's own, or the host's 127.0.0.1 [internal]",
            ),
            Option(("--cpu",), "cpu", "MODEL", str, "a CPU model", "CPU model; `--cpu help` lists them"),
        ),
    ),
    (
        "The process",
        (
            Option(("-E",), "env", "KEY=VALUE", pair, "KEY=VALUE", "set an environment variable; repeatable"),
            switch("--inherit-env", "inherit_env", "start from pagewalk's own environment (else it is empty)"),
            Option(("-0",), "argv0", "NAME", str, "a name", "argv[0] of the program [PROGRAM]"),
            Option(("--uid",), "uid", "N", lambda t: number(t, 0, 0xFFFFFFFE), "a user id", "user id [0]"),
            Option(("--gid",), "gid", "N", lambda t: number(t, 0, 0xFFFFFFFE), "a group id", "group id [0]"),
            Option(("--aslr",), "aslr", "SEED", number, "a whole number", "randomise addresses, repeatably [off]"),
            Option(("--stack",), "stack", "SIZE", size, "a size like 8M", "soft limit of the stack [8M]"),
        ),
    ),
    (
        "Time and order",
        (
            Option(
                ("--clock",),
                "clock",
                "virtual|host",
                one_of("virtual", "host"),
                "virtual or host",
                "the guest's time: of its own, repeatable, or the host's [virtual]",
            ),
            Option(
                ("--quantum",),
                "quantum",
                "N",
                lambda t: number(t, 1),
                "a whole number from 1",
                "instructions a task may run while others want to [1000000]",
            ),
            Option(
                ("--seed",),
                "seed",
                "N",
                number,
                "a whole number",
                "of random numbers; not 0: also of the tasks' order and slices [0]",
            ),
        ),
    ),
    (
        "Watching",
        (
            Option(("--strace",), "strace", "[=FILE]", str, "", "system calls and signals as strace prints them"),
            Option(("--trace",), "trace", "FILE", str, "a file", "every event as JSON Lines (docs/trace.md)"),
            switch("--stats", "stats", "at the end: memory map, faults, vmacache, VMA tree, page tables"),
            Option(
                ("--check",),
                "check",
                "0|1|2",
                lambda t: number(t, 0, 2),
                "0, 1 or 2",
                "check invariants: 1 after changes, 2 after every fault and call [0]",
            ),
        ),
    ),
    (
        "Interfering",
        (
            Option(
                ("--inject",),
                "injections",
                "SET:ACTION...",
                injection,
                "SET:ACTION[:when=N]",
                "make calls, frames, faults fail as strace does; repeatable (docs/run.md)",
            ),
            Option(
                ("--algorithm",),
                "algorithms",
                "NAME=FILE.py:FUNCTION",
                algorithm,
                "NAME=FILE.py:FUNCTION",
                "replace find_vma, vma_merge, ... by your own; repeatable (docs/run.md)",
            ),
            switch("--judge", "judge", "run ours beside it, stop at the first different answer"),
        ),
    ),
    (
        "Limits",
        (
            Option(
                ("--max-instructions",),
                "max_instructions",
                "N",
                lambda t: number(t, 1),
                "a whole number",
                "stop after N instructions, status 124",
            ),
            Option(("--timeout",), "timeout", "S", seconds, "seconds", "stop after S seconds, status 124"),
        ),
    ),
)

VIEW_GROUP: tuple[str, tuple[Option, ...]] = (
    "The view",
    (
        Option(
            ("--at-syscall",),
            "at_syscall",
            "N",
            lambda t: number(t, 1),
            "a whole number from 1",
            "stop at the entry of system call N and show that moment",
        ),
        switch("--quiet", "quiet", "drop the guest's own output"),
        Option(("--svg",), "svg", "FILE", str, "a file", "write the drawing as SVG too"),
        Option(("--save",), "save", "FILE", str, "a file", "write the state for pagewalk diff"),
        Option(
            ("--color",),
            "color",
            "auto|always|never",
            one_of("auto", "always", "never"),
            "auto, always or never",
            "ANSI colours [auto: on a terminal]",
        ),
    ),
)

COMPARE_GROUP: tuple[str, tuple[Option, ...]] = (
    "The comparison",
    (
        Option(
            ("--geometry",),
            "geometries",
            "LIST",
            geometries,
            "names with commas",
            "x86_64-4k[-la57], aarch64-4k, aarch64-16k, aarch64-64k [all possible]",
        ),
        switch("--guest-output", "guest_output", "show what the guests print"),
        switch("--json", "json", "numbers as JSON instead of the table"),
        Option(("--plot",), "plot", "FILE", str, "a file", "draw them too: FILE.svg or FILE.png (needs matplotlib)"),
    ),
)

TOP_GROUP: tuple[str, tuple[Option, ...]] = (
    "The screen",
    (Option(("--interval",), "interval", "S", seconds, "seconds", "redraw so often [0.25]"),),
)

COLOR = VIEW_GROUP[1][-1]
QUIET = VIEW_GROUP[1][1]

EXPLAIN_GROUP: tuple[str, tuple[Option, ...]] = (
    "What is explained (without: the last fault; the one that killed the program, if one did)",
    (
        Option(
            ("--fault",),
            "faults",
            "N",
            lambda t: number(t, 1),
            "a whole number from 1",
            "the N-th page fault of the run; repeatable",
        ),
        Option(
            ("--address",),
            "addresses",
            "A",
            number,
            "an address",
            "every fault in the page of this address; repeatable",
        ),
        switch("--all", "every", "every fault"),
        switch("--last", "last", "the last fault"),
        Option(
            ("--call",),
            "calls",
            "N|NAME[:K]",
            memory_call,
            "N or NAME[:K]",
            "the N-th memory call, or the K-th (else each) call of NAME; repeatable",
        ),
        switch("--json", "json", "one JSON object a line; the guest's own output is dropped"),
        QUIET,
        COLOR,
    ),
)

PAGE_GROUP: tuple[str, tuple[Option, ...]] = (
    "The page",
    (
        Option(("-o",), "output", "FILE", str, "a file", "write the page there; - is standard output [page.html]"),
        QUIET,
    ),
)

DEBUG_GROUP: tuple[str, tuple[Option, ...]] = (
    "Debugging",
    (
        Option(
            ("-g",),
            "gdb",
            "PORT[,suspend=n]",
            gdb_port,
            "PORT or PORT,suspend=n",
            "wait for gdb on 127.0.0.1:PORT, 0: any free one; suspend=n: run till it comes",
        ),
    ),
)

COMMANDS = {
    "run": "run a program",
    "gdb": "run a program under a debugger (-g PORT, 1234 if not given)",
    "maps": "run it, then print the memory map as /proc/PID/maps",
    "tree": "run it, then draw the red-black tree of its VMAs",
    "pagetables": "run it, then print its page tables, every entry decoded",
    "view": "run it, or read its --trace FILE, and write a page for the browser that shows every step",
    "compare": "run it under several page sizes, and compare faults, tables, memory",
    "trace": "turn what run --trace wrote into another form",
    "diff": "what differs between two states that maps --save wrote",
    "top": "run it, and watch its faults, memory and calls on the terminal",
    "explain": "run it, and tell its page faults or memory calls step by step",
    "grade": "try a student's algorithm on small states and real programs, with points",
    "quiz": "ask questions about states of real runs, and check the answers",
}

# Commands that run no program: the names of their operands, and their options, which may stand behind those.
TOOLS: dict[str, tuple[str, tuple[tuple[str, tuple[Option, ...]], ...]]] = {
    "trace": (
        "FILE",
        (
            (
                "The form",
                (
                    Option(
                        ("--to",),
                        "to",
                        "strace|chrome|summary|folded",
                        one_of("strace", "chrome", "summary", "folded"),
                        "strace, chrome, summary or folded",
                        "strace's text, JSON for Perfetto, tables, or flame-graph stacks",
                    ),
                    Option(("-o",), "output", "OUT", str, "a file", "write it there [standard output]"),
                ),
            ),
        ),
    ),
    "diff": ("A B", (("The drawing", (VIEW_GROUP[1][2], COLOR)),)),
    "grade": ("FILE", ()),
    "quiz": ("", ()),  # their options are in options_teach.py
}
# Of commands that have options of their own; the views share VIEW_GROUP.
OWN_GROUPS = {"compare": COMPARE_GROUP, "explain": EXPLAIN_GROUP, "view": PAGE_GROUP, "top": TOP_GROUP}


def groups_of(command: str) -> tuple[tuple[str, tuple[Option, ...]], ...]:
    """The option groups a command takes."""
    if command in TOOLS:
        groups = TOOLS[command][1]
        if not groups:
            from emu.options_teach import TEACH_GROUPS

            groups = TEACH_GROUPS[command]
        return groups
    if command in ("run", "gdb"):
        return (*GROUPS, DEBUG_GROUP)
    own = OWN_GROUPS.get(command, VIEW_GROUP)
    return (own, *GROUPS)


def parse(command: str, words: list[str]) -> Options:
    """Options, PROGRAM and its arguments.

    Raises:
        PagewalkError: an unknown option, a missing or malformed value, no PROGRAM.
    """
    options = Options()
    table = {name: option for _, group in groups_of(command) for option in group for name in option.names}
    at = 0
    while at < len(words):
        word = words[at]
        if word in ("--help", "-h"):
            options.help = True
            return options
        if word == "--" or not word.startswith("-") or word == "-":
            if command in TOOLS and word != "--":
                options.arguments.append(word)
                at += 1
                continue
            at += word == "--"
            break
        at = _take(command, table, words, at, options)
    if command in TOOLS:
        return _operands(command, options, [*options.arguments, *words[at:]])
    if options.cpu == "help":
        return options
    if at == len(words):
        raise PagewalkError(f"no program given (usage: pagewalk {command} [options] PROGRAM [ARG...])")
    options.program, options.arguments = words[at], words[at + 1 :]
    if not options.program:
        raise PagewalkError("the program's name is empty", STATUS_NOT_FOUND)
    if options.judge and not options.algorithms:
        raise PagewalkError("--judge needs --algorithm: there is nothing to compare")
    if options.rw and options.root is None:
        raise PagewalkError("--rw needs --root: without it there is no folder to write to")
    return options


def _take(command: str, table: dict[str, Option], words: list[str], at: int, options: Options) -> int:
    """Read the option at words[at]; the index behind it and its value."""
    word = words[at]
    at += 1
    name, equals, value = word.partition("=")
    option = table.get(name)
    if option is None and not word.startswith("--"):  # -EKEY=VALUE, -0NAME
        name, equals, value = word[:2], word[2:], word[2:]
        option = table.get(name)
    if option is None:
        raise PagewalkError(f"unknown option {name} (pagewalk {command} --help lists them)")
    if not option.metavar:
        if equals:
            raise PagewalkError(f"{name} takes no value")
    elif not equals and not option.metavar.startswith("["):
        if at == len(words):
            raise PagewalkError(f"{name} needs a value: {option.metavar}")
        value = words[at]
        at += 1
    option.set(options, value)
    return at


def _operands(command: str, options: Options, found: list[str]) -> Options:
    """The operands of a tool: as many as it has names for. Raises PagewalkError."""
    names = TOOLS[command][0].split()
    if len(found) != len(names):
        few = f"no {names[len(found)]} given" if len(found) < len(names) else f"{found[len(names)]}: one too many"
        raise PagewalkError(f"{few} (usage: {' '.join(['pagewalk', command, '[options]', *names])})")
    options.program, options.arguments = "".join(found[:1]), found[1:]
    return options


def help_text(command: str) -> str:
    """`pagewalk COMMAND --help`."""
    operands = TOOLS[command][0] if command in TOOLS else "PROGRAM [ARG...]"
    lines = [f"usage: pagewalk {command} [options] {operands}".rstrip(), "", COMMANDS[command].capitalize() + ".", ""]
    for title, group in groups_of(command):
        lines.append(f"{title}:")
        for option in group:
            metavar = option.metavar
            left = option.names[0] + (metavar if metavar.startswith("[=") else f" {metavar}" if metavar else "")
            lines.append(f"  {left:<30}{option.help}" if len(left) < 30 else f"  {left}\n{'':32}{option.help}")
        lines.append("")
    if command in TOOLS:
        return "\n".join(lines[:-1])
    lines += [
        "Options end at PROGRAM. The architecture is the ELF file's.",
        "Status: the guest's; 128+n when signal n killed it; 124 at a limit; 125 refused; 126 cannot be executed;",
        "127 not found.",
    ]
    return "\n".join(lines)


def usage() -> str:
    """`pagewalk --help`."""
    lines = ["usage: pagewalk COMMAND [options] PROGRAM [ARG...]", ""]
    lines.append("Runs a Linux program on an emulated CPU, with Linux 5.10's memory management in Python.")
    lines += ["", "Commands:"]
    lines += [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    lines += ["", "pagewalk COMMAND --help lists the options."]
    return "\n".join(lines)
