"""Write packages.txt: path and checksum of every package the programs need, from the mirror's indices.

python tests/programs/pin.py        after a point release of Debian 12
"""

import lzma
import os
import pathlib
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
MIRROR = os.environ.get("PAGEWALK_DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES = (HERE / "names.txt").read_text(encoding="utf-8").split()


def main() -> int:
    """Fetch both indices, keep what is ours."""
    lines = []
    for architecture in ("amd64", "arm64"):
        url = f"{MIRROR}/dists/bookworm/main/binary-{architecture}/Packages.xz"
        with urllib.request.urlopen(url, timeout=300) as answer:
            index = lzma.decompress(answer.read()).decode()
        found = {}
        for entry in index.split("\n\n"):
            name = entry.partition("\n")[0].removeprefix("Package: ")
            if name in PACKAGES:
                fields = dict(line.split(": ", 1) for line in entry.split("\n") if line[:1] != " " and ": " in line)
                found[name] = f"{architecture} {fields['Filename']} {fields['SHA256']}"
        missing = set(PACKAGES) - set(found)
        if missing:
            print("not in the index:", architecture, *sorted(missing), file=sys.stderr)
        lines += [found[name] for name in sorted(found)]
    (HERE / "packages.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
