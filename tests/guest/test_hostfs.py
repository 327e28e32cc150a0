"""Host folders: the overlay, writing through, and that nothing escapes."""

import errno
import os
import pathlib
import pickle
import threading

import pytest
from guest_world import World

O_CREAT, O_TRUNC, O_NOFOLLOW = 0o100, 0o1000, 0o400000


def name(result: int) -> str:
    return errno.errorcode[-result] if result < 0 else "ok"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"from the host")
    (root / "hard").write_bytes(b"two names")
    os.link(root / "hard", root / "d" / "hard2")
    (root / "link").symlink_to("d/f")
    (tmp_path / "secret").write_text("secret")
    return root


def listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def test_overlay_leaves_the_host_alone(folder: pathlib.Path) -> None:
    before = listing(folder)
    world = World(root=str(folder))
    assert world.cat("/link") == b"from the host"
    fd = world.open("/d/f", 2)
    world.write(fd, b"FROM")
    assert world.cat("/d/f") == b"FROM the host"
    world.call("close", world.open("/new", O_CREAT | 1))
    for call in (
        ("unlink", "/hard"), ("rename", "/d", "/moved"), ("mkdir", "/d", 0o755), ("chmod", "/moved/f", 0o600),
        ("symlink", "x", "/sym"), ("truncate", "/moved/f", 3), ("rmdir", "/moved/e"),
    ):  # fmt: skip
        assert name(world.call(*call)) == "ok", call
    assert world.cat("/moved/f") == b"FRO"
    assert world.cat("/moved/hard2") == b"two names"
    assert name(world.open("/hard")) == "ENOENT"
    assert name(world.open("/d/f")) == "ENOENT"
    assert listing(folder) == before
    assert not (folder / "new").exists()


def test_removed_names_stay_removed(folder: pathlib.Path) -> None:
    world = World(root=str(folder))
    assert world.call("unlink", "/d/f") == 0
    assert name(world.open("/d/f")) == "ENOENT"
    names = [e[0] for e in world.task.files.get(world.open("/d")).iterate(world.task)]
    assert names == [b".", b"..", b"e", b"hard2"]
    assert world.call("rmdir", "/d/e") == 0
    assert world.call("unlink", "/d/hard2") == 0
    assert world.call("rmdir", "/d") == 0


def test_hard_links_share_an_inode(folder: pathlib.Path) -> None:
    world = World(root=str(folder))
    a, b = (world.task.files.get(world.open(path)).f_inode for path in ("/hard", "/d/hard2"))
    assert a is b
    assert a.i_nlink == 2


def test_truncated_content_does_not_come_back(folder: pathlib.Path) -> None:
    world = World(root=str(folder))
    assert world.call("truncate", "/d/f", 4) == 0
    assert world.call("truncate", "/d/f", 13) == 0
    assert world.cat("/d/f") == b"from" + bytes(9)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/../../secret",
        "/abs",
        "/rel",
        "/dirlink/secret",
        "/d/../../secret",
        "/chain/secret",
        "/d/e/up/secret",
    ],
)
def test_no_path_leaves_the_root(folder: pathlib.Path, path: str) -> None:
    outside = folder.parent
    (folder / "abs").symlink_to(outside / "secret")
    (folder / "rel").symlink_to("../secret")
    (folder / "dirlink").symlink_to(outside)
    (folder / "chain").symlink_to("dirlink")
    (folder / "d" / "e" / "up").symlink_to("../../..")
    world = World(root=str(folder), rw=True)
    assert name(world.open(path)) == "ENOENT"
    assert name(world.call("truncate", path, 0)) == "ENOENT"
    assert name(world.call("unlink", path)) in ("ENOENT", "ok")  # ok: a link itself was removed
    assert (outside / "secret").read_text() == "secret"


def test_creating_through_an_outward_link_stays_inside(folder: pathlib.Path) -> None:
    (folder / "out").symlink_to(folder.parent / "planted")
    world = World(root=str(folder), rw=True)
    assert name(world.open("/out", O_CREAT | 1)) == "ENOENT"  # the folder it names does not exist in the guest
    assert not (folder.parent / "planted").exists()


def test_swapped_directory_is_not_followed(folder: pathlib.Path) -> None:
    """A host process replaces a directory by a link between lookup and use."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"outside content")
    world = World(root=str(folder), rw=True)
    fd = world.open("/d/f", 2)
    assert fd >= 0
    assert world.call("mkdir", "/d/known", 0o755) == 0
    os.rename(folder / "d", folder / "away")
    (folder / "d").symlink_to(outside)
    world.kernel.vfs.root.mnt.mnt_sb.close()  # forget descriptors, as after unpickling
    assert b"outside" not in world.cat("/d/f")
    assert name(world.call("pwrite64", fd, b"attack", 6, 0)) != "ok"
    assert name(world.open("/d/created", O_CREAT | 1)) != "ok"
    assert name(world.call("chmod", "/d/f", 0o777)) != "ok"
    assert name(world.call("mkdir", "/d/known/sub", 0o755)) != "ok"
    assert sorted(os.listdir(outside)) == ["f"]
    assert (outside / "f").read_bytes() == b"outside content"


def test_swapped_file_is_not_read(folder: pathlib.Path) -> None:
    world = World(root=str(folder))
    fd = world.open("/d/f")
    os.unlink(folder / "d" / "f")
    os.symlink(folder.parent / "secret", folder / "d" / "f")
    assert b"secret" not in world.read(fd)  # type: ignore[operator]


def test_race_between_lookup_and_rename(folder: pathlib.Path) -> None:
    """The same attack at full speed: a thread flips the entry while the guest reads."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"outside content")
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            os.rename(folder / "d", folder / "away")
            os.symlink(outside, folder / "d")
            os.unlink(folder / "d")
            os.rename(folder / "away", folder / "d")

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(60):
            world = World(root=str(folder), ram=4 << 20)
            fd = world.open("/d/f")
            if fd >= 0:
                assert b"outside" not in world.read(fd)  # type: ignore[operator]
    finally:
        stop.set()
        thread.join()


def test_special_files_of_the_host_are_not_opened(folder: pathlib.Path) -> None:
    os.mkfifo(folder / "fifo")
    world = World(root=str(folder))
    fd = world.open("/fifo", 2)  # O_RDWR opens at once: it is a FIFO of the guest's
    world.write(fd, b"x")
    assert world.read(fd) == b"x"
    host = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(host, 10) == b""  # nothing ever reached the host's
    os.close(host)


def test_write_through(folder: pathlib.Path) -> None:
    world = World(root=str(folder), rw=True)
    fd = world.open("/d/f", 2)
    world.write(fd, b"FROM")
    assert (folder / "d" / "f").read_bytes() == b"FROM the host"
    new = world.open("/d/new", O_CREAT | 2, 0o640)
    world.write(new, b"made")
    assert (folder / "d" / "new").read_bytes() == b"made"
    assert (folder / "d" / "new").stat().st_mode & 0o777 == 0o640
    for call in (
        ("mkdir", "/d/dir", 0o750), ("symlink", "f", "/d/s"), ("rename", "/d/new", "/d/dir/moved"), ("unlink", "/hard"),
        ("chmod", "/d/f", 0o600), ("truncate", "/d/f", 2), ("link", "/d/f", "/d/g"), ("rmdir", "/d/e"),
        ("rename", "/d", "/z"),
    ):  # fmt: skip
        assert name(world.call(*call)) == "ok", call
    world.call("pwrite64", new, b"M", 1, 0)
    assert (folder / "z" / "dir" / "moved").read_bytes() == b"Made"
    assert not (folder / "hard").exists()
    assert (folder / "z" / "f").stat().st_mode & 0o777 == 0o600
    assert (folder / "z" / "g").read_bytes() == b"FR"
    assert os.readlink(folder / "z" / "s") == "f"
    assert not (folder / "z" / "e").exists()
    assert world.cat("/z/hard2") == b"two names"  # reached by its other name now


def test_unlinked_but_open_keeps_its_content(folder: pathlib.Path) -> None:
    world = World(root=str(folder), rw=True)
    fd = world.open("/d/f")
    assert world.call("unlink", "/d/f") == 0
    assert not (folder / "d" / "f").exists()
    assert world.read(fd) == b"from the host"


def test_owner_and_mode(folder: pathlib.Path) -> None:
    os.chmod(folder / "d" / "f", 0o4751)
    world = World(root=str(folder))
    inode = world.task.files.get(world.open("/d/f")).f_inode
    assert (inode.i_uid, inode.i_gid, inode.i_mode & 0o7777) == (0, 0, 0o4751)


def test_mounts(folder: pathlib.Path) -> None:
    world = World(mounts=((str(folder / "d"), "/data/in", "ro"), (str(folder / "hard"), "/one", "ro")))
    assert world.cat("/data/in/f") == b"from the host"
    assert world.cat("/one") == b"two names"
    assert name(world.open("/data/in/../../../secret")) == "ENOENT"
    with pytest.raises(OSError):
        World(root=str(folder / "nothing"))


def test_survives_pickling(folder: pathlib.Path) -> None:
    world = World(root=str(folder))
    assert world.cat("/d/f") == b"from the host"
    sb = world.kernel.vfs.root.mnt.mnt_sb
    state = sb.__getstate__()
    assert state["root_fd"] == -1
    assert state["file_fds"] == {}
    assert pickle.loads(pickle.dumps(state["folder"])) == str(folder)
