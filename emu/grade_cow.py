"""Exercise cow: do_wp_page, which serves a write to a read-only entry by reusing the frame or by copying it.

A `Scene` prepares real page tables and frames on a machine without CPU, calls the handler once, and takes a picture of
everything it may have changed, as words. The same scene is played with our handler and with the student's, and each
step compares the words its title is about, on three geometries.
"""

from __future__ import annotations

import mmap as host_mmap
from typing import TYPE_CHECKING, Any

from emu import grade_programs
from emu.draw_pagetables import decoder_of
from emu.grade_world import Student, Wrong, make_geometry
from emu.judge import said
from mm.flags import (
    FAULT_FLAG_USER,
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PG_DIRTY,
    PROT_READ,
    PROT_WRITE,
    VM_FAULT_OOM,
    VM_FAULT_WRITE,
)
from mm.fork import dup_mm, mm_alloc, mmput
from mm.mlock import mlock
from mm.mmap import vm_mmap_pgoff
from mm.mprotect import do_mprotect_pkey
from mm.page_alloc import alloc_pfn
from mm.pgtable import pte_offset
from mm.shmem import shmem_file_setup, shmem_write
from mm.system import System
from mm.types import MmStruct, TaskStruct
from mm.uaccess import access_process_vm, copy_to_user, get_user

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS = ("do_wp_page",)
PROGRAMS = ("cow", "faults")
GEOMETRIES = ("x86_64-4k", "aarch64-4k", "aarch64-64k")
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
OLD = b"before the write"
USER_WRITE = FAULT_FLAG_USER | FAULT_FLAG_WRITE
RESULTS = {VM_FAULT_WRITE: "VM_FAULT_WRITE", VM_FAULT_OOM: "VM_FAULT_OOM"}
Words = dict[str, str]


class Scene:
    """A task with one area of two pages, about to write to the first.

    Attributes:
        story: what was done, line by line, for the drawing.
    """

    def __init__(self, geometry: str) -> None:
        arch = make_geometry(geometry)
        self.system = System(arch, memoryview(host_mmap.mmap(-1, 96 * arch.page_size)))
        self.page = arch.page_size
        self.task = self._task()
        self.system.current = self.task
        self.mm: MmStruct = mm_alloc(self.system)
        self.task.mm = self.mm
        arch.arch_pick_mmap_layout(self.mm, 8 << 20, 0)
        self.flags = USER_WRITE
        self.story = [f"  on {geometry}"]
        self.other: MmStruct | None = None
        self.file: Any = None

    def _task(self) -> TaskStruct:
        task = TaskStruct(self.system)
        task.rlim = [[2**64 - 1] * 2 for _ in range(16)]
        return task

    def anonymous(self) -> None:
        """Private memory, written once."""
        self.address = vm_mmap_pgoff(self.mm, None, 0, 2 * self.page, RW, ANON, 0)
        copy_to_user(self.task, self.address, OLD)
        self.story.append(f"  mmap 2 pages, private and anonymous; write {OLD.decode()!r} to the first")

    def fork(self) -> None:
        """A child that shares every page."""
        child = self._task()
        self.other = child.mm = dup_mm(child, self.mm)
        self.story.append("  fork: the child has the same frames, read-only in both")

    def protect(self) -> None:
        """PROT_READ and back: the entry stays read-only until it is written to."""
        do_mprotect_pkey(self.mm, self.address, self.page, PROT_READ)
        do_mprotect_pkey(self.mm, self.address, self.page, RW)
        self.story.append("  mprotect to read-only and back")

    def mapped_file(self, flags: int) -> None:
        """A page of a file, read."""
        self.file = shmem_file_setup(self.system, "file", 2 * self.page, 0)
        shmem_write(self.file.f_mapping, 0, OLD)
        self.file.f_mapping.pages[0].flags &= ~PG_DIRTY
        self.address = vm_mmap_pgoff(self.mm, self.file, 0, 2 * self.page, RW, flags, 0)
        get_user(self.task, self.address, 1)
        index = pte_offset(self.mm, self.address)
        self.system.words[index] = self.system.arch.pte_wrprotect(self.system.words[index])
        kind = "shared" if flags & MAP_SHARED else "private"
        self.story.append(f"  mmap a file, {kind}, and read its first page: its entry is read-only")

    def play(self, handler: Callable[..., Any]) -> Words:
        """The write; everything that can be seen afterwards."""
        mm, system, arch = self.mm, self.system, self.system.arch
        vma = next(vma for vma in _areas(mm) if vma.vm_start <= self.address < vma.vm_end)
        index = pte_offset(mm, self.address)
        pte = system.words[index]
        old_pfn = arch.pte_pfn(pte)
        free = system.nr_free_pages()
        mm.tlb_flush_pending = False
        before = _users(system, old_pfn)
        answer = handler(vma, mm, self.address, self.flags, index, pte)
        new = system.words[index]
        pfn = arch.pte_pfn(new)
        rss = [mm.rss_stat[i] + self.task.rss_stat[i] for i in range(4)]
        page = system.mem_map.peek(pfn)
        owner = getattr(page, "mapping", None)
        entry = " ".join(decoder_of(arch.name).decode(new, True, False)) or "empty"
        words = {
            "the answer": RESULTS.get(answer, said(answer)),
            "frame mapped now": "the same" if pfn == old_pfn else "another",
            "writable": "yes" if arch.pte_write(new) else "no",
            "what the page holds": self._text(pfn),
            "what the old frame holds": self._text(old_pfn),
            "users of the old frame": f"{before} before, {_users(system, old_pfn)} after",
            "users of the new frame": str(_users(system, pfn)) if pfn != old_pfn else "-",
            "owner of the page": "the area's anon_vma"
            if owner is not None and owner is vma.anon_vma
            else "a file or nobody",
            "offset of the page": str(getattr(page, "index", None)),
            "rss [file anon swap shmem]": str(rss),
            "frames taken": str(free - system.nr_free_pages()),
            "bits of the entry": entry,
            "tlb_flush_pending": str(mm.tlb_flush_pending),
            "mlocked pages": f"{system.nr_mlock}, flags of the page {getattr(page, 'flags', 0):#x}",
            "dirty file page": str(bool(self.file and self.file.f_mapping.pages[0].flags & PG_DIRTY)),
        }
        if self.other is not None:
            words["what the child reads"] = str(access_process_vm(self.other, self.address, len(OLD)))
        return words

    def _text(self, pfn: int) -> str:
        start = pfn * self.page
        data = bytes(self.system.ram[start : start + self.page])
        used = data.rstrip(b"\0")
        return repr(used.decode("latin-1")) if len(used) < 40 else f"{len(used)} bytes that do not belong there"


def _areas(mm: MmStruct) -> Any:
    vma = mm.mmap
    while vma is not None:
        yield vma
        vma = vma.vm_next


def _users(system: System, pfn: int) -> str:
    page = system.mem_map.peek(pfn)
    return "free" if page is None else f"refcount {page.refcount} mapcount {page.mapcount}"


def _compare(student: Student, stage: Callable[[Scene], None], aspects: str, why: str) -> None:
    """Play a scene twice on each geometry; compare these aspects (comma separated).

    Raises:
        Wrong: with the story and every aspect that differs.
    """
    for geometry in GEOMETRIES:
        ours, yours = Scene(geometry), Scene(geometry)
        stage(ours)
        stage(yours)
        story = "\n".join([*yours.story, "  a write to the page faults"])
        expected = ours.play(ours.system.mm_ops.do_wp_page)
        got = yours.play(lambda *words, s=story: student.call("do_wp_page", *words, shown=lambda: s)[0])
        lines = []
        for aspect in (name for name in expected if name in aspects.split(", ")):
            if expected[aspect] != got[aspect]:
                lines += [f"  {aspect}", f"    expected  {expected[aspect]}", f"    got       {got[aspect]}"]
        if lines:
            raise Wrong(why, story, *lines)


def reuse(student: Student) -> str:
    """One user: no copy."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.protect()

    why = (
        "The page has one user, this entry, so nobody else can see the write: make the entry writable, take no"
        " frame. Copying would be right for the program, and waste a frame and the time of a copy."
    )
    _compare(student, stage, "the answer, frame mapped now, writable, what the page holds, frames taken", why)
    return "no frame is taken"


def copy(student: Student) -> str:
    """Shared by fork: copy."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()

    why = (
        "Two processes map this frame (refcount 2): a write in one must not be seen in the other. Take a frame, copy"
        " the whole page, map the copy."
    )
    aspects = (
        "the answer, frame mapped now, writable, what the page holds, what the old frame holds, what the child reads"
    )
    _compare(student, stage, aspects, why)
    return "the other side keeps its page"


def last(student: Student) -> str:
    """The other side has gone: reuse again."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()
        if scene.other is not None:
            mmput(scene.other)
            scene.other = None
        scene.story.append("  the child exits")

    why = "The child is gone and its reference with it: the page has one user again, and is reused."
    _compare(student, stage, "the answer, frame mapped now, writable, frames taken", why)
    return "reused"


def counts(student: Student) -> str:
    """References, rss, owner of the copy."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()

    why = (
        "After a copy the old frame has one reference and one mapping fewer (page_remove_rmap, put_page), the new one"
        " has one of each and belongs to vma.anon_vma at linear_page_index(vma, address) (page_add_new_anon_rmap)."
    )
    aspects = (
        "users of the old frame, users of the new frame, owner of the page, offset of the page, frames taken,"
        " rss [file anon swap shmem]"
    )
    _compare(student, stage, aspects, why)
    return "no reference lost or kept"


def zero(student: Student) -> str:
    """The zero page."""

    def stage(scene: Scene) -> None:
        scene.address = vm_mmap_pgoff(scene.mm, None, 0, 2 * scene.page, RW, ANON, 0)
        get_user(scene.task, scene.address, 8)
        scene.story.append("  mmap 2 pages, private and anonymous; read the first: the shared zero page is mapped")

    why = (
        "The zero page is everybody's: never make it writable, never count its users. The entry gets a zeroed frame of"
        " its own, and that is one anonymous page more for rss."
    )
    aspects = (
        "the answer, frame mapped now, writable, what the page holds, users of the new frame, owner of the page,"
        " rss [file anon swap shmem], frames taken"
    )
    _compare(student, stage, aspects, why)
    return "a frame of its own"


def private_file(student: Student) -> str:
    """A private mapping of a file."""
    why = (
        "A private mapping of a file: the file must not change. The copy is an anonymous page, so rss has one page"
        " fewer of the file's kind (mm_counter_file) and one anonymous page more; the file's own page stays the file's."
    )
    aspects = (
        "the answer, frame mapped now, writable, what the page holds, what the old frame holds, users of the old frame,"
        " owner of the page, rss [file anon swap shmem]"
    )
    _compare(student, lambda scene: scene.mapped_file(MAP_PRIVATE), aspects, why)
    return "the file is untouched"


def shared_file(student: Student) -> str:
    """A shared mapping of a file."""
    why = (
        "A shared mapping: the write belongs to the file, so the frame is the same for everybody, never copied, however"
        " many users it has; wp_page_shared() does it, and the file's page becomes dirty."
    )
    aspects = "the answer, frame mapped now, writable, frames taken, dirty file page"
    _compare(student, lambda scene: scene.mapped_file(MAP_SHARED), aspects, why)
    return "written in place"


def entry(student: Student) -> str:
    """Bits of the entry, in reuse and copy; an area that may not be written to."""

    def reused(scene: Scene) -> None:
        scene.anonymous()
        scene.protect()
        index = pte_offset(scene.mm, scene.address)
        arch = scene.system.arch
        clean = arch.pte_clear_soft_dirty(arch.pte_mkclean(arch.pte_mkold(scene.system.words[index])))
        scene.system.words[index] = clean
        scene.story.append("  clear accessed, dirty and soft-dirty in the entry")

    def copied(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()

    why = (
        "The entry of a page about to be written is young and dirty: pte_mkyoung and pte_mkdirty (which sets soft-dirty"
        " too, where there is one), then pte_mkwrite; a copy starts from mk_pte(pfn, vma.vm_page_prot)."
    )
    _compare(student, reused, "bits of the entry", why)
    _compare(student, copied, "bits of the entry", why)

    def forced(scene: Scene) -> None:
        copied(scene)
        do_mprotect_pkey(scene.mm, scene.address, 2 * scene.page, PROT_READ)
        scene.flags = FAULT_FLAG_WRITE
        scene.story.append("  mprotect to read-only; a debugger writes through /proc/PID/mem")

    reason = "Only where vma.vm_flags has VM_WRITE does the entry become writable: a debugger may write to a page"
    _compare(student, forced, "writable, frame mapped now", reason + " that the program may not.")
    return "young, dirty, writable where the area is"


def flush(student: Student) -> str:
    """The kernel's own write."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()
        scene.flags = FAULT_FLAG_WRITE
        scene.story.append("  the kernel itself writes there, for read() (no FAULT_FLAG_USER)")

    why = (
        "The CPU may have the old translation in its TLB. A fault of the user's own drops that one entry; when the"
        " kernel wrote for the user (no FAULT_FLAG_USER) it stays, so mm.tlb_flush_pending must be set, or the user"
        " goes on reading the old frame."
    )
    _compare(student, stage, "tlb_flush_pending", why)
    return "flushed where it must be"


def out_of_memory(student: Student) -> str:
    """No frame."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()
        while alloc_pfn(scene.system, False) >= 0:
            pass
        scene.story.append("  take every free frame")

    why = "Without a frame the answer is VM_FAULT_OOM, and nothing has changed."
    aspects = "the answer, frame mapped now, writable, users of the old frame, rss [file anon swap shmem]"
    _compare(student, stage, aspects, why)
    return "VM_FAULT_OOM, nothing changed"


def locked(student: Student) -> str:
    """An mlocked area."""

    def stage(scene: Scene) -> None:
        scene.anonymous()
        scene.fork()
        mlock(scene.mm, scene.address, scene.page)
        child = scene._task()
        scene.other = child.mm = dup_mm(child, scene.mm)
        scene.story.append("  mlock the page, fork again")

    why = (
        "In an area with VM_LOCKED the new page is mlocked (page_add_new_anon_rmap does it), and the old one is let go."
    )
    _compare(student, stage, "mlocked pages", why)
    return "the lock moves along"


STEPS = (
    ("reuse", "one user: reuse the frame, take none", 10, reuse),
    ("copy", "shared by fork: copy, the other side sees nothing", 15, copy),
    ("last", "the last user reuses", 5, last),
    ("counts", "references, owner and rss of a copy", 10, counts),
    ("zero", "the zero page", 10, zero),
    ("private", "private mapping of a file", 10, private_file),
    ("shared", "shared mapping of a file", 5, shared_file),
    ("entry", "young, dirty, soft-dirty, writable", 10, entry),
    ("flush", "the TLB after a write by the kernel", 5, flush),
    ("oom", "no frame left", 3, out_of_memory),
    ("locked", "mlocked areas", 2, locked),
    ("x86_64", "agrees on real programs, x86-64", 3, lambda s: grade_programs.agrees(s, "x86_64", PROGRAMS)),
    ("aarch64", "agrees on real programs, arm64", 3, lambda s: grade_programs.agrees(s, "aarch64", PROGRAMS)),
    ("check", "real programs keep every invariant (--check 2)", 4, lambda s: grade_programs.check(s, PROGRAMS)),
)
