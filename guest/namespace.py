"""Trees of mounts and their namespaces: attaching, copying, moving, taking apart (fs/namespace.c).

    vfs.mounts      every mount of every tree, in order of attaching
    Mount.mnt_ns    whose tree: None the first namespace's, a MntNamespace another's, which may be of nobody: the
                    tree behind a descriptor of fsmount() or open_tree(), until move_mount() attaches it

What is mounted on a shared mount is passed on by propagation.py.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.nsproxy import CLONE_NEWNS, Namespace
from guest.vfs_types import MNT_READONLY, Mount, Path
from mm.errors import Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.task import Task
    from guest.vfs import Vfs
    from guest.vfs_types import Dentry, SuperBlock

MNT_FORCE, MNT_DETACH, MNT_EXPIRE = 1, 2, 4
MOUNT_MAX = 10_000  # the kernel's sysctl_mount_max is 100,000; here each costs the host some 3 KB


def mount_max(task: Task) -> int:
    """How many mounts there may be: /proc/sys/fs/mount-max, or what the host can bear."""
    return min(int(task.kernel.sysctls.get("mount-max", MOUNT_MAX)), MOUNT_MAX)


class MntNamespace(Namespace):
    """A namespace of mounts other than the first; `anonymous`: no task is in it."""

    __slots__ = ("anonymous", "root")

    def __init__(self, number: int, root: Mount, anonymous: bool = False) -> None:
        super().__init__(number)
        self.root = root
        self.anonymous = anonymous


def current_ns(task: Task) -> MntNamespace | None:
    """The namespace of a task's mounts; None the first."""
    space = task.nsproxy.spaces[CLONE_NEWNS] if task.nsproxy is not None else None
    return space if isinstance(space, MntNamespace) else None


def check_mnt(task: Task, mnt: Mount) -> bool:
    """Whether a mount belongs to the task's namespace."""
    return mnt.mounted and mnt.mnt_ns is current_ns(task)


# trees


def children_of(vfs: Vfs, mnt: Mount) -> list[Mount]:
    """The mounts on a mount, oldest first."""
    return [other for other in vfs.mounts if other.mnt_parent is mnt and other is not mnt]


def subtree(vfs: Vfs, mnt: Mount) -> Iterator[Mount]:
    """A mount and all below it, parents first (next_mnt())."""
    children: dict[int, list[Mount]] = {}
    for other in vfs.mounts:
        if other.mnt_parent is not other:
            children.setdefault(id(other.mnt_parent), []).append(other)
    pending = [mnt]
    while pending:
        mnt = pending.pop()
        yield mnt
        pending.extend(reversed(children.get(id(mnt), ())))


def new_mount(sb: SuperBlock, root: Dentry, source: str, flags: int) -> Mount:
    """vfs_create_mount(): a mount that is nowhere yet."""
    mnt = Mount(0, sb, root, None, None, source)
    mnt.mnt_flags = flags
    mnt.mounted = False
    return mnt


def clone_mnt(old: Mount, root: Dentry) -> Mount:
    """The same file system once more, from `root` down."""
    mnt = new_mount(old.mnt_sb, root, old.mnt_devname, old.mnt_flags)
    if old.shared is not None or old.master is not None or old.unbindable:
        from guest.propagation import copy_sharing

        copy_sharing(old, mnt)
    return mnt


def discard(task: Task, mounts: list[Mount]) -> None:
    """Clones that came to nothing."""
    from guest.propagation import MS_PRIVATE, change_propagation

    for mnt in mounts:
        change_propagation(task.kernel.vfs, mnt, MS_PRIVATE)


def copy_tree(task: Task, old: Mount, root: Dentry, whole: bool = False) -> list[tuple[Mount, Mount]]:
    """Clones of the mounts at and below a place, as (original, clone), joined to each other.

    Args:
        whole: mounts that cannot be bound are not left out.
    """
    pairs = [(old, clone_mnt(old, root))]
    clones = {id(old): pairs[0][1]}
    for child in list(subtree(task.kernel.vfs, old))[1:]:
        parent = clones.get(id(child.mnt_parent))
        if parent is None or (child.unbindable and not whole):
            continue
        if child.mnt_parent is old and not root.is_ancestor_of(child.mnt_mountpoint):
            continue
        clone = clones[id(child)] = clone_mnt(child, child.mnt_root)
        clone.mnt_parent, clone.mnt_mountpoint = parent, child.mnt_mountpoint
        pairs.append((child, clone))
    return pairs


def copy_list(tree: list[Mount]) -> list[Mount]:
    """Clones of a tree that is given as the list of its mounts, parents first."""
    copies: dict[int, Mount] = {}
    for mnt in tree:
        copy = copies[id(mnt)] = clone_mnt(mnt, mnt.mnt_root)
        if len(copies) > 1:
            copy.mnt_parent, copy.mnt_mountpoint = copies[id(mnt.mnt_parent)], mnt.mnt_mountpoint
    return list(copies.values())


def commit_tree(vfs: Vfs, mounts: list[Mount], ns: MntNamespace | None) -> None:
    """These mounts are a namespace's from now on, and can be walked into."""
    for mnt in mounts:
        while vfs.next_mnt in vfs.mnt_ids:  # the lowest free one (mnt_alloc_id())
            vfs.next_mnt += 1
        vfs.mnt_ids.add(vfs.next_mnt)
        mnt.mnt_ns, mnt.mounted, mnt.mnt_id = ns, True, vfs.next_mnt
        vfs.mounts.append(mnt)
        if mnt.mnt_parent is not mnt:
            mnt.mnt_mountpoint.d_mounts.append(mnt)


def detach(mnt: Mount) -> None:
    """Off its mountpoint; what is below stays with it."""
    if mnt.mnt_parent is not mnt:
        mnt.mnt_mountpoint.d_mounts.remove(mnt)
    mnt.mnt_parent, mnt.mnt_mountpoint = mnt, mnt.mnt_root


def lock_mount(path: Path) -> Path:
    """Where something mounted at `path` would sit: on top of what is mounted there. Raises ENOENT for a lost name."""
    from guest.namei import traverse_mounts

    if path.dentry.d_unhashed:
        raise Errno(errno.ENOENT)
    return traverse_mounts(path)


def graft_tree(task: Task, mounts: list[Mount], at: Path) -> None:
    """Mount a new tree (its root first) at a place of lock_mount(). Raises ENOTDIR, ENOSPC."""
    root = mounts[0]
    refusal = 0
    if at.dentry.d_inode.is_dir() != root.mnt_root.d_inode.is_dir():
        refusal = errno.ENOTDIR
    elif len(task.kernel.vfs.mounts) + len(mounts) > mount_max(task):
        refusal = errno.ENOSPC
    if refusal:
        discard(task, mounts)
        raise Errno(refusal)
    root.mnt_parent, root.mnt_mountpoint = at.mnt, at.dentry
    commit_tree(task.kernel.vfs, mounts, at.mnt.mnt_ns)
    if at.mnt.shared is not None:
        from guest.propagation import propagate_mnt

        propagate_mnt(task, at.mnt, at.dentry, root)


def do_add_mount(task: Task, mnt: Mount, path: Path) -> None:
    """A new file system at a place. Raises EINVAL, EBUSY for one that is mounted there already, and others."""
    at = lock_mount(path)
    if not check_mnt(task, at.mnt):
        raise Errno(errno.EINVAL)
    if at.mnt.mnt_sb is mnt.mnt_sb and at.mnt.mnt_root is at.dentry:
        raise Errno(errno.EBUSY)
    if mnt.mnt_root.d_inode.is_lnk():
        raise Errno(errno.EINVAL)
    graft_tree(task, [mnt], at)


def loopback(task: Task, old: Path, recurse: bool) -> list[Mount]:
    """__do_loopback(): the tree at a place once more. Raises EINVAL."""
    if old.mnt.unbindable or (not check_mnt(task, old.mnt) and not hasattr(old.dentry.d_inode, "namespace")):
        raise Errno(errno.EINVAL)
    if not recurse:
        return [clone_mnt(old.mnt, old.dentry)]
    return [clone for _, clone in copy_tree(task, old.mnt, old.dentry)]


def do_loopback(task: Task, path: Path, old: Path, recurse: bool) -> None:
    """mount --bind. Raises EINVAL and others."""
    space = getattr(old.dentry.d_inode, "namespace", (0, None))[1]
    mine = task.nsproxy.spaces[CLONE_NEWNS].number if task.nsproxy is not None else 0
    if isinstance(space, MntNamespace) and mine >= space.number:
        raise Errno(errno.EINVAL)  # a loop of namespaces (mnt_ns_loop())
    at = lock_mount(path)
    if not check_mnt(task, at.mnt):
        raise Errno(errno.EINVAL)
    graft_tree(task, loopback(task, old, recurse), at)


def do_move_mount(task: Task, old_path: Path, new_path: Path) -> None:
    """Move a mounted tree, or attach a detached one. Raises EINVAL, ELOOP."""
    vfs = task.kernel.vfs
    at, old = lock_mount(new_path), old_path.mnt
    attached = old.mnt_parent is not old
    invalid = Errno(errno.EINVAL)
    if not check_mnt(task, at.mnt) or not old.mounted:
        raise invalid
    if not (check_mnt(task, old) if attached else is_anonymous(old)):
        raise invalid
    if (attached and old.mnt_parent.shared is not None) or (
        at.mnt.shared is not None and any(mnt.unbindable for mnt in subtree(vfs, old))
    ):
        raise invalid
    if old_path.dentry is not old.mnt_root or at.dentry.d_inode.is_dir() != old_path.dentry.d_inode.is_dir():
        raise invalid
    above = at.mnt
    while above.mnt_parent is not above:
        if above is old:
            raise Errno(errno.ELOOP)
        above = above.mnt_parent
    tree = list(subtree(vfs, old))
    detach(old)
    old.mnt_parent, old.mnt_mountpoint = at.mnt, at.dentry
    at.dentry.d_mounts.append(old)
    if not attached:
        moved = {id(mnt) for mnt in tree}
        vfs.mounts = [mnt for mnt in vfs.mounts if id(mnt) not in moved] + tree
    for mnt in tree:
        mnt.mnt_ns = at.mnt.mnt_ns
    if at.mnt.shared is not None:
        from guest.propagation import propagate_mnt

        propagate_mnt(task, at.mnt, at.dentry, old)


def is_anonymous(mnt: Mount) -> bool:
    """is_anon_ns(): whether its tree is of a descriptor."""
    return mnt.mnt_ns is not None and mnt.mnt_ns.anonymous


def umount_tree(task: Task, mnt: Mount) -> None:
    """Take a mount and all on it out of the namespace; file systems nobody has mounted any more let go of memory."""
    vfs = task.kernel.vfs
    gone = list(reversed(list(subtree(vfs, mnt))))
    if any(one.mnt_parent.shared is not None for one in gone):
        from guest.propagation import propagate_umount

        gone = propagate_umount(task, gone[::-1])
    for one in gone:
        one.mounted, one.mnt_ns = False, None
        vfs.mnt_ids.discard(one.mnt_id)
        vfs.next_mnt = min(vfs.next_mnt, one.mnt_id)
        detach(one)
    vfs.mounts = [one for one in vfs.mounts if one.mounted]
    discard(task, gone)
    left = {id(one.mnt_sb) for one in (*vfs.mounts, *vfs.internal.values())}
    for one in gone:
        if id(one.mnt_sb) not in left and not in_use(task, one):
            left.add(id(one.mnt_sb))
            one.mnt_sb.unmounted()


def do_umount(task: Task, mnt: Mount, flags: int) -> None:
    """umount2() of a mount. Raises EINVAL, EAGAIN, EBUSY, EPERM."""
    vfs = task.kernel.vfs
    if flags & MNT_EXPIRE:
        if mnt is task.fs.root.mnt or flags & (MNT_FORCE | MNT_DETACH):
            raise Errno(errno.EINVAL)
        if in_use(task, mnt) or children_of(vfs, mnt):
            raise Errno(errno.EBUSY)
        if not mnt.mnt_expiry_mark:
            mnt.mnt_expiry_mark = True
            raise Errno(errno.EAGAIN)
    if mnt is task.fs.root.mnt and not flags & MNT_DETACH:
        raise Errno(errno.EBUSY)  # the root would be made read-only: files are open for writing
    if not flags & MNT_DETACH:
        if in_use(task, mnt) or children_of(vfs, mnt):
            raise Errno(errno.EBUSY)
        if mnt.mnt_parent.shared is not None:
            from guest.propagation import propagated_busy

            if propagated_busy(task, mnt):
                raise Errno(errno.EBUSY)
    if mnt.mnt_parent is mnt:
        raise Errno(errno.EBUSY if not flags & MNT_DETACH else errno.EINVAL)  # what the machine itself stands on
    umount_tree(task, mnt)


def in_use(task: Task, mount: Mount) -> bool:
    """Whether a task has a file of it open or mapped, or its root or working directory there."""
    for other in task.kernel.tasks.values():
        paths = [other.fs.root, other.fs.pwd] if other.fs is not None else []
        files = [file for file in other.files.fd if file is not None] if other.files is not None else []
        vma = other.mm.mmap if other.mm is not None else None
        while vma is not None:
            files.append(vma.vm_file)
            vma = vma.vm_next
        paths += [file.f_path for file in files if hasattr(file, "f_path")]
        if any(path.mnt is mount for path in paths):
            return True
    return False


def make_readonly(task: Task, mnt: Mount) -> None:
    """mnt_make_readonly(). Raises EBUSY while files of it are open for writing."""
    if has_writers(task, lambda other: other is mnt):
        raise Errno(errno.EBUSY)
    mnt.mnt_flags |= MNT_READONLY


def has_writers(task: Task, which: object) -> bool:
    """Whether a file is open for writing on a mount `which` says yes to."""
    from guest.vfs_flags import FMODE_WRITER

    tables = {id(other.files): other.files for other in task.kernel.tasks.values() if other.files is not None}
    files = [file for table in tables.values() for file in table.fd if file is not None]
    return any(file.f_mode & FMODE_WRITER and which(file.f_path.mnt) for file in files)  # type: ignore[operator]


# namespaces


def copy_mnt_ns(task: Task, number: int) -> MntNamespace:
    """A namespace with a copy of the task's tree. What the task stands on is switched by enter_copy()."""
    vfs = task.kernel.vfs
    old = current_ns(task)
    root = old.root if old is not None else vfs.root.mnt
    pairs = copy_tree(task, root, root.mnt_root, True)
    ns = MntNamespace(number, pairs[0][1])
    commit_tree(vfs, [clone for _, clone in pairs], ns)
    for original, clone in pairs:
        clone.copied_from = original
    return ns


def enter_copy(task: Task, ns: MntNamespace) -> None:
    """Root and working directory of the task's own FsStruct: the same places in the copied tree."""
    for mnt in subtree(task.kernel.vfs, ns.root):
        original, mnt.copied_from = mnt.copied_from, None
        if original is None:
            continue
        if task.fs.root.mnt is original:
            task.fs.root = Path(mnt, task.fs.root.dentry)
        if task.fs.pwd.mnt is original:
            task.fs.pwd = Path(mnt, task.fs.pwd.dentry)


def join(task: Task, ns: Namespace) -> None:
    """setns(): the root of the other tree is root and working directory."""
    from guest.namei import traverse_mounts

    vfs = task.kernel.vfs
    root = ns.root if isinstance(ns, MntNamespace) else vfs.root.mnt
    task.fs.root = task.fs.pwd = traverse_mounts(Path(root, root.mnt_root))


def leave(task: Task, ns: Namespace) -> None:
    """A task goes: with the last one in a namespace, its mounts go."""
    if not isinstance(ns, MntNamespace):
        return
    others = (other for other in task.kernel.tasks.values() if other is not task)
    if not any(other.nsproxy is not None and other.nsproxy.spaces[CLONE_NEWNS] is ns for other in others):
        if ns.root.mounted:
            umount_tree(task, ns.root)


def pivot_root(task: Task, new: Path, old: Path) -> None:
    """Make one folder the root, and hang the old root on another. Raises EINVAL, ENOENT, EBUSY."""
    root = task.fs.root
    at = lock_mount(old)
    invalid = Errno(errno.EINVAL)
    new_mnt, root_mnt = new.mnt, root.mnt
    if any(mnt.shared is not None for mnt in (at.mnt, new_mnt.mnt_parent, root_mnt.mnt_parent)):
        raise invalid
    if not check_mnt(task, root_mnt) or not check_mnt(task, new_mnt):
        raise invalid
    if new.dentry.d_unhashed:
        raise Errno(errno.ENOENT)
    if new_mnt is root_mnt or at.mnt is root_mnt:
        raise Errno(errno.EBUSY)
    if root_mnt.mnt_root is not root.dentry or root_mnt.mnt_parent is root_mnt:
        raise invalid
    if new_mnt.mnt_root is not new.dentry or new_mnt.mnt_parent is new_mnt:
        raise invalid
    if not _reachable(at, new) or not _reachable(new, root):
        raise invalid
    above, where = root_mnt.mnt_parent, root_mnt.mnt_mountpoint
    detach(new_mnt)
    detach(root_mnt)
    for mnt, parent, mountpoint in ((root_mnt, at.mnt, at.dentry), (new_mnt, above, where)):
        mnt.mnt_parent, mnt.mnt_mountpoint = parent, mountpoint
        mountpoint.d_mounts.append(mnt)
    for other in task.kernel.tasks.values():
        if other.fs is not None:
            other.fs.root = new if other.fs.root == root else other.fs.root
            other.fs.pwd = new if other.fs.pwd == root else other.fs.pwd


def _reachable(path: Path, root: Path) -> bool:
    """is_path_reachable(): whether `path` lies at or below `root`."""
    mnt, dentry = path.mnt, path.dentry
    while mnt is not root.mnt and mnt.mnt_parent is not mnt:
        mnt, dentry = mnt.mnt_parent, mnt.mnt_mountpoint
    return mnt is root.mnt and root.dentry.is_ancestor_of(dentry)
