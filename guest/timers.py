"""Timers on the virtual clock: ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF, POSIX timers (kernel/time/itimer.c).

`next` is the earliest expiry; every trap compares the clock with it, and nothing else is done for timers until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guest.clock import NSEC_PER_SEC
from guest.siginfo import SI_KERNEL, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SigInfo, kill_info

if TYPE_CHECKING:
    from guest.cpu_timers import CpuSleep
    from guest.kernel import Kernel
    from guest.task import SignalStruct, Task

NEVER = 1 << 63


class Timers:
    """All timers of one machine."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.first = NEVER  # CLOCK_MONOTONIC ns: the earliest expiry
        self.next = NEVER  # when run() has something to do: then, or when the running task's turn ends
        self.signals: list[SignalStruct] = []  # processes that have an armed timer
        self.alarms: list[Any] = []  # armed timerfds: objects with `expires` (ns) and fire()
        self.sleepers: dict[Task, None] = {}  # tasks asleep until a deadline, in the order they went to sleep
        self.cpu_sleeps: list[CpuSleep] = []  # tasks asleep until somebody has used so much CPU time
        self.daemons: list[Any] = []  # kernel threads with work to do: objects with `expires` (ns) and fire()

    def armed(self) -> bool:
        """Whether any timer is running."""
        return self.first != NEVER

    def update(self, signal: SignalStruct) -> None:
        """A process changed its timers."""
        wanted = self._wanted(signal)
        if wanted and signal not in self.signals:
            self.signals.append(signal)
        elif not wanted and signal in self.signals:
            self.signals.remove(signal)
        self.recompute()

    def _wanted(self, signal: SignalStruct) -> bool:
        timers = signal.it_real_expires or signal.it[0][0] or signal.it[1][0] or signal.posix_timers
        return bool(timers) or self.cpu_limit(signal) != NEVER

    @staticmethod
    def cpu_limit(signal: SignalStruct) -> int:
        """RLIMIT_CPU as CPU time of the process, ns; NEVER: none."""
        seconds = min(signal.rlim[0])
        return seconds * NSEC_PER_SEC if signal.live and seconds < NEVER // NSEC_PER_SEC else NEVER

    def _over_limit(self, signal: SignalStruct) -> None:
        """RLIMIT_CPU is used up: SIGXCPU each second, SIGKILL at the hard limit (check_process_timers())."""
        from guest.signal import send_signal

        soft, hard = signal.rlim[0]
        dead = self.cpu_time(signal, 1) >= hard * NSEC_PER_SEC
        if not dead:
            signal.rlim[0][0] = soft + 1
        leader = signal.threads[0].group_leader
        send_signal(kill_info(SIGKILL if dead else SIGXCPU, SI_KERNEL, 0, 0), leader, True)

    def drop(self, signal: SignalStruct) -> None:
        """The process is gone (exit_itimers())."""
        signal.it_real_expires = signal.it_real_incr = 0
        signal.it = [[0, 0], [0, 0]]
        signal.posix_timers = {}
        if signal in self.signals:  # else nothing changes, and finding that out means to ask every task
            self.update(signal)

    def drop_posix(self, signal: SignalStruct) -> None:
        """An exec: POSIX timers and their queued signals go, interval timers stay (exit_itimers())."""
        from guest.siginfo import SI_TIMER

        signal.posix_timers = {}
        for pending in (signal.shared_pending, *(thread.pending for thread in signal.threads)):
            dropped = [info.signo for info in pending.queue if info.code == SI_TIMER]
            pending.queue = [info for info in pending.queue if info.code != SI_TIMER]
            for signo in dropped:
                if not any(info.signo == signo for info in pending.queue):
                    pending.signal &= ~(1 << (signo - 1))
        self.update(signal)

    def recompute(self) -> None:
        """Find the earliest expiry."""
        self.first = NEVER
        now = self.kernel.clock.now
        for task in list(self.sleepers):
            if task.deadline is None or task.exit_state:
                del self.sleepers[task]  # an exec or the end of the first program took it out of its sleep
            elif task.deadline < self.first:
                self.first = task.deadline
        for alarm in self.alarms:
            self.first = min(self.first, alarm.expires)
        for daemon in self.daemons:
            self.first = min(self.first, daemon.expires)
        for signal in self.signals:
            if signal.it_real_expires:
                self.first = min(self.first, signal.it_real_expires)
            for which in (0, 1):
                if signal.it[which][0]:
                    left = max(signal.it[which][0] - self.cpu_time(signal, which), 0)
                    self.first = min(self.first, now + left)
            limit = self.cpu_limit(signal)
            if limit != NEVER:
                self.first = min(self.first, now + max(limit - self.cpu_time(signal, 1), 0))
            for timer in signal.posix_timers.values():
                if timer.expires:
                    self.first = min(self.first, now + timer.left(self.kernel))
        for sleep in self.cpu_sleeps:
            self.first = min(self.first, now + sleep.left())
        self.next = min(self.first, self.kernel.turn_ends) if self.kernel.run_queue else self.first
        if self.first != NEVER:
            self.kernel.need_quantum()

    def next_idle(self) -> int:
        """The earliest expiry while nobody runs: timers of CPU time stand still then. NEVER when there is none."""
        first = NEVER
        for alarm in self.alarms:
            first = min(first, alarm.expires)
        for signal in self.signals:
            if signal.it_real_expires:
                first = min(first, signal.it_real_expires)
            for timer in signal.posix_timers.values():
                if timer.expires and timer.cpu is None and not timer.is_silent():
                    first = min(first, self.kernel.clock.now + timer.left(self.kernel))
        return first

    def next_daemon(self) -> int:
        """When a kernel thread goes on with its work, which wakes nobody; NEVER: none has any. Asked while idle."""
        for daemon in self.daemons:
            if daemon.eager:
                daemon.expires = self.kernel.clock.now
                self.next = min(self.next, daemon.expires)
        return min((daemon.expires for daemon in self.daemons), default=NEVER)

    @staticmethod
    def cpu_time(signal: SignalStruct, which: int) -> int:
        """CPU time of the process, ns: user (0) or user and system (1)."""
        total = signal.utime + (signal.stime if which else 0)
        for task in signal.threads:
            total += task.utime + (task.stime if which else 0)
        return total

    def run(self) -> None:
        """Deliver what is due, wake sleepers whose time has come."""
        from guest.signal import send_signal

        for daemon in list(self.daemons):
            if daemon.expires <= self.kernel.clock.now:
                daemon.fire()
        now = self.kernel.clock.now
        for alarm in list(self.alarms):
            if alarm.expires <= now:
                self.alarms.remove(alarm)
                alarm.fire()
        for signal in list(self.signals):
            if not signal.threads:
                continue
            leader = signal.threads[0].group_leader
            if signal.it_real_expires and signal.it_real_expires <= now:
                signal.it_real_expires = 0
                send_signal(kill_info(SIGALRM, SI_KERNEL, 0, 0), leader, True)
            for which, signo in ((0, SIGVTALRM), (1, SIGPROF)):
                expires, interval = signal.it[which]
                if expires and expires <= self.cpu_time(signal, which):
                    signal.it[which][0] = expires + interval if interval else 0
                    send_signal(kill_info(signo, SI_KERNEL, 0, 0), leader, True)
            for timer in list(signal.posix_timers.values()):
                if timer.expires and not timer.left(self.kernel):
                    timer.fire(self.kernel, signal)
            if self.cpu_limit(signal) <= self.cpu_time(signal, 1):
                self._over_limit(signal)
            if not self._wanted(signal):
                self.signals.remove(signal)
        for sleep in self.cpu_sleeps[:]:
            if not sleep.is_asleep():
                self.cpu_sleeps.remove(sleep)
            elif not sleep.left():
                self.cpu_sleeps.remove(sleep)
                self.kernel.wake_up(sleep.task)
        self.recompute()
        if self.first <= now:
            self.first = self.next = now + 1
        self.kernel.expire_sleeps()

    def start_cpu_sleep(self, sleep: CpuSleep) -> None:
        """A task waits for CPU time to be used."""
        if sleep not in self.cpu_sleeps:
            self.cpu_sleeps.append(sleep)
            self.recompute()

    def end_cpu_sleep(self, sleep: CpuSleep) -> None:
        """It waits no more."""
        if sleep in self.cpu_sleeps:
            self.cpu_sleeps.remove(sleep)

    def set_realtime(self, value: int) -> None:
        """CLOCK_REALTIME becomes `value` ns: what ends at a time of day ends earlier or later (clock_was_set())."""
        clock = self.kernel.clock
        before = clock.offset
        clock.set_realtime(value)
        moved = clock.offset - before
        for signal in self.signals:
            for timer in signal.posix_timers.values():
                if timer.expires and timer.at_time_of_day:
                    timer.expires = timer.expires - moved or 1
        for file in self.alarms:
            file.clock_was_set(moved)
        for task in self.sleepers:
            state = task.wait_state
            if task.deadline is not None and state.get("at-time-of-day"):
                task.deadline -= moved
                for key in ("deadline", "futex-deadline"):
                    if key in state:
                        state[key] -= moved
        self.recompute()

    def rearm_real(self, signal: SignalStruct) -> None:
        """SIGALRM was taken: an interval timer starts its next period (in dequeue_signal())."""
        if signal.it_real_incr and not signal.it_real_expires:
            now = self.kernel.clock.now
            signal.it_real_expires = now + signal.it_real_incr
            self.update(signal)

    def rearm_posix(self, signal: SignalStruct, info: SigInfo) -> None:
        """A POSIX timer's signal was taken: it reports its overruns, and their count starts again."""
        ident = int.from_bytes(info.fields[0:4], "little", signed=True)
        timer: Any = signal.posix_timers.get(ident)
        if timer is not None:
            timer.taken(self.kernel, info)
            self.recompute()
