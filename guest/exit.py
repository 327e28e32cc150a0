"""The end of a task: exit, zombies, reparenting, the other threads of a process (kernel/exit.c, fork.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.events import Exit
from guest.sched import TASK_DEAD, TASK_ZOMBIE, TaskExit, WaitQueue, sleep_on
from guest.siginfo import SI_KERNEL, SI_USER, SIGCHLD, SIGCONT, SIGHUP, SIGKILL, kill_info
from guest.signal import do_notify_parent, send_signal, signal_group_exit, signal_wake_up
from guest.task import (
    JOBCTL_STOP_CONSUME,
    JOBCTL_STOP_DEQUEUED,
    JOBCTL_STOP_PENDING,
    PF_EXITING,
    SIGNAL_GROUP_EXIT,
    Task,
)

if TYPE_CHECKING:
    from guest.kernel import Kernel

_STOP_BITS = JOBCTL_STOP_PENDING | JOBCTL_STOP_CONSUME | JOBCTL_STOP_DEQUEUED


def do_group_exit(task: Task, code: int) -> None:
    """End the whole process; `code` as wait4 shows it. Never returns: raises TaskExit."""
    signal = task.signal
    if signal_group_exit(task):
        code = signal.group_exit_code
    elif len(signal.threads) > 1:
        signal.group_exit_code = code
        signal.flags = SIGNAL_GROUP_EXIT
        zap_other_threads(task)
    do_exit(task, code)


def zap_other_threads(task: Task) -> int:
    """SIGKILL for every other thread of the process; how many there are."""
    task.signal.group_stop_count = 0
    task.jobctl &= ~_STOP_BITS
    count = 0
    for thread in task.signal.threads:
        if thread is not task:
            thread.jobctl &= ~_STOP_BITS
            count += 1
            if not thread.exit_state:
                thread.pending.signal |= 1 << (SIGKILL - 1)
                signal_wake_up(thread, True)
    return count


def de_thread(task: Task) -> None:
    """Before an exec: become the only thread of the process. Raises Block until the others are gone."""
    task.exit_signal = SIGCHLD
    signal = task.signal
    if len(signal.threads) == 1 and task.group_leader is task:
        return
    # Threads end at their next trap; they are runnable now and have nothing to wait for.
    zap_other_threads(task)
    for thread in list(signal.threads):
        if thread is not task:
            thread.kernel.force_exit(thread, SIGKILL)
            if thread.ptrace and thread.group_leader is not thread:
                release_task(thread)  # its tracer would have to wait for it first
    leader = task.group_leader
    if leader is not task:
        _become_leader(task, leader)
    signal.flags &= ~SIGNAL_GROUP_EXIT
    signal.group_exit_code = 0


def _become_leader(task: Task, leader: Task) -> None:
    """A thread that execs takes over the process id of its leader."""
    kernel = task.kernel
    parent = leader.real_parent
    old_pid = task.pid
    kernel.tasks.pop(old_pid, None)
    task.pid = task.tgid = leader.pid
    kernel.tasks[task.pid] = task
    if task.pid_ns is not None:
        from guest.pid_namespace import free_pid

        free_pid(kernel, task.pid_ns, old_pid)
        if task.pid_ns.child_reaper is leader:
            task.pid_ns.child_reaper = task
    task.group_leader = task
    task.start_time = leader.start_time
    if leader in parent.children:
        parent.children[parent.children.index(leader)] = task
    task.real_parent = parent
    if kernel.first is leader:
        kernel.first = task
    leader.state = leader.exit_state = TASK_DEAD
    leader.sighand.count -= 1
    task.signal.threads.remove(leader)


def exec_mm_release(task: Task) -> None:
    """Futexes, clear_child_tid, and whoever vforked us."""
    if task.robust_list or task.pi_states:
        from guest.futex_exit import futex_exec_release

        futex_exec_release(task)
    if task.clear_child_tid:
        from guest.futex_exit import clear_child_tid

        clear_child_tid(task)
    complete_vfork(task)


def complete_vfork(task: Task) -> None:
    """The address space is no longer borrowed: the parent goes on."""
    if task.vfork_done is not None:
        queue, task.vfork_done = task.vfork_done, None
        queue.wake_all()


def wait_for_vfork_done(task: Task, child: Task) -> None:
    """Sleep until the child execs or exits; only a fatal signal ends it."""
    if child.vfork_done is not None:
        sleep_on(task, child.vfork_done, killable=True)


def new_vfork_queue(child: Task) -> WaitQueue:
    """What the parent of a vfork waits on."""
    return WaitQueue(f"vfork child {child.pid}")


def do_exit(task: Task, code: int) -> None:
    """Never returns, raises TaskExit."""
    if task.ptrace:
        from guest.ptrace import exit_event

        exit_event(task, code)
    release_resources(task, code)
    raise TaskExit


def release_resources(task: Task, code: int) -> None:
    """Everything do_exit() does before the task is gone for good."""
    from mm.fork import mmput
    from mm.memory_rss import sync_mm_rss

    kernel = task.kernel
    task.flags |= PF_EXITING
    if task.userfaults:
        from guest.userfaults import give_up

        give_up(task)
    signal = task.signal
    signal.live -= 1
    group_dead = signal.live == 0
    sync_mm_rss(task)
    if group_dead:
        kernel.timers.drop(signal)
        if task.mm is not None:
            signal.maxrss = max(signal.maxrss, task.mm.hiwater_rss, sum(task.mm.rss_stat[i] for i in (0, 1, 3)))
    task.exit_code = code
    waiter = task.wait_state.get("waiter")
    if waiter is not None:
        waiter.leave()  # killed in a queue of futexes, messages or semaphores, without another run of its call
    mm = task.mm
    exec_mm_release(task)
    if task.hw_watchpoints:
        from guest.ptrace_call import flush_hw_breakpoints

        flush_hw_breakpoints(task)
    if mm is not None:
        sync_mm_rss(task)  # again: the release writes to the program's memory
        task.mm = None
        mmput(mm)
    if task.sem_undo is not None:
        from guest.sys_sem import exit_sem

        exit_sem(task)
    if kernel.ipc_ns is not None or task.nsproxy is not None:
        from guest.sys_shm import ipc_ns
        from mm.ipc_shm import exit_shm

        exit_shm(ipc_ns(task), task)
    if task.nsproxy is not None:
        from guest.nsproxy import exit_namespaces

        exit_namespaces(task)
    if task.time_ns is not None:
        from guest.time_namespace import timens_leave

        timens_leave(task)
    files, task.files = task.files, None
    if files is not None:
        files.close_all(task)
    task.fs = None
    if group_dead and signal.leader and (signal.tty is not None or signal.tty_old_pgrp):
        from guest.tty_jobctrl import disassociate_ctty

        disassociate_ctty(task, True)
    if group_dead and task.pid_ns is not None:
        from guest.pid_namespace import init_exits

        if task.ptraced:
            from guest.ptrace import exit_ptrace

            exit_ptrace(task)
        if init_exits(task, code):
            kernel.need_resched |= kernel.current is task
            return
    finish_exit(task, code, group_dead)


def finish_exit(task: Task, code: int, group_dead: bool) -> None:
    """The last of do_exit(): relatives are told, and the first program's end is the machine's."""
    kernel = task.kernel
    if task.perf_events:
        from guest.perf import exit_task

        exit_task(task)
    _exit_notify(task, group_dead)
    if kernel.system.listener is not None:
        kernel.system.listener(Exit(task.pid, code))
    if group_dead and task.group_leader is kernel.first:
        dying = task.signal.flags & SIGNAL_GROUP_EXIT
        kernel.exit_status = task.signal.group_exit_code if dying else kernel.first.exit_code
    if kernel.current is task:
        kernel.need_resched = True


def _exit_notify(task: Task, group_dead: bool) -> None:
    """exit_notify(): children get a new parent, the parent is told, the task becomes a zombie."""
    kernel = task.kernel
    if task.ptraced:
        from guest.ptrace import exit_ptrace

        exit_ptrace(task)
    _forget_original_parent(task)
    if group_dead:
        _kill_orphaned_pgrp(task.group_leader, None)
    task.state = TASK_ZOMBIE
    task.exit_state = TASK_ZOMBIE
    if task.ptrace:
        from guest.ptrace import ptrace_reparented

        own = task.group_leader is task and not _other_threads(task) and not ptrace_reparented(task)
        autoreap = do_notify_parent(task, task.exit_signal if own else SIGCHLD)
    elif task.group_leader is task:
        autoreap = not _other_threads(task) and do_notify_parent(task, task.exit_signal)
    else:
        autoreap = True
    if autoreap or (task.real_parent is kernel.init and not task.ptrace):
        # The stand-in init reaps at once, as a real one does as soon as it runs.
        if not (task.group_leader is task and _other_threads(task)):
            release_task(task)


def _other_threads(task: Task) -> bool:
    return any(thread is not task for thread in task.signal.threads)


def release_task(task: Task) -> None:
    """Nothing of it is left; a leader that was only waiting for its threads is reported now."""
    kernel = task.kernel
    signal = task.signal
    if task.ptrace:
        from guest.ptrace import ptrace_unlink

        ptrace_unlink(task)
    task.state = task.exit_state = TASK_DEAD
    if task in signal.threads:
        signal.threads.remove(task)
    if task.group_leader is not task:
        signal.utime += task.utime
        signal.stime += task.stime
        signal.min_flt += task.min_flt
        signal.maj_flt += task.maj_flt
        signal.nvcsw += task.nvcsw
        signal.nivcsw += task.nivcsw
    task.sighand.count -= 1
    if kernel.tasks.get(task.pid) is task:
        del kernel.tasks[task.pid]
    if task in kernel.run_queue:
        kernel.run_queue.remove(task)
    for queue in task.waiting_on:
        if task in queue.tasks:
            queue.tasks.remove(task)
    task.waiting_on = ()
    if task.group_leader is task and task in task.real_parent.children:
        task.real_parent.children.remove(task)
    leader = task.group_leader
    if task.pid_ns is not None:
        from guest.pid_namespace import free_pid

        for pid in {task.pid, signal.pgrp, signal.session}:
            free_pid(kernel, task.pid_ns, pid)
    if leader is not task and leader.exit_state == TASK_ZOMBIE and signal.threads == [leader]:
        unwaited = do_notify_parent(leader, leader.exit_signal)
        if unwaited or (leader.real_parent is kernel.init and not leader.ptrace):
            release_task(leader)


def _find_new_reaper(kernel: Kernel, father: Task) -> Task:
    """A living thread of the same process, the nearest subreaper, or init."""
    for thread in father.signal.threads:
        if thread is not father and not thread.flags & PF_EXITING:
            return thread
    ancestor = father.real_parent
    while ancestor is not kernel.init and ancestor.pid_ns is father.pid_ns:
        if ancestor.signal.is_child_subreaper:
            for thread in ancestor.signal.threads:
                if not thread.flags & PF_EXITING:
                    return thread
        ancestor = ancestor.real_parent
    if father.pid_ns is not None and father.pid_ns.child_reaper is not None:
        return father.pid_ns.child_reaper
    return kernel.init


def _forget_original_parent(father: Task) -> None:
    kernel = father.kernel
    if not father.children:
        return
    reaper = _find_new_reaper(kernel, father)
    reaper.signal.quiet_children = False
    children, father.children = father.children, []
    for child in children:
        child.real_parent = reaper
        reaper.children.append(child)
        if child.pdeath_signal:
            send_signal(kill_info(child.pdeath_signal, SI_USER, child.vnr(father.tgid), father.cred.uid), child, True)
        if reaper.signal is father.signal:
            continue
        child.exit_signal = SIGCHLD
        if child.exit_state == TASK_ZOMBIE and not child.ptrace and not _other_threads(child):
            if do_notify_parent(child, child.exit_signal) or reaper is kernel.init:
                release_task(child)
                continue
        _kill_orphaned_pgrp(child, father)


def _kill_orphaned_pgrp(task: Task, parent: Task | None) -> None:
    """A process group that just lost its last link to the session's job control: its stopped members are woken."""
    kernel = task.kernel
    ignored = task
    if parent is None:
        parent = task.real_parent
        ignored_task: Task | None = task
    else:
        ignored_task = None
    pgrp = task.signal.pgrp
    if parent.signal.pgrp == pgrp or parent.signal.session != task.signal.session:
        return
    if not kernel.is_orphaned_pgrp(pgrp, ignored_task):
        return
    members = [t for t in kernel.tasks.values() if t.group_leader is t and t.signal.pgrp == pgrp and t is not ignored]
    if parent is not None and ignored_task is None:
        members.append(task)
    if any(t.signal.flags & 1 for t in members):  # SIGNAL_STOP_STOPPED
        for member in members:
            send_signal(kill_info(SIGHUP, SI_KERNEL, 0, 0), member, True)
            send_signal(kill_info(SIGCONT, SI_KERNEL, 0, 0), member, True)
