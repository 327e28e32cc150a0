"""A student's insertion that is right."""

from mm.flags import VM_GROWSDOWN

EXERCISE = "insert"


def find_vma_links(mm, addr, end):
    prev = parent = None
    left = False
    node = mm.mm_rb.rb_node
    while node is not None:
        parent = node
        if addr < node.vm_end:
            if end > node.vm_start:
                return None
            left = True
            node = node.rb_left
        else:
            prev = node
            left = False
            node = node.rb_right
    return prev, parent, left


def compute(node):
    gap = node.vm_start
    if node.vm_flags & VM_GROWSDOWN:
        gap -= node.vm_mm.system.stack_guard_gap
    if node.vm_prev is not None:
        gap -= node.vm_prev.vm_end
    gap = max(gap, 0)
    for child in (node.rb_left, node.rb_right):
        if child is not None:
            gap = max(gap, child.rb_subtree_gap)
    node.rb_subtree_gap = gap


def propagate(node):
    while node is not None:
        compute(node)
        node = node.rb_parent


def rotate(mm, top, child):
    """`child` above `top`."""
    if child is top.rb_left:
        top.rb_left = inner = child.rb_right
        child.rb_right = top
    else:
        top.rb_right = inner = child.rb_left
        child.rb_left = top
    if inner is not None:
        inner.rb_parent = top
    above = top.rb_parent
    child.rb_parent = above
    top.rb_parent = child
    if above is None:
        mm.mm_rb.rb_node = child
    elif above.rb_left is top:
        above.rb_left = child
    else:
        above.rb_right = child
    compute(top)
    compute(child)


def vma_link_rb(mm, vma, parent, left):
    vma.rb_parent = parent
    vma.rb_left = vma.rb_right = None
    vma.rb_red = True
    if parent is None:
        mm.mm_rb.rb_node = vma
    elif left:
        parent.rb_left = vma
    else:
        parent.rb_right = vma
    if vma.vm_next is None:
        mm.highest_vm_end = vma.vm_end
    else:
        propagate(vma.vm_next)
    propagate(vma)

    node = vma
    while True:
        parent = node.rb_parent
        if parent is None:
            node.rb_red = False
            return
        if not parent.rb_red:
            return
        grand = parent.rb_parent
        uncle = grand.rb_right if parent is grand.rb_left else grand.rb_left
        if uncle is not None and uncle.rb_red:
            parent.rb_red = uncle.rb_red = False
            grand.rb_red = True
            node = grand
            continue
        if (node is parent.rb_right) == (parent is grand.rb_left):
            rotate(mm, parent, node)
            parent = node
        rotate(mm, grand, parent)
        parent.rb_red = False
        grand.rb_red = True
        return
