"""`--algorithm NAME=FILE.py:FUNCTION`: an algorithm of memory management replaced by one of yours.

    --algorithm find_vma=my.py:find_vma
    --algorithm vma_merge=my.py:merge --judge

NAME is a slot of `mm.ops` (mm/types.py, `MmOps`); the function takes what the slot's own takes, and returns what it
returns, because the rest of the kernel lives on it. Normal runs pay nothing: a slot is a slot.

| name | ours | arguments | result |
|---|---|---|---|
| `find_vma` | mm/find_vma.py | mm, addr | VMA or None |
| `find_vma_links` | mm/find_vma.py | mm, addr, end | (prev, parent, left child?) or None |
| `vmacache_find` | mm/vmacache.py | mm, addr | VMA or None |
| `vmacache_update` | mm/vmacache.py | mm, addr, vma | nothing |
| `unmapped_area`, `unmapped_area_topdown` | mm/unmapped_area.py | mm, info | address; raises Errno(ENOMEM) |
| `vma_merge` | mm/vma_merge.py | mm, prev, addr, end, vm_flags, anon_vma, file, pgoff, policy, uffd_ctx | VMA or None |
| `vma_link_rb` | mm/vma_tree.py | mm, vma, parent, left child? | nothing |
| `expand_stack` | mm/stack.py | vma, address | 0 or an errno |
| `handle_mm_fault` | mm/memory.py | vma, address, flags | VM_FAULT_* |
| `do_wp_page` | mm/memory_cow.py | vma, mm, address, flags, index, pte | VM_FAULT_* |
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError
from mm.errors import Errno, KernelBug
from mm.types import MmOps

if TYPE_CHECKING:
    from collections.abc import Callable

    from emu.machine import Machine

NAMES = tuple(sorted(MmOps.__slots__))


class AlgorithmError(PagewalkError):
    """A replaced algorithm raised something, or does not agree with ours."""


class Algorithm:
    """One `--algorithm`: the slot, where the function comes from, and the function."""

    __slots__ = ("function", "name", "path")

    def __init__(self, name: str, function: Callable[..., Any], path: str) -> None:
        """Raises PagewalkError when there is no such slot."""
        if name not in NAMES:
            raise PagewalkError(f"--algorithm {name}: it is none of {', '.join(NAMES)}")
        self.name = name
        self.path = path
        self.function = function

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """NAME=FILE.py:FUNCTION. Raises PagewalkError when there is no such slot, file or function."""
        name, equals, where = text.partition("=")
        path, colon, function = where.rpartition(":")
        if not equals or not colon or not function:
            raise PagewalkError(f"--algorithm {text}: expected NAME=FILE.py:FUNCTION")
        if name not in NAMES:
            raise PagewalkError(f"--algorithm {text}: {name!r} is none of {', '.join(NAMES)}")
        return cls(name, load_function(path, function), path)

    @classmethod
    def of(cls, name: str, function: Callable[..., Any]) -> Algorithm:
        """A function of this process for a slot."""
        return cls(name, function, getattr(getattr(function, "__code__", None), "co_filename", "(built in)"))


def load_function(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of the Python file `path`. Raises PagewalkError, one line, for whatever is wrong with it."""
    if not os.path.isfile(path):
        raise PagewalkError(f"--algorithm: {path}: no such file")
    spec = spec_from_file_location("algorithm_" + os.path.basename(path).partition(".")[0], path)
    if spec is None or spec.loader is None:
        raise PagewalkError(f"--algorithm: {path}: not a Python file (its name must end with .py)")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - it is the user's file
        raise AlgorithmError(f"--algorithm: {where_it_broke(error, path)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise PagewalkError(f"--algorithm: {path} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def where_it_broke(error: BaseException, path: str) -> str:
    """`my.py:12 in find_vma: AttributeError: ...`, from the last line of the file that the exception came by."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}:{frames[-1].lineno} in {frames[-1].name}: {kind}" if frames else f"{path}: {kind}"


def guarded(algorithm: Algorithm) -> Callable[..., Any]:
    """The function; what it raises by mistake becomes one line and ends the run."""
    function, name, path = algorithm.function, algorithm.name, algorithm.path

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Errno, KernelBug, PagewalkError):
            raise  # an answer; a broken invariant, told by who found it
        except RecursionError:
            raise AlgorithmError(f"--algorithm {name}: {path}: it calls itself without end") from None
        except Exception as error:
            if _blocks(error):
                raise
            raise AlgorithmError(f"--algorithm {name}: {where_it_broke(error, path)}") from error

    return call


def _blocks(error: BaseException) -> bool:
    """Whether it is how a task falls asleep, is interrupted or ends: not an error."""
    return type(error).__module__ == "guest.sched"


def install(machine: Machine, algorithms: list[Algorithm], judge: bool) -> None:
    """Put the functions into the slots of a machine that is built; with `judge`, beside ours."""
    ops = machine.system.mm_ops
    if judge:
        from emu.judge import Judge

        Judge(machine, algorithms)
        return
    for algorithm in algorithms:
        setattr(ops, algorithm.name, guarded(algorithm))


def explain_breakage(error: BaseException, algorithms: list[Algorithm]) -> str:
    """One line for an exception of our own code that a wrong answer of a replaced algorithm led to."""
    names = ", ".join(algorithm.name for algorithm in algorithms)
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = os.path.relpath(last.filename, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.environ.get("PAGEWALK_TRACEBACK"):
        traceback.print_exception(error, file=sys.stderr)
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"with {names} replaced, the kernel broke in {where}:{last.lineno}: {kind} (--judge shows where it began)"
