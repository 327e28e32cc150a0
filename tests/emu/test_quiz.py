"""pagewalk quiz: every answer is worked out again from what is shown, by other code, and the others are wrong."""

from __future__ import annotations

import importlib.util
import io
import json
from itertools import islice
from random import Random
from typing import Any

import pytest
from geometry import PROJECT

from emu.cli import main
from emu.options_teach import TOPICS
from emu.quiz import KINDS, ask, make, questions
from emu.quiz_pages import COUNTED, HANDLERS
from emu.quiz_question import LETTERS, Question, choices_of
from emu.quiz_state import GEOMETRIES, PROGRAMS, State

LEVELS = {"x86_64-4k": 4, "x86_64-4k-la57": 5, "aarch64-4k": 4, "aarch64-16k": 4, "aarch64-64k": 3}
SHIFT = {"x86_64-4k": 12, "x86_64-4k-la57": 12, "aarch64-4k": 12, "aarch64-16k": 14, "aarch64-64k": 16}
X86_BITS = ["P", "RW", "US", "PWT", "PCD", "A", "D", "PAT", "G", "SPECIAL", "UFFD_WP", "SOFT_DIRTY"]
ARM_BITS = {
    0: "VALID",
    5: "NS",
    6: "USER",
    7: "RDONLY",
    10: "AF",
    11: "nG",
    50: "GP",
    51: "WRITE",
    52: "CONT",
    53: "PXN",
}
ARM_BITS |= {54: "UXN", 55: "DIRTY", 56: "SPECIAL", 57: "DEVMAP", 58: "PROTNONE"}


def index(geometry: str, address: int, level: int) -> int:
    bits = SHIFT[geometry] - 3
    return address // 2 ** (SHIFT[geometry] + bits * (LEVELS[geometry] - 1 - level)) % 2**bits


def frame(geometry: str, raw: int) -> int:
    """Physical address an entry points to."""
    return raw % 2**48 // 2 ** SHIFT[geometry] * 2 ** SHIFT[geometry]


def again_translate(q: Question, state: State) -> Any:
    raws = q.facts["raws"]
    size = 2 ** (SHIFT[state.geometry] + (SHIFT[state.geometry] - 3) * (LEVELS[state.geometry] - len(raws)))
    return frame(state.geometry, raws[-1]) // size * size + q.facts["address"] % size


def again_index(q: Question, state: State) -> Any:
    return index(state.geometry, q.facts["address"], q.facts["level"])


def again_table_address(q: Question, state: State) -> Any:
    return frame(state.geometry, q.facts["raw"]) + 8 * index(state.geometry, q.facts["address"], q.facts["level"])


def again_meaning(q: Question, state: State) -> Any:
    raw = q.facts["raw"]
    if state.geometry.startswith("x86"):
        names = [name for bit, name in enumerate(X86_BITS) if raw >> bit & 1]
        names += ["DEVMAP"] * (raw >> 58 & 1) + ["NX"] * (raw >> 63)
        return " ".join("PSE" if name == "PAT" and q.facts["huge"] else name for name in names)
    names = [name for bit, name in ARM_BITS.items() if raw >> bit & 1]
    names.insert(1, "BLOCK" if q.facts["huge"] else "PAGE")
    names += [f"ATTR{raw >> 2 & 7}"] * bool(raw >> 2 & 7) + ["ISH"] * (raw >> 8 & 3 == 3)
    return " ".join(names)


def again_table_pages(q: Question, state: State) -> Any:
    shift, bits, levels = SHIFT[state.geometry], SHIFT[state.geometry] - 3, LEVELS[state.geometry]
    tables = {(0, 0)}
    for first, end in q.facts["runs"]:
        for address in range(first, end, 2**shift):
            tables |= {(level, address >> shift + bits * (levels - level)) for level in range(1, levels)}
    return len(tables)


def again_error_code(q: Question, state: State) -> Any:
    access, entries = q.facts["access"], q.facts["entries"]
    leaf = entries[-1] if entries and entries[-1].leaf else None
    if state.geometry.startswith("x86"):
        return hex((leaf is not None) + 2 * (access == "write") + 4 + 16 * (access == "exec"))
    level = 4 - LEVELS[state.geometry] + (len(entries) if leaf is None else leaf.level)
    status = 0b0100 if leaf is None else 0b1000 if not leaf.raw >> 10 & 1 else 0b1100
    abort = 0x20 if access == "exec" else 0x24
    return hex(abort << 26 | 1 << 25 | (access == "write") << 6 | status | level)


def again_handler(q: Question, state: State) -> Any:
    record = q.facts["record"]
    write = record.access == "write"
    if record.entries and record.entries[-1].leaf:
        assert write
        return HANDLERS["cow-reuse" if record.users == 1 and not record.zero and not record.shared else "cow-copy"]
    if record.anonymous:
        return HANDLERS["anon" if write else "anon-zero"]
    return HANDLERS[("file-shared" if record.shared else "file-cow") if write else "file-read"]


def again_major(q: Question, state: State) -> Any:
    return COUNTED["made once more" in "\n".join(q.shown)]


def again_refcount(q: Question, state: State) -> Any:
    holders = {"program"} | {f"child {n}" for n in range(q.facts["forks"])}
    return len(holders - {f"child {n}" for n in range(q.facts["writers"])})


def again_visit_order(q: Question, state: State) -> Any:
    def way(node: Any) -> list[str]:
        if node is None:
            return []
        here = [f"{node.vm_start:x}"]
        if q.facts["address"] >= node.vm_end:
            return here + way(node.rb_right)
        return here if q.facts["address"] >= node.vm_start else here + way(node.rb_left)

    return " -> ".join(way(state.mm.mm_rb.rb_node))


def again_answer(q: Question, state: State) -> Any:
    ends = [(end, start) for start, end in q.facts["lines"] if end > q.facts["address"]]
    return f"the area {min(ends)[1]:x}-{min(ends)[0]:x}" if ends else "None"


def again_cache_slot(q: Question, state: State) -> Any:
    first = q.facts["address"] // 2 ** q.facts["shift"]
    for number in [] if q.facts["stale"] else [(first + n) % 4 for n in range(4)]:
        span = q.facts["spans"][number]
        if span is not None and span[0] <= q.facts["address"] < span[1]:
            return f"a hit in slot {number}"
    return "a miss"


def again_merge_case(q: Question, state: State) -> Any:
    """From the pictures before and after."""
    before, after, start, end = (q.facts[name] for name in ("before", "after", "start", "end"))
    ((first, last, _),) = [line for line in before if line[0] <= start < line[1]]
    low = any(s < start < e for s, e, _ in after)
    high = any(s < end < e for s, e, _ in after)
    if "mmap(" in q.asked:
        return {(True, True): 1, (True, False): 2, (False, True): 3, (False, False): 0}[low, high]
    if start == first and end == last:
        return {(True, True): 6, (True, False): 7, (False, True): 8, (False, False): 0}[low, high]
    if start == first:
        return 5 if low else 0
    return 4 if end == last and high else 0


def pages(lines: list[Any], page: int) -> dict[int, str]:
    return {address: allowed for start, end, allowed in lines for address in range(start, end, page)}


def again_maps(q: Question, state: State) -> None:
    """The right map has the right permissions on every page."""
    page = 2 ** SHIFT[state.geometry]
    prot = q.facts["prot"]
    allowed = ("r" if prot & 1 else "-") + ("w" if prot & 2 else "-") + ("x" if prot & 4 else "-") + "p"
    expected = pages(q.facts["before"], page)
    for address in range(q.facts["start"], q.facts["end"], page):
        expected.pop(address, None)
        if q.facts["call"] != "munmap":
            expected[address] = allowed
    lines = [] if q.answer == "(nothing there)" else str(q.answer).splitlines()
    found = []
    for line in lines:
        span, perms = line.split()
        found.append((*(int(part, 16) for part in span.split("-")), perms))
    assert pages(found, page) == expected


AGAIN: dict[str, Any] = {
    name[6:]: function
    for name, function in list(globals().items())
    if name.startswith("again_") and name != "again_maps"
}


@pytest.fixture(scope="module")
def states() -> list[State]:
    return [
        State(geometry, program, 1000 + number, PROGRAMS[program][0] + number % 7)
        for number, geometry in enumerate(GEOMETRIES)
        for program in PROGRAMS
    ]


def test_every_answer_is_right_and_the_others_are_wrong(states: list[State]) -> None:
    kinds: dict[str, int] = {}
    cases: set[Any] = set()
    for seed in range(900):
        rng = Random(seed)
        state = states[seed % len(states)]
        topic = TOPICS[seed % len(TOPICS)]
        q = make(state, rng, topic)
        if q is None:
            continue
        kinds[q.kind] = kinds.get(q.kind, 0) + 1
        assert q.topic == topic
        cases |= {q.answer} if q.kind == "merge_case" else set()
        if q.kind == "maps_after":
            again_maps(q, state)
        elif q.kind == "area_count":
            assert q.answer == len(q.facts["after"])
        else:
            assert AGAIN[q.kind](q, state) == q.answer, f"{q.where} {seed}\n{q.text()}"
        if isinstance(q.answer, str):
            assert 2 <= len(q.choices) <= 4
            assert len(set(q.choices)) == len(q.choices)
            assert sum(choice == q.answer for choice in q.choices) == 1
            letters = [letter for letter in LETTERS if q.check(letter)]
            assert letters == [q.right_answer()]
        else:
            assert q.check(q.right_answer()) and q.check(str(q.answer) if q.base == 10 else f"{q.answer:X}")
            assert not q.check(hex(q.answer + 1)) and not q.check("")
    assert len(cases) >= 7, cases
    assert set(kinds) == {*AGAIN, "maps_after", "area_count"}
    assert all(count >= 5 for count in kinds.values()), kinds


def test_another_vma_merge_gives_the_same_maps() -> None:
    spec = importlib.util.spec_from_file_location("right", PROJECT / "tests" / "exercises" / "right_vma_merge.py")
    assert spec is not None and spec.loader is not None
    right = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(right)
    for seed in range(12):
        ours, theirs = (State("x86_64-4k", "mmap", seed, 20) for _ in range(2))
        theirs.machine.system.mm_ops.vma_merge = right.vma_merge
        one, other = Random(seed), Random(seed)
        for _ in range(4):
            a = KINDS["maps"][0](ours, one)
            b = KINDS["maps"][0](theirs, other)
            assert (a and (a.shown, a.answer)) == (b and (b.shown, b.answer))


def test_a_seed_repeats_itself_and_no_other() -> None:
    seen: set[str] = set()
    for seed in range(8):
        texts = [question.text() for question in islice(questions(seed), 6)]
        assert texts == [question.text() for question in islice(questions(seed), 6)]
        assert not seen & set(texts)
        seen |= set(texts)


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quiz", "--seed", "3", "--count", "5", "--topic", topic, "--solve"]) == 0
    out = capsys.readouterr().out
    assert out.count("Answer: ") == 5
    assert out.count(f"({topic}; ") == 5
    assert main(["quiz", "--seed", "3", "--count", "5", "--topic", topic, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [question["topic"] for question in told["questions"]] == [topic] * 5


def test_asking(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = list(islice(questions(9), 5))
    right = "\n".join(question.right_answer() for question in chosen) + "\n"
    assert ask(chosen, io.StringIO(right)) == 0
    assert "5 of 5 right." in capsys.readouterr().out
    assert ask(chosen, io.StringIO("nonsense\n\x00\n" + "9" * 5000 + "\n")) == 1
    out = capsys.readouterr().out
    assert "0 of 3 right. 2 not asked." in out
    assert f"No: it is {chosen[0].right_answer()}." in out
    assert chosen[0].why.split("\n")[0][:60] in out
    monkeypatch.setattr("sys.stdin", io.StringIO(right))
    assert main(["quiz", "--seed=9", "--count=5"]) == 0
    assert main(["quiz", "something"]) == 125


def test_choices_need_something_to_choose_from() -> None:
    assert choices_of(Random(1), "a", ["a", "a"]) == ()
    assert sorted(choices_of(Random(1), "a", ["b", "b", "a"])) == ["a", "b"]
