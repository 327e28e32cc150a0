"""The command line: what is parsed, what is refused, and how the refusal reads."""

from __future__ import annotations

import pytest

from emu import cli
from emu.errors import PagewalkError
from emu.option_values import size
from emu.options import COMMANDS, GROUPS, TOOLS, Options, groups_of, help_text, parse, usage


def test_options_end_at_program() -> None:
    options = parse("run", ["--stats", "--ram", "64m", "prog", "--stats", "-0", "--help"])
    assert (options.program, options.arguments) == ("prog", ["--stats", "-0", "--help"])
    assert options.stats
    assert options.ram == 64 << 20


def test_defaults_are_the_oracles_machine() -> None:
    options = parse("run", ["prog"])
    assert (options.ram, options.stack, options.uid, options.gid, options.aslr) == (1 << 30, 8 << 20, 0, 0, None)
    assert cli.environment(options) == {}


def test_every_spelling() -> None:
    words = "--root=/r --rw --mount /a:/b --mount=/c:/d:rw --page-size 64K --la57 --cpu max -E A=1 -EB=2=3 -0 name"
    words += " --uid 5 --gid=6 --aslr 7 --stack 1m --seed 0x10 --strace=log --trace t --check 2 --timeout 1.5 prog"
    options = parse("run", words.split())
    assert options.root == "/r"
    assert options.rw
    assert options.mounts == [("/a", "/b", "ro"), ("/c", "/d", "rw")]
    assert options.page_size == 65536
    assert options.la57
    assert options.cpu == "max"
    assert options.env == [("A", "1"), ("B", "2=3")]
    assert options.argv0 == "name"
    assert (options.uid, options.gid, options.aslr, options.seed) == (5, 6, 7, 16)
    assert options.stack == 1 << 20
    assert (options.strace, options.trace, options.check, options.timeout) == ("log", "t", 2, 1.5)


def test_strace_takes_a_file_only_with_an_equals_sign() -> None:
    options = parse("run", ["--strace", "prog"])
    assert options.strace == ""
    assert options.program == "prog"


def test_double_dash_ends_options() -> None:
    assert parse("run", ["--", "-odd"]).program == "-odd"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "1")
    options = parse("run", ["--inherit-env", "-E", "X=2", "prog"])
    env = cli.environment(options)
    assert env["FROM_OUTSIDE"] == "1"
    assert env["X"] == "2"


@pytest.mark.parametrize(("text", "value"), [("4096", 4096), ("64k", 65536), ("1G", 1 << 30), ("0x1000", 4096)])
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


REFUSED = {
    "": "no program given",
    "--ram": "--ram needs a value: SIZE",
    "--ram x prog": "--ram x: expected a size like 512M",
    "--ram 1m prog": "--ram 1m: too small, the machine needs at least 4M",
    "--ram 4097k prog": "--ram 4097k: not a multiple of 64k, the largest page size",
    "--ram 2000g prog": "--ram 2000g: too large, the machine takes at most 1024G",
    "--ram -1 prog": "--ram -1: expected a size like 512M",
    "--page-size 8k prog": "--page-size 8k: expected 4k, 16k or 64k",
    "--mount /a prog": "--mount /a: expected HOST:GUEST[:ro|rw]",
    "--mount /a:b prog": "--mount /a:b: expected HOST:GUEST[:ro|rw]",
    "--mount /a:/b:xx prog": "--mount /a:/b:xx: expected HOST:GUEST[:ro|rw]",
    "-E A prog": "-E A: expected KEY=VALUE",
    "--uid -1 prog": "--uid -1: expected a user id",
    "--gid x prog": "--gid x: expected a group id",
    "--aslr x prog": "--aslr x: expected a whole number",
    "--stack 0 prog": "--stack 0: expected a size like 8M",
    "--check 3 prog": "--check 3: expected 0, 1 or 2",
    "--timeout 0 prog": "--timeout 0: expected seconds",
    "--timeout nan prog": "--timeout nan: expected seconds",
    "--max-instructions 0 prog": "--max-instructions 0: expected a whole number",
    "--rw prog": "--rw needs --root: without it there is no folder to write to",
    "--stats=1 prog": "--stats takes no value",
    "--nope prog": "unknown option --nope (pagewalk run --help lists them)",
    "-x prog": "unknown option -x (pagewalk run --help lists them)",
    "--at-syscall 1 prog": "unknown option --at-syscall (pagewalk run --help lists them)",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, status 125, nothing else on the terminal."""
    assert cli.main(["run", *words.split()]) == 125
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"pagewalk: {REFUSED[words]}")
    assert err.count("\n") == 1


def test_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dance"]) == 125
    known = ", ".join(COMMANDS)
    assert capfd.readouterr().err == f"pagewalk: unknown command 'dance': {known} (pagewalk --help)\n"
    assert cli.main([]) == 125
    assert cli.main(["--help"]) == 0
    assert cli.main(["run", "--ram", "8m", "--help"]) == 0
    assert "--max-instructions N" in capfd.readouterr().out


def test_control_characters_of_a_name_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    cli.complain("bad\n\x1b[31mname")
    cli.complain("caf\u00e9 \udcff")
    assert capfd.readouterr().err == "pagewalk: bad\\n\\x1b[31mname\npagewalk: caf\u00e9 \\xff\n"


def test_help_names_every_option_and_fits_a_terminal() -> None:
    for command in COMMANDS:
        text = help_text(command)
        for _, group in groups_of(command) if command in TOOLS else GROUPS:
            for option in group:
                assert f"  {option.names[0]}" in text
        assert max(map(len, text.splitlines())) <= 110
    assert all(command in usage() for command in COMMANDS)


def test_every_option_sets_a_field_that_exists() -> None:
    options = Options()
    for _, group in (*GROUPS, *(group for command in TOOLS for group in groups_of(command))):
        for option in group:
            assert hasattr(options, option.attribute)


def test_a_tools_options_may_follow_its_operands() -> None:
    options = parse("trace", ["t.jsonl", "--to", "chrome", "-o", "out"])
    assert (options.program, options.to, options.output) == ("t.jsonl", "chrome", "out")
    assert parse("trace", ["--to=folded", "--", "-odd"]).program == "-odd"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no FILE given (usage: pagewalk trace [options] FILE)"),
        ("a b", "b: one too many (usage: pagewalk trace [options] FILE)"),
        ("a --to x", "--to x: expected strace, chrome, summary or folded"),
        ("a --stats", "unknown option --stats (pagewalk trace --help lists them)"),
    ],
)
def test_refusals_of_a_tool(words: str, message: str) -> None:
    with pytest.raises(PagewalkError) as refusal:
        parse("trace", words.split())
    assert str(refusal.value) == message


def test_an_empty_name_is_not_found() -> None:
    with pytest.raises(PagewalkError) as refusal:
        parse("run", [""])
    assert refusal.value.status == 127
