"""Seeded draws that hang on names alone: neither the order of rows nor what else is in the table changes them."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def lots(purpose: str, seed: int, names: Iterable[str]) -> Words:
    """Draw one uniform 64-bit number per name; draws for different purposes are independent.

    Args:
        purpose: what is drawn, as `options`.
        seed: seed of the run.
        names: what to draw for.
    """
    head = hashlib.blake2b(f"{purpose}\0{seed}\0".encode(), digest_size=8)

    def draw(name: str) -> bytes:
        mine = head.copy()
        mine.update(name.encode())
        return mine.digest()

    return np.frombuffer(b"".join(draw(name) for name in names), dtype="<u8").astype(np.uint64)


def more(drawn: Words, count: int) -> Words:
    """Stretch each number into `count` independent ones (SplitMix64, Steele et al. 2014): shape (n,) to (n, count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = np.asarray(drawn, dtype=np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = z ^ (z >> np.uint64(31))
    return mixed
