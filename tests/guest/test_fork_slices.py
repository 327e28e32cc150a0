"""Who only forks does not keep the CPU until it has made thousands: its children get their turn."""

from guest_world import World

from guest.scheduler import FORKS_PER_SLICE

SIGCHLD = 17


def test_forks_end_a_slice() -> None:
    world = World()
    kernel = world.kernel
    kernel.need_resched, kernel.counting = False, True
    for _ in range(FORKS_PER_SLICE - 1):
        assert world.call("clone", SIGCHLD, 0, 0, 0, 0) > 0
    assert not kernel.need_resched
    world.call("clone", SIGCHLD, 0, 0, 0, 0)
    assert kernel.need_resched
    assert kernel.schedule() is not world.task
    assert kernel.slice_forks == 0
    assert kernel.run_queue[-1] is world.task
