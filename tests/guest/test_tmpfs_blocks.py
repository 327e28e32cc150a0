"""What statfs says of a tmpfs: pages of its files, each counted once, until nobody has the file any more."""

import errno

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


def test_a_tmpfs_holds_half_of_memory() -> None:
    """As the oracle shows: what does not fit is refused before a page of it is made, a write stops where it is full."""
    world = World()
    sb = next(mount.mnt_sb for mount in world.kernel.vfs.mounts if mount.mnt_devname == "tmpfs")
    _, blocks, free, *_ = sb.statfs()
    a, b = world.open("/tmp/a", O_CREAT_RDWR), world.open("/tmp/b", O_CREAT_RDWR)
    assert world.call("fallocate", a, 0, 0, (blocks + 1) << 12) == -errno.ENOSPC
    assert sb.statfs()[2] == free
    assert world.call("fallocate", a, 0, 0, (free - 3) << 12) == 0
    assert world.call("write", b, world.put(bytes(8 << 12)), 8 << 12) == 3 << 12
    assert world.call("write", b, world.put(b"x"), 1) == -errno.ENOSPC
    assert world.call("fallocate", a, 3, 0, 2 << 12) == 0
    assert sb.statfs()[2] == 2
    assert world.call("ftruncate", a, 0) == 0
    assert sb.statfs()[2] == free - 3
