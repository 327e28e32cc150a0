"""Random numbers of the machine: SplitMix64 from a seed, so that a run can be repeated on any Python.

Our own and not the standard library's: importing that costs a start several milliseconds.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFFFFFFFFFF
_LONG = 4096  # bytes from which on a faster generator, seeded by this one, is worth it


class Rng:
    """A sequence that the seed alone decides."""

    __slots__ = ("state",)

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def next(self) -> int:
        """The next 64 bits."""
        self.state = z = self.state + 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return z ^ z >> 31

    def getrandbits(self, bits: int) -> int:
        """A number of at most `bits` bits, 64 at most."""
        return self.next() >> (64 - bits)

    def randbytes(self, count: int) -> bytes:
        """`count` bytes."""
        if count > _LONG:
            from _random import Random  # C, and the same sequence on every Python

            return Random(self.next()).getrandbits(8 * count).to_bytes(count, "little")
        words = b"".join([self.next().to_bytes(8, "little") for _ in range((count + 7) // 8)])
        return words[:count]
