"""Questions about page tables, faults and frames. Each function makes one question of a state, or None."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu import draw
from emu.draw_pagetables import Entry, decoder_of, entries, entry_line, table_counts, walk
from emu.quiz_question import Question, choices_of
from emu.quiz_state import FIXED
from mm.flags import FAULT_FLAG_USER, FAULT_FLAG_WRITE, VM_WRITE
from mm.fork import dup_mm, mmput
from mm.types import TaskStruct

if TYPE_CHECKING:
    from random import Random

    from emu.quiz_state import FaultRecord, State

HANDLERS = {
    "anon-zero": "do_anonymous_page maps the shared zero page, read-only",
    "anon": "do_anonymous_page takes a zeroed frame and maps it writable",
    "file-read": "do_read_fault maps the file's own page, and those around it that are cached",
    "file-cow": "do_cow_fault copies the file's page into a new frame, and maps the copy",
    "file-shared": "do_shared_fault maps the file's own page, to be written to",
    "cow-copy": "do_wp_page copies what the entry maps into a new frame, and maps the copy",
    "cow-reuse": "do_wp_page makes the entry writable, the frame stays the same",
}
COUNTED = {False: "as a minor fault (min_flt)", True: "as a major fault (maj_flt)"}
WHY_HANDLER = {
    "anon-zero": "There is no entry, the area is anonymous, and it was a read: only a write needs a frame.",
    "anon": "There is no entry, the area is anonymous, and it was a write.",
    "file-read": "There is no entry, the area maps a file, and it was no write: the page cache's page will do.",
    "file-cow": "There is no entry, the mapping of the file is private, and it was a write: the file must not change.",
    "file-shared": "There is no entry, the mapping is shared, and it was a write: it is for all to see.",
    "cow-copy": "The entry is present and read-only, the area may be written to, and others use the frame too.",
    "cow-reuse": "The entry is present and read-only, the area may be written to, and nobody else uses the frame.",
}


def _leaves(state: State) -> list[Entry]:
    """Leaf entries with a frame, above the program's own file."""
    leaves = [entry for entry in entries(state.mm) if entry.leaf and state.arch.pte_present(entry.raw)]
    valid = state.arch.PTE_VALID
    return [entry for entry in leaves if entry.raw & valid == valid and entry.address > FIXED]


def _levels(state: State) -> str:
    """How an address is split, in words."""
    arch = state.arch
    bits = arch.page_shift - 3
    top = 56 if len(arch.level_names) == 5 else 47
    parts = []
    for name, shift in zip(arch.level_names, arch.level_shifts, strict=True):
        last = min(shift + bits - 1, top)
        parts.append(f"{name} bits {shift}-{last}" if last > shift else f"{name} bit {shift}")
    return f"Pages of {arch.page_size >> 10}K: {', '.join(parts)}, offset bits 0-{arch.page_shift - 1} of the address."


def _plain(entry: Entry) -> str:
    """An entry without what it means."""
    return f"{entry.name}[{entry.index:#x}]  at {entry.where:#x}:  {entry.raw:#018x}"


def translate(state: State, rng: Random) -> Question | None:
    """A walk, and the physical address asked for."""
    leaves = _leaves(state)
    if not leaves:
        return None
    leaf = rng.choice(leaves)
    size = 1 << state.arch.level_shifts[leaf.level]
    address = leaf.address + rng.randrange(1, size)
    path = walk(state.mm, address)
    physical = (leaf.pfn << state.arch.page_shift) + (address & (size - 1))
    why = (
        f"The last entry read is {leaf.name}[{leaf.index:#x}]; its address bits give frame {leaf.pfn:#x}, which begins"
        f" at {leaf.pfn << state.arch.page_shift:#x}. The offset within the page is {address & (size - 1):#x}."
    )
    shown = [_levels(state), *(_plain(entry) for entry in path)]
    asked = f"The MMU walks these entries for virtual address {address:#x}. What is the physical address?"
    raws = [entry.raw for entry in path]
    return Question(
        "translate", "translate", shown, asked, physical, why, base=16, facts={"address": address, "raws": raws}
    )


def index(state: State, rng: Random) -> Question | None:
    """The index at one level."""
    leaves = _leaves(state)
    if not leaves:
        return None
    address = rng.choice(leaves).address + rng.randrange(1, state.arch.page_size)
    level = rng.randrange(len(state.arch.level_names))
    name, shift = state.arch.level_names[level], state.arch.level_shifts[level]
    answer = address >> shift & state.arch.index_mask
    asked = f"Which entry of its {name} table does the MMU read for virtual address {address:#x} (the index)?"
    why = f"({address:#x} >> {shift}) & {state.arch.index_mask:#x} = {answer:#x}"
    return Question(
        "translate", "index", [_levels(state)], asked, answer, why, base=16, facts={"address": address, "level": level}
    )


def table_address(state: State, rng: Random) -> Question | None:
    """Where the next entry lies."""
    leaves = _leaves(state)
    if not leaves:
        return None
    address = rng.choice(leaves).address + rng.randrange(1, state.arch.page_size)
    path = walk(state.mm, address)
    if len(path) < 2:
        return None
    level = rng.randrange(len(path) - 1)
    upper, lower = path[level], path[level + 1]
    shown = [_levels(state), _plain(upper)]
    asked = (
        f"For virtual address {address:#x} the MMU has read this {upper.name} entry. At which physical address does it"
        f" read the {lower.name} entry?"
    )
    why = (
        f"The {upper.name} entry points to the table at {upper.pfn << state.arch.page_shift:#x}; the index in it is"
        f" {lower.index:#x}, and an entry has 8 bytes: + {lower.index * 8:#x}."
    )
    facts = {"address": address, "raw": upper.raw, "level": lower.level}
    return Question("translate", "table_address", shown, asked, lower.where, why, base=16, facts=facts)


def meaning(state: State, rng: Random) -> Question | None:
    """The bits of an entry by name."""
    leaves = _leaves(state)
    if not leaves:
        return None
    leaf = rng.choice(leaves)
    decoder = decoder_of(state.arch.name)
    last = leaf.level == len(state.arch.level_names) - 1
    right = " ".join(leaf.bits)
    wrong = [" ".join(decoder.decode(leaf.raw ^ bit, True, not last)) for bit in decoder.LEAF_BITS]
    wrong = [text for text in wrong if text != right]
    choices = choices_of(rng, right, wrong)
    shown = [f"virtual {leaf.address:#x}: {_plain(leaf)}", *decoder.BITS_HELP.splitlines()]
    asked = "Which bits does this entry have?"
    why = f"Of {leaf.raw:#x} these bits are set: {right}. The rest is frame {leaf.pfn:#x}."
    return Question("tables", "meaning", shown, asked, right, why, choices, facts={"raw": leaf.raw, "huge": not last})


def table_pages(state: State, rng: Random) -> Question | None:
    """How many page-table pages."""
    arch = state.arch
    leaves = [entry for entry in entries(state.mm) if entry.leaf]
    kernel = {index for index, _ in state.mm.system.kernel_pgd}
    counts = table_counts(state.mm)
    needed = {(0, 0)} | {
        (n, leaf.address >> arch.level_shifts[n - 1]) for leaf in leaves for n in range(1, leaf.level + 1)
    }
    total = sum(counts.values())
    if len(needed) != total or kernel & {leaf.address >> arch.pgdir_shift for leaf in leaves}:
        return None  # a table without entries is left: nobody could count it from outside
    runs: list[list[int]] = []
    for leaf in leaves:
        size = 1 << arch.level_shifts[leaf.level]
        if runs and runs[-1][1] == leaf.address:
            runs[-1][1] += size
        else:
            runs.append([leaf.address, leaf.address + size])
    if len(runs) > 14:
        return None
    shown = [_levels(state), "Mapped pages, and nothing else:", *(f"  {first:#x} - {end:#x}" for first, end in runs)]
    asked = "How many pages do the page tables themselves take, the root included?"
    why = "By level: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + "."
    return Question("tables", "table_pages", shown, asked, total, why, facts={"runs": runs})


def _story(record: FaultRecord, state: State) -> list[str]:
    """A fault as it is told in a question."""
    lines = [f"area   {record.area}", f"the program {_did(record)} address {record.address:#x}"]
    lines += [entry_line_short(state, entry) for entry in record.entries]
    levels = state.arch.level_names
    if len(record.entries) < len(levels) and not (record.entries and record.entries[-1].leaf):
        lines.append(f"{levels[len(record.entries)]} entry: 0")
    return lines


def entry_line_short(state: State, entry: Entry) -> str:
    """An entry with its bits by name."""
    return " ".join(entry_line(state.mm, entry).split())


def _mapping(record: FaultRecord) -> str:
    """What kind of mapping the area is."""
    what = "anonymous" if record.anonymous else "file (or shared memory)"
    return f"{what}, {'shared' if record.shared else 'private'} mapping"


def _did(record: FaultRecord) -> str:
    return {"read": "reads", "write": "writes to", "exec": "runs the code at"}[record.access]


def error_code(state: State, rng: Random) -> Question | None:
    """The error code, or ESR_EL1, of a fault."""
    if not state.faults:
        return None
    record = rng.choice(state.faults)
    codes = [other.error_code for other in state.faults]
    decoder = decoder_of(state.arch.name)
    asked, bits, near = decoder.quiz_error_code(record.error_code)
    right = f"{record.error_code:#x}"
    choices = choices_of(rng, right, [f"{code:#x}" for code in (*near, *codes)])
    why = f"{right}: {bits}."
    facts = {"access": record.access, "entries": record.entries}
    return Question("faults", "error_code", _story(record, state), asked, right, why, choices, facts=facts)


def handler(state: State, rng: Random) -> Question | None:
    """What the kernel does about a fault."""
    records = [record for record in state.faults if record.result in HANDLERS]
    if not records:
        return None
    wanted = rng.choice(sorted({record.result for record in records}))
    record = rng.choice([record for record in records if record.result == wanted])
    shown = [
        _mapping(record),
        *_story(record, state),
    ]
    if record.entries and record.entries[-1].leaf:
        frame = f"frame {record.entries[-1].pfn:#x}"
        shown.append(f"{frame} is the zero page" if record.zero else f"{frame} has refcount {record.users}")
    right = HANDLERS[record.result]
    choices = choices_of(rng, right, HANDLERS.values())
    asked = "What does the kernel do?"
    return Question(
        "faults", "handler", shown, asked, right, WHY_HANDLER[record.result], choices, facts={"record": record}
    )


def major(state: State, rng: Random) -> Question | None:
    """Minor or major."""
    records = [record for record in state.faults if record.result in HANDLERS]
    wanted = rng.choice(sorted({record.major for record in records}) or [False])
    records = [record for record in records if record.major == wanted]
    if not records:
        return None
    record = rng.choice(records)
    shown = [*_story(record, state), HANDLERS[record.result]]
    if record.again:
        shown.append("on the way it let go of mmap_lock and said VM_FAULT_RETRY, so the fault was made once more")
    else:
        shown.append("at the first attempt, with nothing to wait for")
    choices = choices_of(rng, COUNTED[record.major], COUNTED.values())
    why = (
        "A fault that could be served at once is minor; one that had to wait for the disk, or was made again after"
        " VM_FAULT_RETRY (mm_account_fault), is major."
    )
    return Question(
        "faults", "major", shown, "How is it counted?", COUNTED[record.major], why, choices, facts={"record": record}
    )


def refcount(state: State, rng: Random) -> Question | None:
    """References of a frame after forks and writes, made to happen."""
    system, mm, task = state.mm.system, state.mm, state.task
    found = []
    for leaf in _leaves(state):
        vma = next((vma for vma in state.areas() if vma.vm_start <= leaf.address < vma.vm_end), None)
        page = system.mem_map.peek(leaf.pfn)
        if vma is not None and vma.anon_vma is not None and vma.vm_flags & VM_WRITE and page is not None:
            if page.refcount == 1 and page.mapping is vma.anon_vma and leaf.pfn != system.zero_pfn:
                found.append(leaf)
    if not found:
        return None
    leaf = rng.choice(found)
    forks = rng.randint(1, 4)
    writers = rng.randint(0, forks)
    children = [TaskStruct(system) for _ in range(forks)]
    for child in children:
        child.rlim = task.rlim
        child.mm = dup_mm(child, mm)
    for child in children[:writers]:
        copy = child.mm
        if copy is not None:
            vma = next(vma for vma in draw.areas(copy) if vma.vm_start <= leaf.address < vma.vm_end)
            copy.ops.handle_mm_fault(vma, leaf.address, FAULT_FLAG_WRITE | FAULT_FLAG_USER)
    page = system.mem_map.peek(leaf.pfn)
    answer = 0 if page is None else page.refcount
    for child in children:
        if child.mm is not None:
            mmput(child.mm)
    some = {0: "Nobody writes", 1: "One child writes"}.get(writers, f"{writers} of the children write")
    shown = [f"virtual {leaf.address:#x} is a private, anonymous page in frame {leaf.pfn:#x}, refcount 1"]
    asked = (
        f"The program forks {'once' if forks == 1 else f'{forks} times'}. {some} to that page; nobody exits. What is"
        f" the refcount of frame {leaf.pfn:#x} now?"
    )
    why = f"1 for the program, + {forks} for the children, - {writers} for those that have a copy of their own now."
    return Question("fork", "refcount", shown, asked, answer, why, facts={"forks": forks, "writers": writers})


KINDS = {
    "translate": (translate, index, table_address),
    "tables": (meaning, table_pages),
    "faults": (error_code, handler, major),
    "fork": (refcount,),
}
