"""A template's names at a guest's places: against a loop, at the borders, and with what does not fit."""

import hashlib
from typing import Any

import numpy as np
import pytest

import dedupcore
from tests import simulated_guests

OWN = 5 << 48


def arguments(**changed: Any) -> dict[str, Any]:
    """Four pages in six, the second in a variable of its own."""
    return {
        "places": np.array([5, 0, 3, 1], np.uint32),
        "names": np.array([10, 20, 30, 40], np.uint64),
        "variables": np.array([0, 1, 0, 0], np.uint16),
        "regions": np.array([7, 7, 8, 8], np.uint8),
        "values": np.array([0, 1 << 40], np.uint64),
        "chances": np.array([0, 0], np.uint32),
        "own": OWN,
        "key": 3,
        "out_names": np.full(6, 99, np.uint64),
        "out_regions": np.full(6, 98, np.uint8),
        **changed,
    }


def test_names_and_regions_come_to_their_places() -> None:
    given = arguments()
    dedupcore.name_pages(**given)
    assert given["out_names"].tolist() == [20 | 1 << 40, 40, 99, 30, 99, 10]
    assert given["out_regions"].tolist() == [7, 8, 98, 8, 98, 7]


def test_pages_diverge_by_their_chance() -> None:
    n = 1 << 16
    given = arguments(
        places=np.arange(n, dtype=np.uint32),
        names=np.ones(n, np.uint64),
        variables=np.repeat(np.arange(4, dtype=np.uint16), n // 4),
        regions=np.zeros(n, np.uint8),
        values=np.zeros(4, np.uint64),
        chances=np.array([0, 1 << 31, 1 << 28, 2**32 - 1], np.uint32),
        out_names=np.zeros(n, np.uint64),
        out_regions=np.zeros(n, np.uint8),
    )
    dedupcore.name_pages(**given)
    own = given["out_names"] != 1
    assert np.array_equal(given["out_names"][own], OWN | np.flatnonzero(own).astype(np.uint64))
    shares = own.reshape(4, -1).mean(axis=1)
    assert shares[0] == 0 and shares[3] > 0.999
    assert abs(shares[1] - 1 / 2) < 0.03 and abs(shares[2] - 1 / 16) < 0.015
    for i in range(0, n, 997):
        assert own[i] == (simulated_guests.random(3, i) >> 32 < [0, 1 << 31, 1 << 28, 2**32 - 1][i // (n // 4)])
    digest = hashlib.sha256(given["out_names"].tobytes()).hexdigest()
    assert digest == "e639d6fc099605152aba30aa862ce9ecf987b6c158800b74531051b0b442809f", (
        "it never changes: layouts depend on it"
    )


def test_parts_of_a_template_are_the_whole() -> None:
    n = 1000
    rng = np.random.default_rng(0)
    common: dict[str, Any] = {
        "values": np.zeros(1, np.uint64),
        "chances": np.array([1 << 30], np.uint32),
        "own": OWN,
        "key": 5,
    }
    pages: dict[str, Any] = {
        "places": rng.permutation(n).astype(np.uint32),
        "names": np.arange(n, dtype=np.uint64),
        "variables": np.zeros(n, np.uint16),
        "regions": rng.integers(0, 256, n, np.uint8),
    }
    whole: dict[str, Any] = {"out_names": np.zeros(n, np.uint64), "out_regions": np.zeros(n, np.uint8)}
    parts: dict[str, Any] = {"out_names": np.zeros(n, np.uint64), "out_regions": np.zeros(n, np.uint8)}
    dedupcore.name_pages(**pages, **common, **whole)
    for begin, end in ((600, 1000), (0, 1), (1, 600)):
        part = {name: array[begin:end] for name, array in pages.items()}
        dedupcore.name_pages(**part, **common, **parts, first=begin)
    assert np.array_equal(whole["out_names"], parts["out_names"])
    assert np.array_equal(whole["out_regions"], parts["out_regions"])


def test_no_pages() -> None:
    empty = arguments(
        places=np.zeros(0, np.uint32),
        names=np.zeros(0, np.uint64),
        variables=np.zeros(0, np.uint16),
        regions=np.zeros(0, np.uint8),
    )
    dedupcore.name_pages(**empty)
    nothing = {"values": np.zeros(0, np.uint64), "chances": np.zeros(0, np.uint32), "out_names": np.zeros(0, np.uint64)}
    dedupcore.name_pages(**{**empty, **nothing, "out_regions": np.zeros(0, np.uint8)})
    assert set(empty["out_names"].tolist()) == {99}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"places": np.array([5, 0, 6, 9], np.uint32)}, r"places\[2\] is 6, but the guest has 6 pages"),
        ({"places": np.array([5, 0, 2**32 - 1, 1], np.uint32)}, r"places\[2\] is 4294967295"),
        ({"variables": np.array([0, 0, 2, 9], np.uint16)}, r"variables\[2\] is 2, but there are 2"),
        (
            {"values": np.zeros(0, np.uint64), "chances": np.zeros(0, np.uint32)},
            r"variables\[0\] is 0, but there are 0",
        ),
        ({"out_names": np.zeros(0, np.uint64), "out_regions": np.zeros(0, np.uint8)}, r"places\[0\] is 5"),
        ({"names": np.zeros(3, np.uint64)}, "names has 3 items, but places 4"),
        ({"variables": np.zeros(5, np.uint16)}, "variables has 5 items, but places 4"),
        ({"regions": np.zeros(0, np.uint8)}, "regions has 0 items, but places 4"),
        ({"chances": np.zeros(3, np.uint32)}, "chances has 3 items, but values 2"),
        ({"out_regions": np.zeros(5, np.uint8)}, "out_regions has 5 items, but out_names 6"),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, Any], message: str) -> None:
    given = arguments(**changed)
    with pytest.raises(ValueError, match=message):
        dedupcore.name_pages(**given)


def test_pages_before_the_one_at_fault_are_written_and_no_other() -> None:
    given = arguments(places=np.array([5, 0, 6, 1], np.uint32))
    with pytest.raises(ValueError, match=r"places\[2\]"):
        dedupcore.name_pages(**given)
    assert given["out_names"].tolist() == [20 | 1 << 40, 99, 99, 99, 99, 10]
