"""mem_map: what is known of each frame of guest RAM (the array of struct page), small for the pages there are most of.

    frames[pfn]   None                 the frame is free
                  a Page               anything: page tables, pages of files, huge pages, mlocked pages ...
                  an AnonVma           a plain anonymous page of that anon_vma: no Page was made for it

A plain anonymous page is all that a first touch or a copy on write makes: its flags are NEW_ANON_FLAGS, its only users
are the entries that map it (refcount and mapcount are the same number), and that number and its index are in two
arrays. It costs 12 bytes where a Page with its numbers costs 150, and nothing is built or torn down for it. As soon as
somebody wants more of it (`mem_map[pfn]`) it becomes a Page, and stays one until it is freed.

Whoever handles pages by the thousand (memory.py and its parts _zap, _fork, _cow) looks at `frames` itself; whoever only
looks on (validation, /proc) uses `peek`; everybody else writes `mem_map[pfn]` and sees Pages only.
"""

from __future__ import annotations

from itertools import compress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TYPE_CHECKING, Any, overload

from mm.errors import KernelBug
from mm.flags import PG_LRU, PG_SWAPBACKED, PG_UPTODATE
from mm.types import AnonVma, Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Flags of a freshly mapped anonymous page: content valid, would go to swap, on the LRU lists.
NEW_ANON_FLAGS = PG_UPTODATE | PG_SWAPBACKED | PG_LRU


def _numbers(form: str, size: int) -> memoryview:
    """An array of `size` bytes of zeroes, which takes host memory only where it is written to."""
    numbers: memoryview = memoryview(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)).cast(form)  # type: ignore[call-overload]
    return numbers


class MemMap:
    """All frames. `index` and `users` mean something only where `frames` has an AnonVma."""

    __slots__ = ("frames", "index", "users")

    def __init__(self, count: int) -> None:
        self.frames: list[Page | AnonVma | None] = [None] * count
        self.index = _numbers("Q", 8 * count)  # Page.index
        self.users = _numbers("I", 4 * count)  # mapcount and refcount

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, pfn: int) -> Page | None: ...
    @overload
    def __getitem__(self, pfn: slice) -> list[Page | None]: ...
    def __getitem__(self, pfn: int | slice) -> Page | list[Page | None] | None:
        """The frame's Page, made now if the frame had none; None when it is free. Or a list of several frames'."""
        if isinstance(pfn, slice):
            return [self[number] for number in range(*pfn.indices(len(self.frames)))]
        frame = self.frames[pfn]
        if isinstance(frame, AnonVma):
            frame = self.frames[pfn] = self.peek(pfn)
        return frame

    def page(self, pfn: int) -> Page:
        """The Page of a frame that is in use."""
        page = self[pfn]
        if page is None:
            raise KernelBug(f"frame {pfn:#x} is free")
        return page

    @overload
    def __setitem__(self, pfn: int, page: Page | None) -> None: ...
    @overload
    def __setitem__(self, pfn: slice, page: Sequence[Page | None]) -> None: ...
    def __setitem__(self, pfn: Any, page: Any) -> None:
        self.frames[pfn] = page

    def __iter__(self) -> Iterator[Page | None]:
        """Every frame, as `peek` shows it."""
        return map(self.peek, range(len(self.frames)))

    def in_use(self) -> Iterator[Page]:
        """Every frame that is not free, as `peek` shows it."""
        frames = self.frames
        for pfn in compress(range(len(frames)), frames):
            page = self.peek(pfn)
            if page is not None:
                yield page

    def peek(self, pfn: int) -> Page | None:
        """What `mem_map[pfn]` would give, to be read and forgotten: it may be a copy."""
        frame = self.frames[pfn]
        if isinstance(frame, AnonVma):
            page = Page(pfn, NEW_ANON_FLAGS, self.users[pfn], frame, self.index[pfn])
            page.refcount = page.mapcount
            return page
        return frame

    def add_new_anon(self, pfn: int, anon_vma: AnonVma, index: int) -> None:
        """An anonymous page that one entry maps is in the frame from now on (page_add_new_anon_rmap)."""
        self.frames[pfn] = anon_vma
        self.index[pfn] = index
        self.users[pfn] = 1

    def __getstate__(self) -> Any:
        plain = [pfn for pfn, frame in enumerate(self.frames) if isinstance(frame, AnonVma)]
        return self.frames, [(pfn, self.index[pfn], self.users[pfn]) for pfn in plain]

    def __setstate__(self, state: Any) -> None:
        frames, plain = state
        self.frames = frames
        self.index = _numbers("Q", 8 * len(frames))
        self.users = _numbers("I", 4 * len(frames))
        for pfn, index, users in plain:
            self.index[pfn] = index
            self.users[pfn] = users
