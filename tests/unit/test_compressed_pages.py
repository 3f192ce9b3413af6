"""The compressed cache, of bytes and of names."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupcore
from pagedup.swap import NO_ENTRY, CompressedCache, CompressedNames, CompressedPages, SwapCorrupt


def pages(kinds: str, seed: int = 0, size: int = 4096) -> Any:
    """A page for each letter: c compresses to half, r is random, z is zero."""
    dice = np.random.default_rng(seed)
    made = dice.integers(0, 256, (len(kinds), size), np.uint8)
    for i, kind in enumerate(kinds):
        if kind == "c":
            made[i, size // 4 :] = i % 256
        if kind == "z":
            made[i] = 0
    return made


def test_what_fits_is_kept_and_comes_back() -> None:
    with CompressedCache(3) as cache:
        data = pages("crczrcccc")
        compressed = cache.compress(data)
        assert compressed.fits.tolist() == [kind in "cz" for kind in "crczrcccc"]
        assert cache.used == 0
        entries = cache.put(compressed)
        assert entries.tolist() == [0, NO_ENTRY, 1, 2, NO_ENTRY, 3, 4, 5, NO_ENTRY]  # the last finds no room
        assert (cache.used, cache.frames) == (6, 3)
        out = np.full((4, 4096), 0xEE, np.uint8)
        cache.get([2, 5, 0, 2], out)
        assert (out == data[[3, 7, 0, 3]]).all()


def test_half_a_frame_is_the_border() -> None:
    """A page of random bytes and zeros whose stream has exactly 2048 bytes, or one more."""
    dice = np.random.default_rng(4)
    found: dict[int, Any] = {}
    for n in range(1900, 2060):
        page = np.zeros(4096, np.uint8)
        page[:n] = dice.integers(0, 256, n)
        found[len(zlib.compress(page.data, 1))] = page
    assert {2048, 2049} <= found.keys()
    with CompressedCache(3) as cache:
        assert cache.compress(np.stack([found[2048], found[2049]])).fits.tolist() == [True, False]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pages("crzc" * 100)
    expected = [zlib.compress(page, 1) for page in data]
    monkeypatch.setattr(dedupcore, "available_threads", lambda: threads)
    with CompressedCache(300) as cache:
        compressed = cache.compress(data)
        assert compressed.contents == [each for each in expected if len(each) <= 2048]
        entries = cache.put(compressed)
        out = np.zeros((300, 4096), np.uint8)
        cache.get(entries[compressed.fits], out)
        assert (out == data[compressed.fits]).all()


class Resident:
    def __init__(self, array: Any) -> None:
        self.start, self.end = array.ctypes.data, array.ctypes.data + array.nbytes

    def bytes(self) -> int:
        """What the kernel says is there of it; its mapping may be joined with neighbours."""
        entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
        for entry in entries:
            bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", entry)
            if bounds and int(bounds[1], 16) <= self.start < int(bounds[2], 16):
                rss = re.search(r"Rss:\s+(\d+) kB", entry)
                assert rss is not None and int(bounds[2], 16) >= self.end
                return int(rss[1]) * 1024
        raise AssertionError("not mapped")


def test_it_takes_as_many_frames_as_it_says() -> None:
    with CompressedCache(2000) as cache:
        memory = Resident(cache._rows)
        before = memory.bytes()
        entries = cache.put(cache.compress(pages("c" * 3001)))
        assert cache.frames == 1501
        assert 0 <= memory.bytes() - before - 1501 * 4096 <= 64 * 4096
        cache.free(np.random.default_rng(1).permutation(entries)[:2000])
        assert cache.frames == 501
        assert abs(memory.bytes() - before - 501 * 4096) <= 64 * 4096


def test_share_of_names() -> None:
    names = np.arange(100_000, dtype=np.uint64)
    for share in (0.0, 0.3, 1.0):
        with CompressedNames(10, share) as cache:
            found = cache.compresses(names)
            assert abs(found.mean() - share) < 0.01
            assert found[0]  # the zero page
            with CompressedNames(7, share) as other:
                assert (other.compress(names[::-1].copy()).fits[::-1] == found).all()
    # The same everywhere: the finalizer of SplitMix64 on the name plus its constant.
    with CompressedNames(10, 0.5) as cache:
        assert cache.compresses(names[:64]).tolist() == [name == 0 or mixed(name) < 2**63 for name in range(64)]


def mixed(name: int) -> int:
    x = (name + 0x9E3779B97F4A7C15) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ x >> shift) * factor % 2**64
    return x ^ x >> 31


@settings(max_examples=150)
@given(
    names=st.booleans(),
    steps=st.lists(st.tuples(st.sampled_from(["put", "put", "free", "evict"]), st.integers(0, 9)), max_size=40),
    seed=st.integers(0, 1 << 16),
)
def test_beside_a_dict(names: bool, steps: list[tuple[str, int]], seed: int) -> None:
    dice = np.random.default_rng(seed)
    size = 8 if names else 64
    cache: CompressedPages = CompressedNames(8, 1) if names else CompressedCache(8, 64)
    held: dict[int, bytes] = {}  # in the order in which they came
    with cache:
        for what, n in steps:
            if what == "put":
                data = np.repeat(dice.integers(0, 256, (n, 1), np.uint8), size, axis=1)
                entries = cache.put(cache.compress(data))
                room = 16 - len(held)
                assert (entries[room:] == NO_ENTRY).all() and not (entries[:room] == NO_ENTRY).any()
                assert not set(held) & set(entries[:room].tolist())
                held.update(zip(entries[:room].tolist(), map(bytes, data), strict=False))
            else:
                oldest = cache.oldest(n)
                assert oldest.tolist() == list(held)[:n]
                gone = oldest if what == "evict" else dice.permutation(list(held)).astype(np.uint32)[:n]
                cache.free(gone)
                for entry in gone.tolist():
                    del held[entry]
            assert (cache.used, cache.frames) == (len(held), -(-len(held) // 2))
            out = np.zeros((len(held), size), np.uint8)
            cache.get(list(held), out)
            assert [bytes(each) for each in out] == list(held.values())
        assert cache.oldest(100).tolist() == list(held)


def test_the_order_stays_however_many_came_and_went() -> None:
    with CompressedNames(4, 1) as cache:
        held = cache.put(cache.compress(np.arange(5, dtype=np.uint64))).tolist()
        for step in range(50):
            middle = held.pop(step % 4)
            cache.free([middle])
            held += cache.put(cache.compress(np.array([step], np.uint64))).tolist()
            assert cache.oldest(8).tolist() == held


def test_altered_in_memory() -> None:
    with CompressedCache(3) as cache:
        data = pages("cccc")
        entries = cache.put(cache.compress(data))
        cache._rows[1, 700] ^= 1
        cache._rows[2, :2] = 0
        out = np.full((4, 4096), 0xEE, np.uint8)
        with pytest.raises(SwapCorrupt, match="entry 1 and 1 more") as error:
            cache.get(entries, out)
        assert error.value.slots == (1, 2)
        assert (out[[0, 3]] == data[[0, 3]]).all() and not out[1:3].any()


@pytest.mark.parametrize("make", [lambda: CompressedCache(4, 64), lambda: CompressedNames(4, 1.0)])
def test_wrong_arguments(make: Any) -> None:
    cache = make()
    size = cache.frame_size
    cache.put(cache.compress(np.zeros((3, size), np.uint8)))
    with pytest.raises(ValueError, match=r"entries\[1\] is 3, which is free"):
        cache.free([1, 3])
    with pytest.raises(ValueError, match="entries has 1 twice"):
        cache.free([1, 1])
    with pytest.raises(ValueError, match=r"entries\[0\] is 8; there are 8 entries"):
        cache.get([8], np.zeros((1, size), np.uint8))
    with pytest.raises(ValueError, match="writable"):
        cache.get([1], np.frombuffer(bytes(size), np.uint8).reshape(1, -1))
    with pytest.raises(ValueError, match="frames has the shape"):
        cache.compress(np.zeros((1, size + 1), np.uint8))
    with pytest.raises(TypeError, match="frames is a list"):
        cache.compress([1])
    assert cache.used == 3
    cache.close()
    cache.close()
    for call in (lambda: cache.get([1], np.zeros((1, size), np.uint8)), lambda: cache.free([1])):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_sizes_out_of_range() -> None:
    for make in (lambda n: CompressedNames(n, 0.5), CompressedCache):
        for n in (0, 1 << 30):
            with pytest.raises(ValueError, match="most_frames is"):
                make(n)
    for size in (32, 100, 1 << 31):
        with pytest.raises(ValueError, match="frame_size is"):
            CompressedCache(1, size)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share is"):
            CompressedNames(1, share)
    with pytest.raises(MemoryError, match="no addresses"):
        CompressedCache((1 << 30) - 1, 1 << 30)
