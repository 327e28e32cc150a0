"""What the documents claim is what the code has: deviations, the system call table, the commands shown."""

import pathlib
import re

import pytest
from geometry import PROJECT

from guest.support import between_markers, markdown
from guest.syscall_numbers import NAMES
from guest.syscalls import FULL, PARTIAL, calls

TAG = re.compile(r"\bDEVIATION (D\d+)\b")


def tagged() -> dict[str, list[str]]:
    """Deviation number -> the files that carry its tag."""
    found: dict[str, list[str]] = {}
    for package in ("emu", "guest", "mm"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            for number in TAG.findall(path.read_text()):
                found.setdefault(number, []).append(str(path.relative_to(PROJECT)))
    return found


def listed() -> set[str]:
    """Deviation numbers of the table in mm/README.md."""
    return set(re.findall(r"^\| (D\d+) \|", (PROJECT / "mm" / "README.md").read_text(), re.MULTILINE))


def test_every_deviation_in_the_code_is_listed_and_the_other_way_round() -> None:
    assert set(tagged()) == listed()


def test_a_deviation_is_written_as_the_tag() -> None:
    for package in ("emu", "guest", "mm"):
        for path in (PROJECT / package).rglob("*.py"):
            for line in path.read_text().splitlines():
                if "DEVIATION" in line:
                    assert TAG.search(line), f"{path.name}: {line.strip()}"


def test_readme_has_the_system_call_table_of_the_code() -> None:
    text = (PROJECT / "README.md").read_text()
    start, end = between_markers(text)
    assert text[start:end] == markdown(), "run: python -m guest.support README.md"


@pytest.mark.parametrize("call", calls().values(), ids=calls())
def test_a_call_has_a_number_a_level_and_a_note_where_it_is_partial(call) -> None:
    assert call.support in (FULL, PARTIAL)
    assert bool(call.note) or call.support == FULL
    arches = [arch for arch, numbers in NAMES.items() if call.name in numbers.values()]
    assert arches
    assert call.only in ("", *arches)


@pytest.mark.parametrize("document", ["README.md", "mm/README.md", "images/README.md"])
def test_the_files_a_document_links_to_exist(document: str) -> None:
    path = PROJECT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", (PROJECT / "README.md").read_text())) <= targets


def test_licence_is_the_full_text() -> None:
    text = pathlib.Path(PROJECT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text
