"""Completion scripts: made from the option tables, and what bash makes of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from emu import PagewalkError
from emu.completion import completion
from emu.options import COMMANDS, groups_of


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option(shell: str) -> None:
    script = completion(shell)
    for command in COMMANDS:
        assert command in script
        for _, group in groups_of(command):
            for option in group:
                for name in option.names:
                    assert (name if shell != "fish" else name.lstrip("-")) in script


def test_unknown_shell() -> None:
    with pytest.raises(PagewalkError, match="expected bash, zsh, fish"):
        completion("csh")


def complete(*words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _pagewalk; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-c", completion("bash") + "\n" + ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash() -> None:
    assert complete("pagewalk", "pag") == ["pagetables"]
    assert complete("pagewalk", "run", "--page-size", "") == ["4k", "16k", "64k"]
    assert complete("pagewalk", "run", "--at-sys") == []
    assert complete("pagewalk", "tree", "--at-sys") == ["--at-syscall"]
