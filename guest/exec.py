"""execve: from a path and two vectors to a new address space (fs/exec.c, fs/binfmt_script.c).

The new mm is built beside the old one: the strings go to a temporary stack at the very top, a binary format recognises
the file, and only `begin_new_exec` exchanges the two. Before it an error goes back to the caller; after it there is no
caller to go back to, and the task dies of SIGSEGV.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.events import Exec
from guest.own_mm import own_mm
from guest.siginfo import SIG_IGN, SIGCHLD, SIGSEGV
from guest.signal import force_sigsegv
from guest.task import PF_FORKNOEXEC, PF_RANDOMIZE, Task
from guest.vfs_types import MNT_NOSUID
from mm.errors import Errno, KernelBug
from mm.flags import ADDR_NO_RANDOMIZE, MMAP_PAGE_ZERO, READ_IMPLIES_EXEC, RLIMIT_STACK
from mm.uaccess import get_user, strncpy_from_user

if TYPE_CHECKING:
    from mm.types import MmStruct, Page, VmAreaStruct

BINPRM_BUF_SIZE = 256
MAX_ARG_STRINGS = 0x7FFFFFFF
ARG_MAX = 131072
STK_LIM = 8 << 20
PER_CLEAR_ON_SETID = READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | 0x0200000 | MMAP_PAGE_ZERO
SUID_DUMP_DISABLE, SUID_DUMP_USER = 0, 1


class Bprm:
    """An exec in progress (struct linux_binprm)."""

    def __init__(self, task: Task, filename: bytes) -> None:
        self.task = task
        self.filename = filename
        self.interp = filename  # of the file now loaded: the interpreter of a script
        self.file: Any = None
        self.buf = b""
        self.argc = self.envc = 0
        self.p = 0  # next byte below the strings
        self.exec = 0  # address of the file name
        self.argmin = 0
        self.mm: MmStruct | None = None  # until begin_new_exec()
        self.vma: VmAreaStruct | None = None
        self.cred = task.cred.copy()
        self.secureexec = False
        self.per_clear = 0
        self.enforce_nondump = False
        self.point_of_no_return = False
        self.path_inaccessible = False
        self.rlim_stack = list(task.rlim[RLIMIT_STACK])

    # -- the temporary stack

    def mm_init(self) -> None:
        """bprm_mm_init(): a new address space with nothing but a stack of one page."""
        from mm.exec_stack import bprm_stack
        from mm.fork import mm_alloc

        self.mm = mm_alloc(self.task.system)
        self.vma = bprm_stack(self.mm)
        self.p = self.vma.vm_end - 8

    def _new_mm(self) -> MmStruct:
        """The address space being built, before the task has it."""
        if self.mm is None:
            raise KernelBug("the new address space is gone already")
        return self.mm

    def stack_limits(self) -> None:
        """bprm_stack_limits(): strings and pointers get a quarter of the stack, and never more than 6 MiB."""
        limit = max(min(STK_LIM // 4 * 3, self.rlim_stack[0] // 4), ARG_MAX)
        pointers = (max(self.argc, 1) + self.envc) * 8
        if limit <= pointers:
            raise Errno(errno.E2BIG)
        self.argmin = self.p - (limit - pointers)

    def copy_string(self, string: bytes) -> None:
        """copy_string_kernel(): `string` and its NUL below what is there. Raises Errno(E2BIG)."""
        data = string + b"\0"
        mm = self._new_mm()
        page_size = mm.arch.page_size
        if len(data) > 32 * page_size:
            raise Errno(errno.E2BIG)
        end = self.p
        self.p -= len(data)
        if self.p < self.argmin:
            raise Errno(errno.E2BIG)
        ram = mm.system.ram
        left = len(data)
        while left:
            count = min(left, (end & (page_size - 1)) or page_size)
            end -= count
            left -= count
            start = self._arg_page(end) + (end & (page_size - 1))
            ram[start : start + count] = data[left : left + count]

    def _arg_page(self, address: int, write: bool = True) -> int:
        """get_arg_page(): physical address of the stack page at `address`, faulted in. Raises Errno(E2BIG)."""
        from mm.gup import FOLL_FORCE, FOLL_REMOTE, FOLL_WRITE, get_user_pages
        from mm.page_alloc import put_page

        mm = self._new_mm()
        pages: list[Page] = []
        flags = FOLL_FORCE | FOLL_REMOTE | (FOLL_WRITE if write else 0)
        try:
            get_user_pages(mm, address & mm.arch.page_mask, 1, flags, pages)
        except Errno:
            raise Errno(errno.E2BIG if write else errno.EFAULT) from None
        put_page(mm.system, pages[0])  # the page table keeps it
        return pages[0].pfn << mm.arch.page_shift

    def remove_arg_zero(self) -> None:
        """Argv[0] of a script makes room for its interpreter."""
        mm = self._new_mm()
        if not self.argc:
            return
        page_size = mm.arch.page_size
        while True:
            offset = self.p & (page_size - 1)
            base = self._arg_page(self.p, False)
            page = bytes(mm.system.ram[base + offset : base + page_size])
            length = page.find(b"\0")
            if length >= 0:
                self.p += length
                break
            self.p += page_size - offset
        self.p += 1
        self.argc -= 1

    # -- what the formats ask for

    def open_exec(self, name: bytes) -> Any:
        """A file to be executed, writers denied. An empty name is the working directory, which nobody executes."""
        if not name:
            raise Errno(errno.EACCES)
        return self.task.kernel.vfs.open_exec(self.task, name)

    def close(self, file: Any) -> None:
        """allow_write_access() and fput()."""
        file.allow_write_access()
        from mm.util import fput

        fput(file)

    def can_mmap(self) -> bool:
        """Whether the file system can map its files at all."""
        return bool(self.file.can_mmap)

    def begin_new_exec(self) -> None:
        """The point of no return. The old address space, handlers and threads go."""
        task = self.task
        self._creds_from_file()
        self.point_of_no_return = True
        from guest.exit import de_thread, exec_mm_release
        from mm.util import get_file

        de_thread(task)
        if task.files.count > 1:
            shared, task.files = task.files, task.files.copy()
            shared.count -= 1
        mm = self._new_mm()
        mm.exe_file = get_file(self.file)  # what denies writing to it are its areas (VM_DENYWRITE)
        self._exec_mmap(mm, exec_mm_release)
        task.kernel.timers.drop_posix(task.signal)
        if task.sighand.count > 1:
            task.sighand.count -= 1
            task.sighand = task.sighand.copy()
        task.flags &= ~(PF_RANDOMIZE | PF_FORKNOEXEC)
        task.did_exec = True
        if task.perf_events:
            from guest.perf import exec_enables

            exec_enables(task)
        task.personality &= ~self.per_clear
        task.files.close_on_exec(task)
        cred = self.cred
        if self.secureexec:
            task.pdeath_signal = 0
            self.rlim_stack[0] = min(self.rlim_stack[0], STK_LIM)
        task.sas_ss_sp = task.sas_ss_size = 0
        old = task.cred
        plain = not self.enforce_nondump and old.euid == old.uid and old.egid == old.gid
        mm.flags = mm.flags & ~3 | (SUID_DUMP_USER if plain else SUID_DUMP_DISABLE)
        task.comm = self.filename.rsplit(b"/", 1)[-1][:15].decode("latin-1")
        task.self_exec_id += 1
        for action in task.sighand.action:
            if action.handler != SIG_IGN:
                action.handler = 0
            action.flags = action.restorer = action.mask = 0
        self._commit_creds(cred, old)

    def _exec_mmap(self, mm: MmStruct, exec_mm_release: Any) -> None:
        """exec_mmap(): the task moves to the new address space, the old one loses a user."""
        from mm.fork import mmput
        from mm.memory_rss import sync_mm_rss

        task = self.task
        old = task.mm
        exec_mm_release(task)
        if old is not None:
            sync_mm_rss(task)
        task.mm = mm
        self.mm = None
        mm.vmacache_seqnum = 0
        task.vmacache = [None, None, None, None]
        if old is not None:
            task.signal.maxrss = max(task.signal.maxrss, old.hiwater_rss, sum(old.rss_stat[i] for i in (0, 1, 3)))
            mmput(old)

    def _creds_from_file(self) -> None:
        """bprm_creds_from_file() and cap_bprm_creds_from_file(): set-id bits, and what root gains."""
        task, cred, file = self.task, self.cred, self.file
        inode = file.f_inode
        mode = inode.i_mode
        if not task.no_new_privs and not file.f_path.mnt.mnt_flags & MNT_NOSUID:
            if mode & 0o4000:
                self.per_clear |= PER_CLEAR_ON_SETID
                cred.euid = inode.i_uid
            if mode & 0o2010 == 0o2010:
                self.per_clear |= PER_CLEAR_ON_SETID
                cred.egid = inode.i_gid
        old = task.cred
        root = not cred.securebits & 1
        if root and (cred.euid == 0 or cred.uid == 0):
            cred.cap_permitted = cred.cap_bset | old.cap_inheritable
            effective = cred.euid == 0
        else:
            cred.cap_permitted = 0
            effective = False
        is_setid = cred.euid != old.uid or cred.egid != old.gid
        if is_setid:
            cred.cap_ambient = 0
        cred.suid = cred.fsuid = cred.euid
        cred.sgid = cred.fsgid = cred.egid
        cred.cap_permitted |= cred.cap_ambient
        cred.cap_effective = cred.cap_permitted if effective else cred.cap_ambient
        cred.securebits &= ~(1 << 4)
        if is_setid or (cred.uid != 0 and effective):
            self.secureexec = True

    def _commit_creds(self, cred: Any, old: Any) -> None:
        task = self.task
        if (old.euid, old.egid, old.fsuid, old.fsgid) != (cred.euid, cred.egid, cred.fsuid, cred.fsgid):
            if task.mm is not None:
                task.mm.flags &= ~3
            task.pdeath_signal = 0
        task.cred = cred
        task.kernel.capset_mm(task)

    def setup_new_exec(self) -> None:
        """Choose the layout of the address space."""
        task = self.task
        mm = own_mm(task)
        rnd = task.kernel.arch_mmap_rnd() if task.is_randomized() else 0
        mm.arch.arch_pick_mmap_layout(mm, self.rlim_stack[0], rnd)
        mm.task_size = mm.arch.task_size

    def setup_arg_pages(self, stack_top: int, executable_stack: int) -> None:
        """The stack to its place, with its permissions and some room."""
        from mm.exec_stack import setup_arg_pages

        task = self.task
        mm = own_mm(task)
        vma = self.vma
        if vma is None:
            raise KernelBug("exec without a stack", mm)
        stack_top = task.kernel.arch.align_stack(task.kernel, task, stack_top)
        before = self.p
        self.p = setup_arg_pages(mm, vma, before, stack_top, executable_stack, self.rlim_stack[0])
        self.exec -= before - self.p

    def start_thread(self, entry: int) -> None:
        """As the kernel's."""
        task = self.task
        task.rlim[RLIMIT_STACK] = self.rlim_stack
        task.kernel.arch.start_thread(task.kernel, entry, self.p)
        task.trap_nr = task.error_code = task.cr2 = task.fault_address = task.fault_code = 0
        task.robust_list = 0
        if task.debug_slots:
            from guest.ptrace_call import flush_hw_breakpoints

            flush_hw_breakpoints(task)
        task.clear_child_tid = 0
        self.entry = entry


def count_strings(task: Task, vector: int) -> int:
    """count(): pointers before the null. Raises Errno(EFAULT)."""
    if not vector:
        return 0
    number = 0
    while get_user(task, vector + 8 * number, 8):
        number += 1
    return number


def _copy_strings(bprm: Bprm, vector: int, count: int) -> None:
    """copy_strings(): from the old address space, last string first. Raises Errno(EFAULT), E2BIG."""
    task = bprm.task
    limit = 32 * task.system.arch.page_size
    for index in range(count - 1, -1, -1):
        address = get_user(task, vector + 8 * index, 8)
        try:
            string = strncpy_from_user(task, address, limit + 1)
        except Errno as e:
            raise Errno(errno.E2BIG if e.number == errno.ENAMETOOLONG else errno.EFAULT) from None
        if len(string) + 1 > limit:
            raise Errno(errno.E2BIG)
        bprm.copy_string(string)


def do_execve(task: Task, filename: bytes, argv: list[bytes], envp: list[bytes]) -> int:
    """kernel_execve(): vectors that are already here."""
    bprm = Bprm(task, filename)

    def strings() -> None:
        for string in reversed(envp):
            bprm.copy_string(string)
        for string in reversed(argv):
            bprm.copy_string(string)

    bprm.argc, bprm.envc = len(argv), len(envp)
    return _execve(bprm, strings, lambda: task.kernel.vfs.open_exec(task, filename))


def do_execveat(task: Task, filename: bytes, argv: int, envp: int, open_file: Any, fdpath: bool) -> int:
    """do_execveat_common(): `argv` and `envp` are user addresses; `open_file` opens what is to be executed."""
    bprm = Bprm(task, filename)
    bprm.path_inaccessible = fdpath

    def strings() -> None:
        _copy_strings(bprm, envp, bprm.envc)
        _copy_strings(bprm, argv, bprm.argc)

    def count() -> None:
        bprm.argc = count_strings(task, argv)
        bprm.envc = count_strings(task, envp)

    return _execve(bprm, strings, open_file, count)


def _execve(bprm: Bprm, strings: Any, open_file: Any, count: Any = None) -> int:
    """The part both share. Raises Errno before the point of no return; after it the task gets SIGSEGV."""
    from mm.fork import mmput

    task = bprm.task
    old_pid = task.vnr(task.pid) if task.tracer is None else task.tracer.vnr(task.pid)
    argv: list[str] = []
    try:
        bprm.mm_init()
        if count is not None:
            count()
        bprm.stack_limits()
        bprm.copy_string(bprm.filename)
        bprm.exec = bprm.p
        strings()
        if bprm.argc == 0:
            bprm.copy_string(b"")
            bprm.argc = 1
        bprm.file = open_file()
        try:
            _exec_binprm(bprm)
        except Errno as e:
            if bprm.point_of_no_return and not task.fatal_signal_pending():
                force_sigsegv(task, SIGSEGV)
            raise e
    finally:
        if bprm.mm is not None:
            mmput(bprm.mm)
        if bprm.file is not None:
            bprm.close(bprm.file)
    task.exit_signal = SIGCHLD
    if task.ptrace:
        from guest.ptrace import exec_event

        exec_event(task, old_pid)
    task.kernel.need_resched = True
    if task.system.listener is not None:
        argv = _show_argv(task)
        path = bprm.filename.decode("utf-8", "replace")
        task.system.listener(Exec(task.pid, path, argv, bprm.entry, bprm.p, own_mm(task).pgd))
    return 0


def _show_argv(task: Task) -> list[str]:
    from mm.uaccess import access_process_vm

    mm = own_mm(task)
    data = access_process_vm(mm, mm.arg_start, mm.arg_end - mm.arg_start)
    return [part.decode("utf-8", "replace") for part in data.split(b"\0")[:-1]]


def _exec_binprm(bprm: Bprm) -> None:
    """exec_binprm(): find a format; a script replaces the file and starts over, five times at most."""
    depth = 0
    while True:
        if depth > 5:
            raise Errno(errno.ELOOP)
        bprm.buf = bprm.file.read_at(0, BINPRM_BUF_SIZE).ljust(BINPRM_BUF_SIZE, b"\0")
        interpreter = _load_script(bprm) if bprm.buf[:2] == b"#!" else None
        if interpreter is None:
            from guest.elf import ElfLoader

            ElfLoader(bprm).load()
            return
        old, bprm.file = bprm.file, interpreter
        bprm.close(old)
        depth += 1


def _load_script(bprm: Bprm) -> Any:
    """load_script(): the opened interpreter of a #! line. Raises Errno(ENOEXEC) for a line that names none."""
    line = bprm.buf
    end = line.find(b"\n")
    if end < 0:
        rest = line[2:].lstrip(b" \t")
        if not rest:
            raise Errno(errno.ENOEXEC)
        if not any(byte in rest for byte in b" \t\0"):
            raise Errno(errno.ENOEXEC)
        end = len(line) - 1
    words = line[2:end].rstrip(b" \t").lstrip(b" \t")
    cut = len(words)
    for i, byte in enumerate(words):
        if byte in b" \t\0":
            cut = i
            break
    name = words[:cut]
    if not name:
        raise Errno(errno.ENOEXEC)
    argument = b""
    if cut < len(words) and words[cut : cut + 1] != b"\0":
        argument = words[cut:].lstrip(b" \t").split(b"\0", 1)[0]
    if bprm.path_inaccessible:
        raise Errno(errno.ENOENT)
    bprm.remove_arg_zero()
    bprm.copy_string(bprm.interp)
    bprm.argc += 1
    if argument:
        bprm.copy_string(argument)
        bprm.argc += 1
    bprm.copy_string(name)
    bprm.argc += 1
    bprm.interp = name
    return bprm.open_exec(name)
