"""What every drawing shares: words for sizes, permissions and names, and the colours of text and SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from guest.procfs_maps import area_name
from mm.flags import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mm.types import MmStruct, VmAreaStruct

RED, GREEN, YELLOW, BLUE, CYAN, GREY = "31;1", "32", "33", "34;1", "36", "90"
BLACK_NODE = "1"  # a black node of the tree: bold, since black on a dark terminal is nothing

# Fill colours of areas by what they allow: code, data, constants, nothing.
FILLS = {"x": "#c6dbef", "w": "#fdd0a2", "r": "#e5f5e0", "-": "#eeeeee"}

CHARACTER = 6.8  # pixels: the widest that monospace letters of 11 pixels are


def paint(text: str, code: str, colour: bool) -> str:
    """`text` in an ANSI colour, when colours are wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def areas(mm: MmStruct) -> Iterator[VmAreaStruct]:
    """The VMAs of an address space, lowest first."""
    vma = mm.mmap
    while vma is not None:
        yield vma
        vma = vma.vm_next


def size_text(count: int) -> str:
    """Bytes in the largest unit that divides them: 8K, 132K, 2M."""
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return str(count)


def rough_size(count: int) -> str:
    """Bytes to three digits, for gaps: 4K, 17.3G, 126T."""
    value = float(count)
    for unit in ("", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"


def permissions(vma: VmAreaStruct) -> str:
    """`rw-p`, as in /proc/PID/maps."""
    flags = vma.vm_flags
    return (
        ("r" if flags & VM_READ else "-")
        + ("w" if flags & VM_WRITE else "-")
        + ("x" if flags & VM_EXEC else "-")
        + ("s" if flags & VM_MAYSHARE else "p")
    )


def name_of(vma: VmAreaStruct) -> str:
    """What an area is: its file, `[heap]`, `[stack]`, `[vdso]`; empty for plain anonymous memory."""
    if vma.vm_file is not None:
        return vma.vm_file.d_path()
    return area_name(vma) or ""


def fill_of(vma: VmAreaStruct) -> str:
    """SVG and HTML background of an area."""
    flags = vma.vm_flags
    return FILLS["x" if flags & VM_EXEC else "w" if flags & VM_WRITE else "r" if flags & VM_READ else "-"]


def permission_colour(vma: VmAreaStruct) -> str:
    """ANSI colour of an area."""
    flags = vma.vm_flags
    return BLUE if flags & VM_EXEC else YELLOW if flags & VM_WRITE else GREEN if flags & VM_READ else GREY


def html_table(heads: tuple[str, ...], rows: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """A small monospaced table; each row is (background, cells), cells are plain text."""
    style = "font-family:monospace;font-size:12px;border-collapse:collapse;color:#000;background:#fff"
    cell = "padding:1px 8px;text-align:left;border:1px solid #ccc"
    out = [f'<table style="{style}"><tr>']
    out += [f'<th style="{cell}">{escape(head)}</th>' for head in heads]
    out.append("</tr>")
    for background, cells in rows:
        shown = "".join(f'<td style="{cell};background:{background}">{escape(text)}</td>' for text in cells)
        out.append(f"<tr>{shown}</tr>")
    out.append("</table>")
    return "".join(out)


def svg_document(width: int, height: int, body: list[str]) -> str:
    """A stand-alone SVG with a white ground."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="monospace" font-size="11"><rect width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(body)}</svg>"
    )


def svg_width(text: str) -> int:
    """Pixels that a line of text takes at most, in the documents' font."""
    return int(len(text) * CHARACTER) + 1


def svg_text(x: float, y: float, text: str, fill: str = "#000", anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}">{escape(text)}</text>'
