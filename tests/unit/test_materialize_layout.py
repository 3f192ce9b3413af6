"""Bytes of layouts: zero, absent and other pages, in memory of their own and in buffers given."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pagedup.guests import Texture, materialize
from pagedup.memory.layouts import ABSENT, NameKind
from tests.layouts import PAGE, make

NAMES = [0, ABSENT, 5, 5, 6, 0x105, ABSENT, 0]


@pytest.mark.parametrize("texture", Texture)
def test_equal_names_have_equal_bytes_and_absent_pages_none(texture: Texture) -> None:
    pages = materialize(make(NAMES), texture=texture)
    assert pages.shape == (8, PAGE) and pages.dtype == np.uint8
    assert not pages[[0, 1, 6, 7]].any()
    assert (pages[2] == pages[3]).all()
    assert len({page.tobytes() for page in pages}) == 4
    assert all(pages[index].any() for index in (2, 4, 5))
    assert (materialize(make(NAMES), texture=str(texture)) == pages).all()


def differing(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.count_nonzero(one != other))


def test_textures_look_as_they_say() -> None:
    noise, sparse, one_byte, prefix = (
        materialize(make([0x501, 0x502, 0x901]), texture=texture)
        for texture in (Texture.NOISE, Texture.SPARSE, Texture.ONE_BYTE, Texture.PREFIX)
    )
    assert differing(noise[0], noise[1]) > PAGE * 0.98
    assert (np.count_nonzero(sparse.view(np.uint64), axis=1) == 1).all()
    assert differing(one_byte[0], one_byte[1]) == 1 and differing(one_byte[0], one_byte[2]) > PAGE * 0.98
    assert (prefix[:, : PAGE - 8] == prefix[0, : PAGE - 8]).all() and differing(prefix[0], prefix[2]) == 1


def test_bytes_never_change() -> None:
    """On any machine, in any version: what was published stays comparable."""
    digests = {
        str(texture): hashlib.blake2b(materialize(make(NAMES), texture=texture).tobytes(), digest_size=8).hexdigest()
        for texture in Texture
    }
    assert digests == KNOWN


KNOWN = {
    "noise": "46bfe19d7f5ff2f1",
    "sparse": "51bdfc5feb5232d2",
    "one-byte": "eb5685b9ee93eb14",
    "prefix": "3d7ac08c4109af15",
    "mixed": "99c0681581086160",
}


def test_into_a_buffer() -> None:
    out = np.full((8, PAGE), 0xAB, np.uint8)
    assert materialize(make(NAMES), out) is out
    expected = materialize(make(NAMES))
    present = make(NAMES).present
    assert (out[present] == expected[present]).all()
    assert (out[~present] == 0xAB).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((7, PAGE), np.uint8),
        np.zeros((8, PAGE // 2), np.uint8),
        np.zeros(8 * PAGE, np.uint8),
        np.zeros((8, PAGE), np.int8),
        np.zeros((PAGE, 8), np.uint8).T,
        np.zeros((16, PAGE), np.uint8)[::2],
        np.frombuffer(bytes(8 * PAGE), np.uint8).reshape(8, PAGE),
    ],
)
def test_a_buffer_that_does_not_fit(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"out is u?int8 \(.*\); it must be writeable, contiguous uint8 \(8, 4096\)"):
        materialize(make(NAMES), out)


def test_a_texture_that_there_is_none_of() -> None:
    with pytest.raises(ValueError, match="velvet"):
        materialize(make(NAMES), texture="velvet")


def test_no_pages_and_only_absent_ones() -> None:
    assert materialize(make([])).shape == (0, PAGE)
    assert not materialize(make([ABSENT] * 3)).any()


def test_many_pages_at_once_and_one_by_one() -> None:
    """More than one step of the work, with absent stretches across the steps."""
    names = np.arange(1, 40_001, dtype=np.uint64)
    names[16_000:17_000] = ABSENT
    pages = materialize(make(names))
    for index in (0, 15_999, 17_000, 16_384 + 1000, 32_767, 32_768, 39_999):
        assert (pages[index] == materialize(make(names[index : index + 1]))[0]).all()
    assert not pages[16_000:17_000].any()


def test_threads_side_by_side() -> None:
    layouts = [make(np.arange(1, 3000) + index) for index in range(8)]
    expected = [materialize(layout).tobytes() for layout in layouts]
    with ThreadPoolExecutor(8) as pool:
        assert [pages.tobytes() for pages in pool.map(materialize, layouts)] == expected


@pytest.mark.parametrize("kind", [NameKind.REAL, NameKind.MOVED])
def test_pages_of_real_files_that_nobody_has(kind: NameKind) -> None:
    with pytest.raises(ValueError, match="vm: holds pages of real files, whose bytes only the generated layout knows"):
        materialize(make([1, int(kind) << 60 | 7]))
