"""A frame pool with the policy Esx as a host for the tests of the model: guests of one page, scanned one by one."""

from collections.abc import Callable, Hashable, Iterable

import numpy as np

from pagedup.sharing import Esx, FramePool, PoolGuest
from pagedup.sharing.frame_pool import ABSENT
from tests.collisions import key_words, swapped
from tests.esx_model import Counts, Done, Page

SIZE = 4096
KEY = 1


class EsxPool:
    """As EsxModel. It needs dedupcore.set_key(KEY), by which contents are made that have the same hash."""

    def __init__(self, share_force_salting: int = 2, hash_of: Callable[[int], int] = hash) -> None:
        self.hash_of = hash_of
        self.pool = FramePool(256, SIZE, policy=Esx(cpu_ghz=1, share_force_salting=share_force_salting))
        self.guests: list[PoolGuest] = []
        self.frames = {0: bytes(SIZE)}  # by content
        self.with_hash: dict[int, int] = {}  # how many contents have it

    def add_vm(self, salt: Hashable = None) -> int:
        self.guests.append(self.pool.add_guest(1, domain=salt))
        return len(self.guests) - 1

    def frame(self, content: int) -> bytes:
        """Noise for each hash; in each further content that has it two factors of the hash are swapped."""
        if content not in self.frames:
            value = self.hash_of(content)
            n = self.with_hash[value] = self.with_hash.get(value, 0) + 1
            noise = np.random.default_rng(value).bytes(SIZE)
            self.frames[content] = swapped(noise, 320 * n, key_words(KEY), 0) if n > 1 else noise
        return self.frames[content]

    def write(self, page: Page, content: int) -> None:
        self.guests[page[0]].write([0], np.frombuffer(self.frame(content), np.uint8).reshape(1, SIZE))

    def release(self, page: Page) -> None:
        self.guests[page[0]].release([0])

    def read(self, page: Page) -> int | None:
        if self.guests[page[0]].page_table[0] == ABSENT:
            return None
        out = np.zeros((1, SIZE), np.uint8)
        self.guests[page[0]].read([0], out)
        (content,) = [content for content, frame in self.frames.items() if frame == out.tobytes()]
        return content

    def scan(self, order: Iterable[Page]) -> None:
        for vm, _ in order:
            self.pool._pool.scan_guest(vm, 1)

    def counts(self) -> Counts:
        c = self.pool.scan_counts()
        return Counts(c.zero, c.shared, c.common, c.shared - c.common, c.cow_hints)

    @property
    def done(self) -> Done:
        c = self.pool.scan_counts()
        return Done(
            pages_scanned=c.pages_scanned,
            pages_hashed=c.pages_hashed,
            hints_matched=c.hints_matched,
            hints_stale=c.hints_stale,
            collisions=c.collisions,
            pages_merged=self.pool.counts().pages_merged,
            cow_breaks=self.pool.counts().cow_breaks,
        )

    def check(self) -> None:
        self.pool.check()
