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


def unpack(deb: bytes, root: pathlib.Path) -> None:
    """The package's files, without documentation, below `root`."""
    parts = members(deb)
    name = next(name for name in parts if name.startswith("data.tar"))
    with tarfile.open(fileobj=io.BytesIO(parts[name])) as tar:
        wanted = [m for m in tar if not m.name.startswith("./usr/share/doc") and not m.isdev()]
        tar.extractall(root, wanted, filter="tar")


def root_of(architecture: str) -> pathlib.Path:
    """The folder for `amd64` or `arm64`. Raises Unavailable when a package is not to be had."""
    version = hashlib.sha256(PINNED.encode()).hexdigest()[:12]
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
    (temporary / "tmp").mkdir(exist_ok=True)
    (temporary / "etc").mkdir(exist_ok=True)
    (temporary / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (temporary / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    try:
        temporary.replace(root)
    except OSError:  # another test process was faster
        shutil.rmtree(temporary)
    return root
