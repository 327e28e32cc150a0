"""What statfs says of a tmpfs: pages of its files, each counted once, until nobody has the file any more."""

from guest_world import World

O_CREAT_RDWR = 0o102


def test_pages_are_counted_once_and_until_the_last_close() -> None:
    world = World()
    sb = next(mount.mnt_sb for mount in world.kernel.vfs.mounts if mount.mnt_devname == "tmpfs")
    free = sb.statfs()[2]
    fd = world.open("/tmp/a", O_CREAT_RDWR)
    assert world.call("write", fd, world.put(bytes(8192)), 8192) == 8192
    assert world.call("link", world.put(b"/tmp/a\0"), world.put(b"/tmp/b\0")) == 0
    assert sb.statfs()[2] == free - 2
    assert world.call("unlink", world.put(b"/tmp/a\0")) == 0
    assert world.call("unlink", world.put(b"/tmp/b\0")) == 0
    assert sb.statfs()[2] == free - 2
    assert world.call("close", fd) == 0
    assert sb.statfs()[2] == free
