"""-L: a folder in which absolute paths are looked up first."""

import errno
import pathlib

from guest_world import World


def test_files_of_the_prefix_come_first(tmp_path: pathlib.Path) -> None:
    prefix, root = tmp_path / "prefix", tmp_path / "root"
    (prefix / "lib").mkdir(parents=True)
    (root / "lib").mkdir(parents=True)
    (root / "secret").write_text("outside")
    (prefix / "lib" / "a").write_text("prefix")
    (prefix / "lib" / "absolute").symlink_to("/lib/a")
    (prefix / "lib" / "out").symlink_to("../../root/secret")
    (root / "lib" / "a").write_text("root")
    (root / "lib" / "b").write_text("only root")
    world = World(root=str(root), prefix=str(prefix))
    assert world.cat("/lib/a") == b"prefix"
    assert world.cat("/lib/b") == b"only root"
    assert world.cat("/lib/absolute") == b"prefix"
    assert world.open("/lib/out") == -errno.ENOENT
    assert world.call("chdir", "/lib") == 0
    assert world.cat("a") == b"root"  # only absolute paths
    assert world.open("/lib/new", 0o101) >= 0
    assert sorted(path.name for path in (prefix / "lib").iterdir()) == ["a", "absolute", "out"]
    buf = world.put(bytes(64))
    assert world.call("readlinkat", -100, f"/proc/self/fd/{world.open('/lib/a')}", buf, 64) == 6
    assert world.get(buf, 6) == b"/lib/a"


def test_without_a_root_it_gives_the_libraries(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_text("content")
    world = World(prefix=str(tmp_path))
    assert world.cat("/x") == b"content"
    assert world.open("/proc/self/status") >= 0
