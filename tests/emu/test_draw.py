"""The drawings, on small address spaces built by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from hand_built import ARM64, BASE, X86_64, make_task, make_three

from emu import draw
from emu.draw_pagetables import entries, table_counts, walk
from emu.draw_tree import black_height, depth_of
from emu.views import AddressSpace, PageTables, VmaTree
from mm.mmap import vm_mmap

if TYPE_CHECKING:
    from mm.types import TaskStruct

GEOMETRIES = {
    "x86-64": lambda: X86_64(),
    "la57": lambda: X86_64(True),
    "arm64-4k": lambda: ARM64(4096),
    "arm64-16k": lambda: ARM64(16384),
    "arm64-64k": lambda: ARM64(65536),
}


@pytest.fixture(params=GEOMETRIES)
def arch(request: pytest.FixtureRequest) -> Any:
    return GEOMETRIES[request.param]()


def make_many(count: int) -> TaskStruct:
    """`count` areas with a hole of a page behind every second one."""
    task = make_task(X86_64())
    for index in range(count):
        vm_mmap(task.mm, None, BASE + index * 0x2000, 0x1000 * (1 + index % 2), 1 + 2 * (index % 2), 0x32, 0)
    return task


def test_tree_of_three() -> None:
    lines = VmaTree(make_three(X86_64()).mm).text().splitlines()
    assert lines[:3] == [
        "  ┌─R 10000000-10001000 rw-p     4K  gap 256M",
        "──B   10002000-10003000 r--p     4K  gap 256M",
        "  └─R 10004000-10005000 r-xp     4K  gap 4K",
    ]
    assert lines[3].startswith("3 areas, 2 levels, black height 1")


def test_a_tree_reads_down_as_the_memory_map() -> None:
    mm = make_many(40).mm
    text = VmaTree(mm).text()
    starts = [int(line.split("-")[0].split()[-1], 16) for line in text.splitlines()[:-1]]
    assert starts == [vma.vm_start for vma in draw.areas(mm)]


def test_every_line_of_a_tree_hangs_on_its_parent() -> None:
    """The drawing can be read back: a child's corner stands in the column right of its parent's letter."""
    mm = make_many(23).mm
    lines = VmaTree(mm).text().splitlines()[:-1]
    column = {
        int(line.split("-")[0].split()[-1], 16): min(line.find("R ") % 999, line.find("B ") % 999) for line in lines
    }
    for vma in draw.areas(mm):
        for child in (vma.rb_left, vma.rb_right):
            if child is not None:
                assert column[child.vm_start] == column[vma.vm_start] + 2
    for line, vma in zip(lines, draw.areas(mm), strict=True):
        assert line[column[vma.vm_start]] == ("R" if vma.rb_red else "B")


def test_colours_only_when_asked() -> None:
    mm = make_three(X86_64()).mm
    for view in (VmaTree(mm), PageTables(mm)):
        assert "\x1b[" not in view.text()
        assert "\x1b[" in view.text(colour=True)


def test_heights() -> None:
    root = make_many(12).mm.mm_rb.rb_node
    assert depth_of(root) == 5
    assert black_height(root) == 3


def test_page_tables_find_what_was_touched(arch: Any) -> None:
    task = make_three(arch)
    leaves = [entry for entry in entries(task.mm) if entry.leaf]
    assert [entry.address for entry in leaves] == [BASE, BASE + 2 * arch.page_size]
    assert leaves[1].pfn == task.system.zero_pfn
    assert table_counts(task.mm) == dict.fromkeys(arch.level_names, 1)
    text = PageTables(task.mm).text()
    assert "anonymous (zero page)" in text
    assert f"{BASE:012x}" in text


def test_walk_agrees_with_the_frame(arch: Any) -> None:
    task = make_three(arch)
    found = PageTables(task.mm).walk(BASE + 8)
    assert [entry.name for entry in found.entries] == list(arch.level_names)
    assert found.physical is not None
    assert bytes(task.system.ram[found.physical : found.physical + 5]) == b"hello"
    for entry in found.entries:
        assert task.system.words[entry.where // 8] == entry.raw
    missing = PageTables(task.mm).walk(BASE + 4 * arch.page_size)
    assert missing.physical is None
    assert len(missing.entries) == len(arch.level_names) - 1
    assert repr(missing).endswith("not mapped")


def test_bits_of_x86_64() -> None:
    task = make_three(X86_64())
    assert walk(task.mm, BASE)[-1].bits == ["P", "RW", "US", "A", "D", "SOFT_DIRTY", "NX"]
    assert walk(task.mm, BASE + 0x2000)[-1].bits == ["P", "US", "A", "SPECIAL", "NX"]
    assert walk(task.mm, BASE)[0].bits == ["P", "RW", "US", "A"]


def test_bits_of_arm64() -> None:
    task = make_three(ARM64(4096))
    assert walk(task.mm, BASE)[-1].bits == ["VALID", "PAGE", "USER", "AF", "nG", "WRITE", "PXN", "UXN", "DIRTY", "ISH"]
    assert walk(task.mm, BASE + 0x2000)[-1].bits == [
        "VALID",
        "PAGE",
        "USER",
        "RDONLY",
        "AF",
        "nG",
        "PXN",
        "UXN",
        "SPECIAL",
        "ISH",
    ]
    assert walk(task.mm, BASE)[0].bits == ["VALID", "TABLE"]


def test_maps_are_those_of_proc() -> None:
    text = AddressSpace(make_three(X86_64()).mm).text()
    assert text.splitlines()[0] == "10000000-10001000 rw-p 00000000 00:00 0 "


def test_an_address_space_is_a_sequence() -> None:
    space = AddressSpace(make_three(X86_64()).mm)
    assert len(space) == 3
    assert [vma.vm_start for vma in space] == [BASE, BASE + 0x2000, BASE + 0x4000]
    assert space[BASE + 0x2FFF].vm_start == BASE + 0x2000
    with pytest.raises(KeyError):
        space[BASE + 0x1000]


def test_svg_and_html_are_well_formed() -> None:
    mm = make_many(9).mm
    for view in (AddressSpace(mm), VmaTree(mm), PageTables(make_three(ARM64(65536)).mm)):
        root = ET.fromstring(view._repr_svg_())
        assert root.tag.endswith("svg")
        assert float(root.get("width", "0")) > 100
    ET.fromstring(AddressSpace(mm)._repr_html_())
    ET.fromstring(PageTables(make_three(X86_64()).mm).walk(BASE)._repr_html_())


def test_a_repr_fits_a_screen() -> None:
    view = VmaTree(make_many(100).mm)
    assert len(repr(view).splitlines()) == 40
    assert len(str(view).splitlines()) == 101
    assert "61 more lines" in repr(view) or "62 more lines" in repr(view)


def test_empty_address_space() -> None:
    mm = make_task(X86_64()).mm
    assert str(VmaTree(mm)) == "(no areas)"
    assert str(AddressSpace(mm)) == ""
    ET.fromstring(VmaTree(mm).svg())


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (4096, "4K"), (5000, "4.9K"), (18572869632, "17.3G"), (1 << 47, "128T")]
)
def test_rough_sizes(count: int, text: str) -> None:
    assert draw.rough_size(count) == text
