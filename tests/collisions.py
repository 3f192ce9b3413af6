"""Frames that collide under a key that is known: what luck alone cannot reach in a test's time. See hash.c."""

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
NH_WORDS = 528
NAMES = NH_WORDS + 10


def key_words(seed: int) -> list[int]:
    """What dedupcore.set_key(seed) makes: SplitMix64."""
    words = []
    for _ in range(544):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        words.append(z ^ (z >> 31))
    return words


def swapped(frame: bytes, offset: int, key: list[int], turn: int) -> bytes:
    """Another frame with the same hash in that round: two factors of one of NH's products change places."""
    at = 2 * turn + offset // 8
    pair = np.frombuffer(frame, "<u8")[offset // 8 : offset // 8 + 2].tolist()
    factors = [(word + key[at + i]) & MASK for i, word in enumerate(pair)]
    words = [(factors[1 - i] - key[at + i]) & MASK for i in range(2)]
    other = frame[:offset] + b"".join(word.to_bytes(8, "little") for word in words) + frame[offset + 16 :]
    assert other != frame
    return other


def names_with_hashes(hashes: NDArray[np.uint64], key: list[int]) -> NDArray[np.uint64]:
    """The 8-byte frames that have these hashes: mix_name backwards."""
    inverses = [np.uint64(pow(key[NAMES + i] | 1, -1, 1 << 64)) for i in range(3)]
    x = hashes ^ hashes >> np.uint64(32)
    x = x * inverses[2]
    x ^= x >> np.uint64(29) ^ x >> np.uint64(58)
    x = x * inverses[1]
    x ^= x >> np.uint64(32)
    return x * inverses[0]
