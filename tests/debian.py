"""Debian's busybox-static, fetched once from Debian's mirror and kept in .cache/.

The version is pinned with its checksums. A package is unpacked here, without dpkg: an `ar` archive of tar archives.
"""

import hashlib
import io
import os
import pathlib
import tarfile
import urllib.request

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache"
MIRROR = os.environ.get("PAGEWALK_DEBIAN_MIRROR", "http://deb.debian.org/debian")
VERSION = "1.35.0-4+deb12u1+b1"
SHA256 = {
    "amd64": "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744",
    "arm64": "732c9135564fc71337e0e05fb4da4d11e6c28c1834bce3e405e575afef2a52f5",
}
#: Kernel (geometry) -> Debian's name of its architecture.
KERNELS = {"x86_64-4k": "amd64", "aarch64-4k": "arm64", "aarch64-16k": "arm64", "aarch64-64k": "arm64"}


class Unavailable(Exception):
    """The package is not in the cache and cannot be fetched; the message says why."""


def fetch(architecture: str) -> bytes:
    """The .deb of busybox-static.

    Raises:
        Unavailable: no network, no such version on the mirror any more, or other bytes than the pinned ones.
    """
    name = f"busybox-static_{VERSION}_{architecture}.deb"
    kept = CACHE / name
    if kept.exists():
        data = kept.read_bytes()
    else:
        url = f"{MIRROR}/pool/main/b/busybox/{name}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise Unavailable(f"{url}: {error}") from error
    if hashlib.sha256(data).hexdigest() != SHA256[architecture]:
        raise Unavailable(f"{name} is not the file the checksum was taken of")
    if not kept.exists():
        CACHE.mkdir(exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(kept)  # whole or not at all: several test processes may fetch at once
    return data


def members(archive: bytes) -> dict[str, bytes]:
    """The members of an `ar` archive by name."""
    found, at = {}, 8
    while at + 60 <= len(archive):
        name, size = archive[at : at + 16].decode().strip().rstrip("/"), int(archive[at + 48 : at + 58])
        found[name] = archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def busybox(architecture: str) -> bytes:
    """The busybox program for Debian's `amd64` or `arm64`."""
    data = members(fetch(architecture))
    name = next(name for name in data if name.startswith("data.tar"))
    with tarfile.open(fileobj=io.BytesIO(data[name])) as tar:
        member = tar.extractfile("./bin/busybox")
        if member is None:
            raise Unavailable(f"{name} holds no ./bin/busybox")
        return member.read()
