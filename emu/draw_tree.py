"""The red-black tree of an address space, as text and as SVG.

The text lies on its side: one VMA a line, lowest address first, so that reading down is reading the memory map, and the
tree grows from the left. A left child stands above its parent, a right child below:

        ┌─B 00400000-00401000  r--p    4K  /hello
      ┌─R   00401000-00496000  ...
      │ └─B ...
    ──B     ...

The letter is the colour of the node. `gap` is rb_subtree_gap, the largest hole below any VMA of that subtree, what the
search for free space descends by.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from emu import draw

if TYPE_CHECKING:
    from mm.types import MmStruct, VmAreaStruct

NODE_WIDTH, NODE_HEIGHT, LEVEL_HEIGHT = 118, 46, 78  # pixels of the SVG


def depth_of(node: VmAreaStruct | None) -> int:
    """Nodes on the longest way down."""
    return 0 if node is None else 1 + max(depth_of(node.rb_left), depth_of(node.rb_right))


def black_height(root: VmAreaStruct | None) -> int:
    """Black nodes on any way down (they are all the same)."""
    height = 0
    while root is not None:
        height += not root.rb_red
        root = root.rb_left
    return height


def tree_text(mm: MmStruct, colour: bool = False) -> str:
    """The drawing, and a line of numbers under it."""
    root = mm.mm_rb.rb_node
    if root is None:
        return "(no areas)"
    depth = depth_of(root)
    lines: list[str] = []
    _text(root, "", "──", lines, 2 * depth, _address_width(mm), colour)
    last = (
        f"{mm.map_count} areas, {depth} levels, black height {black_height(root)}; gap: largest hole below the subtree"
    )
    return "\n".join([*lines, draw.paint(last, draw.GREY, colour)])


def _address_width(mm: MmStruct) -> tuple[int, int]:
    """Columns of the longest start and end address."""
    last = max(draw.areas(mm), key=lambda vma: vma.vm_start)
    return max(8, len(f"{last.vm_start:x}")), max(8, len(f"{last.vm_end:x}"))


def _text(
    node: VmAreaStruct, before: str, branch: str, lines: list[str], width: int, digits: tuple[int, int], colour: bool
) -> None:
    """Lines of a subtree in address order.

    Args:
        before: what stands left of this subtree's branch on its own line.
        branch: `┌─` for a left child, `└─` for a right one, `──` for the root.
        width: columns the tree takes, so that the areas line up.
    """
    left, right = node.rb_left, node.rb_right
    if left is not None:
        _text(left, before + ("│ " if branch == "└─" else "  "), "┌─", lines, width, digits, colour)
    letter = "R" if node.rb_red else "B"
    padding = " " * (width - len(before) - 2)
    mark = draw.paint(letter, draw.RED if node.rb_red else draw.BLACK_NODE, colour)
    area = f"{f'{node.vm_start:08x}':>{digits[0]}}-{f'{node.vm_end:08x}':<{digits[1]}}"
    size = draw.size_text(node.vm_end - node.vm_start)
    gap = draw.rough_size(node.rb_subtree_gap)
    allowed = draw.paint(draw.permissions(node), draw.permission_colour(node), colour)
    lines.append(
        f"{before}{branch}{mark}{padding} {area} {allowed} {size:>6}  gap {gap:<6}  {draw.name_of(node)}".rstrip()
    )
    if right is not None:
        _text(right, before + ("│ " if branch == "┌─" else "  "), "└─", lines, width, digits, colour)


def tree_svg(mm: MmStruct) -> str:
    """The tree upright: root on top, nodes left to right in address order."""
    nodes: list[tuple[VmAreaStruct, int]] = []
    _in_order(mm.mm_rb.rb_node, 0, nodes)
    if not nodes:
        return draw.svg_document(200, 40, [draw.svg_text(10, 24, "no areas")])
    place = {
        id(node): (10 + index * (NODE_WIDTH * 0.62), 10 + level * LEVEL_HEIGHT)
        for index, (node, level) in enumerate(nodes)
    }
    body = []
    for node, _ in nodes:
        x, y = place[id(node)]
        for child in (node.rb_left, node.rb_right):
            if child is not None:
                cx, cy = place[id(child)]
                half = NODE_WIDTH / 2
                body.append(
                    f'<line x1="{x + half:g}" y1="{y + NODE_HEIGHT:g}" x2="{cx + half:g}" y2="{cy:g}" stroke="#888"/>'
                )
    for node, _ in nodes:
        x, y = place[id(node)]
        body += _svg_node(node, x, y)
    width = int(max(x for x, _ in place.values()) + NODE_WIDTH + 10)
    height = 20 + NODE_HEIGHT + max(level for _, level in nodes) * LEVEL_HEIGHT
    return draw.svg_document(width, height, body)


def _in_order(node: VmAreaStruct | None, level: int, nodes: list[tuple[VmAreaStruct, int]]) -> None:
    if node is not None:
        _in_order(node.rb_left, level + 1, nodes)
        nodes.append((node, level))
        _in_order(node.rb_right, level + 1, nodes)


def _svg_node(node: VmAreaStruct, x: float, y: float) -> list[str]:
    """A box: red or black, three lines of white text."""
    fill = "#c0392b" if node.rb_red else "#222"
    title = f"{node.vm_start:x}-{node.vm_end:x} {draw.permissions(node)} {draw.name_of(node)}"
    name = draw.name_of(node).rsplit("/", 1)[-1] or "anonymous"
    return [
        f'<g><title>{escape(title)}</title><rect x="{x:g}" y="{y:g}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" '
        f'rx="6" fill="{fill}"/>',
        draw.svg_text(x + NODE_WIDTH / 2, y + 14, f"{node.vm_start:x}", "#fff", "middle"),
        draw.svg_text(
            x + NODE_WIDTH / 2,
            y + 27,
            f"{draw.permissions(node)} {draw.size_text(node.vm_end - node.vm_start)}",
            "#fff",
            "middle",
        ),
        draw.svg_text(x + NODE_WIDTH / 2, y + 40, name[:16], "#ddd", "middle"),
        "</g>",
    ]
