"""Path walk, permission, open flags, and the operations on names."""

import errno
import os

import pytest
from guest_world import World

O_CREAT, O_EXCL, O_TRUNC, O_APPEND = 0o100, 0o200, 0o1000, 0o2000
O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE = 0o200000, 0o400000, 0o10000000, 0o20200000
AT_REMOVEDIR, AT_EMPTY_PATH = 0x200, 0x1000


@pytest.fixture
def world() -> World:
    return World()


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


def test_links_dots_and_slashes(world: World) -> None:
    for path in ("/tmp/d", "/tmp/d/e"):
        assert world.call("mkdir", path, 0o755) == 0
    world.call("close", world.open("/tmp/d/f", O_CREAT | 1))
    assert world.call("symlink", "../d/e/..", "/tmp/d/up") == 0
    assert world.open("/tmp/d/up/f") >= 0
    assert world.open("/tmp/d/e/../../d/./f") >= 0
    assert world.open("/../../tmp/d/f") >= 0
    assert name(world.open("/tmp/d/f/")) == "ENOTDIR"
    assert name(world.open("/tmp/d/f/..")) == "ENOTDIR"
    assert name(world.open("")) == "ENOENT"
    assert name(world.open("/tmp/" + "x" * 256)) == "ENAMETOOLONG"
    assert name(world.open("/tmp/" + "x/" * 2100)) == "ENAMETOOLONG"


def test_forty_links_and_no_more(world: World) -> None:
    world.call("close", world.open("/tmp/l0", O_CREAT | 1))
    for i in range(1, 42):
        world.call("symlink", f"l{i - 1}", f"/tmp/l{i}")
    assert world.open("/tmp/l40") >= 0
    assert name(world.open("/tmp/l41")) == "ELOOP"
    world.call("symlink", "self", "/tmp/self")
    assert name(world.open("/tmp/self")) == "ELOOP"


@pytest.mark.parametrize(
    ("path", "flags", "expected"),
    [
        ("/tmp/new", O_CREAT | 1, "ok"),
        ("/tmp/f", O_CREAT | O_EXCL | 1, "EEXIST"),
        ("/tmp/dangling", O_CREAT | O_EXCL | 1, "EEXIST"),
        ("/tmp/dangling", O_CREAT | 1, "ok"),
        ("/tmp/link", O_NOFOLLOW, "ELOOP"),
        ("/tmp/link", O_NOFOLLOW | O_PATH, "ok"),
        ("/tmp/f", O_DIRECTORY, "ENOTDIR"),
        ("/tmp/d", 1, "EISDIR"),
        ("/tmp/d", O_CREAT, "EISDIR"),
        ("/tmp/d/", O_CREAT | 1, "EISDIR"),
        ("/tmp/new/", O_CREAT | 1, "EISDIR"),
        ("/tmp/nothing", 0, "ENOENT"),
        ("/tmp/d", O_TMPFILE | 2, "ok"),
        ("/tmp/d", O_TMPFILE, "EINVAL"),
        ("/tmp/f", O_TMPFILE | 2, "ENOTDIR"),
        ("/proc/new", O_CREAT | 1, "ENOENT"),
    ],
)
def test_open_flags(world: World, path: str, flags: int, expected: str) -> None:
    world.call("mkdir", "/tmp/d", 0o755)
    world.call("close", world.open("/tmp/f", O_CREAT | 1))
    world.call("symlink", "f", "/tmp/link")
    world.call("symlink", "nowhere", "/tmp/dangling")
    assert name(world.open(path, flags)) == expected


def test_truncate_and_append(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    world.write(fd, b"0123456789")
    world.call("close", fd)
    fd = world.open("/tmp/f", O_APPEND | 2)
    world.write(fd, b"ab")
    assert world.call("pwrite64", fd, b"cd", 2, 0) == 2  # O_APPEND wins over the position
    assert world.cat("/tmp/f") == b"0123456789abcd"
    world.call("close", world.open("/tmp/f", O_TRUNC | 1))
    assert world.cat("/tmp/f") == b""


def test_permission_of_another_user(world: World) -> None:
    user = world.new_task(uid=1000)
    world.call("mkdir", "/tmp/private", 0o700)
    world.call("close", world.open("/tmp/private/f", O_CREAT | 1))
    world.call("close", world.open("/tmp/readable", O_CREAT | 1, 0o644))
    assert name(world.open("/tmp/private/f", task=user)) == "EACCES"
    assert name(world.open("/tmp/readable", 1, task=user)) == "EACCES"
    assert name(world.call("access", "/tmp/readable", 4, task=user)) == "ok"
    assert name(world.call("chmod", "/tmp/readable", 0o777, task=user)) == "EPERM"
    assert name(world.call("unlink", "/tmp/readable", task=user)) == "EPERM"  # /tmp is sticky
    fd = world.open("/tmp/own", O_CREAT | 1, 0o644, task=user)
    assert fd >= 0
    assert name(world.call("fchown", fd, 0, 0, task=user)) == "EPERM"
    assert name(world.call("unlink", "/tmp/own", task=user)) == "ok"
    assert name(world.call("chroot", "/tmp", task=user)) == "EPERM"


def test_rename(world: World) -> None:
    for path in ("/tmp/a", "/tmp/a/b", "/tmp/c"):
        world.call("mkdir", path, 0o755)
    world.call("close", world.open("/tmp/a/f", O_CREAT | 1))
    assert name(world.call("rename", "/tmp/a", "/tmp/a/b/x")) == "EINVAL"
    assert name(world.call("rename", "/tmp/a/b", "/tmp/a")) == "ENOTEMPTY"
    assert name(world.call("rename", "/tmp/a/f", "/tmp/c")) == "EISDIR"
    assert name(world.call("rename", "/tmp/c", "/tmp/a/f")) == "ENOTDIR"
    assert name(world.call("rename", "/tmp/a/.", "/tmp/z")) == "EBUSY"
    assert name(world.call("rename", "/tmp/a", "/dev/shm/a")) == "EXDEV"
    assert name(world.call("renameat2", -100, "/tmp/a", -100, "/tmp/c", 1)) == "EEXIST"
    assert name(world.call("renameat2", -100, "/tmp/a", -100, "/tmp/c", 2)) == "ok"
    fd = world.open("/tmp/c/f")
    assert fd >= 0
    assert name(world.call("rename", "/tmp/c/f", "/tmp/g")) == "ok"
    assert world.task.files.get(fd).d_path() == "/tmp/g"
    world.call("unlink", "/tmp/g")
    assert world.task.files.get(fd).d_path() == "/tmp/g (deleted)"


def test_unlinked_file_lives_while_it_is_open(world: World) -> None:
    fd = world.open("/tmp/f", O_CREAT | 2)
    world.write(fd, b"x" * 5000)
    before = world.system.nr_free_pages()
    assert world.call("unlink", "/tmp/f") == 0
    assert world.call("pread64", fd, bytes(10), 10, 4995) == 5
    assert world.system.nr_free_pages() == before
    world.call("close", fd)
    assert world.system.nr_free_pages() == before + 2


def test_links_count(world: World) -> None:
    world.call("close", world.open("/tmp/f", O_CREAT | 1))
    assert world.call("link", "/tmp/f", "/tmp/g") == 0
    inode = world.kernel.vfs.open_exec  # the inode through an open file
    assert inode is not None
    fd = world.open("/tmp/g")
    assert world.task.files.get(fd).f_inode.i_nlink == 2
    world.call("unlink", "/tmp/f")
    assert world.task.files.get(fd).f_inode.i_nlink == 1
    assert name(world.call("link", "/tmp", "/tmp/h")) == "EPERM"
    tmp = world.open("/tmp", O_TMPFILE | 2)
    assert name(world.call("linkat", tmp, "", -100, "/tmp/named", AT_EMPTY_PATH)) == "ok"
    assert world.open("/tmp/named") >= 0


def test_removed_working_directory(world: World) -> None:
    world.call("mkdir", "/tmp/d", 0o755)
    assert world.call("chdir", "/tmp/d") == 0
    buf = world.put(bytes(64))
    assert world.get(buf, world.call("getcwd", buf, 64)) == b"/tmp/d\0"
    assert name(world.call("getcwd", buf, 3)) == "ERANGE"
    assert world.call("rmdir", "/tmp/d") == 0
    assert name(world.call("getcwd", buf, 64)) == "ENOENT"
    assert name(world.open("x", O_CREAT | 1)) == "ENOENT"
    assert world.call("chdir", "..") == 0


def test_chroot_holds(world: World) -> None:
    world.call("mkdir", "/tmp/jail", 0o755)
    world.call("symlink", "/etc", "/tmp/jail/out")
    assert world.call("chroot", "/tmp/jail") == 0
    assert world.call("chdir", "/") == 0
    assert name(world.open("../../../dev/null")) == "ENOENT"
    assert name(world.open("/out/passwd")) == "ENOENT"
    assert os.path.exists("/etc/passwd")


def test_text_busy(world: World) -> None:
    fd = world.open("/tmp/prog", O_CREAT | 2, 0o755)
    with pytest.raises(Exception, match="ETXTBSY"):
        world.kernel.vfs.open_exec(world.task, b"/tmp/prog")
    world.call("close", fd)
    running = world.kernel.vfs.open_exec(world.task, b"/tmp/prog")
    assert name(world.open("/tmp/prog", 1)) == "ETXTBSY"
    assert name(world.call("truncate", "/tmp/prog", 0)) == "ETXTBSY"
    running.allow_write_access()
    assert name(world.open("/tmp/prog", 1)) == "ok"
    for path, reason in (("/tmp", "EACCES"), ("/tmp/none", "ENOENT")):
        with pytest.raises(Exception, match=reason):
            world.kernel.vfs.open_exec(world.task, path.encode())
