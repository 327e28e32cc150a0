"""Areas before and after a call, drawn one above the other; the eight merges as pictures; what became of the tree.

    before  |AAAAAAAA|BBBBBBBBBBBB|....|CCCC|
    after   |AAAAAAAAAAAAAAAA|DDDD|....|CCCC|

One letter is one VMA: where the same structure lives on with other borders it keeps its letter. Dots are a hole.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from emu import draw
from emu.explain_lookup import Area
from mm.rbtree import rb_nodes

if TYPE_CHECKING:
    from mm.types import MmStruct

WIDTH = 84  # columns of a drawing
LEAST, MOST = 4, 14  # columns of a stretch that is not to scale
MAX_DRAWN = 12  # areas: more are told by number
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# case -> (before, the range, after, in words); as in mm/vma_merge.py: P is the area before, N the one behind, X the
# one in the range, the range itself is AAAA.
MERGES = {
    1: ("PPPP....NNNN", "    AAAA    ", "PPPPPPPPPPPP", "the range fills the hole between P and N: P takes in both"),
    2: ("PPPP....NNNN", "    AAAA    ", "PPPPPPPPNNNN", "the range begins where P ends: P grows up"),
    3: ("PPPP....NNNN", "    AAAA    ", "PPPPNNNNNNNN", "the range ends where N begins: N grows down"),
    4: ("PPPPPPNNNNNN", "  AAAA      ", "PPNNNNNNNNNN", "the range is the end of P and goes to N: N grows down"),
    5: ("PPPPPPNNNNNN", "      AAAA  ", "PPPPPPPPPPNN", "the range is the start of N and goes to P: P grows up"),
    6: ("PPPPXXXXNNNN", "    AAAA    ", "PPPPPPPPPPPP", "X is the range: P takes in X and N"),
    7: ("PPPPXXXXNNNN", "    AAAA    ", "PPPPPPPPNNNN", "X is the range and like P: P takes it in"),
    8: ("PPPPXXXXNNNN", "    AAAA    ", "PPPPNNNNNNNN", "X is the range and like N: N takes it in, growing down"),
}


class Snapshot:
    """All areas of an address space and their places in the tree, at one moment."""

    def __init__(self, mm: MmStruct) -> None:
        self.areas: list[Area] = []
        self.keep: list[Any] = []  # so that no identity is used twice
        self.nodes: dict[int, tuple[bool, int, int, int]] = {}  # ident -> (red, parent, left, right)
        self.root = id(mm.mm_rb.rb_node) if mm.mm_rb.rb_node is not None else 0
        for vma in rb_nodes(mm.mm_rb):
            self.areas.append(Area(vma))
            self.keep.append(vma)
            links = (vma.rb_parent, vma.rb_left, vma.rb_right)
            parent, left, right = (id(node) if node is not None else 0 for node in links)
            self.nodes[id(vma)] = (bool(vma.rb_red), parent, left, right)


class Change:
    """What a call did to the areas and to the tree.

    Attributes:
        before, after: the areas of the neighbourhood: what changed, and one area on each side.
        names: identity -> letter.
        linked: (area, "red" or "black", parent) of nodes that are new; erased: areas whose nodes are gone.
        recoloured: (area, "red" or "black" now) of nodes that stayed.
        moved: (area, old parent, new parent) of nodes that stayed, in words.
    """

    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        old = {area.ident: area for area in before.areas}
        new = {area.ident: area for area in after.areas}
        changed = [area for area in before.areas if not _same(area, new.get(area.ident))]
        added = [area for area in after.areas if not _same(area, old.get(area.ident))]
        self.changed = bool(changed or added)
        self.total = (len(before.areas), len(after.areas))
        touched = changed + added
        self.low = min((area.start for area in touched), default=0)
        self.high = max((area.end for area in touched), default=0)
        self.before = _neighbourhood(before.areas, self.low, self.high) if self.changed else []
        self.after = _neighbourhood(after.areas, self.low, self.high) if self.changed else []
        self.names: dict[int, str] = {}
        for area in sorted([*self.before, *self.after], key=lambda area: area.start):
            if area.ident not in self.names:
                number = len(self.names)
                self.names[area.ident] = LETTERS[number % len(LETTERS)]
        self.linked: list[tuple[Area, str, str]] = []
        self.erased = [area for area in before.areas if area.ident not in new]
        self.recoloured: list[tuple[Area, str]] = []
        self.moved: list[tuple[Area, str, str]] = []
        for ident, (red, parent, _, _) in after.nodes.items():
            if ident in before.nodes:
                was_red, old_parent, _, _ = before.nodes[ident]
                if red != was_red:
                    self.recoloured.append((new[ident], "red" if red else "black"))
                if parent != old_parent:
                    self.moved.append((new[ident], _parent(old_parent, old), _parent(parent, new)))
            else:
                self.linked.append((new[ident], "red" if red else "black", _parent(parent, new)))

    def lines(self) -> list[str]:
        """The drawing and its legend."""
        if not self.changed:
            return ["no area changed"]
        if max(len(self.before), len(self.after)) > MAX_DRAWN:
            return [
                f"{self.total[0]} areas before, {self.total[1]} after; too many changed to draw",
                *self._legend()[:24],
            ]
        stretches, to_scale = self._stretches()
        rows = [f"before  {self._row(self.before, stretches)}", f"after   {self._row(self.after, stretches)}"]
        if to_scale:
            holes = any(end - start > self._mapped() for start, end, _ in stretches)
            rows.append("        to scale" + (", but for the large hole" if holes else ""))
        else:
            rows.append("        not to scale")
        return [*rows, *self._legend()]

    def _stretches(self) -> tuple[list[tuple[int, int, int]], bool]:
        """(start, end, columns) between any two borders, and whether the columns are to scale."""
        both = [*self.before, *self.after]
        borders = sorted({border for area in both for border in (area.start, area.end)})
        pairs = list(pairwise(borders))
        mapped = self._mapped()
        # A hole larger than all areas together is drawn short, and says so; the rest can still be to scale.
        long = [(start, end) for start, end in pairs if end - start > mapped]
        total = sum(end - start for start, end in pairs if (start, end) not in long)
        width = WIDTH - MOST * len(long)
        scaled = [MOST if pair in long else (pair[1] - pair[0]) * width / total for pair in pairs]
        if all(columns >= 2 for columns in scaled):
            return [(start, end, round(columns)) for (start, end), columns in zip(pairs, scaled, strict=True)], True
        least = min(end - start for start, end in pairs)
        out = []
        for start, end in pairs:
            columns = LEAST + 2 * ((end - start) // least).bit_length() - 2
            out.append((start, end, min(columns, MOST)))
        return out, False

    def _mapped(self) -> int:
        """Bytes of all areas drawn."""
        both = [*self.before, *self.after]
        borders = sorted({border for area in both for border in (area.start, area.end)})
        return sum(b - a for a, b in pairwise(borders) if any(area.start <= a < area.end for area in both))

    def _row(self, areas: list[Area], stretches: list[tuple[int, int, int]]) -> str:
        runs: list[tuple[Area | None, int, int]] = []  # area or hole, bytes, columns
        for start, end, columns in stretches:
            area = next((area for area in areas if area.start <= start < area.end), None)
            if runs and runs[-1][0] is area:
                runs[-1] = (area, runs[-1][1] + end - start, runs[-1][2] + columns)
            else:
                runs.append((area, end - start, columns))
        text = ""
        for area, size, columns in runs:
            filling = (self.names[area.ident] if area is not None else ".") * (columns - 1)
            if area is None and size > self._mapped():
                label = f" {draw.rough_size(size)} "
                filling = f"{label:.^{columns - 1}}"
            text += f"|{filling}"
        return text + "|"

    def _legend(self) -> list[str]:
        old = {area.ident: area for area in self.before}
        new = {area.ident: area for area in self.after}
        rows = []
        for ident, letter in self.names.items():
            rows.append((letter, _described(old.get(ident)), "->", _described(new.get(ident))))
            if old.get(ident) is not None and _same(old[ident], new.get(ident)):
                rows[-1] = (letter, _described(old[ident]), "", "unchanged")
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "areas": list(self.total),
            "before": [{"letter": self.names[area.ident], **area.to_dict()} for area in self.before],
            "after": [{"letter": self.names[area.ident], **area.to_dict()} for area in self.after],
            "linked": [{"area": area.to_dict(), "colour": c, "parent": above} for area, c, above in self.linked],
            "erased": [area.to_dict() for area in self.erased],
            "recoloured": [{"area": area.to_dict(), "now": colour} for area, colour in self.recoloured],
            "moved": [{"area": area.to_dict(), "parent_before": a, "parent_after": b} for area, a, b in self.moved],
        }


def _same(one: Area, other: Area | None) -> bool:
    """Neither borders, rights nor offset differ. A new area is soft-dirty: that alone is no change worth drawing."""
    if other is None:
        return False
    return (one.start, one.end, one.flags, one.offset) == (other.start, other.end, other.flags, other.offset)


def _neighbourhood(areas: list[Area], low: int, high: int) -> list[Area]:
    """The areas that touch [low, high), and the next one on each side."""
    inside = [number for number, area in enumerate(areas) if area.end >= low and area.start <= high]
    first = inside[0] - 1 if inside else max((n for n, area in enumerate(areas) if area.end <= low), default=0)
    last = inside[-1] + 1 if inside else first + 1
    return areas[max(first, 0) : last + 1]


def _parent(ident: int, areas: dict[int, Area]) -> str:
    if not ident:
        return "root"
    return str(areas[ident]) if ident in areas else "a node that is gone"


def _described(area: Area | None) -> str:
    if area is None:
        return "none"
    return f"{area} {area.permissions} {draw.size_text(area.end - area.start)} {area.name or 'anonymous'}"


def merge_lines(case: int, start: int, end: int) -> list[str]:
    """A merge as a picture."""
    before, asked, after, words = MERGES[case]
    return [
        f"vma_merge() case {case}: {words}",
        f"  before  {before}",
        f"  range   {asked}    AAAA = {start:x}-{end:x}",
        f"  after   {after}",
    ]
