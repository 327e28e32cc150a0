"""`--strace` of asynchronous I/O, performance events and futexes that inherit priority: lines strace 6.1 printed."""

from __future__ import annotations

import pathlib
import re

import pytest

from emu import cli

GUESTS = pathlib.Path(__file__).resolve().parents[1] / "golden" / "extra" / "x86_64"

AIO = """\
io_setup(1, 0x8) = -1 EFAULT (Bad address)
io_setup(1, [X]) = 0
io_submit(X, 0, []) = 0
io_submit(X, 1, [NULL]) = -1 EFAULT (Bad address)
io_cancel(NULL, {aio_data=0x64, aio_key=7, aio_lio_opcode=IOCB_CMD_PREAD, aio_fildes=0}, NULL) = -1 EINVAL (Invalid argument)
io_pgetevents(X, 0, 1, X, NULL, {sigmask=X, sigsetsize=4}) = -1 EINVAL (Invalid argument)
io_submit(X, 1, [{aio_data=0x64, aio_key=7, aio_lio_opcode=9 /* IOCB_CMD_??? */, aio_fildes=1}]) = -1 EINVAL (Invalid argument)
io_submit(X, 1, [{aio_data=0x64, aio_key=7, aio_lio_opcode=IOCB_CMD_PREAD, aio_fildes=1, aio_buf=X, aio_nbytes=1, aio_offset=0, aio_flags=IOCB_FLAG_RESFD, aio_resfd=99}]) = -1 EBADF (Bad file descriptor)
io_getevents(X, 0, 9, [{data=0x64, obj=X, res=24, res2=0}], {tv_sec=0, tv_nsec=50000000}) = 1
io_submit(X, 1, [{aio_data=0x66, aio_key=7, aio_lio_opcode=IOCB_CMD_PWRITEV, aio_fildes=3, aio_buf=[{iov_base="hello", iov_len=5}, {iov_base=" as", iov_len=3}], aio_offset=30}]) = 1
io_submit(X, 1, [{aio_data=0x67, aio_key=7, aio_rw_flags=RWF_APPEND, aio_lio_opcode=IOCB_CMD_PWRITE, aio_fildes=3, aio_buf="end", aio_nbytes=3, aio_offset=0}]) = 1
io_submit(X, 1, [{aio_data=0x67, aio_key=7, aio_lio_opcode=IOCB_CMD_PREAD, aio_reqprio=IOPRIO_PRIO_VALUE(IOPRIO_CLASS_RT, 0), aio_fildes=3, aio_buf=X, aio_nbytes=3, aio_offset=0, aio_flags=IOCB_FLAG_IOPRIO}]) = 1
io_submit(X, 1, [{aio_data=0x68, aio_key=7, aio_lio_opcode=IOCB_CMD_POLL, aio_fildes=3, aio_buf=POLLIN|0x10000}]) = -1 EINVAL (Invalid argument)
"""  # noqa: E501
PERF = """\
perf_event_open({type=PERF_TYPE_SOFTWARE, size=PERF_ATTR_SIZE_VER6, config=PERF_COUNT_SW_PAGE_FAULTS, sample_period=0, sample_type=0, read_format=0, precise_ip=0 /* arbitrary skid */, ...}, -1, 0, -1, PERF_FLAG_PID_CGROUP) = -1 EINVAL (Invalid argument)
"""  # noqa: E501
FUTEX = """\
futex(X, FUTEX_UNLOCK_PI_PRIVATE) = -1 EPERM (Operation not permitted)
futex(X, FUTEX_LOCK_PI_PRIVATE, {tv_sec=-1, tv_nsec=0}) = -1 EINVAL (Invalid argument)
futex(X, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, {tv_sec=1, tv_nsec=0}, X) = -1 ETIMEDOUT (Connection timed out)
futex(X, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 5, X, 0) = 0
"""


@pytest.mark.parametrize(("guest", "lines"), [("aio", AIO), ("perfcount", PERF), ("futexpi", FUTEX)])
def test_prints_what_strace_does(
    guest: str, lines: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root" / "tmp").mkdir(parents=True)
    (tmp_path / "root" / guest).write_bytes((GUESTS / guest).read_bytes())
    (tmp_path / "root" / guest).chmod(0o755)
    log = tmp_path / "log"
    cli.main(["run", f"--strace={log}", "--root", str(tmp_path / "root"), f"/{guest}"])
    capfd.readouterr()
    text = re.sub(r"0x[0-9a-f]{6,}", "X", log.read_text(errors="replace"))
    printed = re.sub(r" +=", " =", text).split("\n")
    assert [line for line in lines.splitlines() if line not in printed] == []
