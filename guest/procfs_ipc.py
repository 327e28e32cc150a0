"""/proc/sysvipc: the System V objects there are (sysvipc_shm_proc_show() and its kin)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.procfs import SINGLE, Entry

if TYPE_CHECKING:
    from guest.procfs import ProcInode
    from guest.task import Task

_SHM_HEAD = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap\n"
)
_MSG_HEAD = (
    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
    "      stime      rtime      ctime\n"
)
_SEM_HEAD = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"


def show_shm(inode: ProcInode, task: Task) -> str:
    """sysvipc_shm_proc_show(): one line a segment, by index."""
    from guest.sys_shm import ipc_ns

    ns = ipc_ns(task)
    page_size = ns.system.page_size
    lines, nr = [_SHM_HEAD], inode.i_sb.pid_nr
    for _, shp in sorted(ns.ids.items()):
        rss = shp.shm_file.f_mapping.nrpages * page_size
        lines.append(
            f"{shp.key:10} {shp.id:10}  {shp.mode:4o} {shp.shm_segsz:21} {nr(shp.shm_cprid):5} {nr(shp.shm_lprid):5}  "
            f"{shp.shm_nattch:5} {shp.uid:5} {shp.gid:5} {shp.cuid:5} {shp.cgid:5} "
            f"{shp.shm_atim:10} {shp.shm_dtim:10} {shp.shm_ctim:10} {rss:21} {0:21}\n"
        )
    return "".join(lines)


def show_msg(inode: ProcInode, task: Task) -> str:
    """sysvipc_msg_proc_show(): one line a queue, by index."""
    from guest.sys_shm import ipc_ns

    lines, nr = [_MSG_HEAD], inode.i_sb.pid_nr
    for _, msq in sorted(ipc_ns(task).msg_ids.ids.items()):
        lines.append(
            f"{msq.key:10} {msq.id:10}  {msq.mode:4o}  {msq.cbytes:10} {len(msq.messages):10} {nr(msq.lspid):5} "
            f"{nr(msq.lrpid):5} {msq.uid:5} {msq.gid:5} {msq.cuid:5} {msq.cgid:5} "
            f"{msq.stime:10} {msq.rtime:10} {msq.ctime:10}\n"
        )
    return "".join(lines)


def show_sem(inode: ProcInode, task: Task) -> str:
    """sysvipc_sem_proc_show(): one line a set, by index."""
    from guest.sys_shm import ipc_ns

    lines = [_SEM_HEAD]
    for _, sma in sorted(ipc_ns(task).sem_ids.ids.items()):
        lines.append(
            f"{sma.key:10} {sma.id:10}  {sma.mode:4o} {len(sma.sems):10} {sma.uid:5} {sma.gid:5} {sma.cuid:5} "
            f"{sma.cgid:5} {sma.otime():10} {sma.ctime:10}\n"
        )
    return "".join(lines)


SYSVIPC_TABLE: dict[bytes, Entry] = {
    b"msg": Entry(0o444, SINGLE, show_msg),
    b"sem": Entry(0o444, SINGLE, show_sem),
    b"shm": Entry(0o444, SINGLE, show_shm),
}
