"""Exercise vma_merge: the eight cases, what keeps areas apart, and whose anon_vma may join whose.

Each case is a picture: the areas before, the range A, the areas after. Upper-case areas have the flags A shall have,
lower-case ones have others; a letter is one VMA object, so the pictures also say which of them survives.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from emu import grade_programs
from emu.grade_world import UPPER, Student, World, Wrong, answers, ruled, runs
from mm.errors import KernelBug
from mm.flags import VM_DONTEXPAND, VM_LOCKED
from mm.rmap import _anon_vma_chain_link
from mm.types import AddressSpace, AnonVma
from mm.validate import validate_areas

if TYPE_CHECKING:
    from mm.types import VmAreaStruct

SLOTS = ("vma_merge",)
PROGRAMS = ("merge", "split", "brk")
CASES = {
    1: (("PPPP....NNNN", "    AAAA    "), ("P.N", " A "), ("PP...NN", "  AAA")),
    2: (("PPPP....xxxx", "    AAAA    "), ("P.", " A"), ("PP...N", "  AA")),
    3: (("pppp....NNNN", "    AAAA    "), (".N", "A"), ("P..N", "  A")),
    4: (("ppppppppNNNN", "    AAAA    "), ("ppN", " A"), ("..pppN", "   AA")),
    5: (("PPPPnnnnnnnn", "    AAAA    "), ("Pnn", " A"), ("Pnnn.N", " AA")),
    6: (("PPPPnnnnXXXX", "    AAAA    "), ("PnX", " A")),
    7: (("PPPPnnnnxxxx", "    AAAA    "), ("Pn", " A"), ("Pn.N", " A")),
    8: (("ppppnnnnXXXX", "    AAAA    "), ("nX", "A"), ("p.nX", "  A")),
}
NAMES = {
    1: "1 (A fills the hole between two alike: both and A become the lower one)",
    2: "2 (A follows P: P grows over it)",
    3: "3 (A precedes N: N grows down over it)",
    4: "4 (A is the end of P and becomes like N: the border moves down, N takes A)",
    5: "5 (A is the start of N and becomes like P: the border moves up, P takes A)",
    6: "6 (A is a whole area between two alike: one is left, the lowest)",
    7: "7 (A is a whole area and becomes like P: P takes it)",
    8: "8 (A is a whole area and becomes like the one after it, X: X takes it and is the one that is left)",
}
NOTHING = (("P..", "  A"), ("pp..", "  AA"), ("ppnnxx", "  AA"), ("nnnX", " A"), ("p..n", " A"))
LETTERS = {1: "PN", 2: "P", 3: "N", 4: "pN", 5: "Pn", 6: "PnX", 7: "Pn", 8: "nX"}


class MappedFile:
    """As much of an open file as areas ask for."""

    def __init__(self) -> None:
        self.f_mapping = AddressSpace(None)
        self.f_count = 100
        self.f_mode = 3
        self.f_flags = 0

    def d_path(self) -> str:
        return "/file"

    def mmap(self, vma: VmAreaStruct) -> None:
        return

    def release(self) -> None:
        return


class Owner:
    """vm_ops of a driver that wants to hear when its area ends."""

    open = fault = map_pages = page_mkwrite = name = None

    @staticmethod
    def close(vma: VmAreaStruct) -> None:
        return


class Trial:
    """One call of vma_merge: the areas, and what A shall be.

    Args:
        anon: anon_vma of an area by its letter, as a name; equal names are the same anon_vma.
        change: flags, file, pgoff or policy of A, where they are not those of the upper-case areas.
        owner: letter of an area whose vm_ops have `close`.
        note: said below the drawing.
    """

    def __init__(
        self,
        picture: tuple[str, str],
        anon: dict[str, str] | None = None,
        change: dict[str, Any] | None = None,
        owner: str = "",
        file: bool = False,
        forked: str = "",
        note: str = "",
    ) -> None:
        self.before, self.range = picture
        self.anon = anon or {}
        self.change = change or {}
        self.owner = owner
        self.file = file
        self.forked = forked
        self.note = note

    def build(self, world: World) -> tuple[Any, ...]:
        """Areas as drawn, by our code; the arguments of the call."""
        world.clear()
        file = MappedFile() if self.file else None
        kinds = {name: AnonVma() for name in sorted(set(self.anon.values()))}
        world.draw("")
        for name, first, end in runs(self.before):
            vma = world.area(first, end, UPPER if name.isupper() else UPPER & ~2)
            vma.vm_file = file
            world.names[name] = vma
            if name in self.anon:
                vma.anon_vma = kinds[self.anon[name]]
                _anon_vma_chain_link(vma, vma.anon_vma)
                vma.anon_vma.num_active_vmas += 1
                if name in self.forked:  # it inherited pages: a second anon_vma in its chain
                    _anon_vma_chain_link(vma, AnonVma())
            world.link(vma)
        if self.owner:
            world.names[self.owner].vm_ops = Owner()  # type: ignore[assignment]
        return self._arguments(world, file)

    def _arguments(self, world: World, file: Any) -> tuple[Any, ...]:
        """As mmap (a range in free space) or mprotect (a range that is mapped) would call."""
        ((_, first, end),) = runs(self.range.replace(".", " "))
        addr, stop = world.address(first), world.address(end)
        prev = area = None
        vma = world.mm.mmap
        while vma is not None:
            if vma.vm_start < addr:
                prev = vma
            if vma.vm_start <= addr < vma.vm_end:
                area = vma
            vma = vma.vm_next
        change = {"flags": UPPER, "file": file, "pgoff": 1000 + first, "policy": None} | self.change
        anon = area.anon_vma if area is not None else None
        return (
            world.mm,
            prev,
            addr,
            stop,
            change["flags"],
            anon,
            change["file"],
            change["pgoff"],
            change["policy"],
            None,
        )

    def shown(self) -> str:
        """The case, drawn."""
        lines = [ruled(self.before), f"  range  {self.range.replace('.', ' ')}   (A, to be upper case)"]
        if self.anon:
            having = ", ".join(f"{name}: {kind}" for name, kind in self.anon.items())
            lines.append(f"  anon_vmas  {having}; equal names are one anon_vma, others have none")
        return "\n".join([*lines, f"  {self.note}"] if self.note else lines)

    def outcome(self, world: World, student: Student | None) -> tuple[str, str, str]:
        """(answer, areas afterwards, which anon_vmas and offsets they have) of ours, or of the student's."""
        arguments = self.build(world)
        if student is None:
            answer = world.ours["vma_merge"](*arguments)
        else:
            answer, _ = student.call("vma_merge", *arguments, shown=self.shown)
        picture = world.picture(len(self.before) + 1)
        details = []
        for name in dict.fromkeys(picture.replace(".", "")):
            vma = world.names.get(name)
            if vma is not None:
                chain = len(vma.anon_vma_chain)
                details.append(f"{name}: pgoff {vma.vm_pgoff}, anon_vma {vma.anon_vma is not None}, chain of {chain}")
        return world.name_of(answer), picture, "; ".join(details)


def _try(student: Student, world: World, trial: Trial, why: str) -> None:
    expected = trial.outcome(world, None)
    try:
        got = trial.outcome(world, student)
    except Wrong as broken:
        raise Wrong(f"{why} {broken.reason}", *broken.drawing) from None
    if got[:2] != expected[:2]:
        says, came = (f"{outcome[1]}   vma_merge returns {outcome[0]}" for outcome in (expected, got))
        raise Wrong(why, trial.shown(), answers(says, came))
    if got[2] != expected[2]:
        why = "The areas have the right borders, but pages would be lost: vm_pgoff, or the anon_vmas, are not right."
        raise Wrong(why, trial.shown(), answers(expected[2], got[2]))
    try:
        validate_areas(world.mm)
    except KernelBug as bug:
        raise Wrong(f"An invariant broke: {str(bug).splitlines()[0]}", trial.shown(), world.tree) from None


def case(number: int) -> Any:
    """The step for one of the eight cases."""

    def step(student: Student) -> str:
        world = World()
        for picture in sorted(CASES[number], key=lambda pair: len(pair[0])):
            for file in (False, True):
                trial = Trial(picture, file=file, note="all of them map one file, offsets continue" if file else "")
                _try(student, world, trial, f"This is case {NAMES[number]}.")
        return f"{2 * len(CASES[number])} pictures"

    return step


def _apart(student: Student, why: str, **options: Any) -> str:
    """Something keeps A from its neighbours, in each of the cases."""
    world = World()
    for pictures in CASES.values():
        smallest = min(pictures, key=lambda pair: len(pair[0]))
        _try(student, world, Trial(smallest, note=options.get("note", ""), change=options.get("change")), why)
        owned = "PNX"
        if "owner" in options:
            for name in owned:
                if name in smallest[0]:
                    note = f"{name}.vm_ops.close is not None"
                    _try(student, world, Trial(smallest, owner=name, note=note), why)
    return "kept apart"


def flags(student: Student) -> str:
    """Flags of A that no neighbour has; neighbours that do not fit."""
    why = "Areas may join only when vm_flags are equal (but for mm.arch.VM_SOFTDIRTY)."
    note = "A shall also be VM_LOCKED, which none of them is"
    _apart(student, why, change={"flags": UPPER | VM_LOCKED}, note=note)
    world = World()
    for picture in NOTHING:
        _try(student, world, Trial(picture), "Nothing is to be merged here: None, and nothing changed.")
    return "kept apart"


def files(student: Student) -> str:
    """Another file."""
    why = "Areas may join only when they map the same file: vm_file is the very same object, or None in both."
    return _apart(student, why, change={"file": MappedFile()}, note="A shall map a file, the areas are anonymous")


def offsets(student: Student) -> str:
    """Page offsets that do not continue."""
    why = (
        "Page offsets must continue: A's pgoff is P's plus P's pages, and N's is A's plus A's pages. That holds for"
        " anonymous memory too, whose vm_pgoff is vm_start >> page_shift at birth."
    )
    _apart(student, why, change={"pgoff": 2000}, note="A's pgoff is 2000; an area that begins at page n has 1000 + n")
    world = World()
    for shift in (-1, 1):
        for number in (1, 2, 3):
            picture = min(CASES[number], key=lambda pair: len(pair[0]))
            ((_, first, _),) = runs(picture[1])
            trial = Trial(picture, change={"pgoff": 1000 + first + shift}, note=f"A's pgoff is {1000 + first + shift}")
            _try(student, world, trial, why)
    return "kept apart"


def special(student: Student) -> str:
    """VM_SPECIAL, a close() method, another policy."""
    why = "A range with one of VM_SPECIAL (device memory and the like) never merges."
    world = World()
    flags = UPPER | VM_DONTEXPAND
    for number in (2, 3):
        picture = min(CASES[number], key=lambda pair: len(pair[0]))
        trial = Trial(picture, change={"flags": flags}, note="A shall have VM_DONTEXPAND, which is in VM_SPECIAL")
        arguments = trial.build(world)
        for vma in world.names.values():
            vma.vm_flags = flags
        answer, _ = student.call("vma_merge", *arguments, shown=trial.shown)
        if answer is not None:
            raise Wrong(why, trial.shown(), answers("None", world.name_of(answer)))
    _apart(student, "An area with vm_ops.close stays alone: its owner wants to hear of each end.", owner=True)
    return _apart(student, "Another NUMA policy keeps areas apart.", change={"policy": "bind"}, note="A has a policy")


def soft_dirty(student: Student) -> str:
    """VM_SOFTDIRTY does not keep areas apart."""
    world = World()
    for number in CASES:
        picture = min(CASES[number], key=lambda pair: len(pair[0]))
        change = {"flags": UPPER | world.mm.arch.VM_SOFTDIRTY}
        why = "VM_SOFTDIRTY is only a note that pages were written: it does not keep areas apart."
        _try(student, world, Trial(picture, change=change, note="A shall have VM_SOFTDIRTY too"), why)
    return "merged all the same"


def anon_vmas(student: Student) -> str:
    """Every combination of anon_vmas in every case."""
    world = World()
    tried = 0
    why = (
        "Two ranges may join when they have the same anon_vma; or when one of them has none and the area that is joined"
        " has a chain of exactly one entry. To join three, the outer two must fit each other also."
    )
    for number, pictures in CASES.items():
        picture = min(pictures, key=lambda pair: len(pair[0]))
        letters = list(dict.fromkeys(picture[0].replace(".", "")))
        for choice in product(("", "a", "b"), repeat=len(letters)):
            anon = {name: kind for name, kind in zip(letters, choice, strict=True) if kind}
            _try(student, world, Trial(picture, anon=anon), why)
            tried += 1
        if number in (1, 2, 3):
            for name in LETTERS[number]:
                note = f"{name} inherited pages by fork: its chain has two entries"
                _try(student, world, Trial(picture, anon={name: "a"}, forked=name, note=note), why)
                tried += 1
    return f"{tried} combinations"


def efficiency(student: Student) -> str:
    """Areas looked at for a merge that is refused, in an address space of 200."""
    world = World()
    most = 0
    for trial in (Trial(picture) for picture in NOTHING):
        arguments = trial.build(world)
        for page in range(40, 640, 3):
            world.link(world.area(page, page + 1))
        answer, visits = world.visits(lambda a=arguments: student.functions["vma_merge"](*a))  # type: ignore[misc]
        most = max(most, visits)
        if visits > 4 or answer is not None:
            reason = "The neighbours are prev, prev.vm_next and the one after that: no search is needed."
            raise Wrong(reason, trial.shown(), answers("at most 4 areas looked at", str(visits)))
    return f"at most {most} of 200 areas looked at"


STEPS = (
    *((f"case{number}", f"case {NAMES[number]}", 6, case(number)) for number in CASES),
    ("flags", "other flags keep areas apart", 4, flags),
    ("files", "another file keeps areas apart", 4, files),
    ("offsets", "page offsets that do not continue keep areas apart", 4, offsets),
    ("anon_vmas", "whose anon_vma may join whose", 6, anon_vmas),
    ("special", "VM_SPECIAL, close() and policies keep areas apart", 4, special),
    ("soft_dirty", "VM_SOFTDIRTY does not", 2, soft_dirty),
    ("x86_64", "agrees on real programs, x86-64", 5, lambda s: grade_programs.agrees(s, "x86_64", PROGRAMS[:1])),
    ("aarch64", "agrees on real programs, arm64", 5, lambda s: grade_programs.agrees(s, "aarch64", PROGRAMS[:1])),
    ("efficiency", "only the neighbours are looked at", 6, efficiency),
    ("check", "real programs keep every invariant (--check 2)", 7, lambda s: grade_programs.check(s, PROGRAMS[:1])),
)
