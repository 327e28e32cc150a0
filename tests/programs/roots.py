"""A root folder with Debian's packages unpacked, made once and kept in .cache/. No dpkg, nothing is installed."""

import hashlib
import io
import os
import pathlib
import shutil
import tarfile
import urllib.request

from debian import CACHE, MIRROR, Unavailable, members

HERE = pathlib.Path(__file__).resolve().parent
PINNED = (HERE / "packages.txt").read_text(encoding="utf-8")
BUILT = HERE / "built"  # our own programs, see build.py: /opt in the guest
TEST_MODULES = "./usr/lib/python3.11/test/"
PYTHON_TESTS = ("test_mmap.py", "test_signal.py", "test_subprocess.py", "test_threading.py", "test_fork1.py")
PYTHON_TESTS += ("fork_wait.py", "lock_tests.py", "signalinterproctester.py", "subprocessdata/")  # what those import


def package(path: str, checksum: str) -> bytes:
    """A .deb of the mirror, kept. Raises Unavailable."""
    kept = CACHE / "debs" / path.rpartition("/")[2]
    if kept.exists():
        data = kept.read_bytes()
    else:
        try:
            with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise Unavailable(f"{MIRROR}/{path}: {error}") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise Unavailable(f"{path} is not the file the checksum was taken of")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(kept)
    return data


def is_wanted(name: str) -> bool:
    """Whether a file of a package can matter: no documentation, and of Python's tests those that are run."""
    if name.startswith(TEST_MODULES):
        rest = name.removeprefix(TEST_MODULES)
        return rest.startswith(("support/", "__init__", *PYTHON_TESTS))
    return not name.startswith(("./usr/share/doc", "./usr/share/man", "./usr/share/locale"))


def unpack(deb: bytes, root: pathlib.Path) -> None:
    """The package's files, without documentation, below `root`."""
    parts = members(deb)
    name = next(name for name in parts if name.startswith("data.tar"))
    with tarfile.open(fileobj=io.BytesIO(parts[name])) as tar:
        wanted = [m for m in tar if is_wanted(m.name) and not m.isdev()]
        tar.extractall(root, wanted, filter="tar")


def root_of(architecture: str) -> pathlib.Path:
    """The folder for `amd64` or `arm64`. Raises Unavailable when a package is not to be had."""
    built = sorted((BUILT / architecture).iterdir())
    content = [PINNED.encode(), pathlib.Path(__file__).read_bytes(), *(path.read_bytes() for path in built)]
    version = hashlib.sha256(b"".join(content)).hexdigest()[:12]
    root = CACHE / f"root-{architecture}-{version}"
    if root.exists():
        return root
    temporary = CACHE / f"root-{architecture}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for line in PINNED.splitlines():
        owner, path, checksum = line.split()
        if owner == architecture:
            unpack(package(path, checksum), temporary)
    shutil.copytree(BUILT / architecture, temporary / "opt")
    (temporary / "tmp").mkdir(exist_ok=True)
    (temporary / "etc").mkdir(exist_ok=True)
    (temporary / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (temporary / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    try:
        temporary.replace(root)
    except OSError:  # another test process was faster
        shutil.rmtree(temporary)
    return root
