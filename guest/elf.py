"""The ELF loader (fs/binfmt_elf.c): same checks, same order, same mappings: the same past of the address space.

    header -> PT_INTERP -> PT_GNU_STACK -> GNU_PROPERTY | begin_new_exec (no return) | stack -> PT_LOADs -> bss, brk
           -> interpreter -> vDSO -> argv, envp, auxv

What is wrong before the bar refuses the exec with an errno; after it, the task dies of SIGSEGV. Addresses wrap at 64
bits as the kernel's unsigned longs do.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Any

from guest.own_mm import own_mm
from mm.errors import Errno
from mm.flags import (
    MAP_DENYWRITE,
    MAP_EXECUTABLE,
    MAP_FIXED,
    MAP_PRIVATE,
    MMAP_PAGE_ZERO,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    READ_IMPLIES_EXEC,
    VM_EXEC,
)
from mm.mmap import do_munmap, vm_mmap
from mm.stack import find_extend_vma
from mm.uaccess import clear_user, copy_to_user, put_user, strncpy_from_user

if TYPE_CHECKING:
    from guest.exec import Bprm
    from guest.kernel import Kernel
    from guest.task import Task

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_INTERP, PT_GNU_STACK, PT_GNU_PROPERTY = 1, 3, 0x6474E551, 0x6474E553
PF_X, PF_W, PF_R = 1, 2, 4
PATH_MAX = 4096
ELIBBAD = 80
EXSTACK_DEFAULT, EXSTACK_DISABLE_X, EXSTACK_ENABLE_X = 0, 1, 2
DEFAULT_MAP_PAGES = 1 << 30  # 1 GiB: how far randomize_page() may move brk
SAVED_AUXV_WORDS = {"x86_64": 2 * (3 + 20 + 1), "aarch64": 2 * (2 + 20 + 1)}

_EHDR = Struct("<16sHHIQQQIHHHHHH")
_PHDR = Struct("<IIQQQQQQ")
_MASK = 0xFFFFFFFFFFFFFFFF


class Phdr:
    """A program header (struct elf64_phdr)."""

    __slots__ = ("p_align", "p_filesz", "p_flags", "p_memsz", "p_offset", "p_type", "p_vaddr")

    def __init__(self, image: bytes, offset: int) -> None:
        (
            self.p_type,
            self.p_flags,
            self.p_offset,
            self.p_vaddr,
            _,
            self.p_filesz,
            self.p_memsz,
            self.p_align,
        ) = _PHDR.unpack_from(image, offset)


class Elf:
    """An ELF header and its program headers, once loaded."""

    __slots__ = ("e_entry", "e_ident", "e_machine", "e_phentsize", "e_phnum", "e_phoff", "e_type", "phdrs")

    def __init__(self, header: bytes) -> None:
        fields = _EHDR.unpack_from(header.ljust(_EHDR.size, b"\0"))
        self.e_ident: bytes = fields[0]
        self.e_type: int = fields[1]
        self.e_machine: int = fields[2]
        self.e_entry: int = fields[4]
        self.e_phoff: int = fields[5]
        self.e_phentsize: int = fields[9]
        self.e_phnum: int = fields[10]
        self.phdrs: list[Phdr] = []

    def load_phdrs(self, file: Any, min_align: int) -> bool:
        """load_elf_phdrs(): False where the table is refused or cannot be read."""
        if self.e_phentsize != _PHDR.size:
            return False
        size = _PHDR.size * self.e_phnum
        if size == 0 or size > 65536 or size > min_align:
            return False
        try:
            image = elf_read(file, self.e_phoff, size)
        except Errno:
            return False
        self.phdrs = [Phdr(image, offset) for offset in range(0, size, _PHDR.size)]
        return True


def elf_read(file: Any, offset: int, count: int) -> bytes:
    """Exactly `count` bytes. Raises Errno(EIO) when there are fewer, EINVAL for an impossible offset."""
    if offset >> 63:
        raise Errno(errno.EINVAL)
    data: bytes = file.read_at(offset, count)
    if len(data) != count:
        raise Errno(errno.EIO)
    return data


class ElfLoader:
    """One run of load_elf_binary(): its local variables, and a method for each part."""

    def __init__(self, bprm: Bprm) -> None:
        self.bprm = bprm
        self.task: Task = bprm.task
        self.kernel: Kernel = bprm.task.kernel
        arch = self.kernel.system.arch
        self.page_size = arch.page_size
        self.task_size = arch.task_size
        self.elf = Elf(bprm.buf)
        self.interpreter: Any = None
        self.interp_elf: Elf | None = None
        self.load_bias = 0
        self.phdr_addr = 0
        self.elf_bss = self.elf_brk = 0
        self.bss_prot = 0
        self.start_code, self.end_code, self.start_data, self.end_data = _MASK, 0, 0, 0

    # -- arithmetic

    def _start(self, value: int) -> int:
        return value & -self.page_size & _MASK

    def _offset(self, value: int) -> int:
        return value & (self.page_size - 1)

    def _align(self, value: int) -> int:
        return (value + self.page_size - 1) & -self.page_size & _MASK

    def _bad(self, value: int) -> bool:
        return value >= self.task_size

    # -- the whole

    def load(self) -> None:
        """load_elf_binary(). Raises Errno; whether anybody sees it depends on bprm.point_of_no_return."""
        elf = self.elf
        if elf.e_ident[:4] != b"\x7fELF" or elf.e_type not in (ET_EXEC, ET_DYN):
            raise Errno(errno.ENOEXEC)
        if elf.e_machine != self.kernel.arch.elf_machine:
            raise Errno(errno.ENOEXEC)
        if not self.bprm.can_mmap() or not elf.load_phdrs(self.bprm.file, self.page_size):
            raise Errno(errno.ENOEXEC)
        try:
            properties = self._find_interpreter()
            executable_stack = self._stack_flags()
            if self.interp_elf is not None:
                properties = self._check_interpreter(self.interp_elf)
            self._check_properties(properties)
            self.bprm.begin_new_exec()
            self._set_personality()
            self.bprm.setup_new_exec()
            self.bprm.setup_arg_pages(self.kernel.randomize_stack_top(self.task), executable_stack)
            self._map_segments()
            entry = self._set_limits_and_entry()
        finally:
            if self.interpreter is not None:
                self.bprm.close(self.interpreter)
        self.kernel.arch.setup_additional_pages(self.kernel, self.task)
        self._create_elf_tables(entry)
        self._finish()
        self.bprm.start_thread(self.final_entry)

    # -- before the point of no return

    def _find_interpreter(self) -> Phdr | None:
        properties = None
        for phdr in self.elf.phdrs:
            if phdr.p_type == PT_GNU_PROPERTY:
                properties = phdr
            elif phdr.p_type == PT_INTERP:
                if phdr.p_filesz > PATH_MAX or phdr.p_filesz < 2:
                    raise Errno(errno.ENOEXEC)
                name = elf_read(self.bprm.file, phdr.p_offset, phdr.p_filesz)
                if name[-1]:
                    raise Errno(errno.ENOEXEC)
                self.interpreter = self.bprm.open_exec(name.split(b"\0", 1)[0])
                self.interp_elf = Elf(elf_read(self.interpreter, 0, _EHDR.size))
                break
        return properties

    def _stack_flags(self) -> int:
        stack = EXSTACK_DEFAULT
        for phdr in self.elf.phdrs:
            if phdr.p_type == PT_GNU_STACK:
                stack = EXSTACK_ENABLE_X if phdr.p_flags & PF_X else EXSTACK_DISABLE_X
        return stack

    def _check_interpreter(self, interp: Elf) -> Phdr | None:
        if interp.e_ident[:4] != b"\x7fELF" or interp.e_machine != self.kernel.arch.elf_machine:
            raise Errno(ELIBBAD)
        if not interp.load_phdrs(self.interpreter, self.page_size):
            raise Errno(ELIBBAD)
        properties = None
        for phdr in interp.phdrs:
            if phdr.p_type == PT_GNU_PROPERTY:
                properties = phdr
        return properties

    def _check_properties(self, phdr: Phdr | None) -> None:
        """parse_elf_properties(), where the architecture's kernel reads them: their form is checked, BTI is not had."""
        if phdr is None or not self.kernel.arch.uses_gnu_property:
            return
        if phdr.p_filesz > 1024:
            raise Errno(errno.ENOEXEC)
        file = self.interpreter if self.interpreter is not None else self.bprm.file
        note: bytes = b"" if phdr.p_offset >> 63 else file.read_at(phdr.p_offset, phdr.p_filesz)
        if len(note) < 16:
            raise Errno(errno.EIO)
        namesz, descsz, kind = Struct("<III").unpack_from(note)
        if kind != 5 or namesz != 4 or note[12 : 12 + min(4, len(note) - 12)] != b"GNU\0":
            raise Errno(errno.ENOEXEC)
        if descsz > len(note) - 16:
            raise Errno(errno.ENOEXEC)
        offset, end, previous = 16, 16 + descsz, -1
        while offset != end:
            if end - offset < 8:
                raise Errno(errno.ENOEXEC)
            kind, size = Struct("<II").unpack_from(note, offset)
            offset += 8
            if size > end - offset or (size + 7 & ~7) > end - offset or kind <= previous:
                raise Errno(errno.ENOEXEC)
            if kind == 0xC0000000 and size != 4:  # GNU_PROPERTY_AARCH64_FEATURE_1_AND
                raise Errno(errno.ENOEXEC)
            previous = kind
            offset += size + 7 & ~7

    # -- after it

    def _set_personality(self) -> None:
        self.task.personality &= ~READ_IMPLIES_EXEC
        self.task.set_randomize(self.kernel.randomize(self.task))

    def _total_mapping_size(self, phdrs: list[Phdr]) -> int:
        loads = [phdr for phdr in phdrs if phdr.p_type == PT_LOAD]
        if not loads:
            return 0
        end: int = loads[-1].p_vaddr + loads[-1].p_memsz
        return (end - self._start(loads[0].p_vaddr)) & _MASK

    def _maximum_alignment(self, phdrs: list[Phdr]) -> int:
        alignment = 0
        for phdr in phdrs:
            align = phdr.p_align
            if phdr.p_type == PT_LOAD and align and not align & (align - 1):
                alignment = max(alignment, align)
        return self._align(alignment)

    def _elf_map(self, file: Any, address: int, phdr: Phdr, prot: int, flags: int, total: int) -> int:
        """elf_map(): the address it got. Raises Errno as mmap refuses."""
        mm = own_mm(self.task)
        size = (phdr.p_filesz + self._offset(phdr.p_vaddr)) & _MASK
        offset = (phdr.p_offset - self._offset(phdr.p_vaddr)) & _MASK
        address = self._start(address)
        size = self._align(size)
        if not size:
            return address
        if total:
            total = self._align(total)
            mapped = vm_mmap(mm, file, address, total, prot, flags, offset)
            if not self._bad(mapped) and (total - size) & _MASK:
                try:  # noqa: SIM105 - contextlib is not worth its import here
                    do_munmap(mm, (mapped + size) & _MASK, (total - size) & _MASK)
                except Errno:
                    pass  # vm_munmap()'s result is not looked at
            return mapped
        return vm_mmap(mm, file, address, size, prot, flags, offset)

    def _set_brk(self, start: int, end: int, prot: int) -> None:
        """set_brk(): the pages of bss behind the file's, and where brk begins."""
        from mm.brk import vm_brk_flags

        mm = own_mm(self.task)
        start, end = self._align(start), self._align(end)
        if end > start:
            vm_brk_flags(mm, start, end - start, VM_EXEC if prot & PROT_EXEC else 0)
        mm.start_brk = mm.brk = end

    @staticmethod
    def _prot(flags: int) -> int:
        return (
            (PROT_READ if flags & PF_R else 0)
            | (PROT_WRITE if flags & PF_W else 0)
            | (PROT_EXEC if flags & PF_X else 0)
        )

    def _map_segments(self) -> None:
        load_addr_set = False
        elf = self.elf
        for phdr in elf.phdrs:
            if phdr.p_type != PT_LOAD:
                continue
            if self.elf_brk > self.elf_bss:
                self._fill_gap()
            prot = self._prot(phdr.p_flags)
            flags = MAP_PRIVATE | MAP_DENYWRITE | MAP_EXECUTABLE
            total = 0
            if elf.e_type == ET_EXEC or load_addr_set:
                flags |= MAP_FIXED
            else:
                flags |= self._choose_bias(phdr)
                total = self._total_mapping_size(elf.phdrs)
                if not total:
                    raise Errno(errno.EINVAL)
            wanted = (self.load_bias + phdr.p_vaddr) & _MASK
            mapped = self._elf_map(self.bprm.file, wanted, phdr, prot, flags, total)
            if self._bad(mapped):
                raise Errno(errno.EINVAL)
            if not load_addr_set:
                load_addr_set = True
                if elf.e_type == ET_DYN:
                    self.load_bias = (self.load_bias + mapped - self._start(wanted)) & _MASK
            self._note_segment(phdr, prot)

    def _choose_bias(self, phdr: Phdr) -> int:
        """Where a position-independent program goes; the extra mmap flags."""
        flags = 0
        if self.interpreter is not None:
            self.load_bias = self.kernel.system.arch.elf_et_dyn_base
            if self.task.is_randomized():
                self.load_bias += self.kernel.arch_mmap_rnd()
            self.load_bias &= ~(self._maximum_alignment(self.elf.phdrs) - 1)
            flags = MAP_FIXED
        else:
            self.load_bias = 0
        self.load_bias = self._start(self.load_bias - phdr.p_vaddr)
        return flags

    def _fill_gap(self) -> None:
        """A segment with bss came before this one: map and clear it."""
        self._set_brk((self.elf_bss + self.load_bias) & _MASK, (self.elf_brk + self.load_bias) & _MASK, self.bss_prot)
        nbyte = self._offset(self.elf_bss)
        if nbyte:
            nbyte = min(self.page_size - nbyte, self.elf_brk - self.elf_bss)
            # What could not be cleared is not looked at: odd protections are the file's own business.
            clear_user(self.task, (self.elf_bss + self.load_bias) & _MASK, nbyte)

    def _note_segment(self, phdr: Phdr, prot: int) -> None:
        elf = self.elf
        if phdr.p_offset <= elf.e_phoff < (phdr.p_offset + phdr.p_filesz & _MASK):
            self.phdr_addr = elf.e_phoff - phdr.p_offset + phdr.p_vaddr & _MASK
        k = phdr.p_vaddr
        executable = phdr.p_flags & PF_X
        if executable and k < self.start_code:
            self.start_code = k
        self.start_data = max(self.start_data, k)
        if (
            self._bad(k)
            or phdr.p_filesz > phdr.p_memsz
            or phdr.p_memsz > self.task_size
            or self.task_size - phdr.p_memsz < k
        ):
            raise Errno(errno.EINVAL)
        k = phdr.p_vaddr + phdr.p_filesz
        self.elf_bss = max(self.elf_bss, k)
        if executable:
            self.end_code = max(self.end_code, k)
        self.end_data = max(self.end_data, k)
        k = phdr.p_vaddr + phdr.p_memsz
        if k > self.elf_brk:
            self.bss_prot = prot
            self.elf_brk = k

    def _set_limits_and_entry(self) -> int:
        """bss and brk, then the interpreter; e_entry for AT_ENTRY, `final_entry` is where the program starts."""
        bias = self.load_bias
        e_entry = self.elf.e_entry + bias & _MASK
        self.phdr_addr = self.phdr_addr + bias & _MASK
        elf_bss, elf_brk = self.elf_bss + bias & _MASK, self.elf_brk + bias & _MASK
        self._set_brk(elf_bss, elf_brk, self.bss_prot)
        if elf_bss != elf_brk:
            self._padzero(elf_bss)
        self.interp_load_addr = 0
        if self.interp_elf is not None:
            self.interp_load_addr = self._load_elf_interp(self.interp_elf)
            self.final_entry = self.interp_load_addr + self.interp_elf.e_entry & _MASK
        else:
            self.final_entry = e_entry
        if self._bad(self.final_entry):
            raise Errno(errno.EINVAL)
        return e_entry

    def _padzero(self, elf_bss: int) -> None:
        nbyte = self._offset(elf_bss)
        if nbyte and clear_user(self.task, elf_bss, self.page_size - nbyte):
            raise Errno(errno.EFAULT)

    def _load_elf_interp(self, elf: Elf) -> int:
        """load_elf_interp(): where the interpreter was loaded."""
        from mm.brk import vm_brk_flags

        if elf.e_type not in (ET_EXEC, ET_DYN):
            raise Errno(errno.EPERM)  # ~0UL, which is -EPERM
        total = self._total_mapping_size(elf.phdrs)
        if not total:
            raise Errno(errno.EINVAL)
        load_addr = last_bss = elf_bss = bss_prot = 0
        load_addr_set = False
        for phdr in elf.phdrs:
            if phdr.p_type != PT_LOAD:
                continue
            flags = MAP_PRIVATE | MAP_DENYWRITE
            prot = self._prot(phdr.p_flags)
            if elf.e_type == ET_EXEC or load_addr_set:
                flags |= MAP_FIXED
            elif self.load_bias:
                load_addr = -phdr.p_vaddr & _MASK
            mapped = self._elf_map(self.interpreter, load_addr + phdr.p_vaddr & _MASK, phdr, prot, flags, total)
            total = 0
            if self._bad(mapped):
                raise Errno(errno.EINVAL)
            if not load_addr_set and elf.e_type == ET_DYN:
                load_addr = mapped - self._start(phdr.p_vaddr) & _MASK
                load_addr_set = True
            k = load_addr + phdr.p_vaddr & _MASK
            if (
                self._bad(k)
                or phdr.p_filesz > phdr.p_memsz
                or phdr.p_memsz > self.task_size
                or self.task_size - phdr.p_memsz < k
            ):
                raise Errno(errno.ENOMEM)
            elf_bss = max(elf_bss, k + phdr.p_filesz)
            if k + phdr.p_memsz > last_bss:
                last_bss = k + phdr.p_memsz
                bss_prot = prot
        self._padzero(elf_bss)
        elf_bss, last_bss = self._align(elf_bss), self._align(last_bss)
        if last_bss > elf_bss:
            mm = own_mm(self.task)
            vm_brk_flags(mm, elf_bss, last_bss - elf_bss, VM_EXEC if bss_prot & PROT_EXEC else 0)
        return load_addr

    # -- the stack

    def _create_elf_tables(self, e_entry: int) -> None:
        """create_elf_tables(): strings of the kernel's own, then argc, argv, envp and the auxiliary vector."""
        bprm, task, kernel = self.bprm, self.task, self.kernel
        mm = own_mm(task)
        p = kernel.arch.align_stack(kernel, task, bprm.p)
        p -= len(kernel.arch.elf_platform)
        platform = p
        copy_to_user(task, p, kernel.arch.elf_platform)
        p -= 16
        copy_to_user(task, p, kernel.rng.randbytes(16))
        auxv = self._auxv(e_entry, p, platform)
        mm.saved_auxv = auxv + [0] * (SAVED_AUXV_WORDS[kernel.arch.name] - len(auxv))
        on_stack = len(auxv) + 2
        sp = p - 8 * on_stack
        items = (bprm.argc + 1) + (bprm.envc + 1) + 1
        sp = (sp - 8 * items) & ~15
        bprm.p = sp
        if find_extend_vma(mm, sp) is None:
            raise Errno(errno.EFAULT)
        put_user(task, sp, bprm.argc, 8)
        sp += 8
        address = mm.arg_end = mm.arg_start
        sp, address = self._pointers(sp, address, bprm.argc)
        mm.arg_end = address
        mm.env_end = mm.env_start = address
        sp, address = self._pointers(sp, address, bprm.envc)
        mm.env_end = address
        copy_to_user(task, sp, Struct(f"<{on_stack}Q").pack(*auxv, 0, 0))

    def _auxv(self, e_entry: int, random_bytes: int, platform: int) -> list[int]:
        kernel, bprm, cred = self.kernel, self.bprm, self.task.cred
        mm = own_mm(self.task)
        arch = kernel.arch
        auxv = arch.arch_dlinfo(mm)
        auxv += [16, arch.hwcap, 6, self.page_size, 17, 100, 3, self.phdr_addr, 4, _PHDR.size, 5, self.elf.e_phnum]
        auxv += [7, self.interp_load_addr, 8, 0, 9, e_entry, 11, cred.uid, 12, cred.euid, 13, cred.gid, 14, cred.egid]
        auxv += [23, int(bprm.secureexec), 25, random_bytes]
        auxv += arch.hwcap2_entries()
        auxv += [31, bprm.exec, 15, platform]
        return auxv

    def _pointers(self, sp: int, address: int, count: int) -> tuple[int, int]:
        """An argv or envp array: pointers to the strings from `address` on, and a null."""
        task = self.task
        for _ in range(count):
            put_user(task, sp, address, 8)
            sp += 8
            try:
                address += len(strncpy_from_user(task, address, 32 * self.page_size)) + 1
            except Errno:
                raise Errno(errno.EINVAL) from None
        put_user(task, sp, 0, 8)
        return sp + 8, address

    def _finish(self) -> None:
        """The end of load_elf_binary(): what /proc shows, randomised brk, page zero."""
        task, kernel, bias = self.task, self.kernel, self.load_bias
        mm = own_mm(task)
        mm.end_code = self.end_code + bias & _MASK
        mm.start_code = self.start_code + bias & _MASK
        mm.start_data = self.start_data + bias & _MASK
        mm.end_data = self.end_data + bias & _MASK
        mm.start_stack = self.bprm.p
        if task.is_randomized() and kernel.randomize_va_space > 1:
            if self.elf.e_type == ET_DYN and self.interpreter is None:
                mm.brk = mm.start_brk = mm.arch.elf_et_dyn_base
            mm.brk = mm.start_brk = kernel.randomize_page(mm.brk, DEFAULT_MAP_PAGES)
        if task.personality & MMAP_PAGE_ZERO:
            try:  # noqa: SIM105 - contextlib is not worth its import here
                vm_mmap(mm, None, 0, self.page_size, PROT_READ | PROT_EXEC, MAP_FIXED | MAP_PRIVATE, 0)
            except Errno:
                pass  # its result is not looked at
