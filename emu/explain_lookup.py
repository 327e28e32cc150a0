"""`find_vma` told: the vmacache slots in the order they are tried, then every tree node with its comparisons.

Recorded just before a search, from the same structures and by the same steps as mm/vmacache.py and mm/find_vma.py, and
without changing them. A test holds that both find the same area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu import draw

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct


class Area:
    """A VMA as it was, in numbers that do not change any more."""

    __slots__ = ("black", "end", "flags", "ident", "name", "offset", "permissions", "start")

    def __init__(self, vma: VmAreaStruct) -> None:
        self.ident = id(vma)
        self.start = vma.vm_start
        self.end = vma.vm_end
        self.flags = vma.vm_flags
        self.offset = vma.vm_pgoff
        self.permissions = draw.permissions(vma)
        self.name = draw.name_of(vma)
        self.black = not vma.rb_red

    def __str__(self) -> str:
        return f"{self.start:x}-{self.end:x}"

    def describe(self) -> str:
        """Range, rights, name."""
        return f"{self} {self.permissions} {self.name or 'anonymous'}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "start": self.start,
            "end": self.end,
            "permissions": self.permissions,
            "flags": self.flags,
            "pgoff": self.offset,
            "name": self.name,
        }


class Lookup:
    """One search.

    Attributes:
        slot: of the vmacache that is tried first; None when the cache is not used.
        shift: address bits that do not choose the slot.
        stale: the cache was of another sequence number, and is thrown away.
        slots: (number, area or None, contains the address) as tried; it ends at a hit.
        hit: the cache answered.
        nodes: (area, [comparisons], where to) of each tree node visited.
        answer: the area found, or None.
        contains: it contains the address.
    """

    def __init__(self, mm: MmStruct, address: int, task: Any) -> None:
        self.address = address
        self.shift = mm.arch.pmd_shift
        self.slot: int | None = None
        self.stale = False
        self.seqnum = (0, 0)
        self.slots: list[tuple[int, Area | None, bool]] = []
        self.nodes: list[tuple[Area, list[str], str]] = []
        self.hit = False
        self.filled = False
        found = self._cached(mm, task)
        if found is None:
            found = self._tree(mm)
            self.filled = found is not None and self.slot is not None
        else:
            self.hit = True
        self.answer = Area(found) if found is not None else None
        self.contains = found is not None and found.vm_start <= address

    def _cached(self, mm: MmStruct, task: Any) -> VmAreaStruct | None:
        """vmacache_find()."""
        if task is None or task.mm is not mm:
            return None
        self.slot = self.address >> self.shift & 3
        self.seqnum = (task.vmacache_seqnum, mm.vmacache_seqnum)
        if task.vmacache_seqnum != mm.vmacache_seqnum:
            self.stale = True
            return None
        for distance in range(4):
            number = self.slot + distance & 3
            vma = task.vmacache[number]
            hit = vma is not None and vma.vm_start <= self.address < vma.vm_end
            self.slots.append((number, Area(vma) if vma is not None else None, hit))
            if hit:
                return vma  # type: ignore[no-any-return]
        return None

    def _tree(self, mm: MmStruct) -> VmAreaStruct | None:
        """The descent of find_vma()."""
        node, found = mm.mm_rb.rb_node, None
        address = self.address
        while node is not None:
            area = Area(node)
            if node.vm_end > address:
                found = node
                if node.vm_start <= address:
                    self.nodes.append(
                        (area, [f"end {area.end:#x} > {address:#x}", f"start {area.start:#x} <= {address:#x}"], "found")
                    )
                    break
                compared = [f"end {area.end:#x} > {address:#x}", f"start {area.start:#x} > {address:#x}"]
                self.nodes.append((area, compared, "left" if node.rb_left is not None else "left, nothing"))
                node = node.rb_left
            else:
                compared = [f"end {area.end:#x} <= {address:#x}"]
                self.nodes.append((area, compared, "right" if node.rb_right is not None else "right, nothing"))
                node = node.rb_right
        return found

    def lines(self) -> list[str]:
        """The search, one step a line."""
        out = []
        if self.slot is None:
            out.append("vmacache   not used: this is not the running task's own memory")
        else:
            out.append(f"vmacache   slot ({self.address:#x} >> {self.shift}) & 3 = {self.slot}")
            if self.stale:
                out.append(
                    f"           stale: its sequence number is {self.seqnum[0]}, the address space's {self.seqnum[1]};"
                    " all four slots are forgotten"
                )
            for number, area, hit in self.slots:
                held = "empty" if area is None else area.describe()
                verdict = "" if area is None else "  contains it" if hit else "  does not contain it"
                out.append(f"           slot {number}: {held}{verdict}")
            out.append("           " + ("hit: the tree is not asked" if self.hit else "miss: the tree is searched"))
        if not self.hit:
            out += self._tree_lines()
        if self.answer is None:
            out.append("answer     none: no area ends above the address")
        else:
            where = "contains the address" if self.contains else "the first area above the address"
            out.append(f"answer     {self.answer.describe()}: {where}")
            if self.filled:
                out.append(f"           remembered in slot {self.slot}")
        return out

    def _tree_lines(self) -> list[str]:
        arrows = {
            "left": "go left",
            "right": "go right",
            "left, nothing": "left: nothing there",
            "right, nothing": "right: nothing there",
            "found": "found",
        }
        out = []
        span = max((len(str(area)) for area, _, _ in self.nodes), default=0)
        compared = max((len(", ".join(words)) for _, words, _ in self.nodes), default=0)
        for number, (area, words, turn) in enumerate(self.nodes):
            head = "tree" if number == 0 else ""
            colour = "black" if area.black else "red"
            out.append(f"{head:<10} {area!s:<{span}}  {colour:<5}  {', '.join(words):<{compared}}  {arrows[turn]}")
        return out or ["tree       empty"]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "address": self.address,
            "slot": self.slot,
            "stale": self.stale,
            "slots": [
                {"slot": number, "area": area.to_dict() if area is not None else None, "hit": hit}
                for number, area, hit in self.slots
            ],
            "hit": self.hit,
            "nodes": [
                {"area": area.to_dict(), "black": area.black, "compared": words, "turn": turn}
                for area, words, turn in self.nodes
            ],
            "answer": self.answer.to_dict() if self.answer is not None else None,
            "contains": self.contains,
        }
