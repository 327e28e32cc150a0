"""Questions about areas: the search, its cache, merging, and the memory map. Each function makes one, or None.

The questions about calls make the call on the stopped program, so what they ask is what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import draw
from emu.draw_tree import tree_text
from emu.quiz_question import Question, choices_of
from emu.quiz_state import FIXED
from mm.errors import Errno
from mm.flags import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_SPECIAL,
    VM_WRITE,
)
from mm.mmap import do_munmap, vm_mmap
from mm.mprotect import do_mprotect_pkey

if TYPE_CHECKING:
    from random import Random

    from emu.quiz_state import State
    from mm.types import VmAreaStruct

PROTS = (PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC)
LEGEND = [
    "ac: VM_ACCOUNT, which a private area gets when it may be written to, and then keeps.",
    "pgoff is the address's page number where none is shown.",
]
_ORDINARY = VM_ACCOUNT | VM_READ | VM_WRITE | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
Line = tuple[int, int, str]  # start, end, permissions


def path_of(root: Any, address: int) -> list[Any]:
    """The nodes find_vma() visits in the tree."""
    nodes = []
    while root is not None:
        nodes.append(root)
        if root.vm_end > address:
            if root.vm_start <= address:
                break
            root = root.rb_left
        else:
            root = root.rb_right
    return nodes


def _arrow(nodes: list[Any]) -> str:
    return " -> ".join(f"{node.vm_start:x}" for node in nodes)


def _address(state: State, rng: Random) -> int:
    """An address in an area or beside one."""
    vma = rng.choice(state.areas())
    page = state.arch.page_size
    near = (vma.vm_start, vma.vm_end - 1, vma.vm_end, vma.vm_start - page, rng.randrange(vma.vm_start, vma.vm_end))
    return max(rng.choice(near), 0)


def visit_order(state: State, rng: Random) -> Question | None:
    """The way down the tree."""
    root = state.mm.mm_rb.rb_node
    areas = state.areas()
    address = _address(state, rng)
    nodes = path_of(root, address)
    if len(nodes) < 2:
        return None
    found = next((vma for vma in areas if vma.vm_end > address), None)
    stop = nodes.index(found) if found in nodes else len(nodes) - 1
    wrong = [
        nodes[: stop + 1],  # stopping at the first area that ends above the address
        *(path_of(root, vma.vm_start) for vma in areas),  # other ways down
        areas[: areas.index(found) + 1] if found is not None else areas,  # along the list
        nodes[::-1],
    ]
    right = _arrow(nodes)
    choices = choices_of(rng, right, [_arrow(way) for way in wrong])
    shown = tree_text(state.mm).splitlines()
    asked = f"find_vma(mm, {address:#x}) misses the cache. Which nodes does it visit, in which order (by their start)?"
    answer = "None" if found is None else f"the area at {found.vm_start:x}"
    why = (
        f"Left where the node ends above {address:#x}, right where it does not, and the end where the node contains it"
        f" or there is no child. The answer is {answer}."
    )
    facts = {"address": address, "found": None if found is None else found.vm_start}
    return Question("find_vma", "visit_order", shown, asked, right, why, choices, facts=facts)


def answer_of(state: State, rng: Random) -> Question | None:
    """What find_vma() says."""
    areas = state.areas()
    address = _address(state, rng)
    found = next((vma for vma in areas if vma.vm_end > address), None)
    right = _span(found)
    near = [_span(vma) for vma in areas]
    choices = choices_of(rng, right, [*near, "None"])
    shown = [_short(vma) for vma in areas]
    why = (
        f"It is the first area that ends above {address:#x}; it need not contain it, and an end is no part of an area."
    )
    asked = f"What does find_vma(mm, {address:#x}) return?"
    lines = [(vma.vm_start, vma.vm_end) for vma in areas]
    return Question("find_vma", "answer", shown, asked, right, why, choices, facts={"address": address, "lines": lines})


def _span(vma: VmAreaStruct | None) -> str:
    return "None" if vma is None else f"the area {vma.vm_start:x}-{vma.vm_end:x}"


def _short(vma: VmAreaStruct) -> str:
    return f"{vma.vm_start:x}-{vma.vm_end:x} {draw.permissions(vma)} {draw.name_of(vma)}".rstrip()


def cache_slot(state: State, rng: Random) -> Question | None:
    """Hit or miss."""
    task, mm = state.task, state.mm
    slots = list(task.vmacache)
    if not any(vma is not None and vma.vm_start > FIXED for vma in slots):
        return None
    stale = task.vmacache_seqnum != mm.vmacache_seqnum
    cached = [vma for vma in slots if vma is not None]
    vma = rng.choice(cached) if rng.random() < 0.6 else rng.choice(state.areas())
    address = rng.randrange(vma.vm_start, vma.vm_end)
    first = address >> state.arch.pmd_shift
    hit = next((s & 3 for s in range(first, first + 4) if _holds(slots[s & 3], address)), None)
    if stale:
        hit = None
    right = "a miss" if hit is None else f"a hit in slot {hit}"
    choices = choices_of(rng, right, ["a miss", *(f"a hit in slot {slot}" for slot in range(4))])
    shown = [
        f"vmacache[{number}] = {'empty' if vma is None else f'{vma.vm_start:x}-{vma.vm_end:x}'}"
        for number, vma in enumerate(slots)
    ]
    shown += [f"task.vmacache_seqnum {task.vmacache_seqnum}, mm.vmacache_seqnum {mm.vmacache_seqnum}"]
    shown += [f"PMD_SHIFT is {state.arch.pmd_shift}"]
    asked = f"vmacache_find(mm, {address:#x}) of the running task: a hit, and in which slot, or a miss?"
    if stale:
        why = "The sequence numbers differ: an area was unmapped since, and all four slots are forgotten."
    else:
        first_slot = f"({address:#x} >> {state.arch.pmd_shift}) & 3 = {first & 3}"
        why = f"{first_slot}: slots are tried from there on, around; the first that contains the address counts."
    spans = [None if vma is None else (vma.vm_start, vma.vm_end) for vma in slots]
    facts = {"address": address, "spans": spans, "stale": stale, "shift": state.arch.pmd_shift}
    return Question("find_vma", "cache_slot", shown, asked, right, why, choices, facts=facts)


def _holds(vma: VmAreaStruct | None, address: int) -> bool:
    return vma is not None and vma.vm_start <= address < vma.vm_end


# ---- calls


class Call:
    """A memory call made on the stopped program, with the areas around it before and after."""

    def __init__(self, state: State, rng: Random, kinds: tuple[str, ...]) -> None:
        self.state = state
        self.kind = rng.choice(kinds)
        self.page = state.arch.page_size
        vma = self._target(rng)
        pages = (vma.vm_end - vma.vm_start) // self.page
        first = rng.choice((0, 0, rng.randrange(pages)))
        last = rng.choice((pages, pages, rng.randint(first + 1, pages)))
        if last <= first:
            last = first + 1
        self.start, self.end = vma.vm_start + first * self.page, vma.vm_start + last * self.page
        self.prot = self._prot(vma, rng)
        low = min(vma.vm_start, self.start)
        self.low, self.high = self._around(low, max(vma.vm_end, self.end))
        self.before = self._lines()
        self.details = [self._detail(area) for area in self._areas()] + LEGEND
        state.merges.clear()
        self.refused = self._make()
        self.cases = [event.case for event in state.merges]
        self.after = self._lines()

    def _target(self, rng: Random) -> VmAreaStruct:
        """A private anonymous area of some pages; the program's own, or one that is mapped for it now."""
        areas = self.state.areas()
        fit = [
            vma
            for vma in areas
            if vma.vm_ops is None
            and vma.vm_start > FIXED
            and not vma.vm_flags & (VM_GROWSDOWN | VM_SPECIAL)
            and 1 < (vma.vm_end - vma.vm_start) // self.page <= 64
        ]
        if fit and rng.random() < 0.8:
            return rng.choice(fit)
        prot = PROT_READ | PROT_WRITE
        start = vm_mmap(self.state.mm, None, 0, 9 * self.page, prot, MAP_PRIVATE | MAP_ANONYMOUS, 0)
        if rng.random() < 0.7:  # three areas side by side
            first, second, third = rng.sample(PROTS, 3)
            for number, part in enumerate((first, second, rng.choice((first, first, third)))):
                do_mprotect_pkey(self.state.mm, start + 3 * number * self.page, 3 * self.page, part)
        return next(vma for vma in self.state.areas() if vma.vm_start <= start + 4 * self.page < vma.vm_end)

    def _prot(self, vma: VmAreaStruct, rng: Random) -> int:
        """A protection: often that of an area that touches, so that something is to be merged."""
        areas = self.state.areas()
        near = [area for area in areas if area.vm_end == vma.vm_start or area.vm_start == vma.vm_end]
        wanted = [draw.permissions(area) for area in near if area.vm_ops is None]
        if wanted and rng.random() < 0.75:
            words = rng.choice(wanted)
            bits = zip((PROT_READ, PROT_WRITE, PROT_EXEC), words[:3], strict=True)
            return sum(bit for bit, letter in bits if letter != "-")
        return rng.choice(PROTS)

    def _around(self, low: int, high: int) -> tuple[int, int]:
        """The range of the neighbours that touch."""
        below = next((vma for vma in self.state.areas() if vma.vm_end == low), None)
        above = next((vma for vma in self.state.areas() if vma.vm_start == high), None)
        return below.vm_start if below else low, above.vm_end if above else high

    def _areas(self) -> list[VmAreaStruct]:
        return [vma for vma in self.state.areas() if vma.vm_start < self.high and vma.vm_end > self.low]

    def _lines(self) -> list[Line]:
        return [(vma.vm_start, vma.vm_end, draw.permissions(vma)) for vma in self._areas()]

    def _detail(self, vma: VmAreaStruct) -> str:
        """What decides about merging."""
        name = "none"
        if vma.anon_vma is not None:
            seen = [area.anon_vma for area in self._areas() if area.anon_vma is not None]
            known = list(dict.fromkeys(map(id, seen)))
            name = f"{'ABCDEF'[known.index(id(vma.anon_vma)) % 6]} (chain of {len(vma.anon_vma_chain)})"
        words = [f"{vma.vm_start:x}-{vma.vm_end:x} {draw.permissions(vma)}", f"anon_vma {name}"]
        if vma.vm_flags & VM_ACCOUNT:
            words.append("ac")
        if vma.vm_flags & ~_ORDINARY & ~vma.vm_mm.arch.VM_SOFTDIRTY:
            words.append(f"flags {vma.vm_flags:#x}")
        if vma.vm_pgoff != vma.vm_start >> self.state.arch.page_shift:
            words.append(f"pgoff {vma.vm_pgoff:#x}")
        return " ".join([*words, draw.name_of(vma)]).rstrip()

    def _make(self) -> bool:
        mm, length = self.state.mm, self.end - self.start
        try:
            if self.kind == "mprotect":
                do_mprotect_pkey(mm, self.start, length, self.prot)
            elif self.kind == "munmap":
                do_munmap(mm, self.start, length)
            else:
                vm_mmap(mm, None, self.start, length, self.prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0)
        except Errno:
            return True
        return False

    def prot_words(self) -> str:
        """PROT_* as a program writes them."""
        names = ((PROT_READ, "PROT_READ"), (PROT_WRITE, "PROT_WRITE"), (PROT_EXEC, "PROT_EXEC"))
        return "|".join(name for bit, name in names if self.prot & bit) or "PROT_NONE"

    def words(self) -> str:
        """The call as a program writes it."""
        length = f"{self.end - self.start:#x}"
        if self.kind == "mprotect":
            return f"mprotect({self.start:#x}, {length}, {self.prot_words()})"
        if self.kind == "munmap":
            return f"munmap({self.start:#x}, {length})"
        return f"mmap({self.start:#x}, {length}, {self.prot_words()}, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0)"


def show(lines: list[Line]) -> str:
    """Areas, one a line."""
    return "\n".join(f"{start:x}-{end:x} {allowed}" for start, end, allowed in lines) or "(nothing there)"


def cut(lines: list[Line], address: int) -> list[Line]:
    """The same with a border at `address`."""
    found: list[Line] = []
    for start, end, allowed in lines:
        found += (
            [(start, address, allowed), (address, end, allowed)] if start < address < end else [(start, end, allowed)]
        )
    return found


def joined(lines: list[Line]) -> list[Line]:
    """The same with all touching areas of the same permissions joined."""
    found: list[Line] = []
    for start, end, allowed in lines:
        if found and found[-1][1] == start and found[-1][2] == allowed:
            found[-1] = (found[-1][0], end, allowed)
        else:
            found.append((start, end, allowed))
    return found


def _wrong_maps(call: Call) -> list[list[Line]]:
    """Maps one could think of."""
    after, page = call.after, call.page
    shifted = [(s + page if s == call.end else s, e + page if e == call.end else e, p) for s, e, p in after]
    swapped = [(s, e, p.translate(str.maketrans("r-", "-r"))) if s == call.start else (s, e, p) for s, e, p in after]
    return [
        call.before,
        cut(cut(after, call.start), call.end),
        joined(after),
        [line for line in shifted if line[0] < line[1]],
        swapped,
        [line for line in after if line[0] != call.start],
        [line for line in call.before if line[1] <= call.start or line[0] >= call.end],
    ]


def maps_after(state: State, rng: Random) -> Question | None:
    """/proc/self/maps after a call."""
    call = Call(state, rng, ("mprotect", "munmap", "mmap"))
    if call.refused:
        return None
    right = show(call.after)
    choices = choices_of(rng, right, [show(lines) for lines in _wrong_maps(call)])
    asked = f"The program calls {call.words()}. What does /proc/self/maps show of this part now?"
    if call.cases:
        why = f"vma_merge case {call.cases[-1]}: an area is joined where its neighbour is alike."
    else:
        why = "Areas are cut at the borders of the call where they must be, and nothing is joined."
    facts = {"before": call.before, "start": call.start, "end": call.end, "prot": call.prot, "call": call.kind}
    return Question("maps", "maps_after", call.details, asked, right, why, choices, facts=facts)


def merge_case(state: State, rng: Random) -> Question | None:
    """Which of the eight cases."""
    call = Call(state, rng, ("mprotect", "mprotect", "mmap"))
    if call.refused or len(call.cases) > 1:
        return None
    answer = call.cases[0] if call.cases else 0
    if not answer and rng.random() < 0.8:
        return None  # most calls merge nothing: that would be too easy to guess
    asked = (
        f"The program calls {call.words()}. Which case of vma_merge() is it, 1 to 8? (0: none of them merges anything.)"
    )
    words = f"Case {answer}." if answer else "Nothing is merged."
    why = f"{words} Now there are:\n{show(call.after)}"
    facts = {"before": call.before, "after": call.after, "start": call.start, "end": call.end}
    return Question("merge", "merge_case", call.details, asked, answer, why, facts=facts)


def area_count(state: State, rng: Random) -> Question | None:
    """How many areas there are."""
    call = Call(state, rng, ("mprotect", "munmap"))
    if call.refused:
        return None
    shown = call.details
    asked = f"The program calls {call.words()}. How many areas are there in this part of the memory map afterwards?"
    why = f"Now there are:\n{show(call.after)}"
    facts = {"after": call.after}
    return Question("maps", "area_count", shown, asked, len(call.after), why, facts=facts)


KINDS = {
    "find_vma": (visit_order, answer_of, cache_slot),
    "merge": (merge_case,),
    "maps": (maps_after, area_count),
}
