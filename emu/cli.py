"""The `pagewalk` command.

    pagewalk run [options] PROGRAM [ARG...]
    pagewalk maps|tree|pagetables [options] PROGRAM [ARG...]
    pagewalk trace FILE --to strace|chrome|summary|folded
    pagewalk grade FILE, pagewalk quiz (docs/teaching.md)

Whatever goes wrong is one line on standard error and a status (docs/run.md): 124 a limit was reached, 125 pagewalk
refuses, 126 the program cannot be executed, 127 it was not found, 128+n it died of signal n. Only what a plain `run`
needs is imported at the top; `hello` must start fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine
    from emu.options import Options

STATUS_LIMIT = 124  # --timeout or --max-instructions, as timeout(1)
STATUS_BUG = 125
GDB_PORT = 1234  # as QEMU's and gdbserver's examples have it
SIGINT, SIGPIPE = 2, 13
SILENT_SIGNALS = (SIGINT, SIGPIPE)  # a shell says nothing about these


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        status = _main(words)
        sys.stdout.flush()
    except PagewalkError as error:
        complain(str(error))
        return error.status
    except KeyboardInterrupt:
        return 128 + SIGINT
    except BrokenPipeError:
        return _broken_pipe()
    return status


def complain(message: str) -> None:
    """One line on standard error; whatever control characters a name holds are escaped."""
    data = message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in data)
    print(f"pagewalk: {shown}", file=sys.stderr)


def _broken_pipe() -> int:
    """The reader of our output left: be as quiet as a program that SIGPIPE kills."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + SIGPIPE


def _main(words: list[str]) -> int:
    """Choose the command."""
    from emu import options as opt

    if not words or words[0] in ("--help", "-h", "help"):
        print(opt.usage())
        return 0 if words else STATUS_BUG
    command, *rest = words
    if command == "--version":
        print(f"pagewalk {_version()}")
        return 0
    if command == "completion":
        from emu.completion import completion

        print(completion(rest[0] if rest else ""))
        return 0
    if command not in opt.COMMANDS:
        raise PagewalkError(f"unknown command {command!r}: {', '.join(opt.COMMANDS)} (pagewalk --help)")
    options = opt.parse(command, rest)
    if options.help:
        print(opt.help_text(command))
        return 0
    if options.cpu == "help":
        return _list_cpus()
    if command == "run":
        return run(options)
    if command == "gdb":
        options.gdb = options.gdb or (GDB_PORT, True)
        return run(options)
    if command == "compare":
        from emu.compare import compare

        return compare(options)
    if command == "diff":
        from emu.diff import diff

        return diff(options)
    if command == "top":
        from emu.top import top

        return top(options)
    if command == "trace":
        from emu.trace_read import convert

        return convert(options)
    if command == "explain":
        from emu.explain import explain

        return explain(options)
    if command == "grade":
        from emu.grade import command as grade

        return grade(options)
    if command == "view":
        from emu.page import view

        return view(options)
    if command == "quiz":
        from emu.quiz import command as quiz

        return quiz(options)
    from emu.show import show

    return show(command, options)


def _version() -> str:
    """The installed version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pagewalk")
    except PackageNotFoundError:
        return "(not installed)"


def _list_cpus() -> int:
    """`--cpu help`."""
    from emu.arch import cpu_models

    for architecture, models in cpu_models().items():
        print(f"{architecture}:")
        for model in models:
            print(f"  {model}")
    return 0


def build(options: Options, **changes: Any) -> Machine:
    """The machine the options describe, with its program loaded."""
    from emu.machine import Machine

    if options.root is not None:
        check_folder("--root", options.root)
    if options.prefix is not None:
        check_folder("-L", options.prefix)
    for host, _, _ in options.mounts:
        check_folder("--mount", host)
    machine = Machine(
        None,
        page_size=options.page_size,
        la57=options.la57,
        ram=options.ram,
        cpu=options.cpu,
        root=options.root,
        rw=options.rw,
        prefix=options.prefix,
        mounts=tuple(options.mounts),
        env=environment(options),
        uid=options.uid,
        gid=options.gid,
        aslr=options.aslr,
        stack=options.stack,
        check=options.check,
        seed=options.seed,
        quantum=options.quantum,
        clock=options.clock,
        net=options.net,
        algorithm={algorithm.name: algorithm.function for algorithm in options.algorithms},
        judge=options.judge,
        **changes,
    )
    if options.injections:
        from emu.inject import Injector

        Injector(machine, options.injections)
    return machine


def check_folder(option: str, path: str) -> None:
    """Refuse a folder the guest could not see. Raises PagewalkError."""
    import os

    try:
        os.scandir(path).close()
    except OSError as error:
        raise PagewalkError(f"{option} {path}: {error.strerror}") from None


def environment(options: Options) -> dict[str, str]:
    """The guest's environment: empty, or ours, then what -E sets."""
    env: dict[str, str] = {}
    if options.inherit_env:
        import os

        env.update(os.environ)
    env.update(options.env)
    return env


def load(machine: Machine, options: Options) -> None:
    """Load PROGRAM with its arguments."""
    machine.load(options.program, [options.argv0 or options.program, *options.arguments])


def run(options: Options) -> int:
    """`pagewalk run`."""
    if options.algorithms:
        return _run_replaced(options)
    return _run(options)


def _run_replaced(options: Options) -> int:
    """A run with algorithms of the user's: what goes wrong is told as theirs."""
    from emu.algorithm import explain_breakage
    from emu.judge import Divergence

    try:
        return _run(options)
    except Divergence as divergence:
        print(divergence.report, file=sys.stderr)
        raise
    except (PagewalkError, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - a wrong answer can break anything
        raise PagewalkError(explain_breakage(error, options.algorithms)) from None


def _run(options: Options) -> int:
    """Build, load, run to the end."""
    if options.gdb is not None:
        from emu.gdb import debug

        return debug(options)
    machine = build(options)
    if options.strace is None and options.trace is None and not options.stats:
        load(machine, options)
        return finish(machine, options)
    from emu.observe import Observers

    observers = Observers(machine, options)
    try:
        load(machine, options)
        status = finish(machine, options, observers.closing)
    finally:
        observers.close()
    return status


def finish(machine: Machine, options: Options, closing: Callable[[str, int], None] | None = None) -> int:
    """Run to the end; say what killed the program, if something did; the exit status.

    Args:
        closing: called with how the run ended in words and the status, before anything is printed about it.
    """
    from mm.errors import KernelBug

    message = ""
    guard_terminal(machine)
    try:
        end = machine.run(max_instructions=options.max_instructions, timeout=options.timeout)
    except KeyboardInterrupt:
        outcome, status = "interrupted", 128 + SIGINT
    except KernelBug as bug:
        _report_bug(machine, bug)
        outcome, status = "stopped by a bug of pagewalk", STATUS_BUG
    else:
        outcome, message, status = describe(end, options)
    finally:
        if machine.terminal is not None:
            machine.terminal.close()
            machine.terminal = None
    if closing is not None:
        closing(outcome, status)
    if message:
        print(message, file=sys.stderr)
    return status


def guard_terminal(machine: Machine) -> None:
    """Where a standard stream of the guest is a terminal, it gets its signals until the run is over."""
    tty = machine.kernel.vfs.tty
    if tty is not None:
        from emu.terminal import Terminal

        machine.terminal = Terminal(machine, tty)


def describe(end: Any, options: Options) -> tuple[str, str, int]:
    """(how it ended, the line for the user or "", exit status) of `Machine.run`'s result."""
    if end.reason == "timeout":
        return "timeout", f"pagewalk: stopped after {options.timeout:g} s (--timeout)", STATUS_LIMIT
    if end.reason == "max_instructions":
        text = f"pagewalk: stopped after {options.max_instructions} instructions (--max-instructions)"
        return "instruction limit", text, STATUS_LIMIT
    if end.signal:
        from emu.strace_values import signal_name

        text = signal_description(end.signal)
        return f"killed by {signal_name(end.signal)}", "" if end.signal in SILENT_SIGNALS else text, 128 + end.signal
    return f"exited with {end.status}", "", int(end.status)


def signal_description(number: int) -> str:
    """What a shell prints about a signal. A core file is the guest's own affair, so there is no "(core dumped)"."""
    import signal

    if number >= signal.SIGRTMIN:
        return f"Real-time signal {number - signal.SIGRTMIN}"
    return signal.strsignal(number) or f"Unknown signal {number}"


def _report_bug(machine: Machine, bug: BaseException) -> None:
    """An invariant broke: the traceback and the state that contradicts it."""
    import traceback

    traceback.print_exception(bug)
    mm = getattr(bug, "mm", None)
    task = machine.kernel.current
    if task is not None and task.mm is not None and mm in (None, task.mm):
        from mm.mmdump import mmdump

        print(mmdump(task), file=sys.stderr)
    print("pagewalk: this is a bug of pagewalk: an invariant of its memory management broke", file=sys.stderr)
