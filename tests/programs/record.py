"""Write expected/NAME: what each case prints natively, in a chroot of the unpacked packages. Needs root on amd64.

PYTHONPATH=tests python tests/programs/record.py [NAME...]
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from programs.roots import root_of  # noqa: E402
from programs.table import CASES  # noqa: E402


def main() -> None:
    """Record all cases, or those named."""
    (HERE / "expected").mkdir(exist_ok=True)
    source = root_of("amd64")
    for case in CASES:
        if len(sys.argv) > 1 and case.name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "r"
            shutil.copytree(source, root, symlinks=True)
            (root / "dev/shm").mkdir(parents=True, exist_ok=True)
            subprocess.run(["mknod", "-m666", root / "dev/null", "c", "1", "3"], check=True)
            subprocess.run(["mknod", "-m666", root / "dev/urandom", "c", "1", "9"], check=True)
            (root / "dev/fd").symlink_to("/proc/self/fd")
            (root / "proc").mkdir(exist_ok=True)
            inner = ["unshare", "-mnpf", "--mount-proc=" + str(root / "proc"), "sh", "-c"]
            inner += ['ip link set lo up 2>/dev/null; exec chroot "$0" "$@"', str(root), *case.argv]
            done = subprocess.run(
                inner, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True,
                check=False, timeout=60,
            )  # fmt: skip
            (HERE / "expected" / case.name).write_bytes(f"status {done.returncode}\n".encode() + done.stdout)
            print(f"== {case.name} {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")


if __name__ == "__main__":
    main()
