"""Counting software events (kernel/events/core.c): page faults, context switches, CPU time, of tasks or of the machine.

    PerfFile    one event, what perf_event_open() returns; the first of a group leads, and its siblings count with it
      Part      what one task adds: the one it was opened for, and with `inherit` whom it forks

Everything counted grows in the task anyway (`Task.utime`, `nvcsw`), except faults by kind: those are counted by a
wrapper around the architecture's do_page_fault(), which is there only as long as somebody counts them. So a Part needs
no more than the value when counting began; nothing is slower for who does not ask.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from guest.file import OpenFile
from guest.vfs_flags import POLLHUP, s32
from mm.errors import Errno
from mm.uaccess import copy_from_user, put_user

if TYPE_CHECKING:
    from guest.kernel import Kernel
    from guest.sched import WaitQueue
    from guest.task import Task
    from guest.vfs_types import Inode, Path
    from mm.arch import FaultSignal

(
    CPU_CLOCK, TASK_CLOCK, PAGE_FAULTS, CONTEXT_SWITCHES, CPU_MIGRATIONS, PAGE_FAULTS_MIN, PAGE_FAULTS_MAJ,
    ALIGNMENT_FAULTS, EMULATION_FAULTS, DUMMY, BPF_OUTPUT, SW_MAX,
) = range(12)  # fmt: skip
FORMAT_ENABLED, FORMAT_RUNNING, FORMAT_ID, FORMAT_GROUP, FORMAT_LOST = 1, 2, 4, 8, 16
DISABLED, INHERIT, PINNED, EXCLUSIVE, EXCLUDE_USER, EXCLUDE_KERNEL = 1, 2, 4, 8, 16, 32
ENABLE_ON_EXEC = 1 << 12
IOC_ENABLE, IOC_DISABLE, IOC_REFRESH, IOC_RESET, IOC_ID = 0x2400, 0x2401, 0x2402, 0x2403, 0x80082407
IOC_PERIOD, IOC_SET_OUTPUT, IOC_SET_FILTER, IOC_SET_BPF = 0x40082404, 0x2405, 0x40082406, 0x40042408
IOC_PAUSE_OUTPUT = 0x40042409
IOC_FLAG_GROUP = 1
_FAULT_KINDS = {PAGE_FAULTS: 0, PAGE_FAULTS_MIN: 2, PAGE_FAULTS_MAJ: 4}  # index into the counts of faults


class FaultCounter:
    """In the way of do_page_fault() while faults are counted, by the kind of fault and whether user code made it."""

    def __init__(self, kernel: Kernel) -> None:
        self.users = 0
        self.arch = kernel.system.arch
        self.total = [0] * 6
        self.next: Any = None

    def use(self, more: int) -> None:
        """One event more or less needs it."""
        self.users += more
        if self.users == 1 and more > 0:
            self.install()
        elif not self.users and vars(self.arch).get("do_page_fault") is self:
            del vars(self.arch)["do_page_fault"]

    def install(self) -> None:
        """Get in the way, if somebody counts."""
        if self.users and vars(self.arch).get("do_page_fault") is not self:
            self.next = self.arch.do_page_fault
            setattr(self.arch, "do_page_fault", self)  # noqa: B010 - mypy forbids it for a method

    def __call__(
        self, task: Task, error_code: int, address: int, user: bool = True, tried: int = 0
    ) -> FaultSignal | None:
        before = task.min_flt, task.maj_flt
        try:
            signal: FaultSignal | None = self.next(task, error_code, address, user, tried)
        finally:
            mode = 0 if user else 1
            counts = (1, task.min_flt - before[0], task.maj_flt - before[1])
            mine = task.perf_faults = list(task.perf_faults)
            for kind, count in enumerate(counts):
                mine[2 * kind + mode] += count
                self.total[2 * kind + mode] += count
        return signal


def counter(kernel: Kernel) -> FaultCounter:
    """The machine's."""
    if kernel.fault_counter is None:
        kernel.fault_counter = FaultCounter(kernel)
    found: FaultCounter = kernel.fault_counter
    return found


class Part:
    """What one task adds to an event (a struct perf_event of Linux); no task: the machine's CPU."""

    __slots__ = ("base", "count", "enabled", "event", "since", "task")

    def __init__(self, event: PerfFile, task: Task | None) -> None:
        self.event = event
        self.task = task
        self.count = 0
        self.enabled = 0  # ns
        self.base = -1  # the counter when it began to count; negative: it does not
        self.since = 0

    def _time(self) -> int:
        task = self.task
        return self.event.kernel.clock.now if task is None else task.utime + task.stime

    def sync(self) -> None:
        """Add what has come since it began."""
        if self.base >= 0:
            value, now = self._value(), self._time()
            self.count += value - self.base
            self.enabled += now - self.since
            self.base, self.since = value, now

    def run(self, on: bool) -> None:
        """Begin or end to count."""
        self.sync()
        self.base, self.since = (self._value(), self._time()) if on else (-1, 0)

    def _value(self) -> int:
        """The counter of the event's kind."""
        event, task = self.event, self.task
        kind, flags = event.config, event.flags
        if kind in (CPU_CLOCK, TASK_CLOCK):
            return self._time()
        if kind == CONTEXT_SWITCHES:
            if flags & EXCLUDE_KERNEL:  # that is where they happen
                return 0
            return event.kernel.context_switches if task is None else task.nvcsw + task.nivcsw
        first = _FAULT_KINDS.get(kind)
        if first is None:  # one CPU: nobody migrates; no fault is emulated
            return 0
        counts = counter(event.kernel).total if task is None else task.perf_faults
        user = 0 if flags & EXCLUDE_USER else counts[first]
        return user if flags & EXCLUDE_KERNEL else user + counts[first + 1]


class PerfFile(OpenFile):
    """An event and its file."""

    stream = True
    fmode = 0

    def __init__(
        self, path: Path, inode: Inode, flags: int, kernel: Kernel, config: int, attr_flags: int, read_format: int
    ) -> None:
        super().__init__(path, inode, flags)
        self.kernel = kernel
        self.config = config
        self.flags = attr_flags
        self.read_format = read_format
        self.id = kernel.perf_ids = kernel.perf_ids + 1
        self.on = not attr_flags & DISABLED
        self.leader: PerfFile = self
        self.siblings: list[PerfFile] = []
        self.parts: list[Part] = []  # the first is that of the task it was opened for
        self.gone_count = self.gone_enabled = 0  # of inherited parts whose tasks have ended
        self.cpu = -1
        self.read_size = 0
        if config in _FAULT_KINDS:
            counter(kernel).use(1)

    # ---- state

    def attach(self, task: Task | None) -> None:
        """Count for a task, or the machine."""
        part = Part(self, task)
        self.parts.append(part)
        if task is not None:
            task.perf_events = (*task.perf_events, part)
        part.run(self.counts())

    def counts(self) -> bool:
        """Whether it is on, and the leader too."""
        return self.on and self.leader.on

    def switch(self, on: bool) -> None:
        """perf_event_enable(), perf_event_disable()."""
        if on != self.on:
            self.on = on
            for event in (self, *self.siblings):
                for part in event.parts:
                    part.run(event.counts())

    def reset(self) -> None:
        """The counts of living tasks become 0."""
        for part in self.parts:
            part.sync()
            part.count = 0

    def task_exits(self, part: Part) -> None:
        """What an inherited part had counted stays, apart from what a reset reaches."""
        part.run(False)
        if part is self.parts[0]:
            return
        self.parts.remove(part)
        self.gone_count += part.count
        self.gone_enabled += part.enabled

    # ---- reading

    def value(self) -> int:
        """The count, of all tasks."""
        for part in self.parts:
            part.sync()
        return self.gone_count + sum(part.count for part in self.parts)

    def resize(self) -> None:
        """perf_event__read_size(): what a read returns; of one whose leader was closed it stays as it was."""
        form = self.read_format
        entry = 1 + (form >> 2 & 1) + (form >> 4 & 1)
        times = (form & FORMAT_ENABLED) + (form >> 1 & 1)
        group = form & FORMAT_GROUP
        words = 1 + times + entry * (1 + len(self.leader.siblings)) if group else times + entry
        self.read_size = 8 * words

    def regroup(self) -> None:
        """The group has become larger or smaller."""
        for event in (self, *self.siblings):
            event.resize()

    def _after_count(self, form: int) -> list[int]:
        """What follows a count: the event's number, and lost samples."""
        return ([self.id] if form & FORMAT_ID else []) + ([0] if form & FORMAT_LOST else [])

    def read(self, task: Task, pos: int, count: int) -> bytes:
        """perf_read(): the count, or those of the group. Raises ENOSPC when there is no room for all of it."""
        form = self.read_format
        if count < self.read_size:
            raise Errno(errno.ENOSPC)
        leader = self.leader if form & FORMAT_GROUP else self
        value = leader.value()
        enabled = leader.gone_enabled + sum(part.enabled for part in leader.parts)
        times = [enabled] * ((form & FORMAT_ENABLED) + (form >> 1 & 1))
        if form & FORMAT_GROUP:
            words = [1 + len(leader.siblings), *times, value, *leader._after_count(form)]
            for sibling in leader.siblings:
                words += [sibling.value(), *sibling._after_count(form)]
        else:
            words = [value, *times, *self._after_count(form)]
        return b"".join(word.to_bytes(8, "little") for word in words).ljust(self.read_size, b"\0")

    def ioctl(self, task: Task, cmd: int, arg: int) -> int:
        if cmd in (IOC_ENABLE, IOC_DISABLE, IOC_RESET):
            events = (self.leader, *self.leader.siblings) if arg & IOC_FLAG_GROUP else (self,)
            for event in events:
                if cmd == IOC_RESET:
                    event.reset()
                else:
                    event.switch(cmd == IOC_ENABLE)
        elif cmd == IOC_ID:
            put_user(task, arg, self.id, 8)
        elif cmd == IOC_PERIOD:
            copy_from_user(task, arg, 8)
            raise Errno(errno.EINVAL)  # it takes no samples
        elif cmd == IOC_SET_OUTPUT and s32(arg) != -1:
            if not isinstance(task.files.get(s32(arg)), PerfFile):
                raise Errno(errno.EBADF)
            raise Errno(errno.EINVAL)  # nobody has a buffer
        elif cmd == IOC_SET_OUTPUT:
            return 0
        elif cmd in (IOC_REFRESH, IOC_SET_FILTER, IOC_SET_BPF, IOC_PAUSE_OUTPUT):
            raise Errno(errno.EINVAL)
        else:
            raise Errno(errno.ENOTTY)
        return 0

    def poll(self, task: Task) -> int:
        return POLLHUP

    def poll_queues(self, task: Task) -> tuple[WaitQueue, ...]:
        return ()

    def closed(self) -> None:
        """perf_release(): siblings of a leader go on alone."""
        for part in self.parts:
            part.run(False)
            if part.task is not None:
                part.task.perf_events = tuple(other for other in part.task.perf_events if other is not part)
        if self.leader is self:
            for sibling in self.siblings:
                sibling.leader = sibling
                for part in sibling.parts:
                    part.run(sibling.counts())
            self.siblings = []
        else:
            self.leader.siblings.remove(self)
            self.leader.regroup()
        if self.config in _FAULT_KINDS:
            counter(self.kernel).use(-1)


# ---- what tasks do


def fork(task: Task, child: Task) -> None:
    """perf_event_init_task(): inherited events count for the child too."""
    for part in task.perf_events:
        if part.event.flags & INHERIT:
            part.event.attach(child)


def exec_enables(task: Task) -> None:
    """perf_event_enable_on_exec()."""
    for part in task.perf_events:
        if part.event.flags & ENABLE_ON_EXEC:
            part.event.flags &= ~ENABLE_ON_EXEC
            part.event.switch(True)


def exit_task(task: Task) -> None:
    """perf_event_exit_task()."""
    parts, task.perf_events = task.perf_events, ()
    for part in parts:
        part.event.task_exits(part)


def switch_all(task: Task, on: bool) -> None:
    """perf_event_task_enable(), perf_event_task_disable(): all that the task has opened."""
    for file in task.perf_opened:
        if file.f_count > 0:
            file.switch(on)
