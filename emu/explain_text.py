"""An explanation of a fault as text: numbered steps, one fact a line, columns aligned; the same as HTML.

Fault 21 of /segv (pid 27): write to 0x0
1  The instruction
   ...
8  The end
   SIGSEGV ...
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from emu import draw
from emu.draw_pagetables import decoder_of
from emu.explain_walk import HardwareWalk, rules_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emu.explain_fault import FaultExplanation, Frame

GOOD, BAD, NOTE = draw.GREEN, draw.RED, draw.GREY
HTML_COLOURS = {GOOD: "#1a7f37", BAD: "#c0392b", NOTE: "#777", draw.CYAN: "#0b7285", draw.BLUE: "#1f4e9c"}
VERBS = {"read": "read of", "write": "write to", "exec": "instruction fetch from"}
MAX_AROUND = 8  # addresses listed of the pages mapped along
MAX_CHECKS = 60

LEGEND = "(ok: passed, no: refused, -: found out)"

SIGNALS = {4: "SIGILL", 5: "SIGTRAP", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV"}
CODES = {
    (7, 1): "BUS_ADRALN: the address is not aligned",
    (7, 2): "BUS_ADRERR: nothing is behind the address",
    (7, 3): "BUS_OBJERR: a hardware error",
    (7, 4): "BUS_MCEERR_AR: the page is poisoned",
    (9, 0x80): "SI_KERNEL: sent by the kernel",
    (11, 1): "SEGV_MAPERR: no area there",
    (11, 2): "SEGV_ACCERR: the area forbids the access",
}
RESULTS = {
    "anon-zero": "first read of anonymous memory: the shared zero page is mapped, read-only",
    "anon": "first write to anonymous memory: a frame full of zeroes is mapped",
    "file-read": "the file's page is mapped from the page cache",
    "file-cow": "first write to a private file mapping: the file's page is copied, the copy is mapped",
    "file-shared": "first write to a shared mapping: the file's own page is mapped writable, and is dirty",
    "cow-copy": "copy on write: the page has other users, so a copy takes its place",
    "cow-reuse": "write to a page without other users: no copy, the entry becomes writable",
    "access": "the entry was there: it now says that the page was used, or written",
    "spurious": "nothing had to change: the entry was right already",
    "huge": "a huge page is mapped",
    "special": "a page of the kernel's own is mapped (vDSO, vvar)",
}
# Numbers that the sentence says already, or that only the source explains. JSON has them.
UNTOLD = (
    *("handler", "sgp", "page_shift", "shift", "fault", "file", "plan", "flags", "write", "index", "entry", "pte"),
    *("vmf.pte", "vm_ops", "expand_stack", "prev.vm_flags", "prev", "mode", "error_code", "kind", "grow_vm"),
)
COUNTERS = {
    "rss_file": "pages of files resident",
    "rss_anon": "anonymous pages resident",
    "rss_shmem": "pages of files in memory (tmpfs) resident",
    "swap": "pages in swap",
    "min_flt": "minor faults of the task",
    "maj_flt": "major faults of the task",
    "pgtables_bytes": "bytes of page tables",
    "total_vm": "pages of all areas",
    "data_vm": "pages of private writable areas",
    "stack_vm": "pages of stacks",
    "exec_vm": "pages of code",
    "locked_vm": "pages locked (mlock)",
    "map_count": "areas",
    "hugetlb_usage": "pages in hugetlb pages",
    "vmacache_seqnum": "every task's vmacache is out of date",
    "vm_committed_as": "pages promised, in the whole machine",
    "free_frames": "free frames of the machine",
}
WITHOUT_A_HANDLER = "terminate", "core"


class Line(NamedTuple):
    """One line of a step."""

    text: str
    colour: str = ""


class Step(NamedTuple):
    """A numbered step."""

    title: str
    lines: list[Line]


class Told(NamedTuple):
    """A whole explanation."""

    title: str
    steps: list[Step]


def steps_text(told: Told, colour: bool = False) -> str:
    """As text."""
    out = [draw.paint(told.title, "1", colour)]
    for number, step in enumerate(told.steps, 1):
        out.append(draw.paint(f"{number:<2} {step.title}", "1", colour))
        for line in step.lines:
            text = f"   {line.text}".rstrip()
            out.append(draw.paint(text, line.colour, colour) if line.colour else text)
    return "\n".join(out)


def steps_html(told: Told) -> str:
    """As HTML for a notebook."""
    out = [f'<div style="font-family:monospace;font-size:12px"><b>{escape(told.title)}</b>']
    for number, step in enumerate(told.steps, 1):
        lines = []
        for line in step.lines:
            text = escape(line.text.rstrip())
            lines.append(f'<span style="color:{HTML_COLOURS.get(line.colour, "inherit")}">{text}</span>')
        out.append(f'<div style="margin-top:6px"><b>{number}&ensp;{escape(step.title)}</b></div>')
        out.append('<pre style="margin:0 0 0 24px">' + "\n".join(lines) + "</pre>")
    return "".join(out) + "</div>"


def table(rows: Sequence[tuple[str, ...]], gap: str = "  ") -> list[str]:
    """Rows with their columns aligned."""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    return [gap.join(f"{cell:<{widths[column]}}" for column, cell in enumerate(row)).rstrip() for row in rows]


def fault_steps(fault: FaultExplanation) -> Told:
    """A fault in steps."""
    who = "" if fault.user else " by the kernel"
    title = f"Fault {fault.number} of {fault.comm} (pid {fault.pid}): {VERBS[fault.access]} {fault.reported:#x}{who}"
    if fault.again:
        title += ", made again after waiting for a userfaultfd"
    steps = [
        _instruction(fault),
        _walk(fault),
        _code(fault),
        *_search(fault),
        _decision(fault),
    ]
    if fault.signal is None or any(name == "handle_mm_fault" for _, name, _ in fault.path):
        steps += [_handler(fault), _changes(fault)]
    return Told(title, [*steps, _end(fault)])


# ---- what happened


def _search(fault: FaultExplanation) -> list[Step]:
    """find_vma, where the fault routine got that far."""
    if not fault.searched:
        return []
    lines = [*map(Line, fault.lookup.lines())]
    if fault.replaced:
        lines.insert(0, Line(f"find_vma is replaced by {fault.replaced}; ours goes like this:", NOTE))
    return [Step(f"find_vma({fault.address:#x}): the first area that ends above it", lines)]


def _instruction(fault: FaultExplanation) -> Step:
    instruction = fault.instruction
    if instruction is None:
        lines = [
            Line(f"the kernel touches user memory: {fault.call}"),
            Line(f"{VERBS[fault.access]} {fault.address:#x}, with the kernel's rights"),
        ]
        return Step("The access: made by the kernel", lines)
    code = instruction.code.hex(" ") or "(its bytes cannot be read)"
    if not instruction.text and fault.access == "exec":
        code = "(the fetch of the instruction itself failed)"
    rows = [("at", f"{instruction.address:#x}  {instruction.place}"), ("code", f"{code}  {instruction.text}".rstrip())]
    if fault.access != "exec":
        for expression, values, address in instruction.operands:
            made = f"[{expression}]" + (f" = {address:#x}" if expression != f"{address:#x}" else "")
            rows.append(("operand", f"{made}" + (f", with {values}" if values else "")))
    rows.append(("access", f"{VERBS[fault.access]} {fault.address:#x}, by user code"))
    if fault.reported != fault.address:
        rows.append(("tag", f"the CPU reports {fault.reported:#x}: bits 63-56 are a tag, and ignored"))
    return Step("The instruction", [*map(Line, table(rows))])


def _walk(fault: FaultExplanation) -> Step:
    rules = rules_of(fault.arch)
    walk = fault.walk
    title = f"The CPU walks the page tables ({walk.levels} levels, pages of {draw.size_text(fault.page_size)})"
    lines = [Line(f"{rules.ROOT_REGISTER} holds the root table's physical address: {walk.root:#x}")]
    lines += [Line(text) for text in walk_lines(walk, fault.arch, fault.level_names, fault.page_size)]
    seen = {bit for entry in walk.entries for bit in entry.bits}
    legend = ", ".join(f"{bit} {words}" for bit, words in rules.BIT_WORDS.items() if bit in seen)
    if legend:
        lines.append(Line(f"bits: {legend}", NOTE))
    if walk.stop:
        where = f" at {walk.entries[-1].name}" if walk.entries and walk.stopped else ""
        lines.append(Line(f"stops{where}: {walk.stop}", BAD))
    elif fault.again:
        lines.append(Line("the tables allow the access: the page came while the task waited", NOTE))
    else:
        lines.append(Line("the tables allow the access: the CPU used an older entry, from its TLB", NOTE))
    return Step(title, lines)


def walk_lines(walk: HardwareWalk, arch: str, level_names: tuple[str, ...], page_size: int) -> list[str]:
    """The table of levels."""
    rules = rules_of(arch)
    rows: list[tuple[str, ...]] = [("level", "table at", "index", "entry at", "entry", "points to", "bits")]
    for entry in walk.entries:
        name = f"{entry.name} {rules.level_number(walk.levels, entry.level)}".strip()
        target = "-"
        if entry.raw and entry.leaf:
            target = f"frame {entry.pfn:#x}" if entry.pfn else "no frame"
        elif entry.raw:
            target = f"{level_names[entry.level + 1]} table {entry.pfn * page_size:#x}"
        rows.append(
            (
                name,
                f"{entry.where - entry.index * 8:#x}",
                f"{entry.index}",
                f"{entry.where:#x}",
                f"{entry.raw:016x}",
                target,
                " ".join(entry.bits) or "none",
            )
        )
    return table(rows) if len(rows) > 1 else []


def _code(fault: FaultExplanation) -> Step:
    rules = rules_of(fault.arch)
    rows = [(name, value, meaning) for name, value, meaning in rules.error_bits(fault.error_code)]
    lines = [Line(f"{rules.ADDRESS_REGISTER} = {fault.reported:#x}, the address")]
    lines += [Line(f"{rules.CODE_NAME} = {fault.error_code:#x}:")]
    lines += [Line(f"  {text}") for text in table(rows)]
    return Step("The CPU reports" if fault.user else "What it amounts to, as the CPU would report it", lines)


HANDLING = ("handle_mm_fault",)


def _split(fault: FaultExplanation) -> tuple[list[Any], list[Any]]:
    """(checks of the fault routine and of the stack's growth, checks of the handler)."""
    entry = ("do_page_fault", "expand_downwards", "_acct_stack_growth", "expand_stack")
    depth = 0
    first: list[Any] = []
    second: list[Any] = []
    for check in fault.checks:
        if check.function in entry:
            first.append(check)
            depth = 1 if check.function in entry[1:] else 0
        elif depth and not second and check.function in ("may_expand_vm", "security_vm_enough_memory_mm"):
            first.append(check)
        else:
            second.append(check)
    return first, second


def check_lines(checks: list[Any]) -> list[Line]:
    """Checks in the order made, under the function that made them: the outcome, what it means, the numbers.

    `ok` passed what would have refused, `no` is the refusal, `-` a decision that refuses nothing.
    """
    rows = []
    for check in checks[:MAX_CHECKS]:
        outcome = "no" if check.refusal else "ok" if check.could_refuse else "-"
        numbers = ", ".join(f"{name} {value}" for name, value in check.values.items() if name not in UNTOLD)
        rows.append((outcome, check.text + (f": {check.refusal}" if check.refusal else ""), numbers))
    texts = table(rows) if rows else []
    lines: list[Line] = []
    function = ""
    for check, text in zip(checks, texts, strict=False):
        if check.function != function:
            function = check.function
            lines.append(Line(f"{function}  ({check.filename})", NOTE))
        lines.append(Line(f"  {text}", BAD if check.refusal else ""))
    if len(checks) > MAX_CHECKS:
        lines.append(Line(f"... and {len(checks) - MAX_CHECKS} more", NOTE))
    return lines


def flag_names(value: int) -> list[str]:
    """VM_* bits of an area by name."""
    from mm import flags

    known = {
        getattr(flags, name): name[3:]
        for name in dir(flags)
        if name.startswith("VM_") and not name.startswith("VM_FAULT_") and "MASK" not in name
    }
    names = [name for bit, name in sorted(known.items()) if bit.bit_count() == 1 and value & bit]
    return [*names, "SOFTDIRTY"] if value & 0x08000000 else names


def _decision(fault: FaultExplanation) -> Step:
    first, _ = _split(fault)
    lines = check_lines(first)
    if fault.searched and fault.area is not None:
        names = " ".join(flag_names(fault.area.flags))
        lines.insert(0, Line(f"area {fault.area}, vm_flags {fault.area.flags:#x}: {names}"))
    if fault.grown is not None:
        low, high = fault.grown[1], fault.grown[0]
        lines.append(
            Line(f"the stack grew from {high:#x} down to {low:#x}: {(high - low) // fault.page_size} pages", GOOD)
        )
    if fault.signal is not None and not any(check.refusal for check in first):
        lines.append(Line("no check refused it: what stands in the handler's place did (--inject, --algorithm)", BAD))
    return Step(f"Is the access allowed? {LEGEND}", lines or [Line("nothing was asked")])


def _handler(fault: FaultExplanation) -> Step:
    lines = [Line(text, GOOD) for text in _result_lines(fault)]
    chain = _chain(fault)
    if chain:
        lines.append(Line(f"path: {' > '.join(chain)}"))
    lines += check_lines(_split(fault)[1])
    return Step(f"The handler {LEGEND}", lines)


def _result_lines(fault: FaultExplanation) -> list[str]:
    if fault.waits:
        return ["a userfaultfd watches the area: its owner gets a message, and the task sleeps until it has answered"]
    if fault.signal is not None:
        return ["it found nothing to map"]
    ran = {name for _, name, _ in fault.path}
    result = RESULTS.get(fault.result, fault.result)
    if fault.result == "cow-copy" and fault.frame_before is not None:
        result = _copied(fault.frame_before)
    if fault.result == "huge" and "hugetlb_fault" in ran:
        result = "a page of the hugetlb pool is mapped"
    if fault.result == "file-read" and not fault.around and "do_fault_around" not in ran:
        result += ", alone"
    return [result + (" (a major fault)" if fault.major else "")]


def _copied(before: Frame) -> str:
    """Why a copy on write had to be made."""
    if before.what == "the zero page":
        return "copy on write: the zero page belongs to all, so a frame of zeroes takes its place"
    if before.what == "an anonymous page":
        return f"copy on write: {before.mapcount} entries map the page, so a copy takes its place in this one"
    return "copy on write: the page is the file's and the mapping private, so a copy takes its place"


CHAIN_FILES = ("mm/memory", "mm/huge_memory", "mm/hugetlb", "mm/filemap", "mm/shmem", "mm/special", "mm/userfaultfd")
NOT_IN_CHAIN = (
    "transparent_hugepage_enabled",
    "is_huge_zero_pmd",
    "huge_page",
    "deposit",
    "__init__",
    "hstate_vma",
    "huge_info",
    "huge_level",
    "huge_pte_offset",
    "pmd_alloc",
    "add_mm_counter_fast",
    "mm_counter_file",
    "page_anon",
    "vm_normal_page",
    "find_page",
    "has_backing",
)


def _chain(fault: FaultExplanation) -> list[str]:
    """The handler's functions from the outside in: those that called the next one told."""
    names: list[str] = []
    for _, name, file in fault.path:
        if file.startswith(CHAIN_FILES) and name not in NOT_IN_CHAIN and name not in names:
            names.append(name.lstrip("_") if name.startswith("_") and name[1:] not in names else name)
    kept = [name for number, name in enumerate(names) if name not in names[:number]]
    return kept[:8]


def entry_text(arch: str, raw: int, leaf: bool = True, huge: bool = False) -> str:
    """An entry with its bits."""
    if not raw:
        return "0000000000000000  empty"
    return f"{raw:016x}  {' '.join(decoder_of(arch).decode(raw, leaf, huge))}"


def _changes(fault: FaultExplanation) -> Step:
    rows: list[tuple[str, ...]] = []
    for level, address, pfn in fault.tables:
        rows.append(("table", f"a {level} table is made in frame {pfn:#x}, for {address:#x} and up"))
    leaf = fault.walk_after.leaf or fault.walk.leaf
    if leaf is not None:
        huge = leaf.level < fault.walk.levels - 1
        name = leaf.name
        where = f"at {leaf.where:#x}" if fault.walk_after.leaf is not None else ""
        if fault.entry_before == fault.entry_after:
            rows.append((name, f"{entry_text(fault.arch, fault.entry_after, True, huge)}  unchanged"))
        else:
            rows.append((name, f"before  {entry_text(fault.arch, fault.entry_before, True, huge)}"))
            rows.append(("", f"after   {entry_text(fault.arch, fault.entry_after, True, huge)}"))
            if where:
                rows.append(("", f"        ({where})"))
    rows += _frame_rows(fault)
    around = fault.around
    if around:
        shown = ", ".join(f"{address:x}" for address in around[:MAX_AROUND])
        more = f" and {len(around) - MAX_AROUND} more" if len(around) > MAX_AROUND else ""
        rows.append(("around", f"{len(around)} neighbours mapped along: {shown}{more}"))
    if fault.flush:
        rows.append(("TLB", "to be flushed before user code runs"))
    lines = table(rows) if rows else []
    lines += counter_lines(fault.changed_counters)
    return Step("What changed", [*map(Line, lines or ["nothing"])])


def counter_lines(changed: dict[str, tuple[int, int]]) -> list[str]:
    """Counters before and after, with what they count."""
    rows = [(name, f"{old} -> {new}", COUNTERS.get(name, "")) for name, (old, new) in changed.items()]
    return table(rows) if rows else []


def _frame_rows(fault: FaultExplanation) -> list[tuple[str, ...]]:
    before, after = fault.frame_before, fault.frame_after
    rows: list[tuple[str, ...]] = []
    if before is not None and after is not None and before.pfn == after.pfn:
        rows.append(("frame", f"{after}" + ("" if str(before) == str(after) else f" (before: {before})")))
        return rows
    if before is not None:
        rows.append(("frame", f"before  {before}"))
        if fault.old_frame_after is not None:
            rows.append(("", f"        now {fault.old_frame_after}"))
    known = [frame.pfn for frame in (before, after) if frame is not None]
    if fault.cached is not None and fault.cached.pfn not in known:
        rows.append(("cache", f"{fault.cached}"))
    if after is not None:
        was = ""
        if fault.cached is not None and fault.cached.pfn == after.pfn:
            was = f" (before: refcount {fault.cached.refcount}, mapcount {fault.cached.mapcount})"
        rows.append(("frame", f"{'after   ' if before is not None else ''}{after}{was}"))
    return rows


def _end(fault: FaultExplanation) -> Step:
    signal = fault.signal
    if signal is None:
        if fault.waits:
            return Step("The end", [Line("the task sleeps; when it is woken, the fault is made again")])
        again = "the kernel goes on" if not fault.user else "the instruction is executed again"
        return (
            Step("The end", [Line(f"{again}, and finds {fault.walk_after.physical:#x} in RAM", GOOD)])
            if (fault.walk_after.physical is not None and not fault.walk_after.stop)
            else Step("The end", [Line(f"{again}, and will fault once more: {fault.walk_after.stop}", NOTE)])
        )
    name = SIGNALS.get(signal.signo, f"signal {signal.signo}")
    if not fault.user:
        return Step("The end", [Line(f"no {name}, since the kernel made the access: the call gets EFAULT", BAD)])
    code = CODES.get((signal.signo, signal.si_code), str(signal.si_code))
    rows = [
        ("si_signo", f"{signal.signo}  {name}"),
        ("si_code", f"{signal.si_code}  {code}"),
        ("si_addr", f"{signal.address:#x}"),
    ]
    lines = [Line(f"the task gets {name}", BAD), *map(Line, table(rows))]
    if fault.action == "handler":
        lines.append(Line(f"its handler at {fault.handler:#x} runs"))
    elif fault.action in WITHOUT_A_HANDLER:
        lines.append(Line("it has no handler: the process is killed"))
    return Step("The end", lines)
