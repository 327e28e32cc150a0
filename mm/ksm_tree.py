"""The two trees of KSM pages by content (mm/ksm.c: stable_tree_*, unstable_tree_search_insert, stable_node_*).

A node of the stable tree is a KSM page, or where one page of that content has as many users as it may have
(max_page_sharing: who looks for all of them shall not take for ever) a chain of such pages, called dups:

    tree:  ... -- page 'b' -- chain 'c' -- page 'd' -- ...
                                 |
                                 dup (12 users), dup (256), dup (256)

Contents are compared as memcmp() does. Nodes whose page was freed since are removed on the way (get_ksm_page()), which
changes the tree, so the search begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.errors import KernelBug
from mm.ksm import STABLE_FLAG, UNSTABLE_FLAG, find_mergeable_vma, is_anon_frame, mapped_pfn
from mm.rbtree import rb_erase, rb_insert_color, rb_link_node, rb_replace_node
from mm.rmap import put_anon_vma
from mm.types import Page, StableNode

if TYPE_CHECKING:
    from mm.ksm import Ksm
    from mm.system import System
    from mm.types import MmSlot, RmapItem


def content(system: System, pfn: int) -> bytes:
    """The bytes of a frame."""
    size = system.page_size
    return system.ram[pfn * size : (pfn + 1) * size].tobytes()


# -- nodes of the stable tree ------------------------------------------------------------------------------------------


def is_chain(node: StableNode) -> bool:
    """The node stands for several pages of the same content."""
    return node.kpfn < 0


def is_page_sharing_candidate(ksm: Ksm, node: StableNode, offset: int = 0) -> bool:
    """One more item may be added to the node (and `offset` more)."""
    return 0 < len(node.hlist) < ksm.max_page_sharing - offset


def page_of(ksm: Ksm, node: StableNode) -> Page | None:
    """The node's page; None when it was freed, or its frame serves something else."""
    frame = ksm.system.mem_map.frames[node.kpfn]
    return frame if isinstance(frame, Page) and frame.mapping is node else None


def get_ksm_page(ksm: Ksm, node: StableNode) -> Page | None:
    """The node's page. None: it was freed, and now the node is gone, too."""
    page = page_of(ksm, node)
    if page is None:
        remove_node_from_stable_tree(ksm, node)
    return page


def remove_node_from_stable_tree(ksm: Ksm, node: StableNode) -> None:
    """The node's page is gone: so is the node; its items are in neither tree."""
    if node.hlist:
        ksm.pages_shared -= 1
        ksm.pages_sharing -= len(node.hlist) - 1
    for item in node.hlist:
        put_anon_vma(item.anon_vma)
        item.anon_vma = item.head = None
        item.flags = 0
    node.hlist.clear()
    if node.chain is not None:
        del node.chain.hlist[node]
        node.chain = None
        ksm.stable_node_dups -= 1
    else:
        rb_erase(node, ksm.stable_tree)


def stable_node_chain_add_dup(ksm: Ksm, dup: StableNode, chain: StableNode) -> None:
    """One more page of the chain's content: the first to be asked from now on."""
    dup.chain = chain
    chain.hlist[dup] = None
    ksm.stable_node_dups += 1


def alloc_stable_node_chain(ksm: Ksm, dup: StableNode) -> StableNode:
    """A chain in the place of `dup`, which becomes its first member."""
    chain = StableNode()
    chain.chain_prune_time = ksm.jiffies
    ksm.stable_node_chains += 1
    rb_replace_node(dup, chain, ksm.stable_tree)
    stable_node_chain_add_dup(ksm, dup, chain)
    return chain


def free_stable_node_chain(ksm: Ksm, chain: StableNode) -> None:
    """A chain without members goes."""
    rb_erase(chain, ksm.stable_tree)
    ksm.stable_node_chains -= 1


def _choose_dup(ksm: Ksm, chain: StableNode, prune: bool) -> tuple[StableNode | None, StableNode, Page | None]:
    """stable_node_dup(): a page of the chain that can have more users; (its node, what is in the tree now, the page).

    The first that can. When it is time to `prune`, all are looked at: the one with most users is taken, the others may
    then die out, and a chain with one page left is no chain any more.
    """
    delay = -(-ksm.stable_node_chains_prune_millisecs * ksm.hz // 1000)
    prune = prune and ksm.jiffies >= chain.chain_prune_time + delay
    if prune:
        chain.chain_prune_time = ksm.jiffies
    found = None
    found_page = None
    stale = []
    alive = 0
    for dup in reversed(chain.hlist):
        page = page_of(ksm, dup)
        if page is None:
            stale.append(dup)
            continue
        alive += 1
        if is_page_sharing_candidate(ksm, dup) and (found is None or len(dup.hlist) > len(found.hlist)):
            found, found_page = dup, page
            if not prune:
                break
    for dup in stale:
        remove_node_from_stable_tree(ksm, dup)
    if found is None:
        return None, chain, None
    if prune and alive == 1:
        rb_replace_node(chain, found, ksm.stable_tree)
        chain.hlist.clear()
        found.chain = None
        ksm.stable_node_chains -= 1
        ksm.stable_node_dups -= 1
        return found, found, found_page
    if next(reversed(chain.hlist)) is not found and is_page_sharing_candidate(ksm, found, 1):
        del chain.hlist[found]
        chain.hlist[found] = None
    return found, chain, found_page


def _tree_page(ksm: Ksm, node: StableNode, prune: bool) -> tuple[StableNode | None, StableNode, Page | None]:
    """What to compare with at `node`: (node that can have more users, what is in the tree now, a page).

    No page: the tree has changed, and the search must begin anew.
    """
    if is_chain(node):
        dup, node, page = _choose_dup(ksm, node, prune)
    elif is_page_sharing_candidate(ksm, node):
        dup, page = node, get_ksm_page(ksm, node)
    else:
        dup, page = None, None
    if dup is not None:
        return dup, node, page
    # None can: any page will do to compare with (stable_node_dup_any()).
    if not is_chain(node):
        return None, node, get_ksm_page(ksm, node)
    if not node.hlist:
        free_stable_node_chain(ksm, node)
        return None, node, None
    return None, node, get_ksm_page(ksm, next(reversed(node.hlist)))


def stable_tree_search(ksm: Ksm, data: bytes) -> Page | None:
    """The KSM page with this content, if there is one that may have one user more."""
    while True:
        node = ksm.stable_tree.rb_node
        while node is not None:
            dup, node, page = _tree_page(ksm, node, True)
            if page is None:
                break
            other = content(ksm.system, page.pfn)
            if data == other:
                return page if dup is not None else None
            node = node.rb_left if data < other else node.rb_right
        else:
            return None


def stable_tree_insert(ksm: Ksm, kpage: Page) -> StableNode:
    """A node for a new KSM page, in a chain where there are pages of that content already."""
    data = content(ksm.system, kpage.pfn)
    new = StableNode(kpage.pfn)
    while True:
        parent, left = None, False
        node = ksm.stable_tree.rb_node
        while node is not None:
            _, node, page = _tree_page(ksm, node, False)
            if page is None:
                break
            other = content(ksm.system, page.pfn)
            if data == other:
                chain = node if is_chain(node) else alloc_stable_node_chain(ksm, node)
                stable_node_chain_add_dup(ksm, new, chain)
                kpage.mapping = new
                return new
            parent, left = node, data < other
            node = node.rb_left if left else node.rb_right
        else:
            kpage.mapping = new
            rb_link_node(new, parent, ksm.stable_tree, left)
            rb_insert_color(new, ksm.stable_tree)
            return new


def stable_tree_append(ksm: Ksm, item: RmapItem, node: StableNode) -> None:
    """One user more of the node's page."""
    if node.hlist:
        ksm.pages_sharing += 1
    else:
        ksm.pages_shared += 1
    item.head = node
    item.flags = STABLE_FLAG
    node.hlist[item] = None


def remove_all_stable_nodes(ksm: Ksm) -> bool:
    """Empty the stable tree of nodes whose pages nobody maps; False where there is one that somebody does."""
    while ksm.stable_tree.rb_node is not None:
        top = ksm.stable_tree.rb_node
        for node in list(reversed(top.hlist)) if is_chain(top) else [top]:
            if get_ksm_page(ksm, node) is not None:
                return False
        if is_chain(top):
            free_stable_node_chain(ksm, top)
    return True


# -- items -------------------------------------------------------------------------------------------------------------


def remove_rmap_item_from_tree(ksm: Ksm, item: RmapItem) -> None:
    """Take the item out of the tree it is in."""
    node = item.head
    if item.flags == STABLE_FLAG and node is not None:
        if get_ksm_page(ksm, node) is None:
            return
        del node.hlist[item]
        if node.hlist:
            ksm.pages_sharing -= 1
        else:
            ksm.pages_shared -= 1
        if item.anon_vma is not None:
            put_anon_vma(item.anon_vma)
        item.head = item.anon_vma = None
        item.flags = 0
    elif item.flags == UNSTABLE_FLAG:
        age = ksm.full_scans - item.seqnr
        if age not in (0, 1):
            raise KernelBug(f"the page at {item.address:#x} was put into the unstable tree {age} passes ago", item.mm)
        if not age:  # else that tree is forgotten
            rb_erase(item, ksm.unstable_tree)
        ksm.pages_unshared -= 1
        item.flags = 0


def remove_trailing_rmap_items(ksm: Ksm, previous: MmSlot | RmapItem) -> None:
    """Forget all items of an address space after `previous`."""
    while previous.rmap_list is not None:
        remove_rmap_item(ksm, previous)


def remove_rmap_item(ksm: Ksm, previous: MmSlot | RmapItem) -> None:
    """Forget the item after `previous`."""
    item = previous.rmap_list
    if item is not None:
        previous.rmap_list = item.rmap_list
        remove_rmap_item_from_tree(ksm, item)
        item.rmap_list = None
        ksm.rmap_items -= 1


def unstable_tree_search_insert(ksm: Ksm, item: RmapItem, pfn: int, data: bytes) -> tuple[RmapItem, int] | None:
    """(item, frame) of another page with this content. None: there is none, and `item` may be in the tree now."""
    system = ksm.system
    parent, left = None, False
    node = ksm.unstable_tree.rb_node
    while node is not None:
        found = _get_mergeable_page(system, node)
        if found < 0 or found == pfn:  # not mapped any more; or a page two address spaces share since a fork
            return None
        other = content(system, found)
        if data == other:
            return node, found
        parent, left = node, data < other
        node = node.rb_left if left else node.rb_right
    item.flags = UNSTABLE_FLAG
    item.seqnr = ksm.full_scans
    rb_link_node(item, parent, ksm.unstable_tree, left)
    rb_insert_color(item, ksm.unstable_tree)
    ksm.pages_unshared += 1
    return None


def _get_mergeable_page(system: System, item: RmapItem) -> int:
    """The frame of the anonymous page that is where the item says; -1: there is none now."""
    mm = item.mm
    if find_mergeable_vma(mm, item.address) is None:
        return -1
    pfn = mapped_pfn(mm, item.address)
    return pfn if pfn >= 0 and is_anon_frame(system, pfn) else -1
