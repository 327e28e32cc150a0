"""What the documents claim is what the code has: deviations, the system call table, the commands shown."""

import pathlib
import re

import pytest
from geometry import PROJECT, run_guest

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


def test_every_file_of_mm_has_its_place_in_the_name_table() -> None:
    text = (PROJECT / "mm" / "README.md").read_text()
    table = text[text.index("| Linux | here |") : text.index("## Invariants")]
    files = {path.name for path in (PROJECT / "mm").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\b\w+\.py\b", table)) == files


@pytest.mark.parametrize("module", ["validate", "validate_pages"])
def test_the_invariants_are_listed(module: str) -> None:
    text = (PROJECT / "mm" / "README.md").read_text()
    table = "\n".join(re.findall(r"^\| ([IP]\d[IP\d, ]*) \|", text, re.MULTILINE))
    explained = set(re.findall(r"^ +([IP]\d+) ", (PROJECT / "mm" / f"{module}.py").read_text(), re.MULTILINE))
    assert len(explained) >= 12
    assert explained <= set(re.findall(r"[IP]\d+", table))


def test_the_mmap_that_is_followed_really_goes_so(tmp_path: pathlib.Path) -> None:
    """Addresses, entries, flags and gaps of the walk-through occur in what the program prints."""
    text = (PROJECT / "mm" / "README.md").read_text()
    walk = text[text.index("## One mmap") : text.index("## Where Linux")]
    shown = re.findall(r"\b[0-9a-f]{5,}\b", "\n".join(re.findall(r"^    .*$", walk, re.MULTILINE)))
    (tmp_path / "vmops").write_bytes((PROJECT / "tests/golden/bin/vmops.x86_64").read_bytes())
    (tmp_path / "vmops").chmod(0o755)
    (tmp_path / "walk").write_text("a = mmap 0 8p 3 0x22 -1 0\nr a\nw a+1p 7\nmprotect a+1p 1p 1\n")
    status, output, _ = run_guest("x86_64-4k", "/vmops", ["/vmops", "/walk"], root=str(tmp_path))
    assert status == 0
    assert len(shown) > 30
    assert set(shown) <= set(re.findall(r"\b[0-9a-f]{5,}\b", output.decode()))
    caches = re.findall(r"^    cache:  (\S+ \S+ \S+ \S+)", walk, re.MULTILINE)
    assert re.findall(r"^cache valid (.*)$", output.decode(), re.MULTILINE)[1:] == [*caches[:2], caches[1], caches[2]]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", (PROJECT / "README.md").read_text())) <= targets


def test_licence_is_the_full_text() -> None:
    text = pathlib.Path(PROJECT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text
