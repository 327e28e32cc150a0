"""Messages and semaphores live on the host: a guest that makes them without end is refused, and gets it all back."""

import errno

from guest_world import World


def test_semaphores_are_bounded() -> None:
    world = World()
    sets = []
    while (ident := world.call("semget", 0, 32000, 0o600)) >= 0:
        sets.append(ident)
    assert ident == -errno.ENOMEM
    assert 0 < len(sets) < 10
    for ident in sets:
        assert world.call("semctl", ident, 0, 0, 0) == 0
    assert world.kernel.ipc_memory == 0


def test_messages_are_bounded() -> None:
    world = World()
    message = world.put((1).to_bytes(8, "little"))
    queues = []
    result = 0
    while result == 0:
        queues.append(world.call("msgget", 0, 0o600))
        while (result := world.call("msgsnd", queues[-1], message, 0, 0o4000)) == 0:
            pass
        result = 0 if result == -errno.EAGAIN else result
    assert result == -errno.ENOMEM
    assert world.call("msgrcv", queues[0], message, 0, 0, 0) == 0
    for ident in queues:
        assert world.call("msgctl", ident, 0, 0) == 0
    assert world.kernel.ipc_memory == 0
