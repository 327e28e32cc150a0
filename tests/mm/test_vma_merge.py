"""vma_merge, as pictures: the eight cases, with every combination of anon_vmas, private memory and files."""

import itertools
from typing import Any

import pytest
from draw import areas_of, make_task, picture_of, runs

from mm.flags import (
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
)
from mm.rmap import _anon_vma_chain_link
from mm.types import AnonVma, MmStruct, VmAreaStruct
from mm.validate import validate_areas
from mm.vma_merge import vma_merge
from mm.vma_tree import vma_link

BASE = 0x10000000
MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
ALIKE = VM_READ | VM_WRITE | MAY | VM_ACCOUNT
OTHER = VM_READ | MAY

# Upper case: an area with the flags the changed range A will have. Lower case: others.
CASES = {
    #     before          the range       after
    1: ("PPPP....NNNN", "    AAAA    ", "PPPPPPPPPPPP"),
    2: ("PPPP....xxxx", "    AAAA    ", "PPPPPPPPxxxx"),
    3: ("pppp....NNNN", "    AAAA    ", "ppppNNNNNNNN"),
    4: ("ppppppppNNNN", "    AAAA    ", "ppppNNNNNNNN"),
    5: ("PPPPnnnnnnnn", "    AAAA    ", "PPPPPPPPnnnn"),
    6: ("PPPPnnnnXXXX", "    AAAA    ", "PPPPPPPPPPPP"),
    7: ("PPPPnnnnxxxx", "    AAAA    ", "PPPPPPPPxxxx"),
    8: ("ppppnnnnXXXX", "    AAAA    ", "ppppXXXXXXXX"),
}
VARIANTS = [
    (2, "PPPP........", "    AAAA    ", "PPPPPPPP...."),
    (2, "PPPP.....NNN", "    AAAA    ", "PPPPPPPP.NNN"),
    (3, ".....NNN", "   AA   ", "...NNNNN"),
    (3, "PP..NNN", "   A   ", "PP.NNNN"),
    (4, "..ppppNN", "   AAA  ", "..pNNNNN"),
    (7, "PPnn", "  AA", "PPPP"),
    (7, "PPnn.N", "  AA  ", "PPPP.N"),
    (8, "nnXX", "AA  ", "XXXX"),
    (8, "p.nnXX", "  AA  ", "p.XXXX"),
    (None, "pppp....xxxx", "    AAAA    ", "pppp....xxxx"),
    (None, "ppppnnnnxxxx", "    AAAA    ", "ppppnnnnxxxx"),
    (None, "nnnnnnnnXXXX", "  AA        ", "nnnnnnnnXXXX"),
    (None, "P..n", " A  ", "PA.n"),
]
ALL = [(number, *pictures) for number, pictures in CASES.items()] + VARIANTS[:-1]


class MappedFile:
    """As much of an open file as areas ask for."""

    def __init__(self) -> None:
        from mm.types import AddressSpace

        self.f_mapping = AddressSpace(None)
        self.f_count = 100

    def d_path(self) -> str:
        return "/file"


class Recorder:
    """Listener that keeps the case numbers of merges."""

    def __init__(self) -> None:
        self.cases: list[int] = []

    def __call__(self, event: Any) -> None:
        if event.kind == "vma_merge":
            self.cases.append(event.case)


def build(mm: MmStruct, picture: str, file: Any, anon_vmas: dict[str, AnonVma | None]) -> dict[str, VmAreaStruct]:
    names = {}
    for name, first, end in runs(picture):
        flags = ALIKE if name.isupper() else OTHER
        shift = mm.arch.page_shift
        vma = VmAreaStruct(mm, BASE + (first << shift), BASE + (end << shift), flags, 0, 1000 + first)
        vma.vm_file = file
        if file is not None:
            file.f_count += 1
        anon_vma = anon_vmas.get(name)
        if anon_vma is not None:
            vma.anon_vma = anon_vma
            _anon_vma_chain_link(vma, anon_vma)
            anon_vma.num_active_vmas += 1
        links = mm.ops.find_vma_links(mm, vma.vm_start, vma.vm_end)
        vma_link(mm, vma, *links)
        names[name] = vma
    return names


def merge(mm: MmStruct, names: dict[str, VmAreaStruct], change: str, file: Any, **options: Any) -> VmAreaStruct | None:
    """Call vma_merge as mmap (range is free) or mprotect (range is mapped) would."""
    ((_, first, end),) = runs(change)
    shift = mm.arch.page_shift
    start_address, end_address = BASE + (first << shift), BASE + (end << shift)
    area = next((vma for vma in areas_of(mm) if vma.vm_start <= start_address < vma.vm_end), None)
    if area is not None and area.vm_start < start_address:
        prev: VmAreaStruct | None = area
    else:
        prev = None
        for vma in areas_of(mm):
            if vma.vm_end <= start_address:
                prev = vma
    return vma_merge(
        mm,
        prev,
        start_address,
        end_address,
        options.get("flags", ALIKE),
        area.anon_vma if area is not None else None,
        options.get("mapped", file),
        options.get("pgoff", 1000 + first),
        options.get("policy"),
        None,
    )


@pytest.mark.parametrize(("number", "before", "change", "after"), ALL)
@pytest.mark.parametrize("with_file", [False, True])
def test_picture(number: int | None, before: str, change: str, after: str, with_file: bool) -> None:
    mm = make_task().mm
    assert mm is not None
    mm.system.listener = recorder = Recorder()
    file = MappedFile() if with_file else None
    names = build(mm, before, file, {})
    survivor = merge(mm, names, change, file)
    assert picture_of(mm, BASE, names, len(before)) == after
    validate_areas(mm)
    assert recorder.cases == ([number] if number else [])
    if number is None:
        assert survivor is None
    else:
        position = change.index("A")
        assert survivor is names[after[position]]
        assert survivor.vm_pgoff == 1000 + after.index(after[position])
    if file is not None:
        assert file.f_count == 100 + len(areas_of(mm))


def allowed(number: int, prev: Any, area: Any, following: Any) -> tuple[bool, bool]:
    """Which sides may join, by anon_vmas alone.

    A range without pages joins anyone. A range with pages joins only who has the same anon_vma: not even a neighbour
    without one, because the kernel wants a chain of exactly one entry there. Two neighbours may differ if one has none.
    """
    with_prev = number in (1, 2, 5, 6, 7) and area in (None, prev)
    with_next = number in (1, 3, 4, 6, 8) and area in (None, following)
    if with_prev and with_next and prev and following and prev != following:
        with_next = False  # the lower one is tried first
    return with_prev, with_next


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("choice", list(itertools.product((None, "a", "b"), repeat=3)))
def test_every_combination_of_anon_vmas(number: int, choice: tuple[str | None, str | None, str | None]) -> None:
    before, change, full = CASES[number]
    mm = make_task().mm
    assert mm is not None
    kinds = {"a": AnonVma(), "b": AnonVma()}
    letters = [name for name, _, _ in runs(before)]
    chosen = dict(zip(letters, (choice[0], choice[-1]) if len(letters) == 2 else choice, strict=True))
    names = build(mm, before, None, {name: kinds[kind] if kind else None for name, kind in chosen.items()})
    area_letter = before[change.index("A")]
    area = chosen.get(area_letter)
    prev, following = chosen[letters[0]], chosen[letters[-1]]
    with_prev, with_next = allowed(number, prev, area, following)
    merge(mm, names, change, None)
    drawing = picture_of(mm, BASE, names, len(before))
    validate_areas(mm)
    if (with_prev and with_next) or (with_prev and number in (2, 5, 7)) or (with_next and number in (3, 4, 8)):
        assert drawing == full
    elif with_prev:
        assert drawing == {1: "PPPPPPPPNNNN", 6: "PPPPPPPPXXXX"}[number]
    elif with_next:
        assert drawing == {1: "PPPPNNNNNNNN", 6: "PPPPXXXXXXXX"}[number]
    else:
        assert drawing == before
    # Pages moved between areas must still be found: whoever holds a range is in the anon_vmas it had before.
    for name, first, end in runs(before):
        if chosen[name]:
            for page in range(first, end):
                holder = names[drawing[page]]
                assert any(avc.anon_vma is kinds[chosen[name] or ""] for avc in holder.anon_vma_chain)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"flags": ALIKE | VM_LOCKED}, "other flags"),
        ({"flags": ALIKE | VM_DONTEXPAND}, "special areas never merge"),
        ({"pgoff": 2000}, "offsets do not continue"),
        ({"mapped": MappedFile()}, "another file"),
        ({"policy": "bind"}, "another NUMA policy"),
    ],
)
@pytest.mark.parametrize("number", CASES)
def test_what_keeps_areas_apart(number: int, options: dict[str, Any], why: str) -> None:
    before, change, _ = CASES[number]
    mm = make_task().mm
    assert mm is not None
    names = build(mm, before, None, {})
    assert merge(mm, names, change, None, **options) is None, why
    assert picture_of(mm, BASE, names, len(before)) == before
    validate_areas(mm)


def test_soft_dirty_does_not_keep_areas_apart() -> None:
    mm = make_task().mm
    assert mm is not None
    assert mm.arch.VM_SOFTDIRTY
    names = build(mm, "PPPP....NNNN", None, {})
    assert merge(mm, names, "    AAAA    ", None, flags=ALIKE | mm.arch.VM_SOFTDIRTY) is names["P"]
    assert picture_of(mm, BASE, names, 12) == "PPPPPPPPPPPP"


def test_an_area_with_a_forked_chain_takes_no_stranger() -> None:
    mm = make_task().mm
    assert mm is not None
    old, own = AnonVma(), AnonVma()
    names = build(mm, "PPPP........", None, {"P": own})
    _anon_vma_chain_link(names["P"], old)  # as anon_vma_fork leaves it
    assert merge(mm, names, "    AAAA    ", None) is None


def test_an_owner_that_wants_to_hear_of_the_end_stays_alone() -> None:
    class Owner:
        close = staticmethod(lambda vma: None)
        open = fault = map_pages = page_mkwrite = name = None

    mm = make_task().mm
    assert mm is not None
    names = build(mm, "PPPP....NNNN", None, {})
    names["P"].vm_ops = Owner()  # type: ignore[assignment]
    assert merge(mm, names, "    AAAA    ", None) is names["N"]
    assert picture_of(mm, BASE, names, 12) == "PPPPNNNNNNNN"
