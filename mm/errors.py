"""The ways an operation of mm/ and guest/ can fail on purpose.

`Errno` is the guest's: a call was refused, and the guest sees the number Linux would give it. `KernelBug` is ours: an
invariant broke, the state can no longer be trusted, and the run stops with the mm dumped. Anything else that propagates
is an ordinary Python error, and so a defect of pagewalk.
"""

from __future__ import annotations

import errno as _errno


class Errno(Exception):
    """A refusal the guest sees as -errno.

    Args:
        number: the positive errno value, for example `errno.ENOMEM`.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return _errno.errorcode.get(self.number, str(self.number))


class MustSleep(Exception):
    """A fault of the kernel waits for somebody (userfaultfd). Not an error.

    The running task must sleep, for what `TaskStruct.userfaults` says, and then do the whole system call again.
    """


class KernelBug(Exception):
    """An invariant of pagewalk broke (the kernel's BUG()).

    Args:
        message: which invariant, with the numbers that contradict it.
        mm: the address space to dump before stopping, an `MmStruct`, where one is concerned.
    """

    def __init__(self, message: str, mm: object = None) -> None:
        super().__init__(message)
        self.mm = mm
