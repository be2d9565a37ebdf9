"""How much a compressed file may hold: what it says itself is not trusted."""

from __future__ import annotations

TIMES, LEAST = 100, 64 << 20


def most_bytes(size: int) -> int:
    """The most bytes that a compressed file of ``size`` bytes may unpack to.

    It is 100 times its own size, or 64 MiB for small files. Images, videos and arrays take a few times their
    compressed size; bombs take a thousand times and more.
    """
    return max(LEAST, TIMES * size)
