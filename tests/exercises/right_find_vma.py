"""A student's find_vma that is right."""

EXERCISE = "find_vma"


def find_vma(mm, addr):
    vma = mm.ops.vmacache_find(mm, addr)
    if vma is not None:
        return vma
    best = None
    node = mm.mm_rb.rb_node
    while node is not None:
        if addr < node.vm_end:
            best = node
            if addr >= node.vm_start:
                break
            node = node.rb_left
        else:
            node = node.rb_right
    if best is not None:
        mm.ops.vmacache_update(mm, addr, best)
    return best


def vmacache_find(mm, addr):
    task = mm.system.current
    if task is None or task.mm is not mm:
        return None
    if task.vmacache_seqnum != mm.vmacache_seqnum:
        task.vmacache_seqnum = mm.vmacache_seqnum
        task.vmacache[:] = [None] * 4
        return None
    first = addr >> mm.arch.pmd_shift
    for i in range(4):
        vma = task.vmacache[(first + i) & 3]
        if vma is not None and vma.vm_start <= addr < vma.vm_end:
            return vma
    return None


def vmacache_update(mm, addr, newvma):
    task = mm.system.current
    if task is not None and task.mm is mm:
        task.vmacache[(addr >> mm.arch.pmd_shift) & 3] = newvma
