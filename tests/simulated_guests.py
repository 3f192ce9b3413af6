"""The oracle of simulated guests: random numbers, a buddy allocator of plain lists, and names read back from bytes."""

from collections.abc import Sequence

import dedupcore

MASK = 2**64 - 1
WEYL = 0x9E3779B97F4A7C15
MAX_ORDER = 10


def mix(x: int) -> int:
    """The output function of SplitMix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def split_mix(seed: int, n: int) -> list[int]:
    """The first n numbers of SplitMix64."""
    return [mix(seed + (i + 1) * WEYL & MASK) for i in range(n)]


def random(key: int, i: int) -> int:
    """Number i of the stream of a key."""
    (start,) = split_mix(key, 1)
    return mix(start + (i + 1) * WEYL & MASK)


class Buddies:
    """Free memory by order; the last block of a list is the next to be handed out."""

    def __init__(self, key: int, free: Sequence[range], split: int) -> None:
        self.key, self.split = key, split
        self.lists: list[list[int]] = [[] for _ in range(MAX_ORDER + 1)]
        for pages in free:
            first = pages.start
            while first < pages.stop:
                order = max(k for k in range(MAX_ORDER + 1) if first % 2**k == 0 and first + 2**k <= pages.stop)
                self.add(first, order)
                first += 2**order
        for order, blocks in enumerate(self.lists):
            blocks.reverse()
            for j in range(len(blocks) - 1, 0, -1) if split else ():
                other = random(key, (order + 1 << 40) + j) * (j + 1) >> 64
                blocks[j], blocks[other] = blocks[other], blocks[j]

    def add(self, first: int, order: int) -> None:
        """A block, or what becomes of it."""
        if order and random(self.key, first * 16 + order) >> 32 < self.split:
            self.add(first, order - 1)
            self.add(first + 2 ** (order - 1), order - 1)
        else:
            self.lists[order].append(first)

    def take(self, order: int) -> list[int]:
        """The pages of a block of this order, or of the largest there is."""
        larger = [k for k in range(order, MAX_ORDER + 1) if self.lists[k]]
        if not larger:
            return self.take(order - 1)
        first = self.lists[larger[0]].pop()
        for k in range(larger[0] - 1, order - 1, -1):
            self.lists[k].append(first + 2**k)
        return list(range(first, first + 2**order))


def place(
    key: int, n_pages: int, split: int, counts: Sequence[int], max_orders: Sequence[int], fixed: Sequence[int]
) -> list[int]:
    """The page of each page of the regions; split: the probability that a block is, in units of 2^-32."""
    taken = sorted((first, first + count) for first, count in zip(fixed, counts, strict=True) if first >= 0 and count)
    starts = [0, *(end for _, end in taken)]
    ends = [*(first for first, _ in taken), n_pages]
    memory = Buddies(key, [range(a, b) for a, b in zip(starts, ends, strict=True)], split)
    places: list[int] = []
    for count, most, first in zip(counts, max_orders, fixed, strict=True):
        if first >= 0:
            places += range(first, first + count)
            continue
        at = 0
        while at < count:
            order = max(k for k in range(most + 1) if at % 2**k == 0 and at + 2**k <= count)
            block = memory.take(order)
            places += block
            at += len(block)
    return places


def read_name(frame: bytes) -> int:
    """The name that a frame stands for, whatever its texture: what shows that no two names have one frame."""
    words = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, len(frame), 8)]
    if not any(words):
        return 0
    texture = words[1] & 3
    if texture == dedupcore.SPARSE:
        (name,) = [word for word in words if word]
        return name
    if texture == dedupcore.NOISE:
        return words[0]
    if texture == dedupcore.PREFIX:
        return words[-1]
    family = words[0]
    return family << 8 | frame[16 + (mix(family + WEYL & MASK) * (len(frame) - 16) >> 64)]
