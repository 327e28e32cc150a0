"""Exercise unmapped_area: the lowest and the highest free range, found by the gaps in the tree.

What is expected is what our own module answers (tests/mm/test_unmapped_area.py holds that against the definition).
"""

from __future__ import annotations

import random
from typing import Any

from emu import grade_programs
from emu.draw_tree import depth_of
from emu.grade_world import BASE, GUARD_PAGES, Student, World, Wrong, answers, ruled, runs, small_pictures
from emu.judge import said
from mm.errors import Errno
from mm.unmapped_area import VM_UNMAPPED_AREA_TOPDOWN, VmUnmappedAreaInfo

SLOTS = ("unmapped_area", "unmapped_area_topdown")
PROGRAMS = ("merge", "mmap", "stack")
BOTH = SLOTS
REFUSED = "-ENOMEM"
# (pages wanted, first page allowed, end of the pages allowed, alignment in pages, offset in pages)
Query = tuple[int, int, int, int, int]


def _request(world: World, topdown: bool, query: Query) -> VmUnmappedAreaInfo:
    length, low, high, align, offset = query
    page = world.page
    info = VmUnmappedAreaInfo(
        VM_UNMAPPED_AREA_TOPDOWN if topdown else 0, length * page, world.address(low), world.address(high)
    )
    info.align_mask = (align - 1) * page
    info.align_offset = offset * page
    return info


def _try(student: Student, world: World, picture: str, slot: str, query: Query, why: str) -> None:
    """One search, compared with ours."""
    info = _request(world, slot.endswith("topdown"), query)
    length, low, high, align, offset = query

    def shown() -> str:
        words = f"{slot}: {length} pages within pages [{low}, {high})"
        if align > 1:
            words += f", start = {offset} modulo {align} pages (align_mask {info.align_mask:#x},"
            words += f" align_offset {info.align_offset:#x})"
        stack = f"\n         s is a stack: {GUARD_PAGES} pages below it are its guard gap" if "s" in picture else ""
        return ruled(picture, -1, words) + stack

    try:
        expected = said(world.ours[slot](world.mm, info))
    except Errno as refusal:
        expected = said(None, refusal)
    info = _request(world, slot.endswith("topdown"), query)
    _, got = student.call(slot, world.mm, info, shown=shown)
    if got != expected:
        raise Wrong(why, shown(), answers(_paged(world, expected), _paged(world, got)), world.tree)


def _paged(world: World, answer: str) -> str:
    """An address with its page of the drawing."""
    try:
        offset = int(answer, 16) - BASE
    except ValueError:
        return answer
    return f"{answer} (page {offset / world.page:g})"


def _small(student: Student, slot: str, why: str) -> str:
    """Every length in every small picture, the limits being the picture's."""
    world = World()
    tried = 0
    for picture in small_pictures(6, 3):
        world.draw(picture)
        for length in range(1, len(picture) + 1):
            _try(student, world, picture, slot, (length, 0, len(picture), 1, 0), why)
            tried += 1
    return f"{tried} searches"


def _lowest(student: Student) -> str:
    why = "unmapped_area finds the lowest free range that is long enough: a gap of exactly the length will do."
    return _small(student, "unmapped_area", why)


def _highest(student: Student) -> str:
    why = (
        "unmapped_area_topdown finds the highest free range and takes the upper end of it; the gap above the last area"
        " (from mm.highest_vm_end) belongs to no node, and is tried first."
    )
    return _small(student, "unmapped_area_topdown", why)


def limits(student: Student) -> str:
    """All limits on some pictures."""
    world = World()
    tried = 0
    for picture in ("aa", "..aa....", "a..b...c", "a.b..c.."):
        world.draw(picture)
        pages = len(picture)
        for low in range(pages):
            for high in range(low + 1, pages + 1):
                for length in (1, 2, 3):
                    for slot in BOTH:
                        why = (
                            "The range must lie within [low_limit, high_limit). A gap that reaches over a limit counts"
                            " with the part inside, and rb_subtree_gap knows nothing of limits."
                        )
                        _try(student, world, picture, slot, (length, low, high, 1, 0), why)
                        tried += 1
    return f"{tried} searches"


def guard(student: Student) -> str:
    """The gap below a stack is smaller by stack_guard_gap."""
    world = World()
    for picture in ("...s", "....s", "a...s", "a.s", "as..", "a.....s", "..s.a", "a...s...b"):
        world.draw(picture)
        for length in (1, 2, 3, 4):
            for slot in BOTH:
                why = (
                    "Below an area with VM_GROWSDOWN, mm.system.stack_guard_gap bytes must stay free (vm_start_gap),"
                    " and are no part of the gap."
                )
                _try(student, world, picture, slot, (length, 0, len(picture), 1, 0), why)
    return "the guard gap stays free"


def alignment(student: Student) -> str:
    """Alignment, with and without an offset."""
    world = World()
    for picture in ("........", "a.......", "a....b..", "...a....b...", "a..b.....c.."):
        world.draw(picture)
        for length in (1, 2, 3):
            for align, offset in ((2, 0), (4, 0), (4, 1), (4, 3)):
                for slot in BOTH:
                    why = (
                        "The answer minus align_offset has none of the bits of align_mask. Look for a gap of length +"
                        " align_mask, then move within it: up from its start, or down from its end."
                    )
                    _try(student, world, picture, slot, (length, 0, len(picture), align, offset), why)
    return "aligned, in both directions"


def refusals(student: Student) -> str:
    """No room."""
    world = World()
    for picture in ("", "aaaa", "a.b.", "a..b"):
        world.draw(picture)
        pages = max(len(picture), 1)
        for query in (
            (pages + 1, 0, pages, 1, 0),
            (3, 0, min(pages, 4), 1, 0),
            (1 << 60, 0, pages, 1, 0),
            (2, 3, 2, 1, 0),
        ):
            for slot in BOTH:
                why = "Where no gap is long enough, or the limits leave no room, Errno(errno.ENOMEM) is raised."
                _try(student, world, picture, slot, query, why)
    return "ENOMEM where there is no room"


def many(student: Student) -> str:
    """Random address spaces."""
    for seed in range(12):
        rng = random.Random(seed)
        world = World()
        picture = ""
        while len(picture) < 10 + 12 * seed:
            picture += rng.choice((".", "..", "....", ".......")) * rng.randint(0, 1) + rng.choice("ab") * rng.randint(
                1, 4
            )
        for name, first, end in runs(picture):
            world.link(world.area(first, end, 1 if name == "a" else 3))
        for _ in range(30):
            low, high = sorted(rng.sample(range(len(picture) + 4), 2))
            query = (rng.randint(1, 6), low, high, rng.choice((1, 1, 2, 4)), 0)
            for slot in BOTH:
                _try(student, world, picture, slot, query, "In a larger address space the answer is not ours.")
    return "720 searches in 12 address spaces"


def efficiency(student: Student) -> str:
    """Areas looked at in a tree of 300."""
    world = World()
    rng = random.Random(9)
    page = 0
    for _ in range(300):
        world.link(world.area(page, page + 1))
        page += rng.choice((1, 2, 2, 3))
        if rng.random() < 0.01:
            page += 5
    depth = depth_of(world.mm.mm_rb.rb_node)
    most = 0
    for length in (1, 2, 3, 5, 6, 7):
        for slot in BOTH:
            info = _request(world, slot.endswith("topdown"), (length, 0, page, 1, 0))

            def search(function: Any, info: Any = info) -> Any:
                try:
                    return function(world.mm, info)
                except Errno:
                    return None

            _, usual = world.visits(lambda slot=slot: search(world.ours[slot]))  # type: ignore[misc]
            _, visits = world.visits(lambda slot=slot: search(student.functions[slot]))  # type: ignore[misc]
            most = max(most, visits)
            if visits > 2 * usual + depth:
                reason = "rb_subtree_gap says which subtree holds a long enough gap: descend only there."
                words = f"  {slot} for {length} pages among 300 areas, the tree being {depth} deep"
                raise Wrong(reason, words, answers(f"{usual} areas looked at by ours", f"{visits}"))
    return f"at most {most} of 300 areas looked at"


STEPS = (
    ("lowest", "bottom-up: the lowest range", 15, _lowest),
    ("highest", "top-down: the highest range", 15, _highest),
    ("limits", "low_limit and high_limit", 10, limits),
    ("guard", "the guard gap below a stack", 10, guard),
    ("alignment", "align_mask and align_offset", 10, alignment),
    ("refusals", "no room: ENOMEM", 5, refusals),
    ("many", "larger address spaces", 5, many),
    ("x86_64", "agrees on real programs, x86-64", 5, lambda s: grade_programs.agrees(s, "x86_64", PROGRAMS, True)),
    ("aarch64", "agrees on real programs, arm64", 5, lambda s: grade_programs.agrees(s, "aarch64", PROGRAMS, True)),
    ("efficiency", "the gaps in the tree are used", 10, efficiency),
    (
        "check",
        "real programs keep every invariant (--check 2)",
        5,
        lambda s: grade_programs.check(s, PROGRAMS[:1], True),
    ),
)
