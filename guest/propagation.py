"""Mounts that are shared: what is mounted on one appears on its peers and their slaves (fs/pnode.c).

    mount --make-shared /a     /a is in a PeerGroup; a bind of it, or its copy in a new namespace, joins the group
    mount --make-slave /b      /b leaves the group and only receives from it: Mount.master
    mount x /a/dir             x is in a group too, and a peer of it appears at /b/dir, a slave where /b is a slave

A mount may be both: a slave of one group and a peer in another.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namespace import check_mnt, children_of, commit_tree, copy_list, in_use, mount_max, subtree
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.task import Task
    from guest.vfs import Vfs
    from guest.vfs_types import Dentry, Mount

MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20


class PeerGroup:
    """Mounts that share what is mounted on them."""

    __slots__ = ("ident", "members", "slaves")

    def __init__(self, ident: int) -> None:
        self.ident = ident  # mnt_group_id
        self.members: list[Mount] = []
        self.slaves: list[Mount] = []

    def add(self, mnt: Mount, beside: Mount | None = None) -> None:
        """One more peer, next to the one it was made of; whoever is shared can be bound."""
        self.members.insert(self.members.index(beside) + 1 if beside is not None else 0, mnt)
        mnt.shared, mnt.unbindable = self, False

    def others(self, mnt: Mount) -> list[Mount]:
        """The peers, as one meets them from `mnt` on (next_peer())."""
        here = self.members.index(mnt) if mnt in self.members else -1
        return [one for one in (*self.members[here + 1 :], *self.members[: max(here, 0)]) if one is not mnt]


def new_group(vfs: Vfs, mnt: Mount) -> None:
    """set_mnt_shared(): a group of its own, with the lowest free number, unless it is in one."""
    if mnt.shared is None:
        ident = 1
        while ident in vfs.group_ids:
            ident += 1
        vfs.group_ids.add(ident)
        PeerGroup(ident).add(mnt)


def set_master(mnt: Mount, master: PeerGroup | None, beside: Mount | None = None) -> None:
    """Whom a mount receives from: the first of the slaves, or next to the one it was made of."""
    if mnt.master is not None:
        mnt.master.slaves.remove(mnt)
    mnt.master = master
    if master is not None:
        master.slaves.insert(master.slaves.index(beside) + 1 if beside in master.slaves else 0, mnt)


def copy_sharing(old: Mount, new: Mount) -> None:
    """A clone is a peer of what it was made of, and a slave of the same group (clone_mnt())."""
    new.unbindable = old.unbindable
    if old.shared is not None:
        old.shared.add(new, old)
    set_master(new, old.master, old)


def change_propagation(vfs: Vfs, mnt: Mount, kind: int) -> None:
    """change_mnt_propagation(): MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE."""
    if kind == MS_SHARED:
        new_group(vfs, mnt)
        mnt.unbindable = False
        return
    group, mnt.shared = mnt.shared, None
    if group is not None:
        group.members.remove(mnt)
        if group.members:
            set_master(mnt, group)
        else:
            vfs.group_ids.discard(group.ident)
            for slave in group.slaves[:]:  # of the last peer: they go to its master, behind the others
                set_master(slave, mnt.master, mnt.master.slaves[-1] if mnt.master is not None else None)
    if kind != MS_SLAVE:
        set_master(mnt, None)
        mnt.unbindable = kind == MS_UNBINDABLE


def receivers(mnt: Mount) -> list[Mount]:
    """The mounts that an event on `mnt` reaches, itself left out (propagation_next())."""
    found: list[Mount] = []
    seen = {id(mnt)}
    pending = [mnt.shared]
    while pending:
        group = pending.pop()
        for one in (*group.members, *group.slaves) if group is not None else ():
            if id(one) not in seen:
                seen.add(id(one))
                found.append(one)
                if one.shared is not group:
                    pending.append(one.shared)
    return found


def propagate_mnt(task: Task, at: Mount, mountpoint: Dentry, source: Mount) -> None:
    """A tree was mounted on a shared mount: its copies appear wherever that reaches."""
    vfs = task.kernel.vfs
    tree = list(subtree(vfs, source))
    for mnt in tree:
        new_group(vfs, mnt)
    reached = {id(at)}
    before = len(vfs.mounts)
    done: set[int] = set()
    # A group whose `first` has a copy, for its other peers and its slaves; or one of those slaves.
    pending: list[tuple[PeerGroup | None, Mount, list[Mount], Mount | None]] = [(at.shared, at, tree, None)]
    while pending:
        group, first, original, slave = pending.pop()
        if slave is not None:
            copy = None
            if id(slave) not in reached:
                copy = _copy_to(task, original, slave, mountpoint, True)
            if copy is not None:
                reached.add(id(slave))
                if slave.shared is not None and id(slave.shared) not in done:
                    for mnt in copy:
                        new_group(vfs, mnt)
                    pending.append((slave.shared, slave, copy, None))
        elif group is not None:
            done.add(id(group))
            for peer in group.others(first):
                copy = _copy_to(task, original, peer, mountpoint, False) if id(peer) not in reached else None
                if copy is not None:  # the next is made of it
                    original = copy
                    reached.add(id(peer))
            pending += [(group, first, original, one) for one in reversed(group.slaves)]
    _reverse_trees(vfs, before)


def _reverse_trees(vfs: Vfs, start: int) -> None:
    """The copies stand in the table with the last one first (attach_recursive_mnt()'s list)."""
    trees: list[list[Mount]] = []
    inside: set[int] = set()
    for mnt in vfs.mounts[start:]:
        if id(mnt.mnt_parent) not in inside:
            trees.append([])
            inside = set()
        trees[-1].append(mnt)
        inside.add(id(mnt))
    vfs.mounts[start:] = [mnt for tree in reversed(trees) for mnt in tree]


def _copy_to(task: Task, original: list[Mount], where: Mount, mountpoint: Dentry, slave: bool) -> list[Mount] | None:
    """propagate_one(): None where the place is not within that mount."""
    vfs = task.kernel.vfs
    if not where.mounted or not where.mnt_root.is_ancestor_of(mountpoint):
        return None
    if len(vfs.mounts) + len(original) > mount_max(task):
        raise Errno(errno.ENOSPC)
    copies = copy_list(original)
    copy = copies[0]
    for old, new in zip(original, copies, strict=True):
        if slave:
            change_propagation(vfs, new, MS_PRIVATE)
            set_master(new, old.shared)
    under = next((m for m in mountpoint.d_mounts if m.mnt_parent is where), None)
    copy.mnt_parent, copy.mnt_mountpoint = where, mountpoint
    commit_tree(vfs, copies, where.mnt_ns)
    if under is not None:  # what was there stays on top
        mountpoint.d_mounts.remove(under)
        under.mnt_parent, under.mnt_mountpoint = copy, copy.mnt_root
        copy.mnt_root.d_mounts.append(under)
    return copies


def _copies_of(mnt: Mount) -> Iterator[Mount]:
    """What sits at the same place of the mounts that hear of events on its parent."""
    for place in receivers(mnt.mnt_parent) if mnt.mnt_parent is not mnt else ():
        yield from [m for m in mnt.mnt_mountpoint.d_mounts if m.mnt_parent is place]


def propagated_busy(task: Task, mnt: Mount) -> bool:
    """propagate_mount_busy(): whether a copy that would go too is in use."""
    vfs = task.kernel.vfs
    return any(in_use(task, copy) for copy in _copies_of(mnt) if not children_of(vfs, copy))


def propagate_umount(task: Task, tree: list[Mount]) -> list[Mount]:
    """The mounts that go together with those of a tree: copies nothing else is mounted on, deepest first."""
    vfs = task.kernel.vfs
    going = list(reversed(tree))
    seen = {id(mnt) for mnt in going}
    for mnt in going[:]:
        for copy in list(_copies_of(mnt)):
            if id(copy) in seen:
                continue
            children = [child for child in children_of(vfs, copy) if id(child) not in seen]
            if any(child.mnt_mountpoint is not copy.mnt_root for child in children):
                continue
            for top in children:  # what covers it stays, in its place
                copy.mnt_root.d_mounts.remove(top)
                top.mnt_parent, top.mnt_mountpoint = copy.mnt_parent, copy.mnt_mountpoint
                copy.mnt_mountpoint.d_mounts.append(top)
            going.append(copy)
            seen.add(id(copy))
    return going


def set_group(task: Task, source: Mount, target: Mount) -> bool:
    """do_set_group(), once both are roots: the target becomes a peer, or a slave, as the source is. False: EINVAL."""
    if not check_mnt(task, source) or not check_mnt(task, target) or source.mnt_sb is not target.mnt_sb:
        return False
    if not source.mnt_root.is_ancestor_of(target.mnt_root):
        return False
    if target.shared is not None or target.master is not None:
        return False
    if source.shared is None and source.master is None:
        return False
    set_master(target, source.master)
    if source.shared is not None:
        source.shared.add(target, source)
    return True


def tags(mnt: Mount) -> str:
    """The optional fields of mountinfo."""
    ns = mnt.mnt_ns
    text = f" shared:{mnt.shared.ident}" if mnt.shared is not None else ""
    master = mnt.master
    if master is not None:
        text += f" master:{master.ident}"
        above: PeerGroup | None = master
        while above is not None and not any(m.mounted and m.mnt_ns is ns for m in above.members):
            above = next((m.master for m in above.members if m.master is not None), None)
        if above is not None and above is not master:
            text += f" propagate_from:{above.ident}"
    return text + (" unbindable" if mnt.unbindable else "")
