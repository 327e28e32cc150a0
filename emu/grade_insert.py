"""Exercise insert: where a new area goes (find_vma_links), and hanging it into the red-black tree (vma_link_rb).

Two worlds get the same areas, one by our code and one by the student's, and are compared after each insertion: order,
colours and shape, gaps and highest_vm_end, each by a step of its own.
"""

from __future__ import annotations

import random
from itertools import permutations
from typing import TYPE_CHECKING, Any

from emu import grade_programs
from emu.draw_tree import depth_of
from emu.grade_world import LOWER, Student, World, Wrong, answers, ruled, small_pictures
from emu.judge import said
from mm.flags import VM_GROWSDOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from mm.types import VmAreaStruct

SLOTS = ("find_vma_links", "vma_link_rb")
PROGRAMS = ("mmap", "brk", "cow")
Area = tuple[int, int, int]  # first page, end, vm_flags
VISITS = 4  # areas an insertion may look at for each level of the tree: the path, and what rotations touch beside it


def links(student: Student) -> str:
    """find_vma_links for every range on each small picture."""
    world = World()
    tried = 0
    for picture in small_pictures(5, 3):
        world.draw(picture)
        for first in range(len(picture)):
            for end in range(first + 1, len(picture) + 1):
                addr, stop = world.address(first), world.address(end)

                def shown(picture: str = picture, first: int = first, end: int = end) -> str:
                    words = f"find_vma_links(mm, {world.address(first):#x}, {world.address(end):#x})"
                    return ruled(picture, first, f"{'^' * (end - first - 1)}\n         {words}")

                expected = world.ours["find_vma_links"](world.mm, addr, stop)
                answer, words = student.call("find_vma_links", world.mm, addr, stop, shown=shown)
                tried += 1
                if _links_text(world, answer, words) != _links_text(world, expected, said(expected)):
                    raise Wrong(
                        _links_reason(expected, answer),
                        shown(),
                        answers(_links_text(world, expected, ""), _links_text(world, answer, words)),
                        world.tree,
                    )
    return f"{tried} ranges"


def _links_text(world: World, answer: Any, words: str) -> str:
    if answer is None:
        return "None (it overlaps)"
    if not isinstance(answer, tuple) or len(answer) != 3:
        return f"{words}, which is no (prev, parent, left child?)"
    prev, parent, left = answer
    return f"prev {world.name_of(prev)}, parent {world.name_of(parent)}, {'left' if left else 'right'} child"


def _links_reason(expected: Any, answer: Any) -> str:
    if expected is None:
        return "The range overlaps an area, so it cannot be inserted: the answer is None."
    if answer is None:
        return (
            "The range does not overlap anything: vm_end is the first byte behind an area, so an area may begin there"
            " (off by one), and end is the first byte behind the range."
        )
    return (
        "prev is the area before the range, parent the last node on the way down, left whether you went left from it."
    )


def _twin(
    student: Student, name: str, areas: list[Area], same: Callable[[World], Any], why: str, drawn: bool = False
) -> None:
    """Insert areas in this order on both sides; compare `same` of the worlds after each.

    find_vma_links is ours on both sides. Drawing each tree would take most of the time, so what fails is done again
    with `drawn`.
    """
    ours, yours = World(), World()
    yours.install({"vma_link_rb": _guarded(student, yours)})
    for done, (first, end, flags) in enumerate(areas, 1):
        before = yours.tree if drawn else ""
        student.now = lambda: _history(areas[:done], before)  # noqa: B023
        try:
            for world in (ours, yours):
                vma = world.area(first, end, flags)
                world.names[str(first)] = vma
                world.link(vma)
            if same(ours) != same(yours):
                drawing = [student.now(), "expected:", ours.tree, "got:", _tree(yours)]
                raise Wrong(why, *drawing, *_differences(name, yours))
        except Wrong:
            if not drawn:
                _twin(student, name, areas, same, why, True)
            raise


def _history(areas: list[Area], before: str) -> str:
    lines = []
    for first, end, flags in areas:
        stack = " (a stack: VM_GROWSDOWN)" if flags & VM_GROWSDOWN else ""
        lines.append(f"  insert pages {first}-{end - 1}{stack}")
    return "\n".join([*lines, "before the last insertion:", before] if before else lines)


def _tree(world: World) -> str:
    try:
        return world.tree
    except (RecursionError, AttributeError) as error:
        return f"(it cannot be drawn: {type(error).__name__}; links that run in a circle?)"


def _guarded(student: Student, world: World) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        student.call("vma_link_rb", *arguments, shown=student.now or (lambda: _tree(world)))

    return call


def nodes_of(world: World, value: Callable[[VmAreaStruct], Any]) -> list[Any]:
    """value(node) of each node in order; shorter or longer where the tree is broken."""
    found: list[Any] = []
    stack: list[Any] = []
    node = world.mm.mm_rb.rb_node
    while (stack or node is not None) and len(found) <= 1000:
        if node is not None:
            stack.append(node)
            node = node.rb_left
            if len(stack) > 1000:
                return found
        else:
            node = stack.pop()
            found.append(value(node))
            node = node.rb_right
    return found


def _name(node: Any) -> Any:
    return None if node is None else node.vm_start


def _order(world: World) -> Any:
    """The areas in order, and whether each child knows its parent."""
    return nodes_of(world, lambda n: (n.vm_start, all(c is None or c.rb_parent is n for c in (n.rb_left, n.rb_right))))


def _colours(world: World) -> Any:
    return nodes_of(world, lambda n: (_name(n), n.rb_red, _name(n.rb_left), _name(n.rb_right), _name(n.rb_parent)))


def _gaps(world: World) -> Any:
    """Gaps below each node's subtree as they are, beside what they should be in the tree as it is."""
    return all(nodes_of(world, lambda n: n.rb_subtree_gap == _true_gap(n)))


def _true_gap(node: Any) -> Any:
    if node is None:
        return 0
    guard = node.vm_mm.system.stack_guard_gap if node.vm_flags & VM_GROWSDOWN else 0
    own = node.vm_start - guard - (node.vm_prev.vm_end if node.vm_prev is not None else 0)
    return max(own, 0, _true_gap(node.rb_left), _true_gap(node.rb_right))


def _differences(name: str, yours: World) -> list[str]:
    if name != "gaps":
        return []
    lines = []
    for start, gap, right in nodes_of(yours, lambda n: (n.vm_start, n.rb_subtree_gap, _true_gap(n))):
        if gap != right:
            lines.append(f"  rb_subtree_gap of {start:x}: expected {right:#x}, got {gap:#x}")
    return lines


def _permuted(most: int, stacks: bool = False) -> list[list[Area]]:
    """Every order of inserting up to `most` areas, few areas first; `stacks`: the same with one of them a stack."""
    found = []
    for count in range(1, most + 1):
        places = [(0, 1), (2, 3), (6, 7), (7, 8), (12, 13), (20, 21)][:count]
        for order in permutations(places):
            found.append([(*place, LOWER) for place in order])
            found += [
                [(*place, LOWER | VM_GROWSDOWN if place is stack else LOWER) for place in order]
                for stack in (places if stacks else ())
            ]
    rng = random.Random(1)
    ascending = [(2 * page, 2 * page + 1) for page in range(16)]
    longer = (ascending, ascending[::-1], *(rng.sample(ascending, 16) for _ in range(8)))  # rotations high up too
    return found + [[(first, end, LOWER) for first, end in order] for order in longer]


def _ordered(student: Student) -> str:
    cases = _permuted(5)
    for areas in cases:
        why = (
            "The new area must be a child of parent, on the side `left` says (the root where parent is None); an"
            " in-order walk then meets the areas by address, and each child's rb_parent is its parent."
        )
        _twin(student, "order", areas, _order, why)
    return f"{len(cases)} orders of insertion"


def _coloured(student: Student) -> str:
    cases = _permuted(6)
    for areas in cases:
        why = (
            "The tree is not the one the kernel makes: a new node is red; a red uncle means recolour and go on from the"
            " grandparent; a black uncle means one rotation, or two for an inner child; the root is black."
        )
        _twin(student, "colours", areas, _colours, why)
    return f"{len(cases)} orders of insertion, tree as the kernel's"


def _gapped(student: Student) -> str:
    cases = _permuted(5, stacks=True)
    for areas in cases:
        why = (
            "rb_subtree_gap is the largest gap below any area of the subtree. An insertion changes two gaps, the new"
            " area's and that of the area after it (vm_next): both must be carried up to the root, and every rotation"
            " must compute the two nodes it turned. Below a stack, stack_guard_gap bytes are not free."
        )
        _twin(student, "gaps", areas, _gaps, why)
    return f"{len(cases)} orders of insertion, with and without a stack"


def _highest(student: Student) -> str:
    for areas in _permuted(4):
        why = "mm.highest_vm_end is the end of the last area: it changes if and only if the new area has no vm_next."
        _twin(student, "highest", areas, lambda world: world.mm.highest_vm_end, why)
    return "highest_vm_end follows the last area"


def _many(student: Student) -> str:
    for seed in range(3):
        rng = random.Random(seed)
        pages = rng.sample(range(0, 3000, 3), 30 << (2 * seed))
        areas = [(page, page + rng.randint(1, 3), LOWER) for page in pages]
        why = "In a larger tree an insertion leaves another tree, or other gaps, than ours."
        _twin(student, "gaps", areas, lambda w: (_colours(w), _gaps(w)) if w.mm.map_count % 10 == 0 else 0, why)
    return "3 trees of up to 480 areas"


def efficiency(student: Student) -> str:
    """Areas looked at: the depth of the tree for the way down, a few for each level on the way up."""
    world = World()
    rng = random.Random(5)
    for page in rng.sample(range(0, 1200, 3), 300):
        world.link(world.area(page, page + 2))
    most = 0
    for page in range(2, 1200, 37 * 3):
        depth = depth_of(world.mm.mm_rb.rb_node)
        vma = world.area(page, page + 1)
        start, end = vma.vm_start, vma.vm_end
        world.mm.visited.clear()
        student.call("find_vma_links", world.mm, start, end, shown=lambda: world.tree)
        visits = len(world.mm.visited)
        if visits > depth + 1:
            reason = f"The tree is {depth} deep: the place for a new area is found on one way down."
            raise Wrong(reason, answers(f"at most {depth} areas looked at by find_vma_links", str(visits)))
        world.install({"vma_link_rb": student.functions["vma_link_rb"]})
        _, visits = world.visits(lambda vma=vma: world.link(vma))  # type: ignore[misc]
        world.install({})
        most = max(most, visits)
        if visits > VISITS * depth:
            reason = "An insertion changes nodes on the way to the root and their children, not the rest of the tree."
            raise Wrong(reason, answers(f"at most {VISITS} x {depth} areas looked at by vma_link_rb", str(visits)))
    return f"at most {most} of {world.mm.map_count} areas looked at"


STEPS = (
    ("links", "where a range goes, and when it overlaps", 20, links),
    ("order", "the tree stays sorted, parents and children agree", 10, _ordered),
    ("colours", "red-black rules, the kernel's shape", 15, _coloured),
    ("gaps", "rb_subtree_gap on the way up and in rotations", 15, _gapped),
    ("highest", "highest_vm_end", 5, _highest),
    ("many", "hundreds of areas", 5, _many),
    ("x86_64", "agrees on real programs, x86-64", 5, lambda s: grade_programs.agrees(s, "x86_64", PROGRAMS)),
    ("aarch64", "agrees on real programs, arm64", 5, lambda s: grade_programs.agrees(s, "aarch64", PROGRAMS)),
    ("efficiency", "few nodes visited", 10, efficiency),
    ("check", "real programs keep every invariant (--check 2)", 5, lambda s: grade_programs.check(s, PROGRAMS)),
)
