"""--algorithm and --judge: right ones pass, wrong ones are caught where they begin to be wrong."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from emu import Machine, PagewalkError
from emu.algorithm import Algorithm, AlgorithmError
from emu.cli import main
from emu.judge import LOOKS, Divergence
from mm.errors import Errno
from mm.find_vma import find_vma, find_vma_links
from mm.memory import handle_mm_fault
from mm.memory_cow import do_wp_page
from mm.stack import expand_stack
from mm.unmapped_area import unmapped_area_topdown
from mm.vma_merge import vma_merge
from mm.vma_tree import vma_link_rb
from mm.vmacache import vmacache_find, vmacache_update

IMAGES = Path(__file__).resolve().parents[2] / "images"


def linear(mm: Any, addr: int) -> Any:
    """find_vma() along the list: slow and right."""
    vma = mm.ops.vmacache_find(mm, addr)
    if vma is not None:
        return vma
    vma = mm.mmap
    while vma is not None and vma.vm_end <= addr:
        vma = vma.vm_next
    if vma is not None:
        mm.ops.vmacache_update(mm, addr, vma)
    return vma


def off_by_one(mm: Any, addr: int) -> Any:
    """The end of an area is taken for a part of it."""
    vma = mm.mmap
    while vma is not None and vma.vm_end < addr:
        vma = vma.vm_next
    return vma


def no_cache(mm: Any, addr: int) -> Any:
    """The answer is right, but the cache learns nothing."""
    vma = mm.mmap
    while vma is not None and vma.vm_end <= addr:
        vma = vma.vm_next
    return vma


def run(name: str, function: Any, judge: bool, image: str = "merge", arch: str = "x86_64") -> Machine:
    machine = Machine(ram=64 << 20, stdout="capture", stderr="capture", algorithm={name: function}, judge=judge)
    machine.load(str(IMAGES / arch / image))
    assert machine.run(timeout=120).reason == "exit"
    return machine


OURS = {
    "find_vma": find_vma,
    "find_vma_links": find_vma_links,
    "vmacache_find": vmacache_find,
    "vmacache_update": vmacache_update,
    "unmapped_area_topdown": unmapped_area_topdown,
    "vma_merge": vma_merge,
    "expand_stack": expand_stack,
    "handle_mm_fault": handle_mm_fault,
    "do_wp_page": do_wp_page,
    "vma_link_rb": vma_link_rb,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_ours_agrees_with_itself(name: str, arch: str) -> None:
    image = "split" if name in LOOKS else "brk"
    plain = Machine(ram=64 << 20, stdout="capture")
    plain.load(str(IMAGES / arch / image))
    plain.run()
    assert run(name, OURS[name], True, image, arch).output == plain.output


def test_a_slow_right_one_passes() -> None:
    assert run("find_vma", linear, True).output == run("find_vma", linear, False).output


@pytest.mark.parametrize("wrong", [off_by_one, no_cache])
def test_wrong_lookups_are_caught(wrong: Any) -> None:
    with pytest.raises(Divergence) as caught:
        run("find_vma", wrong, True)
    assert caught.value.name == "find_vma"
    assert "black height" in caught.value.report
    assert "vmacache" in caught.value.report


def never_merge(*arguments: Any) -> None:
    """Correct for a program, wrong for us."""


def keeps_the_flags(mm: Any, prev: Any, addr: int, end: int, vm_flags: int, *rest: Any) -> Any:
    """Forgets to compare the flags of the neighbour below."""
    if prev is not None and prev.vm_end == addr:
        return vma_merge(mm, prev, addr, end, prev.vm_flags, *rest)
    return vma_merge(mm, prev, addr, end, vm_flags, *rest)


@pytest.mark.parametrize("wrong", [never_merge, keeps_the_flags])
def test_wrong_merges_are_caught(wrong: Any) -> None:
    with pytest.raises(Divergence) as caught:
        run("vma_merge", wrong, True)
    assert caught.value.ours != caught.value.theirs
    assert "after yours" in caught.value.report


def test_without_the_judge_the_guest_sees_it() -> None:
    assert run("vma_merge", never_merge, False).output != run("vma_merge", vma_merge, False).output


def always_writable(vma: Any, address: int, flags: int) -> int:
    """Copy on write that forgets the copy: the entry is made writable."""
    from mm.pgtable import pte_offset

    mm = vma.vm_mm
    index = pte_offset(mm, address & mm.arch.page_mask)
    if flags & 1 and index >= 0 and mm.system.words[index] & 1:
        mm.system.words[index] |= mm.arch.PTE_WRITE | mm.arch.PTE_DIRTY if hasattr(mm.arch, "PTE_DIRTY") else 2
        mm.tlb_flush_pending = True
        return 0
    return handle_mm_fault(vma, address, flags)


def test_a_wrong_fault_handler_is_caught() -> None:
    with pytest.raises(Divergence) as caught:
        run("handle_mm_fault", always_writable, True, "cow")
    assert caught.value.name == "handle_mm_fault"


def refuses(mm: Any, info: Any) -> int:
    raise Errno(errno.ENOMEM)


def test_a_refusal_is_an_answer() -> None:
    with pytest.raises(Divergence) as caught:
        run("unmapped_area_topdown", refuses, True)
    assert "ENOMEM" in caught.value.theirs


FILE = """
def broken(mm, addr):
    return mm.moon

def wrong(mm, addr):
    return "the moon"

def endless(mm, addr):
    return endless(mm, addr)
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", "mine.py:3 in broken: AttributeError"),
        ("wrong", "the kernel broke in"),
        ("endless", "calls itself without end"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], function: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    image = str(IMAGES / "x86_64" / "hello")
    assert main(["run", "--algorithm", f"find_vma={path}:{function}", image]) == 125
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(:")
    with pytest.raises(AlgorithmError, match=r"mine.py:1: SyntaxError"):
        Algorithm.parse(f"find_vma={path}:f")
    path.write_text("raise ValueError(3)")
    with pytest.raises(AlgorithmError, match=r"mine.py:1 in <module>: ValueError: 3"):
        Algorithm.parse(f"find_vma={path}:f")
    path.write_text("g = 3")
    for text, message in (
        (f"find_vma={path}:f", "no function 'f'"),
        (f"find_vma={path}:g", "no function 'g'"),
        ("find_vma=nowhere.py:f", "no such file"),
        (f"moon={path}:f", "is none of"),
        (f"find_vma={path}", "expected NAME"),
    ):
        with pytest.raises(PagewalkError, match=message):
            Algorithm.parse(text)
