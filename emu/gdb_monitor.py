"""gdb's `monitor` commands: the same drawings as the command line's, of the process the debugger looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.errors import PagewalkError

if TYPE_CHECKING:
    from emu.gdb_server import Server

HELP = """monitor vma              the areas of the process, as /proc/PID/maps
monitor vma ADDR         the area at ADDR, with its flags
monitor tree             the red-black tree of the areas
monitor pagetables ADDR  what the MMU reads to translate ADDR
monitor explain [N]      the last page fault (or the N-th) told in steps
monitor faults           the last page faults, and how many of each kind there were
monitor help             this list
ADDR is a number (0x...), or $pc or $sp.
"""
SHOWN = 20  # faults


class Faults:
    """What was heard of page faults since the program began."""

    def __init__(self, machine: Any) -> None:
        self.last: list[Any] = []
        self.counts: dict[str, int] = {}
        self.total = 0
        machine.subscribe(self, "fault")

    def __call__(self, event: Any) -> None:
        """Take one."""
        self.total += 1
        result = f"{event.result} (signal {event.signal})" if event.signal else event.result
        self.counts[result] = self.counts.get(result, 0) + 1
        self.last = [*self.last[1 - SHOWN :], (self.total, event)]


def monitor(server: Server, line: str) -> str:
    """The answer to one command line, with its newline."""
    words = line.split()
    command, arguments = (words[0], words[1:]) if words else ("help", [])
    serve = COMMANDS.get(command)
    if serve is None:
        return f"unknown command {command!r}; monitor help lists them\n"
    try:
        return serve(server, arguments).rstrip("\n") + "\n"
    except PagewalkError as error:
        return f"{error}\n"
    except ValueError:
        return f"not an address: {' '.join(arguments)}\n"


def _mm(server: Server) -> Any:
    mm = server.task().mm
    if mm is None:
        raise PagewalkError("the process has no memory any more")
    return mm


def _address(server: Server, word: str) -> int:
    arch = server.arch
    number = {"$pc": arch.pc, "$sp": arch.sp}.get(word)
    if number is not None:
        return int.from_bytes(arch.values(server.target.machine, server.task())[number], "little")
    return int(word, 0) & (1 << 64) - 1


def _vma(server: Server, arguments: list[str]) -> str:
    from emu.views import AddressSpace

    mm = _mm(server)
    space = AddressSpace(mm, server.task())
    if not arguments:
        return space.text()
    address = _address(server, arguments[0])
    try:
        vma = space[address]
    except KeyError:
        return f"no area at {address:#x}"
    from guest.procfs_maps import show_map
    from mm import flags

    names = [n for n, bit in vars(flags).items() if n.startswith("VM_") and isinstance(bit, int) and _flag(n, bit)]
    held = [name for name in names if vma.vm_flags & getattr(flags, name)]
    return f"{show_map(vma)}vm_flags {vma.vm_flags:#x}  {' '.join(held)}\nvm_pgoff {vma.vm_pgoff:#x}"


def _flag(name: str, bit: int) -> bool:
    """Whether it is the name of one flag (not of a mask or a fault's result)."""
    return not name.startswith(("VM_FAULT", "VM_MERGE")) and bit > 0 and bit & bit - 1 == 0


def _tree(server: Server, _: list[str]) -> str:
    from emu.views import VmaTree

    return VmaTree(_mm(server)).text()


def _pagetables(server: Server, arguments: list[str]) -> str:
    from emu.views import PageTables

    tables = PageTables(_mm(server), server.task())
    return repr(tables.walk(_address(server, arguments[0]))) if arguments else tables.text()


def _explain(server: Server, arguments: list[str]) -> str:
    faults = server.session.faults
    number = int(arguments[0], 0) if arguments else faults.total
    if not 0 < number <= faults.total:
        return f"there is no page fault {number}; monitor faults lists them"
    return str(server.session.history.explain(number))


def _faults(server: Server, _: list[str]) -> str:
    faults = server.session.faults
    if not faults.total:
        return "no page fault yet"
    lines = [f"{faults.total} page faults since the program began"]
    lines += [f"{count:8}  {kind}" for kind, count in sorted(faults.counts.items(), key=lambda item: -item[1])]
    lines.append(f"the last {len(faults.last)}:")
    for number, event in faults.last:
        outcome = f"signal {event.signal}" if event.signal else event.result
        who = "user" if event.user else "kernel"
        lines.append(f"  #{number}  pid {event.pid}  {who} {event.access} at {event.address:#x}: {outcome}")
    return "\n".join(lines)


def _help(_: Server, __: list[str]) -> str:
    return HELP


COMMANDS = {
    "vma": _vma,
    "tree": _tree,
    "pagetables": _pagetables,
    "explain": _explain,
    "faults": _faults,
    "help": _help,
}
