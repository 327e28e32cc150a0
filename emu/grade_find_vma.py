"""Exercise find_vma: the lookup, and the four-slot cache in front of it.

The first steps take the parts one by one, the others being ours, so that a mistake costs the step that names it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from emu import grade_programs
from emu.draw_tree import depth_of
from emu.grade_world import GEOMETRIES, HOLE, Student, World, Wrong, answers, ruled, runs, small_pictures

if TYPE_CHECKING:
    from mm.types import VmAreaStruct

SLOTS = ("find_vma", "vmacache_find", "vmacache_update")
PROGRAMS = ("merge", "mmap", "brk")
CACHE = ("vmacache_find", "vmacache_update")


def _slots(world: World, slots: Any) -> str:
    return "[" + ", ".join(world.name_of(vma) for vma in slots) + "]"


def borders(student: Student) -> str:
    """Each address of each small picture, the cache empty."""
    world = World()
    tried = 0
    for picture in small_pictures(6, 3):
        names = world.draw(picture)
        world.install({"find_vma": student.functions["find_vma"]})
        for addr, mark, words in _addresses(world, picture):
            expected = _by_definition(world, picture, addr)
            world.task.vmacache[:] = (None,) * 4

            def shown(picture: str = picture, mark: int = mark, words: str = words) -> str:
                return ruled(picture, mark, f"find_vma(mm, {words}")

            answer, _ = student.call("find_vma", world.mm, addr, shown=shown)
            tried += 1
            if answer is not expected:
                reason = "find_vma answers with the first area that ends above addr"
                if any(answer is vma for vma in names.values()) and answer.vm_end == addr:
                    reason += ": vm_end itself is no part of an area, it is the first byte behind it (off by one)."
                elif expected is None:
                    reason += "; here there is none."
                elif expected.vm_start > addr:
                    reason += ". It need not contain addr: in a hole the answer is the area above the hole."
                else:
                    reason += "."
                raise Wrong(reason, shown(), answers(world.name_of(expected), world.name_of(answer)))
    return f"{tried} lookups"


def _addresses(world: World, picture: str) -> list[tuple[int, int, str]]:
    """(address, column of the arrow, in words): the first, a middle and the last byte of each page."""
    found = []
    for page in range(len(picture) + 1):
        for byte, words in ((0, "first"), (world.page // 2, "middle"), (world.page - 1, "last")):
            addr = world.address(page) + byte
            found.append((addr, page, f"{addr:#x}), the {words} byte of page {page}"))
    return found


def _by_definition(world: World, picture: str, addr: int) -> VmAreaStruct | None:
    for name, _, end in runs(picture):
        if world.address(end) > addr:
            return world.names[name]
    return None


def contains(student: Student) -> str:
    """vmacache_find on a cache filled by hand: only an area that contains the address is a hit."""
    world = World()
    picture = "..aa..bb"
    for held in range(4):
        world.draw(picture)
        world.install({name: student.functions[name] for name in CACHE})
        area = world.names["a"]
        for page in (2, 3, 1, 4, 5, 6):
            for byte in (0, world.page - 1):
                addr = world.address(page) + byte
                world.task.vmacache[:] = [area if slot == held else None for slot in range(4)]
                expected = area if page in (2, 3) else None

                def shown(page: int = page, addr: int = addr, held: int = held) -> str:
                    return ruled(picture, page, f"vmacache_find(mm, {addr:#x}), slot {held} of the cache holds area a")

                answer, _ = student.call("vmacache_find", world.mm, addr, shown=shown)
                if answer is not expected:
                    if expected is None:
                        reason = (
                            "A cached area is a hit only when vm_start <= addr < vm_end. The cache also holds areas"
                            " that answered for an address in the hole below them, so containment must be checked."
                        )
                    else:
                        reason = (
                            "The cache holds the area and it contains addr: that is a hit. A lookup tries all four"
                            " slots, the address's own first."
                        )
                    raise Wrong(reason, shown(), answers(world.name_of(expected), world.name_of(answer)))
    return "hits only what contains the address, in any slot"


def learns(student: Student) -> str:
    """vmacache_update takes the right slot; find_vma asks the cache first and tells it the answer."""
    for geometry in GEOMETRIES:
        world = World(geometry)
        world.draw("..aa")
        area = world.names["a"]
        for group in range(6):
            addr = (group << world.mm.arch.pmd_shift) + 5 * world.page
            world.task.vmacache[:] = (None,) * 4

            def shown(addr: int = addr, geometry: str = geometry) -> str:
                return f"  vmacache_update(mm, {addr:#x}, area a) on {geometry}, the cache being empty"

            student.call("vmacache_update", world.mm, addr, area, shown=shown)
            expected = [area if slot == group & 3 else None for slot in range(4)]
            if world.task.vmacache != expected:
                reason = "The slot is (addr >> mm.arch.pmd_shift) & 3, and only that slot changes."
                got = _slots(world, world.task.vmacache)
                raise Wrong(reason, shown(), answers(_slots(world, expected), got))
    _told(student)
    return "slot by pmd_shift, told after the tree answered"


def _told(student: Student) -> None:
    """The part of find_vma."""
    world = World()
    for picture, page, name in (("..aa", 3, "a"), ("..aa", 0, "a"), ("..aa", 5, "")):
        world.draw(picture)
        world.install({"find_vma": student.functions["find_vma"]})
        addr = world.address(page)

        def shown(picture: str = picture, page: int = page, addr: int = addr) -> str:
            return ruled(picture + HOLE * 2, page, f"find_vma(mm, {addr:#x}), the cache being empty")

        student.call("find_vma", world.mm, addr, shown=shown)
        expected: list[VmAreaStruct | None] = [None] * 4
        if name:
            expected[(addr >> world.mm.arch.pmd_shift) & 3] = world.names[name]
        if world.task.vmacache != expected:
            reason = (
                "After the tree has answered, mm.ops.vmacache_update(mm, addr, vma) tells the cache; None is not told."
            )
            raise Wrong(reason, shown(), answers(_slots(world, expected), _slots(world, world.task.vmacache)))


def stale(student: Student) -> str:
    """The cache is forgotten when the address space lost an area, and belongs to the running task's own mm."""
    world = World()
    picture = "..aa"

    def begin() -> int:
        world.draw(picture)
        world.install({name: student.functions[name] for name in CACHE})
        world.task.vmacache[:] = [world.names["a"]] * 4
        return world.address(2)

    addr = begin()  # always the same
    world.mm.vmacache_seqnum = 7

    def shown() -> str:
        return (
            f"  vmacache_find(mm, {addr:#x}): all four slots hold area a, current.vmacache_seqnum is 0,\n"
            "  mm.vmacache_seqnum is 7: areas were unmapped since, and a may be freed memory"
        )

    answer, _ = student.call("vmacache_find", world.mm, addr, shown=shown)
    if answer is not None:
        reason = (
            "A stale cache: where current.vmacache_seqnum differs from mm.vmacache_seqnum, an area was unmapped since"
            " the slots were filled. Forget all four, take the new number over, and miss."
        )
        raise Wrong(reason, shown(), answers("None", world.name_of(answer)))
    if world.task.vmacache_seqnum != 7 or world.task.vmacache != [None] * 4:
        reason = "After a stale lookup all four slots are None and current.vmacache_seqnum is mm.vmacache_seqnum."
        got = f"{_slots(world, world.task.vmacache)}, seqnum {world.task.vmacache_seqnum}"
        raise Wrong(reason, shown(), answers("[None, None, None, None], seqnum 7", got))
    for who in ("another address space", "no running task"):
        begin()
        if who == "no running task":
            world.system.current = None
        else:
            world.task.mm = None

        def other(who: str = who) -> str:
            return f"  vmacache_find(mm, {addr:#x}): all four slots hold area a, the current task has: {who}"

        for slot, arguments in (("vmacache_find", ()), ("vmacache_update", (None,))):
            before = list(world.task.vmacache)
            answer, _ = student.call(slot, world.mm, addr, *arguments, shown=other)
            if answer is not None or world.task.vmacache != before:
                world.system.current, world.task.mm = world.task, world.mm
                reason = (
                    "Only the running task's own address space is cached: when mm.system.current is None or its mm is"
                    " another, neither use nor change a cache."
                )
                raise Wrong(reason, other(), answers("None, cache unchanged", world.name_of(answer)))
        world.system.current, world.task.mm = world.task, world.mm
    return "forgotten after an unmap, never another's"


def sequences(student: Student) -> str:
    """Lookups, maps and unmaps in random order: answers and cache like ours after each step."""
    from mm.vma_tree import _vma_unlink

    for seed in range(12):
        rng = random.Random(seed)
        ours, yours = World(), World()
        yours.install(student.functions)
        steps: list[str] = []
        for _ in range(6 + 8 * seed):
            page = rng.randrange(24) * (97 if seed % 2 else 1)  # neighbours, or far enough apart for other slots
            deed = rng.choice(("map", "find", "find", "find", "unmap"))
            name = f"{page}"
            if deed == "map" and name not in ours.names and len(ours.names) < 20:
                for world in (ours, yours):
                    world.names[name] = world.area(page, page + 1)
                    world.link(world.names[name])
            elif deed == "unmap" and name in ours.names:
                for world in (ours, yours):
                    _vma_unlink(world.mm, world.names.pop(name))
                    world.mm.map_count -= 1
            else:
                deed = "find"
            steps.append(f"  {deed:<6} page {page}")

            def shown(steps: list[str] = steps) -> str:
                return "\n".join(steps[-12:])

            if deed == "find":
                addr = ours.address(page) + rng.choice((0, 100, ours.page - 1))
                expected = ours.name_of(ours.ours["find_vma"](ours.mm, addr))
                vma, _ = student.call("find_vma", yours.mm, addr, shown=shown)
                caches = _slots(ours, ours.task.vmacache), _slots(yours, yours.task.vmacache)
                if yours.name_of(vma) != expected or caches[0] != caches[1]:
                    reason = "In a row of maps, unmaps and lookups, an answer or what the cache holds is not ours."
                    got = f"{yours.name_of(vma)}, cache {caches[1]}"
                    raise Wrong(reason, shown(), answers(f"{expected}, cache {caches[0]}", got), yours.tree)
    return "12 random histories"


def efficiency(student: Student) -> str:
    """Nodes visited: no more than the tree is deep; none but the cache's on a hit."""
    world = World()
    for page in range(0, 600, 3):
        world.link(world.area(page, page + 2))
    depth = depth_of(world.mm.mm_rb.rb_node)
    world.install(student.functions)
    find = student.functions["find_vma"]
    most = 0
    for page in range(600):
        addr = world.address(page)
        world.task.vmacache[:] = (None,) * 4
        _, visits = world.visits(lambda addr=addr: find(world.mm, addr))  # type: ignore[misc]
        most = max(most, visits)
        if visits > depth + 1:
            reason = f"The tree of 200 areas is {depth} deep, and a lookup needs no more nodes than that. Descend it."
            raise Wrong(reason, f"  find_vma(mm, {addr:#x})", answers(f"at most {depth} areas looked at", f"{visits}"))
    find(world.mm, world.address(300))
    _, visits = world.visits(lambda: find(world.mm, world.address(301)))
    if visits > 4:
        reason = "The second lookup of an area is a hit: it looks at the four cached areas at most, not at the tree."
        raise Wrong(reason, answers("at most 4 areas looked at", f"{visits}"))
    return f"at most {most} of 200 areas looked at, {visits} on a hit"


STEPS = (
    ("borders", "first area that ends above addr, at every border and in every hole", 20, borders),
    ("contains", "a cache hit contains the address", 15, contains),
    ("learns", "the cache learns the answer, in the right slot", 10, learns),
    ("stale", "a stale cache is forgotten", 15, stale),
    ("sequences", "lookups between maps and unmaps", 10, sequences),
    ("x86_64", "agrees on real programs, x86-64", 5, lambda s: grade_programs.agrees(s, "x86_64", PROGRAMS)),
    ("aarch64", "agrees on real programs, arm64", 5, lambda s: grade_programs.agrees(s, "aarch64", PROGRAMS)),
    ("efficiency", "few nodes visited, hits stay out of the tree", 10, efficiency),
    ("check", "real programs keep every invariant (--check 2)", 5, lambda s: grade_programs.check(s, PROGRAMS[:1])),
)
