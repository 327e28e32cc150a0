"""What waits in sockets is bounded by the machine's memory, however many sockets there are."""

import errno

from guest_world import World

RAM, COUNT = 16 << 20, 400
ADDRESS = b"\2\0\x30\x39\x7f\0\0\1" + bytes(8)


def test_sockets_do_not_hold_more_than_their_share_and_give_it_back() -> None:
    world = World(ram=RAM)
    data, at = world.put(bytes(32000)), world.put(ADDRESS)
    assert world.call("bind", world.call("socket", 2, 1, 0), at, 16) == 0  # fd 0 to 2 are the terminal
    listener = world.call("socket", 2, 1, 0)
    assert world.call("listen", listener, 128) == 0
    room = world.put((16).to_bytes(8, "little"))
    assert world.call("getsockname", listener, at, room) == 0
    world.call("prlimit64", 0, 7, world.put((4096).to_bytes(8, "little") * 2), 0)
    opened, refused = [listener], set()
    for _ in range(COUNT):
        pair = world.put(bytes(8))
        world.call("socketpair", 1, 0x801, 0, pair)
        unix = int.from_bytes(world.get(pair, 4), "little")
        netlink, tcp = world.call("socket", 16, 0x803, 2), world.call("socket", 2, 0x801, 0)
        corked = world.call("socket", 2, 0x802, 0)
        for fd, flags, where, size in ((unix, 0x40, 0, 0), (tcp, 0x40, 0, 0), (corked, 0x8040, at, 16)):
            if fd == tcp:
                world.call("connect", fd, at, 16)
            while (sent := world.call("sendto", fd, data, 32000, flags, where, size)) > 0:
                pass
            refused.add(sent)
        opened += [unix, unix + 1, netlink, tcp, corked]
    memory = world.kernel.vfs.net.memory
    assert memory.tcp <= memory.tcp_max + COUNT * 4096 and memory.other <= memory.other_max + 65536
    assert {-errno.EAGAIN, -errno.ENOBUFS} <= refused
    for fd in opened:
        world.call("close", fd)
    assert (memory.tcp, memory.udp, memory.other) == (0, 0, 0)
