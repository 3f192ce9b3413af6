"""Where pages lie in a guest: what the buddy allocator of dedupcore.place promises, at its borders."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dedupcore
from tests import simulated_guests

ALWAYS = 1 << 32


def place(
    n_pages: int,
    counts: Sequence[int],
    orders: Sequence[int] | None = None,
    fixed: Sequence[int] | None = None,
    *,
    fragmentation: float = 0.0,
    key: int = 1,
) -> NDArray[np.uint32]:
    places = np.full(sum(counts), 2**32 - 1, np.uint32)
    dedupcore.place(
        key,
        n_pages,
        fragmentation,
        np.array(counts, np.int64),
        np.array([10] * len(counts) if orders is None else orders, np.uint8),
        np.array([-1] * len(counts) if fixed is None else fixed, np.int64),
        places,
    )
    return places


@pytest.mark.parametrize("fragmentation", [0.0, 0.25, 0.93, 1.0])
@pytest.mark.parametrize("n_pages", [1, 2, 511, 1023, 1024, 1025, 2047, 5000])
@pytest.mark.parametrize("order", [0, 3, 10])
def test_full_memory(n_pages: int, fragmentation: float, order: int) -> None:
    counts = [n_pages // 3, 0, n_pages - n_pages // 3]
    places = place(n_pages, counts, [order] * 3, fragmentation=fragmentation)
    assert sorted(places.tolist()) == list(range(n_pages))
    expected = simulated_guests.place(1, n_pages, int(fragmentation * ALWAYS), counts, [order] * 3, [-1] * 3)
    assert places.tolist() == expected


def test_no_fragmentation_is_ascending_order() -> None:
    assert place(4096, [1000, 1000, 999], [0] * 3).tolist() == list(range(2999))
    assert place(3000, [3000]).tolist() == list(range(3000))
    # The smallest block that will do: the last 8 pages are split for the first.
    assert place(1032, [1, 1024, 6]).tolist() == [1024, *range(1024), *range(1028, 1032), 1026, 1027]
    assert place(1 << 14, [1 << 14], [0]).tolist() == list(range(1 << 14))


@pytest.mark.parametrize("order", [9, 10])
@pytest.mark.parametrize("before", [0, 1, 3, 511])
def test_a_large_page_lies_in_one_aligned_block(order: int, before: int) -> None:
    places = place(8192, [before, 512, 1, 1024], [0, order, 0, order])[before:]
    for large in (places[:512], places[513 : 513 + 512], places[513 + 512 :]):
        assert large[0] % 512 == 0 and np.array_equal(large, large[0] + np.arange(512))


@pytest.mark.parametrize("order", range(11))
def test_blocks_are_as_large_as_the_region_allows_and_no_larger(order: int) -> None:
    """In memory in random order, adjacent pages show the blocks: of 2^order pages, each aligned."""
    n_pages = 1 << 16
    places = place(n_pages, [n_pages], [order], fragmentation=1e-9)
    blocks = places.reshape(-1, 1 << order)
    assert np.all(blocks[:, 0] % (1 << order) == 0)
    assert np.array_equal(blocks, blocks[:, :1] + np.arange(1 << order))


def test_fragmentation_splits_so_many_blocks() -> None:
    """A free block keeps 2^order pages with the probability of that many splits and no more; six deviations."""
    n_pages, split = 1 << 20, 0.75
    places = place(n_pages, [n_pages], fragmentation=split).astype(np.int64)
    whole = sum(bool(block[0] % 1024 == 0 and np.all(np.diff(block) == 1)) for block in places.reshape(-1, 1024))
    mean = n_pages // 1024 * (1 - split)
    assert abs(whole - mean) < 6 * (mean * split) ** 0.5
    single = place(n_pages, [n_pages], fragmentation=1.0).astype(np.int64)
    assert np.count_nonzero(np.diff(single) == 1) < 10
    assert np.all(np.bincount(single[: n_pages // 2] >> 16, minlength=16) > n_pages / 2 / 16 * 0.9)


def test_another_key_is_another_layout() -> None:
    one, same, other = (place(4096, [4000], [0], fragmentation=1.0, key=key) for key in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.count_nonzero(one == other) < 10


@pytest.mark.parametrize("fragmentation", [0.0, 0.93])
def test_fixed_regions(fragmentation: float) -> None:
    counts, fixed = [3, 0, 1000, 40, 2, 955], [0, 7, -1, 1960, 1500, -1]
    places = place(2000, counts, fixed=fixed, fragmentation=fragmentation)
    assert places[:3].tolist() == [0, 1, 2]
    assert places[1003:1045].tolist() == [*range(1960, 2000), 1500, 1501]
    assert sorted(places.tolist()) == list(range(2000))
    split = int(fragmentation * ALWAYS + 0.5)
    assert places.tolist() == simulated_guests.place(1, 2000, split, counts, [10] * 6, fixed)


def test_all_of_memory_is_fixed() -> None:
    assert place(5, [2, 3], fixed=[3, 0], fragmentation=1.0).tolist() == [3, 4, 0, 1, 2]


def test_known_answer() -> None:
    """It never changes: layouts depend on it."""
    places = place(
        100_000, [3, 512, 40_000, 5, 30_000, 20_000], [0, 10, 9, 10, 0, 4], [77, -1, -1, 99_995, -1, -1],
        fragmentation=0.93, key=2024,
    )  # fmt: skip
    assert (
        hashlib.sha256(places.tobytes()).hexdigest()
        == "9a881e706de024491d0e0f0cbad82ed6f14347eff61f44a32c4935d9232aa7e0"
    )


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_counts_of_either_sign(kind: type) -> None:
    places = np.zeros(3, np.uint32)
    dedupcore.place(1, 3, 0.0, np.array([1, 2], kind), b"\0\0", np.array([-1, -1]), places)
    assert places.tolist() == [2, 0, 1]


def test_nothing_to_place() -> None:
    assert place(0, []).tolist() == place(100, []).tolist() == place(0, [0, 0]).tolist() == []
    assert place(100, [0], fixed=[100], fragmentation=1.0).tolist() == []


def test_the_largest_memory_takes_memory_by_its_blocks() -> None:
    """2^32 - 1 pages in whole blocks are four million, 16 MiB of scratch."""
    places = place(2**32 - 1, [2048, 1, 3], fixed=[-1, 2**32 - 2, -1])
    assert places.tolist() == [*range(2048), 2**32 - 2, 2**32 - 4, 2**32 - 3, 2**32 - 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_pages": 9, "counts": [4, 6]}, r"counts\[1\] is 6, but of 9 pages 5 are left"),
        ({"n_pages": 9, "counts": [4, -1]}, r"counts\[1\] is -1"),
        ({"n_pages": 9, "counts": [2**63 - 1, 2**63 - 1, 3]}, r"counts\[0\] is 9223372036854775807"),
        ({"n_pages": 2**32, "counts": [1]}, r"n_pages is 4294967296; at most 2\^32 - 1"),
        ({"n_pages": 9, "counts": [1, 1], "orders": [10, 11]}, r"max_orders\[1\] is 11; at most 10"),
        ({"n_pages": 9, "counts": [1, 2], "fixed": [-1, 8]}, r"fixed\[1\] is 8, where 2 pages do not fit in 9"),
        ({"n_pages": 9, "counts": [1, 2], "fixed": [-2, -1]}, r"fixed\[0\] is -2"),
        ({"n_pages": 9, "counts": [0], "fixed": [10]}, r"fixed\[0\] is 10"),
        ({"n_pages": 9, "counts": [0], "fixed": [2**63 - 1]}, r"fixed\[0\] is 9223372036854775807"),
        (
            {"n_pages": 9, "counts": [3, 1], "fixed": [2, 4]},
            r"fixed\[1\] is 4, but another region lies there up to page 5",
        ),
        ({"n_pages": 9, "counts": [1, 3], "fixed": [4, 2]}, r"fixed\[0\] is 4"),
        ({"n_pages": 9, "counts": [2, 2], "fixed": [3, 3]}, r"fixed\[1\] is 3"),
        ({"n_pages": 9, "counts": [1], "fragmentation": 1.001}, r"fragmentation is 1\.001"),
        ({"n_pages": 9, "counts": [1], "fragmentation": -0.1}, r"fragmentation is -0\.1"),
        ({"n_pages": 9, "counts": [1], "fragmentation": float("nan")}, r"fragmentation is nan"),
        ({"n_pages": 9, "counts": [1, 1], "orders": [1]}, r"counts has 2 items, max_orders 1 and fixed 2"),
        ({"n_pages": 9, "counts": [1, 1], "fixed": [1]}, r"counts has 2 items, max_orders 2 and fixed 1"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        n = arguments.pop("n_pages")
        counts = arguments.pop("counts")
        orders = arguments.pop("orders", [10] * len(counts))
        fixed = arguments.pop("fixed", [-1] * len(counts))
        total = sum(counts) if 0 <= sum(counts) < 100 else 1
        dedupcore.place(
            1,
            n,
            arguments.pop("fragmentation", 0.5),
            np.array(counts, np.int64),
            np.array(orders, np.uint8),
            np.array(fixed, np.int64),
            np.zeros(total, np.uint32),
        )


@pytest.mark.parametrize("n", [0, 2, 4])
def test_room_for_the_places(n: int) -> None:
    with pytest.raises(ValueError, match=rf"places has {n} items, but the regions have 3 pages"):
        dedupcore.place(1, 9, 0.5, np.array([3]), b"\0", np.array([-1]), np.zeros(n, np.uint32))
