"""read, write and their variants, lseek, truncate, sync (fs/read_write.c, open.c, sync.c).

A descriptor's data passes through in chunks. A call that has moved some bytes and then meets trouble returns their
number; one that sleeps keeps it in `task.wait_state`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.namei import LOOKUP_FOLLOW, filename_lookup, inode_permission, mnt_want_write
from guest.sched import Restart
from guest.siginfo import SIGXFSZ
from guest.syscalls import FULL, PARTIAL, Call
from guest.vfs_flags import (
    AT_FDCWD,
    FMODE_LSEEK,
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    FMODE_WRITE,
    MAX_LFS_FILESIZE,
    MAY_WRITE,
    O_APPEND,
    O_WRONLY,
    PATH_MAX,
    S_IFMT,
    S_IFSOCK,
    SEEK_HOLE,
    s32,
    s64,
)
from mm.errors import Errno
from mm.flags import RLIM_INFINITY, RLIMIT_FSIZE
from mm.uaccess import access_ok, copy_from_user, copy_from_user_partial, copy_to_user_partial, strncpy_from_user

if TYPE_CHECKING:
    from guest.file import OpenFile
    from guest.task import Task
    from guest.vfs_types import Inode

UIO_MAXIOV = 1024
_CHUNK = 1 << 20
_INT_MAX = 0x7FFFFFFF
_HIPRI_FLAGS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10  # RWF_HIPRI, DSYNC, SYNC, NOWAIT, APPEND
RWF_APPEND = 0x10


def getname(task: Task, address: int) -> bytes:
    """A path from the guest. Raises EFAULT, ENAMETOOLONG."""
    name = strncpy_from_user(task, address, PATH_MAX)
    if len(name) >= PATH_MAX:
        raise Errno(errno.ENAMETOOLONG)
    return name


def max_rw_count(task: Task) -> int:
    """MAX_RW_COUNT: the most bytes one call moves."""
    return _INT_MAX & task.system.arch.page_mask


def readable(task: Task, fd: int) -> OpenFile:
    """A descriptor open for reading. Raises EBADF."""
    file: OpenFile = task.files.get(s32(fd))
    if not file.f_mode & FMODE_READ:
        raise Errno(errno.EBADF)
    return file


def writable(task: Task, fd: int) -> OpenFile:
    """A descriptor open for writing. Raises EBADF."""
    file: OpenFile = task.files.get(s32(fd))
    if not file.f_mode & FMODE_WRITE:
        raise Errno(errno.EBADF)
    return file


def rw_verify_area(task: Task, pos: int, count: int) -> int:
    """The bytes a call may move. Raises EINVAL, EOVERFLOW."""
    if count >> 63:
        raise Errno(errno.EINVAL)
    if pos < 0:
        raise Errno(errno.EINVAL)
    if pos + count > MAX_LFS_FILESIZE:
        raise Errno(errno.EINVAL if count else errno.EOVERFLOW)
    return min(count, max_rw_count(task))


# moving data


def do_read(task: Task, file: OpenFile, pos: int, areas: list[tuple[int, int]]) -> int:
    """Read into the areas (address, length); how many bytes. The caller advances the position."""
    done = 0
    left = sum(length for _, length in areas)
    while True:
        try:
            data = file.read(task, pos + done, min(left, _CHUNK))
        except (Errno, Restart):
            if done:
                return done
            raise
        copied = scatter(task, areas, done, data)
        if file.stream:
            file.consume(copied)
        done += copied
        left -= copied
        if copied < len(data):
            if not done:
                raise Errno(errno.EFAULT)
            return done
        if not left or len(data) < _CHUNK:
            return done


def scatter(task: Task, areas: list[tuple[int, int]], skip: int, data: bytes) -> int:
    """Copy `data` into the areas from byte `skip` of theirs on; how much was copied before a fault."""
    if len(areas) == 1:
        return copy_to_user_partial(task, areas[0][0] + skip, data)
    done = 0
    for address, length in areas:
        if skip >= length:
            skip -= length
            continue
        part = data[done : done + length - skip]
        if not part:
            break
        copied = copy_to_user_partial(task, address + skip, part)
        done += copied
        if copied < len(part):
            break
        skip = 0
    return done


def gather(task: Task, areas: list[tuple[int, int]], skip: int, count: int) -> bytes:
    """Up to `count` bytes of the areas from byte `skip` on; fewer before a fault."""
    if len(areas) == 1:
        return copy_from_user_partial(task, areas[0][0] + skip, count)
    out = b""
    for address, length in areas:
        if skip >= length:
            skip -= length
            continue
        wanted = min(length - skip, count - len(out))
        if not wanted:
            break
        part = copy_from_user_partial(task, address + skip, wanted)
        out += part
        if len(part) < wanted:
            break
        skip = 0
    return out


def do_write(task: Task, file: OpenFile, pos: int, areas: list[tuple[int, int]]) -> int:
    """Write the areas; how many bytes. Sleeps until all is written, as blocking writes do."""
    left = sum(length for _, length in areas)
    if left == 0:
        no_effect = file.stream and file.f_inode.i_mode & S_IFMT != S_IFSOCK  # a socket sends an empty message
        return 0 if no_effect else file.write(task, pos, b"")
    done: int = task.wait_state.get("done", 0)
    left -= done
    while True:
        wanted = min(left, _CHUNK)
        data = gather(task, areas, done, wanted)
        if not data:
            if done:
                return done
            raise Errno(errno.EFAULT)
        try:
            moved = file.write(task, pos + done, data)
        except (Errno, Restart):
            if done:
                return done
            raise
        done += moved
        left -= moved
        if not left or (moved < len(data) and not file.stream):
            return done
        if file.stream:
            task.wait_state["done"] = done


def write_checks(task: Task, file: OpenFile, pos: int, count: int, append: bool = False) -> tuple[int, int]:
    """generic_write_checks(): where the write goes and how long it may be. Raises EFBIG with SIGXFSZ."""
    inode = file.f_inode
    if not inode.is_reg() or file.stream:
        return pos, count
    if file.f_flags & O_APPEND or append:
        pos = inode.i_size
    limit = task.rlim[RLIMIT_FSIZE][0] if task.rlim else RLIM_INFINITY
    if limit != RLIM_INFINITY:
        if pos >= limit and count:
            send_sigxfsz(task)
            raise Errno(errno.EFBIG)
        count = min(count, limit - pos)
    if pos >= MAX_LFS_FILESIZE and count:
        raise Errno(errno.EFBIG)
    return pos, count


def send_sigxfsz(task: Task) -> None:
    """send_sig(SIGXFSZ, current, 0)."""
    from guest.siginfo import SI_USER, kill_info
    from guest.signal import send_signal

    send_signal(kill_info(SIGXFSZ, SI_USER, task.vnr(task.tgid), task.cred.uid), task, False)


def remove_suid(task: Task, inode: Inode) -> None:
    """file_remove_privs(): a write by somebody without CAP_FSETID clears set-id bits."""
    kill = inode.should_remove_suid()
    if kill and not task.capable(4):
        inode.i_mode &= ~kill


def write_file(
    task: Task, file: OpenFile, pos: int, areas: list[tuple[int, int]], append: bool = False
) -> tuple[int, int]:
    """The checked write of all variants; bytes written and the position behind them."""
    count = sum(length for _, length in areas)
    pos, allowed = write_checks(task, file, pos, count, append)
    if allowed < count:
        areas = clip(areas, allowed)
    if count and file.f_inode.i_mode & 0o6000:
        remove_suid(task, file.f_inode)
    done = do_write(task, file, pos, areas)
    return done, pos + done


def clip(areas: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The first `count` bytes of the areas."""
    out = []
    for address, length in areas:
        out.append((address, min(length, count)))
        count -= out[-1][1]
        if not count:
            break
    return out


def import_iovec(task: Task, address: int, count: int) -> list[tuple[int, int]]:
    """(address, length) pairs, together at most MAX_RW_COUNT. Raises EINVAL, EFAULT."""
    if count > UIO_MAXIOV:
        raise Errno(errno.EINVAL)
    raw = copy_from_user(task, address, 16 * count) if count else b""
    words = memoryview(raw).cast("Q")
    out, total, most = [], 0, max_rw_count(task)
    for index in range(0, len(words), 2):
        base, length = words[index], words[index + 1]
        if length >> 63:
            raise Errno(errno.EINVAL)
        if length and not access_ok(task, base, length):
            raise Errno(errno.EFAULT)
        length = min(length, most - total)
        total += length
        if length:
            out.append((base, length))
    return out


# calls


def sys_read(task: Task, fd: int, buf: int, count: int) -> int:
    """read(2)."""
    return read_current(task, readable(task, fd), [(buf, count)])


def read_current(task: Task, file: OpenFile, areas: list[tuple[int, int]]) -> int:
    """Read at the file's position and move it."""
    total = sum(length for _, length in areas)
    pos = 0 if file.stream else file.f_pos
    allowed = rw_verify_area(task, pos, total)
    if allowed < total:
        areas = clip(areas, allowed)
    done = do_read(task, file, pos, areas)
    if not file.stream:
        file.f_pos = pos + done
    return done


def write_current(task: Task, file: OpenFile, areas: list[tuple[int, int]]) -> int:
    """Write at the file's position and move it."""
    total = sum(length for _, length in areas)
    pos = 0 if file.stream else file.f_pos
    allowed = rw_verify_area(task, pos, total)
    if allowed < total:
        areas = clip(areas, allowed)
    done, pos = write_file(task, file, pos, areas)
    if not file.stream:
        file.f_pos = pos
    return done


def sys_write(task: Task, fd: int, buf: int, count: int) -> int:
    """write(2)."""
    return write_current(task, writable(task, fd), [(buf, count)])


def sys_readv(task: Task, fd: int, vec: int, vlen: int) -> int:
    """readv(2)."""
    file = readable(task, fd)
    areas = import_iovec(task, vec, vlen)
    return read_current(task, file, areas) if areas else 0


def sys_writev(task: Task, fd: int, vec: int, vlen: int) -> int:
    """writev(2)."""
    file = writable(task, fd)
    areas = import_iovec(task, vec, vlen)
    return write_current(task, file, areas) if areas else 0


def positioned(file: OpenFile, ability: int) -> None:
    """Raises ESPIPE for files without positions."""
    if not file.f_mode & ability:
        raise Errno(errno.ESPIPE)


def sys_pread64(task: Task, fd: int, buf: int, count: int, pos: int) -> int:
    """pread64(2)."""
    return read_at(task, fd, [(buf, count)], s64(pos))


def read_at(task: Task, fd: int, areas: list[tuple[int, int]], pos: int) -> int:
    """Read at `pos`; the file's position stays."""
    if pos < 0:
        raise Errno(errno.EINVAL)
    file = task.files.get(s32(fd))
    positioned(file, FMODE_PREAD)
    if not file.f_mode & FMODE_READ:
        raise Errno(errno.EBADF)
    total = sum(length for _, length in areas)
    allowed = rw_verify_area(task, pos, total)
    return do_read(task, file, pos, clip(areas, allowed) if allowed < total else areas)


def sys_pwrite64(task: Task, fd: int, buf: int, count: int, pos: int) -> int:
    """pwrite64(2)."""
    return write_at(task, fd, [(buf, count)], s64(pos))


def write_at(task: Task, fd: int, areas: list[tuple[int, int]], pos: int) -> int:
    """Write at `pos` (at the end with O_APPEND); the file's position stays."""
    if pos < 0:
        raise Errno(errno.EINVAL)
    file = task.files.get(s32(fd))
    positioned(file, FMODE_PWRITE)
    if not file.f_mode & FMODE_WRITE:
        raise Errno(errno.EBADF)
    total = sum(length for _, length in areas)
    allowed = rw_verify_area(task, pos, total)
    return write_file(task, file, pos, clip(areas, allowed) if allowed < total else areas)[0]


def sys_preadv(task: Task, fd: int, vec: int, vlen: int, pos: int) -> int:
    """preadv(2): the position's low word holds all of it on 64 bits."""
    if s64(pos) < 0:
        raise Errno(errno.EINVAL)
    file = task.files.get(s32(fd))
    positioned(file, FMODE_PREAD)
    areas = import_iovec(task, vec, vlen)
    return read_at(task, fd, areas, s64(pos)) if areas else 0


def sys_pwritev(task: Task, fd: int, vec: int, vlen: int, pos: int) -> int:
    """pwritev(2)."""
    if s64(pos) < 0:
        raise Errno(errno.EINVAL)
    file = task.files.get(s32(fd))
    positioned(file, FMODE_PWRITE)
    areas = import_iovec(task, vec, vlen)
    return write_at(task, fd, areas, s64(pos)) if areas else 0


def sys_preadv2(task: Task, fd: int, vec: int, vlen: int, pos: int, pos_h: int, flags: int) -> int:
    """preadv2(2)."""
    if flags & ~_HIPRI_FLAGS:
        raise Errno(errno.EOPNOTSUPP)
    return sys_readv(task, fd, vec, vlen) if s64(pos) == -1 else sys_preadv(task, fd, vec, vlen, pos)


def sys_pwritev2(task: Task, fd: int, vec: int, vlen: int, pos: int, pos_h: int, flags: int) -> int:
    """pwritev2(2)."""
    if flags & ~_HIPRI_FLAGS:
        raise Errno(errno.EOPNOTSUPP)
    if flags & RWF_APPEND:
        file = writable(task, fd)
        areas = import_iovec(task, vec, vlen)
        done, pos_after = write_file(task, file, 0, areas, append=True) if areas else (0, 0)
        if s64(pos) == -1 and done:
            file.f_pos = pos_after
        return done
    return sys_writev(task, fd, vec, vlen) if s64(pos) == -1 else sys_pwritev(task, fd, vec, vlen, pos)


def sys_lseek(task: Task, fd: int, offset: int, whence: int) -> int:
    """lseek(2). Raises ESPIPE for pipes and terminals."""
    file = task.files.get(s32(fd))
    if s32(whence) > SEEK_HOLE or s32(whence) < 0:
        raise Errno(errno.EINVAL)
    if not file.f_mode & FMODE_LSEEK:
        raise Errno(errno.ESPIPE)
    pos: int = file.llseek(task, s64(offset), s32(whence))
    return pos


def do_truncate(task: Task, inode: Inode, length: int) -> None:
    """Set the length. Raises EFBIG with SIGXFSZ."""
    newsize_ok(task, inode, length)
    remove_suid(task, inode)
    inode.truncate(length)


def newsize_ok(task: Task, inode: Inode, length: int) -> None:
    """May the file become so long? (inode_newsize_ok) Raises EFBIG with SIGXFSZ above RLIMIT_FSIZE."""
    if length > inode.i_size:
        limit = task.rlim[RLIMIT_FSIZE][0] if task.rlim else RLIM_INFINITY
        if limit != RLIM_INFINITY and length > limit:
            send_sigxfsz(task)
            raise Errno(errno.EFBIG)


def sys_truncate(task: Task, path: int, length: int) -> int:
    """truncate(2)."""
    length = s64(length)
    if length < 0:
        raise Errno(errno.EINVAL)
    at = filename_lookup(task, AT_FDCWD, getname(task, path), LOOKUP_FOLLOW)
    inode = at.dentry.d_inode
    if inode.is_dir():
        raise Errno(errno.EISDIR)
    if not inode.is_reg():
        raise Errno(errno.EINVAL)
    mnt_want_write(at.mnt)
    inode_permission(task, inode, MAY_WRITE)
    if inode.i_writecount < 0:
        raise Errno(errno.ETXTBSY)
    if inode.i_flctx is not None and inode.i_flctx.leases:
        from guest.sys_lease import break_lease

        break_lease(task, inode, O_WRONLY)
    do_truncate(task, inode, length)
    return 0


def sys_ftruncate(task: Task, fd: int, length: int) -> int:
    """ftruncate(2)."""
    length = s64(length)
    if length < 0:
        raise Errno(errno.EINVAL)
    file = task.files.get(s32(fd))
    if not file.f_inode.is_reg() or not file.f_mode & FMODE_WRITE:
        raise Errno(errno.EINVAL)
    do_truncate(task, file.f_inode, length)
    return 0


def sys_fallocate(task: Task, fd: int, mode: int, offset: int, length: int) -> int:
    """fallocate(2)."""
    file = task.files.get(s32(fd))
    mode, offset, length = s32(mode), s64(offset), s64(length)
    if offset < 0 or length <= 0:
        raise Errno(errno.EINVAL)
    if mode & ~0x7F:
        raise Errno(errno.EOPNOTSUPP)
    if mode & 0x12 == 0x12:
        raise Errno(errno.EOPNOTSUPP)
    if mode & 2 and not mode & 1:
        raise Errno(errno.EOPNOTSUPP)
    if not file.f_mode & FMODE_WRITE:
        raise Errno(errno.EBADF)
    if mode & ~1 and file.f_flags & O_APPEND:
        raise Errno(errno.EPERM)
    if file.f_inode.is_fifo():
        raise Errno(errno.ESPIPE)
    if file.f_inode.is_dir():
        raise Errno(errno.EISDIR)
    if not file.f_inode.is_reg():
        raise Errno(errno.ENODEV)
    if offset + length > MAX_LFS_FILESIZE:
        raise Errno(errno.EFBIG)
    file.fallocate(task, mode, offset, length)
    return 0


def sys_fsync(task: Task, fd: int) -> int:
    """fsync(2)."""
    task.files.get(s32(fd)).fsync(False)
    return 0


def sys_fdatasync(task: Task, fd: int) -> int:
    """fdatasync(2)."""
    task.files.get(s32(fd)).fsync(True)
    return 0


def sys_sync(task: Task) -> int:
    """sync(2): everything that is written through is written already."""
    return 0


def sys_syncfs(task: Task, fd: int) -> int:
    """syncfs(2)."""
    task.files.get(s32(fd))
    return 0


def sys_sync_file_range(task: Task, fd: int, offset: int, nbytes: int, flags: int) -> int:
    """sync_file_range(2)."""
    file = task.files.get(s32(fd))
    if flags & ~7 or s64(offset) < 0 or s64(offset) + s64(nbytes) < s64(offset):
        raise Errno(errno.EINVAL)
    if not (file.f_inode.is_reg() or file.f_inode.is_dir() or file.f_inode.is_lnk()):
        raise Errno(errno.ESPIPE)
    return 0


def sys_fadvise64(task: Task, fd: int, offset: int, length: int, advice: int) -> int:
    """fadvise64(2): advice about a cache that holds everything."""
    file = task.files.get(s32(fd))
    if file.f_inode.is_fifo():
        raise Errno(errno.ESPIPE)
    if s64(length) < 0 or s32(advice) not in range(6):
        raise Errno(errno.EINVAL)
    return 0


def sys_readahead(task: Task, fd: int, offset: int, count: int) -> int:
    """readahead(2): everything is cached; only the checks are left. tmpfs files are refused, as they are there."""
    file = readable(task, fd)
    if not file.f_inode.is_reg():
        raise Errno(errno.EINVAL)
    return 0


CALLS = (
    Call("read", sys_read, FULL, ""),
    Call("write", sys_write, FULL, ""),
    Call("readv", sys_readv, FULL, ""),
    Call("writev", sys_writev, FULL, ""),
    Call("pread64", sys_pread64, FULL, ""),
    Call("pwrite64", sys_pwrite64, FULL, ""),
    Call("preadv", sys_preadv, FULL, ""),
    Call("pwritev", sys_pwritev, FULL, ""),
    Call("preadv2", sys_preadv2, PARTIAL, "RWF_APPEND acts; the other RWF_ flags are accepted"),
    Call("pwritev2", sys_pwritev2, PARTIAL, "RWF_APPEND acts; the other RWF_ flags are accepted"),
    Call("lseek", sys_lseek, FULL, ""),
    Call("truncate", sys_truncate, FULL, ""),
    Call("ftruncate", sys_ftruncate, FULL, ""),
    Call("fallocate", sys_fallocate, FULL, "as tmpfs: allocate, keep size, punch hole"),
    Call("fsync", sys_fsync, FULL, ""),
    Call("fdatasync", sys_fdatasync, FULL, ""),
    Call("sync", sys_sync, FULL, ""),
    Call("syncfs", sys_syncfs, FULL, ""),
    Call("sync_file_range", sys_sync_file_range, FULL, ""),
    Call("fadvise64", sys_fadvise64, FULL, "advice is taken and has nothing to change"),
    Call("readahead", sys_readahead, FULL, ""),
)
