"""`python -m emu run ...`."""

from __future__ import annotations

from emu.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
