"""The page of `pagewalk view` in a real browser: it loads, steps both ways, shows what the machine had, is robust."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser, Unavailable, chromium
from geometry import IMAGES, arch_of, make_machine
from page_trace import trace

from emu import page
from emu.page_record import MMU_BITS, Recorder

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

SNAPSHOT = """(() => {
  const run = pagewalk.run;
  const spaces = {};
  for (let space = 0; space < run.objects.space.count; space++) {
    if (!run.get("space", space, "alive")) continue;
    const leaves = {};
    run.eachLeaf(space, 0, Infinity, (i, address, low, high) => {
      leaves[address] = ((BigInt(high) << 32n) | BigInt(low)).toString();
    });
    spaces[run.objects.space.root[space]] = {
      areas: run.areas(space).map((a) => [a.start, a.end, a.flags, a.pgoff, a.red, a.depth, a.subtreeGap]),
      leaves,
    };
  }
  return {at: run.at, spaces};
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        chromium()
    except Unavailable as why:
        pytest.skip(str(why))
    with Browser() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_went_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test may leave an error in the console, nor may the page ask for anything."""
    yield
    browser = request.getfixturevalue("browser")
    browser.run("1")  # whatever is under way arrives
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("file://")] == []


class Observed:
    """A run's recorder, and what the machine's own structures were after some of its events."""

    def __init__(self, kernel: str, name: str) -> None:
        self.machine = make_machine(kernel)
        self.recorder = page.record(self.machine, [name])
        self.states: dict[int, dict[str, Any]] = {}
        self._calls = 0
        self.machine.subscribe(self._listen, "syscall_enter", "syscall_exit")
        self.machine.load(str(IMAGES / arch_of(kernel) / name), [f"/{name}"])
        self.machine.run()

    def _listen(self, event: Any) -> None:
        self._calls += 1
        if self._calls % 5 == 0:
            self.states[len(self.recorder.kind) - 1] = {
                str(mm.pgd): {"areas": [*self._areas(mm)], "leaves": self._leaves(mm)}
                for mm in self.machine.system.pgd_list
            }

    def _areas(self, mm: Any) -> Iterator[list[Any]]:
        depths = {}
        vma = mm.mmap
        while vma is not None:
            at, depth = vma, 0
            while at.rb_parent is not None:
                at, depth = at.rb_parent, depth + 1
            depths[vma] = depth
            flags = vma.vm_flags & ~mm.arch.VM_SOFTDIRTY
            yield [vma.vm_start, vma.vm_end, flags, vma.vm_pgoff, vma.rb_red, depth, vma.rb_subtree_gap]
            vma = vma.vm_next

    def _leaves(self, mm: Any) -> dict[str, int]:
        from emu.draw_pagetables import entries

        bits = MMU_BITS[mm.arch.name]
        return {str(entry.address): entry.raw & ~bits for entry in entries(mm) if entry.leaf}


def shown(browser: Browser, observed: Observed) -> dict[str, Any]:
    """What the page has, in the form of `Observed.states`."""
    arch = observed.machine.system.arch
    state = browser.run(SNAPSHOT)
    for space in state["spaces"].values():
        space["areas"] = [[*area[:2], area[2] & ~arch.VM_SOFTDIRTY, *area[3:]] for area in space["areas"]]
        space["leaves"] = {at: int(entry) & ~MMU_BITS[arch.name] for at, entry in space["leaves"].items()}
    return dict(state["spaces"])


def write(recorder: Recorder, folder: pathlib.Path) -> str:
    path = folder / "page.html"
    path.write_text(page.render(recorder), encoding="utf-8")
    return str(path)


def by_hand(events: int, **changes: Any) -> Recorder:
    recorder = Recorder()
    for line in trace(events, **changes):
        recorder.line(line)
    return recorder


@pytest.mark.parametrize("kernel", ["x86_64-4k", "x86_64-4k-la57", "aarch64-16k"])
@pytest.mark.parametrize("name", ["cow", "gcbarrier"])
def test_it_shows_what_the_machine_had(browser: Browser, tmp_path: pathlib.Path, kernel: str, name: str) -> None:
    """Forward, then back: at each event that was looked at, areas, tree, gaps and entries are the machine's."""
    observed = Observed(kernel, name)
    browser.open(write(observed.recorder, tmp_path))
    moments = sorted(observed.states)[:40]
    for moment in (*moments, *reversed(moments)):
        browser.run(f"pagewalk.go({moment})")
        assert shown(browser, observed) == observed.states[moment], f"after event {moment}"
    browser.run("pagewalk.go(-1)")
    assert shown(browser, observed) == {}


def test_keys(browser: Browser, tmp_path: pathlib.Path) -> None:
    """All of it without a mouse."""
    browser.open(write(Observed("x86_64-4k", "cow").recorder, tmp_path))
    last = browser.run("pagewalk.run.count") - 1
    at = browser.run("pagewalk.run.at")
    for key, expected in (("ArrowRight", at + 1), ("n", at + 2), ("ArrowLeft", at + 1), ("p", at), ("End", last),
                          ("Home", -1), ("ArrowLeft", -1), ("PageDown", 99), ("PageUp", -1)):  # fmt: skip
        browser.key(key)
        assert browser.run("pagewalk.run.at") == expected, key
    browser.key("ArrowRight", shift=True)
    assert browser.run("pagewalk.run.at") == 9
    for key, view in (("2", "areas"), ("3", "tables"), ("4", "tasks"), ("1", "tree")):
        browser.key(key)
        assert browser.run(
            "[...document.querySelectorAll('[role=tabpanel]')].filter((p) => !p.hidden).map((p) => p.id)"
        ) == [f"view-{view}"]
    browser.key("?")
    assert browser.run("help.open")
    browser.key("Escape")
    assert not browser.run("help.open")
    theme = browser.run("getComputedStyle(document.documentElement).colorScheme")
    browser.key("t")
    assert {theme, browser.run("getComputedStyle(document.documentElement).colorScheme")} == {"light", "dark"}
    browser.key("t")
    browser.key("/")
    assert browser.run("document.activeElement.id") == "search"
    reached = set()
    for _ in range(40):
        browser.key("Tab")
        reached.add(browser.run("document.activeElement.id"))
        assert browser.run(
            "document.activeElement === document.body || document.activeElement.matches(':focus-visible')"
        )
    assert {"events", "spaces", "space", "tab-tree", "tree-scroll", "theme", "help-button", "slider"} <= reached


def test_keys_within_the_lists(browser: Browser, tmp_path: pathlib.Path) -> None:
    browser.open(write(Observed("x86_64-4k", "cow").recorder, tmp_path))
    browser.run("pagewalk.go(100), document.getElementById('events').focus()")
    browser.key("ArrowDown")
    assert browser.run("pagewalk.run.at") == 101
    browser.run("pagewalk.setView('tables'), document.getElementById('tables').focus()")
    before = browser.run("pagewalk.tablesView.rows.length")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        browser.key(key)
    assert browser.run("pagewalk.tablesView.rows.length") > before
    assert browser.run("pagewalk.run.at") == 101, "the list's keys are its own"
    browser.run("pagewalk.setView('tree'), document.getElementById('tree-scroll').focus()")
    browser.key("ArrowDown")
    top = browser.run("pagewalk.selectedArea")
    browser.key("ArrowLeft")
    assert browser.run("pagewalk.selectedArea") == browser.run(f"pagewalk.run.area({top}).left")
    browser.key("ArrowUp")
    assert browser.run("pagewalk.selectedArea") == top


def test_the_mouse(browser: Browser, tmp_path: pathlib.Path) -> None:
    browser.open(write(Observed("x86_64-4k", "cow").recorder, tmp_path))
    place = "(({left, top, width, height}) => [left + width / 2, top + height / 2])(%s.getBoundingClientRect())"
    at = browser.run("pagewalk.run.at")
    browser.click(*browser.run(place % "forward"))
    assert browser.run("pagewalk.run.at") == at + 1
    browser.click(*browser.run(place % "document.getElementById('timeline')"))
    assert abs(browser.run("pagewalk.run.at / pagewalk.run.count") - 0.5) < 0.02
    browser.run("pagewalk.go(100)")
    browser.click(*browser.run(place % "document.querySelector('#events .row:nth-child(9)')"))
    assert browser.run("pagewalk.run.at") not in (100, at)
    browser.click(*browser.run(place % "document.querySelector('#space')"))
    assert browser.run("pagewalk.selectedArea") >= 0
    before = browser.run("pagewalk.spaceView.window()")
    browser.click(*browser.run(place % "document.getElementById('zoom-in')"))
    after = browser.run("pagewalk.spaceView.window()")
    assert after[1] - after[0] == pytest.approx((before[1] - before[0]) / 2)


def test_search_and_filter(browser: Browser, tmp_path: pathlib.Path) -> None:
    recorder = Observed("x86_64-4k", "cow").recorder
    faults = [n for n, kind in enumerate(recorder.kind) if list(recorder.kinds)[kind] == "fault"]
    browser.open(write(recorder, tmp_path))
    find = "search.value = %s, pagewalk.filter(), pagewalk.shown && [...pagewalk.shown]"
    assert browser.run(find % '"kind:fault"') == faults
    browser.run("pagewalk.go(-1)")
    for expected in faults[:3]:
        browser.key("ArrowRight")
        assert browser.run("pagewalk.run.at") == expected
    browser.key("ArrowLeft")
    assert browser.run("pagewalk.run.at") == faults[1]
    cow = browser.run(find % '"cow-copy"')
    assert cow and set(cow) < set(faults)
    assert browser.run(find % '"no such thing"') == []
    browser.key("ArrowRight")
    address = browser.run(f"pagewalk.run.num({faults[5]}, 'address').toString(16)")
    assert faults[5] in browser.run(find % f'"at:{address}"')
    children = browser.run(find % '"pid:28"')
    assert children and len(children) < len(recorder.kind)
    assert browser.run(find % '""') is None
    browser.run("document.querySelector('[data-group=faults]').click()")
    assert not set(faults) & set(browser.run("[...pagewalk.shown]"))


def test_after_a_fork_frames_are_shared(browser: Browser, tmp_path: pathlib.Path) -> None:
    recorder = Observed("x86_64-4k", "cow").recorder
    fork = next(n for n, kind in enumerate(recorder.kind) if list(recorder.kinds)[kind] == "fork")
    browser.open(write(recorder, tmp_path), f"#event={fork + 1}")
    assert browser.run("pagewalk.run.at") == fork
    browser.key("4")
    assert browser.run("pagewalk.tasksView.frames.length") > 5
    assert browser.run("document.querySelectorAll('#tasks tbody tr').length") == 2
    assert "forked" in browser.run("words.textContent")
    browser.run("pagewalk.step(Infinity)")
    assert browser.run("pagewalk.tasksView.frames.length") == 0


def test_it_survives_any_size(browser: Browser, tmp_path: pathlib.Path) -> None:
    """Nothing is wider than the window, and canvases follow."""
    browser.open(write(Observed("aarch64-16k", "cow").recorder, tmp_path))
    frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    try:
        for width, height in ((1280, 800), (400, 700), (1900, 1000), (700, 400), (1280, 800)):
            browser.resize(width, height)
            browser.run(frame)
            assert browser.run("document.documentElement.scrollWidth") <= width
            for name in ("space", "timeline", "tree"):
                assert browser.run(f"document.getElementById('{name}').width") == pytest.approx(
                    browser.run(f"document.getElementById('{name}').clientWidth"), abs=1.5
                )
            browser.key("ArrowRight")
    finally:
        browser.resize(1280, 800)


def test_themes_have_contrast(browser: Browser, tmp_path: pathlib.Path) -> None:
    """Text and ground differ by 4.5 to 1 (WCAG AA), whichever theme the system prefers."""
    browser.open(write(by_hand(50), tmp_path))
    ratio = """(a, b) => {
      const light = (name) => {
        const value = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim().slice(1);
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const part = (shift) => linear((parseInt(value, 16) >> shift & 255) / 255);
        return 0.2126 * part(16) + 0.7152 * part(8) + 0.0722 * part(0) + 0.05;
      };
      return Math.max(light(a), light(b)) / Math.min(light(a), light(b));
    }"""
    on_panel = [(name, "panel") for name in ("ink", "muted", "accent", "changed", "kind-entries")]
    grounds = ("bg", "select", "sunken", "changed-ground", "area-x", "area-w", "area-r", "area-n")
    pairs = [*on_panel, *(("ink", ground) for ground in grounds), ("muted", "area-w"), ("muted", "area-x")]
    try:
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            assert browser.run("getComputedStyle(document.documentElement).colorScheme") == scheme
            for one, other in pairs:
                assert browser.run(f"({ratio})('{one}', '{other}')") >= 4.5, (scheme, one, other)
    finally:
        browser.prefer("light")


def test_a_hostile_guest_is_only_text(browser: Browser, tmp_path: pathlib.Path) -> None:
    evil = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>{{DATA}}"
    recorder = Recorder()
    lines = list(trace(400, names=(evil,)))
    recorder.line(json.dumps({**json.loads(lines[0]), "program": [evil, "\udc80\x1b[31m"]}))
    for line in lines[1:]:
        recorder.line(line)
    recorder.line(json.dumps({"n": 1, "time": 1, "task": 27, "kind": evil, "constructor": 1, "__proto__": evil}))
    recorder.line(json.dumps({"n": 1, "time": 1, "task": 27, "kind": "switch", "pid": 27, "comm": evil, "previous": 1}))
    browser.open(write(recorder, tmp_path))
    for view in ("tree", "areas", "tables", "tasks"):
        browser.run(f"pagewalk.setView('{view}')")
        browser.run("for (let n = pagewalk.run.count - 1; n > 300; n -= 7) pagewalk.go(n)")
    browser.run("pagewalk.step(-1e9), pagewalk.step(Infinity)")
    assert browser.run("window.pwned === undefined && document.images.length === 0 && document.scripts.length === 2")
    assert browser.run("document.getElementById('program').textContent").startswith(evil)


def test_traces_that_are_odd(browser: Browser, tmp_path: pathlib.Path) -> None:
    """No events; events that contradict each other."""
    browser.open(write(by_hand(0), tmp_path))
    empty = Recorder()
    empty.line('{"schema":"pagewalk-trace","version":1}')
    browser.open(write(empty, tmp_path))
    browser.key("ArrowRight")
    lines = list(trace(300))
    odd = Recorder()
    for line in [lines[0], *reversed(lines[1:]), *lines[50:], *lines[2:90]]:
        odd.line(line)
    browser.open(write(odd, tmp_path))
    browser.run("for (let n = -1; n < pagewalk.run.count; n += 5) pagewalk.go(n)")


def test_a_hundred_thousand_events(browser: Browser, tmp_path: pathlib.Path, record_property: Any) -> None:
    """How long the page takes to load, beside one with hardly an event; then steps and a search."""
    times = {}
    for events in (100, 100_000):
        browser.open(write(by_hand(events), tmp_path))
        times[events] = browser.run("pagewalk.loadedAfter")
    print(f"loaded after {times[100_000]:.0f} ms, with 100 events after {times[100]:.0f} ms")
    record_property("milliseconds", times[100_000])
    assert times[100_000] < 20 * times[100]
    assert browser.run("pagewalk.run.count") >= 100_000
    browser.key("End")
    state = browser.run(SNAPSHOT)
    browser.key("Home")
    for _ in range(3):
        browser.key("PageDown")
    assert browser.run("pagewalk.run.at") == 299
    browser.key("End")
    assert browser.run(SNAPSHOT) == state
    assert browser.run("document.querySelectorAll('#events .row').length") < 100
    assert browser.run("search.value = 'fault anon', pagewalk.filter(), pagewalk.shown.length") > 30_000
