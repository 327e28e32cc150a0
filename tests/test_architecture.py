"""Rules of the source as a whole, read from its syntax trees."""

import ast
import pathlib
import re
import sys

import pytest
from geometry import PROJECT

PACKAGES = {"mm": {"mm"}, "guest": {"guest", "mm"}, "emu": {"emu", "guest", "mm"}}
THIRD_PARTY = {"mm": set(), "guest": {"elftools"}, "emu": {"elftools", "unicorn", "capstone", "matplotlib", "rich"}}
FILES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
NAMES = [str(path.relative_to(PROJECT)) for path in FILES]
each_file = pytest.mark.parametrize("path", FILES, ids=NAMES)


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            found.add((node.module or "").split(".")[0])
    return found


def forbidden_imports(package: str, source: str) -> set[str]:
    return imported(ast.parse(source)) - PACKAGES[package] - THIRD_PARTY[package] - set(sys.stdlib_module_names)


@each_file
def test_imports_go_one_way(path: pathlib.Path) -> None:
    assert not forbidden_imports(path.relative_to(PROJECT).parts[0], path.read_text())


def test_the_import_check_sees_a_wrong_import() -> None:
    assert forbidden_imports("mm", "def f():\n    from guest.task import Task\n") == {"guest"}
    assert forbidden_imports("guest", "import unicorn.unicorn_const\n") == {"unicorn"}
    assert not forbidden_imports("emu", "import os, unicorn\nfrom mm.types import Page\n")


def arch_tests(source: str) -> list[int]:
    """Lines that compare the name of an architecture, or ask for the class of one."""
    names = {"x86_64", "aarch64", "arm64", "amd64", "x86-64"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            values = {leaf.value for side in sides for leaf in ast.walk(side) if isinstance(leaf, ast.Constant)}
            if names & {value for value in values if isinstance(value, str)}:
                found.append(node.lineno)
        elif isinstance(node, ast.Match) and "arch" in ast.unparse(node.subject):
            found.append(node.lineno)
    return found


@each_file
def test_what_differs_by_architecture_is_in_the_architecture_files(path: pathlib.Path) -> None:
    if not re.search(r"(^|_)arch(_|$)", path.stem):
        assert arch_tests(path.read_text()) == []


def test_the_architecture_check_sees_a_comparison() -> None:
    assert arch_tests("if task.arch.name == 'x86_64':\n    pass\n") == [1]
    assert arch_tests("x = 1 if name in ('arm64', 'other') else 2\n") == [1]
    assert arch_tests("ARCHES = {'x86_64': 1}\n") == []


def changing_globals(source: str) -> list[str]:
    """Names declared `global` in a function: module state that changes."""
    return [name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Global) for name in node.names]


@each_file
def test_no_module_holds_state_that_changes(path: pathlib.Path) -> None:
    assert changing_globals(path.read_text()) == []


@each_file
def test_nothing_is_caught_wholesale(path: pathlib.Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: an invariant raises KernelBug"


@each_file
def test_one_subject_a_file(path: pathlib.Path) -> None:
    assert len(path.read_text().splitlines()) <= 700
