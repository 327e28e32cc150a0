"""What `pagewalk view` rebuilds from events is what the machine has: areas, tree, colours, entries, heap, vmacache."""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from geometry import IMAGES, KERNELS, arch_of, make_machine
from page_trace import trace

from emu import page
from emu.cli import main
from emu.draw import areas
from emu.errors import PagewalkError
from emu.page_record import MMU_BITS, Recorder

if TYPE_CHECKING:
    import pathlib

PROGRAMS = ("merge", "cow", "gcbarrier", "exec", "brk", "stack")


class Comparison:
    """Listener that compares at every system call."""

    def __init__(self, machine: Any, recorder: Recorder) -> None:
        self.machine = machine
        self.recorder = recorder
        self.compared = 0
        self.wrong: list[str] = []
        machine.subscribe(self.compare, "syscall_enter", "syscall_exit")

    def compare(self, event: Any) -> None:
        self.compared += 1
        spaces = self.recorder.state.spaces
        for mm in self.machine.system.pgd_list:
            space = spaces[mm.pgd]
            softdirty = mm.arch.VM_SOFTDIRTY
            real = tree_of(mm.mm_rb.rb_node, softdirty, "vm_")
            ours = tree_of(space.tree.rb_node, softdirty, "")
            if real != ours:
                self.wrong.append(f"after event {len(self.recorder.kind)}: {real} is {ours}")
            cell = space.cell
            heap = tuple(self.recorder.state.cells.values[cell + 2 : cell + 4])
            if mm is self.machine.kernel.current.mm and heap != (mm.start_brk, mm.brk):
                self.wrong.append(f"heap {heap}")
        self.compare_task()

    def compare_task(self) -> None:
        """vmacache and counters of the running task."""
        task, state = self.machine.kernel.current, self.recorder.state
        mm = task.mm
        columns = state.columns["area"]
        for slot, vma in enumerate(task.vmacache):
            number = state.get_task(task.pid, f"slot{slot}")
            start = state.cells.values[columns["cell"][number - 1] + 1] if number else None
            expected = vma.vm_start if vma is not None and task.vmacache_seqnum == mm.vmacache_seqnum else None
            if start != expected:
                self.wrong.append(f"slot {slot}: {start}")
        rss = [state.get_task(task.pid, name) for name in ("file", "anon", "shmem")]
        if rss != [mm.rss_stat[index] + task.rss_stat[index] for index in (0, 1, 3)]:
            self.wrong.append(f"rss {rss}")


def tree_of(node: Any, softdirty: int, prefix: str) -> Any:
    """A tree as nested tuples; of a VMA or of an `Area`."""
    if node is None:
        return None
    fields = tuple(getattr(node, prefix + name) for name in ("start", "end", "pgoff"))
    flags = getattr(node, prefix + "flags") & ~softdirty
    return (
        *fields,
        flags,
        node.rb_red,
        *(tree_of(child, softdirty, prefix) for child in (node.rb_left, node.rb_right)),
    )


def followed(kernel: str, name: str) -> tuple[Recorder, Comparison]:
    machine = make_machine(kernel)
    recorder = page.record(machine, [name])
    comparison = Comparison(machine, recorder)
    machine.load(str(IMAGES / arch_of(kernel) / name), [f"/{name}"])
    machine.run()
    return recorder, comparison


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_state_is_the_machines(kernel: str, name: str) -> None:
    recorder, comparison = followed(kernel, name)
    assert comparison.wrong == []
    assert comparison.compared > 5
    assert recorder.state.spaces == {}, "at the end every address space is gone"


def test_the_comparison_can_fail() -> None:
    machine = make_machine("x86_64-4k")
    recorder = page.record(machine, ["split"])
    comparison = Comparison(machine, recorder)
    insert = recorder.state.insert
    recorder.state.insert = lambda *args: insert(*args[:2], args[2] + 4096, *args[3:])  # type: ignore[method-assign]
    machine.load(str(IMAGES / "x86_64" / "merge"), ["/merge"])
    machine.run()
    assert comparison.wrong


def test_a_trace_file_gives_the_same(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a file the same areas and entries come as of the run it is of; vmacache and MMU bits do not."""
    program = str(IMAGES / "x86_64" / "cow")
    file, out = str(tmp_path / "t.jsonl"), str(tmp_path / "t.html")
    assert main(["run", "--trace", file, program]) == 0
    assert main(["view", "-o", out, file]) == 0
    capfd.readouterr()
    read = page.read_trace(file)
    live, _ = followed("x86_64-4k", "cow")
    assert read.kinds.keys() - {"end"} == live.kinds.keys() - {"end"}
    for what in ("area", "table", "space"):
        ours, theirs = read.state.columns[what], live.state.columns[what]
        assert {**ours, "cell": 0} == {**theirs, "cell": 0}
    assert not read.live and read.arch in ("x86_64", "")
    values, first = read.state.cells.values, live.state.cells.values
    for mine, other in zip(read.state.columns["area"]["cell"], live.state.columns["area"]["cell"], strict=True):
        assert values[mine : mine + 4] == first[other : other + 4]
    assert (tmp_path / "t.html").stat().st_size > 50_000


def test_a_trace_that_breaks_off(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "t"
    text = "\n".join(trace(50)) + "\n"
    file.write_text(text[:-20])
    whole = len(text.splitlines()) - 1
    assert len(page.read_trace(str(file)).kind) == whole - 1


def test_names_of_areas() -> None:
    recorder, _ = followed("aarch64-16k", "filemap")
    names = {name for name in recorder.state.strings.texts if name.startswith(("/", "["))}
    assert {"/filemap", "[vdso]"} <= names
    machine = make_machine("x86_64-4k")
    machine.load(str(IMAGES / "x86_64" / "hello"))
    assert [vma.vm_start for vma in areas(machine.task.mm)]


def test_mmu_bits_are_the_arch_s() -> None:
    machine = make_machine("x86_64-4k")
    machine.load(str(IMAGES / "x86_64" / "hello"))
    arch = machine.system.arch
    assert arch.pte_dirty(0x41) and not arch.pte_dirty(0x01)
    assert MMU_BITS["x86_64"] == 0x60


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", "{}", '{"schema":"other"}', '{"schema":"pagewalk-trace","version":9}', "null",
    ],
)  # fmt: skip
def test_what_is_no_trace(text: str) -> None:
    with pytest.raises(PagewalkError):
        Recorder().line(text)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "3", "{}", '{"kind":3}', '{"kind":"fault"}', '{"kind":"vma_insert","start":"x","end":1,"flags":0}',
        '{"kind":"exit","pid":-1,"status":0,"task":1}', '{"kind":"pte_set","root":[1],"address":1,"new":2}',
        '{"kind":"x","task":99999999999}', '{"kind":"vma_insert","start":1,"end":2,"flags":0,"name":[1]}', "{" * 9999,
        '{"kind":"exec","pid":1,"path":7,"arch":"x86_64","page_size":3}', '{"kind":"switch","pid":1,"comm":5}',
    ],
)  # fmt: skip
def test_what_is_no_event(text: str) -> None:
    recorder = Recorder()
    recorder.line('{"schema":"pagewalk-trace","version":1}')
    with pytest.raises(PagewalkError, match="line 2 is not one of a trace"):
        recorder.line(text)


def test_a_damaged_trace_is_read_or_refused() -> None:
    """Fields changed at random: the page is made, or one line says what is wrong."""
    rng = random.Random(5)
    lines = list(trace(400))
    values: list[Any] = [0, 1, -1, 2**63, 2**64, 2**70, "x", "", None, [], {}, [1], 1.5, True, 1e300]
    for _ in range(150):
        recorder = Recorder()
        recorder.line(lines[0])
        damaged = [json.loads(line) for line in rng.sample(lines[1:], 120)]
        for fields in rng.sample(damaged, 5):
            fields[rng.choice(list(fields))] = rng.choice(values)
        try:
            for fields in damaged:
                recorder.line(json.dumps(fields))
        except PagewalkError as error:
            assert "is not one of a trace" in str(error)
        else:
            page.pack(recorder)


def test_a_kind_nobody_knows_is_kept() -> None:
    recorder = Recorder()
    recorder.line('{"schema":"pagewalk-trace","version":1}')
    recorder.line('{"n":1,"time":5,"task":27,"kind":"eclipse","depth":7,"who":"moon","list":[1,"a"]}')
    recorder.line('{"n":2,"time":5,"task":27,"kind":"eclipse","since":8}')
    page.pack(recorder)
    assert recorder.kinds["eclipse"].numbers["since"][0].tolist() == [0, 8]


def test_the_block_is_small_and_whole() -> None:
    """Some twenty bytes an event; and the writes of each event add up."""
    recorder = Recorder()
    for line in trace(20_000):
        recorder.line(line)
    data = page.pack(recorder)
    assert len(data) < 20 * len(recorder.kind)
    raw = gzip.decompress(data)
    head = json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "little")])
    assert recorder.writes[-1] == head["columns"]["cell"][1] == len(recorder.state.cells.cell)
    assert sum(kind["count"] for kind in head["kinds"]) == len(recorder.kind)


def test_a_hostile_name_stays_inside_the_block() -> None:
    """Whatever the guest is called, the page has the scripts and elements that it always has."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{SCRIPT}}\u2028'\"&\udcff"
    plain, hostile = Recorder(), Recorder()
    for recorder, name in ((plain, "name"), (hostile, evil)):
        recorder.line(json.dumps({"schema": "pagewalk-trace", "version": 1, "program": [name]}))
        for line in list(trace(60, names=(name,)))[1:]:
            recorder.line(line)
    one, other = page.render(plain), page.render(hostile)
    for mark in ("<script", "</script", "<img", "<title"):
        assert one.count(mark) == other.count(mark), mark
    assert "&lt;/script&gt;" in other
    assert "{{" not in one.replace("{{SCRIPT}}", "")
    other.encode()


def test_the_page_needs_no_network() -> None:
    recorder = Recorder()
    recorder.line('{"schema":"pagewalk-trace","version":1}')
    text = page.render(recorder)
    assert "default-src 'none'" in text
    assert "http://" not in text and "https://" not in text
    assert not {" src=", "@import", "url("} & {mark for mark in (" src=", "@import", "url(") if mark in text}


def test_the_command_refuses(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t"
    file.write_text("\n".join(line.replace(": ", ":").replace(", ", ",") for line in trace(10)))
    assert main(["view", str(file), "x"]) == 125
    assert main(["view", "-o", str(tmp_path / "no" / "x.html"), str(file)]) == 125
    file.write_text(file.read_text() + "nonsense\n")
    assert main(["view", "-o", str(tmp_path / "x.html"), str(file)]) == 125
    assert main(["view", str(tmp_path / "nothing")]) == 127
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("pagewalk: ") for line in lines)


def test_the_status_is_the_guests(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.html")
    assert main(["view", "--quiet", "-o", out, str(IMAGES / "x86_64" / "segv")]) == main(
        ["run", str(IMAGES / "x86_64" / "segv")]
    )
    assert "events" in capfd.readouterr().err
