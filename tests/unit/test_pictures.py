"""The numbers behind the pictures, against brute force."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagedup.sharing.pictures as module
from pagedup import Duplicates, Extent, find_duplicates
from pagedup.sharing.pictures import GuestMatrix, Kind, MemoryMap, guest_matrix, memory_map
from tests import brute_force
from tests.property.memories import Case, cases


def names(*guests: Sequence[int]) -> Duplicates:
    """Guests whose frames are these 8-byte names."""
    return find_duplicates([np.array(guest, np.uint64) for guest in guests], frame_size=8)


def expected_kinds(snapshot: brute_force.Snapshot) -> list[list[Kind]]:
    """For each guest the kinds of its frames."""
    held: dict[tuple[Hashable, bytes], list[int]] = defaultdict(list)
    for frame in snapshot.frames:
        held[snapshot.domains[frame.guest], frame.content].append(frame.guest)
    kinds: list[list[Kind]] = [[] for _ in snapshot.domains]
    for frame in snapshot.frames:
        holders = held[snapshot.domains[frame.guest], frame.content]
        if not any(frame.content):
            kind = Kind.ZERO
        elif len(set(holders)) > 1:
            kind = Kind.ACROSS
        else:
            kind = Kind.WITHIN if len(holders) > 1 else Kind.UNIQUE
        kinds[frame.guest].append(kind)
    return kinds


def check_map(found: MemoryMap, snapshot: brute_force.Snapshot, cells: int) -> None:
    kinds = expected_kinds(snapshot)
    assert [strip.guest for strip in found.strips] == [guest for guest, own in enumerate(kinds) if own]
    assert found.left_out == sum(not own for own in kinds)
    for strip in found.strips:
        own = kinds[strip.guest]
        addresses = [frame.address for frame in snapshot.frames if frame.guest == strip.guest]
        assert (strip.first_address, strip.last_address) == (addresses[0], addresses[-1])
        n_cells = min(cells, len(own))
        assert strip.kinds.shape == (n_cells, len(Kind))
        sizes = strip.kinds.sum(axis=1)
        assert sizes.max() - sizes.min() <= 1
        starts = np.concatenate(([0], np.cumsum(sizes))).tolist()
        for cell in range(n_cells):
            part = own[starts[cell] : starts[cell + 1]]
            assert strip.kinds[cell].tolist() == [part.count(kind) for kind in Kind]
        jumps = set()
        for frame in range(1, len(own)):
            if addresses[frame] != addresses[frame - 1] + snapshot.frame_size:
                jumps.add(next(cell for cell in range(n_cells) if starts[cell] <= frame < starts[cell + 1]))
        assert strip.jumps.tolist() == sorted(jumps)


def check_matrix(found: GuestMatrix, snapshot: brute_force.Snapshot) -> None:
    assert found.guests == tuple(range(len(snapshot.domains)))
    assert found.left_out == 0
    contents: list[list[tuple[Hashable, bytes]]] = [[] for _ in snapshot.domains]
    for frame in snapshot.frames:
        if any(frame.content):
            contents[frame.guest].append((snapshot.domains[frame.guest], frame.content))
    assert found.pages.tolist() == [[sum(page in set(other) for page in own) for other in contents] for own in contents]


@settings(max_examples=200)
@given(cases([8, 16, 512, 4096], max_frames=12), st.integers(1, 20))
def test_both_are_those_of_brute_force(case: Case, cells: int) -> None:
    snapshot = brute_force.snapshot([guest.extents for guest in case.guests], case.frame_size, case.domains)
    found = find_duplicates(case.memory(), frame_size=case.frame_size, domains=case.domains, threads=case.threads)
    check_map(memory_map(found, cells=cells), snapshot, cells)
    check_matrix(guest_matrix(found), snapshot)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    found = names(*(random.integers(0, 40, n).tolist() for n in (63, 64, 65, 1)))
    whole_map, whole_matrix = memory_map(found, cells=7), guest_matrix(found)
    monkeypatch.setattr(module, "_CHUNK", 8)
    assert [strip.kinds.tolist() for strip in memory_map(found, cells=7).strips] == [
        strip.kinds.tolist() for strip in whole_map.strips
    ]
    assert guest_matrix(found).pages.tolist() == whole_matrix.pages.tolist()


@pytest.mark.parametrize(("n", "left_out"), [(31, 0), (32, 0), (33, 1), (40, 8)])
def test_of_many_guests_the_largest_have_strips(n: int, left_out: int) -> None:
    found = memory_map(names(*([guest + 1] * (guest % 7 + 1) for guest in range(n))))
    assert found.left_out == left_out
    chosen = sorted(range(n), key=lambda guest: (-(guest % 7), guest))[: n - left_out]
    assert [strip.guest for strip in found.strips] == sorted(chosen)


@pytest.mark.parametrize(("n", "left_out"), [(32, 0), (33, 1), (40, 8)])
def test_of_many_guests_those_that_share_most_are_in_the_matrix(n: int, left_out: int) -> None:
    """All but guest 5 share the frame 7, guest 39 also the frame 8 with guest 38."""
    guests = [[7] if guest != 5 else [9, 9, 9, 9] for guest in range(n)]
    guests[-1] = guests[-2] = [7, 7, 8]
    found = guest_matrix(names(*guests))
    assert found.left_out == left_out
    assert (5 in found.guests) == (left_out == 0)
    assert found.guests[-2:] == (n - 2, n - 1)
    assert found.pages[-1].tolist() == [2 * (guest != 5) for guest in found.guests[:-2]] + [3, 3]
    assert found.pages[0].tolist() == [int(guest != 5) for guest in found.guests]


def test_nothing_at_all() -> None:
    assert memory_map(names()).strips == ()
    assert guest_matrix(names()).pages.shape == (0, 0)
    empty = names([], [])
    assert (memory_map(empty).strips, memory_map(empty).left_out) == ((), 2)
    assert guest_matrix(empty).pages.tolist() == [[0, 0], [0, 0]]


def test_memory_up_to_the_highest_address() -> None:
    top = (1 << 64) - 16
    memory = np.array([1, 1], np.uint64).data
    (strip,) = memory_map(find_duplicates([[Extent(0, memory), Extent(top, memory)]], frame_size=8)).strips
    assert (strip.first_address, strip.last_address) == (0, top + 8)
    assert strip.jumps.tolist() == [2]


def test_cells_must_be_positive() -> None:
    with pytest.raises(ValueError, match="cells is 0; it must be 1 or more"):
        memory_map(names([1]), cells=0)
