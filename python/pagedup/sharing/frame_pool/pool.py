"""The frame pool: the memory of a host, and the guests that live in it."""

from __future__ import annotations

import operator
import threading
from collections.abc import Hashable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from dedupcore import PoolCounts, Work
from pagedup.memory.closing import Closing
from pagedup.sharing.frame_pool.guest import PoolGuest
from pagedup.sharing.frame_pool.hints import LargeHints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.policies import Policy, Scanner

_MIN_FRAME, _MAX_FRAME = 8, 1 << 30
_MAX_FRAMES = (1 << 32) - 1


class FramePool(Closing):
    """Frames in one mapping, and guests whose pages share them: first touch, copy on write, exact sharing.

    Args:
        capacity: how many frames there are, 1 to 2**32 - 1.
        frame_size: bytes, a power of two from 8 to 2**30: 4096 or 2 MiB for pages of bytes, 8 for content names.
        policy: how pages are shared when the pool scans: Ksm, Esx, Dirty. None: they are not, as on Hyper-V, but for
            `share` and `merge`, which are for pools without a policy.
        seed: of the random order in which PoolGuest.pick goes, 0 to 2**64 - 1.

    Memory is taken when frames are: of frames of at least a page (of this machine's) what is in use is what is
    resident, and freed ones go back to the operating system at the end of each batch; smaller ones are zeroed and kept,
    but for runs of 64 KiB. Beside them 6.2 bytes a frame that was ever in use, 4.2 a page of a guest, and 1 more a page
    that was ever touched or paged out. A policy takes 8.3 more a frame, 2 to 4 more one that is shared or could be, and
    5 a page that was written; `Ksm` 16 more for each of several shared frames of one content that are not full, and up
    to 4 a frame around them.

    Threads: `guest.read`, `large_hints`, `counts` and `check` may run side by side; other calls wait for each other.
    Views of the memory, of page tables and of marks wait for nobody: whoever reads them while another thread writes
    sees neither before nor after. A child after os.fork has a copy of its own, whole if no call was under way.

    Raises ValueError for sizes out of range, and MemoryError when there are not so many addresses.
    """

    def __init__(
        self, capacity: int, frame_size: int = 4096, *, policy: Policy | None = None, seed: int = 0
    ) -> None:
        n, size = operator.index(capacity), operator.index(frame_size)
        if not 1 <= n <= _MAX_FRAMES:
            raise ValueError(f"capacity is {n:,} frames; 1 to 2**32 - 1 are possible")
        if not _MIN_FRAME <= size <= _MAX_FRAME or size & (size - 1):
            raise ValueError(f"frame_size is {size:,}; it must be a power of two from {_MIN_FRAME} to {_MAX_FRAME:,}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; it must be 0 to 2**64 - 1")
        self._pool = dedupcore.Pool(n, size)
        self._pool.set_seed(seed)
        self._adding = threading.Lock()  # two new domains must not get one number
        self._domains: dict[Hashable, int] = {}
        self._guests: list[PoolGuest] = []
        self._policy = policy
        self._scanner = policy.scanner(self._pool, self._guests) if policy else None

    def __repr__(self) -> str:
        state = ", closed" if self._pool.closed else f", {len(self._guests):,} guests"
        return f"<FramePool: {self.capacity:,} frames of {self.frame_size:,} bytes{state}>"

    @property
    def capacity(self) -> int:
        """How many frames there are."""
        return self._pool.capacity

    @property
    def frame_size(self) -> int:
        """Bytes of a frame."""
        return self._pool.frame_size

    @property
    def policy(self) -> Policy | None:
        """How pages are shared, as the pool was made; `retune` does not change it."""
        return self._policy

    @property
    def limit(self) -> int:
        """No frame is given out while so many are in use: the capacity, until it is set to less.

        It may be less than what is in use; then nothing is given out until enough are free. Setting it raises
        ValueError for less than 0 and for more than the capacity.
        """
        return self._pool.limit

    @limit.setter
    def limit(self, frames: int) -> None:
        n = operator.index(frames)
        if not 0 <= n <= self.capacity:
            raise ValueError(f"limit is {n:,} frames; it must be 0 to {self.capacity:,}, the capacity")
        self._pool.limit = n

    @property
    def guests(self) -> tuple[PoolGuest, ...]:
        """All of them, in the order in which they were added."""
        return tuple(self._guests)

    @property
    def memory(self) -> NDArray[np.uint8]:
        """Uint8 ndarray (capacity, frame_size), a read-only view: all frames, free ones zero. It changes as they do."""
        return np.asarray(memoryview(self._pool.memory())).reshape(self.capacity, self.frame_size)

    def add_guest(self, pages: int, *, domain: Hashable = None, large_pages: bool = False) -> PoolGuest:
        """Add a guest of so many pages, all absent. Only guests of equal domains ever share a frame.

        large_pages: the first touch of each range of 512 pages makes it a large page (see PoolGuest), where a block of
        512 frames is free. Any guest can have large pages by `rebuild_large`.

        Takes 4 bytes a page. Raises ValueError for a number of pages out of range (all guests together have at most
        2**32 - 1), for more than 65,536 different domains, for large pages of frames above 2 MiB, and for a closed
        pool; MemoryError.
        """
        n = operator.index(pages)
        if not 1 <= n <= _MAX_FRAMES:
            raise ValueError(f"pages is {n:,}; a guest has 1 to 2**32 - 1")
        with self._adding:
            if self._policy:
                domain = self._policy.domain(domain, len(self._guests))
            number = self._domains.get(domain, len(self._domains))
            if number == dedupcore.MAX_DOMAINS:
                raise ValueError(f"domain is {domain!r}: one more than the {dedupcore.MAX_DOMAINS:,} that are possible")
            guest = PoolGuest(self._pool, self._pool.add_guest(n, number, large_pages), n, domain)
            self._domains[domain] = number
            self._guests.append(guest)
        return guest

    def share(self) -> Work:
        """Store each content once a domain: of equal frames, which find_duplicates finds, the lowest stays.

        Returns what finding them took. Runs on this thread, without the GIL. Takes 24 bytes a frame in use and 16 MiB
        while it runs, where frames are of several domains or some between them are free 8 more, and 32 for each run of
        neighbours of one domain. Raises MemoryError, with nothing changed.
        """
        return self._pool.share()

    def scan(self, seconds: float) -> None:
        """Let the policy's scanner go on for so many seconds of simulated time; math.inf: to the end of its pass.

        Runs on this thread, without the GIL; other calls may come in between. Interrupted, it stops between two pages,
        with all that it has shared; the time that it had left is lost. Raises ValueError for a time that is none, and
        for a pool that has no policy.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds is {seconds}; it must be 0 or more")
        self._require_policy().scan(seconds)

    def retune(self, policy: Policy) -> None:
        """Let the pool's scanner go on at the pace of another policy, which differs in its PACE alone.

        As ksmtuned does with KSM. Raises ValueError for a policy of another kind or other settings than the pool's.
        """
        scanner, mine = self._require_policy(), self._policy
        if type(policy) is not type(mine):
            raise ValueError(f"the policy is {policy!r}; it must be a {type(mine).__name__}, as the pool's")
        for setting in fields(policy):
            new, old = getattr(policy, setting.name), getattr(mine, setting.name)
            if new != old and setting.name not in policy.PACE:
                right = f"{old!r}, as the pool's: others can be {', '.join(policy.PACE)}"
                raise ValueError(f"{setting.name} is {new!r}; it must be {right}")
        scanner.retune(policy)

    def scan_counts(self) -> Any:
        """The counters of the policy's original, by its names: KsmScanCounts, EsxCounts, DirtyCounts.

        Raises ValueError for a pool that has no policy.
        """
        return self._require_policy().counts()

    def _require_policy(self) -> Scanner:
        if self._scanner is None:
            raise ValueError("the pool has no policy: give it one when it is made, such as policy=Ksm()")
        return self._scanner

    def share_large(self) -> Work:
        """Store equal large pages once a domain: of those whose pages are all equal the one in the lowest frames stays.

        Returns what finding them took, and is else as `share`, which never moves the pages of large ones: for pools
        without a policy.
        """
        return self._pool.share_large()

    def large_hints(self) -> LargeHints:
        """What `share` would find in large pages if they were broken, exactly; breaks none.

        Groups all frames in use, and takes as much memory as `share`. Raises MemoryError.
        """
        return LargeHints.of_bytes(self._pool.large_hints())

    def counts(self) -> PoolCounts:
        """What the pool holds, and what happened since it was made; frames, unless it says pages.

        capacity, in_use: frames. pages_present: pages that have one. zero_frames, zero_pages: frames in use for zero
        pages as far as sharing has found out, and the pages mapped there; apart from the next three. pages_shared:
        frames that several pages are mapped to; pages_sharing: how many pages more than these, which is what is saved;
        pages_unshared: frames of one page. first_touches, cow_breaks: pages that got a frame at a write, being absent
        or having a shared one. pages_merged: pages that moved to an equal frame. pages_released: pages released.
        large_pages: that there are, each of them 512 pages in the numbers before; large_breaks, large_rebuilds: of
        them, by a call, a write, a release or paging out.
        """
        return self._pool.count()

    def check(self) -> None:
        """Prove that the pool is as it says; raises RuntimeError, which names the first flaw, if it is not.

        Each page's frame is in use and of its domain; pages that are out have none; each frame is mapped as often as
        counted; large pages lie in one block of frames, where no small page was moved to; free frames are zero, and
        are found; the counters are right. Reads everything.
        """
        self._pool.check()

    def close(self) -> None:
        """No call after it. The memory goes back now, or with the last view of it. Closing twice does nothing."""
        self._pool.close()
