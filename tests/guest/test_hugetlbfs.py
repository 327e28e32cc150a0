"""hugetlbfs through system calls: mounting, options and limits, files, and the pool in /proc and /sys.

What the calls answer was compared with Linux 5.10; memory itself is tested in tests/mm/test_hugetlb.py.
"""

import errno

from guest_world import World

MB2 = 2 << 20
O_RDWR_CREAT = 0o102


def world() -> World:
    w = World()
    assert w.call("mkdir", "/tmp/h", 0o755) == 0
    fd = w.open("/proc/sys/vm/nr_hugepages", 1)
    assert w.write(fd, b"6\n") == 2
    return w


def mount(w: World, data: str = "") -> int:
    return w.call("mount", "none", "/tmp/h", "hugetlbfs", 0, data)


def figures(w: World) -> list[int]:
    lines = w.cat("/proc/meminfo").decode().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("HugePages_")]


def test_options_that_are_refused() -> None:
    w = world()
    for data in ("pagesize=3M", "nonsense", "size=x", "size=2M,min_size=4M"):
        assert mount(w, data) == -errno.EINVAL
    assert mount(w, "min_size=64M") == -errno.ENOMEM
    assert w.call("mount", "none", "/tmp/none", "hugetlbfs", 0, 0) == -errno.ENOENT
    w.task.cred.cap_effective = w.task.cap_effective = 0
    assert mount(w) == -errno.EPERM


def test_a_file_keeps_its_pages_until_it_is_gone() -> None:
    w = world()
    assert mount(w) == 0
    fd = w.open("/tmp/h/a", O_RDWR_CREAT)
    address = w.call("mmap", 0, 2 * MB2, 3, 1, fd, 0)
    assert address > 0 and figures(w) == [6, 6, 2, 0]
    w.task.system.mm_ops.handle_mm_fault(w.task.mm.ops.find_vma(w.task.mm, address), address, 1)
    assert figures(w) == [6, 5, 1, 0]
    assert w.call("umount2", "/tmp/h", 0) == -errno.EBUSY
    assert w.call("munmap", address, 2 * MB2) == 0
    assert w.write(fd, b"x") == -errno.EINVAL
    assert w.call("ftruncate", fd, 100) == -errno.EINVAL
    assert w.call("symlink", "a", "/tmp/h/l") == -errno.EINVAL
    w.call("close", fd)
    assert figures(w) == [6, 5, 1, 0]
    assert w.call("umount2", "/tmp/h", 0) == 0
    assert figures(w) == [6, 6, 0, 0]
    assert w.call("umount2", "/tmp/h", 0) == -errno.EINVAL


def test_limits_of_a_mount() -> None:
    w = world()
    assert mount(w, "size=4M,min_size=2M,nr_inodes=3,mode=700,uid=5") == 0
    assert figures(w) == [6, 6, 1, 0]
    line = next(line for line in w.cat("/proc/mounts").decode().splitlines() if "hugetlbfs" in line)
    assert line.split()[3].endswith(",uid=5,mode=700,nr_inodes=3,pagesize=2M,size=4194304,min_size=2097152")
    fd = w.open("/tmp/h/a", O_RDWR_CREAT)
    assert w.call("mmap", 0, 3 * MB2, 3, 1, fd, 0) == -errno.ENOMEM
    assert w.call("fallocate", fd, 0, 0, 3 * MB2) == -errno.ENOSPC
    assert w.open("/tmp/h/b", O_RDWR_CREAT) >= 0
    assert w.open("/tmp/h/c", O_RDWR_CREAT) == -errno.ENOSPC
    assert w.call("ftruncate", fd, 0) == 0
    assert figures(w) == [6, 6, 1, 0]
    assert w.call("umount2", "/tmp/h", 0) == -errno.EBUSY
    assert w.call("umount2", "/tmp/h", 2) == 0  # MNT_DETACH
    assert "hugetlbfs" not in w.cat("/proc/mounts").decode()


def test_memfd_and_its_size() -> None:
    w = world()
    assert w.call("memfd_create", "m", 4 | 30 << 26) == -errno.ENODEV
    fd = w.call("memfd_create", "m", 4)
    assert w.call("fallocate", fd, 0, 0, MB2 + 1) == 0
    assert figures(w) == [6, 4, 0, 0]
    assert w.call("lseek", fd, 0, 2) == MB2 + 1
    w.call("close", fd)
    assert figures(w) == [6, 6, 0, 0]


def test_the_pool_in_sys() -> None:
    w = world()
    folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    assert w.cat(folder + "free_hugepages") == b"6\n"
    fd = w.open(folder + "nr_hugepages", 1)
    assert w.write(fd, b"-1") == -errno.EINVAL
    assert w.write(fd, b"2\n") == 2
    assert w.cat("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages") == b"2\n"
    assert w.open(folder + "free_hugepages", 1) == -errno.EACCES
