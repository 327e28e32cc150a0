"""Which instruction it was: disassembled, with its function, source file and line, for any ELF file of the process.

    pc --area--> file and offset in it --PT_LOAD--> address as linked --.symtab, .dynsym, DWARF--> function, file:line

The difference between where a file is and where it was linked to is its load bias: 0 for a plain executable, anything
for a PIE, the interpreter and shared libraries. Everything comes from the file as the guest has it mapped, and a file
that is no good ELF simply has no names.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from emu import draw
from emu.explain_walk import rules_of
from emu.peek import peek

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

MAX_FILE = 256 << 20  # bytes: larger files are not searched for symbols


class Place:
    """Where an instruction is.

    Attributes:
        file: the guest's name of the file, or of the area ([vdso], [heap]); empty: nothing is mapped there.
        bias: load bias, bytes; None where there is no ELF file.
        function: name, or empty.
        offset: bytes behind the function's start.
        source: "file:line" from DWARF, or empty.
    """

    __slots__ = ("bias", "file", "function", "offset", "source")

    def __init__(self, file: str = "") -> None:
        self.file = file
        self.bias: int | None = None
        self.function = ""
        self.offset = 0
        self.source = ""

    def __str__(self) -> str:
        words = []
        if self.function:
            words.append(f"{self.function}+{self.offset:#x}" if self.offset else self.function)
        if self.source:
            words.append(f"at {self.source}")
        if self.file:
            words.append(f"in {self.file}")
        if self.bias:
            words.append(f"(load bias {self.bias:#x})")
        return " ".join(words) or "where nothing is mapped"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


class Image:
    """Names of one ELF file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._starts: list[int] = []
        self._symbols: list[tuple[int, int, str]] = []  # address as linked, size, name
        self._segments: list[tuple[int, int, int]] = []  # file offset, size in the file, address as linked
        self._elf: Any = None
        self._dwarf: Any = None
        self._lines: dict[int, str] = {}
        try:
            self._load()
        except Exception:  # noqa: BLE001 - the guest's file: pyelftools raises anything for one that is damaged
            self._elf = None

    def _load(self) -> None:
        from elftools.elf.elffile import ELFFile

        elf = ELFFile(io.BytesIO(self._data))
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                self._segments.append((segment["p_offset"], segment["p_filesz"], segment["p_vaddr"]))
        self._elf = elf
        found = {}
        for name in (".dynsym", ".symtab"):
            table: Any = elf.get_section_by_name(name)
            if table is None:
                continue
            for symbol in table.iter_symbols():
                if symbol["st_info"]["type"] in ("STT_FUNC", "STT_GNU_IFUNC") and symbol["st_value"] and symbol.name:
                    found[symbol["st_value"]] = (symbol["st_value"], symbol["st_size"], symbol.name)
        self._symbols = sorted(found.values())
        self._starts = [start for start, _, _ in self._symbols]

    def linked_address(self, offset: int) -> int | None:
        """The address the byte at a file offset was linked to."""
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return address + offset - start
        return None

    def function(self, address: int) -> tuple[str, int]:
        """(name, distance from its start) of the function at an address as linked; ("", 0): none."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return "", 0
        start, size, name = self._symbols[at]
        return (name, address - start) if address < start + max(size, 1) or not size else ("", 0)

    def line(self, address: int) -> str:
        """`file:line` of an address as linked, from DWARF; empty without."""
        if address not in self._lines:
            try:
                self._lines[address] = self._find_line(address)
            except Exception:  # noqa: BLE001 - as above
                self._lines[address] = ""
        return self._lines[address]

    def _find_line(self, address: int) -> str:
        if self._elf is None or not self._elf.has_dwarf_info():
            return ""
        if self._dwarf is None:
            self._dwarf = self._elf.get_dwarf_info()
        aranges = self._dwarf.get_aranges()
        offset = aranges.cu_offset_at_addr(address) if aranges is not None else None
        units = [self._dwarf.get_CU_at(offset)] if offset is not None else self._dwarf.iter_CUs()
        for unit in units:
            program = self._dwarf.line_program_for_CU(unit)
            if program is not None and (found := _line_in(program, address)):
                return found
        return ""


def _line_in(program: Any, address: int) -> str:
    """`file:line` from one line program; empty when the address is not in it."""
    before = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if before is not None and before.address <= address < state.address:
            header = program.header
            number = before.file if header["version"] >= 5 else before.file - 1
            file = header["file_entry"][number]
            name = file.name.decode("utf-8", "replace")
            first = 0 if header["version"] >= 5 else 1
            folders = header["include_directory"]
            if file.dir_index > 0 and file.dir_index - first < len(folders):
                folder = folders[file.dir_index - first].decode("utf-8", "replace")
                name = f"{folder}/{name}"
            return f"{name}:{before.line}"
        before = None if state.end_sequence else state
    return ""


class Images:
    """The ELF files of one machine, each read once."""

    def __init__(self) -> None:
        self._images: dict[int, tuple[Any, Image]] = {}  # by identity of the mapping, which is kept alive

    def of(self, vma: VmAreaStruct) -> Image | None:
        """Names of what `vma` maps; None when that is no file."""
        key = vma.vm_file.f_mapping if vma.vm_file is not None else vma.vm_private_data
        if key is None:
            return None
        known = self._images.get(id(key))
        if known is None:
            known = self._images[id(key)] = (key, Image(self._content(vma)))
        return known[1]

    @staticmethod
    def _content(vma: VmAreaStruct) -> bytes:
        if vma.vm_file is None:  # the vDSO: its ELF image is what is mapped
            return peek(vma.vm_mm, vma.vm_start, vma.vm_end - vma.vm_start) or _special(vma)
        mapping = vma.vm_file.f_mapping
        if mapping.i_size > MAX_FILE or not hasattr(mapping.private, "backing"):
            return b""
        from mm.shmem import shmem_read

        return shmem_read(mapping, 0, mapping.i_size)


def _special(vma: VmAreaStruct) -> bytes:
    """The pages of a special mapping that nobody has touched yet."""
    system = vma.vm_mm.system
    pages = getattr(vma.vm_private_data, "pages", None) or []
    size = system.page_size
    return b"".join(bytes(system.ram[page.pfn * size : (page.pfn + 1) * size]) for page in pages)


def area_at(mm: MmStruct, address: int) -> VmAreaStruct | None:
    """The area that contains `address`, without find_vma(): the vmacache must not notice."""
    node = mm.mm_rb.rb_node
    while node is not None:
        if address < node.vm_start:
            node = node.rb_left
        elif address >= node.vm_end:
            node = node.rb_right
        else:
            return node  # type: ignore[no-any-return]
    return None


def place_of(images: Images, mm: MmStruct, address: int) -> Place:
    """Where `address` lies."""
    vma = area_at(mm, address)
    if vma is None:
        return Place()
    place = Place(draw.name_of(vma) or "anonymous memory")
    image = images.of(vma)
    if image is None:
        return place
    offset = address - vma.vm_start + ((vma.vm_pgoff << mm.arch.page_shift) if vma.vm_file is not None else 0)
    linked = image.linked_address(offset)
    if linked is not None:
        place.bias = address - linked
        place.function, place.offset = image.function(linked)
        place.source = image.line(linked)
    return place


class Instruction:
    """The instruction at the program counter.

    Attributes:
        address: where.
        code: its bytes.
        text: as assembly.
        operands: (expression, registers and their values, address it makes) of each operand in memory.
        place: where that is.
    """

    def __init__(
        self, images: Images, engine: Any, mm: MmStruct, address: int, registers: tuple[int, ...], bases: dict[str, int]
    ) -> None:
        rules = rules_of(mm.arch.name)
        self.address = address
        self.place = place_of(images, mm, address)
        self.code = b""
        self.text = ""
        self.operands: list[tuple[str, str, int]] = []
        code = peek(mm, address, rules.MAX_INSTRUCTION)
        decoded = next(engine.disasm(code, address, 1), None) if code else None
        if decoded is None:
            self.code = code
            return
        self.code = bytes(decoded.bytes)
        self.text = f"{decoded.mnemonic} {decoded.op_str}".strip()
        end = address + len(self.code)
        for segment, base, index, scale, displacement in rules.memory_operands(decoded):
            self._operand(rules, registers, bases, end, segment, base, index, scale, displacement)

    def _operand(
        self,
        rules: Any,
        registers: tuple[int, ...],
        bases: dict[str, int],
        end: int,
        segment: str,
        base: str,
        index: str,
        scale: int,
        displacement: int,
    ) -> None:
        """One operand in memory: how its address is made."""
        total = displacement + bases.get(segment, 0)
        terms, values = ([segment] if segment else []), ([f"{segment} = {bases.get(segment, 0):#x}"] if segment else [])
        for name, factor in ((base, 1), (index, scale)):
            if not name:
                continue
            number = rules.register_number(name)
            value = registers[number] if number is not None else 0
            if name == "rip":  # counts from the next instruction
                value = end
            if name.startswith(("w", "e")):
                value &= 0xFFFFFFFF
            total += value * factor
            terms.append(name if factor == 1 else f"{name}*{factor}")
            values.append(f"{name} = {value:#x}")
        if displacement or not terms:
            terms.append(f"{displacement:#x}" if displacement >= 0 else f"-{-displacement:#x}")
        expression = " + ".join(terms).replace("+ -", "- ")
        self.operands.append((expression, ", ".join(values), total & 0xFFFFFFFFFFFFFFFF))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "address": self.address,
            "code": self.code.hex(),
            "text": self.text,
            "operands": [
                {"expression": expression, "registers": values, "address": address}
                for expression, values, address in self.operands
            ],
            "place": self.place.to_dict(),
        }
