"""exit and exec tear down to the last frame: after any run, only files that still exist keep frames.

Every frame handed out since the machine was built is either back in the free lists or a page of a file that still has
a name; no page table, no anonymous page, no mark of a lock is left, however the programs ended.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from geometry import IMAGES, KERNELS, PROJECT, arch_of, make_machine

from guest.siginfo import SigInfo
from guest.signal import send_signal
from mm.flags import PG_TABLE
from mm.types import AddressSpace, Page
from mm.validate_pages import validate_system

GOLDEN = PROJECT / "tests" / "golden"
IMAGE_NAMES = sorted(path.name for path in (IMAGES / "x86_64").iterdir() if path.name != "vdso")
SCRIPTS = sorted(path.name for path in (GOLDEN / "scripts").iterdir())
SIGKILL, SI_USER = 9, 0
RAM = 256 << 20


class Account:
    """The frames of a machine before its first program, to be compared with those after the last."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.system = machine.system
        self.before = {page.pfn for page in self.system.mem_map if page is not None}
        self.free = self.system.nr_free_pages()

    def left(self) -> list[Page]:
        """Frames in use now that were free before."""
        return [page for page in self.system.mem_map if page is not None and page.pfn not in self.before]

    def reachable(self, mapping: AddressSpace) -> bool:
        """A file with a name, or a SysV segment nobody removed, which outlives its makers."""
        if mapping.host is not None:
            return bool(mapping.host.i_nlink > 0)
        segments = self.machine.kernel.ipc_ns.ids.values()
        return any(segment.shm_file.f_mapping is mapping for segment in segments)

    def check(self) -> None:
        """Everything is back."""
        system = self.system
        assert system.pgd_list == []
        left = self.left()
        for page in left:
            mapping = page.mapping
            assert isinstance(mapping, AddressSpace), f"frame {page.pfn:#x}, flags {page.flags:#x}, is lost"
            assert not page.flags & PG_TABLE
            assert mapping.pages[page.index] is page
            assert (page.refcount, page.mapcount) == (1, 0)
            assert self.reachable(mapping), f"frame {page.pfn:#x} belongs to a file without a name"
            assert mapping.i_mmap.rb_node is None
        assert system.nr_free_pages() == self.free - len(left)
        assert self.before <= {page.pfn for page in system.mem_map if page is not None}
        assert system.nr_mlock == 0
        assert system.nr_shmem == len(left)
        validate_system(system, self.machine.kernel.tasks.values())


def prepared(kernel: str, program: str, argv: list[str] | None = None, **options: Any) -> tuple[Any, Account]:
    """A machine with its first program loaded, and its frames as they were before."""
    machine = make_machine(kernel, ram=RAM, **options)
    account = Account(machine)
    machine.load(program, argv)
    return machine, account


def image(kernel: str, name: str) -> tuple[str, list[str] | None]:
    argv = {"bench": ["bench", "faults", "3000"]}.get(name)
    return str(IMAGES / arch_of(kernel) / name), argv


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_images(kernel: str, name: str) -> None:
    machine, account = prepared(kernel, *image(kernel, name))
    machine.run()
    account.check()


# Each script under one kernel, the kernels in turn; the last three are the largest and run under all of them.
SAMPLES = [(script, list(KERNELS)[number % len(KERNELS)]) for number, script in enumerate(SCRIPTS)]
SAMPLES += [(script, kernel) for script in ("07-fork-cow", "09-file-shared", "12-mlock") for kernel in KERNELS]


@pytest.mark.parametrize(("script", "kernel"), sorted(set(SAMPLES)))
def test_golden_scripts(script: str, kernel: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "s").write_bytes((GOLDEN / "scripts" / script).read_bytes())
    (tmp_path / "vmops").write_bytes((GOLDEN / "bin" / f"vmops.{arch_of(kernel)}").read_bytes())
    (tmp_path / "vmops").chmod(0o755)
    machine, account = prepared(kernel, "/vmops", ["/vmops", "/s"], root=str(tmp_path))
    assert machine.run().status == 0
    account.check()


def kill_all(machine: Any) -> None:
    for task in list(machine.kernel.tasks.values()):
        send_signal(SigInfo(SIGKILL, SI_USER), task, True, True)
    machine.run()


def nth(number: int) -> Callable[[Any], bool]:
    """An event predicate: the event with that number."""
    seen = 0

    def arrived(_event: Any) -> bool:
        nonlocal seen
        seen += 1
        return seen == number

    return arrived


@pytest.mark.parametrize("kernel", ["x86_64-4k", "aarch64-64k"])
@pytest.mark.parametrize("name", ["cow", "exec", "filemap", "pipes", "processvm", "sysvshm", "pagetables"])
def test_killed_anywhere(kernel: str, name: str) -> None:
    """At the n-th event: within calls, between them, in faults, with children and pipes half-way."""
    for number in (1, 3, 10, 25, 60, 110, 170, 240, 330, 450):
        machine, account = prepared(kernel, *image(kernel, name))
        end = machine.run(until=nth(number))
        if end.reason == "until":
            kill_all(machine)
        account.check()
        if end.reason != "until":
            break


def test_an_account_finds_a_lost_frame() -> None:
    machine, account = prepared("x86_64-4k", *image("x86_64-4k", "hello"))
    machine.run()
    from mm.page_alloc import alloc_page

    alloc_page(machine.system, False)
    with pytest.raises(AssertionError, match="is lost"):
        account.check()
