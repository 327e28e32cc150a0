"""The text of /proc/mmdump, line by line."""

import re

import pytest
from pages_world import GEOMETRIES, PRIVATE, RW, World

from mm.mmdump import mmdump
from mm.uaccess import copy_to_user

FORMS = [
    r"mm map_count=\d+ total_vm=\d+ locked_vm=\d+ data_vm=\d+ exec_vm=\d+ stack_vm=\d+ def_flags=[0-9a-f]+",
    r"mm start_code=[0-9a-f]+ end_code=[0-9a-f]+ start_data=[0-9a-f]+ end_data=[0-9a-f]+ start_brk=[0-9a-f]+"
    r" brk=[0-9a-f]+ start_stack=[0-9a-f]+",
    r"mm mmap_base=[0-9a-f]+ highest_vm_end=[0-9a-f]+ task_size=[0-9a-f]+ vmacache_seqnum=\d+ pgtables_bytes=\d+",
    r"rss -?\d+ -?\d+ -?\d+ -?\d+",
    r"vma [0-9a-f]+-[0-9a-f]+ flags=[0-9a-f]+ prot=[0-9a-f]+ pgoff=[0-9a-f]+"
    r"( anon=\d+/\d+ children=\d+ active=\d+)?( file=\S.*)?",
    r"rb \d+ [0-9a-f]+ [BR] gap=[0-9a-f]+( l=[0-9a-f]+)?( r=[0-9a-f]+)?",
    r"cache (valid|stale)( ([0-9a-f]+|-)){4}",
    r"(pte|pmd|huge) [0-9a-f]+ raw=[0-9a-f]+ (zero|nopage|absent|id=-?\d+ (anon|file) map=\d+( mlocked)?)",
    r"end",
]


def test_one_dump_in_full() -> None:
    w = World("x86_64-4k")
    f = w.file(b"x" * 2 * w.ps, "/odd\nname")
    a = w.mmap(2, RW, PRIVATE, f, addr=0x400000)
    w.fault(a)
    copy_to_user(w.task, a, b"1")
    b = w.mmap(3, addr=0x500000)
    w.fault(b)
    assert mmdump(w.task) == (
        "mm map_count=2 total_vm=5 locked_vm=0 data_vm=5 exec_vm=0 stack_vm=0 def_flags=0\n"
        "mm start_code=0 end_code=0 start_data=0 end_data=0 start_brk=0 brk=0 start_stack=0\n"
        "mm mmap_base=7ffff7fff000 highest_vm_end=503000 task_size=7ffffffff000 vmacache_seqnum=0"
        " pgtables_bytes=12288\n"
        "rss 0 1 0 1\n"
        "vma 400000-402000 flags=8100073 prot=8000000000000025 pgoff=0 anon=1/1 children=1 active=1"
        " file=/odd\\012name\n"
        "vma 500000-503000 flags=8100073 prot=8000000000000025 pgoff=500\n"
        "rb 0 400000 B gap=400000 r=500000\n"
        "rb 1 500000 R gap=fe000\n"
        "cache valid - - 500000 -\n"
        "pte 400000 raw=8000000000000867 id=1 anon map=1\n"
        "pte 401000 raw=8000000000000025 id=2 file map=1\n"
        "pte 500000 raw=8000000000000225 zero\n"
        "end\n"
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_line_has_its_form(geometry: str) -> None:
    w = World(geometry)
    f = w.file(b"x" * 40 * w.ps)
    a = w.mmap(40, RW, PRIVATE, f)
    w.fault(a)
    copy_to_user(w.task, a + 3 * w.ps, b"1" * 3 * w.ps)
    child = w.fork()
    w.munmap(a, 1)
    text = mmdump(w.task)
    assert text.endswith("end\n")
    for line in text.splitlines():
        assert any(re.fullmatch(form, line) for form in FORMS), line
    assert "map=2" in text
    w.exit(child)


def test_ids_show_sharing() -> None:
    w = World()
    f = w.file(b"x" * w.ps)
    a = w.mmap(1, RW, PRIVATE, f)
    b = w.mmap(1, 1, PRIVATE, f)
    w.fault(a)
    w.fault(b)
    lines = [line for line in mmdump(w.task).splitlines() if line.startswith("pte")]
    assert [line.split("id=")[1] for line in lines] == ["1 file map=2", "1 file map=2"]


def test_stale_cache() -> None:
    w = World()
    w.mmap(1)
    w.mm.vmacache_seqnum += 1
    assert "cache stale - - - -" in mmdump(w.task)
