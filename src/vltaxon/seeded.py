"""Draw random numbers that depend on a seed and a name only, not on the order or the rest of a table."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]


def draw_numbers(purpose: str, seed: int, names: Iterable[str]) -> Numbers:
    """Draw one uniform 64-bit number per name; draws for different purposes are independent.

    Args:
        purpose: what is drawn, as `options`.
        seed: seed of the run.
        names: what to draw for.

    Returns:
        Numbers of shape (names,), in the order of the names.
    """
    head = hashlib.blake2b(f"{purpose}\0{seed}\0".encode(), digest_size=8)

    def draw(name: str) -> bytes:
        hasher = head.copy()
        hasher.update(name.encode())
        return hasher.digest()

    return np.frombuffer(b"".join(draw(name) for name in names), dtype="<u8").astype(np.uint64)


def stretch(numbers: Numbers, count: int) -> Numbers:
    """Make several independent numbers of each one (SplitMix64, Steele et al. 2014).

    Args:
        numbers: shape (n,).
        count: how many to make of each.

    Returns:
        Numbers of shape (n, count).
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = np.asarray(numbers, dtype=np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Numbers = z ^ (z >> np.uint64(31))
    return mixed
