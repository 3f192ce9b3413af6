"""Names as bytes: different names are different bytes, in every texture, and the bytes never change."""

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dedupcore
from tests import simulated_guests

TEXTURES = {
    "sparse": dedupcore.SPARSE,
    "noise": dedupcore.NOISE,
    "one byte": dedupcore.ONE_BYTE,
    "prefix": dedupcore.PREFIX,
    "mixed": dedupcore.MIXED,
}
SIZES = [64, 128, 512, 4096]
each_texture = pytest.mark.parametrize("texture", TEXTURES.values(), ids=TEXTURES)


def frames_of(names: NDArray[np.uint64], size: int, texture: int) -> NDArray[np.uint8]:
    out = np.full((len(names), size), 0xA5, np.uint8)
    dedupcore.materialize(names, out, size, texture)
    return out


def tricky() -> NDArray[np.uint64]:
    """Names one bit apart, high and low, runs across families, and those that stand for parts of frames."""
    bits = [1 << bit for bit in range(64)]
    names = {0, *bits, *(2**64 - 1 - bit for bit in bits), *(a | b for a, b in itertools.combinations(bits, 2))}
    for start in (0, 250, 1 << 16, 1 << 40, (1 << 56) - 300, 1 << 63, 2**64 - 600):
        names |= set(range(start, start + 600))
    names |= {name << shift for name in range(300) for shift in (8, 32, 56)}
    names |= {
        int(word) for word in frames_of(np.arange(64, dtype=np.uint64), 512, dedupcore.MIXED).view(np.uint64).flat
    }
    return np.array(sorted(name for name in names if name < 2**64), np.uint64)


@each_texture
@pytest.mark.parametrize("size", SIZES)
def test_names_can_be_read_back(size: int, texture: int) -> None:
    """So no two names have one frame."""
    names = tricky()
    frames = frames_of(names, size, texture)
    assert [simulated_guests.read_name(frame.tobytes()) for frame in frames] == names.tolist()


@each_texture
@pytest.mark.parametrize(("size", "n"), [(64, 1 << 20), (4096, 1 << 14)])
def test_a_million_names_in_a_row_are_all_different(size: int, n: int, texture: int) -> None:
    names = np.arange(n, dtype=np.uint64)
    frames = frames_of(names, size, texture)
    canonical = np.empty(n, np.uint32)
    found = dedupcore.find_duplicates([(frames, 0, n)], canonical, frame_size=size)
    assert (found.n_distinct, found.n_zero, found.zero_canonical) == (n - 1, 1, 0)


@each_texture
def test_only_name_0_is_zero(texture: int) -> None:
    frames = frames_of(np.array([0, 1, 0, 1 << 63, 0], np.uint64), 4096, texture)
    assert frames.any(axis=1).tolist() == [False, True, False, True, False]


def test_equal_names_are_equal_bytes_wherever_they_stand() -> None:
    names = np.array([3, 1 << 50, 3, 900, 1 << 50], np.uint64)
    for texture in TEXTURES.values():
        frames = frames_of(names, 4096, texture)
        assert np.array_equal(frames[0], frames[2]) and np.array_equal(frames[1], frames[4])
        assert np.array_equal(frames[3:], frames_of(names[3:], 4096, texture))


# --- what each texture promises ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_sparse_frames_have_one_word(size: int) -> None:
    words = frames_of(np.arange(1, 3000, dtype=np.uint64), size, dedupcore.SPARSE).view(np.uint64)
    assert np.all(np.count_nonzero(words, axis=1) == 1)
    if size == 4096:
        assert len(set(np.argmax(words != 0, axis=1).tolist())) > 8, "it is at many places"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", [1, 1 << 40, 2**56 - 1])
def test_frames_of_a_family_differ_in_one_byte(size: int, family: int) -> None:
    frames = frames_of((np.uint64(family) << np.uint64(8)) + np.arange(256, dtype=np.uint64), size, dedupcore.ONE_BYTE)
    assert np.count_nonzero((frames != frames[0]).any(axis=0)) == 1
    other = frames_of(np.array([(family ^ 1) << 8], np.uint64), size, dedupcore.ONE_BYTE)
    assert np.count_nonzero(frames[0] != other[0]) > (size - 16) * 0.9


def test_families_differ_at_many_places() -> None:
    names = np.arange(1 << 8, 200 << 8, 128, dtype=np.uint64)
    frames = frames_of(names, 4096, dedupcore.ONE_BYTE).reshape(-1, 2, 4096)
    places = np.argmax(frames[:, 0] != frames[:, 1], axis=1)
    assert len(set(places.tolist())) > 180 and places.min() >= 16 and places.max() > 3800


@pytest.mark.parametrize("size", SIZES)
def test_prefixes_are_equal(size: int) -> None:
    names = tricky()[1:]
    frames = frames_of(names, size, dedupcore.PREFIX)
    assert np.all(frames[:, :-8] == frames[0, :-8])
    assert frames[:, -8:].copy().view(np.uint64)[:, 0].tolist() == names.tolist()


def test_noise_is_noise() -> None:
    """All byte values as often as any other, at every place of a word; no word twice."""
    n = 1 << 12
    words = frames_of(np.arange(1, n + 1, dtype=np.uint64), 4096, dedupcore.NOISE).view(np.uint64)
    assert len(np.unique(words[:, 2:])) == words[:, 2:].size
    for place in range(2, 512, 51):
        of_place = words[:, place].copy().view(np.uint8).reshape(n, 8)
        for byte in range(8):
            counts = np.bincount(of_place[:, byte], minlength=256)
            assert abs(((counts - n / 256) ** 2).sum() / (n / 256) - 255) < 6 * 22.6, (place, byte)


def test_the_mix_has_its_weights() -> None:
    names = np.arange(1, 1 << 12, dtype=np.uint64) << np.uint64(8)
    frames = frames_of(names, 64, dedupcore.MIXED)
    shares = np.bincount(frames[:, 8] & 3, minlength=4) / len(names)
    assert np.abs(shares - [2 / 16, 12 / 16, 1 / 16, 1 / 16]).max() < 0.03
    for texture in (dedupcore.SPARSE, dedupcore.NOISE, dedupcore.ONE_BYTE, dedupcore.PREFIX):
        chosen = names[frames[:, 8] & 3 == texture]
        assert np.array_equal(frames_of(chosen, 64, texture), frames[frames[:, 8] & 3 == texture])


# --- borders -----------------------------------------------------------------------------------------------------


@each_texture
@pytest.mark.parametrize("shift", [1, 7])
def test_any_alignment(texture: int, shift: int) -> None:
    names = np.arange(700, dtype=np.uint64)
    buffer = np.full(700 * 512 + 8, 0xA5, np.uint8)
    dedupcore.materialize(names, buffer[shift : shift + 700 * 512], 512, texture)
    assert np.array_equal(buffer[shift : shift + 700 * 512].reshape(700, 512), frames_of(names, 512, texture))
    assert set(buffer[:shift].tolist()) | set(buffer[shift + 700 * 512 :].tolist()) == {0xA5}


def test_any_writable_buffer() -> None:
    names = np.array([5], np.uint64)
    outs: list[Any] = [bytearray(64), np.zeros(8), np.zeros((2, 4), np.int64)]
    for out in outs:
        dedupcore.materialize(names, out, 64, dedupcore.NOISE)
        assert bytes(memoryview(out).cast("B")) == frames_of(names, 64, dedupcore.NOISE).tobytes()
    with pytest.raises(BufferError):
        dedupcore.materialize(names, bytes(64), 64, dedupcore.NOISE)
    dedupcore.materialize(names[:0], bytearray(), 64, dedupcore.NOISE)


def test_large_frames() -> None:
    names = np.array([1, 2], np.uint64)
    for texture in TEXTURES.values():
        frames = frames_of(names, 1 << 21, texture)
        assert [simulated_guests.read_name(frame.tobytes()) for frame in frames[:, :]] == [1, 2]


@pytest.mark.parametrize(
    ("size", "texture", "n_bytes", "message"),
    [
        (32, 1, 32, "frame_size is 32"),
        (96, 1, 96, "frame_size is 96"),
        (0, 1, 0, "out has 0 bytes, but 1 frames of 0 bytes"),
        (64, 5, 64, "texture 5"),
        (64, 1, 63, "out has 63 bytes, but 1 frames of 64 bytes"),
        (64, 1, 128, "out has 128 bytes"),
        (64, 1, 0, "out has 0 bytes"),
        (1 << 63, 1, 64, "out has 64 bytes"),
    ],
)
def test_what_does_not_fit_is_named(size: int, texture: int, n_bytes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dedupcore.materialize(np.array([1], np.uint64), bytearray(n_bytes), size, texture)


KNOWN = {
    "sparse": "a80c8448c6b7d99b9c82cc0cba4b55627f984cf59e0ec7af505134b8f80048ef",
    "noise": "1e8b044222292209e930299778504f4db10cf0096907c15add61270e3b91e2b9",
    "one byte": "cae38f629736cb818facc42b3c61ff60d93ca645f390135536ee0284c55676b0",
    "prefix": "659d0a7a0ccfcdf34dddde399d4f8438a6f178dd06939d765c8af5fb2cc92c72",
    "mixed": "35e205e207c2e1ae7b86b8cbfc442039a3953d98f42af4197b8b3d31b1f3081b",
}


@pytest.mark.parametrize("texture", TEXTURES)
def test_known_answers(texture: str) -> None:
    """They never change: saved layouts are turned into bytes by later versions."""
    names = np.concatenate((np.arange(3000, dtype=np.uint64), np.uint64(1) << np.arange(64, dtype=np.uint64)))
    assert hashlib.sha256(frames_of(names, 512, TEXTURES[texture]).tobytes()).hexdigest() == KNOWN[texture]
