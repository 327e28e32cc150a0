"""An address space as text: counters, areas, tree, vmacache, page-table leaves (/proc/mmdump of the oracle).

Byte for byte what mm/mmdump.c prints there; the format is in DESIGN.md's terms "the state dump, the debugging aid and
the conformance format at once". Frame numbers and addresses of anon_vmas are replaced by ids in order of appearance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm.flags import NR_MM_COUNTERS, PG_MLOCKED, VM_HUGETLB, VM_PFNMAP
from mm.memory_rss import page_anon
from mm.pgtable import pte_range, walk_pmds

if TYPE_CHECKING:
    from mm.types import MmStruct, TaskStruct, VmAreaStruct

MAX_IDS = 65536


class Ids:
    """Numbers for things in order of first appearance, from 1; -1 beyond MAX_IDS."""

    __slots__ = ("table",)

    def __init__(self) -> None:
        self.table: dict[int, int] = {}

    def __getitem__(self, key: int) -> int:
        table = self.table
        number = table.get(key)
        if number is None:
            if len(table) == MAX_IDS:
                return -1
            number = table[key] = len(table) + 1
        return number


def mmdump(task: TaskStruct) -> str:
    """What /proc/mmdump shows `task` of its own mm."""
    mm = task.mm
    if mm is None:
        return ""
    lines = counter_lines(task, mm)
    pfns, anons = Ids(), Ids()
    vma = mm.mmap
    while vma is not None:
        lines.append(vma_line(vma, anons))
        vma = vma.vm_next
    rb_lines(mm.mm_rb.rb_node, lines)
    valid = task.vmacache_seqnum == mm.vmacache_seqnum
    slots = (f"{slot.vm_start:x}" if slot is not None and valid else "-" for slot in task.vmacache)
    lines.append(f"cache {'valid' if valid else 'stale'} {' '.join(slots)}")
    vma = mm.mmap
    while vma is not None:
        if not vma.vm_flags & VM_PFNMAP:
            leaf_lines(vma, pfns, lines)
        vma = vma.vm_next
    lines.append("end\n")
    return "\n".join(lines)


def counter_lines(task: TaskStruct, mm: MmStruct) -> list[str]:
    """The three `mm` lines and `rss`, the current task's uncounted share included."""
    own = task.rss_stat
    rss = " ".join(str(mm.rss_stat[member] + own[member]) for member in range(NR_MM_COUNTERS))
    return [
        f"mm map_count={mm.map_count} total_vm={mm.total_vm} locked_vm={mm.locked_vm} data_vm={mm.data_vm}"
        f" exec_vm={mm.exec_vm} stack_vm={mm.stack_vm} def_flags={mm.def_flags:x}",
        f"mm start_code={mm.start_code:x} end_code={mm.end_code:x} start_data={mm.start_data:x}"
        f" end_data={mm.end_data:x} start_brk={mm.start_brk:x} brk={mm.brk:x} start_stack={mm.start_stack:x}",
        f"mm mmap_base={mm.mmap_base:x} highest_vm_end={mm.highest_vm_end:x} task_size={mm.task_size:x}"
        f" vmacache_seqnum={mm.vmacache_seqnum} pgtables_bytes={mm.pgtables_bytes}",
        f"rss {rss}",
    ]


def vma_line(vma: VmAreaStruct, anons: Ids) -> str:
    """One area."""
    prot = vma.vm_page_prot & ~vma.vm_mm.arch.PTE_PFN_MASK
    line = f"vma {vma.vm_start:x}-{vma.vm_end:x} flags={vma.vm_flags:x} prot={prot:x} pgoff={vma.vm_pgoff:x}"
    anon_vma = vma.anon_vma
    if anon_vma is not None:
        if vma.vm_mm.arch.dump_root_first:
            anons[id(anon_vma.root)]  # takes its number now
        line += (
            f" anon={anons[id(anon_vma)]}/{anons[id(anon_vma.root)]}"
            f" children={anon_vma.num_children} active={anon_vma.num_active_vmas}"
        )
    if vma.vm_file is not None:
        line += " file=" + vma.vm_file.d_path().replace("\n", "\\012")
    return line


def rb_lines(root: Any, lines: list[str]) -> None:
    """The tree, in pre-order."""
    stack = [(root, 0)] if root is not None else []
    while stack:
        node, depth = stack.pop()
        line = f"rb {depth} {node.vm_start:x} {'R' if node.rb_red else 'B'} gap={node.rb_subtree_gap:x}"
        if node.rb_left is not None:
            line += f" l={node.rb_left.vm_start:x}"
        if node.rb_right is not None:
            line += f" r={node.rb_right.vm_start:x}"
            stack.append((node.rb_right, depth + 1))
        if node.rb_left is not None:
            stack.append((node.rb_left, depth + 1))
        lines.append(line)


def leaf_lines(vma: VmAreaStruct, pfns: Ids, lines: list[str]) -> None:
    """Every leaf entry of an area."""
    mm = vma.vm_mm
    arch = mm.arch
    words = mm.system.words
    page_shift = arch.page_shift
    if vma.vm_flags & VM_HUGETLB:
        from mm.hugetlb import huge_pages

        lines.extend(leaf_line(mm, "huge", start, entry, pfns) for start, entry, _ in huge_pages(vma))
        return
    for start, end, pmd in walk_pmds(mm, vma.vm_start, vma.vm_end):
        if arch.pmd_trans_huge(words[pmd]):
            lines.append(leaf_line(mm, "pmd", start & arch.pmd_mask, words[pmd], pfns))
            continue
        first, last = pte_range(mm, pmd, start, end)
        for offset, pte in enumerate(words[first:last].tolist()):
            if pte:
                lines.append(leaf_line(mm, "pte", start + (offset << page_shift), pte, pfns))


def leaf_line(mm: MmStruct, kind: str, address: int, entry: int, pfns: Ids) -> str:
    """One leaf: its bits without the frame, and what is known of the frame."""
    arch = mm.arch
    system = mm.system
    if not arch.pte_present(entry):
        return f"{kind} {address:x} raw={entry:x} absent"
    line = f"{kind} {address:x} raw={entry & ~arch.PTE_PFN_MASK:x} "
    pfn = arch.pte_pfn(entry)
    if pfn == system.zero_pfn:
        return line + "zero"
    page = system.mem_map.peek(pfn)
    if page is None:
        return line + "nopage"
    owner = "anon" if page_anon(page) else "file"
    mlocked = " mlocked" if page.flags & PG_MLOCKED else ""
    return f"{line}id={pfns[pfn]} {owner} map={page.mapcount}{mlocked}"
