"""The architectures by name: which page sizes each has, its page tables (mm/) and its CPU (emu/).

Only the architecture a run needs is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from emu.engine import Engine
    from mm.arch import Arch
    from mm.system import System


class Architecture(NamedTuple):
    """Where an architecture's parts are, and what can be chosen about it."""

    page_sizes: tuple[int, ...]  # bytes, the default one first
    la57: bool  # whether there are five-level page tables
    tables: str  # module of mm/ whose `make` builds the geometry
    cpu: str  # module of emu/ that holds the engine
    engine: str  # the engine's class there


ARCHITECTURES = {
    "x86_64": Architecture((4096,), True, "mm.arch_x86_64", "emu.arch_x86_64", "X86Engine"),
    "aarch64": Architecture((4096, 16384, 65536), False, "mm.arch_arm64", "emu.arch_arm64", "Arm64Engine"),
}


def _engine_class(name: str) -> type[Engine]:
    architecture = ARCHITECTURES[name]
    found: type[Engine] = getattr(import_module(architecture.cpu), architecture.engine)
    return found


def cpu_models() -> dict[str, list[str]]:
    """CPU models by architecture, the default one first."""
    return {name: list(_engine_class(name).MODELS) for name in ARCHITECTURES}


def make_arch(name: str, page_size: int | None, la57: bool) -> Arch:
    """Geometry of the page tables. Raises PagewalkError for one the architecture lacks."""
    if name not in ARCHITECTURES:
        raise PagewalkError(f"unknown architecture '{name}'; known: {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    size = page_size or architecture.page_sizes[0]
    if size not in architecture.page_sizes:
        known = ", ".join(f"{known >> 10}k" for known in architecture.page_sizes)
        raise PagewalkError(f"page size {size >> 10}k does not exist on {name}; it has {known}")
    if la57 and not architecture.la57:
        raise PagewalkError(f"five-level page tables (la57) do not exist on {name}")
    made: Arch = import_module(architecture.tables).make(la57 if architecture.la57 else size)
    return made


def make_engine(system: System, model: str | None) -> Engine:
    """The CPU of `system`, booted. Raises PagewalkError for an unknown model or too little RAM."""
    return _engine_class(system.arch.name)(system, model)
