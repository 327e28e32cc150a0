"""The vDSO: one small ELF image per architecture, mapped into every guest process as `[vdso]`.

Every function in it makes the system call of the same name. So its answers are the kernel's by construction, and there is
no page of clock data to keep in step; `[vvar]` is there at Linux's place and size, and nothing reads it. The sources are
in `src/`; `make images` rebuilds the committed files, the same bytes each time.
"""

from __future__ import annotations

import os

#: Offset of `__kernel_rt_sigreturn` in vdso_aarch64.so: where a signal handler without SA_RESTORER returns to.
SIGTRAMP_AARCH64 = 0x444


def image(arch_name: str) -> bytes:
    """The ELF image for `x86_64` or `aarch64`; its length over the page size, rounded up, is the size of `[vdso]`.

    x86-64's is padded to the two pages Linux's takes; arm64's is one page at every page size, as Linux's.
    """
    with open(os.path.join(os.path.dirname(__file__), f"vdso_{arch_name}.so"), "rb") as file:
        return file.read()
