"""A simulator's memory, its dirty log, and a pool that gets what was written and so holds what there is."""

import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pagedup
from pagedup import DirtyLog, FramePool
from pagedup.sharing.policies import Dirty

PAGE = mmap.PAGESIZE
PAGES = 3000

pytestmark = pytest.mark.userfaultfd


def memory(n: int) -> Any:
    """Uint8 (n, PAGE), all zero; each page was read once, so that from now on only writes count."""
    area = mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    ram = np.frombuffer(area, np.uint8).reshape(n, PAGE)
    assert not ram.any()
    return ram


def share(pool: FramePool) -> None:
    pool.share()


def scan(pool: FramePool) -> None:
    pool.scan(math.inf)


def assert_same_as_a_snapshot(pool: FramePool, rams: list[Any], domains: list[str]) -> None:
    counts = pool.counts()
    truth = pagedup.summarize(pagedup.find_duplicates(rams, frame_size=PAGE, domains=domains))
    assert counts.pages_present == truth.frames
    assert counts.zero_pages == truth.zero
    assert counts.in_use - counts.zero_frames == truth.distinct
    assert counts.pages_shared == truth.pages_shared
    assert counts.pages_sharing == truth.pages_sharing == truth.saved_nonzero


def write_some(ram: Any, dice: np.random.Generator) -> set[int]:
    """Contents that meet again now and then: some of a few, zero among them, some of their own."""
    written = set()
    for first in dice.integers(0, PAGES, dice.integers(1, 60)).tolist():
        end = min(PAGES, first + int(dice.integers(1, 9)))
        if dice.integers(4):
            ram[first:end] = dice.integers(0, 5)
        else:
            ram[first:end, 100:108] = np.frombuffer(dice.bytes(8), np.uint8)
        written |= set(range(first, end))
    return written


@pytest.mark.parametrize(("settle", "policy"), [(share, None), (scan, Dirty())])
@pytest.mark.parametrize("domains", ["aa", "ab"])
def test_a_pool_that_lives_on_dirty_logs(
    settle: Callable[[FramePool], None], policy: Dirty | None, domains: str
) -> None:
    dice = np.random.default_rng(1)
    rams = [memory(PAGES) for _ in domains]
    with FramePool(2 * PAGES, PAGE, policy=policy) as pool:
        guests = [pool.add_guest(PAGES, domain=domain) for domain in domains]
        logs = [DirtyLog(ram) for ram in rams]
        handed = 0
        for n in range(25):
            for ram, log, guest in zip(rams, logs, guests, strict=True):
                written = write_some(ram, dice)
                pages = log.take()
                assert len(pages) == (len(written) if n else PAGES)
                guest.write(pages, ram[pages])
                handed += len(pages)
            settle(pool)
            assert_same_as_a_snapshot(pool, rams, list(domains))
        if policy:
            assert pool.scan_counts().pages_scanned == handed
        pool.check()
        for ram, log, guest in zip(rams, logs, guests, strict=True):
            log.close()
            out = np.empty_like(ram)
            guest.read(np.arange(PAGES), out)
            assert np.array_equal(out, ram)


def test_pages_that_are_discarded_are_released() -> None:
    """A discard is no write. Who discards releases the pages; the log tells them when they have memory again."""
    dice = np.random.default_rng(2)
    area = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    ram = np.frombuffer(area, np.uint8).reshape(PAGES, PAGE)
    with FramePool(PAGES, PAGE, policy=Dirty()) as pool, DirtyLog(ram) as log:
        guest = pool.add_guest(PAGES)
        for _ in range(30):
            write_some(ram, dice)
            first, n = int(dice.integers(PAGES - 20)), int(dice.integers(1, 20))
            pages = log.take()
            guest.write(pages, ram[pages])
            area.madvise(mmap.MADV_DONTNEED, first * PAGE, n * PAGE)
            guest.release(np.arange(first, first + n))
            write_some(ram, dice)
            pages = log.take()
            guest.write(pages, ram[pages])
            out = np.empty_like(ram)
            guest.read(np.arange(PAGES), out)
            assert np.array_equal(out, ram)
            pool.scan(math.inf)
            pool.check()
