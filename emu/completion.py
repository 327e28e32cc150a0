"""`pagewalk completion bash|zsh|fish`: a completion script, made from the option tables.

    pagewalk completion bash > /etc/bash_completion.d/pagewalk        (or: source <(pagewalk completion bash))
    pagewalk completion zsh > "${fpath[1]}/_pagewalk"
    pagewalk completion fish > ~/.config/fish/completions/pagewalk.fish

Commands and options are completed up to PROGRAM; a value is completed as what it is: one of a few words, a folder, a
file. Everything behind PROGRAM is completed as files, because it belongs to the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.errors import PagewalkError
from emu.options import COMMANDS, groups_of

if TYPE_CHECKING:
    from emu.option_values import Option


def completion(shell: str) -> str:
    """The script for `shell`. Raises PagewalkError for a shell we have none for."""
    if shell not in SHELLS:
        raise PagewalkError(f"completion {shell or '(none)'}: expected {', '.join(SHELLS)}")
    return SHELLS[shell]()


def _options(command: str) -> list[Option]:
    return [option for _, group in groups_of(command) for option in group]


def _words(option: Option) -> list[str]:
    """The few words the value can be, if it is such an option."""
    words = option.metavar.split("|")
    return words if len(words) > 1 and ":" not in option.metavar else []


def _bash() -> str:
    lines = [
        "# bash completion of pagewalk, written by `pagewalk completion bash`",
        "_pagewalk() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}",
        "    COMPREPLY=()",
        "    if ((COMP_CWORD == 1)); then",
        f'        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help --version" -- "$word"))',
        "        return",
        "    fi",
        '    case "$previous" in',
    ]
    seen: set[str] = set()
    for command in COMMANDS:
        for option in _options(command):
            name = "|".join(option.names)
            if name in seen or not option.metavar:
                continue
            seen.add(name)
            if words := _words(option):
                lines.append(f'    {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return ;;')
            elif option.metavar == "DIR":
                lines.append(f'    {name}) COMPREPLY=($(compgen -d -- "$word")); return ;;')
            elif option.metavar not in ("FILE", "[=FILE]"):
                lines.append(f"    {name}) return ;;")
    lines += ["    esac", "    if [[ $word == -* ]]; then", '        case "$command" in']
    for command in COMMANDS:
        names = " ".join(name for option in _options(command) for name in option.names)
        lines.append(f'        {command}) COMPREPLY=($(compgen -W "{names} --help" -- "$word")) ;;')
    lines += [
        "        esac",
        "    else",
        '        COMPREPLY=($(compgen -f -- "$word"))',
        "    fi",
        "}",
        "complete -o filenames -F _pagewalk pagewalk",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """For single quotes of a shell, and for zsh's brackets."""
    return text.replace("'", "'\\''").replace("[", "(").replace("]", ")").replace(":", ";")


def _zsh() -> str:
    lines = ["#compdef pagewalk", "# zsh completion of pagewalk, written by `pagewalk completion zsh`", "_pagewalk() {"]
    lines += ["    local -a commands", "    commands=("]
    lines += [f"        '{name}:{_quoted(text)}'" for name, text in COMMANDS.items()]
    lines += [
        "    )",
        "    if ((CURRENT == 2)); then",
        "        _describe command commands",
        "        return",
        "    fi",
        "    local command=$words[2]",
        "    shift words; ((CURRENT--))",
        "    case $command in",
    ]
    for command in COMMANDS:
        lines.append(f"    {command}) _arguments -S \\")
        for option in _options(command):
            for name in option.names:
                lines.append(f"        '*{name}{_zsh_value(option)}' \\")
        lines.append("        '1:program:_files' '*:argument:_files' ;;")
    lines += ["    esac", "}", '_pagewalk "$@"']
    return "\n".join(lines)


def _zsh_value(option: Option) -> str:
    text = f"[{_quoted(option.help)}]"
    if not option.metavar:
        return text
    if words := _words(option):
        return f"{text}:value:({' '.join(words)})"
    if option.metavar == "DIR":
        return f"{text}:folder:_files -/"
    if option.metavar == "[=FILE]":
        return f"=-{text}::file:_files"
    return f"{text}:{_quoted(option.metavar.lower()).replace(':', ' ')}:{'_files' if option.metavar == 'FILE' else ' '}"


def _fish() -> str:
    lines = [
        "# fish completion of pagewalk, written by `pagewalk completion fish`",
        f"set -l commands {' '.join(COMMANDS)}",
    ]
    for name, text in COMMANDS.items():
        condition = "not __fish_seen_subcommand_from $commands"
        lines.append(f"complete -c pagewalk -n \"{condition}\" -f -a {name} -d '{_fish_quoted(text)}'")
    for command in COMMANDS:
        for option in _options(command):
            lines += [_fish_line(command, option, name) for name in option.names]
    return "\n".join(lines)


def _fish_line(command: str, option: Option, name: str) -> str:
    kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    value = ""
    if words := _words(option):
        value = f" -x -a '{' '.join(words)}'"
    elif option.metavar == "DIR":
        value = " -x -a '(__fish_complete_directories)'"
    elif option.metavar and not option.metavar.startswith("["):
        value = " -r"
    condition = f"__fish_seen_subcommand_from {command}"
    return f"complete -c pagewalk -n '{condition}' {kind}{value} -d '{_fish_quoted(option.help)}'"


def _fish_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
